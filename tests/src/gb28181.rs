//! GB28181 end to end: a daemon that devices register with, simulated devices, and what is stored of them beside what they say they sent.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use corenvr_gb28181_device::{Deviation, Device, DeviceConfig, Event, SessionId, SessionLog, Source, Track, UnitLog};
use serde_json::Value;

use crate::{
    daemon::{Camera, Daemon},
    process::{free_port, wait_for},
    units::{self, Unit},
};

/// The platform of every test.
pub const SERVER_ID: &str = "34020000002000000001";
/// Its password.
pub const PASSWORD: &str = "test-password-1";

/// The `n`th device of a test.
pub fn device_id(n: usize) -> String {
    format!("340200000013200{n:05}")
}

/// Its channel.
pub fn channel_id(n: usize) -> String {
    DeviceConfig::channels_of(&device_id(n), 1)[0].id.clone()
}

/// A daemon with a `[gb28181]` section.
pub struct Platform {
    /// It.
    pub daemon: Daemon,
    /// Where devices register.
    pub sip: SocketAddr,
}

impl Platform {
    /// Configures a daemon; `keys` are added to `[gb28181]`.
    pub fn new(keys: &str, cameras: &[Camera]) -> Self {
        Self::with_ports(&format!("password = \"{PASSWORD}\"\n{keys}"), 250, cameras)
    }

