//! From the times at which frames are to be shown, in decode order, to decode times, durations and composition offsets.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use bytes::Bytes;
use corenvr_media::{AudioCodec, CodecParameters};

/// Pictures that are looked at to find the one shown next. A decoder holds 16 back at most (ITU-T H.264 A.3.1, H.265 A.4.2).
const REORDER_MAX: usize = 32;
/// A picture that would be shown earlier than this before its place in the order is shown then: a clock that was set back
/// further than that cannot be said in `ctts`.
const EARLY_MAX_S: i64 = 6 * 3600;
/// A last frame is taken to last this long at most.
const LAST_MAX_S: i64 = 1;
/// How long a frame lasts that is the only one.
const ALONE_MS: i64 = 40;
/// Samples in an AAC access unit (ISO/IEC 14496-3 4.5.1.1).
const AAC_SAMPLES: u32 = 1024;

/// The times of one track, in ticks from the movie's time 0.
pub struct Timeline {
    scale: i64,
    video: bool,
    /// Presentation times that no decode time was given to yet, the smallest on top.
    ahead: BinaryHeap<Reverse<i64>>,
    /// Presentation times of the samples that wait for their decode times.
    waiting: VecDeque<i64>,
    /// Where the sound goes on if there is no hole.
    goes_on_at: Option<i64>,
    first_dts: Option<i64>,
    last_dts: i64,
    last_delta: Option<u32>,
    /// By how much the earliest picture, compared with its decode time, is shown too early.
    early: i64,
    first_pts: i64,
    last_pts: i64,
    lasts: i64,
    samples: u64,
    /// `stts`: how many samples last how long.
    pub durations: Vec<(u32, u32)>,
    /// `ctts`: how many samples are shown how much later than decoded; to each comes [`Self::shift`].
    pub offsets: Vec<(u32, i32)>,
}

fn count<T: PartialEq>(runs: &mut Vec<(u32, T)>, value: T) {
    match runs.last_mut() {
        Some((n, v)) if *v == value => *n += 1,
        _ => runs.push((1, value)),
    }
}

impl Timeline {
    pub fn new(video: bool, scale: u32) -> Self {
        Self {
            scale: i64::from(scale),
            video,
            ahead: BinaryHeap::new(),
            waiting: VecDeque::new(),
            goes_on_at: None,
            first_dts: None,
            last_dts: 0,
            last_delta: None,
            early: 0,
            first_pts: i64::MAX,
            last_pts: i64::MIN,
            lasts: 0,
            samples: 0,
            durations: Vec::new(),
            offsets: Vec::new(),
        }
    }

    fn ticks(&self, us: i64) -> i64 {
        let t = i128::from(us) * i128::from(self.scale);
        (t + 500_000).div_euclid(1_000_000) as i64
    }

    /// The next frame in decode order, to be shown at `time_us`. `lasts`: how many ticks of sound it holds, where that is known.
    pub fn push(&mut self, time_us: i64, lasts: Option<i64>) {
        let mut t = self.ticks(time_us);
        if !self.video {
            if let Some(expected) = self.goes_on_at
                && (expected - t).abs() * 1000 < self.scale
            {
                t = expected;
            }
            self.goes_on_at = lasts.map(|n| t + n);
            return self.emit(t, t);
        }
        self.ahead.push(Reverse(t));
        self.waiting.push_back(t);
        if self.waiting.len() > REORDER_MAX {
            self.emit_next();
        }
    }

    /// All frames were pushed.
    pub fn finish(&mut self) {
        while !self.waiting.is_empty() {
            self.emit_next();
        }
        if self.samples == 0 || self.lasts != 0 {
            return;
        }
        let known = self.goes_on_at.map(|t| t - self.last_dts);
        let alone = ALONE_MS * self.scale / 1000;
        let last = known.or(self.last_delta.map(i64::from)).unwrap_or(alone);
        self.lasts = last.clamp(1, LAST_MAX_S * self.scale);
        count(&mut self.durations, self.lasts as u32);
    }

    fn emit_next(&mut self) {
        if let (Some(Reverse(dts)), Some(pts)) = (self.ahead.pop(), self.waiting.pop_front()) {
            self.emit(dts, pts);
        }
    }

