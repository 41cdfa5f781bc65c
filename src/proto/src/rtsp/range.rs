//! The Range header in its two units, normal play time and UTC (RFC 2326 sections 3.6, 3.7 and 12.29). SMPTE time codes
//! are refused: nothing that is recorded carries one.

use std::{fmt, time::Duration};

use corenvr_media::WallTime;

/// The largest normal play time that is read: ten years. A longer one is no position in any recording.
pub const NPT_SECONDS_MAX: u64 = 10 * 366 * 86_400;

/// A Range header. The start may lie behind the end: that is how reverse play is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Relative to the beginning of the presentation.
    Npt(NptRange),
    /// Absolute time.
    Clock(ClockRange),
}

/// A range in normal play time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NptRange {
    /// Where to begin; `None` for `npt=-END`, which leaves it to the server.
    pub start: Option<NptTime>,
    /// Where to end; `None` for an open range.
    pub end: Option<NptTime>,
}

/// A point of normal play time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NptTime {
    /// The live edge.
    Now,
    /// Distance from the beginning, in whole microseconds.
    At(Duration),
}

/// A range in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockRange {
    /// Where to begin.
    pub start: WallTime,
    /// Where to end; `None` for an open range.
    pub end: Option<WallTime>,
}

/// A Range header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Well formed, perhaps, but neither `npt` nor `clock`. The answer is 457.
    #[error("only npt and clock ranges are understood")]
    Unit,
    /// Malformed. The answer is 400.
    #[error("malformed range")]
    Syntax,
}

impl Range {
    /// From `start`, open.
    pub const fn npt_from(start: Duration) -> Self {
        Self::Npt(NptRange {
            start: Some(NptTime::At(start)),
            end: None,
        })
    }

    /// From `start` to `end`.
    pub const fn npt(start: Duration, end: Duration) -> Self {
        Self::Npt(NptRange {
            start: Some(NptTime::At(start)),
            end: Some(NptTime::At(end)),
        })
    }

    /// From `start` to `end` in UTC.
    pub const fn clock(start: WallTime, end: Option<WallTime>) -> Self {
        Self::Clock(ClockRange { start, end })
    }

    /// Reads a header value. A `;time=` parameter is ignored: the range takes effect at once.
    pub fn parse(value: &str) -> Result<Self, RangeError> {
        let value = value.split(';').next().unwrap_or_default().trim();
        let (unit, range) = value.split_once('=').ok_or(RangeError::Syntax)?;
        let range = range.trim();
        match unit.trim().to_ascii_lowercase().as_str() {
            "npt" => parse_npt(range).map(Self::Npt),
            "clock" => parse_clock(range).map(Self::Clock),
            _ => Err(RangeError::Unit),
        }
    }
}

fn parse_npt(range: &str) -> Result<NptRange, RangeError> {
    let (start, end) = range.split_once('-').ok_or(RangeError::Syntax)?;
    let point = |s: &str| match s.trim() {
        "" => Ok(None),
        s => parse_npt_time(s).map(Some).ok_or(RangeError::Syntax),
    };
    let range = NptRange {
        start: point(start)?,
        end: point(end)?,
    };
    if range.start.is_none() && range.end.is_none() {
        return Err(RangeError::Syntax);
    }
    Ok(range)
}

/// `now`, seconds, or `h:mm:ss`; a decimal comma is read as a point, because some clients print by locale.
fn parse_npt_time(text: &str) -> Option<NptTime> {
    if text.eq_ignore_ascii_case("now") {
        return Some(NptTime::Now);
    }
    let (whole, fraction) = text.split_once(['.', ',']).unwrap_or((text, "0"));
    let number = |s: &str| -> Option<u64> {
        (!s.is_empty() && s.len() <= 10 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok())?
    };
    let mut fields = whole.split(':').map(number);
    let first = fields.next()??;
    let seconds = match (fields.next(), fields.next(), fields.next()) {
        (None, None, None) => first,
        (Some(minutes), Some(seconds), None) => {
            let (minutes, seconds) = (minutes?, seconds?);
            if minutes > 59 || seconds > 59 {
                return None;
            }
            first * 3600 + minutes * 60 + seconds
        }
        _ => return None,
    };
    if seconds > NPT_SECONDS_MAX {
        return None;
    }
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let micros = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(6)
        .fold(0, |v, b| v * 10 + u64::from(b - b'0'));
    Some(NptTime::At(Duration::from_micros(seconds * 1_000_000 + micros)))
}

