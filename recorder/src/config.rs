//! What an operator sets of a camera and of the recorder, already validated; reading it from a file is the appliance's work.

use std::{fmt, str::FromStr, time::Duration};

use corenvr_media::CameraName;
use corenvr_proto::{
    gb28181::{Gb28181Url, Gb28181UrlError},
    rtmp::{RtmpUrl, RtmpUrlError, StreamKey, StreamKeyError},
    rtsp::url,
};
use serde::{Deserialize, Serialize};

/// Where a camera's stream comes from. Its text forms never show a password.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// We connect to the camera: `rtsp://[user:password@]host[:port]/path`.
    Rtsp(Box<url::CameraUrl>),
    /// A device registers with us, and we ask it for a channel: `gb28181://[:password@]DEVICE[/CHANNEL]`.
    Gb28181(Box<Gb28181Url>),
    /// We pull a stream: `rtmp://host/app/stream`.
    Rtmp(Box<RtmpUrl>),
    /// An encoder pushes its stream to us: `rtmp+listen://KEY`.
    RtmpListen(StreamKey),
}

/// A text is not a camera URL that can be recorded from. The text itself is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The scheme is known, and this version cannot record from it.
    #[error("{scheme}:// cameras are not supported by this version: use the camera's rtsp:// URL")]
    Unsupported {
        /// The scheme, in lower case.
        scheme: &'static str,
    },
    /// It does not name a protocol at all.
    #[error(
        "the URL must start with rtsp://, rtmp://, rtmp+listen:// or gb28181://, as in rtsp://user:password@192.0.2.10:554/stream1"
    )]
    Scheme,
    /// The rest of an RTSP URL is wrong.
    #[error(transparent)]
    Url(#[from] url::UrlError),
    /// The rest of a GB28181 URL is wrong.
    #[error(transparent)]
    Gb28181(#[from] Gb28181UrlError),
    /// The rest of an RTMP URL is wrong.
    #[error(transparent)]
    Rtmp(#[from] RtmpUrlError),
    /// The stream key is wrong.
    #[error(transparent)]
    StreamKey(#[from] StreamKeyError),
}

/// Schemes that people may expect to work.
const LATER_SCHEMES: [&str; 2] = ["rtsps", "rtmps"];

impl Source {
    /// Reads a camera URL.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let text = text.trim();
        let (scheme, _) = text.split_once("://").ok_or(SourceError::Scheme)?;
        if let Some(scheme) = LATER_SCHEMES.into_iter().find(|s| scheme.eq_ignore_ascii_case(s)) {
            return Err(SourceError::Unsupported { scheme });
        }
        match scheme.to_ascii_lowercase().as_str() {
            "gb28181" => Ok(Self::Gb28181(Box::new(Gb28181Url::parse(text)?))),
            "rtmp" => Ok(Self::Rtmp(Box::new(RtmpUrl::parse(text)?))),
            "rtmp+listen" => Ok(Self::RtmpListen(StreamKey::parse_url(text)?)),
            scheme if scheme.starts_with("rtsp") => Ok(Self::Rtsp(Box::new(url::CameraUrl::parse(text)?))),
            _ => Err(SourceError::Scheme),
        }
    }
}

impl FromStr for Source {
    type Err = SourceError;
    fn from_str(text: &str) -> Result<Self, SourceError> {
        Self::parse(text)
    }
}

impl fmt::Display for Source {
    /// The URL as it may be shown: without the user part, and without what looks like a password in its query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rtsp(url) => fmt::Display::fmt(url, f),
            Self::Gb28181(url) => fmt::Display::fmt(url, f),
            Self::Rtmp(url) => fmt::Display::fmt(url, f),
            Self::RtmpListen(key) => fmt::Display::fmt(key, f),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

/// How RTP comes to us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportChoice {
    /// UDP first; TCP when UDP is refused or stays silent. What worked is tried first the next time.
    #[default]
    Auto,
    /// Interleaved in the RTSP connection.
    Tcp,
    /// Datagrams to a pair of our ports.
    Udp,
}

/// When a camera is recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CameraMode {
    /// Always.
    #[default]
    Continuous,
    /// Never: no connection is made. What was recorded stays and ages as any other footage.
    Off,
}

/// The settings of one camera. Equal settings mean that a running camera need not be touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraConfig {
    /// Its name.
    pub name: CameraName,
    /// Where its stream comes from.
    pub source: Source,
    /// How RTP comes to us.
    pub transport: TransportChoice,
    /// Whether its sound is recorded, where it has any.
    pub audio: bool,
    /// Index of the storage directory, in the list given to [`crate::run_shard`].
    pub storage: usize,
    /// When it is recorded.
    pub mode: CameraMode,
    /// The shard that owns it, where an operator wants to decide; taken modulo the number of shards.
    pub shard: Option<u16>,
}

