//! Makes room: deletes the oldest footage by each camera's own limits and by each disk's, before a disk is full.
//!
//! The plan is the archive's, which knows what is open or protected. Unlinking runs on a thread of its own for each disk, since
//! removing a large file can take long and the index must not wait for it.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use corenvr_media::{CameraName, WallTime};
use corenvr_shard::{
    Stop, Worker, WorkerError,
    channel::{self, Receiver, Sender},
    time::{sleep, wall_now_micros},
};
use corenvr_store::{
    Archive, ArchiveError, SegmentKey,
    archive::retention::{DiskPolicy, RetentionPolicy},
};

/// How often every disk is looked at.
const PERIOD: Duration = Duration::from_secs(30);
/// When a disk refuses writes although its limits are kept, as much of its oldest footage goes as one part in this many, but at
/// least and at most so many bytes: enough for the next seconds of all cameras, and never more than a little of what there is.
const FULL_SHARE: u64 = 200;
const FULL_ROOM_MIN: u64 = 64 << 20;
const FULL_ROOM_MAX: u64 = 4 << 30;
/// A disk that is told to be full again within this time is the same event: every camera on it says so.
const FULL_AGAIN: Duration = Duration::from_secs(5);
/// Rounds of planning and deleting in one pass; what is left is the next pass's.
const ROUNDS_MAX: u32 = 64;
/// How often the same warning is logged.
const WARN_EVERY: Duration = Duration::from_secs(600);
/// Requests that may wait. A request beyond is dropped: those that wait lead to the same pass, and one comes every 30 s anyway.
const REQUESTS_MAX: usize = 64;
/// Deletions that may wait for their thread; they come one at a time.
const DELETER_QUEUE_MAX: usize = 4;

/// What is kept of each camera; of one that is not named, `default` (also cameras that are no longer configured).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    /// By camera.
    pub cameras: HashMap<CameraName, RetentionPolicy>,
    /// For all others.
    pub default: RetentionPolicy,
}

impl Policies {
    /// What is kept of a camera.
    pub fn of(&self, camera: &CameraName) -> RetentionPolicy {
        self.cameras.get(camera).copied().unwrap_or(self.default)
    }
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
pub struct RetentionHandle(Sender<Request>);

/// What the retention is asked.
enum Request {
    /// A disk is full: free room there now.
    Full(usize),
    /// Other limits hold from now on.
    Policies(Policies),
}

/// The receiving end, for [`run`].
pub struct RetentionInbox(Receiver<Request>);

/// A handle and the inbox that [`run`] serves.
pub fn channel() -> (RetentionHandle, RetentionInbox) {
    let (tx, rx) = channel::bounded_named("retention", REQUESTS_MAX);
    (RetentionHandle(tx), RetentionInbox(rx))
}

impl RetentionHandle {
    /// A disk is full: makes room there at once. `storage` is the index in the list of storages.
    pub fn disk_full(&self, storage: usize) {
        // Dropped when the inbox is full: see REQUESTS_MAX.
        let _ = self.0.try_send(Request::Full(storage));
    }

    /// Sets other limits, which hold from the pass that follows at once. False if the retention is not running or has too much
    /// to do; try again.
    pub fn set_policies(&self, policies: Policies) -> bool {
        self.0.try_send(Request::Policies(policies)).is_ok()
    }
}

/// Why a pass over a disk stopped.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the free space cannot be read: {0}")]
    Free(std::io::Error),
    #[error("{} cannot be removed: {source}", path.display())]
    Unlink { path: PathBuf, source: std::io::Error },
}

struct Disk {
    storage: RetentionStorage,
    /// Owns nothing: it only must not be the archive's thread.
    deleter: Worker<()>,
    full_at: Option<Instant>,
    warned_at: Option<Instant>,
}

