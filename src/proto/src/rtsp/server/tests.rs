//! The server's connection against scripted players.

use std::time::Instant;

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::{
    auth::{Authenticator, Credentials, Secret, parse_challenges},
    rtsp::{Fault, FrameFilter, Lower, Message, Range, Response, Role, StatusCode, Transport},
};

struct Player {
    now: Instant,
    connection: Connection,
    decoder: crate::rtsp::Decoder,
    input: BytesMut,
}

impl Player {
    fn new() -> Self {
        let now = Instant::now();
        let verifier = Verifier::new("corenvr", [1; 32], now, false, |name| {
            (name == "admin").then(|| Secret::Password("s3cret".into()))
        });
        let config = ConnectionConfig {
            verifier: Arc::new(verifier),
            peer: [192, 0, 2, 7].into(),
            encrypted: false,
            server: "corenvr".into(),
        };
        Self {
            now,
            connection: Connection::new(now, config),
            decoder: crate::rtsp::Decoder::new(Role::Client),
            input: BytesMut::new(),
        }
    }

    fn send(&mut self, text: &str) {
        let mut input = BytesMut::from(text.as_bytes());
        self.connection.handle_input(self.now, &mut input);
        assert!(input.is_empty(), "not understood: {input:?}");
    }

    fn request(&mut self) -> Incoming {
        match self.connection.poll_event() {
            Some(ServerEvent::Request(r)) => *r,
            other => panic!("{other:?} instead of a request"),
        }
    }

    /// Sends a request with a `CSeq` and gives it as the caller gets it.
    fn ask(&mut self, line: &str, headers: &str) -> Incoming {
        self.send(&format!("{line} RTSP/1.0\r\nCSeq: 5\r\n{headers}\r\n"));
        self.request()
    }

    fn reply(&mut self) -> Option<Response> {
        while let Some(bytes) = self.connection.poll_transmit() {
            self.input.extend_from_slice(&bytes);
        }
        match self.decoder.decode(&mut self.input).unwrap()? {
            Message::Response(r) => Some(r),
            other => panic!("{other:?}"),
        }
    }

    fn status(&mut self) -> u16 {
        self.reply().expect("no response").status.as_u16()
    }

    /// What a request is answered without the caller.
    fn refused(&mut self, line: &str, headers: &str) -> Response {
        self.send(&format!("{line} RTSP/1.0\r\nCSeq: 6\r\n{headers}\r\n"));
        assert_eq!(self.connection.poll_event(), None);
        let r = self.reply().expect("no response");
        assert_eq!((r.headers.cseq(), r.headers.get("Server")), (Some(6), Some("corenvr")));
        r
    }

    fn session(&mut self, lower: Lower) -> SessionId {
        self.connection.open_session(self.now, [7; 8], lower).unwrap()
    }

