//! How busy the shards and archives are: counters of now against those of a few seconds ago.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use corenvr_shard::{ShardStats, StatsSnapshot};

use crate::admin::api::{ClassView, ShardView};

/// How often the counters are read: the shares are means over this.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Reads the shards' counters again and again.
pub struct ShardLoad {
    cpu: usize,
    stats: Arc<ShardStats>,
    before: Option<(Instant, StatsSnapshot)>,
    latest: Option<ShardView>,
}

impl ShardLoad {
    /// For the shard on `cpu`.
    pub const fn new(cpu: usize, stats: Arc<ShardStats>) -> Self {
        Self {
            cpu,
            stats,
            before: None,
            latest: None,
        }
    }

    /// Reads the counters now.
    pub fn sample(&mut self) {
        let now = (Instant::now(), self.stats.snapshot());
        self.latest = Some(self.view(&now));
        self.before = Some(now);
    }

    /// Shares as of the last sample, everything else as of now.
    pub fn show(&self) -> ShardView {
        let now = self.stats.snapshot();
        let mut view = self
            .latest
            .clone()
            .unwrap_or_else(|| self.view(&(Instant::now(), now.clone())));
        view.silent_ms = now.silent_for.as_millis() as u64;
        view.stalls = now.stalls;
        view.panics = now.panics;
        view
    }

    /// How long the shard has not been heard of.
    pub fn silent_for(&self) -> Duration {
        self.stats.snapshot().silent_for
    }

    fn view(&self, (at, now): &(Instant, StatsSnapshot)) -> ShardView {
        let percent = |time: Duration, before: Option<Duration>| match (&self.before, before) {
            (Some((since, _)), Some(before)) => {
                let span = at.saturating_duration_since(*since).as_secs_f64().max(0.001);
                (time.saturating_sub(before).as_secs_f64() / span * 1000.0).round() / 10.0
            }
            _ => 0.0,
        };
        let before = self.before.as_ref().map(|(_, s)| s);
        let classes = now.classes.iter().enumerate().map(|(i, c)| ClassView {
            class: c.class.name().to_owned(),
            cpu_percent: percent(c.cpu, before.and_then(|s| s.classes.get(i)).map(|c| c.cpu)),
            tasks: c.tasks,
        });
        ShardView {
            name: now.name.clone(),
            cpu: self.cpu,
            cpu_percent: percent(now.cpu, before.map(|s| s.cpu)),
            classes: classes.collect(),
            stalls: now.stalls,
            stall_max_ms: now.stall_max.as_millis() as u64,
            panics: now.panics,
            silent_ms: now.silent_for.as_millis() as u64,
        }
    }
}
