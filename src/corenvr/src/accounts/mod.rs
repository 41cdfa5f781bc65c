//! Accounts: who may do what, over every protocol, and how they prove who they are.
//!
//! `account` has roles, grants and rules, `store` the file, `password` hashes and random secrets, `session` those who logged in with a
//! browser, `audit` the log of what was done. `gate` decides ([`Accounts::allows`]), `login` checks proofs, `change` changes accounts,
//! and `rtsp` is how the RTSP server asks.

pub mod account;
pub mod audit;
mod change;
mod gate;
mod login;
mod password;
mod private;
mod rtsp;
mod session;
mod store;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use corenvr_media::WallTime;
use corenvr_proto::auth::{Throttle, ha1};

pub use account::{AccountView, Change, Grant, NewAccount, Role, RuleError, TokenView};
pub use audit::{Audit, Via};

use self::{
    password::Permits,
    session::Sessions,
    store::{Contents, Store, Stored, StoredToken},
};
use crate::config::Anonymous;

/// The last use of a token is written down at most so often.
pub const LAST_USE_STEP: Duration = Duration::from_secs(3600);

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// Somebody who has not logged in.
    Nobody,
    /// Root or the service's own user, over the unix socket: may do everything.
    Local,
    /// An account that has proved who it is.
    User(Arc<str>),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("(nobody)"),
            Self::Local => f.write_str("(local)"),
            Self::User(name) => f.write_str(name),
        }
    }
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Right {
    /// See a camera's present.
    Live,
    /// See a camera's past.
    Playback,
    /// Take footage away as a file.
    Export,
    /// Move a camera.
    Control,
    /// See how the recorder and its cameras are. Without a camera every account may; what is then told of cameras is told only of those of
    /// which the account has Status.
    Status,
    /// Change cameras, fill gaps, ask devices.
    Configure,
    /// See and change accounts.
    Accounts,
    /// Read the audit log.
    Audit,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Live,
        Self::Playback,
        Self::Export,
        Self::Control,
        Self::Status,
        Self::Configure,
        Self::Accounts,
        Self::Audit,
    ];

    /// As the API names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Playback => "playback",
            Self::Export => "export",
            Self::Control => "control",
            Self::Status => "status",
            Self::Configure => "configure",
            Self::Accounts => "accounts",
            Self::Audit => "audit",
        }
    }
}

/// A login did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Wrong name, wrong password, wrong token, or an account that is switched off: which, is not told.
    #[error("wrong name or password")]
    Wrong,
    /// Too many wrong ones before; nothing was checked. 429 with Retry-After.
    #[error("too many wrong logins; try again in {} s", retry_after.as_secs().max(1))]
    Throttled {
        /// How long to wait.
        retry_after: Duration,
    },
    /// Too many logins are being checked. 503 with Retry-After.
    #[error("too many logins at the same time; try again in a moment")]
    Busy,
}

/// A session that has just begun.
#[derive(Clone)]
pub struct NewSession {
    /// For the cookie: 256 random bits in base64url. Kept nowhere in clear.
    pub id: String,
    /// The account.
    pub name: Arc<str>,
}

/// A token that has just been made.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub struct NewToken {
    /// The token's entry.
    #[serde(flatten)]
    pub view: TokenView,
    /// The token itself: it is shown this once.
    pub token: String,
}

/// An account was not changed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// What is asked breaks a rule. 400
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// 404
    #[error("there is no account {0:?}")]
    NoSuchAccount(String),
    /// 404
    #[error("the account has no token {0:?}")]
    NoSuchToken(String),
    /// 409
    #[error("there is an account {0:?} already")]
    Exists(String),
    /// 409
    #[error("{0:?} is the last administrator who can log in: make another one first")]
    LastAdmin(String),
    /// 409
    #[error("there are {0} {1} already, which is as many as there may be")]
    TooMany(usize, &'static str),
    /// 503: other passwords are being hashed.
    #[error("too many passwords are being checked; try again in a moment")]
    Busy,
    /// 500
    #[error("cannot write {}: {source}. Remedy: make its directory writable for the service's user and its disk not full", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// 500
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

impl fmt::Debug for NewSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSession")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken")
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}

