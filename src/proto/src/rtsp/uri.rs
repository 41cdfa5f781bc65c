//! The request URI as a server reads it: path segments and query, whatever a client has done to them.

use std::fmt;

use super::url::percent_decode;
use crate::auth::hex;

/// The longest request URI, in bytes; a longer one is answered 414.
pub const URI_BYTES_MAX: usize = 4096;
/// The most path segments; more are refused.
pub const SEGMENTS_MAX: usize = 16;
/// The most query parameters; more are refused.
pub const QUERY_MAX: usize = 32;

/// A request URI cannot be served, whatever it names. The answer is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum UriError {
    #[error("the URI is not an rtsp URL")]
    Scheme,
    #[error("the path of the URI climbs or holds control characters")]
    Path,
    #[error("the percent-encoding of the URI is not UTF-8")]
    Encoding,
    #[error("the URI has more than {SEGMENTS_MAX} path segments or {QUERY_MAX} query parameters")]
    TooMany,
}

/// A request URI. Segments behind the query, where clients append a track to a URL that has one
/// (`rtsp://h/cam?start=x/track1`), count as part of the path.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestUri {
    /// `rtsp` or `rtsps`.
    scheme: &'static str,
    /// Host and port as sent, without a user part; empty if the URI is a path only.
    authority: String,
    segments: Vec<String>,
    query: Vec<(String, String)>,
    /// The path as sent, without slashes at its ends.
    raw_path: String,
    /// The query as sent, without what was appended to it.
    raw_query: Option<String>,
}

impl RequestUri {
    /// Reads a URI. Empty segments vanish (slashes at the end, doubled slashes); `.` and `..`, plain or encoded, are
    /// refused. In the query `+` stays `+`: it is part of a time zone.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let (scheme, authority, rest) = split(text)?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let (query, appended) = match query.map(|q| q.split_once('/').unwrap_or((q, ""))) {
            Some((query, appended)) => (Some(query), appended),
            None => (None, ""),
        };
        let mut raw_path = path.trim_matches('/').to_owned();
        let appended = appended.trim_matches('/');
        if !appended.is_empty() {
            if !raw_path.is_empty() {
                raw_path.push('/');
            }
            raw_path.push_str(appended);
        }
        let mut segments = Vec::new();
        for raw in raw_path.split('/').filter(|s| !s.is_empty()) {
            let segment = percent_decode(raw).ok_or(UriError::Encoding)?;
            let climbs = segment == "." || segment == "..";
            if climbs || segment.contains(['/', '\\']) || segment.chars().any(char::is_control) {
                return Err(UriError::Path);
            }
            segments.push(segment);
        }
        let mut query_pairs = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |s: &str| percent_decode(s).ok_or(UriError::Encoding);
            query_pairs.push((decode(key)?, decode(value)?));
        }
        if segments.len() > SEGMENTS_MAX || query_pairs.len() > QUERY_MAX {
            return Err(UriError::TooMany);
        }
        Ok(Self {
            scheme,
            authority: authority.to_owned(),
            segments,
            query: query_pairs,
            raw_path: tidy(&raw_path),
            raw_query: query.filter(|q| !q.is_empty()).map(tidy),
        })
    }

    /// The same with `rtsps` in front, whatever the client wrote: some write `rtsp` into requests that travel encrypted.
    pub fn secured(&self) -> Self {
        Self {
            scheme: "rtsps",
            ..self.clone()
        }
    }

    /// Host and port as the client wrote them; empty if the URI is a path only.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The decoded path, none of it empty.
    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    /// The decoded query in order.
    pub fn query(&self) -> &[(String, String)] {
        &self.query
    }

    /// The first query parameter of that name, without regard to case.
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(k, _)| k.eq_ignore_ascii_case(key))
            .map(|(_, v)| v.as_str())
    }

    /// The URL without its last `n` segments and with `segment` (if any) behind the rest, the query last: the control
    /// URL of a track. Percent-encoding stays as the client sent it, with what would end an SDP line or an RTP-Info
    /// entry encoded as well.
    pub fn with_segment(&self, n: usize, segment: Option<&str>) -> String {
        let kept: Vec<&str> = self.raw_path.split('/').filter(|s| !s.is_empty()).collect();
        let kept = &kept[..kept.len().saturating_sub(n)];
        let mut url = format!("{}://{}", self.scheme, self.authority);
        for part in kept.iter().copied().chain(segment) {
            url.push('/');
            url.push_str(part);
        }
        if let Some(query) = &self.raw_query {
            url.push('?');
            url.push_str(query);
        }
        url
    }
}

/// Encodes what may not stand bare in an SDP line or an RTP-Info entry, so that a URL is the same in both: players
/// compare them.
fn tidy(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for b in raw.bytes() {
        if b.is_ascii_graphic() && !matches!(b, b',' | b';' | b'"' | b'?') {
            out.push(char::from(b));
        } else {
            out.extend(["%", &hex(&[b]).to_ascii_uppercase()]);
        }
    }
    out
}

/// Scheme, authority without its user part, and the rest.
fn split(text: &str) -> Result<(&'static str, &str, &str), UriError> {
    if text.starts_with('/') {
        return Ok(("rtsp", "", text));
    }
    let (scheme, rest) = text.split_once("://").ok_or(UriError::Scheme)?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "rtsp" | "rtspt" | "rtspu" => "rtsp",
        "rtsps" => "rtsps",
        _ => return Err(UriError::Scheme),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let authority = rest[..end].rsplit('@').next().unwrap_or_default();
    Ok((scheme, authority, &rest[end..]))
}

