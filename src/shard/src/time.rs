//! Clocks and coarse timers.
//!
//! Deadlines are rounded up to a common grid, so that thousands of sleepers share a few kernel wake-ups.

use std::{
    future::Future,
    pin::pin,
    sync::OnceLock,
    task::Poll,
    time::{Duration, Instant, SystemTime},
};

/// Timers fire on multiples of this, never early and at most this much late.
pub const GRID: Duration = Duration::from_millis(2);

/// A deadline passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// Microseconds since the first use in this process, for atomics that cannot hold an `Instant`. Never 0.
pub(crate) fn process_micros() -> u64 {
    epoch().elapsed().as_micros() as u64 + 1
}

/// UTC as the host knows it, in microseconds since the Unix epoch. It can jump; `Instant` cannot.
pub fn wall_now_micros() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as i64)
}

/// Waits for at least `duration`.
pub async fn sleep(duration: Duration) {
    sleep_until(Instant::now() + duration).await;
}

/// Waits until `deadline` has passed.
pub async fn sleep_until(deadline: Instant) {
    let since = deadline.saturating_duration_since(epoch()).as_micros();
    let grid = GRID.as_micros();
    let rounded = since.div_ceil(grid) * grid;
    let wait = (epoch() + Duration::from_micros(rounded as u64)).saturating_duration_since(Instant::now());
    if !wait.is_zero() {
        glommio::timer::Timer::new(wait).await;
    }
}

/// Runs `future` for at most `duration`; it is dropped when the time is up.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut timer = pin!(sleep(duration));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        timer.as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}
