//! Reading of bit fields and Exp-Golomb codes.

/// Reads bits from the most significant one on. Every reader gives `None` past the end.
#[derive(Debug, Clone)]
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    /// Bits read so far.
    position: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, position: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn bit(&mut self) -> Option<bool> {
        let byte = *self.data.get(self.position / 8)?;
        let bit = byte >> (7 - self.position % 8) & 1;
        self.position += 1;
        Some(bit != 0)
    }

    /// Up to 32 bits.
    pub(crate) fn bits(&mut self, count: u32) -> Option<u32> {
        debug_assert!(count <= 32);
        let mut value = 0u64;
        let mut left = count;
        while left > 0 {
            let byte = *self.data.get(self.position / 8)?;
            let free = 8 - (self.position % 8) as u32;
            let take = free.min(left);
            let chunk = u32::from(byte) >> (free - take) & ((1 << take) - 1);
            value = (value << take) | u64::from(chunk);
            self.position += take as usize;
            left -= take;
        }
        Some(value as u32)
    }

    pub(crate) fn skip(&mut self, count: usize) -> Option<()> {
        let end = self.position.checked_add(count)?;
        (end <= self.data.len() * 8).then(|| self.position = end)
    }

    /// ue(v), up to 32 bits (H.264 section 9.1).
    pub(crate) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some(((1u64 << zeros) - 1 + u64::from(self.bits(zeros)?)) as u32)
    }

    /// se(v) (H.264 section 9.1.1).
    pub(crate) fn se(&mut self) -> Option<i64> {
        let k = i64::from(self.ue()?);
        Some(if k % 2 == 0 { -(k / 2) } else { (k + 1) / 2 })
    }

    /// `count` bytes from the next bit on, which must be on a byte boundary.
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        debug_assert_eq!(self.position % 8, 0);
        let start = self.position / 8;
        let bytes = self.data.get(start..start.checked_add(count)?)?;
        self.position += count * 8;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_across_bytes_and_stops_at_the_end() {
        let mut r = BitReader::new(&[0b1010_0110, 0b0100_0010, 0xFF]);
        assert_eq!(
            (r.bit(), r.ue(), r.ue(), r.ue()),
            (Some(true), Some(1), Some(2), Some(3))
        );
        let mut r = BitReader::new(&[1, 2, 3, 4, 5]);
        assert_eq!(r.bits(32), Some(0x0102_0304));
        assert_eq!(r.bytes(1), Some(&[5][..]));
        assert_eq!((r.bit(), r.bits(1), r.skip(1), r.ue()), (None, None, None, None));
        assert_eq!(r.bits(0), Some(0));
    }

    #[test]
    fn signed_codes_alternate() {
        // 1, 010, 011, 00100, 00101
        let mut r = BitReader::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        assert_eq!(
            [r.se(), r.se(), r.se(), r.se(), r.se()],
            [Some(0), Some(1), Some(-1), Some(2), Some(-2)]
        );
        assert_eq!(BitReader::new(&[0; 8]).ue(), None);
    }
}
