//! MP4 files, judged by ffmpeg against the Matroska files of the same footage, and large ones by their tables.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use bytes::Bytes;
use corenvr_media::{CodecParameters, Frame, TimeRange, TrackId, VideoCodec, WallTime};
use serde_json::Value;

use super::*;
use crate::{
    Archive, ArchiveOptions, SegmentMeta,
    export::{Prepared, prepare, tests as exports},
    mkv::{
        import::read_clip,
        samples::{START, audio, camera, header, video},
        tests::players::have,
    },
};

fn run(program: &str, args: &[&str], file: Option<&Path>) -> (String, String) {
    let mut c = Command::new(program);
    c.args(args).args(file);
    let o = c.output().unwrap();
    let err = String::from_utf8_lossy(&o.stderr).into_owned();
    assert!(o.status.success(), "{program} {args:?}: {err}");
    (String::from_utf8(o.stdout).unwrap(), err)
}

/// A clip that ffmpeg makes, as frames.
fn clip(codecs: &[&str]) -> Option<(Vec<CodecParameters>, Vec<Frame>)> {
    if !have("ffmpeg") || !have("ffprobe") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mkv");
    let mut args = vec!["-v", "error", "-f", "lavfi", "-i", "testsrc2=s=320x240:r=25"];
    args.extend(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", "6"]);
    args.extend(codecs);
    run("ffmpeg", &args, Some(&path));
    let clip = read_clip(&std::fs::read(path).unwrap()).unwrap();
    assert!(clip.skipped.is_empty());
    Some((clip.tracks, clip.frames))
}

struct Footage {
    dir: tempfile::TempDir,
    archive: Archive,
}

/// Records frames with times from the epoch as several segments; each begins `later_ms` later than it would.
fn record(tracks: &[CodecParameters], frames: &[Frame], gap_before: &dyn Fn(usize) -> i64) -> Footage {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = Archive::open(&ArchiveOptions::new(dir.path())).unwrap();
    let has_video = tracks.iter().any(CodecParameters::is_video);
    let mut parts: Vec<Vec<Frame>> = Vec::new();
    let mut later_us = 0;
    for f in frames {
        let cut = f.key && (f.track.0 == 0 || !has_video);
        let full = parts.last().is_none_or(|p| {
            cut && f.time.as_micros() + START.as_micros() + later_us - p[0].time.as_micros() >= 1_900_000
        });
        if full {
            later_us += gap_before(parts.len()) * 1000;
            parts.push(Vec::new());
        }
        let time = START.offset(f.time.as_micros() + later_us);
        if let Some(p) = parts.last_mut() {
            p.push(Frame { time, ..f.clone() });
        }
    }
    for p in &parts {
        let start = p.iter().map(|f| f.time).min().unwrap();
        let h = SegmentHeader {
            start,
            ..header(tracks.to_vec())
        };
        exports::record(&mut archive, h, p);
    }
    Footage { dir, archive }
}

impl Footage {
    fn segments(&mut self) -> Vec<Arc<SegmentMeta>> {
        self.archive.segments(&camera("front-door"), ALL).unwrap()
    }

    /// The range in both formats, as files.
    fn both(&mut self, range: TimeRange) -> [(Prepared, PathBuf); 2] {
        let segments = self.segments();
        [Format::Mkv, Format::Mp4].map(|format| {
            let clip = prepare(&segments, range, format, &mut |_| true).unwrap();
            let path = self.dir.path().join("out").with_extension(format.extension());
            std::fs::write(&path, exports::whole(&clip)).unwrap();
            (clip, path)
        })
    }
}

const ALL: TimeRange = TimeRange {
    start: WallTime::MIN,
    end: WallTime::MAX,
};

/// Kind, time in ms, key frame, hash of every packet, in the order of the file; and what the reader complained of.
fn packets(file: &Path) -> (Vec<(String, f64, bool, String)>, String) {
    let args = ["-v", "error", "-show_packets", "-show_data_hash", "md5", "-of", "json"];
    let (out, err) = run("ffprobe", &args, Some(file));
    let v: Value = serde_json::from_str(&out).unwrap();
    let text = |p: &Value, key: &str| p[key].as_str().unwrap_or_else(|| panic!("{key}: {p}")).to_owned();
    let packets = v["packets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            (
                text(p, "codec_type"),
                text(p, "pts_time").parse::<f64>().unwrap() * 1000.0,
                text(p, "flags").starts_with('K'),
                text(p, "data_hash"),
            )
        })
        .collect();
    (packets, err)
}

