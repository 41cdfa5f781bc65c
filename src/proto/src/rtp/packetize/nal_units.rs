//! H.264 (RFC 6184, packetization-mode 1) and H.265 (RFC 7798): single NAL unit packets, and fragments of longer ones.

use super::{PacketizeError, UnitPackets};
use crate::bitstream::{h264, h265, nal::split_lengths};

/// Packet types of fragments (RFC 6184 section 5.2, RFC 7798 section 4.4).
const FU_A: u8 = 28;
const FRAGMENT: u8 = 49;

/// How a codec's NAL units become packets.
pub(super) trait NalFormat {
    const NAME: &'static str;
    /// Bytes of the NAL unit header.
    const HEADER_LEN: usize;
    /// Whether RTP can carry a NAL unit with this first byte: its type must not be one of the packet types.
    fn carriable(first: u8) -> bool;
    /// Writes the fragment's payload header for a NAL unit, and gives its length.
    fn fragment_header(nal: &[u8], start: bool, end: bool, out: &mut [u8; 3]) -> usize;
}

pub(super) struct H264;
pub(super) struct H265;

const fn start_end(start: bool, end: bool) -> u8 {
    ((start as u8) << 7) | ((end as u8) << 6)
}

impl NalFormat for H264 {
    const NAME: &'static str = "H264";
    const HEADER_LEN: usize = 1;

    fn carriable(first: u8) -> bool {
        matches!(h264::nal_kind(first), 1..=23)
    }

    fn fragment_header(nal: &[u8], start: bool, end: bool, out: &mut [u8; 3]) -> usize {
        out[0] = (nal[0] & 0xE0) | FU_A;
        out[1] = start_end(start, end) | h264::nal_kind(nal[0]);
        2
    }
}

impl NalFormat for H265 {
    const NAME: &'static str = "H265";
    const HEADER_LEN: usize = 2;

    fn carriable(first: u8) -> bool {
        h265::nal_kind(first) < 48
    }

    fn fragment_header(nal: &[u8], start: bool, end: bool, out: &mut [u8; 3]) -> usize {
        out[0] = (nal[0] & 0x81) | (FRAGMENT << 1);
        out[1] = nal[1];
        out[2] = start_end(start, end) | h265::nal_kind(nal[0]);
        3
    }
}

pub(super) fn packetize<C: NalFormat, F: FnMut(&[u8], &[u8])>(
    _: &C,
    data: &[u8],
    unit: &mut UnitPackets<'_, F>,
) -> Result<(), PacketizeError> {
    let malformed = |what| PacketizeError::Malformed { codec: C::NAME, what };
    // All of it is checked before anything is sent.
    for nal in split_lengths(data) {
        let nal = nal.map_err(|_| malformed("a NAL unit length that does not fit"))?;
        if nal.len() < C::HEADER_LEN || !C::carriable(nal[0]) {
            return Err(malformed("something that is not a NAL unit"));
        }
    }
    let mut nals = split_lengths(data).flatten().peekable();
    while let Some(nal) = nals.next() {
        let last = nals.peek().is_none();
        if nal.len() <= unit.room() {
            unit.send(last, &[], nal);
        } else {
            fragment::<C, F>(nal, last, unit);
        }
    }
    Ok(())
}

fn fragment<C: NalFormat, F: FnMut(&[u8], &[u8])>(nal: &[u8], last: bool, unit: &mut UnitPackets<'_, F>) {
    let mut body = &nal[C::HEADER_LEN..];
    let mut start = true;
    let mut header = [0; 3];
    while !body.is_empty() {
        let header_len = C::HEADER_LEN + 1;
        let (chunk, rest) = body.split_at(body.len().min(unit.room() - header_len));
        // A NAL unit just too long for one packet could fit one fragment, which must not be both start and end.
        let (chunk, rest) = if start && rest.is_empty() {
            body.split_at(body.len() / 2)
        } else {
            (chunk, rest)
        };
        let end = rest.is_empty();
        let written = C::fragment_header(nal, start, end, &mut header);
        unit.send(last && end, &header[..written], chunk);
        (body, start) = (rest, false);
    }
}
