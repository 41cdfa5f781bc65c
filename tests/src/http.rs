//! A client of the recorder's HTTP API, as small as can be: one request a connection, nothing repaired that the server does wrong.

use std::{
    fmt::Write as _,
    io::{Read, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use serde_json::{Value, json};

use crate::daemon::Daemon;

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Where requests go, and what each of them carries.
#[derive(Debug, Clone)]
pub struct Http {
    to: To,
    headers: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
enum To {
    Port(u16),
    Socket(PathBuf),
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.text()))
    }

    /// Reads an answer; `None` if it is none, or cut off.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.lines();
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let headers: Vec<_> = lines
            .filter_map(|l| l.split_once(':'))
            .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()))
            .collect();
        let body = bytes[end + 4..].to_vec();
        let reply = Self { status, headers, body };
        if reply.header("transfer-encoding") == Some("chunked") {
            let body = unchunk(&reply.body)?;
            return Some(Self { body, ..reply });
        }
        Some(reply)
    }
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        body.extend_from_slice(rest.get(end + 2..end + 2 + len)?);
        rest = rest.get(end + 4 + len..)?;
        if len == 0 {
            return Some(body);
        }
    }
}

impl Http {
    /// Over the network, as nobody.
    pub const fn to_port(port: u16) -> Self {
        Self {
            to: To::Port(port),
            headers: Vec::new(),
        }
    }

    /// Over the control socket.
    pub fn local(daemon: &Daemon) -> Self {
        Self {
            to: To::Socket(daemon.path("run/corenvr.sock")),
            headers: Vec::new(),
        }
    }

    /// With another header.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut with = self.clone();
        with.headers.push((name.to_owned(), value.to_owned()));
        with
    }

    /// With a token.
    pub fn token(&self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// `GET`
    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, None)
    }

    /// `GET` of JSON, which must succeed.
    pub fn json(&self, path: &str) -> Value {
        let reply = self.get(path);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.json()
    }

    /// Any method, with a body of JSON if there is one.
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        self.send_text(method, path, body.map(Value::to_string))
    }

    /// As [`Self::send`], with a body as it is written.
    pub fn send_text(&self, method: &str, path: &str, body: Option<String>) -> Reply {
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        let has = |name: &str| self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        if !has("host") {
            head.push_str("host: recorder\r\n");
        }
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if let Some(body) = &body {
            if !has("content-type") {
                head.push_str("content-type: application/json\r\n");
            }
            let _ = write!(head, "content-length: {}\r\n", body.len());
        }
        let request = format!("{head}\r\n{}", body.unwrap_or_default());
        let answer = self.raw(request.as_bytes());
        Reply::parse(&answer)
            .unwrap_or_else(|| panic!("{method} {path}: not an answer: {}", String::from_utf8_lossy(&answer)))
    }

    /// Sends bytes and reads until the server closes; also after an error, what came before it.
    pub fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        match &self.to {
            To::Port(port) => {
                let mut stream = TcpStream::connect(("127.0.0.1", *port)).unwrap();
                stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
                let _ = stream.write_all(request);
                let _ = stream.read_to_end(&mut answer);
            }
            To::Socket(path) => {
                let mut stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
                let _ = stream.write_all(request);
                let _ = stream.read_to_end(&mut answer);
            }
        }
        answer
    }
}

/// The password of the accounts that [`account`] makes.
pub const PASSWORD: &str = "correct horse battery";

/// Makes an account over the control socket and gives its name a token. `grants` as `[{"cameras": [..], "allow": [..]}]`.
pub fn account(daemon: &Daemon, name: &str, role: &str, grants: &Value) -> Http {
    let local = Http::local(daemon);
    let new = json!({ "name": name, "password": PASSWORD, "role": role, "grants": grants });
    let made = local.send("POST", "/api/v1/users", Some(&new));
    assert_eq!(made.status, 201, "{}", made.text());
    let label = json!({ "label": "test" });
    let token = local.send("POST", &format!("/api/v1/users/{name}/tokens"), Some(&label));
    assert_eq!(token.status, 201, "{}", token.text());
    Http::to_port(daemon.http_port).token(token.json()["token"].as_str().unwrap())
}

/// The recorder's description of its API, as it serves it.
pub struct Description(Value);

impl Description {
    /// Asks for it.
    pub fn of(http: &Http) -> Self {
        Self(http.json("/api/v1/openapi.json"))
    }

    /// Whether an answer to `method` on the path `pattern` is one that is described: its status, its type, its body, its headers.
    pub fn check(&self, method: &str, pattern: &str, reply: &Reply) {
        let operation = &self.0["paths"][pattern][method.to_ascii_lowercase()];
        let what = format!("{method} {pattern}: {} {}", reply.status, reply.text());
        let mut described = &operation["responses"][reply.status.to_string()];
        if let Some(link) = described["$ref"].as_str() {
            described = self.0.pointer(link.trim_start_matches('#')).unwrap();
        }
        assert!(described.is_object(), "not described: {what}");
        for name in described["headers"].as_object().into_iter().flat_map(|h| h.keys()) {
            assert!(
                reply.header(&name.to_ascii_lowercase()).is_some(),
                "{name} is missing: {what}"
            );
        }
        let Some(content) = described["content"].as_object() else {
            return assert!(reply.body.is_empty(), "no body is described: {what}");
        };
        let kind = reply.header("content-type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default();
        let described = content
            .get(kind)
            .unwrap_or_else(|| panic!("{kind} is not described: {what}"));
        if !kind.ends_with("json") {
            return;
        }
        let mut schema = described["schema"].clone();
        schema["components"] = self.0["components"].clone();
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&schema)
            .unwrap();
        let wrong: Vec<_> = validator
            .iter_errors(&reply.json())
            .map(|e| format!("{} at {}", e, e.instance_path()))
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}: {what}");
    }

    /// Sends a request and checks that its answer is described.
    pub fn send(&self, http: &Http, method: &str, (pattern, path): (&str, &str), body: Option<&Value>) -> Reply {
        let reply = http.send(method, path, body);
        self.check(method, pattern, &reply);
        reply
    }
}
