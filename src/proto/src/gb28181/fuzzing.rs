//! Entry points for fuzzing: each takes arbitrary bytes and asserts what must hold whatever they are.

use super::{
    id::{DeviceId, ID_CHARS_MAX},
    manscdp::{Body, ITEMS_MAX, LocalTime, Message, Notify, Response, beijing},
    mansrtsp,
    ptz::PtzCommand,
    sdp::{Answer, Offer, Ssrc},
    url::Gb28181Url,
};

/// MANSCDP: what is written of what was read reads the same, once times are in whole seconds.
pub fn manscdp(data: &[u8]) {
    let Ok(read) = Message::parse(data) else {
        return;
    };
    match &read.body {
        Body::Response(Response::Catalog { items, .. }) => assert!(items.len() <= ITEMS_MAX),
        Body::Response(Response::RecordInfo { items, .. }) => assert!(items.len() <= ITEMS_MAX),
        Body::Notify(Notify::Catalog { changes, .. }) => assert!(changes.len() <= ITEMS_MAX),
        _ => {}
    }
    let once = Message::parse(&read.to_bytes()).expect("what we write is XML");
    assert_eq!((once.sn, once.device), (read.sn, read.device));
    assert_eq!(std::mem::discriminant(&once.body), std::mem::discriminant(&read.body));
    let twice = Message::parse(&once.to_bytes()).expect("what we write is XML");
    assert_eq!(once, twice);
}

/// SDP, both ways, and MANSRTSP, which is text of the same kind.
pub fn sdp(data: &[u8]) {
    if let Ok(answer) = Answer::parse(data) {
        assert!(!answer.formats.is_empty());
        let once = Answer::parse(answer.to_string().as_bytes()).expect("what we write is an answer");
        assert_eq!(
            (once.port, once.ssrc, once.setup),
            (answer.port, answer.ssrc, answer.setup)
        );
        assert_eq!(
            (once.origin, once.file_bytes, once.is_tcp),
            (answer.origin, answer.file_bytes, answer.is_tcp)
        );
        let twice = Answer::parse(once.to_string().as_bytes()).expect("what we write is an answer");
        assert_eq!(once, twice);
    }
    if let Ok(offer) = Offer::parse(data) {
        let again = Offer::parse(offer.to_string().as_bytes()).expect("what we write is an offer");
        assert_eq!(
            (again.session, again.transport, again.stream),
            (offer.session, offer.transport, offer.stream)
        );
        assert_eq!(
            (again.origin, again.address, again.ssrc),
            (offer.origin, offer.address, offer.ssrc)
        );
    }
    if let Ok(request) = mansrtsp::Request::parse(data) {
        assert_eq!(mansrtsp::Request::parse(request.to_string().as_bytes()), Ok(request));
    }
    if let Ok(response) = mansrtsp::Response::parse(data) {
        assert_eq!(mansrtsp::Response::parse(response.to_string().as_bytes()), Ok(response));
    }
}

/// The short texts: URLs, identities, numbers, times, commands.
pub fn texts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(url) = Gb28181Url::parse(&text) {
        let shown = Gb28181Url::parse(&url.to_string()).expect("a URL that is shown is a URL");
        assert_eq!(
            (shown.device, shown.channel, shown.transport, shown.stream),
            (url.device, url.channel, url.transport, url.stream)
        );
        assert_eq!(shown.password, None);
    }
    if let Ok(id) = DeviceId::parse(&text) {
        assert!((1..=ID_CHARS_MAX).contains(&id.as_str().len()) && id.as_str() == text.trim());
    }
    if let Some(ssrc) = Ssrc::parse(&text) {
        assert_eq!(Ssrc::parse(&ssrc.to_string()), Some(ssrc));
    }
    if let Some(time) = LocalTime::parse(&text) {
        let _ = time.to_utc(&beijing());
        let again = LocalTime::parse(&time.to_string()).expect("a time that is written is a time");
        assert_eq!(again.has_offset(), time.has_offset());
    }
    if let Ok(command) = PtzCommand::parse(&text) {
        assert_eq!(PtzCommand::parse(&command.to_string()), Ok(command));
    }
}
