//! Segments and the live edge out, over RTSP.
//!
//! The way of a frame: `footage` finds the segments of a range, [`plan`] decides what of them is read and sent, `reader` reads clusters,
//! `feed` joins archive and live edge, `player` waits for each frame's moment (`pacer`), `outlet` cuts it into packets, and `transport` has
//! the sockets. Around that, `session` is one RTSP session, `connection` one client, and `server` what a shard shares. `resource` and `alias` read URLs,
//! `manner` decides how a range is played, `still` finds one frame, `silence` keeps sound alive. `clients` is the only place that knows one
//! player from another.

mod access;
mod alias;
mod clients;
mod connection;
mod description;
mod feed;
mod footage;
mod live;
mod lookup;
mod manner;
mod outlet;
mod pacer;
pub mod plan;
mod player;
mod reader;
mod resource;
mod server;
mod session;
mod silence;
mod stats;
mod still;
mod transport;
mod wake;
mod watch;

pub use access::{Access, Action, Gate, Seen, Viewer, Watched};
pub use alias::Channels;
pub use live::{LiveRouter, RouteError};
pub use server::{Limits, ServeError, ServerConfig, run_shard};
pub use stats::{Counters, PlaybackStats, SessionInfo, SessionKind, Snapshot};
