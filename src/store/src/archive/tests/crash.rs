//! A crash before any step: what was reported durable is there afterwards, and the archive is clean.

use std::io;

use super::*;

/// Records two segments and an open one, deletes the first. Stops at the first error.
fn scenario(
    a: &mut Archive,
    log: &mut Vec<(SegmentKey, u64)>,
    deleted: &mut Option<SegmentKey>,
) -> Result<(), ArchiveError> {
    let mut first: Option<SegmentKey> = None;
    for i in 0..3 {
        if i == 2
            && let Some(first) = &first
        {
            *deleted = Some(first.clone());
            a.delete(first)?;
        }
        let h = header("front", START.offset(i * 10_000_000));
        let frames = stream(h.start, 7);
        let opened = a.open_segment(h)?;
        let mut f = SegmentFile::start(&opened.path, opened.header).unwrap();
        log.push((opened.key.clone(), 0));
        for second in frames.chunks(75) {
            let clusters = f.append(second).unwrap();
            // Durable from here on, whether the archive hears of it or not.
            log.last_mut().unwrap().1 += 1;
            for c in clusters {
                a.cluster_durable(&opened.key, &c)?;
            }
        }
        if i < 2 {
            a.seal_segment(&opened.key, f.seal().unwrap())?;
            first.get_or_insert(opened.key);
        }
    }
    Ok(())
}

#[test]
fn a_crash_before_any_step_loses_nothing_that_was_durable() {
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
        let (mut log, mut deleted) = (Vec::new(), None);
        let result = scenario(&mut a, &mut log, &mut deleted);
        let (mut a, report) = reopen(a);
        assert!(
            report.unreadable.is_empty() && report.index_rebuilt.is_none(),
            "{report:?}"
        );
        let found = all(&mut a, "front");
        for (key, seconds) in &log {
            let segment = found.iter().find(|s| s.key == *key);
            match segment {
                Some(s) => expect_frames(s, *seconds),
                // Deleted on request, or nothing was ever written to it.
                None => assert!(
                    deleted.as_ref() == Some(key) || *seconds == 0,
                    "step {crash_at}: {key} is lost"
                ),
            }
        }
        assert_eq!(found.len(), files(dir.path()).len());
        assert_eq!(
            a.usage().get(&camera("front")).map_or(0, |u| u.segments),
            found.len() as u64
        );
        drop(a);
        let report = check_files(dir.path(), false);
        assert!(
            report.is_clean() && report.index_not_compared.is_none(),
            "step {crash_at}: {report:?}"
        );
        if result.is_ok() {
            break;
        }
        crashes += 1;
    }
    // 3 x create, sync, row, show; 2 x rename, row; 3 of the deletion.
    assert_eq!(crashes, 19);
}

#[test]
fn steps_come_in_the_order_of_the_invariant() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let steps = Arc::new(Mutex::new(Vec::new()));
    let (seen, root) = (Arc::clone(&steps), dir.path().to_owned());
    a.set_hook(move |s| {
        seen.lock().unwrap().push((s, files(&root).len()));
        Ok(())
    });
    let key = record_sealed(&mut a, header("front", START), 1);
    a.delete(&key).unwrap();
    assert_eq!(
        *steps.lock().unwrap(),
        [
            (Step::CreateFile, 0),
            (Step::SyncDirectory, 1),
            (Step::OpenRow, 1),
            (Step::Show, 1),
            (Step::Rename, 1),
            (Step::SealedRow, 1),
            (Step::TombstoneRow, 1),
            (Step::Unlink, 1),
            (Step::RowGone, 0),
        ]
    );
}

#[test]
fn part_files_of_every_kind_are_dealt_with() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let (key, _f) = record(&mut a, header("front", START), 12).unwrap();
    let part = a.open[&key].path.clone();
    // Allocated ahead, and a flush that did not get to the end.
    let bytes = fs::read(&part).unwrap();
    let mut crashed = bytes.clone();
    crashed.extend_from_slice(&bytes[4096..20_000]);
    crashed.resize(crashed.len() + 100_000, 0);
    fs::write(&part, &crashed).unwrap();
    let empty = a.open_segment(header("front", START.offset(20_000_000))).unwrap();
    let torn = a.open_segment(header("front", START.offset(30_000_000))).unwrap();
    fs::write(&torn.path, &bytes[..9000]).unwrap();
    let bad = a.open_segment(header("front", START.offset(40_000_000))).unwrap();
    fs::write(&bad.path, b"not Matroska at all").unwrap();
    let (mut a, report) = reopen(a);
    assert_eq!(report.recovered.len(), 1);
    assert!(report.recovered[0].0.ends_with("10-00-00.000Z.mkv") && report.recovered[0].1.is_empty());
    assert_eq!(report.removed, [empty.path]);
    assert_eq!(report.set_aside.len(), 1);
    assert!(report.set_aside[0].ends_with("10-00-30.000Z.torn.mkv") && report.set_aside[0].exists());
    assert_eq!(report.unreadable.len(), 1);
    assert_eq!(fs::read(&bad.path).unwrap(), b"not Matroska at all");
    let found = all(&mut a, "front");
    assert_eq!(found.len(), 1);
    expect_frames(&found[0], 12);
    // Nothing new the second time.
    let (mut a, report) = reopen(a);
    assert_eq!(
        (report.recovered.len(), report.removed.len(), report.set_aside.len()),
        (0, 0, 0)
    );
    assert_eq!(all(&mut a, "front"), found);
}

#[test]
fn recovery_does_not_read_what_was_written_down_as_durable() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let (key, _f) = record(&mut a, header("front", START), 12).unwrap();
    let part = a.open[&key].path.clone();
    let table = a.open[&key].table.clone();
    // Cluster 2 of 12 is behind the table that was written down with the tenth: recovery must not look at it.
    let mut bytes = fs::read(&part).unwrap();
    bytes[table.clusters[2].offset as usize + 100] ^= 1;
    fs::write(&part, &bytes).unwrap();
    let (mut a, report) = reopen(a);
    assert!(report.recovered[0].1.is_empty());
    assert_eq!(all(&mut a, "front")[0].table, table);
}
