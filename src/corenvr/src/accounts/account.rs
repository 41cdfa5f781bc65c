//! What an account is: its name, its role, its grants, and what these allow. Nothing in here keeps or changes accounts.

use std::fmt;

use corenvr_media::{CameraName, WallTime};
use serde::{Deserialize, Serialize};

use super::Right;

/// The longest name, in bytes.
pub const NAME_LEN_MAX: usize = 64;
/// Most grants of one account, and most cameras of one grant; more are refused.
pub const GRANTS_MAX: usize = 256;
/// The shortest password, in characters.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// The longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 256;

/// What kind of user somebody is. Each may do what the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Live and playback.
    Viewer,
    /// Export and PTZ as well.
    Operator,
    /// Everything, accounts included.
    Admin,
}

/// What a grant can give of a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Allow {
    /// The present.
    Live,
    /// The past.
    Playback,
    /// Taking footage away as a file.
    Export,
    /// Moving the camera.
    Control,
}

/// Which cameras a grant is for: one, or all of them, those that are added later included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Cameras {
    /// `*`
    All,
    /// This one, whether it exists or not.
    One(CameraName),
}

/// Rights for some cameras. An account with grants has only what they give, and never more than its role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The cameras.
    pub cameras: Vec<Cameras>,
    /// What is given.
    pub allow: Vec<Allow>,
}

/// An account as everybody may see it who may see accounts: without anything that proves an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its grants; empty means that the role holds for every camera.
    pub grants: Vec<Grant>,
    /// Whether it can log in.
    pub enabled: bool,
    /// When it was made.
    pub created: WallTime,
    /// When its password was set.
    pub password_changed: WallTime,
    /// How many API tokens it has.
    pub tokens: usize,
}

/// An API token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// Names it.
    pub id: String,
    /// What it is for, in its owner's words.
    pub label: String,
    /// When it was made.
    pub created: WallTime,
    /// When it ends; `None`: never.
    pub expires: Option<WallTime>,
    /// When it was used last, to within [`super::LAST_USE_STEP`]; `None`: not since it was made.
    pub last_used: Option<WallTime>,
}

/// What a new account is to be.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: String,
    /// Its role.
    pub role: Role,
    /// Its grants.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// Whether it can log in.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// What is to change of an account; `None` leaves it as it is.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Another password.
    pub password: Option<String>,
    /// Another role.
    pub role: Option<Role>,
    /// Other grants, instead of all there were.
    pub grants: Option<Vec<Grant>>,
    /// Whether it can log in.
    pub enabled: Option<bool>,
}

const fn yes() -> bool {
    true
}

impl fmt::Debug for NewAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewAccount")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("password", &self.password.as_ref().map(|_| "(hidden)"))
            .field("role", &self.role)
            .field("grants", &self.grants)
            .field("enabled", &self.enabled)
            .finish()
    }
}

/// Something of an account is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The name.
    #[error("{0:?} is not an account name: use 1 to 64 of a-z 0-9 . _ - and start with a letter or digit")]
    Name(String),
    /// The password.
    #[error("the password {0}")]
    Password(&'static str),
    /// Grants that change nothing.
    #[error("an administrator may do everything: grants are for viewers and operators")]
    GrantsOfAdmin,
    /// A grant without a camera or a right.
    #[error("a grant names at least one camera (or *) and at least one of live, playback, export, control")]
    EmptyGrant,
    /// Too many grants, or too many cameras in one.
    #[error("more than {GRANTS_MAX} grants, or cameras of one grant; give the account a grant for * instead")]
    TooManyGrants,
    /// A camera of a grant.
    #[error("{0:?} is neither a camera name nor *")]
    Camera(String),
    /// A right of a grant.
    #[error("{0:?} is not one of live, playback, export, control")]
    Allow(String),
    /// A token's label.
    #[error("a token needs a label of at most 100 characters that says what it is for")]
    Label,
    /// A token's end.
    #[error("the token would have ended already")]
    Expired,
    /// More than the role gives.
    #[error("a {role} may not {allow}, so a grant cannot give it")]
    BeyondRole {
        /// The role.
        role: Role,
        /// The right.
        allow: Allow,
    },
}

