//! Frames of the archive: carries out what a plan asks for, and finds the seam to the present.

use std::{io, time::Duration};

use corenvr_media::{CameraName, Frame, WallTime};
use corenvr_shard::time;

use super::{Ending, Next, Sources, live::FromLive};
use crate::{
    live::{LiveError, position_of},
    plan::{Npt, Plan, Step},
    reader::{ClusterError, Reader},
    stats::count,
};

/// How often the seam from the archive to the live edge is looked for, and the pause between.
const SEAM_ATTEMPTS: u32 = 25;
const SEAM_PAUSE: Duration = Duration::from_millis(200);

/// A plan being carried out.
pub(super) struct FromArchive {
    pub plan: Plan,
    pub reader: Reader,
    /// At the end of what is recorded, go on with the present until this position.
    pub joins_live: Option<Npt>,
    /// The last frame given, by which the seam is found.
    pub last: Option<(Frame, Npt)>,
    pub seam_attempts: u32,
    pub reported: bool,
}

impl FromArchive {
    pub(super) async fn step(&mut self, sources: &Sources, camera: &CameraName) -> Next {
        loop {
            match self.plan.poll() {
                Step::Frame(timed) => {
                    if self.joins_live.is_some() {
                        self.last = Some((timed.frame.clone(), timed.npt));
                    }
                    return Next::Frame(timed);
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
                Step::Read(at) => match self.reader.read(&at).await {
                    Ok(frames) => {
                        self.plan.read(frames);
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
    pub(super) async fn lost(&mut self, sources: &Sources, camera: &CameraName, error: &ClusterError) {
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
            self.plan.lost();
        }
        count(&sources.stats.counters.unreadable);
        if !std::mem::replace(&mut self.reported, true) {
            tracing::warn!(%camera, %error, "footage cannot be read: playing goes on behind it");
        }
    }

    /// The end of what was recorded when this was looked up last: there may be more by now, or the live edge is reached.
    pub(super) async fn beyond(&mut self, sources: &Sources, camera: &CameraName) -> Option<Next> {
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
