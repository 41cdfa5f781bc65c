//! Where a frame lies on the host's time line: the camera's RTP time stamps give the spacing, the host's clock at arrival the
//! position. Pure arithmetic; nothing in here reads a clock.
//!
//! A packet can come late, never early, so the smallest difference between arrival and time stamp over some seconds is the best
//! estimate of where the camera's clock stands; network jitter does not move it. The position follows that estimate by at most
//! [`SLEW_PPM`]. Stamps that jump are bridged by the spacing of the arrivals, and stamps that keep jumping are given up for it.

use std::collections::VecDeque;

use corenvr_media::WallTime;
use corenvr_proto::rtp::{ExtendedTimestamp, TimestampUnwrapper};

/// The host's two clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostTime {
    /// Microseconds of the clock that never jumps, from any origin.
    pub mono_us: i64,
    /// UTC, which can jump.
    pub wall: WallTime,
}

/// How fast a track's position may follow the estimate, in parts per million of the media's own time.
pub(crate) const SLEW_PPM: i64 = 350;
/// How fast the host's UTC may pull the time line, in parts per million. Together with [`SLEW_PPM`] never more than 500.
const HOST_SLEW_PPM: i64 = 150;
/// UTC that moves this much against the steady clock has stepped; less is slewed.
pub(crate) const HOST_STEP_US: i64 = 500_000;
/// A frame stamped this far after its own arrival: the stamps jumped forward.
const AHEAD_US: i64 = 500_000;
/// The same where the stamps went on evenly: the frames before it, by which it is placed, had been held back behind lost packets.
const AHEAD_EVENLY_US: i64 = 1_500_000;
/// A frame stamped this far before its arrival: longer than any connection survives without a frame, so the stamps jumped.
const BEHIND_US: i64 = 12_000_000;
/// Every frame of the last seconds came this much later than its stamp says: the camera lost time, it is not a slow network.
const BEHIND_STEADY_US: i64 = 1_500_000;
/// Pictures may be stamped this much before an earlier one in decode order (B frames).
const REORDER_US: i64 = 2_000_000;
/// As many pictures in a row may be stamped before the latest; more are no B frames, the stamps went back.
const REORDER_UNITS: u32 = 16;
/// After as many pictures without B frames, one stamped before its predecessor is a jump at once.
const NO_REORDER_AFTER: u32 = 250;
/// As many frames with the same stamp in a row, over at least [`SAME_SPAN_US`], are not stamped at all.
const SAME_UNITS: u32 = 8;
const SAME_SPAN_US: i64 = 300_000;
/// As many jumps within [`JUMPS_SPAN_US`], and the stamps are not believed until the next connection.
const JUMPS_MAX: usize = 3;
const JUMPS_SPAN_US: i64 = 600_000_000;
/// The filter's memory: buckets of this length, and how many of them.
const BUCKET_US: i64 = 5_000_000;
const BUCKETS: usize = 4;
/// A sender report that places sound further than this from where its arrival does is nonsense.
const REFERENCE_TRUST_US: i64 = 2_000_000;
/// The first report moves sound at once if it lies further off than this: people notice more.
const REFERENCE_SNAP_US: i64 = 20_000;

/// The smallest value of the last seconds.
#[derive(Debug, Default)]
struct MinFilter {
    /// Start and minimum of each bucket, oldest first.
    buckets: VecDeque<(i64, i64)>,
}

impl MinFilter {
    fn push(&mut self, at: i64, value: i64) {
        match self.buckets.back_mut() {
            Some((start, min)) if at - *start < BUCKET_US => *min = (*min).min(value),
            _ => {
                if self.buckets.len() > BUCKETS {
                    self.buckets.pop_front();
                }
                self.buckets.push_back((at, value));
            }
        }
    }

    fn min(&self) -> Option<i64> {
        self.buckets.iter().map(|b| b.1).min()
    }

    /// Whether it looks back over its whole memory.
    fn is_full(&self) -> bool {
        self.buckets.len() > BUCKETS
    }
}

/// Where a frame was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    /// On the steady clock, in microseconds.
    pub mono_us: i64,
    /// The stamps do not continue what came before; the position does, by the spacing of the arrivals.
    pub jump: bool,
}

