//! Transactions (RFC 3261 section 17): requests of ours are sent again until they are answered, requests of the peer that come again
//! are answered as before.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    net::IpAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Headers, Timers,
    header::{CSeq, NameAddr, Via},
    message::{Method, Request, Response},
};

/// T1: the first interval between retransmissions.
pub const T1: Duration = Duration::from_millis(500);
/// T2: the longest interval between retransmissions of anything but INVITE.
pub const T2: Duration = Duration::from_secs(4);
/// Timers B, D and F: how long a request waits for an answer, and how long a refused INVITE is acknowledged again.
pub const TIMEOUT: Duration = Duration::from_secs(32);
/// Timer C: how long an INVITE with a provisional answer waits for the final one.
pub const RINGING_MAX: Duration = Duration::from_secs(180);
/// How many requests may be under way. One more is not sent: [`Full`].
pub const TRANSACTIONS_MAX: usize = 8192;
/// How many answers are kept to be given again. At the limit the oldest is forgotten, and a request that comes again is
/// handled like a new one.
pub const RESPONSES_MAX: usize = 8192;

/// What every branch begins with (section 8.1.1.7).
const MAGIC_COOKIE: &str = "z9hG4bK";

/// Names one of our requests. Random, so that nobody can answer what they have not received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId {
    branch: u64,
    /// CANCEL has the branch of its INVITE and is a transaction of its own all the same.
    cancel: bool,
}

impl TransactionId {
    /// From 64 random bits.
    pub const fn new(random: u64) -> Self {
        Self {
            branch: random,
            cancel: false,
        }
    }

    /// Of the CANCEL of this INVITE.
    pub const fn of_cancel(self) -> Self {
        Self { cancel: true, ..self }
    }

    /// The one that a response belongs to, by branch and method; `None` where the branch is none of ours.
    pub fn of_response(headers: &Headers) -> Option<Self> {
        let via = Via::parse(headers.get("Via")?)?;
        let hex = via.branch()?.strip_prefix(MAGIC_COOKIE)?;
        let plain = hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        Some(Self {
            branch: plain.then(|| u64::from_str_radix(hex, 16).ok()).flatten()?,
            cancel: CSeq::parse(headers.get("CSeq")?)?.method == Method::Cancel,
        })
    }
}

impl fmt::Display for TransactionId {
    /// The branch.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MAGIC_COOKIE}{:016x}", self.branch)
    }
}

/// Too many requests are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {TRANSACTIONS_MAX} requests are under way")]
pub struct Full;

/// What a response means for our request.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<R, K> {
    /// No request of ours is waiting for it.
    Unknown,
    /// The final answer is still to come.
    Provisional(K),
    /// The final answer. A refused INVITE has its ACK, to be sent now.
    Final(K, Option<(R, Bytes)>),
    /// The final answer once more; its ACK is to be sent again.
    Again(Option<(R, Bytes)>),
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub enum Due<R, K> {
    /// To be sent again.
    Resend(R, Bytes),
    /// No answer has come in time.
    TimedOut(K),
}

#[derive(Debug)]
enum State {
    Trying,
    Proceeding,
    /// Refused INVITE: the ACK, for answers that come again.
    Completed(Bytes),
}

#[derive(Debug)]
struct Pending<R, K> {
    route: R,
    /// Over TCP nothing is sent twice.
    reliable: bool,
    method: Method,
    data: Bytes,
    /// The request itself, of which the ACK is made.
    invite: Option<Request>,
    owner: K,
    state: State,
    interval: Duration,
    resend: Option<Instant>,
    deadline: Instant,
}

/// Our requests that wait for an answer. `R` is where they go, `K` what they are for.
#[derive(Debug)]
pub struct ClientTransactions<R, K> {
    pending: HashMap<TransactionId, Pending<R, K>>,
    timers: Timers<TransactionId>,
}

