//! Segments coming into being: opened, growing, sealed or given up.

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt, path::PathBuf};

use corenvr_media::WallTime;

use super::{
    Archive, ArchiveError, OpenSegment, OpenedSegment, Sealed, Step, io_error,
    paths::{self, FileKind, SAME_NAME_MAX},
    types::Recovery,
};
use crate::{
    ClusterInfo, SegmentHeader, SegmentKey, SegmentWriter, Table,
    index::{Row, RowState, digest},
    mkv::ALIGN,
};

/// After how many clusters the table of an open segment is written down, so that recovery need not read what is before.
const TABLE_EVERY: usize = 5;
/// Most microseconds that a start is moved by to be unlike any other's.
const NUDGE_MAX: i64 = 1000;

impl Archive {
    /// Creates the file of a new segment (empty, `.new`), makes it durable and writes its row; it becomes `.part.mkv` with its
    /// first durable cluster, so that every file of that name opens in a player. What exists is never overwritten: a start or a
    /// name that is taken gives way to the next free one. Several segments of a camera may be open at once: what is recorded now, and
    /// what is filled in before it.
    ///
    /// # Errors
    /// [`ArchiveError::Occupied`] if back-filled footage is to lie where there is some already; the file system or the index refused.
    pub fn open_segment(&mut self, mut header: SegmentHeader) -> Result<OpenedSegment, ArchiveError> {
        self.check_vacant(&header)?;
        let key = self.free_key(&mut header)?;
        // What a writer would refuse later is refused before there is a file.
        let writer = SegmentWriter::new(header.clone()).map_err(|source| ArchiveError::Header {
            key: key.clone(),
            source,
        })?;
        let digest = digest(&header.tracks);
        let day = paths::day_of(key.start);
        let (path, stem) = self.create_file(&key, &day)?;
        self.step(Step::SyncDirectory)?;
        if let Some(dir) = path.parent() {
            paths::sync_dir(dir).map_err(io_error("sync", dir))?;
        }
        let name = format!("{day}/{}", paths::name_of(&stem, FileKind::New));
        self.step(Step::OpenRow)?;
        let row = Row {
            state: RowState::Open,
            gap_before: header.gap_before,
            backfilled: header.backfilled_until.is_some(),
            end: key.start,
            bytes: 0,
            digest,
            name: name.clone(),
        };
        self.index(|i| {
            i.put_codec(&digest, writer.header_block())?;
            i.put_row(&key, &row)
        })?;
        self.count(&key, key.start, 0);
        self.open.insert(
            key.clone(),
            OpenSegment {
                header: header.clone(),
                digest,
                name,
                stem,
                path: path.clone(),
                table: Table::default(),
            },
        );
        Ok(OpenedSegment { header, path, key })
    }

    fn free_key(&mut self, header: &mut SegmentHeader) -> Result<SegmentKey, ArchiveError> {
        let mut key = SegmentKey {
            camera: header.camera.clone(),
            start: header.start,
        };
        for _ in 0..NUDGE_MAX {
            if !self.open.contains_key(&key) && self.index(|i| i.row(&key))?.is_none() {
                break;
            }
            key.start = key.start.offset(1);
        }
        header.start = key.start;
        Ok(key)
    }

