//! A gap of the recording filled from the device's own archive: what comes is what the device has, it lies where the gap was, and says what it is.
#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, time::Duration};

use corenvr_gb28181_device::{ArchiveSpan, Device, SessionKind, SessionLog, Track, clips};
use corenvr_media::{AudioCodec, VideoCodec, WallTime};
use corenvr_tests::{
    daemon::{Camera, start_of},
    gb28181::{Platform, channel_id, device_id, find_run, sent},
    players,
    process::wait_for,
    units,
};

/// How long the recorder is away.
const AWAY: Duration = Duration::from_secs(15);

fn now() -> WallTime {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    WallTime::from_micros(since.as_micros() as i64)
}

/// The spans of a timeline: start, end, whether they came from the device's archive.
fn spans(platform: &Platform) -> Vec<(WallTime, WallTime, bool)> {
    let timeline = platform.daemon.json(&["recordings", "gate"]);
    let time = |v: &serde_json::Value| WallTime::parse(v.as_str().unwrap()).unwrap();
    let spans = timeline["spans"].as_array().unwrap();
    spans
        .iter()
        .map(|s| (time(&s["start"]), time(&s["end"]), s["backfilled"] == true))
        .collect()
}

/// Files that begin in a range.
fn files_in(platform: &Platform, from: WallTime, to: WallTime) -> Vec<PathBuf> {
    let mut files = platform.daemon.segments("gate");
    files.retain(|f| {
        let start = WallTime::parse(&start_of(f)).unwrap();
        from <= start && start < to
    });
    files
}

fn archive_sessions(device: &Device) -> Vec<SessionLog> {
    let sessions = device.log().snapshot().sessions;
    sessions.into_iter().filter(|s| s.kind != SessionKind::Play).collect()
}

#[test]
fn a_gap_is_filled_from_the_device_and_marked_as_such() {
    let url = format!("gb28181://{}/{}", device_id(0), channel_id(0));
    let mut platform = Platform::new("", &[Camera::new("gate", &url, "auto")]);
    platform.daemon.start();
    let clip = clips::encoded(VideoCodec::H264, Some(AudioCodec::Pcma), 4);
    let mut config = platform.device(0, &clip);
    let hour = Duration::from_secs(3600);
    config.archive = vec![ArchiveSpan {
        start: now() - hour,
        end: now() + hour,
    }];
    let device = Device::start(config).unwrap();
    platform.wait_state("gate", "recording", Duration::from_secs(30));
    platform.daemon.wait_sealed("gate", 1, Duration::from_secs(40));
    platform.daemon.stop();
    std::thread::sleep(AWAY);
    platform.daemon.start();
    platform.wait_state("gate", "recording", Duration::from_secs(30));
    let before = wait_for("the recording goes on behind a gap", Duration::from_secs(20), || {
        Some(spans(&platform)).filter(|spans| spans.len() == 2)
    });
    let (gap_start, gap_end) = (before[0].1, before[1].0);
    assert!(gap_end.saturating_since(gap_start) >= AWAY, "{before:?}");
    // The newest moments are not looked at.
    wait_for("the gap is old enough", Duration::from_secs(60), || {
        (now().saturating_since(gap_end) > Duration::from_secs(13)).then_some(())
    });

    // Before the recording began there is nothing of ours either, so the range begins within it.
    let from = (gap_start - Duration::from_secs(1)).to_string();
    let view = platform.daemon.json(&["camera", "backfill", "gate", "--from", &from]);
    let report = &view["report"];
    assert_eq!(report["state"], "done", "{view:#}\n{}", platform.daemon.log());
    assert!(report["spans"][0]["frames"].as_u64().unwrap() > 200, "{view:#}");

    let after = spans(&platform);
    let filled: Vec<_> = after.iter().filter(|s| s.2).collect();
    assert_eq!(filled.len(), 1, "{after:?}\n{view:#}");
    let (start, end, _) = *filled[0];
    assert!(start >= gap_start && end <= gap_end, "{after:?}");
    // What a device sends begins and ends with its key frames and whole seconds.
    let missing = gap_end
        .saturating_since(gap_start)
        .saturating_sub(end.saturating_since(start));
    assert!(
        missing < Duration::from_secs(4),
        "{missing:?} of the gap are missing: {after:?}\n{view:#}"
    );

    let text = platform.daemon.cli(&["recordings", "gate"]);
    assert!(text.contains("footage, back-filled"), "{text}");
    compare(&platform, &device, gap_start, gap_end);
    let live = platform.status("gate");
    assert_eq!(live["counters"]["connects"], 1, "{live}");
    assert_eq!(live["counters"]["frames_damaged"], 0, "{live}");
    plays_through(&platform, &after, &start_of(&platform.daemon.segments("gate")[0]));

    platform.daemon.stop();
    let check = platform.daemon.cli(&["archive", "check"]);
    assert!(!check.to_lowercase().contains("damaged"), "{check}");
    platform.daemon.cli(&["archive", "rebuild"]);
    platform.daemon.configure("", &[]);
    platform.daemon.start();
    let rebuilt: Vec<_> = spans(&platform).into_iter().filter(|s| s.2).collect();
    assert_eq!(rebuilt, [(start, end, true)], "the mark is in the files");
}

/// Every picture in the gap is one that the device sent from its archive, in order, at the moment that the device says it shows.
fn compare(platform: &Platform, device: &Device, from: WallTime, to: WallTime) {
    let files = files_in(platform, from, to);
    players::assert_decodes(&files[0]);
    let stored = units::of_files(files.iter().map(AsRef::as_ref));
    let sessions = archive_sessions(device);
    assert_eq!(sessions.len(), 1, "one session for one gap");
    for track in [Track::Video, Track::Audio] {
        let own: Vec<_> = stored.iter().filter(|u| u.video == (track == Track::Video)).collect();
        let sent = sent(&sessions[0], track);
        let at = find_run(&own, &sent).unwrap_or_else(|| panic!("{track:?} in the gap is not what the device sent"));
        let origin = WallTime::parse(&start_of(&files[0])).unwrap();
        for (unit, log) in own.iter().zip(&sent[at..]) {
            let shown = log.archive_time.unwrap();
            let off = (origin.as_micros() + unit.time_ms * 1000 - shown.as_micros()) / 1000;
            assert!(off.abs() <= 1100, "{track:?} lies {off} ms off the moment it shows");
        }
    }
}

fn plays_through(platform: &Platform, spans: &[(WallTime, WallTime, bool)], start: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (first, last) = (spans[0].0, spans[spans.len() - 1].0);
    let end = last + Duration::from_secs(3);
    let url = platform.daemon.rtsp(&format!("gate?start={start}&end={end}&pace=0"));
    let to = dir.path().join("played.mkv");
    let played = players::ffmpeg(&url, "tcp", false, &to, Duration::from_secs(60));
    let seconds = end.saturating_since(first).as_secs() as usize;
    assert!(
        played.video.len() > (seconds - 5) * 25,
        "{} pictures in {seconds} s",
        played.video.len()
    );
}
