//! One connection of a player: requests in, responses out, in order. What to serve is decided elsewhere.
//!
//! `request` has the typed requests, `reply` the responses that passed with the players, `connection` the state machine.

mod connection;
pub mod reply;
mod request;

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{DecodeError, Headers, Method, RequestUri};
use crate::auth::Verifier;

pub use connection::{Connection, DATAGRAM_SESSION_GRACE};
pub use request::{Action, PlayRequest, Step};

/// The session timeout that the server announces, and keeps for sessions over UDP.
pub const SESSION_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a connection without a session may be silent before it is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// How many requests of one connection may wait for their answers; one more closes it.
pub const PIPELINE_MAX: usize = 32;
/// How many sessions one connection may have; [`Connection::open_session`] refuses more.
pub const SESSIONS_MAX: usize = 8;
/// How many wrong logins close a connection.
pub const LOGIN_FAILURES_MAX: u8 = 5;
/// How many bytes of responses may wait to be sent before no further request is read.
pub const TRANSMIT_BYTES_MAX: usize = 256 * 1024;

/// What a connection needs to know besides its bytes.
#[derive(Debug, Clone)]
pub struct ConnectionConfig {
    /// Checks logins; shared by all connections.
    pub verifier: Arc<Verifier>,
    /// The player's address.
    pub peer: IpAddr,
    /// Whether the connection is encrypted.
    pub encrypted: bool,
    /// Server header.
    pub server: Arc<str>,
}

/// Names a request until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(u64);

/// A session identifier: 64 random bits in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(String);

impl SessionId {
    /// The identifier as the Session header carries it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerEvent {
    /// A request to be answered by [`Connection::respond`], [`Connection::unauthorized`] or nothing else. The next one
    /// comes after that.
    Request(Box<Incoming>),
    /// Interleaved data of the player: receiver reports.
    Data {
        /// Interleaved channel.
        channel: u8,
        /// The packet.
        payload: Bytes,
    },
    /// A session over UDP was silent for longer than its timeout and is gone.
    SessionExpired(SessionId),
    /// Send what is left of [`Connection::poll_transmit`] and close. Nothing follows this event.
    Closed(CloseReason),
}

/// A request that is well formed and authentic as far as it claims to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// To answer it by.
    pub id: RequestId,
    /// Its sequence number, which ONVIF's RTP extension repeats.
    pub cseq: u32,
    /// What is asked.
    pub action: Action,
    /// Who asks, proved by a login; `None` without one or with a wrong one.
    pub user: Option<String>,
    /// User-Agent, empty if there is none.
    pub user_agent: String,
    /// `Require: onvif-replay` was there.
    pub onvif_replay: bool,
    /// All headers.
    pub headers: Headers,
}

/// Why the server closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The player's bytes cannot be read on.
    #[error(transparent)]
    Framing(#[from] DecodeError),
    /// Too many requests without waiting for answers.
    #[error("more than {PIPELINE_MAX} requests waiting")]
    Pipeline,
    /// Guessing passwords.
    #[error("{LOGIN_FAILURES_MAX} wrong logins")]
    Logins,
    /// Silent without a session.
    #[error("silent for {} s", IDLE_TIMEOUT.as_secs())]
    Idle,
    /// The player closed the connection.
    #[error("closed by the player")]
    Eof,
}

/// The methods that the server serves, as Public and Allow list them.
pub(crate) const PUBLIC: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, TEARDOWN, GET_PARAMETER, SET_PARAMETER";

/// Whether a method of RFC 2326 is refused because this server only plays.
pub(crate) const fn is_refused(method: &Method) -> bool {
    matches!(method, Method::Announce | Method::Record | Method::Redirect)
}

impl Incoming {
    /// The URI of the request; `None` for `*`.
    pub fn uri(&self) -> Option<&RequestUri> {
        self.action.uri()
    }
}

#[cfg(test)]
mod tests;
