//! Accounts, sessions and the audit log over the API. Every change is written into the audit log, whatever came of it.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use corenvr_media::{CameraName, WallTime};
use corenvr_shard::WorkerError;
use hyper::{StatusCode, header};
use serde::{Deserialize, Serialize};

use super::{
    caller::{self, clear_cookie, set_cookie},
    http::{Answer, Failure, json, nothing},
    routes::{Call, Need, Route, route},
};
use crate::accounts::{
    AccountError, AccountView, Accounts, Change, NewAccount, Right, Role, RuleError, TokenView, Who,
    audit::{Action, ENTRIES_MAX, Entry, Filter, Outcome, ReadError},
};

/// Accounts, sessions and the log of what was done.
pub const ROUTES: &[Route] = &[
    route!(GET "/api/v1/session", Need::Open, who_am_i),
    route!(POST "/api/v1/session", Need::Open, login),
    route!(DELETE "/api/v1/session", Need::Open, logout),
    route!(GET "/api/v1/users", Need::Right(Right::Accounts), list),
    route!(POST "/api/v1/users", Need::Right(Right::Accounts), add),
    route!(GET "/api/v1/users/{user}", Need::Right(Right::Accounts), show),
    route!(PATCH "/api/v1/users/{user}", Need::Right(Right::Accounts), change),
    route!(DELETE "/api/v1/users/{user}", Need::Right(Right::Accounts), remove),
    route!(GET "/api/v1/users/{user}/tokens", Need::Right(Right::Accounts), tokens),
    route!(POST "/api/v1/users/{user}/tokens", Need::Right(Right::Accounts), add_token),
    route!(DELETE "/api/v1/users/{user}/tokens/{token}", Need::Right(Right::Accounts), remove_token),
    route!(GET "/api/v1/audit", Need::Right(Right::Audit), audit),
];

/// `POST /api/v1/session`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    name: String,
    password: String,
}

/// `GET /api/v1/session`, and what a login is answered.
#[derive(Serialize)]
struct SessionView {
    /// The account; `(local)` over the control socket, nothing without a login.
    name: Option<String>,
    role: Option<Role>,
    /// What may be done with at least one camera, or at all.
    rights: Vec<&'static str>,
}

/// `GET /api/v1/users`
#[derive(Debug, Serialize, Deserialize)]
pub struct UserList {
    /// All accounts, by name.
    pub users: Vec<AccountView>,
}

/// `GET /api/v1/users/NAME/tokens`
#[derive(Debug, Serialize, Deserialize)]
pub struct TokenList {
    /// Tokens, oldest first.
    pub tokens: Vec<TokenView>,
}

/// `POST /api/v1/users/NAME/tokens`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What it is for.
    pub label: String,
    /// When it ends; without it never.
    #[serde(default)]
    pub expires: Option<WallTime>,
}

fn refused(error: &AccountError) -> Failure {
    let text = error.to_string();
    match error {
        AccountError::Rule(rule) => Failure::bad(text, remedy_of(rule)),
        AccountError::NoSuchAccount(_) => Failure::new(StatusCode::NOT_FOUND, text, "GET /api/v1/users shows all"),
        AccountError::NoSuchToken(_) => {
            let remedy = "GET /api/v1/users/NAME/tokens shows all";
            Failure::new(StatusCode::NOT_FOUND, text, remedy)
        }
        AccountError::Exists(_) => Failure::new(StatusCode::CONFLICT, text, "choose another name, or change that one"),
        AccountError::LastAdmin(_) => Failure::new(StatusCode::CONFLICT, text, "corenvr user add NAME --role admin"),
        AccountError::TooMany(..) => Failure::new(StatusCode::CONFLICT, text, "remove some that are not used"),
        AccountError::Busy => Failure::unavailable(&text),
        AccountError::File { .. } | AccountError::Hash(_) => Failure::internal(&text),
    }
}

