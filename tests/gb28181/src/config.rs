//! What a simulated device is told: who it is, where its platform is, what it shows and what it does wrong.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use corenvr_media::WallTime;

use crate::{Deviations, Source};

/// How the device speaks SIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum SipTransport {
    #[default]
    Udp,
    Tcp,
}

/// One channel of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelConfig {
    /// 20 digits.
    pub id: String,
    /// The name in the catalog; any script.
    pub name: String,
}

/// A time span that the device's own archive holds. Footage has the time line of the wall clock: the same moment is the same access unit
/// of the source, however often it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveSpan {
    /// The first moment.
    pub start: WallTime,
    /// Behind the last moment.
    pub end: WallTime,
}

/// How often packets are lost, late or sent twice where [`Deviation::Loss`](crate::Deviation::Loss) and its kin are on.
/// The pattern follows from `seed`, and the log says which packets it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Impairment {
    /// Where the pattern begins.
    pub seed: u64,
    /// Packets in a thousand that are not sent.
    pub lost_permille: u16,
    /// Packets in a thousand that are sent a few packets late.
    pub reordered_permille: u16,
    /// Packets in a thousand that are sent twice.
    pub duplicated_permille: u16,
}

impl Default for Impairment {
    fn default() -> Self {
        Self {
            seed: 1,
            lost_permille: 5,
            reordered_permille: 20,
            duplicated_permille: 20,
        }
    }
}

/// Everything about a device. [`DeviceConfig::new`] fills in what a well-behaved camera with one channel would do.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// The platform's SIP address.
    pub server: SocketAddr,
    /// The platform's 20 digits.
    pub server_id: String,
    /// The SIP domain: the first 10 digits of `server_id` unless the platform says otherwise.
    pub domain: String,
    /// The device's 20 digits.
    pub device_id: String,
    /// The name that `DeviceInfo` gives.
    pub device_name: String,
    /// The catalog; may be empty.
    pub channels: Vec<ChannelConfig>,
    /// The user name of the digest; `None`: the device's id.
    pub username: Option<String>,
    /// The password of the digest.
    pub password: String,
    /// SIP over what.
    pub transport: SipTransport,
    /// The address that the device binds and announces.
    pub local_ip: IpAddr,
    /// Time between keepalives.
    pub keepalive: Duration,
    /// How long a registration is to last; it is refreshed at 80 % of what the platform grants.
    pub expires: Duration,
    /// Time before a refused or unanswered registration is tried again (60 s at least by the standard, less in tests).
    pub register_retry: Duration,
    /// The device's time zone, in seconds east of Greenwich: times in XML have no zone.
    pub utc_offset_s: i32,
    /// What it does otherwise than the standard says.
    pub deviations: Deviations,
    /// The rates of loss, reordering and duplication, where these are switched on.
    pub impairment: Impairment,
    /// What every channel shows.
    pub source: Arc<Source>,
    /// What the device has recorded of every channel, in order of time.
    pub archive: Vec<ArchiveSpan>,
    /// Whether a device that is dropped says goodbye (BYE, REGISTER with Expires 0) or just falls silent.
    pub unregister_on_drop: bool,
    /// Whether each access unit is noted in the log; a load generator that runs for hours turns it off.
    pub log_units: bool,
}

impl DeviceConfig {
    /// A camera with one channel that has the camera's own id with type 131, over UDP, with nothing wrong and no archive.
    pub fn new(server: SocketAddr, server_id: &str, device_id: &str, password: &str, source: Arc<Source>) -> Self {
        let local_ip = if server.ip().is_loopback() {
            server.ip()
        } else {
            outward_ip(server)
        };
        Self {
            server,
            server_id: server_id.into(),
            domain: server_id.chars().take(10).collect(),
            device_id: device_id.into(),
            device_name: "Simulated device".into(),
            channels: Self::channels_of(device_id, 1),
            username: None,
            password: password.into(),
            transport: SipTransport::Udp,
            local_ip,
            keepalive: Duration::from_secs(60),
            expires: Duration::from_secs(86_400),
            register_retry: Duration::from_secs(60),
            utc_offset_s: 8 * 3600,
            deviations: Deviations::default(),
            impairment: Impairment::default(),
            source,
            archive: Vec::new(),
            unregister_on_drop: true,
            log_units: true,
        }
    }

    /// Channels of type 131 with serials from 1, in the device's domain: `Camera 1` to `Camera count`.
    pub fn channels_of(device_id: &str, count: u32) -> Vec<ChannelConfig> {
        let domain: String = device_id.chars().take(10).collect();
        let channel = |n| ChannelConfig {
            id: format!("{domain}131{:07}", 1_000_000 + n),
            name: format!("Camera {n}"),
        };
        (1..=count).map(channel).collect()
    }
}

/// The address from which this machine reaches `server`; without a route, the loopback.
fn outward_ip(server: SocketAddr) -> IpAddr {
    let any: SocketAddr = if server.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    // Connecting a UDP socket sends nothing, it only asks for a route.
    std::net::UdpSocket::bind(any)
        .and_then(|s| s.connect(server).and_then(|()| s.local_addr()))
        .map_or(std::net::Ipv4Addr::LOCALHOST.into(), |a| a.ip())
}
