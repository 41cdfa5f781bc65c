//! What the platform keeps of one device: the part that is shown, and the part that the machine works with.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use corenvr_media::WallTime;

use super::{
    CatalogState, Channel, Device, KnownDevice, QueryId, Route, SipTransport, guard::Bucket, registrar::EXPIRES_MAX,
    subscriptions::Subscriptions,
};
use crate::gb28181::{
    id::DeviceId,
    manscdp::{CatalogItem, ItemStatus},
};

/// How often a device is expected to give a sign of life, if it has not shown a longer interval itself.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
/// The longest interval that is believed of a device.
pub const KEEPALIVE_INTERVAL_MAX: Duration = Duration::from_secs(300);
/// How many intervals without a sign of life make a device offline.
pub const KEEPALIVES_MISSED: u32 = 3;

/// One device.
pub(super) struct Entry {
    pub view: Device,
    /// The way to it; `None` while it has no connection.
    pub route: Option<Route>,
    /// Which of our addresses it speaks to.
    pub local: SocketAddr,
    /// Call-ID of its registration; a device that restarts has another one.
    pub call_id: String,
    /// Until when its registration holds; `None`: it has none.
    pub registered_until: Option<Instant>,
    /// The last one-time nonce that it has proved itself with.
    pub nonce: Option<u128>,
    pub seen_at: Instant,
    pub keepalive_at: Option<Instant>,
    /// Between its keepalives.
    pub interval: Duration,
    /// When it was asked about itself last.
    pub asked_at: Option<Instant>,
    /// When it is to be asked about itself next.
    pub ask_at: Option<Instant>,
    pub catalog: CatalogWork,
    pub subscriptions: Subscriptions,
    /// Room for acknowledgements of its alarms.
    pub alarms: Bucket,
}

/// The work of knowing a device's channels.
#[derive(Default)]
pub(super) struct CatalogWork {
    /// The question that is under way by itself.
    pub query: Option<QueryId>,
    /// When to ask next.
    pub next: Option<Instant>,
    /// How often in a row there was no usable answer.
    pub failures: u32,
    /// The serial number of the last question: parts that come late belong to it.
    pub last_sn: u32,
}

impl Entry {
    pub(super) fn new(now: Instant, wall: WallTime, id: DeviceId, local: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            view: Device {
                id,
                online: false,
                since: wall,
                peer,
                transport: SipTransport::Udp,
                username: None,
                expires: wall,
                last_seen: wall,
                last_keepalive: None,
                version: None,
                user_agent: None,
                manufacturer: None,
                model: None,
                firmware: None,
                name: None,
                channels: Vec::new(),
                catalog: CatalogState::default(),
                subscribed: false,
            },
            route: None,
            local,
            call_id: String::new(),
            registered_until: None,
            nonce: None,
            seen_at: now,
            keepalive_at: None,
            interval: KEEPALIVE_INTERVAL,
            asked_at: None,
            ask_at: None,
            catalog: CatalogWork::default(),
            subscriptions: Subscriptions::default(),
            alarms: Bucket::alarms(now),
        }
    }

    /// When it counts as offline unless it is heard of.
    pub(super) fn silent_at(&self) -> Instant {
        self.seen_at + self.interval * KEEPALIVES_MISSED
    }

    /// Notes a keepalive and learns the device's interval.
    pub(super) fn keepalive(&mut self, now: Instant, wall: WallTime) {
        if let Some(last) = self.keepalive_at {
            let interval = now.saturating_duration_since(last);
            // One that was missed or came twice says nothing of the interval.
            if interval <= KEEPALIVE_INTERVAL_MAX {
                self.interval = interval.max(KEEPALIVE_INTERVAL);
            }
        }
        self.keepalive_at = Some(now);
        self.view.last_keepalive = Some(wall);
    }

    pub(super) fn known(&self) -> KnownDevice {
        let view = &self.view;
        let expires = if self.registered_until.is_some() {
            view.expires
        } else {
            WallTime::MIN
        };
        KnownDevice {
            id: view.id,
            transport: view.transport,
            peer: view.peer,
            local: self.local,
            expires_ms: expires.as_millis(),
            call_id: self.call_id.clone(),
            username: view.username.clone(),
            version: view.version.clone(),
            user_agent: view.user_agent.clone(),
            manufacturer: view.manufacturer.clone(),
            model: view.model.clone(),
            firmware: view.firmware.clone(),
            name: view.name.clone(),
            channels: view.channels.clone(),
        }
    }

    pub(super) fn restored(now: Instant, wall: WallTime, known: KnownDevice) -> Self {
        let mut entry = Self::new(now, wall, known.id, known.local, known.peer);
        entry.call_id = known.call_id;
        let view = &mut entry.view;
        view.transport = known.transport;
        view.expires = WallTime::from_millis(known.expires_ms);
        view.username = known.username;
        view.version = known.version;
        view.user_agent = known.user_agent;
        view.manufacturer = known.manufacturer;
        view.model = known.model;
        view.firmware = known.firmware;
        view.name = known.name;
        view.channels = known.channels;
        let left = view.expires.saturating_since(wall).min(EXPIRES_MAX);
        if !left.is_zero() {
            entry.registered_until = Some(now + left);
        }
        entry
    }
}

impl From<CatalogItem> for Channel {
    fn from(item: CatalogItem) -> Self {
        Self {
            id: item.id,
            name: item.name,
            manufacturer: item.manufacturer,
            model: item.model,
            parent: item.parents.first().copied(),
            parental: item.parental == Some(true),
            online: match item.status {
                ItemStatus::On => Some(true),
                ItemStatus::Off => Some(false),
                ItemStatus::Unknown => None,
            },
        }
    }
}
