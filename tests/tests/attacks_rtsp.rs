//! Attacks that recorders and media servers have met in the field, on the RTSP side, each tried on a running recorder with accounts.
#![allow(clippy::unwrap_used)]

use std::{io::Write, net::IpAddr, process::Command, process::Stdio, time::Duration};

use corenvr_tests::{
    daemon::{Camera, Daemon},
    process::{corenvr, wait_for},
    rtsp::{Rtsp, hash},
    sim::Sim,
};

const SOON: Duration = Duration::from_secs(30);
const PASSWORD: &str = "correct horse battery";
const ANNA: (&str, &str) = ("anna", PASSWORD);
const BERT: (&str, &str) = ("bert", PASSWORD);
const TCP: &str = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";

/// A recorder with the cameras `front` (channel 1) and `front2` (channel 2). anna may see `front` live; bert may see everything.
fn recorder() -> (Sim, Daemon) {
    let sim = Sim::start(2);
    let camera = |name: &str, n: u32| Camera {
        extra: format!("channel = {n}"),
        ..Camera::new(name, &sim.url(n), "tcp")
    };
    let cameras = [camera("front", 1), camera("front2", 2)];
    let mut daemon = Daemon::new("", &[]);
    daemon.anonymous = "[]";
    daemon.configure("", &cameras);
    daemon.start();
    add(&daemon, ANNA.0, &["--grant", "front:live"]);
    add(&daemon, BERT.0, &[]);
    daemon.wait_sealed("front", 1, Duration::from_secs(60));
    daemon.wait_sealed("front2", 1, Duration::from_secs(60));
    (sim, daemon)
}

fn add(daemon: &Daemon, name: &str, more: &[&str]) {
    let mut child = Command::new(corenvr())
        .args(["user", "add", name, "--role", "viewer", "--password-stdin"])
        .args(more)
        .arg("--config")
        .arg(daemon.config())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    assert!(child.wait().unwrap().success());
}

/// Every form of a URL that leads to media: live, archive, single frames, ONVIF's, Hikvision's and Dahua's.
fn every_url(daemon: &Daemon, name: &str, channel: u32) -> Vec<String> {
    let track = channel * 100 + 1;
    [
        name.to_owned(),
        format!("{name}/"),
        format!("{name}/track1"),
        format!("{name}/replay"),
        format!("{name}?start=20260101T000000Z"),
        format!("{name}?start=20260101T000000Z&end=20260101T000100Z&scale=-8"),
        format!("{name}?start=20260101T000000Z&step=1"),
        format!("{name}?start=20260101T000000Z&step=-1"),
        format!("Streaming/tracks/{track}?starttime=20260101T000000Z&endtime=20260101T000100Z"),
        format!("Streaming/tracks/{track}/?starttime=20260101t000000z"),
        format!("cam/playback?channel={channel}&subtype=0&starttime=2026_01_01_00_00_00&endtime=2026_01_01_00_01_00"),
    ]
    .iter()
    .map(|path| daemon.rtsp(path))
    .collect()
}

/// Still there, and still serving who may.
fn still_serves(daemon: &Daemon) {
    let uri = daemon.rtsp("front");
    let reply = Rtsp::connect(daemon.rtsp_port).ask_as(ANNA, "DESCRIBE", &uri, "");
    assert_eq!(reply.status, 200, "{reply:?}");
}

