//! What goes into the platform and what comes out of it: settings, commands, events, and what is known of each device.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;
use corenvr_media::WallTime;
use serde::{Deserialize, Serialize};

use crate::gb28181::{
    id::DeviceId,
    manscdp::{Alarm, DeviceInfo, DeviceStatus, RecordItem, RecordQuery},
    mansrtsp,
    sdp::{self, MediaTransport, SessionKind, StreamChoice},
};

/// Passwords of the configured devices; `None`: the device uses the platform's.
pub type Accounts = HashMap<DeviceId, Option<String>>;

/// What becomes of a device that nobody configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownDevices {
    /// It is asked for the password, answered 403, and shown by [`Platform::refused`](super::Platform::refused) with whether it knew
    /// the password, so that the operator can add it.
    #[default]
    Pending,
    /// With the platform's password it is registered like a configured one.
    Accept,
    /// It is answered 403 without being asked for anything.
    Reject,
}

/// The platform's settings.
#[derive(Clone)]
pub struct PlatformConfig {
    /// The platform's own identity, 20 digits with type 200.
    pub id: DeviceId,
    /// The SIP domain, which is the realm of digests too; 10 digits as a rule.
    pub domain: String,
    /// The address that devices are told (Via, Contact, SDP); `None`: the local address that the device has reached.
    pub announce: Option<IpAddr>,
    /// Whether the answer to REGISTER carries the time, by which many devices set their clocks.
    pub send_date: bool,
    /// East of UTC in seconds, of that time and of every time in the bodies; by the standard Beijing's, 28 800.
    pub utc_offset_s: i32,
    /// What becomes of devices that are not among the accounts.
    pub unknown: UnknownDevices,
    /// The password of devices without one of their own. With `None` they cannot register.
    pub password: Option<String>,
}

impl fmt::Debug for PlatformConfig {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlatformConfig")
            .field("id", &self.id)
            .field("domain", &self.domain)
            .field("announce", &self.announce)
            .field("unknown", &self.unknown)
            .finish_non_exhaustive()
    }
}

/// A TCP connection, numbered by the driver; a number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// One INVITE and what comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialogId(pub u64);

/// One question to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// One datagram, from exactly this local address.
    Udp {
        /// To be sent from: the address that the device has spoken to.
        local: SocketAddr,
        /// To be sent to.
        peer: SocketAddr,
    },
    /// Bytes of a connection, in the order in which they are polled.
    Tcp(ConnectionId),
}

/// Bytes to be sent: with UDP one datagram, with TCP a whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Which way.
    pub route: Route,
    /// What.
    pub data: Bytes,
}

/// An INVITE to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invite {
    /// Who is registered.
    pub device: DeviceId,
    /// What of it is wanted: a channel of its catalog, or its own id.
    pub channel: DeviceId,
    /// Live, or which time of the device's own archive: Playback at the speed of time, which [`Platform::info`](super::Platform::info)
    /// steers, or Download as a file is fetched.
    pub kind: SessionKind,
    /// Who connects to whom.
    pub transport: MediaTransport,
    /// Our port for the media; open from now on (with [`MediaTransport::TcpActive`] it is the one we connect from, or any).
    pub media_port: u16,
    /// Main or sub stream; `None`: the device's choice.
    pub stream: Option<StreamChoice>,
    /// The RTP SSRC to ask for; `None`: a fresh one, which [`Event::Answered`] names. [`Platform::fresh_ssrc`](super::Platform::fresh_ssrc)
    /// makes one for the driver that must know it before.
    pub ssrc: Option<u32>,
}

/// A question to a device. Times are the device's local ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// All channels. The platform asks it by itself when a device comes online.
    Catalog,
    /// Manufacturer, model, firmware. The platform asks it by itself when a device comes online.
    DeviceInfo,
    /// Clock, recording, alarm state.
    DeviceStatus,
    /// What the device's archive holds of a channel.
    RecordInfo(RecordQuery),
}

/// Why a command was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Nobody of that name has ever registered.
    #[error("no device {0} has registered")]
    Unknown(DeviceId),
    /// The device is not there at present.
    #[error("device {0} is offline")]
    Offline(DeviceId),
    /// The dialog has ended, or was never answered.
    #[error("there is no session {}", .0.0)]
    NoDialog(DialogId),
    /// A table is full: too much is under way already.
    #[error("too many {0} at a time")]
    Busy(&'static str),
}

