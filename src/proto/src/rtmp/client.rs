//! We pull a stream: handshake, connect, createStream, play, and then media.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{
    MediaMessage, RtmpUrl,
    amf::Value,
    link::{Command, Inbound, Link, codecs},
};

/// How long a server may take for each step.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many redirects in a row are followed.
pub const REDIRECTS_MAX: u8 = 3;
/// Events that may wait to be polled. At this limit no more input is read, and nothing is lost.
pub const EVENTS_MAX: usize = 256;
/// Characters of a server's words that are repeated.
const WORDS_MAX: usize = 200;
/// The buffer that we claim to have.
const BUFFER_LENGTH_MS: u32 = 1000;

/// What to pull.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The stream.
    pub url: RtmpUrl,
    /// For the handshake.
    pub random: [u8; 32],
    /// How many redirects led here.
    pub redirects: u8,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// The server agreed to play; media follows.
    Playing,
    /// Sound or picture.
    Media(MediaMessage),
    /// The stream is elsewhere: connect there, with [`ClientConfig::redirects`] one higher. Nothing more comes here.
    Redirect(RtmpUrl),
    /// Nothing more comes.
    Ended(EndReason),
}

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Step {
    Handshake,
    Connect,
    CreateStream,
    Play,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Handshake => "the handshake",
            Self::Connect => "connect",
            Self::CreateStream => "createStream",
            Self::Play => "play",
        })
    }
}

/// Why a client ended. Each text says what failed and, where there is one, the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// The server wants another login.
    #[error("the server refuses the login ({0}): check user and password in the camera's URL")]
    Unauthorized(String),
    /// The server has no such application or stream.
    #[error("the server has no such stream ({0}): check application and stream in the camera's URL")]
    NotFound(String),
    /// Any other refusal.
    #[error("{step} refused: {words}")]
    Refused {
        /// What was refused.
        step: Step,
        /// The server's code and description.
        words: String,
    },
    /// The server ended the stream in good order.
    #[error("the server ended the stream ({0})")]
    StreamEnded(String),
    /// [`Client::stop`] was called.
    #[error("stopped")]
    Stopped,
    /// No answer.
    #[error("no answer to {step} within {} s", RESPONSE_TIMEOUT.as_secs())]
    Timeout {
        /// What was not answered.
        step: Step,
    },
    /// One redirect too many.
    #[error("more than {REDIRECTS_MAX} redirects")]
    TooManyRedirects,
    /// The server closed the connection.
    #[error("the server closed the connection{}", match .during {
        Some(Step::Play) => " instead of playing: many do so when the stream's name or the login is wrong".to_owned(),
        Some(step) => format!(" during {step}"),
        None => String::new(),
    })]
    Closed {
        /// The step that was not answered; `None` while playing.
        during: Option<Step>,
    },
    /// The server's bytes are not RTMP.
    #[error("protocol violation: {what} (byte {position} of the connection)")]
    Violation {
        /// Where it was found.
        position: u64,
        /// What is wrong.
        what: &'static str,
    },
}

const CONNECT_ID: f64 = 1.0;
const CREATE_STREAM_ID: f64 = 2.0;
const PLAY_ID: f64 = 3.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting(Step),
    Playing,
    Ended,
}

/// Pulls one stream over one connection.
///
/// Bytes go in by [`Self::handle_input`] and come out by [`Self::poll_transmit`]; after every call the driver polls
/// transmissions and events until there are none, and calls [`Self::handle_timeout`] at [`Self::poll_timeout`].
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    link: Link,
    phase: Phase,
    stream_id: u32,
    deadline: Instant,
    events: VecDeque<ClientEvent>,
}

impl Client {
    /// Begins: the handshake is ready to be sent.
    pub fn new(now: Instant, config: ClientConfig) -> Self {
        Self {
            link: Link::client(config.random),
            config,
            phase: Phase::Waiting(Step::Handshake),
            stream_id: 0,
            deadline: now + RESPONSE_TIMEOUT,
            events: VecDeque::new(),
        }
    }

