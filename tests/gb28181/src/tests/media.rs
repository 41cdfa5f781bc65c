//! Media sessions over all transports and with every deviation: each access unit on the wire is the one in the log, bit for bit.

use std::{sync::Arc, time::Duration};

use corenvr_media::{VideoCodec, WallTime};

use super::{
    CHANNEL, PATIENCE, config,
    demux::{Collector, by_seq, elementary, nals, program_stream, slices_sha256},
    h264, h265,
    platform::{Platform, offer},
};
use crate::{
    ArchiveSpan, Deviation, Deviations, Device, EndCause, Event, MediaTransport, SessionId, SessionLog, SipTransport,
    Source, Track,
};

const SSRC: u32 = 200_001_234;

/// Runs a live session of `units` access units and returns its log and what was collected.
fn live(
    source: Arc<Source>,
    deviations: Deviations,
    transport: &str,
    units: u64,
) -> (SessionLog, Vec<super::demux::Packet>, String) {
    let mut platform = Platform::new(SipTransport::Udp);
    let mut config = config(&platform, source);
    config.deviations = deviations;
    let device = Device::start(config).unwrap();
    platform.register();
    let mut collector = match transport {
        "udp" => Some(Collector::udp()),
        "passive" => Some(Collector::tcp_passive()),
        _ => None,
    };
    let port = collector.as_ref().map_or(9, |c| c.port);
    let mut call = platform
        .invite(CHANNEL, &offer("Play", transport, port, "0 0", SSRC))
        .unwrap();
    if transport == "active" {
        let media = call.sdp.split("m=video ").nth(1).unwrap().split(' ').next().unwrap();
        collector = Some(Collector::tcp_active(media.parse().unwrap()));
    }
    let session = device.wait_invite(PATIENCE).unwrap();
    assert!(
        device.wait_units(session, units, PATIENCE),
        "{:#?}",
        device.log().snapshot()
    );
    let bye = platform.within(&mut call, "BYE", "");
    let expected = if deviations.has(Deviation::Bye481) { 481 } else { 200 };
    assert_eq!(bye.status(), Some(expected));
    assert_eq!(device.wait_ended(session, PATIENCE), Some(EndCause::Platform));
    std::thread::sleep(Duration::from_millis(200));
    (
        device.log().session(session).unwrap(),
        collector.unwrap().finish(),
        call.sdp,
    )
}

/// Compares all but the last access units, which BYE may have cut off.
fn compare(source: &Source, deviations: Deviations, log: &SessionLog, packets: &[super::demux::Packet]) {
    let has = |d| deviations.has(d);
    let (received, copies) = by_seq(packets, log.units[0].seq_first);
    let mut seq = 0;
    let (mut lost, mut duplicated) = (0, 0);
    let whole = &log.units[..log.units.len() - 8];
    for (i, unit) in whole.iter().enumerate() {
        assert_eq!(unit.seq_first, log.units[0].seq_first.wrapping_add(seq as u16));
        let range = seq..seq + i64::from(unit.packets);
        seq = range.end;
        let there: Vec<_> = received.range(range.clone()).map(|(_, p)| *p).collect();
        assert!(
            there.iter().all(|p| p.time == unit.rtp_time && p.ssrc == log.ssrc),
            "unit {i}"
        );
        lost += unit.lost.len();
        duplicated += unit.duplicated;
        assert_eq!(
            there.len() + unit.lost.len(),
            unit.packets as usize,
            "unit {i} {unit:?}"
        );
        assert!(there.iter().all(|p| !unit.lost.contains(&p.seq)));
        if !unit.whole() {
            continue;
        }
        let markers = there.iter().filter(|p| p.marker).count();
        let wanted = match () {
            () if has(Deviation::MarkerNever) => 0,
            () if has(Deviation::MarkerAlways) => there.len(),
            () => 1,
        };
        assert_eq!(markers, wanted);
        if has(Deviation::RawEs) {
            assert_eq!(
                slices_sha256(source.video(), &elementary(source.video(), &there)),
                unit.slices_sha256
            );
            continue;
        }
        let bytes: Vec<u8> = there.iter().flat_map(|p| p.payload.clone()).collect();
        let piece = program_stream(&bytes);
        let list = if unit.track == Track::Video {
            &piece.video
        } else {
            &piece.audio
        };
        assert_eq!(list[0].0, Some(unit.pts_wire), "unit {i}");
        let stream: Vec<u8> = list.iter().flat_map(|(_, p)| p.clone()).collect();
        let hash = if unit.track == Track::Video {
            slices_sha256(source.video(), &nals(&stream))
        } else {
            let adts = if source.audio().unwrap().0 == corenvr_media::AudioCodec::Aac {
                7
            } else {
                0
            };
            <sha2::Sha256 as sha2::Digest>::digest(&stream[adts..]).into()
        };
        assert_eq!(hash, unit.slices_sha256, "unit {i}");
        check_container(source, deviations, unit, &piece);
    }
    assert_eq!(lost > 0, has(Deviation::Loss));
    assert_eq!(duplicated > 0, has(Deviation::Duplicates));
    assert!(copies >= duplicated);
    assert_eq!(whole.iter().any(|u| u.reordered > 0), has(Deviation::Reorder));
}

