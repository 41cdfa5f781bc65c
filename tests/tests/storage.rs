//! Footage that has to go, and disks that fill.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use corenvr_tests::{
    cameras::{GstCamera, Kind, clip},
    daemon::{Camera, Daemon},
    frames::{assert_contiguous, of_files},
    players,
    process::wait_for,
};

fn bytes_in(daemon: &Daemon, camera: &str) -> u64 {
    daemon
        .segments(camera)
        .iter()
        .filter_map(|f| f.metadata().ok())
        .map(|m| m.len())
        .sum()
}

#[test]
fn the_oldest_footage_of_a_camera_goes_when_it_has_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 90);
    let camera = GstCamera::start(&[("cam", &path)]);
    let mut kept = Camera::new("kept", &camera.url("cam"), "tcp");
    kept.extra = "retain_bytes = \"3MiB\"".into();
    let whole = Camera::new("whole", &camera.url("cam"), "tcp");
    let mut daemon = Daemon::new("segment = \"2s\"", &[kept, whole]);
    daemon.start();
    let first = daemon.wait_sealed("kept", 1, Duration::from_secs(60)).remove(0);
    wait_for("the first segment is deleted", Duration::from_secs(90), || {
        (!first.exists()).then_some(())
    });
    let small = || (bytes_in(&daemon, "kept") < 6 << 20).then_some(());
    wait_for("no more than its bytes are kept", Duration::from_secs(60), small);
    daemon.stop();
    // What is left is the newest footage without a hole, and the other camera has everything.
    let source = of_files([path.as_path()]);
    for name in ["kept", "whole"] {
        let left = of_files(daemon.segments(name).iter().map(AsRef::as_ref));
        assert_contiguous(name, &left.video, &source.video);
    }
    assert!(bytes_in(&daemon, "whole") > bytes_in(&daemon, "kept"));
    let check = daemon.try_cli(&["archive", "check"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

/// A file system of 48 MiB at `at`; `None` where this user may not mount.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"])
            .arg(at)
            .stderr(Stdio::null());
        mount.status().is_ok_and(|s| s.success()).then_some(Self(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_to_the_last_byte_is_survived_and_recording_goes_on_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 90);
    let camera = GstCamera::start(&[("cam", &path)]);
    let mut daemon = Daemon::new("segment = \"2s\"", &[Camera::new("door", &camera.url("cam"), "tcp")]);
    let storage = daemon.path("rec");
    let Some(_disk) = SmallDisk::mount(&storage) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let config = std::fs::read_to_string(daemon.config()).unwrap();
    std::fs::write(
        daemon.config(),
        config.replace("keep_free = \"100MiB\"", "keep_free = \"1MiB\""),
    )
    .unwrap();
    daemon.start();
    daemon.wait_sealed("door", 2, Duration::from_secs(60));
    let newest = daemon.segments("door").len();
    // Somebody else takes everything that is left, and gives it back later.
    let hog = storage.join("hog");
    let mut fill = Command::new("dd");
    fill.args(["if=/dev/zero", "bs=64k"])
        .arg(format!("of={}", hog.display()))
        .stderr(Stdio::null());
    assert!(!fill.status().unwrap().success(), "the disk did not fill up");
    std::thread::sleep(Duration::from_secs(8));
    daemon.cli(&["status"]);
    std::fs::remove_file(&hog).unwrap();
    wait_for("recording goes on", Duration::from_secs(60), || {
        (daemon.segments("door").len() > newest + 2).then_some(())
    });
    daemon.stop();
    for file in daemon.segments("door") {
        players::assert_opens(&file);
    }
    let check = daemon.try_cli(&["archive", "check"]);
    assert!(
        check.status.success(),
        "{}{}",
        String::from_utf8_lossy(&check.stdout),
        daemon.log()
    );
}

#[test]
fn a_missing_mount_is_refused_and_nothing_is_written_below_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 60);
    let camera = GstCamera::start(&[("cam", &path)]);
    let mut daemon = Daemon::new("segment = \"2s\"", &[]);
    let disk = daemon.path("disk");
    std::fs::create_dir(&disk).unwrap();
    daemon.sections = format!(
        "[[storage]]\npath = \"{}\"\nkeep_free = \"1MiB\"\nrequire_mount = true\n",
        disk.display()
    );
    let near = Camera::new("near", &camera.url("cam"), "tcp");
    let mut far = Camera::new("far", &camera.url("cam"), "tcp");
    far.extra = format!("storage = \"{}\"", disk.display());
    daemon.configure("segment = \"2s\"", &[near, far]);
    daemon.start();
    daemon.wait_sealed("near", 1, Duration::from_secs(60));
    assert_eq!(
        std::fs::read_dir(&disk).unwrap().count(),
        0,
        "something was written where no disk is"
    );
    for text in [daemon.log(), daemon.cli(&["status"])] {
        assert!(text.contains("require_mount = true and is neither"), "{text}");
        assert!(text.contains("Remedy: mount its disk"), "{text}");
    }
    daemon.stop();

    let Some(_disk) = SmallDisk::mount(&disk) else {
        println!("skipped: this user may not mount a file system, so recording onto a mounted one is not shown");
        return;
    };
    daemon.start();
    let footage = || {
        let files = corenvr_tests::daemon::files_below(&disk.join("far"));
        files
            .iter()
            .any(|f| f.extension().is_some_and(|e| e == "mkv"))
            .then_some(())
    };
    wait_for("the mounted disk is recorded on", Duration::from_secs(60), footage);
    daemon.stop();
}
