//! The device's signalling: registration, keepalives, its own requests with their retransmissions, and the way of every message.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rand::Rng;

use super::{
    Command, Input, Wire,
    digest::Challenge,
    invite::Dialog,
    message::{Message, parameter},
    xml,
};
use crate::{
    Alarm, ChannelConfig, Deviation, DeviceConfig, Event, Log, SessionId, SipTransport,
    log::now,
    media::{self, Order, session::Common},
};

/// RFC 3261 17.1.1.1.
const T1: Duration = Duration::from_millis(500);
/// The longest pause between retransmissions.
const T2: Duration = Duration::from_secs(4);
/// How long an answer is waited for, and how long one is kept for a repeated request.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(32);
/// Keepalives in a row without an answer after which the device registers again (GB/T 28181-2022 9.6).
const KEEPALIVES_LOST_MAX: u32 = 3;
/// A platform that cannot be connected to is tried again after this.
const RECONNECT: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(3600);

/// What a request of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// With the seconds asked for.
    Register(u32),
    Keepalive,
    /// A Response MESSAGE.
    Reply,
    Alarm,
    Notify,
    MediaStatus(SessionId),
    Bye(SessionId),
}

struct ClientTransaction {
    purpose: Purpose,
    bytes: Vec<u8>,
    call_id: String,
    resend: Instant,
    interval: Duration,
    deadline: Instant,
}

/// A subscription of the platform.
pub struct Subscription {
    /// The `CmdType`: `Catalog`, `Alarm`, `MobilePosition`.
    pub kind: String,
    pub event: String,
    pub call_id: String,
    pub local: String,
    pub remote: String,
    pub target: String,
    pub cseq: u32,
    pub until: Instant,
}

/// The registration.
#[derive(Default)]
struct Registration {
    call_id: String,
    tag: String,
    cseq: u32,
    challenge: Option<Challenge>,
    /// How often the nonce has been used.
    nonce_count: u32,
    /// The last REGISTER had credentials, so a new 401 is a refusal.
    answered_challenge: bool,
    next: Option<Instant>,
    active: bool,
}

pub struct Agent {
    pub config: DeviceConfig,
    pub log: Arc<Log>,
    inbox: mpsc::Sender<Input>,
    wire: Option<Wire>,
    generation: u32,
    reconnect: Option<Instant>,
    stream: Vec<u8>,
    registration: Registration,
    keepalives: bool,
    keepalive_next: Option<Instant>,
    keepalives_sent: u32,
    keepalives_lost: u32,
    sn: u32,
    ours: HashMap<String, ClientTransaction>,
    /// Answers by branch and method.
    theirs: HashMap<String, (Instant, Vec<u8>)>,
    pub dialogs: BTreeMap<String, Dialog>,
    pub subscriptions: Vec<Subscription>,
    pub channels: Vec<(ChannelConfig, bool)>,
    /// Ids whose alarm of method 2 waits for its reset.
    pub alarmed: Vec<String>,
    pub orders: mpsc::Sender<Order>,
    media: Option<JoinHandle<()>>,
    /// The thread ends then, or as soon as all goodbyes are answered.
    stopping: Option<Instant>,
}

impl Agent {
    pub fn new(config: DeviceConfig, log: Arc<Log>, inbox: mpsc::Sender<Input>) -> io::Result<Self> {
        let common = Common {
            source: config.source.clone(),
            archive: config.archive.clone(),
            deviations: config.deviations,
            impairment: config.impairment,
            log_units: config.log_units,
        };
        let (orders, media) = media::start(common, log.clone(), inbox.clone())?;
        let wire = match config.transport {
            SipTransport::Udp => Some(Wire::open(&config, 0, inbox.clone())?),
            SipTransport::Tcp => None,
        };
        Ok(Self {
            channels: config.channels.iter().map(|c| (c.clone(), true)).collect(),
            registration: Registration {
                call_id: token(),
                tag: token(),
                ..Registration::default()
            },
            config,
            log,
            inbox,
            reconnect: wire.is_none().then(Instant::now),
            wire,
            generation: 0,
            stream: Vec::new(),
            keepalives: true,
            keepalive_next: None,
            keepalives_sent: 0,
            keepalives_lost: 0,
            sn: 0,
            ours: HashMap::new(),
            theirs: HashMap::new(),
            dialogs: BTreeMap::new(),
            subscriptions: Vec::new(),
            alarmed: Vec::new(),
            orders,
            media: Some(media),
            stopping: None,
        })
    }

