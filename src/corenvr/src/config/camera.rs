//! One camera's settings: `[[camera]]` in either file, and the same as JSON.

use std::{path::PathBuf, time::Duration};

use corenvr_media::CameraName;
use corenvr_recorder::{CameraMode, TransportChoice};
use serde::{Deserialize, Serialize};

use super::{
    SourceUrl,
    reader::{Errors, Section, boolean, number, parsed, string},
    values::{Limit, Problem, duration, or_unlimited, show_duration, show_size_exact, size, within},
};

/// One camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraSettings {
    /// Its name, in paths and URLs.
    pub name: CameraName,
    /// Where its stream is.
    pub url: SourceUrl,
    /// How the media comes.
    pub transport: TransportChoice,
    /// Whether sound is recorded.
    pub audio: bool,
    /// Whether it is recorded.
    pub mode: CameraMode,
    /// The storage directory; `None`: the first one.
    pub storage: Option<PathBuf>,
    /// The shard that records it; `None`: chosen by its name.
    pub shard: Option<u16>,
    /// Its number in the playback URLs of other makers.
    pub channel: Option<u32>,
    /// Its own limit of age; `None` takes `[recording] retain`.
    pub retain: Option<Limit<Duration>>,
    /// Its own limit of size; `None` takes `[recording] retain_bytes`.
    pub retain_bytes: Option<Limit<u64>>,
}

/// The settings as JSON has them; values are written as in the configuration file. Absent ones have their default.
///
/// What [`CameraSettings::exposed`] gives holds the password and goes to the file of cameras and to nobody else.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraJson {
    /// Its name.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// `auto`, `tcp` or `udp`.
    #[serde(default)]
    pub transport: TransportChoice,
    /// Whether sound is recorded.
    #[serde(default = "yes")]
    pub audio: bool,
    /// `continuous` or `off`.
    #[serde(default)]
    pub mode: CameraMode,
    /// A storage directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<PathBuf>,
    /// A shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<u16>,
    /// A number, from 1 to 9999, that no other camera has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<u32>,
    /// A duration or `unlimited`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<String>,
    /// A size or `unlimited`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_bytes: Option<String>,
}

const fn yes() -> bool {
    true
}

impl CameraSettings {
    /// A camera with the default settings.
    pub const fn new(name: CameraName, url: SourceUrl) -> Self {
        Self {
            name,
            url,
            transport: TransportChoice::Auto,
            audio: true,
            mode: CameraMode::Continuous,
            storage: None,
            shard: None,
            channel: None,
            retain: None,
            retain_bytes: None,
        }
    }

    /// The settings as JSON, without the password.
    pub fn to_json(&self) -> CameraJson {
        self.json_with_url(self.url.to_string())
    }

    /// The settings as JSON, password included.
    pub fn exposed(&self) -> CameraJson {
        self.json_with_url(self.url.expose().to_owned())
    }

    fn json_with_url(&self, url: String) -> CameraJson {
        CameraJson {
            name: self.name.to_string(),
            url,
            transport: self.transport,
            audio: self.audio,
            mode: self.mode,
            storage: self.storage.clone(),
            shard: self.shard,
            channel: self.channel,
            retain: self.retain.map(|limit| limit.show(show_duration)),
            retain_bytes: self.retain_bytes.map(|limit| limit.show(show_size_exact)),
        }
    }

    /// The settings as a `[[camera]]` table, password included; keys that have their default are left out.
    pub fn to_toml(&self) -> toml_edit::Table {
        let json = self.exposed();
        let mut table = toml_edit::Table::new();
        let mut set = |key: &str, value: toml_edit::Value| drop(table.insert(key, toml_edit::Item::Value(value)));
        set("name", json.name.into());
        set("url", json.url.into());
        if json.transport != TransportChoice::default() {
            set("transport", word(&TRANSPORTS, &json.transport).into());
        }
        if !json.audio {
            set("audio", false.into());
        }
        if json.mode != CameraMode::default() {
            set("mode", word(&MODES, &json.mode).into());
        }
        if let Some(path) = json.storage {
            set("storage", path.to_string_lossy().into_owned().into());
        }
        if let Some(shard) = json.shard {
            set("shard", i64::from(shard).into());
        }
        if let Some(channel) = json.channel {
            set("channel", i64::from(channel).into());
        }
        if let Some(limit) = json.retain {
            set("retain", limit.into());
        }
        if let Some(limit) = json.retain_bytes {
            set("retain_bytes", limit.into());
        }
        table
    }
}

