//! Real players: what they decode is what was recorded. Skipped, with a word, where a player is not installed.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use corenvr_media::{
    AudioCodec, AudioParameters, CodecParameters, Frame, TrackId, VideoCodec, VideoParameters, WallTime,
};

use crate::{
    footage::{Storage, at},
    server::Server,
};

fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok()
        || Command::new(program).arg("-version").output().is_ok();
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

/// Runs a program for a minute at most and returns what it printed.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new("timeout")
        .arg("60")
        .arg(program)
        .args(args)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {args:?}: {} {errors}",
        output.status
    );
    // mpv tells its state on one, ffmpeg its results on the other.
    if output.stdout.is_empty() {
        errors.into_owned()
    } else {
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Six seconds of a test picture with B frames off, and a tone.
struct Clip {
    dir: tempfile::TempDir,
    video: CodecParameters,
    audio: CodecParameters,
    pictures: Vec<Bytes>,
    sounds: Vec<Bytes>,
}

impl Clip {
    fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (h264, aac) = (path("v.h264"), path("a.aac"));
        let picture = "testsrc=size=320x240:rate=25";
        let coding = [
            "-pix_fmt",
            "yuv420p",
            "-c:v",
            "libx264",
            "-g",
            "25",
            "-bf",
            "0",
            "-bsf:v",
            "h264_metadata=aud=insert",
        ];
        let mut args = vec!["-y", "-v", "error", "-f", "lavfi", "-i", picture, "-t", "6"];
        args.extend(coding);
        args.push(&h264);
        run("ffmpeg", &args);
        let tone = "sine=frequency=440:sample_rate=48000";
        run(
            "ffmpeg",
            &[
                "-y", "-v", "error", "-f", "lavfi", "-i", tone, "-t", "6", "-c:a", "aac", &aac,
            ],
        );
        let units = annex_b(&std::fs::read(&h264).unwrap());
        let of_type = |t: u8| units.iter().flatten().find(|n| n[0] & 0x1F == t).unwrap().clone();
        let (sps, pps) = (of_type(7), of_type(8));
        let mut avcc = vec![1, sps[1], sps[2], sps[3], 0xFF, 0xE1, 0, sps.len() as u8];
        avcc.extend(&sps);
        avcc.extend([1, 0, pps.len() as u8]);
        avcc.extend(&pps);
        let prefixed = |nal: &Vec<u8>| [&(nal.len() as u32).to_be_bytes()[..], nal].concat();
        Self {
            dir,
            video: CodecParameters::Video(VideoParameters {
                codec: VideoCodec::H264,
                extra: avcc.into(),
                width: 320,
                height: 240,
                frame_rate: Some((25, 1)),
            }),
            audio: CodecParameters::Audio(AudioParameters {
                codec: AudioCodec::Aac,
                // AAC-LC, 48 kHz, mono.
                extra: Bytes::from_static(&[0x11, 0x88]),
                sample_rate: 48_000,
                channels: 1,
            }),
            // As cameras send them, parameter sets are in every key frame; here they are in the description only.
            pictures: units
                .iter()
                .map(|u| {
                    u.iter()
                        .filter(|n| !matches!(n[0] & 0x1F, 7..=9))
                        .flat_map(prefixed)
                        .collect()
                })
                .collect(),
            sounds: adts(&std::fs::read(&aac).unwrap()),
        }
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("v.h264")
    }

    fn tracks(&self) -> std::sync::Arc<[CodecParameters]> {
        [self.video.clone(), self.audio.clone()].into()
    }

    fn frames(&self, start: WallTime) -> Vec<Frame> {
        let frame = |track, us, key, data: &Bytes| Frame {
            track: TrackId(track),
            time: start.offset(us),
            key,
            data: data.clone(),
        };
        let pictures = (0..)
            .zip(&self.pictures)
            .map(|(i, d)| frame(0, i * 40_000, i % 25 == 0, d));
        let sounds = (0..).zip(&self.sounds).map(|(i, d)| frame(1, i * 64_000 / 3, true, d));
        let mut all: Vec<Frame> = pictures.chain(sounds).collect();
        all.sort_by_key(|f| f.time);
        all
    }

    /// Recorded in segments of two seconds.
    fn record(&self, storage: &Storage) {
        let all = self.frames(at(0));
        for i in 0..3 {
            let part: Vec<Frame> = all
                .iter()
                .filter(|f| f.time >= at(i * 2000) && (f.time < at(i * 2000 + 2000) || i == 2))
                .cloned()
                .collect();
            storage.sealed("door", self.tracks(), &part);
        }
    }
}

