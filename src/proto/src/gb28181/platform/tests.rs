//! The platform against scripted devices on virtual time. The devices' texts are written out here and not by the code under test.

mod catalog;
mod limits;
mod presence;
mod register;
mod sessions;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use corenvr_media::WallTime;
use md5::{Digest as _, Md5};

use super::*;

pub(super) const SERVER: &str = "34020000002000000001";
pub(super) const CAMERA: &str = "34020000001320000001";
pub(super) const PASSWORD: &str = "s3cret";
/// 2026-11-20T22:23:29.135Z, the standard's example in Beijing.
const START_MS: i64 = 1_795_213_409_135;

pub(super) fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The address that devices call.
pub(super) fn local() -> SocketAddr {
    address("192.0.2.1:5060")
}

/// The camera's.
pub(super) fn home() -> SocketAddr {
    address("192.0.2.20:5070")
}

pub(super) fn config() -> PlatformConfig {
    PlatformConfig {
        id: id(SERVER),
        domain: "3402000000".to_owned(),
        announce: None,
        send_date: true,
        utc_offset_s: 28_800,
        unknown: UnknownDevices::Pending,
        password: Some(PASSWORD.to_owned()),
    }
}

/// A platform with its clocks and everything that came out of it.
pub(super) struct Rig {
    pub platform: Platform,
    pub start: Instant,
    pub now: Instant,
    pub sent: Vec<(Route, String)>,
    pub events: Vec<Event>,
    pub closed: Vec<ConnectionId>,
}

impl Rig {
    /// With the camera among the accounts.
    pub fn new() -> Self {
        let mut rig = Self::with(config());
        rig.platform.set_accounts([(id(CAMERA), None)].into());
        rig
    }

    pub fn with(config: PlatformConfig) -> Self {
        let start = Instant::now();
        Self {
            platform: Platform::new(start, config, [7; 32]),
            start,
            now: start,
            sent: Vec::new(),
            events: Vec::new(),
            closed: Vec::new(),
        }
    }

    /// With the camera registered and its own questions answered, at the camera's address.
    pub fn online() -> Self {
        let mut rig = Self::new();
        rig.register(CAMERA, home(), 3600);
        rig.clear();
        rig
    }

    pub fn wall(&self) -> WallTime {
        WallTime::from_millis(START_MS + (self.now - self.start).as_millis() as i64)
    }

    fn collect(&mut self) {
        while let Some(t) = self.platform.poll_transmit() {
            self.sent.push((t.route, String::from_utf8_lossy(&t.data).into_owned()));
        }
        while let Some(id) = self.platform.poll_close() {
            self.closed.push(id);
        }
        while let Some(event) = self.platform.poll_event() {
            self.events.push(event);
        }
    }

    /// Forgets what came out so far.
    pub fn clear(&mut self) {
        self.collect();
        self.sent.clear();
        self.events.clear();
    }

    pub fn udp(&mut self, peer: SocketAddr, text: &str) {
        let wall = self.wall();
        self.platform.datagram(self.now, wall, local(), peer, text.as_bytes());
        self.collect();
    }

    pub fn tcp(&mut self, connection: u64, text: &str) {
        let wall = self.wall();
        let mut data = BytesMut::from(text.as_bytes());
        self.platform.input(self.now, wall, ConnectionId(connection), &mut data);
        self.collect();
    }

    pub fn connect(&mut self, connection: u64, peer: SocketAddr) {
        self.platform
            .connected(self.now, ConnectionId(connection), local(), peer);
        self.collect();
    }

    pub fn disconnect(&mut self, connection: u64) {
        let wall = self.wall();
        self.platform.closed(self.now, wall, ConnectionId(connection));
        self.collect();
    }

    /// Lets time pass, with everything that falls due.
    pub fn advance(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        let mut rounds = 0;
        while let Some(due) = self.platform.poll_timeout().filter(|t| *t <= end) {
            rounds += 1;
            assert!(rounds < 100_000, "timers that never end");
            self.now = self.now.max(due);
            let wall = self.wall();
            self.platform.handle_timeout(self.now, wall);
            self.collect();
        }
        self.now = end;
    }

    /// The last message out, which must begin so; all others are forgotten.
    pub fn last(&mut self, begins: &str) -> String {
        let (_, text) = self.sent.pop().expect("nothing was sent");
        assert!(text.starts_with(begins), "{text}");
        self.sent.clear();
        text
    }

    /// The messages out that begin so, and forgets all of them.
    pub fn all(&mut self, begins: &str) -> Vec<String> {
        let all = std::mem::take(&mut self.sent);
        all.into_iter()
            .map(|(_, t)| t)
            .filter(|t| t.starts_with(begins))
            .collect()
    }

    /// The events but [`Event::Persist`], and forgets them.
    pub fn happened(&mut self) -> Vec<Event> {
        let events = std::mem::take(&mut self.events);
        events.into_iter().filter(|e| *e != Event::Persist).collect()
    }

    /// Registers over UDP, with qop.
    pub fn register(&mut self, device: &str, peer: SocketAddr, expires: u32) {
        self.udp(peer, &register(device, 1, expires, ""));
        let challenge = self.last("SIP/2.0 401");
        let authorization = answer(&challenge, device, PASSWORD, Qop::Auth);
        self.udp(peer, &register(device, 2, expires, &authorization));
        self.last("SIP/2.0 200");
    }

