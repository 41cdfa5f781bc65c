//! Which access unit is next and when: the endless loop live, the spans of the archive in playback, at any speed, and backward GOP by GOP.
//!
//! The loop is laid on an absolute line of 1/90 000 s: turn after turn live, the wall clock in the archive, so that a moment of the archive is
//! always the same access unit.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use corenvr_media::WallTime;

use crate::{ArchiveSpan, Source, Track};

/// A place in the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    turn: i64,
    index: usize,
}

/// What is sent next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// The unit of the source.
    pub index: usize,
    /// Its PTS from the session's origin.
    pub pts_90k: i64,
    /// Its decoding time from the session's origin.
    pub dts_90k: i64,
    /// The moment of the archive; `None` live.
    pub archive_time: Option<WallTime>,
}

/// Walks over the source.
#[derive(Debug)]
pub struct Cursor {
    source: Arc<Source>,
    /// By how much decoding goes ahead of showing.
    lead_90k: i64,
    /// What there is, in the absolute line; `None` live.
    archive: Option<Archive>,
    place: Option<Place>,
    /// The absolute time at which the session's time is 0.
    origin: i64,
    scale: f64,
    /// At this moment that session time is due.
    anchor: Option<(Instant, i64)>,
    /// Where the GOP that is being played backward began.
    gop: Place,
}

#[derive(Debug)]
struct Archive {
    spans: Vec<(i64, i64)>,
    /// The range that was asked for.
    range: (i64, i64),
}

fn line(t: WallTime) -> i64 {
    t.as_micros() / 100 * 9 + t.as_micros() % 100 * 9 / 100
}

impl Cursor {
    /// Live: begins at a key frame, or behind it; sessions of different numbers begin at different ones.
    pub fn live(source: Arc<Source>, number: u32, mid_gop: bool) -> Self {
        let keys: Vec<usize> = (0..source.units.len()).filter(|i| source.units[*i].key).collect();
        let key = keys[number as usize % keys.len()];
        let index = if mid_gop {
            let pictures = (key + 1..source.units.len()).filter(|i| source.units[*i].track() == Track::Video);
            pictures.take(4).last().unwrap_or(key)
        } else {
            key
        };
        let place = Place { turn: 0, index };
        Self::new(source, None, place)
    }

    /// The archive: begins at the key frame at or before the range's start, where the archive has it.
    pub fn archive(source: Arc<Source>, spans: &[ArchiveSpan], (start, end): (WallTime, WallTime)) -> Self {
        let archive = Archive {
            spans: spans.iter().map(|s| (line(s.start), line(s.end))).collect(),
            range: (line(start), line(end)),
        };
        let mut cursor = Self::new(source, Some(archive), Place { turn: 0, index: 0 });
        cursor.origin = line(start);
        cursor.seek(0);
        cursor
    }

    fn new(source: Arc<Source>, archive: Option<Archive>, place: Place) -> Self {
        let lead_90k = source.lead_90k();
        let origin = source.units[place.index].due_90k;
        Self {
            source,
            lead_90k,
            archive,
            place: Some(place),
            origin,
            scale: 1.0,
            anchor: None,
            gop: place,
        }
    }

    /// When the next unit is due; `None`: everything has been sent.
    pub fn due(&mut self, now: Instant) -> Option<Instant> {
        let place = self.place?;
        let time = self.time(place) - self.origin;
        let (moment, at) = *self.anchor.get_or_insert((now, time));
        let ahead = (time - at) as f64 / 90_000.0 / self.scale.abs();
        Some(moment + Duration::from_secs_f64(ahead.max(0.0)))
    }

    /// Takes the next unit.
    pub fn take(&mut self) -> Option<Next> {
        let next = self.peek()?;
        let place = self.place?;
        if self.scale < 0.0 {
            self.advance_backward(place);
        } else {
            self.advance(place);
        }
        Some(next)
    }

    /// The next unit.
    pub fn peek(&self) -> Option<Next> {
        let place = self.place?;
        let unit = &self.source.units[place.index];
        let turn = place.turn * self.source.turn_90k - self.origin;
        let shown = self.time(place) - unit.due_90k + unit.pts_90k;
        let wall = WallTime::from_micros(shown / 9 * 100 + shown % 9 * 100 / 9);
        Some(Next {
            index: place.index,
            pts_90k: turn + unit.pts_90k,
            dts_90k: turn + unit.due_90k - self.lead_90k,
            archive_time: self.archive.as_ref().map(|_| wall),
        })
    }

