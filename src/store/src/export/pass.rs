//! One pass over the footage of a range: which segments and clusters, which frames of them, and where a pass can be entered.

use std::{
    fs::File,
    io::{self, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use corenvr_media::{Frame, TimeRange, WallTime};
use sha2::{Digest, Sha256};

use super::{CLUSTERS_MAX, ExportError, FORMAT_VERSION, FRAMES_MAX, Format, NO_CAUSE, SEAM_US, SPAN_MAX_DAYS};
use crate::{
    ClusterSpan, SegmentMeta, SegmentState,
    archive::{Gap, Progress},
    mkv::{
        file::{self, FileError},
        reader::{ReadError, Timebase, parse_cluster, verify_cluster},
    },
};

/// The segments of a range, all of one set of codec parameters.
#[derive(Debug)]
pub struct Footage {
    pub segments: Vec<Arc<SegmentMeta>>,
    /// The first frame's time.
    pub from: WallTime,
    to: WallTime,
}

/// Where in the file the piece made of one cluster lies.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Index of the segment.
    pub segment: u32,
    /// Index of the cluster in it.
    pub cluster: u32,
    /// CRC-32 of the cluster's bytes.
    pub sum: u32,
    /// A pass can be entered here: no frame of an earlier cluster is still to come.
    pub clean: bool,
    /// The first byte of the piece.
    pub at: u64,
}

/// One cluster on the way through a pass.
pub struct Step<'a> {
    pub segment: u32,
    pub cluster: u32,
    pub path: &'a Path,
    pub sum: u32,
    /// As [`Place::clean`].
    pub clean: bool,
    /// What of it, and of what was held before it, is in the file.
    pub frames: &'a [Frame],
    pub damage: Option<ReadError>,
}

impl Footage {
    /// Chooses the segments and refuses what cannot be one file.
    pub fn new(segments: &[Arc<SegmentMeta>], range: TimeRange) -> Result<Self, ExportError> {
        let chosen: Vec<_> = segments
            .iter()
            .filter(|s| s.range().intersect(range).is_some())
            .cloned()
            .collect();
        let first = chosen.first().ok_or(ExportError::Empty(range))?;
        one_set_of_parameters(&chosen, range)?;
        Ok(Self {
            from: start_of(first, range.start),
            to: range.end,
            segments: chosen,
        })
    }

    pub fn first(&self) -> &SegmentMeta {
        &self.segments[0]
    }

