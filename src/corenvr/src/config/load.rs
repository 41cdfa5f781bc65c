//! Reading the configuration files into settings, with every mistake of both at once.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use corenvr_recorder::Source;

use super::{
    Anonymous, CAMERAS_MAX, CameraSettings, Config, ConfigError, Cpus, Gb28181, LISTEN_MAX, Recording, Rtmp,
    STORAGE_MAX, Server, Service, Storage, camera,
    camera::retain,
    camera::retain_bytes,
    reader::{Errors, Section, boolean, list, number, parse_root, parsed, string},
    values::{Limit, Problem, duration, or_unlimited, show_duration, size, within},
};

/// Largest configuration file that is read.
pub const FILE_BYTES_MAX: u64 = 8 << 20;

const SEGMENT_MIN: Duration = Duration::from_secs(1);
const SEGMENT_MAX: Duration = Duration::from_secs(3600);
const SYNC_MIN: Duration = Duration::from_millis(500);
const SYNC_MAX: Duration = Duration::from_secs(60);

/// What was read.
#[derive(Debug)]
pub struct Loaded {
    /// The settings, as far as they could be understood.
    pub config: Config,
    /// The cameras of the file of cameras.
    pub added: Vec<CameraSettings>,
    /// Every mistake.
    pub errors: Vec<ConfigError>,
}

/// A file could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file system refused.
    #[error("cannot read the configuration {}: {source}. Remedy: {}", path.display(), remedy_of(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not a text, or one that no configuration can be.
    #[error("{} is not a configuration: {reason}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What it is.
        reason: String,
    },
}

fn remedy_of(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "create it from the sample conf/corenvr.toml, or name another file with --config",
        io::ErrorKind::PermissionDenied => "run as the service's user or as root, or make the file readable",
        _ => "name another file with --config",
    }
}

impl Loaded {
    /// Mistakes that concern more than one camera: with these nothing can start.
    pub fn fatal(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter().filter(|e| !e.one_camera)
    }

    /// All cameras of both files.
    pub fn cameras(&self) -> impl Iterator<Item = &CameraSettings> {
        self.config.cameras.iter().chain(&self.added)
    }
}

/// Reads the configuration and the file of cameras in its state directory.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let text = read_text(path)?;
    let mut loaded = load_text(path, &text);
    let cameras_path = loaded.config.server.cameras_file();
    let added_text = match read_text(&cameras_path) {
        Ok(text) => text,
        // A state directory that is none is found out, and told by its key, when it is prepared.
        Err(LoadError::Read { source, .. })
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            String::new()
        }
        Err(error) => return Err(error),
    };
    let mut errors = Errors::new(&cameras_path, &added_text);
    let mut root = parse_root(&added_text, &mut errors);
    let taken = loaded
        .config
        .cameras
        .iter()
        .map(|c| (c.name.to_string(), path.to_owned()))
        .collect();
    loaded.added = cameras(&mut root, taken, &cameras_path, &loaded.config, &mut errors);
    root.finish(&mut errors);
    loaded.errors.extend(errors.into_list());
    Ok(loaded)
}

/// Reads the configuration without the file of cameras.
pub fn load_alone(path: &Path) -> Result<Loaded, LoadError> {
    Ok(load_text(path, &read_text(path)?))
}

/// Reads only where the running recorder is to be found, whatever else may be wrong with the file.
pub fn load_server(path: &Path) -> Result<Server, LoadError> {
    Ok(load_text(path, &read_text(path)?).config.server)
}

fn read_text(path: &Path) -> Result<String, LoadError> {
    let io_error = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    let not_text = |reason: String| LoadError::NotText {
        path: path.to_owned(),
        reason,
    };
    let metadata = std::fs::metadata(path).map_err(io_error)?;
    if metadata.is_dir() {
        return Err(not_text("it is a directory".into()));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(not_text(format!("it has {} bytes", metadata.len())));
    }
    String::from_utf8(std::fs::read(path).map_err(io_error)?).map_err(|e| not_text(e.utf8_error().to_string()))
}

