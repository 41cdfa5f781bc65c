//! Entry points for fuzzing: each takes arbitrary bytes and asserts what must hold whatever they are.

use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::{
    CameraUrl, Decoder, FrameFilter, Lower, Message, Range, Rate, RequestUri, Role, RtpInfo, SessionHeader, Transport,
    client::{Client, ClientConfig, Event, SetupChoice},
};
use crate::{
    auth::{self, Credentials},
    sdp::SessionDescription,
};

/// Everything that a decoder makes of the bytes, whole or in pieces of `step`.
fn messages(data: &[u8], role: Role, step: usize) -> (Vec<Message>, bool, u64) {
    let mut decoder = Decoder::new(role);
    decoder.expect_channel(0);
    let mut input = BytesMut::new();
    let mut list = Vec::new();
    for piece in data.chunks(step.max(1)) {
        input.extend_from_slice(piece);
        loop {
            let before = (input.len(), decoder.position());
            match decoder.decode(&mut input) {
                Ok(Some(message)) => {
                    assert!(decoder.position() > before.1 || input.len() < before.0, "no progress");
                    list.push(message);
                }
                Ok(None) => break,
                Err(e) => {
                    assert!(e.position <= data.len() as u64);
                    return (list, true, 0);
                }
            }
        }
        assert!(decoder.position() + input.len() as u64 <= data.len() as u64);
    }
    (list, false, decoder.skipped())
}

/// The decoder of either end: bytes mean the same however they arrive, and what is written again reads the same.
pub fn decode(data: &[u8]) {
    let (&step, data) = data.split_first().unwrap_or((&1, &[]));
    let whole = messages(data, Role::Server, data.len());
    let pieces = messages(data, Role::Server, usize::from(step) + 1);
    assert_eq!(whole, pieces, "the split matters");
    for message in &whole.0 {
        let bytes = match message {
            Message::Request(r) => r.to_bytes(),
            Message::Response(r) => r.to_bytes(),
            Message::Data { .. } => continue,
        };
        let again = messages(&bytes, Role::Server, bytes.len());
        assert!(again.0.len() == 1 && !again.1, "an encoded message does not decode");
    }
    // A client may find its way back at another place if a packet is cut where it looks for one.
    let _ = messages(data, Role::Client, data.len());
    let _ = messages(data, Role::Client, usize::from(step) + 1);
}

/// The SDP parser, and every typed header that takes text.
pub fn sdp(data: &[u8]) {
    if let Ok(sdp) = SessionDescription::parse(data) {
        assert!(!sdp.media.is_empty());
        for format in sdp.media.iter().flat_map(|m| &m.formats) {
            assert!(format.clock_rate > 0 && format.payload_type < 128);
        }
    }
}

/// The typed headers: what is written again reads the same.
pub fn headers(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for transport in Transport::parse_list(&text) {
        let _ = Transport::parse_list(&transport.to_string());
    }
    if let Ok(range) = Range::parse(&text) {
        assert_eq!(Range::parse(&range.to_string()), Ok(range));
    }
    let list = RtpInfo::parse_list(&text);
    let again = RtpInfo::parse_list(&RtpInfo::write_list(&list));
    assert_eq!(list.len(), again.len());
    if let Some(rate) = Rate::parse(&text) {
        assert!(rate.get().is_finite() && rate.get() != 0.0);
    }
    let _ = FrameFilter::parse(&text);
    let _ = SessionHeader::parse(&text);
}

/// The challenges and credentials of both sides.
pub fn auth_header(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let challenges = auth::parse_challenges(std::iter::once(&*text));
    let mut client = auth::Authenticator::new(Some(Credentials::new("user", "pass")), [7; 16]);
    if client.challenged(challenges).is_ok() {
        assert!(client.authorize("DESCRIBE", "rtsp://host/").is_some());
    }
    let now = Instant::now();
    let verifier = auth::Verifier::new("r", [1; 32], now, true, |_| Some(auth::Secret::Password("p".into())));
    let mut login = auth::ConnectionLogin::default();
    let _ = verifier.verify(
        now,
        std::net::IpAddr::from([127, 0, 0, 1]),
        &mut login,
        "PLAY",
        "rtsp://h/",
        Some(&text),
    );
    let once = auth::OneTimeVerifier::new("r", [1; 32], now);
    if let Ok(Some(login)) = auth::Login::parse(&text) {
        let verdict = once.verify(now, [127, 0, 0, 1].into(), "REGISTER", &login, "p", None);
        assert!(
            !matches!(verdict, auth::OneTimeVerdict::Right(_)),
            "a nonce that was never issued"
        );
    }
}

/// Camera URLs, request URIs and control joins.
pub fn url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(url) = CameraUrl::parse(&text) {
        assert!(!url.host().is_empty() && url.port() != 0);
        let request = url.request_url();
        assert!(!request.contains(char::is_control));
        // With an @ behind the host, a URL without its user part may read as one with another.
        if !request.contains('@') {
            let again = CameraUrl::parse(&request).expect("what is sent to a camera is a URL");
            assert!(again.credentials().is_none() && again.host() == url.host() && again.port() == url.port());
        }
        let _ = url.redirected(&text);
    }
    if let Ok(uri) = RequestUri::parse(&text) {
        assert!(uri.segments().iter().all(|s| s != ".." && !s.contains('/')));
        let again = RequestUri::parse(&uri.to_string()).expect("a canonical URI is a URI");
        assert_eq!(again.segments(), uri.segments());
    }
    let (a, b) = text.split_once('\n').unwrap_or((&text, ""));
    let base = super::url::control_base(Some(a), None, "rtsp://h/x");
    let _ = super::url::join_control(&base, b);
}

/// A client that is fed arbitrary bytes, in pieces, until it ends.
pub fn client(data: &[u8]) {
    let (&step, data) = data.split_first().unwrap_or((&1, &[]));
    let mut now = Instant::now();
    let url = CameraUrl::parse("rtsp://user:pass@camera/stream").expect("a constant URL");
    let lower = if step & 1 == 0 { Lower::Tcp } else { Lower::Udp };
    let mut client = Client::new(now, ClientConfig::new(url, lower, [3; 16]));
    let mut input = BytesMut::new();
    let mut ended = false;
    for piece in data.chunks(usize::from(step) + 1) {
        input.extend_from_slice(piece);
        client.handle_input(now, &mut input);
        while let Some(event) = client.poll_event() {
            assert!(!ended, "an event after the end");
            match event {
                Event::Described(sdp) => {
                    let choices: Vec<_> = (0..sdp.media.len())
                        .map(|media| SetupChoice {
                            media,
                            local_ports: Some((5000, 5001)),
                        })
                        .collect();
                    client.select(now, &choices).expect("described just now");
                }
                Event::Ended(_) | Event::Redirect(_) => ended = true,
                _ => {}
            }
        }
        while client.poll_transmit().is_some() {}
        assert_eq!(ended, client.poll_timeout().is_none());
        now += Duration::from_millis(500);
        if client.poll_timeout().is_some_and(|t| t <= now) {
            client.handle_timeout(now);
        }
    }
}
