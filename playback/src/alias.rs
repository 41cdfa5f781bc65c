//! Playback URLs that users know from other makers: Hikvision's `/Streaming/tracks/101?starttime=..` and Dahua's `/cam/playback?channel=1&..`,
//! and their live counterparts. They name a camera by its channel number.

use std::{fmt, sync::Arc};

use corenvr_media::{CameraName, WallTime};
use corenvr_proto::rtsp::{RequestUri, Response, server::reply};
use jiff::{civil::DateTime, tz::TimeZone};

/// Which camera has a channel number.
#[derive(Clone)]
pub struct Channels(Arc<dyn Fn(u32) -> Option<CameraName> + Send + Sync>);

impl Channels {
    /// By this function, which is asked for every such URL and must return at once.
    pub fn new(find: impl Fn(u32) -> Option<CameraName> + Send + Sync + 'static) -> Self {
        Self(Arc::new(find))
    }

    fn camera(&self, channel: u32) -> Result<CameraName, Response> {
        (self.0)(channel).ok_or_else(|| {
            reply::not_found(format!(
                "No camera has the channel number {channel}; give one `channel = {channel}` in the configuration"
            ))
        })
    }
}

impl Default for Channels {
    /// No camera has a number.
    fn default() -> Self {
        Self::new(|_| None)
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channels")
    }
}

/// What such a URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The camera.
    pub camera: CameraName,
    /// Segments of its path; what follows is a track.
    pub segments: usize,
    /// The range, where it names one.
    pub start: Option<WallTime>,
    /// Its end.
    pub end: Option<WallTime>,
}

impl Alias {
    /// Reads a URL; `None` if it is not one of these.
    pub fn parse(uri: &RequestUri, channels: &Channels) -> Result<Option<Self>, Response> {
        let path: Vec<String> = uri.segments().iter().map(|s| s.to_ascii_lowercase()).collect();
        match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["streaming", kind @ ("tracks" | "channels"), track, ..] => hikvision(uri, channels, kind, track).map(Some),
            ["cam", kind @ ("playback" | "realmonitor"), ..] => dahua(uri, channels, kind).map(Some),
            _ => Ok(None),
        }
    }
}

/// Channel times a hundred plus the number of the stream, of which there is one here.
fn hikvision(uri: &RequestUri, channels: &Channels, kind: &str, track: &str) -> Result<Alias, Response> {
    let wrong = || reply::not_found("A Hikvision track is channel and stream, like 101");
    let number: u32 = track.parse().map_err(|_| wrong())?;
    let channel = Some(number / 100)
        .filter(|c| *c > 0 && !number.is_multiple_of(100))
        .ok_or_else(wrong)?;
    let playback = kind == "tracks";
    let time = |name| {
        let text = uri.parameter(name).filter(|_| playback);
        text.map(|t| hikvision_time(t).ok_or_else(|| wrong_time(name, t, "20261120T100000Z")))
            .transpose()
    };
    Ok(Alias {
        camera: channels.camera(channel)?,
        segments: 3,
        start: time("starttime")?,
        end: time("endtime")?,
    })
}

fn dahua(uri: &RequestUri, channels: &Channels, kind: &str) -> Result<Alias, Response> {
    let channel = uri.parameter("channel").and_then(|c| c.parse().ok());
    let channel = channel.ok_or_else(|| reply::bad_request("The URL needs channel=N"))?;
    let playback = kind == "playback";
    let time = |name| {
        let text = uri.parameter(name).filter(|_| playback);
        text.map(|t| dahua_time(t).ok_or_else(|| wrong_time(name, t, "2026_11_20_10_00_00")))
            .transpose()
    };
    let start = time("starttime")?;
    if playback && start.is_none() {
        return Err(reply::bad_request("The URL needs starttime=2026_11_20_10_00_00"));
    }
    Ok(Alias {
        camera: channels.camera(channel)?,
        segments: 2,
        start,
        end: time("endtime")?,
    })
}

fn wrong_time(name: &str, text: &str, form: &str) -> Response {
    let text: String = text.chars().take(32).collect();
    reply::bad_request(format!("{name}={text} is not a time like {form}"))
}