impl Role {
    /// All of them, weakest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// As the file and the API name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Whether the role by itself gives a right.
    pub const fn gives(self, right: Right) -> bool {
        match right {
            Right::Live | Right::Playback | Right::Status => true,
            Right::Export | Right::Control => matches!(self, Self::Operator | Self::Admin),
            Right::Configure | Right::Accounts | Right::Audit => matches!(self, Self::Admin),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Allow {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Live, Self::Playback, Self::Export, Self::Control];

    /// As the file and the API name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Playback => "playback",
            Self::Export => "export",
            Self::Control => "control",
        }
    }

    /// The right that it gives.
    pub const fn right(self) -> Right {
        match self {
            Self::Live => Right::Live,
            Self::Playback => Right::Playback,
            Self::Export => Right::Export,
            Self::Control => Right::Control,
        }
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Cameras {
    fn covers(&self, camera: Option<&CameraName>) -> bool {
        match self {
            Self::All => true,
            Self::One(name) => camera == Some(name),
        }
    }
}

impl TryFrom<String> for Cameras {
    type Error = RuleError;
    fn try_from(text: String) -> Result<Self, RuleError> {
        if text == "*" {
            return Ok(Self::All);
        }
        CameraName::new(&text)
            .map(Self::One)
            .map_err(|_| RuleError::Camera(text))
    }
}

impl From<Cameras> for String {
    fn from(cameras: Cameras) -> Self {
        cameras.to_string()
    }
}

impl fmt::Display for Cameras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::One(name) => f.write_str(name.as_str()),
        }
    }
}

impl Grant {
    /// Reads `front-door,yard:live,playback`, the command line's form.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let (cameras, allow) = text.split_once(':').ok_or(RuleError::EmptyGrant)?;
        let words = |list: &str| list.split(',').map(|w| w.trim().to_owned()).collect::<Vec<_>>();
        let cameras = words(cameras)
            .into_iter()
            .map(Cameras::try_from)
            .collect::<Result<_, _>>()?;
        let allow = words(allow)
            .into_iter()
            .map(|word| {
                let found = Allow::ALL.into_iter().find(|a| a.name() == word);
                found.ok_or(RuleError::Allow(word))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { cameras, allow })
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cameras: Vec<_> = self.cameras.iter().map(ToString::to_string).collect();
        let allow: Vec<_> = self.allow.iter().map(|a| a.name()).collect();
        write!(f, "{}:{}", cameras.join(","), allow.join(","))
    }
}

/// Checks an account's name.
pub fn check_name(name: &str) -> Result<(), RuleError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let head = name.bytes().next().is_some_and(plain);
    let tail = name.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'));
    if head && tail && name.len() <= NAME_LEN_MAX {
        return Ok(());
    }
    Err(RuleError::Name(name.chars().take(NAME_LEN_MAX + 1).collect()))
}

/// Checks a password that somebody wants to set.
pub fn check_password(name: &str, password: &str) -> Result<(), RuleError> {
    let wrong = |why| Err(RuleError::Password(why));
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return wrong("is shorter than 8 characters; longer is better");
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return wrong("is longer than 256 bytes");
    }
    if password.chars().any(char::is_control) {
        return wrong("has a control character in it, which no player can send");
    }
    if password.eq_ignore_ascii_case(name) {
        return wrong("is the account's name");
    }
    Ok(())
}

/// Checks grants against the role that they narrow.
pub fn check_grants(role: Role, grants: &[Grant]) -> Result<(), RuleError> {
    if role == Role::Admin && !grants.is_empty() {
        return Err(RuleError::GrantsOfAdmin);
    }
    if grants.len() > GRANTS_MAX {
        return Err(RuleError::TooManyGrants);
    }
    for grant in grants {
        if grant.cameras.is_empty() || grant.allow.is_empty() {
            return Err(RuleError::EmptyGrant);
        }
        if grant.cameras.len() > GRANTS_MAX || grant.allow.len() > Allow::ALL.len() {
            return Err(RuleError::TooManyGrants);
        }
        if let Some(allow) = grant.allow.iter().find(|a| !role.gives(a.right())) {
            return Err(RuleError::BeyondRole { role, allow: *allow });
        }
    }
    Ok(())
}

