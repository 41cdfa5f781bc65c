//! Completeness of footage: how much of what should have been recorded is in the archive.
//!
//! The share is footage that the index holds over time that should have been recorded, within a window that ends a little before now:
//! twice the sync interval and 5 s, which the newest frames may take until they are durable. What should have been recorded:
//!
//! - nothing while the camera's mode is off; gaps that an operator made do not count either;
//! - nothing before the camera's first footage, or before it was first seen in the configuration, whichever is earlier: a new camera is
//!   not incomplete, and neither is one whose older footage was deleted to make room;
//! - nothing that lies before this process began, of a camera without any footage.
//!
//! Frames that are no more than a second apart leave no gap: cameras do not keep their frame rate.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
    time::{Duration, Instant},
};

use corenvr_media::{CameraName, TimeRange, WallTime};
use corenvr_recorder::CameraMode;
use corenvr_shard::{Class, Task, WorkerError, spawn, time};
use corenvr_store::{Archive, GapCause};

use super::appliance::Appliance;
use crate::admin::api::{CompletenessView, ShareView};

/// How often the figures are made anew.
const ROUND: Duration = Duration::from_secs(30);
/// How often the whole day is read again: what was deleted or filled in behind the last hour shows then.
const WHOLE_EVERY: Duration = Duration::from_secs(300);
/// What the newest frames may take beside the sync interval until the index has them.
const GRACE: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// What is known of each camera.
pub struct Completeness {
    began: WallTime,
    cameras: HashMap<CameraName, Known>,
}

struct Known {
    /// First seen in the configuration, if that was while this process ran.
    added: WallTime,
    read_whole: Option<Instant>,
    footage: Vec<TimeRange>,
    excused: Vec<TimeRange>,
    view: Option<CompletenessView>,
}

/// Footage and gaps that are nobody's fault, from one archive.
#[derive(Default)]
struct Piece {
    first: Option<WallTime>,
    footage: Vec<TimeRange>,
    excused: Vec<TimeRange>,
}

impl Completeness {
    /// Of a recorder that begins now.
    pub fn new(began: WallTime) -> Self {
        Self {
            began,
            cameras: HashMap::new(),
        }
    }

    /// The figures of a camera; `None` while there are none: it is off, new, or was not looked at yet.
    pub fn of(&self, camera: &CameraName) -> Option<CompletenessView> {
        self.cameras.get(camera)?.view
    }
}

fn read(archive: &mut Archive, camera: &CameraName, range: TimeRange) -> Piece {
    let Ok(line) = archive.timeline(camera, range) else {
        return Piece::default();
    };
    let operator = line.gaps.iter().filter(|g| g.cause == GapCause::Operator);
    Piece {
        first: archive.usage().get(camera).and_then(|u| u.first),
        excused: operator.map(|g| g.range).collect(),
        footage: line.spans.iter().map(|s| s.range).collect(),
    }
}

/// Ranges in order, those that touch or overlap as one.
fn merged(mut ranges: Vec<TimeRange>) -> Vec<TimeRange> {
    ranges.sort_by_key(|r| r.start);
    let mut whole: Vec<TimeRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match whole.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => whole.push(range),
        }
    }
    whole
}

fn length_within(ranges: &[TimeRange], window: TimeRange) -> Duration {
    ranges
        .iter()
        .filter_map(|r| r.intersect(window))
        .map(TimeRange::duration)
        .sum()
}

/// What lies in `ranges` and not in `holes`; both in order and without overlap.
fn without(ranges: &[TimeRange], holes: &[TimeRange]) -> Vec<TimeRange> {
    let mut left = Vec::new();
    for range in ranges {
        let mut start = range.start;
        for hole in holes.iter().filter(|h| h.start < range.end && h.end > range.start) {
            if hole.start > start {
                left.push(TimeRange { start, end: hole.start });
            }
            start = start.max(hole.end);
        }
        if start < range.end {
            left.push(TimeRange { start, end: range.end });
        }
    }
    left
}

/// The share of a window, of which nothing counts before `since`. `None` if nothing should have been recorded.
fn share(window: TimeRange, since: WallTime, footage: &[TimeRange], excused: &[TimeRange]) -> Option<ShareView> {
    let counted = TimeRange::new(window.start.max(since), window.end)?;
    let excused = length_within(&without(excused, footage), counted);
    let expected = counted.duration().saturating_sub(excused).as_secs_f64();
    let held = length_within(footage, counted).as_secs_f64();
    (expected > 0.0).then(|| ShareView {
        ratio: (held / expected).min(1.0),
        missing_s: (expected - held).max(0.0),
        expected_s: expected,
    })
}

/// Makes the figures again and again, a camera at a time, on the archives' threads.
pub fn start(appliance: Rc<Appliance>) -> Task<()> {
    spawn(Class::Maintenance, "completeness", async move {
        let mut first = true;
        loop {
            let begun = Instant::now();
            let on = cameras(&appliance, first);
            first = false;
            let pause = ROUND / 2 / (on.len() as u32).max(1);
            for camera in &on {
                if let Err(error) = look_at(&appliance, camera).await {
                    tracing::debug!(%camera, %error, "completeness is not known now");
                }
                time::sleep(pause).await;
            }
            time::sleep(ROUND.saturating_sub(begun.elapsed())).await;
        }
    })
}

