//! Text to messages: what a datagram and the head of a message on a connection have in common.

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    BODY_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, Headers, URI_BYTES_MAX,
    message::{Message, Method, Request, Response},
};

/// What is wrong with the peer's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Fault {
    #[error("malformed start line")]
    StartLine,
    #[error("request URI longer than {URI_BYTES_MAX} bytes")]
    UriTooLong,
    #[error("headers larger than {HEAD_BYTES_MAX} bytes")]
    HeadTooLarge,
    #[error("more than {HEADERS_MAX} headers")]
    TooManyHeaders,
    #[error("Content-Length is not a number, or is two of them")]
    ContentLength,
    #[error("body larger than allowed")]
    BodyTooLarge,
}

/// Reads one datagram; `Ok(None)` is a ping of blank bytes (RFC 5626 section 4.4.1 and devices' own). The datagram says where the
/// body ends: devices send Content-Length 0, count characters instead of bytes, or leave it out.
pub fn parse_datagram(data: &[u8]) -> Result<Option<Message>, Fault> {
    let blank = data
        .iter()
        .take_while(|b| matches!(b, b'\r' | b'\n' | b' ' | 0))
        .count();
    let data = data.get(blank..).unwrap_or_default();
    if data.is_empty() {
        return Ok(None);
    }
    let head_len = head_len(data).unwrap_or(data.len());
    if head_len > HEAD_BYTES_MAX {
        return Err(Fault::HeadTooLarge);
    }
    let (head, body) = data.split_at(head_len);
    if body.len() > BODY_BYTES_MAX {
        return Err(Fault::BodyTooLarge);
    }
    let mut message = parse_head(head)?.0;
    message.set_body(Bytes::copy_from_slice(body));
    Ok(Some(message))
}

/// The length up to and with the empty line.
fn head_len(data: &[u8]) -> Option<usize> {
    let mut line_len = 0;
    for (i, b) in data.iter().enumerate() {
        match b {
            b'\n' if line_len == 0 => return Some(i + 1),
            b'\n' => line_len = 0,
            b'\r' => {}
            _ => line_len += 1,
        }
    }
    None
}

/// A head with what Content-Length says.
pub(super) fn parse_head(head: &[u8]) -> Result<(Message, Result<Option<usize>, Fault>), Fault> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text
        .split('\n')
        .map(|l| l.trim_end_matches(['\r', ' ', '\t']))
        .peekable();
    let start = lines.next().unwrap_or_default();
    let mut headers = Headers::new();
    while let Some(line) = lines.next() {
        let mut line = Cow::Borrowed(line);
        while let Some(more) = lines.next_if(|l| l.starts_with([' ', '\t'])) {
            let line = line.to_mut();
            line.push(' ');
            line.push_str(more.trim());
        }
        // A line that is no header harms nobody: the others say what is meant, or the message is refused for what it lacks.
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let name = name.trim();
        if !is_token(name) {
            continue;
        }
        if headers.len() == HEADERS_MAX {
            return Err(Fault::TooManyHeaders);
        }
        headers.push(long_name(name), trimmed(value));
    }
    let body_len = headers.content_length().map_err(|_| Fault::ContentLength);
    headers.remove("Content-Length");
    let message = if start.get(..4).is_some_and(|s| s.eq_ignore_ascii_case("SIP/")) {
        Message::Response(parse_status_line(start, headers)?)
    } else {
        Message::Request(parse_request_line(start, headers)?)
    };
    Ok((message, body_len))
}

/// Without blanks around it, and without what becomes one because it may not stand in a header.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c.is_control())
}

/// The name that a compact form stands for (RFC 3261 section 20, RFC 6665 section 8.2.1).
fn long_name(name: &str) -> Cow<'static, str> {
    let long = match name.as_bytes() {
        [letter] => match letter.to_ascii_lowercase() {
            b'v' => "Via",
            b'f' => "From",
            b't' => "To",
            b'm' => "Contact",
            b'i' => "Call-ID",
            b'l' => "Content-Length",
            b'c' => "Content-Type",
            b's' => "Subject",
            b'k' => "Supported",
            b'e' => "Content-Encoding",
            b'o' => "Event",
            b'u' => "Allow-Events",
            _ => return Cow::Owned(name.to_owned()),
        },
        _ => return Cow::Owned(name.to_owned()),
    };
    Cow::Borrowed(long)
}

/// A token of RFC 3261 section 25.1.
pub(super) fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b))
}

fn parse_status_line(line: &str, headers: Headers) -> Result<Response, Fault> {
    let mut parts = line.splitn(3, ' ');
    let _version = parts.next();
    let code = parts.next().unwrap_or_default();
    let status = (code.len() == 3).then(|| code.parse().ok()).flatten();
    Ok(Response {
        status: status.filter(|s| (100..700).contains(s)).ok_or(Fault::StartLine)?,
        reason: trimmed(parts.next().unwrap_or_default()).to_owned(),
        headers,
        body: Bytes::new(),
    })
}

fn parse_request_line(line: &str, headers: Headers) -> Result<Request, Fault> {
    let (method, rest) = line.split_once(' ').ok_or(Fault::StartLine)?;
    let (uri, version) = rest.trim().rsplit_once(' ').ok_or(Fault::StartLine)?;
    let uri = uri.trim();
    let is_sip = version.get(..4).is_some_and(|v| v.eq_ignore_ascii_case("SIP/"));
    let blank = uri.bytes().any(|b| b <= b' ' || b == 0x7F);
    if !is_sip || !is_token(method) || uri.is_empty() || blank {
        return Err(Fault::StartLine);
    }
    if uri.len() > URI_BYTES_MAX {
        return Err(Fault::UriTooLong);
    }
    Ok(Request {
        method: Method::from(method),
        uri: uri.to_owned(),
        headers,
        body: Bytes::new(),
    })
}
