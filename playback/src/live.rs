//! The live edge on this shard: one subscription per camera, fanned out to every viewer here.
//!
//! The owner of a camera sends each frame once to each subscribing shard. Here it goes into a ring, from which a new viewer starts at the
//! last key frame, and into the queue of every viewer. A viewer whose queue is full loses what is in it and goes on at the next key frame.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use corenvr_media::{CameraName, CodecParameters, Frame, WallTime};
use corenvr_shard::{
    Class, TaskName,
    channel::{Receiver, Sender, bounded_named},
    spawn, time,
};
use corenvr_store::live::{LiveItem, LiveSink, LiveStart, LiveTail, Subscribe, TailLimits};

use crate::wake::Wakers;

/// Carries a subscription to the shard that owns the camera. Must return at once.
pub type LiveRouter = Arc<dyn Fn(Subscribe) -> Result<(), RouteError> + Send + Sync>;

/// A subscription did not reach its camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No camera has that name.
    #[error("no camera has that name")]
    NoSuchCamera,
    /// The owner's inbox is full.
    #[error("the shard that owns the camera is overloaded")]
    Busy,
}

/// A live stream cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    /// No camera has that name.
    #[error("there is no camera of that name")]
    NoSuchCamera,
    /// The camera has sent nothing since it was subscribed to.
    #[error("the camera is not sending")]
    Silent,
    /// The owner takes no subscription now.
    #[error("the camera's shard is overloaded")]
    Busy,
}

/// Messages between shards that may wait for this one; with more, the owner drops the subscription, and it is renewed with a gap.
const MESSAGES_MAX: usize = 2048;
/// Frames that may wait for one viewer.
const QUEUE_FRAMES_MAX: usize = 2048;
/// Payload bytes that may wait for one viewer. The payloads are shared with the ring, so a slow viewer keeps them from being freed.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// How long a subscription stays when its last viewer has left.
const LINGER: Duration = Duration::from_secs(10);
/// How long a new viewer waits for the camera.
const START_WAIT: Duration = Duration::from_secs(5);
/// Before a lost subscription is renewed.
const RENEW_PAUSE: Duration = Duration::from_millis(500);

/// All live cameras of this shard.
pub struct LiveHub {
    router: LiveRouter,
    channels: RefCell<HashMap<CameraName, Rc<Channel>>>,
}

struct Channel {
    camera: CameraName,
    state: RefCell<State>,
    started: Wakers,
}

struct State {
    /// `None` until the camera has sent its parameters.
    tail: Option<LiveTail>,
    viewers: Vec<Weak<Queue>>,
    failed: Option<RouteError>,
}

/// One viewer.
pub struct Viewer {
    queue: Rc<Queue>,
    /// The tracks at the beginning.
    pub parameters: Arc<[CodecParameters]>,
    /// Frames from a key frame up to now; what [`Self::next`] gives continues them.
    pub backlog: Vec<Frame>,
}

#[derive(Default)]
struct Queue {
    items: RefCell<VecDeque<LiveItem>>,
    bytes: Cell<usize>,
    /// Frames are passed over until the next key frame.
    behind: Cell<bool>,
    skipped: Cell<u64>,
    wakers: Wakers,
}

enum Message {
    Start(LiveStart),
    Item(LiveItem),
}

struct Sink(Sender<Message>);

impl LiveSink for Sink {
    fn start(&mut self, start: LiveStart) -> bool {
        self.0.try_send(Message::Start(start)).is_ok()
    }

    fn send(&mut self, item: LiveItem) -> bool {
        self.0.try_send(Message::Item(item)).is_ok()
    }
}

impl LiveHub {
    /// Subscribes through `router`.
    pub fn new(router: LiveRouter) -> Rc<Self> {
        Rc::new(Self {
            router,
            channels: RefCell::default(),
        })
    }

    /// The tracks of a camera, as soon as it sends.
    pub async fn describe(self: &Rc<Self>, camera: &CameraName) -> Result<Arc<[CodecParameters]>, LiveError> {
        let channel = self.channel(camera)?;
        channel.ready().await?;
        let state = channel.state.borrow();
        state
            .tail
            .as_ref()
            .map(|t| t.parameters().clone())
            .ok_or(LiveError::Silent)
    }

