//! Wrong requests, wrong logins, limits: each gets its answer, and nobody else notices.

use std::io::Read;

use corenvr_playback::Limits;
use corenvr_proto::rtsp::Method;

use crate::{
    client::{Client, played},
    footage::{Storage, at, frames, tracks},
    server::Server,
};

const START: &str = "start=20261120T120000Z";

fn storage() -> Storage {
    let storage = Storage::new();
    storage.sealed("door", tracks(), &frames(0, 100, at(0)));
    storage
}

#[test]
fn urls_that_cannot_be_served_say_why() {
    let storage = storage();
    let server = Server::start(&[&storage]);
    for (path, status, reason) in [
        (
            "door?start=20261120T130000Z",
            404,
            "the nearest is at 2026-11-20T12:00:0",
        ),
        (
            "attic?start=20261120T120000Z",
            404,
            "There is no footage of a camera attic",
        ),
        ("Door", 404, "is not a camera name"),
        ("", 404, "names no camera"),
        ("attic/replay", 404, "No camera attic"),
        ("door/replay?start=20261120T120000Z", 400, "Range: clock="),
        ("door?start=20261120T120000Z&scale=64", 400, "scale is 0.0625 to 32"),
        ("door?start=20261120T110000Z&step=-1", 404, "no frame of door before"),
        (
            "Streaming/tracks/201?starttime=20261120T120000Z",
            404,
            "channel number 2",
        ),
        ("door?start=1999", 400, "is not a time"),
        ("door?start=20261120T120000Z&end=20261220T120000Z", 400, "7 days"),
        ("../../etc/passwd", 400, ""),
    ] {
        let response = Client::connect(&server.url(path)).describe();
        assert_eq!(response.status.as_u16(), status, "{path}: {response:?}");
        assert!(response.reason.contains(reason), "{path}: {response:?}");
    }
}

#[test]
fn wrong_requests_leave_the_session_and_its_neighbours_playing() {
    let storage = storage();
    let server = Server::start(&[&storage]);
    let url = server.url(&format!("door?{START}"));
    let mut neighbour = Client::open(&url, false);
    played(&neighbour.play(Some("npt=0-")));
    let mut client = Client::open(&url, false);
    played(&client.play(Some("npt=0-")));
    for (method, headers, status) in [
        (Method::Play, vec![("Range", "npt=3-1")], 457),
        (Method::Play, vec![("Range", "smpte=0:00:10-")], 457),
        (Method::Play, vec![("Range", "npt=x")], 400),
        (Method::Play, vec![("Scale", "NaN")], 400),
        (Method::Play, vec![("Scale", "0")], 400),
        (Method::Play, vec![("Scale", "1e9")], 400),
        (Method::Play, vec![("Range", "npt=3-1"), ("Scale", "1")], 457),
        (Method::Play, vec![("Range", "npt=1-3"), ("Scale", "-1")], 457),
        (Method::Play, vec![("Range", "npt=0-"), ("x-corenvr-step", "-1")], 457),
        (Method::Play, vec![("x-corenvr-step", "2")], 400),
        (Method::Play, vec![("Require", "made.up")], 551),
        (Method::Setup, vec![("Transport", "RTP/AVP;multicast")], 461),
        (
            Method::Setup,
            vec![("Transport", "RTP/AVP;unicast;client_port=5000-5001")],
            459,
        ),
        (Method::Record, vec![], 405),
        (Method::GetParameter, vec![], 200),
        (Method::Options, vec![], 200),
        (Method::Other("FLY".into()), vec![], 501),
    ] {
        let response = client.request(method.clone(), &url, &headers);
        assert_eq!(response.status.as_u16(), status, "{method} {headers:?}: {response:?}");
    }
    client.session = Some("0011223344556677".into());
    assert_eq!(client.pause().status.as_u16(), 454);
    // The session of one connection is of no use to another.
    client.session.clone_from(&neighbour.session);
    assert_eq!(client.teardown().status.as_u16(), 454);
    assert!(neighbour.frames(100).len() == 100);
    client.raw(b"\x00\x01 this is not RTSP\r\n\r\n");
    assert!(client.is_closed());
    neighbour.forget();
    played(&neighbour.play(Some("npt=1-")));
    neighbour.frames(20);
    assert_eq!(server.stats.snapshot().counters.protocol_errors, 1);
}

