//! Archives for tests: frames whose bytes say which they are, written by the real segment writer.

use std::{fs::File, os::unix::fs::FileExt, path::Path, sync::Arc};

use bytes::Bytes;
use corenvr_media::{
    AudioCodec, AudioParameters, CameraName, CodecParameters, Frame, TrackId, VideoCodec, VideoParameters, WallTime,
};
use corenvr_shard::Worker;
use corenvr_store::{Archive, ArchiveOptions, SegmentHeader, SegmentKey, SegmentWriter, archive::Sealed};

/// 320x240, baseline.
const AVCC: &str = "0142c00dffe100186742c00dd90141fb011000000300100000030320f142a48001000568cb83cb20";
/// Frames of a video second, and of a GOP.
pub const RATE: i64 = 25;
pub const GOP: i64 = 50;

pub fn unhex(text: &str) -> Bytes {
    let digit = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

pub fn h264() -> CodecParameters {
    CodecParameters::Video(VideoParameters {
        codec: VideoCodec::H264,
        extra: unhex(AVCC),
        width: 320,
        height: 240,
        frame_rate: Some((25, 1)),
    })
}

pub fn h265() -> CodecParameters {
    CodecParameters::Video(VideoParameters {
        codec: VideoCodec::H265,
        extra: Bytes::new(),
        width: 320,
        height: 240,
        frame_rate: Some((25, 1)),
    })
}

pub fn pcma() -> CodecParameters {
    CodecParameters::Audio(AudioParameters {
        codec: AudioCodec::Pcma,
        extra: Bytes::new(),
        sample_rate: 8000,
        channels: 1,
    })
}

pub fn tracks() -> Arc<[CodecParameters]> {
    [h264(), pcma()].into()
}

pub fn name(text: &str) -> CameraName {
    CameraName::new(text).unwrap()
}

/// Noon of a day long ago, and `ms` later.
pub fn at(ms: i64) -> WallTime {
    WallTime::parse("2026-11-20T12:00:00Z").unwrap().offset(ms * 1000)
}

/// Video frame `n` of a camera, 40 ms apart, with a key frame every [`GOP`]; `n` is in its bytes.
pub fn video(n: i64, time: WallTime) -> Frame {
    let key = n % GOP == 0;
    picture(n, time, if key { 0x65 } else { 0x41 })
}

/// A picture whose slice has this NAL unit header.
pub fn picture(n: i64, time: WallTime, header: u8) -> Frame {
    let key = header & 0x1F == 5;
    let len = if key { 9000 } else { 1200 + (n % 7) as usize * 300 };
    let mut nal = vec![header];
    // Text, because a number's zeros would be a start code.
    nal.extend_from_slice(format!("{n:08}").as_bytes());
    let mut x = n as u32 | 1;
    while nal.len() < len {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        nal.push((x >> 24) as u8 | 1);
    }
    let mut data = (nal.len() as u32).to_be_bytes().to_vec();
    data.extend(nal);
    Frame {
        track: TrackId(0),
        time,
        key,
        data: data.into(),
    }
}

/// Sound packet `n`, 40 ms apart.
pub fn sound(n: i64, time: WallTime) -> Frame {
    let mut data = format!("{n:08}").into_bytes();
    data.resize(320, n as u8);
    Frame {
        track: TrackId(1),
        time,
        key: true,
        data: data.into(),
    }
}

/// Frames from number `first` on, of which the first is at `start`: each picture followed by its sound.
pub fn frames(first: i64, count: i64, start: WallTime) -> Vec<Frame> {
    (0..count)
        .flat_map(|i| {
            let t = start.offset(i * 1_000_000 / RATE);
            [video(first + i, t), sound(first + i, t)]
        })
        .collect()
}

/// Pictures in stored order with a pyramid of B pictures: I0 P4 B2 b1 b3 P8 B6 b5 b7 and so on, up to the next of the GOPs, each by itself.
/// `n` counts as shown. `first` and `count` are whole GOPs.
pub fn pyramid(first: i64, count: i64, start: WallTime) -> Vec<Frame> {
    const REFERENCE: u8 = 0x41;
    const B_REFERENCE: u8 = 0x21;
    const DISPOSABLE: u8 = 0x01;
    let mut all = Vec::new();
    for gop in (0..count).step_by(GOP as usize) {
        let mut add = |i: i64, header| {
            let t = start.offset((gop + i) * 1_000_000 / RATE);
            all.push(picture(first + gop + i, t, header));
        };
        add(0, 0x65);
        for p in (4..GOP).step_by(4) {
            add(p, REFERENCE);
            add(p - 2, B_REFERENCE);
            add(p - 3, DISPOSABLE);
            add(p - 1, DISPOSABLE);
        }
        for rest in (GOP - 1) / 4 * 4 + 1..GOP {
            add(rest, REFERENCE);
        }
    }
    all
}

/// What picture `n` of [`pyramid`] is predicted from.
pub fn pyramid_references(n: i64) -> Vec<i64> {
    let i = n % GOP;
    match i % 4 {
        _ if i == 0 => vec![],
        _ if i > (GOP - 1) / 4 * 4 => vec![n - 1],
        0 => vec![n - 4],
        2 => vec![n - 2, n + 2],
        _ => vec![n - 1, n + 1],
    }
}

/// A storage directory with its worker.
pub struct Storage {
    pub dir: tempfile::TempDir,
    pub worker: Worker<Archive>,
}

impl Storage {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = Archive::open(&ArchiveOptions::new(dir.path())).unwrap();
        archive.recover(&mut |_| ()).unwrap();
        let (worker, _) = Worker::start("archive", 1024, archive).unwrap();
        Self { dir, worker }
    }

    /// A finished segment, one cluster a second.
    pub fn sealed(&self, camera: &str, tracks: Arc<[CodecParameters]>, frames: &[Frame]) -> SegmentKey {
        let mut open = self.open(camera, tracks, frames[0].time);
        for part in frames.chunks(2 * RATE as usize) {
            open.flush(part);
        }
        open.seal()
    }

    /// A segment that is being written.
    pub fn open(&self, camera: &str, tracks: Arc<[CodecParameters]>, start: WallTime) -> OpenSegment {
        let header = SegmentHeader {
            camera: name(camera),
            start,
            tracks,
            gap_before: None,
            backfilled_until: None,
        };
        let opened = self
            .worker
            .call_blocking(move |a| a.open_segment(header))
            .unwrap()
            .unwrap();
        let writer = SegmentWriter::new(opened.header).unwrap();
        let file = File::options().write(true).open(&opened.path).unwrap();
        file.write_all_at(writer.header_block(), 0).unwrap();
        OpenSegment {
            key: opened.key,
            writer,
            file,
            worker: self.worker.clone(),
        }
    }

    /// Every file of the archive.
    pub fn files(&self) -> Vec<std::path::PathBuf> {
        fn walk(dir: &Path, out: &mut Vec<std::path::PathBuf>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, out);
                } else if path.extension().is_some_and(|e| e == "mkv") {
                    out.push(path);
                }
            }
        }
        let mut out = Vec::new();
        walk(self.dir.path(), &mut out);
        out.sort();
        out
    }
}

