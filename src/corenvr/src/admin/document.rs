//! The status document: shards, cameras, disks, viewers.

use corenvr_recorder::CameraStatus;
use corenvr_shard::WorkerError;
use hyper::StatusCode;
use serde_json::Value;

use super::{
    api::{CameraCompleteness, CrashView, DiskView, LeftOut, RtmpView, Status},
    http::{Answer, Failure, json},
    routes::{Call, Need, Route, route},
};
use crate::{
    accounts::Right,
    supervisor::{appliance::Appliance, crashes, devices::Devices, load::ShardLoad},
};

/// The status, for whoever has an account.
pub const ROUTES: &[Route] = &[route!(GET "/api/v1/status", Need::Right(Right::Status), show)];

async fn show(call: Call) -> Result<Answer, Failure> {
    let mut status = status(&call.appliance).await?;
    if !call.may(Right::Configure) {
        for_others(&mut status, &call);
    }
    Ok(json(StatusCode::OK, &status))
}

/// Who does not administer the recorder is told of the cameras that they may see and of their own sessions. Where files lie, who else
/// watches, and who tried to push what, is not for them.
fn for_others(status: &mut Status, call: &Call) {
    status.config.clear();
    status.cameras.retain(|camera| {
        let name = camera["name"].as_str().and_then(|name| name.parse().ok());
        name.is_some_and(|name| call.sees(&name))
    });
    let own = Value::from(call.caller.who.to_string());
    if let Some(sessions) = status.playback["sessions"].as_array_mut() {
        sessions.retain(|session| session["user"] == own);
    }
    for disk in &mut status.disks {
        disk.path.clear();
        disk.failed = disk.failed.take().map(|_| "is not in use".to_owned());
    }
    if let Some(rtmp) = &mut status.rtmp {
        rtmp.refused.clear();
    }
    status
        .completeness
        .retain(|c| c.camera.parse().is_ok_and(|name| call.sees(&name)));
    for shard in &mut status.shards {
        shard.last_stalls.clear();
        shard.held = None;
    }
    status.crashes.clear();
    status.left_out.clear();
}

/// How the recorder is right now.
pub async fn status(appliance: &Appliance) -> Result<Status, Failure> {
    let cameras = appliance
        .recorder
        .status()
        .await
        .map_err(|e| Failure::unavailable(&e))?;
    let disks = disks(appliance, &cameras).await.map_err(|e| Failure::unavailable(&e))?;
    let crashes = crashes(appliance).await;
    let mut rtsp = appliance.playback.listening();
    rtsp.sort_unstable();
    let mut rtsps = appliance.playback.listening_tls();
    rtsps.sort_unstable();
    let mut left_out = appliance.book.borrow().all_left_out();
    left_out.extend(
        appliance
            .identities
            .problems()
            .into_iter()
            .map(|message| LeftOut { message }),
    );
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: appliance.started.elapsed().as_secs(),
        config: appliance.config_path.clone(),
        rtsp,
        rtsps,
        http: appliance.book.borrow().config.http.listen.clone(),
        https: appliance.book.borrow().config.http.tls_listen.clone(),
        rtmp: publishers(appliance),
        shards: appliance.load.borrow().iter().map(ShardLoad::show).collect(),
        completeness: completeness(appliance, &cameras),
        cameras: cameras.iter().filter_map(|c| serde_json::to_value(c).ok()).collect(),
        disks,
        playback: serde_json::to_value(appliance.playback.snapshot()).unwrap_or_default(),
        gb28181: appliance.devices.get().map(Devices::summary),
        crashes,
        left_out,
    })
}

fn completeness(appliance: &Appliance, cameras: &[CameraStatus]) -> Vec<CameraCompleteness> {
    let known = appliance.completeness.borrow();
    let of = |c: &CameraStatus| {
        Some(CameraCompleteness {
            camera: c.name.to_string(),
            completeness: known.of(&c.name)?,
        })
    };
    cameras.iter().filter_map(of).collect()
}

async fn crashes(appliance: &Appliance) -> Vec<CrashView> {
    let state_dir = appliance.book.borrow().config.server.state_dir.clone();
    corenvr_shard::blocking(move || crashes::list(&state_dir))
        .await
        .unwrap_or_default()
}

fn publishers(appliance: &Appliance) -> Option<RtmpView> {
    appliance.publishers.as_ref().map(|publishers| RtmpView {
        listening: publishers.listening(),
        refused: publishers.refused(),
    })
}

/// The storage directories as they are now.
pub(super) async fn disks(appliance: &Appliance, cameras: &[CameraStatus]) -> Result<Vec<DiskView>, WorkerError> {
    let usage = appliance.usage().await?;
    let rates = rates(appliance, cameras);
    let mut disks = Vec::new();
    for (index, storage) in appliance.storages.iter().enumerate() {
        let mut disk = empty(&storage.settings);
        for u in usage[index].values() {
            disk.used += u.bytes;
            disk.segments += u.segments;
            disk.oldest = [disk.oldest, u.first].into_iter().flatten().min();
        }
        disk.queued = storage.archive.queued();
        disk.write_ms = appliance
            .slowest_writes_ms
            .borrow()
            .get(index)
            .copied()
            .unwrap_or_default();
        disk.write_failures = storage.load.snapshot().failed;
        disk.slowest_ms = appliance.slowest_ms.borrow().get(index).copied().unwrap_or_default();
        let path = storage.settings.path.clone();
        if let Ok(Ok(fs)) = corenvr_shard::blocking(move || rustix::fs::statvfs(&path)).await {
            disk.total = fs.f_blocks.saturating_mul(fs.f_frsize);
            disk.free = fs.f_bavail.saturating_mul(fs.f_frsize);
        }
        disk.horizon_s = horizon_s(&disk, rates.get(index).copied().unwrap_or_default());
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

/// Bytes that are recorded per second, by storage directory in use.
pub(super) fn rates(appliance: &Appliance, cameras: &[CameraStatus]) -> Vec<u64> {
    let settings = appliance.recorded();
    let mut rates = vec![0; appliance.storages.len()];
    for camera in cameras {
        let storage = settings
            .get(&camera.name)
            .and_then(|s| appliance.recorder_config(s).ok());
        if let Some(rate) = storage.and_then(|c| rates.get_mut(c.storage)) {
            *rate += camera.counters.bitrate_bps / 8;
        }
    }
    rates
}

/// Of which nothing is known.
pub(super) fn empty(settings: &crate::config::Storage) -> DiskView {
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
        write_ms: 0,
        write_failures: 0,
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
