//! Keepalives, addresses that change, and restarts.

use super::*;

#[test]
fn a_keepalive_is_answered_without_a_body() {
    let mut rig = Rig::online();
    rig.udp(home(), &keepalive(CAMERA, 5));
    let ok = rig.last("SIP/2.0 200");
    assert_eq!((header(&ok, "Content-Length"), body(&ok)), ("0", ""));
    assert_eq!(rig.device().last_keepalive, Some(rig.wall()));
}

#[test]
fn three_missed_keepalives_are_offline_and_one_is_online_again() {
    let mut rig = Rig::online();
    for n in 0..5 {
        rig.udp(home(), &keepalive(CAMERA, n));
        rig.advance(60.0);
    }
    rig.clear();
    rig.advance(119.0);
    assert!(rig.happened().is_empty() && rig.device().online);
    rig.advance(1.5);
    let why = OfflineWhy::Silent;
    assert_eq!(
        rig.happened(),
        [Event::Offline {
            device: id(CAMERA),
            why
        }]
    );
    let denied = rig.platform.query(rig.now, id(CAMERA), id(CAMERA), Query::DeviceStatus);
    assert_eq!(denied, Err(CommandError::Offline(id(CAMERA))));
    rig.udp(home(), &keepalive(CAMERA, 99));
    rig.last("SIP/2.0 200");
    assert_eq!(rig.happened(), [Event::Online(id(CAMERA))]);
}

#[test]
fn a_device_with_a_longer_interval_is_given_the_time() {
    let mut rig = Rig::online();
    for n in 0..4 {
        rig.udp(home(), &keepalive(CAMERA, n));
        rig.advance(150.0);
    }
    rig.clear();
    rig.advance(295.0);
    assert!(rig.device().online);
    rig.advance(10.0);
    assert!(!rig.device().online);
}

#[test]
fn an_expired_registration_is_offline_whatever_comes() {
    let mut rig = Rig::online();
    for n in 0..61 {
        rig.udp(home(), &keepalive(CAMERA, n));
        rig.advance(60.0);
    }
    let offline = Event::Offline {
        device: id(CAMERA),
        why: OfflineWhy::Expired,
    };
    assert!(rig.happened().contains(&offline));
    rig.udp(home(), &keepalive(CAMERA, 99));
    rig.last("SIP/2.0 403");
}

#[test]
fn the_port_follows_keepalives_and_another_address_must_register() {
    let mut rig = Rig::online();
    let moved = address("192.0.2.20:6123");
    rig.udp(moved, &keepalive(CAMERA, 5));
    rig.last("SIP/2.0 200");
    assert_eq!(rig.happened(), [Event::Moved(id(CAMERA))]);
    assert_eq!(rig.device().peer, moved);
    rig.platform
        .query(rig.now, id(CAMERA), id(CAMERA), Query::DeviceStatus)
        .unwrap();
    rig.collect();
    assert_eq!(
        rig.sent.last().unwrap().0,
        Route::Udp {
            local: local(),
            peer: moved
        }
    );
    rig.clear();

    let elsewhere = address("198.51.100.9:6123");
    rig.udp(elsewhere, &keepalive(CAMERA, 6));
    rig.last("SIP/2.0 403");
    let refused: Vec<_> = rig.platform.refused().map(|r| (r.id, r.why, r.peer)).collect();
    assert_eq!(refused, [(id(CAMERA), RefusedWhy::OtherAddress, elsewhere)]);
    assert!(rig.happened().is_empty() && rig.device().peer == moved);
    rig.register(CAMERA, elsewhere, 3600);
    assert_eq!(rig.happened(), [Event::Moved(id(CAMERA))]);
    assert_eq!(rig.platform.refused().count(), 0);
}

#[test]
fn strangers_are_told_to_register() {
    let mut rig = Rig::new();
    rig.udp(home(), &keepalive(CAMERA, 5));
    rig.last("SIP/2.0 403");
    let refused: Vec<_> = rig.platform.refused().map(|r| r.why).collect();
    assert_eq!(refused, [RefusedWhy::NotRegistered]);
    assert!(rig.happened().is_empty());
}

