//! Camera names: the only part of a storage path that a person chooses, so what is valid is decided once, here.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// A validated camera name, `[a-z0-9][a-z0-9_-]{0,63}`.
///
/// It is safe as a path component and inside a URL without escaping. Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CameraName(Arc<str>);

/// Why a text is not a camera name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a camera name: use 1 to 64 of a-z 0-9 _ - and start with a letter or digit")]
pub struct NameError(String);

impl CameraName {
    /// The longest name, in bytes.
    pub const LEN_MAX: usize = 64;

    /// Checks `name` and wraps it.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let head = name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let tail = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if head && tail && name.len() <= Self::LEN_MAX {
            Ok(Self(name.into()))
        } else {
            Err(NameError(name.chars().take(Self::LEN_MAX + 1).collect()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CameraName {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        Self::new(s)
    }
}

impl TryFrom<String> for CameraName {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        Self::new(&s)
    }
}

impl From<CameraName> for String {
    fn from(name: CameraName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl Borrow<str> for CameraName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CameraName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for CameraName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_what_is_safe_in_a_path_and_a_url() {
        for good in ["a", "0", "front-door", "cam_12", &"x".repeat(64)] {
            assert_eq!(CameraName::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "_a",
            "A",
            "a/b",
            "..",
            "a.b",
            "a b",
            "ä",
            "a\0",
            &"x".repeat(65),
        ] {
            assert!(CameraName::new(bad).is_err(), "{bad:?}");
        }
    }
}
