//! The log: lines for people on a terminal, one JSON object a line for the journal and for files.
//!
//! What may be logged is decided where it is logged; camera URLs have no text form that shows a password.

use std::{io::IsTerminal, os::fd::AsFd};

use tracing_subscriber::EnvFilter;

/// The variable that says what is logged, such as `info,corenvr_recorder=debug`. `RUST_LOG` is read where it is not set.
const FILTER_VARIABLE: &str = "CORENVR_LOG";

/// Starts logging to standard error. A filter that cannot be read is reported and replaced by `fallback`.
pub fn start(fallback: &str) {
    let wanted = std::env::var(FILTER_VARIABLE)
        .or_else(|_| std::env::var("RUST_LOG"))
        .ok();
    let parsed = wanted.as_deref().map(EnvFilter::try_new);
    let (filter, wrong) = match parsed {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(fallback), Some(error.to_string())),
        None => (EnvFilter::new(fallback), None),
    };
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter);
    let terminal = std::io::stderr().is_terminal();
    if terminal {
        builder
            .with_target(false)
            .with_ansi(std::env::var_os("NO_COLOR").is_none())
            .init();
    } else if is_journal() || std::env::var_os("CORENVR_LOG_JSON").is_some() {
        // The journal adds its own time stamp.
        builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .init();
    } else {
        builder.with_target(false).with_ansi(false).init();
    }
    if let Some(error) = wrong {
        tracing::warn!(%error, "{FILTER_VARIABLE} cannot be read; logging {fallback}");
    }
}

/// systemd names device and inode of the stream it gave us; another program in between has another one.
fn is_journal() -> bool {
    let Ok(value) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Some((device, inode)) = value.split_once(':') else {
        return false;
    };
    rustix::fs::fstat(std::io::stderr().as_fd())
        .is_ok_and(|s| device.parse() == Ok(s.st_dev) && inode.parse() == Ok(s.st_ino))
}
