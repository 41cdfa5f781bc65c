//! The newest frames of a camera, still in memory, and how a viewer subscribes to what comes.
//!
//! Lives on the shard that owns the camera. Payloads are reference counted: the ring, the writer and every viewer share them.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use corenvr_media::{CameraName, CodecParameters, Frame, WallTime};

use crate::GapCause;

/// Wants the live stream of a camera. The owner answers through the sink, with [`LiveSink::start`] first.
pub struct Subscribe {
    /// The camera.
    pub camera: CameraName,
    /// Deliver the ring from the key frame at or before this time; `None`: from the newest key frame.
    pub from: Option<WallTime>,
    /// Where everything goes.
    pub sink: Box<dyn LiveSink + Send>,
}

impl fmt::Debug for Subscribe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribe")
            .field("camera", &self.camera)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

/// A subscriber's end. Both calls must return at once; `false` means that the subscriber is gone or fell behind and wants
/// no more: the owner drops the sink.
pub trait LiveSink {
    /// Called once, before any [`Self::send`].
    fn start(&mut self, start: LiveStart) -> bool;
    /// Called for everything that follows, in order.
    fn send(&mut self, item: LiveItem) -> bool;
}

/// The beginning of a subscription.
#[derive(Debug, Clone)]
pub struct LiveStart {
    /// The tracks; `parameters[i]` describes `TrackId(i)`.
    pub parameters: Arc<[CodecParameters]>,
    /// Frames from a key frame up to now, as asked for by [`Subscribe::from`]; what follows continues it without a seam.
    pub backlog: Vec<Frame>,
}

/// What happens on a live stream.
#[derive(Debug, Clone)]
pub enum LiveItem {
    /// A frame.
    Frame(Frame),
    /// From the next frame on, which is a key frame, these parameters hold.
    Parameters(Arc<[CodecParameters]>),
    /// Frames are missing here; the next video frame is a key frame.
    Gap(GapCause),
    /// The camera was removed or disabled, or the recorder stops: nothing follows.
    End,
}

/// How much a [`LiveTail`] keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailLimits {
    /// Payload bytes beyond which whole durable GOPs leave.
    pub bytes: usize,
    /// Age span beyond which whole durable GOPs leave.
    pub duration: Duration,
    /// Payload bytes beyond which the oldest GOP leaves even if it is not durable: it can then be had from disk only, later.
    pub bytes_hard: usize,
    /// Number of frames beyond which the oldest frame leaves, so that tiny frames cannot grow the ring.
    pub frames_hard: usize,
}

impl Default for TailLimits {
    fn default() -> Self {
        Self {
            bytes: 8 << 20,
            duration: Duration::from_secs(10),
            bytes_hard: 64 << 20,
            frames_hard: 16_384,
        }
    }
}

/// The ring: whole GOPs, at least everything that is not durable yet, and always the newest GOP, within the hard limits.
#[derive(Debug)]
pub struct LiveTail {
    limits: TailLimits,
    parameters: Arc<[CodecParameters]>,
    has_video: bool,
    frames: VecDeque<Frame>,
    /// Sequence number of `frames[0]`.
    first: u64,
    /// Frames below this sequence number are durable.
    durable: u64,
    bytes: usize,
    /// Sequence numbers of the frames where decoding can start, oldest first.
    starts: VecDeque<u64>,
    overflowed: u64,
}

impl LiveTail {
    /// An empty ring.
    pub fn new(parameters: Arc<[CodecParameters]>, limits: TailLimits) -> Self {
        Self {
            limits,
            has_video: parameters.iter().any(CodecParameters::is_video),
            parameters,
            frames: VecDeque::new(),
            first: 0,
            durable: 0,
            bytes: 0,
            starts: VecDeque::new(),
            overflowed: 0,
        }
    }

    /// The parameters of the frames in the ring.
    pub fn parameters(&self) -> &Arc<[CodecParameters]> {
        &self.parameters
    }

    /// Forgets everything and goes on with other parameters. What was in the ring is to be had from disk once it is durable.
    pub fn reset(&mut self, parameters: Arc<[CodecParameters]>) {
        let next = self.next_sequence();
        let overflowed = self.overflowed;
        *self = Self::new(parameters, self.limits);
        self.first = next;
        self.durable = next;
        self.overflowed = overflowed;
    }

