//! The GB28181 part of the running recorder: the SIP server, who may register, and the cameras that follow a device's catalog.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, Write as _},
    net::{SocketAddr, UdpSocket},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    rc::Rc,
};

use corenvr_media::{CameraName, WallTime};
use corenvr_proto::gb28181::{
    id::DeviceId,
    manscdp::Alarm,
    platform::{Accounts, PlatformConfig},
    url::{Channel, Gb28181Url},
};
use corenvr_recorder::{
    Gb28181Links, Source,
    gb28181::{Notice, Server, ServerConfig, ServerError, Signalling, SignallingInbox, signalling},
};
use corenvr_shard::{Class, Task, channel, spawn};
use corenvr_store::events::Event;
use jiff::tz::TimeZone;

use super::appliance::{Appliance, Book, Derived};
use crate::{
    admin::{
        api::{DevicesView, LeftOut, SetupView},
        zone,
    },
    config::{CAMERAS_MAX, CameraSettings, Config, Gb28181, PASSWORD_CHARS_GOOD, SourceUrl},
};

/// What devices report that waits to be taken up.
const NOTICES_MAX: usize = 4096;
/// Characters of a password made at random: every one of them is easy to tell from the others and to type.
const PASSWORD_ALPHABET: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";
const PASSWORD_CHARS: usize = 12;

/// The way from the shards to the server, made before either runs.
pub struct Wires {
    signalling: Signalling,
    inbox: SignallingInbox,
    media_ports: (u16, u16),
}

/// The running SIP server.
pub struct Devices {
    /// It.
    pub server: Rc<Server>,
    settings: Gb28181,
    password: String,
}

/// The platform's own password could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}. Remedy: make it readable and writable for the service's user, or set [gb28181] password", path.display())]
pub struct PasswordError {
    path: PathBuf,
    source: io::Error,
}

impl Wires {
    /// Where devices are to be met, if they are.
    pub fn new(settings: &Gb28181) -> Option<Self> {
        settings.enabled.then(|| {
            let (signalling, inbox) = signalling();
            Self {
                signalling,
                inbox,
                media_ports: settings.media_ports,
            }
        })
    }

    /// The shards' end.
    pub fn links(&self) -> Gb28181Links {
        Gb28181Links {
            signalling: self.signalling.clone(),
            media_ports: self.media_ports,
        }
    }
}

impl Devices {
    /// Starts the server. What happens is told on the channel.
    pub fn start(
        config: &Config,
        password: String,
        wires: Wires,
    ) -> Result<(Self, channel::Receiver<Notice>), ServerError> {
        let settings = config.gb28181.clone();
        let platform = PlatformConfig {
            id: settings.id,
            domain: settings.domain.clone(),
            announce: settings.announce_ip,
            send_date: settings.send_date,
            utc_offset_s: settings.utc_offset_s,
            unknown: settings.unknown_devices,
            password: Some(password.clone()),
        };
        let server = ServerConfig {
            listen: settings.listen.clone(),
            platform,
            state_file: config.server.state_dir.join("gb28181.json"),
        };
        let (notices, inbox) = channel::bounded_named("gb28181-notices", NOTICES_MAX);
        let server = Server::start(server, wires.inbox, notices)?;
        let devices = Self {
            server,
            settings,
            password,
        };
        Ok((devices, inbox))
    }

    /// Devices in numbers.
    pub fn summary(&self) -> DevicesView {
        let devices = self.server.devices();
        let online = devices.iter().filter(|d| d.online).count();
        DevicesView {
            listening: self.server.listening().to_vec(),
            online,
            offline: devices.len() - online,
            refused: self.server.refused().len(),
        }
    }

    /// What to type into a camera's own page.
    pub fn setup(&self) -> SetupView {
        let port = self.server.listening().first().map_or(5060, SocketAddr::port);
        SetupView {
            server_ip: self.settings.announce_ip.map_or_else(own_address, |ip| ip.to_string()),
            server_port: port,
            server_id: self.settings.id.to_string(),
            domain: self.settings.domain.clone(),
            password: self.password.clone(),
            keepalive_s: 60,
            expires_s: 3600,
            media_ports: format!("{}-{}", self.settings.media_ports.0, self.settings.media_ports.1),
        }
    }
}

