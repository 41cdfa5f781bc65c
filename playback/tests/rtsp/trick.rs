//! Trick play: speeds, reverse, single steps, in requests and in URLs, judged by which frames come and which time each of them has.

mod requests;
mod steps;
mod wrong;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use corenvr_media::{Frame, WallTime};

use crate::{
    client::{Client, Event, Got, Played, played},
    footage::{GOP, RATE, Storage, at, frames, h264, picture, pyramid, pyramid_references, tracks, video},
    server::Server,
};

/// Pictures of a [`Footage`].
const COUNT: i64 = 400;
/// The last picture before its gap.
const BEFORE_GAP: i64 = 299;
/// Its length in seconds, without the gap.
const LENGTH: f64 = 16.0;

/// Three segments of four seconds, a gap of a minute, and another of four seconds, without sound.
struct Footage {
    storage: Storage,
    /// In stored order.
    all: Vec<Frame>,
}

impl Footage {
    fn new(with_pyramid: bool) -> Self {
        let storage = Storage::new();
        let mut all = Vec::new();
        for (i, ms) in [0, 4000, 8000, 72_000].into_iter().enumerate() {
            let first = i as i64 * 100;
            let part: Vec<Frame> = if with_pyramid {
                pyramid(first, 100, at(ms))
            } else {
                (0..100).map(|i| video(first + i, at(ms + i * 1000 / RATE))).collect()
            };
            storage.sealed("door", [h264()].into(), &part);
            all.extend(part);
        }
        Self { storage, all }
    }

    /// Numbers in stored order of the pictures shown from one on and before another.
    fn stored(&self, from: i64, before: i64) -> Vec<i64> {
        let range = wall(from)..wall(before - 1).offset(1);
        let wanted = self.all.iter().filter(|f| range.contains(&f.time));
        wanted.map(number).collect()
    }
}

/// The number in a frame's bytes.
fn number(frame: &Frame) -> i64 {
    std::str::from_utf8(&frame.data[5..13]).unwrap().parse().unwrap()
}

/// When a picture of a [`Footage`] is shown.
fn wall(n: i64) -> WallTime {
    at(n * 1000 / RATE + if n > BEFORE_GAP { 60_000 } else { 0 })
}

/// Where it lies in normal play time.
fn npt(n: i64) -> f64 {
    n as f64 / RATE as f64
}

/// The picture that is shown at a normal play time.
fn picture_at(seconds: f64) -> i64 {
    (seconds * RATE as f64).round() as i64
}

/// The URL of one hour from noon, which holds all of a footage.
fn url(server: &Server, query: &str) -> String {
    server.url(&format!("door?start=20261120T120000Z{query}"))
}

fn open(url: &str, agent: &'static str) -> Client {
    let mut client = Client::open_as(url, false, agent);
    client.prompt = true;
    client
}

fn numbers(got: &[Got]) -> Vec<i64> {
    got.iter().map(|g| g.n).collect()
}

/// PLAY with a Scale and perhaps a Range; must be served as asked.
fn play_at(client: &mut Client, scale: f64, range: Option<&str>) -> Played {
    let text = format!("{scale:?}");
    let mut headers = vec![("Scale", text.as_str())];
    headers.extend(range.map(|r| ("Range", r)));
    let response = client.play_with(&headers);
    assert_eq!(response.headers.get("Scale"), Some(text.as_str()), "{response:?}");
    played(&response)
}

/// Whether each frame has the time that its number means, and the first of them is the one that the reply speaks of.
fn assert_times(reply: &Played, got: &[Got], scale: f64) {
    let Some(first) = got.first() else { return };
    assert_eq!(reply.info[0].seq, Some(first.sequence), "RTP-Info: seq");
    for frame in got {
        let (position, wanted) = (reply.position_at(frame, scale), npt(frame.n));
        assert!(
            (position - wanted).abs() < 0.0015 + 0.0005 * scale.abs(),
            "at {scale}x: picture {} has the time {position}, not {wanted}: {reply:?}",
            frame.n
        );
    }
}

/// Whether the time stamps rise in the order of sending; only where there are no B pictures.
fn assert_rising(got: &[Got]) {
    for pair in got.windows(2) {
        let by = pair[1].rtp.wrapping_sub(pair[0].rtp).cast_signed();
        assert!(by > 0, "pictures {} and {}: {by} ticks", pair[0].n, pair[1].n);
    }
}

