//! The packets of one session on their way to whoever takes its access units.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use corenvr_proto::{
    gb28181::media::{self as proto, MediaReceiver, Received},
    rtp::rtcp,
};

use super::Units;
use crate::{ingest::End, pipeline::Track};

/// One session's media.
pub(super) struct Media<U> {
    receiver: MediaReceiver,
    /// The source that was agreed on.
    agreed: u32,
    units: U,
    /// Ours, in reports.
    ssrc: u32,
    last_packet: Option<Instant>,
    /// How much of what is not recorded was told.
    told: usize,
    /// How often a TCP stream lost its framing.
    unframed: u64,
}

impl<U: Units> Media<U> {
    pub fn new(receiver: MediaReceiver, agreed: u32, units: U) -> Self {
        Self {
            receiver,
            agreed,
            units,
            ssrc: rand::random(),
            last_packet: None,
            told: 0,
            unframed: 0,
        }
    }

    pub fn units(&mut self) -> &mut U {
        &mut self.units
    }

    /// Whether a packet of another address is to be taken: it is of the source that was agreed on, and what came so far was not.
    pub fn prefers(&self, data: &[u8]) -> bool {
        let ssrc = data.get(8..12).and_then(|s| s.try_into().ok()).map(u32::from_be_bytes);
        ssrc == Some(self.agreed) && self.receiver.ssrc() != Some(self.agreed)
    }

    /// Takes a packet of the media port. False: it is not of this session.
    pub fn packet(&mut self, now: Instant, data: Bytes) -> bool {
        let before = self.receiver.counts();
        self.receiver.packet(now, data);
        let after = self.receiver.counts();
        // What is not of this session is no sign of its life.
        let ours = (before.malformed, before.foreign_ssrc) == (after.malformed, after.foreign_ssrc);
        if ours {
            self.last_packet = Some(now);
        }
        self.units_out(now);
        ours
    }

    /// Takes a packet of the RTCP port.
    pub fn rtcp(&mut self, now: Instant, data: &[u8]) {
        self.receiver.rtcp(now, data);
    }

    /// Bytes of a TCP stream were no part of a packet.
    pub fn unframed(&mut self, bytes: u64) {
        self.unframed += u64::from(bytes > 0);
    }

    pub fn tick(&mut self, now: Instant) {
        self.units_out(now);
        let counts = self.receiver.counts();
        let malformed = counts.malformed + counts.foreign_ssrc + self.unframed;
        self.units.counts(counts.reorder, malformed);
        let what = self.receiver.not_recorded();
        if what.len() > self.told {
            self.told = what.len();
            self.units.not_recorded(what);
        }
    }

    /// The device has said that it has sent everything.
    pub fn said_end(&mut self, now: Instant) {
        self.receiver.end(now);
        self.tick(now);
    }

    pub fn finish(&mut self, now: Instant) {
        self.receiver.flush(now);
        self.tick(now);
        self.units.finish(now);
    }

    /// A receiver report for now, in `out`; false before the first packet.
    pub fn report(&mut self, now: Instant, out: &mut BytesMut) -> bool {
        let Some(block) = self.receiver.report(now) else {
            return false;
        };
        rtcp::write_receiver_report(out, self.ssrc, &[block], "corenvr");
        true
    }

    pub fn take_key_frame_wish(&mut self) -> bool {
        self.receiver.take_key_frame_wish()
    }

    pub const fn last_packet(&self) -> Option<Instant> {
        self.last_packet
    }

    pub fn verdict(&self, since: Instant, now: Instant) -> Option<End> {
        self.units.verdict(since, now, self.last_packet)
    }

    fn units_out(&mut self, now: Instant) {
        while let Some(received) = self.receiver.poll(now) {
            let (video, audio) = self.receiver.clock_rates();
            match received {
                Received::Unit { track, unit } => match track {
                    proto::Track::Video => self.units.unit(now, Track::Video, video, unit),
                    proto::Track::Audio => self.units.unit(now, Track::Audio, audio, unit),
                },
                Received::Restart(proto::Track::Video) => self.units.restart(now, Track::Video),
                Received::Restart(proto::Track::Audio) => self.units.restart(now, Track::Audio),
            }
        }
    }
}