fn check_container(source: &Source, deviations: Deviations, unit: &crate::UnitLog, piece: &super::demux::Piece) {
    let has = |d| deviations.has(d);
    if unit.track == Track::Audio {
        return;
    }
    assert_eq!(piece.system_header, unit.key && !has(Deviation::NoSystemHeader));
    assert_eq!(piece.map.is_some(), unit.key && !has(Deviation::MapMissing));
    assert_eq!(piece.pack_stuffing, if has(Deviation::PackStuffing) { 7 } else { 0 });
    assert!(piece.other_ids.is_empty() || has(Deviation::PrivateStreams));
    let pieces = has(Deviation::PesSmall) || has(Deviation::PtsRepeated);
    let size: usize = piece.video.iter().map(|(_, p)| p.len()).sum();
    // A key frame has its parameter sets in front.
    let many = has(Deviation::PesPerNal) && unit.key || pieces && size > 1_237;
    assert_eq!(piece.video.len() > 1, many);
    let timed = piece.video.iter().filter(|(t, _)| t.is_some()).count();
    let all = has(Deviation::PtsRepeated) || has(Deviation::PesPerNal);
    assert_eq!(timed, if all { piece.video.len() } else { 1 });
    if let Some(map) = &piece.map {
        let h265 = (source.video() == VideoCodec::H265) != has(Deviation::MapWrongCodec);
        assert_eq!(map[0], if h265 { 0x24 } else { 0x1B });
        assert_eq!(piece.map_crc_right, !has(Deviation::MapWrongCrc));
    }
}

/// Deviations without an access unit on the wire, or with a test of their own.
const WITHOUT_MEDIA: [Deviation; 3] = [Deviation::InviteSilent, Deviation::Invite486, Deviation::Invite488];

#[test]
fn with_every_deviation_the_log_is_what_was_on_the_wire() {
    let mut threads = Vec::new();
    for (i, deviation) in Deviation::ALL.iter().filter(|d| !WITHOUT_MEDIA.contains(d)).enumerate() {
        let of_packets = matches!(deviation, Deviation::Loss | Deviation::Reorder | Deviation::Duplicates);
        let of_streams = matches!(
            deviation,
            Deviation::InterleavedFraming | Deviation::TcpDribble | Deviation::TcpGarbage | Deviation::LateConnect
        );
        let transport = match i % 3 {
            _ if of_packets => "udp",
            _ if of_streams => "passive",
            0 => "udp",
            1 => "passive",
            _ => "active",
        };
        let source = if i % 2 == 0 { h264() } else { h265() };
        threads.push(std::thread::spawn(move || {
            let deviations = Deviations::NONE.with(*deviation);
            let (log, packets, _) = live(source.clone(), deviations, transport, 200);
            let result = std::panic::catch_unwind(|| compare(&source, deviations, &log, &packets));
            assert!(result.is_ok(), "{deviation} over {transport}");
        }));
    }
    let failed = threads
        .into_iter()
        .map(std::thread::JoinHandle::join)
        .filter(Result::is_err)
        .count();
    assert_eq!(failed, 0);
}

#[test]
fn all_transports_carry_the_same() {
    for (transport, seen) in [
        ("udp", MediaTransport::Udp),
        ("passive", MediaTransport::TcpPassive),
        ("active", MediaTransport::TcpActive),
    ] {
        let (log, packets, sdp) = live(h265(), Deviations::NONE, transport, 120);
        compare(&h265(), Deviations::NONE, &log, &packets);
        assert_eq!((log.transport, log.ssrc), (seen, SSRC));
        assert!(packets.iter().all(|p| p.payload_type == 96));
        assert!(sdp.contains("y=0200001234"), "{sdp}");
        assert!(log.units[0].key && log.units[0].pts_90k == 0);
        assert!(
            log.packets_sent >= packets.len() as u64,
            "{} {}",
            log.packets_sent,
            packets.len()
        );
    }
}

