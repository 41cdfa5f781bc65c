//! What the tasks of one camera share on its shard, and what its status is made of.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use corenvr_media::{CameraName, CodecParameters, WallTime};
use corenvr_store::{GapCause, SegmentKey, live::TailLimits};

use crate::{
    CameraConfig, CameraState, CameraStatus, Counters, StreamInfo,
    ingest::{MediaCounts, Sink},
    live::Live,
    pipeline::{HostTime, Output, SegmentStart},
    writer::{Queue, Report},
};

/// Rates are measured over this long.
const RATE_SPAN: Duration = Duration::from_secs(3);
/// The ring holds this much more than what is not durable yet and the newest group of pictures.
const TAIL_DURATION: Duration = Duration::from_secs(2);

/// One camera's state, for all of its tasks.
pub(crate) struct Shared {
    pub name: CameraName,
    source: String,
    shard: u16,
    pub queue: Rc<Queue>,
    live: Rc<RefCell<Live>>,
    tail: TailLimits,
    inner: RefCell<Inner>,
    open: RefCell<OpenSegment>,
    frames: Cell<u64>,
    /// A segment was begun and its stream has not ended.
    in_run: Cell<bool>,
}

/// What is left to know when a writer fails inside.
#[derive(Default)]
pub(crate) struct OpenSegment {
    /// The segment that is open.
    pub key: Option<SegmentKey>,
    /// The parameters of the last one that was opened.
    pub parameters: Option<Arc<[CodecParameters]>>,
}

struct Inner {
    state: CameraState,
    transport: Option<&'static str>,
    streams: Vec<StreamInfo>,
    not_recorded: Vec<String>,
    last_frame: Option<WallTime>,
    disk_error: Option<String>,
    /// The last reason that was logged.
    reason: String,
    counters: Counters,
    /// Counts of the connections before the current one.
    before: MediaTotals,
    now: MediaTotals,
    rate: Rate,
}

/// The part of the counters that starts anew with each connection.
#[derive(Debug, Clone, Copy, Default)]
struct MediaTotals {
    lost: u64,
    late: u64,
    malformed: u64,
    damaged: u64,
    before_key: u64,
    jumps: u64,
}

impl MediaTotals {
    fn add(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            late: self.late + other.late,
            malformed: self.malformed + other.malformed,
            damaged: self.damaged + other.damaged,
            before_key: self.before_key + other.before_key,
            jumps: self.jumps + other.jumps,
        }
    }
}

struct Rate {
    since: Instant,
    pictures: u64,
    bytes: u64,
}

impl Shared {
    pub fn new(
        config: &CameraConfig,
        shard: u16,
        queue: Rc<Queue>,
        live: Rc<RefCell<Live>>,
        tail_bytes: usize,
    ) -> Self {
        Self {
            name: config.name.clone(),
            source: config.source.to_string(),
            shard,
            queue,
            live,
            tail: TailLimits {
                duration: TAIL_DURATION,
                bytes_hard: tail_bytes,
                ..TailLimits::default()
            },
            inner: RefCell::new(Inner {
                state: CameraState::Disabled,
                transport: None,
                streams: Vec::new(),
                not_recorded: Vec::new(),
                last_frame: None,
                disk_error: None,
                reason: String::new(),
                counters: Counters::default(),
                before: MediaTotals::default(),
                now: MediaTotals::default(),
                rate: Rate {
                    since: Instant::now(),
                    pictures: 0,
                    bytes: 0,
                },
            }),
            open: RefCell::default(),
            frames: Cell::new(0),
            in_run: Cell::new(false),
        }
    }

    pub fn state(&self) -> CameraState {
        self.inner.borrow().state.clone()
    }

    pub fn set_state(&self, state: CameraState) {
        self.inner.borrow_mut().state = state;
    }

    /// Whether this reason was not the last one told.
    pub fn reason_is_new(&self, reason: &str) -> bool {
        let mut inner = self.inner.borrow_mut();
        if inner.reason == reason {
            return false;
        }
        reason.clone_into(&mut inner.reason);
        true
    }

    /// Frames received so far.
    pub fn frame_count(&self) -> u64 {
        self.frames.get()
    }

    pub fn last_frame(&self) -> Option<WallTime> {
        self.inner.borrow().last_frame
    }

    /// The time of the newest frame under the settings before these.
    pub fn set_last_frame(&self, last: Option<WallTime>) {
        self.inner.borrow_mut().last_frame = last;
    }

    pub fn note_connect(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.counters.connects += 1;
        inner.before = inner.before.add(std::mem::take(&mut inner.now));
    }

    pub fn note_panic(&self) {
        self.inner.borrow_mut().counters.panics += 1;
    }

    /// The stream ended, if there was one: its segment is sealed, and the gap that begins is known by its cause.
    pub fn end_run(&self, cause: GapCause) {
        if self.in_run.replace(false) {
            self.queue.end(cause);
        }
    }

    /// The connection is over.
    pub fn not_receiving(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.transport = None;
        inner.counters.fps = 0.0;
        inner.counters.bitrate_bps = 0;
    }

    /// The segment that was open when its writer failed.
    pub fn take_open_segment(&self) -> OpenSegment {
        let mut open = self.open.borrow_mut();
        OpenSegment {
            key: open.key.take(),
            parameters: open.parameters.clone(),
        }
    }

