//! Cameras over the API: how they are, and what is recorded of them, over all storage directories.

use std::collections::BTreeMap;

use corenvr_media::{CameraName, TimeRange, WallTime};
use corenvr_store::{
    ArchiveError, GapCause, SegmentMeta, SegmentState,
    archive::{Gap, SEGMENTS_MAX, Span, Timeline, Usage, events::EVENTS_MAX},
};
use hyper::StatusCode;
use std::sync::Arc;

use super::{
    api::{CameraList, CameraView, EventList, Removed, SegmentList, SegmentView, UsageView},
    http::{Answer, Failure, json},
    routes::{Call, Need, Route, no_camera, route},
};
use crate::{
    accounts::Right,
    config::CameraSettings,
    supervisor::{
        appliance::{Appliance, Book},
        devices::follows_catalog,
    },
};

/// What can be asked of cameras.
pub const ROUTES: &[Route] = &[
    route!(GET "/api/v1/cameras", Need::See, list),
    route!(GET "/api/v1/cameras/{name}", Need::See, show),
    route!(GET "/api/v1/cameras/{name}/timeline", Need::Camera(Right::Playback), show_timeline),
    route!(GET "/api/v1/cameras/{name}/segments", Need::Camera(Right::Playback), show_segments),
    route!(GET "/api/v1/cameras/{name}/events", Need::Camera(Right::Playback), show_events),
];

/// Most cameras of one answer.
const CAMERAS_ANSWER_MAX: usize = 1000;
/// Most files of one answer.
const SEGMENTS_ANSWER_MAX: usize = 1000;
/// Files deleted in one call to an archive, so that nobody else waits long for it.
const PURGE_BATCH: usize = 32;

async fn list(call: Call) -> Result<Answer, Failure> {
    let limit = call.query.limit(CAMERAS_ANSWER_MAX)?;
    let after = call.query.text("cursor");
    let after = after
        .map(|text| CameraName::new(text).map_err(|_| wrong_cursor()))
        .transpose()?;
    let mut cameras = all(&call.appliance).await?;
    cameras.retain(|view| {
        let name = CameraName::new(&view.settings.name);
        let later = |name: &CameraName| after.as_ref().is_none_or(|after| name > after);
        name.is_ok_and(|name| later(&name) && call.sees(&name))
    });
    let more = cameras.len() > limit;
    cameras.truncate(limit);
    let administrator = call.may(Right::Configure);
    if !administrator {
        cameras.iter_mut().for_each(without_paths);
    }
    let list = CameraList {
        next: cameras.last().filter(|_| more).map(|view| view.settings.name.clone()),
        cameras,
        left_out: if administrator {
            call.appliance.book.borrow().all_left_out()
        } else {
            Vec::new()
        },
    };
    Ok(json(StatusCode::OK, &list))
}

fn wrong_cursor() -> Failure {
    Failure::bad("cursor: not one that an answer gave", "begin again without a cursor")
}

/// Where footage lies is the administrator's business.
fn without_paths(view: &mut CameraView) {
    view.settings.storage = None;
}

async fn show(call: Call) -> Result<Answer, Failure> {
    let mut view = one(&call.appliance, &call.camera()?).await?;
    if !call.may(Right::Configure) {
        without_paths(&mut view);
    }
    Ok(json(StatusCode::OK, &view))
}

async fn show_timeline(call: Call) -> Result<Answer, Failure> {
    let found = timeline(&call.appliance, &call.camera()?, call.query.range()?).await?;
    Ok(json(StatusCode::OK, &found))
}

async fn show_events(call: Call) -> Result<Answer, Failure> {
    let limit = call.query.limit(EVENTS_MAX)?;
    let found = events(&call.appliance, &call.camera()?, call.query.range()?, limit).await?;
    Ok(json(StatusCode::OK, &found))
}

async fn show_segments(call: Call) -> Result<Answer, Failure> {
    let limit = call.query.limit(SEGMENTS_ANSWER_MAX)?;
    let range = call.query.range()?;
    let after = call.query.text("cursor");
    let after = after
        .map(|text| WallTime::parse(text).map_err(|_| wrong_cursor()))
        .transpose()?;
    let mut list = segments(&call.appliance, &call.camera()?, range, after, limit).await?;
    if !call.may(Right::Configure) {
        list.segments.iter_mut().for_each(|segment| segment.path.clear());
    }
    Ok(json(StatusCode::OK, &list))
}

