//! AAC as `MP4A-LATM` (RFC 6416 section 6): LATM with its configuration in the SDP (`cpresent=0`) or in band.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use corenvr_media::{AudioCodec, AudioParameters, CodecParameters};
use smallvec::SmallVec;

use super::{AccessUnit, DepacketizeError, Output, Packet, Unsupported, hex, unsupported};
use crate::{
    bitstream::{BitReader, aac::LatmConfig},
    format::MediaFormat,
};

const FORMAT: &str = "LATM";
/// The largest `audioMuxElement` in bytes. A larger one is dropped.
const ELEMENT_LEN_MAX: usize = 256 << 10;

const fn malformed(what: &'static str) -> DepacketizeError {
    DepacketizeError::Malformed { format: FORMAT, what }
}

/// The frames of one element.
type Frames = SmallVec<[Bytes; 4]>;

#[derive(Debug)]
pub(super) struct Latm {
    in_band: bool,
    clock_rate: u32,
    config: Option<LatmConfig>,
    parameters: Option<Arc<CodecParameters>>,
    /// The element in progress and its time stamp.
    element: BytesMut,
    timestamp: u32,
    /// Packets were lost before the element in progress: its start may be missing.
    in_doubt: bool,
    lost: u32,
}

impl Latm {
    pub(super) fn new(format: &MediaFormat) -> Result<Self, Unsupported> {
        let in_band = format.parameter("cpresent").is_none_or(|v| v.trim() != "0");
        let mut latm = Self {
            in_band,
            clock_rate: format.clock_rate,
            config: None,
            parameters: None,
            element: BytesMut::new(),
            timestamp: 0,
            in_doubt: false,
            lost: 0,
        };
        if let Some(config) = format
            .parameter("config")
            .and_then(hex)
            .and_then(|c| LatmConfig::parse(&c))
        {
            latm.configure(config);
        } else if !in_band {
            return Err(unsupported(format, "cpresent=0 without a config that corenvr can read"));
        }
        Ok(latm)
    }

    pub(super) fn parameters(&self) -> Option<&Arc<CodecParameters>> {
        self.parameters.as_ref()
    }

    fn configure(&mut self, config: LatmConfig) {
        if self.config.as_ref() == Some(&config) {
            return;
        }
        let parameters = CodecParameters::Audio(AudioParameters {
            codec: AudioCodec::Aac,
            extra: config.config.clone(),
            sample_rate: config.audio.sample_rate,
            channels: config.audio.channels.max(1),
        });
        if self.parameters.as_deref() != Some(&parameters) {
            self.parameters = Some(Arc::new(parameters));
        }
        self.config = Some(config);
    }

    pub(super) fn flush(&mut self, out: &mut Output) {
        // An element without its marker may still be whole; if it is not, there is nothing to deliver.
        let _ = self.finish(out);
    }

    pub(super) fn push(&mut self, packet: &Packet, lost: u32, out: &mut Output) -> Result<(), DepacketizeError> {
        self.lost = self.lost.saturating_add(lost);
        let mut result = Ok(());
        if lost > 0 {
            self.element.clear();
        }
        if self.timestamp != packet.timestamp {
            result = self.finish(out);
            self.timestamp = packet.timestamp;
        }
        self.in_doubt |= lost > 0;
        if packet.payload.is_empty() {
            return result; // a keep-alive
        }
        if self.element.len() + packet.payload.len() > ELEMENT_LEN_MAX {
            self.element.clear();
            return Err(DepacketizeError::TooLarge);
        }
        self.element.extend_from_slice(&packet.payload);
        let ended = if packet.marker { self.finish(out) } else { Ok(()) };
        result.and(ended)
    }

    /// The element in progress is complete. Behind a loss it may be the rest of one: then it is taken only if its lengths agree
    /// with it to the byte.
    fn finish(&mut self, out: &mut Output) -> Result<(), DepacketizeError> {
        let in_doubt = std::mem::take(&mut self.in_doubt);
        if self.element.is_empty() {
            return Ok(());
        }
        let element = self.element.split();
        match self.frames(&element, in_doubt) {
            Ok((frames, ticks)) => self.deliver(frames, ticks, out),
            Err(_) if in_doubt => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes an element apart into its frames and the ticks of each.
    fn frames(&mut self, element: &[u8], exact: bool) -> Result<(Frames, u32), DepacketizeError> {
        let mut r = BitReader::new(element);
        let mut new = None;
        if self.in_band && !r.bit().ok_or(malformed("it is empty"))? {
            new = LatmConfig::read(&mut r, element);
            if new.is_none() {
                return Err(malformed("a StreamMuxConfig that is not understood"));
            }
        }
        let config = new
            .as_ref()
            .or(self.config.as_ref())
            .ok_or(malformed("no StreamMuxConfig yet"))?;
        let mut frames = Frames::new();
        let complete = config.read_frames(&mut r, |frame| frames.push(frame));
        complete.ok_or(malformed("a frame longer than its packet"))?;
        if exact && r.position().div_ceil(8) != element.len() {
            return Err(malformed("bytes behind the frames"));
        }
        let audio = config.audio;
        let ticks = u64::from(audio.frame_samples) * u64::from(self.clock_rate) / u64::from(audio.sample_rate);
        if let Some(config) = new {
            self.configure(config);
        }
        Ok((frames, ticks as u32))
    }

    fn deliver(&mut self, frames: Frames, ticks: u32, out: &mut Output) -> Result<(), DepacketizeError> {
        for (i, data) in (0u32..).zip(frames) {
            if data.is_empty() {
                continue;
            }
            let unit = AccessUnit {
                timestamp: self.timestamp.wrapping_add(i.wrapping_mul(ticks)),
                key: true,
                data,
                lost: std::mem::take(&mut self.lost),
                damaged: false,
                parameters: None,
            };
            out.add(unit, self.parameters.as_ref())?;
        }
        Ok(())
    }
}
