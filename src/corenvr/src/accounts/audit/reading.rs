//! Reading the audit log back, newest first.

use std::{fs, io};

use corenvr_media::{CameraName, WallTime};
use serde::{Deserialize, Serialize};

use super::{ENTRIES_MAX, Entry, files::Files};

/// Which entries are asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// From this time on.
    pub from: Option<WallTime>,
    /// Before this time.
    pub to: Option<WallTime>,
    /// Of this camera.
    pub camera: Option<CameraName>,
    /// Of this user, as [`Entry::who`] names them.
    pub who: Option<String>,
    /// Those older than the one where the last answer ended.
    pub cursor: Option<String>,
    /// At most so many, and never more than [`ENTRIES_MAX`].
    pub limit: usize,
}

/// Some entries, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// For [`Filter::cursor`], if there may be more.
    pub next: Option<String>,
}

/// Entries cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The cursor is not one that an answer held.
    #[error("the cursor is not one that an answer held: begin again without one")]
    Cursor,
    /// The files cannot be read.
    #[error("the audit log cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// A place in the log: the file's number and the byte before which everything older lies.
struct Place {
    number: u64,
    offset: usize,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let (number, offset) = text.split_once('-')?;
        Some(Self {
            number: number.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

impl Filter {
    fn matches(&self, entry: &Entry) -> bool {
        self.from.is_none_or(|t| entry.time >= t)
            && self.to.is_none_or(|t| entry.time < t)
            && self.camera.as_ref().is_none_or(|c| entry.camera.as_ref() == Some(c))
            && self.who.as_ref().is_none_or(|w| entry.who == *w)
    }
}

/// Reads the files from the newest line to the oldest. One file is in memory at a time.
pub fn read(files: &Files, filter: &Filter) -> Result<Page, ReadError> {
    let cursor = filter
        .cursor
        .as_deref()
        .map(|text| Place::parse(text).ok_or(ReadError::Cursor))
        .transpose()?;
    let limit = filter.limit.clamp(1, ENTRIES_MAX);
    let numbers = files.numbers()?;
    // The growing file will have this number when it is closed.
    let growing = numbers.last().map_or(1, |n| n + 1);
    let mut entries = Vec::new();
    for number in std::iter::once(growing).chain(numbers.into_iter().rev()) {
        if cursor.as_ref().is_some_and(|c| number > c.number) {
            continue;
        }
        let path = if number == growing {
            files.current()
        } else {
            files.closed(number)
        };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            // Renamed or deleted while this reads: the oldest goes first, and a reader may begin again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        let end = match &cursor {
            Some(c) if c.number == number => c.offset.min(bytes.len()),
            _ => bytes.len(),
        };
        let mut end = end;
        while end > 0 {
            let line_end = end - usize::from(bytes[end - 1] == b'\n');
            let start = bytes[..line_end].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
            let line = &bytes[start..line_end];
            end = start;
            // Half a line that a crash has left is passed over.
            let Ok(entry) = serde_json::from_slice::<Entry>(line) else {
                continue;
            };
            if filter.matches(&entry) {
                entries.push(entry);
                if entries.len() == limit {
                    let next = Some(format!("{number}-{start}"));
                    return Ok(Page { entries, next });
                }
            }
        }
    }
    Ok(Page { entries, next: None })
}
