//! One storage directory: its segments, its index, its lock. Synchronous; owned by one plain thread.
//!
//! Order of writing. A segment: empty file, directory fsync, open row; clusters are made durable by their writer and reported
//! afterwards; the writer finishes the file and makes that durable, then rename, directory fsync, sealed row. A deletion:
//! tombstone row, unlink, directory fsync, row gone. So a row never promises what is not on disk, and a crash between any two
//! steps leaves something that [`Archive::recover`] understands.
//!
//! Nothing is deleted but through a row that says so, so an empty or damaged index deletes nothing: it is filled again from the
//! files, in [`Archive::recover`] or on the spot when sled fails while running.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use corenvr_media::{CameraName, CodecParameters, TimeRange, WallTime};

use crate::{
    GapCause, SegmentHeader, SegmentKey, Table,
    index::{Digest, Index, IndexError},
};

mod backfill;
pub mod check;
mod delete;
pub mod events;
mod lock;
pub(crate) mod paths;
mod query;
pub mod retention;
mod startup;
mod types;
mod write;

pub use delete::Deletion;
pub use types::*;

/// Most segments of one [`Archive::segments`] answer; ask again from the last one's end for more.
pub const SEGMENTS_MAX: usize = 4096;
/// Most segments that one timeline looks at; see [`Timeline::more_from`].
pub const TIMELINE_SEGMENTS_MAX: usize = 200_000;
/// Most protected ranges; more are refused.
pub const PROTECTED_MAX: usize = 10_000;
/// Most sets of codec parameters kept in memory; when there are more, all are forgotten and read again as needed.
const CODECS_MAX: usize = 1024;

/// A step of a write or a deletion, in the order of invariant 2. A hook sees each before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(hidden)]
pub enum Step {
    CreateFile,
    SyncDirectory,
    OpenRow,
    /// `.new` becomes `.part.mkv`.
    Show,
    Rename,
    SealedRow,
    TombstoneRow,
    Unlink,
    RowGone,
}

type Hook = Box<dyn FnMut(Step) -> io::Result<()> + Send>;

/// A storage directory, locked for this process.
pub struct Archive {
    root: PathBuf,
    id: StorageId,
    _lock: File,
    index: Index,
    /// Why the index had to be wiped when it was opened.
    wiped: Option<String>,
    open: BTreeMap<SegmentKey, OpenSegment>,
    usage: BTreeMap<CameraName, Usage>,
    protected: Vec<Protected>,
    /// The list of protected ranges cannot be read: nothing is deleted until a person has seen to it.
    protected_unreadable: Option<(PathBuf, String)>,
    codecs: HashMap<Digest, Arc<[CodecParameters]>>,
    events: BTreeMap<CameraName, events::CameraEvents>,
    hook: Option<Hook>,
}

/// A segment that is being written.
#[derive(Debug)]
struct OpenSegment {
    header: SegmentHeader,
    digest: Digest,
    /// Below the camera's directory, with the ending of an open file.
    name: String,
    stem: String,
    path: PathBuf,
    table: Table,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive")
            .field("root", &self.root)
            .field("open", &self.open.len())
            .finish_non_exhaustive()
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Io { action, path, source }
}

/// Where the index of a storage directory is.
pub(crate) fn index_dir(root: &Path) -> PathBuf {
    root.join(paths::PRIVATE).join("index")
}

impl Archive {
    /// Opens and locks the directory. Changes nothing but `.corenvr` in it; [`Self::recover`] is to be called next.
    pub fn open(options: &ArchiveOptions) -> Result<Self, OpenError> {
        let (lock, id) = lock::take(options)?;
        let dir = index_dir(&options.root);
        let (index, wiped) = match Index::open(&dir) {
            Ok(index) => (index, None),
            Err(e) => {
                tracing::warn!(index = %dir.display(), error = %e, "the index is made anew from the files");
                let index = Index::fresh(&dir).map_err(|e| OpenError::Io {
                    action: "make a new index in",
                    path: dir,
                    source: io::Error::other(e),
                })?;
                (index, Some(e.to_string()))
            }
        };
        let (protected, protected_unreadable) = match lock::read_protected(&options.root) {
            Ok(list) => (list, None),
            Err(e) => (Vec::new(), Some(e)),
        };
        Ok(Self {
            root: options.root.clone(),
            id,
            _lock: lock,
            index,
            wiped,
            open: BTreeMap::new(),
            usage: BTreeMap::new(),
            protected,
            protected_unreadable,
            codecs: HashMap::new(),
            events: BTreeMap::new(),
            hook: None,
        })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the directory calls itself.
    pub const fn id(&self) -> &StorageId {
        &self.id
    }

    /// What each camera takes up; open segments are counted by what is durable.
    pub const fn usage(&self) -> &BTreeMap<CameraName, Usage> {
        &self.usage
    }

    /// Cameras that have footage.
    pub fn cameras(&self) -> Vec<CameraName> {
        let has = |u: &Usage| u.segments > 0;
        self.usage
            .iter()
            .filter(|(_, u)| has(u))
            .map(|(c, _)| c.clone())
            .collect()
    }

    /// Bytes that the file system has free for this process.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let s = rustix::fs::statvfs(&self.root)?;
        Ok(s.f_bavail.saturating_mul(s.f_frsize))
    }

