//! GB28181 under attack: media of strangers, floods, and SIP messages made to hurt, beside cameras that go on being recorded bit for bit.
#![allow(clippy::unwrap_used)]

use std::{
    fmt::Write as _,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use corenvr_gb28181_device::{Deviation, Device, Event, SessionId, SessionLog, Source, Track, clips};
use corenvr_media::{AudioCodec, VideoCodec};
use corenvr_tests::{
    daemon::Camera,
    gb28181::{ByHand, Platform, assert_stored, channel_id, count_events, device_id},
};

const SOON: Duration = Duration::from_secs(20);
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

fn clip() -> Arc<Source> {
    static CLIP: OnceLock<Arc<Source>> = OnceLock::new();
    CLIP.get_or_init(|| clips::encoded(VideoCodec::H264, Some(AudioCodec::Pcma), 4))
        .clone()
}

fn platform(queries: &[&str]) -> Platform {
    let cameras: Vec<Camera> = queries
        .iter()
        .enumerate()
        .map(|(n, query)| {
            let url = format!("gb28181://{}/{}?transport={query}", device_id(n), channel_id(n));
            Camera::new(&format!("cam{n}"), &url, "auto")
        })
        .collect();
    let mut platform = Platform::new("", &cameras);
    platform.daemon.start();
    platform
}

fn session(device: &Device, id: SessionId) -> SessionLog {
    device.log().session(id).unwrap()
}

/// Compares everything recorded of each camera with its one session.
fn assert_undisturbed(mut platform: Platform, devices: &[Device], sessions: &[SessionId]) {
    let status = platform.daemon.json(&["status"]);
    platform.daemon.stop();
    for (n, device) in devices.iter().enumerate() {
        let name = format!("cam{n}");
        let all = status["cameras"].as_array().unwrap();
        let counters = &all.iter().find(|c| c["name"] == name.as_str()).unwrap()["counters"];
        for key in ["packets_lost", "frames_damaged", "frames_dropped"] {
            assert_eq!(counters[key], 0, "{name}: {key}: {counters}");
        }
        assert_eq!(counters["connects"], 1, "{name}: {counters}");
        let log = session(device, sessions[n]);
        for (track, tail) in [(Track::Video, 25), (Track::Audio, 40)] {
            assert_stored(&name, &platform.stored(&name), &log, track, tail);
        }
    }
}

/// An RTP packet with a program stream that would be a picture of somebody else.
fn packet(ssrc: u32, seq: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend(seq.to_be_bytes());
    packet.extend(u32::from(seq).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0, 0, 1, 0xBA, 0x44, 0, 4, 0, 4, 1, 0, 0, 3, 0xF8]);
    packet.extend([0, 0, 1, 0xE0, 0, 20, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1]);
    packet.extend([0, 0, 0, 1, 0x65, 0x88, 0x84, 0, 1, 2, 3, 4]);
    packet
}

#[test]
fn media_of_strangers_does_not_disturb() {
    let platform = platform(&["udp", "tcp-passive", "tcp-passive", "udp"]);
    let start = |n: usize, deviations: &[Deviation]| platform.start_device(n, &clip(), deviations);
    let devices = [
        start(0, &[]),
        start(1, &[]),
        start(2, &[Deviation::LateConnect]),
        // Its source is of its own choice: the first one that comes is its.
        start(3, &[Deviation::SsrcOwn]),
    ];
    let sessions: Vec<SessionId> = devices
        .iter()
        .map(|d| d.wait_invite(SOON).expect("it is invited"))
        .collect();

    // Before the device comes, somebody else does.
    let late = session(&devices[2], sessions[2]).remote;
    let mut early = connect_from(STRANGER, late).expect("the port is open");
    assert!(is_closed(&mut early), "a stranger's connection is closed");
    for n in [0, 1, 3] {
        assert!(devices[n].wait_units(sessions[n], 50, SOON));
    }
    assert!(devices[2].wait_units(sessions[2], 50, SOON));

    let (from_stranger, from_neighbour) = (bind(STRANGER), bind(Ipv4Addr::LOCALHOST.into()));
    for n in [0, 3] {
        let log = session(&devices[n], sessions[n]);
        for seq in 0..2000u16 {
            for ssrc in [log.ssrc, log.ssrc_asked.unwrap(), 0, 0xDEAD_BEEF] {
                // Addresses that are not there refuse in turn; that is no matter here.
                drop(from_stranger.send_to(&packet(ssrc, seq), log.remote));
                if ssrc != log.ssrc_asked.unwrap() || n == 0 {
                    drop(from_neighbour.send_to(&packet(ssrc, seq), log.remote));
                }
            }
            drop(from_stranger.send_to(&[0x81, 201, 0, 1, 0, 0, 0, 0], with_port(log.remote, 1)));
        }
    }
    // A port with its device on it takes nobody else.
    for n in [1, 2] {
        let remote = session(&devices[n], sessions[n]).remote;
        for from in [STRANGER, Ipv4Addr::LOCALHOST.into()] {
            if let Ok(mut stream) = connect_from(from, remote) {
                assert!(is_closed(&mut stream), "{n} from {from}");
            }
        }
    }
    for (n, device) in devices.iter().enumerate() {
        let sent = session(device, sessions[n]).units_sent;
        assert!(device.wait_units(sessions[n], sent + 150, SOON));
    }
    assert_undisturbed(platform, &devices, &sessions);
}

