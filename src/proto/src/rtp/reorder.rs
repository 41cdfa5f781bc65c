//! Puts packets in order and tells what was lost. Knows sequence numbers and arrival times only.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::Packet;

/// How many packets may wait behind a gap (UDP). One more, and the gap is given up as lost.
pub const WINDOW_PACKETS: usize = 256;
/// How long a packet waits behind a gap (UDP). After that the gap is given up as lost.
pub const WINDOW_TIME: Duration = Duration::from_millis(150);
/// A step forward in the sequence of this much or more is a restart of the sender, not loss (`MAX_DROPOUT` of RFC 3550 A.1).
pub const DROPOUT_MAX: u16 = 3000;
/// A packet up to this far behind is late or a duplicate and dropped; further behind is a restart (`MAX_MISORDER`).
pub const MISORDER_MAX: u16 = 100;
/// Packets delivered but not polled. Further ones are dropped and reported as lost with the next that is taken.
pub const READY_MAX: usize = 1024;
/// Two packets this close confirm a restart (UDP): one stray packet alone never resets a stream.
const CONFIRM_DISTANCE: u16 = 16;

/// Why a packet does not continue the sequence before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Another synchronisation source.
    Ssrc {
        /// The source until now.
        from: u32,
        /// The source from this packet on.
        to: u32,
    },
    /// The same source with a sequence number too far away to be loss.
    Sequence,
}

/// A packet in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// The packet.
    pub packet: Packet,
    /// Packets of the sequence missing between the one delivered before and this one. 0 at a restart: what was lost there is not known.
    pub lost_before: u32,
    /// Set if this packet does not continue what came before: time stamps start anew, a unit half received is over.
    pub restart: Option<Restart>,
}

/// What was not delivered, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReorderCounts {
    /// Packets reported lost.
    pub lost: u64,
    /// Packets that came twice, or after they had been given up.
    pub late: u64,
    /// Packets of no stream: a restart that no second packet confirmed.
    pub stray: u64,
    /// Restarts.
    pub restarts: u64,
}

/// How long packets wait for one that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// How many packets may wait behind a gap. One more, and the gap is given up as lost.
    pub packets: usize,
    /// How long a packet waits behind a gap. After that the gap is given up as lost.
    pub time: Duration,
    /// A packet up to this far behind is late or a duplicate and dropped; further behind is a restart.
    pub misorder_max: u16,
}

/// The reorder buffer of one RTP stream.
///
/// After each [`Self::push`], and when [`Self::poll_timeout`] has passed, poll until `None`.
#[derive(Debug)]
pub struct Reorder {
    in_order: bool,
    window: Window,
    /// Source and next sequence number expected.
    current: Option<(u32, u16)>,
    /// Packets behind a gap, by sequence.
    waiting: VecDeque<(Packet, Instant)>,
    ready: VecDeque<Ordered>,
    /// A packet that would be a restart, until another confirms it.
    candidate: Option<Packet>,
    counts: ReorderCounts,
}

impl Reorder {
    /// For datagrams: waits for packets that are late, within [`WINDOW_PACKETS`] and [`WINDOW_TIME`].
    pub fn udp() -> Self {
        Self::with_window(Window {
            packets: WINDOW_PACKETS,
            time: WINDOW_TIME,
            misorder_max: MISORDER_MAX,
        })
    }

    /// For datagrams, with a window of its own.
    pub fn with_window(window: Window) -> Self {
        Self::new(false, window)
    }

    /// For a transport that keeps the order: nothing waits; gaps that the sender itself left are still told.
    pub fn tcp() -> Self {
        // No packet is late in a transport in order: only the very same one again is a duplicate.
        Self::new(
            true,
            Window {
                packets: 0,
                time: Duration::ZERO,
                misorder_max: 1,
            },
        )
    }

    fn new(in_order: bool, window: Window) -> Self {
        Self {
            in_order,
            window,
            current: None,
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            candidate: None,
            counts: ReorderCounts::default(),
        }
    }

    /// Takes a packet that arrived at `now`.
    pub fn push(&mut self, now: Instant, packet: Packet) {
        let Some((ssrc, next)) = self.current else {
            self.current = Some((packet.ssrc, packet.sequence));
            self.accept(now, packet);
            return;
        };
        let ahead = packet.sequence.wrapping_sub(next);
        if packet.ssrc == ssrc && ahead < DROPOUT_MAX {
            self.accept(now, packet);
        } else if packet.ssrc == ssrc && self.is_late(ahead) {
            self.counts.late += 1;
        } else {
            self.restart(now, packet);
        }
    }

