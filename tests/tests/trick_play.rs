//! Real players on recordings whose every frame carries its number: speeds, reverse, steps, seeks and pauses, by URL and in the protocol.
//!
//! What is received is judged by the numbers in SEI messages, what is shown by those in the pictures.
#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, process::Command, time::Duration};

use corenvr_tests::{
    daemon::Daemon,
    numbered::{CLIP_FRAMES, FRAME_MICROS, Kind, RATE, Recording, drawn_of, sei_numbers},
    process::run,
    trick::{self, GstLog, Mpv, Seen},
};

/// A daemon with recordings and no camera.
struct Stage {
    daemon: Daemon,
    dir: tempfile::TempDir,
    recordings: Vec<Recording>,
}

fn name(kind: Kind) -> String {
    format!("{kind:?}").to_lowercase()
}

impl Stage {
    fn new(kinds: &[Kind]) -> Self {
        let mut daemon = Daemon::new("", &[]);
        let storage = daemon.path("rec");
        let recordings = kinds.iter().map(|k| Recording::write(&storage, &name(*k), *k));
        let recordings = recordings.collect();
        daemon.start();
        Self {
            daemon,
            dir: tempfile::tempdir().unwrap(),
            recordings,
        }
    }

    fn of(&self, kind: Kind) -> &Recording {
        self.recordings.iter().find(|r| r.kind == kind).unwrap()
    }

    /// A URL of the pictures from one to before another.
    fn url(&self, kind: Kind, from: i64, to: i64, more: &str) -> String {
        let recording = self.of(kind);
        let (start, end) = (recording.time_of(from), recording.end_of(to - 1));
        let camera = name(kind);
        self.daemon.rtsp(&format!(
            "{camera}?start={}&end={}{more}",
            start.to_clock(),
            end.to_clock()
        ))
    }

    fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

/// Runs the cases of each group side by side, one group after the other, and reports every one that failed.
fn all<T: Sync>(groups: &[&[T]], check: impl Fn(&T) + Sync) {
    let failed_of = |group: &&[T]| {
        std::thread::scope(|scope| {
            let running: Vec<_> = group.iter().map(|case| scope.spawn(|| check(case))).collect();
            let ended = running.into_iter().map(std::thread::ScopedJoinHandle::join);
            ended.filter(Result::is_err).count()
        })
    };
    let failed: usize = groups.iter().map(failed_of).sum();
    let count: usize = groups.iter().map(|g| g.len()).sum();
    assert_eq!(failed, 0, "{failed} of {count} failed, see above");
}

/// The pictures of a range at a speed, in the order they are shown.
fn wanted(kind: Kind, from: i64, to: i64, scale: f64) -> Vec<i64> {
    let gop = kind.gop() as usize;
    if scale < 0.0 {
        let first = (to - 1) / kind.gop() * kind.gop();
        (0..=first).rev().step_by(gop).take_while(|n| *n >= from).collect()
    } else if scale < 4.0 {
        (from..to).collect()
    } else {
        (from..to).step_by(gop).collect()
    }
}

fn seconds(pictures: i64) -> f64 {
    pictures as f64 / RATE as f64
}

/// Whether footage passed at a speed: pictures with their times in seconds.
fn assert_rate(what: &str, shown: &[(i64, f64)], scale: f64) {
    let ((first, begun), (last, ended)) = (shown[0], shown[shown.len() - 1]);
    let rate = seconds(last - first) / (ended - begun);
    assert!(
        (rate / scale - 1.0).abs() < 0.1,
        "{what}: {rate} times as fast as recorded, not {scale}: {shown:?}"
    );
}

/// What GStreamer showed later than a second after its first picture: what had come while it was starting is shown as fast as it can at first.
fn settled(shown: &[(i64, f64)]) -> Vec<(i64, f64)> {
    let begun = shown[0].1 + 1.0;
    let later: Vec<_> = shown.iter().copied().filter(|(_, at)| *at > begun).collect();
    assert!(
        later.len() >= 3,
        "only {} pictures behind the first second: {shown:?}",
        later.len()
    );
    later
}

/// A play of a URL with a speed in ffmpeg.
struct Clip {
    kind: Kind,
    transport: &'static str,
    scale: f64,
    from: i64,
    to: i64,
}

const fn clip(kind: Kind, transport: &'static str, scale: f64, from: i64, to: i64) -> Clip {
    Clip {
        kind,
        transport,
        scale,
        from,
        to,
    }
}

fn check_clip(stage: &Stage, clip: &Clip) {
    let &Clip {
        kind,
        transport,
        scale,
        from,
        to,
    } = clip;
    let what = format!("ffmpeg, {kind:?} at {scale}x over {transport}");
    let url = stage.url(kind, from, to, &format!("&scale={scale}"));
    let seen = trick::ffmpeg(&url, transport, kind.is_hevc(), &stage.path(), &what);
    let wanted = wanted(kind, from, to, scale);
    let Seen {
        mut received,
        shown,
        took,
        ..
    } = seen.clone();
    // Key frames that would follow each other by less than a thirtieth of a second are thinned out.
    let per_second = scale.abs() / seconds(kind.gop());
    let has_keys_only = !(0.0..4.0).contains(&scale);
    let wanted = if has_keys_only && per_second > 30.0 {
        let left_out = wanted.len() - received.len();
        assert!(
            left_out * 2 <= wanted.len(),
            "{what}: {left_out} of {} left out",
            wanted.len()
        );
        assert!(received.iter().all(|n| wanted.contains(n)), "{what}: {received:?}");
        received.clone()
    } else {
        wanted
    };
    if has_keys_only {
        let ordered = received.is_sorted_by(|a, b| if scale > 0.0 { a < b } else { a > b });
        assert!(ordered, "{what}: {received:?}");
    } else {
        received.sort_unstable();
    }
    assert_eq!(received, wanted, "{what}: received");
    let drawn: Vec<i64> = wanted.iter().map(|n| drawn_of(*n)).collect();
    assert_eq!(seen.numbers(), drawn, "{what}: shown");
    let shown: Vec<_> = wanted.iter().zip(&shown).map(|(n, (_, t))| (*n, *t)).collect();
    // FFmpeg's RTSP reader does not know the time of the first picture of a range that does not begin at 0.
    assert_rate(&what, &shown[1..], scale);
    // In wall time: it is given two seconds ahead, and the end is told a second after it.
    let media = seconds(to - from) / scale.abs();
    let took = took.as_secs_f64();
    assert!(
        took > media - 2.5 && took < media + 12.0,
        "{what}: {took} s for {media} s"
    );
}

#[test]
fn ffmpeg_plays_every_speed_that_a_url_names() {
    use Kind::{H264Aac, H264Long, H264Pyramid, H265};
    let stage = Stage::new(&[H264Aac, H264Long, H264Pyramid, H265]);
    let gap = stage.of(H264Long).before_gap() + 1;
    let slow = [
        // The last picture of each range needs none behind it.
        clip(H264Pyramid, "tcp", 0.25, 1000, 1041),
        clip(H265, "udp", 0.5, 500, 575),
        clip(H264Aac, "tcp", 0.5, 25, 100),
        clip(H264Pyramid, "udp", 2.0, gap - 150, gap + 150),
        clip(H265, "tcp", 2.0, 450, 700),
        clip(H264Long, "tcp", 4.0, 0, 600),
        clip(H264Aac, "udp", 4.0, 1000, 1600),
        clip(H264Aac, "udp", -1.0, 800, 1000),
    ];
    let fast = [
        clip(H264Pyramid, "tcp", 8.0, 0, 1200),
        clip(H265, "udp", 8.0, gap - 600, gap + 600),
        clip(H264Long, "tcp", 16.0, 2500, 4900),
        clip(H264Long, "udp", 32.0, gap - 2500, gap + 2500),
        clip(H264Aac, "tcp", 32.0, 0, 4800),
        clip(H264Pyramid, "udp", -1.0, 1000, 1250),
        clip(H264Aac, "tcp", -4.0, gap - 300, gap + 300),
        clip(H264Long, "tcp", -32.0, gap - 2500, gap + 2500),
        clip(H265, "tcp", -8.0, 2000, 3000),
    ];
    all(&[&slow[..], &fast], |c| check_clip(&stage, c));
}

#[test]
fn ffmpeg_is_given_the_neighbour_by_a_step_in_the_url() {
    use Kind::{H264Aac, H264Pyramid, H265};
    let stage = Stage::new(&[H264Aac, H264Pyramid, H265]);
    let gap = stage.of(H264Aac).before_gap() + 1;
    let mut cases = Vec::new();
    // Inside a GOP, over its border, over that of a segment, and over the gap.
    for kind in [H264Aac, H264Pyramid, H265] {
        for (at, by) in [(1013, 1), (1013, -1), (549, 1), (500, -1), (gap - 1, 1), (gap, -1)] {
            cases.push((kind, at, by));
        }
    }
    all(&[&cases[..]], |&(kind, at, by)| {
        let start = stage.of(kind).time_of(at).offset(FRAME_MICROS / 2);
        let url = format!("{}?start={}&step={by}", name(kind), start.to_clock());
        let seen = trick::ffmpeg(
            &stage.daemon.rtsp(&url),
            if at % 2 == 0 { "tcp" } else { "udp" },
            kind.is_hevc(),
            &stage.path(),
            &url.replace('/', "_"),
        );
        let recording = stage.of(kind);
        assert_eq!(seen.received.last(), Some(&(at + by)), "{url}: {seen:?}");
        assert_eq!(seen.received[0], recording.key_of(at + by), "{url}: {seen:?}");
        assert!(seen.numbers().contains(&drawn_of(at + by)), "{url}: {seen:?}");
        if kind == H264Aac {
            // Where nothing is stored out of order, it is the last one on the screen too.
            assert_eq!(seen.numbers().last(), Some(&drawn_of(at + by)), "{url}: {seen:?}");
        }
    });
}

#[test]
fn ffmpeg_takes_the_start_in_every_form_and_an_export_at_full_speed() {
    let stage = Stage::new(&[Kind::H264Long]);
    let recording = stage.of(Kind::H264Long);
    let time = recording.time_of(1000);
    let text = time.to_string();
    let camera = name(Kind::H264Long);
    // Eight hours east of it, the same moment.
    let there = time.offset(8 * 3_600_000_000).to_string().replace('Z', "%2B08:00");
    let starts = [text.clone(), time.to_clock(), there, text.replace('T', "%20")];
    let end = recording.time_of(1050).to_clock();
    all(&[&starts[..]], |start| {
        let url = stage.daemon.rtsp(&format!("{camera}?start={start}&end={end}&pace=0"));
        let file = format!("start-{}", start.replace(['/', '%'], "_"));
        let seen = trick::ffmpeg(&url, "tcp", false, &stage.path(), &file);
        assert_eq!(seen.received, (1000..1050).collect::<Vec<_>>(), "{url}");
    });
    // Relative to now: an hour ago was in the first minute of the recording.
    let url = stage.daemon.rtsp(&format!("{camera}?start=-3580s&end=-3575s&pace=0"));
    let seen = trick::ffmpeg(&url, "tcp", false, &stage.path(), "relative");
    let first = seen.received[0];
    assert!((100..2600).contains(&first) && first % 100 == 0, "{first}");
    // Four minutes of it, and the same in reverse, in a fraction of that.
    let url = stage.url(Kind::H264Long, 0, 6000, "&pace=0");
    let seen = trick::ffmpeg(&url, "tcp", false, &stage.path(), "whole");
    assert_eq!(seen.received, (0..6000).collect::<Vec<_>>());
    assert!(seen.took < Duration::from_secs(40), "{:?}", seen.took);
    let url = stage.url(Kind::H264Long, 0, 6000, "&pace=0&scale=-1");
    let seen = trick::ffmpeg(&url, "tcp", false, &stage.path(), "reverse");
    assert_eq!(seen.received, wanted(Kind::H264Long, 0, 6000, -1.0));
    assert!(seen.took < Duration::from_secs(20), "{:?}", seen.took);
}

/// A seek with a rate in GStreamer.
struct Seek {
    kind: Kind,
    options: &'static str,
    /// Where it goes, in pictures of the range.
    to: i64,
    rate: f64,
    flags: &'static str,
}

fn check_seek(stage: &Stage, seek: &Seek) {
    let &Seek {
        kind,
        options,
        to,
        rate,
        flags,
    } = seek;
    let what = format!("GStreamer, {kind:?} at {rate}x {flags} over {options}");
    let (first, length) = (1000, 4000);
    let url = stage.url(kind, first, first + length, "");
    let command = format!("seek:{}:{rate}:{flags}", seconds(to));
    let log = trick::gstreamer(&url, options, &["play:1", &command, "play:6"], &stage.path(), &what);
    let (known, seekable) = log.opened();
    assert!(
        seekable && known.is_some_and(|l| (l - seconds(length)).abs() < 0.1),
        "{what}: {log:?}"
    );
    // It begins at the key frame at or before, and then every picture or key frame follows.
    let start = stage.of(kind).key_of(first + to);
    let after = log.after_seek(start);
    let (got, shown) = (after.numbers("got"), after.of("shown"));
    let mut sorted = got.clone();
    let wanted: Vec<i64> = if rate < 0.0 {
        wanted(kind, first, start + 1, rate)
    } else {
        sorted.sort_unstable();
        wanted(kind, start, first + length, rate)
    };
    assert!(got.len() >= 4, "{what}: {got:?}");
    // In stored order some pictures may be on their way behind the last one.
    let sure = sorted
        .len()
        .saturating_sub(if (0.0..4.0).contains(&rate) { 4 } else { 0 });
    assert_eq!(sorted[..sure], wanted[..sure], "{what}: received");
    let numbers: Vec<i64> = shown.iter().map(|(n, _)| *n).collect();
    assert!(numbers.len() >= 3, "{what}: {shown:?}");
    let at = wanted.iter().position(|n| drawn_of(*n) == numbers[0]);
    let at = at.unwrap_or_else(|| panic!("{what}: {} is shown first", numbers[0]));
    let expected = wanted[at..].iter().take(numbers.len());
    assert!(
        expected.clone().map(|n| drawn_of(*n)).eq(numbers.iter().copied()),
        "{what}: shown {numbers:?}"
    );
    let shown: Vec<_> = expected.zip(&shown).map(|(n, (_, t))| (*n, *t)).collect();
    assert_rate(&what, &settled(&shown), rate);
}

#[test]
fn gstreamer_seeks_with_a_rate_in_both_directions() {
    use Kind::{H264Aac, H264Long, H264Pyramid, H265};
    let stage = Stage::new(&[H264Aac, H264Long, H264Pyramid, H265]);
    let seek = |kind, options, to, rate, flags| Seek {
        kind,
        options,
        to,
        rate,
        flags,
    };
    let slow = [
        seek(H264Aac, "tcp", 510, 1.0, ""),
        seek(H264Pyramid, "tcp", 530, 0.5, ""),
        seek(H264Aac, "udp", 1000, 2.0, ""),
        seek(H264Pyramid, "udp", 500, 0.25, "trick"),
        seek(H265, "tcp", 500, 2.0, "trick"),
    ];
    let fast = [
        seek(H264Aac, "tcp", 1000, 4.0, "trick"),
        seek(H264Aac, "udp", 500, 8.0, "trick"),
        seek(H264Long, "tcp", 0, 16.0, "trick"),
        seek(H264Aac, "tcp", 3000, -1.0, "trick"),
        seek(H264Aac, "udp", 3010, -4.0, "trick"),
    ];
    all(&[&slow[..], &fast], |s| check_seek(&stage, s));
}

/// Every picture of a range, in whatever order it was received.
fn assert_all(what: &str, log: &GstLog, from: i64, to: i64) {
    let mut got = log.numbers("got");
    got.sort_unstable();
    assert_eq!(got, (from..to).collect::<Vec<_>>(), "{what}: received");
    let drawn: Vec<i64> = (from..to).map(drawn_of).collect();
    assert_eq!(log.numbers("shown"), drawn, "{what}: shown");
}

#[test]
fn gstreamer_pauses_and_resumes_without_loss_and_plays_urls_with_a_speed() {
    use Kind::{H264Aac, H264Long, H264Pyramid, H265};
    let stage = Stage::new(&[H264Aac, H264Long, H264Pyramid, H265]);
    let pauses = [
        (H264Aac, "tcp", 500),
        (H264Aac, "udp", 1000),
        (H264Pyramid, "tcp", 1450),
        (H265, "udp", 7400),
    ];
    let commands = ["play:1.2", "pause:1", "play:1", "pause:0.5", "eos"];
    let speeds = [
        (H264Pyramid, "tcp", 8.0, 0, 1200),
        (H264Aac, "udp", -4.0, 7200, 7800),
        (H264Long, "tcp", -32.0, 5000, 9000),
        (H264Pyramid, "udp", 0.5, 7450, 7525),
    ];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            all(&[&pauses[..]], |&(kind, options, from)| {
                let what = format!("GStreamer pauses, {kind:?} over {options}");
                let url = stage.url(kind, from, from + 150, "");
                let log = trick::gstreamer(&url, options, &commands, &stage.path(), &what);
                assert_all(&what, &log, from, from + 150);
            });
        });
        scope.spawn(|| {
            all(&[&speeds[..]], |&(kind, options, scale, from, to)| {
                let what = format!("GStreamer, {kind:?} with ?scale={scale} over {options}");
                let url = stage.url(kind, from, to, &format!("&scale={scale}"));
                let log = trick::gstreamer(&url, options, &["play:1", "eos"], &stage.path(), &what);
                let length = seconds(to - from) / f64::abs(scale);
                assert!(
                    log.opened().0.is_some_and(|l| (l - length).abs() < 0.1),
                    "{what}: {log:?}"
                );
                let wanted = wanted(kind, from, to, scale);
                let mut got = log.numbers("got");
                if (0.0..4.0).contains(&scale) {
                    got.sort_unstable();
                }
                assert_eq!(got, wanted, "{what}: received");
                let drawn: Vec<i64> = wanted.iter().map(|n| drawn_of(*n)).collect();
                assert_eq!(log.numbers("shown"), drawn, "{what}: shown");
                let shown: Vec<_> = wanted.iter().zip(log.of("shown")).map(|(n, (_, t))| (*n, t)).collect();
                assert_rate(&what, &settled(&shown), scale);
            });
        });
    });
}

