//! Accounts on a running recorder: the first password, rights per camera, revocation, throttling, the audit log, and the way back in.
#![allow(clippy::unwrap_used)]

use std::{
    io::Write,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use corenvr_tests::{
    daemon::{Camera, Daemon},
    process::{Guarded, corenvr, wait_for},
    rtsp::Rtsp,
    sim::Sim,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const PASSWORD: &str = "correct horse battery";

/// A recorder where nothing goes without a login, with two cameras that are recorded.
fn recorder() -> (Sim, Daemon) {
    let sim = Sim::start(2);
    let cameras = [
        Camera::new("front", &sim.url(1), "tcp"),
        Camera::new("yard", &sim.url(2), "tcp"),
    ];
    let mut daemon = Daemon::new("", &[]);
    daemon.anonymous = "[]";
    daemon.configure("", &cameras);
    daemon.start();
    daemon.wait_sealed("front", 1, Duration::from_secs(60));
    daemon.wait_sealed("yard", 1, Duration::from_secs(60));
    (sim, daemon)
}

/// Runs a command that reads a password from standard input.
fn with_password(daemon: &Daemon, password: &str, args: &[&str]) -> Output {
    let mut child = Command::new(corenvr())
        .args(args)
        .arg("--password-stdin")
        .arg("--config")
        .arg(daemon.config())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    child.wait_with_output().unwrap()
}

fn add(daemon: &Daemon, name: &str, role: &str, grants: &[&str]) {
    let mut args = vec!["user", "add", name, "--role", role];
    for grant in grants {
        args.extend(["--grant", grant]);
    }
    let out = with_password(daemon, PASSWORD, &args);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn describe(daemon: &Daemon, name: &str, password: &str, path: &str) -> u16 {
    let uri = daemon.rtsp(path);
    Rtsp::connect(daemon.rtsp_port)
        .ask_as((name, password), "DESCRIBE", &uri, "")
        .status
}

/// An hour that holds all that was recorded.
fn past(name: &str) -> String {
    let begin = utc(-1800);
    format!("{name}?start={begin}")
}

/// UTC so many seconds from now, as URLs have it.
fn utc(seconds: i64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let at = i64::try_from(now.as_millis()).unwrap() + seconds * 1000;
    corenvr_media::WallTime::from_millis(at).to_clock()
}

/// ffmpeg that copies a stream to nowhere until it ends.
fn watch(url: &str, login: (&str, &str), log: &Path) -> Guarded {
    let url = url.replace("rtsp://", &format!("rtsp://{}:{}@", login.0, login.1));
    let child = Command::new("ffmpeg")
        .args(["-v", "info", "-nostdin", "-rtsp_transport", "tcp", "-i", &url])
        .args(["-map", "0:v:0", "-c", "copy", "-f", "null", "-"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(log).unwrap())
        .spawn()
        .expect("ffmpeg");
    Guarded(child)
}

fn audit(daemon: &Daemon, args: &[&str]) -> Vec<Value> {
    let document = daemon.json(&[&["audit"], args].concat());
    document["entries"].as_array().unwrap().clone()
}

fn watching(daemon: &Daemon) -> usize {
    let status = daemon.json(&["status"]);
    status["playback"]["sessions"].as_array().unwrap().len()
}

#[test]
fn the_first_password_opens_rtsp_and_goes_when_it_is_changed() {
    let (_sim, mut daemon) = recorder();
    let file = daemon.path("state/admin-password");
    let first = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(daemon.log().contains("admin-password"), "the log says where it is");
    assert!(!daemon.log().contains(&first), "and not what it is");
    let dir = tempfile::tempdir().unwrap();
    let url = daemon
        .rtsp("front")
        .replace("rtsp://", &format!("rtsp://admin:{first}@"));
    let out = Command::new("ffmpeg")
        .args([
            "-v",
            "error",
            "-nostdin",
            "-y",
            "-rtsp_transport",
            "tcp",
            "-i",
            &url,
            "-t",
            "2",
            "-c",
            "copy",
        ])
        .arg(dir.path().join("live.mkv"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(describe(&daemon, "admin", "wrong wrong", "front"), 401);
    assert_eq!(
        Rtsp::connect(daemon.rtsp_port)
            .ask("DESCRIBE", &daemon.rtsp("front"), "")
            .status,
        401
    );

    let out = with_password(&daemon, PASSWORD, &["user", "passwd", "admin"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(!file.exists());
    assert_eq!(describe(&daemon, "admin", &first, "front"), 401);
    assert_eq!(describe(&daemon, "admin", PASSWORD, "front"), 200);
    // Whoever has forgotten it gets in again while the recorder is stopped.
    daemon.stop();
    let out = with_password(&daemon, "another battery", &["user", "passwd", "admin"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    daemon.start();
    assert_eq!(describe(&daemon, "admin", PASSWORD, "front"), 401);
    assert_eq!(describe(&daemon, "admin", "another battery", "front"), 200);
    let changes = audit(&daemon, &["--user", "(local)"]);
    let passwords = changes.iter().filter(|e| e["action"] == "user-password");
    assert_eq!(passwords.count(), 2, "{changes:?}");
    let told = format!("{}{changes:?}", daemon.log());
    assert!(!told.contains("battery") && !told.contains(&first));
    daemon.stop();
}

#[test]
fn an_account_sees_what_it_was_granted_and_the_log_says_what_it_saw() {
    let (_sim, mut daemon) = recorder();
    add(&daemon, "anna", "viewer", &["front:live"]);
    add(&daemon, "bert", "viewer", &[]);
    let see = |name: &str, path: &str| describe(&daemon, name, PASSWORD, path);
    assert_eq!(see("anna", "front"), 200);
    for forbidden in ["yard", "no-such-camera", &past("front"), &past("yard"), "front/replay"] {
        assert_eq!(see("anna", forbidden), 403, "{forbidden}");
    }
    for allowed in ["yard", &past("yard"), "front/replay"] {
        assert_eq!(see("bert", allowed), 200, "{allowed}");
    }
    assert_eq!(see("bert", "no-such-camera"), 404);
    assert_eq!(describe(&daemon, "carl", PASSWORD, "front"), 401);
    let refused = daemon.try_cli(&["user", "remove", "admin"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("last administrator"));

    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("ffmpeg.log");
    let mut viewer = watch(&daemon.rtsp(&past("yard")), ("bert", "correct%20horse%20battery"), &log);
    wait_for("bert watches", SOON, || (watching(&daemon) == 1).then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    viewer.0.kill().unwrap();
    let seen = wait_for("the end is written down", SOON, || {
        let list = audit(&daemon, &["--user", "bert", "--camera", "yard"]);
        list.iter().any(|e| e["action"] == "watch-end").then_some(list)
    });
    let begun = seen.iter().find(|e| e["action"] == "watch-archive").unwrap();
    assert_eq!((&begun["peer"], &begun["via"]), (&"127.0.0.1".into(), &"rtsp".into()));
    assert!(begun["detail"].as_str().unwrap().contains('T'), "{begun}");
    let denied = audit(&daemon, &["--user", "anna", "--camera", "yard"]);
    assert!(
        denied
            .iter()
            .any(|e| e["outcome"] == "refused" && e["action"] == "watch-live"),
        "{denied:?}"
    );
    let made = audit(&daemon, &["--user", "(local)"]);
    assert!(
        made.iter()
            .any(|e| e["action"] == "user-add" && e["detail"] == "anna: viewer, grants front:live"),
        "{made:?}"
    );
    daemon.stop();
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "every way in which a right ends, on the same viewers"
)]
fn who_may_not_watch_any_more_is_cut_off_and_others_are_not() {
    let (sim, mut daemon) = recorder();
    add(&daemon, "anna", "viewer", &["front:live"]);
    add(&daemon, "bert", "viewer", &[]);
    let dir = tempfile::tempdir().unwrap();
    let start = |name: &str, path: &str| {
        let log = dir.path().join(format!("{name}.log"));
        watch(&daemon.rtsp(path), (name, "correct%20horse%20battery"), &log)
    };
    let ends = |viewer: &mut Guarded, what: &str| {
        let begun = Instant::now();
        wait_for(what, Duration::from_secs(15), || viewer.0.try_wait().unwrap());
        begun.elapsed()
    };
    let mut bert = start("bert", "yard");
    for change in [
        &["user", "change", "anna", "--grant", "yard:live"][..],
        &["user", "change", "anna", "--disable"],
        &["user", "remove", "anna"],
    ] {
        let mut anna = start("anna", "front");
        wait_for("both watch", SOON, || (watching(&daemon) == 2).then_some(()));
        daemon.cli(change);
        let took = ends(&mut anna, "anna is cut off");
        assert!(took < Duration::from_secs(8), "{took:?} after {change:?}");
        assert!(bert.0.try_wait().unwrap().is_none(), "bert goes on");
        if change[1] == "change" {
            daemon.cli(&["user", "change", "anna", "--enable", "--no-grants"]);
        }
    }
    // What was open to everybody ends as well when that is taken back.
    let cameras = [
        Camera::new("front", &sim.url(1), "tcp"),
        Camera::new("yard", &sim.url(2), "tcp"),
    ];
    daemon.anonymous = r#"["live"]"#;
    daemon.configure("", &cameras);
    daemon.signal(rustix::process::Signal::HUP);
    let live = daemon.rtsp("front");
    wait_for("live is open", SOON, || {
        (Rtsp::connect(daemon.rtsp_port).ask("DESCRIBE", &live, "").status == 200).then_some(())
    });
    let log = dir.path().join("nobody.log");
    let mut nobody = Guarded(
        Command::new("ffmpeg")
            .args([
                "-v",
                "info",
                "-nostdin",
                "-rtsp_transport",
                "udp",
                "-i",
                &live,
                "-c",
                "copy",
                "-f",
                "null",
                "-",
            ])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log).unwrap())
            .spawn()
            .unwrap(),
    );
    wait_for("nobody watches", SOON, || (watching(&daemon) == 2).then_some(()));
    daemon.anonymous = "[]";
    daemon.configure("", &cameras);
    daemon.signal(rustix::process::Signal::HUP);
    wait_for("the session is gone", Duration::from_secs(8), || {
        (watching(&daemon) == 1).then_some(())
    });
    assert!(bert.0.try_wait().unwrap().is_none(), "bert goes on");
    drop(nobody.0.kill());
    daemon.stop();
}

#[test]
fn guessing_is_slowed_for_the_guesser_alone() {
    let (_sim, mut daemon) = recorder();
    add(&daemon, "anna", "viewer", &[]);
    let uri = daemon.rtsp("front");
    let elsewhere: IpAddr = [127, 0, 0, 9].into();
    let mut slowed = None;
    for n in 0..20 {
        let mut guesser = Rtsp::connect_from(elsewhere, daemon.rtsp_port);
        let reply = guesser.ask_as(("anna", &format!("guess {n}")), "DESCRIBE", &uri, "");
        assert_eq!(reply.status, 401);
        if let Some(after) = reply.header("retry-after") {
            slowed = Some((n, after.parse::<u64>().unwrap()));
            break;
        }
    }
    let (tries, after) = slowed.expect("the guesser is slowed");
    assert!((5..=6).contains(&tries) && (1..=2).contains(&after), "{slowed:?}");
    // The right password has to wait there too; here it has not.
    let mut guesser = Rtsp::connect_from(elsewhere, daemon.rtsp_port);
    assert_eq!(guesser.ask_as(("anna", PASSWORD), "DESCRIBE", &uri, "").status, 401);
    assert_eq!(describe(&daemon, "anna", PASSWORD, "front"), 200);
    wait_for("the delay passes", SOON, || {
        let mut guesser = Rtsp::connect_from(elsewhere, daemon.rtsp_port);
        (guesser.ask_as(("anna", PASSWORD), "DESCRIBE", &uri, "").status == 200).then_some(())
    });
    let refused = audit(&daemon, &["--user", "(nobody)"]);
    let refused: Vec<_> = refused.iter().filter(|e| e["action"] == "login-refused").collect();
    assert!((5..=6).contains(&refused.len()), "{refused:?}");
    assert!(refused.iter().all(|e| e["peer"] == "127.0.0.9"));
    daemon.stop();
}

#[test]
fn a_damaged_file_of_accounts_stops_the_start_and_is_not_replaced() {
    let mut daemon = Daemon::new("", &[]);
    daemon.start();
    daemon.stop();
    let file = daemon.path("state/accounts.json");
    std::fs::write(&file, "{ broken").unwrap();
    daemon.spawn();
    assert_eq!(daemon.wait_exit(), 1);
    assert!(
        daemon.log().contains("accounts.json") && daemon.log().contains("Remedy"),
        "{}",
        daemon.log()
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{ broken");
}
