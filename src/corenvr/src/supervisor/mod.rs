//! The recorder from start to stop: configuration, archives, shards, cameras, signals, and what systemd wants to know.

pub mod appliance;
pub mod devices;
pub mod load;
mod notify;
mod reload;
mod signals;
pub mod storage;

use std::{
    cell::OnceCell,
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use corenvr_playback::{LiveRouter, PlaybackStats, RouteError, ServerConfig};
use corenvr_proto::auth::Verifier;
use corenvr_recorder::{
    HandleError, Inboxes, Links, RecorderConfig, RecorderHandle, retention,
    rtmp::{Listeners, Publishers},
};
use corenvr_shard::{Class, ShardContext, Shards, StartError, Task, channel, run_control, spawn, time};
use corenvr_store::archive::retention::DiskPolicy;

pub use self::appliance::ChannelBook;
use self::{
    appliance::{AnonymousGate, Appliance, Book, StorageRef},
    devices::{Devices, Wires},
    load::{SAMPLE_INTERVAL, ShardLoad},
    notify::Notify,
    signals::Event,
    storage::{StorageError, Storages},
};
use crate::{
    admin,
    config::{self, Config, ConfigError, Cpus, LoadError},
};

/// How long the shards may take to finish the open recordings; systemd's default patience is 90 s.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// A shard that was not heard of for this long is dead: systemd gets no sign of life and restarts the service.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long the RTSP server may take to listen.
const LISTEN_LIMIT: Duration = Duration::from_secs(5);
/// Events that may wait.
const EVENTS_MAX: usize = 16;

/// The recorder could not start, or stopped because of a failure.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The configuration has mistakes.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<ConfigError>),
    /// A directory of ours cannot be used.
    #[error("{key}: {}: {source}. Remedy: create it and give it to the service's user: install -d -o corenvr {}", path.display(), path.display())]
    Directory {
        /// The key that names it.
        key: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A port is not to be had.
    #[error("{key}: cannot listen on {address}: {source}. Remedy: {}", port_remedy(source))]
    Listen {
        /// The key that names it.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The password of GB28181 devices cannot be kept.
    #[error(transparent)]
    Password(#[from] devices::PasswordError),
    /// The SIP port is not to be had.
    #[error("[gb28181] listen: {failure}. Remedy: {}", port_remedy(&failure.source))]
    Sip {
        /// Which, and why not.
        failure: corenvr_recorder::gb28181::ServerError,
    },
    /// The control socket is not to be had.
    #[error("[server] run_dir: cannot listen on {}: {source}. Remedy: choose another directory, one that this user may write to", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A CPU that is configured is not there.
    #[error("[shards] cpus: {0}")]
    Cpus(String),
    /// The runtime did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A thread or a signal handler is not to be had.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// A part that cannot be done without failed.
    #[error("{0}")]
    Failed(String),
    /// The shards did not stop in time.
    #[error("the shards did not stop within {} s; what is open is recovered at the next start", STOP_LIMIT.as_secs())]
    NotStopped,
}

fn port_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "stop the program that has the port (ss -ltnp shows it), or choose another one",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE, which the service unit grants; or choose a higher one"
        }
        _ => "use an address of this machine, or [::] for all",
    }
}

/// What a caller wants to do once everything runs; its task is cancelled when the recorder stops.
pub type OnReady = Box<dyn FnOnce(&Rc<Appliance>) -> Task<()>>;

