//! The SIP server side of GB28181 as one state machine: registration, presence, catalogs, invitations, alarms.
//!
//! A driver moves datagrams and connections in and out and turns the commands of the recorder into calls. What the bodies
//! mean is in the neighbouring modules, what SIP is in [`crate::sip`].

mod device;
mod guard;
mod presence;
mod queries;
mod random;
mod registrar;
mod requests;
mod sessions;
mod subscriptions;
mod types;
mod wire;

pub mod fuzzing;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    time::Instant,
};

use bytes::BytesMut;
use corenvr_media::WallTime;
use jiff::tz::{Offset, TimeZone};

pub use device::{KEEPALIVE_INTERVAL, KEEPALIVE_INTERVAL_MAX, KEEPALIVES_MISSED};
pub use sessions::{ANSWER_TIMEOUT, MEDIA_STATUS_BYE_DELAY};
pub use types::{
    Accounts, CatalogState, Channel, CommandError, ConnectionId, Counters, Device, DialogId, EndedWhy, Event, Invite,
    KnownDevice, OfflineWhy, PlatformConfig, Query, QueryId, QueryResult, Refused, RefusedWhy, Route, SipTransport,
    Transmit, UnknownDevices,
};

use device::Entry;
use guard::{RefusedTable, Sources};
use queries::PendingQuery;
use random::Random;
use sessions::Session;
use subscriptions::Package;
use wire::{Connection, Peer};

use super::{
    id::DeviceId,
    manscdp::{self, Control},
    mansrtsp,
};
use crate::{
    auth::OneTimeVerifier,
    sip::{ClientTransactions, Message, Responses, Timers, parse_datagram, transaction::Due},
};

/// How many devices are known at a time. At the limit the unconfigured one that has been offline longest is forgotten; if there is
/// none, the new one is refused.
pub const DEVICES_MAX: usize = 10_000;
/// How many channels are kept of a device; further ones are left out, and the catalog never counts as complete.
pub const CHANNELS_MAX: usize = manscdp::ITEMS_MAX;
/// How many sessions there may be. One more is refused: [`CommandError::Busy`].
pub const SESSIONS_MAX: usize = 4096;
/// How many questions to one device may wait for an answer. One more is refused: [`CommandError::Busy`].
pub const QUERIES_PER_DEVICE_MAX: usize = 16;
/// How many messages may wait to be sent. At the limit further ones are dropped, as a network would.
pub const TRANSMITS_MAX: usize = 65_536;

/// What the platform's software calls itself.
const USER_AGENT: &str = "corenvr";
/// The version of the standard that is spoken (`X-GB-Ver`): 2016. Our offers number H.265 as that one does, and devices of 2022 know both.
const STANDARD_VERSION: &str = "2.0";

/// The same moment on the clock that only runs and on the one that people read.
#[derive(Debug, Clone, Copy)]
struct Moment {
    now: Instant,
    wall: WallTime,
}

/// Where a message has come from.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    at: Moment,
    route: Route,
    local: SocketAddr,
    peer: SocketAddr,
}

/// What one of our requests is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Nobody waits for the outcome.
    Nothing,
    Query(QueryId),
    Invite(DialogId),
    Bye(DialogId),
    Info(DialogId),
    Subscribe(DeviceId, Package),
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// A sign of life, the end of the registration, or the next question to a device.
    Device(DeviceId),
    /// A connection that belongs to nobody.
    Connection(ConnectionId),
    /// The next part of an answer.
    Query(QueryId),
    /// The answer to an INVITE, or the BYE after the end.
    Session(DialogId),
}

