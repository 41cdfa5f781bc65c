//! `corenvr support-bundle`: one file with what is needed to find a fault from afar. Works with the recorder stopped.
//!
//! Everything in it is text and went through the [`Redactor`]; nobody but its owner may read the file.

mod redact;

use std::{
    fmt,
    fmt::Write as _,
    fs,
    fs::File,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use corenvr_media::WallTime;
use flate2::{Compression, write::GzEncoder};
use serde::Serialize;
use serde_json::Value;

use self::redact::Redactor;
use crate::{
    admin::client::Client,
    config::{self, Config},
    doctor,
    supervisor::crashes,
};

/// Bytes of one part; the rest is cut off, and the part says so.
const PART_BYTES_MAX: u64 = 64 << 20;
/// Cameras of one answer.
const CAMERAS_PAGE: usize = 500;
/// Files that are counted in a storage directory.
const FILES_MAX: u64 = 5_000_000;
/// Settings of the kernel that matter here.
const SYSCTLS: [&str; 10] = [
    "kernel/osrelease",
    "kernel/version",
    "kernel/io_uring_disabled",
    "kernel/io_uring_group",
    "net/core/rmem_max",
    "net/core/wmem_max",
    "vm/dirty_ratio",
    "vm/dirty_background_ratio",
    "vm/swappiness",
    "fs/file-max",
];

/// No bundle was written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}. Remedy: name another file with -o", path.display())]
pub struct SupportError {
    path: PathBuf,
    source: io::Error,
}

/// What was written.
#[derive(Debug, Serialize)]
pub struct Bundle {
    /// The file.
    pub file: PathBuf,
    /// What is inside.
    pub inside: Vec<String>,
    /// What is not, and why.
    pub left_out: Vec<String>,
}

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} holds:", self.file.display())?;
        self.inside.iter().try_for_each(|name| writeln!(f, "  {name}"))?;
        if !self.left_out.is_empty() {
            writeln!(f, "Left out:")?;
            self.left_out.iter().try_for_each(|why| writeln!(f, "  {why}"))?;
        }
        writeln!(
            f,
            "Passwords, keys and tokens are taken out. Names of cameras, addresses and times are in it: look before you send it."
        )
    }
}

/// Writes a bundle.
pub fn collect(config_path: &Path, file: Option<PathBuf>, hours: u32) -> Result<Bundle, SupportError> {
    let now = WallTime::from_system(SystemTime::now());
    let file = file.unwrap_or_else(|| format!("corenvr-support-{}.tar.gz", now.to_clock()).into());
    let failed = |source| SupportError {
        path: file.clone(),
        source,
    };
    let out = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)
        .map_err(failed)?;
    let config = config::load_alone(config_path).map(|l| l.config).unwrap_or_default();
    let mut parts = Parts {
        tar: tar::Builder::new(GzEncoder::new(out, Compression::default())),
        redactor: Redactor::default(),
        now,
        inside: Vec::new(),
        left_out: Vec::new(),
    };
    let written = parts
        .all(config_path, &config, hours)
        .and_then(|()| parts.tar.into_inner()?.finish()?.sync_all());
    if let Err(source) = written {
        // Half a bundle is none.
        drop(fs::remove_file(&file));
        return Err(failed(source));
    }
    Ok(Bundle {
        inside: parts.inside,
        left_out: parts.left_out,
        file,
    })
}

struct Parts {
    tar: tar::Builder<GzEncoder<File>>,
    redactor: Redactor,
    now: WallTime,
    inside: Vec<String>,
    left_out: Vec<String>,
}

