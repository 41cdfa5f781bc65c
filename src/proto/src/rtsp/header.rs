//! The smaller typed headers: RTP-Info, Session, Scale, Speed, Frames, and what corenvr and ONVIF add.

use std::{fmt, time::Duration};

use super::message::Headers;

/// The most entries that are read from one RTP-Info header; what follows is ignored.
pub const RTP_INFO_MAX: usize = 32;

/// The session timeout where the Session header names none (RFC 2326 section 12.37).
pub const SESSION_TIMEOUT_DEFAULT: Duration = Duration::from_mins(1);

/// One stream of an RTP-Info header (RFC 2326 section 12.33).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtpInfo {
    /// The stream's URL as sent; cameras send relative and wrong ones.
    pub url: String,
    /// Sequence number of the first packet of the range.
    pub seq: Option<u16>,
    /// RTP time of the start of the range.
    pub rtptime: Option<u32>,
}

impl RtpInfo {
    /// Reads a header leniently: entries are recognised by their `url=`, whatever separates them, and a number that is
    /// not one is left out (`rtptime=-1` of some cameras). A comma within a URL stays part of it.
    pub fn parse_list(value: &str) -> Vec<Self> {
        let mut list: Vec<Self> = Vec::new();
        for part in value.split(';').map(str::trim) {
            // `rtptime=1,url=..`: the comma between entries is found from the key behind it, never inside a URL.
            for piece in split_at_urls(part) {
                let (key, field) = piece.split_once('=').unwrap_or((piece, ""));
                let field = field.trim().trim_matches('"');
                match key.trim().to_ascii_lowercase().as_str() {
                    "url" if list.len() < RTP_INFO_MAX => list.push(Self {
                        url: field.to_owned(),
                        seq: None,
                        rtptime: None,
                    }),
                    "url" => return list,
                    "seq" => list.last_mut().map_or((), |e| e.seq = field.parse().ok()),
                    "rtptime" => list.last_mut().map_or((), |e| e.rtptime = field.parse().ok()),
                    _ => {}
                }
            }
        }
        list
    }

    /// The header value of a list. Commas of a URL are percent-encoded: a bare one stops VLC's clock.
    pub fn write_list(list: &[Self]) -> String {
        let mut out = String::new();
        for info in list {
            if !out.is_empty() {
                out.push(',');
            }
            out.push_str("url=");
            out.push_str(&info.url.replace(',', "%2C").replace(';', "%3B"));
            if let Some(seq) = info.seq {
                out.extend([";seq=", &seq.to_string()]);
            }
            if let Some(rtptime) = info.rtptime {
                out.extend([";rtptime=", &rtptime.to_string()]);
            }
        }
        out
    }
}

/// Splits `a,url=b` into `a` and `url=b`.
fn split_at_urls(part: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(part);
    std::iter::from_fn(move || {
        let s = rest?;
        let cut = s.match_indices(',').map(|(i, _)| i).find(|i| {
            let after = s[i + 1..].trim_start();
            after.get(..4).is_some_and(|k| k.eq_ignore_ascii_case("url="))
        });
        match cut {
            Some(i) => {
                rest = Some(&s[i + 1..]);
                Some(s[..i].trim())
            }
            None => rest.take().map(str::trim),
        }
    })
}

/// The Session header (RFC 2326 section 12.37).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionHeader {
    /// The identifier, opaque.
    pub id: String,
    /// How long the server keeps a silent session; `None` if it does not say.
    pub timeout: Option<Duration>,
}

impl SessionHeader {
    /// Reads a header value; `None` if the identifier is empty. A malformed timeout counts as absent.
    pub fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(';').map(str::trim);
        let id = parts.next().filter(|id| !id.is_empty())?.to_owned();
        let timeout = parts
            .filter_map(|p| p.split_once('='))
            .find(|(k, _)| k.trim().eq_ignore_ascii_case("timeout"))
            .and_then(|(_, v)| v.trim().parse::<u32>().ok())
            .filter(|s| *s > 0)
            .map(|s| Duration::from_secs(u64::from(s)));
        Some(Self { id, timeout })
    }
}

impl fmt::Display for SessionHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        self.timeout.map_or(Ok(()), |t| write!(f, ";timeout={}", t.as_secs()))
    }
}

/// The factor of a Scale or Speed header (RFC 2326 sections 12.34 and 12.35): finite and not zero.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// As recorded.
    pub const ONE: Self = Self(1.0);

    /// A factor; `None` for zero, infinities and what is not a number.
    pub fn new(factor: f64) -> Option<Self> {
        (factor.is_finite() && factor != 0.0).then_some(Self(factor))
    }

    /// The factor; negative in reverse.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// Reads a header value: an optional sign, digits and a point, nothing else. `1e9`, `inf` and `NaN` are refused,
    /// though `f64` would read them.
    pub fn parse(value: &str) -> Option<Self> {
        let value = value.trim();
        let plain = value
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+'));
        (plain && value.len() <= 16).then(|| value.parse().ok().and_then(Self::new))?
    }
}

impl fmt::Display for Rate {
    /// With at least one decimal, as players expect: `1.0`, `-0.5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// ONVIF's Frames header (Streaming Specification, section "Frames header field"): which frames to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FrameFilter {
    /// Everything.
    #[default]
    All,
    /// Key frames; with at least so much recording time between two of them.
    Intra(Option<Duration>),
    /// Key frames and those that are predicted from the past only.
    Predicted,
}

