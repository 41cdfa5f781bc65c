//! Access units to the pipeline and on to the sink: what every way of ingest ends in, whatever its packets look like.

use std::time::{Duration, Instant};

use corenvr_proto::rtp::{depacketize::AccessUnit, reorder::ReorderCounts, rtcp::SenderInfo};

use super::{Continuation, End, EndKind, MediaCounts, Sink, host_time};
use crate::pipeline::{Clocks, Output, Pipeline, Track, TrackSetup};

/// A stream that brings no key frame, or no parameters to decode it with, for this long is connected anew.
const FIRST_KEY_TIMEOUT: Duration = Duration::from_secs(30);

/// The units of one connection on their way to the sink.
pub(crate) struct Intake<S> {
    pipeline: Pipeline,
    sink: S,
    last_unit: Option<Instant>,
    began: bool,
    need_key_frame: bool,
}

impl<S: Sink> Intake<S> {
    /// For a picture and perhaps sound. Sound that may come or not is given without parameters: it is recorded from the first
    /// segment on that begins after it came.
    pub fn new(
        video: TrackSetup,
        audio: Option<TrackSetup>,
        clocks: Clocks,
        continuation: &Continuation,
        sink: S,
    ) -> Self {
        let pipeline = Pipeline::new(
            continuation.limits,
            video,
            audio,
            clocks,
            continuation.cause,
            continuation.not_before,
        );
        Self {
            pipeline,
            sink,
            last_unit: None,
            began: false,
            need_key_frame: false,
        }
    }

    /// Where everything goes.
    pub fn sink(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Takes the next unit of a track, in decode order.
    pub fn unit(&mut self, now: Instant, track: Track, unit: AccessUnit) {
        if track == Track::Video {
            self.last_unit = Some(now);
        }
        self.pipeline.unit(track, unit, host_time(now));
        self.outputs(now);
    }

    /// The stream of a track begins anew, with stamps of its own.
    pub fn restart(&mut self, now: Instant, track: Track) {
        self.pipeline.restart(track);
        self.outputs(now);
    }

    /// The sound turns out to have a clock of its own, with `rate` ticks a second; before its first unit.
    pub fn separate_audio(&mut self, rate: u32) {
        self.pipeline.separate_audio(rate);
    }

    /// Notes a sender report of a track.
    pub fn sender_report(&mut self, track: Track, info: &SenderInfo) {
        self.pipeline.sender_report(track, info);
    }

    /// The stream ends: everything that is held comes out.
    pub fn finish(&mut self, now: Instant) {
        self.pipeline.finish();
        self.outputs(now);
    }

    /// Tells the sink what was counted; called from time to time, and at the end.
    pub fn tell_counts(&mut self, packets: ReorderCounts, malformed: u64) {
        let counts = MediaCounts {
            packets,
            malformed,
            pipeline: self.pipeline.counts(),
            drift_ppm: self.pipeline.drift_ppm(),
        };
        self.sink.counts(&counts);
    }

    /// Why a session that plays since `since` has to end, if it has to. `silence`: as long without a picture is too long.
    /// `last_packet`: when anything at all came.
    pub fn verdict(
        &self,
        since: Instant,
        now: Instant,
        silence: Duration,
        last_packet: Option<Instant>,
    ) -> Option<End> {
        let age = |t: Instant| now.saturating_duration_since(t);
        if self.sink.is_done() {
            return Some(End::new(EndKind::Done, "done"));
        }
        if self.need_key_frame {
            let reason = "the stream has no key frame for far longer than a segment: connected anew to get one";
            return Some(End::new(EndKind::NeedKeyFrame, reason));
        }
        if age(self.last_unit.unwrap_or(since)) > silence {
            let seconds = silence.as_secs();
            let reason = match last_packet {
                None => format!("the camera agreed to play and sent nothing for {seconds} s"),
                Some(_) => format!("no picture came for {seconds} s"),
            };
            return Some(End::new(EndKind::Silent, reason));
        }
        if !self.began && age(since) > FIRST_KEY_TIMEOUT {
            let reason = "the stream has no key frame with its parameter sets: check the camera's encoder settings";
            return Some(End::new(EndKind::Silent, reason));
        }
        None
    }

    fn outputs(&mut self, now: Instant) {
        while let Some(output) = self.pipeline.poll() {
            match output {
                Output::NeedKeyFrame => self.need_key_frame = true,
                output => {
                    self.began = true;
                    self.sink.output(output, host_time(now));
                }
            }
        }
    }
}
