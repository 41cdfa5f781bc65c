//! Real streams of every codec through import and writer, judged by ffprobe, ffmpeg and mkvinfo where they are installed.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use corenvr_media::{AudioCodec, CodecParameters, Frame, VideoCodec};

use super::{
    super::{
        import::{Clip, ImportError, read_clip},
        samples::{START, camera},
        writer::SegmentHeader,
    },
    sealed, write,
};

pub fn have(program: &str) -> bool {
    let version = if program == "mkvinfo" { "--version" } else { "-version" };
    let found = Command::new(program)
        .arg(version)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Runs a program; returns stdout, or `None` with a note if it fails (an encoder that this ffmpeg does not have).
fn run(program: &str, args: &[&str]) -> (bool, String, String) {
    let out = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    (
        out.status.success(),
        String::from_utf8_lossy(&out.stdout).into_owned(),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    )
}

/// An ffmpeg clip: 3 s of video and sound with these encoder options.
fn clip(dir: &Path, video: &[&str], audio: &[&str]) -> Option<Vec<u8>> {
    let path = dir.join("clip.mkv");
    let mut args = vec!["-v", "error", "-y"];
    if !video.is_empty() {
        args.extend(["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25"]);
    }
    if !audio.is_empty() {
        args.extend(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]);
    }
    args.extend(["-t", "3"]);
    args.extend(video);
    args.extend(audio);
    let path_text = path.to_str().unwrap();
    args.push(path_text);
    let (ok, _, err) = run("ffmpeg", &args);
    if !ok {
        eprintln!("skipped: ffmpeg cannot encode {video:?} {audio:?}: {err}");
        return None;
    }
    Some(fs::read(path).unwrap())
}

fn rewrite(clip: &Clip, seal: bool) -> Vec<u8> {
    let frames: Vec<Frame> = clip
        .frames
        .iter()
        .map(|f| Frame {
            time: START.offset(f.time.as_micros()),
            ..f.clone()
        })
        .collect();
    let header = SegmentHeader {
        camera: camera("front-door"),
        start: START,
        tracks: clip.tracks.clone().into(),
        gap_before: None,
        backfilled_until: None,
    };
    let flushes: Vec<&[Frame]> = frames.chunks(60).collect();
    let (out, _, w) = write(header, &flushes);
    if seal { sealed(out, w) } else { out }
}

/// Every packet's stream, time and hash, as ffprobe reads the file.
fn packets(path: &Path) -> Vec<(u64, f64, String)> {
    let (ok, out, err) = run(
        "ffprobe",
        &[
            "-v",
            "warning",
            "-show_packets",
            "-show_data_hash",
            "md5",
            "-of",
            "json",
            path.to_str().unwrap(),
        ],
    );
    assert!(ok && err.is_empty(), "{path:?}: {err}");
    let all: serde_json::Value = serde_json::from_str(&out).unwrap();
    let text = |p: &serde_json::Value, key: &str| p[key].as_str().unwrap().to_owned();
    all["packets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            (
                p["stream_index"].as_u64().unwrap(),
                text(p, "pts_time").parse().unwrap(),
                text(p, "data_hash"),
            )
        })
        .collect()
}

/// The judges' view of our file against the clip it was made from.
fn judge(dir: &Path, bytes: &[u8], what: &str) {
    let source = read_clip(bytes).unwrap();
    let original = packets(&dir.join("clip.mkv"));
    for seal in [false, true] {
        let path = dir.join("ours.mkv");
        fs::write(&path, rewrite(&source, seal)).unwrap();
        let ours = packets(&path);
        assert_eq!(ours.len(), original.len(), "{what}");
        for (a, b) in ours.iter().zip(&original) {
            assert_eq!((a.0, &a.2), (b.0, &b.2), "{what} sealed={seal}");
            assert!((a.1 - b.1).abs() < 0.0015, "{what}: {} against {}", a.1, b.1);
        }
        let (ok, _, err) = run(
            "ffmpeg",
            &["-v", "warning", "-i", path.to_str().unwrap(), "-f", "null", "-"],
        );
        // Matroska has no channel layout for PCM: ffmpeg says that it takes mono for mono.
        let complaints: Vec<_> = err
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with("Guessed Channel Layout"))
            .collect();
        assert!(ok && complaints.is_empty(), "{what} sealed={seal}: {complaints:?}");
        if have("mkvinfo") {
            let (ok, out, err) = run("mkvinfo", &["-v", "-v", path.to_str().unwrap()]);
            assert!(ok && err.is_empty(), "{what}: {err}");
            assert!(
                !out.contains("Error") && !out.contains("invalid") && !out.contains("Unknown element"),
                "{what}: {out}"
            );
        }
    }
}

