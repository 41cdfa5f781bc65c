//! The server's side: challenges that need no memory, and the check of what comes back.
//!
//! Any shard can check a nonce (see `nonce`). What one connection has proved is kept by that connection ([`ConnectionLogin`]).

use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

use super::{
    Algorithm, Authorization, Credentials, DigestAuthorization, DigestInput, constant_time_eq, ha1, nonce::Nonces,
    quoted,
};

/// How long after it was issued a nonce may be used for the first time on a connection.
pub const NONCE_LIFETIME: Duration = Duration::from_mins(5);
/// How many nonces one connection remembers; the oldest is forgotten, and using it again is answered `stale`.
const NONCES_PER_CONNECTION_MAX: usize = 4;

/// What is stored of a user to check a password.
#[derive(Clone)]
pub enum Secret {
    /// The password itself.
    Password(String),
    /// Hashes of user, realm and password, in lower-case hexadecimal, as [`ha1`] makes them. An algorithm without its
    /// hash is refused for that user.
    Ha1 {
        /// By MD5.
        md5: Option<String>,
        /// By SHA-256.
        sha256: Option<String>,
    },
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// The outcome of checking a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No Authorization header.
    Absent,
    /// This user has proved to be who they say.
    User(String),
    /// The password is right and the nonce too old or used up: to be asked again with `stale=true`.
    Stale,
    /// Wrong, malformed or unknown.
    Refused,
    /// Not looked at, because of too many wrong ones before: to be tried again after this.
    Throttled(Duration),
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The peer's address.
    pub peer: IpAddr,
    /// Whether the connection is encrypted.
    pub encrypted: bool,
}

impl From<IpAddr> for Origin {
    /// Not encrypted.
    fn from(peer: IpAddr) -> Self {
        Self { peer, encrypted: false }
    }
}

/// Decides who may try to log in, and is told what came of it. Asked while a request waits: it must answer at once.
pub trait Guard: Send + Sync {
    /// How long this peer has to wait before a login to this account is looked at; `None`: not at all.
    fn wait(&self, now: Instant, origin: Origin, account: &str) -> Option<Duration>;
    /// A login was wrong. The same wrong answer again on the same connection is not told: it guesses nothing new.
    fn refused(&self, now: Instant, origin: Origin, account: &str);
    /// A login was right, for the first time on its connection.
    fn proved(&self, now: Instant, origin: Origin, account: &str);
}

/// What one connection has proved so far.
#[derive(Debug, Default)]
pub struct ConnectionLogin {
    /// Nonces that were valid on this connection, with the highest count seen, oldest first.
    nonces: Vec<(String, u32)>,
    /// Who was proved last.
    proved: Option<String>,
    /// The header that was wrong last, hashed.
    wrong: Option<[u8; 32]>,
}

/// Finds a user by name.
type Lookup = dyn Fn(&str) -> Option<Secret> + Send + Sync;

/// Issues challenges and checks answers. One for the whole server: shards share it.
pub struct Verifier {
    realm: String,
    nonces: Nonces,
    basic: bool,
    lookup: Box<Lookup>,
    guard: Option<Arc<dyn Guard>>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("realm", &self.realm)
            .field("basic", &self.basic)
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier. `secret` must be random and the same on every shard; `epoch` is any moment before the first request;
    /// `basic` offers and accepts Basic as well.
    pub fn new(
        realm: impl Into<String>,
        secret: [u8; 32],
        epoch: Instant,
        basic: bool,
        lookup: impl Fn(&str) -> Option<Secret> + Send + Sync + 'static,
    ) -> Self {
        Self {
            realm: realm.into(),
            nonces: Nonces::new(secret, epoch),
            basic,
            lookup: Box::new(lookup),
            guard: None,
        }
    }

