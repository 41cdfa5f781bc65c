//! Back-filled footage: beside a segment that is being recorded, never on other footage, and always known as what it is.

use std::io;

use proptest::prelude::*;

use super::*;
use crate::{SegmentWriter, WriteError};

fn at(s: i64) -> WallTime {
    START.offset(s * 1_000_000)
}

/// A header for `from..until` seconds.
fn filled(from: i64, until: i64) -> SegmentHeader {
    SegmentHeader {
        gap_before: Some(GapCause::CameraDown),
        backfilled_until: Some(at(until)),
        ..header("front", at(from))
    }
}

type Shown = (i64, i64, bool, bool);

fn spans(line: &Timeline) -> Vec<Shown> {
    let second = |t: WallTime| t.micros_since(START).div_euclid(1_000_000);
    let shown = |s: &Span| (second(s.range.start), second(s.range.end), s.backfilled, s.open);
    line.spans.iter().map(shown).collect()
}

fn gaps(line: &Timeline) -> Vec<(i64, i64, GapCause)> {
    let second = |t: WallTime| t.micros_since(START).div_euclid(1_000_000);
    let shown = |g: &Gap| (second(g.range.start), second(g.range.end), g.cause);
    line.gaps.iter().map(shown).collect()
}

#[test]
fn a_gap_is_filled_while_the_camera_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let c = camera("front");
    record_sealed(&mut a, header("front", at(0)), 10);
    a.note_gap(&c, at(10), GapCause::CameraDown).unwrap();
    let (live, live_file) = record(&mut a, header("front", at(60)), 5).unwrap();
    assert_eq!(
        gaps(&a.timeline(&c, range(0, 65)).unwrap()),
        [(10, 60, GapCause::CameraDown)]
    );
    let (fill, fill_file) = record(&mut a, filled(20, 60), 10).unwrap();
    // Both grow, and both are found.
    let line = a.timeline(&c, range(0, 64)).unwrap();
    assert_eq!(
        spans(&line),
        [(0, 10, false, false), (20, 29, true, true), (60, 64, false, true)]
    );
    assert_eq!(
        gaps(&line),
        [(10, 20, GapCause::CameraDown), (29, 60, GapCause::CameraDown)]
    );
    let found = all(&mut a, "front");
    assert_eq!(
        found.iter().map(|s| s.backfilled).collect::<Vec<_>>(),
        [false, true, false]
    );
    assert_eq!(a.nearest(&c, at(25)).unwrap(), Some(at(25)));
    assert_eq!(a.nearest(&c, at(31)).unwrap(), Some(at(29).offset(980_000)));
    assert_eq!(a.nearest(&c, WallTime::MAX).unwrap(), Some(at(64).offset(980_000)));
    // The later one may be finished first, or the earlier one.
    a.seal_segment(&fill, fill_file.seal().unwrap()).unwrap();
    let (second, second_file) = record(&mut a, filled(30, 60), 30).unwrap();
    a.seal_segment(&live, live_file.seal().unwrap()).unwrap();
    a.seal_segment(&second, second_file.seal().unwrap()).unwrap();
    let line = a.timeline(&c, range(0, 65)).unwrap();
    let whole = [(0, 10, false, false), (20, 60, true, false), (60, 65, false, false)];
    assert_eq!(
        (spans(&line), gaps(&line)),
        (whole.to_vec(), vec![(10, 20, GapCause::CameraDown)])
    );
    let usage = a.usage()[&c];
    assert_eq!(
        (usage.segments, usage.first, usage.last),
        (4, Some(at(0)), Some(at(65)))
    );
    let before = all(&mut a, "front");
    for (s, seconds) in before.iter().zip([10, 10, 30, 5]) {
        expect_frames(s, seconds);
    }
    let (mut a, report) = reopen(a);
    assert_eq!((report.segments, report.added), (4, 0));
    assert_eq!((all(&mut a, "front"), a.usage()[&c]), (before, usage));
    drop(a);
    assert!(check_files(dir.path(), false).is_clean());
}

