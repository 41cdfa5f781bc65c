//! GB28181 over lossy networks: what is missing is counted exactly, what arrived whole is recorded bit for bit, and nothing else is.
#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Command, time::Duration};

use corenvr_gb28181_device::{Deviation, Device, Event, Impairment, SessionId, SessionLog, Track, UnitLog, clips};
use corenvr_media::{AudioCodec, VideoCodec};
use corenvr_tests::{
    daemon::Camera,
    gb28181::{Platform, channel_id, count_events, device_id, sent},
    process::run,
    units::Unit,
};
use serde_json::Value;

/// What a network does to a camera.
struct Case {
    hevc: bool,
    deviations: &'static [Deviation],
    seed: u64,
    lost_permille: u16,
}

const LOSS: &[Deviation] = &[Deviation::Loss];
const ALL: &[Deviation] = &[Deviation::Loss, Deviation::Reorder, Deviation::Duplicates];
const RAW: &[Deviation] = &[Deviation::Loss, Deviation::Duplicates, Deviation::RawEs];

const fn case(hevc: bool, deviations: &'static [Deviation], seed: u64, lost_permille: u16) -> Case {
    Case {
        hevc,
        deviations,
        seed,
        lost_permille,
    }
}

/// Units of a tone look alike after some, next to a jump even two in a row: they are told apart by when they are, to half of their length.
const OFF_MS: i64 = 20;

/// Frames that are sent before the device stalls.
const UNITS: u64 = 14 * 50;

#[test]
fn loss_is_counted_exactly_and_everything_that_arrived_is_recorded() {
    let cases = [
        case(false, LOSS, 1, 5),
        case(false, LOSS, 1002, 20),
        case(false, ALL, 3, 5),
        case(false, ALL, 4, 30),
        case(true, LOSS, 5, 5),
        case(true, ALL, 6, 15),
        case(false, RAW, 7, 10),
        case(true, RAW, 8, 10),
    ];
    let clips = [
        clips::encoded(VideoCodec::H264, Some(AudioCodec::Pcma), 6),
        clips::encoded(VideoCodec::H265, Some(AudioCodec::Aac), 6),
    ];
    let cameras: Vec<Camera> = (0..cases.len())
        .map(|n| {
            let url = format!("gb28181://{}/{}?transport=udp", device_id(n), channel_id(n));
            Camera::new(&format!("cam{n}"), &url, "auto")
        })
        .collect();
    let mut platform = Platform::new("", &cameras);
    platform.daemon.start();
    let start = |(n, case): (usize, &Case)| {
        let clip = &clips[usize::from(case.hevc)];
        let raw = case.deviations.contains(&Deviation::RawEs);
        let source = if raw { clip.without_audio() } else { clip.clone() };
        let mut config = platform.device(n, &source);
        config.deviations.extend(case.deviations.iter().copied());
        config.impairment = Impairment {
            seed: case.seed,
            lost_permille: case.lost_permille,
            ..Impairment::default()
        };
        Device::start(config).unwrap()
    };
    let devices: Vec<Device> = cases.iter().enumerate().map(start).collect();
    let sessions: Vec<SessionId> = devices
        .iter()
        .map(|d| d.wait_invite(Duration::from_secs(20)).expect("it is invited"))
        .collect();
    for ((device, id), case) in devices.iter().zip(&sessions).zip(&cases) {
        let units = if case.deviations.contains(&Deviation::RawEs) {
            UNITS / 2
        } else {
            UNITS
        };
        assert!(device.wait_units(*id, units, Duration::from_secs(40)));
        device.stall(*id);
    }
    // Behind a gap the last packets wait for a second.
    std::thread::sleep(Duration::from_secs(3));
    let status: Vec<_> = (0..cases.len()).map(|n| platform.status(&format!("cam{n}"))).collect();
    platform.daemon.stop();
    for (n, case) in cases.iter().enumerate() {
        let what = format!("cam{n} {:?} seed {}", case.deviations, case.seed);
        judge(
            &what,
            &platform,
            (&format!("cam{n}"), &status[n]),
            &devices[n],
            sessions[n],
        );
    }
}

