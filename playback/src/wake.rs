//! Waiting for something that another task of the same shard does.

use std::{
    cell::{Cell, RefCell},
    task::{Context, Poll, Waker},
};

/// Tasks that wait. Whoever changes what they wait for calls [`Self::wake`]; they look again.
#[derive(Default)]
pub struct Wakers(RefCell<Vec<Waker>>);

impl Wakers {
    /// Remembers the task until the next [`Self::wake`].
    pub fn register(&self, cx: &Context<'_>) {
        let mut list = self.0.borrow_mut();
        if !list.iter().any(|w| w.will_wake(cx.waker())) {
            list.push(cx.waker().clone());
        }
    }

    /// Wakes every task that waits.
    pub fn wake(&self) {
        let list = std::mem::take(&mut *self.0.borrow_mut());
        list.into_iter().for_each(Waker::wake);
    }

    /// Waits until `look` returns something.
    pub async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        std::future::poll_fn(|cx| match look() {
            Some(value) => Poll::Ready(value),
            None => {
                self.register(cx);
                Poll::Pending
            }
        })
        .await
    }
}

/// Something that happens once.
#[derive(Default)]
pub struct Flag {
    set: Cell<bool>,
    wakers: Wakers,
}

impl Flag {
    /// It happens.
    pub fn set(&self) {
        self.set.set(true);
        self.wakers.wake();
    }

    /// Waits until it has happened.
    pub async fn wait(&self) {
        self.wakers.until(|| self.set.get().then_some(())).await;
    }
}

/// Runs `future` unless `flag` is set first.
pub async fn unless<T>(flag: &Flag, future: impl Future<Output = T>) -> Option<T> {
    use futures::future::{Either, select};
    match select(std::pin::pin!(flag.wait()), std::pin::pin!(future)).await {
        Either::Left(_) => None,
        Either::Right((value, _)) => Some(value),
    }
}
