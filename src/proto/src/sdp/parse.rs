//! Reading.

use super::{Direction, FORMATS_MAX, MEDIA_MAX, Media, PARAMETERS_MAX, SDP_BYTES_MAX, SdpError, SessionDescription};
use crate::{
    format::{MediaFormat, MediaKind},
    rtsp::Range,
};

/// A media line while its attributes are collected: they may come in any order.
struct Draft {
    media: Media,
    payload_types: Vec<u8>,
    rtpmaps: Vec<(u8, String)>,
    fmtps: Vec<(u8, String)>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<SessionDescription, SdpError> {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SDP_BYTES_MAX)]);
    let mut session = SessionDescription::default();
    let mut draft: Option<Draft> = None;
    let mut session_direction = Direction::default();
    for line in text.split(['\n', '\r', '\0']) {
        let Some((kind, value)) = line.trim().split_once('=') else {
            continue;
        };
        let value = value.trim();
        match kind.trim() {
            "s" => value.clone_into(&mut session.name),
            "m" => {
                session.media.extend(draft.take().map(Draft::finish));
                if session.media.len() == MEDIA_MAX {
                    break;
                }
                draft = Some(Draft::new(value, session_direction));
            }
            "a" => {
                let (name, value) = value.split_once(':').unwrap_or((value, ""));
                let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
                match &mut draft {
                    Some(draft) => draft.attribute(&name, value),
                    None => match name.as_str() {
                        "control" if !value.is_empty() => session.control = Some(value.to_owned()),
                        "range" => session.range = Range::parse(value).ok(),
                        _ => session_direction = direction(&name).unwrap_or(session_direction),
                    },
                }
            }
            _ => {}
        }
    }
    session.media.extend(draft.map(Draft::finish));
    if session.media.is_empty() {
        return Err(SdpError::NoMedia);
    }
    Ok(session)
}

fn direction(name: &str) -> Option<Direction> {
    Some(match name {
        "sendrecv" => Direction::SendRecv,
        "sendonly" => Direction::SendOnly,
        "recvonly" => Direction::RecvOnly,
        "inactive" => Direction::Inactive,
        _ => return None,
    })
}

impl Draft {
    fn new(line: &str, direction: Direction) -> Self {
        let mut words = line.split_whitespace();
        // TP-Link says `application/TP-LINK`.
        let kind = match words.next().unwrap_or_default().to_ascii_lowercase().split('/').next() {
            Some("video") => MediaKind::Video,
            Some("audio") => MediaKind::Audio,
            _ => MediaKind::Other,
        };
        let port = words.next().unwrap_or_default().split('/').next().unwrap_or_default();
        let mut media = Media {
            kind,
            port: port.parse().unwrap_or(0),
            proto: words.next().unwrap_or_default().to_ascii_uppercase(),
            formats: Vec::new(),
            control: None,
            range: None,
            direction,
            frame_rate_milli: None,
            onvif_track: None,
        };
        let payload_types: Vec<u8> = words
            .filter_map(|w| w.parse().ok())
            .filter(|pt| *pt < 128)
            .take(FORMATS_MAX)
            .collect();
        media.formats.reserve_exact(payload_types.len());
        Self {
            media,
            payload_types,
            rtpmaps: Vec::new(),
            fmtps: Vec::new(),
        }
    }

    fn attribute(&mut self, name: &str, value: &str) {
        let numbered = || {
            let (pt, rest) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
            pt.parse().ok().map(|pt: u8| (pt, rest.trim().to_owned()))
        };
        match name {
            "rtpmap" if self.rtpmaps.len() < FORMATS_MAX => self.rtpmaps.extend(numbered()),
            "fmtp" if self.fmtps.len() < FORMATS_MAX => self.fmtps.extend(numbered()),
            // Some cameras repeat the attribute; the first one is what players use.
            "control" if !value.is_empty() && self.media.control.is_none() => {
                self.media.control = Some(value.to_owned());
            }
            "range" => self.media.range = Range::parse(value).ok(),
            "framerate" => self.media.frame_rate_milli = frame_rate_milli(value),
            "x-onvif-track" => self.media.onvif_track = Some(value.to_owned()),
            name => self.media.direction = direction(name).unwrap_or(self.media.direction),
        }
    }

