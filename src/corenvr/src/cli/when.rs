//! Times as people type them: RFC 3339, local time, relative to now.

use corenvr_media::{TimeRange, WallTime};
use jiff::{civil::DateTime, tz::TimeZone};

use crate::config::values::duration;

/// A text is not a time, or a range is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhenError {
    /// Not a time.
    #[error(
        "{0:?} is not a time: use 2026-11-20T10:00:00Z, '2026-11-20 10:00:00' for local time, -15m for a while ago, or now"
    )]
    NotATime(String),
    /// The end is not after the start.
    #[error("--to ({to}) is not after --from ({from})")]
    Backward {
        /// Where it starts.
        from: WallTime,
        /// Where it ends.
        to: WallTime,
    },
}

/// Reads a time; `now` and `zone` are the caller's.
pub fn parse(text: &str, now: WallTime, zone: &TimeZone) -> Result<WallTime, WhenError> {
    let text = text.trim();
    let wrong = || WhenError::NotATime(text.to_owned());
    if text == "now" {
        return Ok(now);
    }
    if let Some(ago) = text.strip_prefix('-') {
        return duration(ago).map(|d| now - d).map_err(|_| wrong());
    }
    if let Ok(time) = WallTime::parse(text) {
        return Ok(time);
    }
    local(text, zone).ok_or_else(wrong)
}

fn local(text: &str, zone: &TimeZone) -> Option<WallTime> {
    let civil: DateTime = text.parse().ok()?;
    // In the hour that autumn repeats, the first of both is meant; in the one that spring leaves out, the moment after it.
    let zoned = zone.to_ambiguous_zoned(civil).compatible().ok()?;
    Some(WallTime::from_micros(zoned.timestamp().as_microsecond()))
}

/// Reads the two ends of a range.
pub fn range(from: &str, to: &str, now: WallTime, zone: &TimeZone) -> Result<TimeRange, WhenError> {
    let (from, to) = (parse(from, now, zone)?, parse(to, now, zone)?);
    if from >= to {
        return Err(WhenError::Backward { from, to });
    }
    Ok(TimeRange { start: from, end: to })
}

/// The time now.
pub fn now() -> WallTime {
    WallTime::from_system(std::time::SystemTime::now())
}

/// A time for people: local, with the offset, to the second.
pub fn show(time: WallTime, zone: &TimeZone) -> String {
    jiff::Timestamp::from_microsecond(time.as_micros()).map_or_else(
        |_| time.to_string(),
        |t| t.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> WallTime {
        WallTime::parse(text).unwrap()
    }

    #[test]
    fn every_form_of_a_time() {
        let now = utc("2026-11-20T12:00:00Z");
        let zone = TimeZone::posix("CST-8").unwrap();
        for (text, expected) in [
            ("2026-11-20T10:00:00Z", "2026-11-20T10:00:00Z"),
            ("2026-11-20T18:00:00+08:00", "2026-11-20T10:00:00Z"),
            ("20261120T100000Z", "2026-11-20T10:00:00Z"),
            ("2026-11-20 18:00:00", "2026-11-20T10:00:00Z"),
            ("2026-11-20T18:00:00", "2026-11-20T10:00:00Z"),
            ("2026-11-20 18:00", "2026-11-20T10:00:00Z"),
            ("2026-11-20", "2026-11-19T16:00:00Z"),
            ("-15m", "2026-11-20T11:45:00Z"),
            ("-1h30m", "2026-11-20T10:30:00Z"),
            ("now", "2026-11-20T12:00:00Z"),
        ] {
            assert_eq!(parse(text, now, &zone), Ok(utc(expected)), "{text}");
        }
        for text in ["", "yesterday", "15m", "-", "-15", "2026-13-01", "10:00"] {
            assert!(parse(text, now, &zone).is_err(), "{text}");
        }
    }

    #[test]
    fn the_clock_change_has_an_answer_on_both_sides() {
        let now = utc("2026-11-20T12:00:00Z");
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        // Left out in spring, twice in autumn.
        assert_eq!(
            parse("2026-03-29 02:30:00", now, &zone),
            Ok(utc("2026-03-29T01:30:00Z"))
        );
        assert_eq!(
            parse("2026-10-25 02:30:00", now, &zone),
            Ok(utc("2026-10-25T00:30:00Z"))
        );
        assert_eq!(show(utc("2026-10-25T00:30:00Z"), &zone), "2026-10-25 02:30:00+02:00");
    }

    #[test]
    fn a_range_runs_forward() {
        let now = utc("2026-11-20T12:00:00Z");
        assert_eq!(
            range("-15m", "now", now, &TimeZone::UTC).unwrap().duration().as_secs(),
            900
        );
        assert!(matches!(
            range("now", "-1s", now, &TimeZone::UTC),
            Err(WhenError::Backward { .. })
        ));
    }
}
