//! The status document: shards, cameras, disks, viewers.

use corenvr_recorder::CameraStatus;
use corenvr_shard::WorkerError;

use super::{
    api::{DiskView, RtmpView, Status},
    http::Failure,
};
use crate::supervisor::{appliance::Appliance, devices::Devices, load::ShardLoad};

/// How the recorder is right now.
pub async fn status(appliance: &Appliance) -> Result<Status, Failure> {
    let cameras = appliance
        .recorder
        .status()
        .await
        .map_err(|e| Failure::unavailable(&e))?;
    let disks = disks(appliance, &cameras).await.map_err(|e| Failure::unavailable(&e))?;
    let mut rtsp = appliance.playback.listening();
    rtsp.sort_unstable();
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: appliance.started.elapsed().as_secs(),
        config: appliance.config_path.clone(),
        rtsp,
        rtmp: publishers(appliance),
        shards: appliance.load.borrow().iter().map(ShardLoad::show).collect(),
        cameras: cameras.iter().filter_map(|c| serde_json::to_value(c).ok()).collect(),
        disks,
        playback: serde_json::to_value(appliance.playback.snapshot()).unwrap_or_default(),
        gb28181: appliance.devices.get().map(Devices::summary),
        left_out: appliance.book.borrow().all_left_out(),
    })
}

fn publishers(appliance: &Appliance) -> Option<RtmpView> {
    appliance.publishers.as_ref().map(|publishers| RtmpView {
        listening: publishers.listening(),
        refused: publishers.refused(),
    })
}

async fn disks(appliance: &Appliance, cameras: &[CameraStatus]) -> Result<Vec<DiskView>, WorkerError> {
    let usage = appliance.usage().await?;
    let mut disks = Vec::new();
    for (index, storage) in appliance.storages.iter().enumerate() {
        let mut disk = empty(&storage.settings);
        for u in usage[index].values() {
            disk.used += u.bytes;
            disk.segments += u.segments;
            disk.oldest = [disk.oldest, u.first].into_iter().flatten().min();
        }
        disk.queued = storage.archive.queued();
        disk.slowest_ms = appliance.slowest_ms.borrow().get(index).copied().unwrap_or_default();
        let path = storage.settings.path.clone();
        if let Ok(Ok(fs)) = corenvr_shard::blocking(move || rustix::fs::statvfs(&path)).await {
            disk.total = fs.f_blocks.saturating_mul(fs.f_frsize);
            disk.free = fs.f_bavail.saturating_mul(fs.f_frsize);
        }
        let bits: u64 = {
            let book = appliance.book.borrow();
            let on_this = |c: &&CameraStatus| {
                let settings = book.camera(&c.name).map(|(s, _)| s);
                settings
                    .and_then(|s| appliance.recorder_config(s).ok())
                    .is_some_and(|c| c.storage == index)
            };
            cameras.iter().filter(on_this).map(|c| c.counters.bitrate_bps).sum()
        };
        disk.horizon_s = horizon_s(&disk, bits / 8);
        disks.push(disk);
    }
    for (settings, reason) in &appliance.failed_storages {
        disks.push(DiskView {
            failed: Some(reason.clone()),
            ..empty(settings)
        });
    }
    Ok(disks)
}

fn empty(settings: &crate::config::Storage) -> DiskView {
    DiskView {
        path: settings.path.clone(),
        failed: None,
        total: 0,
        free: 0,
        used: 0,
        keep_free: settings.keep_free,
        max: settings.max,
        segments: 0,
        oldest: None,
        horizon_s: None,
        queued: 0,
        slowest_ms: 0,
    }
}

/// How much time the disk holds when it is full of recordings at this rate.
fn horizon_s(disk: &DiskView, bytes_per_second: u64) -> Option<u64> {
    let room = (disk.used + disk.free).saturating_sub(disk.keep_free);
    let room = disk.max.map_or(room, |max| room.min(max));
    room.checked_div(bytes_per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_horizon_counts_what_may_be_overwritten_and_respects_both_limits() {
        let mut disk = empty(&crate::config::Storage::at("/d".into()));
        (disk.used, disk.free, disk.keep_free) = (900, 200, 100);
        assert_eq!(horizon_s(&disk, 10), Some(100));
        disk.max = Some(500);
        assert_eq!(horizon_s(&disk, 10), Some(50));
        disk.keep_free = 5000;
        assert_eq!(horizon_s(&disk, 10), Some(0));
        assert_eq!(horizon_s(&disk, 0), None);
    }
}
