//! The benches: what recording and playback cost beside a program that only moves the same bytes. README.md beside this file says how to read them.
#![allow(clippy::unwrap_used, clippy::too_many_lines)]

mod gb28181;
mod playback;
mod rtsp;

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use corenvr_shard::{
    Class,
    file::{AlignedBuffer, AppendFile},
    run_control, spawn,
    time::sleep,
};
use corenvr_tests::process::{Guarded, corenvr, free_port, run, wait_for};
use rtsp::Client;

/// The recorder and the floor run on this CPU, the cameras and viewers on the other.
const MEASURED_CPU: &str = "0";
const LOAD_CPU: &str = "1";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        args.iter()
            .position(|a| a == name)
            .and_then(|i| args.get(i + 1)?.parse().ok())
            .unwrap_or(default)
    };
    let seconds = number("--seconds", 30);
    match args.first().map(String::as_str) {
        Some("recording") => recording(seconds),
        Some("playback") => playback::run(seconds),
        Some("gb28181") => gb28181::run(seconds, number("--channels", 100) as usize),
        Some("floor") => floor(
            number("--port", 0) as u16,
            number("--cameras", 0) as usize,
            Path::new(args.last().unwrap()),
        ),
        _ => {
            eprintln!("usage: corenvr-bench recording|playback|gb28181 [--seconds S] [--channels N]");
            std::process::exit(2);
        }
    }
}

/// 1080p25 at 4 Mbit/s with 64 kbit/s of sound, 10 s, key frame every 2 s.
fn clip() -> PathBuf {
    let path = std::env::temp_dir().join("corenvr-bench-1080p25-4m.mkv");
    if !path.exists() {
        eprintln!("making {}", path.display());
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args([
            "-v",
            "error",
            "-y",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=1920x1080:rate=25:duration=10,noise=alls=20:allf=t",
        ]);
        ffmpeg.args([
            "-f",
            "lavfi",
            "-i",
            "anoisesrc=duration=10:amplitude=0.3",
            "-pix_fmt",
            "yuv420p",
            "-c:v",
            "libx264",
        ]);
        ffmpeg.args(["-preset", "ultrafast", "-b:v", "4M", "-maxrate", "4M", "-bufsize", "4M"]);
        ffmpeg.args([
            "-x264-params",
            "keyint=50:min-keyint=50:scenecut=0:bframes=0:nal-hrd=cbr",
            "-c:a",
            "aac",
            "-b:a",
            "64k",
        ]);
        run(ffmpeg.arg(&path));
    }
    path
}

struct Usage {
    cpu: f64,
    rss_mib: f64,
}

/// Processor seconds so far and resident memory now of a process.
fn usage(pid: u32) -> Usage {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let pages: f64 = fields[21].parse().unwrap();
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Usage {
        cpu: ticks / per_second,
        rss_mib: pages * rustix::param::page_size() as f64 / f64::from(1 << 20),
    }
}

