//! Frames in the order of a plan, from the archive, from the live edge, or from the one into the other.

mod archive;
mod live;

use std::{collections::VecDeque, rc::Rc, sync::Arc};

use corenvr_media::{CameraName, CodecParameters, Frame, TrackId, WallTime};
use corenvr_proto::bitstream::is_disposable;
use corenvr_shard::time;

use self::{archive::FromArchive, live::FromLive};
use crate::{
    footage::Footage,
    live::{LiveError, LiveHub},
    plan::{Before, Found, Mark, Marker, Npt, Order, Plan, Step, Timed, Timeline},
    reader::{Files, Reader},
    stats::PlaybackStats,
};

/// A frame of a described track, to be sent.
#[derive(Debug, Clone)]
pub struct Shot {
    /// Which of the described tracks.
    pub track: usize,
    /// The frame.
    pub frame: Frame,
    /// When it is shown.
    pub npt: Npt,
    /// When it has to be with the client; later frames may be shown before it.
    pub pace: Npt,
    /// It does not continue what came before it.
    pub cut: bool,
    /// What ONVIF's extension says of it, if that is wanted.
    pub mark: Option<Mark>,
}

/// What a feed gives.
#[derive(Debug)]
pub enum Item {
    /// Send this.
    Shot(Shot),
    /// From here on frames come as they happen.
    Joined {
        /// The first of them, if it is there already.
        start: (Npt, WallTime),
        /// The newest position that has happened already.
        backlog_end: Option<Npt>,
    },
    /// From the next frame on, key frames of a described track belong to these parameters.
    Parameters(usize, CodecParameters),
    /// Nothing follows.
    End(Ending),
}

/// Why a feed ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The range is done.
    Range,
    /// The one frame that was asked for is sent; the session is paused at it.
    Still,
    /// The footage goes on with a codec that was not described.
    Codec,
    /// The camera is gone or has been silent for long.
    Camera,
    /// The archive does not answer.
    Archive,
}

impl Ending {
    /// What BYE says.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Range | Self::Still => "end of the range",
            Self::Codec => "the footage goes on with another codec",
            Self::Camera => "the camera is not sending",
            Self::Archive => "the archive does not answer",
        }
    }
}

/// What all feeds of a shard share.
pub struct Sources {
    /// The archives.
    pub footage: Footage,
    /// Open segment files.
    pub files: Rc<Files>,
    /// Live cameras.
    pub hub: Rc<LiveHub>,
    /// Counters.
    pub stats: Arc<PlaybackStats>,
}

/// Which of the described tracks each track of the footage is.
#[derive(Debug, Clone, Default)]
struct TrackMap {
    described: Rc<[CodecParameters]>,
    /// Indexed by the footage's tracks.
    map: Vec<Option<usize>>,
}

impl TrackMap {
    /// Follows a change of the footage's tracks. `None` if a described track has become something else.
    fn follow(&mut self, tracks: &[CodecParameters]) -> Option<Vec<Item>> {
        self.map.clear();
        let mut changes = Vec::new();
        let mut taken = vec![false; self.described.len()];
        for track in tracks {
            let index = self.described.iter().position(|d| d.is_video() == track.is_video());
            let index = index.filter(|i| !std::mem::replace(&mut taken[*i], true));
            self.map.push(index);
            if let Some(index) = index {
                if !compatible(&self.described[index], track) {
                    return None;
                }
                changes.push(Item::Parameters(index, track.clone()));
            }
        }
        Some(changes)
    }

    fn of(&self, frame: &Frame) -> Option<usize> {
        self.map.get(usize::from(frame.track.0)).copied().flatten()
    }
}

/// Whether a decoder that was told of `described` can go on with `now`. Video parameters travel in band, those of sound do not.
pub fn compatible(described: &CodecParameters, now: &CodecParameters) -> bool {
    match (described, now) {
        (CodecParameters::Video(a), CodecParameters::Video(b)) => a.codec == b.codec,
        (CodecParameters::Audio(a), CodecParameters::Audio(b)) => a == b,
        _ => false,
    }
}

