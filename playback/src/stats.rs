//! What `corenvr status` and the metrics show of playback: sessions and counters.
//!
//! A session counts in atomics of its own; the list of sessions is locked only when one begins or ends and when somebody looks.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use corenvr_media::{CameraName, WallTime};
use serde::Serialize;

/// What a session shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionKind {
    /// The present.
    Live,
    /// The past.
    Archive,
}

/// One session, as it was at the moment of the question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionInfo {
    /// Counts up over the life of the process.
    pub id: u64,
    /// The client's address.
    pub peer: SocketAddr,
    /// The client's User-Agent, shortened.
    pub agent: String,
    /// Who logged in, if anybody.
    pub user: Option<String>,
    /// The camera.
    pub camera: CameraName,
    /// Live or archive.
    pub kind: SessionKind,
    /// `tcp` or `udp`.
    pub transport: &'static str,
    /// The shard it runs on.
    pub shard: u16,
    /// Whether it plays right now; otherwise it is set up, paused, or at its end.
    pub playing: bool,
    /// Time of the footage sent last.
    pub position: Option<WallTime>,
    /// Footage time over wall time; negative in reverse.
    pub rate: f64,
    /// For how long it has existed, in seconds.
    pub age_s: u64,
    /// Frames sent.
    pub frames: u64,
    /// Bytes of RTP sent.
    pub bytes: u64,
    /// Mean bit rate over its life, in bits per second.
    pub bitrate: u64,
    /// Frames that a live viewer who fell behind did not get.
    pub skipped: u64,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters since the start of the process.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)* }

        #[derive(Debug, Default)]
        pub(crate) struct LiveCounters { $(pub $name: AtomicU64,)* }

        impl LiveCounters {
            fn read(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Connections accepted.
    connections,
    /// Connections refused because of a limit.
    connections_refused,
    /// TLS handshakes that failed or were not done in time.
    handshakes_failed,
    /// Requests answered.
    requests,
    /// Requests answered with 4xx or 5xx.
    requests_failed,
    /// Connections closed because what came over them was not RTSP.
    protocol_errors,
    /// Logins refused.
    logins_refused,
    /// Sessions set up.
    sessions,
    /// Sessions ended because nothing was heard of the client for the session timeout.
    sessions_timed_out,
    /// PLAY requests answered with 200.
    plays,
    /// Frames sent.
    frames,
    /// Bytes of RTP sent.
    bytes,
    /// Frames that live viewers who fell behind did not get.
    live_skipped,
    /// Bytes of footage read from disk.
    bytes_read,
    /// Clusters and files that could not be read and were passed over.
    unreadable,
    /// Seams between archive and live edge at which frames are missing.
    seams_missed,
    /// Access units that no RTP payload format can carry.
    unsendable,
}

/// Everything there is to know, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// Sessions, oldest first.
    pub sessions: Vec<SessionInfo>,
    /// Counters.
    pub counters: Counters,
}

/// Shared by all shards of a process.
#[derive(Debug, Default)]
pub struct PlaybackStats {
    next_id: AtomicU64,
    sessions: Mutex<BTreeMap<u64, Arc<SessionStats>>>,
    listening: Mutex<Vec<SocketAddr>>,
    listening_tls: Mutex<Vec<SocketAddr>>,
    pub(crate) counters: LiveCounters,
}

#[derive(Debug)]
pub(crate) struct SessionStats {
    id: u64,
    identity: SessionIdentity,
    begun: Instant,
    playing: AtomicBool,
    /// Microseconds since the epoch; `i64::MIN` before the first frame.
    position: AtomicI64,
    /// The bits of an `f64`.
    rate: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
    skipped: AtomicU64,
}

/// What does not change in the life of a session.
#[derive(Debug)]
pub(crate) struct SessionIdentity {
    pub peer: SocketAddr,
    pub agent: String,
    pub user: Option<String>,
    pub camera: CameraName,
    pub kind: SessionKind,
    pub transport: &'static str,
    pub shard: u16,
}