/// A decoder that knows which pictures it has.
struct DecoderModel {
    pyramid: bool,
    has: HashSet<i64>,
}

impl DecoderModel {
    fn new(pyramid: bool) -> Self {
        Self {
            pyramid,
            has: HashSet::new(),
        }
    }

    /// Panics where the picture cannot be decoded, or was decoded already.
    fn decode(&mut self, n: i64) {
        if n % GOP == 0 {
            self.has.clear();
        }
        let references = match (self.pyramid, n % GOP) {
            (_, 0) => vec![],
            (true, _) => pyramid_references(n),
            (false, _) => vec![n - 1],
        };
        for needed in references {
            assert!(self.has.contains(&needed), "picture {n} comes without {needed}");
        }
        assert!(self.has.insert(n), "picture {n} comes twice");
    }

    fn decode_all(&mut self, got: &[Got]) {
        for frame in got {
            self.decode(frame.n);
        }
    }
}

/// The key frames that are sent from one position to another, by their numbers.
fn keys(from: f64, to: f64) -> Vec<i64> {
    let at_or_before = picture_at(from).min(COUNT - 1) / GOP * GOP;
    if to > from {
        let wanted = (at_or_before..COUNT).step_by(GOP as usize);
        wanted.take_while(|n| npt(*n) < to).collect()
    } else {
        let wanted = (0..=at_or_before).rev().step_by(GOP as usize);
        wanted.take_while(|n| npt(*n) >= to).collect()
    }
}

#[test]
fn forward_below_four_every_frame_comes_in_its_stretched_time() {
    for pyramid in [false, true] {
        let footage = Footage::new(pyramid);
        let server = Server::start(&[&footage.storage]);
        let mut client = open(&url(&server, "&pace=0"), "test");
        for scale in [0.0625, 0.25, 0.5, 1.0, 2.0, 3.5] {
            let reply = play_at(&mut client, scale, Some("npt=5.000-13.000"));
            assert_eq!((reply.start, reply.end), (4.0, Some(13.0)));
            client.forget();
            let got = whole(&mut client, &footage.stored(100, 325), &format!("{scale}x"));
            assert_times(&reply, &got, scale);
            if !pyramid {
                assert_rising(&got);
            }
        }
        assert!(client.until_bye().is_empty());
    }
}

#[test]
fn from_four_on_and_in_reverse_key_frames_come() {
    let footage = Footage::new(true);
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&url(&server, "&pace=0"), "test");
    let forward = [(5.0, 15.0), (0.0, 16.0), (11.9, 12.1), (12.0, 14.0)];
    for scale in [4.0, 8.0, 16.0, 32.0, -0.25, -1.0, -2.0, -4.0, -8.0, -16.0, -32.0] {
        for (first, second) in forward {
            let (from, to) = if scale > 0.0 { (first, second) } else { (second, first) };
            let reply = play_at(&mut client, scale, Some(&format!("npt={from:.3}-{to:.3}")));
            client.forget();
            let wanted = keys(from, to);
            let got = whole(&mut client, &wanted, &format!("{scale}x {from}-{to}"));
            assert_eq!((reply.start, reply.end), (npt(got[0].n), Some(to)));
            assert_times(&reply, &got, scale);
            assert_rising(&got);
        }
    }
    assert!(client.until_bye().is_empty());
}

#[test]
fn by_the_clock_it_is_the_same_and_a_gap_is_crossed_in_reverse() {
    let footage = Footage::new(false);
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&url(&server, "&pace=0"), "test");
    let range = format!("clock={}-{}", wall(350).to_clock(), wall(200).to_clock());
    let response = client.play_with(&[("Scale", "-8.0"), ("Range", &range)]);
    assert_eq!(response.status.as_u16(), 200, "{response:?}");
    assert_eq!(response.headers.get("Range"), Some(range.as_str()));
    assert_eq!(numbers(&client.until_bye()), [350, 300, 250, 200]);
    // From the middle of the gap: the last key frame before it in reverse.
    let range = format!("clock={}-{}", at(40_000).to_clock(), wall(200).to_clock());
    let response = client.play_with(&[("Scale", "-1.0"), ("Range", &range)]);
    assert_eq!(response.status.as_u16(), 200, "{response:?}");
    assert_eq!(numbers(&client.until_bye()), [250, 200]);
}

