//! Trick play at the live edge: fast forward that reaches it, reverse that begins at it, replay that waits for what comes.

use std::time::{Duration, Instant};

use corenvr_media::WallTime;
use corenvr_proto::rtsp::Method;

use crate::{
    client::{Client, Event, Got},
    footage::{GOP, Storage, frames, tracks},
    server::Server,
};

/// Recorded so far: three segments of four seconds that end with now. The camera has the last of them in memory as well.
struct Scene {
    _storage: Storage,
    server: Server,
    begun: WallTime,
}

const RECORDED: i64 = 300;

impl Scene {
    fn new() -> Self {
        let now = WallTime::from_system(std::time::SystemTime::now()).as_millis();
        let begun = WallTime::from_millis(now - 12_000);
        let storage = Storage::new();
        for i in 0..3 {
            storage.sealed("door", tracks(), &frames(i * 100, 100, begun.offset(i * 4_000_000)));
        }
        let server = Server::start(&[&storage]);
        server.cameras.add("door", tracks());
        let scene = Self {
            _storage: storage,
            server,
            begun,
        };
        scene.happens(200..RECORDED);
        scene
    }

    /// These pictures with their sound come from the camera.
    fn happens(&self, pictures: std::ops::Range<i64>) {
        let start = self.begun.offset(pictures.start * 40_000);
        for frame in frames(pictures.start, pictures.end - pictures.start, start) {
            self.server.cameras.push("door", frame);
        }
    }

    fn clock(&self, picture: i64) -> String {
        format!("clock={}-", self.begun.offset(picture * 40_000).to_clock())
    }

    fn open(&self, path: &str) -> Client {
        let mut client = Client::open(&self.server.url(path), false);
        client.prompt = true;
        client
    }
}

fn pictures(got: &[Got]) -> Vec<i64> {
    got.iter().filter(|g| g.track == 0).map(|g| g.n).collect()
}

/// Reads until this picture has come.
fn until(client: &mut Client, n: i64) -> Vec<Got> {
    let mut all: Vec<Got> = Vec::new();
    while !all.iter().any(|g| g.track == 0 && g.n == n) {
        all.extend(client.frames(1));
    }
    all
}

#[test]
fn fast_forward_that_reaches_the_present_becomes_the_present() {
    let scene = Scene::new();
    let mut client = scene.open("door");
    let range = scene.clock(0);
    let response = client.play_with(&[("Range", &range), ("Scale", "8.0")]);
    assert_eq!(
        (response.status.as_u16(), response.headers.get("Scale")),
        (200, Some("8.0"))
    );
    let got = until(&mut client, RECORDED - 1);
    // Key frames up to the last one there is, then everything behind it.
    let keys: Vec<i64> = (0..RECORDED).step_by(GOP as usize).collect();
    let wanted: Vec<i64> = keys.iter().copied().chain(RECORDED - GOP + 1..RECORDED).collect();
    assert_eq!(pictures(&got), wanted);
    scene.happens(RECORDED..RECORDED + 60);
    let live = until(&mut client, RECORDED + 58);
    assert_eq!(pictures(&live), (RECORDED..RECORDED + 59).collect::<Vec<_>>());
    assert!(live.iter().any(|g| g.track == 1 && g.n >= RECORDED), "sound is back");
    let of = |n: i64| live.iter().find(|g| g.track == 0 && g.n == n).unwrap().rtp;
    assert_eq!(
        of(RECORDED + 50).wrapping_sub(of(RECORDED + 25)),
        90_000,
        "at its own pace"
    );
}

#[test]
fn reverse_from_the_present_begins_at_the_last_frame() {
    let scene = Scene::new();
    let mut client = scene.open("door");
    assert_eq!(client.play(None).status.as_u16(), 200);
    until(&mut client, RECORDED - 1);
    let response = client.play_with(&[("Scale", "-16.0")]);
    assert_eq!(
        (response.status.as_u16(), response.headers.get("Scale")),
        (200, Some("-16.0"))
    );
    let told = response.headers.get("Range").unwrap();
    let first = scene.begun.offset((RECORDED - GOP) * 40_000);
    assert!(told.starts_with(&format!("clock={}", first.to_clock())), "{told}");
    client.forget();
    let got = client.until_bye();
    let wanted: Vec<i64> = (0..RECORDED / GOP).rev().map(|i| i * GOP).collect();
    assert_eq!(pictures(&got), wanted);
    // And forward again from the first frame there is, back to the present.
    let response = client.play_with(&[("Scale", "32.0")]);
    assert_eq!(response.status.as_u16(), 200);
    client.forget();
    let got = until(&mut client, RECORDED - 1);
    assert_eq!(pictures(&got)[..5], [50, 100, 150, 200, 250]);
}

