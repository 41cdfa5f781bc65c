//! `corenvr demo`: the whole recorder on simulated cameras, in a directory of its own, and what to open in a player.
//!
//! Nothing in here is a shortcut: the recorder runs from a configuration file like any other, and its cameras come over RTSP.

use std::{
    fmt::Write as _,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

use corenvr_media::WallTime;
use corenvr_recorder::CameraState;
use corenvr_shard::{Class, spawn, time};

use crate::{
    config::values::show_size,
    sim::{self, SimError},
    supervisor::{self, RunError, appliance::Appliance},
};

/// How often a line says how it goes.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// How long the cameras may take until they are recorded.
const RECORDING_LIMIT: Duration = Duration::from_secs(20);

/// The demonstration ended with a failure.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The directory cannot be used.
    #[error("{}: {source}. Remedy: name another directory with --dir", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The port is taken.
    #[error("port {port} cannot be listened on: {source}. Remedy: choose another one with {option}")]
    Port {
        /// The port.
        port: u16,
        /// The option that chooses it.
        option: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The simulated cameras failed.
    #[error("the simulated cameras: {0}")]
    Sim(#[from] SimError),
    /// The recorder failed.
    #[error(transparent)]
    Run(RunError),
}

/// Where the demonstration lives; a directory of its own choice is removed at the end.
struct Home {
    path: PathBuf,
    temporary: bool,
}

impl Home {
    fn new(wanted: Option<PathBuf>) -> Result<Self, DemoError> {
        let temporary = wanted.is_none();
        let path = wanted.unwrap_or_else(|| {
            // /tmp is often memory, and recordings belong on a disk.
            let base = Some(PathBuf::from("/var/tmp"))
                .filter(|p| p.is_dir())
                .unwrap_or_else(std::env::temp_dir);
            base.join(format!("corenvr-demo-{}", std::process::id()))
        });
        let create = || {
            fs::create_dir_all(&path)?;
            fs::canonicalize(&path)
        };
        match create() {
            Ok(path) => Ok(Self { path, temporary }),
            Err(source) => Err(DemoError::Directory { path, source }),
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("corenvr: {} could not be removed: {error}", self.path.display());
        }
    }
}

/// Where players and browsers connect.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// For players.
    pub rtsp: u16,
    /// For browsers and programs.
    pub http: u16,
}

/// Runs the demonstration until Ctrl-C.
pub fn run(cameras: u16, dir: Option<PathBuf>, ports: Ports) -> Result<(), DemoError> {
    let home = Home::new(dir)?;
    let cpus = supervisor::cpus(&crate::config::Cpus::All).map_err(DemoError::Run)?;
    let sim = sim::start(&sim::Options {
        cameras: u32::from(cameras),
        file: None,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        cpus: cpus.last().copied().into_iter().collect(),
    })?;
    let source = sim.address().ok_or_else(|| SimError::Ended("no address".into()))?;
    let config = home.path.join("corenvr.toml");
    fs::write(&config, configuration(&home.path, cameras, ports, source)).map_err(|source| DemoError::Directory {
        path: config.clone(),
        source,
    })?;
    let kept = !home.temporary;
    let shown = config.clone();
    let on_ready = move |appliance: &Rc<Appliance>| {
        spawn(
            Class::Maintenance,
            "demo",
            tell(appliance.clone(), shown, cameras, ports, kept),
        )
    };
    supervisor::run(&config, Some(Box::new(on_ready))).map_err(|error| match error {
        RunError::Listen { key, address, source } => DemoError::Port {
            port: address.port(),
            option: if key.starts_with("[http]") {
                "--http-port"
            } else {
                "--rtsp-port"
            },
            source,
        },
        other => DemoError::Run(other),
    })?;
    drop(sim);
    if kept {
        say(&format!(
            "The recordings are in {}.",
            home.path.join("recordings").display()
        ));
    }
    Ok(())
}

fn configuration(home: &Path, cameras: u16, ports: Ports, source: SocketAddr) -> String {
    let path = |name: &str| toml_edit::Value::from(home.join(name).to_string_lossy().into_owned());
    let mut text = format!(
        "# Written by `corenvr demo`.\n\
         [server]\nstate_dir = {}\nrun_dir = {}\n\n\
         [auth]\nanonymous = [\"live\", \"playback\"]\n\n\
         [rtsp]\nlisten = [\"127.0.0.1:{}\"]\n\n\
         [http]\nlisten = [\"127.0.0.1:{}\"]\n\n\
         [[storage]]\npath = {}\nkeep_free = \"200MiB\"\nmax = \"2GiB\"\n\n\
         [recording]\nsegment = \"1m\"\n",
        path("state"),
        path("run"),
        ports.rtsp,
        ports.http,
        path("recordings")
    );
    for i in 1..=cameras {
        let _ = write!(
            text,
            "\n[[camera]]\nname = \"cam{i}\"\nurl = \"rtsp://{source}/cam{i}\"\n"
        );
    }
    text
}

/// Waits until there is something to see, says where, and then how it goes.
async fn tell(appliance: Rc<Appliance>, config: PathBuf, cameras: u16, ports: Ports, kept: bool) {
    let deadline = Instant::now() + RECORDING_LIMIT;
    let mut since = None;
    while since.is_none() && Instant::now() < deadline {
        time::sleep(Duration::from_millis(200)).await;
        since = recorded_since(&appliance, usize::from(cameras)).await;
    }
    match since {
        Some(since) => say(&instructions(&config, cameras, ports, since, kept)),
        None => say("The cameras are not recorded yet; the lines below say why."),
    }
    loop {
        say(&progress(&appliance).await);
        time::sleep(STATUS_INTERVAL).await;
    }
}

/// The start of the footage, once every camera is recorded and its first part is on disk.
async fn recorded_since(appliance: &Appliance, cameras: usize) -> Option<WallTime> {
    let statuses = appliance.recorder.status().await.ok()?;
    let recording = |s: &&corenvr_recorder::CameraStatus| matches!(s.state, CameraState::Recording { .. });
    if statuses.iter().filter(recording).count() < cameras {
        return None;
    }
    let usage = appliance.usage().await.ok()?;
    let on_disk: Vec<_> = usage.iter().flat_map(|u| u.values()).filter(|u| u.bytes > 0).collect();
    if on_disk.len() < cameras {
        return None;
    }
    // Of a directory that was used before, only what is recorded from now on.
    on_disk.iter().filter_map(|u| u.last).max().map(|last| {
        let footage = last - Duration::from_secs(1);
        WallTime::from_micros(footage.as_micros().div_euclid(1_000_000) * 1_000_000)
    })
}

fn instructions(config: &Path, cameras: u16, ports: Ports, since: WallTime, kept: bool) -> String {
    let live = format!("rtsp://127.0.0.1:{}/cam1", ports.rtsp);
    let http = ports.http;
    let past = format!("{live}?start={}", since.to_clock());
    let config = config.display();
    let others = match cameras {
        1 => String::new(),
        2 => "The other camera is /cam2.\n".to_owned(),
        n => format!("The other cameras are /cam2 to /cam{n}.\n"),
    };
    let end = if kept { "keeps" } else { "removes" };
    format!(
        "\ncorenvr records {cameras} simulated cameras.\n\n\
         Watch what happens now:\n{}\n\
         Watch what was recorded, from {} on:\n{}\n\
         With &scale=8 (up to 32, 0.25 for slow, -1 or -8 for reverse) behind that URL it plays at another speed.\n{others}\
         In a browser, and for programs (/api/v1/openapi.json says how):\n  http://127.0.0.1:{http}/\n\n\
         Ask the recorder:\n  corenvr status --config {config}\n  corenvr recordings cam1 --config {config}\n\n\
         Ctrl-C ends it and {end} the recordings.\n",
        players(&live),
        since,
        players(&past)
    )
}

fn players(url: &str) -> String {
    format!(
        "  ffplay -rtsp_transport tcp '{url}'\n  vlc '{url}'\n  mpv '{url}'\n  gst-launch-1.0 playbin uri='{url}'\n"
    )
}

async fn progress(appliance: &Appliance) -> String {
    let (statuses, usage) = match (appliance.recorder.status().await, appliance.usage().await) {
        (Ok(statuses), Ok(usage)) => (statuses, usage),
        (Err(error), _) => return error.to_string(),
        (_, Err(error)) => return error.to_string(),
    };
    let recording = statuses
        .iter()
        .filter(|s| matches!(s.state, CameraState::Recording { .. }))
        .count();
    let (mut bytes, mut files) = (0, 0);
    for usage in usage.iter().flat_map(|u| u.values()) {
        bytes += usage.bytes;
        files += usage.segments;
    }
    let viewers = appliance.playback.snapshot().sessions.len();
    let mut text = format!(
        "{} of {} cameras recorded, {} in {files} files, {viewers} viewers",
        recording,
        statuses.len(),
        show_size(bytes)
    );
    for status in &statuses {
        if let CameraState::Down { reason, .. } | CameraState::Refused { reason, .. } = &status.state {
            let _ = write!(text, "\n  {}: {reason}", status.name);
        }
    }
    text
}

fn say(text: &str) {
    use io::Write;
    // Nobody reads any more: the recorder runs on all the same.
    let mut out = io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}
