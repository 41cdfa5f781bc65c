//! Every frame, forward.
//!
//! Play starts at the last video key frame at or before the asked time. From there on every video frame follows in stored order, and every
//! frame of the other tracks that is not earlier than that key frame. It ends before the first frame at or after the end of the range,
//! except that frames which a wanted one depends on (B pictures are stored behind the picture they follow in time) are sent too. A
//! segment that starts at or behind the end is not looked at.
//!
//! Going on behind a frame that the client has seen, that frame is looked for in the clusters that may hold it, and everything stored
//! behind it follows.

use std::{collections::VecDeque, sync::Arc};

use corenvr_media::{Frame, WallTime};
use corenvr_proto::bitstream::is_disposable;
use corenvr_store::SegmentMeta;

use super::{Before, Begin, Course, Npt, Place, REORDER_MAX, Read, SEAM_MICROS_MAX, Step, Timed, Timeline};

/// All frames.
#[derive(Debug)]
pub(super) struct Every {
    place: Place,
    /// Play ends before this moment.
    until: Npt,
    start: Option<(Npt, WallTime)>,
    /// The next cluster of the segment.
    cluster: usize,
    /// A start inside the segment that is not looked up yet.
    seek: Option<WallTime>,
    hunt: Option<Hunt>,
    /// Frames of the current cluster that were not looked at yet.
    frames: VecDeque<Frame>,
    filter: Filter,
    /// Video at or behind the end, kept in case that a wanted picture depends on it.
    beyond: Vec<Frame>,
    /// Wanted frames that are due before the next one of `frames`.
    ready: VecDeque<Timed>,
    done: bool,
    /// Something was left out because the range ends.
    cut: bool,
}

/// What of a cluster is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Filter {
    /// Frames before this time are not wanted.
    from: WallTime,
    /// Video is not wanted before its next key frame at or after `from`.
    need_key: bool,
    /// Video shown until then is not wanted if nothing depends on it: the client is past it.
    shown: Option<WallTime>,
}

impl Filter {
    const ALL: Self = Self {
        from: WallTime::from_micros(i64::MIN),
        need_key: true,
        shown: None,
    };
}

/// A frame that is looked for, to go on behind it.
#[derive(Debug)]
struct Hunt {
    npt: Npt,
    /// The piece that has its moment.
    home: usize,
    /// Further pieces that may hold it: frames reach over the borders of segments.
    others: VecDeque<usize>,
}

impl Every {
    pub fn new(timeline: Timeline, begin: Begin, until: Option<Npt>) -> Option<Self> {
        let npt = match begin {
            Begin::At(npt) | Begin::After(npt) => npt,
        };
        let (piece, at) = timeline.at(npt)?;
        let hunt = matches!(begin, Begin::After(_)).then(|| Hunt {
            npt,
            home: piece,
            others: neighbours(&timeline, piece, npt),
        });
        let first = if hunt.is_some() { Before::Joined } else { Before::Cut };
        Some(Self {
            place: Place::new(timeline, piece, first),
            until: until.unwrap_or(Npt(i64::MAX)),
            start: None,
            cluster: 0,
            seek: hunt.is_none().then_some(at),
            hunt,
            frames: VecDeque::new(),
            filter: Filter {
                from: at,
                ..Filter::ALL
            },
            beyond: Vec::new(),
            ready: VecDeque::new(),
            done: false,
            cut: false,
        })
    }

    fn enter(&mut self, piece: usize) {
        self.place.enter(Some(piece));
        self.cluster = 0;
        self.frames.clear();
        self.cut |= !self.beyond.is_empty();
        self.beyond.clear();
        self.filter = Filter::ALL;
        // A segment begins with a key frame; only the first piece of a timeline can begin inside its segment.
        let current = self.place.current();
        self.seek = current.filter(|p| p.start > p.segment).map(|p| p.start);
    }

    fn enter_next(&mut self) {
        self.enter(self.place.index().map_or(0, |p| p + 1));
    }