pub struct OpenSegment {
    pub key: SegmentKey,
    writer: SegmentWriter,
    file: File,
    worker: Worker<Archive>,
}

impl OpenSegment {
    /// Writes clusters and tells the archive of them.
    pub fn flush(&mut self, frames: &[Frame]) {
        let mut bytes = Vec::new();
        let at = self.writer.position();
        let clusters = self.writer.flush(frames, &mut bytes).unwrap();
        self.file.write_all_at(&bytes, at).unwrap();
        self.file.sync_data().unwrap();
        for cluster in clusters {
            let key = self.key.clone();
            self.worker
                .call_blocking(move |a| a.cluster_durable(&key, &cluster))
                .unwrap()
                .unwrap();
        }
    }

    pub fn seal(self) -> SegmentKey {
        let seal = self.writer.seal();
        self.file.write_all_at(&seal.append, seal.append_at).unwrap();
        self.file.write_all_at(&seal.header_block, 0).unwrap();
        self.file.set_len(seal.final_size).unwrap();
        self.file.sync_all().unwrap();
        let key = self.key.clone();
        let sealed = Sealed {
            bytes: seal.final_size,
            end: seal.end,
        };
        self.worker
            .call_blocking(move |a| a.seal_segment(&key, sealed))
            .unwrap()
            .unwrap();
        self.key
    }
}
