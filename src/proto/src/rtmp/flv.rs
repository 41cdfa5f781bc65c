//! The bodies of FLV tags, which are RTMP's audio and video messages: legacy ones (Adobe Flash Video File Format 10.1, annex E)
//! and those of enhanced RTMP (Veovera, v1 and v2).

use std::fmt;

use bytes::{Buf, Bytes};

/// Modifiers before one enhanced packet. More are an error.
const MODIFIERS_MAX: usize = 16;

/// A codec as a tag names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Codec {
    H264,
    H265,
    Av1,
    Aac,
    Pcma,
    Pcmu,
    Opus,
    /// One that is not recorded, by the number of a legacy tag.
    Legacy {
        number: u8,
        name: &'static str,
    },
    /// One that is not recorded, by the `FourCC` of an enhanced tag.
    FourCc([u8; 4]),
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::H264 => f.write_str("H.264"),
            Self::H265 => f.write_str("H.265"),
            Self::Av1 => f.write_str("AV1"),
            Self::Aac => f.write_str("AAC"),
            Self::Pcma => f.write_str("G.711 A-law"),
            Self::Pcmu => f.write_str("G.711 mu-law"),
            Self::Opus => f.write_str("Opus"),
            Self::Legacy { number, name } => write!(f, "{name} (codec {number})"),
            Self::FourCc(code) => write!(f, "codec \"{}\"", code.escape_ascii()),
        }
    }
}

/// What a tag says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The codec's configuration: `avcC`, `hvcC`, `av1C`, `AudioSpecificConfig` or `OpusHead`.
    Configuration(Bytes),
    /// An access unit. NAL units have lengths as the configuration says.
    Unit {
        /// The unit.
        data: Bytes,
        /// Presentation minus decoding time, in ms.
        composition_ms: i32,
    },
    /// The end of a sequence, or something else without media.
    Nothing,
}

/// A tag's body taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The codec.
    pub codec: Codec,
    /// What it says.
    pub body: Body,
    /// The message is of other tracks than the first, or has them too.
    pub further_tracks: bool,
}

/// A tag breaks the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed FLV tag: {0}")]
pub struct FlvError(pub &'static str);

const CUT_OFF: FlvError = FlvError("cut off");

/// Packet types of enhanced RTMP that both kinds of tags share; 2, the end of a sequence, and others carry nothing for us.
mod packet {
    pub const CONFIGURATION: u8 = 0;
    pub const UNIT: u8 = 1;
    /// Video: a unit whose composition time is 0 and left out.
    pub const UNIT_X: u8 = 3;
    pub const MODIFIER: u8 = 7;
    pub const VIDEO_MULTITRACK: u8 = 6;
    pub const AUDIO_MULTITRACK: u8 = 5;
}

/// Reads the body of a video message. `None` if it carries no picture: commands and metadata.
pub fn video(mut body: Bytes) -> Result<Option<Tag>, FlvError> {
    let head = take::<1>(&mut body)?[0];
    /// The frame type of seek commands, which have no codec behind them.
    const COMMAND: u8 = 5;
    let frame_type = head >> 4 & 7;
    if head & 0x80 != 0 {
        let kind = head & 15;
        return if frame_type == COMMAND && kind != packet::MODIFIER && kind != packet::VIDEO_MULTITRACK {
            Ok(None)
        } else {
            enhanced(kind, body, packet::VIDEO_MULTITRACK, video_packet)
        };
    }
    if frame_type == COMMAND {
        return Ok(None);
    }
    let codec = match head & 15 {
        7 => Codec::H264,
        12 => Codec::H265,
        number => return Ok(Some(other(number, legacy_video_name(number)))),
    };
    let kind = take::<1>(&mut body)?[0];
    let composition_ms = composition(&mut body)?;
    Ok(Some(first_track(
        codec,
        match kind {
            0 => Body::Configuration(body),
            1 => Body::Unit {
                data: body,
                composition_ms,
            },
            _ => Body::Nothing,
        },
    )))
}

/// Reads the body of an audio message. `None` if it carries no sound.
pub fn audio(mut body: Bytes) -> Result<Option<Tag>, FlvError> {
    const ENHANCED: u8 = 9;
    let head = take::<1>(&mut body)?[0];
    // The rate, size and channel bits are not looked at: AAC and Opus have their own, and encoders set them as they like for G.711.
    let codec = match head >> 4 {
        ENHANCED => {
            return enhanced(head & 15, body, packet::AUDIO_MULTITRACK, |code, kind, body| {
                Ok(audio_packet(code, kind, body))
            });
        }
        7 => Codec::Pcma,
        8 => Codec::Pcmu,
        10 => Codec::Aac,
        number => return Ok(Some(other(number, legacy_audio_name(number)))),
    };
    let configuration = codec == Codec::Aac && take::<1>(&mut body)?[0] == 0;
    Ok(Some(first_track(
        codec,
        if configuration {
            Body::Configuration(body)
        } else {
            unit(body)
        },
    )))
}

const fn unit(data: Bytes) -> Body {
    Body::Unit {
        data,
        composition_ms: 0,
    }
}

const fn first_track(codec: Codec, body: Body) -> Tag {
    Tag {
        codec,
        body,
        further_tracks: false,
    }
}

const fn other(number: u8, name: &'static str) -> Tag {
    first_track(Codec::Legacy { number, name }, Body::Nothing)
}

const fn legacy_video_name(number: u8) -> &'static str {
    match number {
        2 => "Sorenson H.263",
        3 | 6 => "screen video",
        4 | 5 => "VP6",
        13 => "AV1 in a legacy tag",
        _ => "unknown video",
    }
}

