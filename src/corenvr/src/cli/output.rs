//! Printing: JSON, tables, progress. A reader that went away (`| head`) ends the program quietly.

use std::{
    io::{self, IsTerminal, Write},
    process,
    time::{Duration, Instant},
};

use serde::Serialize;

/// Prints text to standard output.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let done = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = done {
        if error.kind() != io::ErrorKind::BrokenPipe {
            eprintln!("corenvr: cannot print: {error}");
        }
        process::exit(1);
    }
}

/// Prints a line to standard output.
pub fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// Prints a document.
pub fn json(value: &impl Serialize) {
    // The documents are plain data with text keys: they always have a JSON form.
    line(&serde_json::to_string_pretty(value).unwrap_or_else(|e| format!("{{\"error\": \"{e}\"}}")));
}

/// Prints rows in columns, the first row as the head.
pub fn table(rows: &[Vec<String>]) {
    print(&columns(rows));
}

fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| {
        rows.iter()
            .filter_map(|r| r.get(i))
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// How often the bar is drawn anew.
const REDRAW: Duration = Duration::from_millis(100);
const BAR_WIDTH: usize = 30;

/// A progress bar on standard error, if that is a terminal.
pub struct Bar {
    shown: bool,
    drawn: Option<Instant>,
}

impl Bar {
    /// A bar that has not begun.
    pub fn new() -> Self {
        Self {
            shown: io::stderr().is_terminal(),
            drawn: None,
        }
    }

    /// Shows that `done` of `total` is done; `what` stands behind the bar.
    pub fn set(&mut self, done: u64, total: u64, what: &str) {
        if !self.shown || self.drawn.is_some_and(|t| t.elapsed() < REDRAW) {
            return;
        }
        self.drawn = Some(Instant::now());
        eprint!("\r\x1b[K{}", bar(done, total, what));
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        if self.drawn.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

fn bar(done: u64, total: u64, what: &str) -> String {
    let share = if total == 0 {
        0.0
    } else {
        (done as f64 / total as f64).min(1.0)
    };
    let filled = (share * BAR_WIDTH as f64) as usize;
    format!(
        "[{}{}] {:>3.0}% {what}",
        "#".repeat(filled),
        ".".repeat(BAR_WIDTH - filled),
        share * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let rows = [
            vec!["NAME".into(), "STATE".into()],
            vec!["front-door".into(), "up".into()],
        ];
        assert_eq!(columns(&rows), "NAME        STATE\nfront-door  up\n");
        assert_eq!(columns(&[]), "");
    }

    #[test]
    fn a_bar_never_runs_over_its_end() {
        assert!(bar(0, 0, "").contains("  0%"));
        assert_eq!(bar(5, 4, "x"), format!("[{}] 100% x", "#".repeat(30)));
    }
}
