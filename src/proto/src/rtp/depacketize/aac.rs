//! AAC as `mpeg4-generic` (RFC 3640): modes AAC-hbr and AAC-lbr, several access units in a packet, or one in several packets.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use corenvr_media::{AudioCodec, AudioParameters, CodecParameters};

use super::{AccessUnit, DepacketizeError, Output, Packet, Unsupported, hex, unsupported};
use crate::{
    bitstream::{BitReader, aac},
    format::MediaFormat,
};

const FORMAT: &str = "AAC";
/// The largest access unit in bytes: sizes have at most 16 bits here (13 in AAC-hbr).
const UNIT_LEN_MAX: usize = 65_535;

const fn malformed(what: &'static str) -> DepacketizeError {
    DepacketizeError::Malformed { format: FORMAT, what }
}

#[derive(Debug)]
pub(super) struct Aac {
    parameters: Arc<CodecParameters>,
    size_bits: u32,
    index_bits: u32,
    delta_bits: u32,
    /// RTP ticks of one access unit.
    unit_ticks: u32,
    fragment: Option<Fragment>,
    lost: u32,
}

/// An access unit in several packets (RFC 3640 section 3.2.3.2).
#[derive(Debug)]
struct Fragment {
    timestamp: u32,
    size: usize,
    data: BytesMut,
}

impl Aac {
    pub(super) fn new(format: &MediaFormat) -> Result<Self, Unsupported> {
        let number = |key| format.parameter(key).and_then(|v| v.trim().parse::<u32>().ok());
        let mode = format
            .parameter("mode")
            .unwrap_or("AAC-hbr")
            .trim()
            .to_ascii_lowercase();
        let (size, index) = match mode.as_str() {
            "aac-hbr" => (13, 3),
            "aac-lbr" => (6, 2),
            _ => {
                return Err(unsupported(
                    format,
                    format!("mode={mode}, only AAC-hbr and AAC-lbr are"),
                ));
            }
        };
        // Some cameras give lengths that differ from their mode's; what they give is what they send.
        let size_bits = number("sizelength").unwrap_or(size);
        let index_bits = number("indexlength").unwrap_or(index);
        let delta_bits = number("indexdeltalength").unwrap_or(index);
        if !(1..=16).contains(&size_bits) || index_bits > 16 || delta_bits > 16 {
            return Err(unsupported(
                format,
                "AU header fields longer than 16 bits or without a size",
            ));
        }
        for key in [
            "ctsdeltalength",
            "dtsdeltalength",
            "randomaccessindication",
            "streamstateindication",
            "auxiliarydatasizelength",
        ] {
            if number(key).unwrap_or(0) > 0 {
                return Err(unsupported(format, format!("AU headers with {key}")));
            }
        }
        let given = format.parameter("config").and_then(hex);
        let extra = given.map_or_else(
            || aac::low_complexity_config(format.clock_rate, format.channels),
            Bytes::from,
        );
        let config =
            aac::AudioConfig::parse(&extra).ok_or_else(|| unsupported(format, "a config that is not AAC's"))?;
        let channels = if config.channels == 0 {
            format.channels.max(1)
        } else {
            config.channels
        };
        // With SBR the clock may run at the doubled rate: a unit takes as much longer.
        let ticks = u64::from(config.frame_samples) * u64::from(format.clock_rate) / u64::from(config.sample_rate);
        Ok(Self {
            parameters: Arc::new(CodecParameters::Audio(AudioParameters {
                codec: AudioCodec::Aac,
                extra,
                sample_rate: config.sample_rate,
                channels,
            })),
            size_bits,
            index_bits,
            delta_bits,
            unit_ticks: ticks.min(u64::from(u32::MAX)) as u32,
            fragment: None,
            lost: 0,
        })
    }

    pub(super) fn parameters(&self) -> &Arc<CodecParameters> {
        &self.parameters
    }

    pub(super) fn flush(&mut self) {
        self.fragment = None;
    }

