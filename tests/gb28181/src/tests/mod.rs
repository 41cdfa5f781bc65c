//! The device against a platform of a few lines: what the log says is compared with what is on the wire.

mod container;
mod demux;
mod load;
mod media;
mod platform;
mod public_server;
mod signalling;

use std::{
    net::Ipv4Addr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use corenvr_media::{AudioCodec, VideoCodec};

use crate::{DeviceConfig, Source, clips};

const SERVER: &str = "34020000002000000001";
const DEVICE: &str = "34020000001320000001";
const CHANNEL: &str = "34020000001311000001";
const PATIENCE: Duration = Duration::from_secs(20);

fn h264() -> Arc<Source> {
    static CLIP: OnceLock<Arc<Source>> = OnceLock::new();
    CLIP.get_or_init(|| clips::encoded(VideoCodec::H264, Some(AudioCodec::Pcma), 4))
        .clone()
}

fn h265() -> Arc<Source> {
    static CLIP: OnceLock<Arc<Source>> = OnceLock::new();
    CLIP.get_or_init(|| clips::encoded(VideoCodec::H265, Some(AudioCodec::Aac), 4))
        .clone()
}

fn config(platform: &platform::Platform, source: Arc<Source>) -> DeviceConfig {
    let server = (Ipv4Addr::LOCALHOST, platform.port).into();
    let mut config = DeviceConfig::new(server, SERVER, DEVICE, "secret", source);
    config.register_retry = Duration::from_secs(1);
    // A platform whose test is over answers no goodbye.
    config.unregister_on_drop = false;
    config
}
