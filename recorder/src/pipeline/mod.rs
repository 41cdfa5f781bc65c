//! Access units to frames on the UTC time line, and where segments begin. A pure state machine: units and the host's clocks go
//! in, frames and segment starts come out. One pipeline lives as long as one connection to the camera.

mod clock;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use corenvr_media::{CodecParameters, Frame, TrackId, WallTime};
use corenvr_proto::rtp::{depacketize::AccessUnit, rtcp::SenderInfo};
use corenvr_store::GapCause;

pub(crate) use clock::HostTime;
use clock::{HostClock, TrackClock};

/// Units of the first moments of a connection are held this long, so that the first frame's time is right already.
const SETTLE_US: i64 = 500_000;
/// Units, and bytes of them, that are held at most; then the time is taken from what has come.
const SETTLE_UNITS_MAX: usize = 2048;
const SETTLE_BYTES_MAX: usize = 16 << 20;
/// A connection that begins with stored frames repeats up to this much of what was recorded before; it is left out.
const REPEAT_MAX_US: i64 = 30_000_000;
/// A hole between two pictures this long, with packets lost in it, is told as a gap.
const LOSS_GAP_US: i64 = 2_000_000;

/// The two kinds of tracks that are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Track {
    Video,
    Audio,
}

/// How the stamps of the two tracks belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clocks {
    /// Each has its own origin; sender reports may tell how they lie to each other.
    Separate,
    /// Both are counted on one clock from one origin: where the picture lies, the sound does.
    Shared,
}

/// When segments end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentLimits {
    /// The next key frame after this time starts a new segment.
    pub length: Duration,
    /// The same for the first segment of the connection: shorter, so that cameras which started together do not change files together.
    pub first: Duration,
}

impl SegmentLimits {
    /// A segment this old is waiting for a key frame that does not come.
    fn overdue_us(&self) -> i64 {
        self.length.as_micros() as i64 * 4 + 60_000_000
    }
}

/// With the next frame, which is a key frame, a new segment begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentStart {
    /// `parameters[i]` describes `TrackId(i)`; the video track is first.
    pub parameters: Arc<[CodecParameters]>,
    /// Why footage may be missing before it.
    pub cause: Option<GapCause>,
}

/// What comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// A segment begins.
    Segment(SegmentStart),
    /// A frame of the segment.
    Frame(Frame),
    /// The segment is far longer than it should be, for want of a key frame. A new connection brings one.
    NeedKeyFrame,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PipelineCounts {
    /// Units that came before a key frame, or again after they had been recorded.
    pub before_key: u64,
    /// Units that may be damaged.
    pub damaged: u64,
    /// Jumps of stamps or of UTC.
    pub jumps: u64,
}

struct Held {
    track: Track,
    unit: AccessUnit,
    at: HostTime,
}

/// A sender report: the same moment on the sender's clock and in the stream's own time, in microseconds.
#[derive(Debug, Clone, Copy)]
struct Report {
    ntp_us: i64,
    media_us: i64,
}

struct TrackState {
    clock: TrackClock,
    /// In force for the frames of the open segment.
    parameters: Option<Arc<CodecParameters>>,
    /// To come into force with the next segment.
    next: Option<Arc<CodecParameters>>,
    report: Option<Report>,
}

impl TrackState {
    fn new(rate: u32, may_reorder: bool, known: Option<Arc<CodecParameters>>) -> Self {
        Self {
            clock: TrackClock::new(rate, may_reorder),
            parameters: None,
            next: known,
            report: None,
        }
    }

    /// Notes parameters that came with a unit; a repetition of what holds changes nothing.
    fn note(&mut self, parameters: Arc<CodecParameters>) {
        let current = self.next.as_ref().or(self.parameters.as_ref());
        if current.is_some_and(|c| **c == *parameters) {
            return;
        }
        let in_force = self.parameters.as_ref().is_some_and(|c| **c == *parameters);
        self.clock.parameters_changed();
        self.next = (!in_force).then_some(parameters);
    }

    fn latest(&self) -> Option<&Arc<CodecParameters>> {
        self.next.as_ref().or(self.parameters.as_ref())
    }
}

/// The stream that a track comes from: clock rate, and parameters where SDP has told them.
#[derive(Debug, Clone)]
pub(crate) struct TrackSetup {
    /// Ticks per second of the RTP stamps.
    pub rate: u32,
    /// What is known before the first unit.
    pub parameters: Option<Arc<CodecParameters>>,
}

/// The pipeline of one connection.
pub(crate) struct Pipeline {
    limits: SegmentLimits,
    host: HostClock,
    video: TrackState,
    audio: Option<TrackState>,
    clocks: Clocks,
    /// `None` once the time is settled.
    held: Option<Vec<Held>>,
    held_bytes: usize,
    /// The newest frame of the connection before.
    not_before: Option<WallTime>,
    /// Start and intended length of the open segment.
    segment: Option<(WallTime, Duration)>,
    /// The next key frame starts a segment.
    split: bool,
    /// Why there may be a gap before it.
    cause: Option<GapCause>,
    stepped: bool,
    asked_for_key: bool,
    last_picture: Option<WallTime>,
    out: VecDeque<Output>,
    counts: PipelineCounts,
}

