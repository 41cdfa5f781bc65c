//! Reading TOML so that every mistake of a file is found in one go, each with its line, key and remedy.

use std::{fmt, path::Path, path::PathBuf};

use serde::Serialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::values::Problem;

/// Most errors that are reported of one file; a file with more is not a configuration.
pub const ERRORS_MAX: usize = 100;

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Section and key, such as `[recording] segment`; empty where the text is not TOML.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// The mistake is within one camera's entry: the others can go on without it.
    pub one_camera: bool,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file.display(), self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.message)?;
        if !self.remedy.is_empty() {
            write!(f, ". Remedy: {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Collects the mistakes of one file.
pub struct Errors<'t> {
    file: PathBuf,
    text: &'t str,
    list: Vec<ConfigError>,
}

impl<'t> Errors<'t> {
    /// For `text`, which was read from `file`.
    pub fn new(file: &Path, text: &'t str) -> Self {
        Self {
            file: file.to_owned(),
            text,
            list: Vec::new(),
        }
    }

    /// Notes a mistake at a byte offset.
    pub fn add(&mut self, at: usize, key: impl Into<String>, problem: Problem, one_camera: bool) {
        let line = self.line_of(at);
        // Where the text is not TOML, what was read from that line is a guess.
        let guessed = self.list.iter().any(|e| e.key.is_empty() && e.line == line);
        if self.list.len() < ERRORS_MAX && !guessed {
            self.list.push(ConfigError {
                file: self.file.clone(),
                line,
                key: key.into(),
                message: problem.message,
                remedy: problem.remedy,
                one_camera,
            });
        }
    }

    fn line_of(&self, at: usize) -> usize {
        self.text.as_bytes()[..at.min(self.text.len())]
            .split(|b| *b == b'\n')
            .count()
    }

    /// How many were found so far.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// The mistakes, in the order of their lines.
    pub fn into_list(mut self) -> Vec<ConfigError> {
        self.list.sort_by_key(|e| e.line);
        self.list
    }
}

/// Parses the text; syntax errors are noted, and what could be read is returned all the same.
pub fn parse_root<'t>(text: &'t str, errors: &mut Errors<'t>) -> Section<'t> {
    let (table, syntax) = DeTable::parse_recoverable(text);
    for error in syntax {
        let at = error.span().map_or(0, |s| s.start);
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        let remedy = "write the line as TOML: key = \"value\", [section] or [[list]]";
        errors.add(at, "", Problem::new(message, remedy), false);
    }
    Section {
        name: String::new(),
        at: 0,
        table: table.into_inner(),
        known: Vec::new(),
        one_camera: false,
    }
}

/// A table whose keys are taken one by one; what is left at the end is unknown.
pub struct Section<'t> {
    name: String,
    at: usize,
    table: DeTable<'t>,
    known: Vec<&'static str>,
    one_camera: bool,
}

impl<'t> Section<'t> {
    /// Marks every mistake in here as one camera's own.
    pub fn of_one_camera(mut self, name: String) -> Self {
        self.one_camera = true;
        self.name = name;
        self
    }

    /// Where the section begins, in bytes.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Looks at a text value without taking it.
    pub fn peek_str(&self, key: &str) -> Option<&str> {
        let (_, value) = self.table.iter().find(|(k, _)| k.get_ref() == key)?;
        value.get_ref().as_str()
    }

