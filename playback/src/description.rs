//! What a URL turned out to hold: tracks and, for a range, where its footage lies. Fixed once, so that every position of a session means
//! the same moment for as long as the session lasts.

use std::{net::IpAddr, rc::Rc, time::Duration};

use corenvr_media::{CameraName, CodecParameters, TimeRange, WallTime};
use corenvr_proto::{
    format::MediaFormat,
    rtp::packetize::sdp_format,
    rtsp::{RequestUri, Response, server::reply},
    sdp::{DescribedMedia, Description},
};

use corenvr_shard::time;

use crate::{
    feed::Sources,
    footage::Footage,
    live::LiveError,
    lookup::{find_range, live_failed},
    plan::{Direction, Gaps, Npt, Timeline},
    resource::{Resource, What, track_name},
    still,
};

/// Payload type of the first track; the next ones follow. Sound with a static type keeps that.
const PAYLOAD_TYPE: u8 = 96;

/// A presentation that can be set up.
#[derive(Debug)]
pub struct Described {
    /// What was asked for; without a track.
    pub resource: Resource,
    /// The tracks, video first.
    pub tracks: Rc<[CodecParameters]>,
    /// How RTP carries them.
    pub formats: Vec<MediaFormat>,
    /// Where the footage lies; `None` where it is not fixed by the URL: live, ONVIF replay, one frame.
    pub timeline: Option<Timeline>,
    /// How much of the range is still to come, in microseconds of normal play time behind the timeline: played live.
    pub to_come: i64,
    /// For clients of ONVIF: the first and the last moment.
    span: Option<TimeRange>,
    /// How long a single frame is shown, in microseconds.
    still: Option<i64>,
}

impl Described {
    /// Finds out. The error is the answer to the request. `onvif`: for a client that asks by ONVIF's rules.
    pub async fn find(sources: &Rc<Sources>, resource: Resource, onvif: bool) -> Result<Rc<Self>, Response> {
        let mut to_come = 0;
        let mut still = None;
        let (mut tracks, timeline) = match resource.what {
            What::Replay => (
                newest_tracks(&sources.footage, &resource.camera, LiveError::NoSuchCamera).await?,
                None,
            ),
            What::Still(at, direction) => {
                let found = still::neighbour(sources, &resource.camera, at, direction).await?;
                let (_, found) = found.ok_or_else(|| no_neighbour(&resource.camera, at, direction))?;
                still = Some(found.lasts_micros);
                (found.tracks.to_vec(), None)
            }
            What::Live => {
                let tracks = match sources.hub.describe(&resource.camera).await {
                    Ok(tracks) => tracks.to_vec(),
                    Err(error) => newest_tracks(&sources.footage, &resource.camera, error).await?,
                };
                (tracks, None)
            }
            What::Archive(range, gaps) => {
                let (tracks, timeline) = find_range(&sources.footage, &resource.camera, range, gaps).await?;
                // A virtual clip has an end that is known.
                if resource.end_given && resource.rate.is_none() {
                    to_come = still_to_come(sources, &resource.camera, range, &timeline).await;
                }
                (tracks, Some(timeline))
            }
        };
        one_of_each_kind(&mut tracks);
        if !resource.audio {
            tracks.retain(CodecParameters::is_video);
        }
        if tracks.is_empty() {
            return Err(reply::not_found("Without sound nothing is left of this recording"));
        }
        let span = match &timeline {
            Some(timeline) => timeline.span().map(|(start, end)| TimeRange { start, end }),
            None if onvif || resource.what == What::Replay => span(&sources.footage, &resource.camera).await,
            None => None,
        };
        let formats = (PAYLOAD_TYPE..).zip(&tracks).map(|(pt, t)| sdp_format(t, pt)).collect();
        Ok(Rc::new(Self {
            resource: Resource {
                track: None,
                ..resource
            },
            tracks: tracks.into(),
            formats,
            timeline,
            to_come,
            span,
            still,
        }))
    }

    /// The length of the presentation, in its own time; `None` for live.
    pub fn length(&self) -> Option<Npt> {
        let whole = self.timeline.as_ref()?.len().offset(self.to_come);
        let rate = self.resource.rate.map_or(1.0, f64::abs);
        Some(Npt((whole.0 as f64 / rate) as i64))
    }

    /// A position of the footage in the time of a virtual clip, which runs at its own rate, and from the end if that is negative.
    pub fn clip_time(&self, footage: Npt) -> Npt {
        match (self.resource.rate, &self.timeline) {
            (Some(rate), Some(timeline)) => {
                let from = if rate < 0.0 { timeline.len() } else { Npt::ZERO };
                Npt((footage.micros_since(from) as f64 / rate).round() as i64)
            }
            _ => footage,
        }
    }