/// Frames of one range or of the present.
pub struct Feed {
    sources: Rc<Sources>,
    camera: CameraName,
    tracks: TrackMap,
    /// What comes before anything else.
    queue: VecDeque<Item>,
    from: From,
    /// Pictures that nothing depends on are left out.
    only_needed: bool,
    /// Says what frames are to their neighbours, if that is wanted.
    marker: Option<Marker>,
    /// Marks are wanted, and the next live frame is the first one.
    first_live: bool,
}

enum From {
    Archive(Box<FromArchive>),
    Live(FromLive),
    Still(Box<FromStill>),
}

/// One displayed frame.
struct FromStill {
    timeline: Timeline,
    frames: std::vec::IntoIter<Timed>,
    tracks: Arc<[CodecParameters]>,
    announced: bool,
    at: (Npt, WallTime),
    lasts_micros: i64,
    ending: Ending,
}

impl Feed {
    /// Plays a range of the archive; with `joins_live`, and then into the present until that position.
    pub fn archive(
        sources: Rc<Sources>,
        camera: CameraName,
        described: Rc<[CodecParameters]>,
        plan: Plan,
        joins_live: Option<Npt>,
    ) -> Self {
        let reader = Reader::new(sources.files.clone(), sources.stats.clone());
        Self::new(
            sources,
            camera,
            described,
            From::Archive(Box::new(FromArchive {
                plan,
                reader,
                joins_live,
                last: None,
                seam_attempts: 0,
                reported: false,
            })),
        )
    }

    /// One displayed frame of `timeline`. `ending` says how that ends.
    pub fn still(
        sources: Rc<Sources>,
        camera: CameraName,
        described: Rc<[CodecParameters]>,
        timeline: Timeline,
        found: Found,
        ending: Ending,
    ) -> Self {
        let still = FromStill {
            timeline,
            frames: found.frames.into_iter(),
            tracks: found.tracks,
            announced: false,
            at: (found.npt, found.wall),
            lasts_micros: found.lasts_micros,
            ending,
        };
        Self::new(sources, camera, described, From::Still(Box::new(still)))
    }

    /// Leaves out the pictures that nothing depends on.
    pub const fn only_needed(mut self) -> Self {
        self.only_needed = true;
        self
    }

    /// Marks every frame.
    pub fn marked(mut self) -> Self {
        self.marker = Some(Marker::default());
        self.first_live = true;
        self
    }

    /// Plays the present; its first frame is at `npt`.
    pub async fn live(
        sources: Rc<Sources>,
        camera: CameraName,
        described: Rc<[CodecParameters]>,
        npt: Npt,
    ) -> Result<Self, LiveError> {
        let mut viewer = sources.hub.view(&camera, None).await?;
        let backlog = std::mem::take(&mut viewer.backlog);
        let now = WallTime::from_micros(time::wall_now_micros());
        let start = backlog.iter().map(|f| f.time).min().unwrap_or(now);
        let parameters = viewer.parameters.clone();
        let from = From::Live(FromLive {
            viewer,
            backlog: backlog.into_iter(),
            origin: (start, npt),
            until: Npt(i64::MAX),
        });
        let mut feed = Self::new(sources, camera, described, from);
        feed.follow(&parameters);
        Ok(feed)
    }

    fn new(sources: Rc<Sources>, camera: CameraName, described: Rc<[CodecParameters]>, from: From) -> Self {
        Self {
            sources,
            camera,
            tracks: TrackMap {
                described,
                map: Vec::new(),
            },
            queue: VecDeque::new(),
            from,
            only_needed: false,
            marker: None,
            first_live: false,
        }
    }

    /// Where play really starts; `None` if there is nothing to play. To be asked before the first [`Self::next`].
    pub async fn start(&mut self) -> Result<Option<(Npt, WallTime)>, Ending> {
        let from = match &mut self.from {
            From::Archive(from) => from,
            From::Live(live) => return Ok(Some((live.origin.1, live.origin.0))),
            From::Still(still) => return Ok(Some(still.at)),
        };
        loop {
            if let Some(start) = from.plan.start() {
                return Ok(Some(start));
            }
            match from.plan.poll() {
                Step::Locate(piece) => match self.sources.footage.locate(&self.camera, piece).await {
                    Ok(Some(meta)) => from.plan.located(meta),
                    Ok(None) => from.plan.vanished(),
                    Err(error) => {
                        tracing::warn!(camera = %self.camera, %error, "the archive does not answer");
                        return Err(Ending::Archive);
                    }
                },
                _ => return Ok(None),
            }
        }
    }

