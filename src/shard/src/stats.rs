//! What a shard is doing, readable from any thread: counters only, no locks on the side that counts.

use std::{
    collections::VecDeque,
    fmt, fs,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::{Duration, SystemTime},
};

use crate::{Class, crash::Doing, task::CLASS_COUNT, time::process_micros};

/// A task that runs longer than this without yielding stalls its shard.
pub const STALL: Duration = Duration::from_millis(50);
/// Stalls that a shard remembers; the oldest is forgotten.
pub const STALLS_KEPT: usize = 8;
/// A shard that has been silent for this long is asked what it does.
const WORTH_A_LOOK: Duration = Duration::from_millis(400);

/// Names of live tasks, by slot, so that another thread can say what a shard is busy with.
#[derive(Default)]
struct Names {
    slots: Vec<Option<Arc<Doing>>>,
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
    /// The kernel's number of the thread; 0 before it runs.
    tid: AtomicI32,
    stalled: Mutex<VecDeque<Stall>>,
    /// What a stalled thread was seen doing, and in the poll that began when.
    sampled: Mutex<Option<(u64, ThreadState)>>,
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

/// A task that held its shard too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    /// The task.
    pub task: String,
    /// The camera it works for, if it is one alone.
    pub camera: Option<String>,
    /// Its class.
    pub class: Class,
    /// For how long.
    pub took: Duration,
    /// When it let go.
    pub at: SystemTime,
    /// What the thread was seen doing meanwhile; only of stalls that took long enough to be seen from outside.
    pub thread: Option<ThreadState>,
}

/// What a shard is held by at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The task that runs; `None` if the executor itself does not go on.
    pub task: Option<String>,
    /// The camera it works for.
    pub camera: Option<String>,
    /// Its class.
    pub class: Option<Class>,
    /// For how long.
    pub held: Duration,
    /// What the thread does in the kernel.
    pub thread: Option<ThreadState>,
}

/// What the kernel tells of a thread without being asked for privileges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadState {
    /// As in `ps`: `R` runs, `S` waits, `D` waits for a disk.
    pub state: char,
    /// The number of the system call it is in.
    pub system_call: Option<u32>,
    /// The kernel's function that it waits in.
    pub wait_channel: Option<String>,
}

impl ThreadState {
    /// Reads what `/proc` has of a thread of this process.
    pub fn of(tid: i32) -> Option<Self> {
        let read = |name| fs::read_to_string(format!("/proc/self/task/{tid}/{name}")).ok();
        // The second field is a name in parentheses which may hold anything.
        let stat = read("stat")?;
        let state = stat.rsplit_once(") ")?.1.chars().next()?;
        let system_call = read("syscall").and_then(|s| s.split(' ').next()?.parse().ok());
        let wait_channel = read("wchan").filter(|w| !w.is_empty() && w != "0");
        Some(Self {
            state,
            system_call,
            wait_channel,
        })
    }

    /// Whether it waits for a disk, which nothing can interrupt.
    pub fn waits_for_disk(&self) -> bool {
        self.state == 'D'
    }

    /// The name of the system call, of those that matter here.
    pub fn system_call_name(&self) -> Option<&'static str> {
        let number = i64::from(self.system_call?);
        let names = [
            (libc::SYS_read, "read"),
            (libc::SYS_write, "write"),
            (libc::SYS_pread64, "pread64"),
            (libc::SYS_pwrite64, "pwrite64"),
            (libc::SYS_fsync, "fsync"),
            (libc::SYS_fdatasync, "fdatasync"),
            (libc::SYS_syncfs, "syncfs"),
            (libc::SYS_fallocate, "fallocate"),
            (libc::SYS_openat, "openat"),
            (libc::SYS_close, "close"),
            (libc::SYS_unlinkat, "unlinkat"),
            (libc::SYS_renameat2, "renameat2"),
            (libc::SYS_statx, "statx"),
            (libc::SYS_futex, "futex"),
            (libc::SYS_nanosleep, "nanosleep"),
            (libc::SYS_clock_nanosleep, "clock_nanosleep"),
            (libc::SYS_io_uring_enter, "io_uring_enter"),
            (libc::SYS_sendto, "sendto"),
            (libc::SYS_recvfrom, "recvfrom"),
            (libc::SYS_munmap, "munmap"),
            (libc::SYS_madvise, "madvise"),
        ];
        names.iter().find(|(n, _)| *n == number).map(|(_, name)| *name)
    }
}