#[test]
fn the_mark_is_in_the_file_and_outlives_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let c = camera("front");
    record_sealed(&mut a, header("front", at(0)), 10);
    record_sealed(&mut a, filled(20, 90), 10);
    let (_live, _f) = record(&mut a, header("front", at(90)), 5).unwrap();
    let (_fill, _g) = record(&mut a, filled(40, 90), 7).unwrap();
    drop(a);
    fs::remove_dir_all(dir.path().join(".corenvr")).unwrap();
    let report = check::rebuild(dir.path(), &mut |_| {}).unwrap();
    assert_eq!((report.added, report.recovered.len(), report.segments), (2, 2, 4));
    let mut a = open(dir.path());
    a.recover(&mut |_| {}).unwrap();
    let line = a.timeline(&c, range(0, 120)).unwrap();
    let origins: Vec<_> = line.spans.iter().map(|s| s.backfilled).collect();
    assert_eq!(origins, [false, true, true, false]);
    // What was noted went with the index; what the files say of the gap they lie in did not.
    assert_eq!(
        gaps(&line),
        [
            (10, 20, GapCause::CameraDown),
            (30, 40, GapCause::CameraDown),
            (47, 90, GapCause::CameraDown)
        ]
    );
    // A row that says otherwise is found and corrected.
    let key = SegmentKey {
        camera: c.clone(),
        start: at(20),
    };
    let mut row = a.index.row(&key).unwrap().unwrap();
    row.backfilled = false;
    a.index.put_row(&key, &row).unwrap();
    drop(a);
    let report = check_files(dir.path(), true);
    let differs = |f: &&check::Finding| f.problem == Problem::RowDiffers("where it is from") && f.repaired;
    assert_eq!(report.findings.iter().filter(differs).count(), 1);
    assert!(all(&mut open(dir.path()), "front")[1].backfilled);
}

#[test]
fn what_is_noted_within_a_gap_stays_with_what_is_left_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let c = camera("front");
    record_sealed(&mut a, header("front", at(0)), 10);
    a.note_gap(&c, at(10), GapCause::CameraDown).unwrap();
    a.note_gap(&c, at(50), GapCause::Operator).unwrap();
    let live = SegmentHeader {
        gap_before: Some(GapCause::Operator),
        ..header("front", at(100))
    };
    record_sealed(&mut a, live, 5);
    record_sealed(&mut a, filled(20, 50), 10);
    let line = a.timeline(&c, range(0, 105)).unwrap();
    let left = [
        (10, 20, GapCause::CameraDown),
        (30, 50, GapCause::CameraDown),
        (50, 100, GapCause::Operator),
    ];
    assert_eq!(gaps(&line), left);
    // Also where the question begins behind what was filled in.
    let line = a.timeline(&c, range(35, 105)).unwrap();
    assert_eq!(
        gaps(&line),
        [(35, 50, GapCause::CameraDown), (50, 100, GapCause::Operator)]
    );
    // Filled to the brim: what the live segment says of a gap before it is no longer so.
    let rest = SegmentHeader {
        gap_before: Some(GapCause::Operator),
        ..filled(50, 100)
    };
    record_sealed(&mut a, rest, 50);
    let line = a.timeline(&c, range(45, 105)).unwrap();
    assert_eq!(gaps(&line), [(45, 50, GapCause::CameraDown)]);
    assert_eq!(spans(&line), [(50, 100, true, false), (100, 105, false, false)]);
}

#[test]
fn a_gap_that_lasts_is_shown_behind_what_was_filled_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let c = camera("front");
    record_sealed(&mut a, header("front", at(0)), 10);
    a.note_gap(&c, at(10), GapCause::CameraDown).unwrap();
    let (fill, f) = record(&mut a, filled(10, 60), 20).unwrap();
    let expected = [(29, 90, GapCause::CameraDown)];
    assert_eq!(gaps(&a.timeline(&c, range(0, 90)).unwrap()), expected);
    a.seal_segment(&fill, f.seal().unwrap()).unwrap();
    let line = a.timeline(&c, range(0, 90)).unwrap();
    assert_eq!(gaps(&line), [(30, 90, GapCause::CameraDown)]);
    assert_eq!(spans(&line), [(0, 10, false, false), (10, 30, true, false)]);
}

#[test]
fn nothing_is_filled_in_where_there_is_footage() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let c = camera("front");
    record_sealed(&mut a, header("front", at(0)), 10);
    record_sealed(&mut a, header("front", at(30)), 10);
    let (_live, _f) = record(&mut a, header("front", at(60)), 1).unwrap();
    assert_eq!(
        a.vacant(&c, range(-5, 100)).unwrap(),
        [range(-5, 0), range(10, 30), range(40, 60)]
    );
    assert_eq!(a.vacant(&c, range(12, 15)).unwrap(), [range(12, 15)]);
    assert_eq!(a.vacant(&c, range(2, 8)).unwrap(), []);
    assert_eq!(a.vacant(&camera("other"), range(2, 8)).unwrap(), [range(2, 8)]);
    let before = files(dir.path());
    for (from, until) in [(9, 20), (20, 31), (5, 35), (61, 70), (99, 100), (32, 33)] {
        let refused = a.open_segment(filled(from, until));
        assert!(matches!(refused, Err(ArchiveError::Occupied { .. })), "{from} {until}");
    }
    assert!(a.open_segment(filled(20, 20)).is_err());
    assert_eq!(files(dir.path()), before);
    // What is being filled in has its time from the beginning.
    let opened = a.open_segment(filled(12, 25)).unwrap();
    assert_eq!(a.vacant(&c, range(10, 30)).unwrap(), [range(10, 12), range(25, 30)]);
    assert!(a.open_segment(filled(24, 30)).is_err());
    assert_eq!(a.abandon_segment(&opened.key).unwrap(), None);
    assert_eq!(a.vacant(&c, range(10, 30)).unwrap(), [range(10, 30)]);
}

