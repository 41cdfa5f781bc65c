//! Events: kept once durable, found by time, bounded, and gone with the footage of their day.

use super::*;
use crate::{
    archive::events::EVENTS_PER_MINUTE_MAX,
    events::{Event, FILE, KIND_MORE, Kept},
};

const DAY_S: i64 = 86_400;

fn at(s: i64) -> WallTime {
    START.offset(s * 1_000_000)
}

fn add(a: &mut Archive, name: &str, s: i64) {
    let event = Event::new(at(s), "alarm", "gb28181", s.to_string());
    assert_eq!(a.add_event(&camera(name), &event, at(s)).unwrap(), Kept::Written);
}

fn told(a: &Archive, name: &str, range: TimeRange, max: usize) -> (Vec<i64>, Option<WallTime>) {
    let found = a.events(&camera(name), range, max).unwrap();
    let seconds = found.events.iter().map(|e| e.text.parse().unwrap()).collect();
    (seconds, found.more_from)
}

fn event_file(a: &Archive, name: &str, s: i64) -> PathBuf {
    a.root().join(name).join(paths::day_of(at(s))).join(FILE)
}

const fn keep_days(days: u64) -> impl Fn(&CameraName) -> RetentionPolicy {
    move |_: &CameraName| RetentionPolicy {
        age: Some(Duration::from_secs(days * DAY_S as u64)),
        bytes: None,
    }
}

const fn keep_all(_: &CameraName) -> RetentionPolicy {
    RetentionPolicy { age: None, bytes: None }
}

#[test]
fn events_are_found_by_time_over_days_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    for s in [10, DAY_S, DAY_S + 5, 3 * DAY_S] {
        add(&mut a, "front", s);
    }
    add(&mut a, "front-door", 11);
    // Told late: it belongs before what is in the file already.
    let late = Event::new(at(3 * DAY_S - 9), "alarm", "gb28181", (3 * DAY_S - 9).to_string());
    a.add_event(&camera("front"), &late, at(3 * DAY_S + 60)).unwrap();
    let all = [10, DAY_S, DAY_S + 5, 3 * DAY_S - 9, 3 * DAY_S];
    assert_eq!(told(&a, "front", always(), 100), (all.to_vec(), None));
    let (mut a, report) = reopen(a);
    assert_eq!((report.segments, report.unreadable.len()), (0, 0));
    assert_eq!(told(&a, "front", always(), 100).0, all);
    assert_eq!(told(&a, "front", range(11, DAY_S + 1), 100).0, [DAY_S]);
    assert!(told(&a, "other", always(), 100).0.is_empty());
    // Page by page, the same as at once.
    for max in 1..6 {
        let (mut list, mut from) = (Vec::new(), Some(WallTime::MIN));
        while let Some(start) = from {
            let page = told(&a, "front", TimeRange::new(start, WallTime::MAX).unwrap(), max);
            assert!(page.0.len() <= max);
            list.extend(page.0);
            from = page.1;
        }
        assert_eq!(list, all);
    }
    assert!(a.cameras().is_empty());
    add(&mut a, "front", 3 * DAY_S + 90);
    assert_eq!(told(&a, "front", always(), 100).0.len(), 6);
    drop(a);
    assert!(check_files(dir.path(), false).is_clean());
}

#[test]
fn events_of_one_millisecond_are_never_cut_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    for text in ["1", "2", "3"] {
        let e = Event::new(at(0), "alarm", "test", text);
        a.add_event(&camera("front"), &e, at(0)).unwrap();
    }
    add(&mut a, "front", 9);
    let (list, more) = told(&a, "front", always(), 2);
    assert_eq!(
        (list, more),
        (vec![1, 2, 3], Some(WallTime::from_millis(at(9).as_millis())))
    );
    assert_eq!(
        told(&a, "front", TimeRange::new(more.unwrap(), WallTime::MAX).unwrap(), 2),
        (vec![9], None)
    );
}

#[test]
fn a_flood_is_counted_and_the_count_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let c = camera("front");
    let mut written = 0;
    for n in 0..100 {
        let e = Event::new(at(n / 10), "alarm", "test", "x");
        written += u32::from(a.add_event(&c, &e, at(n / 10)).unwrap() == Kept::Written);
    }
    assert_eq!(written, EVENTS_PER_MINUTE_MAX);
    a.expire_events(&keep_all, at(59)).unwrap();
    assert_eq!(a.events(&c, always(), 1000).unwrap().events.len(), 30);
    a.expire_events(&keep_all, at(61)).unwrap();
    let all = a.events(&c, always(), 1000).unwrap().events;
    let more = all.iter().find(|e| e.kind == KIND_MORE).unwrap();
    assert_eq!((all.len(), more.detail["count"].as_u64()), (31, Some(70)));
    // Another camera was never concerned, and this one is heard again.
    add(&mut a, "front-door", 9);
    add(&mut a, "front", 62);
}