const fn with_port(mut address: SocketAddr, more: u16) -> SocketAddr {
    address.set_port(address.port() + more);
    address
}

fn bind(from: IpAddr) -> UdpSocket {
    UdpSocket::bind((from, 0)).unwrap()
}

fn connect_from(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&fd, &SocketAddr::new(from, 0))?;
    connect(&fd, &to)?;
    Ok(fd.into())
}

/// Whether the other side ends a connection soon.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(read) => read == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn floods_and_hostile_messages_do_not_disturb() {
    let platform = platform(&["udp", "tcp-passive"]);
    let devices: Vec<Device> = (0..2)
        .map(|n| {
            let mut config = platform.device(n, &clip());
            config.keepalive = Duration::from_secs(2);
            Device::start(config).unwrap()
        })
        .collect();
    let sessions: Vec<SessionId> = devices
        .iter()
        .map(|d| d.wait_invite(SOON).expect("it is invited"))
        .collect();
    for (device, id) in devices.iter().zip(&sessions) {
        assert!(device.wait_units(*id, 50, SOON));
    }
    let channels = platform.device_view(&device_id(0))["channels"].clone();
    let before = rss_kib(platform.daemon.pid());

    hostile_bodies(&platform);
    hostile_connections(&platform);
    flood(&platform);
    let asked = Instant::now();
    platform.daemon.json(&["status"]);
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "status took {:?}",
        asked.elapsed()
    );

    let keepalives = |d: &Device| count_events(d, |e| matches!(e, Event::Keepalive(200)));
    let counted: Vec<usize> = devices.iter().map(keepalives).collect();
    for (device, counted) in devices.iter().zip(counted) {
        let more = |s: &corenvr_gb28181_device::LogState| {
            let answered = s
                .events
                .iter()
                .filter(|e| matches!(e.event, Event::Keepalive(200)))
                .count();
            (answered > counted).then_some(())
        };
        assert!(device.log().wait(SOON, more).is_some(), "keepalives are answered");
        assert_eq!(count_events(device, |e| matches!(e, Event::Unanswered(_))), 0);
        assert_eq!(count_events(device, |e| matches!(e, Event::Registered { .. })), 1);
    }
    for n in 0..2 {
        assert_eq!(platform.device_view(&device_id(n))["online"], true);
    }
    assert_eq!(platform.device_view(&device_id(0))["channels"], channels);
    let refused = platform.daemon.json(&["gb28181", "devices"])["refused"]
        .as_array()
        .unwrap()
        .len();
    assert!(refused <= 256, "{refused} refused devices are kept");
    let after = rss_kib(platform.daemon.pid());
    assert!(after < before + 96 * 1024, "memory grew from {before} to {after} KiB");
    for (n, device) in devices.iter().enumerate() {
        let sent = session(device, sessions[n]).units_sent;
        assert!(device.wait_units(sessions[n], sent + 50, SOON));
    }
    assert_undisturbed(platform, &devices, &sessions);
}

