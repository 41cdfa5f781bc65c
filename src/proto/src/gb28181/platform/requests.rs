//! What devices send besides REGISTER, and what their answers to our requests mean.

use std::time::Instant;

use super::{Arrival, Event, Moment, Platform, Purpose, RefusedWhy, Route};
use crate::{
    gb28181::{
        id::DeviceId,
        manscdp::{self, Alarm, Body, Control, Notify},
    },
    sip::{Method, NameAddr, Outcome, Request, Response, TransactionId},
};

/// The methods that are understood (the standard's, and RFC 3261's).
const ALLOW: &str = "INVITE, ACK, INFO, CANCEL, BYE, OPTIONS, MESSAGE, SUBSCRIBE, NOTIFY, REGISTER";

impl Platform {
    pub(super) fn on_request(&mut self, arrival: &Arrival, request: &Request) {
        let lacks = |name: &&str| request.headers.get(name).is_none();
        if request.method == Method::Ack {
            return;
        }
        if ["Via", "From", "To", "Call-ID", "CSeq"].iter().any(lacks) {
            self.counters.malformed += 1;
            let response = self.plain(arrival, request, 400);
            self.respond(arrival, &response, None);
            return;
        }
        if request.method == Method::Register {
            self.on_register(arrival, request);
            return;
        }
        let device = match self.sender(arrival, request) {
            Ok(device) => device,
            Err((Some(id), why)) => return self.refuse(arrival, request, id, why),
            Err((None, _)) => {
                self.counters.malformed += 1;
                let response = self.plain(arrival, request, 403);
                self.respond(arrival, &response, None);
                return;
            }
        };
        let key = self.responses.key(request, arrival.peer.ip());
        if let Some(data) = self.responses.get(arrival.at.now, key) {
            self.transmit(arrival.route, data);
        } else {
            self.on_known_request(arrival, request, device, key);
        }
        self.alive(arrival.at, device);
        self.rearm(device);
    }

    /// Which registered device has sent a request: the one whose session it is inside of, the one that From names, or the only one
    /// that is registered at the address.
    fn sender(&self, arrival: &Arrival, request: &Request) -> Result<DeviceId, (Option<DeviceId>, RefusedWhy)> {
        let ip = arrival.peer.ip();
        let inside = self.session_of(request).map(|(_, device)| device);
        let from = request
            .headers
            .get("From")
            .and_then(NameAddr::parse)
            .and_then(|f| f.user());
        let from = from.and_then(|user| DeviceId::parse(&user).ok());
        let home = [inside, from].into_iter().flatten().find(|id| self.is_home(*id, ip));
        if let Some(id) = home {
            return Ok(id);
        }
        let registered = from
            .and_then(|id| self.devices.get(&id))
            .is_some_and(|e| e.registered_until.is_some());
        if registered {
            return Err((from, RefusedWhy::OtherAddress));
        }
        // Some speak in the name of a channel. Another device behind the same address must register all the same.
        let speaks_for = |device: &DeviceId| {
            let entry = self.devices.get(device);
            from.is_none_or(|id| entry.is_some_and(|e| e.view.channels.iter().any(|c| c.id == id)))
        };
        // These say nothing in a device's name: they are answered, and that is all.
        let harmless = matches!(
            request.method,
            Method::Bye | Method::Info | Method::Cancel | Method::Options
        );
        match self.devices_at(arrival.route) {
            [first, ..] if harmless => Ok(*first),
            [only] if speaks_for(only) => Ok(*only),
            _ => Err((from, RefusedWhy::NotRegistered)),
        }
    }

    fn on_known_request(&mut self, arrival: &Arrival, request: &Request, device: DeviceId, key: u64) {
        let session = self.session_of(request);
        let status = match (&request.method, session) {
            (Method::Options | Method::Message | Method::Notify, _) | (Method::Bye | Method::Info, Some(_)) => 200,
            (Method::Bye | Method::Info | Method::Cancel, _) => 481,
            // A device that wants to send sound to the platform, or to be told of its events.
            (Method::Invite, _) => 488,
            (Method::Subscribe, _) => 489,
            _ => 405,
        };
        let mut response = self.plain(arrival, request, status);
        if status == 405 || request.method == Method::Options {
            response.headers.push("Allow", ALLOW);
        }
        self.respond(arrival, &response, Some(key));
        match request.method {
            Method::Message => self.on_body(arrival, request, device, true),
            Method::Notify => self.on_body(arrival, request, device, false),
            Method::Bye => {
                if let Some((id, owner)) = session
                    && owner == device
                {
                    self.on_bye(id);
                }
            }
            _ => {}
        }
    }

