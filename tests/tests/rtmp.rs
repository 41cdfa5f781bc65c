//! RTMP cameras: ffmpeg as the publisher and as the source, and an encoder of our own for what ffmpeg does not send. What is recorded is
//! what was sent: slices and sound bit for bit.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use corenvr_tests::{
    cameras::{Kind, clip},
    daemon::{Camera, Daemon},
    frames::{assert_contiguous, assert_contiguous_bytes, of_file, of_files},
    players,
    process::{Guarded, free_port, wait_for},
    rtmp::{Encoder, Extended, Hevc},
};
use serde_json::Value;

const KEY: &str = "gate-5f3a9c01";

/// A daemon that publishers may come to, and its RTMP port.
fn daemon(cameras: &[Camera]) -> (Daemon, u16) {
    let port = free_port();
    let mut daemon = Daemon::new(&format!("[rtmp]\nlisten = [\"127.0.0.1:{port}\"]"), cameras);
    daemon.start();
    (daemon, port)
}

fn pushed(name: &str, key: &str) -> Camera {
    Camera::new(name, &format!("rtmp+listen://{key}"), "auto")
}

/// ffmpeg sends a clip at its own pace, without touching it; `listen`: it waits for whoever plays.
fn ffmpeg(clip: &Path, url: &str, listen: bool) -> Guarded {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-re", "-i"]).arg(clip);
    command.args(["-c", "copy", "-f", "flv"]);
    if listen {
        command.args(["-listen", "1"]);
    }
    Guarded(command.arg(url).stdin(Stdio::null()).spawn().unwrap())
}

fn camera(daemon: &Daemon, name: &str) -> Value {
    let status = daemon.json(&["status"]);
    let cameras = status["cameras"].as_array().unwrap().clone();
    cameras.into_iter().find(|c| c["name"] == name).unwrap()
}

fn wait_state(daemon: &Daemon, name: &str, state: &str) -> Value {
    let mut last = Value::Null;
    wait_for(&format!("{name} is {state}"), Duration::from_secs(40), || {
        last = camera(daemon, name);
        (last["state"] == state).then_some(())
    });
    last
}

/// Compares all that is recorded of a camera with the clip that was sent.
fn compare(daemon: &Daemon, name: &str, clip: &Path, slices_min: usize, sound: bool) {
    let files = daemon.segments(name);
    for file in &files {
        players::assert_opens(file);
    }
    players::assert_decodes(&files[0]);
    let (source, stored) = (of_file(clip), of_files(files.iter().map(AsRef::as_ref)));
    assert_contiguous("recorded pictures", &stored.video, &source.video);
    assert!(stored.video.len() >= slices_min, "only {} slices", stored.video.len());
    if sound {
        assert_contiguous_bytes("recorded sound", &stored.audio_bytes, &source.audio_bytes);
    }
    let check = daemon.cli(&["archive", "check"]);
    assert!(!check.to_lowercase().contains("damaged"), "{check}");
}

/// ffmpeg publishes until three segments are complete.
fn published_by_ffmpeg(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), kind, 60);
    let (mut daemon, port) = daemon(&[pushed("gate", KEY)]);
    let waiting = wait_state(&daemon, "gate", "waiting");
    let reason = waiting["reason"].as_str().unwrap();
    assert!(
        reason.contains(&format!(":{port}/live/")) && !reason.contains(KEY),
        "{reason}"
    );
    let publisher = ffmpeg(&path, &format!("rtmp://127.0.0.1:{port}/live/{KEY}"), false);
    wait_state(&daemon, "gate", "recording");
    daemon.wait_sealed("gate", 3, Duration::from_secs(60));
    let status = camera(&daemon, "gate");
    assert_eq!(status["transport"], "tcp", "{status}");
    assert!(!status["streams"][1]["codec"].is_null(), "{status}");
    daemon.stop();
    drop(publisher);
    compare(&daemon, "gate", &path, 8 * 25, true);
    // Sound from the first segment on.
    assert!(of_file(&daemon.segments("gate")[0]).audio.len() > 20);
    assert!(!daemon.log().contains(KEY), "the key is in the log");
}