/// Reads a configuration from text; `path` is only named in messages.
pub fn load_text(path: &Path, text: &str) -> Loaded {
    let mut errors = Errors::new(path, text);
    let mut root = parse_root(text, &mut errors);
    let mut config = Config::default();
    server(root.table("server", &mut errors), &mut config.server, &mut errors);
    let mut shards = root.table("shards", &mut errors);
    if let Some(v) = shards.take("cpus", &mut errors, cpus) {
        config.cpus = v;
    }
    shards.finish(&mut errors);
    let mut auth = root.table("auth", &mut errors);
    if let Some(v) = auth.take("anonymous", &mut errors, anonymous) {
        config.anonymous = v;
    }
    auth.finish(&mut errors);
    services(&mut root, &mut config, &mut errors);
    let present = root.has("rtmp");
    rtmp(present, root.table("rtmp", &mut errors), &mut config.rtmp, &mut errors);
    let present = root.has("gb28181");
    config.gb28181 = Gb28181::read(root.table("gb28181", &mut errors), present, &mut errors);
    storages(&mut root, &mut config.storage, &mut errors);
    recording(root.table("recording", &mut errors), &mut config.recording, &mut errors);
    config.cameras = cameras(&mut root, HashMap::new(), path, &config, &mut errors);
    root.finish(&mut errors);
    Loaded {
        config,
        added: Vec::new(),
        errors: errors.into_list(),
    }
}

fn services(root: &mut Section<'_>, config: &mut Config, errors: &mut Errors<'_>) {
    let rtsp = root.table("rtsp", errors);
    let examples = ("[::]:8554", "[::]:322");
    config.rtsp = Service::read(rtsp, config.rtsp.clone(), "rtsps_listen", examples, errors);
    let http = root.table("http", errors);
    let examples = ("[::]:8080", "[::]:8443");
    config.http = Service::read(http, config.http.clone(), "https_listen", examples, errors);
}

pub(super) fn absolute(text: &str) -> Result<PathBuf, Problem> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(Problem::new(
            format!("{text:?} is not an absolute path"),
            "begin it with /",
        ))
    }
}

fn server(mut section: Section<'_>, server: &mut Server, errors: &mut Errors<'_>) {
    if let Some(v) = section.take("state_dir", errors, |v| parsed(v, absolute)) {
        server.state_dir = v;
    }
    if let Some(v) = section.take("run_dir", errors, |v| parsed(v, absolute)) {
        server.run_dir = v;
    }
    section.finish(errors);
}

fn cpus(value: &toml::de::DeValue<'_>) -> Result<Cpus, Problem> {
    let remedy = "write \"all\" or a list such as [0, 2, 3]";
    if let Some(text) = value.as_str() {
        return if text == "all" {
            Ok(Cpus::All)
        } else {
            Err(Problem::new(format!("{text:?} is not a choice here"), remedy))
        };
    }
    let list = list(value, |v| number(v).map(|n| n as usize)).map_err(|p| Problem::new(p.message, remedy))?;
    let mut seen = list.clone();
    seen.sort_unstable();
    seen.dedup();
    if list.is_empty() || seen.len() != list.len() {
        return Err(Problem::new("is empty or names a CPU twice", remedy));
    }
    Ok(Cpus::List(list))
}

fn anonymous(value: &toml::de::DeValue<'_>) -> Result<Anonymous, Problem> {
    let mut anonymous = Anonymous::default();
    for word in list(value, string)? {
        match word.as_str() {
            "live" => anonymous.live = true,
            "playback" => anonymous.playback = true,
            _ => {
                return Err(Problem::new(
                    format!("{word:?} is not a choice here"),
                    "list \"live\", \"playback\", both, or nothing",
                ));
            }
        }
    }
    Ok(anonymous)
}