    /// Whether what plays first has the codecs that were described; known after [`Self::start`].
    pub fn fits(&self) -> bool {
        let follows = |tracks: &[CodecParameters]| self.tracks.clone().follow(tracks).is_some();
        match &self.from {
            From::Archive(from) => from.plan.tracks().is_none_or(follows),
            From::Still(still) => follows(&still.tracks),
            From::Live(_) => true,
        }
    }

    /// The newest position of a live feed's backlog: what is before it has happened already.
    pub fn backlog_end(&self) -> Option<Npt> {
        match &self.from {
            From::Live(live) => live.backlog_end(),
            From::Archive(_) | From::Still(_) => None,
        }
    }

    /// Where it ends, if that is known.
    pub fn end(&self) -> Option<Npt> {
        match &self.from {
            From::Archive(from) => match from.joins_live {
                None => Some(from.plan.end()),
                until => until.filter(|u| u.0 < i64::MAX),
            },
            From::Live(live) => Some(live.until).filter(|u| u.0 < i64::MAX),
            From::Still(still) => Some(still.at.0.offset(still.lasts_micros)),
        }
    }

    /// The order of an archive's frames.
    pub fn order(&self) -> Option<Order> {
        match &self.from {
            From::Archive(from) => Some(from.plan.order()),
            From::Live(_) | From::Still(_) => None,
        }
    }

    /// UTC of a position, if it is one of the archive.
    pub fn wall_of(&self, npt: Npt) -> Option<WallTime> {
        match &self.from {
            From::Archive(from) => {
                let timeline = from.plan.timeline();
                let beyond = npt.micros_since(timeline.len());
                match timeline.span() {
                    Some((_, end)) if beyond >= 0 && from.joins_live.is_some() => Some(end.offset(beyond)),
                    _ => timeline.at(npt).map(|(_, t)| t),
                }
            }
            From::Live(live) => Some(live.origin.0.offset(npt.micros_since(live.origin.1))),
            From::Still(still) => still.timeline.at(npt).map(|(_, t)| t),
        }
    }

    /// Whether frames come as they happen.
    pub const fn is_live(&self) -> bool {
        matches!(self.from, From::Live(_))
    }

    /// Frames passed over because this viewer fell behind.
    pub fn take_skipped(&self) -> u64 {
        match &self.from {
            From::Live(live) => live.viewer.take_skipped(),
            From::Archive(_) | From::Still(_) => 0,
        }
    }

    /// The next thing to do. Cancel safe.
    pub async fn next(&mut self) -> Item {
        loop {
            if let Some(item) = self.queue.pop_front() {
                return item;
            }
            let step = match &mut self.from {
                From::Archive(from) => from.step(&self.sources, &self.camera).await,
                From::Live(live) => live.step().await,
                From::Still(still) => still.step(),
            };
            match step {
                Next::Tracks(tracks) => self.follow(&tracks),
                Next::Frame(timed) => self.give(timed),
                Next::Join(live, tracks) => {
                    self.release(false, false);
                    let start = live.backlog.as_slice().first().map(|f| (live.npt(f.time), f.time));
                    self.queue.push_back(Item::Joined {
                        start: start.unwrap_or((live.origin.1, live.origin.0)),
                        backlog_end: live.backlog_end(),
                    });
                    self.from = From::Live(live);
                    self.follow(&tracks);
                }
                Next::End(ending) => {
                    let footage_ends = match &self.from {
                        From::Archive(from) => from.plan.footage_ends(),
                        From::Live(_) | From::Still(_) => false,
                    };
                    self.release(footage_ends, true);
                    self.queue.push_back(Item::End(ending));
                }
            }
        }
    }