fn add_usage(sum: &mut UsageView, u: &Usage) {
    sum.bytes += u.bytes;
    sum.segments += u.segments;
    sum.first = [sum.first, u.first].into_iter().flatten().min();
    sum.last = sum.last.max(u.last);
}

/// All cameras, by name.
pub async fn all(appliance: &Appliance) -> Result<Vec<CameraView>, Failure> {
    let mut statuses: BTreeMap<CameraName, serde_json::Value> = appliance
        .recorder
        .status()
        .await
        .map_err(|e| Failure::unavailable(&e))?
        .into_iter()
        .filter_map(|s| Some((s.name.clone(), serde_json::to_value(&s).ok()?)))
        .collect();
    let usage = appliance.usage().await.map_err(|e| Failure::unavailable(&e))?;
    let book = appliance.book.borrow();
    let mut views: Vec<_> = book
        .cameras()
        .chain(book.derived.iter().map(|d| &d.settings))
        .filter_map(|c| {
            let mut sum = UsageView::default();
            usage
                .iter()
                .filter_map(|u| u.get(&c.name))
                .for_each(|u| add_usage(&mut sum, u));
            Some(CameraView {
                settings: c.to_json(),
                kept_in: book.camera(&c.name)?.1,
                status: statuses.remove(&c.name).or_else(|| catalog_status(&book, c)),
                usage: sum,
                completeness: appliance.completeness.borrow().of(&c.name),
            })
        })
        .collect();
    views.sort_by(|a, b| a.settings.name.cmp(&b.settings.name));
    Ok(views)
}

/// How a camera is that stands for all channels of a device.
fn catalog_status(book: &Book, camera: &CameraSettings) -> Option<serde_json::Value> {
    follows_catalog(camera).then(|| {
        let channels = book.derived.iter().filter(|d| d.of == camera.name).count();
        serde_json::json!({
            "name": camera.name,
            "state": "catalog",
            "reason": match channels {
                0 => "no channel is known yet: the device has not told its catalog".to_owned(),
                n => format!("{n} channels, each a camera of its own"),
            },
        })
    })
}

/// One camera.
pub async fn one(appliance: &Appliance, name: &CameraName) -> Result<CameraView, Failure> {
    let found = all(appliance)
        .await?
        .into_iter()
        .find(|v| v.settings.name == name.as_str());
    found.ok_or_else(no_camera)
}

/// Whether anything is recorded of a camera, configured or not.
pub async fn has_footage(appliance: &Appliance, name: &CameraName) -> Result<bool, Failure> {
    let usage = appliance.usage().await.map_err(|e| Failure::unavailable(&e))?;
    Ok(usage.iter().any(|u| u.contains_key(name)))
}

pub(super) async fn must_be_known(appliance: &Appliance, name: &CameraName) -> Result<(), Failure> {
    if appliance.book.borrow().camera(name).is_some() || has_footage(appliance, name).await? {
        return Ok(());
    }
    Err(no_camera())
}

pub(super) fn archive_failed(error: &ArchiveError) -> Failure {
    Failure::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        error.to_string(),
        "stop the recorder and run `corenvr archive check`",
    )
}

/// Spans and gaps.
pub async fn timeline(appliance: &Appliance, name: &CameraName, range: TimeRange) -> Result<Timeline, Failure> {
    must_be_known(appliance, name).await?;
    let mut found = Vec::new();
    for storage in &appliance.storages {
        let camera = name.clone();
        let answer = storage.archive.call(move |a| a.timeline(&camera, range)).await;
        found.push(
            answer
                .map_err(|e| Failure::unavailable(&e))?
                .map_err(|e| archive_failed(&e))?,
        );
    }
    Ok(merge(found))
}

/// What happened, by time; as much as one answer holds.
async fn events(
    appliance: &Appliance,
    name: &CameraName,
    range: TimeRange,
    limit: usize,
) -> Result<EventList, Failure> {
    let known = appliance.book.borrow().camera(name).is_some();
    let mut found = EventList::default();
    for storage in &appliance.storages {
        let camera = name.clone();
        let answer = storage.archive.call(move |a| a.events(&camera, range, limit)).await;
        let part = answer
            .map_err(|e| Failure::unavailable(&e))?
            .map_err(|e| archive_failed(&e))?;
        found.events.extend(part.events);
        found.more_from = found.more_from.into_iter().chain(part.more_from).min();
    }
    // A camera that is gone may have left events without footage.
    if found.events.is_empty() && !known {
        must_be_known(appliance, name).await?;
    }
    found
        .events
        .retain(|e| found.more_from.is_none_or(|more| e.time < more));
    found.events.sort_by_key(|e| e.time);
    Ok(found)
}

