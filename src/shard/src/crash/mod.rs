//! Crash reports: what a panic or a fatal signal leaves behind, so that its cause can be found from the journal alone.
//!
//! A panic ends its own task (see `task`) and leaves one record in the log: task, class, shard, camera, place in the source, message,
//! call stack. A fatal signal ends the process: `signal` writes what it can to standard error and to a file that was opened ahead,
//! and then lets the signal do what it always does, so that the system's core dump is as good as without us.

mod context;
mod line;
mod signal;
mod stack;

use std::{
    cell::Cell,
    fmt::Write as _,
    os::fd::OwnedFd,
    panic::PanicHookInfo,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

pub use context::TaskName as Name;
pub(crate) use context::{Doing, enter, on_thread};
pub use stack::prepare_thread;

use crate::task::panic_message;

/// Call stacks that panics may print in a row; one more is allowed each [`STACK_INTERVAL`]. Names for addresses are looked up in the
/// program's debug information, which holds the shard for some milliseconds: a camera that provokes panics must not get them for nothing.
const STACKS_IN_A_ROW: u32 = 8;
const STACK_INTERVAL: Duration = Duration::from_secs(60);
/// Frames of a call stack that are printed; what lies further out is the executor's own.
const FRAMES_MAX: usize = 48;
/// Generic functions have names without end.
const NAME_CHARS_MAX: usize = 200;

static REPORTS: AtomicBool = AtomicBool::new(false);
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Reports panics and fatal signals from here on. `program` is printed with every report: name and version.
///
/// To be called once, early, on the main thread. Threads that are started by this crate prepare themselves; others call [`prepare_thread`].
pub fn install(program: &'static str) {
    if REPORTS.swap(true, Relaxed) {
        return;
    }
    std::panic::set_hook(Box::new(report_panic));
    signal::install(program);
    prepare_thread();
}

/// Writes fatal signals into this file as well. It is to be empty, and nobody else is to write to it.
pub fn keep_in(file: OwnedFd) {
    signal::keep_in(file);
}

/// Panics since the start, on any thread, contained ones included.
pub fn panics() -> u64 {
    PANICS.load(Relaxed)
}

/// Whether [`install`] was called: then a panic has been logged before anyone catches it.
pub(crate) fn reports_panics() -> bool {
    REPORTS.load(Relaxed)
}

thread_local! {
    /// Set while this thread reports a panic: a second one inside, from the log or from a `Debug` of ours, is only told in short.
    static REPORTING: Cell<bool> = const { Cell::new(false) };
}

fn report_panic(info: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Relaxed);
    let panic = panic_message(info.payload());
    let at = info
        .location()
        .map_or_else(|| "unknown".to_owned(), ToString::to_string);
    if REPORTING.replace(true) {
        eprintln!("panicked at {at} while reporting a panic: {panic}");
        return;
    }
    let backtrace = may_print_stack().then(call_stack);
    let backtrace = backtrace.as_deref();
    context::with_current(|c| {
        let (shard, task, class, camera) = (c.shard, c.task, c.class, c.camera);
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        tracing::error!(thread, shard, task, class, camera, at, panic, backtrace, "panicked");
    });
    REPORTING.set(false);
}

fn may_print_stack() -> bool {
    static PRINTED: Mutex<(u32, Option<Instant>)> = Mutex::new((0, None));
    let mut printed = PRINTED.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let rested = printed.1.is_none_or(|last| now.duration_since(last) >= STACK_INTERVAL);
    if rested {
        *printed = (0, Some(now));
    }
    printed.0 += 1;
    printed.0 <= STACKS_IN_A_ROW
}

/// The frames between the panic and the executor, one a line: function, file, line. Those of the standard library are left out.
fn call_stack() -> String {
    let mut text = String::new();
    let (mut begun, mut count) = (false, 0);
    backtrace::trace(|frame| {
        let mut goes_on = true;
        backtrace::resolve_frame(frame, |symbol| {
            let name = symbol.name().map_or_else(|| "?".to_owned(), |n| format!("{n:#}"));
            // What lies before is the machinery of panicking.
            let machinery = name.starts_with("core::panicking") || name.contains("rust_begin_unwind");
            begun |= machinery || name.contains("begin_panic");
            let file = symbol.filename().map(|f| f.display().to_string()).unwrap_or_default();
            if !begun || machinery || file.starts_with("/rustc/") || name == "__rust_try" {
                return;
            }
            let name: String = name.chars().take(NAME_CHARS_MAX).collect();
            let _ = match symbol.lineno() {
                Some(line) => writeln!(text, "{count:>3}: {name} at {file}:{line}"),
                None => writeln!(text, "{count:>3}: {name}"),
            };
            count += 1;
            goes_on = count < FRAMES_MAX && !name.contains("run_task_queues");
        });
        goes_on
    });
    if text.is_empty() {
        "not available".clone_into(&mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_stack_begins_where_the_panic_was_and_names_the_source() {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| *STACK.lock().unwrap() = call_stack()));
        static STACK: Mutex<String> = Mutex::new(String::new());
        let caught = std::panic::catch_unwind(|| std::hint::black_box(Option::<u32>::None).expect("nothing here"));
        std::panic::set_hook(before);
        assert!(caught.is_err());
        let stack = STACK.lock().unwrap().clone();
        let first = stack.lines().next().unwrap_or_default();
        assert!(
            first.contains("a_call_stack_begins") && stack.contains("crash/mod.rs:"),
            "{stack}"
        );
    }
}