/// CVE-2026-33470, CVE-2026-54258: a media route that forgets to ask.
#[test]
fn no_method_and_no_form_of_a_url_goes_without_the_gate() {
    let (_sim, mut daemon) = recorder();
    let allowed_to_anna = [daemon.rtsp("front"), daemon.rtsp("front/"), daemon.rtsp("front/track1")];
    for (name, channel) in [("front", 1), ("front2", 2)] {
        for uri in every_url(&daemon, name, channel) {
            for method in ["DESCRIBE", "SETUP"] {
                // Nobody gets a login asked for; a camera that is not there is no different.
                let nobody = Rtsp::connect(daemon.rtsp_port).ask(method, &uri, TCP);
                assert_eq!(nobody.status, 401, "{method} {uri}");
                assert!(nobody.body.is_empty() && nobody.header("session").is_none());
                let anna = Rtsp::connect(daemon.rtsp_port).ask_as(ANNA, method, &uri, TCP);
                if allowed_to_anna.contains(&uri) {
                    assert!(
                        [200, 404, 459].contains(&anna.status),
                        "{method} {uri}: {}",
                        anna.status
                    );
                } else {
                    assert_eq!(anna.status, 403, "{method} {uri}");
                    assert!(anna.body.is_empty() && anna.header("session").is_none());
                }
            }
            // What needs a session cannot be had without one, with a login or without.
            for method in ["PLAY", "PAUSE", "TEARDOWN"] {
                for headers in ["", "Session: 0000000000000000\r\n"] {
                    let nobody = Rtsp::connect(daemon.rtsp_port).ask(method, &uri, headers);
                    assert!(
                        [401, 454, 455].contains(&nobody.status),
                        "{method} {uri}: {}",
                        nobody.status
                    );
                }
            }
            for method in ["ANNOUNCE", "RECORD", "REDIRECT"] {
                let nobody = Rtsp::connect(daemon.rtsp_port).ask(method, &uri, "");
                assert!(
                    (400..=599).contains(&nobody.status),
                    "{method} {uri}: {}",
                    nobody.status
                );
            }
        }
    }
    // The past of a camera whose present one may see: not by a range of UTC on its live URL either, nor by steps.
    let uri = daemon.rtsp("front");
    let mut anna = Rtsp::connect(daemon.rtsp_port);
    let challenge = anna.challenge("DESCRIBE", &uri);
    let login = |method: &str, count| challenge.answer(ANNA.0, ANNA.1, method, &uri, count);
    let session = anna.ask(
        "SETUP",
        &format!("{uri}/track1"),
        &format!("{}{TCP}", login("SETUP", 1)),
    );
    assert_eq!(session.status, 200, "{session:?}");
    let session = format!("Session: {}\r\n", session.session());
    for (n, range) in [
        "Range: clock=20260101T000000Z-\r\n",
        "Range: npt=0-5\r\nScale: -1\r\n",
        "x-corenvr-step: -1\r\n",
    ]
    .iter()
    .enumerate()
    {
        let reply = anna.ask(
            "PLAY",
            &uri,
            &format!("{}{session}{range}", login("PLAY", n as u32 + 2)),
        );
        assert_eq!(reply.status, 403, "{range}: {reply:?}");
    }
    still_serves(&daemon);
    daemon.stop();
}

/// CVE-2026-41470: a session is used, or ended, by somebody on another connection who has learned its name.
#[test]
fn a_session_belongs_to_its_connection() {
    let (_sim, mut daemon) = recorder();
    let uri = daemon.rtsp("front2");
    let mut owner = Rtsp::connect(daemon.rtsp_port);
    let challenge = owner.challenge("DESCRIBE", &uri);
    let login = |method: &str, count| challenge.answer(BERT.0, BERT.1, method, &uri, count);
    let reply = owner.ask(
        "SETUP",
        &format!("{uri}/track1"),
        &format!("{}{TCP}", login("SETUP", 1)),
    );
    let session = format!("Session: {}\r\n", reply.session());
    assert_eq!(
        owner
            .ask("PLAY", &uri, &format!("{}{session}", login("PLAY", 2)))
            .status,
        200
    );
    for thief in [None, Some(ANNA), Some(BERT)] {
        for method in ["PLAY", "PAUSE", "SETUP", "GET_PARAMETER", "SET_PARAMETER", "TEARDOWN"] {
            let mut connection = Rtsp::connect(daemon.rtsp_port);
            let reply = match thief {
                None => connection.ask(method, &uri, &format!("{session}{TCP}")),
                Some((name, password)) => {
                    let challenge = connection.challenge("DESCRIBE", &uri);
                    let login = challenge.answer(name, password, method, &uri, 1);
                    connection.ask(method, &uri, &format!("{login}{session}{TCP}"))
                }
            };
            assert!(
                [401, 403, 454].contains(&reply.status),
                "{thief:?} {method}: {}",
                reply.status
            );
        }
    }
    let reply = owner.ask("PAUSE", &uri, &format!("{}{session}", login("PAUSE", 3)));
    assert_eq!(reply.status, 200, "the owner's session is untouched");
    daemon.stop();
}

