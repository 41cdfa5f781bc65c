//! Access units out of RTP packets: the choice of the payload format, and what all formats share.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use corenvr_media::CodecParameters;

use super::Packet;
use crate::format::MediaFormat;

/// The largest access unit, in bytes. A larger one is dropped whole with [`DepacketizeError::TooLarge`].
pub const UNIT_BYTES_MAX: usize = 8 << 20;
/// Units that wait for [`Depacketizer::poll`]. Further ones are dropped with [`DepacketizeError::NotPolled`].
pub const OUTPUT_UNITS_MAX: usize = 4096;

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
    /// A unit passed [`UNIT_BYTES_MAX`] or its number of parts; it is dropped whole.
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
    output: Output,
}

/// Finished units on their way to the caller.
#[derive(Debug, Default)]
struct Output {
    units: VecDeque<AccessUnit>,
}

impl Depacketizer {
    /// For a format as SDP describes it.
    pub fn new(format: &MediaFormat) -> Result<Self, Unsupported> {
        Err(Unsupported { offered: format.to_string(), reason: "not yet".into() })
    }

    /// Takes the next packet in order; `lost_before` packets are missing between the one before and this.
    pub fn push(&mut self, packet: &Packet, lost_before: u32) -> Result<(), DepacketizeError> {
        let _ = (packet, lost_before);
        Ok(())
    }

    /// The next finished unit.
    pub fn poll(&mut self) -> Option<AccessUnit> {
        self.output.units.pop_front()
    }

    /// Parameters as far as they are known: from the SDP, or the latest in band.
    pub fn parameters(&self) -> Option<&Arc<CodecParameters>> {
        None
    }

    /// The stream ends or restarts: what is whole of the unit in progress comes out, and nothing later joins it.
    pub fn flush(&mut self) {}
}
