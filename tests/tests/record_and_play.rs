//! The main job against peers that are not our own code: GStreamer's RTSP server as the camera, ffmpeg and GStreamer as the players.
//!
//! Slices are compared as sent, stored and played, all of them. Sound is compared byte by byte as sent and stored; what ffmpeg plays of it must
//! be without a hole and nearly all of it, since play begins at a key frame.
#![allow(clippy::unwrap_used)]

use std::{path::Path, time::Duration};

use corenvr_tests::{
    cameras::{GstCamera, Kind, clip},
    daemon::{Camera, Daemon, is_sealed, start_of},
    frames::{Prints, annex_b_slices, assert_contiguous, assert_contiguous_bytes, of_file, of_files},
    players,
};

const SOURCE_SECONDS: u32 = 90;

struct Recorded {
    daemon: Daemon,
    dir: tempfile::TempDir,
    source: Prints,
    stored: Prints,
    hevc: bool,
    first: String,
}

/// Records one camera over some segments, stops the daemon in order, compares the files with the source, and starts the daemon again.
fn record(kind: Kind, transport: &'static str) -> Recorded {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), kind, SOURCE_SECONDS);
    let camera = GstCamera::start(&[("cam", &path)]);
    let mut daemon = Daemon::new("", &[Camera::new("door", &camera.url("cam"), transport)]);
    daemon.start();
    daemon.wait_sealed("door", 3, Duration::from_secs(60));
    daemon.stop();

    let files = daemon.segments("door");
    assert!(
        files.iter().all(|f| is_sealed(f)),
        "an orderly stop leaves no open segment: {files:?}"
    );
    for file in &files {
        players::assert_opens(file);
    }
    players::assert_decodes(&files[1]);
    let source = of_file(&path);
    let stored = of_files(files.iter().map(AsRef::as_ref));
    assert_contiguous("recorded pictures", &stored.video, &source.video);
    assert!(
        stored.video.len() >= 8 * 25,
        "{} slices are less than two segments",
        stored.video.len()
    );
    assert_contiguous_bytes("recorded sound", &stored.audio_bytes, &source.audio_bytes);

    let check = daemon.cli(&["archive", "check"]);
    assert!(!check.to_lowercase().contains("damaged"), "{check}");
    let first = start_of(&files[0]);
    daemon.configure("", &[]);
    daemon.start();
    Recorded {
        daemon,
        dir,
        source,
        stored,
        hevc: matches!(kind, Kind::H265Pcma),
        first,
    }
}

impl Recorded {
    /// The whole recording, played by ffmpeg: every stored unit once and in order.
    fn ffmpeg_plays_all(&self, transport: &str) {
        let to = self.dir.path().join(format!("ffmpeg-{transport}.mkv"));
        let url = self.daemon.rtsp(&format!("door?start={}", self.first));
        let played = players::ffmpeg(&url, transport, self.hevc, &to, Duration::from_secs(90));
        self.compare(&format!("ffmpeg over {transport}"), &played.video);
        let at = assert_contiguous_bytes("played sound", &played.audio_bytes, &self.source.audio_bytes);
        assert!(at <= self.source.audio_bytes.len());
        assert!(
            played.audio_bytes.len() * 100 >= self.stored.audio_bytes.len() * 97,
            "sound: {} of {} bytes",
            played.audio_bytes.len(),
            self.stored.audio_bytes.len()
        );
    }

    fn gstreamer_plays_all(&self, transport: &str) {
        let to = self.dir.path().join(format!("gst-{transport}.bin"));
        let url = self.daemon.rtsp(&format!("door?start={}", self.first));
        let played = players::gstreamer(&url, transport, self.hevc, &to, Duration::from_secs(90));
        self.compare(&format!("GStreamer over {transport}"), &played);
    }

    fn compare(&self, what: &str, played: &[u64]) {
        let at = assert_contiguous(what, played, &self.stored.video);
        assert_eq!(
            (at, played.len()),
            (0, self.stored.video.len()),
            "{what}: not the whole recording"
        );
    }
}

#[test]
fn h264_aac_over_tcp() {
    let recorded = record(Kind::H264Aac, "tcp");
    recorded.ffmpeg_plays_all("tcp");
    recorded.gstreamer_plays_all("udp");
}

#[test]
fn h264_b_frames_and_several_slices_over_udp() {
    let recorded = record(Kind::H264BFramesAac, "udp");
    recorded.ffmpeg_plays_all("udp");
    recorded.gstreamer_plays_all("tcp");
}

#[test]
fn h265_pcma_over_udp() {
    let recorded = record(Kind::H265Pcma, "udp");
    recorded.ffmpeg_plays_all("tcp");
    recorded.gstreamer_plays_all("tcp");
}

#[test]
fn h265_pcma_over_tcp() {
    let recorded = record(Kind::H265Pcma, "tcp");
    recorded.ffmpeg_plays_all("udp");
    recorded.gstreamer_plays_all("udp");
}