/// 20 000 datagrams that are nothing, and as many registrations of devices that there are not, from several addresses and ports.
fn flood(platform: &Platform) {
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut strangers: Vec<ByHand> = (0..8u8)
        .map(|n| ByHand::new([127, 0, 0, 1 + n % 4], platform.sip))
        .collect();
    for n in 0..20_000usize {
        let len = 1 + (next() % 1200) as usize;
        let garbage: Vec<u8> = (0..len).map(|_| next() as u8).collect();
        let from = &mut strangers[n % 8];
        from.send(&garbage);
        let id = format!("3402000000132{:07}", next() % 10_000_000);
        let more = if n % 2 == 0 {
            "Expires: 3600\r\n"
        } else {
            "Authorization: Digest username=\"x\", realm=\"3402000000\", nonce=\"00\", uri=\"sip:x\", response=\"00\", algorithm=MD5\r\n"
        };
        let register = from.request("REGISTER", &id, more, "");
        from.send(register.as_bytes());
        if n % 100 == 99 {
            // As fast as two cores that also record can send it, not faster than anything can receive.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// XML that grows or goes deep, sent in the name of a device that is registered at this address.
fn hostile_bodies(platform: &Platform) {
    let mut sender = ByHand::new([127, 0, 0, 1], platform.sip);
    let mut entities = String::from("<!ENTITY a0 \"aaaaaaaaaaaaaaaa\">");
    for n in 1..12 {
        let _ = write!(entities, "<!ENTITY a{n} \"{}\">", format!("&a{};", n - 1).repeat(16));
    }
    let head = "<?xml version=\"1.0\" encoding=\"GB2312\"?>\r\n";
    let catalog = |name: &str| {
        format!(
            "<Response><CmdType>Catalog</CmdType><SN>1</SN><DeviceID>{}</DeviceID><SumNum>1</SumNum><DeviceList Num=\"1\"><Item>\
             <DeviceID>34020000001310000099</DeviceID><Name>{name}</Name></Item></DeviceList></Response>",
            device_id(0)
        )
    };
    let bodies = [
        format!("{head}<!DOCTYPE x [{entities}]>{}", catalog("&a11;")),
        format!(
            "{head}<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]>{}",
            catalog("&e;")
        ),
        format!("{head}<Notify>{}", "<a>".repeat(18_000)),
        format!("{head}{}", "<Notify>".repeat(6000) + &"</Notify>".repeat(600)),
        format!("{head}<Notify><CmdType>{}</CmdType></Notify>", "&#65;".repeat(10_000)),
        format!("{head}<Notify {}/>", "a=\"b\" ".repeat(9_000)),
        "\0".repeat(60_000),
    ];
    for (n, body) in bodies.iter().enumerate() {
        let request = sender.request(
            "MESSAGE",
            &device_id(0),
            "Content-Type: Application/MANSCDP+xml\r\n",
            body,
        );
        sender.send(request.as_bytes());
        // Whether it is refused or taken for what nobody understands: it is answered, and that is all.
        let status = sender.status().unwrap_or_else(|| panic!("{n} is not answered"));
        assert!([200, 400, 403].contains(&status), "{n}: {status}");
    }
    let text = format!("{}", platform.daemon.json(&["gb28181", "devices"]));
    assert!(
        !text.contains("root:") && !text.contains("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        "{text}"
    );
}

/// TCP: bodies that are too large, heads without an end, connections that say nothing.
fn hostile_connections(platform: &Platform) {
    let open = || {
        let stream = TcpStream::connect(platform.sip).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    };
    let large = 2 << 20;
    let head = |len: usize| {
        let text = ByHand::new([127, 0, 0, 1], platform.sip).request("MESSAGE", &device_id(0), "", "");
        text.replace("Content-Length: 0", &format!("Content-Length: {len}"))
    };
    let said: [Vec<u8>; 4] = [
        [head(large).into_bytes(), vec![b'x'; large]].concat(),
        [head(usize::MAX).into_bytes(), vec![b'x'; 4096]].concat(),
        [b"MESSAGE sip:a SIP/2.0\r\n".to_vec(), b"X: y\r\n".repeat(200_000)].concat(),
        vec![0xFF; 1 << 20],
    ];
    for (n, bytes) in said.iter().enumerate() {
        let mut stream = open();
        // It may be closed while this is being written.
        drop(stream.write_all(bytes));
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut answer = [0; 4096];
        let refused = match stream.read(&mut answer) {
            Ok(len) => len == 0 || answer.starts_with(b"SIP/2.0 4") || is_closed(&mut stream),
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        assert!(refused, "{n}: neither closed nor refused");
    }
    // Many that say nothing: there is a limit for each address, and room for the others.
    let silent: Vec<TcpStream> = (0..400).filter_map(|_| TcpStream::connect(platform.sip).ok()).collect();
    std::thread::sleep(Duration::from_secs(1));
    let closed = silent
        .into_iter()
        .filter_map(|mut stream| {
            stream.set_nonblocking(true).unwrap();
            match stream.read(&mut [0]) {
                Ok(0) => Some(()),
                Err(error) if error.kind() != ErrorKind::WouldBlock => Some(()),
                _ => None,
            }
        })
        .count();
    assert!(closed >= 100, "{closed} of 400 silent connections were closed");
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
