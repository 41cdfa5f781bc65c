//! What the archive takes and gives: options, errors, timelines, usage, reports.

use std::{fmt, io, path::PathBuf, time::Duration};

use corenvr_media::{CameraName, TimeRange, WallTime};
use serde::{Deserialize, Serialize};

use crate::{GapCause, ReadError, SegmentHeader, SegmentKey, WriteError, mkv::recover::Damage};

/// What a storage directory calls itself: a random UUID, so that a wrong or missing mount is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StorageId(pub(crate) String);

impl fmt::Display for StorageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<String> for StorageId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// How to open a storage directory.
#[derive(Debug, Clone)]
pub struct ArchiveOptions {
    /// The directory.
    pub root: PathBuf,
    /// Make the directory, and an archive in it, where there is none yet.
    pub create: bool,
    /// Refuse a directory that is not the one that had this id when it was used last: the disk is not mounted, or is another one.
    pub expect: Option<StorageId>,
}

impl ArchiveOptions {
    /// Creates what is missing and accepts any id.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            create: true,
            expect: None,
        }
    }
}

/// A storage directory could not be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by process {pid} ({host}): stop it, or give this one another storage directory", root.display())]
    InUse {
        /// The storage directory.
        root: PathBuf,
        /// The process that holds the lock, as it wrote it down; 0 if that could not be read.
        pid: u32,
        /// Its host.
        host: String,
    },
    /// The directory has another identity than expected.
    #[error("{} is not the storage directory that was used before (expected {expected}, found {}): is its disk mounted?", root.display(), found.as_ref().map_or_else(|| "an empty directory".to_owned(), ToString::to_string))]
    WrongDirectory {
        /// The storage directory.
        root: PathBuf,
        /// The id asked for.
        expected: StorageId,
        /// The id found, if any.
        found: Option<StorageId>,
    },
    /// There is no archive there, and none was to be created.
    #[error("{} is not a corenvr storage directory", root.display())]
    NotAnArchive {
        /// The directory.
        root: PathBuf,
    },
    /// The identity file cannot be understood.
    #[error("{} is damaged: {reason}. If this is the right disk, remove the file and run `corenvr archive rebuild`", path.display())]
    Identity {
        /// The identity file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// An operation on an open archive failed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and at which byte.
        source: ReadError,
    },
    /// The header cannot be written.
    #[error("{key}: {source}")]
    Header {
        /// The segment.
        key: SegmentKey,
        /// Why not.
        source: WriteError,
    },
    /// No segment with that key is open.
    #[error("{0} is not an open segment")]
    NotOpen(SegmentKey),
    /// There is no such segment, or it is open or protected: it is not deleted.
    #[error("{0} cannot be deleted: it is {1}")]
    NotDeletable(SegmentKey, &'static str),
    /// A cluster does not continue its segment.
    #[error("{0}: a cluster at byte {1} does not continue the segment")]
    NotContiguous(SegmentKey, u64),
    /// The index failed and could not be made anew. Recordings are not affected.
    #[error("the index of {} failed: {reason}", path.display())]
    Index {
        /// The index directory.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// Back-filled footage is to lie where there is some already.
    #[error("{camera} has footage between {} and {}: nothing is filled in there", range.start, range.end)]
    Occupied {
        /// The camera.
        camera: CameraName,
        /// What was to be filled.
        range: TimeRange,
    },
    /// Too many ranges are protected.
    #[error("{max} ranges are protected already: release some first")]
    TooManyProtected {
        /// The limit.
        max: usize,
    },
}

/// A segment that was opened for writing: the file exists, is empty, and belongs to the caller.
#[derive(Debug, Clone)]
pub struct OpenedSegment {
    /// The header to write; its start is moved by microseconds where another segment of the camera has the same.
    pub header: SegmentHeader,
    /// The empty file.
    pub path: PathBuf,
    /// What names the segment from now on.
    pub key: SegmentKey,
}

/// How a finished file ends, from [`crate::Seal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// Its size.
    pub bytes: u64,
    /// The moment after its last frame.
    pub end: WallTime,
}

/// Footage without a gap in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// From when to when.
    #[serde(flatten)]
    pub range: TimeRange,
    /// Size of the segments it comes from; a segment that reaches out of the range asked for counts whole.
    pub bytes: u64,
    /// It still grows.
    pub open: bool,
    /// It was not recorded as it happened, but fetched later from an archive of the camera's own: its times are as good as
    /// that archive's, and its beginning may really be a group of pictures earlier than it says.
    pub backfilled: bool,
}

/// Time without footage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// From when to when.
    #[serde(flatten)]
    pub range: TimeRange,
    /// Why.
    pub cause: GapCause,
}

/// What there is of a camera in a range of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Timeline {
    /// Footage, ordered, not overlapping, cut to the range. Footage of another origin is another span.
    pub spans: Vec<Span>,
    /// Gaps between the spans, ordered; also after the last one where a cause was noted. Time before the first footage is
    /// not a gap.
    pub gaps: Vec<Gap>,
    /// Size of all segments that the spans come from.
    pub bytes: u64,
    /// Set when the range holds more than [`crate::archive::TIMELINE_SEGMENTS_MAX`] segments: ask again from here.
    pub more_from: Option<WallTime>,
}

/// What a camera takes up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Bytes of all segments, open ones included.
    pub bytes: u64,
    /// Number of segments.
    pub segments: u64,
    /// Start of the oldest.
    pub first: Option<WallTime>,
    /// End of the newest.
    pub last: Option<WallTime>,
}

/// A range that retention leaves alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protected {
    /// The camera.
    pub camera: CameraName,
    /// From when to when.
    #[serde(flatten)]
    pub range: TimeRange,
}

/// How far a long operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Files done.
    pub files: u64,
    /// Files in all, as far as known.
    pub files_total: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// What start-up found and did.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Segments that were open when the recorder ended, finished now: path and the damage that was bridged inside.
    pub recovered: Vec<(PathBuf, Vec<Damage>)>,
    /// Part files that held no frame, removed.
    pub removed: Vec<PathBuf>,
    /// Part files with nothing whole but something in them, set aside under this name for a person to judge.
    pub set_aside: Vec<PathBuf>,
    /// Files that cannot be read: left as they are and not listed.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Segments that had no row and got one.
    pub added: u64,
    /// Rows whose file is gone, dropped.
    pub missing: Vec<PathBuf>,
    /// Deletions that were begun before and are finished now.
    pub deletions_finished: u64,
    /// Why the index was made anew, if it was.
    pub index_rebuilt: Option<String>,
    /// Segments in the archive afterwards.
    pub segments: u64,
    /// How long it took.
    pub took: Duration,
}
