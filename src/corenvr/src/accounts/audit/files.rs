//! The files of the audit log: `audit.jsonl` grows up to a size, then it becomes `audit-000001.jsonl` and so on; the oldest goes when
//! there are too many.
//!
//! The numbers rise for ever, so that a place in the log keeps its name when files are renamed.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::Entry;
use crate::accounts::private;

/// A file that has grown to this is closed and a new one begun.
pub const FILE_BYTES_MAX: u64 = 8 << 20;
/// As many files are kept, the one that grows among them: the log takes 80 MiB at most.
pub const FILES_MAX: usize = 10;

const CURRENT: &str = "audit.jsonl";

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Files {
    dir: PathBuf,
    file_bytes_max: u64,
}

/// Appends to the newest file. There is one.
#[derive(Debug)]
pub struct Writer {
    files: Files,
    file: File,
    bytes: u64,
    /// A write or flush of `file` has failed: the descriptor is not used again, since the kernel may have dropped what it could not write.
    broken: bool,
}

impl Files {
    /// In `dir`.
    pub fn new(dir: &Path, file_bytes_max: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            file_bytes_max,
        }
    }

    /// The file that grows.
    pub fn current(&self) -> PathBuf {
        self.dir.join(CURRENT)
    }

    /// A closed file.
    pub fn closed(&self, number: u64) -> PathBuf {
        self.dir.join(format!("audit-{number:06}.jsonl"))
    }

    /// The numbers of the closed files, oldest first.
    pub fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let number: Option<u64> = name
                .to_str()
                .and_then(|n| n.strip_prefix("audit-")?.strip_suffix(".jsonl")?.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The one writer.
    pub fn writer(&self) -> io::Result<Writer> {
        let mut file = private::open_append(&self.current())?;
        let mut bytes = file.seek(SeekFrom::End(0))?;
        // A crash may have left half a line; the next one must not become part of it.
        if bytes > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                bytes += 1;
            }
        }
        Ok(Writer {
            files: self.clone(),
            file,
            bytes,
            broken: false,
        })
    }
}

impl Writer {
    /// Writes entries and flushes them to the disk.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        if self.broken {
            *self = self.files.writer()?;
        }
        if self.bytes >= self.files.file_bytes_max {
            self.rotate()?;
        }
        let mut text = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut text, entry)?;
            text.push(b'\n');
        }
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.broken = true;
            // What was written of it is taken back, where that is possible: the entries are counted as lost.
            let _ = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += text.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbers = self.files.numbers()?;
        let next = numbers.last().map_or(1, |n| n + 1);
        fs::rename(self.files.current(), self.files.closed(next))?;
        self.file = private::open_append(&self.files.current())?;
        self.bytes = 0;
        let surplus = (numbers.len() + 2).saturating_sub(FILES_MAX);
        for number in &numbers[..surplus.min(numbers.len())] {
            fs::remove_file(self.files.closed(*number))?;
        }
        private::sync_dir(&self.files.dir)
    }
}