#[test]
fn ffmpeg_publishes_h264_and_aac() {
    published_by_ffmpeg(Kind::H264Aac);
}

#[test]
fn ffmpeg_publishes_b_frames_and_slices() {
    published_by_ffmpeg(Kind::H264BFramesAac);
}

#[test]
fn ffmpeg_publishes_g711() {
    published_by_ffmpeg(Kind::H264Pcmu);
}

#[test]
fn h265_legacy_and_enhanced_of_days_ago() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H265Pcma, 14);
    let cameras = [
        ("enhanced", Hevc::Enhanced, Extended::Repeated, 0),
        // Past 4 h 39 min time stamps are extended; across 2^24 ms with them repeated or not.
        ("legacy", Hevc::Legacy, Extended::LeftOut, 0x0100_0000 - 5_000),
        ("extended", Hevc::Enhanced, Extended::Repeated, 0x0100_0000 - 5_000),
        // After 49.7 days they wrap.
        ("wrap", Hevc::Legacy, Extended::Repeated, 0u32.wrapping_sub(5_000)),
    ];
    let settings: Vec<_> = cameras
        .iter()
        .map(|(name, ..)| pushed(name, &format!("key-of-{name}")))
        .collect();
    let (mut daemon, port) = daemon(&settings);
    let senders: Vec<_> = cameras
        .iter()
        .map(|&(name, hevc, extended, offset)| {
            let path = path.clone();
            thread::spawn(move || {
                let mut encoder = Encoder::publish(port, &format!("key-of-{name}"), extended);
                encoder.hevc_clip(&path, offset, hevc);
            })
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
    for (name, ..) in cameras {
        let status = wait_state(&daemon, name, "waiting");
        assert!(
            status["reason"].as_str().unwrap().contains("the last session"),
            "{status}"
        );
        assert_eq!(status["counters"]["clock_jumps"].as_u64().unwrap_or(0), 0, "{status}");
    }
    daemon.stop();
    for (name, ..) in cameras {
        compare(&daemon, name, &path, 14 * 25 - 5, false);
        // As long as it was sent: no stamp was misread.
        let timeline = daemon.segments(name);
        assert!((2..=5).contains(&timeline.len()), "{timeline:?}");
    }
}

#[test]
fn a_stream_is_pulled_and_pulled_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 20);
    let port = free_port();
    let url = format!("rtmp://127.0.0.1:{port}/live/cam");
    let source = ffmpeg(&path, &url, true);
    let mut daemon = Daemon::new("", &[Camera::new("yard", &url, "auto")]);
    daemon.start();
    wait_state(&daemon, "yard", "recording");
    daemon.wait_sealed("yard", 2, Duration::from_secs(60));
    drop(source);
    let down = wait_state(&daemon, "yard", "down");
    assert!(
        down["reason"].as_str().unwrap().contains("closed the connection")
            || down["reason"].as_str().unwrap().contains("cannot connect"),
        "{down}"
    );
    let first = daemon.segments("yard");
    let _source = ffmpeg(&path, &url, true);
    wait_state(&daemon, "yard", "recording");
    daemon.wait_sealed("yard", first.len() + 1, Duration::from_secs(60));
    daemon.stop();
    let all = daemon.segments("yard");
    let source = of_file(&path);
    for (what, files) in [("before", &all[..first.len()]), ("after", &all[first.len()..])] {
        let stored = of_files(files.iter().map(AsRef::as_ref));
        assert_contiguous(what, &stored.video, &source.video);
        assert_contiguous_bytes(what, &stored.audio_bytes, &source.audio_bytes);
        assert!(stored.video.len() >= 3 * 25, "{what}: {} slices", stored.video.len());
    }
}

