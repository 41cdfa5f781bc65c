//! ONVIF replay (Streaming and Replay Control specifications), request by request and bit by bit.

use std::time::Duration;

use corenvr_media::{Frame, WallTime};
use corenvr_proto::rtsp::{Method, Response};

use crate::{
    client::{Client, Event, Got},
    footage::{GOP, Storage, at, frames, h264, pyramid, tracks},
    server::Server,
};

const C: u8 = 0x80;
const E: u8 = 0x40;
const D: u8 = 0x20;
const T: u8 = 0x10;
const REPLAY: (&str, &str) = ("Require", "onvif-replay");
const UNPACED: (&str, &str) = ("Rate-Control", "no");

/// Two joined segments of four seconds, a gap of a minute, and one more; pictures and sound, each sound behind its picture.
struct Footage {
    storage: Storage,
    all: Vec<Frame>,
}

impl Footage {
    fn new() -> Self {
        let storage = Storage::new();
        let mut all = Vec::new();
        for (i, ms) in [0, 4000, 68_000].into_iter().enumerate() {
            let part = frames(i as i64 * 100, 100, at(ms));
            storage.sealed("door", tracks(), &part);
            all.extend(part);
        }
        Self { storage, all }
    }

    /// Track and number of what is stored from one moment to another.
    fn stored(&self, from: i64, to: i64) -> Vec<(usize, i64)> {
        let wanted = self.all.iter().filter(|f| (at(from)..at(to)).contains(&f.time));
        wanted.map(|f| (usize::from(f.track.0), number(f))).collect()
    }
}

fn number(frame: &Frame) -> i64 {
    let at = if frame.track.0 == 0 { 5..13 } else { 0..8 };
    std::str::from_utf8(&frame.data[at]).unwrap().parse().unwrap()
}

/// When picture or sound `n` was captured.
fn wall(n: i64) -> WallTime {
    at(n * 40 + if n >= 200 { 60_000 } else { 0 })
}

fn clock(from: i64, to: i64) -> String {
    format!("clock={}-{}", at(from).to_clock(), at(to).to_clock())
}

fn open(url: &str) -> Client {
    let mut client = Client::open(url, false);
    client.prompt = true;
    client
}

