//! Requests, responses and their headers as values, and their text form. Reading them from bytes is `decoder`'s work.

use std::{borrow::Cow, fmt};

use bytes::{BufMut, Bytes, BytesMut};

/// The most headers that one message may carry. A peer that sends more is answered 431, a camera's message is refused.
pub const HEADERS_MAX: usize = 128;

/// A request method (RFC 2326 section 10). Method names are case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Method {
    Options,
    Describe,
    Announce,
    Setup,
    Play,
    Pause,
    Teardown,
    GetParameter,
    SetParameter,
    Redirect,
    Record,
    /// A method that RFC 2326 does not name.
    Other(String),
}

impl Method {
    /// The name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Options => "OPTIONS",
            Self::Describe => "DESCRIBE",
            Self::Announce => "ANNOUNCE",
            Self::Setup => "SETUP",
            Self::Play => "PLAY",
            Self::Pause => "PAUSE",
            Self::Teardown => "TEARDOWN",
            Self::GetParameter => "GET_PARAMETER",
            Self::SetParameter => "SET_PARAMETER",
            Self::Redirect => "REDIRECT",
            Self::Record => "RECORD",
            Self::Other(name) => name,
        }
    }

    /// The methods with a meaning in RFC 2326.
    pub(crate) const KNOWN: [Self; 11] = [
        Self::Options,
        Self::Describe,
        Self::Announce,
        Self::Setup,
        Self::Play,
        Self::Pause,
        Self::Teardown,
        Self::GetParameter,
        Self::SetParameter,
        Self::Redirect,
        Self::Record,
    ];
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

/// A three-digit status code (RFC 2326 section 7.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatusCode(u16);

macro_rules! status_codes {
    ($($name:ident = $code:literal $reason:literal;)*) => {
        #[allow(missing_docs)]
        impl StatusCode {
            $(pub const $name: Self = Self($code);)*

            /// The reason phrase of RFC 2326, or a word for the class of an unknown code.
            pub fn reason(self) -> &'static str {
                match self.0 {
                    $($code => $reason,)*
                    0..=199 => "Continue",
                    200..=299 => "OK",
                    300..=399 => "Redirection",
                    400..=499 => "Client Error",
                    _ => "Server Error",
                }
            }
        }
    };
}

status_codes! {
    CONTINUE = 100 "Continue";
    OK = 200 "OK";
    MOVED_PERMANENTLY = 301 "Moved Permanently";
    FOUND = 302 "Moved Temporarily";
    BAD_REQUEST = 400 "Bad Request";
    UNAUTHORIZED = 401 "Unauthorized";
    FORBIDDEN = 403 "Forbidden";
    NOT_FOUND = 404 "Not Found";
    METHOD_NOT_ALLOWED = 405 "Method Not Allowed";
    NOT_ACCEPTABLE = 406 "Not Acceptable";
    REQUEST_TIMEOUT = 408 "Request Time-out";
    GONE = 410 "Gone";
    ENTITY_TOO_LARGE = 413 "Request Entity Too Large";
    URI_TOO_LARGE = 414 "Request-URI Too Large";
    UNSUPPORTED_MEDIA_TYPE = 415 "Unsupported Media Type";
    HEADERS_TOO_LARGE = 431 "Request Header Fields Too Large";
    PARAMETER_NOT_UNDERSTOOD = 451 "Parameter Not Understood";
    NOT_ENOUGH_BANDWIDTH = 453 "Not Enough Bandwidth";
    SESSION_NOT_FOUND = 454 "Session Not Found";
    METHOD_NOT_VALID_IN_STATE = 455 "Method Not Valid in This State";
    HEADER_FIELD_NOT_VALID = 456 "Header Field Not Valid for Resource";
    INVALID_RANGE = 457 "Invalid Range";
    PARAMETER_IS_READ_ONLY = 458 "Parameter Is Read-Only";
    AGGREGATE_NOT_ALLOWED = 459 "Aggregate operation not allowed";
    ONLY_AGGREGATE_ALLOWED = 460 "Only aggregate operation allowed";
    UNSUPPORTED_TRANSPORT = 461 "Unsupported transport";
    DESTINATION_UNREACHABLE = 462 "Destination unreachable";
    INTERNAL_SERVER_ERROR = 500 "Internal Server Error";
    NOT_IMPLEMENTED = 501 "Not Implemented";
    BAD_GATEWAY = 502 "Bad Gateway";
    SERVICE_UNAVAILABLE = 503 "Service Unavailable";
    GATEWAY_TIMEOUT = 504 "Gateway Time-out";
    VERSION_NOT_SUPPORTED = 505 "RTSP Version not supported";
    OPTION_NOT_SUPPORTED = 551 "Option not supported";
}

impl StatusCode {
    /// A code from the wire; `None` outside 100 to 999.
    pub const fn new(code: u16) -> Option<Self> {
        if code >= 100 && code <= 999 {
            Some(Self(code))
        } else {
            None
        }
    }

    /// The number.
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    /// 100 to 199: the final response is still to come.
    pub const fn is_informational(self) -> bool {
        self.0 < 200
    }

    /// 200 to 299.
    pub const fn is_success(self) -> bool {
        self.0 >= 200 && self.0 < 300
    }
}

impl fmt::Debug for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.reason())
    }
}

/// Header fields in the order of the wire; names compare without regard to case.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, String)>);

/// The headers do not say how long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AmbiguousLength;

