//! H.264 (RFC 6184): single NAL units, STAP-A and FU-A, and the parameters from SPS and PPS.

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
        h264::{self, SliceStart, Sps, kind, nal_kind},
        nal::{split_annex_b, trim_zeros},
    },
    format::MediaFormat,
};

const FORMAT: &str = "H.264";
/// Packet types above the NAL unit types (RFC 6184 table 1).
const STAP_A: u8 = 24;
const STAP_B: u8 = 25;
const MTAP_16: u8 = 26;
const MTAP_24: u8 = 27;
const FU_A: u8 = 28;
const FU_B: u8 = 29;

/// Bytes of all parameter sets kept together. Sets that do not fit are not kept.
const PARAMETER_SETS_BYTES_MAX: usize = 64 << 10;

const fn malformed(what: &'static str) -> DepacketizeError {
    DepacketizeError::Malformed { format: FORMAT, what }
}

#[derive(Debug)]
pub(super) struct H264 {
    units: NalUnits,
    sets: ParameterSets,
}

impl H264 {
    pub(super) fn new(format: &MediaFormat) -> Result<Self, Unsupported> {
        if format.parameter("packetization-mode").map(str::trim) == Some("2") {
            return Err(unsupported(format, "interleaved packets (packetization-mode=2)"));
        }
        let mut sets = ParameterSets::default();
        for nal in format
            .parameter("sprop-parameter-sets")
            .into_iter()
            .flat_map(sprop_sets)
        {
            // Some cameras leave start codes in.
            for nal in split_annex_b(&nal) {
                sets.apply(nal);
            }
        }
        sets.parameters();
        Ok(Self {
            units: NalUnits::new(),
            sets,
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
        match nal_kind(header) {
            1..=23 => units.add_nal(sets, payload, out),
            0 if payload.starts_with(&[0, 0, 1]) || payload.starts_with(&[0, 0, 0, 1]) => {
                units.add_nal(sets, payload, out)
            }
            STAP_A => self.aggregate(&payload[1..], out),
            FU_A => self.fragment(payload, lost, out),
            kind @ (STAP_B | MTAP_16 | MTAP_24 | FU_B) => Err(DepacketizeError::Unsupported {
                format: FORMAT,
                what: match kind {
                    STAP_B => "interleaving (STAP-B)",
                    FU_B => "interleaving (FU-B)",
                    _ => "interleaving (MTAP)",
                },
            }),
            _ => Err(malformed("a reserved packet type")),
        }
    }

    fn aggregate(&mut self, mut rest: &[u8], out: &mut Output) -> Result<(), DepacketizeError> {
        while let Some((length, tail)) = rest.split_first_chunk::<2>() {
            let len = usize::from(u16::from_be_bytes(*length));
            if len == 0 && tail.iter().all(|&b| b == 0) {
                return Ok(()); // zeros as padding
            }
            let (nal, tail) = tail
                .split_at_checked(len)
                .ok_or(malformed("STAP-A with a length past its end"))?;
            self.units.add_nal(&mut self.sets, nal, out)?;
            rest = tail;
        }
        Ok(())
    }

    fn fragment(&mut self, payload: &[u8], lost: u32, out: &mut Output) -> Result<(), DepacketizeError> {
        let &[indicator, header] = payload.first_chunk::<2>().ok_or(malformed("FU-A without header"))?;
        let (start, end) = (header & 0x80 != 0, header & 0x40 != 0);
        let (units, sets) = (&mut self.units, &mut self.sets);
        if start {
            units.start_nal(sets, &[(indicator & 0xE0) | nal_kind(header)], out)?;
        } else if !units.is_open() {
            // After a loss the rest of a NAL unit is to be expected; anything else is the sender's fault, told once a unit.
            let expected = lost > 0 || units.is_damaged();
            units.damage();
            return if expected {
                Ok(())
            } else {
                Err(malformed("FU-A that nothing started"))
            };
        }
        // A type that differs from the first fragment's is a camera's slip: the first one counts.
        units.append(&payload[2..])?;
        if end { units.end_nal(sets, out) } else { Ok(()) }
    }
}

/// The parameter sets seen so far, and the parameters made of them.
#[derive(Debug, Default)]
pub(crate) struct ParameterSets {
    sps: SmallVec<[(u8, Bytes); 1]>,
    /// Id, the SPS's id, bytes.
    pps: SmallVec<[(u8, u8, Bytes); 1]>,
    /// PPS of an SPS that has been replaced: used until new ones come.
    stale_pps: SmallVec<[(u8, u8, Bytes); 1]>,
    /// The SPS that came last.
    active: Option<Sps>,
    changed: bool,
    current: Option<Arc<CodecParameters>>,
    /// The field that the picture in progress began with: `frame_num`, bottom.
    field: Option<(u32, bool)>,
}

impl ParameterSets {
    fn room_for(&self, nal: &[u8]) -> bool {
        let sps: usize = self.sps.iter().map(|(_, set)| set.len()).sum();
        let pps: usize = self.pps.iter().map(|(.., set)| set.len()).sum();
        sps + pps + nal.len() <= PARAMETER_SETS_BYTES_MAX
    }

    fn apply_sps(&mut self, nal: &[u8]) {
        let Some(sps) = Sps::parse(nal) else { return };
        let known = self.sps.iter().position(|(id, _)| *id == sps.id);
        if known.is_some_and(|at| self.sps[at].1 == nal) {
            self.active = Some(sps);
            return;
        }
        if !self.room_for(nal) {
            return;
        }
        self.active = Some(sps);
        let set = (sps.id, Bytes::copy_from_slice(nal));
        match known {
            Some(at) => self.sps[at] = set,
            None => self.sps.push(set),
        }
        let (stale, kept) = self.pps.drain(..).partition(|(_, of, _)| *of == sps.id);
        (self.stale_pps, self.pps) = (stale, kept);
        self.changed = true;
    }

    fn apply_pps(&mut self, nal: &[u8]) {
        let Some((id, of)) = h264::pps_ids(nal) else { return };
        let known = self.pps.iter().position(|(known, ..)| *known == id);
        if known.is_some_and(|at| self.pps[at].2 == nal) || !self.room_for(nal) {
            return;
        }
        let set = (id, of, Bytes::copy_from_slice(nal));
        match known {
            Some(at) => self.pps[at] = set,
            None => self.pps.push(set),
        }
        self.changed = true;
    }
}

impl NalCodec for ParameterSets {
    fn inspect(&mut self, nal: &[u8]) -> NalKind {
        match nal_kind(nal[0]) {
            kind @ (kind::SLICE | kind::PARTITION_A | kind::IDR) => {
                let Some(start) = SliceStart::parse(nal, self.active.as_ref()) else {
                    return NalKind::Other;
                };
                let second_field = match (self.field, start.field) {
                    (Some((frame, bottom)), Some((f, b))) => frame == f && bottom != b,
                    _ => false,
                };
                let first = start.first_mb == 0 && !second_field;
                if start.first_mb == 0 {
                    self.field = if second_field { None } else { start.field };
                }
                NalKind::Slice {
                    first,
                    key: match kind {
                        kind::IDR => SliceKey::Yes,
                        _ if start.intra => SliceKey::WithRecovery,
                        _ => SliceKey::No,
                    },
                }
            }
            kind::PARTITION_A..=kind::PARTITION_C => NalKind::Slice {
                first: false,
                key: SliceKey::No,
            },
            kind::SPS | kind::PPS => NalKind::ParameterSet,
            kind::DELIMITER => NalKind::Delimiter,
            kind::SEI => NalKind::Prefix {
                recovery: h264::is_recovery_point(nal),
            },
            14..=18 => NalKind::Prefix { recovery: false },
            0 | 24.. => NalKind::Invalid,
            _ => NalKind::Other,
        }
    }

    fn apply(&mut self, nal: &[u8]) {
        // Zeros behind a set are no part of it: with and without them it is the same set.
        let nal = trim_zeros(nal);
        match nal.first().map(|&header| nal_kind(header)) {
            Some(kind::SPS) => self.apply_sps(nal),
            Some(kind::PPS) => self.apply_pps(nal),
            _ => {}
        }
    }

    fn parameters(&mut self) -> Option<&Arc<CodecParameters>> {
        if std::mem::take(&mut self.changed) {
            for stale in std::mem::take(&mut self.stale_pps) {
                if !self.pps.iter().any(|(_, of, _)| *of == stale.1) {
                    self.pps.push(stale);
                }
            }
            // The set in use first: the record takes size and profile from it.
            let active = self.active.map(|sps| sps.id);
            self.sps.sort_by_key(|(id, _)| (Some(*id) != active, *id));
            self.pps.sort_by_key(|(id, ..)| *id);
            let sps: SmallVec<[&[u8]; 1]> = self.sps.iter().map(|(_, set)| &set[..]).collect();
            let pps: SmallVec<[&[u8]; 1]> = self.pps.iter().map(|(.., set)| &set[..]).collect();
            let made = h264::parameters(&sps, &pps).map(CodecParameters::Video);
            if made.is_some() && self.current.as_deref() != made.as_ref() {
                self.current = made.map(Arc::new);
            }
        }
        self.current.as_ref()
    }
}
