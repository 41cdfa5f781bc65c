//! What to read and what to send: pure state machines from (timeline, order, position) to ordered reads and timed frames.
//!
//! The driver asks [`Plan::poll`] what to do, does it, and hands the result back: the metadata of a segment, the frames of a read, or
//! the news that either is gone. Nothing in here reads, waits or knows a clock, so every rule of play is tested without any of them.
//!
//! - `every`: all frames, forward;
//! - `keys`: key frames only, in either direction, each read by itself;
//! - `gops`: groups of pictures backward, each in decode order;
//! - `single`: one displayed frame;
//! - `marks`: what the replay extension says of a frame, from the frames around it.

mod every;
mod gops;
mod keys;
mod marks;
mod place;
mod single;
mod timeline;

use std::{fmt, path::PathBuf, sync::Arc};

use corenvr_media::{CodecParameters, Frame, TrackId, WallTime};
use corenvr_store::SegmentMeta;

use every::Every;
use gops::Gops;
use keys::Keys;
pub use marks::{Mark, Marker};
use place::Place;
pub use single::{Found, GOP_BYTES_MAX, Single, SingleStep, Wanted};
pub use timeline::{Gaps, Npt, PIECES_MAX, Piece, SEAM_MICROS_MAX, Timeline};

/// Most frames that a picture may be stored ahead of its turn (H.264 and H.265 allow 16 reordered pictures).
const REORDER_MAX: usize = 16;

/// Which way time runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Later frames follow.
    Forward,
    /// Earlier frames follow.
    Backward,
}

/// How far apart two key frames are at least, in microseconds of footage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spacing {
    /// Whatever their size.
    pub apart_micros: i64,
    /// For every started KiB of the one that is sent first.
    pub micros_per_kib: i64,
}

impl Spacing {
    /// How far the next key frame is at least from one of `size` bytes.
    const fn behind(self, size: u32) -> i64 {
        let by_size = self.micros_per_kib.saturating_mul(size.div_ceil(1024) as i64);
        if by_size > self.apart_micros {
            by_size
        } else {
            self.apart_micros
        }
    }
}

/// Which frames are played, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Every frame of every track, forward.
    Every,
    /// Video key frames only.
    Keys(Direction, Spacing),
    /// Groups of pictures backward, the frames of each in decode order. No sound.
    Gops,
}

/// Where play begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At the clean point at or before this moment, in either direction.
    At(Npt),
    /// Behind the frame shown at this moment, which the client's decoder still has. [`Order::Every`] goes on with
    /// what is stored behind it, but for frames that are shown at or before it and that nothing depends on; if it is not found, at the
    /// next key frame. [`Order::Keys`] goes on with the next key frame later or earlier than it. [`Order::Gops`] begins as with
    /// [`Begin::At`].
    After(Npt),
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// All frames of a cluster.
    Cluster(ClusterRead),
    /// One key frame.
    Key(KeyRead),
}

/// A cluster to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRead {
    /// The file.
    pub path: PathBuf,
    /// Where the cluster starts in it.
    pub offset: u64,
    /// Its length.
    pub len: u32,
    /// The start of its segment.
    pub segment: WallTime,
    /// The tracks of its segment.
    pub tracks: Arc<[CodecParameters]>,
}

/// A key frame to be read: the bytes are the frame's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRead {
    /// The file.
    pub path: PathBuf,
    /// Where its payload starts in the file.
    pub offset: u64,
    /// Bytes of payload.
    pub size: u32,
    /// Its time.
    pub time: WallTime,
    /// The video track of its segment.
    pub track: TrackId,
}

/// What the driver is to do next.
#[derive(Debug, Clone)]
pub enum Step {
    /// Look the segment of this piece up, and answer with [`Plan::located`] or [`Plan::vanished`].
    Locate(Piece),
    /// Read this, and answer with [`Plan::read`] or [`Plan::lost`].
    Read(Read),
    /// From the next frame on these tracks hold.
    Tracks(Arc<[CodecParameters]>),
    /// Send this frame.
    Frame(Timed),
    /// The range is done.
    End,
}

/// What lies between a frame and the one of the same track that was given before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Before {
    /// Nothing: it continues that frame.
    Joined,
    /// A cut: it is the first of play, clusters are lost, or it begins the next group of pictures in reverse.
    Cut,
    /// More than [`SEAM_MICROS_MAX`] without footage, or a clock that was set back.
    Gap,
}

/// A frame and its moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed {
    /// The frame. Its track counts in the segment's tracks, see [`Step::Tracks`].
    pub frame: Frame,
    /// When it is to be shown.
    pub npt: Npt,
    /// When it has to be with the client: `npt`, but with [`Order::Gops`] the end of its group of pictures (or, of the first one, the
    /// moment that play begins at).
    pub pace: Npt,
    /// How it follows the frame of its track before it.
    pub before: Before,
}