const VIDEO_OPTIONS: [(VideoCodec, &[&str]); 5] = [
    (
        VideoCodec::H264,
        &[
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-g",
            "25",
            "-pix_fmt",
            "yuv420p",
        ],
    ),
    (
        VideoCodec::H264,
        &["-c:v", "libx264", "-g", "25", "-bf", "3", "-pix_fmt", "yuv420p"],
    ),
    (
        VideoCodec::H265,
        &[
            "-c:v",
            "libx265",
            "-preset",
            "ultrafast",
            "-x265-params",
            "log-level=error",
            "-g",
            "25",
        ],
    ),
    (
        VideoCodec::Av1,
        &["-c:v", "libaom-av1", "-cpu-used", "8", "-usage", "realtime", "-g", "25"],
    ),
    (VideoCodec::Mjpeg, &["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"]),
];
const AUDIO_OPTIONS: [(AudioCodec, &[&str]); 5] = [
    (AudioCodec::Aac, &["-c:a", "aac"]),
    (AudioCodec::Opus, &["-c:a", "libopus"]),
    (AudioCodec::Pcma, &["-c:a", "pcm_alaw", "-ar", "8000"]),
    (AudioCodec::Pcmu, &["-c:a", "pcm_mulaw", "-ar", "8000"]),
    (AudioCodec::L16, &["-c:a", "pcm_s16be"]),
];

#[test]
fn players_find_every_codec_clean() {
    if !have("ffmpeg") || !have("ffprobe") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (i, (codec, video)) in VIDEO_OPTIONS.iter().enumerate() {
        let (sound, audio) = &AUDIO_OPTIONS[i];
        let what = format!("{codec:?} and {sound:?}");
        let Some(bytes) = clip(dir.path(), video, audio) else {
            continue;
        };
        let c = read_clip(&bytes).unwrap();
        assert!(
            matches!(&c.tracks[0], CodecParameters::Video(v) if v.codec == *codec),
            "{what}"
        );
        assert!(
            matches!(&c.tracks[1], CodecParameters::Audio(a) if a.codec == *sound),
            "{what}"
        );
        judge(dir.path(), &bytes, &what);
    }
    let Some(bytes) = clip(dir.path(), &[], AUDIO_OPTIONS[0].1) else {
        return;
    };
    judge(dir.path(), &bytes, "sound alone");
}

#[test]
fn g726_is_named_as_the_decoder_expects() {
    if !have("ffprobe") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for bits in 2..=5u8 {
        let header = super::sample_header(vec![super::audio(AudioCodec::G726 { bits })]);
        let frames: Vec<Frame> = (0..100)
            .map(|i| Frame {
                track: corenvr_media::TrackId(0),
                time: START.offset(i * 20_000),
                key: true,
                data: super::payload(i as u64, 20 * usize::from(bits)),
            })
            .collect();
        let (out, _, w) = write(header, &[&frames]);
        let path = dir.path().join("g726.mkv");
        fs::write(&path, sealed(out, w)).unwrap();
        let (ok, out, err) = run(
            "ffprobe",
            &[
                "-v",
                "warning",
                "-show_entries",
                "stream=codec_name,sample_rate,bits_per_coded_sample",
                "-of",
                "csv=p=0",
                path.to_str().unwrap(),
            ],
        );
        assert!(ok && err.is_empty(), "{err}");
        assert_eq!(out.trim(), format!("adpcm_g726,8000"), "{bits}");
    }
}

#[test]
fn clips_with_lacing_block_groups_and_unknown_sizes_are_read() {
    if !have("ffmpeg") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(bytes) = clip(dir.path(), VIDEO_OPTIONS[0].1, AUDIO_OPTIONS[0].1) else {
        return;
    };
    let plain = read_clip(&bytes).unwrap();
    let source = dir.path().join("clip.mkv");
    let other = dir.path().join("other.mkv");
    let (source, other) = (source.to_str().unwrap(), other.to_str().unwrap());
    let (ok, _, err) = run(
        "ffmpeg",
        &["-v", "error", "-y", "-i", source, "-c", "copy", "-live", "1", other],
    );
    assert!(ok, "{err}");
    same(&plain, &read_clip(&fs::read(other).unwrap()).unwrap());
    if have("mkvinfo") {
        for options in [
            &["--engage", "no_simpleblocks"][..],
            &["--engage", "lacing_xiph"],
            &["--engage", "lacing_ebml"],
        ] {
            let (ok, out, _) = run("mkvmerge", &[options, &["-q", "-o", other, source]].concat());
            assert!(ok, "{out}");
            same(&plain, &read_clip(&fs::read(other).unwrap()).unwrap());
        }
    }
}

/// Each track has the same frames.
fn same(a: &Clip, b: &Clip) {
    assert_eq!(a.tracks.len(), b.tracks.len());
    for track in 0..a.tracks.len() as u8 {
        let of = |c: &Clip| -> Vec<_> { c.frames.iter().filter(|f| f.track.0 == track).cloned().collect() };
        let (a, b) = (of(a), of(b));
        assert_eq!(a.len(), b.len());
        for (x, y) in a.iter().zip(&b) {
            assert!(x.data == y.data && x.key == y.key);
            assert!(x.time.micros_since(y.time).abs() <= 25_000, "{:?} {:?}", x.time, y.time);
        }
    }
}

#[test]
fn what_is_no_clip_is_refused() {
    assert!(matches!(read_clip(b"RIFF"), Err(ImportError::Demux(_))));
    assert!(matches!(read_clip(b""), Err(ImportError::Demux(_))));
}
