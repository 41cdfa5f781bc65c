//! A scripted player: blocking sockets, and a check of every packet that comes.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use corenvr_media::WallTime;
use corenvr_proto::{
    rtp::{
        Packet,
        depacketize::Depacketizer,
        rtcp::{self, RtcpPacket, SenderInfo},
    },
    rtsp::{Decoder, Message, Method, Request, Response, Role, RtpInfo},
    sdp::SessionDescription,
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A frame as it came out.
#[derive(Debug, Clone)]
pub struct Got {
    pub track: usize,
    /// Number in its bytes.
    pub n: i64,
    pub rtp: u32,
    /// Sequence number of its first packet; exact if the client is [`Client::prompt`].
    pub sequence: u16,
    /// When its last packet was read.
    pub came: Instant,
    /// The frame without parameter sets.
    pub data: Bytes,
    pub key: bool,
    /// Parameter sets came with it.
    pub sets: bool,
    /// The replay extension of its first packet.
    pub replay: Option<Replay>,
}

/// ONVIF's RTP header extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    pub time: WallTime,
    /// C, E, D and T from the top, then four zeros.
    pub flags: u8,
    pub cseq: u8,
}

pub enum Event {
    Frame(Got),
    Report(usize, SenderInfo),
    Bye,
}

pub struct Client {
    stream: TcpStream,
    decoder: Decoder,
    input: BytesMut,
    cseq: u32,
    pub agent: &'static str,
    pub session: Option<String>,
    pub url: String,
    pub sdp: Option<SessionDescription>,
    tracks: Vec<Track>,
    events: VecDeque<Event>,
    /// The last read brought something.
    has_read: bool,
    pub authorization: Option<String>,
    /// Takes a frame for whole at its marker, without waiting for the next one.
    pub prompt: bool,
}

struct Track {
    index: usize,
    depacketizer: Depacketizer,
    sequence: Option<u16>,
    /// Sequence number of the first packet since the last frame.
    begun: Option<u16>,
    replay: Option<Replay>,
    ssrc: Option<u32>,
    udp: Option<(UdpSocket, UdpSocket)>,
    channel: u8,
}

