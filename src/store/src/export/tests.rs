//! Exports, judged like recordings.

use std::{fs, io::Cursor};

use corenvr_media::{AudioCodec, Frame, VideoCodec};
use matroska_demuxer::MatroskaFile;
use proptest::prelude::*;

use super::*;
use crate::{
    Archive, ArchiveOptions, SegmentKey, SegmentState,
    mkv::{
        file::{SegmentFile, read_header},
        recover::scan,
        samples::{START, audio, camera, header_av, payload, stream, video},
    },
};

fn at(ms: i64) -> WallTime {
    START.offset(ms * 1000)
}

fn range(from_ms: i64, to_ms: i64) -> TimeRange {
    TimeRange::new(at(from_ms), at(to_ms)).unwrap()
}

pub fn record(a: &mut Archive, header: SegmentHeader, frames: &[Frame]) -> SegmentKey {
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
    let clip = prepare(&segments, r, Format::Mkv, &mut |_| true)?;
    Ok((whole(&clip), clip.contents().clone()))
}

pub fn whole(clip: &Prepared) -> Vec<u8> {
    let mut out = Vec::new();
    clip.write(0..u64::MAX, &mut out, &mut |_| true).unwrap();
    assert_eq!(clip.bytes(), out.len() as u64);
    out
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
    let (out, report) = run(&mut a, range(0, 200_000)).unwrap();
    assert!(frames_of(&out) == expected(&[first, second].concat(), 0, 200_000));
    assert_eq!(report.gaps.len(), 1);
    let gap = report.gaps[0];
    assert_eq!((gap.range, gap.cause), (range(2000, 100_000), GapCause::Unknown));
    assert_eq!(run(&mut a, range(0, 100_000)).unwrap().1.gaps, []);
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
    let mut stop = |_| {
        calls += 1;
        calls % 3 > 0
    };
    let segments = [s];
    let stopped = prepare(&segments, range(0, 8000), Format::Mkv, &mut stop);
    assert!(matches!(stopped, Err(ExportError::Stopped)));
    let clip = prepare(&segments, range(0, 8000), Format::Mkv, &mut |_| true).unwrap();
    let stopped = clip.write(0..u64::MAX, &mut Vec::new(), &mut stop);
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

/// Three segments of four seconds, a hole of a minute before the third.
fn three_segments(dir: &std::path::Path) -> Vec<Arc<SegmentMeta>> {
    let mut a = Archive::open(&ArchiveOptions::new(dir)).unwrap();
    for (i, at_ms) in [0, 4000, 68_000].into_iter().enumerate() {
        let mut frames = stream(at(at_ms), 4);
        // The hole is not at a whole second of either track.
        frames.truncate(frames.len() - i);
        record(&mut a, header(at(at_ms)), &frames);
    }
    a.segments(&camera("front-door"), range(0, 100_000)).unwrap()
}

type Clips = Vec<(Prepared, Vec<u8>)>;

/// One range in both formats, with the bytes of each.
fn clips() -> &'static [(Prepared, Vec<u8>)] {
    static CLIPS: std::sync::OnceLock<(tempfile::TempDir, Clips)> = std::sync::OnceLock::new();
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        let segments = three_segments(dir.path());
        let clip = |format| {
            let clip = prepare(&segments, range(1500, 70_500), format, &mut |_| true).unwrap();
            let bytes = whole(&clip);
            (clip, bytes)
        };
        let clips = vec![clip(Format::Mkv), clip(Format::Mp4)];
        (dir, clips)
    };
    &CLIPS.get_or_init(make).1
}

fn part(clip: &Prepared, r: Range<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    clip.write(r, &mut out, &mut |_| true).unwrap();
    out
}

proptest! {
    #[test]
    fn any_parts_put_together_are_the_whole(cuts in prop::collection::vec(0.0..1.0f64, 0..6), which in 0usize..2) {
        let (clip, bytes) = &clips()[which];
        let mut cuts: Vec<u64> = cuts.iter().map(|c| (c * bytes.len() as f64) as u64).collect();
        cuts.extend([0, bytes.len() as u64]);
        cuts.sort_unstable();
        let mut joined = Vec::new();
        for w in cuts.windows(2) {
            joined.extend(part(clip, w[0]..w[1]));
            prop_assert_eq!(joined.len() as u64, w[1]);
        }
        prop_assert!(joined == *bytes);
    }
}

#[test]
fn parts_at_every_seam_are_right_to_the_byte() {
    for (clip, bytes) in clips() {
        let len = bytes.len() as u64;
        let places = clip.places.iter().map(|p| p.at);
        for at in places.chain([0, clip.head.len() as u64, clip.body_end, len]) {
            for from in at.saturating_sub(1)..=(at + 1).min(len) {
                for to in [from, from + 1, from + 9000, len + 5] {
                    let expected = &bytes[from.min(len) as usize..to.min(len) as usize];
                    assert!(part(clip, from..to) == expected, "{:?} {from}..{to}", clip.format());
                }
            }
        }
        let backwards = Range { start: 9, end: 3 };
        assert!(part(clip, backwards).is_empty());
    }
}

