//! What has been done to recorders over HTTP in the field, done to this one. Each test is a kind of attack; none may get further than
//! a refusal, and the recorder records on.
#![allow(clippy::unwrap_used, clippy::too_many_lines)]

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use corenvr_tests::{
    daemon::{Camera, Daemon},
    http::{Http, PASSWORD, Reply, account},
    process::wait_for,
    sim::Sim,
};
use serde_json::json;

const CAMERAS: &str = "/api/v1/cameras";
/// Routes that give footage or tell of it.
const MEDIA: [&str; 6] = ["clip.mkv", "clip.mp4", "play.mp4", "timeline", "segments", "events"];

/// A recorder in which nobody may do anything without a login.
fn closed(cameras: &[Camera]) -> Daemon {
    let mut daemon = Daemon::new("", cameras);
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    let text = text.replace("anonymous = [\"live\", \"playback\"]", "anonymous = []");
    std::fs::write(daemon.config(), text).unwrap();
    daemon.start();
    daemon
}

/// What the daemon has in memory, in MiB.
fn memory_mib(daemon: &Daemon) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// A request written by hand.
fn raw(daemon: &Daemon, request: &str) -> Option<Reply> {
    Reply::parse(&Http::to_port(daemon.http_port).raw(request.as_bytes()))
}

fn still_well(daemon: &Daemon) {
    assert_eq!(Http::to_port(daemon.http_port).get("/healthz").status, 200);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

#[test]
fn huge_heads_and_bodies_cost_nothing() {
    let daemon = closed(&[]);
    let admin = account(&daemon, "boss", "admin", &json!([]));
    let before = memory_mib(&daemon);
    let port = Http::to_port(daemon.http_port);
    for _ in 0..8 {
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(8 << 20));
        let answer = port.raw(head.as_bytes());
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"));
        let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(8 << 20));
        let answer = port.raw(path.as_bytes());
        assert!(!answer.starts_with(b"HTTP/1.1 2"));
    }
    // A length that is only claimed is refused before a byte of it is read.
    let claimed = admin
        .with("content-length", "10000000000")
        .with("content-type", "application/json")
        .send("POST", CAMERAS, None);
    assert_eq!(claimed.status, 413, "{}", claimed.text());
    let large = admin.send(
        "POST",
        CAMERAS,
        Some(&json!({ "name": "x".repeat(1 << 20), "url": "" })),
    );
    assert_eq!(large.status, 413);
    let deep = admin.send_text("POST", CAMERAS, Some("[".repeat(100_000)));
    assert_eq!(deep.status, 400);
    let after = memory_mib(&daemon);
    assert!(after < before + 64, "{before} MiB became {after} MiB");
    still_well(&daemon);
}

#[test]
fn no_path_leads_out_of_what_there_is() {
    let sim = Sim::start(1);
    let daemon = closed(&[Camera::new("door", &sim.url(1), "tcp")]);
    let admin = account(&daemon, "boss", "admin", &json!([]));
    let ups = [
        "../",
        "..%2f",
        "%2e%2e/",
        "%2e%2e%2f",
        "..\\",
        "..%5c",
        "..%252f",
        "..;/",
        "%c0%ae%c0%ae/",
        "....//",
    ];
    for up in ups {
        let way = up.repeat(8);
        for path in [
            format!("/{way}etc/passwd"),
            format!("/console.js/{way}etc/passwd"),
            format!("/api/v1/cameras/{way}etc/passwd"),
            format!("/api/v1/cameras/{way}etc/passwd/segments"),
            format!("/api/v1/cameras/door/{way}etc/passwd"),
            format!("/api/v1/cameras/door{way}/clip.mkv?start=2026-01-01T00:00:00Z&end=2026-01-01T00:01:00Z"),
        ] {
            let reply = admin.get(&path);
            assert!([400, 404].contains(&reply.status), "{path}: {}", reply.status);
            assert!(!reply.text().contains("root:"), "{path}");
        }
    }
    // A directory whose name only begins like one of ours is not one of ours.
    let beside = format!("{}-beside", daemon.path("rec").display());
    for storage in [beside.as_str(), "/", "/etc", "../rec", "rec"] {
        let camera = json!({ "name": "yard", "url": sim.url(1), "storage": storage });
        let reply = admin.send("POST", "/api/v1/cameras?probe=0", Some(&camera));
        assert_eq!(reply.status, 400, "{storage}: {}", reply.text());
    }
    assert!(!std::path::Path::new(&beside).exists());
    for name in [
        "../../etc",
        "..",
        ".",
        "a/b",
        "a\\b",
        "a\0b",
        "",
        "A",
        "%2e%2e",
        &"x".repeat(65),
    ] {
        let camera = json!({ "name": name, "url": sim.url(1) });
        let reply = admin.send("POST", "/api/v1/cameras?probe=0", Some(&camera));
        assert_eq!(reply.status, 400, "{name:?}: {}", reply.text());
    }
    still_well(&daemon);
}

