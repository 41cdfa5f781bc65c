//! The ring keeps whole GOPs, what is not durable, and its limits.

use bytes::Bytes;
use corenvr_media::TrackId;
use proptest::prelude::*;

use super::*;
use crate::mkv::samples::{START, camera, header_av, stream};

fn limits(bytes: usize, seconds: u64) -> TailLimits {
    TailLimits {
        bytes,
        duration: Duration::from_secs(seconds),
        bytes_hard: usize::MAX,
        frames_hard: usize::MAX,
    }
}

fn tail(limits: TailLimits) -> LiveTail {
    LiveTail::new(header_av().tracks, limits)
}

#[test]
fn keeps_everything_that_is_not_durable() {
    let mut t = tail(limits(0, 0));
    let frames = stream(START, 5);
    for f in &frames {
        t.push(f.clone());
    }
    assert_eq!(t.since(START), frames);
    // Durable up to the middle of the third GOP: the two before it go, the third stays whole.
    t.mark_durable(75 * 2 + 20);
    assert_eq!(t.since(WallTime::MIN), frames[150..]);
    t.mark_durable(u64::MAX);
    assert_eq!(t.since(WallTime::MIN), frames[300..]);
    assert_eq!(t.newest(), frames[300..]);
    assert_eq!(t.overflowed(), 0);
}

#[test]
fn starts_at_the_key_frame_at_or_before_the_time_asked_for() {
    let mut t = tail(limits(usize::MAX, 100));
    let frames = stream(START, 5);
    for f in &frames {
        t.push(f.clone());
    }
    assert_eq!(t.since(START.offset(1_999_999)), frames[75..]);
    assert_eq!(t.since(START.offset(2_000_000)), frames[150..]);
    assert_eq!(t.since(WallTime::MAX), frames[300..]);
    assert_eq!(t.since(WallTime::MIN), frames);
}

#[test]
fn hard_limits_hold_even_when_the_disk_does_not() {
    let mut t = tail(TailLimits {
        bytes: 0,
        duration: Duration::ZERO,
        bytes_hard: 60_000,
        frames_hard: 1000,
    });
    for f in stream(START, 20) {
        t.push(f);
        assert!(t.bytes() <= 60_000);
    }
    assert!(t.overflowed() > 0);
    assert!(t.newest()[0].key);
}

#[test]
fn a_single_gop_larger_than_the_limit_begins_anew_at_a_key_frame() {
    let mut t = tail(TailLimits {
        bytes: 0,
        duration: Duration::ZERO,
        bytes_hard: 1000,
        frames_hard: 10,
    });
    let f = |key, len| Frame {
        track: TrackId(0),
        time: START,
        key,
        data: Bytes::from(vec![1; len]),
    };
    t.push(f(true, 900));
    t.push(f(false, 200));
    assert_eq!(t.bytes(), 0);
    t.push(f(false, 10));
    assert!(t.newest().is_empty());
    t.push(f(true, 10));
    assert_eq!(t.newest().len(), 1);
    assert_eq!(t.next_sequence(), 4);
}

struct Collect(std::sync::mpsc::Sender<&'static str>, usize);

impl LiveSink for Collect {
    fn start(&mut self, start: LiveStart) -> bool {
        self.0
            .send(if start.backlog.is_empty() { "empty" } else { "backlog" })
            .is_ok()
    }
    fn send(&mut self, item: LiveItem) -> bool {
        self.1 -= 1;
        let name = match item {
            LiveItem::Frame(_) => "frame",
            LiveItem::Parameters(_) => "parameters",
            LiveItem::Gap(_) => "gap",
            LiveItem::End => "end",
        };
        self.0.send(name).is_ok() && self.1 > 0
    }
}

#[test]
fn a_subscriber_that_wants_no_more_is_dropped() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let t = tail(limits(0, 0));
    let mut all = Subscribers::default();
    let sink = Box::new(Collect(sender, 2));
    assert!(all.subscribe(
        &t,
        Subscribe {
            camera: camera("a"),
            from: None,
            sink
        }
    ));
    all.send(&LiveItem::Gap(GapCause::Loss));
    assert_eq!(all.len(), 1);
    all.send(&LiveItem::End);
    assert!(all.is_empty());
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), ["empty", "gap", "end"]);
}

proptest! {
    #[test]
    fn always_begins_with_a_key_frame_and_never_loses_what_is_not_durable(
        steps in prop::collection::vec((any::<bool>(), 1usize..500, 0u64..30), 1..300),
        bytes in 0usize..5000,
    ) {
        let mut t = tail(limits(bytes, 1000));
        let mut durable = 0;
        let mut seen_key = false;
        let mut kept = 0;
        for (i, (key, len, advance)) in steps.into_iter().enumerate() {
            let time = START.offset(i as i64 * 40_000);
            t.push(Frame { track: TrackId(0), time, key, data: Bytes::from(vec![0; len]) });
            seen_key |= key;
            kept += usize::from(seen_key);
            durable = (durable + advance).min(t.next_sequence());
            t.mark_durable(durable);
            let all = t.since(WallTime::MIN);
            prop_assert_eq!(all.is_empty(), !seen_key);
            prop_assert!(all.first().is_none_or(|f| f.key));
            prop_assert!(all.len() as u64 >= (t.next_sequence() - durable).min(kept as u64));
            prop_assert_eq!(t.bytes(), all.iter().map(|f| f.data.len()).sum::<usize>());
        }
    }
}
