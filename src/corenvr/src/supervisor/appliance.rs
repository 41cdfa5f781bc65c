//! The running recorder as the control executor sees it: who is configured, and the handles to everything that runs.

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use corenvr_media::CameraName;
use corenvr_playback::PlaybackStats;
use corenvr_recorder::{
    CameraConfig, HandleError, RecorderHandle,
    load::DiskLoad,
    retention::{Policies, RetentionHandle},
    rtmp::Publishers,
};
use corenvr_shard::{Worker, WorkerError};
use corenvr_store::{
    Archive,
    archive::{Usage, retention::RetentionPolicy},
};

use super::{
    completeness::Completeness,
    devices::{Devices, follows_catalog},
    load::{ShardLoad, held_in_words},
    watchdog::Part,
};
use crate::{
    accounts::Accounts,
    admin::api::{KeptIn, LeftOut},
    admin::clip::Jobs,
    config::{
        self, CameraSettings, CamerasFile, CamerasFileError, Config, Loaded,
        values::{Limit, Problem},
    },
    tls::Identities,
};

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
    /// What it takes to write to it.
    pub load: Arc<DiskLoad>,
}

/// Who is configured.
pub struct Book {
    /// The configuration in force.
    pub config: Config,
    /// Cameras that were added at run time.
    pub added: Vec<CameraSettings>,
    /// Cameras that come from the catalogs of devices.
    pub derived: Vec<Derived>,
    /// Entries that are not in force.
    pub left_out: Vec<LeftOut>,
    /// Channels of catalogs that no camera can be made of.
    pub left_out_channels: Vec<LeftOut>,
}

/// A camera that stands for one channel of a device whose every channel is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// Its settings: those of the camera it comes from, with a name and a URL of its own.
    pub settings: CameraSettings,
    /// The camera it comes from.
    pub of: CameraName,
}

/// What a change of the cameras came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// Cameras that are gone.
    pub removed: usize,
    /// Cameras that were started or changed.
    pub changed: usize,
    /// Cameras that nothing happened to.
    pub unchanged: usize,
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
    /// Those who push their streams to us, if they may.
    pub publishers: Option<Publishers>,
    /// The devices that register with us; set at the start, if they may.
    pub devices: OnceCell<Devices>,
    /// What the encrypted servers prove themselves with.
    pub identities: Identities,
    /// The viewers.
    pub playback: Arc<PlaybackStats>,
    /// Who may do what.
    pub accounts: Arc<Accounts>,
    /// Where passwords are checked and accounts are changed: what takes long, or waits for the disk.
    pub passwords: Worker<Arc<Accounts>>,
    /// Held once by every camera that is being tried for somebody.
    pub probing: Rc<()>,
    /// How busy the shards are, and last the control executor.
    pub load: RefCell<Vec<ShardLoad>>,
    /// The longest request to each archive of late, in milliseconds.
    pub slowest_ms: RefCell<Vec<u64>>,
    /// Clips that are being made for others.
    pub clips: Jobs,
    /// The longest write to each storage directory of late, in milliseconds.
    pub slowest_writes_ms: RefCell<Vec<u64>>,
    /// How complete the footage of each camera is.
    pub completeness: RefCell<Completeness>,
    /// When recording began.
    pub started: Instant,
}

