//! Headers, the cache, and the way from the thread to the connection.

use std::{task::Waker, time::Instant};

use corenvr_media::{CodecParameters, Frame, TrackId, VideoCodec, VideoParameters};
use corenvr_shard::run_control;
use corenvr_store::{Archive, ArchiveOptions, SegmentHeader, export::prepare, mkv::file::SegmentFile};
use hyper::body::Body;

use super::{cache::Cache, *};
use crate::{
    accounts::{Via, Who},
    admin::caller::{Caller, Proof},
};

fn at(seconds: i64) -> WallTime {
    WallTime::from_micros((1_795_168_800 + seconds) * 1_000_000 + 123)
}

fn door() -> CameraName {
    CameraName::new("door").unwrap()
}

fn all() -> TimeRange {
    TimeRange {
        start: at(0),
        end: at(1000),
    }
}

/// Ten seconds of pictures that are recorded in `dir`.
fn recorded(dir: &std::path::Path) -> Vec<Arc<SegmentMeta>> {
    let mut archive = Archive::open(&ArchiveOptions::new(dir)).unwrap();
    let video = VideoParameters {
        codec: VideoCodec::Mjpeg,
        extra: bytes::Bytes::new(),
        width: 320,
        height: 240,
        frame_rate: None,
    };
    let header = SegmentHeader {
        camera: door(),
        start: at(0),
        tracks: vec![CodecParameters::Video(video)].into(),
        gap_before: None,
        backfilled_until: None,
    };
    let frames: Vec<_> = (0..250)
        .map(|i| Frame {
            track: TrackId(0),
            time: at(0).offset(i * 40_000),
            key: true,
            data: vec![i as u8; 20_000].into(),
        })
        .collect();
    let opened = archive.open_segment(header).unwrap();
    let mut file = SegmentFile::start(&opened.path, opened.header).unwrap();
    for part in frames.chunks(50) {
        for cluster in file.append(part).unwrap() {
            archive.cluster_durable(&opened.key, &cluster).unwrap();
        }
    }
    archive.seal_segment(&opened.key, file.seal().unwrap()).unwrap();
    archive.segments(&door(), all()).unwrap()
}

fn made(segments: &[Arc<SegmentMeta>], range: TimeRange) -> Arc<Prepared> {
    Arc::new(prepare(segments, range, Format::Mp4, &mut |_| true).unwrap())
}

fn until(seconds: i64) -> TimeRange {
    TimeRange {
        start: at(0),
        end: at(seconds),
    }
}

fn request(range: TimeRange) -> Request {
    Request {
        camera: door(),
        range,
        format: Format::Mp4,
    }
}

fn map(list: &[(HeaderName, &str)]) -> HeaderMap {
    let pair = |(name, text): &(HeaderName, &str)| (name.clone(), HeaderValue::from_str(text).unwrap());
    list.iter().map(pair).collect()
}

#[test]
fn parts_are_given_as_the_headers_ask() {
    let dir = tempfile::tempdir().unwrap();
    let clip = made(&recorded(dir.path()), all());
    let len = clip.bytes();
    let ask = |list: &[_]| part_of(&map(list), &Method::GET, &clip);
    let ok = |list: &[_]| ask(list).unwrap();
    assert_eq!(ok(&[]), (StatusCode::OK, 0..len));
    let five = (header::RANGE, "bytes=5-9");
    assert_eq!(ok(std::slice::from_ref(&five)), (StatusCode::PARTIAL_CONTENT, 5..10));
    assert_eq!(
        part_of(&map(std::slice::from_ref(&five)), &Method::HEAD, &clip)
            .unwrap()
            .0,
        StatusCode::OK
    );
    assert_eq!(ok(&[five.clone(), (header::IF_RANGE, clip.etag())]).1, 5..10);
    assert_eq!(
        ok(&[five.clone(), (header::IF_RANGE, "\"other\"")]),
        (StatusCode::OK, 0..len)
    );
    assert_eq!(ok(&[(header::RANGE, "bytes=0-1,5-6")]).1, 0..len);
    let beyond = ask(&[(header::RANGE, "bytes=99999999999-")]).unwrap_err().into_answer();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.headers()[header::CONTENT_RANGE], format!("bytes */{len}"));
}

#[test]
fn the_headers_tell_what_is_truly_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let clip = made(&recorded(dir.path()), all());
    let headers = headers(&door(), &clip, export(Format::Mp4));
    let told = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(
        told("content-disposition"),
        "attachment; filename=\"door_20261120T100000Z_20261120T100010Z.mp4\""
    );
    assert_eq!(told("x-corenvr-start"), "2026-11-20T10:00:00.000123Z");
    assert_eq!(told("x-corenvr-end"), "2026-11-20T10:00:10.000123Z");
    assert_eq!(
        (told("content-type"), told("accept-ranges")),
        ("video/mp4".into(), "bytes".into())
    );
    assert!(!headers.contains_key("x-corenvr-gaps") && !headers.contains_key("x-corenvr-left-out"));
    let part = with_part(empty(StatusCode::PARTIAL_CONTENT, headers), &(10..20), &clip);
    assert_eq!(part.headers()[header::CONTENT_LENGTH], "10");
    assert_eq!(
        part.headers()[header::CONTENT_RANGE],
        format!("bytes 10-19/{}", clip.bytes())
    );
}