    pub fn has(&self, deviation: Deviation) -> bool {
        self.config.deviations.has(deviation)
    }

    pub fn run(mut self, inputs: &mpsc::Receiver<Input>) {
        // Over TCP the connection that is made first registers.
        if self.wire.is_some() {
            self.register(self.config.expires.as_secs() as u32);
        }
        loop {
            let wait = self.next_timer().saturating_duration_since(Instant::now());
            match inputs.recv_timeout(wait) {
                Ok(input) => self.input(input),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            self.timers(Instant::now());
            if let Some(limit) = self.stopping
                && (self.ours.is_empty() || Instant::now() >= limit)
            {
                break;
            }
        }
        // The media thread may have panicked, which has been printed.
        drop(self.orders.send(Order::Stop));
        if let Some(media) = self.media.take() {
            drop(media.join());
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Command(command) => self.command(command),
            Input::Bytes(generation, bytes) if self.is_current(generation) => self.bytes(&bytes),
            Input::Closed(generation) if self.is_current(generation) => {
                self.log.event(Event::Disconnected);
                self.wire = None;
                self.reconnect = Some(Instant::now() + RECONNECT);
            }
            Input::Bytes(..) | Input::Closed(_) => {}
            Input::MediaSent(id) => self.media_sent(id),
            Input::MediaBroken(id) => self.media_broken(id),
        }
    }

    fn is_current(&self, generation: u32) -> bool {
        self.wire.as_ref().is_some_and(|w| w.generation() == generation)
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Keepalives(on) => self.keepalives = on,
            Command::KeepaliveNow => self.keepalive(),
            Command::Register => self.register(self.config.expires.as_secs() as u32),
            Command::Unregister => self.unregister(),
            Command::Reconnect => {
                self.wire = None;
                self.open();
            }
            Command::AddChannel(channel) => {
                self.notify_catalog(&channel, true, "ADD");
                self.channels.push((channel, true));
            }
            Command::RemoveChannel(id) => {
                if let Some(index) = self.channels.iter().position(|(c, _)| c.id == id) {
                    let (channel, online) = self.channels.remove(index);
                    self.notify_catalog(&channel, online, "DEL");
                    self.hang_up_channel(&id);
                }
            }
            Command::ChannelOnline(id, online) => {
                if let Some((channel, state)) = self.channels.iter_mut().find(|(c, _)| c.id == id) {
                    *state = online;
                    let channel = channel.clone();
                    self.notify_catalog(&channel, online, if online { "ON" } else { "OFF" });
                }
            }
            Command::Alarm(alarm) => self.alarm(&alarm),
            Command::HangUp(id) => self.hang_up(id),
            Command::Stall(id) => drop(self.orders.send(Order::Stall(id))),
            Command::Stop(limit) => self.stop(limit),
        }
    }

    fn stop(&mut self, limit: Duration) {
        self.stopping = Some(Instant::now() + limit);
        self.ours.clear();
        if limit.is_zero() || !self.config.unregister_on_drop || !self.registration.active {
            self.stopping = Some(Instant::now());
            return;
        }
        let sessions: Vec<SessionId> = self.dialogs.values().map(|d| d.session).collect();
        for session in sessions {
            self.hang_up(session);
        }
        self.unregister();
    }

