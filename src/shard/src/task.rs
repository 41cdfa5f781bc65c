//! Tasks: every one has a class, which decides its right to run, and a name, which the stall detector and the log use.
//!
//! A panic ends its own task and nothing else: it is caught, logged with the task's name, counted, and handed to whoever awaits the task.

use std::{
    any::Any,
    cell::RefCell,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use glommio::{Latency, Shares, TaskQueueHandle};

use crate::{
    crash::{Doing, Name, enter, reports_panics},
    stats::{STALL, ShardStats},
};

/// Which tasks go first when a shard has more to do than time, in descending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Cameras: receive, assemble, write. Nothing may delay it.
    Recording,
    /// Viewers of the present.
    Live,
    /// Viewers of the past; slows down before recording loses a frame.
    Playback,
    /// Retention, checks, exports.
    Maintenance,
}

pub(crate) const CLASS_COUNT: usize = 4;

impl Class {
    /// All classes in order of right.
    pub const ALL: [Self; CLASS_COUNT] = [Self::Recording, Self::Live, Self::Playback, Self::Maintenance];

    /// As status and metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Live => "live",
            Self::Playback => "playback",
            Self::Maintenance => "maintenance",
        }
    }
}

/// A task ended by a panic; the text is the panic's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task {task} panicked: {message}")]
pub struct TaskPanicked {
    /// The task's name.
    pub task: String,
    /// The panic's message.
    pub message: String,
}

/// A running task. Dropping it cancels the task; awaiting it gives its result.
#[must_use = "dropping a task cancels it: await it, keep it, or detach it"]
pub struct Task<T>(glommio::Task<Result<T, TaskPanicked>>);

impl<T> Task<T> {
    /// Lets the task run on its own.
    pub fn detach(self) {
        self.0.detach();
    }

    /// Cancels the task and waits until it is gone.
    pub async fn cancel(self) {
        self.0.cancel().await;
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskPanicked>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

struct Local {
    queues: [TaskQueueHandle; CLASS_COUNT],
    stats: Arc<ShardStats>,
}

thread_local! {
    static LOCAL: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
}

/// Makes the class queues of the executor that runs on this thread.
pub(crate) fn install(stats: Arc<ShardStats>) {
    let queue = |shares, latency, class: Class| {
        glommio::executor().create_task_queue(Shares::Static(shares), latency, class.name())
    };
    let queues = [
        queue(1000, Latency::Matters(Duration::from_millis(2)), Class::Recording),
        queue(500, Latency::Matters(Duration::from_millis(5)), Class::Live),
        queue(200, Latency::Matters(Duration::from_millis(10)), Class::Playback),
        queue(50, Latency::NotImportant, Class::Maintenance),
    ];
    LOCAL.with(|l| *l.borrow_mut() = Some(Rc::new(Local { queues, stats })));
}

pub(crate) fn uninstall() {
    LOCAL.with(|l| l.borrow_mut().take());
}

/// Starts a task on this shard. A name that is a plain text inherits the camera of the task that spawns it.
///
/// # Panics
/// On a thread that is not a shard: a programming error.
pub fn spawn<T: 'static>(class: Class, name: impl Into<Name>, future: impl Future<Output = T> + 'static) -> Task<T> {
    let local = LOCAL
        .with(|l| l.borrow().clone())
        .expect("tasks are spawned on a shard's own thread only");
    let doing = Arc::new(name.into().into_doing(class));
    let slot = local.stats.task_started(class, doing.clone());
    let guarded = Guarded {
        future: Some(Box::pin(future)),
        doing,
        class,
        slot,
        stats: local.stats.clone(),
    };
    let task = glommio::spawn_local_into(guarded, local.queues[class as usize])
        .expect("the class queues live as long as their executor");
    Task(task)
}

/// Gives other tasks their turn if this one has used up its share. Cheap when it has not.
pub async fn yield_if_needed() {
    glommio::executor().yield_if_needed().await;
}

/// Catches panics, measures each poll and tells the stall detector who is running.
struct Guarded<F> {
    /// There until it is dropped.
    future: Option<Pin<Box<F>>>,
    doing: Arc<Doing>,
    class: Class,
    slot: u32,
    stats: Arc<ShardStats>,
}

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, TaskPanicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let future = this
            .future
            .as_mut()
            .expect("a task that is polled has not been dropped");
        this.stats.poll_begins(this.slot);
        let begun = Instant::now();
        let result = {
            let _doing = enter(&this.doing);
            catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))
        };
        let took = begun.elapsed();
        this.stats.poll_ended(&this.doing, this.class, took);
        if took > STALL {
            let (task, camera) = (&*this.doing.task, this.doing.camera.as_deref());
            let (shard, class) = (this.stats.name(), this.class.name());
            tracing::warn!(
                shard,
                task,
                class,
                camera,
                took_ms = took.as_millis() as u64,
                "task held its shard without yielding"
            );
        }
        match result {
            Ok(poll) => poll.map(Ok),
            Err(panic) => {
                this.stats.panicked();
                let message = panic_message(&*panic);
                if !reports_panics() {
                    tracing::error!(task = %this.doing.task, %message, "task panicked; the others go on");
                }
                Poll::Ready(Err(TaskPanicked {
                    task: this.doing.task.clone(),
                    message,
                }))
            }
        }
    }
}

impl<F> Drop for Guarded<F> {
    fn drop(&mut self) {
        {
            let _doing = enter(&self.doing);
            self.future = None;
        }
        self.stats.task_ended(self.class, self.slot);
    }
}

pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no message)".to_owned())
}
