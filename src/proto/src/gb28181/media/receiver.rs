//! The RTP packets of one session made into access units.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::formats::{Content, Formats};
use crate::{
    bitstream::adts::AdtsHeader,
    format::{MediaFormat, MediaKind},
    ps::{self, AdtsFrames, Damage, Demuxer, StreamKind},
    rtp::{
        Packet,
        depacketize::{AccessUnit, Depacketizer, Output},
        reorder::{Ordered, Reorder, ReorderCounts, Window},
        rtcp::{self, ReceiverStatistics, ReportBlock, RtcpPacket},
    },
};

/// How long packets wait for one that is missing (UDP). Devices are behind long lines, and ask for nothing again.
const WINDOW: Window = Window {
    packets: 250,
    time: Duration::from_secs(1),
    misorder_max: 500,
};
/// Different streams that are named as not recorded. Further ones are left out of the list.
const NAMED_MAX: usize = 16;
/// How the payload of a program stream's first packet starts: a pack header.
const PACK: [u8; 4] = [0, 0, 1, 0xBA];
/// How the private streams of vendors start (Dahua, Hikvision).
const PRIVATE: [&[u8]; 2] = [b"DHAV", b"IMKH"];

/// What the SDP of an answer says of a payload type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadFormat {
    /// RTP payload type, 0 to 127.
    pub payload_type: u8,
    /// Encoding name in upper case: `PS`, `H264`, `H265`, `PCMA`, `MPEG4-GENERIC`.
    pub encoding: String,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
}

/// Which track of the camera something is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Track {
    Video,
    Audio,
}

/// What comes out of a [`MediaReceiver`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// An access unit.
    Unit {
        /// Its track.
        track: Track,
        /// The unit; its time stamp counts in the track's [`MediaReceiver::clock_rates`].
        unit: AccessUnit,
    },
    /// The time stamps of this track start anew with its next unit.
    Restart(Track),
}

/// What was received and not made into units, since the start of the session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiverCounts {
    /// Packets by sequence number.
    pub reorder: ReorderCounts,
    /// Packets that are no RTP, or with a payload that breaks its format.
    pub malformed: u64,
    /// Packets of another source than the session's.
    pub foreign_ssrc: u64,
    /// Payload bytes of program streams that belong to nothing.
    pub skipped_bytes: u64,
}

/// The device answered with formats of which none can be recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the device sends {offered}, {reason}")]
pub struct Refused {
    /// The encodings of the answer: `DAHUA/90000`.
    pub offered: String,
    /// What about them.
    pub reason: String,
}

/// Turns the RTP packets of one session into access units.
///
/// The session is bound to the source that was asked for, or to the first that comes if the device chose one of its own; packets
/// of others are counted and dropped. The payload type decides what a packet carries, but a payload that starts with a pack header
/// is a program stream whatever its type says.
///
/// After each [`Self::packet`], and when [`Self::poll_timeout`] has passed, poll until `None`.
#[derive(Debug)]
pub struct MediaReceiver {
    formats: Formats,
    asked: Option<u32>,
    bound: Option<u32>,
    reorder: Reorder,
    statistics: ReceiverStatistics,
    program: Option<Program>,
    /// Payload types found to be program streams by their content, a bit each.
    program_types: u128,
    video: Option<Elementary>,
    audio: Option<Elementary>,
    with_audio: bool,
    /// Of video without a container.
    damage: Damage,
    wish: bool,
    units: VecDeque<Received>,
    /// What is not recorded: payload types, streams of the program, and both.
    named: Vec<String>,
    named_by_program: Vec<String>,
    not_recorded: Vec<String>,
    counts: ReceiverCounts,
}

/// The program stream of the session.
#[derive(Debug)]
struct Program {
    demuxer: Box<Demuxer>,
    /// Packets lost and not yet told to it.
    lost: u32,
}

/// Video or sound without a container.
#[derive(Debug)]
struct Elementary {
    payload_type: u8,
    clock_rate: u32,
    decoder: Decoder,
    /// Packets lost and not yet told to it.
    lost: u32,
}

#[derive(Debug)]
enum Decoder {
    Rtp(Box<Depacketizer>),
    Adts(Box<AdtsFrames>, Output),
}

