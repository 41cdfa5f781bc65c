//! Who is there: routes to devices, online and offline, and what is asked of a device once it is there.

use std::time::Duration;

use super::{
    Arrival, DEVICES_MAX, Event, KnownDevice, Moment, OfflineWhy, Platform, Query, Route, SipTransport, Timer,
    device::Entry, guard::Bucket, wire::Peer,
};
use crate::{auth::ONE_TIME_NONCE_LIFETIME, gb28181::id::DeviceId};

/// The least time between two rounds of questions to a device: some register again every minute.
const ASK_INTERVAL: Duration = Duration::from_secs(60);
/// How long after those the subscriptions follow: devices that are just starting get one thing after the other.
const SUBSCRIBE_DELAY: Duration = Duration::from_secs(5);

impl Platform {
    pub(super) fn restore_device(&mut self, at: Moment, known: KnownDevice) {
        let id = known.id;
        let transport = known.transport;
        let entry = Entry::restored(at.now, at.wall, known);
        let route = Route::Udp {
            local: entry.local,
            peer: entry.view.peer,
        };
        let online = transport == SipTransport::Udp && entry.registered_until.is_some();
        self.devices.insert(id, entry);
        if online {
            self.set_route(at, id, route);
            self.go_online(at, id);
        }
        self.rearm(id);
    }

    /// Makes room for one more device. An entry is kept while a nonce of its last login could still be answered again.
    pub(super) fn has_room(&mut self, at: Moment) -> bool {
        if self.devices.len() < DEVICES_MAX {
            return true;
        }
        let quiet = |e: &&Entry| {
            !e.view.online
                && e.registered_until.is_none()
                && at.now.saturating_duration_since(e.seen_at) > ONE_TIME_NONCE_LIFETIME
                && !self.accounts.contains_key(&e.view.id)
        };
        let oldest = self
            .devices
            .values()
            .filter(quiet)
            .min_by_key(|e| e.view.since)
            .map(|e| e.view.id);
        if let Some(id) = oldest {
            self.devices.remove(&id);
            self.timers.set(Timer::Device(id), None);
        }
        oldest.is_some()
    }

    /// Sends what is for a device another way from now on.
    pub(super) fn set_route(&mut self, at: Moment, id: DeviceId, route: Route) {
        self.clear_route(at, id);
        match route {
            Route::Udp { peer, .. } => {
                let known = self.peers.entry(peer).or_insert_with(|| Peer {
                    devices: Vec::new(),
                    bucket: Bucket::trusted(at.now),
                });
                known.devices.push(id);
            }
            Route::Tcp(connection) => self.own_connection(connection, id),
        }
        if let Some(entry) = self.devices.get_mut(&id) {
            entry.route = Some(route);
        }
    }

