//! Single steps: exactly the neighbour of the picture that is shown, with what its decoding needs before it and nothing behind it.

use corenvr_media::WallTime;
use corenvr_proto::rtsp::Response;

use super::{BEFORE_GAP, COUNT, DecoderModel, Footage, npt, numbers, open, picture_at, until_picture, url, wall};
use crate::{
    client::{Client, Got, Played, played},
    footage::{GOP, at},
    server::Server,
};

/// A client that steps, and the decoder behind it.
struct Stepper {
    client: Client,
    decoder: DecoderModel,
    shown: i64,
    last_rtp: Option<u32>,
}

impl Stepper {
    /// Shows one picture by a range that holds no more.
    fn at(server: &Server, pyramid: bool, n: i64) -> Self {
        let mut client = open(&url(server, ""), "test");
        let range = format!("npt={0:.3}-{0:.3}", npt(n));
        let response = client.play_with(&[("Range", &range)]);
        let mut stepper = Self {
            client,
            decoder: DecoderModel::new(pyramid),
            shown: n,
            last_rtp: None,
        };
        let got = stepper.take(&response, n);
        assert_eq!(got[0].n, n / GOP * GOP, "play begins at a key frame");
        stepper
    }

    /// One step, which must show the neighbour.
    fn step(&mut self, by: i64) -> Vec<Got> {
        let response = self.request(by);
        assert!(
            self.client.before().is_empty(),
            "pictures behind {} before a step",
            self.shown
        );
        let wanted = self.shown + by;
        let got = self.take(&response, wanted);
        self.shown = wanted;
        got
    }

    fn request(&mut self, by: i64) -> Response {
        self.client
            .play_with(&[("x-corenvr-step", if by > 0 { "1" } else { "-1" })])
    }

    /// Checks a reply, and takes the pictures that belong to it.
    fn take(&mut self, response: &Response, wanted: i64) -> Vec<Got> {
        let reply = played(response);
        assert_eq!(picture_at(reply.start), wanted, "from {}: {reply:?}", self.shown);
        assert!((reply.start - npt(wanted)).abs() < 0.0015, "{reply:?}");
        let lasts = reply.end.unwrap() - reply.start;
        assert!((lasts - 0.04).abs() < 0.0025, "picture {wanted} lasts {lasts} s");
        let got = until_picture(&mut self.client, wanted);
        self.check(&reply, &got);
        got
    }

    fn check(&mut self, reply: &Played, got: &[Got]) {
        assert_eq!(reply.info[0].seq, Some(got[0].sequence));
        let shown = got.last().unwrap();
        assert!(
            (reply.position_at(shown, 1.0) - reply.start).abs() < 0.0015,
            "RTP-Info does not mean the picture that is shown: {reply:?} {:?}",
            shown.rtp
        );
        self.decoder.decode_all(got);
        for frame in got {
            if let Some(last) = self.last_rtp.replace(frame.rtp) {
                let by = frame.rtp.wrapping_sub(last).cast_signed();
                assert!(by > 0, "picture {}: {by} ticks", frame.n);
            }
        }
        for pair in got.windows(2) {
            let by = pair[1].rtp.wrapping_sub(pair[0].rtp);
            assert!((89..=91).contains(&by), "{by} ticks between pictures of one step");
        }
    }
}

fn there_and_back(pyramid: bool, first: i64) {
    let footage = Footage::new(pyramid);
    let server = Server::start(&[&footage.storage]);
    let mut stepper = Stepper::at(&server, pyramid, first);
    for i in 0..100 {
        let got = stepper.step(1);
        // What the decoder has already is not sent again, where nothing is stored out of order.
        assert!(pyramid || got.len() == 1, "{:?}", numbers(&got));
        if i % 20 == 0 {
            assert!(stepper.client.drain().is_empty(), "more than one picture is shown");
        }
    }
    assert_eq!(stepper.shown, first + 100);
    for i in 0..100 {
        let got = stepper.step(-1);
        assert_eq!(got[0].n, stepper.shown / GOP * GOP);
        if i % 20 == 0 {
            assert!(stepper.client.drain().is_empty(), "more than one picture is shown");
        }
    }
    assert_eq!(stepper.shown, first);
}

#[test]
fn a_hundred_steps_each_way_within_segments_and_over_borders() {
    there_and_back(false, 73);
}

#[test]
fn a_hundred_steps_each_way_over_a_border_and_the_gap() {
    there_and_back(false, 238);
}

#[test]
fn a_hundred_steps_each_way_through_b_pictures_and_over_borders() {
    there_and_back(true, 81);
}

#[test]
fn a_hundred_steps_each_way_through_b_pictures_and_over_the_gap() {
    there_and_back(true, 255);
}

#[test]
fn steps_of_a_paused_play_begin_at_the_picture_that_was_sent_last() {
    for pyramid in [false, true] {
        let footage = Footage::new(pyramid);
        let server = Server::start(&[&footage.storage]);
        for (scale, range) in [("1.0", "npt=4-"), ("8.0", "npt=2-"), ("-8.0", "npt=14-")] {
            for by in [1, -1] {
                let mut client = open(&url(&server, ""), "test");
                let response = client.play_with(&[("Scale", scale), ("Range", range)]);
                played(&response);
                let mut got = client.frames(2);
                client.pause();
                got.extend(client.before());
                let mut decoder = DecoderModel::new(pyramid);
                decoder.decode_all(&got);
                // The picture that is shown is the one of the latest time that was sent, in the direction of play.
                let sent = got.iter().map(|g| g.n);
                let shown = if scale.starts_with('-') { sent.min() } else { sent.max() };
                let shown = shown.unwrap();
                let mut stepper = Stepper {
                    client,
                    decoder,
                    shown,
                    last_rtp: got.iter().map(|g| g.rtp).max(),
                };
                stepper.step(by);
                stepper.step(by);
                stepper.step(-by);
            }
        }
    }
}

