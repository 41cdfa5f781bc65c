//! One job: span after span, a session with the device's archive and a writer for each.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    time::Duration,
};

use corenvr_media::{CameraName, TimeRange, WallTime};
use corenvr_proto::gb28181::{
    sdp::{MediaTransport, SessionKind, UnixRange},
    url::Gb28181Url,
};
use corenvr_shard::{Class, Stop, TaskName, spawn, time::sleep};

use super::{
    BackfillReport, BackfillSpan, BackfillState, SpanReport,
    filling::{Filling, Told},
    line::{Ended, Line},
};
use crate::{
    RecorderConfig,
    ingest::{
        End, EndKind,
        gb28181::{self, Reach, Target},
    },
    writer::{Backfill, Budget, Disk, Queue, Writer, abandon, ask},
};

/// How many times as fast as recorded a device is asked to send: more overruns the disks of many.
const DOWNLOAD_SPEED: u8 = 4;
/// A device that cannot be invited for so long is not there.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// How often a session is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two sessions: many devices refuse a stream while they take the one before down.
const PAUSE: Duration = Duration::from_millis(500);
/// Less than this is not worth a session: the device's answer is no more precise.
const SPAN_MIN_US: i64 = 1_000_000;
/// What is missing of a span's end without being told: a device's last picture may be this much before it.
const SHORT_OF_END_US: i64 = 3_000_000;
/// Frame bytes that may wait for the disk, apart from those of live recording. Beyond, frames are left out and told.
const QUEUE_BYTES: usize = 32 << 20;
/// Pieces of footage that a span's report lists.
const GOT_MAX: usize = 1000;

/// What a job needs.
#[derive(Clone)]
pub(crate) struct Plan {
    pub camera: CameraName,
    pub url: Gb28181Url,
    pub audio: bool,
    pub reach: Reach,
    pub disk: Rc<Disk>,
    pub config: Rc<RecorderConfig>,
}

/// A job of one camera, for whoever asks how far it is.
pub(crate) struct Job {
    stop: Stop,
    report: RefCell<BackfillReport>,
    told: RefCell<Rc<Told>>,
    done: Cell<bool>,
}

impl Job {
    /// Begins to fill the spans.
    pub fn start(plan: Plan, spans: Vec<BackfillSpan>) -> Rc<Self> {
        let job = Self::new(plan.camera.clone(), spans.len());
        let name = TaskName::of_camera(&plan.camera, "backfill");
        let running = job.clone();
        spawn(Class::Maintenance, name, async move {
            let ending = Ending(running.clone());
            running.run(&plan, spans).await;
            let state = if running.stop.is_requested() {
                BackfillState::Stopped
            } else {
                BackfillState::Done
            };
            running.report.borrow_mut().state = state;
            drop(ending);
        })
        .detach();
        job
    }

    pub(super) fn new(camera: CameraName, spans: usize) -> Rc<Self> {
        Rc::new(Self {
            stop: Stop::default(),
            report: RefCell::new(BackfillReport {
                camera,
                state: BackfillState::Running,
                spans_total: spans,
                position: None,
                spans: Vec::new(),
            }),
            told: RefCell::default(),
            done: Cell::new(false),
        })
    }

    /// Asks it to end; what has come is kept.
    pub fn stop(&self) {
        self.stop.request();
    }

    pub fn is_done(&self) -> bool {
        self.done.get()
    }

    /// Waits until its last segment is sealed.
    pub async fn ended(&self) {
        while !self.done.get() {
            sleep(LOOK_EVERY / 5).await;
        }
    }

    /// What came of it so far.
    pub fn report(&self) -> BackfillReport {
        let mut report = self.report.borrow().clone();
        if report.state == BackfillState::Running {
            report.position = self.told.borrow().position.get();
        }
        report
    }

