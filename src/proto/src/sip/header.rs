//! Typed headers: addresses, Via, `CSeq`. Devices bend them, so each is read as far as it makes sense and no further.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::message::Method;

/// The most parameters of one header that are kept; what follows is ignored.
const PARAMETERS_MAX: usize = 16;

/// Parameters `;name=value` or `;name`, in the order of the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Parameters(Vec<(String, Option<String>)>);

impl Parameters {
    fn parse(text: &str) -> Self {
        let parts = split_outside_quotes(text, ';').map(str::trim).filter(|p| !p.is_empty());
        let pairs = parts.map(|part| match part.split_once('=') {
            Some((name, value)) => (name.trim().to_owned(), Some(value.trim().to_owned())),
            None => (part.to_owned(), None),
        });
        Self(pairs.take(PARAMETERS_MAX).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        Some(value.as_deref().unwrap_or_default())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some(place) => place.1 = Some(value),
            None => self.0.push((name.to_owned(), Some(value))),
        }
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.0 {
            match value {
                Some(value) => write!(f, ";{name}={value}")?,
                None => write!(f, ";{name}")?,
            }
        }
        Ok(())
    }
}

/// The parts between separators that stand neither in quotes nor in angle brackets.
fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped, mut bracketed) = (false, false, false);
    text.split(move |c| {
        if escaped {
            escaped = false;
            return false;
        }
        match c {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => bracketed = true,
            '>' if !quoted => bracketed = false,
            _ => return c == separator && !quoted && !bracketed,
        }
        false
    })
}

/// `sip:user@host:port;parameters` (RFC 3261 section 19.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// The user part without a password; empty if there is none.
    pub user: String,
    /// Host, an IPv6 address without its brackets.
    pub host: String,
    /// Port, if named.
    pub port: Option<u16>,
}

impl Uri {
    /// Reads a URI; `None` where it is no `sip:` or `sips:` one with a host. Parameters and headers are left out.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(':')?;
        if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
            return None;
        }
        let rest = rest.split(['?', '>']).next().unwrap_or_default();
        let (user, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let host = rest.split(';').next().unwrap_or_default().trim();
        let (host, port) = host_and_port(host)?;
        Some(Self {
            user: user.split([':', ';']).next().unwrap_or_default().to_owned(),
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sip:")?;
        if !self.user.is_empty() {
            write!(f, "{}@", self.user)?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// `host`, `host:port`, `[v6]:port`; `None` where the host is empty or holds what no host holds.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        (host, rest.trim().strip_prefix(':'))
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let host = host.trim();
    let sane = |b: u8| b.is_ascii_alphanumeric() || b"-._:%".contains(&b);
    if host.is_empty() || !host.bytes().all(sane) {
        return None;
    }
    Some((host, port.and_then(|p| p.trim().parse().ok())))
}

/// `"Name" <sip:user@host>;tag=..`: the form of From, To and Contact (RFC 3261 section 20.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAddr {
    /// The URI as it was written, without its brackets.
    pub uri: String,
    parameters: Parameters,
}

impl NameAddr {
    /// Reads the first address of a header; `None` where there is none.
    pub fn parse(text: &str) -> Option<Self> {
        let text = split_outside_quotes(text, ',').next()?.trim();
        let (uri, parameters) = match bracketed(text) {
            Some(found) => found,
            // Without brackets the parameters are the header's, not the URI's.
            None => text.split_once(';').unwrap_or((text, "")),
        };
        let uri = uri.trim();
        if uri.is_empty() {
            return None;
        }
        Some(Self {
            uri: uri.to_owned(),
            parameters: Parameters::parse(parameters),
        })
    }

    /// The user part of the URI: in GB28181 an identity.
    pub fn user(&self) -> Option<String> {
        Uri::parse(&self.uri).map(|u| u.user)
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.parameters.get("tag").filter(|t| !t.is_empty())
    }

    /// How long a Contact holds, in seconds.
    pub fn expires(&self) -> Option<u32> {
        seconds(self.parameters.get("expires")?)
    }
}

/// What stands in the first pair of angle brackets outside of quotes, and what follows it.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    let (mut quoted, mut escaped) = (false, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => return text.get(i + 1..)?.split_once('>'),
            _ => {}
        }
    }
    None
}

/// Seconds of Expires, in a header or a parameter; larger than the type: the largest.
pub fn seconds(text: &str) -> Option<u32> {
    let text = text.trim().trim_matches('"');
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u32::MAX))
}

/// One Via (RFC 3261 section 20.42).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// Protocol, such as `SIP/2.0/UDP`.
    pub protocol: String,
    /// Host and port that the sender has of itself.
    pub sent_by: String,
    parameters: Parameters,
    /// What follows behind a comma: the Vias below, as they were written.
    rest: String,
}

impl Via {
    /// Reads the topmost Via of a header; the others are kept as text.
    pub fn parse(text: &str) -> Option<Self> {
        let first = split_outside_quotes(text, ',').next()?;
        let rest = text.get(first.len() + 1..).unwrap_or_default().trim().to_owned();
        let (head, parameters) = first.split_once(';').unwrap_or((first, ""));
        let (protocol, sent_by) = head.trim().rsplit_once([' ', '\t'])?;
        let protocol: String = protocol.split_whitespace().collect();
        let plain = |text: &str, more: &[u8]| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || more.contains(&b);
            !text.is_empty() && text.bytes().all(fits)
        };
        if !plain(&protocol, b"/.-") || !plain(sent_by, b".-_:[]%") {
            return None;
        }
        Some(Self {
            protocol,
            sent_by: sent_by.to_owned(),
            parameters: Parameters::parse(parameters),
            rest,
        })
    }

    /// The transaction's name.
    pub fn branch(&self) -> Option<&str> {
        self.parameters.get("branch").filter(|b| !b.is_empty())
    }

    /// Notes where the request came from: the address where Via names another one or asks for the port, the port where it asks.
    pub fn received_from(&mut self, peer: SocketAddr) {
        let wants_port = self.parameters.get("rport").is_some();
        let same = host_and_port(&self.sent_by)
            .and_then(|(host, _)| host.parse::<IpAddr>().ok())
            .is_some_and(|ip| ip == peer.ip());
        if wants_port || !same {
            self.parameters.set("received", peer.ip().to_string());
        }
        if wants_port {
            self.parameters.set("rport", peer.port().to_string());
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.protocol, self.sent_by, self.parameters)?;
        if self.rest.is_empty() {
            Ok(())
        } else {
            write!(f, ", {}", self.rest)
        }
    }
}

/// `CSeq: 20 REGISTER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CSeq {
    /// Sequence number.
    pub number: u32,
    /// Method of the request.
    pub method: Method,
}

impl CSeq {
    /// Reads it; `None` where it is not a number and a method.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, method) = text.trim().split_once([' ', '\t'])?;
        Some(Self {
            number: number.parse().ok()?,
            method: Method::from(method.trim()),
        })
    }
}
