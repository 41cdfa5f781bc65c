//! The answer to a digest challenge (RFC 2617 3.2.2, RFC 7616 3.4).

use md5::{Digest as _, Md5};
use sha2::Sha256;

/// A challenge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Challenge {
    pub realm: String,
    pub nonce: String,
    pub opaque: Option<String>,
    pub algorithm: Option<String>,
    /// `auth` is offered.
    pub qop: bool,
}

impl Challenge {
    /// Reads the value of `WWW-Authenticate`.
    pub fn parse(value: &str) -> Option<Self> {
        let rest = value
            .trim()
            .get(..7)
            .filter(|s| s.eq_ignore_ascii_case("digest "))
            .and(value.trim().get(7..))?;
        let mut challenge = Self::default();
        for (name, value) in fields(rest) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => challenge.realm = value,
                "nonce" => challenge.nonce = value,
                "opaque" => challenge.opaque = Some(value),
                "algorithm" => challenge.algorithm = Some(value),
                "qop" => challenge.qop = value.split(',').any(|q| q.trim().eq_ignore_ascii_case("auth")),
                _ => {}
            }
        }
        (!challenge.nonce.is_empty()).then_some(challenge)
    }

    /// The value of `Authorization`; `count` is how often this nonce has been used, from 1.
    pub fn answer(&self, (user, password): (&str, &str), method: &str, uri: &str, count: u32, cnonce: &str) -> String {
        let hash = |text: &str| match &self.algorithm {
            Some(a) if a.eq_ignore_ascii_case("SHA-256") => hex(&Sha256::digest(text)),
            _ => hex(&Md5::digest(text)),
        };
        let ha1 = hash(&format!("{user}:{}:{password}", self.realm));
        let ha2 = hash(&format!("{method}:{uri}"));
        let nonce = &self.nonce;
        let (response, qop) = if self.qop {
            let response = hash(&format!("{ha1}:{nonce}:{count:08x}:{cnonce}:auth:{ha2}"));
            (response, format!(", qop=auth, nc={count:08x}, cnonce=\"{cnonce}\""))
        } else {
            (hash(&format!("{ha1}:{nonce}:{ha2}")), String::new())
        };
        let mut text = format!(
            "Digest username=\"{user}\", realm=\"{}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\"",
            self.realm
        );
        if let Some(algorithm) = &self.algorithm {
            text.push_str(", algorithm=");
            text.push_str(algorithm);
        }
        if let Some(opaque) = &self.opaque {
            text.extend([", opaque=\"", opaque, "\""]);
        }
        text + &qop
    }
}

/// `name=value` and `name="value"`, separated by commas.
fn fields(mut text: &str) -> Vec<(String, String)> {
    let mut list = Vec::new();
    while let Some((name, rest)) = text.split_once('=') {
        let name = name.trim_matches([' ', ',']).to_owned();
        let rest = rest.trim_start();
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(',').unwrap_or((rest, "")),
        };
        list.push((name, value.trim().to_owned()));
        text = after;
    }
    list
}

pub fn hex(bytes: &[u8]) -> String {
    let digit = |d: u8| char::from_digit(u32::from(d), 16).unwrap_or('0');
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfcs() {
        // RFC 2617 3.5.
        let challenge = Challenge::parse(
            "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
             opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
        )
        .unwrap();
        let user = ("Mufasa", "Circle Of Life");
        let answer = challenge.answer(user, "GET", "/dir/index.html", 1, "0a4f113b");
        assert!(
            answer.contains("response=\"6629fae49393a05397450978507c4ef1\""),
            "{answer}"
        );
        // RFC 7616 3.9.1.
        let challenge = Challenge::parse(
            "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=SHA-256, \
             nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"",
        )
        .unwrap();
        let user = ("Mufasa", "Circle of Life");
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let answer = challenge.answer(user, "GET", "/dir/index.html", 1, cnonce);
        assert!(
            answer.contains("response=\"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1\""),
            "{answer}"
        );
    }

    #[test]
    fn without_qop_the_old_hash_is_used() {
        let challenge =
            Challenge::parse("Digest realm=\"3402000000\",nonce=\"44010b73623249f6916a6acf7c316b8e\",algorithm=MD5")
                .unwrap();
        assert!(!challenge.qop);
        let answer = challenge.answer(("a", "b"), "REGISTER", "sip:x@y", 1, "c");
        assert!(!answer.contains("nc=") && answer.contains("algorithm=MD5"));
        assert!(Challenge::parse("Basic realm=\"x\"").is_none());
    }
}