impl<R: Clone, K: Clone> ClientTransactions<R, K> {
    /// None.
    pub fn new() -> Self {
        Self {
            pending: HashMap::new(),
            timers: Timers::new(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Begins: gives the bytes to be sent now. The request's topmost Via must carry `id` as its branch.
    pub fn start(
        &mut self,
        now: Instant,
        id: TransactionId,
        request: &Request,
        route: R,
        reliable: bool,
        owner: K,
    ) -> Result<Bytes, Full> {
        if self.pending.len() >= TRANSACTIONS_MAX {
            return Err(Full);
        }
        let data = request.to_bytes();
        let pending = Pending {
            route,
            reliable,
            method: request.method.clone(),
            data: data.clone(),
            invite: (request.method == Method::Invite).then(|| request.clone()),
            owner,
            state: State::Trying,
            interval: T1,
            resend: (!reliable).then(|| now + T1),
            deadline: now + TIMEOUT,
        };
        self.timers.set(id, Some(pending.wake()));
        self.pending.insert(id, pending);
        Ok(data)
    }

    /// Where a request went; `None` if it is not under way.
    pub fn route(&self, id: TransactionId) -> Option<&R> {
        self.pending.get(&id).map(|p| &p.route)
    }

    /// Takes a response.
    pub fn on_response(&mut self, now: Instant, id: TransactionId, response: &Response) -> Outcome<R, K> {
        let Some(pending) = self.pending.get_mut(&id) else {
            return Outcome::Unknown;
        };
        let invite = pending.method == Method::Invite;
        if let State::Completed(ack) = &pending.state {
            let resend = (response.status >= 300).then(|| (pending.route.clone(), ack.clone()));
            return Outcome::Again(resend);
        }
        if response.status < 200 {
            pending.provisional(now);
            self.timers.set(id, Some(pending.wake()));
            return Outcome::Provisional(pending.owner.clone());
        }
        let owner = pending.owner.clone();
        if !invite || response.is_success() {
            self.remove(id);
            return Outcome::Final(owner, None);
        }
        let ack = pending.invite.as_ref().map(|i| ack_of_refusal(i, response).to_bytes());
        let sent = ack.clone().map(|ack| (pending.route.clone(), ack));
        match ack {
            Some(ack) if !pending.reliable => {
                pending.state = State::Completed(ack);
                pending.resend = None;
                pending.deadline = now + TIMEOUT;
                self.timers.set(id, Some(pending.deadline));
            }
            _ => self.remove(id),
        }
        Outcome::Final(owner, sent)
    }

    /// Waits no longer than that for the final answer.
    pub fn expire_by(&mut self, id: TransactionId, deadline: Instant) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.deadline = pending.deadline.min(deadline);
            self.timers.set(id, Some(pending.wake()));
        }
    }

    /// Forgets a request.
    pub fn remove(&mut self, id: TransactionId) {
        self.pending.remove(&id);
        self.timers.set(id, None);
    }

    /// Forgets every request that goes a way which is closed, and says what they were for.
    pub fn fail(&mut self, closed: impl Fn(&R) -> bool) -> Vec<K> {
        let ids: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, p)| closed(&p.route))
            .map(|(id, _)| *id)
            .collect();
        let mut owners = Vec::new();
        for id in ids {
            if let Some(pending) = self.pending.remove(&id)
                && !matches!(pending.state, State::Completed(_))
            {
                owners.push(pending.owner);
            }
            self.timers.set(id, None);
        }
        owners
    }

    /// When to call [`Self::poll_due`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next thing that is due; call until there is none.
    pub fn poll_due(&mut self, now: Instant) -> Option<Due<R, K>> {
        loop {
            let id = self.timers.pop_due(now)?;
            let Some(pending) = self.pending.get_mut(&id) else {
                continue;
            };
            if pending.deadline <= now {
                let pending = self.pending.remove(&id)?;
                match pending.state {
                    State::Completed(_) => continue,
                    State::Trying | State::Proceeding => return Some(Due::TimedOut(pending.owner)),
                }
            }
            // However late the call comes, a request is sent once and not once for every interval that has passed.
            pending.interval *= 2;
            if pending.method != Method::Invite {
                pending.interval = pending.interval.min(T2);
            }
            pending.resend = Some(now + pending.interval);
            self.timers.set(id, Some(pending.wake()));
            return Some(Due::Resend(pending.route.clone(), pending.data.clone()));
        }
    }
}

impl<R: Clone, K: Clone> Default for ClientTransactions<R, K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R, K> Pending<R, K> {
    fn wake(&self) -> Instant {
        self.resend.map_or(self.deadline, |r| r.min(self.deadline))
    }

    fn provisional(&mut self, now: Instant) {
        if self.method == Method::Invite {
            self.resend = None;
            if matches!(self.state, State::Trying) {
                self.deadline = now + RINGING_MAX;
            }
        } else if !self.reliable {
            self.interval = T2;
            self.resend = Some(now + T2);
        }
        self.state = State::Proceeding;
    }
}

