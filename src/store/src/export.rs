//! A range of time from several segments as one finished file, Matroska or MP4, without re-encoding.
//!
//! A file is made in two passes. [`prepare`] reads the footage once and finds out where every byte will lie: from then on the
//! size is known, and a strong entity tag. [`Prepared::write`] writes any part of the file, as often as wanted, reading only the
//! segments that part is made of; both formats have everything a player needs at the front, so that a file plays while it is
//! still on its way. The whole file and the sum of its parts are the same bytes.
//!
//! ```text
//! head    MKV: header block with Duration and SeekHead    MP4: ftyp, moov, the head of mdat    kept in memory
//! body    one piece for each cluster of the footage, at a place that is kept in memory         made anew from the segments
//! tail    MKV: Cues and table                             MP4: nothing                         kept in memory
//! ```
//!
//! **Memory.** Only tables grow with the footage: the segments' own, 24 bytes for each cluster, and of an MP4 its sample tables,
//! 20 to 44 bytes a frame ([`FRAMES_MAX`] of them at most, which is a day of 25 pictures a second with sound; building them
//! takes up to three times that for the moment). [`Prepared::memory`] tells. Besides, one cluster at a time is held.
//!
//! **Gaps.** The time line of a file is that of the wall clock: a moment in the file is its first moment plus the time since then,
//! also behind a gap, over which a player shows the last picture before it. So picture and sound are in step everywhere, and a
//! player's position is a time of day. [`Exported::gaps`] names the gaps.

use std::{
    io::{self, Write},
    ops::Range,
    path::PathBuf,
    sync::Arc,
};

use corenvr_media::{TimeRange, TrackId, WallTime};
use sha2::{Digest, Sha256};

use crate::{
    GapCause, SegmentHeader, SegmentMeta, WriteError,
    archive::{Gap, Progress},
    mkv::{file::FileError, reader::ReadError},
};

mod mkv;
mod mp4;
mod pass;

use pass::{Footage, Place, Step, Window};

/// Most damaged clusters that a report lists; more are only counted.
const DAMAGED_MAX: usize = 1000;
/// Files whose ends and starts are this near have no gap between them.
const SEAM_US: i64 = 1_000_000;
/// Most frames, of all tracks, in one MP4; a range with more is refused before anything is read ([`ExportError::TooLong`]).
pub const FRAMES_MAX: u64 = 4_000_000;
/// Most clusters of footage in one file, of either format; a range with more is refused likewise.
pub const CLUSTERS_MAX: u64 = 1 << 20;
/// Longest span of one MP4 in days, so that every time in it fits its field; a longer one is refused likewise.
pub const SPAN_MAX_DAYS: i64 = 40;
/// What an entity tag begins with: to be changed with the bytes that are written.
const FORMAT_VERSION: u8 = 1;

/// The kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Matroska, as the segments are: holds every codec.
    Mkv,
    /// ISO base media, for players that know nothing else.
    Mp4,
}

impl Format {
    /// The format of files that end so.
    pub fn of_extension(extension: &str) -> Option<Self> {
        [Self::Mkv, Self::Mp4].into_iter().find(|f| f.extension() == extension)
    }

    /// How such files end: `mkv`, `mp4`.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Mkv => "mkv",
            Self::Mp4 => "mp4",
        }
    }

    /// The media type (RFC 9559 section 27.3, RFC 4337).
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Mkv => "video/matroska",
            Self::Mp4 => "video/mp4",
        }
    }
}

/// A track that the file does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut {
    /// The track.
    pub track: TrackId,
    /// Its codec, as people call it.
    pub codec: &'static str,
}

/// What is in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// From the first frame to the moment after the last: begins at the key frame at or before the start asked for.
    pub range: Option<TimeRange>,
    /// What of it was not recorded as it happened, but fetched later from an archive of the camera's own.
    pub backfilled: Vec<TimeRange>,
    /// Time inside the range without footage, over a second each.
    pub gaps: Vec<Gap>,
    /// Time inside the range that was recorded twice, because a clock was set back. A Matroska file has both by their times; in
    /// an MP4, whose time cannot go back, what was recorded second is decoded after the first and presented at its own times.
    pub overlaps: Vec<TimeRange>,
    /// Number of frames.
    pub frames: u64,
    /// Bytes of the whole file.
    pub bytes: u64,
    /// Tracks whose codec the format cannot hold.
    pub left_out: Vec<LeftOut>,
    /// Clusters whose checksum is wrong (their frames are in the file) or that cannot be read at all (their frames are not).
    pub damaged: Vec<(PathBuf, ReadError)>,
    /// Damaged clusters beyond those listed.
    pub damaged_more: u64,
}

