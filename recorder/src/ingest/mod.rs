//! From packets to the pipeline: what every way of ingest shares. No sockets in here; a driver such as [`rtsp`] moves the bytes.

pub(crate) mod choose;
mod end;
pub(crate) mod gb28181;
mod intake;
mod resolve;
pub(crate) mod rtmp;
pub(crate) mod rtsp;
mod udp;

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use corenvr_media::WallTime;
use corenvr_proto::rtp::{
    Packet,
    depacketize::Depacketizer,
    reorder::{Reorder, ReorderCounts},
    rtcp::{self, ReceiverStatistics, RtcpPacket},
};
use corenvr_store::GapCause;

use crate::{
    pipeline::{Clocks, HostTime, Output, PipelineCounts, SegmentLimits, Track, TrackSetup},
    status::StreamInfo,
};
use choose::Chosen;
pub(crate) use end::{End, EndKind};
pub(crate) use intake::Intake;

/// Both host clocks now.
pub(crate) fn host_time(now: Instant) -> HostTime {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let epoch = *EPOCH.get_or_init(|| now);
    let mono_us = match now.checked_duration_since(epoch) {
        Some(after) => after.as_micros() as i64,
        None => -(epoch.duration_since(now).as_micros() as i64),
    };
    HostTime {
        mono_us,
        wall: WallTime::from_micros(corenvr_shard::time::wall_now_micros()),
    }
}

/// Who takes what an ingest yields.
pub(crate) trait Sink {
    /// The streams that will be pulled, and what is left out, in words.
    fn chosen(&mut self, streams: &[StreamInfo], not_recorded: &[String]);
    /// The camera has to come to us and has not yet; in words.
    fn waiting(&mut self, _reason: &str) {}
    /// It has come, and is asked for its stream.
    fn connecting(&mut self) {}
    /// What comes and is not recorded, in words; all of it each time.
    fn not_recorded(&mut self, _what: &[String]) {}
    /// Packets come, by `tcp` or `udp`.
    fn receiving(&mut self, transport: &'static str);
    /// Something to record, and when it came.
    fn output(&mut self, output: Output, at: HostTime);
    /// A packet's worth of counts changed; called from time to time.
    fn counts(&mut self, counts: &MediaCounts);
    /// The sink wants no more.
    fn is_done(&self) -> bool {
        false
    }
}

/// What an ingest counts since it began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MediaCounts {
    /// Of all streams together.
    pub packets: ReorderCounts,
    /// Packets that could not be read.
    pub malformed: u64,
    /// Of the pipeline.
    pub pipeline: PipelineCounts,
    /// How much faster the camera's clock runs.
    pub drift_ppm: f64,
}

/// What a new ingest has to know of the one before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Continuation {
    /// Why there was no footage until now.
    pub cause: Option<GapCause>,
    /// Time of the newest frame recorded.
    pub not_before: Option<WallTime>,
    /// When segments end.
    pub limits: SegmentLimits,
}

/// One RTP stream on its way to the pipeline.
struct Stream {
    track: Track,
    /// Other payload types are something else, where the stream may carry several. Cameras with one format name it wrongly at times.
    payload_type: Option<u8>,
    reorder: Reorder,
    depacketizer: Depacketizer,
    statistics: ReceiverStatistics,
    bye: Option<Instant>,
}

/// The streams of one connection.
pub(crate) struct Media<S> {
    streams: Vec<Stream>,
    intake: Intake<S>,
    ssrc: u32,
    malformed: u64,
    last_packet: Option<Instant>,
}

/// How often a receiver report is sent (RFC 3550 section 6.2 allows no more often).
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(5);

impl<S: Sink> Media<S> {
    /// For the streams chosen. `in_order`: the transport keeps the order of packets.
    pub fn new(chosen: Chosen, in_order: bool, continuation: &Continuation, sink: S) -> Self {
        let setup = |c: &choose::ChosenStream| TrackSetup {
            rate: c.format.clock_rate,
            parameters: c.depacketizer.parameters().cloned(),
        };
        let video = setup(&chosen.video);
        let audio = chosen.audio.as_ref().map(setup);
        let intake = Intake::new(video, audio, Clocks::Separate, continuation, sink);
        let streams = std::iter::once((Track::Video, chosen.video))
            .chain(chosen.audio.map(|a| (Track::Audio, a)))
            .map(|(track, c)| Stream {
                track,
                payload_type: c.only_this_type.then_some(c.format.payload_type),
                reorder: if in_order { Reorder::tcp() } else { Reorder::udp() },
                statistics: ReceiverStatistics::new(c.format.clock_rate),
                depacketizer: c.depacketizer,
                bye: None,
            })
            .collect();
        Self {
            streams,
            intake,
            ssrc: rand::random(),
            malformed: 0,
            last_packet: None,
        }
    }

