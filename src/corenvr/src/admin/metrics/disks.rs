//! Metrics of storage directories.

use corenvr_recorder::load::BOUNDS_MS;
use corenvr_shard::WorkerState;

use super::exposition::{
    Exposition,
    Kind::{Counter, Gauge, Histogram},
};
use crate::{admin::api::DiskView, supervisor::appliance::Appliance};

type Value = (&'static str, &'static str, fn(&DiskView) -> Option<f64>);

const VALUES: [Value; 9] = [
    ("corenvr_disk_size_bytes", "Size of the file system.", |d| {
        Some(d.total as f64)
    }),
    ("corenvr_disk_free_bytes", "Free bytes of the file system.", |d| {
        Some(d.free as f64)
    }),
    ("corenvr_disk_keep_free_bytes", "Bytes that are to stay free.", |d| {
        Some(d.keep_free as f64)
    }),
    (
        "corenvr_disk_recordings_max_bytes",
        "Most bytes of recordings, where that is limited.",
        |d| Some(d.max? as f64),
    ),
    ("corenvr_disk_recordings_bytes", "Bytes of recordings.", |d| {
        Some(d.used as f64)
    }),
    ("corenvr_disk_segments", "Segment files.", |d| Some(d.segments as f64)),
    (
        "corenvr_disk_oldest_footage_timestamp_seconds",
        "Start of the oldest footage, in Unix time.",
        |d| Some(d.oldest?.as_micros() as f64 / 1e6),
    ),
    (
        "corenvr_disk_horizon_seconds",
        "How much time the disk holds when it is full of recordings at the rate of now.",
        |d| Some(d.horizon_s? as f64),
    ),
    (
        "corenvr_archive_slowest_call_seconds",
        "The longest request to the index over the last seconds.",
        |d| Some(d.slowest_ms as f64 / 1000.0),
    ),
];

/// `rates`: bytes that are recorded per second, by storage directory.
pub fn write(out: &mut Exposition, appliance: &Appliance, disks: &[DiskView], rates: &[u64]) {
    let label = |d: &DiskView| d.path.display().to_string();
    let mut family = out.family(
        "corenvr_disk_up",
        Gauge,
        "1 if the storage directory is in use, 0 if it failed at the start.",
    );
    for d in disks {
        family.sample(&[("path", &label(d))], f64::from(u8::from(d.failed.is_none())));
    }
    let in_use = || disks.iter().filter(|d| d.failed.is_none());
    for (name, help, value) in VALUES {
        let mut family = out.family(name, Gauge, help);
        for d in in_use() {
            if let Some(value) = value(d) {
                family.sample(&[("path", &label(d))], value);
            }
        }
    }
    let mut family = out.family("corenvr_disk_overwrite_seconds", Gauge, "Time until the oldest footage is deleted for want of room, at the rate of now; 0 when that has begun. Ages and sizes set per camera may delete earlier.");
    for (d, rate) in in_use().zip(rates) {
        if let Some(seconds) = overwrite_s(d, *rate) {
            family.sample(&[("path", &label(d))], seconds);
        }
    }
    writes(out, appliance);
    archives(out, appliance);
}

/// Room that is left before the oldest footage has to go, over the rate at which it is taken.
fn overwrite_s(disk: &DiskView, bytes_per_second: u64) -> Option<f64> {
    let room = disk.free.saturating_sub(disk.keep_free);
    let room = disk.max.map_or(room, |max| room.min(max.saturating_sub(disk.used)));
    (bytes_per_second > 0).then(|| room as f64 / bytes_per_second as f64)
}

fn writes(out: &mut Exposition, appliance: &Appliance) {
    let loads: Vec<_> = appliance
        .storages
        .iter()
        .map(|s| (s.settings.path.display().to_string(), s.load.snapshot()))
        .collect();
    let bounds: Vec<f64> = BOUNDS_MS.iter().map(|ms| *ms as f64 / 1000.0).collect();
    let mut family = out.family("corenvr_disk_write_seconds", Histogram, "Time from writing footage until it is durable, one write of one camera each. Includes waiting for a flush that many share.");
    for (path, load) in &loads {
        family.histogram(&[("path", path)], &bounds, &load.classes, load.total.as_secs_f64());
    }
    let mut family = out.family(
        "corenvr_disk_written_bytes_total",
        Counter,
        "Bytes of footage made durable.",
    );
    for (path, load) in &loads {
        family.sample(&[("path", path)], load.bytes as f64);
    }
    let mut family = out.family(
        "corenvr_disk_write_failures_total",
        Counter,
        "Writes and flushes of footage that failed.",
    );
    for (path, load) in &loads {
        family.sample(&[("path", path)], load.failed as f64);
    }
}

fn archives(out: &mut Exposition, appliance: &Appliance) {
    let states: Vec<_> = appliance
        .storages
        .iter()
        .map(|s| (s.settings.path.display().to_string(), s.archive.state()))
        .collect();
    let mut each = |name, kind, help: &str, value: fn(&WorkerState) -> f64| {
        let mut family = out.family(name, kind, help);
        for (path, state) in &states {
            family.sample(&[("path", path)], value(state));
        }
    };
    each(
        "corenvr_archive_queue",
        Gauge,
        "Requests that wait for the index.",
        |s| s.queued as f64,
    );
    each(
        "corenvr_archive_stuck_seconds",
        Gauge,
        "Time for which the index has had something to do without getting on.",
        |s| s.stuck_for.as_secs_f64(),
    );
    each(
        "corenvr_archive_panics_total",
        Counter,
        "Requests that failed inside and were contained.",
        |s| s.panics as f64,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forecast_respects_both_limits() {
        let mut disk = crate::admin::document::empty(&crate::config::Storage::at("/d".into()));
        (disk.used, disk.free, disk.keep_free) = (900, 200, 100);
        assert_eq!(overwrite_s(&disk, 10), Some(10.0));
        disk.max = Some(950);
        assert_eq!(overwrite_s(&disk, 10), Some(5.0));
        disk.max = Some(800);
        assert_eq!(overwrite_s(&disk, 10), Some(0.0));
        assert_eq!(overwrite_s(&disk, 0), None);
    }
}
