//! Key frames only.

use corenvr_media::WallTime;
use proptest::prelude::*;

use super::{super::*, world::*};

fn spacings() -> impl Strategy<Value = Spacing> {
    (0..700_000i64, 0..300_000i64).prop_map(|(apart_micros, micros_per_kib)| Spacing {
        apart_micros,
        micros_per_kib,
    })
}

impl World {
    /// What is to come, by definition.
    pub fn keys(
        &self,
        line: &Timeline,
        direction: Direction,
        spacing: Spacing,
        begin: Begin,
        until: Option<Npt>,
    ) -> Vec<Npt> {
        let forward = direction == Direction::Forward;
        let all: Vec<(usize, Npt, u32)> = line
            .pieces()
            .iter()
            .enumerate()
            .flat_map(|(i, p)| self.video(p).map(move |f| (i, f)))
            .filter(|(_, (f, _))| f.key)
            .map(|(i, (f, npt))| (i, npt, number(f) * 37 % 5000))
            .collect();
        let (Begin::At(at) | Begin::After(at)) = begin;
        let home = if forward { line.at(at) } else { line.at_or_before(at) }.unwrap().0;
        let first = match (begin, forward) {
            (Begin::At(at), true) => {
                let here = all.iter().rposition(|k| k.0 == home && k.1 <= at);
                here.or_else(|| all.iter().position(|k| k.0 >= home))
            }
            (Begin::After(at), true) => all.iter().position(|k| k.0 >= home && k.1 > at),
            (Begin::At(at), false) => all.iter().rposition(|k| k.0 <= home && k.1 <= at),
            (Begin::After(at), false) => all.iter().rposition(|k| k.0 <= home && k.1 < at),
        };
        let Some(first) = first else { return Vec::new() };
        let rest: Vec<_> = if forward {
            all[first..].to_vec()
        } else {
            all[..=first].iter().rev().copied().collect()
        };
        let mut out: Vec<(Npt, u32)> = Vec::new();
        for (_, npt, size) in rest {
            let apart = |last: &(Npt, u32)| {
                let moved = if forward { npt.0 - last.0.0 } else { last.0.0 - npt.0 };
                let by_size = i64::from(last.1.div_ceil(1024)) * spacing.micros_per_kib;
                moved >= spacing.apart_micros.max(by_size).max(1)
            };
            if out.last().is_none_or(apart) {
                out.push((npt, size));
            }
        }
        out.retain(|k| until.is_none_or(|u| if forward { k.0 < u } else { k.0 >= u }));
        out.into_iter().map(|k| k.0).collect()
    }
}

fn directions() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Forward), Just(Direction::Backward)]
}

