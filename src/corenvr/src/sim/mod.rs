//! Simulated cameras: a clip in an endless loop with continuous time stamps, in real time, over the same RTSP server that
//! viewers of the recorder use.
//!
//! Cameras share the clip's payloads and a few timers, so that hundreds of them cost little more than sending their bytes.

mod clip;
pub mod gb28181;
mod station;

use std::{
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use corenvr_media::CameraName;
use corenvr_playback::{Access, Action, Gate, PlaybackStats, ServeError};
use corenvr_proto::auth::Verifier;
use corenvr_shard::{Class, Shards, StartError, spawn};
use corenvr_store::mkv::import::{CLIP_LEN_MAX, ImportError};

pub use self::clip::LoopClip;
use crate::supervisor::{self, RunError};

/// The clip that is in the binary: 640x360 at 25 frames per second with a counter, H.264 with a key frame every second, AAC.
const BUILT_IN: &[u8] = include_bytes!("../../assets/demo.mkv");
/// How long the shards may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long the server may take to listen.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many cameras: `cam1`, `cam2` and so on.
    pub cameras: u32,
    /// What they show; `None`: the built-in clip.
    pub file: Option<PathBuf>,
    /// Where they listen; port 0 picks one, which needs a single CPU.
    pub listen: SocketAddr,
    /// CPUs that serve them; empty: all.
    pub cpus: Vec<usize>,
}

/// The cameras could not be simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The clip cannot be read.
    #[error("--file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The clip cannot be used.
    #[error("--file {}: {source}. Remedy: ffmpeg -i FILE -c copy clip.mkv, with video as H.264, H.265, MJPEG or AV1", path.display())]
    Clip {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ImportError,
    },
    /// The clip has nothing to loop.
    #[error("--file {}: the clip holds less than two pictures that start with a key frame", path.display())]
    Short {
        /// The file.
        path: PathBuf,
    },
    /// GB28181 cannot carry the clip.
    #[error("--file: {0}")]
    Source(#[from] corenvr_gb28181_device::SourceError),
    /// The machine gives the device no socket.
    #[error("the simulated device has no socket: {0}")]
    Socket(io::Error),
    /// The machine or the port is not to be had.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The server could not listen.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The runtime did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server did not listen in time, or ended by itself.
    #[error("the simulated cameras do not serve: {0}")]
    Ended(String),
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(io::Error),
}

/// Cameras that are being simulated; dropping this stops them.
pub struct Sim {
    shards: Option<Shards>,
    stats: Arc<PlaybackStats>,
    failures: mpsc::Receiver<SimError>,
}

/// Anybody may watch a simulated camera.
struct Open;

impl Gate for Open {
    fn access(&self, _: Option<&str>, _: Action, _: &CameraName) -> Access {
        Access::Allow
    }
}

/// Simulates cameras until a signal comes.
pub fn run(options: &Options) -> Result<(), SimError> {
    supervisor::raise_file_limit();
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT])
        .map_err(SimError::Signals)?;
    let sim = start(options)?;
    tracing::info!(
        cameras = options.cameras,
        first = %format!("rtsp://{}/cam1", options.listen),
        "simulated cameras are ready"
    );
    loop {
        if signals.pending().next().is_some() {
            tracing::info!("stopping");
            return Ok(());
        }
        match sim.failures.recv_timeout(Duration::from_millis(200)) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Ok(error) => return Err(error),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(SimError::Ended("every shard has ended".into())),
        }
    }
}

/// Starts the cameras and returns when they can be connected to.
pub fn start(options: &Options) -> Result<Sim, SimError> {
    let clip = Arc::new(load(options.file.as_ref())?);
    let wanted = match options.cpus.as_slice() {
        [] => crate::config::Cpus::All,
        list => crate::config::Cpus::List(list.to_vec()),
    };
    let cpus = supervisor::cpus(&wanted)?;
    supervisor::check_ports("--listen", &[options.listen])?;
    let stats = PlaybackStats::new();
    let server = Arc::new(supervisor::server_config(
        vec![options.listen],
        supervisor::ChannelBook::default(),
        // Everything is open: no login is asked for, and none is right.
        Verifier::new("corenvr simulator", rand::random(), Instant::now(), false, |_| None),
    ));
    let (failed, failures) = mpsc::channel();
    let (shared_stats, cameras) = (stats.clone(), options.cameras);
    let shards = corenvr_shard::start(&corenvr_shard::Config { cpus }, move |context| {
        let (clip, server, stats, failed) = (clip.clone(), server.clone(), shared_stats.clone(), failed.clone());
        async move {
            let router = station::start(&clip, cameras);
            let serving = corenvr_playback::run_shard(context, server, Vec::new(), router, Arc::new(Open), stats);
            let outcome = match spawn(Class::Live, "rtsp-server", serving).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.into(),
                Err(panic) => SimError::Ended(panic.to_string()),
            };
            // Nobody listens any more when the simulation is being dropped.
            drop(failed.send(outcome));
        }
    })?;
    let sim = Sim {
        shards: Some(shards),
        stats,
        failures,
    };
    sim.wait_listening()?;
    Ok(sim)
}

fn load(file: Option<&PathBuf>) -> Result<LoopClip, SimError> {
    let path = file.cloned().unwrap_or_else(|| PathBuf::from("(built in)"));
    let read = |source| SimError::Read {
        path: path.clone(),
        source,
    };
    let clip_error = |source| SimError::Clip {
        path: path.clone(),
        source,
    };
    let clip = match file {
        None => LoopClip::read(BUILT_IN),
        Some(file) => {
            let len = fs::metadata(file).map_err(read)?.len();
            if len > CLIP_LEN_MAX as u64 {
                return Err(clip_error(ImportError::TooLarge(len as usize)));
            }
            LoopClip::read(&fs::read(file).map_err(read)?)
        }
    };
    clip.map_err(clip_error)?.ok_or(SimError::Short { path: path.clone() })
}

impl Sim {
    /// Where the cameras listen.
    pub fn address(&self) -> Option<SocketAddr> {
        self.stats.listening().first().copied()
    }

    fn wait_listening(&self) -> Result<(), SimError> {
        let deadline = Instant::now() + LISTEN_LIMIT;
        while self.address().is_none() {
            if let Ok(error) = self.failures.try_recv() {
                return Err(error);
            }
            if Instant::now() > deadline {
                return Err(SimError::Ended("nothing listens yet".into()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if let Some(shards) = self.shards.take()
            && !shards.join(STOP_LIMIT)
        {
            tracing::warn!("the simulated cameras did not stop in time");
        }
    }
}
