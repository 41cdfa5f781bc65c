//! Pulling a camera: OPTIONS, DESCRIBE, SETUP, PLAY, keepalive, TEARDOWN. This file has what goes in and comes out; the
//! steps are in `machine`.

mod machine;

use std::time::Duration;

use bytes::Bytes;

use crate::{
    auth::{Credentials, Refusal},
    rtsp::{DecodeError, Lower, Method, Range, StatusCode, url::CameraUrl},
    sdp::{SdpError, SessionDescription},
};

pub use machine::Client;

/// How long a camera may take to answer a request.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a camera may take to answer TEARDOWN: nobody waits for it longer.
pub const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// How many redirects in a row are followed.
pub const REDIRECTS_MAX: u8 = 3;
/// How many streams one client sets up: interleaved channels are numbered in one byte.
pub const STREAMS_MAX: usize = 64;
/// How many messages may wait to be sent. RTCP beyond that is dropped; a camera whose own requests fill it is cut off.
pub const TRANSMIT_QUEUE_MAX: usize = 64;

/// What to pull and how.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The camera's URL.
    pub url: CameraUrl,
    /// Login; [`ClientConfig::new`] takes the URL's.
    pub credentials: Option<Credentials>,
    /// What to ask for in SETUP.
    pub transport: Lower,
    /// User-Agent header.
    pub user_agent: String,
    /// Whether to begin with OPTIONS, which tells how to keep the session alive. A few cameras answer nothing else if
    /// they are asked that first.
    pub options_first: bool,
    /// Random bytes for client nonces.
    pub random: [u8; 16],
    /// How many redirects led here.
    pub redirects: u8,
}

impl ClientConfig {
    /// The usual settings for a URL.
    pub fn new(url: CameraUrl, transport: Lower, random: [u8; 16]) -> Self {
        Self {
            credentials: url.credentials().cloned(),
            url,
            transport,
            user_agent: concat!("corenvr/", env!("CARGO_PKG_VERSION")).to_owned(),
            options_first: true,
            random,
            redirects: 0,
        }
    }

    /// The settings for where [`Event::Redirect`] leads.
    pub fn redirected(&self, url: CameraUrl) -> Self {
        Self {
            credentials: url.credentials().cloned(),
            url,
            redirects: self.redirects.saturating_add(1),
            ..self.clone()
        }
    }
}

/// A media line to set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetupChoice {
    /// Index in [`SessionDescription::media`].
    pub media: usize,
    /// Our ports for RTP and RTCP; needed for UDP, ignored for TCP.
    pub local_ports: Option<(u16, u16)>,
}

/// A selection cannot be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum SelectError {
    #[error("no description was received, or streams were selected already")]
    Phase,
    #[error("between 1 and {STREAMS_MAX} streams must be selected")]
    Count,
    #[error("the description has no media line {0}")]
    Media(usize),
    #[error("media line {0} needs local ports for UDP")]
    Ports(usize),
}

/// What happened. `stream` is the index in the selection.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The camera offers this; [`Client::select`] goes on.
    Described(Box<SessionDescription>),
    /// One stream is set up.
    SetUp {
        /// Which.
        stream: usize,
        /// What the camera granted.
        transport: Granted,
        /// The sender's SSRC, if announced. Cameras announce wrong ones.
        ssrc: Option<u32>,
    },
    /// A stream other than the first was refused; the others go on without it.
    SetupRefused {
        /// Which.
        stream: usize,
        /// The camera's answer.
        status: StatusCode,
    },
    /// PLAY was accepted. Packets may have come before.
    Playing {
        /// RTP-Info per stream; `None` where the camera sent nothing usable.
        info: Vec<Option<StreamStart>>,
        /// The Range of the answer.
        range: Option<Range>,
    },
    /// An interleaved RTP packet.
    Rtp {
        /// Of which stream.
        stream: usize,
        /// The packet.
        payload: Bytes,
    },
    /// An interleaved RTCP packet.
    Rtcp {
        /// Of which stream.
        stream: usize,
        /// The packet.
        payload: Bytes,
    },
    /// The camera is elsewhere: connect there with [`ClientConfig::redirected`]. Nothing follows this event.
    Redirect(CameraUrl),
    /// It is over. Nothing follows this event.
    Ended(EndReason),
}

/// The transport of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Granted {
    /// On this connection, on these channels. Handled here.
    Interleaved {
        /// Channel of RTP.
        rtp: u8,
        /// Channel of RTCP.
        rtcp: u8,
    },
    /// By datagrams to the local ports of the selection.
    Udp {
        /// The camera's ports for RTP and RTCP, if it names them.
        server_ports: Option<(u16, u16)>,
        /// Where the packets come from, if not from the camera's address.
        source: Option<String>,
    },
}

/// Where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStart {
    /// Sequence number of the first packet.
    pub seq: Option<u16>,
    /// RTP time of the start of the range.
    pub rtptime: Option<u32>,
}

/// Why it ended, by who is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// As asked by [`Client::teardown`].
    #[error("torn down")]
    TornDown,
    /// Login missing, wrong, or of a kind that is not supported.
    #[error(transparent)]
    Authentication(#[from] Refusal),
    /// The camera knows us and does not let us.
    #[error("{method} forbidden: the user has no right to this stream")]
    Forbidden {
        /// The request.
        method: Method,
    },
    /// No such stream.
    #[error("no such stream (404 to {method}): check the path of the URL")]
    NotFound {
        /// The request.
        method: Method,
    },
    /// The camera does not serve this transport: try the other one.
    #[error("the camera refuses {}", match .asked { Lower::Tcp => "TCP", Lower::Udp => "UDP" })]
    TransportRefused {
        /// What was asked for.
        asked: Lower,
    },
    /// Any other refusal.
    #[error("{method} refused: {} {reason}", .status.as_u16())]
    Refused {
        /// The request.
        method: Method,
        /// The camera's answer.
        status: StatusCode,
        /// Its reason phrase.
        reason: String,
    },
    /// The camera forgot the session.
    #[error("the camera ended the session")]
    SessionLost,
    /// The camera's bytes are not RTSP.
    #[error("protocol violation: {0}")]
    Framing(#[from] DecodeError),
    /// The camera's messages make no sense.
    #[error("protocol violation: {what} (byte {position} of the connection)")]
    Violation {
        /// Where the offending message ends.
        position: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The description cannot be used.
    #[error("unusable SDP: {0}")]
    Sdp(#[from] SdpError),
    /// No answer.
    #[error("no answer to {method} within {} s", .after.as_secs())]
    Timeout {
        /// The request.
        method: Method,
        /// How long was waited.
        after: Duration,
    },
    /// One redirect too many.
    #[error("more than {REDIRECTS_MAX} redirects")]
    TooManyRedirects,
    /// The camera closed the connection.
    #[error("the camera closed the connection{}", match .during { Some(m) => format!(" during {m}"), None => String::new() })]
    Closed {
        /// The request that was not answered.
        during: Option<Method>,
    },
}

#[cfg(test)]
mod tests;