    fn open(&mut self) {
        self.generation += 1;
        self.stream.clear();
        match Wire::open(&self.config, self.generation, self.inbox.clone()) {
            Ok(wire) => {
                self.wire = Some(wire);
                self.reconnect = None;
                if self.config.transport == SipTransport::Tcp && self.stopping.is_none() {
                    self.register(self.config.expires.as_secs() as u32);
                }
            }
            Err(_) => self.reconnect = Some(Instant::now() + RECONNECT),
        }
    }

    /// The address that the device announces.
    pub fn local(&self) -> SocketAddr {
        self.wire.as_ref().map_or((self.config.local_ip, 0).into(), |w| w.local)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if self.config.transport == SipTransport::Udp {
            if bytes.iter().all(|b| matches!(b, b'\r' | b'\n' | 0)) {
                return;
            }
            self.log.sip(false, bytes);
            match Message::parse(bytes) {
                Ok(message) => self.message(&message),
                Err(reason) => self.log.event(Event::Malformed(reason)),
            }
            return;
        }
        self.stream.extend_from_slice(bytes);
        loop {
            match Message::take(&mut self.stream) {
                Ok(None) => return,
                Ok(Some(message)) => {
                    self.log.sip(false, &message.render(crate::Deviations::NONE, false));
                    self.message(&message);
                }
                Err(reason) => {
                    self.log.event(Event::Malformed(reason));
                    self.wire = None;
                    self.reconnect = Some(Instant::now() + RECONNECT);
                    return;
                }
            }
        }
    }

    fn message(&mut self, message: &Message) {
        if let Some(status) = message.status() {
            self.answered(message, status);
            return;
        }
        let key = format!("{} {}", message.branch().unwrap_or_default(), message.method());
        if let Some((_, answer)) = self.theirs.get(&key) {
            let answer = answer.clone();
            self.write(&answer);
            return;
        }
        match message.method() {
            "ACK" => self.ack(message),
            "INVITE" => self.invite(message),
            "BYE" => self.bye(message),
            "CANCEL" => self.cancel(message),
            "INFO" => self.info(message),
            "MESSAGE" => self.query(message),
            "SUBSCRIBE" => self.subscribe(message),
            "OPTIONS" | "NOTIFY" => self.reply(message, 200, "OK", |m| m),
            _ => self.reply(message, 405, "Method Not Allowed", |m| m),
        }
    }

    /// Writes bytes as they are.
    pub fn write(&self, bytes: &[u8]) {
        let Some(wire) = &self.wire else { return };
        self.log.sip(true, bytes);
        let pings = self.has(Deviation::CrlfPings);
        match self.config.transport {
            SipTransport::Udp if pings => {
                wire.send(b"\r\n\r\n");
                wire.send(bytes);
            }
            SipTransport::Tcp if pings => wire.send(&[b"\r\n\r\n", bytes].concat()),
            _ => wire.send(bytes),
        }
    }

    fn render(&self, message: &Message) -> Vec<u8> {
        message.render(self.config.deviations, self.config.transport == SipTransport::Udp)
    }

    /// An answer to a request, without a body; it is kept for repetitions. `more` adds to it.
    pub fn reply(&mut self, request: &Message, status: u16, reason: &str, more: impl FnOnce(Message) -> Message) {
        self.reply_tagged(request, status, reason, &token(), more);
    }