    /// Where play starts in a segment: at the key frame at or before `at`.
    fn aim(&mut self, meta: &SegmentMeta, at: WallTime) {
        let table = &meta.table;
        let key = table.key_at_or_before(at).or((!table.keys.is_empty()).then_some(0));
        let (cluster, from) = match key.map(|k| &table.keys[k]) {
            Some(key) => (table.cluster_at(key.block).unwrap_or(0), key.time),
            None => (table.clusters.iter().position(|c| c.last >= at).unwrap_or(0), at),
        };
        self.cluster = cluster;
        self.filter = Filter {
            from,
            need_key: !table.keys.is_empty(),
            shown: None,
        };
    }

    /// What the hunted frame's moment is in the current piece.
    fn hunted(&self) -> Option<WallTime> {
        let piece = self.place.current()?;
        self.hunt.as_ref().map(|h| piece.time_of(h.npt))
    }

    /// Makes `cluster` the next one, at or behind it, that may hold the hunted frame; without one, goes on to the next piece that may.
    fn track_down(&mut self) {
        let (Some(at), Some(meta)) = (self.hunted(), self.place.meta()) else {
            return;
        };
        let clusters = meta.table.clusters.iter().enumerate().skip(self.cluster);
        let holds = clusters.into_iter().find(|(_, c)| c.first <= at && at <= c.last);
        match holds {
            Some((index, _)) => self.cluster = index,
            None => self.hunt_on(),
        }
    }

    fn hunt_on(&mut self) {
        let Some(hunt) = &mut self.hunt else { return };
        if let Some(piece) = hunt.others.pop_front() {
            self.cluster = 0;
            self.place.enter(Some(piece));
            return;
        }
        // It is nowhere: the next key frame is the nearest that can be decoded.
        let (home, npt) = (hunt.home, hunt.npt);
        self.hunt = None;
        self.place.part(Before::Cut);
        self.enter(home);
        self.seek = None;
        if let Some(piece) = self.place.current() {
            self.filter.from = piece.time_of(npt.offset(1));
        }
    }

    /// Whether the hunted frame is among these; everything up to it is dropped then.
    fn catch(&mut self, frames: &mut VecDeque<Frame>) -> bool {
        let Some(at) = self.hunted() else { return false };
        let video = self.place.video_track();
        let sought = |f: &Frame| f.time == at && video.is_none_or(|v| v == f.track);
        let Some(found) = frames.iter().position(sought) else {
            return false;
        };
        frames.drain(..=found);
        self.hunt = None;
        self.place.resume();
        self.filter = Filter {
            need_key: false,
            shown: Some(at),
            ..Filter::ALL
        };
        true
    }

    fn judge(&mut self, frame: Frame) {
        let video = self.place.video_track() == Some(frame.track);
        if frame.time < self.filter.from {
            return;
        }
        if video && self.filter.need_key {
            if !frame.key {
                return;
            }
            self.filter.need_key = false;
        }
        let spare = self.filter.shown.is_some_and(|t| frame.time <= t);
        if video
            && spare
            && let Some(codec) = self.place.video_codec()
            && is_disposable(codec, &frame.data)
        {
            return;
        }
        if self.place.npt_of(frame.time) < self.until {
            // What a picture depends on lies before it in stored order, even if it is shown later.
            let before = if video {
                std::mem::take(&mut self.beyond)
            } else {
                Vec::new()
            };
            for frame in before.into_iter().chain([frame]) {
                let timed = self.place.timed(frame, None);
                self.ready.push_back(timed);
            }
        } else if video && !self.is_past_end(&frame) {
            self.beyond.push(frame);
        } else {
            self.cut = true;
            if video || self.place.video_track().is_none() {
                // The next piece may begin a little before this one ended: it has its own look at the end.
                self.enter_next();
            }
        }
    }

    /// Whether no picture behind this one, which is itself at or behind the end of the range, is shown before the end.
    fn is_past_end(&self, frame: &Frame) -> bool {
        // Pictures that are shown before a key frame and stored behind it come first behind it.
        let behind_key = self.beyond.iter().any(|b| b.key && b.time <= frame.time);
        behind_key || self.beyond.len() >= REORDER_MAX
    }

    fn next_cluster(&self) -> Option<Read> {
        self.place.cluster_read(self.cluster).map(Read::Cluster)
    }
}