    /// Answers every request of ours with 200.
    pub fn accept_all(&mut self, peer: SocketAddr) -> Vec<String> {
        let requests: Vec<_> = std::mem::take(&mut self.sent).into_iter().map(|(_, t)| t).collect();
        for request in requests
            .iter()
            .filter(|r| !r.starts_with("SIP/") && !r.starts_with("ACK"))
        {
            self.udp(peer, &reply(request, "200 OK", "", ""));
        }
        requests
    }

    pub fn device(&self) -> &Device {
        self.platform.device(id(CAMERA)).unwrap()
    }
}

/// The value of a header.
pub(super) fn header<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines()
        .find_map(|l| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)))
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .1
}

pub(super) fn body(text: &str) -> &str {
    text.split_once("\r\n\r\n").unwrap().1
}

/// What stands between two texts.
pub(super) fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("no {before} in {text}"));
    rest.split_once(after)
        .unwrap_or_else(|| panic!("no {after} in {rest}"))
        .0
}

pub(super) fn register(device: &str, cseq: u32, expires: u32, more: &str) -> String {
    register_call(device, "reg-1", cseq, expires, more)
}

pub(super) fn register_call(device: &str, call: &str, cseq: u32, expires: u32, more: &str) -> String {
    format!(
        "REGISTER sip:{SERVER}@3402000000 SIP/2.0\r\nVia: SIP/2.0/UDP 10.9.9.9:5060;rport;branch=z9hG4bK{call}{cseq}\r\n\
         From: <sip:{device}@3402000000>;tag=77\r\nTo: <sip:{device}@3402000000>\r\nCall-ID: {call}{device}\r\nCSeq: {cseq} REGISTER\r\n\
         Contact: <sip:{device}@10.9.9.9:5060>\r\nMax-Forwards: 70\r\nUser-Agent: TestCam 1.0\r\nX-GB-Ver: 2.0\r\nExpires: {expires}\r\n{more}\
         Content-Length: 0\r\n\r\n"
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Qop {
    None,
    Auth,
    AuthInt,
}

fn md5(text: &str) -> String {
    format!("{:032x}", u128::from_be_bytes(Md5::digest(text.as_bytes()).into()))
}

/// An Authorization header line for a challenge.
pub(super) fn answer(challenge: &str, username: &str, password: &str, qop: Qop) -> String {
    let challenge = header(challenge, "WWW-Authenticate");
    let realm = between(challenge, "realm=\"", "\"");
    let nonce = between(challenge, "nonce=\"", "\"");
    let uri = format!("sip:{SERVER}@192.0.2.1:5060");
    let ha1 = md5(&format!("{username}:{realm}:{password}"));
    let ha2 = match qop {
        Qop::AuthInt => md5(&format!("REGISTER:{uri}:{}", md5(""))),
        _ => md5(&format!("REGISTER:{uri}")),
    };
    let (response, extra) = match qop {
        Qop::None => (md5(&format!("{ha1}:{nonce}:{ha2}")), String::new()),
        Qop::Auth | Qop::AuthInt => {
            let name = if qop == Qop::Auth { "auth" } else { "auth-int" };
            let response = md5(&format!("{ha1}:{nonce}:00000001:0a4f113b:{name}:{ha2}"));
            (response, format!(", qop={name}, nc=00000001, cnonce=\"0a4f113b\""))
        }
    };
    format!(
        "Authorization: Digest username=\"{username}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
         response=\"{response}\", algorithm=MD5{extra}\r\n"
    )
}

/// A response of a device to a request of ours.
pub(super) fn reply(request: &str, status: &str, headers: &str, body: &str) -> String {
    let to = header(request, "To");
    let tag = if to.contains("tag=") { "" } else { ";tag=dev1" };
    format!(
        "SIP/2.0 {status}\r\nVia: {}\r\nFrom: {}\r\nTo: {to}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        header(request, "Via"),
        header(request, "From"),
        header(request, "Call-ID"),
        header(request, "CSeq"),
        body.len(),
    )
}

/// A request of a device outside of a dialog, with a MANSCDP body.
pub(super) fn message(device: &str, cseq: u32, body: &str) -> String {
    format!(
        "MESSAGE sip:{SERVER}@3402000000 SIP/2.0\r\nVia: SIP/2.0/UDP 10.9.9.9:5060;rport;branch=z9hG4bKm{cseq}\r\n\
         From: <sip:{device}@3402000000>;tag=m{cseq}\r\nTo: <sip:{SERVER}@3402000000>\r\nCall-ID: m{cseq}@10.9.9.9\r\nCSeq: {cseq} MESSAGE\r\n\
         Max-Forwards: 70\r\nContent-Type: Application/MANSCDP+xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(super) fn keepalive(device: &str, cseq: u32) -> String {
    let body = format!(
        "<?xml version=\"1.0\"?>\r\n<Notify>\r\n<CmdType>Keepalive</CmdType>\r\n<SN>{cseq}</SN>\r\n<DeviceID>{device}</DeviceID>\r\n\
         <Status>OK</Status>\r\n</Notify>\r\n"
    );
    message(device, cseq, &body)
}
