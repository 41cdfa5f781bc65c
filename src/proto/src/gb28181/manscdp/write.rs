//! Messages to XML, with the elements in the order of the standard's schemas.

use super::{
    Alarm, Body, CatalogEvent, CatalogItem, Command, Control, DeviceInfo, DeviceStatus, ItemStatus, LocalTime, Message,
    Notify, Position, Query, RecordItem, RecordKind, Response, xml::Writer,
};
use crate::gb28181::id::DeviceId;

/// What a PTZ command is given as `ControlPriority`; smaller goes before greater.
const CONTROL_PRIORITY: u8 = 5;

impl Message {
    /// The body, in GB 18030 that is declared as GB2312. Of [`Body::Other`] there is nothing but its head.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (root, command) = match &self.body {
            Body::Notify(notify) => ("Notify", notify.command().as_str()),
            Body::Query(query) => ("Query", query.command().as_str()),
            Body::Response(response) => ("Response", response.command().as_str()),
            Body::Control(_) => ("Control", Command::DeviceControl.as_str()),
            Body::Other { root, cmd_type } if is_name(root) => (root.as_str(), cmd_type.as_str()),
            Body::Other { cmd_type, .. } => ("Unknown", cmd_type.as_str()),
        };
        let mut writer = Writer::new();
        let w = &mut writer;
        w.open(root);
        w.text("CmdType", command);
        w.leaf("SN", self.sn);
        w.leaf_if("DeviceID", self.device);
        match &self.body {
            Body::Notify(body) => notify(w, body),
            Body::Query(body) => query(w, body),
            Body::Response(body) => response(w, body),
            Body::Control(body) => control(w, *body),
            Body::Other { .. } => {}
        }
        w.close(root);
        writer.finish()
    }
}

impl Notify {
    /// Its `CmdType`.
    pub const fn command(&self) -> Command {
        match self {
            Self::Keepalive { .. } => Command::Keepalive,
            Self::Alarm(_) => Command::Alarm,
            Self::MediaStatus { .. } => Command::MediaStatus,
            Self::Catalog { .. } => Command::Catalog,
            Self::MobilePosition(_) => Command::MobilePosition,
        }
    }
}

impl Query {
    /// Its `CmdType`.
    pub const fn command(&self) -> Command {
        match self {
            Self::Catalog { .. } => Command::Catalog,
            Self::DeviceInfo => Command::DeviceInfo,
            Self::DeviceStatus => Command::DeviceStatus,
            Self::RecordInfo(_) => Command::RecordInfo,
            Self::Alarm(_) => Command::Alarm,
            Self::MobilePosition { .. } => Command::MobilePosition,
        }
    }
}

impl Response {
    /// Its `CmdType`.
    pub const fn command(&self) -> Command {
        match self {
            Self::Catalog { .. } => Command::Catalog,
            Self::DeviceInfo(_) => Command::DeviceInfo,
            Self::DeviceStatus(_) => Command::DeviceStatus,
            Self::RecordInfo { .. } => Command::RecordInfo,
            Self::Result { to, .. } => *to,
        }
    }
}

/// Whether a text can be written as the name of an element.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

const fn ok(ok: bool) -> &'static str {
    if ok { "OK" } else { "ERROR" }
}

const fn on(on: bool) -> &'static str {
    if on { "ON" } else { "OFF" }
}

fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite())
}

fn notify(w: &mut Writer, notify: &Notify) {
    match notify {
        Notify::Keepalive { ok: is_ok, faults } => {
            w.leaf("Status", ok(*is_ok));
            if !faults.is_empty() {
                w.open("Info");
                for id in faults {
                    w.leaf("DeviceID", id);
                }
                w.close("Info");
            }
        }
        Notify::Alarm(body) => alarm(w, body),
        Notify::MediaStatus { notify_type } => w.leaf_if("NotifyType", *notify_type),
        Notify::Catalog { sum, changes, .. } => {
            w.leaf_if("SumNum", *sum);
            list(w, "DeviceList", changes, |w, change| {
                catalog_item(w, change.event, &change.item);
            });
        }
        Notify::MobilePosition(position) => mobile_position(w, position),
    }
}

fn mobile_position(w: &mut Writer, position: &Position) {
    w.leaf_if("Time", position.time.map(LocalTime::seconds));
    w.leaf_if("Longitude", finite(position.longitude));
    w.leaf_if("Latitude", finite(position.latitude));
    w.leaf_if("Speed", finite(position.speed));
    w.leaf_if("Direction", finite(position.direction));
    w.leaf_if("Altitude", finite(position.altitude));
}

fn alarm(w: &mut Writer, alarm: &Alarm) {
    w.leaf_if("AlarmPriority", alarm.priority);
    w.leaf_if("AlarmMethod", alarm.method);
    w.leaf_if("AlarmTime", alarm.time.map(LocalTime::seconds));
    w.text("AlarmDescription", &alarm.description);
    w.leaf_if("Longitude", finite(alarm.longitude));
    w.leaf_if("Latitude", finite(alarm.latitude));
    if alarm.alarm_type.is_some() || alarm.event_type.is_some() {
        w.open("Info");
        w.leaf_if("AlarmType", alarm.alarm_type);
        if alarm.event_type.is_some() {
            w.open("AlarmTypeParam");
            w.leaf_if("EventType", alarm.event_type);
            w.close("AlarmTypeParam");
        }
        w.close("Info");
    }
}

