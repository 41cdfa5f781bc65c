//! When a frame goes out, and which moment of the session's media clock it has. Pure: the time comes in.

use std::time::{Duration, Instant};

use corenvr_media::WallTime;

use crate::plan::Npt;

/// Later than this, the footage is moved instead of hurried after: the client was not reading, or the disk was slow.
const LATE_MAX: Duration = Duration::from_millis(500);
/// A jump of normal play time beyond this is a hole in the footage.
pub const HOLE_MICROS: i64 = 1_000_000;

/// Delivery at the pace of the footage, a burst ahead.
#[derive(Debug, Clone)]
pub struct Pacer {
    burst: Option<Duration>,
    /// A moment of the wall and the normal play time that is due then, the burst not counted.
    anchor: Option<(Instant, Npt)>,
}

impl Pacer {
    /// Sends `burst_micros` ahead; `None` does not pace at all.
    pub fn new(burst_micros: Option<i64>) -> Self {
        Self {
            burst: burst_micros.map(|us| Duration::from_micros(us.max(0) as u64)),
            anchor: None,
        }
    }

    /// The next frame starts a new range.
    pub const fn restart(&mut self) {
        self.anchor = None;
    }

    /// The footage continues at `to` as if that followed `from` at once.
    pub fn jump(&mut self, from: Npt, to: Npt) {
        if let Some((_, npt)) = &mut self.anchor {
            *npt = npt.offset(to.micros_since(from));
        }
    }

    /// When a frame is to be sent; `now` or earlier means at once.
    pub fn due(&mut self, now: Instant, npt: Npt) -> Instant {
        let Some(burst) = self.burst else { return now };
        let (at, origin) = *self.anchor.get_or_insert((now, npt));
        let ahead = npt.micros_since(origin);
        let due = match u64::try_from(ahead) {
            Ok(us) => at + Duration::from_micros(us),
            Err(_) => at.checked_sub(Duration::from_micros(ahead.unsigned_abs())).unwrap_or(now),
        };
        let due = due.checked_sub(burst).unwrap_or(now);
        if now.saturating_duration_since(due) > LATE_MAX + burst {
            self.anchor = Some((now + burst, npt));
            return now;
        }
        due
    }
}

/// The media clock of a session: rises over seeks, pauses and gaps, and is what RTP time stamps count. In microseconds.
#[derive(Debug, Clone)]
pub struct MediaClock {
    /// Media time at a position.
    base: (i64, Npt),
    /// Positions before this one, the backlog of a live stream, pass so many times as fast.
    squeezed: Option<(Npt, f64)>,
    /// The furthest media time so far.
    reached: i64,
    /// UTC at a media time; see [`Self::wall_at`].
    wall: (i64, WallTime),
}

/// Between the last frame of a range and the first of the next.
const STEP_MICROS: i64 = 40_000;

impl MediaClock {
    /// At zero.
    pub const fn new() -> Self {
        Self {
            base: (0, Npt::ZERO),
            squeezed: None,
            reached: -STEP_MICROS,
            wall: (0, WallTime::MIN),
        }
    }

    /// A range begins at `start`, which is `wall` in UTC.
    pub const fn begin(&mut self, start: Npt, wall: WallTime) {
        self.base = (self.reached + STEP_MICROS, start);
        self.squeezed = None;
        self.wall = (self.base.0, wall);
    }

    /// The range that just began passes in `micros` up to `until`, then at its own pace.
    pub fn squeeze(&mut self, until: Npt, micros: i64) {
        let (media, start) = self.base;
        let span = until.micros_since(start);
        if span > micros && micros > 0 {
            self.squeezed = Some((until, micros as f64 / span as f64));
            self.wall = (media + micros, self.wall.1.offset(span));
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
        match self.squeezed {
            None => media + npt.micros_since(start),
            Some((until, factor)) => {
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

    /// The wall clock that a sender report pairs with a media time: UTC of the footage at the start of the range, and from there on as
    /// fast as media time. It is the time of the footage up to the first gap that is skipped; behind one it is earlier by the gap. Players
    /// compute presentation times from it, so it must not jump while RTP time does not.
    pub const fn wall_at(&self, media: i64) -> WallTime {
        self.wall.1.offset(media - self.wall.0)
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
        assert!(pacer.due(start, Npt(5 * SECOND)) <= start);
        assert!(pacer.due(start, Npt(5 * SECOND + 300_000)) <= start);
        assert_eq!(pacer.due(start, Npt(6 * SECOND)), start + Duration::from_millis(700));
        let mut unpaced = Pacer::new(None);
        assert_eq!(unpaced.due(start, Npt(0)), start);
        assert_eq!(unpaced.due(start, Npt(i64::MAX)), start);
    }

    #[test]
    fn a_client_that_did_not_read_is_not_flooded_afterwards() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Some(300_000));
        pacer.due(start, Npt(0));
        let later = start + Duration::from_secs(60);
        assert_eq!(pacer.due(later, Npt(SECOND)), later);
        assert_eq!(pacer.due(later, Npt(2 * SECOND)), later + Duration::from_secs(1));
    }

    #[test]
    fn a_jump_does_not_wait() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Some(0));
        pacer.due(start, Npt(0));
        pacer.jump(Npt(SECOND), Npt(100 * SECOND));
        assert_eq!(pacer.due(start, Npt(101 * SECOND)), start + Duration::from_secs(2));
    }

    #[test]
    fn media_time_rises_over_seeks_and_jumps() {
        let mut clock = MediaClock::new();
        let wall = WallTime::from_millis(77_000);
        clock.begin(Npt(50 * SECOND), wall);
        assert_eq!(clock.at(Npt(50 * SECOND)), 0);
        clock.reach(clock.at(Npt(52 * SECOND)));
        assert_eq!(clock.wall_at(2 * SECOND), wall.offset(2 * SECOND));
        clock.jump(Npt(90 * SECOND));
        assert_eq!(clock.at(Npt(91 * SECOND)), 3 * SECOND + STEP_MICROS);
        clock.reach(3 * SECOND);
        clock.begin(Npt(0), wall);
        assert_eq!(clock.at(Npt(0)), 3 * SECOND + STEP_MICROS);
        assert_eq!(clock.wall_at(clock.at(Npt(0))), wall);
    }

    #[test]
    fn a_squeezed_backlog_passes_fast_and_the_wall_clock_holds_behind_it() {
        let mut clock = MediaClock::new();
        let wall = WallTime::from_millis(1000);
        clock.begin(Npt(0), wall);
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