/// The platform's machine. After every call the driver polls transmissions, closings and events until there are none, and
/// calls [`Self::handle_timeout`] at [`Self::poll_timeout`].
///
/// Who a device is depends on its registration, which its password proves. Until that ends, its messages are taken from the address
/// that it registered from, whatever the port (address translators change it): from another address it must register again.
pub struct Platform {
    config: PlatformConfig,
    zone: TimeZone,
    accounts: Accounts,
    random: Random,
    verifier: OneTimeVerifier,
    devices: BTreeMap<DeviceId, Entry>,
    /// Addresses of registered devices that use UDP.
    peers: HashMap<SocketAddr, Peer>,
    connections: HashMap<ConnectionId, Connection>,
    sources: Sources,
    refused: RefusedTable,
    counters: Counters,
    transactions: ClientTransactions<Route, Purpose>,
    responses: Responses,
    timers: Timers<Timer>,
    queries: HashMap<QueryId, PendingQuery>,
    sessions: BTreeMap<DialogId, Session>,
    /// Sessions by Call-ID.
    calls: HashMap<String, DialogId>,
    last_id: u64,
    last_sn: u32,
    last_serial: u16,
    transmits: VecDeque<Transmit>,
    closings: VecDeque<ConnectionId>,
    events: VecDeque<Event>,
}

impl Platform {
    /// A platform without devices. `random` must be random: tags, branches and nonces come from it.
    pub fn new(now: Instant, config: PlatformConfig, random: [u8; 32]) -> Self {
        let mut random = Random::new(random);
        let offset = Offset::from_seconds(config.utc_offset_s).unwrap_or(Offset::UTC);
        Self {
            zone: TimeZone::fixed(offset),
            accounts: Accounts::new(),
            verifier: OneTimeVerifier::new(config.domain.clone(), random.bytes(), now),
            devices: BTreeMap::new(),
            peers: HashMap::new(),
            connections: HashMap::new(),
            sources: Sources::new(now),
            refused: RefusedTable::default(),
            counters: Counters::default(),
            transactions: ClientTransactions::new(),
            responses: Responses::new(),
            timers: Timers::new(),
            queries: HashMap::new(),
            sessions: BTreeMap::new(),
            calls: HashMap::new(),
            last_id: 0,
            // Late answers to questions of an earlier run are not taken for answers to those of this one.
            last_sn: random.number() as u32 % 1_000_000_000,
            last_serial: random.number() as u16,
            transmits: VecDeque::new(),
            closings: VecDeque::new(),
            events: VecDeque::new(),
            random,
            config,
        }
    }

    /// The configured devices, which may register whatever [`UnknownDevices`] says. Replaces those of before. One that is left out
    /// stays registered until it registers the next time.
    pub fn set_accounts(&mut self, accounts: Accounts) {
        self.accounts = accounts;
    }

    /// Takes up where [`Self::known`] left off; before the first input. Devices that use UDP are online again at once, since they
    /// believe themselves registered; those that use TCP as soon as they connect.
    pub fn restore(&mut self, now: Instant, wall: WallTime, devices: Vec<KnownDevice>) {
        let at = Moment { now, wall };
        for known in devices.into_iter().take(DEVICES_MAX) {
            self.restore_device(at, known);
        }
    }

    /// The devices to be remembered over a restart.
    pub fn known(&self) -> Vec<KnownDevice> {
        self.devices.values().map(Entry::known).collect()
    }

    /// Takes a datagram. `local` is the address that it came to, never an unspecified one.
    pub fn datagram(&mut self, now: Instant, wall: WallTime, local: SocketAddr, peer: SocketAddr, data: &[u8]) {
        let trusted = match self.peers.get_mut(&peer) {
            Some(known) => known.bucket.take(now),
            None => self.sources.take(now, peer.ip()),
        };
        if !trusted {
            self.counters.flooded += 1;
            return;
        }
        let arrival = Arrival {
            at: Moment { now, wall },
            route: Route::Udp { local, peer },
            local,
            peer,
        };
        match parse_datagram(data) {
            Ok(Some(message)) => self.on_message(&arrival, message),
            Ok(None) => {}
            Err(_) => self.counters.malformed += 1,
        }
    }

    /// A device has opened a connection. If it is one too many, [`Self::poll_close`] names it at once.
    pub fn connected(&mut self, now: Instant, id: ConnectionId, local: SocketAddr, peer: SocketAddr) {
        self.on_connected(now, id, local, peer);
    }

