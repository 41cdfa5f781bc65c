//! Camera URLs: as people write them, as requests carry them, and how a control attribute joins its base.
//!
//! Text forms never show a password. What a *client of ours* asks for is read by `uri`.

use std::fmt;

use crate::auth::Credentials;

/// The longest camera URL that is read, in bytes.
pub const URL_BYTES_MAX: usize = 2048;

/// A text is not a camera URL. The text itself is not repeated: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum UrlError {
    #[error("the URL must start with rtsp:// or rtsps://")]
    Scheme,
    #[error("the URL names no host; it should look like rtsp://user:password@host:554/path")]
    Host,
    #[error("the port of the URL is not a number from 1 to 65535")]
    Port,
    #[error("the URL is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    #[error("the URL holds a control character such as a line break; was it copied over two lines?")]
    ControlCharacter,
}

/// `rtsp://[user[:password]@]host[:port][/path][?query]`.
#[derive(Clone, PartialEq, Eq)]
pub struct CameraUrl {
    tls: bool,
    host: String,
    port: u16,
    /// Everything behind the authority, verbatim: cameras parse it in ways of their own.
    path: String,
    credentials: Option<Credentials>,
}

impl CameraUrl {
    /// Reads a URL. The password may hold `@`, `#`, `:`, `?` and, where that leaves only one reading, `/`, plain or
    /// percent-encoded; a `%` that starts no escape stands for itself.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        if text.len() > URL_BYTES_MAX {
            return Err(UrlError::TooLong);
        }
        // The URL goes into request lines as it is: a line break in it would be a header of its own.
        if text.chars().any(char::is_control) {
            return Err(UrlError::ControlCharacter);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "rtsp" | "rtspt" | "rtspu" => false,
            "rtsps" => true,
            _ => return Err(UrlError::Scheme),
        };
        let default_port = if tls { 322 } else { 554 };
        let (user, authority, path) = split_authority(rest);
        let (host, port) = parse_authority(authority)?;
        let credentials = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let decode = |s: &str| percent_decode(s).unwrap_or_else(|| s.to_owned());
            Credentials::new(decode(name), decode(password))
        });
        Ok(Self {
            tls,
            host,
            port: port.unwrap_or(default_port),
            path: path.to_owned(),
            credentials,
        })
    }

    /// Whether the connection is to be encrypted (`rtsps`).
    pub const fn is_tls(&self) -> bool {
        self.tls
    }

    /// Name or address; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port; 554, or 322 for `rtsps`, if the URL names none.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What the user part of the URL says.
    pub const fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// The URL as requests carry it: without the user part, the port only where it is not the scheme's own.
    pub fn request_url(&self) -> String {
        let mut url = String::with_capacity(16 + self.host.len() + self.path.len());
        url.push_str(if self.tls { "rtsps://" } else { "rtsp://" });
        if self.host.contains(':') {
            url.push('[');
            url.push_str(&self.host);
            url.push(']');
        } else {
            url.push_str(&self.host);
        }
        if self.port != if self.tls { 322 } else { 554 } {
            url.extend([":", &self.port.to_string()]);
        }
        url.push_str(&self.path);
        url
    }

    /// Where a redirect leads. Credentials go along only to the same host.
    pub fn redirected(&self, location: &str) -> Result<Self, UrlError> {
        let mut url = if location.starts_with('/') {
            Self {
                path: location.to_owned(),
                ..self.clone()
            }
        } else {
            Self::parse(location)?
        };
        if url.credentials.is_none() && url.host.eq_ignore_ascii_case(&self.host) {
            url.credentials.clone_from(&self.credentials);
        }
        Ok(url)
    }
}