impl Client {
    pub fn connect(url: &str) -> Self {
        let authority = url.strip_prefix("rtsp://").unwrap().split('/').next().unwrap();
        let stream = TcpStream::connect(authority).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            decoder: Decoder::new(Role::Client),
            input: BytesMut::new(),
            cseq: 0,
            agent: "test",
            session: None,
            url: url.to_owned(),
            sdp: None,
            tracks: Vec::new(),
            events: VecDeque::new(),
            has_read: false,
            authorization: None,
            prompt: false,
        }
    }

    /// Describes and sets every track up.
    pub fn open(url: &str, udp: bool) -> Self {
        Self::open_as(url, udp, "test")
    }

    pub fn open_as(url: &str, udp: bool, agent: &'static str) -> Self {
        let mut client = Self::connect(url);
        client.agent = agent;
        let response = client.describe();
        assert_eq!(response.status.as_u16(), 200, "{response:?}");
        for index in 0..client.sdp.as_ref().unwrap().media.len() {
            let response = client.setup(index, udp);
            assert_eq!(response.status.as_u16(), 200, "{response:?}");
        }
        client
    }

    /// The connection itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn request(&mut self, method: Method, url: &str, headers: &[(&'static str, &str)]) -> Response {
        self.cseq += 1;
        let mut request = Request::new(method, url)
            .with("CSeq", self.cseq.to_string())
            .with("User-Agent", self.agent);
        if let Some(session) = &self.session {
            request = request.with("Session", session.clone());
        }
        if let Some(authorization) = &self.authorization {
            request = request.with("Authorization", authorization.clone());
        }
        for (name, value) in headers {
            request = request.with(name, *value);
        }
        self.raw(&request.to_bytes());
        let response = self.response();
        assert_eq!(response.headers.cseq(), Some(self.cseq));
        response
    }

    pub fn response(&mut self) -> Response {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(response) = self.read_stream(Duration::from_millis(50)).unwrap() {
                return response;
            }
            assert!(Instant::now() < deadline, "no response");
        }
    }

    pub fn describe(&mut self) -> Response {
        let url = self.url.clone();
        let response = self.request(Method::Describe, &url, &[("Accept", "application/sdp")]);
        if response.status.is_success() {
            self.sdp = Some(SessionDescription::parse(&response.body).unwrap());
        }
        response
    }

    pub fn setup(&mut self, index: usize, udp: bool) -> Response {
        let media = self.sdp.as_ref().unwrap().media[index].clone();
        let mut track = Track {
            index,
            depacketizer: Depacketizer::new(&media.formats[0]).unwrap(),
            sequence: None,
            begun: None,
            replay: None,
            ssrc: None,
            udp: None,
            channel: index as u8 * 2,
        };
        let transport = if udp {
            let pair = (
                UdpSocket::bind("127.0.0.1:0").unwrap(),
                UdpSocket::bind("127.0.0.1:0").unwrap(),
            );
            let port = |s: &UdpSocket| s.local_addr().unwrap().port();
            let text = format!("RTP/AVP;unicast;client_port={}-{}", port(&pair.0), port(&pair.1));
            pair.0.set_nonblocking(true).unwrap();
            pair.1.set_nonblocking(true).unwrap();
            track.udp = Some(pair);
            text
        } else {
            format!(
                "RTP/AVP/TCP;unicast;interleaved={}-{}",
                track.channel,
                track.channel + 1
            )
        };
        let response = self.request(Method::Setup, &media.control.unwrap(), &[("Transport", &transport)]);
        if response.status.is_success() {
            self.session = Some(response.headers.session().unwrap().id);
            self.tracks.push(track);
        }
        response
    }

    pub fn play(&mut self, range: Option<&str>) -> Response {
        let url = self.url.clone();
        let headers: Vec<_> = range.map(|r| ("Range", r)).into_iter().collect();
        self.request(Method::Play, &url, &headers)
    }

    /// Sequence number of the last request.
    pub const fn cseq(&self) -> u32 {
        self.cseq
    }

    pub fn play_with(&mut self, headers: &[(&'static str, &str)]) -> Response {
        let url = self.url.clone();
        self.request(Method::Play, &url, headers)
    }

    pub fn pause(&mut self) -> Response {
        let url = self.url.clone();
        self.request(Method::Pause, &url, &[])
    }

    pub fn teardown(&mut self) -> Response {
        let url = self.url.clone();
        self.request(Method::Teardown, &url, &[])
    }

    /// Forgets what came before the last reply.
    pub fn forget(&mut self) {
        self.finish_units();
        self.events.clear();
    }

    /// What is whole of the units in progress: their end is otherwise seen with the next packet only.
    fn finish_units(&mut self) {
        for track in &mut self.tracks {
            track.depacketizer.flush();
            track.poll(&mut self.events);
        }
    }

    /// What has come and was not looked at; for after a pause.
    pub fn drain(&mut self) -> Vec<Got> {
        self.read_datagrams();
        while self.read_stream(Duration::from_millis(20)).unwrap().is_none() && std::mem::take(&mut self.has_read) {}
        self.before()
    }

    /// What came before the last reply and was not looked at.
    pub fn before(&mut self) -> Vec<Got> {
        self.finish_units();
        let frame = |e| match e {
            Event::Frame(got) => Some(got),
            _ => None,
        };
        self.events.drain(..).filter_map(frame).collect()
    }

    pub fn next(&mut self) -> Event {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            assert!(Instant::now() < deadline, "nothing comes");
            self.read_datagrams();
            let wait = if self.tracks.iter().any(|t| t.udp.is_some()) {
                1
            } else {
                100
            };
            assert!(self.read_stream(Duration::from_millis(wait)).unwrap().is_none());
        }
    }

    /// Exactly so many frames.
    pub fn frames(&mut self, count: usize) -> Vec<Got> {
        let mut all = Vec::new();
        while all.len() < count {
            match self.next() {
                Event::Frame(got) => all.push(got),
                Event::Report(..) => {}
                Event::Bye => panic!("BYE after {} of {count} frames", all.len()),
            }
        }
        all
    }

    /// Everything up to BYE on every track.
    pub fn until_bye(&mut self) -> Vec<Got> {
        let (mut all, mut byes) = (Vec::new(), 0);
        while byes < self.tracks.len() {
            match self.next() {
                Event::Frame(got) => {
                    assert_eq!(byes, 0, "a frame after BYE");
                    all.push(got);
                }
                Event::Report(..) => {}
                Event::Bye => byes += 1,
            }
        }
        all
    }

    /// Whether the server closes the connection.
    pub fn is_closed(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.read_stream(Duration::from_millis(50)).is_err() {
                return true;
            }
        }
        false
    }

    /// One read at most. Returns a response if one is complete.
    fn read_stream(&mut self, wait: Duration) -> std::io::Result<Option<Response>> {
        if let Some(response) = self.decode() {
            return Ok(Some(response));
        }
        self.stream.set_read_timeout(Some(wait)).unwrap();
        let mut buffer = vec![0; 64 << 10];
        self.has_read = false;
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                self.has_read = true;
                self.input.extend_from_slice(&buffer[..n]);
            }
            // The executor's rings interrupt system calls of the whole process.
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(e) => return Err(e),
        }
        Ok(self.decode())
    }

    fn decode(&mut self) -> Option<Response> {
        while let Some(message) = self.decoder.decode(&mut self.input).unwrap() {
            match message {
                Message::Response(response) => return Some(response),
                Message::Data { channel, payload } => self.packet(channel, payload),
                Message::Request(request) => panic!("{request:?}"),
            }
        }
        None
    }

    fn read_datagrams(&mut self) {
        let mut buffer = [0; 2048];
        for i in 0..self.tracks.len() {
            let channel = self.tracks[i].channel;
            for rtcp in [0, 1] {
                while let Some((rtp_socket, rtcp_socket)) = &self.tracks[i].udp {
                    let socket = if rtcp == 0 { rtp_socket } else { rtcp_socket };
                    let Ok(n) = socket.recv(&mut buffer) else { break };
                    self.packet(channel + rtcp, Bytes::copy_from_slice(&buffer[..n]));
                }
            }
        }
    }

    fn packet(&mut self, channel: u8, payload: Bytes) {
        let track = self
            .tracks
            .iter_mut()
            .find(|t| t.channel == channel & !1)
            .expect("a channel that was set up");
        if channel & 1 == 1 {
            for packet in rtcp::parse(&payload) {
                match packet {
                    RtcpPacket::SenderReport { info, .. } => self.events.push_back(Event::Report(track.index, info)),
                    RtcpPacket::Bye(_) => {
                        track.depacketizer.flush();
                        track.poll(&mut self.events);
                        self.events.push_back(Event::Bye);
                    }
                    _ => {}
                }
            }
            return;
        }
        let packet = Packet::parse(payload).unwrap();
        if let Some(last) = track.sequence.replace(packet.sequence) {
            assert_eq!(
                packet.sequence,
                last.wrapping_add(1),
                "sequence numbers of track {}",
                track.index
            );
        }
        assert_eq!(*track.ssrc.get_or_insert(packet.ssrc), packet.ssrc);
        if let Some(extension) = &packet.extension {
            assert!(track.begun.is_none(), "an extension behind the first packet of a frame");
            track.replay = Some(Replay::parse(extension.profile, &extension.data));
        }
        track.begun.get_or_insert(packet.sequence);
        track.depacketizer.push(&packet, 0).unwrap();
        if self.prompt && packet.marker {
            track.depacketizer.flush();
        }
        track.poll(&mut self.events);
    }
}

