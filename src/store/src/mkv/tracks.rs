//! Codec parameters as TrackEntry elements and back (Matroska codec mappings, RFC 9559 section 5.1.4 and the codec registry).

use bytes::Bytes;
use corenvr_media::{AudioCodec, AudioParameters, CodecParameters, VideoCodec, VideoParameters};
use webm_iterable::matroska_spec::{Master, MatroskaSpec as M};

use super::{
    EXTRA_LEN_MAX,
    ebml::Child,
    id,
    reader::{ReadError, ReadErrorKind},
};

const WAVE_FORMAT_ALAW: u16 = 6;
const WAVE_FORMAT_MULAW: u16 = 7;
const WAVE_FORMAT_G726: u16 = 0x45;
const WAVE_FORMAT_LEN: usize = 18;
/// What a decoder of Opus needs before a seek target (RFC 7845 section 4.6).
const OPUS_SEEK_PRE_ROLL_NS: u64 = 80_000_000;

/// Why parameters cannot be written.
pub fn refuse(p: &CodecParameters) -> Option<&'static str> {
    match p {
        CodecParameters::Video(v) if v.extra.len() > EXTRA_LEN_MAX => Some("its codec configuration is too large"),
        CodecParameters::Audio(a) if a.extra.len() > EXTRA_LEN_MAX => Some("its codec configuration is too large"),
        CodecParameters::Video(v) if v.width == 0 || v.height == 0 => Some("its picture size is not known"),
        CodecParameters::Audio(a) if a.sample_rate == 0 || a.channels == 0 => Some("its sampling rate is not known"),
        CodecParameters::Audio(AudioParameters {
            codec: AudioCodec::G726 { bits },
            ..
        }) if !(2..=5).contains(bits) => Some("G.726 has 2 to 5 bits a sample"),
        _ => None,
    }
}

/// How much later than its time a track's block is stamped: Opus' `CodecDelay`, which demuxers subtract again.
pub fn delay_us(p: &CodecParameters) -> i64 {
    match p {
        CodecParameters::Audio(a) if a.codec == AudioCodec::Opus => {
            i64::from(opus_pre_skip(&a.extra)) * 1_000_000 / 48_000
        }
        _ => 0,
    }
}

fn opus_pre_skip(head: &[u8]) -> u16 {
    head.get(10..12).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

/// The TrackEntry of track `index`.
pub fn entry(index: usize, p: &CodecParameters) -> M {
    let number = index as u64 + 1;
    let mut e = vec![
        M::TrackNumber(number),
        M::TrackUID(number),
        M::TrackType(if p.is_video() { 1 } else { 2 }),
        M::FlagLacing(0),
        M::Language("und".into()),
    ];
    match p {
        CodecParameters::Video(v) => {
            e.push(M::CodecID(video_id(v.codec).into()));
            if !v.extra.is_empty() {
                e.push(M::CodecPrivate(v.extra.to_vec()));
            }
            e.push(M::Video(Master::Full(vec![
                M::PixelWidth(u64::from(v.width)),
                M::PixelHeight(u64::from(v.height)),
            ])));
        }
        CodecParameters::Audio(a) => audio(&mut e, a),
    }
    M::TrackEntry(Master::Full(e))
}

fn audio(e: &mut Vec<M>, a: &AudioParameters) {
    let (codec_id, private, bits) = match a.codec {
        AudioCodec::Aac => ("A_AAC", a.extra.to_vec(), None),
        AudioCodec::Opus => ("A_OPUS", a.extra.to_vec(), None),
        AudioCodec::Pcma => ("A_MS/ACM", wave_format(a, WAVE_FORMAT_ALAW, 8), Some(8)),
        AudioCodec::Pcmu => ("A_MS/ACM", wave_format(a, WAVE_FORMAT_MULAW, 8), Some(8)),
        AudioCodec::G726 { bits } => ("A_MS/ACM", wave_format(a, WAVE_FORMAT_G726, bits), Some(bits)),
        AudioCodec::L16 => ("A_PCM/INT/BIG", Vec::new(), Some(16)),
    };
    e.push(M::CodecID(codec_id.into()));
    if !private.is_empty() {
        e.push(M::CodecPrivate(private));
    }
    if a.codec == AudioCodec::Opus {
        e.push(M::CodecDelay(
            delay_us(&CodecParameters::Audio(a.clone())) as u64 * 1000,
        ));
        e.push(M::SeekPreRoll(OPUS_SEEK_PRE_ROLL_NS));
    }
    let mut settings = vec![
        M::SamplingFrequency(f64::from(a.sample_rate)),
        M::Channels(u64::from(a.channels)),
    ];
    settings.extend(bits.map(|b| M::BitDepth(u64::from(b))));
    e.push(M::Audio(Master::Full(settings)));
}

const fn video_id(codec: VideoCodec) -> &'static str {
    match codec {
        VideoCodec::H264 => "V_MPEG4/ISO/AVC",
        VideoCodec::H265 => "V_MPEGH/ISO/HEVC",
        VideoCodec::Av1 => "V_AV1",
        VideoCodec::Mjpeg => "V_MJPEG",
    }
}