/// User part, host with port, and the rest. Where a password makes the text ambiguous, the plainest reading that has a
/// valid host wins.
pub(crate) fn split_authority(rest: &str) -> (Option<&str>, &str, &str) {
    let slash = rest.find('/').unwrap_or(rest.len());
    let strict = rest.find(['/', '?']).unwrap_or(rest.len());
    let at_user = |at: usize| {
        let after = &rest[at + 1..];
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let split = (Some(&rest[..at]), &after[..end], &after[end..]);
        parse_authority(split.1).is_ok().then_some(split)
    };
    if let Some(at) = rest[..strict].rfind('@') {
        if let Some(split) = at_user(at) {
            return split;
        }
    } else {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        if parse_authority(&rest[..end]).is_ok() {
            return (None, &rest[..end], &rest[end..]);
        }
    }
    // The password holds a question mark, or failing that a slash.
    let in_authority = rest[..slash].rfind('@').and_then(at_user);
    in_authority
        .or_else(|| rest.match_indices('@').find_map(|(at, _)| at_user(at)))
        .unwrap_or((None, &rest[..strict], &rest[strict..]))
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(crate) fn parse_authority(authority: &str) -> Result<(String, Option<u16>), UrlError> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(UrlError::Host)?;
        let zone_free = host.split('%').next().unwrap_or_default();
        if zone_free.parse::<std::net::Ipv6Addr>().is_err() || !host.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(UrlError::Host);
        }
        match after.strip_prefix(':') {
            Some(port) => (host, port),
            None if after.is_empty() => (host, ""),
            None => return Err(UrlError::Host),
        }
    } else {
        let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
        let is_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if host.is_empty() || !host.bytes().all(is_host) {
            return Err(UrlError::Host);
        }
        (host, port)
    };
    let port = match port {
        "" => None,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|p| *p != 0).ok_or(UrlError::Port)?)
        }
        _ => return Err(UrlError::Port),
    };
    Ok((host.to_owned(), port))
}

/// Replaces `%XX`; what is no escape stands for itself. `None` if the outcome is not UTF-8.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [b, after @ ..] = rest {
        rest = after;
        let hex = |b: u8| char::from(b).to_digit(16);
        if let (b'%', [high, low, tail @ ..]) = (b, after)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push((high * 16 + low) as u8);
            rest = tail;
        } else {
            out.push(*b);
        }
    }
    String::from_utf8(out).ok()
}

impl fmt::Display for CameraUrl {
    /// Without credentials, also those that XM and Dahua cameras take in the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hide_passwords(&self.request_url()))
    }
}

impl fmt::Debug for CameraUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Any URL as it may be shown: without the user part and without values that look like passwords.
pub(crate) fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (_, authority, path) = split_authority(rest);
            hide_passwords(&format!("{scheme}://{authority}{path}"))
        }
        None => hide_passwords(url),
    }
}

/// Replaces the values of `password=`, `passwd=`, `pwd=`, `pass=` and `token=` up to the next separator.
pub(crate) fn hide_passwords(url: &str) -> String {
    const KEYS: [&str; 5] = ["password=", "passwd=", "pwd=", "pass=", "token="];
    let lower = url.to_ascii_lowercase();
    let mut out = String::with_capacity(url.len());
    let mut at = 0;
    while let Some((start, key)) = KEYS
        .iter()
        .filter_map(|k| Some((at + lower[at..].find(k)?, *k)))
        .min_by_key(|(i, _)| *i)
    {
        let value = start + key.len();
        let end = url[value..].find(['&', '/', '?', ';']).map_or(url.len(), |i| value + i);
        out.push_str(&url[at..value]);
        out.push_str("***");
        at = end;
    }
    out.push_str(&url[at..]);
    out
}

/// The base that control attributes are relative to (RFC 2326 section C.1.1): Content-Base, else Content-Location, else
/// the request's URL. A value without a scheme gets the request's; one that is no URL at all is passed over.
pub fn control_base(content_base: Option<&str>, content_location: Option<&str>, request_url: &str) -> String {
    let scheme = request_url.split_once("://").map_or("rtsp", |(s, _)| s);
    for value in [content_base, content_location].into_iter().flatten().map(str::trim) {
        if is_absolute(value) {
            return value.to_owned();
        }
        // Anjvision and SV3C leave the scheme out: `192.168.1.10:554/stream0/`.
        let authority = value.split('/').next().unwrap_or_default();
        let looks_like_host = authority.contains(['.', ':']) && !value.starts_with('/');
        if looks_like_host && parse_authority(authority).is_ok() {
            return format!("{scheme}://{value}");
        }
        if value.starts_with('/') {
            return resolve_path(request_url, value);
        }
    }
    request_url.to_owned()
}

fn is_absolute(url: &str) -> bool {
    url.get(..7).is_some_and(|s| s.eq_ignore_ascii_case("rtsp://"))
        || url
            .get(..8)
            .is_some_and(|s| s.eq_ignore_ascii_case("rtsps://") || s.eq_ignore_ascii_case("rtspu://"))
}

/// `base` with its path and query replaced.
fn resolve_path(base: &str, path: &str) -> String {
    match base.split_once("://") {
        Some((scheme, rest)) => {
            let (_, authority, _) = split_authority(rest);
            format!("{scheme}://{authority}{path}")
        }
        None => path.to_owned(),
    }
}

