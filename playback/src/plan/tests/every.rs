//! Every frame, from any moment and behind any frame.

use corenvr_media::WallTime;
use proptest::prelude::*;

use super::{super::*, world::*};

fn every(line: &Timeline, start: Npt, until: Option<Npt>) -> Plan {
    Plan::new(line.clone(), Order::Every, Begin::At(start), until).unwrap()
}

fn plain(gops: usize, gop: usize, per_cluster: usize) -> Shape {
    Shape {
        gops,
        gop,
        per_cluster,
        style: Style::Plain,
    }
}

/// Those of `frames`, in stored order, that belong to a range that ends before `until`.
fn before(frames: &[(Frame, Npt)], until: Npt) -> Vec<(Frame, Npt)> {
    let is_wanted = |(f, npt): &(Frame, Npt)| f.track.0 == 0 && *npt < until;
    let mut out = Vec::new();
    for (i, (frame, npt)) in frames.iter().enumerate() {
        // Of what is stored behind a picture, it can need as much as is reordered at most.
        let later = frames[i + 1..].iter().filter(|(f, _)| f.track.0 == 0).take(REORDER_MAX);
        if *npt < until || (frame.track.0 == 0 && later.clone().any(is_wanted)) {
            out.push((frame.clone(), *npt));
        }
        let behind = frames[i + 1..].iter().any(is_wanted);
        // Sound counts up to where the picture is seen to be over.
        let over = |k: &(Frame, Npt)| k.0.track.0 == 0 && k.1 >= until;
        let seen = frames[..=i].iter().filter(|f| over(f)).collect::<Vec<_>>();
        let behind_key = seen
            .last()
            .is_some_and(|l| seen[..seen.len() - 1].iter().any(|k| k.0.key && k.0.time <= l.0.time));
        if !behind && (behind_key || seen.len() > REORDER_MAX) {
            break;
        }
    }
    out
}

impl World {
    /// What is to come when playing from `start` to `until`, by definition.
    fn every_at(&self, line: &Timeline, start: Npt, until: Npt) -> Vec<(Frame, Npt)> {
        let (first, t) = line.at(start).unwrap();
        let mut out = Vec::new();
        for (index, piece) in line.pieces().iter().enumerate().skip(first) {
            // Also if pictures before its first key frame are shown before the end.
            if piece.npt >= until {
                break;
            }
            let all: Vec<(&Frame, Npt)> = self.of(piece).collect();
            let key = all
                .iter()
                .rposition(|(f, _)| index == first && f.track.0 == 0 && f.key && f.time <= t)
                .unwrap_or(0);
            let from = if index == first {
                all[key].0.time
            } else {
                WallTime::from_micros(i64::MIN)
            };
            // Sound is looked for in the key frame's own cluster too.
            let (_, clusters) = &self.0[index];
            let starts = clusters
                .iter()
                .scan(0, |sum, c| Some(std::mem::replace(sum, *sum + c.len())));
            let cluster_start = starts.take_while(|s| *s <= key).last().unwrap();
            let wanted = all.iter().enumerate().filter(|(i, (f, _))| {
                let at = if f.track.0 == 0 { key } else { cluster_start };
                *i >= at && f.time >= from
            });
            let wanted: Vec<_> = wanted.map(|(_, (f, npt))| ((*f).clone(), *npt)).collect();
            out.extend(before(&wanted, until));
        }
        out
    }

    /// What is to come behind frame `at`, in stored order, of a piece.
    pub fn every_after(&self, line: &Timeline, piece: usize, at: usize) -> Vec<(Frame, Npt)> {
        let (shown, _) = self.of(&line.pieces()[piece]).nth(at).unwrap();
        let here = self.of(&line.pieces()[piece]).skip(at + 1);
        let here = here.filter(|(f, _)| !is_spare(f) || f.time > shown.time);
        let behind = line.pieces()[piece + 1..].iter().flat_map(|p| self.of(p));
        here.chain(behind).map(|(f, npt)| (f.clone(), npt)).collect()
    }
}

