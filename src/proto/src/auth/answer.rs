//! The client's side: which challenge to answer, and the Authorization header of each request.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    Algorithm, Credentials, DigestInput, Scheme,
    challenge::{Challenge, DigestChallenge},
    quoted,
};

/// Why a challenge is not answered (again).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The server wants a login and none was given.
    #[error("a user name and password are needed")]
    NoCredentials,
    /// The server refused the name or the password.
    #[error("user name or password refused ({0})")]
    Wrong(Scheme),
    /// Nothing that the server offers is known.
    #[error("none of the offered login schemes is supported: {0}")]
    Unsupported(String),
}

/// Answers challenges and authorises the requests that follow, with one nonce for as long as the server takes it.
#[derive(Debug)]
pub struct Authenticator {
    credentials: Option<Credentials>,
    /// Makes client nonces: unpredictable if the caller's bytes are.
    seed: [u8; 16],
    chosen: Option<Chosen>,
}

#[derive(Debug)]
struct Chosen {
    challenge: Challenge,
    /// Requests that this challenge has authorised.
    count: u32,
    /// Whether the server has accepted one of them.
    accepted: bool,
}

impl Authenticator {
    /// An authenticator; `seed` should be random.
    pub const fn new(credentials: Option<Credentials>, seed: [u8; 16]) -> Self {
        Self {
            credentials,
            seed,
            chosen: None,
        }
    }

    /// The scheme in use.
    pub fn scheme(&self) -> Option<Scheme> {
        self.chosen.as_ref().and_then(|c| c.challenge.scheme())
    }

    /// Takes the challenges of a 401. `Ok` means: send the request again. The strongest scheme is answered, so Basic only
    /// where nothing else is offered. A second 401 to the same credentials is final, unless the server calls the nonce
    /// stale or had accepted it before (cameras that take each nonce once, and never say `stale`).
    pub fn challenged(&mut self, challenges: Vec<Challenge>) -> Result<(), Refusal> {
        if self.credentials.is_none() {
            return Err(Refusal::NoCredentials);
        }
        let offered: Vec<String> = challenges
            .iter()
            .filter_map(|c| match c {
                Challenge::Unknown(name) => Some(name.chars().take(40).collect()),
                _ => None,
            })
            .collect();
        let best = challenges
            .into_iter()
            .filter(|c| c.scheme().is_some())
            .max_by_key(Challenge::scheme);
        let Some(challenge) = best else {
            return Err(match self.scheme() {
                Some(scheme) => Refusal::Wrong(scheme),
                None if offered.is_empty() => Refusal::Unsupported("none at all".into()),
                None => Refusal::Unsupported(offered.join(", ")),
            });
        };
        if let Some(last) = &self.chosen {
            let stale = matches!(&challenge, Challenge::Digest(d) if d.stale);
            let renewed = last.accepted && challenge != last.challenge;
            if last.count > 0 && !stale && !renewed {
                return Err(Refusal::Wrong(last.challenge.scheme().unwrap_or(Scheme::Basic)));
            }
        }
        self.chosen = Some(Chosen {
            challenge,
            count: 0,
            accepted: false,
        });
        Ok(())
    }

    /// Tells that the server took the last authorised request as authentic.
    pub const fn accepted(&mut self) {
        if let Some(chosen) = &mut self.chosen {
            chosen.accepted = chosen.count > 0;
        }
    }

    /// The Authorization header of a request; `None` before a challenge.
    pub fn authorize(&mut self, method: &str, uri: &str) -> Option<String> {
        let credentials = self.credentials.as_ref()?;
        let chosen = self.chosen.as_mut()?;
        chosen.count = chosen.count.saturating_add(1);
        match &chosen.challenge {
            Challenge::Basic { .. } => {
                let pair = format!("{}:{}", credentials.username, credentials.password);
                Some(format!("Basic {}", STANDARD.encode(pair)))
            }
            Challenge::Digest(d) => Some(digest(credentials, d, &self.seed, chosen.count, method, uri)),
            Challenge::Unknown(_) => None,
        }
    }
}

fn digest(
    credentials: &Credentials,
    challenge: &DigestChallenge,
    seed: &[u8; 16],
    count: u32,
    method: &str,
    uri: &str,
) -> String {
    let algorithm = challenge.algorithm;
    let (qop, nc) = if challenge.qop_auth {
        ("auth", format!("{count:08x}"))
    } else {
        ("", String::new())
    };
    let mut cnonce = String::new();
    if challenge.qop_auth || algorithm.sess {
        // The session variant binds HA1 to the first client nonce, so that it may not change from request to request.
        let counted = if algorithm.sess {
            String::new()
        } else {
            count.to_string()
        };
        let hash = Algorithm {
            sha256: true,
            sess: false,
        }
        .hash(&[&super::hex(seed), &challenge.nonce, &counted]);
        hash[..16].clone_into(&mut cnonce);
    }
    let ha1 = algorithm.hash(&[&credentials.username, &challenge.realm, &credentials.password]);
    let response = algorithm.response(
        &ha1,
        method,
        &DigestInput {
            nonce: &challenge.nonce,
            uri,
            qop,
            nc: &nc,
            cnonce: &cnonce,
        },
    );
    let mut out = format!(
        "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\"",
        quoted(&credentials.username),
        quoted(&challenge.realm),
        quoted(&challenge.nonce),
        quoted(uri)
    );
    // Not named unless the server did: old cameras stumble over parameters that they did not send.
    if !challenge.algorithm_name.is_empty() {
        out.push_str(", algorithm=");
        out.push_str(algorithm.name());
    }
    if !cnonce.is_empty() {
        out.push_str(", cnonce=");
        out.push_str(&quoted(&cnonce));
    }
    if !qop.is_empty() {
        out.extend([", qop=", qop, ", nc=", &nc]);
    }
    if let Some(opaque) = &challenge.opaque {
        out.push_str(", opaque=");
        out.push_str(&quoted(opaque));
    }
    out
}