    /// The MANSCDP body of a MESSAGE or NOTIFY, which was answered 200 already: a body that nobody understands is no reason for a
    /// device to send it again.
    fn on_body(&mut self, arrival: &Arrival, request: &Request, device: DeviceId, is_message: bool) {
        let at = arrival.at;
        let Ok(message) = manscdp::Message::parse(&request.body) else {
            if !request.body.is_empty() {
                self.counters.malformed += 1;
            }
            return;
        };
        match message.body {
            Body::Notify(Notify::Keepalive { .. }) => self.on_keepalive(arrival, device),
            Body::Notify(Notify::Alarm(alarm)) => {
                let source = message.device;
                // What a subscription brings is acknowledged by its 200.
                let sn = is_message.then_some(message.sn);
                self.acknowledge_alarm(at.now, device, source, sn, alarm.method);
                self.events.push_back(Event::Alarm { device, source, alarm });
            }
            Body::Notify(Notify::MediaStatus { notify_type }) => {
                if notify_type == Some(Notify::END_OF_FILE) {
                    let dialog = self.session_of(request).filter(|(_, owner)| *owner == device);
                    self.on_end_of_file(at, device, message.device, dialog.map(|(id, _)| id));
                }
            }
            Body::Notify(Notify::Catalog { changes, .. }) => self.on_catalog_changes(at, device, changes),
            Body::Response(response) => self.on_answer(at, device, message.sn, response),
            Body::Notify(Notify::MobilePosition(_)) | Body::Query(_) | Body::Control(_) | Body::Other { .. } => {}
        }
    }

    /// Sends the acknowledgement of an alarm, and what lets the device report the next one.
    fn acknowledge_alarm(
        &mut self,
        now: Instant,
        device: DeviceId,
        source: Option<DeviceId>,
        sn: Option<u32>,
        method: Option<u8>,
    ) {
        let room = self.devices.get_mut(&device).is_some_and(|e| e.alarms.take(now));
        if !room {
            return;
        }
        let target = source.unwrap_or(device);
        // What cannot be sent is asked for by the alarm's repetition.
        if let Some(sn) = sn {
            let to = manscdp::Command::Alarm;
            let body = Body::Response(manscdp::Response::Result { to, ok: true });
            let _ = self.send_message(now, device, target, sn, body, Purpose::Nothing);
        }
        if method == Some(Alarm::BY_DEVICE) {
            let control = Control::ResetAlarm {
                method: None,
                alarm_type: None,
            };
            let _ = self.send_control(now, device, target, control);
        }
    }

    fn on_keepalive(&mut self, arrival: &Arrival, device: DeviceId) {
        let was_online = self.devices.get(&device).is_some_and(|e| e.view.online);
        let moved = self.follow(arrival, device);
        if let Some(entry) = self.devices.get_mut(&device) {
            entry.keepalive(arrival.at.now, arrival.at.wall);
        }
        if moved && was_online {
            self.events.push_back(Event::Moved(device));
            self.events.push_back(Event::Persist);
        }
    }

    pub(super) fn on_response(&mut self, arrival: &Arrival, response: &Response) {
        let Some(id) = TransactionId::of_response(&response.headers) else {
            return;
        };
        // Only who was asked may answer; the port may be another.
        let from_there = match (self.transactions.route(id), arrival.route) {
            (Some(Route::Udp { peer, .. }), Route::Udp { .. }) => peer.ip() == arrival.peer.ip(),
            (Some(Route::Tcp(a)), Route::Tcp(b)) => *a == b,
            (Some(_), _) => false,
            (None, _) => !self.devices_at(arrival.route).is_empty(),
        };
        if !from_there {
            return;
        }
        match self.transactions.on_response(arrival.at.now, id, response) {
            Outcome::Provisional(Purpose::Invite(dialog)) => self.on_ringing(arrival.at.now, dialog),
            Outcome::Provisional(_) | Outcome::Again(None) => {}
            Outcome::Again(Some((route, ack))) => self.transmit(route, ack),
            Outcome::Final(purpose, ack) => {
                if let Some((route, ack)) = ack {
                    self.transmit(route, ack);
                }
                self.on_final(arrival.at, purpose, Some(response));
            }
            Outcome::Unknown => {
                let invite = response
                    .headers
                    .get("CSeq")
                    .is_some_and(|c| c.trim_end().ends_with("INVITE"));
                if invite && response.is_success() {
                    self.on_late_answer(arrival, response);
                }
            }
        }
    }

    pub(super) fn on_no_answer(&mut self, at: Moment, purpose: Purpose) {
        self.on_final(at, purpose, None);
    }

    /// What became of a request of ours; `None`: no answer came.
    fn on_final(&mut self, at: Moment, purpose: Purpose, response: Option<&Response>) {
        match purpose {
            Purpose::Nothing => {}
            Purpose::Query(id) => match response {
                // The answer itself comes in a MESSAGE of its own.
                Some(response) if response.is_success() => {}
                Some(response) => {
                    let reason = format!("the device answers {} {}", response.status, response.reason);
                    self.fail_query(at.now, id, &reason);
                }
                None => self.fail_query(at.now, id, "the question did not reach the device"),
            },
            Purpose::Invite(dialog) => self.on_invite_answer(at.now, dialog, response),
            Purpose::Bye(dialog) => self.on_bye_answer(dialog),
            Purpose::Info(dialog) => self.on_info_answer(dialog, response),
            Purpose::Subscribe(device, package) => self.on_subscribe_answer(at.now, device, package, response),
        }
    }
}
