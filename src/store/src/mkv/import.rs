//! Clips that other programs wrote, for simulated cameras: any Matroska file that fits memory, read by `matroska-demuxer`,
//! which knows lacing, block groups and unknown sizes. Recordings of corenvr's own are read by [`super::reader`].

use std::{
    io::{self, Cursor, Read, Seek, SeekFrom},
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use corenvr_media::{
    AudioCodec, AudioParameters, CodecParameters, Frame, TrackId, VideoCodec, VideoParameters, WallTime,
};
use matroska_demuxer::{DemuxError, MatroskaFile, TrackEntry, TrackType};

use super::{EXTRA_LEN_MAX, tracks};

/// Largest clip; a larger one is refused.
pub const CLIP_LEN_MAX: usize = 512 << 20;
/// Most frames of a clip; one with more is refused.
pub const CLIP_FRAMES_MAX: usize = 1 << 20;

/// A clip: at most one video and one audio track, the video track first.
#[derive(Debug, Clone)]
pub struct Clip {
    /// The tracks; `tracks[i]` describes `TrackId(i)`.
    pub tracks: Vec<CodecParameters>,
    /// The frames in the file's order; their times count from the Unix epoch.
    pub frames: Vec<Frame>,
    /// Codec ids of tracks that were left out.
    pub skipped: Vec<String>,
}

/// A clip cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is too large.
    #[error("a clip of {0} bytes: at most {CLIP_LEN_MAX} bytes are read")]
    TooLarge(usize),
    /// It has too many frames.
    #[error("more than {CLIP_FRAMES_MAX} frames")]
    TooManyFrames,
    /// It is not Matroska, or damaged.
    #[error("not a readable Matroska file: {0}")]
    Demux(String),
    /// No track has a codec that corenvr knows.
    #[error("no track with a codec that corenvr knows (found: {0})")]
    NoTrack(String),
    /// The file's NAL units do not have 4-byte lengths.
    #[error("the clip's NAL units have {0}-byte lengths: remux it with ffmpeg -c copy")]
    NalLength(u8),
}

impl From<DemuxError> for ImportError {
    fn from(e: DemuxError) -> Self {
        Self::Demux(e.to_string())
    }
}

/// A track that is taken.
struct Source {
    number: u64,
    codec_delay_us: i64,
    /// Spacing of frames that share a block, and so a time stamp.
    spacing_us: i64,
    swap: bool,
    last: Option<(u64, i64)>,
}

/// Reads a whole clip.
pub fn read_clip(data: &[u8]) -> Result<Clip, ImportError> {
    if data.len() > CLIP_LEN_MAX {
        return Err(ImportError::TooLarge(data.len()));
    }
    // The demuxer computes with what the file says in a few places without checking for overflow.
    catch_unwind(AssertUnwindSafe(|| read(data)))
        .unwrap_or_else(|_| Err(ImportError::Demux("numbers in it make no sense".to_owned())))
}

/// Memory that can be read and sought in only so often: some damaged files send the demuxer around in a circle.
struct Bounded<'a> {
    data: Cursor<&'a [u8]>,
    calls_left: u64,
}

impl Bounded<'_> {
    fn count(&mut self) -> io::Result<()> {
        let left = self.calls_left.checked_sub(1);
        self.calls_left = left.ok_or_else(|| io::Error::other("reading it leads around in a circle"))?;
        Ok(())
    }
}

impl Read for Bounded<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.count()?;
        self.data.read(into)
    }
}

impl Seek for Bounded<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.count()?;
        self.data.seek(to)
    }
}

fn read(data: &[u8]) -> Result<Clip, ImportError> {
    // Every element takes some calls and at least two bytes.
    let data = Bounded {
        data: Cursor::new(data),
        calls_left: 1024 + 16 * data.len() as u64,
    };
    let mut file = MatroskaFile::open(data)?;
    let scale_ns = file.info().timestamp_scale().get();
    let mut clip = Clip {
        tracks: Vec::new(),
        frames: Vec::new(),
        skipped: Vec::new(),
    };
    let mut sources = Vec::new();
    for kind in [TrackType::Video, TrackType::Audio] {
        for t in file.tracks().iter().filter(|t| t.track_type() == kind) {
            match parameters(t)? {
                Some(p) if t.content_encodings().is_none() && !sources.iter().any(|(k, _)| *k == kind) => {
                    sources.push((kind, source(t, &p)));
                    clip.tracks.push(p);
                }
                _ => clip.skipped.push(t.codec_id().chars().take(64).collect()),
            }
        }
    }
    if sources.is_empty() {
        return Err(ImportError::NoTrack(clip.skipped.join(", ")));
    }
    let mut frame = matroska_demuxer::Frame::default();
    let mut more = true;
    while more {
        frame.track = 0;
        more = file.next_frame(&mut frame)?;
        // A last block in a group that ends with elements unknown to the demuxer is read, and then reported as the end.
        if frame.track == 0 {
            continue;
        }
        let Some(i) = sources.iter().position(|(_, s)| s.number == frame.track) else {
            continue;
        };
        if clip.frames.len() >= CLIP_FRAMES_MAX {
            return Err(ImportError::TooManyFrames);
        }
        let time = sources[i].1.time(frame.timestamp, scale_ns);
        if sources[i].1.swap {
            frame
                .data
                .as_chunks_mut()
                .0
                .iter_mut()
                .for_each(|sample: &mut [u8; 2]| sample.reverse());
        }
        clip.frames.push(Frame {
            track: TrackId(i as u8),
            time: WallTime::from_micros(time),
            key: frame
                .is_keyframe
                .unwrap_or_else(|| is_key(&clip.tracks[i], &frame.data)),
            data: Bytes::copy_from_slice(&frame.data),
        });
    }
    Ok(clip)
}

