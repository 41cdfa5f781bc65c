//! What waits for the disk: frames and segment borders of one camera, in order, bounded by bytes.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

use corenvr_media::{CodecParameters, Frame, TrackId, WallTime};
use corenvr_store::GapCause;

use crate::pipeline::SegmentStart;

/// Bytes that wake the writer before its time.
const WAKE_BYTES: usize = 4 << 20;
/// Bytes, and frames, that are written at once.
const BATCH_BYTES_MAX: usize = 8 << 20;
const BATCH_FRAMES_MAX: usize = 4096;
/// Frames of one camera that may wait, whatever their size. Beyond, as beyond the limit of bytes.
const FRAMES_MAX: usize = 65_536;
/// A segment's first write waits until it spans this long: its earliest frame gives its start, and that may not be its first.
const FIRST_SPAN_MIN_US: i64 = 300_000;

/// Bytes that all cameras of a shard together may let wait.
pub(crate) struct Budget {
    left: Cell<usize>,
}

impl Budget {
    pub fn new(bytes: usize) -> Rc<Self> {
        Rc::new(Self { left: Cell::new(bytes) })
    }
}

enum Item {
    Segment(SegmentStart),
    Frame {
        frame: Frame,
        sequence: u64,
    },
    /// The stream ended; the next thing is a segment.
    End(GapCause),
}

/// Frames that go to the same segment, in order.
pub(crate) struct Batch {
    pub frames: Vec<Frame>,
    /// Sequence number of the last one.
    pub sequence: u64,
    /// Payload bytes, to be released when they are written or given up.
    pub bytes: usize,
}

/// What the writer does next.
pub(crate) enum Next {
    Segment(SegmentStart),
    Frames(Batch),
    End(GapCause),
    /// Nothing, or nothing that should be written yet.
    Wait,
}

/// The queue of one camera.
pub(crate) struct Queue {
    inner: RefCell<Inner>,
    budget: Rc<Budget>,
    limit: usize,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    /// Payload bytes here and in the writer's hands.
    bytes: usize,
    /// Bytes since the writer was woken last.
    fresh: usize,
    /// Of the newest segment.
    parameters: Option<Arc<[CodecParameters]>>,
    /// Frames are dropped up to a key frame for which there is room.
    overflowing: bool,
    dropped: u64,
    closed: bool,
    /// The frames that would begin a file were looked at before: they wait no longer.
    looked: bool,
    woken: bool,
    waker: Option<Waker>,
}

