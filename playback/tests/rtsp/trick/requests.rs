//! The requests of VLC, mpv, ffplay, GStreamer and openRTSP, in their order and with their headers.

use corenvr_proto::rtsp::Method;

use super::{Footage, LENGTH, assert_rising, assert_times, keys, npt, numbers, open, url};
use crate::{
    client::{Client, played},
    footage::{GOP, Storage, at, frames, tracks},
    server::Server,
};

const VLC: &str = "LibVLC/3.0.24 (LIVE555 Streaming Media v2016.11.28)";
const MPV: &str = "libmpv";
const FFPLAY: &str = "Lavf59.27.100";
const GSTREAMER: &str = "GStreamer/1.22.0";
const OPEN_RTSP: &str = "./openRTSP (LIVE555 Streaming Media v2026.06.01)";

#[test]
fn vlc_changes_its_rate_in_the_middle_of_a_play() {
    let footage = Footage::new(false);
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&url(&server, ""), VLC);
    let whole = client.url.clone();
    let reply = played(&client.play(Some("npt=0.000-")));
    assert_eq!((reply.start, reply.end), (0.0, Some(LENGTH)));
    let mut last = client.frames(70)[69].n;
    // It drops what it has buffered at a change: the new speed begins at a key frame half a second back or more.
    for scale in ["2.0000", "0.5000", "1.0000", "8.0000", "16.0000", "4.0000", "2.0000"] {
        client.request(Method::GetParameter, &whole, &[]);
        let response = client.play_with(&[("Scale", scale)]);
        last = numbers(&client.before()).into_iter().fold(last, i64::max);
        let factor: f64 = scale.parse().unwrap();
        let told: f64 = response.headers.get("Scale").unwrap().parse().unwrap();
        assert!((told - factor).abs() < 0.001, "{response:?}");
        let reply = played(&response);
        let got = client.frames(3);
        let back = npt(last) - npt(got[0].n);
        assert!(
            got[0].key && (back >= 0.46 || got[0].n == 0),
            "{last} {:?}",
            numbers(&got)
        );
        assert!(npt(last) - npt(got[0].n) <= 2.6, "{last} {:?}", numbers(&got));
        let step = if factor < 4.0 { 1 } else { GOP };
        assert!(got.windows(2).all(|p| p[1].n == p[0].n + step), "{:?}", numbers(&got));
        assert_times(&reply, &got, factor);
        last = got[2].n;
    }
    // A seek.
    assert_eq!(client.pause().status.as_u16(), 200);
    let reply = played(&client.play_with(&[("Scale", "1.0000"), ("Range", "npt=9.123-")]));
    client.forget();
    let got = client.frames(5);
    assert_eq!((reply.start, numbers(&got)), (8.0, vec![200, 201, 202, 203, 204]));
    assert_times(&reply, &got, 1.0);
    assert_eq!(client.teardown().status.as_u16(), 200);
    server.wait_for_quiet();
}

#[test]
fn mpv_seeks_and_steps_back_by_half_a_second() {
    let footage = Footage::new(true);
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&url(&server, ""), MPV);
    played(&client.play(Some("npt=0.000-")));
    client.frames(30);
    let mut target = 9.5;
    for _ in 0..10 {
        assert_eq!(client.pause().status.as_u16(), 200);
        let reply = played(&client.play(Some(&format!("npt={target:.3}-"))));
        client.forget();
        let from = (target * 25.0) as i64 / GOP * GOP;
        let got = client.frames(60);
        assert_eq!(numbers(&got), footage.stored(from, 400)[..60]);
        assert_times(&reply, &got, 1.0);
        target -= 0.5;
    }
    // It does not ask for speeds; those in the URL are as any other recording to it.
    let mut client = open(&url(&server, "&scale=-4"), MPV);
    let reply = played(&client.play(Some("npt=0.000-")));
    assert_eq!(numbers(&client.until_bye()), keys(LENGTH, 0.0), "{reply:?}");
}

