//! What a URL asks for: `/NAME`, `/NAME/trackN`, `/NAME?start=T[&end=T][&gaps=keep][&audio=0][&pace=0]`.

use std::time::Duration;

use corenvr_media::{CameraName, TimeRange, WallTime};
use corenvr_proto::rtsp::{RequestUri, Response, StatusCode, server::reply};

use crate::{footage::RANGE_MAX, plan::Gaps};

/// How much is played where the URL names no end.
const LENGTH_DEFAULT: Duration = Duration::from_secs(3600);

/// A URL, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The camera.
    pub camera: CameraName,
    /// Index of the track, if the URL names one.
    pub track: Option<usize>,
    /// What is wanted of the camera.
    pub what: What,
    /// Whether sound is wanted.
    pub audio: bool,
    /// Whether the URL names the end of its range. One that lies in the future is then waited for.
    pub end_given: bool,
    /// Whether it is sent at its pace.
    pub paced: bool,
    /// The URL without its track: the presentation.
    pub url: String,
}

/// The present or a range of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The present.
    Live,
    /// A range of the past, and what becomes of its gaps.
    Archive(TimeRange, Gaps),
}

impl Resource {
    /// Reads a URL at `now`, to which its times may be relative. The error is the answer.
    pub fn parse(uri: &RequestUri, now: WallTime) -> Result<Self, Response> {
        let (name, rest) = uri
            .segments()
            .split_first()
            .ok_or_else(|| reply::not_found("The URL names no camera; it should look like rtsp://host:port/CAMERA"))?;
        let camera = CameraName::new(name).map_err(|e| reply::not_found(e.to_string()))?;
        let track = match rest {
            [] => None,
            [one] if one.eq_ignore_ascii_case("replay") => return Err(not_served("ONVIF replay")),
            [one] => {
                Some(parse_track(one).ok_or_else(|| reply::not_found("There is nothing at this path of the camera"))?)
            }
            _ => return Err(reply::not_found("There is nothing at this path of the camera")),
        };
        let mut resource = Self {
            camera,
            track,
            what: What::Live,
            audio: true,
            end_given: false,
            paced: true,
            url: uri.with_segment(usize::from(track.is_some()), None),
        };
        resource.read_query(uri, now)?;
        Ok(resource)
    }

    /// Whether the other URL is of the same presentation.
    pub fn same_presentation(&self, other: &Self) -> bool {
        self.url == other.url
    }

    fn read_query(&mut self, uri: &RequestUri, now: WallTime) -> Result<(), Response> {
        let (mut start, mut end, mut gaps) = (None, None, None);
        for (key, value) in uri.query() {
            match key.to_ascii_lowercase().as_str() {
                "start" => start = Some(parse_time(value, now)?),
                "end" => end = Some(parse_time(value, now)?),
                "gaps" => {
                    gaps = Some(match value.as_str() {
                        "keep" => Gaps::Keep,
                        "skip" => Gaps::Skip,
                        _ => return Err(reply::bad_request("gaps is keep or skip")),
                    });
                }
                "audio" => self.audio = parse_switch("audio", value)?,
                "pace" => self.paced = parse_switch("pace", value)?,
                "scale" | "step" | "speed" => return Err(not_served(key)),
                _ => {
                    return Err(reply::bad_request(format!(
                        "The URL parameter {} is not known",
                        shown(key)
                    )));
                }
            }
        }
        let Some(start) = start else {
            return match (end, gaps) {
                (None, None) => Ok(()),
                _ => Err(reply::bad_request("end and gaps need a start")),
            };
        };
        self.end_given = end.is_some();
        let end = end.unwrap_or(start + LENGTH_DEFAULT);
        let range = TimeRange::new(start, end).filter(|r| r.start < r.end);
        let range = range.ok_or_else(|| reply::bad_request("The end is not after the start"))?;
        if range.duration() > RANGE_MAX {
            return Err(reply::bad_request("A range may be 7 days long at most"));
        }
        self.what = What::Archive(range, gaps.unwrap_or_default());
        Ok(())
    }
}

/// The name of a track in control URLs.
pub fn track_name(index: usize) -> String {
    format!("track{}", index + 1)
}

fn parse_track(segment: &str) -> Option<usize> {
    let number: usize = segment.strip_prefix("track")?.parse().ok()?;
    number.checked_sub(1).filter(|i| *i < 8)
}

fn not_served(what: &str) -> Response {
    Response::new(StatusCode::NOT_IMPLEMENTED).because(format!("{} is not served by this version", shown(what)))
}