fn decoded(file: &Path) -> (Vec<String>, String) {
    let name = file.to_str().unwrap();
    let args = [
        "-v",
        "error",
        "-i",
        name,
        "-map",
        "0",
        "-fps_mode",
        "passthrough",
        "-f",
        "framemd5",
        "-",
    ];
    let (out, err) = run("ffmpeg", &args, None);
    let frames = out.lines().filter(|l| !l.starts_with('#'));
    let field = |l: &str, n: usize| l.split(',').nth(n).unwrap().trim().to_owned();
    (
        frames.map(|l| format!("{} {}", field(l, 0), field(l, 5))).collect(),
        err,
    )
}

/// What ffmpeg says of pictures that were cut off from those before them it may say of both files.
fn complains_of_the_container(mkv: &str, mp4: &str) -> bool {
    !mp4.is_empty() && mkv.is_empty()
}

fn same_packets(mkv: &Path, mp4: &Path) {
    let ((a, said), (b, says)) = (packets(mkv), packets(mp4));
    assert!(!complains_of_the_container(&said, &says), "{says}");
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        assert_eq!(
            (&a.0, &a.2, &a.3),
            (&b.0, &b.2, &b.3),
            "packet {i} at {} and {}",
            a.1,
            b.1
        );
        assert!((a.1 - b.1).abs() <= 1.0, "packet {i}: {} and {} ms", a.1, b.1);
    }
}

fn probe(file: &Path) -> Value {
    let (out, _) = run(
        "ffprobe",
        &["-v", "error", "-show_format", "-show_streams", "-of", "json"],
        Some(file),
    );
    serde_json::from_str(&out).unwrap()
}

/// The first boxes of a file, with their lengths.
fn boxes(mut b: &[u8]) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    while b.len() >= 8 {
        let mut len = u64::from(u32::from_be_bytes(b[..4].try_into().unwrap()));
        if len == 1 {
            len = u64::from_be_bytes(b[8..16].try_into().unwrap());
        }
        found.push((String::from_utf8_lossy(&b[4..8]).into_owned(), len));
        b = b.get(len as usize..).unwrap_or(&[]);
    }
    found
}

fn check(codecs: &[&str], sound_is_the_same: bool) {
    let Some((tracks, frames)) = clip(codecs) else { return };
    let mut footage = record(&tracks, &frames, &|_| 0);
    assert!(footage.segments().len() >= 3);
    for range in [
        ALL,
        TimeRange {
            start: START.offset(1_500_000),
            end: START.offset(4_321_000),
        },
    ] {
        let [(_, mkv), (clip, mp4)] = footage.both(range);
        same_packets(&mkv, &mp4);
        let [(a, said), (b, says)] = [&mkv, &mp4].map(|f| {
            let (mut d, says) = decoded(f);
            d.retain(|l| sound_is_the_same || l.starts_with("0 "));
            // framemd5 orders by time, and the time of sound is not the same to the microsecond.
            d.sort_by_key(|l| l.split(' ').next().map(str::to_owned));
            (d, says)
        });
        assert!(!complains_of_the_container(&said, &says), "{says}");
        assert!(a == b, "{codecs:?}: decoded differently");
        let bytes = std::fs::read(&mp4).unwrap();
        let order: Vec<_> = boxes(&bytes).into_iter().map(|b| b.0).collect();
        assert_eq!(order, ["ftyp", "moov", "mdat"]);
        let p = probe(&mp4);
        let duration: f64 = p["format"]["duration"].as_str().unwrap().parse().unwrap();
        let range = clip.contents().range.unwrap();
        assert!(
            (duration - range.duration().as_secs_f64()).abs() < 0.002,
            "{duration} and {range:?}"
        );
        let tags = &p["format"]["tags"];
        let seconds = range.start.to_string()[..19].to_owned();
        let exact = format!("{seconds}.{:06}Z", range.start.as_micros() % 1_000_000);
        assert_eq!(
            (tags["date"].as_str(), tags["title"].as_str()),
            (Some(&*exact), Some("front-door"))
        );
        assert_eq!(tags["CORENVR_START"].as_str(), Some(&*exact));
        assert_eq!(tags["creation_time"].as_str(), Some(&*format!("{seconds}.000000Z")));
        for s in p["streams"].as_array().unwrap() {
            let start: f64 = s["start_time"].as_str().unwrap().parse().unwrap();
            // Cut in the middle, the clip begins with a picture.
            let picture = s["codec_type"] == "video" && clip.contents().range.unwrap().start > START.offset(100_000);
            assert!(start < if picture { 0.000_1 } else { 0.1 }, "{s}");
        }
    }
}

