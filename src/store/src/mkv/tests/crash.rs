//! A crash at any byte: what is whole stays, bit for bit, and the file plays.

use std::{fs, os::unix::fs::FileExt};

use corenvr_media::{Frame, TrackId};
use proptest::prelude::*;

use super::{
    super::{
        file::{finish, read_header, read_tail},
        recover::{Outcome, recover_file},
        samples::{START, header_av, stored, stream},
    },
    demux, read, sealed, write,
};
use crate::ClusterInfo;

/// Frames of `clusters` as they come back.
fn kept(frames: &[Frame], clusters: usize, infos: &[ClusterInfo]) -> Vec<Frame> {
    let n: u32 = infos[..clusters].iter().map(|c| c.frames).sum();
    frames[..n as usize].iter().map(|f| stored(START, f)).collect()
}

fn expect_recovered(dir: &std::path::Path, bytes: &[u8], infos: &[ClusterInfo], frames: &[Frame], whole: usize) {
    let path = dir.join("a.part.mkv");
    fs::write(&path, bytes).unwrap();
    match recover_file(&path, None).unwrap() {
        Outcome::Sealed(r) => {
            assert!(whole > 0);
            let file = fs::read(&path).unwrap();
            assert_eq!(file.len() as u64, r.bytes);
            assert_eq!(r.table.clusters.len(), whole);
            let expected = kept(frames, whole, infos);
            assert!(read(&file, &infos[..whole]) == expected);
            let all = demux(&file);
            assert_eq!(all.len(), expected.len());
            for (d, f) in all.iter().zip(&expected) {
                assert!(d.0 == u64::from(f.track.0) + 1 && d.3 == f.data[..]);
            }
            let (h, _) = read_header(&file[..]).unwrap();
            let f = h.finished.unwrap();
            assert_eq!(read_tail(&file[..], &h, &f).unwrap().table, Some(r.table));
            // Being interrupted after any step and done again gives the same file.
            match recover_file(&path, None).unwrap() {
                Outcome::Sealed(again) => assert_eq!(again.bytes, r.bytes),
                other => panic!("{other:?}"),
            }
            assert!(fs::read(&path).unwrap() == file);
        }
        Outcome::Empty | Outcome::Torn => assert_eq!(whole, 0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn recovery_yields_exactly_the_whole_clusters(
        sizes in prop::collection::vec(1usize..60, 1..8),
        cut in any::<prop::sample::Index>(),
        zeros in prop_oneof![Just(0usize), 1usize..40_000, Just(1 << 20)],
        seal in any::<bool>(),
    ) {
        let frames = stream(START, 8);
        let (mut flushes, mut at) = (Vec::new(), 0);
        for n in sizes {
            let end = (at + n).min(frames.len());
            flushes.push(&frames[at..end]);
            at = end;
        }
        flushes.retain(|f| !f.is_empty());
        let (out, infos, w) = write(header_av(), &flushes);
        let out = if seal {
            // Cut while sealing: the tail is appended, block 0 not rewritten yet.
            let mut file = out;
            file.extend_from_slice(&w.seal().append);
            file
        } else {
            out
        };
        let cut = 4096 + cut.index(out.len() - 4096 + 1);
        let mut file = out[..cut].to_vec();
        file.resize(cut + zeros, 0);
        let whole = infos.iter().filter(|c| {
            let element = super::super::reader::cluster_len(&out[c.offset as usize..], c.offset).unwrap();
            // The element must be there byte for byte; zeros in place of zeros are the same bytes.
            let end = (c.offset + element) as usize;
            file.len() >= end && file[..end] == out[..end]
        }).count();
        let dir = tempfile::tempdir().unwrap();
        expect_recovered(dir.path(), &file, &infos, &frames, whole);
    }
}

#[test]
fn a_crash_between_any_two_steps_of_sealing_is_recovered() {
    let frames = stream(START, 6);
    let flushes: Vec<&[Frame]> = frames.chunks(100).collect();
    let (out, infos, w) = write(header_av(), &flushes);
    let full = sealed(out.clone(), w);
    let dir = tempfile::tempdir().unwrap();
    // Preallocated, as the recorder's files are.
    let mut preallocated = out.clone();
    preallocated.resize(out.len() + (1 << 20), 0);
    let mut tail = preallocated.clone();
    tail[out.len()..full.len()].copy_from_slice(&full[out.len()..]);
    let mut block = tail.clone();
    block[..4096].copy_from_slice(&full[..4096]);
    for stage in [&out, &preallocated, &tail, &block, &full] {
        expect_recovered(dir.path(), stage, &infos, &frames, infos.len());
        assert!(fs::read(dir.path().join("a.part.mkv")).unwrap() == full);
    }
}

#[test]
fn damage_in_the_middle_costs_only_its_own_cluster() {
    let frames = stream(START, 6);
    let flushes: Vec<&[Frame]> = frames.chunks(100).collect();
    let (out, infos, _) = write(header_av(), &flushes);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.part.mkv");
    for at in [0, 2, 5, 15, 40, 3000] {
        let mut bad = out.clone();
        bad[infos[1].offset as usize + at] ^= 0xFF;
        fs::write(&path, &bad).unwrap();
        let Outcome::Sealed(r) = recover_file(&path, None).unwrap() else {
            panic!()
        };
        assert_eq!(r.damage.len(), 1);
        assert_eq!(
            (r.damage[0].offset, r.damage[0].len),
            (infos[1].offset, u64::from(infos[1].len))
        );
        assert_eq!(r.table.clusters.len(), 4);
        let file = fs::read(&path).unwrap();
        let expected: Vec<_> = frames[..100]
            .iter()
            .chain(&frames[200..])
            .map(|f| stored(START, f))
            .collect();
        assert!(read(&file, &[&infos[..1], &infos[2..]].concat()) == expected);
        assert_eq!(demux(&file).len(), frames.len() - 100);
        // Nothing of the damaged cluster but its first bytes is gone.
        let (a, b) = (
            infos[1].offset as usize + 9,
            (infos[1].offset + u64::from(infos[1].len)) as usize,
        );
        assert_eq!(file[a..b].iter().zip(&bad[a..b]).filter(|(x, y)| x != y).count(), 0);
    }
}

#[test]
fn files_without_a_frame_are_told_from_torn_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.part.mkv");
    let frames: Vec<Frame> = stream(START, 1);
    let (head, ..) = write(header_av(), &[]);
    let (out, ..) = write(header_av(), &[&frames]);
    let mut zeros = head.clone();
    zeros.resize(3 << 20, 0);
    for empty in [&[][..], &[0; 8192], &head, &zeros] {
        fs::write(&path, empty).unwrap();
        assert!(matches!(recover_file(&path, None).unwrap(), Outcome::Empty));
    }
    fs::write(&path, &out[..9000]).unwrap();
    assert!(matches!(recover_file(&path, None).unwrap(), Outcome::Torn));
    fs::write(&path, &out[..100]).unwrap();
    assert!(recover_file(&path, None).is_err());
    assert_eq!(frames[0].track, TrackId(0));
}

#[test]
fn sparse_preallocation_is_skipped_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.part.mkv");
    let frames = stream(START, 2);
    let (out, infos, w) = write(header_av(), &[&frames]);
    fs::write(&path, &out).unwrap();
    let f = fs::OpenOptions::new().write(true).open(&path).unwrap();
    f.set_len(1 << 40).unwrap();
    f.write_all_at(b"x", (1 << 40) - 1).unwrap();
    let Outcome::Sealed(r) = recover_file(&path, None).unwrap() else {
        panic!()
    };
    assert_eq!(r.table.clusters.len(), infos.len());
    let seal = w.seal();
    assert_eq!(r.bytes, seal.final_size);
    finish(&f, &seal).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), seal.final_size);
}