impl FrameFilter {
    /// Reads a header value: `intra`, `intra/4000`, `predicted`, `all`.
    pub fn parse(value: &str) -> Option<Self> {
        let value = value.trim().to_ascii_lowercase();
        Some(match value.split_once('/') {
            None if value == "intra" => Self::Intra(None),
            None if value == "predicted" => Self::Predicted,
            None if value == "all" => Self::All,
            Some((kind, ms)) if kind.trim() == "intra" => {
                let ms = ms.trim();
                let ms: u32 = ms.bytes().all(|b| b.is_ascii_digit()).then(|| ms.parse().ok())??;
                Self::Intra(Some(Duration::from_millis(u64::from(ms))))
            }
            _ => return None,
        })
    }
}

impl fmt::Display for FrameFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Intra(None) => f.write_str("intra"),
            Self::Intra(Some(interval)) => write!(f, "intra/{}", interval.as_millis()),
            Self::Predicted => f.write_str("predicted"),
        }
    }
}

/// `yes` or `no`, as ONVIF's Rate-Control and Immediate say it.
pub(crate) fn parse_yes_no(value: &str) -> Option<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

impl Headers {
    /// The Session header.
    pub fn session(&self) -> Option<SessionHeader> {
        SessionHeader::parse(self.get("Session")?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(url: &str, seq: Option<u16>, rtptime: Option<u32>) -> RtpInfo {
        RtpInfo {
            url: url.into(),
            seq,
            rtptime,
        }
    }

    #[test]
    fn rtp_info_of_cameras() {
        // Reolink: relative URLs and an ssrc of its own.
        assert_eq!(
            RtpInfo::parse_list(
                "url=trackID=1;seq=16852;rtptime=1070938629;ssrc=dcc4a0d8,url=trackID=2;seq=39409;rtptime=3075976528;ssrc=9fc9fff8"
            ),
            [
                info("trackID=1", Some(16852), Some(1_070_938_629)),
                info("trackID=2", Some(39409), Some(3_075_976_528))
            ]
        );
        // Laureii: a semicolon at the end.
        assert_eq!(
            RtpInfo::parse_list("url=rtsp://10.0.0.1:554/0/main/trackID=0;seq=0;rtptime=0;"),
            [info("rtsp://10.0.0.1:554/0/main/trackID=0", Some(0), Some(0))]
        );
        // OMNY M5S2A 2812: a negative RTP time.
        assert_eq!(
            RtpInfo::parse_list("url=trackID=1;seq=1;rtptime=-1"),
            [info("trackID=1", Some(1), None)]
        );
        // A comma in the URL, blanks, wrong ranges, nothing at all.
        assert_eq!(
            RtpInfo::parse_list("url=rtsp://h/a,b/t1;seq=70000 , URL=rtsp://h/t2; rtptime=7"),
            [info("rtsp://h/a,b/t1", None, None), info("rtsp://h/t2", None, Some(7))]
        );
        assert!(RtpInfo::parse_list("seq=1;rtptime=2,,;").is_empty());
        assert!(RtpInfo::parse_list("").is_empty());
        assert_eq!(RtpInfo::parse_list(&"url=a,".repeat(1000)).len(), RTP_INFO_MAX);
    }

    #[test]
    fn rtp_info_is_written_exactly_and_without_bare_commas() {
        let list = [
            info("rtsp://h/c/track1?a=1,2", Some(65535), Some(u32::MAX)),
            info("rtsp://h/c/track2", None, None),
        ];
        assert_eq!(
            RtpInfo::write_list(&list),
            "url=rtsp://h/c/track1?a=1%2C2;seq=65535;rtptime=4294967295,url=rtsp://h/c/track2"
        );
        assert_eq!(RtpInfo::write_list(&[]), "");
    }

    #[test]
    fn session_header_with_and_without_timeout() {
        let parse = |s| SessionHeader::parse(s).map(|h| (h.id, h.timeout.map(|t| t.as_secs())));
        assert_eq!(parse("9a90de54; timeout=120"), Some(("9a90de54".into(), Some(120))));
        assert_eq!(parse(" abc "), Some(("abc".into(), None)));
        assert_eq!(parse("a;timeout=x"), Some(("a".into(), None)));
        assert_eq!(parse("a;timeout=0"), Some(("a".into(), None)));
        assert_eq!(parse(";timeout=1"), None);
        assert_eq!(parse(""), None);
        let header = SessionHeader {
            id: "0011".into(),
            timeout: Some(Duration::from_mins(1)),
        };
        assert_eq!(header.to_string(), "0011;timeout=60");
    }

    #[test]
    fn rates_are_plain_finite_numbers() {
        for (text, rate) in [
            ("1.0", 1.0),
            (" -32 ", -32.0),
            ("0.1", 0.1),
            ("+2.5", 2.5),
            (".5", 0.5),
            ("999999999", 999_999_999.0),
        ] {
            assert_eq!(Rate::parse(text).unwrap().get().to_bits(), f64::to_bits(rate), "{text}");
        }
        for text in [
            "",
            "0",
            "-0.0",
            "NaN",
            "inf",
            "-inf",
            "1e9",
            "1 2",
            "--1",
            "1.2.3",
            "0x1",
            "12345678901234567",
        ] {
            assert_eq!(Rate::parse(text), None, "{text}");
        }
        assert_eq!(Rate::ONE.to_string(), "1.0");
        assert_eq!(Rate::new(-0.5).unwrap().to_string(), "-0.5");
    }

    #[test]
    fn frame_filters() {
        for text in ["intra", "intra/4000", "predicted", "all"] {
            assert_eq!(FrameFilter::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            FrameFilter::parse("Intra/ 250"),
            Some(FrameFilter::Intra(Some(Duration::from_millis(250))))
        );
        for text in ["", "intra/", "intra/-1", "all/1", "intra/99999999999", "key"] {
            assert_eq!(FrameFilter::parse(text), None, "{text}");
        }
    }
}