#[test]
fn no_two_recorders_have_the_same_secret_and_none_is_to_be_guessed() {
    let (one, other) = (closed(&[]), closed(&[]));
    let secret = |daemon: &Daemon| {
        let path = daemon.path("state/admin-password");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::read_to_string(path).unwrap()
    };
    assert_ne!(secret(&one), secret(&other));
    assert!(secret(&one).trim().len() >= 16);
    assert!(
        !one.log().contains(secret(&one).trim()),
        "the log says where it is, not what"
    );
    let nobody = Http::to_port(one.http_port);
    for (name, password) in [
        ("admin", "admin"),
        ("admin", ""),
        ("admin", "12345"),
        ("admin", "corenvr"),
        ("root", "root"),
        ("admin\u{0}", "admin"),
        ("' or 1=1 --", "x"),
    ] {
        let login = json!({ "name": name, "password": password });
        let reply = nobody.send("POST", "/api/v1/session", Some(&login));
        assert!(
            [401, 429].contains(&reply.status),
            "{name}: {} {}",
            reply.status,
            reply.text()
        );
        assert_eq!(reply.header("set-cookie"), None);
    }
    for token in [
        "",
        "null",
        "undefined",
        "admin",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
    ] {
        let reply = nobody.token(token).get(CAMERAS);
        assert!([401, 429].contains(&reply.status), "{token}: {}", reply.status);
    }
}

