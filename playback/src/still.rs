//! Finds one displayed frame in the archive: carries out what `plan::Single` asks for.

use std::rc::Rc;

use corenvr_media::{CameraName, TimeRange, WallTime};
use corenvr_proto::rtsp::{Response, server::reply};

use crate::{
    feed::Sources,
    lookup::{archive_failed, find_range},
    plan::{Direction, Found, Gaps, Read, Single, SingleStep, Timeline, Wanted},
    reader::Reader,
};

/// How far around a moment its neighbours are looked for, one after the other: most are close, and a wide look costs.
const AROUND_MICROS: [i64; 3] = [600_000_000, 24 * 3_600_000_000, 3 * 24 * 3_600_000_000];

/// One displayed frame of a timeline; `None` at its ends.
pub async fn find(
    sources: &Rc<Sources>,
    camera: &CameraName,
    timeline: &Timeline,
    wanted: Wanted,
) -> Result<Option<Found>, Response> {
    let mut single = Single::new(timeline.clone(), wanted);
    let mut reader = Reader::new(sources.files.clone(), sources.stats.clone());
    loop {
        match single.poll() {
            SingleStep::Locate(piece) => match sources.footage.locate(camera, piece).await {
                Ok(Some(meta)) => single.located(meta),
                Ok(None) => single.vanished(),
                Err(error) => return Err(archive_failed(camera, &error)),
            },
            SingleStep::Read(at) => match reader.read(&Read::Cluster(at)).await {
                Ok(frames) => single.read(frames),
                Err(error) => {
                    tracing::warn!(%camera, %error, "footage cannot be read: a step passes over it");
                    single.lost();
                }
            },
            SingleStep::Found(found) => return Ok(Some(found)),
            SingleStep::Nothing => return Ok(None),
            SingleStep::TooFar => {
                return Err(reply::invalid_range(
                    "The frame is too far from its key frame to be had by itself",
                ));
            }
        }
    }
}

/// The frame before the one that is shown at a moment of UTC; where none is shown, the last one before.
pub async fn before(
    sources: &Rc<Sources>,
    camera: &CameraName,
    timeline: &Timeline,
    at: WallTime,
) -> Result<Option<Found>, Response> {
    let Some(shown) = find(sources, camera, timeline, Wanted::Shown(timeline.npt_before(at))).await? else {
        return Ok(None);
    };
    if at.micros_since(shown.wall) >= shown.lasts_micros {
        return Ok(Some(shown));
    }
    find(sources, camera, timeline, Wanted::Previous(shown.npt)).await
}

/// The frame shown next after, or last before, a moment of UTC, and the timeline that it is in.
pub async fn neighbour(
    sources: &Rc<Sources>,
    camera: &CameraName,
    at: WallTime,
    direction: Direction,
) -> Result<Option<(Timeline, Found)>, Response> {
    for around in AROUND_MICROS {
        // Ahead of a step back, and behind a step ahead, the group of pictures that the moment lies in.
        let (back, ahead) = match direction {
            Direction::Forward => (AROUND_MICROS[0], around),
            Direction::Backward => (around, AROUND_MICROS[0]),
        };
        let range = TimeRange {
            start: at.offset(-back),
            end: at.offset(ahead),
        };
        let Ok((_, timeline)) = find_range(&sources.footage, camera, range, Gaps::Skip).await else {
            continue;
        };
        let found = match direction {
            Direction::Forward => {
                let wanted = Wanted::Next(timeline.npt_before(at));
                find(sources, camera, &timeline, wanted).await?
            }
            Direction::Backward => before(sources, camera, &timeline, at).await?,
        };
        if let Some(found) = found {
            return Ok(Some((timeline, found)));
        }
    }
    Ok(None)
}
