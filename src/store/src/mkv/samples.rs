//! Tracks and frames for tests: every codec's parameters, and streams that look like a camera's.

use bytes::Bytes;
use corenvr_media::{
    AudioCodec, AudioParameters, CameraName, CodecParameters, Frame, TrackId, VideoCodec, VideoParameters, WallTime,
};

use super::writer::SegmentHeader;

/// 2026-11-20T10:00:00.000123Z.
pub const START: WallTime = WallTime::from_micros(1_795_168_800_000_123);

pub fn video(codec: VideoCodec) -> CodecParameters {
    let extra: &[u8] = match codec {
        VideoCodec::H264 => &[
            1, 0x42, 0xC0, 0x1E, 0xFF, 0xE1, 0, 10, 0x67, 0x42, 0xC0, 0x1E, 0xDA, 0x02, 0x80, 0xF6, 0x80, 0x6D, 1, 0,
            4, 0x68, 0xCE, 0x3C, 0x80,
        ],
        VideoCodec::H265 => &[
            1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93, 0xF0, 0, 0xFC, 0xFD, 0xF8, 0xF8, 0, 0, 0x0F, 0,
        ],
        VideoCodec::Av1 => &[0x81, 0x04, 0x0C, 0x00],
        VideoCodec::Mjpeg => &[],
    };
    CodecParameters::Video(VideoParameters {
        codec,
        extra: Bytes::from_static(extra),
        width: 1920,
        height: 1080,
        frame_rate: Some((30_000, 1001)),
    })
}

pub fn audio(codec: AudioCodec) -> CodecParameters {
    let (extra, sample_rate, channels): (&[u8], _, _) = match codec {
        AudioCodec::Aac => (&[0x11, 0x90], 48_000, 2),
        AudioCodec::Opus => (b"OpusHead\x01\x02\x38\x01\x80\xBB\0\0\0\0\0", 48_000, 2),
        AudioCodec::L16 => (&[], 44_100, 2),
        _ => (&[], 8000, 1),
    };
    CodecParameters::Audio(AudioParameters {
        codec,
        extra: Bytes::from_static(extra),
        sample_rate,
        channels,
    })
}

pub const VIDEO: [VideoCodec; 4] = [VideoCodec::H264, VideoCodec::H265, VideoCodec::Av1, VideoCodec::Mjpeg];
pub const AUDIO: [AudioCodec; 9] = [
    AudioCodec::Aac,
    AudioCodec::Opus,
    AudioCodec::Pcma,
    AudioCodec::Pcmu,
    AudioCodec::G726 { bits: 2 },
    AudioCodec::G726 { bits: 3 },
    AudioCodec::G726 { bits: 4 },
    AudioCodec::G726 { bits: 5 },
    AudioCodec::L16,
];

pub fn camera(name: &str) -> CameraName {
    CameraName::new(name).unwrap()
}

pub fn header(tracks: Vec<CodecParameters>) -> SegmentHeader {
    SegmentHeader {
        camera: camera("front-door"),
        start: START,
        tracks: tracks.into(),
        gap_before: None,
        backfilled_until: None,
    }
}

pub fn header_av() -> SegmentHeader {
    header(vec![video(VideoCodec::H264), audio(AudioCodec::Aac)])
}

/// Bytes that differ from frame to frame and do not compress to zeros.
pub fn payload(seed: u64, len: usize) -> Bytes {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect()
}

/// `seconds` of 25 fps video in GOPs of 25 with 20 ms audio packets between, in time order from `start` on.
pub fn stream(start: WallTime, seconds: u64) -> Vec<Frame> {
    let mut frames = Vec::new();
    for i in 0..seconds * 50 {
        let time = start.offset(i as i64 * 20_000);
        if i % 2 == 0 {
            let key = i % 50 == 0;
            frames.push(Frame {
                track: TrackId(0),
                time,
                key,
                data: payload(i, if key { 9000 } else { 700 + (i as usize * 37) % 900 }),
            });
        }
        frames.push(Frame {
            track: TrackId(1),
            time,
            key: true,
            data: payload(i + 1_000_000, 160),
        });
    }
    frames
}

/// What comes back of a frame: its time to the millisecond from the segment's start.
pub fn stored(start: WallTime, f: &Frame) -> Frame {
    let us = f.time.micros_since(start);
    Frame {
        time: start.offset((us + 500).div_euclid(1000) * 1000),
        ..f.clone()
    }
}