/// What was placed last.
#[derive(Debug, Clone, Copy)]
struct Last {
    arrival_us: i64,
    placed_us: i64,
}

/// The clock of one RTP stream.
#[derive(Debug)]
pub(crate) struct TrackClock {
    rate: i64,
    /// Pictures may come in another order than they are shown.
    may_reorder: bool,
    unwrapper: TimestampUnwrapper,
    filter: MinFilter,
    /// Position = stamp + offset, in microseconds. `None` before the first frame and after a restart.
    offset_us: Option<i64>,
    /// A better estimate of the offset than arrivals give: from sender reports.
    reference_us: Option<i64>,
    last: Option<Last>,
    /// The latest position so far.
    latest_us: i64,
    media_latest_us: i64,
    media_last_us: Option<i64>,
    same: (u32, i64),
    behind_units: u32,
    units: u32,
    reorders: bool,
    by_arrival: bool,
    jumps: VecDeque<i64>,
    /// Arrival and estimate at the start of the drift measurement.
    drift_from: Option<(i64, i64)>,
}

impl TrackClock {
    /// `rate` in Hz. `may_reorder`: the stream may have B frames.
    pub fn new(rate: u32, may_reorder: bool) -> Self {
        Self {
            rate: i64::from(rate.max(1)),
            may_reorder,
            unwrapper: TimestampUnwrapper::default(),
            filter: MinFilter::default(),
            offset_us: None,
            reference_us: None,
            last: None,
            latest_us: i64::MIN,
            media_latest_us: i64::MIN,
            media_last_us: None,
            same: (0, 0),
            behind_units: 0,
            units: 0,
            reorders: false,
            by_arrival: false,
            jumps: VecDeque::new(),
            drift_from: None,
        }
    }

    fn to_us(&self, ticks: ExtendedTimestamp) -> i64 {
        let (whole, rest) = (ticks.0.div_euclid(self.rate), ticks.0.rem_euclid(self.rate));
        whole
            .saturating_mul(1_000_000)
            .saturating_add(rest * 1_000_000 / self.rate)
    }

    /// Sets the first position from the frames of the first moments (stamp, arrival): a burst of stored frames at the start of a
    /// connection comes long after it was taken, and only the last of it tells the true offset.
    pub fn settle(&mut self, first: impl Iterator<Item = (u32, i64)>) {
        let mut unwrapper = self.unwrapper;
        // Stamp and arrival of the first unit and of the one before.
        let mut seen: Option<((i64, i64), i64)> = None;
        let mut all_same = true;
        for (stamp, arrival_us) in first {
            let media_us = self.to_us(unwrapper.unwrap(stamp));
            let (begin, before) = *seen.get_or_insert(((media_us, arrival_us), media_us));
            if (media_us - before).abs() > REORDER_US {
                // A jump; what comes behind it says nothing about the frames before it.
                return;
            }
            all_same &= media_us == begin.0;
            self.by_arrival = all_same && arrival_us - begin.1 >= SAME_SPAN_US;
            seen = Some((begin, media_us));
            let offset = arrival_us - media_us;
            self.offset_us = Some(self.offset_us.map_or(offset, |o| o.min(offset)));
        }
    }

    /// The stream begins anew (another source, a restarted sequence): its stamps have nothing to do with those before.
    pub fn restart(&mut self) {
        if self.offset_us.take().is_some() && self.last.is_some() {
            self.unwrapper = TimestampUnwrapper::default();
            self.forget_stamps();
        }
    }

    fn forget_stamps(&mut self) {
        self.filter = MinFilter::default();
        self.reference_us = None;
        self.drift_from = None;
        self.media_latest_us = i64::MIN;
        self.media_last_us = None;
        self.behind_units = 0;
    }

    /// Other codec parameters: the order of pictures may be another one.
    pub fn parameters_changed(&mut self) {
        self.units = 0;
        self.reorders = false;
    }

    /// The stamp of a sender report, in microseconds of the stream's own time; `None` before the first frame.
    pub fn media_us(&self, stamp: u32) -> Option<i64> {
        self.media_last_us?;
        Some(self.to_us(self.unwrapper.peek(stamp)))
    }