#[test]
fn another_device_behind_the_same_address_must_register_too() {
    let mut rig = Rig::online();
    rig.udp(home(), &keepalive("34020000001320000002", 5));
    rig.last("SIP/2.0 403");
}

#[test]
fn a_restart_keeps_registrations() {
    let mut rig = Rig::online();
    rig.advance(60.0);
    let known = rig.platform.known();
    assert_eq!(known.len(), 1);
    let mut again = Rig::new();
    again.now = rig.now;
    again.start = rig.start;
    let wall = again.wall();
    again.platform.restore(again.now, wall, known.clone());
    again.collect();
    assert_eq!(again.happened(), [Event::Online(id(CAMERA))]);
    assert_eq!(again.platform.known(), known);
    again.advance(0.0);
    assert!(!again.all("MESSAGE").is_empty(), "asked at once");
    again.udp(home(), &keepalive(CAMERA, 5));
    again.last("SIP/2.0 200");
    // The old registration ends when it would have.
    for n in 10..75 {
        again.advance(60.0);
        again.udp(home(), &keepalive(CAMERA, n));
    }
    again.last("SIP/2.0 403");

    // One that had run out, or went over TCP, waits for the device.
    let mut late = Rig::new();
    let later = WallTime::from_millis(START_MS + 86_400_000);
    late.platform.restore(late.now, later, known.clone());
    let tcp = KnownDevice {
        id: id("34020000001320000002"),
        transport: SipTransport::Tcp,
        ..known[0].clone()
    };
    late.platform.restore(late.now, rig.wall(), vec![tcp]);
    late.collect();
    assert!(late.happened().is_empty());
    assert_eq!(late.platform.devices().filter(|d| d.online).count(), 0);
    assert_eq!(late.platform.devices().count(), 2);
    // Nonsense in the file does no harm.
    let absurd = KnownDevice {
        expires_ms: i64::MAX,
        ..known[0].clone()
    };
    late.platform.restore(late.now, later, vec![absurd]);
    late.advance(10.0);
}

#[test]
fn other_requests_get_their_answers() {
    let mut rig = Rig::online();
    let request = |method: &str| keepalive(CAMERA, 7).replace("MESSAGE", method);
    for (method, status) in [
        ("OPTIONS", "200"),
        ("PUBLISH", "405"),
        ("INVITE", "488"),
        ("SUBSCRIBE", "489"),
        ("BYE", "481"),
        ("INFO", "481"),
        ("CANCEL", "481"),
    ] {
        rig.udp(home(), &request(method));
        let answer = rig.last(&format!("SIP/2.0 {status}"));
        assert_eq!(
            answer.contains("\r\nAllow: INVITE, ACK"),
            matches!(status, "200" | "405")
        );
    }
    rig.udp(home(), &request("ACK"));
    assert!(rig.sent.is_empty());
    let unknown = message(
        CAMERA,
        8,
        "<?xml version=\"1.0\"?><Notify><CmdType>New</CmdType><SN>1</SN></Notify>",
    );
    rig.udp(home(), &unknown);
    rig.last("SIP/2.0 200");
    rig.udp(home(), &keepalive(CAMERA, 9).replace("Call-ID:", "X-No:"));
    rig.last("SIP/2.0 400");
}

#[test]
fn odd_framing_is_understood() {
    let mut rig = Rig::online();
    // Content-Length 0 with a body behind it, compact names, bare line feeds, blanks in front of the colon.
    let text = keepalive(CAMERA, 5);
    let length = format!("Content-Length: {}", body(&text).len());
    let odd = text
        .replace(&length, "l : 0")
        .replace("Via:", "v:")
        .replace("From:", "f:")
        .replace("To:", "t:")
        .replace("Call-ID:", "i:")
        .replace("Content-Type:", "c:")
        .replace("\r\n", "\n");
    rig.udp(home(), &odd);
    rig.last("SIP/2.0 200");
    assert!(rig.device().last_keepalive.is_some());
    rig.udp(home(), "\r\n\r\n");
    assert!(rig.sent.is_empty() && rig.platform.counters().malformed == 0);
}
