//! Sessions of people who logged in with a browser: in memory only, so that a restart ends them all.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// A session that is not used for so long has ended.
pub const IDLE_MAX: Duration = Duration::from_secs(12 * 3600);
/// No session is older.
pub const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Sessions of one account; the one that was not used for longest ends for one more.
pub const PER_ACCOUNT_MAX: usize = 32;
/// Sessions of all accounts; the one that was not used for longest ends for one more.
pub const ALL_MAX: usize = 4096;

#[derive(Debug, Clone)]
struct Session {
    name: Arc<str>,
    /// Which state of its account it belongs to.
    login: u64,
    begun: Instant,
    used: Instant,
}

/// All sessions, by what is kept of their identifiers.
#[derive(Debug, Default)]
pub struct Sessions(HashMap<[u8; 32], Session>);

impl Session {
    fn has_ended(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) >= IDLE_MAX || now.saturating_duration_since(self.begun) >= AGE_MAX
    }
}

impl Sessions {
    /// Begins a session.
    pub fn begin(&mut self, now: Instant, key: [u8; 32], name: Arc<str>, login: u64) {
        self.0.retain(|_, s| !s.has_ended(now));
        let of_account = self.0.values().filter(|s| s.name == name).count();
        if of_account >= PER_ACCOUNT_MAX {
            self.end_oldest(|s| s.name == name);
        } else if self.0.len() >= ALL_MAX {
            self.end_oldest(|_| true);
        }
        let session = Session {
            name,
            login,
            begun: now,
            used: now,
        };
        self.0.insert(key, session);
    }

    fn end_oldest(&mut self, among: impl Fn(&Session) -> bool) {
        let sessions = self.0.iter().filter(|(_, s)| among(s));
        let oldest = sessions.min_by_key(|(_, s)| s.used).map(|(k, _)| *k);
        if let Some(key) = oldest {
            self.0.remove(&key);
        }
    }

    /// Whose session it is, and which state of the account it belongs to. Counts as a use.
    pub fn find(&mut self, now: Instant, key: &[u8; 32]) -> Option<(Arc<str>, u64)> {
        let session = self.0.get_mut(key)?;
        if session.has_ended(now) {
            self.0.remove(key);
            return None;
        }
        session.used = now;
        Some((session.name.clone(), session.login))
    }

    /// Ends a session. Returns whose it was.
    pub fn end(&mut self, key: &[u8; 32]) -> Option<Arc<str>> {
        self.0.remove(key).map(|s| s.name)
    }

    /// Ends all sessions of an account.
    pub fn end_all_of(&mut self, name: &str) {
        self.0.retain(|_, s| &*s.name != name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> [u8; 32] {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        key
    }

    #[test]
    fn a_session_ends_when_it_is_idle_or_old() {
        let mut sessions = Sessions::default();
        let mut now = Instant::now();
        let begun = now;
        sessions.begin(now, key(1), "anna".into(), 1);
        let mut used = 0;
        while sessions.find(now, &key(1)).is_some() {
            now += IDLE_MAX.checked_sub(Duration::from_secs(1)).unwrap();
            used += 1;
        }
        assert!(used > 10);
        assert!(now - begun >= AGE_MAX && now - begun < AGE_MAX + IDLE_MAX);
        sessions.begin(now, key(2), "anna".into(), 1);
        assert_eq!(sessions.find(now + IDLE_MAX, &key(2)), None);
    }

    #[test]
    fn sessions_are_bounded_per_account_and_in_all() {
        let mut sessions = Sessions::default();
        let now = Instant::now();
        sessions.begin(now, key(0), "bert".into(), 1);
        for n in 1..=PER_ACCOUNT_MAX + 5 {
            sessions.begin(now + Duration::from_millis(n as u64), key(n), "anna".into(), 1);
        }
        let later = now + Duration::from_secs(1);
        let open = (1..=PER_ACCOUNT_MAX + 5).filter(|n| sessions.find(later, &key(*n)).is_some());
        assert_eq!(open.count(), PER_ACCOUNT_MAX);
        assert_eq!(sessions.find(later, &key(1)), None, "the oldest");
        assert!(sessions.find(later, &key(0)).is_some(), "another account's");
        for n in 0..2 * ALL_MAX {
            sessions.begin(later, key(1000 + n), format!("user{}", n / 20).into(), 1);
        }
        assert!(sessions.0.len() <= ALL_MAX);
    }

    #[test]
    fn all_sessions_of_an_account_end_together() {
        let mut sessions = Sessions::default();
        let now = Instant::now();
        sessions.begin(now, key(1), "anna".into(), 1);
        sessions.begin(now, key(2), "bert".into(), 1);
        sessions.end_all_of("anna");
        assert_eq!(sessions.find(now, &key(1)), None);
        assert_eq!(sessions.end(&key(2)).as_deref(), Some("bert"));
        assert_eq!(sessions.end(&key(2)), None);
    }
}
