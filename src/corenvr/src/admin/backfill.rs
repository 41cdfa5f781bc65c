//! Filling gaps from a device's own archive over the API: which gaps there are, what the device has of them, and the job that fetches it.

use std::{rc::Rc, time::Duration};

use corenvr_media::{CameraName, TimeRange, WallTime};
use corenvr_proto::gb28181::{
    manscdp::{LocalTime, RecordItem, RecordQuery},
    platform::{Query as Question, QueryResult},
    url::Gb28181Url,
};
use corenvr_recorder::{BackfillError, BackfillSpan};
use corenvr_shard::time::wall_now_micros;
use corenvr_store::{GapCause, archive::Timeline};
use hyper::StatusCode;
use jiff::tz::TimeZone;

use super::{
    api::{BackfillRequest, BackfillView},
    cameras,
    devices::{failed, running, silent, zone},
    http::{Answer, Failure, json},
    routes::{Call, Need, Route, no_camera, route},
};
use crate::{
    accounts::{Right, audit::Action},
    supervisor::{appliance::Appliance, devices::device_url},
};

/// Longest range of one request; a device is searched for it.
const RANGE_MAX: Duration = Duration::from_secs(31 * 86_400);
/// The newest moments belong to the live recording, which may still be bringing them to disk.
const LIVE_MARGIN: Duration = Duration::from_secs(10);
/// Shorter gaps stay: a device's archive is not asked to the second.
const HOLE_MIN_US: i64 = 2_000_000;
/// Recordings of a device that are no further apart are one: their times are whole seconds.
const JOIN_US: i64 = 2_000_000;
/// Longest span of one session: its times are set anew with each.
const SPAN_MAX_US: i64 = 3_600_000_000;
/// Ranges without recordings that an answer lists.
const NOTHING_MAX: usize = 1000;

/// What can be asked of filling gaps.
pub const ROUTES: &[Route] = &[
    route!(POST "/api/v1/cameras/{name}/backfill", Need::Camera(Right::Configure), begin),
    route!(GET "/api/v1/cameras/{name}/backfill", Need::Camera(Right::Playback), show),
    route!(DELETE "/api/v1/cameras/{name}/backfill", Need::Camera(Right::Configure), stop),
];

/// Begins to fill the gaps of a range.
async fn begin(mut call: Call) -> Result<Answer, Failure> {
    let name = call.camera()?;
    let wanted: BackfillRequest = call.json().await?;
    let begun = fill(&call.appliance, &name, &wanted).await;
    let detail = format!("{} to {}", wanted.from, wanted.to);
    call.audit(Action::Backfill, Some(&name), &detail, begun.is_ok());
    begun
}

async fn fill(appliance: &Rc<Appliance>, name: &CameraName, wanted: &BackfillRequest) -> Result<Answer, Failure> {
    let url = device_of(appliance, name)?;
    let mut notes = Vec::new();
    let range = clamped(appliance, name, wanted, &mut notes)?;
    let timeline = cameras::timeline(appliance, name, range).await?;
    let range = TimeRange {
        start: range.start,
        end: timeline.more_from.map_or(range.end, |more| more.min(range.end)),
    };
    let holes = holes(range, &timeline);
    if holes.is_empty() {
        notes.push("there is no gap in this time".to_owned());
        let view = BackfillView {
            notes,
            ..BackfillView::default()
        };
        return Ok(json(StatusCode::OK, &view));
    }
    let (records, complete) = records(appliance, &url, range).await?;
    if !complete {
        notes.push("the device has not listed all of its recordings: ask again for what is missing".to_owned());
    }
    let (spans, mut nothing) = spans(&holes, &records);
    nothing.truncate(NOTHING_MAX);
    let begun = !spans.is_empty();
    if begun {
        appliance
            .recorder
            .backfill(name, spans)
            .await
            .map_err(|e| not_begun(&e))?;
        tracing::info!(camera = %name, from = %range.start, to = %range.end, "gaps are being filled from the device's archive");
    }
    let view = BackfillView {
        report: if begun { report(appliance, name).await? } else { None },
        nothing,
        notes,
    };
    Ok(json(if begun { StatusCode::ACCEPTED } else { StatusCode::OK }, &view))
}

