//! What users do wrong and what breaks around them: each a message that names the thing and the remedy, and everybody else goes on.
#![allow(clippy::unwrap_used)]

use std::{os::unix::fs::PermissionsExt, process::Command, time::Duration};

use corenvr_tests::{
    cameras::{GstCamera, Kind, clip},
    daemon::{Camera, Daemon},
    frames::{assert_contiguous, of_file, of_files},
    process::{corenvr, free_port, wait_for},
};

/// The state and reason of a camera as `camera show` prints it.
fn shown(daemon: &Daemon, name: &str) -> String {
    daemon.cli(&["camera", "show", name]).to_lowercase()
}

#[test]
fn wrong_cameras_say_why_and_the_right_one_records_every_frame() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 60);
    let camera = GstCamera::start(&[("cam", &path)]);
    let closed = free_port();
    let mut daemon = Daemon::new(
        "",
        &[
            Camera::new("good", &camera.url("cam"), "tcp"),
            Camera::new("nowhere", &camera.url("no-such-mount"), "tcp"),
            Camera::new("refused", &format!("rtsp://user:geheim@127.0.0.1:{closed}/x"), "auto"),
            Camera::new("noname", "rtsp://no-such-host.invalid/x", "auto"),
        ],
    );
    daemon.start();
    daemon.wait_sealed("good", 3, Duration::from_secs(60));
    for (name, word) in [("nowhere", "404"), ("refused", "refused"), ("noname", "no-such-host")] {
        wait_for(word, Duration::from_secs(20), || {
            shown(&daemon, name).contains(word).then_some(())
        });
        assert!(daemon.segments(name).is_empty());
    }
    assert!(
        !shown(&daemon, "refused").contains("geheim") && !daemon.log().contains("geheim"),
        "a password was printed"
    );
    daemon.stop();
    let stored = of_files(daemon.segments("good").iter().map(AsRef::as_ref));
    assert_contiguous("the good camera", &stored.video, &of_file(&path).video);
}

#[test]
fn a_login_is_given_by_digest_and_basic_and_a_wrong_password_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 60);
    let digest = GstCamera::start_with_login(&[("cam", &path)], Some("digest:admin:p@ss word"));
    let basic = GstCamera::start_with_login(&[("cam", &path)], Some("basic:admin:s3cret"));
    let url = |camera: &GstCamera, login: &str| camera.url("cam").replace("rtsp://", &format!("rtsp://{login}@"));
    let mut daemon = Daemon::new(
        "",
        &[
            Camera::new("digest", &url(&digest, "admin:p%40ss%20word"), "tcp"),
            Camera::new("basic", &url(&basic, "admin:s3cret"), "udp"),
            Camera::new("wrong", &url(&digest, "admin:falsch"), "tcp"),
            Camera::new("none", &digest.url("cam"), "tcp"),
        ],
    );
    daemon.start();
    daemon.wait_sealed("digest", 2, Duration::from_secs(60));
    daemon.wait_sealed("basic", 2, Duration::from_secs(60));
    for name in ["wrong", "none"] {
        wait_for("the refusal is told", Duration::from_secs(20), || {
            shown(&daemon, name).contains("password").then_some(())
        });
        assert!(daemon.segments(name).is_empty());
    }
    let told = format!("{}{}{}", daemon.log(), shown(&daemon, "wrong"), daemon.cli(&["status"]));
    assert!(
        !told.contains("falsch") && !told.contains("s3cret") && !told.contains("p%40ss"),
        "{told}"
    );
    daemon.stop();
}

#[test]
fn a_configuration_with_three_mistakes_gets_three_messages() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.toml");
    std::fs::write(
        &file,
        "[recording]\nsegment = \"5 parsecs\"\nsynk = \"2s\"\n[[camera]]\nname = \"Front Door\"\nurl = \"rtsp://h/\"\n",
    )
    .unwrap();
    let out = Command::new(corenvr())
        .args(["config", "check"])
        .arg(&file)
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert_eq!(out.status.code(), Some(1), "{text}");
    for word in ["segment", "synk", "Front Door"] {
        assert!(text.contains(word), "{word} is not named in:\n{text}");
    }
    for line in ["2", "3", "5"] {
        assert!(text.contains(line), "line {line} is not named in:\n{text}");
    }
}

#[test]
fn a_second_daemon_on_the_same_archive_is_refused_and_the_first_goes_on() {
    let mut first = Daemon::new("", &[]);
    first.start();
    let mut second = Daemon::new("", &[]);
    let text = std::fs::read_to_string(second.config()).unwrap();
    let own = second.path("rec").display().to_string();
    std::fs::write(
        second.config(),
        text.replace(&own, &first.path("rec").display().to_string()),
    )
    .unwrap();
    second.spawn();
    assert_eq!(second.wait_exit(), 1, "{}", second.log());
    let log = second.log();
    assert!(
        log.contains(&first.pid().to_string()) && log.contains("rec"),
        "the holder is not named:\n{log}"
    );
    first.cli(&["status"]);
    first.stop();
}

