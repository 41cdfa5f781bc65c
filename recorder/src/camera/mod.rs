//! One camera: connects for ever, records while it can, and knows at any time what it is doing and why.

mod shared;

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use corenvr_media::WallTime;
use corenvr_proto::{
    gb28181::{
        sdp::{MediaTransport, SessionKind},
        url::Gb28181Url,
    },
    rtmp::{KEY_LEN_GOOD, StreamKey},
    rtsp::{CameraUrl, Lower},
};
use corenvr_shard::{
    Class, Stop, TaskName, spawn,
    time::{timeout, wall_now_micros},
};
use corenvr_store::GapCause;

use crate::{
    CameraConfig, CameraState, RecorderConfig, Source, TransportChoice,
    ingest::{
        Continuation, End, EndKind, gb28181,
        rtmp::{Terms, pull, push},
        rtsp::{self, Target},
    },
    links::ShardLinks,
    owner::phase_millionths,
    pipeline::SegmentLimits,
    rtmp::Registration,
    writer::{Disk, Writer, abandon},
};
pub(crate) use shared::Shared;

/// As many failures inside in a row, and the camera is left alone.
const PANICS_MAX: u32 = 2;
/// For this long.
const QUARANTINE: Duration = Duration::from_secs(600);
/// The pause after the first wrong password; it doubles up to [`RecorderConfig::auth_pause`].
const AUTH_PAUSE_MIN: Duration = Duration::from_secs(30);
/// Between two publishers of one camera.
const PUBLISHER_PAUSE: Duration = Duration::from_millis(100);
/// A session that recorded for this long was a good one: the next pause is the shortest again.
const GOOD_SESSION: Duration = Duration::from_secs(30);
/// What a GB28181 camera is asked for in turn, where nobody chose: TCP loses nothing, and few devices know the last one.
const GB_TRANSPORTS: [MediaTransport; 3] = [
    MediaTransport::TcpPassive,
    MediaTransport::Udp,
    MediaTransport::TcpActive,
];
/// Frames are written after this share of the sync interval, so that writing itself has the rest.
const WRITE_SHARE: f64 = 0.75;

pub(crate) fn wall_now() -> WallTime {
    WallTime::from_micros(wall_now_micros())
}

/// What is known of a camera from one connection to the next.
#[derive(Debug, Default)]
struct Memory {
    /// The transport that worked last.
    worked: Option<Lower>,
    /// With [`TransportChoice::Auto`]: UDP gave nothing, TCP is to be tried.
    udp_failed: bool,
    /// The camera does not answer OPTIONS.
    without_options: bool,
    /// Which of [`GB_TRANSPORTS`] to try next.
    gb_transport: usize,
    failures: u32,
    auth_failures: u32,
    panics: u32,
    /// Why the last publisher left.
    left: Option<String>,
}

/// Records a camera until `stop` is requested, then seals what is open. `first_cause`: why there is no footage right before.
pub(crate) async fn run(
    config: Rc<CameraConfig>,
    recorder: Rc<RecorderConfig>,
    links: Rc<ShardLinks>,
    disk: Rc<Disk>,
    shared: Rc<Shared>,
    first_cause: Option<GapCause>,
    stop: Stop,
    stop_cause: impl Fn() -> GapCause,
) {
    let writer = spawn(
        Class::Recording,
        TaskName::of_camera(&config.name, "writer"),
        write(recorder.clone(), disk, shared.clone()),
    );
    let camera = Camera {
        config,
        recorder,
        links,
        shared: shared.clone(),
        stop,
        registration: RefCell::default(),
    };
    camera.connect_for_ever(first_cause).await;
    drop(camera);
    shared.end_run(stop_cause());
    shared.queue.close();
    if let Err(panicked) = writer.await {
        tracing::error!(%panicked, "a writer ended by itself");
    }
}

