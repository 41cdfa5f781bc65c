//! A scripted camera: an RTSP server on loopback whose every quirk is a field.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use corenvr_media::{AudioCodec, AudioParameters, CodecParameters, WallTime};
use corenvr_proto::{
    auth::{Secret, Verifier},
    bitstream::h264,
    rtp::{
        packetize::{Packetizer, sdp_format},
        rtcp::{self, SenderInfo},
    },
    rtsp::{
        Lower, Response, StatusCode, Transport, interleaved_header,
        server::{Action, Connection, ConnectionConfig, Incoming, PlayRequest, ServerEvent, reply},
    },
    sdp::{DescribedMedia, Description},
};
use corenvr_shard::{
    Class, Task,
    net::{Listener, Stream, UdpSocket},
    spawn,
    time::{sleep_until, timeout},
};

/// How the camera behaves. `frame` counts pictures from 0 over all connections.
#[derive(Clone)]
pub struct Script {
    pub password: Option<&'static str>,
    pub refuse_udp: bool,
    /// Agrees to UDP and sends nothing there.
    pub deaf_udp: bool,
    /// Plays without ever sending.
    pub silent: bool,
    pub no_video: bool,
    pub sound: bool,
    pub interval: Duration,
    pub key_every: u32,
    pub frame_bytes: usize,
    /// Closes the connection before this frame.
    pub hang_up_at: Option<u32>,
    /// Time stamps start from 0 at this frame.
    pub reset_at: Option<u32>,
    /// Another picture size from this frame on, which must be a key frame.
    pub resize_at: Option<u32>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            password: None,
            refuse_udp: false,
            deaf_udp: false,
            silent: false,
            no_video: false,
            sound: true,
            interval: Duration::from_millis(20),
            key_every: 25,
            frame_bytes: 3000,
            hang_up_at: None,
            reset_at: None,
            resize_at: None,
        }
    }
}

/// What the camera did.
#[derive(Default)]
pub struct Log {
    /// Every picture that was sent whole, by number.
    pub pictures: RefCell<BTreeMap<u32, Bytes>>,
    /// Every packet of sound.
    pub sounds: RefCell<BTreeMap<u32, Bytes>>,
    pub connections: Cell<u32>,
    pub teardowns: Cell<u32>,
    pub logins_refused: Cell<u32>,
    next_frame: Cell<u32>,
}

pub struct Camera {
    pub address: SocketAddr,
    pub log: Rc<Log>,
    _server: Task<()>,
}

impl Camera {
    /// Listens on any port of loopback.
    pub fn start(script: Script) -> Self {
        let listener = Listener::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr();
        let log = Rc::new(Log::default());
        let into = log.clone();
        let server = spawn(Class::Live, "camera", async move {
            let mut connections = Vec::new();
            while let Ok(stream) = listener.accept().await {
                into.connections.set(into.connections.get() + 1);
                let serve = serve(stream, script.clone(), into.clone());
                connections.push(spawn(Class::Live, "camera connection", serve));
            }
        });
        Self {
            address,
            log,
            _server: server,
        }
    }

    pub fn url(&self) -> String {
        format!("rtsp://{}/stream", self.address)
    }
}

struct Bits(Vec<u8>, u32);

impl Bits {
    fn bit(&mut self, bit: bool) {
        if self.1.is_multiple_of(8) {
            self.0.push(0);
        }
        if bit {
            *self.0.last_mut().unwrap() |= 0x80 >> (self.1 % 8);
        }
        self.1 += 1;
    }

    fn bits(&mut self, bits: &[bool]) {
        for &bit in bits {
            self.bit(bit);
        }
    }

    fn ues(&mut self, values: &[u32]) {
        for &value in values {
            self.ue(value);
        }
    }

    fn ue(&mut self, value: u32) {
        let v = value + 1;
        let len = 32 - v.leading_zeros();
        for _ in 1..len {
            self.bit(false);
        }
        for i in (0..len).rev() {
            self.bit(v >> i & 1 == 1);
        }
    }
}

/// A baseline SPS and PPS for a picture of so many macroblocks in width, 4 in height.
fn parameter_sets(macroblocks: u32) -> (Vec<u8>, Vec<u8>) {
    let mut b = Bits(vec![0x67, 66, 0xC0, 30], 32);
    b.ues(&[0, 0, 2, 1]);
    b.bit(false);
    b.ues(&[macroblocks - 1, 3]);
    b.bits(&[true, true, false, false, true]);
    let sps = b.0;
    let mut b = Bits(vec![0x68], 8);
    b.ues(&[0, 0]);
    b.bits(&[false, false]);
    b.ues(&[0, 0, 0]);
    b.bits(&[false, false, false]);
    b.ues(&[0, 0, 0]);
    b.bits(&[false, false, false, true]);
    (sps, b.0)
}