/// The access units of a stream with delimiters, as lists of NAL units.
fn annex_b(data: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut nals: Vec<Vec<u8>> = Vec::new();
    let starts: Vec<usize> = data
        .windows(3)
        .enumerate()
        .filter(|(_, w)| *w == [0, 0, 1])
        .map(|(i, _)| i + 3)
        .collect();
    for (i, &start) in starts.iter().enumerate() {
        let end = starts.get(i + 1).map_or(data.len(), |next| next - 3);
        let mut nal = data[start..end].to_vec();
        while nal.last() == Some(&0) {
            nal.pop();
        }
        nals.push(nal);
    }
    let mut units: Vec<Vec<Vec<u8>>> = Vec::new();
    for nal in nals {
        if nal[0] & 0x1F == 9 {
            units.push(Vec::new());
        }
        units.last_mut().unwrap().push(nal);
    }
    units
}

fn adts(mut data: &[u8]) -> Vec<Bytes> {
    let mut out = Vec::new();
    while data.len() > 7 {
        let len = usize::from(data[3] & 3) << 11 | usize::from(data[4]) << 3 | usize::from(data[5] >> 5);
        out.push(Bytes::copy_from_slice(&data[7..len]));
        data = &data[len..];
    }
    out
}

/// The hash of every decoded picture.
fn pictures_of(args: &[&str]) -> Vec<String> {
    let mut all = vec!["-v", "error"];
    all.extend(args);
    all.extend(["-map", "0:v", "-fps_mode", "passthrough", "-f", "framemd5", "-"]);
    let lines = run("ffmpeg", &all);
    let hash = |l: &str| l.rsplit(',').next().unwrap().trim().to_owned();
    lines.lines().filter(|l| !l.starts_with('#')).map(hash).collect()
}

fn of_file(path: &Path) -> Vec<String> {
    pictures_of(&["-i", path.to_str().unwrap()])
}

#[test]
fn ffmpeg_decodes_every_recorded_picture() {
    if !installed("ffmpeg") {
        return;
    }
    let (clip, storage) = (Clip::make(), Storage::new());
    clip.record(&storage);
    let server = Server::start(&[&storage]);
    let original = of_file(&clip.source());
    assert_eq!(original.len(), 150);
    let url = server.url("door?start=20261120T120000Z&pace=0");
    assert_eq!(pictures_of(&["-rtsp_transport", "tcp", "-i", &url]), original);
    // At its pace, two seconds ahead, by both transports.
    for transport in ["tcp", "udp"] {
        let begun = Instant::now();
        let url = server.url("door?start=20261120T120002Z");
        assert_eq!(
            pictures_of(&["-rtsp_transport", transport, "-i", &url]),
            original[50..],
            "{transport}"
        );
        assert!(begun.elapsed() > Duration::from_millis(1800));
    }
    // Sound comes along.
    let packets = run(
        "ffprobe",
        &[
            "-v",
            "error",
            "-rtsp_transport",
            "tcp",
            "-select_streams",
            "a",
            "-count_packets",
            "-show_entries",
            "stream=codec_name,nb_read_packets",
            "-of",
            "csv=p=0",
            &server.url("door?start=20261120T120000Z&pace=0"),
        ],
    );
    assert_eq!(packets.trim(), format!("aac,{}", clip.sounds.len()));
    // Seeking before the first picture, as `ffmpeg -ss` does. It drops what is before the asked time by itself.
    let seek = pictures_of(&["-rtsp_transport", "tcp", "-ss", "3", "-i", &url]);
    assert!(
        seek.len() <= 76 && original.ends_with(&seek) && seek.len() >= 74,
        "{}",
        seek.len()
    );
    server.wait_for_quiet();
}

