//! Frames to disk: one task per camera writes what has gathered, makes it durable, and only then tells the index.
//!
//! A file on which anything failed is given up for good and the next key frame begins another. Frames keep gathering in the
//! [`queue::Queue`] while files are opened, sealed or waited for, so that none is lost between two files.

mod disk;
mod queue;
mod segment;

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use corenvr_media::{CameraName, CodecParameters, WallTime};
use corenvr_shard::time::timeout;
use corenvr_store::{GapCause, SegmentHeader, SegmentKey};

use crate::{owner::phase_millionths, pipeline::SegmentStart};
pub(crate) use disk::Disk;
use queue::{Batch, Next};
pub(crate) use queue::{Budget, Queue};
use segment::{Segment, SegmentError};
pub(crate) use segment::{abandon, ask};

/// The first and the longest pause before a disk that failed is tried again.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// How often a closing writer tries a failing disk before it gives the rest up.
const CLOSING_TRIES: u32 = 2;

/// What the writer tells the camera it belongs to.
pub(crate) trait Report {
    /// Frames up to `sequence` need not be kept in memory for the disk any more; `durable` of them are on it.
    fn written(&self, sequence: u64, durable: u64);
    /// Frames that will never be on disk.
    fn lost(&self, frames: u64);
    /// A segment was begun.
    fn segment_opened(&self, key: &SegmentKey, parameters: &Arc<[CodecParameters]>);
    /// It is sealed, or given up.
    fn segment_closed(&self);
    /// The disk fails, or does not any more.
    fn disk_error(&self, error: Option<String>);
}

/// What is written was not recorded as it happened: it fills a gap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backfill {
    /// Where other footage begins, or what was asked for ends.
    pub until: WallTime,
    /// The cause of the gap that is filled.
    pub cause: GapCause,
}

/// Writes one camera.
pub(crate) struct Writer<R> {
    camera: CameraName,
    disk: Rc<Disk>,
    queue: Rc<Queue>,
    report: R,
    period: Duration,
    phase: Duration,
    epoch: Instant,
    segment: Option<Segment>,
    /// The segment that the next frame begins.
    start: Option<SegmentStart>,
    /// Frames for which there is no file yet, because the disk failed.
    held: Option<Batch>,
    /// Nothing can be decoded before the next key frame: what was to come before it is lost.
    skip_to_key: bool,
    retry_at: Option<Instant>,
    failures: u32,
    /// Time of the last frame that was written.
    last: Option<WallTime>,
    backfill: Option<Backfill>,
}

impl<R: Report> Writer<R> {
    /// `period`: how often what has gathered is written.
    pub fn new(camera: CameraName, disk: Rc<Disk>, queue: Rc<Queue>, report: R, period: Duration) -> Self {
        let phase = period.mul_f64(phase_millionths(&camera) as f64 / 1e6);
        Self {
            camera,
            disk,
            queue,
            report,
            period,
            phase,
            epoch: Instant::now(),
            segment: None,
            start: None,
            held: None,
            skip_to_key: false,
            retry_at: None,
            failures: 0,
            last: None,
            backfill: None,
        }
    }

    /// Every segment is one that fills a gap.
    pub fn backfilling(mut self, backfill: Backfill) -> Self {
        self.backfill = Some(backfill);
        self
    }

    /// Goes on after a writer before this one failed inside, in the middle of a segment with these parameters.
    pub fn resume(mut self, parameters: Option<Arc<[CodecParameters]>>) -> Self {
        self.begin_again(parameters);
        self.skip_to_key = self.start.is_some();
        self
    }

    /// The next key frame begins another segment with the same parameters, after a gap that is the disk's.
    fn begin_again(&mut self, parameters: Option<Arc<[CodecParameters]>>) {
        self.start = parameters.map(|parameters| SegmentStart {
            parameters,
            cause: Some(GapCause::Disk),
        });
    }

    /// Runs until the queue is closed and everything in it is on disk, or given up.
    pub async fn run(mut self) {
        loop {
            let wait = self.until_next_pass(Instant::now());
            let _ = timeout(wait, self.queue.woken()).await;
            self.pass().await;
            if self.queue.is_closed() && self.held.is_none() && self.queue.is_empty() {
                break;
            }
        }
        self.seal(None).await;
    }

    /// The cameras' turns are spread over the period.
    fn until_next_pass(&self, now: Instant) -> Duration {
        if self.queue.is_closed() {
            return Duration::from_millis(20);
        }
        let since = now.duration_since(self.epoch) + self.period.saturating_sub(self.phase);
        let into = since.as_micros() % self.period.as_micros().max(1);
        self.period.saturating_sub(Duration::from_micros(into as u64))
    }

