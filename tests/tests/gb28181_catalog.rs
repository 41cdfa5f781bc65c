//! GB28181 catalogs end to end: one camera per channel of a recorder, coming and going with it.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use corenvr_gb28181_device::{ChannelConfig, Deviation, Device, DeviceConfig, SipTransport, Source, clips};
use corenvr_media::{AudioCodec, VideoCodec};
use corenvr_tests::{
    daemon::{Camera, start_of},
    gb28181::{Platform, device_id, invites},
    players,
    process::wait_for,
};

const SOON: Duration = Duration::from_secs(20);
const LATER: Duration = Duration::from_secs(40);
/// A recorder: an NVR by the type in its number.
const NVR: &str = "34020000001180000001";

fn clip() -> Arc<Source> {
    static CLIP: OnceLock<Arc<Source>> = OnceLock::new();
    CLIP.get_or_init(|| clips::encoded(VideoCodec::H264, Some(AudioCodec::Pcma), 4))
        .clone()
}

fn channel(kind: u32, n: u32) -> ChannelConfig {
    ChannelConfig {
        id: format!("3402000000{kind}{n:07}"),
        name: format!("通道 {n}"),
    }
}

fn recorder(platform: &Platform, id: &str, channels: Vec<ChannelConfig>) -> DeviceConfig {
    DeviceConfig {
        device_id: id.into(),
        channels,
        ..platform.device(0, &clip())
    }
}

/// The names of all cameras in the status that begin like this.
fn cameras(platform: &Platform, prefix: &str) -> Vec<String> {
    let status = platform.daemon.json(&["status"]);
    let all = status["cameras"].as_array().unwrap().iter();
    let names = all.filter_map(|c| c["name"].as_str().map(str::to_owned));
    names.filter(|n| n.starts_with(prefix)).collect()
}

fn add(platform: &Platform, name: &str, device: &str) {
    platform
        .daemon
        .cli(&["camera", "add", name, &format!("gb28181://{device}/*")]);
}

#[test]
fn every_channel_is_a_camera_that_comes_and_goes() {
    let mut platform = Platform::new("", &[]);
    platform.daemon.start();
    add(&platform, "yard", NVR);
    let own = [channel(131, 1), channel(132, 2), channel(131, 3)];
    let others = [channel(134, 4), channel(215, 5), channel(216, 6), channel(137, 7)];
    let mut config = recorder(&platform, NVR, own.iter().chain(&others).cloned().collect());
    // Its connection is what it is reached by; a restart has to wait for it.
    config.transport = SipTransport::Tcp;
    let device = Device::start(config).unwrap();
    let name = |c: &ChannelConfig| format!("yard-{}", c.id);
    for channel in &own {
        platform.wait_state(&name(channel), "recording", LATER);
    }
    assert_eq!(cameras(&platform, "yard").len(), 3, "{:?}", cameras(&platform, "yard"));
    let asked: Vec<String> = invites(&device);
    assert!(others.iter().all(|o| !asked.iter().any(|text| text.contains(&o.id))));
    let shown = platform.daemon.cli(&["gb28181", "devices"]);
    assert!(shown.contains("通道 1") && shown.contains("not a camera"), "{shown}");
    let listed = platform.daemon.cli(&["camera", "list"]);
    assert!(own.iter().all(|c| listed.contains(&name(c))), "{listed}");
    assert_eq!(platform.describe(&name(&own[0])), 200);

    // It cannot be taken out by itself.
    let removed = platform.daemon.try_cli(&["camera", "remove", &name(&own[0])]);
    assert!(!removed.status.success());
    assert!(
        String::from_utf8_lossy(&removed.stderr).contains("comes and goes"),
        "{removed:?}"
    );

    // Channels come and go, by NOTIFY.
    let subscribed = |e: &corenvr_gb28181_device::Event| matches!(e, corenvr_gb28181_device::Event::Subscribed { kind, .. } if kind == "Catalog");
    assert!(device.log().wait_event(SOON, subscribed).is_some());
    let new = channel(131, 8);
    device.add_channel(new.clone());
    platform.wait_state(&name(&new), "recording", SOON);
    platform.daemon.wait_sealed(&name(&own[2]), 1, SOON);
    device.remove_channel(&own[2].id);
    wait_for("a channel that is gone is recorded no longer", SOON, || {
        (!cameras(&platform, "yard").contains(&name(&own[2]))).then_some(())
    });
    let files = platform.daemon.segments(&name(&own[2]));
    let start = start_of(&files[0]);
    assert_eq!(platform.describe(&format!("{}?start={start}", name(&own[2]))), 200);
    assert!(!platform.daemon.cli(&["recordings", &name(&own[2])]).contains("Nothing"));

    // A device that stays silent keeps its cameras.
    platform.daemon.stop();
    device.power_cut();
    platform.daemon.start();
    let mut kept = cameras(&platform, "yard");
    kept.sort();
    assert_eq!(kept, [name(&own[0]), name(&new), name(&own[1])], "after a restart");
    platform.wait_state(&name(&new), "waiting", SOON);
    let url = format!(
        "{}?start={}",
        name(&new),
        start_of(&platform.daemon.segments(&name(&new))[0])
    );
    assert_eq!(platform.describe(&url), 200);

    // They go with the camera that stands for all of them; what was recorded stays.
    platform.daemon.cli(&["camera", "remove", "yard"]);
    assert!(cameras(&platform, "yard").is_empty());
    assert_eq!(platform.describe(&url), 200);
    players::assert_decodes(&platform.daemon.segments(&name(&new))[0]);
    platform.daemon.stop();
}

