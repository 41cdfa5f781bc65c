//! The messages, as types. How they look as XML is in `read` and `write`.

use std::fmt;

use super::{
    item::{CatalogChange, CatalogItem, RecordItem, RecordKind},
    time::LocalTime,
};
use crate::gb28181::{id::DeviceId, ptz::PtzCommand};

/// One MANSCDP body.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The command's serial number; a response carries that of what it answers. 0 where none could be read.
    pub sn: u32,
    /// Whom it asks, or who tells; `None` where none could be read (the dialogue knows the sender anyway).
    pub device: Option<DeviceId>,
    /// The rest.
    pub body: Body,
}

/// What a message is for, by its root element.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// `<Notify>`: tells something unasked.
    Notify(Notify),
    /// `<Query>`: asks, also in the body of SUBSCRIBE.
    Query(Query),
    /// `<Response>`: answers a query, a control or a notification.
    Response(Response),
    /// `<Control>`: has a device do something.
    Control(Control),
    /// What is not understood; kept so that it can be named.
    Other {
        /// The root element.
        root: String,
        /// `CmdType`; empty if there is none.
        cmd_type: String,
    },
}

/// The values of `CmdType` that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Command {
    Keepalive,
    Catalog,
    DeviceInfo,
    DeviceStatus,
    RecordInfo,
    Alarm,
    MobilePosition,
    MediaStatus,
    DeviceControl,
    DeviceConfig,
}

impl Command {
    const ALL: [Self; 10] = [
        Self::Keepalive,
        Self::Catalog,
        Self::DeviceInfo,
        Self::DeviceStatus,
        Self::RecordInfo,
        Self::Alarm,
        Self::MobilePosition,
        Self::MediaStatus,
        Self::DeviceControl,
        Self::DeviceConfig,
    ];

    /// As `CmdType` says it; read without regard to case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str().eq_ignore_ascii_case(text))
    }

    /// As `CmdType` says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keepalive => "Keepalive",
            Self::Catalog => "Catalog",
            Self::DeviceInfo => "DeviceInfo",
            Self::DeviceStatus => "DeviceStatus",
            Self::RecordInfo => "RecordInfo",
            Self::Alarm => "Alarm",
            Self::MobilePosition => "MobilePosition",
            Self::MediaStatus => "MediaStatus",
            Self::DeviceControl => "DeviceControl",
            Self::DeviceConfig => "DeviceConfig",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a device tells unasked.
#[derive(Debug, Clone, PartialEq)]
pub enum Notify {
    /// It is alive (A.2.5.2).
    Keepalive {
        /// Whether it says that it works as it should.
        ok: bool,
        /// Channels that it says do not work.
        faults: Vec<DeviceId>,
    },
    /// Something happened (A.2.5.3). Answered by [`Response::Result`] to [`Command::Alarm`]; behind method 2 a device stays silent until it gets
    /// [`Control::ResetAlarm`].
    Alarm(Alarm),
    /// Something about the media of the dialog that it comes in (A.2.5.4).
    MediaStatus {
        /// [`Notify::END_OF_FILE`] or another number.
        notify_type: Option<u32>,
    },
    /// Changes of the catalog, after SUBSCRIBE.
    Catalog {
        /// How many there are in all, over all messages.
        sum: Option<u32>,
        /// Those of this message.
        changes: Vec<CatalogChange>,
        /// How many more the message holds that name no device, or are more than [`ITEMS_MAX`](super::ITEMS_MAX).
        unreadable: u32,
    },
    /// Where a device is, after SUBSCRIBE (A.2.5.5).
    MobilePosition(Position),
}

impl Notify {
    /// The [`MediaStatus`](Self::MediaStatus) of a file that was sent to its end.
    pub const END_OF_FILE: u32 = 121;
}

/// An alarm (A.2.5.3). Devices leave out what they like.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Alarm {
    /// 1 (first, the gravest) to 4.
    pub priority: Option<u8>,
    /// 1 telephone, 2 device, 3 message, 4 GPS, 5 video, 6 device fault, 7 other.
    pub method: Option<u8>,
    /// When, by the device's clock.
    pub time: Option<LocalTime>,
    /// In words; empty if missing.
    pub description: String,
    /// Degrees east.
    pub longitude: Option<f64>,
    /// Degrees north.
    pub latitude: Option<f64>,
    /// `Info/AlarmType`: depends on the method (video: 2 motion, 6 line crossing ...).
    pub alarm_type: Option<u32>,
    /// `Info/AlarmTypeParam/EventType`: 1 enters, 2 leaves the region.
    pub event_type: Option<u32>,
}

