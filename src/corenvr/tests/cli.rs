//! The binary as its users run it: exit codes, messages, and a recorder that is started, changed and stopped.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

fn corenvr(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_corenvr"))
        .args(args)
        .stdin(Stdio::null())
        .env("TZ", "UTC")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// A configuration in a directory of its own.
struct Home {
    dir: tempfile::TempDir,
    port: u16,
}

impl Home {
    fn new(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let home = Self { dir, port };
        home.configure(more);
        home
    }

    fn configure(&self, more: &str) {
        let root = self.dir.path().display();
        let text = format!(
            "[server]\nstate_dir = \"{root}/state\"\nrun_dir = \"{root}/run\"\n[shards]\ncpus = [{}]\n\
             [rtsp]\nlisten = [\"127.0.0.1:{}\"]\n[http]\nlisten = []\n[[storage]]\npath = \"{root}/rec\"\nkeep_free = \"1MiB\"\n{more}",
            first_cpu(),
            self.port
        );
        fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.path("corenvr.toml")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        corenvr(&[args, &["--config", self.config().to_str().unwrap()]].concat())
    }

    fn json(&self, args: &[&str]) -> serde_json::Value {
        let output = self.run(&[args, &["--json"]].concat());
        assert_eq!(code(&output), 0, "{args:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn spawn(&self) -> Daemon {
        let log = fs::File::create(self.path("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_corenvr"))
            .args(["run", "--config"])
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Daemon(child)
    }

    fn start(&self) -> Daemon {
        let mut daemon = self.spawn();
        wait(|| {
            let ended = daemon.0.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", self.log());
            code(&self.run(&["status"])) == 0
        });
        daemon
    }
}

struct Daemon(Child);

impl Daemon {
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn wait(&mut self) -> i32 {
        wait(|| self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap().code().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn wait(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "not within 30 s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn first_cpu() -> usize {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    (0..rustix::thread::CpuSet::MAX_CPU)
        .find(|cpu| allowed.is_set(*cpu))
        .unwrap()
}

#[test]
fn exit_codes_tell_failure_from_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("none.toml");
    let nowhere = nowhere.to_str().unwrap();
    for (args, expected) in [
        (vec!["--help"], 0),
        (vec!["--version"], 0),
        (vec!["camera", "add", "--help"], 0),
        (vec![], 2),
        (vec!["frobnicate"], 2),
        (vec!["camera", "show", "Not A Name"], 2),
        (vec!["sim", "--cameras", "0"], 2),
        (
            vec!["export", "a", "--from", "noon", "--to", "now", "-o", "/x/y.mkv"],
            2,
        ),
        (vec!["export", "a", "--from", "now", "--to", "-1h", "-o", "/x/y.mkv"], 2),
        (vec!["export", "a", "--from", "-1h", "--to", "now", "-o", "/x/y.avi"], 2),
        (vec!["status", "--config", nowhere], 1),
        (vec!["run", "--config", nowhere], 1),
        (vec!["config", "check", nowhere], 1),
    ] {
        let output = corenvr(&args);
        assert_eq!(code(&output), expected, "{args:?}: {}", text(&output.stderr));
        if expected == 1 {
            assert!(
                text(&output.stderr).contains("none.toml"),
                "{args:?}: {}",
                text(&output.stderr)
            );
        }
    }
}

#[test]
fn config_check_prints_every_mistake_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    fs::write(
        &file,
        "[recording]\nsegment = \"5 parsecs\"\nsynk = \"2s\"\n[[camera]]\nname = \"Front Door\"\nurl = \"rtsp://u:hunter2@h/\"\n",
    )
    .unwrap();
    let output = corenvr(&["config", "check", file.to_str().unwrap()]);
    let shown = text(&output.stdout);
    assert_eq!(code(&output), 1);
    for words in [
        ":2: [recording] segment: ",
        ":3: [recording] synk: ",
        ":5: [[camera]] Front Door: name: ",
        "3 errors",
    ] {
        assert!(shown.contains(words), "{words} in {shown}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
    let output = corenvr(&["config", "check", file.to_str().unwrap(), "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["errors"].as_array().unwrap().len(), 3);
    assert_eq!(document["valid"], false);
    fs::write(&file, "[recording]\nsegment = \"1m\"\n").unwrap();
    assert_eq!(code(&corenvr(&["config", "check", file.to_str().unwrap()])), 0);
}

#[test]
fn a_recorder_starts_is_changed_by_commands_and_stops_in_order() {
    let fixed = "[[camera]]\nname = \"fixed\"\nurl = \"rtsp://u:hunter2@127.0.0.1:1/a\"\n";
    let wrong = "[[camera]]\nname = \"wrong\"\nurl = \"http://127.0.0.1/\"\n";
    let home = Home::new(&format!("{fixed}{wrong}"));
    let mut daemon = home.start();
    let mode = fs::metadata(home.path("run/corenvr.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // The wrong camera is named and does not keep the other one from running.
    let list = home.json(&["camera", "list"]);
    assert_eq!(list["cameras"].as_array().unwrap().len(), 1);
    assert!(list["left_out"][0]["message"].as_str().unwrap().contains("wrong"));

    let refused = home.run(&["camera", "add", "yard", "rtsp://u:hunter3@127.0.0.1:1/b"]);
    assert_eq!(code(&refused), 1);
    assert!(text(&refused.stderr).contains("yard") && text(&refused.stderr).contains("--force"));
    let added = home.run(&[
        "camera",
        "add",
        "yard",
        "rtsp://u:hunter3@127.0.0.1:1/b",
        "--retain",
        "2d",
        "--force",
    ]);
    assert_eq!(code(&added), 0, "{}", text(&added.stderr));
    let kept = fs::read_to_string(home.path("state/cameras.toml")).unwrap();
    assert!(kept.contains("hunter3") && kept.contains("retain = \"2d\""), "{kept}");
    assert_eq!(
        code(&home.run(&["camera", "add", "yard", "rtsp://127.0.0.1:1/b", "--force"])),
        1
    );
    assert_eq!(
        code(&home.run(&[
            "camera",
            "add",
            "x",
            "rtsp://127.0.0.1:1/b",
            "--storage",
            "/no",
            "--force"
        ])),
        1
    );
    assert_eq!(
        code(&home.run(&["camera", "add", "x", "rtsp://127.0.0.1:1/b", "--retain", "soon"])),
        2
    );

    assert_eq!(code(&home.run(&["camera", "disable", "yard"])), 0);
    assert_eq!(home.json(&["camera", "show", "yard"])["status"]["state"], "disabled");
    assert_eq!(code(&home.run(&["camera", "enable", "yard"])), 0);
    assert_eq!(home.json(&["camera", "show", "yard"])["mode"], "continuous");
    let own = home.run(&["camera", "remove", "fixed"]);
    assert!(code(&own) == 1 && text(&own.stderr).contains("corenvr.toml"));
    assert_eq!(home.json(&["recordings", "yard"])["spans"].as_array().unwrap().len(), 0);
    assert_eq!(code(&home.run(&["recordings", "nobody"])), 1);

    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.wait(), 0, "{}", home.log());
    assert!(!home.log().contains("hunter"), "a password was logged");
    assert_eq!(code(&home.run(&["status"])), 1);
}

#[test]
fn a_reload_puts_in_force_what_changed_and_nothing_of_a_wrong_file() {
    let home = Home::new("[[camera]]\nname = \"fixed\"\nurl = \"rtsp://127.0.0.1:1/a\"\n");
    let mut daemon = home.start();
    assert_eq!(
        code(&home.run(&["camera", "add", "yard", "rtsp://127.0.0.1:1/b", "--force"])),
        0
    );
    home.configure("[nonsense]\n");
    daemon.signal(rustix::process::Signal::HUP);
    wait(|| home.log().contains("nonsense"));
    assert_eq!(home.json(&["camera", "list"])["cameras"].as_array().unwrap().len(), 2);
    home.configure("[[camera]]\nname = \"gate\"\nurl = \"rtsp://127.0.0.1:1/c\"\n");
    daemon.signal(rustix::process::Signal::HUP);
    let names = || {
        let list = home.json(&["camera", "list"]);
        let of = |c: &serde_json::Value| c["name"].as_str().unwrap().to_owned();
        list["cameras"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    wait(|| names() == ["gate", "yard"]);
    assert_eq!(code(&home.run(&["camera", "remove", "yard"])), 0);
    assert_eq!(names(), ["gate"]);

    let status = home.json(&["status"]);
    let shards: Vec<_> = status["shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].as_str())
        .collect();
    assert_eq!(shards, [Some("shard-0"), Some("control")]);
    assert_eq!(status["disks"][0]["path"], home.path("rec").to_str().unwrap());
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.wait(), 0, "{}", home.log());
    assert_eq!(code(&home.run(&["archive", "check"])), 0);
}

#[test]
fn what_keeps_it_from_starting_is_named_with_key_and_remedy() {
    let first = Home::new("");
    let mut daemon = first.start();
    let fails = |home: &Home, words: &[&str]| {
        assert_eq!(home.spawn().wait(), 1, "{}", home.log());
        for word in words {
            assert!(home.log().contains(word), "{word} in {}", home.log());
        }
    };
    let replace = |home: &Home, from: &Path, to: &Path| {
        let text = fs::read_to_string(home.config()).unwrap();
        fs::write(
            home.config(),
            text.replace(from.to_str().unwrap(), to.to_str().unwrap()),
        )
        .unwrap();
    };
    let second = Home::new("");
    replace(&second, &second.path("rec"), &first.path("rec"));
    fails(&second, &["[[storage]] path", &daemon.0.id().to_string()]);

    let mut third = Home::new("");
    third.port = first.port;
    third.configure("");
    fails(&third, &["[rtsp] listen", &first.port.to_string(), "Remedy"]);

    let fourth = Home::new("");
    replace(&fourth, &fourth.path("run"), &first.path("run"));
    fails(&fourth, &["[server] run_dir", "another recorder"]);
    assert_eq!(code(&first.run(&["status"])), 0);

    let fifth = Home::new("");
    fs::write(fifth.path("rec"), "in the way").unwrap();
    fails(&fifth, &["[[storage]] path", "Remedy"]);
    let sixth = Home::new("");
    fs::write(sixth.path("state"), "in the way").unwrap();
    fails(&sixth, &["[server] state_dir", "Remedy"]);
    let seventh = Home::new("");
    let text = fs::read_to_string(seventh.config()).unwrap();
    fs::write(seventh.config(), text.replace("cpus = [", "cpus = [999, ")).unwrap();
    fails(&seventh, &["[shards] cpus", "999"]);

    // With the recorder running, only what changes the archive is refused.
    assert_eq!(code(&first.run(&["archive", "check"])), 0);
    let repair = first.run(&["archive", "check", "--repair"]);
    assert!(code(&repair) == 1 && self::text(&repair.stderr).contains("systemctl stop"));
    assert_eq!(code(&first.run(&["archive", "rebuild"])), 1);
    daemon.signal(rustix::process::Signal::INT);
    assert_eq!(daemon.wait(), 0);
    assert_eq!(code(&first.run(&["archive", "rebuild"])), 0);
}

#[test]
fn a_storage_directory_that_was_exchanged_is_refused_and_another_goes_on() {
    let home = Home::new("");
    let other = home.path("other");
    let both = format!(
        "[[storage]]\npath = \"{}\"\nkeep_free = \"1MiB\"\n[[camera]]\nname = \"a\"\nurl = \"rtsp://127.0.0.1:1/\"\nstorage = \"{}\"\n",
        other.display(),
        other.display()
    );
    home.configure(&both);
    let mut daemon = home.start();
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.wait(), 0);
    fs::rename(&other, home.path("unmounted")).unwrap();
    fs::create_dir(&other).unwrap();
    let mut daemon = home.start();
    let status = home.json(&["status"]);
    let disk = |i: usize| status["disks"][i]["failed"].as_str().unwrap_or_default().to_owned();
    assert_eq!(disk(0), "");
    assert!(
        disk(1).contains("is its disk mounted?") && disk(1).contains("storage.json"),
        "{status}"
    );
    assert!(
        status["left_out"][0]["message"]
            .as_str()
            .unwrap()
            .contains("[[camera]] a: ")
    );
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0, "nothing was written there");
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.wait(), 0);
}

#[test]
fn doctor_names_every_check() {
    let home = Home::new("");
    let output = home.run(&["doctor", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks: Vec<_> = document["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["check"].as_str().unwrap())
        .collect();
    for check in ["kernel", "io_uring", "locked memory", "open files", "clock", "SELinux"] {
        assert!(checks.contains(&check), "{check}");
    }
    assert_eq!(document["ok"] == true, code(&output) == 0);
}
