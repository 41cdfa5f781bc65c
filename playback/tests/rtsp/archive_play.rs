//! Playing recordings.

use std::time::{Duration, Instant};

use corenvr_media::{CodecParameters, Frame, WallTime};
use corenvr_proto::rtsp::Method;

use crate::{
    client::{Client, Event, Got, played},
    footage::{GOP, Storage, at, frames, h264, h265, pcma, tracks, video},
    server::Server,
};

/// One hour of URL from noon.
fn url(server: &Server, query: &str) -> String {
    server.url(&format!("door?start=20261120T120000Z{query}"))
}

/// Whether exactly these frames came, in order, bit for bit.
fn assert_same(got: &[Got], wanted: &[Frame]) {
    let key = |track: usize, data: &bytes::Bytes| (track, data.clone());
    let came: Vec<_> = got.iter().map(|g| key(g.track, &g.data)).collect();
    let meant: Vec<_> = wanted.iter().map(|f| key(usize::from(f.track.0), &f.data)).collect();
    let numbers: Vec<_> = got.iter().filter(|g| g.track == 0).map(|g| g.n).collect();
    assert_eq!(came.len(), meant.len(), "{numbers:?}");
    for track in [0, 1] {
        let of = |list: &[(usize, bytes::Bytes)]| list.iter().filter(|(t, _)| *t == track).cloned().collect::<Vec<_>>();
        assert!(of(&came) == of(&meant), "track {track}: {numbers:?}");
    }
}

/// Three segments of 4 s, a gap of a minute, and another of 4 s.
fn day() -> (Storage, Vec<Frame>) {
    let storage = Storage::new();
    let mut all = Vec::new();
    for (i, ms) in [0, 4000, 8000, 72_000].into_iter().enumerate() {
        let part = frames(i as i64 * 100, 100, at(ms));
        storage.sealed("door", tracks(), &part);
        all.extend(part);
    }
    (storage, all)
}

#[test]
fn every_frame_comes_once_in_order_over_segments_and_gaps() {
    let (storage, all) = day();
    let server = Server::start(&[&storage]);
    let mut client = Client::open(&url(&server, "&pace=0"), false);
    let sdp = client.sdp.clone().unwrap();
    assert_eq!(sdp.range.unwrap().to_string(), "npt=0.000-16.000");
    let reply = played(&client.play(Some("npt=0.000-")));
    assert_eq!((reply.start, reply.end), (0.0, Some(16.0)));
    let got = client.until_bye();
    assert_same(&got, &all);
    // The gap is not heard of, and key frames carry their parameter sets.
    for frame in got.iter().filter(|g| g.track == 0) {
        let expected = frame.n as f64 / 25.0;
        assert!(
            (reply.position(frame) - expected).abs() < 0.05,
            "{} {}",
            frame.n,
            reply.position(frame)
        );
        assert_eq!(frame.sets, frame.key);
    }
    // The session is there after the end: once more from the middle.
    let reply = played(&client.play(Some("npt=5-9")));
    assert_eq!((reply.start, reply.end), (4.0, Some(9.0)));
    let wanted: Vec<Frame> = all[200..450].to_vec();
    assert_same(&client.until_bye(), &wanted);
    assert_eq!(client.teardown().status.as_u16(), 200);
    server.wait_for_quiet();
}

