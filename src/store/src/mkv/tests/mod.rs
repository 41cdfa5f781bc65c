//! Files judged from outside: by `matroska-demuxer` always, by ffprobe and mkvinfo where they are installed.

mod crash;
pub mod players;

use std::io::Cursor;

use bytes::Bytes;
use corenvr_media::{AudioCodec, CodecParameters, Frame, TrackId, VideoCodec, WallTime};
use matroska_demuxer::MatroskaFile;

use super::{
    ALIGN, CLUSTER_LEN_MAX, FRAME_LEN_MAX,
    file::{read_header, read_tail},
    header::{self, HeaderError},
    reader::{Timebase, parse_cluster, verify_cluster},
    recover::scan,
    samples::{AUDIO, START, VIDEO, audio, header as sample_header, header_av, payload, stored, stream, video},
    writer::{SegmentHeader, SegmentWriter, WriteError},
};
use crate::{ClusterInfo, GapCause};

/// A file in memory, flushed as `flushes` say. Returns it unsealed, its clusters, and the writer.
pub fn write(header: SegmentHeader, flushes: &[&[Frame]]) -> (Vec<u8>, Vec<ClusterInfo>, SegmentWriter) {
    let mut w = SegmentWriter::new(header).unwrap();
    let mut out = w.header_block().to_vec();
    let mut clusters = Vec::new();
    for frames in flushes {
        assert_eq!(out.len() as u64, w.position());
        clusters.extend(w.flush(frames, &mut out).unwrap());
    }
    (out, clusters, w)
}

pub fn sealed(mut out: Vec<u8>, w: SegmentWriter) -> Vec<u8> {
    let seal = w.seal();
    assert_eq!(out.len() as u64, seal.append_at);
    out.extend_from_slice(&seal.append);
    out[..seal.header_block.len()].copy_from_slice(&seal.header_block);
    assert_eq!(out.len() as u64, seal.final_size);
    assert!(seal.final_size.is_multiple_of(ALIGN));
    out
}

/// All frames by our own reader, through the cluster table.
pub fn read(file: &[u8], clusters: &[ClusterInfo]) -> Vec<Frame> {
    let (h, _) = read_header(file).unwrap();
    let time = Timebase::new(h.segment.start, &h.segment.tracks);
    let bytes = Bytes::copy_from_slice(file);
    let mut frames = Vec::new();
    for c in clusters {
        let b = bytes.slice(c.offset as usize..(c.offset + u64::from(c.len)) as usize);
        verify_cluster(&b, c.offset).unwrap();
        frames.extend(parse_cluster(&b, c.offset, &time).unwrap());
    }
    frames
}

/// All frames by the independent demuxer: (track number, ms, key, data).
pub fn demux(file: &[u8]) -> Vec<(u64, u64, bool, Vec<u8>)> {
    let mut m = MatroskaFile::open(Cursor::new(file)).unwrap();
    let mut frame = matroska_demuxer::Frame::default();
    let mut all = Vec::new();
    while m.next_frame(&mut frame).unwrap() {
        all.push((
            frame.track,
            frame.timestamp,
            frame.is_keyframe.unwrap(),
            frame.data.clone(),
        ));
    }
    all
}

fn expect_demuxed(file: &[u8], start: WallTime, tracks: &[CodecParameters], frames: &[Frame]) {
    let time = Timebase::new(start, tracks);
    let expected: Vec<_> = frames
        .iter()
        .map(|f| (u64::from(f.track.0) + 1, time.to_ms(f) as u64, f.key, f.data.to_vec()))
        .collect();
    assert!(demux(file) == expected);
}

#[test]
fn every_codec_survives_the_file() {
    for v in VIDEO {
        for a in AUDIO {
            let mut h = sample_header(vec![video(v), audio(a)]);
            h.gap_before = Some(GapCause::CameraDown);
            let frames = stream(START, 3);
            let (out, clusters, w) = write(h.clone(), &[&frames[..120], &frames[120..]]);
            let time = Timebase::new(START, &h.tracks);
            let expected: Vec<_> = frames
                .iter()
                .map(|f| Frame {
                    time: time.to_time(f.track, time.to_ms(f)),
                    ..f.clone()
                })
                .collect();
            for f in frames.iter().zip(&expected) {
                assert!(f.0.time.micros_since(f.1.time).abs() <= 500);
            }
            assert_eq!(read_header(&out[..]).unwrap().0.segment, h);
            let out = sealed(out, w);
            assert_eq!(read_header(&out[..]).unwrap().0.segment, h, "{v:?} {a:?}");
            assert!(read(&out, &clusters) == expected, "{v:?} {a:?}");
            expect_demuxed(&out, START, &h.tracks, &frames);
            for k in clusters.iter().flat_map(|c| &c.keys) {
                let f = expected.iter().find(|f| f.track.0 == 0 && f.time == k.time).unwrap();
                assert!(f.key && out[k.offset as usize..][..k.size as usize] == f.data[..]);
                assert_eq!(out[k.block as usize], 0xA3);
            }
        }
    }
}