/// Compares what is told and what is stored of a camera with what its device says.
fn judge(what: &str, platform: &Platform, (camera, status): (&str, &Value), device: &Device, id: SessionId) {
    let session = device.log().session(id).unwrap();
    let count = |key: &str| status["counters"][key].as_u64().unwrap();
    assert_eq!(count("connects"), 1, "{what}: {status}");
    let (fewest, most) = lost(&session);
    assert!(fewest > 0, "{what}: the seed loses nothing");
    let lost = count("packets_lost");
    assert!(
        (fewest..=most).contains(&lost),
        "{what}: {lost} packets are told to be lost; {fewest} to {most} were"
    );
    assert!(count("frames_damaged") > 0, "{what}: {status}");
    // What is held back behind a gap comes late and all at once; its stamps still tell when it was.
    assert_eq!(count("clock_jumps"), 0, "{what}: {status}");
    let stored = platform.stored(camera);
    let zero_ms = zero_ms(&stored, &session);
    for track in [Track::Video, Track::Audio] {
        let partial = assert_arrived(what, &stored, &session, track, zero_ms);
        assert!(
            partial <= count("frames_damaged"),
            "{what}: {partial} partial: {status}"
        );
    }
    let asked = count_events(device, |e| matches!(e, Event::KeyFrameAsked { .. }));
    assert!(asked > 0, "{what}: no key frame is asked for");
    for file in platform.daemon.segments(camera) {
        assert_keys_decode(what, &file);
    }
}

/// How many packets of a session the receiver has to miss: those between the first and the last that were sent. More only by those
/// that the device held back for later when it stalled.
fn lost(session: &SessionLog) -> (u64, u64) {
    let mut fates: Vec<bool> = Vec::new();
    for unit in &session.units {
        let packet = |n: u32| !unit.lost.contains(&unit.seq_first.wrapping_add(n as u16));
        fates.extend((0..unit.packets).map(packet));
    }
    let first = fates.iter().position(|sent| *sent).unwrap_or(0);
    let last = fates.iter().rposition(|sent| *sent).unwrap_or(0);
    let lost = fates[first..=last].iter().filter(|sent| !**sent).count() as u64;
    let tail = session.units.iter().rev().take(8);
    // One that is held back at the end hides those that are lost before it as well.
    let held: u64 = tail.clone().map(|u| u64::from(u.reordered)).sum();
    let hidden: u64 = if held > 0 {
        tail.map(|u| u.lost.len() as u64).sum()
    } else {
        0
    };
    (lost - hidden.min(lost), lost + held)
}

/// Where the session's stamp 0 lies in what is stored, by the first picture that is there: no two of them are alike.
fn zero_ms(stored: &[Unit], session: &SessionLog) -> i64 {
    let first = stored.iter().find(|u| u.video).expect("a picture is stored");
    let video = sent(session, Track::Video);
    let log = video.iter().find(|u| u.slices_sha256 == first.slices);
    first.time_ms - log.expect("it was sent").pts_90k / 90
}

/// Asserts that all units that were sent whole are stored, in order and bit for bit, from the first one stored on. What is stored besides
/// must stand where units were sent that lost packets. Returns how many of those there are.
fn assert_arrived(what: &str, stored: &[Unit], session: &SessionLog, track: Track, zero_ms: i64) -> u64 {
    let stored: Vec<&Unit> = stored.iter().filter(|u| u.video == (track == Track::Video)).collect();
    let sent: Vec<&UnitLog> = sent(session, track);
    if sent.is_empty() {
        assert!(stored.is_empty(), "{what}: {track:?} that nobody sent");
        return 0;
    }
    assert!(
        stored.len() > 100,
        "{what}: {} of {} units of {track:?}",
        stored.len(),
        sent.len()
    );
    let near = |i: &usize, unit: &Unit| (unit.time_ms - sent[*i].pts_90k / 90 - zero_ms).abs() < OFF_MS;
    let is = |i: &usize, unit: &Unit| near(i, unit) && sent[*i].slices_sha256 == unit.slices;
    let mut next = (0..sent.len().min(100))
        .find(|i| is(i, stored[0]))
        .unwrap_or_else(|| panic!("{what}: {track:?} begins with what was never sent"));
    let mut partial = 0;
    let mut unmatched = 0;
    let mut dropped = Vec::new();
    for unit in &stored {
        let found = (next..sent.len()).find(|i| is(i, unit));
        let Some(at) = found else {
            unmatched += 1;
            partial += 1;
            continue;
        };
        let between = &sent[next..at];
        let broken = between.iter().filter(|u| !u.whole()).count();
        dropped.extend((next..at).filter(|i| sent[*i].whole()));
        assert!(
            unmatched <= broken,
            "{what}: {unmatched} units of {track:?} before unit {at} were never sent"
        );
        (unmatched, next) = (0, at + 1);
    }
    assert!(
        dropped.is_empty(),
        "{what}: units {dropped:?} of {} of {track:?} were sent whole and are not stored",
        sent.len()
    );
    let missing = sent[next..].iter().filter(|u| u.whole()).count();
    // The last picture is not known to be complete, and sound may wait in the same window.
    assert!(missing <= 4, "{what}: {missing} of the last units of {track:?}");
    partial
}

/// Whatever was lost before it, a key frame can be decoded.
fn assert_keys_decode(what: &str, file: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-skip_frame", "nokey", "-i"]).arg(file);
    command.args(["-map", "0:v", "-f", "null", "-"]);
    let output = run(&mut command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.is_empty(), "{what}: {}: {said}", file.display());
}