impl fmt::Display for RequestUri {
    /// Canonical: no user part, no doubled slashes, the query last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_segment(0, None))
    }
}

impl fmt::Debug for RequestUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(text: &str) -> Vec<String> {
        RequestUri::parse(text).unwrap().segments
    }

    #[test]
    fn path_and_query() {
        let u =
            RequestUri::parse("rtsp://h:8554/cam%20one/track1?start=2026-11-20T10:00:00+08:00&end=a%2Bb&flag&&x=1=2")
                .unwrap();
        assert_eq!(u.segments(), ["cam one", "track1"]);
        assert_eq!(u.authority(), "h:8554");
        assert_eq!(u.parameter("START"), Some("2026-11-20T10:00:00+08:00"));
        assert_eq!(u.parameter("end"), Some("a+b"));
        assert_eq!(u.parameter("flag"), Some(""));
        assert_eq!(u.parameter("x"), Some("1=2"));
        assert_eq!(u.parameter("y"), None);
    }

    #[test]
    fn a_track_behind_the_query_belongs_to_the_path() {
        let u = RequestUri::parse("rtsp://h/cam?start=x/track1/").unwrap();
        assert_eq!(u.segments(), ["cam", "track1"]);
        assert_eq!(u.parameter("start"), Some("x"));
        assert_eq!(u.to_string(), "rtsp://h/cam/track1?start=x");
        assert_eq!(RequestUri::parse("rtsp://h/cam?start=x/").unwrap().segments(), ["cam"]);
        assert_eq!(
            RequestUri::parse("rtsp://h/?start=x/t").unwrap().to_string(),
            "rtsp://h/t?start=x"
        );
        let odd = RequestUri::parse("rtsp://h/cam?start=x/a?b").unwrap();
        assert_eq!(odd.to_string(), "rtsp://h/cam/a%3Fb?start=x");
    }

    #[test]
    fn slashes_at_the_end_and_doubled_ones_do_not_matter() {
        assert_eq!(segments("rtsp://h//cam//"), ["cam"]);
        assert_eq!(segments("rtsp://h/cam/?a=b"), ["cam"]);
        assert_eq!(segments("/cam/track1"), ["cam", "track1"]);
        assert_eq!(segments("rtsp://user:pa@ss@h/cam"), ["cam"]);
        assert_eq!(
            RequestUri::parse("RTSPS://u:p@h/cam").unwrap().to_string(),
            "rtsps://h/cam"
        );
        assert_eq!(
            RequestUri::parse("rtsp://h/cam?a=b").unwrap().secured().to_string(),
            "rtsps://h/cam?a=b"
        );
        assert!(segments("rtsp://h").is_empty());
    }

    #[test]
    fn control_urls() {
        let u = RequestUri::parse("rtsp://h:8554/cam?start=2026-11-20T10:00:00%2B08:00").unwrap();
        assert_eq!(
            u.with_segment(0, Some("track1")),
            "rtsp://h:8554/cam/track1?start=2026-11-20T10:00:00%2B08:00"
        );
        let track = RequestUri::parse(&u.with_segment(0, Some("track1"))).unwrap();
        assert_eq!(track.with_segment(1, None), u.to_string());
        assert_eq!(
            track.with_segment(9, None),
            "rtsp://h:8554?start=2026-11-20T10:00:00%2B08:00"
        );
    }

    /// A bare comma in an RTP-Info URL stops VLC's clock.
    #[test]
    fn control_urls_hold_no_separators() {
        let u = RequestUri::parse("rtsp://h/c d/é?a=1,2;3").unwrap();
        assert_eq!(
            u.with_segment(0, Some("track1")),
            "rtsp://h/c%20d/%C3%A9/track1?a=1%2C2%3B3"
        );
        assert_eq!(u.parameter("a"), Some("1,2;3"));
        let again = RequestUri::parse(&u.to_string()).unwrap();
        assert_eq!((again.segments(), again.query()), (u.segments(), u.query()));
    }

    #[test]
    fn climbing_and_control_characters_are_refused() {
        for text in [
            "rtsp://h/../etc",
            "rtsp://h/a/%2e%2E/b",
            "rtsp://h/a/./b",
            "rtsp://h/a%2Fb",
            "rtsp://h/a%5Cb",
            "rtsp://h/a%00",
            "rtsp://h/cam?x=1/../..",
        ] {
            assert_eq!(RequestUri::parse(text), Err(UriError::Path), "{text}");
        }
        for text in ["", "*", "http://h/x", "cam"] {
            assert_eq!(RequestUri::parse(text), Err(UriError::Scheme), "{text}");
        }
        for text in ["/cam%a0", "/cam?a=%ff"] {
            assert_eq!(RequestUri::parse(text), Err(UriError::Encoding), "{text}");
        }
        assert_eq!(RequestUri::parse(&"/a".repeat(17)), Err(UriError::TooMany));
        assert_eq!(
            RequestUri::parse(&format!("/a?{}", "b&".repeat(40))),
            Err(UriError::TooMany)
        );
    }
}