impl Alarm {
    /// The [`method`](Self::method) of what a device itself found: inputs, a lost picture, a full disk.
    pub const BY_DEVICE: u8 = 2;
}

/// Where a device is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Position {
    /// When, by the device's clock.
    pub time: Option<LocalTime>,
    /// Degrees east.
    pub longitude: Option<f64>,
    /// Degrees north.
    pub latitude: Option<f64>,
    /// Kilometres per hour.
    pub speed: Option<f64>,
    /// Degrees clockwise from north.
    pub direction: Option<f64>,
    /// Metres.
    pub altitude: Option<f64>,
}

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// The channels, or in SUBSCRIBE their changes (A.2.4.3).
    Catalog {
        /// Only those that were added since.
        start: Option<LocalTime>,
        /// Only those that were added before.
        end: Option<LocalTime>,
    },
    /// Who made the device (A.2.4.4).
    DeviceInfo,
    /// How it is (A.2.4.2).
    DeviceStatus,
    /// What it has recorded (A.2.4.5).
    RecordInfo(RecordQuery),
    /// Its alarms, in SUBSCRIBE (A.2.4.6).
    Alarm(AlarmQuery),
    /// Where it is, in SUBSCRIBE (A.2.4.9).
    MobilePosition {
        /// Seconds between two reports; 5 by the standard if left out.
        interval_s: Option<u32>,
    },
}

/// What of the recordings is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordQuery {
    /// From here; sent in whole seconds, cut off.
    pub start: LocalTime,
    /// To here; sent in whole seconds, cut off.
    pub end: LocalTime,
    /// Why it was recorded; `None`: all.
    pub kind: Option<RecordKind>,
}

/// What alarms are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlarmQuery {
    /// The gravest, 1 to 4; `None`: all.
    pub priority_from: Option<u8>,
    /// The least grave, 1 to 4; `None`: all.
    pub priority_to: Option<u8>,
    /// `AlarmMethod`s as digits; `None`: all.
    pub method: Option<u8>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// A part of the catalog (A.2.6.5).
    Catalog {
        /// How many items there are in all, over all messages; `None` if the device does not say.
        sum: Option<u32>,
        /// Those of this message.
        items: Vec<CatalogItem>,
        /// How many more the message holds that name no channel, or are more than [`ITEMS_MAX`](super::ITEMS_MAX).
        unreadable: u32,
    },
    /// Who made the device (A.2.6.6).
    DeviceInfo(DeviceInfo),
    /// How it is (A.2.6.4).
    DeviceStatus(DeviceStatus),
    /// A part of the list of recordings (A.2.6.7).
    RecordInfo {
        /// The channel's name; empty if missing.
        name: String,
        /// How many items there are in all, over all messages; `None` if the device does not say.
        sum: Option<u32>,
        /// Those of this message.
        items: Vec<RecordItem>,
        /// How many more the message holds that have no times, or are more than [`ITEMS_MAX`](super::ITEMS_MAX).
        unreadable: u32,
    },
    /// Done, or not: the answer to controls, alarms and SUBSCRIBE, and of a device that refuses a query.
    Result {
        /// What is answered.
        to: Command,
        /// `OK`; everything else is an error.
        ok: bool,
    },
}

/// Who made a device; what it does not say is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct DeviceInfo {
    pub name: String,
    pub manufacturer: String,
    pub model: String,
    pub firmware: String,
    /// How many video inputs it says it has.
    pub channels: Option<u32>,
}

/// How a device is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceStatus {
    /// Whether it, or the channel that was asked for, is online.
    pub online: Option<bool>,
    /// Whether it works as it should.
    pub ok: Option<bool>,
    /// Why it does not; empty if it does not say.
    pub reason: String,
    /// Whether it encodes.
    pub encodes: Option<bool>,
    /// Whether it records.
    pub records: Option<bool>,
    /// Its clock.
    pub time: Option<LocalTime>,
}

/// What a device is to do (`DeviceControl`, A.2.3). Of those, [`Record`](Self::Record), [`Guard`](Self::Guard) and [`ResetAlarm`](Self::ResetAlarm)
/// are answered by [`Response::Result`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Move.
    Ptz(PtzCommand),
    /// Send a key frame now. Written under both of its names: `IFameCmd` until 2016, `IFrameCmd` from 2022 on.
    KeyFrame,
    /// Record (true), or stop recording.
    Record(bool),
    /// Arm (true), or disarm.
    Guard(bool),
    /// The alarm is dealt with; of the method, or of all.
    ResetAlarm {
        /// Which [`Alarm::method`]; `None`: all.
        method: Option<u8>,
        /// Which [`Alarm::alarm_type`]; `None`: all.
        alarm_type: Option<u32>,
    },
    /// Restart.
    Reboot,
}
