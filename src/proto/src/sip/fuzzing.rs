//! Entry points for fuzzing: each takes arbitrary bytes and asserts what must hold whatever they are.

use bytes::BytesMut;

use super::{
    BODY_BYTES_MAX, CSeq, Decoder, Message, Method, NameAddr, Uri, Via, dialog::Dialog, header::seconds,
    parse_datagram, transaction::decline_late_answer,
};

/// One datagram: what is written again reads the same, and every typed header takes what is in it.
pub fn message(data: &[u8]) {
    let Ok(Some(message)) = parse_datagram(data) else {
        return;
    };
    let headers = message.headers();
    for (_, value) in headers.iter() {
        assert!(!value.contains(['\r', '\n']), "a value that begins a line");
        if let Some(address) = NameAddr::parse(value) {
            let _ = (address.tag(), address.expires(), address.user());
        }
        if let Some(uri) = Uri::parse(value) {
            let again = Uri::parse(&uri.to_string()).expect("a written URI is a URI");
            assert_eq!((&again.host, again.port), (&uri.host, uri.port));
        }
        if let Some(mut via) = Via::parse(value) {
            via.received_from(([192, 0, 2, 1], 5060).into());
            let again = Via::parse(&via.to_string()).expect("a written Via is a Via");
            assert_eq!(again.branch().is_some(), via.branch().is_some());
        }
        let _ = (CSeq::parse(value), seconds(value));
    }
    let bytes = message.to_bytes();
    if bytes.len() < super::HEAD_BYTES_MAX {
        let again = parse_datagram(&bytes)
            .expect("what is written can be read")
            .expect("and is no ping");
        assert_eq!(again.to_bytes(), bytes);
    }
    match &message {
        Message::Request(request) => {
            let response = request.response(200, ([192, 0, 2, 1], 5060).into(), "t");
            let mut dialog = Dialog::new(request, &response);
            for request in [dialog.ack(), dialog.request(Method::Bye)] {
                let again = parse_datagram(&request.to_bytes()).expect("what is written can be read");
                assert!(matches!(again, Some(Message::Request(r)) if r.method == request.method));
            }
        }
        Message::Response(response) => {
            let _ = decline_late_answer(response);
        }
    }
}

fn messages(data: &[u8], step: usize) -> (Vec<Message>, bool) {
    let mut decoder = Decoder::new(BODY_BYTES_MAX);
    let mut input = BytesMut::new();
    let mut list = Vec::new();
    for piece in data.chunks(step.max(1)) {
        input.extend_from_slice(piece);
        loop {
            let before = input.len();
            match decoder.decode(&mut input) {
                Ok(Some(message)) => {
                    assert!(input.len() <= before);
                    list.push(message);
                }
                Ok(None) => break,
                Err(e) => {
                    assert!(e.position <= data.len() as u64);
                    return (list, true);
                }
            }
        }
    }
    (list, false)
}

/// A connection: bytes mean the same however they arrive.
pub fn stream(data: &[u8]) {
    let (&step, data) = data.split_first().unwrap_or((&1, &[]));
    let whole = messages(data, data.len());
    let pieces = messages(data, usize::from(step) + 1);
    assert_eq!(whole, pieces, "the split matters");
}
