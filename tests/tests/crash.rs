//! The plug is pulled, again and again: nothing that was synced may be missing, and every file opens.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use corenvr_media::WallTime;
use corenvr_tests::{
    cameras::{GstCamera, Kind, clip},
    daemon::{Camera, Daemon, is_sealed, start_of},
    frames::{annex_b_slices, assert_contiguous},
    players,
    process::run,
};

const CAMERAS: usize = 4;
/// The sync interval of the test's configuration plus one cluster of the same length, plus what a busy machine adds.
const LOSS_SECONDS_MAX: f64 = 1.0 + 1.0 + 1.5;
/// A camera that has not begun to record within this is not connecting at all.
const CONNECT_SECONDS_MAX: f64 = 10.0;

fn rounds() -> usize {
    std::env::var("CORENVR_CRASH_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20)
}

/// The H.264 slices in a file: one a picture.
fn slices_of(path: &Path) -> Vec<u64> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i"]).arg(path);
    ffmpeg.args([
        "-map",
        "0:v:0",
        "-c",
        "copy",
        "-bsf:v",
        "h264_mp4toannexb",
        "-f",
        "h264",
        "-",
    ]);
    annex_b_slices(&run(&mut ffmpeg).stdout, false)
}

fn now() -> WallTime {
    WallTime::from_system(SystemTime::now())
}

/// What the crash left behind opens before anything repaired it, up to its last whole cluster, and is what was sent. Returns the time from
/// the first frame of this run to the crash less what is on disk; `None` if nothing was recorded in it.
fn lost_seconds(
    daemon: &Daemon,
    camera: &str,
    (started, crashed): (WallTime, WallTime),
    source: &[u64],
    seen: &mut HashMap<PathBuf, usize>,
) -> Option<f64> {
    let (mut begin, mut slices) = (None, 0);
    for file in daemon.segments(camera) {
        let sealed = PathBuf::from(file.to_string_lossy().replace(".part.mkv", ".mkv"));
        if seen.contains_key(&sealed) {
            continue;
        }
        let one = slices_of(&file);
        if !one.is_empty() {
            assert_contiguous(&file.display().to_string(), &one, source);
        }
        seen.insert(sealed, one.len());
        // Older ones had no durable cluster when the run before ended, and were recovered all the same.
        let start = WallTime::parse(&start_of(&file)).unwrap();
        if start >= started {
            begin.get_or_insert(start);
            slices += one.len();
        }
    }
    Some(crashed.micros_since(begin?) as f64 / 1e6 - slices as f64 / 25.0)
}

#[test]
fn kill_nine_at_random_moments() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 90);
    let camera = GstCamera::start(&[("cam", &path)]);
    let cameras: Vec<Camera> = (0..CAMERAS)
        .map(|i| Camera::new(&format!("cam{i}"), &camera.url("cam"), "tcp"))
        .collect();
    let mut daemon = Daemon::new("segment = \"3s\"\nsync = \"1s\"", &cameras);
    let source = slices_of(&path);
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let mut worst = 0.0f64;
    let mut seen: HashMap<PathBuf, usize> = HashMap::new();
    for round in 0..rounds() {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let run_for = Duration::from_millis(2000 + (seed >> 33) % 3000);
        let started = now();
        daemon.start();
        let begun = Instant::now();
        std::thread::sleep(run_for);
        daemon.crash();
        let crashed = now();
        let alive = begun.elapsed().as_secs_f64();
        for c in &cameras {
            match lost_seconds(&daemon, &c.name, (started, crashed), &source, &mut seen) {
                Some(lost) => worst = worst.max(lost),
                None => assert!(
                    alive < CONNECT_SECONDS_MAX,
                    "{} recorded nothing\n{}",
                    c.name,
                    daemon.log()
                ),
            }
            assert!(
                worst <= LOSS_SECONDS_MAX,
                "round {round}, {}: {worst:.2} s lost\n{}",
                c.name,
                daemon.log()
            );
        }
    }
    println!("at most {worst:.2} s of a camera were lost");
    // One more start recovers; nothing that was readable before is missing after.
    daemon.configure("segment = \"3s\"\nsync = \"1s\"", &[]);
    daemon.start();
    daemon.stop();
    for c in &cameras {
        let files = daemon.segments(&c.name);
        assert!(files.iter().all(|f| is_sealed(f)), "{files:?}");
        for file in &files {
            players::assert_opens(file);
        }
    }
    for (file, slices) in &seen {
        let now = if file.exists() { slices_of(file).len() } else { 0 };
        assert!(
            now >= *slices,
            "{}: {slices} slices were there after the crash, {now} after recovery",
            file.display()
        );
    }
    let check = daemon.try_cli(&["archive", "check"]);
    assert!(
        check.status.success(),
        "{}{}",
        String::from_utf8_lossy(&check.stdout),
        String::from_utf8_lossy(&check.stderr)
    );
}