#[test]
fn a_speed_beyond_what_is_served_is_lowered_and_the_reply_says_so() {
    let footage = Footage::new(false);
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&url(&server, "&pace=0"), "test");
    for (asked, served, range) in [
        ("100", "32.0", "npt=0-16"),
        ("32.5", "32.0", "npt=0-16"),
        ("-64", "-32.0", "npt=16-0"),
        ("0.01", "0.0625", "npt=0-0.5"),
        ("-0.001", "-0.0625", "npt=16-14"),
    ] {
        let response = client.play_with(&[("Scale", asked), ("Range", range)]);
        assert_eq!(response.headers.get("Scale"), Some(served), "{asked}: {response:?}");
        let reply = played(&response);
        let got = client.until_bye();
        assert!(!got.is_empty());
        assert_times(&reply, &got, served.parse().unwrap());
    }
    // What counts is the product of both.
    let response = client.play_with(&[("Scale", "2"), ("Speed", "4.0"), ("Range", "npt=0-16")]);
    let header = |name| -> f64 { response.headers.get(name).map_or(1.0, |v| v.parse().unwrap()) };
    assert!((header("Scale") * header("Speed") - 8.0).abs() < 0.001, "{response:?}");
    let reply = played(&response);
    let got = client.until_bye();
    assert_eq!(numbers(&got), keys(0.0, 16.0));
    assert_times(&reply, &got, 8.0);
}

#[test]
fn no_more_than_thirty_key_frames_a_second_are_sent() {
    let storage = Storage::new();
    // A key frame every fifth of a second, as MJPEG has even more of.
    let all = (0..COUNT).map(|n| picture(n, at(n * 1000 / RATE), if n % 5 == 0 { 0x65 } else { 0x41 }));
    let all: Vec<Frame> = all.collect();
    storage.sealed("door", [h264()].into(), &all);
    let server = Server::start(&[&storage]);
    let mut client = open(&url(&server, "&pace=0"), "test");
    for (scale, range) in [
        (32.0, "npt=0-16"),
        (16.0, "npt=0-16"),
        (-32.0, "npt=16-0"),
        (-16.0, "npt=16-0"),
    ] {
        let reply = play_at(&mut client, scale, Some(range));
        let got = client.until_bye();
        assert_times(&reply, &got, scale);
        assert_rising(&got);
        for pair in got.windows(2) {
            let apart = pair[1].rtp.wrapping_sub(pair[0].rtp);
            assert!(apart >= 2990, "{scale}x: {apart} ticks between pictures");
        }
        let most = (LENGTH / scale.abs() * 30.0) as usize + 1;
        assert!(
            got.len() <= most && got.len() * 2 >= most,
            "{scale}x: {} pictures",
            got.len()
        );
        assert!(got.iter().all(|g| g.key));
    }
}

#[test]
fn the_wall_clock_sees_the_speed_that_was_asked_for() {
    let footage = Footage::new(false);
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&url(&server, ""), "test");
    for (scale, range) in [
        (8.0, "npt=0-16"),
        (-8.0, "npt=16-0"),
        (2.0, "npt=0-4"),
        (0.5, "npt=0-1"),
    ] {
        play_at(&mut client, scale, Some(range));
        let got = client.until_bye();
        let (first, last) = (&got[0], got.last().unwrap());
        let wanted = (npt(last.n) - npt(first.n)) / scale;
        let took = last.came.duration_since(first.came).as_secs_f64();
        // It may run 0.3 s ahead; a machine that is busy may be late.
        assert!(
            took > wanted * 0.9 - 0.32 && took < wanted + 1.0,
            "{scale}x: {took} s instead of {wanted} s"
        );
    }
}

