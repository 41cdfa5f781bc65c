//! GB28181 devices over the API: who is registered, what they say of themselves, what their archives hold, and moving their cameras.

use corenvr_media::{CameraName, WallTime};
use corenvr_proto::gb28181::{
    id::DeviceId,
    manscdp::{Control, LocalTime, RecordQuery},
    platform::{CommandError, Query as Question, QueryResult},
    ptz::{Pan, PresetAction, PtzCommand, Tilt, Zoom},
};
use corenvr_shard::{Class, spawn, time};
use hyper::StatusCode;
use jiff::tz::{Offset, TimeZone};
use serde_json::json;
use std::{rc::Rc, time::Duration};

use super::{
    api::{DeviceList, PtzAction, PtzRequest, RecordList, RecordView},
    http::{Answer, Failure, Query, json as answer},
    routes::{Call, Need, Route, no_camera, route},
};
use crate::{
    accounts::{Right, audit::Action},
    supervisor::{
        appliance::Appliance,
        devices::{Devices, device_url},
    },
};

/// Longest movement that ends by itself.
const MOVE_MS_MAX: u64 = 10_000;
/// Longest range that a device is searched for recordings.
const RECORDS_SPAN_MAX: Duration = Duration::from_secs(31 * 86_400);

/// What can be asked of devices. What is not about one camera of theirs is the administrator's.
pub const ROUTES: &[Route] = &[
    route!(GET "/api/v1/gb28181/devices", Need::Right(Right::Configure), list),
    route!(GET "/api/v1/gb28181/setup", Need::Right(Right::Configure), setup),
    route!(GET "/api/v1/gb28181/devices/{id}", Need::Right(Right::Configure), show),
    route!(POST "/api/v1/gb28181/devices/{id}/catalog", Need::Right(Right::Configure), ask_catalog),
    route!(GET "/api/v1/gb28181/devices/{id}/records", Need::Right(Right::Configure), show_records),
    route!(POST "/api/v1/cameras/{name}/ptz", Need::Camera(Right::Control), ptz),
];

async fn list(call: Call) -> Result<Answer, Failure> {
    Ok(answer(StatusCode::OK, &listed(running(&call.appliance)?)))
}

async fn setup(call: Call) -> Result<Answer, Failure> {
    Ok(answer(StatusCode::OK, &running(&call.appliance)?.setup()))
}

async fn show(call: Call) -> Result<Answer, Failure> {
    one(running(&call.appliance)?, device(call.arg(0))?).await
}

async fn ask_catalog(call: Call) -> Result<Answer, Failure> {
    catalog(running(&call.appliance)?, device(call.arg(0))?).await
}

async fn show_records(call: Call) -> Result<Answer, Failure> {
    let id = device(call.arg(0))?;
    let channel = call.query.text("channel").map_or(Ok(id), device)?;
    records(&call.appliance, running(&call.appliance)?, id, channel, &call.query).await
}

/// The SIP server, if devices may come.
pub fn running(appliance: &Appliance) -> Result<&Devices, Failure> {
    appliance.devices.get().ok_or_else(|| {
        Failure::new(
            StatusCode::CONFLICT,
            "GB28181 is switched off",
            "write a section [gb28181] into the configuration and restart corenvr",
        )
    })
}

fn device(text: &str) -> Result<DeviceId, Failure> {
    DeviceId::parse(text).map_err(|e| Failure::bad(e.to_string(), "`corenvr gb28181 devices` shows all"))
}

fn listed(devices: &Devices) -> DeviceList {
    DeviceList {
        devices: devices
            .server
            .devices()
            .iter()
            .filter_map(|d| serde_json::to_value(d).ok())
            .collect(),
        refused: devices
            .server
            .refused()
            .iter()
            .filter_map(|r| serde_json::to_value(r).ok())
            .collect(),
    }
}