fn play(client: &mut Client, headers: &[(&'static str, &str)]) -> Response {
    let url = client.url.clone();
    let all: Vec<_> = [&[REPLAY], headers].concat();
    client.request(Method::Play, &url, &all)
}

fn played(client: &mut Client, headers: &[(&'static str, &str)]) -> Response {
    let response = play(client, headers);
    assert_eq!(response.status.as_u16(), 200, "{response:?}");
    response
}

/// Everything up to the terminal frame of so many tracks.
fn until_terminal(client: &mut Client, tracks: usize) -> Vec<Got> {
    let (mut all, mut done): (Vec<Got>, usize) = (Vec::new(), 0);
    while done < tracks {
        match client.next() {
            Event::Frame(got) => {
                done += usize::from(got.replay.unwrap().flags & T != 0);
                all.push(got);
            }
            Event::Report(..) => {}
            Event::Bye => panic!("BYE before the terminal frame"),
        }
    }
    all
}

fn numbers(got: &[Got]) -> Vec<(usize, i64)> {
    got.iter().map(|g| (g.track, g.n)).collect()
}

fn pictures(got: &[Got]) -> Vec<i64> {
    got.iter().filter(|g| g.track == 0).map(|g| g.n).collect()
}

/// Whether each frame has its capture time, the request's number, and exactly these flags.
fn assert_flags(client: &Client, got: &[Got], flags: impl Fn(usize, i64) -> u8) {
    for frame in got {
        let replay = frame.replay.expect("an extension on every access unit");
        let (track, n) = (frame.track, frame.n);
        assert_eq!(replay.time, wall(n), "capture time of {track}/{n}");
        assert_eq!(replay.cseq, client.cseq() as u8, "{track}/{n}");
        let wanted = flags(track, n);
        assert_eq!(
            replay.flags, wanted,
            "track {track}, frame {n}: {:08b}, not {wanted:08b}",
            replay.flags
        );
    }
}

const fn clean(track: usize, n: i64) -> u8 {
    if track == 1 || n % GOP == 0 { C } else { 0 }
}

const fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

#[test]
fn descriptions_name_the_tracks_and_the_span_and_unknown_features_are_refused() {
    let footage = Footage::new();
    let server = Server::start(&[&footage.storage]);
    let text = |response: &Response| String::from_utf8(response.body.to_vec()).unwrap();
    let own = Client::connect(&server.url("door/replay")).describe();
    let sdp = text(&own);
    let span = format!("a=range:clock={}", at(0).to_clock());
    assert!(sdp.contains(&span), "{sdp}");
    assert!(
        sdp.contains("a=x-onvif-track:VIDEO001") && sdp.contains("a=x-onvif-track:AUDIO002"),
        "{sdp}"
    );
    assert!(!sdp.contains("npt="), "{sdp}");

    let url = server.url("door?start=20261120T120000Z");
    let mut plain = Client::connect(&url);
    assert!(!text(&plain.describe()).contains("x-onvif-track"));
    let required = plain.request(Method::Describe, &url, &[REPLAY]);
    assert!(text(&required).contains("x-onvif-track") && text(&required).contains("range:clock="));
    let unknown = plain.request(Method::Describe, &url, &[("Require", "onvif-replay, made.up")]);
    assert_eq!(
        (unknown.status.as_u16(), unknown.headers.get("Unsupported")),
        (551, Some("made.up"))
    );
}

#[test]
fn forward_without_rate_control_comes_in_recorded_order_with_every_flag() {
    let footage = Footage::new();
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&server.url("door/replay"));
    // From the middle of a group: it begins at its clean point.
    let response = played(&mut client, &[("Range", &clock(3000, 72_000)), UNPACED]);
    assert_eq!(response.headers.get("Rate-Control"), Some("no"));
    let range = response.headers.get("Range").unwrap();
    assert!(range.starts_with(&format!("clock={}-", at(2000).to_clock())), "{range}");
    let got = until_terminal(&mut client, 2);
    assert_eq!(numbers(&got), footage.stored(2000, 72_000));
    assert_flags(&client, &got, |track, n| {
        clean(track, n) | flag(n == 50 || n == 200, D) | flag(n == 199 || n == 299, E) | flag(n == 299, T)
    });
    // RTP time is that of the recording.
    let first = got[0].rtp;
    for frame in got.iter().filter(|g| g.track == 0 && g.n < 200) {
        assert_eq!(frame.rtp.wrapping_sub(first), (frame.n - 50) as u32 * 3600);
    }
}

#[test]
fn reports_say_nothing_of_a_clock_that_packets_do_not_keep() {
    let footage = Footage::new();
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&server.url("door/replay"));
    played(&mut client, &[("Range", &clock(0, 4000)), UNPACED]);
    let report = loop {
        if let Event::Report(_, info) = client.next() {
            break info;
        }
    };
    assert_eq!((report.ntp, report.rtp), (0, 0));
    until_terminal(&mut client, 2);
    played(&mut client, &[("Range", &clock(0, 1000))]);
    let report = loop {
        if let Event::Report(_, info) = client.next() {
            break info;
        }
    };
    assert_eq!(WallTime::from_ntp(report.ntp), at(0));
}

#[test]
fn reverse_comes_by_groups_in_decode_order_without_sound() {
    let footage = Footage::new();
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&server.url("door/replay"));
    for rate_control in ["no", "yes"] {
        let headers = [
            ("Range", clock(69_000, 5000)),
            ("Scale", "-1.0".into()),
            ("Rate-Control", rate_control.into()),
        ];
        let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let response = played(&mut client, &headers);
        assert_eq!(response.headers.get("Scale"), Some("-1.0"));
        let got = until_terminal(&mut client, 1);
        // The group in which play begins ends with the frame of that moment, which is picture 225.
        let groups = [200..=225, 150..=199, 100..=149];
        let wanted: Vec<i64> = groups.into_iter().flatten().collect();
        assert!(got.iter().all(|g| g.track == 0), "sound in reverse");
        assert_eq!(pictures(&got), wanted, "Rate-Control: {rate_control}");
        assert_flags(&client, &got, |_, n| {
            clean(0, n) | flag(n % GOP == 0, D) | flag(n == 225, E) | flag(n == 149, T)
        });
        let by = |a: usize, b: usize| got[b].rtp.wrapping_sub(got[a].rtp).cast_signed();
        if rate_control == "no" {
            // Sampling times: rising in a group, earlier in the next.
            assert_eq!(by(0, 1), 3600);
            assert_eq!(by(26, 76), -50 * 3600);
        } else {
            // Presentation times: falling in a group, later in the next.
            assert_eq!(by(0, 1), -3600);
            assert_eq!(by(26, 76), 50 * 3600);
        }
    }
}

#[test]
fn reverse_to_the_beginning_of_footage_ends_its_section() {
    let footage = Footage::new();
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&server.url("door/replay"));
    let range = format!("clock={}-", at(2500).to_clock());
    played(&mut client, &[("Range", &range), ("Scale", "-1.0"), UNPACED]);
    let got = until_terminal(&mut client, 1);
    assert_eq!(pictures(&got), (50..=62).chain(0..=49).collect::<Vec<_>>());
    assert_flags(&client, &got, |_, n| {
        clean(0, n) | flag(n % GOP == 0, D) | flag(n == 49, E | T)
    });
}

