//! The archive on a real directory.

mod backfill;
mod crash;
mod events;
mod queries;
mod repair;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use corenvr_media::{CodecParameters, Frame, VideoCodec};

use super::{retention::*, *};
use crate::{
    SegmentMeta, SegmentState,
    check::{CheckOptions, Problem, Report, check},
    mkv::{
        file::SegmentFile,
        samples::{START, camera, header_av, stored, stream, video},
    },
};

pub fn open(root: &Path) -> Archive {
    Archive::open(&ArchiveOptions::new(root)).unwrap()
}

pub fn reopen(archive: Archive) -> (Archive, Recovery) {
    let root = archive.root().to_owned();
    drop(archive);
    let mut archive = open(&root);
    let report = archive.recover(&mut |_| {}).unwrap();
    (archive, report)
}

pub fn header(name: &str, start: WallTime) -> SegmentHeader {
    SegmentHeader {
        camera: camera(name),
        start,
        ..header_av()
    }
}

/// Opens a segment and writes `seconds` in flushes of one second. It stays open.
pub fn record(a: &mut Archive, h: SegmentHeader, seconds: u64) -> Result<(SegmentKey, SegmentFile), ArchiveError> {
    let frames = stream(h.start, seconds);
    let opened = a.open_segment(h)?;
    let mut f = SegmentFile::start(&opened.path, opened.header).unwrap();
    for second in frames.chunks(75) {
        for c in f.append(second).unwrap() {
            a.cluster_durable(&opened.key, &c)?;
        }
    }
    Ok((opened.key, f))
}

pub fn record_sealed(a: &mut Archive, h: SegmentHeader, seconds: u64) -> SegmentKey {
    let (key, f) = record(a, h, seconds).unwrap();
    a.seal_segment(&key, f.seal().unwrap()).unwrap();
    key
}

pub fn range(from_s: i64, to_s: i64) -> TimeRange {
    TimeRange::new(START.offset(from_s * 1_000_000), START.offset(to_s * 1_000_000)).unwrap()
}

pub fn always() -> TimeRange {
    TimeRange::new(WallTime::MIN, WallTime::MAX).unwrap()
}

pub fn all(a: &mut Archive, name: &str) -> Vec<Arc<SegmentMeta>> {
    a.segments(&camera(name), always()).unwrap()
}

/// All frames of a segment through its table, checked by their checksums.
pub fn frames_of(s: &SegmentMeta) -> Vec<Frame> {
    use crate::mkv::reader::{Timebase, parse_cluster, verify_cluster};
    let bytes = bytes::Bytes::from(fs::read(&s.path).unwrap());
    let time = Timebase::new(s.key.start, &s.tracks);
    let mut frames = Vec::new();
    for c in &s.table.clusters {
        let b = bytes.slice(c.offset as usize..(c.offset + u64::from(c.len)) as usize);
        verify_cluster(&b, c.offset).unwrap();
        frames.extend(parse_cluster(&b, c.offset, &time).unwrap());
    }
    for k in &s.table.keys {
        let f = frames.iter().find(|f| f.track.0 == 0 && f.time == k.time).unwrap();
        assert!(f.key && f.data[..] == bytes[k.offset as usize..][..k.size as usize]);
    }
    frames
}

pub fn expect_frames(s: &SegmentMeta, seconds: u64) {
    let expected: Vec<_> = stream(s.key.start, seconds)
        .iter()
        .map(|f| stored(s.key.start, f))
        .collect();
    assert!(frames_of(s) == expected);
}

pub fn files(root: &Path) -> Vec<PathBuf> {
    let mut list = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(d) = dirs.pop() {
        for e in fs::read_dir(d).unwrap().map(Result::unwrap) {
            if e.file_name() == ".corenvr" {
                continue;
            }
            if e.path().is_dir() {
                dirs.push(e.path());
            } else {
                list.push(e.path());
            }
        }
    }
    list.sort();
    list
}

