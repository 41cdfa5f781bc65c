//! Where footage lies on the time axis of a session: pieces of UTC and their places in normal play time.

use corenvr_media::WallTime;

/// Normal play time: microseconds from the beginning of a session's timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Npt(pub i64);

impl Npt {
    /// The beginning.
    pub const ZERO: Self = Self(0);

    /// Moved by microseconds.
    pub const fn offset(self, us: i64) -> Self {
        Self(self.0.saturating_add(us))
    }

    /// `self - earlier`, in microseconds.
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What becomes of time without footage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gaps {
    /// Normal play time goes on without it.
    #[default]
    Skip,
    /// Normal play time is linear: a gap lasts as long as it did.
    Keep,
}

/// Segments whose ends and starts are at most this far apart join without a gap: a lost frame or two, sound that reaches over the seam.
pub const SEAM_MICROS_MAX: i64 = 1_000_000;

/// Most pieces of one timeline: seven days of 20 s segments. A range that holds more is cut there.
pub const PIECES_MAX: usize = 32_768;

/// One segment, or the part of it that lies in the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Its first moment in the range.
    pub start: WallTime,
    /// The moment after its last frame, or the end of the range.
    pub end: WallTime,
    /// Where `start` is in normal play time.
    pub npt: Npt,
    /// Which storage has it.
    pub storage: usize,
    /// The start of its segment, which names it.
    pub segment: WallTime,
}

impl Piece {
    /// Where a moment of this piece is in normal play time.
    pub const fn npt_of(&self, t: WallTime) -> Npt {
        self.npt.offset(t.micros_since(self.start))
    }

    /// The moment that would be at `npt` if this piece went on beyond its ends.
    pub const fn time_of(&self, npt: Npt) -> WallTime {
        self.start.offset(npt.micros_since(self.npt))
    }

    /// Where it ends in normal play time.
    pub const fn npt_end(&self) -> Npt {
        self.npt_of(self.end)
    }

    /// Whether it, and every piece in front of it, ends at or before `npt`: one may reach over the start of the next by a seam.
    pub fn is_before(&self, npt: Npt) -> bool {
        self.npt_end().max(self.npt.offset(SEAM_MICROS_MAX)) <= npt
    }
}

/// The pieces of a range, in order of play. Normal play time never runs backward over them, even where UTC does because a clock was
/// set back: the second recording of the same hour follows the first.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    gaps: Gaps,
    pieces: Vec<Piece>,
}

impl Timeline {
    /// No footage yet.
    pub const fn new(gaps: Gaps) -> Self {
        Self {
            gaps,
            pieces: Vec::new(),
        }
    }

    /// What becomes of gaps.
    pub const fn gaps(&self) -> Gaps {
        self.gaps
    }

    /// Adds the next piece, in order of segment starts. Returns false, and adds nothing, once [`PIECES_MAX`] is reached or if the piece
    /// is empty.
    pub fn push(&mut self, storage: usize, segment: WallTime, start: WallTime, end: WallTime) -> bool {
        if start >= end || self.pieces.len() >= PIECES_MAX {
            return false;
        }
        let npt = self.pieces.last().map_or(Npt::ZERO, |last| {
            let apart = start.micros_since(last.end);
            let gap = match self.gaps {
                _ if joins(last, start) => apart,
                Gaps::Keep if apart > 0 => apart,
                Gaps::Keep | Gaps::Skip => 0,
            };
            last.npt_end().offset(gap)
        });
        self.pieces.push(Piece {
            start,
            end,
            npt,
            storage,
            segment,
        });
        true
    }

    /// The last piece reaches further than when it was added: its segment is still being written.
    pub fn grow(&mut self, end: WallTime) {
        if let Some(last) = self.pieces.last_mut() {
            last.end = last.end.max(end);
        }
    }

    /// The first piece starts earlier or later, because play can only start at a key frame. Only before a second piece is added.
    pub fn snap_start(&mut self, start: WallTime) {
        if let [first] = self.pieces.as_mut_slice() {
            first.start = start.min(first.end.offset(-1));
        }
    }

    /// Forgets the only piece if another segment that starts at `next` has all of it from `asked` on that matters: sound lasts a little
    /// longer than the picture, so the end of one segment reaches over the start of the next.
    pub fn drop_tail_before(&mut self, next: WallTime, asked: WallTime) {
        if let [only] = self.pieces.as_slice()
            && next <= asked
            && only.end.micros_since(next) <= SEAM_MICROS_MAX
        {
            self.pieces.clear();
        }
    }

    /// The pieces.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether there is no footage.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The length in normal play time.
    pub fn len(&self) -> Npt {
        self.pieces.last().map_or(Npt::ZERO, Piece::npt_end)
    }

    /// First and last moment in UTC.
    pub fn span(&self) -> Option<(WallTime, WallTime)> {
        Some((self.pieces.first()?.start, self.pieces.last()?.end))
    }

