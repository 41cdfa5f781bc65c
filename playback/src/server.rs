//! The RTSP server of a shard: listening sockets, connection limits, and what all connections of the shard share.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use corenvr_proto::auth::Verifier;
use corenvr_shard::{
    Class, ShardContext, Worker,
    net::{Listener, Stream},
    spawn, time,
    tls::Identity,
};
use corenvr_store::Archive;

use crate::{
    Channels, Gate, LiveRouter, PlaybackStats, connection, feed::Sources, footage::Footage, live::LiveHub,
    reader::Files, stats::count, watch::Watches,
};

/// What bounds the server; each limit says what happens beyond it. Limits of one connection (sessions, requests waiting, sizes,
/// timeouts) are those of `corenvr_proto::rtsp`.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections of one shard. One more is accepted and closed at once.
    pub connections: usize,
    /// Connections of one shard from one address. One more is accepted and closed at once.
    pub connections_per_peer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_peer: 512,
        }
    }
}

/// How to serve. One for the whole process.
#[derive(Debug)]
pub struct ServerConfig {
    /// Where to listen; every shard listens on all of them. Port 0 gives each shard a port of its own (see
    /// [`PlaybackStats::listening`]).
    pub listen: Vec<SocketAddr>,
    /// The same with TLS (`rtsps://`). Media stays within such a connection.
    pub tls_listen: Vec<SocketAddr>,
    /// What it proves itself with there; without it nothing listens on `tls_listen`.
    pub tls: Option<Identity>,
    /// Checks logins.
    pub login: Arc<Verifier>,
    /// What bounds it.
    pub limits: Limits,
    /// Which camera has a channel number, for the URLs of other makers.
    pub channels: Channels,
}

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error(
        "cannot listen for RTSP on {address}: {source}. Check [rtsp] listen and rtsps_listen, and whether another program has the port"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// How long connections may take to end when the shard stops.
const STOP_WAIT: Duration = Duration::from_secs(3);
/// How long a TLS handshake may take. Until it is done the connection counts like any other.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the connections of a shard share.
pub struct Shared {
    /// Where frames come from.
    pub sources: Rc<Sources>,
    /// Who may see what.
    pub gate: Arc<dyn Gate>,
    /// Who sees what.
    pub watches: Watches,
    /// Counters and sessions of the process.
    pub stats: Arc<PlaybackStats>,
    /// How to serve.
    pub config: Arc<ServerConfig>,
    /// The Server header.
    pub name: Arc<str>,
    /// This shard.
    pub shard: u16,
    connections: RefCell<HashMap<u64, (IpAddr, Stream)>>,
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
    let mut listeners = Vec::new();
    let plain = config.listen.iter().map(|a| (*a, None));
    let encrypted = config
        .tls
        .iter()
        .flat_map(|i| config.tls_listen.iter().map(move |a| (*a, Some(i.clone()))));
    for (address, identity) in plain.chain(encrypted) {
        let listener = Listener::tcp(address).map_err(|source| ServeError::Listen { address, source })?;
        stats.set_listening(listener.local_addr(), identity.is_some());
        listeners.push((listener, identity));
    }
    let files = Rc::new(Files::default());
    let shared = Rc::new(Shared {
        sources: Rc::new(Sources {
            footage: Footage::new(archives),
            files: files.clone(),
            hub: LiveHub::new(router),
            stats: stats.clone(),
        }),
        gate,
        watches: Watches::default(),
        stats,
        config,
        name: concat!("corenvr/", env!("CARGO_PKG_VERSION")).into(),
        shard: ctx.id.0,
        connections: RefCell::default(),
    });
    let mut tasks = vec![spawn(Class::Maintenance, "segment files", files.clone().sweep())];
    let looking = shared.clone();
    tasks.push(spawn(Class::Maintenance, "rights", async move {
        looking.watches.look(&*looking.gate).await;
    }));
    for (listener, identity) in listeners {
        tasks.push(spawn(
            Class::Playback,
            "rtsp accept",
            accept(shared.clone(), listener, identity),
        ));
    }
    ctx.stop.requested().await;
    for task in tasks {
        task.cancel().await;
    }
    shared.end_connections().await;
    files.close_idle(Duration::ZERO).await;
    Ok(())
}

async fn accept(shared: Rc<Shared>, listener: Listener, identity: Option<Identity>) {
    let mut next = 0;
    loop {
        match listener.accept().await {
            Ok(stream) => {
                next += 1;
                shared.take_in(next, stream, identity.clone());
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Shared {
    fn take_in(self: &Rc<Self>, id: u64, stream: Stream, identity: Option<Identity>) {
        let peer = stream.peer_addr().ip().to_canonical();
        // Listeners count on their own; the address of the listener keeps their numbers apart.
        let key = (u64::from(stream.local_addr().port()) << 48) | id;
        let limits = &self.config.limits;
        let (all, of_peer) = {
            let open = self.connections.borrow();
            (open.len(), open.values().filter(|(p, _)| *p == peer).count())
        };
        count(&self.stats.counters.connections);
        if all >= limits.connections || of_peer >= limits.connections_per_peer {
            count(&self.stats.counters.connections_refused);
            return;
        }
        self.connections.borrow_mut().insert(key, (peer, stream.clone()));
        let shared = self.clone();
        let entry = Entry(self.clone(), key);
        spawn(Class::Playback, "rtsp connection", async move {
            let _entry = entry;
            let stream = match identity {
                None => stream,
                Some(identity) => match shared.encrypt(key, stream, &identity).await {
                    Some(stream) => stream,
                    None => return,
                },
            };
            connection::serve(shared, stream).await;
        })
        .detach();
    }

    /// The handshake, in the connection's own task: it holds up nobody else.
    async fn encrypt(&self, key: u64, stream: Stream, identity: &Identity) -> Option<Stream> {
        let peer = stream.peer_addr();
        match stream.accept_tls(identity, HANDSHAKE_LIMIT).await {
            Ok(stream) => {
                // In its place, so that the end of the shard says goodbye in TLS as well.
                if let Some((_, kept)) = self.connections.borrow_mut().get_mut(&key) {
                    *kept = stream.clone();
                }
                Some(stream)
            }
            Err(error) => {
                count(&self.stats.counters.handshakes_failed);
                tracing::debug!(%peer, %error, "no TLS connection came about");
                None
            }
        }
    }

    async fn end_connections(&self) {
        for (_, stream) in self.connections.borrow().values() {
            // The connection's task reads the end and winds down.
            drop(stream.shutdown());
        }
        let deadline = Instant::now() + STOP_WAIT;
        while !self.connections.borrow().is_empty() && Instant::now() < deadline {
            time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Takes a connection out of the list when its task ends, however it ends.
struct Entry(Rc<Shared>, u64);

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.connections.borrow_mut().remove(&self.1);
    }
}