#[test]
fn frames_come_at_their_pace_over_udp() {
    let storage = Storage::new();
    let all = frames(0, 50, at(0));
    storage.sealed("door", tracks(), &all);
    let server = Server::start(&[&storage]);
    let mut client = Client::open(&url(&server, ""), true);
    let begun = Instant::now();
    played(&client.play(Some("npt=0-")));
    let got = client.frames(all.len());
    assert!(begun.elapsed() > Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert_same(&got, &all);
    assert_eq!(client.until_bye().len(), 0);
    assert!(
        begun.elapsed() > Duration::from_millis(2500),
        "BYE comes a second after the end"
    );
}

#[test]
fn pause_and_resume_lose_and_repeat_nothing() {
    let (storage, all) = day();
    let server = Server::start(&[&storage]);
    for udp in [false, true] {
        let mut client = Client::open(&url(&server, "&end=20261120T120004Z"), udp);
        let reply = played(&client.play(Some("npt=0-")));
        let mut got = client.frames(20);
        for _ in 0..5 {
            let paused = client.pause();
            assert_eq!(paused.status.as_u16(), 200);
            assert_eq!(client.pause().status.as_u16(), 200, "PAUSE is always right");
            std::thread::sleep(Duration::from_millis(30));
            got.extend(client.drain());
            let again = played(&client.play(None));
            let next = client.frames(1).remove(0);
            assert!((again.position(&next) - again.start).abs() < 0.002);
            assert_eq!(again.info[next.track].rtptime, Some(next.rtp));
            assert!(
                (reply.position(&next) - next.n as f64 / 25.0).abs() < 0.01,
                "time goes on over a pause"
            );
            got.push(next);
            got.extend(client.frames(10));
        }
        got.extend(client.until_bye());
        assert_same(&got, &all[..200]);
    }
}

#[test]
fn a_seek_lands_on_the_key_frame_at_or_before() {
    let (storage, _) = day();
    let server = Server::start(&[&storage]);
    let mut client = Client::open(&url(&server, ""), false);
    let mut last_rtp: Option<u32> = None;
    played(&client.play(Some("npt=0-")));
    for i in 0..200 {
        // In play, without a pause in between, to and fro over all segments.
        let target = f64::from(i * 7919 % 15_990) / 1000.0;
        let reply = played(&client.play(Some(&format!("npt={target:.3}-"))));
        client.forget();
        let frame = loop {
            let got = client.frames(1).remove(0);
            let seq = reply.info[0].rtptime.unwrap();
            if got.track == 0 && got.rtp == seq {
                break got;
            }
            assert_eq!(got.track, 1, "a picture of the old range after the reply");
        };
        let wanted = (target * 25.0) as i64 / GOP * GOP;
        assert_eq!(frame.n, wanted, "{target}");
        assert!((reply.start - wanted as f64 / 25.0).abs() < 0.001 && frame.key);
        if let Some(last) = last_rtp.replace(frame.rtp) {
            assert!(frame.rtp.wrapping_sub(last) as i32 > 0, "RTP time rises over seeks");
        }
    }
    // Beyond the end is clamped, not refused.
    let reply = played(&client.play(Some("npt=99999-")));
    assert!((reply.start - 14.0).abs() < 0.001);
    assert_eq!(server.stats.snapshot().counters.requests_failed, 0);
}

#[test]
fn a_range_starts_at_the_key_frame_before_and_ends_where_it_was_asked_to() {
    let (storage, all) = day();
    let server = Server::start(&[&storage]);
    // From the middle of the second GOP to the middle of the gap.
    let url = server.url("door?start=2026-11-20T12:00:03Z&end=2026-11-20T12:00:30Z&pace=0");
    let mut client = Client::open(&url, false);
    assert_eq!(
        client.sdp.as_ref().unwrap().range.unwrap().to_string(),
        "npt=0.000-10.000"
    );
    played(&client.play(None));
    assert_same(&client.until_bye(), &all[100..600]);
    // By the clock, on the same session, with the reply in the same unit.
    let reply = client.play(Some("clock=20261120T120005.5Z-20261120T120007Z"));
    assert_eq!(
        reply.headers.get("Range"),
        Some("clock=20261120T120004Z-20261120T120007Z")
    );
    let mut wanted = all[200..350].to_vec();
    wanted.retain(|f| f.time < at(7000));
    assert_same(&client.until_bye(), &wanted);
    // In the gap: from the first frame behind it.
    let reply = client.play(Some("clock=20261120T120020Z-"));
    assert_eq!(
        reply.headers.get("Range"),
        Some("clock=20261120T120010Z-20261120T120012Z")
    );
}

#[test]
fn gaps_are_kept_on_request() {
    let storage = Storage::new();
    storage.sealed("door", tracks(), &frames(0, 50, at(0)));
    storage.sealed("door", tracks(), &frames(50, 50, at(10_000)));
    let server = Server::start(&[&storage]);
    let mut client = Client::open(&url(&server, "&gaps=keep&pace=0"), false);
    assert_eq!(
        client.sdp.as_ref().unwrap().range.unwrap().to_string(),
        "npt=0.000-12.000"
    );
    let reply = played(&client.play(Some("npt=0-")));
    for frame in client.until_bye().iter().filter(|g| g.track == 0) {
        let expected = frame.n as f64 / 25.0 + if frame.n >= 50 { 8.0 } else { 0.0 };
        assert!((reply.position(frame) - expected).abs() < 0.01, "{}", frame.n);
    }
    assert!((played(&client.play(Some("npt=5-"))).start - 10.0).abs() < 0.001);
}

#[test]
fn pictures_stored_out_of_order_are_whole_at_the_end() {
    let storage = Storage::new();
    // Decode order I P B B P B B: each P is shown after the two Bs behind it.
    let shown = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8];
    let all: Vec<Frame> = (0..10).map(|i| video(i, at(shown[i as usize] * 40))).collect();
    storage.sealed("door", [h264()].into(), &all);
    let server = Server::start(&[&storage]);
    let mut client = Client::open(&url(&server, "&pace=0"), false);
    // Up to before picture 6: B 4 and 5 need P 6, which is stored in front of them.
    played(&client.play(Some("npt=0-0.239")));
    let numbers: Vec<i64> = client.until_bye().iter().map(|g| g.n).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6]);
    // Up to before picture 4: nothing of what follows P 3 and its Bs is wanted.
    played(&client.play(Some("npt=0-0.159")));
    let numbers: Vec<i64> = client.until_bye().iter().map(|g| g.n).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
}

