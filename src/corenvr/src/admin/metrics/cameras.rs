//! Metrics of cameras.

use corenvr_media::WallTime;
use corenvr_recorder::{CameraState, CameraStatus, Counters};
use corenvr_shard::{time, yield_if_needed};

use super::exposition::{
    Exposition, Kind,
    Kind::{Counter, Gauge},
};
use crate::supervisor::appliance::Appliance;

/// Every state that a camera can be in.
const STATES: [&str; 7] = [
    "connecting",
    "waiting",
    "recording",
    "down",
    "refused",
    "quarantined",
    "disabled",
];

type Count = (&'static str, Kind, &'static str, fn(&Counters) -> f64);

const COUNTS: [Count; 18] = [
    (
        "corenvr_camera_frames_total",
        Counter,
        "Frames received, all tracks.",
        |c| c.frames as f64,
    ),
    (
        "corenvr_camera_received_bytes_total",
        Counter,
        "Payload bytes of those frames.",
        |c| c.bytes as f64,
    ),
    (
        "corenvr_camera_frames_durable_total",
        Counter,
        "Frames that are durable on disk.",
        |c| c.frames_durable as f64,
    ),
    (
        "corenvr_camera_frames_dropped_total",
        Counter,
        "Frames that came faster than the disk took them, or that a failing disk cost.",
        |c| c.frames_dropped as f64,
    ),
    (
        "corenvr_camera_frames_damaged_total",
        Counter,
        "Frames that lost packets may have damaged; recorded all the same.",
        |c| c.frames_damaged as f64,
    ),
    (
        "corenvr_camera_frames_before_key_total",
        Counter,
        "Frames before the first key frame of a connection.",
        |c| c.frames_before_key as f64,
    ),
    ("corenvr_camera_packets_lost_total", Counter, "RTP packets lost.", |c| {
        c.packets_lost as f64
    }),
    (
        "corenvr_camera_packets_late_total",
        Counter,
        "RTP packets that came too late or twice.",
        |c| c.packets_late as f64,
    ),
    (
        "corenvr_camera_packets_malformed_total",
        Counter,
        "Packets that are not what their format says.",
        |c| c.packets_malformed as f64,
    ),
    (
        "corenvr_camera_clock_jumps_total",
        Counter,
        "Jumps of time stamps or of the host's clock that were bridged.",
        |c| c.clock_jumps as f64,
    ),
    (
        "corenvr_camera_clock_drift_ratio",
        Gauge,
        "How much faster the camera's clock runs than the host's.",
        |c| c.clock_drift_ppm / 1e6,
    ),
    ("corenvr_camera_segments_total", Counter, "Segment files begun.", |c| {
        c.segments as f64
    }),
    ("corenvr_camera_connects_total", Counter, "Connections tried.", |c| {
        c.connects as f64
    }),
    (
        "corenvr_camera_panics_total",
        Counter,
        "Failures inside on behalf of the camera that were contained.",
        |c| c.panics as f64,
    ),
    (
        "corenvr_camera_frames_per_second",
        Gauge,
        "Pictures per second over the last seconds.",
        |c| c.fps,
    ),
    (
        "corenvr_camera_received_bytes_per_second",
        Gauge,
        "Payload bytes per second over the last seconds.",
        |c| c.bitrate_bps as f64 / 8.0,
    ),
    (
        "corenvr_camera_subscribers",
        Gauge,
        "Shards and viewers that get its live stream.",
        |c| c.subscribers as f64,
    ),
    (
        "corenvr_camera_disk_queue_bytes",
        Gauge,
        "Frame bytes that wait for the disk.",
        |c| c.queued_bytes as f64,
    ),
];