/// A change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No camera has that name.
    #[error("there is no camera {0}")]
    NoSuchCamera(CameraName),
    /// The camera comes from a device's catalog.
    #[error("{name} is a channel of {of} and comes and goes with it")]
    Derived {
        /// The camera.
        name: CameraName,
        /// Where it comes from.
        of: CameraName,
    },
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
            derived: Vec::new(),
            left_out,
            left_out_channels: Vec::new(),
        }
    }

    /// All that is not in force, with the reason.
    pub fn all_left_out(&self) -> Vec<LeftOut> {
        self.left_out.iter().chain(&self.left_out_channels).cloned().collect()
    }

    /// All cameras that somebody wrote down or added.
    pub fn cameras(&self) -> impl Iterator<Item = &CameraSettings> {
        self.config.cameras.iter().chain(&self.added)
    }

    /// All cameras that are recorded by themselves: without those that stand for a catalog, and with what comes from it.
    pub fn recorded(&self) -> impl Iterator<Item = &CameraSettings> {
        let own = self.cameras().filter(|c| !follows_catalog(c));
        own.chain(self.derived.iter().map(|d| &d.settings))
    }

    /// One camera, and where it is kept.
    pub fn camera(&self, name: &CameraName) -> Option<(&CameraSettings, KeptIn)> {
        let find = |list: &'_ [CameraSettings]| list.iter().position(|c| c.name == *name);
        find(&self.config.cameras)
            .map(|i| (&self.config.cameras[i], KeptIn::Config))
            .or_else(|| find(&self.added).map(|i| (&self.added[i], KeptIn::Added)))
            .or_else(|| {
                let derived = self.derived.iter().find(|d| d.settings.name == *name);
                derived.map(|d| (&d.settings, KeptIn::Catalog))
            })
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
        let cameras: HashMap<_, _> = self.recorded().map(|c| (c.name.clone(), own(c))).collect();
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
        self.set_accounts();
        self.derive_cameras();
        let all: Vec<CameraSettings> = self.book.borrow().recorded().cloned().collect();
        futures::future::join_all(all.iter().map(|camera| self.apply_or_leave_out(camera))).await;
        self.set_rules();
    }

    /// What is recorded, by name.
    pub fn recorded(&self) -> HashMap<CameraName, CameraSettings> {
        let book = self.book.borrow();
        book.recorded().map(|c| (c.name.clone(), c.clone())).collect()
    }

    /// Brings the recorder from what was recorded before to what the book says now.
    pub async fn apply_difference(&self, before: &HashMap<CameraName, CameraSettings>) -> Difference {
        let now: Vec<CameraSettings> = self.book.borrow().recorded().cloned().collect();
        let gone: Vec<_> = before
            .keys()
            .filter(|name| !now.iter().any(|c| c.name == **name))
            .collect();
        // One that could not be recorded before is tried again, and is left out again with its reason.
        let differs = |c: &&CameraSettings| before.get(&c.name) != Some(c) || self.recorder_config(c).is_err();
        let changed: Vec<_> = now.iter().filter(differs).collect();
        for name in &gone {
            match self.recorder.remove(name).await {
                Ok(_) => tracing::info!(camera = %name, "camera removed"),
                Err(error) => tracing::error!(camera = %name, "cannot be removed: {error}"),
            }
        }
        for camera in &changed {
            self.apply_or_leave_out(camera).await;
        }
        Difference {
            removed: gone.len(),
            changed: changed.len(),
            unchanged: now.len() - changed.len(),
        }
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

    fn check(&self, settings: &CameraSettings) -> Result<(), ChangeError> {
        let book = self.book.borrow();
        let setting = |key| move |problem| ChangeError::Setting { key, problem };
        if let Some(problem) = config::wrong_storage(settings, &book.config) {
            return Err(setting("storage")(problem));
        }
        if let Some(problem) = config::wrong_shard(settings, &book.config) {
            return Err(setting("shard")(problem));
        }
        if let Some(problem) = config::wrong_source(settings, &book.config, book.cameras()) {
            return Err(setting("url")(problem));
        }
        if let Some(problem) = config::wrong_channel(settings, book.cameras()) {
            return Err(setting("channel")(problem));
        }
        self.recorder_config(settings).map(drop).map_err(setting("storage"))
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
        self.check(&settings)?;
        let (name, source) = (settings.name.clone(), settings.url.to_string());
        added.push(settings);
        self.change(added).await?;
        tracing::info!(camera = %name, %source, "camera added");
        Ok(())
    }

    /// Puts other settings in force.
    pub async fn replace(&self, settings: CameraSettings) -> Result<(), ChangeError> {
        let _guard = self.changing.lock().await;
        let mut added = self.added_with(&settings.name)?;
        self.check(&settings)?;
        for entry in added.iter_mut().filter(|c| c.name == settings.name) {
            *entry = settings.clone();
        }
        self.change(added).await?;
        tracing::info!(camera = %settings.name, "camera changed");
        Ok(())
    }

    /// Takes a camera out; its footage stays.
    pub async fn remove(&self, name: &CameraName) -> Result<(), ChangeError> {
        let _guard = self.changing.lock().await;
        let mut added = self.added_with(name)?;
        added.retain(|c| c.name != *name);
        self.change(added).await?;
        Ok(())
    }

    /// Keeps another list of cameras, and puts it in force.
    async fn change(&self, added: Vec<CameraSettings>) -> Result<(), ChangeError> {
        let before = self.recorded();
        self.keep(added).await?;
        self.set_accounts();
        self.derive_cameras();
        self.set_rules();
        self.apply_changes(&before).await
    }

    /// As [`Self::apply_difference`], where one camera changes and whoever changes it wants to hear of a failure.
    async fn apply_changes(&self, before: &HashMap<CameraName, CameraSettings>) -> Result<(), ChangeError> {
        let now = self.recorded();
        for name in before.keys().filter(|name| !now.contains_key(*name)) {
            tracing::info!(camera = %name, "camera removed");
            self.recorder.remove(name).await?;
        }
        for settings in now.values().filter(|c| before.get(&c.name) != Some(c)) {
            let camera = self.recorder_config(settings).map_err(|problem| ChangeError::Setting {
                key: "storage",
                problem,
            })?;
            self.recorder.apply(camera).await?;
        }
        Ok(())
    }

    /// The cameras added at run time, if the named one is among them.
    fn added_with(&self, name: &CameraName) -> Result<Vec<CameraSettings>, ChangeError> {
        let book = self.book.borrow();
        match book.camera(name) {
            Some((_, KeptIn::Added)) => Ok(book.added.clone()),
            Some((_, KeptIn::Catalog)) => Err(ChangeError::Derived {
                name: name.clone(),
                of: book
                    .derived
                    .iter()
                    .find(|d| d.settings.name == *name)
                    .map_or_else(|| name.clone(), |d| d.of.clone()),
            }),
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

    /// Everything that has to make progress, for the watchdog.
    pub fn parts(&self) -> Vec<Part> {
        let load = self.load.borrow();
        let shards = load.iter().map(|shard| {
            let now = shard.counters();
            Part::shard(now.name, now.silent_for, now.held.as_ref().map(held_in_words))
        });
        let archives = self.storages.iter().map(|s| {
            let name = format!("archive {}", s.settings.path.display());
            Part::archive(name, &s.archive.state())
        });
        shards.chain(archives).collect()
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
        let slowest = self.storages.iter().map(|s| s.load.take_worst().as_millis() as u64);
        *self.slowest_writes_ms.borrow_mut() = slowest.collect();
    }
}