#[test]
fn new_parameters_of_the_same_codec_travel_in_band_and_another_codec_ends_the_range() {
    let storage = Storage::new();
    storage.sealed("door", tracks(), &frames(0, 50, at(0)));
    let CodecParameters::Video(mut other) = h264() else {
        unreachable!()
    };
    // The same stream with another PPS.
    other.extra = [&other.extra[..other.extra.len() - 1], &[0x21]].concat().into();
    let other = CodecParameters::Video(other);
    storage.sealed("door", [other, pcma()].into(), &frames(50, 50, at(2000)));
    storage.sealed("door", [h265(), pcma()].into(), &frames(100, 50, at(4000)));
    let server = Server::start(&[&storage]);
    let mut client = Client::open(&url(&server, "&pace=0"), false);
    played(&client.play(None));
    let got = client.until_bye();
    assert_eq!(got.len(), 200);
    assert!(got.iter().filter(|g| g.key && g.track == 0).all(|g| g.sets));
    let response = client.play(Some("npt=5-"));
    assert_eq!(response.status.as_u16(), 415, "{response:?}");
}

#[test]
fn two_viewers_of_the_same_recording_do_not_disturb_each_other() {
    let (storage, all) = day();
    let server = Server::start(&[&storage]);
    let mut first = Client::open(&url(&server, "&pace=0"), false);
    let mut second = Client::open(&url(&server, ""), false);
    played(&second.play(Some("npt=6-")));
    played(&first.play(Some("npt=0-")));
    assert_same(&first.until_bye(), &all);
    assert_eq!(second.frames(1)[0].n, 150);
    played(&second.play(Some("npt=2-")));
    second.forget();
    first.teardown();
    assert!(second.frames(60).iter().any(|g| g.n == 50 && g.key));
}

#[test]
fn what_cannot_be_read_is_passed_over() {
    let (storage, all) = day();
    let files = storage.files();
    assert_eq!(files.len(), 4);
    // The second segment is deleted behind the index's back, and a cluster in the middle of the third is overwritten.
    std::fs::remove_file(&files[1]).unwrap();
    let mut bytes = std::fs::read(&files[2]).unwrap();
    let clusters = (0..bytes.len())
        .step_by(4096)
        .filter(|i| bytes[*i..].starts_with(&[0x1F, 0x43, 0xB6, 0x75]));
    let second = clusters.collect::<Vec<_>>()[1];
    bytes[second..second + 64].fill(0xFF);
    std::fs::write(&files[2], bytes).unwrap();
    let server = Server::start(&[&storage]);
    let mut client = Client::open(&url(&server, "&pace=0"), false);
    played(&client.play(None));
    let got = client.until_bye();
    // Of the third segment (frames 200 to 299), the second cluster of four held 225 to 249: the next key frame is 250.
    let whole = |f: &&Frame| f.time < at(4000) || f.time >= at(8000) && f.time < at(9000) || f.time >= at(10_000);
    assert_same(&got, &all.iter().filter(whole).cloned().collect::<Vec<_>>());
    assert!(server.stats.snapshot().counters.unreadable >= 2);
    assert_eq!(server.stats.snapshot().sessions.len(), 1);
}

