//! The client and the server of this crate against each other, joined by queues on virtual time.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{
    CameraUrl, Lower, Range, RtpInfo, Transport,
    client::{Client, ClientConfig, EndReason, Event, Granted, SetupChoice},
    interleaved_header,
    server::{Action, Connection, ConnectionConfig, Incoming, ServerEvent, SessionId, reply},
};
use crate::{
    auth::{Refusal, Scheme, Secret, Verifier},
    format::{MediaFormat, MediaKind},
    sdp::{DescribedMedia, Description},
};

/// Both ends. Bytes cross one at a time if `dribble` is set, so that every message is met at every split point.
struct Pair {
    now: Instant,
    client: Client,
    server: Connection,
    to_client: BytesMut,
    to_server: BytesMut,
    events: VecDeque<Event>,
    seen: Vec<&'static str>,
    data: Vec<(u8, Bytes)>,
    session: Option<SessionId>,
    dribble: bool,
}

fn media(payload_type: u8, kind: MediaKind, name: &str, track: u8) -> DescribedMedia {
    DescribedMedia {
        format: MediaFormat {
            kind,
            payload_type,
            encoding: name.into(),
            clock_rate: if kind == MediaKind::Video { 90_000 } else { 8000 },
            channels: 1,
            parameters: Vec::new(),
        },
        control: format!("rtsp://h:8554/yard/track{track}?start=x"),
        onvif_track: None,
        frame_rate: None,
    }
}

impl Pair {
    fn new(password: &str, transport: Lower, dribble: bool) -> Self {
        let now = Instant::now();
        let verifier = Verifier::new("corenvr", [1; 32], now, true, |n| {
            (n == "admin").then(|| Secret::Password("p@ss".into()))
        });
        let url = CameraUrl::parse(&format!("rtsp://admin:{password}@h:8554/yard?start=x")).unwrap();
        Self {
            now,
            client: Client::new(now, ClientConfig::new(url, transport, [2; 16])),
            server: Connection::new(
                now,
                ConnectionConfig {
                    verifier: Arc::new(verifier),
                    peer: [127, 0, 0, 1].into(),
                    encrypted: false,
                    server: "test".into(),
                },
            ),
            to_client: BytesMut::new(),
            to_server: BytesMut::new(),
            events: VecDeque::new(),
            seen: Vec::new(),
            data: Vec::new(),
            session: None,
            dribble,
        }
    }

    /// Lets both ends talk until neither has anything to say.
    fn drive(&mut self) {
        for _ in 0..1000 {
            let mut busy = false;
            while let Some(bytes) = self.client.poll_transmit() {
                self.feed_server(&bytes);
                busy = true;
            }
            while let Some(event) = self.server.poll_event() {
                self.serve(event);
                busy = true;
            }
            while let Some(bytes) = self.server.poll_transmit() {
                self.feed_client(&bytes);
                busy = true;
            }
            while let Some(event) = self.client.poll_event() {
                self.events.push_back(event);
                busy = true;
            }
            if !busy {
                return;
            }
        }
        panic!("they never stop");
    }

    fn feed_server(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(if self.dribble { 1 } else { bytes.len() }) {
            self.to_server.extend_from_slice(piece);
            self.server.handle_input(self.now, &mut self.to_server);
        }
    }

    fn feed_client(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(if self.dribble { 1 } else { bytes.len() }) {
            self.to_client.extend_from_slice(piece);
            self.client.handle_input(self.now, &mut self.to_client);
        }
    }

    fn serve(&mut self, event: ServerEvent) {
        match event {
            ServerEvent::Request(r) if r.user.is_none() => {
                self.seen.push("unauthorized");
                assert!(self.server.unauthorized(self.now, r.id));
            }
            ServerEvent::Request(r) => self.answer(&r),
            ServerEvent::Data { channel, payload } => self.data.push((channel, payload)),
            ServerEvent::SessionExpired(_) => self.seen.push("expired"),
            ServerEvent::Closed(_) => self.seen.push("closed"),
        }
    }

