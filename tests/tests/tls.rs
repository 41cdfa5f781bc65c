//! Encrypted RTSP of a running daemon, by clients that are not ours: ffmpeg, GStreamer and OpenSSL.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use corenvr_tests::{
    cameras::{GstCamera, Kind, clip},
    daemon::{Camera, Daemon, start_of},
    frames::{annex_b_slices, assert_contiguous, of_file, of_files},
    players,
    process::{corenvr, free_port, run, wait_for},
};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(60);

/// A daemon that listens with TLS.
struct Encrypted {
    daemon: Daemon,
    port: u16,
}

impl Encrypted {
    /// With a certificate made by the command itself. Does not start anything.
    fn new(cameras: &[Camera]) -> Self {
        let encrypted = Self {
            daemon: Daemon::new("", &[]),
            port: free_port(),
        };
        self_signed(&encrypted.daemon.path("tls"), &[]);
        encrypted.configure(cameras);
        encrypted
    }

    fn configure(&self, cameras: &[Camera]) {
        self.daemon.configure("", cameras);
        let text = fs::read_to_string(self.daemon.config()).unwrap();
        let with = format!(
            "[rtsp]\nrtsps_listen = [\"127.0.0.1:{}\"]\ncert = \"{}\"\nkey = \"{}\"\n",
            self.port,
            self.cert().display(),
            self.key().display()
        );
        fs::write(self.daemon.config(), text.replace("[rtsp]\n", &with)).unwrap();
    }