    async fn run(&self, plan: &Plan, spans: Vec<BackfillSpan>) {
        for span in spans {
            let (camera, range) = (plan.camera.clone(), span.range);
            let vacant = match ask(&plan.disk, move |a| a.vacant(&camera, range)).await {
                Ok(Ok(vacant)) => vacant,
                Ok(Err(error)) => return self.failed(range, error.to_string()),
                Err(error) => return self.failed(range, error.to_string()),
            };
            for window in vacant {
                if window.end.micros_since(window.start) < SPAN_MIN_US {
                    continue;
                }
                if self.stop.is_requested() {
                    return;
                }
                let report = self.window(plan, window, span).await;
                self.report.borrow_mut().spans.push(report);
                sleep(PAUSE).await;
            }
        }
    }

    fn failed(&self, asked: TimeRange, reason: String) {
        self.report.borrow_mut().spans.push(SpanReport {
            asked: Some(asked),
            missing: Some(reason),
            ..SpanReport::default()
        });
    }

    /// Asks in one way after the other until something comes.
    async fn window(&self, plan: &Plan, window: TimeRange, span: BackfillSpan) -> SpanReport {
        let mut report = SpanReport::default();
        for (kind, transport) in ways(plan.url.transport, window) {
            let target = Target {
                camera: format!("{} backfill", plan.camera),
                url: plan.url.clone(),
                kind,
                transport,
                audio: plan.audio,
                silence: plan.config.silence,
            };
            let session = async |filling: Filling, told: Rc<Told>, stop: Stop| {
                invite(target, plan.reach.clone(), filling, told, stop).await
            };
            let end;
            (report, end) = self.fill(plan, window, span, session).await;
            let another = matches!(
                end,
                EndKind::NoPacket | EndKind::TransportRefused | EndKind::Protocol | EndKind::NoVideo
            );
            if report.frames > 0 || !another || self.stop.is_requested() {
                break;
            }
            sleep(PAUSE).await;
        }
        tracing::info!(camera = %plan.camera, from = %window.start, to = %window.end, frames = report.frames,
            missing = report.missing.as_deref().unwrap_or("nothing"), "gap filled");
        report
    }

    /// One session into segments of its own. `session` takes what fills them and ends by its own word or when it is stopped.
    pub(super) async fn fill<F>(
        &self,
        plan: &Plan,
        window: TimeRange,
        span: BackfillSpan,
        session: impl FnOnce(Filling, Rc<Told>, Stop) -> F,
    ) -> (SpanReport, EndKind)
    where
        F: Future<Output = End>,
    {
        let told = Rc::new(Told::default());
        *self.told.borrow_mut() = told.clone();
        let queue = Rc::new(Queue::new(QUEUE_BYTES, Budget::new(QUEUE_BYTES)));
        let backfill = Backfill {
            until: window.end,
            cause: span.cause,
        };
        let sync = plan.config.sync;
        let writer = Writer::new(
            plan.camera.clone(),
            plan.disk.clone(),
            queue.clone(),
            told.clone(),
            sync,
        );
        let name = TaskName::of_camera(&plan.camera, "backfill writer");
        let writing = spawn(Class::Maintenance, name, writer.backfilling(backfill).run());
        let line = Line::new(window, plan.config.segment.as_micros() as i64);
        let filling = Filling::new(line, queue.clone(), told.clone(), plan.config.silence);
        let end = session(filling, told.clone(), self.stop.clone()).await;
        queue.close();
        if let Err(panicked) = writing.await {
            tracing::error!(camera = %plan.camera, %panicked, "the writer of back-filled footage failed inside");
            *told.disk_error.borrow_mut() = Some(panicked.to_string());
            let open = told.open.borrow_mut().take();
            if let Some(key) = open {
                plan.disk.file_closed();
                abandon(&plan.disk, key).await;
            }
        }
        let got = got(plan, window).await;
        let missing = missing(&told, &queue, &end, window, &got);
        let report = SpanReport {
            asked: Some(window),
            got,
            frames: told.durable.get(),
            left_out: told.left_out.get(),
            missing,
        };
        (report, end.kind)
    }
}

/// However a job ends, it is known to have ended.
struct Ending(Rc<Job>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut report = self.0.report.borrow_mut();
        if report.state == BackfillState::Running {
            report.state = BackfillState::Failed;
        }
        self.0.done.set(true);
    }
}

