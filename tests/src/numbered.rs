//! Footage whose every frame carries its number twice: drawn into the picture, for what a player shows, and in an SEI message, for what it receives.
//!
//! It is written into an archive by the store's own writer, so that no test has to wait for a recording.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use corenvr_media::{CameraName, CodecParameters, Frame, TrackId, VideoCodec, WallTime};
use corenvr_store::{
    Archive, ArchiveOptions, SegmentHeader,
    mkv::{file::SegmentFile, import::read_clip},
};

/// Size of the pictures.
pub const WIDTH: usize = 320;
/// Size of the pictures.
pub const HEIGHT: usize = 176;
/// Pictures a second.
pub const RATE: i64 = 25;
/// From one picture to the next.
pub const FRAME_MICROS: i64 = 1_000_000 / RATE;
/// Length of a segment. A clip holds several, and every GOP length used here divides it.
pub const SEGMENT_SECONDS: i64 = 20;
/// Pictures that are really encoded: the drawn numbers repeat after so many, those in the SEI do not.
pub const CLIP_FRAMES: i64 = 80 * RATE;
/// Marks the SEI messages that hold a number (ITU-T H.264, D.1.6: user data unregistered).
const UUID: [u8; 16] = *b"corenvr-numbered";
/// A number is a row of this many blocks, most significant bit first; the last ones are its check bits.
const BLOCKS: usize = 20;
const CHECK_BITS: usize = 4;
const BLOCK_WIDTH: usize = WIDTH / BLOCKS;
const BLOCK_HEIGHT: usize = 32;

/// How the footage is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// H.264, only predicted from the past, a key frame every second, with AAC.
    H264Aac,
    /// H.264, only predicted from the past, a key frame every four seconds.
    H264Long,
    /// H.264 with a pyramid of B pictures, a key frame every two seconds.
    H264Pyramid,
    /// H.265 with B pictures, a key frame every two seconds.
    H265,
}

impl Kind {
    /// From one key frame to the next, in pictures.
    pub const fn gop(self) -> i64 {
        match self {
            Self::H264Aac => 25,
            Self::H264Long => 100,
            Self::H264Pyramid | Self::H265 => 50,
        }
    }

    /// Whether it is H.265.
    pub const fn is_hevc(self) -> bool {
        matches!(self, Self::H265)
    }

    fn encoder(self) -> Vec<String> {
        let gop = self.gop();
        let gop = format!("keyint={gop}:min-keyint={gop}:scenecut=0");
        let args: [&str; 6] = match self {
            Self::H264Aac | Self::H264Long => [
                "-c:v",
                "libx264",
                "-preset",
                "ultrafast",
                "-x264-params",
                &format!("{gop}:bframes=0"),
            ],
            Self::H264Pyramid => [
                "-c:v",
                "libx264",
                "-preset",
                "superfast",
                "-x264-params",
                &format!("{gop}:bframes=3:b-adapt=0:b-pyramid=normal"),
            ],
            Self::H265 => [
                "-c:v",
                "libx265",
                "-preset",
                "ultrafast",
                "-x265-params",
                &format!("{gop}:bframes=2:b-adapt=0:open-gop=0:log-level=error"),
            ],
        };
        args.map(str::to_owned).into()
    }
}

/// A stretch of footage in an archive: segments of [`SEGMENT_SECONDS`] without a seam between them.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    /// Seconds from the start of the recording.
    pub at: i64,
    /// How many segments.
    pub segments: i64,
}

/// What was written. Pictures are numbered in the order they are shown, through all of it.
#[derive(Debug, Clone)]
pub struct Recording {
    /// When the first picture is shown.
    pub start: WallTime,
    /// How it is encoded.
    pub kind: Kind,
    stretches: Vec<Stretch>,
}

impl Recording {
    /// Writes a camera's recording into a storage directory that nobody has open: ten minutes in two halves with three minutes of nothing in between.
    pub fn write(storage: &Path, camera: &str, kind: Kind) -> Self {
        let halves = [Stretch { at: 0, segments: 15 }, Stretch { at: 480, segments: 15 }];
        Self::write_stretches(storage, camera, kind, &halves)
    }

