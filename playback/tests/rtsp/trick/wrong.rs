//! Speeds, ranges and steps that make no sense: each gets its answer with a reason, the session stays, and nobody else notices.

use std::time::Instant;

use super::{Footage, numbers, open, url};
use crate::{
    client::{Client, played},
    server::Server,
};

#[test]
fn what_cannot_be_played_is_refused_with_a_reason() {
    let footage = Footage::new(false);
    let server = Server::start(&[&footage.storage]);
    let mut neighbour = open(&url(&server, ""), "test");
    played(&neighbour.play(Some("npt=0-")));
    let mut client = open(&url(&server, ""), "test");
    played(&client.play(Some("npt=0-")));
    for (headers, status) in [
        (vec![("Scale", "0")], 400),
        (vec![("Scale", "0.0")], 400),
        (vec![("Scale", "-0")], 400),
        (vec![("Scale", "NaN")], 400),
        (vec![("Scale", "inf")], 400),
        (vec![("Scale", "1e9")], 400),
        (vec![("Scale", "fast")], 400),
        (vec![("Scale", "")], 400),
        (vec![("Scale", "1 2")], 400),
        (vec![("Speed", "0")], 400),
        (vec![("Speed", "-1")], 400),
        (vec![("Speed", "x")], 400),
        (vec![("x-corenvr-step", "2")], 400),
        (vec![("x-corenvr-step", "0")], 400),
        (vec![("x-corenvr-step", "back")], 400),
        (vec![("Range", "npt=9-5")], 457),
        (vec![("Range", "npt=9-5"), ("Scale", "2")], 457),
        (vec![("Range", "npt=5-9"), ("Scale", "-1")], 457),
        (vec![("Range", "npt=5-9"), ("Scale", "-32")], 457),
        (vec![("Range", "clock=20261120T120009Z-20261120T120005Z")], 457),
        (
            vec![("Range", "clock=20261120T120005Z-20261120T120009Z"), ("Scale", "-4")],
            457,
        ),
        (vec![("Range", "clock=20261120T110000Z-20261120T113000Z")], 404),
        (vec![("Range", "smpte=0:00:10-")], 457),
        (vec![("Range", "npt=a-b"), ("Scale", "2")], 400),
        (vec![("Range", "npt=5-x")], 400),
        (vec![("Range", "npt=-")], 400),
        (vec![("Range", "5-9")], 400),
        (vec![("Range", "clock=yesterday-")], 400),
    ] {
        let response = client.play_with(&headers);
        assert_eq!(response.status.as_u16(), status, "{headers:?}: {response:?}");
        assert!(response.reason.len() > 8, "{headers:?}: {response:?}");
    }
    // What lies outside is clamped: players round.
    for (range, first) in [("npt=99999-", 350), ("npt=15.9-99999", 350), ("npt=now-", 350)] {
        let reply = played(&client.play(Some(range)));
        client.forget();
        assert_eq!(client.frames(1)[0].n, first, "{range}: {reply:?}");
    }
    // The future of a URL that has ended is its end as well.
    let response = client.play(Some("clock=20261120T200000Z-"));
    assert!(matches!(response.status.as_u16(), 200 | 404 | 457), "{response:?}");
    played(&client.play_with(&[("Scale", "2.0"), ("Range", "npt=2-3")]));
    client.forget();
    let got = client.until_bye();
    assert_eq!(numbers(&got), (50..75).collect::<Vec<_>>());
    assert!(
        numbers(&neighbour.frames(80)).into_iter().eq(0..80),
        "the neighbour noticed"
    );
    drop((client, neighbour));
    server.wait_for_quiet();
}

#[test]
fn urls_that_make_no_sense_say_why() {
    let footage = Footage::new(false);
    let server = Server::start(&[&footage.storage]);
    let start = "start=20261120T120000Z";
    for (path, status) in [
        (format!("door?{start}&scale=0"), 400),
        (format!("door?{start}&scale=NaN"), 400),
        (format!("door?{start}&scale=1e9"), 400),
        (format!("door?{start}&scale=fast"), 400),
        // No reply could say that it was lowered.
        (format!("door?{start}&scale=100"), 400),
        (format!("door?{start}&scale="), 400),
        // A request is told what is served instead; a URL has no other way to learn it.
        (format!("door?{start}&scale=33"), 400),
        (format!("door?{start}&scale=-100"), 400),
        (format!("door?{start}&scale=0.01"), 400),
        (format!("door?{start}&step=0"), 400),
        (format!("door?{start}&step=2"), 400),
        (format!("door?{start}&step=one"), 400),
        (format!("door?{start}&step=1&scale=2"), 400),
        ("door?scale=2".to_owned(), 400),
        ("door?step=1".to_owned(), 400),
        (format!("door?{start}&end=20261120T115900Z&scale=-1"), 400),
        (
            "door?start=20261120T090000Z&end=20261120T093000Z&scale=-1".to_owned(),
            404,
        ),
        (format!("attic?{start}&scale=8"), 404),
        (format!("attic?{start}&step=-1"), 404),
    ] {
        let response = Client::connect(&server.url(&path)).describe();
        assert_eq!(response.status.as_u16(), status, "{path}: {response:?}");
        assert!(response.reason.len() > 8, "{path}: {response:?}");
    }
    // Before the first picture and behind the last there is none: whether that is known when the URL is opened or played.
    for path in [
        "door?start=20261120T120000Z&step=-1",
        "door?start=20261120T120115.970Z&step=1",
    ] {
        let mut client = Client::connect(&server.url(path));
        let mut response = client.describe();
        if response.status.is_success() {
            assert_eq!(client.setup(0, false).status.as_u16(), 200);
            response = client.play(None);
        }
        assert!(matches!(response.status.as_u16(), 404 | 457), "{path}: {response:?}");
    }
}

#[test]
fn a_thousand_seeks_at_all_speeds_leave_nothing_behind() {
    let footage = Footage::new(true);
    let server = Server::start(&[&footage.storage]);
    let mut neighbour = open(&url(&server, ""), "test");
    played(&neighbour.play(Some("npt=0-")));
    let mut client = open(&url(&server, ""), "test");
    let begun = Instant::now();
    let mut random = 3u32;
    for _ in 0..1000 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let target = f64::from(random >> 16) / 65_536.0 * 16.0;
        let scale = ["1.0", "0.25", "4.0", "32.0", "-1.0", "-8.0", "-32.0"][(random >> 8) as usize % 7];
        let range = format!("npt={target:.3}-");
        let headers = match random >> 4 & 7 {
            0 => vec![("x-corenvr-step", "1")],
            1 => vec![("x-corenvr-step", "-1")],
            _ => vec![("Scale", scale), ("Range", range.as_str())],
        };
        let response = client.play_with(&headers);
        assert!(
            matches!(response.status.as_u16(), 200 | 457),
            "{headers:?}: {response:?}"
        );
        client.forget();
    }
    println!("1000 seeks in {:?}", begun.elapsed());
    let reply = played(&client.play_with(&[("Scale", "8.0"), ("Range", "npt=4-")]));
    client.forget();
    let got = client.frames(2);
    assert_eq!(numbers(&got), [100, 150], "{reply:?}");
    let mut shown = numbers(&neighbour.frames(30));
    shown.sort_unstable();
    // In stored order some of the next ones may be among them.
    assert!(
        shown.iter().zip(0..).take(24).all(|(n, i)| *n == i),
        "the neighbour noticed: {shown:?}"
    );
    assert_eq!(server.stats.snapshot().sessions.len(), 2);
    drop((client, neighbour));
    server.wait_for_quiet();
}
