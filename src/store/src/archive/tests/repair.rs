//! Damaged indexes and files: found, named, rebuilt; never a reason to delete.

use proptest::prelude::*;

use super::*;
use crate::check::rebuild;

/// Six segments of two cameras. Returns what the archive says of them.
fn fill(root: &Path) -> Vec<Arc<SegmentMeta>> {
    let mut a = open(root);
    for i in 0..3 {
        record_sealed(&mut a, header("back", START.offset(i * 2_000_000)), 2);
        let gap_before = (i == 1).then_some(GapCause::Clock);
        record_sealed(
            &mut a,
            SegmentHeader {
                gap_before,
                ..header("front", START.offset(i * 3_000_000))
            },
            2,
        );
    }
    both(&mut a)
}

fn both(a: &mut Archive) -> Vec<Arc<SegmentMeta>> {
    [all(a, "back"), all(a, "front")].concat()
}

#[test]
fn an_index_is_rebuilt_from_the_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    let before = fill(dir.path());
    let report = rebuild(dir.path(), &mut |_| {}).unwrap();
    assert_eq!((report.added, report.segments), (6, 6));
    assert_eq!(both(&mut open(dir.path())), before);
    // Even when the private directory is gone.
    fs::remove_dir_all(dir.path().join(".corenvr")).unwrap();
    let report = rebuild(dir.path(), &mut |_| {}).unwrap();
    assert_eq!(report.segments, 6);
    assert_eq!(both(&mut open(dir.path())), before);
    let empty = tempfile::tempdir().unwrap();
    assert!(rebuild(empty.path(), &mut |_| {}).is_err());
}

#[test]
fn an_empty_index_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let before = fill(dir.path());
    let listed = files(dir.path());
    fs::remove_dir_all(index_dir(dir.path())).unwrap();
    let keep_none = |_: &CameraName| RetentionPolicy {
        age: Some(Duration::ZERO),
        bytes: Some(0),
    };
    let everything = DiskPolicy {
        keep_free: u64::MAX,
        max: Some(0),
    };
    let mut a = open(dir.path());
    assert!(
        a.plan_retention(&keep_none, everything, 0, WallTime::MAX)
            .unwrap()
            .is_empty()
    );
    assert_eq!(a.recover(&mut |_| {}).unwrap().added, 6);
    assert_eq!(both(&mut a), before);
    assert_eq!(files(dir.path()), listed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn flipped_bits_in_the_index_cost_no_recording(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..8), 1..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let before = fill(dir.path());
        let listed = files(dir.path());
        let index = index_dir(dir.path());
        let mut parts: Vec<_> = fs::read_dir(&index).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()).collect();
        parts.retain(|p| fs::metadata(p).unwrap().len() > 0);
        parts.sort();
        for (file, at, bit) in flips {
            let path = &parts[file.index(parts.len())];
            let mut bytes = fs::read(path).unwrap();
            // What is used of sled's large, mostly empty files is at their front.
            let used = bytes.iter().rposition(|&b| b != 0).unwrap_or(0) + 1;
            bytes[at.index(used)] ^= 1 << bit;
            fs::write(path, bytes).unwrap();
        }
        let mut a = open(dir.path());
        a.recover(&mut |_| {}).unwrap();
        prop_assert_eq!(both(&mut a), before);
        prop_assert_eq!(files(dir.path()), listed);
        drop(a);
        prop_assert!(check_files(dir.path(), false).is_clean());
    }
}

fn problems(report: &Report) -> Vec<(&str, &Problem, bool)> {
    let name = |p: &'_ PathBuf| -> String { p.file_name().unwrap().to_string_lossy().into_owned() };
    report
        .findings
        .iter()
        .map(|f| (&*Box::leak(name(&f.path).into_boxed_str()), &f.problem, f.repaired))
        .collect()
}

/// Does one damage of each kind to what [`fill`] made.
fn damage(root: &Path, before: &[Arc<SegmentMeta>]) {
    let change = |i: usize, f: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(&before[i].path).unwrap();
        f(&mut bytes);
        fs::write(&before[i].path, bytes).unwrap();
    };
    change(0, &|b| b[before[0].table.clusters[1].offset as usize + 500] ^= 1);
    change(1, &|b| b.truncate(b.len() - 4096));
    change(2, &|b| b[0] = 0);
    fs::rename(&before[3].path, before[3].path.with_file_name("10-30-00.000Z.mkv")).unwrap();
    fs::remove_file(&before[4].path).unwrap();
    fs::write(root.join("notes.txt"), b"").unwrap();
    fs::create_dir(root.join("front/2026-13-01")).unwrap();
    fs::write(root.join("front/2026-11-20/x.mkv"), b"").unwrap();
    fs::write(root.join("front/2026-11-20/11-00-00.000Z.part.mkv"), b"").unwrap();
}

