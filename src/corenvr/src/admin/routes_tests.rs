//! The table against its description, and against everybody who may ask.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::*;
use crate::{
    accounts::{Audit, Grant, NewAccount, Role},
    admin::site::OPENAPI,
    config::Anonymous,
};

fn word(right: Right) -> &'static str {
    match right {
        Right::Live => "live",
        Right::Playback => "playback",
        Right::Export => "export",
        Right::Control => "control",
        Right::Status => "status",
        Right::Configure => "configure",
        Right::Accounts => "accounts",
        Right::Audit => "audit",
    }
}

fn words(need: Need) -> String {
    match need {
        Need::Open => "none".into(),
        Need::Login => "login".into(),
        Need::See => "see".into(),
        Need::Right(right) => word(right).into(),
        Need::Camera(right) => format!("camera:{}", word(right)),
    }
}

#[test]
fn the_description_has_every_route_and_no_other() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut described = BTreeMap::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let right = operation["x-corenvr-right"].as_str().unwrap_or("(not said)");
            described.insert((path.clone(), method.to_uppercase()), right.to_owned());
        }
    }
    let there: BTreeMap<_, _> = all()
        .map(|r| ((r.path.to_owned(), r.method.to_string()), words(r.need)))
        .collect();
    assert_eq!(described, there);
    assert_eq!(there.len(), all().count(), "each is there once");
}

#[test]
fn every_operation_says_what_it_may_be_refused_with() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap();
            let mut expected = vec!["414", "431"];
            if operation["x-corenvr-right"] != "none" {
                expected.extend(["401", "403", "429", "503"]);
            }
            if operation.get("requestBody").is_some() {
                expected.extend(["400", "408", "413", "415"]);
            }
            for status in expected {
                assert!(answers.contains_key(status), "{method} {path} lacks {status}");
            }
            let open = operation["security"] == Value::Array(Vec::new());
            assert_eq!(open, operation["x-corenvr-right"] == "none", "{method} {path}");
        }
    }
}

#[test]
fn a_path_is_there_under_one_spelling_only() {
    for path in ["/api/v1/cameras", "/api/v1/cameras/door/timeline", "/healthz"] {
        assert!(find(path).is_some(), "{path}");
    }
    for path in [
        "",
        "/api/v1/cameras/",
        "//api/v1/cameras",
        "/api//v1/cameras",
        "/API/v1/cameras",
        "/api/v1/cameras.",
        "/api/v1/cameras;x",
        "/healthz/..;/api/v1/cameras",
        "/api/v1/cameras/door/timeline/",
        "/api/v1/cameras//timeline",
        "/api/v1/%63ameras",
        "/healthz/../api/v1/cameras",
        "/api/v1/cameras/..%2f/timeline/x",
    ] {
        assert!(find(path).is_none(), "{path}");
    }
    // No two patterns fit the same path: which of them were to decide?
    for route in all() {
        let example = route.path.replace(['{', '}'], "");
        let found = find(&example).unwrap();
        assert!(found.routes.iter().all(|r| r.path == route.path), "{}", route.path);
    }
}

#[test]
fn what_is_there_for_get_is_there_for_head_and_the_rest_is_named() {
    let found = find("/api/v1/cameras").unwrap();
    assert_eq!(found.route(&Method::HEAD).unwrap().method, Method::GET);
    let failure = found.route(&Method::PUT).err().unwrap();
    let answer = failure.into_answer();
    assert_eq!(answer.status(), 405);
    let allow = answer.headers()[hyper::header::ALLOW].to_str().unwrap();
    assert!(["GET", "POST", "HEAD"].iter().all(|m| allow.contains(m)), "{allow}");
    // What some servers take for another method is only a word.
    for method in ["get", "GETX", "PATCH ", "_method"] {
        if let Ok(method) = Method::from_bytes(method.as_bytes()) {
            assert!(found.route(&method).is_err(), "{method}");
        }
    }
}

struct House {
    accounts: Arc<Accounts>,
    _dir: tempfile::TempDir,
}

