//! One displayed frame, and steps from one to the next.

use corenvr_media::WallTime;
use proptest::prelude::*;

use super::{super::*, world::*};

impl World {
    fn single(&self, line: &Timeline, wanted: Wanted) -> SingleStep {
        let mut single = Single::new(line.clone(), wanted);
        for _ in 0..10_000 {
            match single.poll() {
                SingleStep::Locate(piece) => single.located(self.meta(&piece)),
                SingleStep::Read(at) => single.read(self.frames(&Read::Cluster(at))),
                step => return step,
            }
        }
        panic!("no progress");
    }

    fn found(&self, line: &Timeline, wanted: Wanted) -> Option<Found> {
        match self.single(line, wanted) {
            SingleStep::Found(found) => Some(found),
            SingleStep::Nothing => None,
            step => panic!("{step:?}"),
        }
    }

    /// All frames in display order: piece, index in stored order, position.
    fn displayed(&self, line: &Timeline) -> Vec<(usize, usize, Npt)> {
        let mut out = Vec::new();
        for (i, piece) in line.pieces().iter().enumerate() {
            let next = line.pieces().get(i + 1).map_or(Npt(i64::MAX), |p| p.npt);
            let mut here: Vec<_> = self.video(piece).enumerate().map(|(j, (_, npt))| (i, j, npt)).collect();
            // What is shown before the first key frame of a segment cannot be decoded from it.
            let first = here[0].2;
            here.retain(|f| first <= f.2 && f.2 < next);
            here.sort_by_key(|f| f.2);
            out.extend(here);
        }
        out
    }

    /// What has to be decoded for a frame, by definition.
    fn needed(&self, line: &Timeline, (piece, at, npt): (usize, usize, Npt)) -> Vec<Frame> {
        let video: Vec<(&Frame, Npt)> = self.video(&line.pieces()[piece]).collect();
        let key = (0..video.len())
            .rev()
            .find(|i| video[*i].0.key && video[*i].1 <= npt)
            .unwrap();
        let before = video[key..at]
            .iter()
            .filter(|(f, n)| !is_spare(f) && *n >= video[key].1);
        before.chain([&video[at]]).map(|(f, _)| (*f).clone()).collect()
    }
}

fn frames(found: &Found) -> Vec<Frame> {
    found.frames.iter().map(|t| t.frame.clone()).collect()
}