/// Whether role and grants give a right: for one camera, or where none is named for all cameras. Status without a camera is everybody's,
/// and of a camera theirs who may anything of it.
pub fn gives(role: Role, grants: &[Grant], right: Right, camera: Option<&CameraName>) -> bool {
    if !role.gives(right) {
        return false;
    }
    if grants.is_empty() || (right == Right::Status && camera.is_none()) {
        return true;
    }
    grants.iter().any(|grant| {
        let right = right == Right::Status || grant.allow.iter().any(|a| a.right() == right);
        right && grant.cameras.iter().any(|c| c.covers(camera))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(name: &str) -> CameraName {
        CameraName::new(name).unwrap()
    }

    #[test]
    fn each_role_gives_what_the_one_before_gives() {
        let all = [
            Right::Live,
            Right::Playback,
            Right::Export,
            Right::Control,
            Right::Status,
            Right::Configure,
            Right::Accounts,
            Right::Audit,
        ];
        let count = |role: Role| all.iter().filter(|r| role.gives(**r)).count();
        assert_eq!(Role::ALL.map(count), [3, 5, 8]);
        for pair in Role::ALL.windows(2) {
            assert!(all.iter().all(|r| !pair[0].gives(*r) || pair[1].gives(*r)));
        }
    }

    #[test]
    fn grants_narrow_and_never_widen() {
        let door = camera("front-door");
        let yard = camera("yard");
        let grants = vec![
            Grant::parse("front-door:live").unwrap(),
            Grant::parse("*:playback").unwrap(),
        ];
        let may = |right, camera| gives(Role::Operator, &grants, right, camera);
        assert!(may(Right::Live, Some(&door)));
        assert!(!may(Right::Live, Some(&yard)));
        assert!(may(Right::Playback, Some(&yard)));
        assert!(may(Right::Status, Some(&yard)), "who may see its past may see its name");
        assert!(!may(Right::Export, Some(&door)) && !may(Right::Control, Some(&door)));
        assert!(!may(Right::Live, None), "not of every camera");
        assert!(may(Right::Playback, None));
        assert!(may(Right::Status, None));
        assert!(!may(Right::Accounts, None) && !may(Right::Configure, Some(&door)));
        // A file that was written by hand may hold more than the role gives.
        let beyond = [Grant::parse("*:export").unwrap()];
        assert!(!gives(Role::Viewer, &beyond, Right::Export, Some(&door)));
        assert_eq!(
            check_grants(Role::Viewer, &beyond),
            Err(RuleError::BeyondRole {
                role: Role::Viewer,
                allow: Allow::Export
            })
        );
        assert_eq!(check_grants(Role::Admin, &beyond), Err(RuleError::GrantsOfAdmin));
    }

    #[test]
    fn a_grant_has_a_form_for_the_command_line() {
        for text in ["front-door,yard:live,playback", "*:export"] {
            assert_eq!(Grant::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "door", "door:", ":live", "door:watch", "Door:live", "door,:live"] {
            assert!(Grant::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_and_passwords_have_rules() {
        for name in ["a", "admin", "anna.b-c_2", &"x".repeat(64)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", ".a", "-a", "Anna", "a b", "a:b", "a/b", "ä", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert_eq!(check_password("anna", "correct horse"), Ok(()));
        assert_eq!(check_password("anna", "pässwört"), Ok(()));
        for wrong in ["", "1234567", "Anna-b-c", "tab\tinside", &"x".repeat(257)] {
            assert!(check_password("anna-b-c", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_holds_a_password_does_not_show_it() {
        let new = NewAccount {
            name: "anna".into(),
            password: "hunter22".into(),
            role: Role::Viewer,
            grants: Vec::new(),
            enabled: true,
        };
        let change = Change {
            password: Some("hunter22".into()),
            ..Change::default()
        };
        assert!(!format!("{new:?}{change:?}").contains("hunter22"));
    }
}