impl Pipeline {
    /// `cause`: why there was no footage until now. `not_before`: time of the newest frame that was recorded before.
    pub fn new(
        limits: SegmentLimits,
        video: TrackSetup,
        audio: Option<TrackSetup>,
        clocks: Clocks,
        cause: Option<GapCause>,
        not_before: Option<WallTime>,
    ) -> Self {
        Self {
            limits,
            host: HostClock::default(),
            video: TrackState::new(video.rate, true, video.parameters),
            audio: audio.map(|a| TrackState::new(a.rate, false, a.parameters)),
            clocks,
            held: Some(Vec::new()),
            held_bytes: 0,
            not_before,
            segment: None,
            split: true,
            cause,
            stepped: false,
            asked_for_key: false,
            last_picture: None,
            out: VecDeque::new(),
            counts: PipelineCounts::default(),
        }
    }

    /// Takes the next unit of a track, in decode order, as it came.
    pub fn unit(&mut self, track: Track, unit: AccessUnit, at: HostTime) {
        let Some(held) = &mut self.held else {
            self.place(track, unit, at);
            return;
        };
        self.held_bytes += unit.data.len();
        held.push(Held { track, unit, at });
        let settled = held
            .first()
            .is_some_and(|first| at.mono_us - first.at.mono_us >= SETTLE_US);
        if settled || held.len() >= SETTLE_UNITS_MAX || self.held_bytes >= SETTLE_BYTES_MAX {
            self.settle();
        }
    }

    /// The stream ends: what is held comes out.
    pub fn finish(&mut self) {
        if self.held.is_some() {
            self.settle();
        }
    }

    /// The stream of a track begins anew, with stamps of its own.
    pub fn restart(&mut self, track: Track) {
        self.finish();
        let Some(state) = self.track_mut(track) else { return };
        state.clock.restart();
        state.report = None;
        if track == Track::Video && self.segment.is_some() {
            self.want_split(Some(GapCause::Clock));
            self.counts.jumps += 1;
        }
    }

    /// The sound has a clock of its own, with `rate` ticks a second. What is known of its parameters stays.
    pub fn separate_audio(&mut self, rate: u32) {
        self.clocks = Clocks::Separate;
        if let Some(audio) = &mut self.audio {
            audio.clock = TrackClock::new(rate, false);
        }
    }

