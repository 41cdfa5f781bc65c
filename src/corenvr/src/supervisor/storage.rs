//! Opening the storage directories: the lock, the identity that was seen last time, recovery, and the thread that owns each.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use corenvr_shard::Worker;
use corenvr_store::{
    Archive, ArchiveOptions, OpenError,
    archive::{Progress, Recovery, StorageId},
};

use super::{
    mounts::{self, MountError},
    notify::Notify,
};
use crate::config;

/// Requests that may wait for one archive; one more is refused and its sender tries again or says so.
const QUEUE_MAX: usize = 8192;
/// How long an archive may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// How often a long recovery says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// A storage directory in use.
pub struct OpenStorage {
    /// Its settings.
    pub settings: config::Storage,
    /// Its archive, on its thread.
    pub archive: Worker<Archive>,
    thread: JoinHandle<()>,
}

/// The storage directories of the configuration.
pub struct Storages {
    /// Those that can be used.
    pub open: Vec<OpenStorage>,
    /// Those that cannot, and why.
    pub failed: Vec<(config::Storage, String)>,
}

/// No recording is possible.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another recorder has it.
    #[error("[[storage]] path: {0}")]
    InUse(OpenError),
    /// None of them can be used.
    #[error("no storage directory can be used:\n  {}", .0.join("\n  "))]
    None(Vec<String>),
}

/// Opens and recovers all directories, each on a thread of its own. One that fails leaves the others alone.
pub fn open_all(settings: &[config::Storage], state_dir: &Path, notify: &Notify) -> Result<Storages, StorageError> {
    let ids = KnownIds::read(state_dir);
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = settings
            .iter()
            .map(|s| {
                let expect = ids.of(&s.path);
                scope.spawn(move || open(s, expect, notify))
            })
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Err(Failure::Inside)))
            .collect()
    });
    let mut storages = Storages {
        open: Vec::new(),
        failed: Vec::new(),
    };
    for (settings, result) in settings.iter().zip(results) {
        match result.and_then(|archive| start(settings, archive)) {
            Ok(open) => storages.open.push(open),
            Err(Failure::Open(error @ OpenError::InUse { .. })) => return Err(StorageError::InUse(error)),
            Err(failure) => {
                let text = failure.in_words(settings, state_dir);
                tracing::error!(storage = %settings.path.display(), "{text}");
                storages.failed.push((settings.clone(), text));
            }
        }
    }
    if storages.open.is_empty() {
        return Err(StorageError::None(
            storages.failed.into_iter().map(|(_, text)| text).collect(),
        ));
    }
    Ok(storages)
}

#[derive(Debug)]
enum Failure {
    Mount(MountError),
    Open(OpenError),
    Recover(String),
    Thread(io::Error),
    Inside,
}

impl Failure {
    fn in_words(&self, settings: &config::Storage, state_dir: &Path) -> String {
        let path = settings.path.display();
        match self {
            Self::Mount(error) => format!("[[storage]] path: {error}"),
            Self::Open(error) => format!(
                "[[storage]] path: {error}. Remedy: {}",
                remedy(error, settings, state_dir)
            ),
            Self::Recover(error) => {
                format!("[[storage]] path: recovering {path}: {error}. Remedy: check the disk and its free space")
            }
            Self::Thread(error) => format!("[[storage]] path: no thread for {path}: {error}"),
            Self::Inside => format!("[[storage]] path: opening {path} failed inside; the log above says where"),
        }
    }
}

fn remedy(error: &OpenError, settings: &config::Storage, state_dir: &Path) -> String {
    match error {
        OpenError::WrongDirectory { .. } => format!(
            "mount the right disk; if it was replaced on purpose, take its line out of {}",
            KnownIds::path(state_dir).display()
        ),
        OpenError::Io { path, source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied => {
                format!(
                    "give the directory to the service's user: chown -R corenvr: {}",
                    path.display()
                )
            }
            io::ErrorKind::StorageFull => "free some room on that disk".into(),
            io::ErrorKind::ReadOnlyFilesystem => read_only_remedy(&settings.path),
            _ => "check the path and its disk".into(),
        },
        _ => "name another directory".into(),
    }
}

/// What to do about a directory that is read-only. Below systemd that is more often the unit's doing than the disk's.
pub fn read_only_remedy(path: &Path) -> String {
    if std::env::var_os("INVOCATION_ID").is_none() {
        return "mount the disk writable".into();
    }
    format!(
        "{}. If the unit has it already, the disk itself is mounted read-only",
        unit_remedy(path)
    )
}

/// What to do about a directory that the service's unit does not let it write to.
pub fn unit_remedy(path: &Path) -> String {
    format!(
        "allow it in the service's unit: make the directory, `systemctl edit corenvr`, add the lines `[Service]` and `ReadWritePaths={}`, and `systemctl restart corenvr`; or mount the disk below /srv/corenvr, where that is not needed",
        path.display()
    )
}