#[test]
fn check_names_every_kind_of_damage() {
    let dir = tempfile::tempdir().unwrap();
    let before = fill(dir.path());
    assert!(check_files(dir.path(), false).is_clean());
    damage(dir.path(), &before);
    let options = CheckOptions {
        root: dir.path().to_owned(),
        repair: false,
        payload: true,
    };
    let report = check(&options, &mut |_| {}).unwrap();
    let found = problems(&report);
    let has = |name: &str, f: &dyn Fn(&Problem) -> bool| {
        let is = |(n, p, repaired): &(&str, &Problem, bool)| *n == name && f(p) && !repaired;
        assert!(found.iter().any(is), "{name}: {found:#?}");
    };
    let at = before[0].table.clusters[1].offset;
    has(
        "10-00-00.000Z.mkv",
        &|p| matches!(p, Problem::Damaged { error, .. } if error.at == at),
    );
    has("10-00-02.000Z.mkv", &|p| matches!(p, Problem::Size { .. }));
    has("10-00-04.000Z.mkv", &|p| matches!(p, Problem::Unreadable(_)));
    has("10-30-00.000Z.mkv", &|p| matches!(p, Problem::WrongPlace(_)));
    has("10-30-00.000Z.mkv", &|p| matches!(p, Problem::RowDiffers("its name")));
    has("10-00-03.000Z.mkv", &|p| matches!(p, Problem::RowWithoutFile));
    has("notes.txt", &|p| matches!(p, Problem::Stray));
    has("2026-13-01", &|p| matches!(p, Problem::Stray));
    has("x.mkv", &|p| matches!(p, Problem::Stray));
    has("11-00-00.000Z.part.mkv", &|p| matches!(p, Problem::LeftOpen));
    assert!(!report.is_clean());
}

#[test]
fn a_repair_corrects_the_index_and_leaves_damaged_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    let before = fill(dir.path());
    damage(dir.path(), &before);
    let damaged = fs::read(&before[0].path).unwrap();
    let report = check_files(dir.path(), true);
    let found = problems(&report);
    let repaired = |name: &str, f: &dyn Fn(&Problem) -> bool| {
        assert!(
            found.iter().any(|(n, p, r)| *n == name && f(p) && *r),
            "{name}: {found:#?}"
        );
    };
    repaired("10-00-03.000Z.mkv", &|p| matches!(p, Problem::RowWithoutFile));
    repaired("11-00-00.000Z.part.mkv", &|p| matches!(p, Problem::LeftEmpty));
    assert_eq!(fs::read(&before[0].path).unwrap(), damaged);
    let report = check(
        &CheckOptions {
            root: dir.path().to_owned(),
            repair: false,
            payload: true,
        },
        &mut |_| {},
    )
    .unwrap();
    let of_files = |p: &Problem| {
        matches!(
            p,
            Problem::Damaged { .. }
                | Problem::Size { .. }
                | Problem::Tail(_)
                | Problem::Unreadable(_)
                | Problem::WrongPlace(_)
        )
    };
    let left: Vec<_> = problems(&report)
        .into_iter()
        .filter(|(_, p, _)| !p.is_notice())
        .collect();
    assert!(
        !left.is_empty() && left.iter().all(|(_, p, _)| of_files(p)),
        "{left:#?}"
    );
}

#[test]
fn a_copy_of_a_file_and_one_of_another_camera_are_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    let before = fill(dir.path());
    fs::copy(&before[0].path, before[0].path.with_file_name("10-00-00.000Z-1.mkv")).unwrap();
    fs::copy(&before[0].path, before[3].path.with_file_name("09-00-00.000Z.mkv")).unwrap();
    let (mut a, report) = reopen(open(dir.path()));
    assert_eq!(report.unreadable.len(), 2, "{report:?}");
    assert_eq!(both(&mut a), before);
}

#[test]
fn a_sealed_file_that_lost_its_end_is_still_played() {
    let dir = tempfile::tempdir().unwrap();
    let before = fill(dir.path());
    let cut = before[0].table.clusters[1].offset + 100;
    fs::OpenOptions::new()
        .write(true)
        .open(&before[0].path)
        .unwrap()
        .set_len(cut)
        .unwrap();
    rebuild(dir.path(), &mut |_| {}).unwrap();
    let now = all(&mut open(dir.path()), "back");
    assert_eq!(now.len(), 3);
    expect_frames(&now[0], 1);
}
