//! Exports as MP4: ISO base media file format (ISO/IEC 14496-12) with `moov` in front of `mdat`, so that it plays while it downloads.
//!
//! - **Order.** The samples lie in `mdat` as they were recorded, all tracks mixed; a chunk is a run of samples of one track.
//! - **Time.** The movie's time 0 is the first moment of the clip. Decode times are the presentation times in rising order; where
//!   pictures are stored in another order than they are shown in, `ctts` (version 0) says by how much each is shown later, and an
//!   edit list takes off what the first one is. A track that begins later than the clip has an empty edit in front.
//!   Pictures have exactly the times of the recording, to the millisecond. Sound has them to within one millisecond: packets that
//!   follow each other without a hole are spaced by their samples, since millisecond stamps would make a decoder stretch each.
//! - **Time of day.** `creation_time` of `mvhd` and `tkhd` is the first moment in whole seconds. Exact to the microsecond it is in
//!   `udta/meta/ilst`, as RFC 3339 text: in `©day` (shown as "date" by ffprobe) and in the free-form item `CORENVR_START`, beside
//!   `CORENVR_CAMERA`, as the tags of a Matroska file are called.
//! - **Parameter sets** that came in band stay in the samples. The sample entries are `avc1` and `hvc1` nevertheless: players ask
//!   for those, and the configuration record holds what the stream begins with.
//! - **What cannot be held** is left out by name: G.726.

mod boxes;
mod entries;
mod moov;
mod times;

use std::io::Write;

use corenvr_media::{CodecParameters, Frame, TrackId, WallTime};

use self::{
    boxes::Boxes,
    entries::Held,
    times::{Timeline, packet_samples},
};
use super::{
    ExportError, Format, LaidOut, LeftOut, Survey,
    pass::{Footage, Window},
};
use crate::{SegmentHeader, archive::Progress};

/// Ticks a second of pictures: divides milliseconds and the usual frame rates.
const VIDEO_SCALE: u32 = 90_000;
/// Ticks a second of every track whose clip is so long that a gap in it may not fit 32 bits of finer ones: [`super::SPAN_MAX_DAYS`] fit.
const COARSE_SCALE: u32 = 1000;

