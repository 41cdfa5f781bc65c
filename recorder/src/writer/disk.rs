//! One storage directory as one shard uses it: durability bought for many files at once, and what to do when it is full.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    time::Duration,
};

use corenvr_shard::{
    Class,
    channel::{OneshotSender, oneshot},
    file::{AppendFile, sync_file_system},
    spawn,
    time::sleep,
};

use crate::{Storage, retention::RetentionHandle};

/// With more open segments than this, one flush of the file system serves all that wait; with fewer, each file is flushed by itself.
const SINGLE_FILES_MAX: usize = 32;
/// How long a flush waits for others to join it.
const GATHER: Duration = Duration::from_millis(150);

/// A storage directory on one shard.
pub(crate) struct Disk {
    pub index: usize,
    pub storage: Storage,
    retention: RetentionHandle,
    open_files: Cell<usize>,
    waiting: RefCell<Vec<OneshotSender<Result<(), SyncError>>>>,
    flushing: Cell<bool>,
}

/// What a flush for many has to say to each of them.
#[derive(Debug, Clone)]
struct SyncError {
    kind: io::ErrorKind,
    text: String,
}

impl Disk {
    pub fn new(index: usize, storage: Storage, retention: RetentionHandle) -> Rc<Self> {
        Rc::new(Self {
            index,
            storage,
            retention,
            open_files: Cell::new(0),
            waiting: RefCell::default(),
            flushing: Cell::new(false),
        })
    }

    /// A segment was opened; to be paired with [`Self::file_closed`].
    pub fn file_opened(&self) {
        self.open_files.set(self.open_files.get() + 1);
    }

    pub fn file_closed(&self) {
        self.open_files.set(self.open_files.get().saturating_sub(1));
    }

    /// Looks at an error: a full disk is told to the retention, which makes room.
    pub fn note_error(&self, error: &io::Error) {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            self.retention.disk_full(self.index);
        }
    }

    /// Makes what was written to `file` durable.
    pub async fn sync(self: &Rc<Self>, file: &AppendFile) -> io::Result<()> {
        if self.open_files.get() <= SINGLE_FILES_MAX {
            return file.datasync().await;
        }
        let (done, result) = oneshot();
        self.waiting.borrow_mut().push(done);
        if !self.flushing.replace(true) {
            let disk = self.clone();
            spawn(
                Class::Recording,
                "disk flush",
                async move { disk.flush_waiting().await },
            )
            .detach();
        }
        match result.await {
            Some(Ok(())) => Ok(()),
            Some(Err(e)) => Err(io::Error::new(e.kind, e.text)),
            None => Err(io::Error::other("the flush of the disk failed inside")),
        }
    }

    async fn flush_waiting(&self) {
        // Also after a panic inside, the next one who waits must start a flush.
        struct Reset<'a>(&'a Disk);
        impl Drop for Reset<'_> {
            fn drop(&mut self) {
                self.0.flushing.set(false);
                self.0.waiting.borrow_mut().clear();
            }
        }
        let _reset = Reset(self);
        while !self.waiting.borrow().is_empty() {
            sleep(GATHER).await;
            let round = std::mem::take(&mut *self.waiting.borrow_mut());
            let result = sync_file_system(&self.storage.path).await.map_err(|e| SyncError {
                kind: e.kind(),
                text: e.to_string(),
            });
            for done in round {
                done.send(result.clone());
            }
        }
    }
}
