//! Sources for tests: elementary streams as an encoder writes them, and clips that `ffmpeg` makes.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use corenvr_media::{AudioCodec, VideoCodec};

use crate::{Source, SourceError, SourceUnit, UnitData, source::is_slice};

/// Pictures a second of the clips that are made here; a key frame every second.
const FRAME_RATE: u32 = 25;
/// Milliseconds of a packet of G.711.
const G711_PACKET_MS: u32 = 40;

/// Makes a source of `seconds` seconds with `ffmpeg`: 320x240 at 25 pictures a second without B frames, a key frame every second, and a tone.
///
/// # Panics
///
/// If `ffmpeg` is missing or has no such encoder: the caller is a test.
pub fn encoded(video: VideoCodec, audio: Option<AudioCodec>, seconds: u32) -> Arc<Source> {
    let size = "testsrc2=size=320x240:rate=25";
    let duration = seconds.to_string();
    let mut args = vec![
        "-f", "lavfi", "-i", size, "-t", &duration, "-bf", "0", "-g", "25", "-preset", "veryfast",
    ];
    args.extend(match video {
        VideoCodec::H265 => [
            "-c:v",
            "libx265",
            "-x265-params",
            "log-level=none:keyint=25:min-keyint=25:bframes=0",
            "-f",
            "hevc",
        ],
        _ => ["-c:v", "libx264", "-x264-params", "scenecut=0", "-f", "h264"],
    });
    let stream = ffmpeg(&args);
    let mut units = split_pictures(video, &stream, FRAME_RATE);
    let mut track = None;
    if let Some(codec) = audio {
        let tone = "sine=frequency=440:sample_rate=8000";
        let (rate, format) = match codec {
            AudioCodec::Pcma => (8000, "alaw"),
            AudioCodec::Pcmu => (8000, "mulaw"),
            _ => (16_000, "adts"),
        };
        let rate_text = rate.to_string();
        let sound = ffmpeg(&[
            "-f", "lavfi", "-i", tone, "-t", &duration, "-ar", &rate_text, "-ac", "1", "-f", format,
        ]);
        let (frames, samples) = if codec == AudioCodec::Aac {
            (split_adts(&sound), 1024)
        } else {
            let size = rate * G711_PACKET_MS / 1000;
            (sound.chunks(size as usize).map(Bytes::copy_from_slice).collect(), size)
        };
        let turn = i64::from(seconds) * 90_000;
        for (i, frame) in frames.into_iter().enumerate() {
            let at = i as i64 * i64::from(samples) * 90_000 / i64::from(rate);
            if at < turn {
                units.push(SourceUnit {
                    key: false,
                    due_90k: at,
                    pts_90k: at,
                    data: UnitData::Audio(frame),
                });
            }
        }
        // Stable: the key frame stays in front of the sound of the same moment.
        units.sort_by_key(|u| u.due_90k);
        track = Some((codec, rate, 1));
    }
    let made = Source::new(video, track, units, Duration::from_secs(u64::from(seconds)));
    Arc::new(made.unwrap_or_else(|error| panic!("what ffmpeg made is no source: {error}")))
}

/// A source from an H.264 or H.265 byte stream (annex B) without reordered pictures, at so many pictures a second.
pub fn from_byte_stream(video: VideoCodec, stream: &[u8], frame_rate: u32) -> Result<Source, SourceError> {
    let units = split_pictures(video, stream, frame_rate);
    let turn = Duration::from_secs(1) * units.len() as u32 / frame_rate;
    Source::new(video, None, units, turn)
}

fn ffmpeg(args: &[&str]) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-nostdin"])
        .args(args)
        .arg("-")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("ffmpeg cannot be run: {error}"));
    assert!(
        output.status.success(),
        "ffmpeg {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Cuts a byte stream at its start codes and groups the NAL units to pictures.
fn split_pictures(codec: VideoCodec, stream: &[u8], frame_rate: u32) -> Vec<SourceUnit> {
    let mut pictures: Vec<Vec<Bytes>> = Vec::new();
    let mut current: Vec<Bytes> = Vec::new();
    for nal in split_byte_stream(stream) {
        let has_slice = current.iter().any(|n| is_slice(codec, n));
        // first_mb_in_slice 0 (H.264) or first_slice_segment_in_pic_flag (H.265): the first bit behind the NAL unit header.
        let header = if codec == VideoCodec::H265 { 2 } else { 1 };
        let first_slice = nal.get(header).is_some_and(|b| b >> 7 == 1);
        if has_slice && (!is_slice(codec, &nal) || first_slice) {
            pictures.push(std::mem::take(&mut current));
        }
        current.push(nal);
    }
    pictures.push(current);
    let key = |nals: &[Bytes]| {
        nals.iter().any(|n| match codec {
            VideoCodec::H265 => (16..=21).contains(&(n[0] >> 1 & 0x3F)),
            _ => n[0] & 0x1F == 5,
        })
    };
    let unit = |(i, nals): (usize, Vec<Bytes>)| {
        let at = i as i64 * 90_000 / i64::from(frame_rate);
        SourceUnit {
            key: key(&nals),
            due_90k: at,
            pts_90k: at,
            data: UnitData::Nals(nals),
        }
    };
    pictures.into_iter().enumerate().map(unit).collect()
}

/// NAL units between start codes; zeros behind a NAL unit belong to none.
fn split_byte_stream(stream: &[u8]) -> Vec<Bytes> {
    let mut starts: Vec<usize> = stream
        .windows(3)
        .enumerate()
        .filter(|(_, w)| *w == [0, 0, 1])
        .map(|(i, _)| i)
        .collect();
    starts.push(stream.len());
    let nal = |pair: &[usize]| {
        let mut nal = &stream[pair[0] + 3..pair[1]];
        while let [rest @ .., 0] = nal {
            nal = rest;
        }
        Bytes::copy_from_slice(nal)
    };
    starts.windows(2).map(nal).filter(|n| !n.is_empty()).collect()
}

/// Raw AAC frames out of ADTS (ISO/IEC 13818-7 6.2) without CRC.
fn split_adts(mut stream: &[u8]) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while let [0xFF, _, _, a, b, c, ..] = *stream {
        let len = usize::from(a & 3) << 11 | usize::from(b) << 3 | usize::from(c >> 5);
        let Some(frame) = stream.get(7..len) else { break };
        frames.push(Bytes::copy_from_slice(frame));
        stream = &stream[len..];
    }
    frames
}