    fn closed(&mut self) -> CloseReason {
        match self.connection.poll_event() {
            Some(ServerEvent::Closed(reason)) => {
                assert_eq!(self.connection.poll_event(), None);
                assert!(!self.connection.wants_input());
                assert_eq!(self.connection.poll_timeout(), None);
                reason
            }
            other => panic!("{other:?} instead of the end"),
        }
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one session from its beginning to its end")]
fn a_whole_session() {
    let mut p = Player::new();
    let r = p.ask("OPTIONS rtsp://h/cam", "User-Agent: LibVLC/3.0\r\n");
    assert_eq!((r.cseq, r.user_agent.as_str()), (5, "LibVLC/3.0"));
    assert!(p.connection.respond(r.id, reply::options()));
    assert!(
        p.reply()
            .unwrap()
            .headers
            .get("Public")
            .unwrap()
            .contains("GET_PARAMETER")
    );
    assert!(!p.connection.respond(r.id, reply::options()), "answered once only");

    let r = p.ask(
        "DESCRIBE rtsp://h/cam?start=x",
        "Accept: application/sdp, application/x-rtsl\r\n",
    );
    assert_eq!(r.uri().unwrap().parameter("start"), Some("x"));
    p.connection
        .respond(r.id, reply::describe("rtsp://h/cam/?start=x", "v=0\r\n".into()));
    let d = p.reply().unwrap();
    assert_eq!(
        (&d.body[..], d.headers.get("Content-Type")),
        (&b"v=0\r\n"[..], Some("application/sdp"))
    );

    let r = p.ask(
        "SETUP rtsp://h/cam/track1?start=x",
        "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n",
    );
    let Action::Setup {
        transports,
        session: None,
        ..
    } = &r.action
    else {
        panic!("{r:?}")
    };
    assert_eq!(*transports, [Transport::tcp(0)]);
    let id = p.session(Lower::Tcp);
    p.connection.respond(r.id, reply::setup(&id, &transports[0]));
    let s = p.reply().unwrap();
    assert_eq!(s.headers.get("Session"), Some("0707070707070707;timeout=60"));
    assert_eq!(s.headers.get("Transport"), Some("RTP/AVP/TCP;unicast;interleaved=0-1"));

    let with = format!("Session: {id}\r\n");
    let r = p.ask(
        "PLAY rtsp://h/cam/",
        &format!("{with}Range: npt=1.5-\r\nScale: -2\r\nSpeed: 2.0\r\n"),
    );
    let Action::Play(play) = &r.action else { panic!("{r:?}") };
    assert_eq!(play.range, Some(Range::npt_from(Duration::from_millis(1500))));
    assert_eq!((play.scale.unwrap().get(), play.speed.unwrap().get()), (-2.0, 2.0));
    let played = reply::PlayReply {
        range: Some(Range::npt(Duration::from_secs(1), Duration::from_secs(9))),
        scale: play.scale,
        rtp_info: vec![crate::rtsp::RtpInfo {
            url: "rtsp://h/cam/track1".into(),
            seq: Some(1),
            rtptime: Some(2),
        }],
        ..reply::PlayReply::default()
    };
    p.connection.respond(r.id, reply::play(&id, &played));
    let s = p.reply().unwrap();
    assert_eq!(s.headers.get("Range"), Some("npt=1.000-9.000"));
    assert_eq!((s.headers.get("Scale"), s.headers.get("Speed")), (Some("-2.0"), None));
    assert_eq!(
        s.headers.get("RTP-Info"),
        Some("url=rtsp://h/cam/track1;seq=1;rtptime=2")
    );

    let r = p.ask("PAUSE rtsp://h/cam", &with);
    p.connection.respond(r.id, reply::pause(&id, None));
    assert_eq!(p.status(), 200);
    let r = p.ask("GET_PARAMETER rtsp://h/cam", &with);
    assert_eq!(r.action.session(), Some(&id));
    p.connection.respond(r.id, reply::parameters(Some(&id)));
    assert_eq!(p.status(), 200);
    let r = p.ask("TEARDOWN rtsp://h/cam", &with);
    p.connection.respond(r.id, reply::teardown(&id));
    p.connection.close_session(&id);
    assert_eq!(p.status(), 200);
    assert_eq!(
        p.refused("PLAY rtsp://h/cam", &with).status,
        StatusCode::SESSION_NOT_FOUND
    );
}

#[test]
fn onvif_headers() {
    let mut p = Player::new();
    let id = p.session(Lower::Tcp);
    let r = p.ask(
        "PLAY rtsp://h/cam/replay",
        &format!(
            "Session: {id}\r\nRequire: onvif-replay\r\nRange: clock=20261120T110000Z-20261120T100000Z\r\nRate-Control: no\r\n\
             Frames: intra/4000\r\nImmediate: yes\r\nx-corenvr-step: -1\r\n"
        ),
    );
    assert!(r.onvif_replay);
    let Action::Play(play) = r.action else { panic!() };
    assert_eq!(
        (play.rate_control, play.immediate, play.step),
        (Some(false), true, Some(Step::Backward))
    );
    assert_eq!(play.frames, Some(FrameFilter::Intra(Some(Duration::from_secs(4)))));
    assert!(matches!(play.range, Some(Range::Clock(c)) if c.end.unwrap() < c.start));
}

#[test]
fn wrong_input_gets_its_proper_status_and_the_connection_goes_on() {
    let mut p = Player::new();
    let id = p.session(Lower::Tcp);
    let with = format!("Session: {id}\r\n");
    let play = |h: &str| ("PLAY rtsp://h/cam".to_owned(), format!("{with}{h}\r\n"));
    let plain = |line: &str, h: &str| (line.to_owned(), h.to_owned());
    for ((line, headers), status) in [
        (plain("FLY rtsp://h/cam", ""), 501),
        (plain("ANNOUNCE rtsp://h/cam", ""), 405),
        (plain("RECORD rtsp://h/cam", ""), 405),
        (plain("DESCRIBE *", ""), 400),
        (plain("DESCRIBE http://h/cam", ""), 400),
        (plain("DESCRIBE rtsp://h/../etc/passwd", ""), 400),
        (plain("DESCRIBE rtsp://h/%2e%2e/x", ""), 400),
        (plain("DESCRIBE rtsp://h/cam", "Accept: text/html\r\n"), 406),
        (plain("DESCRIBE rtsp://h/cam", "Require: funky\r\n"), 551),
        (plain("SETUP rtsp://h/cam", ""), 400),
        (
            plain("SETUP rtsp://h/cam", "Transport: RTP/SAVP;unicast;client_port=1-2\r\n"),
            461,
        ),
        (plain("SETUP rtsp://h/cam", "Transport: RTP/AVP;multicast\r\n"), 461),
        (
            plain("SETUP rtsp://h/cam", "Transport: RTP/AVP;unicast;mode=\"\r\n"),
            461,
        ),
        (
            plain("SETUP rtsp://h/cam", "Transport: RTP/AVP/TCP;mode=record\r\n"),
            461,
        ),
        (plain("PLAY rtsp://h/cam", ""), 454),
        (plain("PAUSE rtsp://h/cam", "Session: 1\r\n"), 454),
        (plain("TEARDOWN rtsp://h/cam", ""), 454),
        (play("Range: npt=x-"), 400),
        (play("Range: smpte=0:0:0-"), 457),
        (play("Scale: NaN"), 400),
        (play("Scale: 1e9"), 400),
        (play("Scale: 0"), 400),
        (play("Speed: -1"), 400),
        (play("Speed: inf"), 400),
        (play("Frames: some"), 400),
        (play("Rate-Control: maybe"), 400),
        (play("x-corenvr-step: 2"), 400),
    ] {
        let r = p.refused(&line, &headers);
        assert_eq!(r.status.as_u16(), status, "{line} {headers}");
    }
    let r = p.refused("SETUP rtsp://h/cam", "Require: a, onvif-replay\r\nProxy-Require: b\r\n");
    assert_eq!(r.headers.get("Unsupported"), Some("a, b"));
    // Without a sequence number, and of another version.
    p.send("OPTIONS * RTSP/1.0\r\n\r\nOPTIONS * RTSP/1.0\r\nCSeq: x\r\n\r\nOPTIONS * RTSP/2.0\r\nCSeq: 1\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!([p.status(), p.status(), p.status(), p.status()], [400, 400, 505, 505]);
    let r = p.ask("OPTIONS *", "");
    assert_eq!(r.uri(), None);
}

/// What cannot be framed is answered, then the connection closes.
#[test]
fn broken_framing_closes_after_the_answer() {
    let long_uri = format!("PLAY rtsp://h/{} RTSP/1.0\r\n\r\n", "x".repeat(5000));
    let big_head = format!("PLAY * RTSP/1.0\r\nX: {}", "x".repeat(70_000));
    for (bytes, status, fault) in [
        ("\x16\x03\x01", 400, Fault::NotRtsp),
        ("PLAY\r\n\r\n", 400, Fault::StartLine),
        (
            "PLAY * RTSP/1.0\r\nContent-Length: -1\r\n\r\n",
            400,
            Fault::ContentLength,
        ),
        (
            "PLAY * RTSP/1.0\r\nContent-Length: 4294967295\r\n\r\n",
            413,
            Fault::BodyTooLarge,
        ),
        (&long_uri, 414, Fault::StartLineTooLong),
        (&big_head, 431, Fault::HeadTooLarge),
    ] {
        let mut p = Player::new();
        p.send(bytes);
        assert_eq!(p.status(), status);
        assert!(matches!(p.closed(), CloseReason::Framing(e) if e.fault == fault));
        p.send("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n");
        assert_eq!(p.reply(), None);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut p = Player::new();
    p.send("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\nFLY * RTSP/1.0\r\nCSeq: 2\r\n\r\nOPTIONS * RTSP/1.0\r\nCSeq: 3\r\n\r\n$\x01\x00\x02rr");
    assert_eq!(p.reply(), None, "the error waits for its turn");
    let first = p.request();
    assert!(matches!(p.connection.poll_event(), Some(ServerEvent::Data { channel: 1, payload }) if payload == "rr"));
    assert_eq!(p.connection.poll_event(), None, "one request at a time");
    p.connection.respond(first.id, reply::options());
    assert_eq!(
        [p.reply(), p.reply()].map(|r| r.unwrap().headers.cseq()),
        [Some(1), Some(2)]
    );
    let third = p.request();
    assert_eq!(third.cseq, 3);
    assert!(!p.connection.respond(first.id, reply::options()));
    p.connection.respond(third.id, reply::options());
    assert_eq!(p.reply().unwrap().headers.cseq(), Some(3));
}

#[test]
fn too_many_waiting_requests_close_the_connection() {
    let mut p = Player::new();
    p.send(&"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n".repeat(PIPELINE_MAX + 10));
    let r = p.request();
    p.connection.respond(r.id, reply::options());
    assert_eq!(p.closed(), CloseReason::Pipeline);
}

/// A player that asks and never reads is not read on.
#[test]
fn responses_that_nobody_takes_stop_the_input() {
    let mut p = Player::new();
    let mut input = BytesMut::from("FLY * RTSP/1.0\r\nCSeq: 1\r\n\r\n".repeat(10_000).as_bytes());
    for _ in 0..10_000 {
        p.connection.handle_input(p.now, &mut input);
    }
    assert!(!p.connection.wants_input() && !input.is_empty());
    let waiting: usize = std::iter::from_fn(|| p.connection.poll_transmit())
        .map(|b| b.len())
        .sum();
    assert!(waiting < TRANSMIT_BYTES_MAX + 1000, "{waiting}");
    assert!(p.connection.wants_input());
}

/// CVE-2026-41470 of live555: a session id was good on any connection.
#[test]
fn a_session_is_of_no_use_on_another_connection() {
    let (mut a, mut b) = (Player::new(), Player::new());
    let id = a.session(Lower::Tcp);
    for line in [
        "PLAY rtsp://h/cam",
        "TEARDOWN rtsp://h/cam",
        "PAUSE rtsp://h/cam",
        "GET_PARAMETER rtsp://h/cam",
    ] {
        let r = b.refused(line, &format!("Session: {id}\r\n"));
        assert_eq!(r.status, StatusCode::SESSION_NOT_FOUND);
    }
    let setup = format!("Session: {id}\r\nTransport: RTP/AVP/TCP\r\n");
    assert_eq!(
        b.refused("SETUP rtsp://h/cam", &setup).status,
        StatusCode::SESSION_NOT_FOUND
    );
    assert!(matches!(a.ask("SETUP rtsp://h/cam", &setup).action, Action::Setup { session: Some(s), .. } if s == id));
}

#[test]
fn sessions_per_connection_are_limited() {
    let mut p = Player::new();
    for n in 0..SESSIONS_MAX {
        assert!(p.connection.open_session(p.now, [n as u8; 8], Lower::Tcp).is_some());
    }
    assert_eq!(p.connection.open_session(p.now, [99; 8], Lower::Tcp), None);
}

#[test]
fn login_by_digest() {
    let mut p = Player::new();
    let r = p.ask("DESCRIBE rtsp://h/cam", "");
    assert_eq!(r.user, None);
    assert!(p.connection.unauthorized(p.now, r.id));
    let refusal = p.reply().unwrap();
    assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refusal.headers.get_all("WWW-Authenticate").count(), 2);
    let mut login = Authenticator::new(Some(Credentials::new("admin", "s3cret")), [3; 16]);
    login
        .challenged(parse_challenges(refusal.headers.get_all("WWW-Authenticate")))
        .unwrap();
    let header = login.authorize("DESCRIBE", "rtsp://h/cam").unwrap();
    let r = p.ask("DESCRIBE rtsp://h/cam", &format!("Authorization: {header}\r\n"));
    assert_eq!(r.user.as_deref(), Some("admin"));
    // Proved, but without the right.
    assert!(p.connection.unauthorized(p.now, r.id));
    assert_eq!(p.status(), 403);
    assert!(!p.connection.unauthorized(p.now, r.id));
    // A replay of the same header is asked again, as stale.
    let r = p.ask("DESCRIBE rtsp://h/cam", &format!("Authorization: {header}\r\n"));
    assert_eq!(r.user, None);
    p.connection.unauthorized(p.now, r.id);
    assert!(
        p.reply()
            .unwrap()
            .headers
            .get("WWW-Authenticate")
            .unwrap()
            .contains("stale=true")
    );
}

#[test]
fn guessing_passwords_closes_the_connection() {
    let mut p = Player::new();
    for n in 0..LOGIN_FAILURES_MAX {
        let r = p.ask("DESCRIBE rtsp://h/cam", &format!("Authorization: Basic {n}\r\n"));
        p.connection.unauthorized(p.now, r.id);
        assert_eq!(p.status(), 401);
    }
    assert_eq!(p.closed(), CloseReason::Logins);
    // Asking without a login is no guess.
    let mut p = Player::new();
    for _ in 0..20 {
        let r = p.ask("DESCRIBE rtsp://h/cam", "");
        p.connection.unauthorized(p.now, r.id);
        assert_eq!(p.status(), 401);
    }
}

#[test]
fn silence_closes_a_connection_without_a_session() {
    let mut p = Player::new();
    assert_eq!(p.connection.poll_timeout(), Some(p.now + IDLE_TIMEOUT));
    p.now += Duration::from_secs(50);
    // Half a request is no sign of life.
    let mut input = BytesMut::from(&b"OPTIONS * RTSP/1.0\r\n"[..]);
    p.connection.handle_input(p.now, &mut input);
    p.now += Duration::from_secs(10);
    p.connection.handle_timeout(p.now);
    assert_eq!(p.closed(), CloseReason::Idle);
    p.connection.handle_eof();
    assert_eq!(p.connection.poll_event(), None);
}

/// A paused mpv sends nothing: a session over TCP lives as long as its connection.
#[test]
fn a_session_over_tcp_never_times_out() {
    let mut p = Player::new();
    let id = p.session(Lower::Tcp);
    assert_eq!(p.connection.poll_timeout(), None);
    p.now += Duration::from_secs(100_000);
    p.connection.handle_timeout(p.now);
    assert_eq!(p.connection.sessions().collect::<Vec<_>>(), [&id]);
}

#[test]
fn a_session_over_udp_expires_unless_it_is_kept_alive() {
    let mut p = Player::new();
    let id = p.session(Lower::Udp);
    let life = SESSION_TIMEOUT + DATAGRAM_SESSION_GRACE;
    assert_eq!(p.connection.poll_timeout(), Some(p.now + life));
    p.now += Duration::from_mins(1);
    p.connection.keep_alive(p.now, &id);
    assert_eq!(p.connection.poll_timeout(), Some(p.now + life));
    p.now += Duration::from_mins(1);
    let r = p.ask("OPTIONS *", "");
    p.connection.respond(r.id, reply::options());
    assert_eq!(
        p.connection.poll_timeout(),
        Some(p.now + life),
        "any request keeps alive"
    );
    p.now += life;
    p.connection.handle_timeout(p.now);
    assert_eq!(p.connection.poll_event(), Some(ServerEvent::SessionExpired(id.clone())));
    assert_eq!(p.connection.sessions().count(), 0);
    // Nothing holds the connection any more.
    assert_eq!(p.closed(), CloseReason::Idle);
}

#[test]
fn the_end_of_the_connection_drops_what_waits() {
    let mut p = Player::new();
    let r = p.ask("OPTIONS *", "");
    p.send("OPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\n");
    p.connection.handle_eof();
    assert_eq!(p.closed(), CloseReason::Eof);
    assert!(!p.connection.respond(r.id, reply::options()));
    assert_eq!(p.connection.open_session(p.now, [0; 8], Lower::Tcp), None);
}

proptest! {
    #[test]
    fn arbitrary_requests(
        lines in prop::collection::vec("(OPTIONS|SETUP|PLAY|DESCRIBE|X) (rtsp://h/|\\*|/)[a-z/.?%=]{0,12} RTSP/1\\.0\r\n(CSeq: [0-9]{1,3}\r\n)?((Range|Scale|Transport|Authorization|Session|Frames|Require): [ -~]{0,30}\r\n){0,3}\r\n", 0..6)
    ) {
        let mut p = Player::new();
        let id = p.session(Lower::Tcp);
        let mut asked = 0;
        for text in &lines {
            asked += 1;
            p.send(&text.replace("Session: ", &format!("Session: {id};")));
            let mut answered = 0;
            while let Some(event) = p.connection.poll_event() {
                if let ServerEvent::Request(r) = event {
                    p.connection.respond(r.id, reply::options());
                }
            }
            while p.reply().is_some() {
                answered += 1;
            }
            prop_assert_eq!(answered, 1, "{} of {}", answered, asked);
        }
    }
}
