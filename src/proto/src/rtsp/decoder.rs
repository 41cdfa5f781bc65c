//! Bytes of an RTSP connection to messages, incrementally, for either end of it.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};

use super::{
    message::{HEADERS_MAX, Headers, Message, Method, Request, Response, StatusCode},
    uri::URI_BYTES_MAX,
};

/// The most bytes from the first line to the empty line. A peer that sends more is answered 431 or dropped.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The longest request or status line: a whole URI and some. A peer that sends more is answered 414 or dropped.
pub const START_LINE_BYTES_MAX: usize = URI_BYTES_MAX + 256;
/// The largest body that a client accepts (an SDP is a few kB). A larger one ends the connection.
pub const CLIENT_BODY_BYTES_MAX: usize = 1024 * 1024;
/// The largest body that a server accepts. A larger one is answered 413.
pub const SERVER_BODY_BYTES_MAX: usize = 64 * 1024;
/// How many bytes in a row a client skips in search of the next message before it gives the connection up.
pub const GARBAGE_BYTES_MAX: u64 = 1024 * 1024;

/// Which end reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads what a camera sends: lenient, and finds its way back after garbage.
    Client,
    /// Reads what players send: anything that is not RTSP ends the connection.
    Server,
}

/// What is wrong with the peer's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Fault {
    #[error("this is not RTSP")]
    NotRtsp,
    #[error("malformed start line")]
    StartLine,
    #[error("start line longer than {START_LINE_BYTES_MAX} bytes")]
    StartLineTooLong,
    #[error("malformed header line")]
    Header,
    #[error("headers larger than {HEAD_BYTES_MAX} bytes")]
    HeadTooLarge,
    #[error("more than {HEADERS_MAX} headers")]
    TooManyHeaders,
    #[error("Content-Length is not a number, or is two of them")]
    ContentLength,
    #[error("body larger than allowed")]
    BodyTooLarge,
}

impl Fault {
    /// What a server answers before it closes the connection.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::StartLineTooLong => StatusCode::URI_TOO_LARGE,
            Self::HeadTooLarge | Self::TooManyHeaders => StatusCode::HEADERS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::ENTITY_TOO_LARGE,
            Self::NotRtsp | Self::StartLine | Self::Header | Self::ContentLength => StatusCode::BAD_REQUEST,
        }
    }
}

/// The connection cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at byte {position} of the connection")]
pub struct DecodeError {
    /// What is wrong.
    pub fault: Fault,
    /// Where the offending message begins, counted from the first byte of the connection.
    pub position: u64,
}

/// An incremental decoder. It never copies interleaved packets, holds at most one parsed head, and takes from the input
/// buffer only what it has understood; so the buffer need never hold more than one message
/// ([`HEAD_BYTES_MAX`] and a body).
///
/// Accepted besides RFC 2326: bare LF as line end, empty lines between messages, blanks before the colon.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    /// Bytes consumed since the connection began.
    position: u64,
    /// How much of the input is known not to end the head.
    scanned: usize,
    /// Length of the line that the scan is in, to tell an empty one.
    line_len: usize,
    /// A head whose body has not arrived.
    pending: Option<(Message, usize)>,
    /// Bytes skipped since the last message.
    garbage: u64,
    /// Bytes skipped in total.
    skipped: u64,
    /// Whether one message was read: before that, garbage means that the peer does not speak RTSP.
    synced: bool,
    /// Interleaved channels that were negotiated, one bit each.
    channels: [u64; 4],
}

impl Decoder {
    /// A decoder for the first byte of a connection.
    pub const fn new(role: Role) -> Self {
        Self {
            role,
            position: 0,
            scanned: 0,
            line_len: 0,
            pending: None,
            garbage: 0,
            skipped: 0,
            synced: false,
            channels: [0; 4],
        }
    }

    /// Makes a channel one that the search after garbage stops at.
    pub const fn expect_channel(&mut self, channel: u8) {
        self.channels[channel as usize / 64] |= 1 << (channel % 64);
    }

    const fn expects(&self, channel: u8) -> bool {
        self.channels[channel as usize / 64] & (1 << (channel % 64)) != 0
    }

