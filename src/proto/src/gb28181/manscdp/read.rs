//! XML to messages. Whatever can be understood is; only what is no XML, or is too much of it, is refused.

use super::{
    Alarm, AlarmQuery, Body, CatalogChange, CatalogEvent, CatalogItem, Command, Control, DeviceInfo, DeviceStatus,
    ItemStatus, LocalTime, ManscdpError, Message, Notify, Position, Query, RecordItem, RecordKind, RecordQuery,
    Response,
    xml::{self, Document, Record},
};
use crate::gb28181::{id::DeviceId, ptz::PtzCommand};

impl Message {
    /// Reads a body, in whatever charset it is.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManscdpError> {
        let text = xml::decode(bytes)?;
        let document = xml::read(&text)?;
        let fields = &document.fields;
        Ok(Self {
            sn: fields.number("SN").unwrap_or(0),
            device: fields.id("DeviceID"),
            body: body(&document).unwrap_or_else(|| Body::Other {
                root: document.root.clone(),
                cmd_type: fields.text("CmdType"),
            }),
        })
    }
}

impl Record<'_> {
    fn text(&self, name: &'static str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    fn number<N: std::str::FromStr>(&self, name: &'static str) -> Option<N> {
        self.get(name)?.parse().ok()
    }

    fn id(&self, name: &'static str) -> Option<DeviceId> {
        DeviceId::parse(self.get(name)?).ok()
    }

    fn time(&self, name: &'static str) -> Option<LocalTime> {
        LocalTime::parse(self.get(name)?)
    }

    fn float(&self, name: &'static str) -> Option<f64> {
        self.number(name).filter(|v: &f64| v.is_finite())
    }

    /// Yes and no in any of the words that the standard has for them.
    fn truth(&self, name: &'static str) -> Option<bool> {
        let text = self.get(name)?;
        let is = |words: &[&str]| words.iter().any(|w| w.eq_ignore_ascii_case(text));
        if is(&["1", "ON", "OK", "ONLINE", "TRUE", "YES"]) {
            Some(true)
        } else if is(&["0", "OFF", "OFFLINE", "ERROR", "FALSE", "NO"]) {
            Some(false)
        } else {
            None
        }
    }

    /// A number of which 0 means all.
    fn selected(&self, name: &'static str) -> Option<u8> {
        self.number(name).filter(|n| *n != 0)
    }
}

fn body(document: &Document<'_>) -> Option<Body> {
    let fields = &document.fields;
    let command = Command::parse(fields.get("CmdType")?)?;
    let is = |root: &str| document.root.eq_ignore_ascii_case(root);
    if is("Notify") {
        notify(command, document).map(Body::Notify)
    } else if is("Query") {
        query(command, fields).map(Body::Query)
    } else if is("Response") {
        Some(Body::Response(response(command, document)?))
    } else if is("Control") && command == Command::DeviceControl {
        control(fields).map(Body::Control)
    } else {
        None
    }
}

fn notify(command: Command, document: &Document<'_>) -> Option<Notify> {
    let fields = &document.fields;
    Some(match command {
        Command::Keepalive => Notify::Keepalive {
            ok: fields.truth("Status").unwrap_or(true),
            faults: fields
                .all_in("Info", "DeviceID")
                .filter_map(|id| DeviceId::parse(id).ok())
                .collect(),
        },
        Command::Alarm => Notify::Alarm(alarm(fields)),
        Command::MediaStatus => Notify::MediaStatus {
            notify_type: fields.number("NotifyType"),
        },
        Command::Catalog => {
            let (changes, unreadable) = items(document, |record| {
                Some(CatalogChange {
                    event: record.get("Event").and_then(CatalogEvent::parse),
                    item: catalog_item(record)?,
                })
            });
            Notify::Catalog {
                sum: fields.number("SumNum"),
                changes,
                unreadable,
            }
        }
        Command::MobilePosition => Notify::MobilePosition(Position {
            time: fields.time("Time"),
            longitude: fields.float("Longitude"),
            latitude: fields.float("Latitude"),
            speed: fields.float("Speed"),
            direction: fields.float("Direction"),
            altitude: fields.float("Altitude"),
        }),
        _ => return None,
    })
}

fn alarm(fields: &Record<'_>) -> Alarm {
    let alarm_type = fields.get_in("Info", "AlarmType").or(fields.get("AlarmType"));
    let event_type = fields.get_in("AlarmTypeParam", "EventType");
    Alarm {
        priority: fields.number("AlarmPriority"),
        method: fields.number("AlarmMethod"),
        time: fields.time("AlarmTime"),
        description: fields.text("AlarmDescription"),
        longitude: fields.float("Longitude"),
        latitude: fields.float("Latitude"),
        alarm_type: alarm_type.and_then(|t| t.parse().ok()),
        event_type: event_type.and_then(|t| t.parse().ok()),
    }
}

fn query(command: Command, fields: &Record<'_>) -> Option<Query> {
    Some(match command {
        Command::Catalog => Query::Catalog {
            start: fields.time("StartTime"),
            end: fields.time("EndTime"),
        },
        Command::DeviceInfo => Query::DeviceInfo,
        Command::DeviceStatus => Query::DeviceStatus,
        Command::RecordInfo => Query::RecordInfo(RecordQuery {
            start: fields.time("StartTime")?,
            end: fields.time("EndTime")?,
            kind: fields.get("Type").and_then(RecordKind::parse),
        }),
        Command::Alarm => Query::Alarm(AlarmQuery {
            priority_from: fields.selected("StartAlarmPriority"),
            priority_to: fields.selected("EndAlarmPriority"),
            method: fields.selected("AlarmMethod"),
        }),
        Command::MobilePosition => Query::MobilePosition {
            interval_s: fields.number("Interval"),
        },
        _ => return None,
    })
}