    pub(super) fn push(&mut self, packet: &Packet, lost: u32, out: &mut Output) -> Result<(), DepacketizeError> {
        self.lost = self.lost.saturating_add(lost);
        if lost > 0 {
            self.fragment = None;
        }
        let payload = &packet.payload[..];
        if payload.is_empty() {
            return Ok(()); // a keep-alive
        }
        let (bits, rest) = payload.split_first_chunk::<2>().ok_or(malformed("no AU headers"))?;
        let bits = usize::from(u16::from_be_bytes(*bits));
        let (headers, data) = rest
            .split_at_checked(bits.div_ceil(8))
            .ok_or(malformed("AU headers past the end"))?;
        let mut sizes = Sizes::new(headers, bits, self);
        let first = sizes.next().ok_or(malformed("no AU header"))?;
        if let Some(fragment) = self.fragment.take() {
            return self.go_on(fragment, first, packet, data, out);
        }
        if first > data.len() {
            // The first fragment: only one header, and less than what it says.
            if sizes.next().is_some() || data.is_empty() || first > UNIT_LEN_MAX {
                return Err(malformed("AU sizes past the end"));
            }
            if !packet.marker {
                self.fragment = Some(Fragment {
                    timestamp: packet.timestamp,
                    size: first,
                    data: BytesMut::from(data),
                });
            }
            return Ok(());
        }
        self.whole_units(headers, bits, data, packet.timestamp, out)
    }

    fn whole_units(
        &mut self,
        headers: &[u8],
        bits: usize,
        mut data: &[u8],
        mut timestamp: u32,
        out: &mut Output,
    ) -> Result<(), DepacketizeError> {
        for size in Sizes::new(headers, bits, self) {
            let (unit, rest) = data.split_at_checked(size).ok_or(malformed("AU sizes past the end"))?;
            data = rest;
            if !unit.is_empty() {
                self.deliver(timestamp, Bytes::copy_from_slice(unit), out)?;
            }
            timestamp = timestamp.wrapping_add(self.unit_ticks);
        }
        Ok(())
    }

    fn go_on(
        &mut self,
        mut fragment: Fragment,
        size: usize,
        packet: &Packet,
        data: &[u8],
        out: &mut Output,
    ) -> Result<(), DepacketizeError> {
        if fragment.timestamp != packet.timestamp || fragment.size != size {
            return Err(malformed("a fragment that does not continue the one before"));
        }
        if fragment.data.len() + data.len() > fragment.size {
            return Err(malformed("fragments longer than their AU"));
        }
        fragment.data.extend_from_slice(data);
        if fragment.data.len() == fragment.size {
            return self.deliver(fragment.timestamp, fragment.data.freeze(), out);
        }
        if packet.marker {
            return Err(malformed("fragments shorter than their AU"));
        }
        self.fragment = Some(fragment);
        Ok(())
    }

    fn deliver(&mut self, timestamp: u32, data: Bytes, out: &mut Output) -> Result<(), DepacketizeError> {
        let unit = AccessUnit {
            timestamp,
            key: true,
            data,
            lost: std::mem::take(&mut self.lost),
            damaged: false,
            parameters: None,
        };
        out.add(unit, Some(&self.parameters))
    }
}

/// The AU sizes of a header section (RFC 3640 section 3.2.1).
struct Sizes<'a> {
    reader: BitReader<'a>,
    left: usize,
    size_bits: u32,
    index_bits: u32,
    delta_bits: u32,
}

impl<'a> Sizes<'a> {
    fn new(headers: &'a [u8], bits: usize, format: &Aac) -> Self {
        Self {
            reader: BitReader::new(headers),
            left: bits,
            size_bits: format.size_bits,
            index_bits: format.index_bits,
            delta_bits: format.delta_bits,
        }
    }
}

impl Iterator for Sizes<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub((self.size_bits + self.index_bits) as usize)?;
        let size = self.reader.bits(self.size_bits)?;
        self.reader.bits(self.index_bits)?;
        self.index_bits = self.delta_bits;
        Some(size as usize)
    }
}