#[test]
fn h264_with_b_pictures_and_aac() {
    check(
        &[
            "-c:v",
            "libx264",
            "-bf",
            "3",
            "-b_strategy",
            "0",
            "-g",
            "25",
            "-c:a",
            "aac",
        ],
        true,
    );
}

#[test]
fn h264_with_open_groups_and_pcmu() {
    check(
        &[
            "-c:v",
            "libx264",
            "-bf",
            "2",
            "-g",
            "25",
            "-x264-params",
            "open-gop=1",
            "-c:a",
            "pcm_mulaw",
            "-ar",
            "8000",
        ],
        true,
    );
}

#[test]
fn h265_and_pcma() {
    check(
        &[
            "-c:v",
            "libx265",
            "-x265-params",
            "log-level=error:keyint=25:open-gop=0",
            "-c:a",
            "pcm_alaw",
            "-ar",
            "8000",
        ],
        true,
    );
}

#[test]
fn av1_and_opus() {
    // How many of the first samples are thrown away is a matter of the demuxer.
    check(
        &[
            "-c:v",
            "libaom-av1",
            "-cpu-used",
            "8",
            "-g",
            "25",
            "-usage",
            "realtime",
            "-c:a",
            "libopus",
        ],
        false,
    );
}

#[test]
fn mjpeg_and_linear_sound() {
    check(&["-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s16be"], true);
}

#[test]
fn sound_alone() {
    check_sound(&["-map", "1", "-c:a", "aac"]);
}

fn check_sound(codecs: &[&str]) {
    let Some((tracks, frames)) = clip(codecs) else { return };
    let mut footage = record(&tracks, &frames, &|_| 0);
    let [(_, mkv), (_, mp4)] = footage.both(ALL);
    same_packets(&mkv, &mp4);
    assert_eq!(decoded(&mkv), decoded(&mp4));
}

#[test]
fn sound_stays_in_step_with_the_picture_behind_gaps() {
    let Some((tracks, frames)) = clip(&["-c:v", "libx264", "-bf", "3", "-g", "25", "-c:a", "aac"]) else {
        return;
    };
    // A hole of half a second and one of a day, so that the tables cannot have fine ticks.
    for gaps in [[0, 500, 0], [0, 3_600_000, 0], [0, 86_400_123, 40_000]] {
        let mut footage = record(&tracks, &frames, &|i| gaps.get(i).copied().unwrap_or(0));
        let [(_, mkv), (clip, mp4)] = footage.both(ALL);
        same_packets(&mkv, &mp4);
        assert_eq!(clip.contents().gaps.len(), gaps.iter().filter(|g| **g > 1000).count());
    }
}

