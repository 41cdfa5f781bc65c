//! Access units of a camera's own archive to frames on the UTC time line, and where segments begin. A pure state machine: no clock, no IO.
//!
//! The stamps of the units are relative, so the first picture is taken to be of the moment that was asked for. An archive begins
//! at the key frame at or before that moment; how far before is not told. Back-filled footage may thus be dated late, by the
//! length of one group of pictures and the second to which such archives are asked. What follows keeps its distances exactly.

use std::{collections::VecDeque, sync::Arc};

use corenvr_media::{CodecParameters, Frame, TimeRange, TrackId, WallTime};
use corenvr_proto::rtp::depacketize::AccessUnit;

use crate::pipeline::Track;

/// Stamps that leap further ahead than this do not say any more when a picture was taken.
const JUMP_MAX_US: i64 = 10_000_000;
/// Nor do stamps that go back further than pictures are reordered.
const BACK_MAX_US: i64 = 1_000_000;
/// Pictures this far apart have a gap between them, if they are also [`HOLE_STEPS`] times as far apart as those before.
const HOLE_US: i64 = 2_000_000;
const HOLE_STEPS: i64 = 4;
/// The first frames of a segment are held this long: then its earliest frame and all its tracks are known.
const HOLD_US: i64 = 1_000_000;
/// Bytes that are held at most; then the segment begins with what is known.
const HOLD_BYTES_MAX: usize = 16 << 20;
/// Sound that may wait for the picture. Beyond, it is left out.
const SOUND_FRAMES_MAX: usize = 2048;
const SOUND_BYTES_MAX: usize = 4 << 20;
/// Frames are stored to the millisecond: one nearer to the end of the window would lie on it.
const STORED_US: i64 = 1000;

/// What comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Out {
    /// With the next frame a segment begins. The frames that may be its earliest come out together with this.
    Segment(Arc<[CodecParameters]>),
    /// A frame of the segment.
    Frame(Frame),
}

/// Why nothing more is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// The window is full.
    Complete,
    /// What comes cannot be dated any more, in words.
    Broken(String),
}

/// The stamps of a track on the time line.
#[derive(Debug, Clone, Copy)]
struct Stamps {
    rate: u32,
    last: u32,
    ticks: i64,
    /// The time of tick 0.
    origin: WallTime,
}

impl Stamps {
    const fn new(rate: u32, first: u32, origin: WallTime) -> Self {
        Self {
            rate,
            last: first,
            ticks: 0,
            origin,
        }
    }

    /// The time of a stamp, which is within half the range of stamps of the one before.
    fn time(&mut self, stamp: u32) -> WallTime {
        self.ticks += self.step(stamp);
        self.last = stamp;
        let us = i128::from(self.ticks) * 1_000_000 / i128::from(self.rate.max(1));
        self.origin.offset(i64::try_from(us).unwrap_or(i64::MAX))
    }

    fn step(&self, stamp: u32) -> i64 {
        i64::from(stamp.wrapping_sub(self.last).cast_signed())
    }
}

/// A segment of which not all is known yet.
#[derive(Debug)]
struct Pending {
    video: Arc<CodecParameters>,
    key_time: WallTime,
    /// The latest picture of the segment before.
    behind: Option<WallTime>,
    frames: Vec<Frame>,
    bytes: usize,
}

/// The open segment.
#[derive(Debug)]
struct Open {
    /// The time of its first key frame.
    start: WallTime,
    /// Its earliest frame's, which is the limit of the segment before.
    earliest: WallTime,
    video: Arc<CodecParameters>,
    audio: Option<Arc<CodecParameters>>,
}

/// The time line of one span.
#[derive(Debug)]
pub(super) struct Line {
    window: TimeRange,
    segment_us: i64,
    video: Option<Stamps>,
    audio: Option<Stamps>,
    video_parameters: Option<Arc<CodecParameters>>,
    audio_parameters: Option<Arc<CodecParameters>>,
    open: Option<Open>,
    pending: Option<Pending>,
    sound: VecDeque<Frame>,
    sound_bytes: usize,
    /// The latest time of a picture, and the last step to it.
    newest: Option<WallTime>,
    step_us: Option<i64>,
    skip_to_key: bool,
    split: bool,
    holes: u64,
    left_out: u64,
    ended: Option<Ended>,
    out: VecDeque<Out>,
}