    pub fn status(&self) -> CameraStatus {
        let inner = self.inner.borrow();
        let total = inner.before.add(inner.now);
        CameraStatus {
            name: self.name.clone(),
            shard: self.shard,
            source: self.source.clone(),
            state: inner.state.clone(),
            transport: inner.transport,
            streams: inner.streams.clone(),
            not_recorded: inner.not_recorded.clone(),
            last_frame: inner.last_frame,
            disk_error: inner.disk_error.clone(),
            counters: Counters {
                frames: self.frames.get(),
                packets_lost: total.lost,
                packets_late: total.late,
                packets_malformed: total.malformed,
                frames_damaged: total.damaged,
                frames_before_key: total.before_key,
                clock_jumps: total.jumps,
                frames_dropped: inner.counters.frames_dropped + self.queue.dropped(),
                subscribers: self.live.borrow().subscriber_count() as u64,
                queued_bytes: self.queue.bytes() as u64,
                ..inner.counters
            },
        }
    }

    fn segment(&self, start: SegmentStart) {
        {
            let mut inner = self.inner.borrow_mut();
            inner.streams = start.parameters.iter().map(StreamInfo::from).collect();
            inner.reason.clear();
            if !matches!(inner.state, CameraState::Recording { .. }) {
                inner.state = CameraState::Recording {
                    since: super::wall_now(),
                };
                tracing::info!(camera = %self.name, "recording");
            }
        }
        let mut live = self.live.borrow_mut();
        live.segment(&start.parameters, start.cause, self.tail);
        drop(live);
        self.in_run.set(true);
        self.queue.segment(start);
    }
}

/// The recording end of an ingest.
pub(crate) struct Recording(pub Rc<Shared>);

impl Sink for Recording {
    fn chosen(&mut self, streams: &[StreamInfo], not_recorded: &[String]) {
        let mut inner = self.0.inner.borrow_mut();
        inner.streams = streams.to_vec();
        inner.not_recorded = not_recorded.to_vec();
    }

    fn waiting(&mut self, reason: &str) {
        let since = match self.0.state() {
            CameraState::Waiting { since, .. } => since,
            _ => super::wall_now(),
        };
        if self.0.reason_is_new(reason) {
            tracing::warn!(camera = %self.0.name, %reason, "camera is waited for");
        }
        let reason = reason.to_owned();
        self.0.set_state(CameraState::Waiting { reason, since });
    }

    fn connecting(&mut self) {
        if matches!(self.0.state(), CameraState::Waiting { .. }) {
            let since = super::wall_now();
            self.0.set_state(CameraState::Connecting { since });
        }
    }

    fn not_recorded(&mut self, what: &[String]) {
        self.0.inner.borrow_mut().not_recorded = what.to_vec();
    }

    fn receiving(&mut self, transport: &'static str) {
        self.0.inner.borrow_mut().transport = Some(transport);
    }

    fn output(&mut self, output: Output, at: HostTime) {
        let frame = match output {
            Output::Frame(frame) => frame,
            Output::Segment(start) => return self.0.segment(start),
            Output::NeedKeyFrame => return,
        };
        let shared = &self.0;
        shared.frames.set(shared.frames.get() + 1);
        {
            let mut inner = shared.inner.borrow_mut();
            inner.counters.bytes += frame.data.len() as u64;
            inner.rate.bytes += frame.data.len() as u64;
            if frame.track.0 == 0 {
                inner.rate.pictures += 1;
                inner.counters.lag_ms = at.wall.micros_since(frame.time) / 1000;
            }
            inner.last_frame = Some(frame.time);
        }
        let sequence = shared.live.borrow_mut().frame(frame.clone());
        shared.queue.frame(frame, sequence);
    }

    fn counts(&mut self, counts: &MediaCounts) {
        let mut inner = self.0.inner.borrow_mut();
        inner.now = MediaTotals {
            lost: counts.packets.lost,
            late: counts.packets.late,
            malformed: counts.malformed + counts.packets.stray,
            damaged: counts.pipeline.damaged,
            before_key: counts.pipeline.before_key,
            jumps: counts.pipeline.jumps,
        };
        inner.counters.clock_drift_ppm = counts.drift_ppm;
        let span = inner.rate.since.elapsed();
        if span >= RATE_SPAN {
            inner.counters.fps = inner.rate.pictures as f64 / span.as_secs_f64();
            inner.counters.bitrate_bps = (inner.rate.bytes as f64 * 8.0 / span.as_secs_f64()) as u64;
            inner.rate = Rate {
                since: Instant::now(),
                pictures: 0,
                bytes: 0,
            };
        }
    }
}

impl Report for Rc<Shared> {
    fn written(&self, sequence: u64, durable: u64) {
        self.inner.borrow_mut().counters.frames_durable += durable;
        self.live.borrow_mut().written(sequence);
    }

    fn lost(&self, frames: u64) {
        self.inner.borrow_mut().counters.frames_dropped += frames;
    }

    fn segment_opened(&self, key: &SegmentKey, parameters: &Arc<[CodecParameters]>) {
        self.inner.borrow_mut().counters.segments += 1;
        *self.open.borrow_mut() = OpenSegment {
            key: Some(key.clone()),
            parameters: Some(parameters.clone()),
        };
    }

    fn segment_closed(&self) {
        self.open.borrow_mut().key = None;
    }

    fn disk_error(&self, error: Option<String>) {
        self.inner.borrow_mut().disk_error = error;
    }
}
