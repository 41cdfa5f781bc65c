//! Which segments have to go: a pure plan over rows, so that its properties can be tested without a disk.

use std::time::Duration;

use corenvr_media::{CameraName, WallTime};

use crate::SegmentKey;

/// Most segments of one plan. The caller deletes, then asks again: a wrong clock costs at most this many before someone looks.
pub const PLAN_MAX: usize = 1024;

/// What is kept of one camera. `None` does not limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Segments that ended longer ago than this go.
    pub age: Option<Duration>,
    /// The oldest go until no more than this is left.
    pub bytes: Option<u64>,
}

/// What is kept of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskPolicy {
    /// The oldest segments of all cameras go until this many bytes of the file system are free.
    pub keep_free: u64,
    /// The oldest segments of all cameras go until the archive holds no more than this.
    pub max: Option<u64>,
}

/// One segment as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The segment.
    pub key: SegmentKey,
    /// Its end.
    pub end: WallTime,
    /// Its size.
    pub bytes: u64,
    /// It is neither open nor protected.
    pub deletable: bool,
}

/// One camera as the plan sees it.
pub struct CameraCandidates<'a> {
    /// The camera.
    pub camera: CameraName,
    /// What to keep of it.
    pub policy: RetentionPolicy,
    /// Bytes of all its segments, open and protected ones included.
    pub bytes: u64,
    /// Its segments, oldest first. Only as many are read as the plan needs.
    pub segments: Box<dyn Iterator<Item = Candidate> + 'a>,
}

/// Which segments have to go, oldest first, at most [`PLAN_MAX`]. `free` is what the file system has free now.
///
/// Open and protected segments are skipped; they count towards what a camera and the archive hold.
pub fn plan(cameras: Vec<CameraCandidates<'_>>, disk: DiskPolicy, free: u64, now: WallTime) -> Vec<SegmentKey> {
    let used: u64 = cameras.iter().map(|c| c.bytes).sum();
    let mut planned = Vec::new();
    let mut freed = 0u64;
    let mut rest = Vec::new();
    for camera in cameras {
        let next = own_policy(camera, now, &mut planned, &mut freed);
        rest.extend(next);
    }
    let wanted = |freed: u64| {
        let floor = disk.keep_free > free.saturating_add(freed);
        let quota = disk.max.is_some_and(|max| used.saturating_sub(freed) > max);
        floor || quota
    };
    while planned.len() < PLAN_MAX && wanted(freed) {
        // Few cameras are compared for each of at most PLAN_MAX segments: a heap would not pay.
        let Some(i) = (0..rest.len()).min_by_key(|&i| rest[i].0.key.start) else {
            break;
        };
        let (candidate, mut more) = rest.swap_remove(i);
        if candidate.deletable {
            freed += candidate.bytes;
            planned.push(candidate.key);
        }
        if let Some(next) = more.next() {
            rest.push((next, more));
        }
    }
    planned.sort_by(|a, b| (a.start, &a.camera).cmp(&(b.start, &b.camera)));
    planned
}

type Rest<'a> = (Candidate, Box<dyn Iterator<Item = Candidate> + 'a>);

