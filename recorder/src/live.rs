//! The present of one camera: the ring of its newest frames, and everyone who watches.

use std::sync::Arc;

use corenvr_media::{CodecParameters, Frame};
use corenvr_store::{
    GapCause,
    live::{LiveItem, LiveTail, SUBSCRIBERS_MAX, Subscribe, Subscribers, TailLimits},
};

/// Outlives the connections and settings of its camera: a viewer stays while the camera is away.
#[derive(Default)]
pub(crate) struct Live {
    /// `None` until the first segment.
    tail: Option<LiveTail>,
    subscribers: Subscribers,
    /// Came before there was anything to begin with.
    waiting: Vec<Subscribe>,
}

impl Live {
    /// Takes a subscriber in. More than [`SUBSCRIBERS_MAX`] are refused with [`LiveItem::End`].
    pub fn subscribe(&mut self, mut subscribe: Subscribe) {
        match &self.tail {
            Some(tail) => drop(self.subscribers.subscribe(tail, subscribe)),
            None if self.waiting.len() >= SUBSCRIBERS_MAX => drop(subscribe.sink.send(LiveItem::End)),
            None => self.waiting.push(subscribe),
        }
    }

    /// A segment begins: from its key frame on, these parameters hold.
    pub fn segment(&mut self, parameters: &Arc<[CodecParameters]>, cause: Option<GapCause>, limits: TailLimits) {
        let first = self.tail.is_none();
        let tail = self
            .tail
            .get_or_insert_with(|| LiveTail::new(parameters.clone(), limits));
        if !first && let Some(cause) = cause {
            self.subscribers.send(&LiveItem::Gap(cause));
        }
        if tail.parameters() != parameters {
            tail.reset(parameters.clone());
            self.subscribers.send(&LiveItem::Parameters(parameters.clone()));
        }
    }

    /// Adds a frame, and returns its sequence number.
    pub fn frame(&mut self, frame: Frame) -> u64 {
        let Some(tail) = &mut self.tail else { return 0 };
        if !self.subscribers.is_empty() {
            self.subscribers.send(&LiveItem::Frame(frame.clone()));
        }
        let sequence = tail.push(frame);
        // Only now there is a key frame for those who waited.
        for subscribe in std::mem::take(&mut self.waiting) {
            self.subscribers.subscribe(tail, subscribe);
        }
        sequence
    }

    /// Frames up to and with this sequence number are durable, or lost to the disk: nothing waits for them.
    pub fn written(&mut self, sequence: u64) {
        if let Some(tail) = &mut self.tail {
            tail.mark_durable(sequence + 1);
        }
    }

    /// The camera is no longer recorded: everyone is told, and the ring is emptied.
    pub fn end(&mut self) {
        self.subscribers.send(&LiveItem::End);
        for mut subscribe in self.waiting.drain(..) {
            subscribe.sink.send(LiveItem::End);
        }
        self.subscribers = Subscribers::default();
        self.tail = None;
    }

    /// How many watch.
    pub fn subscriber_count(&self) -> usize {
        self.subscribers.len() + self.waiting.len()
    }
}
