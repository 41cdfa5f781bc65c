//! Frames in order, from the archive, from the live edge, or from the one into the other.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use corenvr_media::{CameraName, CodecParameters, Frame, WallTime};
use corenvr_shard::time;
use corenvr_store::live::LiveItem;

use crate::{
    footage::Footage,
    live::{LiveError, LiveHub, Viewer, position_of},
    plan::{Npt, Plan, Step},
    reader::{ClusterError, Files, Reader},
    stats::{PlaybackStats, count},
};

/// How long a live viewer waits for the next frame before the session is told that it ends.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How often the seam from the archive to the live edge is looked for, and the pause between.
const SEAM_ATTEMPTS: u32 = 25;
const SEAM_PAUSE: Duration = Duration::from_millis(200);
/// How far behind the end of a range a live feed looks for pictures that are shown before it.
const REORDER_MICROS_MAX: i64 = 500_000;

/// What a feed gives.
#[derive(Debug)]
pub enum Item {
    /// Send this frame of a described track.
    Frame(usize, Frame, Npt),
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
            Self::Range => "end of the range",
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
    /// Changes that come before anything else.
    changes: Vec<Item>,
    from: From,
}

enum From {
    Archive(Box<FromArchive>),
    Live(FromLive),
}

struct FromArchive {
    plan: Plan,
    reader: Reader,
    /// At the end of what is recorded, go on with the present until this position.
    joins_live: Option<Npt>,
    /// The last frame given, by which the seam is found.
    last: Option<(Frame, Npt)>,
    seam_attempts: u32,
    reported: bool,
}

struct FromLive {
    viewer: Viewer,
    backlog: std::vec::IntoIter<Frame>,
    /// A moment and its position.
    origin: (WallTime, Npt),
    /// Frames from this position on are not wanted.
    until: Npt,
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
        let reader = Reader::new(sources.files.clone());
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
            changes: Vec::new(),
            from,
        }
    }

    /// Where play really starts; `None` if there is nothing to play. To be asked before the first [`Self::next`].
    pub async fn start(&mut self) -> Result<Option<(Npt, WallTime)>, Ending> {
        let From::Archive(from) = &mut self.from else {
            return Ok(self.live_origin());
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
        match &self.from {
            From::Archive(from) => from
                .plan
                .tracks()
                .is_none_or(|tracks| self.tracks.clone().follow(tracks).is_some()),
            From::Live(_) => true,
        }
    }

    /// The first moment of a live feed and its position.
    fn live_origin(&self) -> Option<(Npt, WallTime)> {
        match &self.from {
            From::Live(live) => Some((live.origin.1, live.origin.0)),
            From::Archive(_) => None,
        }
    }

    /// The newest position of a live feed's backlog: what is before it has happened already.
    pub fn backlog_end(&self) -> Option<Npt> {
        match &self.from {
            From::Live(live) => {
                let last = live.backlog.as_slice().iter().map(|f| f.time).max()?;
                Some(live.npt(last))
            }
            From::Archive(_) => None,
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
            From::Archive(_) => 0,
        }
    }

    /// The next thing to do. Cancel safe.
    pub async fn next(&mut self) -> Item {
        loop {
            if !self.changes.is_empty() {
                return self.changes.remove(0);
            }
            let step = match &mut self.from {
                From::Archive(from) => from.step(&self.sources, &self.camera).await,
                From::Live(live) => live.step().await,
            };
            match step {
                Next::Tracks(tracks) => self.follow(&tracks),
                Next::Frame(frame, npt) => {
                    if let Some(track) = self.tracks.of(&frame) {
                        return Item::Frame(track, frame, npt);
                    }
                }
                Next::Join(live, tracks) => {
                    self.from = From::Live(live);
                    self.follow(&tracks);
                }
                Next::End(ending) => return Item::End(ending),
            }
        }
    }

    fn follow(&mut self, tracks: &[CodecParameters]) {
        self.changes = self.tracks.follow(tracks).unwrap_or_else(|| {
            tracing::info!(camera = %self.camera, "the codec changes inside a range: playing ends there");
            vec![Item::End(Ending::Codec)]
        });
    }
}

enum Next {
    Tracks(Arc<[CodecParameters]>),
    Frame(Frame, Npt),
    Join(FromLive, Arc<[CodecParameters]>),
    End(Ending),
}

impl FromArchive {
    async fn step(&mut self, sources: &Sources, camera: &CameraName) -> Next {
        loop {
            match self.plan.poll() {
                Step::Frame(timed) => {
                    if self.joins_live.is_some() {
                        self.last = Some((timed.frame.clone(), timed.npt));
                    }
                    return Next::Frame(timed.frame, timed.npt);
                }
                Step::Tracks(tracks) => return Next::Tracks(tracks),
                Step::Locate(piece) => match sources.footage.locate(camera, piece).await {
                    Ok(Some(meta)) => self.plan.located(meta),
                    Ok(None) => {
                        tracing::info!(%camera, segment = %piece.segment, "a segment is gone: playing goes on behind it");
                        count(&sources.stats.counters.unreadable);
                        self.plan.vanished();
                    }
                    Err(error) => {
                        tracing::warn!(%camera, %error, "the archive does not answer");
                        return Next::End(Ending::Archive);
                    }
                },
                Step::Read(at) => match self.reader.cluster(&at).await {
                    Ok(frames) => {
                        self.plan.cluster(frames);
                        if let Some(ahead) = self.plan.ahead() {
                            self.reader.prefetch(ahead);
                        }
                    }
                    Err(error) => self.lost(sources, camera, &error).await,
                },
                Step::End if self.joins_live.is_some_and(|until| self.plan.timeline().len() < until) => {
                    if let Some(next) = self.beyond(sources, camera).await {
                        return next;
                    }
                }
                Step::End => return Next::End(Ending::Range),
            }
        }
    }

