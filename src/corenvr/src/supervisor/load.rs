//! How busy the shards and archives are: counters of now against those of a few seconds ago.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use corenvr_media::WallTime;
use corenvr_shard::{Held, ShardStats, Stall, StatsSnapshot};

use crate::admin::api::{ClassView, HeldView, ShardView, StallView};

/// How often the counters are read: the shares are means over this.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Reads the shards' counters again and again.
pub struct ShardLoad {
    cpu: Option<usize>,
    stats: Arc<ShardStats>,
    before: Option<(Instant, StatsSnapshot)>,
    latest: Option<ShardView>,
}

impl ShardLoad {
    /// For the shard on `cpu`, or the control executor, which is on none.
    pub const fn new(cpu: Option<usize>, stats: Arc<ShardStats>) -> Self {
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
        view.stall_max_ms = now.stall_max.as_millis() as u64;
        view.last_stalls = now.last_stalls.iter().map(stall).collect();
        view.held = now.held.as_ref().map(held);
        view.panics = now.panics;
        view
    }

    /// The counters now.
    pub fn counters(&self) -> StatsSnapshot {
        self.stats.snapshot()
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
            last_stalls: now.last_stalls.iter().map(stall).collect(),
            held: now.held.as_ref().map(held),
            panics: now.panics,
            silent_ms: now.silent_for.as_millis() as u64,
        }
    }
}

fn stall(s: &Stall) -> StallView {
    StallView {
        at: WallTime::from_system(s.at),
        task: s.task.clone(),
        camera: s.camera.clone(),
        class: s.class.name().to_owned(),
        took_ms: s.took.as_millis() as u64,
        thread: s.thread.as_ref().map(ToString::to_string),
    }
}

fn held(h: &Held) -> HeldView {
    HeldView {
        task: h.task.clone(),
        camera: h.camera.clone(),
        class: h.class.map(|c| c.name().to_owned()),
        for_ms: h.held.as_millis() as u64,
        thread: h.thread.as_ref().map(ToString::to_string),
    }
}

/// What a shard is held by, in a few words.
pub fn held_in_words(h: &Held) -> String {
    let task = h
        .task
        .as_ref()
        .map_or_else(|| "between tasks".to_owned(), |t| format!("in task {t}"));
    match &h.thread {
        Some(thread) => format!("{task}, which {thread}"),
        None => task,
    }
}
