//! One media format of an SDP media line: the words that SDP, the depacketizers and the packetizers share.

use std::fmt;

/// What a media line carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum MediaKind {
    Video,
    Audio,
    /// Metadata (`application`), text and whatever else is offered; never recorded.
    Other,
}

/// A payload type with its `rtpmap` and `fmtp` (RFC 8866 sections 6.6 and 6.15), or its static meaning (RFC 3551 section 6).
#[derive(Clone, PartialEq, Eq)]
pub struct MediaFormat {
    /// The kind of the media line.
    pub kind: MediaKind,
    /// RTP payload type, 0 to 127.
    pub payload_type: u8,
    /// Encoding name in upper case: `H264`, `MPEG4-GENERIC`, `PCMA`. Empty if the SDP names none.
    pub encoding: String,
    /// RTP clock rate in Hz; never 0.
    pub clock_rate: u32,
    /// Audio channels; 1 if not given.
    pub channels: u8,
    /// `fmtp` parameters in order: key in lower case, value as sent. A parameter without `=` has an empty value.
    pub parameters: Vec<(String, String)>,
}

impl MediaFormat {
    /// The value of the first `fmtp` parameter of that name (lower case).
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

impl fmt::Debug for MediaFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {} {}/{}",
            self.kind, self.payload_type, self.encoding, self.clock_rate
        )
    }
}

impl fmt::Display for MediaFormat {
    /// As SDP's rtpmap says it: `H264/90000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.encoding.is_empty() {
            write!(f, "payload type {}", self.payload_type)
        } else {
            write!(f, "{}/{}", self.encoding, self.clock_rate)
        }
    }
}
