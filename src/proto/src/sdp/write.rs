//! Writing, in the form that passed with VLC, mpv, ffplay and GStreamer.

use std::{fmt, net::IpAddr, time::Duration};

use corenvr_media::TimeRange;

use crate::format::{MediaFormat, MediaKind};

/// What the server describes; its `Display` is the SDP, with CRLF line ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// `s=`, for people.
    pub name: String,
    /// The server's address in `o=`.
    pub origin: IpAddr,
    /// A number that changes with the content; written as session id and version.
    pub version: u64,
    /// URL of the whole presentation, absolute.
    pub control: String,
    /// Length of a recording: the one `a=range:npt=0-LENGTH`, at session level, closed and from 0, which is what makes
    /// players show a seek bar. `None` for live.
    pub length: Option<Duration>,
    /// The same in UTC, for ONVIF clients only: a second range line confuses FFmpeg and GStreamer.
    pub clock: Option<TimeRange>,
    /// The tracks in order.
    pub media: Vec<DescribedMedia>,
}

/// One track.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribedMedia {
    /// Its one format.
    pub format: MediaFormat,
    /// Its URL, absolute, with the track in the path before the query.
    pub control: String,
    /// ONVIF's track reference, for ONVIF clients.
    pub onvif_track: Option<String>,
    /// Frames per second as a fraction.
    pub frame_rate: Option<(u32, u32)>,
}

/// Text without what would end its line.
struct Line<'a>(&'a str);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.split(char::is_control).try_for_each(|part| f.write_str(part))
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, any) = match self.origin {
            IpAddr::V4(_) => ("IP4", "0.0.0.0"),
            IpAddr::V6(_) => ("IP6", "::"),
        };
        let version = self.version;
        write!(f, "v=0\r\no=- {version} {version} IN {family} {}\r\n", self.origin)?;
        // An empty name is no valid line (RFC 8866 section 5.3).
        let name = if self.name.trim().is_empty() { " " } else { &self.name };
        write!(f, "s={}\r\nc=IN {family} {any}\r\nt=0 0\r\n", Line(name))?;
        write!(f, "a=control:{}\r\n", Line(&self.control))?;
        if let Some(length) = self.length {
            write!(
                f,
                "a=range:npt=0-{}.{:03}\r\n",
                length.as_secs(),
                length.subsec_millis()
            )?;
        }
        if let Some(clock) = self.clock {
            write!(
                f,
                "a=range:clock={}-{}\r\n",
                clock.start.to_clock(),
                clock.end.to_clock()
            )?;
        }
        self.media.iter().try_for_each(|m| m.write(f))
    }
}

impl DescribedMedia {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = &self.format;
        let pt = format.payload_type;
        let kind = match format.kind {
            MediaKind::Video => "video",
            MediaKind::Audio => "audio",
            MediaKind::Other => "application",
        };
        write!(f, "m={kind} 0 RTP/AVP {pt}\r\na=control:{}\r\n", Line(&self.control))?;
        write!(f, "a=rtpmap:{pt} {}/{}", Line(&format.encoding), format.clock_rate)?;
        if format.channels > 1 {
            write!(f, "/{}", format.channels)?;
        }
        f.write_str("\r\n")?;
        for (i, (key, value)) in format.parameters.iter().enumerate() {
            if i == 0 {
                write!(f, "a=fmtp:{pt} ")?;
            } else {
                f.write_str("; ")?;
            }
            write!(f, "{}", Line(key))?;
            if !value.is_empty() {
                write!(f, "={}", Line(value))?;
            }
        }
        if !format.parameters.is_empty() {
            f.write_str("\r\n")?;
        }
        match self.frame_rate {
            Some((rate, 1)) => write!(f, "a=framerate:{rate}\r\n")?,
            Some((n, d)) if d > 0 => write!(f, "a=framerate:{:.3}\r\n", f64::from(n) / f64::from(d))?,
            _ => {}
        }
        if let Some(track) = &self.onvif_track {
            write!(f, "a=x-onvif-track:{}\r\n", Line(track))?;
        }
        f.write_str("a=sendonly\r\n")
    }
}