    /// As [`Self::write`], with the footage there is.
    pub fn write_stretches(storage: &Path, camera: &str, kind: Kind, stretches: &[Stretch]) -> Self {
        let clip = Clip::encode(storage, kind);
        let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        let recording = Self {
            start: WallTime::from_micros(WallTime::from_system(hour_ago).as_micros() / 60_000_000 * 60_000_000),
            kind,
            stretches: stretches.to_vec(),
        };
        let mut archive = Archive::open(&ArchiveOptions::new(storage)).unwrap();
        archive.recover(&mut |_| ()).unwrap();
        let mut first = 0;
        for stretch in stretches {
            for i in 0..stretch.segments {
                let start = recording.start.offset((stretch.at + i * SEGMENT_SECONDS) * 1_000_000);
                clip.write_segment(&mut archive, camera, first, start);
                first += SEGMENT_SECONDS * RATE;
            }
        }
        archive.flush().unwrap();
        recording
    }

    /// How many pictures there are.
    pub fn len(&self) -> i64 {
        self.stretches.iter().map(|s| s.segments * SEGMENT_SECONDS * RATE).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When a picture is shown.
    pub fn time_of(&self, number: i64) -> WallTime {
        let mut first = 0;
        for stretch in &self.stretches {
            let count = stretch.segments * SEGMENT_SECONDS * RATE;
            if number < first + count {
                return self
                    .start
                    .offset(stretch.at * 1_000_000 + (number - first) * FRAME_MICROS);
            }
            first += count;
        }
        panic!("there are only {first} pictures, not {number}");
    }

    /// The moment after a picture.
    pub fn end_of(&self, number: i64) -> WallTime {
        self.time_of(number).offset(FRAME_MICROS)
    }

    /// The last picture of the stretch that this one is in.
    pub fn before_gap(&self) -> i64 {
        self.stretches[0].segments * SEGMENT_SECONDS * RATE - 1
    }

    /// The key frame at or before a picture.
    pub const fn key_of(&self, number: i64) -> i64 {
        number - number % self.kind.gop()
    }
}

/// The encoded pictures, and sound if there is any.
struct Clip {
    tracks: Arc<[CodecParameters]>,
    codec: VideoCodec,
    /// In stored order; times count from zero.
    frames: Vec<Frame>,
}

impl Clip {
    fn encode(dir: &Path, kind: Kind) -> Self {
        let path = dir.join(format!("{kind:?}.mkv"));
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "yuv420p"]);
        ffmpeg.args(["-s", &format!("{WIDTH}x{HEIGHT}"), "-r", &RATE.to_string(), "-i", "-"]);
        if kind == Kind::H264Aac {
            ffmpeg.args([
                "-f",
                "lavfi",
                "-i",
                "sine=frequency=300:beep_factor=4:sample_rate=16000",
                "-shortest",
            ]);
            ffmpeg.args(["-c:a", "aac", "-ac", "1", "-b:a", "32k"]);
        }
        ffmpeg.args(kind.encoder()).args(["-crf", "24"]).arg(&path);
        let mut child = ffmpeg.stdin(Stdio::piped()).spawn().expect("ffmpeg");
        let mut pipe = std::io::BufWriter::with_capacity(1 << 20, child.stdin.take().unwrap());
        let mut painter = Painter::new();
        for n in 0..CLIP_FRAMES {
            pipe.write_all(painter.picture(n)).unwrap();
        }
        drop(pipe);
        assert!(child.wait().unwrap().success(), "ffmpeg cannot encode {kind:?}");
        let clip = read_clip(&std::fs::read(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        let CodecParameters::Video(video) = &clip.tracks[0] else {
            panic!("no video in the clip")
        };
        let codec = video.codec;
        let first = clip
            .frames
            .iter()
            .filter(|f| f.track == TrackId(0))
            .map(|f| f.time)
            .min();
        let first = first.unwrap();
        let mut frames = clip.frames;
        for f in &mut frames {
            f.time = WallTime::from_micros(f.time.micros_since(first).max(0));
        }
        Self {
            tracks: clip.tracks.into(),
            codec,
            frames,
        }
    }

    /// Writes the segment whose first picture has this number, with clusters of two seconds.
    fn write_segment(&self, archive: &mut Archive, camera: &str, first: i64, start: WallTime) {
        let header = SegmentHeader {
            camera: CameraName::new(camera).unwrap(),
            start,
            tracks: self.tracks.clone(),
            gap_before: None,
            backfilled_until: None,
        };
        let opened = archive.open_segment(header).unwrap();
        let mut file = SegmentFile::start(&opened.path, opened.header).unwrap();
        let from = first % CLIP_FRAMES * FRAME_MICROS;
        let frames = self.frames.iter().filter_map(|f| {
            let at = f.time.as_micros() - from;
            (0..SEGMENT_SECONDS * 1_000_000).contains(&at).then(|| Frame {
                time: start.offset(at),
                data: if f.track == TrackId(0) {
                    with_number(&f.data, self.codec, first + at / FRAME_MICROS)
                } else {
                    f.data.clone()
                },
                ..f.clone()
            })
        });
        let frames: Vec<Frame> = frames.collect();
        let per_cluster = frames.len() / (SEGMENT_SECONDS as usize / 2);
        for part in frames.chunks(per_cluster) {
            for cluster in file.append(part).unwrap() {
                archive.cluster_durable(&opened.key, &cluster).unwrap();
            }
        }
        let sealed = file.seal().unwrap();
        archive.seal_segment(&opened.key, sealed).unwrap();
    }
}

/// Puts an SEI message with the number in front of the first slice.
fn with_number(data: &[u8], codec: VideoCodec, number: i64) -> Bytes {
    let hevc = codec == VideoCodec::H265;
    let mut sei = if hevc { vec![39 << 1, 1] } else { vec![6] };
    let text = format!("{number:08}");
    sei.extend([5, (UUID.len() + text.len()) as u8]);
    sei.extend(UUID);
    sei.extend(text.as_bytes());
    sei.push(0x80);
    let mut out = Vec::with_capacity(data.len() + 4 + sei.len());
    let mut rest = data;
    let mut done = false;
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let (nal, tail) = tail.split_at(u32::from_be_bytes(*len) as usize);
        let is_slice = if hevc {
            (nal[0] >> 1) & 0x3F < 32
        } else {
            matches!(nal[0] & 0x1F, 1..=5)
        };
        if is_slice && !std::mem::replace(&mut done, true) {
            out.extend((sei.len() as u32).to_be_bytes());
            out.extend(&sei);
        }
        out.extend(len);
        out.extend(nal);
        rest = tail;
    }
    assert!(done, "an access unit without a slice");
    out.into()
}

