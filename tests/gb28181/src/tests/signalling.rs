//! Registration, keepalives, catalogs, control, subscriptions and the deviations of SIP.

use std::time::Duration;

use corenvr_media::WallTime;

use super::{
    CHANNEL, DEVICE, PATIENCE, config, h264,
    platform::{Platform, offer},
};
use crate::{Alarm, ArchiveSpan, ChannelConfig, Deviation, Device, DeviceConfig, Event, SipTransport, sip::xml};

fn query(kind: &str, id: &str, more: &str) -> String {
    format!("<Query><CmdType>{kind}</CmdType><SN>17</SN><DeviceID>{id}</DeviceID>{more}</Query>")
}

fn start(transport: SipTransport, change: impl FnOnce(&mut DeviceConfig)) -> (Platform, Device) {
    let mut platform = Platform::new(transport);
    let mut config = config(&platform, h264());
    config.transport = transport;
    change(&mut config);
    let device = Device::start(config).unwrap();
    platform.register();
    (platform, device)
}

#[test]
fn it_registers_with_digest_keeps_alive_and_says_goodbye() {
    for transport in [SipTransport::Udp, SipTransport::Tcp] {
        let (mut platform, device) = start(transport, |c| {
            c.keepalive = Duration::from_millis(300);
            c.username = Some("admin".into());
            c.unregister_on_drop = true;
        });
        assert!(device.wait_registered(PATIENCE));
        let registered = |e: &Event| matches!(e, Event::Registered { expires_s: 86_400, date: Some(d) } if d.starts_with("2026-11-21"));
        assert!(device.log().wait_event(PATIENCE, registered).is_some());
        for _ in 0..3 {
            let body = platform.until_body(&["<CmdType>Keepalive</CmdType>", "<Status>OK</Status>"]);
            assert!(body.contains(DEVICE));
        }
        device.set_keepalives(false);
        platform.run(Duration::from_millis(500));
        platform.seen.clear();
        platform.run(Duration::from_millis(700));
        assert!(platform.seen.is_empty());
        device.set_keepalives(true);
        platform.keepalive_status = 403;
        platform.until(|m| {
            m.method() == "REGISTER" && m.get("Authorization").is_some_and(|a| a.contains("username=\"admin\""))
        });
        let ending = std::thread::spawn(move || drop(device));
        platform.keepalive_status = 200;
        platform.until(|m| m.method() == "REGISTER" && m.get("Expires") == Some("0"));
        ending.join().unwrap();
    }
}

#[test]
fn a_registration_is_refreshed_before_it_ends_and_made_again_after_a_lost_connection() {
    let (mut platform, device) = start(SipTransport::Udp, |c| c.expires = Duration::from_secs(2));
    for _ in 0..2 {
        platform.until(|m| m.method() == "REGISTER" && m.get("Authorization").is_some());
    }
    let times = device.log().with(|l| {
        let registered = l
            .events
            .iter()
            .filter(|e| matches!(e.event, Event::Registered { expires_s: 2, .. }));
        registered.map(|e| e.at).collect::<Vec<_>>()
    });
    assert!(
        times
            .windows(2)
            .all(|w| (1_000_000..2_000_000).contains(&w[1].micros_since(w[0]))),
        "{times:?}"
    );
    let (mut platform, device) = start(SipTransport::Tcp, |_| {});
    let cseq = |m: &crate::sip::message::Message| m.get("CSeq").unwrap().to_owned();
    device.reconnect();
    platform.accept_again();
    let again = platform.until(|m| m.method() == "REGISTER");
    assert_eq!(cseq(&again), "3 REGISTER");
}

#[test]
fn a_wrong_password_is_refused_once_and_tried_again_later() {
    let mut platform = Platform::new(SipTransport::Udp);
    let mut config = config(&platform, h264());
    config.password = "wrong".into();
    let device = Device::start(config).unwrap();
    for _ in 0..2 {
        platform.until(|m| m.get("Authorization").is_some());
    }
    let refused = device.log().with(|l| {
        l.events
            .iter()
            .filter(|e| e.event == Event::RegisterRefused(401))
            .count()
    });
    assert!(refused >= 1);
    device.power_cut();
}