#[test]
fn deviations_of_time_and_ssrc_stand_in_the_log() {
    let run = |d| live(h264(), Deviations::NONE.with(d), "passive", 200);
    let (log, _, sdp) = run(Deviation::SsrcInAnswer);
    assert!(log.ssrc != SSRC && sdp.contains(&format!("y={:010}", log.ssrc)));
    let (log, _, _) = run(Deviation::SsrcZero);
    assert_eq!(log.ssrc, 0);
    let jump = |log: &SessionLog| {
        let video: Vec<_> = log.units.iter().filter(|u| u.track == Track::Video).collect();
        let wire = |w: &[&crate::UnitLog]| (w[1].pts_wire as i64 - w[0].pts_wire as i64) / 90_000;
        assert!(video.windows(2).all(|w| w[1].pts_90k - w[0].pts_90k == 3600));
        video.windows(2).map(wire).find(|d| *d != 0).unwrap()
    };
    assert_eq!(jump(&run(Deviation::PtsJump).0), 3600);
    assert_eq!(jump(&run(Deviation::PtsJumpBack).0), -3599);
    assert_eq!(jump(&run(Deviation::PtsWrap).0), -((1 << 33) / 90_000));
    let (log, ..) = run(Deviation::RtpWrap);
    assert!(
        log.units.windows(2).any(|w| w[1].rtp_time < w[0].rtp_time)
            && log.units.windows(2).any(|w| w[1].seq_first < w[0].seq_first)
    );
}

#[test]
fn a_key_frame_on_demand_comes_at_once_and_a_stalled_session_says_nothing() {
    let mut platform = Platform::new(SipTransport::Udp);
    let device = Device::start(config(&platform, h264())).unwrap();
    platform.register();
    let collector = Collector::tcp_passive();
    platform
        .invite(CHANNEL, &offer("Play", "passive", collector.port, "0 0", SSRC))
        .unwrap();
    let session = device.wait_invite(PATIENCE).unwrap();
    for (i, element) in ["IFrameCmd", "IFameCmd"].iter().enumerate() {
        // In the middle of a GOP, or there is nothing to see.
        let at = device.log().session(session).unwrap().units_sent + 24;
        device.wait_units(session, at, PATIENCE);
        let body = format!(
            "<Control><CmdType>DeviceControl</CmdType><SN>1</SN><DeviceID>{CHANNEL}</DeviceID><{element}>Send</{element}></Control>"
        );
        platform.ask("MESSAGE", &[], &body);
        let asked = |e: &Event| matches!(e, Event::KeyFrameAsked { element: e, .. } if e == element);
        assert!(device.log().wait_event(PATIENCE, asked).is_some());
        device.wait_units(session, at + 60, PATIENCE);
        let units = device.log().session(session).unwrap().units;
        let video: Vec<_> = units.iter().filter(|u| u.track == Track::Video).collect();
        assert!(
            video.windows(2).all(|w| w[1].pts_90k - w[0].pts_90k == 3600),
            "no hole in time"
        );
        let keys: Vec<_> = video
            .iter()
            .enumerate()
            .filter(|(_, u)| u.key)
            .map(|(i, _)| i)
            .collect();
        assert!(keys.windows(2).filter(|w| w[1] - w[0] < 25).count() > i, "{keys:?}");
    }
    device.stall(session);
    std::thread::sleep(Duration::from_millis(300));
    let sent = device.log().session(session).unwrap().units_sent;
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(device.log().session(session).unwrap().units_sent, sent);
    drop(collector);
}

fn at(s: i64) -> WallTime {
    WallTime::from_millis((1_790_000_000 + s) * 1000)
}

fn archive_device() -> (Platform, Device) {
    let mut platform = Platform::new(SipTransport::Tcp);
    let mut config = config(&platform, h264());
    config.transport = SipTransport::Tcp;
    config.archive = vec![
        ArchiveSpan {
            start: at(0),
            end: at(60),
        },
        ArchiveSpan {
            start: at(90),
            end: at(200),
        },
    ];
    let device = Device::start(config).unwrap();
    platform.register();
    (platform, device)
}

fn play(
    platform: &mut Platform,
    device: &Device,
    kind: &str,
    range: &str,
    after: Option<SessionId>,
) -> (super::platform::Call, SessionId, Collector) {
    let collector = Collector::tcp_passive();
    let call = platform
        .invite(CHANNEL, &offer(kind, "passive", collector.port, range, 1_200_000_001))
        .unwrap();
    let session = device.wait_invite_after(after, PATIENCE).unwrap();
    (call, session, collector)
}