fn shown(text: &str) -> String {
    text.chars().take(32).collect()
}

fn parse_switch(name: &'static str, value: &str) -> Result<bool, Response> {
    match value {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err(reply::bad_request(format!("{name} is 0 or 1"))),
    }
}

fn parse_time(text: &str, now: WallTime) -> Result<WallTime, Response> {
    let bad = || {
        let text = shown(text);
        reply::bad_request(format!(
            "{text} is not a time: use 2026-11-20T10:00:00Z, 20261120T100000Z, -15m or now"
        ))
    };
    if text.eq_ignore_ascii_case("now") {
        return Ok(now);
    }
    match text.strip_prefix('-') {
        Some(ago) => parse_span(ago).map(|span| now - span).ok_or_else(bad),
        None => WallTime::parse(text).map_err(|_| bad()),
    }
}

/// `15m`, `1h30m`, `90s`, `2d`.
fn parse_span(mut text: &str) -> Option<Duration> {
    let mut total = 0u64;
    while !text.is_empty() {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        // Nine digits of days are more than any archive holds, and cannot overflow.
        let value: u64 = text.get(..digits).filter(|d| d.len() <= 9)?.parse().ok()?;
        let factor = match text.as_bytes().get(digits)? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            _ => return None,
        };
        total += value * factor;
        text = &text[digits + 1..];
    }
    (total > 0).then(|| Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Resource, u16> {
        let now = WallTime::parse("2026-11-20T12:00:00Z").unwrap();
        let uri = RequestUri::parse(url).unwrap();
        Resource::parse(&uri, now).map_err(|r| r.status.as_u16())
    }

    fn range(url: &str) -> (String, String) {
        match parse(url).unwrap().what {
            What::Archive(r, _) => (r.start.to_clock(), r.end.to_clock()),
            What::Live => panic!("live"),
        }
    }

    #[test]
    fn live_and_archive_urls() {
        let live = parse("rtsp://h:8554/door").unwrap();
        assert_eq!(
            (live.what, live.track, live.audio, live.paced),
            (What::Live, None, true, true)
        );
        let track = parse("rtsp://h/door/track2?start=20261120T100000Z&gaps=keep&audio=0&pace=0").unwrap();
        assert_eq!((track.track, track.audio, track.paced), (Some(1), false, false));
        assert!(matches!(track.what, What::Archive(_, Gaps::Keep)));
        assert_eq!(
            track.url,
            "rtsp://h/door?start=20261120T100000Z&gaps=keep&audio=0&pace=0"
        );
        assert!(track.same_presentation(&parse(&track.url).unwrap()));
    }

    #[test]
    fn times_in_every_form() {
        let ten_to_eleven = ("20261120T100000Z".to_owned(), "20261120T110000Z".to_owned());
        assert_eq!(range("rtsp://h/c?start=2026-11-20T10:00:00Z"), ten_to_eleven);
        assert_eq!(
            range("rtsp://h/c?start=2026-11-20T18:00:00+08:00&end=20261120T110000Z"),
            ten_to_eleven
        );
        assert_eq!(range("rtsp://h/c?start=-2h&end=-1h"), ten_to_eleven);
        assert_eq!(range("rtsp://h/c?start=-1h30m&end=now").0, "20261120T103000Z");
    }

    #[test]
    fn what_is_wrong_or_not_served_is_not_ignored() {
        for (url, status) in [
            ("rtsp://h", 404),
            ("rtsp://h/Door", 404),
            ("rtsp://h/c/trackx", 404),
            ("rtsp://h/c/track0", 404),
            ("rtsp://h/c/track1/x", 404),
            ("rtsp://h/c/replay", 501),
            ("rtsp://h/c?scale=2", 501),
            ("rtsp://h/c?start=-1h&step=1", 501),
            ("rtsp://h/c?strat=-1h", 400),
            ("rtsp://h/c?end=-1h", 400),
            ("rtsp://h/c?gaps=keep", 400),
            ("rtsp://h/c?start=yesterday", 400),
            ("rtsp://h/c?start=-1x", 400),
            ("rtsp://h/c?start=-", 400),
            ("rtsp://h/c?start=-9999999999d", 400),
            ("rtsp://h/c?start=-1h&end=-2h", 400),
            ("rtsp://h/c?start=-1h&end=-1h", 400),
            ("rtsp://h/c?start=-9d&end=now", 400),
            ("rtsp://h/c?start=-1h&gaps=no", 400),
            ("rtsp://h/c?audio=no", 400),
        ] {
            assert_eq!(parse(url), Err(status), "{url}");
        }
    }
}
