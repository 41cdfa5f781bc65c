//! What the recorder says of itself: metrics, completeness, health, crashes, signs of life; and that it is true.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use corenvr_tests::{
    cameras::{GstCamera, Kind, clip},
    daemon::{Camera, Daemon},
    exposition::Metrics,
    process::{root, wait_for},
};

fn metrics(daemon: &Daemon) -> Metrics {
    let (status, text) = daemon.get("/metrics");
    assert_eq!(status, 200, "{text}");
    Metrics::parse(&text)
}

fn state(metrics: &Metrics, camera: &str, state: &str) -> bool {
    metrics.get("corenvr_camera_state", &[("camera", camera), ("state", state)]) == Some(1.0)
}

fn wait_state(daemon: &Daemon, camera: &str, wanted: &str) {
    let what = format!("{camera} is {wanted}");
    wait_for(&what, Duration::from_secs(40), || {
        state(&metrics(daemon), camera, wanted).then_some(())
    });
}

#[test]
#[allow(clippy::too_many_lines)] // one story, told in order
fn a_camera_that_was_away_is_told_truthfully() {
    const SYNC: &str = "segment = \"5s\"\nsync = \"1s\"";
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 300);
    let (mut goes, stays) = (GstCamera::start(&[("cam", &path)]), GstCamera::start(&[("cam", &path)]));
    let mut off = Camera::new("off", &stays.url("cam"), "tcp");
    off.extra = "mode = \"off\"".into();
    let cameras = [
        Camera::new("goes", &goes.url("cam"), "tcp"),
        Camera::new("stays", &stays.url("cam"), "tcp"),
        Camera::new("never", "rtsp://127.0.0.1:1/cam", "tcp"),
        off,
    ];
    let mut daemon = Daemon::new(SYNC, &cameras);
    daemon.start();
    let begun = Instant::now();
    for camera in ["goes", "stays"] {
        wait_state(&daemon, camera, "recording");
    }
    std::thread::sleep(Duration::from_secs(8));
    goes.unplug();
    let unplugged = Instant::now();
    wait_for("it is not recorded any more", Duration::from_secs(30), || {
        (!state(&metrics(&daemon), "goes", "recording")).then_some(())
    });
    let away = metrics(&daemon);
    assert!(state(&away, "stays", "recording") && state(&away, "off", "disabled"));
    assert_eq!(
        away.get("corenvr_camera_frames_per_second", &[("camera", "goes")]),
        Some(0.0)
    );
    std::thread::sleep(Duration::from_secs(25).saturating_sub(unplugged.elapsed()));
    let age = metrics(&daemon)
        .get("corenvr_camera_last_frame_age_seconds", &[("camera", "goes")])
        .unwrap();
    assert!((20.0..40.0).contains(&age), "{age}");
    goes.plug_in();
    wait_state(&daemon, "goes", "recording");
    let outage = unplugged.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_secs(2));

    // Figures of a round that began well after it came back.
    let since = now_s() + 1.0;
    let status = wait_for("figures of after the outage", Duration::from_secs(120), || {
        let status = daemon.json(&["status"]);
        let of = |name: &str| {
            status["completeness"]
                .as_array()
                .unwrap()
                .iter()
                .find(|c| c["camera"] == name)
                .cloned()
        };
        let until = |c: serde_json::Value| corenvr_media::WallTime::parse(c["until"].as_str().unwrap()).unwrap();
        ["goes", "stays", "never"]
            .iter()
            .all(|n| of(n).is_some_and(|c| until(c).as_micros() as f64 / 1e6 > since))
            .then_some(status)
    });
    let all = metrics(&daemon);
    let get = |family: &str, camera: &str| {
        let family = format!("corenvr_camera_{family}");
        all.get(&family, &[("camera", camera), ("window", "1h")])
    };
    let missing = get("footage_missing_seconds", "goes").unwrap();
    assert!(
        (missing - outage).abs() < 8.0,
        "{missing} s are said to be missing, and it was away for {outage} s"
    );
    let lost: f64 = gaps(&daemon, "goes");
    assert!(
        (missing - lost).abs() < 2.0,
        "{missing} s against {lost} s of the timeline's gaps"
    );
    let ratio = get("completeness_ratio", "goes").unwrap();
    let expected = get("footage_expected_seconds", "goes").unwrap();
    assert!((ratio - (1.0 - missing / expected)).abs() < 0.001 && expected <= begun.elapsed().as_secs_f64() + 5.0);
    assert!(
        get("completeness_ratio", "stays").unwrap() > 0.98,
        "{:?}",
        get("footage_missing_seconds", "stays")
    );
    assert_eq!(get("completeness_ratio", "never"), Some(0.0));
    assert_eq!(get("completeness_ratio", "off"), None, "what is off is not incomplete");
    assert_eq!(
        all.get(
            "corenvr_camera_completeness_ratio",
            &[("camera", "goes"), ("window", "24h")]
        ),
        Some(ratio)
    );

    // The command line says the same.
    let shown = daemon.json(&["camera", "show", "goes"]);
    let told = shown["completeness"]["hour"]["ratio"].as_f64().unwrap();
    assert!((told - ratio).abs() < 0.05, "{shown}");
    assert!(daemon.cli(&["camera", "show", "goes"]).contains("complete"));
    let control = status["shards"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(control["name"], "control");
    assert!(control["cpu"].is_null());
    assert!(all.has("corenvr_disk_write_seconds_bucket"));
    let (health, body) = daemon.get("/healthz");
    assert_eq!(health, 200, "{body}");
    daemon.stop();
}

