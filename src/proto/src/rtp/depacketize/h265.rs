//! H.265 (RFC 7798): single NAL units, aggregation packets and fragmentation units, and the parameters from VPS, SPS and PPS.

use std::sync::Arc;

use bytes::Bytes;
use corenvr_media::CodecParameters;
use smallvec::SmallVec;

use super::{
    DepacketizeError, Output, Packet, Unsupported,
    nal_units::{NalCodec, NalKind, NalUnits, SliceKey},
    sprop_sets, unsupported,
};
use crate::{
    bitstream::{
        h265::{self, HEADER_LEN, kind, nal_kind},
        nal::{split_annex_b, trim_zeros},
    },
    format::MediaFormat,
};

const FORMAT: &str = "H.265";
/// Packet types above the NAL unit types (RFC 7798 section 4.4).
const AGGREGATION: u8 = 48;
const FRAGMENT: u8 = 49;
const PACI: u8 = 50;

/// Bytes of all parameter sets kept together. Sets that do not fit are not kept.
const PARAMETER_SETS_BYTES_MAX: usize = 64 << 10;

const fn malformed(what: &'static str) -> DepacketizeError {
    DepacketizeError::Malformed { format: FORMAT, what }
}

#[derive(Debug)]
pub(super) struct H265 {
    units: NalUnits,
    sets: ParameterSets,
    /// Decoding order numbers are in the packets (`sprop-max-don-diff` > 0).
    order_numbers: bool,
}

impl H265 {
    pub(super) fn new(format: &MediaFormat) -> Result<Self, Unsupported> {
        let number = |key| {
            format
                .parameter(key)
                .and_then(|v| v.trim().parse::<u32>().ok())
                .unwrap_or(0)
        };
        if number("sprop-depack-buf-nalus") > 0 {
            return Err(unsupported(
                format,
                "NAL units out of decoding order (sprop-depack-buf-nalus)",
            ));
        }
        let mut sets = ParameterSets::default();
        for key in ["sprop-vps", "sprop-sps", "sprop-pps"] {
            for nal in format.parameter(key).into_iter().flat_map(sprop_sets) {
                for nal in split_annex_b(&nal) {
                    sets.apply(nal);
                }
            }
        }
        sets.parameters();
        Ok(Self {
            units: NalUnits::new(),
            sets,
            order_numbers: number("sprop-max-don-diff") > 0,
        })
    }

    pub(super) fn parameters(&self) -> Option<&Arc<CodecParameters>> {
        self.sets.current.as_ref()
    }

    pub(super) fn learn(&mut self, set: &[u8]) {
        self.sets.apply(set);
        self.sets.parameters();
    }

    pub(super) fn flush(&mut self, out: &mut Output) {
        // A unit that does not fit the queue is dropped here as everywhere; the end of a stream has nobody to tell.
        let _ = self.units.flush(&mut self.sets, out);
    }

    pub(super) fn push(&mut self, packet: &Packet, lost: u32, out: &mut Output) -> Result<(), DepacketizeError> {
        let begun = self.units.begin_packet(&mut self.sets, packet.timestamp, lost, out);
        let parsed = self.payload(&packet.payload, lost, out);
        if parsed.is_err() && !self.units.is_given_up() {
            self.units.damage();
        }
        let ended = self.units.end_packet(&mut self.sets, packet.marker, out);
        begun.and(parsed).and(ended)
    }

    fn payload(&mut self, payload: &Bytes, lost: u32, out: &mut Output) -> Result<(), DepacketizeError> {
        let Some(&header) = payload.first() else {
            return Ok(()); // a keep-alive
        };
        let (units, sets) = (&mut self.units, &mut self.sets);
        if payload.starts_with(&[0, 0, 1]) || payload.starts_with(&[0, 0, 0, 1]) {
            return units.add_nal(sets, payload, out);
        }
        match nal_kind(header) {
            AGGREGATION => self.aggregate(payload, out),
            FRAGMENT => self.fragment(payload, lost, out),
            PACI => Err(DepacketizeError::Unsupported {
                format: FORMAT,
                what: "PACI packets",
            }),
            51.. => Err(malformed("a reserved packet type")),
            _ => {
                let (header, rest) = payload
                    .split_first_chunk::<HEADER_LEN>()
                    .ok_or(malformed("a NAL unit of one byte"))?;
                if !self.order_numbers {
                    return units.add_nal(sets, payload, out);
                }
                let rest = rest.get(2..).ok_or(malformed("no DONL"))?;
                units.start_nal(sets, header, out)?;
                units.append(rest)?;
                units.end_nal(sets, out)
            }
        }
    }