/// The codec of a video `CodecID`.
pub fn video_codec(codec_id: &str) -> Option<VideoCodec> {
    [VideoCodec::H264, VideoCodec::H265, VideoCodec::Av1, VideoCodec::Mjpeg]
        .into_iter()
        .find(|&c| video_id(c) == codec_id)
}

/// A WAVEFORMATEX, little endian.
fn wave_format(a: &AudioParameters, tag: u16, bits: u8) -> Vec<u8> {
    let channels = u16::from(a.channels);
    let bytes_per_second = (u64::from(a.sample_rate) * u64::from(channels) * u64::from(bits) / 8) as u32;
    let block_align = if tag == WAVE_FORMAT_G726 { 1 } else { channels };
    let mut w = Vec::with_capacity(WAVE_FORMAT_LEN);
    w.extend_from_slice(&tag.to_le_bytes());
    w.extend_from_slice(&channels.to_le_bytes());
    w.extend_from_slice(&a.sample_rate.to_le_bytes());
    w.extend_from_slice(&bytes_per_second.to_le_bytes());
    w.extend_from_slice(&block_align.to_le_bytes());
    w.extend_from_slice(&u16::from(bits).to_le_bytes());
    w.extend_from_slice(&0u16.to_le_bytes());
    w
}

/// The codec that a WAVEFORMATEX names.
pub fn wave_codec(private: &[u8]) -> Option<AudioCodec> {
    if private.len() < 16 {
        return None;
    }
    match u16::from_le_bytes([private[0], private[1]]) {
        WAVE_FORMAT_ALAW => Some(AudioCodec::Pcma),
        WAVE_FORMAT_MULAW => Some(AudioCodec::Pcmu),
        WAVE_FORMAT_G726 => match private[14] {
            bits @ 2..=5 => Some(AudioCodec::G726 { bits }),
            _ => None,
        },
        _ => None,
    }
}

/// Parameters from a TrackEntry. The frame rate is not in there.
pub fn parse(entry: &Child<'_>) -> Result<(u64, CodecParameters), ReadError> {
    let (mut number, mut kind, mut codec_id, mut private) = (0, 0, "", &[][..]);
    let (mut width, mut height, mut rate, mut channels) = (0, 0, 0.0, 1);
    for child in entry.children() {
        let c = child?;
        match c.id {
            id::TRACK_NUMBER => number = c.uint()?,
            id::TRACK_TYPE => kind = c.uint()?,
            id::CODEC_ID => codec_id = c.text()?,
            id::CODEC_PRIVATE => private = c.data,
            id::VIDEO | id::AUDIO => {
                for setting in c.children() {
                    let s = setting?;
                    match s.id {
                        id::PIXEL_WIDTH => width = s.uint()?,
                        id::PIXEL_HEIGHT => height = s.uint()?,
                        id::SAMPLING_FREQUENCY => rate = s.float()?,
                        id::CHANNELS => channels = s.uint()?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let bad = || ReadError::new(entry.at, ReadErrorKind::Track);
    let extra = Bytes::copy_from_slice(private);
    let p = match kind {
        1 => CodecParameters::Video(VideoParameters {
            codec: video_codec(codec_id).ok_or_else(bad)?,
            extra,
            width: u32::try_from(width).map_err(|_| bad())?,
            height: u32::try_from(height).map_err(|_| bad())?,
            frame_rate: None,
        }),
        2 => {
            let (codec, extra) = match codec_id {
                "A_AAC" => (AudioCodec::Aac, extra),
                "A_OPUS" => (AudioCodec::Opus, extra),
                "A_PCM/INT/BIG" => (AudioCodec::L16, Bytes::new()),
                "A_MS/ACM" => (wave_codec(private).ok_or_else(bad)?, Bytes::new()),
                _ => return Err(bad()),
            };
            if !(1.0..=4_294_967_295.0).contains(&rate) {
                return Err(bad());
            }
            CodecParameters::Audio(AudioParameters {
                codec,
                extra,
                sample_rate: rate as u32,
                channels: u8::try_from(channels).map_err(|_| bad())?,
            })
        }
        _ => return Err(bad()),
    };
    if refuse(&p).is_some() {
        return Err(bad());
    }
    Ok((number, p))
}