/// One access unit as the file is to hold it.
fn picture(script: &Script, frame: u32) -> Bytes {
    let key = frame.is_multiple_of(script.key_every);
    let mut out = BytesMut::new();
    let mut nal = |data: &[u8]| {
        out.put_u32(data.len() as u32);
        out.put_slice(data);
    };
    if key {
        let (sps, pps) = parameter_sets(macroblocks(script, frame));
        nal(&sps);
        nal(&pps);
    }
    let mut slice = if key { vec![0x65, 0x88] } else { vec![0x41, 0x9A] };
    // No byte is 0, so that nothing looks like a start code.
    slice.extend(frame.to_be_bytes().map(|b| b | 0x80));
    slice.extend((0..script.frame_bytes).map(|i| 1 + ((i as u32 * 31 + frame * 7) % 255) as u8));
    nal(&slice);
    out.freeze()
}

fn macroblocks(script: &Script, frame: u32) -> u32 {
    if script.resize_at.is_some_and(|at| frame >= at) {
        8
    } else {
        4
    }
}

fn video(script: &Script, frame: u32) -> CodecParameters {
    let (sps, pps) = parameter_sets(macroblocks(script, frame));
    CodecParameters::Video(h264::parameters(&[&sps], &[&pps]).unwrap())
}

fn sound() -> CodecParameters {
    CodecParameters::Audio(AudioParameters {
        codec: AudioCodec::Pcma,
        extra: Bytes::new(),
        sample_rate: 8000,
        channels: 1,
    })
}

/// Where a track of a session goes.
enum Way {
    Interleaved(u8),
    Udp(Rc<UdpSocket>, Rc<UdpSocket>, SocketAddr, SocketAddr),
    Nowhere,
}

struct Served {
    script: Script,
    log: Rc<Log>,
    stream: Stream,
    connection: Connection,
    ways: Vec<(bool, Way)>,
    session: Option<corenvr_proto::rtsp::server::SessionId>,
    player: Option<Task<()>>,
}

async fn serve(stream: Stream, script: Script, log: Rc<Log>) {
    let password = script.password;
    let verifier = Verifier::new("test", [7; 32], Instant::now(), true, move |_| {
        password.map(|p| Secret::Password(p.to_owned()))
    });
    let config = ConnectionConfig {
        verifier: Arc::new(verifier),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        encrypted: false,
        server: "scripted".into(),
    };
    let mut served = Served {
        connection: Connection::new(Instant::now(), config),
        script,
        log,
        stream: stream.clone(),
        ways: Vec::new(),
        session: None,
        player: None,
    };
    let mut reader = stream;
    let mut input = BytesMut::new();
    loop {
        while let Some(event) = served.connection.poll_event() {
            match event {
                ServerEvent::Request(request) => served.answer(*request),
                ServerEvent::Closed(_) => return,
                ServerEvent::Data { .. } | ServerEvent::SessionExpired(_) => {}
            }
        }
        while let Some(bytes) = served.connection.poll_transmit() {
            if stream_write(&served.stream, &bytes).await.is_err() {
                return;
            }
        }
        match timeout(Duration::from_millis(200), reader.read_into(&mut input)).await {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(_)) => served.connection.handle_input(Instant::now(), &mut input),
            Err(_) => {
                if served
                    .player
                    .as_mut()
                    .is_some_and(|p| futures::FutureExt::now_or_never(p).is_some())
                {
                    // The script hangs up.
                    let _ = served.stream.shutdown();
                    return;
                }
            }
        }
    }
}

async fn stream_write(stream: &Stream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await
}

impl Served {
    fn answer(&mut self, request: Incoming) {
        let now = Instant::now();
        if self.script.password.is_some() && request.user.is_none() {
            self.log.logins_refused.set(self.log.logins_refused.get() + 1);
            self.connection.unauthorized(now, request.id);
            return;
        }
        let response = match request.action {
            Action::Options { .. } => reply::options(),
            Action::Describe { .. } => self.describe(),
            Action::Setup { uri, transports, .. } => self.setup(&uri.to_string(), &transports[0]),
            Action::Play(play) => self.play(&play),
            Action::Teardown { session, .. } => {
                self.log.teardowns.set(self.log.teardowns.get() + 1);
                self.player = None;
                reply::teardown(&session)
            }
            _ => reply::parameters(None),
        };
        self.connection.respond(request.id, response);
    }

    fn base(&self) -> String {
        format!("rtsp://{}/stream", self.stream.local_addr())
    }

    fn describe(&self) -> Response {
        let base = self.base();
        let frame = self.log.next_frame.get();
        let media = |parameters: &CodecParameters, name: &str, payload_type| DescribedMedia {
            format: sdp_format(parameters, payload_type),
            control: format!("{base}/{name}"),
            onvif_track: None,
            frame_rate: None,
        };
        let mut tracks = Vec::new();
        if !self.script.no_video {
            tracks.push(media(&video(&self.script, frame), "video", 96));
        }
        if self.script.sound {
            tracks.push(media(&sound(), "audio", 8));
        }
        let description = Description {
            name: "scripted".into(),
            origin: IpAddr::V4(Ipv4Addr::LOCALHOST),
            version: 1,
            control: base.clone(),
            length: None,
            clock: None,
            media: tracks,
        };
        reply::describe(&base, description.to_string())
    }

