//! The plug is pulled, again and again: nothing that was synced may be missing, and every file opens.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use corenvr_tests::{
    cameras::{GstCamera, Kind, clip},
    daemon::{Camera, Daemon, is_sealed},
    frames::{annex_b_slices, assert_contiguous},
    players,
    process::run,
};

const CAMERAS: usize = 4;
/// The sync interval of the test's configuration plus one cluster of the same length, plus what a busy machine adds to starting up and to
/// the camera's own start.
const LOSS_SECONDS_MAX: f64 = 1.0 + 1.0 + 2.0;

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
    let mut seen: HashMap<PathBuf, usize> = HashMap::new();
    for round in 0..rounds() {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let run_for = Duration::from_millis(2000 + (seed >> 33) % 3000);
        daemon.start();
        let begun = Instant::now();
        std::thread::sleep(run_for);
        daemon.crash();
        let alive = begun.elapsed().as_secs_f64();
        for c in &cameras {
            let files = daemon.segments(&c.name);
            let fresh: Vec<_> = files.iter().filter(|f| !seen.contains_key(*f)).collect();
            // What the crash left behind opens before anything repaired it, up to its last whole cluster.
            let mut slices = 0;
            for file in fresh {
                let one = slices_of(file);
                if !one.is_empty() {
                    assert_contiguous(&format!("round {round}, {}", file.display()), &one, &source);
                }
                slices += one.len();
                let sealed = PathBuf::from(file.to_string_lossy().replace(".part.mkv", ".mkv"));
                seen.insert(sealed, one.len());
            }
            let recorded = slices as f64 / 25.0;
            assert!(
                recorded + LOSS_SECONDS_MAX >= alive,
                "round {round}, {}: {recorded:.2} s are on disk after {alive:.2} s of recording\n{}",
                c.name,
                daemon.log()
            );
        }
    }
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
