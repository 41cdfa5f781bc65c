//! The items of lists: channels of a catalog, recordings.

use super::time::LocalTime;
use crate::gb28181::id::DeviceId;

/// A channel, device, group or region of a catalog (A.2.1.3). What the device does not say is empty or `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogItem {
    /// Its identity.
    pub id: DeviceId,
    /// For people.
    pub name: String,
    /// Who made it.
    pub manufacturer: String,
    /// Its model.
    pub model: String,
    /// Whose it is.
    pub owner: String,
    /// Administrative region.
    pub civil_code: String,
    /// Where it hangs.
    pub address: String,
    /// Whether it has items below it.
    pub parental: Option<bool>,
    /// Above it; several where it stands in several trees.
    pub parents: Vec<DeviceId>,
    /// 1 as in RFC 3261, 2 by password, 3 by certificate.
    pub register_way: Option<u8>,
    /// Whether it is secret.
    pub secrecy: Option<bool>,
    /// Whether it can be asked for pictures now.
    pub status: ItemStatus,
    /// Its own address, if the device says it; for people, not to be dialled.
    pub ip_address: String,
    /// Degrees east.
    pub longitude: Option<f64>,
    /// Degrees north.
    pub latitude: Option<f64>,
    /// `Info/PTZType`: 1 dome, 2 hemisphere, 3 fixed, 4 fixed with remote control, and more since 2022.
    pub ptz_type: Option<u8>,
}

impl CatalogItem {
    /// An item of which nothing is known but its identity.
    pub const fn new(id: DeviceId) -> Self {
        Self {
            id,
            name: String::new(),
            manufacturer: String::new(),
            model: String::new(),
            owner: String::new(),
            civil_code: String::new(),
            address: String::new(),
            parental: None,
            parents: Vec::new(),
            register_way: None,
            secrecy: None,
            status: ItemStatus::Unknown,
            ip_address: String::new(),
            longitude: None,
            latitude: None,
            ptz_type: None,
        }
    }
}

/// Whether an item works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ItemStatus {
    /// `ON`, also `OK`, `ONLINE`, `1`.
    On,
    /// `OFF`, also `OFFLINE`, `0`, `VLOST`, `DEFECT`.
    Off,
    /// Nothing, or something else.
    #[default]
    Unknown,
}

impl ItemStatus {
    /// As devices say it.
    pub fn parse(text: &str) -> Self {
        let is = |words: &[&str]| words.iter().any(|w| w.eq_ignore_ascii_case(text));
        if is(&["ON", "OK", "ONLINE", "1"]) {
            Self::On
        } else if is(&["OFF", "OFFLINE", "0", "VLOST", "DEFECT"]) {
            Self::Off
        } else {
            Self::Unknown
        }
    }
}

/// What happened to an item (A.2.5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CatalogEvent {
    /// It came online.
    On,
    /// It went offline.
    Off,
    /// Its picture was lost.
    VideoLost,
    /// It broke.
    Defect,
    /// It is new.
    Add,
    /// It is gone.
    Delete,
    /// Something about it changed.
    Update,
}

impl CatalogEvent {
    const ALL: [Self; 7] = [
        Self::On,
        Self::Off,
        Self::VideoLost,
        Self::Defect,
        Self::Add,
        Self::Delete,
        Self::Update,
    ];

    /// As `Event` says it; read without regard to case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.as_str().eq_ignore_ascii_case(text))
    }

    /// As `Event` says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "ON",
            Self::Off => "OFF",
            Self::VideoLost => "VLOST",
            Self::Defect => "DEFECT",
            Self::Add => "ADD",
            Self::Delete => "DEL",
            Self::Update => "UPDATE",
        }
    }
}

/// One change of a catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogChange {
    /// What happened; `None` where the device does not say, or something unknown: the item is as it stands here.
    pub event: Option<CatalogEvent>,
    /// The item; for [`Add`](CatalogEvent::Add) and [`Update`](CatalogEvent::Update) in full, else its identity at least.
    pub item: CatalogItem,
}

/// A recording that a device has (A.2.1.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordItem {
    /// The channel; `None` where the item does not say (then that of the message).
    pub device: Option<DeviceId>,
    /// For people.
    pub name: String,
    /// A name for it on the device; never a path of ours.
    pub file_path: String,
    /// First picture, by the device's clock.
    pub start: LocalTime,
    /// Last picture, by the device's clock.
    pub end: LocalTime,
    /// Why it was recorded; `None` if the device does not say, or something unknown.
    pub kind: Option<RecordKind>,
    /// Who started it; empty if missing.
    pub recorder_id: String,
    /// In bytes.
    pub file_bytes: Option<u64>,
}

/// Why something was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// By schedule.
    Time,
    /// By an alarm.
    Alarm,
    /// By hand.
    Manual,
}

impl RecordKind {
    /// As `Type` says it; read without regard to case. `None` also for `all`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Time, Self::Alarm, Self::Manual]
            .into_iter()
            .find(|k| k.as_str().eq_ignore_ascii_case(text))
    }

    /// As `Type` says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Alarm => "alarm",
            Self::Manual => "manual",
        }
    }
}
