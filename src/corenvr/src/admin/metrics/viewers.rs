//! Metrics of those who watch, and of those who register or push.

use corenvr_playback::{Counters, SessionKind};

use super::exposition::{
    Exposition,
    Kind::{Counter, Gauge},
};
use crate::supervisor::{appliance::Appliance, devices::Devices};

type Count = (&'static str, &'static str, fn(&Counters) -> u64);

const COUNTS: [Count; 16] = [
    ("corenvr_rtsp_connections_total", "RTSP connections accepted.", |c| {
        c.connections
    }),
    (
        "corenvr_rtsp_connections_refused_total",
        "RTSP connections refused because of a limit.",
        |c| c.connections_refused,
    ),
    ("corenvr_rtsp_requests_total", "RTSP requests answered.", |c| c.requests),
    (
        "corenvr_rtsp_requests_failed_total",
        "RTSP requests answered with 4xx or 5xx.",
        |c| c.requests_failed,
    ),
    (
        "corenvr_rtsp_protocol_errors_total",
        "RTSP connections closed because what came was not RTSP.",
        |c| c.protocol_errors,
    ),
    ("corenvr_rtsp_logins_refused_total", "RTSP logins refused.", |c| {
        c.logins_refused
    }),
    ("corenvr_rtsp_sessions_total", "RTSP sessions set up.", |c| c.sessions),
    (
        "corenvr_rtsp_sessions_timed_out_total",
        "RTSP sessions ended because nothing was heard of the client.",
        |c| c.sessions_timed_out,
    ),
    ("corenvr_rtsp_plays_total", "PLAY requests answered with 200.", |c| {
        c.plays
    }),
    ("corenvr_rtsp_frames_sent_total", "Frames sent.", |c| c.frames),
    ("corenvr_rtsp_sent_bytes_total", "Bytes of RTP sent.", |c| c.bytes),
    (
        "corenvr_rtsp_live_frames_skipped_total",
        "Frames that live viewers who fell behind did not get.",
        |c| c.live_skipped,
    ),
    (
        "corenvr_playback_read_bytes_total",
        "Bytes of footage read from disk.",
        |c| c.bytes_read,
    ),
    (
        "corenvr_playback_unreadable_total",
        "Clusters and files that could not be read and were passed over.",
        |c| c.unreadable,
    ),
    (
        "corenvr_playback_seams_missed_total",
        "Seams between archive and live edge at which frames are missing.",
        |c| c.seams_missed,
    ),
    (
        "corenvr_playback_unsendable_total",
        "Access units that no RTP payload format can carry.",
        |c| c.unsendable,
    ),
];

pub fn write(out: &mut Exposition, appliance: &Appliance) {
    let now = appliance.playback.snapshot();
    let mut family = out.family("corenvr_rtsp_sessions", Gauge, "RTSP sessions that exist now.");
    for (kind, label) in [(SessionKind::Live, "live"), (SessionKind::Archive, "archive")] {
        let count = now.sessions.iter().filter(|s| s.kind == kind).count();
        family.sample(&[("kind", label)], count as f64);
    }
    for (name, help, value) in COUNTS {
        out.single(name, Counter, help, value(&now.counters) as f64);
    }
    if let Some(devices) = appliance.devices.get().map(Devices::summary) {
        let mut family = out.family(
            "corenvr_gb28181_devices",
            Gauge,
            "GB28181 devices that have registered.",
        );
        family.sample(&[("state", "online")], devices.online as f64);
        family.sample(&[("state", "offline")], devices.offline as f64);
        out.single(
            "corenvr_gb28181_refused",
            Gauge,
            "GB28181 devices in the table of those that were refused of late.",
            devices.refused as f64,
        );
    }
    if let Some(publishers) = &appliance.publishers {
        let refused = publishers.refused().len() as f64;
        out.single(
            "corenvr_rtmp_refused",
            Gauge,
            "RTMP publishers in the table of those that were refused of late.",
            refused,
        );
    }
}