#[test]
fn a_track_that_begins_later_is_shown_later() {
    let Some((tracks, frames)) = clip(&["-c:v", "libx264", "-bf", "2", "-g", "25", "-c:a", "aac"]) else {
        return;
    };
    // Sound that is there 300 ms before the first picture, and sound that comes 300 ms after it.
    for late in [0u8, 1] {
        let frames: Vec<Frame> = frames
            .iter()
            .map(|f| Frame {
                time: f.time.offset(if f.track.0 == late { 300_000 } else { 0 }),
                ..f.clone()
            })
            .collect();
        let mut footage = record(&tracks, &frames, &|_| 0);
        let [(_, mkv), (_, mp4)] = footage.both(ALL);
        same_packets(&mkv, &mp4);
        let first = |kind: &str| {
            packets(&mp4)
                .0
                .into_iter()
                .filter(|p| p.0 == kind)
                .map(|p| p.1)
                .fold(f64::MAX, f64::min)
        };
        let (picture, sound) = (first("video"), first("audio"));
        assert!(
            (picture - if late == 0 { 300.0 } else { 0.0 }).abs() <= 30.0,
            "{picture}"
        );
        assert!((sound - if late == 1 { 300.0 } else { 0.0 }).abs() <= 30.0, "{sound}");
    }
}

/// Reads back, for the tests of large tables, what a box holds.
fn find<'a>(b: &'a [u8], path: &[&str]) -> &'a [u8] {
    let Some((first, rest)) = path.split_first() else {
        return b;
    };
    let mut at = 0;
    while at + 8 <= b.len() {
        let len = u32::from_be_bytes(b[at..at + 4].try_into().unwrap()) as usize;
        if &b[at + 4..at + 8] == first.as_bytes() {
            return find(&b[at + 8..at + len], rest);
        }
        at += len;
    }
    panic!("no {first}");
}

#[test]
fn offsets_beyond_four_gigabytes() {
    let tracks = vec![video(VideoCodec::H264), audio(corenvr_media::AudioCodec::Aac)];
    let h = header(tracks);
    let mut movie = Movie::new(&h, 3_600_000_000).unwrap();
    // The tables do not look at the payloads, so one is enough for all.
    let frame = |track, ms: i64, len: usize| Frame {
        track: TrackId(track),
        time: START.offset(ms * 1000),
        key: ms % 1000 == 0,
        data: Bytes::from(vec![0; len]),
    };
    let (large, small) = (frame(0, 0, 8 << 20), frame(1, 0, 300));
    let mut expected = Vec::new();
    let mut body = 0u64;
    for i in 0..1000i64 {
        let time = START.offset(i * 40_000);
        let key = i % 25 == 0;
        movie.add(&[
            Frame {
                time,
                key,
                ..large.clone()
            },
            Frame { time, ..small.clone() },
        ]);
        expected.push(body);
        body += (8 << 20) + 300;
    }
    assert!(body > 8_000_000_000);
    assert_eq!((movie.body_len, movie.frames()), (body, 2000));
    assert_eq!(movie.end(), START.offset(40_000_000));
    let head = movie.into_head();
    // The head of mdat is the last 16 bytes, with a size of 64 bits.
    assert_eq!(head[head.len() - 16..head.len() - 8], *b"\0\0\0\x01mdat");
    assert_eq!(head[head.len() - 8..], (body + 16).to_be_bytes());
    let stbl = find(&head, &["moov", "trak", "mdia", "minf", "stbl"]);
    let co64 = find(stbl, &["co64"]);
    assert_eq!(co64[4..8], 1000u32.to_be_bytes());
    let offsets: Vec<u64> = co64[8..]
        .chunks(8)
        .map(|c| u64::from_be_bytes(c.try_into().unwrap()))
        .collect();
    let base = head.len() as u64;
    assert!(offsets.iter().zip(&expected).all(|(o, e)| *o == e + base));
    // One sample in each chunk, a key frame a second.
    assert_eq!(
        find(stbl, &["stsc"])[4..],
        [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]
    );
    assert_eq!(find(stbl, &["stss"])[4..16], [0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, 26]);
    let mvhd = find(&head, &["moov", "mvhd"]);
    assert_eq!(mvhd[20..24], 90_000u32.to_be_bytes());
    assert_eq!(mvhd[24..32], (40u64 * 90_000).to_be_bytes());
}
