//! The client against scripted cameras: each quirk by the model that has it.

use std::time::Instant;

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::{
    auth::Scheme,
    rtsp::{Decoder, Fault, Message, Request, Role},
};

mod quirks;

const SDP: &str = "v=0\r\ns=x\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:trackID=1\r\n\
    m=audio 0 RTP/AVP 8\r\na=control:trackID=2\r\n";

/// A camera played by the test: it reads what the client sends and answers as told.
struct Camera {
    now: Instant,
    client: Client,
    decoder: Decoder,
    input: BytesMut,
}

impl Camera {
    fn with(config: ClientConfig) -> Self {
        let now = Instant::now();
        Self {
            now,
            client: Client::new(now, config),
            decoder: Decoder::new(Role::Server),
            input: BytesMut::new(),
        }
    }

    fn new(transport: Lower) -> Self {
        let url = CameraUrl::parse("rtsp://admin:hunter2@cam/live").unwrap();
        Self::with(ClientConfig::new(url, transport, [1; 16]))
    }

    /// The next message of the client.
    fn read(&mut self) -> Message {
        while let Some(bytes) = self.client.poll_transmit() {
            self.input.extend_from_slice(&bytes);
        }
        self.decoder
            .decode(&mut self.input)
            .unwrap()
            .expect("the client has sent nothing")
    }

    fn silent(&mut self) -> bool {
        self.client.poll_transmit().is_none() && self.input.is_empty()
    }

