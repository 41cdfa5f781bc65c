//! `accounts.json`: what is written of the accounts, and how it is read and replaced.
//!
//! The file holds what proves identities: an argon2id hash for the API, and for RTSP the two HA1 that Digest is computed from. Whoever reads
//! an HA1 can log in to RTSP here as that account, without knowing the password; it is of no use elsewhere, because the realm in it was made
//! at random for this recorder.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use corenvr_media::WallTime;
use serde::{Deserialize, Serialize};

use super::{
    OpenError,
    account::{Grant, Role, check_name},
    password, private,
};

/// Most accounts.
pub const ACCOUNTS_MAX: usize = 1000;
/// Most tokens of one account.
pub const TOKENS_MAX: usize = 64;
/// A larger file is none of ours.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// What is written now.
const FORMAT: u32 = 1;

/// The whole file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    format: u32,
    /// The realm of Digest.
    pub realm: String,
    /// The accounts, in the order in which they were made.
    pub accounts: Vec<Stored>,
}

/// One account.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    pub name: String,
    pub role: Role,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Grant>,
    pub enabled: bool,
    pub created: WallTime,
    pub password_changed: WallTime,
    /// argon2id in PHC form.
    pub password: String,
    pub ha1_md5: String,
    pub ha1_sha256: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<StoredToken>,
}

/// One token.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredToken {
    pub id: String,
    pub label: String,
    pub created: WallTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<WallTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<WallTime>,
    pub sha256: String,
}

/// The file, and the lock that says that nobody else uses it.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    _lock: File,
}

impl Contents {
    /// Of a recorder that has no accounts yet.
    pub fn new() -> Self {
        Self {
            format: FORMAT,
            realm: format!("corenvr-{}", password::random_name()),
            accounts: Vec::new(),
        }
    }

    /// One account.
    pub fn find(&self, name: &str) -> Option<&Stored> {
        self.accounts.iter().find(|a| a.name == name)
    }

    /// One account, to change it.
    pub fn find_mut(&mut self, name: &str) -> Option<&mut Stored> {
        self.accounts.iter_mut().find(|a| a.name == name)
    }

    /// Whether anybody could still change accounts.
    pub fn has_admin(&self) -> bool {
        self.accounts.iter().any(|a| a.enabled && a.role == Role::Admin)
    }

    fn problem(&self) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!(
                "format {} is not one that this version knows ({FORMAT})",
                self.format
            ));
        }
        if self.realm.is_empty() || self.realm.chars().any(|c| c.is_control() || "\"\\".contains(c)) {
            return Some("the realm is empty or has characters in it that no realm may have".into());
        }
        if self.accounts.len() > ACCOUNTS_MAX {
            return Some(format!("more than {ACCOUNTS_MAX} accounts"));
        }
        let mut names = HashSet::new();
        for account in &self.accounts {
            if let Err(error) = check_name(&account.name) {
                return Some(error.to_string());
            }
            if !names.insert(&account.name) {
                return Some(format!("{} is there twice", account.name));
            }
            if let Some(what) = account.problem() {
                return Some(format!("{}: {what}", account.name));
            }
        }
        None
    }
}

impl Stored {
    fn problem(&self) -> Option<&'static str> {
        let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !password::is_hash(&self.password) {
            return Some("password is not an argon2id hash");
        }
        if !hex(&self.ha1_md5, 32) || !hex(&self.ha1_sha256, 64) {
            return Some("ha1_md5 or ha1_sha256 is not a hash");
        }
        if self.tokens.len() > TOKENS_MAX {
            return Some("too many tokens");
        }
        if self.tokens.iter().any(|t| !hex(&t.sha256, 64)) {
            return Some("sha256 of a token is not a hash");
        }
        None
    }
}

impl Store {
    /// Takes the file of `state_dir` for this process alone.
    pub fn lock(state_dir: &Path) -> Result<Self, OpenError> {
        let path = state_dir.join("accounts.lock");
        let io = |source| OpenError::Io {
            path: path.clone(),
            source,
        };
        let lock = private::open_lock(&path).map_err(io)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: state_dir.join("accounts.json"),
                _lock: lock,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse {
                dir: state_dir.to_owned(),
            }),
            Err(error) => Err(io(error.into())),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file; `None` if there is none.
    pub fn read(&self) -> Result<Option<Contents>, OpenError> {
        let damaged = |problem| OpenError::Damaged {
            path: self.path.clone(),
            problem,
        };
        let io = |source| OpenError::Io {
            path: self.path.clone(),
            source,
        };
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            Ok(file) => file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(damaged("it is too large to be a file of accounts".into()));
        }
        // What serde says of a wrong value may quote it, and values here are secrets: only the place is told.
        let contents: Contents = serde_json::from_slice(&bytes).map_err(|e| {
            damaged(format!(
                "it is not a file of accounts, or damaged (line {}, column {})",
                e.line(),
                e.column()
            ))
        })?;
        match contents.problem() {
            Some(problem) => Err(damaged(problem)),
            None => Ok(Some(contents)),
        }
    }

    /// Replaces the file.
    pub fn write(&self, contents: &Contents) -> io::Result<()> {
        let mut bytes = serde_json::to_vec_pretty(contents)?;
        bytes.push(b'\n');
        private::replace(&self.path, &bytes)
    }

    /// Where the first password of `admin` is told.
    pub fn password_file(&self) -> PathBuf {
        self.path.with_file_name("admin-password")
    }

    /// Tells the first password.
    pub fn write_password(&self, password: &str) -> io::Result<()> {
        private::replace(&self.password_file(), format!("{password}\n").as_bytes())
    }

    /// Removes the file with the first password, which is none any more.
    pub fn remove_password(&self) {
        match fs::remove_file(self.password_file()) {
            Ok(()) => drop(private::sync_dir(private::directory(&self.path))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(file = %self.password_file().display(), %error, "the file of the first password cannot be removed; the password in it is no longer valid");
            }
        }
    }
}