    fn emit(&mut self, dts: i64, pts: i64) {
        let dts = match self.first_dts {
            // Decode times rise strictly.
            Some(_) => dts.max(self.last_dts + 1),
            None => dts,
        };
        if self.first_dts.is_some() {
            // The clip's span fits, see `scale` in the parent.
            let delta = u32::try_from(dts - self.last_dts).unwrap_or(u32::MAX);
            count(&mut self.durations, delta);
            self.last_delta = Some(delta);
        }
        let early_max = EARLY_MAX_S.min(i64::from(i32::MAX) / 2 / self.scale) * self.scale;
        let offset = (pts - dts).clamp(-early_max, early_max);
        let offset = if self.video { offset } else { 0 };
        count(&mut self.offsets, offset as i32);
        self.early = self.early.max(-offset);
        self.first_dts.get_or_insert(dts);
        self.last_dts = dts;
        self.first_pts = self.first_pts.min(dts + offset);
        self.last_pts = self.last_pts.max(dts + offset);
        self.samples += 1;
    }

    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// What is added to every composition offset so that none is negative.
    pub const fn shift(&self) -> i64 {
        self.early
    }

    /// Whether anything is shown in another order than it is decoded in.
    pub fn reorders(&self) -> bool {
        self.offsets.iter().any(|o| o.1 != 0)
    }

    /// When the first frame is shown, from the movie's time 0.
    pub const fn begin(&self) -> i64 {
        self.first_pts
    }

    /// The moment after the last frame, from the movie's time 0.
    pub const fn end(&self) -> i64 {
        self.last_pts + self.lasts
    }

    /// When the first frame is shown on the media's own time line, which begins with the first decode time.
    pub fn media_begin(&self) -> i64 {
        self.first_pts - self.first_dts.unwrap_or(0) + self.early
    }

    /// The sum of all durations.
    pub fn media_len(&self) -> i64 {
        self.last_dts - self.first_dts.unwrap_or(0) + self.lasts
    }
}

/// How many samples of sound are in a packet.
pub fn packet_samples(p: &CodecParameters, data: &Bytes) -> Option<u32> {
    let CodecParameters::Audio(a) = p else { return None };
    let channels = u32::from(a.channels.max(1));
    match a.codec {
        AudioCodec::Aac => Some(AAC_SAMPLES),
        AudioCodec::Opus => opus_samples(data),
        AudioCodec::Pcma | AudioCodec::Pcmu => Some(data.len() as u32 / channels),
        AudioCodec::L16 => Some(data.len() as u32 / 2 / channels),
        AudioCodec::G726 { .. } => None,
    }
}