#[test]
fn a_segment_that_was_the_oldest_and_came_to_nothing_is_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    record_sealed(&mut a, header("front", at(10)), 5);
    let opened = a.open_segment(filled(0, 10)).unwrap();
    assert_eq!(a.usage()[&camera("front")].first, Some(at(0)));
    a.abandon_segment(&opened.key).unwrap();
    assert_eq!(a.usage()[&camera("front")].first, Some(at(10)));
}

#[test]
fn a_file_takes_no_frame_of_the_footage_that_follows_and_ends_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    // The limit lies within the duration of the last picture.
    let until = at(2).offset(-10_000);
    let h = SegmentHeader {
        backfilled_until: Some(until),
        ..filled(0, 2)
    };
    let mut writer = SegmentWriter::new(h.clone()).unwrap();
    let (mut frames, mut sink) = (stream(at(0), 2), Vec::new());
    let refused = writer.flush(&frames, &mut sink).is_err();
    assert!(!refused && sink.len() > 4096, "the last frame is before the limit");
    let late = Frame {
        time: until.offset(-400),
        ..frames[frames.len() - 1].clone()
    };
    let error = writer.flush(&[late], &mut sink);
    assert_eq!(
        error.unwrap_err(),
        WriteError::NotBefore {
            time: until.offset(-400),
            until
        }
    );
    frames.truncate(140);
    let opened = a.open_segment(h).unwrap();
    let mut f = SegmentFile::start(&opened.path, opened.header).unwrap();
    for c in f.append(&stream(at(0), 2)).unwrap() {
        a.cluster_durable(&opened.key, &c).unwrap();
    }
    drop(f);
    // The same after a crash as after sealing.
    let (mut a, report) = reopen(a);
    assert_eq!((report.recovered.len(), all(&mut a, "front")[0].end), (1, until));
    let path = all(&mut a, "front")[0].path.clone();
    assert_eq!(
        crate::mkv::file::read_header(&File::open(path).unwrap())
            .unwrap()
            .0
            .finished
            .unwrap()
            .end,
        until
    );
}

#[test]
fn retention_spares_what_is_being_filled_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let (live, _f) = record(&mut a, header("front", at(100)), 2).unwrap();
    let (fill, g) = record(&mut a, filled(20, 60), 2).unwrap();
    let old = record_sealed(&mut a, header("front", at(0)), 2);
    let late = record_sealed(&mut a, filled(70, 80), 2);
    let keep_none = |_: &CameraName| RetentionPolicy {
        age: Some(Duration::ZERO),
        bytes: Some(0),
    };
    let everything = DiskPolicy {
        keep_free: u64::MAX,
        max: Some(0),
    };
    let plan = a.plan_retention(&keep_none, everything, 0, at(1000)).unwrap();
    assert_eq!(plan, [old, late.clone()]);
    for key in [&live, &fill] {
        assert!(matches!(a.delete(key), Err(ArchiveError::NotDeletable(_, "open"))));
    }
    a.seal_segment(&fill, g.seal().unwrap()).unwrap();
    let plan = a.plan_retention(&keep_none, everything, 0, at(1000)).unwrap();
    assert_eq!(plan[1..], [fill, late]);
}

/// A live segment and one that is filled in before it, flush by flush in turns; then the one is finished, and the other. Stops at the
/// first error.
fn two_at_once(a: &mut Archive, log: &mut Vec<(SegmentKey, u64)>) -> Result<(), ArchiveError> {
    let mut growing = Vec::new();
    for h in [header("front", at(100)), filled(20, 90)] {
        let opened = a.open_segment(h)?;
        log.push((opened.key.clone(), 0));
        let frames = stream(opened.key.start, 6);
        let f = SegmentFile::start(&opened.path, opened.header).unwrap();
        growing.push((opened.key, f, frames));
    }
    for second in 0..6 {
        for (i, (key, f, frames)) in growing.iter_mut().enumerate() {
            let clusters = f.append(&frames[second * 75..(second + 1) * 75]).unwrap();
            log[i].1 += 1;
            for c in clusters {
                a.cluster_durable(key, &c)?;
            }
        }
    }
    for (key, f, _) in growing.into_iter().rev() {
        a.seal_segment(&key, f.seal().unwrap())?;
    }
    Ok(())
}

