//! Formats with one frame in each packet: G.711, L16 (RFC 3551), G.726 (RFC 3551 section 4.5.4) and Opus (RFC 7587).

use std::sync::Arc;

use bytes::Bytes;
use corenvr_media::{AudioCodec, AudioParameters, CodecParameters};

use super::{AccessUnit, DepacketizeError, Output, Packet, Unsupported, unsupported};
use crate::{bitstream::opus, format::MediaFormat};

#[derive(Debug)]
pub(super) struct PacketAudio {
    parameters: Arc<CodecParameters>,
    /// Packets lost and not yet told with a unit.
    lost: u32,
}

impl PacketAudio {
    pub(super) fn new(format: &MediaFormat) -> Result<Self, Unsupported> {
        let mut sample_rate = format.clock_rate;
        let mut channels = format.channels.max(1);
        let mut extra = Bytes::new();
        let codec = match (format.encoding.as_str(), format.payload_type) {
            ("PCMU", _) | ("", 0) => AudioCodec::Pcmu,
            ("PCMA", _) | ("", 8) => AudioCodec::Pcma,
            ("L16", _) => AudioCodec::L16,
            ("", 10 | 11) => {
                (sample_rate, channels) = (44_100, if format.payload_type == 10 { 2 } else { 1 });
                AudioCodec::L16
            }
            ("G726-16", _) => AudioCodec::G726 { bits: 2 },
            ("G726-24", _) => AudioCodec::G726 { bits: 3 },
            ("G726-32", _) => AudioCodec::G726 { bits: 4 },
            ("G726-40", _) => AudioCodec::G726 { bits: 5 },
            ("OPUS", _) => {
                // The rtpmap always says 48000/2; whether both are used is the sprop's word (RFC 7587 section 6.1).
                sample_rate = 48_000;
                channels = match format.parameter("sprop-stereo").map(str::trim) {
                    Some("1") => 2,
                    Some(_) => 1,
                    None => channels.min(2),
                };
                extra = opus::head(channels);
                AudioCodec::Opus
            }
            (name, _) if name.starts_with("AAL2-G726") => {
                return Err(unsupported(
                    format,
                    "G.726 in the AAL2 packing; set the camera to G.711 or AAC",
                ));
            }
            _ => return Err(unsupported(format, "corenvr records no audio codec of this name")),
        };
        Ok(Self {
            parameters: Arc::new(CodecParameters::Audio(AudioParameters {
                codec,
                extra,
                sample_rate,
                channels,
            })),
            lost: 0,
        })
    }

    pub(super) fn parameters(&self) -> &Arc<CodecParameters> {
        &self.parameters
    }

    pub(super) fn push(&mut self, packet: &Packet, lost: u32, out: &mut Output) -> Result<(), DepacketizeError> {
        self.lost = self.lost.saturating_add(lost);
        if packet.payload.is_empty() {
            return Ok(()); // a keep-alive
        }
        let unit = AccessUnit {
            timestamp: packet.timestamp,
            key: true,
            // A copy, so that small sound does not hold the receive buffer it shares with pictures.
            data: Bytes::copy_from_slice(&packet.payload),
            lost: std::mem::take(&mut self.lost),
            damaged: false,
            parameters: None,
        };
        out.add(unit, Some(&self.parameters))
    }
}
