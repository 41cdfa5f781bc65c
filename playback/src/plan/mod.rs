//! What to read and what to send: a pure state machine from (timeline, range, position) to ordered reads and timed frames.
//!
//! The driver asks [`Plan::poll`] what to do, does it, and hands the result back: the metadata of a segment, the frames of a cluster, or
//! the news that either is gone. Nothing in here reads, waits or knows a clock, so every rule of play is tested without any of them.
//!
//! Play starts at the last video key frame at or before the asked time. From there on every video frame follows in stored order, and every
//! frame of the other tracks that is not earlier than that key frame. It ends before the first frame at or after the end of the range,
//! except that frames which a wanted one depends on (B pictures are stored behind the picture they follow in time) are sent too.

mod timeline;

use std::{collections::VecDeque, path::PathBuf, sync::Arc};

use corenvr_media::{CodecParameters, Frame, WallTime};
use corenvr_store::SegmentMeta;

pub use timeline::{Gaps, Npt, PIECES_MAX, Piece, SEAM_MICROS_MAX, Timeline};

/// Most frames that a picture may be stored ahead of its turn (H.264 and H.265 allow 16 reordered pictures).
const REORDER_MAX: usize = 16;

/// What the driver is to do next.
#[derive(Debug, Clone)]
pub enum Step {
    /// Look the segment of this piece up, and answer with [`Plan::located`] or [`Plan::vanished`].
    Locate(Piece),
    /// Read this cluster, and answer with [`Plan::cluster`] or [`Plan::cluster_lost`].
    Read(ClusterRead),
    /// From the next frame on these tracks hold.
    Tracks(Arc<[CodecParameters]>),
    /// Send this frame.
    Frame(Timed),
    /// The range is done.
    End,
}

/// A cluster to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRead {
    /// The file.
    pub path: PathBuf,
    /// Where the cluster starts in it.
    pub offset: u64,
    /// Its length.
    pub len: u32,
    /// The start of its segment.
    pub segment: WallTime,
    /// The tracks of its segment.
    pub tracks: Arc<[CodecParameters]>,
}

/// A frame and its moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed {
    /// The frame. Its track counts in the segment's tracks, see [`Step::Tracks`].
    pub frame: Frame,
    /// When it is to be shown.
    pub npt: Npt,
}

/// A range being played.
#[derive(Debug)]
pub struct Plan {
    timeline: Timeline,
    /// Play ends before this moment.
    until: Npt,
    piece: usize,
    meta: Option<Arc<SegmentMeta>>,
    /// The next cluster of the segment.
    cluster: usize,
    /// A start inside the segment that is not looked up yet.
    seek: Option<WallTime>,
    /// Frames of the current cluster that were not looked at yet.
    frames: VecDeque<Frame>,
    filter: Filter,
    /// Video at or behind the end, kept in case that a wanted picture depends on it.
    beyond: Vec<Timed>,
    /// Wanted frames that are due before the next one of `frames`.
    ready: VecDeque<Timed>,
    announced: Option<Arc<[CodecParameters]>>,
    done: bool,
}

/// What of a cluster is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Filter {
    /// Frames before this time are not wanted.
    from: WallTime,
    /// Video is not wanted before its next key frame at or after `from`.
    need_key: bool,
}

impl Plan {
    /// Plays `timeline` from `start` until `end`; without an end, everything that there is and what [`Self::grow`] adds.
    /// `None` if the timeline is empty.
    pub fn new(timeline: Timeline, start: Npt, end: Option<Npt>) -> Option<Self> {
        let (piece, at) = timeline.at(start)?;
        Some(Self {
            until: end.unwrap_or(Npt(i64::MAX)),
            timeline,
            piece,
            meta: None,
            cluster: 0,
            seek: Some(at),
            frames: VecDeque::new(),
            filter: Filter {
                from: at,
                need_key: true,
            },
            beyond: Vec::new(),
            ready: VecDeque::new(),
            announced: None,
            done: false,
        })
    }

    /// The timeline.
    pub const fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Where play ends: the end asked for, or the end of the timeline.
    pub fn end(&self) -> Npt {
        self.until.min(self.timeline.len())
    }

    /// Where play really starts, known once the first segment was located; then also the UTC of it.
    pub fn start(&self) -> Option<(Npt, WallTime)> {
        let piece = self.timeline.pieces().get(self.piece)?;
        (self.seek.is_none()).then(|| (piece.npt_of(self.filter.from), self.filter.from))
    }

    /// What to do next. Repeats itself until it is answered; [`Step::Tracks`] and [`Step::Frame`] need no answer.
    pub fn poll(&mut self) -> Step {
        loop {
            if let Some(timed) = self.ready.pop_front() {
                return Step::Frame(timed);
            }
            if self.done {
                return Step::End;
            }
            let Some(piece) = self.current() else { return Step::End };
            let Some(meta) = &self.meta else {
                if piece.npt >= self.until {
                    self.done = true;
                    continue;
                }
                return Step::Locate(piece);
            };
            if self.announced.as_ref() != Some(&meta.tracks) {
                self.announced = Some(meta.tracks.clone());
                return Step::Tracks(meta.tracks.clone());
            }
            if let Some(frame) = self.frames.pop_front() {
                self.judge(frame, &piece);
                continue;
            }
            match self.next_read() {
                Some(read) => return Step::Read(read),
                None if self.piece + 1 < self.timeline.pieces().len() => self.enter(self.piece + 1),
                // Not done for good: the timeline may grow while its last segment is written.
                None => return Step::End,
            }
        }
    }