    /// Adds a frame and drops what the limits no longer hold. Returns the frame's sequence number.
    ///
    /// Frames before the first key frame are not kept: nothing could be decoded from them.
    pub fn push(&mut self, frame: Frame) -> u64 {
        let sequence = self.next_sequence();
        let start = frame.key && (!self.has_video || self.parameters_are_video(&frame));
        if self.frames.is_empty() && !start {
            self.first += 1;
            return sequence;
        }
        if start {
            self.starts.push_back(sequence);
        }
        self.bytes += frame.data.len();
        self.frames.push_back(frame);
        self.trim();
        sequence
    }

    /// Everything with a sequence number below `sequence` is durable and may leave.
    pub fn mark_durable(&mut self, sequence: u64) {
        self.durable = self.durable.max(sequence.min(self.next_sequence()));
        self.trim();
    }

    /// The sequence number that the next frame will have.
    pub fn next_sequence(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// Frames that are not durable yet and left all the same, because a hard limit was reached.
    pub const fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Payload bytes in the ring.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Times of the oldest and the newest frame in the ring.
    pub fn span(&self) -> Option<(WallTime, WallTime)> {
        Some((self.frames.front()?.time, self.frames.back()?.time))
    }

    /// Everything from the last key frame at or before `t` on. When even the oldest key frame is later than `t`, everything:
    /// the caller compares the first frame's time with `t` and takes the rest from disk.
    pub fn since(&self, t: WallTime) -> Vec<Frame> {
        let time = |s: &u64| self.frames[(s - self.first) as usize].time;
        let from = self.starts.iter().rev().find(|s| time(s) <= t).or(self.starts.front());
        from.map_or_else(Vec::new, |s| {
            self.frames.range((s - self.first) as usize..).cloned().collect()
        })
    }

    /// The newest GOP: what a viewer needs to start at once.
    pub fn newest(&self) -> Vec<Frame> {
        self.starts.back().map_or_else(Vec::new, |s| {
            self.frames.range((s - self.first) as usize..).cloned().collect()
        })
    }

    fn parameters_are_video(&self, frame: &Frame) -> bool {
        self.parameters
            .get(usize::from(frame.track.0))
            .is_some_and(CodecParameters::is_video)
    }

    fn trim(&mut self) {
        while self.frames.len() > self.limits.frames_hard || self.bytes > self.limits.bytes_hard {
            // Without a second GOP there is nothing to start from afterwards: the ring begins anew at the next key frame.
            let cut = self.starts.get(1).copied().unwrap_or_else(|| self.next_sequence());
            self.overflowed += cut.saturating_sub(self.durable.max(self.first));
            self.drop_before(cut);
        }
        while let Some(&cut) = self.starts.get(1) {
            let span = self.span().map_or(Duration::ZERO, |(a, b)| b.saturating_since(a));
            let over = self.bytes > self.limits.bytes || span > self.limits.duration;
            if !over || cut > self.durable {
                return;
            }
            self.drop_before(cut);
        }
    }

    fn drop_before(&mut self, sequence: u64) {
        for frame in self.frames.drain(..(sequence - self.first) as usize) {
            self.bytes -= frame.data.len();
        }
        self.first = sequence;
        while self.starts.front().is_some_and(|&s| s < sequence) {
            self.starts.pop_front();
        }
    }
}

/// The subscribers of one camera on its owner shard.
#[derive(Default)]
pub struct Subscribers(Vec<Box<dyn LiveSink + Send>>);

/// Most subscriptions of one camera (one for each subscribing shard, and a few that are still closing); more are refused
/// with [`LiveItem::End`].
pub const SUBSCRIBERS_MAX: usize = 1024;

impl Subscribers {
    /// Takes a subscriber in and gives it its start from the ring. Returns whether it stays.
    pub fn subscribe(&mut self, tail: &LiveTail, subscribe: Subscribe) -> bool {
        let Subscribe { from, mut sink, .. } = subscribe;
        if self.0.len() >= SUBSCRIBERS_MAX {
            sink.send(LiveItem::End);
            return false;
        }
        let backlog = from.map_or_else(|| tail.newest(), |t| tail.since(t));
        let stays = sink.start(LiveStart {
            parameters: Arc::clone(tail.parameters()),
            backlog,
        });
        if stays {
            self.0.push(sink);
        }
        stays
    }

    /// Sends to everyone, and drops those who want no more.
    pub fn send(&mut self, item: &LiveItem) {
        self.0.retain_mut(|sink| sink.send(item.clone()));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Subscribers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscribers({})", self.0.len())
    }
}

#[cfg(test)]
mod tests;