/// The cameras that are to be recorded. Others are forgotten.
fn cameras(appliance: &Appliance, first: bool) -> Vec<CameraName> {
    let mut all = appliance.completeness.borrow_mut();
    let now = now();
    let began = all.began;
    let book = appliance.book.borrow();
    let on: Vec<CameraName> = book
        .recorded()
        .filter(|c| c.mode == CameraMode::Continuous)
        .map(|c| c.name.clone())
        .collect();
    let set: HashSet<&CameraName> = on.iter().collect();
    all.cameras.retain(|name, _| set.contains(name));
    for name in &on {
        all.cameras.entry(name.clone()).or_insert_with(|| Known {
            added: if first { began } else { now },
            read_whole: None,
            footage: Vec::new(),
            excused: Vec::new(),
            view: None,
        });
    }
    on
}

fn now() -> WallTime {
    WallTime::from_micros(time::wall_now_micros())
}

async fn look_at(appliance: &Appliance, camera: &CameraName) -> Result<(), WorkerError> {
    let end = now() - (appliance.book.borrow().config.recording.sync * 2 + GRACE);
    let whole = {
        let all = appliance.completeness.borrow();
        let Some(known) = all.cameras.get(camera) else {
            return Ok(());
        };
        known.read_whole.is_none_or(|at| at.elapsed() >= WHOLE_EVERY)
    };
    let from = end - if whole { DAY } else { HOUR };
    let Some(range) = TimeRange::new(from, end) else {
        return Ok(());
    };
    let mut found = Piece::default();
    for storage in &appliance.storages {
        let name = camera.clone();
        let piece = storage.archive.call(move |a| read(a, &name, range)).await?;
        found.first = [found.first, piece.first].into_iter().flatten().min();
        found.footage.extend(piece.footage);
        found.excused.extend(piece.excused);
    }
    let mut all = appliance.completeness.borrow_mut();
    if let Some(known) = all.cameras.get_mut(camera) {
        known.learn(range, whole, found);
    }
    Ok(())
}

impl Known {
    /// Takes what was found in `range`; what is known from before it stays.
    fn learn(&mut self, range: TimeRange, whole: bool, found: Piece) {
        if whole {
            self.read_whole = Some(Instant::now());
        }
        let day = TimeRange {
            start: range.end - DAY,
            end: range.end,
        };
        let before = TimeRange {
            start: day.start,
            end: range.start.max(day.start),
        };
        let keep = |old: &[TimeRange], new: Vec<TimeRange>| {
            merged(old.iter().filter_map(|r| r.intersect(before)).chain(new).collect())
        };
        self.footage = keep(&self.footage, found.footage);
        self.excused = keep(&self.excused, found.excused);
        let since = found.first.map_or(self.added, |first| first.min(self.added));
        let hour = TimeRange {
            start: range.end - HOUR,
            end: range.end,
        };
        self.view = Some(CompletenessView {
            hour: share(hour, since, &self.footage, &self.excused),
            day: share(day, since, &self.footage, &self.excused),
            until: range.end,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: i64, end: i64) -> TimeRange {
        TimeRange::new(WallTime::from_millis(start * 1000), WallTime::from_millis(end * 1000)).unwrap()
    }

    fn at(second: i64) -> WallTime {
        WallTime::from_millis(second * 1000)
    }

    #[test]
    fn a_window_counts_from_the_first_footage_and_without_what_an_operator_stopped() {
        let window = range(0, 3600);
        let ratio = |since, footage: &[TimeRange], excused: &[TimeRange]| {
            share(window, at(since), footage, excused).map(|s| s.ratio)
        };
        assert_eq!(ratio(-100, &[range(-50, 3600)], &[]), Some(1.0));
        assert_eq!(ratio(-100, &[range(-50, 1800)], &[]), Some(0.5));
        assert_eq!(ratio(-100, &[], &[]), Some(0.0));
        // Added in the middle of the window.
        assert_eq!(ratio(1800, &[range(1800, 3600)], &[]), Some(1.0));
        assert_eq!(ratio(3600, &[], &[]), None);
        // Ten minutes off by an operator, and then ten minutes lost.
        let footage = [range(0, 1200), range(2400, 3600)];
        assert_eq!(ratio(-100, &footage, &[range(1200, 1800)]), Some(0.8));
        // What was filled in later is footage, though its gap had a cause.
        assert_eq!(ratio(-100, &[range(0, 3600)], &[range(1200, 1800)]), Some(1.0));
        assert_eq!(ratio(-100, &[], &[range(-100, 4000)]), None);
        let lost = share(window, at(-100), &[range(0, 3540)], &[]).unwrap();
        assert!((lost.missing_s - 60.0).abs() < 1e-6 && (lost.expected_s - 3600.0).abs() < 1e-6);
    }

    #[test]
    fn the_day_is_kept_from_hour_to_hour() {
        let mut known = Known {
            added: at(0),
            read_whole: None,
            footage: Vec::new(),
            excused: Vec::new(),
            view: None,
        };
        let found = |footage: Vec<TimeRange>| Piece {
            first: footage.first().map(|r| r.start),
            footage,
            excused: Vec::new(),
        };
        let missing = |known: &Known| {
            let view = known.view.unwrap();
            (view.hour.unwrap().missing_s as u64, view.day.unwrap().missing_s as u64)
        };
        known.learn(
            range(0, 86_400),
            true,
            found(vec![range(0, 43_200), range(46_800, 86_400)]),
        );
        assert_eq!(missing(&known), (0, 3600));
        // An hour later, of which half was lost; only that hour is read.
        let mut later = found(vec![range(86_400, 88_200)]);
        later.first = Some(at(0));
        known.learn(range(86_400, 90_000), false, later);
        assert_eq!(missing(&known), (1800, 3600 + 1800));
        assert_eq!(known.footage.len(), 2, "{:?}", known.footage);
    }
}