#[test]
fn the_demuxer_sees_what_the_header_says() {
    let h = sample_header(vec![video(VideoCodec::H264), audio(AudioCodec::Opus)]);
    let (out, _, w) = write(h, &[&stream(START, 4)]);
    let out = sealed(out, w);
    let m = MatroskaFile::open(Cursor::new(&out[..])).unwrap();
    assert_eq!(m.info().title(), Some("front-door"));
    assert_eq!(
        m.info().date_utc(),
        Some((START.as_micros() - 978_307_200_000_000) * 1000)
    );
    assert_eq!(m.info().duration(), Some(4000.0));
    assert!(m.info().writing_app().starts_with("corenvr "));
    let opus = &m.tracks()[1];
    assert_eq!(
        (opus.codec_delay(), opus.seek_pre_roll()),
        (Some(6_500_000), Some(80_000_000))
    );
    let names: Vec<_> = m.tags().unwrap()[0]
        .simple_tags()
        .iter()
        .map(|t| (t.name(), t.string().unwrap()))
        .collect();
    assert_eq!(
        names,
        [
            ("CORENVR_CAMERA", "front-door"),
            ("CORENVR_START", "2026-11-20T10:00:00.000123Z")
        ]
    );
}

#[test]
fn b_frames_and_frames_before_the_start_keep_their_times() {
    let at = |ms: i64, key: bool| Frame {
        track: TrackId(0),
        time: START.offset(ms * 1000),
        key,
        data: payload(ms.unsigned_abs(), 50),
    };
    let frames = [
        at(0, true),
        at(160, false),
        at(80, false),
        at(40, false),
        at(-20_000, false),
        at(120, false),
    ];
    let (out, clusters, _) = write(header_av(), &[&frames]);
    assert_eq!(read(&out, &clusters), frames);
    assert_eq!(clusters[0].first, START.offset(-20_000_000));
    assert_eq!(clusters[0].last, START.offset(160_000));
}

#[test]
fn a_flush_becomes_several_clusters_where_times_or_sizes_do_not_fit_one() {
    let at = |ms: i64, len: usize| Frame {
        track: TrackId(0),
        time: START.offset(ms * 1000),
        key: true,
        data: payload(ms.unsigned_abs(), len),
    };
    let frames = [
        at(0, 10),
        at(32_767, 10),
        at(32_768, 10),
        at(-32_000, 10),
        at(90_000, 10),
    ];
    let (out, clusters, w) = write(header_av(), &[&frames]);
    assert_eq!(clusters.iter().map(|c| c.frames).collect::<Vec<_>>(), [2, 1, 1, 1]);
    assert_eq!(read(&sealed(out, w), &clusters), frames);

    let frames: Vec<_> = (0..5).map(|i| at(i * 40, 7 << 20)).collect();
    let (out, clusters, w) = write(header_av(), &[&frames]);
    assert_eq!(clusters.iter().map(|c| c.frames).collect::<Vec<_>>(), [2, 2, 1]);
    assert!(clusters.iter().all(|c| u64::from(c.len) <= CLUSTER_LEN_MAX));
    assert!(read(&sealed(out, w), &clusters) == frames);
}

#[test]
fn what_cannot_be_written_changes_nothing() {
    let mut w = SegmentWriter::new(header_av()).unwrap();
    let good = stream(START, 1);
    let mut out = Vec::new();
    let with = |change: &dyn Fn(&mut Frame)| {
        let mut frames = good.clone();
        change(frames.last_mut().unwrap());
        frames
    };
    let cases = [
        (with(&|f| f.track = TrackId(2)), WriteError::UnknownTrack(2)),
        (
            with(&|f| f.data = vec![0; FRAME_LEN_MAX + 1].into()),
            WriteError::FrameTooLarge(FRAME_LEN_MAX + 1),
        ),
        (good[2..].to_vec(), WriteError::NotKey),
        (
            with(&|f| f.time = START.offset(-40_000_000)),
            WriteError::Time {
                time: START.offset(-40_000_000),
                start: START,
            },
        ),
        (
            with(&|f| f.time = WallTime::MAX),
            WriteError::Time {
                time: WallTime::MAX,
                start: START,
            },
        ),
    ];
    for (frames, error) in cases {
        assert_eq!(w.flush(&frames, &mut out), Err(error));
        assert!(out.is_empty() && w.position() == w.header_block().len() as u64);
    }
    assert_eq!(w.flush(&[], &mut out), Ok(vec![]));
    w.flush(&good, &mut out).unwrap();
}