/// CVE-2017-7921, CVE-2021-33044 and the like: ways around Digest.
#[test]
fn digest_has_no_way_around() {
    let (_sim, mut daemon) = recorder();
    let uri = daemon.rtsp("front");
    let address = |n: u8| IpAddr::from([127, 0, 1, n]);
    let mut next = 0;
    // Each from an address of its own, so that no throttle hides a hole.
    let mut try_login = |make: &dyn Fn(&corenvr_tests::rtsp::Challenge) -> String| {
        next += 1;
        let mut connection = Rtsp::connect_from(address(next), daemon.rtsp_port);
        let challenge = connection.challenge("DESCRIBE", &uri);
        let header = make(&challenge);
        connection.ask("DESCRIBE", &uri, &header).status
    };
    assert_eq!(try_login(&|c| c.answer("anna", PASSWORD, "DESCRIBE", &uri, 1)), 200);
    let empty = hash(&[""]);
    for response in ["", "0", &"0".repeat(64), &empty, "null", "undefined"] {
        for name in ["anna", "admin", "", "root"] {
            let status = try_login(&|c| c.with_response(name, &uri, "00000001", response));
            assert_eq!(status, 401, "{name} {response:?}");
        }
    }
    // An answer for an empty or missing password, another method, another URL, another realm.
    assert_eq!(try_login(&|c| c.answer("anna", "", "DESCRIBE", &uri, 1)), 401);
    assert_eq!(try_login(&|c| c.answer("nobody", "", "DESCRIBE", &uri, 1)), 401);
    assert_eq!(try_login(&|c| c.answer("anna", PASSWORD, "PLAY", &uri, 1)), 401);
    assert_eq!(
        try_login(&|c| c.answer("anna", PASSWORD, "DESCRIBE", &daemon.rtsp("front2"), 1)),
        401
    );
    let own_realm = |c: &corenvr_tests::rtsp::Challenge| {
        let mut other = c.clone();
        other.realm = "corenvr".into();
        other.answer("anna", PASSWORD, "DESCRIBE", &uri, 1)
    };
    assert_eq!(try_login(&own_realm), 401);
    let own_nonce = |c: &corenvr_tests::rtsp::Challenge| {
        let mut other = c.clone();
        other.nonce = "0".repeat(c.nonce.len());
        other.answer("anna", PASSWORD, "DESCRIBE", &uri, 1)
    };
    assert_eq!(try_login(&own_nonce), 401);
    for basic in ["YW5uYTpjb3JyZWN0IGhvcnNlIGJhdHRlcnk=", "YWRtaW46YWRtaW4=", "Og==", ""] {
        assert_eq!(
            try_login(&|_| format!("Authorization: Basic {basic}\r\n")),
            401,
            "in clear: {basic}"
        );
    }
    // The key of CVE-2017-7921 in the URL is an unknown parameter like any other.
    for path in ["front?auth=YWRtaW46MTEK", "front/replay?auth=YWRtaW46MTEK"] {
        let reply = Rtsp::connect(daemon.rtsp_port).ask("DESCRIBE", &daemon.rtsp(path), "");
        assert!([400, 401].contains(&reply.status) && reply.body.is_empty(), "{reply:?}");
    }
    // An answer that was overheard: again on its connection, and from another host.
    let mut anna = Rtsp::connect(daemon.rtsp_port);
    let challenge = anna.challenge("DESCRIBE", &uri);
    let overheard = challenge.answer("anna", PASSWORD, "DESCRIBE", &uri, 1);
    assert_eq!(anna.ask("DESCRIBE", &uri, &overheard).status, 200);
    assert_eq!(anna.ask("DESCRIBE", &uri, &overheard).status, 401);
    let mut thief = Rtsp::connect_from(address(250), daemon.rtsp_port);
    assert_eq!(thief.ask("DESCRIBE", &uri, &overheard).status, 401);
    // A nonce that another user was given proves nothing of that user.
    let mut anna = Rtsp::connect(daemon.rtsp_port);
    let given = anna.challenge("DESCRIBE", &uri);
    let mut bert = Rtsp::connect(daemon.rtsp_port);
    let past = daemon.rtsp("front2");
    let as_bert = given.answer("bert", "anna's guess", "DESCRIBE", &past, 1);
    assert_eq!(bert.ask("DESCRIBE", &past, &as_bert).status, 401);
    daemon.stop();
}