fn now_s() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

/// Seconds of gaps in a camera's timeline.
fn gaps(daemon: &Daemon, camera: &str) -> f64 {
    let line = daemon.json(&["recordings", camera]);
    let time = |v: &serde_json::Value| corenvr_media::WallTime::parse(v.as_str().unwrap()).unwrap();
    let all = line["gaps"].as_array().unwrap().iter();
    all.map(|g| time(&g["end"]).micros_since(time(&g["start"])) as f64 / 1e6)
        .sum()
}

#[test]
fn every_metric_of_the_dashboard_and_of_the_alerts_is_there() {
    let mut daemon = Daemon::new("", &[Camera::new("never", "rtsp://127.0.0.1:1/cam", "tcp")]);
    daemon.start();
    let all = metrics(&daemon);
    for file in [
        "packaging/grafana/corenvr.json",
        "packaging/prometheus/corenvr.rules.yml",
    ] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let names: BTreeSet<_> = words
            .filter(|w| w.starts_with("corenvr_") || w.starts_with("process_"))
            .collect();
        assert!(names.len() > 8, "{file}: {names:?}");
        for name in names {
            assert!(all.has(name), "{file} asks for {name}");
        }
    }
    let dashboard = std::fs::read_to_string(root().join("packaging/grafana/corenvr.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 10);
    daemon.stop();
}

#[test]
fn a_crash_is_told_by_the_log_by_the_next_start_and_by_the_status() {
    let mut daemon = Daemon::new("", &[]);
    daemon.start();
    assert_eq!(daemon.json(&["status"])["crashes"].as_array().unwrap().len(), 0);
    daemon.signal(rustix::process::Signal::SEGV);
    assert_eq!(daemon.wait_exit(), -1, "it ended by a signal");
    let log = daemon.log();
    assert!(
        log.contains("corenvr crash: SIGSEGV sent by a process") && log.contains("program=\"corenvr "),
        "{log}"
    );
    daemon.start();
    assert!(
        daemon.log().contains("the recorder crashed last time: SIGSEGV"),
        "{}",
        daemon.log()
    );
    let status = daemon.json(&["status"]);
    let crash = &status["crashes"][0];
    assert!(crash["summary"].as_str().unwrap().starts_with("SIGSEGV"), "{status}");
    assert!(crash["report"].as_str().unwrap().contains(" corenvr+0x"), "{status}");
    assert!(daemon.cli(&["status"]).contains("crashed "));
    // An orderly end leaves nothing behind, and the old one is told once.
    daemon.stop();
    daemon.start();
    assert_eq!(daemon.log().matches("the recorder crashed last time").count(), 1);
    daemon.stop();
}

#[test]
fn systemd_gets_signs_of_life_well_within_its_limit() {
    const LIMIT: Duration = Duration::from_secs(4);
    let mut daemon = Daemon::new("", &[]);
    let socket = UnixDatagram::bind(daemon.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    daemon.environment = vec![
        ("NOTIFY_SOCKET".into(), daemon.path("notify").into_os_string()),
        ("WATCHDOG_USEC".into(), LIMIT.as_micros().to_string().into()),
    ];
    daemon.start();
    let mut buffer = [0; 512];
    let mut next = || {
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    while next() != "WATCHDOG=1" {}
    let mut last = Instant::now();
    for _ in 0..6 {
        while next() != "WATCHDOG=1" {}
        assert!(last.elapsed() < LIMIT, "{:?}", last.elapsed());
        last = Instant::now();
    }
    daemon.stop();
}

/// Every secret of an installation, and a bundle of it, with the recorder running and stopped.
#[test]
fn a_support_bundle_holds_no_secret() {
    let secrets = [
        "cam-S3cret!x",
        "gb-Passw0rd-7",
        "StreamKeyQ81z",
        "first-Admin-Pw9",
        "corenvr_Zm9vYmFyYmF6cXV4MTIzNDU2",
    ];
    let camera = Camera::new("door", "rtsp://admin:cam-S3cret%21x@127.0.0.1:1/stream", "tcp");
    let mut push = Camera::new("push", &format!("rtmp+listen://{}", secrets[2]), "tcp");
    push.transport = "auto";
    let mut daemon = Daemon::new("", &[]);
    let port = daemon.http_port + 1;
    daemon.sections = format!(
        "[gb28181]\nlisten = \"127.0.0.1:{port}\"\npassword = \"{}\"\n[rtmp]\nlisten = [\"127.0.0.1:{port}\"]\n# token: {}\n",
        secrets[1], secrets[4]
    );
    daemon.configure("", &[camera, push]);
    daemon.start();
    std::fs::write(daemon.path("state/admin-password"), format!("{}\n", secrets[3])).unwrap();
    daemon.cli(&[
        "camera",
        "add",
        "later",
        "rtsp://u:cam-S3cret%21x@127.0.0.1:1/x",
        "--force",
    ]);
    for name in ["running.tar.gz", "stopped.tar.gz"] {
        if name == "stopped.tar.gz" {
            daemon.stop();
        }
        let file = daemon.path(name);
        let told = daemon.cli(&["support-bundle", "-o", file.to_str().unwrap()]);
        assert!(
            told.contains("doctor.txt") && told.contains("config/corenvr.toml"),
            "{told}"
        );
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let mut tar = std::process::Command::new("tar");
        let text = corenvr_tests::process::run(tar.arg("-xzOf").arg(&file)).stdout;
        let text = String::from_utf8_lossy(&text);
        for secret in secrets.iter().chain(&["cam-S3cret%21x", "cam-S3cret"]) {
            assert!(!text.contains(secret), "{secret} is in {name}");
        }
        assert!(
            text.contains("name = \"door\"") && text.contains("127.0.0.1:1/stream"),
            "what is no secret stays"
        );
        assert_eq!(text.contains("corenvr_build_info"), name == "running.tar.gz");
        assert_eq!(
            told.contains("metrics.txt: corenvr is not running"),
            name == "stopped.tar.gz",
            "{told}"
        );
        assert!(
            !daemon
                .try_cli(&["support-bundle", "-o", file.to_str().unwrap()])
                .status
                .success(),
            "nothing is overwritten"
        );
    }
}
