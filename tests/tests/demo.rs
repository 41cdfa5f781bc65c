//! The README's first command, as somebody who met the project a minute ago runs it.
#![allow(clippy::unwrap_used, clippy::too_many_lines)]

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use corenvr_tests::{
    frames::of_file,
    http::Http,
    players,
    process::{Guarded, corenvr, free_port},
};

#[test]
fn the_demo_records_and_prints_urls_that_play() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let http_port = free_port();
    let mut child = Command::new(corenvr())
        .args(["demo", "--cameras", "2", "--rtsp-port", &port.to_string()])
        .args(["--http-port", &http_port.to_string(), "--dir"])
        .arg(dir.path().join("demo"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (tx, rx) = mpsc::channel();
    let stdout = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .for_each(|l| drop(tx.send(l)));
    });
    let mut demo = Guarded(child);
    let mut urls = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline
        && !(urls.iter().any(|u: &String| u.contains("start=")) && urls.iter().any(|u| !u.contains('?')))
    {
        let Ok(line) = rx.recv_timeout(Duration::from_secs(5)) else {
            continue;
        };
        println!("{line}");
        urls.extend(
            line.split(['\'', '"', ' '])
                .filter(|w| w.starts_with("rtsp://"))
                .map(str::to_owned),
        );
    }
    let live = urls.iter().find(|u| !u.contains('?')).expect("a live URL is printed");
    let archive = urls
        .iter()
        .find(|u| u.contains("start="))
        .expect("an archive URL is printed");
    // Anybody may watch the demonstration, and nobody may change it.
    let http = Http::to_port(http_port);
    let cameras = http.json("/api/v1/cameras");
    assert_eq!(cameras["cameras"].as_array().unwrap().len(), 2, "{cameras}");
    assert_eq!(http.get("/").status, 200);
    assert_eq!(http.get("/api/v1/cameras/cam1/timeline").status, 200);
    assert_eq!(http.get("/api/v1/users").status, 401);
    assert_eq!(http.send("DELETE", "/api/v1/cameras/cam1", None).status, 401);
    std::thread::sleep(Duration::from_secs(6));
    for (name, url) in [("live", live), ("archive", archive)] {
        let to = dir.path().join(format!("{name}.mkv"));
        let mut ffmpeg = Command::new("timeout");
        ffmpeg
            .args([
                "60",
                "ffmpeg",
                "-v",
                "error",
                "-y",
                "-rtsp_transport",
                "tcp",
                "-i",
                url,
                "-t",
                "3",
                "-c",
                "copy",
            ])
            .arg(&to);
        corenvr_tests::process::run(&mut ffmpeg);
        players::assert_decodes(&to);
        assert!(
            of_file(&to).video.len() >= 50,
            "{name}: {} pictures",
            of_file(&to).video.len()
        );
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&demo.0), rustix::process::Signal::INT).unwrap();
    let ended = corenvr_tests::process::wait_for("the demo ends on Ctrl-C", Duration::from_secs(30), || {
        demo.0.try_wait().unwrap()
    });
    assert!(ended.success(), "{ended}");
}
