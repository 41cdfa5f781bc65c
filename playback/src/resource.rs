//! What a URL asks for: `/NAME`, `/NAME?start=T[&end=T][&gaps=keep][&audio=0][&pace=0][&scale=S]`, `/NAME?start=T&step=1|-1`,
//! `/NAME/replay`, each with `/trackN` behind its path, and the URLs of `alias`.

use std::time::Duration;

use corenvr_media::{CameraName, TimeRange, WallTime};
use corenvr_proto::rtsp::{Rate, RequestUri, Response, server::reply};

use crate::{
    alias::{Alias, Channels},
    footage::RANGE_MAX,
    manner::{RATE_MAX, RATE_MIN, is_as_recorded},
    plan::{Direction, Gaps},
};

/// How much is played where the URL names no end.
const LENGTH_DEFAULT: Duration = Duration::from_secs(3600);

/// A URL, understood.
#[derive(Debug, Clone, PartialEq)]
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
    /// The rate of a virtual clip: footage time over the clip's own time.
    pub rate: Option<f64>,
    /// The URL without its track: the presentation.
    pub url: String,
}

/// The present, or what of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The present.
    Live,
    /// A range of the past, and what becomes of its gaps.
    Archive(TimeRange, Gaps),
    /// The one frame shown next after a moment, or before it.
    Still(WallTime, Direction),
    /// All of it, by ONVIF's rules.
    Replay,
}

impl Resource {
    /// Reads a URL at `now`, to which its times may be relative. The error is the answer.
    pub fn parse(uri: &RequestUri, now: WallTime, channels: &Channels) -> Result<Self, Response> {
        let alias = Alias::parse(uri, channels)?;
        let (camera, rest) = match (&alias, uri.segments()) {
            (Some(alias), segments) => (alias.camera.clone(), &segments[alias.segments.min(segments.len())..]),
            (None, [name, rest @ ..]) => (
                CameraName::new(name).map_err(|e| reply::not_found(e.to_string()))?,
                rest,
            ),
            (None, []) => {
                let form = "The URL names no camera; it should look like rtsp://host:port/CAMERA";
                return Err(reply::not_found(form));
            }
        };
        let (replay, rest) = match rest {
            [one, rest @ ..] if alias.is_none() && one.eq_ignore_ascii_case("replay") => (true, rest),
            rest => (false, rest),
        };
        let nothing = || reply::not_found("There is nothing at this path of the camera");
        let track = match rest {
            [] => None,
            [one] => Some(parse_track(one).ok_or_else(nothing)?),
            _ => return Err(nothing()),
        };
        let mut resource = Self {
            camera,
            track,
            what: if replay { What::Replay } else { What::Live },
            audio: true,
            end_given: false,
            paced: true,
            rate: None,
            url: uri.with_segment(usize::from(track.is_some()), None),
        };
        match alias {
            Some(Alias {
                start: Some(start),
                end,
                ..
            }) => resource.set_range(start, end, Gaps::Skip)?,
            Some(_) => {}
            None => resource.read_query(uri, now)?,
        }
        Ok(resource)
    }

    /// Whether the other URL is of the same presentation.
    pub fn same_presentation(&self, other: &Self) -> bool {
        self.url == other.url
    }