    /// A cluster could not be read. The file may have got its final name since it was located.
    async fn lost(&mut self, sources: &Sources, camera: &CameraName, error: &ClusterError) {
        if let ClusterError::Io(e) = error
            && e.kind() == io::ErrorKind::NotFound
            && let Some(piece) = self.plan.current()
        {
            let moved = sources.footage.locate(camera, piece).await.ok().flatten();
            if moved.is_some_and(|meta| self.plan.relocated(meta)) {
                return;
            }
            self.plan.vanished();
        } else {
            self.plan.cluster_lost();
        }
        count(&sources.stats.counters.unreadable);
        if !std::mem::replace(&mut self.reported, true) {
            tracing::warn!(%camera, %error, "footage cannot be read: playing goes on behind it");
        }
    }

    /// The end of what was recorded when this was looked up last: there may be more by now, or the live edge is reached.
    async fn beyond(&mut self, sources: &Sources, camera: &CameraName) -> Option<Next> {
        let now = WallTime::from_micros(time::wall_now_micros());
        let last_piece = *self.plan.timeline().pieces().last()?;
        match sources.footage.newer(camera, last_piece, now).await {
            Ok(latest) if self.plan.grow(&latest) => {
                self.seam_attempts = 0;
                return None;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%camera, %error, "the archive does not answer");
                return Some(Next::End(Ending::Archive));
            }
        }
        let Some((last, npt)) = &self.last else {
            return Some(Next::End(Ending::Range));
        };
        match sources.hub.view(camera, Some(last.time)).await {
            Ok(viewer) => {
                let seam = position_of(last, &viewer.backlog);
                self.seam_attempts += 1;
                if seam.is_some() || self.seam_attempts > SEAM_ATTEMPTS {
                    if seam.is_none() {
                        count(&sources.stats.counters.seams_missed);
                        tracing::warn!(%camera, at = %last.time, "frames are missing between archive and live edge");
                    }
                    let tracks = viewer.parameters.clone();
                    let until = self.joins_live.unwrap_or(Npt(i64::MAX));
                    let joined = FromLive::joined(viewer, seam, (last.time, *npt), until);
                    return Some(Next::Join(joined, tracks));
                }
            }
            Err(LiveError::NoSuchCamera) => return Some(Next::End(Ending::Range)),
            Err(LiveError::Silent | LiveError::Busy) if self.seam_attempts > SEAM_ATTEMPTS => {
                return Some(Next::End(Ending::Camera));
            }
            Err(LiveError::Silent | LiveError::Busy) => self.seam_attempts += 1,
        }
        time::sleep(SEAM_PAUSE).await;
        None
    }
}

impl FromLive {
    /// Goes on behind the frame at `seam` of the backlog; without one, at the first key frame after the moment of `origin`.
    fn joined(mut viewer: Viewer, seam: Option<usize>, origin: (WallTime, Npt), until: Npt) -> Self {
        let time = origin.0;
        let mut backlog = std::mem::take(&mut viewer.backlog);
        let video = viewer.parameters.iter().position(CodecParameters::is_video);
        let starts =
            |f: &Frame| f.key && video.is_none_or(|v| usize::from(f.track.0) == v) && f.time > time.offset(1000);
        let from = seam.map(|at| at + 1).or_else(|| backlog.iter().position(starts));
        drop(backlog.drain(..from.unwrap_or(backlog.len())));
        Self {
            viewer,
            backlog: backlog.into_iter(),
            origin,
            until,
        }
    }

    fn npt(&self, t: WallTime) -> Npt {
        self.origin.1.offset(t.micros_since(self.origin.0))
    }

    async fn step(&mut self) -> Next {
        loop {
            let item = match self.backlog.next() {
                Some(frame) => Ok(LiveItem::Frame(frame)),
                None => time::timeout(SILENCE_MAX, self.viewer.next()).await,
            };
            match item {
                Ok(LiveItem::Frame(frame)) => {
                    let npt = self.npt(frame.time);
                    if npt < self.until {
                        return Next::Frame(frame, npt);
                    }
                    // A picture behind the end in stored order may belong before it.
                    if npt.micros_since(self.until) > REORDER_MICROS_MAX {
                        return Next::End(Ending::Range);
                    }
                }
                Ok(LiveItem::Parameters(tracks)) => return Next::Tracks(tracks),
                Ok(LiveItem::Gap(_)) => {}
                Ok(LiveItem::End) | Err(time::Elapsed) => return Next::End(Ending::Camera),
            }
        }
    }
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