#[test]
fn a_time_that_cannot_be_is_kept_as_a_claim() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let c = camera("front");
    for claimed in [
        at(-DAY_S - 1),
        at(301),
        WallTime::from_micros(i64::MIN),
        WallTime::from_micros(i64::MAX),
    ] {
        let e = Event::new(claimed, "alarm", "test", "x");
        a.add_event(&c, &e, at(0)).unwrap();
    }
    let all = a.events(&c, always(), 10).unwrap().events;
    let told: Vec<_> = all
        .iter()
        .map(|e| (e.time, e.claimed_time.map(WallTime::as_millis)))
        .collect();
    let now = WallTime::from_millis(at(0).as_millis());
    let claims = [at(-DAY_S - 1), at(301), WallTime::MIN, WallTime::MAX];
    assert_eq!(told, claims.map(|t| (now, Some(t.as_millis()))));
    assert_eq!(files(dir.path()).len(), 1);
}

#[test]
fn event_files_go_with_the_footage_of_their_day_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let c = camera("front");
    // Footage on day 0 and day 2, events on days 0 to 3.
    let first = record_sealed(&mut a, header("front", at(0)), 2);
    let second = record_sealed(&mut a, header("front", at(2 * DAY_S)), 2);
    for day in 0..4 {
        add(&mut a, "front", day * DAY_S + 7);
    }
    let left = |a: &Archive| {
        (0..4)
            .filter(|d| event_file(a, "front", d * DAY_S).exists())
            .collect::<Vec<_>>()
    };
    let now = at(4 * DAY_S);
    // Footage holds its day whatever the age; the day without any goes by age.
    assert_eq!(a.expire_events(&keep_all, now).unwrap(), 0);
    assert_eq!(a.expire_events(&keep_days(2), now).unwrap(), 1);
    assert_eq!(left(&a), [0, 2, 3]);
    // The day's footage goes, and with the next footage being later, its events too.
    a.delete(&first).unwrap();
    assert_eq!(left(&a), [0, 2, 3]);
    let (mut a, _) = reopen(a);
    assert_eq!(a.expire_events(&keep_all, now).unwrap(), 1);
    assert_eq!(left(&a), [2, 3]);
    assert!(!event_file(&a, "front", 0).parent().unwrap().exists());
    // Protection holds events of a day without footage.
    a.delete(&second).unwrap();
    a.protect(&c, range(2 * DAY_S, 2 * DAY_S + 1)).unwrap();
    assert_eq!(a.expire_events(&keep_days(0), at(5 * DAY_S)).unwrap(), 1);
    assert_eq!(left(&a), [2]);
    a.unprotect(&c, always()).unwrap();
    // No footage at all, no age: the disk's oldest footage of any camera decides.
    assert_eq!(a.expire_events(&keep_all, now).unwrap(), 0);
    record_sealed(&mut a, header("back", at(3 * DAY_S)), 1);
    assert_eq!(a.expire_events(&keep_all, now).unwrap(), 1);
    assert!(!dir.path().join("front").exists());
}

#[test]
fn events_stay_while_there_is_anything_else_of_their_day() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let (_open, _f) = record(&mut a, header("front", at(0)), 2).unwrap();
    add(&mut a, "front", 1);
    add(&mut a, "back", 1);
    fs::write(event_file(&a, "back", 0).with_file_name("09-00-00.000Z.torn.mkv"), b"x").unwrap();
    assert_eq!(a.expire_events(&keep_days(1), at(9 * DAY_S)).unwrap(), 0);
    assert_eq!(
        a.purge_events(&camera("front")).unwrap() + a.purge_events(&camera("back")).unwrap(),
        0
    );
    assert!(event_file(&a, "front", 0).exists() && event_file(&a, "back", 0).exists());
    add(&mut a, "gate", 1);
    assert_eq!(a.purge_events(&camera("gate")).unwrap(), 1);
    assert!(!dir.path().join("gate").exists());
}

#[test]
fn a_damaged_event_file_is_named_and_read_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    add(&mut a, "front", 1);
    let path = event_file(&a, "front", 0);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"time\":\"2026-11-2");
    fs::write(&path, bytes).unwrap();
    drop(a);
    let report = check_files(dir.path(), false);
    assert!(report.is_clean());
    assert!(
        report
            .findings
            .iter()
            .any(|f| f.path == path && f.problem == Problem::EventLines(1))
    );
    let (mut a, report) = reopen(open(dir.path()));
    assert!(report.unreadable.is_empty());
    add(&mut a, "front", 2);
    assert_eq!(told(&a, "front", always(), 10).0, [1, 2]);
}
