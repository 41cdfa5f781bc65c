//! Text in a fixed buffer: the only way to format that neither allocates nor locks.

use std::fmt;

/// Bytes of a report's first line. What does not fit is cut; the fields come in order of weight.
pub(super) const LINE_BYTES_MAX: usize = 1024;

/// A text that grows up to its limit.
pub(super) struct Line {
    bytes: [u8; LINE_BYTES_MAX],
    len: usize,
}

impl Line {
    pub const fn new() -> Self {
        Self {
            bytes: [0; LINE_BYTES_MAX],
            len: 0,
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Room for the line break is always left.
    pub fn end(&mut self) {
        self.len = self.len.min(LINE_BYTES_MAX - 1);
        self.bytes[self.len] = b'\n';
        self.len += 1;
    }

    /// Names come from cameras and administrators: what is not printable is shown as `?`.
    pub fn text(&mut self, text: &str) -> &mut Self {
        for &b in text.as_bytes() {
            if self.len >= LINE_BYTES_MAX - 1 {
                break;
            }
            self.bytes[self.len] = if b < 0x20 || b == 0x7f { b'?' } else { b };
            self.len += 1;
        }
        self
    }

    /// ` key="value"`, if there is a value.
    pub fn field(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.text(" ").text(key).text("=\"").text(value).text("\"");
        }
        self
    }

    pub fn decimal(&mut self, value: u64) -> &mut Self {
        self.digits(value, 10, 1)
    }

    pub fn hex(&mut self, value: u64) -> &mut Self {
        self.text("0x").digits(value, 16, 1)
    }

    /// At least `width` digits.
    fn digits(&mut self, mut value: u64, base: u64, width: usize) -> &mut Self {
        let mut digits = [b'0'; 20];
        let mut first = digits.len();
        while value > 0 || digits.len() - first < width {
            first -= 1;
            digits[first] = b"0123456789abcdef"[(value % base) as usize];
            value /= base;
        }
        for &d in &digits[first..] {
            if self.len < LINE_BYTES_MAX - 1 {
                self.bytes[self.len] = d;
                self.len += 1;
            }
        }
        self
    }

    /// Seconds since 1970 as `2026-11-20T10:00:00Z`.
    pub fn utc(&mut self, seconds: u64) -> &mut Self {
        // Days to a date, with years that begin in March so that the leap day is the last one of a year.
        let days = seconds / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        self.digits(year, 10, 4)
            .text("-")
            .digits(month, 10, 2)
            .text("-")
            .digits(day, 10, 2);
        let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
        self.text("T").digits(hour, 10, 2).text(":").digits(minute, 10, 2);
        self.text(":").digits(seconds % 60, 10, 2).text("Z")
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.text(s);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(make: impl FnOnce(&mut Line) -> &mut Line) -> String {
        let mut line = Line::new();
        make(&mut line);
        String::from_utf8(line.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn numbers_names_and_times_are_written_without_the_library() {
        assert_eq!(
            shown(|l| l.decimal(0).text(" ").decimal(u64::MAX)),
            "0 18446744073709551615"
        );
        assert_eq!(shown(|l| l.hex(0xdead_beef)), "0xdeadbeef");
        assert_eq!(
            shown(|l| l.field("camera", Some("a\nb")).field("task", None)),
            " camera=\"a?b\""
        );
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_795_168_800, "2026-11-20T10:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(shown(|l| l.utc(seconds)), text);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_still_ends() {
        let text = shown(|l| {
            l.text(&"x".repeat(5000)).decimal(5);
            l.end();
            l
        });
        assert_eq!(text.len(), LINE_BYTES_MAX);
        assert!(text.ends_with("x\n"));
    }
}