/// The numbers in the SEI messages of a byte stream, in its order.
pub fn sei_numbers(stream: &[u8]) -> Vec<i64> {
    let mut numbers = Vec::new();
    let mut at = 0;
    while let Some(found) = stream[at..].windows(UUID.len()).position(|w| w == UUID) {
        let text = stream.get(at + found + UUID.len()..).and_then(|rest| rest.get(..8));
        let Some(text) = text else { break };
        numbers.push(std::str::from_utf8(text).unwrap().parse().unwrap());
        at += found + UUID.len() + 8;
    }
    numbers
}

/// Makes pictures: texture that moves, and a number on top.
struct Painter {
    texture: Vec<u8>,
    picture: Vec<u8>,
}

impl Painter {
    fn new() -> Self {
        let mut x = 1u32;
        let texture = (0..HEIGHT * 2 * WIDTH).map(|_| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            96 + (x >> 27) as u8
        });
        Self {
            texture: texture.collect(),
            picture: vec![128; WIDTH * HEIGHT * 3 / 2],
        }
    }

    /// One picture, planar YUV 4:2:0.
    fn picture(&mut self, number: i64) -> &[u8] {
        let code = code_of(number);
        let moved = number as usize % WIDTH;
        for y in 0..HEIGHT {
            let line = &mut self.picture[y * WIDTH..(y + 1) * WIDTH];
            if y < BLOCK_HEIGHT {
                for (bit, block) in line.chunks_mut(BLOCK_WIDTH).enumerate() {
                    block.fill(if (code >> (BLOCKS - 1 - bit)) & 1 == 1 { 235 } else { 16 });
                }
            } else {
                let from = y * 2 * WIDTH + moved;
                line.copy_from_slice(&self.texture[from..from + WIDTH]);
            }
        }
        &self.picture
    }
}