const fn legacy_audio_name(number: u8) -> &'static str {
    match number {
        0 | 3 => "linear PCM",
        1 => "ADPCM",
        2 | 14 => "MP3",
        4..=6 => "Nellymoser",
        11 => "Speex",
        13 => "Opus in a legacy tag",
        _ => "unknown sound",
    }
}

type PacketReader = fn([u8; 4], u8, Bytes) -> Result<Tag, FlvError>;

/// An enhanced tag behind its first byte: modifiers, tracks, then a packet.
fn enhanced(mut kind: u8, mut body: Bytes, multitrack: u8, read: PacketReader) -> Result<Option<Tag>, FlvError> {
    let mut modifiers = 0;
    while kind == packet::MODIFIER {
        modifiers += 1;
        if modifiers > MODIFIERS_MAX {
            return Err(FlvError("too many modifiers"));
        }
        // Nanoseconds beside the time stamp; other modifiers are not known. Neither changes what a unit is.
        let mut len = usize::from(take::<1>(&mut body)?[0]) + 1;
        if len == 256 {
            len = usize::from(u16::from_be_bytes(take(&mut body)?)) + 1;
        }
        take_bytes(&mut body, len)?;
        kind = take::<1>(&mut body)?[0] & 15;
    }
    if kind == multitrack {
        return tracks(body, read);
    }
    let code = take(&mut body)?;
    read(code, kind, body).map(Some)
}

/// The first track (id 0) of a packet with several, or with one that has an id.
fn tracks(mut body: Bytes, read: PacketReader) -> Result<Option<Tag>, FlvError> {
    const ONE_TRACK: u8 = 0;
    const ONE_CODEC: u8 = 1;
    let head = take::<1>(&mut body)?[0];
    let (several, kind) = (head >> 4, head & 15);
    if several > 2 {
        return Err(FlvError("an unknown kind of multitrack packet"));
    }
    let mut code = [0; 4];
    if several <= ONE_CODEC {
        code = take(&mut body)?;
    }
    let mut found = None;
    let mut others = false;
    while !body.is_empty() {
        if several > ONE_CODEC {
            code = take(&mut body)?;
        }
        let id = take::<1>(&mut body)?[0];
        let data = if several == ONE_TRACK {
            std::mem::take(&mut body)
        } else {
            let [l0, l1, l2] = take(&mut body)?;
            take_bytes(&mut body, u32::from_be_bytes([0, l0, l1, l2]) as usize)?
        };
        if id == 0 && found.is_none() {
            found = Some(read(code, kind, data)?);
        } else {
            others = true;
        }
    }
    let tag = found.or_else(|| others.then(|| first_track(Codec::FourCc(code), Body::Nothing)));
    Ok(tag.map(|tag| Tag {
        further_tracks: others,
        ..tag
    }))
}

