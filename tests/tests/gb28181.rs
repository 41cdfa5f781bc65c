//! GB28181 cameras end to end: simulated devices that do what real ones do wrong, and everything they sent compared with everything stored.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use corenvr_gb28181_device::{Deviation, Device, MediaTransport, SessionId, Source, Track, clips};
use corenvr_media::{AudioCodec, VideoCodec};
use corenvr_tests::{
    daemon::{Camera, is_sealed},
    gb28181::{Platform, assert_stored, assert_times, channel_id, device_id},
    players,
};

/// What a device is to do wrong, and what it shows.
struct Case {
    deviations: &'static [Deviation],
    hevc: bool,
    /// Time stamps jump: where frames lie is another matter.
    jumps: bool,
}

const fn case(hevc: bool, deviations: &'static [Deviation]) -> Case {
    Case {
        deviations,
        hevc,
        jumps: false,
    }
}

/// What every transport has in common.
fn common() -> Vec<Case> {
    use Deviation as D;
    let mut cases = vec![case(false, &[]), case(true, &[])];
    for deviations in [
        &[D::MapMissing][..],
        &[D::MapWrongCodec],
        &[D::MapWrongCrc],
        &[D::NoSystemHeader],
        &[D::PackStuffing],
        &[D::PesLengthZero],
        &[D::PesSmall],
        &[D::PtsRepeated],
        &[D::PesPerNal],
        &[D::PesHeaderStuffing],
        &[D::PrivateStreams],
        &[D::ShortStartCodes],
        &[D::MidGopStart],
        &[D::RtpExtras],
        &[D::OddPacketSizes],
        &[D::PtsWrap],
        &[D::RawEs],
    ] {
        cases.push(case(false, deviations));
        cases.push(case(true, deviations));
    }
    for deviations in [
        &[D::MarkerNever][..],
        &[D::MarkerAlways],
        &[D::SsrcZero],
        &[D::SsrcOwn],
        &[D::SsrcInAnswer],
        &[D::NoSsrcInAnswer],
        &[D::RtpWrap],
        &[D::Repeated200],
        &[D::NoContact],
        &[D::ContentLengthZero],
        &[D::ExpiresInContact],
        &[D::NoQop],
        &[D::CompactHeaders],
        &[D::OddCase],
        &[D::CrlfPings],
        &[D::CharsetLie, D::XmlAttributes],
    ] {
        cases.push(case(false, deviations));
    }
    for deviations in [&[D::PtsJump][..], &[D::PtsJumpBack]] {
        cases.push(Case {
            jumps: true,
            ..case(false, deviations)
        });
    }
    cases
}

struct Running {
    name: String,
    case: Case,
    device: Device,
    session: SessionId,
}

/// Records all cases at once for some seconds, and compares each with what its device says it sent.
fn record(transport: MediaTransport, word: &str, cases: Vec<Case>) {
    let clips = [
        clips::encoded(VideoCodec::H264, Some(AudioCodec::Pcma), 4),
        clips::encoded(VideoCodec::H265, Some(AudioCodec::Aac), 4),
    ];
    let source = |case: &Case| -> Arc<Source> {
        let clip = &clips[usize::from(case.hevc)];
        if case.deviations.contains(&Deviation::RawEs) {
            clip.without_audio()
        } else {
            clip.clone()
        }
    };
    let cameras: Vec<Camera> = (0..cases.len())
        .map(|n| {
            let url = format!("gb28181://{}/{}?transport={word}", device_id(n), channel_id(n));
            Camera::new(&format!("cam{n}"), &url, "auto")
        })
        .collect();
    let mut platform = Platform::new("", &cameras);
    platform.daemon.start();
    let devices: Vec<(Case, Device)> = cases
        .into_iter()
        .enumerate()
        .map(|(n, case)| {
            let device = platform.start_device(n, &source(&case), case.deviations);
            (case, device)
        })
        .collect();
    let running = invited(&platform, devices);
    for r in &running {
        let sent = r.device.wait_units(r.session, 9 * 25, Duration::from_secs(60));
        assert!(
            sent,
            "{}: {:?} sends nothing: {}",
            r.name,
            r.case.deviations,
            platform.status(&r.name)
        );
    }
    let status = platform.daemon.json(&["status"]);
    let status_of = |name: &str| {
        let cameras = status["cameras"].as_array().unwrap();
        cameras.iter().find(|c| c["name"] == name).cloned().unwrap_or_default()
    };
    platform.daemon.stop();
    for r in &running {
        compare(&platform, r, transport, &status_of(&r.name));
    }
}

