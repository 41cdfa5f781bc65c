//! The running recorder as the control executor sees it: who is configured, and the handles to everything that runs.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use corenvr_media::CameraName;
use corenvr_playback::{Access, Action, Gate, PlaybackStats};
use corenvr_recorder::{
    CameraConfig, HandleError, RecorderHandle,
    retention::{Policies, RetentionHandle},
};
use corenvr_shard::{Worker, WorkerError};
use corenvr_store::{
    Archive,
    archive::{Usage, retention::RetentionPolicy},
};

use super::load::ShardLoad;
use crate::{
    admin::api::{KeptIn, LeftOut},
    config::{
        self, Anonymous, CameraSettings, CamerasFile, CamerasFileError, Config, Loaded,
        values::{Limit, Problem},
    },
};

/// What may be watched without a login, as the RTSP server asks it; there are no accounts, so nobody else may watch anything.
#[derive(Debug, Default)]
pub struct AnonymousGate {
    live: AtomicBool,
    playback: AtomicBool,
}

impl AnonymousGate {
    /// Lets in what the configuration says from now on.
    pub fn set(&self, anonymous: Anonymous) {
        self.live.store(anonymous.live, Ordering::Relaxed);
        self.playback.store(anonymous.playback, Ordering::Relaxed);
    }
}

impl Gate for AnonymousGate {
    fn access(&self, _: Option<&str>, action: Action, _: &CameraName) -> Access {
        let allowed = match action {
            Action::Live => &self.live,
            Action::Playback => &self.playback,
        };
        if allowed.load(Ordering::Relaxed) {
            Access::Allow
        } else {
            Access::NeedLogin
        }
    }
}

/// Which camera has which channel number, as the RTSP server asks it when a URL names one.
#[derive(Debug, Clone, Default)]
pub struct ChannelBook(Arc<Mutex<HashMap<u32, CameraName>>>);

