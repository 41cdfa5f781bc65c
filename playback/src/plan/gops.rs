//! Groups of pictures backward: the last one first, the frames of each in decode order, without sound.
//!
//! The first group is the one with the key frame at or before the start; of it, what is shown behind the start is left out unless a wanted
//! picture depends on it. The last one is the group that the lowest moment of the range falls into; it is given whole, since its pictures
//! need what is before them. Every cluster is read once, whatever groups share it.

use std::{collections::VecDeque, sync::Arc};

use corenvr_media::{Frame, TrackId, WallTime};
use corenvr_store::{KeyFrame, SegmentMeta};

use super::{Before, Begin, Course, Npt, Place, REORDER_MAX, Read, Step, Timed, Timeline};

/// Groups of pictures in reverse.
#[derive(Debug)]
pub(super) struct Gops {
    place: Place,
    /// The lowest moment of the range.
    until: Npt,
    /// The moment that play begins at.
    begin: Npt,
    start: Option<(Npt, WallTime)>,
    gop: Option<Gop>,
    /// The clusters in which the current group and the one given before it begin: each holds the end of a group that is still to come.
    held: VecDeque<(usize, Vec<Frame>)>,
    ready: VecDeque<Timed>,
    /// No group is later than the one before it.
    pace: Npt,
    done: bool,
    /// Something was left out because the range ends.
    cut: bool,
}

/// The group being given.
#[derive(Debug)]
struct Gop {
    /// Its key frame in the segment's table.
    key: usize,
    /// The next cluster with frames of it.
    cluster: usize,
    begun: bool,
    /// Frames behind the start of play, in case that a wanted picture depends on them.
    beyond: Vec<Frame>,
    /// Nothing of it follows.
    over: bool,
}

impl Gops {
    pub fn new(timeline: Timeline, begin: Begin, until: Option<Npt>) -> Option<Self> {
        let (Begin::At(npt) | Begin::After(npt)) = begin;
        let (piece, _) = timeline.at_or_before(npt)?;
        Some(Self {
            place: Place::new(timeline, piece, Before::Cut),
            until: until.unwrap_or(Npt(i64::MIN)),
            begin: npt,
            start: None,
            gop: None,
            held: VecDeque::new(),
            ready: VecDeque::new(),
            pace: npt,
            done: false,
            cut: false,
        })
    }

    /// Goes to the group with this key frame of the current segment, or out of the segment.
    fn enter_gop(&mut self, key: Option<usize>) {
        self.gop = None;
        let (Some(piece), Some(meta)) = (self.place.current(), self.place.meta()) else {
            return;
        };
        let keys = &meta.table.keys;
        let Some((index, key)) = key
            .and_then(|k| Some((k, keys.get(k)?)))
            .filter(|(_, k)| k.time >= piece.start)
        else {
            self.enter_previous();
            return;
        };
        let end = keys.get(index + 1).map_or(piece.npt_end(), |k| piece.npt_of(k.time));
        if end <= self.until {
            self.cut |= !self.place.behind_gap();
            // The previous piece may reach a little over the border: it has its own look at the end.
            self.enter_previous();
            return;
        }
        let cluster = meta.table.cluster_at(key.block).unwrap_or(meta.table.clusters.len());
        self.start.get_or_insert((piece.npt_of(key.time), key.time));
        self.pace = self.pace.min(end);
        self.place.part(Before::Cut);
        self.gop = Some(Gop {
            key: index,
            cluster,
            begun: false,
            beyond: Vec::new(),
            over: false,
        });
    }

    fn enter_previous(&mut self) {
        self.gop = None;
        self.held.clear();
        self.place.enter(self.place.index().and_then(|i| i.checked_sub(1)));
    }

    /// Takes what belongs to the current group from the frames of its next cluster.
    fn take(&mut self, frames: &[Frame]) {
        let (Some(gop), Some(meta)) = (&mut self.gop, self.place.meta().cloned()) else {
            return;
        };
        let Some(video) = self.place.video_track() else {
            gop.over = true;
            return;
        };
        let mut rest = frames;
        if !gop.begun {
            let Some(at) = key_position(&meta, gop.key, gop.cluster, video, frames) else {
                gop.over = true;
                return;
            };
            gop.begun = true;
            rest = &frames[at..];
        }
        let key = meta.table.keys[gop.key].time;
        for (i, frame) in rest.iter().enumerate().filter(|(_, f)| f.track == video) {
            if frame.key && (i > 0 || frame.time != key) {
                gop.over = true;
            } else if self.place.npt_of(frame.time) <= self.begin {
                for frame in gop.beyond.drain(..).chain([frame.clone()]) {
                    self.ready.push_back(self.place.timed(frame, Some(self.pace)));
                }
            } else if gop.beyond.len() < REORDER_MAX {
                gop.beyond.push(frame.clone());
            } else {
                gop.over = true;
            }
            if gop.over {
                return;
            }
        }
        gop.cluster += 1;
        gop.over = gop.cluster > last_cluster(&meta, gop.key);
    }

