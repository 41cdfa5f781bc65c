//! What a shard is doing, readable from any thread: counters only, no locks on the side that counts.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::Duration,
};

use crate::{Class, task::CLASS_COUNT, time::process_micros};

/// A task that runs longer than this without yielding stalls its shard.
pub const STALL: Duration = Duration::from_millis(50);

/// Names of live tasks, by slot, so that another thread can say what a shard is busy with.
#[derive(Default)]
struct Names {
    slots: Vec<Option<Arc<str>>>,
    free: Vec<u32>,
}

/// Counters of one shard.
#[derive(Default)]
pub struct ShardStats {
    name: String,
    names: Mutex<Names>,
    /// Slot of the task being polled, plus one; 0 when the shard is between tasks.
    running: AtomicU32,
    /// When that poll began, in process microseconds.
    running_since_us: AtomicU64,
    heartbeat_us: AtomicU64,
    heartbeat: Mutex<Option<Waker>>,
    nudges: AtomicU64,
    thread_cpu_us: AtomicU64,
    stalls: AtomicU64,
    stall_max_us: AtomicU64,
    panics: AtomicU64,
    class_cpu_ns: [AtomicU64; CLASS_COUNT],
    class_tasks: [AtomicI64; CLASS_COUNT],
}

/// Counters of one task class.
#[derive(Debug, Clone, Copy)]
pub struct ClassStats {
    /// The class.
    pub class: Class,
    /// Time its tasks have run.
    pub cpu: Duration,
    /// Tasks alive.
    pub tasks: u64,
}

/// A reading of [`ShardStats`].
#[derive(Debug, Clone)]
pub struct StatsSnapshot {
    /// `shard-0`, or `control`.
    pub name: String,
    /// Processor time of the shard's thread.
    pub cpu: Duration,
    /// Polls that ran longer than 50 ms.
    pub stalls: u64,
    /// The longest poll.
    pub stall_max: Duration,
    /// Task panics that were contained.
    pub panics: u64,
    /// How long ago the shard last proved that it is alive (every 100 ms when healthy).
    pub silent_for: Duration,
    /// How often it had to be woken from outside because it slept on.
    pub nudges: u64,
    /// The task that is running right now and for how long.
    pub running: Option<(String, Duration)>,
    /// Per class.
    pub classes: Vec<ClassStats>,
}

impl ShardStats {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// Reads all counters.
    pub fn snapshot(&self) -> StatsSnapshot {
        StatsSnapshot {
            name: self.name.clone(),
            cpu: Duration::from_micros(self.thread_cpu_us.load(Relaxed)),
            stalls: self.stalls.load(Relaxed),
            stall_max: Duration::from_micros(self.stall_max_us.load(Relaxed)),
            panics: self.panics.load(Relaxed),
            silent_for: self.silent_for(),
            nudges: self.nudges.load(Relaxed),
            running: self.running(),
            classes: Class::ALL
                .iter()
                .map(|&class| ClassStats {
                    class,
                    cpu: Duration::from_nanos(self.class_cpu_ns[class as usize].load(Relaxed)),
                    tasks: self.class_tasks[class as usize].load(Relaxed).max(0) as u64,
                })
                .collect(),
        }
    }

    /// The task being polled and for how long it has been.
    pub fn running(&self) -> Option<(String, Duration)> {
        let slot = self.running.load(Relaxed).checked_sub(1)?;
        let since = self.running_since_us.load(Relaxed);
        let name = self.lock_names().slots.get(slot as usize).cloned().flatten()?;
        Some((
            name.to_string(),
            Duration::from_micros(process_micros().saturating_sub(since)),
        ))
    }

    fn lock_names(&self) -> std::sync::MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn task_started(&self, class: Class, name: &str) -> u32 {
        self.class_tasks[class as usize].fetch_add(1, Relaxed);
        let mut names = self.lock_names();
        let slot = names.free.pop().unwrap_or(names.slots.len() as u32);
        if slot as usize == names.slots.len() {
            names.slots.push(None);
        }
        names.slots[slot as usize] = Some(name.into());
        slot
    }

    pub(crate) fn task_ended(&self, class: Class, slot: u32) {
        self.class_tasks[class as usize].fetch_sub(1, Relaxed);
        let mut names = self.lock_names();
        names.slots[slot as usize] = None;
        names.free.push(slot);
    }

    pub(crate) fn poll_begins(&self, slot: u32) {
        self.running_since_us.store(process_micros(), Relaxed);
        self.running.store(slot + 1, Relaxed);
    }

    pub(crate) fn poll_ended(&self, class: Class, took: Duration) {
        self.running.store(0, Relaxed);
        self.class_cpu_ns[class as usize].fetch_add(took.as_nanos() as u64, Relaxed);
        if took > STALL {
            self.stalls.fetch_add(1, Relaxed);
            self.stall_max_us.fetch_max(took.as_micros() as u64, Relaxed);
        }
    }

    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    /// Since the last sign of life; zero before the first one and after the end.
    pub(crate) fn silent_for(&self) -> Duration {
        match self.heartbeat_us.load(Relaxed) {
            0 => Duration::ZERO,
            last => Duration::from_micros(process_micros().saturating_sub(last)),
        }
    }

    /// From here on its silence means nothing.
    pub(crate) fn ended(&self) {
        self.heartbeat_us.store(0, Relaxed);
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The waker of a task of this shard, for [`Self::nudge`].
    pub(crate) fn nudged_by(&self, waker: Waker) {
        *self.heartbeat.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(waker);
    }

    /// Wakes the shard from another thread. The executor learns of that by an event of the kernel even if the task is already due.
    pub(crate) fn nudge(&self) {
        self.nudges.fetch_add(1, Relaxed);
        if let Some(waker) = &*self.heartbeat.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn beat(&self) {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        self.thread_cpu_us
            .store(cpu.tv_sec as u64 * 1_000_000 + cpu.tv_nsec as u64 / 1000, Relaxed);
        self.heartbeat_us.store(process_micros(), Relaxed);
    }
}
