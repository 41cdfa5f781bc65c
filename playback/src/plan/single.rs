//! One displayed frame: the one shown at a moment, or the neighbour of one.
//!
//! Frames are stored in decode order and shown in the order of their times, so the neighbour of a frame can be stored before it or a few
//! pictures behind it. What is read is one group of pictures, from its key frame on, until no picture can follow that is shown between
//! those that are there; and the pictures of the next group that are shown before its key frame.
//!
//! A picture at the start of a segment that is shown before the segment's first key frame is not counted: it cannot be decoded from its
//! segment. Where one segment reaches over the start of the next one, the next one counts.

use std::sync::Arc;

use corenvr_media::{CodecParameters, Frame, WallTime};
use corenvr_proto::bitstream::is_disposable;
use corenvr_store::SegmentMeta;

use super::{
    Before, ClusterRead, Npt, Piece, REORDER_MAX, Timed, Timeline,
    gops::key_position,
    place::{cluster_read, video_codec, video_track},
};

/// Most bytes of clusters that are read for one frame. A group of pictures that is longer up to the wanted frame is [`SingleStep::TooFar`].
pub const GOP_BYTES_MAX: u64 = 64 << 20;

/// Which frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The one displayed at this moment: the last whose time is not later. Before the first frame it is the first.
    Shown(Npt),
    /// The next one shown after this moment.
    Next(Npt),
    /// The last one shown before this moment.
    Previous(Npt),
}

/// What the driver is to do next.
#[derive(Debug, Clone)]
pub enum SingleStep {
    /// Look the segment of this piece up, and answer with [`Single::located`] or [`Single::vanished`].
    Locate(Piece),
    /// Read this cluster, and answer with [`Single::read`] or [`Single::lost`].
    Read(ClusterRead),
    /// This is it.
    Found(Found),
    /// There is no such frame: an end was reached.
    Nothing,
    /// Its group of pictures is too large to be taken into memory.
    TooFar,
}

/// A frame, and what its decoding needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// In decode order from the key frame on, without pictures that nothing depends on; the last one is the frame that was wanted.
    pub frames: Vec<Timed>,
    /// The tracks of its segment.
    pub tracks: Arc<[CodecParameters]>,
    /// When it is shown.
    pub npt: Npt,
    /// The same in UTC.
    pub wall: WallTime,
    /// Until the next frame is shown.
    pub lasts_micros: i64,
    /// The frame shown before it, if a decoder that was given that one last, with what it needs, needs only the last one of `frames` now.
    pub continues: Option<Npt>,
}

/// Looks one frame up.
#[derive(Debug)]
pub struct Single {
    timeline: Timeline,
    /// The piece that has the moment asked for.
    home: usize,
    /// Before the first frame there is nothing to show but that.
    or_first: bool,
    /// The piece looked at; `None` before the first.
    piece: Option<usize>,
    goal: Goal,
    meta: Option<Arc<SegmentMeta>>,
    run: Option<Run>,
    outcome: Option<SingleStep>,
}

/// What is looked for in the current segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// The last frame at or before this time; without one, in an earlier segment.
    Last(WallTime),
    /// The first frame after this time; without one, in a later segment.
    First(WallTime),
    /// This key frame; if it cannot be had, a later one.
    Key(usize),
}

impl Goal {
    const FIRST: Self = Self::First(WallTime::from_micros(i64::MIN));
}

/// Video in stored order from a key frame on.
#[derive(Debug)]
struct Run {
    key: usize,
    /// The next cluster.
    cluster: usize,
    /// The moment around which the order has to be certain.
    around: WallTime,
    frames: Vec<Frame>,
    /// How many of them are shown after that moment.
    later: usize,
    /// The next key frame, once it is among the frames.
    next_key: Option<WallTime>,
    bytes: u64,
    complete: bool,
}

impl Single {
    /// In this timeline.
    pub fn new(timeline: Timeline, wanted: Wanted) -> Self {
        let (Wanted::Shown(npt) | Wanted::Next(npt) | Wanted::Previous(npt)) = wanted;
        let npt = npt.clamp(Npt(-1), timeline.len());
        let home = timeline.at_or_before(npt).map(|(piece, _)| piece);
        let at = home.and_then(|h| timeline.pieces().get(h)).map(|p| p.time_of(npt));
        let at = at.unwrap_or(WallTime::MIN);
        Self {
            timeline,
            home: home.unwrap_or(0),
            or_first: matches!(wanted, Wanted::Shown(_)),
            piece: home,
            goal: match wanted {
                Wanted::Shown(_) => Goal::Last(at),
                Wanted::Next(_) => Goal::First(at),
                Wanted::Previous(_) => Goal::Last(at.offset(-1)),
            },
            meta: None,
            run: None,
            outcome: None,
        }
    }