impl MediaReceiver {
    /// For a session whose answer offers these formats (empty: not known, the numbers in use and the content decide). `ssrc` is the
    /// source asked for, or the one the answer names. `in_order`: the packets come by TCP. Without `audio` no sound comes out.
    ///
    /// Fails if none of the formats offered can be recorded.
    pub fn new(formats: &[PayloadFormat], ssrc: Option<u32>, in_order: bool, audio: bool) -> Result<Self, Refused> {
        Ok(Self {
            formats: Formats::new(formats)?,
            asked: ssrc,
            bound: None,
            reorder: if in_order {
                Reorder::tcp()
            } else {
                Reorder::with_window(WINDOW)
            },
            statistics: ReceiverStatistics::new(ps::CLOCK_RATE),
            program: None,
            program_types: 0,
            video: None,
            audio: None,
            with_audio: audio,
            damage: Damage::default(),
            wish: false,
            units: VecDeque::new(),
            named: Vec::new(),
            named_by_program: Vec::new(),
            not_recorded: Vec::new(),
            counts: ReceiverCounts::default(),
        })
    }

    /// Takes one packet as it arrived at `now`: RTP, or RTCP between it.
    pub fn packet(&mut self, now: Instant, data: Bytes) {
        // The types of RTCP, where RTP has the marker and payload types that nobody uses (RFC 5761 section 4).
        if data.first().is_some_and(|b| b >> 6 == 2) && data.get(1).is_some_and(|t| (192..=223).contains(t)) {
            self.rtcp(now, &data);
            return;
        }
        let Ok(packet) = Packet::parse(data) else {
            self.counts.malformed += 1;
            return;
        };
        if !self.is_ours(packet.ssrc) {
            self.counts.foreign_ssrc += 1;
            return;
        }
        self.statistics.on_packet(now, &packet);
        self.reorder.push(now, packet);
    }

    /// Takes what came at the session's RTCP port: sender reports, for the receiver reports' round trip times.
    pub fn rtcp(&mut self, now: Instant, data: &[u8]) {
        for packet in rtcp::parse(data) {
            if let RtcpPacket::SenderReport { ssrc, info, .. } = packet
                && self.bound == Some(ssrc)
            {
                self.statistics.on_sender_report(now, &info);
            }
        }
    }

    /// What comes next, at `now`.
    pub fn poll(&mut self, now: Instant) -> Option<Received> {
        loop {
            if let Some(received) = self.units.pop_front() {
                return Some(received);
            }
            let ordered = self.reorder.poll(now)?;
            self.in_order(ordered);
        }
    }

