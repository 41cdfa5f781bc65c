//! What the command line reads of the recorder's answers. Fields that are missing have their default, so that a newer
//! recorder's answer can still be shown.

use std::fmt::Write as _;

use corenvr_media::WallTime;
use serde::Deserialize;

use crate::admin::api::ShareView;

/// A camera's status.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CameraStatus {
    pub name: String,
    pub shard: u16,
    pub state: String,
    pub reason: Option<String>,
    pub since: Option<WallTime>,
    pub next_try: Option<WallTime>,
    pub transport: Option<String>,
    pub streams: Vec<Stream>,
    pub not_recorded: Vec<String>,
    pub last_frame: Option<WallTime>,
    pub disk_error: Option<String>,
    pub counters: Counters,
}

/// A track.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Stream {
    pub codec: String,
    pub video: bool,
    pub width: u32,
    pub height: u32,
    pub sample_rate: u32,
    pub channels: u8,
    pub fps: Option<f64>,
    pub bitrate_bps: u64,
}

/// A camera's counters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Counters {
    pub fps: f64,
    pub bitrate_bps: u64,
    pub packets_lost: u64,
    pub frames_damaged: u64,
    pub frames_dropped: u64,
    pub lag_ms: i64,
    pub connects: u64,
    pub subscribers: u64,
}

/// A probe's report.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Probe {
    pub streams: Vec<Stream>,
    pub not_recorded: Vec<String>,
    pub transport: String,
}

/// A timeline.
#[derive(Debug, Deserialize)]
pub struct Timeline {
    pub spans: Vec<Span>,
    pub gaps: Vec<Gap>,
    pub bytes: u64,
    pub more_from: Option<WallTime>,
}

/// Footage.
#[derive(Debug, Deserialize)]
pub struct Span {
    pub start: WallTime,
    pub end: WallTime,
    pub bytes: u64,
    pub open: bool,
    #[serde(default)]
    pub backfilled: bool,
}

/// No footage.
#[derive(Debug, Deserialize)]
pub struct Gap {
    pub start: WallTime,
    pub end: WallTime,
    pub cause: String,
}

/// The viewers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Playback {
    pub sessions: Vec<Session>,
}

/// A viewer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Session {
    pub id: u64,
    pub peer: String,
    pub agent: String,
    pub camera: String,
    pub kind: String,
    pub transport: String,
    pub playing: bool,
    pub position: Option<WallTime>,
    /// Footage time over wall time; negative in reverse.
    #[serde(default)]
    pub rate: f64,
    pub age_s: u64,
    pub bitrate: u64,
    pub skipped: u64,
}

impl Stream {
    /// `H264 1920x1080`, `AAC 48 kHz stereo`.
    pub fn show(&self) -> String {
        let mut text = self.codec.clone();
        if self.video {
            let _ = write!(text, " {}x{}", self.width, self.height);
        } else {
            let channels = match self.channels {
                1 => " mono".to_owned(),
                2 => " stereo".to_owned(),
                n => format!(" {n} channels"),
            };
            let _ = write!(text, " {} kHz{channels}", f64::from(self.sample_rate) / 1000.0);
        }
        text
    }
}

/// `99.93%`: never rounded up to a hundred while something is missing.
pub fn show_share(share: Option<&ShareView>) -> String {
    share.map_or_else(
        || "-".to_owned(),
        |s| format!("{:.2}%", (s.ratio * 10_000.0).floor() / 100.0),
    )
}

/// `4.1 Mbit/s`
pub fn show_bitrate(bits_per_second: u64) -> String {
    match bits_per_second {
        0 => "-".to_owned(),
        bps if bps < 1_000_000 => format!("{} kbit/s", bps / 1000),
        bps => format!("{:.1} Mbit/s", bps as f64 / 1e6),
    }
}

/// `3d 4h`, `12m 5s`: the two largest units.
pub fn show_span(seconds: u64) -> String {
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let first = parts.iter().position(|(n, _)| *n > 0).unwrap_or(3);
    let shown: Vec<_> = parts[first..]
        .iter()
        .take(2)
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect();
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_for_people() {
        assert_eq!(show_bitrate(4_123_000), "4.1 Mbit/s");
        assert_eq!(show_bitrate(64_500), "64 kbit/s");
        let share = |ratio| ShareView {
            ratio,
            missing_s: 0.1,
            expected_s: 86_400.0,
        };
        assert_eq!(show_share(Some(&share(0.999_999))), "99.99%");
        assert_eq!(show_share(Some(&share(1.0))), "100.00%");
        assert_eq!(show_share(None), "-");
        assert_eq!(show_span(0), "0s");
        assert_eq!(show_span(725), "12m 5s");
        assert_eq!(show_span(273_600), "3d 4h");
        let sound = Stream {
            codec: "AAC".into(),
            sample_rate: 44_100,
            channels: 2,
            ..Stream::default()
        };
        assert_eq!(sound.show(), "AAC 44.1 kHz stereo");
    }
}
