//! Motion JPEG (RFC 2435): the scan of a baseline file, with its tables in the first packet.

use super::{PacketizeError, UnitPackets};
use crate::bitstream::jpeg::{JpegError, JpegHeaders};

/// The fragment offset has 24 bits.
const SCAN_LEN_MAX: usize = 0xFF_FFFF;
/// Q for tables that are in the packets and may change (section 3.1.4).
const Q_DYNAMIC: u8 = 255;

pub(super) fn packetize<F: FnMut(&[u8], &[u8])>(
    file: &[u8],
    unit: &mut UnitPackets<'_, F>,
) -> Result<(), PacketizeError> {
    let (headers, scan) = JpegHeaders::parse(file).map_err(|e| match e {
        JpegError::Malformed(what) => PacketizeError::Malformed { codec: "JPEG", what },
        JpegError::NotCarriable(what) => PacketizeError::NotCarriable { codec: "JPEG", what },
    })?;
    let mut rest = &file[scan];
    if rest.is_empty() || rest.len() > SCAN_LEN_MAX {
        return Err(PacketizeError::NotCarriable {
            codec: "JPEG",
            what: "its scan is empty or over 16 MiB",
        });
    }
    let mut head = [0; 8 + 4 + 4 + 128];
    let restart_len = if headers.restart_interval > 0 { 4 } else { 0 };
    head[4] = u8::from(headers.half_height_chroma) + if restart_len > 0 { 64 } else { 0 };
    head[5] = Q_DYNAMIC;
    head[6] = (headers.width / 8) as u8;
    head[7] = (headers.height / 8) as u8;
    // First and last flag set, count of all ones: the receiver takes only whole pictures (section 3.1.7).
    let [r0, r1] = headers.restart_interval.to_be_bytes();
    head[8..12].copy_from_slice(&[r0, r1, 0xFF, 0xFF]);
    let tables_at = 8 + restart_len;
    head[tables_at..tables_at + 4].copy_from_slice(&[0, 0, 0, 128]);
    head[tables_at + 4..tables_at + 68].copy_from_slice(&headers.tables[0]);
    head[tables_at + 68..tables_at + 132].copy_from_slice(&headers.tables[1]);
    let mut head_len = tables_at + 132;
    let mut offset = 0u32;
    while !rest.is_empty() {
        let (chunk, tail) = rest.split_at(rest.len().min(unit.room() - head_len));
        head[1..4].copy_from_slice(&offset.to_be_bytes()[1..]);
        unit.send(tail.is_empty(), &head[..head_len], chunk);
        offset += chunk.len() as u32;
        (rest, head_len) = (tail, tables_at);
    }
    Ok(())
}