#[test]
fn a_part_reads_only_what_it_is_made_of() {
    for (clip, bytes) in clips() {
        let len = bytes.len() as u64;
        let read = |r: Range<u64>| {
            let mut read = 0;
            let mut out = Vec::new();
            clip.write(r, &mut out, &mut |p| {
                read = p.bytes;
                true
            })
            .unwrap();
            read
        };
        let all = read(0..len);
        assert_eq!(read(0..clip.head.len() as u64), 0);
        let cluster = all / clip.places.len() as u64;
        assert!(read(len / 2..len / 2 + 10) <= 2 * cluster + 8192);
        assert!(read(clip.body_end - 1..clip.body_end) <= 3 * cluster + 8192);
    }
}

#[test]
fn the_entity_tag_stands_for_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let segments = three_segments(dir.path());
    let tag = |segments: &[Arc<SegmentMeta>], r, format| {
        let clip = prepare(segments, r, format, &mut |_| true).unwrap();
        assert_eq!(
            identity(segments, r, format).unwrap(),
            identity(segments, r, format).unwrap()
        );
        (clip.etag().to_owned(), identity(segments, r, format).unwrap())
    };
    let one = tag(&segments, range(1000, 7000), Format::Mkv);
    assert!(one.0.len() == 34 && one.0.starts_with('"') && one.0.ends_with('"'));
    assert_eq!(one, tag(&segments, range(1000, 7000), Format::Mkv));
    // The key frame before counts, and segments outside of the range do not.
    assert_eq!(one.0, tag(&segments[..2], range(1400, 7000), Format::Mkv).0);
    let others = [
        tag(&segments, range(1000, 7000), Format::Mp4),
        tag(&segments, range(1000, 7500), Format::Mkv),
        tag(&segments, range(2000, 7000), Format::Mkv),
    ];
    assert!(others.iter().all(|o| o.0 != one.0 && o.1 != one.1));
    // Damage that comes later makes another file, though nobody told.
    let s = &segments[0];
    let mut bytes = fs::read(&s.path).unwrap();
    bytes[s.table.keys[2].offset as usize + 50] ^= 1;
    fs::write(&s.path, &bytes).unwrap();
    assert_ne!(one.0, tag(&segments, range(1000, 7000), Format::Mkv).0);
}

#[test]
fn a_recording_that_changes_after_the_first_pass_is_never_written_as_if_it_had_not() {
    let dir = tempfile::tempdir().unwrap();
    let segments = three_segments(dir.path());
    for format in [Format::Mkv, Format::Mp4] {
        let clip = prepare(&segments, range(0, 8000), format, &mut |_| true).unwrap();
        let s = &segments[1];
        let good = fs::read(&s.path).unwrap();
        let mut bytes = good.clone();
        bytes[s.table.keys[0].offset as usize + 50] ^= 1;
        fs::write(&s.path, &bytes).unwrap();
        let result = clip.write(0..u64::MAX, &mut Vec::new(), &mut |_| true);
        assert!(matches!(result, Err(ExportError::Changed)), "{result:?}");
        // What does not touch it can still be had.
        part(&clip, 0..clip.head.len() as u64 + 1000);
        fs::write(&s.path, &good[..s.table.clusters[0].offset as usize]).unwrap();
        let result = clip.write(0..u64::MAX, &mut Vec::new(), &mut |_| true);
        assert!(matches!(result, Err(ExportError::Changed)), "{result:?}");
        // A file that is cut short is exported as far as it goes, with a note.
        let clip = prepare(&segments, range(0, 8000), format, &mut |_| true).unwrap();
        assert_eq!(clip.contents().frames, 300);
        assert_eq!(clip.contents().damaged.len(), s.table.clusters.len());
        whole(&clip);
        let first = &segments[0].path;
        let hidden = first.with_extension("hidden");
        fs::rename(first, &hidden).unwrap();
        let result = clip.write(0..u64::MAX, &mut Vec::new(), &mut |_| true);
        assert!(matches!(result, Err(ExportError::Read { .. })), "{result:?}");
        fs::rename(hidden, first).unwrap();
        fs::write(&s.path, good).unwrap();
    }
}

