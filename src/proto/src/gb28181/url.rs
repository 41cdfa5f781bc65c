//! The URL of a GB28181 camera, as an operator writes it.

use std::fmt;

use super::{
    id::{DeviceId, DeviceIdError},
    sdp::{MediaTransport, StreamChoice},
};
use crate::rtsp::url::percent_decode;

/// The longest URL that is read, in bytes; a longer one is refused.
pub const URL_BYTES_MAX: usize = 512;

/// A text is no GB28181 URL. The text itself is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Gb28181UrlError {
    #[error("the URL must start with gb28181://")]
    Scheme,
    #[error("the URL is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    #[error("the URL holds a control character such as a line break; was it copied over two lines?")]
    ControlCharacter,
    #[error("the URL holds a user name; a device is known by its id alone: gb28181://:password@DEVICE_ID")]
    User,
    #[error("the password of the URL is empty; leave out \":@\" where the password of [gb28181] is meant")]
    EmptyPassword,
    #[error("the password of the URL is not UTF-8 once its % escapes are decoded; write a % of the password as %25")]
    Password,
    #[error("the device in the URL: {0}")]
    Device(DeviceIdError),
    #[error("the channel in the URL: {0}; all channels are /*")]
    Channel(DeviceIdError),
    #[error("the URL goes on behind its channel; it should look like gb28181://DEVICE_ID/CHANNEL_ID?transport=udp")]
    Path,
    #[error("the URL has {0:?} behind the question mark; transport= and stream= are known")]
    QueryKey(String),
    #[error("the URL says {0}= twice")]
    Repeated(&'static str),
    #[error("transport= of the URL must be tcp-passive, udp or tcp-active")]
    Transport,
    #[error("stream= of the URL must be main or sub")]
    Stream,
}

/// Which channels of a device a URL means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// None is named: a camera's only one, which most cameras also show under the device's own id.
    Device,
    /// This one.
    One(DeviceId),
    /// Every camera of the device's catalog, as it changes (`/*`).
    All,
}

/// `gb28181://[:password@]DEVICE_ID[/CHANNEL_ID|/*][?transport=tcp-passive|udp|tcp-active&stream=main|sub]`.
///
/// Shown, as `Display` and as `Debug`, without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Gb28181Url {
    /// Who registers.
    pub device: DeviceId,
    /// What it registers with; `None`: the platform's own.
    pub password: Option<String>,
    /// What of it is recorded.
    pub channel: Channel,
    /// How media comes; `None`: the platform's choice.
    pub transport: Option<MediaTransport>,
    /// Which of the channel's streams; `None`: the device's choice.
    pub stream: Option<StreamChoice>,
}

impl Gb28181Url {
    /// Reads a URL. The password may hold `@`, `:`, `/` and `?`, plain or percent-encoded; a `%` that starts no escape stands for itself.
    pub fn parse(text: &str) -> Result<Self, Gb28181UrlError> {
        let text = text.trim();
        if text.len() > URL_BYTES_MAX {
            return Err(Gb28181UrlError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(Gb28181UrlError::ControlCharacter);
        }
        let (scheme, rest) = text.split_once("://").ok_or(Gb28181UrlError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("gb28181") {
            return Err(Gb28181UrlError::Scheme);
        }
        // Nothing behind the password can hold an @.
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let password = user.map(parse_password).transpose()?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (device, channel) = path.split_once('/').unwrap_or((path, ""));
        let mut url = Self {
            device: DeviceId::parse(device).map_err(Gb28181UrlError::Device)?,
            password,
            channel: parse_channel(channel)?,
            transport: None,
            stream: None,
        };
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            url.set(pair)?;
        }
        Ok(url)
    }

    /// Takes one `key=value` of the query.
    fn set(&mut self, pair: &str) -> Result<(), Gb28181UrlError> {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "transport" => {
                let value = MediaTransport::parse(value).ok_or(Gb28181UrlError::Transport)?;
                once(&mut self.transport, value, "transport")
            }
            "stream" => {
                let value = StreamChoice::parse(value).ok_or(Gb28181UrlError::Stream)?;
                once(&mut self.stream, value, "stream")
            }
            // The value is left out: somebody may have meant it as a password.
            _ => Err(Gb28181UrlError::QueryKey(key.to_owned())),
        }
    }

    /// The same for one channel of the catalog.
    pub fn with_channel(&self, id: DeviceId) -> Self {
        Self {
            channel: Channel::One(id),
            ..self.clone()
        }
    }
}

/// Puts a value into its empty place.
fn once<T>(place: &mut Option<T>, value: T, key: &'static str) -> Result<(), Gb28181UrlError> {
    if place.replace(value).is_some() {
        return Err(Gb28181UrlError::Repeated(key));
    }
    Ok(())
}

/// The password of `:password`.
fn parse_password(user: &str) -> Result<String, Gb28181UrlError> {
    let encoded = user.strip_prefix(':').ok_or(Gb28181UrlError::User)?;
    let password = percent_decode(encoded).ok_or(Gb28181UrlError::Password)?;
    if password.is_empty() {
        return Err(Gb28181UrlError::EmptyPassword);
    }
    if password.chars().any(char::is_control) {
        return Err(Gb28181UrlError::ControlCharacter);
    }
    Ok(password)
}