/// Joins a control attribute to its base as live555 and FFmpeg do, which is what cameras are tested with: appended with a
/// slash between, even behind a query. `*` and an empty control are the base itself.
pub fn join_control(base: &str, control: &str) -> String {
    let control = control.trim();
    if control.is_empty() || control == "*" {
        return base.to_owned();
    }
    if is_absolute(control) {
        return control.to_owned();
    }
    if let Some(relative) = control.strip_prefix('/') {
        // Verint sends the whole path; others mean `trackID=1` and begin with a slash all the same.
        let (_, _, base_path) = split_authority(base.split_once("://").map_or(base, |(_, r)| r));
        let first = |p: &str| p.split(['/', '?']).find(|s| !s.is_empty()).map(str::to_owned);
        let base_first = first(base_path);
        if base_first.is_none() || (relative.contains('/') && base_first == first(relative)) {
            return resolve_path(base, control);
        }
        return format!("{}/{relative}", base.trim_end_matches('/'));
    }
    let slash = if base.ends_with('/') { "" } else { "/" };
    format!("{base}{slash}{control}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, u16, String, Option<(String, String)>) {
        let u = CameraUrl::parse(text).unwrap();
        let c = u
            .credentials()
            .map(|c| (c.username().to_owned(), c.password().to_owned()));
        (u.host().to_owned(), u.port(), u.request_url(), c)
    }

    fn login(text: &str) -> (String, String, String) {
        let (host, _, url, c) = parts(text);
        let (user, password) = c.unwrap();
        assert!(url.contains(&host));
        (user, password, url)
    }

    fn expect(user: &str, password: &str, url: &str) -> (String, String, String) {
        (user.into(), password.into(), url.into())
    }

    #[test]
    fn plain_urls() {
        assert_eq!(
            parts("rtsp://10.0.0.7/Streaming/Channels/101?a=b"),
            (
                "10.0.0.7".into(),
                554,
                "rtsp://10.0.0.7/Streaming/Channels/101?a=b".into(),
                None
            )
        );
        assert_eq!(parts("RTSPS://cam.example").1, 322);
        assert_eq!(parts("rtsp://cam:8554").2, "rtsp://cam:8554");
        assert_eq!(parts("rtsp://cam:554/").2, "rtsp://cam/");
        assert_eq!(
            parts("rtsp://[fe80::1%eth0]:8554/x"),
            ("fe80::1%eth0".into(), 8554, "rtsp://[fe80::1%eth0]:8554/x".into(), None)
        );
        assert_eq!(parts("rtsp://[::1]/x").2, "rtsp://[::1]/x");
        assert_eq!(parts("rtsp://host?user=a@b").2, "rtsp://host?user=a@b");
        assert_eq!(parts("rtsp://host/user@home").3, None);
    }

    #[test]
    fn odd_passwords() {
        for (text, user, password, url) in [
            ("rtsp://u:p@h/x", "u", "p", "rtsp://h/x"),
            ("rtsp://u:p@ss@h:99/x", "u", "p@ss", "rtsp://h:99/x"),
            ("rtsp://u:1#2@h/x", "u", "1#2", "rtsp://h/x"),
            ("rtsp://u:p%40%23%25@h/x", "u", "p@#%", "rtsp://h/x"),
            ("rtsp://u:100%@h/x", "u", "100%", "rtsp://h/x"),
            ("rtsp://u:a%zz@h/x", "u", "a%zz", "rtsp://h/x"),
            ("rtsp://u:p?q@h/x", "u", "p?q", "rtsp://h/x"),
            ("rtsp://u:p/q@h/x", "u", "p/q", "rtsp://h/x"),
            ("rtsp://u:p:q@h", "u", "p:q", "rtsp://h"),
            ("rtsp://u:@h/x", "u", "", "rtsp://h/x"),
            ("rtsp://u@h/x", "u", "", "rtsp://h/x"),
            ("rtsp://u:p@[::1]:8/x", "u", "p", "rtsp://[::1]:8/x"),
            ("rtsp://u:p@h?m=a@b", "u", "p", "rtsp://h?m=a@b"),
            ("rtsp://u:p%ff@h", "u", "p%ff", "rtsp://h"),
        ] {
            assert_eq!(login(text), expect(user, password, url), "{text}");
        }
    }

    #[test]
    fn refused_without_repeating_the_text() {
        for (text, error) in [
            ("http://h/", UrlError::Scheme),
            ("10.0.0.7/x", UrlError::Scheme),
            ("rtsp://", UrlError::Host),
            ("rtsp:///x", UrlError::Host),
            ("rtsp://a b/x", UrlError::Host),
            ("rtsp://[::1/x", UrlError::Host),
            ("rtsp://[zz]/x", UrlError::Host),
            ("rtsp://h:0/x", UrlError::Port),
            ("rtsp://h:70000/x", UrlError::Port),
            ("rtsp://u:secret@h:x/", UrlError::Port),
        ] {
            let e = CameraUrl::parse(text).unwrap_err();
            assert_eq!(e, error, "{text}");
            assert!(!e.to_string().contains("secret"));
        }
        assert_eq!(
            CameraUrl::parse(&format!("rtsp://h/{}", "x".repeat(3000))),
            Err(UrlError::TooLong)
        );
    }

    #[test]
    fn no_text_form_shows_a_password() {
        let url =
            CameraUrl::parse("rtsp://admin:hunter2@h/user=admin_password=tlJwpbo6_channel=1?PWD=abc&x=1").unwrap();
        for text in [url.to_string(), format!("{url:?}"), format!("{:?}", url.credentials())] {
            for secret in ["hunter2", "tlJwpbo6", "abc"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
        assert_eq!(url.to_string(), "rtsp://h/user=admin_password=***?PWD=***&x=1");
        assert_eq!(without_credentials("rtsp://a:b@c/d"), "rtsp://c/d");
    }

    #[test]
    fn a_redirect_keeps_credentials_on_the_same_host_only() {
        let url = CameraUrl::parse("rtsp://u:p@h/x").unwrap();
        assert_eq!(
            url.redirected("rtsp://h:8554/y").unwrap().credentials(),
            url.credentials()
        );
        assert_eq!(url.redirected("/y").unwrap().request_url(), "rtsp://h/y");
        assert_eq!(url.redirected("rtsp://other/y").unwrap().credentials(), None);
        assert!(url.redirected("y").is_err());
    }

    #[test]
    fn control_joins() {
        for (base, control, url) in [
            ("rtsp://h/a/", "trackID=1", "rtsp://h/a/trackID=1"),
            ("rtsp://h/a", "trackID=1", "rtsp://h/a/trackID=1"),
            ("rtsp://h/a", "*", "rtsp://h/a"),
            ("rtsp://h/a", "", "rtsp://h/a"),
            ("rtsp://h/a", "rtsp://other/b?c", "rtsp://other/b?c"),
            // Dahua.
            (
                "rtsp://h/cam/realmonitor?channel=1&subtype=2/",
                "trackID=0",
                "rtsp://h/cam/realmonitor?channel=1&subtype=2/trackID=0",
            ),
            // Vivotek: a query and no slash.
            (
                "rtsp://h/media2/stream.sdp?profile=P1",
                "trackID=2",
                "rtsp://h/media2/stream.sdp?profile=P1/trackID=2",
            ),
            // Verint: the whole path.
            ("rtsp://h/media/1/video", "/media/1/video/1", "rtsp://h/media/1/video/1"),
            ("rtsp://h/", "/media/1/video/1", "rtsp://h/media/1/video/1"),
            ("rtsp://h", "/track1", "rtsp://h/track1"),
            ("rtsp://h/live/", "/track1", "rtsp://h/live/track1"),
        ] {
            assert_eq!(join_control(base, control), url, "{base} + {control}");
        }
    }

    #[test]
    fn the_base_of_controls() {
        let request = "rtsp://h/stream0";
        assert_eq!(control_base(None, None, request), request);
        assert_eq!(
            control_base(Some("rtsp://h/b/"), Some("rtsp://h/l"), request),
            "rtsp://h/b/"
        );
        assert_eq!(control_base(None, Some("rtsp://h/l"), request), "rtsp://h/l");
        assert_eq!(control_base(Some("/b/"), None, request), "rtsp://h/b/");
        assert_eq!(control_base(Some(""), None, request), request);
        assert_eq!(control_base(Some("nonsense"), None, request), request);
        // Anjvision and SV3C SV-B01POE.
        assert_eq!(
            control_base(Some("192.168.1.10:554/stream0/"), None, request),
            "rtsp://192.168.1.10:554/stream0/"
        );
    }
}