    /// A viewer that starts at the newest key frame, or at the last one at or before `from` as far as the ring reaches.
    pub async fn view(self: &Rc<Self>, camera: &CameraName, from: Option<WallTime>) -> Result<Viewer, LiveError> {
        let channel = self.channel(camera)?;
        channel.ready().await?;
        let mut state = channel.state.borrow_mut();
        let tail = state.tail.as_ref().ok_or(LiveError::Silent)?;
        let viewer = Viewer {
            queue: Rc::default(),
            parameters: tail.parameters().clone(),
            backlog: from.map_or_else(|| tail.newest(), |t| tail.since(t)),
        };
        viewer.queue.behind.set(viewer.backlog.is_empty());
        state.viewers.push(Rc::downgrade(&viewer.queue));
        Ok(viewer)
    }

    fn channel(self: &Rc<Self>, camera: &CameraName) -> Result<Rc<Channel>, LiveError> {
        if let Some(channel) = self.channels.borrow().get(camera) {
            return Ok(channel.clone());
        }
        let messages = self.subscribe(camera).map_err(LiveError::from)?;
        let channel = Rc::new(Channel {
            camera: camera.clone(),
            state: RefCell::new(State {
                tail: None,
                viewers: Vec::new(),
                failed: None,
            }),
            started: Wakers::default(),
        });
        self.channels.borrow_mut().insert(camera.clone(), channel.clone());
        let (hub, task_channel) = (self.clone(), channel.clone());
        spawn(Class::Live, TaskName::of_camera(camera, "live"), async move {
            hub.run(&task_channel, messages).await;
            hub.channels.borrow_mut().remove(&task_channel.camera);
        })
        .detach();
        Ok(channel)
    }

    fn subscribe(&self, camera: &CameraName) -> Result<Receiver<Message>, RouteError> {
        let (sender, receiver) = bounded_named("live", MESSAGES_MAX);
        (self.router)(Subscribe {
            camera: camera.clone(),
            // All that the owner has, so that playback from the archive can join without a hole.
            from: Some(WallTime::MIN),
            sink: Box::new(Sink(sender)),
        })?;
        Ok(receiver)
    }

    /// Moves messages until nobody watches any more or the camera is gone.
    async fn run(&self, channel: &Channel, mut messages: Receiver<Message>) {
        let mut idle_since: Option<std::time::Instant> = None;
        loop {
            match time::timeout(LINGER / 2, messages.recv()).await {
                Ok(Some(Message::Start(start))) => channel.start(start),
                // Nothing before the end: the owner does not know the camera.
                Ok(Some(Message::Item(LiveItem::End))) if channel.state.borrow().tail.is_none() => {
                    return channel.fail(RouteError::NoSuchCamera);
                }
                Ok(Some(Message::Item(LiveItem::End))) => return channel.fan_out(&LiveItem::End),
                Ok(Some(Message::Item(item))) => channel.item(&item),
                Ok(None) => {
                    time::sleep(RENEW_PAUSE).await;
                    match self.subscribe(&channel.camera) {
                        Ok(renewed) => messages = renewed,
                        Err(RouteError::Busy) => {}
                        Err(e @ RouteError::NoSuchCamera) => return channel.fail(e),
                    }
                }
                Err(time::Elapsed) => {}
            }
            // Looked at only now and then while frames come: the list of viewers is short, the frames are many.
            if channel.state.borrow().viewers.iter().any(|v| v.strong_count() > 0) {
                idle_since = None;
            } else if idle_since.get_or_insert_with(std::time::Instant::now).elapsed() > LINGER {
                return;
            }
        }
    }
}

impl From<RouteError> for LiveError {
    fn from(e: RouteError) -> Self {
        match e {
            RouteError::NoSuchCamera => Self::NoSuchCamera,
            RouteError::Busy => Self::Busy,
        }
    }
}

impl Channel {
    /// Waits until the camera has sent its parameters.
    async fn ready(&self) -> Result<(), LiveError> {
        let look = || {
            let state = self.state.borrow();
            match (&state.tail, state.failed) {
                (_, Some(e)) => Some(Err(LiveError::from(e))),
                (Some(_), None) => Some(Ok(())),
                (None, None) => None,
            }
        };
        time::timeout(START_WAIT, self.started.until(look))
            .await
            .map_err(|_| LiveError::Silent)?
    }

    fn fail(&self, e: RouteError) {
        self.state.borrow_mut().failed = Some(e);
        self.started.wake();
        self.fan_out(&LiveItem::End);
    }