impl ChannelBook {
    /// What these cameras say holds from now on.
    pub fn set<'a>(&self, cameras: impl Iterator<Item = &'a CameraSettings>) {
        let numbers = cameras.filter_map(|c| Some((c.channel?, c.name.clone())));
        *self.lock() = numbers.collect();
    }

    /// The camera of a number.
    pub fn camera(&self, channel: u32) -> Option<CameraName> {
        self.lock().get(&channel).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, CameraName>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One storage directory, as the control executor uses it.
#[derive(Clone)]
pub struct StorageRef {
    /// Its settings.
    pub settings: config::Storage,
    /// Its archive.
    pub archive: Worker<Archive>,
}

/// Who is configured.
pub struct Book {
    /// The configuration in force.
    pub config: Config,
    /// Cameras that were added at run time.
    pub added: Vec<CameraSettings>,
    /// Entries that are not in force.
    pub left_out: Vec<LeftOut>,
}

/// The running recorder. Lives on the control executor.
pub struct Appliance {
    /// The configuration file.
    pub config_path: PathBuf,
    /// Who is configured.
    pub book: RefCell<Book>,
    /// Held while cameras are changed, so that two changes never mix.
    pub changing: futures::lock::Mutex<()>,
    /// The cameras.
    pub recorder: RecorderHandle,
    /// What deletes.
    pub retention: RetentionHandle,
    /// The storage directories in use; cameras name them by their index here.
    pub storages: Vec<StorageRef>,
    /// Storage directories that are not in use, and why.
    pub failed_storages: Vec<(config::Storage, String)>,
    /// Which camera has which number.
    pub channels: ChannelBook,
    /// The viewers.
    pub playback: Arc<PlaybackStats>,
    /// Who may watch without a login.
    pub gate: Arc<AnonymousGate>,
    /// How busy the shards are.
    pub load: RefCell<Vec<ShardLoad>>,
    /// The longest request to each archive of late, in milliseconds.
    pub slowest_ms: RefCell<Vec<u64>>,
    /// When recording began.
    pub started: Instant,
}

/// A change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No camera has that name.
    #[error("there is no camera {0}")]
    NoSuchCamera(CameraName),
    /// Another camera has the name.
    #[error("there is a camera {0} already")]
    Exists(CameraName),
    /// The camera is the administrator's own.
    #[error("{name} is set in {}", path.display())]
    InConfig {
        /// The camera.
        name: CameraName,
        /// The file.
        path: PathBuf,
    },
    /// Too many cameras.
    #[error("there are {} cameras already", config::CAMERAS_MAX)]
    TooMany,
    /// A setting is wrong.
    #[error("{key}: {}", problem.message)]
    Setting {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The change cannot be kept.
    #[error(transparent)]
    File(#[from] CamerasFileError),
    /// The recorder did not take it.
    #[error(transparent)]
    Recorder(#[from] HandleError),
    /// The machinery failed.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

impl Book {
    /// What was read, with the mistakes that concern single cameras as entries left out.
    pub fn new(loaded: Loaded) -> Self {
        let left_out = loaded
            .errors
            .iter()
            .map(|e| LeftOut { message: e.to_string() })
            .collect();
        Self {
            config: loaded.config,
            added: loaded.added,
            left_out,
        }
    }

    /// All cameras.
    pub fn cameras(&self) -> impl Iterator<Item = &CameraSettings> {
        self.config.cameras.iter().chain(&self.added)
    }

    /// One camera, and where it is kept.
    pub fn camera(&self, name: &CameraName) -> Option<(&CameraSettings, KeptIn)> {
        let find = |list: &'_ [CameraSettings]| list.iter().position(|c| c.name == *name);
        find(&self.config.cameras)
            .map(|i| (&self.config.cameras[i], KeptIn::Config))
            .or_else(|| find(&self.added).map(|i| (&self.added[i], KeptIn::Added)))
    }

    /// What is kept of each camera.
    pub fn policies(&self) -> Policies {
        let default = RetentionPolicy {
            age: self.config.recording.retain,
            bytes: self.config.recording.retain_bytes,
        };
        let own = |c: &CameraSettings| RetentionPolicy {
            age: c.retain.map_or(default.age, Limit::value),
            bytes: c.retain_bytes.map_or(default.bytes, Limit::value),
        };
        let cameras: HashMap<_, _> = self.cameras().map(|c| (c.name.clone(), own(c))).collect();
        Policies { cameras, default }
    }
}

impl Appliance {
    /// A camera's settings as the recorder takes them. The first usable storage stands in for one that is not named.
    pub fn recorder_config(&self, settings: &CameraSettings) -> Result<CameraConfig, Problem> {
        let storage = match &settings.storage {
            None => 0,
            Some(path) => self
                .storages
                .iter()
                .position(|s| s.settings.path == *path)
                .ok_or_else(|| {
                    let failed = self.failed_storages.iter().find(|(s, _)| s.path == *path);
                    let reason = failed.map_or("it was not there at the start", |(_, why)| why.as_str());
                    Problem::new(
                        format!("{} is not in use: {reason}", path.display()),
                        "repair it and restart, or choose another [[storage]]",
                    )
                })?,
        };
        Ok(CameraConfig {
            transport: settings.transport,
            audio: settings.audio,
            storage,
            mode: settings.mode,
            shard: settings.shard,
            ..CameraConfig::new(settings.name.clone(), settings.url.source().clone())
        })
    }

    /// Starts every configured camera. One that cannot be is left out with its reason.
    pub async fn apply_all(&self) {
        let all: Vec<CameraSettings> = self.book.borrow().cameras().cloned().collect();
        futures::future::join_all(all.iter().map(|camera| self.apply_or_leave_out(camera))).await;
        self.set_rules();
    }

    /// Starts a camera or changes it; what stands in the way is logged and shown in the status.
    pub async fn apply_or_leave_out(&self, settings: &CameraSettings) {
        let reason = match self.recorder_config(settings) {
            Err(problem) => format!("{}. Remedy: {}", problem.message, problem.remedy),
            Ok(camera) => match self.recorder.apply(camera).await {
                Ok(()) => return,
                Err(error) => error.to_string(),
            },
        };
        let message = format!("[[camera]] {}: {reason}", settings.name);
        tracing::error!(camera = %settings.name, "{message}");
        self.book.borrow_mut().left_out.push(LeftOut { message });
    }

    /// Tells the retention what is kept from now on, and the RTSP server which camera has which number.
    pub fn set_rules(&self) {
        self.channels.set(self.book.borrow().cameras());
        if !self.retention.set_policies(self.book.borrow().policies()) {
            tracing::warn!("the retention is busy; changed limits hold from its next restart or reload");
        }
    }

    fn check(&self, settings: &CameraSettings) -> Result<CameraConfig, ChangeError> {
        let book = self.book.borrow();
        let setting = |key| move |problem| ChangeError::Setting { key, problem };
        if let Some(problem) = config::wrong_storage(settings, &book.config) {
            return Err(setting("storage")(problem));
        }
        if let Some(problem) = config::wrong_shard(settings, &book.config) {
            return Err(setting("shard")(problem));
        }
        if let Some(problem) = config::wrong_channel(settings, book.cameras()) {
            return Err(setting("channel")(problem));
        }
        self.recorder_config(settings).map_err(setting("storage"))
    }

    async fn keep(&self, added: Vec<CameraSettings>) -> Result<(), ChangeError> {
        let file = CamerasFile::new(self.book.borrow().config.server.cameras_file());
        let list = added.clone();
        corenvr_shard::blocking(move || file.write(&list)).await??;
        self.book.borrow_mut().added = added;
        Ok(())
    }

    /// Adds a camera: it is kept first and then started.
    pub async fn add(&self, settings: CameraSettings) -> Result<(), ChangeError> {
        let _guard = self.changing.lock().await;
        let mut added = {
            let book = self.book.borrow();
            if book.camera(&settings.name).is_some() {
                return Err(ChangeError::Exists(settings.name));
            }
            if book.cameras().count() >= config::CAMERAS_MAX {
                return Err(ChangeError::TooMany);
            }
            book.added.clone()
        };
        let camera = self.check(&settings)?;
        let source = settings.url.to_string();
        added.push(settings);
        self.keep(added).await?;
        self.set_rules();
        tracing::info!(camera = %camera.name, %source, "camera added");
        Ok(self.recorder.apply(camera).await?)
    }

    /// Puts other settings in force.
    pub async fn replace(&self, settings: CameraSettings) -> Result<(), ChangeError> {
        let _guard = self.changing.lock().await;
        let mut added = self.added_with(&settings.name)?;
        let camera = self.check(&settings)?;
        for entry in added.iter_mut().filter(|c| c.name == settings.name) {
            *entry = settings.clone();
        }
        self.keep(added).await?;
        self.set_rules();
        tracing::info!(camera = %camera.name, "camera changed");
        Ok(self.recorder.apply(camera).await?)
    }

    /// Takes a camera out; its footage stays.
    pub async fn remove(&self, name: &CameraName) -> Result<(), ChangeError> {
        let _guard = self.changing.lock().await;
        let mut added = self.added_with(name)?;
        added.retain(|c| c.name != *name);
        self.keep(added).await?;
        tracing::info!(camera = %name, "camera removed");
        self.recorder.remove(name).await?;
        self.set_rules();
        Ok(())
    }

    /// The cameras added at run time, if the named one is among them.
    fn added_with(&self, name: &CameraName) -> Result<Vec<CameraSettings>, ChangeError> {
        let book = self.book.borrow();
        match book.camera(name) {
            Some((_, KeptIn::Added)) => Ok(book.added.clone()),
            Some((_, KeptIn::Config)) => Err(ChangeError::InConfig {
                name: name.clone(),
                path: self.config_path.clone(),
            }),
            None => Err(ChangeError::NoSuchCamera(name.clone())),
        }
    }

    /// What each camera takes up in each storage directory, in the order of [`Self::storages`].
    pub async fn usage(&self) -> Result<Vec<BTreeMap<CameraName, Usage>>, WorkerError> {
        let mut all = Vec::with_capacity(self.storages.len());
        for storage in &self.storages {
            all.push(storage.archive.call(|a| a.usage().clone()).await?);
        }
        Ok(all)
    }

    /// Reads the counters that shares and maxima are made of.
    pub fn sample(&self) {
        for shard in self.load.borrow_mut().iter_mut() {
            shard.sample();
        }
        let slowest = self
            .storages
            .iter()
            .map(|s| s.archive.take_longest_call().as_millis() as u64);
        *self.slowest_ms.borrow_mut() = slowest.collect();
    }
}
