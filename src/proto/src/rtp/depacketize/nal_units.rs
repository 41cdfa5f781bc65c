//! Access units out of NAL units: where one ends and the next begins, and what a loss does to it. H.264 and H.265 share this.
//!
//! A unit ends where the time stamp changes, or where a slice is the first of a picture although the unit has a picture already
//! (two pictures with one time stamp). The marker bit should say the same one packet earlier, but cameras set it on SEI and on
//! each slice; so it is believed only after a stream has used it well for [`MARKER_TRUST_UNITS`] units, and never again after it lied.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use corenvr_media::CodecParameters;
use smallvec::SmallVec;

use super::{AccessUnit, DepacketizeError, Output, UNIT_BYTES_MAX, UNIT_PARTS_MAX};
use crate::bitstream::nal::{LENGTH_LEN, find_start_code, split_annex_b};

/// Units, a key unit among them, whose marker was on their last packet and on no other, until the marker alone ends a unit.
const MARKER_TRUST_UNITS: u32 = 16;
/// NAL units without a picture (parameter sets under a time stamp of their own) are kept for the next picture up to this many
/// bytes; more are dropped.
const CARRY_BYTES_MAX: usize = 64 << 10;
/// A fresh buffer's size in bytes: units share it until it is full.
const BUFFER_LEN: usize = 64 << 10;
/// Least room at the start of a unit; with less, a fresh buffer is taken instead of moving a unit that has begun.
const ROOM_MIN: usize = 8 << 10;

/// What a NAL unit means for the bounds of access units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NalKind {
    /// A slice of a picture.
    Slice {
        /// The picture's first slice.
        first: bool,
        key: SliceKey,
    },
    /// A parameter set; begins the next unit if it follows a slice.
    ParameterSet,
    /// An access unit delimiter: the first NAL unit of its unit.
    Delimiter,
    /// SEI and others that begin the next unit if they follow a slice.
    Prefix {
        /// A recovery point without delay.
        recovery: bool,
    },
    /// Anything else; belongs to the unit it stands in.
    Other,
    /// Of a type that is no NAL unit but a kind of packet, or without a whole header: not kept.
    Invalid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SliceKey {
    /// Decoding can start here.
    Yes,
    /// It can if the unit has a recovery point.
    WithRecovery,
    No,
}

/// What the two codecs know of their NAL units.
pub(crate) trait NalCodec {
    /// Classifies a NAL unit (never empty) in the order of the stream.
    fn inspect(&mut self, nal: &[u8]) -> NalKind;
    /// Takes a parameter set into the parameters.
    fn apply(&mut self, nal: &[u8]);
    /// The parameters, if complete.
    fn parameters(&mut self) -> Option<&Arc<CodecParameters>>;
}

/// The unit in progress.
#[derive(Debug)]
pub(crate) struct NalUnits {
    /// What of the unit is there, each NAL unit behind its length.
    buffer: BytesMut,
    timestamp: Option<u32>,
    unit: Unit,
    open: Option<OpenNal>,
    /// The unit passed a limit: the rest of it is thrown away.
    overflow: bool,
    /// Packets lost and not yet told with a unit.
    lost: u32,
    marker: MarkerTrust,
}

/// A NAL unit in progress.
#[derive(Debug, Clone, Copy)]
struct OpenNal {
    /// Where its length is.
    at: usize,
    /// The packet with its latest part had the marker.
    marked: bool,
}

#[derive(Debug, Default)]
struct Unit {
    parts: usize,
    has_slice: bool,
    key: bool,
    recovery: bool,
    damaged: bool,
    /// Packets were lost just before this unit, and nothing shows that its start is there.
    start_in_doubt: bool,
    /// A container says that a picture begins here: with the picture's first slice the doubt ends.
    start_marked: bool,
    /// The marker was on a packet behind which the unit could end.
    marked: bool,
    next: Option<NextUnit>,
}

/// NAL units behind the slices of a unit, which belong to the next one if a new picture follows.
#[derive(Debug)]
struct NextUnit {
    at: usize,
    parts: usize,
    recovery: bool,
    /// Parameter sets among them, offset and length: not yet applied.
    sets: SmallVec<[(usize, usize); 4]>,
}

/// How far the marker bit ends a unit.
#[derive(Debug, Default)]
struct MarkerTrust {
    good_units: u32,
    key_seen: bool,
    lied: bool,
    /// The unit of the present time stamp was ended by its marker.
    ended_unit: bool,
}

