//! The recorder from start to stop: configuration, archives, shards, cameras, signals, and what systemd wants to know.

pub mod appliance;
pub mod completeness;
pub mod crashes;
pub mod devices;
pub mod load;
pub mod mounts;
mod notify;
mod reload;
mod signals;
pub mod storage;
mod watchdog;

use std::{
    cell::OnceCell,
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use corenvr_media::WallTime;
use corenvr_playback::{LiveRouter, PlaybackStats, RouteError, ServerConfig};
use corenvr_proto::auth::Verifier;
use corenvr_recorder::{
    HandleError, Inboxes, Links, RecorderConfig, RecorderHandle, retention,
    rtmp::{Listeners, Publishers},
};
use corenvr_shard::{
    Class, ShardContext, ShardStats, Shards, StartError, Task, Worker, channel, run_control_with, spawn, time,
};
use corenvr_store::archive::retention::DiskPolicy;

pub use self::appliance::ChannelBook;
use self::{
    appliance::{Appliance, Book, StorageRef},
    completeness::Completeness,
    devices::{Devices, Wires},
    load::{SAMPLE_INTERVAL, ShardLoad},
    notify::Notify,
    signals::Event,
    storage::{StorageError, Storages},
};
use crate::{
    accounts::{Accounts, Audit, OpenError},
    admin,
    config::{self, Config, ConfigError, Cpus, LoadError},
    tls::Identities,
};

/// How long the shards may take to finish the open recordings; systemd's default patience is 90 s.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How long the RTSP server may take to listen.
const LISTEN_LIMIT: Duration = Duration::from_secs(5);
/// Logins and changes of accounts that may wait; one more is told to try again.
const PASSWORDS_WAITING_MAX: usize = 16;
/// How often it is written down when tokens were used last.
const LAST_USES_INTERVAL: Duration = Duration::from_secs(600);
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
    #[error("{key}: {}: {source}. Remedy: {}", path.display(), directory_remedy(path, source))]
    Directory {
        /// The key that names it.
        key: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The accounts cannot be used.
    #[error(transparent)]
    Accounts(#[from] OpenError),
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

fn directory_remedy(path: &Path, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
        return storage::read_only_remedy(path);
    }
    format!(
        "create it and give it to the service's user: install -d -o corenvr {}",
        path.display()
    )
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
    let left_out = |error| tracing::error!("{error}; this camera is left out");
    loaded.errors.iter().for_each(left_out);
    let config = loaded.config.clone();
    raise_file_limit();
    corenvr_shard::probe().map_err(StartError::from)?;
    let cpus = cpus(&config.cpus)?;
    prepare_directories(&config.server)?;
    let (accounts, passwords) = open_accounts(&config)?;
    let (events, inbox) = channel::bounded_named("events", EVENTS_MAX);
    signals::forward(events.clone())?;
    let storages = storage::open_all(&config.storage, &config.server.state_dir, &notify)?;
    storages.remember(&config.server.state_dir);
    check_all_ports(&config)?;
    let identities = Identities::load(&config);
    let wires = Wires::new(&config.gb28181);
    let password = wires.as_ref().map(|_| devices::password(&config)).transpose()?;
    let links = links(&config, wires.as_ref());
    let mut parts = Parts::start(&config, &cpus, &storages, events.clone(), links, &identities, &accounts)?;
    let control_stats = Arc::new(ShardStats::of_control());
    parts.load.push(ShardLoad::new(None, control_stats.clone()));
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
        identities,
        playback: parts.playback,
        channels: parts.channels,
        publishers: parts.publishers,
        devices: OnceCell::new(),
        accounts: accounts.clone(),
        passwords,
        probing: Rc::default(),
        load: parts.load.into(),
        slowest_ms: Vec::new().into(),
        clips: admin::clip::Jobs::default(),
        slowest_writes_ms: Vec::new().into(),
        completeness: Completeness::new(WallTime::from_micros(time::wall_now_micros())).into(),
        started: Instant::now(),
    });
    let outcome = run_control_with(control_stats, control.run(appliance))
        .map_err(RunError::from)
        .and_then(|r| r);
    if !parts.shards.join(STOP_LIMIT) {
        return Err(RunError::NotStopped);
    }
    storages.close();
    accounts.audit().flush();
    tracing::info!("stopped; every recording is finished");
    outcome
}

