//! The server's side for peers that prove themselves once and then keep silent for an hour: SIP devices. Each nonce is good for one
//! answer, and only MD5 is offered, because they know nothing else.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    Algorithm, Authorization, AuthorizationError, DigestAuthorization, DigestInput, challenge, constant_time_eq,
    nonce::Nonces, quoted,
};

/// How long after it was issued a nonce may be answered.
pub const NONCE_LIFETIME: Duration = Duration::from_mins(2);

/// Issues challenges and checks answers, of which each nonce allows one.
pub struct OneTimeVerifier {
    realm: String,
    nonces: Nonces,
}

/// An Authorization header that could be read.
pub struct Login(DigestAuthorization);

/// The outcome of checking a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OneTimeVerdict {
    /// Proved. The number belongs to the nonce: only nonces with larger ones are good from now on.
    Right(u128),
    /// The password is right and the nonce used up, too old, or that of another address: to be asked again with `stale=true`.
    Stale,
    /// Wrong password.
    Wrong,
}

impl OneTimeVerifier {
    /// A verifier. `secret` must be random; `epoch` is any moment before the first request.
    pub fn new(realm: impl Into<String>, secret: [u8; 32], epoch: Instant) -> Self {
        Self {
            realm: realm.into(),
            nonces: Nonces::new(secret, epoch),
        }
    }

    /// The value of WWW-Authenticate. Devices exist that never answer where `algorithm` is missing.
    pub fn challenge(&self, now: Instant, peer: IpAddr, stale: bool) -> String {
        let nonce = self.nonces.issue(now, peer);
        let stale = if stale { ", stale=true" } else { "" };
        let realm = quoted(&self.realm);
        format!("Digest realm={realm}, nonce=\"{nonce}\"{stale}, algorithm=MD5, qop=\"auth\"")
    }

    /// Checks a login against a password. `last` is the number of the last nonce that this peer has proved itself with. The user name,
    /// the realm and the URI are those that were hashed: which account is meant is the caller's knowledge.
    pub fn verify(
        &self,
        now: Instant,
        peer: IpAddr,
        method: &str,
        login: &Login,
        password: &str,
        last: Option<u128>,
    ) -> OneTimeVerdict {
        let digest = &login.0;
        let ha1 = digest.algorithm.hash(&[&digest.username, &digest.realm, password]);
        let input = DigestInput {
            nonce: &digest.nonce,
            uri: &digest.uri,
            qop: &digest.qop,
            nc: &digest.nc,
            cnonce: &digest.cnonce,
        };
        let expected = digest.algorithm.response(&ha1, method, &input);
        // The password is checked before the nonce, so that `stale` is told only to those who know it.
        if !constant_time_eq(expected.as_bytes(), digest.response.as_bytes()) {
            return OneTimeVerdict::Wrong;
        }
        match self.nonces.read(now, peer, &digest.nonce) {
            Some(nonce) if nonce.age <= NONCE_LIFETIME && last.is_none_or(|last| nonce.serial > last) => {
                OneTimeVerdict::Right(nonce.serial)
            }
            _ => OneTimeVerdict::Stale,
        }
    }
}

impl fmt::Debug for OneTimeVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneTimeVerifier")
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// Reads an Authorization header; `Ok(None)` where it answers no challenge yet (devices send one with an empty nonce at first). Digest
    /// with MD5 only, without `qop` or with `auth`.
    pub fn parse(value: &str) -> Result<Option<Self>, AuthorizationError> {
        match Authorization::parse(value) {
            Ok(Authorization::Digest(digest)) if digest.algorithm == Algorithm::MD5 => Ok(Some(Self(digest))),
            _ if challenge::is_unanswered(value) => Ok(None),
            _ => Err(AuthorizationError),
        }
    }

    /// Who it says it is.
    pub fn username(&self) -> &str {
        &self.0.username
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
