//! Recordings that exist only here, and what is in them by definition.

use bytes::Bytes;
use corenvr_media::{AudioCodec, AudioParameters, CameraName, CodecParameters, TrackId, VideoCodec, VideoParameters};
use corenvr_store::{ClusterInfo, KeyFrame, SegmentKey, SegmentState, Table};
use proptest::prelude::*;

use super::super::*;

pub const FRAME: i64 = 40_000;
const CLUSTER_LEN: u64 = 4096;

/// Segments with their clusters: cluster `i` of a segment is at byte `4096 * (i + 1)`, its frame `j` 8 bytes a frame behind that.
#[derive(Clone)]
pub struct World(pub Vec<(Arc<SegmentMeta>, Vec<Vec<Frame>>)>);

/// Each segment's start, and the video of each cluster: number, and how it is stored.
impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = |f: &Frame| match f.data[4] {
            KEY => 'I',
            SPARE => 'b',
            _ => 'P',
        };
        for (meta, clusters) in &self.0 {
            let text = |c: &Vec<Frame>| -> Vec<String> {
                let video = c.iter().filter(|f| f.track.0 == 0);
                video.map(|f| format!("{}{}", kind(f), number(f))).collect()
            };
            let start = meta.key.start.as_micros() - 1_000_000_000_000;
            writeln!(f, "{start}: {:?}", clusters.iter().map(text).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// How the pictures of a group depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Each on the one before it.
    Plain,
    /// So many pictures between two others that nothing depends on.
    Between(usize),
    /// Three pictures between two others, of which the others need the middle one.
    Pyramid,
    /// As `Pyramid`, and two pictures are shown before the key frame that they are stored behind, except at the start of a segment.
    Open,
    /// The same at the start of a segment too.
    OpenFromStart,
}

impl Style {
    /// How many pictures of a group are shown before its key frame.
    fn leading(self, len: usize, first: bool) -> usize {
        match self {
            Self::Open if !first && len > 2 => 2,
            Self::OpenFromStart if len > 2 => 2,
            _ => 0,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub gops: usize,
    pub gop: usize,
    pub per_cluster: usize,
    pub style: Style,
}

impl Shape {
    /// How many pictures are shown before the first key frame.
    fn lead(self) -> i64 {
        self.style.leading(self.gop, true) as i64
    }
}

pub fn tracks() -> Arc<[CodecParameters]> {
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

const KEY: u8 = 0x65;
const NEEDED: u8 = 0x41;
const SPARE: u8 = 0x01;

fn picture(time: WallTime, kind: u8, n: u32) -> Frame {
    let mut data = vec![0, 0, 0, 5, kind];
    data.extend(n.to_be_bytes());
    Frame {
        track: TrackId(0),
        time,
        key: kind == KEY,
        data: data.into(),
    }
}

pub fn number(frame: &Frame) -> u32 {
    u32::from_be_bytes(*frame.data.last_chunk().unwrap())
}

pub fn is_spare(frame: &Frame) -> bool {
    frame.track.0 == 0 && frame.data[4] == SPARE
}

/// One group as it is stored: the place of each picture in display order, and its kind.
fn group(style: Style, len: usize, first: bool) -> Vec<(usize, u8)> {
    let leading = style.leading(len, first);
    let mut out = vec![(leading, KEY)];
    if leading > 0 {
        out.extend([(0, NEEDED), (1, SPARE)]);
    }
    let between = match style {
        Style::Plain => 0,
        Style::Between(n) => n,
        Style::Pyramid | Style::Open | Style::OpenFromStart => 3,
    };
    let mut at = leading + 1;
    while at < len {
        let anchor = (at + between).min(len - 1);
        out.push((anchor, NEEDED));
        let middle = (!matches!(style, Style::Between(_)) && anchor - at == 3).then_some(at + 1);
        out.extend(middle.map(|m| (m, NEEDED)));
        out.extend((at..anchor).filter(|i| Some(*i) != middle).map(|i| (i, SPARE)));
        at = anchor + 1;
    }
    out
}

/// A segment that starts at `start`. Pictures have the numbers from `first` on in display order.
pub fn segment(start: WallTime, shape: Shape, first: u32) -> (Arc<SegmentMeta>, Vec<Vec<Frame>>) {
    let mut all = Vec::new();
    let lead = shape.lead();
    for g in 0..shape.gops {
        for (place, kind) in group(shape.style, shape.gop, g == 0) {
            let i = g * shape.gop + place;
            let t = start.offset((i as i64 - lead) * FRAME);
            all.push(picture(t, kind, first + i as u32));
            let n = all.len() as u32 / 2;
            all.push(Frame {
                track: TrackId(1),
                time: start.offset((i64::from(n) - lead).max(0) * FRAME + 3000),
                key: true,
                data: Bytes::copy_from_slice(&(first + n).to_be_bytes()),
            });
        }
    }
    let clusters: Vec<Vec<Frame>> = all.chunks(shape.per_cluster).map(<[Frame]>::to_vec).collect();
    let mut table = Table::default();
    for (i, cluster) in clusters.iter().enumerate() {
        let offset = CLUSTER_LEN * (i as u64 + 1);
        let keys = cluster
            .iter()
            .enumerate()
            .filter(|(_, f)| f.key && f.track.0 == 0)
            .map(|(j, f)| KeyFrame {
                time: f.time,
                offset: offset + j as u64 * 8 + 4,
                size: number(f) * 37 % 5000,
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
        end: start.offset(((shape.gops * shape.gop) as i64 - lead) * FRAME),
        path: format!("/{}", start.as_micros()).into(),
        state: SegmentState::Sealed,
        bytes: 0,
        tracks: tracks(),
        table,
        gap_before: None,
        backfilled: false,
    };
    (Arc::new(meta), clusters)
}

impl World {
    pub fn timeline(&self, gaps: Gaps) -> Timeline {
        let mut line = Timeline::new(gaps);
        for (meta, _) in &self.0 {
            line.push(0, meta.key.start, meta.key.start, meta.end);
        }
        line
    }

    pub fn meta(&self, piece: &Piece) -> Arc<SegmentMeta> {
        let found = self.0.iter().find(|(m, _)| m.key.start == piece.segment);
        found.unwrap().0.clone()
    }

    pub fn frames(&self, read: &Read) -> Vec<Frame> {
        let path = match read {
            Read::Cluster(at) => &at.path,
            Read::Key(at) => &at.path,
        };
        let (_, clusters) = self.0.iter().find(|(m, _)| m.path == *path).unwrap();
        match read {
            Read::Cluster(at) => {
                assert_eq!((at.offset % CLUSTER_LEN, u64::from(at.len)), (0, CLUSTER_LEN));
                clusters[(at.offset / CLUSTER_LEN) as usize - 1].clone()
            }
            Read::Key(at) => {
                let (cluster, inside) = (at.offset / CLUSTER_LEN, at.offset % CLUSTER_LEN);
                let frame = clusters[cluster as usize - 1][(inside / 8) as usize].clone();
                assert!(frame.key && frame.track == at.track && frame.time == at.time);
                assert_eq!(at.size, number(&frame) * 37 % 5000);
                vec![frame]
            }
        }
    }

    pub fn answer(&self, plan: &mut Plan, step: Step) -> Option<Timed> {
        match step {
            Step::Frame(timed) => return Some(timed),
            Step::Locate(piece) => plan.located(self.meta(&piece)),
            Step::Read(at) => {
                plan.read(self.frames(&at));
                // Asking changes nothing, and what is read ahead can be read.
                drop(plan.ahead().map(|at| self.frames(&at)));
            }
            Step::Tracks(_) | Step::End => {}
        }
        None
    }

    /// At most `count` frames.
    pub fn play(&self, plan: &mut Plan, count: usize) -> Vec<Timed> {
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

    /// The frames of a piece in stored order, with their positions.
    pub fn of<'a>(&'a self, piece: &'a Piece) -> impl Iterator<Item = (&'a Frame, Npt)> + 'a {
        let found = self.0.iter().find(|(m, _)| m.key.start == piece.segment);
        found.unwrap().1.iter().flatten().map(|f| (f, piece.npt_of(f.time)))
    }

    /// The video of a piece in stored order, with its positions.
    pub fn video<'a>(&'a self, piece: &'a Piece) -> impl Iterator<Item = (&'a Frame, Npt)> + 'a {
        self.of(piece).filter(|(f, _)| f.track.0 == 0)
    }
}

pub fn shapes() -> impl Strategy<Value = Shape> {
    let style = prop_oneof![
        3 => Just(Style::Plain),
        1 => (1usize..4).prop_map(Style::Between),
        2 => Just(Style::Pyramid),
        2 => Just(Style::Open),
        1 => Just(Style::OpenFromStart),
    ];
    (1usize..5, 1usize..14, 1usize..30, style).prop_map(|(gops, gop, per_cluster, style)| Shape {
        gops,
        gop,
        per_cluster,
        style,
    })
}

pub fn worlds() -> impl Strategy<Value = World> {
    // Seams, small gaps, large gaps, and clocks that were set back.
    let gap = prop_oneof![
        4 => Just(0),
        2 => -20_000..20_000i64,
        2 => 2_000_000..90_000_000i64,
        1 => -9_000_000..-2_000_000i64,
    ];
    prop::collection::vec((gap, shapes()), 1..6).prop_map(|list| {
        let mut start = WallTime::from_millis(1_000_000_000);
        let (mut out, mut first) = (Vec::new(), 0);
        for (gap, shape) in list {
            let previous = out.last().map(|(m, _): &(Arc<SegmentMeta>, _)| m.key.start);
            start = start.offset(gap + shape.lead() * FRAME);
            if previous.is_some_and(|p| start <= p) {
                start = previous.unwrap().offset(1 + shape.lead() * FRAME);
            }
            let made = segment(start, shape, first);
            start = made.0.end;
            first += 1000;
            out.push(made);
        }
        World(out)
    })
}

/// A share of the length of a timeline.
pub fn share(line: &Timeline, s: f64) -> Npt {
    Npt((line.len().0 as f64 * s) as i64)
}

pub fn strip(timed: Vec<Timed>) -> Vec<(Frame, Npt)> {
    timed.into_iter().map(|t| (t.frame, t.npt)).collect()
}
