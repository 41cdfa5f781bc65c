//! Both machines against each other, and each against what real peers send.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::{
    MediaMessage, MediaMessageKind, RtmpUrl,
    amf::Value,
    chunk::{ChunkReader, ChunkWriter, Message},
    client::{Client, ClientConfig, ClientEvent, EndReason},
    server::{CloseReason, PUBLISH_TIMEOUT, PublishRequest, Server, ServerEvent},
};

/// A peer made of single messages.
struct Peer {
    writer: ChunkWriter,
    reader: ChunkReader,
    out: BytesMut,
    input: BytesMut,
}

impl Peer {
    /// With the handshake of a side that connects.
    fn client() -> Self {
        let mut peer = Self::server();
        peer.out.extend_from_slice(&[3]);
        peer.out.extend_from_slice(&[0; 1536 * 2]);
        peer
    }

    fn server() -> Self {
        Self {
            writer: ChunkWriter::new(),
            reader: ChunkReader::new(),
            out: BytesMut::new(),
            input: BytesMut::new(),
        }
    }

    fn send(&mut self, kind: u8, timestamp: u32, payload: &[u8]) {
        let message = Message {
            chunk_stream: 4,
            kind,
            timestamp,
            stream_id: 1,
            payload: Bytes::copy_from_slice(payload),
        };
        self.writer.write(&message, &mut self.out);
    }

    fn command(&mut self, kind: u8, name: &str, transaction: f64, arguments: &[Value]) {
        let mut body = BytesMut::new();
        if kind == 17 {
            body.extend_from_slice(&[0]);
        }
        for value in [Value::string(name), Value::Number(transaction)]
            .iter()
            .chain(arguments)
        {
            value.write(&mut body);
        }
        self.send(kind, 0, &body);
    }

    fn connect(&mut self, kind: u8, app: &str) {
        let object = Value::object([("app", Value::string(app)), ("tcUrl", Value::string("rtmp://h/live"))]);
        self.command(kind, "connect", 1.0, &[object]);
    }

    /// As an encoder begins, up to `publish`.
    fn publish(&mut self, kind: u8, app: &str, name: &str) {
        self.connect(kind, app);
        self.command(kind, "releaseStream", 2.0, &[Value::Null, Value::string(name)]);
        self.command(kind, "FCPublish", 3.0, &[Value::Null, Value::string(name)]);
        self.command(kind, "createStream", 4.0, &[Value::Null]);
        let arguments = [Value::Null, Value::string(name), Value::string("live")];
        self.command(kind, "publish", 5.0, &arguments);
    }

    /// The commands among what the other side sent: name and `code`.
    fn answers(&mut self) -> Vec<(String, String)> {
        let mut answers = Vec::new();
        while let Some(message) = self.reader.read(&mut self.input).unwrap() {
            match message.kind {
                1 => {
                    let size = u32::from_be_bytes(*message.payload.first_chunk().unwrap());
                    self.reader.set_chunk_size(size).unwrap();
                }
                20 => {
                    let mut reader = super::amf::Reader::new(&message.payload);
                    let mut values = std::iter::from_fn(|| reader.next_value().unwrap());
                    let name = values.next().and_then(|v| v.as_str().map(str::to_owned)).unwrap();
                    let code = values.last().and_then(|v| v.get("code")?.as_str().map(str::to_owned));
                    answers.push((name, code.unwrap_or_default()));
                }
                _ => {}
            }
        }
        answers
    }
}

/// A server that has taken what a peer sent, in pieces; its events.
fn serve(server: &mut Server, peer: &mut Peer, now: Instant) -> Vec<ServerEvent> {
    let mut events = Vec::new();
    let mut input = BytesMut::new();
    for piece in peer.out.split().chunks(1000) {
        input.extend_from_slice(piece);
        loop {
            let more = server.handle_input(now, &mut input);
            let before = events.len();
            events.extend(std::iter::from_fn(|| server.poll_event()));
            if matches!(events.last(), Some(ServerEvent::Publish(_))) && events.len() > before {
                server.accept();
                continue;
            }
            if !more {
                break;
            }
        }
        while let Some(bytes) = server.poll_transmit() {
            peer.input.extend_from_slice(&bytes);
        }
    }
    events
}