/// Runs the recorder until it is told to stop.
pub fn run(config_path: &Path, on_ready: Option<OnReady>) -> Result<(), RunError> {
    let notify = Arc::new(Notify::from_environment());
    let loaded = config::load(config_path)?;
    let fatal: Vec<_> = loaded.fatal().cloned().collect();
    if !fatal.is_empty() {
        return Err(RunError::Config(fatal));
    }
    for error in &loaded.errors {
        tracing::error!("{error}; this camera is left out");
    }
    let config = loaded.config.clone();
    raise_file_limit();
    corenvr_shard::probe().map_err(StartError::from)?;
    let cpus = cpus(&config.cpus)?;
    prepare_directory("[server] state_dir", &config.server.state_dir)?;
    prepare_directory("[server] run_dir", &config.server.run_dir)?;
    let (events, inbox) = channel::bounded(EVENTS_MAX);
    signals::forward(events.clone())?;
    let storages = storage::open_all(&config.storage, &config.server.state_dir, &notify)?;
    storages.remember(&config.server.state_dir);
    check_ports("[rtsp] listen", &config.rtsp_listen)?;
    if config.rtmp.enabled {
        check_ports("[rtmp] listen", &config.rtmp.listen)?;
    }
    let wires = Wires::new(&config.gb28181);
    let password = wires.as_ref().map(|_| devices::password(&config)).transpose()?;
    let links = Links {
        gb28181: wires.as_ref().map(Wires::links),
        rtmp: config.rtmp.enabled.then(Publishers::new),
    };
    let parts = Parts::start(&config, &cpus, &storages, events.clone(), links)?;
    let control = Control {
        notify,
        inbox,
        events,
        on_ready,
        retention_inbox: parts.retention_inbox,
        devices: wires.zip(password),
        stop: parts.shards.stop(),
    };
    let appliance = Rc::new(Appliance {
        config_path: config_path.to_owned(),
        book: Book::new(loaded).into(),
        changing: futures::lock::Mutex::new(()),
        recorder: parts.recorder,
        retention: parts.retention,
        storages: parts.storages,
        failed_storages: storages.failed.clone(),
        playback: parts.playback,
        channels: parts.channels,
        publishers: parts.publishers,
        devices: OnceCell::new(),
        gate: parts.gate,
        load: parts.load.into(),
        slowest_ms: Vec::new().into(),
        started: Instant::now(),
    });
    let outcome = run_control(control.run(appliance))
        .map_err(RunError::from)
        .and_then(|r| r);
    let stopped = parts.shards.join(STOP_LIMIT);
    if !stopped {
        return Err(RunError::NotStopped);
    }
    storages.close();
    tracing::info!("stopped; every recording is finished");
    outcome
}

/// What runs on the shards, and the handles to it.
struct Parts {
    shards: Shards,
    recorder: RecorderHandle,
    retention: retention::RetentionHandle,
    retention_inbox: retention::RetentionInbox,
    storages: Vec<StorageRef>,
    playback: Arc<PlaybackStats>,
    channels: ChannelBook,
    publishers: Option<Publishers>,
    gate: Arc<AnonymousGate>,
    load: Vec<ShardLoad>,
}

/// What every shard is started with.
#[derive(Clone)]
struct ShardParts {
    inboxes: Inboxes,
    storages: Arc<[corenvr_recorder::Storage]>,
    recording: RecorderConfig,
    retention: retention::RetentionHandle,
    server: Arc<ServerConfig>,
    router: LiveRouter,
    gate: Arc<AnonymousGate>,
    playback: Arc<PlaybackStats>,
    events: channel::Sender<Event>,
    links: Links,
}

impl Parts {
    fn start(
        config: &Config,
        cpus: &[usize],
        storages: &Storages,
        events: channel::Sender<Event>,
        links: Links,
    ) -> Result<Self, RunError> {
        let (recorder, inboxes) = RecorderHandle::new(cpus.len() as u16);
        let (retention, retention_inbox) = retention::channel();
        let playback = PlaybackStats::new();
        let channels = ChannelBook::default();
        let publishers = links.rtmp.clone();
        let gate = Arc::new(AnonymousGate::default());
        gate.set(config.anonymous);
        let refs: Vec<_> = storages
            .open
            .iter()
            .map(|s| StorageRef {
                settings: s.settings.clone(),
                archive: s.archive.clone(),
            })
            .collect();
        let parts = ShardParts {
            inboxes,
            storages: refs
                .iter()
                .map(|s| corenvr_recorder::Storage {
                    path: s.settings.path.clone(),
                    archive: s.archive.clone(),
                })
                .collect(),
            recording: RecorderConfig {
                segment: config.recording.segment,
                sync: config.recording.sync,
                ..RecorderConfig::default()
            },
            retention: retention.clone(),
            server: Arc::new(server_config(config.rtsp_listen.clone(), channels.clone())),
            router: router(recorder.clone()),
            gate: gate.clone(),
            playback: playback.clone(),
            events,
            links,
        };
        let shards = corenvr_shard::start(&corenvr_shard::Config { cpus: cpus.to_vec() }, move |context| {
            let parts = parts.clone();
            async move { parts.run(context).await }
        })?;
        let load = cpus
            .iter()
            .zip(shards.stats())
            .map(|(cpu, stats)| ShardLoad::new(*cpu, stats))
            .collect();
        Ok(Self {
            shards,
            recorder,
            retention,
            retention_inbox,
            storages: refs,
            playback,
            channels,
            publishers,
            gate,
            load,
        })
    }
}