    /// Bytes consumed since the connection began.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Bytes that were skipped as garbage since the connection began.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Takes the next message off the front of `input`. `Ok(None)` means that it is incomplete: call again with more
    /// bytes behind the same ones. After an error the connection is of no more use.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Message>, DecodeError> {
        loop {
            if let Some((_, body_len)) = &self.pending {
                if input.len() < *body_len {
                    return Ok(None);
                }
                let (mut message, body_len) = self.pending.take().expect("looked at just above");
                let bytes = self.take(input, body_len);
                match &mut message {
                    Message::Request(r) => r.body = bytes,
                    Message::Response(r) => r.body = bytes,
                    Message::Data { .. } => {}
                }
                return Ok(Some(message));
            }
            if self.scanned == 0 {
                match self.start(input)? {
                    Start::Incomplete => return Ok(None),
                    Start::Data(message) => return Ok(Some(message)),
                    Start::Skipped => continue,
                    Start::Head => {}
                }
            }
            let Some(head_len) = self.find_head_end(input)? else {
                return Ok(None);
            };
            let position = self.position;
            let head = self.take(input, head_len);
            match parse_head(&head, self.role) {
                Ok(pending) => {
                    self.synced = true;
                    self.garbage = 0;
                    self.pending = Some(pending);
                }
                // A status line that is none was garbage too, in the middle of a connection.
                Err(Fault::StartLine) if self.role == Role::Client && self.synced => self.skip(head_len, position)?,
                Err(fault) => return Err(DecodeError { fault, position }),
            }
        }
    }

    fn take(&mut self, input: &mut BytesMut, len: usize) -> Bytes {
        self.position += len as u64;
        self.scanned = 0;
        self.line_len = 0;
        input.split_to(len).freeze()
    }

    const fn error(&self, fault: Fault) -> DecodeError {
        DecodeError {
            fault,
            position: self.position,
        }
    }

    fn skip(&mut self, len: usize, position: u64) -> Result<(), DecodeError> {
        self.skipped += len as u64;
        self.garbage += len as u64;
        if self.garbage > GARBAGE_BYTES_MAX {
            return Err(DecodeError {
                fault: Fault::NotRtsp,
                position,
            });
        }
        Ok(())
    }

    /// Decides by the first bytes what follows.
    fn start(&mut self, input: &mut BytesMut) -> Result<Start, DecodeError> {
        let blank = input.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        self.position += blank as u64;
        input.advance(blank);
        let Some(&first) = input.first() else {
            return Ok(Start::Incomplete);
        };
        if first == b'$' && (self.role == Role::Server || self.garbage == 0 || self.is_frame(input) != Some(false)) {
            return Ok(self.data(input));
        }
        let is_start = match self.role {
            Role::Client => is_message_start(input),
            Role::Server => Some(first.is_ascii_alphabetic()),
        };
        match is_start {
            Some(true) => return Ok(Start::Head),
            Some(false) => {}
            None => return Ok(Start::Incomplete),
        }
        if self.role == Role::Server || !self.synced {
            return Err(self.error(Fault::NotRtsp));
        }
        let garbage = 1
            + (1..input.len())
                .find(|i| {
                    let rest = &input[*i..];
                    match rest[0] {
                        b'$' => self.is_frame(rest) != Some(false),
                        b'R' => b"RTSP/".starts_with(&rest[..rest.len().min(5)]),
                        _ => false,
                    }
                })
                .map_or(input.len() - 1, |i| i - 1);
        let position = self.position;
        self.take(input, garbage);
        self.skip(garbage, position)?;
        Ok(Start::Skipped)
    }

    /// Whether bytes that begin with `$` look like a packet of a negotiated channel, RTP or RTCP version 2; `None` if
    /// there are too few to tell.
    fn is_frame(&self, bytes: &[u8]) -> Option<bool> {
        if bytes.len() > 1 && !self.expects(bytes[1]) {
            return Some(false);
        }
        let version = bytes.get(4)?;
        Some(u16::from_be_bytes([bytes[2], bytes[3]]) >= 8 && version >> 6 == 2)
    }

    fn data(&mut self, input: &mut BytesMut) -> Start {
        let &[_, channel, high, low, ..] = &input[..] else {
            return Start::Incomplete;
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if input.len() < 4 + len {
            return Start::Incomplete;
        }
        input.advance(4);
        self.position += 4;
        self.garbage = 0;
        self.synced = true;
        let payload = self.take(input, len);
        Start::Data(Message::Data { channel, payload })
    }

    /// The length up to and with the empty line. Every byte is looked at once, however it arrives.
    fn find_head_end(&mut self, input: &BytesMut) -> Result<Option<usize>, DecodeError> {
        for (i, &b) in input.iter().enumerate().skip(self.scanned) {
            match b {
                b'\n' if self.line_len == 0 => return Ok(Some(i + 1)),
                b'\n' => self.line_len = 0,
                b'\r' if self.line_len == 0 => {}
                _ => self.line_len += 1,
            }
            if i == START_LINE_BYTES_MAX && self.line_len >= i {
                return Err(self.error(Fault::StartLineTooLong));
            }
            if i >= HEAD_BYTES_MAX {
                return Err(self.error(Fault::HeadTooLarge));
            }
        }
        self.scanned = input.len();
        Ok(None)
    }
}