/// Reads where to listen: one address, or a list of them. `example` has the section's own port.
pub(super) fn addresses(value: &toml::de::DeValue<'_>, example: &str) -> Result<Vec<SocketAddr>, Problem> {
    let port = example.rsplit(':').next().unwrap_or_default();
    let remedy = || format!("write addresses with ports, such as [\"[::]:{port}\"] for all, or \"127.0.0.1:{port}\"");
    let address = |v: &toml::de::DeValue<'_>| {
        parsed(v, |t| {
            t.parse()
                .map_err(|_| Problem::new(format!("{t:?} is not an address with a port"), remedy()))
        })
    };
    if value.as_str().is_some() {
        return Ok(vec![address(value)?]);
    }
    let addresses = list(value, address)?;
    if addresses.is_empty() || addresses.len() > LISTEN_MAX {
        return Err(Problem::new(
            format!("names none, or more than {LISTEN_MAX} addresses"),
            remedy(),
        ));
    }
    Ok(addresses)
}

fn rtmp(present: bool, mut section: Section<'_>, rtmp: &mut Rtmp, errors: &mut Errors<'_>) {
    rtmp.enabled = section.take("enabled", errors, boolean).unwrap_or(present);
    if let Some(v) = section.take("listen", errors, |v| addresses(v, "[::]:1935")) {
        rtmp.listen = v;
    }
    section.finish(errors);
}

fn storages(root: &mut Section<'_>, storage: &mut Vec<Storage>, errors: &mut Errors<'_>) {
    let Some(sections) = root.tables("storage", errors) else {
        return;
    };
    storage.clear();
    for (index, mut section) in sections.into_iter().enumerate() {
        let named = section.has("path");
        let path = section.take("path", errors, |v| parsed(v, absolute));
        let keep_free = section.take("keep_free", errors, |v| parsed(v, size));
        let require_mount = section.take("require_mount", errors, boolean);
        let max = section.take("max", errors, |v| parsed(v, |t| or_unlimited(t, size)));
        if index >= STORAGE_MAX {
            let problem = Problem::new(format!("is more than {STORAGE_MAX} directories"), "use larger ones");
            section.wrong("", problem, errors);
        }
        match path {
            None if named => {}
            None => section.missing("path", "name an absolute directory", errors),
            Some(path) => {
                if storage
                    .iter()
                    .any(|s| s.path.starts_with(&path) || path.starts_with(&s.path))
                {
                    let problem = Problem::new(
                        format!("{} is named twice, or lies inside another one", path.display()),
                        "give every storage a directory of its own",
                    );
                    section.wrong("path", problem, errors);
                }
                let mut entry = Storage::at(path);
                entry.keep_free = keep_free.unwrap_or(entry.keep_free);
                entry.max = max.map_or(entry.max, Limit::value);
                entry.require_mount = require_mount.unwrap_or(entry.require_mount);
                storage.push(entry);
            }
        }
        section.finish(errors);
    }
}

fn recording(mut section: Section<'_>, recording: &mut Recording, errors: &mut Errors<'_>) {
    let between = |min, max| move |t: &str| within(duration(t)?, min, max, show_duration);
    if let Some(v) = section.take("segment", errors, |v| parsed(v, between(SEGMENT_MIN, SEGMENT_MAX))) {
        recording.segment = v;
    }
    if let Some(v) = section.take("sync", errors, |v| parsed(v, between(SYNC_MIN, SYNC_MAX))) {
        recording.sync = v;
    }
    if let Some(v) = section.take("retain", errors, |v| parsed(v, retain)) {
        recording.retain = v.value();
    }
    if let Some(v) = section.take("retain_bytes", errors, |v| parsed(v, retain_bytes)) {
        recording.retain_bytes = v.value();
    }
    section.finish(errors);
}