fn open(settings: &config::Storage, expect: Option<StorageId>, notify: &Notify) -> Result<Archive, Failure> {
    let path = settings.path.as_path();
    if settings.require_mount {
        mounts::require(path).map_err(Failure::Mount)?;
    }
    let options = ArchiveOptions {
        root: path.to_owned(),
        create: true,
        expect,
    };
    let mut archive = Archive::open(&options).map_err(Failure::Open)?;
    let mut said = Instant::now();
    let mut progress = |p: Progress| {
        if said.elapsed() >= PROGRESS_INTERVAL {
            said = Instant::now();
            notify.extend_start(PROGRESS_INTERVAL * 30);
            notify.status(&format!(
                "Recovering {}: file {} of {}",
                path.display(),
                p.files,
                p.files_total
            ));
            tracing::info!(storage = %path.display(), files = p.files, of = p.files_total, "recovering");
        }
    };
    let recovery = archive
        .recover(&mut progress)
        .map_err(|e| Failure::Recover(e.to_string()))?;
    report(path, &recovery);
    Ok(archive)
}

fn report(root: &Path, r: &Recovery) {
    let storage = root.display();
    if let Some(reason) = &r.index_rebuilt {
        tracing::warn!(%storage, %reason, "the index was built anew from the files");
    }
    for (path, damage) in &r.recovered {
        tracing::info!(file = %path.display(), damaged = damage.len(), "finished a recording that was open when the recorder ended");
    }
    for path in &r.set_aside {
        tracing::warn!(file = %path.display(), "holds nothing whole; set aside for a person to judge");
    }
    for (path, reason) in &r.unreadable {
        tracing::warn!(file = %path.display(), %reason, "cannot be read; left as it is and not listed");
    }
    for path in &r.missing {
        tracing::warn!(file = %path.display(), "was in the index and is gone from the disk");
    }
    tracing::info!(
        %storage,
        segments = r.segments,
        recovered = r.recovered.len(),
        added = r.added,
        empty_removed = r.removed.len(),
        deletions_finished = r.deletions_finished,
        took_ms = r.took.as_millis() as u64,
        "archive is open"
    );
}

fn start(settings: &config::Storage, archive: Archive) -> Result<OpenStorage, Failure> {
    let (worker, thread) =
        Worker::start(&format!("archive {}", settings.path.display()), QUEUE_MAX, archive).map_err(Failure::Thread)?;
    Ok(OpenStorage {
        settings: settings.clone(),
        archive: worker,
        thread,
    })
}

impl Storages {
    /// Remembers which directories were used, so that a missing mount is noticed next time.
    pub fn remember(&self, state_dir: &Path) {
        let mut ids = KnownIds::read(state_dir);
        for storage in &self.open {
            if let Ok(id) = storage.archive.call_blocking(|a| a.id().clone()) {
                ids.0.insert(storage.settings.path.clone(), id);
            }
        }
        if let Err(error) = ids.write(state_dir) {
            tracing::warn!(%error, file = %KnownIds::path(state_dir).display(), "cannot remember the storage directories");
        }
    }

    /// Finishes what was asked of the archives and closes them.
    pub fn close(self) {
        for OpenStorage {
            archive,
            thread,
            settings,
        } in self.open
        {
            let storage = settings.path.display();
            match archive.call_blocking(Archive::flush) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%storage, %error, "the index was not flushed; the next start completes it");
                }
                Err(error) => {
                    tracing::warn!(%storage, %error, "the index was not flushed; the next start completes it");
                }
            }
            drop(archive);
            // A client of the control socket may still hold a handle; everything is on disk all the same.
            let deadline = Instant::now() + CLOSE_LIMIT;
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            tracing::debug!(%storage, closed = thread.is_finished(), "archive closed");
        }
    }
}

/// The identities of the storage directories as they were seen last.
#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
struct KnownIds(BTreeMap<PathBuf, StorageId>);

impl KnownIds {
    fn path(state_dir: &Path) -> PathBuf {
        state_dir.join("storage.json")
    }

    /// A missing or damaged file knows nothing: then any directory is accepted, as at the first start.
    fn read(state_dir: &Path) -> Self {
        let text = match fs::read(Self::path(state_dir)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::warn!(%error, file = %Self::path(state_dir).display(), "cannot be read");
                return Self::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(%error, file = %Self::path(state_dir).display(), "is damaged and ignored");
            Self::default()
        })
    }

    fn of(&self, root: &Path) -> Option<StorageId> {
        self.0.get(root).cloned()
    }

    fn write(&self, state_dir: &Path) -> io::Result<()> {
        let temporary = Self::path(state_dir).with_extension("json.new");
        fs::write(&temporary, serde_json::to_vec_pretty(self)?)?;
        fs::File::open(&temporary)?.sync_all()?;
        fs::rename(temporary, Self::path(state_dir))
    }
}