#[derive(Debug, Clone)]
enum Command {
    /// Play so many frames, which is also what a pause and a resume are.
    Take(usize),
    /// Seek to a share of the length, and end at a later one.
    Seek(f64, f64),
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let command = prop_oneof![
        (0usize..60).prop_map(Command::Take),
        (0.0..1.1f64, 0.0..1.2f64).prop_map(|(a, b)| Command::Seek(a, b)),
    ];
    prop::collection::vec(command, 1..12)
}

/// Pictures and sound, each in order: near the end of a range, sound may overtake a picture that is held back.
fn by_track(all: Vec<(Frame, Npt)>) -> [std::vec::IntoIter<(Frame, Npt)>; 2] {
    let (video, sound): (Vec<_>, Vec<_>) = all.into_iter().partition(|(f, _)| f.track.0 == 0);
    [video.into_iter(), sound.into_iter()]
}

proptest! {
    #[test]
    fn every_frame_once_and_in_order_whatever_is_commanded(world in worlds(), commands in commands(), keep: bool) {
        let line = world.timeline(if keep { Gaps::Keep } else { Gaps::Skip });
        let mut plan = every(&line, Npt::ZERO, None);
        let mut expected = by_track(world.every_at(&line, Npt::ZERO, Npt(i64::MAX)));
        let mut latest = None;
        for command in commands.into_iter().chain([Command::Take(usize::MAX)]) {
            match command {
                Command::Take(count) => {
                    for got in world.play(&mut plan, count) {
                        let track = &mut expected[usize::from(got.frame.track.0)];
                        prop_assert_eq!(Some((got.frame.clone(), got.npt)), track.next());
                        // Time may step back by what lies between a picture and the sound before it, by pictures that are shown before
                        // their key frame, and at a seam.
                        let back = SEAM_MICROS_MAX + 2 * FRAME;
                        prop_assert!(latest.is_none_or(|l: Npt| got.npt.micros_since(l) > -back));
                        latest = latest.max(Some(got.npt));
                    }
                }
                Command::Seek(a, b) => {
                    let (start, end) = (share(&line, a), share(&line, b.max(a)));
                    plan = every(&line, start, Some(end));
                    expected = by_track(world.every_at(&line, start, end));
                    latest = None;
                }
            }
        }
        prop_assert!(expected.iter_mut().all(|track| track.next().is_none()));
        prop_assert!(matches!(plan.poll(), Step::End));
    }

    #[test]
    fn play_goes_on_behind_any_picture(world in worlds(), pick in any::<prop::sample::Index>()) {
        let line = world.timeline(Gaps::Skip);
        let mut all = Vec::new();
        for (p, piece) in line.pieces().iter().enumerate() {
            for (i, (f, npt)) in world.of(piece).enumerate().filter(|(_, (f, _))| f.track.0 == 0) {
                // Where a clock was set back a little, two frames can be at one moment, and only one of them is found by it.
                all.push((p, i, f.clone(), npt));
            }
        }
        let (piece, at, _, npt) = pick.get(&all).clone();
        prop_assume!(all.iter().filter(|o| o.3 == npt).count() == 1);
        let mut plan = Plan::new(line.clone(), Order::Every, Begin::After(npt), None).unwrap();
        let got = world.play(&mut plan, usize::MAX);
        prop_assert_eq!(plan.start().map(|s| s.0), Some(npt));
        if let Some(first) = got.first() {
            let gap = line.gap_between(piece, (number(&first.frame) / 1000) as usize);
            prop_assert_eq!(first.before, if gap { Before::Gap } else { Before::Joined });
        }
        let expected = world.every_after(&line, piece, at);
        prop_assert_eq!(strip(got), expected);
    }

    #[test]
    fn behind_a_picture_that_is_not_there_play_goes_on_at_the_next_key_frame(world in worlds(), a in 0.0..1.0f64) {
        let line = world.timeline(Gaps::Skip);
        let npt = share(&line, a);
        let all = line.pieces().iter().flat_map(|p| world.video(p)).map(|(_, npt)| npt).collect::<Vec<_>>();
        prop_assume!(!all.contains(&npt));
        let mut plan = Plan::new(line.clone(), Order::Every, Begin::After(npt), None).unwrap();
        let got = world.play(&mut plan, usize::MAX);
        let home = line.at(npt).unwrap().0;
        let keys = line.pieces().iter().enumerate().skip(home).flat_map(|(i, p)| world.video(p).map(move |f| (i, f)));
        let expected = keys.into_iter().find(|(i, (f, n))| f.key && (*i > home || *n > npt)).map(|(_, (f, _))| f.clone());
        let first = got.iter().find(|t| t.frame.track.0 == 0);
        prop_assert_eq!(first.map(|t| t.frame.clone()), expected);
        prop_assert!(first.is_none_or(|t| t.before != Before::Joined));
    }

    #[test]
    fn what_is_lost_is_a_gap_and_play_goes_on_at_a_key_frame(world in worlds(), lost in prop::collection::vec(any::<bool>(), 64)) {
        let line = world.timeline(Gaps::Skip);
        let mut plan = every(&line, Npt::ZERO, None);
        let mut lost = lost.into_iter().cycle();
        let (mut broken, mut steps) = (false, 0);
        loop {
            steps += 1;
            prop_assert!(steps < 100_000, "no progress");
            match plan.poll() {
                Step::End => break,
                Step::Locate(_) if lost.next().unwrap() => { plan.vanished(); broken = true; }
                Step::Read(_) if lost.next().unwrap() => { plan.lost(); broken = true; }
                step => if let Some(got) = world.answer(&mut plan, step) && got.frame.track.0 == 0 {
                    prop_assert!(!broken || (got.frame.key && got.before != Before::Joined));
                    broken = false;
                },
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Turn {
    Every,
    Keys(Direction),
}

proptest! {
    #[test]
    fn whatever_the_turns_play_goes_on_from_the_picture_that_was_given_last(
        world in worlds(), a in 0.0..1.0f64,
        turns in prop::collection::vec((0..3u8, 0usize..40), 1..12),
    ) {
        let line = world.timeline(Gaps::Skip);
        let mut plan = every(&line, share(&line, a), None);
        let mut shown = world.play(&mut plan, 1).pop().map(|t| t.npt);
        for (turn, count) in turns {
            let Some(npt) = shown else { break };
            let here = |p: &Piece| world.of(p).position(|(f, n)| f.track.0 == 0 && n == npt);
            let found: Vec<_> = line.pieces().iter().enumerate().filter_map(|(i, p)| Some((i, here(p)?))).collect();
            // Where a clock was set back a little, two frames can be at one moment.
            prop_assume!(found.len() == 1);
            let turn = [Turn::Every, Turn::Keys(Direction::Forward), Turn::Keys(Direction::Backward)][usize::from(turn)];
            let (order, expected): (_, Vec<Npt>) = match turn {
                Turn::Every => {
                    let all = world.every_after(&line, found[0].0, found[0].1);
                    (Order::Every, all.into_iter().map(|f| f.1).collect())
                }
                Turn::Keys(direction) => {
                    let spacing = Spacing::default();
                    (Order::Keys(direction, spacing), world.keys(&line, direction, spacing, Begin::After(npt), None))
                }
            };
            let mut plan = Plan::new(line.clone(), order, Begin::After(npt), None).unwrap();
            let got = world.play(&mut plan, count);
            prop_assert!(got.iter().map(|t| t.npt).eq(expected.into_iter().take(count)));
            let pictures = got.iter().filter(|t| t.frame.track.0 == 0);
            let onward = |n: Npt| match turn {
                // Apart from reordered pictures and a seam.
                Turn::Every => n.micros_since(npt) > -SEAM_MICROS_MAX - 2 * FRAME,
                Turn::Keys(Direction::Forward) => n > npt,
                Turn::Keys(Direction::Backward) => n < npt,
            };
            prop_assert!(pictures.clone().all(|t| onward(t.npt)));
            shown = pictures.last().map_or(shown, |t| Some(t.npt));
        }
    }
}

#[test]
fn the_first_frame_behind_a_gap_says_so_on_every_track() {
    let start = WallTime::from_millis(1_000_000_000);
    let world = World(vec![
        segment(start, plain(1, 10, 8), 0),
        segment(start.offset(10 * FRAME), plain(1, 10, 8), 1000),
        segment(start.offset(100_000_000), plain(1, 10, 8), 2000),
    ]);
    let got = world.play(&mut every(&world.timeline(Gaps::Skip), Npt::ZERO, None), usize::MAX);
    let not_joined: Vec<(u32, u8, Before)> = got
        .iter()
        .filter(|t| t.before != Before::Joined)
        .map(|t| (number(&t.frame), t.frame.track.0, t.before))
        .collect();
    let expected = [
        (0, 0, Before::Cut),
        (0, 1, Before::Cut),
        (2000, 0, Before::Gap),
        (2000, 1, Before::Gap),
    ];
    assert_eq!(not_joined, expected);
}

#[test]
fn footage_ends_where_it_does_and_not_where_the_range_is_cut() {
    let start = WallTime::from_millis(1_000_000_000);
    let world = World(vec![
        segment(start, plain(1, 10, 8), 0),
        segment(start.offset(100_000_000), plain(2, 10, 8), 2000),
    ]);
    let line = world.timeline(Gaps::Skip);
    let ends = |until: Option<Npt>| {
        let mut plan = every(&line, Npt::ZERO, until);
        world.play(&mut plan, usize::MAX);
        plan.footage_ends()
    };
    assert!(ends(None));
    assert!(ends(Some(line.len())));
    assert!(ends(Some(line.pieces()[1].npt)), "at a gap");
    assert!(!ends(Some(Npt(25 * FRAME))));
    assert!(!ends(Some(Npt(5 * FRAME))));
    let mut open = (*world.0[1].0).clone();
    open.state = corenvr_store::SegmentState::Open;
    let growing = World(vec![world.0[0].clone(), (Arc::new(open), world.0[1].1.clone())]);
    let mut plan = every(&line, Npt::ZERO, None);
    growing.play(&mut plan, usize::MAX);
    assert!(!plan.footage_ends());
}

#[test]
fn a_growing_segment_is_played_to_its_new_end_and_into_the_next() {
    let start = WallTime::from_millis(1_000_000_000);
    let whole = World(vec![
        segment(start, plain(4, 10, 20), 0),
        segment(start.offset(40 * FRAME), plain(1, 10, 20), 1000),
    ]);
    let (meta, clusters) = &whole.0[0];
    let mut young = (**meta).clone();
    young.table.clusters.truncate(2);
    young.table.keys.truncate(2);
    young.end = start.offset(20 * FRAME);
    let early = World(vec![(Arc::new(young), clusters.clone())]);
    let mut plan = every(&early.timeline(Gaps::Skip), Npt::ZERO, None);
    let mut got = early.play(&mut plan, usize::MAX);
    assert_eq!(got.len(), 40);
    assert!(!plan.grow(&[(0, early.0[0].0.clone())]), "nothing is new");
    assert!(plan.grow(&[(0, meta.clone()), (0, whole.0[1].0.clone())]));
    got.extend(whole.play(&mut plan, usize::MAX));
    let numbers: Vec<u32> = got.iter().map(|t| number(&t.frame)).collect();
    let both = |n: u32| [n, n];
    assert_eq!(numbers, (0..40).chain(1000..1010).flat_map(both).collect::<Vec<_>>());
    assert_eq!(got.last().unwrap().npt, Npt(49 * FRAME + 3000));
}

#[test]
fn a_plan_needs_footage() {
    let keys = |direction| Order::Keys(direction, Spacing::default());
    for order in [
        Order::Every,
        Order::Gops,
        keys(Direction::Forward),
        keys(Direction::Backward),
    ] {
        assert!(Plan::new(Timeline::default(), order, Begin::At(Npt::ZERO), None).is_none());
    }
}