/// An export failed. What was written of the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no footage in the range.
    #[error("there is no footage from {} to {}", .0.start, .0.end)]
    Empty(TimeRange),
    /// One file has one set of codec parameters.
    #[error(
        "the codec parameters change at {at}: export these ranges one by one: {}",
        list(ranges)
    )]
    ParametersChange {
        /// When they change for the first time.
        at: WallTime,
        /// What can be exported in one file each.
        ranges: Vec<TimeRange>,
    },
    /// The footage does not fit one file.
    #[error(
        "the range holds more than {limit}, the most that one file can have: end it at {until} and export what follows as another file"
    )]
    TooLong {
        /// Of what there is too much, with the number.
        limit: String,
        /// How far one file would go.
        until: WallTime,
    },
    /// An MP4 cannot hold what was recorded.
    #[error("{codec} {reason}: export it as .mkv, which holds everything that is recorded")]
    NotInMp4 {
        /// The codec.
        codec: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A segment could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The segment.
        path: PathBuf,
        /// Why.
        source: FileError,
    },
    /// The footage cannot be written as it is.
    #[error("the footage does not fit one file: {0}")]
    Write(#[from] WriteError),
    /// The output could not be written.
    #[error("cannot write: {0}")]
    Output(#[source] io::Error),
    /// A segment changed, or went, since the export was prepared.
    #[error("a recording changed while it was exported")]
    Changed,
    /// The caller wants no more.
    #[error("stopped")]
    Stopped,
}

fn list(ranges: &[TimeRange]) -> String {
    let text: Vec<_> = ranges.iter().map(|r| format!("{} to {}", r.start, r.end)).collect();
    text.join(", ")
}

/// What makes two exports the same without reading any footage: equal for calls whose file would be byte-identical as long as no
/// segment is damaged on disk in between. Knows a growing segment by what is durable of it and in the range.
pub fn identity(segments: &[Arc<SegmentMeta>], range: TimeRange, format: Format) -> Result<[u8; 32], ExportError> {
    Ok(Footage::new(segments, range)?.identity(format).finalize().into())
}

/// How many frames a file of this range would have, at most; of all tracks.
pub fn frames(segments: &[Arc<SegmentMeta>], range: TimeRange) -> Result<u64, ExportError> {
    Ok(Footage::new(segments, range)?.frames())
}

/// A file whose every byte is decided.
#[derive(Debug)]
pub struct Prepared {
    format: Format,
    footage: Footage,
    header: SegmentHeader,
    /// Which tracks the file has.
    kept: Vec<bool>,
    head: Vec<u8>,
    /// Where the pieces of the body are, in order; offsets from the start of the file.
    places: Vec<Place>,
    body_end: u64,
    tail: Vec<u8>,
    contents: Exported,
    etag: String,
}

/// The first pass over the footage of `range`. `segments` are those of one camera, ordered, as [`crate::Archive::segments`] gives
/// them; of a growing one, what was durable then is exported. `progress` sees what was read in this pass, and ends it by returning
/// false.
pub fn prepare(
    segments: &[Arc<SegmentMeta>],
    range: TimeRange,
    format: Format,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Prepared, ExportError> {
    let footage = Footage::new(segments, range)?;
    let header = SegmentHeader {
        camera: footage.first().key.camera.clone(),
        start: footage.from,
        tracks: Arc::clone(&footage.first().tracks),
        gap_before: None,
        backfilled_until: None,
    };
    let mut survey = Survey {
        hash: footage.identity(format),
        places: Vec::new(),
        contents: Exported::default(),
    };
    let laid = match format {
        Format::Mkv => mkv::lay_out(&footage, &header, &mut survey, progress)?,
        Format::Mp4 => mp4::lay_out(&footage, &header, &mut survey, progress)?,
    };
    let mut contents = survey.contents;
    if contents.frames == 0 {
        return Err(ExportError::Empty(range));
    }
    let true_range = TimeRange {
        start: footage.from,
        end: laid.end.max(footage.from),
    };
    contents.range = Some(true_range);
    contents.backfilled = footage.backfilled(true_range);
    (contents.gaps, contents.overlaps) = footage.seams(true_range);
    contents.left_out = laid.left_out;
    contents.bytes = laid.body_end + laid.tail.len() as u64;
    survey.hash.update(contents.bytes.to_le_bytes());
    Ok(Prepared {
        format,
        kept: (0..header.tracks.len())
            .map(|i| contents.left_out.iter().all(|l| usize::from(l.track.0) != i))
            .collect(),
        header,
        head: laid.head,
        places: survey.places,
        body_end: laid.body_end,
        tail: laid.tail,
        etag: etag(&survey.hash.finalize()),
        contents,
        footage,
    })
}

fn etag(hash: &[u8]) -> String {
    let half = hash.iter().take(16).fold(0u128, |n, &b| n << 8 | u128::from(b));
    format!("\"{half:032x}\"")
}

/// What the first pass finds out, whatever the format.
struct Survey {
    hash: Sha256,
    places: Vec<Place>,
    contents: Exported,
}

/// How a file will lie.
struct LaidOut {
    head: Vec<u8>,
    body_end: u64,
    tail: Vec<u8>,
    /// The moment after the last frame.
    end: WallTime,
    left_out: Vec<LeftOut>,
}

impl Survey {
    /// Notes one cluster of the footage whose piece begins at `at`.
    fn note(&mut self, step: &Step<'_>, at: u64) {
        self.hash.update(step.sum.to_le_bytes());
        if let Some(e) = step.damage {
            self.hash.update([1]);
            if self.contents.damaged.len() < DAMAGED_MAX {
                self.contents.damaged.push((step.path.to_owned(), e));
            } else {
                self.contents.damaged_more += 1;
            }
        }
        if !step.frames.is_empty() {
            self.contents.frames += step.frames.len() as u64;
            self.places.push(Place {
                segment: step.segment,
                cluster: step.cluster,
                at,
                sum: step.sum,
                clean: step.clean,
            });
        }
    }
}

impl Prepared {
    /// What the file holds.
    pub const fn contents(&self) -> &Exported {
        &self.contents
    }

    /// Bytes of the whole file.
    pub const fn bytes(&self) -> u64 {
        self.contents.bytes
    }

    /// A strong entity tag (RFC 9110 section 8.8.3), with its quotes: the same as long as the file would be byte for byte the same.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// The kind of file.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Bytes of memory that it takes while it is kept.
    pub fn memory(&self) -> usize {
        let tables: usize = self.footage.segments.iter().map(|s| table_memory(s)).sum();
        self.head.len() + self.tail.len() + self.places.len() * size_of::<Place>() + tables
    }

    /// Writes the bytes `range` of the file; what reaches behind its end is not there to be written. `progress` sees what was read
    /// for it, and ends it by returning false.
    pub fn write(
        &self,
        range: Range<u64>,
        out: &mut impl Write,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(), ExportError> {
        let mut window = Window::new(out, range.start..range.end.min(self.bytes()));
        window.put(&self.head)?;
        if window.wants(self.body_end) && window.range.start < self.body_end {
            self.write_body(&mut window, progress)?;
        }
        window.at = self.body_end;
        window.put(&self.tail)?;
        window.out.flush().map_err(ExportError::Output)
    }

    /// Makes the pieces anew, from the last place at or before the first byte asked for at which the footage can be entered.
    fn write_body<W: Write>(
        &self,
        window: &mut Window<'_, W>,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(), ExportError> {
        let before = self.places.partition_point(|p| p.at <= window.range.start);
        let entry = self.places[..before].iter().rposition(|p| p.clean);
        let mut next = entry.unwrap_or(0);
        let Some(first) = self.places.get(next) else {
            return Ok(());
        };
        window.at = first.at;
        let mut pieces = match self.format {
            Format::Mkv => Pieces::Mkv(Box::new(mkv::Pieces::new(&self.header, first.at)?)),
            Format::Mp4 => Pieces::Mp4(&self.kept),
        };
        self.footage
            .walk(entry.map(|i| self.places[i]), progress, &mut |step| {
                if step.frames.is_empty() {
                    return Ok(true);
                }
                let place = self.places.get(next).ok_or(ExportError::Changed)?;
                let same = (place.segment, place.cluster, place.sum) == (step.segment, step.cluster, step.sum);
                if !same || window.at != place.at {
                    return Err(ExportError::Changed);
                }
                next += 1;
                match &mut pieces {
                    Pieces::Mkv(p) => window.put(p.piece(step.frames)?)?,
                    Pieces::Mp4(kept) => mp4::write_piece(step.frames, kept, window)?,
                }
                Ok(window.wants(self.body_end))
            })?;
        let complete = next == self.places.len() && window.at == self.body_end;
        if complete || window.at >= window.range.end {
            Ok(())
        } else {
            Err(ExportError::Changed)
        }
    }
}

enum Pieces<'a> {
    Mkv(Box<mkv::Pieces>),
    Mp4(&'a [bool]),
}

fn table_memory(s: &SegmentMeta) -> usize {
    size_of::<SegmentMeta>()
        + s.table.clusters.capacity() * size_of::<crate::ClusterSpan>()
        + s.table.keys.capacity() * size_of::<crate::KeyFrame>()
}

/// The cause of a gap before a segment that says none.
const NO_CAUSE: GapCause = GapCause::Unknown;

#[cfg(test)]
pub(crate) mod tests;