pub async fn write(out: &mut Exposition, appliance: &Appliance, cameras: &[CameraStatus]) {
    out.single(
        "corenvr_cameras",
        Gauge,
        "Cameras that are configured, those that are off included.",
        cameras.len() as f64,
    );
    let left_out = appliance.book.borrow().all_left_out().len();
    out.single(
        "corenvr_configuration_left_out",
        Gauge,
        "Entries of the configuration that are not in force because they are wrong.",
        left_out as f64,
    );
    states(out, cameras);
    yield_if_needed().await;
    for (name, kind, help, value) in COUNTS {
        let mut family = out.family(name, kind, help);
        for c in cameras {
            family.sample(&[("camera", c.name.as_str())], value(&c.counters));
        }
        yield_if_needed().await;
    }
    let now = WallTime::from_micros(time::wall_now_micros());
    let mut family = out.family(
        "corenvr_camera_lag_seconds",
        Gauge,
        "How far the newest picture lay behind the host's clock as it came; only while it records.",
    );
    for c in cameras
        .iter()
        .filter(|c| matches!(c.state, CameraState::Recording { .. }))
    {
        family.sample(&[("camera", c.name.as_str())], c.counters.lag_ms as f64 / 1000.0);
    }
    let mut family = out.family(
        "corenvr_camera_last_frame_age_seconds",
        Gauge,
        "Time since the newest frame, of cameras that have sent one.",
    );
    for c in cameras {
        if let Some(last) = c.last_frame {
            family.sample(&[("camera", c.name.as_str())], now.micros_since(last) as f64 / 1e6);
        }
    }
    let mut family = out.family(
        "corenvr_camera_disk_failing",
        Gauge,
        "1 while its frames cannot be written.",
    );
    for c in cameras {
        family.sample(
            &[("camera", c.name.as_str())],
            f64::from(u8::from(c.disk_error.is_some())),
        );
    }
    yield_if_needed().await;
    completeness(out, appliance, cameras);
}

fn states(out: &mut Exposition, cameras: &[CameraStatus]) {
    let mut family = out.family(
        "corenvr_camera_state",
        Gauge,
        "1 for the state that the camera is in, 0 for the others.",
    );
    for c in cameras {
        for state in STATES {
            let is = f64::from(u8::from(c.state.name() == state));
            family.sample(&[("camera", c.name.as_str()), ("state", state)], is);
        }
    }
}

const RATIO_HELP: &str = "Footage in the index over time that should have been recorded, within the last hour (1h) or day (24h). The window ends \
    twice the sync interval and 5 s before now. Nothing counts before the camera's first footage or its being added, whichever is earlier, \
    nor gaps that an operator made. Absent while the camera is off or new. Made anew every 30 s, the day behind the last hour every 5 min.";

fn completeness(out: &mut Exposition, appliance: &Appliance, cameras: &[CameraStatus]) {
    let known = appliance.completeness.borrow();
    let all: Vec<_> = cameras
        .iter()
        .filter_map(|c| Some((c.name.as_str(), known.of(&c.name)?)))
        .collect();
    let shares = || {
        all.iter().flat_map(|(name, c)| {
            let windows = [("1h", c.hour), ("24h", c.day)];
            windows
                .into_iter()
                .filter_map(move |(window, share)| Some(([("camera", *name), ("window", window)], share?)))
        })
    };
    let mut family = out.family("corenvr_camera_completeness_ratio", Gauge, RATIO_HELP);
    for (labels, share) in shares() {
        family.sample(&labels, share.ratio);
    }
    let mut family = out.family(
        "corenvr_camera_footage_missing_seconds",
        Gauge,
        "Time without footage that should have been recorded, within the same windows.",
    );
    for (labels, share) in shares() {
        family.sample(&labels, share.missing_s);
    }
    let mut family = out.family(
        "corenvr_camera_footage_expected_seconds",
        Gauge,
        "Time that should have been recorded within the same windows.",
    );
    for (labels, share) in shares() {
        family.sample(&labels, share.expected_s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_gauge() {
        let t = WallTime::from_millis(0);
        let reason = String::new;
        let all = [
            CameraState::Connecting { since: t },
            CameraState::Waiting {
                reason: reason(),
                since: t,
            },
            CameraState::Recording { since: t },
            CameraState::Down {
                reason: reason(),
                since: t,
                next_try: t,
            },
            CameraState::Refused {
                reason: reason(),
                since: t,
                next_try: t,
            },
            CameraState::Quarantined {
                reason: reason(),
                until: t,
            },
            CameraState::Disabled,
        ];
        assert!(all.iter().map(CameraState::name).eq(STATES));
    }
}