    /// As [`Self::reply`], with the tag of a dialog; returns the bytes.
    pub fn reply_tagged(
        &mut self,
        request: &Message,
        status: u16,
        reason: &str,
        tag: &str,
        more: impl FnOnce(Message) -> Message,
    ) -> Vec<u8> {
        let mut answer = Message::new(format!("SIP/2.0 {status} {reason}"));
        for (_, via) in request
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case("Via") || n == "v")
        {
            answer = answer.with("Via", via);
        }
        let to = request.get("To").unwrap_or_default();
        let to = if status == 100 || parameter(to, "tag").is_some() {
            to.to_owned()
        } else {
            format!("{to};tag={tag}")
        };
        answer = answer
            .with("From", request.get("From").unwrap_or_default())
            .with("To", to)
            .with("Call-ID", request.get("Call-ID").unwrap_or_default())
            .with("CSeq", request.get("CSeq").unwrap_or_default())
            .with("User-Agent", "Simulated device");
        let bytes = self.render(&more(answer));
        self.write(&bytes);
        if status >= 200 {
            let key = format!("{} {}", request.branch().unwrap_or_default(), request.method());
            self.theirs.insert(key, (Instant::now(), bytes.clone()));
        }
        bytes
    }

    /// Sends a request with Via and waits for its answer.
    pub fn request(&mut self, message: Message, purpose: Purpose) {
        let branch = format!("z9hG4bK{}", token());
        let protocol = match self.config.transport {
            SipTransport::Udp => "UDP",
            SipTransport::Tcp => "TCP",
        };
        let via = format!("SIP/2.0/{protocol} {};rport;branch={branch}", self.local());
        let call_id = message.get("Call-ID").unwrap_or_default().to_owned();
        let mut message = message
            .with("Max-Forwards", "70")
            .with("User-Agent", "Simulated device");
        message.headers.insert(0, ("Via".into(), via));
        let bytes = self.render(&message);
        self.write(&bytes);
        let at = Instant::now();
        let transaction = ClientTransaction {
            purpose,
            bytes,
            call_id,
            resend: at + T1,
            interval: T1,
            deadline: at + TRANSACTION_LIMIT,
        };
        self.ours.insert(branch, transaction);
    }

    /// A request outside of any dialog.
    pub fn message_request(&mut self, body: Vec<u8>, purpose: Purpose) {
        let (device, domain, server) = (&self.config.device_id, &self.config.domain, &self.config.server_id);
        self.sn += 1;
        let message = Message::new(format!("MESSAGE sip:{server}@{domain} SIP/2.0"))
            .with("From", format!("<sip:{device}@{domain}>;tag={}", token()))
            .with("To", format!("<sip:{server}@{domain}>"))
            .with("Call-ID", token())
            .with("CSeq", format!("{} MESSAGE", self.sn))
            .with_body("Application/MANSCDP+xml", body);
        self.request(message, purpose);
    }

    /// A sequence number for a body of our own.
    pub fn next_sn(&mut self) -> String {
        self.sn += 1;
        self.sn.to_string()
    }

    /// The value of our Contact.
    pub fn contact(&self) -> String {
        format!("<sip:{}@{}>", self.config.device_id, self.local())
    }

    fn register(&mut self, expires_s: u32) {
        let contact = self.contact();
        let registration = &mut self.registration;
        registration.next = None;
        registration.cseq += 1;
        let (device, domain) = (&self.config.device_id, &self.config.domain);
        let uri = format!("sip:{}@{domain}", self.config.server_id);
        let mut message = Message::new(format!("REGISTER {uri} SIP/2.0"))
            .with("From", format!("<sip:{device}@{domain}>;tag={}", registration.tag))
            .with("To", format!("<sip:{device}@{domain}>"))
            .with("Call-ID", &registration.call_id)
            .with("CSeq", format!("{} REGISTER", registration.cseq))
            .with("X-GB-Ver", "2.0");
        message = if self.config.deviations.has(Deviation::ExpiresInContact) {
            message.with("Contact", format!("{contact};expires={expires_s}"))
        } else {
            message.with("Contact", contact).with("Expires", expires_s.to_string())
        };
        registration.answered_challenge = registration.challenge.is_some();
        if let Some(challenge) = &registration.challenge {
            registration.nonce_count += 1;
            let user = self.config.username.as_ref().unwrap_or(device);
            let credentials = (user.as_str(), self.config.password.as_str());
            let answer = challenge.answer(credentials, "REGISTER", &uri, registration.nonce_count, &token());
            message = message.with("Authorization", answer);
        }
        self.request(message, Purpose::Register(expires_s));
    }

    fn unregister(&mut self) {
        self.register(0);
        self.keepalive_next = None;
    }

    fn register_answered(&mut self, answer: &Message, status: u16, expires_s: u32) {
        let at = Instant::now();
        match status {
            200..=299 if expires_s == 0 => {
                self.registration.active = false;
                self.log.event(Event::Unregistered);
            }
            200..=299 => {
                let header = answer
                    .get("Expires")
                    .or_else(|| parameter(answer.get("Contact")?, "expires"));
                let granted = header.and_then(|e| e.trim().parse().ok()).unwrap_or(expires_s);
                self.registration.active = true;
                self.registration.next = Some(at + Duration::from_secs(u64::from(granted)) * 4 / 5);
                self.keepalives_lost = 0;
                self.keepalive_next.get_or_insert(at);
                let date = answer.get("Date").map(Into::into);
                self.log.event(Event::Registered {
                    expires_s: granted,
                    date,
                });
            }
            401 | 407 => self.challenged(answer, status, expires_s, at),
            _ => self.register_failed(status, at),
        }
    }

    fn challenged(&mut self, answer: &Message, status: u16, expires_s: u32, at: Instant) {
        let header = answer
            .get("WWW-Authenticate")
            .or_else(|| answer.get("Proxy-Authenticate"));
        let Some(mut challenge) = header.and_then(Challenge::parse) else {
            return self
                .log
                .event(Event::Malformed("a 401 without a digest challenge".into()));
        };
        self.log.event(Event::Challenged {
            qop: challenge.qop,
            algorithm: challenge.algorithm.clone(),
        });
        challenge.qop &= !self.has(Deviation::NoQop);
        // A nonce that is used for a refresh may have expired meanwhile: one more try with the new one.
        let old = self.registration.challenge.replace(challenge);
        let first_use = self.registration.nonce_count <= 1;
        self.registration.nonce_count = 0;
        if old.is_some() && self.registration.answered_challenge && first_use {
            self.registration.challenge = None;
            return self.register_failed(status, at);
        }
        self.register(expires_s);
    }

    fn register_failed(&mut self, status: u16, at: Instant) {
        self.log.event(Event::RegisterRefused(status));
        self.registration.active = false;
        if self.stopping.is_none() {
            self.registration.next = Some(at + self.config.register_retry);
        }
    }

    fn keepalive(&mut self) {
        self.keepalives_sent += 1;
        if self.has(Deviation::NatMove) && self.keepalives_sent == 2 && self.config.transport == SipTransport::Udp {
            self.wire = None;
            self.open();
        }
        let sn = self.next_sn();
        let rest = format!(
            "<DeviceID>{}</DeviceID>\r\n<Status>OK</Status>\r\n",
            self.config.device_id
        );
        let body = xml::body(self.config.deviations, "Notify", "Keepalive", &sn, &rest);
        self.message_request(body, Purpose::Keepalive);
    }

    fn answered(&mut self, answer: &Message, status: u16) {
        if status < 200 {
            return;
        }
        let Some(transaction) = answer.branch().and_then(|b| self.ours.remove(b)) else {
            return;
        };
        match transaction.purpose {
            Purpose::Register(expires_s) => self.register_answered(answer, status, expires_s),
            Purpose::Keepalive => {
                self.keepalives_lost = 0;
                self.log.event(Event::Keepalive(status));
                if status >= 400 && self.stopping.is_none() {
                    self.register(self.config.expires.as_secs() as u32);
                }
            }
            Purpose::Reply => {}
            Purpose::Alarm => self.log.event(Event::AlarmAnswered(status)),
            Purpose::Notify => {
                self.log.event(Event::Notified(status));
                if status == 481 {
                    self.subscriptions.retain(|s| s.call_id != transaction.call_id);
                }
            }
            Purpose::MediaStatus(id) => self.log.event(Event::MediaStatus(id, status)),
            Purpose::Bye(id) => self.log.event(Event::ByeAnswered(id, status)),
        }
    }

    fn unanswered(&mut self, purpose: Purpose, at: Instant) {
        self.log.event(Event::Unanswered(match purpose {
            Purpose::Register(_) => "REGISTER",
            Purpose::Keepalive => "Keepalive",
            Purpose::Reply => "Response",
            Purpose::Alarm => "Alarm",
            Purpose::Notify => "NOTIFY",
            Purpose::MediaStatus(_) => "MediaStatus",
            Purpose::Bye(_) => "BYE",
        }));
        match purpose {
            Purpose::Register(0) => {}
            Purpose::Register(_) => self.registration.next = Some(at + self.config.register_retry),
            Purpose::Keepalive => {
                self.keepalives_lost += 1;
                if self.keepalives_lost >= KEEPALIVES_LOST_MAX {
                    self.keepalives_lost = 0;
                    self.register(self.config.expires.as_secs() as u32);
                }
            }
            _ => {}
        }
    }

    fn next_timer(&self) -> Instant {
        let mut next = Instant::now() + IDLE;
        let ours = self.ours.values().map(|t| t.resend.min(t.deadline));
        let dialogs = self.dialogs.values().filter_map(Dialog::next_timer);
        let single = [
            self.registration.next,
            self.keepalive_next.filter(|_| self.keepalives),
            self.reconnect,
            self.stopping,
        ];
        for timer in ours.chain(dialogs).chain(single.into_iter().flatten()) {
            next = next.min(timer);
        }
        next
    }

    fn timers(&mut self, at: Instant) {
        if self.reconnect.is_some_and(|t| t <= at) {
            self.reconnect = None;
            self.open();
        }
        if self.stopping.is_none() && self.registration.next.is_some_and(|t| t <= at) {
            self.register(self.config.expires.as_secs() as u32);
        }
        if self.keepalives && self.stopping.is_none() && self.keepalive_next.is_some_and(|t| t <= at) {
            self.keepalive_next = Some(at + self.config.keepalive);
            if self.registration.active {
                self.keepalive();
            }
        }
        self.resend(at);
        self.dialog_timers(at);
        self.theirs.retain(|_, (since, _)| at < *since + TRANSACTION_LIMIT);
        self.subscriptions.retain(|s| at < s.until);
    }

    fn resend(&mut self, at: Instant) {
        let mut over = Vec::new();
        let mut again = Vec::new();
        let datagrams = self.config.transport == SipTransport::Udp;
        for (branch, transaction) in &mut self.ours {
            if at >= transaction.deadline {
                over.push(branch.clone());
            } else if at >= transaction.resend {
                transaction.interval = (transaction.interval * 2).min(T2);
                transaction.resend = at + transaction.interval;
                if datagrams {
                    again.push(transaction.bytes.clone());
                }
            }
        }
        for bytes in again {
            self.write(&bytes);
        }
        for branch in over {
            if let Some(transaction) = self.ours.remove(&branch) {
                self.unanswered(transaction.purpose, at);
            }
        }
    }

    fn alarm(&mut self, alarm: &Alarm) {
        if alarm.method == 2 {
            if self.alarmed.contains(&alarm.id) {
                self.log.event(Event::AlarmWithheld);
                return;
            }
            self.alarmed.push(alarm.id.clone());
        }
        let sn = self.next_sn();
        let rest = xml::alarm(alarm, now(), self.config.utc_offset_s);
        let body = xml::body(self.config.deviations, "Notify", "Alarm", &sn, &rest);
        if !self.notify("Alarm", &body) {
            self.message_request(body, Purpose::Alarm);
        }
    }
}

/// Letters and digits that nobody else has.
pub fn token() -> String {
    format!("{:016x}", rand::rng().random::<u64>())
}
