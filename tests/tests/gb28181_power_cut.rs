//! A gap that the device's own archive fills, while the camera goes on being recorded.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use corenvr_gb28181_device::{
    Alarm, ArchiveSpan, Device, Log, SessionId, SessionKind, SessionLog, SessionState, Track, clips,
};
use corenvr_media::{AudioCodec, VideoCodec, WallTime};
use corenvr_tests::{
    daemon::Camera,
    gb28181::{Platform, assert_stored, channel_id, device_id},
    players,
    units::{self, Unit},
};
use serde_json::Value;

fn now() -> WallTime {
    WallTime::from_system(SystemTime::now())
}

fn time(value: &Value) -> WallTime {
    WallTime::parse(value.as_str().unwrap()).unwrap()
}

fn seconds(from: WallTime, to: WallTime) -> f64 {
    to.micros_since(from) as f64 / 1e6
}

/// The sessions of the device's archive, in order.
fn downloads(log: &Log) -> Vec<SessionLog> {
    let all = log.snapshot().sessions;
    all.into_iter().filter(|s| s.kind == SessionKind::Download).collect()
}

/// Back-filled files of a camera: what the timeline says is back-filled, by the names of files.
fn filled_units(platform: &Platform, span: &Value) -> Vec<Unit> {
    let (from, to) = (time(&span["start"]), time(&span["end"]));
    let files = platform.daemon.segments("gate");
    let start = |f: &Path| WallTime::parse(&corenvr_tests::daemon::start_of(f)).unwrap();
    let within = |f: &&std::path::PathBuf| (from.offset(-1000)..to).contains(&start(f));
    units::of_files(files.iter().filter(within).map(AsRef::<Path>::as_ref))
}

/// A camera that was recorded, was without power, and is recorded again; and the session that records it.
fn with_gap() -> (Platform, Device, SessionId) {
    let url = format!("gb28181://{}", device_id(0));
    let mut platform = Platform::new("", &[Camera::new("gate", &url, "auto")]);
    platform.daemon.start();
    let clip = clips::encoded(VideoCodec::H264, Some(AudioCodec::Pcma), 4);
    let mut config = platform.device(0, &clip);
    config.archive = vec![ArchiveSpan {
        start: now() - Duration::from_secs(600),
        end: now() + Duration::from_secs(600),
    }];
    let device = Device::start(config.clone()).unwrap();
    platform.wait_state("gate", "recording", Duration::from_secs(30));
    sleep(Duration::from_secs(6));
    device.power_cut();
    sleep(Duration::from_secs(14));
    let device = Device::start(config).unwrap();
    let limit = Duration::from_secs(60);
    let live = device.wait_invite(limit).expect("the camera is invited again");
    assert!(device.wait_units(live, 50, limit));
    // The newest moments are left to live recording.
    sleep(Duration::from_secs(14));
    (platform, device, live)
}

#[test]
fn a_gap_is_filled_from_the_device_while_it_is_recorded() {
    let (platform, device, live) = with_gap();
    let before = platform.daemon.json(&["recordings", "gate"]);
    let gap = &before["gaps"][0];
    let (gap_start, gap_end) = (time(&gap["start"]), time(&gap["end"]));
    assert!(seconds(gap_start, gap_end) > 8.0, "{before:#}");
    let live_only = before["spans"].as_array().unwrap();
    assert!(live_only.iter().all(|s| s["backfilled"] == false));
    let (from, to) = (
        gap_start.offset(-1_000_000).to_string(),
        gap_end.offset(1_000_000).to_string(),
    );
    let done = platform
        .daemon
        .json(&["camera", "backfill", "gate", "--from", &from, "--to", &to]);
    let span = &done["report"]["spans"][0];
    let all = span["missing"].is_null() && span["frames"].as_u64().unwrap() > 300;
    assert!(
        done["report"]["state"] == "done" && all,
        "{done:#}\n{}",
        platform.daemon.log()
    );

    let after = platform.daemon.json(&["recordings", "gate"]);
    let filled = filled_spans(&after);
    assert_eq!(filled.len(), 1, "{after:#}");
    let inside = time(&filled[0]["start"]) >= gap_start && time(&filled[0]["end"]) <= gap_end;
    assert!(inside, "{after:#}");
    let gaps = after["gaps"].as_array().unwrap();
    let left: f64 = gaps.iter().map(|g| seconds(time(&g["start"]), time(&g["end"]))).sum();
    assert!(left < 3.0, "{after:#}");
    let text = platform.daemon.cli(&["recordings", "gate"]);
    assert!(text.contains("footage, back-filled"), "{text}");
    expect_what_was_sent(&platform, &device, &filled[0]);

    // The camera was recorded all the while, over one session.
    let status = platform.status("gate");
    assert_eq!(status["state"], "recording", "{status}");
    let session = device.log().session(live).unwrap();
    assert!(!matches!(session.state, SessionState::Ended(_)), "{session:?}");
    an_alarm_is_shown_on_the_timeline(&platform, &device);
    exports_name_it(&platform, gap_start, gap_end);
    play_over_the_borders(&platform, gap_start, gap_end);
    survives_a_rebuild(platform, &filled);
}

