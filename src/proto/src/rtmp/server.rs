//! Someone publishes to us: handshake, connect, createStream, publish, and then media.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{
    MediaMessage,
    amf::Value,
    link::{Command, Inbound, Link, codecs},
};

/// From the first byte of a connection to its `publish` command.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
/// Events that may wait to be polled. At this limit no more input is read, and nothing is lost.
pub const EVENTS_MAX: usize = 256;
/// Commands before `publish` is accepted. A peer that sends more is cut off.
pub const COMMANDS_MAX: u32 = 64;
/// The longest application, key or query, in bytes. Longer ones are refused.
pub const NAME_BYTES_MAX: usize = 1024;

/// The one message stream of a connection.
const STREAM_ID: u32 = 1;

/// What someone wants to publish.
#[derive(Clone, PartialEq, Eq)]
pub struct PublishRequest {
    /// The application of `connect`, without its query.
    pub app: String,
    /// The stream name without its query: the offered key. A secret: see [`super::masked_key`].
    pub key: String,
    /// The queries of the application and of the stream name, joined by `&`; empty if there are none. May hold a password.
    pub query: String,
}

impl std::fmt::Debug for PublishRequest {
    /// Without key and query.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishRequest")
            .field("app", &self.app)
            .field("key", &super::masked_key(&self.key))
            .finish_non_exhaustive()
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvent {
    /// Someone wants to publish: answer with [`Server::accept`] or [`Server::refuse`]. Until then no more input is read.
    Publish(PublishRequest),
    /// Sound or picture of the accepted stream.
    Media(MediaMessage),
    /// The publisher ended its stream in good order. The connection may stay and publish anew, under any key.
    Unpublished,
    /// Nothing more comes; send what is left to transmit and close the connection.
    Closed(CloseReason),
}

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// [`Server::refuse`] said so.
    #[error("refused")]
    Refused,
    /// No `publish` within [`PUBLISH_TIMEOUT`].
    #[error("nothing was published within {} s", PUBLISH_TIMEOUT.as_secs())]
    Timeout,
    /// The peer closed the connection.
    #[error("the publisher closed the connection")]
    Closed,
    /// The peer wants to play. It is told why that does not work.
    #[error("the peer wants to play: RTMP is for publishing only")]
    Player,
    /// The peer's bytes are not RTMP.
    #[error("protocol violation: {what} (byte {position} of the connection)")]
    Violation {
        /// Where it was found.
        position: u64,
        /// What is wrong.
        what: &'static str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before `publish`.
    Idle,
    /// The caller has to say whether the peer may publish.
    Asked,
    Publishing,
    Closed,
}

/// One connection of a publisher. It may move to another thread between two calls.
///
/// Bytes go in by [`Self::handle_input`] and come out by [`Self::poll_transmit`]; after every call the driver polls
/// transmissions and events until there are none, and calls [`Self::handle_timeout`] at [`Self::poll_timeout`].
#[derive(Debug)]
pub struct Server {
    link: Link,
    phase: Phase,
    app: String,
    app_query: String,
    connected: bool,
    /// The message stream that `publish` came on.
    stream_id: u32,
    commands: u32,
    deadline: Option<Instant>,
    events: VecDeque<ServerEvent>,
}

impl Server {
    /// A connection that was just accepted. `random`: for the handshake.
    pub fn new(now: Instant, random: [u8; 32]) -> Self {
        Self {
            link: Link::server(random),
            phase: Phase::Idle,
            app: String::new(),
            app_query: String::new(),
            connected: false,
            stream_id: STREAM_ID,
            commands: 0,
            deadline: Some(now + PUBLISH_TIMEOUT),
            events: VecDeque::new(),
        }
    }

    /// Takes what has arrived. Bytes of what is incomplete stay in `input`. True if it stopped at
    /// [`EVENTS_MAX`], or because the peer does not read: call again after polling and sending, even if nothing more arrives.
    pub fn handle_input(&mut self, now: Instant, input: &mut BytesMut) -> bool {
        while matches!(self.phase, Phase::Idle | Phase::Publishing) {
            if self.events.len() >= EVENTS_MAX {
                return true;
            }
            match self.link.read(input) {
                Ok(None) => return self.link.is_full(),
                Ok(Some(Inbound::Command(command))) => self.on_command(now, &command),
                Ok(Some(Inbound::Media(media))) => {
                    if self.phase == Phase::Publishing && !media.payload.is_empty() {
                        self.events.push_back(ServerEvent::Media(media));
                    }
                }
                Ok(Some(Inbound::HandshakeDone | Inbound::StreamEnd)) => {}
                Err(e) => self.violation(e.0),
            }
        }
        if self.phase == Phase::Closed {
            input.clear();
        }
        false
    }

    /// The peer has closed the connection.
    pub fn handle_eof(&mut self) {
        self.close(CloseReason::Closed);
    }

    /// Does what was due at [`Self::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.close(CloseReason::Timeout);
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline.filter(|_| self.phase == Phase::Idle)
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.link.poll_transmit()
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// Lets the publisher begin: answers a [`ServerEvent::Publish`]. Call [`Self::handle_input`] afterwards, for what is
    /// there already.
    pub fn accept(&mut self) {
        if self.phase == Phase::Asked {
            self.phase = Phase::Publishing;
            self.link.send_stream_begin(self.stream_id);
            self.status(true, "NetStream.Publish.Start", "recording");
        }
    }

