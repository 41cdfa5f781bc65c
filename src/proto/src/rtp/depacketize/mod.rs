//! Access units out of RTP packets: the choice of the payload format, and what all formats share.

mod aac;
mod audio;
mod av1;
pub(crate) mod h264;
pub(crate) mod h265;
mod jpeg;
mod latm;
pub(crate) mod nal_units;

use std::{collections::VecDeque, sync::Arc};

use base64::Engine as _;
use bytes::Bytes;
use corenvr_media::CodecParameters;

use super::Packet;
use crate::format::{MediaFormat, MediaKind};

/// The largest access unit, in bytes. A larger one is dropped whole with [`DepacketizeError::TooLarge`].
pub const UNIT_BYTES_MAX: usize = 8 << 20;
/// NAL units, OBUs or fragments of one access unit. One with more is dropped whole with [`DepacketizeError::TooLarge`].
pub const UNIT_PARTS_MAX: usize = 65_536;
/// Units that wait for [`Depacketizer::poll`]. Further ones are dropped with [`DepacketizeError::NotPolled`].
pub const OUTPUT_UNITS_MAX: usize = 32_768;

/// One access unit: a coded picture, or a packet of coded sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessUnit {
    /// RTP time stamp of this unit, in ticks of the format's clock (of a later unit in the same packet: counted up).
    pub timestamp: u32,
    /// Decoding can start here.
    pub key: bool,
    /// The unit in the layout of `corenvr_media::Frame::data`.
    pub data: Bytes,
    /// Packets lost inside this unit or between the one before and this; each lost packet is counted in one unit.
    pub lost: u32,
    /// Parts of this unit are or may be missing. What is there is whole: never a truncated NAL unit.
    pub damaged: bool,
    /// Set on the first unit and on each from which on the stream has other parameters than before.
    pub parameters: Option<Arc<CodecParameters>>,
}

/// A format that is not recorded, with what was offered in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{offered} is not supported: {reason}")]
pub struct Unsupported {
    /// The format as SDP offers it: `H264/90000`.
    pub offered: String,
    /// What about it.
    pub reason: String,
}

/// What is wrong with a packet. The packet's share of its unit is dropped, the unit is `damaged`, and the stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DepacketizeError {
    /// The sender breaks the payload format.
    #[error("malformed {format} payload: {what}")]
    Malformed {
        /// The payload format.
        format: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// The sender uses a part of the payload format that is not supported.
    #[error("{format} payload uses {what}, which is not supported")]
    Unsupported {
        /// The payload format.
        format: &'static str,
        /// Which part.
        what: &'static str,
    },
    /// A unit passed [`UNIT_BYTES_MAX`] or [`UNIT_PARTS_MAX`]; it is dropped whole.
    #[error("access unit larger than the limit; it is dropped")]
    TooLarge,
    /// The caller did not poll; a unit was dropped.
    #[error("access units are not polled; one is dropped")]
    NotPolled,
}

/// Turns the packets of one RTP stream, in order, into access units.
///
/// After each [`Self::push`] poll until `None`. A unit of H.264 or H.265 comes out when its end is certain: with the marker bit
/// once the stream has shown that its marker means that, else with the first packet of the next unit.
#[derive(Debug)]
pub struct Depacketizer {
    format: Format,
    output: Output,
}

#[derive(Debug)]
enum Format {
    H264(Box<h264::H264>),
    H265(Box<h265::H265>),
    Av1(Box<av1::Av1>),
    Jpeg(Box<jpeg::Jpeg>),
    Aac(Box<aac::Aac>),
    Latm(Box<latm::Latm>),
    Audio(Box<audio::PacketAudio>),
}

/// Finished units on their way to the caller, and which parameters were told with them.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) units: VecDeque<AccessUnit>,
    told: Option<Arc<CodecParameters>>,
}

impl Output {
    /// Adds a unit that has these parameters.
    pub(crate) fn add(
        &mut self,
        mut unit: AccessUnit,
        parameters: Option<&Arc<CodecParameters>>,
    ) -> Result<(), DepacketizeError> {
        if self.units.len() >= OUTPUT_UNITS_MAX {
            return Err(DepacketizeError::NotPolled);
        }
        if let Some(parameters) = parameters
            && self.told.as_ref().is_none_or(|told| !Arc::ptr_eq(told, parameters))
        {
            if self.told.as_ref() != Some(parameters) {
                unit.parameters = Some(parameters.clone());
            }
            self.told = Some(parameters.clone());
        }
        self.units.push_back(unit);
        Ok(())
    }
}

