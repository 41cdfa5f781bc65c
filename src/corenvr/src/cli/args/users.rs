//! What can be written behind `corenvr user` and `corenvr audit`. No password is ever written on the command line, where every user of the
//! machine could read it.

use clap::{Args, Subcommand};
use corenvr_media::CameraName;

use super::Output;
use crate::accounts::{Grant, Role};

const GRANT_HELP: &str = "Only these rights for these cameras, such as front-door,yard:live,playback or *:live (live, playback, export, \
    control); may be given several times";

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Make an account; its password is asked for
    #[command(
        after_help = "Example: corenvr user add anna --role viewer --grant 'front-door,yard:live,playback'\n\n\
        viewer: live and playback. operator: export and PTZ as well. admin: everything.\n\
        With --grant the account has only what its grants give, and never more than its role."
    )]
    Add(AddUserArgs),
    /// List the accounts
    #[command(after_help = "Example: corenvr user list")]
    List(Output),
    /// Show one account with its tokens
    #[command(after_help = "Example: corenvr user show anna --json")]
    Show(UserArg),
    /// Remove an account; its sessions and what it watches end
    #[command(after_help = "Example: corenvr user remove anna")]
    Remove(UserArg),
    /// Set a password; works while the recorder is stopped as well
    #[command(after_help = "Example: corenvr user passwd admin\n         \
        pass show nvr/admin | corenvr user passwd admin --password-stdin")]
    Passwd(PasswdArgs),
    /// Change role, grants, or whether an account can be used
    #[command(after_help = "Example: corenvr user change anna --role operator --no-grants")]
    Change(ChangeUserArgs),
    /// API tokens of an account: for programs, instead of its password
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Args)]
pub struct UserArg {
    /// The account
    pub name: String,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct AddUserArgs {
    /// Its name: a-z 0-9 . _ -
    pub name: String,
    /// What kind of user: viewer, operator or admin
    #[arg(long, value_parser = role)]
    pub role: Role,
    #[arg(long, value_name = "CAMERAS:RIGHTS", value_parser = grant, help = GRANT_HELP)]
    pub grant: Vec<Grant>,
    /// Read the password from standard input, one line
    #[arg(long)]
    pub password_stdin: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct PasswdArgs {
    /// The account
    pub name: String,
    /// Read the password from standard input, one line
    #[arg(long)]
    pub password_stdin: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct ChangeUserArgs {
    /// The account
    pub name: String,
    /// What kind of user: viewer, operator or admin
    #[arg(long, value_parser = role)]
    pub role: Option<Role>,
    #[arg(long, value_name = "CAMERAS:RIGHTS", value_parser = grant, conflicts_with = "no_grants", help = GRANT_HELP)]
    pub grant: Vec<Grant>,
    /// Take all grants away: the role holds for every camera
    #[arg(long)]
    pub no_grants: bool,
    /// Let it log in again
    #[arg(long, conflicts_with = "disable")]
    pub enable: bool,
    /// Do not let it log in, and end what it watches
    #[arg(long)]
    pub disable: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, this once
    #[command(after_help = "Example: corenvr user token add metrics --label prometheus --expires 365d")]
    Add(AddTokenArgs),
    /// List the tokens of an account
    #[command(after_help = "Example: corenvr user token list metrics")]
    List(UserArg),
    /// Remove a token
    #[command(after_help = "Example: corenvr user token remove metrics 1f4c09ab")]
    Remove(RemoveTokenArgs),
}

#[derive(Debug, Args)]
pub struct AddTokenArgs {
    /// The account, whose rights it has
    pub name: String,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub label: String,
    /// It ends after this time, such as 30d; never if left out
    #[arg(long, value_name = "TIME", value_parser = super::span)]
    pub expires: Option<std::time::Duration>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct RemoveTokenArgs {
    /// The account
    pub name: String,
    /// The token, as `token list` names it
    pub token: String,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct AuditArgs {
    /// From when
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// Before when
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub to: Option<String>,
    /// Only what concerns this camera
    #[arg(long, value_name = "NAME")]
    pub camera: Option<CameraName>,
    /// Only what this account did; (nobody) without a login, (local) on this machine
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// At most so many, the newest ones
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    #[command(flatten)]
    pub output: Output,
}

fn role(text: &str) -> Result<Role, String> {
    let found = Role::ALL.into_iter().find(|r| r.name() == text);
    found.ok_or_else(|| "use viewer, operator or admin".into())
}

fn grant(text: &str) -> Result<Grant, String> {
    Grant::parse(text).map_err(|e| e.to_string())
}