/// The address that packets to the rest of the world leave from. Nothing is sent.
fn own_address() -> String {
    let asked = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    asked.map_or_else(|_| "the address of this machine".into(), |a| a.ip().to_string())
}

/// The password of the configuration, or the one of this machine, which is made at the first start.
pub fn password(config: &Config) -> Result<String, PasswordError> {
    if let Some(own) = &config.gb28181.password {
        if own.len() < PASSWORD_CHARS_GOOD {
            tracing::warn!(
                "[gb28181] password has fewer than {PASSWORD_CHARS_GOOD} characters: whoever guesses it can register as a device"
            );
        }
        return Ok(own.clone());
    }
    let path = config.server.state_dir.join("gb28181-password");
    let failed = |source| PasswordError {
        path: path.clone(),
        source,
    };
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    let made: String = (0..PASSWORD_CHARS)
        .map(|_| char::from(PASSWORD_ALPHABET[rand::random_range(0..PASSWORD_ALPHABET.len())]))
        .collect();
    keep_password(&path, &made).map_err(failed)?;
    tracing::info!(file = %path.display(), "made a password for GB28181 devices; `corenvr gb28181 setup` shows it");
    Ok(made)
}

fn keep_password(path: &Path, password: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{password}")?;
    file.sync_all()
}

/// The GB28181 URL of a camera, if it has one.
pub fn device_url(settings: &CameraSettings) -> Option<&Gb28181Url> {
    match settings.url.source() {
        Source::Gb28181(url) => Some(url),
        _ => None,
    }
}

/// Whether a camera stands for every channel of a device.
pub fn follows_catalog(settings: &CameraSettings) -> bool {
    device_url(settings).is_some_and(|url| url.channel == Channel::All)
}

/// Who may register: every device that a camera names, with its own password if one of its cameras has one.
fn accounts(book: &Book) -> Accounts {
    let mut accounts: HashMap<DeviceId, Option<String>> = HashMap::new();
    for url in book.cameras().filter_map(device_url) {
        let entry = accounts.entry(url.device).or_default();
        if entry.is_none() {
            entry.clone_from(&url.password);
        }
    }
    accounts
}

/// The cameras of a device's channels: named by the camera that stands for all of them, and the channel.
fn derive(parent: &CameraSettings, url: &Gb28181Url, channels: &[DeviceId]) -> (Vec<Derived>, Vec<LeftOut>) {
    let (mut derived, mut left_out) = (Vec::new(), Vec::new());
    for &channel in channels {
        let name = format!("{}-{}", parent.name, channel.as_str().to_ascii_lowercase());
        match CameraName::new(&name) {
            Ok(name) => {
                let mut settings = parent.clone();
                settings.name = name;
                settings.channel = None;
                settings.url = SourceUrl::from(Source::Gb28181(Box::new(url.with_channel(channel))));
                derived.push(Derived {
                    settings,
                    of: parent.name.clone(),
                });
            }
            Err(error) => left_out.push(LeftOut {
                message: format!(
                    "[[camera]] {}: channel {channel} makes the name {name}: {error}. Remedy: choose a shorter name for the camera",
                    parent.name
                ),
            }),
        }
    }
    (derived, left_out)
}

impl Book {
    /// The channels that are cameras of a camera that stands for all of a device.
    fn channels_of(&self, parent: &CameraName) -> impl Iterator<Item = DeviceId> {
        let derived = self.derived.iter().filter(move |d| d.of == *parent);
        derived.filter_map(|d| match device_url(&d.settings)?.channel {
            Channel::One(channel) => Some(channel),
            Channel::All | Channel::Device => None,
        })
    }
}

impl Appliance {
    /// Lets in the devices that cameras name.
    pub fn set_accounts(&self) {
        if let Some(devices) = self.devices.get() {
            devices.server.set_accounts(accounts(&self.book.borrow()));
        }
    }