    /// From `from` on there is no footage of `camera`, because of `cause`, until the next segment or the next note.
    pub fn note_gap(&mut self, camera: &CameraName, from: WallTime, cause: GapCause) -> Result<(), ArchiveError> {
        self.index(|i| i.put_gap(camera, from, cause))
    }

    /// Retention leaves this alone from now on, also what is recorded in it later.
    pub fn protect(&mut self, camera: &CameraName, range: TimeRange) -> Result<(), ArchiveError> {
        if self.protected.len() >= PROTECTED_MAX {
            return Err(ArchiveError::TooManyProtected { max: PROTECTED_MAX });
        }
        let mut list = self.protected.clone();
        list.push(Protected {
            camera: camera.clone(),
            range,
        });
        self.set_protected(list)
    }

    /// Releases the protected ranges of `camera` that lie within `range`. Returns how many.
    pub fn unprotect(&mut self, camera: &CameraName, range: TimeRange) -> Result<usize, ArchiveError> {
        let within = |p: &Protected| p.camera == *camera && p.range.start >= range.start && p.range.end <= range.end;
        let list: Vec<_> = self.protected.iter().filter(|p| !within(p)).cloned().collect();
        let released = self.protected.len() - list.len();
        if released > 0 {
            self.set_protected(list)?;
        }
        Ok(released)
    }

    /// What is protected.
    pub fn protected(&self) -> &[Protected] {
        &self.protected
    }

    fn set_protected(&mut self, list: Vec<Protected>) -> Result<(), ArchiveError> {
        if let Some((path, reason)) = &self.protected_unreadable {
            return Err(ArchiveError::Io {
                action: "read",
                path: path.clone(),
                source: io::Error::new(io::ErrorKind::InvalidData, reason.clone()),
            });
        }
        lock::write_protected(&self.root, &list).map_err(io_error("write the protected ranges below", &self.root))?;
        self.protected = list;
        Ok(())
    }

    /// Why a segment must stay, if it must.
    fn kept_because(&self, key: &SegmentKey, end: WallTime) -> Option<&'static str> {
        if self.open.contains_key(key) {
            return Some("open");
        }
        if self.protected_unreadable.is_some() {
            return Some("perhaps protected: the list of protected ranges is damaged");
        }
        let overlaps = |r: &TimeRange| r.start < end && r.end > key.start;
        let protected = self
            .protected
            .iter()
            .any(|p| p.camera == key.camera && overlaps(&p.range));
        protected.then_some("protected")
    }

    /// Hands the newest rows to the disk. They are a cache: what is lost of them is found again in the files.
    pub fn flush(&mut self) -> Result<(), ArchiveError> {
        self.index(Index::flush)
    }

    /// Calls the index; when it fails it is made anew from the files, and called again.
    fn index<T>(&mut self, f: impl Fn(&Index) -> Result<T, IndexError>) -> Result<T, ArchiveError> {
        let e = match f(&self.index) {
            Ok(v) => return Ok(v),
            Err(e) => e,
        };
        tracing::error!(root = %self.root.display(), error = %e, "the index failed: it is made anew from the files");
        self.refill()?;
        f(&self.index).map_err(|e| self.index_error(&e))
    }

    fn index_error(&self, e: &IndexError) -> ArchiveError {
        ArchiveError::Index {
            path: index_dir(&self.root),
            reason: e.to_string(),
        }
    }

    fn camera_dir(&self, camera: &CameraName) -> PathBuf {
        self.root.join(camera.as_str())
    }

    /// Lets a test see, and refuse, each step.
    #[doc(hidden)]
    pub fn set_hook(&mut self, hook: impl FnMut(Step) -> io::Result<()> + Send + 'static) {
        self.hook = Some(Box::new(hook));
    }

    fn step(&mut self, step: Step) -> Result<(), ArchiveError> {
        match &mut self.hook {
            None => Ok(()),
            Some(hook) => hook(step).map_err(io_error("hook", &self.root)),
        }
    }

    fn count(&mut self, key: &SegmentKey, end: WallTime, bytes: u64) {
        let u = self.usage.entry(key.camera.clone()).or_default();
        u.segments += 1;
        u.bytes += bytes;
        u.first = Some(u.first.map_or(key.start, |t| t.min(key.start)));
        u.last = Some(u.last.map_or(end, |t| t.max(end)));
    }
}

/// Removes a file; one that is gone already is no error.
fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        r => r,
    }
}

#[cfg(test)]
mod tests;