    async fn pass(&mut self) {
        let closing = self.queue.is_closed();
        if self.retry_at.is_some_and(|at| Instant::now() < at) && !closing {
            return;
        }
        loop {
            if let Some(batch) = self.held.take() {
                if self.frames(batch).await {
                    continue;
                }
                if closing && self.failures > CLOSING_TRIES {
                    self.drop_held();
                    continue;
                }
                return;
            }
            if self.skip_to_key {
                self.skip();
            }
            match self.queue.next(self.segment.is_none()) {
                Next::Wait => return,
                Next::Segment(start) => {
                    // Back-filled segments never overlap, not even by the estimate of how long a frame lasts.
                    let goes_on_at = self.backfill.and_then(|_| self.queue.earliest());
                    self.seal(goes_on_at).await;
                    // What began with a failure of the disk stays known as that.
                    let disk = self.start.take().and_then(|s| s.cause).filter(|c| *c == GapCause::Disk);
                    self.start = Some(SegmentStart {
                        cause: disk.or(start.cause),
                        ..start
                    });
                    self.skip_to_key = false;
                }
                Next::End(cause) => {
                    self.seal(None).await;
                    self.start = None;
                    self.skip_to_key = false;
                    self.note_gap(cause).await;
                }
                Next::Frames(batch) => self.held = Some(batch),
            }
        }
    }

    /// Drops what cannot begin a file.
    fn skip(&mut self) {
        let (count, bytes, last) = self.queue.skip_to_key();
        self.queue.release(bytes);
        if let Some(sequence) = last {
            self.report.lost(count);
            self.report.written(sequence, 0);
        }
        // A border or a key frame is next, or nothing yet.
        self.skip_to_key = self.queue.is_empty();
    }

    fn drop_held(&mut self) {
        if let Some(batch) = self.held.take() {
            self.give_up(&batch);
        }
    }

    fn give_up(&mut self, batch: &Batch) {
        self.queue.release(batch.bytes);
        self.report.lost(batch.frames.len() as u64);
        self.report.written(batch.sequence, 0);
        self.skip_to_key = self.segment.is_none();
    }

    /// Writes a batch. False if there is no file for it, and it is held.
    async fn frames(&mut self, batch: Batch) -> bool {
        if self.segment.is_none() && !self.open(&batch).await {
            if self.start.is_none() {
                self.give_up(&batch);
                return true;
            }
            self.held = Some(batch);
            return false;
        }
        let Some(segment) = &mut self.segment else { return true };
        match segment.append(&batch.frames).await {
            Ok(()) => {
                self.last = batch.frames.iter().map(|f| f.time).max().max(self.last);
                self.queue.release(batch.bytes);
                self.report.written(batch.sequence, batch.frames.len() as u64);
                if self.failures > 0 {
                    self.failures = 0;
                    self.retry_at = None;
                    self.report.disk_error(None);
                    tracing::info!(camera = %self.camera, "the disk takes footage again");
                }
            }
            Err(error) => {
                let header = segment.header().clone();
                let kept = self.failed(&error, "writing").await;
                if !kept {
                    // Nothing of the file was left, so its frames begin the next one.
                    self.start = Some(SegmentStart {
                        parameters: header.tracks,
                        cause: header.gap_before,
                    });
                    self.held = Some(batch);
                    return false;
                }
                self.give_up(&batch);
            }
        }
        true
    }

    async fn open(&mut self, batch: &Batch) -> bool {
        let Some(start) = &self.start else { return false };
        let Some(earliest) = batch.frames.iter().map(|f| f.time).min() else {
            return false;
        };
        let header = SegmentHeader {
            camera: self.camera.clone(),
            start: earliest,
            tracks: start.parameters.clone(),
            gap_before: self.backfill.map_or(start.cause, |b| Some(b.cause)),
            backfilled_until: self.backfill.map(|b| b.until),
        };
        match Segment::open(&self.disk, header).await {
            Ok(segment) => {
                self.report.segment_opened(segment.key(), &start.parameters);
                self.segment = Some(segment);
                self.start = None;
                true
            }
            Err(error) => {
                self.failed(&error, "creating a segment").await;
                false
            }
        }
    }

    /// Closes the file that failed for good, and lets the next key frame begin another after a pause.
    /// Returns whether anything of the file is kept.
    async fn failed(&mut self, error: &SegmentError, doing: &str) -> bool {
        self.failures += 1;
        let pause = RETRY_MIN
            .saturating_mul(1 << self.failures.min(5).saturating_sub(1))
            .min(RETRY_MAX);
        self.retry_at = Some(Instant::now() + pause);
        if let Some(io) = error.io() {
            self.disk.note_error(io);
        }
        let text = format!("{doing} failed: {error}");
        if self.failures == 1 {
            tracing::error!(camera = %self.camera, storage = %self.disk.storage.path.display(), "{text}; tried again until it works");
        }
        self.report.disk_error(Some(text));
        let Some(segment) = self.segment.take() else {
            return true;
        };
        self.begin_again(Some(segment.header().tracks.clone()));
        let kept = segment.give_up().await;
        self.report.segment_closed();
        kept
    }

    async fn seal(&mut self, goes_on_at: Option<WallTime>) {
        let Some(segment) = self.segment.take() else { return };
        let result = segment.seal(goes_on_at).await;
        self.report.segment_closed();
        if let Err(error) = result {
            // Every frame in it is durable already and stays; only its end is not as it should be.
            self.failed(&error, "finishing a segment").await;
        }
    }

    async fn note_gap(&self, cause: GapCause) {
        let Some(from) = self.last else { return };
        let camera = self.camera.clone();
        let noted = ask(&self.disk, move |a| a.note_gap(&camera, from.offset(1), cause)).await;
        if let Ok(Err(error)) = noted {
            tracing::warn!(camera = %self.camera, %error, "the cause of a gap could not be noted");
        }
    }
}
