//! A look at a camera without recording it: what it offers, how large, how many frames a second, or why not.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use corenvr_proto::{
    rtmp::RtmpUrl,
    rtsp::{CameraUrl, Lower},
};
use corenvr_shard::Stop;
use serde::Serialize;

use crate::{
    RecorderConfig, Source, StreamInfo, TransportChoice,
    ingest::{
        Continuation, End, EndKind, MediaCounts, Sink,
        rtmp::{Terms, pull},
        rtsp::{self, Target},
    },
    pipeline::{HostTime, Output, SegmentLimits},
};

/// How long frames are counted.
const LISTEN: Duration = Duration::from_secs(2);
/// A camera that sends nothing for this long has failed the probe.
const SILENCE: Duration = Duration::from_secs(8);
/// The same for UDP, before TCP is tried.
const UDP_SILENCE: Duration = Duration::from_secs(4);

/// One stream that can be recorded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProbedStream {
    /// Codec and size.
    #[serde(flatten)]
    pub info: StreamInfo,
    /// Frames per second as they came; `None` if too few came to tell.
    pub fps: Option<f64>,
    /// Payload bits per second as they came.
    pub bitrate_bps: u64,
}

/// What a camera sends.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProbeReport {
    /// The streams that would be recorded.
    pub streams: Vec<ProbedStream>,
    /// What else it offers and cannot be recorded, in words.
    pub not_recorded: Vec<String>,
    /// `tcp` or `udp`.
    pub transport: &'static str,
}

/// Why a camera cannot be recorded. Each text says what failed and, where there is one, the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// It cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The user or password is wrong or missing.
    #[error("{0}")]
    Unauthorized(String),
    /// It has no such stream, or does not let this user have it.
    #[error("{0}")]
    NotFound(String),
    /// It offers nothing that can be recorded.
    #[error("{0}")]
    NoVideo(String),
    /// It answered with something else that stops us.
    #[error("{0}")]
    Protocol(String),
    /// It connects to us, whenever it likes.
    #[error("this camera connects to corenvr and not the other way round: it cannot be tried, only added")]
    ComesToUs,
    /// It agreed to play and sent nothing.
    #[error("{0}")]
    Silent(String),
}

#[derive(Default)]
struct Seen {
    streams: Vec<StreamInfo>,
    not_recorded: Vec<String>,
    transport: Option<&'static str>,
    /// Frames, bytes, first and last time in microseconds; by track.
    tracks: [(u64, u64, i64, i64); 2],
    since: Option<Instant>,
}

struct Counting(Rc<RefCell<Seen>>);

impl Sink for Counting {
    fn chosen(&mut self, streams: &[StreamInfo], not_recorded: &[String]) {
        let mut seen = self.0.borrow_mut();
        seen.streams = streams.to_vec();
        seen.not_recorded = not_recorded.to_vec();
    }

    fn not_recorded(&mut self, what: &[String]) {
        self.0.borrow_mut().not_recorded = what.to_vec();
    }

    fn receiving(&mut self, transport: &'static str) {
        self.0.borrow_mut().transport = Some(transport);
    }

    fn output(&mut self, output: Output, _: HostTime) {
        let mut seen = self.0.borrow_mut();
        match output {
            Output::Segment(start) => {
                seen.streams = start.parameters.iter().map(StreamInfo::from).collect();
                seen.since.get_or_insert_with(Instant::now);
            }
            Output::Frame(frame) => {
                let t = frame.time.as_micros();
                if let Some(track) = seen.tracks.get_mut(usize::from(frame.track.0)) {
                    if track.0 == 0 {
                        *track = (0, 0, t, t);
                    }
                    *track = (
                        track.0 + 1,
                        track.1 + frame.data.len() as u64,
                        track.2.min(t),
                        track.3.max(t),
                    );
                }
            }
            Output::NeedKeyFrame => {}
        }
    }

    fn counts(&mut self, _: &MediaCounts) {}

    fn is_done(&self) -> bool {
        self.0.borrow().since.is_some_and(|t| t.elapsed() >= LISTEN)
    }
}