#[test]
fn a_crash_before_any_step_of_two_open_segments_loses_nothing_that_was_durable() {
    let mut crashes = 0;
    for crash_at in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let mut a = open(dir.path());
        let mut n = 0;
        a.set_hook(move |_| {
            n += 1;
            if n > crash_at {
                Err(io::Error::other("crash"))
            } else {
                Ok(())
            }
        });
        let mut log = Vec::new();
        let result = two_at_once(&mut a, &mut log);
        // Every other time the index is lost as well.
        if crash_at % 2 == 1 {
            a.flush().unwrap();
            drop(a);
            fs::remove_dir_all(index_dir(dir.path())).unwrap();
            a = open(dir.path());
        }
        let (mut a, report) = reopen(a);
        assert!(report.unreadable.is_empty(), "{report:?}");
        let found = all(&mut a, "front");
        for (key, seconds) in &log {
            match found.iter().find(|s| s.key == *key) {
                Some(s) => {
                    expect_frames(s, *seconds);
                    assert_eq!(s.backfilled, key.start == at(20));
                }
                None => assert_eq!(*seconds, 0, "step {crash_at}: {key} is lost"),
            }
        }
        assert_eq!(found.len(), files(dir.path()).len());
        drop(a);
        let report = check_files(dir.path(), false);
        assert!(report.is_clean(), "step {crash_at}: {report:?}");
        if result.is_ok() {
            break;
        }
        crashes += 1;
    }
    // 2 x create, sync, row, show, rename, row.
    assert_eq!(crashes, 12);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn segments_never_overlap_whatever_is_filled_in(
        live in prop::collection::vec((1i64..12, 1u64..5), 1..5),
        asked in prop::collection::vec((0i64..60, 1i64..30), 1..6),
        grows in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut a = open(dir.path());
        let c = camera("front");
        let (mut t, mut growing) = (5, Vec::new());
        for (i, &(apart, seconds)) in live.iter().enumerate() {
            t += apart;
            let h = header("front", at(t));
            if grows && i + 1 == live.len() {
                growing.push(record(&mut a, h, seconds).unwrap());
            } else {
                record_sealed(&mut a, h, seconds);
            }
            t += seconds as i64;
        }
        for (from, len) in asked {
            let range = range(from, from + len);
            let direct = a.open_segment(SegmentHeader { backfilled_until: Some(range.end), ..header("front", range.start) });
            let vacant = a.vacant(&c, range);
            if let Ok(opened) = &direct {
                a.abandon_segment(&opened.key).unwrap();
            }
            prop_assert_eq!(direct.is_ok(), a.vacant(&c, range).unwrap() == [range]);
            prop_assert!(direct.is_err() || vacant.unwrap().is_empty());
            for hole in a.vacant(&c, range).unwrap() {
                let h = SegmentHeader { backfilled_until: Some(hole.end), ..header("front", hole.start) };
                let opened = a.open_segment(h).unwrap();
                prop_assert_eq!(opened.key.start, hole.start);
                let mut f = SegmentFile::start(&opened.path, opened.header).unwrap();
                let mut frames = stream(hole.start, len as u64);
                frames.retain(|f| f.time.offset(1000) <= hole.end);
                prop_assume!(frames.first().is_some_and(|f| f.track.0 == 0));
                for cluster in f.append(&frames).unwrap() {
                    a.cluster_durable(&opened.key, &cluster).unwrap();
                }
                a.seal_segment(&opened.key, f.seal().unwrap()).unwrap();
            }
            prop_assert!(a.vacant(&c, range).unwrap().iter().all(|v| v.end.micros_since(v.start) < 100_000));
        }
        drop(growing);
        let (mut a, _) = reopen(a);
        let found = all(&mut a, "front");
        prop_assert!(found.windows(2).all(|w| w[0].end <= w[1].key.start));
        let line = a.timeline(&c, always()).unwrap();
        prop_assert!(line.spans.windows(2).all(|w| w[0].range.end <= w[1].range.start));
        prop_assert!(line.gaps.iter().all(|g| line.spans.iter().all(|s| s.range.intersect(g.range).is_none())));
        let before = found.iter().map(|s| (s.key.clone(), s.backfilled)).collect::<Vec<_>>();
        a.rebuild(&mut |_| {}).unwrap();
        prop_assert_eq!(all(&mut a, "front").iter().map(|s| (s.key.clone(), s.backfilled)).collect::<Vec<_>>(), before);
    }
}
