//! The runtime: one pinned io_uring executor per core, and what crosses between them.
//!
//! This is the only crate that names the executor library and the only one that may hold `unsafe`. Everything else is written against what
//! is exported here: tasks with a class and a name, coarse timers, sockets, files, HTTP connections, bounded channels between shards and
//! plain threads, workers (plain threads that own what blocks), and what a crash leaves behind.

pub mod channel;
mod clock;
pub mod crash;
mod executor;
pub mod file;
pub mod http;
pub mod net;
mod probe;
mod stats;
mod task;
pub mod time;
pub mod tls;
mod worker;

pub use clock::{ClockState, clock_state};
pub use crash::Name as TaskName;
pub use executor::{Config, ShardContext, ShardId, Shards, StartError, Stop, run_control, run_control_with, start};
pub use probe::{ProbeError, probe};
pub use stats::{ClassStats, Held, ShardStats, Stall, StatsSnapshot, ThreadState};
pub use task::{Class, Task, TaskPanicked, spawn, yield_if_needed};
pub use worker::{Worker, WorkerError, WorkerState, blocking};
