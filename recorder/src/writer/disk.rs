//! One storage directory as one shard uses it: durability bought for many files at once, and what to do when it is full.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    time::Duration,
};

use corenvr_shard::{
    Class, TaskName,
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
            spawn(Class::Recording, TaskName::of_no_camera("disk flush"), async move {
                disk.flush_waiting().await;
            })
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

#[cfg(test)]
mod tests {
    use corenvr_shard::{Worker, file::AlignedBuffer, run_control};
    use corenvr_store::{Archive, archive::ArchiveOptions};

    use super::*;
    use crate::retention;

    #[test]
    fn many_files_share_a_flush_and_a_failing_one_is_told_to_all() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::open(&ArchiveOptions::new(dir.path().join("archive"))).unwrap();
        run_control(async {
            let storage = Storage {
                path: dir.path().join("archive"),
                archive: Worker::start("archive", 16, archive).unwrap().0,
                load: std::sync::Arc::default(),
            };
            let disk = Disk::new(0, storage.clone(), retention::channel().0);
            let mut files = Vec::new();
            for i in 0..SINGLE_FILES_MAX + 8 {
                let mut file = AppendFile::create(&dir.path().join(i.to_string())).await.unwrap();
                let mut buffer = AlignedBuffer::with_capacity(4096);
                buffer.extend_from_slice(&[i as u8; 4096]);
                file.write_at(buffer, 0).await.unwrap();
                disk.file_opened();
                files.push(file);
            }
            let all = futures::future::join_all(files.iter().map(|f| disk.sync(f))).await;
            assert!(all.iter().all(Result::is_ok));
            assert!(disk.waiting.borrow().is_empty() && !disk.flushing.get());

            let gone = Storage {
                path: dir.path().join("gone"),
                ..storage
            };
            let broken = Disk::new(0, gone, retention::channel().0);
            broken.open_files.set(SINGLE_FILES_MAX + 1);
            let all = futures::future::join_all(files.iter().map(|f| broken.sync(f))).await;
            assert!(
                all.iter()
                    .all(|r| r.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound))
            );
            for _ in 0..8 {
                disk.file_closed();
            }
            disk.sync(&files[0]).await.unwrap();
        })
        .unwrap();
    }
}
