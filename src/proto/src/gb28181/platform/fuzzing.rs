//! Entry points for fuzzing: each takes arbitrary bytes and asserts what must hold whatever they are.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use corenvr_media::WallTime;

use super::{
    ConnectionId, DEVICES_MAX, Event, Invite, KnownDevice, Platform, PlatformConfig, Query, Route, SipTransport,
    UnknownDevices,
};
use crate::gb28181::{
    id::DeviceId,
    sdp::{MediaTransport, SessionKind},
};

const CAMERA: &str = "34020000001320000001";

fn known(peer: SocketAddr, local: SocketAddr) -> KnownDevice {
    KnownDevice {
        id: DeviceId::parse(CAMERA).expect("a constant id"),
        transport: SipTransport::Udp,
        peer,
        local,
        expires_ms: 4_000_000_000_000,
        call_id: String::new(),
        username: None,
        version: None,
        user_agent: None,
        manufacturer: None,
        model: None,
        firmware: None,
        name: None,
        channels: Vec::new(),
    }
}

/// Bytes from a registered device, from a stranger and over a connection; messages are split at NUL bytes. `{branch}`, `{call}`, `{from}`
/// and `{sn}` stand for those of our last request, so that answers reach what they answer.
pub fn platform(data: &[u8]) {
    let mut now = Instant::now();
    let mut wall = WallTime::from_millis(1_795_213_409_135);
    let local = SocketAddr::from(([192, 0, 2, 1], 5060));
    let home = SocketAddr::from(([192, 0, 2, 20], 5060));
    let camera = DeviceId::parse(CAMERA).expect("a constant id");
    let config = PlatformConfig {
        id: DeviceId::parse("34020000002000000001").expect("a constant id"),
        domain: "3402000000".into(),
        announce: None,
        send_date: true,
        utc_offset_s: 28_800,
        unknown: UnknownDevices::Accept,
        password: Some("p".into()),
    };
    let mut platform = Platform::new(now, config, [1; 32]);
    platform.restore(now, wall, vec![known(home, local)]);
    platform.connected(now, ConnectionId(1), local, home);
    let invite = Invite {
        device: camera,
        channel: camera,
        kind: SessionKind::Play,
        transport: MediaTransport::Udp,
        media_port: 30_000,
        stream: None,
        ssrc: None,
    };
    platform.invite(now, invite).expect("the device is online");
    platform
        .query(now, camera, camera, Query::Catalog)
        .expect("the device is online");
    let mut last = drain(&mut platform, Vec::new());
    let mut input = BytesMut::new();
    for piece in data.split(|b| *b == 0) {
        let (&way, text) = piece.split_first().unwrap_or((&0, &[]));
        let text = fill(text, &last);
        match way % 4 {
            0 | 1 => platform.datagram(now, wall, local, home, &text),
            2 => platform.datagram(now, wall, local, SocketAddr::from(([10, 0, 0, 1], 5060)), &text),
            _ => {
                input.extend_from_slice(&text);
                platform.input(now, wall, ConnectionId(1), &mut input);
            }
        }
        last = drain(&mut platform, last);
        let step = Duration::from_millis(u64::from(way) * 100);
        now += step;
        wall = wall.offset(step.as_micros() as i64);
        if platform.poll_timeout().is_some_and(|t| t <= now) {
            platform.handle_timeout(now, wall);
            assert!(
                platform.poll_timeout().is_none_or(|t| t > now),
                "a timer that does not end"
            );
        }
        last = drain(&mut platform, last);
    }
    assert!(platform.devices().count() <= DEVICES_MAX);
    assert_eq!(
        platform.devices().filter(|d| d.id != camera).count(),
        0,
        "only a login makes a device"
    );
    assert_eq!(platform.device(camera).map(|d| d.peer.ip()), Some(home.ip()));
}

/// Takes everything out; gives the last request.
fn drain(platform: &mut Platform, mut last: Vec<u8>) -> Vec<u8> {
    while let Some(transmit) = platform.poll_transmit() {
        if let Route::Udp { peer, .. } = transmit.route {
            assert_ne!(peer.port(), 0);
        }
        if !transmit.data.starts_with(b"SIP/") {
            last = transmit.data.to_vec();
        }
    }
    while platform.poll_close().is_some() {}
    while let Some(event) = platform.poll_event() {
        if let Event::Answered { answer, .. } = event {
            assert!(!answer.formats.is_empty());
        }
    }
    last
}

fn fill(text: &[u8], last: &[u8]) -> Vec<u8> {
    let (Ok(text), Ok(last)) = (std::str::from_utf8(text), std::str::from_utf8(last)) else {
        return text.to_vec();
    };
    let between = |before: &str, after: &str| {
        let rest = last.split_once(before).map_or("", |(_, r)| r);
        rest.split_once(after).map_or("", |(v, _)| v)
    };
    text.replace("{branch}", between("branch=", "\r\n"))
        .replace("{call}", between("Call-ID: ", "\r\n"))
        .replace("{from}", between("From: ", "\r\n"))
        .replace("{sn}", between("<SN>", "</SN>"))
        .into_bytes()
}