fn after_handshake(peer: &mut Peer) {
    assert!(peer.input.len() > 2 * 1536);
    let _ = peer.input.split_to(1 + 2 * 1536);
}

fn video(timestamp: u32, payload: &'static [u8]) -> ServerEvent {
    ServerEvent::Media(MediaMessage {
        kind: MediaMessageKind::Video,
        timestamp,
        payload: Bytes::from_static(payload),
    })
}

#[test]
fn an_encoder_publishes_and_ends() {
    for kind in [20, 17] {
        let now = Instant::now();
        let mut server = Server::new(now, [1; 32]);
        let mut peer = Peer::client();
        // Before connect, as some encoders do.
        peer.send(1, 0, &4096u32.to_be_bytes());
        peer.writer.set_chunk_size(4096);
        peer.publish(kind, "live?user=u", "KEY-12345?pass=p");
        peer.send(18, 0, b"\x02\x00\x0d@setDataFrame");
        peer.send(9, 40, b"picture");
        peer.send(8, 41, b"sound");
        peer.send(9, 41, b"");
        peer.command(kind, "FCUnpublish", 6.0, &[Value::Null, Value::string("KEY-12345")]);
        peer.command(kind, "deleteStream", 7.0, &[Value::Null, Value::Number(1.0)]);
        let events = serve(&mut server, &mut peer, now);
        let request = PublishRequest {
            app: "live".into(),
            key: "KEY-12345".into(),
            query: "user=u&pass=p".into(),
        };
        let sound = MediaMessage {
            kind: MediaMessageKind::Audio,
            timestamp: 41,
            payload: Bytes::from_static(b"sound"),
        };
        let expected = [
            ServerEvent::Publish(request.clone()),
            video(40, b"picture"),
            ServerEvent::Media(sound),
            ServerEvent::Unpublished,
        ];
        assert_eq!(events, expected);
        assert!(!format!("{request:?}").contains("12345"));
        after_handshake(&mut peer);
        let answers = peer.answers();
        let codes: Vec<_> = answers
            .iter()
            .map(|(name, code)| (name.as_str(), code.as_str()))
            .collect();
        let expected = [
            ("_result", "NetConnection.Connect.Success"),
            ("_result", ""),
            ("onFCPublish", "NetStream.Publish.Start"),
            ("_result", ""),
            ("onStatus", "NetStream.Publish.Start"),
            ("onStatus", "NetStream.Unpublish.Success"),
        ];
        assert_eq!(codes, expected);
        server.handle_eof();
        assert_eq!(server.poll_event(), Some(ServerEvent::Closed(CloseReason::Closed)));
        assert_eq!(server.poll_event(), None);
    }
}

#[test]
fn a_refused_publisher_is_told_why() {
    let now = Instant::now();
    let mut server = Server::new(now, [1; 32]);
    let mut peer = Peer::client();
    peer.publish(20, "live", "nobody");
    peer.send(9, 40, b"not to be seen");
    let mut input = peer.out.split();
    assert!(!server.handle_input(now, &mut input));
    assert!(matches!(server.poll_event(), Some(ServerEvent::Publish(_))));
    assert!(!input.is_empty(), "what follows waits for the answer");
    server.refuse("no camera has this key");
    server.handle_input(now, &mut input);
    assert_eq!(server.poll_event(), Some(ServerEvent::Closed(CloseReason::Refused)));
    assert_eq!(server.poll_event(), None);
    while let Some(bytes) = server.poll_transmit() {
        peer.input.extend_from_slice(&bytes);
    }
    after_handshake(&mut peer);
    assert!(peer.input.windows(22).any(|w| w == b"no camera has this key"));
    let last = peer.answers().pop().unwrap();
    assert_eq!(last, ("onStatus".to_owned(), "NetStream.Publish.BadName".to_owned()));
}

