//! A simulated GB28181 device: a camera or recorder with any number of channels, that registers at a platform, answers its questions and
//! sends media, over real sockets, as GB/T 28181-2016 and -2022 say or, by [`Deviation`], as real devices do it wrong.
//!
//! It shares no code with the platform's side: SIP text, digest, XML, SDP, MPEG-PS and RTP are written here from the standards, so that a
//! mistake of the platform is not mirrored. It runs on plain threads: one that speaks SIP, one that reads the SIP socket, one that sends the
//! media of all channels.
//!
//! ```no_run
//! use std::time::Duration;
//! use corenvr_gb28181_device::{Device, DeviceConfig, Deviation, clips};
//! use corenvr_media::{AudioCodec, VideoCodec};
//! let clip = clips::encoded(VideoCodec::H264, Some(AudioCodec::Pcma), 4);
//! let mut config = DeviceConfig::new("127.0.0.1:5060".parse().unwrap(), "34020000002000000001", "34020000001320000001", "secret", clip);
//! config.deviations.insert(Deviation::MapMissing);
//! let device = Device::start(config).unwrap();
//! assert!(device.wait_registered(Duration::from_secs(10)));
//! let session = device.wait_invite(Duration::from_secs(10)).unwrap();
//! device.wait_units(session, 50, Duration::from_secs(10));
//! for unit in device.log().session(session).unwrap().units {
//!     println!("{:?} {} {:x?}", unit.track, unit.pts_90k, unit.slices_sha256);
//! }
//! ```

pub mod clips;
mod config;
mod deviation;
mod device;
mod log;
mod media;
mod sip;
mod source;
#[cfg(test)]
mod tests;

pub use config::{ArchiveSpan, ChannelConfig, DeviceConfig, Impairment, SipTransport};
pub use deviation::{Deviation, Deviations, UnknownDeviation};
pub use device::{Alarm, Device};
pub use log::{
    EndCause, Event, Log, LogState, LoggedEvent, MediaTransport, SessionId, SessionKind, SessionLog, SessionState,
    SipText, UnitLog,
};
pub use source::{Source, SourceError, SourceUnit, Track, UnitData};