    /// Takes what has arrived over a connection; bytes of an incomplete message stay in `data`.
    pub fn input(&mut self, now: Instant, wall: WallTime, id: ConnectionId, data: &mut BytesMut) {
        self.on_input(Moment { now, wall }, id, data);
    }

    /// A connection is closed, by the device or by the driver (after [`Self::poll_close`] too, or not: both is fine).
    pub fn closed(&mut self, now: Instant, wall: WallTime, id: ConnectionId) {
        self.on_closed(Moment { now, wall }, id);
    }

    /// Does what was due at [`Self::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant, wall: WallTime) {
        let at = Moment { now, wall };
        while let Some(due) = self.transactions.poll_due(now) {
            match due {
                Due::Resend(route, data) => self.transmit(route, data),
                Due::TimedOut(purpose) => self.on_no_answer(at, purpose),
            }
        }
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Device(id) => self.on_device_timer(at, id),
                Timer::Connection(id) => self.drop_connection(at, id),
                Timer::Query(id) => self.on_query_idle(at, id),
                Timer::Session(id) => self.on_session_timer(now, id),
            }
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.next(), self.transactions.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next connection to close, after what was polled for it before has been sent.
    pub fn poll_close(&mut self) -> Option<ConnectionId> {
        self.closings.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Asks for media. Ends in [`Event::Answered`] or [`Event::InviteFailed`].
    pub fn invite(&mut self, now: Instant, invite: Invite) -> Result<DialogId, CommandError> {
        self.start_session(now, invite)
    }

    /// Ends a session, or takes back an INVITE that has no answer yet. No event of this dialog follows. Unknown ones are ignored.
    pub fn bye(&mut self, now: Instant, dialog: DialogId) {
        self.end_session(now, dialog);
    }

    /// Steers a Playback or Download: pause, resume, scale, seek, stop. Ends in [`Event::InfoAnswered`].
    pub fn info(&mut self, now: Instant, dialog: DialogId, action: mansrtsp::Action) -> Result<(), CommandError> {
        self.send_info(now, dialog, action)
    }

    /// Asks a device about itself or one of its channels (`target`). Ends in [`Event::QueryDone`].
    pub fn query(
        &mut self,
        now: Instant,
        device: DeviceId,
        target: DeviceId,
        query: Query,
    ) -> Result<QueryId, CommandError> {
        self.start_query(now, device, target, query, false)
    }

    /// Sends a command to a device or one of its channels (`target`). None has an answer that says more than that it was received.
    pub fn control(
        &mut self,
        now: Instant,
        device: DeviceId,
        target: DeviceId,
        control: Control,
    ) -> Result<(), CommandError> {
        self.send_control(now, device, target, control)
    }

    /// An SSRC that no session uses, for [`Invite::ssrc`]: `0` live or `1` archive, five digits of the domain, four of its own.
    pub fn fresh_ssrc(&mut self, is_history: bool) -> u32 {
        self.next_ssrc(is_history)
    }

    /// Every device that has registered, by id.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values().map(|e| &e.view)
    }

    /// One of them.
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.get(&id).map(|e| &e.view)
    }

    /// Who was refused, by id.
    pub fn refused(&self) -> impl Iterator<Item = &Refused> {
        self.refused.iter()
    }

    /// What was dropped.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn on_message(&mut self, arrival: &Arrival, message: Message) {
        match message {
            Message::Request(request) => self.on_request(arrival, &request),
            Message::Response(response) => self.on_response(arrival, &response),
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A number for a question. Devices read it into 31 bits.
    fn next_sn(&mut self) -> u32 {
        self.last_sn = self.last_sn % 0x7FFF_FFFE + 1;
        self.last_sn
    }
}

impl std::fmt::Debug for Platform {
    /// Without accounts and nonces.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform")
            .field("config", &self.config)
            .field("devices", &self.devices.len())
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
