//! `corenvr doctor`: can this machine run the recorder, and if not, what has to be done about it. Changes nothing but a
//! test file that it removes again.

mod checks;
mod subject;

use std::path::Path;

use serde::Serialize;

use crate::config::{self, Config, LoadError};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// The recorder runs, and something should be done.
    Warning,
    /// The recorder does not run, or not for long.
    Bad,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty if nothing.
    pub remedy: String,
}

impl Finding {
    /// All is well.
    pub fn good(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            verdict: Verdict::Good,
            found: found.into(),
            remedy: String::new(),
        }
    }

    /// Something should be done.
    pub fn warning(check: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            verdict: Verdict::Warning,
            found: found.into(),
            remedy: remedy.into(),
        }
    }

    /// Something must be done.
    pub fn bad(check: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Bad,
            ..Self::warning(check, found, remedy)
        }
    }
}

/// Looks at everything.
pub fn findings(config_path: &Path) -> Vec<Finding> {
    let (config, mut findings) = configuration(config_path);
    findings.extend(checks::all(&config));
    findings
}

/// Looks at everything and prints what it found; true if nothing is bad.
pub fn run(config_path: &Path, as_json: bool) -> bool {
    let findings = findings(config_path);
    let good = findings.iter().all(|f| f.verdict != Verdict::Bad);
    let text = if as_json {
        serde_json::to_string_pretty(&serde_json::json!({ "ok": good, "findings": findings })).unwrap_or_default()
    } else {
        show(&findings)
    };
    crate::cli::print_line(&text);
    good
}

/// The configuration as far as it can be read: what it says is what has to be checked.
fn configuration(path: &Path) -> (Config, Vec<Finding>) {
    let check = "configuration";
    match config::load_alone(path) {
        Ok(loaded) if loaded.errors.is_empty() => {
            let found = format!("{} is valid", path.display());
            (loaded.config, vec![Finding::good(check, found)])
        }
        Ok(loaded) => {
            let found = format!("{} has {} errors", path.display(), loaded.errors.len());
            let remedy = format!("corenvr config check {}", path.display());
            let finding = if loaded.fatal().next().is_some() {
                Finding::bad(check, found, remedy)
            } else {
                Finding::warning(check, found, remedy)
            };
            (loaded.config, vec![finding])
        }
        Err(LoadError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            let found = format!("{} is not there; the defaults are checked", path.display());
            let remedy = "install it from conf/corenvr.toml, or name another file with --config";
            (Config::default(), vec![Finding::warning(check, found, remedy)])
        }
        Err(error) => (Config::default(), vec![Finding::bad(check, error.to_string(), "")]),
    }
}

/// The findings for people.
pub fn show(findings: &[Finding]) -> String {
    let width = findings.iter().map(|f| f.check.chars().count()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for f in findings {
        let mark = match f.verdict {
            Verdict::Good => "ok  ",
            Verdict::Warning => "WARN",
            Verdict::Bad => "BAD ",
        };
        lines.push(format!("{mark}  {:<width$}  {}", f.check, f.found));
        if !f.remedy.is_empty() {
            lines.push(format!("      {:<width$}  -> {}", "", f.remedy));
        }
    }
    let count = |v| findings.iter().filter(|f| f.verdict == v).count();
    let summary = match (count(Verdict::Bad), count(Verdict::Warning)) {
        (0, 0) => "Everything is as it should be.".to_owned(),
        (0, n) => format!("The recorder can run; {n} things should be looked at."),
        (n, _) => format!("The recorder cannot run: {n} things stand in the way."),
    };
    lines.push(String::new());
    lines.push(summary);
    lines.join("\n")
}