    fn aggregate(&mut self, payload: &[u8], out: &mut Output) -> Result<(), DepacketizeError> {
        let mut rest = payload.get(HEADER_LEN..).unwrap_or(&[]);
        let mut number_len = if self.order_numbers { 2 } else { 0 };
        while let Some((length, tail)) = rest.get(number_len..).and_then(|r| r.split_first_chunk::<2>()) {
            let len = usize::from(u16::from_be_bytes(*length));
            if len == 0 && tail.iter().all(|&b| b == 0) {
                return Ok(()); // zeros as padding
            }
            let (nal, tail) = tail
                .split_at_checked(len)
                .ok_or(malformed("aggregation packet with a length past its end"))?;
            if nal.len() < HEADER_LEN {
                return Err(malformed("a NAL unit of one byte"));
            }
            self.units.add_nal(&mut self.sets, nal, out)?;
            rest = tail;
            // DONL before the first, DOND before each further one.
            number_len = number_len.min(1);
        }
        Ok(())
    }

    fn fragment(&mut self, payload: &[u8], lost: u32, out: &mut Output) -> Result<(), DepacketizeError> {
        let &[h0, h1, header] = payload.first_chunk::<3>().ok_or(malformed("FU without header"))?;
        let (start, end) = (header & 0x80 != 0, header & 0x40 != 0);
        let mut body = &payload[3..];
        let (units, sets) = (&mut self.units, &mut self.sets);
        if start {
            if self.order_numbers {
                body = body.get(2..).ok_or(malformed("no DONL"))?;
            }
            units.start_nal(sets, &[(h0 & 0x81) | ((header & 0x3F) << 1), h1], out)?;
        } else if !units.is_open() {
            // After a loss the rest of a NAL unit is to be expected; anything else is the sender's fault, told once a unit.
            let expected = lost > 0 || units.is_damaged();
            units.damage();
            return if expected {
                Ok(())
            } else {
                Err(malformed("FU that nothing started"))
            };
        }
        units.append(body)?;
        if end { units.end_nal(sets, out) } else { Ok(()) }
    }
}

/// The parameter sets seen so far, and the parameters made of them.
#[derive(Debug, Default)]
pub(crate) struct ParameterSets {
    /// Kind, id, bytes; sorted.
    sets: SmallVec<[(u8, u8, Bytes); 3]>,
    /// The SPS that came last.
    active: u8,
    changed: bool,
    current: Option<Arc<CodecParameters>>,
}

impl ParameterSets {
    fn list(&self, kind: u8) -> SmallVec<[&[u8]; 1]> {
        let of_kind = self.sets.iter().filter(|(k, ..)| *k == kind);
        let mut list: SmallVec<[(u8, &[u8]); 1]> = of_kind.map(|(_, id, set)| (*id, &set[..])).collect();
        if kind == kind::SPS {
            // The set in use first: the record takes size and profile from it.
            list.sort_by_key(|(id, _)| (*id != self.active, *id));
        }
        list.into_iter().map(|(_, set)| set).collect()
    }
}

impl NalCodec for ParameterSets {
    fn inspect(&mut self, nal: &[u8]) -> NalKind {
        match nal_kind(nal[0]) {
            _ if nal.len() < HEADER_LEN => NalKind::Invalid,
            48.. => NalKind::Invalid,
            kind @ 0..=kind::VCL_LAST => NalKind::Slice {
                // Of an enhancement layer (nuh_layer_id > 0) no slice begins an access unit.
                first: nal.get(HEADER_LEN).is_some_and(|b| b & 0x80 != 0) && nal[0] & 1 == 0 && nal[1] >> 3 == 0,
                key: if (kind::IRAP_FIRST..=kind::IRAP_LAST).contains(&kind) {
                    SliceKey::Yes
                } else {
                    SliceKey::No
                },
            },
            kind::VPS | kind::SPS | kind::PPS => NalKind::ParameterSet,
            kind::DELIMITER => NalKind::Delimiter,
            kind::SEI_PREFIX | 41..=44 => NalKind::Prefix { recovery: false },
            _ => NalKind::Other,
        }
    }

    fn apply(&mut self, nal: &[u8]) {
        // Zeros behind a set are no part of it: with and without them it is the same set.
        let nal = trim_zeros(nal);
        let Some(id) = h265::parameter_set_id(nal) else { return };
        let kind = nal_kind(nal[0]);
        if kind == kind::SPS {
            self.changed |= self.active != id;
            self.active = id;
        }
        let known = self.sets.binary_search_by_key(&(kind, id), |(k, i, _)| (*k, *i));
        if known.is_ok_and(|at| self.sets[at].2 == nal) {
            return;
        }
        let kept: usize = self.sets.iter().map(|(.., set)| set.len()).sum();
        if kept + nal.len() > PARAMETER_SETS_BYTES_MAX {
            return;
        }
        let set = (kind, id, Bytes::copy_from_slice(nal));
        match known {
            Ok(at) => self.sets[at] = set,
            Err(at) => self.sets.insert(at, set),
        }
        self.changed = true;
    }

    fn parameters(&mut self) -> Option<&Arc<CodecParameters>> {
        if std::mem::take(&mut self.changed) {
            let made = h265::parameters(&self.list(kind::VPS), &self.list(kind::SPS), &self.list(kind::PPS));
            let made = made.map(CodecParameters::Video);
            if made.is_some() && self.current.as_deref() != made.as_ref() {
                self.current = made.map(Arc::new);
            }
        }
        self.current.as_ref()
    }
}
