//! The state machine of one connection.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{
    CloseReason, ConnectionConfig, IDLE_TIMEOUT, Incoming, LOGIN_FAILURES_MAX, PIPELINE_MAX, RequestId,
    SESSION_TIMEOUT, SESSIONS_MAX, ServerEvent, SessionId, TRANSMIT_BYTES_MAX, reply,
    request::{self, Action},
};
use crate::{
    auth::{ConnectionLogin, Origin, Verdict, hex},
    rtsp::{Decoder, Lower, Message, Request, Response, Role, StatusCode},
};

/// How much longer than its announced timeout a session over UDP lives: a keepalive may be late.
pub const DATAGRAM_SESSION_GRACE: Duration = Duration::from_secs(5);

/// One connection of a player.
///
/// Bytes go in by [`Self::handle_input`] and come out by [`Self::poll_transmit`]; after every call the driver polls
/// transmissions and events until there are none, and calls [`Self::handle_timeout`] at [`Self::poll_timeout`]. Requests
/// come one at a time and are answered in their order.
#[derive(Debug)]
pub struct Connection {
    config: ConnectionConfig,
    decoder: Decoder,
    login: ConnectionLogin,
    login_failures: u8,
    next_id: u64,
    queue: VecDeque<Queued>,
    /// The request that the caller is working on.
    current: Option<Current>,
    sessions: Vec<Session>,
    last_message: Instant,
    /// No more input is read.
    closing: bool,
    closed: bool,
    transmits: VecDeque<Bytes>,
    transmit_bytes: usize,
    events: VecDeque<ServerEvent>,
}

#[derive(Debug)]
enum Queued {
    Incoming(Box<Incoming>, Verdict),
    /// Answered without the caller; with the request's `CSeq` as sent.
    Answer(Response, Option<String>),
    Close(CloseReason),
}

#[derive(Debug)]
struct Current {
    id: RequestId,
    cseq: u32,
    verdict: Verdict,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    /// When it is gone, for sessions over UDP.
    expires: Option<Instant>,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(now: Instant, config: ConnectionConfig) -> Self {
        Self {
            config,
            decoder: Decoder::new(Role::Server),
            login: ConnectionLogin::default(),
            login_failures: 0,
            next_id: 0,
            queue: VecDeque::new(),
            current: None,
            sessions: Vec::new(),
            last_message: now,
            closing: false,
            closed: false,
            transmits: VecDeque::new(),
            transmit_bytes: 0,
            events: VecDeque::new(),
        }
    }