/// UTC with a `Z`; without one, the time of this machine's zone, as the recorders themselves have it.
fn hikvision_time(text: &str) -> Option<WallTime> {
    WallTime::parse(text).ok().or_else(|| local(text))
}

/// `2026_11_20_10_00_00` in this machine's zone.
fn dahua_time(text: &str) -> Option<WallTime> {
    let fields: Vec<&str> = text.split('_').collect();
    let [year, month, day, hour, minute, second] = fields[..] else {
        return None;
    };
    local(&format!(
        "{year}-{month:0>2}-{day:0>2}T{hour:0>2}:{minute:0>2}:{second:0>2}"
    ))
}

fn local(text: &str) -> Option<WallTime> {
    let civil: DateTime = text.parse().ok()?;
    // In the hour that autumn repeats, the first of both is meant; in the one that spring leaves out, the moment after it.
    let zoned = TimeZone::system().to_ambiguous_zoned(civil).compatible().ok()?;
    let time = WallTime::from_micros(zoned.timestamp().as_microsecond());
    (WallTime::MIN..=WallTime::MAX).contains(&time).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Option<Alias>, u16> {
        let channels = Channels::new(|n| CameraName::new(&format!("cam{n}")).ok().filter(|_| n < 9));
        Alias::parse(&RequestUri::parse(url).unwrap(), &channels).map_err(|r| r.status.as_u16())
    }

    #[test]
    fn hikvision_urls() {
        let alias = parse("rtsp://h/Streaming/tracks/302?starttime=20261120T100000Z&endtime=20261120T110000Z");
        let alias = alias.unwrap().unwrap();
        assert_eq!((alias.camera.as_str(), alias.segments), ("cam3", 3));
        assert_eq!(alias.start, WallTime::parse("2026-11-20T10:00:00Z").ok());
        assert_eq!(alias.end, WallTime::parse("2026-11-20T11:00:00Z").ok());
        let live = parse("rtsp://h/streaming/channels/101").unwrap().unwrap();
        assert_eq!((live.camera.as_str(), live.start), ("cam1", None));
        for url in [
            "rtsp://h/Streaming/tracks/x",
            "rtsp://h/Streaming/tracks/1",
            "rtsp://h/Streaming/tracks/100",
            "rtsp://h/Streaming/tracks/901",
            "rtsp://h/Streaming/tracks/99999999999",
        ] {
            assert_eq!(parse(url), Err(404), "{url}");
        }
        assert_eq!(parse("rtsp://h/Streaming/tracks/101?starttime=soon"), Err(400));
    }

    #[test]
    fn dahua_urls() {
        let url = "rtsp://h/cam/playback?channel=1&subtype=0&starttime=2024_01_01_00_00_00&endtime=2024_01_01_01_00_00";
        let alias = parse(url).unwrap().unwrap();
        assert_eq!((alias.camera.as_str(), alias.segments), ("cam1", 2));
        let (start, end) = (alias.start.unwrap(), alias.end.unwrap());
        assert_eq!(end.micros_since(start), 3_600_000_000);
        assert_eq!(start, local("2024-01-01T00:00:00").unwrap());
        assert!(parse("rtsp://h/cam/realmonitor?channel=1&subtype=0").unwrap().is_some());
        assert_eq!(parse("rtsp://h/cam/playback?channel=1"), Err(400));
        assert_eq!(parse("rtsp://h/cam/playback?starttime=2024_01_01_00_00_00"), Err(400));
        assert_eq!(parse("rtsp://h/cam/playback?channel=1&starttime=2024_01_01"), Err(400));
        assert_eq!(
            parse("rtsp://h/cam/playback?channel=1&starttime=2024_13_01_00_00_00"),
            Err(400)
        );
        assert_eq!(
            parse("rtsp://h/cam/playback?channel=77&starttime=2024_01_01_00_00_00"),
            Err(404)
        );
    }

    #[test]
    fn other_urls_are_not_touched() {
        assert_eq!(parse("rtsp://h/cam"), Ok(None));
        assert_eq!(parse("rtsp://h/cam/track1"), Ok(None));
        assert_eq!(parse("rtsp://h/door/playback"), Ok(None));
    }
}