impl ShardParts {
    /// Recorder and RTSP server of one shard, side by side, until both have ended.
    async fn run(self, context: ShardContext) {
        let Some(inbox) = self.inboxes.take(context.id) else {
            return self.failed("a shard was started twice".into());
        };
        let archives = self.storages.iter().map(|s| s.archive.clone()).collect();
        let recorder = spawn(
            Class::Recording,
            "recorder",
            corenvr_recorder::run_shard(
                context.clone(),
                inbox,
                self.storages.clone(),
                self.recording.clone(),
                self.retention.clone(),
                self.links.clone(),
            ),
        );
        let server = spawn(
            Class::Playback,
            "rtsp-server",
            corenvr_playback::run_shard(
                context,
                self.server.clone(),
                archives,
                self.router.clone(),
                self.gate.clone(),
                self.playback.clone(),
            ),
        );
        match server.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failed(error.to_string()),
            Err(panic) => self.failed(panic.to_string()),
        }
        if let Err(panic) = recorder.await {
            self.failed(panic.to_string());
        }
    }

    fn failed(&self, reason: String) {
        tracing::error!("{reason}");
        // Full means that the stop has been asked for already.
        drop(self.events.try_send(Event::Failed(reason)));
    }
}

/// How the RTSP server listens. There are no accounts: no login is ever right.
pub fn server_config(listen: Vec<SocketAddr>, channels: ChannelBook) -> ServerConfig {
    let login = Verifier::new("corenvr", rand::random(), Instant::now(), false, |_| None);
    ServerConfig {
        listen,
        login: Arc::new(login),
        limits: corenvr_playback::Limits::default(),
        channels: corenvr_playback::Channels::new(move |n| channels.camera(n)),
    }
}

fn router(recorder: RecorderHandle) -> LiveRouter {
    Arc::new(move |subscribe| {
        recorder.subscribe(subscribe).map_err(|(_, error)| match error {
            HandleError::Busy(_) => RouteError::Busy,
            HandleError::Stopped | HandleError::NoStorage { .. } => RouteError::NoSuchCamera,
        })
    })
}

/// The control executor's part.
struct Control {
    notify: Arc<Notify>,
    inbox: channel::Receiver<Event>,
    events: channel::Sender<Event>,
    on_ready: Option<OnReady>,
    retention_inbox: retention::RetentionInbox,
    /// What the SIP server is started with, if it is, and its password.
    devices: Option<(Wires, String)>,
    stop: corenvr_shard::Stop,
}

impl Control {
    async fn run(self, appliance: Rc<Appliance>) -> Result<(), RunError> {
        let Self {
            notify,
            mut inbox,
            events,
            on_ready,
            retention_inbox,
            devices,
            stop,
        } = self;
        let following = match start_devices(&appliance, devices) {
            Ok(following) => following,
            Err(error) => {
                stop.request();
                return Err(error);
            }
        };
        let socket = appliance.book.borrow().config.server.socket();
        let api = match admin::server::start(&socket, appliance.clone()) {
            Ok(api) => api,
            Err(source) => {
                stop.request();
                return Err(RunError::Socket { path: socket, source });
            }
        };
        let rtmp = match start_rtmp(&appliance, &stop) {
            Ok(rtmp) => rtmp,
            Err(error) => {
                stop.request();
                return Err(error);
            }
        };
        let retention = start_retention(&appliance, retention_inbox, stop.clone(), events);
        let sampler = start_sampler(appliance.clone());
        let watchdog = start_watchdog(appliance.clone(), notify.clone());
        appliance.apply_all().await;
        wait_listening(&appliance).await;
        let cameras = appliance.book.borrow().recorded().count();
        notify.ready(&format!("Recording {cameras} cameras"));
        tracing::info!(cameras, rtsp = ?appliance.playback.listening(), socket = %socket.display(), "ready");
        let caller = on_ready.map(|on_ready| on_ready(&appliance));
        let outcome = until_stopped(&mut inbox, &appliance).await;
        notify.stopping();
        tracing::info!("stopping: finishing the open recordings");
        stop.request();
        if let Some(devices) = appliance.devices.get() {
            devices.server.stop().await;
        }
        for task in [Some(api), rtmp, Some(sampler), following, watchdog, caller]
            .into_iter()
            .flatten()
        {
            task.cancel().await;
        }
        // A socket that stays behind is replaced at the next start.
        drop(fs::remove_file(&socket));
        if time::timeout(STOP_LIMIT, retention).await.is_err() {
            tracing::warn!("the retention did not stop in time");
        }
        outcome
    }
}

/// Lets devices register, if they may.
fn start_devices(appliance: &Rc<Appliance>, devices: Option<(Wires, String)>) -> Result<Option<Task<()>>, RunError> {
    let Some((wires, password)) = devices else {
        return Ok(None);
    };
    let config = appliance.book.borrow().config.clone();
    let (devices, notices) = Devices::start(&config, password, wires).map_err(|failure| RunError::Sip { failure })?;
    tracing::info!(listening = ?devices.server.listening(), "GB28181 devices may register");
    drop(appliance.devices.set(devices));
    Ok(Some(devices::follow(appliance.clone(), notices)))
}

