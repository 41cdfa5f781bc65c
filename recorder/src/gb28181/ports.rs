//! The media ports of one shard: each session has a pair of its own, and a pair that was used rests before it is used again.
//!
//! A device that is slow to notice goes on sending to the port of a session that is over; the rest keeps that out of the next one.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

/// How long a port rests after its session.
const COOL_DOWN: Duration = Duration::from_secs(30);

/// The pairs that a shard may use.
pub(crate) struct MediaPorts {
    free: RefCell<VecDeque<(u16, Option<Instant>)>>,
}

/// A pair of ports, even and odd, that nobody else uses while this lives.
pub(crate) struct PortLease {
    ports: Rc<MediaPorts>,
    rtp: u16,
    /// Whether a device may know of it.
    told: bool,
}

impl MediaPorts {
    /// The share of `shard` of `shards` in the ports from `first` to `last`.
    pub fn new(range: (u16, u16), shard: u16, shards: u16) -> Rc<Self> {
        let first = range.0.next_multiple_of(2);
        let pairs = (first..range.1).step_by(2).enumerate();
        let own = pairs.filter(|(i, _)| i % usize::from(shards.max(1)) == usize::from(shard));
        Rc::new(Self {
            free: RefCell::new(own.map(|(_, port)| (port, None)).collect()),
        })
    }

    /// The pair that has rested longest; `None` if all are in use or rest.
    pub fn take(self: &Rc<Self>, now: Instant) -> Option<PortLease> {
        let mut free = self.free.borrow_mut();
        let rested =
            |(_, used): &(u16, Option<Instant>)| used.is_none_or(|at| now.saturating_duration_since(at) >= COOL_DOWN);
        let at = free.iter().position(rested)?;
        let (rtp, _) = free.remove(at)?;
        Some(PortLease {
            ports: self.clone(),
            rtp,
            told: true,
        })
    }

    /// How many pairs are neither in use nor at rest.
    #[cfg(test)]
    fn ready(&self, now: Instant) -> usize {
        let rested = |at: Instant| now.saturating_duration_since(at) >= COOL_DOWN;
        self.free
            .borrow()
            .iter()
            .filter(|(_, used)| used.is_none_or(rested))
            .count()
    }
}

impl PortLease {
    /// The port for RTP; the next one is for RTCP.
    pub const fn rtp(&self) -> u16 {
        self.rtp
    }

    /// Gives the pair back as one that no device was told of: it need not rest.
    pub fn give_back_untold(mut self) {
        self.told = false;
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        self.ports
            .free
            .borrow_mut()
            .push_back((self.rtp, self.told.then(Instant::now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_the_range_and_a_used_pair_rests() {
        let all: Vec<_> = (0..3)
            .map(|shard| MediaPorts::new((30_001, 30_020), shard, 3))
            .collect();
        let now = Instant::now();
        let mut leases: Vec<_> = all.iter().flat_map(|p| std::iter::from_fn(|| p.take(now))).collect();
        let mut ports: Vec<_> = leases.iter().map(PortLease::rtp).collect();
        ports.sort_unstable();
        assert_eq!(
            ports,
            [30_002, 30_004, 30_006, 30_008, 30_010, 30_012, 30_014, 30_016, 30_018]
        );
        leases.retain(|l| l.rtp() != 30_002);
        let after = Instant::now();
        assert!(all[0].take(after).is_none());
        assert_eq!(all[0].ready(after + COOL_DOWN), 1);
        let again = all[0].take(after + COOL_DOWN).unwrap();
        assert_eq!(again.rtp(), 30_002);
        again.give_back_untold();
        assert_eq!(all[0].take(after).unwrap().rtp(), 30_002, "nobody was told of it");
    }
}