/// Milliseconds of processor time per unit and second over a window, and the memory at its end.
fn measure(pid: u32, seconds: u64, units: usize) -> (f64, f64) {
    let (before, begun) = (usage(pid).cpu, Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let (after, elapsed) = (usage(pid), begun.elapsed().as_secs_f64());
    ((after.cpu - before) * 1000.0 / elapsed / units as f64, after.rss_mib)
}

fn simulated_cameras(count: usize) -> (Guarded, u16) {
    let port = free_port();
    let child = Command::new("taskset")
        .args(["-c", LOAD_CPU])
        .arg(corenvr())
        .args([
            "sim",
            "--cameras",
            &count.to_string(),
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--file",
        ])
        .arg(clip())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let guarded = Guarded(child);
    wait_for("the simulator listens", Duration::from_secs(20), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    (guarded, port)
}

struct Recorder {
    process: Option<Guarded>,
    dir: tempfile::TempDir,
    rtsp_port: u16,
}

impl Recorder {
    fn start(cameras: usize, sim_port: u16) -> Self {
        Self::prepare(cameras, sim_port).run()
    }

    fn prepare(cameras: usize, sim_port: u16) -> Self {
        let mut text = String::new();
        for i in 1..=cameras {
            let _ = write!(
                text,
                "[[camera]]\nname = \"cam{i}\"\nurl = \"rtsp://127.0.0.1:{sim_port}/cam{i}\"\ntransport = \"tcp\"\n"
            );
        }
        Self::configured(&text)
    }

    /// Its directories and its configuration, with these sections added.
    fn configured(sections: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("corenvr-bench-")
            .tempdir_in(bench_dir())
            .unwrap();
        let root = dir.path().display();
        let rtsp_port = free_port();
        let text = format!(
            "[server]\nstate_dir = \"{root}/state\"\nrun_dir = \"{root}/run\"\n[shards]\ncpus = [{MEASURED_CPU}]\n\
             [auth]\nanonymous = [\"live\", \"playback\"]\n[http]\nlisten = []\n[rtsp]\nlisten = [\"127.0.0.1:{rtsp_port}\"]\n\
             [[storage]]\npath = \"{root}/rec\"\nkeep_free = \"1GiB\"\n{sections}"
        );
        for sub in ["state", "run", "rec"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        fs::write(dir.path().join("corenvr.toml"), text).unwrap();
        Self {
            process: None,
            dir,
            rtsp_port,
        }
    }

    fn run(mut self) -> Self {
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new("taskset")
            .args(["-c", MEASURED_CPU])
            .arg(corenvr())
            .args(["run", "--config"])
            .arg(self.dir.path().join("corenvr.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(Guarded(child));
        wait_for("the recorder listens", Duration::from_secs(60), || {
            std::net::TcpStream::connect(("127.0.0.1", self.rtsp_port)).ok()
        });
        self
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().expect("the recorder runs").0.id()
    }

    fn json(&self, args: &[&str]) -> serde_json::Value {
        let out = Command::new(corenvr())
            .args(args)
            .arg("--json")
            .arg("--config")
            .arg(self.dir.path().join("corenvr.toml"))
            .output()
            .unwrap();
        serde_json::from_slice(&out.stdout).unwrap_or(serde_json::Value::Null)
    }

    fn wait_recording(&self, cameras: usize) {
        wait_for("every camera records", Duration::from_secs(120), || {
            std::thread::sleep(Duration::from_millis(500));
            let status = self.json(&["status"]);
            let list = status["cameras"].as_array()?;
            let recording = list
                .iter()
                .filter(|c| c.to_string().to_lowercase().contains("\"recording\""))
                .count();
            (recording == cameras).then_some(())
        });
    }
}

/// Where the segments go: a real disk, not a memory file system.
fn bench_dir() -> PathBuf {
    std::env::var_os("CORENVR_BENCH_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

fn recording(seconds: u64) {
    println!(
        "| cameras | floor, ms CPU per camera-second | corenvr | ratio | floor RSS | corenvr RSS |\n|---|---|---|---|---|---|"
    );
    for cameras in [10usize, 100, 400] {
        let floor = {
            let (_sim, port) = simulated_cameras(cameras);
            let dir = tempfile::Builder::new()
                .prefix("corenvr-floor-")
                .tempdir_in(bench_dir())
                .unwrap();
            let child = Command::new("taskset")
                .args(["-c", MEASURED_CPU])
                .arg(std::env::current_exe().unwrap())
                .args(["floor", "--port", &port.to_string(), "--cameras", &cameras.to_string()])
                .arg(dir.path())
                .spawn()
                .unwrap();
            let process = Guarded(child);
            std::thread::sleep(Duration::from_secs(5));
            measure(process.0.id(), seconds, cameras)
        };
        let ours = {
            let (_sim, port) = simulated_cameras(cameras);
            let recorder = Recorder::start(cameras, port);
            recorder.wait_recording(cameras);
            std::thread::sleep(Duration::from_secs(3));
            measure(recorder.pid(), seconds, cameras)
        };
        println!(
            "| {cameras} | {:.2} | {:.2} | {:.2} | {:.0} MiB | {:.0} MiB |",
            floor.0,
            ours.0,
            ours.0 / floor.0,
            floor.1,
            ours.1
        );
    }
}

/// Receives every camera's bytes and writes them to a file each, and does nothing else.
fn floor(port: u16, cameras: usize, dir: &Path) {
    const WRITE_LEN: usize = 1 << 20;
    let dir = dir.to_owned();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    run_control(async move {
        let mut tasks = Vec::new();
        for i in 1..=cameras {
            let path = dir.join(format!("{i}.raw"));
            tasks.push(spawn(Class::Recording, format!("floor {i}"), async move {
                let mut client = Client::set_up(address, &format!("rtsp://127.0.0.1:{port}/cam{i}"))
                    .await
                    .unwrap();
                client.play("Range: npt=0-\r\n").await.unwrap();
                let mut file = AppendFile::create(&path).await.unwrap();
                let (mut offset, mut block) = (0, AlignedBuffer::with_capacity(WRITE_LEN));
                while client.stream.read_into(&mut client.buffer).await.unwrap() > 0 {
                    while !client.buffer.is_empty() {
                        let n = client.buffer.len().min(WRITE_LEN - block.len());
                        block.extend_from_slice(&client.buffer.split_to(n));
                        if block.len() == WRITE_LEN {
                            let full = std::mem::replace(&mut block, AlignedBuffer::with_capacity(WRITE_LEN));
                            file.write_at(full, offset).await.unwrap();
                            file.datasync().await.unwrap();
                            offset += WRITE_LEN as u64;
                        }
                    }
                }
            }));
            sleep(Duration::from_millis(5)).await;
        }
        for task in tasks {
            task.await.unwrap();
        }
    })
    .unwrap();
}
