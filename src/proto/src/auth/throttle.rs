//! How fast passwords may be guessed: who has to wait, for how long, after how many wrong logins.
//!
//! Three counts, each with a delay that doubles from [`DELAY_MIN`] to [`DELAY_MAX`]: of one address at one account, of one address over
//! all accounts, and of one account over all addresses. The last two do not hold for an address that has logged in to that account rightly
//! of late: neither a neighbour behind the same router nor an attacker from everywhere locks its owner out.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Wrong logins of one address at one account, in a row, before it has to wait.
pub const PAIR_FREE: u32 = 5;
/// Wrong logins of one address over all accounts before it has to wait.
pub const NETWORK_FREE: u32 = 20;
/// Wrong logins at one account over all addresses before strangers have to wait.
pub const ACCOUNT_FREE: u32 = 50;
/// The first delay.
pub const DELAY_MIN: Duration = Duration::from_secs(1);
/// The longest delay.
pub const DELAY_MAX: Duration = Duration::from_mins(5);
/// Without a wrong login for so long, an address and account begin anew. Longer than the longest delay, so that waiting it out is no
/// beginning.
pub const PAIR_FORGET: Duration = Duration::from_mins(15);
/// Counts of an address and of an account fall by one in this time: mistyped passwords of many people never add up.
pub const LEAK: Duration = Duration::from_mins(1);
/// An address stays known to an account for so long after a right login.
pub const FRIEND_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most entries of each table. When one is full, the half that was not touched for longest goes: whoever goes on guessing stays.
pub const ENTRIES_MAX: usize = 8192;
/// Of a longer account name only the beginning counts; no account has one.
const NAME_BYTES_MAX: usize = 64;

/// An address as it counts: IPv4 whole, IPv6 by its first 64 bits, of which every host has the rest to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network(u128);

type Name = Box<str>;

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
    /// Until when forgetting is done.
    leaked: Instant,
    until: Instant,
}

/// What wrong and right logins have come so far.
#[derive(Debug, Default)]
pub struct Throttle {
    pairs: HashMap<(Network, Name), Failures>,
    networks: HashMap<Network, Failures>,
    accounts: HashMap<Name, Failures>,
    friends: HashMap<(Network, Name), Instant>,
}

impl Network {
    fn of(peer: IpAddr) -> Self {
        match peer.to_canonical() {
            IpAddr::V4(a) => Self(a.to_ipv6_mapped().to_bits()),
            IpAddr::V6(a) => Self(a.to_bits() >> 64 << 64),
        }
    }
}

fn name_of(account: &str) -> Name {
    let mut end = account.len().min(NAME_BYTES_MAX);
    while !account.is_char_boundary(end) {
        end -= 1;
    }
    account[..end].into()
}

/// The delay behind a wrong login, `over` of them beyond those that are free.
fn delay(over: u32) -> Duration {
    DELAY_MIN.saturating_mul(1 << over.min(16)).min(DELAY_MAX)
}

impl Failures {
    /// One more, at `now`; `free` of them cost nothing.
    fn add(&mut self, now: Instant, free: u32) {
        self.count = self.count.saturating_add(1);
        self.last = now;
        if self.count >= free {
            self.until = now + delay(self.count - free);
        }
    }

    /// Forgets what is due. What is left of a minute counts the next time.
    fn leak(&mut self, now: Instant) {
        let minutes = now.saturating_duration_since(self.leaked).as_secs() / LEAK.as_secs();
        let minutes = u32::try_from(minutes).unwrap_or(u32::MAX);
        if minutes >= self.count {
            (self.count, self.leaked) = (0, now);
        } else {
            self.count -= minutes;
            self.leaked += LEAK * minutes;
        }
    }

    const fn none(now: Instant) -> Self {
        Self {
            count: 0,
            last: now,
            leaked: now,
            until: now,
        }
    }
}

impl Throttle {
    /// Nothing has come yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long this address has to wait before it may try to log in to this account; `None`: not at all. A try before that is to be
    /// refused unseen, and not to be counted: programs try again by themselves.
    pub fn wait(&self, now: Instant, peer: IpAddr, account: &str) -> Option<Duration> {
        let pair = (Network::of(peer), name_of(account));
        let left = |f: Option<&Failures>| {
            let left = f?.until.saturating_duration_since(now);
            (!left.is_zero()).then_some(left)
        };
        let own = left(self.pairs.get(&pair));
        if self.is_friend(now, &pair) {
            return own;
        }
        own.max(left(self.networks.get(&pair.0)))
            .max(left(self.accounts.get(&pair.1)))
    }

