//! Whether the recorder does what it is for, for `/healthz`: from counters alone, so that asking costs nothing and never waits.

use std::time::Duration;

use corenvr_shard::WorkerState;
use serde::Serialize;

use crate::supervisor::{appliance::Appliance, load::held_in_words};

/// A shard that was not heard of for this long is not well.
const SHARD_SILENT_MAX: Duration = Duration::from_secs(5);
/// An archive that had something to do for this long without getting on with it is not well.
const ARCHIVE_STUCK_MAX: Duration = Duration::from_secs(15);

/// How the recorder is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// What is wrong, in words with the remedy; empty when all is well. Names shards and directories: for local callers and
    /// administrators only, everybody else is told no more than [`Health::ok`].
    pub problems: Vec<String>,
}

impl Health {
    /// Whether to answer 200; 503 otherwise.
    pub fn ok(&self) -> bool {
        self.problems.is_empty()
    }

    fn shard(&mut self, name: &str, silent: Duration, held_by: Option<&str>) {
        if silent >= SHARD_SILENT_MAX {
            let held_by = held_by.map_or_else(String::new, |h| format!(" (it is {h})"));
            let silent = silent.as_secs();
            self.problems.push(format!(
                "{name} has not been heard of for {silent} s{held_by}: restart corenvr if it does not come back"
            ));
        }
    }

    fn archive(&mut self, path: &str, state: &WorkerState) {
        if state.stuck_for >= ARCHIVE_STUCK_MAX {
            let does = state
                .thread
                .as_ref()
                .map_or_else(String::new, |t| format!(" (its thread {t})"));
            let (stuck, queued) = (state.stuck_for.as_secs(), state.queued);
            self.problems.push(format!(
                "the archive in {path} has not got on for {stuck} s{does}, {queued} requests wait: check its disk"
            ));
        }
    }
}

/// Looks at every shard, every archive and every storage directory.
pub fn check(appliance: &Appliance) -> Health {
    let mut health = Health::default();
    for shard in appliance.load.borrow().iter() {
        let now = shard.counters();
        let held_by = now.held.as_ref().map(held_in_words);
        health.shard(&now.name, now.silent_for, held_by.as_deref());
    }
    for storage in &appliance.storages {
        health.archive(&storage.settings.path.display().to_string(), &storage.archive.state());
    }
    for (settings, reason) in &appliance.failed_storages {
        let path = settings.path.display();
        health.problems.push(format!("{path} is not in use: {reason}"));
    }
    health
}

#[cfg(test)]
mod tests {
    use corenvr_shard::ThreadState;

    use super::*;

    #[test]
    fn a_silent_shard_and_a_stuck_archive_are_named_with_what_they_do() {
        let mut health = Health::default();
        health.shard("shard-0", Duration::from_millis(120), None);
        let mut state = WorkerState {
            queued: 7,
            stuck_for: Duration::from_secs(3),
            thread: Some(ThreadState {
                state: 'D',
                system_call: Some(74),
                wait_channel: Some("folio_wait".into()),
            }),
            panics: 0,
        };
        health.archive("/data", &state);
        assert!(health.ok());
        health.shard("shard-1", Duration::from_secs(6), Some("in task front-door writer"));
        state.stuck_for = Duration::from_secs(20);
        health.archive("/data", &state);
        assert!(!health.ok());
        assert!(health.problems[0].contains("shard-1") && health.problems[0].contains("front-door"));
        assert!(health.problems[1].contains("/data") && health.problems[1].contains("folio_wait"));
    }
}
