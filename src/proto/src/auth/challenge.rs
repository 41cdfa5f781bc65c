//! The text of WWW-Authenticate and Authorization headers, parsed.

use std::fmt;

use base64::{Engine as _, engine::general_purpose};

use super::{Algorithm, Credentials, Scheme};

/// The most parameters and schemes that are read from one message's headers; what follows is ignored.
const PARTS_MAX: usize = 64;

/// One challenge of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// `Basic realm=".."`.
    Basic {
        /// Realm.
        realm: String,
    },
    /// `Digest ..` with an algorithm that is known here.
    Digest(DigestChallenge),
    /// A scheme or an algorithm that is not known here, by name.
    Unknown(String),
}

impl Challenge {
    /// How it wants the identity proved; `None` if that is not known here.
    pub const fn scheme(&self) -> Option<Scheme> {
        match self {
            Self::Basic { .. } => Some(Scheme::Basic),
            Self::Digest(d) => Some(d.algorithm.scheme()),
            Self::Unknown(_) => None,
        }
    }
}

/// A Digest challenge (RFC 7616 section 3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestChallenge {
    /// Realm.
    pub realm: String,
    /// The server's nonce.
    pub nonce: String,
    /// To be given back as it came.
    pub opaque: Option<String>,
    /// Whether only the nonce of the last answer was at fault.
    pub stale: bool,
    /// Hash algorithm.
    pub(crate) algorithm: Algorithm,
    /// The algorithm as the server spelled it; empty if it named none.
    pub(crate) algorithm_name: String,
    /// Whether `qop=auth` is offered. If not, the old form of RFC 2069 is meant.
    pub qop_auth: bool,
}

/// A scheme with its parameters (names in lower case), or with one opaque token.
struct Raw {
    scheme: String,
    parameters: Vec<(String, String)>,
    token: String,
}

impl Raw {
    fn get(&self, key: &str) -> Option<&str> {
        self.parameters.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// Every challenge of the values of WWW-Authenticate headers: several in one header, in several, or both.
pub fn parse_challenges<'a>(values: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    for raw in values.flat_map(parse_raw).take(PARTS_MAX) {
        let realm = raw.get("realm").unwrap_or_default().to_owned();
        challenges.push(match raw.scheme.to_ascii_lowercase().as_str() {
            "basic" => Challenge::Basic { realm },
            "digest" => parse_digest(&raw, realm),
            _ => Challenge::Unknown(raw.scheme),
        });
    }
    challenges
}

fn parse_digest(raw: &Raw, realm: String) -> Challenge {
    let algorithm_name = raw.get("algorithm").unwrap_or_default();
    let qop = raw.get("qop").unwrap_or_default();
    let qop_auth = qop.split([',', ' ']).any(|q| q.trim().eq_ignore_ascii_case("auth"));
    let Some(algorithm) = Algorithm::parse(algorithm_name) else {
        return Challenge::Unknown(format!("Digest {algorithm_name}"));
    };
    if !qop.trim().is_empty() && !qop_auth {
        return Challenge::Unknown(format!("Digest qop={qop}"));
    }
    Challenge::Digest(DigestChallenge {
        realm,
        nonce: raw.get("nonce").unwrap_or_default().to_owned(),
        opaque: raw.get("opaque").map(str::to_owned),
        stale: raw.get("stale").is_some_and(|s| s.eq_ignore_ascii_case("true")),
        algorithm,
        algorithm_name: algorithm_name.to_owned(),
        qop_auth,
    })
}

/// What a client sends to prove its identity.
pub(crate) enum Authorization {
    Basic(Credentials),
    Digest(DigestAuthorization),
}

/// The parameters of a Digest Authorization header.
pub(crate) struct DigestAuthorization {
    pub username: String,
    pub realm: String,
    pub nonce: String,
    pub uri: String,
    pub response: String,
    pub algorithm: Algorithm,
    pub cnonce: String,
    pub nc: String,
    pub qop: String,
}

/// An Authorization header cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Authorization header is malformed or of an unknown scheme")]
pub struct AuthorizationError;