fn check_all_ports(config: &Config) -> Result<(), RunError> {
    check_ports("[rtsp] listen", &config.rtsp.listen)?;
    check_ports("[rtsp] rtsps_listen", &config.rtsp.tls_listen)?;
    check_ports("[http] listen", &config.http.listen)?;
    check_ports("[http] https_listen", &config.http.tls_listen)?;
    if config.rtmp.enabled {
        check_ports("[rtmp] listen", &config.rtmp.listen)?;
    }
    Ok(())
}

/// What cameras that come to us are met by.
fn links(config: &Config, wires: Option<&Wires>) -> Links {
    Links {
        gb28181: wires.map(Wires::links),
        rtmp: config.rtmp.enabled.then(Publishers::new),
    }
}

/// The accounts with their log, and the thread on which they change.
fn open_accounts(config: &Config) -> Result<(Arc<Accounts>, Worker<Arc<Accounts>>), RunError> {
    let dir = &config.server.state_dir;
    let audit = Audit::open(dir).map_err(|source| OpenError::Io {
        path: dir.join("audit.jsonl"),
        source,
    })?;
    let accounts = Accounts::open(dir, config.anonymous, audit)?;
    let (worker, _thread) = Worker::start("accounts", PASSWORDS_WAITING_MAX, accounts.clone())?;
    Ok((accounts, worker))
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
    accounts: Arc<Accounts>,
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
        identities: &Identities,
        accounts: &Arc<Accounts>,
    ) -> Result<Self, RunError> {
        let (recorder, inboxes) = RecorderHandle::new(cpus.len() as u16);
        let (retention, retention_inbox) = retention::channel();
        let playback = PlaybackStats::new();
        let channels = ChannelBook::default();
        let publishers = links.rtmp.clone();
        let refs: Vec<_> = storages
            .open
            .iter()
            .map(|s| StorageRef {
                settings: s.settings.clone(),
                archive: s.archive.clone(),
                load: Arc::default(),
            })
            .collect();
        let parts = ShardParts {
            inboxes,
            storages: refs
                .iter()
                .map(|s| corenvr_recorder::Storage {
                    path: s.settings.path.clone(),
                    archive: s.archive.clone(),
                    load: s.load.clone(),
                })
                .collect(),
            recording: RecorderConfig {
                segment: config.recording.segment,
                sync: config.recording.sync,
                ..RecorderConfig::default()
            },
            retention: retention.clone(),
            server: Arc::new(ServerConfig {
                tls_listen: config.rtsp.tls_listen.clone(),
                tls: identities.rtsp.clone(),
                ..server_config(config.rtsp.listen.clone(), channels.clone(), accounts.verifier())
            }),
            router: router(recorder.clone()),
            accounts: accounts.clone(),
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
            .map(|(cpu, stats)| ShardLoad::new(Some(*cpu), stats))
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
                self.accounts.clone(),
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

/// How the RTSP server listens, without TLS, and what checks logins.
pub fn server_config(listen: Vec<SocketAddr>, channels: ChannelBook, login: Verifier) -> ServerConfig {
    ServerConfig {
        listen,
        tls_listen: Vec::new(),
        tls: None,
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
        let socket = appliance.book.borrow().config.server.socket();
        let servers = Servers::start(&appliance, &socket, devices, &stop);
        let servers = servers.inspect_err(|_| stop.request())?;
        let retention = start_retention(&appliance, retention_inbox, stop.clone(), events);
        let sampler = start_sampler(appliance.clone());
        let last_uses = start_last_uses(appliance.clone());
        let watchdog = watchdog::start(appliance.clone(), notify.clone());
        appliance.apply_all().await;
        let completeness = completeness::start(appliance.clone());
        wait_listening(&appliance).await;
        let cameras = appliance.book.borrow().recorded().count();
        notify.ready(&format!("Recording {cameras} cameras"));
        tracing::info!(cameras, rtsp = ?appliance.playback.listening(), rtsps = ?appliance.playback.listening_tls(), socket = %socket.display(), "ready");
        let caller = on_ready.map(|on_ready| on_ready(&appliance));
        let outcome = until_stopped(&mut inbox, &appliance).await;
        notify.stopping();
        tracing::info!("stopping: finishing the open recordings");
        stop.request();
        if let Some(devices) = appliance.devices.get() {
            devices.server.stop().await;
        }
        let tasks = [
            Some(servers.api),
            servers.rtmp,
            servers.following,
            Some(sampler),
            Some(last_uses),
            Some(completeness),
            watchdog,
            caller,
        ];
        for task in tasks.into_iter().flatten().chain(servers.http) {
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

/// What answers whoever connects, apart from players.
struct Servers {
    api: Task<()>,
    http: Vec<Task<()>>,
    rtmp: Option<Task<()>>,
    following: Option<Task<()>>,
}

impl Servers {
    fn start(
        appliance: &Rc<Appliance>,
        socket: &Path,
        devices: Option<(Wires, String)>,
        stop: &corenvr_shard::Stop,
    ) -> Result<Self, RunError> {
        let following = start_devices(appliance, devices)?;
        let api = admin::listen::on_socket(socket, appliance.clone()).map_err(|source| RunError::Socket {
            path: socket.to_owned(),
            source,
        })?;
        Ok(Self {
            api,
            http: start_http(appliance)?,
            rtmp: start_rtmp(appliance, stop)?,
            following,
        })
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
    let (plain, secure) = {
        let book = appliance.book.borrow();
        (
            !book.config.rtsp.listen.is_empty(),
            !book.config.rtsp.tls_listen.is_empty(),
        )
    };
    let missing = || {
        (plain && appliance.playback.listening().is_empty())
            || (secure && appliance.playback.listening_tls().is_empty())
    };
    while missing() && Instant::now() < deadline {
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

/// Answers on the addresses of `[http]`.
fn start_http(appliance: &Rc<Appliance>) -> Result<Vec<Task<()>>, RunError> {
    let service = appliance.book.borrow().config.http.clone();
    let doors = Rc::default();
    let listen = |key, addresses: &[SocketAddr], identity| {
        let tasks = admin::listen::on_addresses(addresses, identity, &doors, appliance);
        tasks.map_err(|e| RunError::Listen {
            key,
            address: e.address,
            source: e.source,
        })
    };
    let mut tasks = listen("[http] listen", &service.listen, None)?;
    if let Some(identity) = &appliance.identities.http {
        tasks.extend(listen("[http] https_listen", &service.tls_listen, Some(identity))?);
    }
    Ok(tasks)
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

/// Writes down, now and then, when tokens were used last.
fn start_last_uses(appliance: Rc<Appliance>) -> Task<()> {
    spawn(Class::Maintenance, "accounts", async move {
        loop {
            time::sleep(LAST_USES_INTERVAL).await;
            match appliance.passwords.call(|a| a.write_last_uses()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!("{error}"),
                Err(error) => tracing::warn!("{error}"),
            }
        }
    })
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

fn prepare_directories(server: &config::Server) -> Result<(), RunError> {
    prepare_directory("[server] state_dir", &server.state_dir)?;
    prepare_directory("[server] run_dir", &server.run_dir)?;
    crashes::prepare(&server.state_dir);
    Ok(())
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
