//! Groups of pictures backward.

use corenvr_media::WallTime;
use proptest::prelude::*;

use super::{super::*, world::*};

impl World {
    /// What is to come, by definition: groups of frames with the end of each.
    fn gops(&self, line: &Timeline, begin: Npt, until: Option<Npt>) -> Vec<(Vec<(Frame, Npt)>, Npt)> {
        let home = line.at_or_before(begin).unwrap().0;
        let mut out = Vec::new();
        for piece in line.pieces()[..=home].iter().rev() {
            let video: Vec<(&Frame, Npt)> = self.video(piece).collect();
            let mut end = piece.npt_end();
            let keys: Vec<usize> = (0..video.len()).filter(|i| video[*i].0.key).collect();
            for (k, key) in keys.iter().enumerate().rev() {
                let next = keys.get(k + 1).copied().unwrap_or(video.len());
                let gop_end = std::mem::replace(&mut end, video[*key].1);
                if (out.is_empty() && video[*key].1 > begin) || until.is_some_and(|u| gop_end <= u) {
                    continue;
                }
                // Up to the last one that is wanted.
                let gop = &video[*key..next];
                let Some(last) = gop.iter().rposition(|(_, npt)| *npt <= begin) else {
                    continue;
                };
                let frames = gop[..=last].iter().map(|(f, npt)| ((*f).clone(), *npt)).collect();
                out.push((frames, gop_end.min(begin)));
            }
        }
        out
    }
}

proptest! {
    #[test]
    fn groups_backward_and_frames_forward(world in worlds(), keep: bool, a in 0.0..1.1f64, b in prop::option::of(0.0..1.1f64), after: bool) {
        let line = world.timeline(if keep { Gaps::Keep } else { Gaps::Skip });
        let begin = share(&line, a);
        let until = b.map(|b| share(&line, b).min(begin));
        let from = if after { Begin::After(begin) } else { Begin::At(begin) };
        let mut plan = Plan::new(line.clone(), Order::Gops, from, until).unwrap();
        let got = world.play(&mut plan, usize::MAX);
        let expected = world.gops(&line, begin, until);
        if let Some((gop, _)) = expected.first() {
            prop_assert_eq!(plan.start(), Some((gop[0].1, gop[0].0.time)));
        }
        prop_assert!(got.is_sorted_by_key(|t| std::cmp::Reverse(t.pace)));
        let mut rest = got.as_slice();
        for (gop, end) in expected {
            let (these, others) = rest.split_at_checked(gop.len()).unwrap();
            rest = others;
            prop_assert_eq!(strip(these.to_vec()), gop);
            prop_assert!(these.iter().all(|t| t.pace <= end));
            prop_assert!(these[0].before != Before::Joined && these[0].frame.key);
            prop_assert!(these[1..].iter().all(|t| t.before == Before::Joined));
        }
        prop_assert!(rest.is_empty());
        prop_assert!(matches!(plan.poll(), Step::End));
        prop_assert_eq!(plan.footage_ends() && until.is_none(), until.is_none());
    }

    #[test]
    fn every_cluster_is_read_once(shape in shapes()) {
        let start = WallTime::from_millis(1_000_000_000);
        let world = World(vec![segment(start, shape, 0)]);
        let line = world.timeline(Gaps::Skip);
        let mut plan = Plan::new(line.clone(), Order::Gops, Begin::At(line.len()), None).unwrap();
        let mut reads = Vec::new();
        loop {
            match plan.poll() {
                Step::End => break,
                step => {
                    if let Step::Read(Read::Cluster(at)) = &step {
                        reads.push(at.offset);
                    }
                    world.answer(&mut plan, step);
                }
            }
        }
        reads.sort_unstable();
        prop_assert!(reads.is_sorted_by(|a, b| a < b), "none twice");
        prop_assert_eq!(reads.len(), world.0[0].1.len());
    }

    #[test]
    fn a_group_that_is_torn_ends_there_and_the_one_before_it_follows(world in worlds(), lost in prop::collection::vec(any::<bool>(), 64)) {
        let line = world.timeline(Gaps::Skip);
        let mut plan = Plan::new(line.clone(), Order::Gops, Begin::At(line.len()), None).unwrap();
        let groups = world.gops(&line, line.len(), None);
        let mut lost = lost.into_iter().cycle();
        let (mut broken, mut got, mut steps) = (false, Vec::<Vec<Frame>>::new(), 0);
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
                    if timed.before == Before::Joined {
                        got.last_mut().unwrap().push(timed.frame);
                    } else {
                        got.push(vec![timed.frame]);
                    }
                },
            }
        }
        let mut rest = groups.iter();
        for gop in got {
            let starts = |(g, _): &&(Vec<(Frame, Npt)>, Npt)| g.iter().map(|f| &f.0).take(gop.len()).eq(&gop);
            prop_assert!(rest.any(|g| starts(&g)), "not the beginning of a group, or out of order");
        }
    }
}
