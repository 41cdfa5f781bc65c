//! MANSRTSP: the control of playback, as bodies of SIP INFO and of the answers to it (GB/T 28181-2022 annex B).
//!
//! It looks like RTSP but has neither URI nor session; what it says of ranges and rates is the same.

use std::fmt;

use crate::rtsp::{Range, Rate, StatusCode};

/// The media type of these bodies; compared without regard to case.
pub const CONTENT_TYPE: &str = "Application/MANSRTSP";
/// The longest body that is read, in bytes; a longer one is refused.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// The fastest rate that is read, either way; the fastest that any device is known to offer is 32. A faster one is refused.
pub const SCALE_MAX: f64 = 1024.0;

/// What a recording's playback shall do.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Counts the requests of a session, from 1.
    pub cseq: u32,
    /// What to do.
    pub action: Action,
}

/// See [`Request`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    /// Stop where it is; no RTP comes until the next [`Play`](Self::Play).
    Pause,
    /// Go on.
    Play {
        /// From where, in seconds from the start of the INVITE's `t=`, or from where it is (`npt=now-`); `None` where only
        /// the speed changes.
        range: Option<Range>,
        /// How fast; negative in reverse. Devices know 0.25, 0.5, 1, 2 and 4 at least, and -1.
        scale: Option<Rate>,
    },
    /// End the session.
    Teardown,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// 200, or why not.
    pub status: StatusCode,
    /// That of the request; `None` where a device leaves it out.
    pub cseq: Option<u32>,
    /// What is played now.
    pub range: Option<Range>,
    /// Sequence number of the first packet from there.
    pub seq: Option<u16>,
    /// RTP time of the first packet from there.
    pub rtptime: Option<u32>,
}

/// A body is no MANSRTSP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum MansrtspError {
    #[error("the MANSRTSP body is longer than {BODY_BYTES_MAX} bytes")]
    TooLong,
    #[error("the MANSRTSP body does not begin with a request or status line")]
    FirstLine,
    #[error("the MANSRTSP method {0:?} is not known")]
    Method(String),
    #[error("the {0} of the MANSRTSP body cannot be read")]
    Header(&'static str),
}

/// A body, cut into its first line and headers.
struct Lines<'a> {
    first: &'a str,
    rest: &'a str,
}

impl<'a> Lines<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, MansrtspError> {
        if bytes.len() > BODY_BYTES_MAX {
            return Err(MansrtspError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| MansrtspError::FirstLine)?;
        let text = text.trim_start();
        let (first, rest) = text.split_once(['\r', '\n']).unwrap_or((text, ""));
        Ok(Self {
            first: first.trim(),
            rest,
        })
    }

    /// The value of the first header of that name.
    fn header(&self, name: &str) -> Option<&'a str> {
        self.rest.split(['\r', '\n']).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn cseq(&self) -> Option<u32> {
        self.header("CSeq")?.parse().ok()
    }

    /// The Range; an unreadable one is an error, since playing from elsewhere would be.
    fn range(&self) -> Result<Option<Range>, MansrtspError> {
        let range = self.header("Range").map(Range::parse).transpose();
        range.map_err(|_| MansrtspError::Header("Range"))
    }
}

/// Whether a word names the protocol: `RTSP/1.0`, and `MANSRTSP/1.0` of some.
fn is_version(word: &str) -> bool {
    let name = word.split('/').next().unwrap_or_default();
    name.eq_ignore_ascii_case("RTSP") || name.eq_ignore_ascii_case("MANSRTSP")
}

/// A rate in thousandths.
fn scale(value: &str) -> Option<Rate> {
    let factor = (Rate::parse(value)?.get() * 1000.0).round() / 1000.0;
    Rate::new(factor).filter(|r| r.get().abs() <= SCALE_MAX)
}

