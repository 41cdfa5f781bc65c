//! Real players on numbered footage: which pictures they receive, which they show, and when.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    numbered::{drawn_number, drawn_numbers, sei_numbers},
    process::{Guarded, root, run, wait_for},
};

/// What a player made of a URL.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Numbers in the stream, in the order received.
    pub received: Vec<i64>,
    /// Drawn numbers of the pictures that came out of the decoder, with the player's time of each in seconds.
    pub shown: Vec<(i64, f64)>,
    /// From start to exit.
    pub took: Duration,
}

impl Seen {
    /// The drawn numbers.
    pub fn numbers(&self) -> Vec<i64> {
        self.shown.iter().map(|(n, _)| *n).collect()
    }
}

/// ffmpeg over `tcp` or `udp` until the end: one run saves the stream as it came and decodes it.
pub fn ffmpeg(url: &str, transport: &str, hevc: bool, dir: &Path, name: &str) -> Seen {
    let (stream, pictures) = (dir.join(format!("{name}.stream")), dir.join(format!("{name}.gray")));
    let mut command = Command::new("timeout");
    command.args([
        "-k",
        "5",
        "90",
        "ffmpeg",
        "-y",
        "-nostdin",
        "-loglevel",
        "info",
        "-copyts",
    ]);
    command.args(["-rtsp_transport", transport, "-i", url]);
    command
        .args(["-map", "0:v:0", "-c", "copy", "-f", if hevc { "hevc" } else { "h264" }])
        .arg(&stream);
    command
        .args(["-map", "0:v:0", "-vf", "showinfo", "-fps_mode", "passthrough"])
        .args(["-enc_time_base", "-1", "-pix_fmt", "gray", "-f", "rawvideo"])
        .arg(&pictures);
    let begun = Instant::now();
    let out = run(&mut command);
    let took = begun.elapsed();
    let log = String::from_utf8_lossy(&out.stderr);
    let times = log.lines().filter(|l| l.contains("Parsed_showinfo")).filter_map(|l| {
        let (_, rest) = l.split_once("pts_time:")?;
        rest.split_whitespace().next()?.parse().ok()
    });
    let drawn = drawn_numbers(&std::fs::read(pictures).unwrap());
    let drawn: Option<Vec<i64>> = drawn.iter().copied().collect();
    let drawn = drawn.unwrap_or_else(|| panic!("{name}: damaged pictures\n{log}"));
    let times: Vec<f64> = times.collect();
    assert_eq!(drawn.len(), times.len(), "{log}");
    Seen {
        received: sei_numbers(&std::fs::read(stream).unwrap()),
        shown: drawn.into_iter().zip(times).collect(),
        took,
    }
}

/// One thing that happened in GStreamer.
#[derive(Debug, Clone)]
pub struct GstEvent {
    /// Seconds of wall time.
    pub at: f64,
    /// What happened; see `tests/sources/gst_player.py`.
    pub event: String,
    /// The number in the SEI (`got`) or in the picture (`shown`); `None` if the picture is damaged.
    pub number: Option<i64>,
    /// The event as it was printed.
    pub value: Value,
}

/// Everything that happened in GStreamer.
#[derive(Debug, Clone)]
pub struct GstLog(pub Vec<GstEvent>);

impl GstLog {
    /// The last part, from the picture that the last seek begins with. Over UDP, one or two that were on their way can still come out behind the
    /// seek, before anything of the new range; they do not count.
    pub fn after_seek(&self, first: i64) -> Self {
        let from = self.0.iter().rposition(|e| e.event == "flushed").unwrap_or(0);
        let part = &self.0[from..];
        let got = |(_, e): &(usize, &GstEvent)| e.event == "got";
        let mut begun = part.iter().enumerate().filter(got).take(3);
        let begun = begun.find(|(_, e)| e.number == Some(first));
        let (begun, _) = begun.unwrap_or_else(|| panic!("it does not begin with {first}: {part:?}"));
        Self(part[begun..].to_vec())
    }

    /// Numbers of one kind of event, with the wall time of each. Panics where a picture is damaged.
    pub fn of(&self, event: &str) -> Vec<(i64, f64)> {
        let of = self.0.iter().filter(|e| e.event == event);
        let numbered = of.map(|e| {
            (
                e.number
                    .unwrap_or_else(|| panic!("a damaged picture: {e:?} in {self:?}")),
                e.at,
            )
        });
        numbered.collect()
    }

    /// Numbers of one kind of event.
    pub fn numbers(&self, event: &str) -> Vec<i64> {
        self.of(event).into_iter().map(|(n, _)| n).collect()
    }

    /// What was known of the presentation: length in seconds and whether it can be sought in.
    pub fn opened(&self) -> (Option<f64>, bool) {
        let open = self.0.iter().find(|e| e.event == "open");
        let open = open.unwrap_or_else(|| panic!("GStreamer did not open it: {self:?}"));
        (open.value["length"].as_f64(), open.value["seekable"] == true)
    }
}

