//! What goes over the API: the documents, shared by the recorder that writes them and the command line that reads them.

use std::path::{Path, PathBuf};

use corenvr_media::{CameraName, TimeRange, WallTime};
use corenvr_recorder::BackfillReport;
use corenvr_store::events::Event;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::CameraJson;

/// An answer that is not 2xx: a problem document (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `about:blank`: the status says what kind of failure it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What failed.
    pub detail: String,
    /// What to do about it; empty where the detail says it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// A camera: its settings without the password, where they are kept, and how it is.
#[derive(Clone, Serialize, Deserialize)]
pub struct CameraView {
    /// The settings.
    #[serde(flatten)]
    pub settings: CameraJson,
    /// Where they are kept.
    pub kept_in: KeptIn,
    /// How it is, as `corenvr_recorder::CameraStatus`; absent while it is being started.
    pub status: Option<Value>,
    /// What it takes up on disk.
    pub usage: UsageView,
    /// How complete its footage is; absent while it is off, new, or was not looked at yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completeness: Option<CompletenessView>,
}

/// Where a camera's settings are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeptIn {
    /// In the administrator's configuration file.
    Config,
    /// In the file of cameras that were added at run time.
    Added,
    /// Nowhere: it is a channel of a device whose every channel is recorded.
    Catalog,
}

/// What a camera takes up, over all storage directories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageView {
    /// Bytes.
    pub bytes: u64,
    /// Files.
    pub segments: u64,
    /// Start of the oldest footage.
    pub first: Option<WallTime>,
    /// End of the newest footage.
    pub last: Option<WallTime>,
}

/// `GET /api/v1/cameras?limit=&cursor=`
#[derive(Clone, Serialize, Deserialize)]
pub struct CameraList {
    /// The cameras that the asker may see, by name.
    pub cameras: Vec<CameraView>,
    /// Set when there are more: ask again with this as `cursor`.
    #[serde(default)]
    pub next: Option<String>,
    /// Entries of the configuration that are not in force because they are wrong.
    pub left_out: Vec<LeftOut>,
}

/// A camera that is configured and not recorded, because its entry is wrong or its storage failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Where and what.
    pub message: String,
}

/// The answer to `POST /api/v1/cameras`
#[derive(Clone, Serialize, Deserialize)]
pub struct AddedCamera {
    /// The camera.
    #[serde(flatten)]
    pub camera: CameraView,
    /// What it sent when it was tried, as `corenvr_recorder::ProbeReport`; `None` if it was not.
    pub probe: Option<Value>,
}

/// `POST /api/v1/probe`
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeRequest {
    /// The camera's URL.
    pub url: String,
    /// How the media is to come.
    #[serde(default)]
    pub transport: corenvr_recorder::TransportChoice,
}

/// `DELETE /api/v1/cameras/NAME`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Segments deleted with it; 0 without `?purge=1`.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// `GET /api/v1/cameras/NAME/segments?from=&to=&limit=&cursor=`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentList {
    /// Files with footage in the range, by start.
    pub segments: Vec<SegmentView>,
    /// Set when there are more: ask again with this as `cursor`.
    #[serde(default)]
    pub next: Option<String>,
}

/// One file of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentView {
    /// Where it is; told only to administrators, and on the machine itself. Empty, and absent in JSON, for others.
    #[serde(default, skip_serializing_if = "no_path")]
    pub path: PathBuf,
    /// Its first moment.
    pub start: WallTime,
    /// The moment after its last frame.
    pub end: WallTime,
    /// Its size; of a growing one, what is durable.
    pub bytes: u64,
    /// It still grows.
    pub open: bool,
}