    fn create_file(&mut self, key: &SegmentKey, day: &str) -> Result<(PathBuf, String), ArchiveError> {
        let dir = self.camera_dir(&key.camera).join(day);
        let made = paths::make_dirs(&self.root, &[key.camera.as_str(), day]);
        made.map_err(io_error("create", &dir))?;
        self.step(Step::CreateFile)?;
        for n in 0..SAME_NAME_MAX {
            let stem = paths::stem_of(key.start, n);
            let taken = |kind| dir.join(paths::name_of(&stem, kind)).try_exists();
            let sealed = taken(FileKind::Sealed).map_err(io_error("look into", &dir))?;
            if sealed || taken(FileKind::Part).map_err(io_error("look into", &dir))? {
                continue;
            }
            let path = dir.join(paths::name_of(&stem, FileKind::New));
            match OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path) {
                Ok(_) => return Ok((path, stem)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io_error("create", &path)(e)),
            }
        }
        let path = dir.join(paths::name_of(&paths::stem_of(key.start, 0), FileKind::New));
        Err(io_error("create", &path)(io::ErrorKind::AlreadyExists.into()))
    }

    /// A cluster of an open segment is durable: from now on queries show it, and the first one makes the file visible.
    pub fn cluster_durable(&mut self, key: &SegmentKey, cluster: &ClusterInfo) -> Result<(), ArchiveError> {
        if self.open.get(key).is_some_and(|o| o.table.clusters.is_empty()) {
            self.show_file(key)?;
        }
        let open = self
            .open
            .get_mut(key)
            .ok_or_else(|| ArchiveError::NotOpen(key.clone()))?;
        let continues = open.table.end_offset().is_none_or(|end| end == cluster.offset);
        if !continues || cluster.offset < ALIGN {
            return Err(ArchiveError::NotContiguous(key.clone(), cluster.offset));
        }
        // The header is counted with the first cluster.
        let before = open.table.end_offset().unwrap_or(0);
        open.table.push(cluster);
        let grown = cluster.offset + u64::from(cluster.len) - before;
        let usage = self.usage.entry(key.camera.clone()).or_default();
        usage.bytes += grown;
        usage.last = usage.last.max(Some(cluster.last.offset(1)));
        if open.table.clusters.len().is_multiple_of(TABLE_EVERY) {
            let table = open.table.clone();
            self.index(|i| i.put_table(key, &table))?;
        }
        Ok(())
    }

    /// Renames the file of a segment that holds something now from `.new` to `.part.mkv`. Not made durable here: recovery takes
    /// either name for the same thing.
    fn show_file(&mut self, key: &SegmentKey) -> Result<(), ArchiveError> {
        let open = self.open.get(key).ok_or_else(|| ArchiveError::NotOpen(key.clone()))?;
        let (from, digest, gap_before) = (open.path.clone(), open.digest, open.header.gap_before);
        let backfilled = open.header.backfilled_until.is_some();
        let file = paths::name_of(&open.stem, FileKind::Part);
        let path = from.with_file_name(&file);
        let name = format!("{}/{file}", paths::day_of(key.start));
        self.step(Step::Show)?;
        paths::rename_new(&from, &path).map_err(io_error("rename", &from))?;
        let row = Row {
            state: RowState::Open,
            gap_before,
            backfilled,
            end: key.start,
            bytes: 0,
            digest,
            name: name.clone(),
        };
        if let Some(open) = self.open.get_mut(key) {
            (open.path, open.name) = (path, name);
        }
        self.index(|i| i.put_row(key, &row))
    }

    /// The file is finished and durable under its part name: renames it, makes that durable, writes the sealed row. Returns the
    /// file's path.
    pub fn seal_segment(&mut self, key: &SegmentKey, sealed: Sealed) -> Result<PathBuf, ArchiveError> {
        let open = self.open.get(key).ok_or_else(|| ArchiveError::NotOpen(key.clone()))?;
        let (from, stem, table) = (open.path.clone(), open.stem.clone(), open.table.clone());
        self.step(Step::Rename)?;
        let (path, name) = self.rename_sealed(key, &from, &stem)?;
        let open = self
            .open
            .remove(key)
            .ok_or_else(|| ArchiveError::NotOpen(key.clone()))?;
        self.uncount_open(key, &open);
        self.count(key, sealed.end, sealed.bytes);
        self.step(Step::SealedRow)?;
        let row = Row {
            state: RowState::Sealed,
            gap_before: open.header.gap_before,
            backfilled: open.header.backfilled_until.is_some(),
            end: sealed.end,
            bytes: sealed.bytes,
            digest: open.digest,
            name,
        };
        self.index(|i| {
            i.put_table(key, &table)?;
            i.put_row(key, &row)
        })?;
        Ok(path)
    }

    /// Renames a finished part file to its own name, or to the next free one. Returns path and name.
    pub(super) fn rename_sealed(
        &self,
        key: &SegmentKey,
        from: &std::path::Path,
        stem: &str,
    ) -> Result<(PathBuf, String), ArchiveError> {
        let dir = from.parent().unwrap_or(&self.root);
        let day = dir
            .file_name()
            .map(|d| d.to_string_lossy().into_owned())
            .unwrap_or_default();
        let others = (1..SAME_NAME_MAX).map(|n| paths::stem_of(key.start, n));
        for stem in std::iter::once(stem.to_owned()).chain(others) {
            let name = paths::name_of(&stem, FileKind::Sealed);
            let path = dir.join(&name);
            match paths::rename_new(from, &path) {
                Ok(()) => return Ok((path, format!("{day}/{name}"))),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io_error("rename", from)(e)),
            }
        }
        Err(io_error("rename", from)(io::ErrorKind::AlreadyExists.into()))
    }

    /// Writing failed, or the camera is gone before anything was written, and the caller has closed the file for good: what is
    /// whole in it is finished now, or the file removed if it holds nothing. Returns the finished file's path.
    pub fn abandon_segment(&mut self, key: &SegmentKey) -> Result<Option<PathBuf>, ArchiveError> {
        let open = self
            .open
            .remove(key)
            .ok_or_else(|| ArchiveError::NotOpen(key.clone()))?;
        self.uncount_open(key, &open);
        let known = (!open.table.clusters.is_empty()).then_some(open.table);
        let mut report = Recovery::default();
        self.recover_part(key, &open.path, &open.stem, known, &mut report)?;
        self.correct_first(&key.camera)?;
        if let Some((path, reason)) = report.unreadable.pop() {
            return Err(io_error("recover", &path)(io::Error::other(reason)));
        }
        Ok(report.recovered.pop().map(|(path, _)| path))
    }

    fn uncount_open(&mut self, key: &SegmentKey, open: &OpenSegment) {
        if let Some(u) = self.usage.get_mut(&key.camera) {
            u.segments = u.segments.saturating_sub(1);
            u.bytes = u.bytes.saturating_sub(open.table.end_offset().unwrap_or(0));
            if u.segments == 0 {
                u.first = None;
            }
        }
    }

    /// The moment after the last durable frame of an open segment.
    pub(super) fn open_end(open: &OpenSegment) -> Option<WallTime> {
        open.table.last().map(|t| t.offset(1))
    }
}