/// Reads `[[camera]]`. `taken` are the names used before, and where.
fn cameras(
    root: &mut Section<'_>,
    mut taken: HashMap<String, PathBuf>,
    path: &Path,
    config: &Config,
    errors: &mut Errors<'_>,
) -> Vec<CameraSettings> {
    let mut cameras = Vec::new();
    for section in root.tables("camera", errors).unwrap_or_default() {
        let at = section.at();
        let Some(settings) = camera::read(section, errors) else {
            continue;
        };
        let key = |k: &str| format!("[[camera]] {}: {k}", settings.name);
        if let Some(other) = taken.get(settings.name.as_str()) {
            let problem = Problem::new(
                format!("there is a camera of this name already, in {}", other.display()),
                "rename one of them",
            );
            errors.add(at, key("name"), problem, true);
        } else if let Some(problem) = wrong_storage(&settings, config) {
            errors.add(at, key("storage"), problem, true);
        } else if let Some(problem) = wrong_shard(&settings, config) {
            errors.add(at, key("shard"), problem, true);
        } else if let Some(problem) = wrong_source(&settings, config, config.cameras.iter().chain(&cameras)) {
            errors.add(at, key("url"), problem, true);
        } else if let Some(problem) = wrong_channel(&settings, config.cameras.iter().chain(&cameras)) {
            errors.add(at, key("channel"), problem, true);
        } else if taken.len() >= CAMERAS_MAX {
            let problem = Problem::new(format!("is more than {CAMERAS_MAX} cameras"), "use a second recorder");
            errors.add(at, key("name"), problem, true);
        } else {
            taken.insert(settings.name.to_string(), path.to_owned());
            cameras.push(settings);
        }
    }
    cameras
}

/// Whether a camera's storage is one that is configured.
pub fn wrong_storage(settings: &CameraSettings, config: &Config) -> Option<Problem> {
    let path = settings.storage.as_ref()?;
    if config.storage.iter().any(|s| s.path == *path) {
        return None;
    }
    let known: Vec<_> = config.storage.iter().map(|s| s.path.display().to_string()).collect();
    Some(Problem::new(
        format!("{} is not a configured storage directory", path.display()),
        format!("use one of {}, or add a [[storage]]", known.join(", ")),
    ))
}

/// Whether a camera's stream can reach us: one that pushes needs the RTMP server, and a key of its own.
pub fn wrong_source<'a>(
    settings: &CameraSettings,
    config: &Config,
    mut others: impl Iterator<Item = &'a CameraSettings>,
) -> Option<Problem> {
    let key = match settings.url.source() {
        Source::RtmpListen(key) => key,
        Source::Gb28181(_) if !config.gb28181.enabled => {
            return Some(Problem::new(
                "the camera is to register by GB28181, which is switched off",
                "add the section [gb28181] to the configuration and restart",
            ));
        }
        Source::Gb28181(_) | Source::Rtsp(_) | Source::Rtmp(_) => return None,
    };
    if !config.rtmp.enabled {
        return Some(Problem::new(
            "the camera is to push its stream by RTMP, which is switched off",
            "add the section [rtmp] with enabled = true to the configuration and restart",
        ));
    }
    let same = |c: &&CameraSettings| matches!(c.url.source(), Source::RtmpListen(k) if k == key);
    let other = others.find(|c| same(c) && c.name != settings.name)?;
    Some(Problem::new(
        format!("camera {} has this stream key already", other.name),
        "give each camera its own",
    ))
}

/// Whether a camera's channel number is another one's.
pub fn wrong_channel<'a>(
    settings: &CameraSettings,
    mut others: impl Iterator<Item = &'a CameraSettings>,
) -> Option<Problem> {
    let channel = settings.channel?;
    let other = others.find(|c| c.channel == Some(channel) && c.name != settings.name)?;
    Some(Problem::new(
        format!("camera {} has the number {channel} already", other.name),
        "give one of them another number",
    ))
}

/// Whether a camera's shard is one that will exist.
pub fn wrong_shard(settings: &CameraSettings, config: &Config) -> Option<Problem> {
    let shard = usize::from(settings.shard?);
    let count = match &config.cpus {
        Cpus::List(list) => list.len(),
        Cpus::All => std::thread::available_parallelism().map_or(1, usize::from),
    };
    (shard >= count).then(|| {
        Problem::new(
            format!("there is no shard {shard}: [shards] cpus makes {count}"),
            format!("use a number below {count}, or leave the key out"),
        )
    })
}