/// Waits until each device has been invited.
fn invited(platform: &Platform, devices: Vec<(Case, Device)>) -> Vec<Running> {
    devices
        .into_iter()
        .enumerate()
        .map(|(n, (case, device))| {
            let name = format!("cam{n}");
            let invited = device.wait_invite(Duration::from_secs(40));
            let session = invited.unwrap_or_else(|| {
                let sip = device.log().snapshot().sip;
                let texts: Vec<_> = sip.iter().map(|t| format!("--- sent {}\n{}", t.sent, t.text)).collect();
                panic!(
                    "{name} {:?} is not invited\n{}\n{}",
                    case.deviations,
                    texts.join("\n"),
                    platform.status(&name)
                )
            });
            Running {
                name,
                case,
                device,
                session,
            }
        })
        .collect()
}

fn compare(platform: &Platform, r: &Running, transport: MediaTransport, status: &serde_json::Value) {
    let what = format!(
        "{} {:?} {}",
        r.name,
        r.case.deviations,
        if r.case.hevc { "H265" } else { "H264" }
    );
    let session = r.device.log().session(r.session).unwrap();
    assert_eq!(session.transport, transport, "{what}");
    assert_eq!(status["counters"]["packets_lost"], 0, "{what}: {status}");
    assert_eq!(status["counters"]["frames_damaged"], 0, "{what}: {status}");
    assert_eq!(status["counters"]["connects"], 1, "{what}: {status}");
    let files = platform.daemon.segments(&r.name);
    assert!(
        !files.is_empty(),
        "{what}: nothing is stored: {status}\n{}",
        platform.daemon.log()
    );
    assert!(files.iter().all(|f| is_sealed(f)), "{what}: {files:?}");
    let stored = platform.stored(&r.name);
    // What was on its way when the session was ended is not stored: a second at most, and what a device sends after it was ended.
    let straggles = r.case.deviations.contains(&Deviation::Stragglers);
    let at = assert_stored(&what, &stored, &session, Track::Video, if straggles { 90 } else { 25 });
    assert!(at < 50, "{what}: begins with picture {at}");
    if !r.case.jumps {
        assert_times(&what, &stored, &session, Track::Video, 12);
    }
    if !r.case.deviations.contains(&Deviation::RawEs) {
        assert_stored(&what, &stored, &session, Track::Audio, if straggles { 150 } else { 40 });
    }
}

#[test]
fn every_deviation_is_recorded_bit_for_bit_over_tcp_passive() {
    use Deviation as D;
    let mut cases = common();
    cases.extend([
        case(false, &[D::InterleavedFraming]),
        case(false, &[D::TcpDribble]),
        case(true, &[D::InterleavedFraming, D::TcpDribble]),
        case(false, &[D::LateConnect]),
    ]);
    record(MediaTransport::TcpPassive, "tcp-passive", cases);
}

#[test]
fn every_deviation_is_recorded_bit_for_bit_over_udp() {
    use Deviation as D;
    let mut cases = common();
    cases.extend([
        case(false, &[D::Reorder]),
        case(true, &[D::Reorder, D::Duplicates]),
        case(false, &[D::Stragglers]),
    ]);
    record(MediaTransport::Udp, "udp", cases);
}

#[test]
fn every_deviation_is_recorded_bit_for_bit_over_tcp_active() {
    use Deviation as D;
    let mut cases = common();
    cases.extend([case(false, &[D::InterleavedFraming]), case(true, &[D::TcpDribble])]);
    record(MediaTransport::TcpActive, "tcp-active", cases);
}

#[test]
fn a_player_gets_what_a_device_sent() {
    let url = format!("gb28181://{}", device_id(0));
    let mut platform = Platform::new("", &[Camera::new("gate", &url, "auto")]);
    platform.daemon.start();
    let waiting = platform.wait_state("gate", "waiting", Duration::from_secs(10));
    assert!(
        waiting["reason"].as_str().unwrap().contains("has not registered"),
        "{waiting}"
    );
    let clip = clips::encoded(VideoCodec::H264, Some(AudioCodec::Pcma), 4);
    let device = platform.start_device(0, &clip, &[]);
    platform.wait_state("gate", "recording", Duration::from_secs(30));
    platform.daemon.wait_sealed("gate", 2, Duration::from_secs(60));
    drop(device);
    let files = platform.daemon.segments("gate");
    players::assert_decodes(&files[0]);
    let dir = tempfile::tempdir().unwrap();
    let start = corenvr_tests::daemon::start_of(&files[0]);
    let url = platform.daemon.rtsp(&format!("gate?start={start}"));
    let played = players::ffmpeg(
        &url,
        "tcp",
        false,
        &dir.path().join("played.mkv"),
        Duration::from_secs(60),
    );
    assert!(played.video.len() > 100, "{}", played.video.len());
}
