//! Catalogs and other questions, subscriptions, alarms.

use super::*;
use crate::gb28181::manscdp::{LocalTime, RecordQuery};

fn channel(n: u32) -> String {
    format!("3402000000132{n:07}")
}

fn item(n: u32) -> String {
    format!(
        "<Item><DeviceID>{}</DeviceID><Name>Gate {n}</Name><Manufacturer>Test</Manufacturer><Parental>0</Parental>\
         <ParentID>{CAMERA}</ParentID><Status>ON</Status></Item>",
        channel(n)
    )
}

fn catalog(sn: &str, sum: usize, items: &[u32]) -> String {
    let list: String = items.iter().map(|n| item(*n)).collect();
    let list = if items.is_empty() {
        String::new()
    } else {
        format!("<DeviceList Num=\"{}\">{list}</DeviceList>", items.len())
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"GB2312\"?>\r\n<Response><CmdType>Catalog</CmdType><SN>{sn}</SN>\
         <DeviceID>{CAMERA}</DeviceID><SumNum>{sum}</SumNum>{list}</Response>"
    )
}

/// Online, with the question for the catalog accepted: its number.
fn asked() -> (Rig, String) {
    let mut rig = Rig::online();
    rig.advance(0.0);
    let requests = rig.accept_all(home());
    rig.clear();
    let question = requests
        .iter()
        .find(|r| r.contains("<CmdType>Catalog</CmdType>"))
        .unwrap();
    assert!(question.contains("<Query>") && header(question, "Content-Type") == "Application/MANSCDP+xml");
    let sn = between(question, "<SN>", "</SN>").to_owned();
    (rig, sn)
}

fn names(rig: &Rig) -> Vec<String> {
    rig.device().channels.iter().map(|c| c.name.clone()).collect()
}

#[test]
fn a_catalog_in_many_messages_is_complete_when_all_have_come() {
    let (mut rig, sn) = asked();
    assert_eq!(rig.device().catalog, CatalogState::Asked);
    // One item a message, out of order, one of them twice.
    for (i, n) in [3, 1, 1, 4].into_iter().enumerate() {
        rig.udp(home(), &message(CAMERA, 100 + i as u32, &catalog(&sn, 4, &[n])));
        rig.last("SIP/2.0 200");
        rig.advance(4.0);
    }
    assert!(rig.happened().is_empty());
    let (received, announced) = (3, 4);
    assert_eq!(rig.device().catalog, CatalogState::Partial { received, announced });
    rig.udp(home(), &message(CAMERA, 110, &catalog(&sn, 4, &[2])));
    assert_eq!(rig.happened(), [Event::CatalogChanged(id(CAMERA))]);
    assert_eq!(rig.device().catalog, CatalogState::Complete);
    assert_eq!(names(&rig), ["Gate 1", "Gate 2", "Gate 3", "Gate 4"]);
    let first = &rig.device().channels[0];
    assert!(first.is_camera() && first.online == Some(true) && first.parent == Some(id(CAMERA)));
}

#[test]
fn a_catalog_that_stops_early_is_kept_and_asked_for_again() {
    let (mut rig, sn) = asked();
    rig.udp(home(), &message(CAMERA, 100, &catalog(&sn, 9, &[1, 2])));
    rig.clear();
    rig.advance(5.5);
    assert_eq!(rig.happened(), [Event::CatalogChanged(id(CAMERA))]);
    let (received, announced) = (2, 9);
    assert_eq!(rig.device().catalog, CatalogState::Partial { received, announced });
    // A part that comes late counts all the same.
    rig.udp(home(), &message(CAMERA, 101, &catalog(&sn, 9, &[3])));
    assert_eq!(names(&rig), ["Gate 1", "Gate 2", "Gate 3"]);
    // One with a number that nobody gave does not.
    rig.udp(home(), &message(CAMERA, 102, &catalog("77", 9, &[4])));
    assert_eq!(names(&rig).len(), 3);
    rig.clear();
    rig.udp(home(), &keepalive(CAMERA, 1));
    rig.advance(121.0);
    assert!(
        rig.all("MESSAGE")
            .iter()
            .any(|m| m.contains("<CmdType>Catalog</CmdType>"))
    );
}

#[test]
fn a_silent_catalog_is_asked_for_less_and_less_often() {
    let (mut rig, _) = asked();
    let mut asked_at = Vec::new();
    for n in 0..240 {
        rig.udp(home(), &keepalive(CAMERA, n));
        rig.advance(30.0);
        let requests = rig.accept_all(home());
        if requests
            .iter()
            .any(|m| m.contains("<CmdType>Catalog</CmdType>") && m.starts_with("MESSAGE"))
        {
            asked_at.push(n / 2);
        }
        if n % 100 == 0 {
            // Keeps the registration.
            rig.register(CAMERA, home(), 7200);
        }
    }
    assert_eq!(rig.device().catalog, CatalogState::Silent);
    // In minutes: each wait is two minutes for the answer, and then 2, 4, 8 ...
    assert_eq!(asked_at, [3, 9, 19, 37, 71]);
}

