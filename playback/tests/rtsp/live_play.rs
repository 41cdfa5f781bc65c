//! The present, and the way from the past into it.

use std::time::{Duration, Instant};

use corenvr_media::{Frame, WallTime};
use corenvr_store::{GapCause, live::LiveItem};

use crate::{
    client::{Client, Event, Got, played},
    footage::{Storage, frames, h265, name, pcma, tracks},
    server::Server,
};

fn numbers(got: &[Got]) -> Vec<i64> {
    got.iter().filter(|g| g.track == 0).map(|g| g.n).collect()
}

fn now() -> WallTime {
    WallTime::from_millis(WallTime::from_system(std::time::SystemTime::now()).as_millis())
}

fn push(server: &Server, list: &[Frame]) {
    for frame in list {
        server.cameras.push("door", frame.clone());
    }
}

/// Reads pictures until this one.
fn until(client: &mut Client, n: i64) -> Vec<Got> {
    let mut all = Vec::new();
    while all.iter().all(|g: &Got| g.track != 0 || g.n != n) {
        all.extend(client.frames(1));
    }
    all
}

#[test]
fn viewers_start_at_the_last_key_frame_and_share_one_subscription() {
    let server = Server::start(&[]);
    server.cameras.add("door", tracks());
    let all = frames(0, 300, now());
    // Key frames are every 50.
    push(&server, &all[..2 * 80]);
    let mut first = Client::open(&server.url("door"), false);
    assert_eq!(first.sdp.as_ref().unwrap().range, None, "players would show a seek bar");
    let reply = played(&first.play(Some("npt=0.000-")));
    assert_eq!((reply.start, reply.end), (0.0, None));
    push(&server, &all[2 * 80..2 * 120]);
    let got = until(&mut first, 118);
    assert_eq!(numbers(&got), (50..=118).collect::<Vec<_>>());
    assert!(got[0].key && got[0].sets);
    // The backlog of 1.2 s passes in 0.3 s, what follows at its own pace.
    let at = |n: i64| reply.position(got.iter().find(|g| g.track == 0 && g.n == n).unwrap());
    assert!(
        at(50).abs() < 0.001 && (at(79) - 0.3).abs() < 0.01,
        "{} {}",
        at(50),
        at(79)
    );
    assert!((at(118) - at(79) - 39.0 / 25.0).abs() < 0.01);
    let mut second = Client::open(&server.url("door"), true);
    played(&second.play(None));
    push(&server, &all[2 * 120..2 * 140]);
    assert_eq!(numbers(&until(&mut second, 138)), (100..=138).collect::<Vec<_>>());
    assert_eq!(server.cameras.subscriptions("door"), 1);
    // A pause of live is a way out of it: play goes on in the present.
    assert_eq!(first.pause().status.as_u16(), 200);
    first.forget();
    push(&server, &all[2 * 140..2 * 220]);
    std::thread::sleep(Duration::from_millis(100));
    let again = played(&first.play(None));
    first.forget();
    assert!(again.start > 1.8, "positions count on: {}", again.start);
    push(&server, &all[2 * 220..2 * 230]);
    assert_eq!(numbers(&until(&mut first, 228)), (200..=228).collect::<Vec<_>>());
}

#[test]
fn a_removed_camera_says_goodbye_and_an_unknown_one_is_not_found() {
    let server = Server::start(&[]);
    server.cameras.add("door", tracks());
    push(&server, &frames(0, 10, now()));
    let mut client = Client::open(&server.url("door"), false);
    played(&client.play(None));
    server.cameras.send("door", &LiveItem::Gap(GapCause::Loss));
    server.cameras.send("door", &LiveItem::End);
    assert_eq!(numbers(&client.until_bye()), (0..10).collect::<Vec<_>>());
    let response = Client::connect(&server.url("window")).describe();
    assert_eq!(
        (response.status.as_u16(), &*response.reason),
        (
            404,
            "No camera window is recorded now; what was recorded of it plays with ?start="
        )
    );
}