impl Replay {
    fn parse(profile: u16, data: &[u8]) -> Self {
        assert_eq!((profile, data.len()), (0xABAC, 12));
        assert_eq!((data[8] & 0x0F, &data[10..]), (0, &[0, 0][..]), "padding");
        Self {
            time: WallTime::from_ntp(u64::from_be_bytes(data[..8].try_into().unwrap())),
            flags: data[8],
            cseq: data[9],
        }
    }
}

impl Track {
    fn poll(&mut self, events: &mut VecDeque<Event>) {
        while let Some(unit) = self.depacketizer.poll() {
            assert!(!unit.damaged && unit.lost == 0);
            let (data, sets) = if self.index == 0 {
                without_sets(&unit.data)
            } else {
                (unit.data, false)
            };
            let number = if self.index == 0 {
                data.get(5..13)
            } else {
                data.get(..8)
            };
            events.push_back(Event::Frame(Got {
                track: self.index,
                n: number
                    .and_then(|b| std::str::from_utf8(b).ok()?.parse().ok())
                    .unwrap_or(-1),
                rtp: unit.timestamp,
                sequence: self.begun.take().or(self.sequence).unwrap(),
                came: Instant::now(),
                data,
                key: unit.key,
                sets,
                replay: self.replay.take(),
            }));
        }
    }
}

fn without_sets(data: &Bytes) -> (Bytes, bool) {
    let mut out = Vec::new();
    let mut rest = &data[..];
    let mut sets = false;
    while rest.len() > 4 {
        let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        let (nal, tail) = rest.split_at(4 + len);
        if matches!(nal[4] & 0x1F, 7 | 8) {
            sets = true;
        } else {
            out.extend_from_slice(nal);
        }
        rest = tail;
    }
    (out.into(), sets)
}

/// Position and RTP times of a PLAY reply.
#[derive(Debug)]
pub struct Played {
    pub start: f64,
    pub end: Option<f64>,
    pub info: Vec<RtpInfo>,
}

pub fn played(response: &Response) -> Played {
    assert_eq!(response.status.as_u16(), 200, "{response:?}");
    let range = response.headers.get("Range").unwrap().strip_prefix("npt=").unwrap();
    let (start, end) = range.split_once('-').unwrap();
    Played {
        start: start.parse().unwrap(),
        end: end.parse().ok(),
        info: RtpInfo::parse_list(response.headers.get("RTP-Info").unwrap()),
    }
}

impl Played {
    /// Position of a video frame where the range passes so many times as fast as it was recorded.
    pub fn position_at(&self, got: &Got, scale: f64) -> f64 {
        let ticks = got.rtp.wrapping_sub(self.info[got.track].rtptime.unwrap()) as i32;
        self.start + f64::from(ticks) / 90_000.0 * scale
    }

    /// Position of a video frame, in seconds, as a player computes it.
    pub fn position(&self, got: &Got) -> f64 {
        let rate = if got.track == 0 { 90_000.0 } else { 8000.0 };
        let ticks = got.rtp.wrapping_sub(self.info[got.track].rtptime.unwrap()) as i32;
        self.start + f64::from(ticks) / rate
    }
}
