//! Durations, sizes and other values as people write them in the configuration and on the command line.

use std::{fmt::Write as _, time::Duration};

/// What is wrong with a value, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// A problem with its remedy.
    pub fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// A limit that need not be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit<T> {
    /// None.
    Unlimited,
    /// This.
    At(T),
}

impl<T> Limit<T> {
    /// The limit, if it is one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Unlimited => None,
            Self::At(value) => Some(value),
        }
    }

    /// As it is written.
    pub fn show(self, show: impl FnOnce(T) -> String) -> String {
        self.value().map_or_else(|| UNLIMITED.to_owned(), show)
    }
}

/// The word for "no limit".
pub const UNLIMITED: &str = "unlimited";

const DURATION_UNITS: [(&str, u64); 7] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

const SIZE_UNITS: [(&str, u64); 10] = [
    ("B", 1),
    ("kB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
];

/// Reads `5m`, `2s`, `1h30m`, `250ms`, `30d`.
pub fn duration(text: &str) -> Result<Duration, Problem> {
    let problem = || {
        Problem::new(
            format!("{text:?} is not a duration"),
            "write numbers with units: ms, s, m, h, d or w, such as \"2s\", \"5m\", \"1h30m\", \"30d\"",
        )
    };
    let mut rest = text.trim();
    let mut total_ms = 0u64;
    if rest.is_empty() {
        return Err(problem());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| problem())?;
        rest = rest[digits..].trim_start();
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (_, factor) = DURATION_UNITS
            .iter()
            .find(|(unit, _)| *unit == &rest[..letters])
            .ok_or_else(problem)?;
        total_ms = number
            .checked_mul(*factor)
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or_else(problem)?;
        rest = rest[letters..].trim_start();
    }
    Ok(Duration::from_millis(total_ms))
}

/// Reads `10GiB`, `1.5TiB`, `500 GB`, `0B`.
pub fn size(text: &str) -> Result<u64, Problem> {
    let problem = || {
        Problem::new(
            format!("{text:?} is not a size"),
            "write a number with a unit: B, kB, KiB, MB, MiB, GB, GiB, TB or TiB, such as \"10GiB\"",
        )
    };
    let text = text.trim();
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = (&text[..digits], text[digits..].trim());
    let (_, factor) = SIZE_UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .ok_or_else(problem)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 6 || number.ends_with('.') {
        return Err(problem());
    }
    let whole: u64 = whole.parse().map_err(|_| problem())?;
    let thousandths: u64 = format!("{fraction:0<6}").parse().map_err(|_| problem())?;
    whole
        .checked_mul(*factor)
        .and_then(|bytes| bytes.checked_add((u128::from(thousandths) * u128::from(*factor) / 1_000_000) as u64))
        .ok_or_else(problem)
}

/// What `limit` reads, or `unlimited`.
pub fn or_unlimited<T>(text: &str, limit: impl FnOnce(&str) -> Result<T, Problem>) -> Result<Limit<T>, Problem> {
    if text.trim() == UNLIMITED {
        return Ok(Limit::Unlimited);
    }
    limit(text).map(Limit::At).map_err(|p| Problem {
        remedy: format!("{}, or \"{UNLIMITED}\"", p.remedy),
        ..p
    })
}

/// A duration in the largest units that say it exactly: `5m`, `1h30m`, `30d`.
pub fn show_duration(d: Duration) -> String {
    let mut ms = d.as_millis() as u64;
    let mut out = String::new();
    for (unit, factor) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ] {
        if ms >= factor {
            let _ = write!(out, "{}{unit}", ms / factor);
            ms %= factor;
        }
    }
    if out.is_empty() { "0s".into() } else { out }
}

/// A size that [`size`] reads back to the same number: `10GiB`, `1500MB`, `17B`.
pub fn show_size_exact(bytes: u64) -> String {
    let fits = SIZE_UNITS
        .iter()
        .rev()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    let (unit, factor) = fits.unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

/// A size for people, rounded: `1.4 GiB`.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else if value < 10.0 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

/// Keeps a value within `min..=max`; `show` words the limits.
pub fn within<T: PartialOrd + Copy>(value: T, min: T, max: T, show: impl Fn(T) -> String) -> Result<T, Problem> {
    if value < min || value > max {
        return Err(Problem::new(
            format!("{} is out of range", show(value)),
            format!("use a value from {} to {}", show(min), show(max)),
        ));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, ms) in [
            ("2s", 2000),
            ("250ms", 250),
            ("5m", 300_000),
            ("5min", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("30d", 2_592_000_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "5",
            "m",
            "5 parsecs",
            "-5m",
            "1.5h",
            "5m3",
            "99999999999999999999d",
            "9999999999999w",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("10GiB", 10 << 30),
            ("10 gib", 10 << 30),
            ("1.5TiB", 3 << 39),
            ("500GB", 500_000_000_000),
            ("0B", 0),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "10",
            "GiB",
            "1.GiB",
            ".5GiB",
            "1.2.3GiB",
            "-1GiB",
            "10 bananas",
            "99999999999PiB",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn unlimited_is_a_word_of_its_own_and_named_in_the_remedy() {
        assert_eq!(or_unlimited("unlimited", size), Ok(Limit::Unlimited));
        assert_eq!(or_unlimited("1B", size), Ok(Limit::At(1)));
        assert!(or_unlimited("x", size).unwrap_err().remedy.contains("unlimited"));
    }

    #[test]
    fn shown_values_read_back_the_same() {
        for ms in [0, 1, 999, 60_000, 5_400_000, 90_061_001, 2_592_000_000] {
            let d = Duration::from_millis(ms);
            assert_eq!(duration(&show_duration(d)), Ok(d));
        }
        for bytes in [0, 1, 1000, 1024, 10 << 30, 1_500_000_000, u64::MAX] {
            assert_eq!(size(&show_size_exact(bytes)), Ok(bytes));
        }
        assert_eq!(show_size(1_503_238_553), "1.4 GiB");
        assert_eq!(show_size(512), "512 B");
    }
}