proptest! {
    #[test]
    fn the_nearest_key_frame_that_is_far_enough(
        world in worlds(), keep: bool, spacing in spacings(),
        turns in prop::collection::vec((directions(), any::<bool>(), 0.0..1.1f64, 0.0..1.1f64, 0usize..9), 1..8),
    ) {
        let line = world.timeline(if keep { Gaps::Keep } else { Gaps::Skip });
        let mut shown = None;
        for (direction, goes_on, a, b, count) in turns {
            let (a, b) = (share(&line, a), share(&line, b));
            let begin = match shown {
                Some(npt) if goes_on => Begin::After(npt),
                _ => Begin::At(a),
            };
            let until = (!goes_on).then_some(if direction == Direction::Forward { a.max(b) } else { a.min(b) });
            let expected = world.keys(&line, direction, spacing, begin, until);
            let mut plan = Plan::new(line.clone(), Order::Keys(direction, spacing), begin, until).unwrap();
            let got = world.play(&mut plan, count);
            prop_assert!(got.iter().all(|t| t.frame.key && t.frame.track.0 == 0 && t.pace == t.npt));
            let mut positions: Vec<Npt> = got.iter().map(|t| t.npt).collect();
            prop_assert_eq!(&positions[..], &expected[..count.min(expected.len())]);
            if let Some(first) = got.first() {
                prop_assert_eq!(plan.start(), Some((first.npt, first.frame.time)));
            }
            shown = positions.last().copied().or(shown);
            positions.extend(world.play(&mut plan, usize::MAX).iter().map(|t| t.npt));
            let onward = |a: &Npt, b: &Npt| if direction == Direction::Forward { a < b } else { a > b };
            prop_assert!(positions.is_sorted_by(onward));
            prop_assert_eq!(&positions, &expected);
        }
    }

    #[test]
    fn what_is_lost_is_passed_over(world in worlds(), direction in directions(), lost in prop::collection::vec(any::<bool>(), 64)) {
        let line = world.timeline(Gaps::Skip);
        let begin = Begin::At(if direction == Direction::Forward { Npt::ZERO } else { line.len() });
        let mut plan = Plan::new(line.clone(), Order::Keys(direction, Spacing::default()), begin, None).unwrap();
        let whole = world.keys(&line, direction, Spacing::default(), begin, None);
        let mut lost = lost.into_iter().cycle();
        let (mut broken, mut got, mut steps) = (false, Vec::new(), 0);
        loop {
            steps += 1;
            prop_assert!(steps < 100_000, "no progress");
            match plan.poll() {
                Step::End => break,
                Step::Locate(_) if lost.next().unwrap() => { plan.vanished(); broken = true; }
                Step::Read(_) if lost.next().unwrap() => { plan.lost(); broken = true; }
                step => if let Some(timed) = world.answer(&mut plan, step) {
                    prop_assert!(!broken || timed.before != Before::Joined);
                    broken = false;
                    got.push(timed.npt);
                },
            }
        }
        // What was given is a part of the whole, in its order; a clock that was set back may bring out what it hid.
        let strange = line.pieces().windows(2).any(|p| p[1].npt < p[0].npt_end());
        let mut rest = whole.iter();
        prop_assert!(strange || got.iter().all(|g| rest.any(|w| w == g)));
    }

    #[test]
    fn no_more_is_looked_at_than_is_played(world in worlds(), direction in directions()) {
        // Spaced so wide that only the first one fits.
        let line = world.timeline(Gaps::Skip);
        let spacing = Spacing { apart_micros: i64::MAX / 4, micros_per_kib: 0 };
        let begin = Begin::At(if direction == Direction::Forward { Npt::ZERO } else { line.len() });
        let mut plan = Plan::new(line.clone(), Order::Keys(direction, spacing), begin, None).unwrap();
        let mut located = 0;
        loop {
            match plan.poll() {
                Step::End => break,
                step => {
                    located += usize::from(matches!(step, Step::Locate(_)));
                    world.answer(&mut plan, step);
                }
            }
        }
        // The last one is looked at forward, since it may still grow.
        prop_assert!(located <= 2);
    }
}

#[test]
fn growing_footage_gives_its_new_key_frames() {
    let start = WallTime::from_millis(1_000_000_000);
    let shape = Shape {
        gops: 4,
        gop: 10,
        per_cluster: 20,
        style: Style::Plain,
    };
    let whole = World(vec![
        segment(start, shape, 0),
        segment(start.offset(40 * FRAME), shape, 1000),
    ]);
    let mut young = (*whole.0[0].0).clone();
    young.table.clusters.truncate(2);
    young.table.keys.truncate(2);
    young.end = start.offset(20 * FRAME);
    let early = World(vec![(Arc::new(young), whole.0[0].1.clone())]);
    let order = |d| Order::Keys(d, Spacing::default());
    let line = early.timeline(Gaps::Skip);
    let mut plan = Plan::new(line.clone(), order(Direction::Forward), Begin::At(Npt::ZERO), None).unwrap();
    let mut got = early.play(&mut plan, usize::MAX);
    assert!(!plan.grow(&[(0, early.0[0].0.clone())]), "nothing is new");
    assert!(plan.grow(&[(0, whole.0[0].0.clone()), (0, whole.0[1].0.clone())]));
    got.extend(whole.play(&mut plan, usize::MAX));
    let numbers: Vec<u32> = got.iter().map(|t| number(&t.frame)).collect();
    assert_eq!(numbers, [0, 10, 20, 30, 1000, 1010, 1020, 1030]);
    assert!(plan.footage_ends());
    let mut back = Plan::new(line.clone(), order(Direction::Backward), Begin::At(line.len()), None).unwrap();
    assert!(!back.grow(&[(0, whole.0[0].0.clone())]));
    assert_eq!(whole.play(&mut back, usize::MAX).len(), 2);
    assert!(back.footage_ends(), "its beginning is where the segment's is");
}
