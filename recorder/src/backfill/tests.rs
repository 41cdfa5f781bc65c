//! What a device's archive sends becomes footage at its time, and never on other footage.

use std::{
    path::Path,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use corenvr_media::{
    AudioCodec, AudioParameters, CameraName, CodecParameters, Frame, TimeRange, TrackId, VideoCodec, VideoParameters,
    WallTime,
};
use corenvr_proto::{gb28181::url::Gb28181Url, rtp::depacketize::AccessUnit};
use corenvr_shard::{Worker, run_control, time::sleep};
use corenvr_store::{
    Archive, ClusterSpan, GapCause, SegmentHeader, SegmentMeta, SegmentState,
    archive::ArchiveOptions,
    mkv::{
        file::SegmentFile,
        reader::{Timebase, parse_cluster, verify_cluster},
    },
};
use proptest::prelude::*;

use super::{
    BackfillSpan, BackfillState,
    filling::{Filling, Told},
    job::{Job, Plan},
    line::{Ended, Line, Out},
};
use crate::{
    RecorderConfig, Storage,
    gb28181::{MediaPorts, signalling},
    ingest::{
        End, EndKind,
        gb28181::{Reach, Units},
    },
    pipeline::Track,
    retention,
    writer::{Budget, Disk, Queue},
};

/// 2026-11-20T10:00:00.000123Z.
const START: WallTime = WallTime::from_micros(1_795_168_800_000_123);
const TICKS_40_MS: u32 = 3600;

fn at(s: f64) -> WallTime {
    START.offset((s * 1e6) as i64)
}

fn window(from: f64, to: f64) -> TimeRange {
    TimeRange::new(at(from), at(to)).unwrap()
}

fn video() -> CodecParameters {
    CodecParameters::Video(VideoParameters {
        codec: VideoCodec::Mjpeg,
        extra: Bytes::new(),
        width: 64,
        height: 64,
        frame_rate: None,
    })
}

fn audio() -> CodecParameters {
    CodecParameters::Audio(AudioParameters {
        codec: AudioCodec::Pcma,
        extra: Bytes::new(),
        sample_rate: 8000,
        channels: 1,
    })
}

fn unit(timestamp: u32, key: bool, text: &str) -> AccessUnit {
    AccessUnit {
        timestamp,
        key,
        data: Bytes::copy_from_slice(text.as_bytes()),
        lost: 0,
        damaged: false,
        parameters: None,
    }
}

/// `seconds` of 25 pictures a second in groups of 25 with sound every 40 ms, both on one clock that begins at `first`.
fn stream(first: u32, seconds: u32) -> Vec<(Track, AccessUnit)> {
    let mut units = Vec::new();
    for n in 0..seconds * 25 {
        let stamp = first.wrapping_add(n * TICKS_40_MS);
        let mut picture = unit(stamp, n % 25 == 0, &format!("picture {n}"));
        picture.parameters = (n == 0).then(|| Arc::new(video()));
        units.push((Track::Video, picture));
        let mut sound = unit(stamp, true, &format!("sound {n}"));
        sound.parameters = (n == 0).then(|| Arc::new(audio()));
        units.push((Track::Audio, sound));
    }
    units
}

fn run(line: &mut Line, units: impl IntoIterator<Item = (Track, AccessUnit)>) -> Vec<Out> {
    for (track, unit) in units {
        line.unit(track, 90_000, unit);
    }
    drained(line)
}

fn drained(line: &mut Line) -> Vec<Out> {
    std::iter::from_fn(|| line.poll()).collect()
}

fn frames(out: &[Out]) -> Vec<&Frame> {
    let mut list = Vec::new();
    for o in out {
        if let Out::Frame(f) = o {
            list.push(f);
        }
    }
    list
}

/// The frames of each segment.
fn segments(out: &[Out]) -> Vec<Vec<&Frame>> {
    let mut list: Vec<Vec<&Frame>> = Vec::new();
    for o in out {
        match o {
            Out::Segment(_) => list.push(Vec::new()),
            Out::Frame(f) => list.last_mut().expect("a segment comes first").push(f),
        }
    }
    list
}

#[test]
fn the_first_picture_is_of_the_moment_asked_for_and_the_others_keep_their_distances() {
    for first in [0, 1234, u32::MAX - 50 * TICKS_40_MS] {
        let mut line = Line::new(window(0.0, 60.0), 300_000_000);
        let mut out = run(&mut line, stream(first, 5));
        line.finish();
        out.extend(drained(&mut line));
        assert!(matches!(&out[0], Out::Segment(p) if **p == [video(), audio()]));
        for track in [0, 1] {
            let times: Vec<_> = frames(&out)
                .iter()
                .filter(|f| f.track.0 == track)
                .map(|f| f.time)
                .collect();
            let expected: Vec<_> = (0..125).map(|n| at(f64::from(n) * 0.04)).collect();
            assert_eq!(times, expected);
        }
        assert_eq!((line.left_out(), line.holes(), line.ended()), (0, 0, None));
    }
}

#[test]
fn what_comes_before_a_key_frame_or_outside_the_window_is_left_out() {
    let mut line = Line::new(window(0.0, 2.5), 300_000_000);
    let mut units = stream(0, 5);
    // The parameters come with the first picture, which is lost.
    let parameters = units[0].1.parameters.clone();
    units[3].1.parameters = units[1].1.parameters.clone();
    units.drain(..2);
    units[0].1.parameters = parameters;
    let out = run(&mut line, units);
    assert_eq!(line.ended(), Some(&Ended::Complete));
    let pictures: Vec<_> = frames(&out).into_iter().filter(|f| f.track.0 == 0).collect();
    assert_eq!((pictures[0].time, &pictures[0].data[..]), (at(0.0), &b"picture 25"[..]));
    assert!(
        frames(&out)
            .iter()
            .all(|f| f.time >= at(0.0) && f.time.offset(1000) <= at(2.5))
    );
    assert_eq!(pictures.len(), 63);
    assert_eq!(line.left_out(), 24 + 24, "what came before the first picture");
}

#[test]
fn segments_are_cut_at_key_frames_and_nothing_of_one_is_later_than_the_start_of_the_next() {
    let mut line = Line::new(window(0.0, 60.0), 2_000_000);
    // Sound comes late and ahead in turns.
    let mut units = stream(7, 10);
    for n in (1..units.len() - 40).step_by(2) {
        let ahead = if n % 100 < 50 { 20 } else { 0 };
        units.swap(n, n + ahead);
    }
    let mut out = run(&mut line, units);
    line.finish();
    out.extend(drained(&mut line));
    let list = segments(&out);
    assert_eq!(list.len(), 5);
    for pair in list.windows(2) {
        let last = pair[0].iter().map(|f| f.time).max().unwrap();
        let first = pair[1].iter().map(|f| f.time).min().unwrap();
        assert!(last < first, "{last:?} {first:?}");
        assert!(pair[1].iter().find(|f| f.track.0 == 0).unwrap().key);
    }
    assert_eq!(frames(&out).len() as u64 + line.left_out(), 500);
    assert_eq!(frames(&out).iter().filter(|f| f.track.0 == 0).count(), 250);
}

#[test]
fn stamps_that_leap_end_it_and_a_hole_begins_another_segment() {
    let leap = |ticks: i64| {
        let mut line = Line::new(window(0.0, 600.0), 300_000_000);
        let mut units = stream(1 << 30, 4);
        for (_, u) in &mut units[100..] {
            u.timestamp = u.timestamp.wrapping_add_signed(ticks as i32);
        }
        let mut out = run(&mut line, units);
        line.finish();
        out.extend(drained(&mut line));
        let pictures = frames(&out).iter().filter(|f| f.track.0 == 0).count();
        (pictures, segments(&out).len(), line.holes(), line.ended().cloned())
    };
    for ticks in [11 * 90_000, -2 * 90_000, 1_000_000_000] {
        let (pictures, segments, _, ended) = leap(ticks);
        assert_eq!((pictures, segments), (50, 1));
        assert!(matches!(ended, Some(Ended::Broken(reason)) if reason.contains("leap")));
    }
    // Three seconds missing in the middle of a group: the next key frame goes on, in a segment of its own, at its true distance.
    assert_eq!(leap(3 * 90_000), (100, 2, 1, None));
    let mut line = Line::new(window(0.0, 600.0), 300_000_000);
    let mut units = stream(0, 9);
    units.drain(110..260);
    let mut out = run(&mut line, units);
    line.finish();
    out.extend(drained(&mut line));
    let list = segments(&out);
    assert_eq!((list.len(), line.holes()), (2, 1));
    assert_eq!((list[0].last().unwrap().time, list[1][0].time), (at(2.16), at(6.0)));
}

#[test]
fn a_slow_stream_has_no_holes() {
    let mut line = Line::new(window(0.0, 600.0), 300_000_000);
    let slow = (0..20).map(|n| {
        let mut u = unit(n * 450_000, n % 5 == 0, "x");
        u.parameters = (n == 0).then(|| Arc::new(video()));
        (Track::Video, u)
    });
    let mut out = run(&mut line, slow);
    line.finish();
    out.extend(drained(&mut line));
    assert_eq!((segments(&out).len(), frames(&out).len(), line.holes()), (1, 20, 0));
}

#[test]
fn pictures_that_are_shown_before_the_first_are_left_out() {
    let mut line = Line::new(window(0.0, 60.0), 300_000_000);
    let order = [(3u32, true), (1, false), (2, false), (6, false), (4, false), (5, false)];
    let units = order.map(|(n, key)| {
        let mut u = unit(n * TICKS_40_MS, key, "x");
        u.parameters = (n == 3).then(|| Arc::new(video()));
        (Track::Video, u)
    });
    let mut out = run(&mut line, units);
    line.finish();
    out.extend(drained(&mut line));
    let times: Vec<_> = frames(&out).iter().map(|f| f.time).collect();
    assert_eq!(times, [at(0.0), at(0.12), at(0.04), at(0.08)]);
    assert_eq!(line.left_out(), 2);
}

proptest! {
    #[test]
    fn whatever_comes_lies_in_the_window_and_in_order_of_segments(
        units in prop::collection::vec((any::<bool>(), -30_000i32..400_000, any::<bool>(), 0u8..40, 0u32..2), 1..300),
        first in any::<u32>(),
        seconds in 1u32..120,
        wild in any::<prop::sample::Index>(),
        stamp in any::<u32>(),
    ) {
        let window = window(0.0, f64::from(seconds));
        let mut line = Line::new(window, 3_000_000);
        let (mut t, mut out) = (first, Vec::new());
        let wild = wild.index(units.len() * 2);
        for (i, (picture, step, key, change, lost)) in units.into_iter().enumerate() {
            t = if i == wild { stamp } else { t.wrapping_add_signed(step / 8) };
            let parameters = if picture { video() } else { audio() };
            let u = AccessUnit { lost, parameters: (change == 0 || i < 2).then(|| Arc::new(parameters)), ..unit(t, key, "x") };
            line.unit(if picture { Track::Video } else { Track::Audio }, if change == 1 { 8000 } else { 90_000 }, u);
            out.extend(drained(&mut line));
        }
        line.finish();
        out.extend(drained(&mut line));
        prop_assert!(frames(&out).iter().all(|f| window.start <= f.time && f.time.offset(1000) <= window.end));
        let list = segments(&out);
        for pair in list.windows(2) {
            let last = pair[0].iter().map(|f| f.time).max();
            let first = pair[1].iter().map(|f| f.time).min();
            prop_assert!(last < first, "{:?} {:?}", last, first);
        }
        prop_assert!(list.iter().all(|s| s.iter().find(|f| f.track.0 == 0).is_some_and(|f| f.key)));
    }
}

fn camera() -> CameraName {
    CameraName::new("gate").unwrap()
}

fn plan(root: &Path, archive: Worker<Archive>) -> Plan {
    let storage = Storage {
        path: root.to_owned(),
        archive,
        load: Arc::default(),
    };
    let config = RecorderConfig {
        segment: Duration::from_secs(5),
        sync: Duration::from_millis(500),
        silence: Duration::from_secs(4),
        ..RecorderConfig::default()
    };
    Plan {
        camera: camera(),
        url: Gb28181Url::parse("gb28181://34020000001320000001").unwrap(),
        audio: true,
        reach: Reach {
            signalling: signalling().0,
            ports: MediaPorts::new((30_000, 30_010), 0, 1),
        },
        disk: Disk::new(0, storage, retention::channel().0),
        config: Rc::new(config),
    }
}

/// A live segment of the camera that begins at `from` and grows.
fn live(archive: &mut Archive, from: WallTime) -> SegmentFile {
    let header = SegmentHeader {
        camera: camera(),
        start: from,
        tracks: [video()].into(),
        gap_before: None,
        backfilled_until: None,
    };
    let opened = archive.open_segment(header).unwrap();
    let mut file = SegmentFile::start(&opened.path, opened.header).unwrap();
    let pictures: Vec<_> = (0..50)
        .map(|n| Frame {
            track: TrackId(0),
            time: from.offset(n * 40_000),
            key: true,
            data: Bytes::from_static(b"live"),
        })
        .collect();
    for cluster in file.append(&pictures).unwrap() {
        archive.cluster_durable(&opened.key, &cluster).unwrap();
    }
    file
}

fn frames_of(s: &SegmentMeta) -> Vec<Frame> {
    let bytes = Bytes::from(std::fs::read(&s.path).unwrap());
    let time = Timebase::new(s.key.start, &s.tracks);
    let cluster = |c: &ClusterSpan| {
        let b = bytes.slice(c.offset as usize..c.offset as usize + c.len as usize);
        verify_cluster(&b, c.offset).unwrap();
        parse_cluster(&b, c.offset, &time).unwrap()
    };
    s.table.clusters.iter().flat_map(cluster).collect()
}

/// The first 18 s of [`stream`], bit for bit, from 2 s on.
fn expect_pictures(filled: &[&Arc<SegmentMeta>]) {
    let all = filled.iter().flat_map(|s| frames_of(s));
    let pictures: Vec<_> = all.filter(|f| f.track.0 == 0).collect();
    assert_eq!(pictures.len(), 450);
    for (n, f) in pictures.iter().enumerate() {
        assert_eq!(f.data, format!("picture {n}").as_bytes());
        assert!(f.time.micros_since(at(2.0 + n as f64 * 0.04)).abs() <= 500);
    }
}

/// Plays `units` into the filling as a session would, then ends as one does whose device says that this was all, or by its verdict.
async fn play(mut filling: Filling, units: Vec<(Track, AccessUnit)>) -> End {
    let began = Instant::now();
    for (n, (track, unit)) in units.into_iter().enumerate() {
        filling.unit(Instant::now(), track, 90_000, unit);
        if let Some(end) = filling.verdict(began, Instant::now(), Some(Instant::now())) {
            filling.finish(Instant::now());
            return end;
        }
        if n % 100 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    filling.finish(Instant::now());
    End::new(EndKind::Done, "the session is over")
}

#[test]
fn a_gap_is_filled_beside_a_live_segment_and_what_would_overlap_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = Archive::open(&ArchiveOptions::new(dir.path())).unwrap();
    archive.recover(&mut |_| ()).unwrap();
    // Footage to 2 s, a gap from there to 20 s, then live.
    let mut before = live(&mut archive, at(0.0));
    let key = archive.segments(&camera(), window(0.0, 1.0)).unwrap()[0].key.clone();
    before = {
        archive.seal_segment(&key, before.seal().unwrap()).unwrap();
        live(&mut archive, at(20.0))
    };
    archive.note_gap(&camera(), at(2.0), GapCause::CameraDown).unwrap();
    run_control(async {
        let (worker, _) = Worker::start("archive", 64, archive).unwrap();
        let plan = plan(dir.path(), worker.clone());
        let span = BackfillSpan {
            range: window(0.0, 60.0),
            cause: GapCause::CameraDown,
        };
        let vacant = worker
            .call(move |a| a.vacant(&camera(), span.range))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(vacant, [window(2.0, 20.0)]);
        let job = Job::new(camera(), 1);
        // The device has more than fits.
        let (report, _) = job
            .fill(&plan, vacant[0], span, |filling, _, _| play(filling, stream(99, 30)))
            .await;
        assert_eq!((report.missing, report.got.as_slice()), (None, vacant.as_slice()));
        assert_eq!(report.frames, 2 * 18 * 25);
        let found = worker
            .call(move |a| a.segments(&camera(), window(-9.0, 99.0)))
            .await
            .unwrap()
            .unwrap();
        let filled: Vec<_> = found.iter().filter(|s| s.backfilled).collect();
        assert_eq!((found.len(), filled.len()), (6, 4));
        assert!(
            filled
                .iter()
                .all(|s| s.state == SegmentState::Sealed && s.gap_before == Some(GapCause::CameraDown))
        );
        assert!(found.windows(2).all(|w| w[0].end <= w[1].key.start), "{found:#?}");
        expect_pictures(&filled);
        let line = worker
            .call(move |a| a.timeline(&camera(), window(0.0, 21.0)))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(line.gaps, []);
        assert_eq!(
            line.spans.iter().map(|s| s.backfilled).collect::<Vec<_>>(),
            [false, true, false]
        );
        // The live segment goes on as if nothing had been.
        let more = Frame {
            track: TrackId(0),
            time: at(22.0),
            key: true,
            data: Bytes::from_static(b"live"),
        };
        let clusters = before.append(&[more]).unwrap();
        let live = found[5].key.clone();
        worker
            .call(move |a| a.cluster_durable(&live, &clusters[0]))
            .await
            .unwrap()
            .unwrap();
    })
    .unwrap();
}

/// Runs a test with a job of a camera that has no footage.
fn with_job(test: impl AsyncFnOnce(&Job, &Plan)) {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = Archive::open(&ArchiveOptions::new(dir.path())).unwrap();
    archive.recover(&mut |_| ()).unwrap();
    run_control(async {
        let (worker, _) = Worker::start("archive", 64, archive).unwrap();
        test(&Job::new(camera(), 1), &plan(dir.path(), worker)).await;
    })
    .unwrap();
}

const CRASH: BackfillSpan = BackfillSpan {
    range: TimeRange {
        start: START,
        end: START.offset(30_000_000),
    },
    cause: GapCause::Crash,
};

#[test]
fn what_does_not_come_stays_a_gap_and_is_told() {
    with_job(async |job, plan| {
        // It ends too early.
        let short = |f, _, _| play(f, stream(0, 8));
        let (report, _) = job.fill(plan, window(0.0, 30.0), CRASH, short).await;
        assert_eq!(report.got, [window(0.0, 8.0)]);
        assert!(report.missing.unwrap().contains("over"));
        // Its stamps leap.
        let mut units = stream(0, 10);
        for (_, u) in &mut units[250..] {
            u.timestamp += 90_000 * 100;
        }
        let leaping = |f, _, _| play(f, units);
        let (report, _) = job.fill(plan, window(10.0, 30.0), CRASH, leaping).await;
        assert_eq!(report.got, [window(10.0, 15.0)]);
        assert!(report.missing.unwrap().contains("leap"));
        // Nothing comes at all.
        let silent = |f, _, _| play(f, Vec::new());
        let (report, _) = job.fill(plan, window(15.0, 30.0), CRASH, silent).await;
        assert_eq!((report.got.len(), report.frames), (0, 0));
        assert!(report.missing.is_some());
        let archive = &plan.disk.storage.archive;
        let line = archive.call(|a| a.timeline(&camera(), window(0.0, 30.0)));
        let line = line.await.unwrap().unwrap();
        let gaps: Vec<_> = line.gaps.iter().map(|g| (g.range, g.cause)).collect();
        let left = [window(8.0, 10.0), window(15.0, 30.0)].map(|r| (r, GapCause::Crash));
        assert_eq!(gaps, left);
    });
}

#[test]
fn a_writer_that_is_refused_ends_it_and_is_told() {
    with_job(async |job, plan| {
        let first = |f, _, _| play(f, stream(0, 8));
        job.fill(plan, window(0.0, 8.0), CRASH, first).await;
        // A window that was free when it was chosen.
        let (report, _) = job
            .fill(plan, window(4.0, 30.0), CRASH, |f, told, _| async move {
                let end = play(f, stream(0, 4)).await;
                let began = Instant::now();
                while told.disk_error.borrow().is_none() && began.elapsed() < Duration::from_secs(60) {
                    sleep(Duration::from_millis(20)).await;
                }
                end
            })
            .await;
        assert_eq!(report.frames, 0);
        assert!(report.missing.unwrap().contains("nothing is filled in there"));
    });
}

#[test]
fn a_filling_ends_by_what_it_sees() {
    let made = |silence| {
        let queue = Rc::new(Queue::new(1 << 20, Budget::new(1 << 20)));
        let told = Rc::<Told>::default();
        let filling = Filling::new(Line::new(window(0.0, 10.0), 300_000_000), queue, told.clone(), silence);
        (filling, told)
    };
    let (filling, told) = made(Duration::from_secs(4));
    let now = Instant::now();
    let later = |s| now + Duration::from_secs(s);
    let kind = |f: &Filling, at: Instant, last| f.verdict(now, at, last).map(|e| e.kind);
    assert_eq!(kind(&filling, later(19), None), None);
    assert_eq!(kind(&filling, later(21), None), Some(EndKind::NoPacket));
    assert_eq!(kind(&filling, later(21), Some(later(20))), None);
    assert_eq!(kind(&filling, later(21), Some(later(16))), Some(EndKind::Silent));
    assert_eq!(kind(&filling, later(31), Some(later(31))), Some(EndKind::NoVideo));
    *told.disk_error.borrow_mut() = Some("full".into());
    assert_eq!(kind(&filling, later(1), Some(later(1))), Some(EndKind::Closed));
}

#[test]
fn a_job_that_is_dropped_or_stopped_is_known_to_have_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = Archive::open(&ArchiveOptions::new(dir.path())).unwrap();
    archive.recover(&mut |_| ()).unwrap();
    run_control(async {
        let (worker, _) = Worker::start("archive", 64, archive).unwrap();
        let plan = plan(dir.path(), worker);
        // The server is gone: nothing can be invited.
        let span = BackfillSpan {
            range: window(0.0, 30.0),
            cause: GapCause::Unknown,
        };
        let job = Job::start(plan.clone(), vec![span]);
        job.ended().await;
        let report = job.report();
        assert_eq!((report.state, report.spans.len()), (BackfillState::Done, 1));
        assert!(
            report.spans[0].missing.as_ref().unwrap().contains("stopped"),
            "{report:?}"
        );
        let job = Job::start(plan, vec![span; 3]);
        job.stop();
        job.ended().await;
        assert_eq!(job.report().state, BackfillState::Stopped);
    })
    .unwrap();
}
