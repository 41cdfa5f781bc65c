//! `corenvr camera`: add, list, show, remove, enable, disable.

use std::fmt::Write as _;

use corenvr_media::CameraName;
use corenvr_recorder::Source;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{
    Failure,
    args::{AddArgs, CameraArg, CameraCommand, Output, PtzArgs, RemoveArgs},
    output,
    views::{CameraStatus, Probe, show_bitrate, show_share, show_span},
    when,
};
use crate::{
    admin::{
        api::{CameraView, CompletenessView, KeptIn, ProbeRequest, PtzRequest, Removed, ShareView, camera_path},
        client::{Client, ClientError},
    },
    config::{CameraJson, CameraSettings, MODES, TRANSPORTS, values::show_size, word},
};

/// What is printed while a camera is tried comes before it is added, so that the two are asked for apart.
const ADD_UNTRIED: &str = "/api/v1/cameras?probe=0";

/// Does what is asked.
pub fn run(command: CameraCommand) -> Result<(), Failure> {
    match command {
        CameraCommand::Add(args) => add(args),
        CameraCommand::List(output) => list(&output),
        CameraCommand::Show(args) => show(&args),
        CameraCommand::Remove(args) => remove(&args),
        CameraCommand::Enable(args) => set_mode(&args, "continuous"),
        CameraCommand::Disable(args) => set_mode(&args, "off"),
        CameraCommand::Ptz(args) => ptz(&args),
        CameraCommand::Backfill(args) => super::backfill::run(&args),
    }
}

fn client(output: &Output) -> Result<Client, Failure> {
    Ok(Client::from_config(&output.config.config)?)
}