/// The accounts cannot be used: the recorder must not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is not one of ours, or damaged.
    #[error("{}: {problem}. Remedy: put the file back from a backup; or move it away, which makes a new `admin` at the next start and ends all other accounts", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process has the accounts.
    #[error("the accounts in {} are in use by another corenvr. Remedy: stop it, or give this one a state_dir of its own", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The file or its directory cannot be used.
    #[error("{}: {source}. Remedy: make it readable and writable for the service's user", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The name of the account that the first start makes.
const FIRST_ADMIN: &str = "admin";

/// The accounts of this recorder. Shared by everything that lets anybody do anything.
pub struct Accounts {
    /// What questions are answered from; replaced as a whole.
    state: Mutex<Arc<State>>,
    /// Held while accounts change, so that two changes never mix.
    store: Mutex<Store>,
    realm: String,
    anonymous_live: AtomicBool,
    anonymous_playback: AtomicBool,
    /// Rises when anybody may do something else than before.
    generation: AtomicU64,
    /// Gives each state of an account in which it can be logged in to a number of its own.
    logins: AtomicU64,
    sessions: Mutex<Sessions>,
    throttle: Mutex<Throttle>,
    permits: Permits,
    /// A hash that no password has: names that are not there cost as much as others.
    nobodys_hash: String,
    audit: Audit,
}

/// All accounts at one moment.
struct State {
    contents: Contents,
    by_name: HashMap<Arc<str>, Live>,
    by_token: HashMap<[u8; 32], LiveToken>,
}

/// What an account needs besides what is written of it.
#[derive(Debug, Clone)]
struct Live {
    /// Its place in the contents.
    index: usize,
    name: Arc<str>,
    /// Another one whenever its sessions are to end.
    login: u64,
    /// Another one whenever its password is.
    credential: u64,
}