    /// What to do next. Repeats itself until it is answered.
    pub fn poll(&mut self) -> SingleStep {
        loop {
            if let Some(outcome) = &self.outcome {
                return outcome.clone();
            }
            let Some(piece) = self.current() else {
                return SingleStep::Nothing;
            };
            let Some(meta) = &self.meta else {
                return SingleStep::Locate(piece);
            };
            let Some(run) = &self.run else {
                self.aim();
                continue;
            };
            if !run.complete
                && let Some(read) = cluster_read(meta, run.cluster)
            {
                if run.bytes + u64::from(read.len) <= GOP_BYTES_MAX {
                    return SingleStep::Read(read);
                }
                self.outcome = Some(SingleStep::TooFar);
            } else {
                self.decide();
            }
        }
    }

    /// The piece being looked at.
    pub fn current(&self) -> Option<Piece> {
        self.timeline.pieces().get(self.piece?).copied()
    }

    /// The segment asked for by [`SingleStep::Locate`].
    pub fn located(&mut self, meta: Arc<SegmentMeta>) {
        self.meta = Some(meta);
    }

    /// The segment asked for is gone.
    pub fn vanished(&mut self) {
        self.go_on();
    }

    /// The current segment was looked up once more because its file is not where it was. Returns whether that helps.
    pub fn relocated(&mut self, meta: Arc<SegmentMeta>) -> bool {
        let moved = self.meta.as_ref().is_some_and(|m| m.path != meta.path);
        if moved {
            self.meta = Some(meta);
        }
        moved
    }

    /// The frames of the cluster asked for.
    pub fn read(&mut self, frames: Vec<Frame>) {
        let (Some(run), Some(meta)) = (&mut self.run, &self.meta) else {
            return;
        };
        let Some(video) = video_track(meta) else { return };
        let mut skip = 0;
        if run.frames.is_empty() {
            match key_position(meta, run.key, run.cluster, video, &frames) {
                Some(at) => skip = at,
                None => return self.lost(),
            }
        }
        run.bytes += meta.table.clusters.get(run.cluster).map_or(0, |c| u64::from(c.len));
        run.cluster += 1;
        for frame in frames.into_iter().skip(skip).filter(|f| f.track == video) {
            run.add(frame);
            if run.complete {
                break;
            }
        }
    }

    /// The cluster asked for cannot be had. What is stored behind it cannot be decoded up to the next key frame.
    pub fn lost(&mut self) {
        let (Some(run), Some(meta)) = (&mut self.run, &self.meta) else {
            return;
        };
        if !run.frames.is_empty() {
            run.complete = true;
            return;
        }
        let key = run.key;
        self.run = None;
        match self.goal {
            Goal::Last(_) => self.goal = Goal::Last(meta.table.keys[key].time.offset(-1)),
            Goal::First(_) | Goal::Key(_) => self.goal = Goal::Key(key + 1),
        }
    }

    /// Chooses the group of pictures to read in the segment that was located.
    fn aim(&mut self) {
        let (Some(piece), Some(meta)) = (self.current(), &self.meta) else {
            return;
        };
        let keys = &meta.table.keys;
        let first = keys.partition_point(|k| k.time < piece.start);
        let end = keys.partition_point(|k| k.time < piece.end);
        let at_or_before = |t| {
            let behind = keys.partition_point(|k| k.time <= t).min(end);
            behind.checked_sub(1).filter(|i| *i >= first)
        };
        let chosen = match self.goal {
            Goal::Last(t) => at_or_before(t),
            Goal::First(t) => at_or_before(t).or_else(|| {
                self.goal = Goal::Key(first);
                Some(first)
            }),
            Goal::Key(index) => Some(index),
        };
        let Some(index) = chosen.filter(|i| *i < end) else {
            self.go_on();
            return;
        };
        self.run = Some(Run {
            key: index,
            cluster: meta
                .table
                .cluster_at(keys[index].block)
                .unwrap_or(meta.table.clusters.len()),
            around: match self.goal {
                Goal::Last(t) | Goal::First(t) => t,
                Goal::Key(index) => keys[index].time,
            },
            frames: Vec::new(),
            later: 0,
            next_key: None,
            bytes: 0,
            complete: false,
        });
    }

    /// The current piece does not have it: on to the next one in its direction.
    fn go_on(&mut self) {
        self.meta = None;
        self.run = None;
        let Some(index) = self.piece else { return };
        if !matches!(self.goal, Goal::Last(_)) {
            self.goal = Goal::FIRST;
            self.piece = Some(index + 1);
            return;
        }
        let next = self.current();
        self.piece = index.checked_sub(1);
        if let (Some(piece), Some(next)) = (self.current(), next) {
            self.goal = Goal::Last(piece.time_of(next.npt.offset(-1)));
        } else if self.or_first {
            self.goal = Goal::FIRST;
            self.piece = Some(self.home);
        }
    }

