//! The HTTP API as programs and browsers use it: over real sockets, each answer held against the description that the recorder serves.
#![allow(clippy::unwrap_used, clippy::too_many_lines, clippy::type_complexity)]

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use corenvr_tests::{
    daemon::{Camera, Daemon},
    http::{Description, Http, PASSWORD, account},
    process::wait_for,
    sim::Sim,
};
use serde_json::{Value, json};

const CAMERAS: &str = "/api/v1/cameras";
const CAMERA: &str = "/api/v1/cameras/{name}";
const TIMELINE: &str = "/api/v1/cameras/{name}/timeline";
const SEGMENTS: &str = "/api/v1/cameras/{name}/segments";

/// A recorder in which nobody may do anything without a login.
fn closed(cameras: &[Camera]) -> Daemon {
    let mut daemon = Daemon::new("", cameras);
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    let text = text.replace("anonymous = [\"live\", \"playback\"]", "anonymous = []");
    std::fs::write(daemon.config(), text).unwrap();
    daemon.start();
    daemon
}

fn recorded(http: &Http, camera: &str) {
    wait_for("the camera is recorded", Duration::from_secs(60), || {
        let timeline = http.json(&format!("/api/v1/cameras/{camera}/timeline"));
        (!timeline["spans"].as_array()?.is_empty()).then_some(())
    });
}

#[test]
fn a_camera_is_tried_added_changed_and_removed() {
    let sim = Sim::start(1);
    let daemon = closed(&[]);
    let admin = account(&daemon, "boss", "admin", &json!([]));
    let api = Description::of(&admin);
    let send = |method: &str, at: (&str, &str), body: &Value| api.send(&admin, method, at, Some(body));
    let one = (CAMERA, "/api/v1/cameras/door");

    let nowhere = json!({ "name": "door", "url": "rtsp://u:hunter2@127.0.0.1:9/none", "transport": "tcp" });
    let failed = send("POST", (CAMERAS, CAMERAS), &nowhere);
    assert_eq!(failed.status, 422, "{}", failed.text());
    assert!(
        !failed.text().contains("hunter2") && failed.text().contains("probe=0"),
        "{}",
        failed.text()
    );
    assert_eq!(api.send(&admin, "GET", one, None).status, 404);

    let camera = json!({ "name": "door", "url": sim.url(1), "transport": "tcp" });
    let probed = send(
        "POST",
        ("/api/v1/probe", "/api/v1/probe"),
        &json!({ "url": sim.url(1) }),
    );
    assert_eq!(probed.status, 200, "{}", probed.text());
    let added = send("POST", (CAMERAS, CAMERAS), &camera);
    assert_eq!(added.status, 201, "{}", added.text());
    let video = added.json()["probe"]["streams"][0].clone();
    assert_eq!(
        (video["codec"].as_str(), video["width"].as_u64()),
        (Some("H264"), Some(640))
    );
    assert_eq!(send("POST", (CAMERAS, CAMERAS), &camera).status, 409);
    recorded(&admin, "door");

    let off = send("PATCH", one, &json!({ "mode": "off", "retain": "5d" }));
    assert_eq!(
        (off.json()["mode"].as_str(), off.json()["retain"].as_str()),
        (Some("off"), Some("5d"))
    );
    let back = send("PATCH", one, &json!({ "mode": null, "retain": null }));
    assert_eq!(
        (back.json()["mode"].as_str(), back.json().get("retain")),
        (Some("continuous"), None)
    );
    assert_eq!(send("PATCH", one, &json!({ "name": "gate" })).status, 400);
    assert_eq!(send("PATCH", one, &json!({ "colour": "red" })).status, 400);
    assert_eq!(send("PATCH", one, &json!([1])).status, 400);

    let removed = api.send(&admin, "DELETE", (CAMERA, "/api/v1/cameras/door?purge=1"), None);
    assert_eq!(removed.status, 200, "{}", removed.text());
    assert!(removed.json()["segments"].as_u64() > Some(0), "{}", removed.text());
    assert_eq!(api.send(&admin, "GET", one, None).status, 404);

    // What changed is in the audit log, with who did it.
    let log = admin.json("/api/v1/audit").to_string();
    for action in ["camera-add", "camera-change", "camera-remove"] {
        assert!(log.contains(action), "{action} is not in {log}");
    }
    assert!(log.contains("boss") && !log.contains("hunter2") && !daemon.log().contains("hunter2"));
}