    /// When [`Self::poll`] is to be called although nothing has arrived; `None` if nothing waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.reorder.poll_timeout()
    }

    /// The session breaks off at `now`: gaps are given up, and what is known to be whole comes out. Poll until `None` afterwards.
    pub fn flush(&mut self, now: Instant) {
        self.give_up_gaps(now);
        self.cut();
    }

    /// The device has said, before `now`, that it has sent everything: as [`Self::flush`], but what has come of the last picture is
    /// all of it.
    pub fn end(&mut self, now: Instant) {
        self.give_up_gaps(now);
        if let Some(program) = &mut self.program {
            program.demuxer.end();
        }
        self.cut();
    }

    fn give_up_gaps(&mut self, now: Instant) {
        self.reorder.flush();
        while let Some(ordered) = self.reorder.poll(now) {
            self.in_order(ordered);
        }
    }

    /// What was not made into units so far.
    pub fn counts(&self) -> ReceiverCounts {
        ReceiverCounts {
            reorder: self.reorder.counts(),
            skipped_bytes: self.program.as_ref().map_or(0, |p| p.demuxer.skipped_bytes()),
            ..self.counts
        }
    }

    /// Whether the device should be asked for a key frame: a picture was lost since the last call, or the stream began without one.
    /// True once for each loss; the caller keeps its requests apart in time.
    pub fn take_key_frame_wish(&mut self) -> bool {
        let program = self.program.as_mut().is_some_and(|p| p.demuxer.take_key_frame_wish());
        let elementary = self.damage.take_wish();
        std::mem::take(&mut self.wish) || program || elementary
    }

    /// What the device sends and corenvr does not record, in words, each once: `SVAC video`.
    pub fn not_recorded(&self) -> &[String] {
        &self.not_recorded
    }

    /// The block of a receiver report for now; `None` before the first packet.
    pub fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        self.statistics.report(now)
    }

    /// The source that the session is bound to, once a packet came.
    pub fn ssrc(&self) -> Option<u32> {
        self.bound
    }

    /// Ticks a second of the time stamps of video and audio; right from the first unit of that track on.
    pub fn clock_rates(&self) -> (u32, u32) {
        (
            ps::CLOCK_RATE,
            self.audio.as_ref().map_or(ps::CLOCK_RATE, |a| a.clock_rate),
        )
    }

    /// Whether a source is the session's. The one asked for is it even if another came first: that was a straggler of a session
    /// that had these ports before.
    fn is_ours(&mut self, ssrc: u32) -> bool {
        if self.bound.is_none() || self.asked == Some(ssrc) {
            self.bound = Some(ssrc);
        }
        self.bound == Some(ssrc)
    }

    fn in_order(&mut self, ordered: Ordered) {
        let Ordered {
            packet,
            lost_before,
            restart,
        } = ordered;
        if restart.is_some() {
            self.cut();
            self.wish = true;
            self.units.extend([Track::Video, Track::Audio].map(Received::Restart));
        }
        if lost_before > 0 {
            self.lose(lost_before);
        }
        if packet.payload.is_empty() {
            return; // a keep-alive
        }
        let bit = 1 << (packet.payload_type & 0x7F);
        if packet.payload.starts_with(&PACK) {
            self.program_types |= bit;
        }
        if self.program_types & bit != 0 {
            self.program(&packet);
            return;
        }
        if self.program.is_none() && self.video.is_none() && PRIVATE.iter().any(|head| packet.payload.starts_with(head))
        {
            self.name("a private stream of its vendor, set the device to PS".to_owned());
            return;
        }
        // Taken out, so that what is in there can be used: it is not changed.
        let formats = std::mem::take(&mut self.formats);
        match &*formats.content(packet.payload_type) {
            Content::Program => self.program(&packet),
            Content::Elementary(format) if format.kind == MediaKind::Video => self.elementary_video(&packet, format),
            content @ (Content::Elementary(_) | Content::Aac(_)) => self.elementary_audio(&packet, content),
            Content::Nothing(words) => self.name(words.clone()),
        }
        self.formats = formats;
    }

    /// Packets are missing: whatever was in progress must know.
    fn lose(&mut self, lost: u32) {
        if let Some(program) = &mut self.program {
            program.lost = program.lost.saturating_add(lost);
        }
        for stream in [&mut self.video, &mut self.audio].into_iter().flatten() {
            stream.lost = stream.lost.saturating_add(lost);
        }
        if self.video.is_some() {
            self.damage.note();
        }
    }

    fn program(&mut self, packet: &Packet) {
        if self.video.take().is_some() {
            // What seemed to be video without a container was the middle of a program stream.
            self.units.push_back(Received::Restart(Track::Video));
        }
        let program = self.program.get_or_insert_with(|| Program {
            demuxer: Box::default(),
            lost: 0,
        });
        let lost = std::mem::take(&mut program.lost);
        program
            .demuxer
            .push(&packet.payload, packet.timestamp, packet.marker, lost);
        self.program_units();
    }

    fn program_units(&mut self) {
        let Some(program) = &mut self.program else { return };
        while let Some((kind, unit)) = program.demuxer.poll() {
            let track = match kind {
                StreamKind::Video => Track::Video,
                StreamKind::Audio => Track::Audio,
            };
            if self.with_audio || track == Track::Video {
                self.units.push_back(Received::Unit { track, unit });
            }
        }
        if program.demuxer.not_recorded() != self.named_by_program {
            self.named_by_program = program.demuxer.not_recorded().to_vec();
            self.not_recorded = [&self.named[..], &self.named_by_program[..]].concat();
        }
    }

    fn elementary_video(&mut self, packet: &Packet, format: &MediaFormat) {
        if self
            .video
            .as_ref()
            .is_none_or(|v| v.payload_type != packet.payload_type)
        {
            self.video_units(true);
            match Depacketizer::new(format) {
                Ok(depacketizer) => self.video = Some(Elementary::new(packet, format, depacketizer)),
                Err(unsupported) => {
                    self.name(unsupported.to_string());
                    return;
                }
            }
        }
        let Some(video) = &mut self.video else { return };
        if let Decoder::Rtp(depacketizer) = &mut video.decoder {
            let pushed = depacketizer.push(packet, std::mem::take(&mut video.lost));
            if pushed.is_err() {
                self.counts.malformed += 1;
                self.damage.note();
            }
        }
        self.video_units(false);
    }

    /// Moves finished units on; `end`: the one in progress too.
    fn video_units(&mut self, end: bool) {
        let Some(video) = &mut self.video else { return };
        if end {
            video.cut();
        }
        while let Some(mut unit) = video.poll() {
            self.damage.mark(&mut unit);
            self.units.push_back(Received::Unit {
                track: Track::Video,
                unit,
            });
        }
    }

    fn elementary_audio(&mut self, packet: &Packet, content: &Content) {
        if !self.with_audio {
            return;
        }
        if self
            .audio
            .as_ref()
            .is_none_or(|a| a.payload_type != packet.payload_type)
        {
            let decoder = match content {
                Content::Elementary(format) | Content::Aac(Some(format)) if !is_adts(content, packet) => {
                    Depacketizer::new(format)
                        .map(|depacketizer| Elementary::new(packet, format, depacketizer))
                        .map_err(|unsupported| unsupported.to_string())
                }
                Content::Aac(format) if is_adts(content, packet) => Ok(Elementary::adts(
                    packet,
                    format.as_ref().map_or(ps::CLOCK_RATE, |f| f.clock_rate),
                )),
                _ => Err("AAC of an unknown sampling rate".to_owned()),
            };
            self.audio_units(true);
            match decoder {
                Ok(decoder) => self.audio = Some(decoder),
                Err(words) => {
                    self.name(words);
                    return;
                }
            }
        }
        let Some(audio) = &mut self.audio else { return };
        let mut lost = std::mem::take(&mut audio.lost);
        match &mut audio.decoder {
            Decoder::Rtp(depacketizer) => {
                if depacketizer.push(packet, lost).is_err() {
                    self.counts.malformed += 1;
                }
            }
            Decoder::Adts(frames, out) => {
                if lost > 0 {
                    frames.cut();
                }
                frames.push(&packet.payload, Some(packet.timestamp), &mut lost, out);
                audio.lost = lost;
            }
        }
        self.audio_units(false);
    }

    fn audio_units(&mut self, end: bool) {
        // A loss is told with a picture where there are any.
        let told_elsewhere = self.program.is_some() || self.video.is_some();
        let Some(audio) = &mut self.audio else { return };
        if end {
            audio.cut();
        }
        while let Some(mut unit) = audio.poll() {
            if told_elsewhere {
                unit.lost = 0;
            }
            self.units.push_back(Received::Unit {
                track: Track::Audio,
                unit,
            });
        }
    }

    /// Nothing that comes continues what was: what is whole comes out.
    fn cut(&mut self) {
        if let Some(program) = &mut self.program {
            program.demuxer.flush();
        }
        self.program_units();
        self.video_units(true);
        self.audio_units(true);
        self.damage.begin_anew();
    }

    fn name(&mut self, words: String) {
        if self.named.len() < NAMED_MAX && !self.named.contains(&words) {
            self.named.push(words);
            self.not_recorded = [&self.named[..], &self.named_by_program[..]].concat();
        }
    }
}

