//! Events of a camera: kept beside its footage, asked for by time, gone with the footage of their day.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
};

use corenvr_media::{CameraName, TimeRange, WallTime};

use super::{Archive, ArchiveError, io_error, paths, remove_if_there, retention::RetentionPolicy};
use crate::{
    events::{self, Event, Kept},
    index::Index,
};

/// Most events that are kept of one camera in a minute; those beyond are counted.
pub const EVENTS_PER_MINUTE_MAX: u32 = 30;
/// Most events of one answer; ask again for more.
pub const EVENTS_MAX: usize = 10_000;
const MINUTE_US: i64 = 60_000_000;
const DAY_US: i64 = 24 * 60 * MINUTE_US;
/// How much later than it happened an event may be told; one that claims to be older has its source's clock wrong.
const LATE_MAX_US: i64 = DAY_US;
/// How far ahead of the recorder's clock a source's may be.
const AHEAD_MAX_US: i64 = 5 * MINUTE_US;

/// What is known of one camera's events.
#[derive(Debug, Default)]
pub(super) struct CameraEvents {
    /// Starts of the days that have a file whose directory entry is durable.
    pub days: BTreeSet<WallTime>,
    /// When the current minute of counting began.
    minute: Option<WallTime>,
    /// Events written in it.
    written: u32,
    /// Since when events are only counted, and how many.
    counted: Option<(WallTime, u64)>,
}

impl CameraEvents {
    /// Begins another minute if it is time to. Also a clock that was set back does.
    fn tick(&mut self, now: WallTime) {
        let within = |t: WallTime| (0..MINUTE_US).contains(&now.micros_since(t));
        if !self.minute.is_some_and(within) {
            (self.minute, self.written) = (Some(now), 0);
        }
    }

    fn count(&mut self, now: WallTime, events: u64) {
        let (_, n) = self.counted.get_or_insert((now, 0));
        *n += events;
    }
}

/// Events of a camera, ordered by time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Events {
    /// The events.
    pub events: Vec<Event>,
    /// Set when there are more: ask again from here.
    pub more_from: Option<WallTime>,
}

/// The day that `t` lies in.
fn day_range(t: WallTime) -> TimeRange {
    let start = WallTime::from_micros(t.as_micros() - t.as_micros().rem_euclid(DAY_US));
    TimeRange {
        start,
        end: start.offset(DAY_US),
    }
}

impl Archive {
    /// Keeps an event of `camera`; it is durable when this returns [`Kept::Written`]. `now` is the present: a time more than a day
    /// before or five minutes after it is not believed, and becomes [`Event::claimed_time`]. Of more than
    /// [`EVENTS_PER_MINUTE_MAX`] in a minute the rest is counted.
    ///
    /// # Errors
    /// The file system refused; nothing was kept.
    pub fn add_event(&mut self, camera: &CameraName, event: &Event, now: WallTime) -> Result<Kept, ArchiveError> {
        let ahead_us = event.time.micros_since(now);
        let mut event = event.clone();
        if !(-LATE_MAX_US..=AHEAD_MAX_US).contains(&ahead_us) {
            event.claimed_time = Some(event.time.clamp(WallTime::MIN, WallTime::MAX));
            event.time = now;
        }
        self.events.entry(camera.clone()).or_default().tick(now);
        self.settle_events(camera, now)?;
        let state = self.events.entry(camera.clone()).or_default();
        if state.written >= EVENTS_PER_MINUTE_MAX {
            state.count(now, 1);
            return Ok(Kept::Counted);
        }
        let kept = self.append_event(camera, &event)?;
        let state = self.events.entry(camera.clone()).or_default();
        match kept {
            Kept::Written => state.written += 1,
            Kept::Counted => state.count(now, 1),
        }
        Ok(kept)
    }

    /// Writes down how many events of a minute that has passed were only counted.
    fn settle_events(&mut self, camera: &CameraName, now: WallTime) -> Result<(), ArchiveError> {
        let Some(state) = self.events.get_mut(camera) else {
            return Ok(());
        };
        state.tick(now);
        if state.written > 0 {
            return Ok(());
        }
        let Some((since, count)) = state.counted.take() else {
            return Ok(());
        };
        let kept = self.append_event(camera, &Event::more(since, count));
        if !matches!(kept, Ok(Kept::Written))
            && let Some(state) = self.events.get_mut(camera)
        {
            // A full file, or a failing disk: the number stays known and goes into the next day's file, or the next attempt.
            state.counted = Some((if kept.is_ok() { now } else { since }, count));
        }
        kept.map(drop)
    }

    fn append_event(&mut self, camera: &CameraName, event: &Event) -> Result<Kept, ArchiveError> {
        let range = day_range(event.time);
        let day = paths::day_of(range.start);
        let dir = self.camera_dir(camera).join(&day);
        let path = dir.join(events::FILE);
        let known = |this: &Self| this.events.get(camera).is_some_and(|e| e.days.contains(&range.start));
        if !known(self) {
            paths::make_dirs(&self.root, &[camera.as_str(), &day]).map_err(io_error("create", &dir))?;
        }
        let kept = events::append(&path, event).map_err(io_error("write", &path))?;
        if !known(self) {
            paths::sync_dir(&dir).map_err(io_error("sync", &dir))?;
            let state = self.events.entry(camera.clone()).or_default();
            state.days.insert(range.start);
        }
        Ok(kept)
    }

