//! Sequence numbers and time stamps that wrap, made into ones that do not.

/// A sequence number with the count of its wraps above it (RFC 3550 section 6.4.1 counts the same way).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedSequence(pub i64);

/// A time stamp in clock ticks with the count of its wraps above it. Only differences mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedTimestamp(pub i64);

impl ExtendedTimestamp {
    /// Ticks from `earlier` to `self`; negative if `earlier` is later.
    pub const fn ticks_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Extends sequence numbers: each is taken as the one nearest to the one before, so that it may lie up to 32 767 back.
#[derive(Debug, Clone, Copy, Default)]
pub struct SequenceUnwrapper(Option<i64>);

/// Extends time stamps: each is taken as the one nearest to the one before, so that it may lie up to 2^31 - 1 ticks back.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimestampUnwrapper(Option<i64>);

impl SequenceUnwrapper {
    /// Extends the next sequence number. The first one extends to itself.
    pub fn unwrap(&mut self, sequence: u16) -> ExtendedSequence {
        let last = self.0.unwrap_or(i64::from(sequence));
        let step = sequence.wrapping_sub(last as u16) as i16;
        let extended = last.saturating_add(i64::from(step));
        self.0 = Some(extended);
        ExtendedSequence(extended)
    }
}

impl TimestampUnwrapper {
    /// Extends the next time stamp. The first one extends to itself.
    pub fn unwrap(&mut self, timestamp: u32) -> ExtendedTimestamp {
        let last = self.0.unwrap_or(i64::from(timestamp));
        let step = timestamp.wrapping_sub(last as u32) as i32;
        let extended = last.saturating_add(i64::from(step));
        self.0 = Some(extended);
        ExtendedTimestamp(extended)
    }

    /// Extends a time stamp beside the stream (a sender report's) without moving the reference.
    pub fn peek(&self, timestamp: u32) -> ExtendedTimestamp {
        let mut copy = *self;
        copy.unwrap(timestamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_forward_and_backward() {
        let mut sequence = SequenceUnwrapper::default();
        let got: Vec<_> = [65_534, 65_535, 0, 1, 65_535, 32_766]
            .map(|s| sequence.unwrap(s).0)
            .into();
        assert_eq!(got, [65_534, 65_535, 65_536, 65_537, 65_535, 98_302]);
        let mut time = TimestampUnwrapper::default();
        assert_eq!(time.unwrap(u32::MAX).0, i64::from(u32::MAX));
        assert_eq!(time.unwrap(10).0, i64::from(u32::MAX) + 11);
        assert_eq!(time.peek(u32::MAX).0, i64::from(u32::MAX));
        assert_eq!(
            time.unwrap(11).ticks_since(ExtendedTimestamp(0)),
            i64::from(u32::MAX) + 12
        );
    }
}
