//! Basic and Digest authentication (RFC 2617, RFC 7616, RFC 7617), both sides: what they share. The client's side is in
//! `answer`, the server's in `verifier`.

mod answer;
mod challenge;
mod nonce;
mod once;
pub mod throttle;
mod verifier;

use std::fmt;

use md5::Md5;
use sha2::Sha256;

pub use answer::{Authenticator, Refusal};
pub(crate) use challenge::{Authorization, DigestAuthorization};
pub use challenge::{AuthorizationError, Challenge, DigestChallenge, parse_challenges};
pub use once::{Login, NONCE_LIFETIME as ONE_TIME_NONCE_LIFETIME, OneTimeVerdict, OneTimeVerifier};
pub use throttle::Throttle;
pub use verifier::{ConnectionLogin, Guard, Origin, Secret, Verdict, Verifier};

/// A user name with its password. No text form shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    username: String,
    password: String,
}

impl Credentials {
    /// A user name with its password.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            username: username.into(),
            password: password.into(),
        }
    }

    /// Who.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The password, to be used and not to be shown.
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("password", &"(hidden)")
            .finish()
    }
}

/// How a peer may prove an identity, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// The password in clear text.
    Basic,
    /// Digest with MD5, or without an algorithm, which means MD5.
    DigestMd5,
    /// Digest with MD5-sess.
    DigestMd5Sess,
    /// Digest with SHA-256.
    DigestSha256,
    /// Digest with SHA-256-sess.
    DigestSha256Sess,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic => "Basic",
            Self::DigestMd5 => "Digest MD5",
            Self::DigestMd5Sess => "Digest MD5-sess",
            Self::DigestSha256 => "Digest SHA-256",
            Self::DigestSha256Sess => "Digest SHA-256-sess",
        })
    }
}

/// A hash algorithm of Digest with its session variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Algorithm {
    pub sha256: bool,
    pub sess: bool,
}

impl Algorithm {
    pub(crate) const MD5: Self = Self {
        sha256: false,
        sess: false,
    };

    /// By its name; an absent one is MD5.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (sha256, sess) = match name.trim().to_ascii_lowercase().as_str() {
            "" | "md5" => (false, false),
            "md5-sess" => (false, true),
            "sha-256" => (true, false),
            "sha-256-sess" => (true, true),
            _ => return None,
        };
        Some(Self { sha256, sess })
    }

    pub(crate) const fn name(self) -> &'static str {
        match (self.sha256, self.sess) {
            (false, false) => "MD5",
            (false, true) => "MD5-sess",
            (true, false) => "SHA-256",
            (true, true) => "SHA-256-sess",
        }
    }

    pub(crate) const fn scheme(self) -> Scheme {
        match (self.sha256, self.sess) {
            (false, false) => Scheme::DigestMd5,
            (false, true) => Scheme::DigestMd5Sess,
            (true, false) => Scheme::DigestSha256,
            (true, true) => Scheme::DigestSha256Sess,
        }
    }

    /// The hash of the parts joined by colons, in lower-case hexadecimal.
    pub(crate) fn hash(self, parts: &[&str]) -> String {
        fn run<D: md5::Digest>(parts: &[&str]) -> String {
            let mut h = D::new();
            for (i, part) in parts.iter().enumerate() {
                if i > 0 {
                    h.update(b":");
                }
                h.update(part.as_bytes());
            }
            hex(&h.finalize())
        }
        if self.sha256 {
            run::<Sha256>(parts)
        } else {
            run::<Md5>(parts)
        }
    }

    /// The digest response (RFC 7616 section 3.4.1; RFC 2069 without `qop`). `ha1` is of user, realm and password.
    pub(crate) fn response(self, ha1: &str, method: &str, digest: &DigestInput<'_>) -> String {
        let session_ha1;
        let ha1 = if self.sess {
            session_ha1 = self.hash(&[ha1, digest.nonce, digest.cnonce]);
            &session_ha1
        } else {
            ha1
        };
        let ha2 = self.hash(&[method, digest.uri]);
        if digest.qop.is_empty() {
            self.hash(&[ha1, digest.nonce, &ha2])
        } else {
            self.hash(&[ha1, digest.nonce, digest.nc, digest.cnonce, digest.qop, &ha2])
        }
    }
}

/// What goes into a digest besides the identity; `qop`, `nc` and `cnonce` are empty in the old form.
pub(crate) struct DigestInput<'a> {
    pub nonce: &'a str,
    pub uri: &'a str,
    pub qop: &'a str,
    pub nc: &'a str,
    pub cnonce: &'a str,
}

/// `HA1` as password files hold it: the hash of user, realm and password, in lower-case hexadecimal.
pub fn ha1(sha256: bool, username: &str, realm: &str, password: &str) -> String {
    Algorithm { sha256, sess: false }.hash(&[username, realm, password])
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        out.push(char::from_digit(u32::from(b >> 4), 16).unwrap_or('0'));
        out.push(char::from_digit(u32::from(b & 15), 16).unwrap_or('0'));
    }
    out
}

/// Equality in a time that depends on the lengths only.
pub(crate) fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    let mut difference = u8::from(a.len() != b.len());
    for (x, y) in a.iter().zip(b) {
        difference |= x ^ y;
    }
    std::hint::black_box(difference) == 0
}

/// A quoted string with what would end it escaped.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