fn remedy_of(rule: &RuleError) -> &'static str {
    match rule {
        RuleError::Name(_) => "for example anna.b",
        RuleError::Password(_) => "choose a longer one that is used nowhere else",
        RuleError::GrantsOfAdmin => "make it a viewer or operator, or leave the grants out",
        RuleError::EmptyGrant | RuleError::Camera(_) | RuleError::Allow(_) => {
            "for example {\"cameras\": [\"front-door\"], \"allow\": [\"live\", \"playback\"]}"
        }
        RuleError::TooManyGrants => "grant * instead of every single camera",
        RuleError::BeyondRole { .. } => "give the account a higher role, and grants for what it is to have of that",
        RuleError::Label => "for example \"metrics of the office\"",
        RuleError::Expired => "give a time to come, or none for a token without an end",
    }
}

/// Runs on the accounts' own thread what takes long or waits for the disk.
async fn on_thread<T: Send + 'static>(
    call: &Call,
    work: impl FnOnce(&Accounts) -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = call
        .appliance
        .passwords
        .call(move |accounts: &mut Arc<Accounts>| work(accounts));
    done.await.map_err(|error: WorkerError| Failure::unavailable(&error))
}

/// Who asks, and what they may.
fn session_of(call: &Call, who: &Who) -> SessionView {
    let accounts = &call.appliance.accounts;
    SessionView {
        name: (*who != Who::Nobody).then(|| who.to_string()),
        role: accounts.role(who),
        rights: accounts.rights(who).into_iter().map(Right::name).collect(),
    }
}

async fn who_am_i(call: Call) -> Result<Answer, Failure> {
    Ok(json(StatusCode::OK, &session_of(&call, &call.caller.who)))
}

async fn login(mut call: Call) -> Result<Answer, Failure> {
    let Login { name, password } = call.json().await?;
    let peer = call.caller.peer.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let via = call.caller.via;
    let begun = on_thread(&call, move |a| a.login(peer, via, &name, &password)).await?;
    let session = begun.map_err(|e| caller::refused(&e))?;
    // Whoever logs in anew leaves what was before.
    if let Some(old) = caller::cookie(&call.headers) {
        call.appliance.accounts.logout(old);
    }
    let mut answer = json(StatusCode::OK, &session_of(&call, &Who::User(session.name.clone())));
    let cookie = set_cookie(&session.id, call.caller.tls());
    answer.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(answer)
}

async fn logout(call: Call) -> Result<Answer, Failure> {
    let ended = caller::cookie(&call.headers).and_then(|id| call.appliance.accounts.logout(id));
    if let Some(who) = ended {
        let entry = Entry::new(&who, call.caller.peer, call.caller.via, Action::Logout);
        call.appliance.accounts.audit().record(entry);
    }
    let mut answer = nothing();
    let cookie = clear_cookie(call.caller.tls());
    answer.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(answer)
}

async fn list(call: Call) -> Result<Answer, Failure> {
    let users = call.appliance.accounts.list();
    Ok(json(StatusCode::OK, &UserList { users }))
}

async fn show(call: Call) -> Result<Answer, Failure> {
    let account = call.appliance.accounts.show(call.arg(0));
    Ok(json(StatusCode::OK, &account.map_err(|e| refused(&e))?))
}

async fn add(mut call: Call) -> Result<Answer, Failure> {
    let new: NewAccount = call.json().await?;
    let mut detail = new.name.clone();
    let added = on_thread(&call, move |a| a.add(new)).await?;
    if let Ok(account) = &added {
        detail = describe(account);
    }
    note(&call, Action::UserAdd, &detail, &added);
    Ok(json(StatusCode::CREATED, &added.map_err(|e| refused(&e))?))
}

async fn change(mut call: Call) -> Result<Answer, Failure> {
    let change: Change = call.json().await?;
    let name = call.arg(0).to_owned();
    let password = change.password.is_some();
    let others = change.role.is_some() || change.grants.is_some() || change.enabled.is_some();
    let of = name.clone();
    let changed = on_thread(&call, move |a| a.change(&of, change)).await?;
    if password {
        note(&call, Action::UserPassword, &name, &changed);
    }
    if others {
        let detail = changed.as_ref().map_or_else(|_| name.clone(), describe);
        note(&call, Action::UserChange, &detail, &changed);
    }
    Ok(json(StatusCode::OK, &changed.map_err(|e| refused(&e))?))
}

