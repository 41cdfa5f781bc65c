//! What the archives have of a camera: every storage asked, the answers merged by time.

use std::{rc::Rc, sync::Arc, time::Duration};

use corenvr_media::{CameraName, CodecParameters, TimeRange, WallTime};
use corenvr_shard::{Worker, WorkerError, time};
use corenvr_store::{Archive, ArchiveError, SegmentMeta};

use crate::plan::{Gaps, Piece, Timeline};

/// Segments are asked for in windows of this length, so that the tables of one window at most are in memory.
const WINDOW: Duration = Duration::from_secs(6 * 3600);
/// The longest range that one session can play.
pub const RANGE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// How often a busy worker is asked again before the question fails.
const BUSY_ATTEMPTS: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// The archive did not answer. The disk or the index is at fault.
#[derive(Debug, thiserror::Error)]
pub enum FootageError {
    /// The worker did not run the question.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// A segment and the storage it is in.
pub type Located = (usize, Arc<SegmentMeta>);

/// The archives of this process; empty if it has none.
#[derive(Clone)]
pub struct Footage(Rc<[Worker<Archive>]>);

/// What a range holds.
#[derive(Debug)]
pub struct Found {
    /// The pieces; the first starts at a key frame.
    pub timeline: Timeline,
    /// The tracks to announce: the first video and the first sound in the range.
    pub tracks: Vec<CodecParameters>,
}

impl Footage {
    /// Over these archives.
    pub fn new(archives: Vec<Worker<Archive>>) -> Self {
        Self(archives.into())
    }

    /// What there is of `camera` in `range` (cut to [`RANGE_MAX`]); `None` if nothing.
    pub async fn find(&self, camera: &CameraName, range: TimeRange, gaps: Gaps) -> Result<Option<Found>, FootageError> {
        let end = range.end.min(range.start + RANGE_MAX);
        let mut found = Found {
            timeline: Timeline::new(gaps),
            tracks: Vec::new(),
        };
        let mut from = range.start;
        let mut newest: Vec<Option<WallTime>> = vec![None; self.0.len()];
        while from < end {
            let to = (from + WINDOW).min(end);
            for (storage, meta) in self.segments(camera, TimeRange { start: from, end: to }).await? {
                // A segment over the border of two windows comes with both.
                if newest[storage].is_none_or(|n| meta.key.start > n) {
                    newest[storage] = Some(meta.key.start);
                    found.add(storage, &meta, TimeRange { start: range.start, end });
                }
            }
            from = to;
        }
        Ok((!found.timeline.is_empty()).then_some(found))
    }

    /// The segment of a piece; `None` if it is gone.
    pub async fn locate(&self, camera: &CameraName, piece: Piece) -> Result<Option<Arc<SegmentMeta>>, FootageError> {
        let range = TimeRange {
            start: piece.start,
            end: piece.end,
        };
        let list = self.ask(piece.storage, camera, range).await?;
        Ok(list.into_iter().find(|m| m.key.start == piece.segment))
    }

    /// The segment of `last` in its newest state and the segments behind it, as far as the next window goes that holds any.
    pub async fn newer(&self, camera: &CameraName, last: Piece, now: WallTime) -> Result<Vec<Located>, FootageError> {
        let mut from = last.end.offset(-1);
        loop {
            let to = from + WINDOW;
            let mut list = self.segments(camera, TimeRange { start: from, end: to }).await?;
            list.retain(|(_, m)| m.key.start >= last.segment);
            let more = list.iter().any(|(_, m)| m.end > last.end || m.key.start > last.segment);
            if more || to > now {
                return Ok(list);
            }
            from = to;
        }
    }

    /// `t` if there is footage at it, otherwise the nearest time that has some.
    pub async fn nearest(&self, camera: &CameraName, t: WallTime) -> Result<Option<WallTime>, FootageError> {
        let mut best: Option<WallTime> = None;
        for worker in self.0.iter() {
            let camera = camera.clone();
            let near = worker.call(move |archive| archive.nearest(&camera, t)).await??;
            best = [best, near]
                .into_iter()
                .flatten()
                .min_by_key(|n| n.micros_since(t).unsigned_abs());
        }
        Ok(best)
    }

    async fn segments(&self, camera: &CameraName, range: TimeRange) -> Result<Vec<Located>, FootageError> {
        let mut all = Vec::new();
        for storage in 0..self.0.len() {
            all.extend(self.ask(storage, camera, range).await?.into_iter().map(|m| (storage, m)));
        }
        all.sort_by_key(|(_, m)| m.key.start);
        Ok(all)
    }

    async fn ask(
        &self,
        storage: usize,
        camera: &CameraName,
        range: TimeRange,
    ) -> Result<Vec<Arc<SegmentMeta>>, FootageError> {
        let Some(worker) = self.0.get(storage) else { return Ok(Vec::new()) };
        let mut attempt = 0;
        loop {
            let camera = camera.clone();
            match worker.call(move |archive| archive.segments(&camera, range)).await {
                Err(WorkerError::Busy { .. }) if attempt < BUSY_ATTEMPTS => {
                    attempt += 1;
                    time::sleep(BUSY_PAUSE).await;
                }
                answer => return Ok(answer??),
            }
        }
    }
}

impl Found {
    fn add(&mut self, storage: usize, meta: &SegmentMeta, range: TimeRange) {
        let start = meta.key.start.max(range.start);
        let first = self.timeline.is_empty();
        if !self.timeline.push(storage, meta.key.start, start, meta.end.min(range.end)) {
            return;
        }
        if first && let Some(key) = meta.table.key_at_or_before(start) {
            self.timeline.snap_start(meta.table.keys[key].time);
        }
        for track in meta.tracks.iter() {
            if !self.tracks.iter().any(|t| t.is_video() == track.is_video()) {
                self.tracks.push(track.clone());
            }
        }
        self.tracks.sort_by_key(|t| !t.is_video());
    }
}