impl Inner {
    fn wake(&mut self) {
        self.woken = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Queue {
    /// For one camera: `limit` bytes of its own, within the shard's budget.
    pub fn new(limit: usize, budget: Rc<Budget>) -> Self {
        Self {
            inner: RefCell::default(),
            budget,
            limit,
        }
    }

    /// With the next frame a segment begins.
    pub fn segment(&self, start: SegmentStart) {
        let mut q = self.inner.borrow_mut();
        q.parameters = Some(start.parameters.clone());
        if !q.overflowing {
            q.items.push_back(Item::Segment(start));
        }
    }

    /// Adds a frame, or drops it where there is no room; see the limits above.
    pub fn frame(&self, frame: Frame, sequence: u64) {
        let mut q = self.inner.borrow_mut();
        let len = frame.data.len();
        let room = |share: usize| q.bytes + len <= self.limit / share && self.budget.left.get() >= len * share;
        let fits = room(1) && q.items.len() < FRAMES_MAX;
        if q.overflowing {
            let resumes = frame.track == TrackId(0) && frame.key && room(2) && q.items.len() < FRAMES_MAX / 2;
            if !resumes {
                q.dropped += 1;
                return;
            }
            q.overflowing = false;
            if let Some(parameters) = q.parameters.clone() {
                q.items.push_back(Item::Segment(SegmentStart {
                    parameters,
                    cause: Some(GapCause::Disk),
                }));
            }
        } else if !fits {
            q.overflowing = true;
            q.dropped += 1;
            return;
        }
        self.budget.left.set(self.budget.left.get().saturating_sub(len));
        q.bytes += len;
        q.fresh += len;
        q.items.push_back(Item::Frame { frame, sequence });
        if q.fresh >= WAKE_BYTES {
            q.fresh = 0;
            q.wake();
        }
    }

    /// The stream ended.
    pub fn end(&self, cause: GapCause) {
        let mut q = self.inner.borrow_mut();
        q.overflowing = false;
        q.items.push_back(Item::End(cause));
        q.wake();
    }

    /// Nothing comes any more: the writer finishes what is here, then itself.
    pub fn close(&self) {
        let mut q = self.inner.borrow_mut();
        q.closed = true;
        q.wake();
    }

    pub fn is_closed(&self) -> bool {
        self.inner.borrow().closed
    }

    pub fn is_empty(&self) -> bool {
        self.inner.borrow().items.is_empty()
    }

    /// Frames dropped for want of room.
    pub fn dropped(&self) -> u64 {
        self.inner.borrow().dropped
    }

    /// Payload bytes that wait.
    pub fn bytes(&self) -> usize {
        self.inner.borrow().bytes
    }

    /// Gives back the room of frames that are written or given up.
    pub fn release(&self, bytes: usize) {
        let mut q = self.inner.borrow_mut();
        q.bytes = q.bytes.saturating_sub(bytes);
        self.budget.left.set(self.budget.left.get() + bytes);
    }

    /// Waits until the writer should look before its time.
    pub async fn woken(&self) {
        std::future::poll_fn(|cx| {
            let mut q = self.inner.borrow_mut();
            if std::mem::take(&mut q.woken) {
                return Poll::Ready(());
            }
            q.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// What to do next. `fresh_segment`: the frames that come first would begin a file.
    pub fn next(&self, fresh_segment: bool) -> Next {
        let mut q = self.inner.borrow_mut();
        match q.items.front() {
            None => return Next::Wait,
            Some(Item::Frame { .. }) => {}
            Some(Item::Segment(_) | Item::End(_)) => {
                return match q.items.pop_front() {
                    Some(Item::Segment(start)) => Next::Segment(start),
                    Some(Item::End(cause)) => Next::End(cause),
                    _ => Next::Wait,
                };
            }
        }
        if fresh_segment && !q.closed && !q.looked && !q.is_first_write_due() {
            q.looked = true;
            return Next::Wait;
        }
        q.looked = false;
        Next::Frames(q.take_batch())
    }

    /// The earliest time of a frame in front of the next border.
    pub fn earliest(&self) -> Option<WallTime> {
        let q = self.inner.borrow();
        let frames = q.items.iter().map_while(|item| match item {
            Item::Frame { frame, .. } => Some(frame.time),
            Item::Segment(_) | Item::End(_) => None,
        });
        frames.min()
    }

    /// Removes every frame up to the next video key frame or border; returns how many, their bytes, and the last one's sequence.
    pub fn skip_to_key(&self) -> (u64, usize, Option<u64>) {
        let mut q = self.inner.borrow_mut();
        let (mut count, mut bytes, mut last) = (0, 0, None);
        while let Some(Item::Frame { frame, sequence }) = q.items.front() {
            if frame.track == TrackId(0) && frame.key {
                break;
            }
            (count, bytes, last) = (count + 1, bytes + frame.data.len(), Some(*sequence));
            q.items.pop_front();
        }
        (count, bytes, last)
    }
}

impl Inner {
    fn is_first_write_due(&self) -> bool {
        let (mut first, mut latest) = (None, None);
        for item in &self.items {
            let Item::Frame { frame, .. } = item else { return true };
            let t = frame.time;
            first = Some(first.map_or(t, |f: WallTime| f.min(t)));
            latest = Some(latest.map_or(t, |l: WallTime| l.max(t)));
            if let (Some(first), Some(latest)) = (first, latest)
                && latest.micros_since(first) >= FIRST_SPAN_MIN_US
            {
                return true;
            }
        }
        false
    }

    fn take_batch(&mut self) -> Batch {
        let mut batch = Batch {
            frames: Vec::new(),
            sequence: 0,
            bytes: 0,
        };
        while let Some(Item::Frame { frame, .. }) = self.items.front() {
            let full = batch.bytes + frame.data.len() > BATCH_BYTES_MAX || batch.frames.len() >= BATCH_FRAMES_MAX;
            if full && !batch.frames.is_empty() {
                break;
            }
            let Some(Item::Frame { frame, sequence }) = self.items.pop_front() else {
                break;
            };
            batch.bytes += frame.data.len();
            batch.sequence = sequence;
            batch.frames.push(frame);
        }
        batch
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let left = self.inner.get_mut().bytes;
        self.budget.left.set(self.budget.left.get() + left);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use corenvr_media::{VideoCodec, VideoParameters, WallTime};

    use super::*;

    fn start() -> SegmentStart {
        let video = VideoParameters {
            codec: VideoCodec::Mjpeg,
            extra: Bytes::new(),
            width: 64,
            height: 64,
            frame_rate: None,
        };
        SegmentStart {
            parameters: [CodecParameters::Video(video)].into(),
            cause: None,
        }
    }

    fn frame(n: u64, key: bool, len: usize) -> Frame {
        Frame {
            track: TrackId(0),
            time: WallTime::from_millis(n as i64 * 40),
            key,
            data: Bytes::from(vec![n as u8; len]),
        }
    }

    /// Everything in the queue: `None` for a border, with the cause of a segment; sequence numbers of frames.
    fn drain(queue: &Queue) -> Vec<Result<u64, Option<GapCause>>> {
        let mut all = Vec::new();
        loop {
            match queue.next(false) {
                Next::Wait => return all,
                Next::Segment(s) => all.push(Err(s.cause)),
                Next::End(cause) => all.push(Err(Some(cause))),
                Next::Frames(batch) => {
                    all.extend(batch.frames.iter().map(|f| Ok(f.time.as_millis() as u64 / 40)));
                    queue.release(batch.bytes);
                }
            }
        }
    }

    #[test]
    fn a_full_queue_drops_up_to_a_key_frame_and_tells_the_gap() {
        let budget = Budget::new(1 << 30);
        let queue = Queue::new(10_000, budget.clone());
        queue.segment(start());
        for n in 0..30 {
            queue.frame(frame(n, n % 5 == 0, 1000), n);
        }
        assert_eq!((queue.bytes(), queue.dropped()), (10_000, 20));
        let Next::Segment(_) = queue.next(false) else {
            panic!("a border is first")
        };
        let Next::Frames(batch) = queue.next(false) else {
            panic!("then frames")
        };
        assert_eq!(batch.frames.len(), 10);
        // In the writer's hands they still count.
        queue.frame(frame(30, true, 1000), 30);
        assert_eq!(queue.dropped(), 21);
        queue.release(batch.bytes);
        for n in 31..40 {
            queue.frame(frame(n, n % 5 == 0, 1000), n);
        }
        assert_eq!(
            drain(&queue),
            [Err(Some(GapCause::Disk)), Ok(35), Ok(36), Ok(37), Ok(38), Ok(39)]
        );
        drop(queue);
        assert_eq!(budget.left.get(), 1 << 30);
    }

    #[test]
    fn the_shard_s_budget_is_shared() {
        let budget = Budget::new(5000);
        let (a, b) = (Queue::new(10_000, budget.clone()), Queue::new(10_000, budget.clone()));
        for n in 0..4 {
            a.frame(frame(n, true, 1000), n);
            b.frame(frame(n, true, 1000), n);
        }
        assert_eq!(a.bytes() + b.bytes(), 5000);
        assert!(a.dropped() + b.dropped() == 3);
        drop(a);
        b.segment(start());
        b.frame(frame(9, true, 1000), 9);
        assert!(matches!(drain(&b).last(), Some(Ok(9))));
    }

    #[test]
    fn a_file_begins_only_when_its_earliest_frame_is_known_or_it_would_wait_too_long() {
        let queue = Queue::new(1 << 20, Budget::new(1 << 20));
        queue.segment(start());
        assert!(matches!(queue.next(true), Next::Segment(_)));
        queue.frame(frame(0, true, 10), 0);
        assert!(matches!(queue.next(true), Next::Wait));
        assert!(matches!(queue.next(true), Next::Frames(_)));
        for n in 10..20 {
            queue.frame(frame(n, n == 10, 10), n);
        }
        assert!(matches!(queue.next(true), Next::Frames(b) if b.frames.len() == 10));
        queue.frame(frame(20, true, 10), 20);
        queue.end(GapCause::CameraDown);
        assert!(matches!(queue.next(true), Next::Frames(_)));
        assert!(matches!(queue.next(true), Next::End(GapCause::CameraDown)));
    }

    #[test]
    fn skipping_stops_at_a_key_frame_or_a_border() {
        let queue = Queue::new(1 << 20, Budget::new(1 << 20));
        for n in 0..5 {
            queue.frame(frame(n, n == 3, 10), n);
        }
        assert_eq!(queue.skip_to_key(), (3, 30, Some(2)));
        assert_eq!(queue.skip_to_key(), (0, 0, None));
        assert_eq!(drain(&queue), [Ok(3), Ok(4)]);
    }
}
