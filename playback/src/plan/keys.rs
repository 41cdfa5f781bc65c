//! Video key frames only, in either direction, each read by itself: no cluster is read whole, and no segment is looked at that play
//! passes over.
//!
//! Forward the first one is the key frame at or before the start. Each further one is the nearest in the direction of play that is far
//! enough from the one given before it. Their positions only rise, or only fall, also where clocks were set back a little.

use std::sync::Arc;

use corenvr_media::{Frame, TrackId, WallTime};
use corenvr_store::{KeyFrame, SegmentMeta};

use super::{Before, Begin, Course, Direction, KeyRead, Npt, Piece, Place, Read, Spacing, Step, Timed, Timeline};

/// Key frames in one direction.
#[derive(Debug)]
pub(super) struct Keys {
    place: Place,
    direction: Direction,
    spacing: Spacing,
    until: Npt,
    start: Option<(Npt, WallTime)>,
    next: Next,
    /// Which key frame of the segment is read next.
    aim: Option<usize>,
    ready: Option<Timed>,
    done: bool,
    /// Something was left out because the range ends.
    cut: bool,
}

/// Where the next key frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Forward: at or before this moment, if there is one in its segment, otherwise the first behind it.
    Around(Npt),
    /// Here or further on in the direction of play.
    From(Npt),
}

impl Keys {
    pub fn new(
        timeline: Timeline,
        direction: Direction,
        spacing: Spacing,
        begin: Begin,
        until: Option<Npt>,
    ) -> Option<Self> {
        let next = match (begin, direction) {
            (Begin::At(npt), Direction::Forward) => Next::Around(npt),
            (Begin::At(npt), Direction::Backward) => Next::From(npt),
            (Begin::After(npt), Direction::Forward) => Next::From(npt.offset(1)),
            (Begin::After(npt), Direction::Backward) => Next::From(npt.offset(-1)),
        };
        let (Begin::At(npt) | Begin::After(npt)) = begin;
        let (piece, none) = match direction {
            Direction::Forward => (timeline.at(npt)?.0, i64::MAX),
            Direction::Backward => (timeline.at_or_before(npt)?.0, i64::MIN),
        };
        let mut place = match begin {
            Begin::At(_) => Place::new(timeline, piece, Before::Cut),
            Begin::After(_) => Place::new(timeline, piece, Before::Joined),
        };
        if matches!(begin, Begin::After(_)) {
            place.resume();
        }
        Some(Self {
            place,
            direction,
            spacing,
            until: until.unwrap_or(Npt(none)),
            start: None,
            next,
            aim: None,
            ready: None,
            done: false,
            cut: false,
        })
    }

    /// Finds the next key frame in the current segment.
    fn take_aim(&mut self) {
        self.aim = None;
        let (Some(piece), Some(meta)) = (self.place.current(), self.place.meta()) else {
            return;
        };
        let Some(index) = choose(&meta.table.keys, &piece, self.direction, self.next) else {
            return;
        };
        let time = meta.table.keys[index].time;
        let npt = piece.npt_of(time);
        if self.is_beyond(npt) {
            self.finish();
            return;
        }
        self.start.get_or_insert((npt, time));
        self.aim = Some(index);
    }

    const fn is_beyond(&self, npt: Npt) -> bool {
        match self.direction {
            Direction::Forward => npt.0 >= self.until.0,
            Direction::Backward => npt.0 < self.until.0,
        }
    }

    /// The range ends before the current piece, or inside it.
    fn finish(&mut self) {
        self.cut |= !self.place.behind_gap();
        self.done = true;
    }

    /// The next piece in the direction of play. False if there is none.
    fn enter_next(&mut self) -> bool {
        let index = self.place.index();
        match self.direction {
            Direction::Forward if self.place.is_last() => return false,
            Direction::Forward => self.place.enter(index.map(|i| i + 1)),
            Direction::Backward => self.place.enter(index.and_then(|i| i.checked_sub(1))),
        }
        true
    }

    /// Whether the next key frame cannot be in this piece, so that it need not be looked up.
    fn passes_over(&self, piece: &Piece) -> bool {
        match (self.direction, self.next) {
            (_, Next::Around(_)) => false,
            (Direction::Forward, Next::From(npt)) => piece.npt_end() <= npt,
            (Direction::Backward, Next::From(npt)) => piece.npt > npt,
        }
    }

    fn key_read(&self, index: usize) -> Option<KeyRead> {
        let meta = self.place.meta()?;
        let key = meta.table.keys.get(index)?;
        Some(KeyRead {
            path: meta.path.clone(),
            offset: key.offset,
            size: key.size,
            time: key.time,
            track: self.place.video_track().unwrap_or(TrackId(0)),
        })
    }

