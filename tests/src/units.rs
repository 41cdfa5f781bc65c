//! Access units as they are stored, with their times: read by the `matroska-demuxer` crate, never by the reader that corenvr itself plays with.

use std::{fs::File, path::Path};

use matroska_demuxer::{Frame, MatroskaFile, TrackType};
use sha2::{Digest, Sha256};

/// One stored access unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// A picture, or sound.
    pub video: bool,
    /// Time since the start of the first file of the list, in milliseconds.
    pub time_ms: i64,
    /// Decoding can start here.
    pub key: bool,
    /// Bytes as stored.
    pub size: usize,
    /// SHA-256 over the slices (H.264 types 1 to 5, H.265 types 0 to 31), one after the other; over the whole frame for other codecs.
    pub slices: [u8; 32],
}

/// Reads files in the order given. Times go on over the files: each file's own times start at 0, and its name says when that was.
pub fn of_files<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut first = None;
    for path in paths {
        let start = start_ms(path);
        let origin = *first.get_or_insert(start);
        read(path, start - origin, &mut units);
    }
    units
}

/// The UTC start in a file's name, in milliseconds since midnight plus the day's.
fn start_ms(path: &Path) -> i64 {
    let text = crate::daemon::start_of(path);
    corenvr_media::WallTime::parse(&text).unwrap().as_micros() / 1000
}

fn read(path: &Path, offset_ms: i64, units: &mut Vec<Unit>) {
    let mut file = MatroskaFile::open(File::open(path).unwrap()).unwrap();
    let scale = file.info().timestamp_scale().get();
    let tracks: Vec<(u64, bool, String)> = file
        .tracks()
        .iter()
        .map(|t| {
            let video = t.track_type() == TrackType::Video;
            (t.track_number().get(), video, t.codec_id().to_owned())
        })
        .collect();
    let mut frame = Frame::default();
    while file.next_frame(&mut frame).unwrap() {
        let (_, video, codec) = tracks.iter().find(|t| t.0 == frame.track).unwrap();
        let time_ns = i64::try_from(frame.timestamp).unwrap() * i64::try_from(scale).unwrap();
        units.push(Unit {
            video: *video,
            time_ms: offset_ms + time_ns / 1_000_000,
            key: frame.is_keyframe.unwrap_or(false),
            size: frame.data.len(),
            slices: slices(&frame.data, codec),
        });
    }
}

fn slices(data: &[u8], codec: &str) -> [u8; 32] {
    let hevc = match codec {
        "V_MPEG4/ISO/AVC" => false,
        "V_MPEGH/ISO/HEVC" => true,
        _ => return Sha256::digest(data).into(),
    };
    let mut hash = Sha256::new();
    let mut rest = data;
    while let [a, b, c, d, tail @ ..] = rest {
        let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (nal, after) = tail.split_at(len);
        let slice = if hevc {
            (nal[0] >> 1) & 0x3F < 32
        } else {
            matches!(nal[0] & 0x1F, 1..=5)
        };
        if slice {
            hash.update(nal);
        }
        rest = after;
    }
    assert!(rest.is_empty(), "a unit of {} bytes ends inside a length", data.len());
    hash.finalize().into()
}
