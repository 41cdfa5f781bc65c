//! REGISTER: who may come in, and what is remembered of them (GB/T 28181-2022 section 9.1).

use std::{net::IpAddr, time::Duration};

use super::{
    Arrival, Event, OfflineWhy, Platform, RefusedWhy, STANDARD_VERSION, UnknownDevices, device::Entry,
    guard::WRONG_PASSWORD_COST,
};
use crate::{
    auth::{Login, OneTimeVerdict},
    gb28181::{id::DeviceId, manscdp::LocalTime},
    sip::{NameAddr, Request, header::seconds},
};

/// For how long a device is registered that does not say: the standard's default.
const EXPIRES_DEFAULT: Duration = Duration::from_secs(86_400);
/// The longest registration that is granted.
pub(super) const EXPIRES_MAX: Duration = Duration::from_secs(7 * 86_400);
/// The longest text about itself that is kept of a device, in characters; the rest is cut off.
const TEXT_CHARS_MAX: usize = 128;

/// What is to be done with a device that asks to be let in.
enum Admission {
    /// With this password it is in.
    With(String),
    /// It is not, but the operator is told whether it knows this password.
    Pending(String),
    /// It is not.
    No(RefusedWhy),
}

impl Platform {
    pub(super) fn on_register(&mut self, arrival: &Arrival, request: &Request) {
        let user = |name| NameAddr::parse(request.headers.get(name)?)?.user();
        let parse = |text: Option<String>| DeviceId::parse(&text?).ok();
        let id = parse(user("From")).or_else(|| parse(user("To")));
        let Some(id) = id.filter(|id| *id != self.config.id) else {
            self.counters.malformed += 1;
            let response = self.plain(arrival, request, 400);
            self.respond(arrival, &response, None);
            return;
        };
        let key = self.responses.key(request, arrival.peer.ip());
        if let Some(data) = self.responses.get(arrival.at.now, key) {
            self.transmit(arrival.route, data);
            return;
        }
        let (password, pending) = match self.admission(id) {
            Admission::With(password) => (password, false),
            Admission::Pending(password) => (password, true),
            Admission::No(why) => return self.refuse(arrival, request, id, why),
        };
        let login = match request.headers.get("Authorization").map(Login::parse) {
            None | Some(Ok(None)) => return self.challenge(arrival, request, false),
            Some(Err(_)) => return self.refuse(arrival, request, id, RefusedWhy::Malformed),
            Some(Ok(Some(login))) => login,
        };
        let last = self.devices.get(&id).and_then(|e| e.nonce);
        let (now, ip) = (arrival.at.now, arrival.peer.ip());
        // Also from where a registered device speaks, whose messages are not counted with those of strangers.
        if !self.sources.may_try(now, ip) {
            self.counters.flooded += 1;
            return;
        }
        match self.verifier.verify(now, ip, "REGISTER", &login, &password, last) {
            OneTimeVerdict::Wrong => {
                self.sources.charge(now, ip, WRONG_PASSWORD_COST);
                self.refuse(arrival, request, id, RefusedWhy::WrongPassword);
            }
            OneTimeVerdict::Stale => self.challenge(arrival, request, true),
            OneTimeVerdict::Right(_) if pending => self.refuse(arrival, request, id, RefusedWhy::Pending),
            OneTimeVerdict::Right(nonce) => self.admit(arrival, request, id, key, nonce, login.username()),
        }
    }

    fn admission(&self, id: DeviceId) -> Admission {
        let platform = || self.config.password.clone();
        match (self.accounts.get(&id), self.config.unknown) {
            (Some(own), _) => own
                .clone()
                .or_else(platform)
                .map_or(Admission::No(RefusedWhy::NoPassword), Admission::With),
            (None, UnknownDevices::Reject) => Admission::No(RefusedWhy::Unknown),
            (None, UnknownDevices::Pending) => {
                platform().map_or(Admission::No(RefusedWhy::Unknown), Admission::Pending)
            }
            (None, UnknownDevices::Accept) => platform().map_or(Admission::No(RefusedWhy::NoPassword), Admission::With),
        }
    }