impl Line {
    /// For frames of `window`. The next key frame after `segment_us` starts another segment.
    pub fn new(window: TimeRange, segment_us: i64) -> Self {
        Self {
            window,
            segment_us,
            video: None,
            audio: None,
            video_parameters: None,
            audio_parameters: None,
            open: None,
            pending: None,
            sound: VecDeque::new(),
            sound_bytes: 0,
            newest: None,
            step_us: None,
            skip_to_key: false,
            split: false,
            holes: 0,
            left_out: 0,
            ended: None,
            out: VecDeque::new(),
        }
    }

    /// Takes the next unit of a track, in decode order. `rate`: ticks a second of its stamp.
    pub fn unit(&mut self, track: Track, rate: u32, mut unit: AccessUnit) {
        if self.ended.is_some() {
            return;
        }
        let parameters = unit.parameters.take();
        match track {
            Track::Video => {
                self.video_parameters = parameters.or(self.video_parameters.take());
                self.picture(rate, unit);
            }
            Track::Audio => {
                if let Some(parameters) = parameters {
                    self.note_sound(parameters);
                }
                self.sound(rate, unit);
            }
        }
    }

    /// The stamps of a track start anew: what follows cannot be dated.
    pub fn restart(&mut self, track: Track) {
        match track {
            Track::Video if self.video.is_some() => self.end("the device's stamps start anew in the middle"),
            Track::Video => {}
            Track::Audio => self.audio = None,
        }
    }

