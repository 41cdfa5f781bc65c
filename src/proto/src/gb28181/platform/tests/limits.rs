//! Floods and nonsense cost a bounded share, and registered devices do not notice.

use proptest::prelude::*;

use super::*;
use crate::gb28181::{
    platform::guard::{REFUSED_MAX, SOURCES_MAX},
    sdp::{MediaTransport, SessionKind},
};

fn stranger(n: u32) -> SocketAddr {
    SocketAddr::new(std::net::Ipv4Addr::from_bits(0x0A00_0000 + n).into(), 5060)
}

#[test]
fn a_flood_of_registrations_does_not_reach_registered_devices() {
    let mut rig = Rig::online();
    for n in 0..20_000u32 {
        let wall = rig.wall();
        let device = format!("{:020}", n + 5);
        let text = register(&device, 1, 3600, "");
        rig.platform
            .datagram(rig.now, wall, local(), stranger(n % 5000), text.as_bytes());
        while rig.platform.poll_transmit().is_some() {}
    }
    assert!(rig.platform.counters().flooded > 13_000);
    assert_eq!(rig.platform.devices().count(), 1);
    assert!(rig.platform.refused().count() <= REFUSED_MAX);
    rig.clear();
    rig.udp(home(), &keepalive(CAMERA, 5));
    rig.last("SIP/2.0 200");
    // Strangers are heard again when it is over.
    rig.advance(10.0);
    rig.sent.clear();
    rig.udp(stranger(SOURCES_MAX as u32 * 2), &register(CAMERA, 1, 3600, ""));
    rig.last("SIP/2.0 401");
}

#[test]
fn a_flood_in_the_name_of_a_device_does_not_take_it_away() {
    let mut rig = Rig::online();
    for n in 0..1000 {
        rig.udp(stranger(1), &keepalive(CAMERA, n));
        rig.udp(stranger(2), &register(CAMERA, n, 0, ""));
    }
    rig.clear();
    assert!(rig.device().online && rig.device().peer == home());
    rig.udp(home(), &keepalive(CAMERA, 5));
    rig.last("SIP/2.0 200");
}

#[test]
fn connections_of_strangers_are_few_and_do_not_last() {
    let mut rig = Rig::new();
    for n in 0..400 {
        rig.connect(n, address("198.51.100.1:5060"));
    }
    assert_eq!(rig.closed.len(), 400 - 256);
    for n in 400..2000u64 {
        rig.connect(n, stranger(n as u32));
    }
    assert_eq!(2000 - rig.closed.len(), 1024);
    rig.closed.clear();
    rig.advance(91.0);
    assert_eq!(rig.closed.len(), 1024);
    assert!(rig.platform.connections.is_empty());
}

#[test]
fn connections_that_speak_something_else_or_too_much_are_closed() {
    let huge = format!("MESSAGE sip:x@y SIP/2.0\r\nContent-Length: {}\r\n\r\n", 17 * 1024);
    for (n, text) in ["\x16\x03\x01\x02", "GET / HTTP/1.1\r\n\r\n", &huge, &"a".repeat(20_000)]
        .iter()
        .enumerate()
    {
        let mut rig = Rig::new();
        rig.connect(n as u64, home());
        rig.tcp(n as u64, text);
        assert_eq!(rig.closed, [ConnectionId(n as u64)], "{n}");
        // What comes after that is nobody's.
        rig.tcp(n as u64, &register(CAMERA, 1, 3600, ""));
        assert!(rig.sent.is_empty());
    }
}

#[test]
fn tables_say_when_they_are_full() {
    let mut rig = Rig::online();
    for _ in 0..QUERIES_PER_DEVICE_MAX {
        rig.platform
            .query(rig.now, id(CAMERA), id(CAMERA), Query::DeviceStatus)
            .unwrap();
    }
    let error = rig.platform.query(rig.now, id(CAMERA), id(CAMERA), Query::DeviceStatus);
    assert!(matches!(error, Err(CommandError::Busy(_))));
    let invite = Invite {
        device: id(CAMERA),
        channel: id(CAMERA),
        kind: SessionKind::Play,
        transport: MediaTransport::Udp,
        media_port: 30_000,
        stream: None,
        ssrc: None,
    };
    for _ in 0..SESSIONS_MAX {
        rig.platform.invite(rig.now, invite).unwrap();
    }
    let error = rig.platform.invite(rig.now, invite);
    assert_eq!(error, Err(CommandError::Busy("sessions")));
}

