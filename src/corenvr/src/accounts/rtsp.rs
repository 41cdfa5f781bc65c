//! How the RTSP server asks: secrets for Digest, the throttle, the gate, and what is written down of those who watch.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use corenvr_media::{CameraName, WallTime};
use corenvr_playback::{Access, Action as Watching, Gate, Seen, Watched};
use corenvr_proto::auth::{Guard, Origin, Secret, Verifier};

use super::{
    Accounts, Right, Who,
    audit::{Action, Entry, Outcome, Via},
    locked,
};

impl Accounts {
    /// Checks logins over RTSP: Digest only, since Basic is the password in clear.
    pub fn verifier(self: &Arc<Self>) -> Verifier {
        let accounts = self.clone();
        let lookup = move |name: &str| {
            let state = accounts.state();
            state.enabled(name).map(|(_, account)| Secret::Ha1 {
                md5: Some(account.ha1_md5.clone()),
                sha256: Some(account.ha1_sha256.clone()),
            })
        };
        Verifier::new(&*self.realm, rand::random(), Instant::now(), false, lookup).guarded(self.clone())
    }
}

const fn via(encrypted: bool) -> Via {
    if encrypted { Via::Rtsps } else { Via::Rtsp }
}

const fn right(action: Watching) -> Right {
    match action {
        Watching::Live => Right::Live,
        Watching::Playback => Right::Playback,
    }
}

impl Guard for Accounts {
    fn wait(&self, now: Instant, origin: Origin, account: &str) -> Option<Duration> {
        locked(&self.throttle).wait(now, origin.peer, account)
    }

    fn refused(&self, now: Instant, origin: Origin, account: &str) {
        let mut throttle = locked(&self.throttle);
        throttle.refused(now, origin.peer, account);
        let wait = throttle.wait(now, origin.peer, account);
        drop(throttle);
        self.note_refused(origin.peer, via(origin.encrypted), account, wait);
    }

    fn proved(&self, now: Instant, origin: Origin, account: &str) {
        locked(&self.throttle).proved(now, origin.peer, account);
        let who = Who::User(account.into());
        let entry = Entry::new(&who, Some(origin.peer), via(origin.encrypted), Action::Login);
        self.audit().record(entry);
    }
}

impl Gate for Accounts {
    fn access(&self, user: Option<&str>, action: Watching, camera: &CameraName) -> Access {
        self.allows_user(user, right(action), Some(camera))
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn credential(&self, user: &str) -> u64 {
        self.state().enabled(user).map_or(0, |(live, _)| live.credential)
    }

    fn note(&self, watched: &Watched<'_>) {
        let viewer = watched.viewer;
        let who = viewer
            .user
            .as_deref()
            .map_or(Who::Nobody, |name| Who::User(name.into()));
        let entry = |action| Entry::new(&who, Some(viewer.peer), via(viewer.encrypted), action).camera(watched.camera);
        self.audit().record(match watched.seen {
            Seen::Live => entry(Action::WatchLive),
            Seen::Archive { from, to } => entry(Action::WatchArchive).detail(&range(from, to)),
            Seen::End { after } => entry(Action::WatchEnd).detail(&format!("after {} s", after.as_secs())),
            Seen::Refused(Watching::Live) => entry(Action::WatchLive).outcome(Outcome::Refused),
            Seen::Refused(Watching::Playback) => entry(Action::WatchArchive).outcome(Outcome::Refused),
        });
    }
}

fn range(from: WallTime, to: Option<WallTime>) -> String {
    to.map_or_else(|| format!("{from} on"), |to| format!("{from} to {to}"))
}
