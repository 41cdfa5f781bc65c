//! Clusters and key frames from disk: open files shared by the sessions of a shard, and one read ahead.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use corenvr_media::Frame;
use corenvr_shard::{Class, Task, file::ReadFile, spawn, time};
use corenvr_store::{
    ReadError,
    mkv::{
        CLUSTER_LEN_MAX, FRAME_LEN_MAX,
        reader::{Timebase, parse_cluster},
    },
};

use crate::{
    plan::{KeyRead, Read},
    stats::{PlaybackStats, count_bytes},
};

/// Most files that a shard keeps open; beyond it the one that was not used for longest is closed.
const OPEN_MAX: usize = 256;
/// A file that nobody read for so long is closed, so that deleting a segment gives its space back.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// A cluster or a key frame cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The file is gone or the disk fails.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What is there is not the cluster that was written.
    #[error("{}: {source}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ReadError,
    },
    /// The index says that it is longer than any cluster is.
    #[error("{}: the index has a cluster of {len} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The length.
        len: u32,
    },
    /// The index says that it is larger than any frame is.
    #[error("{}: the index has a key frame of {size} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The size.
        size: u32,
    },
    /// The read was given up inside.
    #[error("reading {} ended early", path.display())]
    Cancelled {
        /// The file.
        path: PathBuf,
    },
}

struct Open {
    file: Rc<ReadFile>,
    used: Instant,
}

/// The open files of a shard.
#[derive(Default)]
pub struct Files(RefCell<HashMap<PathBuf, Open>>);

impl Files {
    async fn read(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes> {
        let file = match self.cached(path) {
            Some(file) => file,
            None => self.open(path).await?,
        };
        file.read_at(offset, len).await
    }

    fn cached(&self, path: &Path) -> Option<Rc<ReadFile>> {
        let mut files = self.0.borrow_mut();
        let open = files.get_mut(path)?;
        open.used = Instant::now();
        Some(open.file.clone())
    }

    async fn open(&self, path: &Path) -> io::Result<Rc<ReadFile>> {
        let file = Rc::new(ReadFile::open(path).await?);
        let open = Open {
            file: file.clone(),
            used: Instant::now(),
        };
        let replaced = self.0.borrow_mut().insert(path.to_owned(), open);
        close(replaced).await;
        if self.0.borrow().len() > OPEN_MAX {
            let oldest = self
                .0
                .borrow()
                .iter()
                .min_by_key(|(_, o)| o.used)
                .map(|(p, _)| p.clone());
            let evicted = oldest.and_then(|p| self.0.borrow_mut().remove(&p));
            close(evicted).await;
        }
        Ok(file)
    }

    /// Closes what nobody reads any more; runs for as long as the shard.
    pub async fn sweep(self: Rc<Self>) {
        loop {
            time::sleep(IDLE_MAX / 2).await;
            self.close_idle(IDLE_MAX).await;
        }
    }

    /// Closes files that nobody read for `idle`.
    pub async fn close_idle(&self, idle: Duration) {
        let old: Vec<Open> = {
            let mut files = self.0.borrow_mut();
            let paths: Vec<PathBuf> = files
                .iter()
                .filter(|(_, o)| o.used.elapsed() >= idle && Rc::strong_count(&o.file) == 1)
                .map(|(p, _)| p.clone())
                .collect();
            paths.iter().filter_map(|p| files.remove(p)).collect()
        };
        for open in old {
            close(Some(open)).await;
        }
    }
}

/// A file that a read still uses is closed by that read's end instead.
async fn close(open: Option<Open>) {
    if let Some(file) = open.and_then(|o| Rc::into_inner(o.file))
        && let Err(error) = file.close().await
    {
        tracing::debug!(%error, "closing a segment");
    }
}

async fn read(files: Rc<Files>, stats: Arc<PlaybackStats>, at: Read) -> Result<Vec<Frame>, ClusterError> {
    match at {
        Read::Cluster(at) => {
            if u64::from(at.len) > CLUSTER_LEN_MAX + 4096 {
                return Err(ClusterError::TooLong {
                    path: at.path,
                    len: at.len,
                });
            }
            let bytes = files.read(&at.path, at.offset, at.len as usize).await?;
            count_bytes(&stats.counters.bytes_read, bytes.len());
            let timebase = Timebase::new(at.segment, &at.tracks);
            parse_cluster(&bytes, at.offset, &timebase)
                .map_err(|source| ClusterError::Damaged { path: at.path, source })
        }
        Read::Key(at) => {
            let frame = read_key(&files, at).await?;
            count_bytes(&stats.counters.bytes_read, frame.data.len());
            Ok(vec![frame])
        }
    }
}

/// One frame, exactly its bytes. Its cluster's checksum is not looked at: that would need the whole cluster.
async fn read_key(files: &Files, at: KeyRead) -> Result<Frame, ClusterError> {
    if at.size as usize > FRAME_LEN_MAX {
        return Err(ClusterError::TooLarge {
            path: at.path,
            size: at.size,
        });
    }
    let data = files.read(&at.path, at.offset, at.size as usize).await?;
    if data.len() != at.size as usize {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Frame {
        track: at.track,
        time: at.time,
        key: true,
        data,
    })
}

type Reading = Task<Result<Vec<Frame>, ClusterError>>;

/// Reads for one session: what is asked for, and what comes after it while that is being sent.
pub struct Reader {
    files: Rc<Files>,
    stats: Arc<PlaybackStats>,
    running: Option<(Read, Reading)>,
}

impl Reader {
    /// Through the shard's open files.
    pub const fn new(files: Rc<Files>, stats: Arc<PlaybackStats>) -> Self {
        Self {
            files,
            stats,
            running: None,
        }
    }

    /// Begins to read, unless that is being read already. What was read ahead and is not this is dropped.
    pub fn prefetch(&mut self, at: Read) {
        if self.running.as_ref().is_none_or(|(what, _)| *what != at) {
            let task = spawn(
                Class::Playback,
                "footage read",
                read(self.files.clone(), self.stats.clone(), at.clone()),
            );
            self.running = Some((at, task));
        }
    }

    /// The frames of a cluster, or the one key frame. Cancel safe: the read goes on, and asking again waits for it.
    pub async fn read(&mut self, at: &Read) -> Result<Vec<Frame>, ClusterError> {
        self.prefetch(at.clone());
        let path = || match at {
            Read::Cluster(at) => at.path.clone(),
            Read::Key(at) => at.path.clone(),
        };
        let Some((_, task)) = &mut self.running else {
            return Err(ClusterError::Cancelled { path: path() });
        };
        let result = task.await;
        self.running = None;
        result.map_err(|_| ClusterError::Cancelled { path: path() })?
    }
}