#[test]
fn gstreamer_replays_by_the_clock_in_onvif_mode() {
    let stage = Stage::new(&[Kind::H264Aac]);
    let recording = stage.of(Kind::H264Aac);
    let camera = name(Kind::H264Aac);
    let unix = |n: i64| recording.time_of(n).as_micros() as f64 / 1e6;
    let url = stage.daemon.rtsp(&format!("{camera}/replay"));
    let cases = [
        ("forward", format!("utc:{:.3}:1", unix(1000)), 1000, 1),
        ("over the gap", format!("utc:{:.3}:1", unix(7475)), 7475, 1),
    ];
    all(&[&cases[..]], |(what, seek, first, by)| {
        let log = trick::gstreamer(
            &url,
            // Over TCP, rtspsrc 1.22 throws the first access unit of an absolute range away.
            "udp,onvif-mode=true",
            &["play:1.5", seek, "play:4"],
            &stage.path(),
            what,
        );
        let after = log.after_seek(*first);
        for event in ["got", "shown"] {
            let numbers = after.numbers(event);
            assert!(numbers.len() > 60, "{what}, {event}: {log:?}");
            let wanted = (0..).map(|i| first + i * by).take(numbers.len());
            let wanted: Vec<i64> = wanted.map(|n| if event == "got" { n } else { drawn_of(n) }).collect();
            assert_eq!(numbers, wanted, "{what}, {event}");
        }
    });
}

