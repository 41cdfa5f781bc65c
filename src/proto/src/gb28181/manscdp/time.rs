//! Times as MANSCDP has them: civil time, mostly without a zone (GB/T 28181 annex A; Beijing time is meant).

use std::fmt;

use corenvr_media::WallTime;
use jiff::{
    civil::DateTime,
    tz::{Offset, TimeZone},
};

/// A date and time of day as a device says it, with its offset from UTC where it says one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LocalTime {
    civil: DateTime,
    offset_s: Option<i32>,
}

/// The zone that the standard means: UTC+8, no summer time.
pub fn beijing() -> TimeZone {
    TimeZone::fixed(Offset::constant(8))
}

impl LocalTime {
    /// Reads `2026-11-21T06:23:29`, with or without a fraction and a zone (`Z`, `+08:00`, `+0800`, `+08`), a space for the `T`, and the basic
    /// form `20261121T062329`. `None` if it is none of these or names no time that exists.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (date, rest) = text.split_once(['T', 't', ' '])?;
        let rest = rest.trim_start();
        let zone_at = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
        let (time, zone) = rest.split_at_checked(zone_at)?;
        let offset_s = match zone.trim() {
            "" => None,
            "Z" | "z" => Some(0),
            zone => Some(parse_offset(zone)?),
        };
        let [year, month, day] = three(date, '-', 8)?;
        let (time, fraction) = time.trim_end().split_once('.').unwrap_or((time.trim_end(), "0"));
        let [hour, minute, second] = three(time, ':', 6)?;
        // A leap second is the last one of its minute: no zone database has it.
        let second = if second == 60 { 59 } else { second };
        let small = |v: u16| i8::try_from(v).ok();
        let civil = DateTime::new(
            i16::try_from(year).ok()?,
            small(month)?,
            small(day)?,
            small(hour)?,
            small(minute)?,
            small(second)?,
            parse_fraction_us(fraction)?.checked_mul(1000)?,
        );
        Some(Self {
            civil: civil.ok()?,
            offset_s,
        })
    }

    /// The civil time of a UTC time in a zone, to the microsecond, without an offset of its own.
    pub fn from_utc(time: WallTime, zone: &TimeZone) -> Self {
        let clamped = time.clamp(WallTime::MIN, WallTime::MAX);
        let timestamp = jiff::Timestamp::from_microsecond(clamped.as_micros()).unwrap_or_default();
        Self {
            civil: zone.to_datetime(timestamp),
            offset_s: None,
        }
    }

    /// In UTC. Its own offset counts if it has one, else `zone`. An hour that a zone has twice is taken as the first one, one that
    /// is skipped as if the clock had gone on. `None` for what is not from 1970 to 9999.
    pub fn to_utc(self, zone: &TimeZone) -> Option<WallTime> {
        let timestamp = match self.offset_s {
            Some(s) => Offset::from_seconds(s).ok()?.to_timestamp(self.civil).ok()?,
            None => zone.to_ambiguous_timestamp(self.civil).compatible().ok()?,
        };
        let time = WallTime::from_micros(timestamp.as_microsecond());
        (WallTime::MIN..=WallTime::MAX).contains(&time).then_some(time)
    }

    /// Whether the device named an offset from UTC itself.
    pub const fn has_offset(self) -> bool {
        self.offset_s.is_some()
    }

    /// The time as bodies carry it: whole seconds (the rest is cut off), no zone.
    pub(super) fn seconds(self) -> impl fmt::Display {
        self.civil.strftime("%Y-%m-%dT%H:%M:%S")
    }
}

impl fmt::Display for LocalTime {
    /// `2026-11-21T06:23:29.135`, as SIP's Date has it, with its offset if it has one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.civil.subsec_nanosecond() / 1_000_000;
        write!(f, "{}.{millis:03}", self.seconds())?;
        match self.offset_s {
            None => Ok(()),
            Some(s) => {
                let sign = if s < 0 { '-' } else { '+' };
                write!(f, "{sign}{:02}:{:02}", s.abs() / 3600, s.abs() / 60 % 60)
            }
        }
    }
}