impl MarkerTrust {
    fn trusted(&self) -> bool {
        !self.lied && self.key_seen && self.good_units >= MARKER_TRUST_UNITS
    }
}

impl NalUnits {
    pub(crate) fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            timestamp: None,
            unit: Unit::default(),
            open: None,
            overflow: false,
            lost: 0,
            marker: MarkerTrust::default(),
        }
    }

    /// Starts a packet: tells units apart by time stamp, and puts a loss where it belongs.
    pub(crate) fn begin_packet<C: NalCodec>(
        &mut self,
        codec: &mut C,
        timestamp: u32,
        lost: u32,
        out: &mut Output,
    ) -> Result<(), DepacketizeError> {
        let same = self.timestamp == Some(timestamp);
        if same && lost == 0 {
            return Ok(());
        }
        let in_progress = self.unit.parts > 0 || self.open.is_some();
        // A unit that had its marker is complete: what was lost is behind it.
        let inside = lost > 0 && in_progress && (same || !self.unit.marked);
        if lost > 0 {
            self.drop_open();
        }
        if inside {
            self.unit.damaged = true;
            self.lost = self.lost.saturating_add(lost);
        }
        let mut result = Ok(());
        if !same {
            result = self.finish(codec, out);
            self.timestamp = Some(timestamp);
            self.overflow = false;
            self.marker.ended_unit = false;
        }
        if lost > 0 && !inside {
            self.lost = self.lost.saturating_add(lost);
        }
        // The one packet missing behind a unit without its marker is the one that had it.
        let was_the_marker = inside && !same && lost == 1 && self.marker.trusted();
        if lost > 0 && !(same && in_progress) && !was_the_marker {
            self.unit.start_in_doubt = true;
        }
        result
    }

    /// Ends a packet. The marker bit may end the unit.
    pub(crate) fn end_packet<C: NalCodec>(
        &mut self,
        codec: &mut C,
        marker: bool,
        out: &mut Output,
    ) -> Result<(), DepacketizeError> {
        if let Some(open) = &mut self.open {
            open.marked = marker;
        }
        if !marker || !self.unit.has_slice || self.unit.next.is_some() {
            return Ok(());
        }
        self.unit.marked = true;
        if self.marker.trusted() && self.open.is_none() && !self.overflow {
            self.marker.ended_unit = true;
            return self.emit(codec, self.buffer.len(), out);
        }
        Ok(())
    }

    /// Starts a NAL unit with these bytes. One still in progress is dropped, unless its last packet had the marker: then only
    /// the end bit of its last fragment is missing.
    pub(crate) fn start_nal<C: NalCodec>(
        &mut self,
        codec: &mut C,
        header: &[u8],
        out: &mut Output,
    ) -> Result<(), DepacketizeError> {
        self.close_open(codec, out)?;
        if self.overflow {
            return Ok(());
        }
        if self.buffer.is_empty() && self.buffer.capacity() < ROOM_MIN {
            self.buffer = BytesMut::with_capacity(BUFFER_LEN);
        }
        self.open = Some(OpenNal {
            at: self.buffer.len(),
            marked: false,
        });
        self.buffer.put_bytes(0, LENGTH_LEN);
        self.append(header)
    }

    /// Adds to the NAL unit in progress; nothing happens if there is none.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), DepacketizeError> {
        if self.open.is_none() {
            return Ok(());
        }
        if self.buffer.len() + bytes.len() > UNIT_BYTES_MAX {
            return self.give_up();
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Adds zeros to the NAL unit in progress; nothing happens if there is none.
    pub(crate) fn append_zeros(&mut self, count: usize) -> Result<(), DepacketizeError> {
        if self.open.is_none() {
            return Ok(());
        }
        if count > UNIT_BYTES_MAX - self.buffer.len().min(UNIT_BYTES_MAX) {
            return self.give_up();
        }
        self.buffer.put_bytes(0, count);
        Ok(())
    }

    /// Ends the NAL unit in progress; nothing happens if there is none. Start codes inside part it into several.
    pub(crate) fn end_nal<C: NalCodec>(&mut self, codec: &mut C, out: &mut Output) -> Result<(), DepacketizeError> {
        if let Some(OpenNal { at, .. }) = self.open
            && find_start_code(&self.buffer[at + LENGTH_LEN..]).is_some()
        {
            self.open = None;
            let stream = self.buffer.split_off(at);
            return self.add_annex_b(codec, &stream[LENGTH_LEN..], out);
        }
        self.end_single_nal(codec, out)
    }

    /// As [`Self::end_nal`], for one that is known to hold no start code.
    pub(crate) fn end_single_nal<C: NalCodec>(
        &mut self,
        codec: &mut C,
        out: &mut Output,
    ) -> Result<(), DepacketizeError> {
        let Some(OpenNal { at, .. }) = self.open.take() else {
            return Ok(());
        };
        let start = at + LENGTH_LEN;
        let len = self.buffer.len() - start;
        if len == 0 {
            self.buffer.truncate(at);
            return Ok(());
        }
        self.buffer[at..start].copy_from_slice(&(len as u32).to_be_bytes());
        self.place(codec, at, out)
    }

    /// Adds a NAL unit that is whole. Start codes inside part it into several.
    pub(crate) fn add_nal<C: NalCodec>(
        &mut self,
        codec: &mut C,
        nal: &[u8],
        out: &mut Output,
    ) -> Result<(), DepacketizeError> {
        self.start_nal(codec, nal, out)?;
        self.end_nal(codec, out)
    }

    fn add_annex_b<C: NalCodec>(
        &mut self,
        codec: &mut C,
        stream: &[u8],
        out: &mut Output,
    ) -> Result<(), DepacketizeError> {
        for nal in split_annex_b(stream) {
            if self.overflow {
                break;
            }
            if self.buffer.len() + LENGTH_LEN + nal.len() > UNIT_BYTES_MAX {
                return self.give_up();
            }
            let at = self.buffer.len();
            self.buffer.put_u32(nal.len() as u32);
            self.buffer.put_slice(nal);
            self.place(codec, at, out)?;
        }
        Ok(())
    }

    /// The NAL unit in progress, as far as it came.
    pub(crate) fn open_nal(&self) -> Option<&[u8]> {
        self.open.map(|open| &self.buffer[open.at + LENGTH_LEN..])
    }

    /// Takes the NAL unit in progress out of the unit, which misses nothing by that.
    pub(crate) fn discard_nal(&mut self) {
        if let Some(open) = self.open.take() {
            self.buffer.truncate(open.at);
        }
    }

    /// The container says that the unit in progress starts at what comes next: nothing of it is missing if that has the first slice.
    pub(crate) fn mark_start(&mut self) {
        self.unit.start_marked = true;
    }

    /// Something may be missing at the start of the unit in progress, though no packet is.
    pub(crate) fn doubt_start(&mut self) {
        self.unit.start_in_doubt = true;
    }

    /// Whether a NAL unit is in progress.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether something of the unit is missing already.
    pub(crate) fn is_damaged(&self) -> bool {
        self.unit.damaged || self.unit.start_in_doubt || self.overflow
    }

    /// Whether the unit passed a limit, so that what still comes of it is no error.
    pub(crate) fn is_given_up(&self) -> bool {
        self.overflow
    }

    /// A packet was not understood: its part of the unit is missing, and so is the NAL unit in progress.
    pub(crate) fn damage(&mut self) {
        self.drop_open();
        self.unit.damaged = true;
    }

    /// Ends the unit in progress, whatever it has.
    pub(crate) fn flush<C: NalCodec>(&mut self, codec: &mut C, out: &mut Output) -> Result<(), DepacketizeError> {
        let result = self.finish(codec, out);
        self.buffer.clear();
        self.unit = Unit::default();
        self.timestamp = None;
        self.overflow = false;
        self.marker.ended_unit = false;
        result
    }

    fn drop_open(&mut self) {
        if let Some(open) = self.open.take() {
            self.buffer.truncate(open.at);
            self.unit.damaged = true;
        }
    }

    fn close_open<C: NalCodec>(&mut self, codec: &mut C, out: &mut Output) -> Result<(), DepacketizeError> {
        match self.open {
            Some(open) if open.marked => self.end_nal(codec, out),
            _ => {
                self.drop_open();
                Ok(())
            }
        }
    }

    fn give_up(&mut self) -> Result<(), DepacketizeError> {
        self.buffer = BytesMut::new();
        self.open = None;
        self.unit = Unit::default();
        self.overflow = true;
        Err(DepacketizeError::TooLarge)
    }

    /// Finds the place of the last NAL unit of the buffer, whose length is at `at`.
    fn place<C: NalCodec>(&mut self, codec: &mut C, at: usize, out: &mut Output) -> Result<(), DepacketizeError> {
        if self.unit.parts >= UNIT_PARTS_MAX {
            return self.give_up();
        }
        let nal = &self.buffer[at + LENGTH_LEN..];
        let kind = codec.inspect(nal);
        let mut result = Ok(());
        match kind {
            NalKind::Invalid => {
                self.buffer.truncate(at);
                self.unit.damaged = true;
                return Ok(());
            }
            NalKind::Slice { first, key } => {
                result = self.place_slice(codec, first, at, out);
                let unit = &mut self.unit;
                if first && unit.start_marked && !unit.has_slice {
                    unit.start_in_doubt = false;
                }
                unit.has_slice = true;
                unit.key |= key == SliceKey::Yes || (key == SliceKey::WithRecovery && unit.recovery);
            }
            NalKind::ParameterSet if !self.unit.has_slice => codec.apply(nal),
            NalKind::Prefix { recovery } if !self.unit.has_slice => self.unit.recovery |= recovery,
            NalKind::Delimiter if self.unit.parts == 0 => self.unit.start_in_doubt = false,
            NalKind::ParameterSet | NalKind::Prefix { .. } | NalKind::Delimiter if self.unit.has_slice => {
                let len = nal.len();
                let next = self.unit.next.get_or_insert_with(|| NextUnit {
                    at,
                    parts: 0,
                    recovery: false,
                    sets: SmallVec::new(),
                });
                match kind {
                    NalKind::ParameterSet => next.sets.push((at + LENGTH_LEN, len)),
                    NalKind::Prefix { recovery } => next.recovery |= recovery,
                    _ => {}
                }
            }
            _ => {}
        }
        self.unit.parts += 1;
        if let Some(next) = &mut self.unit.next {
            next.parts += 1;
        }
        result
    }

    /// A slice came whose length is at `at`: it ends the unit before, or continues it.
    fn place_slice<C: NalCodec>(
        &mut self,
        codec: &mut C,
        first: bool,
        at: usize,
        out: &mut Output,
    ) -> Result<(), DepacketizeError> {
        if first && self.unit.has_slice {
            let end = self.unit.next.as_ref().map_or(at, |next| next.at);
            return self.emit(codec, end, out);
        }
        if self.unit.has_slice && self.unit.marked {
            self.marker.lied = true;
        }
        if !first && !self.unit.has_slice && self.marker.ended_unit {
            // The rest of a picture whose first slices were delivered.
            self.marker.lied = true;
            self.unit.damaged = true;
        }
        // Parameter sets between two slices of one picture belong to it after all.
        if let Some(next) = self.unit.next.take() {
            self.apply_sets(codec, &next.sets, 0);
        }
        Ok(())
    }

    fn apply_sets<C: NalCodec>(&self, codec: &mut C, sets: &[(usize, usize)], moved: usize) {
        for &(at, len) in sets {
            codec.apply(&self.buffer[at - moved..][..len]);
        }
    }

    /// Ends the unit in progress at a change of the time stamp or at the end of the stream.
    fn finish<C: NalCodec>(&mut self, codec: &mut C, out: &mut Output) -> Result<(), DepacketizeError> {
        let closed = self.close_open(codec, out);
        if self.unit.has_slice {
            if self.unit.marked {
                self.marker.good_units = self.marker.good_units.saturating_add(1);
                self.marker.key_seen |= self.unit.key;
            } else {
                self.marker.good_units = 0;
            }
            let end = self.unit.next.as_ref().map_or(self.buffer.len(), |next| next.at);
            return closed.and(self.emit(codec, end, out));
        }
        // Without a slice it is the head of the next unit; of a damaged one the picture itself is missing.
        if self.unit.damaged || self.buffer.len() > CARRY_BYTES_MAX {
            self.buffer.clear();
            self.unit = Unit::default();
        }
        closed
    }

    /// Delivers the first `end` bytes of the buffer as a unit. What is behind them begins the next.
    fn emit<C: NalCodec>(&mut self, codec: &mut C, end: usize, out: &mut Output) -> Result<(), DepacketizeError> {
        let unit = std::mem::take(&mut self.unit);
        let delivered = AccessUnit {
            timestamp: self.timestamp.unwrap_or(0),
            key: unit.key,
            data: self.buffer.split_to(end).freeze(),
            lost: std::mem::take(&mut self.lost),
            damaged: unit.damaged || unit.start_in_doubt,
            parameters: None,
        };
        let result = out.add(delivered, codec.parameters());
        if let Some(next) = unit.next {
            self.apply_sets(codec, &next.sets, end);
            self.unit.parts = next.parts;
            self.unit.recovery = next.recovery;
        }
        result
    }
}
