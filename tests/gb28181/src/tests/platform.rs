//! A platform for tests: it answers what the device asks, and asks what a test wants.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use super::{DEVICE, SERVER};
use crate::{
    Deviations, SipTransport,
    sip::{
        digest::Challenge,
        message::{Message, parameter, uri_of},
    },
};

const PATIENCE: Duration = Duration::from_secs(15);
const CHALLENGE: &str = "Digest realm=\"3402000000\", nonce=\"0123456789abcdef\", algorithm=MD5, qop=\"auth\"";

enum Socket {
    Udp(UdpSocket, Option<SocketAddr>),
    Tcp(TcpListener, Option<TcpStream>, Vec<u8>),
}

pub struct Platform {
    pub port: u16,
    socket: Socket,
    count: u32,
    /// Every request of the device, in order.
    pub seen: Vec<Message>,
    /// The status of answers to keepalives.
    pub keepalive_status: u16,
}

/// A dialog that the platform began.
pub struct Call {
    pub answer: Message,
    pub sdp: String,
    id: String,
    target: String,
    cseq: u32,
}

impl Platform {
    pub fn new(transport: SipTransport) -> Self {
        let (socket, port) = match transport {
            SipTransport::Udp => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                let port = socket.local_addr().unwrap().port();
                (Socket::Udp(socket, None), port)
            }
            SipTransport::Tcp => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                let port = listener.local_addr().unwrap().port();
                (Socket::Tcp(listener, None, Vec::new()), port)
            }
        };
        Self {
            port,
            socket,
            count: 0,
            seen: Vec::new(),
            keepalive_status: 200,
        }
    }

    /// Where the device's last message came from.
    pub fn device(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Udp(_, from) => *from,
            Socket::Tcp(_, stream, _) => stream.as_ref().and_then(|s| s.peer_addr().ok()),
        }
    }

    /// Waits for a new connection of the device.
    pub fn accept_again(&mut self) {
        self.seen.clear();
        if let Socket::Tcp(_, stream, buffer) = &mut self.socket {
            *stream = None;
            buffer.clear();
        }
    }

    fn send(&mut self, message: &Message) {
        let bytes = message.render(Deviations::NONE, false);
        match &mut self.socket {
            Socket::Udp(socket, to) => drop(socket.send_to(&bytes, to.unwrap()).unwrap()),
            Socket::Tcp(_, stream, _) => stream.as_mut().unwrap().write_all(&bytes).unwrap(),
        }
    }

    fn receive(&mut self) -> Option<Message> {
        match &mut self.socket {
            Socket::Udp(socket, from) => {
                let mut buffer = vec![0; 65_536];
                let (len, peer) = socket.recv_from(&mut buffer).ok()?;
                if buffer[..len].iter().all(u8::is_ascii_whitespace) {
                    return None;
                }
                *from = Some(peer);
                Some(Message::parse(&buffer[..len]).unwrap())
            }
            Socket::Tcp(listener, stream, buffer) => {
                let stream = stream.get_or_insert_with(|| {
                    let stream = listener.accept().unwrap().0;
                    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                    stream
                });
                if let Some(message) = Message::take(buffer).unwrap() {
                    return Some(message);
                }
                let mut chunk = [0; 4096];
                let len = stream.read(&mut chunk).ok()?;
                buffer.extend_from_slice(&chunk[..len]);
                Message::take(buffer).unwrap()
            }
        }
    }

    /// Takes one message; requests of the device are answered.
    fn step(&mut self) -> Option<Message> {
        let message = self.receive()?;
        if message.status().is_some() {
            return Some(message);
        }
        let (mut status, mut more) = (200, None);
        if message.method() == "REGISTER" {
            let expected = message.get("Authorization").is_some_and(|sent| {
                let mut challenge = Challenge::parse(CHALLENGE).unwrap();
                challenge.qop = sent.contains("qop=auth");
                let quoted = |name: &str| sent.split(&format!("{name}=\"")).nth(1)?.split('"').next();
                let user = quoted("username").unwrap();
                let answer = challenge.answer(
                    (user, "secret"),
                    "REGISTER",
                    message.uri(),
                    1,
                    quoted("cnonce").unwrap_or(""),
                );
                answer.contains(&format!("response=\"{}\"", quoted("response").unwrap()))
            });
            if expected {
                more = Some(("Date", "2026-11-21T06:23:29.135"));
            } else {
                status = 401;
                more = Some(("WWW-Authenticate", CHALLENGE));
            }
        } else if String::from_utf8_lossy(&message.body).contains("Keepalive") {
            status = self.keepalive_status;
        }
        let mut answer = Message::new(format!("SIP/2.0 {status} X"));
        for name in ["Via", "From", "To", "Call-ID", "CSeq", "Contact", "Expires"] {
            if let Some(value) = message.get(name) {
                answer = answer.with(name, value);
            }
        }
        if let Some((name, value)) = more {
            answer = answer.with(name, value);
        }
        self.send(&answer);
        self.seen.push(message.clone());
        Some(message)
    }

    /// Goes on until a request that was or is seen is the wanted one.
    pub fn until(&mut self, wanted: impl Fn(&Message) -> bool) -> Message {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.seen.iter().position(&wanted) {
                return self.seen.remove(found);
            }
            assert!(Instant::now() < deadline, "waited in vain; seen: {:#?}", self.seen);
            self.step();
        }
    }

    /// Goes on until a body contains all of these texts; the body.
    pub fn until_body(&mut self, texts: &[&str]) -> String {
        let decoded = |m: &Message| crate::sip::xml::decode(&m.body);
        decoded(&self.until(|m| texts.iter().all(|t| decoded(m).contains(t))))
    }

    pub fn register(&mut self) {
        self.until(|m| m.method() == "REGISTER" && m.get("Authorization").is_some());
    }

    /// Goes on for a while.
    pub fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.step();
        }
    }

    fn request(&mut self, method: &str, target: &str, call_id: &str, cseq: u32, to: &str) -> Message {
        self.count += 1;
        let transport = if matches!(self.socket, Socket::Udp(..)) {
            "UDP"
        } else {
            "TCP"
        };
        Message::new(format!("{method} {target} SIP/2.0"))
            .with(
                "Via",
                format!(
                    "SIP/2.0/{transport} 127.0.0.1:{};rport;branch=z9hG4bKp{}",
                    self.port, self.count
                ),
            )
            .with("From", format!("<sip:{SERVER}@3402000000>;tag=p"))
            .with("To", to)
            .with("Call-ID", call_id)
            .with("CSeq", format!("{cseq} {method}"))
            .with("Contact", format!("<sip:{SERVER}@127.0.0.1:{}>", self.port))
            .with("Max-Forwards", "70")
    }

    /// Sends a request and waits for its final answer.
    fn exchange(&mut self, request: &Message) -> Message {
        self.send(request);
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no answer to {request:#?}");
            let Some(message) = self.step() else { continue };
            let same = message.branch() == request.branch();
            if same && message.status().is_some_and(|s| s >= 200) {
                return message;
            }
        }
    }

    /// A MESSAGE or SUBSCRIBE outside of any dialog; its answer.
    pub fn ask(&mut self, method: &str, headers: &[(&str, &str)], body: &str) -> Message {
        let call_id = format!("ask{}", self.count);
        let target = format!("sip:{DEVICE}@{}", self.device().unwrap());
        let mut request = self.request(method, &target, &call_id, 1, &format!("<{target}>"));
        for (name, value) in headers {
            request = request.with(name, *value);
        }
        let text = format!("<?xml version=\"1.0\" encoding=\"GB2312\"?>\r\n{body}");
        self.exchange(&request.with_body("Application/MANSCDP+xml", text.into_bytes()))
    }

    /// An INVITE; with an ACK if it is accepted.
    pub fn invite(&mut self, channel: &str, sdp: &str) -> Result<Call, u16> {
        let call_id = format!("call{}", self.count);
        let target = format!("sip:{channel}@{}", self.device().unwrap());
        let request = self.request("INVITE", &target, &call_id, 1, &format!("<{target}>"));
        let request = request.with("Subject", format!("{channel}:0200000001,{SERVER}:0"));
        let answer = self.exchange(&request.with_body("application/sdp", sdp.as_bytes().to_vec()));
        let status = answer.status().unwrap();
        if status != 200 {
            return Err(status);
        }
        let target = answer.get("Contact").map_or(target, |c| uri_of(c).to_owned());
        let to = answer.get("To").unwrap().to_owned();
        assert!(parameter(&to, "tag").is_some());
        let ack = self.request("ACK", &target, &call_id, 1, &to);
        self.send(&ack);
        Ok(Call {
            sdp: String::from_utf8(answer.body.clone()).unwrap(),
            answer,
            id: call_id,
            target,
            cseq: 1,
        })
    }

    /// A request in a dialog; its answer.
    pub fn within(&mut self, call: &mut Call, method: &str, body: &str) -> Message {
        call.cseq += 1;
        let to = call.answer.get("To").unwrap().to_owned();
        let request = self.request(method, &call.target, &call.id, call.cseq, &to);
        let request = if body.is_empty() {
            request
        } else {
            request.with_body("Application/MANSRTSP", body.as_bytes().to_vec())
        };
        self.exchange(&request)
    }
}

/// An offer.
pub fn offer(kind: &str, transport: &str, port: u16, time: &str, ssrc: u32) -> String {
    let (protocol, setup) = match transport {
        "udp" => ("RTP/AVP", String::new()),
        other => ("TCP/RTP/AVP", format!("a=setup:{other}\r\na=connection:new\r\n")),
    };
    format!(
        "v=0\r\no={SERVER} 0 0 IN IP4 127.0.0.1\r\ns={kind}\r\nc=IN IP4 127.0.0.1\r\nt={time}\r\nm=video {port} {protocol} 96 98 99\r\n\
         a=recvonly\r\na=rtpmap:96 PS/90000\r\na=rtpmap:98 H264/90000\r\na=rtpmap:99 H265/90000\r\n{setup}a=downloadspeed:4\r\ny={ssrc:010}\r\nf=\r\n"
    )
}
