//! The identification header of Opus.

use bytes::{BufMut, Bytes};

/// An `OpusHead` (RFC 7845 section 5.1) for 1 or 2 channels. No pre-skip: a recording starts in the middle of a stream.
pub fn head(channels: u8) -> Bytes {
    let mut head = Vec::with_capacity(19);
    head.put_slice(b"OpusHead");
    head.put_u8(1);
    head.put_u8(channels);
    head.put_u16_le(0);
    head.put_u32_le(48_000);
    head.put_u16_le(0); // output gain
    head.put_u8(0); // mapping family
    head.into()
}
