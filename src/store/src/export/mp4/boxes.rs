//! Boxes into memory (ISO/IEC 14496-12 section 4.2): big endian, a length in front that is known at the end.

use std::ops::Range;

/// Boxes one after the other, each within the one that is being written.
#[derive(Default)]
pub struct Boxes(Vec<u8>);

impl Boxes {
    /// A box with what `body` writes. None of ours comes near 4 GiB: the frames of a file are limited.
    pub fn boxed(&mut self, kind: [u8; 4], body: impl FnOnce(&mut Self)) {
        let at = self.0.len();
        self.u32(0);
        self.bytes(&kind);
        body(self);
        let len = (self.0.len() - at) as u32;
        self.0[at..at + 4].copy_from_slice(&len.to_be_bytes());
    }

    /// A box with version and flags.
    pub fn full(&mut self, kind: [u8; 4], version: u8, flags: u32, body: impl FnOnce(&mut Self)) {
        self.boxed(kind, |b| {
            b.u32(u32::from(version) << 24 | flags);
            body(b);
        });
    }

    /// A descriptor of ISO/IEC 14496-1 section 7.2.2, with a length of one to four bytes.
    pub fn descriptor(&mut self, tag: u8, body: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        body(&mut inner);
        self.u8(tag);
        let len = inner.0.len();
        for shift in (1..4).rev().filter(|s| len >> (7 * s) > 0) {
            self.u8((len >> (7 * shift)) as u8 | 0x80);
        }
        self.u8((len & 0x7F) as u8);
        self.bytes(&inner.0);
    }

    pub fn bytes(&mut self, b: &[u8]) {
        self.0.extend_from_slice(b);
    }

    pub fn zeros(&mut self, n: usize) {
        self.0.resize(self.0.len() + n, 0);
    }

    pub fn u8(&mut self, v: u8) {
        self.0.push(v);
    }

    pub fn u16(&mut self, v: u16) {
        self.bytes(&v.to_be_bytes());
    }

    pub fn u32(&mut self, v: u32) {
        self.bytes(&v.to_be_bytes());
    }

    pub fn u64(&mut self, v: u64) {
        self.bytes(&v.to_be_bytes());
    }

    pub fn i64(&mut self, v: i64) {
        self.bytes(&v.to_be_bytes());
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds `n` to each of the 64-bit numbers that lie in `range`.
    pub fn add_to_u64s(&mut self, range: Range<usize>, n: u64) {
        for eight in self.0[range].chunks_exact_mut(8) {
            let v = eight.iter().fold(0u64, |v, &b| v << 8 | u64::from(b));
            eight.copy_from_slice(&(v + n).to_be_bytes());
        }
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_what_is_inside() {
        let mut b = Boxes::default();
        b.boxed(*b"moov", |b| b.full(*b"test", 1, 7, |b| b.u16(0x1234)));
        assert_eq!(b.into_bytes(), b"\0\0\0\x16moov\0\0\0\x0Etest\x01\0\0\x07\x12\x34");
        for (len, head) in [
            (5usize, &[4u8, 5][..]),
            (127, &[4, 127]),
            (128, &[4, 0x81, 0]),
            (20_000, &[4, 0x81, 0x9C, 0x20]),
        ] {
            let mut b = Boxes::default();
            b.descriptor(4, |b| b.zeros(len));
            assert!(b.into_bytes().starts_with(head), "{len}");
        }
    }
}