impl Parts {
    fn all(&mut self, config_path: &Path, config: &Config, hours: u32) -> io::Result<()> {
        // The settings come first: from them on, their secrets are known.
        self.secrets(config);
        self.configuration("config/corenvr.toml", config_path)?;
        self.configuration("config/cameras.toml", &config.server.cameras_file())?;
        self.recorder(config_path)?;
        let findings = doctor::findings(config_path);
        self.add("doctor.txt", &doctor::show(&findings))?;
        self.add(
            "doctor.json",
            &serde_json::to_string_pretty(&findings).unwrap_or_default(),
        )?;
        for crash in crashes::list(&config.server.state_dir) {
            self.add(&format!("crashes/{}.txt", crash.at.to_clock()), &crash.report)?;
        }
        self.add("archive.txt", &archive_summary(config))?;
        self.system()?;
        self.command("unit/cat.txt", "systemctl", &["cat", "corenvr.service"])?;
        self.command("unit/show.txt", "systemctl", &["show", "corenvr.service"])?;
        self.command(
            "unit/status.txt",
            "systemctl",
            &["status", "--no-pager", "--full", "corenvr.service"],
        )?;
        let since = format!("-{hours}h");
        let journal = [
            "-u",
            "corenvr",
            "--since",
            &since,
            "--no-pager",
            "-o",
            "short-iso-precise",
        ];
        self.command("journal.txt", "journalctl", &journal)?;
        let mut readme = format!(
            "corenvr {} support bundle of {}\n\n",
            env!("CARGO_PKG_VERSION"),
            self.now
        );
        for name in &self.inside {
            let _ = writeln!(readme, "{name}");
        }
        readme.push_str("\nLeft out:\n");
        for why in &self.left_out {
            let _ = writeln!(readme, "{why}");
        }
        self.add("README.txt", &readme)
    }

    /// Secrets that lie in files of their own. None of those files goes into the bundle.
    fn secrets(&mut self, config: &Config) {
        if let Some(password) = &config.gb28181.password {
            self.redactor.learn(password);
        }
        for name in ["admin-password", "gb28181-password", "gb28181.password"] {
            if let Ok(text) = fs::read_to_string(config.server.state_dir.join(name)) {
                text.lines().for_each(|line| self.redactor.learn(line));
            }
        }
        // What keys of accounts look like is known to them alone: every text in their file that is long enough is a secret.
        for name in ["accounts.json", "accounts.toml"] {
            let text = fs::read_to_string(config.server.state_dir.join(name)).unwrap_or_default();
            let texts = text
                .split('"')
                .filter(|t| t.len() >= 24 && !t.contains(char::is_whitespace));
            texts.for_each(|t| self.redactor.learn(t));
        }
    }

    fn configuration(&mut self, name: &str, path: &Path) -> io::Result<()> {
        match fs::read_to_string(path) {
            Ok(text) => {
                let shown = self.redactor.configuration(&text);
                self.add(name, &shown)
            }
            Err(error) => {
                self.missing(name, &format!("{}: {error}", path.display()));
                Ok(())
            }
        }
    }

    /// What the running recorder says.
    fn recorder(&mut self, config_path: &Path) -> io::Result<()> {
        let asked = Client::from_config(config_path).and_then(|client| {
            let status = client.get::<Value>("/api/v1/status")?;
            Ok((client, status))
        });
        let client = match asked {
            Ok((client, status)) => {
                self.add("status.json", &format!("{status:#}"))?;
                client
            }
            Err(error) => {
                self.missing("status.json, cameras.json, metrics.txt", &error.to_string());
                return Ok(());
            }
        };
        match cameras(&client) {
            Ok(cameras) => self.add("cameras.json", &format!("{cameras:#}"))?,
            Err(error) => self.missing("cameras.json", &error),
        }
        for (name, path) in [("metrics.txt", "/metrics"), ("health.json", "/healthz")] {
            match client.text(path) {
                Ok(text) => self.add(name, &text)?,
                Err(error) => self.missing(name, &error.to_string()),
            }
        }
        Ok(())
    }

    fn system(&mut self) -> io::Result<()> {
        let files = [
            ("system/os-release.txt", "/etc/os-release"),
            ("system/mounts.txt", "/proc/self/mountinfo"),
            ("system/meminfo.txt", "/proc/meminfo"),
            ("system/cpuinfo.txt", "/proc/cpuinfo"),
            ("system/loadavg.txt", "/proc/loadavg"),
            ("system/pressure-io.txt", "/proc/pressure/io"),
            ("system/cmdline.txt", "/proc/cmdline"),
        ];
        for (name, path) in files {
            match fs::read_to_string(path) {
                Ok(text) => self.add(name, &text)?,
                Err(error) => self.missing(name, &format!("{path}: {error}")),
            }
        }
        let setting = |name: &&str| {
            let value = fs::read_to_string(Path::new("/proc/sys").join(name));
            let value = value.map_or_else(|e| format!("({e})"), |v| v.trim().to_owned());
            format!("{} = {value}\n", name.replace('/', "."))
        };
        let sysctls: String = SYSCTLS.iter().map(setting).collect();
        self.add("system/sysctl.txt", &sysctls)
    }

