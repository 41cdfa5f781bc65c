//! The thread that makes one clip, and the body that it fills. It runs at the lowest priority, which on Linux holds for its disk
//! accesses too, and never on a shard or on the control executor: recording comes first.

use std::{
    cell::Cell,
    io::{self, Write},
    ops::Range,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, ready},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use bytes::Bytes;
use corenvr_shard::{
    channel::{OneshotReceiver, OneshotSender, Receiver, Sender, TrySendError, bounded, oneshot},
    crash::prepare_thread,
    time,
};
use corenvr_store::{
    SegmentMeta,
    export::{self, ExportError, FRAMES_MAX, Format, Prepared},
};
use hyper::body::{Body, Frame, SizeHint};

use super::cache::{Cache, Request};
use crate::admin::{
    caller::Caller,
    http::{BoxBody, Failure},
};

/// Most clips that are made or sent at a time; one more waits, and is answered 503 after [`WAIT_MAX`].
pub const JOBS_MAX: usize = 4;
/// Most requests that wait; one more is answered 503 at once.
const WAITING_MAX: usize = 16;
/// How long a request waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How often one that waits looks again.
const WAIT_STEP: Duration = Duration::from_millis(50);
/// Bytes handed to the connection at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that may wait for the connection; the thread waits then.
const CHUNKS_MAX: usize = 4;
/// A client that takes no chunk for so long is cut off.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How often a thread that waits for its client looks whether there still is one. It is woken before when there is room.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Frames of MP4 files that are laid out at a time, together: their tables take memory. More are answered 503; one alone may
/// always be.
const FRAMES_AT_A_TIME_MAX: u64 = 2 * FRAMES_MAX;
/// The lowest priority.
const NICE: i32 = 19;

/// What all clips share. Lives on the control executor.
#[derive(Default)]
pub struct Jobs {
    running: Arc<AtomicUsize>,
    waiting: Cell<usize>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cache: Mutex<Cache>,
    /// Frames of the MP4 files that are being laid out.
    frames: AtomicU64,
}

impl Shared {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the [`JOBS_MAX`] places; dropping it makes room for another.
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Which bytes are to be sent.
pub struct Order {
    /// From the start of the file.
    pub part: Range<u64>,
}

/// A clip cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The footage does not allow it.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// Too much is being made.
    #[error("too many frames are being laid out")]
    Busy,
    /// The thread ended without a word.
    #[error("the thread of the export ended")]
    Gone,
}

/// A clip on its way. Dropping it ends its thread.
pub struct Job {
    ready: Option<OneshotReceiver<Result<Arc<Prepared>, JobError>>>,
    orders: mpsc::SyncSender<(Range<u64>, Sender<Bytes>)>,
    thread: Thread,
    gone: Gone,
}

/// Says that nobody waits any more, when it is dropped.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Jobs {
    /// Waits for a place; `None` if there is none in time.
    pub async fn enter(&self) -> Option<Place> {
        if let Some(place) = self.try_enter() {
            return Some(place);
        }
        if self.waiting.get() >= WAITING_MAX {
            return None;
        }
        let _waits = Waits::new(&self.waiting);
        let until = Instant::now() + WAIT_MAX;
        while Instant::now() < until {
            time::sleep(WAIT_STEP).await;
            if let Some(place) = self.try_enter() {
                return Some(place);
            }
        }
        None
    }

    fn try_enter(&self) -> Option<Place> {
        let more = |n| (n < JOBS_MAX).then_some(n + 1);
        let entered = self.running.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        entered.ok().map(|_| Place(self.running.clone()))
    }

    /// What was given last to this request.
    pub fn last(&self, request: &Request) -> Option<Arc<Prepared>> {
        let now = Instant::now();
        let mut cache = self.shared.cache();
        cache.trim(now);
        cache.of_request(request, now)
    }

    /// Whether somebody gets something of this clip for the first time.
    pub fn is_new(&self, clip: &Arc<Prepared>, caller: &Caller) -> bool {
        self.shared.cache().is_new(clip, &caller.who, caller.peer)
    }

    /// Begins to make a clip, of `pinned` if that is known already.
    pub fn start(
        &self,
        place: Place,
        request: Request,
        segments: Vec<Arc<SegmentMeta>>,
        pinned: Option<Arc<Prepared>>,
    ) -> Result<Job, Failure> {
        let (ready_tx, ready) = oneshot();
        let (orders, taken) = mpsc::sync_channel(1);
        let gone = Arc::new(AtomicBool::new(false));
        let worker = Maker {
            shared: self.shared.clone(),
            request,
            segments,
            pinned,
            gone: gone.clone(),
        };
        let thread = thread::Builder::new()
            .name("export".to_owned())
            .spawn(move || {
                prepare_thread();
                worker.run(ready_tx, &taken);
                drop(place);
            })
            .map_err(|e| Failure::unavailable(&format!("no thread for the export: {e}")))?;
        Ok(Job {
            ready: Some(ready),
            orders,
            thread: thread.thread().clone(),
            gone: Gone(gone),
        })
    }
}

struct Waits<'a>(&'a Cell<usize>);