fn video_packet(code: [u8; 4], kind: u8, mut body: Bytes) -> Result<Tag, FlvError> {
    let codec = match &code {
        b"avc1" => Codec::H264,
        b"hvc1" => Codec::H265,
        b"av01" => Codec::Av1,
        _ => return Ok(first_track(Codec::FourCc(code), Body::Nothing)),
    };
    let body = match kind {
        packet::CONFIGURATION => Body::Configuration(body),
        packet::UNIT => {
            let composition_ms = if codec == Codec::Av1 {
                0
            } else {
                composition(&mut body)?
            };
            Body::Unit {
                data: body,
                composition_ms,
            }
        }
        packet::UNIT_X => unit(body),
        _ => Body::Nothing,
    };
    Ok(first_track(codec, body))
}

fn audio_packet(code: [u8; 4], kind: u8, body: Bytes) -> Tag {
    let codec = match &code {
        b"mp4a" => Codec::Aac,
        b"Opus" => Codec::Opus,
        _ => return first_track(Codec::FourCc(code), Body::Nothing),
    };
    let body = match kind {
        packet::CONFIGURATION => Body::Configuration(body),
        packet::UNIT => unit(body),
        _ => Body::Nothing,
    };
    first_track(codec, body)
}

/// A composition time: 24 bits with sign.
fn composition(body: &mut Bytes) -> Result<i32, FlvError> {
    let [a, b, c] = take(body)?;
    Ok(i32::from_be_bytes([a, b, c, 0]) >> 8)
}

fn take<const N: usize>(body: &mut Bytes) -> Result<[u8; N], FlvError> {
    let bytes = *body.first_chunk::<N>().ok_or(CUT_OFF)?;
    body.advance(N);
    Ok(bytes)
}