    /// The cluster that will be asked for after the current one, to be read ahead.
    pub fn ahead(&self) -> Option<ClusterRead> {
        if self.done { None } else { self.next_read() }
    }

    /// The segment asked for by [`Step::Locate`].
    pub fn located(&mut self, meta: Arc<SegmentMeta>) {
        let table = &meta.table;
        if let Some(at) = self.seek.take() {
            let key = table.key_at_or_before(at).or((!table.keys.is_empty()).then_some(0));
            let (cluster, from) = match key.map(|k| &table.keys[k]) {
                Some(key) => (table.cluster_at(key.block).unwrap_or(0), key.time),
                None => (table.clusters.iter().position(|c| c.last >= at).unwrap_or(0), at),
            };
            self.cluster = cluster;
            self.filter = Filter {
                from,
                need_key: !table.keys.is_empty(),
            };
        }
        self.meta = Some(meta);
    }

    /// The segment asked for is gone: play goes on behind it.
    pub fn vanished(&mut self) {
        self.enter(self.piece + 1);
    }

    /// The tracks of the segment that was located last.
    pub fn tracks(&self) -> Option<&[CodecParameters]> {
        self.meta.as_ref().map(|m| &*m.tracks)
    }

    /// The piece being played.
    pub fn current(&self) -> Option<Piece> {
        self.timeline.pieces().get(self.piece).copied()
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
    pub fn cluster(&mut self, frames: Vec<Frame>) {
        self.cluster += 1;
        self.frames = frames.into();
    }

    /// The cluster asked for cannot be had: play goes on at the next key frame behind it.
    pub fn cluster_lost(&mut self) {
        self.cluster += 1;
        self.filter.need_key = self.meta.as_ref().is_some_and(|m| !m.table.keys.is_empty());
    }

    /// The archive has grown since the timeline was made. `latest` is its newest state of the last piece's segment and of what follows,
    /// in order; pieces that are known already are only lengthened. Returns whether there is more to play now.
    pub fn grow(&mut self, latest: &[(usize, Arc<SegmentMeta>)]) -> bool {
        let mut grown = false;
        for (storage, meta) in latest {
            let last = self.timeline.pieces().last().copied();
            let known = last.filter(|p| p.storage == *storage && p.segment == meta.key.start);
            if let Some(last) = known {
                let current = self.piece + 1 == self.timeline.pieces().len();
                let clusters = self.meta.as_ref().map_or(0, |m| m.table.clusters.len());
                if current && self.meta.is_some() && meta.table.clusters.len() > clusters {
                    self.meta = Some(meta.clone());
                    grown = true;
                }
                grown |= meta.end > last.end;
                self.timeline.grow(meta.end);
            } else if last.is_none_or(|p| p.segment < meta.key.start) {
                grown |= self.timeline.push(*storage, meta.key.start, meta.key.start, meta.end);
            }
        }
        grown
    }

    fn enter(&mut self, piece: usize) {
        self.piece = piece;
        self.meta = None;
        self.cluster = 0;
        self.frames.clear();
        self.beyond.clear();
        self.seek = None;
        if let Some(p) = self.timeline.pieces().get(piece) {
            self.filter = Filter {
                from: WallTime::from_micros(i64::MIN),
                need_key: true,
            };
            // A segment begins with a key frame; only the first piece of a timeline can begin inside its segment.
            if p.start > p.segment {
                self.seek = Some(p.start);
            }
        }
    }

    fn next_read(&self) -> Option<ClusterRead> {
        let meta = self.meta.as_ref()?;
        let span = meta.table.clusters.get(self.cluster)?;
        Some(ClusterRead {
            path: meta.path.clone(),
            offset: span.offset,
            len: span.len,
            segment: meta.key.start,
            tracks: meta.tracks.clone(),
        })
    }

    fn judge(&mut self, frame: Frame, piece: &Piece) {
        let video = self.is_video(&frame);
        if frame.time < self.filter.from {
            return;
        }
        if video && self.filter.need_key {
            if !frame.key {
                return;
            }
            self.filter.need_key = false;
        }
        let timed = Timed {
            npt: piece.npt_of(frame.time),
            frame,
        };
        if timed.npt < self.until {
            // What it depends on lies before it in stored order, even if it is shown later.
            self.ready.extend(self.beyond.drain(..));
            self.ready.push_back(timed);
        } else if !self.has_video() || (video && (timed.frame.key || self.beyond.len() >= REORDER_MAX)) {
            // The next piece may begin a little before this one ended: it has its own look at the end.
            self.enter(self.piece + 1);
        } else if video {
            self.beyond.push(timed);
        }
    }

    fn is_video(&self, frame: &Frame) -> bool {
        let track = self.meta.as_ref().and_then(|m| m.tracks.get(usize::from(frame.track.0)));
        track.is_some_and(CodecParameters::is_video)
    }

    fn has_video(&self) -> bool {
        self.meta.as_ref().is_some_and(|m| m.tracks.iter().any(CodecParameters::is_video))
    }
}

#[cfg(test)]
mod tests;