/// Runs the writer, and another one if it fails inside.
async fn write(recorder: Rc<RecorderConfig>, disk: Rc<Disk>, shared: Rc<Shared>) {
    let mut failed = false;
    loop {
        let mut writer = Writer::new(
            shared.name.clone(),
            disk.clone(),
            shared.queue.clone(),
            shared.clone(),
            recorder.sync.mul_f64(WRITE_SHARE),
        );
        if failed {
            let open = shared.take_open_segment();
            if let Some(key) = open.key {
                disk.file_closed();
                abandon(&disk, key).await;
            }
            writer = writer.resume(open.parameters);
        }
        let task = spawn(
            Class::Recording,
            TaskName::of_camera(&shared.name, "segments"),
            writer.run(),
        );
        match task.await {
            Ok(()) => return,
            Err(panicked) => {
                shared.note_panic();
                tracing::error!(camera = %shared.name, %panicked, "the writer failed inside and is started anew");
                failed = true;
                corenvr_shard::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

struct Camera {
    config: Rc<CameraConfig>,
    recorder: Rc<RecorderConfig>,
    links: Rc<ShardLinks>,
    shared: Rc<Shared>,
    stop: Stop,
    /// Where its publishers arrive, of a camera that pushes: kept between sessions, so that none is turned away meanwhile.
    registration: RefCell<Option<Rc<Registration>>>,
}

impl Camera {
    async fn connect_for_ever(&self, first_cause: Option<GapCause>) {
        let mut memory = Memory::default();
        let mut cause = first_cause;
        while !self.stop.is_requested() {
            if !matches!(
                self.shared.state(),
                CameraState::Down { .. } | CameraState::Refused { .. } | CameraState::Waiting { .. }
            ) {
                self.shared.set_state(CameraState::Connecting { since: wall_now() });
            }
            let began = Instant::now();
            let frames = self.shared.frame_count();
            let end = self.session(&memory, cause).await;
            if self.stop.is_requested() {
                return;
            }
            let recorded = self.shared.frame_count() > frames;
            if recorded {
                cause = Some(GapCause::CameraDown);
                self.shared.end_run(GapCause::CameraDown);
            }
            self.shared.not_receiving();
            let pause = self.judge(&mut memory, end, recorded, began.elapsed());
            if !pause.is_zero() {
                let _ = timeout(pause, self.stop.requested()).await;
            }
        }
    }

    /// One connection. `Err` with the message if it failed inside.
    async fn session(&self, memory: &Memory, cause: Option<GapCause>) -> Result<End, String> {
        let continuation = Continuation {
            cause,
            not_before: self.shared.last_frame(),
            limits: self.limits(),
        };
        self.shared.note_connect();
        let (sink, stop) = (shared::Recording(self.shared.clone()), self.stop.clone());
        let name = TaskName::of_camera(&self.config.name, "ingest");
        let task = match &self.config.source {
            Source::Rtsp(url) => {
                let target = self.rtsp_target(url, memory);
                spawn(Class::Recording, name, async move {
                    rtsp::run(&target, continuation, sink, &stop).await
                })
            }
            Source::Gb28181(url) => {
                let Some(reach) = self.links.gb28181.clone() else {
                    return Ok(End::new(EndKind::Unreachable, SWITCHED_OFF_GB28181));
                };
                let target = self.gb28181_target(url, memory);
                let units = gb28181::Recorded::new(continuation, sink, target.audio, target.silence);
                spawn(Class::Recording, name, async move {
                    gb28181::run(&target, &reach, units, &stop).await
                })
            }
            Source::Rtmp(url) => {
                let target = pull::Target {
                    url: (**url).clone(),
                    connect: self.recorder.connect,
                    terms: self.terms(),
                };
                spawn(Class::Recording, name, async move {
                    pull::run(&target, continuation, sink, &stop).await
                })
            }
            Source::RtmpListen(key) => {
                let registration = match self.registration(key) {
                    Ok(registration) => registration,
                    Err(end) => return Ok(end),
                };
                let (terms, left) = (self.terms(), memory.left.clone());
                spawn(Class::Recording, name, async move {
                    push::run(registration, terms, left, continuation, sink, &stop).await
                })
            }
        };
        match task.await {
            Ok(Ok(end)) => Ok(end),
            Ok(Err(panicked)) | Err(panicked) => Err(panicked.to_string()),
        }
    }

    fn terms(&self) -> Terms {
        Terms {
            audio: self.config.audio,
            silence: self.recorder.silence,
        }
    }

    /// The place of a camera that pushes; taken once and kept.
    fn registration(&self, key: &StreamKey) -> Result<Rc<Registration>, End> {
        if let Some(registration) = &*self.registration.borrow() {
            return Ok(registration.clone());
        }
        let refused = |reason: String| End::new(EndKind::NotFound, reason);
        let Some(publishers) = &self.links.rtmp else {
            let reason =
                "RTMP is switched off: set enabled = true in the section [rtmp] of the configuration and restart";
            return Err(refused(reason.to_owned()));
        };
        let registration = publishers.register(key, &self.config.name).map_err(|other| {
            refused(format!(
                "camera {other} has the same stream key: give each camera its own"
            ))
        })?;
        if key.is_short() {
            tracing::warn!(
                camera = %self.config.name,
                "its stream key has fewer than {KEY_LEN_GOOD} characters: whoever guesses it can record a false picture"
            );
        }
        let registration = Rc::new(registration);
        *self.registration.borrow_mut() = Some(registration.clone());
        Ok(registration)
    }

    fn rtsp_target(&self, url: &CameraUrl, memory: &Memory) -> Target {
        let transport = transport(self.config.transport, memory);
        let may_fall_back = self.config.transport == TransportChoice::Auto && transport == Lower::Udp;
        Target {
            camera: self.config.name.to_string(),
            url: url.clone(),
            transport,
            audio: self.config.audio,
            options_first: !memory.without_options,
            connect: self.recorder.connect,
            silence: self.recorder.silence,
            first_packet: may_fall_back.then_some(self.recorder.udp_silence),
        }
    }

    fn gb28181_target(&self, url: &Gb28181Url, memory: &Memory) -> gb28181::Target {
        gb28181::Target {
            camera: self.config.name.to_string(),
            url: url.clone(),
            kind: SessionKind::Play,
            transport: self.gb28181_transport(url, memory),
            audio: self.config.audio,
            silence: self.recorder.silence,
        }
    }

    /// The URL decides, then the setting, then what is to be tried next.
    fn gb28181_transport(&self, url: &Gb28181Url, memory: &Memory) -> MediaTransport {
        url.transport.unwrap_or(match self.config.transport {
            TransportChoice::Tcp => MediaTransport::TcpPassive,
            TransportChoice::Udp => MediaTransport::Udp,
            TransportChoice::Auto => GB_TRANSPORTS[memory.gb_transport % GB_TRANSPORTS.len()],
        })
    }

    /// Whether another transport may be tried than the one that failed.
    fn may_change_transport(&self) -> bool {
        match &self.config.source {
            Source::Gb28181(url) => url.transport.is_none() && self.config.transport == TransportChoice::Auto,
            _ => false,
        }
    }

    /// The first segment of a connection is between half as long and as long as the others, at each camera's own point.
    fn limits(&self) -> SegmentLimits {
        let length = self.recorder.segment;
        let share = 0.5 + phase_millionths(&self.config.name) as f64 / 2e6;
        SegmentLimits {
            length,
            first: length.mul_f64(share),
        }
    }

    /// Sets the state by how a session ended, and says how long to wait.
    fn judge(&self, memory: &mut Memory, end: Result<End, String>, recorded: bool, took: Duration) -> Duration {
        let end = match end {
            Ok(end) => end,
            Err(message) => return self.failed_inside(memory, message),
        };
        memory.panics = 0;
        if matches!(self.config.source, Source::RtmpListen(_)) && end.kind != EndKind::NotFound {
            // Publishers come back when they like: there is nothing to pause for.
            if self.shared.reason_is_new(&end.reason) {
                tracing::warn!(camera = %self.config.name, reason = %end.reason, "the publisher left");
            }
            memory.left = Some(end.reason);
            return PUBLISHER_PAUSE;
        }
        if recorded {
            memory.worked = Some(transport(self.config.transport, memory));
            memory.auth_failures = 0;
            if took >= GOOD_SESSION {
                memory.failures = 0;
            }
        }
        let auto = self.config.transport == TransportChoice::Auto;
        let asked = transport(self.config.transport, memory);
        let is_rtsp = matches!(self.config.source, Source::Rtsp(_));
        match end.kind {
            EndKind::NeedKeyFrame => {
                tracing::warn!(camera = %self.config.name, "{}", end.reason);
                return Duration::ZERO;
            }
            EndKind::OptionsUnanswered if !memory.without_options => {
                memory.without_options = true;
                return Duration::from_millis(500);
            }
            EndKind::NoPacket | EndKind::TransportRefused if self.may_change_transport() => memory.gb_transport += 1,
            EndKind::NoPacket | EndKind::TransportRefused if auto && asked == Lower::Udp && is_rtsp => {
                tracing::info!(camera = %self.config.name, reason = %end.reason, "UDP does not work, trying TCP");
                memory.udp_failed = true;
                memory.worked = None;
                return Duration::from_millis(200);
            }
            _ => {}
        }
        if !recorded {
            // What worked before does not now: begin from the start.
            memory.worked = None;
            memory.udp_failed = false;
            memory.without_options = memory.without_options && end.kind != EndKind::OptionsUnanswered;
        }
        self.down(memory, end)
    }

    fn down(&self, memory: &mut Memory, end: End) -> Duration {
        let pause = if end.kind == EndKind::Unauthorized {
            memory.auth_failures += 1;
            let doubled = AUTH_PAUSE_MIN.saturating_mul(1 << memory.auth_failures.min(8).saturating_sub(1));
            doubled.min(self.recorder.auth_pause)
        } else {
            memory.failures += 1;
            let (first, longest) = self.recorder.backoff;
            first
                .saturating_mul(1 << memory.failures.min(16).saturating_sub(1))
                .min(longest)
        };
        // Cameras that went away together do not come back in step.
        let pause = pause.mul_f64(0.75 + rand::random::<f64>() / 2.0);
        let next_try = wall_now() + pause;
        let since = match self.shared.state() {
            CameraState::Down { since, .. } | CameraState::Refused { since, .. } => since,
            _ => wall_now(),
        };
        let reason = end.reason;
        if self.shared.reason_is_new(&reason) {
            tracing::warn!(camera = %self.config.name, %reason, retry_s = pause.as_secs(), "camera is not recorded");
        }
        self.shared.set_state(match end.kind {
            EndKind::Unauthorized | EndKind::NotFound | EndKind::NoVideo => CameraState::Refused {
                reason,
                since,
                next_try,
            },
            _ => CameraState::Down {
                reason,
                since,
                next_try,
            },
        });
        pause
    }

    fn failed_inside(&self, memory: &mut Memory, message: String) -> Duration {
        self.shared.note_panic();
        memory.panics += 1;
        if memory.panics < PANICS_MAX {
            return Duration::from_secs(1);
        }
        memory.panics = 0;
        tracing::error!(camera = %self.config.name, %message, "camera is left alone for {} s", QUARANTINE.as_secs());
        self.shared.set_state(CameraState::Quarantined {
            reason: message,
            until: wall_now() + QUARANTINE,
        });
        QUARANTINE
    }
}

const SWITCHED_OFF_GB28181: &str =
    "GB28181 is switched off: write a section [gb28181] into the configuration and restart corenvr";

/// What to ask for: as configured, or what worked last, or UDP first.
fn transport(choice: TransportChoice, memory: &Memory) -> Lower {
    match choice {
        TransportChoice::Tcp => Lower::Tcp,
        TransportChoice::Udp => Lower::Udp,
        TransportChoice::Auto if memory.udp_failed => Lower::Tcp,
        TransportChoice::Auto => memory.worked.unwrap_or(Lower::Udp),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use corenvr_media::CameraName;

    use super::*;
    use crate::writer::{Budget, Queue};

    fn camera() -> Camera {
        let source = Source::parse("rtsp://192.0.2.1/a").unwrap();
        let config = CameraConfig::new(CameraName::new("gate").unwrap(), source);
        let queue = Rc::new(Queue::new(1 << 20, Budget::new(1 << 20)));
        let shared = Shared::new(&config, 0, queue, Rc::new(RefCell::default()), 1 << 20);
        Camera {
            config: Rc::new(config),
            recorder: Rc::new(RecorderConfig::default()),
            links: Rc::default(),
            shared: Rc::new(shared),
            stop: Stop::default(),
            registration: RefCell::default(),
        }
    }

    fn end(kind: EndKind) -> End {
        End {
            kind,
            reason: "because".into(),
        }
    }

    #[test]
    fn two_failures_inside_in_a_row_quarantine_and_one_does_not() {
        let (camera, mut memory) = (camera(), Memory::default());
        let short = Duration::from_secs(1);
        let fails = |memory: &mut Memory| camera.judge(memory, Err("panicked".into()), false, short);
        assert!(fails(&mut memory) < QUARANTINE);
        camera.judge(&mut memory, Ok(end(EndKind::Closed)), true, short);
        assert!(fails(&mut memory) < QUARANTINE);
        assert_eq!(fails(&mut memory), QUARANTINE);
        assert!(matches!(camera.shared.state(), CameraState::Quarantined { .. }));
        assert_eq!(camera.shared.status().counters.panics, 3);
    }

    #[test]
    fn pauses_grow_to_a_limit_and_a_good_session_makes_them_short_again() {
        let (camera, mut memory) = (camera(), Memory::default());
        let mut down =
            |kind, recorded, took| camera.judge(&mut memory, Ok(end(kind)), recorded, Duration::from_secs(took));
        assert!(down(EndKind::Unreachable, false, 1) < Duration::from_secs(2));
        for _ in 0..40 {
            assert!(down(EndKind::Silent, false, 1) <= Duration::from_secs(75));
        }
        assert!(down(EndKind::Unreachable, false, 1) >= Duration::from_secs(45));
        assert!(down(EndKind::Closed, true, 100) < Duration::from_secs(2));
        assert!(down(EndKind::Unauthorized, false, 1) >= Duration::from_secs(22));
        for _ in 0..10 {
            down(EndKind::Unauthorized, false, 1);
        }
        assert!(down(EndKind::Unauthorized, false, 1) >= Duration::from_secs(225));
    }

    #[test]
    fn what_worked_is_tried_first_and_forgotten_when_it_fails() {
        let (camera, mut memory) = (camera(), Memory::default());
        let short = Duration::from_secs(1);
        let auto = TransportChoice::Auto;
        assert_eq!(transport(auto, &memory), Lower::Udp);
        camera.judge(&mut memory, Ok(end(EndKind::NoPacket)), false, short);
        assert_eq!(transport(auto, &memory), Lower::Tcp);
        camera.judge(&mut memory, Ok(end(EndKind::Closed)), true, short);
        assert_eq!(transport(auto, &memory), Lower::Tcp);
        camera.judge(&mut memory, Ok(end(EndKind::TransportRefused)), false, short);
        assert_eq!(transport(auto, &memory), Lower::Udp);
        assert_eq!(transport(TransportChoice::Tcp, &memory), Lower::Tcp);
    }
}
