//! What a receiver counts of one source for its reports (RFC 3550 sections 6.4.1, A.1, A.3 and A.8).

use std::time::{Duration, Instant};

use super::{ReportBlock, SenderInfo};
use crate::rtp::{
    Packet,
    reorder::{DROPOUT_MAX, MISORDER_MAX},
};

/// Counts of one source. Feed it every packet as it arrives, before reordering.
#[derive(Debug, Clone)]
pub struct ReceiverStatistics {
    clock_rate: u32,
    source: Option<Source>,
    /// Reference for arrival times in ticks.
    epoch: Option<Instant>,
    last_sender_report: Option<(u32, Instant)>,
}

#[derive(Debug, Clone)]
struct Source {
    ssrc: u32,
    base_sequence: u32,
    /// Highest sequence number with its wraps.
    highest: u32,
    received: u32,
    expected_prior: u32,
    received_prior: u32,
    transit: Option<i64>,
    /// Jitter times 16, as A.8 keeps it.
    jitter_16: u64,
}

impl Source {
    fn new(packet: &Packet) -> Self {
        Self {
            ssrc: packet.ssrc,
            base_sequence: u32::from(packet.sequence),
            highest: u32::from(packet.sequence),
            received: 0,
            expected_prior: 0,
            received_prior: 0,
            transit: None,
            jitter_16: 0,
        }
    }

    /// Whether the packet continues the sequence; also raises the highest.
    fn follow(&mut self, sequence: u16) -> bool {
        let ahead = sequence.wrapping_sub(self.highest as u16);
        if ahead < DROPOUT_MAX {
            self.highest = self.highest.wrapping_add(u32::from(ahead));
            true
        } else {
            ahead.wrapping_neg() <= MISORDER_MAX
        }
    }
}

impl ReceiverStatistics {
    /// Nothing received yet. `clock_rate` is the payload format's, in Hz.
    pub fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate,
            source: None,
            epoch: None,
            last_sender_report: None,
        }
    }

    /// Counts a packet that arrived at `now`. Another source or a jump of the sequence starts all counts anew.
    pub fn on_packet(&mut self, now: Instant, packet: &Packet) {
        let epoch = *self.epoch.get_or_insert(now);
        let mut source = self.source.take().filter(|s| s.ssrc == packet.ssrc).unwrap_or_else(|| {
            self.last_sender_report = None;
            Source::new(packet)
        });
        if !source.follow(packet.sequence) {
            source = Source::new(packet);
        }
        source.received = source.received.wrapping_add(1);
        let arrival = ticks(now.saturating_duration_since(epoch), self.clock_rate);
        // The difference of two transits is taken modulo 2^32, as time stamps wrap.
        let transit = arrival - i64::from(packet.timestamp);
        if let Some(last) = source.transit.replace(transit) {
            let d = u64::from(((transit - last) as i32).unsigned_abs());
            source.jitter_16 = (source.jitter_16 + d).saturating_sub((source.jitter_16 + 8) >> 4);
        }
        self.source = Some(source);
    }

    /// Notes a sender report of this source that arrived at `now`.
    pub fn on_sender_report(&mut self, now: Instant, info: &SenderInfo) {
        self.last_sender_report = Some(((info.ntp >> 16) as u32, now));
    }

    /// The report block for now, or `None` before the first packet. Starts the next interval of the fraction lost.
    pub fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let source = self.source.as_mut()?;
        let expected = source.highest.wrapping_sub(source.base_sequence).wrapping_add(1);
        let lost = i64::from(expected) - i64::from(source.received);
        let expected_interval = expected.wrapping_sub(source.expected_prior);
        let received_interval = source.received.wrapping_sub(source.received_prior);
        let lost_interval = i64::from(expected_interval) - i64::from(received_interval);
        source.expected_prior = expected;
        source.received_prior = source.received;
        let fraction_lost = if expected_interval == 0 || lost_interval <= 0 {
            0
        } else {
            ((lost_interval << 8) / i64::from(expected_interval)).min(255) as u8
        };
        let (last_sender_report, delay_since) = self.last_sender_report.map_or((0, 0), |(middle, at)| {
            let delay = now.saturating_duration_since(at);
            (middle, ticks(delay, 65_536).min(i64::from(u32::MAX)) as u32)
        });
        Some(ReportBlock {
            ssrc: source.ssrc,
            fraction_lost,
            lost: lost.clamp(-0x80_0000, 0x7F_FFFF) as i32,
            highest_sequence: source.highest,
            jitter: (source.jitter_16 >> 4).min(u64::from(u32::MAX)) as u32,
            last_sender_report,
            delay_since,
        })
    }
}

fn ticks(d: Duration, rate: u32) -> i64 {
    let whole = i64::try_from(d.as_secs())
        .unwrap_or(i64::MAX)
        .saturating_mul(i64::from(rate));
    whole.saturating_add(i64::from(d.subsec_nanos()) * i64::from(rate) / 1_000_000_000)
}
