//! `corenvr status`: shards, cameras, disks, viewers.

use jiff::tz::TimeZone;
use serde_json::Value;

use super::{
    Failure,
    args::Output,
    output,
    views::{CameraStatus, Playback, show_bitrate, show_share, show_span},
    when,
};
use crate::{
    admin::{api::Status, client::Client},
    config::values::show_size,
};

const STATUS: &str = "/api/v1/status";
/// Stalls that are shown; `--json` has all that are remembered.
const STALLS_SHOWN: usize = 8;

/// Prints the status.
pub fn run(out: &Output) -> Result<(), Failure> {
    let client = Client::from_config(&out.config.config)?;
    if out.json {
        output::json(&client.get::<Value>(STATUS)?);
        return Ok(());
    }
    let status: Status = client.get(STATUS)?;
    let rtsp: Vec<_> = status.rtsp.iter().map(ToString::to_string).collect();
    let rtsps = if status.rtsps.is_empty() {
        String::new()
    } else {
        let list: Vec<_> = status.rtsps.iter().map(ToString::to_string).collect();
        format!(", RTSPS on {}", list.join(", "))
    };
    let rtmp = status.rtmp.as_ref().map_or(String::new(), |rtmp| {
        let listening: Vec<_> = rtmp.listening.iter().map(ToString::to_string).collect();
        format!(", RTMP on {}", listening.join(", "))
    });
    output::line(&format!(
        "corenvr {}, process {}, up {}, RTSP on {}{rtsps}{rtmp}",
        status.version,
        status.pid,
        show_span(status.uptime_s),
        rtsp.join(", ")
    ));
    shards(&status);
    cameras(&status);
    disks(&status);
    sessions(&status);
    refused(&status);
    if let Some(devices) = &status.gb28181 {
        let listening: Vec<_> = devices.listening.iter().map(ToString::to_string).collect();
        output::line(&format!(
            "\nGB28181 on {}: {} devices online, {} offline, {} refused; `corenvr gb28181 devices` shows them",
            listening.join(", "),
            devices.online,
            devices.offline,
            devices.refused
        ));
    }
    crashes(&status);
    for left_out in &status.left_out {
        output::line(&format!("\nleft out: {}", left_out.message));
    }
    Ok(())
}

fn head(cells: &[&str]) -> Vec<Vec<String>> {
    vec![cells.iter().map(|c| (*c).to_owned()).collect()]
}

fn shards(status: &Status) {
    output::line("");
    let mut rows = head(&[
        "SHARD",
        "CPU",
        "LOAD",
        "RECORDING",
        "LIVE",
        "PLAYBACK",
        "OTHER",
        "STALLS",
        "LONGEST",
        "HEARD OF",
    ]);
    for shard in &status.shards {
        let mut row = vec![
            shard.name.clone(),
            shard.cpu.map_or_else(|| "-".into(), |cpu| cpu.to_string()),
            format!("{:.1}%", shard.cpu_percent),
        ];
        row.extend(shard.classes.iter().map(|c| format!("{:.1}%", c.cpu_percent)));
        row.extend([
            shard.stalls.to_string(),
            format!("{} ms", shard.stall_max_ms),
            format!("{} ms ago", shard.silent_ms),
        ]);
        rows.push(row);
    }
    output::table(&rows);
    for shard in &status.shards {
        if let Some(held) = &shard.held {
            let task = held.task.as_deref().unwrap_or("no task");
            let thread = held.thread.as_ref().map_or_else(String::new, |t| format!("; it {t}"));
            output::line(&format!(
                "{} is held right now, for {} ms, by {task}{thread}",
                shard.name, held.for_ms
            ));
        }
    }
    stalls(status);
}

