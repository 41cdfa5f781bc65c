//! Who may see what: the question that the appliance answers. How a login is proved is `corenvr_proto::auth`'s business.

use std::{net::IpAddr, time::Duration};

use corenvr_media::{CameraName, WallTime};
use serde::Serialize;

/// What a client wants to see of a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The present.
    Live,
    /// The past.
    Playback,
}

impl Action {
    /// As the configuration's `[auth] anonymous` names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Playback => "playback",
        }
    }
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Yes.
    Allow,
    /// Not without a login: 401.
    NeedLogin,
    /// Not for this user: 403.
    Forbid,
}

/// Who watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// Who has logged in, if anybody.
    pub user: Option<String>,
    /// The client's address.
    pub peer: IpAddr,
    /// Whether the connection is encrypted.
    pub encrypted: bool,
}

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The present begins.
    Live,
    /// Footage begins.
    Archive {
        /// The earlier end of the range, whatever the direction.
        from: WallTime,
        /// The later one; `None`: on into the present.
        to: Option<WallTime>,
    },
    /// The session is over.
    End {
        /// How long after its first PLAY.
        after: Duration,
    },
    /// It was asked for and is not allowed.
    Refused(Action),
}

/// Somebody watches something, or stops.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    /// Who.
    pub viewer: &'a Viewer,
    /// Of which camera.
    pub camera: &'a CameraName,
    /// What.
    pub seen: Seen,
}

/// Decides about access. Asked on the shard for every request that names a camera: it must answer at once.
pub trait Gate: Send + Sync {
    /// May `user` (`None`: nobody has logged in) do this? Asked before it is known whether the camera exists, so that names cannot be
    /// probed without a login.
    fn access(&self, user: Option<&str>, action: Action, camera: &CameraName) -> Access;

    /// Changes whenever somebody may do something else than before: sessions that run are then looked at again.
    fn generation(&self) -> u64 {
        0
    }

    /// Which state of an account a login proves; another one once its password has changed, or when the name is another account's. A session
    /// of another state is ended.
    fn credential(&self, user: &str) -> u64 {
        let _ = user;
        0
    }

    /// Told when a range begins, when a session that has shown something ends, and when somebody is refused; never per packet. Must not wait.
    fn note(&self, watched: &Watched<'_>) {
        let _ = watched;
    }
}

impl<F> Gate for F
where
    F: Fn(Option<&str>, Action, &CameraName) -> Access + Send + Sync,
{
    fn access(&self, user: Option<&str>, action: Action, camera: &CameraName) -> Access {
        self(user, action, camera)
    }
}