/// How far the last job is.
async fn show(call: Call) -> Result<Answer, Failure> {
    status(&call.appliance, &call.camera()?).await
}

async fn status(appliance: &Appliance, name: &CameraName) -> Result<Answer, Failure> {
    device_of(appliance, name)?;
    let view = BackfillView {
        report: report(appliance, name).await?,
        ..BackfillView::default()
    };
    Ok(json(StatusCode::OK, &view))
}

/// Ends the job; what has come is kept.
async fn stop(call: Call) -> Result<Answer, Failure> {
    let name = call.camera()?;
    device_of(&call.appliance, &name)?;
    let stopped = call.appliance.recorder.stop_backfill(&name).await;
    call.audit(Action::Backfill, Some(&name), "stopped", stopped.is_ok());
    stopped.map_err(|e| Failure::unavailable(&e))?;
    status(&call.appliance, &name).await
}

async fn report(appliance: &Appliance, name: &CameraName) -> Result<Option<corenvr_recorder::BackfillReport>, Failure> {
    let report = appliance.recorder.backfill_status(name).await;
    report.map_err(|e| Failure::unavailable(&e))
}

fn device_of(appliance: &Appliance, name: &CameraName) -> Result<Gb28181Url, Failure> {
    let book = appliance.book.borrow();
    let (settings, _) = book.camera(name).ok_or_else(no_camera)?;
    let url = device_url(settings).cloned();
    url.ok_or_else(|| not_begun(&BackfillError::NoArchive(name.clone())))
}

fn not_begun(error: &BackfillError) -> Failure {
    let (status, remedy) = match error {
        BackfillError::Handle(_) => (StatusCode::SERVICE_UNAVAILABLE, "try again".to_owned()),
        BackfillError::NoSuchCamera(_) => return no_camera(),
        BackfillError::Running(name) => (
            StatusCode::CONFLICT,
            format!("`corenvr camera backfill {name}` shows how far it is, with --stop it ends"),
        ),
        BackfillError::NoArchive(_) | BackfillError::SwitchedOff | BackfillError::TooMany(_) => {
            (StatusCode::BAD_REQUEST, String::new())
        }
    };
    Failure::new(status, error.to_string(), remedy)
}

/// The range without what would be deleted at once, and without the present.
fn clamped(
    appliance: &Appliance,
    name: &CameraName,
    wanted: &BackfillRequest,
    notes: &mut Vec<String>,
) -> Result<TimeRange, Failure> {
    let now = WallTime::from_micros(wall_now_micros());
    let mut start = wanted.from;
    let age = appliance.book.borrow().policies().of(name).age;
    if let Some(oldest) = age.map(|age| now - age).filter(|oldest| start < *oldest) {
        notes.push(format!(
            "what is older than {oldest} would be deleted at once and is not fetched"
        ));
        start = oldest;
    }
    let end = wanted.to.min(now - LIVE_MARGIN);
    if start >= end {
        return Err(Failure::bad(
            format!("there is nothing to fill between {} and {}", wanted.from, wanted.to),
            "give a time that has passed, the earlier end first",
        ));
    }
    if end.saturating_since(start) > RANGE_MAX {
        let days = RANGE_MAX.as_secs() / 86_400;
        return Err(Failure::bad(
            format!("at most {days} days at a time are filled"),
            "give from and to nearer to each other",
        ));
    }
    Ok(TimeRange { start, end })
}

