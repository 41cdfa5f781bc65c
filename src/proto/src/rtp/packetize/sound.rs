//! AAC (RFC 3640, AAC-hbr), Opus (RFC 7587), and samples (G.711, L16, G.726; RFC 3551).

use super::{PacketizeError, UnitPackets};

/// The largest AAC access unit in bytes: its size has 13 bits.
const AAC_LEN_MAX: usize = 0x1FFF;
/// Length of the AU headers, and one AU header.
const AAC_HEADER_LEN: usize = 4;

pub(super) fn aac<F: FnMut(&[u8], &[u8])>(data: &[u8], unit: &mut UnitPackets<'_, F>) -> Result<(), PacketizeError> {
    if data.is_empty() || data.len() > AAC_LEN_MAX {
        return Err(PacketizeError::NotCarriable {
            codec: "AAC",
            what: "its length is 0 or over 8191 bytes",
        });
    }
    // Each fragment repeats the header, with the size of the whole (section 3.2.3.2).
    let [s0, s1] = ((data.len() as u16) << 3).to_be_bytes();
    let mut rest = data;
    while !rest.is_empty() {
        let (chunk, tail) = rest.split_at(rest.len().min(unit.room() - AAC_HEADER_LEN));
        unit.send(tail.is_empty(), &[0, 16, s0, s1], chunk);
        rest = tail;
    }
    Ok(())
}

pub(super) fn opus<F: FnMut(&[u8], &[u8])>(data: &[u8], unit: &mut UnitPackets<'_, F>) -> Result<(), PacketizeError> {
    if data.is_empty() || data.len() > unit.room() {
        return Err(PacketizeError::NotCarriable {
            codec: "OPUS",
            what: "it is empty or longer than a packet, and cannot be cut",
        });
    }
    unit.send(false, &[], data);
    Ok(())
}

/// Cuts between blocks; later packets have later time stamps.
pub(super) fn samples<F: FnMut(&[u8], &[u8])>(
    codec: &'static str,
    data: &[u8],
    block_bytes: usize,
    block_ticks: u32,
    unit: &mut UnitPackets<'_, F>,
) -> Result<(), PacketizeError> {
    if data.is_empty() {
        return Err(PacketizeError::Malformed {
            codec,
            what: "it is empty",
        });
    }
    let mut rest = data;
    while !rest.is_empty() {
        let blocks = (unit.room() / block_bytes).max(1);
        let (chunk, tail) = rest.split_at(rest.len().min(blocks * block_bytes));
        unit.send(false, &[], chunk);
        unit.timestamp = unit
            .timestamp
            .wrapping_add((chunk.len() / block_bytes) as u32 * block_ticks);
        rest = tail;
    }
    Ok(())
}
