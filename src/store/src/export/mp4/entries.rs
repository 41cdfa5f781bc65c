//! Which codecs an MP4 holds, and their sample entries (ISO/IEC 14496-12 8.5.2, 14496-14 5.6, 14496-15 5.4 and 8.4; "AV1 Codec ISO
//! Media File Format Binding"; "Encapsulation of Opus in ISO Base Media File Format"; the `QuickTime` File Format for G.711 and PCM).

use corenvr_media::{AudioCodec, AudioParameters, CodecParameters, VideoCodec, VideoParameters};

use super::boxes::Boxes;

/// `ObjectTypeIndication` of ISO/IEC 14496-1 table 5.
const OTI_AAC: u8 = 0x40;
const OTI_JPEG: u8 = 0x6C;
/// Length of an `OpusHead` without a channel mapping table (RFC 7845 section 5.1).
const OPUS_HEAD_LEN: usize = 19;
/// What a decoder of Opus needs before a seek target, in samples (RFC 7845 section 4.6).
pub const OPUS_PRE_ROLL: u32 = 3840;

/// Parameters that a sample entry can be made of.
pub struct Held {
    pub params: CodecParameters,
}

/// What the samples of a track come to.
#[derive(Clone, Copy)]
pub struct Rates {
    pub largest: u32,
    pub bits_per_second: u32,
}

impl Held {
    /// The track, or why an MP4 cannot hold it.
    pub fn new(p: &CodecParameters) -> Result<Self, &'static str> {
        match p {
            CodecParameters::Video(v) => {
                if v.width > u32::from(u16::MAX) || v.height > u32::from(u16::MAX) {
                    return Err("has a picture too large for an MP4");
                }
                let least = match v.codec {
                    VideoCodec::H264 => 7,
                    VideoCodec::H265 => 23,
                    VideoCodec::Av1 => 4,
                    VideoCodec::Mjpeg => 0,
                };
                if v.extra.len() < least {
                    return Err("was recorded without its configuration, which an MP4 needs");
                }
            }
            CodecParameters::Audio(a) => match a.codec {
                AudioCodec::G726 { .. } => return Err("cannot be held by an MP4"),
                AudioCodec::Aac if a.extra.len() < 2 => {
                    return Err("was recorded without its configuration, which an MP4 needs");
                }
                _ => {}
            },
        }
        Ok(Self { params: p.clone() })
    }

    /// The brand that readers of the codec look for.
    pub fn brand(&self) -> Option<&'static [u8; 4]> {
        match &self.params {
            CodecParameters::Video(v) => match v.codec {
                VideoCodec::H264 => Some(b"avc1"),
                VideoCodec::H265 => Some(b"hvc1"),
                VideoCodec::Av1 => Some(b"av01"),
                VideoCodec::Mjpeg => None,
            },
            CodecParameters::Audio(_) => None,
        }
    }

    /// How many packets of the usual 20 ms a decoder needs before a seek target; `None` if it needs none.
    pub fn pre_roll(&self) -> Option<i16> {
        let CodecParameters::Audio(a) = &self.params else {
            return None;
        };
        (a.codec == AudioCodec::Opus).then_some(-((OPUS_PRE_ROLL / 960) as i16))
    }

    /// The `stsd` box.
    pub fn write(&self, b: &mut Boxes, rates: Rates) {
        b.full(*b"stsd", 0, 0, |b| {
            b.u32(1);
            match &self.params {
                CodecParameters::Video(v) => video(b, v, rates),
                CodecParameters::Audio(a) => audio(b, a, rates),
            }
        });
    }
}

fn video(b: &mut Boxes, v: &VideoParameters, rates: Rates) {
    let (kind, configuration) = match v.codec {
        VideoCodec::H264 => (b"avc1", Some(b"avcC")),
        VideoCodec::H265 => (b"hvc1", Some(b"hvcC")),
        VideoCodec::Av1 => (b"av01", Some(b"av1C")),
        VideoCodec::Mjpeg => (b"mp4v", None),
    };
    b.boxed(*kind, |b| {
        b.zeros(6);
        b.u16(1); // data_reference_index
        b.zeros(16);
        b.u16(v.width as u16);
        b.u16(v.height as u16);
        b.u32(0x48_0000); // 72 dpi
        b.u32(0x48_0000);
        b.u32(0);
        b.u16(1); // frames in a sample
        b.zeros(32); // compressorname
        b.u16(0x18);
        b.u16(0xFFFF);
        match configuration {
            Some(kind) => b.boxed(*kind, |b| b.bytes(&v.extra)),
            None => esds(b, OTI_JPEG, 4, &[], rates),
        }
    });
}

fn audio(b: &mut Boxes, a: &AudioParameters, rates: Rates) {
    let kind = match a.codec {
        AudioCodec::Aac => b"mp4a",
        AudioCodec::Opus => b"Opus",
        AudioCodec::Pcma => b"alaw",
        AudioCodec::Pcmu => b"ulaw",
        // Held::new lets no G.726 come here.
        AudioCodec::L16 | AudioCodec::G726 { .. } => b"twos",
    };
    b.boxed(*kind, |b| {
        b.zeros(6);
        b.u16(1); // data_reference_index
        b.zeros(8);
        b.u16(u16::from(a.channels));
        b.u16(16);
        b.u32(0);
        // 16.16; a rate that does not fit is in the codec's own configuration.
        b.u32(u16::try_from(a.sample_rate).map_or(0, u32::from) << 16);
        match a.codec {
            AudioCodec::Aac => esds(b, OTI_AAC, 5, &a.extra, rates),
            AudioCodec::Opus => opus(b, a),
            _ => {}
        }
    });
}

/// ISO/IEC 14496-14 section 5.6, 14496-1 section 7.2.6.
fn esds(b: &mut Boxes, object_type: u8, stream_type: u8, specific: &[u8], rates: Rates) {
    b.full(*b"esds", 0, 0, |b| {
        b.descriptor(3, |b| {
            b.u16(0);
            b.u8(0);
            b.descriptor(4, |b| {
                b.u8(object_type);
                b.u8(stream_type << 2 | 1);
                let [_, size @ ..] = rates.largest.min(0xFF_FFFF).to_be_bytes();
                b.bytes(&size);
                b.u32(rates.bits_per_second);
                b.u32(rates.bits_per_second);
                if !specific.is_empty() {
                    b.descriptor(5, |b| b.bytes(specific));
                }
            });
            b.descriptor(6, |b| b.u8(2));
        });
    });
}

/// `dOps`: `OpusHead` without its magic, big endian.
fn opus(b: &mut Boxes, a: &AudioParameters) {
    let head = if a.extra.len() >= OPUS_HEAD_LEN {
        a.extra.to_vec()
    } else {
        let mut head = b"OpusHead\x01".to_vec();
        head.push(a.channels);
        head.extend([0, 0]);
        head.extend(48_000u32.to_le_bytes());
        head.extend([0, 0, 0]);
        head
    };
    b.boxed(*b"dOps", |b| {
        b.u8(0);
        b.u8(head[9]);
        b.u16(u16::from_le_bytes([head[10], head[11]]));
        b.u32(u32::from_le_bytes([head[12], head[13], head[14], head[15]]));
        b.u16(u16::from_le_bytes([head[16], head[17]]));
        b.bytes(&head[18..]);
    });
}
