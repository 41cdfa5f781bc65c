//! Proofs of identity: passwords, the cookies of sessions, tokens.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    Accounts, LAST_USE_STEP, LoginError, NewSession, Who,
    account::{NAME_LEN_MAX, PASSWORD_BYTES_MAX},
    audit::{Action, Entry, Outcome, Via},
    locked, now,
    password::{self, TOKEN_PREFIX},
};

impl Accounts {
    /// Checks a password and begins a session. Blocks for a good part of a second: never call it on an executor. Writes the audit log by
    /// itself.
    pub fn login(&self, peer: IpAddr, via: Via, name: &str, password: &str) -> Result<NewSession, LoginError> {
        if let Some(retry_after) = locked(&self.throttle).wait(Instant::now(), peer, name) {
            return Err(LoginError::Throttled { retry_after });
        }
        // Neither can be right, and neither is worth the computation.
        if name.len() > NAME_LEN_MAX || password.len() > PASSWORD_BYTES_MAX {
            self.refuse(peer, via, name);
            return Err(LoginError::Wrong);
        }
        let state = self.state();
        let account = state.enabled(name);
        let hash = account.map_or(&self.nobodys_hash, |(_, a)| &a.password);
        let permit = self.permits.take().ok_or(LoginError::Busy)?;
        let right = password::matches(password, hash, &permit);
        drop(permit);
        let Some((live, _)) = account.filter(|_| right) else {
            self.refuse(peer, via, name);
            return Err(LoginError::Wrong);
        };
        locked(&self.throttle).proved(Instant::now(), peer, name);
        let id = password::random_secret();
        locked(&self.sessions).begin(Instant::now(), password::digest(&id), live.name.clone(), live.login);
        self.audit.record(Entry::new(
            &Who::User(live.name.clone()),
            Some(peer),
            via,
            Action::Login,
        ));
        Ok(NewSession {
            id,
            name: live.name.clone(),
        })
    }

    /// Who a session's cookie belongs to; `None` if it has ended. Answers at once.
    pub fn by_session(&self, id: &str) -> Option<Who> {
        let key = password::digest(id);
        let (name, login) = locked(&self.sessions).find(Instant::now(), &key)?;
        let state = self.state();
        match state.enabled(&name) {
            Some((live, _)) if live.login == login => Some(Who::User(name)),
            _ => {
                locked(&self.sessions).end(&key);
                None
            }
        }
    }

    /// Ends a session. Returns whose it was.
    pub fn logout(&self, id: &str) -> Option<Who> {
        locked(&self.sessions).end(&password::digest(id)).map(Who::User)
    }

    /// Who a bearer token belongs to. Answers at once; a wrong one counts as a wrong login of its address and is written to the audit log.
    pub fn by_token(&self, peer: IpAddr, via: Via, token: &str) -> Result<Who, LoginError> {
        let state = self.state();
        let time = now();
        // Found by its hash: how long that takes tells nothing of the token. A right one is not made to wait, since 256 bits are not guessed.
        let found = state.by_token.get(&password::digest(token));
        let found = found.filter(|t| t.expires.is_none_or(|e| time < e));
        if let Some(token) = found.filter(|t| state.enabled(&t.name).is_some()) {
            let before = token.last_used.load(Ordering::Relaxed);
            if time.as_millis().saturating_sub(before) >= LAST_USE_STEP.as_millis() as i64 {
                token.last_used.store(time.as_millis(), Ordering::Relaxed);
            }
            return Ok(Who::User(token.name.clone()));
        }
        let instant = Instant::now();
        let mut throttle = locked(&self.throttle);
        if let Some(retry_after) = throttle.wait_nameless(instant, peer) {
            return Err(LoginError::Throttled { retry_after });
        }
        throttle.refused_nameless(instant, peer);
        drop(throttle);
        let kind = if token.starts_with(TOKEN_PREFIX) {
            "with a token that is not, or no longer, valid"
        } else {
            "with something that is no token of ours"
        };
        let entry = Entry::new(&Who::Nobody, Some(peer), via, Action::LoginRefused);
        self.audit.record(entry.detail(kind).outcome(Outcome::Refused));
        Err(LoginError::Wrong)
    }

    /// Counts a wrong login.
    fn refuse(&self, peer: IpAddr, via: Via, name: &str) {
        let now = Instant::now();
        let mut throttle = locked(&self.throttle);
        throttle.refused(now, peer, name);
        let wait = throttle.wait(now, peer, name);
        drop(throttle);
        self.note_refused(peer, via, name, wait);
    }

    /// Writes down a wrong login. A name that is not there is not repeated: people type passwords into the wrong field.
    pub(super) fn note_refused(&self, peer: IpAddr, via: Via, name: &str, wait: Option<Duration>) {
        let known = self.state().by_name.get(name).map(|l| l.name.clone());
        let mut detail = known.map_or_else(|| "as an unknown name".to_owned(), |n: Arc<str>| format!("as {n}"));
        if let Some(wait) = wait {
            detail = format!("{detail}; has to wait {} s now", wait.as_secs().max(1));
        }
        let entry = Entry::new(&Who::Nobody, Some(peer), via, Action::LoginRefused);
        self.audit.record(entry.detail(&detail).outcome(Outcome::Refused));
    }
}
