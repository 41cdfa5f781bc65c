//! Nonces that need no memory: a time stamp, a counter and a keyed hash of both with the peer's address. Anyone with the secret can check
//! one, and it is of no use to another host.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

use super::{constant_time_eq, hex};

/// Hexadecimal digits of time stamp and counter.
const STAMP_CHARS: usize = 24;

pub(super) struct Nonces {
    secret: [u8; 32],
    epoch: Instant,
    counter: AtomicU32,
}

/// A nonce of ours that came back from the address that it was given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nonce {
    pub age: Duration,
    /// Rises from each nonce to the next.
    pub serial: u128,
}

impl Nonces {
    /// `epoch` is any moment before the first nonce.
    pub(super) const fn new(secret: [u8; 32], epoch: Instant) -> Self {
        Self {
            secret,
            epoch,
            counter: AtomicU32::new(0),
        }
    }

    pub(super) fn issue(&self, now: Instant, peer: IpAddr) -> String {
        let ms = now.saturating_duration_since(self.epoch).as_millis() as u64;
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut stamp = [0; 12];
        stamp[..8].copy_from_slice(&ms.to_be_bytes());
        stamp[8..].copy_from_slice(&count.to_be_bytes());
        let stamp = hex(&stamp);
        let tag = self.tag(&stamp, peer);
        format!("{stamp}{tag}")
    }

    /// `None` if it is not ours, or was given to another address.
    pub(super) fn read(&self, now: Instant, peer: IpAddr, nonce: &str) -> Option<Nonce> {
        let (stamp, tag) = nonce.split_at_checked(STAMP_CHARS)?;
        if !constant_time_eq(self.tag(stamp, peer).as_bytes(), tag.as_bytes()) {
            return None;
        }
        let ms = u64::from_str_radix(stamp.get(..16)?, 16).ok()?;
        let issued = self.epoch.checked_add(Duration::from_millis(ms))?;
        Some(Nonce {
            age: now.saturating_duration_since(issued),
            serial: u128::from_str_radix(stamp, 16).ok()?,
        })
    }

    /// HMAC-SHA-256 (RFC 2104), half of it.
    fn tag(&self, stamp: &str, peer: IpAddr) -> String {
        let pad = |byte: u8| {
            let mut block = [byte; 64];
            for (b, s) in block.iter_mut().zip(self.secret) {
                *b ^= s;
            }
            block
        };
        let mut inner = Sha256::new();
        inner.update(pad(0x36));
        inner.update(stamp.as_bytes());
        match peer {
            IpAddr::V4(a) => inner.update(a.to_ipv6_mapped().octets()),
            IpAddr::V6(a) => inner.update(a.octets()),
        }
        let mut outer = Sha256::new();
        outer.update(pad(0x5C));
        outer.update(inner.finalize());
        hex(&outer.finalize()[..16])
    }
}
