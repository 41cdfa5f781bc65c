//! Where RTMP streams are: the URL of one that we pull, and the key under which one is pushed to us.
//!
//! Text forms never show a password or a key.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::{
    auth::Credentials,
    rtsp::url::{UrlError, hide_passwords, parse_authority, percent_decode, split_authority},
};

/// The longest RTMP URL that is read, in bytes.
pub const URL_BYTES_MAX: usize = 2048;
/// The port of `rtmp://`.
pub const PORT: u16 = 1935;
/// A key shorter than this can be guessed; whoever does can record a false picture in the camera's place.
pub const KEY_LEN_GOOD: usize = 8;
/// The longest stream key, in bytes.
pub const KEY_LEN_MAX: usize = 128;

/// A text is not the URL of an RTMP stream. The text itself is not repeated: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum RtmpUrlError {
    #[error("the URL must start with rtmp://")]
    Scheme,
    #[error("RTMP over TLS (rtmps://) is not supported: use the camera's rtmp:// URL")]
    Tls,
    #[error("the URL names no host; it should look like rtmp://host:1935/app/stream")]
    Host,
    #[error("the port of the URL is not a number from 1 to 65535")]
    Port,
    #[error("the URL names no stream behind the application; it should look like rtmp://host:1935/app/stream")]
    Stream,
    #[error("the URL is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    #[error("the URL holds a control character such as a line break; was it copied over two lines?")]
    ControlCharacter,
}

/// `rtmp://[user:password@]host[:port]/app/stream[?query]`: a stream that we pull.
#[derive(Clone, PartialEq, Eq)]
pub struct RtmpUrl {
    host: String,
    port: u16,
    app: String,
    /// With its query, verbatim.
    stream: String,
    credentials: Option<Credentials>,
}

impl RtmpUrl {
    /// Reads a URL. Of a path with three parts or more the first two are the application, as `FFmpeg` reads it. The
    /// password may hold what [`crate::rtsp::url::CameraUrl::parse`] allows.
    pub fn parse(text: &str) -> Result<Self, RtmpUrlError> {
        let text = text.trim();
        if text.len() > URL_BYTES_MAX {
            return Err(RtmpUrlError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(RtmpUrlError::ControlCharacter);
        }
        let (scheme, rest) = text.split_once("://").ok_or(RtmpUrlError::Scheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "rtmp" => {}
            "rtmps" => return Err(RtmpUrlError::Tls),
            _ => return Err(RtmpUrlError::Scheme),
        }
        let (user, authority, path) = split_authority(rest);
        let (host, port) = parse_authority(authority).map_err(|e| match e {
            UrlError::Port => RtmpUrlError::Port,
            _ => RtmpUrlError::Host,
        })?;
        let (app, stream) = split_path(path).ok_or(RtmpUrlError::Stream)?;
        let credentials = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let decode = |s: &str| percent_decode(s).unwrap_or_else(|| s.to_owned());
            Credentials::new(decode(name), decode(password))
        });
        Ok(Self {
            host,
            port: port.unwrap_or(PORT),
            app: app.to_owned(),
            stream: stream.to_owned(),
            credentials,
        })
    }

    /// Name or address; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port; [`PORT`] if the URL names none.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The application, as `connect` asks for it.
    pub fn app(&self) -> &str {
        &self.app
    }

    /// The stream as `play` asks for it: with its query, and with user and password in the way most servers take them,
    /// `?user=..&pass=..`, unless the query names a user itself. To be used and not to be shown.
    pub fn play_path(&self) -> String {
        let mut path = self.stream.clone();
        let query = path.split_once('?').map_or("", |(_, query)| query);
        let names_user = query.split('&').any(|pair| pair.starts_with("user="));
        if let Some(login) = self.credentials.as_ref().filter(|_| !names_user) {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str("user=");
            percent_encode(login.username(), &mut path);
            path.push_str("&pass=");
            percent_encode(login.password(), &mut path);
        }
        path
    }

    /// The URL of the application, as `connect` names it in `tcUrl`: without login.
    pub fn tc_url(&self) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("rtmp://{open}{}{close}:{}/{}", self.host, self.port, self.app)
    }

    /// Where a redirect leads: to another server or application, or to a whole other stream. The stream stays this one's if
    /// the redirect names none; the login goes along only to the same host.
    pub fn redirected(&self, location: &str) -> Result<Self, RtmpUrlError> {
        let mut url = match Self::parse(location) {
            Err(RtmpUrlError::Stream) => {
                let stream = self.stream.trim_start_matches('/');
                Self::parse(&format!("{}/{stream}", location.trim_end_matches('/')))?
            }
            result => result?,
        };
        if url.credentials.is_none() && url.host.eq_ignore_ascii_case(&self.host) {
            url.credentials.clone_from(&self.credentials);
        }
        Ok(url)
    }
}