fn add(args: AddArgs) -> Result<(), Failure> {
    let client = client(&args.output)?;
    let camera = CameraJson {
        name: args.name.to_string(),
        url: args.url,
        transport: args.transport,
        audio: !args.no_audio,
        mode: corenvr_recorder::CameraMode::Continuous,
        storage: args.storage,
        shard: args.shard,
        channel: args.channel,
        retain: args.retain,
        retain_bytes: args.retain_bytes,
    };
    let settings = CameraSettings::try_from(camera.clone()).map_err(|problems| {
        let list: Vec<_> = problems
            .iter()
            .map(|(key, p)| format!("{key}: {}. Remedy: {}", p.message, p.remedy))
            .collect();
        Failure::Usage(list.join("\n"))
    })?;
    match client.get::<Value>(&camera_path(&args.name, "")) {
        Ok(_) => return Err(Failure::Failed(format!("there is a camera {} already", args.name))),
        Err(ClientError::Refused { status: 404, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    if comes_to_us(settings.url.source()) {
        return add_waiting(&client, &args.name, &camera, args.output.json);
    }
    if !args.output.json {
        output::line(&format!("Trying {} ...", settings.url));
    }
    let request = ProbeRequest {
        url: camera.url.clone(),
        transport: args.transport,
    };
    let probed = client.send::<Value>("POST", "/api/v1/probe", &request);
    match &probed {
        Ok(report) if !args.output.json => show_probe(report),
        Ok(_) => {}
        Err(error) if args.force => eprintln!("corenvr: {error}; adding it all the same"),
        Err(error) => {
            return Err(Failure::Failed(format!(
                "camera {} is not added: {error}\nTo add it all the same, use --force",
                args.name
            )));
        }
    }
    let added: CameraView = client.send("POST", ADD_UNTRIED, &camera)?;
    if args.output.json {
        output::json(&json!({ "camera": added, "probe": probed.ok() }));
    } else {
        output::line(&format!("Camera {} is added and recorded from now on.", args.name));
    }
    Ok(())
}

const fn comes_to_us(source: &Source) -> bool {
    matches!(source, Source::Gb28181(_) | Source::RtmpListen(_))
}

/// Adds a camera that cannot be tried, since it is the camera that connects.
fn add_waiting(client: &Client, name: &CameraName, camera: &CameraJson, as_json: bool) -> Result<(), Failure> {
    let added: CameraView = client.send("POST", ADD_UNTRIED, camera)?;
    if as_json {
        output::json(&json!({ "camera": added, "probe": null }));
        return Ok(());
    }
    output::line(&format!(
        "Camera {name} is added; it is recorded as soon as it connects."
    ));
    let status = status_of(&added);
    if let Some(reason) = &status.reason {
        output::line(&format!("  {}: {reason}", status.state));
    }
    Ok(())
}

fn ptz(args: &PtzArgs) -> Result<(), Failure> {
    let request = PtzRequest {
        action: args.action,
        speed: Some(args.speed),
        preset: args.preset,
        for_ms: args.for_time.map(|t| t.as_millis() as u64),
    };
    let sent: Value = client(&args.output)?.send("POST", &camera_path(&args.name, "/ptz"), &request)?;
    if args.output.json {
        output::json(&sent);
    }
    Ok(())
}

fn show_probe(report: &Value) {
    let probe: Probe = serde_json::from_value(report.clone()).unwrap_or_default();
    for stream in &probe.streams {
        let mut text = format!("  {}", stream.show());
        if let Some(fps) = stream.fps.filter(|_| stream.video) {
            let _ = write!(text, ", {fps:.1} frames/s");
        }
        if stream.bitrate_bps > 0 {
            let _ = write!(text, ", {}", show_bitrate(stream.bitrate_bps));
        }
        output::line(&text);
    }
    for other in &probe.not_recorded {
        output::line(&format!("  not recorded: {other}"));
    }
    output::line(&format!("  over {}", probe.transport.to_uppercase()));
}

fn status_of(view: &CameraView) -> CameraStatus {
    let status = view.status.clone().unwrap_or(json!({ "state": "starting" }));
    serde_json::from_value(status).unwrap_or_default()
}

fn list(out: &Output) -> Result<(), Failure> {
    let client = client(out)?;
    if out.json {
        output::json(&client.cameras()?);
        return Ok(());
    }
    let list = client.cameras()?;
    let head = ["NAME", "STATE", "VIDEO", "FPS", "RATE", "RECORDED", "SOURCE"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for view in &list.cameras {
        let status = status_of(view);
        let video = status.streams.iter().find(|s| s.video);
        rows.push(vec![
            view.settings.name.clone(),
            status.state.clone(),
            video.map_or_else(|| "-".into(), super::views::Stream::show),
            format!("{:.1}", status.counters.fps),
            show_bitrate(status.counters.bitrate_bps),
            show_size(view.usage.bytes),
            view.settings.url.clone(),
        ]);
    }
    output::table(&rows);
    for view in &list.cameras {
        if let Some(reason) = status_of(view).reason {
            output::line(&format!("{}: {reason}", view.settings.name));
        }
    }
    for left_out in &list.left_out {
        output::line(&format!("left out: {}", left_out.message));
    }
    Ok(())
}

fn show(args: &CameraArg) -> Result<(), Failure> {
    let client = client(&args.output)?;
    let path = camera_path(&args.name, "");
    if args.output.json {
        output::json(&client.get::<Value>(&path)?);
        return Ok(());
    }
    let view: CameraView = client.get(&path)?;
    let rows = details(&view, &TimeZone::system());
    output::table(&rows.into_iter().map(|(k, v)| vec![k.to_owned(), v]).collect::<Vec<_>>());
    Ok(())
}

fn details(view: &CameraView, zone: &TimeZone) -> Vec<(&'static str, String)> {
    let (s, status) = (&view.settings, status_of(view));
    let counters = &status.counters;
    let mut rows = vec![
        ("name", s.name.clone()),
        ("url", s.url.clone()),
        ("state", status.state.clone()),
    ];
    let mut push = |key, value: Option<String>| rows.extend(value.map(|v| (key, v)));
    push("reason", status.reason);
    push("since", status.since.map(|t| when::show(t, zone)));
    push("next try", status.next_try.map(|t| when::show(t, zone)));
    push("disk error", status.disk_error);
    let streams: Vec<_> = status.streams.iter().map(super::views::Stream::show).collect();
    push("streams", Some(streams.join(", ")).filter(|t| !t.is_empty()));
    push(
        "not recorded",
        Some(status.not_recorded.join(", ")).filter(|t| !t.is_empty()),
    );
    push("media over", status.transport);
    push("frames/s", Some(format!("{:.1}", counters.fps)));
    push("bit rate", Some(show_bitrate(counters.bitrate_bps)));
    push("lag", Some(format!("{} ms", counters.lag_ms)));
    push(
        "lost",
        Some(format!(
            "{} packets, {} frames damaged, {} frames dropped for the disk",
            counters.packets_lost, counters.frames_damaged, counters.frames_dropped
        )),
    );
    push("last frame", status.last_frame.map(|t| when::show(t, zone)));
    push("shard", Some(status.shard.to_string()));
    push("channel", s.channel.map(|n| n.to_string()));
    push("transport", Some(word(&TRANSPORTS, &s.transport).to_owned()));
    push("audio", Some(if s.audio { "yes" } else { "no" }.to_owned()));
    push("mode", Some(word(&MODES, &s.mode).to_owned()));
    push("storage", s.storage.as_ref().map(|p| p.display().to_string()));
    push("retain", s.retain.clone());
    push("retain bytes", s.retain_bytes.clone());
    let kept = match view.kept_in {
        KeptIn::Config => "the configuration file",
        KeptIn::Added => "cameras.toml",
        KeptIn::Catalog => "the device's catalog",
    };
    push("kept in", Some(kept.to_owned()));
    push(
        "recorded",
        Some(format!(
            "{} in {} files",
            show_size(view.usage.bytes),
            view.usage.segments
        )),
    );
    push("oldest", view.usage.first.map(|t| when::show(t, zone)));
    push("complete", view.completeness.as_ref().map(complete));
    rows
}

fn complete(c: &CompletenessView) -> String {
    let one = |share: Option<ShareView>| match share {
        Some(s) if s.missing_s >= 1.0 => {
            format!("{} ({} missing)", show_share(Some(&s)), show_span(s.missing_s as u64))
        }
        share => show_share(share.as_ref()),
    };
    format!("last hour {}, last day {}", one(c.hour), one(c.day))
}

fn remove(args: &RemoveArgs) -> Result<(), Failure> {
    let rest = if args.purge { "?purge=1" } else { "" };
    let removed: Removed = client(&args.output)?.delete(&camera_path(&args.name, rest))?;
    if args.output.json {
        output::json(&removed);
    } else if args.purge {
        output::line(&format!(
            "Camera {} is removed, with {} files ({}).",
            args.name,
            removed.segments,
            show_size(removed.bytes)
        ));
    } else {
        output::line(&format!("Camera {} is removed; its recordings stay.", args.name));
    }
    Ok(())
}

fn set_mode(args: &CameraArg, mode: &str) -> Result<(), Failure> {
    let view: CameraView =
        client(&args.output)?.send("PATCH", &camera_path(&args.name, ""), &json!({ "mode": mode }))?;
    if args.output.json {
        output::json(&view);
    } else {
        output::line(&mode_changed(&args.name, mode));
    }
    Ok(())
}

fn mode_changed(name: &CameraName, mode: &str) -> String {
    if mode == "off" {
        format!("Camera {name} is not recorded any more; what there is stays.")
    } else {
        format!("Camera {name} is recorded.")
    }
}
