//! Why there is no footage: the causes that timelines, segment headers and index rows name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why footage is missing before a segment, or from a noted moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapCause {
    /// The camera could not be reached, refused, or sent nothing.
    CameraDown,
    /// The network or the camera lost packets.
    Loss,
    /// A disk was full, slow or broken.
    Disk,
    /// An operator stopped the recording, or its schedule did.
    Operator,
    /// A clock stepped.
    Clock,
    /// The recorder was stopped and started in an orderly way.
    Restart,
    /// The recorder or the machine died.
    Crash,
    /// Nothing says why.
    Unknown,
}

/// A text is not a gap cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a gap cause")]
pub struct NotAGapCause;

impl GapCause {
    /// Every cause, in the order of their codes in index rows (the first is 1; 0 means "no gap").
    pub const ALL: [Self; 8] = [
        Self::CameraDown,
        Self::Loss,
        Self::Disk,
        Self::Operator,
        Self::Clock,
        Self::Restart,
        Self::Crash,
        Self::Unknown,
    ];

    /// The name as files, JSON and people have it: `camera-down`, `loss`, `disk` and so on.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CameraDown => "camera-down",
            Self::Loss => "loss",
            Self::Disk => "disk",
            Self::Operator => "operator",
            Self::Clock => "clock",
            Self::Restart => "restart",
            Self::Crash => "crash",
            Self::Unknown => "unknown",
        }
    }

    /// The code in index rows.
    pub(crate) fn code(cause: Option<Self>) -> u8 {
        cause.map_or(0, |c| c as u8 + 1)
    }

    /// The inverse of [`Self::code`]; codes of a later version read as [`Self::Unknown`].
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        let index = usize::from(code.checked_sub(1)?);
        Some(Self::ALL.get(index).copied().unwrap_or(Self::Unknown))
    }
}

impl fmt::Display for GapCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for GapCause {
    type Err = NotAGapCause;
    fn from_str(s: &str) -> Result<Self, NotAGapCause> {
        Self::ALL.into_iter().find(|c| c.name() == s).ok_or(NotAGapCause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_round_trip() {
        for cause in GapCause::ALL {
            assert_eq!(cause.name().parse(), Ok(cause));
            assert_eq!(GapCause::from_code(GapCause::code(Some(cause))), Some(cause));
            assert_eq!(serde_json::to_string(&cause).unwrap(), format!("\"{cause}\""));
        }
        assert_eq!(GapCause::from_code(GapCause::code(None)), None);
        assert_eq!(GapCause::from_code(200), Some(GapCause::Unknown));
        assert!("".parse::<GapCause>().is_err());
    }
}