    fn challenge(&mut self, arrival: &Arrival, request: &Request, stale: bool) {
        let value = self.verifier.challenge(arrival.at.now, arrival.peer.ip(), stale);
        let response = self.plain(arrival, request, 401).with("WWW-Authenticate", value);
        self.respond(arrival, &response, None);
    }

    /// Answers 403 and notes it.
    pub(super) fn refuse(&mut self, arrival: &Arrival, request: &Request, id: DeviceId, why: RefusedWhy) {
        self.refused.note(id, arrival.peer, arrival.at.wall, why);
        let status = if why == RefusedWhy::Full { 503 } else { 403 };
        let response = self.plain(arrival, request, status);
        self.respond(arrival, &response, None);
    }

    /// A device has proved who it is.
    fn admit(&mut self, arrival: &Arrival, request: &Request, id: DeviceId, key: u64, nonce: u128, username: &str) {
        let expires = requested_expiry(request).min(EXPIRES_MAX);
        if !self.devices.contains_key(&id) && !expires.is_zero() {
            if !self.has_room(arrival.at) {
                return self.refuse(arrival, request, id, RefusedWhy::Full);
            }
            let entry = Entry::new(arrival.at.now, arrival.at.wall, id, arrival.local, arrival.peer);
            self.devices.insert(id, entry);
        }
        self.refused.forget(id);
        if let Some(entry) = self.devices.get_mut(&id) {
            entry.nonce = Some(nonce);
        }
        let response = self.welcome(arrival, request, expires);
        self.respond(arrival, &response, Some(key));
        if expires.is_zero() {
            self.go_offline(arrival.at, id, OfflineWhy::Unregistered);
            return;
        }
        let moved = self.follow(arrival, id);
        let Some(entry) = self.devices.get_mut(&id) else {
            return;
        };
        let header = |name| {
            request
                .headers
                .get(name)
                .map(|v| v.chars().take(TEXT_CHARS_MAX).collect())
        };
        let call_id: String = header("Call-ID").unwrap_or_default();
        let renewed = entry.call_id != call_id;
        entry.call_id = call_id;
        entry.registered_until = Some(arrival.at.now + expires);
        entry.view.expires = arrival.at.wall.offset(expires.as_micros() as i64);
        entry.view.username = (username != id.as_str()).then(|| username.chars().take(TEXT_CHARS_MAX).collect());
        entry.view.version = header("X-GB-Ver").or_else(|| entry.view.version.take());
        entry.view.user_agent = header("User-Agent").or_else(|| entry.view.user_agent.take());
        let was_online = entry.view.online;
        self.alive(arrival.at, id);
        if was_online {
            if moved || renewed {
                self.events.push_back(Event::Moved(id));
                self.ask_soon(arrival.at, id);
            }
            self.events.push_back(Event::Persist);
        }
        self.rearm(id);
    }

    /// The answer to a registration: what was granted, and what time it is.
    fn welcome(&mut self, arrival: &Arrival, request: &Request, expires: Duration) -> crate::sip::Response {
        let mut response = self.plain(arrival, request, 200);
        for contact in request.headers.get_all("Contact") {
            response.headers.push("Contact", contact);
        }
        response.headers.push("Expires", expires.as_secs().to_string());
        if self.config.send_date {
            let date = LocalTime::from_utc(arrival.at.wall, &self.zone);
            response.headers.push("Date", date.to_string());
        }
        response.headers.push("X-GB-Ver", STANDARD_VERSION);
        response
    }

    /// Whether an address is the one that a device has registered from; the port may be another.
    pub(super) fn is_home(&self, id: DeviceId, ip: IpAddr) -> bool {
        self.devices
            .get(&id)
            .is_some_and(|e| e.registered_until.is_some() && e.view.peer.ip() == ip)
    }
}

/// For how long a device wants to be registered. Zero: no longer. What Contact says counts before Expires (RFC 3261 section 10.2.1.1).
fn requested_expiry(request: &Request) -> Duration {
    let contact = request.headers.get("Contact").and_then(NameAddr::parse);
    let header = || request.headers.get("Expires").and_then(seconds);
    let wanted = contact.and_then(|c| c.expires()).or_else(header);
    wanted.map_or(EXPIRES_DEFAULT, |s| Duration::from_secs(s.into()))
}