#[test]
fn no_header_spelling_or_method_gets_past_the_gate() {
    let daemon = closed(&[]);
    let nobody = Http::to_port(daemon.http_port);
    let forged = [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1;proto=https"),
        ("x-original-url", "/healthz"),
        ("x-rewrite-url", "/healthz"),
        ("x-forwarded-user", "admin"),
        ("x-remote-user", "admin"),
        ("remote-user", "admin"),
        ("host", "localhost"),
        ("cookie", "corenvr_session=admin"),
        ("cookie", "corenvr_session="),
        ("authorization", "Basic YWRtaW46YWRtaW4="),
        ("authorization", "Digest username=\"admin\""),
        ("referer", "http://127.0.0.1/"),
        ("x-http-method-override", "GET"),
    ];
    for (name, value) in forged {
        for path in [CAMERAS, "/api/v1/status", "/api/v1/users", "/metrics", "/api/v1/audit"] {
            let reply = nobody.with(name, value).get(path);
            assert_eq!(reply.status, 401, "{name}: {value} {path}");
        }
    }
    for path in [
        "/API/v1/cameras",
        "//api/v1/cameras",
        "/api/v1//cameras",
        "/api/v1/cameras/",
        "/api/v1/cameras.",
        "/api/v1/cameras.json",
        "/api/v1/cameras;a=b",
        "/api/v1/cameras%20",
        "/api/v1/%63ameras",
        "/api/v1/cameras%2f",
        "/./api/v1/cameras",
        "/healthz/../api/v1/cameras",
        "/healthz/..;/api/v1/cameras",
        "/healthz/%2e%2e/api/v1/cameras",
        "/console.js/../api/v1/users",
    ] {
        let reply = nobody.get(path);
        assert!([400, 401, 404].contains(&reply.status), "{path}: {}", reply.status);
    }
    // The address that a request is for, in its long form, changes nothing; nor does a second one behind the first.
    for line in [
        "GET http://127.0.0.1/api/v1/cameras HTTP/1.1",
        "GET http://admin@localhost/api/v1/cameras HTTP/1.1",
        "GET /api/v1/cameras#/healthz HTTP/1.1",
        "GET /api/v1/cameras?/healthz HTTP/1.1",
    ] {
        let reply = raw(
            &daemon,
            &format!("{line}\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
        );
        assert!(reply.is_none_or(|r| [400, 401, 404].contains(&r.status)), "{line}");
    }
    let smuggled = "GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 40\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /api/v1/cameras HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = Http::to_port(daemon.http_port).raw(smuggled.as_bytes());
    assert!(!String::from_utf8_lossy(&answer).contains("\"cameras\""));
    let camera = json!({ "name": "door", "url": "rtsp://127.0.0.1:9/x" });
    for method in [
        "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "PROPFIND", "post", "GETX",
    ] {
        let reply =
            nobody
                .with("x-http-method-override", "GET")
                .send(method, "/api/v1/cameras?_method=GET", Some(&camera));
        assert!([400, 401, 405].contains(&reply.status), "{method}: {}", reply.status);
    }
    still_well(&daemon);
}

#[test]
fn no_footage_without_the_right_to_it() {
    let sim = Sim::start(2);
    let daemon = closed(&[
        Camera::new("door", &sim.url(1), "tcp"),
        Camera::new("yard", &sim.url(2), "tcp"),
    ]);
    daemon.wait_sealed("yard", 1, Duration::from_secs(60));
    let nobody = Http::to_port(daemon.http_port);
    let viewer = account(&daemon, "vera", "viewer", &json!([]));
    let guest = account(
        &daemon,
        "gus",
        "operator",
        &json!([{ "cameras": ["door"], "allow": ["live", "export"] }]),
    );
    let operator = account(&daemon, "olga", "operator", &json!([]));
    let first = operator.json("/api/v1/cameras/yard/segments")["segments"][0].clone();
    let times = format!(
        "?start={}&end={}",
        first["start"].as_str().unwrap(),
        first["end"].as_str().unwrap()
    );
    for route in MEDIA {
        let path = format!("/api/v1/cameras/yard/{route}{times}");
        for http in [
            &nobody,
            &nobody.with("range", "bytes=0-10"),
            &nobody.with("host", "localhost"),
        ] {
            for method in ["GET", "HEAD"] {
                assert_eq!(http.send(method, &path, None).status, 401, "{method} {path}");
            }
        }
        let export = route.starts_with("clip");
        assert_eq!(viewer.get(&path).status, if export { 403 } else { 200 }, "{path}");
        assert_eq!(operator.get(&path).status, 200, "{path}");
        assert_eq!(guest.get(&path).status, 404, "{path}");
        // Of the camera that the guest may see, only what was granted.
        let own = guest.get(&format!("/api/v1/cameras/door/{route}{times}")).status;
        assert!(
            if export { own != 403 && own != 401 } else { own == 403 },
            "{route}: {own}"
        );
    }
    let clip = operator.get(&format!("/api/v1/cameras/yard/clip.mkv{times}"));
    assert!(clip.body.starts_with(&[0x1A, 0x45, 0xDF, 0xA3]), "this is footage");
    still_well(&daemon);
}

#[test]
fn settings_are_data_and_never_commands() {
    let mut daemon = closed(&[]);
    let admin = account(&daemon, "boss", "admin", &json!([]));
    let mark = daemon.path("pwned");
    let touch = format!("touch {}", mark.display());
    let added = "/api/v1/cameras?probe=0";
    for name in [
        "x;reboot",
        "$(reboot)",
        "`reboot`",
        "x|y",
        "-rf",
        "x y",
        "x\ny",
        "x'\"",
        "--config",
    ] {
        let camera = json!({ "name": name, "url": "rtsp://127.0.0.1:9/x" });
        assert_eq!(admin.send("POST", added, Some(&camera)).status, 400, "{name}");
    }
    let hostile = [
        format!("rtsp://127.0.0.1:9/$({touch})"),
        format!("rtsp://127.0.0.1:9/`{touch}`;{touch}|{touch}&&{touch}"),
        format!("rtsp://127.0.0.1:9/x\"\n[[camera]]\nname = \"evil\"\nurl = \"rtsp://127.0.0.1:9/{touch}"),
        "rtsp://127.0.0.1:9/x -f exec -i /etc/passwd".to_owned(),
        "exec:/bin/sh".to_owned(),
        "file:///etc/passwd".to_owned(),
        "-i".to_owned(),
    ];
    let mut kept = 0;
    for (i, url) in hostile.iter().enumerate() {
        let camera = json!({ "name": format!("cam{i}"), "url": url });
        let reply = admin.send("POST", added, Some(&camera));
        assert!([201, 400].contains(&reply.status), "{url}: {}", reply.text());
        kept += usize::from(reply.status == 201);
        let probed = admin.send("POST", "/api/v1/probe", Some(&json!({ "url": url })));
        assert!([400, 422].contains(&probed.status), "{url}: {}", probed.text());
    }
    // What was kept is read back as what it is, and nothing has become a camera of its own.
    daemon.stop();
    daemon.start();
    let cameras = admin.json(CAMERAS);
    assert_eq!(cameras["cameras"].as_array().unwrap().len(), kept, "{cameras}");
    assert!(!cameras.to_string().contains("\"evil\""));
    assert!(!mark.exists());
}

#[test]
fn pages_of_other_sites_change_nothing_and_read_nothing() {
    let daemon = closed(&[]);
    drop(account(&daemon, "boss", "admin", &json!([])));
    let browser = Http::to_port(daemon.http_port).with("host", "nvr");
    let login = json!({ "name": "boss", "password": PASSWORD });
    let session = browser
        .with("origin", "http://nvr")
        .send("POST", "/api/v1/session", Some(&login));
    assert_eq!(session.status, 200, "{}", session.text());
    let cookie = session
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let with = browser.with("cookie", &cookie);
    let camera = json!({ "name": "door", "url": "rtsp://127.0.0.1:9/x" });
    for origin in [
        "http://evil",
        "http://nvr.evil",
        "http://evil/nvr",
        "https://nvr",
        "http://nvr:80",
        "null",
        "",
    ] {
        let evil = with.with("origin", origin);
        for (method, path) in [
            ("POST", "/api/v1/cameras?probe=0"),
            ("DELETE", "/api/v1/users/admin"),
            ("POST", "/api/v1/users/boss/tokens"),
            ("DELETE", "/api/v1/session"),
        ] {
            let reply = evil.send(method, path, Some(&camera));
            assert_eq!(reply.status, 403, "{origin} {method} {path}: {}", reply.text());
        }
        let read = evil.get(CAMERAS);
        assert_eq!(read.header("access-control-allow-origin"), None);
        assert_eq!(read.header("access-control-allow-credentials"), None);
        assert_eq!(read.header("cross-origin-resource-policy"), Some("same-origin"));
    }
    // What a form of another site can send without asking first is not taken.
    let form = with.with("origin", "http://nvr").with("content-type", "text/plain");
    assert_eq!(form.send("POST", "/api/v1/cameras?probe=0", Some(&camera)).status, 415);
    let preflight = with
        .with("origin", "http://evil")
        .with("access-control-request-method", "POST")
        .send("OPTIONS", CAMERAS, None);
    assert_eq!(
        (preflight.status, preflight.header("access-control-allow-origin")),
        (405, None)
    );
    let socket = with
        .with("upgrade", "websocket")
        .with("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .get(CAMERAS);
    assert_eq!(socket.status, 200, "the upgrade is not taken up");
    assert_eq!(with.json(CAMERAS)["cameras"].as_array().unwrap().len(), 0);
}

#[test]
fn no_answer_and_no_log_holds_a_password() {
    let daemon = closed(&[]);
    let admin = account(&daemon, "boss", "admin", &json!([]));
    let secrets = ["hunter2secret", "tokensecret77", "newsecret999"];
    let url = format!("rtsp://admin:{}@127.0.0.1:9/ch1?password={}", secrets[0], secrets[1]);
    let camera = json!({ "name": "door", "url": url, "transport": "tcp" });
    let change = json!({ "url": format!("rtsp://admin:{}@127.0.0.1:9/ch2", secrets[2]) });
    let wrong = json!({ "name": "boss", "password": secrets[0] });
    let replies = [
        admin.send("POST", CAMERAS, Some(&camera)),
        admin.send("POST", "/api/v1/probe", Some(&json!({ "url": url }))),
        admin.send("POST", "/api/v1/cameras?probe=0", Some(&camera)),
        admin.get(CAMERAS),
        admin.get("/api/v1/cameras/door"),
        admin.send(
            "PATCH",
            "/api/v1/cameras/door",
            Some(&json!({ "url": format!("bad://x:{}@y", secrets[1]) })),
        ),
        admin.send("PATCH", "/api/v1/cameras/door", Some(&change)),
        admin.get("/api/v1/status"),
        admin.get("/metrics"),
        Http::to_port(daemon.http_port).send("POST", "/api/v1/session", Some(&wrong)),
        admin.get(&format!("/api/v1/cameras/{}", secrets[1])),
        admin.get("/api/v1/users"),
    ];
    std::thread::sleep(Duration::from_secs(2));
    let audit = admin.get("/api/v1/audit");
    assert_eq!(audit.status, 200);
    let mut texts: Vec<String> = replies.iter().map(Reply::text).collect();
    texts.extend([audit.text(), daemon.log(), daemon.cli(&["camera", "list"])]);
    for secret in secrets.iter().chain(&[PASSWORD]) {
        for text in &texts {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
    let file = daemon.path("state/cameras.toml");
    assert_eq!(
        std::fs::metadata(file).unwrap().permissions().mode() & 0o077,
        0,
        "others cannot read it"
    );
}

#[test]
fn one_peer_exhausts_nothing() {
    let sim = Sim::start(1);
    let daemon = closed(&[Camera::new("door", &sim.url(1), "tcp")]);
    let admin = Http::local(&daemon);
    let before = memory_mib(&daemon);
    let begun = Instant::now();
    let mut held = Vec::new();
    // Half a head each, and as many as it takes: more than its share are closed at once, and the rest within seconds.
    for i in 0..300 {
        let mut stream = TcpStream::connect(("127.0.0.1", daemon.http_port)).unwrap();
        let _ =
            stream.write_all(format!("POST {CAMERAS} HTTP/1.1\r\nhost: x\r\nx-{i}: {}", "y".repeat(8000)).as_bytes());
        held.push(stream);
    }
    assert_eq!(admin.get("/healthz").status, 200, "others are served meanwhile");
    let after = memory_mib(&daemon);
    assert!(after < before + 64, "{before} MiB became {after} MiB");
    for stream in &mut held {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        let open = matches!(&ended, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!open, "a peer that sends half a request is closed");
    }
    assert!(begun.elapsed() < Duration::from_secs(40));
    let end = admin.json("/api/v1/cameras/door/timeline")["spans"][0]["end"].to_string();
    wait_for("footage goes on", Duration::from_secs(30), || {
        let now = admin.json("/api/v1/cameras/door/timeline")["spans"][0]["end"].to_string();
        (now != end).then_some(())
    });
    still_well(&daemon);
}

#[test]
fn a_body_that_drips_is_given_up() {
    let daemon = closed(&[]);
    drop(account(&daemon, "boss", "admin", &json!([])));
    let mut stream = TcpStream::connect(("127.0.0.1", daemon.http_port)).unwrap();
    let head =
        "POST /api/v1/session HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let begun = Instant::now();
    let mut answer = Vec::new();
    let mut room = [0; 4096];
    while begun.elapsed() < Duration::from_secs(60) {
        let _ = stream.write_all(b" ");
        match stream.read(&mut room) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&room[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    assert!(
        begun.elapsed() < Duration::from_secs(45),
        "a request has to come at once"
    );
    assert!(
        answer.starts_with(b"HTTP/1.1 408"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    still_well(&daemon);
}
