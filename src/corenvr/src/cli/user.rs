//! `corenvr user` and `corenvr audit`: accounts, their tokens, and what was done with them.

use std::{
    fmt::Write as _,
    io::{self, BufRead, Read},
};

use corenvr_media::WallTime;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{
    Failure,
    args::{
        Output,
        users::{
            AddTokenArgs, AddUserArgs, AuditArgs, ChangeUserArgs, PasswdArgs, RemoveTokenArgs, TokenCommand, UserArg,
            UserCommand,
        },
    },
    output, when,
};
use crate::{
    accounts::{
        AccountView, Accounts, Change, NewToken, TokenView, Who,
        account::{PASSWORD_BYTES_MAX, check_name},
        audit::{Action, Audit, ENTRIES_MAX, Entry, Page, Via},
    },
    admin::{
        client::{Client, ClientError},
        users::{TokenList, TokenRequest, UserList},
    },
    config::Anonymous,
};

const USERS: &str = "/api/v1/users";

/// Does what is asked.
pub fn run(command: UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Add(args) => add(&args),
        UserCommand::List(out) => list(&out),
        UserCommand::Show(args) => show(&args),
        UserCommand::Remove(args) => remove(&args),
        UserCommand::Passwd(args) => passwd(&args),
        UserCommand::Change(args) => change(&args),
        UserCommand::Token(TokenCommand::Add(args)) => add_token(&args),
        UserCommand::Token(TokenCommand::List(args)) => tokens(&args),
        UserCommand::Token(TokenCommand::Remove(args)) => remove_token(&args),
    }
}

fn client(out: &Output) -> Result<Client, Failure> {
    Ok(Client::from_config(&out.config.config)?)
}

/// The path of an account. A name that no account can have is refused here, so that it never becomes another path.
fn path_of(name: &str) -> Result<String, Failure> {
    check_name(name).map_err(|e| Failure::Usage(e.to_string()))?;
    Ok(format!("{USERS}/{name}"))
}