    /// Counts a wrong login.
    pub fn refused(&mut self, now: Instant, peer: IpAddr, account: &str) {
        let pair = (Network::of(peer), name_of(account));
        let friend = self.is_friend(now, &pair);
        make_room(&mut self.networks, |f| f.last);
        let of_network = self.networks.entry(pair.0).or_insert_with(|| Failures::none(now));
        of_network.leak(now);
        of_network.add(now, NETWORK_FREE);
        // Its owner's own mistakes are no attack on the account.
        if !friend {
            make_room(&mut self.accounts, |f| f.last);
            let of_account = self
                .accounts
                .entry(pair.1.clone())
                .or_insert_with(|| Failures::none(now));
            of_account.leak(now);
            of_account.add(now, ACCOUNT_FREE);
        }
        make_room(&mut self.pairs, |f| f.last);
        let of_pair = self.pairs.entry(pair).or_insert_with(|| Failures::none(now));
        if now.saturating_duration_since(of_pair.last) >= PAIR_FORGET {
            *of_pair = Failures::none(now);
        }
        of_pair.add(now, PAIR_FREE);
    }

    /// Counts a wrong login that names no account, such as a wrong token. Returns nothing that tells whether one was close.
    pub fn refused_nameless(&mut self, now: Instant, peer: IpAddr) {
        make_room(&mut self.networks, |f| f.last);
        let of_network = self
            .networks
            .entry(Network::of(peer))
            .or_insert_with(|| Failures::none(now));
        of_network.leak(now);
        of_network.add(now, NETWORK_FREE);
    }