#[test]
fn deviations_of_registration_are_on_the_wire() {
    let registered = |deviation: Deviation| {
        let mut platform = Platform::new(SipTransport::Udp);
        let mut config = config(&platform, h264());
        config.deviations.insert(deviation);
        config.keepalive = Duration::from_millis(300);
        let device = Device::start(config).unwrap();
        let message = platform.until(|m| m.method() == "REGISTER" && m.get("Authorization").is_some());
        (platform, device, message)
    };
    let (.., message) = registered(Deviation::ExpiresInContact);
    assert!(message.get("Expires").is_none() && message.get("Contact").unwrap().ends_with(";expires=86400"));
    let (.., message) = registered(Deviation::NoQop);
    assert!(!message.get("Authorization").unwrap().contains("qop"));
    let (.., message) = registered(Deviation::NoContact);
    assert_eq!(message.get("Contact"), None);
    let (.., message) = registered(Deviation::CompactHeaders);
    assert!(message.headers.iter().any(|(n, _)| n == "f") && message.get("From").is_some());
    let (mut platform, _device, _) = registered(Deviation::ContentLengthZero);
    let message = platform.until(|m| !m.body.is_empty());
    assert_eq!(message.get("Content-Length"), Some("0"));
    let (mut platform, _device, _) = registered(Deviation::NatMove);
    let before = platform.device();
    platform.until_body(&["Keepalive"]);
    assert_eq!(platform.device(), before);
    platform.until_body(&["Keepalive"]);
    assert_ne!(platform.device(), before);
}

#[test]
fn questions_are_answered_with_their_number() {
    let names = ["前门", "Back <door>", "c", "d", "e"];
    let (mut platform, device) = start(SipTransport::Udp, |c| {
        c.channels = DeviceConfig::channels_of(DEVICE, 5);
        for (channel, name) in c.channels.iter_mut().zip(names) {
            channel.name = name.into();
        }
        let at = |s| WallTime::parse(s).unwrap();
        let span = |a, b| ArchiveSpan {
            start: at(a),
            end: at(b),
        };
        c.archive = vec![
            span("2026-11-20T16:00:00Z", "2026-11-20T17:00:00Z"),
            span("2026-11-20T18:00:00Z", "2026-11-20T19:00:00Z"),
        ];
    });
    assert_eq!(
        platform.ask("MESSAGE", &[], &query("Catalog", DEVICE, "")).status(),
        Some(200)
    );
    let first = platform.until_body(&["<CmdType>Catalog</CmdType>", "<SN>17</SN>", "<DeviceList Num=\"4\">"]);
    assert!(
        first.contains("<SumNum>5</SumNum>")
            && first.contains("<Name>前门</Name>")
            && first.contains("Back &lt;door&gt;")
    );
    let second = platform.until_body(&["<SN>17</SN>", "<DeviceList Num=\"1\">"]);
    assert!(second.contains("<DeviceID>34020000001311000005</DeviceID>") && second.contains("<Status>ON</Status>"));
    platform.ask("MESSAGE", &[], &query("DeviceInfo", DEVICE, ""));
    assert!(
        platform
            .until_body(&["<CmdType>DeviceInfo</CmdType>"])
            .contains("<Channel>5</Channel>")
    );
    platform.ask("MESSAGE", &[], &query("DeviceStatus", DEVICE, ""));
    assert!(
        platform
            .until_body(&["<CmdType>DeviceStatus</CmdType>"])
            .contains("<Online>ONLINE</Online>")
    );
    let range = "<StartTime>2026-11-21T01:30:00</StartTime><EndTime>2026-11-21T04:00:00</EndTime><Type>all</Type>";
    platform.ask("MESSAGE", &[], &query("RecordInfo", CHANNEL, range));
    let records = platform.until_body(&["<CmdType>RecordInfo</CmdType>"]);
    assert!(
        records.contains("<SumNum>1</SumNum>") && records.contains("<StartTime>2026-11-21T02:00:00</StartTime>"),
        "{records}"
    );
    let range = "<StartTime>2026-11-22T00:00:00</StartTime><EndTime>2026-11-22T04:00:00</EndTime>";
    platform.ask("MESSAGE", &[], &query("RecordInfo", CHANNEL, range));
    let none = platform.until_body(&["<CmdType>RecordInfo</CmdType>"]);
    assert!(none.contains("<SumNum>0</SumNum>") && !none.contains("RecordList"));
    let control = |what: &str| {
        format!("<Control><CmdType>DeviceControl</CmdType><SN>9</SN><DeviceID>{CHANNEL}</DeviceID>{what}</Control>")
    };
    platform.ask("MESSAGE", &[], &control("<PTZCmd>A50F01021F0000D6</PTZCmd>"));
    let ptz =
        |e: &Event| matches!(e, Event::Ptz { channel, command } if channel == CHANNEL && command == "A50F01021F0000D6");
    assert!(device.log().wait_event(PATIENCE, ptz).is_some());
    platform.ask("MESSAGE", &[], &control("<RecordCmd>Record</RecordCmd>"));
    assert!(
        platform
            .until_body(&["<CmdType>DeviceControl</CmdType>", "<SN>9</SN>"])
            .contains("<Result>OK</Result>")
    );
    assert_eq!(platform.ask("OPTIONS", &[], "").status(), Some(200));
}

