//! What is recorded is what was sent, whatever the transport, the camera and the disk do.

use std::{
    path::Path,
    rc::Rc,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use corenvr_media::{CameraName, Frame, TimeRange, TrackId, WallTime};
use corenvr_shard::{Class, ShardContext, ShardId, Stop, Task, Worker, run_control, spawn, time::sleep};
use corenvr_store::{
    Archive, GapCause, SegmentMeta, SegmentState,
    archive::ArchiveOptions,
    live::{LiveItem, LiveSink, LiveStart, Subscribe},
    mkv::reader::{Timebase, parse_cluster, verify_cluster},
};

use super::camera::{Camera, Script};
use crate::{
    CameraConfig, CameraMode, CameraState, CameraStatus, ProbeError, RecorderConfig, RecorderHandle, Source, Storage,
    TransportChoice, probe, retention, run_shard,
};

/// Nothing here takes longer on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Recorder {
    handle: RecorderHandle,
    stop: Stop,
    shard: Task<()>,
    storages: Arc<[Storage]>,
}

impl Recorder {
    fn start(directories: &[&Path], config: RecorderConfig) -> Self {
        let storages: Arc<[Storage]> = directories
            .iter()
            .map(|path| {
                let mut archive = Archive::open(&ArchiveOptions::new(*path)).unwrap();
                archive.recover(&mut |_| ()).unwrap();
                Storage {
                    path: path.to_path_buf(),
                    archive: Worker::start("archive", 1024, archive).unwrap().0,
                    load: Arc::default(),
                }
            })
            .collect();
        let (handle, inboxes) = RecorderHandle::new(1);
        let stop = Stop::default();
        let context = ShardContext {
            id: ShardId(0),
            count: 1,
            cpu: 0,
            stop: stop.clone(),
        };
        let inbox = inboxes.take(ShardId(0)).unwrap();
        let (full, _) = retention::channel();
        let shard = run_shard(context, inbox, storages.clone(), config, full, crate::Links::default());
        Self {
            handle,
            stop,
            shard: spawn(Class::Recording, "recorder", shard),
            storages,
        }
    }

    async fn status(&self, name: &str) -> CameraStatus {
        self.handle.camera_status(&camera_name(name)).await.unwrap().unwrap()
    }