    /// Takes what has arrived. Bytes of what is incomplete stay in `input`. True if it stopped at
    /// [`EVENTS_MAX`], or because the peer does not read: call again after polling and sending, even if nothing more arrives.
    pub fn handle_input(&mut self, now: Instant, input: &mut BytesMut) -> bool {
        while self.phase != Phase::Ended {
            if self.events.len() >= EVENTS_MAX {
                return true;
            }
            match self.link.read(input) {
                Ok(None) => return self.link.is_full(),
                Ok(Some(Inbound::HandshakeDone)) => self.connect(now),
                Ok(Some(Inbound::Command(command))) => self.on_command(now, &command),
                Ok(Some(Inbound::Media(media))) => self.on_media(media),
                Ok(Some(Inbound::StreamEnd)) => self.end(EndReason::StreamEnded("end of stream".to_owned())),
                Err(e) => {
                    let position = self.link.position();
                    self.end(EndReason::Violation { position, what: e.0 });
                }
            }
        }
        input.clear();
        false
    }

    /// The server has closed the connection.
    pub fn handle_eof(&mut self) {
        let during = match self.phase {
            Phase::Waiting(step) => Some(step),
            _ => None,
        };
        self.end(EndReason::Closed { during });
    }

    /// Does what was due at [`Self::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Phase::Waiting(step) = self.phase
            && self.deadline <= now
        {
            self.end(EndReason::Timeout { step });
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        matches!(self.phase, Phase::Waiting(_)).then_some(self.deadline)
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.link.poll_transmit()
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Ends: the server is told, then the driver closes the connection.
    pub fn stop(&mut self) {
        if matches!(self.phase, Phase::Playing | Phase::Waiting(Step::Play)) {
            let stream = Value::Number(f64::from(self.stream_id));
            self.link.send_command(0, "deleteStream", 0.0, &[Value::Null, stream]);
        }
        self.end(EndReason::Stopped);
    }

    fn end(&mut self, reason: EndReason) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Ended;
            self.events.push_back(ClientEvent::Ended(reason));
        }
    }

    fn wait(&mut self, now: Instant, step: Step) {
        self.phase = Phase::Waiting(step);
        self.deadline = now + RESPONSE_TIMEOUT;
    }

    fn connect(&mut self, now: Instant) {
        self.wait(now, Step::Connect);
        let url = &self.config.url;
        let object = Value::object([
            ("app", Value::string(url.app())),
            ("flashVer", Value::string("LNX 9,0,124,2")),
            ("tcUrl", Value::string(url.tc_url())),
            ("fpad", Value::Boolean(false)),
            ("capabilities", Value::Number(15.0)),
            // Every codec that the legacy tags know; servers leave out what a player does not name.
            ("audioCodecs", Value::Number(4071.0)),
            ("videoCodecs", Value::Number(252.0)),
            ("videoFunction", Value::Number(1.0)),
            ("fourCcList", codecs()),
            ("objectEncoding", Value::Number(0.0)),
        ]);
        self.link.send_command(0, "connect", CONNECT_ID, &[object]);
    }

    fn on_command(&mut self, now: Instant, command: &Command) {
        match (command.name.as_str(), self.phase) {
            ("_result", Phase::Waiting(Step::Connect)) if command.transaction == CONNECT_ID => {
                self.link.send_settings();
                self.wait(now, Step::CreateStream);
                self.link
                    .send_command(0, "createStream", CREATE_STREAM_ID, &[Value::Null]);
            }
            ("_result", Phase::Waiting(Step::CreateStream)) if command.transaction == CREATE_STREAM_ID => {
                let id = command.arguments.iter().find_map(Value::as_number);
                self.stream_id = id.filter(|id| (0.0..4e9).contains(id)).unwrap_or(1.0) as u32;
                self.play(now);
            }
            ("_error", Phase::Waiting(_)) => self.on_refusal(command),
            ("onStatus", _) => self.on_status(command),
            ("close", _) => self.end(EndReason::StreamEnded("close".to_owned())),
            _ => {}
        }
    }

    fn play(&mut self, now: Instant) {
        self.wait(now, Step::Play);
        let path = Value::String(self.config.url.play_path());
        // Start -2 s: live if there is such a stream, else a recorded one (RTMP 1.0 section 7.2.2.1).
        let arguments = [Value::Null, path, Value::Number(-2000.0)];
        self.link.send_command(self.stream_id, "play", PLAY_ID, &arguments);
        self.link.send_buffer_length(self.stream_id, BUFFER_LENGTH_MS);
    }

    /// Media shows that a server plays, whether it said so before or not.
    fn on_media(&mut self, media: MediaMessage) {
        if self.phase == Phase::Waiting(Step::Play) {
            self.playing();
        }
        if self.phase == Phase::Playing && !media.payload.is_empty() {
            self.events.push_back(ClientEvent::Media(media));
        }
    }

    fn playing(&mut self) {
        self.phase = Phase::Playing;
        self.events.push_back(ClientEvent::Playing);
    }

    fn on_status(&mut self, command: &Command) {
        let (code, _) = command.information();
        let level = command.arguments.last().and_then(|i| i.get("level")?.as_str());
        if level == Some("error") {
            return self.on_refusal(command);
        }
        match code {
            "NetStream.Play.Start" if self.phase == Phase::Waiting(Step::Play) => self.playing(),
            "NetStream.Play.Stop" | "NetStream.Play.Complete" | "NetStream.Play.UnpublishNotify" => {
                self.end(EndReason::StreamEnded(code.to_owned()));
            }
            "NetStream.Play.StreamNotFound"
            | "NetStream.Play.Failed"
            | "NetConnection.Connect.Rejected"
            | "NetConnection.Connect.Closed" => self.on_refusal(command),
            _ => {}
        }
    }

    fn on_refusal(&mut self, command: &Command) {
        if let Some(location) = redirect(command) {
            return self.redirect(location);
        }
        let (code, description) = command.information();
        let words: String = format!("{code}: {description}")
            .chars()
            .filter(|c| !c.is_control())
            .take(WORDS_MAX)
            .collect();
        let lower = words.to_ascii_lowercase();
        let says = |list: &[&str]| list.iter().any(|word| lower.contains(word));
        let Phase::Waiting(step) = self.phase else {
            return self.end(EndReason::StreamEnded(words));
        };
        self.end(if says(&["auth", "password", "forbidden", "denied", "credential"]) {
            EndReason::Unauthorized(words)
        } else if says(&["notfound", "not found", "no such", "invalidapp", "does not exist"]) {
            EndReason::NotFound(words)
        } else {
            EndReason::Refused { step, words }
        });
    }

    fn redirect(&mut self, location: &str) {
        if self.config.redirects >= REDIRECTS_MAX {
            return self.end(EndReason::TooManyRedirects);
        }
        match self.config.url.redirected(location) {
            Ok(url) => {
                self.phase = Phase::Ended;
                self.events.push_back(ClientEvent::Redirect(url));
            }
            Err(e) => self.end(EndReason::Refused {
                step: Step::Connect,
                words: format!("a redirect that cannot be followed: {e}"),
            }),
        }
    }
}

/// Where `ex: {code: 302, redirect: URL}` of a refusal leads, as Adobe's and SRS's servers say it.
fn redirect(command: &Command) -> Option<&str> {
    let ex = command.arguments.last()?.get("ex")?;
    if ex.get("code").and_then(Value::as_number) != Some(302.0) {
        return None;
    }
    ex.get("redirect2").or_else(|| ex.get("redirect"))?.as_str()
}