/// What the camera's own limits take; returns where the disk's limits go on.
fn own_policy<'a>(
    camera: CameraCandidates<'a>,
    now: WallTime,
    planned: &mut Vec<SegmentKey>,
    freed: &mut u64,
) -> Option<Rest<'a>> {
    let CameraCandidates {
        policy,
        mut bytes,
        mut segments,
        ..
    } = camera;
    let oldest_end = policy.age.map(|age| now - age);
    loop {
        let c = segments.next()?;
        let old = oldest_end.is_some_and(|t| c.end <= t);
        let much = policy.bytes.is_some_and(|max| bytes > max);
        if !(old || much) || planned.len() >= PLAN_MAX {
            return Some((c, segments));
        }
        if c.deletable {
            bytes = bytes.saturating_sub(c.bytes);
            *freed += c.bytes;
            planned.push(c.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mkv::samples::camera;

    const HOUR: i64 = 3_600_000_000;

    fn candidates(name: &str, list: &[(i64, u64, bool)]) -> Vec<Candidate> {
        list.iter()
            .map(|&(hour, bytes, deletable)| Candidate {
                key: SegmentKey {
                    camera: camera(name),
                    start: WallTime::from_micros(hour * HOUR),
                },
                end: WallTime::from_micros((hour + 1) * HOUR),
                bytes,
                deletable,
            })
            .collect()
    }

    fn of(list: &[Candidate], policy: RetentionPolicy) -> CameraCandidates<'_> {
        CameraCandidates {
            camera: list[0].key.camera.clone(),
            policy,
            bytes: list.iter().map(|c| c.bytes).sum(),
            segments: Box::new(list.iter().cloned()),
        }
    }

    fn hours(plan: &[SegmentKey]) -> Vec<i64> {
        plan.iter().map(|k| k.start.as_micros() / HOUR).collect()
    }

    const fn disk(keep_free: u64, max: Option<u64>) -> DiskPolicy {
        DiskPolicy { keep_free, max }
    }

    #[test]
    fn each_limit_takes_the_oldest() {
        let shape = [
            (0, 10, true),
            (1, 10, false),
            (2, 10, true),
            (3, 10, true),
            (4, 10, false),
        ];
        let list = candidates("a", &shape);
        let now = WallTime::from_micros(10 * HOUR);
        let by = |policy, disk, free| hours(&plan(vec![of(&list, policy)], disk, free, now));
        let age = |h: u64| RetentionPolicy {
            age: Some(Duration::from_secs(h * 3600)),
            bytes: None,
        };
        let bytes = |b| RetentionPolicy {
            age: None,
            bytes: Some(b),
        };
        let (no, nothing) = (RetentionPolicy::default(), [0i64; 0]);
        assert_eq!(by(no, disk(0, None), 0), nothing);
        assert_eq!(by(age(7), disk(0, None), 0), [0, 2]);
        assert_eq!(by(age(0), disk(0, None), 0), [0, 2, 3]);
        assert_eq!(by(bytes(50), disk(0, None), 0), nothing);
        assert_eq!(by(bytes(49), disk(0, None), 0), [0]);
        assert_eq!(by(bytes(0), disk(0, None), 0), [0, 2, 3]);
        assert_eq!(by(no, disk(15, None), 0), [0, 2]);
        assert_eq!(by(no, disk(15, None), 15), nothing);
        assert_eq!(by(no, disk(0, Some(45)), 0), [0]);
        // What one limit frees counts for the other.
        assert_eq!(by(age(7), disk(20, Some(30)), 0), [0, 2]);
    }

    #[test]
    fn the_disk_limits_take_the_oldest_of_all_cameras() {
        let a = candidates("a", &[(0, 10, true), (5, 10, true)]);
        let b = candidates("b", &[(1, 10, true), (2, 10, true)]);
        let no = RetentionPolicy::default();
        let p = plan(
            vec![of(&a, no), of(&b, no)],
            DiskPolicy {
                keep_free: 25,
                max: None,
            },
            0,
            WallTime::from_micros(10 * HOUR),
        );
        assert_eq!(hours(&p), [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn never_takes_what_it_must_not_nor_more_than_needed(
            raw in prop::collection::vec((0i64..200, 1u64..50, any::<bool>()), 1..60),
            age in prop::option::of(0u64..200),
            own in prop::option::of(0u64..1500),
            max in prop::option::of(0u64..1500),
            keep_free in 0u64..1500,
            free in 0u64..1500,
        ) {
            let mut raw = raw;
            raw.sort_unstable();
            raw.dedup_by_key(|r| r.0);
            let list = candidates("a", &raw);
            let policy = RetentionPolicy { age: age.map(|h| Duration::from_secs(h * 3600)), bytes: own };
            let disk = DiskPolicy { keep_free, max };
            let now = WallTime::from_micros(201 * HOUR);
            let planned = plan(vec![of(&list, policy)], disk, free, now);
            prop_assert!(planned.is_sorted());
            let total: u64 = list.iter().map(|c| c.bytes).sum();
            let freed: u64 = list.iter().filter(|c| planned.contains(&c.key)).map(|c| c.bytes).sum();
            let deletable: Vec<_> = list.iter().filter(|c| c.deletable).collect();
            // Exactly the oldest deletable ones.
            prop_assert!(planned.iter().zip(&deletable).all(|(k, c)| *k == c.key));
            let too_old = |c: &Candidate| age.is_some_and(|h| c.end <= now - Duration::from_secs(h * 3600));
            let over = |freed: u64| {
                own.is_some_and(|m| total - freed > m) || max.is_some_and(|m| total - freed > m) || keep_free > free + freed
            };
            // Every limit holds afterwards, or nothing is left to take.
            prop_assert!(planned.len() == deletable.len() || !(over(freed) || too_old(deletable[planned.len()])));
            // Without the last one, some limit would not hold.
            if let Some(last) = planned.last() {
                let c = list.iter().find(|c| c.key == *last).unwrap();
                prop_assert!(over(freed - c.bytes) || too_old(c));
            }
        }
    }
}