    /// The next request, which must be of that method.
    fn expect(&mut self, method: &str) -> Request {
        match self.read() {
            Message::Request(r) if r.method.as_str() == method => r,
            other => panic!("{other:?} instead of {method}"),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        let mut input = BytesMut::from(bytes);
        self.client.handle_input(self.now, &mut input);
        assert!(input.is_empty(), "not understood: {input:?}");
    }

    /// Answers with a status line, further header lines and a body.
    fn answer(&mut self, request: &Request, status: &str, headers: &str, body: &str) {
        let cseq = request.headers.get("CSeq").unwrap();
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        self.send(format!("RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n{length}{headers}\r\n{body}").as_bytes());
    }

    fn ok(&mut self, method: &str, headers: &str) -> Request {
        let request = self.expect(method);
        self.answer(&request, "200 OK", headers, "");
        request
    }

    fn event(&mut self) -> Event {
        self.client.poll_event().expect("no event")
    }

    fn ended(&mut self) -> EndReason {
        match self.event() {
            Event::Ended(reason) => {
                assert_eq!(self.client.poll_timeout(), None);
                assert_eq!(self.client.poll_event(), None);
                reason
            }
            other => panic!("{other:?} instead of the end"),
        }
    }

    fn described(&mut self, describe_headers: &str, sdp: &str) {
        self.ok("OPTIONS", "Public: OPTIONS, DESCRIBE, GET_PARAMETER\r\n");
        let request = self.expect("DESCRIBE");
        self.answer(&request, "200 OK", describe_headers, sdp);
        assert!(matches!(self.event(), Event::Described(_)));
    }

    fn select(&mut self, media: &[usize]) {
        let choices: Vec<_> = media
            .iter()
            .map(|&media| SetupChoice {
                media,
                local_ports: Some((5000 + 2 * media as u16, 5001 + 2 * media as u16)),
            })
            .collect();
        self.client.select(self.now, &choices).unwrap();
    }

    /// Plays the first stream over TCP.
    fn playing(public: &str, session: &str) -> Self {
        let mut c = Self::new(Lower::Tcp);
        c.ok("OPTIONS", &format!("Public: {public}\r\n"));
        let request = c.expect("DESCRIBE");
        c.answer(&request, "200 OK", "", SDP);
        c.event();
        c.select(&[0]);
        c.ok(
            "SETUP",
            &format!("Session: {session}\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n"),
        );
        c.event();
        c.ok("PLAY", "");
        assert!(matches!(c.event(), Event::Playing { .. }));
        c
    }

    /// Lets the time of the next timeout come.
    fn wait(&mut self) -> Duration {
        let due = self.client.poll_timeout().expect("nothing is awaited");
        let waited = due.saturating_duration_since(self.now);
        self.now = due;
        self.client.handle_timeout(due);
        waited
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one dialogue from its beginning to its end")]
fn a_whole_dialogue_over_tcp() {
    let mut c = Camera::new(Lower::Tcp);
    let options = c.ok("OPTIONS", "Public: DESCRIBE, GET_PARAMETER\r\n");
    assert_eq!(options.uri, "rtsp://cam/live");
    assert!(options.headers.get("User-Agent").unwrap().starts_with("corenvr/"));
    let describe = c.expect("DESCRIBE");
    assert_eq!(describe.headers.get("Accept"), Some("application/sdp"));
    c.answer(&describe, "200 OK", "Content-Base: rtsp://cam/live/\r\n", SDP);
    let Event::Described(sdp) = c.event() else { panic!() };
    assert_eq!(sdp.media.len(), 2);
    c.select(&[0, 1]);
    let setup = c.ok(
        "SETUP",
        "Session: abc;timeout=40\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=0000000A\r\n",
    );
    assert_eq!(setup.uri, "rtsp://cam/live/trackID=1");
    assert_eq!(
        setup.headers.get("Transport"),
        Some("RTP/AVP/TCP;unicast;interleaved=0-1")
    );
    assert_eq!(
        c.event(),
        Event::SetUp {
            stream: 0,
            transport: Granted::Interleaved { rtp: 0, rtcp: 1 },
            ssrc: Some(10)
        }
    );
    let setup = c.ok(
        "SETUP",
        "Session: abc\r\nTransport: RTP/AVP/TCP;unicast;interleaved=2-3\r\n",
    );
    assert_eq!(setup.headers.get("Session"), Some("abc"));
    c.event();
    let play = c.ok(
        "PLAY",
        "Range: npt=0.000-\r\nRTP-Info: url=trackID=2;seq=7;rtptime=9,url=rtsp://cam/live/trackID=1;seq=5\r\n",
    );
    assert_eq!(
        (play.uri.as_str(), play.headers.get("Range")),
        ("rtsp://cam/live/", Some("npt=0.000-"))
    );
    assert_eq!(
        c.event(),
        Event::Playing {
            info: vec![
                Some(StreamStart {
                    seq: Some(5),
                    rtptime: None
                }),
                Some(StreamStart {
                    seq: Some(7),
                    rtptime: Some(9)
                })
            ],
            range: Some(Range::npt_from(Duration::ZERO)),
        }
    );
    c.send(b"$\x00\x00\x02ab$\x03\x00\x01c");
    assert_eq!(
        c.event(),
        Event::Rtp {
            stream: 0,
            payload: Bytes::from_static(b"ab")
        }
    );
    assert_eq!(
        c.event(),
        Event::Rtcp {
            stream: 1,
            payload: Bytes::from_static(b"c")
        }
    );
    c.client.send_rtcp(1, b"rr");
    assert_eq!(
        c.read(),
        Message::Data {
            channel: 3,
            payload: Bytes::from_static(b"rr")
        }
    );
    assert_eq!(c.wait(), Duration::from_secs(20), "half the session timeout");
    let alive = c.ok("GET_PARAMETER", "");
    assert_eq!(alive.headers.get("Session"), Some("abc"));
    assert_eq!(c.wait(), Duration::from_secs(20));
    c.ok("GET_PARAMETER", "");
    c.client.teardown(c.now);
    c.ok("TEARDOWN", "");
    assert_eq!(c.ended(), EndReason::TornDown);
}

#[test]
fn udp_ports_and_what_is_granted() {
    let mut c = Camera::new(Lower::Udp);
    c.described("", SDP);
    assert_eq!(c.client.select(c.now, &[]), Err(SelectError::Count));
    assert_eq!(
        c.client.select(
            c.now,
            &[SetupChoice {
                media: 9,
                local_ports: None
            }]
        ),
        Err(SelectError::Media(9))
    );
    assert_eq!(
        c.client.select(
            c.now,
            &[SetupChoice {
                media: 0,
                local_ports: None
            }]
        ),
        Err(SelectError::Ports(0))
    );
    c.select(&[1]);
    assert_eq!(
        c.client.select(
            c.now,
            &[SetupChoice {
                media: 0,
                local_ports: None
            }]
        ),
        Err(SelectError::Phase)
    );
    let setup = c.ok(
        "SETUP",
        "Session: 1\r\nTransport: RTP/AVP;unicast;client_port=5002-5003;server_port=7000-7001;source=10.0.0.9\r\n",
    );
    assert_eq!(
        setup.headers.get("Transport"),
        Some("RTP/AVP;unicast;client_port=5002-5003")
    );
    let Event::SetUp { transport, .. } = c.event() else {
        panic!()
    };
    assert_eq!(
        transport,
        Granted::Udp {
            server_ports: Some((7000, 7001)),
            source: Some("10.0.0.9".into())
        }
    );
    c.client.send_rtcp(0, b"dropped: the socket is the caller's");
    c.ok("PLAY", "");
    assert!(c.silent());
}

#[test]
fn transport_refused() {
    for (transport, status, headers) in [
        (Lower::Udp, "461 Unsupported transport", ""),
        (Lower::Tcp, "200 OK", "Transport: RTP/AVP;unicast;client_port=1-2\r\n"),
        (Lower::Udp, "200 OK", "Transport: RTP/AVP;multicast;port=1-2\r\n"),
    ] {
        let mut c = Camera::new(transport);
        c.described("", SDP);
        c.select(&[0]);
        let r = c.expect("SETUP");
        c.answer(&r, status, headers, "");
        assert_eq!(c.ended(), EndReason::TransportRefused { asked: transport });
    }
}

#[test]
fn digest_login_with_one_nonce_for_all_requests() {
    let mut c = Camera::new(Lower::Tcp);
    c.ok("OPTIONS", "");
    let r = c.expect("DESCRIBE");
    assert_eq!(r.headers.get("Authorization"), None);
    c.answer(
        &r,
        "401 Unauthorized",
        "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\nWWW-Authenticate: Basic realm=\"r\"\r\n",
        "",
    );
    let again = c.expect("DESCRIBE");
    assert_ne!(again.headers.cseq(), r.headers.cseq());
    let header = again.headers.get("Authorization").unwrap();
    assert!(
        header.starts_with("Digest username=\"admin\"") && header.contains("uri=\"rtsp://cam/live\""),
        "{header}"
    );
    c.answer(&again, "200 OK", "", SDP);
    c.event();
    c.select(&[0]);
    let setup = c.expect("SETUP");
    assert!(setup.headers.get("Authorization").unwrap().contains("nonce=\"n\""));
    // The nonce grew old in the meantime.
    c.answer(
        &setup,
        "401 Unauthorized",
        "WWW-Authenticate: Digest realm=\"r\", nonce=\"m\", stale=true\r\n",
        "",
    );
    assert!(
        c.expect("SETUP")
            .headers
            .get("Authorization")
            .unwrap()
            .contains("nonce=\"m\"")
    );
}

#[test]
fn wrong_password_is_said_with_the_scheme() {
    let mut c = Camera::new(Lower::Tcp);
    for nonce in ["a", "b"] {
        let r = c.expect("OPTIONS");
        c.answer(
            &r,
            "401 Unauthorized",
            &format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"{nonce}\"\r\n"),
            "",
        );
    }
    assert_eq!(c.ended(), EndReason::Authentication(Refusal::Wrong(Scheme::DigestMd5)));
    // A camera that calls every nonce stale is not asked for ever.
    let mut c = Camera::new(Lower::Tcp);
    for nonce in 0..4 {
        let r = c.expect("OPTIONS");
        c.answer(
            &r,
            "401 Unauthorized",
            &format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"{nonce}\", stale=true\r\n"),
            "",
        );
    }
    assert_eq!(c.ended(), EndReason::Authentication(Refusal::Wrong(Scheme::DigestMd5)));
    // No login at hand.
    let url = CameraUrl::parse("rtsp://cam/live").unwrap();
    let mut c = Camera::with(ClientConfig::new(url, Lower::Tcp, [0; 16]));
    let r = c.expect("OPTIONS");
    c.answer(&r, "401 Unauthorized", "WWW-Authenticate: Basic realm=\"r\"\r\n", "");
    assert_eq!(c.ended(), EndReason::Authentication(Refusal::NoCredentials));
}

#[test]
fn refusals_are_typed() {
    let end = |status: &str| {
        let mut c = Camera::new(Lower::Tcp);
        c.ok("OPTIONS", "");
        let r = c.expect("DESCRIBE");
        c.answer(&r, status, "", "");
        c.ended()
    };
    let method = Method::Describe;
    assert_eq!(end("404 Not Found"), EndReason::NotFound { method: method.clone() });
    assert_eq!(end("403 Forbidden"), EndReason::Forbidden { method: method.clone() });
    let status = StatusCode::NOT_ENOUGH_BANDWIDTH;
    assert_eq!(
        end("453 Too many users"),
        EndReason::Refused {
            method,
            status,
            reason: "Too many users".into()
        }
    );
    assert_eq!(
        end("200 OK"),
        EndReason::Violation {
            position: 56,
            what: "DESCRIBE was answered without a description"
        }
    );
    assert_eq!(
        end("302 Moved"),
        EndReason::Violation {
            position: 59,
            what: "redirect without a usable Location"
        }
    );
}

#[test]
fn an_empty_description_is_said() {
    let mut c = Camera::new(Lower::Tcp);
    c.ok("OPTIONS", "");
    let r = c.expect("DESCRIBE");
    c.answer(&r, "200 OK", "", "v=0\r\n");
    assert_eq!(c.ended(), EndReason::Sdp(SdpError::NoMedia));
}

#[test]
fn three_redirects_are_followed() {
    let mut config = ClientConfig::new(CameraUrl::parse("rtsp://u:p@cam/live").unwrap(), Lower::Tcp, [0; 16]);
    for n in 0..3 {
        let mut c = Camera::with(config.clone());
        let r = c.expect("OPTIONS");
        c.answer(&r, "302 Moved", &format!("Location: rtsp://cam:{}/x\r\n", 9000 + n), "");
        let Event::Redirect(url) = c.event() else { panic!() };
        assert_eq!(c.client.poll_timeout(), None);
        config = config.redirected(url);
        assert_eq!(config.url.port(), 9000 + n);
        assert!(config.credentials.is_some());
    }
    let mut c = Camera::with(config);
    let r = c.expect("OPTIONS");
    c.answer(&r, "301 Moved", "Location: rtsp://cam/y\r\n", "");
    assert_eq!(c.ended(), EndReason::TooManyRedirects);
}

#[test]
fn no_answer_for_ten_seconds() {
    let mut c = Camera::new(Lower::Tcp);
    c.expect("OPTIONS");
    c.client.handle_timeout(c.now);
    assert_eq!(c.client.poll_event(), None);
    assert_eq!(c.wait(), RESPONSE_TIMEOUT);
    assert_eq!(
        c.ended(),
        EndReason::Timeout {
            method: Method::Options,
            after: RESPONSE_TIMEOUT
        }
    );
}

#[test]
fn the_end_of_the_connection_names_what_was_awaited() {
    let mut c = Camera::new(Lower::Tcp);
    c.client.handle_eof();
    assert_eq!(
        c.ended(),
        EndReason::Closed {
            during: Some(Method::Options)
        }
    );
    let mut c = Camera::playing("OPTIONS", "1");
    c.client.handle_eof();
    assert_eq!(c.ended(), EndReason::Closed { during: None });
    let mut c = Camera::playing("OPTIONS", "1");
    c.client.teardown(c.now);
    assert_eq!(c.wait(), TEARDOWN_TIMEOUT);
    assert_eq!(c.ended(), EndReason::TornDown);
    let mut c = Camera::new(Lower::Tcp);
    c.client.teardown(c.now);
    assert_eq!(c.ended(), EndReason::TornDown);
}

#[test]
fn bytes_that_are_no_rtsp_end_it_with_their_position() {
    let mut c = Camera::new(Lower::Tcp);
    c.client
        .handle_input(c.now, &mut BytesMut::from(&b"\r\nHTTP/1.1 200 OK\r\n\r\n"[..]));
    let EndReason::Framing(e) = c.ended() else { panic!() };
    assert_eq!((e.fault, e.position), (Fault::NotRtsp, 2));
}

#[test]
fn options_may_be_left_out() {
    let mut config = ClientConfig::new(CameraUrl::parse("rtsp://cam/live").unwrap(), Lower::Tcp, [0; 16]);
    config.options_first = false;
    let mut c = Camera::with(config);
    assert_eq!(c.expect("DESCRIBE").headers.cseq(), Some(1));
    // Refused OPTIONS do not matter either.
    let mut c = Camera::new(Lower::Tcp);
    let r = c.expect("OPTIONS");
    c.answer(&r, "501 Not Implemented", "", "");
    c.expect("DESCRIBE");
}

#[test]
fn no_debug_form_shows_the_password() {
    let mut c = Camera::new(Lower::Tcp);
    let r = c.expect("OPTIONS");
    c.answer(&r, "401 Unauthorized", "WWW-Authenticate: Basic realm=\"r\"\r\n", "");
    let r = c.expect("OPTIONS");
    assert!(r.headers.get("Authorization").is_some());
    c.answer(&r, "200 OK", "", "");
    // The next request waits to be sent with the password in it.
    let text = format!("{:?} {r:?}", c.client);
    assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{text}");
}

/// A good dialogue of a camera, to mutate.
fn good() -> Vec<u8> {
    let sdp = format!(
        "RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Length: {}\r\n\r\n{SDP}",
        SDP.len()
    );
    [
        b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: GET_PARAMETER\r\n\r\n",
        sdp.as_bytes(),
        b"RTSP/1.0 200 OK\r\nCSeq: 3\r\nSession: 1;timeout=9\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nCSeq: 4\r\nTransport: RTP/AVP/TCP;interleaved=2-3\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nCSeq: 5\r\nRTP-Info: url=trackID=1;seq=1;rtptime=2\r\n\r\n",
        b"$\x00\x00\x04\x80abc$\x01\x00\x04\x80abcOPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\n",
    ]
    .concat()
}

proptest! {
    #[test]
    fn arbitrary_bytes(data in prop::collection::vec(any::<u8>(), 0..600)) {
        crate::rtsp::fuzzing::client(&data);
    }

    #[test]
    fn mutated_cameras(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..10), step in any::<u8>()) {
        let mut data = good();
        for (at, b) in edits {
            let at = at.index(data.len());
            data[at] = b;
        }
        data.insert(0, step);
        crate::rtsp::fuzzing::client(&data);
    }
}