impl Request {
    /// Reads a request, also one that has a URI. A missing `CSeq` counts as 0.
    pub fn parse(bytes: &[u8]) -> Result<Self, MansrtspError> {
        let lines = Lines::new(bytes)?;
        let mut words = lines.first.split_whitespace();
        let method = words.next().unwrap_or_default();
        if is_version(method) || !words.any(is_version) {
            return Err(MansrtspError::FirstLine);
        }
        let action = match method.to_ascii_uppercase().as_str() {
            "PAUSE" => Action::Pause,
            "TEARDOWN" => Action::Teardown,
            "PLAY" => {
                let scale = lines
                    .header("Scale")
                    .map(|s| scale(s).ok_or(MansrtspError::Header("Scale")));
                Action::Play {
                    range: lines.range()?,
                    scale: scale.transpose()?,
                }
            }
            _ => return Err(MansrtspError::Method(method.chars().take(32).collect())),
        };
        Ok(Self {
            cseq: lines.cseq().unwrap_or(0),
            action,
        })
    }
}

impl fmt::Display for Request {
    /// The body, with CRLF line ends.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.action {
            Action::Pause => "PAUSE",
            Action::Play { .. } => "PLAY",
            Action::Teardown => "TEARDOWN",
        };
        write!(f, "{method} RTSP/1.0\r\nCSeq: {}\r\n", self.cseq)?;
        match self.action {
            Action::Pause => f.write_str("PauseTime: now\r\n")?,
            Action::Play { range, scale } => {
                if let Some(scale) = scale {
                    write!(f, "Scale: {scale}\r\n")?;
                }
                if let Some(range) = range {
                    write!(f, "Range: {range}\r\n")?;
                }
            }
            Action::Teardown => {}
        }
        f.write_str("\r\n")
    }
}