    /// What was aimed at is dealt with; the next one is `apart` from it at least.
    fn advance(&mut self, apart: i64) {
        let key = self.aim.zip(self.place.meta()).map(|(i, m)| m.table.keys[i].time);
        if let Some(time) = key {
            let npt = self.place.npt_of(time);
            self.next = Next::From(match self.direction {
                Direction::Forward => npt.offset(apart),
                Direction::Backward => npt.offset(-apart),
            });
        }
        self.take_aim();
    }
}

impl Course for Keys {
    fn place(&self) -> &Place {
        &self.place
    }

    fn place_mut(&mut self) -> &mut Place {
        &mut self.place
    }

    fn end(&self) -> Npt {
        match self.direction {
            Direction::Forward => self.until.min(self.place.timeline().len()),
            Direction::Backward => self.until.max(Npt::ZERO),
        }
    }

    fn start(&self) -> Option<(Npt, WallTime)> {
        self.start
    }

    fn poll(&mut self) -> Step {
        loop {
            if let Some(timed) = self.ready.take() {
                return Step::Frame(timed);
            }
            if self.done {
                return Step::End;
            }
            let Some(piece) = self.place.current() else {
                return Step::End;
            };
            if self.place.meta().is_none() {
                let beyond = match self.direction {
                    Direction::Forward => piece.npt >= self.until,
                    Direction::Backward => piece.is_before(self.until),
                };
                if beyond {
                    self.finish();
                    continue;
                }
                if !self.passes_over(&piece) || !self.enter_next() {
                    return Step::Locate(piece);
                }
                continue;
            }
            if let Some(read) = self.aim.and_then(|i| self.key_read(i)) {
                return match self.place.announce() {
                    Some(tracks) => Step::Tracks(tracks),
                    None => Step::Read(Read::Key(read)),
                };
            }
            // Not done for good forward: the timeline may grow while its last segment is written.
            if !self.enter_next() {
                return Step::End;
            }
        }
    }

    fn ahead(&self) -> Option<Read> {
        let read = self.aim.and_then(|i| self.key_read(i));
        read.filter(|_| !self.done).map(Read::Key)
    }

    fn located(&mut self, meta: Arc<SegmentMeta>) {
        self.place.locate(meta);
        self.take_aim();
        if self.aim.is_none() && self.direction == Direction::Forward && matches!(self.next, Next::Around(_)) {
            self.next = Next::From(Npt(i64::MIN));
        }
    }

    fn vanished(&mut self) {
        self.place.missed();
        if self.direction == Direction::Forward && matches!(self.next, Next::Around(_)) {
            self.next = Next::From(Npt(i64::MIN));
        }
        if !self.enter_next() {
            // The last one, forward: what the timeline grows by is behind it.
            self.place.enter(self.place.index().map(|i| i + 1));
        }
    }

    fn read(&mut self, frames: Vec<Frame>) {
        let Some(frame) = frames.into_iter().next() else {
            self.lost();
            return;
        };
        let size = self.aim.zip(self.place.meta()).map_or(0, |(i, m)| m.table.keys[i].size);
        if self.direction == Direction::Backward {
            self.place.part(Before::Cut);
        }
        self.ready = Some(self.place.timed(frame, None));
        self.advance(self.spacing.behind(size).max(1));
    }

    fn lost(&mut self) {
        self.place.part(Before::Cut);
        self.advance(1);
    }

    fn grow(&mut self, latest: &[(usize, Arc<SegmentMeta>)]) -> bool {
        if self.direction == Direction::Backward {
            return false;
        }
        let grown = self.place.grow(latest);
        if self.aim.is_none() && !self.done {
            self.take_aim();
        }
        grown
    }

    fn footage_ends(&self) -> bool {
        if self.cut {
            return false;
        }
        match self.direction {
            Direction::Forward => self.done || self.place.ends_sealed(),
            Direction::Backward => self.done || self.place.timeline().begins_with_segment(),
        }
    }
}

/// The next key frame in a piece.
fn choose(keys: &[KeyFrame], piece: &Piece, direction: Direction, next: Next) -> Option<usize> {
    let first = keys.partition_point(|k| k.time < piece.start);
    let end = keys.partition_point(|k| k.time < piece.end);
    let before = |limit: Npt| keys.partition_point(|k| piece.npt_of(k.time) < limit);
    match (direction, next) {
        (Direction::Forward, Next::Around(npt)) => Some(before(npt.offset(1)).saturating_sub(1).max(first)),
        (Direction::Forward, Next::From(npt)) => Some(before(npt).max(first)),
        (Direction::Backward, Next::Around(npt) | Next::From(npt)) => {
            before(npt.offset(1)).min(end).checked_sub(1).filter(|i| *i >= first)
        }
    }
    .filter(|i| *i < end)
}