impl Depacketizer {
    /// For a format as SDP describes it.
    pub fn new(format: &MediaFormat) -> Result<Self, Unsupported> {
        let chosen = match (format.kind, format.encoding.as_str(), format.payload_type) {
            (MediaKind::Video, "H264", _) => Format::H264(Box::new(h264::H264::new(format)?)),
            (MediaKind::Video, "H265", _) => Format::H265(Box::new(h265::H265::new(format)?)),
            (MediaKind::Video, "AV1", _) => Format::Av1(Box::default()),
            (MediaKind::Video, "JPEG", _) | (MediaKind::Video, "", 26) => Format::Jpeg(Box::default()),
            (MediaKind::Audio, "MPEG4-GENERIC", _) => Format::Aac(Box::new(aac::Aac::new(format)?)),
            (MediaKind::Audio, "MP4A-LATM", _) => Format::Latm(Box::new(latm::Latm::new(format)?)),
            (MediaKind::Audio, ..) => Format::Audio(Box::new(audio::PacketAudio::new(format)?)),
            _ => return Err(unsupported(format, "corenvr knows no payload format of this name")),
        };
        Ok(Self {
            format: chosen,
            output: Output::default(),
        })
    }

    /// Takes the next packet in order; `lost_before` packets are missing between the one before and this.
    pub fn push(&mut self, packet: &Packet, lost_before: u32) -> Result<(), DepacketizeError> {
        let out = &mut self.output;
        match &mut self.format {
            Format::H264(f) => f.push(packet, lost_before, out),
            Format::H265(f) => f.push(packet, lost_before, out),
            Format::Av1(f) => f.push(packet, lost_before, out),
            Format::Jpeg(f) => f.push(packet, lost_before, out),
            Format::Aac(f) => f.push(packet, lost_before, out),
            Format::Latm(f) => f.push(packet, lost_before, out),
            Format::Audio(f) => f.push(packet, lost_before, out),
        }
    }

    /// Takes a parameter set that came beside the stream, as in an `avcC` or `hvcC` record; of AV1 a sequence header OBU.
    /// Other formats have none.
    pub(crate) fn learn(&mut self, set: &[u8]) {
        match &mut self.format {
            Format::H264(f) => f.learn(set),
            Format::H265(f) => f.learn(set),
            Format::Av1(f) => f.learn(set),
            Format::Jpeg(_) | Format::Aac(_) | Format::Latm(_) | Format::Audio(_) => {}
        }
    }

    /// The next finished unit.
    pub fn poll(&mut self) -> Option<AccessUnit> {
        self.output.units.pop_front()
    }

    /// Parameters as far as they are known: from the SDP, or the latest in band.
    pub fn parameters(&self) -> Option<&Arc<CodecParameters>> {
        match &self.format {
            Format::H264(f) => f.parameters(),
            Format::H265(f) => f.parameters(),
            Format::Av1(f) => f.parameters(),
            Format::Jpeg(f) => f.parameters(),
            Format::Aac(f) => Some(f.parameters()),
            Format::Latm(f) => f.parameters(),
            Format::Audio(f) => Some(f.parameters()),
        }
    }

    /// The stream ends or restarts: what is whole of the unit in progress comes out, and nothing later joins it. A unit in
    /// progress whose end cannot be told (a fragment without its rest) is dropped.
    pub fn flush(&mut self) {
        let out = &mut self.output;
        match &mut self.format {
            Format::H264(f) => f.flush(out),
            Format::H265(f) => f.flush(out),
            Format::Av1(f) => f.flush(out),
            Format::Jpeg(f) => f.flush(out),
            Format::Aac(f) => f.flush(),
            Format::Latm(f) => f.flush(out),
            Format::Audio(_) => {}
        }
    }
}

fn unsupported(format: &MediaFormat, reason: impl Into<String>) -> Unsupported {
    Unsupported {
        offered: format.to_string(),
        reason: reason.into(),
    }
}

/// The byte strings of an `sprop-*` value: Base64, separated by commas. What is not Base64 is left out.
fn sprop_sets(value: &str) -> impl Iterator<Item = Vec<u8>> {
    value.split(',').filter_map(|text| {
        let text = text.trim().trim_end_matches('=');
        base64::engine::general_purpose::STANDARD_NO_PAD
            .decode(text)
            .ok()
            .filter(|set| !set.is_empty())
    })
}

/// A hexadecimal `config`; `None` if it is not that.
fn hex(text: &str) -> Option<Vec<u8>> {
    let text = text.trim().as_bytes();
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |c: u8| (c as char).to_digit(16);
    text.chunks_exact(2)
        .map(|pair| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8))
        .collect()
}

#[cfg(test)]
mod tests;
