//! A client of RTSP as small as can be, for what no player sends: one connection, requests by hand, Digest by SHA-256 with every part of it
//! in the caller's hands.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use sha2::{Digest, Sha256};

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

impl Reply {
    /// A header; the first of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The session that it names.
    pub fn session(&self) -> String {
        let session = self.header("session").expect("a session");
        session.split(';').next().unwrap_or_default().to_owned()
    }
}

/// A challenge by SHA-256, as far as an answer needs it.
#[derive(Debug, Clone)]
pub struct Challenge {
    /// The realm.
    pub realm: String,
    /// The nonce.
    pub nonce: String,
}

/// One connection.
pub struct Rtsp {
    stream: TcpStream,
    received: Vec<u8>,
    cseq: u32,
}

/// SHA-256 of parts joined by colons, in hexadecimal.
pub fn hash(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join(":"));
    digest.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

impl Challenge {
    /// The answer of a user to it, with this count of the nonce.
    pub fn answer(&self, name: &str, password: &str, method: &str, uri: &str, count: u32) -> String {
        let ha1 = hash(&[name, &self.realm, password]);
        let ha2 = hash(&[method, uri]);
        let nc = format!("{count:08x}");
        let response = hash(&[&ha1, &self.nonce, &nc, "c0ffee", "auth", &ha2]);
        self.with_response(name, uri, &nc, &response)
    }

    /// An answer with any response.
    pub fn with_response(&self, name: &str, uri: &str, nc: &str, response: &str) -> String {
        let Self { realm, nonce } = self;
        format!(
            "Authorization: Digest username=\"{name}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             algorithm=SHA-256, qop=auth, nc={nc}, cnonce=\"c0ffee\", response=\"{response}\"\r\n"
        )
    }
}

impl Rtsp {
    /// Connects.
    pub fn connect(port: u16) -> Self {
        Self::connect_from(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
    }

    /// Connects from another address of this machine.
    pub fn connect_from(from: IpAddr, port: u16) -> Self {
        let stream = connect_from(from, port);
        stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
        Self {
            stream,
            received: Vec::new(),
            cseq: 0,
        }
    }

    /// Sends bytes as they are; whether they could be sent.
    pub fn raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Asks. `headers` are whole lines.
    pub fn ask(&mut self, method: &str, uri: &str, headers: &str) -> Reply {
        self.try_ask(method, uri, headers)
            .unwrap_or_else(|| panic!("{method} {uri}: the connection was closed"))
    }

    /// As [`Self::ask`]; `None` if the connection is closed instead.
    pub fn try_ask(&mut self, method: &str, uri: &str, headers: &str) -> Option<Reply> {
        self.cseq += 1;
        let request = format!("{method} {uri} RTSP/1.0\r\nCSeq: {}\r\n{headers}\r\n", self.cseq);
        if !self.raw(request.as_bytes()) {
            return None;
        }
        self.reply()
    }

    /// The challenge that a request without a login is answered with.
    pub fn challenge(&mut self, method: &str, uri: &str) -> Challenge {
        self.challenge_to(method, uri, "")
    }

    fn challenge_to(&mut self, method: &str, uri: &str, headers: &str) -> Challenge {
        let reply = self.ask(method, uri, headers);
        assert_eq!(reply.status, 401, "{reply:?}");
        let header = reply
            .headers
            .iter()
            .find(|(n, v)| n == "www-authenticate" && v.contains("SHA-256"));
        let (_, value) = header.unwrap_or_else(|| panic!("no challenge: {reply:?}"));
        let part = |name: &str| {
            let (_, rest) = value
                .split_once(&format!("{name}=\""))
                .expect("a part of the challenge");
            rest.split('"').next().unwrap_or_default().to_owned()
        };
        Challenge {
            realm: part("realm"),
            nonce: part("nonce"),
        }
    }

    /// Asks with a login: a challenge first, then its answer.
    pub fn ask_as(&mut self, (name, password): (&str, &str), method: &str, uri: &str, headers: &str) -> Reply {
        let challenge = self.challenge_to(method, uri, headers);
        let login = challenge.answer(name, password, method, uri, 1);
        self.ask(method, uri, &format!("{login}{headers}"))
    }

    /// The next answer, past interleaved packets; `None` at the end of the connection.
    pub fn reply(&mut self) -> Option<Reply> {
        loop {
            if self.received.first() == Some(&b'$') {
                while self.received.len() < 4 || self.received.len() < 4 + self.packet_len() {
                    self.read_more()?;
                }
                let len = 4 + self.packet_len();
                self.received.drain(..len);
                continue;
            }
            if let Some(end) = self.received.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
                let headers: Vec<_> = head
                    .lines()
                    .filter_map(|l| l.split_once(':'))
                    .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()))
                    .collect();
                let mut reply = Reply {
                    status: head.get(9..12)?.parse().ok()?,
                    headers,
                    body: String::new(),
                };
                let len: usize = reply.header("content-length").map_or(0, |l| l.parse().unwrap());
                while self.received.len() < end + 4 + len {
                    self.read_more()?;
                }
                reply.body = String::from_utf8_lossy(&self.received[end + 4..end + 4 + len]).into_owned();
                self.received.drain(..end + 4 + len);
                return Some(reply);
            }
            self.read_more()?;
        }
    }

    fn packet_len(&self) -> usize {
        usize::from(u16::from_be_bytes([self.received[2], self.received[3]]))
    }

    fn read_more(&mut self) -> Option<()> {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => None,
            Ok(n) => {
                self.received.extend_from_slice(&buffer[..n]);
                Some(())
            }
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                panic!("no answer within {} s", ANSWER_LIMIT.as_secs())
            }
            Err(_) => None,
        }
    }
}

/// Connects from one of this machine's addresses of 127.0.0.0/8.
fn connect_from(from: IpAddr, port: u16) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::new(from, 0)).unwrap();
    connect(&socket, &SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    TcpStream::from(socket)
}
