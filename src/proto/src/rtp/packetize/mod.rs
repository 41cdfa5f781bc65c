//! RTP packets out of access units, and the SDP words that describe them.

use bytes::Bytes;
use corenvr_media::CodecParameters;

use super::HeaderExtension;
use crate::format::MediaFormat;

/// The smallest MTU that a packetizer takes, in bytes of RTP packet (header included). Smaller values are raised to it.
pub const MTU_MIN: usize = 512;

/// An access unit that cannot be sent. The unit is skipped; nothing of it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketizeError {
    /// Its bytes are not what `corenvr_media::Frame::data` says for the codec.
    #[error("{codec} access unit is malformed: {what}")]
    Malformed {
        /// The codec.
        codec: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// The payload format has no way to carry it.
    #[error("{codec} access unit cannot be carried by RTP: {what}")]
    NotCarriable {
        /// The codec.
        codec: &'static str,
        /// What about it.
        what: &'static str,
    },
}

/// Cuts the access units of one track into packets. Sequence numbers run on from unit to unit.
#[derive(Debug)]
pub struct Packetizer {
    next_sequence: u16,
}

impl Packetizer {
    /// `mtu` is the longest RTP packet, header included, in bytes (at least [`MTU_MIN`]); 1400 suits UDP.
    pub fn new(parameters: &CodecParameters, payload_type: u8, ssrc: u32, first_sequence: u16, mtu: usize) -> Self {
        let _ = (parameters, payload_type, ssrc, mtu);
        Self { next_sequence: first_sequence }
    }

    /// Calls `out(header_part, payload_part)` for each packet of the unit: the packet is the two behind each other. The
    /// payload part is a slice of `data`; nothing is allocated per packet. `extension` goes into the first packet's header.
    pub fn packetize(
        &mut self,
        data: &Bytes,
        timestamp: u32,
        extension: Option<HeaderExtension<'_>>,
        out: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), PacketizeError> {
        let _ = (data, timestamp, extension, out);
        Ok(())
    }

    /// The sequence number of the next packet, for `RTP-Info`.
    pub fn next_sequence(&self) -> u16 {
        self.next_sequence
    }
}

/// The SDP words for a track: static payload types 0 and 8 for G.711 at 8 kHz mono whatever `payload_type` says.
pub fn sdp_format(parameters: &CodecParameters, payload_type: u8) -> MediaFormat {
    let _ = (parameters, payload_type);
    unimplemented!()
}

/// The parameter sets of H.264 or H.265, length-prefixed as in an access unit, to be sent before a key frame that has none;
/// empty for other codecs and for a damaged configuration record.
pub fn parameter_sets(parameters: &CodecParameters) -> Bytes {
    let _ = parameters;
    Bytes::new()
}
