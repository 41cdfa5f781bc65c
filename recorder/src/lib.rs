//! Cameras in, segments out.
//!
//! [`run_shard`] runs the cameras that a shard owns: a driver per camera (`ingest`) moves bytes between its sockets and the
//! protocol machines, the `pipeline` puts the frames on the UTC time line and decides where segments begin, and the `writer`
//! brings them to disk and into the index. [`retention`] runs on the control executor and makes room.
//! Nothing of a camera ever leaves its shard; the rest of the process talks to it through [`RecorderHandle`].

mod backfill;
mod camera;
mod config;
pub mod gb28181;
mod handle;
mod ingest;
mod links;
mod live;
pub mod load;
mod owner;
mod pipeline;
mod probe;
pub mod retention;
pub mod rtmp;
mod shard;
mod status;
mod writer;

pub use backfill::{BackfillError, BackfillReport, BackfillSpan, BackfillState, SPANS_MAX, SpanReport};
pub use config::{CameraConfig, CameraMode, RecorderConfig, Source, SourceError, TransportChoice};
pub use handle::{HandleError, INBOX_MAX, Inbox, Inboxes, RecorderHandle};
pub use links::{Gb28181Links, Links};
pub use owner::owner;
pub use probe::{ProbeError, ProbeReport, ProbedStream, probe};
pub use shard::{Storage, run_shard};
pub use status::{CameraState, CameraStatus, Counters, StreamInfo};

#[cfg(test)]
mod tests;