    /// Waits until the camera's status satisfies `wanted`.
    async fn until(&self, name: &str, what: &str, wanted: impl Fn(&CameraStatus) -> bool) -> CameraStatus {
        let begun = Instant::now();
        loop {
            let status = self.status(name).await;
            if wanted(&status) {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "never {what}: {status:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn finish(self) -> Arc<[Storage]> {
        self.stop.request();
        self.shard.await.unwrap();
        self.storages
    }
}

fn camera_name(name: &str) -> CameraName {
    CameraName::new(name).unwrap()
}

fn quick() -> RecorderConfig {
    RecorderConfig {
        segment: Duration::from_secs(2),
        sync: Duration::from_millis(500),
        silence: Duration::from_secs(4),
        udp_silence: Duration::from_secs(2),
        backoff: (Duration::from_millis(200), Duration::from_secs(2)),
        ..RecorderConfig::default()
    }
}

fn settings(name: &str, url: &str, transport: TransportChoice) -> CameraConfig {
    CameraConfig {
        transport,
        ..CameraConfig::new(camera_name(name), Source::parse(url).unwrap())
    }
}

/// All segments of a camera, each with its frames, as the archive and the files have them.
async fn read_back(storage: &Storage, name: &str) -> Vec<(Arc<SegmentMeta>, Vec<Frame>)> {
    let all = TimeRange {
        start: WallTime::MIN,
        end: WallTime::MAX,
    };
    let name = camera_name(name);
    let segments = storage
        .archive
        .call(move |a| a.segments(&name, all))
        .await
        .unwrap()
        .unwrap();
    segments
        .into_iter()
        .map(|meta| {
            let file = Bytes::from(std::fs::read(&meta.path).unwrap());
            let time = Timebase::new(meta.key.start, &meta.tracks);
            let mut frames = Vec::new();
            for c in &meta.table.clusters {
                let bytes = file.slice(c.offset as usize..c.offset as usize + c.len as usize);
                verify_cluster(&bytes, c.offset).unwrap();
                frames.extend(parse_cluster(&bytes, c.offset, &time).unwrap());
            }
            (meta, frames)
        })
        .collect()
}

fn of_track(segments: &[(Arc<SegmentMeta>, Vec<Frame>)], track: u8) -> Vec<Frame> {
    let all = segments.iter().flat_map(|(_, frames)| frames);
    all.filter(|f| f.track == TrackId(track)).cloned().collect()
}

/// Every picture recorded is one that was sent, in order, once, and from the first to the last none is missing except `holes`.
fn assert_pictures(camera: &Camera, recorded: &[Frame], holes: usize) -> u32 {
    let sent = camera.log.pictures.borrow();
    let mut numbers = Vec::new();
    for frame in recorded {
        let found = sent.iter().find(|(_, data)| **data == frame.data);
        numbers.push(*found.expect("a recorded picture was never sent").0);
    }
    assert!(numbers.windows(2).all(|w| w[0] < w[1]), "twice or out of order");
    let jumps = numbers.windows(2).filter(|w| w[1] != w[0] + 1).count();
    assert_eq!(jumps, holes, "missing pictures: {numbers:?}");
    numbers.len() as u32
}

fn assert_pictures_once(camera: &Camera, recorded: &[Frame]) {
    let sent = camera.log.pictures.borrow();
    let number = |f: &Frame| *sent.iter().find(|(_, data)| **data == f.data).expect("never sent").0;
    let numbers: std::collections::BTreeSet<_> = recorded.iter().map(number).collect();
    assert_eq!(numbers.len(), recorded.len());
}

/// The sound recorded is what was sent, from some packet on without a hole.
fn assert_sounds(camera: &Camera, recorded: &[Frame]) {
    let sent = camera.log.sounds.borrow();
    let found: Vec<_> = recorded.iter().map(|f| f.data.clone()).collect();
    let first = sent.values().position(|s| *s == found[0]).unwrap();
    assert!(found.len() > 300 && sent.values().skip(first).zip(&found).all(|(a, b)| a == b));
}

/// Opens an archive again as a restart does, once the thread that had it has let go.
async fn reopen(path: &Path) -> Storage {
    let begun = Instant::now();
    let mut archive = loop {
        match Archive::open(&ArchiveOptions::new(path)) {
            Ok(archive) => break archive,
            Err(e) => assert!(begun.elapsed() < PATIENCE, "{e}"),
        }
        sleep(Duration::from_millis(50)).await;
    };
    archive.recover(&mut |_| ()).unwrap();
    Storage {
        path: path.to_path_buf(),
        archive: Worker::start("archive", 1024, archive).unwrap().0,
        load: Arc::default(),
    }
}

fn assert_segments(segments: &[(Arc<SegmentMeta>, Vec<Frame>)]) {
    for (meta, frames) in segments {
        assert_eq!(meta.state, SegmentState::Sealed);
        let first = frames.iter().find(|f| f.track == TrackId(0)).unwrap();
        assert!(first.key, "a segment starts with a key frame");
        assert!(meta.path.to_string_lossy().ends_with("Z.mkv"));
    }
}

fn records_over(transport: TransportChoice, wire: &str) {
    let dir = tempfile::tempdir().unwrap();
    run_control(async {
        let camera = Camera::start(Script::default());
        let recorder = Recorder::start(&[dir.path()], quick());
        recorder
            .handle
            .apply(settings("gate", &camera.url(), transport))
            .await
            .unwrap();
        let status = recorder
            .until("gate", "recorded seven seconds", |s| s.counters.frames_durable > 650)
            .await;
        assert!(matches!(status.state, CameraState::Recording { .. }));
        assert_eq!(status.transport, Some(wire));
        assert_eq!(
            status.streams.iter().map(|s| s.codec.as_str()).collect::<Vec<_>>(),
            ["H264", "PCMA"]
        );
        assert!((status.counters.fps - 50.0).abs() < 15.0, "{}", status.counters.fps);
        let stopping = Instant::now();
        let storages = recorder.finish().await;
        assert!(stopping.elapsed() < Duration::from_secs(10));
        let segments = read_back(&storages[0], "gate").await;
        assert!(segments.len() >= 3, "{} segments", segments.len());
        assert_segments(&segments);
        let pictures = of_track(&segments, 0);
        assert!(assert_pictures(&camera, &pictures, 0) > 300);
        assert!(pictures.windows(2).all(|w| {
            let spacing = w[1].time.micros_since(w[0].time);
            (18_000..=22_000).contains(&spacing)
        }));
        let lag = wall().micros_since(pictures.last().unwrap().time);
        assert!((0..20_000_000).contains(&lag), "{lag}");
        let sounds = of_track(&segments, 1);
        assert_sounds(&camera, &sounds);
        assert!(segments[1..].iter().all(|(m, _)| m.gap_before.is_none()));
        assert!(camera.log.teardowns.get() >= 1, "the session is ended politely");
        let name = camera_name("gate");
        let all = TimeRange {
            start: WallTime::MIN,
            end: WallTime::MAX,
        };
        let timeline = storages[0]
            .archive
            .call(move |a| a.timeline(&name, all))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(timeline.spans.len(), 1);
    })
    .unwrap();
}

fn wall() -> WallTime {
    WallTime::from_micros(corenvr_shard::time::wall_now_micros())
}

#[test]
fn records_over_tcp_bit_for_bit() {
    records_over(TransportChoice::Tcp, "tcp");
}

#[test]
fn records_over_udp_bit_for_bit() {
    records_over(TransportChoice::Udp, "udp");
}

#[test]
fn auto_takes_udp_and_falls_back_where_it_is_refused_or_silent() {
    for (script, wire) in [
        (Script::default(), "udp"),
        (
            Script {
                refuse_udp: true,
                ..Script::default()
            },
            "tcp",
        ),
        (
            Script {
                deaf_udp: true,
                hang_up_at: Some(200),
                ..Script::default()
            },
            "tcp",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        run_control(async {
            let hangs_up = script.hang_up_at.is_some();
            let camera = Camera::start(script);
            let recorder = Recorder::start(&[dir.path()], quick());
            recorder
                .handle
                .apply(settings("gate", &camera.url(), TransportChoice::Auto))
                .await
                .unwrap();
            let status = recorder
                .until("gate", "recorded", |s| s.counters.frames_durable > 150)
                .await;
            assert_eq!(status.transport, Some(wire));
            if hangs_up {
                recorder
                    .until("gate", "recorded again", |s| s.counters.frames_durable > 600)
                    .await;
                assert_eq!(
                    camera.log.connections.get(),
                    3,
                    "what worked is tried first the next time"
                );
            }
            recorder.finish().await;
        })
        .unwrap();
    }
}

#[test]
fn a_camera_that_comes_back_is_recorded_again_with_the_gap_told() {
    let dir = tempfile::tempdir().unwrap();
    run_control(async {
        let camera = Camera::start(Script {
            hang_up_at: Some(120),
            ..Script::default()
        });
        let recorder = Recorder::start(&[dir.path()], quick());
        recorder
            .handle
            .apply(settings("gate", &camera.url(), TransportChoice::Tcp))
            .await
            .unwrap();
        recorder
            .until("gate", "recorded on", |s| s.counters.frames_durable > 400)
            .await;
        let storages = recorder.finish().await;
        let segments = read_back(&storages[0], "gate").await;
        assert_segments(&segments);
        assert_pictures(&camera, &of_track(&segments, 0), 1);
        let causes: Vec<_> = segments.iter().filter_map(|(m, _)| m.gap_before).collect();
        assert_eq!(causes, [GapCause::CameraDown]);
    })
    .unwrap();
}

#[test]
fn a_reset_of_stamps_and_a_change_of_size_each_start_a_segment_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    run_control(async {
        let script = Script {
            reset_at: Some(130),
            resize_at: Some(250),
            ..Script::default()
        };
        let camera = Camera::start(script);
        let config = RecorderConfig {
            segment: Duration::from_secs(60),
            ..quick()
        };
        let recorder = Recorder::start(&[dir.path()], config);
        recorder
            .handle
            .apply(settings("gate", &camera.url(), TransportChoice::Tcp))
            .await
            .unwrap();
        recorder
            .until("gate", "recorded", |s| s.counters.frames_durable > 700)
            .await;
        let storages = recorder.finish().await;
        let segments = read_back(&storages[0], "gate").await;
        assert_segments(&segments);
        assert_eq!(
            segments.iter().map(|(m, _)| m.gap_before).collect::<Vec<_>>(),
            [None, Some(GapCause::Clock), None]
        );
        let pictures = of_track(&segments, 0);
        assert_pictures(&camera, &pictures, 0);
        let first_of = |i: usize| {
            segments[i]
                .1
                .iter()
                .find(|f| f.track == TrackId(0))
                .unwrap()
                .data
                .clone()
        };
        assert_eq!(first_of(1), camera.log.pictures.borrow()[&150]);
        assert_eq!(first_of(2), camera.log.pictures.borrow()[&250]);
        assert_ne!(segments[1].0.tracks, segments[2].0.tracks);
        assert!(
            pictures
                .windows(2)
                .all(|w| (0..=60_000).contains(&w[1].time.micros_since(w[0].time)))
        );
    })
    .unwrap();
}

#[test]
fn a_wrong_password_is_told_and_not_hammered() {
    let dir = tempfile::tempdir().unwrap();
    run_control(async {
        let camera = Camera::start(Script {
            password: Some("right"),
            ..Script::default()
        });
        let recorder = Recorder::start(&[dir.path()], quick());
        let with = |user: &str| format!("rtsp://{user}@{}/stream", camera.address);
        recorder
            .handle
            .apply(settings("gate", &with("me:wrong"), TransportChoice::Tcp))
            .await
            .unwrap();
        let status = recorder
            .until("gate", "refused", |s| matches!(s.state, CameraState::Refused { .. }))
            .await;
        assert!(!format!("{status:?}").contains("wrong@"), "{status:?}");
        sleep(Duration::from_secs(3)).await;
        assert_eq!(camera.log.connections.get(), 1);
        assert!(matches!(
            probe(&Source::parse(&with("me:wrong")).unwrap(), TransportChoice::Tcp).await,
            Err(ProbeError::Unauthorized(_))
        ));
        recorder
            .handle
            .apply(settings("gate", &with("me:right"), TransportChoice::Tcp))
            .await
            .unwrap();
        recorder
            .until("gate", "recording", |s| s.counters.frames_durable > 50)
            .await;
        recorder.finish().await;
    })
    .unwrap();
}

#[test]
fn what_cannot_be_recorded_is_told_in_words() {
    let dir = tempfile::tempdir().unwrap();
    run_control(async {
        let deaf = Camera::start(Script {
            no_video: true,
            ..Script::default()
        });
        let silent = Camera::start(Script {
            silent: true,
            ..Script::default()
        });
        let recorder = Recorder::start(&[dir.path()], quick());
        let tcp = TransportChoice::Tcp;
        recorder
            .handle
            .apply(settings("sound", &deaf.url(), tcp))
            .await
            .unwrap();
        recorder
            .handle
            .apply(settings("silent", &silent.url(), tcp))
            .await
            .unwrap();
        recorder
            .handle
            .apply(settings("away", "rtsp://127.0.0.1:1/x", tcp))
            .await
            .unwrap();
        let reason = |s: &CameraStatus| match &s.state {
            CameraState::Refused { reason, .. } | CameraState::Down { reason, .. } => reason.clone(),
            _ => String::new(),
        };
        let s = recorder
            .until("sound", "refused", |s| matches!(s.state, CameraState::Refused { .. }))
            .await;
        assert!(reason(&s).contains("no video") && reason(&s).contains("PCMA"), "{s:?}");
        let s = recorder
            .until("silent", "down", |s| matches!(s.state, CameraState::Down { .. }))
            .await;
        assert!(reason(&s).contains("sent nothing"), "{s:?}");
        let s = recorder
            .until("away", "down", |s| matches!(s.state, CameraState::Down { .. }))
            .await;
        assert!(reason(&s).contains("127.0.0.1:1"), "{s:?}");
        recorder
            .until("away", "tried again and again", |s| s.counters.connects >= 3)
            .await;
        let error = probe(&Source::parse(&deaf.url()).unwrap(), tcp).await.unwrap_err();
        assert!(matches!(error, ProbeError::NoVideo(_)), "{error}");
        recorder.finish().await;
    })
    .unwrap();
}

#[test]
fn a_probe_measures_what_it_finds() {
    run_control(async {
        let camera = Camera::start(Script::default());
        let report = probe(&Source::parse(&camera.url()).unwrap(), TransportChoice::Auto)
            .await
            .unwrap();
        assert_eq!(report.transport, "udp");
        assert_eq!((report.streams[0].info.width, report.streams[0].info.height), (64, 64));
        assert!((report.streams[0].fps.unwrap() - 50.0).abs() < 10.0, "{report:?}");
        assert_eq!(report.streams[1].info.codec, "PCMA");
    })
    .unwrap();
}

#[test]
fn unchanged_settings_touch_nothing_and_removal_seals() {
    let dir = tempfile::tempdir().unwrap();
    run_control(async {
        let camera = Camera::start(Script::default());
        let recorder = Recorder::start(&[dir.path()], quick());
        let config = settings("gate", &camera.url(), TransportChoice::Tcp);
        recorder.handle.apply(config.clone()).await.unwrap();
        recorder
            .until("gate", "recording", |s| s.counters.frames_durable > 100)
            .await;
        recorder.handle.apply(config.clone()).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(camera.log.connections.get(), 1);
        let off = CameraConfig {
            mode: CameraMode::Off,
            ..config
        };
        recorder.handle.apply(off).await.unwrap();
        recorder
            .until("gate", "off", |s| s.state == CameraState::Disabled)
            .await;
        assert!(recorder.handle.remove(&camera_name("gate")).await.unwrap());
        assert!(!recorder.handle.remove(&camera_name("gate")).await.unwrap());
        assert!(recorder.handle.status().await.unwrap().is_empty());
        let segments = read_back(&recorder.storages[0], "gate").await;
        assert_segments(&segments);
        assert_pictures(&camera, &of_track(&segments, 0), 0);
        recorder.finish().await;
    })
    .unwrap();
}

#[derive(Default)]
struct Viewed {
    started: bool,
    frames: Vec<Frame>,
    ended: bool,
}

struct Viewer(Arc<Mutex<Viewed>>);

impl LiveSink for Viewer {
    fn start(&mut self, start: LiveStart) -> bool {
        let mut seen = self.0.lock().unwrap();
        seen.started = true;
        seen.frames.extend(start.backlog);
        true
    }

    fn send(&mut self, item: LiveItem) -> bool {
        let mut seen = self.0.lock().unwrap();
        match item {
            LiveItem::Frame(frame) => seen.frames.push(frame),
            LiveItem::End => seen.ended = true,
            LiveItem::Parameters(_) | LiveItem::Gap(_) => {}
        }
        true
    }
}

#[test]
fn viewers_see_every_frame_from_a_key_frame_on_also_those_who_came_too_early() {
    let dir = tempfile::tempdir().unwrap();
    run_control(async {
        let camera = Camera::start(Script::default());
        let recorder = Recorder::start(&[dir.path()], quick());
        recorder
            .handle
            .apply(settings("gate", &camera.url(), TransportChoice::Tcp))
            .await
            .unwrap();
        let watch = |name: &str| {
            let seen = Arc::new(Mutex::new(Viewed::default()));
            let subscribe = Subscribe {
                camera: camera_name(name),
                from: None,
                sink: Box::new(Viewer(seen.clone())),
            };
            assert!(recorder.handle.subscribe(subscribe).is_ok());
            seen
        };
        let early = watch("gate");
        let nobody = watch("nobody");
        recorder
            .until("gate", "recording", |s| s.counters.frames_durable > 150)
            .await;
        let late = watch("gate");
        recorder
            .until("gate", "recording", |s| s.counters.frames_durable > 350)
            .await;
        recorder.finish().await;
        assert!(nobody.lock().unwrap().ended && !nobody.lock().unwrap().started);
        for seen in [early, late] {
            let seen = seen.lock().unwrap();
            assert!(seen.started && seen.ended);
            let pictures: Vec<_> = seen.frames.iter().filter(|f| f.track == TrackId(0)).cloned().collect();
            assert!(pictures[0].key);
            assert!(assert_pictures(&camera, &pictures, 0) > 50);
        }
    })
    .unwrap();
}

#[test]
fn a_disk_that_fails_stops_only_its_own_cameras_and_heals() {
    let (good, bad) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run_control(async {
        let camera = Rc::new(Camera::start(Script {
            sound: false,
            ..Script::default()
        }));
        let recorder = Recorder::start(&[good.path(), bad.path()], quick());
        for (name, storage) in [("good", 0), ("bad", 1)] {
            let mut config = settings(name, &camera.url(), TransportChoice::Tcp);
            config.storage = storage;
            recorder.handle.apply(config).await.unwrap();
        }
        recorder.until("bad", "recorded", |s| s.counters.segments >= 2).await;
        // A file where the camera's directory is to be: nothing can be created there, whoever asks.
        let (dir, aside) = (bad.path().join("bad"), bad.path().join("aside"));
        std::fs::rename(&dir, &aside).unwrap();
        std::fs::write(&dir, "in the way").unwrap();
        let failing = recorder
            .until("bad", "told the disk's error", |s| s.disk_error.is_some())
            .await;
        assert!(matches!(failing.state, CameraState::Recording { .. }));
        let before = recorder.status("good").await.counters.frames_durable;
        recorder
            .until("good", "went on", |s| s.counters.frames_durable > before + 100)
            .await;
        std::fs::remove_file(&dir).unwrap();
        std::fs::rename(&aside, &dir).unwrap();
        let durable = recorder.status("bad").await.counters.frames_durable;
        let healed = recorder
            .until("bad", "healed", |s| {
                s.disk_error.is_none() && s.counters.frames_durable > durable + 100
            })
            .await;
        assert_eq!(recorder.status("good").await.counters.frames_dropped, 0);
        let storages = recorder.finish().await;
        let good = read_back(&storages[0], "good").await;
        assert_segments(&good);
        assert!(good.iter().all(|(m, _)| m.gap_before.is_none()));
        // What was written while its directory was away cannot be named then; the next start finds it.
        drop(storages);
        let archive = reopen(bad.path()).await;
        let pictures = of_track(&read_back(&archive, "bad").await, 0);
        assert!(
            pictures.len() as u64 >= healed.counters.frames_durable,
            "{} of {healed:?}",
            pictures.len()
        );
        assert_pictures_once(&camera, &pictures);
    })
    .unwrap();
}
