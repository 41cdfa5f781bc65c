//! What is kept of passwords and tokens instead of them, and how they are made.

use std::{
    fmt::Write as _,
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version, password_hash::SaltString,
};
use sha2::{Digest, Sha256};

/// Memory of one argon2id computation in KiB, its passes and its lanes: OWASP's recommendation.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Computations at a time in the process: their memory is bounded, and a flood of logins leaves CPUs to the cameras.
pub const COMPUTATIONS_MAX: usize = 2;
/// As many may wait for one of them; the next is told to try again.
const WAITING_MAX: usize = 16;
/// How long each waits at most.
const WAIT: Duration = Duration::from_secs(5);

/// What every token begins with, so that one that was published by mistake is recognised.
pub const TOKEN_PREFIX: &str = "corenvr_";
/// No 0, 1, l, o: five bits a letter.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Groups of five letters in a password that is made at random: 125 bits.
const PASSWORD_GROUPS: usize = 5;

/// The right to compute, held while one does.
#[derive(Debug, Default)]
pub struct Permits {
    state: Mutex<Counts>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    running: usize,
    waiting: usize,
}

/// Given back when dropped.
pub struct Permit<'a>(&'a Permits);

impl Permits {
    /// Waits for a permit; `None` if too many wait, or it takes too long.
    pub fn take(&self) -> Option<Permit<'_>> {
        let mut counts = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.running >= COMPUTATIONS_MAX {
            if counts.waiting >= WAITING_MAX {
                return None;
            }
            let deadline = Instant::now() + WAIT;
            counts.waiting += 1;
            while counts.running >= COMPUTATIONS_MAX && Instant::now() < deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                counts = self
                    .freed
                    .wait_timeout(counts, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            counts.waiting -= 1;
            if counts.running >= COMPUTATIONS_MAX {
                return None;
            }
        }
        counts.running += 1;
        Some(Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).running -= 1;
        self.0.freed.notify_one();
    }
}

fn argon2() -> Result<Argon2<'static>, String> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|e| e.to_string())?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The argon2id hash of a password in PHC form.
pub fn hash(password: &str, _permit: &Permit<'_>) -> Result<String, String> {
    let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).map_err(|e| e.to_string())?;
    let hash = argon2()?.hash_password(password.as_bytes(), &salt);
    hash.map(|h| h.to_string()).map_err(|e| e.to_string())
}

/// Whether a password is the one of a hash; the cost is that of the hash.
pub fn matches(password: &str, hash: &str, _permit: &Permit<'_>) -> bool {
    let (Ok(argon2), Ok(hash)) = (argon2(), PasswordHash::new(hash)) else {
        return false;
    };
    argon2.verify_password(password.as_bytes(), &hash).is_ok()
}

/// Whether a text is a hash as [`hash`] makes them.
pub fn is_hash(text: &str) -> bool {
    PasswordHash::new(text).is_ok_and(|h| h.algorithm.as_str() == "argon2id" && h.hash.is_some())
}

/// A password nobody has to think of, in groups that can be typed.
pub fn random_password() -> String {
    let bytes: [u8; PASSWORD_GROUPS * 5] = rand::random();
    let letters: Vec<u8> = bytes.iter().map(|b| LETTERS[usize::from(b % 32)]).collect();
    let groups: Vec<_> = letters.chunks(5).map(String::from_utf8_lossy).collect();
    groups.join("-")
}

/// Eight letters and digits at random, for names of things.
pub fn random_name() -> String {
    to_hex(&rand::random::<[u8; 4]>())
}

/// 256 random bits as text of letters, digits, `-` and `_`.
pub fn random_secret() -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// What is kept of a secret of 256 random bits: nothing slower than this is needed against guessing.
pub fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// A digest as text.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// 32 bytes from their text.
pub fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_argon2id_of_the_recommended_cost_and_matches_its_password_only() {
        let permits = Permits::default();
        let permit = permits.take().unwrap();
        let hash = hash("correct horse", &permit).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(is_hash(&hash));
        assert!(matches("correct horse", &hash, &permit));
        assert!(!matches("correct horsf", &hash, &permit));
        assert!(!matches("correct horse", "$argon2id$", &permit));
        for other in [
            "",
            "correct horse",
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ",
            "$2b$12$abc",
        ] {
            assert!(!is_hash(other), "{other}");
        }
    }

    #[test]
    fn two_compute_some_wait_and_the_rest_is_sent_away() {
        let permits = Permits::default();
        let (first, second) = (permits.take().unwrap(), permits.take().unwrap());
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..WAITING_MAX)
                .map(|_| scope.spawn(|| permits.take().is_some()))
                .collect();
            while permits.state.lock().unwrap().waiting < WAITING_MAX {
                std::thread::yield_now();
            }
            assert!(permits.take().is_none(), "as many wait as may");
            drop((first, second));
            for thread in waiting {
                assert!(thread.join().unwrap());
            }
        });
        assert_eq!(permits.state.lock().unwrap().running, 0);
    }

    #[test]
    fn what_is_made_at_random_is_long_enough_and_can_be_typed() {
        let password = random_password();
        assert_eq!(password.len(), 29, "{password}");
        assert!(password.bytes().all(|b| b == b'-' || LETTERS.contains(&b)));
        assert_ne!(password, random_password());
        assert_eq!(LETTERS.iter().collect::<std::collections::HashSet<_>>().len(), 32);
        let secret = random_secret();
        assert_eq!(secret.len(), 43);
        let digest = digest(&secret);
        assert_eq!(from_hex(&to_hex(&digest)), Some(digest));
        assert_eq!(from_hex("ab"), None);
        assert_eq!(from_hex(&"ä".repeat(32)), None);
    }
}