#[test]
fn several_storages_are_one_recording() {
    let (one, two) = (Storage::new(), Storage::new());
    let mut all = Vec::new();
    for i in 0..4 {
        let part = frames(i * 50, 50, at(i * 2000));
        let storage = if i % 2 == 0 { &one } else { &two };
        storage.sealed("door", tracks(), &part);
        all.extend(part);
    }
    let server = Server::start(&[&one, &two]);
    let mut client = Client::open(&url(&server, "&pace=0"), false);
    played(&client.play(None));
    assert_same(&client.until_bye(), &all);
}

#[test]
fn sound_is_left_out_on_request() {
    let (storage, _) = day();
    let server = Server::start(&[&storage]);
    let mut client = Client::open(&url(&server, "&audio=0&pace=0"), false);
    assert_eq!(client.sdp.as_ref().unwrap().media.len(), 1);
    played(&client.play(None));
    assert_eq!(client.until_bye().len(), 400);
}

#[test]
fn vlc_resumes_from_a_key_frame_and_a_rate_is_answered_with_what_is_served() {
    let (storage, _) = day();
    let server = Server::start(&[&storage]);
    let mut client = Client::open_as(&url(&server, ""), false, "LibVLC/3.0.24 (LIVE555)");
    played(&client.play(Some("npt=3-")));
    client.frames(60);
    client.pause();
    client.drain();
    let reply = played(&client.play(None));
    assert!((reply.start - 2.0).abs() < 0.001, "{reply:?}");
    let frame = client.frames(1).remove(0);
    assert_eq!((frame.n, frame.key), (50, true));
    let url = client.url.clone();
    let response = client.request(Method::Play, &url, &[("Scale", "4.0")]);
    assert_eq!(response.headers.get("Scale"), Some("4.0"));
    client.agent = "GStreamer/1.22.0";
    let mut other = Client::open_as(&url, false, "GStreamer/1.22.0");
    let response = other.request(Method::Play, &url, &[("Scale", "4.0"), ("Range", "npt=0-")]);
    assert_eq!((response.status.as_u16(), response.headers.get("Scale")), (200, None));
}

#[test]
fn sender_reports_lie_on_one_line_over_seeks_and_speeds() {
    let (storage, _) = day();
    let server = Server::start(&[&storage]);
    let mut client = Client::open(&url(&server, ""), false);
    let play = |client: &mut Client, headers: &[(&'static str, &str)]| {
        assert_eq!(client.play_with(headers).status.as_u16(), 200);
        client.forget();
        loop {
            if let Event::Report(0, info) = client.next() {
                let micros = WallTime::from_ntp(info.ntp).as_micros();
                return (micros, info.rtp);
            }
        }
    };
    let (wall, rtp) = play(&mut client, &[("Range", "npt=8-")]);
    assert_eq!(wall, at(8000).as_micros(), "the time of the footage where play began");
    for headers in [
        [("Range", "npt=1-"), ("Scale", "1.0")],
        [("Range", "npt=10-"), ("Scale", "1.0")],
        [("Range", "npt=10-"), ("Scale", "-4.0")],
        [("Range", "npt=0-"), ("Scale", "8.0")],
    ] {
        let (later, stamp) = play(&mut client, &headers);
        let media = i64::from(stamp.wrapping_sub(rtp)) * 1_000_000 / 90_000;
        assert!(
            (later - wall - media).abs() < 1000,
            "{headers:?}: {} us of {media}",
            later - wall
        );
        client.frames(2);
    }
}
