//! What a URL turned out to hold: tracks and, for a range, where its footage lies. Fixed once, so that every position of a session means
//! the same moment for as long as the session lasts.

use std::{net::IpAddr, rc::Rc, time::Duration};

use corenvr_media::{CameraName, CodecParameters, TimeRange, WallTime};
use corenvr_proto::{
    format::MediaFormat,
    rtp::packetize::sdp_format,
    rtsp::{RequestUri, Response, StatusCode, server::reply},
    sdp::{DescribedMedia, Description},
};

use corenvr_shard::time;

use crate::{
    feed::Sources,
    footage::{Footage, FootageError},
    live::LiveError,
    plan::{Gaps, Npt, Timeline},
    resource::{Resource, What, track_name},
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
    /// Where the footage lies; `None` for live.
    pub timeline: Option<Timeline>,
    /// How much of the range is still to come, in microseconds of normal play time behind the timeline: played live.
    pub to_come: i64,
}

impl Described {
    /// Finds out. The error is the answer to the request.
    pub async fn find(sources: &Sources, resource: Resource) -> Result<Rc<Self>, Response> {
        let mut to_come = 0;
        let (mut tracks, timeline) = match resource.what {
            What::Live => {
                let tracks = match sources.hub.describe(&resource.camera).await {
                    Ok(tracks) => tracks.to_vec(),
                    Err(error) => newest_tracks(&sources.footage, &resource.camera, error).await?,
                };
                (tracks, None)
            }
            What::Archive(range, gaps) => {
                let (tracks, timeline) = find_range(&sources.footage, &resource.camera, range, gaps).await?;
                if resource.end_given {
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
        }))
    }

    /// The length of the presentation; `None` for live.
    pub fn length(&self) -> Option<Npt> {
        Some(self.timeline.as_ref()?.len().offset(self.to_come))
    }

    /// The control URL of a track: in the path, before the query, which is where players look for it.
    pub fn track_url(&self, index: usize) -> String {
        RequestUri::parse(&self.resource.url).map_or_else(
            |_| self.resource.url.clone(),
            |uri| uri.with_segment(0, Some(&track_name(index))),
        )
    }

    /// The description for players.
    pub fn sdp(&self, origin: IpAddr) -> String {
        let length = self.length().map(|n| Duration::from_micros(n.0.max(0) as u64));
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
            clock: None,
            media: media
                .map(|(index, (format, track))| DescribedMedia {
                    format: format.clone(),
                    control: self.track_url(index),
                    onvif_track: None,
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

/// The tracks and the timeline of a range, or 404 with the nearest footage.
pub async fn find_range(
    footage: &Footage,
    camera: &CameraName,
    range: TimeRange,
    gaps: Gaps,
) -> Result<(Vec<CodecParameters>, Timeline), Response> {
    match footage.find(camera, range, gaps).await {
        Ok(Some(found)) => Ok((found.tracks, found.timeline)),
        Ok(None) => Err(nothing_there(footage, camera, range).await),
        Err(error) => Err(archive_failed(camera, &error)),
    }
}

async fn nothing_there(footage: &Footage, camera: &CameraName, range: TimeRange) -> Response {
    match footage.nearest(camera, range.start).await {
        Ok(Some(nearest)) => reply::not_found(format!(
            "No footage of {camera} from {} to {}; the nearest is at {}",
            shown(range.start),
            shown(range.end),
            shown(nearest)
        )),
        Ok(None) => reply::not_found(format!("There is no footage of a camera {camera}")),
        Err(error) => archive_failed(camera, &error),
    }
}

fn shown(t: WallTime) -> String {
    t.to_string()
}

/// The archive does not answer: 503.
pub fn archive_failed(camera: &CameraName, error: &FootageError) -> Response {
    tracing::warn!(%camera, %error, "the archive does not answer");
    Response::new(StatusCode::SERVICE_UNAVAILABLE).because("The archive does not answer; see the log of the recorder")
}

/// What a live stream that cannot be had is answered with.
pub fn live_failed(camera: &CameraName, error: LiveError) -> Response {
    match error {
        LiveError::NoSuchCamera => reply::not_found(format!(
            "No camera {camera} is recorded now; what was recorded of it plays with ?start="
        )),
        LiveError::Silent => Response::new(StatusCode::SERVICE_UNAVAILABLE).because(format!(
            "The camera {camera} is not sending; its recordings can be played with ?start="
        )),
        LiveError::Busy => {
            Response::new(StatusCode::SERVICE_UNAVAILABLE).because(format!("The recorder of {camera} is overloaded"))
        }
    }
}