/// Ready means that players can connect. A server that cannot listen is told by an event of its own.
async fn wait_listening(appliance: &Appliance) {
    let deadline = Instant::now() + LISTEN_LIMIT;
    while appliance.playback.listening().is_empty() && Instant::now() < deadline {
        time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_stopped(inbox: &mut channel::Receiver<Event>, appliance: &Appliance) -> Result<(), RunError> {
    loop {
        match inbox.recv().await {
            Some(Event::Reload) => appliance.reload().await,
            Some(Event::Stop) | None => return Ok(()),
            Some(Event::Failed(reason)) => return Err(RunError::Failed(reason)),
        }
    }
}

/// Lets publishers in, if they are wanted.
fn start_rtmp(appliance: &Appliance, stop: &corenvr_shard::Stop) -> Result<Option<Task<()>>, RunError> {
    let Some(publishers) = appliance.publishers.clone() else {
        return Ok(None);
    };
    let listen = appliance.book.borrow().config.rtmp.listen.clone();
    let listeners = Listeners::bind(&listen, publishers).map_err(|e| RunError::Listen {
        key: "[rtmp] listen",
        address: e.address,
        source: e.source,
    })?;
    Ok(Some(spawn(Class::Live, "rtmp server", listeners.serve(stop.clone()))))
}

fn start_retention(
    appliance: &Appliance,
    inbox: retention::RetentionInbox,
    stop: corenvr_shard::Stop,
    events: channel::Sender<Event>,
) -> Task<()> {
    let storages = appliance
        .storages
        .iter()
        .map(|s| retention::RetentionStorage {
            path: s.settings.path.clone(),
            archive: s.archive.clone(),
            disk: DiskPolicy {
                keep_free: s.settings.keep_free,
                max: s.settings.max,
            },
        })
        .collect();
    let policies = appliance.book.borrow().policies();
    spawn(Class::Maintenance, "retention", async move {
        if let Err(error) = retention::run(storages, policies, inbox, stop).await {
            // Without it the disks fill up: better stop and be started again.
            drop(events.try_send(Event::Failed(format!("the retention cannot run: {error}"))));
        }
    })
}

fn start_sampler(appliance: Rc<Appliance>) -> Task<()> {
    spawn(Class::Maintenance, "sampler", async move {
        loop {
            appliance.sample();
            time::sleep(SAMPLE_INTERVAL).await;
        }
    })
}

/// Passes signs of life on to systemd for as long as every shard gives them.
fn start_watchdog(appliance: Rc<Appliance>, notify: Arc<Notify>) -> Option<Task<()>> {
    let interval = notify.watchdog_interval()?;
    Some(spawn(Class::Maintenance, "watchdog", async move {
        loop {
            let silent = appliance
                .load
                .borrow()
                .iter()
                .map(ShardLoad::silent_for)
                .max()
                .unwrap_or_default();
            if silent < SILENCE_MAX {
                notify.watchdog();
            } else {
                tracing::error!(
                    silent_ms = silent.as_millis() as u64,
                    "a shard is silent; systemd gets no sign of life"
                );
            }
            time::sleep(interval).await;
        }
    }))
}

/// Every camera has sockets and a file, every viewer a socket: as many descriptors as this process may have.
pub fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// The CPUs that carry shards: those configured, which must be among those that this process may run on.
pub fn cpus(wanted: &Cpus) -> Result<Vec<usize>, RunError> {
    let allowed = rustix::thread::sched_getaffinity(None).map_err(io::Error::from)?;
    let allowed: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|cpu| allowed.is_set(*cpu))
        .collect();
    match wanted {
        Cpus::All => Ok(allowed),
        Cpus::List(list) => match list.iter().find(|cpu| !allowed.contains(cpu)) {
            None => Ok(list.clone()),
            Some(cpu) => Err(RunError::Cpus(format!(
                "CPU {cpu} is not one that this process may run on. Remedy: choose among {allowed:?}, or write \"all\""
            ))),
        },
    }
}

fn prepare_directory(key: &'static str, path: &Path) -> Result<(), RunError> {
    let error = |source| RunError::Directory {
        key,
        path: path.to_owned(),
        source,
    };
    fs::create_dir_all(path).map_err(error)?;
    // Found out now rather than when the first camera is added.
    let probe = path.join(".corenvr-write-test");
    fs::write(&probe, b"")
        .and_then(|()| fs::remove_file(&probe))
        .map_err(error)
}

/// The shards share their port with `SO_REUSEPORT`, and so would a second recorder of the same user without noticing.
pub fn check_ports(key: &'static str, listen: &[SocketAddr]) -> Result<(), RunError> {
    for &address in listen {
        TcpListener::bind(address).map_err(|source| RunError::Listen { key, address, source })?;
    }
    Ok(())
}
