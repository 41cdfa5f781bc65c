//! Where publishers and the cameras they push for meet: keys that are waited for, connections on their way to a camera's shard, and who
//! was refused. The connections' first steps are in `listen`.

mod listen;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::BytesMut;
use corenvr_media::{CameraName, WallTime};
use corenvr_proto::rtmp::{
    StreamKey, masked_key,
    server::{PublishRequest, Server},
};
use corenvr_shard::{
    Class,
    channel::{Receiver, Sender, TrySendError, bounded_named},
    net::DetachedStream,
    spawn,
};
use serde::{Deserialize, Serialize};

pub use listen::{HALF_OPEN_MAX, HALF_OPEN_PER_ADDRESS_MAX, ListenError, Listeners, REFUSAL_DELAY};

use crate::camera::wall_now;

/// Rows of the table of refused publishers. At this limit a new one replaces the one that was refused longest ago.
pub const REFUSED_MAX: usize = 64;
/// Publishers that may wait for one camera's task. One more is refused.
const ARRIVALS_MAX: usize = 4;
/// Characters of an application that are kept.
const APP_MAX: usize = 64;

/// The publishers of all cameras. Cloning is cheap; a lock is taken once per connection, never per message.
#[derive(Clone, Default)]
pub struct Publishers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    listening: Mutex<Vec<SocketAddr>>,
    /// By SHA-256 of the key, so that looking one up takes as long for a good guess as for a bad one.
    expected: Mutex<HashMap<[u8; 32], Expected>>,
    refused: Mutex<VecDeque<RefusedPublisher>>,
}

struct Expected {
    camera: CameraName,
    arrivals: Sender<Publisher>,
}

/// Someone who wanted to publish and was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPublisher {
    /// From where.
    pub address: IpAddr,
    /// The application asked for.
    pub app: String,
    /// The key offered, all but its first characters hidden.
    pub key: String,
    /// Why, with the remedy.
    pub reason: String,
    /// When for the first time.
    pub first: WallTime,
    /// When last.
    pub last: WallTime,
    /// How often.
    pub count: u64,
}

/// A connection whose publisher waits to be accepted.
pub(crate) struct Publisher {
    pub stream: DetachedStream,
    pub server: Box<Server>,
    /// What was read and not yet taken.
    pub input: BytesMut,
    pub address: SocketAddr,
    pub request: PublishRequest,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Publishers {
    /// Without listeners and cameras.
    pub fn new() -> Self {
        Self::default()
    }

    /// The addresses that are listened on.
    pub fn listening(&self) -> Vec<SocketAddr> {
        lock(&self.0.listening).clone()
    }

    /// Who was refused, the latest first.
    pub fn refused(&self) -> Vec<RefusedPublisher> {
        let mut list: Vec<_> = lock(&self.0.refused).iter().cloned().collect();
        list.sort_by_key(|r| std::cmp::Reverse(r.last));
        list
    }

    /// Waits for publishers with this key from now on, on behalf of a camera. `Err` with the camera that does so already.
    pub(crate) fn register(&self, key: &StreamKey, camera: &CameraName) -> Result<Registration, CameraName> {
        let (arrivals, receiver) = bounded_named("rtmp-publishers", ARRIVALS_MAX);
        let mut expected = lock(&self.0.expected);
        if let Some(other) = expected.get(key.digest()) {
            return Err(other.camera.clone());
        }
        let camera = camera.clone();
        expected.insert(*key.digest(), Expected { camera, arrivals });
        Ok(Registration {
            publishers: self.clone(),
            digest: *key.digest(),
            receiver: RefCell::new(receiver),
            next: RefCell::new(None),
        })
    }

    /// Where a publisher is waited for.
    fn expected(&self, key: &str) -> Option<Sender<Publisher>> {
        let expected = lock(&self.0.expected);
        expected.get(&StreamKey::digest_of(key)).map(|e| e.arrivals.clone())
    }

    fn note_refused(&self, address: SocketAddr, request: &PublishRequest, reason: &str) {
        let address = address.ip().to_canonical();
        let app: String = request.app.chars().filter(|c| !c.is_control()).take(APP_MAX).collect();
        let key = masked_key(&request.key);
        let now = wall_now();
        let mut refused = lock(&self.0.refused);
        let known = refused
            .iter_mut()
            .find(|r| r.address == address && r.app == app && r.key == key && r.reason == reason);
        if let Some(known) = known {
            known.last = now;
            known.count += 1;
            return;
        }
        tracing::warn!(%address, app, key, reason, "a publisher was refused");
        if refused.len() >= REFUSED_MAX
            && let Some(oldest) = (0..refused.len()).min_by_key(|&i| refused[i].last)
        {
            refused.remove(oldest);
        }
        refused.push_back(RefusedPublisher {
            address,
            app,
            key,
            reason: reason.to_owned(),
            first: now,
            last: now,
            count: 1,
        });
    }
}

/// A camera's place among those that wait for a publisher; given up when dropped. It stays on its shard.
pub(crate) struct Registration {
    publishers: Publishers,
    digest: [u8; 32],
    receiver: RefCell<Receiver<Publisher>>,
    /// One that was taken and comes first again.
    next: RefCell<Option<Publisher>>,
}

impl Registration {
    /// The next publisher.
    pub fn poll_arrival(&self, cx: &mut Context<'_>) -> Poll<Publisher> {
        if let Some(publisher) = self.next.take() {
            return Poll::Ready(publisher);
        }
        match self.receiver.borrow_mut().poll_recv(cx) {
            Poll::Ready(Some(publisher)) => Poll::Ready(publisher),
            // The sending end lives in the table as long as this.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// The next [`Self::poll_arrival`] gives this one.
    pub fn put_back(&self, publisher: Publisher) {
        *self.next.borrow_mut() = Some(publisher);
    }

    /// Sends a publisher away, and notes it.
    pub fn refuse(&self, publisher: Publisher, reason: &'static str) {
        self.publishers
            .note_refused(publisher.address, &publisher.request, reason);
        spawn(Class::Live, "rtmp refusal", async move {
            if let Ok(stream) = publisher.stream.attach() {
                listen::send_away(stream, *publisher.server, reason).await;
            }
        })
        .detach();
    }

    /// What is waited for, in words. `last`: why the session before ended.
    pub fn waiting_for(&self, last: Option<&str>) -> String {
        let port = self.publishers.listening().first().map_or(0, SocketAddr::port);
        let url = format!("rtmp://THIS-HOST:{port}/live/KEY, with the key of its URL");
        match last {
            None => format!("waiting for a publisher at {url}"),
            Some(last) => format!("waiting for a publisher at {url}; the last session: {last}"),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.publishers.0.expected).remove(&self.digest);
    }
}

/// Gives a publisher to its camera's shard; it comes back if nobody takes it.
fn hand_over(arrivals: &Sender<Publisher>, publisher: Publisher) -> Result<(), Box<Publisher>> {
    arrivals.try_send(publisher).map_err(|e| match e {
        TrySendError::Full(publisher) | TrySendError::Closed(publisher) => Box::new(publisher),
    })
}
