//! SDP as GB/T 28181 uses it (annex G): the offer of a platform, the answer of a device. Both are read leniently and written as devices
//! and platforms in the field understand them.

mod read;
mod write;

use std::{fmt, net::IpAddr};

use super::id::DeviceId;
use crate::format::MediaFormat;

/// The media type of these bodies; compared without regard to case.
pub const CONTENT_TYPE: &str = "application/sdp";

/// Who opens the media connection, and over what. Seen from the platform, which receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MediaTransport {
    /// RTP over TCP, the device connects to us.
    #[default]
    TcpPassive,
    /// RTP over UDP.
    Udp,
    /// RTP over TCP, we connect to the device.
    TcpActive,
}

impl MediaTransport {
    /// Reads `tcp-passive`, `udp` or `tcp-active`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::TcpPassive, Self::Udp, Self::TcpActive]
            .into_iter()
            .find(|t| t.as_str() == text)
    }

    /// As [`parse`](Self::parse) reads it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TcpPassive => "tcp-passive",
            Self::Udp => "udp",
            Self::TcpActive => "tcp-active",
        }
    }

    /// Whether media comes over TCP.
    pub const fn is_tcp(self) -> bool {
        matches!(self, Self::TcpPassive | Self::TcpActive)
    }
}

impl fmt::Display for MediaTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which of a channel's streams is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamChoice {
    /// The one in full quality.
    Main,
    /// The smaller one.
    Sub,
}

impl StreamChoice {
    /// Reads `main` or `sub`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Main, Self::Sub].into_iter().find(|s| s.as_str() == text)
    }

    /// As [`parse`](Self::parse) reads it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Sub => "sub",
        }
    }
}

impl fmt::Display for StreamChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The number of a stream, `y=`: the RTP SSRC that the device is to use. Written with 10 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ssrc(u32);

impl Ssrc {
    /// How many serial numbers there are.
    pub const SERIALS: u16 = 10_000;

    /// 0 for live or 1 for history, digits 4 to 8 of the platform's domain, and a serial number of 4 digits (taken modulo
    /// [`SERIALS`](Self::SERIALS)). Digits that a domain does not have are 0.
    ///
    /// Stragglers of an older stream come with its number: take a fresh serial for every session.
    pub fn new(is_history: bool, domain: &str, serial: u16) -> Self {
        let digit = |at: usize| domain.as_bytes().get(at).filter(|b| b.is_ascii_digit());
        let domain = (3..8).fold(0, |sum, at| sum * 10 + digit(at).map_or(0, |b| u32::from(b - b'0')));
        Self(u32::from(is_history) * 1_000_000_000 + domain * 10_000 + u32::from(serial % Self::SERIALS))
    }

    /// Any number that a peer chose.
    pub const fn from_value(value: u32) -> Self {
        Self(value)
    }

    /// Reads 1 to 10 digits; `None` also for a number that no RTP packet can have.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if digits { text.parse().ok().map(Self) } else { None }
    }

    /// As RTP has it.
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Ssrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}", self.0)
    }
}

/// What kind of footage a session carries: `s=` and `t=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionKind {
    /// The present.
    Play,
    /// A recording of the device, in its own time, with MANSRTSP.
    Playback(UnixRange),
    /// A recording of the device, faster.
    Download {
        /// Which part of it.
        range: UnixRange,
        /// How many times as fast as recorded; `None`: the device's choice.
        speed: Option<u8>,
    },
}

impl SessionKind {
    /// Whether it is a recording of the device.
    pub const fn is_history(self) -> bool {
        !matches!(self, Self::Play)
    }

    /// As `s=` says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Play => "Play",
            Self::Playback(_) => "Playback",
            Self::Download { .. } => "Download",
        }
    }

    /// What part of the recording; `None` for the present.
    pub const fn range(self) -> Option<UnixRange> {
        match self {
            Self::Play => None,
            Self::Playback(range) | Self::Download { range, .. } => Some(range),
        }
    }
}

/// Two times in seconds since the Unix epoch, as `t=` has them here (not the NTP seconds of RFC 8866).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct UnixRange {
    pub start_s: u64,
    pub end_s: u64,
}

/// Who connects over TCP, seen from the one who says it (RFC 4145).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setup {
    /// Connects.
    Active,
    /// Listens.
    Passive,
    /// Either.
    Actpass,
}

