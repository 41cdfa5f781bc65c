//! Exports, judged like recordings.

use std::{fs, io::Cursor};

use corenvr_media::{TrackId, VideoCodec};
use matroska_demuxer::MatroskaFile;

use super::*;
use crate::{
    Archive, ArchiveOptions, SegmentKey,
    mkv::{
        file::{SegmentFile, read_header},
        recover::scan,
        samples::{START, camera, header_av, payload, stream, video},
    },
};

fn at(ms: i64) -> WallTime {
    START.offset(ms * 1000)
}

fn range(from_ms: i64, to_ms: i64) -> TimeRange {
    TimeRange::new(at(from_ms), at(to_ms)).unwrap()
}

fn record(a: &mut Archive, header: SegmentHeader, frames: &[Frame]) -> SegmentKey {
    let opened = a.open_segment(header).unwrap();
    let mut f = SegmentFile::start(&opened.path, opened.header).unwrap();
    for part in frames.chunks(60) {
        for c in f.append(part).unwrap() {
            a.cluster_durable(&opened.key, &c).unwrap();
        }
    }
    a.seal_segment(&opened.key, f.seal().unwrap()).unwrap();
    opened.key
}

fn header(start: WallTime) -> SegmentHeader {
    SegmentHeader { start, ..header_av() }
}

fn run(a: &mut Archive, r: TimeRange) -> Result<(Vec<u8>, Exported), ExportError> {
    let segments = a.segments(&camera("front-door"), r).unwrap();
    let mut out = Vec::new();
    let report = export(&segments, r, &mut out, &mut |_| true)?;
    assert_eq!(report.bytes, out.len() as u64);
    Ok((out, report))
}

/// Time in ms from START, track, payload.
fn frames_of(file: &[u8]) -> Vec<(i64, u8, Vec<u8>)> {
    let (h, _) = read_header(file).unwrap();
    let offset = h.segment.start.micros_since(START) / 1000;
    let mut m = MatroskaFile::open(Cursor::new(file)).unwrap();
    let mut f = matroska_demuxer::Frame::default();
    let mut all = Vec::new();
    while m.next_frame(&mut f).unwrap() {
        all.push((offset + f.timestamp as i64, f.track as u8 - 1, f.data.clone()));
    }
    all
}

fn expected(all: &[Frame], from_ms: i64, to_ms: i64) -> Vec<(i64, u8, Vec<u8>)> {
    let ms = |f: &Frame| f.time.micros_since(START) / 1000;
    let begin = all
        .iter()
        .position(|f| f.key && f.track.0 == 0 && ms(f) == from_ms)
        .unwrap();
    all[begin..]
        .iter()
        .filter(|f| ms(f) < to_ms)
        .map(|f| (ms(f), f.track.0, f.data.to_vec()))
        .collect()
}

#[test]
fn joins_segments_from_the_key_frame_before_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = Archive::open(&ArchiveOptions::new(dir.path())).unwrap();
    let frames = stream(START, 12);
    for (i, part) in frames.chunks(300).enumerate() {
        record(&mut a, header(at(i as i64 * 4000)), part);
    }
    let (out, report) = run(&mut a, range(1500, 9700)).unwrap();
    assert!(frames_of(&out) == expected(&frames, 1000, 9700));
    // The last picture, at 9.68, lasts 40 ms.
    assert_eq!(report.range.unwrap(), range(1000, 9720));
    let s = scan(&out[..]).unwrap();
    let f = s.header.finished.unwrap();
    assert_eq!((s.end, f.bytes, s.damage.len()), (f.cues_at, out.len() as u64, 0));
    assert!(report.damaged.is_empty());

    if crate::mkv::tests::players::have("ffprobe") && crate::mkv::tests::players::have("mkvinfo") {
        let path = dir.path().join("out.mkv");
        fs::write(&path, &out).unwrap();
        let o = std::process::Command::new("mkvinfo")
            .args(["-v", "-v"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(o.status.success() && o.stderr.is_empty());
        let o = std::process::Command::new("ffprobe")
            .args([
                "-v",
                "quiet",
                "-count_packets",
                "-show_entries",
                "stream=nb_read_packets",
                "-of",
                "csv=p=0",
            ])
            .arg(&path)
            .output()
            .unwrap();
        let counts: usize = String::from_utf8(o.stdout)
            .unwrap()
            .lines()
            .map(|l| l.trim().parse::<usize>().unwrap())
            .sum();
        assert_eq!(counts as u64, report.frames);
    }
}

#[test]
fn a_gap_stays_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = Archive::open(&ArchiveOptions::new(dir.path())).unwrap();
    let (first, second) = (stream(START, 2), stream(at(100_000), 2));
    record(&mut a, header(START), &first);
    record(&mut a, header(at(100_000)), &second);
    let (out, _) = run(&mut a, range(0, 200_000)).unwrap();
    assert!(frames_of(&out) == expected(&[first, second].concat(), 0, 200_000));
}