    /// Notes a sender report of a track. A sender without a clock sends 0 and is not believed.
    pub fn sender_report(&mut self, track: Track, info: &SenderInfo) {
        let Some(state) = self.track_mut(track) else { return };
        if info.ntp == 0 {
            return;
        }
        let Some(media_us) = state.clock.media_us(info.rtp) else {
            return;
        };
        // Only differences between two reports count, so any era and any origin will do.
        let ntp_us = ((u128::from(info.ntp) * 1_000_000) >> 32) as i64;
        state.report = Some(Report { ntp_us, media_us });
        self.synchronise();
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What was counted so far.
    pub const fn counts(&self) -> PipelineCounts {
        self.counts
    }

    /// How much faster the camera's clock runs than ours.
    pub fn drift_ppm(&self) -> f64 {
        self.video.clock.drift_ppm()
    }

    fn track_mut(&mut self, track: Track) -> Option<&mut TrackState> {
        match track {
            Track::Video => Some(&mut self.video),
            Track::Audio => self.audio.as_mut(),
        }
    }

    fn settle(&mut self) {
        let held = self.held.take().unwrap_or_default();
        let shared = self.clocks == Clocks::Shared;
        for track in [Track::Video, Track::Audio] {
            let first = held
                .iter()
                .filter(|h| shared || h.track == track)
                .map(|h| (h.unit.timestamp, h.at.mono_us));
            if let Some(state) = self.track_mut(track) {
                state.clock.settle(first);
            }
        }
        // Sound that begins a moment after the picture belongs to the first segment.
        let mut sound = held.iter().filter(|h| h.track == Track::Audio);
        let parameters = sound.find_map(|h| h.unit.parameters.clone());
        if let (Some(audio), Some(parameters)) = (&mut self.audio, parameters) {
            audio.note(parameters);
        }
        for h in self.in_order(held) {
            self.place(h.track, h.unit, h.at);
        }
    }

    /// A picture comes out only when the next one shows that it is whole, so sound of its time comes before it. At the start that would
    /// be sound before the first segment: what is not older than the first key frame goes behind it.
    fn in_order(&self, mut held: Vec<Held>) -> Vec<Held> {
        let key = held.iter().position(|h| h.track == Track::Video && h.unit.key);
        let (Clocks::Shared, Some(key)) = (self.clocks, key) else {
            return held;
        };
        let start = held[key].unit.timestamp;
        let is_later = |h: &Held| h.track == Track::Audio && h.unit.timestamp.wrapping_sub(start) < 1 << 31;
        // False sorts before true, and equals keep their order.
        held[..=key].sort_by_key(is_later);
        held
    }

    /// Lets the reports of both tracks place the sound beside the picture.
    fn synchronise(&mut self) {
        let Some(audio) = &mut self.audio else { return };
        let (Some(v), Some(a), Some(offset)) = (self.video.report, audio.report, self.video.clock.offset_us()) else {
            return;
        };
        let reference = v.media_us - v.ntp_us + a.ntp_us - a.media_us + offset;
        audio.clock.set_reference(reference);
    }

    /// Where the picture lies, the sound of the same clock does.
    fn share_clock(&mut self) {
        if self.clocks == Clocks::Shared
            && let Some(audio) = &mut self.audio
            && let Some(offset) = self.video.clock.offset_us()
        {
            audio.clock.set_reference(offset);
        }
    }

    fn place(&mut self, track: Track, mut unit: AccessUnit, at: HostTime) {
        if self.host.observe(at) && !self.stepped {
            self.stepped = true;
            self.counts.jumps += 1;
        }
        self.counts.damaged += u64::from(unit.damaged);
        let parameters = unit.parameters.take();
        let Some(state) = self.track_mut(track) else { return };
        if let Some(parameters) = parameters {
            state.note(parameters);
        }
        let placed = state.clock.place(unit.timestamp, unit.key, at.mono_us);
        if placed.jump {
            state.report = None;
            self.counts.jumps += 1;
        }
        match track {
            Track::Video => self.video(&unit, placed, at),
            Track::Audio => {
                self.share_clock();
                self.audio(unit, placed.mono_us);
            }
        }
    }

    fn video(&mut self, unit: &AccessUnit, placed: clock::Placed, at: HostTime) {
        if placed.jump && self.segment.is_some() {
            self.want_split(Some(GapCause::Clock));
        }
        if unit.key && std::mem::take(&mut self.stepped) {
            self.host.accept_step(at);
            self.want_split(Some(GapCause::Clock));
        }
        let time = self.host.to_wall(placed.mono_us);
        if let Some(last) = self.last_picture
            && unit.lost > 0
            && time.micros_since(last) > LOSS_GAP_US
        {
            self.want_split(Some(GapCause::Loss));
        }
        if unit.key {
            if self.repeats(time) {
                self.counts.before_key += 1;
                return;
            }
            self.begin_if_due(time);
        }
        let Some((start, _)) = self.segment else {
            self.counts.before_key += 1;
            return;
        };
        self.last_picture = Some(time);
        self.push(Frame {
            track: TrackId(0),
            time,
            key: unit.key,
            data: unit.data.clone(),
        });
        if time.micros_since(start) > self.limits.overdue_us() && !std::mem::replace(&mut self.asked_for_key, true) {
            self.out.push_back(Output::NeedKeyFrame);
        }
    }

    fn audio(&mut self, unit: AccessUnit, mono_us: i64) {
        let Some(audio) = &self.audio else { return };
        // Sound of other parameters than the segment was begun with waits for the next one.
        if self.segment.is_none() || audio.parameters.is_none() || audio.next.is_some() {
            self.counts.before_key += 1;
            return;
        }
        let time = self.host.to_wall(mono_us);
        self.push(Frame {
            track: TrackId(1),
            time,
            key: true,
            data: unit.data,
        });
    }

    fn push(&mut self, frame: Frame) {
        self.out.push_back(Output::Frame(frame));
    }

    /// Whether a key frame before the first segment is of a moment that is recorded already.
    fn repeats(&self, time: WallTime) -> bool {
        self.segment.is_none()
            && self
                .not_before
                .is_some_and(|last| time <= last && last.micros_since(time) <= REPEAT_MAX_US)
    }

    /// The next key frame begins a segment. The first cause stays: it is what happened first.
    fn want_split(&mut self, cause: Option<GapCause>) {
        self.split = true;
        self.cause = self.cause.or(cause);
    }

    fn begin_if_due(&mut self, time: WallTime) {
        let due = self
            .segment
            .is_none_or(|(start, length)| time.saturating_since(start) >= length);
        let changed = self.video.next.is_some() || self.audio.as_ref().is_some_and(|a| a.next.is_some());
        if !due && !changed && !self.split {
            return;
        }
        let Some(video) = self.video.latest().cloned() else {
            // No parameter set has come yet: nothing could decode this.
            return;
        };
        self.video.parameters = Some(video.clone());
        self.video.next = None;
        let mut parameters = vec![CodecParameters::clone(&video)];
        if let Some(audio) = &mut self.audio
            && let Some(latest) = audio.latest().cloned()
        {
            parameters.push(CodecParameters::clone(&latest));
            audio.parameters = Some(latest);
            audio.next = None;
        }
        let length = if self.segment.is_none() {
            self.limits.first
        } else {
            self.limits.length
        };
        self.segment = Some((time, length));
        self.asked_for_key = false;
        self.split = false;
        self.out.push_back(Output::Segment(SegmentStart {
            parameters: parameters.into(),
            cause: self.cause.take(),
        }));
    }
}