#[test]
fn catalogs_come_in_pieces_or_never_and_footage_is_purged_with_its_cameras() {
    let nvr = |n: usize| format!("340200000011800001{n:02}");
    let mut one = Camera::new("one", &format!("gb28181://{}", nvr(4)), "auto");
    one.extra = String::new();
    let whole = Camera::new("whole", &format!("gb28181://{}", nvr(3)), "auto");
    let mut platform = Platform::new("", &[one, whole]);
    platform.daemon.start();
    for (name, n) in [("pieces", 0), ("sum", 1), ("mute", 2)] {
        add(&platform, name, &nvr(n));
    }
    let start = |n: usize, channels: &[u32], deviations: &[Deviation]| {
        let channels = channels.iter().map(|c| channel(131, 100 * n as u32 + c)).collect();
        let mut config = recorder(&platform, &nvr(n), channels);
        config.deviations.extend(deviations.iter().copied());
        Device::start(config).unwrap()
    };
    let _pieces = start(0, &[1, 2, 3, 4], &[Deviation::CatalogPieces]);
    let _sum = start(1, &[1, 2], &[Deviation::CatalogSumWrong]);
    let _mute = start(2, &[1], &[Deviation::CatalogSilent]);
    let _silent = start(3, &[1], &[Deviation::CatalogSilent]);
    let several = start(4, &[1, 2], &[]);
    wait_for("every channel that came is a camera", LATER, || {
        let recorded = |prefix: &str| {
            let names = cameras(&platform, prefix);
            names
                .iter()
                .filter(|n| platform.status(n)["state"] == "recording")
                .count()
        };
        (recorded("pieces-") == 4 && recorded("sum-") == 2).then_some(())
    });
    assert!(cameras(&platform, "mute").is_empty());
    // Several channels and no word which one is meant.
    let status = platform.wait_reason("one", "2 channels", SOON);
    let reason = status["reason"].as_str().unwrap();
    assert!(
        reason.contains("name one") && reason.contains("/*") && status["state"] == "waiting",
        "{reason}"
    );
    assert_eq!(invites(&several).len(), 0);
    // A camera that never answers shows its channel under its own id.
    platform.wait_state("whole", "recording", LATER);

    let names = cameras(&platform, "pieces-");
    assert!(names.iter().all(|n| !platform.daemon.segments(n).is_empty()));
    platform.daemon.wait_sealed(&names[0], 1, SOON);
    platform.daemon.cli(&["camera", "remove", "pieces", "--purge"]);
    assert!(cameras(&platform, "pieces").is_empty());
    for name in &names {
        assert!(platform.daemon.segments(name).is_empty(), "{name} is purged");
    }
    assert!(!platform.daemon.segments(&cameras(&platform, "sum-")[0]).is_empty());
    // A name that somebody else has: the channel is left out, and that is said.
    let taken = format!("twice-{}", channel(131, 402).id);
    platform
        .daemon
        .cli(&["camera", "add", &taken, &format!("gb28181://{}", device_id(77))]);
    add(&platform, "twice", &nvr(4));
    platform.wait_state(&format!("twice-{}", channel(131, 401).id), "recording", SOON);
    assert_eq!(
        platform.status(&taken)["source"],
        format!("gb28181://{}", device_id(77)).as_str()
    );
    let said = platform.daemon.cli(&["camera", "list"]);
    assert!(said.contains("there is a camera of that name"), "{said}");
    platform.daemon.stop();
}
