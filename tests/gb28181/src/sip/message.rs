//! SIP messages as text (RFC 3261 7): written with the deviations of headers, read with the tolerance that devices have.

use crate::{Deviation, Deviations};

/// Header names with a compact form (RFC 3261 7.3.3 and the RFCs of the headers).
const COMPACT: [(&str, &str); 11] = [
    ("Call-ID", "i"),
    ("Contact", "m"),
    ("Content-Length", "l"),
    ("Content-Type", "c"),
    ("Event", "o"),
    ("From", "f"),
    ("Subject", "s"),
    ("Supported", "k"),
    ("To", "t"),
    ("Via", "v"),
    ("Allow-Events", "u"),
];
/// The largest message that is read from a stream; more is rubbish, and the connection is given up.
pub const MESSAGE_LEN_MAX: usize = 256 * 1024;

/// A request or an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub start: String,
    /// Names and values, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn new(start: impl Into<String>) -> Self {
        Self {
            start: start.into(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn with_body(mut self, kind: &str, body: Vec<u8>) -> Self {
        self.body = body;
        self.with("Content-Type", kind)
    }

    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&str> {
        let compact = COMPACT.iter().find(|(long, _)| *long == name).map(|(_, short)| *short);
        let same = |n: &str| n.eq_ignore_ascii_case(name) || compact.is_some_and(|c| n.eq_ignore_ascii_case(c));
        self.headers.iter().find(|(n, _)| same(n)).map(|(_, v)| v.as_str())
    }

    /// The status of an answer.
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// The method of a request.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The Request-URI of a request.
    pub fn uri(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The branch of the topmost Via.
    pub fn branch(&self) -> Option<&str> {
        parameter(self.get("Via")?, "branch")
    }

    /// The bytes for the wire; `datagram`: over UDP.
    pub fn render(&self, deviations: Deviations, datagram: bool) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        let length = if datagram && deviations.has(Deviation::ContentLengthZero) {
            0
        } else {
            self.body.len()
        };
        let length = ("Content-Length".to_owned(), length.to_string());
        for (name, value) in self.headers.iter().chain([&length]) {
            if name == "Contact" && deviations.has(Deviation::NoContact) {
                continue;
            }
            let short = COMPACT.iter().find(|(long, _)| long == name).map(|(_, short)| *short);
            let mut name = name.clone();
            let mut value = value.clone();
            if deviations.has(Deviation::CompactHeaders) {
                name = short.map_or(name, Into::into);
            }
            if deviations.has(Deviation::OddCase) {
                name.make_ascii_lowercase();
                if name == "content-type" {
                    value.make_ascii_lowercase();
                }
            }
            text.extend([&name, ": ", &value, "\r\n"]);
        }
        text += "\r\n";
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Reads a datagram.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (message, end) = Self::head(bytes)?.ok_or("no empty line behind the headers")?;
        Ok(Self {
            body: bytes[end..].to_vec(),
            ..message
        })
    }

    /// Takes a message off the front of a stream; `None` until there is a whole one.
    pub fn take(stream: &mut Vec<u8>) -> Result<Option<Self>, String> {
        let blank = stream.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        stream.drain(..blank);
        let Some((mut message, end)) = Self::head(stream)? else {
            return if stream.len() > MESSAGE_LEN_MAX {
                Err("headers without an end".into())
            } else {
                Ok(None)
            };
        };
        let len = message
            .get("Content-Length")
            .map_or(Ok(0), |l| l.trim().parse::<usize>());
        let len = len
            .ok()
            .filter(|l| *l <= MESSAGE_LEN_MAX)
            .ok_or("Content-Length is no length")?;
        let Some(body) = stream.get(end..end + len) else {
            return Ok(None);
        };
        message.body = body.to_vec();
        stream.drain(..end + len);
        Ok(Some(message))
    }

    fn head(bytes: &[u8]) -> Result<Option<(Self, usize)>, String> {
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = text.split("\r\n");
        let mut message = Self::new(lines.next().unwrap_or_default());
        if !message.start.contains("SIP/2.0") {
            return Err(format!("the first line is not SIP: {}", message.start));
        }
        for line in lines {
            if line.starts_with([' ', '\t'])
                && let Some((_, value)) = message.headers.last_mut()
            {
                *value += line;
                continue;
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| format!("a header without a colon: {line}"))?;
            message.headers.push((name.trim().into(), value.trim().into()));
        }
        Ok(Some((message, end + 4)))
    }
}

/// A parameter behind a header's value, such as `tag` or `branch`.
pub fn parameter<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let after = value.rsplit_once('>').map_or(value, |(_, after)| after);
    after.split(';').find_map(|part| {
        let (n, v) = part.split_once('=')?;
        n.trim().eq_ignore_ascii_case(name).then(|| v.trim().trim_matches('"'))
    })
}

/// The URI of a From, To or Contact.
pub fn uri_of(value: &str) -> &str {
    match value.split_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or_default(),
        None => value.split(';').next().unwrap_or_default().trim(),
    }
}

/// The user of a SIP URI.
pub fn user_of(uri: &str) -> &str {
    uri.trim_start_matches("sip:")
        .split(['@', ';', '>'])
        .next()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Message {
        Message::new("MESSAGE sip:a@b SIP/2.0")
            .with("Via", "SIP/2.0/UDP 1.2.3.4:5060;rport;branch=z9hG4bK1")
            .with("From", "<sip:a@b;x=1>;tag=7")
            .with("CSeq", "3 MESSAGE")
            .with("Contact", "<sip:a@1.2.3.4>")
            .with_body("Application/MANSCDP+xml", b"<a/>".to_vec())
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = request().render(Deviations::NONE, true);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.method(), message.uri()), ("MESSAGE", "sip:a@b"));
        assert_eq!(
            (message.branch(), message.get("Content-Length")),
            (Some("z9hG4bK1"), Some("4"))
        );
        assert_eq!(parameter(message.get("From").unwrap(), "tag"), Some("7"));
        assert_eq!(message.body, b"<a/>");
        let mut stream = [b"\r\n\r\n".as_slice(), &bytes, &bytes, &bytes[..20]].concat();
        assert_eq!(Message::take(&mut stream).unwrap(), Some(message.clone()));
        assert_eq!(Message::take(&mut stream).unwrap(), Some(message));
        assert_eq!(Message::take(&mut stream).unwrap(), None);
        assert_eq!(stream.len(), 20);
    }

    #[test]
    fn deviant_headers_say_the_same() {
        for deviation in [
            Deviation::CompactHeaders,
            Deviation::OddCase,
            Deviation::ContentLengthZero,
        ] {
            let bytes = request().render(Deviations::NONE.with(deviation), true);
            let message = Message::parse(&bytes).unwrap();
            assert_eq!(message.get("From"), request().get("From"), "{deviation}");
            assert_eq!(message.body, b"<a/>", "{deviation}");
        }
        let bytes = request().render(Deviations::NONE.with(Deviation::NoContact), true);
        assert_eq!(Message::parse(&bytes).unwrap().get("Contact"), None);
        let bytes = request().render(Deviations::NONE.with(Deviation::CompactHeaders), true);
        assert!(String::from_utf8(bytes).unwrap().contains("\r\nl: 4\r\n"));
    }
}