/// What the device's own archive holds, ordered.
async fn records(appliance: &Appliance, url: &Gb28181Url, range: TimeRange) -> Result<(Vec<TimeRange>, bool), Failure> {
    let server = &running(appliance)?.server;
    let channel = server
        .channel_of(url)
        .map_err(|reason| Failure::new(StatusCode::CONFLICT, reason, ""))?;
    let zone = zone(appliance.book.borrow().config.gb28181.utc_offset_s);
    let question = Question::RecordInfo(RecordQuery {
        start: LocalTime::from_utc(range.start, &zone),
        end: LocalTime::from_utc(range.end.offset(1_000_000), &zone),
        kind: None,
    });
    match server
        .query(url.device, channel, question)
        .await
        .map_err(|e| failed(&e))?
    {
        QueryResult::Records { items, complete } => Ok((ranges(&items, &zone), complete)),
        QueryResult::Failed { reason } => Err(silent(reason)),
        _ => Err(Failure::internal(&"the device answered another question")),
    }
}

fn ranges(items: &[RecordItem], zone: &TimeZone) -> Vec<TimeRange> {
    let range = |item: &RecordItem| TimeRange::new(item.start.to_utc(zone)?, item.end.to_utc(zone)?);
    let mut all: Vec<_> = items.iter().filter_map(range).collect();
    all.sort_by_key(|r| r.start);
    let mut joined: Vec<TimeRange> = Vec::with_capacity(all.len());
    for r in all {
        match joined.last_mut() {
            Some(last) if r.start.micros_since(last.end) <= JOIN_US => last.end = last.end.max(r.end),
            _ => joined.push(r),
        }
    }
    joined
}

/// Time without footage, with its causes; also what lies before the first footage.
fn holes(range: TimeRange, timeline: &Timeline) -> Vec<BackfillSpan> {
    let end = TimeRange {
        start: range.end,
        end: range.end,
    };
    let mut holes = Vec::new();
    let mut at = range.start;
    for span in timeline.spans.iter().map(|s| s.range).chain([end]) {
        let hole = TimeRange {
            start: at,
            end: span.start.min(range.end).max(at),
        };
        at = at.max(span.end);
        with_causes(hole, timeline, &mut holes);
    }
    holes.retain(|h| h.range.end.micros_since(h.range.start) >= HOLE_MIN_US);
    holes
}

fn with_causes(hole: TimeRange, timeline: &Timeline, holes: &mut Vec<BackfillSpan>) {
    let mut at = hole.start;
    let mut push = |start, end, cause| {
        if start < end {
            let range = TimeRange { start, end };
            holes.push(BackfillSpan { range, cause });
        }
    };
    for gap in &timeline.gaps {
        let Some(told) = gap.range.intersect(hole) else {
            continue;
        };
        push(at, told.start, GapCause::Unknown);
        push(at.max(told.start), told.end, gap.cause);
        at = at.max(told.end);
    }
    push(at, hole.end, GapCause::Unknown);
}

/// What of the holes the device has, in spans that one session can bring; and what it has not.
fn spans(holes: &[BackfillSpan], records: &[TimeRange]) -> (Vec<BackfillSpan>, Vec<TimeRange>) {
    let (mut spans, mut nothing) = (Vec::new(), Vec::new());
    for hole in holes {
        let mut at = hole.range.start;
        for record in records {
            // Its end is the second of its last picture.
            let record = TimeRange {
                start: record.start,
                end: record.end.offset(1_000_000),
            };
            let Some(there) = record.intersect(hole.range) else {
                continue;
            };
            if there.start.micros_since(at) >= HOLE_MIN_US {
                nothing.push(TimeRange {
                    start: at,
                    end: there.start,
                });
            }
            let mut start = there.start.max(at);
            while start < there.end {
                let end = there.end.min(start.offset(SPAN_MAX_US));
                let range = TimeRange { start, end };
                spans.push(BackfillSpan { range, ..*hole });
                start = end;
            }
            at = at.max(there.end);
        }
        if hole.range.end.micros_since(at) >= HOLE_MIN_US {
            nothing.push(TimeRange {
                start: at,
                end: hole.range.end,
            });
        }
    }
    (spans, nothing)
}