#[test]
fn a_camera_that_is_not_open_to_all_needs_the_right_login() {
    let storage = Storage::new();
    storage.sealed("secret", tracks(), &frames(0, 50, at(0)));
    let server = Server::start(&[&storage]);
    let url = server.url(&format!("secret?{START}"));
    let mut client = Client::connect(&url);
    let response = client.describe();
    assert_eq!(response.status.as_u16(), 401);
    assert!(response.headers.get_all("WWW-Authenticate").count() >= 2);
    let basic = |user: &str, password: &str| {
        use std::fmt::Write;
        // Base64 by hand: the tests need no crate for one header.
        const TABLE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::from("Basic ");
        for chunk in format!("{user}:{password}").as_bytes().chunks(3) {
            let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
            for i in 0..4 {
                let c = if i <= chunk.len() {
                    TABLE[(word >> (18 - 6 * i) & 63) as usize] as char
                } else {
                    '='
                };
                write!(out, "{c}").unwrap();
            }
        }
        out
    };
    client.authorization = Some(basic("alice", "wrong"));
    assert_eq!(client.describe().status.as_u16(), 401);
    client.authorization = Some(basic("bob", "pass"));
    assert_eq!(client.describe().status.as_u16(), 403);
    client.authorization = Some(basic("alice", "pass"));
    assert_eq!(client.describe().status.as_u16(), 200);
    assert_eq!(client.setup(0, false).status.as_u16(), 200);
    played(&client.play(None));
    client.frames(10);
    assert_eq!(server.stats.snapshot().sessions[0].user.as_deref(), Some("alice"));
    assert!(server.stats.snapshot().counters.logins_refused >= 2);
}

#[test]
fn too_many_connections_of_one_peer_are_closed() {
    let storage = storage();
    let limits = Limits {
        connections: 100,
        connections_per_peer: 3,
    };
    let server = Server::with_limits(&[&storage], limits);
    let url = server.url(&format!("door?{START}"));
    let mut kept: Vec<Client> = (0..3).map(|_| Client::open(&url, false)).collect();
    let mut refused = std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    assert!(matches!(refused.read(&mut [0; 1]), Ok(0) | Err(_)));
    played(&kept[0].play(None));
    kept[0].frames(10);
    // A connection that ends makes room.
    drop(kept.pop());
    let mut attempts = 0;
    while server.stats.snapshot().sessions.len() > 2 {
        attempts += 1;
        assert!(attempts < 1000);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    Client::open(&url, false);
    assert_eq!(server.stats.snapshot().counters.connections_refused, 1);
}

#[test]
fn what_is_not_paced_is_not_sent_by_datagrams() {
    let storage = storage();
    let server = Server::start(&[&storage]);
    let mut client = Client::connect(&server.url(&format!("door?{START}&pace=0")));
    client.describe();
    assert_eq!(client.setup(0, true).status.as_u16(), 461);
    assert_eq!(client.setup(0, false).status.as_u16(), 200);
}

#[test]
fn more_sessions_than_a_connection_may_have_are_refused() {
    let storage = storage();
    let server = Server::start(&[&storage]);
    let mut client = Client::connect(&server.url(&format!("door?{START}&audio=0")));
    client.describe();
    let mut statuses = Vec::new();
    for _ in 0..12 {
        client.session = None;
        statuses.push(client.setup(0, true).status.as_u16());
    }
    assert!(
        statuses.starts_with(&[200; 4]) && statuses.ends_with(&[453; 4]),
        "{statuses:?}"
    );
}
