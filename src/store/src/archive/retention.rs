//! Which segments have to go: a pure plan over rows, so that its properties can be tested without a disk.

use std::time::Duration;

use corenvr_media::{CameraName, WallTime};

use crate::SegmentKey;

/// Most segments of one plan. The caller deletes, then asks again: a wrong clock costs at most this many before someone looks.
pub const PLAN_MAX: usize = 1024;

/// What is kept of one camera. `None` does not limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Segments that ended longer ago than this go.
    pub age: Option<Duration>,
    /// The oldest go until no more than this is left.
    pub bytes: Option<u64>,
}

/// What is kept of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskPolicy {
    /// The oldest segments of all cameras go until this many bytes of the file system are free.
    pub keep_free: u64,
    /// The oldest segments of all cameras go until the archive holds no more than this.
    pub max: Option<u64>,
}

/// One segment as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The segment.
    pub key: SegmentKey,
    /// Its end.
    pub end: WallTime,
    /// Its size.
    pub bytes: u64,
    /// It is neither open nor protected.
    pub deletable: bool,
}

/// One camera as the plan sees it.
pub struct CameraCandidates<'a> {
    /// The camera.
    pub camera: CameraName,
    /// What to keep of it.
    pub policy: RetentionPolicy,
    /// Bytes of all its segments, open and protected ones included.
    pub bytes: u64,
    /// Its segments, oldest first. Only as many are read as the plan needs.
    pub segments: Box<dyn Iterator<Item = Candidate> + 'a>,
}