#[test]
fn mjpeg_and_opus_are_recorded_and_decode() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::MjpegOpus, 30);
    let camera = GstCamera::start(&[("cam", &path)]);
    let mut daemon = Daemon::new("", &[Camera::new("yard", &camera.url("cam"), "auto")]);
    daemon.start();
    daemon.wait_sealed("yard", 2, Duration::from_secs(60));
    daemon.stop();
    for file in daemon.segments("yard") {
        players::assert_opens(&file);
        players::assert_decodes(&file);
    }
    let stored = of_files(daemon.segments("yard").iter().map(AsRef::as_ref));
    let source = of_file(&path);
    assert_contiguous("opus packets", &stored.audio, &source.audio);
    assert!(stored.video.len() >= 8 * 25 * 9 / 10, "{} pictures", stored.video.len());
}

#[test]
fn live_and_archive_at_once_and_from_the_archive_into_live() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, SOURCE_SECONDS);
    let camera = GstCamera::start(&[("cam", &path)]);
    let mut daemon = Daemon::new("", &[Camera::new("door", &camera.url("cam"), "tcp")]);
    daemon.start();
    let files = daemon.wait_sealed("door", 1, Duration::from_secs(60));
    let source = of_file(&path);
    let save = |name: &str| dir.path().join(name);
    // The range ends in the future: the archive runs out and the live picture goes on.
    let begin = start_of(&files[0]);
    let end = after(&begin, 16);
    let joined = std::thread::scope(|scope| {
        let joining = scope.spawn(|| {
            let url = daemon.rtsp(&format!("door?start={begin}&end={end}"));
            players::ffmpeg(&url, "tcp", false, &save("joined.mkv"), Duration::from_secs(90))
        });
        let live: Vec<_> = ["tcp", "udp"]
            .map(|t| {
                (
                    t,
                    players::watch_live(&daemon.rtsp("door"), t, save(&format!("live-{t}.h264"))),
                )
            })
            .into();
        std::thread::sleep(Duration::from_secs(8));
        for (transport, mut viewer) in live {
            let pid = rustix::process::Pid::from_child(&viewer.0);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            viewer.0.wait().unwrap();
            let seen = annex_b_slices(&std::fs::read(save(&format!("live-{transport}.h264"))).unwrap(), false);
            assert_contiguous(&format!("live over {transport}"), &seen, &source.video);
            assert!(
                seen.len() > 3 * 25,
                "live over {transport}: {} pictures in 8 s",
                seen.len()
            );
        }
        joining.join().unwrap()
    });
    assert_contiguous("archive into live", &joined.video, &source.video);
    assert!(
        joined.video.len() >= 14 * 25,
        "archive into live: {} pictures of 16 s",
        joined.video.len()
    );
    daemon.stop();
}

#[test]
fn a_camera_that_is_unplugged_leaves_a_gap_with_its_cause_and_records_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Pcmu, 30);
    let mut camera = GstCamera::start(&[("cam", &path)]);
    let mut daemon = Daemon::new("", &[Camera::new("gate", &camera.url("cam"), "tcp")]);
    daemon.start();
    daemon.wait_sealed("gate", 1, Duration::from_secs(60));
    camera.unplug();
    std::thread::sleep(Duration::from_secs(3));
    let sealed = daemon.segments("gate").len();
    camera.plug_in();
    daemon.wait_sealed("gate", sealed + 2, Duration::from_secs(60));
    let timeline = daemon.cli(&["recordings", "gate"]);
    assert!(timeline.contains("camera"), "the gap's cause is missing:\n{timeline}");
    daemon.stop();
    let source = of_file(&path);
    for file in daemon.segments("gate") {
        let one = of_file(&file);
        assert_contiguous("a segment beside the gap", &one.video, &source.video);
    }
    // Played back, the gap is crossed.
    let first = start_of(&daemon.segments("gate")[0]);
    let stored = of_files(daemon.segments("gate").iter().map(AsRef::as_ref));
    daemon.configure("", &[]);
    daemon.start();
    let url = daemon.rtsp(&format!("gate?start={first}"));
    let played = players::ffmpeg(
        &url,
        "tcp",
        false,
        &dir.path().join("gap.mkv"),
        Duration::from_secs(120),
    );
    assert_eq!(assert_contiguous("over the gap", &played.video, &stored.video), 0);
    assert_eq!(played.video.len(), stored.video.len());
}

/// A time some seconds later, for times within one day.
fn after(time: &str, seconds: i64) -> String {
    let time = corenvr_media::WallTime::parse(time).unwrap();
    time.offset(seconds * 1_000_000).to_string()
}

#[test]
fn an_export_holds_the_recording_bit_for_bit() {
    let recorded = record(Kind::H264Pcmu, "tcp");
    let to = recorded.dir.path().join("clip.mkv");
    let end = after(&recorded.first, 3600);
    recorded.daemon.cli(&[
        "export",
        "door",
        "--from",
        &recorded.first,
        "--to",
        &end,
        "-o",
        to.to_str().unwrap(),
    ]);
    players::assert_opens(&to);
    players::assert_decodes(&to);
    let exported = of_file(&to);
    recorded.compare("exported", &exported.video);
    assert_eq!(exported.audio_bytes, recorded.stored.audio_bytes);
    assert!(Path::new(&to).metadata().unwrap().len() > 0);
}
