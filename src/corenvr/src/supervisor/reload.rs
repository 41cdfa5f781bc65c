//! Reading the configuration again: what changed is put in force, what did not change is not touched, and a configuration
//! with mistakes changes nothing at all.

use super::appliance::{Appliance, Book};
use crate::{
    accounts::{
        Who,
        audit::{Action, Entry, Via},
    },
    config::{self, Config, Loaded},
};

/// Keys whose new value is taken at the next start only.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut changed = |differs: bool, key| keys.extend(differs.then_some(key));
    changed(old.server != new.server, "[server]");
    changed(old.cpus != new.cpus, "[shards] cpus");
    changed(old.rtsp != new.rtsp, "[rtsp]");
    changed(old.http != new.http, "[http]");
    changed(old.rtmp != new.rtmp, "[rtmp]");
    changed(old.gb28181 != new.gb28181, "[gb28181]");
    changed(old.storage != new.storage, "[[storage]]");
    changed(old.recording.segment != new.recording.segment, "[recording] segment");
    changed(old.recording.sync != new.recording.sync, "[recording] sync");
    keys
}

impl Appliance {
    /// Reads the configuration again, and the certificates: these even if the configuration has mistakes, since a renewed one does not wait
    /// for them.
    pub async fn reload(&self) {
        self.identities.reload().await;
        let path = self.config_path.clone();
        let loaded = match corenvr_shard::blocking(move || config::load(&path)).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(error)) => return tracing::error!("{error}; the old configuration stays in force"),
            Err(error) => return tracing::error!("{error}; the old configuration stays in force"),
        };
        if !loaded.errors.is_empty() {
            for error in &loaded.errors {
                tracing::error!("{error}");
            }
            return tracing::error!(
                errors = loaded.errors.len(),
                "the configuration is refused; the old one stays in force"
            );
        }
        self.put_in_force(loaded).await;
    }

    async fn put_in_force(&self, mut loaded: Loaded) {
        let _guard = self.changing.lock().await;
        let before = self.recorded();
        let keep = {
            let book = self.book.borrow();
            for key in needs_restart(&book.config, &loaded.config) {
                tracing::warn!("{key} has changed and takes effect at the next restart");
            }
            book.config.clone()
        };
        // What needs a restart stays as it runs, so that the next reload compares with what is truly in force.
        loaded.config.server = keep.server;
        loaded.config.cpus = keep.cpus;
        loaded.config.rtsp = keep.rtsp;
        loaded.config.http = keep.http;
        loaded.config.rtmp = keep.rtmp;
        loaded.config.gb28181 = keep.gb28181;
        loaded.config.storage = keep.storage;
        loaded.config.recording.segment = keep.recording.segment;
        loaded.config.recording.sync = keep.recording.sync;
        self.accounts.set_anonymous(loaded.config.anonymous);
        let derived = std::mem::take(&mut self.book.borrow_mut().derived);
        *self.book.borrow_mut() = Book {
            derived,
            ..Book::new(loaded)
        };
        self.set_accounts();
        self.derive_cameras();
        let done = self.apply_difference(&before).await;
        self.set_rules();
        let entry = Entry::new(&Who::Local, None, Via::Local, Action::Reload);
        let detail = format!("{} cameras removed, {} started or changed", done.removed, done.changed);
        self.accounts.audit().record(entry.detail(&detail));
        tracing::info!(
            removed = done.removed,
            started_or_changed = done.changed,
            unchanged = done.unchanged,
            "configuration reloaded"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_needs_a_restart_is_named_and_the_rest_is_not() {
        let read = |text: &str| config::load_text(Path::new("t.toml"), text).config;
        let old = Config::default();
        let live = read("[auth]\nanonymous = [\"live\"]\n[recording]\nretain = \"1d\"\nretain_bytes = \"1GiB\"\n");
        assert!(needs_restart(&old, &live).is_empty());
        let other =
            read("[rtsp]\nlisten = [\"[::]:554\"]\n[rtmp]\n[recording]\nsync = \"5s\"\n[[storage]]\npath = \"/x\"\n");
        assert_eq!(
            needs_restart(&old, &other),
            ["[rtsp]", "[rtmp]", "[[storage]]", "[recording] sync"]
        );
    }
}
