//! A range of time from several segments as one finished Matroska file, without re-encoding.
//!
//! The file goes out front to back, header with Duration and Cues position first, so that it can be streamed to anyone: a first
//! pass over the footage finds out how everything will lie, a second one writes it.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use corenvr_media::{Frame, TimeRange, WallTime};

use crate::{
    SegmentHeader, SegmentMeta, SegmentWriter, Sink, WriteError,
    archive::Progress,
    mkv::{
        file::{self, FileError},
        reader::{ReadError, Timebase, parse_cluster, verify_cluster},
        writer::Seal,
    },
};

/// Most damaged clusters that a report lists; more are only counted.
const DAMAGED_MAX: usize = 1000;

/// Files whose ends and starts are this near have no gap between them.
const SEAM_US: i64 = 1_000_000;

/// What was exported.
#[derive(Debug, Default)]
pub struct Exported {
    /// From the first frame to the moment after the last: begins at the key frame at or before the start asked for.
    pub range: Option<TimeRange>,
    /// What of it was not recorded as it happened, but fetched later from an archive of the camera's own.
    pub backfilled: Vec<TimeRange>,
    /// Number of frames.
    pub frames: u64,
    /// Bytes written.
    pub bytes: u64,
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
    /// A segment could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The segment.
        path: PathBuf,
        /// Why.
        source: FileError,
    },
    /// The footage does not fit one file.
    #[error("the range is too long for one file: {0}")]
    Write(#[from] WriteError),
    /// The output could not be written.
    #[error("cannot write: {0}")]
    Output(#[source] io::Error),
    /// A segment changed between the two passes.
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

/// Counts bytes instead of keeping them.
struct Counter(usize);

impl Sink for Counter {
    fn extend(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
    fn len(&self) -> usize {
        self.0
    }
}

/// Writes the footage of `range` to `out`. `segments` are those of one camera, ordered, as [`crate::Archive::segments`] gives them.
/// `progress` sees the bytes read so far, in both passes, and ends the export by returning false.
pub fn export(
    segments: &[Arc<SegmentMeta>],
    range: TimeRange,
    out: &mut impl Write,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Exported, ExportError> {
    let segments: Vec<_> = segments
        .iter()
        .filter(|s| s.range().intersect(range).is_some())
        .map(Arc::as_ref)
        .collect();
    let first = *segments.first().ok_or(ExportError::Empty(range))?;
    one_set_of_parameters(&segments, range)?;
    let start = start_of(first, range.start);
    let header = SegmentHeader {
        camera: first.key.camera.clone(),
        start,
        tracks: Arc::clone(&first.tracks),
        gap_before: None,
        backfilled_until: None,
    };
    let mut job = Job {
        segments: &segments,
        from: start,
        to: range.end,
        progress,
        state: Progress {
            files: 0,
            files_total: 2 * segments.len() as u64,
            bytes: 0,
        },
        report: Exported::default(),
        first_pass: true,
    };
    let mut writer = SegmentWriter::new(header.clone())?;
    let plain_header = writer.header_block().len();
    let mut counter = Counter(0);
    job.run(|frames| Ok(writer.flush(frames, &mut counter).map(drop)?))?;
    if job.report.frames == 0 {
        return Err(ExportError::Empty(range));
    }
    let plan = writer.seal();

    let mut writer = SegmentWriter::new(header)?;
    let mut head = writer.header_block().to_vec();
    debug_assert_eq!(head.len(), plain_header);
    head[..plan.header_block.len()].copy_from_slice(&plan.header_block);
    out.write_all(&head).map_err(ExportError::Output)?;
    let mut buffer: Vec<u8> = Vec::new();
    job.first_pass = false;
    job.run(|frames| {
        buffer.clear();
        writer.flush(frames, &mut buffer)?;
        out.write_all(&buffer).map_err(ExportError::Output)
    })?;
    finish(out, &writer.seal(), &plan)?;
    let mut report = job.report;
    report.range = TimeRange::new(start, plan.end);
    report.backfilled = backfilled(&segments, report.range.unwrap_or(range));
    report.bytes = plan.final_size;
    Ok(report)
}

fn finish(out: &mut impl Write, seal: &Seal, plan: &Seal) -> Result<(), ExportError> {
    if seal != plan {
        return Err(ExportError::Changed);
    }
    out.write_all(&seal.append).map_err(ExportError::Output)?;
    out.flush().map_err(ExportError::Output)
}

/// Where the footage is back-filled; files that follow each other are one range.
fn backfilled(segments: &[&SegmentMeta], range: TimeRange) -> Vec<TimeRange> {
    let mut ranges: Vec<TimeRange> = Vec::new();
    let mut follows = false;
    for s in segments {
        let Some(cut) = s.range().intersect(range).filter(|_| s.backfilled) else {
            follows = false;
            continue;
        };
        match ranges.last_mut() {
            Some(last) if follows && cut.start.micros_since(last.end) <= SEAM_US => last.end = cut.end,
            _ => ranges.push(cut),
        }
        follows = true;
    }
    ranges
}

/// The time of the key frame at or before `from`; where the recording has none before, `from`, since sound may come before the first picture.
fn start_of(first: &SegmentMeta, from: WallTime) -> WallTime {
    match first.table.key_at_or_before(from) {
        Some(i) => first.table.keys[i].time,
        None => from.max(first.key.start),
    }
}

fn one_set_of_parameters(segments: &[&SegmentMeta], range: TimeRange) -> Result<(), ExportError> {
    let mut ranges: Vec<TimeRange> = Vec::new();
    let mut last: Option<&SegmentMeta> = None;
    for s in segments {
        let Some(cut) = s.range().intersect(range) else {
            continue;
        };
        match (last, ranges.last_mut()) {
            (Some(l), Some(r)) if l.tracks == s.tracks => r.end = r.end.max(cut.end),
            _ => ranges.push(cut),
        }
        last = Some(s);
    }
    match ranges.get(1) {
        Some(second) => Err(ExportError::ParametersChange {
            at: second.start,
            ranges,
        }),
        None => Ok(()),
    }
}

struct Job<'a> {
    segments: &'a [&'a SegmentMeta],
    from: WallTime,
    to: WallTime,
    progress: &'a mut dyn FnMut(Progress) -> bool,
    state: Progress,
    report: Exported,
    first_pass: bool,
}

impl Job<'_> {
    /// Hands the frames of the range to `take`, one cluster's at a time.
    fn run(&mut self, mut take: impl FnMut(&[Frame]) -> Result<(), ExportError>) -> Result<(), ExportError> {
        let mut cut = Cut::new(self.from, self.to);
        for s in self.segments {
            let read = |source| ExportError::Read {
                path: s.path.clone(),
                source,
            };
            let f = File::open(&s.path).map_err(|e| read(e.into()))?;
            let time = Timebase::new(s.key.start, &s.tracks);
            cut.has_video = time.has_video();
            let from = s
                .table
                .keys
                .iter()
                .rfind(|k| k.time <= self.from)
                .and_then(|k| s.table.cluster_at(k.block))
                .unwrap_or(0);
            for c in &s.table.clusters[from..] {
                if c.last < self.from || c.first >= self.to {
                    continue;
                }
                let bytes = Bytes::from(file::read_exact(&f, c.offset, c.len as usize).map_err(read)?);
                let frames = self.parse(&bytes, c.offset, &time, &s.path);
                let frames = cut.apply(frames, &time);
                if !frames.is_empty() {
                    take(&frames)?;
                }
                if self.first_pass {
                    self.report.frames += frames.len() as u64;
                }
                self.state.bytes += u64::from(c.len);
                if !(self.progress)(self.state) {
                    return Err(ExportError::Stopped);
                }
            }
            self.state.files += 1;
        }
        Ok(())
    }

    /// The frames of a cluster; none, and a note in the report, if it cannot be read.
    fn parse(&mut self, bytes: &Bytes, at: u64, time: &Timebase, path: &Path) -> Vec<Frame> {
        let (frames, error) = match parse_cluster(bytes, at, time) {
            Ok(frames) => (frames, verify_cluster(bytes, at).err()),
            Err(e) => (Vec::new(), Some(e)),
        };
        if let (true, Some(e)) = (self.first_pass, error) {
            if self.report.damaged.len() < DAMAGED_MAX {
                self.report.damaged.push((path.to_owned(), e));
            } else {
                self.report.damaged_more += 1;
            }
        }
        frames
    }
}

/// Which frames are in the range. Frames come in decode order, so one that is shown after the end may be needed by one before
/// it: it is held until that is known.
struct Cut {
    from: WallTime,
    to: WallTime,
    has_video: bool,
    begun: bool,
    held: Vec<Frame>,
}

impl Cut {
    const fn new(from: WallTime, to: WallTime) -> Self {
        Self {
            from,
            to,
            has_video: false,
            begun: false,
            held: Vec::new(),
        }
    }

    fn apply(&mut self, frames: Vec<Frame>, time: &Timebase) -> Vec<Frame> {
        let mut taken = Vec::with_capacity(frames.len());
        for f in frames {
            let video = time.is_video(f.track);
            self.begun |= !self.has_video || (video && f.key && f.time >= self.from);
            // Pictures that need one from before the range.
            if f.time < self.from || (video && !self.begun) {
                continue;
            }
            if f.time >= self.to {
                self.held.push(f);
                continue;
            }
            if self.held.iter().any(|h| h.track == f.track) {
                let (mut now, later): (Vec<_>, _) = self.held.drain(..).partition(|h| h.track == f.track);
                self.held = later;
                taken.append(&mut now);
            }
            taken.push(f);
        }
        taken
    }
}

#[cfg(test)]
mod tests;
