//! When a frame goes out, and which moment of the session's media clock it has. Pure: the time comes in.

use std::time::{Duration, Instant};

use corenvr_media::WallTime;

use crate::plan::Npt;

/// Later than this, the footage is moved instead of hurried after: the client was not reading, or the disk was slow.
const LATE_MAX: Duration = Duration::from_millis(500);
/// A jump of normal play time beyond this is a hole in the footage.
pub const HOLE_MICROS: i64 = 1_000_000;

/// Delivery at the pace of media time, a burst ahead.
#[derive(Debug, Clone)]
pub struct Pacer {
    burst: Option<Duration>,
    /// A moment of the wall and the media time that is due then, the burst not counted.
    anchor: Option<(Instant, i64)>,
}

impl Pacer {
    /// Sends `burst_micros` ahead; `None` does not pace at all.
    pub fn new(burst_micros: Option<i64>) -> Self {
        Self {
            burst: burst_micros.map(|us| Duration::from_micros(us.max(0) as u64)),
            anchor: None,
        }
    }

    /// When a frame of this media time that was sent already is shown, by a client that shows the first one when it comes; `now` if that
    /// is not known, or over.
    pub fn shown(&self, now: Instant, media: i64) -> Instant {
        let Some((at, origin)) = self.anchor.filter(|_| self.burst.is_some()) else {
            return now;
        };
        let ahead = u64::try_from(media.saturating_sub(origin)).unwrap_or(0);
        (at + Duration::from_micros(ahead)).max(now)
    }

    /// The next frame starts a new range.
    pub const fn restart(&mut self) {
        self.anchor = None;
    }

    /// When a frame of this media time is to be sent; `now` or earlier means at once.
    pub fn due(&mut self, now: Instant, media: i64) -> Instant {
        let Some(burst) = self.burst else { return now };
        let (at, origin) = *self.anchor.get_or_insert((now, media));
        let ahead = media.saturating_sub(origin);
        let due = match u64::try_from(ahead) {
            Ok(us) => at + Duration::from_micros(us),
            Err(_) => at
                .checked_sub(Duration::from_micros(ahead.unsigned_abs()))
                .unwrap_or(now),
        };
        let due = due.checked_sub(burst).unwrap_or(now);
        if now.saturating_duration_since(due) > LATE_MAX + burst {
            self.anchor = Some((now + burst, media));
            return now;
        }
        due
    }
}

/// How media time follows a range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Flow {
    /// Footage passes at this rate, negative in reverse; media time passes with the wall.
    Rate(f64),
    /// Media time is that of the recording, and falls in reverse.
    Original,
}

/// The media clock of a session: rises over seeks, pauses and gaps, and is what RTP time stamps count. In microseconds.
#[derive(Debug, Clone)]
pub struct MediaClock {
    /// Media time at a position.
    base: (i64, Npt),
    flow: Flow,
    /// Positions before this one, the backlog of a live stream, pass so many times as fast.
    squeezed: Option<(Npt, f64)>,
    /// The furthest media time so far.
    reached: i64,
    /// UTC at a media time; see [`Self::wall_at`].
    wall: Option<(i64, WallTime)>,
    /// It was set by the range that began last.
    wall_is_new: bool,
}

/// Between the last frame of a range and the first of the next.
const STEP_MICROS: i64 = 40_000;

impl MediaClock {
    /// At zero.
    pub const fn new() -> Self {
        Self {
            base: (0, Npt::ZERO),
            flow: Flow::Rate(1.0),
            squeezed: None,
            reached: -STEP_MICROS,
            wall: None,
            wall_is_new: false,
        }
    }

    /// A range begins at `start`, which is `wall` in UTC.
    pub const fn begin(&mut self, start: Npt, wall: WallTime, flow: Flow) {
        self.base = (self.reached + STEP_MICROS, start);
        self.flow = flow;
        self.squeezed = None;
        self.set_wall(self.base.0, wall);
    }

    /// Goes on behind `shown`, the position that was shown last and is `wall` in UTC. Returns its media time.
    pub const fn resume(&mut self, shown: Npt, wall: WallTime, flow: Flow) -> i64 {
        let media = if self.reached < 0 { 0 } else { self.reached };
        self.base = (media, shown);
        self.flow = flow;
        self.squeezed = None;
        self.set_wall(media, wall);
        media
    }

    const fn set_wall(&mut self, media: i64, wall: WallTime) {
        self.wall_is_new = self.wall.is_none();
        if self.wall_is_new {
            self.wall = Some((media, wall));
        }
    }

    /// The next range begins at its own UTC, however that lies to what was sent before.
    pub const fn forget_wall(&mut self) {
        self.wall = None;
    }

    /// The range that just began does so later.
    pub const fn delay(&mut self, micros: i64) {
        self.base.0 += micros;
        if let (true, Some((media, _))) = (self.wall_is_new, &mut self.wall) {
            *media += micros;
        }
    }

    /// The range that just began passes in `micros` up to `until`, then at its own pace.
    pub fn squeeze(&mut self, until: Npt, micros: i64) {
        let (media, start) = self.base;
        let span = until.micros_since(start);
        if span > micros && micros > 0 {
            self.squeezed = Some((until, micros as f64 / span as f64));
            if let (true, Some((at, wall))) = (self.wall_is_new, &mut self.wall) {
                (*at, *wall) = (media + micros, wall.offset(span));
            }
        }
    }

    /// The range goes on at `to` as if nothing had been left out.
    pub const fn jump(&mut self, to: Npt) {
        self.base = (self.reached + STEP_MICROS, to);
        self.squeezed = None;
    }