    fn time(&self, place: Place) -> i64 {
        place.turn * self.source.turn_90k + self.source.units[place.index].due_90k
    }

    fn following(&self, place: Place) -> Place {
        if place.index + 1 < self.source.units.len() {
            Place {
                index: place.index + 1,
                ..place
            }
        } else {
            Place {
                turn: place.turn + 1,
                index: 0,
            }
        }
    }

    fn advance(&mut self, place: Place) {
        let next = self.following(place);
        let Some(archive) = &self.archive else {
            self.place = Some(next);
            return;
        };
        let (now, then) = (self.time(place), self.time(next));
        if then >= archive.range.1 {
            self.place = None;
        } else if archive
            .spans
            .iter()
            .any(|(start, end)| (*start..*end).contains(&now) && then < *end)
        {
            self.place = Some(next);
        } else {
            let later = archive
                .spans
                .iter()
                .filter(|(start, _)| *start > now)
                .map(|(start, _)| *start);
            self.place = later.min().and_then(|start| self.key_from(start));
            self.anchor = None;
        }
    }

    fn advance_backward(&mut self, place: Place) {
        let mut next = self.following(place);
        // Sound makes no sense backward.
        while self.source.units[next.index].track() == Track::Audio {
            next = self.following(next);
        }
        if !self.source.units[next.index].key {
            self.place = Some(next);
            return;
        }
        self.anchor = None;
        let (before, begin) = (self.time(self.gop) - 1, self.archive.as_ref().map(|a| a.range.0));
        self.place = self.key_until(before).filter(|_| begin.is_none_or(|b| before >= b));
        self.gop = self.place.unwrap_or(self.gop);
    }

    fn key_at_or_before(&self, time: i64) -> Place {
        let turn = time.div_euclid(self.source.turn_90k);
        let within = time.rem_euclid(self.source.turn_90k);
        let index = self.source.units.iter().rposition(|u| u.key && u.due_90k <= within);
        // The first unit of the source is a key frame, but it need not be due at 0.
        match index {
            Some(index) => Place { turn, index },
            None => Place {
                turn: turn - 1,
                index: self.source.units.iter().rposition(|u| u.key).unwrap_or(0),
            },
        }
    }

    fn key_at_or_after(&self, time: i64) -> Place {
        let mut place = self.key_at_or_before(time);
        while self.time(place) < time || !self.source.units[place.index].key {
            place = self.following(place);
        }
        place
    }

    /// The first key frame of the archive that is needed to show `time` and what follows.
    fn key_from(&self, time: i64) -> Option<Place> {
        let Some(archive) = &self.archive else {
            return Some(self.key_at_or_before(time));
        };
        let mut spans = archive.spans.iter().filter(|(_, end)| *end > time);
        spans.find_map(|(start, end)| {
            let before = self.key_at_or_before(time.max(*start));
            let place = if self.time(before) >= *start {
                before
            } else {
                self.key_at_or_after(*start)
            };
            (self.time(place) < archive.range.1.min(*end)).then_some(place)
        })
    }

    /// The last key frame of the archive that is not behind `time`.
    fn key_until(&self, time: i64) -> Option<Place> {
        let Some(archive) = &self.archive else { return None };
        let mut spans = archive.spans.iter().rev().filter(|(start, _)| *start <= time);
        spans.find_map(|(start, end)| {
            let place = self.key_at_or_before(time.min(*end - 1));
            (self.time(place) >= *start).then_some(place)
        })
    }

    /// Goes to so many 1/90 000 s from the origin, in the archive.
    pub fn seek(&mut self, to_90k: i64) {
        if self.archive.is_some() {
            self.place = self.key_from(self.origin + to_90k);
            self.gop = self.place.unwrap_or(self.gop);
            self.anchor = None;
        }
    }

    /// Sets the speed; negative: backward.
    pub fn set_scale(&mut self, scale: f64) {
        if self.scale.signum() != scale.signum()
            && let Some(place) = self.place
        {
            self.place = self.key_from(self.time(place));
            self.gop = self.place.unwrap_or(self.gop);
        }
        self.scale = scale;
        self.anchor = None;
    }

    /// The next unit is due now, whatever went before: after a pause.
    pub const fn resume(&mut self) {
        self.anchor = None;
    }

