//! The flags of whole plays, against what is known of all their frames.

use proptest::prelude::*;

use super::{super::*, world::*};

/// Everything that is played, with its marks, and whether the footage ended.
fn marked(world: &World, plan: &mut Plan) -> (Vec<(Timed, Mark)>, bool) {
    let (mut marker, mut out) = (Marker::new(), Vec::new());
    for timed in world.play(plan, usize::MAX) {
        let is_video = timed.frame.track.0 == 0;
        let mut next = marker.push(timed, is_video);
        while let Some(known) = next {
            out.push(known);
            next = marker.pop();
        }
    }
    let ends = plan.footage_ends();
    out.extend(marker.finish(ends));
    (out, ends)
}

/// Which piece a frame is from: numbers count from the next thousand in each segment.
fn piece(timed: &Timed) -> usize {
    (number(&timed.frame) / 1000) as usize
}

fn orders() -> impl Strategy<Value = Order> {
    prop_oneof![
        Just(Order::Every),
        Just(Order::Gops),
        Just(Order::Keys(Direction::Forward, Spacing::default())),
        Just(Order::Keys(Direction::Backward, Spacing::default())),
    ]
}

proptest! {
    #[test]
    fn flags_are_what_the_frames_around_say(world in worlds(), order in orders(), a in 0.0..1.0f64, b in prop::option::of(0.0..1.2f64)) {
        let line = world.timeline(Gaps::Skip);
        let begin = Begin::At(share(&line, a));
        let backward = matches!(order, Order::Gops | Order::Keys(Direction::Backward, _));
        let mut plan = Plan::new(line.clone(), order, begin, b.map(|b| share(&line, b))).unwrap();
        let unmarked = world.play(&mut Plan::new(line.clone(), order, begin, b.map(|b| share(&line, b))).unwrap(), usize::MAX);
        let (all, ends) = marked(&world, &mut plan);
        prop_assert!(all.iter().map(|m| &m.0).eq(&unmarked), "nothing is lost or moved");
        for track in 0..2 {
            let frames: Vec<_> = all.iter().filter(|m| m.0.frame.track.0 == track).collect();
            for (i, (timed, mark)) in frames.iter().enumerate() {
                let apart = |other: &(Timed, Mark)| line.gap_between(piece(timed), piece(&other.0));
                let last = i + 1 == frames.len();
                // A track that has nothing behind a gap ends at the gap.
                let goes_on = all.iter().any(|m| last && !backward && piece(&m.0) > piece(timed) && apart(m));
                let expected = Mark {
                    clean: timed.frame.key,
                    section_end: if last { ends || goes_on } else { apart(frames[i + 1]) },
                    discontinuity: i == 0 || apart(frames[i - 1]) || (backward && timed.frame.key),
                    terminal: last,
                };
                prop_assert_eq!(mark, &expected, "frame {} of track {}", i, track);
            }
        }
    }
}
