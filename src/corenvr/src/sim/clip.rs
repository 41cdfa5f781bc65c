//! A clip prepared for an endless loop: when each frame is to be sent, and what its time stamp is.

use std::{sync::Arc, time::Duration};

use corenvr_media::{CodecParameters, Frame, TrackId, WallTime};
use corenvr_store::mkv::import::{Clip, ImportError, read_clip};

/// A clip that loops without a seam.
#[derive(Debug)]
pub struct LoopClip {
    /// The tracks.
    pub tracks: Arc<[CodecParameters]>,
    /// What is sent, in the order of sending.
    pub steps: Vec<Step>,
    /// How long one turn takes.
    pub duration: Duration,
}

/// One frame of the loop.
#[derive(Debug, Clone)]
pub struct Step {
    /// When it is sent, from the beginning of the turn, in microseconds.
    pub due_us: i64,
    /// When it is shown, from the beginning of the turn, in microseconds.
    pub shown_us: i64,
    /// A viewer can start here.
    pub start: bool,
    /// The frame; its time has no meaning.
    pub frame: Frame,
}

impl LoopClip {
    /// Reads a Matroska file; `None` if there is nothing to loop in it.
    pub fn read(data: &[u8]) -> Result<Option<Self>, ImportError> {
        Ok(Self::new(read_clip(data)?))
    }

    fn new(clip: Clip) -> Option<Self> {
        let video = clip.tracks.iter().position(CodecParameters::is_video).unwrap_or(0);
        let lead = TrackId(video as u8);
        // The turn begins with the first key frame and is as long as the pictures from there on.
        let first = clip.frames.iter().position(|f| f.track == lead && f.key)?;
        let begin = clip.frames[first].time;
        let mut shown: Vec<i64> = times(&clip.frames[first..], lead, begin);
        shown.retain(|t| *t >= 0);
        let (count, last) = (shown.len() as i64, *shown.last()?);
        if count < 2 || last <= 0 {
            return None;
        }
        let duration_us = last + last / (count - 1);
        let mut steps = Vec::with_capacity(clip.frames.len());
        for track in 0..clip.tracks.len() as u8 {
            steps.extend(track_steps(&clip, TrackId(track), lead, begin, duration_us, first));
        }
        steps.sort_by_key(|s| s.due_us);
        Some(Self {
            tracks: clip.tracks.into(),
            steps,
            duration: Duration::from_micros(duration_us as u64),
        })
    }
}

/// A track's times from the beginning of the turn, in order of time.
fn times(frames: &[Frame], track: TrackId, begin: WallTime) -> Vec<i64> {
    let of_track = frames.iter().filter(|f| f.track == track);
    let mut times: Vec<_> = of_track.map(|f| f.time.micros_since(begin)).collect();
    times.sort_unstable();
    times
}

/// A track's part of the turn. Frames are sent in decode order at the moments at which the track shows frames, so that
/// B frames make no bursts; what lies outside of the turn is left out.
fn track_steps(
    clip: &Clip,
    track: TrackId,
    lead: TrackId,
    begin: WallTime,
    duration_us: i64,
    first: usize,
) -> Vec<Step> {
    let inside = |f: &&Frame| (0..duration_us).contains(&f.time.micros_since(begin));
    // Sound may stand before the picture that it belongs to; pictures before the first key frame cannot be decoded.
    let from = if track == lead { first } else { 0 };
    let frames: Vec<Frame> = clip.frames[from..]
        .iter()
        .filter(|f| f.track == track)
        .filter(inside)
        .cloned()
        .collect();
    let due = times(&frames, track, begin);
    frames
        .into_iter()
        .zip(due)
        .map(|(frame, due_us)| Step {
            due_us,
            shown_us: frame.time.micros_since(begin),
            start: frame.key && track == lead,
            frame,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_clip_loops_without_a_seam() {
        let clip = LoopClip::read(super::super::BUILT_IN).unwrap().unwrap();
        assert_eq!(clip.duration, Duration::from_secs(8));
        assert_eq!(clip.tracks.len(), 2);
        assert!(clip.tracks[0].is_video() && !clip.tracks[1].is_video());
        let count = |track| clip.steps.iter().filter(|s| s.frame.track == TrackId(track)).count();
        assert_eq!((count(0), count(1)), (200, 375));
        assert_eq!(clip.steps.iter().filter(|s| s.start).count(), 8);
        assert!(clip.steps[0].start && clip.steps[0].due_us == 0);
        assert!(clip.steps.is_sorted_by_key(|s| s.due_us));
        assert!(clip.steps.iter().all(|s| s.due_us < 8_000_000));
    }

    #[test]
    fn frames_that_are_shown_out_of_order_are_sent_evenly() {
        let tracks = LoopClip::read(super::super::BUILT_IN).unwrap().unwrap().tracks[..1].to_vec();
        let frame = |ms: i64, key| Frame {
            track: TrackId(0),
            time: WallTime::from_millis(1000 + ms),
            key,
            data: bytes::Bytes::from_static(b"x"),
        };
        // I P B B P, with a picture in front that nothing can decode.
        let frames = vec![
            frame(-40, false),
            frame(0, true),
            frame(120, false),
            frame(40, false),
            frame(80, false),
            frame(160, false),
        ];
        let clip = LoopClip::new(Clip {
            tracks,
            frames,
            skipped: Vec::new(),
        })
        .unwrap();
        assert_eq!(clip.duration, Duration::from_millis(200));
        let steps: Vec<_> = clip
            .steps
            .iter()
            .map(|s| (s.due_us / 1000, s.shown_us / 1000))
            .collect();
        assert_eq!(steps, [(0, 0), (40, 120), (80, 40), (120, 80), (160, 160)]);
    }
}
