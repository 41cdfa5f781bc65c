//! Reading. Media lines and formats are those of ordinary SDP; the lines that only GB28181 has are found here.

use std::net::IpAddr;

use super::{Answer, GbSdpError, MediaTransport, Offer, SessionKind, Setup, Ssrc, StreamChoice, UnixRange};
use crate::{
    format::{MediaFormat, MediaKind},
    gb28181::id::DeviceId,
    sdp::{Media, SDP_BYTES_MAX, SessionDescription},
};

/// The encodings of vendors that only their own software reads.
const PRIVATE: [&str; 4] = ["DAHUA", "HIKVISION", "HIK", "PRIVATE"];

/// The lines that ordinary SDP does not have, or reads otherwise. Those of the video's own section count before those of the session.
#[derive(Default)]
struct Lines<'a> {
    origin: Option<DeviceId>,
    name: &'a str,
    uri: &'a str,
    time: &'a str,
    address: Option<IpAddr>,
    ssrc: Option<Ssrc>,
    parameters: &'a str,
    setup: Option<Setup>,
    speed: Option<u8>,
    file_bytes: Option<u64>,
    stream: Option<StreamChoice>,
}

impl<'a> Lines<'a> {
    /// Reads the session's lines and those of the media line at `video`; `y=` and `f=` from wherever they stand.
    fn read(text: &'a str, video: usize) -> Self {
        let mut lines = Self::default();
        let mut section = None;
        for line in text.split(['\n', '\r', '\0']) {
            let Some((kind, value)) = line.trim().split_once('=') else {
                continue;
            };
            let value = value.trim();
            match kind.trim() {
                "m" => section = Some(section.map_or(0, |s: usize| s + 1)),
                "y" => lines.ssrc = lines.ssrc.or(Ssrc::parse(value)),
                "f" if lines.parameters.is_empty() => lines.parameters = value,
                kind if section.is_none_or(|s| s == video) => lines.line(kind, value),
                _ => {}
            }
        }
        lines
    }

    fn line(&mut self, kind: &str, value: &'a str) {
        match kind {
            "o" => self.origin = value.split_whitespace().next().and_then(|id| DeviceId::parse(id).ok()),
            "s" => self.name = value,
            "u" => self.uri = value,
            "t" if self.time.is_empty() => self.time = value,
            "c" => {
                let address = value
                    .split_whitespace()
                    .nth(2)
                    .and_then(|a| a.split('/').next()?.parse().ok());
                self.address = address.or(self.address);
            }
            "a" => {
                let (name, value) = value.split_once(':').unwrap_or((value, ""));
                self.attribute(name.trim(), value.trim());
            }
            _ => {}
        }
    }

    fn attribute(&mut self, name: &str, value: &str) {
        let stream = |main: &str, sub: &str| match value {
            v if v.eq_ignore_ascii_case(main) => Some(StreamChoice::Main),
            v if v.eq_ignore_ascii_case(sub) => Some(StreamChoice::Sub),
            _ => None,
        };
        match name.to_ascii_lowercase().as_str() {
            "setup" => {
                self.setup = match value.to_ascii_lowercase().as_str() {
                    "active" => Some(Setup::Active),
                    "passive" => Some(Setup::Passive),
                    "actpass" => Some(Setup::Actpass),
                    _ => self.setup,
                }
            }
            "downloadspeed" => self.speed = value.parse().ok().filter(|s| *s > 0),
            "filesize" => self.file_bytes = value.parse().ok(),
            "streamnumber" | "streamprofile" => self.stream = stream("0", "1").or(self.stream),
            "streammode" => self.stream = stream("MAIN", "SUB").or(self.stream),
            _ => {}
        }
    }

    /// `s=` with `t=`. The name decides; a history without times is none.
    fn session(&self) -> Option<SessionKind> {
        if self.name.eq_ignore_ascii_case("Play") {
            return Some(SessionKind::Play);
        }
        let mut times = self.time.split_whitespace().map(|t| t.parse().ok());
        let range = UnixRange {
            start_s: times.next()??,
            end_s: times.next()??,
        };
        if self.name.eq_ignore_ascii_case("Playback") {
            Some(SessionKind::Playback(range))
        } else if self.name.eq_ignore_ascii_case("Download") {
            Some(SessionKind::Download {
                range,
                speed: self.speed,
            })
        } else {
            None
        }
    }
}

/// The video's media line and its place.
fn video(text: &str) -> Result<(usize, Media), GbSdpError> {
    let description = SessionDescription::parse(text.as_bytes()).map_err(|_| GbSdpError::NoVideo)?;
    let mut media = description.media.into_iter().enumerate();
    media
        .find(|(_, m)| m.kind == MediaKind::Video)
        .ok_or(GbSdpError::NoVideo)
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes.get(..SDP_BYTES_MAX).unwrap_or(bytes))
}

fn is_private(format: &MediaFormat) -> bool {
    PRIVATE.contains(&format.encoding.as_str())
}

impl Answer {
    /// Reads an answer. Only what leaves no video that could be received is refused; a stream in a vendor's own format is, unless
    /// the answer has another one as well (then that is what is left).
    pub fn parse(bytes: &[u8]) -> Result<Self, GbSdpError> {
        let text = text(bytes);
        let (at, media) = video(&text)?;
        let lines = Lines::read(&text, at);
        let mut formats = media.formats;
        let private = formats.iter().find(|f| is_private(f)).map(ToString::to_string);
        formats.retain(|f| !is_private(f));
        if formats.is_empty() {
            return Err(private.map_or(GbSdpError::NoFormat, GbSdpError::Private));
        }
        Ok(Self {
            origin: lines.origin,
            session: lines.session(),
            address: lines.address,
            port: media.port,
            is_tcp: media.proto.contains("TCP"),
            setup: lines.setup,
            ssrc: lines.ssrc,
            formats,
            parameters: lines.parameters.replace(char::is_control, "").trim().to_owned(),
            file_bytes: lines.file_bytes,
        })
    }
}

impl Offer {
    /// Reads an offer: what kind of session it is, whose it is and where media shall go must be clear.
    pub fn parse(bytes: &[u8]) -> Result<Self, GbSdpError> {
        let text = text(bytes);
        let (at, media) = video(&text)?;
        let lines = Lines::read(&text, at);
        let transport = match (media.proto.contains("TCP"), lines.setup) {
            (false, _) => MediaTransport::Udp,
            (true, Some(Setup::Active)) => MediaTransport::TcpActive,
            (true, _) => MediaTransport::TcpPassive,
        };
        if media.port == 0 && transport != MediaTransport::TcpActive {
            return Err(GbSdpError::Lacks("port in m="));
        }
        let channel = lines.uri.split(':').next().and_then(|id| DeviceId::parse(id).ok());
        Ok(Self {
            origin: lines.origin.or(channel).ok_or(GbSdpError::Lacks("identity in o="))?,
            channel,
            session: lines
                .session()
                .ok_or(GbSdpError::Lacks("s= (Play, or Playback or Download with t=)"))?,
            address: lines.address.ok_or(GbSdpError::Lacks("address in c="))?,
            port: media.port,
            transport,
            ssrc: lines.ssrc,
            stream: lines.stream,
            formats: media.formats,
        })
    }
}
