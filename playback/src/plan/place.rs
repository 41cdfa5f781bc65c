//! Where in the footage a plan is: the piece, its segment, and what has to be said at their borders.

use std::sync::Arc;

use corenvr_media::{CodecParameters, Frame, TrackId, VideoCodec, WallTime};
use corenvr_store::{SegmentMeta, SegmentState, mkv::TRACKS_MAX};

use super::{Before, ClusterRead, Npt, Piece, SEAM_MICROS_MAX, Timed, Timeline, end_of};

/// A position among the pieces of a timeline.
#[derive(Debug)]
pub(super) struct Place {
    timeline: Timeline,
    /// Forward it may be one behind the last piece, backward `None`: one before the first.
    piece: Option<usize>,
    meta: Option<Arc<SegmentMeta>>,
    announced: Option<Arc<[CodecParameters]>>,
    /// The piece that a frame was given from last.
    given_from: Option<usize>,
    /// How the next frame of each track follows.
    joints: [Before; TRACKS_MAX],
}

impl Place {
    pub fn new(timeline: Timeline, piece: usize, first: Before) -> Self {
        Self {
            timeline,
            piece: Some(piece),
            meta: None,
            announced: None,
            given_from: None,
            joints: [first; TRACKS_MAX],
        }
    }

    /// The client has a frame of the current piece already, which what follows continues.
    pub const fn resume(&mut self) {
        self.given_from = self.piece;
    }

    pub const fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    pub fn meta(&self) -> Option<&Arc<SegmentMeta>> {
        self.meta.as_ref()
    }

    pub const fn index(&self) -> Option<usize> {
        self.piece
    }

    pub fn current(&self) -> Option<Piece> {
        self.timeline.pieces().get(self.piece?).copied()
    }

    pub fn is_last(&self) -> bool {
        self.piece.is_some_and(|p| p + 1 == self.timeline.pieces().len())
    }

    pub fn enter(&mut self, piece: Option<usize>) {
        self.piece = piece;
        self.meta = None;
    }

    pub fn locate(&mut self, meta: Arc<SegmentMeta>) {
        self.meta = Some(meta);
    }

    pub fn relocated(&mut self, meta: Arc<SegmentMeta>) -> bool {
        let moved = self.meta.as_ref().is_some_and(|m| m.path != meta.path);
        if moved {
            self.meta = Some(meta);
        }
        moved
    }

    /// The tracks of the segment, if they are not those announced last.
    pub fn announce(&mut self) -> Option<Arc<[CodecParameters]>> {
        let tracks = &self.meta.as_ref()?.tracks;
        if self.announced.as_ref() == Some(tracks) {
            return None;
        }
        self.announced = Some(tracks.clone());
        self.announced.clone()
    }

    pub fn cluster_read(&self, cluster: usize) -> Option<ClusterRead> {
        cluster_read(self.meta.as_ref()?, cluster)
    }

    pub fn video_track(&self) -> Option<TrackId> {
        video_track(self.meta.as_ref()?)
    }

    pub fn video_codec(&self) -> Option<VideoCodec> {
        video_codec(&self.meta.as_ref()?.tracks)
    }

    /// The segment is gone.
    pub fn missed(&mut self) {
        let len = self.current().map_or(0, |p| p.end.micros_since(p.start));
        self.part(if len > SEAM_MICROS_MAX {
            Before::Gap
        } else {
            Before::Cut
        });
    }

    /// What follows does not continue what was given.
    pub fn part(&mut self, by: Before) {
        for joint in &mut self.joints {
            // What was not continued by anything yet begins play, whatever is missing there.
            let by = if self.given_from.is_none() { Before::Cut } else { by };
            *joint = by.max(*joint);
        }
    }

    /// Gives a frame of the current piece its moment.
    pub fn timed(&mut self, frame: Frame, pace: Option<Npt>) -> Timed {
        if let (Some(now), Some(last)) = (self.piece, self.given_from)
            && now != last
            && self.timeline.gap_between(now, last)
        {
            self.part(Before::Gap);
        }
        self.given_from = self.piece;
        let npt = self.npt_of(frame.time);
        let joint = self.joints.get_mut(usize::from(frame.track.0));
        let before = joint.map_or(Before::Joined, |j| std::mem::replace(j, Before::Joined));
        Timed {
            frame,
            npt,
            pace: pace.unwrap_or(npt),
            before,
        }
    }

    pub fn npt_of(&self, t: WallTime) -> Npt {
        self.current().map_or(Npt::ZERO, |p| p.npt_of(t))
    }

    /// Whether there is a gap between the last frame given and the current piece.
    pub fn behind_gap(&self) -> bool {
        match (self.piece, self.given_from) {
            (Some(now), Some(last)) => self.timeline.gap_between(now, last),
            _ => false,
        }
    }

    /// Whether the current segment is the last one and will not grow.
    pub fn ends_sealed(&self) -> bool {
        self.is_last() && self.meta.as_ref().is_some_and(|m| m.state == SegmentState::Sealed)
    }

    /// See [`super::Plan::grow`]. `located` is the newest state of the current segment, where it has more clusters now.
    pub fn grow(&mut self, latest: &[(usize, Arc<SegmentMeta>)]) -> bool {
        let mut grown = false;
        for (storage, meta) in latest {
            let last = self.timeline.pieces().last().copied();
            let known = last.filter(|p| p.storage == *storage && p.segment == meta.key.start);
            if let Some(last) = known {
                let clusters = self.meta.as_ref().map_or(0, |m| m.table.clusters.len());
                if self.is_last() && self.meta.is_some() {
                    grown |= meta.table.clusters.len() > clusters;
                    if meta.table.clusters.len() >= clusters {
                        self.meta = Some(meta.clone());
                    }
                }
                let end = end_of(meta);
                grown |= end > last.end;
                self.timeline.grow(end);
            } else if last.is_none_or(|p| p.segment < meta.key.start) {
                grown |= self
                    .timeline
                    .push(*storage, meta.key.start, meta.key.start, end_of(meta));
            }
        }
        grown
    }
}

pub(super) fn cluster_read(meta: &SegmentMeta, cluster: usize) -> Option<ClusterRead> {
    let span = meta.table.clusters.get(cluster)?;
    Some(ClusterRead {
        path: meta.path.clone(),
        offset: span.offset,
        len: span.len,
        segment: meta.key.start,
        tracks: meta.tracks.clone(),
    })
}

pub(super) fn video_track(meta: &SegmentMeta) -> Option<TrackId> {
    let at = meta.tracks.iter().position(CodecParameters::is_video)?;
    u8::try_from(at).ok().map(TrackId)
}

pub(super) fn video_codec(tracks: &[CodecParameters]) -> Option<VideoCodec> {
    tracks.iter().find_map(|t| match t {
        CodecParameters::Video(v) => Some(v.codec),
        CodecParameters::Audio(_) => None,
    })
}