#[test]
fn play_goes_on_behind_the_picture_that_was_stepped_to() {
    let footage = Footage::new(false);
    let server = Server::start(&[&footage.storage]);
    let mut stepper = Stepper::at(&server, false, 123);
    stepper.step(1);
    stepper.step(-1);
    stepper.step(-1);
    let mut client = stepper.client;
    let reply = played(&client.play(None));
    let got = client.frames(60);
    assert_eq!(numbers(&got), (123..183).collect::<Vec<_>>());
    assert!((reply.start - npt(123)).abs() < 0.0015, "{reply:?}");
    super::assert_times(&reply, &got, 1.0);
    stepper.decoder.decode_all(&got);
}

#[test]
fn beyond_either_end_there_is_no_step_and_the_session_stays() {
    for pyramid in [false, true] {
        let footage = Footage::new(pyramid);
        let server = Server::start(&[&footage.storage]);
        for (end, by) in [(0, -1), (COUNT - 1, 1)] {
            let mut stepper = Stepper::at(&server, pyramid, end - 2 * by);
            stepper.step(by);
            stepper.step(by);
            for _ in 0..3 {
                let response = stepper.request(by);
                assert_eq!(response.status.as_u16(), 457, "{response:?}");
                assert!(response.reason.len() > 10, "{response:?}");
            }
            stepper.step(-by);
            stepper.step(-by);
            stepper.step(by);
        }
    }
}

#[test]
fn who_speaks_by_the_clock_is_answered_by_the_clock() {
    let footage = Footage::new(true);
    let server = Server::start(&[&footage.storage]);
    let mut client = open(&url(&server, ""), "test");
    let moment = wall(BEFORE_GAP).to_clock();
    let response = client.play(Some(&format!("clock={moment}-{moment}")));
    assert_eq!(response.status.as_u16(), 200, "{response:?}");
    until_picture(&mut client, BEFORE_GAP);
    for (by, n) in [("1", 300), ("1", 301), ("-1", 300), ("-1", 299), ("-1", 298)] {
        let response = client.play_with(&[("x-corenvr-step", by)]);
        assert_eq!(clock_of(&response).0, wall(n), "{response:?}");
        until_picture(&mut client, n);
    }
}

fn clock_of(response: &Response) -> (WallTime, WallTime) {
    let range = response.headers.get("Range").and_then(|r| r.strip_prefix("clock="));
    let (start, end) = range
        .and_then(|r| r.split_once('-'))
        .unwrap_or_else(|| panic!("{response:?}"));
    (WallTime::parse(start).unwrap(), WallTime::parse(end).unwrap())
}

#[test]
fn a_step_in_the_url_is_one_picture_and_the_reply_names_its_moment() {
    for pyramid in [false, true] {
        let footage = Footage::new(pyramid);
        let server = Server::start(&[&footage.storage]);
        let mut cases = Vec::new();
        for n in [1, 20, 49, 50, 51, 99, 100, 163, 298, 299, 300, 301, 398] {
            // Anywhere in the time that it is shown.
            cases.extend([(wall(n), 1, n + 1), (wall(n).offset(39_000), -1, n - 1)]);
        }
        // In the gap nothing is shown: its borders are the neighbours.
        cases.extend([(at(40_000), 1, 300), (at(40_000), -1, 299)]);
        for (moment, by, wanted) in cases {
            let path = format!("door?start={}&step={by}", moment.to_clock());
            let mut client = open(&server.url(&path), "test");
            assert_eq!(client.sdp.as_ref().unwrap().media.len(), 1);
            let response = client.play(None);
            assert_eq!(response.status.as_u16(), 200, "{path}: {response:?}");
            assert_eq!(clock_of(&response).0, wall(wanted), "{path}");
            let mut decoder = DecoderModel::new(pyramid);
            // The end is announced a second later; nobody has to wait for it here.
            let got = until_picture(&mut client, wanted);
            decoder.decode_all(&got);
            assert!(client.drain().is_empty(), "{path}: more than one picture is shown");
        }
        let mut client = open(
            &server.url(&format!("door?start={}&step=1", wall(20).to_clock())),
            "test",
        );
        client.play(None);
        assert_eq!(client.until_bye().last().unwrap().n, 21);
    }
}

#[test]
fn a_range_of_one_picture_gives_exactly_that() {
    for pyramid in [false, true] {
        let footage = Footage::new(pyramid);
        let server = Server::start(&[&footage.storage]);
        let mut client = open(&url(&server, ""), "test");
        for n in [0, 1, 2, 3, 4, 48, 49, 50, 99, 100, 101, 298, 299, 300, 301, 302, 399] {
            for (from, to) in [(0.0, 0.0), (0.0, 0.04), (0.015, 0.015), (0.0, 0.039)] {
                let range = format!("npt={:.3}-{:.3}", npt(n) + from, npt(n) + to);
                let reply = played(&client.play(Some(&range)));
                client.forget();
                let got = until_picture(&mut client, n);
                if to > from {
                    assert!(client.drain().is_empty(), "{range}: more than one picture is shown");
                } else {
                    assert!(client.before().is_empty(), "{range}: more than one picture is shown");
                }
                let mut decoder = DecoderModel::new(pyramid);
                decoder.decode_all(&got);
                assert!((reply.start - npt(n)).abs() < 0.0015, "{range}: {reply:?}");
            }
        }
    }
}
