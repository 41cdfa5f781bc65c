//! Who asks: found from how the request came, its session cookie or its token; and whether a page of another site made the browser ask.

use std::net::IpAddr;

use hyper::{
    Method, StatusCode,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};

use super::http::Failure;
use crate::accounts::{Accounts, LoginError, Via, Who};

/// The cookie that carries a session.
pub const COOKIE: &str = "corenvr_session";

/// How a request shows who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It came over the control socket, which only root and the service's user may open.
    Socket,
    /// The cookie of a session, which browsers send by themselves.
    Cookie,
    /// A token.
    Token,
    /// It does not.
    Nothing,
}

/// Who asks. Where a request comes from never says who it is: there is no address that is trusted.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it is.
    pub who: Who,
    /// The address of the other end of the connection; `None` on the control socket. No header is asked for it.
    pub peer: Option<IpAddr>,
    /// How they came in.
    pub via: Via,
    /// How it is known who it is.
    pub proof: Proof,
}

/// A connection that requests come over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The address of its other end; `None` on the control socket.
    pub peer: Option<IpAddr>,
    /// Whether it is encrypted.
    pub tls: bool,
}

impl Origin {
    /// As the audit log has it.
    pub const fn via(self) -> Via {
        match (self.peer, self.tls) {
            (None, _) => Via::Local,
            (_, true) => Via::Https,
            (_, false) => Via::Http,
        }
    }
}

impl Caller {
    /// Whether the connection is encrypted.
    pub const fn tls(&self) -> bool {
        matches!(self.via, Via::Https)
    }

    /// Somebody who does not say who they are.
    pub const fn nobody(origin: Origin) -> Self {
        Self {
            who: Who::Nobody,
            peer: origin.peer,
            via: origin.via(),
            proof: Proof::Nothing,
        }
    }

    /// Finds out who asks. A token that is not one of ours is refused; a session that has ended is nobody's, since browsers keep cookies.
    pub fn find(headers: &HeaderMap, origin: Origin, accounts: &Accounts) -> Result<Self, Failure> {
        let caller = |who, proof| Self {
            who,
            peer: origin.peer,
            via: origin.via(),
            proof,
        };
        let Some(peer) = origin.peer else {
            return Ok(caller(Who::Local, Proof::Socket));
        };
        if headers.contains_key(header::AUTHORIZATION) {
            let token = bearer(headers).ok_or_else(|| Failure::login("Authorization has no bearer token"))?;
            let who = accounts.by_token(peer, origin.via(), token).map_err(|e| refused(&e))?;
            return Ok(caller(who, Proof::Token));
        }
        let session = cookie(headers).and_then(|session| accounts.by_session(session));
        Ok(session.map_or_else(|| caller(Who::Nobody, Proof::Nothing), |who| caller(who, Proof::Cookie)))
    }
}

/// A login or a token that was not accepted, as an answer.
pub fn refused(error: &LoginError) -> Failure {
    match error {
        LoginError::Wrong => Failure::login("that is not a login of this recorder"),
        LoginError::Throttled { retry_after } => Failure::too_many(error.to_string(), *retry_after),
        LoginError::Busy => Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            error.to_string(),
            "try again in a moment",
        )
        .with(header::RETRY_AFTER, HeaderValue::from_static("1")),
    }
}