impl House {
    fn new(anonymous: Anonymous) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path()).unwrap();
        let accounts = Accounts::open(dir.path(), anonymous, audit).unwrap();
        for (name, role, grants) in [
            ("viewer", Role::Viewer, ""),
            ("operator", Role::Operator, ""),
            ("boss", Role::Admin, ""),
            ("guest", Role::Viewer, "door:playback"),
            ("watch", Role::Viewer, "door:live"),
        ] {
            let grants = if grants.is_empty() {
                Vec::new()
            } else {
                vec![Grant::parse(grants).unwrap()]
            };
            let new = NewAccount {
                name: name.into(),
                password: "correct horse battery".into(),
                role,
                grants,
                enabled: true,
            };
            accounts.add(new).unwrap();
        }
        Self { accounts, _dir: dir }
    }

    fn status(&self, who: &str, need: Need, camera: Option<&str>) -> u16 {
        let who = match who {
            "nobody" => Who::Nobody,
            "local" => Who::Local,
            name => Who::User(name.into()),
        };
        match decide(&self.accounts, &who, need, camera) {
            Ok(_) => 200,
            Err(failure) => failure.status().as_u16(),
        }
    }
}

#[test]
fn nobody_gets_anywhere_without_the_right_to_it() {
    let house = House::new(Anonymous::default());
    for route in all() {
        let camera = route.path.contains("{name}").then_some("door");
        let status = |who| house.status(who, route.need, camera);
        let expected = match route.need {
            Need::Open => [200, 200, 200, 200],
            Need::Login | Need::See => [401, 200, 200, 200],
            Need::Right(right) | Need::Camera(right) => match right {
                Right::Live | Right::Playback | Right::Status => [401, 200, 200, 200],
                Right::Export | Right::Control => [401, 403, 200, 200],
                Right::Configure | Right::Accounts | Right::Audit => [401, 403, 403, 200],
            },
        };
        let got = ["nobody", "viewer", "operator", "boss"].map(status);
        assert_eq!(got, expected, "{} {}", route.method, route.path);
        assert_eq!(status("local"), 200, "{} {}", route.method, route.path);
        let gone = status("somebody-removed");
        assert!(
            gone == 401 || gone == 403 || gone == 404 || route.need == Need::Open,
            "{gone} {}",
            route.path
        );
    }
}

#[test]
fn a_camera_that_may_not_be_seen_is_as_one_that_is_not_there() {
    let house = House::new(Anonymous::default());
    for route in all().filter(|r| r.path.contains("{name}")) {
        let (hidden, none) = (Some("yard"), Some("no-such-camera"));
        for who in ["nobody", "guest", "viewer", "operator", "boss"] {
            let answer = |camera| house.status(who, route.need, camera);
            assert_eq!(answer(hidden), answer(none), "{who} {} {}", route.method, route.path);
        }
        assert_eq!(house.status("guest", route.need, hidden), 404, "{}", route.path);
        for wrong in ["..", "Door", "door%2f", "door ", "%", "door\u{0}"] {
            assert_eq!(house.status("nobody", route.need, Some(wrong)), 401, "{wrong}");
            assert_eq!(house.status("boss", route.need, Some(wrong)), 404, "{wrong}");
        }
    }
    let playback = Need::Camera(Right::Playback);
    assert_eq!(house.status("guest", playback, Some("door")), 200);
    assert_eq!(
        house.status("watch", playback, Some("door")),
        403,
        "may be seen, but not its past"
    );
    assert_eq!(house.status("guest", Need::See, Some("door")), 200);
}

#[test]
fn what_anybody_may_watch_needs_no_login_and_nothing_else_changes() {
    let house = House::new(Anonymous {
        live: false,
        playback: true,
    });
    let status = |need, camera| house.status("nobody", need, camera);
    assert_eq!(status(Need::Camera(Right::Playback), Some("door")), 200);
    assert_eq!(status(Need::See, Some("door")), 200);
    assert_eq!(status(Need::See, None), 200);
    for right in [Right::Live, Right::Export, Right::Control, Right::Configure] {
        assert_eq!(status(Need::Camera(right), Some("door")), 401);
    }
    for right in [Right::Status, Right::Accounts, Right::Audit, Right::Configure] {
        assert_eq!(status(Need::Right(right), None), 401);
    }
}
