//! UTC as the recordings use it: microseconds since the Unix epoch, and its two text forms.
//!
//! Local time and relative times are the command line's business; nothing in here reads a clock or a time zone.

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point of UTC time in microseconds since 1970-01-01T00:00:00Z. Leap seconds do not exist, as in POSIX.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WallTime(i64);

/// A text is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time: use RFC 3339 such as 2026-11-20T10:00:00Z, or 20261120T100000Z")]
pub struct ParseTimeError(String);

impl WallTime {
    /// 9999-12-31T23:59:59.999999Z, the last time that the text forms can say.
    pub const MAX: Self = Self(253_402_300_799_999_999);
    /// The Unix epoch, the first time that corenvr accepts: no footage is older.
    pub const MIN: Self = Self(0);

    /// From microseconds since the Unix epoch.
    pub const fn from_micros(us: i64) -> Self {
        Self(us)
    }

    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms.saturating_mul(1000))
    }

    /// From the system clock's type; times before the epoch become the epoch.
    pub fn from_system(t: std::time::SystemTime) -> Self {
        let us = t.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_micros());
        Self(i64::try_from(us).unwrap_or(i64::MAX))
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Microseconds from `earlier` to `self`; negative if `earlier` is later.
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time from `earlier` to `self`, or zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        let us = self.micros_since(earlier);
        Duration::from_micros(if us < 0 { 0 } else { us as u64 })
    }

    /// `self` moved by a signed number of microseconds.
    pub const fn offset(self, us: i64) -> Self {
        Self(self.0.saturating_add(us))
    }

    /// Seconds and 2^-32 fractions since 1900, as RTCP and RTP extensions carry them (RFC 3550 section 4).
    pub const fn to_ntp(self) -> u64 {
        let seconds = (self.0.div_euclid(1_000_000) + 2_208_988_800) as u64;
        let fraction = ((self.0.rem_euclid(1_000_000) as u64) << 32) / 1_000_000;
        (seconds << 32) | fraction
    }

    /// The inverse of [`Self::to_ntp`], for the era that began in 1900; times before 1970 become the epoch.
    pub const fn from_ntp(ntp: u64) -> Self {
        let seconds = (ntp >> 32) as i64 - 2_208_988_800;
        let us = ((ntp & 0xFFFF_FFFF) * 1_000_000 + (1 << 31)) >> 32;
        if seconds < 0 {
            Self::MIN
        } else {
            Self(seconds * 1_000_000 + us as i64)
        }
    }

    /// Year, month, day, hour, minute, second and microsecond in UTC (proleptic Gregorian).
    pub const fn civil(self) -> (i32, u8, u8, u8, u8, u8, u32) {
        let days = self.0.div_euclid(86_400_000_000);
        let rest = self.0.rem_euclid(86_400_000_000);
        // Days are counted from 0000-03-01, so that the leap day is the last day of a year.
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
        let s = rest / 1_000_000;
        (
            year as i32,
            month as u8,
            day as u8,
            (s / 3600) as u8,
            (s / 60 % 60) as u8,
            (s % 60) as u8,
            (rest % 1_000_000) as u32,
        )
    }

    /// From a UTC date and time of day. `None` if a field is out of its range.
    pub const fn from_civil(
        year: i32,
        month: u8,
        day: u8,
        hour: u8,
        minute: u8,
        second: u8,
        micro: u32,
    ) -> Option<Self> {
        if year < 1970
            || year > 9999
            || month < 1
            || month > 12
            || day < 1
            || hour > 23
            || minute > 59
            || second > 59
            || micro > 999_999
        {
            return None;
        }
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let month_len = match month {
            2 => 28 + leap as u8,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if day > month_len {
            return None;
        }
        let y = year as i64 - if month <= 2 { 1 } else { 0 };
        let era = y.div_euclid(400);
        let year_of_era = y.rem_euclid(400);
        let shifted_month = (month as i64 + 9) % 12;
        let day_of_year = (153 * shifted_month + 2) / 5 + day as i64 - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        let s = days * 86_400 + hour as i64 * 3600 + minute as i64 * 60 + second as i64;
        Some(Self(s * 1_000_000 + micro as i64))
    }

    /// Parses RFC 3339 (`2026-11-20T10:00:00.5+08:00`; a space for the `T` and a blank for the `+` of a URL are accepted) or
    /// the compact form of RTSP's clock range (`20261120T100000.5Z`, RFC 2326 section 3.7). Up to nine fraction digits, rounded down to microseconds.
    pub fn parse(text: &str) -> Result<Self, ParseTimeError> {
        parse(text.trim().as_bytes()).ok_or_else(|| ParseTimeError(text.chars().take(64).collect()))
    }

    /// `20261120T100000.123Z`, as RTSP's `clock=` ranges and ONVIF write it.
    pub fn to_clock(self) -> String {
        let (y, mo, d, h, mi, s, us) = self.civil();
        if us == 0 {
            format!("{y:04}{mo:02}{d:02}T{h:02}{mi:02}{s:02}Z")
        } else {
            let fraction = format!("{us:06}");
            format!(
                "{y:04}{mo:02}{d:02}T{h:02}{mi:02}{s:02}.{}Z",
                fraction.trim_end_matches('0')
            )
        }
    }
}

/// Takes `n` ASCII digits off the front.
fn digits(b: &mut &[u8], n: usize) -> Option<u32> {
    let (head, tail) = b.split_at_checked(n)?;
    let mut v = 0;
    for c in head {
        v = v * 10 + u32::from(c.is_ascii_digit().then(|| c - b'0')?);
    }
    *b = tail;
    Some(v)
}