/// Application and stream of a path. `None` if one of them is empty.
fn split_path(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    let end = path.find('?').unwrap_or(path.len());
    let first = path[..end].find('/')?;
    let second = path[first + 1..end].find('/').map(|at| first + 1 + at);
    // `mp4:dir/file` is a stream, not a part of the application.
    let at = match second {
        Some(at) if !path[first..at].contains(':') && at + 1 < end => at,
        _ => first,
    };
    let (app, stream) = (&path[..at], &path[at + 1..]);
    let named = !stream.is_empty() && !stream.starts_with('?');
    (!app.is_empty() && named).then_some((app, stream))
}

fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                out.extend(char::from_digit(u32::from(digit), 16));
            }
        }
    }
}

impl fmt::Display for RtmpUrl {
    /// Without login.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hide_passwords(&format!("{}/{}", self.tc_url(), self.stream)))
    }
}

impl fmt::Debug for RtmpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not a stream key. The text itself is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum StreamKeyError {
    #[error("the URL of a camera that pushes must look like rtmp+listen://KEY")]
    Scheme,
    #[error("the stream key is missing: the URL must look like rtmp+listen://KEY")]
    Missing,
    #[error("the stream key is longer than {KEY_LEN_MAX} bytes")]
    TooLong,
    #[error("the stream key may hold letters, digits and . _ ~ - only: encoders write it into a URL")]
    Character,
}

/// The secret under which a camera pushes its stream to us: `rtmp+listen://KEY`.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamKey {
    text: String,
    digest: [u8; 32],
}

impl StreamKey {
    /// Reads a key, without scheme: 1 to [`KEY_LEN_MAX`] letters, digits and `.`, `_`, `~`, `-`.
    pub fn new(key: &str) -> Result<Self, StreamKeyError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-');
        if !key.bytes().all(plain) {
            return Err(StreamKeyError::Character);
        }
        match key.len() {
            0 => Err(StreamKeyError::Missing),
            1..=KEY_LEN_MAX => Ok(Self {
                text: key.to_owned(),
                digest: Self::digest_of(key),
            }),
            _ => Err(StreamKeyError::TooLong),
        }
    }

    /// Reads a camera URL, `rtmp+listen://KEY`.
    pub fn parse_url(text: &str) -> Result<Self, StreamKeyError> {
        let (scheme, key) = text.trim().split_once("://").ok_or(StreamKeyError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("rtmp+listen") {
            return Err(StreamKeyError::Scheme);
        }
        Self::new(key.strip_suffix('/').unwrap_or(key))
    }

    /// The key, to be used and not to be shown.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has fewer characters than [`KEY_LEN_GOOD`].
    pub const fn is_short(&self) -> bool {
        self.text.len() < KEY_LEN_GOOD
    }

    /// SHA-256 of the key: comparing and finding keys by it tells nothing of them by the time it takes.
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// [`Self::digest`] of a key that a publisher offers.
    pub fn digest_of(offered: &str) -> [u8; 32] {
        Sha256::digest(offered).into()
    }

    /// Whether a publisher offers this key. The time it takes does not depend on where they differ.
    pub fn matches(&self, offered: &str) -> bool {
        let offered = Self::digest_of(offered);
        self.digest.iter().zip(offered).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
    }
}

/// A key as it may be shown to whoever looks for a typing error: the first two characters of a long one, and its length.
pub fn masked_key(key: &str) -> String {
    let len = key.chars().count();
    let shown: String = key.chars().take(if len >= KEY_LEN_GOOD { 2 } else { 0 }).collect();
    let shown: String = shown.chars().filter(|c| !c.is_control()).collect();
    format!("{shown}*** ({len} characters)")
}