fn query(w: &mut Writer, query: &Query) {
    match query {
        Query::Catalog { start, end } => {
            w.leaf_if("StartTime", start.map(LocalTime::seconds));
            w.leaf_if("EndTime", end.map(LocalTime::seconds));
        }
        Query::DeviceInfo | Query::DeviceStatus => {}
        Query::RecordInfo(query) => {
            w.leaf("StartTime", query.start.seconds());
            w.leaf("EndTime", query.end.seconds());
            w.leaf("Secrecy", 0);
            w.leaf("Type", query.kind.map_or("all", RecordKind::as_str));
        }
        Query::Alarm(query) => {
            w.leaf("StartAlarmPriority", query.priority_from.unwrap_or(0));
            w.leaf("EndAlarmPriority", query.priority_to.unwrap_or(0));
            w.leaf("AlarmMethod", query.method.unwrap_or(0));
        }
        Query::MobilePosition { interval_s } => w.leaf_if("Interval", *interval_s),
    }
}

fn response(w: &mut Writer, response: &Response) {
    match response {
        Response::Catalog { sum, items, .. } => {
            w.leaf_if("SumNum", *sum);
            list(w, "DeviceList", items, |w, item| catalog_item(w, None, item));
        }
        Response::DeviceInfo(info) => device_info(w, info),
        Response::DeviceStatus(status) => device_status(w, status),
        Response::RecordInfo { name, sum, items, .. } => {
            w.text("Name", name);
            w.leaf_if("SumNum", *sum);
            list(w, "RecordList", items, record_item);
        }
        Response::Result { ok: is_ok, .. } => w.leaf("Result", ok(*is_ok)),
    }
}

fn device_info(w: &mut Writer, info: &DeviceInfo) {
    w.text("DeviceName", &info.name);
    w.leaf("Result", ok(true));
    w.text("Manufacturer", &info.manufacturer);
    w.text("Model", &info.model);
    w.text("Firmware", &info.firmware);
    w.leaf_if("Channel", info.channels);
}

fn device_status(w: &mut Writer, status: &DeviceStatus) {
    w.leaf("Result", ok(true));
    w.leaf_if("Online", status.online.map(|o| if o { "ONLINE" } else { "OFFLINE" }));
    w.leaf_if("Status", status.ok.map(ok));
    w.text("Reason", &status.reason);
    w.leaf_if("Encode", status.encodes.map(on));
    w.leaf_if("Record", status.records.map(on));
    w.leaf_if("DeviceTime", status.time.map(LocalTime::seconds));
}

fn control(w: &mut Writer, control: Control) {
    match control {
        Control::Ptz(command) => {
            w.leaf("PTZCmd", command);
            w.open("Info");
            w.leaf("ControlPriority", CONTROL_PRIORITY);
            w.close("Info");
        }
        Control::KeyFrame => {
            w.leaf("IFameCmd", "Send");
            w.leaf("IFrameCmd", "Send");
        }
        Control::Record(start) => w.leaf("RecordCmd", if start { "Record" } else { "StopRecord" }),
        Control::Guard(arm) => w.leaf("GuardCmd", if arm { "SetGuard" } else { "ResetGuard" }),
        Control::ResetAlarm { method, alarm_type } => {
            w.leaf("AlarmCmd", "ResetAlarm");
            if method.is_some() || alarm_type.is_some() {
                w.open("Info");
                w.leaf_if("AlarmMethod", method);
                w.leaf_if("AlarmType", alarm_type);
                w.close("Info");
            }
        }
        Control::Reboot => w.leaf("TeleBoot", "Boot"),
    }
}

/// A list of items; none at all if it is empty, as the standard has it.
fn list<T>(w: &mut Writer, name: &str, items: &[T], item: impl Fn(&mut Writer, &T)) {
    if items.is_empty() {
        return;
    }
    w.open_list(name, items.len());
    for one in items {
        w.open("Item");
        item(w, one);
        w.close("Item");
    }
    w.close(name);
}

fn catalog_item(w: &mut Writer, event: Option<CatalogEvent>, item: &CatalogItem) {
    w.leaf("DeviceID", item.id);
    w.leaf_if("Event", event.map(CatalogEvent::as_str));
    w.text("Name", &item.name);
    w.text("Manufacturer", &item.manufacturer);
    w.text("Model", &item.model);
    w.text("Owner", &item.owner);
    w.text("CivilCode", &item.civil_code);
    w.text("Address", &item.address);
    w.leaf_if("Parental", item.parental.map(u8::from));
    let parents: Vec<&str> = item.parents.iter().map(DeviceId::as_str).collect();
    w.text("ParentID", &parents.join("/"));
    w.leaf_if("RegisterWay", item.register_way);
    w.leaf_if("Secrecy", item.secrecy.map(u8::from));
    w.text("IPAddress", &item.ip_address);
    match item.status {
        ItemStatus::On => w.leaf("Status", "ON"),
        ItemStatus::Off => w.leaf("Status", "OFF"),
        ItemStatus::Unknown => {}
    }
    w.leaf_if("Longitude", finite(item.longitude));
    w.leaf_if("Latitude", finite(item.latitude));
    if item.ptz_type.is_some() {
        w.open("Info");
        w.leaf_if("PTZType", item.ptz_type);
        w.close("Info");
    }
}

fn record_item(w: &mut Writer, item: &RecordItem) {
    w.leaf_if("DeviceID", item.device);
    w.text("Name", &item.name);
    w.text("FilePath", &item.file_path);
    w.leaf("StartTime", item.start.seconds());
    w.leaf("EndTime", item.end.seconds());
    w.leaf("Secrecy", 0);
    w.leaf_if("Type", item.kind.map(RecordKind::as_str));
    w.text("RecorderID", &item.recorder_id);
    w.leaf_if("FileSize", item.file_bytes);
}
