//! Accounts that are made, changed and removed: each change is on disk before it holds.

use std::sync::{Arc, atomic::Ordering};

use corenvr_media::WallTime;

use super::{
    AccountError, AccountView, Accounts, Change, FIRST_ADMIN, NewAccount, NewToken, RuleError, Secrets, State,
    TokenView,
    account::{check_grants, check_name, check_password},
    locked, now, password,
    store::{ACCOUNTS_MAX, Contents, Stored, StoredToken, TOKENS_MAX},
    view, view_token,
};

/// The longest label of a token, in characters.
const LABEL_CHARS_MAX: usize = 100;

impl Accounts {
    /// All accounts, by name.
    pub fn list(&self) -> Vec<AccountView> {
        let mut list: Vec<_> = self.state().contents.accounts.iter().map(view).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// One account.
    pub fn show(&self, name: &str) -> Result<AccountView, AccountError> {
        let state = self.state();
        state.contents.find(name).map(view).ok_or_else(|| none(name))
    }

    /// Makes an account. Blocks.
    pub fn add(&self, new: NewAccount) -> Result<AccountView, AccountError> {
        check_name(&new.name)?;
        check_password(&new.name, &new.password)?;
        check_grants(new.role, &new.grants)?;
        if self.state().contents.find(&new.name).is_some() {
            return Err(AccountError::Exists(new.name));
        }
        let secrets = Secrets::of(&self.permits, &new.name, &self.realm, &new.password)?;
        let account = Stored {
            name: new.name,
            role: new.role,
            grants: new.grants,
            enabled: new.enabled,
            created: now(),
            password_changed: now(),
            password: secrets.hash,
            ha1_md5: secrets.ha1_md5,
            ha1_sha256: secrets.ha1_sha256,
            tokens: Vec::new(),
        };
        let seen = view(&account);
        self.edit(|contents| {
            if contents.find(&account.name).is_some() {
                return Err(AccountError::Exists(account.name.clone()));
            }
            if contents.accounts.len() >= ACCOUNTS_MAX {
                return Err(AccountError::TooMany(ACCOUNTS_MAX, "accounts"));
            }
            contents.accounts.push(account);
            Ok(())
        })?;
        Ok(seen)
    }

    /// Changes an account; its sessions end if its password, its role, or whether it is enabled changes. Blocks.
    pub fn change(&self, name: &str, change: Change) -> Result<AccountView, AccountError> {
        self.show(name)?;
        let mut secrets = None;
        if let Some(password) = &change.password {
            check_password(name, password)?;
            secrets = Some(Secrets::of(&self.permits, name, &self.realm, password)?);
        }
        let password_changes = secrets.is_some();
        self.edit(|contents| {
            let had_admin = contents.has_admin();
            let account = contents.find_mut(name).ok_or_else(|| none(name))?;
            let role = change.role.unwrap_or(account.role);
            // Whoever becomes an administrator has no use for grants, unless they are asked for, which is refused.
            let kept = if change.role == Some(super::Role::Admin) {
                Vec::new()
            } else {
                account.grants.clone()
            };
            let grants = change.grants.unwrap_or(kept);
            check_grants(role, &grants)?;
            (account.role, account.grants) = (role, grants);
            account.enabled = change.enabled.unwrap_or(account.enabled);
            if let Some(secrets) = secrets {
                account.password = secrets.hash;
                account.ha1_md5 = secrets.ha1_md5;
                account.ha1_sha256 = secrets.ha1_sha256;
                account.password_changed = now();
            }
            keeps_admin(contents, had_admin, name)
        })?;
        if password_changes && name == FIRST_ADMIN {
            locked(&self.store).remove_password();
        }
        self.show(name)
    }

    /// Removes an account. Blocks.
    pub fn remove(&self, name: &str) -> Result<(), AccountError> {
        self.edit(|contents| {
            let had_admin = contents.has_admin();
            let index = contents.accounts.iter().position(|a| a.name == name);
            contents.accounts.remove(index.ok_or_else(|| none(name))?);
            keeps_admin(contents, had_admin, name)
        })?;
        if name == FIRST_ADMIN {
            locked(&self.store).remove_password();
        }
        locked(&self.sessions).end_all_of(name);
        Ok(())
    }

    /// The tokens of an account.
    pub fn tokens(&self, name: &str) -> Result<Vec<TokenView>, AccountError> {
        let state = self.state();
        let account = state.contents.find(name).ok_or_else(|| none(name))?;
        Ok(account.tokens.iter().map(|t| view_token(t, &state)).collect())
    }

    /// Makes a token. Blocks.
    pub fn add_token(&self, name: &str, label: &str, expires: Option<WallTime>) -> Result<NewToken, AccountError> {
        let label = label.trim();
        if label.is_empty() || label.chars().count() > LABEL_CHARS_MAX || label.chars().any(char::is_control) {
            return Err(RuleError::Label.into());
        }
        if expires.is_some_and(|e| e <= now()) {
            return Err(RuleError::Expired.into());
        }
        let token = format!("{}{}", password::TOKEN_PREFIX, password::random_secret());
        let stored = StoredToken {
            id: password::random_name(),
            label: label.to_owned(),
            created: now(),
            expires,
            last_used: None,
            sha256: password::to_hex(&password::digest(&token)),
        };
        let view = TokenView {
            id: stored.id.clone(),
            label: stored.label.clone(),
            created: stored.created,
            expires,
            last_used: None,
        };
        self.edit(|contents| {
            let account = contents.find_mut(name).ok_or_else(|| none(name))?;
            // Those that have ended make room.
            account.tokens.retain(|t| t.expires.is_none_or(|e| now() < e));
            if account.tokens.len() >= TOKENS_MAX {
                return Err(AccountError::TooMany(TOKENS_MAX, "tokens"));
            }
            account.tokens.push(stored);
            Ok(())
        })?;
        Ok(NewToken { view, token })
    }

    /// Removes a token. Blocks.
    pub fn remove_token(&self, name: &str, id: &str) -> Result<(), AccountError> {
        self.edit(|contents| {
            let account = contents.find_mut(name).ok_or_else(|| none(name))?;
            let index = account.tokens.iter().position(|t| t.id == id);
            account
                .tokens
                .remove(index.ok_or_else(|| AccountError::NoSuchToken(id.to_owned()))?);
            Ok(())
        })?;
        Ok(())
    }

    /// Writes down when tokens were used last, if that is not written already. Blocks.
    pub fn write_last_uses(&self) -> Result<(), AccountError> {
        let state = self.state();
        let unwritten = |a: &Stored| a.tokens.iter().any(|t| view_token(t, &state).last_used != t.last_used);
        if state.contents.accounts.iter().any(unwritten) {
            self.edit(|_| Ok(()))?;
        }
        Ok(())
    }

    /// Changes what is written, and then what holds.
    fn edit(&self, change: impl FnOnce(&mut Contents) -> Result<(), AccountError>) -> Result<(), AccountError> {
        let store = locked(&self.store);
        let before = self.state();
        let mut contents = before.contents.clone();
        change(&mut contents)?;
        for token in contents.accounts.iter_mut().flat_map(|a| &mut a.tokens) {
            token.last_used = view_token(token, &before).last_used;
        }
        store.write(&contents).map_err(|source| AccountError::File {
            path: store.path().to_owned(),
            source,
        })?;
        *locked(&self.state) = Arc::new(State::new(contents, Some(&before), &self.logins));
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

fn none(name: &str) -> AccountError {
    AccountError::NoSuchAccount(name.chars().take(64).collect())
}

fn keeps_admin(contents: &Contents, had_admin: bool, name: &str) -> Result<(), AccountError> {
    if had_admin && !contents.has_admin() {
        return Err(AccountError::LastAdmin(name.to_owned()));
    }
    Ok(())
}