/// Pictures and silence, as a player that has set sound up needs them: it stops where a track falls silent.
#[test]
fn sound_that_was_set_up_goes_on_as_silence() {
    let storage = Storage::new();
    storage.sealed("door", tracks(), &frames(0, COUNT, at(0)));
    let server = Server::start(&[&storage]);
    let mut client = open(&url(&server, ""), "test");
    for (scale, range) in [
        (8.0, "npt=0-16"),
        (-8.0, "npt=16-0"),
        (2.0, "npt=0-4"),
        (0.5, "npt=0-1"),
    ] {
        let reply = play_at(&mut client, scale, Some(range));
        let got = client.until_bye();
        let (pictures, sounds): (Vec<_>, Vec<_>) = got.into_iter().partition(|g| g.track == 0);
        assert_eq!(reply.info.len(), 2, "{reply:?}");
        assert_times(&reply, &pictures, scale);
        assert_eq!(reply.info[1].seq, sounds.first().map(|s| s.sequence), "{scale}x");
        // A-law has two zeros.
        assert!(
            sounds.iter().all(|s| s.data.iter().all(|b| matches!(b, 0xD5 | 0x55))),
            "{scale}x: not silent"
        );
        let seconds = |s: &Got| f64::from(s.rtp.wrapping_sub(reply.info[1].rtptime.unwrap()).cast_signed()) / 8000.0;
        let mut reached = 0.0;
        for sound in &sounds {
            let begins = seconds(sound);
            assert!(
                begins > reached - 0.002 && begins < reached + 0.5,
                "{scale}x: {begins} after {reached}"
            );
            reached = begins + sound.data.len() as f64 / 8000.0;
        }
        let shown = (npt(pictures.last().unwrap().n) - npt(pictures[0].n)) / scale;
        assert!(reached > shown - 0.5, "{scale}x: silence for {reached} s of {shown} s");
    }
    // As recorded, it is heard again.
    played(&client.play(Some("npt=2-3")));
    let got = client.until_bye();
    let heard: Vec<i64> = got.iter().filter(|g| g.track == 1).map(|g| g.n).collect();
    assert_eq!(heard, (50..75).collect::<Vec<_>>());
}

/// What comes next behind a picture that was sent, in a footage without B pictures.
fn next_at(last: i64, scale: f64) -> i64 {
    match scale {
        _ if scale < 0.0 => (last - 1).div_euclid(GOP) * GOP,
        _ if scale < 4.0 => last + 1,
        _ => (last / GOP + 1) * GOP,
    }
}

#[test]
fn pause_and_resume_lose_and_repeat_nothing_at_any_speed() {
    let footage = Footage::new(true);
    let server = Server::start(&[&footage.storage]);
    for (scale, range) in [
        (0.5, "npt=0-1"),
        (2.0, "npt=8-16"),
        (8.0, "npt=0-16"),
        (-8.0, "npt=16-0"),
        (-32.0, "npt=16-0"),
    ] {
        let mut whole = open(&url(&server, "&pace=0"), "test");
        play_at(&mut whole, scale, Some(range));
        let wanted = numbers(&whole.until_bye());
        let mut client = open(&url(&server, ""), "test");
        let first = play_at(&mut client, scale, Some(range));
        let mut got = client.frames(1);
        for _ in 0..4 {
            assert_eq!(client.pause().status.as_u16(), 200);
            got.extend(client.before());
            std::thread::sleep(Duration::from_millis(50));
            assert!(client.drain().is_empty(), "{scale}x: pictures in a pause");
            if got.len() == wanted.len() {
                break;
            }
            let again = play_at(&mut client, scale, None);
            let next = client.frames(1);
            // B pictures are shown before what was stored ahead of them.
            if scale.abs() > 2.0 {
                assert!(
                    (again.start - npt(next[0].n)).abs() < 0.0015,
                    "{scale}x: {again:?} {next:?}"
                );
            }
            assert_times(&again, &next, scale);
            got.extend(next);
        }
        got.extend(client.frames(wanted.len() - got.len()));
        assert!(client.drain().is_empty(), "{scale}x: more than there is");
        assert_eq!(numbers(&got), wanted, "{scale}x");
        assert_times(&first, &got[..1], scale);
    }
}