#[test]
fn an_empty_catalog_is_complete() {
    let (mut rig, sn) = asked();
    rig.udp(home(), &message(CAMERA, 100, &catalog(&sn, 0, &[])));
    assert_eq!(rig.device().catalog, CatalogState::Complete);
    assert!(rig.device().channels.is_empty());
}

#[test]
fn a_newer_catalog_replaces_the_older_one() {
    let (mut rig, sn) = asked();
    rig.udp(home(), &message(CAMERA, 100, &catalog(&sn, 2, &[1, 2])));
    rig.clear();
    let query = rig
        .platform
        .query(rig.now, id(CAMERA), id(CAMERA), Query::Catalog)
        .unwrap();
    rig.collect();
    let question = rig.last("MESSAGE");
    let sn = between(&question, "<SN>", "</SN>").to_owned();
    rig.udp(home(), &message(CAMERA, 101, &catalog(&sn, 1, &[2])));
    let result = QueryResult::Catalog {
        channels: 1,
        complete: true,
    };
    assert_eq!(
        rig.happened(),
        [Event::CatalogChanged(id(CAMERA)), Event::QueryDone { query, result }]
    );
    assert_eq!(names(&rig), ["Gate 2"]);
}

#[test]
fn what_a_device_says_of_itself_is_kept() {
    let mut rig = Rig::online();
    rig.advance(0.0);
    let requests = rig.accept_all(home());
    let question = requests
        .iter()
        .find(|r| r.contains("<CmdType>DeviceInfo</CmdType>"))
        .unwrap();
    let sn = between(question, "<SN>", "</SN>");
    let info = format!(
        "<?xml version=\"1.0\"?><Response><CmdType>DeviceInfo</CmdType><SN>{sn}</SN><DeviceID>{CAMERA}</DeviceID><Result>OK</Result>\
         <DeviceName>Gate</DeviceName><Manufacturer>Test</Manufacturer><Model>T1</Model><Firmware>V1.2</Firmware></Response>"
    );
    rig.udp(home(), &message(CAMERA, 100, &info));
    let device = rig.device();
    assert_eq!(device.manufacturer.as_deref(), Some("Test"));
    assert_eq!(
        (device.model.as_deref(), device.firmware.as_deref()),
        (Some("T1"), Some("V1.2"))
    );
    assert!(rig.events.contains(&Event::Persist));
    assert_eq!(rig.platform.known()[0].model.as_deref(), Some("T1"));
}

fn records(sn: &str, sum: usize, hours: &[u32]) -> String {
    let item = |h: &u32| {
        format!(
            "<Item><DeviceID>{CAMERA}</DeviceID><Name>r</Name><FilePath>f{h}</FilePath><StartTime>2026-11-20T{h:02}:00:00</StartTime>\
             <EndTime>2026-11-20T{h:02}:59:59</EndTime><Type>time</Type></Item>"
        )
    };
    let list: String = hours.iter().map(item).collect();
    format!(
        "<?xml version=\"1.0\"?><Response><CmdType>RecordInfo</CmdType><SN>{sn}</SN><DeviceID>{CAMERA}</DeviceID><Name>x</Name>\
         <SumNum>{sum}</SumNum><RecordList Num=\"{}\">{list}</RecordList></Response>",
        hours.len()
    )
}

fn ask_records(rig: &mut Rig) -> (QueryId, String) {
    let time = |text| LocalTime::parse(text).unwrap();
    let question = Query::RecordInfo(RecordQuery {
        start: time("2026-11-20T00:00:00"),
        end: time("2026-11-21T00:00:00"),
        kind: None,
    });
    rig.clear();
    let query = rig.platform.query(rig.now, id(CAMERA), id(CAMERA), question).unwrap();
    rig.collect();
    let question = rig.last("MESSAGE");
    assert!(question.contains("<StartTime>2026-11-20T00:00:00</StartTime>"));
    rig.udp(home(), &reply(&question, "200 OK", "", ""));
    rig.clear();
    (query, between(&question, "<SN>", "</SN>").to_owned())
}