/// Whether AAC comes with ADTS headers.
fn is_adts(content: &Content, packet: &Packet) -> bool {
    matches!(content, Content::Aac(_)) && AdtsHeader::fills(&packet.payload)
}

impl Elementary {
    fn new(packet: &Packet, format: &MediaFormat, depacketizer: Depacketizer) -> Self {
        Self {
            payload_type: packet.payload_type,
            clock_rate: format.clock_rate,
            decoder: Decoder::Rtp(Box::new(depacketizer)),
            lost: 0,
        }
    }

    fn adts(packet: &Packet, clock_rate: u32) -> Self {
        Self {
            payload_type: packet.payload_type,
            clock_rate,
            decoder: Decoder::Adts(Box::new(AdtsFrames::new(clock_rate)), Output::default()),
            lost: 0,
        }
    }

    fn poll(&mut self) -> Option<AccessUnit> {
        match &mut self.decoder {
            Decoder::Rtp(depacketizer) => depacketizer.poll(),
            Decoder::Adts(_, out) => out.units.pop_front(),
        }
    }

    fn cut(&mut self) {
        match &mut self.decoder {
            Decoder::Rtp(depacketizer) => depacketizer.flush(),
            Decoder::Adts(frames, _) => frames.cut(),
        }
    }
}

#[cfg(test)]
mod tests;