fn take_bytes(body: &mut Bytes, len: usize) -> Result<Bytes, FlvError> {
    if len > body.len() {
        return Err(CUT_OFF);
    }
    Ok(body.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = Result<Option<Tag>, FlvError>;

    fn read_video(body: &[u8]) -> Read {
        video(Bytes::copy_from_slice(body))
    }

    fn read_audio(body: &[u8]) -> Read {
        audio(Bytes::copy_from_slice(body))
    }

    fn picture(codec: Codec, data: &'static [u8], composition_ms: i32) -> Tag {
        let data = Bytes::from_static(data);
        first_track(codec, Body::Unit { data, composition_ms })
    }

    fn configuration(codec: Codec, data: &'static [u8]) -> Tag {
        first_track(codec, Body::Configuration(Bytes::from_static(data)))
    }

    #[test]
    fn legacy_tags() {
        assert_eq!(
            read_video(b"\x17\x00\x00\x00\x00rec"),
            Ok(Some(configuration(Codec::H264, b"rec")))
        );
        assert_eq!(
            read_video(b"\x27\x01\x00\x00\x28nal"),
            Ok(Some(picture(Codec::H264, b"nal", 40)))
        );
        assert_eq!(
            read_video(b"\x2C\x01\xFF\xFF\xD8nal"),
            Ok(Some(picture(Codec::H265, b"nal", -40)))
        );
        assert_eq!(read_video(b"\x57\x00"), Ok(None));
        assert_eq!(read_video(b"\x17\x01\x00"), Err(CUT_OFF));
        assert_eq!(read_video(b""), Err(CUT_OFF));
        assert_eq!(
            read_audio(b"\xAF\x00\x12\x10"),
            Ok(Some(configuration(Codec::Aac, b"\x12\x10")))
        );
        assert_eq!(read_audio(b"\xAF\x01aac"), Ok(Some(picture(Codec::Aac, b"aac", 0))));
        assert_eq!(read_audio(b"\x72law"), Ok(Some(picture(Codec::Pcma, b"law", 0))));
        assert_eq!(read_audio(b"\x82law"), Ok(Some(picture(Codec::Pcmu, b"law", 0))));
        let name = |tag: Read| tag.unwrap().unwrap().codec.to_string();
        assert_eq!(name(read_audio(b"\x2Fmp3")), "MP3 (codec 2)");
        assert_eq!(name(read_video(b"\x12\x00")), "Sorenson H.263 (codec 2)");
    }

    #[test]
    fn enhanced_tags() {
        assert_eq!(read_video(b"\x90hvc1rec"), Ok(Some(configuration(Codec::H265, b"rec"))));
        assert_eq!(
            read_video(b"\x91hvc1\x00\x00\x28nal"),
            Ok(Some(picture(Codec::H265, b"nal", 40)))
        );
        assert_eq!(read_video(b"\xA3avc1nal"), Ok(Some(picture(Codec::H264, b"nal", 0))));
        assert_eq!(read_video(b"\x91av01obu"), Ok(Some(picture(Codec::Av1, b"obu", 0))));
        assert_eq!(
            read_video(b"\x92hvc1").unwrap().unwrap().body,
            Body::Nothing,
            "the end of a sequence"
        );
        assert_eq!(read_video(b"\xD1\x00"), Ok(None), "a seek command");
        assert_eq!(
            read_video(b"\x90vp09x").unwrap().unwrap().codec.to_string(),
            "codec \"vp09\""
        );
        assert_eq!(
            read_audio(b"\x90OpusOpusHead"),
            Ok(Some(configuration(Codec::Opus, b"OpusHead")))
        );
        assert_eq!(read_audio(b"\x91Opusx"), Ok(Some(picture(Codec::Opus, b"x", 0))));
        assert_eq!(read_audio(b"\x91mp4ax"), Ok(Some(picture(Codec::Aac, b"x", 0))));
        assert_eq!(read_audio(b"\x91Op"), Err(CUT_OFF));
    }

    #[test]
    fn modifiers_are_skipped_whatever_their_length() {
        // Three bytes of nanoseconds, then a packet without composition time.
        let short = b"\xA7\x02\x01\x02\x03\x03avc1nal";
        assert_eq!(read_video(short), Ok(Some(picture(Codec::H264, b"nal", 0))));
        let mut long = vec![0xA7, 0xFF, 0x01, 0x00];
        long.extend([0; 257]);
        long.extend(b"\x03avc1nal");
        assert_eq!(read_video(&long), Ok(Some(picture(Codec::H264, b"nal", 0))));
        assert_eq!(
            read_audio(b"\x97\x00\x00\x01Opusx"),
            Ok(Some(picture(Codec::Opus, b"x", 0)))
        );
        let endless = [&[0xA7][..], &[0, 0, 7].repeat(1000)].concat();
        assert_eq!(read_video(&endless), Err(FlvError("too many modifiers")));
    }

    #[test]
    fn of_several_tracks_the_first_is_read() {
        let further = |tag: Read| tag.unwrap().unwrap();
        // One track with an id.
        assert_eq!(
            read_video(b"\xA6\x03avc1\x00nal"),
            Ok(Some(picture(Codec::H264, b"nal", 0)))
        );
        assert!(further(read_video(b"\xA6\x03avc1\x01nal")).further_tracks);
        // Two of one codec, then two of two.
        let tag = further(read_video(b"\xA6\x13avc1\x01\x00\x00\x02xx\x00\x00\x00\x03nal"));
        assert!(tag.further_tracks);
        assert_eq!(tag.body, picture(Codec::H264, b"nal", 0).body);
        let tag = further(read_audio(b"\x95\x21Opus\x00\x00\x00\x01xmp4a\x01\x00\x00\x01y"));
        assert_eq!((tag.codec, tag.further_tracks), (Codec::Opus, true));
        assert_eq!(read_video(b"\xA6\x13avc1\x00\x00\x00\x09nal"), Err(CUT_OFF));
        assert!(read_video(b"\xA6\x33avc1").is_err());
    }
}
