//! A camera's URL: checked when it is read, and shown only without its password.

use std::{fmt, str::FromStr};

use corenvr_recorder::{Source, SourceError};

/// A camera URL as it was written, which may hold a password. Its text forms leave the credentials out; only
/// [`SourceUrl::expose`] gives the whole.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceUrl {
    text: String,
    source: Source,
}

impl SourceUrl {
    /// The URL with everything in it: for the file of cameras.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The URL as the recorder takes it.
    pub const fn source(&self) -> &Source {
        &self.source
    }
}

impl From<Source> for SourceUrl {
    /// A URL that nobody wrote: its text is the one to be shown, which has no password.
    fn from(source: Source) -> Self {
        Self {
            text: source.to_string(),
            source,
        }
    }
}

impl FromStr for SourceUrl {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let text = text.trim();
        Ok(Self {
            source: Source::parse(text)?,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

impl fmt::Debug for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_in_no_text_form() {
        let url: SourceUrl = "rtsp://admin:hunter2@10.0.0.7:8554/ch1?token=abc123".parse().unwrap();
        for shown in [format!("{url}"), format!("{url:?}")] {
            assert!(!shown.contains("hunter2") && !shown.contains("abc123"), "{shown}");
            assert!(shown.contains("10.0.0.7:8554/ch1"), "{shown}");
        }
        assert!(url.expose().contains("hunter2"));
        let error = "http://admin:hunter2@10.0.0.7/".parse::<SourceUrl>().unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }
}
