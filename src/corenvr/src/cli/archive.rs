//! `corenvr archive`: check and rebuild, while the recorder is stopped.

use std::path::{Path, PathBuf};

use corenvr_store::{
    archive::{OpenError, Progress, Recovery},
    check::{CheckError, CheckOptions, Report, check, rebuild},
};
use serde_json::{Value, json};

use super::{
    Failure,
    args::{ArchiveCommand, Output},
    output,
};
use crate::config::{self, values::show_size};

/// Does what is asked, in every storage directory that is meant.
pub fn run(command: ArchiveCommand) -> Result<(), Failure> {
    match command {
        ArchiveCommand::Check {
            repair,
            payload,
            storage,
            output,
        } => each(storage, &output, |root| check_one(root, repair, payload, &output)),
        ArchiveCommand::Rebuild { storage, output } => each(storage, &output, |root| rebuild_one(root, &output)),
    }
}

/// Calls `work` for each directory; one that fails does not keep it from the others.
fn each(
    storage: Option<PathBuf>,
    out: &Output,
    mut work: impl FnMut(&Path) -> Result<(bool, Value), Failure>,
) -> Result<(), Failure> {
    let roots = match storage {
        Some(root) => vec![root],
        None => configured(&out.config.config)?,
    };
    let mut documents = Vec::new();
    let mut clean = true;
    for root in &roots {
        match work(root) {
            Ok((good, document)) => {
                clean &= good;
                documents.push(document);
            }
            Err(Failure::Failed(message)) => {
                eprintln!("corenvr: {message}");
                documents.push(json!({ "storage": root, "error": message }));
                clean = false;
            }
            Err(other) => return Err(other),
        }
    }
    if out.json {
        output::json(&documents);
    }
    if clean { Ok(()) } else { Err(Failure::Told) }
}

fn configured(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let loaded = config::load_alone(path).map_err(|e| Failure::Failed(e.to_string()))?;
    let wrong: Vec<_> = loaded.fatal().map(ToString::to_string).collect();
    if !wrong.is_empty() {
        return Err(Failure::Failed(wrong.join("\n")));
    }
    Ok(loaded.config.storage.into_iter().map(|s| s.path).collect())
}

fn failed(root: &Path, error: &CheckError) -> Failure {
    let remedy = match error {
        CheckError::Open(OpenError::InUse { .. }) => ". Remedy: systemctl stop corenvr",
        _ => "",
    };
    let text = error.to_string();
    let shown = root.display().to_string();
    let place = if text.contains(&shown) {
        String::new()
    } else {
        format!("{shown}: ")
    };
    Failure::Failed(format!("{place}{text}{remedy}"))
}

fn check_one(root: &Path, repair: bool, payload: bool, out: &Output) -> Result<(bool, Value), Failure> {
    let options = CheckOptions {
        root: root.to_owned(),
        repair,
        payload,
    };
    let mut bar = output::Bar::new();
    let report = check(&options, &mut |p| show(&mut bar, p)).map_err(|e| failed(root, &e))?;
    bar.clear();
    if !out.json {
        print_report(root, &report);
    }
    Ok((report.is_clean(), document(root, &report)))
}

fn show(bar: &mut output::Bar, p: Progress) {
    let what = format!("file {} of {}, {} read", p.files, p.files_total, show_size(p.bytes));
    bar.set(p.files, p.files_total, &what);
}

fn print_report(root: &Path, report: &Report) {
    for finding in &report.findings {
        let state = match (finding.repaired, finding.problem.is_notice()) {
            (true, _) => " (repaired)",
            (false, true) => " (to be known, nothing to do)",
            (false, false) => "",
        };
        output::line(&format!("{}: {}{state}", finding.path.display(), finding.problem));
    }
    if report.findings_more > 0 {
        output::line(&format!("... and {} more", report.findings_more));
    }
    if let Some(reason) = &report.index_not_compared {
        output::line(&format!(
            "The index was not compared, and open files were passed over: {reason}"
        ));
    }
    let verdict = if report.is_clean() {
        "in order"
    } else {
        "not in order: `corenvr archive check --repair` corrects the index"
    };
    output::line(&format!(
        "{}: {} files, {} read in {:.1} s: {verdict}",
        root.display(),
        report.files,
        show_size(report.bytes),
        report.took.as_secs_f64()
    ));
}

fn document(root: &Path, report: &Report) -> Value {
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|f| {
            json!({
                "path": f.path,
                "problem": f.problem.to_string(),
                "repaired": f.repaired,
                "notice": f.problem.is_notice(),
            })
        })
        .collect();
    json!({
        "storage": root,
        "clean": report.is_clean(),
        "files": report.files,
        "bytes_read": report.bytes,
        "findings": findings,
        "findings_more": report.findings_more,
        "index_not_compared": report.index_not_compared,
        "took_s": report.took.as_secs_f64(),
    })
}

fn rebuild_one(root: &Path, out: &Output) -> Result<(bool, Value), Failure> {
    let mut bar = output::Bar::new();
    let recovery = rebuild(root, &mut |p| show(&mut bar, p)).map_err(|e| failed(root, &e))?;
    bar.clear();
    let good = recovery.unreadable.is_empty();
    if !out.json {
        for (path, reason) in &recovery.unreadable {
            output::line(&format!("{}: {reason}; left as it is and not listed", path.display()));
        }
        output::line(&format!(
            "{}: the index is made anew from {} files in {:.1} s",
            root.display(),
            recovery.segments,
            recovery.took.as_secs_f64()
        ));
    }
    Ok((good, recovered(root, &recovery)))
}

fn recovered(root: &Path, r: &Recovery) -> Value {
    let unreadable: Vec<_> = r
        .unreadable
        .iter()
        .map(|(path, why)| json!({ "path": path, "reason": why }))
        .collect();
    json!({
        "storage": root,
        "segments": r.segments,
        "recovered": r.recovered.iter().map(|(path, _)| path).collect::<Vec<_>>(),
        "set_aside": r.set_aside,
        "unreadable": unreadable,
        "took_s": r.took.as_secs_f64(),
    })
}