#[test]
fn a_storm_of_alarms_does_not_take_the_room_of_others() {
    let mut rig = Rig::online();
    for n in 0..500 {
        let body = format!(
            "<?xml version=\"1.0\"?><Notify><CmdType>Alarm</CmdType><SN>{n}</SN><DeviceID>{CAMERA}</DeviceID><AlarmMethod>2</AlarmMethod></Notify>"
        );
        rig.udp(home(), &message(CAMERA, n, &body));
    }
    let alarms = rig
        .happened()
        .iter()
        .filter(|e| matches!(e, Event::Alarm { .. }))
        .count();
    assert_eq!(alarms, 500);
    assert_eq!(rig.all("SIP/2.0 200").len(), 500);
    assert!(rig.platform.transactions.len() <= 80);
}

#[test]
fn a_password_cannot_be_guessed_from_a_devices_address() {
    let mut rig = Rig::online();
    let accounts = [CAMERA, "34020000001320000002"].map(|d| (id(d), None));
    rig.platform.set_accounts(accounts.into());
    rig.udp(home(), &register("34020000001320000002", 1, 3600, ""));
    let challenge = rig.last("SIP/2.0 401");
    for n in 0..1000 {
        let guess = answer(&challenge, CAMERA, &n.to_string(), Qop::Auth);
        rig.udp(home(), &register("34020000001320000002", 2, 3600, &guess));
    }
    assert!(rig.sent.len() < 12, "{}", rig.sent.len());
    assert!(rig.platform.counters().flooded > 900);
}

#[test]
fn a_full_table_of_devices_forgets_those_that_are_gone() {
    let mut rig = Rig::new();
    let wall = rig.wall();
    let gone = (0..DEVICES_MAX as u32).map(|n| KnownDevice {
        id: id(&format!("{n:020}")),
        transport: SipTransport::Udp,
        peer: stranger(n),
        local: local(),
        expires_ms: 0,
        call_id: String::new(),
        username: None,
        version: None,
        user_agent: None,
        manufacturer: None,
        model: None,
        firmware: None,
        name: None,
        channels: Vec::new(),
    });
    rig.platform.restore(rig.now, wall, gone.collect());
    rig.advance(300.0);
    rig.register(CAMERA, home(), 3600);
    assert_eq!(rig.platform.devices().count(), DEVICES_MAX);
    assert!(rig.device().online);
}

#[test]
#[ignore = "a measurement"]
fn cost_of_a_message() {
    let mut rig = Rig::online();
    let rounds = 20_000;
    let timed = |rig: &mut Rig, name: &str, peer: &dyn Fn(u32) -> SocketAddr, text: &dyn Fn(u32) -> String| {
        let texts: Vec<_> = (0..rounds).map(text).collect();
        let began = Instant::now();
        for (n, text) in (0u32..).zip(&texts) {
            rig.now += Duration::from_millis(20);
            let wall = rig.wall();
            rig.platform.datagram(rig.now, wall, local(), peer(n), text.as_bytes());
            while rig.platform.poll_transmit().is_some() {}
        }
        println!("{name}: {:?}", began.elapsed() / rounds);
    };
    timed(&mut rig, "keepalive", &|_| home(), &|n| keepalive(CAMERA, n));
    timed(&mut rig, "challenge", &stranger, &|n| register(CAMERA, n, 3600, ""));
    timed(&mut rig, "nonsense", &stranger, &|_| "x".repeat(1400));
}

proptest! {
    #[test]
    fn nothing_that_arrives_does_harm(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        fuzzing::platform(&data);
    }
}
