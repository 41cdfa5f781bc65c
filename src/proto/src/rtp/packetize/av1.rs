//! AV1 (RTP Payload Format For AV1, version 1.0): one OBU or part of one in each packet.

use super::{PacketizeError, UnitPackets};
use crate::bitstream::av1::{Obu, kind};

const MALFORMED: PacketizeError = PacketizeError::Malformed {
    codec: "AV1",
    what: "an OBU that is cut off",
};
/// The aggregation header's bits (section 4.4).
const CONTINUES: u8 = 0x80;
const CONTINUED: u8 = 0x40;
const ONE_ELEMENT: u8 = 0x10;
const NEW_SEQUENCE: u8 = 0x08;

/// The OBUs that are sent: all but those that section 5 takes out.
fn obus(mut data: &[u8]) -> impl Iterator<Item = Result<Obu<'_>, PacketizeError>> {
    std::iter::from_fn(move || {
        while !data.is_empty() {
            let Some((obu, rest)) = Obu::split(data) else {
                data = &[];
                return Some(Err(MALFORMED));
            };
            data = rest;
            if !matches!(obu.kind(), kind::TEMPORAL_DELIMITER | kind::TILE_LIST | kind::PADDING) {
                return Some(Ok(obu));
            }
        }
        None
    })
}

pub(super) fn packetize<F: FnMut(&[u8], &[u8])>(
    data: &[u8],
    unit: &mut UnitPackets<'_, F>,
) -> Result<(), PacketizeError> {
    // All of it is checked before anything is sent.
    let (mut has_header, mut key) = (false, None);
    for obu in obus(data) {
        let obu = obu?;
        match obu.kind() {
            kind::SEQUENCE_HEADER => has_header = true,
            kind::FRAME | kind::FRAME_HEADER => {
                key.get_or_insert(obu.is_key_frame());
            }
            _ => {}
        }
    }
    let mut new_sequence = if has_header && key == Some(true) {
        NEW_SEQUENCE
    } else {
        0
    };
    let mut left = obus(data).flatten().peekable();
    while let Some(obu) = left.next() {
        let last = left.peek().is_none();
        // Aggregation header, and the OBU's own in the first fragment.
        let mut head = [0u8; 3];
        let mut head_len = 1 + obu.head_len();
        obu.write_head(&mut &mut head[1..]);
        let mut rest = obu.payload;
        let mut continues = 0;
        loop {
            let (chunk, tail) = rest.split_at(rest.len().min(unit.room() - head_len));
            let continued = if tail.is_empty() { 0 } else { CONTINUED };
            head[0] = continues | continued | ONE_ELEMENT | new_sequence;
            unit.send(last && tail.is_empty(), &head[..head_len], chunk);
            new_sequence = 0;
            if tail.is_empty() {
                break;
            }
            (rest, continues, head_len) = (tail, CONTINUES, 1);
        }
    }
    Ok(())
}