/// Reads a password: from standard input, or twice from the terminal, which does not show it.
fn read_password(stdin: bool) -> Result<String, Failure> {
    let failed = |e: io::Error| Failure::Failed(format!("the password cannot be read: {e}"));
    if stdin {
        let mut line = String::new();
        let mut input = io::stdin().lock().take(2 * PASSWORD_BYTES_MAX as u64 + 2);
        input.read_line(&mut line).map_err(failed)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let no_terminal = |e: io::Error| {
        let text = format!("the password cannot be asked for: {e}. Remedy: use a terminal, or --password-stdin");
        Failure::Failed(text)
    };
    let first = rpassword::prompt_password("Password: ").map_err(no_terminal)?;
    let second = rpassword::prompt_password("The same again: ").map_err(no_terminal)?;
    if first != second {
        return Err(Failure::Failed("the two are not the same; nothing was changed".into()));
    }
    Ok(first)
}

fn add(args: &AddUserArgs) -> Result<(), Failure> {
    path_of(&args.name)?;
    let client = client(&args.output)?;
    let password = read_password(args.password_stdin)?;
    let new = json!({ "name": args.name, "password": password, "role": args.role, "grants": args.grant });
    let account: AccountView = client.send("POST", USERS, &new)?;
    told(&args.output, &account, &format!("{} was made", account.name));
    Ok(())
}

fn told(out: &Output, account: &AccountView, done: &str) {
    if out.json {
        output::json(account);
    } else {
        output::line(&format!("{done}: {}", summary(account)));
    }
}

fn summary(account: &AccountView) -> String {
    let off = if account.enabled { "" } else { ", disabled" };
    format!("{}, {}{off}", account.role, grants(account))
}

fn grants(account: &AccountView) -> String {
    if account.grants.is_empty() {
        return "all cameras".into();
    }
    let grants: Vec<_> = account.grants.iter().map(ToString::to_string).collect();
    grants.join(" ")
}

fn list(out: &Output) -> Result<(), Failure> {
    let list: UserList = client(out)?.get(USERS)?;
    if out.json {
        output::json(&list);
        return Ok(());
    }
    let mut rows = vec![
        ["NAME", "ROLE", "MAY SEE", "LOGIN", "TOKENS"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for account in &list.users {
        rows.push(vec![
            account.name.clone(),
            account.role.to_string(),
            grants(account),
            if account.enabled { "yes" } else { "no" }.to_owned(),
            account.tokens.to_string(),
        ]);
    }
    output::table(&rows);
    Ok(())
}

fn show(args: &UserArg) -> Result<(), Failure> {
    let client = client(&args.output)?;
    let path = path_of(&args.name)?;
    let account: AccountView = client.get(&path)?;
    let tokens: TokenList = client.get(&format!("{path}/tokens"))?;
    if args.output.json {
        let mut document = serde_json::to_value(&account).unwrap_or(Value::Null);
        document["tokens"] = serde_json::to_value(&tokens.tokens).unwrap_or(Value::Null);
        output::json(&document);
        return Ok(());
    }
    let zone = TimeZone::system();
    output::line(&format!("{}: {}", account.name, summary(&account)));
    output::line(&format!("  made      {}", when::show(account.created, &zone)));
    output::line(&format!(
        "  password  of {}",
        when::show(account.password_changed, &zone)
    ));
    print_tokens(&tokens.tokens, &zone);
    Ok(())
}

fn print_tokens(tokens: &[TokenView], zone: &TimeZone) {
    if tokens.is_empty() {
        return;
    }
    let mut rows = vec![
        ["TOKEN", "MADE", "ENDS", "LAST USED", "LABEL"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let time = |t: Option<WallTime>, none: &str| t.map_or_else(|| none.to_owned(), |t| when::show(t, zone));
    for token in tokens {
        rows.push(vec![
            token.id.clone(),
            when::show(token.created, zone),
            time(token.expires, "never"),
            time(token.last_used, "not yet"),
            token.label.clone(),
        ]);
    }
    output::table(&rows);
}

fn remove(args: &UserArg) -> Result<(), Failure> {
    client(&args.output)?.remove(&path_of(&args.name)?)?;
    done(&args.output, &format!("{} was removed", args.name));
    Ok(())
}

fn done(out: &Output, text: &str) {
    if out.json {
        output::json(&json!({ "done": true }));
    } else {
        output::line(text);
    }
}

fn passwd(args: &PasswdArgs) -> Result<(), Failure> {
    let path = path_of(&args.name)?;
    let client = client(&args.output)?;
    // A name that is not there, and a recorder that may not be asked, are said before a password is typed.
    let running = match client.get::<AccountView>(&path) {
        Ok(_) => true,
        Err(ClientError::NotRunning { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    let password = read_password(args.password_stdin)?;
    let account = if running {
        client.send("PATCH", &path, &json!({ "password": password }))?
    } else {
        passwd_stopped(&client, &args.name, password)?
    };
    let how = if running { "" } else { " (the recorder is stopped)" };
    told(
        &args.output,
        &account,
        &format!("the password of {} was changed{how}", account.name),
    );
    Ok(())
}

/// Without the recorder the file is changed by this process: whoever may write to it is let in again.
fn passwd_stopped(client: &Client, name: &str, password: String) -> Result<AccountView, Failure> {
    let dir = client.state_dir();
    let failed = |e: &dyn std::fmt::Display| Failure::Failed(e.to_string());
    let no_log = |e: io::Error| Failure::Failed(format!("{}: {e}", dir.join("audit.jsonl").display()));
    let accounts =
        Accounts::open(dir, Anonymous::default(), Audit::open(dir).map_err(no_log)?).map_err(|e| failed(&e))?;
    let change = Change {
        password: Some(password),
        ..Change::default()
    };
    let changed = accounts.change(name, change).map_err(|e| failed(&e))?;
    let entry = Entry::new(&Who::Local, None, Via::Local, Action::UserPassword);
    accounts.audit().record(entry.detail(name));
    Ok(changed)
}

fn change(args: &ChangeUserArgs) -> Result<(), Failure> {
    let path = path_of(&args.name)?;
    let mut change = serde_json::Map::new();
    if let Some(role) = args.role {
        change.insert("role".into(), json!(role));
    }
    if args.no_grants || !args.grant.is_empty() {
        change.insert("grants".into(), json!(args.grant));
    }
    if args.enable || args.disable {
        change.insert("enabled".into(), json!(args.enable));
    }
    if change.is_empty() {
        return Err(Failure::Usage(
            "say what is to change: --role, --grant, --no-grants, --enable or --disable".into(),
        ));
    }
    let account: AccountView = client(&args.output)?.send("PATCH", &path, &change)?;
    told(&args.output, &account, &format!("{} was changed", account.name));
    Ok(())
}

fn add_token(args: &AddTokenArgs) -> Result<(), Failure> {
    let path = format!("{}/tokens", path_of(&args.name)?);
    let request = TokenRequest {
        label: args.label.clone(),
        expires: args.expires.map(|d| when::now() + d),
    };
    let token: NewToken = client(&args.output)?.send("POST", &path, &request)?;
    if args.output.json {
        output::json(&token);
        return Ok(());
    }
    // The token alone on standard output, for scripts; everything else beside it.
    eprintln!("This is shown once; the recorder keeps no copy. Use it as: Authorization: Bearer TOKEN");
    output::line(&token.token);
    Ok(())
}

fn tokens(args: &UserArg) -> Result<(), Failure> {
    let list: TokenList = client(&args.output)?.get(&format!("{}/tokens", path_of(&args.name)?))?;
    if args.output.json {
        output::json(&list);
    } else if list.tokens.is_empty() {
        output::line(&format!("{} has no tokens", args.name));
    } else {
        print_tokens(&list.tokens, &TimeZone::system());
    }
    Ok(())
}

fn remove_token(args: &RemoveTokenArgs) -> Result<(), Failure> {
    if !args.token.bytes().all(|b| b.is_ascii_alphanumeric()) || args.token.is_empty() {
        return Err(Failure::Usage(
            "name the token as `corenvr user token list` does".into(),
        ));
    }
    let path = format!("{}/tokens/{}", path_of(&args.name)?, args.token);
    client(&args.output)?.remove(&path)?;
    done(&args.output, &format!("token {} was removed", args.token));
    Ok(())
}

/// `corenvr audit`
pub fn audit(args: &AuditArgs) -> Result<(), Failure> {
    let (now, zone) = (when::now(), TimeZone::system());
    let client = client(&args.output)?;
    let mut query = String::new();
    for (name, text) in [("from", &args.from), ("to", &args.to)] {
        if let Some(text) = text {
            let _ = write!(query, "&{name}={}", when::parse(text, now, &zone)?);
        }
    }
    if let Some(camera) = &args.camera {
        let _ = write!(query, "&camera={camera}");
    }
    if let Some(user) = &args.user {
        if !["(nobody)", "(local)"].contains(&user.as_str()) {
            path_of(user)?;
        }
        let _ = write!(query, "&user={user}");
    }
    let mut entries: Vec<Entry> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let left = (args.limit as usize - entries.len()).min(ENTRIES_MAX);
        let from = cursor.take().map_or_else(String::new, |c| format!("&cursor={c}"));
        let page: Page = client.get(&format!("/api/v1/audit?limit={left}{query}{from}"))?;
        entries.extend(page.entries);
        cursor = page.next;
        if cursor.is_none() || entries.len() >= args.limit as usize {
            break;
        }
    }
    if args.output.json {
        output::json(&json!({ "entries": entries, "next": cursor }));
        return Ok(());
    }
    let mut rows = vec![
        ["TIME", "WHO", "FROM", "VIA", "ACTION", "CAMERA", "OUTCOME", "DETAIL"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(entries.iter().map(|e| row(e, &zone)));
    output::table(&rows);
    Ok(())
}

fn row(entry: &Entry, zone: &TimeZone) -> Vec<String> {
    let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
    vec![
        when::show(entry.time, zone),
        entry.who.clone(),
        entry.peer.map_or_else(|| "-".into(), |p| p.to_string()),
        entry.via.to_string(),
        word(json!(entry.action)),
        entry.camera.as_ref().map_or_else(|| "-".into(), ToString::to_string),
        word(json!(entry.outcome)),
        entry.detail.clone(),
    ]
}