/// The number as it is drawn, and its check bits: the number of its ones, by which all black and all white are no number either.
const fn code_of(number: i64) -> u32 {
    let number = number as u32;
    (number << CHECK_BITS) | ((number.count_ones() + 5) % (1 << CHECK_BITS))
}

/// The number that is drawn in a picture: gray, [`WIDTH`] wide. `None` if it cannot be read.
pub fn drawn_number(picture: &[u8]) -> Option<i64> {
    let mut code = 0;
    for bit in 0..BLOCKS {
        let mut sum = 0;
        // The middle of the block: its edges are blurred by the encoder.
        for y in BLOCK_HEIGHT / 4..BLOCK_HEIGHT * 3 / 4 {
            let from = y * WIDTH + bit * BLOCK_WIDTH + BLOCK_WIDTH / 4;
            let middle = picture.get(from..from + BLOCK_WIDTH / 2)?;
            sum += middle.iter().map(|p| usize::from(*p)).sum::<usize>();
        }
        let mean = sum / (BLOCK_HEIGHT / 2 * BLOCK_WIDTH / 2);
        match mean {
            0..80 => code <<= 1,
            176.. => code = (code << 1) | 1,
            _ => return None,
        }
    }
    let number = i64::from(code >> CHECK_BITS);
    (code_of(number) == code).then_some(number)
}

/// The drawn numbers of gray pictures one behind the other; `None` where one is damaged.
pub fn drawn_numbers(pictures: &[u8]) -> Vec<Option<i64>> {
    let (pictures, rest) = pictures.as_chunks::<{ WIDTH * HEIGHT }>();
    assert!(
        rest.is_empty(),
        "{} bytes of a picture are missing",
        WIDTH * HEIGHT - rest.len()
    );
    pictures.iter().map(|p| drawn_number(p)).collect()
}

/// What is drawn where the SEI says this.
pub const fn drawn_of(number: i64) -> i64 {
    number.rem_euclid(CLIP_FRAMES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::run;

    #[test]
    fn every_frame_of_every_kind_carries_its_number_twice() {
        for kind in [Kind::H264Aac, Kind::H264Long, Kind::H264Pyramid, Kind::H265] {
            let dir = tempfile::tempdir().unwrap();
            // Past the end of the clip, where drawn numbers begin again.
            let stretches = [Stretch { at: 0, segments: 4 }, Stretch { at: 100, segments: 1 }];
            let recording = Recording::write_stretches(dir.path(), "door", kind, &stretches);
            let files = crate::daemon::files_below(&dir.path().join("door"));
            assert_eq!(files.len(), 5);
            let last = files.iter().max().unwrap();
            let codec = if kind.is_hevc() { "hevc" } else { "h264" };
            let mut ffmpeg = Command::new("ffmpeg");
            ffmpeg.args(["-v", "error", "-i"]).arg(last);
            ffmpeg.args(["-map", "0:v", "-c", "copy", "-f", codec, "-"]);
            let mut numbers = sei_numbers(&run(&mut ffmpeg).stdout);
            assert_eq!(numbers.is_sorted(), !matches!(kind, Kind::H264Pyramid | Kind::H265));
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(2000..2500), "{kind:?}");
            let mut ffmpeg = Command::new("ffmpeg");
            ffmpeg.args(["-v", "error", "-xerror", "-i"]).arg(last);
            ffmpeg.args([
                "-map",
                "0:v",
                "-fps_mode",
                "passthrough",
                "-pix_fmt",
                "gray",
                "-f",
                "rawvideo",
                "-",
            ]);
            let drawn = drawn_numbers(&run(&mut ffmpeg).stdout);
            assert!(drawn.into_iter().eq((0..500).map(Some)), "{kind:?}");
            assert_eq!(recording.time_of(2000), recording.start.offset(100_000_000));
        }
    }
}
