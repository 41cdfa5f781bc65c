//! What happened in front of a camera, as text beside its footage: one event, and the file of a day that holds events.
//!
//! `<storage>/<camera>/<day>/events.jsonl` is append-only, one JSON object a line. A line that a crash tore is skipped by
//! readers and never glued to the next one. Which events are kept, and when a file goes, is the archive's business.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use corenvr_media::WallTime;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The name of a day's file.
pub const FILE: &str = "events.jsonl";
/// The kind of the event that stands for those that were only counted.
pub const KIND_MORE: &str = "more";
/// Longest line that is written or read; a longer one (never ours) is skipped.
pub const LINE_LEN_MAX: usize = 8192;
/// Largest file of a day: some ten thousand events. What comes when it is full is only counted.
pub const DAY_BYTES_MAX: u64 = 8 << 20;
/// Longest kind and source; the rest is cut off.
const WORD_LEN_MAX: usize = 32;
/// Longest text in bytes; the rest is cut off.
const TEXT_LEN_MAX: usize = 512;
/// Largest detail, written as JSON; one that is larger gives way to its size.
const DETAIL_LEN_MAX: usize = 2048;

/// Something that happened, as a camera or the recorder told it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When; kept to the millisecond.
    pub time: WallTime,
    /// When by the source's own account, if that was not credible: then [`Self::time`] is when it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_time: Option<WallTime>,
    /// What: `alarm`, `motion` and so on; [`KIND_MORE`] is the archive's own.
    pub kind: String,
    /// Who says so: `gb28181`, `onvif` and so on.
    pub source: String,
    /// In words, for people.
    pub text: String,
    /// What else the source said; any JSON.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

impl Event {
    /// An event without detail.
    pub fn new(time: WallTime, kind: impl Into<String>, source: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            time,
            claimed_time: None,
            kind: kind.into(),
            source: source.into(),
            text: text.into(),
            detail: Value::Null,
        }
    }

    /// The event with this detail.
    #[must_use]
    pub fn with_detail(self, detail: Value) -> Self {
        Self { detail, ..self }
    }

    /// The event for `count` others that were not kept one by one.
    pub(crate) fn more(time: WallTime, count: u64) -> Self {
        Self::new(
            time,
            KIND_MORE,
            "corenvr",
            format!("{count} more events, not kept one by one"),
        )
        .with_detail(json!({ "count": count }))
    }

    /// The event within the limits of a line.
    fn bounded(&self) -> Self {
        let len = if self.detail.is_null() {
            0
        } else {
            serde_json::to_vec(&self.detail).map_or(usize::MAX, |d| d.len())
        };
        Self {
            time: WallTime::from_millis(self.time.as_millis()),
            claimed_time: self.claimed_time,
            kind: cut(&self.kind, WORD_LEN_MAX).to_owned(),
            source: cut(&self.source, WORD_LEN_MAX).to_owned(),
            text: cut(&self.text, TEXT_LEN_MAX).to_owned(),
            detail: if len > DETAIL_LEN_MAX {
                json!({ "omitted_bytes": len })
            } else {
                self.detail.clone()
            },
        }
    }

    /// The line, with its line feed.
    pub(crate) fn line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(&self.bounded())?;
        line.push(b'\n');
        // Every byte of the words may take six as an escape; the limits above leave room for that.
        debug_assert!(line.len() <= LINE_LEN_MAX);
        Ok(line)
    }
}

/// The longest start of `text` of at most `len_max` bytes that ends between two characters.
fn cut(text: &str, len_max: usize) -> &str {
    text.get(..text.floor_char_boundary(len_max)).unwrap_or_default()
}

/// Whether an event went into its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is durable.
    Written,
    /// The camera has had too many in this minute, or the file of the day is full: it is counted, and the number written
    /// down as one event later.
    Counted,
}

/// Appends an event to a day's file, which is made if it is not there, and flushes it to disk. The directory of a new file is
/// the caller's to flush.
///
/// # Errors
/// The file system refused. What was written of the line is skipped by readers.
pub(crate) fn append(path: &Path, event: &Event) -> io::Result<Kept> {
    let mut line = event.line()?;
    let mut f = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)?;
    let len = f.seek(SeekFrom::End(0))?;
    if len + line.len() as u64 > DAY_BYTES_MAX {
        return Ok(Kept::Counted);
    }
    if len > 0 {
        let mut last = [0];
        f.seek(SeekFrom::End(-1))?;
        f.read_exact(&mut last)?;
        if last != *b"\n" {
            // The line before was torn: it stays one that no reader takes.
            line.insert(0, b'\n');
        }
    }
    f.write_all(&line)?;
    f.sync_data()?;
    Ok(Kept::Written)
}

/// The events of one file, in file order.
#[derive(Debug, Default)]
pub(crate) struct DayEvents {
    pub events: Vec<Event>,
    /// Lines that are no event: torn by a crash, or damaged.
    pub bad_lines: u64,
}