#[test]
fn the_present_has_one_speed_and_the_reply_says_so() {
    let scene = Scene::new();
    let mut client = scene.open("door");
    for scale in ["8.0", "0.5"] {
        let response = client.play_with(&[("Scale", scale)]);
        assert_eq!(
            (response.status.as_u16(), response.headers.get("Scale")),
            (200, Some("1.0"))
        );
    }
}

#[test]
fn a_step_back_from_the_present_is_a_recorded_frame() {
    let scene = Scene::new();
    let mut client = scene.open("door");
    assert_eq!(client.play(None).status.as_u16(), 200);
    until(&mut client, RECORDED - 1);
    assert_eq!(client.pause().status.as_u16(), 200);
    client.drain();
    for n in (RECORDED - 20..RECORDED - 1).rev() {
        let response = client.play_with(&[("x-corenvr-step", "-1")]);
        assert_eq!(response.status.as_u16(), 200, "{response:?}");
        let told = response.headers.get("Range").unwrap();
        let time = scene.begun.offset(n * 40_000);
        assert!(
            told.starts_with(&format!("clock={}-", time.to_clock())),
            "{told}, not {time}"
        );
        let got = until(&mut client, n);
        assert_eq!(got.last().unwrap().n, n);
    }
    // From there it goes on, every frame, into the present.
    assert_eq!(client.play(None).status.as_u16(), 200);
    client.forget();
    let got = until(&mut client, RECORDED - 1);
    assert_eq!(pictures(&got), (RECORDED - 19..RECORDED).collect::<Vec<_>>());
}

#[test]
fn replay_waits_at_the_end_of_footage_and_goes_on_with_what_comes() {
    let scene = Scene::new();
    let mut client = scene.open("door/replay");
    let url = client.url.clone();
    let range = scene.clock(230);
    let headers = [
        ("Require", "onvif-replay"),
        ("Range", range.as_str()),
        ("Rate-Control", "no"),
    ];
    let response = client.request(Method::Play, &url, &headers);
    assert_eq!(response.status.as_u16(), 200, "{response:?}");
    let got = until(&mut client, RECORDED - 1);
    assert_eq!(pictures(&got), (200..RECORDED).collect::<Vec<_>>());
    let ends = |list: &[Got]| list.iter().any(|g| g.replay.unwrap().flags & 0x50 != 0);
    assert!(!ends(&got), "the footage goes on: neither E nor T");
    std::thread::sleep(Duration::from_millis(1500));
    let waiting = client.drain();
    assert!(waiting.iter().all(|g| g.track == 1), "{:?}", pictures(&waiting));
    scene.happens(RECORDED..RECORDED + 30);
    let more = until(&mut client, RECORDED + 28);
    assert_eq!(pictures(&more), (RECORDED..RECORDED + 29).collect::<Vec<_>>());
    assert!(!ends(&more));
}

#[test]
fn what_a_seek_leaves_is_not_sent() {
    let scene = Scene::new();
    let mut client = scene.open("door");
    let begun = Instant::now();
    for (i, scale) in ["1.0", "-4.0", "16.0", "-32.0", "2.0"]
        .into_iter()
        .cycle()
        .take(100)
        .enumerate()
    {
        let range = scene.clock((i as i64 * 37) % 250);
        let response = client.play_with(&[("Range", &range), ("Scale", scale)]);
        assert_eq!(response.status.as_u16(), 200, "{response:?}");
        client.forget();
        let first = loop {
            if let Event::Frame(got) = client.next()
                && got.track == 0
            {
                break got;
            }
        };
        assert_eq!(first.n, (i as i64 * 37) % 250 / GOP * GOP, "{scale}x");
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
}
