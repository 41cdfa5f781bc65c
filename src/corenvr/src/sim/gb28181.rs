//! A simulated GB28181 device by hand: the command line's wishes, and what happens to the device as log lines.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use corenvr_gb28181_device::{ArchiveSpan, Deviations, Device, DeviceConfig, Event, SipText, SipTransport, Source};
use corenvr_media::WallTime;
use corenvr_shard::time;

use super::{SimError, load};

/// How often the device's log is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// The pause after a refused registration: the standard's 60 s are long for somebody who watches.
const REGISTER_RETRY: Duration = Duration::from_secs(10);

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Options {
    /// The platform's SIP address.
    pub server: SocketAddr,
    /// The platform's 20 digits.
    pub server_id: String,
    /// The device's 20 digits.
    pub device_id: String,
    /// The user of the registration; `None`: the device's digits.
    pub username: Option<String>,
    /// The password of the registration.
    pub password: String,
    /// How many channels it has.
    pub channels: u32,
    /// SIP over what.
    pub transport: SipTransport,
    /// What it does wrong.
    pub deviations: Deviations,
    /// How far its own archive goes back.
    pub archive: Duration,
    /// What it shows; `None`: the built-in clip.
    pub file: Option<PathBuf>,
}

/// Runs a device until a signal comes.
pub fn run(options: Options) -> Result<(), SimError> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT])
        .map_err(SimError::Signals)?;
    let clip = load(options.file.as_ref())?;
    let frames = clip.steps.iter().map(|s| (s.due_us, s.shown_us, &s.frame));
    let source = Arc::new(Source::from_frames(&clip.tracks, frames, clip.duration)?);
    let (server, device_id) = (options.server, options.device_id);
    let mut config = DeviceConfig::new(server, &options.server_id, &device_id, &options.password, source);
    config.channels = DeviceConfig::channels_of(&device_id, options.channels);
    config.username = options.username;
    config.transport = options.transport;
    config.deviations = options.deviations;
    config.register_retry = REGISTER_RETRY;
    // Nobody compares access units here, and they would fill the memory.
    config.log_units = false;
    let now = WallTime::from_micros(time::wall_now_micros());
    if !options.archive.is_zero() {
        config.archive = vec![ArchiveSpan {
            start: now - options.archive,
            end: now,
        }];
    }
    let device = Device::start(config).map_err(SimError::Socket)?;
    tracing::info!(device = %device_id, channels = options.channels, %server, "the simulated device registers");
    while signals.pending().next().is_none() {
        let news = device.log().take();
        for SipText { sent, text, .. } in news.sip {
            tracing::debug!("{}\n{text}", if sent { "sent" } else { "received" });
        }
        for event in news.events {
            tell(&event.event);
        }
        std::thread::sleep(LOOK);
    }
    tracing::info!("stopping");
    Ok(())
}

fn tell(event: &Event) {
    match event {
        Event::RegisterRefused(401 | 403) => {
            tracing::warn!("the platform refuses the registration: check --device, --username and --password");
        }
        Event::Unanswered("REGISTER") => tracing::warn!("the platform does not answer: check --server and --transport"),
        Event::Keepalive(200) => {}
        other => tracing::info!("{other:?}"),
    }
}
