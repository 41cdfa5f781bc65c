//! What a flush costs beside a plain copy of the same bytes: `cargo run --release -p corenvr-store --example flush_cost`.

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use corenvr_media::{
    AudioCodec, AudioParameters, CameraName, CodecParameters, Frame, TrackId, VideoCodec, VideoParameters, WallTime,
};
use corenvr_store::{SegmentHeader, SegmentWriter, mkv::reader};

const ROUNDS: u32 = 2000;

/// Two seconds of 4 Mbit/s: 50 pictures of 20 KB, 100 packets of sound.
fn flush_of_two_seconds(start: WallTime) -> Vec<Frame> {
    let frame = |i: i64, track, key, len: usize| Frame {
        track: TrackId(track),
        time: start.offset(i * 20_000),
        key,
        data: Bytes::from(vec![i as u8; len]),
    };
    (0..100)
        .flat_map(|i| {
            let picture = (i % 2 == 0).then(|| frame(i, 0, i == 0, 20_000));
            picture.into_iter().chain([frame(i, 1, true, 320)])
        })
        .collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = WallTime::from_millis(1_795_168_800_000);
    let frames = flush_of_two_seconds(start);
    let header = SegmentHeader {
        camera: CameraName::new("bench")?,
        start,
        tracks: vec![
            CodecParameters::Video(VideoParameters {
                codec: VideoCodec::H264,
                extra: Bytes::from_static(&[1, 0x42, 0xC0, 0x1E, 0xFF, 0xE0, 0]),
                width: 1920,
                height: 1080,
                frame_rate: None,
            }),
            CodecParameters::Audio(AudioParameters {
                codec: AudioCodec::Aac,
                extra: Bytes::from_static(&[0x11, 0x90]),
                sample_rate: 48_000,
                channels: 2,
            }),
        ]
        .into(),
        gap_before: None,
        backfilled_until: None,
    };
    let bytes: usize = frames.iter().map(|f| f.data.len()).sum();
    let mut out: Vec<u8> = Vec::with_capacity(bytes + 65_536);
    let report = |what: &str, t: Instant| {
        let us = t.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
        println!(
            "{what}: {us:.0} us for {bytes} bytes, {:.1} GB/s",
            bytes as f64 / us / 1e3
        );
    };

    let t = Instant::now();
    for _ in 0..ROUNDS {
        out.clear();
        for f in &frames {
            out.extend_from_slice(&f.data);
        }
        black_box(&out);
    }
    report("copy", t);

    let t = Instant::now();
    for _ in 0..ROUNDS {
        let mut sum = crc32fast::Hasher::new();
        for f in &frames {
            sum.update(&f.data);
        }
        black_box(sum.finalize());
    }
    report("checksum", t);

    let mut writer = SegmentWriter::new(header.clone())?;
    let t = Instant::now();
    for _ in 0..ROUNDS {
        out.clear();
        black_box(writer.flush(&frames, &mut out)?);
    }
    report("flush", t);

    let cluster = Bytes::copy_from_slice(&out);
    let time = reader::Timebase::new(start, &header.tracks);
    let t = Instant::now();
    for _ in 0..ROUNDS {
        black_box(reader::parse_cluster(&cluster, 4096, &time)?);
    }
    report("parse", t);
    Ok(())
}