impl fmt::Display for StreamKey {
    /// The camera URL with the key hidden.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rtmp+listen://***")
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_as_people_write_them() {
        for (text, host, port, app, path) in [
            ("rtmp://10.0.0.7/live/cam", "10.0.0.7", 1935, "live", "cam"),
            ("RTMP://cam.example:1936/a/b/c", "cam.example", 1936, "a/b", "c"),
            ("rtmp://[::1]/a/b/c/d?x=1", "::1", 1935, "a/b", "c/d?x=1"),
            ("rtmp://h/vod/mp4:a/b", "h", 1935, "vod", "mp4:a/b"),
            ("rtmp://h/live/a/", "h", 1935, "live", "a/"),
            ("rtmp://h/live/a?b=/c/d", "h", 1935, "live", "a?b=/c/d"),
            (
                "rtmp://h/bcs/channel0_main.bcs?channel=0&stream=0&user=admin&password=p",
                "h",
                1935,
                "bcs",
                "channel0_main.bcs?channel=0&stream=0&user=admin&password=p",
            ),
            ("rtmp://u:p%40@h/live/a", "h", 1935, "live", "a?user=u&pass=p%40"),
            ("rtmp://u:p@h/live/a?b=c", "h", 1935, "live", "a?b=c&user=u&pass=p"),
            (
                "rtmp://u:p@h/live/a?user=x&pass=y",
                "h",
                1935,
                "live",
                "a?user=x&pass=y",
            ),
        ] {
            let url = RtmpUrl::parse(text).unwrap();
            let read = (url.host(), url.port(), url.app(), url.play_path());
            assert_eq!(read, (host, port, app, path.to_owned()), "{text}");
        }
        assert_eq!(
            RtmpUrl::parse("rtmp://[::1]:9/a/b").unwrap().tc_url(),
            "rtmp://[::1]:9/a"
        );
    }

    #[test]
    fn what_is_no_stream_is_refused_in_words() {
        for (text, error) in [
            ("rtsp://h/a/b", RtmpUrlError::Scheme),
            ("h/a/b", RtmpUrlError::Scheme),
            ("rtmps://h/a/b", RtmpUrlError::Tls),
            ("rtmp:///a/b", RtmpUrlError::Host),
            ("rtmp://h:0/a/b", RtmpUrlError::Port),
            ("rtmp://h", RtmpUrlError::Stream),
            ("rtmp://h/live", RtmpUrlError::Stream),
            ("rtmp://h/live/", RtmpUrlError::Stream),
            ("rtmp://h/live/?a=b", RtmpUrlError::Stream),
            ("rtmp://h//a", RtmpUrlError::Stream),
            ("rtmp://h/a\nb/c", RtmpUrlError::ControlCharacter),
        ] {
            assert_eq!(RtmpUrl::parse(text), Err(error), "{text}");
        }
        let long = format!("rtmp://h/live/{}", "x".repeat(URL_BYTES_MAX));
        assert_eq!(RtmpUrl::parse(&long), Err(RtmpUrlError::TooLong));
    }

    #[test]
    fn a_login_is_not_shown_and_stays_with_its_host() {
        let url = RtmpUrl::parse("rtmp://admin:s3cret@h/live/a?password=s3cret&b=c").unwrap();
        for text in [url.to_string(), format!("{url:?}")] {
            assert!(text.contains("/live/a") && !text.contains("s3cret"), "{text}");
        }
        let login = |url: RtmpUrl| url.credentials.is_some();
        assert!(login(url.redirected("rtmp://H:1936/live/a").unwrap()));
        let moved = url.redirected("rtmp://other/app").unwrap();
        assert_eq!((moved.app(), moved.stream.as_str()), ("app", "a?password=s3cret&b=c"));
        assert!(!login(moved));
        assert!(url.redirected("http://other/app").is_err());
    }

    #[test]
    fn keys_are_checked_compared_and_hidden() {
        let key = StreamKey::parse_url(" RTMP+listen://gate-5f3a9c/ ").unwrap();
        assert_eq!(key.as_str(), "gate-5f3a9c");
        assert!(key.matches("gate-5f3a9c") && !key.matches("gate-5f3a9d") && !key.matches(""));
        for text in [
            key.to_string(),
            format!("{key:?}"),
            masked_key(key.as_str()),
            masked_key("short"),
        ] {
            assert!(!text.contains("5f3a9c") && !text.contains("short"), "{text}");
        }
        assert!(!key.is_short() && StreamKey::new("cam1").unwrap().is_short());
        assert_eq!(masked_key("gate-5f3a9c"), "ga*** (11 characters)");
        for (text, error) in [
            ("rtmp://gate-5f3a9c", StreamKeyError::Scheme),
            ("rtmp+listen://", StreamKeyError::Missing),
            ("rtmp+listen:///", StreamKeyError::Missing),
            ("rtmp+listen://with/a/slash", StreamKeyError::Character),
            ("rtmp+listen://with a blank", StreamKeyError::Character),
            ("rtmp+listen://question?mark=1", StreamKeyError::Character),
        ] {
            assert_eq!(StreamKey::parse_url(text), Err(error), "{text}");
        }
        assert_eq!(
            StreamKey::new(&"x".repeat(KEY_LEN_MAX + 1)),
            Err(StreamKeyError::TooLong)
        );
    }
}