fn no_path(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// `GET /api/v1/status`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it began to record.
    pub uptime_s: u64,
    /// The configuration file; told only to administrators.
    #[serde(default, skip_serializing_if = "no_path")]
    pub config: PathBuf,
    /// Where players connect without encryption.
    pub rtsp: Vec<std::net::SocketAddr>,
    /// Where players connect with TLS.
    #[serde(default)]
    pub rtsps: Vec<std::net::SocketAddr>,
    /// Where the API and the console are without encryption.
    #[serde(default)]
    pub http: Vec<std::net::SocketAddr>,
    /// Where they are with TLS.
    #[serde(default)]
    pub https: Vec<std::net::SocketAddr>,
    /// Where cameras push by RTMP; absent if that is switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtmp: Option<RtmpView>,
    /// The shards.
    pub shards: Vec<ShardView>,
    /// The cameras, as `corenvr_recorder::CameraStatus`.
    pub cameras: Vec<Value>,
    /// How complete the footage of the cameras is, of those of which it is known.
    #[serde(default)]
    pub completeness: Vec<CameraCompleteness>,
    /// The storage directories.
    pub disks: Vec<DiskView>,
    /// Viewers and counters, as `corenvr_playback::Snapshot`.
    pub playback: Value,
    /// GB28181 devices, if they may register.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gb28181: Option<DevicesView>,
    /// Crashes of the recorder that left a report, newest first.
    #[serde(default)]
    pub crashes: Vec<CrashView>,
    /// Entries of the configuration that are not in force.
    pub left_out: Vec<LeftOut>,
}

/// The RTMP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtmpView {
    /// Its addresses.
    pub listening: Vec<std::net::SocketAddr>,
    /// Who wanted to publish and was refused, the latest first.
    pub refused: Vec<corenvr_recorder::rtmp::RefusedPublisher>,
}

/// GB28181 devices in numbers; `GET /api/v1/gb28181/devices` has them all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicesView {
    /// Where devices reach us.
    pub listening: Vec<std::net::SocketAddr>,
    /// Devices that are online.
    pub online: usize,
    /// Devices that have registered and are offline.
    pub offline: usize,
    /// Who was refused of late.
    pub refused: usize,
}

/// A shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardView {
    /// `shard-0` and so on.
    pub name: String,
    /// The CPU it is pinned to; none for the control executor, which comes last in the list as `control`.
    pub cpu: Option<usize>,
    /// Share of that CPU over the last seconds, in percent.
    pub cpu_percent: f64,
    /// The same by class of task.
    pub classes: Vec<ClassView>,
    /// Tasks that held it for more than 50 ms, since the start.
    pub stalls: u64,
    /// The longest of those, in milliseconds.
    pub stall_max_ms: u64,
    /// The last of them, oldest first; at most eight.
    #[serde(default)]
    pub last_stalls: Vec<StallView>,
    /// What holds it right now, if it has been held for more than 50 ms or is not heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldView>,
    /// Tasks that failed inside and were contained.
    pub panics: u64,
    /// How long it has not been heard of, in milliseconds; about 100 at most when healthy.
    pub silent_ms: u64,
}

/// A task that held its shard for more than 50 ms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallView {
    /// When it let go.
    pub at: WallTime,
    /// The task.
    pub task: String,
    /// The camera that it works for, if it is one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera: Option<String>,
    /// `recording`, `live`, `playback` or `maintenance`.
    pub class: String,
    /// For how long, in milliseconds.
    pub took_ms: u64,
    /// What its thread was seen doing meanwhile, in words; only where it took long enough to be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
}

/// What holds a shard at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldView {
    /// The task; none if the executor itself does not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The camera that it works for, if it is one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera: Option<String>,
    /// Its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// For how long, in milliseconds.
    pub for_ms: u64,
    /// What the thread does, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
}

/// A crash of the recorder that left a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashView {
    /// When.
    pub at: WallTime,
    /// Signal, address, task, camera, version: the first line of the report.
    pub summary: String,
    /// All of it, with the call stack.
    pub report: String,
}

/// How complete the footage of a camera is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CompletenessView {
    /// Of the last hour; none if nothing should have been recorded in it.
    pub hour: Option<ShareView>,
    /// Of the last day.
    pub day: Option<ShareView>,
    /// Both windows end here.
    pub until: WallTime,
}

/// Footage that there is, of what should have been recorded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ShareView {
    /// From 0 to 1.
    pub ratio: f64,
    /// Seconds that are missing.
    pub missing_s: f64,
    /// Seconds that should have been recorded.
    pub expected_s: f64,
}

/// The completeness of a camera's footage, with its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CameraCompleteness {
    /// The camera.
    pub camera: String,
    /// Its figures.
    #[serde(flatten)]
    pub completeness: CompletenessView,
}

/// What a shard does for one class of task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassView {
    /// `recording`, `live`, `playback` or `maintenance`.
    pub class: String,
    /// Share of the CPU over the last seconds, in percent.
    pub cpu_percent: f64,
    /// Tasks alive.
    pub tasks: u64,
}

