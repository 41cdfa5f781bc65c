//! The plan against a definition of what it is to play, over random recordings and command sequences.

use bytes::Bytes;
use corenvr_media::{AudioCodec, AudioParameters, CameraName, TrackId, VideoCodec, VideoParameters};
use corenvr_store::{ClusterInfo, KeyFrame, SegmentKey, SegmentState, Table};
use proptest::prelude::*;

use super::*;

const FRAME: i64 = 40_000;
const CLUSTER_LEN: u64 = 4096;

/// A recording that exists only here: cluster `i` of a segment is at byte `4096 * (i + 1)`.
#[derive(Debug)]
struct World(Vec<(Arc<SegmentMeta>, Vec<Vec<Frame>>)>);

fn tracks() -> Arc<[CodecParameters]> {
    let video = VideoParameters {
        codec: VideoCodec::H264,
        extra: Bytes::new(),
        width: 16,
        height: 16,
        frame_rate: None,
    };
    let audio = AudioParameters {
        codec: AudioCodec::Pcma,
        extra: Bytes::new(),
        sample_rate: 8000,
        channels: 1,
    };
    [CodecParameters::Video(video), CodecParameters::Audio(audio)].into()
}

fn frame(track: u8, time: WallTime, key: bool, n: u32) -> Frame {
    Frame {
        track: TrackId(track),
        time,
        key,
        data: Bytes::copy_from_slice(&n.to_be_bytes()),
    }
}

/// A segment of `gops` groups of `gop` pictures, `per_cluster` frames to a cluster.
fn segment(start: WallTime, gops: usize, gop: usize, per_cluster: usize, first: u32) -> (Arc<SegmentMeta>, Vec<Vec<Frame>>) {
    let mut all = Vec::new();
    for i in 0..gops * gop {
        let t = start.offset(i as i64 * FRAME);
        let n = first + 2 * i as u32;
        all.push(frame(0, t, i % gop == 0, n));
        all.push(frame(1, t.offset(3000), true, n + 1));
    }
    let clusters: Vec<Vec<Frame>> = all.chunks(per_cluster).map(<[Frame]>::to_vec).collect();
    let mut table = Table::default();
    for (i, cluster) in clusters.iter().enumerate() {
        let offset = CLUSTER_LEN * (i as u64 + 1);
        let keys = cluster.iter().enumerate().filter(|(_, f)| f.key && f.track.0 == 0).map(|(j, f)| KeyFrame {
            time: f.time,
            offset: offset + j as u64 * 8 + 4,
            size: 4,
            block: offset + j as u64 * 8,
        });
        table.push(&ClusterInfo {
            offset,
            len: CLUSTER_LEN as u32,
            frames: cluster.len() as u32,
            first: cluster.iter().map(|f| f.time).min().unwrap(),
            last: cluster.iter().map(|f| f.time).max().unwrap(),
            keys: keys.collect(),
        });
    }
    let meta = SegmentMeta {
        key: SegmentKey {
            camera: CameraName::new("c").unwrap(),
            start,
        },
        end: start.offset((gops * gop) as i64 * FRAME),
        path: format!("/{}", start.as_micros()).into(),
        state: SegmentState::Sealed,
        bytes: 0,
        tracks: tracks(),
        table,
        gap_before: None,
    };
    (Arc::new(meta), clusters)
}

impl World {
    fn timeline(&self, gaps: Gaps) -> Timeline {
        let mut line = Timeline::new(gaps);
        for (meta, _) in &self.0 {
            line.push(0, meta.key.start, meta.key.start, meta.end);
        }
        line
    }

    fn answer(&self, plan: &mut Plan, step: Step) -> Option<Timed> {
        match step {
            Step::Frame(timed) => return Some(timed),
            Step::Locate(piece) => {
                let (meta, _) = self.0.iter().find(|(m, _)| m.key.start == piece.segment).unwrap();
                plan.located(meta.clone());
            }
            Step::Read(at) => {
                let (_, clusters) = self.0.iter().find(|(m, _)| m.key.start == at.segment).unwrap();
                plan.cluster(clusters[(at.offset / CLUSTER_LEN) as usize - 1].clone());
            }
            Step::Tracks(_) | Step::End => {}
        }
        None
    }

    fn play(&self, plan: &mut Plan, count: usize) -> Vec<Timed> {
        let mut out = Vec::new();
        while out.len() < count {
            let step = plan.poll();
            if matches!(step, Step::End) {
                break;
            }
            out.extend(self.answer(plan, step));
        }
        out
    }

