//! Bounded channels into a shard: from another shard or from a plain thread. Sending never waits; a full channel says so.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use crossbeam::queue::ArrayQueue;
use futures::task::AtomicWaker;

struct Shared<T> {
    queue: ArrayQueue<T>,
    receiver: AtomicWaker,
    senders: AtomicUsize,
    receiver_gone: AtomicBool,
    refused: Arc<AtomicU64>,
}

/// Values that full channels did not take, by the channels' name.
static REFUSED: Mutex<BTreeMap<&'static str, Arc<AtomicU64>>> = Mutex::new(BTreeMap::new());

/// How many values full channels have not taken since the start, by the channels' name. Each is dropped or asked for again by the rule at the
/// channel's limit.
pub fn refused() -> Vec<(&'static str, u64)> {
    let all = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter()
        .map(|(name, count)| (*name, count.load(Ordering::Relaxed)))
        .collect()
}

/// The sending end; clone it freely.
pub struct Sender<T>(Arc<Shared<T>>);

/// The receiving end.
pub struct Receiver<T>(Arc<Shared<T>>);

/// A value that could not be sent.
#[derive(PartialEq, Eq)]
pub enum TrySendError<T> {
    /// The channel holds as many values as it may.
    Full(T),
    /// Nobody receives any more.
    Closed(T),
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Closed(_) => "Closed",
        })
    }
}

/// A channel that holds at most `capacity` values.
pub fn bounded<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    bounded_named("other", capacity)
}

/// As [`bounded`]; what it does not take is counted under this name, see [`refused`].
pub fn bounded_named<T: Send>(name: &'static str, capacity: usize) -> (Sender<T>, Receiver<T>) {
    let refused = REFUSED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(name)
        .or_default()
        .clone();
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity.max(1)),
        receiver: AtomicWaker::new(),
        senders: AtomicUsize::new(1),
        receiver_gone: AtomicBool::new(false),
        refused,
    });
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> Sender<T> {
    /// Sends now or gives the value back.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        if self.is_closed() {
            return Err(TrySendError::Closed(value));
        }
        if let Err(value) = self.0.queue.push(value) {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            return Err(TrySendError::Full(value));
        }
        self.0.receiver.wake();
        Ok(())
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.0.receiver_gone.load(Ordering::Acquire)
    }

    /// Values waiting.
    pub fn len(&self) -> usize {
        self.0.queue.len()
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        self.0.queue.is_empty()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.receiver.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// The next value; `None` when every sender is gone and nothing is left. Cancel safe.
    pub async fn recv(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// [`Self::recv`] for hand-written futures.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(value) = self.0.queue.pop() {
            return Poll::Ready(Some(value));
        }
        self.0.receiver.register(cx.waker());
        // A value may have come between the look and the registration.
        let closed = self.0.senders.load(Ordering::Acquire) == 0;
        match self.0.queue.pop() {
            Some(value) => Poll::Ready(Some(value)),
            None if closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// A value, if one waits.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.queue.pop()
    }

    /// Values waiting.
    pub fn len(&self) -> usize {
        self.0.queue.len()
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        self.0.queue.is_empty()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.receiver_gone.store(true, Ordering::Release);
        while self.0.queue.pop().is_some() {}
    }
}

struct Slot<T> {
    value: Mutex<(Option<T>, bool)>,
    receiver: AtomicWaker,
    ready: std::sync::Condvar,
}

/// Sends one value.
pub struct OneshotSender<T>(Arc<Slot<T>>);

/// Resolves to the value, or to `None` if its sender is dropped first.
pub struct OneshotReceiver<T>(Arc<Slot<T>>);

/// A channel for exactly one value: the reply to a request.
pub fn oneshot<T: Send>() -> (OneshotSender<T>, OneshotReceiver<T>) {
    let slot = Arc::new(Slot {
        value: Mutex::new((None, false)),
        receiver: AtomicWaker::new(),
        ready: std::sync::Condvar::new(),
    });
    (OneshotSender(slot.clone()), OneshotReceiver(slot))
}

impl<T> Slot<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, (Option<T>, bool)> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> OneshotSender<T> {
    /// Delivers the value. If nobody waits for it any more it is dropped.
    pub fn send(self, value: T) {
        self.0.lock().0 = Some(value);
    }
}

impl<T> Drop for OneshotSender<T> {
    fn drop(&mut self) {
        self.0.lock().1 = true;
        self.0.ready.notify_all();
        self.0.receiver.wake();
    }
}

impl<T> OneshotReceiver<T> {
    /// Waits on a plain thread. Never on a shard: it would stand still.
    pub fn wait(self) -> Option<T> {
        let mut guard = self.0.lock();
        while !guard.1 {
            guard = self.0.ready.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        guard.0.take()
    }
}

impl<T> Future for OneshotReceiver<T> {
    type Output = Option<T>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.receiver.register(cx.waker());
        let mut guard = self.0.lock();
        if guard.1 {
            Poll::Ready(guard.0.take())
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_control;

    #[test]
    fn carries_values_from_a_plain_thread_in_order_and_ends() {
        let (tx, mut rx) = bounded(64);
        let thread = std::thread::spawn(move || {
            for i in 0..10_000u32 {
                while let Err(e) = tx.try_send(i) {
                    assert_eq!(e, TrySendError::Full(i));
                    std::thread::yield_now();
                }
            }
        });
        let sum = run_control(async move {
            let mut expected = 0;
            while let Some(value) = rx.recv().await {
                assert_eq!(value, expected);
                expected += 1;
            }
            expected
        })
        .unwrap();
        thread.join().unwrap();
        assert_eq!(sum, 10_000);
    }

    #[test]
    fn a_closed_or_full_channel_gives_the_value_back() {
        let (tx, rx) = bounded_named("test", 1);
        assert!(tx.try_send(1).is_ok());
        assert_eq!(tx.try_send(2), Err(TrySendError::Full(2)));
        drop(rx);
        assert_eq!(tx.try_send(3), Err(TrySendError::Closed(3)));
        // Only what a full one did not take counts.
        assert!(refused().contains(&("test", 1)));
    }

    #[test]
    fn a_dropped_oneshot_sender_is_seen_by_both_kinds_of_waiters() {
        let (tx, rx) = oneshot::<u8>();
        drop(tx);
        assert_eq!(rx.wait(), None);
        let (tx, rx) = oneshot::<u8>();
        std::thread::spawn(move || tx.send(7));
        assert_eq!(run_control(rx).unwrap(), Some(7));
    }
}
