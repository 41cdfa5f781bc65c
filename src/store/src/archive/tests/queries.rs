//! Timelines, gaps and the nearest footage.

use super::*;

fn at(ms: i64) -> WallTime {
    START.offset(ms * 1000)
}

#[test]
fn a_timeline_joins_segments_and_names_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let c = camera("front");
    // 0-2, 2-4 joined; gap with notes; 10-12; gap by its header; 13.5-15; gap of unknown cause; 20-22 open.
    record_sealed(&mut a, header("front", at(0)), 2);
    record_sealed(&mut a, header("front", at(2000)), 2);
    a.note_gap(&c, at(3990), GapCause::CameraDown).unwrap();
    a.note_gap(&c, at(7000), GapCause::Operator).unwrap();
    record_sealed(&mut a, header("front", at(10_000)), 2);
    let with_cause = SegmentHeader {
        gap_before: Some(GapCause::Loss),
        ..header("front", at(12_500))
    };
    record_sealed(&mut a, with_cause, 2);
    let (_, _f) = record(&mut a, header("front", at(20_000)), 2).unwrap();

    let line = a.timeline(&c, range(-100, 100)).unwrap();
    let spans: Vec<_> = line
        .spans
        .iter()
        .map(|s| (s.range.start, s.range.end, s.open))
        .collect();
    assert_eq!(
        spans,
        [
            (at(0), at(4000), false),
            (at(10_000), at(12_000), false),
            (at(12_500), at(14_500), false),
            (at(20_000), at(21_980).offset(1), true)
        ]
    );
    let gaps: Vec<_> = line
        .gaps
        .iter()
        .map(|g| (g.range.start, g.range.end, g.cause))
        .collect();
    assert_eq!(
        gaps,
        [
            (at(4000), at(7000), GapCause::CameraDown),
            (at(7000), at(10_000), GapCause::Operator),
            (at(12_000), at(12_500), GapCause::Loss),
            (at(14_500), at(20_000), GapCause::Unknown)
        ]
    );
    assert_eq!(line.bytes, a.usage()[&c].bytes);

    // A range inside a gap, one inside a segment, and one that cuts both.
    let line = a.timeline(&c, range(5, 6)).unwrap();
    assert!(line.spans.is_empty());
    assert_eq!(
        line.gaps,
        [Gap {
            range: range(5, 6),
            cause: GapCause::CameraDown
        }]
    );
    let line = a.timeline(&c, range(1, 3)).unwrap();
    assert_eq!(
        (line.spans.len(), line.spans[0].range, line.gaps.len()),
        (1, range(1, 3), 0)
    );
    let line = a.timeline(&c, range(11, 18)).unwrap();
    assert_eq!(
        line.spans.iter().map(|s| s.range.end).collect::<Vec<_>>(),
        [at(12_000), at(14_500)]
    );
    assert_eq!(
        line.gaps[1],
        Gap {
            range: TimeRange::new(at(14_500), at(18_000)).unwrap(),
            cause: GapCause::Unknown
        }
    );
}

#[test]
fn notes_survive_a_restart_and_show_while_nothing_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let c = camera("front");
    record_sealed(&mut a, header("front", at(0)), 2);
    a.note_gap(&c, at(2000), GapCause::Disk).unwrap();
    let (mut a, _) = reopen(a);
    let line = a.timeline(&c, range(0, 60)).unwrap();
    assert_eq!(
        line.gaps,
        [Gap {
            range: range(2, 60),
            cause: GapCause::Disk
        }]
    );
    assert!(a.timeline(&c, range(-60, 0)).unwrap().gaps.is_empty());
    assert_eq!(a.timeline(&camera("other"), range(0, 60)).unwrap(), Timeline::default());
}

#[test]
fn the_nearest_footage() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let c = camera("front");
    assert_eq!(a.nearest(&c, START).unwrap(), None);
    record_sealed(&mut a, header("front", at(0)), 2);
    let (_, _f) = record(&mut a, header("front", at(10_000)), 2).unwrap();
    for (t, expected) in [
        (at(-5000), at(0)),
        (at(0), at(0)),
        (at(1999), at(1999)),
        (at(2000), at(2000).offset(-1)),
        (at(5000), at(2000).offset(-1)),
        (at(6500), at(10_000)),
        (at(11_000), at(11_000)),
        (at(99_000), at(11_980)),
    ] {
        assert_eq!(a.nearest(&c, t).unwrap(), Some(expected), "{t:?}");
    }
}

#[test]
fn segments_are_those_that_reach_into_the_range() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    for i in 0..5 {
        record_sealed(&mut a, header("front", at(i * 2000)), 2);
    }
    record_sealed(&mut a, header("front-door", at(0)), 2);
    let starts = |a: &mut Archive, from, to| {
        let r = TimeRange::new(at(from), at(to)).unwrap();
        a.segments(&camera("front"), r)
            .unwrap()
            .iter()
            .map(|s| s.key.start)
            .collect::<Vec<_>>()
    };
    assert_eq!(starts(&mut a, -9000, 0), []);
    assert_eq!(starts(&mut a, 0, 1), [at(0)]);
    assert_eq!(starts(&mut a, 1999, 2001), [at(0), at(2000)]);
    assert_eq!(starts(&mut a, 2000, 4000), [at(2000)]);
    assert_eq!(starts(&mut a, 3000, 7000), [at(2000), at(4000), at(6000)]);
    assert_eq!(starts(&mut a, 10_000, 20_000), []);
    assert_eq!(a.cameras(), [camera("front"), camera("front-door")]);
}

#[test]
fn a_failing_index_is_made_anew_while_running() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let keys: Vec<_> = (0..3)
        .map(|i| record_sealed(&mut a, header("front", at(i * 2000)), 2))
        .collect();
    let (open_key, f) = record(&mut a, header("front", at(6000)), 2).unwrap();
    let before = all(&mut a, "front");
    let usage = a.usage().clone();
    a.index.spoil(&keys[1]);
    assert_eq!(all(&mut a, "front"), before);
    assert_eq!(a.usage(), &usage);
    a.index.spoil(&keys[2]);
    let keep_none = |_: &CameraName| RetentionPolicy {
        age: None,
        bytes: Some(0),
    };
    let plan = a
        .plan_retention(&keep_none, DiskPolicy::default(), 0, WallTime::MAX)
        .unwrap();
    // What the index cannot read is not planned with.
    assert!(plan.iter().all(|k| keys[..2].contains(k)), "{plan:?}");
    a.seal_segment(&open_key, f.seal().unwrap()).unwrap();
    assert_eq!(all(&mut a, "front").len(), 4);
}