    fn start(&self, start: LiveStart) {
        if start.parameters.is_empty() {
            return;
        }
        let previous = self.state.borrow_mut().tail.take();
        let last = previous.as_ref().and_then(|t| t.since(WallTime::MAX).pop());
        let renewed = previous.is_some();
        if renewed && previous.as_ref().is_some_and(|t| t.parameters() != &start.parameters) {
            self.fan_out(&LiveItem::Parameters(start.parameters.clone()));
        }
        let limits = TailLimits::default();
        let mut tail = LiveTail::new(start.parameters, limits);
        let seen = last.and_then(|l| position_of(&l, &start.backlog));
        for (i, frame) in start.backlog.into_iter().enumerate() {
            push(&mut tail, frame.clone());
            // A renewed subscription repeats what the viewers have had.
            if renewed && seen.is_none_or(|s| i > s) {
                self.fan_out(&LiveItem::Frame(frame));
            }
        }
        self.state.borrow_mut().tail = Some(tail);
        self.started.wake();
    }

    fn item(&self, item: &LiveItem) {
        {
            let mut state = self.state.borrow_mut();
            match (item, &mut state.tail) {
                (LiveItem::Frame(frame), Some(tail)) => push(tail, frame.clone()),
                (LiveItem::Parameters(p), Some(tail)) => tail.reset(p.clone()),
                (LiveItem::Parameters(p), tail) if !p.is_empty() => {
                    *tail = Some(LiveTail::new(p.clone(), TailLimits::default()));
                    self.started.wake();
                }
                _ => {}
            }
        }
        self.fan_out(item);
    }

    fn fan_out(&self, item: &LiveItem) {
        let mut state = self.state.borrow_mut();
        let tracks = state.tail.as_ref().map(|t| t.parameters().clone());
        state.viewers.retain(|viewer| {
            let Some(queue) = viewer.upgrade() else { return false };
            queue.push(item.clone(), tracks.as_deref().unwrap_or(&[]));
            true
        });
    }
}

/// Everything in this ring is on its way to a disk or on it already: only the limits bound it.
fn push(tail: &mut LiveTail, frame: Frame) {
    let sequence = tail.push(frame);
    tail.mark_durable(sequence + 1);
}

/// Where in `backlog` a frame is, in its stored or its live form: files keep times to the millisecond.
pub fn position_of(frame: &Frame, backlog: &[Frame]) -> Option<usize> {
    backlog
        .iter()
        .rposition(|f| f.track == frame.track && f.time.micros_since(frame.time).abs() <= 1000 && f.data == frame.data)
}

/// Whether decoding can start at this frame of a stream with these tracks.
fn starts(frame: &Frame, tracks: &[CodecParameters]) -> bool {
    let video = |t: &CodecParameters| t.is_video();
    let own = tracks.get(usize::from(frame.track.0)).is_some_and(video);
    frame.key && (own || !tracks.iter().any(video))
}

impl Queue {
    fn push(&self, item: LiveItem, tracks: &[CodecParameters]) {
        let mut items = self.items.borrow_mut();
        if let LiveItem::Frame(frame) = &item {
            let len = frame.data.len();
            if items.len() >= QUEUE_FRAMES_MAX || self.bytes.get() + len > QUEUE_BYTES_MAX {
                let before = items.len();
                items.retain(|i| !matches!(i, LiveItem::Frame(_)));
                self.skip((before - items.len()) as u64);
                self.bytes.set(0);
                self.behind.set(true);
            }
            if self.behind.get() && !starts(frame, tracks) {
                return self.skip(1);
            }
            self.behind.set(false);
            self.bytes.set(self.bytes.get() + len);
        } else if items.len() >= QUEUE_FRAMES_MAX {
            // Parameters that nobody reads for so long: only the newest count.
            items.clear();
            self.bytes.set(0);
            self.behind.set(true);
        }
        items.push_back(item);
        self.wakers.wake();
    }

    fn skip(&self, frames: u64) {
        self.skipped.set(self.skipped.get() + frames);
    }
}

impl Viewer {
    /// The next thing that happens. Cancel safe.
    pub async fn next(&mut self) -> LiveItem {
        let queue = &self.queue;
        let item = queue.wakers.until(|| queue.items.borrow_mut().pop_front()).await;
        if let LiveItem::Frame(frame) = &item {
            queue.bytes.set(queue.bytes.get().saturating_sub(frame.data.len()));
        }
        item
    }

    /// Frames passed over since the last look because this viewer fell behind.
    pub fn take_skipped(&self) -> u64 {
        self.queue.skipped.take()
    }
}