    pub(super) fn clear_route(&mut self, at: Moment, id: DeviceId) {
        let route = self.devices.get_mut(&id).and_then(|e| e.route.take());
        match route {
            Some(Route::Udp { peer, .. }) => {
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.devices.retain(|d| *d != id);
                    if known.devices.is_empty() {
                        self.peers.remove(&peer);
                    }
                }
            }
            Some(Route::Tcp(connection)) => self.disown_connection(at.now, connection, id),
            None => {}
        }
    }

    /// Follows a device to the address that it speaks from now. Tells whether that is another one.
    pub(super) fn follow(&mut self, arrival: &Arrival, id: DeviceId) -> bool {
        let Some(entry) = self.devices.get_mut(&id) else {
            return false;
        };
        if entry.route == Some(arrival.route) {
            return false;
        }
        entry.local = arrival.local;
        entry.view.peer = arrival.peer;
        entry.view.transport = match arrival.route {
            Route::Udp { .. } => SipTransport::Udp,
            Route::Tcp(_) => SipTransport::Tcp,
        };
        self.set_route(arrival.at, id, arrival.route);
        true
    }

    /// A registered device has given a sign of life.
    pub(super) fn alive(&mut self, at: Moment, id: DeviceId) {
        let Some(entry) = self.devices.get_mut(&id) else {
            return;
        };
        entry.seen_at = at.now;
        entry.view.last_seen = at.wall;
        if !entry.view.online && entry.route.is_some() && entry.registered_until.is_some() {
            self.go_online(at, id);
        }
    }

    pub(super) fn go_online(&mut self, at: Moment, id: DeviceId) {
        let Some(entry) = self.devices.get_mut(&id) else {
            return;
        };
        entry.view.online = true;
        entry.view.since = at.wall;
        entry.seen_at = at.now;
        entry.subscriptions.reset();
        entry.view.subscribed = false;
        self.events.push_back(Event::Online(id));
        self.events.push_back(Event::Persist);
        self.ask_soon(at, id);
    }

    /// Asks a device about itself and its channels, as soon as it may be asked again.
    pub(super) fn ask_soon(&mut self, at: Moment, id: DeviceId) {
        if let Some(entry) = self.devices.get_mut(&id) {
            let earliest = entry.asked_at.map_or(at.now, |asked| asked + ASK_INTERVAL);
            entry.ask_at = Some(earliest.max(at.now));
        }
        self.rearm(id);
    }

    pub(super) fn go_offline(&mut self, at: Moment, id: DeviceId, why: OfflineWhy) {
        let Some(entry) = self.devices.get_mut(&id) else {
            return;
        };
        let was_online = std::mem::replace(&mut entry.view.online, false);
        entry.ask_at = None;
        entry.catalog.next = None;
        entry.catalog.query = None;
        entry.subscriptions.reset();
        entry.view.subscribed = false;
        let route = entry.route;
        if matches!(why, OfflineWhy::Unregistered | OfflineWhy::Expired) {
            entry.registered_until = None;
        }
        if was_online {
            entry.view.since = at.wall;
        }
        match (why, route) {
            // The address is still the best guess, and messages from it are still the device's.
            (OfflineWhy::Silent, Some(Route::Udp { .. })) => {}
            (OfflineWhy::Silent, Some(Route::Tcp(connection))) => {
                self.clear_route(at, id);
                if self.devices_at(Route::Tcp(connection)).is_empty() {
                    self.drop_connection(at, connection);
                }
            }
            _ => self.clear_route(at, id),
        }
        if was_online {
            self.events.push_back(Event::Offline { device: id, why });
            self.events.push_back(Event::Persist);
        }
        self.fail_queries(id, "the device went offline");
        if why == OfflineWhy::Unregistered {
            self.end_sessions_of(id);
        }
        self.rearm(id);
    }

    pub(super) fn on_device_timer(&mut self, at: Moment, id: DeviceId) {
        let Some(entry) = self.devices.get(&id) else {
            return;
        };
        if entry.registered_until.is_some_and(|until| until <= at.now) {
            self.go_offline(at, id, OfflineWhy::Expired);
            return;
        }
        if entry.view.online && entry.silent_at() <= at.now {
            self.go_offline(at, id, OfflineWhy::Silent);
            return;
        }
        if let Some(entry) = self.devices.get_mut(&id)
            && entry.ask_at.take_if(|ask| *ask <= at.now).is_some()
        {
            entry.asked_at = Some(at.now);
            entry.catalog.next = Some(at.now);
            entry.catalog.failures = 0;
            entry.subscriptions.begin(at.now + SUBSCRIBE_DELAY);
            // Whether it says what it is, is not worth an error: the next round asks again.
            let _ = self.start_query(at.now, id, id, Query::DeviceInfo, true);
        }
        self.work_on_catalog(at.now, id);
        self.work_on_subscriptions(at.now, id);
        self.rearm(id);
    }

    /// Sets a device's timer to whatever comes first.
    pub(super) fn rearm(&mut self, id: DeviceId) {
        let Some(entry) = self.devices.get(&id) else {
            return;
        };
        let online = entry.view.online;
        let next = [
            entry.registered_until,
            online.then(|| entry.silent_at()),
            entry.ask_at.filter(|_| online),
            entry.catalog.next.filter(|_| online && entry.catalog.query.is_none()),
            entry.subscriptions.next().filter(|_| online),
        ];
        self.timers.set(Timer::Device(id), next.into_iter().flatten().min());
    }
}