impl Course for Every {
    fn place(&self) -> &Place {
        &self.place
    }

    fn place_mut(&mut self) -> &mut Place {
        &mut self.place
    }

    fn end(&self) -> Npt {
        self.until.min(self.place.timeline().len())
    }

    fn start(&self) -> Option<(Npt, WallTime)> {
        self.start
    }

    fn poll(&mut self) -> Step {
        loop {
            if let Some(timed) = self.ready.pop_front() {
                return Step::Frame(timed);
            }
            if self.done {
                return Step::End;
            }
            let Some(piece) = self.place.current() else {
                return Step::End;
            };
            if self.place.meta().is_none() {
                if piece.npt >= self.until && self.hunt.is_none() {
                    self.cut |= !self.place.behind_gap();
                    self.done = true;
                    continue;
                }
                return Step::Locate(piece);
            }
            if self.hunt.is_none() {
                if let Some(tracks) = self.place.announce() {
                    return Step::Tracks(tracks);
                }
                if let Some(frame) = self.frames.pop_front() {
                    self.judge(frame);
                    continue;
                }
            }
            match self.next_cluster() {
                Some(read) => return Step::Read(read),
                None if !self.place.is_last() => self.enter_next(),
                // Not done for good: the timeline may grow while its last segment is written.
                None => return Step::End,
            }
        }
    }

    fn ahead(&self) -> Option<Read> {
        if self.done { None } else { self.next_cluster() }
    }

    fn located(&mut self, meta: Arc<SegmentMeta>) {
        self.place.locate(meta.clone());
        let Some(piece) = self.place.current() else { return };
        if let Some(hunt) = &self.hunt {
            let at = self.hunted().unwrap_or(piece.start);
            self.start.get_or_insert((hunt.npt, at));
            self.track_down();
            return;
        }
        if let Some(at) = self.seek.take() {
            self.aim(&meta, at);
        } else if self.filter.from > piece.start {
            // Behind a frame that was not found.
            let behind = meta.table.keys.iter().find(|k| k.time >= self.filter.from);
            let cluster = match behind {
                Some(key) => meta.table.cluster_at(key.block),
                None if meta.table.keys.is_empty() => {
                    meta.table.clusters.iter().position(|c| c.last >= self.filter.from)
                }
                None => None,
            };
            self.cluster = cluster.unwrap_or(meta.table.clusters.len());
        }
        let first = self
            .filter
            .from
            .max(meta.table.keys.first().map_or(piece.start, |k| k.time));
        self.start.get_or_insert((piece.npt_of(first), first));
    }

    fn vanished(&mut self) {
        if self.hunt.is_some() {
            self.hunt_on();
        } else {
            self.place.missed();
            self.enter_next();
        }
    }

    fn read(&mut self, frames: Vec<Frame>) {
        self.cluster += 1;
        let mut frames = frames.into();
        if self.hunt.is_none() || self.catch(&mut frames) {
            self.frames = frames;
        } else {
            self.track_down();
        }
    }

    fn lost(&mut self) {
        self.cluster += 1;
        if self.hunt.is_some() {
            self.track_down();
            return;
        }
        self.place.part(Before::Cut);
        self.filter.need_key = self.place.meta().is_some_and(|m| !m.table.keys.is_empty());
    }

    fn grow(&mut self, latest: &[(usize, Arc<SegmentMeta>)]) -> bool {
        self.place.grow(latest)
    }

    fn footage_ends(&self) -> bool {
        !self.cut && self.beyond.is_empty() && (self.done || self.place.ends_sealed())
    }
}

/// Pieces whose frames may be shown at `npt` besides the one that has it: those that reach over its start, and the next one, of which
/// pictures may be shown before its own start.
fn neighbours(timeline: &Timeline, home: usize, npt: Npt) -> VecDeque<usize> {
    let pieces = timeline.pieces();
    let over = (0..home).rev().take_while(|i| !pieces[*i].is_before(npt));
    let next = pieces.get(home + 1).filter(|p| p.npt.offset(-SEAM_MICROS_MAX) <= npt);
    over.filter(|i| npt < pieces[*i].npt_end())
        .chain(next.map(|_| home + 1))
        .collect()
}