#[test]
fn a_busy_port_and_a_directory_without_permission_are_named() {
    let mut daemon = Daemon::new("", &[]);
    let _busy = std::net::TcpListener::bind(("127.0.0.1", daemon.rtsp_port)).unwrap();
    daemon.spawn();
    assert_eq!(daemon.wait_exit(), 1);
    assert!(daemon.log().contains(&daemon.rtsp_port.to_string()), "{}", daemon.log());

    let mut daemon = Daemon::new("", &[]);
    std::fs::remove_dir_all(daemon.path("rec")).unwrap();
    std::fs::write(daemon.path("rec"), "a file where the directory should be").unwrap();
    daemon.spawn();
    assert_eq!(daemon.wait_exit(), 1);
    assert!(daemon.log().contains("rec"), "{}", daemon.log());
}

#[test]
fn a_reload_with_mistakes_changes_nothing_and_a_good_one_leaves_other_cameras_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 60);
    let camera = GstCamera::start(&[("cam", &path), ("cam2", &path)]);
    let one = Camera::new("one", &camera.url("cam"), "tcp");
    let mut daemon = Daemon::new("", std::slice::from_ref(&one));
    daemon.start();
    daemon.wait_sealed("one", 1, Duration::from_secs(60));
    let good = std::fs::read_to_string(daemon.config()).unwrap();
    std::fs::write(daemon.config(), format!("{good}\n[nonsense]\nx = 1\n")).unwrap();
    daemon.signal(rustix::process::Signal::HUP);
    wait_for("the mistake is logged", Duration::from_secs(20), || {
        daemon.log().contains("nonsense").then_some(())
    });
    daemon.configure("", &[one, Camera::new("two", &camera.url("cam2"), "tcp")]);
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_sealed("two", 1, Duration::from_secs(60));
    daemon.stop();
    let stored = of_files(daemon.segments("one").iter().map(AsRef::as_ref));
    assert_contiguous("the camera that did not change", &stored.video, &of_file(&path).video);
}

#[test]
fn cameras_are_added_listed_and_removed_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 60);
    let camera = GstCamera::start(&[("cam", &path)]);
    let mut daemon = Daemon::new("", &[]);
    daemon.start();
    let found = daemon.cli(&["camera", "add", "porch", &camera.url("cam"), "--transport", "tcp"]);
    assert!(
        found.contains("H264") && found.contains("320") && found.contains("AAC"),
        "{found}"
    );
    daemon.wait_sealed("porch", 1, Duration::from_secs(60));
    let refused = daemon.try_cli(&["camera", "add", "ghost", &camera.url("nothing-here")]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("404"),
        "{}",
        String::from_utf8_lossy(&refused.stderr)
    );
    assert!(daemon.cli(&["camera", "list"]).contains("porch"));
    daemon.cli(&["camera", "disable", "porch"]);
    daemon.cli(&["camera", "remove", "porch"]);
    assert!(!daemon.cli(&["camera", "list"]).contains("porch"));
    assert!(
        !daemon.segments("porch").is_empty(),
        "removing a camera keeps its recordings"
    );
    daemon.stop();
    let stored = of_files(daemon.segments("porch").iter().map(AsRef::as_ref));
    assert_contiguous("what was recorded", &stored.video, &of_file(&path).video);
}

#[test]
fn without_anonymous_access_a_viewer_is_asked_to_log_in() {
    let mut daemon = Daemon::new("", &[]);
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    std::fs::write(
        daemon.config(),
        text.replace("anonymous = [\"live\", \"playback\"]", "anonymous = []"),
    )
    .unwrap();
    daemon.start();
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-rtsp_transport", "tcp", &daemon.rtsp("door")])
        .output()
        .unwrap();
    assert!(!out.status.success());
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("401"),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    daemon.stop();
}

#[test]
fn an_unknown_camera_and_a_range_without_footage_are_not_found() {
    let mut daemon = Daemon::new("", &[]);
    daemon.start();
    for (url, words) in [
        ("nobody", "404"),
        ("nobody?start=2020-01-01T00:00:00Z", "404"),
        ("../etc", "40"),
        ("a?start=yesterday", "400"),
    ] {
        let out = Command::new("ffprobe")
            .args(["-v", "error", "-rtsp_transport", "tcp", &daemon.rtsp(url)])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && text.contains(words), "{url}: {text}");
    }
    daemon.stop();
}

#[test]
fn a_storage_directory_that_may_not_be_written_is_refused_with_its_remedy() {
    if rustix::process::getuid().is_root() {
        println!("skipped: root may write everywhere");
        return;
    }
    let mut daemon = Daemon::new("", &[]);
    std::fs::set_permissions(daemon.path("rec"), std::fs::Permissions::from_mode(0o500)).unwrap();
    daemon.spawn();
    assert_eq!(daemon.wait_exit(), 1);
    assert!(daemon.log().contains("rec"), "{}", daemon.log());
}