/// How a device is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SipTransport {
    /// Datagrams.
    Udp,
    /// The connection that the device has opened.
    Tcp,
}

/// A channel of a device, as its catalog has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Identity; what [`Invite::channel`] takes.
    pub id: DeviceId,
    /// Name, as people gave it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Manufacturer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub manufacturer: String,
    /// Model.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// What it belongs to: the device, a group, a region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<DeviceId>,
    /// Whether it is a node with others below it (Parental 1) and no camera.
    #[serde(default)]
    pub parental: bool,
    /// Whether the device says that the channel works; `None`: it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
}

impl Channel {
    /// Whether pictures can be asked of it. The number of a standard id decides, because cameras exist that say they have others below.
    pub fn is_camera(&self) -> bool {
        self.id.is_camera_like() && (self.id.is_standard() || !self.parental)
    }
}

/// How far the list of a device's channels is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatalogState {
    /// It has not been asked for.
    #[default]
    Unasked,
    /// It has been asked for and no part has come yet.
    Asked,
    /// Parts have come; the list holds `received` of the `announced` channels.
    Partial {
        /// How many different channels have come.
        received: usize,
        /// How many the device has announced.
        announced: usize,
    },
    /// All that was announced has come.
    Complete,
    /// The device does not answer; it is asked again from time to time.
    Silent,
}

/// What is known of a device that has registered at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Identity.
    pub id: DeviceId,
    /// Whether it is reached at present.
    pub online: bool,
    /// Since when it has been online, or offline.
    pub since: WallTime,
    /// Where it is reached.
    pub peer: SocketAddr,
    /// How it is reached.
    pub transport: SipTransport,
    /// The user name of its digest, where that is not its id.
    pub username: Option<String>,
    /// Until when it is registered, unless it refreshes.
    pub expires: WallTime,
    /// The last sign of life.
    pub last_seen: WallTime,
    /// The last keepalive.
    pub last_keepalive: Option<WallTime>,
    /// The version of the standard that it names (`X-GB-Ver`).
    pub version: Option<String>,
    /// Its software, as `User-Agent` has it.
    pub user_agent: Option<String>,
    /// Manufacturer, as its `DeviceInfo` says.
    pub manufacturer: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Firmware.
    pub firmware: Option<String>,
    /// Name, as people gave it.
    pub name: Option<String>,
    /// Channels, by id.
    pub channels: Vec<Channel>,
    /// How far the channels are known.
    pub catalog: CatalogState,
    /// Whether it reports changes of its catalog.
    pub subscribed: bool,
}

/// What is kept of a device over a restart: a device believes itself registered for hours, and is to be reached at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct KnownDevice {
    pub id: DeviceId,
    pub transport: SipTransport,
    /// Where it was reached.
    pub peer: SocketAddr,
    /// Which of our addresses it speaks to.
    pub local: SocketAddr,
    /// Unix milliseconds.
    pub expires_ms: i64,
    /// The Call-ID of its registration, which a device that restarts changes.
    #[serde(default)]
    pub call_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<Channel>,
}

/// Why somebody was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum RefusedWhy {
    /// A device that is not configured, and unknown ones are rejected.
    #[error("not configured")]
    Unknown,
    /// A device that is not configured and knows the platform's password.
    #[error("not configured yet; it knows the platform's password")]
    Pending,
    /// The digest does not match.
    #[error("wrong password")]
    WrongPassword,
    /// Neither the device nor the platform has a password set.
    #[error("no password is set for it, neither its own nor the platform's")]
    NoPassword,
    /// The login cannot be read, or uses another algorithm than was offered.
    #[error("its login cannot be read or uses an algorithm that was not offered")]
    Malformed,
    /// It sends requests without having registered.
    #[error("it has not registered")]
    NotRegistered,
    /// It speaks from another address than the one it registered from; it must register again.
    #[error("it speaks from another address than it registered from")]
    OtherAddress,
    /// No room for another device.
    #[error("too many devices")]
    Full,
}

/// Somebody who was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Who it said it was.
    pub id: DeviceId,
    /// Where it called from last.
    pub peer: SocketAddr,
    /// First time.
    pub first: WallTime,
    /// Last time.
    pub last: WallTime,
    /// How often.
    pub count: u64,
    /// Why, the last time.
    pub why: RefusedWhy,
}

