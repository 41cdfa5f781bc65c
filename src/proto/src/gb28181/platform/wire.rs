//! Connections, and what every message of ours has in common: Via, From, To, Contact, and the way it takes.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{
    Arrival, CommandError, ConnectionId, Moment, OfflineWhy, Platform, Purpose, Route, TRANSMITS_MAX, Timer, Transmit,
    USER_AGENT, guard::Bucket,
};
use crate::{
    gb28181::id::DeviceId,
    sip::{BODY_BYTES_MAX, Decoder, Headers, Method, Request, Response, TransactionId, Uri},
};

/// How many connections there may be. One more is closed at once, as are those of strangers over the two limits that follow.
const CONNECTIONS_MAX: usize = 8192;
/// How many of them may belong to nobody yet.
const STRANGERS_MAX: usize = 1024;
/// How many of those may come from one address.
const STRANGERS_PER_ADDRESS_MAX: usize = 256;
/// How long a connection may belong to nobody before it is closed: longer than devices wait to register again after a failure.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(90);
/// The largest body on a connection that belongs to nobody: a registration has none. A larger one closes the connection.
const STRANGER_BODY_BYTES_MAX: usize = 16 * 1024;

/// An address that registered devices send datagrams from.
pub(super) struct Peer {
    /// Several where a gateway speaks for them.
    pub devices: Vec<DeviceId>,
    pub bucket: Bucket,
}

/// A connection.
pub(super) struct Connection {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// Registered devices that use it.
    pub devices: Vec<DeviceId>,
    decoder: Decoder,
    bucket: Bucket,
}

/// How a device is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub route: Route,
    pub local: SocketAddr,
    pub peer: SocketAddr,
}

impl Platform {
    pub(super) fn on_connected(&mut self, now: Instant, id: ConnectionId, local: SocketAddr, peer: SocketAddr) {
        let strangers = self.connections.values().filter(|c| c.devices.is_empty());
        let (all, same) = strangers.fold((0, 0), |(all, same), c| {
            (all + 1, same + usize::from(c.peer.ip() == peer.ip()))
        });
        let full =
            self.connections.len() >= CONNECTIONS_MAX || all >= STRANGERS_MAX || same >= STRANGERS_PER_ADDRESS_MAX;
        if full || !self.sources.take(now, peer.ip()) {
            self.counters.connections_closed += 1;
            self.closings.push_back(id);
            return;
        }
        let connection = Connection {
            local,
            peer,
            devices: Vec::new(),
            decoder: Decoder::new(STRANGER_BODY_BYTES_MAX),
            bucket: Bucket::trusted(now),
        };
        self.connections.insert(id, connection);
        self.timers.set(Timer::Connection(id), Some(now + STRANGER_TIMEOUT));
    }

    pub(super) fn on_input(&mut self, at: Moment, id: ConnectionId, data: &mut BytesMut) {
        loop {
            let Some(connection) = self.connections.get_mut(&id) else {
                // What comes behind the end of a connection is nobody's.
                data.clear();
                return;
            };
            match connection.decoder.decode(data) {
                Ok(None) => return,
                Ok(Some(message)) => {
                    let arrival = Arrival {
                        at,
                        route: Route::Tcp(id),
                        local: connection.local,
                        peer: connection.peer,
                    };
                    let stranger = connection.devices.is_empty();
                    let room = connection.bucket.take(at.now);
                    let room = room && (!stranger || self.sources.take(at.now, arrival.peer.ip()));
                    match (room, stranger) {
                        (true, _) => self.on_message(&arrival, message),
                        (false, true) => {
                            self.counters.flooded += 1;
                            self.drop_connection(at, id);
                        }
                        (false, false) => self.counters.flooded += 1,
                    }
                }
                Err(_) => {
                    self.counters.malformed += 1;
                    self.drop_connection(at, id);
                }
            }
        }
    }

    /// Closes a connection from our side.
    pub(super) fn drop_connection(&mut self, at: Moment, id: ConnectionId) {
        if self.connections.contains_key(&id) {
            self.counters.connections_closed += 1;
            self.closings.push_back(id);
            self.on_closed(at, id);
        }
    }

    pub(super) fn on_closed(&mut self, at: Moment, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        self.timers.set(Timer::Connection(id), None);
        for device in connection.devices {
            self.go_offline(at, device, OfflineWhy::ConnectionLost);
        }
        let failed = self.transactions.fail(|route| *route == Route::Tcp(id));
        for purpose in failed {
            self.on_no_answer(at, purpose);
        }
    }

