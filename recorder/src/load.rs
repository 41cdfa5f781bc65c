//! How long a storage directory takes to make footage durable: counted where it is written, read by the metrics.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the classes that durations fall into, in milliseconds. What takes longer is in a class of its own.
pub const BOUNDS_MS: [u64; 12] = [1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// Counters of one storage directory, shared by the shards that write to it.
#[derive(Debug, Default)]
pub struct DiskLoad {
    classes: [AtomicU64; BOUNDS_MS.len() + 1],
    total_us: AtomicU64,
    worst_us: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
}

/// A reading of [`DiskLoad`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskLoadSnapshot {
    /// Writes that became durable, by class of [`BOUNDS_MS`]: each counts once, in the first class that it fits.
    pub classes: [u64; BOUNDS_MS.len() + 1],
    /// Time that they took together.
    pub total: Duration,
    /// Bytes of them.
    pub bytes: u64,
    /// Writes and flushes that failed.
    pub failed: u64,
}

impl DiskLoad {
    /// A write was made durable, or failed.
    pub(crate) fn note(&self, took: Duration, bytes: u64, durable: bool) {
        if !durable {
            self.failed.fetch_add(1, Relaxed);
            return;
        }
        let class = BOUNDS_MS.iter().position(|ms| took <= Duration::from_millis(*ms));
        self.classes[class.unwrap_or(BOUNDS_MS.len())].fetch_add(1, Relaxed);
        self.total_us.fetch_add(took.as_micros() as u64, Relaxed);
        self.worst_us.fetch_max(took.as_micros() as u64, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// The counters now.
    pub fn snapshot(&self) -> DiskLoadSnapshot {
        let mut classes = [0; BOUNDS_MS.len() + 1];
        for (to, from) in classes.iter_mut().zip(&self.classes) {
            *to = from.load(Relaxed);
        }
        DiskLoadSnapshot {
            classes,
            total: Duration::from_micros(self.total_us.load(Relaxed)),
            bytes: self.bytes.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }

    /// The longest write since the last question.
    pub fn take_worst(&self) -> Duration {
        Duration::from_micros(self.worst_us.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_write_falls_into_the_first_class_that_holds_it() {
        let load = DiskLoad::default();
        load.note(Duration::from_micros(300), 4096, true);
        load.note(Duration::from_millis(5), 4096, true);
        load.note(Duration::from_secs(60), 4096, true);
        load.note(Duration::from_secs(60), 4096, false);
        let seen = load.snapshot();
        assert_eq!(
            (seen.classes[0], seen.classes[1], seen.classes[BOUNDS_MS.len()]),
            (1, 1, 1)
        );
        assert_eq!((seen.bytes, seen.failed), (3 * 4096, 1));
        assert_eq!(seen.total, Duration::from_micros(60_005_300));
        assert_eq!(
            (load.take_worst(), load.take_worst()),
            (Duration::from_secs(60), Duration::ZERO)
        );
    }
}
