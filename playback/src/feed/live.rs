//! Frames of the present.

use std::time::Duration;

use corenvr_media::{CodecParameters, Frame, WallTime};
use corenvr_shard::time;
use corenvr_store::live::LiveItem;

use super::{Ending, Next};
use crate::{
    live::Viewer,
    plan::{Before, Npt, Timed},
};

/// How long a live viewer waits for the next frame before the session is told that it ends.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How far behind the end of a range a live feed looks for pictures that are shown before it.
const REORDER_MICROS_MAX: i64 = 500_000;

/// A viewer of the present.
pub(super) struct FromLive {
    pub viewer: Viewer,
    pub backlog: std::vec::IntoIter<Frame>,
    /// A moment and its position.
    pub origin: (WallTime, Npt),
    /// Frames from this position on are not wanted.
    pub until: Npt,
}

impl FromLive {
    /// Goes on behind the frame at `seam` of the backlog; without one, at the first key frame after the moment of `origin`.
    pub(super) fn joined(mut viewer: Viewer, seam: Option<usize>, origin: (WallTime, Npt), until: Npt) -> Self {
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

    pub(super) fn npt(&self, t: WallTime) -> Npt {
        self.origin.1.offset(t.micros_since(self.origin.0))
    }

    pub(super) fn backlog_end(&self) -> Option<Npt> {
        let last = self.backlog.as_slice().iter().map(|f| f.time).max()?;
        Some(self.npt(last))
    }

    pub(super) async fn step(&mut self) -> Next {
        loop {
            let item = match self.backlog.next() {
                Some(frame) => Ok(LiveItem::Frame(frame)),
                None => time::timeout(SILENCE_MAX, self.viewer.next()).await,
            };
            match item {
                Ok(LiveItem::Frame(frame)) => {
                    let npt = self.npt(frame.time);
                    if npt < self.until {
                        return Next::Frame(Timed {
                            frame,
                            npt,
                            pace: npt,
                            before: Before::Joined,
                        });
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
