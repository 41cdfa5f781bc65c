//! What the recorder tells of each camera: its state, counters and streams. Plain data, ready to be printed as JSON.

use corenvr_media::{CameraName, CodecParameters, WallTime};
use serde::Serialize;

/// What a camera is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum CameraState {
    /// The connection is being made, or the first key frame has not come yet.
    Connecting {
        /// Since when.
        since: WallTime,
    },
    /// It has to come to us, and has not: a device that is not registered, an encoder that does not push.
    Waiting {
        /// For what, in words, with what can be done about it.
        reason: String,
        /// Since when.
        since: WallTime,
    },
    /// Frames come and are written.
    Recording {
        /// Since when.
        since: WallTime,
    },
    /// It cannot be reached or stopped sending. Tried again for ever.
    Down {
        /// Why, in words, with the remedy where there is one.
        reason: String,
        /// Since when.
        since: WallTime,
        /// When it is tried again.
        next_try: WallTime,
    },
    /// It answers, and what it answers cannot be recorded without a change of settings: the password is wrong, or there is no
    /// video that this version knows. Tried again slowly.
    Refused {
        /// Why, in words, with the remedy.
        reason: String,
        /// Since when.
        since: WallTime,
        /// When it is tried again.
        next_try: WallTime,
    },
    /// Its stream made us fail inside twice in a row. Left alone for a while, so that the others are safe.
    Quarantined {
        /// What failed.
        reason: String,
        /// When it is tried again.
        until: WallTime,
    },
    /// Its settings say that it is not to be recorded.
    Disabled,
}

impl CameraState {
    /// One word: `connecting`, `waiting`, `recording`, `down`, `refused`, `quarantined`, `disabled`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connecting { .. } => "connecting",
            Self::Waiting { .. } => "waiting",
            Self::Recording { .. } => "recording",
            Self::Down { .. } => "down",
            Self::Refused { .. } => "refused",
            Self::Quarantined { .. } => "quarantined",
            Self::Disabled => "disabled",
        }
    }
}

/// A track that is being recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StreamInfo {
    /// `H264`, `AAC` and so on.
    pub codec: String,
    /// Whether it is a video track.
    pub video: bool,
    /// Pixels; 0 for audio.
    pub width: u32,
    /// Pixels; 0 for audio.
    pub height: u32,
    /// Samples per second; 0 for video.
    pub sample_rate: u32,
    /// Channels; 0 for video.
    pub channels: u8,
}

impl From<&CodecParameters> for StreamInfo {
    fn from(parameters: &CodecParameters) -> Self {
        let codec = parameters.codec_name().to_owned();
        match parameters {
            CodecParameters::Video(v) => Self {
                codec,
                video: true,
                width: v.width,
                height: v.height,
                ..Self::default()
            },
            CodecParameters::Audio(a) => Self {
                codec,
                sample_rate: a.sample_rate,
                channels: a.channels,
                ..Self::default()
            },
        }
    }
}

/// Counts since the camera's settings were applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Counters {
    /// Frames received, all tracks.
    pub frames: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Frames that are durable on disk.
    pub frames_durable: u64,
    /// Video frames per second, over the last seconds.
    pub fps: f64,
    /// Payload bits per second, over the last seconds.
    pub bitrate_bps: u64,
    /// RTP packets lost.
    pub packets_lost: u64,
    /// RTP packets that came too late or twice.
    pub packets_late: u64,
    /// Packets that are not what their format says.
    pub packets_malformed: u64,
    /// Frames that lost packets may have damaged; they are recorded all the same.
    pub frames_damaged: u64,
    /// Frames that came before the first key frame of a connection; nothing could be decoded from them.
    pub frames_before_key: u64,
    /// Frames that came faster than the disk took them, and were dropped.
    pub frames_dropped: u64,
    /// How much faster the camera's clock runs than the host's, in parts per million.
    pub clock_drift_ppm: f64,
    /// Jumps of the camera's time stamps and of the host's clock that were bridged.
    pub clock_jumps: u64,
    /// How far the newest frame lies behind the host's clock as it came, in milliseconds.
    pub lag_ms: i64,
    /// Segments started.
    pub segments: u64,
    /// Connections made.
    pub connects: u64,
    /// Failures inside that were contained.
    pub panics: u64,
    /// Live subscribers.
    pub subscribers: u64,
    /// Frame bytes that wait for the disk.
    pub queued_bytes: u64,
}

/// All there is to say about a camera.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CameraStatus {
    /// Its name.
    pub name: CameraName,
    /// The shard that owns it.
    pub shard: u16,
    /// Where its stream comes from, without user and password.
    pub source: String,
    /// What it is doing.
    #[serde(flatten)]
    pub state: CameraState,
    /// How the media comes: `tcp`, `udp`, `tcp-passive`, `tcp-active`. Absent while nothing comes.
    pub transport: Option<&'static str>,
    /// The tracks.
    pub streams: Vec<StreamInfo>,
    /// What else the camera offered and is not recorded, in words.
    pub not_recorded: Vec<String>,
    /// Time of the newest frame.
    pub last_frame: Option<WallTime>,
    /// Why its frames cannot be written at the moment, if so.
    pub disk_error: Option<String>,
    /// Counts.
    pub counters: Counters,
}