    /// Events of `camera` in `range`, ordered by time: `max` (at most [`EVENTS_MAX`]), and more only where the last ones are of
    /// the same millisecond. Lines that cannot be read are left out.
    ///
    /// # Errors
    /// The file system refused.
    pub fn events(&self, camera: &CameraName, range: TimeRange, max: usize) -> Result<Events, ArchiveError> {
        let max = max.clamp(1, EVENTS_MAX);
        let dir = self.camera_dir(camera);
        let mut found = Events::default();
        for day in paths::list(&dir).map_err(io_error("list", &dir))?.dirs {
            let Some((from, to)) = paths::parse_day(&day) else {
                continue;
            };
            if to <= range.start || from >= range.end {
                continue;
            }
            let path = dir.join(&day).join(events::FILE);
            let mut of_day = events::read(&path).map_err(io_error("read", &path))?.events;
            // A line in the wrong file would break the order, and its day's file has the say about its time.
            of_day.retain(|e| range.contains(e.time) && from <= e.time && e.time < to);
            // Late ones are written behind newer ones.
            of_day.sort_by_key(|e| e.time);
            found.events.append(&mut of_day);
            if found.events.len() > max {
                let first_left_out = found.events.get(max).map(|e| e.time);
                let last = found.events.get(max - 1).map(|e| e.time);
                // Those of one millisecond go into one answer: the next one begins at a time.
                let keep = found.events.partition_point(|e| Some(e.time) < first_left_out);
                let keep = match keep {
                    0 => found.events.partition_point(|e| Some(e.time) <= last),
                    n => n,
                };
                found.more_from = found.events.get(keep).map(|e| e.time);
                found.events.truncate(keep);
                if found.more_from.is_none() {
                    found.more_from = Some(to).filter(|&to| to < range.end);
                }
                return Ok(found);
            }
        }
        Ok(found)
    }

    /// Removes the event files of days that are over and have no footage left, where the camera's limits hold them no
    /// more: its oldest footage is of a later day, or the day is older than `policy` keeps. Also writes down what
    /// was only counted. To be called now and then, as retention is. Returns how many files went.
    ///
    /// # Errors
    /// The file system or the index refused; files that were to go may be left.
    pub fn expire_events(
        &mut self,
        policy: &dyn Fn(&CameraName) -> RetentionPolicy,
        now: WallTime,
    ) -> Result<u64, ArchiveError> {
        let cameras: Vec<CameraName> = self.events.keys().cloned().collect();
        if cameras.is_empty() {
            return Ok(0);
        }
        let mut oldest_of_all = None;
        let mut oldest = HashMap::new();
        for camera in self.index(Index::cameras)? {
            let first = self.index(|i| i.rows(&camera, WallTime::MIN, WallTime::MAX, 1))?.pop();
            let Some((key, _)) = first else { continue };
            oldest_of_all = Some(oldest_of_all.map_or(key.start, |t: WallTime| t.min(key.start)));
            oldest.insert(camera, key.start);
        }
        let mut gone = 0;
        for camera in cameras {
            self.settle_events(&camera, now)?;
            let own = oldest.get(&camera).copied();
            let by_age = policy(&camera).age.map(|age| now - age);
            // Without footage of its own, what the disk's limits have left of the others says how far back this disk goes.
            let limit = own.or(oldest_of_all).max(by_age);
            let days = self.events.get(&camera).map(|e| e.days.clone()).unwrap_or_default();
            for day in days {
                if limit.is_some_and(|limit| day.offset(DAY_US) <= limit) && self.remove_day_events(&camera, day)? {
                    gone += 1;
                }
            }
        }
        Ok(gone)
    }

    /// Removes the events of a camera whose footage was removed. Files of days that still have footage, or are
    /// protected, stay. Returns how many files went.
    ///
    /// # Errors
    /// The file system or the index refused; files that were to go may be left.
    pub fn purge_events(&mut self, camera: &CameraName) -> Result<u64, ArchiveError> {
        let days = self.events.get(camera).map(|e| e.days.clone()).unwrap_or_default();
        let mut gone = 0;
        for day in days {
            gone += u64::from(self.remove_day_events(camera, day)?);
        }
        Ok(gone)
    }

    /// Removes the events of one day, unless there is footage of it, or it is protected.
    fn remove_day_events(&mut self, camera: &CameraName, start: WallTime) -> Result<bool, ArchiveError> {
        let range = day_range(start);
        let overlaps = |r: &TimeRange| r.start < range.end && r.end > range.start;
        let protected = self.protected.iter().any(|p| p.camera == *camera && overlaps(&p.range));
        if protected || self.protected_unreadable.is_some() || !self.rows_in(camera, range, 1)?.is_empty() {
            return Ok(false);
        }
        let camera_dir = self.camera_dir(camera);
        let dir = camera_dir.join(paths::day_of(start));
        // Any other file may be footage that is not listed.
        let listing = paths::list(&dir).map_err(io_error("list", &dir))?;
        if listing.files.iter().any(|f| f != events::FILE) {
            return Ok(false);
        }
        let path = dir.join(events::FILE);
        remove_if_there(&path).map_err(io_error("delete", &path))?;
        match paths::sync_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("sync", &dir)(e)),
            _ => {}
        }
        // Only empty directories can be removed: what else is in them stays.
        if fs::remove_dir(&dir).is_ok() {
            fs::remove_dir(&camera_dir).ok();
        }
        if let Some(state) = self.events.get_mut(camera) {
            state.days.remove(&range.start);
            if state.days.is_empty() && state.counted.is_none() {
                self.events.remove(camera);
            }
        }
        Ok(true)
    }

    /// A walk over the files found events of a day.
    pub(super) fn found_events(&mut self, camera: &CameraName, day: WallTime) {
        self.events.entry(camera.clone()).or_default().days.insert(day);
    }
}