pub fn check_files(root: &Path, repair: bool) -> Report {
    let options = CheckOptions {
        root: root.to_owned(),
        repair,
        payload: true,
    };
    let full = check(&options, &mut |_| {}).unwrap();
    if !repair {
        let quick = check(
            &CheckOptions {
                payload: false,
                ..options
            },
            &mut |_| {},
        )
        .unwrap();
        assert_eq!(quick.is_clean(), full.is_clean(), "{quick:?} {full:?}");
    }
    full
}

#[test]
fn what_is_recorded_is_found_before_and_after_sealing_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    assert!(a.recover(&mut |_| {}).unwrap().segments == 0);
    let (key, f) = record(&mut a, header("front", START), 7).unwrap();
    let open_now = all(&mut a, "front");
    assert_eq!((open_now.len(), open_now[0].state), (1, SegmentState::Open));
    assert!(
        open_now[0]
            .path
            .to_str()
            .unwrap()
            .ends_with("front/2026-11-20/10-00-00.000Z.part.mkv")
    );
    expect_frames(&open_now[0], 7);
    let bytes = a.usage()[&camera("front")].bytes;
    assert_eq!(bytes, fs::metadata(&open_now[0].path).unwrap().len());

    let sealed = f.seal().unwrap();
    let path = a.seal_segment(&key, sealed).unwrap();
    assert!(path.to_str().unwrap().ends_with("front/2026-11-20/10-00-00.000Z.mkv"));
    let now = all(&mut a, "front");
    assert_eq!(
        (now[0].state, now[0].end, now[0].bytes),
        (SegmentState::Sealed, sealed.end, sealed.bytes)
    );
    assert_eq!(now[0].end, START.offset(7_000_000));
    assert_eq!(now[0].table, open_now[0].table);
    expect_frames(&now[0], 7);
    assert_eq!(a.usage()[&camera("front")].bytes, fs::metadata(&path).unwrap().len());
    assert!(matches!(a.seal_segment(&key, sealed), Err(ArchiveError::NotOpen(_))));

    let usage = a.usage().clone();
    let (mut a, report) = reopen(a);
    assert_eq!((report.segments, report.added, report.recovered.len()), (1, 0, 0));
    assert_eq!(all(&mut a, "front"), now);
    assert_eq!(a.usage(), &usage);
    drop(a);
    assert!(check_files(dir.path(), false).is_clean());
}

#[test]
fn nothing_that_exists_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let day = dir.path().join("front/2026-11-20");
    fs::create_dir_all(&day).unwrap();
    fs::write(day.join("10-00-00.000Z.part.mkv"), b"an earlier crash").unwrap();
    fs::write(day.join("10-00-00.000Z-1.mkv"), b"an earlier recording").unwrap();
    let first = a.open_segment(header("front", START)).unwrap();
    assert!(first.path.ends_with("10-00-00.000Z-2.new"));
    // The same microsecond again: another start, another file.
    let second = a.open_segment(header("front", START)).unwrap();
    assert_eq!(second.header.start, START.offset(1));
    assert!(second.path.ends_with("10-00-00.000Z-3.new"));
    assert_eq!(
        fs::read(day.join("10-00-00.000Z.part.mkv")).unwrap(),
        b"an earlier crash"
    );
    assert_eq!(
        fs::read(day.join("10-00-00.000Z-1.mkv")).unwrap(),
        b"an earlier recording"
    );
}

#[test]
fn a_second_opener_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path());
    match Archive::open(&ArchiveOptions::new(dir.path())) {
        Err(OpenError::InUse { pid, host, .. }) => {
            assert_eq!(pid, std::process::id());
            assert!(!host.is_empty());
        }
        other => panic!("{other:?}"),
    }
    let report = check_files(dir.path(), false);
    assert!(
        report
            .index_not_compared
            .unwrap()
            .contains(&std::process::id().to_string())
    );
    let repair = CheckOptions {
        root: dir.path().to_owned(),
        repair: true,
        payload: false,
    };
    assert!(check(&repair, &mut |_| {}).is_err());
    drop(a);
    open(dir.path());
}

