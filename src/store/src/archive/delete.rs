//! Deletion in steps, and what retention plans.

use std::{io, path::PathBuf};

use corenvr_media::{CameraName, WallTime};

use super::{
    Archive, ArchiveError, Step, io_error, paths, remove_if_there,
    retention::{self, CameraCandidates, Candidate, DiskPolicy, RetentionPolicy},
};
use crate::{
    SegmentKey,
    index::{Index, RowState},
};

/// Rows read at once while planning.
const CHUNK: usize = 256;
/// Gap notes forgotten at once, with the footage that they follow.
const GAPS_AT_ONCE: usize = 256;

/// A deletion that was begun: the row is a tombstone, the file is still there.
#[derive(Debug)]
#[must_use = "the file is still there"]
pub struct Deletion {
    /// The segment.
    pub key: SegmentKey,
    /// Its file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

impl Deletion {
    /// Removes the file and makes that durable. May run on another thread. A file that is gone already is no error.
    pub fn unlink(&self) -> io::Result<()> {
        remove_if_there(&self.path)?;
        match self.path.parent().map_or(Ok(()), paths::sync_dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            r => r,
        }
    }
}

/// Rows of a camera, oldest first, read as they are asked for. Ends early when the index fails: then less is deleted.
struct Rows<'a> {
    archive: &'a Archive,
    index: &'a Index,
    camera: CameraName,
    next: WallTime,
    chunk: std::vec::IntoIter<Candidate>,
}

impl Iterator for Rows<'_> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        loop {
            if let Some(c) = self.chunk.next() {
                return Some(c);
            }
            let rows = self.index.rows(&self.camera, self.next, WallTime::MAX, CHUNK).ok()?;
            self.next = rows.last()?.0.start.offset(1);
            let candidate = |(key, row): (SegmentKey, crate::index::Row)| Candidate {
                deletable: row.state == RowState::Sealed && self.archive.kept_because(&key, row.end).is_none(),
                end: row.end,
                bytes: row.bytes,
                key,
            };
            self.chunk = rows.into_iter().map(candidate).collect::<Vec<_>>().into_iter();
        }
    }
}

impl Archive {
    /// What has to go, oldest first, at most [`retention::PLAN_MAX`]. `policy` is asked for each camera, also for those that are
    /// no longer configured. `free` is what the file system has free now.
    pub fn plan_retention(
        &mut self,
        policy: &dyn Fn(&CameraName) -> RetentionPolicy,
        disk: DiskPolicy,
        free: u64,
        now: WallTime,
    ) -> Result<Vec<SegmentKey>, ArchiveError> {
        // Asked first so that a broken index is made whole before anything is planned with it.
        let cameras = self.index(Index::cameras)?;
        let this = &*self;
        let candidates = cameras
            .into_iter()
            .map(|camera| CameraCandidates {
                policy: policy(&camera),
                bytes: this.usage.get(&camera).map_or(0, |u| u.bytes),
                segments: Box::new(Rows {
                    archive: this,
                    index: &this.index,
                    camera: camera.clone(),
                    next: WallTime::MIN,
                    chunk: Vec::new().into_iter(),
                }),
                camera,
            })
            .collect();
        Ok(retention::plan(candidates, disk, free, now))
    }

    /// First step of a deletion: the tombstone row. From now on queries do not show the segment.
    pub fn begin_delete(&mut self, key: &SegmentKey) -> Result<Deletion, ArchiveError> {
        let row = self.index(|i| i.row(key))?;
        let mut row = row.ok_or_else(|| ArchiveError::NotDeletable(key.clone(), "not in the index"))?;
        if row.state == RowState::Open {
            return Err(ArchiveError::NotDeletable(key.clone(), "open"));
        }
        if let Some(reason) = self.kept_because(key, row.end) {
            return Err(ArchiveError::NotDeletable(key.clone(), reason));
        }
        let first = row.state != RowState::Tombstone;
        self.step(Step::TombstoneRow)?;
        row.state = RowState::Tombstone;
        self.index(|i| i.put_row(key, &row))?;
        if first && let Some(u) = self.usage.get_mut(&key.camera) {
            u.segments = u.segments.saturating_sub(1);
            u.bytes = u.bytes.saturating_sub(row.bytes);
        }
        Ok(Deletion {
            key: key.clone(),
            path: self.camera_dir(&key.camera).join(&row.name),
            bytes: row.bytes,
        })
    }

    /// Last step of a deletion, after [`Deletion::unlink`]: the row goes, and the directories if they are empty.
    pub fn finish_delete(&mut self, deletion: Deletion) -> Result<(), ArchiveError> {
        let Deletion { key, path, .. } = deletion;
        if path.try_exists().map_err(io_error("look for", &path))? {
            return Err(ArchiveError::NotDeletable(key, "still there: unlink it first"));
        }
        self.step(Step::RowGone)?;
        self.index(|i| i.remove(&key))?;
        // Only empty directories can be removed: what else is in them stays.
        if let Some(day) = path.parent()
            && std::fs::remove_dir(day).is_ok()
        {
            std::fs::remove_dir(self.camera_dir(&key.camera)).ok();
        }
        self.forget_before_oldest(&key.camera)
    }

    fn forget_before_oldest(&mut self, camera: &CameraName) -> Result<(), ArchiveError> {
        let oldest = self.index(|i| i.rows(camera, WallTime::MIN, WallTime::MAX, 1))?.pop();
        let first = oldest.as_ref().map(|(k, _)| k.start);
        if let Some(t) = first {
            self.index(|i| i.remove_gaps_before(camera, t, GAPS_AT_ONCE))?;
        }
        if let Some(u) = self.usage.get_mut(camera) {
            u.first = first;
            if u.segments == 0 && first.is_none() {
                self.usage.remove(camera);
            }
        }
        Ok(())
    }

    /// All steps of a deletion. Returns the bytes freed.
    pub fn delete(&mut self, key: &SegmentKey) -> Result<u64, ArchiveError> {
        let deletion = self.begin_delete(key)?;
        self.step(Step::Unlink)?;
        deletion.unlink().map_err(io_error("delete", &deletion.path))?;
        let bytes = deletion.bytes;
        self.finish_delete(deletion)?;
        Ok(bytes)
    }
}