    /// Makes the next picture a key frame, without a hole in the times; live only.
    pub fn skip_to_key(&mut self) {
        let (None, Some(mut place)) = (&self.archive, self.place) else {
            return;
        };
        while self.source.units[place.index].track() == Track::Audio {
            place = self.following(place);
        }
        let key = self.key_at_or_after(self.time(place));
        self.origin += self.time(key) - self.time(place);
        self.place = Some(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SourceUnit, UnitData};
    use bytes::Bytes;
    use corenvr_media::VideoCodec;

    /// Two GOPs of 5 pictures, 25 pictures a second.
    fn source() -> Arc<Source> {
        let unit = |i: i64| SourceUnit {
            key: i % 5 == 0,
            due_90k: i * 3600,
            pts_90k: i * 3600,
            data: UnitData::Nals(vec![Bytes::from(vec![if i % 5 == 0 { 0x65 } else { 0x41 }, i as u8])]),
        };
        let units = (0..10).map(unit).collect();
        Arc::new(Source::new(VideoCodec::H264, None, units, Duration::from_millis(400)).unwrap())
    }

    fn taken(cursor: &mut Cursor, count: usize) -> Vec<(usize, i64)> {
        std::iter::from_fn(|| cursor.take())
            .take(count)
            .map(|n| (n.index, n.pts_90k / 3600))
            .collect()
    }

    #[test]
    fn live_time_rises_over_the_seam_and_a_key_frame_on_demand_leaves_no_hole() {
        let mut cursor = Cursor::live(source(), 1, false);
        assert_eq!(
            taken(&mut cursor, 7),
            [(5, 0), (6, 1), (7, 2), (8, 3), (9, 4), (0, 5), (1, 6)]
        );
        cursor.skip_to_key();
        assert_eq!(taken(&mut cursor, 2), [(5, 7), (6, 8)]);
        let mut cursor = Cursor::live(source(), 0, true);
        assert_eq!(taken(&mut cursor, 2), [(4, 0), (5, 1)]);
    }

    fn spans(list: &[(i64, i64)]) -> Vec<ArchiveSpan> {
        let at = |ms| WallTime::from_millis(4_000_000 + ms);
        list.iter()
            .map(|(a, b)| ArchiveSpan {
                start: at(*a),
                end: at(*b),
            })
            .collect()
    }

    fn range(start: i64, end: i64) -> (WallTime, WallTime) {
        (
            WallTime::from_millis(4_000_000 + start),
            WallTime::from_millis(4_000_000 + end),
        )
    }

    #[test]
    fn a_playback_begins_at_the_key_frame_before_skips_holes_and_ends_with_its_range() {
        let mut cursor = Cursor::archive(source(), &spans(&[(0, 300), (620, 2000)]), range(80, 900));
        let first = cursor.take().unwrap();
        assert_eq!((first.index, first.pts_90k), (0, -2 * 3600));
        assert_eq!(first.archive_time, Some(WallTime::from_millis(4_000_000)));
        let rest = taken(&mut cursor, 100);
        // From 0 to 300 ms, then from the first key frame behind 620 ms (800 ms) to 900 ms.
        assert_eq!(
            rest,
            [
                (1, -1),
                (2, 0),
                (3, 1),
                (4, 2),
                (5, 3),
                (6, 4),
                (7, 5),
                (0, 18),
                (1, 19),
                (2, 20)
            ]
        );
        assert_eq!(cursor.due(Instant::now()), None);
        let mut nothing = Cursor::archive(source(), &spans(&[(0, 300)]), range(400, 900));
        assert_eq!(nothing.take(), None);
    }

    #[test]
    fn backward_goes_gop_by_gop() {
        let mut cursor = Cursor::archive(source(), &spans(&[(0, 2000)]), range(0, 2000));
        cursor.seek(500 * 90);
        cursor.set_scale(-1.0);
        let indices: Vec<_> = taken(&mut cursor, 100).iter().map(|(_, t)| *t).collect();
        assert_eq!(indices, [10, 11, 12, 13, 14, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn speed_shortens_the_wait() {
        let mut cursor = Cursor::archive(source(), &spans(&[(0, 2000)]), range(0, 2000));
        cursor.set_scale(4.0);
        let now = Instant::now();
        assert_eq!(cursor.due(now), Some(now));
        cursor.take();
        assert_eq!(cursor.due(now), Some(now + Duration::from_millis(10)));
    }
}