#[test]
fn a_growing_segment_is_exported_as_far_as_it_is_durable_and_under_the_name_it_gets() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = Archive::open(&ArchiveOptions::new(dir.path())).unwrap();
    let opened = a.open_segment(header(START)).unwrap();
    let mut f = SegmentFile::start(&opened.path, opened.header).unwrap();
    let frames = stream(START, 8);
    let (durable, rest) = frames.split_at(450);
    for part in durable.chunks(75) {
        for c in f.append(part).unwrap() {
            a.cluster_durable(&opened.key, &c).unwrap();
        }
    }
    // On disk, but nobody was told that it is durable.
    let told = f.append(rest).unwrap();
    let r = range(0, 8000);
    let growing = a.segments(&camera("front-door"), r).unwrap();
    assert_eq!(growing[0].state, SegmentState::Open);
    for format in [Format::Mkv, Format::Mp4] {
        let clip = prepare(&growing, r, format, &mut |_| true).unwrap();
        assert_eq!(clip.contents().frames, 450);
        assert_eq!(whole(&clip), whole(&clip));
    }
    let clip = prepare(&growing, r, Format::Mp4, &mut |_| true).unwrap();
    let before = whole(&clip);
    for c in told {
        a.cluster_durable(&opened.key, &c).unwrap();
    }
    a.seal_segment(&opened.key, f.seal().unwrap()).unwrap();
    assert!(!growing[0].path.exists());
    assert_eq!(whole(&clip), before);
    let sealed = a.segments(&camera("front-door"), r).unwrap();
    let later = prepare(&sealed, r, Format::Mp4, &mut |_| true).unwrap();
    assert_eq!(later.contents().frames, 600);
    assert_ne!(later.etag(), clip.etag());
    // What was durable then is the same file now.
    let r = range(0, 3000);
    let tags = [&growing, &sealed].map(|s| prepare(s, r, Format::Mp4, &mut |_| true).unwrap().etag().to_owned());
    assert_eq!(tags[0], tags[1]);
}

#[test]
fn what_an_mp4_cannot_hold_is_left_out_by_name_or_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = Archive::open(&ArchiveOptions::new(dir.path())).unwrap();
    let mut h = header(START);
    let g726 = audio(AudioCodec::G726 { bits: 4 });
    h.tracks = vec![video(VideoCodec::H264), g726.clone()].into();
    record(&mut a, h, &stream(START, 2));
    let segments = a.segments(&camera("front-door"), range(0, 2000)).unwrap();
    let clip = prepare(&segments, range(0, 2000), Format::Mp4, &mut |_| true).unwrap();
    let g = LeftOut {
        track: TrackId(1),
        codec: "G726",
    };
    assert_eq!(
        (clip.contents().left_out.as_slice(), clip.contents().frames),
        (&[g][..], 50)
    );
    let samples: usize = stream(START, 2)
        .iter()
        .filter(|f| f.track.0 == 0)
        .map(|f| f.data.len())
        .sum();
    assert_eq!(clip.bytes() - clip.head.len() as u64, samples as u64);
    whole(&clip);
    let mkv = prepare(&segments, range(0, 2000), Format::Mkv, &mut |_| true).unwrap();
    assert_eq!((mkv.contents().left_out.len(), mkv.contents().frames), (0, 150));

    let only = |tracks: Vec<corenvr_media::CodecParameters>| {
        let mut s = SegmentMeta::clone(&segments[0]);
        s.tracks = tracks.into();
        prepare(&[s.into()], range(0, 2000), Format::Mp4, &mut |_| true)
            .unwrap_err()
            .to_string()
    };
    assert!(only(vec![g726]).ends_with("export it as .mkv, which holds everything that is recorded"));
    let mut bare = video(VideoCodec::H265);
    if let corenvr_media::CodecParameters::Video(v) = &mut bare {
        v.extra = bytes::Bytes::new();
    }
    assert!(only(vec![bare]).starts_with("H265 was recorded without"));
}

#[test]
fn what_is_too_much_for_one_file_is_refused_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let segments = three_segments(dir.path());
    fs::remove_file(&segments[0].path).unwrap();
    let mut s = SegmentMeta::clone(&segments[0]);
    let third = s.table.clusters[2].first;
    s.table.clusters[2].frames = FRAMES_MAX as u32;
    let e = prepare(&[s.clone().into()], range(0, 4000), Format::Mp4, &mut |_| true).unwrap_err();
    assert!(matches!(e, ExportError::TooLong { until, .. } if until == third), "{e}");
    assert!(
        e.to_string().contains("4000000 frames") && e.to_string().contains("end it at 2026-11-20T10:00:01.600Z"),
        "{e}"
    );
    let r = range(0, third.micros_since(START) / 1000);
    assert!(frames(&[s.clone().into()], r).unwrap() < FRAMES_MAX);
    s.table.clusters[2].frames = 1;
    s.table.clusters[2].last = at(41 * 86_400_000);
    s.end = at(41 * 86_400_000);
    let e = prepare(&[s.into()], range(0, 90 * 86_400_000), Format::Mp4, &mut |_| true).unwrap_err();
    assert!(e.to_string().contains("40 days"), "{e}");
}

#[test]
fn a_clock_that_was_set_back_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = Archive::open(&ArchiveOptions::new(dir.path())).unwrap();
    record(&mut a, header(START), &stream(START, 8));
    record(&mut a, header(at(5000)), &stream(at(5000), 8));
    let segments = a.segments(&camera("front-door"), range(0, 20_000)).unwrap();
    for format in [Format::Mkv, Format::Mp4] {
        let clip = prepare(&segments, range(0, 20_000), format, &mut |_| true).unwrap();
        assert_eq!(clip.contents().overlaps, [range(5000, 8000)]);
        assert_eq!((clip.contents().gaps.len(), clip.contents().frames), (0, 1200));
        whole(&clip);
    }
}