    fn cert(&self) -> PathBuf {
        self.daemon.path("tls/cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.daemon.path("tls/key.pem")
    }

    fn rtsps(&self, rest: &str) -> String {
        format!("rtsps://127.0.0.1:{}/{rest}", self.port)
    }

    /// What OpenSSL says of a handshake.
    fn handshake(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new("timeout");
        command.args([
            "20",
            "openssl",
            "s_client",
            "-connect",
            &format!("127.0.0.1:{}", self.port),
        ]);
        let output = command.args(args).stdin(Stdio::null()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// The SHA-256 of the certificate that is presented.
    fn presented(&self) -> String {
        let script = format!(
            "openssl s_client -connect 127.0.0.1:{} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256",
            self.port
        );
        let output = run(Command::new("timeout").args(["20", "sh", "-c", &script]));
        fingerprint_in(&output.stdout)
    }

    /// Sends requests within TLS and returns what is answered, up to `until`.
    fn converse(&self, requests: &str, until: &str) -> String {
        let mut client = Command::new("timeout")
            .args([
                "20",
                "openssl",
                "s_client",
                "-quiet",
                "-connect",
                &format!("127.0.0.1:{}", self.port),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        client.stdin.as_mut().unwrap().write_all(requests.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        let stdout = client.stdout.as_mut().unwrap();
        while !String::from_utf8_lossy(&answer).contains(until) {
            let n = stdout.read(&mut piece).unwrap();
            assert!(n > 0, "ended without {until:?}: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..n]);
        }
        client.kill().unwrap();
        client.wait().unwrap();
        String::from_utf8(answer).unwrap()
    }
}

fn self_signed(dir: &Path, args: &[&str]) -> String {
    let dir = dir.to_str().unwrap();
    let output = run(Command::new(corenvr())
        .args(["tls", "self-signed", "--dir", dir])
        .args(args));
    String::from_utf8(output.stdout).unwrap()
}

fn fingerprint_in(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .trim()
        .rsplit('=')
        .next()
        .unwrap()
        .to_owned()
}

fn fingerprint_of(cert: &Path) -> String {
    let output = run(Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(cert));
    fingerprint_in(&output.stdout)
}

/// Sends bytes over plain TCP and returns what comes until the other side closes.
fn plain(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "not closed: {e}"),
    }
    answer
}

#[test]
fn players_get_archive_and_live_over_rtsps() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 90);
    let source = of_file(&path);
    let camera = GstCamera::start(&[("cam", &path)]);
    let mut encrypted = Encrypted::new(&[Camera::new("door", &camera.url("cam"), "tcp")]);
    encrypted.daemon.start();
    let status = encrypted.daemon.json(&["status"]);
    assert_eq!(status["rtsps"][0], format!("127.0.0.1:{}", encrypted.port), "{status}");
    assert_eq!(status["left_out"].as_array().unwrap().len(), 0, "{status}");

    let probed = run(Command::new("timeout").args([
        "30",
        "ffprobe",
        "-v",
        "error",
        "-show_entries",
        "stream=codec_name",
        &encrypted.rtsps("door"),
    ]));
    let probed = String::from_utf8_lossy(&probed.stdout).into_owned();
    assert!(probed.contains("h264") && probed.contains("aac"), "{probed}");

    let saved = dir.path().join("live.h264");
    let watching = players::watch_live(&encrypted.rtsps("door"), "tcp", saved.clone());
    wait_for("a live session over TLS", LIMIT, || {
        let status = encrypted.daemon.json(&["status"]);
        let sessions = status["playback"]["sessions"].as_array()?.clone();
        sessions.iter().any(|s| s["transport"] == "tls").then_some(())
    });
    encrypted.daemon.wait_sealed("door", 3, LIMIT);
    drop(watching);
    let live = annex_b_slices(&fs::read(&saved).unwrap(), false);
    // The last slice may be half written.
    let live = &live[..live.len() - 1];
    assert!(live.len() > 50, "{}", live.len());
    assert_contiguous("live pictures", live, &source.video);

    encrypted.daemon.stop();
    let files = encrypted.daemon.segments("door");
    let stored = of_files(files.iter().map(AsRef::as_ref));
    assert_contiguous("recorded pictures", &stored.video, &source.video);
    encrypted.configure(&[]);
    encrypted.daemon.start();
    let url = encrypted.rtsps(&format!("door?start={}", start_of(&files[0])));
    let played = players::ffmpeg(&url, "tcp", false, &dir.path().join("ffmpeg"), Duration::from_secs(90));
    assert!(
        played.video == stored.video,
        "ffmpeg: {} of {}",
        played.video.len(),
        stored.video.len()
    );
    // Left to itself it tries UDP first, and is told to stay within the connection.
    for protocols in ["tcp", "tcp+udp"] {
        let to = dir.path().join("gst.bin");
        let played = players::gstreamer(&url, protocols, false, &to, Duration::from_secs(90));
        assert!(
            played == stored.video,
            "GStreamer: {} of {}",
            played.len(),
            stored.video.len()
        );
    }
}

#[test]
fn only_tls_1_2_and_1_3_and_nothing_beside_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 60);
    let camera = GstCamera::start(&[("cam", &path)]);
    let mut encrypted = Encrypted::new(&[Camera::new("door", &camera.url("cam"), "tcp")]);
    encrypted.daemon.start();
    let (ok, text) = encrypted.handshake(&["-tls1_3"]);
    assert!(ok && text.contains("New, TLSv1.3"), "{text}");
    let (ok, text) = encrypted.handshake(&["-tls1_2"]);
    assert!(ok && text.contains("New, TLSv1.2"), "{text}");
    for old in ["-tls1", "-tls1_1"] {
        let (ok, text) = encrypted.handshake(&[old, "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(
            !ok && text.contains("SSL alert number") && text.contains("Cipher is (NONE)"),
            "{text}"
        );
    }

    encrypted.daemon.wait_sealed("door", 1, LIMIT);
    // Some clients write rtsp:// within TLS; the answers name what it is.
    let base = format!("rtsp://127.0.0.1:{}/door", encrypted.port);
    let request = format!("DESCRIBE {base} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n");
    let answer = encrypted.converse(&request, "a=control:rtsps://127.0.0.1");
    assert!(
        answer.contains("200 OK") && answer.contains("Content-Base: rtsps://127.0.0.1"),
        "{answer}"
    );
    let setup = |transport: &str| {
        let text = format!("SETUP {base}/track1 RTSP/1.0\r\nCSeq: 2\r\nTransport: {transport}\r\n\r\n");
        encrypted.converse(&text, "CSeq: 2")
    };
    let answer = setup("RTP/AVP;unicast;client_port=50000-50001");
    assert!(answer.contains("RTSP/1.0 461"), "{answer}");
    let answer = setup("RTP/AVP;unicast;client_port=50000-50001,RTP/AVP/TCP;unicast;interleaved=0-1");
    assert!(answer.contains("RTSP/1.0 200"), "{answer}");

    // Each on the other's port ends at once.
    let begun = Instant::now();
    let answer = plain(encrypted.port, b"OPTIONS rtsp://h/ RTSP/1.0\r\nCSeq: 1\r\n\r\n");
    assert!(!answer.starts_with(b"RTSP"), "{answer:?}");
    let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    hello.resize(5 + 512, 0x41);
    assert!(!plain(encrypted.daemon.rtsp_port, &hello).starts_with(&[0x16]));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let status = encrypted.daemon.json(&["status"]);
    assert!(
        status["playback"]["counters"]["handshakes_failed"].as_u64().unwrap() >= 3,
        "{status}"
    );
}

#[test]
fn a_renewed_certificate_is_taken_on_while_a_session_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 120);
    let camera = GstCamera::start(&[("cam", &path)]);
    let mut encrypted = Encrypted::new(&[Camera::new("door", &camera.url("cam"), "tcp")]);
    encrypted.daemon.start();
    let first = encrypted.presented();
    assert_eq!(first, fingerprint_of(&encrypted.cert()));
    let saved = dir.path().join("live.h264");
    let mut watching = players::watch_live(&encrypted.rtsps("door"), "tcp", saved.clone());
    let len = || fs::metadata(&saved).map_or(0, |m| m.len());
    wait_for("live pictures", LIMIT, || (len() > 100_000).then_some(()));