/// The ACK of an INVITE that was refused (section 17.1.1.3).
fn ack_of_refusal(invite: &Request, response: &Response) -> Request {
    let mut ack = Request::new(Method::Ack, invite.uri.clone());
    if let Some(via) = invite.headers.get("Via") {
        ack.headers.push("Via", via);
    }
    for route in invite.headers.get_all("Route") {
        ack.headers.push("Route", route);
    }
    ack.headers.push("From", invite.headers.get("From").unwrap_or_default());
    let to = response.headers.get("To").or(invite.headers.get("To"));
    ack.headers.push("To", to.unwrap_or_default());
    ack.headers
        .push("Call-ID", invite.headers.get("Call-ID").unwrap_or_default());
    ack.headers
        .push("CSeq", format!("{} ACK", invite.headers.cseq_number()));
    ack.headers.push("Max-Forwards", "70");
    ack
}

/// The CANCEL of an INVITE (section 9.1).
pub fn cancel(invite: &Request) -> Request {
    let mut cancel = Request::new(Method::Cancel, invite.uri.clone());
    for name in ["Via", "Route", "From", "To", "Call-ID"] {
        for value in invite.headers.get_all(name) {
            cancel.headers.push(name, value);
        }
    }
    cancel
        .headers
        .push("CSeq", format!("{} CANCEL", invite.headers.cseq_number()));
    cancel.headers.push("Max-Forwards", "70");
    cancel
}

/// The number of a `CSeq` header.
pub(crate) trait CSeqNumber {
    /// 0 where there is none.
    fn cseq_number(&self) -> u32;
}

impl CSeqNumber for Headers {
    fn cseq_number(&self) -> u32 {
        self.get("CSeq").and_then(CSeq::parse).map_or(0, |cseq| cseq.number)
    }
}

/// Answers that were given, for requests that come again (section 17.2). Only what trusted peers have asked belongs in here: strangers
/// would push it out.
#[derive(Debug, Default)]
pub struct Responses {
    given: HashMap<u64, Bytes>,
    order: VecDeque<(Instant, u64)>,
    hasher: RandomState,
}

impl Responses {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// What tells a request from others (section 17.2.3), and from those of devices that give several the same branch.
    pub fn key(&self, request: &Request, peer: IpAddr) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        peer.hash(&mut hasher);
        request.method.hash(&mut hasher);
        request.uri.hash(&mut hasher);
        for name in ["Via", "Call-ID", "CSeq", "From", "Authorization", "Expires"] {
            request.headers.get(name).hash(&mut hasher);
        }
        request.body.hash(&mut hasher);
        hasher.finish()
    }

    /// The answer that was given.
    pub fn get(&mut self, now: Instant, key: u64) -> Option<Bytes> {
        while let Some((at, oldest)) = self.order.front() {
            if now.saturating_duration_since(*at) < TIMEOUT {
                break;
            }
            self.given.remove(oldest);
            self.order.pop_front();
        }
        self.given.get(&key).cloned()
    }

    /// Keeps an answer.
    pub fn put(&mut self, now: Instant, key: u64, data: Bytes) {
        if self.given.insert(key, data).is_none() {
            self.order.push_back((now, key));
        }
        if self.order.len() > RESPONSES_MAX
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.given.remove(&oldest);
        }
    }
}

/// ACK and BYE for an answer to an INVITE that nobody waits for any more: the peer would send media to nobody. Made of the response
/// alone; `None` where it lacks what a dialog needs.
pub fn decline_late_answer(response: &Response) -> Option<(Request, Request)> {
    let headers = &response.headers;
    let target = headers
        .get("Contact")
        .and_then(NameAddr::parse)
        .or_else(|| NameAddr::parse(headers.get("To")?))?;
    let number = headers.cseq_number();
    let make = |method: Method, number: u32| -> Option<Request> {
        let cseq = format!("{number} {method}");
        let mut request = Request::new(method, target.uri.clone());
        for name in ["From", "To", "Call-ID"] {
            request.headers.push(name, headers.get(name)?);
        }
        request.headers.push("CSeq", cseq);
        request.headers.push("Max-Forwards", "70");
        Some(request)
    };
    Some((make(Method::Ack, number)?, make(Method::Bye, number.saturating_add(1))?))
}
