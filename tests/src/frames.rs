//! Frames as fingerprints, so that what was sent, stored and played can be compared bit for bit.
//!
//! Files are read by ffmpeg and by the `matroska-demuxer` crate, never by the reader that corenvr itself plays with.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    process::Command,
};

use sha2::{Digest, Sha256};

use crate::process::run;

/// First eight bytes of a SHA-256.
pub type Print = u64;

fn print(data: &[u8]) -> Print {
    u64::from_be_bytes(Sha256::digest(data)[..8].try_into().unwrap())
}

/// The fingerprints of a stream: of every slice NAL unit (H.264, H.265) or every picture (MJPEG), and the audio's bytes.
#[derive(Debug, Default, Clone)]
pub struct Prints {
    /// One per slice, in stored order.
    pub video: Vec<Print>,
    /// One per packet, in stored order.
    pub audio: Vec<Print>,
    /// The audio's payload as one piece, for codecs whose packets may be cut differently.
    pub audio_bytes: Vec<u8>,
}

/// A video codec, as ffprobe names it.
pub fn video_codec(path: &Path) -> String {
    let mut probe = Command::new("ffprobe");
    probe.args([
        "-v",
        "error",
        "-select_streams",
        "v:0",
        "-show_entries",
        "stream=codec_name",
        "-of",
        "csv=p=0",
    ]);
    let out = run(probe.arg(path));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// Slices of an Annex B byte stream.
pub fn annex_b_slices(stream: &[u8], hevc: bool) -> Vec<Print> {
    let mut starts = Vec::new();
    let mut at = 0;
    while let Some(found) = stream[at..].windows(3).position(|w| w == [0, 0, 1]) {
        starts.push(at + found + 3);
        at += found + 3;
    }
    let mut prints = Vec::new();
    for (i, &from) in starts.iter().enumerate() {
        let to = starts.get(i + 1).map_or(stream.len(), |next| next - 3);
        // Zeros before the next start code belong to it, and trailing ones are not part of a NAL unit.
        let nal = &stream[from..to];
        let nal = &nal[..nal.iter().rposition(|b| *b != 0).map_or(0, |p| p + 1)];
        if is_slice(nal, hevc) {
            prints.push(print(nal));
        }
    }
    prints
}

fn is_slice(nal: &[u8], hevc: bool) -> bool {
    match nal.first() {
        Some(head) if hevc => (head >> 1) & 0x3F < 32,
        Some(head) => matches!(head & 0x1F, 1..=5),
        None => false,
    }
}

/// Reads a media file through ffmpeg.
pub fn of_file(path: &Path) -> Prints {
    let codec = video_codec(path);
    let extract = |args: &[&str]| {
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-v", "error", "-i"]).arg(path).args(args).arg("-");
        run(&mut ffmpeg).stdout
    };
    let video = match codec.as_str() {
        "h264" => annex_b_slices(
            &extract(&[
                "-map",
                "0:v:0",
                "-c",
                "copy",
                "-bsf:v",
                "h264_mp4toannexb",
                "-f",
                "h264",
            ]),
            false,
        ),
        "hevc" => annex_b_slices(
            &extract(&[
                "-map",
                "0:v:0",
                "-c",
                "copy",
                "-bsf:v",
                "hevc_mp4toannexb",
                "-f",
                "hevc",
            ]),
            true,
        ),
        _ => packet_hashes(path, "v:0"),
    };
    let audio_bytes = if has_audio(path) {
        extract(&["-map", "0:a:0", "-c", "copy", "-f", "data"])
    } else {
        Vec::new()
    };
    let audio = if audio_bytes.is_empty() {
        Vec::new()
    } else {
        packet_hashes(path, "a:0")
    };
    Prints {
        video,
        audio,
        audio_bytes,
    }
}

fn has_audio(path: &Path) -> bool {
    let mut probe = Command::new("ffprobe");
    probe.args([
        "-v",
        "error",
        "-select_streams",
        "a",
        "-show_entries",
        "stream=index",
        "-of",
        "csv=p=0",
    ]);
    !run(probe.arg(path)).stdout.is_empty()
}

fn packet_hashes(path: &Path, stream: &str) -> Vec<Print> {
    let mut probe = Command::new("ffprobe");
    probe.args([
        "-v",
        "error",
        "-select_streams",
        stream,
        "-show_data_hash",
        "SHA256",
        "-show_entries",
        "packet=data_hash",
        "-of",
        "csv=p=0",
    ]);
    let out = String::from_utf8(run(probe.arg(path)).stdout).unwrap();
    out.lines()
        .filter(|l| !l.trim().is_empty())
        .map(|l| print(l.trim().trim_end_matches(',').as_bytes()))
        .collect()
}

/// Joins recorded files in order.
pub fn of_files<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Prints {
    let mut all = Prints::default();
    for path in paths {
        let one = of_file(path);
        all.video.extend(one.video);
        all.audio.extend(one.audio);
        all.audio_bytes.extend(one.audio_bytes);
    }
    all
}

/// Where `part` stands in `whole`, without a hole, a repetition or a change; panics saying what is wrong otherwise.
pub fn assert_contiguous(what: &str, part: &[Print], whole: &[Print]) -> usize {
    assert!(!part.is_empty(), "{what}: nothing there");
    let mut places: HashMap<Print, VecDeque<usize>> = HashMap::new();
    for (i, p) in whole.iter().enumerate() {
        places.entry(*p).or_default().push_back(i);
    }
    let starts = places
        .get(&part[0])
        .unwrap_or_else(|| panic!("{what}: the first unit was never sent"));
    let best = starts
        .iter()
        .map(|&s| (part.iter().zip(&whole[s..]).take_while(|(a, b)| a == b).count(), s))
        .max()
        .unwrap();
    if best.0 == part.len() {
        return best.1;
    }
    let (same, start) = best;
    let expected = start + same;
    let found = places.get(&part[same]).map(|p| p.iter().copied().collect::<Vec<_>>());
    panic!(
        "{what}: {} units, sent ones {start}..{expected} are right, then comes {found:?} (in the source) instead of {expected} of {}",
        part.len(),
        whole.len()
    );
}

/// As [`assert_contiguous`] for bytes.
pub fn assert_contiguous_bytes(what: &str, part: &[u8], whole: &[u8]) -> usize {
    assert!(part.len() >= 64, "{what}: only {} bytes", part.len());
    let start = whole
        .windows(64)
        .position(|w| w == &part[..64])
        .unwrap_or_else(|| panic!("{what}: begins with what was never sent"));
    let same = part.iter().zip(&whole[start..]).take_while(|(a, b)| a == b).count();
    assert_eq!(
        same,
        part.len(),
        "{what}: differs from what was sent {same} bytes after its start"
    );
    start
}
