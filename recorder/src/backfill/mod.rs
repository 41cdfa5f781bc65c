//! Gaps filled from a camera's own archive, while it goes on being recorded: what is asked, what came of it.
//!
//! One job at a time for each camera, on the camera's shard. A job works through spans of time, one session with the device's archive
//! each; what comes goes through a queue and a writer of its own into segments that are marked as back-filled. The live
//! recording of the camera is never touched. What a span does not bring stays the gap that it was.

mod filling;
mod job;
mod line;
#[cfg(test)]
mod tests;

use corenvr_media::{CameraName, TimeRange, WallTime};
use corenvr_store::GapCause;
use serde::{Deserialize, Serialize};

use crate::HandleError;
pub(crate) use job::{Job, Plan};

/// Most spans of one job. A request for more is refused: ask for a shorter time.
pub const SPANS_MAX: usize = 2000;

/// Time to be filled: a gap, or the part of one that the device says it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackfillSpan {
    /// From when to when.
    pub range: TimeRange,
    /// Why there is a gap.
    pub cause: GapCause,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackfillState {
    /// It works.
    Running,
    /// It has worked through every span.
    Done,
    /// It was stopped.
    Stopped,
    /// It failed inside; what was written stays.
    Failed,
}

/// What came of a span.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanReport {
    /// What was asked for; `None` only before a span is begun.
    pub asked: Option<TimeRange>,
    /// Where there is back-filled footage in it now, ordered.
    pub got: Vec<TimeRange>,
    /// Frames that were written.
    pub frames: u64,
    /// Frames that came and were left out: before the first key frame, behind a gap up to the next, outside of what was asked for.
    pub left_out: u64,
    /// Why that is not all; `None` if it is.
    pub missing: Option<String>,
}

/// A job and what came of it so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillReport {
    /// The camera.
    pub camera: CameraName,
    /// How far it is.
    pub state: BackfillState,
    /// Spans in all.
    pub spans_total: usize,
    /// The time of the newest picture of the span under way.
    pub position: Option<WallTime>,
    /// The spans that are done, in order.
    pub spans: Vec<SpanReport>,
}

/// A job was not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackfillError {
    /// The recorder cannot be asked.
    #[error(transparent)]
    Handle(#[from] HandleError),
    /// No such camera is configured.
    #[error("there is no camera {0}")]
    NoSuchCamera(CameraName),
    /// Its kind of camera has no archive that could be asked.
    #[error("{0} is not a GB28181 camera: there is no archive of its own that could be asked")]
    NoArchive(CameraName),
    /// GB28181 is switched off.
    #[error("GB28181 is switched off: write a section [gb28181] into the configuration and restart corenvr")]
    SwitchedOff,
    /// A job of the camera runs already.
    #[error("gaps of {0} are being filled already: wait, or stop that first")]
    Running(CameraName),
    /// Too much at once.
    #[error("{0} spans at once: at most {SPANS_MAX}; ask for a shorter time")]
    TooMany(usize),
}