impl Authorization {
    pub(crate) fn parse(value: &str) -> Result<Self, AuthorizationError> {
        let raw = parse_raw(value).into_iter().next().ok_or(AuthorizationError)?;
        if raw.scheme.eq_ignore_ascii_case("basic") {
            return parse_basic(&raw.token).map(Self::Basic).ok_or(AuthorizationError);
        }
        if !raw.scheme.eq_ignore_ascii_case("digest") {
            return Err(AuthorizationError);
        }
        let text = |key: &str| raw.get(key).unwrap_or_default().to_owned();
        let digest = DigestAuthorization {
            username: text("username"),
            realm: text("realm"),
            nonce: text("nonce"),
            uri: text("uri"),
            response: text("response").to_ascii_lowercase(),
            algorithm: Algorithm::parse(&text("algorithm")).ok_or(AuthorizationError)?,
            cnonce: text("cnonce"),
            nc: text("nc"),
            qop: text("qop"),
        };
        let qop_ok = digest.qop.is_empty() || digest.qop.eq_ignore_ascii_case("auth");
        if digest.username.is_empty() || digest.nonce.is_empty() || digest.response.is_empty() || !qop_ok {
            return Err(AuthorizationError);
        }
        Ok(Self::Digest(digest))
    }
}

/// Whether an Authorization header is one of Digest that answers no challenge yet.
pub(super) fn is_unanswered(value: &str) -> bool {
    let first = parse_raw(value).into_iter().next();
    first
        .is_some_and(|raw| raw.scheme.eq_ignore_ascii_case("digest") && raw.get("nonce").unwrap_or_default().is_empty())
}

fn parse_basic(token: &str) -> Option<Credentials> {
    let bytes = general_purpose::STANDARD
        .decode(token)
        .or_else(|_| general_purpose::STANDARD_NO_PAD.decode(token))
        .ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Credentials::new(user, password))
}

/// Splits a header value into schemes with their parameters. Never fails: what cannot be understood is left out.
fn parse_raw(value: &str) -> Vec<Raw> {
    let mut list: Vec<Raw> = Vec::new();
    let mut rest = value;
    for _ in 0..PARTS_MAX {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        if rest.is_empty() {
            break;
        }
        let end = rest.find(['=', ',', ' ', '\t', '"']).unwrap_or(rest.len());
        let word = &rest[..end];
        let after = rest[end..].trim_start();
        // `name = value` is a parameter; a word with anything else behind it names a scheme.
        if let (Some(value), Some(current)) = (after.strip_prefix('='), list.last_mut()) {
            let (value, tail) = parse_value(value.trim_start());
            current.parameters.push((word.to_ascii_lowercase(), value));
            rest = tail;
        } else if word.is_empty() {
            // A stray quote or equals sign: at least one byte of progress.
            let mut chars = rest.chars();
            chars.next();
            rest = chars.as_str();
        } else {
            rest = after;
            let mut raw = Raw {
                scheme: word.to_owned(),
                parameters: Vec::new(),
                token: String::new(),
            };
            if word.eq_ignore_ascii_case("basic") {
                // base64 may end in `=`, which would read as a parameter.
                let end = rest.find([',', ' ', '\t', '"']).unwrap_or(rest.len());
                let token = &rest[..end];
                if !token.trim_end_matches('=').contains('=') && !rest[end..].starts_with('"') {
                    token.clone_into(&mut raw.token);
                    rest = &rest[end..];
                }
            }
            list.push(raw);
        }
    }
    list
}

/// A quoted string or a bare value, and what follows it.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[i + 1..]),
            '\\' => match chars.next() {
                // A Windows user name such as `DOMAIN\user` is often sent without its escape.
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                Some((_, other)) => {
                    value.push('\\');
                    value.push(other);
                }
                None => break,
            },
            c => value.push(c),
        }
    }
    (value, "")
}

impl fmt::Debug for DigestAuthorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest {} of {:?}", self.algorithm.name(), self.username)
    }
}