/// A question or command that was not carried out, as an answer.
pub fn failed(error: &CommandError) -> Failure {
    let status = match error {
        CommandError::Unknown(_) => StatusCode::NOT_FOUND,
        CommandError::Offline(_) | CommandError::NoDialog(_) => StatusCode::CONFLICT,
        CommandError::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Failure::new(
        status,
        error.to_string(),
        "`corenvr gb28181 devices` shows who is there",
    )
}

/// A question that a device did not answer.
pub fn silent(reason: String) -> Failure {
    let remedy = "look whether the device is online and knows this question";
    Failure::new(StatusCode::BAD_GATEWAY, reason, remedy)
}

/// One device, with what it says of itself now.
async fn one(devices: &Devices, id: DeviceId) -> Result<Answer, Failure> {
    let server = &devices.server;
    let status = server
        .query(id, id, Question::DeviceStatus)
        .await
        .map_err(|e| failed(&e))?;
    let status = match status {
        QueryResult::DeviceStatus(s) => json!({
            "online": s.online,
            "ok": s.ok,
            "reason": s.reason,
            "encodes": s.encodes,
            "records": s.records,
            "time": s.time.map(|t| t.to_string()),
        }),
        QueryResult::Failed { reason } => json!({ "error": reason }),
        _ => return Err(Failure::internal(&"the device answered another question")),
    };
    let Some(view) = server.devices().into_iter().find(|d| d.id == id) else {
        return Err(failed(&CommandError::Unknown(id)));
    };
    Ok(answer(StatusCode::OK, &json!({ "device": view, "status": status })))
}

/// Asks for the channels again.
async fn catalog(devices: &Devices, id: DeviceId) -> Result<Answer, Failure> {
    let result = devices.server.query(id, id, Question::Catalog).await;
    if let QueryResult::Failed { reason } = result.map_err(|e| failed(&e))? {
        return Err(silent(reason));
    }
    let view = devices.server.devices().into_iter().find(|d| d.id == id);
    Ok(answer(StatusCode::OK, &view))
}

async fn records(
    appliance: &Appliance,
    devices: &Devices,
    id: DeviceId,
    channel: DeviceId,
    query: &Query,
) -> Result<Answer, Failure> {
    let range = query.range()?;
    if range.start == WallTime::MIN || range.end.saturating_since(range.start) > RECORDS_SPAN_MAX {
        let days = RECORDS_SPAN_MAX.as_secs() / 86_400;
        return Err(Failure::bad(
            format!("a device is searched for at most {days} days at a time"),
            "give from and to",
        ));
    }
    let zone = zone(appliance.book.borrow().config.gb28181.utc_offset_s);
    let question = Question::RecordInfo(RecordQuery {
        start: LocalTime::from_utc(range.start, &zone),
        end: LocalTime::from_utc(range.end, &zone),
        kind: None,
    });
    match devices
        .server
        .query(id, channel, question)
        .await
        .map_err(|e| failed(&e))?
    {
        QueryResult::Records { items, complete } => {
            let record = |item: &corenvr_proto::gb28181::manscdp::RecordItem| {
                Some(RecordView {
                    start: item.start.to_utc(&zone)?,
                    end: item.end.to_utc(&zone)?,
                    kind: item.kind.map(|k| k.as_str().to_owned()),
                    bytes: item.file_bytes,
                })
            };
            let records = items.iter().filter_map(record).collect();
            Ok(answer(StatusCode::OK, &RecordList { records, complete }))
        }
        QueryResult::Failed { reason } => Err(silent(reason)),
        _ => Err(Failure::internal(&"the device answered another question")),
    }
}

/// The zone that the devices' clocks are in.
pub fn zone(utc_offset_s: i32) -> TimeZone {
    Offset::from_seconds(utc_offset_s).map_or(TimeZone::UTC, TimeZone::fixed)
}

/// Moves a camera.
async fn ptz(mut call: Call) -> Result<Answer, Failure> {
    let name = call.camera()?;
    let wanted: PtzRequest = call.json().await?;
    let sent = move_camera(&call.appliance, &name, &wanted);
    let (word, number) = (word_of(wanted.action), wanted.preset);
    let detail = number.map_or_else(|| word.clone(), |number| format!("{word} {number}"));
    call.audit(Action::Ptz, Some(&name), &detail, sent.is_ok());
    if let Some(moving) = sent? {
        time::sleep(moving).await;
    }
    tracing::info!(camera = %name, action = %word, "camera moved");
    Ok(answer(StatusCode::OK, &json!({ "sent": true })))
}

fn word_of(action: PtzAction) -> String {
    let word = serde_json::to_value(action).ok();
    word.and_then(|w| w.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Sends the command, and lets a movement that is to end do so whatever becomes of who asked for it. Returns for how long it moves.
fn move_camera(appliance: &Rc<Appliance>, name: &CameraName, wanted: &PtzRequest) -> Result<Option<Duration>, Failure> {
    let url = {
        let book = appliance.book.borrow();
        let (settings, _) = book.camera(name).ok_or_else(no_camera)?;
        device_url(settings).cloned()
    };
    let Some(url) = url else {
        let remedy = "use the camera's own page";
        return Err(Failure::bad(
            format!("{name} is not a GB28181 camera: only those can be moved"),
            remedy,
        ));
    };
    let server = &running(appliance)?.server;
    let channel = server
        .channel_of(&url)
        .map_err(|reason| Failure::new(StatusCode::CONFLICT, reason, ""))?;
    let command = command(wanted)?;
    let sent = server.control(url.device, channel, Control::Ptz(command));
    sent.map_err(|e| failed(&e))?;
    let (Some(ms), PtzCommand::Move { .. }) = (wanted.for_ms, command) else {
        return Ok(None);
    };
    let moving = Duration::from_millis(ms.min(MOVE_MS_MAX));
    let (appliance, name) = (appliance.clone(), name.clone());
    let stop = spawn(Class::Live, "ptz-stop", async move {
        time::sleep(moving).await;
        let Ok(devices) = running(&appliance) else { return };
        let stopped = devices
            .server
            .control(url.device, channel, Control::Ptz(PtzCommand::STOP));
        if let Err(error) = stopped {
            tracing::warn!(camera = %name, %error, "a movement could not be stopped");
        }
    });
    stop.detach();
    Ok(Some(moving))
}

fn command(wanted: &PtzRequest) -> Result<PtzCommand, Failure> {
    let percent = wanted.speed.unwrap_or(50);
    if percent > 100 {
        return Err(Failure::bad(
            format!("speed: {percent} is more than 100"),
            "give a percentage",
        ));
    }
    let speed = (u16::from(percent) * 255 / 100) as u8;
    let zoom_speed = (u16::from(percent) * 15 / 100) as u8;
    let (mut pan, mut tilt, mut zoom) = (None, None, None);
    match wanted.action {
        PtzAction::Left => pan = Some(Pan::Left),
        PtzAction::Right => pan = Some(Pan::Right),
        PtzAction::Up => tilt = Some(Tilt::Up),
        PtzAction::Down => tilt = Some(Tilt::Down),
        PtzAction::ZoomIn => zoom = Some(Zoom::In),
        PtzAction::ZoomOut => zoom = Some(Zoom::Out),
        PtzAction::Stop => return Ok(PtzCommand::STOP),
        PtzAction::SetPreset => return preset(wanted, PresetAction::Set),
        PtzAction::CallPreset => return preset(wanted, PresetAction::Call),
        PtzAction::DeletePreset => return preset(wanted, PresetAction::Delete),
    }
    Ok(PtzCommand::Move {
        pan,
        tilt,
        zoom,
        pan_speed: speed,
        tilt_speed: speed,
        zoom_speed,
    })
}

fn preset(wanted: &PtzRequest, action: PresetAction) -> Result<PtzCommand, Failure> {
    match wanted.preset {
        Some(number) if number > 0 => Ok(PtzCommand::Preset { action, number }),
        _ => Err(Failure::bad("a preset needs its number", "give preset, from 1 to 255")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_becomes_the_command_of_the_standard() {
        let read = |text: &str| command(&serde_json::from_str::<PtzRequest>(text).unwrap());
        let bytes = read(r#"{"action":"left","speed":100}"#).unwrap().to_bytes();
        assert_eq!(bytes[..5], [0xA5, 0x0F, 0x01, 0x02, 0xFF]);
        let sum = bytes[..7].iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
        assert_eq!(bytes[7], sum);
        let bytes = read(r#"{"action":"call-preset","preset":3}"#).unwrap().to_bytes();
        assert_eq!((bytes[3], bytes[5]), (0x82, 3));
        assert_eq!(read(r#"{"action":"stop"}"#).unwrap(), PtzCommand::STOP);
        assert!(read(r#"{"action":"call-preset"}"#).is_err());
        assert!(read(r#"{"action":"up","speed":101}"#).is_err());
        assert!(serde_json::from_str::<PtzRequest>(r#"{"action":"fly"}"#).is_err());
    }
}
