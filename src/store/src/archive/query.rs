//! What readers ask: segments, timelines, the nearest footage.

use std::{fs::File, path::Path, sync::Arc};

use corenvr_media::{CameraName, CodecParameters, TimeRange, WallTime};

use super::{Archive, ArchiveError, CODECS_MAX, Gap, SEGMENTS_MAX, Span, TIMELINE_SEGMENTS_MAX, Timeline, io_error};
use crate::{
    GapCause, SegmentKey, SegmentMeta, SegmentState, Table,
    index::{Digest, Row, RowState},
    mkv::{
        file::{self, FileError},
        header, recover,
    },
};

/// Footage that is no further apart than this is one span, unless a segment says that there is a gap before it: cameras do not
/// keep their frame rate, and the end of a segment is an estimate.
const JOIN_US: i64 = 1_000_000;
/// How many segments before a moment are looked at for one that reaches over it. Only clock steps make segments overlap.
const LOOK_BACK: usize = 16;
/// Most gap notes between two segments that a timeline shows.
const NOTES_MAX: usize = 1000;

/// A segment as a timeline sees it.
struct Piece {
    range: TimeRange,
    bytes: u64,
    open: bool,
    gap_before: Option<GapCause>,
    backfilled: bool,
}

/// Where footage ended.
#[derive(Clone, Copy)]
struct Ended {
    at: WallTime,
    /// It was back-filled.
    backfilled: bool,
    /// The cause of the gap in which back-filled footage lies: it holds for what is missing behind it.
    cause: Option<GapCause>,
}

impl Ended {
    fn later(a: Option<Self>, b: Self) -> Self {
        a.filter(|a| a.at >= b.at).unwrap_or(b)
    }
}

impl Piece {
    fn new(key: &SegmentKey, row: &Row) -> Self {
        Self {
            range: TimeRange {
                start: key.start,
                end: row.end.max(key.start),
            },
            bytes: row.bytes,
            open: row.state == RowState::Open,
            gap_before: row.gap_before,
            backfilled: row.backfilled,
        }
    }

    fn ended(&self) -> Ended {
        Ended {
            at: self.range.end,
            backfilled: self.backfilled,
            cause: self.gap_before.filter(|_| self.backfilled),
        }
    }

    /// Whether it says itself that something is missing right before it. Back-filled footage only says why something is around it.
    fn tells_of_gap(&self) -> bool {
        self.gap_before.is_some() && !self.backfilled
    }
}

