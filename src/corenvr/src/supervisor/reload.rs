//! Reading the configuration again: what changed is put in force, what did not change is not touched, and a configuration
//! with mistakes changes nothing at all.

use std::collections::HashMap;

use super::appliance::{Appliance, Book};
use crate::config::{self, CameraSettings, Config, Loaded};

/// Keys whose new value is taken at the next start only.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut changed = |differs: bool, key| keys.extend(differs.then_some(key));
    changed(old.server != new.server, "[server]");
    changed(old.cpus != new.cpus, "[shards] cpus");
    changed(old.rtsp_listen != new.rtsp_listen, "[rtsp] listen");
    changed(old.storage != new.storage, "[[storage]]");
    changed(old.recording.segment != new.recording.segment, "[recording] segment");
    changed(old.recording.sync != new.recording.sync, "[recording] sync");
    keys
}

impl Appliance {
    /// Reads the configuration again.
    pub async fn reload(&self) {
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
        let old: HashMap<_, _> = self
            .book
            .borrow()
            .cameras()
            .map(|c| (c.name.clone(), c.clone()))
            .collect();
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
        loaded.config.rtsp_listen = keep.rtsp_listen;
        loaded.config.storage = keep.storage;
        loaded.config.recording.segment = keep.recording.segment;
        loaded.config.recording.sync = keep.recording.sync;
        self.gate.set(loaded.config.anonymous);
        *self.book.borrow_mut() = Book::new(loaded);
        let new: Vec<CameraSettings> = self.book.borrow().cameras().cloned().collect();
        let gone: Vec<_> = old
            .keys()
            .filter(|name| !new.iter().any(|c| c.name == **name))
            .collect();
        // One that could not be recorded before is tried again, and is left out again with its reason.
        let differs = |c: &&CameraSettings| old.get(&c.name) != Some(c) || self.recorder_config(c).is_err();
        let changed: Vec<_> = new.iter().filter(differs).collect();
        for name in &gone {
            match self.recorder.remove(name).await {
                Ok(_) => tracing::info!(camera = %name, "camera removed"),
                Err(error) => tracing::error!(camera = %name, "cannot be removed: {error}"),
            }
        }
        for camera in &changed {
            self.apply_or_leave_out(camera).await;
        }
        self.set_rules();
        tracing::info!(
            removed = gone.len(),
            started_or_changed = changed.len(),
            unchanged = new.len() - changed.len(),
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
        let other = read("[rtsp]\nlisten = [\"[::]:554\"]\n[recording]\nsync = \"5s\"\n[[storage]]\npath = \"/x\"\n");
        assert_eq!(
            needs_restart(&old, &other),
            ["[rtsp] listen", "[[storage]]", "[recording] sync"]
        );
    }
}