impl CameraConfig {
    /// A camera with every setting at its default.
    pub fn new(name: CameraName, source: Source) -> Self {
        Self {
            name,
            source,
            transport: TransportChoice::Auto,
            audio: true,
            storage: 0,
            mode: CameraMode::Continuous,
            shard: None,
        }
    }
}

/// Settings that hold for every camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecorderConfig {
    /// A new segment starts at the first key frame after this time. Clamped to 1 s .. 1 h.
    pub segment: Duration,
    /// Frames are durable on disk at most this long after they came. Clamped to 500 ms .. 60 s.
    pub sync: Duration,
    /// A camera that sends no frame for this long is dead, and is connected anew.
    pub silence: Duration,
    /// How long connecting may take.
    pub connect: Duration,
    /// With [`TransportChoice::Auto`]: how long UDP may stay silent before TCP is tried.
    pub udp_silence: Duration,
    /// The first and the longest pause between attempts to connect.
    pub backoff: (Duration, Duration),
    /// The pause after a camera refused our user or password: many lock an account after a few attempts.
    pub auth_pause: Duration,
    /// Frame bytes of one camera that may wait for its disk. Beyond, the frames that come are dropped up
    /// to the next key frame for which there is room, and the gap is recorded with cause `disk`. At least 4 MiB.
    pub queue_bytes: usize,
    /// The same for all cameras of one shard together.
    pub queue_bytes_shard: usize,
}

impl Default for RecorderConfig {
    fn default() -> Self {
        Self {
            segment: Duration::from_secs(300),
            sync: Duration::from_secs(2),
            silence: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            udp_silence: Duration::from_secs(5),
            backoff: (Duration::from_secs(1), Duration::from_secs(60)),
            auth_pause: Duration::from_secs(300),
            queue_bytes: 32 << 20,
            queue_bytes_shard: 1 << 30,
        }
    }
}

impl RecorderConfig {
    /// The settings with every value inside its range.
    pub fn clamped(mut self) -> Self {
        self.segment = self.segment.clamp(Duration::from_secs(1), Duration::from_secs(3600));
        self.sync = self.sync.clamp(Duration::from_millis(500), Duration::from_secs(60));
        self.queue_bytes = self.queue_bytes.max(4 << 20);
        self.backoff.1 = self.backoff.1.max(self.backoff.0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_says_what_it_cannot_do_and_never_shows_a_password() {
        for url in [
            "rtsp://admin:s3cret@192.0.2.7/Streaming/Channels/101",
            "rtsp://192.0.2.7/live?user=admin&password=s3cret",
        ] {
            let source = Source::parse(url).unwrap();
            for text in [source.to_string(), format!("{source:?}")] {
                assert!(text.contains("192.0.2.7") && !text.contains("s3cret"), "{text}");
            }
        }
        for (text, secret) in [
            ("gb28181://:s3cretpw@34020000001320000001/*", "s3cret"),
            ("rtmp://admin:s3cret@192.0.2.7/live/a", "s3cret"),
            ("rtmp+listen://s3cretkey", "s3cret"),
        ] {
            let shown = format!("{0} {0:?}", Source::parse(text).unwrap());
            assert!(!shown.contains(secret), "{shown}");
        }
        for (text, scheme) in [("rtsps://192.0.2.7/a", "rtsps"), ("RTMPS://192.0.2.7/a", "rtmps")] {
            assert_eq!(Source::parse(text), Err(SourceError::Unsupported { scheme }));
        }
        assert!(matches!(
            Source::parse("rtmp+listen://k k"),
            Err(SourceError::StreamKey(_))
        ));
        assert!(matches!(Source::parse("gb28181://"), Err(SourceError::Gb28181(_))));
        assert_eq!(Source::parse("192.0.2.7/a"), Err(SourceError::Scheme));
        assert_eq!(Source::parse("http://192.0.2.7/a"), Err(SourceError::Scheme));
        assert!(matches!(Source::parse("rtsp:///a"), Err(SourceError::Url(_))));
    }
}
