//! RTSP 1.0 (RFC 2326): messages, typed headers, URLs, and the two state machines, client and server.
//!
//! Nothing in here knows a socket, a clock or a media format; RTP and RTCP pass through as opaque bytes with their
//! interleaved channel or stream number.

pub mod client;
pub mod decoder;
#[doc(hidden)]
pub mod fuzzing;
pub mod header;
pub mod message;
pub mod range;
pub mod server;
pub mod transport;
pub mod uri;
pub mod url;

pub use decoder::{DecodeError, Decoder, Fault, Role};
pub use header::{FrameFilter, Rate, RtpInfo, SessionHeader};
pub use message::{Headers, Message, Method, Request, Response, StatusCode, interleaved_header};
pub use range::{ClockRange, NptRange, NptTime, Range, RangeError};
pub use transport::{Lower, Mode, Transport};
pub use uri::{RequestUri, UriError};
pub use url::{CameraUrl, UrlError};

#[cfg(test)]
mod dialogue_tests;