    /// Takes what has arrived. Bytes of an incomplete message stay in `input`, and everything does while
    /// [`Self::wants_input`] is false: call again when it is true.
    pub fn handle_input(&mut self, now: Instant, input: &mut BytesMut) {
        while self.wants_input() {
            match self.decoder.decode(input) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    self.last_message = now;
                    match message {
                        Message::Data { channel, payload } => {
                            self.touch_all(now);
                            self.events.push_back(ServerEvent::Data { channel, payload });
                        }
                        Message::Request(request) => self.on_request(now, &request),
                        // Nothing was asked of the player.
                        Message::Response(_) => {}
                    }
                }
                Err(e) => {
                    self.queue
                        .push_back(Queued::Answer(Response::new(e.fault.status()), None));
                    self.close(CloseReason::Framing(e));
                }
            }
            self.advance();
        }
        if self.closing {
            input.clear();
        }
    }

    /// Whether input is read: not after the end, and not while too many responses wait to be sent.
    pub const fn wants_input(&self) -> bool {
        !self.closing && self.transmit_bytes < TRANSMIT_BYTES_MAX
    }

    /// Tells that the player has closed the connection.
    pub fn handle_eof(&mut self) {
        self.queue.clear();
        self.current = None;
        self.close(CloseReason::Eof);
        self.advance();
    }

    /// Does what was due at [`Self::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        let events = &mut self.events;
        self.sessions.retain(|s| {
            let gone = s.expires.is_some_and(|t| t <= now);
            if gone {
                events.push_back(ServerEvent::SessionExpired(s.id.clone()));
            }
            !gone
        });
        if self.idle_deadline().is_some_and(|t| t <= now) {
            self.close(CloseReason::Idle);
            self.advance();
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.closing {
            return None;
        }
        self.sessions
            .iter()
            .filter_map(|s| s.expires)
            .chain(self.idle_deadline())
            .min()
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        let bytes = self.transmits.pop_front()?;
        self.transmit_bytes -= bytes.len();
        Some(bytes)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// Answers the current request. `false` if it is not the current one (answered already, or the connection closed):
    /// then nothing is sent.
    pub fn respond(&mut self, id: RequestId, response: Response) -> bool {
        let Some(current) = self.current.take_if(|c| c.id == id) else {
            return false;
        };
        self.transmit(response, Some(current.cseq.to_string()));
        self.advance();
        true
    }

    /// Refuses the current request for want of rights: 401 with challenges to one who has not proved who they are, 403
    /// to one who has. `false` as for [`Self::respond`].
    pub fn unauthorized(&mut self, now: Instant, id: RequestId) -> bool {
        let Some(current) = self.current.as_ref().filter(|c| c.id == id) else {
            return false;
        };
        if matches!(current.verdict, Verdict::User(_)) {
            return self.respond(id, Response::new(StatusCode::FORBIDDEN));
        }
        let stale = current.verdict == Verdict::Stale;
        if matches!(current.verdict, Verdict::Refused | Verdict::Throttled(_)) {
            self.login_failures += 1;
        }
        let mut response = Response::new(StatusCode::UNAUTHORIZED);
        // RTSP has no status of its own for this; a player that asks again with a right password later is let in.
        if let Verdict::Throttled(wait) = current.verdict {
            response.headers.push("Retry-After", wait.as_secs().max(1).to_string());
        }
        for challenge in self.config.verifier.challenges(now, self.config.peer, stale) {
            response.headers.push("WWW-Authenticate", challenge);
        }
        if self.login_failures >= LOGIN_FAILURES_MAX {
            self.queue.clear();
            self.close(CloseReason::Logins);
        }
        self.respond(id, response)
    }

    /// Opens a session that only this connection can use. `random` must be unpredictable. `None` if the connection has
    /// [`SESSIONS_MAX`] already: answer 503.
    pub fn open_session(&mut self, now: Instant, random: [u8; 8], lower: Lower) -> Option<SessionId> {
        if self.sessions.len() == SESSIONS_MAX || self.closing {
            return None;
        }
        let id = SessionId(hex(&random));
        self.sessions.push(Session {
            id: id.clone(),
            // A player that pauses over TCP may be silent for ever: mpv is. Its connection tells when it goes.
            expires: (lower == Lower::Udp).then(|| now + SESSION_TIMEOUT + DATAGRAM_SESSION_GRACE),
        });
        Some(id)
    }

    /// Ends a session; requests that name it are answered 454 from now on.
    pub fn close_session(&mut self, id: &SessionId) {
        self.sessions.retain(|s| s.id != *id);
    }

    /// Counts a receiver report that came by UDP as a sign of life.
    pub fn keep_alive(&mut self, now: Instant, id: &SessionId) {
        for session in self.sessions.iter_mut().filter(|s| s.id == *id) {
            if let Some(expires) = &mut session.expires {
                *expires = now + SESSION_TIMEOUT + DATAGRAM_SESSION_GRACE;
            }
        }
    }

    /// The sessions that are open.
    pub fn sessions(&self) -> impl Iterator<Item = &SessionId> {
        self.sessions.iter().map(|s| &s.id)
    }

    fn idle_deadline(&self) -> Option<Instant> {
        let idle = self.sessions.is_empty() && self.current.is_none() && !self.closing;
        idle.then(|| self.last_message + IDLE_TIMEOUT)
    }

    /// Any request on the connection is a sign of life of all its sessions, whether it names one or not: players send
    /// OPTIONS without.
    fn touch_all(&mut self, now: Instant) {
        for session in &mut self.sessions {
            if let Some(expires) = &mut session.expires {
                *expires = now + SESSION_TIMEOUT + DATAGRAM_SESSION_GRACE;
            }
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if !self.closing {
            self.closing = true;
            self.queue.push_back(Queued::Close(reason));
        }
    }

    fn on_request(&mut self, now: Instant, request: &Request) {
        self.touch_all(now);
        if self.queue.len() >= PIPELINE_MAX {
            self.queue.clear();
            return self.close(CloseReason::Pipeline);
        }
        let queued = match self.check(request) {
            Ok((cseq, action, onvif_replay)) => {
                let origin = Origin {
                    peer: self.config.peer,
                    encrypted: self.config.encrypted,
                };
                let verdict = self.config.verifier.verify(
                    now,
                    origin,
                    &mut self.login,
                    request.method.as_str(),
                    &request.uri,
                    request.headers.get("Authorization"),
                );
                let id = RequestId(self.next_id);
                self.next_id += 1;
                let incoming = Incoming {
                    id,
                    cseq,
                    action,
                    user: match &verdict {
                        Verdict::User(name) => Some(name.clone()),
                        _ => None,
                    },
                    user_agent: request.headers.get("User-Agent").unwrap_or_default().to_owned(),
                    onvif_replay,
                    headers: request.headers.clone(),
                };
                Queued::Incoming(Box::new(incoming), verdict)
            }
            Err(response) => Queued::Answer(response, request.headers.get("CSeq").map(str::to_owned)),
        };
        self.queue.push_back(queued);
    }

    fn check(&self, request: &Request) -> Result<(u32, Action, bool), Response> {
        if request.version != "RTSP/1.0" {
            return Err(Response::new(StatusCode::VERSION_NOT_SUPPORTED));
        }
        let Some(cseq) = request.headers.cseq() else {
            return Err(reply::bad_request("CSeq missing or not a number"));
        };
        let onvif = request::check_require(&request.headers)?;
        let own = |id: &str| self.sessions.iter().find(|s| s.id.as_str() == id).map(|s| s.id.clone());
        let action = request::parse(request, own)?;
        Ok((cseq, action, onvif))
    }

    /// Goes on with the queue until something waits for the caller.
    fn advance(&mut self) {
        while self.current.is_none() && !self.closed {
            match self.queue.pop_front() {
                None => return,
                Some(Queued::Answer(response, cseq)) => self.transmit(response, cseq),
                Some(Queued::Incoming(incoming, verdict)) => {
                    self.current = Some(Current {
                        id: incoming.id,
                        cseq: incoming.cseq,
                        verdict,
                    });
                    self.events.push_back(ServerEvent::Request(incoming));
                }
                Some(Queued::Close(reason)) => {
                    self.closed = true;
                    self.events.push_back(ServerEvent::Closed(reason));
                }
            }
        }
    }

    fn transmit(&mut self, response: Response, cseq: Option<String>) {
        let mut full = Response {
            headers: crate::rtsp::Headers::new(),
            ..response
        };
        if let Some(cseq) = cseq {
            full.headers.push("CSeq", cseq);
        }
        full.headers.push("Server", &*self.config.server);
        for (name, value) in response.headers.iter() {
            full.headers.push(name.to_owned(), value);
        }
        let bytes = full.to_bytes();
        self.transmit_bytes += bytes.len();
        self.transmits.push_back(bytes);
    }
}