impl Archive {
    /// Rows of `camera` with footage in `range`, ordered by start; those of open segments are made from memory.
    pub(super) fn rows_in(
        &mut self,
        camera: &CameraName,
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<(SegmentKey, Row)>, ArchiveError> {
        let limit = limit + self.open.len() + LOOK_BACK;
        let mut rows = self.index(|i| i.rows_before(camera, range.start, LOOK_BACK))?;
        rows.reverse();
        rows.extend(self.index(|i| i.rows(camera, range.start, range.end, limit))?);
        rows.retain(|(k, r)| r.state == RowState::Sealed && r.end > range.start && k.start < range.end);
        let from = SegmentKey {
            camera: camera.clone(),
            start: WallTime::MIN,
        };
        for (k, open) in self.open.range(from..) {
            if k.camera != *camera {
                break;
            }
            let Some(end) = Self::open_end(open) else { continue };
            if k.start < range.end && end > range.start {
                let row = Row {
                    state: RowState::Open,
                    gap_before: open.header.gap_before,
                    backfilled: open.header.backfilled_until.is_some(),
                    end,
                    bytes: open.table.end_offset().unwrap_or(0),
                    digest: open.digest,
                    name: open.name.clone(),
                };
                rows.push((k.clone(), row));
            }
        }
        rows.sort_by_key(|(k, _)| k.start);
        Ok(rows)
    }

    /// Segments of `camera` that have footage in `range`, ordered by start, open ones included; at most [`SEGMENTS_MAX`].
    ///
    /// A segment whose file cannot be read is left out and logged.
    pub fn segments(&mut self, camera: &CameraName, range: TimeRange) -> Result<Vec<Arc<SegmentMeta>>, ArchiveError> {
        let mut rows = self.rows_in(camera, range, SEGMENTS_MAX)?;
        rows.truncate(SEGMENTS_MAX);
        let mut list = Vec::with_capacity(rows.len());
        for (key, row) in rows {
            match self.meta(&key, &row) {
                Ok(meta) => list.push(Arc::new(meta)),
                Err(e @ ArchiveError::Index { .. }) => return Err(e),
                Err(e) => tracing::warn!(segment = %key, error = %e, "left out of a query"),
            }
        }
        Ok(list)
    }

    fn meta(&mut self, key: &SegmentKey, row: &Row) -> Result<SegmentMeta, ArchiveError> {
        let path = self.camera_dir(&key.camera).join(&row.name);
        let (table, tracks) = match self.open.get(key) {
            Some(open) => (open.table.clone(), Arc::clone(&open.header.tracks)),
            None => (self.table(key, &path)?, self.tracks(&row.digest, &path)?),
        };
        Ok(SegmentMeta {
            key: key.clone(),
            end: row.end,
            state: if row.state == RowState::Open {
                SegmentState::Open
            } else {
                SegmentState::Sealed
            },
            bytes: row.bytes,
            gap_before: row.gap_before,
            backfilled: row.backfilled,
            path,
            tracks,
            table,
        })
    }

    /// The table of a sealed segment, from the index or else from the file.
    fn table(&mut self, key: &SegmentKey, path: &Path) -> Result<Table, ArchiveError> {
        if let Some(t) = self.index(|i| i.table(key))? {
            return Ok(t);
        }
        let table = table_of_file(path).map_err(|e| file_error(path, e))?;
        self.index(|i| i.put_table(key, &table))?;
        Ok(table)
    }

    /// The tracks that a digest stands for, from memory, from the index, or else from a file that has them.
    fn tracks(&mut self, digest: &Digest, path: &Path) -> Result<Arc<[CodecParameters]>, ArchiveError> {
        if let Some(t) = self.codecs.get(digest) {
            return Ok(Arc::clone(t));
        }
        let kept = self.index(|i| i.codec(digest))?.and_then(|b| header::parse(&b).ok());
        let tracks = if let Some(h) = kept {
            h.segment.tracks
        } else {
            let f = File::open(path).map_err(io_error("open", path))?;
            let (h, block) = file::read_header(&f).map_err(|e| file_error(path, e))?;
            self.index(|i| i.put_codec(digest, &block))?;
            h.segment.tracks
        };
        if self.codecs.len() >= CODECS_MAX {
            self.codecs.clear();
        }
        self.codecs.insert(*digest, Arc::clone(&tracks));
        Ok(tracks)
    }

    /// Spans and gaps of `camera` in `range`. A caller that does not want time to come as a gap ends the range at the present.
    pub fn timeline(&mut self, camera: &CameraName, range: TimeRange) -> Result<Timeline, ArchiveError> {
        let mut rows = self.rows_in(camera, range, TIMELINE_SEGMENTS_MAX)?;
        let mut line = Timeline::default();
        if rows.len() > TIMELINE_SEGMENTS_MAX {
            line.more_from = Some(rows[TIMELINE_SEGMENTS_MAX].0.start);
            rows.truncate(TIMELINE_SEGMENTS_MAX);
        }
        // Where the footage before the range ended, so that a gap at its front is shown as well.
        let before = self.last_before(camera, range.start)?;
        let mut covered = before.map(|e| Ended {
            at: e.at.min(range.start),
            ..e
        });
        for (key, row) in rows {
            let piece = Piece::new(&key, &row);
            if let Some(ended) = covered {
                self.add_gaps(camera, &mut line, ended, &piece, range)?;
            }
            covered = Some(Ended::later(covered, piece.ended()));
            line.bytes += piece.bytes;
            add_span(&mut line.spans, &piece, range);
        }
        let goes_on = line.spans.last().is_some_and(|s| s.open && !s.backfilled) || line.more_from.is_some();
        if let (false, Some(ended)) = (goes_on, covered.filter(|e| e.at < range.end)) {
            // Whether this is a gap, and why, also depends on what comes behind the range.
            if let Some((key, row)) = self.first_from(camera, range.end)? {
                self.add_gaps(camera, &mut line, ended, &Piece::new(&key, &row), range)?;
            } else {
                let noted = self.add_notes(camera, &mut line, ended.at, range.end, range)?;
                if let Some(cause) = ended.cause {
                    let end = noted.unwrap_or(range.end);
                    insert_gap(&mut line, TimeRange { start: ended.at, end }, cause, range);
                }
            }
        }
        Ok(line)
    }

    /// The first footage that begins at or after `t`.
    fn first_from(&mut self, camera: &CameraName, t: WallTime) -> Result<Option<(SegmentKey, Row)>, ArchiveError> {
        let rest = TimeRange {
            start: t,
            end: WallTime::MAX,
        };
        // Rows that are no footage (tombstones) may come first: look a little further.
        let rows = self.rows_in(camera, rest, LOOK_BACK)?;
        Ok(rows.into_iter().find(|(k, _)| k.start >= t))
    }

    /// The end of the last footage that begins before `t`.
    fn last_before(&mut self, camera: &CameraName, t: WallTime) -> Result<Option<Ended>, ArchiveError> {
        let rows = self.index(|i| i.rows_before(camera, t, LOOK_BACK))?;
        let mut last = None;
        for (k, r) in rows.iter().filter(|(_, r)| r.state == RowState::Sealed) {
            last = Some(Ended::later(last, Piece::new(k, r).ended()));
        }
        for (_, open) in self.open.iter().filter(|(k, _)| k.camera == *camera && k.start < t) {
            let backfilled = open.header.backfilled_until.is_some();
            if let Some(at) = Self::open_end(open) {
                let cause = open.header.gap_before.filter(|_| backfilled);
                last = Some(Ended::later(last, Ended { at, backfilled, cause }));
            }
        }
        Ok(last)
    }

    /// The gap between where footage ended and `next`, by its notes, or by what the segments say, or unknown.
    fn add_gaps(
        &mut self,
        camera: &CameraName,
        line: &mut Timeline,
        ended: Ended,
        next: &Piece,
        range: TimeRange,
    ) -> Result<(), ArchiveError> {
        let hole = next.range.start.micros_since(ended.at);
        // What a segment says of a gap before it does not hold any more where that was filled.
        let told = next.tells_of_gap() && !ended.backfilled;
        if hole <= 0 || (hole <= JOIN_US && !told) {
            return Ok(());
        }
        let noted = self.add_notes(camera, line, ended.at, next.range.start, range)?;
        let whole = TimeRange {
            start: ended.at,
            end: noted.unwrap_or(next.range.start),
        };
        let cause = ended.cause.or(next.gap_before).unwrap_or(GapCause::Unknown);
        insert_gap(line, whole, cause, range);
        Ok(())
    }

    /// Adds a gap for each note in `from..to`, up to the next note or `to`. Returns the time of the first.
    ///
    /// A note may be up to a second earlier than the footage's end, which is an estimate.
    fn add_notes(
        &mut self,
        camera: &CameraName,
        line: &mut Timeline,
        from: WallTime,
        to: WallTime,
        range: TimeRange,
    ) -> Result<Option<WallTime>, ArchiveError> {
        let notes = self.index(|i| i.gaps(camera, from.offset(-JOIN_US), to, NOTES_MAX))?;
        for (i, &(at, cause)) in notes.iter().enumerate() {
            let gap = TimeRange {
                start: at.max(from),
                end: notes.get(i + 1).map_or(to, |&(t, _)| t.max(from)),
            };
            if let Some(range) = gap.intersect(range) {
                line.gaps.push(Gap { range, cause });
            }
        }
        Ok(notes.first().map(|&(t, _)| t.max(from)))
    }

    /// `t` if there is footage at it, otherwise the nearest moment that has; `None` if there is none at all.
    pub fn nearest(&mut self, camera: &CameraName, t: WallTime) -> Result<Option<WallTime>, ArchiveError> {
        let now = TimeRange {
            start: t,
            end: t.offset(1),
        };
        if !self.rows_in(camera, now, 1)?.is_empty() {
            return Ok(Some(t));
        }
        let before = self.last_before(camera, t)?.map(|ended| ended.at.offset(-1));
        let after = self.first_from(camera, t)?.map(|(k, _)| k.start);
        Ok(match (before, after) {
            (Some(b), Some(a)) => Some(if t.micros_since(b) <= a.micros_since(t) { b } else { a }),
            (b, a) => b.or(a),
        })
    }
}

/// Adds a gap, cut to `range`, in its place among the others.
fn insert_gap(line: &mut Timeline, gap: TimeRange, cause: GapCause, range: TimeRange) {
    if let Some(range) = gap.intersect(range) {
        let at = line.gaps.partition_point(|g| g.range.start < range.start);
        line.gaps.insert(at, Gap { range, cause });
    }
}

fn add_span(spans: &mut Vec<Span>, piece: &Piece, range: TimeRange) {
    let Some(mut cut) = piece.range.intersect(range) else {
        return;
    };
    if let Some(last) = spans.last_mut().filter(|last| last.backfilled != piece.backfilled) {
        // Only a clock that was set back makes them overlap, and spans never do.
        cut.start = cut.start.max(last.range.end);
        if cut.start >= cut.end {
            last.bytes += piece.bytes;
            return;
        }
    }
    match spans.last_mut() {
        Some(last) if joins(last, piece, cut) => {
            last.range.end = last.range.end.max(cut.end);
            last.bytes += piece.bytes;
            last.open |= piece.open;
        }
        _ => spans.push(Span {
            range: cut,
            bytes: piece.bytes,
            open: piece.open,
            backfilled: piece.backfilled,
        }),
    }
}

/// Whether footage of one origin goes on without a gap. Overlapping footage is one span whatever was said of a gap: spans do not overlap.
fn joins(last: &Span, piece: &Piece, cut: TimeRange) -> bool {
    let hole = cut.start.micros_since(last.range.end);
    last.backfilled == piece.backfilled && (hole <= 0 || (hole <= JOIN_US && !piece.tells_of_gap()))
}

/// The table of a finished file: from its tail, or by walking it.
pub(super) fn table_of_file(path: &Path) -> Result<Table, FileError> {
    let f = File::open(path)?;
    let (h, _) = file::read_header(&f)?;
    if let Some(finished) = &h.finished
        && let Ok(tail) = file::read_tail(&f, &h, finished)
        && let Some(table) = tail.table
    {
        return Ok(table);
    }
    Ok(recover::scan(&f)?.table)
}

pub(super) fn file_error(path: &Path, e: FileError) -> ArchiveError {
    match e {
        FileError::Io(source) => io_error("read", path)(source),
        FileError::Foreign => io_error("read", path)(std::io::Error::other("not a recording of corenvr")),
        FileError::Damaged(source) => ArchiveError::File {
            path: path.to_owned(),
            source,
        },
    }
}