    /// A connection belongs to a device now.
    pub(super) fn own_connection(&mut self, id: ConnectionId, device: DeviceId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            if !connection.devices.contains(&device) {
                connection.devices.push(device);
            }
            connection.decoder.set_body_max(BODY_BYTES_MAX);
            self.timers.set(Timer::Connection(id), None);
        }
    }

    /// A connection belongs to a device no more; if to none, it is a stranger's again.
    pub(super) fn disown_connection(&mut self, now: Instant, id: ConnectionId, device: DeviceId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.devices.retain(|d| *d != device);
            if connection.devices.is_empty() {
                connection.decoder.set_body_max(STRANGER_BODY_BYTES_MAX);
                self.timers.set(Timer::Connection(id), Some(now + STRANGER_TIMEOUT));
            }
        }
    }

    /// The devices that are registered at the other end of a route.
    pub(super) fn devices_at(&self, route: Route) -> &[DeviceId] {
        let devices = match route {
            Route::Udp { peer, .. } => self.peers.get(&peer).map(|p| &p.devices),
            Route::Tcp(id) => self.connections.get(&id).map(|c| &c.devices),
        };
        devices.map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn transmit(&mut self, route: Route, data: Bytes) {
        let gone = matches!(route, Route::Tcp(id) if !self.connections.contains_key(&id));
        if !gone && self.transmits.len() < TRANSMITS_MAX {
            self.transmits.push_back(Transmit { route, data });
        }
    }

    /// Answers a request. With `key` the answer is kept, for the same request may come again.
    pub(super) fn respond(&mut self, arrival: &Arrival, response: &Response, key: Option<u64>) {
        let data = response.to_bytes();
        if let (Some(key), Route::Udp { .. }) = (key, arrival.route) {
            self.responses.put(arrival.at.now, key, data.clone());
        }
        self.transmit(arrival.route, data);
    }

    /// A response that says no more than its code.
    pub(super) fn plain(&mut self, arrival: &Arrival, request: &Request, status: u16) -> Response {
        let tag = self.random.word();
        request.response(status, arrival.peer, &tag)
    }

    /// The address that a device is told.
    pub(super) fn own_address(&self, local: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.own_ip(local), local.port())
    }

    pub(super) fn own_ip(&self, local: SocketAddr) -> IpAddr {
        self.config.announce.unwrap_or(local.ip())
    }

    /// Our Contact.
    pub(super) fn contact(&self, way: Way) -> String {
        let own = self.own_address(way.local);
        let transport = if matches!(way.route, Route::Tcp(_)) {
            ";transport=tcp"
        } else {
            ""
        };
        format!("<sip:{}@{own}{transport}>", self.config.id)
    }

    /// A request outside of any dialog, without Via.
    pub(super) fn new_request(&mut self, way: Way, method: Method, target: DeviceId) -> Request {
        let uri = Uri {
            user: target.to_string(),
            host: way.peer.ip().to_string(),
            port: Some(way.peer.port()),
        };
        let cseq = format!("1 {method}");
        let domain = if target.is_standard() {
            target.domain()
        } else {
            &self.config.domain
        };
        let to = format!("<sip:{target}@{domain}>");
        let from = format!(
            "<sip:{}@{}>;tag={}",
            self.config.id,
            self.config.domain,
            self.random.word()
        );
        let call_id = format!("{}{}", self.random.word(), self.random.word());
        Request::new(method, uri.to_string())
            .with("From", from)
            .with("To", to)
            .with("Call-ID", call_id)
            .with("CSeq", cseq)
            .with("Max-Forwards", "70")
            .with("User-Agent", USER_AGENT)
    }

    /// Puts our Via on top of a request.
    pub(super) fn stamp(&mut self, way: Way, request: &mut Request) -> TransactionId {
        let id = TransactionId::new(self.random.number());
        let own = self.own_address(way.local);
        let protocol = if matches!(way.route, Route::Tcp(_)) {
            "TCP"
        } else {
            "UDP"
        };
        let mut headers = Headers::new();
        headers.push("Via", format!("SIP/2.0/{protocol} {own};rport;branch={id}"));
        for (name, value) in request.headers.iter() {
            headers.push(name.to_owned(), value);
        }
        request.headers = headers;
        id
    }

    /// Sends a request and waits for its answer. The request has its Via afterwards.
    pub(super) fn send(
        &mut self,
        now: Instant,
        way: Way,
        request: &mut Request,
        purpose: Purpose,
    ) -> Result<TransactionId, CommandError> {
        let id = self.stamp(way, request);
        let reliable = matches!(way.route, Route::Tcp(_));
        let data = self
            .transactions
            .start(now, id, request, way.route, reliable, purpose)
            .map_err(|_| CommandError::Busy("SIP requests"))?;
        self.transmit(way.route, data);
        Ok(id)
    }

    /// The way to a device that is online.
    pub(super) fn way(&self, device: DeviceId) -> Result<Way, CommandError> {
        let entry = self.devices.get(&device).ok_or(CommandError::Unknown(device))?;
        match entry.route {
            Some(route) if entry.view.online => Ok(Way {
                route,
                local: entry.local,
                peer: entry.view.peer,
            }),
            _ => Err(CommandError::Offline(device)),
        }
    }
}
