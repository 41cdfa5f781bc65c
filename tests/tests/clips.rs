//! Clips over HTTP from a recorder at work: whole, in parts, by players that seek, of footage that still grows, and by clients that hang.
#![allow(clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use corenvr_media::WallTime;
use corenvr_tests::{
    cameras::{GstCamera, Kind, clip},
    daemon::{Camera, Daemon, start_of},
    frames::{assert_contiguous, of_file, of_files},
    http::{Http, Reply},
    players,
    process::{run, wait_for},
};

fn now() -> WallTime {
    WallTime::from_system(std::time::SystemTime::now())
}

fn record(kind: Kind, seconds: u32, sealed: usize) -> (Daemon, GstCamera, tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), kind, seconds);
    let camera = GstCamera::start(&[("cam", &path)]);
    let mut daemon = Daemon::new("", &[Camera::new("door", &camera.url("cam"), "tcp")]);
    daemon.start();
    daemon.wait_sealed("door", sealed, Duration::from_secs(90));
    (daemon, camera, dir, path)
}

/// The path of a clip from the first footage on, for `seconds`.
fn first(daemon: &Daemon, file: &str, seconds: i64) -> (String, WallTime) {
    let start = WallTime::parse(&start_of(&daemon.segments("door")[0])).unwrap();
    let end = start.offset(seconds * 1_000_000);
    (format!("/api/v1/cameras/door/{file}?start={start}&end={end}"), start)
}

fn part(http: &Http, path: &str, range: &str, etag: &str) -> Reply {
    http.with("range", range).with("if-range", etag).get(path)
}

/// Every packet as ffprobe sees it.
fn packets(input: &str) -> String {
    let args = [
        "-v",
        "error",
        "-show_entries",
        "packet=codec_type,pts,size,data_hash",
        "-show_data_hash",
        "crc32",
        "-of",
        "csv",
    ];
    let output = run(Command::new("ffprobe").args(args).arg(input));
    assert!(
        output.stderr.is_empty(),
        "{input}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn whole_and_parts(daemon: &Daemon, dir: &Path) {
    let http = Http::local(daemon);
    for kind in ["mkv", "mp4"] {
        let (path, start) = first(daemon, &format!("clip.{kind}"), 7);
        let whole = http.get(&path);
        assert_eq!(whole.status, 200, "{}", whole.text());
        let len = whole.body.len();
        assert_eq!(whole.header("content-length"), Some(&*len.to_string()));
        assert_eq!(whole.header("accept-ranges"), Some("bytes"));
        let name = whole.header("content-disposition").unwrap();
        assert!(
            name.starts_with("attachment; filename=\"door_2") && name.ends_with(&format!("Z.{kind}\"")),
            "{name}"
        );
        let told = WallTime::parse(whole.header("x-corenvr-start").unwrap()).unwrap();
        assert!(told.micros_since(start).abs() < 1_000_000, "{told} and {start}");
        let file = dir.join("whole").with_extension(kind);
        std::fs::write(&file, &whole.body).unwrap();
        players::assert_decodes(&file);

        // The command makes the same file.
        let exported = dir.join("exported").with_extension(kind);
        let end = start.offset(7_000_000);
        let (from, to) = (start.to_string(), end.to_string());
        daemon.cli(&[
            "export",
            "door",
            "--from",
            &from,
            "--to",
            &to,
            "-o",
            exported.to_str().unwrap(),
        ]);
        assert!(
            std::fs::read(exported).unwrap() == whole.body,
            "the command and the recorder differ"
        );

        // Broken off again and again, and gone on with.
        let etag = whole.header("etag").unwrap().to_owned();
        let mut joined = Vec::new();
        for step in [1usize, 10, 40_000, 300_000, 7, usize::MAX / 2] {
            let from = joined.len();
            let last = (from + step - 1).min(len - 1);
            let reply = part(&http, &path, &format!("bytes={from}-{last}"), &etag);
            assert_eq!(reply.status, 206);
            assert_eq!(
                reply.header("content-range"),
                Some(&*format!("bytes {from}-{last}/{len}"))
            );
            joined.extend(reply.body);
        }
        assert!(joined == whole.body, "the parts of {kind} are not the whole");
        let suffix = part(&http, &path, "bytes=-1000", &etag);
        assert!(suffix.status == 206 && suffix.body == whole.body[len - 1000..]);

        assert_eq!(part(&http, &path, "bytes=5-9", "\"another\"").status, 200);
        let beyond = http.with("range", &format!("bytes={len}-")).get(&path);
        assert_eq!(
            (beyond.status, beyond.header("content-range")),
            (416, Some(&*format!("bytes */{len}")))
        );
        assert_eq!(http.with("if-none-match", &etag).get(&path).status, 304);
        let head = http.send("HEAD", &path, None);
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, Some(&*len.to_string()))
        );
        assert_eq!((head.header("etag"), head.body.len()), (Some(&*etag), 0));
    }
}

