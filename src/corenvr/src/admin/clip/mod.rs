//! Clips over HTTP: a range of a camera as one file, streamed, in any parts (RFC 9110 section 14).
//!
//! The footage is read by a plain thread for each request ([`job`]), which hands chunks to the connection as fast as the client takes
//! them. What the first pass over the footage found out is kept for a while ([`cache`]), since players ask for a clip in many parts.

mod cache;
mod job;

use std::{ops::Range, sync::Arc, time::Duration};

use corenvr_media::{CameraName, TimeRange, WallTime};
use corenvr_proto::http::{self as ranges, Wanted};
use corenvr_store::{
    SegmentMeta,
    archive::SEGMENTS_MAX,
    export::{ExportError, Exported, Format, Prepared},
};
use hyper::{
    Method, Response, StatusCode,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};

pub use job::Jobs;

use super::{
    cameras::{archive_failed, must_be_known},
    http::{Answer, Failure, whole},
    routes::{Call, Need, Route, route},
};
use crate::{
    accounts::{Right, audit::Action},
    supervisor::appliance::Appliance,
};
use cache::Request;
use job::{JobError, Order};

/// Footage as files.
pub const ROUTES: &[Route] = &[
    route!(GET "/api/v1/cameras/{name}/clip.mkv", Need::Camera(Right::Export), export_mkv),
    route!(GET "/api/v1/cameras/{name}/clip.mp4", Need::Camera(Right::Export), export_mp4),
    route!(GET "/api/v1/cameras/{name}/play.mp4", Need::Camera(Right::Playback), play),
];

/// Longest export; a longer one is refused with 400.
const EXPORT_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Longest clip for a player; a longer one is refused with 400.
const PLAY_MAX: Duration = Duration::from_secs(15 * 60);
/// Most files that a clip is made of; one of more is refused with 422.
const SEGMENTS_OF_CLIP_MAX: usize = 100_000;
/// When to come back if too many clips are being made.
const RETRY_AFTER_S: u16 = 10;

/// What a clip is for.
#[derive(Clone, Copy)]
struct Purpose {
    format: Format,
    longest: Duration,
    /// `Content-Disposition`.
    disposition: &'static str,
    action: Action,
}

const fn export(format: Format) -> Purpose {
    Purpose {
        format,
        longest: EXPORT_MAX,
        disposition: "attachment",
        action: Action::Export,
    }
}

async fn export_mkv(call: Call) -> Result<Answer, Failure> {
    answer(&call, export(Format::Mkv)).await
}

async fn export_mp4(call: Call) -> Result<Answer, Failure> {
    answer(&call, export(Format::Mp4)).await
}

async fn play(call: Call) -> Result<Answer, Failure> {
    let purpose = Purpose {
        format: Format::Mp4,
        longest: PLAY_MAX,
        disposition: "inline",
        action: Action::WatchArchive,
    };
    answer(&call, purpose).await
}

async fn answer(call: &Call, purpose: Purpose) -> Result<Answer, Failure> {
    let name = call.camera()?;
    let range = range_of(call, purpose.longest)?;
    let request = Request {
        camera: name.clone(),
        range,
        format: purpose.format,
    };
    let jobs = &call.appliance.clips;
    let pinned = goes_on_with(&call.headers, jobs, &request);
    let segments = match &pinned {
        Some(_) => Vec::new(),
        None => footage(&call.appliance, &name, range).await?,
    };
    let place = jobs.enter().await.ok_or_else(busy)?;
    let mut job = jobs.start(place, request, segments, pinned)?;
    let clip = match job.prepared().await {
        Ok(clip) => clip,
        Err(JobError::Export(ExportError::Empty(_))) => return Err(nothing_there(&call.appliance, &name, range).await),
        Err(error) => return Err(failed(&error)),
    };
    let text = |name| call.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let headers = headers(&name, &clip, purpose);
    if text(header::IF_NONE_MATCH).is_some_and(|h| ranges::none_match(h, clip.etag())) {
        return Ok(empty(StatusCode::NOT_MODIFIED, headers));
    }
    let (status, part) = part_of(&call.headers, &call.method, &clip)?;
    if call.method == Method::HEAD {
        return Ok(with_part(empty(status, headers), &part, &clip));
    }
    if jobs.is_new(&clip, &call.caller) {
        let detail = detail(&clip, purpose.format);
        call.audit(purpose.action, Some(&name), &detail, true);
    }
    let body = job.order(Order { part: part.clone() })?;
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Ok(with_part(answer, &part, &clip))
}