/// What a platform asks for; its `Display` is the SDP, with CRLF line ends.
///
/// Offered are the payload types 96 PS, 97 MPEG-4, 98 H.264 and 99 H.265. [`parse`](Self::parse) reads also what other platforms send.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Who stands in `o=`: the channel for most devices, the device for some.
    pub origin: DeviceId,
    /// The channel of `u=`. Written for history only; `None` if an offer for the present was read.
    pub channel: Option<DeviceId>,
    /// What is asked for.
    pub session: SessionKind,
    /// Where media is expected.
    pub address: IpAddr,
    /// The port there. What the one who connects over TCP says here means nothing.
    pub port: u16,
    /// How media comes.
    pub transport: MediaTransport,
    /// The stream's number; `None` if an upper platform leaves it to us.
    pub ssrc: Option<Ssrc>,
    /// Which of the channel's streams, in each of the spellings in use (`streamnumber` of 2022, Dahua's `streamprofile`, TP-Link's `streamMode`);
    /// `None`: the device's choice.
    pub stream: Option<StreamChoice>,
    /// The formats that were offered, as read. Not written: ours are always the same.
    pub formats: Vec<MediaFormat>,
}

/// What a device grants; its `Display` is the SDP, with CRLF line ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// `o=`; `None` if it is no identity.
    pub origin: Option<DeviceId>,
    /// `s=` and `t=`; `None` where a device says something else. It does not decide anything.
    pub session: Option<SessionKind>,
    /// Where media comes from by the device's own account; often unreachable. `None` if it is no address.
    pub address: Option<IpAddr>,
    /// The port there. 0 refuses the media (RFC 3264 section 6) unless the device connects over TCP.
    pub port: u16,
    /// Whether it names TCP.
    pub is_tcp: bool,
    /// Who connects over TCP, seen from the device.
    pub setup: Option<Setup>,
    /// The stream's number. Devices leave it out, repeat ours, or name another; what comes in RTP may differ from all of them.
    pub ssrc: Option<Ssrc>,
    /// The formats in order of preference; never empty.
    pub formats: Vec<MediaFormat>,
    /// `f=`, the parameters of the media (annex G), without control characters; empty if missing.
    pub parameters: String,
    /// How large the download will be (`a=filesize`).
    pub file_bytes: Option<u64>,
}

/// A description cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum GbSdpError {
    #[error("the peer's SDP holds no m=video line")]
    NoVideo,
    #[error("the peer's SDP names no format")]
    NoFormat,
    #[error("the device sends a private stream ({0}); choose GB28181's PS in its settings")]
    Private(String),
    #[error("the peer's offer lacks a usable {0}")]
    Lacks(&'static str),
}

/// What a payload type carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Payload {
    /// MPEG program stream, whatever is in it.
    Ps,
    Mpeg4,
    H264,
    H265,
    /// The Chinese codec of GB/T 25724; nothing here decodes or stores it.
    Svac,
    /// G.711 A law.
    Pcma,
    /// G.711 mu law.
    Pcmu,
    Aac,
}

impl Payload {
    /// By the rtpmap, and where there is none by the number, as our own offer has it.
    pub fn of(format: &MediaFormat) -> Option<Self> {
        Some(match (format.encoding.as_str(), format.payload_type) {
            ("PS" | "MP2P", _) | ("", 96) => Self::Ps,
            ("MPEG4" | "MP4V-ES", _) | ("", 97) => Self::Mpeg4,
            ("H264", _) | ("", 98) => Self::H264,
            ("H265" | "HEVC", _) | ("", 99 | 100) => Self::H265,
            ("SVAC" | "SVACV", _) => Self::Svac,
            ("PCMA" | "G711A", _) => Self::Pcma,
            ("PCMU" | "G711U", _) => Self::Pcmu,
            ("MPEG4-GENERIC" | "AAC", _) | ("", 102) => Self::Aac,
            _ => return None,
        })
    }

    /// As the rtpmap says it, with the clock rate.
    pub const fn rtpmap(self) -> &'static str {
        match self {
            Self::Ps => "PS/90000",
            Self::Mpeg4 => "MPEG4/90000",
            Self::H264 => "H264/90000",
            Self::H265 => "H265/90000",
            Self::Svac => "SVAC/90000",
            Self::Pcma => "PCMA/8000",
            Self::Pcmu => "PCMU/8000",
            Self::Aac => "MPEG4-GENERIC/90000",
        }
    }
}

impl Answer {
    /// What a device means that agrees to our offer without an SDP of its own. Only for one that has no port to tell.
    pub(in crate::gb28181) fn as_offered(transport: MediaTransport) -> Self {
        let is_tcp = transport != MediaTransport::Udp;
        Self {
            origin: None,
            session: None,
            address: None,
            port: 0,
            is_tcp,
            setup: is_tcp.then_some(Setup::Active),
            ssrc: None,
            formats: write::offered(),
            parameters: String::new(),
            file_bytes: None,
        }
    }

    /// What a payload type of this session carries; `None` if the answer does not name it, or names something unknown. For a number that the
    /// answer does not have at all, ask with the meaning that our offer gave it.
    pub fn payload(&self, payload_type: u8) -> Option<Payload> {
        self.formats
            .iter()
            .find(|f| f.payload_type == payload_type)
            .and_then(Payload::of)
    }
}

#[cfg(test)]
mod tests;
