//! The daemon as an administrator has it: a configuration file, a process, and the command line.

use std::{
    fmt::Write as _,
    fs::File,
    io::{Read, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use crate::process::{Guarded, corenvr, free_port, wait_for};

/// A camera of the configuration file.
#[derive(Debug, Clone)]
pub struct Camera {
    /// Its name.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// `auto`, `tcp` or `udp`.
    pub transport: &'static str,
    /// Lines added to its table.
    pub extra: String,
}

impl Camera {
    /// A camera with defaults.
    pub fn new(name: &str, url: &str, transport: &'static str) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            transport,
            extra: String::new(),
        }
    }
}

/// A directory with a configuration and, between start and stop, a running daemon.
pub struct Daemon {
    dir: tempfile::TempDir,
    /// The RTSP port.
    pub rtsp_port: u16,
    /// The HTTP port.
    pub http_port: u16,
    process: Option<Guarded>,
    generation: u32,
    /// What needs no login, as `[auth] anonymous` has it; in force with the next [`Self::configure`].
    pub anonymous: &'static str,
    /// Sections added to the configuration; in force with the next [`Self::configure`].
    pub sections: String,
    /// Variables that the daemon is started with, beside the test's own.
    pub environment: Vec<(String, std::ffi::OsString)>,
}

impl Daemon {
    /// Writes a configuration with 4 s segments (`recording` may say otherwise) and these cameras. Does not start anything.
    pub fn new(recording: &str, cameras: &[Camera]) -> Self {
        let dir = tempfile::Builder::new().prefix("corenvr-test-").tempdir().unwrap();
        let daemon = Self {
            dir,
            rtsp_port: free_port(),
            http_port: free_port(),
            process: None,
            generation: 0,
            anonymous: r#"["live", "playback"]"#,
            sections: String::new(),
            environment: Vec::new(),
        };
        daemon.configure(recording, cameras);
        daemon
    }

    /// Rewrites the configuration file.
    pub fn configure(&self, recording: &str, cameras: &[Camera]) {
        let root = self.dir.path().display();
        let recording = if recording.contains("segment") {
            recording.to_owned()
        } else {
            format!("segment = \"4s\"\n{recording}")
        };
        let mut text = format!(
            "[server]\nstate_dir = \"{root}/state\"\nrun_dir = \"{root}/run\"\n[auth]\nanonymous = {}\n\
             [rtsp]\nlisten = [\"127.0.0.1:{}\"]\n[http]\nlisten = [\"127.0.0.1:{}\"]\n[[storage]]\npath = \"{root}/rec\"\nkeep_free = \"100MiB\"\n[recording]\n{recording}\n",
            self.anonymous, self.rtsp_port, self.http_port
        );
        text.push_str(&self.sections);
        for c in cameras {
            let Camera {
                name,
                url,
                transport,
                extra,
            } = c;
            let _ = write!(
                text,
                "[[camera]]\nname = \"{name}\"\nurl = \"{url}\"\ntransport = \"{transport}\"\n{extra}\n"
            );
        }
        std::fs::create_dir_all(self.path("state")).unwrap();
        std::fs::create_dir_all(self.path("run")).unwrap();
        std::fs::create_dir_all(self.path("rec")).unwrap();
        std::fs::write(self.config(), text).unwrap();
    }

    /// A path inside the daemon's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path("corenvr.toml")
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&mut self) {
        self.spawn();
        wait_for("the daemon answers `corenvr status`", Duration::from_secs(60), || {
            if let Some(status) = self.process.as_mut().and_then(|p| p.0.try_wait().unwrap()) {
                panic!("the daemon ended with {status}\n{}", self.log());
            }
            self.try_cli(&["status"]).status.success().then_some(())
        });
    }

    /// Starts the daemon without waiting.
    pub fn spawn(&mut self) {
        self.generation += 1;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let child = Command::new(corenvr())
            .args(["run", "--config"])
            .arg(self.config())
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(Guarded(child));
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the daemon runs").0.id()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn crash(&mut self) {
        drop(self.process.take());
    }

    /// SIGTERM, and the exit must be clean.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("the daemon runs");
        self.signal_pid(process.0.id(), rustix::process::Signal::TERM);
        let status = wait_for("an orderly stop", Duration::from_secs(30), || {
            process.0.try_wait().unwrap()
        });
        assert!(status.success(), "the daemon ended with {status}\n{}", self.log());
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: rustix::process::Signal) {
        self.signal_pid(self.pid(), signal);
    }

    #[allow(clippy::unused_self)]
    fn signal_pid(&self, pid: u32, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until the daemon has ended by itself and returns its exit code.
    pub fn wait_exit(&mut self) -> i32 {
        let mut process = self.process.take().expect("the daemon was started");
        wait_for("the daemon ends", Duration::from_secs(30), || {
            process.0.try_wait().unwrap()
        })
        .code()
        .unwrap_or(-1)
    }

    /// Runs `corenvr ARGS --config FILE`.
    pub fn try_cli(&self, args: &[&str]) -> Output {
        let mut command = Command::new(corenvr());
        command
            .args(args)
            .arg("--config")
            .arg(self.config())
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        command.output().unwrap()
    }

    /// As [`Self::try_cli`]; must succeed. Returns what it printed.
    pub fn cli(&self, args: &[&str]) -> String {
        let out = self.try_cli(args);
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        assert!(
            out.status.success(),
            "corenvr {args:?}: {}\n{}{}\n{}",
            out.status,
            text(&out.stdout),
            text(&out.stderr),
            self.log()
        );
        text(&out.stdout)
    }

    /// As [`Self::cli`] with `--json`.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let text = self.cli(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("corenvr {args:?} --json: {e}\n{text}"))
    }

    /// Asks over the control socket; status and body of the answer.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.path("run/corenvr.sock")).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// An RTSP URL of this daemon: `NAME` or `NAME?start=..`.
    pub fn rtsp(&self, rest: &str) -> String {
        format!("rtsp://127.0.0.1:{}/{rest}", self.rtsp_port)
    }

    /// An HTTP URL of this daemon: `api/v1/status`.
    pub fn http(&self, rest: &str) -> String {
        format!("http://127.0.0.1:{}/{rest}", self.http_port)
    }

    /// A camera's segment files in order of time, sealed ones and open ones.
    pub fn segments(&self, camera: &str) -> Vec<PathBuf> {
        let mut files = files_below(&self.path("rec").join(camera));
        files.retain(|f| f.extension().is_some_and(|e| e == "mkv"));
        files.sort();
        files
    }

    /// Waits until a camera has this many sealed segments and returns all of its files.
    pub fn wait_sealed(&self, camera: &str, count: usize, limit: Duration) -> Vec<PathBuf> {
        let what = format!("{count} sealed segments of {camera}");
        let begun = std::time::Instant::now();
        loop {
            let files = self.segments(camera);
            if files.iter().filter(|f| is_sealed(f)).count() >= count {
                return files;
            }
            assert!(
                begun.elapsed() < limit,
                "{what}: not within {} s; there are {files:?}\n{}\n{}",
                limit.as_secs(),
                String::from_utf8_lossy(&self.try_cli(&["status"]).stdout),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Daemon {
    /// A test that fails tells what the daemon had to say.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("the daemon's last words:");
            last.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// Whether a segment file is complete.
pub fn is_sealed(path: &Path) -> bool {
    !path.to_string_lossy().ends_with(".part.mkv")
}

/// The start of a segment as its path says it, in the form the command line takes.
pub fn start_of(path: &Path) -> String {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let day = path
        .parent()
        .unwrap()
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let time = name
        .trim_end_matches(".mkv")
        .trim_end_matches(".part")
        .trim_end_matches('Z')
        .replace('-', ":");
    format!("{day}T{time}Z")
}

/// Every file below a directory, whatever its depth.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    walk(dir, &mut files);
    files
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, files);
        } else {
            files.push(path);
        }
    }
}
