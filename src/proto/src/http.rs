//! What of HTTP's headers is read here rather than by the HTTP library: byte ranges and entity tags (RFC 9110 sections 8.8, 13 and 14).

use std::ops::Range;

/// Which bytes of a representation are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All: there is no range, or none that is understood (section 14.2 says to ignore those), or more than one.
    Whole,
    /// 206: this part; never empty.
    Part(Range<u64>),
    /// 416: nothing of what is asked for is there.
    Nothing,
}

/// Reads a `Range` header for a representation of `len` bytes.
///
/// Several ranges in one request are answered with the whole, which section 14.2 allows: they are what clients of documents ask for,
/// and a way to make a server work.
pub fn range(header: &str, len: u64) -> Wanted {
    let Some((first, last)) = single(header) else {
        return Wanted::Whole;
    };
    let part = match (first, last) {
        (Some(first), Some(last)) if last < first => return Wanted::Whole,
        (Some(first), last) => first..last.map_or(len, |l| l.saturating_add(1)).min(len),
        (None, Some(suffix)) => len.saturating_sub(suffix)..len,
        (None, None) => return Wanted::Whole,
    };
    if part.is_empty() {
        Wanted::Nothing
    } else {
        Wanted::Part(part)
    }
}

/// Whether a `Range` header asks for something behind the first byte: the rest of what was begun before.
pub fn goes_on(header: &str) -> bool {
    single(header).is_some_and(|(first, _)| first != Some(0))
}

/// First and last position of the only range, as they are written.
fn single(header: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, set) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim_matches([' ', '\t']).split_once('-')?;
    Some((position(first).ok()?, position(last).ok()?))
}

/// What is written where a position may not be.
struct NotAPosition;

/// A number; `None` if there is none. One that is too large is as good as the largest.
fn position(text: &str) -> Result<Option<u64>, NotAPosition> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let number = digits.then(|| Some(text.parse().unwrap_or(u64::MAX)));
    number.ok_or(NotAPosition)
}

/// Whether `If-None-Match` names this entity tag, compared weakly (section 13.1.2). `etag` is strong and with its quotes.
pub fn none_match(header: &str, etag: &str) -> bool {
    let mut rest = header.trim_matches([' ', '\t', ',']);
    if rest == "*" {
        return true;
    }
    // Tags may hold commas, so the list is read quote by quote.
    while let Some((before, tail)) = rest.split_once('"') {
        let Some((tag, after)) = tail.split_once('"') else {
            return false;
        };
        let before = before.trim_matches([' ', '\t', ',']);
        if (before.is_empty() || before == "W/") && etag.trim_matches('"') == tag {
            return true;
        }
        rest = after;
    }
    false
}

/// Whether `If-Range` lets a part be served: it names this entity tag, compared strongly (section 13.1.5). A date never does.
pub fn if_range(header: &str, etag: &str) -> bool {
    header.trim_matches([' ', '\t']) == etag
}

/// Entry points for fuzzers.
#[doc(hidden)]
pub mod fuzzing {
    use super::{Wanted, goes_on, if_range, none_match, range};

    /// Headers of a request for a part.
    pub fn headers(data: &[u8]) {
        let Ok(text) = std::str::from_utf8(data) else { return };
        for len in [0, 1, 1000, u64::MAX] {
            if let Wanted::Part(part) = range(text, len) {
                assert!(part.start < part.end && part.end <= len);
                assert!(part.start == 0 || goes_on(text));
            }
        }
        let etag = "\"0123456789abcdef\"";
        if if_range(text, etag) {
            assert!(none_match(text, etag));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_in_each_of_its_forms() {
        for (header, expected) in [
            ("bytes=0-499", Wanted::Part(0..500)),
            ("bytes=500-", Wanted::Part(500..1000)),
            ("bytes=-500", Wanted::Part(500..1000)),
            ("bytes=-5000", Wanted::Part(0..1000)),
            ("bytes=999-5000", Wanted::Part(999..1000)),
            ("Bytes = 0-0", Wanted::Part(0..1)),
            ("bytes=0-99999999999999999999999", Wanted::Part(0..1000)),
            ("bytes=1000-", Wanted::Nothing),
            ("bytes=99999999999999999999999-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=5-4", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=1", Wanted::Whole),
            ("seconds=1-2", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(range(header, 1000), expected, "{header}");
        }
        assert_eq!(range("bytes=0-", 0), Wanted::Nothing);
        assert_eq!(range("bytes=-1", 0), Wanted::Nothing);
    }

    #[test]
    fn going_on_is_told_from_beginning() {
        assert!(goes_on("bytes=1-") && goes_on("bytes=-5") && goes_on("bytes=4-9"));
        assert!(!goes_on("bytes=0-") && !goes_on("bytes=0-4") && !goes_on("bytes=1-2,3-4") && !goes_on("lines=1-"));
    }

    #[test]
    fn tags_are_compared_as_each_header_wants() {
        let etag = "\"abc\"";
        for header in ["\"abc\"", "W/\"abc\"", "\"x,y\", \"abc\"", "*", "\"x\",W/\"abc\" "] {
            assert!(none_match(header, etag), "{header}");
        }
        for header in ["", "abc", "\"abcd\"", "\"abc", "\"x\" y \"", "\"x, \"y\""] {
            assert!(!none_match(header, etag), "{header}");
        }
        assert!(if_range(" \"abc\"", etag));
        assert!(!if_range("W/\"abc\"", etag) && !if_range("Sat, 21 Nov 2026 10:00:00 GMT", etag));
    }
}