#[test]
fn a_wrong_or_missing_disk_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let id = open(dir.path()).id().clone();
    let with = |root: &Path, create, expect: &StorageId| {
        Archive::open(&ArchiveOptions {
            root: root.to_owned(),
            create,
            expect: Some(expect.clone()),
        })
    };
    assert_eq!(with(dir.path(), true, &id).unwrap().id(), &id);
    assert!(matches!(
        with(dir.path(), true, &"other".to_owned().into()),
        Err(OpenError::WrongDirectory { found: Some(_), .. })
    ));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(
        with(empty.path(), true, &id),
        Err(OpenError::WrongDirectory { found: None, .. })
    ));
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
    let none = ArchiveOptions {
        root: empty.path().join("x"),
        create: false,
        expect: None,
    };
    assert!(matches!(Archive::open(&none), Err(OpenError::NotAnArchive { .. })));
    fs::write(dir.path().join(".corenvr/identity"), b"{").unwrap();
    assert!(matches!(
        Archive::open(&ArchiveOptions::new(dir.path())),
        Err(OpenError::Identity { .. })
    ));
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(
        Archive::open(&ArchiveOptions::new(&file)),
        Err(OpenError::Io { .. })
    ));
}

#[test]
fn clusters_must_continue_their_segment() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let (key, _f) = record(&mut a, header("front", START), 1).unwrap();
    let mut c = crate::ClusterInfo {
        offset: 4096,
        len: 4096,
        frames: 1,
        first: START,
        last: START,
        keys: Vec::new(),
    };
    assert!(matches!(
        a.cluster_durable(&key, &c),
        Err(ArchiveError::NotContiguous(_, 4096))
    ));
    c.offset = a.open[&key].table.end_offset().unwrap();
    a.cluster_durable(&key, &c).unwrap();
    let other = SegmentKey {
        camera: camera("x"),
        start: START,
    };
    assert!(matches!(a.cluster_durable(&other, &c), Err(ArchiveError::NotOpen(_))));
}

#[test]
fn an_abandoned_segment_is_finished_on_the_spot() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let (key, f) = record(&mut a, header("front", START), 7).unwrap();
    drop(f);
    let path = a.abandon_segment(&key).unwrap().unwrap();
    let now = all(&mut a, "front");
    assert_eq!((now[0].path.clone(), now[0].state), (path, SegmentState::Sealed));
    expect_frames(&now[0], 7);
    let empty = a.open_segment(header("front", START.offset(9_000_000))).unwrap();
    assert_eq!(a.abandon_segment(&empty.key).unwrap(), None);
    assert!(!empty.path.exists());
    assert_eq!(a.usage()[&camera("front")].segments, 1);
    let (_, report) = reopen(a);
    assert_eq!((report.segments, report.missing.len()), (1, 0));
}