/// What was dropped without an answer, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Messages of addresses that sent more than their share.
    pub flooded: u64,
    /// What could not be read as SIP.
    pub malformed: u64,
    /// Connections that were closed because of what came over them, or because nothing did.
    pub connections_closed: u64,
}

/// Why a device is offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OfflineWhy {
    /// It has said goodbye (REGISTER with Expires 0).
    #[error("it has unregistered")]
    Unregistered,
    /// Its registration ran out.
    #[error("its registration has expired")]
    Expired,
    /// No sign of life for three keepalive intervals.
    #[error("no keepalive")]
    Silent,
    /// Its TCP connection is closed.
    #[error("its connection is lost")]
    ConnectionLost,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndedWhy {
    /// The device has sent BYE.
    #[error("ended by the device")]
    Bye,
    /// `MediaStatus` 121: everything that was asked for has been sent. What is still on its way may be taken for
    /// [`MEDIA_STATUS_BYE_DELAY`](super::MEDIA_STATUS_BYE_DELAY); then the platform sends BYE by itself.
    #[error("all of it has been sent")]
    Complete,
    /// The device has unregistered.
    #[error("the device has unregistered")]
    Unregistered,
    /// The device does not know the session any more (481).
    #[error("the device has forgotten the session")]
    Forgotten,
}

/// The result of a question.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryResult {
    /// The catalog is in [`Platform::device`](super::Platform::device), with this many channels.
    Catalog {
        /// Channels that have come.
        channels: usize,
        /// Whether they are all.
        complete: bool,
    },
    /// What the device is.
    DeviceInfo(DeviceInfo),
    /// How the device is.
    DeviceStatus(DeviceStatus),
    /// What its archive holds.
    Records {
        /// In the order in which they came, each once.
        items: Vec<RecordItem>,
        /// Whether they are all that the device has announced.
        complete: bool,
    },
    /// No answer that could be used.
    Failed {
        /// For people.
        reason: String,
    },
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A device can be reached now. Its sessions of before may still be there if it was only silent.
    Online(DeviceId),
    /// A device cannot be reached. Only [`OfflineWhy::Unregistered`] ends its sessions (each with [`Event::Ended`]): with every other
    /// reason the media may still flow, and it is the driver that sees whether it does.
    Offline {
        /// Which.
        device: DeviceId,
        /// Why.
        why: OfflineWhy,
    },
    /// A device that is online has another address, or another registration (some devices begin a new one at every refresh, others
    /// only when they restart). Sessions whose media has stopped must be invited again.
    Moved(DeviceId),
    /// Its channels have changed: [`Platform::device`](super::Platform::device) has them.
    CatalogChanged(DeviceId),
    /// An INVITE was accepted; the session runs, and the ACK is on its way.
    Answered {
        /// Which.
        dialog: DialogId,
        /// The device's side of it.
        answer: sdp::Answer,
        /// The SSRC that was asked for; the device may use the one of the answer, or any.
        ssrc: u32,
        /// The address of the device's SIP messages, from which the media comes as a rule.
        source: IpAddr,
    },
    /// An INVITE came to nothing; the dialog is gone.
    InviteFailed {
        /// Which.
        dialog: DialogId,
        /// The device's answer; `None`: it gave none in time, or one that cannot be used.
        status: Option<u16>,
        /// For people.
        reason: String,
    },
    /// A session ended by itself; the dialog is gone. Never after [`Platform::bye`](super::Platform::bye).
    Ended {
        /// Which.
        dialog: DialogId,
        /// Why.
        why: EndedWhy,
    },
    /// What became of [`Platform::info`](super::Platform::info). Over UDP one answer may overtake another.
    InfoAnswered {
        /// Which.
        dialog: DialogId,
        /// The SIP status; `None`: no answer.
        status: Option<u16>,
        /// The MANSRTSP answer, if the device gave one: most give none.
        answer: Option<mansrtsp::Response>,
    },
    /// A question was answered, or will not be.
    QueryDone {
        /// Which.
        query: QueryId,
        /// The answer.
        result: QueryResult,
    },
    /// A device reports an alarm. It has been answered already.
    Alarm {
        /// Who is registered.
        device: DeviceId,
        /// What it is about: a channel, an alarm input, or the device itself; `None`: it does not say.
        source: Option<DeviceId>,
        /// What.
        alarm: Alarm,
    },
    /// What [`Platform::known`](super::Platform::known) gives has changed.
    Persist,
}