    /// Makes the cameras of catalogs anew from what the devices have told. Nothing is started or stopped by it.
    pub fn derive_cameras(&self) {
        let Some(devices) = self.devices.get() else { return };
        let mut book = self.book.borrow_mut();
        let parents: Vec<CameraSettings> = book.cameras().filter(|c| follows_catalog(c)).cloned().collect();
        let mut taken: HashSet<CameraName> = book.cameras().map(|c| c.name.clone()).collect();
        let mut all: Vec<Derived> = Vec::new();
        let mut all_left_out = Vec::new();
        for parent in &parents {
            let Some(url) = device_url(parent) else { continue };
            let channels: Vec<DeviceId> = match devices.server.cameras(url.device) {
                Some(cameras) => cameras.into_iter().map(|(id, _)| id).collect(),
                // Its catalog is not known now; what it was before still holds.
                None => book.channels_of(&parent.name).collect(),
            };
            let room = CAMERAS_MAX.saturating_sub(taken.len());
            let (derived, left_out) = derive(parent, url, &channels[..channels.len().min(room)]);
            all_left_out.extend(left_out);
            for camera in derived {
                let name = &camera.settings.name;
                if taken.insert(name.clone()) {
                    all.push(camera);
                    continue;
                }
                all_left_out.push(LeftOut {
                    message: format!(
                        "[[camera]] {}: a channel of it would be {name}, and there is a camera of that name. \
                        Remedy: name one of them otherwise",
                        parent.name
                    ),
                });
            }
            if channels.len() > room {
                all_left_out.push(LeftOut {
                    message: format!(
                        "[[camera]] {}: {} of {} channels are more than {CAMERAS_MAX} cameras. Remedy: use a second recorder",
                        parent.name,
                        channels.len() - room,
                        channels.len()
                    ),
                });
            }
        }
        for entry in all_left_out.iter().filter(|e| !book.left_out_channels.contains(e)) {
            tracing::error!("{}", entry.message);
        }
        book.left_out_channels = all_left_out;
        book.derived = all;
    }

    /// A device's channels have changed: its cameras follow.
    async fn follow_catalog(&self, device: DeviceId) {
        let follows =
            |c: &CameraSettings| device_url(c).is_some_and(|u| u.channel == Channel::All && u.device == device);
        if !self.book.borrow().cameras().any(follows) {
            return;
        }
        let _guard = self.changing.lock().await;
        let before = self.recorded();
        self.derive_cameras();
        let done = self.apply_difference(&before).await;
        self.set_rules();
        if done.removed + done.changed > 0 {
            tracing::info!(%device, added_or_changed = done.changed, removed = done.removed, "cameras follow the catalog");
        }
    }
}

impl Appliance {
    /// The cameras that an alarm is about: those of its channel, or all of the device where no camera is of that channel (an alarm
    /// input, a disk).
    fn cameras_of(&self, device: DeviceId, source: Option<DeviceId>) -> Vec<CameraName> {
        let Some(devices) = self.devices.get() else {
            return Vec::new();
        };
        let book = self.book.borrow();
        let all: Vec<(&CameraName, Option<DeviceId>)> = book
            .recorded()
            .filter_map(|c| Some((&c.name, device_url(c)?)))
            .filter(|(_, url)| url.device == device)
            .map(|(name, url)| (name, devices.server.channel_of(url).ok()))
            .collect();
        let own: Vec<_> = all
            .iter()
            .filter(|(_, channel)| channel.is_some() && *channel == source)
            .collect();
        let chosen = if own.is_empty() { all.iter().collect() } else { own };
        chosen.into_iter().map(|(name, _)| (*name).clone()).collect()
    }

