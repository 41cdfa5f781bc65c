//! Access units out of RTMP's media messages, in the layout that is stored.
//!
//! NAL units go through the depacketizers of RTP, each as a packet, the last of a message with the marker bit: so parameter sets in band,
//! a picture in several messages and several pictures in one are treated as there.

use std::{collections::VecDeque, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use corenvr_media::{AudioCodec, AudioParameters, CodecParameters};
use smallvec::SmallVec;

use super::{
    MediaMessage, MediaMessageKind,
    flv::{self, Body, Codec, FlvError},
};
use crate::{
    bitstream::{
        aac::AudioConfig,
        av1::Obu,
        h264, h265,
        nal::{LENGTH_LEN, split_annex_b},
        opus,
    },
    format::{MediaFormat, MediaKind},
    rtp::{
        Packet,
        depacketize::{AccessUnit, DepacketizeError, Depacketizer, UNIT_PARTS_MAX},
    },
};

/// Ticks a second of the time stamps of [`Tracks`]' access units.
pub const CLOCK_RATE: u32 = 1000;
/// Units of sound that wait for [`Tracks::poll_audio`]. Further ones are dropped with [`DepacketizeError::NotPolled`].
const SOUND_UNITS_MAX: usize = 1024;
/// Texts of [`Tracks::not_recorded`]. Further ones are left out.
const NOT_RECORDED_MAX: usize = 8;
/// The rate of G.711, in Hz. FLV has no way to say another.
const G711_RATE: u32 = 8000;

/// What is wrong with a message. What could be read of it is used, and the stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrackError {
    /// The tag around the media.
    #[error(transparent)]
    Tag(#[from] FlvError),
    /// The codec's configuration.
    #[error("a configuration record of {0} that cannot be read")]
    Configuration(&'static str),
    /// The media itself.
    #[error(transparent)]
    Unit(#[from] DepacketizeError),
}

/// Turns the media messages of one stream into access units.
///
/// After each [`Self::push`] poll both tracks until `None`.
#[derive(Debug, Default)]
pub struct Tracks {
    video: Option<VideoTrack>,
    /// Pictures that a codec left behind when another came.
    pictures: VecDeque<AccessUnit>,
    sound: Option<Sound>,
    units: VecDeque<AccessUnit>,
    not_recorded: Vec<String>,
}

impl Tracks {
    /// For a stream that begins.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next message.
    pub fn push(&mut self, message: &MediaMessage) -> Result<(), TrackError> {
        let (tag, kind) = match message.kind {
            MediaMessageKind::Video => (flv::video(message.payload.clone())?, "video"),
            MediaMessageKind::Audio => (flv::audio(message.payload.clone())?, "sound"),
        };
        let Some(tag) = tag else { return Ok(()) };
        if tag.further_tracks {
            self.leave_out(|| format!("further {kind} tracks: only the first is recorded"));
        }
        match tag.codec {
            Codec::H264 | Codec::H265 | Codec::Av1 => self.picture(tag.codec, &tag.body, message.timestamp),
            Codec::Aac | Codec::Opus | Codec::Pcma | Codec::Pcmu => self.sound(tag.codec, tag.body, message.timestamp),
            Codec::Legacy { .. } | Codec::FourCc(_) if tag.further_tracks => Ok(()),
            Codec::Legacy { .. } | Codec::FourCc(_) => {
                self.leave_out(|| format!("{kind}: {} is not supported", tag.codec));
                Ok(())
            }
        }
    }

    /// The stream ends: what is whole of the picture in progress comes out.
    pub fn finish(&mut self) {
        if let Some(video) = &mut self.video {
            video.depacketizer.flush();
        }
    }

    /// The next access unit of the picture. Its time stamp is the presentation time in ms, wrapping at 32 bits.
    pub fn poll_video(&mut self) -> Option<AccessUnit> {
        self.pictures
            .pop_front()
            .or_else(|| self.video.as_mut()?.depacketizer.poll())
    }

    /// The next access unit of the sound, with its time in ms.
    pub fn poll_audio(&mut self) -> Option<AccessUnit> {
        self.units.pop_front()
    }

    /// The picture's parameters, as far as they are known.
    pub fn video_parameters(&self) -> Option<&Arc<CodecParameters>> {
        self.video.as_ref()?.depacketizer.parameters()
    }

    /// The sound's parameters, once they are known.
    pub fn audio_parameters(&self) -> Option<&Arc<CodecParameters>> {
        self.sound.as_ref().map(|s| &s.parameters)
    }

    /// What the stream carries and cannot be recorded, in words; each once.
    pub fn not_recorded(&self) -> &[String] {
        &self.not_recorded
    }

    fn leave_out(&mut self, words: impl FnOnce() -> String) {
        if self.not_recorded.len() < NOT_RECORDED_MAX {
            let words = words();
            if !self.not_recorded.contains(&words) {
                self.not_recorded.push(words);
            }
        }
    }

    fn picture(&mut self, codec: Codec, body: &Body, timestamp: u32) -> Result<(), TrackError> {
        if *body == Body::Nothing {
            return Ok(());
        }
        if self.video.as_ref().is_none_or(|v| v.codec != codec) {
            if let Some(mut before) = self.video.take() {
                before.depacketizer.flush();
                self.pictures.extend(std::iter::from_fn(|| before.depacketizer.poll()));
            }
            self.video = VideoTrack::new(codec);
        }
        let Some(video) = &mut self.video else { return Ok(()) };
        match body {
            Body::Configuration(record) if *record != video.record => video.configure(record),
            Body::Unit { data, composition_ms } => video.unit(data, timestamp.wrapping_add_signed(*composition_ms)),
            _ => Ok(()),
        }
    }

    fn sound(&mut self, codec: Codec, body: Body, timestamp: u32) -> Result<(), TrackError> {
        match body {
            Body::Nothing => Ok(()),
            Body::Configuration(record) => self.configure_sound(codec, &record),
            Body::Unit { data, .. } if data.is_empty() => Ok(()),
            Body::Unit { data, .. } => {
                if self.sound.as_ref().is_none_or(|s| s.codec != codec) {
                    self.configure_sound_by_unit(codec, &data)?;
                }
                let Some(sound) = &mut self.sound else { return Ok(()) };
                if self.units.len() >= SOUND_UNITS_MAX {
                    return Err(DepacketizeError::NotPolled.into());
                }
                let told = std::mem::replace(&mut sound.told, true);
                self.units.push_back(AccessUnit {
                    timestamp,
                    key: true,
                    // A copy, so that small sound does not hold the receive buffer it shares with pictures.
                    data: Bytes::copy_from_slice(&data),
                    lost: 0,
                    damaged: false,
                    parameters: (!told).then(|| sound.parameters.clone()),
                });
                Ok(())
            }
        }
    }

    fn configure_sound(&mut self, codec: Codec, record: &Bytes) -> Result<(), TrackError> {
        let parameters = match codec {
            Codec::Aac => {
                let config = AudioConfig::parse(record).ok_or(TrackError::Configuration("AAC"))?;
                AudioParameters {
                    codec: AudioCodec::Aac,
                    extra: Bytes::copy_from_slice(record),
                    sample_rate: config.sample_rate,
                    // Without a number the channels stand in the stream: two, nearly always.
                    channels: if config.channels == 0 { 2 } else { config.channels },
                }
            }
            Codec::Opus => opus_parameters(record).ok_or(TrackError::Configuration("Opus"))?,
            _ => return Ok(()),
        };
        self.set_sound(codec, parameters);
        Ok(())
    }

    /// For sound whose first unit says enough.
    fn configure_sound_by_unit(&mut self, codec: Codec, data: &[u8]) -> Result<(), TrackError> {
        let g711 = |codec| AudioParameters {
            codec,
            extra: Bytes::new(),
            sample_rate: G711_RATE,
            channels: 1,
        };
        let parameters = match codec {
            Codec::Pcma => g711(AudioCodec::Pcma),
            Codec::Pcmu => g711(AudioCodec::Pcmu),
            Codec::Opus => {
                // The stereo bit of the packet (RFC 6716 section 3.1).
                let channels = if data.first().is_some_and(|toc| toc & 4 != 0) {
                    2
                } else {
                    1
                };
                opus_parameters(&opus::head(channels)).ok_or(TrackError::Configuration("Opus"))?
            }
            _ => return Err(TrackError::Configuration("AAC")),
        };
        self.set_sound(codec, parameters);
        Ok(())
    }

    fn set_sound(&mut self, codec: Codec, parameters: AudioParameters) {
        let parameters = CodecParameters::Audio(parameters);
        if self.sound.as_ref().is_none_or(|s| *s.parameters != parameters) {
            self.sound = Some(Sound {
                codec,
                parameters: Arc::new(parameters),
                told: false,
            });
        }
    }
}

#[derive(Debug)]
struct Sound {
    codec: Codec,
    parameters: Arc<CodecParameters>,
    /// A unit came with the parameters.
    told: bool,
}

/// The parameters by an `OpusHead` (RFC 7845 section 5.1). The pre-skip is set to 0: a recording starts in the middle of a stream.
fn opus_parameters(head: &[u8]) -> Option<AudioParameters> {
    const PRE_SKIP: usize = 10;
    let channels = *head
        .get(9)
        .filter(|_| head.len() >= 19 && head.starts_with(b"OpusHead"))?;
    let mut extra = head.to_vec();
    extra[PRE_SKIP..PRE_SKIP + 2].fill(0);
    (channels > 0).then(|| AudioParameters {
        codec: AudioCodec::Opus,
        extra: extra.into(),
        sample_rate: 48_000,
        channels,
    })
}

#[derive(Debug)]
struct VideoTrack {
    codec: Codec,
    depacketizer: Depacketizer,
    /// The configuration in force; empty before the first.
    record: Bytes,
    /// Bytes of the length before each NAL unit.
    length_len: usize,
    /// Something of the message before could not be read.
    lost: bool,
}

impl VideoTrack {
    fn new(codec: Codec) -> Option<Self> {
        let encoding = match codec {
            Codec::H264 => "H264",
            Codec::H265 => "H265",
            Codec::Av1 => "AV1",
            _ => return None,
        };
        let format = MediaFormat {
            kind: MediaKind::Video,
            payload_type: 96,
            encoding: encoding.to_owned(),
            clock_rate: CLOCK_RATE,
            channels: 1,
            parameters: Vec::new(),
        };
        Some(Self {
            codec,
            depacketizer: Depacketizer::new(&format).ok()?,
            record: Bytes::new(),
            length_len: LENGTH_LEN,
            lost: false,
        })
    }

    /// Takes another configuration. The picture in progress has the one before.
    fn configure(&mut self, record: &Bytes) -> Result<(), TrackError> {
        self.depacketizer.flush();
        let (sets, length_len, name) = match self.codec {
            Codec::H264 => (h264::parameter_sets(record), record.get(4), "H.264"),
            Codec::H265 => (h265::parameter_sets(record), record.get(21), "H.265"),
            _ => (sequence_headers(record), None, "AV1"),
        };
        if starts_with_code(record) {
            // Some cameras put a byte stream where the record belongs.
            for set in split_annex_b(record) {
                self.depacketizer.learn(set);
            }
        } else {
            let sets = sets.ok_or(TrackError::Configuration(name))?;
            self.length_len = length_len.map_or(LENGTH_LEN, |b| usize::from(b & 3) + 1);
            for set in sets {
                self.depacketizer.learn(&set);
            }
        }
        self.record = Bytes::copy_from_slice(record);
        Ok(())
    }

    /// Takes the body of a message with media.
    fn unit(&mut self, data: &Bytes, timestamp: u32) -> Result<(), TrackError> {
        let (mut parts, mut whole) = match self.codec {
            Codec::Av1 => obus(data),
            _ => split(data, self.length_len),
        };
        if !whole && self.codec != Codec::Av1 && starts_with_code(data) {
            // Some cameras keep start codes.
            parts = split_annex_b(data).take(UNIT_PARTS_MAX).collect();
            whole = true;
        }
        let codec = self.codec;
        parts.retain(|part| is_stored(codec, part));
        let mut result = Ok(());
        let count = parts.len();
        for (index, part) in parts.into_iter().enumerate() {
            let packet = Packet {
                payload_type: 96,
                marker: whole && index + 1 == count,
                sequence: 0,
                timestamp,
                ssrc: 0,
                extension: None,
                payload: match codec {
                    Codec::Av1 => obu_packet(part),
                    _ => data.slice_ref(part),
                },
            };
            let lost = u32::from(std::mem::take(&mut self.lost));
            result = result.and(self.depacketizer.push(&packet, lost));
        }
        if !whole {
            // What is missing was at the end: the next message finds it lost before itself.
            self.lost = true;
            return Err(FlvError("lengths that do not fit the unit").into());
        }
        Ok(result?)
    }
}

fn starts_with_code(data: &[u8]) -> bool {
    data.starts_with(&[0, 0, 1]) || data.starts_with(&[0, 0, 0, 1])
}

type Parts<'a> = SmallVec<[&'a [u8]; 16]>;

/// The NAL units behind their lengths, up to one that does not fit, and whether all did.
fn split(mut data: &[u8], length_len: usize) -> (Parts<'_>, bool) {
    let mut parts = Parts::new();
    while !data.is_empty() {
        let part = data.split_at_checked(length_len).and_then(|(length, rest)| {
            let len = length.iter().fold(0, |len, b| (len << 8) | usize::from(*b));
            rest.split_at_checked(len)
        });
        match part {
            Some((part, rest)) if parts.len() < UNIT_PARTS_MAX => {
                data = rest;
                if !part.is_empty() {
                    parts.push(part);
                }
            }
            _ => return (parts, false),
        }
    }
    (parts, true)
}

/// The OBUs of a temporal unit, up to one that is cut off, and whether none was.
fn obus(mut data: &[u8]) -> (Parts<'_>, bool) {
    let mut parts = Parts::new();
    while !data.is_empty() {
        match Obu::split(data) {
            Some((_, rest)) if parts.len() < UNIT_PARTS_MAX => {
                parts.push(&data[..data.len() - rest.len()]);
                data = rest;
            }
            _ => return (parts, false),
        }
    }
    (parts, true)
}

/// An OBU as an RTP packet with one whole element carries it.
fn obu_packet(obu: &[u8]) -> Bytes {
    const ONE_ELEMENT: u8 = 0x10;
    let mut packet = BytesMut::with_capacity(1 + obu.len());
    packet.put_u8(ONE_ELEMENT);
    packet.put_slice(obu);
    packet.freeze()
}

/// The sequence headers of an `av1C` record. `None` if it is none.
fn sequence_headers(record: &Bytes) -> Option<Vec<Bytes>> {
    const MARKER_AND_VERSION: u8 = 0x81;
    let configuration = record
        .get(4..)
        .filter(|_| record.first() == Some(&MARKER_AND_VERSION))?;
    let (parts, whole) = obus(configuration);
    whole.then(|| parts.into_iter().map(|part| record.slice_ref(part)).collect())
}

/// Not the types that the codecs leave unspecified: RTP has its packet types there.
fn is_stored(codec: Codec, nal: &[u8]) -> bool {
    nal.first().is_some_and(|&head| match codec {
        Codec::H264 => matches!(h264::nal_kind(head), 1..=23),
        Codec::H265 => h265::nal_kind(head) < 48 && nal.len() > h265::HEADER_LEN,
        _ => true,
    })
}

#[cfg(test)]
#[path = "tracks_tests.rs"]
mod tests;
