//! One line of the audit log.

use std::{fmt, net::IpAddr};

use corenvr_media::{CameraName, WallTime};
use serde::{Deserialize, Serialize};

use super::super::Who;

/// The longest detail, in characters; what is beyond is cut off.
const DETAIL_CHARS_MAX: usize = 500;

/// How somebody came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// RTSP without encryption.
    Rtsp,
    /// RTSP over TLS.
    Rtsps,
    /// HTTP without encryption.
    Http,
    /// HTTP over TLS.
    Https,
    /// The unix socket of this machine, or the machine itself.
    Local,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Action {
    Login,
    LoginRefused,
    Logout,
    WatchLive,
    WatchArchive,
    WatchEnd,
    Export,
    CameraAdd,
    CameraChange,
    CameraRemove,
    UserAdd,
    UserChange,
    UserRemove,
    UserPassword,
    TokenAdd,
    TokenRemove,
    Ptz,
    Backfill,
    Reload,
    /// Entries that were lost because they came faster than the disk took them.
    Lost,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Done.
    Ok,
    /// Not allowed.
    Refused,
    /// Allowed, and failed.
    Failed,
}

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub time: WallTime,
    /// Who: an account's name, `(local)`, or `(nobody)`. Neither of the last two can be an account's name.
    pub who: String,
    /// From where; `None`: this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// How they came in.
    pub via: Via,
    /// What they did.
    pub action: Action,
    /// To which camera.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera: Option<CameraName>,
    /// More about it, such as the range that was watched. Never a secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What became of it.
    pub outcome: Outcome,
}

impl Entry {
    /// Somebody did something just now, and it worked.
    pub fn new(who: &Who, peer: Option<IpAddr>, via: Via, action: Action) -> Self {
        Self {
            time: WallTime::from_system(std::time::SystemTime::now()),
            who: who.to_string(),
            peer: peer.map(|p| p.to_canonical()),
            via,
            action,
            camera: None,
            detail: String::new(),
            outcome: Outcome::Ok,
        }
    }

    /// With the camera.
    pub fn camera(mut self, camera: &CameraName) -> Self {
        self.camera = Some(camera.clone());
        self
    }

    /// With more about it. Control characters are left out: they have no place in a log that people read.
    pub fn detail(mut self, detail: &str) -> Self {
        self.detail = detail
            .chars()
            .filter(|c| !c.is_control())
            .take(DETAIL_CHARS_MAX)
            .collect();
        self
    }

    /// With what became of it.
    pub const fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }
}

impl Via {
    /// As the file names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rtsp => "rtsp",
            Self::Rtsps => "rtsps",
            Self::Http => "http",
            Self::Https => "https",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