impl<'a> Waits<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Job {
    /// Waits for the first pass.
    pub async fn prepared(&mut self) -> Result<Arc<Prepared>, JobError> {
        match self.ready.take() {
            Some(ready) => ready.await.unwrap_or(Err(JobError::Gone)),
            None => Err(JobError::Gone),
        }
    }

    /// Has these bytes sent.
    pub fn order(self, order: Order) -> Result<BoxBody, Failure> {
        let (tx, chunks) = bounded(CHUNKS_MAX);
        let left = order.part.end - order.part.start;
        self.orders
            .send((order.part, tx))
            .map_err(|_| Failure::internal(&JobError::Gone))?;
        Ok(Box::pin(Clip {
            chunks,
            left,
            thread: self.thread,
            _gone: self.gone,
        }))
    }
}

/// What the thread does.
struct Maker {
    shared: Arc<Shared>,
    request: Request,
    segments: Vec<Arc<SegmentMeta>>,
    pinned: Option<Arc<Prepared>>,
    gone: Arc<AtomicBool>,
}

type Orders = mpsc::Receiver<(Range<u64>, Sender<Bytes>)>;

impl Maker {
    fn run(mut self, ready: OneshotSender<Result<Arc<Prepared>, JobError>>, orders: &Orders) {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "an export keeps the priority it has");
        }
        let made = match self.pinned.take() {
            Some(clip) => Ok(clip),
            None => self.prepare(),
        };
        let clip = match made {
            Ok(clip) => clip,
            Err(error) => {
                if let JobError::Export(error @ ExportError::Read { .. }) = &error {
                    tracing::warn!(camera = %self.request.camera, "a clip cannot be made: {error}");
                }
                return ready.send(Err(error));
            }
        };
        ready.send(Ok(clip.clone()));
        // The answer is decided at once, or not at all.
        let Ok((part, chunks)) = orders.recv() else { return };
        let mut out = Chunks {
            buffer: Vec::new(),
            chunks,
        };
        let written = clip.write(part, &mut out, &mut |_| !self.gone.load(Ordering::Acquire));
        match written {
            Ok(()) => {}
            Err(_) if self.gone.load(Ordering::Acquire) => tracing::debug!("the client of a clip went away"),
            // The connection ends in the middle then, which is how a client knows.
            Err(error) => tracing::warn!(camera = %self.request.camera, "a clip was cut off: {error}"),
        }
    }

    fn prepare(&self) -> Result<Arc<Prepared>, JobError> {
        let Request { range, format, .. } = self.request;
        let identity = export::identity(&self.segments, range, format)?;
        let kept = self
            .shared
            .cache()
            .of_identity(&identity, &self.request, Instant::now());
        if let Some(clip) = kept {
            return Ok(clip);
        }
        let frames = match format {
            Format::Mp4 => export::frames(&self.segments, range)?,
            Format::Mkv => 0,
        };
        let _budget = Budget::take(&self.shared.frames, frames).ok_or(JobError::Busy)?;
        let mut goes_on = |_| !self.gone.load(Ordering::Acquire);
        let clip = Arc::new(export::prepare(&self.segments, range, format, &mut goes_on)?);
        self.shared
            .cache()
            .insert(identity, self.request.clone(), &clip, Instant::now());
        Ok(clip)
    }
}

/// A part of [`FRAMES_AT_A_TIME_MAX`]; dropping it gives it back.
struct Budget<'a> {
    all: &'a AtomicU64,
    own: u64,
}

impl<'a> Budget<'a> {
    fn take(all: &'a AtomicU64, own: u64) -> Option<Self> {
        let more = |n: u64| (n == 0 || n + own <= FRAMES_AT_A_TIME_MAX).then_some(n + own);
        let taken = all.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.ok().map(|_| Self { all, own })
    }
}

impl Drop for Budget<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own, Ordering::AcqRel);
    }
}

/// The thread's end: gathers chunks, and waits where the client is slower than the disk.
struct Chunks {
    buffer: Vec<u8>,
    chunks: Sender<Bytes>,
}

impl Chunks {
    fn send(&mut self, mut chunk: Bytes) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            match self.chunks.try_send(chunk) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(TrySendError::Full(back)) => chunk = back,
            }
            if begun.elapsed() > STALL_MAX {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::park_timeout(LOOK_AGAIN);
        }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(CHUNK_BYTES);
        }
        let n = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..n]);
        if self.buffer.len() == CHUNK_BYTES {
            let chunk = std::mem::take(&mut self.buffer);
            self.send(chunk.into())?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.buffer);
        self.send(chunk.into())
    }
}

/// The connection's end.
struct Clip {
    chunks: Receiver<Bytes>,
    /// Bytes that are still to come.
    left: u64,
    thread: Thread,
    _gone: Gone,
}

impl Body for Clip {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let chunk = ready!(self.chunks.poll_recv(cx));
        self.thread.unpark();
        Poll::Ready(Some(match chunk {
            Some(chunk) => {
                self.left = self.left.saturating_sub(chunk.len() as u64);
                Ok(Frame::data(chunk))
            }
            // Fewer bytes than were announced: the client must not take them for the whole.
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Drop for Clip {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}