/// What was asked for before by the same words, if this request wants the rest of it: so the parts of a clip whose end still grows
/// belong together.
fn goes_on_with(headers: &HeaderMap, jobs: &Jobs, request: &Request) -> Option<Arc<Prepared>> {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let goes_on = text(header::RANGE).is_some_and(ranges::goes_on);
    let clip = jobs.last(request).filter(|_| goes_on)?;
    let same = text(header::IF_RANGE).is_none_or(|h| ranges::if_range(h, clip.etag()));
    same.then_some(clip)
}

fn range_of(call: &Call, longest: Duration) -> Result<TimeRange, Failure> {
    let time = |name: &str| {
        let missing = || {
            Failure::bad(
                format!("{name}: missing"),
                "write start= and end=, as 2026-11-20T10:00:00Z",
            )
        };
        call.query.text(name).ok_or_else(missing)?;
        call.query.time(name, WallTime::MIN)
    };
    let range = TimeRange::new(time("start")?, time("end")?).filter(|r| r.start < r.end);
    let range = range.ok_or_else(|| Failure::bad("end is not after start", "exchange them"))?;
    if range.duration() > longest {
        let minutes = longest.as_secs() / 60;
        let most = if minutes > 60 {
            format!("{} days", minutes / 1440)
        } else {
            format!("{minutes} minutes")
        };
        let detail = format!("this gives {most} at most");
        return Err(Failure::bad(detail, "ask for the range in parts"));
    }
    Ok(range)
}

/// The status and the bytes that are asked for.
fn part_of(headers: &HeaderMap, method: &Method, clip: &Prepared) -> Result<(StatusCode, Range<u64>), Failure> {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let all = (StatusCode::OK, 0..clip.bytes());
    // A range means something for GET only (RFC 9110 section 14.2).
    let Some(range) = text(header::RANGE).filter(|_| *method == Method::GET) else {
        return Ok(all);
    };
    if text(header::IF_RANGE).is_some_and(|h| !ranges::if_range(h, clip.etag())) {
        return Ok(all);
    }
    match ranges::range(range, clip.bytes()) {
        Wanted::Whole => Ok(all),
        Wanted::Part(part) => Ok((StatusCode::PARTIAL_CONTENT, part)),
        Wanted::Nothing => {
            let detail = format!("the clip has {} bytes, and none of those asked for", clip.bytes());
            let failure = Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, detail, "begin within the clip");
            Err(failure.with(header::CONTENT_RANGE, value(format!("bytes */{}", clip.bytes()))))
        }
    }
}

/// The headers of every answer that is about this clip.
fn headers(name: &CameraName, clip: &Prepared, purpose: Purpose) -> HeaderMap {
    let contents = clip.contents();
    let mut map = HeaderMap::new();
    let mut put = |name: HeaderName, text: String| map.insert(name, value(text));
    put(header::CONTENT_TYPE, clip.format().media_type().to_owned());
    put(header::ACCEPT_RANGES, "bytes".to_owned());
    put(header::ETAG, clip.etag().to_owned());
    // May be kept by the browser that asked, and has to be asked about each time.
    put(header::CACHE_CONTROL, "private, no-cache".to_owned());
    put(
        header::CONTENT_DISPOSITION,
        format!("{}; filename=\"{}\"", purpose.disposition, file_name(name, clip)),
    );
    if let Some(range) = contents.range {
        put(HeaderName::from_static("x-corenvr-start"), exact(range.start));
        put(HeaderName::from_static("x-corenvr-end"), exact(range.end));
    }
    for (name, text) in truths(contents) {
        put(HeaderName::from_static(name), text);
    }
    map
}

/// What somebody who only sees the file would not know of it.
fn truths(contents: &Exported) -> Vec<(&'static str, String)> {
    let damaged = contents.damaged.len() as u64 + contents.damaged_more;
    let left_out: Vec<_> = contents.left_out.iter().map(|l| l.codec).collect();
    let ranges = |list: &mut dyn Iterator<Item = TimeRange>| {
        // A header is no place for a long list; the timeline has them all.
        let text: Vec<_> = list
            .take(20)
            .map(|r| format!("{}/{}", exact(r.start), exact(r.end)))
            .collect();
        text.join(", ")
    };
    let mut told = vec![
        ("x-corenvr-gaps", ranges(&mut contents.gaps.iter().map(|g| g.range))),
        ("x-corenvr-overlaps", ranges(&mut contents.overlaps.iter().copied())),
        ("x-corenvr-backfilled", ranges(&mut contents.backfilled.iter().copied())),
        ("x-corenvr-left-out", left_out.join(", ")),
    ];
    if damaged > 0 {
        told.push(("x-corenvr-damaged-clusters", damaged.to_string()));
    }
    told.retain(|(_, text)| !text.is_empty());
    told
}

/// RFC 3339 with microseconds.
fn exact(t: WallTime) -> String {
    let (y, mo, d, h, mi, s, us) = t.civil();
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{us:06}Z")
}

