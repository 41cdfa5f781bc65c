//! LEB128 integers of the packed tables and index rows (not Matroska's own variable-length integers: see `ebml`).

/// Appends `v`.
pub fn put(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Appends `v` in zigzag form.
pub fn put_signed(out: &mut Vec<u8>, v: i64) {
    put(out, ((v << 1) ^ (v >> 63)) as u64);
}

/// Takes one integer off the front; `None` at the end of the input or past 64 bits.
pub fn take(b: &mut &[u8]) -> Option<u64> {
    let mut v = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = b.split_first()?;
        *b = rest;
        let bits = u64::from(byte & 0x7F);
        if shift == 63 && bits > 1 {
            return None;
        }
        v |= bits << shift;
        if byte < 0x80 {
            return Some(v);
        }
    }
    None
}

/// Takes one zigzag integer off the front.
pub fn take_signed(b: &mut &[u8]) -> Option<i64> {
    take(b).map(|v| (v >> 1) as i64 ^ -((v & 1) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_at_the_edges() {
        for v in [0, 1, 127, 128, 16_383, 16_384, u64::MAX / 2, u64::MAX] {
            let mut b = Vec::new();
            put(&mut b, v);
            put_signed(&mut b, v as i64);
            let mut s = &b[..];
            assert_eq!(take(&mut s), Some(v));
            assert_eq!(take_signed(&mut s), Some(v as i64));
            assert!(s.is_empty());
        }
        assert_eq!(take(&mut &[0xFF; 11][..]), None);
        assert_eq!(take(&mut &[0x80][..]), None);
    }
}