/// CVE-2024-27488, wvp#2009 and others: secrets that are shipped.
#[test]
fn two_installations_share_no_secret() {
    let (mut one, mut two) = (Daemon::new("", &[]), Daemon::new("", &[]));
    for daemon in [&mut one, &mut two] {
        daemon.anonymous = "[]";
        daemon.configure("", &[]);
        daemon.start();
    }
    let secret = |d: &Daemon| {
        std::fs::read_to_string(d.path("state/admin-password"))
            .unwrap()
            .trim()
            .to_owned()
    };
    let (first, second) = (secret(&one), secret(&two));
    assert!(first.len() >= 24 && first != second);
    let realm = |d: &Daemon| Rtsp::connect(d.rtsp_port).challenge("DESCRIBE", &d.rtsp("x")).realm;
    assert_ne!(realm(&one), realm(&two));
    for (name, password) in [
        ("admin", "admin"),
        ("admin", ""),
        ("admin", "12345"),
        ("admin", "corenvr"),
        ("admin", second.as_str()),
        ("corenvr", "corenvr"),
        ("root", "root"),
    ] {
        let status = Rtsp::connect_from([127, 0, 2, 1].into(), one.rtsp_port)
            .ask_as((name, password), "DESCRIBE", &one.rtsp("x"), "")
            .status;
        assert_eq!(status, 401, "{name}:{password}");
    }
    let right = Rtsp::connect(one.rtsp_port).ask_as(("admin", &first), "DESCRIBE", &one.rtsp("x"), "");
    assert_eq!(right.status, 404);
    one.stop();
    two.stop();
}

/// ZLM#4817, wvp#2180: paths that lead out of the archive, or to a camera whose name begins alike.
#[test]
fn no_path_leads_elsewhere() {
    let (_sim, mut daemon) = recorder();
    let deep = "../".repeat(12);
    for path in [
        format!("{deep}etc/passwd"),
        "..%2f..%2fetc%2fpasswd".into(),
        "%2e%2e/%2e%2e/etc/passwd".into(),
        "front/../front2".into(),
        "front/%2e%2e/front2".into(),
        "front/../../state/accounts.json".into(),
        "front%00/../front2".into(),
        "front%002".into(),
        "front\\..\\front2".into(),
        "//front2".into(),
        "./front2".into(),
        "FRONT2".into(),
        "front2%20".into(),
        "fron".into(),
        "front/track1/../../front2".into(),
        "front;front2".into(),
        "rtsp://127.0.0.1/front2".into(),
        "Streaming/tracks/../tracks/201".into(),
    ] {
        let uri = daemon.rtsp(&path);
        let mut nobody = Rtsp::connect(daemon.rtsp_port);
        let reply = nobody.ask("DESCRIBE", &uri, "");
        assert!([400, 401, 404].contains(&reply.status), "{path}: {}", reply.status);
        if reply.status == 401 {
            let reply = Rtsp::connect(daemon.rtsp_port).ask_as(ANNA, "DESCRIBE", &uri, "");
            assert!([400, 403, 404].contains(&reply.status), "{path}: {}", reply.status);
            assert!(
                !reply.body.contains("root:") && !reply.body.contains("m=video"),
                "{path}"
            );
        }
    }
    // Who may see `front` may see neither what its name begins with nor what begins with its name.
    for (path, status) in [("front", 200), ("front2", 403), ("fron", 403)] {
        let reply = Rtsp::connect(daemon.rtsp_port).ask_as(ANNA, "DESCRIBE", &daemon.rtsp(path), "");
        assert_eq!(reply.status, status, "{path}");
    }
    daemon.stop();
}