    fn answer(&mut self, r: &Incoming) {
        let (name, response) = match &r.action {
            Action::Options { .. } => ("OPTIONS", reply::options()),
            Action::Describe { uri } => ("DESCRIBE", reply::describe(&uri.to_string(), description())),
            Action::Setup {
                uri,
                transports,
                session,
            } => {
                assert!(
                    uri.segments()[1].starts_with("track") && uri.parameter("start") == Some("x"),
                    "{uri}"
                );
                let lower = transports[0].lower;
                let id = session
                    .clone()
                    .unwrap_or_else(|| self.server.open_session(self.now, [8; 8], lower).unwrap());
                self.session = Some(id.clone());
                let mut granted = transports[0].clone();
                granted.ssrc = Some(0xABCD);
                if lower == Lower::Udp {
                    granted.server_port = Some((7000, 7001));
                }
                ("SETUP", reply::setup(&id, &granted))
            }
            Action::Play(play) => {
                let info = |track: u16| RtpInfo {
                    url: play.uri.with_segment(0, Some(&format!("track{track}"))),
                    seq: Some(track),
                    rtptime: Some(u32::from(track) * 100),
                };
                let played = reply::PlayReply {
                    range: Some(Range::npt(Duration::ZERO, Duration::from_mins(1))),
                    rtp_info: vec![info(1), info(2)],
                    ..reply::PlayReply::default()
                };
                ("PLAY", reply::play(&play.session, &played))
            }
            Action::Pause { session, .. } => ("PAUSE", reply::pause(session, None)),
            Action::Teardown { session, .. } => {
                self.server.close_session(session);
                ("TEARDOWN", reply::teardown(session))
            }
            Action::GetParameter { session, .. } | Action::SetParameter { session, .. } => {
                ("KEEPALIVE", reply::parameters(session.as_ref()))
            }
        };
        self.seen.push(name);
        assert!(self.server.respond(r.id, response));
    }

    /// Moves the time to the next timeout of either end, but not past `until`.
    fn advance(&mut self, until: Instant) {
        while let Some(due) = self
            .client
            .poll_timeout()
            .into_iter()
            .chain(self.server.poll_timeout())
            .min()
        {
            if due > until {
                break;
            }
            self.now = due;
            self.client.handle_timeout(due);
            self.server.handle_timeout(due);
            self.drive();
        }
        self.now = until;
    }

    fn event(&mut self) -> Event {
        self.events.pop_front().expect("no event")
    }

    fn play(&mut self, transport: Lower) {
        self.drive();
        let Event::Described(sdp) = self.event() else {
            panic!("not described")
        };
        assert_eq!(sdp.range.unwrap().to_string(), "npt=0.000-60.000");
        let ports = |a| (transport == Lower::Udp).then_some((a, a + 1));
        let choices = [
            SetupChoice {
                media: 0,
                local_ports: ports(5000),
            },
            SetupChoice {
                media: 1,
                local_ports: ports(5002),
            },
        ];
        self.client.select(self.now, &choices).unwrap();
        self.drive();
    }
}

fn description() -> String {
    Description {
        name: "yard".into(),
        origin: [127, 0, 0, 1].into(),
        version: 1,
        control: "rtsp://h:8554/yard?start=x".into(),
        length: Some(Duration::from_mins(1)),
        clock: None,
        media: vec![
            media(96, MediaKind::Video, "H264", 1),
            media(8, MediaKind::Audio, "PCMA", 2),
        ],
    }
    .to_string()
}

#[test]
fn over_tcp_with_login_keepalive_and_teardown() {
    for dribble in [false, true] {
        let mut p = Pair::new("p@ss", Lower::Tcp, dribble);
        p.play(Lower::Tcp);
        assert_eq!(
            p.seen,
            ["unauthorized", "OPTIONS", "DESCRIBE", "SETUP", "SETUP", "PLAY"]
        );
        for stream in 0..2 {
            let rtp = stream as u8 * 2;
            let transport = Granted::Interleaved { rtp, rtcp: rtp + 1 };
            assert_eq!(
                p.event(),
                Event::SetUp {
                    stream,
                    transport,
                    ssrc: Some(0xABCD)
                }
            );
        }
        let Event::Playing { info, range } = p.event() else {
            panic!("not playing")
        };
        assert_eq!(
            info.iter().map(|i| i.unwrap().rtptime.unwrap()).collect::<Vec<_>>(),
            [100, 200]
        );
        assert_eq!(range, Some(Range::npt(Duration::ZERO, Duration::from_mins(1))));

        // Media one way, reports the other.
        let payload = vec![0x80; 1400];
        let frame = [&interleaved_header(2, 1400)[..], &payload].concat();
        p.feed_client(&frame);
        p.client.send_rtcp(1, b"report");
        p.drive();
        assert_eq!(
            p.event(),
            Event::Rtp {
                stream: 1,
                payload: payload.into()
            }
        );
        assert_eq!(p.data, [(3, Bytes::from_static(b"report"))]);

        p.advance(p.now + Duration::from_secs(95));
        assert_eq!(p.seen[6..], ["KEEPALIVE"; 3]);
        p.client.teardown(p.now);
        p.drive();
        assert_eq!(p.seen[9..], ["TEARDOWN"]);
        assert_eq!(p.event(), Event::Ended(EndReason::TornDown));
        assert_eq!(p.server.sessions().count(), 0);
        // Nothing more comes; the server closes in the end.
        p.advance(p.now + Duration::from_mins(2));
        assert_eq!(p.seen[10..], ["closed"]);
    }
}