/// Runs until `stop` is requested: a pass over every storage every 30 s, and at once where a disk is full.
/// Runs on the control executor; deleting itself happens on threads of its own.
///
/// # Errors
/// Those threads cannot be started.
pub async fn run(
    storages: Vec<RetentionStorage>,
    policies: Policies,
    mut inbox: RetentionInbox,
    stop: Stop,
) -> std::io::Result<()> {
    let mut policies = Arc::new(policies);
    let mut disks = Vec::with_capacity(storages.len());
    for storage in storages {
        let (deleter, _) = Worker::start("deleter", DELETER_QUEUE_MAX, ())?;
        disks.push(Disk {
            storage,
            deleter,
            full_at: None,
            warned_at: None,
        });
    }
    while !stop.is_requested() {
        for disk in &mut disks {
            disk.pass(&policies, &stop).await;
        }
        match next(&mut inbox, &stop).await {
            None => {}
            Some(Request::Policies(new)) => policies = Arc::new(new),
            Some(Request::Full(index)) => {
                if let Some(disk) = disks.get_mut(index) {
                    disk.make_room(&policies, &stop).await;
                }
            }
        }
    }
    Ok(())
}

/// The next request; `None` when it is time for a pass, or to stop.
async fn next(inbox: &mut RetentionInbox, stop: &Stop) -> Option<Request> {
    use std::future::Future;
    let mut timer = std::pin::pin!(sleep(PERIOD));
    let mut stopped = std::pin::pin!(stop.requested());
    std::future::poll_fn(|cx| {
        if stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        // Without any sender left only the timer counts.
        if let Poll::Ready(Some(request)) = inbox.0.poll_recv(cx) {
            return Poll::Ready(Some(request));
        }
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await
}

impl Disk {
    async fn pass(&mut self, policies: &Arc<Policies>, stop: &Stop) {
        let disk = self.storage.disk;
        if let Err(error) = self.delete_by(policies, disk, stop).await {
            self.warn(&format!("footage cannot be deleted: {error}"));
        }
        if let Err(error) = self.expire_events(policies).await {
            self.warn(&format!("old events cannot be deleted: {error}"));
        }
    }

    /// Event files go after the footage of their day.
    async fn expire_events(&self, policies: &Arc<Policies>) -> Result<(), PassError> {
        let (rules, now) = (policies.clone(), WallTime::from_micros(wall_now_micros()));
        let gone = self
            .storage
            .archive
            .call(move |a| a.expire_events(&|c| rules.of(c), now))
            .await??;
        if gone > 0 {
            tracing::debug!(storage = %self.storage.path.display(), files = gone, "events of days without footage deleted");
        }
        Ok(())
    }

    /// The disk refused a write: its limits come first, and if they leave it full, the oldest footage goes all the same.
    async fn make_room(&mut self, policies: &Arc<Policies>, stop: &Stop) {
        if self.full_at.is_some_and(|at| at.elapsed() < FULL_AGAIN) {
            return;
        }
        self.full_at = Some(Instant::now());
        tracing::warn!(storage = %self.storage.path.display(), "the disk is full: the oldest footage is deleted at once");
        let disk = self.storage.disk;
        let mut result = self.delete_by(policies, disk, stop).await;
        if let Ok(0) = result {
            result = self.delete_oldest(stop).await;
        }
        if let Err(error) = result {
            self.warn(&format!("footage cannot be deleted: {error}"));
        }
    }

    /// Deletes a bounded amount of the oldest footage, whatever the limits say. Returns its bytes.
    async fn delete_oldest(&mut self, stop: &Stop) -> Result<u64, PassError> {
        let count = |a: &mut Archive| a.usage().values().map(|u| u.bytes).sum::<u64>();
        let all = self.storage.archive.call(count).await?;
        let wanted = (all / FULL_SHARE).clamp(FULL_ROOM_MIN, FULL_ROOM_MAX);
        let everything = DiskPolicy {
            keep_free: u64::MAX,
            max: None,
        };
        let free = self.free().await?;
        let nothing = Policies::default();
        let mut deleted = 0;
        for key in self.plan(Arc::new(nothing), everything, free).await? {
            if deleted >= wanted || stop.is_requested() {
                break;
            }
            deleted += self.delete(key).await?;
        }
        if deleted == 0 {
            self.warn("the disk is full, and nothing on it may be deleted");
        }
        Ok(deleted)
    }

    async fn plan(&self, rules: Arc<Policies>, disk: DiskPolicy, free: u64) -> Result<Vec<SegmentKey>, PassError> {
        let now = WallTime::from_micros(wall_now_micros());
        let plan = self
            .storage
            .archive
            .call(move |a| a.plan_retention(&|c| rules.of(c), disk, free, now));
        Ok(plan.await??)
    }

    async fn free(&self) -> Result<u64, PassError> {
        let free = self.storage.archive.call(|a| a.free_bytes()).await?;
        free.map_err(PassError::Free)
    }

    /// Deletes what the limits do not hold any more. Returns its bytes.
    async fn delete_by(&mut self, policies: &Arc<Policies>, disk: DiskPolicy, stop: &Stop) -> Result<u64, PassError> {
        let mut deleted = 0;
        for _ in 0..ROUNDS_MAX {
            let free = self.free().await?;
            let plan = self.plan(policies.clone(), disk, free).await?;
            if plan.is_empty() {
                self.warn_if_over(free);
                break;
            }
            for key in plan {
                if stop.is_requested() {
                    return Ok(deleted);
                }
                deleted += self.delete(key).await?;
            }
        }
        Ok(deleted)
    }

    /// Deletes one segment. Returns its bytes.
    async fn delete(&self, key: SegmentKey) -> Result<u64, PassError> {
        let begun = self.storage.archive.call(move |a| a.begin_delete(&key)).await?;
        let deletion = match begun {
            Ok(deletion) => deletion,
            // Protected or gone since the plan was made.
            Err(ArchiveError::NotDeletable(..)) => return Ok(0),
            Err(e) => return Err(e.into()),
        };
        let unlinked = self.deleter.call(move |()| (deletion.unlink(), deletion)).await?;
        let (result, deletion) = unlinked;
        result.map_err(|source| PassError::Unlink {
            path: deletion.path.clone(),
            source,
        })?;
        tracing::debug!(segment = %deletion.key, bytes = deletion.bytes, "deleted");
        let bytes = deletion.bytes;
        self.storage.archive.call(move |a| a.finish_delete(deletion)).await??;
        Ok(bytes)
    }

    /// Nothing is left to be deleted: says so if the disk is still under its floor.
    fn warn_if_over(&mut self, free: u64) {
        let wanted = self.storage.disk.keep_free;
        if free < wanted {
            self.warn(&format!(
                "only {} MiB are free and {} MiB shall be, but nothing here may be deleted: what else is on this disk?",
                free >> 20,
                wanted >> 20
            ));
        }
    }

    fn warn(&mut self, text: &str) {
        if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned_at = Some(Instant::now());
            tracing::error!(storage = %self.storage.path.display(), "{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use corenvr_media::{CodecParameters, Frame, TimeRange, TrackId, VideoCodec, VideoParameters};
    use corenvr_shard::{Class, run_control, spawn};
    use corenvr_store::{SegmentHeader, archive::ArchiveOptions, mkv::file::SegmentFile};

    use super::*;

    const SEGMENT_US: i64 = 60_000_000;

    /// An archive with this many sealed segments of about 60 KiB, the last of which ends now.
    fn archive(root: &std::path::Path, camera: &CameraName, count: i64) -> Archive {
        let mut archive = Archive::open(&ArchiveOptions::new(root)).unwrap();
        archive.recover(&mut |_| ()).unwrap();
        let video = VideoParameters {
            codec: VideoCodec::Mjpeg,
            extra: Bytes::new(),
            width: 64,
            height: 64,
            frame_rate: None,
        };
        for n in (1..=count).rev() {
            let start = WallTime::from_micros(wall_now_micros() - n * SEGMENT_US);
            let header = SegmentHeader {
                camera: camera.clone(),
                start,
                tracks: [CodecParameters::Video(video.clone())].into(),
                gap_before: None,
                backfilled_until: None,
            };
            let opened = archive.open_segment(header).unwrap();
            let mut file = SegmentFile::start(&opened.path, opened.header).unwrap();
            let frames: Vec<_> = (0..60)
                .map(|i| Frame {
                    track: TrackId(0),
                    time: opened.key.start.offset(i * 1_000_000),
                    key: true,
                    data: Bytes::from(vec![7; 1000]),
                })
                .collect();
            for cluster in file.append(&frames).unwrap() {
                archive.cluster_durable(&opened.key, &cluster).unwrap();
            }
            archive.seal_segment(&opened.key, file.seal().unwrap()).unwrap();
        }
        archive
    }

    async fn starts(archive: &Worker<Archive>, camera: &CameraName) -> Vec<WallTime> {
        let all = TimeRange {
            start: WallTime::MIN,
            end: WallTime::MAX,
        };
        let camera = camera.clone();
        let found = archive.call(move |a| a.segments(&camera, all)).await.unwrap().unwrap();
        found.iter().map(|s| s.key.start).collect()
    }

    fn files(root: &std::path::Path) -> usize {
        let days = std::fs::read_dir(root.join("gate")).unwrap();
        days.map(|day| std::fs::read_dir(day.unwrap().path()).unwrap().count())
            .sum()
    }

    #[test]
    fn the_oldest_go_by_age_and_bytes_and_when_the_disk_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let camera = CameraName::new("gate").unwrap();
        let made = archive(dir.path(), &camera, 20);
        run_control(async {
            let (archive, _) = Worker::start("archive", 64, made).unwrap();
            let before = starts(&archive, &camera).await;
            assert_eq!(before.len(), 20);
            let storage = RetentionStorage {
                path: dir.path().to_owned(),
                archive: archive.clone(),
                disk: DiskPolicy::default(),
            };
            let (handle, inbox) = channel();
            let stop = Stop::default();
            let running = run(vec![storage], Policies::default(), inbox, stop.clone());
            let task = spawn(Class::Maintenance, "retention", running);
            let settled = async |wanted: usize| {
                for _ in 0..200 {
                    if starts(&archive, &camera).await.len() == wanted {
                        return;
                    }
                    sleep(Duration::from_millis(50)).await;
                }
                panic!(
                    "{} segments are left, not {wanted}",
                    starts(&archive, &camera).await.len()
                );
            };
            settled(20).await;
            let age = RetentionPolicy {
                age: Some(Duration::from_micros((SEGMENT_US * 15 + SEGMENT_US / 2) as u64)),
                bytes: None,
            };
            let cameras = HashMap::from([(camera.clone(), age)]);
            assert!(handle.set_policies(Policies {
                cameras,
                ..Policies::default()
            }));
            // Those that ended longer ago; one reaches over the limit.
            settled(16).await;
            let usage = archive
                .call(|a| a.usage().values().map(|u| u.bytes).sum::<u64>())
                .await
                .unwrap();
            let bytes = RetentionPolicy {
                age: None,
                bytes: Some(usage / 2),
            };
            assert!(handle.set_policies(Policies {
                cameras: HashMap::new(),
                default: bytes,
            }));
            settled(8).await;
            assert_eq!(starts(&archive, &camera).await, before[12..]);
            assert_eq!(files(dir.path()), 8);
            // A full disk whose limits are kept: everything here is less than what is to be freed at least.
            handle.disk_full(0);
            settled(0).await;
            stop.request();
            task.await.unwrap().unwrap();
        })
        .unwrap();
    }
}
