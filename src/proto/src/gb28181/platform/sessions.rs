//! Media sessions: INVITE, what the device answers, MANSRTSP inside, and the end (GB/T 28181-2022 sections 9.2, 9.8, 9.9).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    Arrival, CommandError, DialogId, EndedWhy, Event, Invite, Moment, OfflineWhy, Platform, Purpose, Route,
    SESSIONS_MAX, Timer, wire::Way,
};
use crate::{
    gb28181::{
        id::DeviceId,
        mansrtsp,
        sdp::{self, Answer, MediaTransport, Offer, Ssrc},
    },
    sip::{
        Dialog, Method, NameAddr, Request, Response, TransactionId,
        transaction::{self, TIMEOUT},
    },
};

/// How long an INVITE may wait for its final answer: recorders take their time to find footage.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// How long after "all has been sent" (`MediaStatus` 121) the session is ended with BYE: what is on its way may still come.
pub const MEDIA_STATUS_BYE_DELAY: Duration = Duration::from_secs(2);

/// One INVITE and what comes of it.
pub(super) struct Session {
    device: DeviceId,
    channel: DeviceId,
    ssrc: u32,
    is_history: bool,
    transport: MediaTransport,
    /// The way that the INVITE has taken; used again if the device has none at present.
    way: Way,
    call_id: String,
    /// Nobody wants to hear of it any more.
    silent: bool,
    infos: u32,
    phase: Phase,
}

enum Phase {
    /// The INVITE waits for its answer.
    Inviting {
        transaction: TransactionId,
        request: Request,
        /// Whether there was a provisional answer: only then CANCEL may be sent (RFC 3261 section 9.1).
        ringing: bool,
        cancelled: bool,
    },
    /// It runs, or is being ended. The ACK is kept, for the answer may come again.
    Running { dialog: Dialog, ack: Bytes },
}

impl Platform {
    /// An SSRC that no session uses.
    pub(super) fn next_ssrc(&mut self, is_history: bool) -> u32 {
        loop {
            self.last_serial = (self.last_serial + 1) % Ssrc::SERIALS;
            let ssrc = Ssrc::new(is_history, &self.config.domain, self.last_serial).value();
            // Ends, because there are fewer sessions than serial numbers.
            if self.sessions.values().all(|s| s.ssrc != ssrc) {
                return ssrc;
            }
        }
    }

