//! The senders of a shard: each plays the loop from another point and serves every camera that is assigned to it.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use corenvr_media::{CameraName, Frame, WallTime};
use corenvr_playback::{LiveRouter, RouteError};
use corenvr_shard::{
    Class,
    channel::{Receiver, bounded},
    spawn, time,
};
use corenvr_store::live::{LiveItem, LiveSink, LiveStart, Subscribe};

use super::LoopClip;

/// Senders of a shard. Cameras of one sender show the same picture at the same moment and share its timer; more senders spread
/// the key frames of many cameras over time.
const SENDERS: u32 = 25;
/// Subscriptions that may wait; one more is refused and tried again by its viewer.
const SUBSCRIPTIONS_MAX: usize = 4096;
/// Frames that are due within this are sent together: fewer wake-ups, and less than the jitter of a network.
const TICK: Duration = Duration::from_millis(8);

/// Starts the senders of this shard, for cameras `cam1` to `cam{cameras}`.
pub fn start(clip: &Arc<LoopClip>, cameras: u32) -> LiveRouter {
    let count = SENDERS.min(cameras.max(1));
    let begun = (Instant::now(), WallTime::from_micros(time::wall_now_micros()));
    let senders: Vec<_> = (0..count)
        .map(|i| {
            let offset = clip.duration * i / count;
            Rc::new(RefCell::new(Sender::new(clip.clone(), begun, offset)))
        })
        .collect();
    for sender in &senders {
        spawn(Class::Live, "simulated cameras", run(sender.clone())).detach();
    }
    let (tx, rx) = bounded(SUBSCRIPTIONS_MAX);
    spawn(Class::Live, "simulated subscriptions", subscribe(rx, senders)).detach();
    Arc::new(move |subscribe| {
        let index = index_of(&subscribe.camera)
            .filter(|i| *i < cameras)
            .ok_or(RouteError::NoSuchCamera)?;
        tx.try_send((index, subscribe)).map_err(|_| RouteError::Busy)
    })
}

/// The index of `cam1`, `cam2` and so on, from 0.
fn index_of(name: &CameraName) -> Option<u32> {
    let digits = name.as_str().strip_prefix("cam").filter(|d| !d.starts_with('0'))?;
    digits.parse::<u32>().ok()?.checked_sub(1)
}

async fn subscribe(mut inbox: Receiver<(u32, Subscribe)>, senders: Vec<Rc<RefCell<Sender>>>) {
    while let Some((index, subscribe)) = inbox.recv().await {
        let sender = &senders[index as usize % senders.len()];
        sender.borrow_mut().subscribe(subscribe.sink);
    }
}

async fn run(sender: Rc<RefCell<Sender>>) {
    loop {
        let next = sender.borrow().next_due().max(Instant::now() + TICK);
        time::sleep_until(next).await;
        sender.borrow_mut().send_due(Instant::now());
    }
}

/// Plays the loop for some cameras.
struct Sender {
    clip: Arc<LoopClip>,
    /// When the current turn began.
    turn: Instant,
    turn_wall: WallTime,
    /// The next step of the turn.
    next: usize,
    sinks: Vec<Box<dyn LiveSink + Send>>,
}

impl Sender {
    /// Begins in the middle: the turn began `offset` ago.
    fn new(clip: Arc<LoopClip>, (now, wall): (Instant, WallTime), offset: Duration) -> Self {
        let offset_us = offset.as_micros() as i64;
        let next = clip.steps.partition_point(|s| s.due_us < offset_us);
        Self {
            turn: now.checked_sub(offset).unwrap_or(now),
            turn_wall: wall - offset,
            clip,
            next,
            sinks: Vec::new(),
        }
    }

    fn next_due(&self) -> Instant {
        let within = self
            .clip
            .steps
            .get(self.next)
            .map_or(self.clip.duration.as_micros() as i64, |s| s.due_us);
        self.turn + Duration::from_micros(within as u64)
    }

    fn frame(&self, index: usize) -> Frame {
        let step = &self.clip.steps[index];
        Frame {
            time: self.turn_wall.offset(step.shown_us),
            ..step.frame.clone()
        }
    }

    fn send_due(&mut self, now: Instant) {
        while self.next_due() <= now {
            if self.next == self.clip.steps.len() {
                self.next = 0;
                self.turn += self.clip.duration;
                self.turn_wall = self.turn_wall + self.clip.duration;
                continue;
            }
            if !self.sinks.is_empty() {
                let item = LiveItem::Frame(self.frame(self.next));
                self.sinks.retain_mut(|sink| sink.send(item.clone()));
            }
            self.next += 1;
        }
    }

    /// A new viewer gets what was sent since the last key frame; at the beginning of a turn that is nothing.
    fn subscribe(&mut self, mut sink: Box<dyn LiveSink + Send>) {
        let from = self.clip.steps[..self.next]
            .iter()
            .rposition(|s| s.start)
            .unwrap_or(self.next);
        let start = LiveStart {
            parameters: self.clip.tracks.clone(),
            backlog: (from..self.next).map(|i| self.frame(i)).collect(),
        };
        if sink.start(start) {
            self.sinks.push(sink);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<Frame>>>);

    impl LiveSink for Log {
        fn start(&mut self, start: LiveStart) -> bool {
            self.0.lock().unwrap().extend(start.backlog);
            true
        }
        fn send(&mut self, item: LiveItem) -> bool {
            if let LiveItem::Frame(frame) = item {
                self.0.lock().unwrap().push(frame);
            }
            true
        }
    }

    #[test]
    fn time_stamps_go_on_over_the_seam_and_a_viewer_starts_with_a_key_frame() {
        let clip = Arc::new(LoopClip::read(super::super::BUILT_IN).unwrap().unwrap());
        let (now, wall) = (Instant::now(), WallTime::from_millis(1_000_000));
        let mut sender = Sender::new(clip, (now, wall), Duration::from_millis(4_500));
        let log = Log::default();
        sender.subscribe(Box::new(log.clone()));
        sender.send_due(now + Duration::from_secs(20));
        let frames = log.0.lock().unwrap();
        assert!(frames[0].key && frames[0].track.0 == 0);
        assert_eq!(frames[0].time, wall - Duration::from_millis(500));
        let video: Vec<_> = frames.iter().filter(|f| f.track.0 == 0).collect();
        assert!(video.len() >= 20 * 25);
        assert!(video.windows(2).all(|w| w[1].time.micros_since(w[0].time) == 40_000));
        let audio: Vec<_> = frames.iter().filter(|f| f.track.0 == 1).collect();
        let steps = audio.windows(2).map(|w| w[1].time.micros_since(w[0].time));
        assert!(
            steps.clone().all(|s| (20_000..23_000).contains(&s)),
            "{:?}",
            steps.collect::<Vec<_>>()
        );
    }

    #[test]
    fn names_beyond_the_last_camera_do_not_exist() {
        let index = |name| index_of(&CameraName::new(name).unwrap());
        assert_eq!(index("cam1"), Some(0));
        assert_eq!(index("cam400"), Some(399));
        for name in ["cam", "cam0", "cam01", "door", "cam-1", "cam99999999999"] {
            assert_eq!(index(name), None, "{name}");
        }
    }
}