/// Takes one byte of `any` off the front.
fn one_of(b: &mut &[u8], any: &[u8]) -> Option<u8> {
    let (&c, tail) = b.split_first()?;
    any.contains(&c).then(|| {
        *b = tail;
        c
    })
}

fn fraction_micros(b: &mut &[u8]) -> Option<u32> {
    if one_of(b, b".,").is_none() {
        return Some(0);
    }
    let n = b.iter().take_while(|c| c.is_ascii_digit()).count();
    if n == 0 || n > 9 {
        return None;
    }
    let v = digits(b, n)?;
    Some(if n <= 6 {
        v * 10u32.pow(6 - n as u32)
    } else {
        v / 10u32.pow(n as u32 - 6)
    })
}

fn parse(mut b: &[u8]) -> Option<WallTime> {
    let b = &mut b;
    let year = digits(b, 4)? as i32;
    let extended = one_of(b, b"-").is_some();
    let month = digits(b, 2)? as u8;
    if extended {
        one_of(b, b"-")?;
    }
    let day = digits(b, 2)? as u8;
    one_of(b, b"Tt ")?;
    let hour = digits(b, 2)? as u8;
    if extended {
        one_of(b, b":")?;
    }
    let minute = digits(b, 2)? as u8;
    if extended {
        one_of(b, b":")?;
    }
    let second = digits(b, 2)? as u8;
    let micro = fraction_micros(b)?;
    let offset_minutes = match one_of(b, b"Zz+- ")? {
        b'Z' | b'z' => 0,
        sign => {
            let h = i64::from(digits(b, 2)?);
            one_of(b, b":");
            let m = i64::from(digits(b, 2)?);
            if h > 23 || m > 59 {
                return None;
            }
            if sign == b'-' { -(h * 60 + m) } else { h * 60 + m }
        }
    };
    if !b.is_empty() {
        return None;
    }
    // A leap second is the last microsecond of the second before: time must not run backward after it.
    let (second, micro) = if second == 60 { (59, 999_999) } else { (second, micro) };
    WallTime::from_civil(year, month, day, hour, minute, second, micro).map(|t| t.offset(-offset_minutes * 60_000_000))
}

impl Add<Duration> for WallTime {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        self.offset(i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
    }
}

impl Sub<Duration> for WallTime {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        self.offset(-i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for WallTime {
    /// RFC 3339 in UTC with milliseconds: `2026-11-20T10:00:00.123Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (y, mo, d, h, mi, s, us) = self.civil();
        write!(f, "{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{:03}Z", us / 1000)
    }
}

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}+{}us", self.0.rem_euclid(1000))
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// From `start` (inclusive) to `end` (exclusive); `start <= end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeRange {
    /// The first moment.
    pub start: WallTime,
    /// The moment after the last.
    pub end: WallTime,
}

impl TimeRange {
    /// A range; `None` if `end` is before `start`.
    pub fn new(start: WallTime, end: WallTime) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// How long it is.
    pub const fn duration(self) -> Duration {
        self.end.saturating_since(self.start)
    }

    /// Whether `t` is inside.
    pub fn contains(self, t: WallTime) -> bool {
        self.start <= t && t < self.end
    }

    /// What both have in common; `None` if that is nothing.
    pub fn intersect(self, other: Self) -> Option<Self> {
        let r = Self {
            start: self.start.max(other.start),
            end: self.end.min(other.end),
        };
        (r.start < r.end).then_some(r)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_both_text_forms() {
        let t = WallTime::from_civil(2026, 11, 20, 10, 0, 0, 123_456).unwrap();
        assert_eq!(t.to_string(), "2026-11-20T10:00:00.123Z");
        assert_eq!(t.to_clock(), "20261120T100000.123456Z");
        for text in [
            "2026-11-20T10:00:00.123456Z",
            "20261120T100000.123456Z",
            "2026-11-20T18:00:00.123456789+08:00",
            "2026-11-20 05:30:00.123456-0430",
        ] {
            assert_eq!(WallTime::parse(text).unwrap(), t, "{text}");
        }
        assert_eq!(
            WallTime::parse("2026-11-20T18:00:00 08:00").unwrap(),
            WallTime::parse("20261120T100000Z").unwrap()
        );
        assert_eq!(
            WallTime::parse("20261120T100000Z").unwrap().to_clock(),
            "20261120T100000Z"
        );
    }

    #[test]
    fn refuses_what_is_not_a_time() {
        for text in [
            "",
            "now",
            "2026-11-20",
            "2026-11-20T10:00:00",
            "2026-13-20T10:00:00Z",
            "2026-02-29T10:00:00Z",
            "20261120T100000.Z",
            "20261120T100000.1234567890Z",
            "20261120T1000Z",
            "2026-11-20T10:00:00Zx",
            "2026-11-20T24:00:00Z",
            "1969-12-31T23:59:59Z",
        ] {
            assert!(WallTime::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn civil_time_round_trips_over_every_day() {
        for day in 0..366 * 200 {
            let t = WallTime::from_micros(day * 86_400_000_000 + 86_399_999_999);
            let (y, mo, d, h, mi, s, us) = t.civil();
            assert_eq!(WallTime::from_civil(y, mo, d, h, mi, s, us), Some(t));
        }
    }

    #[test]
    fn ntp_round_trips_to_the_microsecond() {
        for us in [0, 1, 999_999, 1_795_168_800_123_456, 2_000_000_000_000_001] {
            assert_eq!(WallTime::from_ntp(WallTime::from_micros(us).to_ntp()).as_micros(), us);
        }
        assert_eq!(WallTime::MIN.to_ntp() >> 32, 2_208_988_800);
    }
}