#[test]
fn changes_of_speed_and_direction_go_on_from_the_picture_that_was_sent_last() {
    const SCALES: [f64; 9] = [1.0, 0.5, 2.0, 8.0, 16.0, 32.0, -8.0, -16.0, -32.0];
    let footage = Footage::new(false);
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&url(&server, ""), "test");
    let mut scale = 1.0;
    play_at(&mut client, scale, Some("npt=6-"));
    let mut last = client.frames(1)[0].n;
    assert_eq!(last, 150);
    let mut decoder = DecoderModel::new(false);
    decoder.decode(last);
    let mut random = 7u32;
    for round in 0..60 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut new = SCALES[(random >> 16) as usize % SCALES.len()];
        // The ends are for other tests: a key frame must be left, wherever those at this speed have run to meanwhile.
        if !(0.0..4.0).contains(&new) || last > 300 || scale.abs() > 3.0 {
            let back = if scale.abs() > 3.0 { scale > 0.0 } else { last > 160 };
            new = new.abs().max(8.0) * if back { -1.0 } else { 1.0 };
        }
        let text = format!("{new:?}");
        let response = if round % 3 == 0 {
            client.pause();
            let paused = client.before();
            for got in paused {
                assert_eq!(got.n, next_at(last, scale), "round {round} at {scale}x, before a pause");
                decoder.decode(got.n);
                last = got.n;
            }
            client.play_with(&[("Scale", &text)])
        } else {
            client.play_with(&[("Scale", &text)])
        };
        for got in client.before() {
            assert_eq!(got.n, next_at(last, scale), "round {round} at {scale}x");
            decoder.decode(got.n);
            last = got.n;
        }
        assert_eq!(response.headers.get("Scale"), Some(text.as_str()), "{response:?}");
        let reply = played(&response);
        scale = new;
        let count = if (0.0..4.0).contains(&new) { 3 } else { 1 };
        let got = client.frames(1 + (random >> 8) as usize % count);
        assert!(
            (reply.start - npt(got[0].n)).abs() < 0.0015,
            "round {round}: {reply:?} {:?}",
            got[0].n
        );
        assert_times(&reply, &got, scale);
        for got in got {
            assert_eq!(
                got.n,
                next_at(last, scale),
                "round {round} at {scale}x, picture {last} was sent before"
            );
            decoder.decode(got.n);
            last = got.n;
        }
    }
}

#[test]
fn at_either_end_play_stops_and_goes_on_from_there() {
    let footage = Footage::new(false);
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&url(&server, "&pace=0"), "test");
    play_at(&mut client, -16.0, Some("npt=8-"));
    assert_eq!(numbers(&client.until_bye()), [200, 150, 100, 50, 0]);
    play_at(&mut client, 16.0, Some("npt=8-"));
    assert_eq!(numbers(&client.until_bye()), [200, 250, 300, 350]);
    play_at(&mut client, -16.0, Some("npt=99999-"));
    assert_eq!(numbers(&client.until_bye()), [350, 300, 250, 200, 150, 100, 50, 0]);
}

#[test]
fn a_speed_in_the_url_is_a_clip_of_its_own() {
    let storage = Storage::new();
    for (i, ms) in [0, 4000, 8000, 72_000].into_iter().enumerate() {
        storage.sealed("door", tracks(), &frames(i as i64 * 100, 100, at(ms)));
    }
    let server = Server::start(&[&storage]);
    for scale in [0.25, 0.5, 2.0, 4.0, 8.0, 16.0, 32.0, -0.5, -1.0, -4.0, -32.0] {
        let mut client = open(&url(&server, &format!("&pace=0&scale={scale}")), "test");
        let sdp = client.sdp.clone().unwrap();
        let length = LENGTH / f64::abs(scale);
        assert_eq!(
            sdp.range.unwrap().to_string(),
            format!("npt=0.000-{length:.3}"),
            "{scale}x"
        );
        assert_eq!(sdp.media.len(), 1, "{scale}x: pictures only");
        let reply = played(&client.play(Some("npt=0.000-")));
        assert!(
            reply.end.is_some_and(|end| (end - length).abs() < 0.0015),
            "{scale}x: {reply:?}"
        );
        let wanted = |from: f64, to: f64| match scale {
            0.0..4.0 => (picture_at(from) / GOP * GOP..picture_at(to)).collect(),
            _ => keys(from, to),
        };
        let inside = |got: &Got| match scale {
            0.0.. => npt(got.n) / scale,
            _ => (LENGTH - npt(got.n)) / -scale,
        };
        let check = |reply: &Played, got: &[Got]| {
            assert_eq!(reply.info[0].seq, Some(got[0].sequence));
            for frame in got {
                let position = reply.position_at(frame, 1.0);
                assert!(
                    (position - inside(frame)).abs() < 0.002,
                    "{scale}x: {} at {position}",
                    frame.n
                );
            }
        };
        let (from, to) = if scale > 0.0 { (0.0, LENGTH) } else { (LENGTH, 0.0) };
        let got = whole(&mut client, &wanted(from, to), &format!("{scale}x"));
        check(&reply, &got);
        // A seek, as every player makes it, is one on the clip's own time.
        let reply = played(&client.play(Some(&format!("npt={:.3}-", length / 2.0))));
        let got = whole(&mut client, &wanted(8.0, to), &format!("{scale}x from the middle"));
        check(&reply, &got);
    }
}