/// The first pass.
pub fn lay_out(
    footage: &Footage,
    header: &SegmentHeader,
    survey: &mut Survey,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<LaidOut, ExportError> {
    let last = footage.segments.iter().filter_map(|s| s.table.last()).max();
    let span_us = last.map_or(0, |l| l.micros_since(footage.from));
    let mut movie = Movie::new(header, span_us)?;
    footage.fits(Format::Mp4)?;
    footage.walk(None, progress, &mut |step| {
        survey.note(step, movie.body_len);
        movie.add(step.frames);
        Ok(true)
    })?;
    survey.contents.frames = movie.frames();
    let end = movie.end();
    let left_out = movie.left_out.clone();
    let body_len = movie.body_len;
    let head = movie.into_head();
    let base = head.len() as u64;
    for p in &mut survey.places {
        p.at += base;
    }
    Ok(LaidOut {
        head,
        body_end: base + body_len,
        tail: Vec::new(),
        end,
        left_out,
    })
}

/// The piece of the body that is made of one cluster's frames.
pub fn write_piece<W: Write>(frames: &[Frame], kept: &[bool], window: &mut Window<'_, W>) -> Result<(), ExportError> {
    for f in frames {
        if kept.get(usize::from(f.track.0)).copied().unwrap_or(false) {
            window.put(&f.data)?;
        }
    }
    Ok(())
}

/// The sample tables of a file while they are gathered.
struct Movie {
    start: WallTime,
    camera: String,
    /// By track of the recording; `None` for one that is left out.
    tracks: Vec<Option<Track>>,
    left_out: Vec<LeftOut>,
    /// Bytes of samples so far.
    body_len: u64,
}

/// One track's tables.
struct Track {
    held: Held,
    /// Ticks a second.
    scale: u32,
    line: Timeline,
    sizes: Vec<u32>,
    bytes: u64,
    largest: u32,
    /// Numbers of the samples where decoding can start, from 1. Not kept for sound.
    keys: Vec<u32>,
    /// Where the chunks begin, from the first byte of samples.
    chunks: Vec<u64>,
    /// From which chunk on (from 1) how many samples are in each.
    runs: Vec<(u32, u32)>,
    in_chunk: u32,
}

impl Movie {
    fn new(header: &SegmentHeader, span_us: i64) -> Result<Self, ExportError> {
        let mut left_out = Vec::new();
        let mut tracks = Vec::with_capacity(header.tracks.len());
        for (i, p) in header.tracks.iter().enumerate() {
            match Held::new(p) {
                Ok(held) => tracks.push(Some(Track::new(held, scale(p, span_us)))),
                Err(reason) if p.is_video() => {
                    let codec = p.codec_name();
                    return Err(ExportError::NotInMp4 { codec, reason });
                }
                Err(_) => {
                    left_out.push(LeftOut {
                        track: TrackId(i as u8),
                        codec: p.codec_name(),
                    });
                    tracks.push(None);
                }
            }
        }
        if let (Some(first), true) = (left_out.first(), tracks.iter().all(Option::is_none)) {
            return Err(ExportError::NotInMp4 {
                codec: first.codec,
                reason: "cannot be held by an MP4, and nothing else is recorded",
            });
        }
        Ok(Self {
            start: header.start,
            camera: header.camera.as_str().to_owned(),
            tracks,
            left_out,
            body_len: 0,
        })
    }

    /// The next cluster's frames, in their order.
    fn add(&mut self, frames: &[Frame]) {
        let mut last = None;
        for f in frames {
            let Some(Some(t)) = self.tracks.get_mut(usize::from(f.track.0)) else {
                continue;
            };
            let samples = packet_samples(&t.held.params, &f.data);
            let time_us = f.time.micros_since(self.start);
            if last != Some(f.track) {
                t.begin_chunk(self.body_len);
            }
            last = Some(f.track);
            t.add(time_us, f.key, f.data.len() as u32, samples);
            self.body_len += f.data.len() as u64;
        }
    }

    fn frames(&self) -> u64 {
        self.tracks.iter().flatten().map(|t| t.sizes.len() as u64).sum()
    }

    /// The moment after the last frame.
    fn end(&mut self) -> WallTime {
        let mut end = self.start;
        for t in self.tracks.iter_mut().flatten() {
            t.line.finish();
            if t.line.samples() > 0 {
                let us = i128::from(t.line.end()) * 1_000_000 / i128::from(t.scale);
                end = end.max(self.start.offset(us as i64));
            }
        }
        end
    }

    /// Everything in front of the samples.
    fn into_head(self) -> Vec<u8> {
        let mut b = Boxes::default();
        let brands: Vec<_> = self.tracks.iter().flatten().filter_map(|t| t.held.brand()).collect();
        b.boxed(*b"ftyp", |b| {
            b.bytes(b"isom");
            b.u32(0x200);
            for brand in [b"isom", b"iso2", b"mp41"].into_iter().chain(brands) {
                b.bytes(brand);
            }
        });
        let body_len = self.body_len;
        let offsets = moov::write(&mut b, self);
        // The size of `moov` does not depend on the offsets in it.
        let large = body_len + 8 > u64::from(u32::MAX);
        let base = b.len() as u64 + if large { 16 } else { 8 };
        for range in offsets {
            b.add_to_u64s(range, base);
        }
        if large {
            b.u32(1);
            b.bytes(b"mdat");
            b.u64(body_len + 16);
        } else {
            b.u32(body_len as u32 + 8);
            b.bytes(b"mdat");
        }
        b.into_bytes()
    }
}

fn scale(p: &CodecParameters, span_us: i64) -> u32 {
    let fine = match p {
        CodecParameters::Video(_) => VIDEO_SCALE,
        CodecParameters::Audio(a) => a.sample_rate.max(1),
    };
    // A tenth is left for what lies around the span.
    let fits = i128::from(span_us) * i128::from(fine) / 1_000_000 < i128::from(u32::MAX / 10 * 9);
    if fits { fine } else { COARSE_SCALE }
}

impl Track {
    fn new(held: Held, scale: u32) -> Self {
        Self {
            line: Timeline::new(held.params.is_video(), scale),
            held,
            scale,
            sizes: Vec::new(),
            bytes: 0,
            largest: 0,
            keys: Vec::new(),
            chunks: Vec::new(),
            runs: Vec::new(),
            in_chunk: 0,
        }
    }

    fn begin_chunk(&mut self, at: u64) {
        self.end_chunk();
        self.chunks.push(at);
    }

    fn end_chunk(&mut self) {
        if self.in_chunk > 0 && self.runs.last().is_none_or(|r| r.1 != self.in_chunk) {
            self.runs.push((self.chunks.len() as u32, self.in_chunk));
        }
        self.in_chunk = 0;
    }

    /// `samples`: how many samples of sound at the codec's rate are in it, where that is known.
    fn add(&mut self, time_us: i64, key: bool, len: u32, samples: Option<u32>) {
        self.in_chunk += 1;
        self.sizes.push(len);
        self.bytes += u64::from(len);
        self.largest = self.largest.max(len);
        if key && self.held.params.is_video() {
            self.keys.push(self.sizes.len() as u32);
        }
        let rate = match &self.held.params {
            CodecParameters::Audio(a) => a.sample_rate,
            CodecParameters::Video(_) => 0,
        };
        let lasts = samples.filter(|_| self.scale == rate).map(i64::from);
        self.line.push(time_us, lasts);
    }
}

#[cfg(test)]
mod tests;