/// How far the picture may be behind the position that mpv names after a seek: FFmpeg's RTSP reader gives the first picture after a seek no
/// time, and mpv then counts from the next ones in decoding order.
fn late_max(kind: Kind) -> i64 {
    match kind {
        Kind::H264Pyramid | Kind::H265 => 5,
        Kind::H264Aac | Kind::H264Long => 1,
    }
}

#[test]
fn mpv_knows_the_length_seeks_and_steps_both_ways() {
    let kinds = [Kind::H264Aac, Kind::H264Long, Kind::H264Pyramid, Kind::H265];
    let stage = Stage::new(&kinds);
    all(&[&kinds[..]], |&kind| {
        // Over the gap.
        let (from, to) = (7000, 8000);
        let what = format!("mpv, {kind:?}");
        let mut mpv = Mpv::open(&stage.url(kind, from, to, ""), &stage.path(), &what, &[]);
        assert_eq!(mpv.number(), drawn_of(from), "{what}");
        assert!((mpv.seconds("duration") - 40.0).abs() < 0.3, "{what}");
        assert_eq!(mpv.get("seekable"), Some(true.into()), "{what}");
        for target in [30.5, 10.02, 19.9] {
            let position = mpv.seek(target);
            assert!(
                (position - target).abs() < 0.1,
                "{what}: {position} instead of {target}"
            );
            let wanted = from + (position * RATE as f64).round() as i64;
            let late = drawn_of(mpv.number() - wanted + CLIP_FRAMES / 2) - CLIP_FRAMES / 2;
            // With sound, its clock may be some milliseconds beside the pictures.
            assert!(
                (-1..=late_max(kind)).contains(&late),
                "{what}: late by {late} after a seek to {target}"
            );
        }
        // The picture that a seek ends with may be one before the position that mpv means: a step sets it right.
        let mut shown = mpv.step(1);
        for by in [1, 1, 1, -1, -1, -1, -1, 1] {
            let next = mpv.step(by);
            assert_eq!(next, drawn_of(shown + by), "{what}: a step by {by} from {shown}");
            shown = next;
        }
    });
}