    fn read_of(&self, cluster: usize) -> Option<Read> {
        self.place.cluster_read(cluster).map(Read::Cluster)
    }
}

impl Course for Gops {
    fn place(&self) -> &Place {
        &self.place
    }

    fn place_mut(&mut self) -> &mut Place {
        &mut self.place
    }

    fn end(&self) -> Npt {
        self.until.max(Npt::ZERO)
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
                if !piece.is_before(self.until) {
                    return Step::Locate(piece);
                }
                self.cut |= !self.place.behind_gap();
                self.done = true;
                continue;
            }
            let Some(gop) = &self.gop else {
                self.enter_previous();
                continue;
            };
            if gop.over {
                let before = gop.key.checked_sub(1);
                self.enter_gop(before);
                continue;
            }
            let cluster = gop.cluster;
            if let Some(tracks) = self.place.announce() {
                return Step::Tracks(tracks);
            }
            if let Some(held) = self.held.iter().position(|(at, _)| *at == cluster) {
                let frames = std::mem::take(&mut self.held[held].1);
                self.take(&frames);
                self.held[held].1 = frames;
                continue;
            }
            match self.read_of(cluster) {
                Some(read) => return Step::Read(read),
                // The table names a key frame that is in none of its clusters.
                None => self.lost(),
            }
        }
    }

    fn ahead(&self) -> Option<Read> {
        let (gop, meta) = (self.gop.as_ref()?, self.place.meta()?);
        let is_new = |cluster: &usize| self.held.iter().all(|(at, _)| at != cluster);
        if !gop.over && is_new(&gop.cluster) {
            return self.read_of(gop.cluster);
        }
        let mut earlier = meta.table.keys[..gop.key].iter().rev();
        let cluster = earlier.find_map(|k| meta.table.cluster_at(k.block).filter(is_new))?;
        self.read_of(cluster)
    }

    fn located(&mut self, meta: Arc<SegmentMeta>) {
        self.place.locate(meta.clone());
        let Some(piece) = self.place.current() else { return };
        let wanted = |k: &KeyFrame| k.time < piece.end && (self.start.is_some() || piece.npt_of(k.time) <= self.begin);
        let behind = meta.table.keys.partition_point(wanted);
        self.enter_gop(behind.checked_sub(1));
    }

    fn vanished(&mut self) {
        self.place.missed();
        self.enter_previous();
    }

    fn read(&mut self, frames: Vec<Frame>) {
        let Some(gop) = &self.gop else { return };
        let (cluster, first) = (gop.cluster, !gop.begun);
        self.take(&frames);
        if first {
            self.held.push_front((cluster, frames));
            self.held.truncate(2);
        }
    }

    fn lost(&mut self) {
        if let Some(gop) = &mut self.gop {
            gop.over = true;
        }
    }

    fn grow(&mut self, _latest: &[(usize, Arc<SegmentMeta>)]) -> bool {
        false
    }

    fn footage_ends(&self) -> bool {
        !self.cut && (self.done || self.place.timeline().begins_with_segment())
    }
}

/// Where a key frame of the table is among the frames of its cluster.
pub(super) fn key_position(
    meta: &SegmentMeta,
    key: usize,
    cluster: usize,
    video: TrackId,
    frames: &[Frame],
) -> Option<usize> {
    let span = meta.table.clusters.get(cluster)?;
    let first = meta.table.keys.partition_point(|k| k.block < span.offset);
    let mut keys = frames.iter().enumerate().filter(|(_, f)| f.track == video && f.key);
    let (at, frame) = keys.nth(key.checked_sub(first)?)?;
    (frame.time == meta.table.keys[key].time).then_some(at)
}

/// The last cluster with frames of a group.
fn last_cluster(meta: &SegmentMeta, key: usize) -> usize {
    let next = meta.table.keys.get(key + 1);
    let cluster = next.and_then(|k| meta.table.cluster_at(k.block));
    cluster.unwrap_or(meta.table.clusters.len().saturating_sub(1))
}