    fn setup(&mut self, uri: &str, asked: &Transport) -> Response {
        if asked.lower == Lower::Udp && self.script.refuse_udp {
            return Response::new(StatusCode::UNSUPPORTED_TRANSPORT);
        }
        if self.session.is_none() {
            self.session = self.connection.open_session(Instant::now(), [9; 8], asked.lower);
        }
        let mut granted = asked.clone();
        let way = match asked.lower {
            Lower::Tcp => Way::Interleaved(asked.interleaved.unwrap().0),
            Lower::Udp => {
                let socket = || Rc::new(UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1 << 16).unwrap());
                let (rtp, rtcp) = (socket(), socket());
                granted.server_port = Some((rtp.local_addr().port(), rtcp.local_addr().port()));
                let (to, to_rtcp) = asked.client_port.unwrap();
                let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                if self.script.deaf_udp {
                    Way::Nowhere
                } else {
                    Way::Udp(rtp, rtcp, address(to), address(to_rtcp))
                }
            }
        };
        self.ways.push((uri.contains("/video"), way));
        reply::setup(self.session.as_ref().unwrap(), &granted)
    }

    fn play(&mut self, play: &PlayRequest) -> Response {
        if !self.script.silent {
            let sender = Sender {
                script: self.script.clone(),
                log: self.log.clone(),
                stream: self.stream.clone(),
                ways: std::mem::take(&mut self.ways),
            };
            self.player = Some(spawn(Class::Live, "camera player", sender.run()));
        }
        reply::play(&play.session, &reply::PlayReply::default())
    }
}

struct Sender {
    script: Script,
    log: Rc<Log>,
    stream: Stream,
    ways: Vec<(bool, Way)>,
}

impl Sender {
    async fn run(self) {
        let first = self.log.next_frame.get();
        // A camera starts with a key frame.
        let first = first.next_multiple_of(self.script.key_every);
        let started = Instant::now();
        let (mut video_packets, mut sound_packets) = (
            Packetizer::new(&video(&self.script, first), 96, 11, 100, 1400),
            Packetizer::new(&sound(), 8, 22, 65_000, 1400),
        );
        let mut origin = 90_000 * 10;
        for frame in first.. {
            let n = frame - first;
            sleep_until(started + self.script.interval * n).await;
            if self.script.hang_up_at == Some(frame) {
                self.log.next_frame.set(frame + 1);
                return;
            }
            let ticks = |rate: u32| (self.script.interval * n).as_millis() as u32 * (rate / 1000);
            if self.script.reset_at == Some(frame) {
                origin = 0u32.wrapping_sub(ticks(90_000));
            }
            let stamp = origin.wrapping_add(ticks(90_000));
            let unit = picture(&self.script, frame);
            let mut wire = Vec::new();
            video_packets
                .packetize(&unit, stamp, None, &mut |head, body| wire.push([head, body].concat()))
                .unwrap();
            if !self.send(true, &wire).await {
                return;
            }
            self.log.pictures.borrow_mut().insert(frame, unit);
            if self.script.sound {
                let samples = Bytes::from(vec![frame as u8; (self.script.interval.as_millis() * 8) as usize]);
                let mut wire = Vec::new();
                sound_packets
                    .packetize(&samples, 8000 + ticks(8000), None, &mut |head, body| {
                        wire.push([head, body].concat());
                    })
                    .unwrap();
                if !self.send(false, &wire).await {
                    return;
                }
                self.log.sounds.borrow_mut().insert(frame, samples);
            }
            if n.is_multiple_of(50) {
                self.reports(stamp, 8000 + ticks(8000)).await;
            }
            self.log.next_frame.set(frame + 1);
        }
    }

    async fn reports(&self, video: u32, sound: u32) {
        let ntp = WallTime::from_micros(corenvr_shard::time::wall_now_micros()).to_ntp();
        for (is_video, way) in &self.ways {
            let rtp = if *is_video { video } else { sound };
            let info = SenderInfo {
                ntp,
                rtp,
                packets: 1,
                octets: 1,
            };
            let mut data = BytesMut::new();
            rtcp::write_sender_report(&mut data, if *is_video { 11 } else { 22 }, &info, &[], "camera");
            match way {
                Way::Interleaved(channel) => {
                    let mut bytes = interleaved_header(channel + 1, data.len() as u16).to_vec();
                    bytes.extend_from_slice(&data);
                    let _ = self.stream.write_all(&bytes).await;
                }
                Way::Udp(_, socket, _, to) => drop(socket.sender().send_to(&data, *to).await),
                Way::Nowhere => {}
            }
        }
    }

    async fn send(&self, video: bool, packets: &[Vec<u8>]) -> bool {
        for (_, way) in self.ways.iter().filter(|w| w.0 == video) {
            for packet in packets {
                match way {
                    Way::Interleaved(channel) => {
                        let mut bytes = interleaved_header(*channel, packet.len() as u16).to_vec();
                        bytes.extend_from_slice(packet);
                        if self.stream.write_all(&bytes).await.is_err() {
                            return false;
                        }
                    }
                    Way::Udp(socket, _, to, _) => {
                        socket.sender().send_to(packet, *to).await.unwrap();
                    }
                    Way::Nowhere => {}
                }
            }
        }
        true
    }
}