fn source(t: &TrackEntry, p: &CodecParameters) -> Source {
    let default = t.default_duration().map(|d| (d.get() / 1000) as i64);
    let aac = match p {
        CodecParameters::Audio(a) if a.codec == AudioCodec::Aac => Some(1024 * 1_000_000 / i64::from(a.sample_rate)),
        _ => None,
    };
    Source {
        number: t.track_number().get(),
        codec_delay_us: (t.codec_delay().unwrap_or(0) / 1000) as i64,
        spacing_us: default.or(aac).unwrap_or(0).clamp(0, 10_000_000),
        swap: t.codec_id() == "A_PCM/INT/LIT",
        last: None,
    }
}

impl Source {
    fn time(&mut self, timestamp: u64, scale_ns: u64) -> i64 {
        let us = match self.last {
            Some((stamp, us)) if stamp == timestamp => us + self.spacing_us,
            _ => {
                let us = u128::from(timestamp) * u128::from(scale_ns) / 1000;
                i64::try_from(us)
                    .unwrap_or(i64::MAX / 2)
                    .saturating_sub(self.codec_delay_us)
            }
        };
        self.last = Some((timestamp, us));
        us
    }
}

fn parameters(t: &TrackEntry) -> Result<Option<CodecParameters>, ImportError> {
    let private = t.codec_private().unwrap_or(&[]);
    if private.len() > EXTRA_LEN_MAX {
        return Ok(None);
    }
    let extra = Bytes::copy_from_slice(private);
    let p = if let (Some(codec), Some(v)) = (tracks::video_codec(t.codec_id()), t.video()) {
        let size_field = match codec {
            VideoCodec::H264 => Some(4),
            VideoCodec::H265 => Some(21),
            VideoCodec::Mjpeg | VideoCodec::Av1 => None,
        };
        if let Some(i) = size_field {
            match private.get(i).map(|b| (b & 3) + 1) {
                Some(4) => {}
                Some(n) => return Err(ImportError::NalLength(n)),
                None => return Ok(None),
            }
        }
        CodecParameters::Video(VideoParameters {
            codec,
            extra: if codec == VideoCodec::Mjpeg {
                Bytes::new()
            } else {
                extra
            },
            width: u32::try_from(v.pixel_width().get()).unwrap_or(0),
            height: u32::try_from(v.pixel_height().get()).unwrap_or(0),
            frame_rate: None,
        })
    } else if let Some(a) = t.audio() {
        let bits = a.bit_depth().map_or(16, std::num::NonZeroU64::get);
        let (codec, extra) = match t.codec_id() {
            "A_OPUS" => (AudioCodec::Opus, extra),
            "A_PCM/INT/BIG" | "A_PCM/INT/LIT" if bits == 16 => (AudioCodec::L16, Bytes::new()),
            "A_MS/ACM" => match tracks::wave_codec(private) {
                Some(codec) => (codec, Bytes::new()),
                None => return Ok(None),
            },
            id if id.starts_with("A_AAC") => (AudioCodec::Aac, extra),
            _ => return Ok(None),
        };
        CodecParameters::Audio(AudioParameters {
            codec,
            extra,
            sample_rate: a.sampling_frequency() as u32,
            channels: u8::try_from(a.channels().get()).unwrap_or(0),
        })
    } else {
        return Ok(None);
    };
    Ok(tracks::refuse(&p).is_none().then_some(p))
}

/// Whether a frame from a `BlockGroup`, which does not say so in the demuxer's view, can be decoded by itself.
fn is_key(p: &CodecParameters, data: &[u8]) -> bool {
    let CodecParameters::Video(v) = p else { return true };
    match v.codec {
        VideoCodec::Mjpeg => true,
        VideoCodec::H264 => nal_headers(data).any(|b| b & 0x1F == 5),
        VideoCodec::H265 => nal_headers(data).any(|b| (16..=21).contains(&(b >> 1 & 0x3F))),
        // A random access point's temporal unit starts with a sequence header (AV1 7.6).
        VideoCodec::Av1 => data.first().is_some_and(|b| b >> 3 & 0xF == 1),
    }
}

/// The first byte of each NAL unit.
fn nal_headers(mut data: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (len, rest) = data.split_first_chunk::<4>()?;
        let (nal, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        data = rest;
        nal.first().copied()
    })
}