fn response(command: Command, document: &Document<'_>) -> Option<Response> {
    let fields = &document.fields;
    let result = fields.get("Result").map(|r| r.eq_ignore_ascii_case("OK"));
    let sum = fields.number("SumNum");
    let is_list = sum.is_some() || !document.items.is_empty();
    Some(match command {
        // The answer to SUBSCRIBE, or a refusal.
        Command::Catalog | Command::RecordInfo if !is_list && result.is_some() => Response::Result {
            to: command,
            ok: result?,
        },
        Command::Catalog => {
            let (items, unreadable) = items(document, catalog_item);
            Response::Catalog { sum, items, unreadable }
        }
        Command::RecordInfo => {
            let (items, unreadable) = items(document, record_item);
            Response::RecordInfo {
                name: fields.text("Name"),
                sum,
                items,
                unreadable,
            }
        }
        Command::DeviceInfo if result != Some(false) => Response::DeviceInfo(DeviceInfo {
            name: fields.text("DeviceName"),
            manufacturer: fields.text("Manufacturer"),
            model: fields.text("Model"),
            firmware: fields.text("Firmware"),
            channels: fields.number("Channel"),
        }),
        Command::DeviceStatus if result != Some(false) => Response::DeviceStatus(DeviceStatus {
            online: fields.truth("Online"),
            ok: fields.truth("Status"),
            reason: fields.text("Reason"),
            encodes: fields.truth("Encode"),
            records: fields.truth("Record"),
            time: fields.time("DeviceTime"),
        }),
        _ => Response::Result {
            to: command,
            ok: result.unwrap_or(false),
        },
    })
}

fn control(fields: &Record<'_>) -> Option<Control> {
    let is = |name, word: &str| fields.get(name).is_some_and(|text| text.eq_ignore_ascii_case(word));
    if let Some(command) = fields.get("PTZCmd") {
        return PtzCommand::parse(command).ok().map(Control::Ptz);
    }
    Some(if is("IFameCmd", "Send") || is("IFrameCmd", "Send") {
        Control::KeyFrame
    } else if is("RecordCmd", "Record") {
        Control::Record(true)
    } else if is("RecordCmd", "StopRecord") {
        Control::Record(false)
    } else if is("GuardCmd", "SetGuard") {
        Control::Guard(true)
    } else if is("GuardCmd", "ResetGuard") {
        Control::Guard(false)
    } else if is("AlarmCmd", "ResetAlarm") {
        let info = |name| fields.get_in("Info", name).and_then(|t| t.parse::<u32>().ok());
        Control::ResetAlarm {
            method: info("AlarmMethod").and_then(|m| u8::try_from(m).ok()),
            alarm_type: info("AlarmType"),
        }
    } else if is("TeleBoot", "Boot") {
        Control::Reboot
    } else {
        return None;
    })
}

/// What can be made of the items, and how many it cannot be made of.
fn items<T>(document: &Document<'_>, read: impl Fn(&Record<'_>) -> Option<T>) -> (Vec<T>, u32) {
    let items: Vec<T> = document.items.iter().filter_map(read).collect();
    let lost = document.items.len() - items.len();
    let unreadable = u32::try_from(lost)
        .unwrap_or(u32::MAX)
        .saturating_add(document.items_over);
    (items, unreadable)
}

fn catalog_item(record: &Record<'_>) -> Option<CatalogItem> {
    let truth = |name| record.truth(name).or_else(|| record.number(name).map(|n: u32| n > 0));
    let parents = record.get("ParentID").unwrap_or_default().split('/');
    let ptz_type = record.get("PTZType").or_else(|| record.get_in("Info", "PTZType"));
    Some(CatalogItem {
        id: record.id("DeviceID")?,
        name: record.text("Name"),
        manufacturer: record.text("Manufacturer"),
        model: record.text("Model"),
        owner: record.text("Owner"),
        civil_code: record.text("CivilCode"),
        address: record.text("Address"),
        parental: truth("Parental"),
        parents: parents.filter_map(|id| DeviceId::parse(id).ok()).collect(),
        register_way: record.number("RegisterWay"),
        secrecy: truth("Secrecy"),
        status: record.get("Status").map_or(ItemStatus::Unknown, ItemStatus::parse),
        ip_address: record.text("IPAddress"),
        longitude: record.float("Longitude"),
        latitude: record.float("Latitude"),
        ptz_type: ptz_type.and_then(|t| t.parse().ok()),
    })
}

fn record_item(record: &Record<'_>) -> Option<RecordItem> {
    Some(RecordItem {
        device: record.id("DeviceID"),
        name: record.text("Name"),
        file_path: record.text("FilePath"),
        start: record.time("StartTime")?,
        end: record.time("EndTime")?,
        kind: record.get("Type").and_then(RecordKind::parse),
        recorder_id: record.text("RecorderID"),
        file_bytes: record.number("FileSize"),
    })
}
