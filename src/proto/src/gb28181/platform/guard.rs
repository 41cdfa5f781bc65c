//! What keeps strangers from costing more than a bounded share: buckets of messages by address, and the table of who was refused.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use corenvr_media::WallTime;

use super::{Refused, RefusedWhy};
use crate::gb28181::id::DeviceId;

/// Messages that one address of strangers may send at once, and in a second from then on: a site with some hundred devices behind one
/// address that comes back after a power cut. What is more is dropped.
const STRANGER: Share = Share {
    burst: 600.0,
    per_second: 60.0,
};
/// The same for all strangers together.
const STRANGERS: Share = Share {
    burst: 6000.0,
    per_second: 2000.0,
};
/// The same for the address or connection of a registered device: a catalog of 10 000 channels with one in each message. What is more
/// is dropped.
const TRUSTED: Share = Share {
    burst: 12_000.0,
    per_second: 500.0,
};
/// Acknowledgements of alarms that one device gets at once, and in a second from then on: each is a request that waits for its answer.
/// What is more is reported all the same and acknowledged by its 200 alone.
const ACKNOWLEDGED: Share = Share {
    burst: 40.0,
    per_second: 2.0,
};
/// How many messages a wrong password counts as: after ten wrong ones an address may try one a second.
pub(super) const WRONG_PASSWORD_COST: f64 = 60.0;
/// How many addresses of strangers are counted by themselves. At the limit those that were quiet are forgotten, and if none was, new
/// ones share one bucket.
pub(super) const SOURCES_MAX: usize = 4096;
/// How often the quiet addresses are looked for while the table is full.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How many refused identities are kept. At the limit the one that called longest ago is forgotten.
pub(super) const REFUSED_MAX: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Share {
    burst: f64,
    per_second: f64,
}

/// Fills with time, empties by messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    share: Share,
    left: f64,
    at: Instant,
}

impl Bucket {
    const fn new(now: Instant, share: Share) -> Self {
        Self {
            share,
            left: share.burst,
            at: now,
        }
    }

    /// Of a registered device.
    pub(super) const fn trusted(now: Instant) -> Self {
        Self::new(now, TRUSTED)
    }

    /// Of a device's alarms.
    pub(super) const fn alarms(now: Instant) -> Self {
        Self::new(now, ACKNOWLEDGED)
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + elapsed * self.share.per_second).min(self.share.burst);
        self.at = self.at.max(now);
    }

    /// Whether there is room for one more message, which is counted.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let room = self.left >= 1.0;
        if room {
            self.left -= 1.0;
        }
        room
    }
}

/// Buckets of strangers.
pub(super) struct Sources {
    all: Bucket,
    shared: Bucket,
    by_address: HashMap<IpAddr, Bucket>,
    swept: Option<Instant>,
}

impl Sources {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            all: Bucket::new(now, STRANGERS),
            shared: Bucket::new(now, STRANGER),
            by_address: HashMap::new(),
            swept: None,
        }
    }

    /// Whether a stranger's message is handled.
    pub(super) fn take(&mut self, now: Instant, peer: IpAddr) -> bool {
        // An address over its share takes nothing from the others.
        self.bucket(now, peer).take(now) && self.all.take(now)
    }

    /// Whether an address may try a password.
    pub(super) fn may_try(&mut self, now: Instant, peer: IpAddr) -> bool {
        let bucket = self.bucket(now, peer);
        bucket.fill(now);
        bucket.left >= 1.0
    }

    /// Counts a message as more than one.
    pub(super) fn charge(&mut self, now: Instant, peer: IpAddr, cost: f64) {
        let bucket = self.bucket(now, peer);
        bucket.fill(now);
        bucket.left = (bucket.left - cost).max(0.0);
    }

    fn bucket(&mut self, now: Instant, peer: IpAddr) -> &mut Bucket {
        let key = network(peer);
        if self.by_address.len() >= SOURCES_MAX && !self.by_address.contains_key(&key) {
            let due = self
                .swept
                .is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_INTERVAL);
            if due {
                self.swept = Some(now);
                self.by_address.retain(|_, bucket| {
                    bucket.fill(now);
                    bucket.left < bucket.share.burst
                });
            }
            if self.by_address.len() >= SOURCES_MAX {
                return &mut self.shared;
            }
        }
        self.by_address.entry(key).or_insert_with(|| Bucket::new(now, STRANGER))
    }
}