    let renewed = dir.path().join("renewed");
    self_signed(&renewed, &[]);
    fs::copy(renewed.join("key.pem"), encrypted.key()).unwrap();
    fs::copy(renewed.join("cert.pem"), encrypted.cert()).unwrap();
    assert_eq!(encrypted.presented(), first, "not before it is told");
    encrypted.daemon.signal(Signal::HUP);
    let second = fingerprint_of(&encrypted.cert());
    wait_for("the new certificate", LIMIT, || {
        (encrypted.presented() == second).then_some(())
    });
    let then = len();
    wait_for("the session goes on", LIMIT, || (len() > then + 100_000).then_some(()));

    fs::write(encrypted.cert(), "not a certificate").unwrap();
    encrypted.daemon.signal(Signal::HUP);
    wait_for("the complaint", LIMIT, || {
        let log = encrypted.daemon.log();
        (log.contains("cert.pem holds no certificate") && log.contains("the old certificate stays in force"))
            .then_some(())
    });
    assert_eq!(encrypted.presented(), second);
    let status = encrypted.daemon.json(&["status"]).to_string();
    assert!(status.contains("cert.pem holds no certificate"), "{status}");
    assert!(watching.0.try_wait().unwrap().is_none(), "the session goes on");
    let slices = annex_b_slices(&fs::read(&saved).unwrap(), false);
    assert_contiguous("live pictures", &slices[..slices.len() - 1], &of_file(&path).video);
}

#[test]
fn a_broken_certificate_does_not_keep_the_recorder_from_recording() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), Kind::H264Aac, 60);
    let camera = GstCamera::start(&[("cam", &path)]);
    let mut encrypted = Encrypted::new(&[Camera::new("door", &camera.url("cam"), "tcp")]);
    let good = fs::read(encrypted.key()).unwrap();
    let other = dir.path().join("other");
    self_signed(&other, &[]);
    fs::copy(other.join("key.pem"), encrypted.key()).unwrap();
    encrypted.daemon.start();
    encrypted.daemon.wait_sealed("door", 1, LIMIT);
    let (ok, text) = encrypted.handshake(&[]);
    assert!(!ok, "{text}");
    let says = |text: &str| assert!(text.contains("does not fit") && text.contains("key.pem"), "{text}");
    says(&encrypted.daemon.log());
    says(&encrypted.daemon.json(&["status"]).to_string());
    let check = Command::new(corenvr())
        .args(["config", "check"])
        .arg(encrypted.daemon.config())
        .output()
        .unwrap();
    assert!(check.status.success());
    says(&String::from_utf8_lossy(&check.stdout));
    says(&String::from_utf8_lossy(&encrypted.daemon.try_cli(&["doctor"]).stdout));
    fs::write(encrypted.key(), good).unwrap();
    encrypted.daemon.signal(Signal::HUP);
    wait_for("the certificate that fits", LIMIT, || {
        encrypted.handshake(&[]).0.then_some(())
    });
}