/// One timeline out of those of several storage directories: a camera that was moved has footage in more than one.
fn merge(mut timelines: Vec<Timeline>) -> Timeline {
    timelines.retain(|t| !t.spans.is_empty() || !t.gaps.is_empty());
    if timelines.len() < 2 {
        return timelines.pop().unwrap_or_default();
    }
    let more_from = timelines.iter().filter_map(|t| t.more_from).min();
    let until = more_from.unwrap_or(WallTime::MAX);
    let bytes = timelines.iter().map(|t| t.bytes).sum();
    let noted: Vec<Gap> = timelines.iter().flat_map(|t| t.gaps.iter().copied()).collect();
    let mut spans: Vec<Span> = timelines.into_iter().flat_map(|t| t.spans).collect();
    spans.retain(|s| s.range.start < until);
    spans.sort_by_key(|s| s.range.start);
    let mut gaps = Vec::new();
    let mut covered = spans.first().map_or(until, |s| s.range.start);
    for span in &mut spans {
        // Footage that both have is shown once.
        span.range.start = span.range.start.max(covered.min(span.range.end));
        if span.range.start > covered {
            gaps.push(hole(covered, span.range.start, &noted));
        }
        covered = covered.max(span.range.end);
    }
    spans.retain(|s| s.range.start < s.range.end);
    let last = noted
        .iter()
        .filter(|g| g.range.end > covered && g.range.start < until)
        .max_by_key(|g| g.range.end);
    gaps.extend(last.map(|g| hole(g.range.start.max(covered), g.range.end.min(until), &noted)));
    Timeline {
        spans,
        gaps,
        bytes,
        more_from,
    }
}

fn hole(start: WallTime, end: WallTime, noted: &[Gap]) -> Gap {
    let range = TimeRange { start, end };
    let cause = noted
        .iter()
        .filter(|g| g.range.intersect(range).is_some())
        .map(|g| g.cause);
    Gap {
        range,
        cause: cause
            .max_by_key(|c| *c != GapCause::Unknown)
            .unwrap_or(GapCause::Unknown),
    }
}

/// The files that hold a range, by start: those that begin after the cursor, and about as many as wanted.
async fn segments(
    appliance: &Appliance,
    name: &CameraName,
    range: TimeRange,
    after: Option<WallTime>,
    limit: usize,
) -> Result<SegmentList, Failure> {
    must_be_known(appliance, name).await?;
    let from = after.map_or(range.start, |after| after.max(range.start));
    let mut list = Vec::new();
    for storage in &appliance.storages {
        let mut rest = TimeRange::new(from, range.end);
        let mut taken = 0;
        while let Some(range) = rest {
            let camera = name.clone();
            let answer = storage.archive.call(move |a| a.segments(&camera, range)).await;
            let found: Vec<Arc<SegmentMeta>> = answer
                .map_err(|e| Failure::unavailable(&e))?
                .map_err(|e| archive_failed(&e))?;
            let next = found.last().map(|s| s.end.max(s.key.start.offset(1)));
            let wanted = |s: &&Arc<SegmentMeta>| after.is_none_or(|after| s.key.start > after);
            let before = list.len();
            list.extend(found.iter().filter(wanted).map(|s| view(s)));
            taken += list.len() - before;
            rest = next
                .filter(|_| found.len() >= SEGMENTS_MAX && taken <= limit)
                .and_then(|start| TimeRange::new(start, range.end));
        }
    }
    list.sort_by_key(|s| s.start);
    list.dedup_by(|a, b| a.path == b.path);
    Ok(page(list, limit))
}

/// Cuts a list between two files that begin at different times, since the time is the cursor.
fn page(mut list: Vec<SegmentView>, limit: usize) -> SegmentList {
    let same = |at: usize| {
        list.get(at)
            .zip(list.get(at - 1))
            .is_some_and(|(a, b)| a.start == b.start)
    };
    let mut end = limit.max(1);
    while same(end) {
        end += 1;
    }
    let more = list.len() > end;
    list.truncate(end);
    SegmentList {
        next: list.last().filter(|_| more).map(|s| s.start.to_clock()),
        segments: list,
    }
}