#[test]
fn headers_that_cannot_be_written_are_refused() {
    let refuse = |tracks: Vec<CodecParameters>| SegmentWriter::new(sample_header(tracks)).unwrap_err();
    assert_eq!(refuse(vec![]), WriteError::TrackCount(0));
    assert_eq!(refuse(vec![audio(AudioCodec::L16); 9]), WriteError::TrackCount(9));
    let mut big = video(VideoCodec::H264);
    if let CodecParameters::Video(v) = &mut big {
        v.extra = vec![0; (64 << 10) + 1].into();
    }
    assert!(matches!(refuse(vec![big]), WriteError::Track { index: 0, .. }));
    let mut late = header_av();
    late.start = WallTime::MAX;
    assert_eq!(
        SegmentWriter::new(late.clone()).unwrap_err(),
        WriteError::Start(late.start)
    );
}

#[test]
fn a_header_larger_than_a_block_is_read_piece_by_piece() {
    let mut p = video(VideoCodec::H265);
    if let CodecParameters::Video(v) = &mut p {
        v.extra = payload(7, 60_000);
    }
    let h = sample_header(vec![p, audio(AudioCodec::Aac)]);
    let (out, clusters, w) = write(h.clone(), &[&stream(START, 1)]);
    assert!(matches!(header::parse(&out[..4096]), Err(HeaderError::Incomplete(n)) if n > 60_000));
    let out = sealed(out, w);
    assert_eq!(read_header(&out[..]).unwrap().0.segment, h);
    assert_eq!(read(&out, &clusters).len(), 75);
    assert_eq!(demux(&out).len(), 75);
}

#[test]
fn the_tail_holds_cues_and_the_table() {
    let frames = stream(START, 10);
    let flushes: Vec<&[Frame]> = frames.chunks(150).collect();
    let (out, _, w) = write(header_av(), &flushes);
    let (table, end) = (w.table().clone(), w.end());
    let out = sealed(out, w);
    let (h, _) = read_header(&out[..]).unwrap();
    let f = h.finished.unwrap();
    assert_eq!((f.bytes, f.end), (out.len() as u64, end));
    assert_eq!(end, START.offset(10_000_000));
    let tail = read_tail(&out[..], &h, &f).unwrap();
    assert_eq!(tail.table.as_ref(), Some(&table));
    assert_eq!(tail.cues.len(), 10);
    for (ms, at) in tail.cues {
        let key = table
            .keys
            .iter()
            .find(|k| k.time.micros_since(START) / 1000 == ms as i64)
            .unwrap();
        assert_eq!(table.clusters[table.cluster_at(key.block).unwrap()].offset, at);
    }
    let s = scan(&out[..f.cues_at as usize]).unwrap();
    assert_eq!((s.table, s.end, s.damage.len()), (table, f.cues_at, 0));
}

#[test]
fn times_are_those_of_the_stream_to_half_a_millisecond() {
    let frames = stream(START.offset(333), 2);
    let (out, clusters, _) = write(header_av(), &[&frames]);
    let expected: Vec<_> = frames.iter().map(|f| stored(START, f)).collect();
    assert!(read(&out, &clusters) == expected);
}

#[test]
fn every_damaged_byte_of_a_cluster_is_noticed() {
    let (out, clusters, _) = write(header_av(), &[&stream(START, 1)[..8]]);
    let c = &clusters[0];
    let good = &out[c.offset as usize..];
    let len = super::reader::cluster_len(good, c.offset).unwrap() as usize;
    for i in 0..len {
        let mut bad = good.to_vec();
        bad[i] ^= 0x10;
        let e = verify_cluster(&bad, c.offset).unwrap_err();
        assert!(e.at >= c.offset && e.at <= c.offset + bad.len() as u64);
        // Reading must not panic whatever the damage is.
        let _ = parse_cluster(&bad.into(), c.offset, &Timebase::new(START, &header_av().tracks));
    }
}

#[test]
fn foreign_and_short_files_are_told_from_damaged_ones() {
    assert!(matches!(header::parse(b""), Err(HeaderError::Incomplete(4096))));
    assert!(matches!(header::parse(&[0; 4096]), Err(HeaderError::Damaged(_))));
    let (out, ..) = write(header_av(), &[]);
    let mut foreign = out.clone();
    let at = foreign.windows(14).position(|w| w == b"CORENVR_CAMERA").unwrap();
    foreign[at] = b'X';
    assert!(matches!(header::parse(&foreign), Err(HeaderError::Foreign)));
    for cut in 0..4096 {
        assert!(header::parse(&out[..cut]).is_err());
    }
}
