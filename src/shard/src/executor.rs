//! Starting and stopping the shards: one executor per configured CPU, and the control executor on a thread of its own choosing.

use std::{
    future::Future,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Poll, Waker},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};

use crate::{
    Class, ProbeError,
    crash::{on_thread, prepare_thread},
    probe, spawn,
    stats::{STALL, ShardStats},
    task, time,
};

/// The index of a data shard, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// Which CPUs carry data shards.
#[derive(Debug, Clone)]
pub struct Config {
    /// One shard is pinned to each of these.
    pub cpus: Vec<usize>,
}

/// Why the shards cannot start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StartError {
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("no CPU is configured for the shards: list at least one in [shards] cpus")]
    NoCpus,
    #[error("CPU {cpu} cannot carry a shard: {reason}. Check [shards] cpus against `nproc` and the service's CPU set")]
    Shard { cpu: usize, reason: String },
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// A request to stop, shared by everything that runs.
#[derive(Clone, Default)]
pub struct Stop(Arc<StopState>);

#[derive(Default)]
struct StopState {
    requested: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Stop {
    /// Asks everything to stop. Callable from any thread, more than once.
    pub fn request(&self) {
        self.0.requested.store(true, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.waiting());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether a stop was asked for.
    pub fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::SeqCst)
    }