fn view(segment: &SegmentMeta) -> SegmentView {
    SegmentView {
        path: segment.path.clone(),
        start: segment.key.start,
        end: segment.end,
        bytes: segment.bytes,
        open: segment.state == SegmentState::Open,
    }
}

/// Deletes everything that is recorded of a camera which is not being recorded any more. Protected ranges stay.
pub async fn purge(appliance: &Appliance, name: &CameraName) -> Result<Removed, Failure> {
    let mut removed = Removed { segments: 0, bytes: 0 };
    for storage in &appliance.storages {
        let mut from = WallTime::MIN;
        loop {
            let camera = name.clone();
            let batch = storage.archive.call(move |a| purge_batch(a, &camera, from)).await;
            let (deleted, next) = batch
                .map_err(|e| Failure::unavailable(&e))?
                .map_err(|e| archive_failed(&e))?;
            removed.segments += deleted.segments;
            removed.bytes += deleted.bytes;
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        let camera = name.clone();
        let events = storage.archive.call(move |a| a.purge_events(&camera)).await;
        events
            .map_err(|e| Failure::unavailable(&e))?
            .map_err(|e| archive_failed(&e))?;
    }
    tracing::info!(camera = %name, files = removed.segments, bytes = removed.bytes, "recordings deleted");
    Ok(removed)
}

fn purge_batch(
    archive: &mut corenvr_store::Archive,
    camera: &CameraName,
    from: WallTime,
) -> Result<(Removed, Option<WallTime>), ArchiveError> {
    let range = TimeRange {
        start: from,
        end: WallTime::MAX,
    };
    let mut removed = Removed { segments: 0, bytes: 0 };
    let found = archive.segments(camera, range)?;
    for segment in found.iter().take(PURGE_BATCH) {
        match archive.delete(&segment.key) {
            Ok(bytes) => {
                removed.segments += 1;
                removed.bytes += bytes;
            }
            Err(error @ ArchiveError::NotDeletable(..)) => tracing::warn!("{error}"),
            Err(error) => return Err(error),
        }
    }
    let next = found.get(PURGE_BATCH).map(|s| s.key.start);
    Ok((removed, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> WallTime {
        WallTime::from_micros(s * 1_000_000)
    }

    fn span(start: i64, end: i64) -> Span {
        Span {
            range: TimeRange {
                start: at(start),
                end: at(end),
            },
            bytes: 1,
            open: false,
            backfilled: false,
        }
    }

    fn gap(start: i64, end: i64, cause: GapCause) -> Gap {
        Gap {
            range: TimeRange {
                start: at(start),
                end: at(end),
            },
            cause,
        }
    }

    #[test]
    fn pages_of_files_never_lose_one_that_begins_with_another() {
        let file = |start: i64, path: &str| SegmentView {
            path: path.into(),
            start: at(start),
            end: at(start + 10),
            bytes: 1,
            open: false,
        };
        let all = vec![file(0, "a"), file(10, "b"), file(10, "c"), file(20, "d")];
        let first = page(all.clone(), 2);
        assert_eq!(
            (first.segments.len(), first.next.as_deref()),
            (3, Some("19700101T000010Z"))
        );
        let all_of_it = page(all, 3);
        assert_eq!((all_of_it.segments.len(), all_of_it.next.is_some()), (3, true));
        assert_eq!(page(vec![file(0, "a")], 1).next, None);
        assert_eq!(page(Vec::new(), 1).segments, []);
    }

    #[test]
    fn a_camera_that_was_moved_has_one_timeline_without_overlap() {
        let old = Timeline {
            spans: vec![span(0, 10), span(20, 30)],
            gaps: vec![gap(10, 20, GapCause::CameraDown), gap(30, 100, GapCause::Operator)],
            bytes: 2,
            more_from: None,
        };
        let new = Timeline {
            spans: vec![span(28, 50), span(60, 70)],
            gaps: vec![gap(50, 60, GapCause::Loss)],
            bytes: 3,
            more_from: None,
        };
        let merged = merge(vec![new, Timeline::default(), old]);
        assert_eq!(merged.spans, [span(0, 10), span(20, 30), span(30, 50), span(60, 70)]);
        assert_eq!(
            merged.gaps,
            [
                gap(10, 20, GapCause::CameraDown),
                gap(50, 60, GapCause::Operator),
                gap(70, 100, GapCause::Operator)
            ]
        );
        assert_eq!(merged.bytes, 5);
        assert_eq!(merge(Vec::new()), Timeline::default());
    }
}
