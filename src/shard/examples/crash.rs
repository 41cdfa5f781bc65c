//! Crashes in the way that its argument names: what the tests of crash reports look at from outside.
#![allow(clippy::unwrap_used)]

use std::{io::Write, os::fd::OwnedFd, time::Duration};

use corenvr_shard::{Class, Config, TaskName, Worker, crash, spawn, start};

/// Writes to the log go to standard error, one `key=value` line an event, which is all that the tests need.
struct Log;

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                use std::fmt::Write as _;
                let _ = write!(self.0, "{field}={value:?} ");
            }
        }
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        let _ = writeln!(std::io::stderr(), "LOG {}", fields.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

fn on_a_shard(crash: fn()) {
    let shards = start(&Config { cpus: vec![0] }, move |context| async move {
        let task = spawn(
            Class::Recording,
            TaskName::of_camera(&"front-door", "writer"),
            async move {
                crash();
            },
        );
        let ended = task.await;
        eprintln!("ENDED {ended:?}");
        context.stop.request();
    })
    .unwrap();
    assert!(shards.join(Duration::from_secs(20)));
}

#[inline(never)]
fn read_from_nowhere() {
    // SAFETY: none: the fault is what is wanted.
    let value = unsafe { std::ptr::without_provenance::<u64>(0x40).read_volatile() };
    println!("{value}");
}

#[inline(never)]
#[allow(unconditional_recursion)]
fn without_end(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 512]);
    without_end(depth + 1) + room[1]
}

fn main() {
    tracing::subscriber::set_global_default(Log).unwrap();
    let mut arguments = std::env::args().skip(1);
    let how = arguments.next().unwrap();
    crash::install("corenvr-test 1.2.3");
    if let Some(file) = arguments.next() {
        crash::keep_in(OwnedFd::from(std::fs::File::create(file).unwrap()));
    }
    match how.as_str() {
        "panic" => on_a_shard(|| panic!("wanted")),
        "panic-worker" => {
            let (worker, thread) = Worker::start("archive /data", 4, ()).unwrap();
            let _ = worker.call_blocking(|()| panic!("wanted"));
            drop(worker);
            thread.join().unwrap();
        }
        "panic-thread" => drop(
            std::thread::Builder::new()
                .name("plain".into())
                .spawn(|| panic!("wanted"))
                .unwrap()
                .join(),
        ),
        "segv" => on_a_shard(read_from_nowhere),
        "segv-thread" => drop(std::thread::spawn(read_from_nowhere).join()),
        "overflow" => on_a_shard(|| println!("{}", without_end(0))),
        "abort" => on_a_shard(|| std::process::abort()),
        "wait" => {
            println!("ready");
            std::thread::sleep(Duration::from_secs(60));
        }
        other => panic!("{other}?"),
    }
}