#[test]
fn the_cache_keeps_the_latest_and_knows_who_had_something() {
    let dir = tempfile::tempdir().unwrap();
    let segments = recorded(dir.path());
    let mut cache = Cache::default();
    let now = Instant::now();
    let mut first = None;
    for i in 0..20u8 {
        let range = until(1 + i64::from(i) % 9);
        let clip = made(&segments, range);
        cache.insert([i; 32], request(until(i64::from(i))), &clip, now);
        first.get_or_insert(clip);
    }
    assert!(
        cache.of_identity(&[3; 32], &request(until(3)), now).is_none(),
        "there is room for 16"
    );
    assert!(cache.of_request(&request(until(3)), now).is_none());
    let kept = cache.of_request(&request(until(7)), now).unwrap();
    assert!(Arc::ptr_eq(
        &kept,
        &cache.of_identity(&[7; 32], &request(until(7)), now).unwrap()
    ));
    let (one, two) = (Who::User("one".into()), Who::User("two".into()));
    assert!(cache.is_new(&kept, &one, None) && !cache.is_new(&kept, &one, None));
    assert!(cache.is_new(&kept, &two, None) && !cache.is_new(&kept, &two, None));
    assert!(cache.is_new(&kept, &one, Some([192, 0, 2, 1].into())));
    let unknown = first.unwrap();
    assert!(cache.is_new(&unknown, &one, None) && cache.is_new(&unknown, &one, None));
    let later = now + Duration::from_secs(3600);
    cache.trim(later);
    assert!(cache.of_request(&request(until(7)), later).is_none());
}

#[test]
fn there_are_so_many_places_and_no_more() {
    run_control(async {
        let jobs = Jobs::default();
        let mut places = Vec::new();
        for _ in 0..job::JOBS_MAX {
            places.push(jobs.enter().await.unwrap());
        }
        let begun = Instant::now();
        assert!(jobs.enter().await.is_none());
        assert!(begun.elapsed() >= Duration::from_secs(4));
        drop(places.pop());
        assert!(jobs.enter().await.is_some());
    })
    .unwrap();
}

#[test]
fn a_thread_fills_the_body_and_ends_when_nobody_wants_it() {
    let dir = tempfile::tempdir().unwrap();
    let segments = recorded(dir.path());
    let expected = {
        let clip = made(&segments, all());
        let mut bytes = Vec::new();
        clip.write(0..clip.bytes(), &mut bytes, &mut |_| true).unwrap();
        bytes
    };
    run_control(async {
        let jobs = Jobs::default();
        let place = jobs.enter().await.unwrap();
        let mut job = jobs.start(place, request(all()), segments.clone(), None).unwrap();
        let clip = job.prepared().await.unwrap();
        assert!(Arc::ptr_eq(&clip, &jobs.last(&request(all())).unwrap()));
        let part = 1000..clip.bytes() - 7;
        let body = job.order(Order { part: part.clone() }).unwrap();
        assert_eq!(body.size_hint().exact(), Some(part.end - part.start));
        let got = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        assert!(got == expected[part.start as usize..part.end as usize]);

        // Nobody reads: the thread waits, and its place is free again soon after the body is dropped.
        let mut held = Vec::new();
        for _ in 0..job::JOBS_MAX {
            let place = jobs.enter().await.unwrap();
            let mut job = jobs.start(place, request(all()), segments.clone(), None).unwrap();
            let clip = job.prepared().await.unwrap();
            let mut body = job.order(Order { part: 0..clip.bytes() }).unwrap();
            let mut cx = std::task::Context::from_waker(Waker::noop());
            drop(body.as_mut().poll_frame(&mut cx));
            held.push(body);
        }
        assert!(jobs.enter().await.is_none());
        drop(held);
        let begun = Instant::now();
        assert!(jobs.enter().await.is_some());
        assert!(begun.elapsed() < Duration::from_secs(3));

        // Footage that vanishes is a body that ends too early, never a shorter file.
        let place = jobs.enter().await.unwrap();
        let mut job = jobs.start(place, request(all()), segments.clone(), None).unwrap();
        let clip = job.prepared().await.unwrap();
        std::fs::remove_file(&segments[0].path).unwrap();
        let body = job.order(Order { part: 0..clip.bytes() }).unwrap();
        assert!(http_body_util::BodyExt::collect(body).await.is_err());
    })
    .unwrap();
}

#[test]
fn what_goes_on_belongs_to_what_was_begun() {
    let dir = tempfile::tempdir().unwrap();
    let segments = recorded(dir.path());
    run_control(async {
        let jobs = Jobs::default();
        let place = jobs.enter().await.unwrap();
        let mut job = jobs.start(place, request(all()), segments, None).unwrap();
        let clip = job.prepared().await.unwrap();
        let pinned = |list: &[_]| goes_on_with(&map(list), &jobs, &request(all())).is_some();
        let rest = (header::RANGE, "bytes=100-");
        assert!(pinned(std::slice::from_ref(&rest)));
        assert!(pinned(&[rest.clone(), (header::IF_RANGE, clip.etag())]));
        assert!(!pinned(&[rest.clone(), (header::IF_RANGE, "\"other\"")]));
        assert!(!pinned(&[(header::RANGE, "bytes=0-")]) && !pinned(&[]));
        assert!(goes_on_with(&map(&[rest]), &jobs, &request(until(5))).is_none());
        let caller = Caller {
            who: Who::Nobody,
            peer: None,
            via: Via::Http,
            proof: Proof::Nothing,
        };
        assert!(jobs.is_new(&clip, &caller) && !jobs.is_new(&clip, &caller));
    })
    .unwrap();
}

#[test]
fn what_cannot_be_one_file_says_what_can() {
    let change = ExportError::ParametersChange {
        at: at(5),
        ranges: vec![until(5), all()],
    };
    for (error, status) in [
        (change, 422),
        (ExportError::Changed, 503),
        (
            ExportError::NotInMp4 {
                codec: "H264",
                reason: "is odd",
            },
            422,
        ),
        (ExportError::Stopped, 500),
    ] {
        assert_eq!(failed(&JobError::Export(error)).into_answer().status(), status);
    }
    let answer = failed(&JobError::Busy).into_answer();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
}