#[test]
fn recordings_are_collected_each_once() {
    let mut rig = Rig::online();
    let (query, sn) = ask_records(&mut rig);
    rig.udp(home(), &message(CAMERA, 100, &records(&sn, 3, &[5, 6])));
    rig.udp(home(), &message(CAMERA, 101, &records(&sn, 3, &[6])));
    assert!(rig.happened().is_empty());
    rig.udp(home(), &message(CAMERA, 102, &records(&sn, 3, &[7])));
    let events = rig.happened();
    let [
        Event::QueryDone {
            query: done,
            result: QueryResult::Records { items, complete },
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert!(*done == query && *complete && items.len() == 3);
    assert_eq!(items[2].file_path, "f7");

    let (_, sn) = ask_records(&mut rig);
    rig.udp(home(), &message(CAMERA, 103, &records(&sn, 9, &[5])));
    rig.clear();
    rig.advance(6.0);
    let partial = rig.happened();
    assert!(
        matches!(&partial[..], [Event::QueryDone { result: QueryResult::Records { items, complete: false }, .. }] if items.len() == 1),
        "{partial:?}"
    );
}

#[test]
fn questions_that_fail_say_why() {
    let mut rig = Rig::online();
    rig.advance(0.0);
    rig.accept_all(home());
    let ask = |rig: &mut Rig| {
        rig.clear();
        let query = rig.platform.query(rig.now, id(CAMERA), id(CAMERA), Query::DeviceStatus);
        rig.collect();
        query.unwrap();
        rig.last("MESSAGE")
    };
    let why = |rig: &mut Rig| match rig.happened().pop() {
        Some(Event::QueryDone {
            result: QueryResult::Failed { reason },
            ..
        }) => reason,
        other => panic!("{other:?}"),
    };
    let question = ask(&mut rig);
    rig.udp(home(), &reply(&question, "404 Not Found", "", ""));
    assert_eq!(why(&mut rig), "the device answers 404 Not Found");
    let question = ask(&mut rig);
    rig.udp(home(), &reply(&question, "200 OK", "", ""));
    rig.advance(21.0);
    assert_eq!(why(&mut rig), "the device does not answer");
    ask(&mut rig);
    rig.advance(21.0);
    // It was sent again meanwhile: after 0.5, 1.5, 3.5, 7.5, 11.5, 15.5 and 19.5 seconds.
    assert_eq!(
        rig.all("MESSAGE").iter().filter(|m| m.contains("DeviceStatus")).count(),
        7
    );
    assert_eq!(why(&mut rig), "the device does not answer");
    let question = ask(&mut rig);
    let sn = between(&question, "<SN>", "</SN>");
    let no = format!(
        "<?xml version=\"1.0\"?><Response><CmdType>DeviceStatus</CmdType><SN>{sn}</SN><DeviceID>{CAMERA}</DeviceID>\
         <Result>ERROR</Result></Response>"
    );
    rig.udp(home(), &message(CAMERA, 100, &no));
    let failed = rig.happened();
    assert!(matches!(&failed[..], [Event::QueryDone { .. }]), "{failed:?}");
    let other = address("198.51.100.1:5060");
    let question = ask(&mut rig);
    rig.udp(other, &reply(&question, "404 Not Found", "", ""));
    assert!(rig.happened().is_empty(), "only who was asked may answer");
}

/// The SUBSCRIBEs of a device that has just come.
fn subscribes(rig: &mut Rig) -> Vec<String> {
    rig.advance(0.0);
    rig.accept_all(home());
    rig.clear();
    rig.advance(5.2);
    rig.all("SUBSCRIBE")
}

#[test]
fn changes_are_subscribed_to_and_followed() {
    let mut rig = Rig::online();
    let asked = subscribes(&mut rig);
    assert_eq!(asked.len(), 2);
    let first = &asked[0];
    assert!(header(first, "Event").starts_with("Catalog;id=") && header(first, "Expires") == "3600");
    assert_eq!(header(first, "Contact"), format!("<sip:{SERVER}@192.0.2.1:5060>"));
    assert!(first.contains("<CmdType>Catalog</CmdType>") && asked[1].contains("<CmdType>Alarm</CmdType>"));
    rig.udp(home(), &reply(first, "200 OK", "Expires: 100\r\n", ""));
    rig.udp(home(), &reply(&asked[1], "489 Bad Event", "", ""));
    assert!(rig.device().subscribed);
    rig.clear();

    let notify = |cseq: u32, changes: &str| {
        let body = format!(
            "<?xml version=\"1.0\"?><Notify><CmdType>Catalog</CmdType><SN>{cseq}</SN><DeviceID>{CAMERA}</DeviceID><SumNum>1</SumNum>\
             <DeviceList Num=\"1\">{changes}</DeviceList></Notify>"
        );
        message(CAMERA, cseq, &body).replace("MESSAGE", "NOTIFY")
    };
    let event = |n: u32, event: &str| item(n).replace("<Name>", &format!("<Event>{event}</Event><Name>"));
    rig.udp(home(), &notify(100, &event(1, "ADD")));
    assert_eq!(rig.sent.pop().unwrap().1.get(..11), Some("SIP/2.0 200"));
    assert_eq!(rig.happened(), [Event::CatalogChanged(id(CAMERA))]);
    rig.udp(home(), &notify(101, &event(1, "OFF")));
    assert_eq!(rig.device().channels[0].online, Some(false));
    rig.udp(home(), &notify(102, &event(1, "OFF")));
    assert_eq!(rig.happened(), [Event::CatalogChanged(id(CAMERA))], "told once");
    rig.udp(home(), &notify(103, &event(1, "DEL")));
    assert!(rig.device().channels.is_empty());

    // It is refreshed inside its dialog; the one that was refused is not asked for again.
    rig.clear();
    rig.udp(home(), &keepalive(CAMERA, 200));
    rig.advance(80.2);
    let refresh = rig.all("SUBSCRIBE");
    assert_eq!(header(&refresh[0], "Call-ID"), header(first, "Call-ID"));
    assert_eq!(header(&refresh[0], "CSeq"), "2 SUBSCRIBE");
    assert!(header(&refresh[0], "To").ends_with(";tag=dev1"));
    assert!(refresh.iter().all(|r| r == &refresh[0]));
    // A device that has forgotten it is asked anew.
    rig.udp(home(), &reply(&refresh[0], "481 Unknown", "", ""));
    rig.advance(1.0);
    let again = rig.all("SUBSCRIBE");
    assert_ne!(header(&again[0], "Call-ID"), header(first, "Call-ID"));
}

#[test]
fn devices_that_do_not_answer_a_subscription_are_left_alone() {
    let mut rig = Rig::online();
    subscribes(&mut rig);
    for n in 0..60 {
        rig.udp(home(), &keepalive(CAMERA, n));
        rig.advance(30.0);
        if n == 2 {
            rig.clear();
        }
    }
    assert_eq!(rig.all("SUBSCRIBE").len(), 0);
    assert!(!rig.device().subscribed);
}

fn raise(cseq: u32, method: u32) -> String {
    let body = format!(
        "<?xml version=\"1.0\"?><Notify><CmdType>Alarm</CmdType><SN>{cseq}</SN><DeviceID>{}</DeviceID><AlarmPriority>1</AlarmPriority>\
         <AlarmMethod>{method}</AlarmMethod><AlarmTime>2026-11-21T06:23:29</AlarmTime><Info><AlarmType>2</AlarmType></Info></Notify>",
        channel(1)
    );
    message(CAMERA, cseq, &body)
}

#[test]
fn alarms_are_acknowledged_and_those_of_the_device_reset() {
    let mut rig = Rig::online();
    rig.advance(0.0);
    rig.accept_all(home());
    for (cseq, method, resets) in [(100, 5, 0), (101, 2, 1)] {
        rig.clear();
        rig.udp(home(), &raise(cseq, method));
        assert!(rig.sent[0].1.starts_with("SIP/2.0 200"));
        let messages = rig.accept_all(home());
        let answers: Vec<_> = messages.iter().filter(|m| m.contains("<Response>")).collect();
        assert_eq!(answers.len(), 1);
        assert!(answers[0].contains(&format!("<SN>{cseq}</SN>")) && answers[0].contains("<Result>OK</Result>"));
        assert_eq!(messages.iter().filter(|m| m.contains("ResetAlarm")).count(), resets);
        let events = rig.happened();
        let [Event::Alarm { device, source, alarm }] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(
            (*device, *source, alarm.method),
            (id(CAMERA), Some(id(&channel(1))), Some(method as u8))
        );
        assert_eq!(alarm.alarm_type, Some(2));
        // The same datagram again is answered again and is no second alarm.
        rig.clear();
        rig.udp(home(), &raise(cseq, method));
        rig.last("SIP/2.0 200");
        assert!(rig.happened().is_empty());
    }
}

#[test]
fn commands_reach_the_channel_that_is_meant() {
    let mut rig = Rig::online();
    rig.platform
        .control(rig.now, id(CAMERA), id(&channel(7)), Control::KeyFrame)
        .unwrap();
    rig.collect();
    let text = rig.last(&format!("MESSAGE sip:{CAMERA}@192.0.2.20:5070 SIP/2.0"));
    assert!(text.contains("<CmdType>DeviceControl</CmdType>") && text.contains(&format!("<DeviceID>{}<", channel(7))));
    assert!(text.contains("<IFameCmd>Send</IFameCmd>"));
    let nobody = id("34020000001320000404");
    let error = rig.platform.control(rig.now, nobody, nobody, Control::KeyFrame);
    assert_eq!(error, Err(CommandError::Unknown(nobody)));
}