fn filled_spans(recordings: &Value) -> Vec<Value> {
    let spans = recordings["spans"].as_array().unwrap();
    spans.iter().filter(|s| s["backfilled"] == true).cloned().collect()
}

/// Bit for bit, and where the archive has it: late by a group of pictures and a second at most.
fn expect_what_was_sent(platform: &Platform, device: &Device, span: &Value) {
    let session = downloads(device.log()).pop().expect("one download");
    let stored = filled_units(platform, span);
    let at = assert_stored("back-filled", &stored, &session, Track::Video, usize::MAX);
    assert_eq!(at, 0);
    assert_stored("back-filled", &stored, &session, Track::Audio, usize::MAX);
    let sent = session.units.iter().filter(|u| u.track == Track::Video);
    let start_ms = time(&span["start"]).as_millis();
    for (picture, unit) in stored.iter().filter(|u| u.video).zip(sent) {
        let shown_ms = start_ms + picture.time_ms;
        let late_ms = shown_ms - unit.archive_time.unwrap().as_millis();
        assert!((-1..=2100).contains(&late_ms), "late by {late_ms} ms");
    }
}

fn an_alarm_is_shown_on_the_timeline(platform: &Platform, device: &Device) {
    device.raise_alarm(Alarm {
        id: channel_id(0),
        priority: 1,
        method: 5,
        kind: 2,
        description: "somebody at the gate".into(),
    });
    let begun = Instant::now();
    let shown = loop {
        let shown = platform.daemon.json(&["recordings", "gate"]);
        if !shown["events"].as_array().unwrap().is_empty() {
            break shown;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", platform.daemon.log());
        sleep(Duration::from_millis(300));
    };
    assert_eq!(
        (&shown["events"][0]["kind"], &shown["events"][0]["source"]),
        (&"alarm".into(), &"gb28181".into())
    );
    let text = platform.daemon.cli(&["recordings", "gate"]);
    assert!(
        text.contains("alarm: ") && text.contains("somebody at the gate"),
        "{text}"
    );
}

fn exports_name_it(platform: &Platform, gap_start: WallTime, gap_end: WallTime) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (
        gap_start.offset(-2_000_000).to_string(),
        gap_end.offset(2_000_000).to_string(),
    );
    let file = dir.path().join("export.mkv");
    let file = file.to_str().unwrap();
    let exported = platform
        .daemon
        .json(&["export", "gate", "--from", &from, "--to", &to, "-o", file]);
    let filled = exported["backfilled"].as_array().unwrap();
    assert_eq!(filled.len(), 1, "{exported:#}");
    assert!(
        seconds(time(&filled[0]["start"]), time(&filled[0]["end"])) > 8.0,
        "{exported:#}"
    );
}

/// From live footage through what was filled in into live footage again.
fn play_over_the_borders(platform: &Platform, gap_start: WallTime, gap_end: WallTime) {
    let dir = tempfile::tempdir().unwrap();
    let (start, end) = (gap_start.offset(-3_000_000), gap_end.offset(3_000_000));
    let url = platform.daemon.rtsp(&format!(
        "gate?start={}&end={}&pace=0",
        start.to_clock(),
        end.to_clock()
    ));
    let played = players::ffmpeg(
        &url,
        "tcp",
        false,
        &dir.path().join("played.mkv"),
        Duration::from_secs(90),
    );
    let expected = seconds(start, end) * 25.0;
    assert!(
        played.video.len() as f64 > expected - 100.0,
        "{} of {expected}",
        played.video.len()
    );
}

fn survives_a_rebuild(mut platform: Platform, filled: &[Value]) {
    platform.daemon.stop();
    platform.daemon.cli(&["archive", "rebuild"]);
    platform.daemon.cli(&["archive", "check"]);
    platform.daemon.start();
    let after = platform.daemon.json(&["recordings", "gate"]);
    assert_eq!(filled_spans(&after), filled);
    assert_eq!(after["events"].as_array().unwrap().len(), 1);
}
