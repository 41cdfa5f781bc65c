//! Real players as clients, each saving what it received.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    frames::{Prints, annex_b_slices},
    process::{Guarded, run},
};

/// ffmpeg over TCP or UDP: the slices and the audio bytes of what `url` gives until its end, at most `limit`.
///
/// It saves elementary streams: from RTP it learns no decode times, and a container would refuse B frames without them.
pub fn ffmpeg(url: &str, transport: &str, hevc: bool, to: &Path, limit: Duration) -> Prints {
    let (video, audio) = (to.with_extension("video"), to.with_extension("audio"));
    let mut command = Command::new("timeout");
    command.args([
        "-k",
        "5",
        &limit.as_secs().to_string(),
        "ffmpeg",
        "-v",
        "fatal",
        "-y",
        "-rtsp_transport",
        transport,
        "-i",
        url,
    ]);
    command
        .args(["-map", "0:v:0", "-c", "copy", "-f", if hevc { "hevc" } else { "h264" }])
        .arg(&video);
    command.args(["-map", "0:a:0", "-c", "copy", "-f", "data"]).arg(&audio);
    run(&mut command);
    Prints {
        video: annex_b_slices(&std::fs::read(video).unwrap(), hevc),
        audio: Vec::new(),
        audio_bytes: std::fs::read(audio).unwrap(),
    }
}

/// GStreamer's rtspsrc over TCP or UDP: the video track's slices, until the server says that it is over. The recording has sound.
pub fn gstreamer(url: &str, transport: &str, hevc: bool, to: &Path, limit: Duration) -> Vec<u64> {
    let codec = if hevc { "h265" } else { "h264" };
    let mut command = Command::new("timeout");
    command.args([
        "-k",
        "5",
        &limit.as_secs().to_string(),
        "gst-launch-1.0",
        "-q",
        "rtspsrc",
        "name=s",
    ]);
    command
        .arg(format!("location={url}"))
        .arg(format!("protocols={transport}"))
        // The certificates of tests are signed by themselves.
        .arg("tls-validation-flags=0")
        .args(["latency=500"]);
    command.args([
        "s.",
        "!",
        "application/x-rtp,media=audio",
        "!",
        "queue",
        "!",
        "fakesink",
        "async=false",
    ]);
    command.args([
        "s.",
        "!",
        &format!("application/x-rtp,media=video,encoding-name={}", codec.to_uppercase()),
    ]);
    command.args(["!", &format!("rtp{codec}depay"), "!", &format!("{codec}parse"), "!"]);
    command.arg(format!("video/x-{codec},stream-format=byte-stream,alignment=au"));
    command
        .args(["!", "filesink"])
        .arg(format!("location={}", to.display()));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    // Now and then it finds its connection closed when it pauses at the end. What it has received by then is judged by the caller.
    let late = words.contains("gst_rtspsrc_pause") && words.contains("end-of-file");
    assert!(
        output.status.success() || late,
        "{command:?} failed with {}\n{words}",
        output.status
    );
    annex_b_slices(&std::fs::read(to).unwrap(), hevc)
}

/// Decodes a file completely; panics if the decoder complains.
pub fn assert_decodes(path: &Path) {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-v", "error", "-xerror", "-i"])
        .arg(path)
        // In the frame rate's own units two pictures 39 ms apart can fall on the same tick, which is nothing to complain about.
        .args(["-map", "0", "-enc_time_base:v", "-1", "-f", "null", "-"]);
    let out = run(&mut command);
    let complaints = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(complaints.trim().is_empty(), "{}: {complaints}", path.display());
}

/// What ffprobe says of a file's container: panics if it cannot open it or complains.
pub fn assert_opens(path: &Path) {
    let mut command = Command::new("ffprobe");
    command
        .args([
            "-v",
            "warning",
            "-count_packets",
            "-show_entries",
            "stream=codec_name,nb_read_packets",
            "-of",
            "csv=p=0",
        ])
        .arg(path);
    let out = run(&mut command);
    assert!(!out.stdout.is_empty(), "{}: no stream", path.display());
    let complaints = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(complaints.trim().is_empty(), "{}: {complaints}", path.display());
}

/// Keeps a live viewer in the background that saves the H.264 stream.
pub fn watch_live(url: &str, transport: &str, to: PathBuf) -> Guarded {
    let child = Command::new("ffmpeg")
        .args([
            "-v",
            "error",
            "-y",
            "-rtsp_transport",
            transport,
            "-i",
            url,
            "-map",
            "0:v:0",
            "-c",
            "copy",
            "-f",
            "h264",
        ])
        .arg(to)
        .stdin(Stdio::null())
        .spawn()
        .expect("ffmpeg");
    Guarded(child)
}