    /// The run is complete: finds the frame in it, or goes on to where it is.
    fn decide(&mut self) {
        let (Some(run), Some(piece), Some(meta)) = (&self.run, self.current(), &self.meta) else {
            return;
        };
        let keys = &meta.table.keys;
        let next_key = keys.get(run.key + 1).map(|k| k.time).filter(|t| *t < piece.end);
        let wanted = match self.goal {
            Goal::Last(_) | Goal::Key(_) => run.last_at_or_before(run.around, &piece),
            Goal::First(t) => {
                let found = run.first_after(t, &piece);
                let time = found.map(|i| run.frames[i].time);
                if next_key.is_some_and(|k| time.is_none_or(|t| k <= t)) {
                    self.goal = Goal::Key(run.key + 1);
                    self.run = None;
                    return;
                }
                found
            }
        };
        let Some(wanted) = wanted else {
            // Only a table that names a cluster which is not there comes here backward.
            if run.frames.is_empty() {
                self.lost();
            } else {
                self.go_on();
            }
            return;
        };
        let next_piece = self.piece.and_then(|i| self.timeline.pieces().get(i + 1));
        let is_hidden = |next: &Piece| piece.npt_of(run.frames[wanted].time) >= next.npt;
        if !matches!(self.goal, Goal::Last(_)) && next_piece.is_some_and(is_hidden) {
            self.go_on();
            return;
        }
        let found = self.found(run, wanted, &piece, meta, next_key);
        self.outcome = Some(SingleStep::Found(found));
    }

    fn found(&self, run: &Run, wanted: usize, piece: &Piece, meta: &SegmentMeta, next_key: Option<WallTime>) -> Found {
        let frames = &run.frames;
        let (key, frame) = (frames[0].time, &frames[wanted]);
        let codec = video_codec(&meta.tracks);
        let is_needed = |f: &Frame| f.time >= key && !codec.is_some_and(|c| is_disposable(c, &f.data));
        let needed = frames[..wanted].iter().enumerate();
        let needed = needed.filter(|(i, f)| *i == 0 || is_needed(f)).map(|(_, f)| f);
        let list = needed.chain([frame]).enumerate().map(|(i, f)| Timed {
            frame: f.clone(),
            npt: piece.npt_of(f.time),
            pace: piece.npt_of(f.time),
            before: if i == 0 { Before::Cut } else { Before::Joined },
        });
        let shown_before = run.last_at_or_before(frame.time.offset(-1), piece);
        let continues = shown_before.filter(|before| {
            let between = frames.get(before + 1..wanted);
            between.is_some_and(|between| !between.iter().any(is_needed))
        });
        let npt = piece.npt_of(frame.time);
        let next = [run.first_after(frame.time, piece).map(|i| frames[i].time), next_key];
        let next = next.into_iter().flatten().filter(|t| *t > frame.time).min();
        let end = self.end_of_piece(piece);
        let until = next.map_or(end, |t| piece.npt_of(t).min(end));
        Found {
            frames: list.collect(),
            tracks: meta.tracks.clone(),
            npt,
            wall: frame.time,
            lasts_micros: until.micros_since(npt).max(1),
            continues: continues.map(|i| piece.npt_of(frames[i].time)),
        }
    }

    /// Until when the last frame of the current piece is shown: over a gap it is not.
    fn end_of_piece(&self, piece: &Piece) -> Npt {
        let index = self.piece.unwrap_or(0);
        let next = self.timeline.pieces().get(index + 1);
        let joined = next.filter(|_| !self.timeline.gap_between(index, index + 1));
        joined.map_or_else(|| piece.npt_end(), |next| next.npt)
    }
}

impl Run {
    fn add(&mut self, frame: Frame) {
        if let Some(next_key) = self.next_key {
            // Of the next group, only what is shown before its key frame.
            if frame.key || frame.time >= next_key {
                self.complete = true;
                return;
            }
        } else if frame.key && !self.frames.is_empty() {
            self.next_key = Some(frame.time);
        }
        self.later += usize::from(frame.time > self.around);
        self.frames.push(frame);
        // A picture that is still to come has at most so many before it that are shown after it. One more of them is the frame wanted,
        // if that is the first one after the moment, and one more what follows it.
        self.complete = self.later > REORDER_MAX + 1;
    }

    /// What can be shown of it: pictures before the key frame need the group before it, and the range ends with its piece.
    fn shown<'a>(&'a self, piece: &'a Piece) -> impl Iterator<Item = (usize, WallTime)> + 'a {
        let key = self.frames.first().map(|f| f.time);
        let times = self.frames.iter().map(|f| f.time).enumerate();
        times.filter(move |(_, t)| key.is_some_and(|k| *t >= k) && *t < piece.end)
    }

    fn last_at_or_before(&self, at: WallTime, piece: &Piece) -> Option<usize> {
        let early = self.shown(piece).filter(|(_, t)| *t <= at);
        early.max_by_key(|(_, t)| *t).map(|(i, _)| i)
    }

    fn first_after(&self, at: WallTime, piece: &Piece) -> Option<usize> {
        let late = self.shown(piece).filter(|(_, t)| *t > at);
        late.min_by_key(|(_, t)| *t).map(|(i, _)| i)
    }
}