/// An address as buckets know it: hosts have all of an IPv6 /64 to themselves.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        },
    }
}

/// Who was refused, by identity.
#[derive(Default)]
pub(super) struct RefusedTable {
    by_id: BTreeMap<DeviceId, Refused>,
}

impl RefusedTable {
    pub(super) fn note(&mut self, id: DeviceId, peer: SocketAddr, wall: WallTime, why: RefusedWhy) {
        if let Some(known) = self.by_id.get_mut(&id) {
            known.peer = peer;
            known.last = wall;
            known.count = known.count.saturating_add(1);
            known.why = why;
            return;
        }
        if self.by_id.len() >= REFUSED_MAX
            && let Some(oldest) = self.by_id.values().min_by_key(|r| r.last).map(|r| r.id)
        {
            self.by_id.remove(&oldest);
        }
        let refused = Refused {
            id,
            peer,
            first: wall,
            last: wall,
            count: 1,
            why,
        };
        self.by_id.insert(id, refused);
    }

    /// It was let in.
    pub(super) fn forget(&mut self, id: DeviceId) {
        self.by_id.remove(&id);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Refused> {
        self.by_id.values()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0A00_0000 + n).into()
    }

    #[test]
    fn an_address_over_its_share_waits_and_others_do_not() {
        let now = Instant::now();
        let mut sources = Sources::new(now);
        let taken = (0..2000).filter(|_| sources.take(now, address(1))).count();
        assert_eq!(taken, 600);
        assert!(sources.take(now, address(2)));
        let later = now + Duration::from_secs(1);
        let taken = (0..2000).filter(|_| sources.take(later, address(1))).count();
        assert_eq!(taken, 60);
        sources.charge(later, address(2), 1e9);
        assert!(!sources.take(later, address(2)));
    }

    #[test]
    fn many_addresses_cost_a_bounded_table() {
        let now = Instant::now();
        let mut sources = Sources::new(now);
        let taken = (0..100_000).filter(|n| sources.take(now, address(*n))).count();
        assert_eq!(sources.by_address.len(), SOURCES_MAX);
        // Each address that is counted by itself, and the share of all the others.
        assert_eq!(taken, SOURCES_MAX + 600);
        // The quiet ones are forgotten in time, so that a new address is counted by itself again.
        let later = now + Duration::from_secs(60);
        assert!(sources.take(later, address(200_000)));
        assert!(sources.by_address.len() < 10);
    }

    #[test]
    fn an_ipv6_host_has_one_bucket() {
        let now = Instant::now();
        let mut sources = Sources::new(now);
        let taken = (0..2000u128).filter(|n| sources.take(now, Ipv6Addr::from_bits(0x2001_0db8 << 96 | n).into()));
        assert_eq!(taken.count(), 600);
        assert_eq!(sources.by_address.len(), 1);
    }

    #[test]
    fn the_table_of_the_refused_forgets_the_oldest() {
        let mut table = RefusedTable::default();
        let peer = SocketAddr::from(([10, 0, 0, 1], 5060));
        for n in 0..1000u64 {
            let id = DeviceId::parse(&format!("{n:020}")).unwrap();
            table.note(id, peer, WallTime::from_millis(n as i64), RefusedWhy::Unknown);
        }
        assert_eq!(table.iter().count(), REFUSED_MAX);
        assert!(table.iter().all(|r| r.first >= WallTime::from_millis(744)));
        let id = DeviceId::parse(&format!("{:020}", 999)).unwrap();
        table.note(id, peer, WallTime::from_millis(5000), RefusedWhy::WrongPassword);
        let row = table.iter().find(|r| r.id == id).unwrap();
        assert_eq!((row.count, row.why), (2, RefusedWhy::WrongPassword));
        assert_eq!(row.first, WallTime::from_millis(999));
    }
}