/// `front-door_20261120T100000Z_20261120T101500Z.mp4`: what is truly in it, to the second.
fn file_name(name: &CameraName, clip: &Prepared) -> String {
    let second = |t: WallTime| t.offset(-t.as_micros().rem_euclid(1_000_000)).to_clock();
    let times = clip
        .contents()
        .range
        .map_or_else(String::new, |r| format!("_{}_{}", second(r.start), second(r.end)));
    format!("{name}{times}.{}", clip.format().extension())
}

fn detail(clip: &Prepared, format: Format) -> String {
    let range = clip.contents().range;
    let times = range.map_or_else(String::new, |r| format!("{} to {}, ", r.start, r.end));
    format!("{times}{}, {} bytes", format.extension(), clip.bytes())
}

/// Everything that is put into a header here is printable ASCII: times, numbers, names of cameras and codecs.
fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn empty(status: StatusCode, headers: HeaderMap) -> Answer {
    let mut answer = Response::new(whole(bytes::Bytes::new()));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

fn with_part(mut answer: Answer, part: &Range<u64>, clip: &Prepared) -> Answer {
    let status = answer.status();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{}", part.start, part.end - 1, clip.bytes());
        headers.insert(header::CONTENT_RANGE, value(range));
    }
    answer
}

/// The segments of a range, over all storage directories, by time.
async fn footage(appliance: &Appliance, name: &CameraName, range: TimeRange) -> Result<Vec<Arc<SegmentMeta>>, Failure> {
    must_be_known(appliance, name).await?;
    let mut list = Vec::new();
    for storage in &appliance.storages {
        let mut rest = Some(range);
        while let Some(range) = rest {
            let camera = name.clone();
            let answer = storage.archive.call(move |a| a.segments(&camera, range)).await;
            let found = answer
                .map_err(|e| Failure::unavailable(&e))?
                .map_err(|e| archive_failed(&e))?;
            let next = found.last().map(|s| s.end.max(s.key.start.offset(1)));
            rest = next
                .filter(|_| found.len() >= SEGMENTS_MAX)
                .and_then(|start| TimeRange::new(start, range.end));
            list.extend(found);
            if list.len() > SEGMENTS_OF_CLIP_MAX {
                let detail = format!("the range holds more than {SEGMENTS_OF_CLIP_MAX} files");
                return Err(unprocessable(detail, "ask for a shorter one"));
            }
        }
    }
    list.sort_by_key(|s| s.key.start);
    list.dedup_by(|a, b| a.path == b.path);
    Ok(list)
}

/// 404, with what is nearest.
async fn nothing_there(appliance: &Appliance, name: &CameraName, range: TimeRange) -> Failure {
    let mut nearest: Option<WallTime> = None;
    let away = |t: WallTime| {
        t.micros_since(range.start)
            .unsigned_abs()
            .min(t.micros_since(range.end).unsigned_abs())
    };
    for storage in &appliance.storages {
        for at in [range.start, range.end] {
            let camera = name.clone();
            let found = storage.archive.call(move |a| a.nearest(&camera, at)).await;
            let found = found.ok().and_then(Result::ok).flatten();
            nearest = [nearest, found].into_iter().flatten().min_by_key(|t| away(*t));
        }
    }
    let remedy = match nearest {
        Some(t) => format!("the nearest footage is at {t}"),
        None => "nothing is recorded of this camera yet".to_owned(),
    };
    let detail = format!("there is no footage from {} to {}", range.start, range.end);
    Failure::new(StatusCode::NOT_FOUND, detail, remedy)
}

fn unprocessable(detail: impl Into<String>, remedy: &str) -> Failure {
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, detail, remedy)
}

fn busy() -> Failure {
    let detail = format!(
        "{} clips are being made, which is as many as may be at a time",
        job::JOBS_MAX
    );
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, detail, "try again in a moment")
        .with(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S))
}

fn failed(error: &JobError) -> Failure {
    match error {
        JobError::Busy => busy(),
        JobError::Gone => Failure::internal(&"the clip could not be made; the log says why"),
        JobError::Export(e) => match e {
            ExportError::ParametersChange { .. } => unprocessable(e.to_string(), "ask for the ranges one by one"),
            ExportError::TooLong { .. } => unprocessable(e.to_string(), "ask for less at a time"),
            ExportError::NotInMp4 { .. } => unprocessable(e.to_string(), "ask for clip.mkv"),
            ExportError::Changed => Failure::unavailable(e),
            // The path is the administrator's business, and is in the log.
            _ => Failure::internal(&"the footage cannot be read; the log says why"),
        },
    }
}

#[cfg(test)]
mod tests;