#[test]
fn mpv_plays_urls_with_a_speed_and_seeks_in_them() {
    use Kind::{H264Aac, H264Long, H264Pyramid};
    let stage = Stage::new(&[H264Aac, H264Long, H264Pyramid]);
    let cases = [
        (H264Aac, 8.0),
        (H264Pyramid, -4.0),
        (H264Long, 32.0),
        (H264Long, -32.0),
        (H264Aac, 0.5),
    ];
    all(&[&cases[..]], |&(kind, scale)| {
        let what = format!("mpv, {kind:?} with ?scale={scale}");
        // Twenty seconds of the clip.
        let pictures = (20.0 * f64::abs(scale) * RATE as f64) as i64;
        let (from, to) = if pictures > 10_000 {
            (0, 15_000)
        } else {
            (1000, 1000 + pictures)
        };
        let length = seconds(to - from) / f64::abs(scale);
        let url = stage.url(kind, from, to, &format!("&scale={scale}"));
        let mut mpv = Mpv::open(&url, &stage.path(), &what, &[]);
        assert!((mpv.seconds("duration") - length).abs() < 0.3, "{what}");
        let begun = std::time::Instant::now();
        mpv.play(Duration::from_secs(3));
        let reached = mpv.seconds("time-pos");
        let wall = begun.elapsed().as_secs_f64();
        assert!(
            reached > 1.5 && reached < wall + 0.7,
            "{what}: {reached} s of the clip in {wall} s"
        );
        let meant = |position: f64| {
            let footage = position * scale * RATE as f64;
            if scale > 0.0 {
                from as f64 + footage
            } else {
                to as f64 + footage
            }
        };
        let check = |mpv: &mut Mpv, position: f64| {
            let number = mpv.number();
            // The drawn numbers repeat; half a second of clip time, or a GOP, is close enough to tell a wrong speed.
            let off = (number as f64 - meant(position)).rem_euclid(2000.0);
            let off = off.min(CLIP_FRAMES as f64 - off);
            let gops = if late_max(kind) > 1 { 2.5 } else { 1.5 };
            let most = (kind.gop() as f64 * gops).max(0.5 * scale.abs() * RATE as f64);
            assert!(off <= most, "{what}: picture {number} at {position}: off by {off}");
        };
        check(&mut mpv, reached);
        let position = mpv.seek(length * 0.6);
        check(&mut mpv, position);
    });
}

#[test]
#[ignore = "needs openRTSP of live555 in the PATH, which Debian does not have"]
fn open_rtsp_receives_key_frames_in_reverse() {
    let stage = Stage::new(&[Kind::H264Aac]);
    let url = stage.url(Kind::H264Aac, 0, 1500, "");
    let mut command = Command::new("timeout");
    // With one medium it writes what it receives to its standard output. The end of the range is its start less four times the duration.
    command.args([
        "-k", "5", "40", "openRTSP", "-t", "-v", "-z", "-4", "-s", "30", "-d", "20",
    ]);
    let received = run(command.arg(&url)).stdout;
    let numbers = sei_numbers(&received);
    let wanted: Vec<i64> = (0..=30).rev().map(|s| s * 25).take(numbers.len()).collect();
    assert!(numbers.len() >= 18, "{numbers:?}");
    assert_eq!(numbers, wanted);
}