/// The last stalls of all shards, newest first.
fn stalls(status: &Status) {
    let all = status
        .shards
        .iter()
        .flat_map(|s| s.last_stalls.iter().map(move |stall| (s, stall)));
    let mut all: Vec<_> = all.collect();
    if all.is_empty() {
        return;
    }
    all.sort_by_key(|(_, stall)| std::cmp::Reverse(stall.at));
    let zone = TimeZone::system();
    output::line("");
    let mut rows = head(&["STALLED", "AT", "BY", "CLASS", "FOR", "IT"]);
    for (shard, stall) in all.iter().take(STALLS_SHOWN) {
        rows.push(vec![
            shard.name.clone(),
            when::show(stall.at, &zone),
            stall.task.clone(),
            stall.class.clone(),
            format!("{} ms", stall.took_ms),
            stall.thread.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    output::table(&rows);
}

fn crashes(status: &Status) {
    let zone = TimeZone::system();
    for crash in &status.crashes {
        output::line(&format!("\ncrashed {}: {}", when::show(crash.at, &zone), crash.summary));
    }
}

fn cameras(status: &Status) {
    let parsed: Vec<CameraStatus> = status
        .cameras
        .iter()
        .map(|c| serde_json::from_value(c.clone()).unwrap_or_default())
        .collect();
    if parsed.is_empty() {
        output::line("\nNo camera yet: corenvr camera add NAME URL");
        return;
    }
    output::line("");
    let mut rows = head(&[
        "CAMERA", "STATE", "FPS", "RATE", "LOST", "DROPPED", "LAG", "HOUR", "DAY", "SHARD", "VIEWERS",
    ]);
    for c in &parsed {
        let complete = status.completeness.iter().find(|s| s.camera == c.name);
        let complete = complete.map(|s| &s.completeness);
        rows.push(vec![
            c.name.clone(),
            c.state.clone(),
            format!("{:.1}", c.counters.fps),
            show_bitrate(c.counters.bitrate_bps),
            c.counters.packets_lost.to_string(),
            c.counters.frames_dropped.to_string(),
            format!("{} ms", c.counters.lag_ms),
            show_share(complete.and_then(|c| c.hour.as_ref())),
            show_share(complete.and_then(|c| c.day.as_ref())),
            c.shard.to_string(),
            c.counters.subscribers.to_string(),
        ]);
    }
    output::table(&rows);
    for c in &parsed {
        for reason in [&c.reason, &c.disk_error].into_iter().flatten() {
            output::line(&format!("{}: {reason}", c.name));
        }
    }
}

/// Those whose stream nobody wants: a key with a slip of the hand, or a stranger.
fn refused(status: &Status) {
    let list = status.rtmp.as_ref().map_or(&[][..], |rtmp| &rtmp.refused);
    if list.is_empty() {
        return;
    }
    let zone = TimeZone::system();
    output::line("");
    let mut rows = head(&["REFUSED PUBLISHER", "APPLICATION", "KEY", "LAST", "TIMES", "WHY"]);
    for r in list {
        rows.push(vec![
            r.address.to_string(),
            r.app.clone(),
            r.key.clone(),
            when::show(r.last, &zone),
            r.count.to_string(),
            r.reason.clone(),
        ]);
    }
    output::table(&rows);
}

fn disks(status: &Status) {
    let zone = TimeZone::system();
    output::line("");
    let mut rows = head(&[
        "DISK",
        "RECORDED",
        "FREE",
        "OF",
        "KEEPS FREE",
        "OLDEST",
        "HOLDS",
        "QUEUE",
        "SLOWEST",
        "WRITES",
    ]);
    for d in &status.disks {
        rows.push(vec![
            d.path.display().to_string(),
            show_size(d.used),
            show_size(d.free),
            show_size(d.total),
            show_size(d.keep_free),
            d.oldest.map_or_else(|| "-".into(), |t| when::show(t, &zone)),
            d.horizon_s.map_or_else(|| "-".into(), show_span),
            d.queued.to_string(),
            format!("{} ms", d.slowest_ms),
            format!("{} ms", d.write_ms),
        ]);
    }
    output::table(&rows);
    for d in &status.disks {
        if let Some(reason) = &d.failed {
            output::line(&format!("{}: {reason}", d.path.display()));
        }
    }
}

fn sessions(status: &Status) {
    let playback: Playback = serde_json::from_value(status.playback.clone()).unwrap_or_default();
    if playback.sessions.is_empty() {
        output::line("\nNobody is watching.");
        return;
    }
    let zone = TimeZone::system();
    output::line("");
    let mut rows = head(&[
        "VIEWER", "FROM", "PROGRAM", "CAMERA", "WHAT", "OVER", "AT", "SPEED", "RATE", "SKIPPED", "FOR",
    ]);
    for s in &playback.sessions {
        let what = if s.playing {
            s.kind.clone()
        } else {
            format!("{} (paused)", s.kind)
        };
        rows.push(vec![
            s.id.to_string(),
            s.peer.clone(),
            s.agent.clone(),
            s.camera.clone(),
            what,
            s.transport.clone(),
            s.position.map_or_else(|| "-".into(), |t| when::show(t, &zone)),
            format!("{}x", s.rate),
            show_bitrate(s.bitrate),
            s.skipped.to_string(),
            show_span(s.age_s),
        ]);
    }
    output::table(&rows);
}