    /// As [`Self::new`], with this many media ports and without a password: `keys` may have one.
    pub fn with_ports(keys: &str, ports: u16, cameras: &[Camera]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut daemon = Daemon::new("", cameras);
        let port = free_port();
        // Tests run side by side, each with a range of its own; a pair that another program has is passed over.
        let range = std::process::id() + 5 * COUNT.fetch_add(1, Ordering::Relaxed);
        let media = 10_000 + u16::try_from(range % 36).unwrap() * 250;
        daemon.sections = format!(
            "[gb28181]\nlisten = \"127.0.0.1:{port}\"\nid = \"{SERVER_ID}\"\nmedia_ports = \"{media}-{}\"\n{keys}\n",
            media + ports - 1
        );
        daemon.configure("", cameras);
        Self {
            daemon,
            sip: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }

    /// What a device of this platform is told.
    pub fn device(&self, n: usize, source: &Arc<Source>) -> DeviceConfig {
        let mut config = DeviceConfig::new(self.sip, SERVER_ID, &device_id(n), PASSWORD, source.clone());
        config.register_retry = Duration::from_secs(1);
        // Most devices outlive the platform here, and would wait for its answer.
        config.unregister_on_drop = false;
        config
    }

    /// Starts a device that does these things wrong.
    pub fn start_device(&self, n: usize, source: &Arc<Source>, deviations: &[Deviation]) -> Device {
        let mut config = self.device(n, source);
        config.deviations = deviations.iter().copied().collect();
        Device::start(config).unwrap()
    }

    /// Everything stored of a camera.
    pub fn stored(&self, camera: &str) -> Vec<Unit> {
        let files = self.daemon.segments(camera);
        units::of_files(files.iter().map(AsRef::<Path>::as_ref))
    }

    /// A device as `corenvr gb28181 devices` shows it; null if it never registered.
    pub fn device_view(&self, id: &str) -> Value {
        find(&self.daemon.json(&["gb28181", "devices"])["devices"], "id", id)
    }

    /// A device that was refused, as `corenvr gb28181 devices` shows it; null if it was not.
    pub fn refused_view(&self, id: &str) -> Value {
        find(&self.daemon.json(&["gb28181", "devices"])["refused"], "id", id)
    }

    /// Waits until a camera's reason, whatever its state, has these words in it.
    pub fn wait_reason(&self, camera: &str, words: &str, limit: Duration) -> Value {
        let begun = Instant::now();
        loop {
            let status = self.status(camera);
            if status["reason"].as_str().is_some_and(|r| r.contains(words)) {
                return status;
            }
            assert!(
                begun.elapsed() < limit,
                "{camera} does not say {words:?} within {} s: {status:#}\n{}",
                limit.as_secs(),
                self.daemon.log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until `corenvr gb28181 devices` shows a device online, or not.
    pub fn wait_online(&self, id: &str, online: bool, limit: Duration) -> Value {
        wait_for(&format!("{id} online: {online}"), limit, || {
            let view = self.device_view(id);
            (view["online"] == online).then_some(view)
        })
    }

    /// The causes of the gaps in what is recorded of a camera.
    pub fn gaps(&self, camera: &str) -> Vec<String> {
        let timeline = self.daemon.json(&["recordings", camera]);
        let gaps = timeline["gaps"].as_array().cloned().unwrap_or_default();
        gaps.iter()
            .filter_map(|g| g["cause"].as_str().map(Into::into))
            .collect()
    }

    /// The status code of an RTSP DESCRIBE of `NAME` or `NAME?start=..`.
    pub fn describe(&self, rest: &str) -> u16 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.daemon.rtsp_port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let url = self.daemon.rtsp(rest);
        write!(
            stream,
            "DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
        )
        .unwrap();
        let mut answer = [0; 512];
        let len = stream.read(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer[..len]).into_owned();
        text.split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| panic!("{text}"))
    }

    /// A camera's status.
    pub fn status(&self, camera: &str) -> Value {
        let status = self.daemon.json(&["status"]);
        let cameras = status["cameras"].as_array().unwrap();
        cameras
            .iter()
            .find(|c| c["name"] == camera)
            .cloned()
            .unwrap_or_default()
    }

    /// Waits until a camera is in a state; panics with its status and the log otherwise.
    pub fn wait_state(&self, camera: &str, state: &str, limit: Duration) -> Value {
        let begun = Instant::now();
        loop {
            let status = self.status(camera);
            if status["state"] == state {
                return status;
            }
            assert!(
                begun.elapsed() < limit,
                "{camera} is not {state} within {} s: {status:#}\n{}",
                limit.as_secs(),
                self.daemon.log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn find(list: &Value, key: &str, wanted: &str) -> Value {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().find(|v| v[key] == wanted).cloned().unwrap_or_default()
}

/// How often something happened to a device.
pub fn count_events(device: &Device, wanted: impl Fn(&Event) -> bool) -> usize {
    device
        .log()
        .with(|s| s.events.iter().filter(|e| wanted(&e.event)).count())
}

/// The newest session of a device.
pub fn newest(device: &Device) -> Option<SessionId> {
    device.log().with(|s| s.sessions.last().map(|s| s.id))
}

/// The INVITEs that a device was sent, one for each Call-ID: their texts.
pub fn invites(device: &Device) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let mut texts = Vec::new();
    device.log().with(|s| {
        for sip in s.sip.iter().filter(|t| !t.sent && t.text.starts_with("INVITE ")) {
            let call_id = sip
                .text
                .lines()
                .find(|l| l.to_ascii_lowercase().starts_with("call-id:"));
            if seen.insert(call_id.unwrap_or_default().to_owned()) {
                texts.push(sip.text.clone());
            }
        }
    });
    texts
}

/// Somebody who speaks SIP over UDP by hand.
pub struct ByHand {
    socket: UdpSocket,
    to: SocketAddr,
    count: u32,
}

impl ByHand {
    /// From this address of the loopback.
    pub fn new(from: [u8; 4], to: SocketAddr) -> Self {
        let socket = UdpSocket::bind((IpAddr::V4(Ipv4Addr::from(from)), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
        Self { socket, to, count: 0 }
    }

    /// Sends bytes as they are.
    pub fn send(&self, bytes: &[u8]) {
        // A full buffer is the receiver's business.
        drop(self.socket.send_to(bytes, self.to));
    }

    /// A request with this body in the name of a device, with `more` header lines.
    pub fn request(&mut self, method: &str, from: &str, more: &str, body: &str) -> String {
        self.count += 1;
        let (n, local) = (self.count, self.socket.local_addr().unwrap());
        let unique = format!("{}{n}", local.port());
        format!(
            "{method} sip:{SERVER_ID}@3402000000 SIP/2.0\r\nVia: SIP/2.0/UDP {local};rport;branch=z9hG4bK{unique}\r\n\
             From: <sip:{from}@3402000000>;tag={unique}\r\nTo: <sip:{SERVER_ID}@3402000000>\r\nCall-ID: {unique}\r\n\
             CSeq: {n} {method}\r\nContact: <sip:{from}@{local}>\r\nMax-Forwards: 70\r\n{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// The status of the next answer; `None` if none comes.
    pub fn status(&self) -> Option<u16> {
        let mut buffer = [0; 4096];
        let (len, _) = self.socket.recv_from(&mut buffer).ok()?;
        String::from_utf8_lossy(&buffer[..len]).split(' ').nth(1)?.parse().ok()
    }
}

/// The access units of one track that a session sent, in order.
pub fn sent(session: &SessionLog, track: Track) -> Vec<&UnitLog> {
    session.units.iter().filter(|u| u.track == track).collect()
}

/// Where in `sent` what is stored begins, if all of it is there in order without a hole.
pub fn find_run(stored: &[&Unit], sent: &[&UnitLog]) -> Option<usize> {
    (0..=sent.len().checked_sub(stored.len())?).find(|&at| {
        stored
            .iter()
            .zip(&sent[at..])
            .all(|(stored, sent)| stored.slices == sent.slices_sha256)
    })
}

/// Asserts that what is stored of a track is what a session sent: every unit from its first on, bit for bit, and all but `tail` of the last.
/// Returns where it begins.
pub fn assert_stored(what: &str, stored: &[Unit], session: &SessionLog, track: Track, tail: usize) -> usize {
    let stored: Vec<&Unit> = stored.iter().filter(|u| u.video == (track == Track::Video)).collect();
    let sent = sent(session, track);
    assert!(
        !stored.is_empty(),
        "{what}: nothing is stored of {track:?}, {} units were sent",
        sent.len()
    );
    let at = find_run(&stored, &sent).unwrap_or_else(|| {
        let known = |u: &Unit| sent.iter().position(|s| s.slices_sha256 == u.slices);
        let places: Vec<_> = stored.iter().map(|u| known(u)).collect();
        panic!(
            "{what}: {track:?}: what is stored is no stretch of what was sent ({} units): {places:?}",
            sent.len()
        );
    });
    let missing = sent.len() - at - stored.len();
    assert!(
        missing <= tail,
        "{what}: the last {missing} of {} units of {track:?} are not stored",
        sent.len()
    );
    at
}

/// Asserts that stored times have the spacing of the time stamps sent, within `tolerance_ms`.
pub fn assert_times(what: &str, stored: &[Unit], session: &SessionLog, track: Track, tolerance_ms: i64) {
    let stored: Vec<&Unit> = stored.iter().filter(|u| u.video == (track == Track::Video)).collect();
    let sent = sent(session, track);
    let at = find_run(&stored, &sent).expect("compared before");
    for (unit, log) in stored.iter().zip(&sent[at..]) {
        let spacing = (log.pts_90k - sent[at].pts_90k) / 90;
        let off = unit.time_ms - stored[0].time_ms - spacing;
        assert!(
            off.abs() <= tolerance_ms,
            "{what}: {track:?} lies {off} ms off at {spacing} ms"
        );
    }
}