    fn is_late(&self, ahead: u16) -> bool {
        ahead.wrapping_neg() <= self.window.misorder_max
    }

    /// A packet of the current source, at or after the next one expected.
    fn accept(&mut self, now: Instant, packet: Packet) {
        self.candidate = None;
        let Some((ssrc, next)) = self.current else { return };
        if self.ready.len() >= READY_MAX {
            return;
        }
        if self.in_order || (packet.sequence == next && self.waiting.is_empty()) {
            self.deliver(packet, None);
            return;
        }
        let ahead = |p: &Packet| p.sequence.wrapping_sub(next);
        let mine = ahead(&packet);
        let mut at = self.waiting.len();
        while at > 0 && ahead(&self.waiting[at - 1].0) > mine {
            at -= 1;
        }
        if at > 0 && ahead(&self.waiting[at - 1].0) == mine {
            self.counts.late += 1;
            return;
        }
        debug_assert_eq!(packet.ssrc, ssrc);
        self.waiting.insert(at, (packet, now));
        while self.waiting.len() > self.window.packets {
            self.deliver_waiting();
        }
    }

    fn restart(&mut self, now: Instant, packet: Packet) {
        let Some((ssrc, _)) = self.current else { return };
        let confirmed = match self.candidate.take() {
            _ if self.in_order => Some((packet, None)),
            Some(held) if held.ssrc == packet.ssrc => {
                let ahead = packet.sequence.wrapping_sub(held.sequence);
                if ahead == 0 {
                    self.counts.late += 1;
                    self.candidate = Some(held);
                    return;
                }
                if ahead <= CONFIRM_DISTANCE {
                    Some((held, Some(packet)))
                } else if ahead.wrapping_neg() <= CONFIRM_DISTANCE {
                    Some((packet, Some(held)))
                } else {
                    self.counts.stray += 1;
                    self.candidate = Some(packet);
                    None
                }
            }
            held => {
                self.counts.stray += u64::from(held.is_some());
                self.candidate = Some(packet);
                None
            }
        };
        let Some((first, second)) = confirmed else { return };
        while !self.waiting.is_empty() {
            self.deliver_waiting();
        }
        if self.ready.len() >= READY_MAX {
            return;
        }
        let restart = if first.ssrc == ssrc {
            Restart::Sequence
        } else {
            Restart::Ssrc {
                from: ssrc,
                to: first.ssrc,
            }
        };
        self.counts.restarts += 1;
        self.current = Some((first.ssrc, first.sequence));
        self.deliver(first, Some(restart));
        if let Some(second) = second {
            self.accept(now, second);
        }
    }

    /// Delivers the first of the waiting packets, giving up what is missing before it.
    fn deliver_waiting(&mut self) {
        if let Some((packet, _)) = self.waiting.pop_front() {
            self.deliver(packet, None);
        }
    }

    fn deliver(&mut self, packet: Packet, restart: Option<Restart>) {
        let next = self.current.map_or(packet.sequence, |(_, next)| next);
        let lost_before = u32::from(packet.sequence.wrapping_sub(next));
        self.counts.lost += u64::from(lost_before);
        self.current = Some((packet.ssrc, packet.sequence.wrapping_add(1)));
        self.ready.push_back(Ordered {
            packet,
            lost_before,
            restart,
        });
    }

    /// The next packet in order, if its turn has come at `now`.
    pub fn poll(&mut self, now: Instant) -> Option<Ordered> {
        if let Some(ordered) = self.ready.pop_front() {
            return Some(ordered);
        }
        let (packet, arrived) = self.waiting.front()?;
        let (_, next) = self.current?;
        if packet.sequence == next || now.saturating_duration_since(*arrived) >= self.window.time {
            self.deliver_waiting();
            return self.ready.pop_front();
        }
        None
    }

    /// When [`Self::poll`] is to be called although nothing has arrived; `None` if nothing waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.front().map(|(_, arrived)| *arrived + self.window.time)
    }

    /// Gives up all gaps, at the end of a stream. Poll until `None` afterwards.
    pub fn flush(&mut self) {
        while !self.waiting.is_empty() {
            self.deliver_waiting();
        }
    }

    /// What was not delivered so far.
    pub fn counts(&self) -> ReorderCounts {
        self.counts
    }
}

#[cfg(test)]
mod tests;
