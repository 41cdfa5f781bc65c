//! Requests and responses as values, and their text form.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Headers,
    header::{CSeq, NameAddr, Via},
};

/// A request method. Names are case-sensitive (RFC 3261 section 7.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Method {
    Register,
    Invite,
    Ack,
    Cancel,
    Bye,
    Options,
    Message,
    Info,
    Subscribe,
    Notify,
    /// Another one.
    Other(String),
}

impl Method {
    const KNOWN: [Self; 10] = [
        Self::Register,
        Self::Invite,
        Self::Ack,
        Self::Cancel,
        Self::Bye,
        Self::Options,
        Self::Message,
        Self::Info,
        Self::Subscribe,
        Self::Notify,
    ];

    /// The name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Register => "REGISTER",
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Cancel => "CANCEL",
            Self::Bye => "BYE",
            Self::Options => "OPTIONS",
            Self::Message => "MESSAGE",
            Self::Info => "INFO",
            Self::Subscribe => "SUBSCRIBE",
            Self::Notify => "NOTIFY",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for Method {
    fn from(name: &str) -> Self {
        Self::KNOWN
            .into_iter()
            .find(|m| m.as_str() == name)
            .unwrap_or_else(|| Self::Other(name.to_owned()))
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The reason phrase of a status code, or a word for its class.
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        423 => "Interval Too Brief",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        500 => "Server Internal Error",
        503 => "Service Unavailable",
        _ => match status / 100 {
            1 => "Progress",
            2 => "Success",
            3 => "Redirection",
            4 => "Client Error",
            5 => "Server Error",
            _ => "Global Failure",
        },
    }
}

/// A request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// To whom, as sent.
    pub uri: String,
    /// Header fields, without Content-Length.
    pub headers: Headers,
    /// The body; empty if there is none.
    pub body: Bytes,
}

impl Request {
    /// A request without headers.
    pub fn new(method: Method, uri: impl Into<String>) -> Self {
        Self {
            method,
            uri: uri.into(),
            headers: Headers::new(),
            body: Bytes::new(),
        }
    }

    /// Adds a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// Sets the body with its type.
    pub fn with_body(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.headers.set("Content-Type", content_type);
        self.body = body.into();
        self
    }

    /// The text form. Blanks and control characters of the URI are percent-encoded.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(512 + self.body.len());
        out.put_slice(self.method.as_str().as_bytes());
        out.put_u8(b' ');
        for &b in self.uri.as_bytes() {
            if b <= b' ' || b == 0x7F {
                out.put_slice(format!("%{b:02X}").as_bytes());
            } else {
                out.put_u8(b);
            }
        }
        out.put_slice(b" SIP/2.0\r\n");
        encode_rest(&self.headers, &self.body, &mut out);
        out.freeze()
    }

    /// A response to it with what RFC 3261 section 8.2.6.2 takes over: Via, From, To, Call-ID, `CSeq`. The topmost Via is told the
    /// address that the request came from (section 18.2.1, RFC 3581 section 4); `tag` is put into To where there is none.
    pub fn response(&self, status: u16, peer: std::net::SocketAddr, tag: &str) -> Response {
        let mut headers = Headers::new();
        for (i, value) in self.headers.get_all("Via").enumerate() {
            match (i == 0).then(|| Via::parse(value)).flatten() {
                Some(mut via) => {
                    via.received_from(peer);
                    headers.push("Via", via.to_string());
                }
                None => headers.push("Via", value),
            }
        }
        for name in ["Record-Route", "From"] {
            for value in self.headers.get_all(name) {
                headers.push(name, value);
            }
        }
        if let Some(to) = self.headers.get("To") {
            let tagged = status == 100 || NameAddr::parse(to).is_none_or(|a| a.tag().is_some());
            let to = if tagged {
                to.to_owned()
            } else {
                format!("{to};tag={tag}")
            };
            headers.push("To", to);
        }
        for name in ["Call-ID", "CSeq"] {
            if let Some(value) = self.headers.get(name) {
                headers.push(name, value);
            }
        }
        Response {
            status,
            reason: reason(status).to_owned(),
            headers,
            body: Bytes::new(),
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("uri", &self.uri)
            .field("headers", &self.headers)
            .field("body_len", &self.body.len())
            .finish()
    }
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Outcome, 100 to 699.
    pub status: u16,
    /// Reason phrase, for people.
    pub reason: String,
    /// Header fields, without Content-Length.
    pub headers: Headers,
    /// The body; empty if there is none.
    pub body: Bytes,
}

impl Response {
    /// Adds a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// 200 to 299.
    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    /// The text form. Control characters of the reason phrase become spaces.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(512 + self.body.len());
        out.put_slice(format!("SIP/2.0 {:03} ", self.status).as_bytes());
        for c in self.reason.chars() {
            let c = if c.is_control() { ' ' } else { c };
            out.put_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        out.put_slice(b"\r\n");
        encode_rest(&self.headers, &self.body, &mut out);
        out.freeze()
    }
}

fn encode_rest(headers: &Headers, body: &[u8], out: &mut BytesMut) {
    let rest = headers
        .iter()
        .filter(|(n, _)| !n.eq_ignore_ascii_case("Content-Length"));
    for (name, value) in rest {
        out.put_slice(name.as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    // Said with an empty body too: over TCP nothing else ends a message (section 18.3).
    out.put_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    out.put_slice(body);
}

/// What travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
}

impl Message {
    /// Its headers.
    pub const fn headers(&self) -> &Headers {
        match self {
            Self::Request(r) => &r.headers,
            Self::Response(r) => &r.headers,
        }
    }

    /// The text form.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Request(r) => r.to_bytes(),
            Self::Response(r) => r.to_bytes(),
        }
    }

    pub(super) fn set_body(&mut self, bytes: Bytes) {
        match self {
            Self::Request(r) => r.body = bytes,
            Self::Response(r) => r.body = bytes,
        }
    }

    /// The topmost Via.
    pub fn via(&self) -> Option<Via> {
        Via::parse(self.headers().get("Via")?)
    }

    /// Sequence number and method.
    pub fn cseq(&self) -> Option<CSeq> {
        CSeq::parse(self.headers().get("CSeq")?)
    }

    /// Who sends the request (also in its response).
    pub fn from(&self) -> Option<NameAddr> {
        NameAddr::parse(self.headers().get("From")?)
    }

    /// Whom the request is for (also in its response).
    pub fn to(&self) -> Option<NameAddr> {
        NameAddr::parse(self.headers().get("To")?)
    }
}