/// Digits only, at most 4 of them.
fn number(text: &str) -> Option<u16> {
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Three numbers with a separator between them, or without any and then in `basic` digits of which the last four are two numbers.
fn three(text: &str, separator: char, basic: usize) -> Option<[u16; 3]> {
    if text.len() == basic && text.is_ascii() && !text.contains(separator) {
        let (first, rest) = text.split_at_checked(basic - 4)?;
        let (second, third) = rest.split_at_checked(2)?;
        return Some([number(first)?, number(second)?, number(third)?]);
    }
    let mut parts = text.split(separator);
    let three = [number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?];
    parts.next().is_none().then_some(three)
}

/// Microseconds of a decimal fraction; further digits are cut off.
fn parse_fraction_us(digits: &str) -> Option<i32> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = digits.bytes().chain(std::iter::repeat(b'0')).take(6);
    Some(digits.fold(0, |value, digit| value * 10 + i32::from(digit - b'0')))
}

/// Seconds of `+08:00`, `-0330` or `+08`.
fn parse_offset(text: &str) -> Option<i32> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match (digits.split_once(':'), digits.len()) {
        (Some((hours, minutes)), _) => (hours, minutes),
        (None, 4) => digits.split_at_checked(2)?,
        (None, _) => (digits, "0"),
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 14 && minutes < 60).then(|| sign * (i32::from(hours) * 3600 + i32::from(minutes) * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> Option<WallTime> {
        LocalTime::parse(text)?.to_utc(&beijing())
    }

    fn wall(text: &str) -> WallTime {
        WallTime::parse(text).unwrap()
    }

    #[test]
    fn a_time_without_a_zone_is_that_of_the_zone_given() {
        assert_eq!(utc("2026-11-21T06:23:29"), Some(wall("2026-11-20T22:23:29Z")));
        assert_eq!(utc("2026-11-21T06:23:29.135"), Some(wall("2026-11-20T22:23:29.135Z")));
        let time = LocalTime::parse("2026-11-21T06:23:29").unwrap();
        assert_eq!(time.to_utc(&TimeZone::UTC), Some(wall("2026-11-21T06:23:29Z")));
        assert!(!time.has_offset());
    }

    #[test]
    fn an_offset_of_its_own_counts() {
        for text in [
            "2026-11-21T06:23:29Z",
            "2026-11-21 08:23:29+02:00",
            "2026-11-21T08:23:29 +0200",
            "2026-11-21T08:23:29.000+02",
            "2026-11-21T02:53:29-03:30",
        ] {
            assert_eq!(utc(text), Some(wall("2026-11-21T06:23:29Z")), "{text}");
            assert!(LocalTime::parse(text).unwrap().has_offset());
        }
    }

    #[test]
    fn other_spellings_are_read() {
        for text in [
            "2026-1-2 3:4:5",
            "20260102T030405",
            "2026-01-02t03:04:05.0",
            " 2026-01-02  03:04:05\n",
        ] {
            assert_eq!(utc(text), Some(wall("2026-01-01T19:04:05Z")), "{text}");
        }
        assert_eq!(utc("2016-12-31T23:59:60Z"), Some(wall("2016-12-31T23:59:59Z")));
        assert_eq!(
            utc("2026-01-02T03:04:05.123456789Z"),
            Some(wall("2026-01-02T03:04:05.123456Z"))
        );
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "T",
            "2026-11-21",
            "2026-02-30T00:00:00",
            "2026-11-21T24:00:00",
            "2026-11-21T06:23",
            "2026-11-21T06:23:29+99:00",
            "2026-11-21T06:23:29.x",
            "2026-11-21T06:23:29.",
            "99999-01-01T00:00:00",
            "2026-11-21T-6:23:29",
            "1700000000",
            "\u{e9}T\u{e9}",
            "2026-11-21T06:23:29+",
        ] {
            assert_eq!(LocalTime::parse(text), None, "{text}");
        }
        assert_eq!(utc("1969-12-31T23:59:59Z"), None);
        assert_eq!(utc("0000-01-01T00:00:00"), None);
    }

    #[test]
    fn utc_and_back() {
        let time = WallTime::parse("2026-11-20T22:23:29.135Z").unwrap();
        let local = LocalTime::from_utc(time, &beijing());
        assert_eq!(local.to_string(), "2026-11-21T06:23:29.135");
        assert_eq!(local.seconds().to_string(), "2026-11-21T06:23:29");
        assert_eq!(local.to_utc(&beijing()), Some(time));
        assert_eq!(LocalTime::parse(&local.to_string()), Some(local));
        let own = LocalTime::parse("2026-11-21T02:53:29-03:30").unwrap();
        assert_eq!(own.to_string(), "2026-11-21T02:53:29.000-03:30");
    }
}
