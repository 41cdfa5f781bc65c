//! Questions to the archive and to live cameras whose answer, where there is nothing, is an RTSP response.

use corenvr_media::{CameraName, CodecParameters, TimeRange, WallTime};
use corenvr_proto::rtsp::{Response, StatusCode, server::reply};

use crate::{
    footage::{Footage, FootageError},
    live::LiveError,
    plan::{Gaps, Timeline},
};

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