    /// Whether the key is there and not taken yet.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn remove(&mut self, key: &'static str) -> Option<Spanned<DeValue<'t>>> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn full_key(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{} {key}", self.name)
        }
    }

    /// Takes a value and reads it with `read`; a mistake is noted and gives `None`, as does a missing key.
    pub fn take<T>(
        &mut self,
        key: &'static str,
        errors: &mut Errors<'_>,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, Problem>,
    ) -> Option<T> {
        let value = self.remove(key)?;
        read(value.get_ref())
            .map_err(|p| errors.add(value.span().start, self.full_key(key), p, self.one_camera))
            .ok()
    }

    /// Notes that a key without which the section makes no sense is missing.
    pub fn missing(&self, key: &str, remedy: &str, errors: &mut Errors<'_>) {
        let problem = Problem::new("is missing", remedy);
        errors.add(self.at, self.full_key(key), problem, self.one_camera);
    }

    /// Notes a mistake of the section as a whole.
    pub fn wrong(&self, key: &str, problem: Problem, errors: &mut Errors<'_>) {
        errors.add(self.at, self.full_key(key), problem, self.one_camera);
    }

    /// Takes a `[table]`. A missing one is empty.
    pub fn table(&mut self, key: &'static str, errors: &mut Errors<'_>) -> Self {
        let mut section = Self {
            name: format!("[{key}]"),
            at: self.at,
            table: DeTable::new(),
            known: Vec::new(),
            one_camera: false,
        };
        if let Some(value) = self.remove(key) {
            section.at = value.span().start;
            match value.into_inner() {
                DeValue::Table(table) => section.table = table,
                other => errors.add(
                    section.at,
                    key,
                    wrong_type(&other, "a table", &format!("[{key}]")),
                    false,
                ),
            }
        }
        section
    }

    /// Takes an `[[array of tables]]`; `None` if there is none.
    pub fn tables(&mut self, key: &'static str, errors: &mut Errors<'_>) -> Option<Vec<Self>> {
        let value = self.remove(key)?;
        let at = value.span().start;
        let DeValue::Array(items) = value.into_inner() else {
            let remedy = format!("write it as [[{key}]], with two brackets");
            errors.add(at, key, Problem::new("is not a list of tables", remedy), false);
            return Some(Vec::new());
        };
        let mut sections = Vec::new();
        for item in items {
            let at = item.span().start;
            match item.into_inner() {
                DeValue::Table(table) => sections.push(Self {
                    name: format!("[[{key}]]"),
                    at,
                    table,
                    known: Vec::new(),
                    one_camera: false,
                }),
                other => errors.add(at, key, wrong_type(&other, "a table", &format!("[[{key}]]")), false),
            }
        }
        Some(sections)
    }

    /// Everything that was not taken is unknown: notes it, with the nearest known key.
    pub fn finish(self, errors: &mut Errors<'_>) {
        for (key, value) in &self.table {
            let name = key.get_ref();
            let is_section = matches!(value.get_ref(), DeValue::Table(_));
            let what = if is_section && self.name.is_empty() {
                "section"
            } else {
                "key"
            };
            let remedy = match nearest(name, &self.known) {
                Some(known) => format!("did you mean {known}?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            let problem = Problem::new(format!("there is no such {what}"), remedy);
            errors.add(key.span().start, self.full_key(name), problem, self.one_camera);
        }
    }
}

fn wrong_type(value: &DeValue<'_>, expected: &str, example: &str) -> Problem {
    Problem::new(
        format!("is {}, not {expected}", with_article(value.type_str())),
        format!("write for example {example}"),
    )
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {noun}")
}

/// A text.
pub fn string(value: &DeValue<'_>) -> Result<String, Problem> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| wrong_type(value, "a text", "key = \"value\""))
}

/// A text that `read` understands.
pub fn parsed<T>(value: &DeValue<'_>, read: impl FnOnce(&str) -> Result<T, Problem>) -> Result<T, Problem> {
    read(&string(value)?)
}

/// `true` or `false`.
pub fn boolean(value: &DeValue<'_>) -> Result<bool, Problem> {
    value
        .as_bool()
        .ok_or_else(|| wrong_type(value, "true or false", "key = true"))
}

/// A whole number from 0.
pub fn number(value: &DeValue<'_>) -> Result<u64, Problem> {
    let integer = value
        .as_integer()
        .ok_or_else(|| wrong_type(value, "a whole number", "key = 2"))?;
    u64::from_str_radix(integer.as_str(), integer.radix())
        .map_err(|_| Problem::new(format!("{integer} is out of range"), "write a whole number from 0"))
}

/// A list, each item read by `read`; the first mistake counts.
pub fn list<T>(value: &DeValue<'_>, read: impl Fn(&DeValue<'_>) -> Result<T, Problem>) -> Result<Vec<T>, Problem> {
    let items = value
        .as_array()
        .ok_or_else(|| wrong_type(value, "a list", "key = [\"value\"]"))?;
    items.iter().map(|item| read(item.get_ref())).collect()
}

/// The known word nearest to `word`, if it is near enough to be a slip of the hand.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|k| (edit_distance(word, k), *k))
        .filter(|(distance, k)| *distance <= k.len().div_ceil(4))
        .min()
        .map(|(_, k)| k)
}

/// Longest words compared; beyond that nothing is a slip.
const WORD_LEN_MAX: usize = 40;

fn edit_distance(a: &str, b: &str) -> usize {
    if a.len() > WORD_LEN_MAX || b.len() > WORD_LEN_MAX {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_recognised_and_another_word_is_not() {
        assert_eq!(nearest("segmnt", &["segment", "sync"]), Some("segment"));
        assert_eq!(
            nearest("retain_byte", &["retain", "retain_bytes"]),
            Some("retain_bytes")
        );
        assert_eq!(nearest("colour", &["segment", "sync"]), None);
        assert_eq!(nearest(&"x".repeat(1000), &["segment"]), None);
    }

    #[test]
    fn every_syntax_error_has_a_line() {
        let text = "a = 1\nb = \n[c\nd = \"x\"\n";
        let mut errors = Errors::new(Path::new("x.toml"), text);
        drop(parse_root(text, &mut errors));
        let lines: Vec<_> = errors.into_list().iter().map(|e| e.line).collect();
        assert!(lines.contains(&2) && lines.contains(&3), "{lines:?}");
    }
}