#[test]
fn ffplay_steps_by_pause_and_play() {
    let footage = Footage::new(true);
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&url(&server, "&end=20261120T120012Z"), FFPLAY);
    let reply = played(&client.play(Some("npt=0.000-")));
    let mut got = client.frames(1);
    for _ in 0..20 {
        assert_eq!(client.pause().status.as_u16(), 200);
        got.extend(client.before());
        // It is sent two seconds ahead each time.
        if got.len() > 220 {
            break;
        }
        let again = played(&client.play(None));
        let next = client.frames(1);
        assert!(again.start >= reply.start && again.end == reply.end, "{again:?}");
        assert_times(&again, &next, 1.0);
        got.extend(next);
    }
    let stored = footage.stored(0, 300);
    assert_eq!(numbers(&got), stored[..got.len()]);
    // A seek, as with the arrow keys.
    client.pause();
    let reply = played(&client.play(Some("npt=7.000-")));
    client.forget();
    let got = client.frames(40);
    assert_eq!(
        (reply.start, numbers(&got)),
        (6.0, footage.stored(150, 300)[..40].to_vec())
    );
}

#[test]
fn gstreamer_is_told_nothing_of_a_rate_and_gets_it() {
    let storage = Storage::new();
    for (i, ms) in [0, 4000, 8000, 72_000].into_iter().enumerate() {
        storage.sealed("door", tracks(), &frames(i as i64 * 100, 100, at(ms)));
    }
    let server = Server::start(&[&storage]);
    let mut client = open(&url(&server, ""), GSTREAMER);
    played(&client.play(Some("npt=0-16")));
    client.frames(20);
    for (headers, scale, range) in [
        // A seek with a rate, without and with the flag for trick play, and in reverse.
        (vec![("Speed", "2.0")], 2.0, (4.0, 16.0)),
        (vec![("Speed", "0.5")], 0.5, (4.0, 16.0)),
        (vec![("Speed", "8.0")], 8.0, (4.0, 16.0)),
        (vec![("Scale", "2.0")], 2.0, (4.0, 16.0)),
        (vec![("Scale", "8.0")], 8.0, (4.0, 16.0)),
        (vec![("Scale", "-1.0")], -1.0, (14.0, 0.0)),
        (vec![("Scale", "-4.0")], -4.0, (14.0, 0.0)),
        (vec![("Scale", "-1.0"), ("Speed", "2.0")], -2.0, (14.0, 0.0)),
    ] {
        assert_eq!(client.pause().status.as_u16(), 200);
        let asked = format!("npt={}-{}", range.0, range.1);
        let mut headers = headers;
        headers.push(("Range", &asked));
        let response = client.play_with(&headers);
        client.forget();
        assert_eq!(
            (response.headers.get("Scale"), response.headers.get("Speed")),
            (None, None),
            "{headers:?}: it would apply them a second time"
        );
        let reply = played(&response);
        assert_eq!((reply.start, reply.end), (range.0, Some(range.1)), "{headers:?}");
        let mut pictures = Vec::new();
        while pictures.len() < 3 {
            pictures.extend(client.frames(1).into_iter().filter(|g| g.track == 0));
        }
        let wanted = match scale {
            0.0..4.0 => vec![100, 101, 102],
            4.0.. => vec![100, 150, 200],
            _ => vec![350, 300, 250],
        };
        assert_eq!(numbers(&pictures), wanted, "{headers:?}");
        assert_times(&reply, &pictures, scale);
        assert_rising(&pictures);
    }
}

#[test]
fn open_rtsp_plays_backward_and_by_the_clock() {
    let footage = Footage::new(false);
    let server = Server::start(&[&footage.storage]);
    let mut client = Client::open_as(&url(&server, ""), true, OPEN_RTSP);
    client.prompt = true;
    let response = client.play_with(&[("Scale", "-4.000000"), ("Range", "npt=14.000-10.000")]);
    let reply = played(&response);
    assert_eq!((reply.start, reply.end), (14.0, Some(10.0)));
    let got = client.until_bye();
    assert_eq!(numbers(&got), [350, 300, 250]);
    assert_times(&reply, &got, -4.0);
    let response = client.play_with(&[
        ("Scale", "8.000000"),
        ("Range", "clock=20261120T120004Z-20261120T120011Z"),
    ]);
    assert_eq!(
        response.headers.get("Range"),
        Some("clock=20261120T120004Z-20261120T120011Z")
    );
    assert_eq!(numbers(&client.until_bye()), [100, 150, 200, 250]);
}