#[test]
fn a_clip_of_its_own_is_sent_at_its_own_pace() {
    let footage = Footage::new(false);
    let server = Server::start(&[&footage.storage]);
    for scale in [8.0, -8.0] {
        let mut client = open(&url(&server, &format!("&scale={scale}")), "test");
        played(&client.play(Some("npt=0-")));
        let got = client.until_bye();
        let took = got.last().unwrap().came.duration_since(got[0].came).as_secs_f64();
        let wanted = 14.0 / 8.0;
        assert!(took > wanted * 0.9 - 0.32 && took < wanted + 1.0, "{scale}x: {took} s");
    }
}

/// Exactly these frames. The end is announced a second later; not everybody has to wait for it.
fn whole(client: &mut Client, wanted: &[i64], what: &str) -> Vec<Got> {
    let mut got = until_picture(client, wanted[wanted.len() - 1]);
    got.extend(client.drain());
    assert_eq!(numbers(&got), wanted, "{what}");
    got
}

/// Frames until the one of this number; BYEs do not matter.
fn until_picture(client: &mut Client, n: i64) -> Vec<Got> {
    let mut got = Vec::new();
    while got.last().is_none_or(|g: &Got| g.n != n) {
        if let Event::Frame(frame) = client.next() {
            got.push(frame);
        }
    }
    got
}

#[test]
fn at_32x_only_key_frames_are_read_from_disk_in_either_direction() {
    let footage = Footage::new(false);
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&url(&server, "&pace=0"), "test");
    let read = || server.stats.snapshot().counters.bytes_read;
    let keys = footage.all.iter().filter(|f| f.key).map(|f| f.data.len() as u64);
    let (count, bytes) = (keys.clone().count(), keys.sum::<u64>());
    for scale in [32.0, -32.0] {
        let before = read();
        let range = if scale > 0.0 { "npt=0-" } else { "npt=16-" };
        play_at(&mut client, scale, Some(range));
        assert_eq!(client.until_bye().len(), count);
        assert_eq!(read() - before, bytes, "{scale}x");
    }
    let before = read();
    play_at(&mut client, 1.0, Some("npt=0-"));
    client.until_bye();
    assert!(read() - before > 2 * bytes, "every frame is much more than that");
}

#[test]
fn urls_of_other_makers_play_the_same_footage() {
    let footage = Footage::new(false);
    let server = Server::start(&[&footage.storage]);
    for path in [
        "Streaming/tracks/101?starttime=20261120T120004Z&endtime=20261120T120006Z",
        "Streaming/tracks/102/?starttime=2026-11-20T12:00:04Z&endtime=20261120T120006Z&name=x&size=1",
    ] {
        let mut client = open(&server.url(path), "test");
        let range = client.sdp.as_ref().unwrap().range.unwrap().to_string();
        assert_eq!(range, "npt=0.000-2.000", "{path}");
        played(&client.play(Some("npt=0.000-")));
        assert_eq!(numbers(&client.until_bye()), (100..150).collect::<Vec<_>>(), "{path}");
        play_at(&mut client, -8.0, Some("npt=2-0"));
        assert_eq!(numbers(&client.until_bye()), [100]);
    }
    let response = Client::connect(&server.url("cam/playback?channel=2&starttime=2026_11_20_12_00_04")).describe();
    assert_eq!(response.status.as_u16(), 404, "{response:?}");
}

/// FFmpeg looks at 30 pictures before it shows one, however long they last.
#[test]
fn ffmpeg_gets_what_it_looks_at_before_it_shows_anything_and_the_end_when_that_was_shown() {
    let footage = Footage::new(false);
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&url(&server, "&scale=-2"), "Lavf59.27.100");
    let begun = Instant::now();
    played(&client.play(Some("npt=0.000-")));
    let got = client.frames(8);
    assert_eq!(numbers(&got), (0..8).rev().map(|i| i * GOP).collect::<Vec<_>>());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(client.until_bye().is_empty());
    // From picture 350 to picture 0 at twice the speed, and a second.
    assert!(begun.elapsed() > Duration::from_millis(7900), "{:?}", begun.elapsed());
}