    /// Nothing more comes: what is held comes out.
    pub fn finish(&mut self) {
        self.release();
        self.let_sound_out(self.newest);
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    /// Why nothing more is taken, once that is so.
    pub const fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// The latest time of a picture that was taken.
    pub const fn newest(&self) -> Option<WallTime> {
        self.newest
    }

    /// Gaps within what came.
    pub const fn holes(&self) -> u64 {
        self.holes
    }

    /// Units that have no place: before the first key frame, outside the window, behind a gap up to a key frame.
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    fn end(&mut self, reason: impl Into<String>) {
        self.finish();
        self.ended = Some(Ended::Broken(reason.into()));
    }

    fn picture(&mut self, rate: u32, unit: AccessUnit) {
        let stamps = match &mut self.video {
            Some(stamps) if stamps.rate == rate => stamps,
            Some(_) => return self.end("the device changes the clock of its stamps in the middle"),
            None if unit.key && self.video_parameters.is_some() => {
                self.video.insert(Stamps::new(rate, unit.timestamp, self.window.start))
            }
            None => {
                self.left_out += 1;
                return;
            }
        };
        let time = stamps.time(unit.timestamp);
        let before = self.newest;
        if !self.follows(time, unit.lost > 0, unit.key) {
            return;
        }
        if time.offset(STORED_US) > self.window.end {
            self.finish();
            self.ended = Some(Ended::Complete);
            return;
        }
        if time < self.window.start || (self.skip_to_key && !unit.key) {
            self.left_out += 1;
            return;
        }
        // A key frame that is shown before others which have come already cannot begin anything.
        if unit.key && before.is_none_or(|newest| time > newest) {
            self.skip_to_key = false;
            self.begin_if_due(time, before);
        }
        let limit = match (&self.pending, &self.open) {
            (Some(pending), _) => pending.behind,
            (None, open) => open.as_ref().map(|o| o.earliest.offset(-1)),
        };
        if self.skip_to_key || limit.is_some_and(|limit| time <= limit) {
            self.left_out += 1;
            return;
        }
        self.push_picture(Frame {
            track: TrackId(0),
            time,
            key: unit.key,
            data: unit.data,
        });
    }

    /// Whether a picture of `time` may follow those before; notes where there is a gap.
    fn follows(&mut self, time: WallTime, lost: bool, key: bool) -> bool {
        let Some(newest) = self.newest else {
            self.newest = Some(time);
            return true;
        };
        let step_us = time.micros_since(newest);
        if !(-BACK_MAX_US..=JUMP_MAX_US).contains(&step_us) {
            let seconds = step_us as f64 / 1e6;
            self.end(format!(
                "the device's stamps leap by {seconds:.1} s behind {newest}: what follows cannot be dated"
            ));
            return false;
        }
        if step_us > 0 {
            let far = lost || self.step_us.is_some_and(|before| step_us > HOLE_STEPS * before);
            if step_us > HOLE_US && far {
                self.holes += 1;
                self.split = true;
                self.skip_to_key = !key;
                // Sound in a hole would make it look like footage.
                if self.pending.is_none() {
                    self.drop_sound();
                }
            } else {
                self.step_us = Some(step_us);
            }
            self.newest = Some(time);
        }
        true
    }

    fn begin_if_due(&mut self, time: WallTime, behind: Option<WallTime>) {
        let Some(video) = self.video_parameters.clone() else {
            return;
        };
        let due = match (&self.pending, &self.open) {
            (Some(p), _) => *p.video != *video || self.split,
            (None, Some(open)) => {
                let changed = *open.video != *video || open.audio.as_deref() != self.audio_parameters.as_deref();
                self.split || changed || time.micros_since(open.start) >= self.segment_us
            }
            (None, None) => true,
        };
        if due {
            self.release();
            self.split = false;
            self.pending = Some(Pending {
                video,
                key_time: time,
                behind,
                frames: Vec::new(),
                bytes: 0,
            });
        }
    }

    fn push_picture(&mut self, frame: Frame) {
        let Some(pending) = &mut self.pending else {
            self.out.push_back(Out::Frame(frame));
            return self.let_sound_out(self.newest);
        };
        let known = frame.time.micros_since(pending.key_time) >= HOLD_US;
        pending.bytes += frame.data.len();
        pending.frames.push(frame);
        if known || pending.bytes >= HOLD_BYTES_MAX {
            self.release();
        }
    }

    /// Begins the segment of which enough is known now.
    fn release(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        let Some(earliest) = pending.frames.iter().map(|f| f.time).min() else {
            return;
        };
        // What sounds before it belongs to the segment before.
        self.let_sound_out(Some(earliest.offset(-1)));
        let audio = self.audio_parameters.clone();
        let tracks = std::iter::once(&pending.video).chain(&audio);
        self.out
            .push_back(Out::Segment(tracks.map(|p| CodecParameters::clone(p)).collect()));
        self.open = Some(Open {
            start: pending.key_time,
            earliest,
            video: pending.video,
            audio,
        });
        let mut shown = earliest;
        for frame in pending.frames {
            shown = shown.max(frame.time);
            self.out.push_back(Out::Frame(frame));
            self.let_sound_out(Some(shown));
        }
    }

    /// Sound of other parameters than the open segment's waits for the next one, and what was to come with the old ones is over.
    fn note_sound(&mut self, parameters: Arc<CodecParameters>) {
        if self.audio_parameters.as_deref().is_some_and(|p| *p != *parameters) {
            self.drop_sound();
        }
        self.audio_parameters = Some(parameters);
    }

    fn drop_sound(&mut self) {
        self.left_out += self.sound.len() as u64;
        self.sound.clear();
        self.sound_bytes = 0;
    }

    fn sound(&mut self, rate: u32, unit: AccessUnit) {
        let (Some(video), Some(newest)) = (self.video, self.newest) else {
            self.left_out += 1;
            return;
        };
        let near = i64::from(rate) * JUMP_MAX_US / 1_000_000;
        let shared = rate == video.rate && video.step(unit.timestamp).abs() <= near;
        let stamps = self.audio.get_or_insert_with(|| {
            if shared {
                video
            } else {
                // On a clock of its own, of which nothing tells how it lies to the picture's.
                Stamps::new(rate, unit.timestamp, newest)
            }
        });
        let time = stamps.time(unit.timestamp);
        if stamps.rate != rate || time.micros_since(newest).abs() > JUMP_MAX_US {
            self.audio = None;
            self.left_out += 1;
            return;
        }
        let late = |open: &Open| time < open.earliest;
        let waits = self.pending.is_none() && (!self.is_sound_of_segment() || self.open.as_ref().is_some_and(late));
        let full = self.sound.len() >= SOUND_FRAMES_MAX || self.sound_bytes + unit.data.len() > SOUND_BYTES_MAX;
        let inside = time >= self.window.start && time.offset(STORED_US) <= self.window.end;
        if waits || full || self.skip_to_key || !inside || self.audio_parameters.is_none() {
            self.left_out += 1;
            return;
        }
        self.sound_bytes += unit.data.len();
        self.sound.push_back(Frame {
            track: TrackId(1),
            time,
            key: true,
            data: unit.data,
        });
        if self.pending.is_none() {
            self.let_sound_out(self.newest);
        }
    }

    fn is_sound_of_segment(&self) -> bool {
        let open = self.open.as_ref().and_then(|o| o.audio.as_deref());
        open.is_some() && open == self.audio_parameters.as_deref()
    }

    /// Sound goes out as far as there are pictures: nothing of a segment may be later than the start of the next.
    fn let_sound_out(&mut self, until: Option<WallTime>) {
        while let Some(frame) = self.sound.front()
            && until.is_some_and(|t| frame.time <= t)
            && let Some(frame) = self.sound.pop_front()
        {
            self.sound_bytes -= frame.data.len();
            if self.is_sound_of_segment() {
                self.out.push_back(Out::Frame(frame));
            } else {
                self.left_out += 1;
            }
        }
    }
}