    fn command(&mut self, name: &str, program: &str, arguments: &[&str]) -> io::Result<()> {
        let mut command = Command::new(program);
        match command.args(arguments).output() {
            Ok(out) if out.stdout.is_empty() => {
                let why = String::from_utf8_lossy(&out.stderr);
                let why = why.lines().next().unwrap_or("it printed nothing").to_owned();
                self.missing(name, &format!("{program}: {why}"));
                Ok(())
            }
            Ok(out) => {
                let cut = &out.stdout[out.stdout.len().saturating_sub(PART_BYTES_MAX as usize)..];
                self.add(name, &String::from_utf8_lossy(cut))
            }
            Err(error) => {
                self.missing(name, &format!("{program}: {error}"));
                Ok(())
            }
        }
    }

    fn missing(&mut self, name: &str, why: &str) {
        let why = self.redactor.clean(why);
        self.left_out.push(format!("{name}: {why}"));
    }

    fn add(&mut self, name: &str, text: &str) -> io::Result<()> {
        let text = self.redactor.clean(text);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.now.as_millis().max(0) as u64 / 1000);
        self.tar
            .append_data(&mut header, format!("corenvr-support/{name}"), text.as_bytes())?;
        self.inside.push(format!("{name} ({} bytes)", text.len()));
        Ok(())
    }
}

/// All cameras, page by page.
fn cameras(client: &Client) -> Result<Value, String> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/cameras?limit={CAMERAS_PAGE}{cursor}");
        let mut page = client.get::<Value>(&path).map_err(|e| e.to_string())?;
        if let Some(cameras) = page["cameras"].as_array_mut() {
            all.append(cameras);
        }
        match page["next"].as_str() {
            Some(next) if all.len() < config::CAMERAS_MAX * 2 => cursor = format!("&cursor={next}"),
            _ => return Ok(Value::Array(all)),
        }
    }
}

/// Files and bytes of each camera as they lie on disk, whatever the index says.
fn archive_summary(config: &Config) -> String {
    let mut text = String::new();
    for storage in &config.storage {
        let _ = writeln!(text, "{}", storage.path.display());
        if let Ok(fs) = rustix::fs::statvfs(&storage.path) {
            let (free, total) = (fs.f_bavail * fs.f_frsize, fs.f_blocks * fs.f_frsize);
            let _ = writeln!(text, "  {free} bytes free of {total}");
        }
        match fs::read_dir(&storage.path) {
            Err(error) => {
                let _ = writeln!(text, "  {error}");
            }
            Ok(entries) => {
                for entry in entries.flatten().filter(|e| e.path().is_dir()) {
                    let mut sum = Sum::default();
                    sum.walk(&entry.path());
                    let name = entry.file_name();
                    let _ = writeln!(text, "  {}: {sum}", name.to_string_lossy());
                }
            }
        }
    }
    text
}

#[derive(Default)]
struct Sum {
    files: u64,
    bytes: u64,
    open: u64,
    torn: u64,
}

impl Sum {
    fn walk(&mut self, dir: &Path) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                self.walk(&entry.path());
            } else if self.files < FILES_MAX {
                let name = entry.file_name();
                self.files += 1;
                self.bytes += entry.metadata().map_or(0, |m| m.len());
                self.open += u64::from(name.to_string_lossy().ends_with(".part.mkv"));
                self.torn += u64::from(name.to_string_lossy().ends_with(".torn.mkv"));
            }
        }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            files,
            bytes,
            open,
            torn,
        } = self;
        write!(f, "{files} files, {bytes} bytes, {open} open, {torn} torn")
    }
}