    /// The piece and the moment in it at `npt`. Out of range it is clamped; in a kept gap it is the start of the piece behind it.
    pub fn at(&self, npt: Npt) -> Option<(usize, WallTime)> {
        let index = self.pieces.partition_point(|p| p.npt <= npt).saturating_sub(1);
        let piece = self.pieces.get(index)?;
        let t = piece.time_of(npt);
        if t < piece.end {
            return Some((index, t.max(piece.start)));
        }
        match self.pieces.get(index + 1) {
            Some(next) => Some((index + 1, next.start)),
            None => Some((index, piece.end.offset(-1))),
        }
    }

    /// The last piece that begins at or before `npt`, and the moment in it. Out of range it is clamped; in a kept gap it is the end of the
    /// piece before it.
    pub fn at_or_before(&self, npt: Npt) -> Option<(usize, WallTime)> {
        let index = self.pieces.partition_point(|p| p.npt <= npt).saturating_sub(1);
        let piece = self.pieces.get(index)?;
        let t = piece.time_of(npt);
        Some((index, t.min(piece.end.offset(-1)).max(piece.start)))
    }

    /// Whether its first piece is the beginning of a segment, and not a part that was cut out of one.
    pub fn begins_with_segment(&self) -> bool {
        self.pieces.first().is_some_and(|p| p.start <= p.segment)
    }

    /// Whether footage is missing somewhere between two pieces, or a clock was set back.
    pub fn gap_between(&self, a: usize, b: usize) -> bool {
        let between = self.pieces.get(a.min(b)..=a.max(b)).unwrap_or_default();
        between.windows(2).any(|pair| !joins(&pair[0], pair[1].start))
    }

    /// Where a moment of UTC is in normal play time: clamped, and in a gap the start of the footage behind it.
    pub fn npt_at(&self, t: WallTime) -> Npt {
        let piece = self.pieces.iter().find(|p| t < p.end);
        piece.map_or(self.len(), |p| p.npt_of(t.max(p.start)))
    }

    /// Where a moment of UTC is in normal play time, seen in reverse: clamped, and in a gap the last moment of the footage before it.
    pub fn npt_before(&self, t: WallTime) -> Npt {
        let piece = self.pieces.iter().rev().find(|p| p.start <= t);
        piece.map_or(Npt::ZERO, |p| p.npt_of(t.min(p.end.offset(-1))))
    }
}

/// Whether footage that starts at `start` goes on where `last` ends.
fn joins(last: &Piece, start: WallTime) -> bool {
    start.micros_since(last.end).abs() <= SEAM_MICROS_MAX && last.start < start
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(s: i64) -> WallTime {
        WallTime::from_millis(1_000_000_000 + s * 1000)
    }

    fn timeline(gaps: Gaps, list: &[(i64, i64)]) -> Timeline {
        let mut line = Timeline::new(gaps);
        for &(a, b) in list {
            assert!(line.push(0, t(a), t(a), t(b)));
        }
        line
    }

    #[test]
    fn gaps_are_skipped_or_kept() {
        let list = [(0, 10), (10, 20), (100, 110)];
        let skip = timeline(Gaps::Skip, &list);
        assert_eq!(skip.len(), Npt(30_000_000));
        assert_eq!(skip.at(Npt(20_000_000)), Some((2, t(100))));
        assert_eq!(skip.npt_at(t(50)), Npt(20_000_000));
        assert_eq!(skip.npt_before(t(50)), Npt(19_999_999));
        assert_eq!(skip.npt_before(t(-1)), Npt::ZERO);
        let keep = timeline(Gaps::Keep, &list);
        assert_eq!(keep.len(), Npt(110_000_000));
        assert_eq!(keep.at(Npt(50_000_000)), Some((2, t(100))));
        assert_eq!(keep.npt_at(t(105)), Npt(105_000_000));
    }

    #[test]
    fn a_clock_that_was_set_back_is_played_twice_and_never_backward() {
        let line = timeline(Gaps::Skip, &[(0, 100), (40, 90)]);
        assert_eq!(line.pieces()[1].npt, Npt(100_000_000));
        assert_eq!(line.len(), Npt(150_000_000));
        assert_eq!(line.at(Npt(110_000_000)), Some((1, t(50))));
    }

    #[test]
    fn positions_out_of_range_are_clamped() {
        let line = timeline(Gaps::Skip, &[(0, 10)]);
        assert_eq!(line.at(Npt(-5)), Some((0, t(0))));
        assert_eq!(line.at(Npt(i64::MAX)), Some((0, t(10).offset(-1))));
        assert_eq!(line.npt_at(t(-10)), Npt::ZERO);
        assert_eq!(line.npt_at(t(99)), Npt(10_000_000));
        assert_eq!(Timeline::default().at(Npt::ZERO), None);
    }

    #[test]
    fn sound_that_reaches_over_a_seam_keeps_time_linear() {
        let mut line = Timeline::new(Gaps::Skip);
        line.push(0, t(0), t(0), t(10).offset(30_000));
        line.push(0, t(10), t(10), t(20));
        assert_eq!(line.pieces()[1].npt, Npt(10_000_000));
        assert!(!line.push(0, t(30), t(30), t(30)));
    }
}