#[test]
fn another_codec_ends_a_live_session() {
    let server = Server::start(&[]);
    server.cameras.add("door", tracks());
    push(&server, &frames(0, 10, now()));
    let mut client = Client::open(&server.url("door"), false);
    played(&client.play(None));
    server
        .cameras
        .send("door", &LiveItem::Parameters([h265(), pcma()].into()));
    push(&server, &frames(50, 10, now()));
    assert_eq!(numbers(&client.until_bye()), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_viewer_who_does_not_read_skips_to_a_key_frame_and_disturbs_nobody() {
    let server = Server::start(&[]);
    server.cameras.add("door", tracks());
    let all = frames(0, 12_000, now());
    push(&server, &all[..100]);
    let mut slow = Client::open(&server.url("door"), false);
    played(&slow.play(None));
    let mut quick = Client::open(&server.url("door"), false);
    played(&quick.play(None));
    // 28 MB, more than any buffer on the way holds; the quick viewer is kept in step.
    for part in all[100..].chunks(200) {
        push(&server, part);
        until(&mut quick, last_picture(part) - 1);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.stats.snapshot().counters.live_skipped == 0 {
        assert!(Instant::now() < deadline, "{:?}", server.stats.snapshot());
        slow.frames(100);
    }
    let got = until(&mut slow, 11_998);
    let seen = numbers(&got);
    for pair in seen.windows(2) {
        assert!(
            pair[1] == pair[0] + 1 || pair[1] % 50 == 0 && pair[1] > pair[0],
            "{pair:?}"
        );
    }
}

fn last_picture(part: &[Frame]) -> i64 {
    let last = part.iter().rev().find(|f| f.track.0 == 0).unwrap();
    std::str::from_utf8(&last.data[5..13]).unwrap().parse().unwrap()
}

#[test]
fn playback_of_what_is_being_recorded_joins_the_present() {
    let storage = Storage::new();
    // Recorded up to a second ago; the rest is in memory only, then recorded too, over the border of two segments.
    let start = now().offset(-6_000_000);
    let all = frames(0, 400, start);
    storage.sealed("door", tracks(), &all[..2 * 50]);
    let mut open = storage.open("door", tracks(), all[2 * 50].time);
    open.flush(&all[2 * 50..2 * 100]);
    let server = Server::start(&[&storage]);
    server.cameras.add("door", tracks());
    push(&server, &all[..2 * 120]);
    let mut client = Client::open(&server.url("door"), false);
    let response = client.play(Some(&format!("clock={}-", start.to_clock())));
    assert_eq!(
        response.headers.get("Range").unwrap(),
        format!("clock={}-", start.to_clock())
    );
    let mut got = until(&mut client, 60);
    // While it plays, the recorder goes on.
    open.flush(&all[2 * 100..2 * 150]);
    open.seal();
    let mut next = storage.open("door", tracks(), all[2 * 150].time);
    next.flush(&all[2 * 150..2 * 160]);
    push(&server, &all[2 * 120..2 * 200]);
    got.extend(until(&mut client, 190));
    push(&server, &all[2 * 200..2 * 220]);
    got.extend(until(&mut client, 218));
    assert_eq!(numbers(&got), (0..=218).collect::<Vec<_>>());
    assert_eq!(server.stats.snapshot().counters.seams_missed, 0);
    // And back to the present.
    played(&client.play(Some("npt=now-")));
    client.forget();
    push(&server, &all[2 * 220..2 * 230]);
    assert_eq!(numbers(&until(&mut client, 228)), (200..=228).collect::<Vec<_>>());
}

#[test]
fn the_recordings_of_a_camera_that_is_gone_play_by_the_clock_on_its_live_url() {
    let storage = Storage::new();
    let start = now().offset(-60_000_000);
    let mut open = storage.open("door", tracks(), start);
    open.flush(&frames(0, 100, start));
    open.seal();
    let server = Server::start(&[&storage]);
    let mut client = Client::open(&server.url("door"), false);
    // The present cannot be had, and says so; the past can.
    assert_eq!(client.play(None).status.as_u16(), 404);
    let end = start.offset(4_000_000).to_clock();
    let response = client.play(Some(&format!("clock={}-{end}", start.to_clock())));
    assert_eq!(response.status.as_u16(), 200, "{response:?}");
    assert_eq!(numbers(&client.until_bye()), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_range_that_ends_in_the_future_goes_on_live_and_ends_there() {
    let storage = Storage::new();
    let start = now().offset(-4_000_000);
    let all = frames(0, 200, start);
    let mut open = storage.open("door", tracks(), start);
    open.flush(&all[..2 * 80]);
    let server = Server::start(&[&storage]);
    server.cameras.add("door", tracks());
    push(&server, &all[2 * 50..2 * 100]);
    let end = start.offset(6_000_000).to_clock();
    let url = server.url(&format!("door?start={}&end={end}", start.to_clock()));
    let mut client = Client::open(&url, false);
    assert_eq!(
        client.sdp.as_ref().unwrap().range.unwrap().to_string(),
        "npt=0.000-6.000"
    );
    played(&client.play(None));
    let mut got = until(&mut client, 95);
    push(&server, &all[2 * 100..2 * 180]);
    got.extend(client.until_bye());
    assert_eq!(numbers(&got), (0..150).collect::<Vec<_>>());
}

#[test]
fn an_open_range_from_what_is_not_on_disk_yet_is_the_present() {
    let storage = Storage::new();
    let server = Server::start(&[&storage]);
    server.cameras.add("door", tracks());
    let start = now().offset(-3_000_000);
    push(&server, &frames(0, 60, start));
    let mut client = Client::open(&server.url("door"), false);
    let response = client.play(Some(&format!("clock={}-", start.offset(1_000_000).to_clock())));
    assert_eq!(
        response.headers.get("Range").unwrap(),
        format!("clock={}-", start.offset(2_000_000).to_clock())
    );
    assert_eq!(numbers(&until(&mut client, 58)), (50..=58).collect::<Vec<_>>());
    let long_ago = start.offset(-3_600_000_000).to_clock();
    assert_eq!(
        client
            .play(Some(&format!("clock={long_ago}-{}", start.to_clock())))
            .status
            .as_u16(),
        404
    );
    assert_eq!(client.play(Some(&format!("clock={long_ago}-"))).status.as_u16(), 404);
}

#[test]
fn a_url_without_an_end_reaches_to_what_is_recorded_and_stays_that_long() {
    let storage = Storage::new();
    let start = now().offset(-60_000_000);
    let all = frames(0, 200, start);
    let mut open = storage.open("door", tracks(), start);
    open.flush(&all[..2 * 100]);
    let server = Server::start(&[&storage]);
    let url = server.url(&format!("door?start={}&pace=0", start.to_clock()));
    let mut client = Client::open(&url, false);
    assert_eq!(
        client.sdp.as_ref().unwrap().range.unwrap().to_string(),
        "npt=0.000-3.961"
    );
    open.flush(&all[2 * 100..2 * 150]);
    let reply = played(&client.play(None));
    assert_eq!(reply.end, Some(3.961));
    assert_eq!(numbers(&client.until_bye()), (0..100).collect::<Vec<_>>());
    open.seal();
    played(&client.play(Some("npt=1-")));
    assert_eq!(numbers(&client.until_bye()), (0..100).collect::<Vec<_>>());
    assert_eq!(server.stats.snapshot().sessions[0].camera, name("door"));
}

#[test]
fn the_first_sender_report_pairs_rtp_time_with_the_time_of_the_footage() {
    let storage = Storage::new();
    let start = now().offset(-60_000_000);
    storage.sealed("door", tracks(), &frames(0, 100, start));
    let server = Server::start(&[&storage]);
    for target in [2, 0] {
        let mut client = Client::open(&server.url(&format!("door?start={}", start.to_clock())), false);
        let reply = played(&client.play(Some(&format!("npt={target}-"))));
        client.forget();
        let Event::Report(0, info) = client.next() else {
            panic!("a report comes first")
        };
        let wall = WallTime::from_ntp(info.ntp);
        assert!(
            wall.micros_since(start.offset(target * 1_000_000)).abs() < 10,
            "{wall} {start} {target}"
        );
        assert_eq!(Some(info.rtp), reply.info[0].rtptime);
    }
}
