//! Child processes that never outlive their test, ports, and waiting.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

/// A child process which is killed when dropped.
pub struct Guarded(pub Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A TCP port nobody listens on at the moment, with the next two free as well.
///
/// Tests run as processes side by side, and the daemon's sockets share a port without complaint: the fourth port of each block stays taken
/// for as long as this process lives, so that no other test is given the block. They lie below those the kernel gives to outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const BLOCKS: u16 = 3_000;
    let begin = (std::process::id() % u32::from(BLOCKS)) as u16;
    for _ in 0..BLOCKS {
        let block = (begin + NEXT.fetch_add(7, Ordering::Relaxed)) % BLOCKS;
        let port = FIRST + 4 * block;
        let Ok(mark) = TcpListener::bind(("127.0.0.1", port + 3)) else {
            continue;
        };
        if (port..port + 3).all(|p| TcpListener::bind(("127.0.0.1", p)).is_ok()) {
            std::mem::forget(mark);
            return port;
        }
    }
    panic!("no free block of ports between {FIRST} and {}", FIRST + 4 * BLOCKS);
}

/// Waits until `ready` gives something, at most `limit`; panics with `what` otherwise.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(begun.elapsed() < limit, "{what}: not within {} s", limit.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a command to its end; panics with its output if it fails.
pub fn run(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} failed with {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The binary under test: `$CORENVR`, or the one beside the test's own.
pub fn corenvr() -> PathBuf {
    if let Some(path) = std::env::var_os("CORENVR") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let profile = test
        .ancestors()
        .find(|d| d.ends_with("debug") || d.ends_with("release"))
        .unwrap();
    let path = profile.join("corenvr");
    assert!(
        path.exists(),
        "{} is missing: run `cargo build` first, or tests/run which does",
        path.display()
    );
    path
}