    fn read_query(&mut self, uri: &RequestUri, now: WallTime) -> Result<(), Response> {
        let (mut start, mut end, mut gaps, mut step) = (None, None, None, None);
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
                "scale" => self.rate = parse_scale(value)?,
                "step" => step = Some(parse_step(value)?),
                _ => {
                    return Err(reply::bad_request(format!(
                        "The URL parameter {} is not known",
                        shown(key)
                    )));
                }
            }
        }
        // Sound of another speed is no sound.
        self.audio &= self.rate.is_none() && step.is_none();
        match (start, step) {
            (None, None) if end.is_none() && gaps.is_none() && self.rate.is_none() => Ok(()),
            _ if self.what == What::Replay => Err(reply::bad_request(
                "A replay URL takes no range: it is asked for by `Range: clock=`",
            )),
            (None, _) => Err(reply::bad_request("end, gaps, scale and step need a start")),
            (Some(_), Some(_)) if end.is_some() || gaps.is_some() || self.rate.is_some() => {
                Err(reply::bad_request("step goes with a start alone"))
            }
            (Some(start), Some(direction)) => {
                self.what = What::Still(start, direction);
                Ok(())
            }
            (Some(start), None) => self.set_range(start, end, gaps.unwrap_or_default()),
        }
    }

    fn set_range(&mut self, start: WallTime, end: Option<WallTime>, gaps: Gaps) -> Result<(), Response> {
        self.end_given = end.is_some();
        let end = end.unwrap_or(start + LENGTH_DEFAULT);
        let range = TimeRange::new(start, end).filter(|r| r.start < r.end);
        let range = range.ok_or_else(|| reply::bad_request("The end is not after the start"))?;
        if range.duration() > RANGE_MAX {
            return Err(reply::bad_request("A range may be 7 days long at most"));
        }
        self.what = What::Archive(range, gaps);
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

/// `None` for 1, which is no virtual clip.
fn parse_scale(value: &str) -> Result<Option<f64>, Response> {
    let rate = Rate::parse(value).map(Rate::get);
    let rate = rate.filter(|r| (RATE_MIN..=RATE_MAX).contains(&r.abs()));
    let rate = rate.ok_or_else(|| reply::bad_request("scale is 0.0625 to 32, or -0.0625 to -32 for reverse"))?;
    Ok((!is_as_recorded(rate)).then_some(rate))
}

fn parse_step(value: &str) -> Result<Direction, Response> {
    match value {
        "1" | "+1" => Ok(Direction::Forward),
        "-1" => Ok(Direction::Backward),
        _ => Err(reply::bad_request("step is 1 or -1")),
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
    use proptest::prelude::*;

    use super::*;

    fn parse(url: &str) -> Result<Resource, u16> {
        let now = WallTime::parse("2026-11-20T12:00:00Z").unwrap();
        let uri = RequestUri::parse(url).unwrap();
        Resource::parse(&uri, now, &Channels::default()).map_err(|r| r.status.as_u16())
    }

    fn range(url: &str) -> (String, String) {
        match parse(url).unwrap().what {
            What::Archive(r, _) => (r.start.to_clock(), r.end.to_clock()),
            what => panic!("{what:?}"),
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
    fn virtual_clips_stills_and_replay() {
        let clip = parse("rtsp://h/door?start=-1h&scale=-8").unwrap();
        assert_eq!((clip.rate, clip.audio), (Some(-8.0), false));
        let plain = parse("rtsp://h/door?start=-1h&scale=1.0").unwrap();
        assert_eq!((plain.rate, plain.audio), (None, true));
        let still = parse("rtsp://h/door?start=20261120T100000Z&step=-1").unwrap();
        let at = WallTime::parse("2026-11-20T10:00:00Z").unwrap();
        assert_eq!((still.what, still.audio), (What::Still(at, Direction::Backward), false));
        let replay = parse("rtsp://h/door/replay/track2").unwrap();
        assert_eq!((replay.what, replay.track), (What::Replay, Some(1)));
        assert_eq!(replay.url, "rtsp://h/door/replay");
        let channels = Channels::new(|n| (n == 1).then(|| CameraName::new("gate").unwrap()));
        let url = "rtsp://h/Streaming/tracks/101/track1?starttime=20261120T100000Z&endtime=20261120T103000Z&name=x";
        let alias = Resource::parse(&RequestUri::parse(url).unwrap(), at, &channels).unwrap();
        assert_eq!((alias.camera.as_str(), alias.track), ("gate", Some(0)));
        assert_eq!(alias.url, url.replace("/track1", ""));
        let What::Archive(range, _) = alias.what else { panic!() };
        assert_eq!((range.start, range.duration().as_secs()), (at, 1800));
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
            ("rtsp://h/c/replay/x", 404),
            ("rtsp://h/c/replay?start=-1h", 400),
            ("rtsp://h/c?scale=2", 400),
            ("rtsp://h/c?start=-1h&scale=0", 400),
            ("rtsp://h/c?start=-1h&scale=NaN", 400),
            ("rtsp://h/c?start=-1h&scale=1e9", 400),
            ("rtsp://h/c?start=-1h&scale=33", 400),
            ("rtsp://h/c?start=-1h&scale=-0.01", 400),
            ("rtsp://h/c?step=1", 400),
            ("rtsp://h/c?start=-1h&step=2", 400),
            ("rtsp://h/c?start=-1h&step=1&end=now", 400),
            ("rtsp://h/c?start=-1h&step=1&scale=2", 400),
            ("rtsp://h/Streaming/tracks/101?starttime=20261120T100000Z", 404),
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

    proptest! {
        #[test]
        fn any_url_is_understood_or_refused(
            path in "(cam|door|Streaming|streaming|tracks|Channels|playback|realmonitor|replay|track1|101|[ -~]{0,12}|/){0,6}",
            query in "((start|end|starttime|endtime|channel|scale|step|gaps|audio|pace)=(-?[0-9a-zA-Z_:.+-]{0,24}|2026_11_20_10_00_00|20261120T100000Z|now|-1h)&?){0,5}",
        ) {
            let now = WallTime::parse("2026-11-20T12:00:00Z").unwrap();
            let channels = Channels::new(|n| CameraName::new(&format!("cam{n}")).ok());
            if let Ok(uri) = RequestUri::parse(&format!("rtsp://h/{path}?{query}")) {
                match Resource::parse(&uri, now, &channels) {
                    Ok(Resource { what: What::Archive(range, _), rate, .. }) => {
                        prop_assert!(range.start < range.end && range.duration() <= RANGE_MAX);
                        prop_assert!(rate.is_none_or(|r| (RATE_MIN..=RATE_MAX).contains(&r.abs())));
                    }
                    Ok(_) => {}
                    Err(response) => prop_assert!(matches!(response.status.as_u16(), 400 | 404)),
                }
            }
        }
    }
}
