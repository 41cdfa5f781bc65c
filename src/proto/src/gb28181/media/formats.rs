//! What a payload type carries: by the answer's SDP, and where that is silent by the numbers in use.

use std::borrow::Cow;

use crate::format::{MediaFormat, MediaKind};

use super::{PayloadFormat, Refused};

/// Payload types of an answer that are kept. Further ones are as if the answer did not name them.
const FORMATS_MAX: usize = 32;
const VIDEO_RATE: u32 = 90_000;
const G711_RATE: u32 = 8000;
/// Payload types that mean something without an answer that names them.
const USUAL: [u8; 8] = [0, 8, 96, 97, 98, 99, 100, 102];

/// What a payload type carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// A program stream.
    Program,
    /// Video or sound without a container, by RTP's own payload formats.
    Elementary(MediaFormat),
    /// AAC: with ADTS headers, or by RFC 3640 if a clock rate tells its sampling rate.
    Aac(Option<MediaFormat>),
    /// Something that is not recorded, in words.
    Nothing(String),
}

/// The formats of a session.
#[derive(Debug, Default)]
pub(super) struct Formats(Vec<(u8, Content)>);

impl Formats {
    /// Fails if formats were offered and none of them can be recorded.
    pub fn new(offered: &[PayloadFormat]) -> Result<Self, Refused> {
        let mut list: Vec<_> = offered
            .iter()
            .take(FORMATS_MAX)
            .map(|f| (f.payload_type, content(f)))
            .collect();
        let refused = |(_, content): &(u8, Content)| matches!(content, Content::Nothing(_));
        if !list.is_empty() && list.iter().all(refused) {
            let names: Vec<_> = offered
                .iter()
                .map(|f| format!("{}/{}", f.encoding, f.clock_rate))
                .collect();
            let private = offered.iter().any(|f| is_private(&f.encoding));
            return Err(Refused {
                offered: names.join(", "),
                reason: if private {
                    "a private stream of its vendor: set the platform protocol's stream to PS in the device"
                } else {
                    "which corenvr does not record: set it to H.264 or H.265, in PS or by itself"
                }
                .to_owned(),
            });
        }
        list.extend(USUAL.map(|payload_type| (payload_type, usual(payload_type))));
        Ok(Self(list))
    }

    /// What a payload type carries.
    pub fn content(&self, payload_type: u8) -> Cow<'_, Content> {
        let named = self.0.iter().find(|(t, _)| *t == payload_type);
        named.map_or_else(
            || Cow::Owned(usual(payload_type)),
            |(_, content)| Cow::Borrowed(content),
        )
    }
}

fn is_private(encoding: &str) -> bool {
    matches!(encoding, "DAHUA" | "HIKVISION")
}

fn content(format: &PayloadFormat) -> Content {
    let media = |kind, encoding: &str, clock_rate| {
        Content::Elementary(MediaFormat {
            kind,
            payload_type: format.payload_type,
            encoding: encoding.to_owned(),
            clock_rate,
            channels: 1,
            parameters: Vec::new(),
        })
    };
    // A clock rate of 0 would be one that nothing can count in.
    let rate = if format.clock_rate == 0 {
        G711_RATE
    } else {
        format.clock_rate
    };
    match format.encoding.as_str() {
        "PS" | "MP2P" => Content::Program,
        "H264" => media(MediaKind::Video, "H264", VIDEO_RATE),
        "H265" | "HEVC" => media(MediaKind::Video, "H265", VIDEO_RATE),
        "PCMA" | "G711A" | "G711" => media(MediaKind::Audio, "PCMA", rate),
        "PCMU" | "G711U" => media(MediaKind::Audio, "PCMU", rate),
        name if name.starts_with("G726-") || name == "MP4A-LATM" => media(MediaKind::Audio, name, rate),
        "AAC" | "MPEG4-GENERIC" => match media(MediaKind::Audio, "MPEG4-GENERIC", rate) {
            Content::Elementary(media) if format.clock_rate > 0 && format.clock_rate != VIDEO_RATE => {
                Content::Aac(Some(media))
            }
            _ => Content::Aac(None),
        },
        "" => usual(format.payload_type),
        name => Content::Nothing(format!("{name}/{}", format.clock_rate)),
    }
}

/// By number: what devices send, and where that leaves a number free, GB/T 28181-2022 annex C.
fn usual(payload_type: u8) -> Content {
    let (encoding, clock_rate) = match payload_type {
        0 => ("PCMU", G711_RATE),
        8 => ("PCMA", G711_RATE),
        96 => ("PS", VIDEO_RATE),
        97 => return Content::Nothing("MPEG-4 video".to_owned()),
        98 => ("H264", VIDEO_RATE),
        99 | 100 => ("H265", VIDEO_RATE),
        102 => ("AAC", 0),
        other => return Content::Nothing(format!("payload type {other}")),
    };
    content(&PayloadFormat {
        payload_type,
        encoding: encoding.to_owned(),
        clock_rate,
    })
}