/// In which ways a device is asked for a part of its archive, the quickest and safest first.
fn ways(chosen: Option<MediaTransport>, window: TimeRange) -> Vec<(SessionKind, MediaTransport)> {
    let second = |us: i64| u64::try_from(us.div_euclid(1_000_000)).unwrap_or(0);
    let range = UnixRange {
        start_s: second(window.start.as_micros()),
        end_s: second(window.end.as_micros() + 999_999),
    };
    let download = SessionKind::Download {
        range,
        speed: Some(DOWNLOAD_SPEED),
    };
    let transports = match chosen {
        Some(transport) => vec![transport],
        None => vec![MediaTransport::TcpPassive, MediaTransport::Udp],
    };
    let both = |t| [(download, t), (SessionKind::Playback(range), t)];
    transports.into_iter().flat_map(both).collect()
}

/// A session with the device. One that cannot be invited is not waited for long.
async fn invite(target: Target, reach: Reach, filling: Filling, told: Rc<Told>, stop: Stop) -> End {
    let own = Stop::default();
    let (ended, session_stop) = (Rc::new(Cell::new(false)), own.clone());
    let watch = {
        let (ended, told) = (ended.clone(), told.clone());
        spawn(
            Class::Maintenance,
            TaskName::of_camera(&target.camera, "watch"),
            async move {
                let mut waited = Duration::ZERO;
                while !ended.get() {
                    if stop.is_requested() || (!told.invited.get() && waited >= WAIT_MAX) {
                        own.request();
                    }
                    sleep(LOOK_EVERY).await;
                    waited += LOOK_EVERY;
                }
            },
        )
    };
    let end = gb28181::run(&target, &reach, filling, &session_stop).await;
    ended.set(true);
    watch.cancel().await;
    match end {
        Ok(end) if end.kind == EndKind::Stopped && !told.invited.get() => {
            let reason = told.waiting.borrow().clone();
            End::new(EndKind::Unreachable, reason.unwrap_or(end.reason))
        }
        Ok(end) => end,
        Err(panicked) => End::new(EndKind::Closed, format!("the session failed inside: {panicked}")),
    }
}

/// Where there is back-filled footage now.
async fn got(plan: &Plan, window: TimeRange) -> Vec<TimeRange> {
    let camera = plan.camera.clone();
    let line = match ask(&plan.disk, move |a| a.timeline(&camera, window)).await {
        Ok(Ok(line)) => line,
        Ok(Err(error)) => {
            tracing::warn!(camera = %plan.camera, %error, "what was filled in cannot be looked up");
            return Vec::new();
        }
        Err(error) => {
            tracing::warn!(camera = %plan.camera, %error, "what was filled in cannot be looked up");
            return Vec::new();
        }
    };
    let filled = line.spans.iter().filter(|s| s.backfilled).map(|s| s.range);
    filled.take(GOT_MAX).collect()
}

/// Why a window is not full; `None` if it is.
fn missing(told: &Told, queue: &Queue, end: &End, window: TimeRange, got: &[TimeRange]) -> Option<String> {
    let mut reasons = Vec::new();
    let last: Option<WallTime> = got.last().map(|r| r.end);
    let complete = matches!(&*told.ended.borrow(), Some(Ended::Complete));
    let reaches = last.is_some_and(|last| window.end.micros_since(last) <= SHORT_OF_END_US);
    if !(complete || (end.kind == EndKind::Done && reaches)) {
        reasons.push(end.reason.clone());
    }
    if let Some(error) = told.disk_error.borrow().clone().filter(|e| *e != end.reason) {
        reasons.push(error);
    }
    let dropped = told.lost.get() + queue.dropped();
    if dropped > 0 {
        reasons.push(format!("{dropped} frames were left out: the disk is too slow"));
    }
    if told.holes.get() > 0 {
        reasons.push(format!("{} gaps within what the device sent", told.holes.get()));
    }
    if told.packets_lost.get() > 0 {
        reasons.push(format!("{} packets were lost on the way", told.packets_lost.get()));
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}
