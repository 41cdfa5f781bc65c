//! Clocks and coarse timers.
//!
//! Deadlines are rounded up to a common grid, so that thousands of sleepers share a few kernel wake-ups.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    sync::OnceLock,
    task::{Context, Poll, Waker},
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
    if deadline > Instant::now() {
        Sleep::new(deadline).await;
    }
}

/// Multiples of [`GRID`] since the process's first use of a clock, rounded up.
fn tick_of(deadline: Instant) -> u64 {
    let since = deadline.saturating_duration_since(epoch()).as_micros() as u64;
    since.div_ceil(GRID.as_micros() as u64)
}

/// One sleeper, known to the shard's wheel and to its future.
struct Sleeper {
    fired: Cell<bool>,
    waker: RefCell<Waker>,
}

/// The sleepers of a shard, in order of their deadlines.
///
/// The executor's own timers are walked through one by one whenever it looks at the clock, which with the time-outs of some hundred cameras
/// costs more than the cameras. It is therefore given a single timer, that of [`drive`].
#[derive(Default)]
struct Wheel {
    sleepers: BTreeMap<(u64, u64), Rc<Sleeper>>,
    id_next: u64,
    /// The tick that the driver waits for, and how to tell it of an earlier one.
    armed: Option<(u64, Waker)>,
}

thread_local! {
    static WHEEL: RefCell<Wheel> = RefCell::default();
}

struct Sleep {
    tick: u64,
    entry: Option<(u64, Rc<Sleeper>)>,
}

impl Sleep {
    fn new(deadline: Instant) -> Self {
        Self {
            tick: tick_of(deadline),
            entry: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some((_, sleeper)) = &self.entry {
            if sleeper.fired.get() {
                self.entry = None;
                return Poll::Ready(());
            }
            sleeper.waker.borrow_mut().clone_from(cx.waker());
            return Poll::Pending;
        }
        let sleeper = Rc::new(Sleeper {
            fired: Cell::new(false),
            waker: RefCell::new(cx.waker().clone()),
        });
        let tick = self.tick;
        let id = WHEEL.with_borrow_mut(|wheel| {
            wheel.id_next += 1;
            wheel.sleepers.insert((tick, wheel.id_next), sleeper.clone());
            if let Some((armed, driver)) = &wheel.armed
                && tick < *armed
            {
                driver.wake_by_ref();
            }
            wheel.id_next
        });
        self.entry = Some((id, sleeper));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((id, _)) = self.entry.take() {
            // At the end of a thread the wheel may be gone already.
            let _ = WHEEL.try_with(|wheel| wheel.borrow_mut().sleepers.remove(&(self.tick, id)));
        }
    }
}

/// Wakes the sleepers of this shard; runs as one of its tasks for as long as the shard does.
pub(crate) async fn drive() {
    loop {
        let now = epoch().elapsed().as_micros() as u64 / GRID.as_micros() as u64;
        let due = WHEEL.with_borrow_mut(|wheel| {
            let later = wheel.sleepers.split_off(&(now + 1, 0));
            std::mem::replace(&mut wheel.sleepers, later)
        });
        // Outside the borrow: what a waker keeps alive may hold sleepers of its own.
        for sleeper in due.into_values() {
            sleeper.fired.set(true);
            sleeper.waker.borrow().wake_by_ref();
        }
        wait_for_next().await;
    }
}

/// Waits for the earliest deadline, or until there is an earlier one.
async fn wait_for_next() {
    let mut timer: Option<(u64, glommio::timer::Timer)> = None;
    std::future::poll_fn(|cx| {
        let first = WHEEL.with_borrow_mut(|wheel| {
            let first = wheel.sleepers.first_key_value().map_or(u64::MAX, |(key, _)| key.0);
            wheel.armed = Some((first, cx.waker().clone()));
            first
        });
        if first == u64::MAX {
            timer = None;
            return Poll::Pending;
        }
        if timer.as_ref().is_none_or(|(tick, _)| *tick != first) {
            let due = epoch() + Duration::from_micros(first * GRID.as_micros() as u64);
            timer = Some((
                first,
                glommio::timer::Timer::new(due.saturating_duration_since(Instant::now())),
            ));
        }
        match &mut timer {
            Some((_, timer)) => Pin::new(timer).poll(cx).map(|_| ()),
            None => Poll::Pending,
        }
    })
    .await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Class, run_control, spawn};

    #[test]
    fn sleepers_wake_in_order_never_early_and_dropped_ones_are_forgotten() {
        run_control(async {
            let begun = Instant::now();
            let tasks: Vec<_> = (0..300u64)
                .map(|i| {
                    let wait = Duration::from_millis(i * 37 % 101);
                    spawn(Class::Live, "sleeper", async move {
                        sleep(wait).await;
                        assert!(begun.elapsed() >= wait);
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            // An earlier deadline than the one the driver waits for, and a later one that is dropped.
            let quick = timeout(Duration::from_secs(30), sleep(Duration::from_millis(5))).await;
            assert_eq!(quick, Ok(()));
            assert_eq!(
                timeout(Duration::from_millis(5), sleep(Duration::from_secs(30))).await,
                Err(Elapsed)
            );
            assert!(begun.elapsed() < Duration::from_secs(20));
            let left = WHEEL.with_borrow(|wheel| wheel.sleepers.len());
            assert!(left <= 1, "{left} sleepers are left; the heartbeat is one");
        })
        .unwrap();
    }
}
