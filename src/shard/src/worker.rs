//! Workers: plain threads that own what blocks, so that no reactor ever does.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam::channel::{Sender, TrySendError, bounded};

use crate::{
    channel::oneshot,
    crash::{Doing, enter, prepare_thread, reports_panics},
    stats::ThreadState,
    task::panic_message,
    time::process_micros,
};

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Why a call to a worker gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum WorkerError {
    #[error("{worker} has {queued} requests waiting already and takes no more; the disk behind it may be too slow")]
    Busy { worker: Arc<str>, queued: usize },
    #[error("{worker} failed inside: {message}")]
    Panicked { worker: Arc<str>, message: String },
    #[error("{worker} has stopped")]
    Gone { worker: Arc<str> },
}

/// A handle to a thread that owns an `S`. Calls run one after another in the order they were made.
pub struct Worker<S> {
    name: Arc<str>,
    jobs: Sender<Job<S>>,
    busy_us_max: Arc<AtomicUsize>,
    progress: Arc<Progress>,
}

/// Where the thread is with its calls.
#[derive(Default)]
struct Progress {
    running: AtomicBool,
    /// When it last began or finished one, in process microseconds.
    at_us: AtomicU64,
    tid: AtomicI32,
    panics: AtomicU64,
}

impl Progress {
    fn note(&self, running: bool) {
        self.at_us.store(process_micros(), Ordering::Relaxed);
        self.running.store(running, Ordering::Relaxed);
    }
}

/// How a worker's thread gets on with what was asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerState {
    /// Calls waiting.
    pub queued: usize,
    /// For how long something has waited or run without any call beginning or ending; zero when there is nothing to do.
    pub stuck_for: Duration,
    /// What the thread does in the kernel, if it is stuck for a second or more and that can be read.
    pub thread: Option<ThreadState>,
    /// Calls that failed inside and were contained.
    pub panics: u64,
}

impl<S> Clone for Worker<S> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            jobs: self.jobs.clone(),
            busy_us_max: self.busy_us_max.clone(),
            progress: self.progress.clone(),
        }
    }
}

impl<S: 'static> Worker<S> {
    /// Starts a thread that owns `state`. It ends, dropping the state, when the last handle is gone.
    /// At most `queue_max` calls wait; one more is refused with [`WorkerError::Busy`].
    pub fn start(name: &str, queue_max: usize, state: S) -> io::Result<(Self, std::thread::JoinHandle<()>)>
    where
        S: Send,
    {
        let (jobs, queue) = bounded::<Job<S>>(queue_max.max(1));
        let busy_us_max = Arc::new(AtomicUsize::new(0));
        let worst = busy_us_max.clone();
        let progress = Arc::new(Progress::default());
        let told = progress.clone();
        let doing = Doing {
            task: name.to_owned(),
            camera: None,
            class: None,
        };
        let thread = std::thread::Builder::new()
            .name(name.chars().take(15).collect())
            .spawn(move || {
                prepare_thread();
                told.tid
                    .store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
                let _doing = enter(&doing);
                let mut state = state;
                for job in queue {
                    told.note(true);
                    let begun = Instant::now();
                    job(&mut state);
                    worst.fetch_max(begun.elapsed().as_micros() as usize, Ordering::Relaxed);
                    told.note(false);
                }
            })?;
        Ok((
            Self {
                name: name.into(),
                jobs,
                busy_us_max,
                progress,
            },
            thread,
        ))
    }

    /// Runs `call` on the worker and waits for its result without blocking the shard.
    /// The call runs even if the waiting future is dropped.
    pub async fn call<R: Send + 'static>(
        &self,
        call: impl FnOnce(&mut S) -> R + Send + 'static,
    ) -> Result<R, WorkerError> {
        let reply = self.submit(call)?;
        reply.await.unwrap_or_else(|| Err(self.gone()))
    }

    /// As [`Self::call`], from a plain thread. Never from a shard: it would stand still.
    pub fn call_blocking<R: Send + 'static>(
        &self,
        call: impl FnOnce(&mut S) -> R + Send + 'static,
    ) -> Result<R, WorkerError> {
        self.submit(call)?.wait().unwrap_or_else(|| Err(self.gone()))
    }

    /// Runs `call` on the worker; nobody waits for it.
    pub fn post(&self, call: impl FnOnce(&mut S) + Send + 'static) -> Result<(), WorkerError> {
        self.submit(call).map(drop)
    }

    /// Calls waiting.
    pub fn queued(&self) -> usize {
        self.jobs.len()
    }

    /// Whether it gets on.
    pub fn state(&self) -> WorkerState {
        const WORTH_A_LOOK: Duration = Duration::from_secs(1);
        let queued = self.jobs.len();
        let busy = queued > 0 || self.progress.running.load(Ordering::Relaxed);
        let since = process_micros().saturating_sub(self.progress.at_us.load(Ordering::Relaxed));
        let stuck_for = if busy {
            Duration::from_micros(since)
        } else {
            Duration::ZERO
        };
        let tid = self.progress.tid.load(Ordering::Relaxed);
        WorkerState {
            queued,
            stuck_for,
            thread: (stuck_for >= WORTH_A_LOOK).then(|| ThreadState::of(tid)).flatten(),
            panics: self.progress.panics.load(Ordering::Relaxed),
        }
    }

    /// The longest call since the last reading.
    pub fn take_longest_call(&self) -> Duration {
        Duration::from_micros(self.busy_us_max.swap(0, Ordering::Relaxed) as u64)
    }

    fn submit<R: Send + 'static>(
        &self,
        call: impl FnOnce(&mut S) -> R + Send + 'static,
    ) -> Result<crate::channel::OneshotReceiver<Result<R, WorkerError>>, WorkerError> {
        let (tx, rx) = oneshot();
        let worker = self.name.clone();
        let progress = self.progress.clone();
        if self.jobs.is_empty() && !progress.running.load(Ordering::Relaxed) {
            // The time to wait begins now, and not when it last had something to do.
            progress.at_us.store(process_micros(), Ordering::Relaxed);
        }
        let job: Job<S> = Box::new(move |state| {
            let result = catch_unwind(AssertUnwindSafe(|| call(state))).map_err(|panic| {
                let message = panic_message(&*panic);
                progress.panics.fetch_add(1, Ordering::Relaxed);
                if !reports_panics() {
                    tracing::error!(%worker, %message, "a call panicked on its worker");
                }
                WorkerError::Panicked { worker, message }
            });
            tx.send(result);
        });
        match self.jobs.try_send(job) {
            Ok(()) => Ok(rx),
            Err(TrySendError::Full(_)) => Err(WorkerError::Busy {
                worker: self.name.clone(),
                queued: self.jobs.len(),
            }),
            Err(TrySendError::Disconnected(_)) => Err(self.gone()),
        }
    }

    fn gone(&self) -> WorkerError {
        WorkerError::Gone {
            worker: self.name.clone(),
        }
    }
}

