//! Devices as they are shown to people: plain data, ready to be printed as JSON.

use std::net::SocketAddr;

use corenvr_media::WallTime;
use corenvr_proto::gb28181::{
    id::DeviceId,
    platform::{CatalogState, Device, Refused, SipTransport},
};
use serde::Serialize;

/// A device that has registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceView {
    /// Its identity.
    pub id: DeviceId,
    /// Whether it is reached at present.
    pub online: bool,
    /// Since when it has been so.
    pub since: WallTime,
    /// Where its messages come from.
    pub address: SocketAddr,
    /// `udp` or `tcp`.
    pub transport: SipTransport,
    /// The version of the standard that it names.
    pub version: Option<String>,
    /// Manufacturer, model, firmware and name, as it says.
    pub manufacturer: Option<String>,
    #[allow(missing_docs)]
    pub model: Option<String>,
    #[allow(missing_docs)]
    pub firmware: Option<String>,
    #[allow(missing_docs)]
    pub name: Option<String>,
    /// Its last sign of life.
    pub last_seen: WallTime,
    /// Until when it is registered.
    pub expires: WallTime,
    /// How far its channels are known: `unasked`, `asked`, `partial 3 of 16`, `complete`, `silent`.
    pub catalog: String,
    /// Its channels.
    pub channels: Vec<ChannelView>,
}

/// One entry of a catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChannelView {
    /// Its identity.
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// Whether it is a camera, and not a group or an input.
    pub camera: bool,
    /// Whether the device says that it works; absent where it says nothing.
    pub online: Option<bool>,
}

/// Somebody who asked to be let in and was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedView {
    /// Who it said it was.
    pub id: DeviceId,
    /// Where it called from last.
    pub address: SocketAddr,
    /// First and last time, and how often.
    pub first: WallTime,
    #[allow(missing_docs)]
    pub last: WallTime,
    #[allow(missing_docs)]
    pub count: u64,
    /// Why, in words.
    pub why: String,
}

impl From<&Device> for DeviceView {
    fn from(d: &Device) -> Self {
        let channel = |c: &corenvr_proto::gb28181::platform::Channel| ChannelView {
            id: c.id,
            name: c.name.clone(),
            camera: c.is_camera(),
            online: c.online,
        };
        Self {
            id: d.id,
            online: d.online,
            since: d.since,
            address: d.peer,
            transport: d.transport,
            version: d.version.clone(),
            manufacturer: d.manufacturer.clone(),
            model: d.model.clone(),
            firmware: d.firmware.clone(),
            name: d.name.clone(),
            last_seen: d.last_seen,
            expires: d.expires,
            catalog: match d.catalog {
                CatalogState::Unasked => "unasked".into(),
                CatalogState::Asked => "asked".into(),
                CatalogState::Partial { received, announced } => format!("partial {received} of {announced}"),
                CatalogState::Complete => "complete".into(),
                CatalogState::Silent => "silent".into(),
            },
            channels: d.channels.iter().map(channel).collect(),
        }
    }
}

impl From<&Refused> for RefusedView {
    fn from(r: &Refused) -> Self {
        Self {
            id: r.id,
            address: r.peer,
            first: r.first,
            last: r.last,
            count: r.count,
            why: r.why.to_string(),
        }
    }
}
