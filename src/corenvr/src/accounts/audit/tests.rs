//! Entries on disk: written, rotated, torn, and read back.

use std::{fs, os::unix::fs::PermissionsExt};

use corenvr_media::{CameraName, WallTime};

use super::{files::FILES_MAX, *};

fn who(name: &str) -> Who {
    Who::User(name.into())
}

fn entry(n: u64) -> Entry {
    let mut entry = Entry::new(
        &who(if n.is_multiple_of(2) { "anna" } else { "bert" }),
        None,
        Via::Local,
        Action::Ptz,
    );
    entry.time = WallTime::from_millis(n as i64 * 1000);
    entry
        .camera(&CameraName::new(if n.is_multiple_of(3) { "door" } else { "yard" }).unwrap())
        .detail(&format!("number {n}"))
}

fn numbers(page: &Page) -> Vec<u64> {
    let number = |e: &Entry| e.detail.strip_prefix("number ").unwrap().parse().unwrap();
    page.entries.iter().map(number).collect()
}

#[test]
fn entries_come_back_newest_first_by_filter_and_by_pages() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    (0..20).for_each(|n| audit.record(entry(n)));
    let all = Filter {
        limit: 100,
        ..Filter::default()
    };
    assert_eq!(numbers(&audit.read(&all).unwrap()), (0..20).rev().collect::<Vec<_>>());
    let some = Filter {
        from: Some(WallTime::from_millis(3000)),
        to: Some(WallTime::from_millis(15_000)),
        camera: Some(CameraName::new("door").unwrap()),
        who: Some("anna".into()),
        ..all.clone()
    };
    assert_eq!(numbers(&audit.read(&some).unwrap()), [12, 6]);
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = audit
            .read(&Filter {
                cursor: cursor.take(),
                limit: 7,
                ..Filter::default()
            })
            .unwrap();
        seen.extend(numbers(&page));
        // What is written meanwhile does not shift the pages.
        audit.record(entry(99));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..20).rev().collect::<Vec<_>>());
    for wrong in ["", "x", "1", "1-", "-1", "1-x"] {
        let filter = Filter {
            cursor: Some(wrong.into()),
            ..all.clone()
        };
        assert!(matches!(audit.read(&filter), Err(ReadError::Cursor)), "{wrong}");
    }
    let mode = fs::metadata(dir.path().join("audit.jsonl"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn files_are_rotated_and_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::with_files(Files::new(dir.path(), 1000)).unwrap();
    let all = Filter {
        limit: ENTRIES_MAX,
        ..Filter::default()
    };
    for n in 0..300 {
        audit.record(entry(n));
        // Each batch looks once whether the file is full.
        audit
            .read(&Filter {
                limit: 1,
                ..all.clone()
            })
            .unwrap();
    }
    let count = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(count, FILES_MAX);
    let kept = numbers(&audit.read(&all).unwrap());
    assert_eq!(kept[0], 299);
    assert!(kept.windows(2).all(|w| w[0] == w[1] + 1), "{kept:?}");
    assert!(kept.len() < 300 && kept.len() > 50, "{}", kept.len());
}

#[test]
fn a_line_torn_by_a_crash_costs_itself_only() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    audit.record(entry(1));
    drop(audit);
    let path = dir.path().join("audit.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    assert!(whole.ends_with('\n'), "dropping the last handle writes everything");
    fs::write(&path, format!("{whole}{{\"time\":\"2026")).unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    audit.record(entry(2));
    let filter = Filter {
        limit: 10,
        ..Filter::default()
    };
    assert_eq!(numbers(&audit.read(&filter).unwrap()), [2, 1]);
}

#[test]
fn what_is_lost_is_counted_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    audit.0.lost.store(3, Ordering::Relaxed);
    audit.record(entry(1));
    let page = audit
        .read(&Filter {
            limit: 10,
            ..Filter::default()
        })
        .unwrap();
    assert_eq!(page.entries[0].action, Action::Lost);
    assert!(page.entries[0].detail.starts_with("3 entries"));
    assert_eq!(page.entries.len(), 2);
}

#[test]
fn a_detail_cannot_forge_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    audit.record(entry(1).detail("number 1\n{\"time\":1}\u{1b}[2J"));
    let page = audit
        .read(&Filter {
            limit: 10,
            ..Filter::default()
        })
        .unwrap();
    assert_eq!(page.entries.len(), 1);
    assert_eq!(page.entries[0].detail, "number 1{\"time\":1}[2J");
}
