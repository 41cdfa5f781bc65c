//! What the device costs as a load generator: it must not be what a bench measures.
//!
//! `cargo test --release -p corenvr-gb28181-device -- --ignored --nocapture load`

use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use corenvr_media::VideoCodec;

use super::{
    DEVICE, config,
    platform::{Platform, offer},
};
use crate::{Device, DeviceConfig, SipTransport, Source, SourceUnit, UnitData};

const CHANNELS: u32 = 100;
const MEASURED: Duration = Duration::from_secs(10);

/// Two seconds at 25 pictures a second and 4 Mbit/s: 50 KiB for the key frame, the rest evenly.
fn four_megabits() -> Arc<Source> {
    let unit = |i: i64| {
        let (kind, size) = if i == 0 { (0x65, 50 * 1024) } else { (0x41, 19_360) };
        let mut nal = vec![0x55; size];
        nal[0] = kind;
        let sets = [&[0x67, 0x64, 0, 0x1F][..], &[0x68, 0xEE]].map(Bytes::copy_from_slice);
        let mut nals: Vec<Bytes> = if i == 0 { sets.into() } else { Vec::new() };
        nals.push(nal.into());
        SourceUnit {
            key: i == 0,
            due_90k: i * 3600,
            pts_90k: i * 3600,
            data: UnitData::Nals(nals),
        }
    };
    let units = (0..50).map(unit).collect();
    Arc::new(Source::new(VideoCodec::H264, None, units, Duration::from_secs(2)).unwrap())
}

/// Hundredths of a second of CPU that threads of this name have used.
fn cpu_centiseconds(name: &str) -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let of_name = tasks.filter(|t| fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.trim() == name));
    let used = |stat: String| {
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .filter_map(|f| f.parse().ok())
            .collect();
        // utime and stime are the 14th and 15th field; the state in front of them is no number.
        fields[10] + fields[11]
    };
    of_name
        .filter_map(|t| fs::read_to_string(t.path().join("stat")).ok())
        .map(used)
        .sum()
}

fn measure(transport: &str) -> (f64, f64) {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = match transport {
        "udp" => udp.local_addr().unwrap().port(),
        _ => listener.local_addr().unwrap().port(),
    };
    if transport == "udp" {
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while udp.recv(&mut buffer).is_ok() {}
        });
    } else {
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 65_536];
                    while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
                });
            }
        });
    }
    let mut platform = Platform::new(SipTransport::Udp);
    let mut config = config(&platform, four_megabits());
    config.channels = DeviceConfig::channels_of(DEVICE, CHANNELS);
    let ids: Vec<String> = config.channels.iter().map(|c| c.id.clone()).collect();
    let device = Device::start(config).unwrap();
    platform.register();
    for (i, id) in ids.iter().enumerate() {
        platform
            .invite(id, &offer("Play", transport, port, "0 0", 1000 + i as u32))
            .unwrap();
    }
    std::thread::sleep(Duration::from_secs(2));
    let before = (
        cpu_centiseconds("gb28181-media"),
        device
            .log()
            .with(|l| l.sessions.iter().map(|s| s.packets_sent).sum::<u64>()),
    );
    std::thread::sleep(MEASURED);
    let after = (
        cpu_centiseconds("gb28181-media"),
        device
            .log()
            .with(|l| l.sessions.iter().map(|s| s.packets_sent).sum::<u64>()),
    );
    let seconds = MEASURED.as_secs_f64();
    (
        (after.0 - before.0) as f64 / seconds,
        (after.1 - before.1) as f64 / seconds,
    )
}

#[test]
#[ignore = "measures; wants a release build and an idle machine"]
fn load_of_a_hundred_channels() {
    for transport in ["passive", "udp"] {
        let (percent, packets) = measure(transport);
        println!(
            "{CHANNELS} channels of 4 Mbit/s over {transport}: {percent:.1} % of a core for sending, {packets:.0} packets/s"
        );
        assert!(packets > f64::from(CHANNELS) * 300.0, "the pictures are all sent");
    }
}