#[test]
fn over_udp_the_keepalive_holds_the_session() {
    let mut p = Pair::new("p@ss", Lower::Udp, false);
    p.play(Lower::Udp);
    let transport = Granted::Udp {
        server_ports: Some((7000, 7001)),
        source: None,
    };
    assert_eq!(
        p.event(),
        Event::SetUp {
            stream: 0,
            transport,
            ssrc: Some(0xABCD)
        }
    );
    p.advance(p.now + Duration::from_mins(10));
    assert!(!p.seen.contains(&"expired"));
    // The player dies.
    let dead = p.now;
    while let Some(due) = p.server.poll_timeout() {
        p.now = due;
        p.server.handle_timeout(due);
        while let Some(event) = p.server.poll_event() {
            p.serve(event);
        }
    }
    assert_eq!(p.seen.iter().filter(|s| **s == "expired").count(), 1);
    assert!(p.now - dead <= Duration::from_secs(130));
}

#[test]
fn a_wrong_password_ends_with_the_scheme() {
    let mut p = Pair::new("wrong", Lower::Tcp, false);
    p.drive();
    assert_eq!(p.seen, ["unauthorized", "unauthorized"]);
    assert_eq!(
        p.event(),
        Event::Ended(EndReason::Authentication(Refusal::Wrong(Scheme::DigestSha256)))
    );
}

/// VLC and GStreamer pause and seek within a session: the server's side of it.
#[test]
fn pause_seek_and_play_again() {
    let mut p = Pair::new("p@ss", Lower::Tcp, false);
    p.play(Lower::Tcp);
    let id = p.session.clone().unwrap();
    let challenge = {
        let text = format!("PAUSE rtsp://h:8554/yard RTSP/1.0\r\nCSeq: 90\r\nSession: {id}\r\n\r\n");
        p.to_server.extend_from_slice(text.as_bytes());
        p.server.handle_input(p.now, &mut p.to_server);
        let Some(ServerEvent::Request(r)) = p.server.poll_event() else {
            panic!("no request")
        };
        assert_eq!(r.user, None, "a login counts for its own request only");
        p.server.respond(r.id, reply::pause(&id, None));
        p.server.poll_transmit().unwrap()
    };
    assert!(challenge.starts_with(b"RTSP/1.0 200 OK\r\nCSeq: 90\r\n"));
    for range in ["npt=30.000-", "npt=5-", "clock=20261120T100000Z-"] {
        let text = format!("PLAY rtsp://h:8554/yard/ RTSP/1.0\nCSeq: 91\nSession: {id}\nRange: {range}\n\n");
        p.to_server.extend_from_slice(text.as_bytes());
        p.server.handle_input(p.now, &mut p.to_server);
        let Some(ServerEvent::Request(r)) = p.server.poll_event() else {
            panic!("no request")
        };
        let Action::Play(play) = &r.action else {
            panic!("not PLAY")
        };
        assert_eq!(play.range, Some(Range::parse(range).unwrap()));
        p.server.respond(
            r.id,
            reply::play(
                &id,
                &reply::PlayReply {
                    range: play.range,
                    ..Default::default()
                },
            ),
        );
    }
    assert_eq!(p.server.sessions().count(), 1);
    assert!(Transport::parse_list("RTP/AVP/TCP").len() == 1);
}