    /// How long this address has to wait before it may try something that names no account.
    pub fn wait_nameless(&self, now: Instant, peer: IpAddr) -> Option<Duration> {
        let left = self
            .networks
            .get(&Network::of(peer))?
            .until
            .saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Counts a right login: its address begins anew at this account, and is known to it.
    pub fn proved(&mut self, now: Instant, peer: IpAddr, account: &str) {
        let pair = (Network::of(peer), name_of(account));
        self.pairs.remove(&pair);
        make_room(&mut self.friends, |at| *at);
        self.friends.insert(pair, now);
    }

    fn is_friend(&self, now: Instant, pair: &(Network, Name)) -> bool {
        let at = self.friends.get(pair);
        at.is_some_and(|at| now.saturating_duration_since(*at) < FRIEND_LIFETIME)
    }
}

/// Keeps a table below its limit. Half of it goes at a time, so that a flood does not search the table again for every entry.
fn make_room<K: Eq + Hash, V>(table: &mut HashMap<K, V>, touched: impl Fn(&V) -> Instant) {
    if table.len() < ENTRIES_MAX {
        return;
    }
    let mut times: Vec<Instant> = table.values().map(&touched).collect();
    let middle = times.len() / 2;
    let (_, &mut median, _) = times.select_nth_unstable(middle);
    table.retain(|_, v| touched(v) > median);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn peer(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn five_in_a_row_are_free_and_then_the_delay_doubles_to_its_limit() {
        let mut throttle = Throttle::new();
        let mut now = Instant::now();
        for _ in 0..PAIR_FREE {
            assert_eq!(throttle.wait(now, HOME, "anna"), None);
            throttle.refused(now, HOME, "anna");
        }
        let mut seen = Vec::new();
        for _ in 0..12 {
            let wait = throttle.wait(now, HOME, "anna").expect("has to wait");
            seen.push(wait.as_secs());
            assert!(
                throttle
                    .wait(now + wait.checked_sub(Duration::from_millis(1)).unwrap(), HOME, "anna")
                    .is_some()
            );
            now += wait;
            assert_eq!(throttle.wait(now, HOME, "anna"), None);
            throttle.refused(now, HOME, "anna");
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(throttle.wait(now, HOME, "berta"), None, "another account, so far");
        assert_eq!(throttle.wait(now, peer(7), "anna"), None, "another address, so far");
    }

    #[test]
    fn a_right_login_begins_anew() {
        let mut throttle = Throttle::new();
        let now = Instant::now();
        for _ in 0..PAIR_FREE - 1 {
            throttle.refused(now, HOME, "anna");
        }
        throttle.proved(now, HOME, "anna");
        for _ in 0..PAIR_FREE - 1 {
            throttle.refused(now, HOME, "anna");
            assert_eq!(throttle.wait(now, HOME, "anna"), None);
        }
        throttle.refused(now, HOME, "anna");
        assert!(throttle.wait(now, HOME, "anna").is_some());
        let later = now + PAIR_FORGET;
        throttle.refused(later, HOME, "anna");
        assert_eq!(throttle.wait(later, HOME, "anna"), None, "long ago");
    }

    #[test]
    fn an_address_that_tries_many_accounts_has_to_wait_and_its_known_user_does_not() {
        let mut throttle = Throttle::new();
        let now = Instant::now();
        throttle.proved(now, HOME, "anna");
        for n in 0..NETWORK_FREE {
            throttle.refused(now, HOME, &format!("user{n}"));
        }
        assert!(throttle.wait(now, HOME, "someone").is_some());
        assert!(throttle.wait_nameless(now, HOME).is_some());
        assert_eq!(throttle.wait(now, HOME, "anna"), None);
        assert_eq!(throttle.wait(now, peer(1), "someone"), None);
        let later = now + FRIEND_LIFETIME;
        for n in 0..=NETWORK_FREE {
            throttle.refused(later, HOME, &format!("user{n}"));
        }
        assert!(throttle.wait(later, HOME, "anna").is_some(), "no longer known");
    }

    #[test]
    fn an_account_attacked_from_everywhere_is_slow_for_strangers_only() {
        let mut throttle = Throttle::new();
        let now = Instant::now();
        throttle.proved(now, HOME, "anna");
        for n in 0..ACCOUNT_FREE {
            throttle.refused(now, peer(n), "anna");
        }
        assert!(throttle.wait(now, peer(1_000_000), "anna").is_some());
        assert_eq!(throttle.wait(now, HOME, "anna"), None);
        assert_eq!(throttle.wait(now, peer(1_000_000), "berta"), None);
    }

    #[test]
    fn an_ipv6_host_has_one_address_and_ipv4_in_ipv6_is_ipv4() {
        let mut throttle = Throttle::new();
        let now = Instant::now();
        let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        for n in 0..NETWORK_FREE {
            throttle.refused_nameless(now, v6(n as u16));
        }
        assert!(throttle.wait_nameless(now, v6(999)).is_some());
        assert_eq!(throttle.wait_nameless(now, "2001:db8:0:2::1".parse().unwrap()), None);
        for _ in 0..PAIR_FREE {
            throttle.refused(now, "::ffff:192.0.2.1".parse().unwrap(), "anna");
        }
        assert!(throttle.wait(now, HOME, "anna").is_some());
    }

    #[test]
    fn mistakes_of_many_people_do_not_add_up() {
        let mut throttle = Throttle::new();
        let mut now = Instant::now();
        for n in 0..10 * NETWORK_FREE {
            throttle.refused(now, HOME, &format!("user{}", n % 50));
            assert_eq!(throttle.wait(now, HOME, "someone"), None);
            now += LEAK;
        }
    }

    #[test]
    fn a_flood_of_names_does_not_free_who_goes_on() {
        let mut throttle = Throttle::new();
        let mut now = Instant::now();
        for n in 0..4 * ENTRIES_MAX as u32 {
            now += Duration::from_micros(1);
            throttle.refused(now, peer(n), &format!("user{n}"));
            if n.is_multiple_of(100) {
                throttle.refused(now, HOME, "anna");
            }
        }
        assert!(throttle.wait(now, HOME, "anna").is_some());
        for size in [throttle.pairs.len(), throttle.networks.len(), throttle.accounts.len()] {
            assert!(size <= ENTRIES_MAX, "{size}");
        }
    }

    proptest! {
        /// Whatever comes in whatever order: no wait is longer than the limit, the tables are bounded, and who has never been wrong and
        /// has logged in of late waits for nobody.
        #[test]
        fn nobody_waits_for_ever_and_a_friend_not_at_all(
            steps in prop::collection::vec((0u32..6, 0u32..6, 0u64..400, 0u8..5), 0..400)
        ) {
            let mut throttle = Throttle::new();
            let mut now = Instant::now();
            throttle.proved(now, HOME, "owner");
            for (address, account, seconds, what) in steps {
                now += Duration::from_secs(seconds);
                let address = if address == 0 { HOME } else { peer(address) };
                let account = if account == 0 && address != HOME { "owner".to_owned() } else { format!("a{account}") };
                match what {
                    0 => throttle.proved(now, address, &account),
                    1 => throttle.refused_nameless(now, address),
                    _ if throttle.wait(now, address, &account).is_none() => throttle.refused(now, address, &account),
                    _ => {}
                }
                for wait in [throttle.wait(now, address, &account), throttle.wait_nameless(now, address)].into_iter().flatten() {
                    prop_assert!(wait <= DELAY_MAX && !wait.is_zero());
                }
                prop_assert!(throttle.wait(now + DELAY_MAX, address, &account).is_none());
                prop_assert!(throttle.wait(now, HOME, "owner").is_none());
            }
        }
    }
}