    /// The inverse of [`Self::clip_time`].
    pub fn footage_time(&self, clip: Npt) -> Npt {
        match (self.resource.rate, &self.timeline) {
            (Some(rate), Some(timeline)) => {
                let from = if rate < 0.0 { timeline.len() } else { Npt::ZERO };
                let npt = from.offset((clip.0 as f64 * rate).round() as i64);
                npt.clamp(Npt::ZERO, timeline.len())
            }
            _ => clip,
        }
    }

    /// The control URL of a track: in the path, before the query, which is where players look for it.
    pub fn track_url(&self, index: usize) -> String {
        RequestUri::parse(&self.resource.url).map_or_else(
            |_| self.resource.url.clone(),
            |uri| uri.with_segment(0, Some(&track_name(index))),
        )
    }

    /// The description for players; for clients of ONVIF with a range of UTC and track references instead.
    pub fn sdp(&self, origin: IpAddr, onvif: bool) -> String {
        let onvif = onvif || self.resource.what == What::Replay;
        let length = self.length().or(self.still.map(Npt)).filter(|_| !onvif);
        let length = length.map(|n| Duration::from_micros(n.0.max(0) as u64));
        let clock = self.span.filter(|_| onvif);
        let first = self
            .timeline
            .as_ref()
            .and_then(Timeline::span)
            .map_or(0, |(start, _)| start.as_millis() as u64);
        let media = self.formats.iter().zip(self.tracks.iter()).enumerate();
        Description {
            name: self.resource.camera.to_string(),
            origin,
            version: first,
            control: self.resource.url.clone(),
            length,
            clock,
            media: media
                .map(|(index, (format, track))| DescribedMedia {
                    format: format.clone(),
                    control: self.track_url(index),
                    onvif_track: onvif.then(|| onvif_track(index, track)),
                    frame_rate: match track {
                        CodecParameters::Video(v) => v.frame_rate,
                        CodecParameters::Audio(_) => None,
                    },
                })
                .collect(),
        }
        .to_string()
    }
}

/// ONVIF's name of a track.
fn onvif_track(index: usize, track: &CodecParameters) -> String {
    let kind = if track.is_video() { "VIDEO" } else { "AUDIO" };
    format!("{kind}{:03}", index + 1)
}

/// The first and the last moment that there is footage of, as far as the archive answers.
async fn span(footage: &Footage, camera: &CameraName) -> Option<TimeRange> {
    let now = WallTime::from_micros(time::wall_now_micros());
    let first = footage.nearest(camera, WallTime::MIN).await.ok()??;
    let last = footage.nearest(camera, now).await.ok()??;
    Some(TimeRange {
        start: first,
        end: last.max(first),
    })
}

fn no_neighbour(camera: &CameraName, at: WallTime, direction: Direction) -> Response {
    let which = match direction {
        Direction::Forward => "after",
        Direction::Backward => "before",
    };
    reply::not_found(format!("There is no frame of {camera} {which} {at}"))
}

/// The tracks of the newest footage, for a live URL whose camera does not send: a client may still ask for a range by UTC.
async fn newest_tracks(
    footage: &Footage,
    camera: &CameraName,
    error: LiveError,
) -> Result<Vec<CodecParameters>, Response> {
    let failed = |_| live_failed(camera, error);
    let now = WallTime::from_micros(time::wall_now_micros());
    let newest = footage.nearest(camera, now).await.map_err(failed)?;
    let newest = newest.ok_or_else(|| live_failed(camera, error))?;
    let range = TimeRange {
        start: newest,
        end: newest.offset(1),
    };
    let found = footage.find(camera, range, Gaps::Skip).await.map_err(failed)?;
    Ok(found.ok_or_else(|| live_failed(camera, error))?.tracks)
}

/// How much of a range lies in the future, if its camera is sending.
async fn still_to_come(sources: &Sources, camera: &CameraName, range: TimeRange, timeline: &Timeline) -> i64 {
    let now = WallTime::from_micros(time::wall_now_micros());
    let Some((_, recorded)) = timeline.span() else { return 0 };
    if range.end <= now || sources.hub.describe(camera).await.is_err() {
        return 0;
    }
    range.end.micros_since(recorded).max(0)
}

/// The first video and the first sound, in this order.
fn one_of_each_kind(tracks: &mut Vec<CodecParameters>) {
    let first = |video| tracks.iter().find(|t| t.is_video() == video).cloned();
    let kept = [first(true), first(false)];
    *tracks = kept.into_iter().flatten().collect();
}