fn parse_clock(range: &str) -> Result<ClockRange, RangeError> {
    // The extended form of RFC 3339, which some clients send, has hyphens of its own: the separator follows a `Z`.
    let separator = range.find(['Z', 'z']).map_or_else(|| range.rfind('-'), |z| Some(z + 1));
    let (start, end) = match separator.and_then(|i| range.split_at_checked(i)) {
        Some((start, rest)) => (start, rest.trim().strip_prefix('-').ok_or(RangeError::Syntax)?),
        None => return Err(RangeError::Syntax),
    };
    // A time zone can carry a time over either end of what can be written again.
    let point = |s: &str| match WallTime::parse(s) {
        Ok(t) if (WallTime::MIN..=WallTime::MAX).contains(&t) => Ok(t),
        _ => Err(RangeError::Syntax),
    };
    Ok(ClockRange {
        start: point(start)?,
        end: match end.trim() {
            "" => None,
            end => Some(point(end)?),
        },
    })
}

impl fmt::Display for NptTime {
    /// Seconds with three decimals, or six where the milliseconds do not say it all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("now"),
            Self::At(d) if d.subsec_micros() % 1000 == 0 => write!(f, "{}.{:03}", d.as_secs(), d.subsec_millis()),
            Self::At(d) => write!(f, "{}.{:06}", d.as_secs(), d.subsec_micros()),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Npt(r) => {
                f.write_str("npt=")?;
                if let Some(start) = r.start {
                    write!(f, "{start}")?;
                }
                f.write_str("-")?;
                r.end.map_or(Ok(()), |end| write!(f, "{end}"))
            }
            Self::Clock(r) => {
                write!(f, "clock={}-", r.start.to_clock())?;
                r.end.map_or(Ok(()), |end| f.write_str(&end.to_clock()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_players_send() {
        for (text, range) in [
            ("npt=0.000-", Range::npt_from(ms(0))),
            ("npt=12.5-30", Range::npt(ms(12_500), ms(30_000))),
            ("npt=30-26", Range::npt(ms(30_000), ms(26_000))),
            ("NPT = 0:01:02.25 - 1:00:00", Range::npt(ms(62_250), ms(3_600_000))),
            ("npt=3,5-;time=20261120T100000Z", Range::npt_from(ms(3500))),
            (
                "npt=now-",
                Range::Npt(NptRange {
                    start: Some(NptTime::Now),
                    end: None,
                }),
            ),
            (
                "npt=-20",
                Range::Npt(NptRange {
                    start: None,
                    end: Some(NptTime::At(ms(20_000))),
                }),
            ),
        ] {
            assert_eq!(Range::parse(text), Ok(range), "{text}");
        }
    }

    #[test]
    fn clock_ranges_of_onvif_clients() {
        let t = |s| WallTime::parse(s).unwrap();
        let a = t("2026-11-20T10:00:00Z");
        for (text, range) in [
            ("clock=20261120T100000Z-", Range::clock(a, None)),
            ("clock=20261120T100000.0Z-20261120T110000.123456789Z", {
                Range::clock(a, Some(t("2026-11-20T11:00:00.123456Z")))
            }),
            (
                "clock=20261120T110000Z-20261120T100000Z",
                Range::clock(t("2026-11-20T11:00:00Z"), Some(a)),
            ),
            ("clock=2026-11-20T10:00:00Z-2026-11-20T10:00:01Z", {
                Range::clock(a, Some(t("2026-11-20T10:00:01Z")))
            }),
        ] {
            assert_eq!(Range::parse(text), Ok(range), "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in ["smpte=10:07:00-10:07:33", "smpte-30-drop=0:0:0-", "bytes=0-1"] {
            assert_eq!(Range::parse(text), Err(RangeError::Unit), "{text}");
        }
        for text in [
            "",
            "npt",
            "npt=",
            "npt=-",
            "npt=5",
            "npt=a-",
            "npt=1:2-",
            "npt=0:60:00-",
            "npt=1e3-",
            "npt=inf-",
            "npt=--1",
            "npt=99999999999-",
            "npt=9999999999-",
            "npt=1.x-",
            "clock=",
            "clock=-",
            "clock=now-",
            "clock=20261120T100000Z",
            "clock=20261120T100000Zx-",
            "clock=-20261120T100000Z",
            "clock=20261120T100000.1234567890Z-",
            "clock=é-Zé",
            "clock=19700101T000000+0800-",
            "clock=99991231T235959-0800-",
        ] {
            assert_eq!(Range::parse(text), Err(RangeError::Syntax), "{text}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for text in [
            "npt=0.000-10.500",
            "npt=1.000001-",
            "npt=now-",
            "npt=-3.000",
            "clock=20261120T100000Z-20261120T100000.25Z",
            "clock=20261120T100000.123456Z-",
        ] {
            assert_eq!(Range::parse(text).unwrap().to_string(), text);
        }
    }
}