/// Keeps a session in the list; dropping it takes the session out.
#[derive(Debug)]
pub(crate) struct SessionGuard {
    stats: Arc<PlaybackStats>,
    session: Arc<SessionStats>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PlaybackStats {
    /// Nothing counted yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The state now.
    pub fn snapshot(&self) -> Snapshot {
        let sessions: Vec<_> = lock(&self.sessions).values().cloned().collect();
        Snapshot {
            sessions: sessions.iter().map(|s| s.info()).collect(),
            counters: self.counters.read(),
        }
    }

    /// The addresses that some shard listens on without encryption.
    pub fn listening(&self) -> Vec<SocketAddr> {
        lock(&self.listening).clone()
    }

    /// The addresses that some shard listens on with TLS.
    pub fn listening_tls(&self) -> Vec<SocketAddr> {
        lock(&self.listening_tls).clone()
    }

    pub(crate) fn set_listening(&self, address: SocketAddr, secure: bool) {
        let mut list = lock(if secure { &self.listening_tls } else { &self.listening });
        if !list.contains(&address) {
            list.push(address);
        }
    }

    pub(crate) fn begin(self: &Arc<Self>, identity: SessionIdentity) -> SessionGuard {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let session = Arc::new(SessionStats {
            id,
            identity,
            begun: Instant::now(),
            playing: AtomicBool::new(false),
            position: AtomicI64::new(i64::MIN),
            rate: AtomicU64::new(1f64.to_bits()),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        });
        self.counters.sessions.fetch_add(1, Ordering::Relaxed);
        lock(&self.sessions).insert(id, session.clone());
        SessionGuard {
            stats: self.clone(),
            session,
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn count_bytes(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(bytes as u64, Ordering::Relaxed);
}

impl SessionGuard {
    /// A frame went out.
    pub(crate) fn sent(&self, position: WallTime, bytes: u64) {
        let s = &self.session;
        s.position.store(position.as_micros(), Ordering::Relaxed);
        s.frames.fetch_add(1, Ordering::Relaxed);
        s.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.stats.counters.frames.fetch_add(1, Ordering::Relaxed);
        self.stats.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Frames did not go out because the viewer fell behind.
    pub(crate) fn skipped(&self, frames: u64) {
        self.session.skipped.fetch_add(frames, Ordering::Relaxed);
        self.stats.counters.live_skipped.fetch_add(frames, Ordering::Relaxed);
    }

    pub(crate) fn set_rate(&self, rate: f64) {
        self.session.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn set_playing(&self, playing: bool) {
        self.session.playing.store(playing, Ordering::Relaxed);
    }

    pub(crate) fn all(&self) -> &PlaybackStats {
        &self.stats
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        lock(&self.stats.sessions).remove(&self.session.id);
    }
}

impl SessionStats {
    fn info(&self) -> SessionInfo {
        let age = self.begun.elapsed();
        let bytes = self.bytes.load(Ordering::Relaxed);
        let position = self.position.load(Ordering::Relaxed);
        SessionInfo {
            id: self.id,
            peer: self.identity.peer,
            agent: self.identity.agent.clone(),
            user: self.identity.user.clone(),
            camera: self.identity.camera.clone(),
            kind: self.identity.kind,
            transport: self.identity.transport,
            shard: self.identity.shard,
            playing: self.playing.load(Ordering::Relaxed),
            position: (position != i64::MIN).then(|| WallTime::from_micros(position)),
            rate: f64::from_bits(self.rate.load(Ordering::Relaxed)),
            age_s: age.as_secs(),
            frames: self.frames.load(Ordering::Relaxed),
            bytes,
            bitrate: bitrate(bytes, age),
            skipped: self.skipped.load(Ordering::Relaxed),
        }
    }
}

fn bitrate(bytes: u64, over: Duration) -> u64 {
    (bytes.saturating_mul(8).saturating_mul(1000)) / (over.as_millis() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_listed_while_it_lives() {
        let stats = PlaybackStats::new();
        let guard = stats.begin(SessionIdentity {
            peer: ([127, 0, 0, 1], 5).into(),
            agent: "test".into(),
            user: None,
            camera: CameraName::new("door").unwrap(),
            kind: SessionKind::Archive,
            transport: "tcp",
            shard: 0,
        });
        guard.set_playing(true);
        guard.sent(WallTime::from_millis(5), 1000);
        let seen = stats.snapshot();
        assert_eq!(seen.sessions.len(), 1);
        assert_eq!(seen.sessions[0].position, Some(WallTime::from_millis(5)));
        assert_eq!((seen.counters.frames, seen.counters.bytes), (1, 1000));
        assert!(seen.sessions[0].playing);
        drop(guard);
        assert!(stats.snapshot().sessions.is_empty());
        assert_eq!(stats.snapshot().counters.sessions, 1);
    }

    #[test]
    fn a_bit_rate_of_no_time_is_no_division_by_zero() {
        assert_eq!(bitrate(1000, Duration::ZERO), 8_000_000);
        assert_eq!(bitrate(500_000, Duration::from_secs(1)), 4_000_000);
    }
}