    /// The clusters that a pass reads of a segment, with their indices.
    fn clusters<'a>(&self, s: &'a SegmentMeta) -> impl Iterator<Item = (usize, &'a ClusterSpan)> + use<'a> {
        let (from, to) = (self.from, self.to);
        let key = s.table.keys.iter().rfind(|k| k.time <= from);
        let skip = key.and_then(|k| s.table.cluster_at(k.block)).unwrap_or(0);
        let inside = move |c: &ClusterSpan| c.last >= from && c.first < to;
        s.table
            .clusters
            .iter()
            .enumerate()
            .skip(skip)
            .filter(move |(_, c)| inside(c))
    }

    /// All that is read.
    fn all_clusters(&self) -> impl Iterator<Item = &ClusterSpan> {
        self.segments.iter().flat_map(|s| self.clusters(s)).map(|(_, c)| c)
    }

    /// Frames in the clusters that are read.
    pub fn frames(&self) -> u64 {
        self.all_clusters().map(|c| u64::from(c.frames)).sum()
    }

    /// Refuses what would not fit one file, with how far one would go.
    pub fn fits(&self, format: Format) -> Result<(), ExportError> {
        let (mut clusters, mut frames) = (0, 0);
        let latest = self.from.offset(SPAN_MAX_DAYS * 86_400_000_000);
        for c in self.all_clusters() {
            clusters += 1;
            frames += u64::from(c.frames);
            let mp4 = format == Format::Mp4;
            let limit = if clusters > CLUSTERS_MAX {
                format!("{CLUSTERS_MAX} clusters")
            } else if mp4 && frames > FRAMES_MAX {
                format!("{FRAMES_MAX} frames")
            } else if mp4 && c.last >= latest {
                format!("{SPAN_MAX_DAYS} days")
            } else {
                continue;
            };
            let until = c.first.min(latest);
            return Err(ExportError::TooLong { limit, until });
        }
        Ok(())
    }

    /// What the bytes of the file depend on, apart from what is inside the clusters.
    pub fn identity(&self, format: Format) -> Sha256 {
        let mut h = Sha256::new();
        h.update([FORMAT_VERSION]);
        h.update(concat!(env!("CARGO_PKG_VERSION"), "\0"));
        h.update(format.extension());
        h.update(self.first().key.camera.as_str());
        for t in [self.from, self.to] {
            h.update(t.as_micros().to_le_bytes());
        }
        for s in &self.segments {
            h.update(b"segment");
            h.update(s.key.start.as_micros().to_le_bytes());
            for (_, c) in self.clusters(s) {
                h.update(c.offset.to_le_bytes());
                h.update(c.len.to_le_bytes());
                h.update(c.first.as_micros().to_le_bytes());
                h.update(c.last.as_micros().to_le_bytes());
            }
        }
        h
    }

    /// Where the footage is back-filled; files that follow each other are one range.
    pub fn backfilled(&self, range: TimeRange) -> Vec<TimeRange> {
        let mut ranges: Vec<TimeRange> = Vec::new();
        let mut follows = false;
        for s in &self.segments {
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

    /// Where nothing is recorded between two files, and where two of them have the same time.
    pub fn seams(&self, range: TimeRange) -> (Vec<Gap>, Vec<TimeRange>) {
        let (mut gaps, mut overlaps) = (Vec::new(), Vec::new());
        let mut covered = WallTime::MAX;
        for s in &self.segments {
            let Some(cut) = s.range().intersect(range) else {
                continue;
            };
            let hole = cut.start.micros_since(covered);
            if covered != WallTime::MAX && hole > SEAM_US {
                let cause = s.gap_before.unwrap_or(NO_CAUSE);
                let range = TimeRange {
                    start: covered,
                    end: cut.start,
                };
                gaps.push(Gap { range, cause });
            } else if covered != WallTime::MAX && hole < -SEAM_US {
                overlaps.push(TimeRange {
                    start: cut.start,
                    end: cut.end.min(covered),
                });
            }
            covered = if covered == WallTime::MAX {
                cut.end
            } else {
                covered.max(cut.end)
            };
        }
        (gaps, overlaps)
    }

    /// Reads the footage cluster by cluster and hands the frames of the range to `take`, until that returns false. Begins at
    /// `entry`, which has to be clean, or at the front.
    pub fn walk(
        &self,
        entry: Option<Place>,
        progress: &mut dyn FnMut(Progress) -> bool,
        take: &mut dyn FnMut(&Step<'_>) -> Result<bool, ExportError>,
    ) -> Result<(), ExportError> {
        let mut cut = Cut::new(self.from, self.to);
        cut.begun = entry.is_some();
        let (first, skip) = entry.map_or((0, 0), |p| (p.segment as usize, p.cluster as usize));
        let mut state = Progress {
            files: first as u64,
            files_total: self.segments.len() as u64,
            bytes: 0,
        };
        for (index, s) in self.segments.iter().enumerate().skip(first) {
            let read = |source| ExportError::Read {
                path: s.path.clone(),
                source,
            };
            let time = Timebase::new(s.key.start, &s.tracks);
            cut.has_video = time.has_video();
            let mut f = None;
            let skip = if index == first { skip } else { 0 };
            for (cluster, c) in self.clusters(s).skip_while(|(i, _)| *i < skip) {
                let file = match &f {
                    Some(file) => file,
                    None => f.insert(open(s).map_err(|e| read(e.into()))?),
                };
                let (bytes, damage) = read_cluster(file, c).map_err(read)?;
                let clean = cut.begun && cut.held.is_empty();
                let (frames, error) = parse(&bytes, c.offset, &time);
                let frames = cut.apply(frames, &time);
                let more = take(&Step {
                    segment: index as u32,
                    cluster: cluster as u32,
                    path: &s.path,
                    sum: crc32fast::hash(&bytes),
                    clean,
                    frames: &frames,
                    damage: damage.or(error),
                })?;
                state.bytes += u64::from(c.len);
                if !progress(state) {
                    return Err(ExportError::Stopped);
                }
                if !more {
                    return Ok(());
                }
            }
            state.files += 1;
        }
        Ok(())
    }
}

/// The bytes of a cluster; fewer, and why, where the file ends inside of it.
fn read_cluster(f: &File, c: &ClusterSpan) -> Result<(Bytes, Option<ReadError>), FileError> {
    match file::read_exact(f, c.offset, c.len as usize) {
        Ok(b) => Ok((b.into(), None)),
        Err(FileError::Damaged(e)) => Ok((Bytes::new(), Some(e))),
        Err(e) => Err(e),
    }
}

/// The frames of a cluster; none if it cannot be read.
fn parse(bytes: &Bytes, at: u64, time: &Timebase) -> (Vec<Frame>, Option<ReadError>) {
    match parse_cluster(bytes, at, time) {
        Ok(frames) => (frames, verify_cluster(bytes, at).err()),
        Err(e) => (Vec::new(), Some(e)),
    }
}

/// Opens a segment. One that was growing may have been finished, and so renamed, since its table was made: what was durable of it
/// is the same in the finished file.
fn open(s: &SegmentMeta) -> io::Result<File> {
    match File::open(&s.path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && s.state == SegmentState::Open => {
            let name = s.path.to_string_lossy();
            let stem = name.strip_suffix(".part.mkv").or(name.strip_suffix(".new")).ok_or(e)?;
            let part = PathBuf::from(format!("{stem}.part.mkv"));
            File::open(format!("{stem}.mkv")).or_else(|_| File::open(part))
        }
        other => other,
    }
}

/// The time of the key frame at or before `from`; where the recording has none before, `from`, since sound may come before the first picture.
fn start_of(first: &SegmentMeta, from: WallTime) -> WallTime {
    match first.table.key_at_or_before(from) {
        Some(i) => first.table.keys[i].time,
        None => from.max(first.key.start),
    }
}

fn one_set_of_parameters(segments: &[Arc<SegmentMeta>], range: TimeRange) -> Result<(), ExportError> {
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

/// Lets through what of a run of bytes lies in the part of the file that is wanted.
pub struct Window<'w, W> {
    pub out: &'w mut W,
    pub range: Range<u64>,
    /// Where the next byte lies in the file.
    pub at: u64,
}

impl<'w, W: Write> Window<'w, W> {
    pub const fn new(out: &'w mut W, range: Range<u64>) -> Self {
        Self { out, range, at: 0 }
    }

    /// The next bytes of the file.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        let len = bytes.len() as u64;
        let from = self.range.start.saturating_sub(self.at).min(len) as usize;
        let to = self.range.end.saturating_sub(self.at).min(len) as usize;
        self.at += len;
        match bytes.get(from..to) {
            Some(part) if !part.is_empty() => self.out.write_all(part).map_err(ExportError::Output),
            _ => Ok(()),
        }
    }

    /// Whether anything of what lies between here and `end` is wanted.
    pub const fn wants(&self, end: u64) -> bool {
        self.at < self.range.end && self.at < end
    }
}