#[derive(Clone)]
struct LiveToken {
    name: Arc<str>,
    expires: Option<WallTime>,
    /// Milliseconds since the epoch; `i64::MIN`: never.
    last_used: Arc<AtomicI64>,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts")
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

fn now() -> WallTime {
    WallTime::from_system(std::time::SystemTime::now())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Accounts {
    /// Reads the accounts of `state_dir`; the first time it makes `admin` with a random password, which it writes to a file. Blocks.
    pub fn open(state_dir: &Path, anonymous: Anonymous, audit: Audit) -> Result<Arc<Self>, OpenError> {
        let store = Store::lock(state_dir)?;
        let permits = Permits::default();
        let contents = match store.read()? {
            Some(contents) => contents,
            None => begin(&store, &permits)?,
        };
        if !contents.has_admin() {
            tracing::warn!(
                "no administrator can log in; `corenvr user passwd` and `corenvr user change` on this machine remedy that"
            );
        }
        let nobodys_hash = hash(&permits, &password::random_secret()).map_err(|e| OpenError::Io {
            path: store.path().to_owned(),
            source: io::Error::other(e.to_string()),
        })?;
        let logins = AtomicU64::new(1);
        let realm = contents.realm.clone();
        let state = State::new(contents, None, &logins);
        Ok(Arc::new(Self {
            state: Mutex::new(Arc::new(state)),
            store: Mutex::new(store),
            realm,
            anonymous_live: AtomicBool::new(anonymous.live),
            anonymous_playback: AtomicBool::new(anonymous.playback),
            generation: AtomicU64::new(0),
            logins,
            sessions: Mutex::default(),
            throttle: Mutex::default(),
            permits,
            nobodys_hash,
            audit,
        }))
    }

    /// What anybody may watch, from now on.
    pub fn set_anonymous(&self, anonymous: Anonymous) {
        self.anonymous_live.store(anonymous.live, Ordering::Relaxed);
        self.anonymous_playback.store(anonymous.playback, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    fn state(&self) -> Arc<State> {
        locked(&self.state).clone()
    }
}

/// The first start: `admin`. The password is told before the account is there, so that a crash between the two leaves no account that
/// nobody can use.
fn begin(store: &Store, permits: &Permits) -> Result<Contents, OpenError> {
    let io = |source| OpenError::Io {
        path: store.path().to_owned(),
        source,
    };
    let mut contents = Contents::new();
    let password = password::random_password();
    let secrets = Secrets::of(permits, FIRST_ADMIN, &contents.realm, &password);
    let secrets = secrets.map_err(|e| io(io::Error::other(e.to_string())))?;
    contents.accounts.push(Stored {
        name: FIRST_ADMIN.into(),
        role: Role::Admin,
        grants: Vec::new(),
        enabled: true,
        created: now(),
        password_changed: now(),
        password: secrets.hash,
        ha1_md5: secrets.ha1_md5,
        ha1_sha256: secrets.ha1_sha256,
        tokens: Vec::new(),
    });
    store.write_password(&password).map_err(io)?;
    store.write(&contents).map_err(io)?;
    tracing::warn!(
        file = %store.password_file().display(),
        "the account `admin` was made; its password is in this file, which goes when it is changed with `corenvr user passwd admin`"
    );
    Ok(contents)
}

/// What is kept of a password.
struct Secrets {
    hash: String,
    ha1_md5: String,
    ha1_sha256: String,
}

impl Secrets {
    fn of(permits: &Permits, name: &str, realm: &str, password: &str) -> Result<Self, AccountError> {
        Ok(Self {
            hash: hash(permits, password)?,
            ha1_md5: ha1(false, name, realm, password),
            ha1_sha256: ha1(true, name, realm, password),
        })
    }
}

fn hash(permits: &Permits, password: &str) -> Result<String, AccountError> {
    let permit = permits.take().ok_or(AccountError::Busy)?;
    password::hash(password, &permit).map_err(AccountError::Hash)
}

impl State {
    /// What follows from `contents`. What is the same as in `before` keeps its numbers, and with them its sessions.
    fn new(contents: Contents, before: Option<&Self>, logins: &AtomicU64) -> Self {
        let number = || logins.fetch_add(1, Ordering::Relaxed);
        let (mut by_name, mut by_token) = (HashMap::new(), HashMap::new());
        for (index, account) in contents.accounts.iter().enumerate() {
            let old = before.and_then(|b| Some((b.by_name.get(&*account.name)?, b.contents.find(&account.name)?)));
            let old = old.filter(|(_, o)| o.created == account.created);
            let same_password = old.filter(|(_, o)| o.password == account.password);
            let same = same_password.filter(|(_, o)| o.role == account.role && o.enabled == account.enabled);
            let name: Arc<str> = account.name.as_str().into();
            let live = Live {
                index,
                name: name.clone(),
                login: same.map_or_else(number, |(l, _)| l.login),
                credential: same_password.map_or_else(number, |(l, _)| l.credential),
            };
            for token in &account.tokens {
                let Some(key) = password::from_hex(&token.sha256) else {
                    continue;
                };
                let used = before.and_then(|b| b.by_token.get(&key)).map(|t| t.last_used.clone());
                let written = token.last_used.map_or(i64::MIN, WallTime::as_millis);
                let live = LiveToken {
                    name: name.clone(),
                    expires: token.expires,
                    last_used: used.unwrap_or_else(|| Arc::new(AtomicI64::new(written))),
                };
                by_token.insert(key, live);
            }
            by_name.insert(name, live);
        }
        Self {
            contents,
            by_name,
            by_token,
        }
    }

    /// An account that can be used.
    fn enabled(&self, name: &str) -> Option<(&Live, &Stored)> {
        let live = self.by_name.get(name)?;
        let stored = self.contents.accounts.get(live.index)?;
        stored.enabled.then_some((live, stored))
    }
}

fn view(account: &Stored) -> AccountView {
    AccountView {
        name: account.name.clone(),
        role: account.role,
        grants: account.grants.clone(),
        enabled: account.enabled,
        created: account.created,
        password_changed: account.password_changed,
        tokens: account.tokens.len(),
    }
}

fn view_token(token: &StoredToken, state: &State) -> TokenView {
    let live = password::from_hex(&token.sha256).and_then(|key| state.by_token.get(&key));
    let used = live.map_or(i64::MIN, |t| t.last_used.load(Ordering::Relaxed));
    TokenView {
        id: token.id.clone(),
        label: token.label.clone(),
        created: token.created,
        expires: token.expires,
        last_used: (used != i64::MIN).then(|| WallTime::from_millis(used)),
    }
}