/// Runs a closure on the executor's small pool of blocking threads: for rare, short file system calls.
pub async fn blocking<R: Send + 'static>(call: impl FnOnce() -> R + Send + 'static) -> Result<R, WorkerError> {
    // A panic would kill a pool thread for good, and the next blocking call would then take the executor down.
    let result = glommio::executor()
        .spawn_blocking(move || {
            prepare_thread();
            catch_unwind(AssertUnwindSafe(call)).map_err(|panic| panic_message(&*panic))
        })
        .await;
    result.map_err(|message| WorkerError::Panicked {
        worker: "blocking pool".into(),
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_control;

    #[test]
    fn a_worker_keeps_its_state_over_a_panic_and_says_when_it_is_full() {
        let (worker, thread) = Worker::start("counter", 1, 0u32).unwrap();
        run_control(async {
            assert_eq!(
                worker
                    .call(|n| {
                        *n += 1;
                        *n
                    })
                    .await,
                Ok(1)
            );
            let failed = worker.call(|_| -> u8 { panic!("no") }).await;
            assert!(matches!(failed, Err(WorkerError::Panicked { .. })));
            assert_eq!(worker.call(|n| *n).await, Ok(1));
            assert_eq!(blocking(|| 7).await, Ok(7));
            assert!(blocking(|| -> u8 { panic!("in the pool") }).await.is_err());
            assert!(blocking(|| -> u8 { panic!("in the pool") }).await.is_err());
            assert_eq!(blocking(|| 8).await, Ok(8));
        })
        .unwrap();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let (begun_tx, begun) = std::sync::mpsc::channel();
        let holding = move |_: &mut u32| {
            begun_tx.send(()).unwrap();
            assert!(held.recv().is_err());
        };
        worker.post(holding).unwrap();
        begun.recv().unwrap();
        std::thread::sleep(Duration::from_millis(1100));
        let stuck = worker.state();
        assert!(stuck.stuck_for >= Duration::from_secs(1) && stuck.panics == 1);
        assert_eq!(stuck.thread.unwrap().state, 'S');
        while worker.post(|_| ()).is_ok() {}
        assert!(matches!(worker.call_blocking(|_| ()), Err(WorkerError::Busy { .. })));
        drop(hold);
        drop(worker);
        thread.join().unwrap();
    }
}
