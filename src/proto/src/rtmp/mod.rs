//! RTMP (Adobe's Real-Time Messaging Protocol 1.0) with the extensions of enhanced RTMP (Veovera, v1 and v2): someone
//! publishes to us ([`server`]), or we pull a stream ([`client`]). Both yield [`MediaMessage`]s, which [`Tracks`] turns
//! into access units.
//!
//! The code is our own: the public sans-IO crate `rml_rtmp` reserves a message's claimed length before its bytes are there,
//! keeps chunk streams without a bound, and neither negotiates enhanced RTMP nor reads its tags.

pub mod amf;
mod chunk;
pub mod client;
pub mod flv;
pub mod fuzzing;
mod handshake;
mod link;
pub mod server;
mod tracks;
mod url;

use bytes::Bytes;

pub use tracks::{CLOCK_RATE, TrackError, Tracks};
pub use url::{
    KEY_LEN_GOOD, KEY_LEN_MAX, PORT, RtmpUrl, RtmpUrlError, StreamKey, StreamKeyError, URL_BYTES_MAX, masked_key,
};

/// What a [`MediaMessage`] carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum MediaMessageKind {
    Audio,
    Video,
}

/// One message of sound or picture: the body of an FLV tag.
#[derive(Clone, PartialEq, Eq)]
pub struct MediaMessage {
    /// Sound or picture.
    pub kind: MediaMessageKind,
    /// Decoding time in milliseconds; wraps at 32 bits.
    pub timestamp: u32,
    /// The tag's body, from its first header byte on.
    pub payload: Bytes,
}

impl std::fmt::Debug for MediaMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {} ms, {} bytes", self.kind, self.timestamp, self.payload.len())
    }
}

#[cfg(test)]
mod dialogue_tests;