#[test]
fn frames_are_chosen_by_kind_and_interval() {
    let storage = Storage::new();
    for i in 0..3 {
        storage.sealed("door", [h264()].into(), &pyramid(i * 100, 100, at(i * 4000)));
    }
    let server = Server::start(&[&storage]);
    let mut client = open(&server.url("door/replay"));
    let (forward, back) = (clock(0, 12_000), clock(11_999, 0));
    let mut ask = |range: &str, scale: &str, filter: &str| {
        played(
            &mut client,
            &[("Range", range), ("Scale", scale), ("Frames", filter), UNPACED],
        );
        pictures(&until_terminal(&mut client, 1))
    };
    let keys: Vec<i64> = (0..300).step_by(50).collect();
    let reversed = |list: &[i64]| list.iter().rev().copied().collect::<Vec<_>>();
    assert_eq!(ask(&forward, "1.0", "intra"), keys);
    assert_eq!(ask(&back, "-1.0", "intra"), reversed(&keys));
    assert_eq!(ask(&forward, "1.0", "intra/4000"), [0, 100, 200]);
    assert_eq!(ask(&back, "-1.0", "intra/4000"), [250, 150, 50]);
    let all = ask(&forward, "1.0", "all");
    assert_eq!(all.len(), 300);
    let predicted = ask(&forward, "1.0", "predicted");
    let disposable = |n: &i64| n % GOP < 48 && n % 2 == 1;
    assert_eq!(
        predicted,
        all.iter().copied().filter(|n| !disposable(n)).collect::<Vec<_>>()
    );
    let mut back_predicted = ask(&back, "-1.0", "predicted");
    assert!(!back_predicted.iter().any(disposable));
    back_predicted.sort_unstable();
    let mut sorted = predicted;
    sorted.sort_unstable();
    assert_eq!(back_predicted, sorted);
}

#[test]
fn a_new_place_takes_effect_at_once_and_says_so() {
    let footage = Footage::new();
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&server.url("door/replay"));
    played(&mut client, &[("Range", &clock(0, 72_000))]);
    client.frames(10);
    played(&mut client, &[("Range", &clock(6000, 6200)), ("Immediate", "yes")]);
    let old = client.before();
    assert!(old.iter().all(|g| g.n < 50), "{:?}", numbers(&old));
    let got = until_terminal(&mut client, 2);
    assert_eq!(numbers(&got), footage.stored(6000, 6200));
    assert_flags(&client, &got, |track, n| {
        clean(track, n) | flag(n == 150, D) | flag(n == 154, T)
    });
}

#[test]
fn a_start_in_a_gap_is_the_next_footage_in_the_direction_of_play() {
    let footage = Footage::new();
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&server.url("door/replay"));
    played(&mut client, &[("Range", &clock(30_000, 68_100)), UNPACED]);
    assert_eq!(pictures(&until_terminal(&mut client, 2)), [200, 201, 202]);
    played(
        &mut client,
        &[("Range", &clock(30_000, 7000)), ("Scale", "-1.0"), UNPACED],
    );
    assert_eq!(
        pictures(&until_terminal(&mut client, 1)),
        (150..200).collect::<Vec<_>>()
    );
}

#[test]
fn what_cannot_be_replayed_is_457_and_the_session_stays() {
    let footage = Footage::new();
    let server = Server::start(&[&footage.storage]);
    for url in [
        server.url("door/replay"),
        server.url("door?start=20261120T120000Z&end=20261120T121000Z"),
    ] {
        let mut client = open(&url);
        for (range, scale) in [
            (clock(0, 4000), "-1.0"),
            (clock(4000, 0), "1.0"),
            (clock(10_000_000, 10_004_000), "1.0"),
            (clock(-9_000_000, -8_000_000), "1.0"),
        ] {
            let response = play(&mut client, &[("Range", &range), ("Scale", scale)]);
            assert_eq!(response.status.as_u16(), 457, "{range} {scale}: {response:?}");
            assert!(response.reason.len() > 20, "{response:?}");
        }
        let response = play(&mut client, &[("Frames", "some")]);
        assert_eq!(response.status.as_u16(), 400);
        played(&mut client, &[("Range", &clock(0, 200)), UNPACED]);
        assert_eq!(until_terminal(&mut client, 2).len(), 10);
    }
}

#[test]
fn without_rate_control_only_the_direction_counts() {
    let footage = Footage::new();
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&server.url("door/replay"));
    let response = played(&mut client, &[("Range", &clock(0, 2000)), ("Scale", "8.0"), UNPACED]);
    assert_eq!(response.headers.get("Scale"), Some("1.0"));
    assert_eq!(until_terminal(&mut client, 2).len(), 100);
    let response = played(&mut client, &[("Range", &clock(0, 8000)), ("Scale", "8.0")]);
    assert_eq!(response.headers.get("Scale"), Some("8.0"));
    assert_eq!(pictures(&until_terminal(&mut client, 1)), [0, 50, 100, 150]);
}

#[test]
fn requiring_replay_on_play_alone_is_enough() {
    let footage = Footage::new();
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&server.url("door?start=20261120T120000Z"));
    played(&mut client, &[("Range", "npt=1.000-2.000"), UNPACED]);
    let got = until_terminal(&mut client, 2);
    assert_eq!(numbers(&got), footage.stored(0, 2000));
    assert!(got.iter().all(|g| g.replay.is_some()));
    // The end of a replay is in its frames: the session goes on without BYE.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(client.drain().is_empty());
    played(&mut client, &[("Range", "npt=0.000-0.100"), UNPACED]);
    assert_eq!(pictures(&until_terminal(&mut client, 2)), [0, 1, 2]);
}
