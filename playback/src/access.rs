//! Who may see what: the question that the appliance answers. How a login is proved is `corenvr_proto::auth`'s business.

use corenvr_media::CameraName;
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

/// Decides about access. Asked on the shard for every request that names a camera: it must answer at once.
pub trait Gate: Send + Sync {
    /// May `user` (`None`: nobody has logged in) do this? Asked before it is known whether the camera exists, so that names cannot be
    /// probed without a login.
    fn access(&self, user: Option<&str>, action: Action, camera: &CameraName) -> Access;
}

impl<F> Gate for F
where
    F: Fn(Option<&str>, Action, &CameraName) -> Access + Send + Sync,
{
    fn access(&self, user: Option<&str>, action: Action, camera: &CameraName) -> Access {
        self(user, action, camera)
    }
}