#[test]
fn a_playback_obeys_pause_speed_seek_and_announces_its_end() {
    let (mut platform, device) = archive_device();
    let (mut call, session, _collector) = play(&mut platform, &device, "Playback", "1790000010 1790000095", None);
    device.wait_units(session, 20, PATIENCE);
    let first = device.log().session(session).unwrap().units[0].clone();
    assert!(
        first.key && first.archive_time.is_some_and(|t| t <= at(10) && t > at(8)),
        "{first:?}"
    );
    let info = |body: &str| format!("{body}\r\n\r\n");
    let answer = platform.within(&mut call, "INFO", &info("PAUSE RTSP/1.0\r\nCSeq: 2\r\nPauseTime: now"));
    assert!(
        String::from_utf8(answer.body)
            .unwrap()
            .starts_with("RTSP/1.0 200 OK\r\nCSeq: 2\r\n")
    );
    let sent = device.log().session(session).unwrap().units_sent;
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(device.log().session(session).unwrap().units_sent, sent);
    let answer = platform.within(&mut call, "INFO", &info("PLAY RTSP/1.0\r\nCSeq: 3\r\nRange: npt=45-"));
    let text = String::from_utf8(answer.body).unwrap();
    assert!(
        text.contains("Range: npt=45-") && text.contains("RTP-Info: seq="),
        "{text}"
    );
    platform.within(&mut call, "INFO", &info("PLAY RTSP/1.0\r\nCSeq: 4\r\nScale: 4.0"));
    let end = platform.until_body(&["<CmdType>MediaStatus</CmdType>", "<NotifyType>121</NotifyType>"]);
    assert!(end.contains(CHANNEL));
    let log = device.log().session(session).unwrap();
    assert_eq!(log.state, crate::SessionState::Sent);
    let times: Vec<i64> = log
        .units
        .iter()
        .filter(|u| u.track == Track::Video)
        .filter_map(|u| Some(u.archive_time?.micros_since(at(0)) / 40_000))
        .collect();
    let jumps: Vec<_> = times
        .windows(2)
        .filter(|w| w[1] != w[0] + 1)
        .map(|w| (w[0] / 25, w[1] / 25))
        .collect();
    // The seek, then the hole of the archive, which ends with the first key frame in the second span.
    assert_eq!(jumps.len(), 2, "{jumps:?}");
    assert!(
        (53..=55).contains(&jumps[0].1) && jumps[1].0 == 59 && jumps[1].1 == 90,
        "{jumps:?}"
    );
    assert_eq!(*times.last().unwrap(), 95 * 25 - 1);
    let pts = log
        .units
        .iter()
        .all(|u| (u.archive_time.unwrap().micros_since(at(10)) * 9 / 100 - u.pts_90k).abs() <= 1);
    assert!(pts, "PTS counts from the start of the range");
    assert_eq!(platform.within(&mut call, "BYE", "").status(), Some(200));
}

#[test]
fn a_download_is_as_fast_as_asked_and_reverse_goes_gop_by_gop() {
    let (mut platform, device) = archive_device();
    let started = std::time::Instant::now();
    let (mut call, session, _collector) = play(&mut platform, &device, "Download", "1790000020 1790000036", None);
    platform.until_body(&["<NotifyType>121</NotifyType>"]);
    let took = started.elapsed();
    assert!(
        took > Duration::from_secs(3) && took < Duration::from_secs(12),
        "16 s at 4x took {took:?}"
    );
    let pictures = device
        .log()
        .session(session)
        .unwrap()
        .units
        .iter()
        .filter(|u| u.track == Track::Video)
        .count();
    assert!((16 * 25..=17 * 25).contains(&pictures), "{pictures}");
    platform.within(&mut call, "BYE", "");
    let (mut call, session, _collector) = play(
        &mut platform,
        &device,
        "Playback",
        "1790000020 1790000036",
        Some(session),
    );
    platform.within(
        &mut call,
        "INFO",
        "PLAY RTSP/1.0\r\nCSeq: 3\r\nRange: npt=8-\r\nScale: -4.0\r\n\r\n",
    );
    let before = device.log().session(session).unwrap().units.len();
    platform.until_body(&["<NotifyType>121</NotifyType>"]);
    let log = device.log().session(session).unwrap();
    let reverse: Vec<_> = log
        .units
        .iter()
        .skip(before + 2)
        .filter(|u| u.track == Track::Video && u.key)
        .collect();
    let keys: Vec<i64> = reverse.iter().map(|u| u.pts_90k).collect();
    assert!(keys.len() >= 7 && keys.is_sorted_by(|a, b| a > b), "{keys:?}");
    platform.within(&mut call, "INFO", "TEARDOWN RTSP/1.0\r\nCSeq: 5\r\n\r\n");
    assert_eq!(device.wait_ended(session, PATIENCE), Some(EndCause::Platform));
}

#[test]
fn a_lost_media_connection_ends_the_session_by_bye() {
    let mut platform = Platform::new(SipTransport::Udp);
    let device = Device::start(config(&platform, h264())).unwrap();
    platform.register();
    let collector = Collector::tcp_passive();
    platform
        .invite(CHANNEL, &offer("Play", "passive", collector.port, "0 0", SSRC))
        .unwrap();
    let session = device.wait_invite(PATIENCE).unwrap();
    device.wait_units(session, 10, PATIENCE);
    collector.finish();
    platform.until(|m| m.method() == "BYE");
    assert_eq!(device.wait_ended(session, PATIENCE), Some(EndCause::Connection));
}
