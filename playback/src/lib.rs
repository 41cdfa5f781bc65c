//! Segments and the live edge out, over RTSP.

mod access;
mod live;
mod server;
mod stats;

pub use access::{Access, Action, Gate};
pub use live::{LiveRouter, RouteError};
pub use server::{Limits, ServeError, ServerConfig, run_shard};
pub use stats::{Counters, PlaybackStats, SessionInfo, SessionKind, Snapshot};
