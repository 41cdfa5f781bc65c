//! What the channels show: access units that are played in an endless loop.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use corenvr_media::{AudioCodec, CodecParameters, Frame, VideoCodec};
use rand::{SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};

use crate::{
    Deviations,
    media::ps::{Muxer, Times},
};

/// Video or audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Track {
    Video,
    Audio,
}

/// The payload of an access unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitData {
    /// Video: NAL units without start codes, parameter sets in front of every key frame.
    Nals(Vec<Bytes>),
    /// Audio: samples of G.711, or one raw AAC frame without ADTS.
    Audio(Bytes),
}

/// One access unit of the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceUnit {
    /// Decoding can start here; false for audio.
    pub key: bool,
    /// When it is sent, in 1/90 000 s from the beginning of the turn: rises along the list.
    pub due_90k: i64,
    /// When it is shown or heard, in 1/90 000 s from the beginning of the turn.
    pub pts_90k: i64,
    /// The payload.
    pub data: UnitData,
}

impl SourceUnit {
    /// Video or audio.
    pub const fn track(&self) -> Track {
        match self.data {
            UnitData::Nals(_) => Track::Video,
            UnitData::Audio(_) => Track::Audio,
        }
    }
}

/// The access units cannot be played in a loop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// GB28181 knows H.264 and H.265 here.
    #[error("{0} video cannot be sent by GB28181")]
    Video(&'static str),
    /// Neither AAC nor G.711.
    #[error("{0} audio cannot be sent in a program stream")]
    Audio(&'static str),
    /// A loop begins with a key frame.
    #[error("the first access unit is no key frame")]
    NoKey,
    /// Sending times have to rise and to lie within the turn.
    #[error("access unit {0} is due before the one in front of it, or behind the end of the turn")]
    Order(usize),
    /// The codec configuration or a length-prefixed NAL unit is broken.
    #[error("the codec configuration or access unit {0} is not what its codec prescribes")]
    Malformed(usize),
}

/// A loop of access units.
#[derive(Debug, Clone)]
pub struct Source {
    pub(crate) video: VideoCodec,
    /// Codec, samples per second, channels.
    pub(crate) audio: Option<(AudioCodec, u32, u8)>,
    pub(crate) units: Vec<SourceUnit>,
    /// SHA-256 of each unit as the log has it: hashing once spares a load generator the work.
    pub(crate) hashes: Vec<[u8; 32]>,
    pub(crate) turn_90k: i64,
}

impl Source {
    /// A loop of `units` that takes `turn`. `audio` is codec, samples per second and channels; it may be there without any audio unit.
    pub fn new(
        video: VideoCodec,
        audio: Option<(AudioCodec, u32, u8)>,
        units: Vec<SourceUnit>,
        turn: Duration,
    ) -> Result<Self, SourceError> {
        if !matches!(video, VideoCodec::H264 | VideoCodec::H265) {
            return Err(SourceError::Video(video.name()));
        }
        if let Some((codec, ..)) = audio
            && !matches!(codec, AudioCodec::Aac | AudioCodec::Pcma | AudioCodec::Pcmu)
        {
            return Err(SourceError::Audio(codec.name()));
        }
        if !units.first().is_some_and(|u| u.key && u.track() == Track::Video) {
            return Err(SourceError::NoKey);
        }
        let turn_90k = (turn.as_micros() * 9 / 100) as i64;
        let mut last = 0;
        for (i, unit) in units.iter().enumerate() {
            if unit.due_90k < last || unit.due_90k >= turn_90k {
                return Err(SourceError::Order(i));
            }
            last = unit.due_90k;
        }
        let hashes = units.iter().map(|u| slices_sha256(video, u)).collect();
        Ok(Self {
            video,
            audio,
            units,
            hashes,
            turn_90k,
        })
    }

    /// A loop from frames in the layout that corenvr stores: each with the microsecond of the turn at which it is sent and that at which it is
    /// shown, in order of sending. Key frames without parameter sets get those of the track. An audio track that GB28181 cannot carry is left out.
    pub fn from_frames<'a>(
        tracks: &[CodecParameters],
        frames: impl IntoIterator<Item = (i64, i64, &'a Frame)>,
        turn: Duration,
    ) -> Result<Self, SourceError> {
        let Some((video_index, video)) = tracks.iter().enumerate().find_map(|(i, t)| match t {
            CodecParameters::Video(v) => Some((i, v)),
            CodecParameters::Audio(_) => None,
        }) else {
            return Err(SourceError::NoKey);
        };
        let audio = tracks.iter().enumerate().find_map(|(i, t)| match t {
            CodecParameters::Audio(a) if matches!(a.codec, AudioCodec::Aac | AudioCodec::Pcma | AudioCodec::Pcmu) => {
                Some((i, (a.codec, a.sample_rate, a.channels)))
            }
            _ => None,
        });
        let sets = parameter_sets(video.codec, &video.extra).ok_or(SourceError::Malformed(0))?;
        let mut units = Vec::new();
        for (i, (due_us, shown_us, frame)) in frames.into_iter().enumerate() {
            let track = usize::from(frame.track.0);
            let data = if track == video_index {
                let nals = split_nals(&frame.data).ok_or(SourceError::Malformed(i))?;
                UnitData::Nals(if frame.key && !nals.iter().any(|n| is_parameter_set(video.codec, n)) {
                    sets.iter().cloned().chain(nals).collect()
                } else {
                    nals
                })
            } else if audio.is_some_and(|(index, _)| index == track) {
                UnitData::Audio(frame.data.clone())
            } else {
                continue;
            };
            units.push(SourceUnit {
                key: frame.key && track == video_index,
                due_90k: due_us * 9 / 100,
                pts_90k: shown_us * 9 / 100,
                data,
            });
        }
        Self::new(video.codec, audio.map(|(_, a)| a), units, turn)
    }

    /// One turn as an MPEG program stream with the given deviations of the container, as it would stand in the RTP packets of a session.
    pub fn program_stream(&self, deviations: Deviations) -> Vec<u8> {
        let mut muxer = Muxer::new(self, deviations);
        let mut rng = StdRng::seed_from_u64(0);
        let mut stream = Vec::new();
        let lead = self.lead_90k();
        for unit in &self.units {
            let times = Times {
                pts: (90_000 + unit.pts_90k) as u64,
                dts: (90_000 + unit.due_90k - lead) as u64,
            };
            muxer.unit(unit, times, &mut rng, &mut stream);
        }
        stream
    }

    /// By how much decoding goes ahead of sending, so that no picture is shown before it is decoded.
    pub(crate) fn lead_90k(&self) -> i64 {
        let pictures = self.units.iter().filter(|u| u.track() == Track::Video);
        pictures.map(|u| u.due_90k - u.pts_90k).max().unwrap_or(0).max(0)
    }

    /// The units of one turn, in order of sending.
    pub fn units(&self) -> &[SourceUnit] {
        &self.units
    }

    /// The video codec.
    pub const fn video(&self) -> VideoCodec {
        self.video
    }

    /// The audio codec, samples per second and channels.
    pub const fn audio(&self) -> Option<(AudioCodec, u32, u8)> {
        self.audio
    }

    /// The same pictures without sound.
    pub fn without_audio(&self) -> Arc<Self> {
        let keep = |i: &usize| self.units[*i].track() == Track::Video;
        let indices: Vec<usize> = (0..self.units.len()).filter(keep).collect();
        Arc::new(Self {
            video: self.video,
            audio: None,
            units: indices.iter().map(|i| self.units[*i].clone()).collect(),
            hashes: indices.iter().map(|i| self.hashes[*i]).collect(),
            turn_90k: self.turn_90k,
        })
    }
}

/// Whether a NAL unit is part of a picture: type 1 to 5 (H.264, table 7-1) or 0 to 31 (H.265, table 7-1).
pub(crate) fn is_slice(codec: VideoCodec, nal: &[u8]) -> bool {
    let Some(first) = nal.first() else { return false };
    match codec {
        VideoCodec::H265 => first >> 1 & 0x3F < 32,
        _ => (1..=5).contains(&(first & 0x1F)),
    }
}

fn is_parameter_set(codec: VideoCodec, nal: &[u8]) -> bool {
    let Some(first) = nal.first() else { return false };
    match codec {
        VideoCodec::H265 => (32..=34).contains(&(first >> 1 & 0x3F)),
        _ => (7..=8).contains(&(first & 0x1F)),
    }
}

fn slices_sha256(codec: VideoCodec, unit: &SourceUnit) -> [u8; 32] {
    let mut hash = Sha256::new();
    match &unit.data {
        UnitData::Nals(nals) => nals.iter().filter(|n| is_slice(codec, n)).for_each(|n| hash.update(n)),
        UnitData::Audio(data) => hash.update(data),
    }
    hash.finalize().into()
}

/// NAL units behind 4-byte lengths.
fn split_nals(data: &Bytes) -> Option<Vec<Bytes>> {
    let mut nals = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let len = u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?) as usize;
        let end = (at + 4).checked_add(len)?;
        data.get(at + 4..end)?;
        nals.push(data.slice(at + 4..end));
        at = end;
    }
    Some(nals)
}

/// The parameter sets of an `avcC` (ISO/IEC 14496-15 5.3.3.1) or `hvcC` (8.3.3.1).
fn parameter_sets(codec: VideoCodec, extra: &Bytes) -> Option<Vec<Bytes>> {
    let mut sets = Vec::new();
    let mut at;
    let take = |at: &mut usize, len: usize| -> Option<Bytes> {
        extra.get(*at..*at + len)?;
        let part = extra.slice(*at..*at + len);
        *at += len;
        Some(part)
    };
    let number = |part: &Bytes| part.iter().fold(0, |n, b| n << 8 | usize::from(*b));
    if codec == VideoCodec::H265 {
        at = 22;
        for _ in 0..number(&take(&mut at, 1)?) {
            take(&mut at, 1)?;
            for _ in 0..number(&take(&mut at, 2)?) {
                let len = number(&take(&mut at, 2)?);
                sets.push(take(&mut at, len)?);
            }
        }
    } else {
        at = 5;
        for mask in [0x1F, 0xFF] {
            for _ in 0..number(&take(&mut at, 1)?) & mask {
                let len = number(&take(&mut at, 2)?);
                sets.push(take(&mut at, len)?);
            }
        }
    }
    Some(sets)
}
