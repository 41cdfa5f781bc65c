//! Entry points for fuzzing: each takes arbitrary bytes and asserts what must hold whatever they are.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::{
    MediaMessage, MediaMessageKind, RtmpUrl, StreamKey, Tracks,
    amf::{Reader, VALUES_MAX, Value},
    client::{self, Client, ClientConfig, ClientEvent},
    flv,
    server::{self, Server, ServerEvent},
};
use crate::bitstream::nal::split_lengths;

/// What a server makes of a publisher's bytes in pieces of `step`; everyone may publish.
fn serve(data: &[u8], step: usize) -> Vec<ServerEvent> {
    let now = Instant::now();
    let mut server = Server::new(now, [1; 32]);
    let (mut input, mut all) = (BytesMut::new(), Vec::new());
    for piece in data.chunks(step.max(1)) {
        input.extend_from_slice(piece);
        loop {
            let (before, held) = (input.len(), all.len());
            let more = server.handle_input(now, &mut input);
            let events: Vec<_> = std::iter::from_fn(|| server.poll_event()).collect();
            assert!(events.len() <= server::EVENTS_MAX + 1);
            let asked = matches!(events.last(), Some(ServerEvent::Publish(_)));
            all.extend(events);
            while server.poll_transmit().is_some() {}
            if asked {
                server.accept();
            } else if !more {
                break;
            }
            assert!(input.len() < before || all.len() > held, "no progress");
        }
    }
    let ends = all.iter().filter(|e| matches!(e, ServerEvent::Closed(_))).count();
    assert!(ends <= 1 && (ends == 0 || matches!(all.last(), Some(ServerEvent::Closed(_)))));
    all
}

/// A publisher's bytes behind its handshake: they mean the same however they arrive.
pub fn server(data: &[u8]) {
    let (&step, data) = data.split_first().unwrap_or((&1, &[]));
    let mut bytes = vec![3];
    bytes.resize(1 + 2 * 1536, 0);
    bytes.extend_from_slice(data);
    let whole = serve(&bytes, bytes.len());
    assert_eq!(whole, serve(&bytes, usize::from(step) * 8 + 1), "the split matters");
    assert!(whole.len() <= bytes.len());
    let mut tracks = Tracks::new();
    for event in whole {
        if let ServerEvent::Media(message) = event {
            feed(&mut tracks, &message);
        }
    }
    tracks.finish();
    check(&mut tracks);
    // And without a handshake.
    serve(data, data.len());
}

/// A server's bytes behind its handshake.
pub fn client(data: &[u8]) {
    let Ok(url) = RtmpUrl::parse("rtmp://user:pass@host/app/stream") else {
        return;
    };
    let (&step, data) = data.split_first().unwrap_or((&1, &[]));
    let mut bytes = vec![3];
    bytes.resize(1 + 2 * 1536, 0);
    bytes.extend_from_slice(data);
    let pull = |step: usize| {
        let now = Instant::now();
        let config = ClientConfig {
            url: url.clone(),
            random: [1; 32],
            redirects: 0,
        };
        let mut client = Client::new(now, config);
        let (mut input, mut all) = (BytesMut::new(), Vec::new());
        for piece in bytes.chunks(step) {
            input.extend_from_slice(piece);
            loop {
                let more = client.handle_input(now, &mut input);
                let events: Vec<_> = std::iter::from_fn(|| client.poll_event()).collect();
                assert!(events.len() <= client::EVENTS_MAX + 1 && (!more || !events.is_empty()));
                all.extend(events);
                while client.poll_transmit().is_some() {}
                if !more {
                    break;
                }
            }
        }
        client.handle_eof();
        all.extend(std::iter::from_fn(|| client.poll_event()));
        all
    };
    let whole = pull(bytes.len());
    assert_eq!(whole, pull(usize::from(step) * 8 + 1), "the split matters");
    let last = |e: &ClientEvent| matches!(e, ClientEvent::Ended(_) | ClientEvent::Redirect(_));
    assert!(whole.last().is_some_and(last) && whole.iter().filter(|e| last(e)).count() == 1);
}

/// AMF0 values: what was read is written and read the same.
pub fn amf(data: &[u8]) {
    let read = |data: &[u8]| {
        let mut reader = Reader::new(data);
        let mut values = Vec::new();
        while let Ok(Some(value)) = reader.next_value() {
            values.push(value);
        }
        values
    };
    let write = |values: &[Value]| {
        let mut out = BytesMut::new();
        for value in values {
            value.write(&mut out);
        }
        out
    };
    let values = read(data);
    assert!(values.len() <= VALUES_MAX);
    // Bytes, since a number that is none does not equal itself.
    let written = write(&values);
    let again = read(&written);
    assert_eq!(again.len(), values.len());
    assert_eq!(write(&again), written, "what is written reads otherwise");
}

/// Media messages: a byte of kind and time, a length, and the body of a tag, again and again.
pub fn flv(data: &[u8]) {
    let mut tracks = Tracks::new();
    let mut rest = data;
    let mut time = 0u32;
    while let Some((&[head, l0, l1], tail)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_be_bytes([l0, l1])).min(tail.len());
        let (body, tail) = tail.split_at(len);
        rest = tail;
        time = time.wrapping_add(u32::from(head >> 1));
        let kind = if head & 1 == 0 {
            MediaMessageKind::Video
        } else {
            MediaMessageKind::Audio
        };
        let message = MediaMessage {
            kind,
            timestamp: time,
            payload: Bytes::copy_from_slice(body),
        };
        feed(&mut tracks, &message);
    }
    tracks.finish();
    check(&mut tracks);
}

fn feed(tracks: &mut Tracks, message: &MediaMessage) {
    let read = match message.kind {
        MediaMessageKind::Video => flv::video(message.payload.clone()),
        MediaMessageKind::Audio => flv::audio(message.payload.clone()),
    };
    if let Ok(Some(flv::Tag {
        body: flv::Body::Unit { data, .. } | flv::Body::Configuration(data),
        ..
    })) = read
    {
        assert!(data.len() < message.payload.len());
    }
    // An error is a message that is dropped in part or whole; the stream goes on.
    let _ = tracks.push(message);
    check(tracks);
}

fn check(tracks: &mut Tracks) {
    use corenvr_media::{CodecParameters, VideoCodec};
    while let Some(unit) = tracks.poll_video() {
        assert!(!unit.data.is_empty());
        // Its own parameters: those of the stream may be of another codec by now.
        if let Some(CodecParameters::Video(v)) = unit.parameters.as_deref()
            && matches!(v.codec, VideoCodec::H264 | VideoCodec::H265)
        {
            assert!(split_lengths(&unit.data).all(|nal| nal.is_ok()));
        }
    }
    while let Some(unit) = tracks.poll_audio() {
        assert!(unit.key && !unit.data.is_empty() && !unit.damaged);
    }
}

/// URLs and keys: what is read shows no secret, and a redirect of it never panics.
pub fn url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(url) = RtmpUrl::parse(&text) {
        assert!(!url.app().is_empty() && !url.host().is_empty() && url.port() != 0);
        let _ = (url.play_path(), url.tc_url(), url.to_string(), url.redirected(&text));
    }
    if let Ok(key) = StreamKey::new(&text) {
        assert!(key.matches(&text));
        assert_eq!(key.to_string(), "rtmp+listen://***");
    }
}
