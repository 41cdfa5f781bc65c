//! One storage directory: its segments, its index, its lock. Synchronous; owned by one plain thread.

use std::{collections::BTreeMap, path::{Path, PathBuf}, sync::Arc};
use corenvr_media::{CameraName, TimeRange, WallTime};
use crate::{ClusterInfo, GapCause, SegmentHeader, SegmentKey, SegmentMeta};

pub mod retention;
mod types;
pub use types::*;
use retention::{DiskPolicy, RetentionPolicy};

/// Most segments of one [`Archive::segments`] answer; ask again from the last one's end for more.
pub const SEGMENTS_MAX: usize = 4096;
/// Most segments that one timeline looks at; see [`Timeline::more_from`].
pub const TIMELINE_SEGMENTS_MAX: usize = 200_000;

/// A storage directory, locked for this process.
#[derive(Debug)]
pub struct Archive { root: PathBuf, id: StorageId, usage: BTreeMap<CameraName, Usage> }

/// A deletion that was begun: the row is a tombstone, the file is still there.
#[derive(Debug)]
#[must_use = "the file is still there"]
pub struct Deletion { /// The segment.
 pub key: SegmentKey, /// Its file.
 pub path: PathBuf, /// Its size.
 pub bytes: u64 }

impl Deletion {
    /// Removes the file and makes that durable. May run on another thread. A file that is gone already is no error.
    pub fn unlink(&self) -> std::io::Result<()> { todo!() }
}

impl Archive {
    /// Opens and locks the directory. Changes nothing but `.corenvr` in it; [`Self::recover`] is to be called next.
    pub fn open(options: &ArchiveOptions) -> Result<Self, OpenError> { todo!("{options:?}") }
    /// The directory.
    pub fn root(&self) -> &Path { &self.root }
    /// What the directory calls itself.
    pub const fn id(&self) -> &StorageId { &self.id }
    /// Finishes what an earlier run left open and makes the index equal to the files.
    pub fn recover(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<Recovery, ArchiveError> { todo!() }
    /// Creates the file of a new segment (empty, `.part.mkv`) and writes its row.
    pub fn open_segment(&mut self, header: SegmentHeader) -> Result<OpenedSegment, ArchiveError> { todo!() }
    /// A cluster of an open segment is durable: from now on queries show it.
    pub fn cluster_durable(&mut self, key: &SegmentKey, cluster: &ClusterInfo) -> Result<(), ArchiveError> { todo!() }
    /// The file is finished and durable under its part name: renames it, makes that durable, writes the sealed row.
    pub fn seal_segment(&mut self, key: &SegmentKey, sealed: Sealed) -> Result<PathBuf, ArchiveError> { todo!() }
    /// Writing failed and the caller has closed the file for good: what is whole in it is recovered now.
    pub fn abandon_segment(&mut self, key: &SegmentKey) -> Result<Option<PathBuf>, ArchiveError> { todo!() }
    /// Segments of `camera` that have footage in `range`, ordered by start, open ones included; at most [`SEGMENTS_MAX`].
    pub fn segments(&mut self, camera: &CameraName, range: TimeRange) -> Result<Vec<Arc<SegmentMeta>>, ArchiveError> { todo!() }
    /// Spans and gaps.
    pub fn timeline(&mut self, camera: &CameraName, range: TimeRange) -> Result<Timeline, ArchiveError> { todo!() }
    /// `t` if there is footage at it, otherwise the nearest time that has; `None` if there is none at all.
    pub fn nearest(&mut self, camera: &CameraName, t: WallTime) -> Result<Option<WallTime>, ArchiveError> { todo!() }
    /// Cameras that have footage.
    pub fn cameras(&self) -> Vec<CameraName> { todo!() }
    /// What each camera takes up.
    pub const fn usage(&self) -> &BTreeMap<CameraName, Usage> { &self.usage }
    /// From `from` on there is no footage of `camera`, because of `cause`, until the next segment.
    pub fn note_gap(&mut self, camera: &CameraName, from: WallTime, cause: GapCause) -> Result<(), ArchiveError> { todo!() }
    /// Retention leaves this alone from now on, also what is recorded in it later.
    pub fn protect(&mut self, camera: &CameraName, range: TimeRange) -> Result<(), ArchiveError> { todo!() }
    /// Releases protected ranges that lie within `range`. Returns how many.
    pub fn unprotect(&mut self, camera: &CameraName, range: TimeRange) -> Result<usize, ArchiveError> { todo!() }
    /// What is protected.
    pub fn protected(&self) -> &[Protected] { todo!() }
    /// What has to go, oldest first; see [`retention::plan`]. `free` is what the file system has free now.
    pub fn plan_retention(&mut self, policy: &dyn Fn(&CameraName) -> RetentionPolicy, disk: DiskPolicy, free: u64, now: WallTime) -> Result<Vec<SegmentKey>, ArchiveError> { todo!() }
    /// First step of a deletion: the tombstone row.
    pub fn begin_delete(&mut self, key: &SegmentKey) -> Result<Deletion, ArchiveError> { todo!() }
    /// Last step of a deletion, after [`Deletion::unlink`]: the row goes, and the day's directory if it is empty.
    pub fn finish_delete(&mut self, deletion: Deletion) -> Result<(), ArchiveError> { todo!() }
    /// All steps of a deletion. Returns the bytes freed.
    pub fn delete(&mut self, key: &SegmentKey) -> Result<u64, ArchiveError> { todo!() }
    /// Bytes that the file system has free for this process.
    pub fn free_bytes(&self) -> std::io::Result<u64> { todo!() }
}