    pub(super) fn start_session(&mut self, now: Instant, invite: Invite) -> Result<DialogId, CommandError> {
        let way = self.way(invite.device)?;
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(CommandError::Busy("sessions"));
        }
        let is_history = invite.kind.is_history();
        let ssrc = match invite.ssrc {
            Some(ssrc) => ssrc,
            None => self.next_ssrc(is_history),
        };
        let ssrc = Ssrc::from_value(ssrc);
        let offer = Offer {
            origin: invite.channel,
            channel: Some(invite.channel),
            session: invite.kind,
            address: self.own_ip(way.local),
            port: invite.media_port,
            transport: invite.transport,
            ssrc: Some(ssrc),
            stream: invite.stream,
            formats: Vec::new(),
        };
        let subject = format!("{}:{ssrc},{}:0", invite.channel, self.config.id);
        let mut request = self
            .new_request(way, Method::Invite, invite.channel)
            .with("Contact", self.contact(way))
            .with("Subject", subject)
            .with_body(sdp::CONTENT_TYPE, offer.to_string());
        let id = DialogId(self.next_id());
        let transaction = self.send(now, way, &mut request, Purpose::Invite(id))?;
        let call_id = request.headers.get("Call-ID").unwrap_or_default().to_owned();
        self.calls.insert(call_id.clone(), id);
        let session = Session {
            device: invite.device,
            channel: invite.channel,
            ssrc: ssrc.value(),
            is_history,
            transport: invite.transport,
            way,
            call_id,
            silent: false,
            infos: 0,
            phase: Phase::Inviting {
                transaction,
                request,
                ringing: false,
                cancelled: false,
            },
        };
        self.sessions.insert(id, session);
        self.timers.set(Timer::Session(id), Some(now + ANSWER_TIMEOUT));
        Ok(id)
    }

    /// The way to a session's device: where it is now, or where it was.
    fn session_way(&self, session: &Session) -> Way {
        let entry = self.devices.get(&session.device);
        let now = entry.and_then(|e| {
            e.route.map(|route| Way {
                route,
                local: e.local,
                peer: e.view.peer,
            })
        });
        now.unwrap_or(session.way)
    }

    pub(super) fn end_session(&mut self, now: Instant, id: DialogId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut session.silent, true) && matches!(session.phase, Phase::Running { .. }) {
            return;
        }
        self.timers.set(Timer::Session(id), None);
        match &session.phase {
            Phase::Inviting { .. } => self.cancel(now, id),
            Phase::Running { .. } => self.send_bye(now, id),
        }
    }

    /// Takes an INVITE back; with the first provisional answer if there was none yet.
    fn cancel(&mut self, now: Instant, id: DialogId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Phase::Inviting {
            transaction,
            request,
            ringing,
            cancelled,
        } = &mut session.phase
        else {
            return;
        };
        self.transactions.expire_by(*transaction, now + TIMEOUT);
        if !*ringing || std::mem::replace(cancelled, true) {
            return;
        }
        let (way, id) = (session.way, transaction.of_cancel());
        let request = transaction::cancel(request);
        let reliable = matches!(way.route, Route::Tcp(_));
        // If the table is full, the answer finds a session that nobody wants, and is answered by BYE.
        let started = self
            .transactions
            .start(now, id, &request, way.route, reliable, Purpose::Nothing);
        if let Ok(data) = started {
            self.transmit(way.route, data);
        }
    }

    fn send_bye(&mut self, now: Instant, id: DialogId) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let way = self.session_way(session);
        let Some(Session {
            phase: Phase::Running { dialog, .. },
            ..
        }) = self.sessions.get_mut(&id)
        else {
            return;
        };
        let mut request = dialog.request(Method::Bye);
        if self.send(now, way, &mut request, Purpose::Bye(id)).is_err() {
            self.forget_session(id);
        }
    }

    fn forget_session(&mut self, id: DialogId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.calls.remove(&session.call_id);
            self.timers.set(Timer::Session(id), None);
        }
    }

    /// Ends a session and tells of it.
    fn lose_session(&mut self, id: DialogId, why: EndedWhy) {
        if self.sessions.get(&id).is_some_and(|s| !s.silent) {
            self.events.push_back(Event::Ended { dialog: id, why });
        }
        self.forget_session(id);
    }

    fn fail_session(&mut self, id: DialogId, status: Option<u16>, reason: String) {
        if self.sessions.get(&id).is_some_and(|s| !s.silent) {
            self.events.push_back(Event::InviteFailed {
                dialog: id,
                status,
                reason,
            });
        }
    }

    pub(super) fn end_sessions_of(&mut self, device: DeviceId) {
        let ids: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.device == device)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            match self.sessions.get(&id).map(|s| &s.phase) {
                Some(Phase::Inviting { transaction, .. }) => {
                    self.transactions.remove(*transaction);
                    self.fail_session(id, None, OfflineWhy::Unregistered.to_string());
                    self.forget_session(id);
                }
                Some(Phase::Running { .. }) => self.lose_session(id, EndedWhy::Unregistered),
                None => {}
            }
        }
    }

    pub(super) fn on_session_timer(&mut self, now: Instant, id: DialogId) {
        match self.sessions.get(&id).map(|s| &s.phase) {
            Some(Phase::Inviting { .. }) => {
                self.fail_session(id, None, "the device does not answer".to_owned());
                self.end_session(now, id);
            }
            // The delay behind MediaStatus is over.
            Some(Phase::Running { .. }) => self.send_bye(now, id),
            None => {}
        }
    }

    pub(super) fn on_ringing(&mut self, now: Instant, id: DialogId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if let Phase::Inviting { ringing, .. } = &mut session.phase {
            *ringing = true;
            if session.silent {
                self.cancel(now, id);
            }
        }
    }

    /// The final answer to an INVITE; `None`: none came.
    pub(super) fn on_invite_answer(&mut self, now: Instant, id: DialogId, response: Option<&Response>) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let Phase::Inviting { request, .. } = &session.phase else {
            return;
        };
        match response {
            Some(response) if response.is_success() => {
                let dialog = Dialog::new(request, response);
                self.establish(now, id, dialog, response);
            }
            Some(response) => {
                let reason = if response.reason.is_empty() {
                    crate::sip::reason(response.status).to_owned()
                } else {
                    response.reason.chars().take(128).collect()
                };
                self.fail_session(id, Some(response.status), reason);
                self.forget_session(id);
            }
            None => {
                self.fail_session(id, None, "the device does not answer".to_owned());
                self.forget_session(id);
            }
        }
    }

    fn establish(&mut self, now: Instant, id: DialogId, dialog: Dialog, response: &Response) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let way = self.session_way(session);
        let mut request = dialog.ack();
        self.stamp(way, &mut request);
        let ack = request.to_bytes();
        self.transmit(way.route, ack.clone());
        self.timers.set(Timer::Session(id), None);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.phase = Phase::Running { dialog, ack };
        if session.silent {
            self.send_bye(now, id);
            return;
        }
        // A device may agree without a word: then the offer holds, unless its port had to be told.
        let agreed = if response.body.trim_ascii().is_empty() && session.transport != MediaTransport::TcpActive {
            Ok(Answer::as_offered(session.transport))
        } else {
            Answer::parse(&response.body)
        };
        match agreed {
            Ok(answer) => {
                let ssrc = session.ssrc;
                self.events.push_back(Event::Answered {
                    dialog: id,
                    answer,
                    ssrc,
                    source: way.peer.ip(),
                });
            }
            Err(error) => {
                self.fail_session(id, None, error.to_string());
                self.end_session(now, id);
            }
        }
    }

    /// An answer to an INVITE that is under way no more: to one that runs, or to one that was given up long ago.
    pub(super) fn on_late_answer(&mut self, arrival: &Arrival, response: &Response) {
        let now = arrival.at.now;
        let call_id = response.headers.get("Call-ID").unwrap_or_default();
        if let Some(session) = self.calls.get(call_id).and_then(|id| self.sessions.get(id)) {
            if let Phase::Running { ack, .. } = &session.phase {
                let (way, ack) = (self.session_way(session), ack.clone());
                self.transmit(way.route, ack);
            }
            return;
        }
        let ours = response
            .headers
            .get("From")
            .and_then(NameAddr::parse)
            .and_then(|f| f.user());
        if ours.as_deref() != Some(self.config.id.as_str()) {
            return;
        }
        let Some((mut ack, mut bye)) = transaction::decline_late_answer(response) else {
            return;
        };
        let way = Way {
            route: arrival.route,
            local: arrival.local,
            peer: arrival.peer,
        };
        self.stamp(way, &mut ack);
        self.transmit(way.route, ack.to_bytes());
        // Not sent if too much is under way; the device gives up by itself then.
        let _ = self.send(now, way, &mut bye, Purpose::Nothing);
    }

    /// The outcome of our BYE; whatever it is, the session is over. 481 says that it was already.
    pub(super) fn on_bye_answer(&mut self, id: DialogId) {
        self.forget_session(id);
    }

    /// A session that a request of the device is inside of.
    pub(super) fn session_of(&self, request: &Request) -> Option<(DialogId, DeviceId)> {
        let id = *self.calls.get(request.headers.get("Call-ID")?)?;
        let session = self.sessions.get(&id)?;
        match &session.phase {
            Phase::Running { dialog, .. } if dialog.covers(&request.headers) => Some((id, session.device)),
            _ => None,
        }
    }

    /// The device has sent BYE.
    pub(super) fn on_bye(&mut self, id: DialogId) {
        self.lose_session(id, EndedWhy::Bye);
    }

    /// `MediaStatus`: all has been sent. Devices send it inside the dialog, or outside with the channel's id; `None` then.
    pub(super) fn on_end_of_file(
        &mut self,
        at: Moment,
        device: DeviceId,
        channel: Option<DeviceId>,
        id: Option<DialogId>,
    ) {
        let id = id.or_else(|| {
            let mut fitting = self.sessions.iter().filter(|(_, s)| {
                let running = matches!(s.phase, Phase::Running { .. });
                running && s.is_history && s.device == device && channel.is_none_or(|c| c == s.channel || c == device)
            });
            let found = fitting.next().map(|(id, _)| *id);
            // Of several nobody knows which one is meant; silence will tell.
            found.filter(|_| fitting.next().is_none())
        });
        let Some((id, session)) = id.and_then(|id| Some((id, self.sessions.get_mut(&id)?))) else {
            return;
        };
        if !std::mem::replace(&mut session.silent, true) {
            let why = EndedWhy::Complete;
            self.events.push_back(Event::Ended { dialog: id, why });
            self.timers
                .set(Timer::Session(id), Some(at.now + MEDIA_STATUS_BYE_DELAY));
        }
    }

    pub(super) fn send_info(
        &mut self,
        now: Instant,
        id: DialogId,
        action: mansrtsp::Action,
    ) -> Result<(), CommandError> {
        let session = self.sessions.get_mut(&id).filter(|s| !s.silent);
        let session = session.ok_or(CommandError::NoDialog(id))?;
        let Phase::Running { dialog, .. } = &mut session.phase else {
            return Err(CommandError::NoDialog(id));
        };
        let mut request = dialog.request(Method::Info);
        session.infos += 1;
        let (device, cseq) = (session.device, session.infos);
        let body = mansrtsp::Request { cseq, action }.to_string();
        let way = self.way(device)?;
        request.headers.push("Contact", self.contact(way));
        let mut request = request.with_body(mansrtsp::CONTENT_TYPE, body);
        self.send(now, way, &mut request, Purpose::Info(id)).map(|_| ())
    }

    /// The outcome of an INFO; `None`: no answer came.
    pub(super) fn on_info_answer(&mut self, id: DialogId, response: Option<&Response>) {
        if self.sessions.get(&id).is_none_or(|s| s.silent) {
            return;
        }
        self.events.push_back(Event::InfoAnswered {
            dialog: id,
            status: response.map(|r| r.status),
            answer: response.and_then(|r| mansrtsp::Response::parse(&r.body).ok()),
        });
        if response.is_some_and(|r| r.status == 481) {
            self.lose_session(id, EndedWhy::Forgotten);
        }
    }
}
