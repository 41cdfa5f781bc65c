//! The archive: Matroska segments on disk, the sled time index beside them, timeline, gaps and events, recovery, check, export,
//! and the ring of the newest frames that is not on disk yet.
//!
//! Everything here is synchronous and knows no runtime. What touches a file or sled belongs on a plain thread; what does
//! not ([`mkv::writer`], [`mkv::reader`], [`live`]) may run on a reactor. The segments are the truth and the index is a
//! cache of them; the order in which both are written is described at [`archive`].

pub mod archive;

pub mod events;
pub mod export;
#[doc(hidden)]
pub mod fuzzing;
mod gap;
mod index;
pub mod live;
pub mod mkv;
mod tables;

pub use archive::check;
pub use archive::{Archive, ArchiveError, ArchiveOptions, OpenError};
pub use gap::GapCause;
pub use mkv::reader::ReadError;
pub use mkv::writer::{Seal, SegmentHeader, SegmentWriter, Sink, WriteError};
pub use tables::{ClusterInfo, ClusterSpan, KeyFrame, SegmentKey, SegmentMeta, SegmentState, Table};