#[test]
fn a_camera_is_tried_before_it_is_added() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 20);
    let port = free_port();
    let url = format!("rtmp://127.0.0.1:{port}/live/cam");
    let mut daemon = Daemon::new("", &[]);
    daemon.start();
    let out = daemon.try_cli(&["camera", "add", "yard", &url]);
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && words.contains("cannot connect"), "{words}");
    let source = ffmpeg(&path, &url, true);
    thread::sleep(Duration::from_secs(1));
    let added = daemon.cli(&["camera", "add", "yard", &url]);
    assert!(added.contains("H264") && added.contains("AAC"), "{added}");
    drop(source);
    // Without [rtmp] nobody can push, and that is said when such a camera is added.
    let out = daemon.try_cli(&["camera", "add", "gate", &format!("rtmp+listen://{KEY}")]);
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        !out.status.success() && words.contains("[rtmp]") && !words.contains(KEY),
        "{words}"
    );
    daemon.stop();
}

#[test]
fn an_unknown_key_is_refused_and_shown() {
    let (mut daemon, port) = daemon(&[pushed("gate", KEY)]);
    for _ in 0..2 {
        let (_, answers) = Encoder::ask(port, "gate-slip-of-the-hand", Extended::Repeated);
        assert!(
            answers.contains("NetStream.Publish.BadName") && answers.contains("no camera has this stream key"),
            "{answers}"
        );
    }
    let status = daemon.json(&["status"]);
    let refused = status["rtmp"]["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 1, "{status}");
    assert_eq!(
        (&refused[0]["count"], &refused[0]["address"]),
        (&2.into(), &"127.0.0.1".into()),
        "{status}"
    );
    let text = daemon.cli(&["status"]);
    assert!(
        text.contains("REFUSED PUBLISHER") && text.contains("ga*** (21 characters)"),
        "{text}"
    );
    assert!(text.contains(&format!("RTMP on 127.0.0.1:{port}")), "{text}");
    for shown in [text, status.to_string(), daemon.log(), daemon.cli(&["camera", "list"])] {
        assert!(!shown.contains("slip-of") && !shown.contains(KEY), "{shown}");
    }
    assert_eq!(camera(&daemon, "gate")["state"], "waiting");
    daemon.stop();
}

#[test]
fn a_publisher_that_dies_comes_back_and_a_second_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 60);
    let (mut daemon, port) = daemon(&[pushed("gate", KEY)]);
    let url = format!("rtmp://127.0.0.1:{port}/live/{KEY}");
    let publisher = ffmpeg(&path, &url, false);
    wait_state(&daemon, "gate", "recording");
    let (_, answers) = Encoder::ask(port, KEY, Extended::Repeated);
    assert!(answers.contains("another publisher is sending"), "{answers}");
    let reason = daemon.json(&["status"])["rtmp"]["refused"][0]["reason"].to_string();
    assert!(reason.contains("another publisher"), "{reason}");
    daemon.wait_sealed("gate", 1, Duration::from_secs(60));
    drop(publisher);
    let waiting = wait_state(&daemon, "gate", "waiting");
    assert!(
        waiting["reason"].as_str().unwrap().contains("the last session"),
        "{waiting}"
    );
    let before = daemon.segments("gate").len();
    let _publisher = ffmpeg(&path, &url, false);
    wait_state(&daemon, "gate", "recording");
    daemon.wait_sealed("gate", before + 1, Duration::from_secs(60));
    let gaps = daemon.cli(&["recordings", "gate"]);
    assert!(gaps.contains("camera"), "the gap's cause is missing:\n{gaps}");
    daemon.stop();
    let all = daemon.segments("gate");
    let source = of_file(&path);
    for files in [&all[..before], &all[before..]] {
        let stored = of_files(files.iter().map(AsRef::as_ref));
        assert_contiguous("each part", &stored.video, &source.video);
    }
}

#[test]
fn a_silent_publisher_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H265Pcma, 14);
    let (mut daemon, port) = daemon(&[pushed("gate", KEY)]);
    // Accepted, and not a picture: its place is taken before it is given up as dead.
    let _silent = Encoder::publish(port, KEY, Extended::Repeated);
    thread::sleep(Duration::from_secs(6));
    let mut encoder = Encoder::publish(port, KEY, Extended::Repeated);
    encoder.hevc_clip(&path, 1000, Hevc::Enhanced);
    drop(encoder);
    wait_state(&daemon, "gate", "waiting");
    daemon.stop();
    compare(&daemon, "gate", &path, 14 * 25 - 5, false);
}