impl Headers {
    /// No headers.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value of the first header of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// The values of every header of that name, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// The length that the headers give to the body, if they give one; `usize::MAX` where it is a number too long to be read, which is
    /// too large as well. `Err`: it is no number, or there are several that differ.
    pub(crate) fn content_length(&self) -> Result<Option<usize>, AmbiguousLength> {
        let mut len = None;
        for value in self.get_all("Content-Length") {
            let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
            if !digits || len.is_some_and(|seen| seen != value) {
                return Err(AmbiguousLength);
            }
            len = Some(value);
        }
        Ok(len.map(|l| l.parse().unwrap_or(usize::MAX)))
    }

    /// Adds a header behind the others. Control characters of the value become spaces, so that no value can start a
    /// header of its own.
    pub fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        let mut value: String = value.into();
        if value.chars().any(char::is_control) {
            value = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        }
        self.0.push((name.into(), value));
    }

    /// Replaces every header of that name by one.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        let name = name.into();
        self.remove(&name);
        self.push(name, value);
    }

    /// Removes every header of that name.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// Name and value of every header, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_ref(), v.as_str()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `CSeq` as a number; `None` if it is missing or not a number.
    pub fn cseq(&self) -> Option<u32> {
        self.get("CSeq")?.trim().parse().ok()
    }

    /// The tokens of a comma-separated list header, over every header of that name.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.get_all(name)
            .flat_map(|v| v.split(','))
            .map(str::trim)
            .filter(|v| !v.is_empty())
    }
}

impl fmt::Debug for Headers {
    /// Everything but what proves an identity, in headers of its own or in a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(n, v)| {
                let secret = n.eq_ignore_ascii_case("Authorization") || n.eq_ignore_ascii_case("Proxy-Authorization");
                let shown = match v {
                    _ if secret => "(hidden)".to_owned(),
                    v if v.contains("://") => super::url::without_credentials(v),
                    v => v.to_owned(),
                };
                (n, shown)
            }))
            .finish()
    }
}

/// A request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// To what; as sent, `*` or an absolute URL.
    pub uri: String,
    /// Protocol version, such as `RTSP/1.0`.
    pub version: Cow<'static, str>,
    /// Header fields, without Content-Length.
    pub headers: Headers,
    /// The body; empty if there is none.
    pub body: Bytes,
}

impl Request {
    /// A request of RTSP 1.0 without headers.
    pub fn new(method: Method, uri: impl Into<String>) -> Self {
        Self {
            method,
            uri: uri.into(),
            version: Cow::Borrowed("RTSP/1.0"),
            headers: Headers::new(),
            body: Bytes::new(),
        }
    }

    /// Adds a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// The text form. Blanks and control characters of the URI are percent-encoded.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_slice(self.method.as_str().as_bytes());
        out.put_u8(b' ');
        for &b in self.uri.as_bytes() {
            if b <= b' ' || b == 0x7F {
                out.put_slice(format!("%{b:02X}").as_bytes());
            } else {
                out.put_u8(b);
            }
        }
        out.put_u8(b' ');
        out.put_slice(self.version.as_bytes());
        out.put_slice(b"\r\n");
        encode_rest(&self.headers, &self.body, out);
    }

    /// The text form in a buffer of its own.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(512);
        self.encode(&mut out);
        out.freeze()
    }
}

impl fmt::Debug for Request {
    /// Without the user part of the URI and without credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("uri", &super::url::without_credentials(&self.uri))
            .field("headers", &self.headers)
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Outcome.
    pub status: StatusCode,
    /// Reason phrase, for people.
    pub reason: Cow<'static, str>,
    /// Header fields, without Content-Length.
    pub headers: Headers,
    /// The body; empty if there is none.
    pub body: Bytes,
}

impl Response {
    /// A response with the code's own reason phrase and no headers.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            reason: Cow::Borrowed(status.reason()),
            headers: Headers::new(),
            body: Bytes::new(),
        }
    }

    /// Replaces the reason phrase.
    pub fn because(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Adds a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// The text form. Control characters of the reason phrase become spaces.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_slice(format!("RTSP/1.0 {} ", self.status.as_u16()).as_bytes());
        for c in self.reason.chars() {
            let c = if c.is_control() { ' ' } else { c };
            out.put_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        out.put_slice(b"\r\n");
        encode_rest(&self.headers, &self.body, out);
    }

    /// The text form in a buffer of its own.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(512 + self.body.len());
        self.encode(&mut out);
        out.freeze()
    }
}

fn encode_rest(headers: &Headers, body: &[u8], out: &mut BytesMut) {
    for (name, value) in headers
        .iter()
        .filter(|(n, _)| !n.eq_ignore_ascii_case("Content-Length"))
    {
        out.put_slice(name.as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    if !body.is_empty() {
        out.put_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    out.put_slice(b"\r\n");
    out.put_slice(body);
}

/// What travels on an RTSP connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
    /// Interleaved binary data (RFC 2326 section 10.12): one RTP or RTCP packet, sharing the input buffer's memory.
    Data {
        /// Interleaved channel.
        channel: u8,
        /// The packet.
        payload: Bytes,
    },
}

/// The four bytes before an interleaved packet of `len` bytes.
pub const fn interleaved_header(channel: u8, len: u16) -> [u8; 4] {
    let [high, low] = len.to_be_bytes();
    [b'$', channel, high, low]
}