/// The token of a request with exactly one `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The value of the session cookie. One that comes twice was planted by somebody, and none of them is taken.
pub fn cookie(headers: &HeaderMap) -> Option<&str> {
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value);
    match (found.next(), found.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

/// `Set-Cookie` that begins a session; a browser gives it back to this recorder's own pages only, and no script sees it.
pub fn set_cookie(session: &str, tls: bool) -> HeaderValue {
    let secure = if tls { "; Secure" } else { "" };
    let text = format!("{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict{secure}");
    // A session is made of letters and digits; anything else would be our own mistake and ends the session.
    HeaderValue::try_from(text).unwrap_or_else(|_| clear_cookie(tls))
}

/// `Set-Cookie` that ends a session.
pub fn clear_cookie(tls: bool) -> HeaderValue {
    HeaderValue::from_static(if tls {
        "corenvr_session=; Path=/; HttpOnly; SameSite=Strict; Secure; Max-Age=0"
    } else {
        "corenvr_session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"
    })
}

/// Refuses what a page of another site made a browser ask. Browsers say where a request comes from, programs need not, unless
/// they use the cookie: a browser that says nothing at all is too old to be trusted with one.
pub fn refuse_cross_site(method: &Method, headers: &HeaderMap, caller: &Caller) -> Result<(), Failure> {
    const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    if caller.proof == Proof::Socket || [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        return Ok(());
    }
    let fetch_site = headers.get(&SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    let from = headers
        .get(header::ORIGIN)
        .map(|o| same_origin(o, headers, caller.tls()));
    let own = match (fetch_site, from) {
        (Some(site), _) => site == b"same-origin" || site == b"none",
        (None, Some(same)) => same,
        (None, None) => caller.proof != Proof::Cookie,
    };
    if own {
        return Ok(());
    }
    Err(Failure::forbidden(
        "this request was made by a page of another site",
        "use this recorder's own pages; a program sends a token instead of the cookie",
    ))
}

/// Whether an Origin is the host that the request is addressed to. A page cannot choose the Host that a browser sends.
fn same_origin(origin: &HeaderValue, headers: &HeaderMap, tls: bool) -> bool {
    let scheme = if tls { "https://" } else { "http://" };
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let origin = origin.to_str().ok().and_then(|o| o.strip_prefix(scheme));
    matches!((origin, host), (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn caller(proof: Proof) -> Caller {
        Caller {
            who: Who::Nobody,
            peer: Some(IpAddr::from([127, 0, 0, 1])),
            via: Via::Http,
            proof,
        }
    }

    #[test]
    fn the_cookie_is_found_among_others_and_never_taken_twice() {
        assert_eq!(cookie(&headers(&[("cookie", "a=b; corenvr_session=x; c")])), Some("x"));
        assert_eq!(
            cookie(&headers(&[("cookie", "a=b"), ("cookie", "corenvr_session=y")])),
            Some("y")
        );
        assert_eq!(
            cookie(&headers(&[("cookie", "corenvr_session=x; corenvr_session=y")])),
            None
        );
        assert_eq!(
            cookie(&headers(&[("cookie", "xcorenvr_session=x; CORENVR_SESSION=z")])),
            None
        );
        assert_eq!(cookie(&headers(&[])), None);
    }

    #[test]
    fn a_token_is_taken_from_one_bearer_header_only() {
        assert_eq!(bearer(&headers(&[("authorization", "bearer  abc ")])), Some("abc"));
        for wrong in ["Basic abc", "Bearer", "abc"] {
            assert_eq!(bearer(&headers(&[("authorization", wrong)])), None, "{wrong}");
        }
        let twice = headers(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]);
        assert_eq!(bearer(&twice), None);
    }

    #[test]
    fn a_change_asked_by_another_site_is_refused() {
        let check =
            |via, list: &[(&'static str, &str)]| refuse_cross_site(&Method::POST, &headers(list), &caller(via)).is_ok();
        let host = ("host", "nvr:8080");
        assert!(check(Proof::Cookie, &[host, ("origin", "http://nvr:8080")]));
        assert!(check(Proof::Cookie, &[host, ("sec-fetch-site", "same-origin")]));
        for (name, value) in [
            ("origin", "http://evil"),
            ("origin", "null"),
            ("origin", "http://nvr:8080.evil"),
            ("origin", "https://nvr:8080"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            for via in [Proof::Cookie, Proof::Token, Proof::Nothing] {
                assert!(!check(via, &[host, (name, value)]), "{name}: {value} {via:?}");
            }
        }
        assert!(!check(Proof::Cookie, &[host]), "a browser says where it comes from");
        assert!(
            check(Proof::Token, &[host]) && check(Proof::Nothing, &[host]),
            "a program need not"
        );
        assert!(check(Proof::Socket, &[("origin", "http://evil")]));
        let evil = headers(&[host, ("origin", "http://evil")]);
        assert!(refuse_cross_site(&Method::GET, &evil, &caller(Proof::Cookie)).is_ok());
    }

    #[test]
    fn the_cookie_is_for_this_recorder_alone() {
        let text = |value: HeaderValue| value.to_str().unwrap().to_owned();
        assert_eq!(
            text(set_cookie("abc", false)),
            "corenvr_session=abc; Path=/; HttpOnly; SameSite=Strict"
        );
        assert!(text(set_cookie("abc", true)).ends_with("; Secure"));
        assert!(text(set_cookie("a\r\nb", false)).ends_with("Max-Age=0"));
        assert!(text(clear_cookie(true)).starts_with(&format!("{COOKIE}=;")));
    }
}