    /// Where everything goes.
    pub fn sink(&mut self) -> &mut S {
        self.intake.sink()
    }

    /// Takes an RTP packet of a stream.
    pub fn rtp(&mut self, now: Instant, stream: usize, data: Bytes) {
        let Some(s) = self.streams.get_mut(stream) else { return };
        let Ok(packet) = Packet::parse(data) else {
            self.malformed += 1;
            return;
        };
        if s.payload_type.is_some_and(|t| t != packet.payload_type) {
            return;
        }
        self.last_packet = Some(now);
        s.bye = None;
        s.statistics.on_packet(now, &packet);
        s.reorder.push(now, packet);
        self.advance(now, stream);
    }

    /// Takes an RTCP packet of a stream.
    pub fn rtcp(&mut self, now: Instant, stream: usize, data: &[u8]) {
        let Some(s) = self.streams.get_mut(stream) else { return };
        for packet in rtcp::parse(data) {
            match packet {
                RtcpPacket::SenderReport { info, .. } => {
                    s.statistics.on_sender_report(now, &info);
                    self.intake.sender_report(s.track, &info);
                }
                RtcpPacket::Bye(_) => s.bye = Some(now),
                RtcpPacket::ReceiverReport { .. } | RtcpPacket::SourceDescription(_) => {}
            }
        }
    }

    /// Gives up gaps that are too old, and hands the counts on.
    pub fn tick(&mut self, now: Instant) {
        for stream in 0..self.streams.len() {
            self.advance(now, stream);
        }
        self.tell_counts();
    }

    /// The stream ends: everything that is whole comes out.
    pub fn finish(&mut self, now: Instant) {
        for stream in 0..self.streams.len() {
            self.streams[stream].reorder.flush();
            self.advance(now, stream);
            self.streams[stream].depacketizer.flush();
            self.units(now, stream);
        }
        self.intake.finish(now);
        self.tell_counts();
    }

    /// The receiver report of a stream, appended to `out`; false before its first packet.
    pub fn report(&mut self, now: Instant, stream: usize, out: &mut BytesMut) -> bool {
        let Some(block) = self.streams.get_mut(stream).and_then(|s| s.statistics.report(now)) else {
            return false;
        };
        rtcp::write_receiver_report(out, self.ssrc, &[block], "corenvr");
        true
    }

    /// Number of streams.
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// When the last packet of any stream came.
    pub const fn last_packet(&self) -> Option<Instant> {
        self.last_packet
    }

    /// Why a session that plays since `since` has to end, if it has to.
    pub fn verdict(&self, since: Instant, now: Instant, silence: Duration) -> Option<End> {
        self.intake.verdict(since, now, silence, self.last_packet)
    }

    /// Whether the camera said goodbye and nothing of the picture came since.
    pub fn said_goodbye(&self, now: Instant) -> bool {
        let video = self.streams.first().and_then(|s| s.bye);
        video.is_some_and(|at| now.saturating_duration_since(at) > Duration::from_secs(1))
    }

    fn tell_counts(&mut self) {
        let mut packets = ReorderCounts::default();
        for c in self.streams.iter().map(|s| s.reorder.counts()) {
            packets.lost += c.lost;
            packets.late += c.late;
            packets.stray += c.stray;
            packets.restarts += c.restarts;
        }
        self.intake.tell_counts(packets, self.malformed);
    }

    /// Moves what is in order through the depacketizer.
    fn advance(&mut self, now: Instant, stream: usize) {
        while let Some(ordered) = self.streams[stream].reorder.poll(now) {
            let s = &mut self.streams[stream];
            if ordered.restart.is_some() {
                s.depacketizer.flush();
                self.units(now, stream);
                let track = self.streams[stream].track;
                self.intake.restart(now, track);
            }
            let s = &mut self.streams[stream];
            if s.depacketizer.push(&ordered.packet, ordered.lost_before).is_err() {
                self.malformed += 1;
            }
            self.units(now, stream);
        }
    }

    fn units(&mut self, now: Instant, stream: usize) {
        let track = self.streams[stream].track;
        while let Some(unit) = self.streams[stream].depacketizer.poll() {
            self.intake.unit(now, track, unit);
        }
    }
}
