//! SDP (RFC 8866): what a camera offers, read leniently, and what our server describes, written strictly.

mod parse;
mod write;

use crate::{
    format::{MediaFormat, MediaKind},
    rtsp::Range,
};

pub use write::{DescribedMedia, Description};

/// The longest description that is read, in bytes; the rest of a longer one is ignored.
pub const SDP_BYTES_MAX: usize = 256 * 1024;
/// The most media lines that are read; further ones are ignored.
pub const MEDIA_MAX: usize = 32;
/// The most formats that are read from one media line; further ones are ignored.
pub const FORMATS_MAX: usize = 64;
/// The most parameters that are read from one `fmtp`; further ones are ignored.
pub const PARAMETERS_MAX: usize = 64;

/// A description cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum SdpError {
    #[error("it holds no media line")]
    NoMedia,
}

/// A description as received.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionDescription {
    /// `s=`, for people; empty if missing.
    pub name: String,
    /// Session-level `a=control`.
    pub control: Option<String>,
    /// Session-level `a=range`, if it can be understood.
    pub range: Option<Range>,
    /// The media lines in order; never empty after [`SessionDescription::parse`].
    pub media: Vec<Media>,
}

/// One `m=` line with its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Kind.
    pub kind: MediaKind,
    /// Port; 0 for RTSP.
    pub port: u16,
    /// Protocol in upper case, such as `RTP/AVP`.
    pub proto: String,
    /// The formats in order of preference. Empty if none is a payload type.
    pub formats: Vec<MediaFormat>,
    /// `a=control`.
    pub control: Option<String>,
    /// `a=range`, if it can be understood.
    pub range: Option<Range>,
    /// Direction, from the describer's point of view as RTSP has it.
    pub direction: Direction,
    /// `a=framerate`, finite and positive, in thousandths of a frame per second.
    pub frame_rate_milli: Option<u32>,
    /// ONVIF's `a=x-onvif-track`.
    pub onvif_track: Option<String>,
}

/// `a=sendrecv` and its kin. Cameras say `recvonly` (what the client does) and `sendonly` (what they do) of the same
/// stream, so that both of these mean media that can be pulled; an ONVIF backchannel is `sendonly` where the camera's
/// other media are `recvonly`, and is told by [`SessionDescription::is_backchannel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum Direction {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl SessionDescription {
    /// Reads a description. Only one without any media line is refused; lines that cannot be understood are passed over.
    pub fn parse(bytes: &[u8]) -> Result<Self, SdpError> {
        parse::parse(bytes)
    }

    /// Whether a media line is ONVIF's audio backchannel (ONVIF Streaming Specification 5.3): `sendonly` audio among
    /// media that are not.
    pub fn is_backchannel(&self, index: usize) -> bool {
        let is = |m: &Media| m.direction == Direction::SendOnly;
        self.media
            .get(index)
            .is_some_and(|m| m.kind == MediaKind::Audio && is(m))
            && !self.media.iter().all(is)
    }
}

#[cfg(test)]
mod tests;