#[test]
fn gstreamer_receives_every_recorded_picture() {
    if !installed("gst-launch-1.0") || !installed("ffmpeg") {
        return;
    }
    let (clip, storage) = (Clip::make(), Storage::new());
    clip.record(&storage);
    let server = Server::start(&[&storage]);
    let original = of_file(&clip.source());
    for protocol in ["tcp", "udp"] {
        let out = clip.dir.path().join(format!("{protocol}.h264"));
        let location = format!(
            "location={}",
            server.url("door?start=20261120T120000Z&end=20261120T120004Z&audio=0")
        );
        let (protocols, sink) = (format!("protocols={protocol}"), format!("location={}", out.display()));
        let pipeline = [
            "-q",
            "rtspsrc",
            &location,
            &protocols,
            "!",
            "rtph264depay",
            "!",
            "h264parse",
            "!",
            "video/x-h264,stream-format=byte-stream",
            "!",
            "filesink",
            &sink,
        ];
        run("gst-launch-1.0", &pipeline);
        assert_eq!(of_file(&out), original[..100], "{protocol}");
    }
}

#[test]
fn mpv_knows_the_length_seeks_and_ends() {
    if !installed("mpv") || !installed("ffmpeg") {
        return;
    }
    let (clip, storage) = (Clip::make(), Storage::new());
    clip.record(&storage);
    let server = Server::start(&[&storage]);
    let url = server.url("door?start=20261120T120000Z");
    let shown = |options: &[&str]| {
        let status = "--term-status-msg=at ${=time-pos} of ${=duration} seekable ${seekable}\n";
        let mut args = vec![
            "--no-config",
            "--vo=null",
            "--ao=null",
            "--msg-level=all=no,statusline=status",
            status,
        ];
        args.extend(options);
        args.push(&url);
        let text = run("mpv", &args);
        let mut positions = Vec::new();
        for line in text.split(['\n', '\r']).filter_map(|l| l.split("at ").nth(1)) {
            if let Some((at, rest)) = line.split_once(" of ")
                && let Ok(at) = at.parse::<f64>()
            {
                assert!(
                    rest.starts_with("6.0") && rest.trim().ends_with("seekable yes"),
                    "{line}"
                );
                positions.push(at);
            }
        }
        positions
    };
    let all = shown(&[]);
    assert!(
        all.first().is_some_and(|t| *t < 0.5) && all.last().is_some_and(|t| *t > 5.0),
        "{all:?}"
    );
    let part = shown(&["--start=4"]);
    assert!(
        part.iter().any(|t| (3.9..4.5).contains(t)) && part.last().is_some_and(|t| *t > 5.0),
        "{part:?}"
    );
    server.wait_for_quiet();
}

#[test]
fn ffmpeg_shows_a_live_camera_at_once() {
    if !installed("ffmpeg") {
        return;
    }
    let clip = Clip::make();
    let server = Server::start(&[]);
    server.cameras.add("door", clip.tracks());
    let cameras = server.cameras.clone();
    let all = clip.frames(WallTime::from_system(std::time::SystemTime::now()));
    let camera = std::thread::spawn(move || {
        let begun = Instant::now();
        let start = all[0].time;
        for frame in all {
            let due = begun + frame.time.saturating_since(start);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            cameras.push("door", frame);
        }
    });
    std::thread::sleep(Duration::from_millis(1500));
    let got = pictures_of(&["-rtsp_transport", "tcp", "-i", &server.url("door"), "-frames:v", "50"]);
    camera.join().unwrap();
    let original = of_file(&clip.source());
    let first = original.iter().position(|h| *h == got[0]).unwrap();
    assert!(first % 25 == 0 && first > 0, "starts at a key frame: {first}");
    assert_eq!(got, original[first..first + 50]);
}