    /// Position minus stamp, where stamps are believed.
    pub fn offset_us(&self) -> Option<i64> {
        self.offset_us.filter(|_| !self.by_arrival)
    }

    /// Uses `offset_us` from a sender report instead of the arrivals, unless it is nonsense.
    pub fn set_reference(&mut self, offset_us: i64) {
        let Some(estimate) = self.filter.min() else { return };
        if (offset_us - estimate).abs() > REFERENCE_TRUST_US {
            self.reference_us = None;
            return;
        }
        if self.reference_us.replace(offset_us).is_none()
            && let Some(current) = &mut self.offset_us
            && (offset_us - *current).abs() > REFERENCE_SNAP_US
        {
            *current = offset_us;
        }
    }

    /// How much faster the camera's clock runs than the host's; 0 until that can be told.
    pub fn drift_ppm(&self) -> f64 {
        let (Some((from_us, from)), Some(now), Some(last)) = (self.drift_from, self.filter.min(), self.last) else {
            return 0.0;
        };
        let elapsed = last.arrival_us - from_us;
        if elapsed < 60_000_000 {
            return 0.0;
        }
        (from - now) as f64 * 1e6 / elapsed as f64
    }

    /// Whether stamps are ignored.
    #[cfg(test)]
    pub fn is_by_arrival(&self) -> bool {
        self.by_arrival
    }

    /// Places the next frame in decode order.
    pub fn place(&mut self, stamp: u32, key: bool, arrival_us: i64) -> Placed {
        let ticks = self.unwrapper.unwrap(stamp);
        let media_us = self.to_us(ticks);
        self.units = self.units.saturating_add(1);
        self.note_same(media_us, arrival_us);
        if self.by_arrival {
            return self.place_by_arrival(arrival_us);
        }
        let offset = match self.offset_us {
            Some(offset) => offset,
            None => self.bridge(media_us, arrival_us),
        };
        if self.is_jump(media_us, offset, key, arrival_us) {
            return self.jump(media_us, arrival_us);
        }
        self.filter.push(arrival_us, arrival_us - media_us);
        let offset = self.slewed(offset, media_us);
        self.offset_us = Some(offset);
        self.media_last_us = Some(media_us);
        if media_us >= self.media_latest_us {
            self.media_latest_us = media_us;
            self.reorders |= self.behind_units > 0;
            self.behind_units = 0;
        } else {
            self.behind_units += 1;
        }
        if self.drift_from.is_none() && self.filter.is_full() {
            self.drift_from = self.filter.min().map(|min| (arrival_us, min));
        }
        self.placed(media_us + offset, arrival_us, false)
    }

    fn placed(&mut self, mono_us: i64, arrival_us: i64, jump: bool) -> Placed {
        // Without B frames time never runs backward, whatever a correction says.
        let mono_us = if self.may_reorder {
            mono_us
        } else {
            mono_us.max(self.latest_us)
        };
        self.latest_us = self.latest_us.max(mono_us);
        self.last = Some(Last {
            arrival_us,
            placed_us: self.latest_us,
        });
        Placed { mono_us, jump }
    }

    fn note_same(&mut self, media_us: i64, arrival_us: i64) {
        if self.media_last_us != Some(media_us) {
            self.same = (0, arrival_us);
            return;
        }
        self.same.0 += 1;
        if self.same.0 >= SAME_UNITS && arrival_us - self.same.1 >= SAME_SPAN_US {
            self.by_arrival = true;
        }
    }

    fn is_jump(&self, media_us: i64, offset: i64, key: bool, arrival_us: i64) -> bool {
        let Some(media_last_us) = self.media_last_us else {
            return false;
        };
        let evenly = (media_us - media_last_us).abs() <= AHEAD_US;
        let ahead_us = if evenly { AHEAD_EVENLY_US } else { AHEAD_US };
        let late_us = arrival_us - (media_us + offset);
        let back_us = self.media_latest_us - media_us;
        let steady = self.reference_us.is_none()
            && self.filter.is_full()
            && self.filter.min().is_some_and(|min| min - offset > BEHIND_STEADY_US);
        let reorder_us = if self.may_reorder { REORDER_US } else { AHEAD_US };
        !(-ahead_us..=BEHIND_US).contains(&late_us)
            || steady
            || back_us > reorder_us
            || (self.may_reorder && back_us > 0 && self.is_no_reorder(key))
    }