    /// With somebody who decides how often a peer may try.
    pub fn guarded(mut self, guard: Arc<dyn Guard>) -> Self {
        self.guard = Some(guard);
        self
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The values of the WWW-Authenticate headers of a 401, in the order to send them: players keep the last Digest that
    /// they see, and only the newest know SHA-256. Realm and nonce come first: live555 reads by position.
    pub fn challenges(&self, now: Instant, peer: IpAddr, stale: bool) -> Vec<String> {
        let nonce = self.nonces.issue(now, peer);
        let realm = quoted(&self.realm);
        let stale = if stale { ", stale=true" } else { "" };
        let mut list = vec![
            format!("Digest realm={realm}, nonce=\"{nonce}\"{stale}, algorithm=SHA-256, qop=\"auth\""),
            format!("Digest realm={realm}, nonce=\"{nonce}\"{stale}, algorithm=MD5"),
        ];
        if self.basic {
            list.push(format!("Basic realm={realm}"));
        }
        list
    }

    /// Checks an Authorization header. `login` is the state of the connection that the request came on.
    pub fn verify(
        &self,
        now: Instant,
        origin: impl Into<Origin>,
        login: &mut ConnectionLogin,
        method: &str,
        uri: &str,
        authorization: Option<&str>,
    ) -> Verdict {
        let origin = origin.into();
        let Some(value) = authorization else {
            return Verdict::Absent;
        };
        let Ok(read) = Authorization::parse(value) else {
            return Verdict::Refused;
        };
        let account = match &read {
            Authorization::Basic(given) => given.username().to_owned(),
            Authorization::Digest(digest) => digest.username.clone(),
        };
        // Who is known on this connection is not made to wait for what others do.
        let known = login.proved.as_ref() == Some(&account);
        let guard = self.guard.as_ref();
        if let Some(wait) = guard.filter(|_| !known).and_then(|g| g.wait(now, origin, &account)) {
            return Verdict::Throttled(wait);
        }
        let verdict = match read {
            Authorization::Basic(given) if self.basic => self.verify_basic(&given),
            Authorization::Basic(_) => Verdict::Refused,
            Authorization::Digest(digest) => self.verify_digest(now, origin.peer, login, method, uri, digest),
        };
        match &verdict {
            Verdict::User(_) if !known => {
                if let Some(guard) = guard {
                    guard.proved(now, origin, &account);
                }
                login.proved = Some(account);
            }
            Verdict::Refused => {
                let hash: [u8; 32] = Sha256::digest(value).into();
                if login.wrong.replace(hash) != Some(hash)
                    && let Some(guard) = guard
                {
                    guard.refused(now, origin, &account);
                }
            }
            _ => {}
        }
        verdict
    }

    fn verify_basic(&self, given: &Credentials) -> Verdict {
        let right = match (self.lookup)(given.username()) {
            Some(Secret::Password(p)) => constant_time_eq(p.as_bytes(), given.password().as_bytes()),
            Some(Secret::Ha1 { md5, sha256 }) => {
                let (hash, is_sha) = sha256.map_or((md5, false), |h| (Some(h), true));
                let given = ha1(is_sha, given.username(), &self.realm, given.password());
                hash.is_some_and(|h| constant_time_eq(h.as_bytes(), given.as_bytes()))
            }
            None => false,
        };
        if right {
            Verdict::User(given.username().to_owned())
        } else {
            Verdict::Refused
        }
    }

    fn verify_digest(
        &self,
        now: Instant,
        peer: IpAddr,
        login: &mut ConnectionLogin,
        method: &str,
        uri: &str,
        digest: DigestAuthorization,
    ) -> Verdict {
        let age = self.nonces.read(now, peer, &digest.nonce).map(|n| n.age);
        let known = login.nonces.iter().position(|(n, _)| *n == digest.nonce);
        // The password is checked before the age, so that `stale` is told only to those who know it.
        let hash = self.ha1_of(&digest.username, digest.algorithm);
        let expected = digest.algorithm.response(
            hash.as_deref().unwrap_or("0"),
            method,
            &DigestInput {
                nonce: &digest.nonce,
                uri: &digest.uri,
                qop: &digest.qop,
                nc: &digest.nc,
                cnonce: &digest.cnonce,
            },
        );
        let right = constant_time_eq(expected.as_bytes(), digest.response.as_bytes()) & hash.is_some();
        if !right || digest.realm != self.realm || !uri_matches(uri, &digest.uri) {
            return Verdict::Refused;
        }
        let Some(age) = age else {
            // Right password, but a nonce of an earlier run or of another address.
            return Verdict::Stale;
        };
        if known.is_none() && age > NONCE_LIFETIME {
            return Verdict::Stale;
        }
        if digest.qop.is_empty() {
            login.remember(known, digest.nonce, 0);
            return Verdict::User(digest.username);
        }
        let Some(count) = (digest.nc.len() == 8)
            .then(|| u32::from_str_radix(&digest.nc, 16).ok())
            .flatten()
        else {
            return Verdict::Refused;
        };
        // A count that does not rise is a replay.
        if count <= known.map_or(0, |i| login.nonces[i].1) {
            return Verdict::Stale;
        }
        login.remember(known, digest.nonce, count);
        Verdict::User(digest.username)
    }

    fn ha1_of(&self, username: &str, algorithm: Algorithm) -> Option<String> {
        match (self.lookup)(username)? {
            Secret::Password(p) => Some(ha1(algorithm.sha256, username, &self.realm, &p)),
            Secret::Ha1 { sha256, .. } if algorithm.sha256 => sha256,
            Secret::Ha1 { md5, .. } => md5,
        }
    }
}

impl ConnectionLogin {
    fn remember(&mut self, known: Option<usize>, nonce: String, count: u32) {
        if let Some(i) = known {
            self.nonces[i].1 = count.max(self.nonces[i].1);
            return;
        }
        if self.nonces.len() == NONCES_PER_CONNECTION_MAX {
            self.nonces.remove(0);
        }
        self.nonces.push((nonce, count));
    }
}

/// Whether the URI that was hashed stands for the one that was asked for: the same; the stream's for a track's, which is
/// what VLC hashes in SETUP; without a slash at the end; or the path alone.
fn uri_matches(asked: &str, hashed: &str) -> bool {
    fn path(uri: &str) -> &str {
        let rest = uri
            .split_once("://")
            .map_or(uri, |(_, r)| r.find('/').map_or("", |i| &r[i..]));
        rest.trim_end_matches('/')
    }
    let without_query = |uri: &str| {
        uri.split('?')
            .next()
            .unwrap_or_default()
            .trim_end_matches('/')
            .to_owned()
    };
    let (asked, hashed) = (path(asked), path(hashed));
    let extends = |long: &str, short: &str| {
        let rest = long.strip_prefix(short);
        rest.is_some_and(|rest| rest.is_empty() || (!short.is_empty() && rest.starts_with(['/', '?'])))
    };
    // `cam` for `cam/track1` and the other way round, with the track before the query or behind it; never `cam` for `cam2`.
    extends(asked, hashed)
        || extends(hashed, asked)
        || extends(&without_query(asked), &without_query(hashed))
        || extends(&without_query(hashed), &without_query(asked))
}