/// GStreamer's rtspsrc, driven by commands. `options` are the transport and properties of rtspsrc.
pub fn gstreamer(url: &str, options: &str, commands: &[&str], dir: &Path, name: &str) -> GstLog {
    let pictures = dir.join(format!("{name}.gray"));
    let mut command = Command::new("timeout");
    command
        .env("GST_PLAYER_PICTURES", &pictures)
        .args(["-k", "5", "90", "/usr/bin/python3"])
        .arg(root().join("tests/sources/gst_player.py"))
        .args([url, options])
        .args(commands);
    let out = run(&mut command);
    let mut drawn = drawn_numbers(&std::fs::read(pictures).unwrap()).into_iter();
    let text = String::from_utf8(out.stdout).unwrap();
    let events = text.lines().map(|line| {
        let value: Value = serde_json::from_str(line).unwrap();
        let event = value["event"].as_str().unwrap().to_owned();
        assert_ne!(event, "error", "{line}\n{text}");
        GstEvent {
            at: value["at"].as_f64().unwrap(),
            number: match event.as_str() {
                "got" => value["n"].as_i64(),
                "shown" => drawn.next().flatten(),
                _ => None,
            },
            event,
            value,
        }
    });
    GstLog(events.collect())
}

/// mpv without a window, driven through its socket.
pub struct Mpv {
    _process: Guarded,
    socket: BufReader<UnixStream>,
    picture: PathBuf,
    requests: i64,
    /// How often it has begun to show something.
    restarts: u64,
}

impl Mpv {
    /// Opens a URL in pause and waits for its first picture.
    pub fn open(url: &str, dir: &Path, name: &str, options: &[&str]) -> Self {
        let path = dir.join(format!("{name}.mpv"));
        let mut command = Command::new("mpv");
        command.args(["--no-config", "--vo=null", "--ao=null", "--pause", "--keep-open=yes"]);
        command.args(["--msg-level=all=error", "--osd-level=0"]).args(options);
        command
            .arg(format!("--input-ipc-server={}", path.display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let process = Guarded(command.spawn().expect("mpv"));
        let limit = Duration::from_secs(20);
        let socket = wait_for("mpv's socket", limit, || UnixStream::connect(&path).ok());
        socket.set_read_timeout(Some(limit)).unwrap();
        let mut mpv = Self {
            _process: process,
            socket: BufReader::new(socket),
            picture: dir.join(format!("{name}.png")),
            requests: 0,
            restarts: 0,
        };
        mpv.wait_shown();
        mpv
    }

    /// Sends a command; `None` if mpv refuses it.
    pub fn command(&mut self, command: &Value) -> Option<Value> {
        self.requests += 1;
        let request = json!({"command": command, "request_id": self.requests});
        writeln!(self.socket.get_mut(), "{request}").unwrap();
        loop {
            let answer = self.read();
            if answer["request_id"] == self.requests && !answer["error"].is_null() {
                return (answer["error"] == "success").then(|| answer["data"].clone());
            }
        }
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        assert!(self.socket.read_line(&mut line).unwrap() > 0, "mpv is gone");
        let message: Value = serde_json::from_str(&line).unwrap();
        if message["event"] == "playback-restart" {
            self.restarts += 1;
        }
        message
    }

    /// A property; `None` while there is none.
    pub fn get(&mut self, property: &str) -> Option<Value> {
        self.command(&json!(["get_property", property]))
            .filter(|v| !v.is_null())
    }

    /// A property in seconds.
    pub fn seconds(&mut self, property: &str) -> f64 {
        let limit = Duration::from_secs(20);
        wait_for(property, limit, || self.get(property).and_then(|v| v.as_f64()))
    }

    /// Seeks and waits for the picture there. Returns its position.
    pub fn seek(&mut self, to: f64) -> f64 {
        self.wait_shown();
        let before = self.restarts;
        self.command(&json!(["seek", to, "absolute+exact"])).unwrap();
        while self.restarts == before {
            self.read();
        }
        self.seconds("time-pos")
    }

    /// One picture forward (1) or back (-1); waits until another one is shown.
    pub fn step(&mut self, by: i64) -> i64 {
        let before = self.number();
        let word = if by > 0 { "frame-step" } else { "frame-back-step" };
        self.command(&json!([word])).unwrap();
        wait_for(word, Duration::from_secs(20), || {
            let now = self.number();
            (now != before).then_some(now)
        })
    }

    /// Plays for so long, in wall time, and pauses again.
    pub fn play(&mut self, time: Duration) {
        self.command(&json!(["set_property", "pause", false])).unwrap();
        std::thread::sleep(time);
        self.command(&json!(["set_property", "pause", true])).unwrap();
    }

    fn wait_shown(&mut self) {
        while self.restarts == 0 {
            self.read();
        }
        wait_for("a picture in mpv", Duration::from_secs(20), || {
            self.screenshot().then_some(())
        });
    }

    fn screenshot(&mut self) -> bool {
        let path = self.picture.to_str().unwrap().to_owned();
        self.command(&json!(["screenshot-to-file", path, "video"])).is_some()
    }

    /// The number that is drawn in the picture on the screen.
    pub fn number(&mut self) -> i64 {
        assert!(self.screenshot(), "mpv shows nothing");
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-v", "error", "-i"]).arg(&self.picture);
        let gray = run(ffmpeg.args(["-pix_fmt", "gray", "-f", "rawvideo", "-"])).stdout;
        drawn_number(&gray).expect("the picture in mpv is damaged")
    }
}
