//! What a decoder must know before the first frame.

use bytes::Bytes;

/// A video codec that corenvr records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum VideoCodec {
    H264,
    H265,
    Mjpeg,
    Av1,
}

/// An audio codec that corenvr records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum AudioCodec {
    Aac,
    Opus,
    Pcma,
    Pcmu,
    /// ITU-T G.726 with 2 to 5 bits a sample, in the RFC 3551 (little endian) packing.
    G726 {
        bits: u8,
    },
    /// Linear 16 bit, big endian.
    L16,
}

/// Parameters of a video track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoParameters {
    /// The codec.
    pub codec: VideoCodec,
    /// The codec's configuration record as Matroska's CodecPrivate holds it: `avcC` (ISO/IEC 14496-15 5.3.3),
    /// `hvcC` (8.3.3), `av1C`; empty for MJPEG. NAL lengths are always 4 bytes.
    pub extra: Bytes,
    /// Displayed width in pixels, after cropping.
    pub width: u32,
    /// Displayed height in pixels, after cropping.
    pub height: u32,
    /// Frames per second as a fraction, where the stream declares it.
    pub frame_rate: Option<(u32, u32)>,
}

/// Parameters of an audio track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioParameters {
    /// The codec.
    pub codec: AudioCodec,
    /// `AudioSpecificConfig` for AAC (ISO/IEC 14496-3 1.6.2.1), `OpusHead` for Opus (RFC 7845 5.1), empty otherwise.
    pub extra: Bytes,
    /// Samples per second. 48 000 for Opus.
    pub sample_rate: u32,
    /// Channels.
    pub channels: u8,
}

/// Parameters of one track. Equal parameters mean that one decoder instance can go on without a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CodecParameters {
    Video(VideoParameters),
    Audio(AudioParameters),
}

impl VideoCodec {
    /// The name people and SDP use: `H264`, `H265`, `JPEG`, `AV1`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::H264 => "H264",
            Self::H265 => "H265",
            Self::Mjpeg => "JPEG",
            Self::Av1 => "AV1",
        }
    }
}

impl AudioCodec {
    /// The name people and SDP use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aac => "AAC",
            Self::Opus => "OPUS",
            Self::Pcma => "PCMA",
            Self::Pcmu => "PCMU",
            Self::G726 { .. } => "G726",
            Self::L16 => "L16",
        }
    }
}

impl CodecParameters {
    /// Whether this is a video track.
    pub const fn is_video(&self) -> bool {
        matches!(self, Self::Video(_))
    }

    /// The codec's name, as [`VideoCodec::name`] and [`AudioCodec::name`].
    pub const fn codec_name(&self) -> &'static str {
        match self {
            Self::Video(v) => v.codec.name(),
            Self::Audio(a) => a.codec.name(),
        }
    }

    /// The RTP clock rate, in Hz: 90 000 for video and Opus's and AAC's sampling rate for audio.
    pub const fn clock_rate(&self) -> u32 {
        match self {
            Self::Video(_) => 90_000,
            Self::Audio(a) => a.sample_rate,
        }
    }
}