    /// Keeps an alarm on the timelines of the cameras that it is about.
    async fn note_alarm(&self, device: DeviceId, source: Option<DeviceId>, alarm: &Alarm) {
        let now = WallTime::from_micros(corenvr_shard::time::wall_now_micros());
        let offset_s = self.book.borrow().config.gb28181.utc_offset_s;
        let event = event_of(device, source, alarm, &zone(offset_s), now);
        let cameras = self.cameras_of(device, source);
        if cameras.is_empty() {
            tracing::warn!(%device, text = event.text, "an alarm of a device that no camera names");
        }
        for camera in cameras {
            tracing::warn!(%camera, text = event.text, "alarm");
            let settings = self.book.borrow().camera(&camera).map(|(settings, _)| settings.clone());
            let storage = settings
                .and_then(|s| self.recorder_config(&s).ok())
                .map_or(0, |c| c.storage);
            let Some(storage) = self.storages.get(storage) else {
                continue;
            };
            let (name, event) = (camera.clone(), event.clone());
            let kept = storage.archive.call(move |a| a.add_event(&name, &event, now)).await;
            let failed = match kept {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            tracing::error!(%camera, error = failed, "the alarm cannot be kept");
        }
    }
}

/// An alarm as it is kept: when the device says it was, and what.
fn event_of(device: DeviceId, source: Option<DeviceId>, alarm: &Alarm, zone: &TimeZone, now: WallTime) -> Event {
    let method = match alarm.method {
        Some(1) => "by telephone",
        Some(2) => "device",
        Some(3) => "by text message",
        Some(4) => "position",
        Some(5) => "video",
        Some(6) => "device fault",
        _ => "other",
    };
    let kind = match (alarm.method, alarm.alarm_type) {
        (Some(2), Some(1)) => ": picture lost",
        (Some(2), Some(2)) => ": tampering",
        (Some(2), Some(3)) => ": disk full",
        (Some(2), Some(4)) => ": too hot",
        (Some(2), Some(5)) => ": too cold",
        (Some(5), Some(1)) => ": watched by a person",
        (Some(5), Some(2)) => ": motion",
        (Some(5), Some(3)) => ": left object",
        (Some(5), Some(4)) => ": removed object",
        (Some(5), Some(5)) => ": line crossed",
        (Some(5), Some(6)) => ": intrusion",
        _ => "",
    };
    let said = if alarm.description.is_empty() {
        String::new()
    } else {
        format!(" ({})", alarm.description)
    };
    let time = alarm.time.and_then(|t| t.to_utc(zone)).unwrap_or(now);
    let detail = serde_json::json!({
        "device": device,
        "about": source,
        "priority": alarm.priority,
        "method": alarm.method,
        "type": alarm.alarm_type,
        "event": alarm.event_type,
    });
    Event::new(time, "alarm", "gb28181", format!("{method}{kind}{said}")).with_detail(detail)
}

/// Takes up what devices report.
pub fn follow(appliance: Rc<Appliance>, mut notices: channel::Receiver<Notice>) -> Task<()> {
    spawn(Class::Live, "gb28181 devices", async move {
        while let Some(notice) = notices.recv().await {
            match notice {
                Notice::CatalogChanged(device) => appliance.follow_catalog(device).await,
                Notice::Alarm { device, source, alarm } => appliance.note_alarm(device, source, &alarm).await,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(name: &str, url: &str) -> CameraSettings {
        CameraSettings::new(CameraName::new(name).unwrap(), url.parse().unwrap())
    }

    #[test]
    fn each_channel_is_a_camera_named_by_device_and_channel() {
        let parent = camera("yard", "gb28181://:secret12@34020000001180000001/*?transport=udp");
        let url = device_url(&parent).unwrap();
        let channels = ["34020000001320000001", "34020000001320000002"].map(|c| DeviceId::parse(c).unwrap());
        let (derived, left_out) = derive(&parent, url, &channels);
        assert!(left_out.is_empty());
        let first = &derived[0].settings;
        assert_eq!(first.name.as_str(), "yard-34020000001320000001");
        let own = device_url(first).unwrap();
        assert_eq!(own.channel, Channel::One(channels[0]));
        assert_eq!(
            (own.transport, own.password.as_deref()),
            (url.transport, Some("secret12"))
        );
        assert!(!follows_catalog(first) && follows_catalog(&parent));
        assert!(!format!("{}", first.url).contains("secret12"));
        let long = camera(&"x".repeat(60), "gb28181://34020000001180000001/*");
        let (derived, left_out) = derive(&long, device_url(&long).unwrap(), &channels);
        assert!(derived.is_empty() && left_out[0].message.contains("shorter"));
    }

    #[test]
    fn the_password_is_made_once_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.server.state_dir = dir.path().to_owned();
        let made = password(&config).unwrap();
        assert_eq!((made.len(), password(&config).unwrap()), (PASSWORD_CHARS, made.clone()));
        let mode = fs::metadata(dir.path().join("gb28181-password"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        config.gb28181.password = Some("configured-one".into());
        assert_eq!(password(&config).unwrap(), "configured-one");
    }
}