#[test]
fn a_gap_has_its_cause_and_pages_make_up_the_whole() {
    let sim = Sim::start(2);
    let cameras = [
        Camera::new("door", &sim.url(1), "tcp"),
        Camera::new("yard", &sim.url(2), "tcp"),
    ];
    let daemon = closed(&cameras[..1]);
    let admin = account(&daemon, "boss", "admin", &json!([]));
    let api = Description::of(&admin);
    let yard = json!({ "name": "yard", "url": cameras[1].url, "transport": "tcp" });
    assert_eq!(admin.send("POST", CAMERAS, Some(&yard)).status, 201);
    recorded(&admin, "yard");
    let mode = |mode: &str| {
        let changed = admin.send("PATCH", "/api/v1/cameras/yard", Some(&json!({ "mode": mode })));
        assert_eq!(changed.status, 200, "{}", changed.text());
    };
    mode("off");
    std::thread::sleep(Duration::from_secs(3));
    mode("continuous");
    let timeline = wait_for("a gap", Duration::from_secs(30), || {
        let reply = api.send(&admin, "GET", (TIMELINE, "/api/v1/cameras/yard/timeline"), None);
        (reply.json()["spans"].as_array()?.len() > 1).then(|| reply.json())
    });
    assert_eq!(timeline["gaps"][0]["cause"], "operator", "{timeline}");
    assert_eq!(timeline["gaps"][0]["start"], timeline["spans"][0]["end"], "{timeline}");
    assert_eq!(timeline["gaps"][0]["end"], timeline["spans"][1]["start"], "{timeline}");

    daemon.wait_sealed("door", 3, Duration::from_secs(60));
    // Ends before the file that still grows, so that the pages are of one and the same list.
    let to = admin.json("/api/v1/cameras/door/segments")["segments"][2]["start"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/api/v1/cameras/door/segments?to={to}");
    let whole = api.send(&admin, "GET", (SEGMENTS, &path), None).json();
    let whole = whole["segments"].as_array().unwrap();
    assert!(whole.len() >= 2, "{whole:?}");
    let file = std::path::Path::new(whole[0]["path"].as_str().unwrap());
    assert!(file.exists(), "{}", file.display());
    let pages = pages(&api, &admin, SEGMENTS, &format!("{path}&limit=1"), "segments");
    assert_eq!(&pages, whole);

    let all = admin.json(CAMERAS)["cameras"].as_array().unwrap().len();
    let names: Vec<_> = self::pages(&api, &admin, CAMERAS, "/api/v1/cameras?limit=1", "cameras")
        .iter()
        .map(|c| c["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((names, all), (vec!["door".to_owned(), "yard".to_owned()], 2));
    for wrong in ["limit=0", "limit=1001", "limit=many", "cursor=..", "cursor=%00"] {
        let reply = api.send(&admin, "GET", (CAMERAS, &format!("{CAMERAS}?{wrong}")), None);
        assert_eq!(reply.status, 400, "{wrong}");
    }
}

/// The entries of all pages.
fn pages(api: &Description, http: &Http, pattern: &str, path: &str, key: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    for _ in 0..100 {
        let page = api
            .send(http, "GET", (pattern, &format!("{path}{cursor}")), None)
            .json();
        all.extend(page[key].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
    panic!("pages without end");
}

#[test]
fn everybody_gets_what_is_theirs_and_no_more() {
    let sim = Sim::start(2);
    let daemon = closed(&[
        Camera::new("door", &sim.url(1), "tcp"),
        Camera::new("yard", &sim.url(2), "tcp"),
    ]);
    let admin = account(&daemon, "boss", "admin", &json!([]));
    let operator = account(&daemon, "olga", "operator", &json!([]));
    let viewer = account(&daemon, "vera", "viewer", &json!([]));
    let guest = account(
        &daemon,
        "gus",
        "viewer",
        &json!([{ "cameras": ["door"], "allow": ["playback"] }]),
    );
    let nobody = Http::to_port(daemon.http_port);
    let api = Description::of(&nobody);
    recorded(&admin, "yard");
    let stop = json!({ "action": "stop" });
    let mode = json!({ "mode": "off" });
    let url = json!({ "url": sim.url(1) });
    #[rustfmt::skip]
    let table: [(&str, (&str, &str), Option<&Value>, [u16; 5]); 10] = [
        ("GET", ("/healthz", "/healthz"), None, [200, 200, 200, 200, 200]),
        ("GET", (CAMERAS, CAMERAS), None, [401, 200, 200, 200, 200]),
        ("GET", ("/api/v1/status", "/api/v1/status"), None, [401, 200, 200, 200, 200]),
        ("GET", ("/metrics", "/metrics"), None, [401, 403, 403, 200, 200]),
        ("GET", (TIMELINE, "/api/v1/cameras/yard/timeline"), None, [401, 404, 200, 200, 200]),
        ("POST", ("/api/v1/cameras/{name}/ptz", "/api/v1/cameras/yard/ptz"), Some(&stop), [401, 404, 403, 400, 400]),
        ("PATCH", (CAMERA, "/api/v1/cameras/yard"), Some(&mode), [401, 404, 403, 403, 409]),
        ("POST", ("/api/v1/probe", "/api/v1/probe"), Some(&url), [401, 403, 403, 403, 200]),
        ("GET", ("/api/v1/gb28181/setup", "/api/v1/gb28181/setup"), None, [401, 403, 403, 403, 409]),
        ("GET", ("/api/v1/users", "/api/v1/users"), None, [401, 403, 403, 403, 200]),
    ];
    for (method, at, body, expected) in table {
        let got = [&nobody, &guest, &viewer, &operator, &admin].map(|http| api.send(http, method, at, body).status);
        assert_eq!(got, expected, "{method} {}", at.1);
    }
    // A camera that may not be seen is told like one that is not there, to the byte.
    for rest in ["", "/timeline", "/segments", "/events"] {
        let of = |camera: &str| guest.get(&format!("/api/v1/cameras/{camera}{rest}"));
        let (hidden, none) = (of("yard"), of("no-such-camera"));
        assert_eq!((hidden.status, hidden.text()), (404, none.text()));
        assert_eq!(hidden.headers.len(), none.headers.len());
    }
    let names = |http: &Http| http.json(CAMERAS)["cameras"].as_array().unwrap().len();
    assert_eq!((names(&guest), names(&viewer)), (1, 2));
    let status = guest.json("/api/v1/status").to_string();
    assert!(!status.contains("yard") && status.contains("door"), "{status}");
    // Where files lie is told to administrators only.
    let of = |http: &Http| http.get("/api/v1/cameras/door/segments").text();
    let place = daemon.path("rec").display().to_string();
    assert!(of(&admin).contains(&place) && !of(&viewer).contains(&place));
    assert!(!viewer.get("/api/v1/status").text().contains(&place));
}

#[test]
fn what_fails_says_so_in_a_problem_document() {
    let daemon = closed(&[]);
    let admin = account(&daemon, "boss", "admin", &json!([]));
    let nobody = Http::to_port(daemon.http_port);
    let large = json!({ "name": "x", "url": "y".repeat(300 << 10) });
    let form = admin.with("content-type", "application/x-www-form-urlencoded");
    let many = (0..80).fold(admin.clone(), |http, i| http.with(&format!("x-{i}"), "y"));
    let long = format!("{CAMERAS}?cursor={}", "y".repeat(5000));
    let wide = admin.with("x-wide", &"y".repeat(20 << 10));
    let body = json!({ "name": "x" });
    let replies = [
        (400, admin.send("POST", CAMERAS, Some(&body))),
        (401, nobody.get(CAMERAS)),
        (401, nobody.token("wrong").get(CAMERAS)),
        (404, nobody.get("/nothing")),
        (404, admin.get("/api/v1/cameras/none")),
        (405, admin.send("PUT", CAMERAS, Some(&body))),
        (413, admin.send("POST", CAMERAS, Some(&large))),
        (414, admin.get(&long)),
        (415, form.send("POST", CAMERAS, Some(&body))),
        (431, many.get(CAMERAS)),
        (431, wide.get(CAMERAS)),
    ];
    for (status, reply) in replies {
        assert_eq!(reply.status, status, "{}", reply.text());
        assert_eq!(
            reply.header("content-type"),
            Some("application/problem+json"),
            "{status}"
        );
        let problem = reply.json();
        assert_eq!(problem["status"], status);
        assert!(
            ["type", "title", "detail", "remedy"]
                .iter()
                .all(|key| problem[key].is_string()),
            "{problem}"
        );
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{status}");
        }
        assert!(
            reply
                .header("content-security-policy")
                .unwrap()
                .contains("frame-ancestors 'none'")
        );
        match status {
            401 => assert!(reply.header("www-authenticate").unwrap().starts_with("Bearer")),
            405 => assert!(reply.header("allow").unwrap().contains("POST")),
            _ => {}
        }
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
    let head = admin.send("HEAD", CAMERAS, None);
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn a_browser_logs_in_and_other_sites_cannot_use_that() {
    let daemon = closed(&[]);
    drop(account(&daemon, "boss", "admin", &json!([])));
    let browser = Http::to_port(daemon.http_port).with("host", "nvr.local");
    let own = browser.with("origin", "http://nvr.local");
    let api = Description::of(&browser);
    let session = ("/api/v1/session", "/api/v1/session");
    let wrong = json!({ "name": "boss", "password": "wrong" });
    assert_eq!(api.send(&own, "POST", session, Some(&wrong)).status, 401);
    let right = json!({ "name": "boss", "password": PASSWORD });
    let evil = browser.with("origin", "http://evil.example");
    assert_eq!(
        api.send(&evil, "POST", session, Some(&right)).status,
        403,
        "another site logs nobody in"
    );
    let login = api.send(&own, "POST", session, Some(&right));
    assert!((200..300).contains(&login.status), "{}", login.text());
    let set = login.header("set-cookie").unwrap().to_owned();
    assert!(
        set.contains("HttpOnly") && set.contains("SameSite=Strict") && set.contains("Path=/"),
        "{set}"
    );
    assert!(!login.text().contains(PASSWORD));
    let cookie = set.split(';').next().unwrap();
    assert!(cookie.starts_with("corenvr_session="), "{cookie}");

    let with = |http: &Http| http.with("cookie", cookie);
    assert_eq!(with(&browser).get(CAMERAS).status, 200);
    let camera = json!({ "name": "door", "url": "rtsp://127.0.0.1:9/x" });
    let add = |http: &Http| {
        let reply = with(http).send("POST", "/api/v1/cameras?probe=0", Some(&camera));
        api.check("POST", CAMERAS, &reply);
        reply.status
    };
    assert_eq!(add(&browser), 403, "a browser says where it comes from");
    assert_eq!(add(&evil), 403);
    assert_eq!(add(&browser.with("origin", "null")), 403);
    assert_eq!(add(&own.with("sec-fetch-site", "cross-site")), 403);
    assert_eq!(add(&browser.with("sec-fetch-site", "same-site")), 403);
    assert_eq!(add(&own), 201);

    let out = api.send(&with(&own), "DELETE", session, None);
    assert!((200..300).contains(&out.status), "{}", out.text());
    assert_eq!(with(&browser).get(CAMERAS).status, 401, "the session has ended");
}

#[test]
fn one_address_takes_only_its_share_and_the_slow_are_closed() {
    let daemon = closed(&[]);
    let connect = || TcpStream::connect(("127.0.0.1", daemon.http_port)).unwrap();
    let mut held: Vec<_> = (0..32).map(|_| connect()).collect();
    for stream in &mut held {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n").unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    let mut more = connect();
    more.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut text = Vec::new();
    let ended = more.read_to_end(&mut text);
    assert!(
        text.is_empty() && !matches!(&ended, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock),
        "{ended:?}"
    );
    // Others get through meanwhile, also over the control socket.
    assert_eq!(Http::local(&daemon).get("/api/v1/cameras").status, 200);
    let begun = Instant::now();
    for stream in &mut held {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        assert!(text.is_empty());
    }
    assert!(
        begun.elapsed() < Duration::from_secs(25),
        "half a request holds its place for seconds only"
    );
    assert_eq!(Http::to_port(daemon.http_port).get("/nothing").status, 404);
}
