//! The audit log: who watched, exported and changed what. One JSON object a line in `audit.jsonl`, written by a thread of its own.
//!
//! `entry` is a line, `files` what is on disk, `reading` how it is read back.

mod entry;
mod files;
mod reading;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

pub use entry::{Action, Entry, Outcome, Via};
pub use reading::{Filter, Page, ReadError};

use super::Who;
use files::Files;

/// Most entries of one answer.
pub const ENTRIES_MAX: usize = 1000;
/// Entries that may wait for the disk; one more is lost, counted, and the loss is written down.
pub const QUEUE_MAX: usize = 4096;
/// Most entries that are written between two flushes.
const BATCH_MAX: usize = 256;
/// How long a reader waits for what was recorded before it asked.
const BARRIER_WAIT: Duration = Duration::from_secs(2);
/// After a failed write.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Writes and reads the audit log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` while the log is being closed.
    queue: Option<SyncSender<Order>>,
    lost: Arc<AtomicU64>,
    files: Files,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Order {
    Write(Box<Entry>),
    /// Tells when everything before it is written.
    Barrier(SyncSender<()>),
}

impl Audit {
    /// The log of `state_dir`, with its thread, which ends with the last handle once everything is written.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let files = Files::new(state_dir, files::FILE_BYTES_MAX);
        Self::with_files(files)
    }

    fn with_files(files: Files) -> io::Result<Self> {
        let mut writer = files.writer()?;
        let (queue, orders) = sync_channel(QUEUE_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let lost_by_others = lost.clone();
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || work(&orders, &mut writer, &lost_by_others))?;
        Ok(Self(Arc::new(Inner {
            queue: Some(queue),
            lost,
            files,
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// Writes an entry, soon. Never blocks: when the disk is slow and [`QUEUE_MAX`] entries wait, it is lost, and the log says how many were.
    pub fn record(&self, entry: Entry) {
        let order = Order::Write(Box::new(entry));
        match self.0.queue.as_ref().map(|q| q.try_send(order)) {
            Some(Ok(())) => {}
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => {
                self.0.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits, not for long, until what was recorded is on the disk.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        // A queue that is full is not waited for: what is in the files is told.
        let asked = self.0.queue.as_ref().map(|q| q.try_send(Order::Barrier(done)));
        if matches!(asked, Some(Ok(()))) {
            let _ = written.recv_timeout(BARRIER_WAIT);
        }
    }

    /// Entries, newest first, with all that were recorded before the call. Blocks: reads files.
    pub fn read(&self, filter: &Filter) -> Result<Page, ReadError> {
        self.flush();
        reading::read(&self.0.files, filter)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.queue.take());
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            drop(thread.join());
        }
    }
}

fn work(orders: &Receiver<Order>, writer: &mut files::Writer, lost: &AtomicU64) {
    let mut told = false;
    while let Ok(first) = orders.recv() {
        let (mut lines, mut waiting) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Write(entry) => lines.push(*entry),
                Order::Barrier(done) => waiting.push(done),
            }
            next = (lines.len() < BATCH_MAX).then(|| orders.try_recv().ok()).flatten();
        }
        let missing = lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            lines.push(lost_entry(missing));
        }
        match writer.append(&lines) {
            Ok(()) => told = false,
            Err(error) => {
                let entries = missing + lines.len() as u64 - u64::from(missing > 0);
                lost.fetch_add(entries, Ordering::Relaxed);
                // Once: a full disk would fill the journal as well.
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(%error, "the audit log cannot be written; what happens meanwhile is only counted");
                }
                std::thread::sleep(RETRY_PAUSE);
            }
        }
        for done in waiting {
            let _ = done.try_send(());
        }
    }
}

fn lost_entry(count: u64) -> Entry {
    let detail = format!("{count} entries were lost before this one: they came faster than the disk took them");
    Entry::new(&Who::Local, None, Via::Local, Action::Lost)
        .detail(&detail)
        .outcome(Outcome::Failed)
}
