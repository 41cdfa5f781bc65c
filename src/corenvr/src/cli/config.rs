//! `corenvr config check`: every mistake of a file at once.

use std::{io, path::Path};

use serde_json::json;

use super::{Failure, output};
use crate::{
    config::{self, LoadError, Loaded},
    doctor::Verdict,
    tls,
};

/// Prints the mistakes; fails if there are any. What is wrong with a certificate is told and is no failure: it lies in another file, and
/// the recorder runs in spite of it.
pub fn check(file: &Path, as_json: bool) -> Result<(), Failure> {
    let loaded = load(file).map_err(|e| Failure::Failed(e.to_string()))?;
    let mut warnings = tls::findings(&loaded.config);
    warnings.retain(|f| f.verdict != Verdict::Good);
    if as_json {
        let valid = loaded.errors.is_empty();
        output::json(&json!({ "file": file, "valid": valid, "errors": loaded.errors, "warnings": warnings }));
    } else {
        for error in &loaded.errors {
            output::line(&error.to_string());
        }
        for warning in &warnings {
            output::line(&format!(
                "warning: {}: {}. Remedy: {}",
                warning.check, warning.found, warning.remedy
            ));
        }
        output::line(&summary(file, &loaded));
    }
    if loaded.errors.is_empty() {
        Ok(())
    } else {
        Err(Failure::Told)
    }
}

/// The file of cameras is looked at as well, since names must be unique over both; where it may not be read, it is not.
fn load(file: &Path) -> Result<Loaded, LoadError> {
    match config::load(file) {
        Err(LoadError::Read { path, source }) if path != file && source.kind() == io::ErrorKind::PermissionDenied => {
            eprintln!(
                "corenvr: {} may not be read by this user and is not checked",
                path.display()
            );
            config::load_alone(file)
        }
        other => other,
    }
}

fn summary(file: &Path, loaded: &Loaded) -> String {
    match loaded.errors.len() {
        0 => format!(
            "{} is valid: {} cameras, {} storage directories",
            file.display(),
            loaded.cameras().count(),
            loaded.config.storage.len()
        ),
        1 => "1 error".to_owned(),
        n => format!("{n} errors"),
    }
}