#[test]
fn the_command_makes_what_openssl_agrees_with_and_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let tls = dir.path().join("new/tls");
    let said = self_signed(
        &tls,
        &["--name", "nvr.example.org", "--name", "192.0.2.7", "--days", "30"],
    );
    let (cert, key) = (tls.join("cert.pem"), tls.join("key.pem"));
    assert!(
        said.contains(&fingerprint_of(&cert)) && said.contains("rtsps_listen") && said.contains("https_listen"),
        "{said}"
    );
    let mode = fs::metadata(&key).unwrap().permissions().mode() & 0o777;
    assert!(mode == 0o600 || mode == 0o640, "{mode:o}");
    let text = run(Command::new("openssl")
        .args(["x509", "-noout", "-text", "-in"])
        .arg(&cert));
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for part in [
        "prime256v1",
        "DNS:nvr.example.org",
        "DNS:localhost",
        "IP Address:192.0.2.7",
        "IP Address:127.0.0.1",
        "CA:FALSE",
        "TLS Web Server Authentication",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Whoever trusts it may use it under these names, for as long as it says.
    run(Command::new("openssl")
        .args([
            "verify",
            "-x509_strict",
            "-verify_hostname",
            "nvr.example.org",
            "-CAfile",
        ])
        .arg(&cert)
        .arg(&cert));
    let within = |days: u32| {
        let seconds = (days * 86_400).to_string();
        let mut command = Command::new("openssl");
        command
            .args(["x509", "-noout", "-checkend", &seconds, "-in"])
            .arg(&cert);
        command.output().unwrap().status.success()
    };
    assert!(within(28) && !within(31));

    overwrites_nothing(&tls);
    what_is_wrong_is_shown(dir.path());
}

fn overwrites_nothing(tls: &Path) {
    let (cert, key) = (tls.join("cert.pem"), tls.join("key.pem"));
    let before = (fs::read(&cert).unwrap(), fs::read(&key).unwrap());
    fs::remove_file(&cert).unwrap();
    let again = Command::new(corenvr())
        .args(["tls", "self-signed", "--dir"])
        .arg(tls)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        !again.status.success() && words.contains("is not overwritten"),
        "{words}"
    );
    assert_eq!(fs::read(&key).unwrap(), before.1);
    fs::write(&cert, before.0).unwrap();
}

fn what_is_wrong_is_shown(dir: &Path) {
    let encrypted = Encrypted::new(&[]);
    let shown = encrypted.daemon.cli(&["tls", "show"]);
    assert!(
        shown.contains(&fingerprint_of(&encrypted.cert())) && shown.contains("localhost"),
        "{shown}"
    );
    let shown = encrypted.daemon.json(&["tls", "show"]);
    assert_eq!(
        shown[0]["chain"][0]["fingerprint"],
        fingerprint_of(&encrypted.cert()),
        "{shown}"
    );
    self_signed(&dir.join("short"), &["--days", "7"]);
    fs::copy(dir.join("short/cert.pem"), encrypted.cert()).unwrap();
    fs::copy(dir.join("short/key.pem"), encrypted.key()).unwrap();
    let check = run(Command::new(corenvr())
        .args(["config", "check"])
        .arg(encrypted.daemon.config()));
    let words = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(words.contains("expires on") && words.contains("is valid"), "{words}");
    fs::remove_file(encrypted.key()).unwrap();
    let doctor = encrypted.daemon.try_cli(&["doctor"]);
    let words = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(
        !doctor.status.success() && words.contains("key.pem cannot be read"),
        "{words}"
    );
}