impl Response {
    /// Reads an answer. What cannot be read of its headers is left out: the status alone decides.
    pub fn parse(bytes: &[u8]) -> Result<Self, MansrtspError> {
        let lines = Lines::new(bytes)?;
        let mut words = lines.first.split_whitespace();
        if !words.next().is_some_and(is_version) {
            return Err(MansrtspError::FirstLine);
        }
        let status = words.next().and_then(|w| StatusCode::new(w.parse().ok()?));
        let info = lines.header("RTP-Info").unwrap_or_default();
        let field = |name: &str| {
            info.split([';', ',']).find_map(|part| {
                let (key, value) = part.split_once('=')?;
                key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        Ok(Self {
            status: status.ok_or(MansrtspError::FirstLine)?,
            cseq: lines.cseq(),
            range: lines.range().ok().flatten(),
            seq: field("seq").and_then(|v| v.parse().ok()),
            rtptime: field("rtptime").and_then(|v| v.parse().ok()),
        })
    }
}

impl fmt::Display for Response {
    /// The body, with CRLF line ends.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RTSP/1.0 {}\r\n", self.status)?;
        if let Some(cseq) = self.cseq {
            write!(f, "CSeq: {cseq}\r\n")?;
        }
        if let Some(range) = self.range {
            write!(f, "Range: {range}\r\n")?;
        }
        if self.seq.is_some() || self.rtptime.is_some() {
            let seq = self.seq.map(|seq| format!("seq={seq}"));
            let rtptime = self.rtptime.map(|rtptime| format!("rtptime={rtptime}"));
            let fields: Vec<_> = seq.into_iter().chain(rtptime).collect();
            write!(f, "RTP-Info: {}\r\n", fields.join(";"))?;
        }
        f.write_str("\r\n")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rtsp::{NptRange, NptTime};

    fn request(action: Action) -> Request {
        Request { cseq: 3, action }
    }

    fn now() -> Range {
        Range::Npt(NptRange {
            start: Some(NptTime::Now),
            end: None,
        })
    }

    #[test]
    fn requests_are_written_as_devices_know_them() {
        let play = |range, scale| request(Action::Play { range, scale }).to_string();
        assert_eq!(
            request(Action::Pause).to_string(),
            "PAUSE RTSP/1.0\r\nCSeq: 3\r\nPauseTime: now\r\n\r\n"
        );
        assert_eq!(
            request(Action::Teardown).to_string(),
            "TEARDOWN RTSP/1.0\r\nCSeq: 3\r\n\r\n"
        );
        assert_eq!(
            play(Some(now()), None),
            "PLAY RTSP/1.0\r\nCSeq: 3\r\nRange: npt=now-\r\n\r\n"
        );
        assert_eq!(
            play(None, Rate::new(2.0)),
            "PLAY RTSP/1.0\r\nCSeq: 3\r\nScale: 2.0\r\n\r\n"
        );
        let seek = play(Some(Range::npt_from(Duration::from_secs(100))), None);
        let value = seek.split("Range: npt=").nth(1).unwrap();
        assert!(value.starts_with("100"), "{seek}");
    }

    #[test]
    fn requests_read_as_written() {
        for action in [
            Action::Pause,
            Action::Teardown,
            Action::Play {
                range: Some(now()),
                scale: None,
            },
            Action::Play {
                range: None,
                scale: Rate::new(-1.0),
            },
            Action::Play {
                range: Some(Range::npt_from(Duration::from_millis(100_500))),
                scale: Rate::new(0.25),
            },
        ] {
            let written = request(action);
            assert_eq!(Request::parse(written.to_string().as_bytes()), Ok(written));
        }
    }

    #[test]
    fn other_spellings_are_read() {
        let read = Request::parse(b"\r\nplay rtsp://x/y MANSRTSP/1.0\nCSEQ:7\nrange : npt=0-\nscale:1\n").unwrap();
        let range = Some(Range::npt_from(Duration::ZERO));
        assert_eq!(
            (read.cseq, read.action),
            (
                7,
                Action::Play {
                    range,
                    scale: Some(Rate::ONE)
                }
            )
        );
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        use MansrtspError as E;
        for (body, error) in [
            ("", E::FirstLine),
            ("PLAY", E::FirstLine),
            ("RTSP/1.0 200 OK\r\n", E::FirstLine),
            ("RECORD RTSP/1.0\r\n", E::Method("RECORD".to_owned())),
            ("PLAY RTSP/1.0\r\nScale: 1e9\r\n", E::Header("Scale")),
            ("PLAY RTSP/1.0\r\nScale: 0\r\n", E::Header("Scale")),
            ("PLAY RTSP/1.0\r\nScale: 0.0001\r\n", E::Header("Scale")),
            ("PLAY RTSP/1.0\r\nScale: -33333333333333\r\n", E::Header("Scale")),
            ("PLAY RTSP/1.0\r\nRange: npt=x\r\n", E::Header("Range")),
        ] {
            assert_eq!(Request::parse(body.as_bytes()), Err(error), "{body}");
        }
        assert_eq!(Request::parse(&vec![b' '; BODY_BYTES_MAX + 1]), Err(E::TooLong));
        assert_eq!(Request::parse(b"PLAY \xff RTSP/1.0"), Err(E::FirstLine));
        assert_eq!(Response::parse(b"PLAY RTSP/1.0\r\n"), Err(E::FirstLine));
        assert_eq!(Response::parse(b"RTSP/1.0 abc\r\n"), Err(E::FirstLine));
    }

    #[test]
    fn answers_are_read() {
        let body =
            b"MANSRTSP/1.0 200 OK\r\nCSeq: 3\r\nRange: npt=100-\r\nRTP-Info: seq=9810092;rtptime=3450012\r\n\r\n";
        let read = Response::parse(body).unwrap();
        // The standard's own example has a sequence number that no packet can have.
        assert_eq!(
            (read.status, read.cseq, read.seq, read.rtptime),
            (StatusCode::OK, Some(3), None, Some(3_450_012))
        );
        assert_eq!(read.range, Some(Range::npt_from(Duration::from_secs(100))));
        let bare = Response::parse(b"RTSP/1.0 451\nRange: npt=?").unwrap();
        assert_eq!(
            (bare.status, bare.cseq, bare.range),
            (StatusCode::new(451).unwrap(), None, None)
        );
        let written = Response {
            status: StatusCode::OK,
            cseq: Some(4),
            range: Some(now()),
            seq: Some(1),
            rtptime: Some(2),
        };
        assert_eq!(Response::parse(written.to_string().as_bytes()), Ok(written));
    }
}