/// Reads a day's file; one that is not there is empty. At most [`DAY_BYTES_MAX`] are read.
pub(crate) fn read(path: &Path) -> io::Result<DayEvents> {
    match File::open(path) {
        Ok(f) => parse(f.take(DAY_BYTES_MAX)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(DayEvents::default()),
        Err(e) => Err(e),
    }
}

/// Reads events from the bytes of a file.
pub(crate) fn parse(bytes: impl Read) -> io::Result<DayEvents> {
    let mut from = BufReader::new(bytes);
    let mut found = DayEvents::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let n = from.by_ref().take(LINE_LEN_MAX as u64).read_until(b'\n', &mut line)?;
        if n == 0 {
            return Ok(found);
        }
        let whole = line.last() == Some(&b'\n');
        if !whole {
            from.skip_until(b'\n')?;
        }
        // Also a line that only lacks its line feed is torn: the append that would have ended it never reported success.
        match serde_json::from_slice(&line) {
            Ok(event) if whole => found.events.push(event),
            _ if line == b"\n" => {}
            _ => found.bad_lines += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::mkv::samples::START;

    fn event(n: i64) -> Event {
        Event::new(START.offset(n * 1_000_000), "alarm", "gb28181", format!("alarm {n}"))
            .with_detail(json!({ "method": n, "text": "ü\n" }))
    }

    fn stored(n: i64) -> Event {
        let e = event(n);
        Event {
            time: WallTime::from_millis(e.time.as_millis()),
            ..e
        }
    }

    #[test]
    fn what_is_appended_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        assert!(read(&path).unwrap().events.is_empty());
        for n in 0..5 {
            assert_eq!(append(&path, &event(n)).unwrap(), Kept::Written);
        }
        let found = read(&path).unwrap();
        assert_eq!(found.events, (0..5).map(stored).collect::<Vec<_>>());
        assert_eq!(found.bad_lines, 0);
        let text = fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        assert_eq!(
            first,
            r#"{"time":"2026-11-20T10:00:00.000Z","kind":"alarm","source":"gb28181","text":"alarm 0","detail":{"method":0,"text":"ü\n"}}"#
        );
    }

    #[test]
    fn a_line_torn_anywhere_costs_itself_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        append(&path, &event(0)).unwrap();
        let one = fs::metadata(&path).unwrap().len();
        append(&path, &event(1)).unwrap();
        let whole = fs::read(&path).unwrap();
        for len in one..=whole.len() as u64 {
            fs::write(&path, &whole[..len as usize]).unwrap();
            let second = (len == whole.len() as u64).then(|| stored(1));
            let torn = u64::from(len > one && second.is_none());
            let before: Vec<_> = std::iter::once(stored(0)).chain(second.clone()).collect();
            let found = read(&path).unwrap();
            assert_eq!((found.events, found.bad_lines), (before.clone(), torn));
            append(&path, &event(2)).unwrap();
            let found = read(&path).unwrap();
            // A line that lacked nothing but its line feed is whole now: it says nothing that was not told.
            let revived = (len + 1 == whole.len() as u64).then(|| stored(1));
            let torn = torn - u64::from(revived.is_some());
            let after: Vec<_> = before.into_iter().chain(revived).chain([stored(2)]).collect();
            assert_eq!((found.events, found.bad_lines), (after, torn), "{len}");
        }
    }

    #[test]
    fn a_line_is_bounded_whatever_it_is_asked_to_hold() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let wild = "\u{1}ü".repeat(100_000);
        let huge = Event::new(START, wild.clone(), wild.clone(), wild.clone()).with_detail(json!({ "x": wild }));
        append(&path, &huge).unwrap();
        assert!(fs::metadata(&path).unwrap().len() <= LINE_LEN_MAX as u64);
        let found = read(&path).unwrap();
        assert_eq!(found.events.len(), 1);
        assert!(found.events[0].detail["omitted_bytes"].as_u64().unwrap() > 100_000);
        assert!(huge.text.starts_with(&found.events[0].text) && found.events[0].text.len() > 500);
    }

    #[test]
    fn lines_that_are_no_events_are_counted_and_passed_over() {
        let mut bytes = b"\n{}\nnot json\n[[[\n".to_vec();
        bytes.extend(vec![b'['; 3 * LINE_LEN_MAX]);
        bytes.push(b'\n');
        bytes.extend(stored(1).line().unwrap());
        bytes.extend([0; 100]);
        let found = parse(&bytes[..]).unwrap();
        assert_eq!((found.events, found.bad_lines), (vec![stored(1)], 5));
    }

    #[test]
    fn a_full_file_takes_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, vec![b'\n'; DAY_BYTES_MAX as usize - 10]).unwrap();
        assert_eq!(append(&path, &event(0)).unwrap(), Kept::Counted);
        assert_eq!(fs::metadata(&path).unwrap().len(), DAY_BYTES_MAX - 10);
    }
}