    /// Whether a picture stamped before its predecessors cannot be a B frame.
    fn is_no_reorder(&self, key: bool) -> bool {
        key || self.behind_units >= REORDER_UNITS || (!self.reorders && self.units > NO_REORDER_AFTER)
    }

    /// The offset that lets this frame follow the one before by the spacing of their arrivals.
    fn bridge(&self, media_us: i64, arrival_us: i64) -> i64 {
        let position = match self.last {
            None => arrival_us,
            Some(last) => {
                // What the network delayed the frame before is taken to delay this one, if it is an amount that a network delays.
                let delay = last.arrival_us - last.placed_us;
                let believable = (0..=BEHIND_STEADY_US).contains(&delay);
                (arrival_us - if believable { delay } else { 0 }).max(self.latest_us + 1000)
            }
        };
        position - media_us
    }

    fn jump(&mut self, media_us: i64, arrival_us: i64) -> Placed {
        while self.jumps.front().is_some_and(|&at| arrival_us - at > JUMPS_SPAN_US) {
            self.jumps.pop_front();
        }
        self.jumps.push_back(arrival_us);
        self.forget_stamps();
        if self.jumps.len() >= JUMPS_MAX {
            self.by_arrival = true;
            let placed = self.place_by_arrival(arrival_us);
            return Placed { jump: true, ..placed };
        }
        let offset = self.bridge(media_us, arrival_us);
        self.offset_us = Some(offset);
        self.filter.push(arrival_us, arrival_us - media_us);
        self.media_latest_us = media_us;
        self.media_last_us = Some(media_us);
        self.placed(media_us + offset, arrival_us, true)
    }

    fn place_by_arrival(&mut self, arrival_us: i64) -> Placed {
        let position = arrival_us.max(self.latest_us.saturating_add(1000));
        self.placed(position, arrival_us, false)
    }

    /// The offset, moved towards the estimate by what the progress of the media allows.
    fn slewed(&self, offset: i64, media_us: i64) -> i64 {
        let Some(target) = self.reference_us.or_else(|| self.filter.min()) else {
            return offset;
        };
        if self.media_latest_us == i64::MIN {
            return offset;
        }
        let progress = (media_us - self.media_latest_us).clamp(0, 10_000_000);
        let step = progress * SLEW_PPM / 1_000_000;
        offset + (target - offset).clamp(-step, step)
    }
}

/// UTC against the steady clock.
#[derive(Debug, Default)]
pub(crate) struct HostClock {
    offset_us: Option<i64>,
    last_us: i64,
}

impl HostClock {
    /// Looks at both clocks. True while UTC has stepped and [`Self::accept_step`] was not called yet.
    pub fn observe(&mut self, at: HostTime) -> bool {
        let now = at.wall.as_micros() - at.mono_us;
        let Some(offset) = &mut self.offset_us else {
            self.offset_us = Some(now);
            self.last_us = at.mono_us;
            return false;
        };
        if (now - *offset).abs() >= HOST_STEP_US {
            return true;
        }
        let step = (at.mono_us - self.last_us).clamp(0, 10_000_000) * HOST_SLEW_PPM / 1_000_000;
        if step > 0 {
            *offset += (now - *offset).clamp(-step, step);
            self.last_us = at.mono_us;
        }
        false
    }

    /// From now on UTC is what the host says now.
    pub fn accept_step(&mut self, at: HostTime) {
        self.offset_us = Some(at.wall.as_micros() - at.mono_us);
        self.last_us = at.mono_us;
    }

    /// A position on the steady clock as UTC.
    pub fn to_wall(&self, mono_us: i64) -> WallTime {
        WallTime::from_micros(mono_us.saturating_add(self.offset_us.unwrap_or(0)))
    }
}
