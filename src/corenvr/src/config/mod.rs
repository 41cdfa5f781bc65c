//! The configuration: what can be set, its defaults, and reading it from the administrator's file and from the file of
//! cameras that were added at run time. Nothing in here acts on it.

mod camera;
mod cameras_file;
mod gb28181;
mod load;
mod network;
mod reader;
mod source;
pub mod values;

use std::{
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use camera::{CameraJson, CameraSettings, MODES, TRANSPORTS, one_of, url_remedy, word};
pub use cameras_file::{CamerasFile, CamerasFileError};
pub use gb28181::{Gb28181, PASSWORD_CHARS_GOOD};
pub use load::{
    LoadError, Loaded, load, load_alone, load_server, wrong_channel, wrong_shard, wrong_source, wrong_storage,
};
pub use network::Service;
pub use reader::ConfigError;
pub use source::SourceUrl;

/// Where the configuration is read from unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/corenvr/corenvr.toml";

/// Most cameras over both files; more are refused by name.
pub const CAMERAS_MAX: usize = 4096;
/// Most storage directories.
pub const STORAGE_MAX: usize = 64;
/// Most addresses one server listens on.
pub const LISTEN_MAX: usize = 16;

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[shards] cpus`
    pub cpus: Cpus,
    /// `[auth] anonymous`
    pub anonymous: Anonymous,
    /// `[rtsp]`
    pub rtsp: Service,
    /// `[http]`
    pub http: Service,
    /// `[rtmp]`
    pub rtmp: Rtmp,
    /// `[gb28181]`
    pub gb28181: Gb28181,
    /// `[[storage]]`
    pub storage: Vec<Storage>,
    /// `[recording]`
    pub recording: Recording,
    /// `[[camera]]`, of this file only.
    pub cameras: Vec<CameraSettings>,
}

/// Directories that are not recordings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Cameras that were added at run time.
    pub state_dir: PathBuf,
    /// The control socket.
    pub run_dir: PathBuf,
}

/// Which CPUs carry shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cpus {
    /// Every CPU this process may run on.
    All,
    /// These.
    List(Vec<usize>),
}

/// What may be watched without a login.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anonymous {
    /// What happens now.
    pub live: bool,
    /// Recordings.
    pub playback: bool,
}

/// Where cameras and encoders push their streams to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rtmp {
    /// Whether anybody can. A section without this key says yes.
    pub enabled: bool,
    /// Addresses with ports.
    pub listen: Vec<SocketAddr>,
}

/// A directory that holds recordings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// The directory.
    pub path: PathBuf,
    /// Bytes of its file system that stay free: the oldest recordings go.
    pub keep_free: u64,
    /// Most bytes of recordings in it; `None` does not limit.
    pub max: Option<u64>,
    /// Refused unless a disk is mounted there.
    pub require_mount: bool,
}

/// How cameras are recorded unless their own settings say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Length of a file.
    pub segment: Duration,
    /// How much of the newest footage a crash may cost.
    pub sync: Duration,
    /// Older recordings are deleted; `None` keeps them.
    pub retain: Option<Duration>,
    /// More than this of one camera is deleted, oldest first; `None` does not limit.
    pub retain_bytes: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: Server::default(),
            cpus: Cpus::All,
            anonymous: Anonymous::default(),
            rtsp: Service::on_port(8554),
            http: Service::on_port(8080),
            rtmp: Rtmp::default(),
            gb28181: Gb28181::default(),
            storage: vec![Storage::at("/var/lib/corenvr/recordings".into())],
            recording: Recording::default(),
            cameras: Vec::new(),
        }
    }
}

impl Default for Rtmp {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, corenvr_proto::rtmp::PORT))],
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/corenvr".into(),
            run_dir: "/run/corenvr".into(),
        }
    }
}

impl Default for Recording {
    fn default() -> Self {
        Self {
            segment: Duration::from_secs(300),
            sync: Duration::from_secs(2),
            retain: Some(Duration::from_secs(30 * 86_400)),
            retain_bytes: None,
        }
    }
}

impl Storage {
    /// A directory with the default limits.
    pub const fn at(path: PathBuf) -> Self {
        Self {
            path,
            keep_free: 10 << 30,
            max: None,
            require_mount: false,
        }
    }
}

impl Server {
    /// Where the daemon and the command line meet.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("corenvr.sock")
    }

    /// The file of cameras that were added at run time.
    pub fn cameras_file(&self) -> PathBuf {
        self.state_dir.join("cameras.toml")
    }
}

#[cfg(test)]
pub use load::load_text;

#[cfg(test)]
mod tests;