/// What stands behind the device's slash.
fn parse_channel(text: &str) -> Result<Channel, Gb28181UrlError> {
    match text {
        "" => Ok(Channel::Device),
        "*" => Ok(Channel::All),
        _ if text.contains('/') => Err(Gb28181UrlError::Path),
        _ => DeviceId::parse(text)
            .map(Channel::One)
            .map_err(Gb28181UrlError::Channel),
    }
}

impl fmt::Display for Gb28181Url {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gb28181://{}", self.device)?;
        match self.channel {
            Channel::Device => {}
            Channel::One(id) => write!(f, "/{id}")?,
            Channel::All => f.write_str("/*")?,
        }
        let mut before = '?';
        if let Some(transport) = self.transport {
            write!(f, "{before}transport={transport}")?;
            before = '&';
        }
        if let Some(stream) = self.stream {
            write!(f, "{before}stream={stream}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Gb28181Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: &str = "34020000001110000001";
    const CHANNEL: &str = "34020000001320000002";

    fn parse(text: &str) -> Gb28181Url {
        Gb28181Url::parse(text).unwrap()
    }

    #[test]
    fn the_short_form_leaves_everything_open() {
        let url = parse(&format!(" gb28181://{DEVICE} "));
        assert_eq!(url.device.as_str(), DEVICE);
        assert_eq!(
            (url.channel, url.transport, url.stream, url.password),
            (Channel::Device, None, None, None)
        );
        assert_eq!(parse(&format!("GB28181://{DEVICE}/")).channel, Channel::Device);
    }

    #[test]
    fn everything_can_be_said() {
        let url = parse(&format!(
            "gb28181://:p%40s%3As@{DEVICE}/{CHANNEL}?transport=tcp-active&stream=sub"
        ));
        assert_eq!(url.password.as_deref(), Some("p@s:s"));
        assert_eq!(url.channel, Channel::One(CHANNEL.parse().unwrap()));
        assert_eq!(
            (url.transport, url.stream),
            (Some(MediaTransport::TcpActive), Some(StreamChoice::Sub))
        );
        let all = parse(&format!("gb28181://{DEVICE}/*?transport=udp"));
        assert_eq!((all.channel, all.transport), (Channel::All, Some(MediaTransport::Udp)));
        let one = all.with_channel(CHANNEL.parse().unwrap());
        assert_eq!(one, parse(&format!("gb28181://{DEVICE}/{CHANNEL}?transport=udp")));
    }

    #[test]
    fn a_password_may_hold_what_separates_elsewhere() {
        for (written, password) in [
            ("a@b/c?d&e:f", "a@b/c?d&e:f"),
            ("100%", "100%"),
            ("%e4%bd%a0", "\u{4f60}"),
            (":", ":"),
        ] {
            assert_eq!(
                parse(&format!("gb28181://:{written}@{DEVICE}")).password.as_deref(),
                Some(password)
            );
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        let text = format!("gb28181://:geheim@{DEVICE}/{CHANNEL}?stream=main");
        let url = parse(&text);
        let shown = format!("gb28181://{DEVICE}/{CHANNEL}?stream=main");
        assert_eq!((url.to_string(), format!("{url:?}")), (shown.clone(), shown.clone()));
        assert_eq!(parse(&shown).password, None);
    }

    #[test]
    fn mistakes_are_named() {
        use Gb28181UrlError as E;
        for (text, error) in [
            (format!("rtsp://{DEVICE}"), E::Scheme),
            (DEVICE.to_owned(), E::Scheme),
            ("gb28181://".to_owned(), E::Device(DeviceIdError::Empty)),
            ("gb28181://192.168.1.2".to_owned(), E::Device(DeviceIdError::Character)),
            (format!("gb28181://admin:pw@{DEVICE}"), E::User),
            (format!("gb28181://:@{DEVICE}"), E::EmptyPassword),
            (format!("gb28181://:%ff@{DEVICE}"), E::Password),
            (format!("gb28181://:a%0d%0ab@{DEVICE}"), E::ControlCharacter),
            (format!("gb28181://{DEVICE}\n/1"), E::ControlCharacter),
            (format!("gb28181://{DEVICE}/**"), E::Channel(DeviceIdError::Character)),
            (format!("gb28181://{DEVICE}/{CHANNEL}/1"), E::Path),
            (format!("gb28181://{DEVICE}?transport=tcp"), E::Transport),
            (format!("gb28181://{DEVICE}?stream=2"), E::Stream),
            (format!("gb28181://{DEVICE}?stream"), E::Stream),
            (
                format!("gb28181://{DEVICE}?password=x"),
                E::QueryKey("password".to_owned()),
            ),
            (
                format!("gb28181://{DEVICE}?stream=sub&stream=sub"),
                E::Repeated("stream"),
            ),
            (format!("gb28181://{DEVICE}?{}", "a".repeat(URL_BYTES_MAX)), E::TooLong),
        ] {
            assert_eq!(Gb28181Url::parse(&text), Err(error), "{text}");
        }
    }
}