    /// Tells the publisher why it may not publish, and ends the connection. Before `publish` it only ends it.
    pub fn refuse(&mut self, reason: &str) {
        if matches!(self.phase, Phase::Asked | Phase::Publishing) {
            self.status(false, "NetStream.Publish.BadName", reason);
        }
        self.close(CloseReason::Refused);
    }

    fn close(&mut self, reason: CloseReason) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            self.events.push_back(ServerEvent::Closed(reason));
        }
    }

    fn violation(&mut self, what: &'static str) {
        let position = self.link.position();
        self.close(CloseReason::Violation { position, what });
    }

    fn on_command(&mut self, now: Instant, command: &Command) {
        self.commands += 1;
        if self.commands > COMMANDS_MAX && self.phase != Phase::Publishing {
            return self.violation("too many commands before anything is published");
        }
        let id = command.transaction;
        match command.name.as_str() {
            "connect" => self.on_connect(command),
            _ if !self.connected => self.violation("a command before connect"),
            "createStream" => {
                let stream = Value::Number(f64::from(STREAM_ID));
                self.link.send_command(0, "_result", id, &[Value::Null, stream]);
            }
            "releaseStream" => {
                self.link
                    .send_command(0, "_result", id, &[Value::Null, Value::Undefined]);
            }
            "FCPublish" => {
                let status = information(true, "NetStream.Publish.Start", "go on with publish");
                self.link.send_command(0, "onFCPublish", 0.0, &[Value::Null, status]);
            }
            "publish" => self.on_publish(command),
            "FCUnpublish" | "deleteStream" | "closeStream" => self.on_unpublish(now),
            "play" | "play2" => {
                self.stream_id = command.stream_id;
                self.status(
                    false,
                    "NetStream.Play.Failed",
                    "RTMP is for publishing only: play over RTSP",
                );
                self.close(CloseReason::Player);
            }
            // Asked for by encoders of old that measure the line; they go on without an answer.
            "_checkbw" | "_result" | "_error" => {}
            _ if id != 0.0 => {
                let status = information(false, "NetConnection.Call.Failed", "the method is not known here");
                self.link.send_command(0, "_error", id, &[Value::Null, status]);
            }
            _ => {}
        }
    }

    fn on_connect(&mut self, command: &Command) {
        let Some(app) = command.arguments.first().and_then(|c| c.get("app")?.as_str()) else {
            return self.violation("connect without an application");
        };
        if app.len() > NAME_BYTES_MAX {
            return self.violation("the name of the application is too long");
        }
        let (app, query) = app.split_once('?').unwrap_or((app, ""));
        app.trim_matches('/').clone_into(&mut self.app);
        query.clone_into(&mut self.app_query);
        self.connected = true;
        self.link.send_settings();
        let properties = Value::object([
            ("fmsVer", Value::string("FMS/3,5,7,7009")),
            ("capabilities", Value::Number(31.0)),
            ("fourCcList", codecs()),
        ]);
        let mut status = information(true, "NetConnection.Connect.Success", "connected");
        if let Value::Object(properties) = &mut status {
            properties.push(("objectEncoding".to_owned(), Value::Number(0.0)));
            properties.push(("fourCcList".to_owned(), codecs()));
        }
        self.link
            .send_command(0, "_result", command.transaction, &[properties, status]);
    }

    fn on_publish(&mut self, command: &Command) {
        if self.phase == Phase::Publishing {
            return self.violation("a second stream on one connection");
        }
        let name = command.text(1).unwrap_or_default();
        if name.len() > NAME_BYTES_MAX {
            return self.violation("the name of the stream is too long");
        }
        let (key, query) = name.split_once('?').unwrap_or((name, ""));
        let separator = if self.app_query.is_empty() || query.is_empty() {
            ""
        } else {
            "&"
        };
        self.stream_id = command.stream_id;
        self.phase = Phase::Asked;
        self.events.push_back(ServerEvent::Publish(PublishRequest {
            app: self.app.clone(),
            key: key.to_owned(),
            query: format!("{}{separator}{query}", self.app_query),
        }));
    }

    fn on_unpublish(&mut self, now: Instant) {
        if self.phase == Phase::Publishing {
            self.phase = Phase::Idle;
            self.commands = 0;
            self.deadline = Some(now + PUBLISH_TIMEOUT);
            self.events.push_back(ServerEvent::Unpublished);
            self.status(true, "NetStream.Unpublish.Success", "the recording ends");
        }
    }

    fn status(&mut self, good: bool, code: &'static str, description: &str) {
        let status = information(good, code, description);
        self.link
            .send_command(self.stream_id, "onStatus", 0.0, &[Value::Null, status]);
    }
}

/// An information object (RTMP 1.0 section 7.2.2).
fn information(good: bool, code: &str, description: &str) -> Value {
    Value::object([
        ("level", Value::string(if good { "status" } else { "error" })),
        ("code", Value::string(code)),
        ("description", Value::string(description)),
    ])
}