/// Connects, plays for about two seconds from the first key frame on, and tells what came. Runs on the caller's executor.
pub async fn probe(source: &Source, transport: TransportChoice) -> Result<ProbeReport, ProbeError> {
    let url = match source {
        Source::Rtsp(url) => url,
        Source::Rtmp(url) => return probe_rtmp(url).await,
        Source::Gb28181(_) | Source::RtmpListen(_) => return Err(ProbeError::ComesToUs),
    };
    let order: &[Lower] = match transport {
        TransportChoice::Auto => &[Lower::Udp, Lower::Tcp],
        TransportChoice::Tcp => &[Lower::Tcp],
        TransportChoice::Udp => &[Lower::Udp],
    };
    let mut last = None;
    for (index, &lower) in order.iter().enumerate() {
        let mut options_first = true;
        loop {
            let (seen, end) = attempt(url, lower, index + 1 < order.len(), options_first).await?;
            match end.kind {
                EndKind::Done => return Ok(report(seen)),
                EndKind::OptionsUnanswered if options_first => {
                    options_first = false;
                    continue;
                }
                EndKind::NoPacket | EndKind::TransportRefused => last = Some(end),
                _ => return Err(failure(end)),
            }
            break;
        }
    }
    Err(last.map_or_else(|| ProbeError::Protocol("no transport to try".into()), failure))
}

async fn attempt(
    url: &CameraUrl,
    transport: Lower,
    may_fall_back: bool,
    options_first: bool,
) -> Result<(Seen, End), ProbeError> {
    let target = Target {
        camera: "probe".into(),
        url: url.clone(),
        transport,
        audio: true,
        options_first,
        connect: RecorderConfig::default().connect,
        silence: SILENCE,
        first_packet: (may_fall_back && transport == Lower::Udp).then_some(UDP_SILENCE),
    };
    let seen = Rc::new(RefCell::new(Seen::default()));
    let ended = rtsp::run(&target, continuation(), Counting(seen.clone()), &Stop::default()).await;
    let end = ended.map_err(|panicked| ProbeError::Protocol(panicked.to_string()))?;
    let seen = seen.take();
    Ok((seen, end))
}

async fn probe_rtmp(url: &RtmpUrl) -> Result<ProbeReport, ProbeError> {
    let target = pull::Target {
        url: url.clone(),
        connect: RecorderConfig::default().connect,
        terms: Terms {
            audio: true,
            silence: SILENCE,
        },
    };
    let seen = Rc::new(RefCell::new(Seen::default()));
    let ended = pull::run(&target, continuation(), Counting(seen.clone()), &Stop::default()).await;
    let end = ended.map_err(|panicked| ProbeError::Protocol(panicked.to_string()))?;
    match end.kind {
        EndKind::Done => Ok(report(seen.take())),
        _ => Err(failure(end)),
    }
}

/// One long segment, after nothing.
fn continuation() -> Continuation {
    let hour = Duration::from_secs(3600);
    Continuation {
        cause: None,
        not_before: None,
        limits: SegmentLimits {
            length: hour,
            first: hour,
        },
    }
}

fn report(seen: Seen) -> ProbeReport {
    let streams = seen.streams.into_iter().enumerate().map(|(i, info)| {
        let (count, bytes, first, last) = seen.tracks.get(i).copied().unwrap_or_default();
        let span = (last - first) as f64 / 1e6;
        let enough = count > 4 && span > 0.2;
        ProbedStream {
            info,
            fps: enough.then(|| (count - 1) as f64 / span),
            bitrate_bps: if enough { (bytes as f64 * 8.0 / span) as u64 } else { 0 },
        }
    });
    ProbeReport {
        streams: streams.collect(),
        not_recorded: seen.not_recorded,
        transport: seen.transport.unwrap_or("tcp"),
    }
}

fn failure(end: End) -> ProbeError {
    match end.kind {
        EndKind::Unauthorized => ProbeError::Unauthorized(end.reason),
        EndKind::NotFound => ProbeError::NotFound(end.reason),
        EndKind::NoVideo => ProbeError::NoVideo(end.reason),
        EndKind::Unreachable => ProbeError::Unreachable(end.reason),
        EndKind::NoPacket | EndKind::Silent | EndKind::NeedKeyFrame => ProbeError::Silent(end.reason),
        EndKind::Stopped
        | EndKind::Done
        | EndKind::TransportRefused
        | EndKind::OptionsUnanswered
        | EndKind::Protocol
        | EndKind::Closed => ProbeError::Protocol(end.reason),
    }
}
