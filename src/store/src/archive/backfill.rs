//! Where footage may be filled in: time in which a camera has no segment, neither finished nor growing.

use corenvr_media::{CameraName, TimeRange, WallTime};

use super::{Archive, ArchiveError, TIMELINE_SEGMENTS_MAX};
use crate::{SegmentHeader, index::RowState};

impl Archive {
    /// The parts of `range` in which no segment of `camera` lies, ordered. A segment that grows has all the time behind its start, or
    /// up to its limit if it is being back-filled. At most what lies between [`TIMELINE_SEGMENTS_MAX`] segments.
    ///
    /// # Errors
    /// The index failed.
    pub fn vacant(&mut self, camera: &CameraName, range: TimeRange) -> Result<Vec<TimeRange>, ArchiveError> {
        let mut taken: Vec<TimeRange> = Vec::new();
        let rows = self.rows_in(camera, range, TIMELINE_SEGMENTS_MAX)?;
        let cut = rows.get(TIMELINE_SEGMENTS_MAX).map(|(k, _)| k.start);
        let sealed = rows.into_iter().filter(|(_, r)| r.state == RowState::Sealed);
        taken.extend(sealed.map(|(k, r)| TimeRange {
            start: k.start,
            end: r.end.max(k.start),
        }));
        let open = self.open.iter().filter(|(k, _)| k.camera == *camera);
        taken.extend(open.map(|(k, o)| TimeRange {
            start: k.start,
            end: o.header.backfilled_until.unwrap_or(WallTime::MAX),
        }));
        taken.sort_by_key(|t| t.start);
        let end = cut.map_or(range.end, |cut| cut.min(range.end));
        let mut vacant = Vec::new();
        let mut at = range.start;
        for t in taken {
            if at < t.start.min(end) {
                vacant.push(TimeRange {
                    start: at,
                    end: t.start.min(end),
                });
            }
            at = at.max(t.end);
        }
        if at < end {
            vacant.push(TimeRange { start: at, end });
        }
        Ok(vacant)
    }

    /// Refuses back-filled footage where there is some already. What is recorded now is never refused: it is the truth of its moment.
    pub(super) fn check_vacant(&mut self, header: &SegmentHeader) -> Result<(), ArchiveError> {
        let Some(until) = header.backfilled_until else {
            return Ok(());
        };
        let range = TimeRange {
            start: header.start,
            end: until.max(header.start),
        };
        if self.vacant(&header.camera, range)? == [range] {
            return Ok(());
        }
        Err(ArchiveError::Occupied {
            camera: header.camera.clone(),
            range,
        })
    }

    /// A segment that was the oldest may have gone without a trace.
    pub(super) fn correct_first(&mut self, camera: &CameraName) -> Result<(), ArchiveError> {
        let first = self.index(|i| i.rows(camera, WallTime::MIN, WallTime::MAX, 1))?.pop();
        if let Some(usage) = self.usage.get_mut(camera).filter(|u| u.segments > 0) {
            usage.first = first.map(|(k, _)| k.start);
        }
        Ok(())
    }
}