/// Samples at 48 kHz in an Opus packet, by its first bytes (RFC 6716 section 3.1).
fn opus_samples(data: &[u8]) -> Option<u32> {
    let toc = *data.first()?;
    let config = toc >> 3;
    let frame = match config {
        0..=11 => [480, 960, 1920, 2880][usize::from(config & 3)],
        12..=15 => [480, 960][usize::from(config & 1)],
        _ => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(data.get(1)? & 0x3F),
    };
    // Longer than 120 ms is none.
    Some(frame * frames).filter(|n| (1..=5760).contains(n))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decode time and presentation time of every sample, as a player computes them, from the movie's time 0.
    fn played(line: &Timeline) -> Vec<(i64, i64)> {
        let flat = |runs: &[(u32, i64)]| -> Vec<i64> {
            runs.iter()
                .flat_map(|&(n, v)| std::iter::repeat_n(v, n as usize))
                .collect()
        };
        let durations: Vec<_> = line.durations.iter().map(|&(n, d)| (n, i64::from(d))).collect();
        let offsets: Vec<_> = line
            .offsets
            .iter()
            .map(|&(n, o)| (n, i64::from(o) + line.shift()))
            .collect();
        let mut dts = 0;
        let move_by = line.begin() - line.media_begin();
        let mut all = Vec::new();
        for (d, o) in flat(&durations).into_iter().zip(flat(&offsets)) {
            assert!(o >= 0, "shown before it is decoded");
            all.push((dts + move_by, dts + o + move_by));
            dts += d;
        }
        assert_eq!(dts, line.media_len());
        all
    }

    fn video(times_ms: &[i64]) -> Timeline {
        let mut line = Timeline::new(true, 90_000);
        for t in times_ms {
            line.push(t * 1000, None);
        }
        line.finish();
        line
    }

    #[test]
    fn pictures_keep_their_times_in_any_order() {
        let plain = video(&[0, 40, 80, 121]);
        assert!(!plain.reorders() && plain.shift() == 0);
        assert_eq!(plain.durations, [(2, 3600), (2, 3690)]);
        // I0 P120 B40 B80 P240 B160 B200
        let times = [0, 120, 40, 80, 240, 160, 200];
        let line = video(&times);
        assert_eq!(line.shift(), 3600);
        assert_eq!((line.begin(), line.media_begin()), (0, 3600));
        let shown: Vec<_> = played(&line).iter().map(|p| p.1 / 90).collect();
        assert_eq!(shown, times);
    }

    #[test]
    fn a_gap_stays_in_the_time_line_and_does_not_make_the_last_picture_long() {
        let line = video(&[0, 40, 3_600_000]);
        let shown: Vec<_> = played(&line).iter().map(|p| p.1 / 90).collect();
        assert_eq!(shown, [0, 40, 3_600_000]);
        assert_eq!(line.end(), 3_601_000 * 90);
    }

    #[test]
    fn sound_is_spaced_by_its_samples_until_there_is_a_hole() {
        let mut line = Timeline::new(false, 48_000);
        // 21.333 ms each, as milliseconds have it, then a hole.
        for t in [5, 26, 48, 69, 500, 521] {
            line.push(t * 1000, Some(1024));
        }
        line.finish();
        assert_eq!(line.durations, [(3, 1024), (1, 20_688), (2, 1024)]);
        assert_eq!((line.begin(), line.media_begin()), (240, 0));
        let shown: Vec<_> = played(&line).iter().map(|p| p.1).collect();
        assert!(
            shown
                .iter()
                .zip([5, 26, 48, 69, 500, 521])
                .all(|(s, t)| (s - t * 48).abs() < 48)
        );
    }

    #[test]
    fn an_opus_packet_tells_its_length() {
        for (packet, samples) in [
            (&[0x78u8][..], Some(960)),
            (&[0x79], Some(1920)),
            (&[0x7B, 3], Some(2880)),
            (&[0x7B, 63], None),
            (&[0x7B], None),
            (&[], None),
            (&[0x80], Some(120)),
        ] {
            assert_eq!(opus_samples(packet), samples, "{packet:?}");
        }
    }

    proptest! {
        /// Up to 16 pictures are held back, as a decoder may: every one is shown at its own time, and decoded in a rising order.
        #[test]
        fn any_order_of_pictures_is_shown_as_recorded(keys in prop::collection::vec(any::<u32>(), 1..200), depth in 0usize..16) {
            let mut times: Vec<i64> = (0..keys.len() as i64).map(|i| i * 33).collect();
            for group in times.chunks_mut(depth + 1) {
                let at = group[0] as usize / 33;
                group.sort_by_key(|t| keys[at + (*t as usize / 33) % group_len(keys.len(), at, depth)]);
            }
            let line = video(&times);
            let played = played(&line);
            prop_assert!(played.is_sorted_by(|a, b| a.0 < b.0));
            let shown: Vec<_> = played.iter().map(|p| p.1 / 90).collect();
            prop_assert_eq!(shown, times);
            prop_assert_eq!(line.begin(), 0);
        }

        /// Times that make no sense, within the longest span, neither panic nor make decode times fall.
        #[test]
        fn nonsense_is_bounded(times in prop::collection::vec(-1_700_000_000i64..1_700_000_000, 1..100), video: bool) {
            let mut line = Timeline::new(video, 1000);
            for t in &times {
                line.push(t * 1000, None);
            }
            line.finish();
            prop_assert_eq!(played(&line).len(), times.len());
        }
    }

    fn group_len(all: usize, at: usize, depth: usize) -> usize {
        (all - at).min(depth + 1)
    }
}
