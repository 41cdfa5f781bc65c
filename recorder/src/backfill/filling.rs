//! What one session with a device's archive brings, into the queue of the writer that fills the gap.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use corenvr_media::{CodecParameters, WallTime};
use corenvr_proto::rtp::{depacketize::AccessUnit, reorder::ReorderCounts};
use corenvr_store::SegmentKey;

use super::line::{Ended, Line, Out};
use crate::{
    ingest::{End, EndKind, gb28181::Units},
    pipeline::{SegmentStart, Track},
    writer::{Queue, Report},
};

/// A device searches its disks before it sends.
const FIRST_PACKET: Duration = Duration::from_secs(20);
/// Packets without a picture that could be begun with.
const FIRST_PICTURE: Duration = Duration::from_secs(30);

/// What session, writer and job know of each other.
#[derive(Default)]
pub(super) struct Told {
    /// The device cannot be asked yet, in words.
    pub waiting: RefCell<Option<String>>,
    /// It is being asked, or sends.
    pub invited: Cell<bool>,
    /// Time of the newest picture.
    pub position: Cell<Option<WallTime>>,
    /// Packets that were lost.
    pub packets_lost: Cell<u64>,
    /// Gaps within what came.
    pub holes: Cell<u64>,
    /// Units that had no place.
    pub left_out: Cell<u64>,
    /// How the line ended.
    pub ended: RefCell<Option<Ended>>,
    /// Frames on disk.
    pub durable: Cell<u64>,
    /// Frames that the disk did not take.
    pub lost: Cell<u64>,
    /// The segment that is open.
    pub open: RefCell<Option<SegmentKey>>,
    /// What the disk says.
    pub disk_error: RefCell<Option<String>>,
}

impl Report for Rc<Told> {
    fn written(&self, _sequence: u64, durable: u64) {
        self.durable.set(self.durable.get() + durable);
    }

    fn lost(&self, frames: u64) {
        self.lost.set(self.lost.get() + frames);
    }

    fn segment_opened(&self, key: &SegmentKey, _parameters: &Arc<[CodecParameters]>) {
        *self.open.borrow_mut() = Some(key.clone());
    }

    fn segment_closed(&self) {
        *self.open.borrow_mut() = None;
    }

    fn disk_error(&self, error: Option<String>) {
        if error.is_some() {
            *self.disk_error.borrow_mut() = error;
        }
    }
}

/// Takes the units of one session.
pub(super) struct Filling {
    line: Line,
    queue: Rc<Queue>,
    told: Rc<Told>,
    sequence: u64,
    silence: Duration,
}

impl Filling {
    pub fn new(line: Line, queue: Rc<Queue>, told: Rc<Told>, silence: Duration) -> Self {
        Self {
            line,
            queue,
            told,
            sequence: 0,
            silence,
        }
    }

    fn drain(&mut self) {
        while let Some(out) = self.line.poll() {
            match out {
                Out::Segment(parameters) => self.queue.segment(SegmentStart {
                    parameters,
                    cause: None,
                }),
                Out::Frame(frame) => {
                    self.sequence += 1;
                    self.queue.frame(frame, self.sequence);
                }
            }
        }
        self.told.position.set(self.line.newest());
        self.told.holes.set(self.line.holes());
        self.told.left_out.set(self.line.left_out());
        if self.told.ended.borrow().is_none() {
            *self.told.ended.borrow_mut() = self.line.ended().cloned();
        }
    }
}

impl Units for Filling {
    fn waiting(&mut self, reason: &str) {
        *self.told.waiting.borrow_mut() = Some(reason.to_owned());
    }

    fn inviting(&mut self) {
        self.told.invited.set(true);
    }

    fn receiving(&mut self, _transport: &'static str) {}

    fn not_recorded(&mut self, _what: &[String]) {}

    fn unit(&mut self, _now: Instant, track: Track, rate: u32, unit: AccessUnit) {
        self.line.unit(track, rate, unit);
        self.drain();
    }

    fn restart(&mut self, _now: Instant, track: Track) {
        self.line.restart(track);
        self.drain();
    }

    fn counts(&mut self, packets: ReorderCounts, _malformed: u64) {
        self.told.packets_lost.set(packets.lost);
    }

    fn verdict(&self, since: Instant, now: Instant, last_packet: Option<Instant>) -> Option<End> {
        if let Some(error) = &*self.told.disk_error.borrow() {
            return Some(End::new(EndKind::Closed, error.clone()));
        }
        match self.line.ended() {
            Some(Ended::Complete) => return Some(End::new(EndKind::Done, "all of it has come")),
            Some(Ended::Broken(reason)) => return Some(End::new(EndKind::Closed, reason.clone())),
            None => {}
        }
        let age = |t: Instant| now.saturating_duration_since(t);
        match last_packet {
            None if age(since) > self.silence.max(FIRST_PACKET) => Some(End::new(
                EndKind::NoPacket,
                "the device agreed to send its recording and nothing came",
            )),
            Some(last) if age(last) > self.silence => Some(End::new(EndKind::Silent, "the device has stopped to send")),
            Some(_) if self.line.newest().is_none() && age(since) > FIRST_PICTURE => Some(End::new(
                EndKind::NoVideo,
                "packets come and no picture in them that could be begun with",
            )),
            _ => None,
        }
    }

    fn finish(&mut self, _now: Instant) {
        self.line.finish();
        self.drain();
    }
}