    /// The media time of a position.
    pub fn at(&self, npt: Npt) -> i64 {
        let (media, start) = self.base;
        match (self.squeezed, self.flow) {
            (None, Flow::Rate(1.0) | Flow::Original) => media + npt.micros_since(start),
            (None, Flow::Rate(rate)) => media + (npt.micros_since(start) as f64 / rate) as i64,
            (Some((until, factor)), _) => {
                let fast = npt.min(until).micros_since(start) as f64 * factor;
                media + fast as i64 + npt.micros_since(until).max(0)
            }
        }
    }

    /// A frame of this media time is sent.
    pub fn reach(&mut self, media: i64) {
        self.reached = self.reached.max(media);
    }

    /// The furthest media time so far.
    pub const fn reached(&self) -> i64 {
        self.reached
    }

    /// The media time that comes next: the start of a range that was not sent from yet.
    pub fn upcoming(&self) -> i64 {
        self.reached.max(self.base.0)
    }

    /// The wall clock that a sender report pairs with a media time: UTC of the footage where the session first began to play, and from there
    /// on as fast as media time. So it is the time of the footage up to the first gap, seek or change of speed, and then no more: players
    /// compute presentation times from it, and freeze or show old positions where it does not go with RTP time (VLC does, at every seek).
    pub const fn wall_at(&self, media: i64) -> WallTime {
        match self.wall {
            Some((at, wall)) => wall.offset(media - at),
            None => WallTime::MIN,
        }
    }
}

/// RTP ticks of a media time.
pub fn ticks(media_micros: i64, clock_rate: u32) -> u32 {
    let ticks = (i128::from(media_micros) * i128::from(clock_rate) + 500_000).div_euclid(1_000_000);
    ticks as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn frames_are_due_at_their_pace_a_burst_ahead() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Some(300_000));
        assert!(pacer.due(start, 5 * SECOND) <= start);
        assert!(pacer.due(start, 5 * SECOND + 300_000) <= start);
        assert_eq!(pacer.due(start, 6 * SECOND), start + Duration::from_millis(700));
        assert_eq!(
            pacer.shown(start, 5 * SECOND + 300_000),
            start + Duration::from_millis(300)
        );
        assert_eq!(pacer.shown(start, 0), start);
        let mut unpaced = Pacer::new(None);
        assert_eq!(unpaced.due(start, 0), start);
        assert_eq!(unpaced.due(start, i64::MAX), start);
    }

    #[test]
    fn a_client_that_did_not_read_is_not_flooded_afterwards() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Some(300_000));
        pacer.due(start, 0);
        let later = start + Duration::from_secs(60);
        assert_eq!(pacer.due(later, SECOND), later);
        assert_eq!(pacer.due(later, 2 * SECOND), later + Duration::from_secs(1));
    }

    #[test]
    fn a_rate_stretches_media_time_and_reverse_turns_it() {
        let mut clock = MediaClock::new();
        let wall = WallTime::from_millis(1000);
        clock.begin(Npt(100 * SECOND), wall, Flow::Rate(-8.0));
        assert_eq!(clock.at(Npt(60 * SECOND)), 5 * SECOND);
        clock.reach(5 * SECOND);
        clock.begin(Npt(60 * SECOND), wall, Flow::Rate(0.25));
        assert_eq!(clock.at(Npt(61 * SECOND)), 9 * SECOND + STEP_MICROS);
        clock.begin(Npt(60 * SECOND), wall, Flow::Original);
        assert_eq!(clock.at(Npt(58 * SECOND)), 3 * SECOND + STEP_MICROS);
    }

    #[test]
    fn media_time_rises_over_seeks_and_jumps() {
        let mut clock = MediaClock::new();
        let wall = WallTime::from_millis(77_000);
        clock.begin(Npt(50 * SECOND), wall, Flow::Rate(1.0));
        assert_eq!(clock.at(Npt(50 * SECOND)), 0);
        clock.reach(clock.at(Npt(52 * SECOND)));
        assert_eq!(clock.wall_at(2 * SECOND), wall.offset(2 * SECOND));
        clock.jump(Npt(90 * SECOND));
        assert_eq!(clock.at(Npt(91 * SECOND)), 3 * SECOND + STEP_MICROS);
        clock.reach(3 * SECOND);
        clock.begin(Npt(0), wall, Flow::Rate(1.0));
        assert_eq!(clock.at(Npt(0)), 3 * SECOND + STEP_MICROS);
        // On one line with what went before, wherever the footage is.
        assert_eq!(clock.wall_at(clock.at(Npt(0))), wall.offset(3 * SECOND + STEP_MICROS));
        clock.forget_wall();
        clock.begin(Npt(0), wall, Flow::Rate(1.0));
        assert_eq!(clock.wall_at(clock.at(Npt(0))), wall);
    }

    #[test]
    fn a_squeezed_backlog_passes_fast_and_the_wall_clock_holds_behind_it() {
        let mut clock = MediaClock::new();
        let wall = WallTime::from_millis(1000);
        clock.begin(Npt(0), wall, Flow::Rate(1.0));
        clock.squeeze(Npt(4 * SECOND), 400_000);
        assert_eq!(clock.at(Npt(2 * SECOND)), 200_000);
        assert_eq!(clock.at(Npt(5 * SECOND)), 1_400_000);
        assert_eq!(clock.wall_at(1_400_000), wall.offset(5 * SECOND));
    }

    #[test]
    fn ticks_wrap_and_round() {
        assert_eq!(ticks(40_000, 90_000), 3600);
        assert_eq!(ticks(-40_000, 90_000), 0u32.wrapping_sub(3600));
        assert_eq!(ticks(21_333, 48_000), 1024);
        assert_eq!(ticks(100_000 * SECOND, 90_000), (9_000_000_000u64 % (1 << 32)) as u32);
    }
}
