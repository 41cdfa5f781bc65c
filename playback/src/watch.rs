//! Who is watching what: told to the gate when it begins and ends, and asked again when rights change.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use corenvr_media::{CameraName, WallTime};
use corenvr_shard::time;

use crate::{
    access::{Access, Action, Gate, Seen, Viewer, Watched},
    wake::Flag,
};

/// How often it is looked whether rights have changed: for so long at most somebody goes on watching who may not any more.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What one session watches.
pub struct Watch {
    gate: Arc<dyn Gate>,
    /// Who watches.
    pub viewer: Viewer,
    camera: CameraName,
    /// Under which state of the account they logged in.
    credential: Option<u64>,
    /// What of it is played, or would be played on; what is not used is not asked about.
    used: Cell<Used>,
    /// The same before the last request to play.
    before: Cell<Used>,
    noted: RefCell<Option<Noted>>,
    revoked: Rc<Flag>,
}

/// What the session needs of the camera at the moment.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    live: bool,
    playback: bool,
}

/// What the gate was told last.
struct Noted {
    since: Instant,
    seen: Seen,
}

/// The watches of a shard's connections.
#[derive(Default)]
pub struct Watches(RefCell<Vec<Weak<Watch>>>);

impl Watch {
    /// Nothing is played yet. `revoked` is set when it may not go on.
    pub fn new(gate: Arc<dyn Gate>, viewer: Viewer, camera: CameraName, revoked: Rc<Flag>) -> Self {
        let credential = viewer.user.as_deref().map(|user| gate.credential(user));
        Self {
            gate,
            viewer,
            camera,
            credential,
            used: Cell::default(),
            before: Cell::default(),
            noted: RefCell::default(),
            revoked,
        }
    }

    /// Whether this may be played now. If so, it counts as used until [`Self::renew`].
    pub fn allows(&self, action: Action) -> bool {
        let allowed = self.asks(action);
        if allowed {
            let mut used = self.used.get();
            match action {
                Action::Live => used.live = true,
                Action::Playback => used.playback = true,
            }
            self.used.set(used);
        }
        allowed
    }

    fn asks(&self, action: Action) -> bool {
        let user = self.viewer.user.as_deref();
        let same = user.map(|user| self.gate.credential(user)) == self.credential;
        same && self.gate.access(user, action, &self.camera) == Access::Allow
    }

    /// Another range is about to begin.
    pub fn renew(&self) {
        self.before.set(self.used.take());
    }

    /// What was played before goes on. Returns whether it may.
    pub fn go_on(&self) -> bool {
        self.used.set(self.before.get());
        self.may_go_on()
    }

    fn may_go_on(&self) -> bool {
        let used = self.used.get();
        (!used.live || self.asks(Action::Live)) && (!used.playback || self.asks(Action::Playback))
    }

    /// Tells what is played from now on, unless it lies inside what was told: players seek many times in one range.
    pub fn note(&self, seen: Seen) {
        let mut noted = self.noted.borrow_mut();
        let since = match &mut *noted {
            Some(noted) if noted.seen.covers(seen) => return,
            Some(noted) => noted.since,
            None => Instant::now(),
        };
        self.tell(seen);
        let seen = noted.as_ref().map_or(seen, |n| n.seen.with(seen));
        *noted = Some(Noted { since, seen });
    }

    fn tell(&self, seen: Seen) {
        self.gate.note(&Watched {
            viewer: &self.viewer,
            camera: &self.camera,
            seen,
        });
    }

    /// Ends what is not allowed any more.
    fn look(&self) {
        if !self.may_go_on() {
            tracing::info!(peer = %self.viewer.peer, camera = %self.camera, "a viewer's rights have changed; the connection is closed");
            self.revoked.set();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(noted) = self.noted.get_mut().take() {
            self.tell(Seen::End {
                after: noted.since.elapsed(),
            });
        }
    }
}

impl Seen {
    /// Whether `other` shows nothing more.
    fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::Live, Self::Live) => true,
            (Self::Archive { from, to }, Self::Archive { from: f, to: t }) => {
                from <= f && (to.is_none() || t.is_some_and(|t| to >= Some(t)))
            }
            _ => false,
        }
    }

    /// Both together, where they are of one kind; otherwise the other.
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Archive { from, to }, Self::Archive { from: f, to: t })
                if to.is_none_or(|to| f <= to) && t.is_none_or(|t| from <= t) =>
            {
                Self::Archive {
                    from: from.min(f),
                    to: to.zip(t).map(|(a, b)| a.max(b)),
                }
            }
            _ => other,
        }
    }

    /// A range of footage in the order in which it is played.
    pub(crate) fn range(from: WallTime, to: Option<WallTime>) -> Self {
        match to {
            Some(to) if to < from => Self::Archive {
                from: to,
                to: Some(from),
            },
            _ => Self::Archive { from, to },
        }
    }
}

impl Viewer {
    pub(crate) const fn new(user: Option<String>, peer: IpAddr, encrypted: bool) -> Self {
        Self { user, peer, encrypted }
    }
}

impl Watches {
    /// One more. It is forgotten when its session ends.
    pub fn add(&self, watch: &Rc<Watch>) {
        let mut list = self.0.borrow_mut();
        // As long as the list doubles before it is cleaned, that costs nothing to speak of.
        if list.len() == list.capacity() {
            list.retain(|w| w.strong_count() > 0);
        }
        list.push(Rc::downgrade(watch));
    }

    /// Looks again and again whether rights have changed, and then who is concerned.
    pub async fn look(&self, gate: &dyn Gate) {
        let mut seen = gate.generation();
        loop {
            time::sleep(LOOK_INTERVAL).await;
            let generation = gate.generation();
            if generation == seen {
                continue;
            }
            seen = generation;
            let list: Vec<_> = self.0.borrow().iter().filter_map(Weak::upgrade).collect();
            for watch in list {
                watch.look();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(from: i64, to: Option<i64>) -> Seen {
        Seen::range(WallTime::from_millis(from), to.map(WallTime::from_millis))
    }

    #[test]
    fn seeks_in_what_was_told_are_not_told_again() {
        let told = archive(10, Some(20));
        for inside in [archive(10, Some(20)), archive(15, Some(20)), archive(20, Some(10))] {
            assert!(told.covers(inside));
        }
        for outside in [
            archive(9, Some(20)),
            archive(10, Some(21)),
            archive(10, None),
            Seen::Live,
        ] {
            assert!(!told.covers(outside));
        }
        assert!(archive(10, None).covers(archive(15, None)));
        assert!(archive(10, None).covers(archive(15, Some(99))));
        assert!(Seen::Live.covers(Seen::Live) && !Seen::Live.covers(told));
    }

    #[test]
    fn what_was_told_grows_where_it_touches() {
        assert_eq!(archive(10, Some(20)).with(archive(5, Some(12))), archive(5, Some(20)));
        assert_eq!(archive(10, Some(20)).with(archive(15, None)), archive(10, None));
        // What lies between was never shown.
        assert_eq!(archive(10, Some(20)).with(archive(30, Some(40))), archive(30, Some(40)));
        assert_eq!(archive(10, Some(20)).with(Seen::Live), Seen::Live);
    }
}