#[cfg(test)]
mod tests {
    use corenvr_store::archive::{Gap, Span};

    use super::*;

    fn range(start: i64, end: i64) -> TimeRange {
        let at = |s: i64| WallTime::from_micros(1_700_000_000_000_000 + s * 1_000_000);
        TimeRange {
            start: at(start),
            end: at(end),
        }
    }

    fn footage(start: i64, end: i64) -> Span {
        Span {
            range: range(start, end),
            bytes: 1,
            open: false,
            backfilled: false,
        }
    }

    fn hole(start: i64, end: i64, cause: GapCause) -> BackfillSpan {
        BackfillSpan {
            range: range(start, end),
            cause,
        }
    }

    #[test]
    fn holes_have_the_causes_of_their_gaps() {
        let gap = |start, end, cause| Gap {
            range: range(start, end),
            cause,
        };
        let timeline = Timeline {
            spans: vec![footage(10, 20), footage(21, 30), footage(60, 70)],
            gaps: vec![gap(30, 40, GapCause::CameraDown), gap(40, 60, GapCause::Operator)],
            bytes: 3,
            more_from: None,
        };
        let expected = [
            hole(0, 10, GapCause::Unknown),
            hole(30, 40, GapCause::CameraDown),
            hole(40, 60, GapCause::Operator),
            hole(70, 90, GapCause::Unknown),
        ];
        assert_eq!(holes(range(0, 90), &timeline), expected);
        assert_eq!(
            holes(range(35, 65), &timeline),
            [hole(35, 40, GapCause::CameraDown), expected[2]]
        );
        assert_eq!(holes(range(12, 19), &timeline), []);
        assert_eq!(
            holes(range(0, 9), &Timeline::default()),
            [hole(0, 9, GapCause::Unknown)]
        );
    }

    #[test]
    fn spans_are_what_the_device_has_of_the_holes() {
        let holes = [hole(0, 100, GapCause::Crash), hole(200, 9000, GapCause::Restart)];
        let records = [range(-50, 9), range(20, 29), range(90, 250)];
        let (got, nothing) = spans(&holes, &records);
        assert_eq!(
            got,
            [
                hole(0, 10, GapCause::Crash),
                hole(20, 30, GapCause::Crash),
                hole(90, 100, GapCause::Crash),
                hole(200, 251, GapCause::Restart)
            ]
        );
        assert_eq!(nothing, [range(10, 20), range(30, 90), range(251, 9000)]);
        let (got, nothing) = spans(&holes[1..], &[range(0, 10_000)]);
        assert_eq!(
            got.iter().map(|s| s.range).collect::<Vec<_>>(),
            [range(200, 3800), range(3800, 7400), range(7400, 9000)]
        );
        assert_eq!(nothing, []);
    }

    #[test]
    fn recordings_of_a_device_are_joined_whatever_their_order() {
        let item = |from: &str, to: &str| RecordItem {
            device: None,
            name: String::new(),
            file_path: String::new(),
            start: LocalTime::parse(from).unwrap(),
            end: LocalTime::parse(to).unwrap(),
            kind: None,
            recorder_id: String::new(),
            file_bytes: None,
        };
        let items = [
            item("2026-11-20T11:00:01", "2026-11-20T12:00:00"),
            item("2026-11-20T10:00:00", "2026-11-20T11:00:00"),
            item("2026-11-20T13:00:00", "2026-11-20T12:00:00"),
        ];
        let joined = ranges(&items, &TimeZone::UTC);
        let at = |text: &str| WallTime::parse(text).unwrap();
        assert_eq!(
            joined,
            [TimeRange {
                start: at("2026-11-20T10:00:00Z"),
                end: at("2026-11-20T12:00:00Z")
            }]
        );
    }
}