impl fmt::Display for ThreadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            'R' => "computes, or waits for a processor",
            'S' => "waits",
            'D' => "waits for a disk",
            'T' | 't' => "is stopped",
            _ => "is in another state",
        })?;
        match (self.system_call_name(), self.system_call) {
            (Some(name), _) => write!(f, " in {name}")?,
            (None, Some(number)) => write!(f, " in system call {number}")?,
            (None, None) => {}
        }
        match &self.wait_channel {
            Some(channel) => write!(f, " ({channel})"),
            None => Ok(()),
        }
    }
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
    /// The last stalls, oldest first; at most `STALLS_KEPT`.
    pub last_stalls: Vec<Stall>,
    /// What holds the shard, if it has been held for more than 50 ms or is not heard of.
    pub held: Option<Held>,
    /// Per class.
    pub classes: Vec<ClassStats>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ShardStats {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// For the control executor, which is no shard.
    pub fn of_control() -> Self {
        Self::new("control".into())
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
            last_stalls: lock(&self.stalled).iter().cloned().collect(),
            held: self.held(),
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
        let (doing, held) = self.doing()?;
        Some((doing.task.clone(), held))
    }

    fn doing(&self) -> Option<(Arc<Doing>, Duration)> {
        let slot = self.running.load(Relaxed).checked_sub(1)?;
        let since = self.running_since_us.load(Relaxed);
        let doing = self.lock_names().slots.get(slot as usize).cloned().flatten()?;
        Some((doing, Duration::from_micros(process_micros().saturating_sub(since))))
    }

    fn held(&self) -> Option<Held> {
        let silent = self.silent_for();
        let thread = || ThreadState::of(self.tid.load(Relaxed));
        match self.doing() {
            Some((doing, held)) if held > STALL => Some(Held {
                task: Some(doing.task.clone()),
                camera: doing.camera.as_deref().map(str::to_owned),
                class: doing.class,
                held,
                thread: thread(),
            }),
            None if silent > WORTH_A_LOOK => Some(Held {
                task: None,
                camera: None,
                class: None,
                held: silent,
                thread: thread(),
            }),
            _ => None,
        }
    }

    fn lock_names(&self) -> MutexGuard<'_, Names> {
        lock(&self.names)
    }

    /// The calling thread is the shard's own.
    pub(crate) fn runs_here(&self) {
        self.tid.store(rustix::thread::gettid().as_raw_nonzero().get(), Relaxed);
    }

    /// Looks from another thread at what this one does, and remembers it for the stall that this becomes.
    pub(crate) fn sample(&self) -> Option<ThreadState> {
        let since = self.running_since_us.load(Relaxed);
        let state = ThreadState::of(self.tid.load(Relaxed))?;
        *lock(&self.sampled) = Some((since, state.clone()));
        Some(state)
    }

    pub(crate) fn task_started(&self, class: Class, doing: Arc<Doing>) -> u32 {
        self.class_tasks[class as usize].fetch_add(1, Relaxed);
        let mut names = self.lock_names();
        let slot = names.free.pop().unwrap_or(names.slots.len() as u32);
        if slot as usize == names.slots.len() {
            names.slots.push(None);
        }
        names.slots[slot as usize] = Some(doing);
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

    pub(crate) fn poll_ended(&self, doing: &Doing, class: Class, took: Duration) {
        self.running.store(0, Relaxed);
        self.class_cpu_ns[class as usize].fetch_add(took.as_nanos() as u64, Relaxed);
        if took > STALL {
            self.stalls.fetch_add(1, Relaxed);
            self.stall_max_us.fetch_max(took.as_micros() as u64, Relaxed);
            self.remember(doing, class, took);
        }
    }

    fn remember(&self, doing: &Doing, class: Class, took: Duration) {
        let since = self.running_since_us.load(Relaxed);
        let sampled = lock(&self.sampled).take().filter(|(poll, _)| *poll == since);
        let mut stalled = lock(&self.stalled);
        if stalled.len() >= STALLS_KEPT {
            stalled.pop_front();
        }
        stalled.push_back(Stall {
            task: doing.task.clone(),
            camera: doing.camera.as_deref().map(str::to_owned),
            class,
            took,
            at: SystemTime::now(),
            thread: sampled.map(|(_, state)| state),
        });
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
        *lock(&self.heartbeat) = Some(waker);
    }

    /// Wakes the shard from another thread. The executor learns of that by an event of the kernel even if the task is already due.
    pub(crate) fn nudge(&self) {
        self.nudges.fetch_add(1, Relaxed);
        if let Some(waker) = &*lock(&self.heartbeat) {
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