/// What the first bytes of the input are.
enum Start {
    Incomplete,
    Data(Message),
    Skipped,
    Head,
}

/// Whether bytes are the beginning of a response or of a request that a camera sends; `None` if they may become one.
fn is_message_start(bytes: &[u8]) -> Option<bool> {
    let begins = |word: &[u8]| {
        let n = bytes.len().min(word.len());
        let equal = bytes[..n].eq_ignore_ascii_case(&word[..n]);
        (equal, equal && n == word.len())
    };
    let (mut maybe, sure) = begins(b"RTSP/");
    if sure {
        return Some(true);
    }
    for method in Method::KNOWN {
        match (begins(method.as_str().as_bytes()), bytes.get(method.as_str().len())) {
            ((_, true), Some(b' ')) => return Some(true),
            ((true, _), None) => maybe = true,
            _ => {}
        }
    }
    if maybe { None } else { Some(false) }
}

/// A head with the length of its body.
fn parse_head(head: &[u8], role: Role) -> Result<(Message, usize), Fault> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text
        .split('\n')
        .map(|l| l.trim_end_matches(['\r', ' ', '\t']))
        .peekable();
    let start = lines.next().unwrap_or_default();
    let mut headers = Headers::new();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let mut line = Cow::Borrowed(line);
        while let Some(more) = lines.next_if(|l| l.starts_with([' ', '\t'])) {
            let line = line.to_mut();
            line.push(' ');
            line.push_str(more.trim());
        }
        match line.split_once(':') {
            Some((name, value)) if is_token(name.trim_end()) => {
                if headers.len() == HEADERS_MAX {
                    return Err(Fault::TooManyHeaders);
                }
                headers.push(name.trim_end().to_owned(), value.trim());
            }
            _ if role == Role::Client => {}
            _ => return Err(Fault::Header),
        }
    }
    let body_len = body_len(&headers, role)?;
    headers.remove("Content-Length");
    let message = if start.get(..5).is_some_and(|s| s.eq_ignore_ascii_case("RTSP/")) {
        Message::Response(parse_status_line(start, headers)?)
    } else {
        Message::Request(parse_request_line(start, headers)?)
    };
    Ok((message, body_len))
}

fn body_len(headers: &Headers, role: Role) -> Result<usize, Fault> {
    let max = match role {
        Role::Client => CLIENT_BODY_BYTES_MAX,
        Role::Server => SERVER_BODY_BYTES_MAX,
    };
    match headers.content_length() {
        Ok(None) => Ok(0),
        Ok(Some(n)) if n <= max => Ok(n),
        Ok(Some(_)) => Err(Fault::BodyTooLarge),
        Err(_) => Err(Fault::ContentLength),
    }
}

fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b))
}

fn parse_status_line(line: &str, headers: Headers) -> Result<Response, Fault> {
    let mut parts = line.splitn(3, ' ');
    let _version = parts.next();
    let code = parts.next().unwrap_or_default();
    let status = (code.len() == 3)
        .then(|| code.parse().ok().and_then(StatusCode::new))
        .flatten()
        .ok_or(Fault::StartLine)?;
    Ok(Response {
        status,
        reason: Cow::Owned(parts.next().unwrap_or_default().trim().to_owned()),
        headers,
        body: Bytes::new(),
    })
}

fn parse_request_line(line: &str, headers: Headers) -> Result<Request, Fault> {
    // The URI may hold blanks (players copy what people type): it is all between the first and the last.
    let (method, rest) = line.split_once(' ').ok_or(Fault::StartLine)?;
    let (uri, version) = rest.trim().rsplit_once(' ').ok_or(Fault::StartLine)?;
    let uri = uri.trim();
    let versioned = version
        .split_once('/')
        .is_some_and(|(p, v)| is_token(p) && !v.is_empty());
    if !is_token(method) || uri.is_empty() || !versioned {
        return Err(Fault::StartLine);
    }
    if uri.len() > URI_BYTES_MAX {
        return Err(Fault::StartLineTooLong);
    }
    Ok(Request {
        method: Method::from(method),
        uri: uri.to_owned(),
        version: match version {
            "RTSP/1.0" => Cow::Borrowed("RTSP/1.0"),
            other => Cow::Owned(other.to_owned()),
        },
        headers,
        body: Bytes::new(),
    })
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
