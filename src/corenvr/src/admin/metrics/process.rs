//! Metrics of the process itself: shards, the control executor, queues.

use corenvr_shard::{StatsSnapshot, channel, crash};

use super::exposition::{
    Exposition,
    Kind::{Counter, Gauge},
};
use crate::supervisor::{appliance::Appliance, load::ShardLoad};

pub fn write(out: &mut Exposition, appliance: &Appliance) {
    let version = env!("CARGO_PKG_VERSION");
    out.family("corenvr_build_info", Gauge, "The program's version; always 1.")
        .sample(&[("version", version)], 1.0);
    let uptime = appliance.started.elapsed().as_secs_f64();
    out.single("corenvr_uptime_seconds", Gauge, "Time since recording began.", uptime);
    resources(out);
    shards(out, appliance);
    let panics = crash::panics() as f64;
    out.single(
        "corenvr_panics_total",
        Counter,
        "Failures inside on any thread, contained ones included.",
        panics,
    );
    let mut family = out.family("corenvr_queue_refused_total", Counter, "Messages that a full queue between shards did not take, by queue. Each was dropped or asked for again by that queue's rule.");
    for (queue, count) in channel::refused() {
        family.sample(&[("queue", queue)], count as f64);
    }
}

fn each(
    out: &mut Exposition,
    shards: &[StatsSnapshot],
    name: &'static str,
    kind: super::exposition::Kind,
    help: &str,
    value: impl Fn(&StatsSnapshot) -> f64,
) {
    let mut family = out.family(name, kind, help);
    for s in shards {
        family.sample(&[("shard", &s.name)], value(s));
    }
}

fn shards(out: &mut Exposition, appliance: &Appliance) {
    let shards: Vec<StatsSnapshot> = appliance.load.borrow().iter().map(ShardLoad::counters).collect();
    each(
        out,
        &shards,
        "corenvr_shard_cpu_seconds_total",
        Counter,
        "Processor time of the shard's thread. The control executor is the shard \"control\".",
        |s| s.cpu.as_secs_f64(),
    );
    let mut family = out.family(
        "corenvr_shard_class_seconds_total",
        Counter,
        "Time that tasks of a class have run on the shard.",
    );
    for s in &shards {
        for c in &s.classes {
            family.sample(&[("shard", &s.name), ("class", c.class.name())], c.cpu.as_secs_f64());
        }
    }
    let mut family = out.family("corenvr_shard_tasks", Gauge, "Tasks alive on the shard, by class.");
    for s in &shards {
        for c in &s.classes {
            family.sample(&[("shard", &s.name), ("class", c.class.name())], c.tasks as f64);
        }
    }
    each(
        out,
        &shards,
        "corenvr_shard_stalls_total",
        Counter,
        "Tasks that held the shard for more than 50 ms.",
        |s| s.stalls as f64,
    );
    each(
        out,
        &shards,
        "corenvr_shard_stall_longest_seconds",
        Gauge,
        "The longest of those since the start.",
        |s| s.stall_max.as_secs_f64(),
    );
    each(
        out,
        &shards,
        "corenvr_shard_panics_total",
        Counter,
        "Tasks that failed inside and were contained.",
        |s| s.panics as f64,
    );
    each(
        out,
        &shards,
        "corenvr_shard_silence_seconds",
        Gauge,
        "Time since the shard's last sign of life; 0.1 at most when healthy.",
        |s| s.silent_for.as_secs_f64(),
    );
    each(
        out,
        &shards,
        "corenvr_shard_nudges_total",
        Counter,
        "How often the shard slept on and was woken from outside.",
        |s| s.nudges as f64,
    );
}

/// Under the names that every exporter has them.
fn resources(out: &mut Exposition) {
    let page = rustix::param::page_size() as f64;
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|t| t.split(' ').nth(1)?.parse::<u64>().ok());
    if let Some(pages) = pages {
        out.single(
            "process_resident_memory_bytes",
            Gauge,
            "Resident memory.",
            pages as f64 * page,
        );
    }
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    out.single(
        "process_cpu_seconds_total",
        Counter,
        "Processor time of all threads.",
        seconds,
    );
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        out.single("process_max_fds", Gauge, "Files that may be open.", limit as f64);
    }
}