#[test]
fn deletion_goes_by_its_steps_and_spares_what_is_protected() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let keys: Vec<_> = (0..4)
        .map(|i| record_sealed(&mut a, header("front", START.offset(i * 2_000_000)), 2))
        .collect();
    let (open_key, _f) = record(&mut a, header("front", START.offset(8_000_000)), 1).unwrap();
    a.protect(&camera("front"), range(2, 3)).unwrap();
    let keep_none = |_: &CameraName| RetentionPolicy {
        age: Some(Duration::ZERO),
        bytes: None,
    };
    let now = START.offset(100_000_000);
    let plan = a.plan_retention(&keep_none, DiskPolicy::default(), 0, now).unwrap();
    assert_eq!(plan, [keys[0].clone(), keys[2].clone(), keys[3].clone()]);
    assert!(matches!(
        a.delete(&keys[1]),
        Err(ArchiveError::NotDeletable(_, "protected"))
    ));
    assert!(matches!(
        a.delete(&open_key),
        Err(ArchiveError::NotDeletable(_, "open"))
    ));

    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&steps);
    a.set_hook(move |s| {
        seen.lock().unwrap().push(s);
        Ok(())
    });
    let before = a.usage()[&camera("front")].bytes;
    let freed = a.delete(&keys[0]).unwrap();
    assert_eq!(before - freed, a.usage()[&camera("front")].bytes);
    assert_eq!(
        *steps.lock().unwrap(),
        [Step::TombstoneRow, Step::Unlink, Step::RowGone]
    );

    let d = a.begin_delete(&keys[2]).unwrap();
    assert_eq!(all(&mut a, "front").len(), 3);
    let (path, early) = (
        d.path.clone(),
        Deletion {
            key: d.key.clone(),
            path: d.path.clone(),
            bytes: 0,
        },
    );
    assert!(matches!(a.finish_delete(early), Err(ArchiveError::NotDeletable(..))));
    std::thread::spawn(move || d.unlink().map(|()| d))
        .join()
        .unwrap()
        .map(|d| a.finish_delete(d).unwrap())
        .unwrap();
    assert!(!path.exists());
    assert_eq!(a.unprotect(&camera("front"), always()).unwrap(), 1);
    a.abandon_segment(&open_key).unwrap();
    while let Some(k) = a
        .plan_retention(&keep_none, DiskPolicy::default(), 0, now)
        .unwrap()
        .first()
    {
        a.delete(k).unwrap();
    }
    assert!(files(dir.path()).is_empty() && !dir.path().join("front").exists());
    assert!(a.cameras().is_empty());
}

#[test]
fn protection_outlives_the_index_and_a_damaged_list_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let key = record_sealed(&mut a, header("front", START), 2);
    a.protect(&camera("front"), range(0, 1)).unwrap();
    drop(a);
    fs::remove_dir_all(index_dir(dir.path())).unwrap();
    let (mut a, report) = reopen(open(dir.path()));
    assert_eq!((report.added, a.protected().len()), (1, 1));
    let keep_none = |_: &CameraName| RetentionPolicy {
        age: Some(Duration::ZERO),
        bytes: Some(0),
    };
    let everything = DiskPolicy {
        keep_free: u64::MAX,
        max: Some(0),
    };
    assert!(
        a.plan_retention(&keep_none, everything, 0, WallTime::MAX)
            .unwrap()
            .is_empty()
    );
    drop(a);
    fs::write(dir.path().join(".corenvr/protected.json"), b"[{").unwrap();
    let (mut a, report) = reopen(open(dir.path()));
    assert_eq!(report.unreadable.len(), 1);
    assert!(
        a.plan_retention(&keep_none, everything, 0, WallTime::MAX)
            .unwrap()
            .is_empty()
    );
    assert!(a.delete(&key).is_err() && a.protect(&camera("front"), range(0, 1)).is_err());
}

#[test]
fn tracks_come_with_each_segment() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = open(dir.path());
    let mut other = header("front", START.offset(5_000_000));
    other.tracks = vec![video(VideoCodec::H265), other.tracks[1].clone()].into();
    record_sealed(&mut a, header("front", START), 1);
    record_sealed(&mut a, other, 1);
    let (mut a, _) = reopen(a);
    let codecs: Vec<_> = all(&mut a, "front").iter().map(|s| s.tracks[0].codec_name()).collect();
    assert_eq!(codecs, ["H264", "H265"]);
    assert!(matches!(all(&mut a, "front")[1].tracks[1], CodecParameters::Audio(_)));
}

#[test]
fn an_archive_can_be_handed_to_a_thread() {
    const fn handed<T: Send>() {}
    handed::<Archive>();
    handed::<Deletion>();
}