/// A storage directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiskView {
    /// The directory; told only to administrators.
    #[serde(default, skip_serializing_if = "no_path")]
    pub path: PathBuf,
    /// Why it is not in use, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Bytes of the file system.
    pub total: u64,
    /// Bytes of it that are free.
    pub free: u64,
    /// Bytes of recordings.
    pub used: u64,
    /// Bytes that are to stay free.
    pub keep_free: u64,
    /// Most bytes of recordings.
    pub max: Option<u64>,
    /// Files.
    pub segments: u64,
    /// Start of the oldest footage.
    pub oldest: Option<WallTime>,
    /// For how long the room left and the room taken last together, at the rate of now, in seconds.
    pub horizon_s: Option<u64>,
    /// Requests that wait for its index.
    pub queued: usize,
    /// The longest request to its index over the last seconds, in milliseconds.
    pub slowest_ms: u64,
    /// The longest write of footage over the last seconds, until it was durable, in milliseconds.
    #[serde(default)]
    pub write_ms: u64,
    /// Writes of footage that failed since the start.
    #[serde(default)]
    pub write_failures: u64,
}

/// `GET /api/v1/gb28181/devices`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceList {
    /// Who has registered, as `corenvr_recorder::gb28181::DeviceView`.
    pub devices: Vec<Value>,
    /// Who was refused and why, as `corenvr_recorder::gb28181::RefusedView`.
    pub refused: Vec<Value>,
}

/// `GET /api/v1/gb28181/setup`: what to type into a device's own page. Holds the password.
#[derive(Clone, Serialize, Deserialize)]
pub struct SetupView {
    /// The platform's address.
    pub server_ip: String,
    /// Its port, UDP and TCP.
    pub server_port: u16,
    /// Its identity.
    pub server_id: String,
    /// Its domain.
    pub domain: String,
    /// The password of devices without one of their own.
    pub password: String,
    /// How often a device is to say that it is there, in seconds.
    pub keepalive_s: u32,
    /// How long a registration is to hold, in seconds.
    pub expires_s: u32,
    /// Ports that media come to.
    pub media_ports: String,
}

/// `GET /api/v1/gb28181/devices/ID/records?channel=&from=&to=`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordList {
    /// What the device's own archive holds.
    pub records: Vec<RecordView>,
    /// Whether it is all that the device has announced.
    pub complete: bool,
}

/// A recording in a device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordView {
    /// Its first moment.
    pub start: WallTime,
    /// Its last.
    pub end: WallTime,
    /// `time`, `alarm`, `manual`.
    #[serde(default)]
    pub kind: Option<String>,
    /// Its size.
    #[serde(default)]
    pub bytes: Option<u64>,
}

/// What a camera is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum PtzAction {
    Left,
    Right,
    Up,
    Down,
    ZoomIn,
    ZoomOut,
    Stop,
    SetPreset,
    CallPreset,
    DeletePreset,
}

/// `POST /api/v1/cameras/NAME/ptz`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PtzRequest {
    /// What to do.
    pub action: PtzAction,
    /// How fast, in percent; 50 if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<u8>,
    /// Which preset, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<u8>,
    /// A movement stops after as many milliseconds; without it, it goes on until `stop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
}

/// `POST /api/v1/cameras/NAME/backfill`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackfillRequest {
    /// Gaps from here on are filled.
    pub from: WallTime,
    /// Up to here.
    pub to: WallTime,
}

/// The answer to that, and `GET` and `DELETE` of the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillView {
    /// The job; `None` if nothing was to be done, or none has been asked for.
    pub report: Option<BackfillReport>,
    /// Gaps of which the device's archive has nothing.
    #[serde(default)]
    pub nothing: Vec<TimeRange>,
    /// What else is to be known, in words.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// `GET /api/v1/cameras/NAME/events?from=&to=`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EventList {
    /// By time.
    pub events: Vec<Event>,
    /// Set when there are more: ask again from here.
    pub more_from: Option<WallTime>,
}

/// The path of a camera's resource.
pub fn camera_path(name: &CameraName, rest: &str) -> String {
    format!("/api/v1/cameras/{name}{rest}")
}