/// VU#460350, CVE-2018-4013: headers and bodies without end.
#[test]
fn what_is_too_large_is_refused_and_costs_nobody_else() {
    let (_sim, mut daemon) = recorder();
    let rss = |d: &Daemon| {
        let text = std::fs::read_to_string(format!("/proc/{}/status", d.pid())).unwrap();
        let line = text.lines().find(|l| l.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = rss(&daemon);
    let uri = daemon.rtsp("front");
    let head = format!("DESCRIBE {uri} RTSP/1.0\r\nCSeq: 1\r\n");
    let megabytes = "x".repeat(4 << 20);
    let many = "X-Many: y\r\n".repeat(100_000);
    let attacks = [
        format!("{head}X: {megabytes}\r\n\r\n"),
        format!("{head}{many}\r\n"),
        format!("DESCRIBE rtsp://h/{megabytes} RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
        megabytes.clone(),
        format!("{head}Content-Length: 99999999999999999999\r\n\r\n"),
        format!("{head}Content-Length: 4294967295\r\n\r\n{megabytes}"),
        format!("{head}Content-Length: -1\r\n\r\n"),
        format!("{head}Accept: {}\r\n\r\n", ",".repeat(1 << 20)),
        format!("{head}Authorization: Digest {}\r\n\r\n", "a=\"b\",".repeat(1 << 18)),
    ];
    for attack in &attacks {
        for _ in 0..8 {
            let mut connection = Rtsp::connect(daemon.rtsp_port);
            connection.raw(attack.as_bytes());
            // Refused, or closed while it still sends.
            if let Some(reply) = connection.reply() {
                assert!(
                    (400..=505).contains(&reply.status),
                    "{} for {:.60}",
                    reply.status,
                    attack
                );
            }
        }
        still_serves(&daemon);
    }
    let after = rss(&daemon);
    assert!(after < before + (64 << 10), "{before} KiB before, {after} KiB after");
    daemon.stop();
}

/// mediamtx#2784: one peer takes all sessions and connections there are.
#[test]
fn one_peer_does_not_take_everything() {
    let (_sim, mut daemon) = recorder();
    let uri = daemon.rtsp("front");
    // Sessions of one connection are few.
    let mut greedy = Rtsp::connect(daemon.rtsp_port);
    let challenge = greedy.challenge("DESCRIBE", &uri);
    let mut opened = 0;
    let mut refused = None;
    for n in 0..64u32 {
        let login = challenge.answer(ANNA.0, ANNA.1, "SETUP", &uri, n + 1);
        let channel = 2 * n;
        let transport = format!(
            "Transport: RTP/AVP/TCP;unicast;interleaved={channel}-{}\r\n",
            channel + 1
        );
        let reply = greedy.ask("SETUP", &format!("{uri}/track1"), &format!("{login}{transport}"));
        if reply.status != 200 {
            refused = Some(reply.status);
            break;
        }
        opened += 1;
    }
    assert!(opened <= 16 && refused == Some(453), "{opened} {refused:?}");
    // Connections of one address are limited; another address is served all the same.
    let greedy_address: IpAddr = [127, 0, 3, 1].into();
    let held: Vec<_> = (0..1500)
        .map(|_| Rtsp::connect_from(greedy_address, daemon.rtsp_port))
        .collect();
    still_serves(&daemon);
    let mut one_more = Rtsp::connect_from(greedy_address, daemon.rtsp_port);
    assert!(one_more.try_ask("OPTIONS", &uri, "").is_none(), "closed at once");
    drop(held);
    wait_for("the address is served again", SOON, || {
        let mut again = Rtsp::connect_from(greedy_address, daemon.rtsp_port);
        again.try_ask("OPTIONS", &uri, "").filter(|r| r.status == 200)
    });
    // Requests without end on one connection: their answers are bounded, and the connection is closed or served, never both nor neither.
    let mut flood = Rtsp::connect(daemon.rtsp_port);
    let request = format!("OPTIONS {uri} RTSP/1.0\r\nCSeq: 1\r\n\r\n").repeat(20_000);
    flood.raw(request.as_bytes());
    still_serves(&daemon);
    daemon.stop();
}