    fn give(&mut self, mut timed: Timed) {
        let Some(track) = self.tracks.of(&timed.frame) else {
            return;
        };
        let video = match &self.tracks.described[track] {
            CodecParameters::Video(v) => Some(v.codec),
            CodecParameters::Audio(_) => None,
        };
        if self.only_needed && video.is_some_and(|codec| is_disposable(codec, &timed.frame.data)) {
            return;
        }
        timed.frame.track = TrackId(track as u8);
        let Some(marker) = &mut self.marker else {
            self.queue.push_back(Item::Shot(shot(timed, None)));
            return;
        };
        if matches!(self.from, From::Live(_)) {
            // The present has no neighbour yet to be compared with.
            let mark = Mark {
                clean: video.is_none() || timed.frame.key,
                section_end: false,
                discontinuity: std::mem::take(&mut self.first_live),
                terminal: false,
            };
            self.queue.push_back(Item::Shot(shot(timed, Some(mark))));
            return;
        }
        self.first_live = false;
        let known = marker.push(timed, video.is_some());
        let known = known.into_iter().chain(std::iter::from_fn(|| marker.pop()));
        self.queue.extend(known.map(|(t, m)| Item::Shot(shot(t, Some(m)))));
    }

    /// Gives what waited for its neighbour.
    fn release(&mut self, footage_ends: bool, terminal: bool) {
        let Some(marker) = &mut self.marker else { return };
        for (timed, mut mark) in marker.finish(footage_ends) {
            mark.terminal &= terminal;
            self.queue.push_back(Item::Shot(shot(timed, Some(mark))));
        }
    }

    fn follow(&mut self, tracks: &[CodecParameters]) {
        if let Some(changes) = self.tracks.follow(tracks) {
            self.queue.extend(changes);
        } else {
            tracing::info!(camera = %self.camera, "the codec changes inside a range: playing ends there");
            self.release(false, true);
            self.queue.push_back(Item::End(Ending::Codec));
        }
    }
}

fn shot(timed: Timed, mark: Option<Mark>) -> Shot {
    Shot {
        track: usize::from(timed.frame.track.0),
        npt: timed.npt,
        pace: timed.pace,
        cut: timed.before == Before::Cut,
        frame: timed.frame,
        mark,
    }
}

impl FromStill {
    fn step(&mut self) -> Next {
        if !std::mem::replace(&mut self.announced, true) {
            return Next::Tracks(self.tracks.clone());
        }
        self.frames.next().map_or(Next::End(self.ending), Next::Frame)
    }
}

enum Next {
    Tracks(Arc<[CodecParameters]>),
    Frame(Timed),
    Join(FromLive, Arc<[CodecParameters]>),
    End(Ending),
}

#[cfg(test)]
mod tests {
    use corenvr_media::{AudioCodec, AudioParameters, TrackId, VideoCodec, VideoParameters};

    use super::*;

    fn video(codec: VideoCodec, extra: &'static [u8]) -> CodecParameters {
        CodecParameters::Video(VideoParameters {
            codec,
            extra: extra.into(),
            width: 64,
            height: 64,
            frame_rate: None,
        })
    }

    fn audio(sample_rate: u32) -> CodecParameters {
        CodecParameters::Audio(AudioParameters {
            codec: AudioCodec::Pcma,
            extra: bytes::Bytes::new(),
            sample_rate,
            channels: 1,
        })
    }

    fn frame(track: u8) -> Frame {
        Frame {
            track: TrackId(track),
            time: WallTime::MIN,
            key: true,
            data: bytes::Bytes::new(),
        }
    }

    #[test]
    fn tracks_are_followed_by_kind_and_a_change_of_codec_ends_play() {
        let mut map = TrackMap {
            described: [video(VideoCodec::H264, b"a"), audio(8000)].into(),
            map: Vec::new(),
        };
        let changes = map
            .follow(&[audio(8000), video(VideoCodec::H264, b"b"), audio(16_000)])
            .unwrap();
        assert_eq!(changes.len(), 2);
        assert_eq!(
            (map.of(&frame(0)), map.of(&frame(1)), map.of(&frame(2))),
            (Some(1), Some(0), None)
        );
        assert!(map.follow(&[video(VideoCodec::H264, b"c")]).is_some());
        assert_eq!((map.of(&frame(0)), map.of(&frame(1))), (Some(0), None));
        assert!(map.follow(&[video(VideoCodec::H265, b"c")]).is_none());
        assert!(map.follow(&[video(VideoCodec::H264, b"a"), audio(16_000)]).is_none());
    }
}