proptest! {
    #[test]
    fn a_step_is_to_the_neighbour_that_is_displayed(world in worlds(), keep: bool, pick in any::<prop::sample::Index>(), later in 0.0..1.0f64) {
        let line = world.timeline(if keep { Gaps::Keep } else { Gaps::Skip });
        let all = world.displayed(&line);
        let at = pick.index(all.len());
        let npt = all[at].2;
        let next = all.get(at + 1);
        let lasts = next.map_or(FRAME, |n| n.2.micros_since(npt));
        let moment = npt.offset((lasts as f64 * later) as i64);
        for (wanted, expected) in [
            (Wanted::Shown(npt), Some(&all[at])),
            (Wanted::Shown(moment), Some(&all[at])),
            (Wanted::Next(npt), next),
            (Wanted::Next(moment), next),
            (Wanted::Previous(npt), at.checked_sub(1).map(|i| &all[i])),
            (Wanted::Previous(moment.offset(1)), Some(&all[at])),
        ] {
            let found = world.found(&line, wanted);
            prop_assert_eq!(found.as_ref().map(|f| f.npt), expected.map(|e| e.2), "{:?}", wanted);
            if let (Some(found), Some(expected)) = (found, expected) {
                let piece = line.pieces()[expected.0];
                prop_assert_eq!(frames(&found), world.needed(&line, *expected));
                prop_assert_eq!(found.wall, found.frames.last().unwrap().frame.time);
                prop_assert_eq!(found.npt, found.frames.last().unwrap().npt);
                prop_assert_eq!(piece.npt_of(found.wall), found.npt);
                let i = all.iter().position(|f| f == expected).unwrap();
                let joined = all.get(i + 1).filter(|n| !line.gap_between(n.0, expected.0));
                prop_assert_eq!(found.lasts_micros, joined.map_or(piece.npt_end(), |n| n.2).micros_since(found.npt));
            }
        }
    }

    #[test]
    fn what_continues_a_frame_needs_nothing_else(world in worlds(), pick in any::<prop::sample::Index>()) {
        let line = world.timeline(Gaps::Skip);
        let all = world.displayed(&line);
        let at = pick.index(all.len());
        let shown = world.found(&line, Wanted::Shown(all[at].2)).unwrap();
        if let Some(next) = world.found(&line, Wanted::Next(shown.npt)) {
            let (had, needs) = (frames(&shown), frames(&next));
            let (new, before) = needs.split_last().unwrap();
            // The decoder has everything that it needs, and the frame is new to it.
            let enough = all[at].0 == all[at + 1].0 && before.iter().all(|f| had.contains(f)) && !had.contains(new) && !new.key;
            prop_assert_eq!(next.continues, enough.then_some(shown.npt));
        }
    }

    #[test]
    fn steps_lead_from_one_end_to_the_other_and_back(world in worlds(), keep: bool) {
        let line = world.timeline(if keep { Gaps::Keep } else { Gaps::Skip });
        let all: Vec<Npt> = world.displayed(&line).iter().map(|f| f.2).collect();
        let mut there = vec![world.found(&line, Wanted::Shown(Npt(-5))).unwrap().npt];
        while let Some(next) = world.found(&line, Wanted::Next(*there.last().unwrap())) {
            there.push(next.npt);
        }
        prop_assert_eq!(&there, &all);
        let mut back = vec![world.found(&line, Wanted::Shown(Npt(i64::MAX))).unwrap().npt];
        while let Some(previous) = world.found(&line, Wanted::Previous(*back.last().unwrap())) {
            back.push(previous.npt);
        }
        back.reverse();
        prop_assert_eq!(&back, &all);
    }

    #[test]
    fn what_is_lost_is_stepped_over(world in worlds(), next: bool, a in 0.0..1.0f64, lost in prop::collection::vec(any::<bool>(), 64)) {
        let line = world.timeline(Gaps::Skip);
        let npt = share(&line, a);
        let mut single = Single::new(line.clone(), if next { Wanted::Next(npt) } else { Wanted::Previous(npt) });
        let (mut lost, mut steps) = (lost.into_iter().cycle(), 0);
        loop {
            steps += 1;
            prop_assert!(steps < 10_000, "no progress");
            match single.poll() {
                SingleStep::Locate(_) if lost.next().unwrap() => single.vanished(),
                SingleStep::Locate(piece) => single.located(world.meta(&piece)),
                SingleStep::Read(_) if lost.next().unwrap() => single.lost(),
                SingleStep::Read(at) => single.read(world.frames(&Read::Cluster(at))),
                SingleStep::Found(found) => {
                    prop_assert_eq!((found.npt > npt, found.npt < npt), (next, !next));
                    let all = world.displayed(&line);
                    let at = all.iter().find(|f| f.2 == found.npt).unwrap();
                    prop_assert_eq!(frames(&found), world.needed(&line, *at));
                    break;
                }
                SingleStep::Nothing => break,
                SingleStep::TooFar => panic!("too far"),
            }
        }
    }
}

#[test]
fn a_group_beyond_the_limit_is_too_far_but_its_beginning_is_not() {
    let shape = Shape {
        gops: 1,
        gop: 100,
        per_cluster: 10,
        style: Style::Plain,
    };
    let (meta, clusters) = segment(WallTime::from_millis(1_000_000_000), shape, 0);
    let mut large = (*meta).clone();
    for cluster in &mut large.table.clusters {
        cluster.len = 15 << 20;
    }
    let large = Arc::new(large);
    let line = World(vec![(meta, clusters.clone())]).timeline(Gaps::Skip);
    let look = |npt: Npt| {
        let mut single = Single::new(line.clone(), Wanted::Shown(npt));
        loop {
            match single.poll() {
                SingleStep::Locate(_) => single.located(large.clone()),
                SingleStep::Read(at) => {
                    let index = large.table.clusters.iter().position(|c| c.offset == at.offset);
                    single.read(clusters[index.unwrap()].clone());
                }
                step => return step,
            }
        }
    };
    assert!(matches!(look(Npt(FRAME)), SingleStep::Found(f) if f.frames.len() == 2));
    assert!(matches!(look(Npt(60 * FRAME)), SingleStep::TooFar));
}

#[test]
fn without_footage_there_is_nothing() {
    let mut single = Single::new(Timeline::default(), Wanted::Shown(Npt::ZERO));
    assert!(matches!(single.poll(), SingleStep::Nothing));
}