#[test]
fn a_frame_that_is_shown_later_but_needed_earlier_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = Archive::open(&ArchiveOptions::new(dir.path())).unwrap();
    let f = |ms, key| Frame {
        track: TrackId(0),
        time: at(ms),
        key,
        data: payload(ms as u64, 100),
    };
    // Decode order I0 P120 B40 B80 P240 B160 B200.
    let frames = [
        f(0, true),
        f(120, false),
        f(40, false),
        f(80, false),
        f(240, false),
        f(160, false),
        f(200, false),
    ];
    record(&mut a, header(START), &frames);
    let times = |out: &[u8]| frames_of(out).iter().map(|f| f.0).collect::<Vec<_>>();
    assert_eq!(times(&run(&mut a, range(0, 90)).unwrap().0), [0, 120, 40, 80]);
    assert_eq!(times(&run(&mut a, range(0, 121)).unwrap().0), [0, 120, 40, 80]);
    assert_eq!(times(&run(&mut a, range(0, 30)).unwrap().0), [0]);
    assert_eq!(
        times(&run(&mut a, range(0, 170)).unwrap().0),
        [0, 120, 40, 80, 240, 160]
    );
}

#[test]
fn a_change_of_parameters_is_refused_with_what_can_be_had() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = Archive::open(&ArchiveOptions::new(dir.path())).unwrap();
    record(&mut a, header(START), &stream(START, 2));
    let mut other = header(at(2000));
    other.tracks = vec![video(VideoCodec::H265), other.tracks[1].clone()].into();
    record(&mut a, other, &stream(at(2000), 2));
    match run(&mut a, range(500, 3500)) {
        Err(e @ ExportError::ParametersChange { .. }) => {
            let text = e.to_string();
            assert!(
                text.contains("2026-11-20T10:00:02.000Z") && text.contains("10:00:00.500Z to 2026"),
                "{text}"
            );
            let ExportError::ParametersChange { ranges, .. } = e else {
                unreachable!()
            };
            assert_eq!(ranges, [range(500, 2000), range(2000, 3500)]);
            for r in ranges {
                run(&mut a, r).unwrap();
            }
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(run(&mut a, range(9000, 9500)), Err(ExportError::Empty(_))));
}

#[test]
fn damage_is_exported_around_and_reported_and_a_stop_is_heeded() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = Archive::open(&ArchiveOptions::new(dir.path())).unwrap();
    let key = record(&mut a, header(START), &stream(START, 8));
    let s = a.segments(&key.camera, range(0, 8000)).unwrap().remove(0);
    let mut bytes = fs::read(&s.path).unwrap();
    // One wrong bit in a picture, and one cluster that is no cluster any more.
    bytes[s.table.keys[1].offset as usize + 50] ^= 1;
    bytes[s.table.clusters[5].offset as usize] ^= 0xFF;
    fs::write(&s.path, bytes).unwrap();
    let (out, report) = run(&mut a, range(0, 8000)).unwrap();
    assert_eq!(report.damaged.len(), 2);
    assert_eq!(report.frames, 600 - 60);
    assert_eq!(frames_of(&out).len() as u64, report.frames);
    let mut calls = 0;
    let stopped = export(&[s], range(0, 8000), &mut Vec::new(), &mut |_| {
        calls += 1;
        calls < 3
    });
    assert!(matches!(stopped, Err(ExportError::Stopped)));
}

#[test]
fn sound_from_before_the_first_picture_of_a_recording_is_exported_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = Archive::open(&ArchiveOptions::new(dir.path())).unwrap();
    // The first picture comes 60 ms after the sound.
    let all: Vec<_> = (0..4u8)
        .map(|i| Frame {
            track: TrackId(1),
            time: at(i64::from(i) * 20),
            key: true,
            data: payload(u64::from(i), 160),
        })
        .chain(stream(at(80), 2))
        .collect();
    record(&mut a, header(START), &all);
    let (out, report) = run(&mut a, range(-1000, 60_000)).unwrap();
    assert_eq!(report.frames, all.len() as u64);
    assert_eq!(report.range.unwrap().start, START);
    let times: Vec<_> = frames_of(&out).iter().take(5).map(|f| (f.0, f.1)).collect();
    assert_eq!(times, [(0, 1), (20, 1), (40, 1), (60, 1), (80, 0)]);
}

#[test]
fn what_was_filled_in_later_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = Archive::open(&ArchiveOptions::new(dir.path())).unwrap();
    for i in [0, 2, 4, 6, 9] {
        let until = [2, 4, 9].contains(&i).then(|| at((i + 2) * 1000));
        let h = SegmentHeader {
            backfilled_until: until,
            ..header(at(i * 1000))
        };
        record(&mut a, h, &stream(at(i * 1000), 2));
    }
    let (_, report) = run(&mut a, range(0, 11_000)).unwrap();
    assert_eq!(report.backfilled, [range(2000, 6000), range(9000, 11_000)]);
    let (_, report) = run(&mut a, range(5000, 7000)).unwrap();
    assert_eq!(report.backfilled, [range(5000, 6000)]);
    let (_, report) = run(&mut a, range(6000, 8000)).unwrap();
    assert_eq!(report.backfilled, []);
}