    /// What is to come when playing from `start` to `end`, by definition.
    fn defined(&self, line: &Timeline, start: Npt, end: Npt) -> Vec<(Frame, Npt)> {
        let Some((first, t)) = line.at(start) else { return Vec::new() };
        let mut out = Vec::new();
        for (piece, (_, clusters)) in line.pieces().iter().zip(&self.0).skip(first) {
            let begin = piece.segment == line.pieces()[first].segment;
            let all: Vec<(usize, &Frame)> = clusters.iter().enumerate().flat_map(|(i, c)| c.iter().map(move |f| (i, f))).collect();
            let video_key = |f: &Frame| f.track.0 == 0 && f.key;
            let key = all.iter().rposition(|(_, f)| begin && video_key(f) && f.time <= t).unwrap_or(0);
            let (cluster, from) = (all[key].0, all[key].1.time);
            for (i, (c, f)) in all.iter().enumerate() {
                let wanted = if f.track.0 == 0 { i >= key } else { *c >= cluster && (!begin || f.time >= from) };
                let npt = piece.npt_of(f.time);
                if wanted && npt < end {
                    out.push(((*f).clone(), npt));
                }
            }
        }
        out
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

fn worlds() -> impl Strategy<Value = World> {
    // Seams, small gaps, large gaps, and clocks that were set back.
    let gap = prop_oneof![
        4 => Just(0),
        2 => -20_000..20_000i64,
        2 => 2_000_000..90_000_000i64,
        1 => -9_000_000..-2_000_000i64,
    ];
    prop::collection::vec((gap, 1usize..5, 1usize..12, 1usize..30), 1..6).prop_map(|list| {
        let mut start = WallTime::from_millis(1_000_000_000);
        let (mut out, mut first) = (Vec::new(), 0);
        for (gap, gops, gop, per_cluster) in list {
            let previous = out.last().map(|(m, _): &(Arc<SegmentMeta>, _)| m.key.start);
            start = start.offset(gap);
            if previous.is_some_and(|p| start <= p) {
                start = previous.unwrap().offset(1);
            }
            let made = segment(start, gops, gop, per_cluster, first);
            start = made.0.end;
            first += 1000;
            out.push(made);
        }
        World(out)
    })
}

proptest! {
    #[test]
    fn every_frame_once_and_in_order_whatever_is_commanded(world in worlds(), commands in commands(), keep: bool) {
        let line = world.timeline(if keep { Gaps::Keep } else { Gaps::Skip });
        let share = |s: f64| Npt((line.len().0 as f64 * s) as i64);
        let mut plan = Plan::new(line.clone(), Npt::ZERO, None).unwrap();
        let mut expected = world.defined(&line, Npt::ZERO, Npt(i64::MAX)).into_iter();
        let mut latest = None;
        for command in commands {
            match command {
                Command::Take(count) => {
                    for got in world.play(&mut plan, count) {
                        prop_assert_eq!(Some((got.frame.clone(), got.npt)), expected.next());
                        // Time may step back by what lies between a picture and the sound before it, and at a seam.
                        prop_assert!(latest.is_none_or(|l: Npt| got.npt.micros_since(l) > -SEAM_MICROS_MAX));
                        latest = latest.max(Some(got.npt));
                    }
                }
                Command::Seek(a, b) => {
                    let (start, end) = (share(a), share(b.max(a)));
                    plan = Plan::new(line.clone(), start, Some(end)).unwrap();
                    expected = world.defined(&line, start, end).into_iter();
                    latest = None;
                }
            }
        }
        let rest = world.play(&mut plan, usize::MAX);
        prop_assert_eq!(rest.len(), expected.clone().count());
        prop_assert!(rest.into_iter().map(|t| (t.frame, t.npt)).eq(expected));
        prop_assert!(matches!(plan.poll(), Step::End));
    }

    #[test]
    fn what_is_lost_is_a_gap_and_play_goes_on_at_a_key_frame(world in worlds(), lost in prop::collection::vec(any::<bool>(), 64)) {
        let line = world.timeline(Gaps::Skip);
        let mut plan = Plan::new(line, Npt::ZERO, None).unwrap();
        let mut lost = lost.into_iter().cycle();
        let (mut broken, mut steps) = (false, 0);
        loop {
            steps += 1;
            prop_assert!(steps < 100_000, "no progress");
            match plan.poll() {
                Step::End => break,
                Step::Locate(_) if lost.next().unwrap() => { plan.vanished(); broken = true; }
                Step::Read(_) if lost.next().unwrap() => { plan.cluster_lost(); broken = true; }
                step => if let Some(got) = world.answer(&mut plan, step) && got.frame.track.0 == 0 {
                    prop_assert!(!broken || got.frame.key);
                    broken = false;
                },
            }
        }
    }
}

#[test]
fn a_growing_segment_is_played_to_its_new_end_and_into_the_next() {
    let start = WallTime::from_millis(1_000_000_000);
    let whole = World(vec![segment(start, 4, 10, 20, 0), segment(start.offset(40 * FRAME), 1, 10, 20, 1000)]);
    let (meta, clusters) = &whole.0[0];
    let mut young = (**meta).clone();
    young.table.clusters.truncate(2);
    young.table.keys.truncate(2);
    young.end = start.offset(20 * FRAME);
    let early = World(vec![(Arc::new(young), clusters.clone())]);
    let mut plan = Plan::new(early.timeline(Gaps::Skip), Npt::ZERO, None).unwrap();
    let mut got = early.play(&mut plan, usize::MAX);
    assert_eq!(got.len(), 40);
    assert!(!plan.grow(&[(0, early.0[0].0.clone())]), "nothing is new");
    assert!(plan.grow(&[(0, meta.clone()), (0, whole.0[1].0.clone())]));
    got.extend(whole.play(&mut plan, usize::MAX));
    let numbers: Vec<u32> = got.iter().map(|t| u32::from_be_bytes(t.frame.data[..].try_into().unwrap())).collect();
    assert_eq!(numbers, (0..80).chain(1000..1020).collect::<Vec<_>>());
    assert_eq!(got.last().unwrap().npt, Npt(49 * FRAME + 3000));
}

#[test]
fn a_plan_needs_footage() {
    assert!(Plan::new(Timeline::default(), Npt::ZERO, None).is_none());
}