#[test]
fn a_connection_that_only_sits_there_ends() {
    let now = Instant::now();
    let mut server = Server::new(now, [1; 32]);
    assert_eq!(server.poll_timeout(), Some(now + PUBLISH_TIMEOUT));
    server.handle_timeout(now + PUBLISH_TIMEOUT / 2);
    assert_eq!(server.poll_event(), None);
    server.handle_timeout(now + PUBLISH_TIMEOUT);
    assert_eq!(server.poll_event(), Some(ServerEvent::Closed(CloseReason::Timeout)));
}

#[test]
fn players_violations_and_floods_end_the_connection() {
    let close = |fill: fn(&mut Peer)| {
        let now = Instant::now();
        let mut server = Server::new(now, [1; 32]);
        let mut peer = Peer::client();
        fill(&mut peer);
        match serve(&mut server, &mut peer, now).pop() {
            Some(ServerEvent::Closed(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    let player = close(|peer| {
        peer.connect(20, "live");
        peer.command(20, "play", 4.0, &[Value::Null, Value::string("x")]);
    });
    assert_eq!(player, CloseReason::Player);
    let early = close(|peer| peer.command(20, "createStream", 4.0, &[Value::Null]));
    assert!(early.to_string().contains("before connect"));
    let flood = close(|peer| {
        peer.connect(20, "live");
        (0..100).for_each(|n| peer.command(20, "getStreamLength", f64::from(n), &[Value::Null]));
    });
    assert!(flood.to_string().contains("too many commands"));
    let pings = close(|peer| {
        peer.connect(20, "live");
        (0..9000).for_each(|_| peer.send(4, 0, &[0, 6, 1, 2, 3, 4]));
        peer.send(1, 0, &[0, 0, 0, 0]);
    });
    assert!(pings.to_string().contains("chunk size of 0"), "{pings}");
    let long = close(|peer| {
        let name = "x".repeat(2000);
        peer.publish(20, "live", &name);
    });
    assert!(long.to_string().contains("too long"));
}

#[test]
fn a_peer_that_never_reads_is_not_read_either() {
    let now = Instant::now();
    let mut server = Server::new(now, [1; 32]);
    let mut peer = Peer::client();
    for _ in 0..9000 {
        peer.send(4, 0, &[0, 6, 1, 2, 3, 4]);
    }
    let mut rounds = 0;
    while server.handle_input(now, &mut peer.out) {
        rounds += 1;
        assert!(!peer.out.is_empty());
        let sent: usize = std::iter::from_fn(|| server.poll_transmit()).map(|b| b.len()).sum();
        assert!((64 << 10..65 << 10).contains(&sent), "{sent}");
    }
    assert!(rounds > 1 && peer.out.is_empty());
    assert_eq!(server.poll_event(), None);
}

#[test]
fn aggregates_and_acknowledgements() {
    let now = Instant::now();
    let mut server = Server::new(now, [1; 32]);
    let mut peer = Peer::client();
    peer.publish(20, "live", "KEY-12345");
    peer.send(5, 0, &1000u32.to_be_bytes());
    let mut aggregate = Vec::new();
    for (kind, time, body) in [
        (9u8, 0x0200_0000u32, &b"one"[..]),
        (18, 7, b"meta"),
        (9, 0x0200_0028, b"two"),
    ] {
        let t = time.to_be_bytes();
        aggregate.extend([kind, 0, 0, body.len() as u8, t[1], t[2], t[3], t[0], 0, 0, 0]);
        aggregate.extend(body);
        aggregate.extend((body.len() as u32 + 11).to_be_bytes());
    }
    aggregate.extend([9, 0, 0, 200]); // cut off
    peer.send(22, 5000, &aggregate);
    let events = serve(&mut server, &mut peer, now);
    assert_eq!(events[1..], [video(5000, b"one"), video(5040, b"two")]);
    after_handshake(&mut peer);
    let mut acknowledged = 0;
    while let Some(message) = peer.reader.read(&mut peer.input).unwrap() {
        match message.kind {
            1 => peer.reader.set_chunk_size(4096).unwrap(),
            3 => acknowledged = u32::from_be_bytes(*message.payload.first_chunk().unwrap()),
            _ => {}
        }
    }
    assert!(acknowledged > 3000, "{acknowledged}");
}

#[test]
fn events_are_bounded_and_nothing_is_lost() {
    let now = Instant::now();
    let mut server = Server::new(now, [1; 32]);
    let mut peer = Peer::client();
    peer.publish(20, "live", "KEY-12345");
    for n in 0..1000 {
        peer.send(9, n, b"x");
    }
    let mut input = peer.out.split();
    server.handle_input(now, &mut input);
    assert!(matches!(server.poll_event(), Some(ServerEvent::Publish(_))));
    server.accept();
    let mut times = Vec::new();
    loop {
        let more = server.handle_input(now, &mut input);
        let events: Vec<_> = std::iter::from_fn(|| server.poll_event()).collect();
        assert!(events.len() <= super::server::EVENTS_MAX);
        times.extend(events.into_iter().map(|e| match e {
            ServerEvent::Media(m) => m.timestamp,
            other => panic!("{other:?}"),
        }));
        if !more {
            break;
        }
    }
    assert_eq!(times, (0..1000).collect::<Vec<_>>());
}

fn client(url: &str, now: Instant) -> Client {
    Client::new(
        now,
        ClientConfig {
            url: RtmpUrl::parse(url).unwrap(),
            random: [7; 32],
            redirects: 0,
        },
    )
}

/// A server made of messages: the handshake and what `fill` sends are there at once.
fn played(url: &str, fill: impl Fn(&mut Peer)) -> (Vec<ClientEvent>, BytesMut) {
    let now = Instant::now();
    let mut client = client(url, now);
    let mut peer = Peer::client();
    fill(&mut peer);
    let mut input = BytesMut::new();
    for piece in peer.out.chunks(777) {
        input.extend_from_slice(piece);
        client.handle_input(now, &mut input);
    }
    let mut sent = BytesMut::new();
    while let Some(bytes) = client.poll_transmit() {
        sent.extend_from_slice(&bytes);
    }
    (std::iter::from_fn(|| client.poll_event()).collect(), sent)
}

fn status(level: &str, code: &str) -> Value {
    Value::object([
        ("level", Value::string(level)),
        ("code", Value::string(code)),
        ("description", Value::string("in words")),
    ])
}

fn connected(peer: &mut Peer) {
    let success = status("status", "NetConnection.Connect.Success");
    peer.command(20, "_result", 1.0, &[Value::Null, success]);
    peer.command(20, "onBWDone", 0.0, &[Value::Null]);
    peer.command(20, "_result", 2.0, &[Value::Null, Value::Number(1.0)]);
}

#[test]
fn a_stream_is_pulled() {
    let (events, sent) = played("rtmp://u:p@h/live/cam", |peer| {
        connected(peer);
        peer.command(
            20,
            "onStatus",
            0.0,
            &[Value::Null, status("status", "NetStream.Play.Reset")],
        );
        peer.command(
            20,
            "onStatus",
            0.0,
            &[Value::Null, status("status", "NetStream.Play.Start")],
        );
        peer.send(9, 7, b"picture");
        peer.command(
            20,
            "onStatus",
            0.0,
            &[Value::Null, status("status", "NetStream.Play.UnpublishNotify")],
        );
    });
    let media = MediaMessage {
        kind: MediaMessageKind::Video,
        timestamp: 7,
        payload: Bytes::from_static(b"picture"),
    };
    let ended = EndReason::StreamEnded("NetStream.Play.UnpublishNotify".into());
    let expected = [
        ClientEvent::Playing,
        ClientEvent::Media(media),
        ClientEvent::Ended(ended),
    ];
    assert_eq!(events, expected);
    let contains = |text: &[u8]| sent.windows(text.len()).any(|w| w == text);
    assert!(contains(b"rtmp://h:1935/live") && contains(b"cam?user=u&pass=p"));
}

#[test]
fn refusals_are_told_apart() {
    let refused = |code: &'static str, name: &'static str| {
        let (mut events, _) = played("rtmp://h/live/cam", |peer| {
            if name == "onStatus" {
                connected(peer);
            }
            peer.command(20, name, 1.0, &[Value::Null, status("error", code)]);
        });
        match events.pop() {
            Some(ClientEvent::Ended(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(
        refused("NetStream.Play.StreamNotFound", "onStatus"),
        EndReason::NotFound(_)
    ));
    assert!(matches!(
        refused("NetConnection.Connect.InvalidApp", "_error"),
        EndReason::NotFound(_)
    ));
    assert!(matches!(
        refused("NetStream.Authenticate.Failed", "onStatus"),
        EndReason::Unauthorized(_)
    ));
    let other = refused("NetStream.Play.Failed", "onStatus").to_string();
    assert_eq!(other, "play refused: NetStream.Play.Failed: in words");
}

#[test]
fn redirects_are_followed_and_bounded() {
    let redirect = |peer: &mut Peer| {
        let ex = Value::object([
            ("code", Value::Number(302.0)),
            ("redirect", Value::string("rtmp://other:1936/live")),
        ]);
        let mut information = status("error", "NetConnection.Connect.Rejected");
        if let Value::Object(properties) = &mut information {
            properties.push(("ex".into(), ex));
        }
        peer.command(20, "_error", 1.0, &[Value::Null, information]);
    };
    let (events, _) = played("rtmp://h/live/cam", redirect);
    assert_eq!(
        events,
        [ClientEvent::Redirect(
            RtmpUrl::parse("rtmp://other:1936/live/cam").unwrap()
        )]
    );
    let now = Instant::now();
    let mut client = Client::new(
        now,
        ClientConfig {
            url: RtmpUrl::parse("rtmp://h/live/cam").unwrap(),
            random: [7; 32],
            redirects: super::client::REDIRECTS_MAX,
        },
    );
    let mut peer = Peer::client();
    redirect(&mut peer);
    client.handle_input(now, &mut peer.out);
    assert_eq!(
        client.poll_event(),
        Some(ClientEvent::Ended(EndReason::TooManyRedirects))
    );
}

#[test]
fn silence_and_a_closed_connection_say_where() {
    let now = Instant::now();
    let mut waiting = client("rtmp://h/live/cam", now);
    assert_eq!(waiting.poll_timeout(), Some(now + super::client::RESPONSE_TIMEOUT));
    waiting.handle_timeout(now + Duration::from_secs(11));
    match waiting.poll_event() {
        Some(ClientEvent::Ended(reason)) => assert_eq!(reason.to_string(), "no answer to the handshake within 10 s"),
        other => panic!("{other:?}"),
    }
    let mut closed = client("rtmp://h/live/cam", now);
    let mut peer = Peer::client();
    connected(&mut peer);
    closed.handle_input(now, &mut peer.out);
    closed.handle_eof();
    match closed.poll_event() {
        Some(ClientEvent::Ended(reason)) => assert!(reason.to_string().contains("instead of playing")),
        other => panic!("{other:?}"),
    }
    let mut stopped = client("rtmp://h/live/cam", now);
    stopped.stop();
    assert_eq!(stopped.poll_event(), Some(ClientEvent::Ended(EndReason::Stopped)));
}

/// The client speaks to the server up to the point where that sees a player.
#[test]
fn the_two_machines_understand_each_other() {
    let now = Instant::now();
    let (mut server, mut client) = (Server::new(now, [1; 32]), client("rtmp://h/live/cam", now));
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    for _ in 0..10 {
        while let Some(bytes) = client.poll_transmit() {
            to_server.extend_from_slice(&bytes);
        }
        server.handle_input(now, &mut to_server);
        while let Some(bytes) = server.poll_transmit() {
            to_client.extend_from_slice(&bytes);
        }
        client.handle_input(now, &mut to_client);
    }
    assert_eq!(server.poll_event(), Some(ServerEvent::Closed(CloseReason::Player)));
    match client.poll_event() {
        Some(ClientEvent::Ended(reason)) => assert!(reason.to_string().contains("play over RTSP"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