    fn finish(mut self) -> Media {
        for &pt in &self.payload_types {
            if self.media.formats.iter().any(|f| f.payload_type == pt) {
                continue;
            }
            let find = |list: &[(u8, String)]| list.iter().find(|(n, _)| *n == pt).map(|(_, v)| v.clone());
            let rtpmap = find(&self.rtpmaps);
            let fmtp = find(&self.fmtps);
            let format = format(self.media.kind, pt, rtpmap.as_deref(), fmtp.as_deref());
            self.media.formats.push(format);
        }
        self.media
    }
}

/// `25`, `29.97`, `12.000000`, and `25/1` of some cameras.
fn frame_rate_milli(value: &str) -> Option<u32> {
    let number = |s: &str| s.trim().parse::<f64>().ok().filter(|v| v.is_finite() && *v > 0.0);
    let rate = match value.split_once('/') {
        Some((a, b)) => number(a)? / number(b)?,
        None => number(value)?,
    };
    (rate > 0.0 && rate <= 1000.0).then_some((rate * 1000.0).round() as u32)
}

fn format(kind: MediaKind, payload_type: u8, rtpmap: Option<&str>, fmtp: Option<&str>) -> MediaFormat {
    let default_rate = if kind == MediaKind::Audio { 8000 } else { 90_000 };
    let (mut encoding, mut clock_rate, mut channels) = match static_format(payload_type) {
        Some((name, rate, channels)) => (name.to_owned(), rate, channels),
        None => (String::new(), default_rate, 1),
    };
    let mut parts = rtpmap.unwrap_or_default().split('/').map(str::trim);
    if let Some(name) = parts.next().filter(|n| !n.is_empty()) {
        // The name ends at the first blank: some cameras write comments behind it.
        encoding = name.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let number = |s: Option<&str>| {
            s.and_then(|s| s.split_whitespace().next()?.parse::<u32>().ok())
                .filter(|v| *v > 0)
        };
        clock_rate = number(parts.next()).unwrap_or(default_rate);
        channels = number(parts.next()).and_then(|c| u8::try_from(c).ok()).unwrap_or(1);
    }
    MediaFormat {
        kind,
        payload_type,
        encoding,
        clock_rate,
        channels,
        parameters: fmtp.map(parameters).unwrap_or_default(),
    }
}

fn parameters(fmtp: &str) -> Vec<(String, String)> {
    fmtp.split(';')
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .take(PARAMETERS_MAX)
        // The value may hold `=`: base64 ends in it.
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(k, v)| (k.trim().to_ascii_lowercase(), v.trim().to_owned()))
        .collect()
}

/// Payload types with a meaning of their own (RFC 3551 section 6): name, clock rate, channels.
fn static_format(payload_type: u8) -> Option<(&'static str, u32, u8)> {
    Some(match payload_type {
        0 => ("PCMU", 8000, 1),
        3 => ("GSM", 8000, 1),
        4 => ("G723", 8000, 1),
        5 => ("DVI4", 8000, 1),
        6 => ("DVI4", 16_000, 1),
        7 => ("LPC", 8000, 1),
        8 => ("PCMA", 8000, 1),
        9 => ("G722", 8000, 1),
        10 => ("L16", 44_100, 2),
        11 => ("L16", 44_100, 1),
        12 => ("QCELP", 8000, 1),
        13 => ("CN", 8000, 1),
        14 => ("MPA", 90_000, 1),
        15 => ("G728", 8000, 1),
        16 => ("DVI4", 11_025, 1),
        17 => ("DVI4", 22_050, 1),
        18 => ("G729", 8000, 1),
        25 => ("CELB", 90_000, 1),
        26 => ("JPEG", 90_000, 1),
        28 => ("NV", 90_000, 1),
        31 => ("H261", 90_000, 1),
        32 => ("MPV", 90_000, 1),
        33 => ("MP2T", 90_000, 1),
        34 => ("H263", 90_000, 1),
        _ => return None,
    })
}