#[test]
fn deviant_catalogs_are_on_the_wire() {
    let ask = |deviation: Deviation| {
        let (mut platform, device) = start(SipTransport::Tcp, |c| {
            c.channels = DeviceConfig::channels_of(DEVICE, 3);
            c.channels[0].name = "前门".into();
            c.deviations.insert(deviation);
        });
        platform.ask("MESSAGE", &[], &query("Catalog", DEVICE, ""));
        platform.run(Duration::from_secs(1));
        drop(device);
        let of_catalog = |m: &crate::sip::message::Message| String::from_utf8_lossy(&m.body).contains("Catalog");
        platform
            .seen
            .into_iter()
            .filter(of_catalog)
            .map(|m| m.body)
            .collect::<Vec<_>>()
    };
    assert!(ask(Deviation::CatalogSilent).is_empty());
    assert_eq!(ask(Deviation::CatalogPieces).len(), 3);
    assert!(xml::decode(&ask(Deviation::CatalogSumWrong)[0]).contains("<SumNum>6</SumNum>"));
    let utf8 = String::from_utf8(ask(Deviation::Utf8).remove(0)).unwrap();
    assert!(utf8.contains("encoding=\"UTF-8\"") && utf8.contains("前门"));
    let lie = ask(Deviation::CharsetLie).remove(0);
    assert!(String::from_utf8_lossy(&lie).contains("encoding=\"UTF-8\"") && String::from_utf8(lie).is_err());
    assert!(xml::decode(&ask(Deviation::XmlAttributes)[0]).contains("<Response CmdType=\"Catalog\" SN=\"17\">"));
}

#[test]
fn subscribers_are_told_and_alarms_wait_for_their_reset() {
    let (mut platform, device) = start(SipTransport::Udp, |_| {});
    let subscribe = |platform: &mut Platform, kind: &str| {
        let headers = [("Event", kind), ("Expires", "3600")];
        let answer = platform.ask("SUBSCRIBE", &headers, &query(kind, DEVICE, ""));
        assert_eq!((answer.status(), answer.get("Expires")), (Some(200), Some("3600")));
    };
    let alarm = |method| Alarm {
        id: CHANNEL.into(),
        priority: 1,
        method,
        kind: 2,
        description: "motion".into(),
    };
    device.raise_alarm(alarm(2));
    let message = platform.until(|m| String::from_utf8_lossy(&m.body).contains("<CmdType>Alarm</CmdType>"));
    assert_eq!(message.method(), "MESSAGE");
    device.raise_alarm(alarm(2));
    assert!(
        device
            .log()
            .wait_event(PATIENCE, |e| *e == Event::AlarmWithheld)
            .is_some()
    );
    let reset = format!(
        "<Control><CmdType>DeviceControl</CmdType><SN>1</SN><DeviceID>{CHANNEL}</DeviceID><AlarmCmd>ResetAlarm</AlarmCmd></Control>"
    );
    platform.ask("MESSAGE", &[], &reset);
    subscribe(&mut platform, "Alarm");
    device.raise_alarm(alarm(2));
    let message = platform.until(|m| String::from_utf8_lossy(&m.body).contains("<CmdType>Alarm</CmdType>"));
    assert_eq!((message.method(), message.get("Event")), ("NOTIFY", Some("Alarm")));
    subscribe(&mut platform, "Catalog");
    device.add_channel(ChannelConfig {
        id: "34020000001310000099".into(),
        name: "New".into(),
    });
    platform.until_body(&["<Event>ADD</Event>", "34020000001310000099"]);
    device.set_channel_online(CHANNEL, false);
    platform.until_body(&["<Event>OFF</Event>", CHANNEL]);
    device.remove_channel(CHANNEL);
    platform.until_body(&["<Event>DEL</Event>", CHANNEL]);
    assert_eq!(
        platform
            .ask("SUBSCRIBE", &[("Event", "x")], &query("Weather", DEVICE, ""))
            .status(),
        Some(489)
    );
}

#[test]
fn invites_are_refused_as_switched() {
    let refused = |deviation: Option<Deviation>, channel: &str, sdp: &str| {
        let (mut platform, _device) = start(SipTransport::Udp, |c| c.deviations.extend(deviation));
        platform.invite(channel, sdp).err()
    };
    let play = offer("Play", "udp", 9, "0 0", 1);
    assert_eq!(refused(Some(Deviation::Invite486), CHANNEL, &play), Some(486));
    assert_eq!(refused(Some(Deviation::Invite488), CHANNEL, &play), Some(488));
    assert_eq!(refused(None, "34020000001310000099", &play), Some(404));
    assert_eq!(refused(None, CHANNEL, "v=0\r\ns=Talk\r\n"), Some(488));
    assert_eq!(
        refused(None, DEVICE, &play),
        None,
        "a camera answers for its channel under its own id"
    );
}