fn wrong_requests(daemon: &Daemon) {
    let (local, anybody) = (Http::local(daemon), Http::to_port(daemon.http_port));
    let clip = |file: &str, query: &str| format!("/api/v1/cameras/door/{file}?{query}");
    let ten = "start=2026-11-20T10:00:00Z";
    for (query, says) in [
        (String::new(), "start: missing"),
        (ten.to_owned(), "end: missing"),
        ("start=soon&end=2026-11-20T10:00:00Z".to_owned(), "start: "),
        (format!("{ten}&end=2026-11-20T10:00:00Z"), "end is not after start"),
        (format!("{ten}&end=2026-11-27T10:00:01Z"), "7 days"),
    ] {
        let reply = local.get(&clip("clip.mp4", &query));
        assert_eq!(reply.status, 400, "{query}: {}", reply.text());
        assert!(reply.text().contains(says), "{query}: {}", reply.text());
    }
    let long = local.get(&clip("play.mp4", &format!("{ten}&end=2026-11-20T10:15:01Z")));
    assert!(
        long.status == 400 && long.text().contains("15 minutes"),
        "{}",
        long.text()
    );
    let empty = local.get(&clip("clip.mkv", "start=2020-01-01T00:00:00Z&end=2020-01-01T01:00:00Z"));
    assert_eq!(empty.status, 404);
    let nearest = start_of(&daemon.segments("door")[0]);
    let remedy = empty.json()["remedy"].as_str().unwrap().to_owned();
    assert!(remedy.contains(&nearest[..19]), "{remedy} and {nearest}");
    assert_eq!(
        local
            .get("/api/v1/cameras/nobody/clip.mp4?start=2020-01-01T00:00:00Z&end=2020-01-01T01:00:00Z")
            .status,
        404
    );
    // Whoever may watch may play, and not take away.
    assert_eq!(anybody.get(&first(daemon, "clip.mp4", 5).0).status, 401);
    let played = anybody.get(&first(daemon, "play.mp4", 5).0);
    assert_eq!(played.status, 200);
    assert!(played.header("content-disposition").unwrap().starts_with("inline"));
    assert!(played.body == local.get(&first(daemon, "clip.mp4", 5).0).body);
}

fn growing(daemon: &Daemon) {
    let http = Http::local(daemon);
    let start = now().offset(-3_000_000);
    let path = format!(
        "/api/v1/cameras/door/clip.mp4?start={start}&end={}",
        start.offset(3_600_000_000)
    );
    let begun = http.with("range", "bytes=0-99").get(&path);
    assert_eq!(begun.status, 206, "{}", begun.text());
    let total: usize = begun
        .header("content-range")
        .unwrap()
        .rsplit('/')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    // A player asks on as it began, and gets the file that it began with.
    let rest = http.with("range", "bytes=100-").get(&path);
    assert_eq!(
        rest.header("content-range"),
        Some(&*format!("bytes 100-{}/{total}", total - 1))
    );
    assert_eq!(rest.header("etag"), begun.header("etag"));
    let file = daemon.path("growing.mp4");
    std::fs::write(&file, [&begun.body[..], &rest.body[..]].concat()).unwrap();
    players::assert_decodes(&file);
    // Who begins anew gets what is there by now.
    let anew = http.get(&path);
    assert!(anew.body.len() > total && anew.header("etag") != rest.header("etag"));
}

#[test]
fn clips_of_a_recorder_at_work_are_right_to_the_byte_and_cost_it_nothing() {
    let (mut daemon, _camera, dir, source) = record(Kind::H264BFramesAac, 120, 3);
    whole_and_parts(&daemon, dir.path());
    wrong_requests(&daemon);
    growing(&daemon);

    // ffmpeg's own HTTP client, which seeks by ranges.
    let (path, _) = first(&daemon, "play.mp4", 7);
    let url = daemon.http(&path[1..]);
    let local = dir.path().join("whole.mp4");
    assert_eq!(packets(&url), packets(local.to_str().unwrap()));
    let picture = dir.path().join("picture.png");
    run(Command::new("ffmpeg")
        .args(["-v", "error", "-ss", "4", "-i", &url, "-frames:v", "1"])
        .arg(&picture));
    assert!(picture.metadata().unwrap().len() > 1000);

    // Many exports at a time while it records.
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for kind in ["mkv", "mp4", "mkv"] {
            let (daemon, path) = (&daemon, first(&daemon, &format!("clip.{kind}"), 3600).0);
            scope.spawn(move || {
                while begun.elapsed() < Duration::from_secs(8) {
                    let reply = Http::local(daemon).get(&path);
                    assert_eq!(reply.status, 200, "{}", reply.text());
                }
            });
        }
    });
    daemon.stop();
    let stored = of_files(daemon.segments("door").iter().map(AsRef::as_ref));
    assert_contiguous("recorded pictures", &stored.video, &of_file(&source).video);
}

#[test]
fn clients_that_hang_hold_no_more_than_their_places_and_lose_them() {
    let (daemon, _camera, _dir, _) = record(Kind::MjpegOpus, 60, 4);
    let (path, _) = first(&daemon, "clip.mkv", 15);
    let http = Http::local(&daemon);
    let len = http.get(&path).body.len();
    assert!(len > 3 << 20, "{len} bytes fit the buffers on the way");
    let hang = || {
        let mut stream = UnixStream::connect(daemon.path("run/corenvr.sock")).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: recorder\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        stream
    };
    let hanging: Vec<_> = (0..4).map(|_| hang()).collect();
    let refused = http.get(&path);
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    // The rest of the API is as quick as ever.
    let begun = Instant::now();
    http.json("/api/v1/status");
    assert!(begun.elapsed() < Duration::from_secs(3));
    // They go away: the places are free within a second or two.
    drop(hanging);
    let begun = Instant::now();
    assert_eq!(http.get(&path).status, 200);
    assert!(begun.elapsed() < Duration::from_secs(10));
    // They stay and read nothing: after a minute they are cut off.
    let hanging: Vec<_> = (0..4).map(|_| hang()).collect();
    let reply = wait_for("a place", Duration::from_secs(120), || {
        Some(http.get(&path)).filter(|r| r.status == 200)
    });
    assert_eq!(reply.body.len(), len);
    // They did not all begin in the same second.
    std::thread::sleep(Duration::from_secs(10));
    for mut stream in hanging {
        let mut rest = Vec::new();
        // What was on the way, and then the end; never the whole.
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < len, "{} of {len}", rest.len());
    }
}
