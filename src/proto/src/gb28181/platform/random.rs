//! Random numbers from a seed: hashes of the seed and a counter, which nobody can foretell who does not know the seed.

use sha2::{Digest as _, Sha256};

pub(super) struct Random {
    seed: [u8; 32],
    counter: u64,
}

impl Random {
    pub(super) const fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    /// 32 bytes that were never given before.
    pub(super) fn bytes(&mut self) -> [u8; 32] {
        self.counter += 1;
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(self.counter.to_be_bytes());
        hash.finalize().into()
    }

    pub(super) fn number(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// A word for tags and Call-IDs.
    pub(super) fn word(&mut self) -> String {
        format!("{:016x}", self.number())
    }
}