async fn remove(call: Call) -> Result<Answer, Failure> {
    let name = call.arg(0).to_owned();
    let of = name.clone();
    let removed = on_thread(&call, move |a| a.remove(&of)).await?;
    note(&call, Action::UserRemove, &name, &removed);
    removed.map_err(|e| refused(&e))?;
    Ok(nothing())
}

async fn tokens(call: Call) -> Result<Answer, Failure> {
    let tokens = call.appliance.accounts.tokens(call.arg(0)).map_err(|e| refused(&e))?;
    Ok(json(StatusCode::OK, &TokenList { tokens }))
}

async fn add_token(mut call: Call) -> Result<Answer, Failure> {
    let TokenRequest { label, expires } = call.json().await?;
    let name = call.arg(0).to_owned();
    let of = name.clone();
    let made = on_thread(&call, move |a| a.add_token(&of, &label, expires)).await?;
    let detail = made.as_ref().map_or_else(
        |_| name.clone(),
        |t| format!("{name}: {} ({})", t.view.id, t.view.label),
    );
    note(&call, Action::TokenAdd, &detail, &made);
    Ok(json(StatusCode::CREATED, &made.map_err(|e| refused(&e))?))
}

async fn remove_token(call: Call) -> Result<Answer, Failure> {
    let (name, id) = (call.arg(0).to_owned(), call.arg(1).to_owned());
    let detail = format!("{name}: {id}");
    let removed = on_thread(&call, move |a| a.remove_token(&name, &id)).await?;
    note(&call, Action::TokenRemove, &detail, &removed);
    removed.map_err(|e| refused(&e))?;
    Ok(nothing())
}

async fn audit(call: Call) -> Result<Answer, Failure> {
    let query = &call.query;
    let optional = |name| match query.text(name) {
        None => Ok(None),
        Some(_) => query.time(name, WallTime::MIN).map(Some),
    };
    let camera = query.text("camera").map(CameraName::new).transpose();
    let filter = Filter {
        from: optional("from")?,
        to: optional("to")?,
        camera: camera.map_err(|e| Failure::bad(format!("camera: {e}"), "name a camera"))?,
        who: query.text("user").map(str::to_owned),
        cursor: query.text("cursor").map(str::to_owned),
        limit: query.limit(ENTRIES_MAX)?,
    };
    let log = call.appliance.accounts.audit().clone();
    let page = corenvr_shard::blocking(move || log.read(&filter)).await;
    match page.map_err(|e| Failure::unavailable(&e))? {
        Ok(page) => Ok(json(StatusCode::OK, &page)),
        Err(error @ ReadError::Cursor) => Err(Failure::bad(error.to_string(), "leave cursor out")),
        Err(error @ ReadError::Io(_)) => Err(Failure::internal(&error)),
    }
}

/// An account in the words of the audit log.
fn describe(account: &AccountView) -> String {
    let grants: Vec<_> = account.grants.iter().map(ToString::to_string).collect();
    let grants = if grants.is_empty() {
        String::new()
    } else {
        format!(", grants {}", grants.join(" "))
    };
    let off = if account.enabled { "" } else { ", disabled" };
    format!("{}: {}{grants}{off}", account.name, account.role)
}

/// Writes down a change of accounts, made or not.
fn note<T>(call: &Call, action: Action, detail: &str, done: &Result<T, AccountError>) {
    let outcome = match done {
        Ok(_) => Outcome::Ok,
        Err(AccountError::File { .. } | AccountError::Hash(_) | AccountError::Busy) => Outcome::Failed,
        Err(_) => Outcome::Refused,
    };
    let entry = Entry::new(&call.caller.who, call.caller.peer, call.caller.via, action);
    let log = call.appliance.accounts.audit();
    log.record(entry.detail(detail).outcome(outcome));
}
