//! AV1 (RTP Payload Format For AV1, version 1.0): OBU elements and their fragments into temporal units.
//!
//! A temporal unit with a packet missing is delivered with the OBUs that are whole.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use corenvr_media::CodecParameters;

use super::{AccessUnit, DepacketizeError, Output, Packet, UNIT_BYTES_MAX, UNIT_PARTS_MAX};
use crate::bitstream::av1::{self, Obu, kind, read_leb128};

const FORMAT: &str = "AV1";
/// The aggregation header's bits (section 4.4).
const CONTINUES: u8 = 0x80;
const CONTINUED: u8 = 0x40;

const fn malformed(what: &'static str) -> DepacketizeError {
    DepacketizeError::Malformed { format: FORMAT, what }
}

#[derive(Debug, Default)]
pub(super) struct Av1 {
    parameters: Option<Arc<CodecParameters>>,
    /// The sequence header that the parameters were made of.
    sequence_header: Vec<u8>,
    timestamp: Option<u32>,
    unit: BytesMut,
    parts: usize,
    key: bool,
    has_frame: bool,
    damaged: bool,
    /// The unit passed a limit: the rest of it is thrown away.
    overflow: bool,
    /// The start of an OBU that goes on in the next packet.
    fragment: Option<BytesMut>,
    lost: u32,
}

impl Av1 {
    pub(super) fn parameters(&self) -> Option<&Arc<CodecParameters>> {
        self.parameters.as_ref()
    }

    pub(super) fn learn(&mut self, set: &[u8]) {
        if let Some((obu, _)) = Obu::split(set).filter(|(obu, _)| obu.kind() == kind::SEQUENCE_HEADER) {
            self.take_header(&obu);
        }
    }

    pub(super) fn flush(&mut self, out: &mut Output) {
        // A unit that does not fit the queue is dropped here as everywhere; the end of a stream has nobody to tell.
        let _ = self.finish(out);
        self.timestamp = None;
    }

    pub(super) fn push(&mut self, packet: &Packet, lost: u32, out: &mut Output) -> Result<(), DepacketizeError> {
        let same = self.timestamp == Some(packet.timestamp);
        if lost > 0 {
            self.drop_fragment();
            self.damaged |= self.parts > 0;
        }
        // Without its marker a unit ends at the next time stamp. After a loss both sides of the hole are in doubt.
        let mut result = Ok(());
        let inside = self.timestamp.is_some();
        if inside && lost > 0 {
            self.lost = self.lost.saturating_add(lost);
        }
        if !same {
            result = self.finish(out);
            self.timestamp = Some(packet.timestamp);
        }
        if lost > 0 {
            if !inside {
                self.lost = self.lost.saturating_add(lost);
            }
            self.damaged = true;
        }
        let parsed = self.payload(&packet.payload);
        if parsed.is_err() {
            self.drop_fragment();
            self.damaged = true;
        }
        let ended = if packet.marker {
            let ended = self.finish(out);
            self.timestamp = None;
            ended
        } else {
            Ok(())
        };
        result.and(parsed).and(ended)
    }

    fn drop_fragment(&mut self) {
        if self.fragment.take().is_some() {
            self.damaged = true;
        }
    }

    fn payload(&mut self, payload: &[u8]) -> Result<(), DepacketizeError> {
        let Some((&head, mut rest)) = payload.split_first() else {
            return Ok(()); // a keep-alive
        };
        if self.overflow {
            return Ok(());
        }
        let count = head >> 4 & 3;
        let mut continues = head & CONTINUES != 0;
        if !continues {
            self.drop_fragment();
        }
        let mut index = 0;
        while !rest.is_empty() {
            index += 1;
            let element = if count != 0 && index == count {
                std::mem::take(&mut rest)
            } else {
                let len = read_leb128(&mut rest).ok_or(malformed("an element length that does not end"))?;
                let (element, tail) = rest
                    .split_at_checked(len)
                    .ok_or(malformed("an element past the end of its packet"))?;
                rest = tail;
                element
            };
            let continued = rest.is_empty() && head & CONTINUED != 0;
            self.element(element, std::mem::take(&mut continues), continued)?;
            index = index.min(3);
        }
        Ok(())
    }

    fn element(&mut self, element: &[u8], continues: bool, continued: bool) -> Result<(), DepacketizeError> {
        if !continues && !continued {
            return self.obu(element);
        }
        let mut whole = if continues {
            match self.fragment.take() {
                Some(fragment) => fragment,
                None if self.damaged => return Ok(()), // its start was lost
                None => return Err(malformed("the rest of an OBU that nothing started")),
            }
        } else {
            BytesMut::new()
        };
        if self.unit.len() + whole.len() + element.len() > UNIT_BYTES_MAX {
            return self.give_up();
        }
        whole.extend_from_slice(element);
        if continued {
            self.fragment = Some(whole);
            return Ok(());
        }
        self.obu(&whole)
    }

    /// Adds a whole OBU, with a size field.
    fn obu(&mut self, bytes: &[u8]) -> Result<(), DepacketizeError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (obu, rest) = Obu::split(bytes).ok_or(malformed("an OBU that is cut off"))?;
        if !rest.is_empty() {
            return Err(malformed("an element with more than one OBU"));
        }
        match obu.kind() {
            // Senders should leave these out (section 5); receivers ignore them.
            kind::TEMPORAL_DELIMITER | kind::TILE_LIST | kind::PADDING => return Ok(()),
            kind::SEQUENCE_HEADER => self.take_header(&obu),
            kind::FRAME | kind::FRAME_HEADER => {
                self.key |= !self.has_frame && obu.is_key_frame();
                self.has_frame = true;
            }
            _ => {}
        }
        if self.parts >= UNIT_PARTS_MAX || self.unit.len() + obu.payload.len() + 16 > UNIT_BYTES_MAX {
            return self.give_up();
        }
        self.parts += 1;
        obu.write_head_with_size(&mut self.unit);
        self.unit.put_slice(obu.payload);
        Ok(())
    }

    fn take_header(&mut self, obu: &Obu<'_>) {
        if self.sequence_header == obu.payload {
            return;
        }
        if let Some(parameters) = av1::parameters(obu) {
            self.sequence_header = obu.payload.to_vec();
            self.parameters = Some(Arc::new(CodecParameters::Video(parameters)));
        }
    }

    fn give_up(&mut self) -> Result<(), DepacketizeError> {
        self.unit = BytesMut::new();
        self.fragment = None;
        self.parts = 0;
        self.overflow = true;
        Err(DepacketizeError::TooLarge)
    }

    fn finish(&mut self, out: &mut Output) -> Result<(), DepacketizeError> {
        self.drop_fragment();
        self.overflow = false;
        self.parts = 0;
        let has_frame = std::mem::take(&mut self.has_frame);
        let (key, damaged) = (std::mem::take(&mut self.key), std::mem::take(&mut self.damaged));
        let data = self.unit.split().freeze();
        // Without a frame nothing can be shown: not a unit.
        if data.is_empty() || !has_frame {
            return Ok(());
        }
        let unit = AccessUnit {
            timestamp: self.timestamp.unwrap_or(0),
            key,
            data,
            lost: std::mem::take(&mut self.lost),
            damaged,
            parameters: None,
        };
        out.add(unit, self.parameters.as_ref())
    }
}