    /// Waits until a stop is asked for.
    pub async fn requested(&self) {
        std::future::poll_fn(|cx| {
            let mut waiting = self.waiting();
            if self.is_requested() {
                return Poll::Ready(());
            }
            if !waiting.iter().any(|w| w.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.0.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What a shard's main future is given.
#[derive(Clone)]
pub struct ShardContext {
    /// Which shard this is.
    pub id: ShardId,
    /// How many data shards there are.
    pub count: u16,
    /// The CPU it is pinned to.
    pub cpu: usize,
    /// Resolves when the shard is to wind down and return.
    pub stop: Stop,
}

/// The running shards.
pub struct Shards {
    threads: Vec<JoinHandle<()>>,
    stats: Vec<Arc<ShardStats>>,
    stop: Stop,
    _watching: Watching,
}

impl Shards {
    /// The request that stops them.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Counters by shard.
    pub fn stats(&self) -> Vec<Arc<ShardStats>> {
        self.stats.clone()
    }

    /// Requests the stop and waits until every shard's main future has returned, at most `limit`. False if one did not make it.
    pub fn join(mut self, limit: Duration) -> bool {
        self.stop.request();
        let deadline = Instant::now() + limit;
        for thread in std::mem::take(&mut self.threads) {
            while !thread.is_finished() {
                if Instant::now() > deadline {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            if thread.join().is_err() {
                tracing::error!("a shard's thread panicked");
            }
        }
        true
    }
}

/// Rings of an executor that just ended are freed late by the kernel, so a restart can meet ENOMEM for a moment.
const START_ATTEMPTS: u32 = 10;

fn make(name: &str, placement: &Placement) -> Result<LocalExecutor, String> {
    let mut attempt = 0;
    loop {
        let made = LocalExecutorBuilder::new(placement.clone())
            .name(name)
            .ring_depth(512)
            // The registered buffers count against RLIMIT_MEMLOCK; larger ones are allocated outside the ring and kept in a pool.
            .io_memory(512 << 10)
            .preempt_timer(Duration::from_millis(10))
            .blocking_thread_pool_placement(PoolPlacement::Unbound(2))
            .make();
        match made {
            Ok(executor) => return Ok(executor),
            Err(e) => {
                let message = e.to_string();
                attempt += 1;
                if attempt >= START_ATTEMPTS || !message.to_lowercase().contains("memory") {
                    return Err(message);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// How often a shard proves that it is alive.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// A shard that was silent for this long and runs nothing is woken from outside: the flaw can meet the heartbeat too.
const OVERSLEPT: Duration = Duration::from_millis(400);
/// A shard that stays silent this long in spite of it is reported.
const SILENT: Duration = Duration::from_secs(3);

async fn with_guards<T>(stats: Arc<ShardStats>, main: impl Future<Output = T>) -> T {
    task::install(stats.clone());
    prepare_thread();
    on_thread(stats.name());
    stats.runs_here();
    // The heartbeat also bounds a known flaw of the executor: preempted before it ran anything, it may park although a task could run. It has
    // a timer of its own for that: if what it overslept was the wheel's driver, nothing in the wheel would wake it.
    stats.nudged_by(std::future::poll_fn(|cx| Poll::Ready(cx.waker().clone())).await);
    stats.beat();
    let beating = stats.clone();
    let heartbeat = spawn(Class::Recording, "heartbeat", async move {
        loop {
            beating.beat();
            glommio::timer::sleep(HEARTBEAT).await;
        }
    });
    let timers = spawn(Class::Recording, "timers", time::drive());
    let result = main.await;
    timers.cancel().await;
    heartbeat.cancel().await;
    stats.ended();
    task::uninstall();
    result
}

/// Lets the C allocator reuse the megabyte-sized write buffers instead of mapping, zeroing and unmapping each of them.
fn keep_write_buffers_mapped() {
    // SAFETY: mallopt only sets the allocator's parameters and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
    }
}

/// Starts one pinned executor per CPU, each running `main`; returns when all of them run or the first has failed.
pub fn start<F, Fut>(config: &Config, main: F) -> Result<Shards, StartError>
where
    F: Fn(ShardContext) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    probe()?;
    if config.cpus.is_empty() {
        return Err(StartError::NoCpus);
    }
    keep_write_buffers_mapped();
    let stop = Stop::default();
    let count = config.cpus.len() as u16;
    let (ready_tx, ready_rx) = mpsc::channel::<Result<(), StartError>>();
    let mut threads = Vec::new();
    let mut stats = Vec::new();
    for (index, &cpu) in config.cpus.iter().enumerate() {
        let name = format!("shard-{index}");
        let shard_stats = Arc::new(ShardStats::new(name.clone()));
        stats.push(shard_stats.clone());
        let context = ShardContext {
            id: ShardId(index as u16),
            count,
            cpu,
            stop: stop.clone(),
        };
        let (main, ready) = (main.clone(), ready_tx.clone());
        // The executor is made on its own thread: the library's own `spawn` reports success even when the ring cannot be created.
        threads.push(std::thread::Builder::new().name(name.clone()).spawn(move || {
            match make(&name, &Placement::Fixed(cpu)) {
                Err(reason) => drop(ready.send(Err(StartError::Shard { cpu, reason }))),
                Ok(executor) => executor.run(async move {
                    drop(ready.send(Ok(())));
                    drop(ready);
                    with_guards(shard_stats, main(context)).await;
                }),
            }
        })?);
    }
    drop(ready_tx);
    for _ in 0..count {
        let outcome = ready_rx.recv().unwrap_or_else(|_| {
            Err(StartError::Shard {
                cpu: 0,
                reason: "the thread ended while starting".into(),
            })
        });
        if let Err(error) = outcome {
            stop.request();
            return Err(error);
        }
    }
    let watching = watch(stats.clone())?;
    Ok(Shards {
        threads,
        stats,
        stop,
        _watching: watching,
    })
}

/// Ends the watch when it goes.
struct Watching(Arc<AtomicBool>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Looks at the shards from outside: wakes one that sleeps on, and reports one that is stuck in a task right now, which it could itself only
/// report afterwards.
fn watch(stats: Vec<Arc<ShardStats>>) -> io::Result<Watching> {
    let watching = Watching(Arc::new(AtomicBool::new(true)));
    let goes_on = watching.0.clone();
    std::thread::Builder::new().name("stall-watch".into()).spawn(move || {
        let mut reported = vec![Instant::now(); stats.len()];
        while goes_on.load(Ordering::Relaxed) {
            std::thread::sleep(STALL);
            for (shard, reported) in stats.iter().zip(&mut reported) {
                look_at(shard, reported);
            }
        }
    })?;
    Ok(watching)
}

fn look_at(shard: &ShardStats, reported: &mut Instant) {
    let silent = shard.silent_for();
    let may_report = reported.elapsed() > Duration::from_secs(1);
    match shard.running() {
        Some((task, held)) if held > STALL * 2 => {
            let thread = shard.sample().map(|s| s.to_string());
            if held > STALL * 4 && may_report {
                *reported = Instant::now();
                let (name, thread) = (shard.name(), thread.as_deref());
                tracing::warn!(shard = name, %task, held_ms = held.as_millis() as u64, thread, "shard is stalled in this task");
            }
        }
        None if silent > OVERSLEPT => {
            shard.nudge();
            if silent > SILENT && may_report {
                *reported = Instant::now();
                let thread = shard.sample().map(|s| s.to_string());
                let (name, thread) = (shard.name(), thread.as_deref());
                tracing::warn!(
                    shard = name,
                    silent_ms = silent.as_millis() as u64,
                    thread,
                    "shard does not run"
                );
            }
        }
        _ => {}
    }
}

/// Runs `main` on an executor on the calling thread, not pinned to any CPU: for what is not on the data path.
pub fn run_control<T>(main: impl Future<Output = T>) -> Result<T, StartError> {
    run_control_with(Arc::new(ShardStats::of_control()), main)
}

/// As [`run_control`], with counters that others can read meanwhile; made by [`ShardStats::of_control`].
pub fn run_control_with<T>(stats: Arc<ShardStats>, main: impl Future<Output = T>) -> Result<T, StartError> {
    probe()?;
    let executor = make("control", &Placement::Unbound).map_err(|reason| StartError::Shard { cpu: 0, reason })?;
    let _watching = watch(vec![stats.clone()])?;
    Ok(executor.run(with_guards(stats, main)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn starts_on_every_cpu_contains_panics_and_stops_in_order() {
        let done = Arc::new(AtomicU32::new(0));
        let seen = done.clone();
        let shards = start(&Config { cpus: vec![0, 0] }, move |ctx| {
            let seen = seen.clone();
            async move {
                let failed = spawn(Class::Playback, "victim", async { panic!("contained") }).await;
                assert_eq!(failed.unwrap_err().message, "contained");
                ctx.stop.requested().await;
                seen.fetch_add(1, Ordering::SeqCst);
            }
        })
        .unwrap();
        let stats = shards.stats();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(stats[1].snapshot().panics, 1);
        assert!(stats[0].snapshot().silent_for < Duration::from_secs(5));
        assert!(shards.join(Duration::from_secs(20)));
        assert_eq!(done.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_an_error_in_words() {
        let error = start(&Config { cpus: vec![0, 9999] }, |_| async {})
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("9999") && error.contains("[shards] cpus"), "{error}");
    }

    #[test]
    fn a_timer_fires_while_the_core_is_busy() {
        // With the executor's parking flaw and no heartbeat this hangs: two busy threads preempt the executor all the time.
        let busy = Arc::new(AtomicBool::new(true));
        let burners: Vec<_> = (0..4)
            .map(|_| {
                let busy = busy.clone();
                std::thread::spawn(move || while busy.load(Ordering::Relaxed) {})
            })
            .collect();
        let ticks = run_control(async {
            let mut ticks = 0;
            for _ in 0..50 {
                time::sleep(Duration::from_millis(1)).await;
                spawn(Class::Live, "tick", async {}).await.unwrap();
                ticks += 1;
            }
            ticks
        })
        .unwrap();
        busy.store(false, Ordering::Relaxed);
        for burner in burners {
            burner.join().unwrap();
        }
        assert_eq!(ticks, 50);
    }

    #[test]
    fn a_shard_that_sleeps_on_is_woken_from_outside() {
        // Nothing is due here: neither timers nor events. Only the watch can make the main future look again.
        let stats = Arc::new(ShardStats::new("asleep".into()));
        stats.beat();
        let watched = stats.clone();
        let executor = make("asleep", &Placement::Unbound).unwrap();
        let looks = executor.run(async move {
            watched.nudged_by(std::future::poll_fn(|cx| Poll::Ready(cx.waker().clone())).await);
            let _watching = watch(vec![watched.clone()]).unwrap();
            let mut looks = 0;
            std::future::poll_fn(|_| {
                looks += 1;
                if looks < 5 { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            looks
        });
        assert_eq!(looks, 5);
        assert!(stats.snapshot().nudges >= 4);
    }

    #[test]
    fn a_task_that_does_not_yield_is_counted_and_named() {
        let shards = start(&Config { cpus: vec![0] }, |ctx| async move {
            spawn(Class::Maintenance, "sleeper", async { std::thread::sleep(STALL * 6) })
                .await
                .unwrap();
            ctx.stop.requested().await;
        })
        .unwrap();
        let stats = shards.stats().remove(0);
        let (mut named, mut held) = (false, false);
        for _ in 0..200 {
            named |= stats.running().is_some_and(|(name, _)| name == "sleeper");
            held |= stats
                .snapshot()
                .held
                .is_some_and(|h| h.task.as_deref() == Some("sleeper") && h.thread.is_some());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(named && held);
        let seen = stats.snapshot();
        assert_eq!(seen.stalls, 1);
        assert!(seen.stall_max >= STALL * 6);
        let last = &seen.last_stalls[0];
        assert_eq!((last.task.as_str(), last.class), ("sleeper", Class::Maintenance));
        // The watch looked while it lasted, and saw it sleep.
        let thread = last.thread.as_ref().unwrap();
        assert!(
            thread.state == 'S' && thread.to_string().starts_with("waits"),
            "{thread}"
        );
        assert!(shards.join(Duration::from_secs(20)));
    }
}