/// The moment after the last frame of a segment. One that is still open is not known to last longer than that frame's own moment.
pub fn end_of(meta: &SegmentMeta) -> WallTime {
    let behind_last = meta.table.last().map(|t| t.offset(1000));
    behind_last.map_or(meta.end, |t| t.max(meta.end))
}

/// One order of play.
trait Course: fmt::Debug {
    fn place(&self) -> &Place;
    fn place_mut(&mut self) -> &mut Place;
    fn end(&self) -> Npt;
    fn start(&self) -> Option<(Npt, WallTime)>;
    fn poll(&mut self) -> Step;
    fn ahead(&self) -> Option<Read>;
    fn located(&mut self, meta: Arc<SegmentMeta>);
    fn vanished(&mut self);
    fn read(&mut self, frames: Vec<Frame>);
    fn lost(&mut self);
    fn grow(&mut self, latest: &[(usize, Arc<SegmentMeta>)]) -> bool;
    fn footage_ends(&self) -> bool;
}

/// A range being played.
#[derive(Debug)]
pub struct Plan {
    order: Order,
    course: Box<dyn Course>,
}

impl Plan {
    /// Plays `timeline` in this order. `until` is where it ends: forward the first moment that is not played, backward the lowest one
    /// that still is. Without it, everything is played, and forward what [`Self::grow`] adds. `None` if the timeline is empty.
    pub fn new(timeline: Timeline, order: Order, begin: Begin, until: Option<Npt>) -> Option<Self> {
        let course: Box<dyn Course> = match order {
            Order::Every => Box::new(Every::new(timeline, begin, until)?),
            Order::Keys(direction, spacing) => Box::new(Keys::new(timeline, direction, spacing, begin, until)?),
            Order::Gops => Box::new(Gops::new(timeline, begin, until)?),
        };
        Some(Self { order, course })
    }

    /// The order of play.
    pub const fn order(&self) -> Order {
        self.order
    }

    /// The timeline.
    pub fn timeline(&self) -> &Timeline {
        self.course.place().timeline()
    }

    /// Where play ends: what was asked for, or where the timeline does in the direction of play.
    pub fn end(&self) -> Npt {
        self.course.end()
    }

    /// Where play really starts, and the UTC of it; known once the first segment was located. With [`Order::Keys`] and [`Order::Gops`]
    /// the key frame that is sent first; with [`Begin::After`] and every frame, the moment of the frame that it goes on behind.
    pub fn start(&self) -> Option<(Npt, WallTime)> {
        self.course.start()
    }

    /// What to do next. Repeats itself until it is answered; [`Step::Tracks`] and [`Step::Frame`] need no answer.
    pub fn poll(&mut self) -> Step {
        self.course.poll()
    }

    /// What will be asked for after the current read, to be read ahead.
    pub fn ahead(&self) -> Option<Read> {
        self.course.ahead()
    }

    /// The segment asked for by [`Step::Locate`].
    pub fn located(&mut self, meta: Arc<SegmentMeta>) {
        self.course.located(meta);
    }

    /// The segment asked for is gone: play goes on with the next one.
    pub fn vanished(&mut self) {
        self.course.vanished();
    }

    /// The tracks of the segment that was located last.
    pub fn tracks(&self) -> Option<&[CodecParameters]> {
        self.course.place().meta().map(|m| &*m.tracks)
    }

    /// The piece being played.
    pub fn current(&self) -> Option<Piece> {
        self.course.place().current()
    }

    /// The current segment was looked up once more because its file is not where it was. Returns whether that helps.
    pub fn relocated(&mut self, meta: Arc<SegmentMeta>) -> bool {
        self.course.place_mut().relocated(meta)
    }

    /// The frames asked for by [`Step::Read`]; of a [`Read::Key`] one.
    pub fn read(&mut self, frames: Vec<Frame>) {
        self.course.read(frames);
    }

    /// What was asked for cannot be had: play goes on at the next key frame in its direction.
    pub fn lost(&mut self) {
        self.course.lost();
    }

    /// The archive has grown since the timeline was made. `latest` is its newest state of the last piece's segment and of what follows,
    /// in order; pieces that are known already are only lengthened. Returns whether there is more to play now; never in reverse.
    pub fn grow(&mut self, latest: &[(usize, Arc<SegmentMeta>)]) -> bool {
        self.course.grow(latest)
    }

    /// After [`Step::End`]: whether it is the footage that ends there, at a gap or with a segment that is finished. Not if the range was
    /// cut, and not if more may still be written.
    pub fn footage_ends(&self) -> bool {
        self.course.footage_ends()
    }
}

#[cfg(test)]
mod tests;