impl TryFrom<CameraJson> for CameraSettings {
    type Error = Vec<(&'static str, Problem)>;

    /// Every mistake at once, with its key.
    fn try_from(json: CameraJson) -> Result<Self, Self::Error> {
        let mut problems = Vec::new();
        let mut keep = |key, result: Result<(), Problem>| problems.extend(result.err().map(|p| (key, p)));
        let name = camera_name(&json.name);
        let url = source_url(&json.url);
        let age = json.retain.as_deref().map(retain).transpose();
        let bytes = json.retain_bytes.as_deref().map(retain_bytes).transpose();
        keep("name", name.as_ref().map(drop).map_err(Clone::clone));
        keep("url", url.as_ref().map(drop).map_err(Clone::clone));
        keep(
            "channel",
            json.channel.map_or(Ok(()), |n| channel(u64::from(n)).map(drop)),
        );
        keep("retain", age.as_ref().map(drop).map_err(Clone::clone));
        keep("retain_bytes", bytes.as_ref().map(drop).map_err(Clone::clone));
        match (name, url, age, bytes) {
            (Ok(name), Ok(url), Ok(retain), Ok(retain_bytes)) if problems.is_empty() => Ok(Self {
                transport: json.transport,
                audio: json.audio,
                mode: json.mode,
                storage: json.storage,
                shard: json.shard,
                channel: json.channel,
                retain,
                retain_bytes,
                ..Self::new(name, url)
            }),
            _ => Err(problems),
        }
    }
}

/// Shortest age limit: one below the segment length would delete what has just been sealed.
const RETAIN_MIN: Duration = Duration::from_secs(60);
/// Longest age limit; more is the same as no limit.
const RETAIN_MAX: Duration = Duration::from_secs(3650 * 86_400);
/// Smallest size limit.
const RETAIN_BYTES_MIN: u64 = 1 << 20;

/// The words for the transports.
pub const TRANSPORTS: [(&str, TransportChoice); 3] = [
    ("auto", TransportChoice::Auto),
    ("tcp", TransportChoice::Tcp),
    ("udp", TransportChoice::Udp),
];
/// The words for the modes.
pub const MODES: [(&str, CameraMode); 2] = [("continuous", CameraMode::Continuous), ("off", CameraMode::Off)];

/// Highest channel number: Hikvision's URLs put two digits for the stream behind it.
const CHANNEL_MAX: u64 = 9999;

fn channel(number: u64) -> Result<u32, Problem> {
    match u32::try_from(number) {
        Ok(n) if (1..=CHANNEL_MAX).contains(&number) => Ok(n),
        _ => Err(Problem::new(
            format!("{number} is no channel number"),
            format!("use one from 1 to {CHANNEL_MAX}"),
        )),
    }
}

fn camera_name(text: &str) -> Result<CameraName, Problem> {
    CameraName::new(text).map_err(|p| Problem::new(p.to_string(), "choose one such as front-door"))
}

/// How a camera URL of the kind that was meant is written.
pub fn url_remedy(error: &corenvr_recorder::SourceError) -> &'static str {
    use corenvr_recorder::SourceError as E;
    match error {
        E::Gb28181(_) => "write gb28181://DEVICE_ID, gb28181://DEVICE_ID/CHANNEL_ID or gb28181://DEVICE_ID/*",
        E::Rtmp(_) => "write rtmp://host/app/stream",
        E::StreamKey(_) => "write rtmp+listen://KEY",
        E::Unsupported { .. } | E::Scheme | E::Url(_) => "write rtsp://user:password@host:554/path",
    }
}

fn source_url(text: &str) -> Result<SourceUrl, Problem> {
    text.parse()
        .map_err(|p: corenvr_recorder::SourceError| Problem::new(p.to_string(), url_remedy(&p)))
}

/// Reads an age limit.
pub fn retain(text: &str) -> Result<Limit<Duration>, Problem> {
    or_unlimited(text, |t| within(duration(t)?, RETAIN_MIN, RETAIN_MAX, show_duration))
}

/// Reads a limit of bytes.
pub fn retain_bytes(text: &str) -> Result<Limit<u64>, Problem> {
    or_unlimited(text, |t| within(size(t)?, RETAIN_BYTES_MIN, u64::MAX, show_size_exact))
}

/// The word for a choice.
pub fn word<T: PartialEq>(words: &[(&'static str, T)], choice: &T) -> &'static str {
    words.iter().find(|(_, t)| t == choice).map_or("", |(word, _)| word)
}

/// The choice that a word names.
pub fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Problem> {
    words
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, t)| *t)
        .ok_or_else(|| {
            let list: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            Problem::new(
                format!("{text:?} is not a choice here"),
                format!("use {}", list.join(" or ")),
            )
        })
}

/// Reads one `[[camera]]`; `None` if a mistake was noted.
pub(super) fn read(section: Section<'_>, errors: &mut Errors<'_>) -> Option<CameraSettings> {
    let before = errors.count();
    let label = section.peek_str("name").unwrap_or("?").to_owned();
    let mut section = section.of_one_camera(format!("[[camera]] {label}:"));
    for key in ["name", "url"] {
        if !section.has(key) {
            section.missing(key, "every camera needs a name and a url", errors);
        }
    }
    let e = &mut *errors;
    let name = section.take("name", e, |v| parsed(v, camera_name));
    let url = section.take("url", e, |v| parsed(v, source_url));
    let transport = section.take("transport", e, |v| parsed(v, |t| one_of(t, &TRANSPORTS)));
    let audio = section.take("audio", e, boolean);
    let mode = section.take("mode", e, |v| parsed(v, |t| one_of(t, &MODES)));
    let storage = section.take("storage", e, string).map(PathBuf::from);
    let shard = section.take("shard", e, |v| {
        u16::try_from(number(v)?).map_err(|_| Problem::new("is too large", "write the index of a shard, from 0"))
    });
    let channel = section.take("channel", e, |v| channel(number(v)?));
    let retain = section.take("retain", e, |v| parsed(v, retain));
    let retain_bytes = section.take("retain_bytes", e, |v| parsed(v, retain_bytes));
    section.finish(errors);
    if errors.count() > before {
        return None;
    }
    Some(CameraSettings {
        transport: transport.unwrap_or_default(),
        audio: audio.unwrap_or(true),
        mode: mode.unwrap_or_default(),
        storage,
        shard,
        channel,
        retain,
        retain_bytes,
        ..CameraSettings::new(name?, url?)
    })
}
