//! Sources: clips made by ffmpeg, served by GStreamer's RTSP server.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::process::{Guarded, free_port, root, run};

/// What a test camera sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    H264Aac,
    H264BFramesAac,
    H265Pcma,
    H264Pcmu,
    MjpegOpus,
}

impl Kind {
    /// A word for file names and mounts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::H264Aac => "h264aac",
            Self::H264BFramesAac => "h264baac",
            Self::H265Pcma => "h265pcma",
            Self::H264Pcmu => "h264pcmu",
            Self::MjpegOpus => "mjpegopus",
        }
    }

    fn encoder(self) -> Vec<&'static str> {
        const X264: [&str; 6] = [
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-x264-params",
            "keyint=25:min-keyint=25:scenecut=0:bframes=0",
        ];
        let (video, audio): (Vec<&str>, Vec<&str>) = match self {
            Self::H264Aac => (X264.to_vec(), vec!["-c:a", "aac", "-ar", "44100"]),
            Self::H264BFramesAac => (
                vec![
                    "-c:v",
                    "libx264",
                    "-preset",
                    "superfast",
                    "-x264-params",
                    "keyint=50:min-keyint=50:scenecut=0:bframes=2:slices=2",
                ],
                vec!["-c:a", "aac", "-ar", "48000", "-ac", "2"],
            ),
            Self::H265Pcma => (
                vec![
                    "-c:v",
                    "libx265",
                    "-preset",
                    "ultrafast",
                    "-x265-params",
                    "keyint=30:min-keyint=30:scenecut=0:bframes=0:log-level=error",
                ],
                vec!["-c:a", "pcm_alaw", "-ar", "8000", "-ac", "1"],
            ),
            Self::H264Pcmu => (X264.to_vec(), vec!["-c:a", "pcm_mulaw", "-ar", "8000", "-ac", "1"]),
            // RFC 2435 carries no Huffman tables: only the standard's own can be sent.
            Self::MjpegOpus => (
                vec![
                    "-c:v", "mjpeg", "-huffman", "default", "-q:v", "9", "-pix_fmt", "yuvj420p",
                ],
                vec!["-c:a", "libopus", "-ar", "48000", "-ac", "2"],
            ),
        };
        [video, audio].concat()
    }
}

/// A clip of `seconds` in which every frame differs: 25 pictures a second with noise, and sound that never repeats.
pub fn clip(dir: &Path, kind: Kind, seconds: u32) -> PathBuf {
    let path = dir.join(format!("{}-{seconds}.mkv", kind.word()));
    if path.exists() {
        return path;
    }
    let video = format!("testsrc2=size=320x240:rate=25:duration={seconds},noise=alls=12:allf=t");
    let audio = format!("anoisesrc=duration={seconds}:sample_rate=48000:amplitude=0.3:seed=7");
    let making = path.with_extension("making.mkv");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args([
        "-v", "error", "-y", "-f", "lavfi", "-i", &video, "-f", "lavfi", "-i", &audio, "-pix_fmt", "yuv420p",
    ]);
    run(ffmpeg.args(kind.encoder()).arg("-shortest").arg(&making));
    std::fs::rename(&making, &path).unwrap();
    path
}

/// GStreamer's RTSP server with some clips.
pub struct GstCamera {
    process: Guarded,
    /// Where it listens.
    pub port: u16,
    script_args: Vec<String>,
    login: Option<String>,
}

impl GstCamera {
    /// Serves each clip at `/WORD`.
    pub fn start(clips: &[(&str, &Path)]) -> Self {
        Self::start_with_login(clips, None)
    }

    /// As [`Self::start`]; asks for `basic:USER:PASSWORD` or `digest:USER:PASSWORD`.
    pub fn start_with_login(clips: &[(&str, &Path)], login: Option<&str>) -> Self {
        let port = free_port();
        let mut args = vec![port.to_string()];
        args.extend(clips.iter().map(|(mount, path)| format!("{mount}={}", path.display())));
        Self {
            process: Self::spawn(&args, login),
            port,
            script_args: args,
            login: login.map(str::to_owned),
        }
    }

    fn spawn(args: &[String], login: Option<&str>) -> Guarded {
        let mut child = Command::new("/usr/bin/python3")
            .envs(login.map(|l| ("GST_CAMERA_LOGIN", l)))
            .arg(root().join("tests/sources/gst_camera.py"))
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 with GStreamer's RTSP server: see tests/run");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let guarded = Guarded(child);
        assert_eq!(line.trim(), "ready", "the GStreamer camera did not start");
        guarded
    }

    /// The power plug: kills the server at once.
    pub fn unplug(&mut self) {
        let _ = self.process.0.kill();
        let _ = self.process.0.wait();
    }

    /// Starts it again on the same port.
    pub fn plug_in(&mut self) {
        self.process = Self::spawn(&self.script_args, self.login.as_deref());
    }

    /// The URL of a mount.
    pub fn url(&self, mount: &str) -> String {
        format!("rtsp://127.0.0.1:{}/{mount}", self.port)
    }
}
