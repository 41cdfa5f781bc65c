//! The one gate: who may do what.

use std::sync::atomic::Ordering;

use corenvr_media::CameraName;
use corenvr_playback::Access;

use super::{Accounts, Right, Role, Who, account::gives};

impl Accounts {
    /// May they do it? Answers at once. `camera` is asked for by name, whether it exists or not; without one, the question is for all
    /// cameras (see [`Right::Status`]).
    pub fn allows(&self, who: &Who, right: Right, camera: Option<&CameraName>) -> Access {
        match who {
            Who::Local => Access::Allow,
            Who::Nobody => self.allows_user(None, right, camera),
            Who::User(name) => self.allows_user(Some(name), right, camera),
        }
    }

    /// As [`Self::allows`], for an account by its name or for nobody.
    pub(super) fn allows_user(&self, name: Option<&str>, right: Right, camera: Option<&CameraName>) -> Access {
        // What needs no login is not refused to one who has logged in.
        let anonymous = match right {
            Right::Live => &self.anonymous_live,
            Right::Playback => &self.anonymous_playback,
            _ => return self.allows_account(name, right, camera),
        };
        if anonymous.load(Ordering::Relaxed) {
            return Access::Allow;
        }
        self.allows_account(name, right, camera)
    }

    fn allows_account(&self, name: Option<&str>, right: Right, camera: Option<&CameraName>) -> Access {
        let state = self.state();
        // An account that is gone or switched off proves nothing any more.
        let Some((_, account)) = name.and_then(|n| state.enabled(n)) else {
            return Access::NeedLogin;
        };
        if gives(account.role, &account.grants, right, camera) {
            Access::Allow
        } else {
            Access::Forbid
        }
    }

    /// What somebody may do with at least one camera, or at all.
    pub fn rights(&self, who: &Who) -> Vec<Right> {
        let state = self.state();
        let account = match who {
            Who::User(name) => state.enabled(name).map(|(_, a)| a),
            _ => None,
        };
        let somewhere = |right: Right| {
            let grants = account.filter(|a| a.role.gives(right)).map_or(&[][..], |a| &a.grants);
            grants.iter().flat_map(|g| &g.allow).any(|a| a.right() == right)
        };
        let may = |right: &Right| self.allows(who, *right, None) == Access::Allow || somewhere(*right);
        Right::ALL.into_iter().filter(may).collect()
    }

    /// The role of somebody; `None` for nobody, and for an account that is gone or switched off. Local is an administrator.
    pub fn role(&self, who: &Who) -> Option<Role> {
        match who {
            Who::Local => Some(Role::Admin),
            Who::Nobody => None,
            Who::User(name) => self.state().enabled(name).map(|(_, a)| a.role),
        }
    }
}
