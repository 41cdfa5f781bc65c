//! RTP packets out of access units, and the SDP words that describe them.

mod av1;
mod jpeg;
mod nal_units;
mod sound;
mod words;

use bytes::Bytes;
use corenvr_media::{AudioCodec, CodecParameters, VideoCodec};

use super::{Header, HeaderExtension};
pub use words::{parameter_sets, sdp_format};

/// The smallest MTU that a packetizer takes, in bytes of RTP packet (header included). Smaller values are raised to it: the
/// largest header extension and a payload header fit in.
pub const MTU_MIN: usize = 576;

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
    codec: Codec,
    packets: Packets,
}

#[derive(Debug, Clone, Copy)]
enum Codec {
    H264,
    H265,
    Av1,
    Jpeg,
    Aac,
    Opus,
    /// Samples that may be cut anywhere between blocks of `block_bytes`, which last `block_ticks`.
    Samples {
        name: &'static str,
        block_bytes: usize,
        block_ticks: u32,
    },
}

impl Packetizer {
    /// `payload_type` is that of [`sdp_format`]'s answer. `mtu` is the longest RTP packet, header included, in bytes (at least
    /// [`MTU_MIN`]); 1400 suits UDP.
    pub fn new(parameters: &CodecParameters, payload_type: u8, ssrc: u32, first_sequence: u16, mtu: usize) -> Self {
        let codec = match parameters {
            CodecParameters::Video(v) => match v.codec {
                VideoCodec::H264 => Codec::H264,
                VideoCodec::H265 => Codec::H265,
                VideoCodec::Av1 => Codec::Av1,
                VideoCodec::Mjpeg => Codec::Jpeg,
            },
            CodecParameters::Audio(a) => {
                let channels = usize::from(a.channels.max(1));
                let samples = |block_bytes, block_ticks| Codec::Samples {
                    name: a.codec.name(),
                    block_bytes,
                    block_ticks,
                };
                match a.codec {
                    AudioCodec::Aac => Codec::Aac,
                    AudioCodec::Opus => Codec::Opus,
                    AudioCodec::Pcma | AudioCodec::Pcmu => samples(channels, 1),
                    AudioCodec::L16 => samples(2 * channels, 1),
                    // Eight samples fill `bits` bytes.
                    AudioCodec::G726 { bits } => samples(usize::from(bits.max(1)), 8),
                }
            }
        };
        Self {
            codec,
            packets: Packets {
                payload_type,
                ssrc,
                sequence: first_sequence,
                mtu: mtu.max(MTU_MIN),
                head: Vec::with_capacity(MTU_MIN),
            },
        }
    }

    /// Calls `out(header_part, payload_part)` for each packet of the unit: the packet is the two behind each other. The
    /// payload part is a slice of `data`; nothing is allocated per packet. `extension` goes into the first packet's header.
    /// The marker is on the last packet (of sound formats without access units: on none).
    pub fn packetize(
        &mut self,
        data: &Bytes,
        timestamp: u32,
        extension: Option<HeaderExtension<'_>>,
        out: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), PacketizeError> {
        let mut unit = UnitPackets {
            packets: &mut self.packets,
            timestamp,
            extension,
            out,
        };
        match self.codec {
            Codec::H264 => nal_units::packetize(&nal_units::H264, data, &mut unit),
            Codec::H265 => nal_units::packetize(&nal_units::H265, data, &mut unit),
            Codec::Av1 => av1::packetize(data, &mut unit),
            Codec::Jpeg => jpeg::packetize(data, &mut unit),
            Codec::Aac => sound::aac(data, &mut unit),
            Codec::Opus => sound::opus(data, &mut unit),
            Codec::Samples {
                name,
                block_bytes,
                block_ticks,
            } => sound::samples(name, data, block_bytes, block_ticks, &mut unit),
        }
    }

    /// The sequence number of the next packet, for `RTP-Info`.
    pub fn next_sequence(&self) -> u16 {
        self.packets.sequence
    }
}

/// What runs on from packet to packet.
#[derive(Debug)]
struct Packets {
    payload_type: u8,
    ssrc: u32,
    sequence: u16,
    mtu: usize,
    /// Scratch for the header part.
    head: Vec<u8>,
}

/// The packets of one access unit.
struct UnitPackets<'a, F> {
    packets: &'a mut Packets,
    timestamp: u32,
    /// For the first packet.
    extension: Option<HeaderExtension<'a>>,
    out: &'a mut F,
}

impl<F: FnMut(&[u8], &[u8])> UnitPackets<'_, F> {
    /// Bytes that the next packet has for payload, payload header included.
    fn room(&self) -> usize {
        self.packets.mtu - Header::LEN - self.extension.map_or(0, |e| e.wire_len())
    }

    /// Sends a packet with this payload header and payload.
    fn send(&mut self, marker: bool, payload_head: &[u8], payload: &[u8]) {
        let packets = &mut *self.packets;
        let header = Header {
            payload_type: packets.payload_type,
            marker,
            sequence: packets.sequence,
            timestamp: self.timestamp,
            ssrc: packets.ssrc,
        };
        packets.head.clear();
        header.write(self.extension.take(), &mut packets.head);
        packets.head.extend_from_slice(payload_head);
        (self.out)(&packets.head, payload);
        packets.sequence = packets.sequence.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests;
