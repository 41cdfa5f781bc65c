//! Bodies as devices send them, and as we do.

use encoding_rs::GB18030;

use super::*;
use crate::gb28181::{id::DeviceId, ptz::PtzCommand};

const DEVICE: &str = "34020000001110000001";
const CHANNEL: &str = "34020000001320000001";

fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

fn time(text: &str) -> LocalTime {
    LocalTime::parse(text).unwrap()
}

fn parse(text: &str) -> Message {
    Message::parse(text.as_bytes()).unwrap()
}

fn message(body: Body) -> Message {
    Message {
        sn: 17,
        device: Some(id(DEVICE)),
        body,
    }
}

/// A body with the usual head and these lines in it.
fn wrap(root: &str, command: &str, lines: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"GB2312\"?>\n<{root}>\n<CmdType>{command}</CmdType>\n<SN>17</SN>\n<DeviceID>{DEVICE}</DeviceID>\n{lines}\n</{root}>\n"
    )
}

/// A catalog's response with these items.
fn catalog(sum: u32, items: &str) -> String {
    wrap(
        "Response",
        "Catalog",
        &format!("<SumNum>{sum}</SumNum><DeviceList Num=\"1\">{items}</DeviceList>"),
    )
}

fn catalog_items(body: &[u8]) -> Vec<CatalogItem> {
    match Message::parse(body).unwrap().body {
        Body::Response(Response::Catalog { items, .. }) => items,
        other => panic!("{other:?}"),
    }
}

fn full_item() -> CatalogItem {
    CatalogItem {
        name: "\u{5927}\u{95e8} <1> & \"2\"".to_owned(),
        manufacturer: "Hikvision".to_owned(),
        model: "DS-2CD".to_owned(),
        owner: "Owner".to_owned(),
        civil_code: "340200".to_owned(),
        address: "\u{6842}\u{6797}\u{8def} 1".to_owned(),
        parental: Some(false),
        parents: vec![id(DEVICE), id("34020000002160000001")],
        register_way: Some(1),
        secrecy: Some(false),
        status: ItemStatus::On,
        ip_address: "192.168.1.64".to_owned(),
        longitude: Some(118.25),
        latitude: Some(-31.5),
        ptz_type: Some(3),
        ..CatalogItem::new(id(CHANNEL))
    }
}

fn record() -> RecordItem {
    RecordItem {
        device: Some(id(CHANNEL)),
        name: "\u{5f55}\u{50cf}".to_owned(),
        file_path: "/mnt/1.mp4".to_owned(),
        start: time("2026-11-21T06:00:00"),
        end: time("2026-11-21T07:00:00"),
        kind: Some(RecordKind::Alarm),
        recorder_id: "admin".to_owned(),
        file_bytes: Some(5_000_000_000),
    }
}

#[test]
#[allow(clippy::too_many_lines)] // A table.
fn everything_that_is_written_reads_the_same() {
    let at = Some(time("2026-11-21T06:23:29"));
    let change = |event| CatalogChange {
        event,
        item: full_item(),
    };
    let bodies = [
        Body::Notify(Notify::Keepalive {
            ok: true,
            faults: vec![],
        }),
        Body::Notify(Notify::Keepalive {
            ok: false,
            faults: vec![id(CHANNEL), id("34020000001320000002")],
        }),
        Body::Notify(Notify::Alarm(Alarm {
            priority: Some(1),
            method: Some(5),
            time: at,
            description: "\u{8b66}".to_owned(),
            longitude: Some(1.5),
            latitude: Some(2.5),
            alarm_type: Some(6),
            event_type: Some(2),
        })),
        Body::Notify(Notify::Alarm(Alarm::default())),
        Body::Notify(Notify::MediaStatus {
            notify_type: Some(Notify::END_OF_FILE),
        }),
        Body::Notify(Notify::Catalog {
            sum: Some(2),
            changes: vec![change(Some(CatalogEvent::VideoLost)), change(None)],
            unreadable: 0,
        }),
        Body::Notify(Notify::MobilePosition(Position {
            time: at,
            longitude: Some(120.125),
            latitude: Some(30.0),
            speed: Some(0.5),
            direction: Some(359.0),
            altitude: Some(-3.0),
        })),
        Body::Query(Query::Catalog { start: None, end: None }),
        Body::Query(Query::Catalog { start: at, end: at }),
        Body::Query(Query::DeviceInfo),
        Body::Query(Query::DeviceStatus),
        Body::Query(Query::RecordInfo(RecordQuery {
            start: time("2026-11-21T00:00:00"),
            end: time("2026-11-22T00:00:00"),
            kind: None,
        })),
        Body::Query(Query::RecordInfo(RecordQuery {
            start: time("2026-11-21T00:00:00"),
            end: time("2026-11-22T00:00:00"),
            kind: Some(RecordKind::Manual),
        })),
        Body::Query(Query::Alarm(AlarmQuery {
            priority_from: Some(1),
            priority_to: Some(4),
            method: None,
        })),
        Body::Query(Query::MobilePosition { interval_s: Some(5) }),
        Body::Response(Response::Catalog {
            sum: Some(3),
            items: vec![full_item(), CatalogItem::new(id("D1"))],
            unreadable: 0,
        }),
        Body::Response(Response::Catalog {
            sum: Some(0),
            items: vec![],
            unreadable: 0,
        }),
        Body::Response(Response::DeviceInfo(DeviceInfo {
            name: "NVR \u{4e00}".to_owned(),
            manufacturer: "m".to_owned(),
            model: "n".to_owned(),
            firmware: "V1".to_owned(),
            channels: Some(16),
        })),
        Body::Response(Response::DeviceStatus(DeviceStatus {
            online: Some(true),
            ok: Some(false),
            reason: "disk".to_owned(),
            encodes: Some(true),
            records: Some(false),
            time: at,
        })),
        Body::Response(Response::RecordInfo {
            name: "Gate".to_owned(),
            sum: Some(1),
            items: vec![record()],
            unreadable: 0,
        }),
        Body::Response(Response::Result {
            to: Command::Alarm,
            ok: true,
        }),
        Body::Response(Response::Result {
            to: Command::DeviceControl,
            ok: false,
        }),
        Body::Response(Response::Result {
            to: Command::Catalog,
            ok: true,
        }),
        Body::Control(Control::Ptz(PtzCommand::STOP)),
        Body::Control(Control::KeyFrame),
        Body::Control(Control::Record(true)),
        Body::Control(Control::Record(false)),
        Body::Control(Control::Guard(true)),
        Body::Control(Control::Guard(false)),
        Body::Control(Control::ResetAlarm {
            method: None,
            alarm_type: None,
        }),
        Body::Control(Control::ResetAlarm {
            method: Some(2),
            alarm_type: Some(1),
        }),
        Body::Control(Control::Reboot),
        Body::Other {
            root: "Query".to_owned(),
            cmd_type: "PresetQuery".to_owned(),
        },
    ];
    for body in bodies {
        let written = message(body);
        assert_eq!(Message::parse(&written.to_bytes()).as_ref(), Ok(&written));
    }
}

#[test]
fn a_query_looks_as_devices_expect() {
    let query = RecordQuery {
        start: time("2026-11-21T00:00:00.75"),
        end: time("2026-11-22T00:00:00"),
        kind: None,
    };
    let bytes = message(Body::Query(Query::RecordInfo(query))).to_bytes();
    let expected = "<?xml version=\"1.0\" encoding=\"GB2312\"?>\n<Query>\n<CmdType>RecordInfo</CmdType>\n<SN>17</SN>\n<DeviceID>34020000001110000001</DeviceID>\n\
         <StartTime>2026-11-21T00:00:00</StartTime>\n<EndTime>2026-11-22T00:00:00</EndTime>\n<Secrecy>0</Secrecy>\n<Type>all</Type>\n</Query>\n";
    assert_eq!(String::from_utf8(bytes).unwrap(), expected.replace('\n', "\r\n"));
}

#[test]
fn a_key_frame_is_asked_for_under_both_names() {
    let text = String::from_utf8(message(Body::Control(Control::KeyFrame)).to_bytes()).unwrap();
    assert!(text.contains("<IFameCmd>Send</IFameCmd>") && text.contains("<IFrameCmd>Send</IFrameCmd>"));
    for name in ["IFameCmd", "IFrameCmd"] {
        let one = parse(&wrap("Control", "DeviceControl", &format!("<{name}>Send</{name}>")));
        assert_eq!(one.body, Body::Control(Control::KeyFrame));
    }
}

#[test]
fn a_control_that_is_not_understood_is_named() {
    for lines in ["<PTZCmd>A50F010000000000</PTZCmd>", "<GuardCmd>Maybe</GuardCmd>", ""] {
        let other = Body::Other {
            root: "Control".to_owned(),
            cmd_type: "DeviceControl".to_owned(),
        };
        assert_eq!(parse(&wrap("Control", "DeviceControl", lines)).body, other, "{lines}");
    }
}

#[test]
fn charsets_are_what_they_are_and_not_what_they_say() {
    let gb = |text: &str| GB18030.encode(text).0.into_owned();
    for name in [
        "\u{5927}\u{95e8}\u{6444}\u{50cf}\u{673a}",
        "\u{5927}\u{95e8}",
        "\u{9555}\u{20087}",
    ] {
        let text = catalog(
            1,
            &format!("<Item><DeviceID>{CHANNEL}</DeviceID><Name>{name}</Name></Item>"),
        );
        for label in ["GB2312", "gbk", "GB18030", "GB-2312", "UTF-8", "utf8", "x-nonsense"] {
            let declared = text.replace("GB2312", label);
            for bytes in [gb(&declared), declared.clone().into_bytes()] {
                assert_eq!(catalog_items(&bytes).remove(0).name, name, "{label}");
            }
        }
        let bare = text.split_once("?>").unwrap().1;
        assert_eq!(catalog_items(&gb(bare)).remove(0).name, name);
        assert_eq!(catalog_items(bare.as_bytes()).remove(0).name, name);
    }
    // Two common characters of GB2312 that are two letters in UTF-8: the declaration decides.
    let text = catalog(
        1,
        &format!("<Item><DeviceID>{CHANNEL}</DeviceID><Name>\u{901a}\u{53f0}</Name></Item>"),
    );
    assert_eq!(catalog_items(&gb(&text)).remove(0).name, "\u{901a}\u{53f0}");
    // Neither: what can be read of it is.
    let broken = [
        text.split_once("<Name>").unwrap().0.as_bytes(),
        b"<Name>a\xff</Name></Item></DeviceList></Response>",
    ]
    .concat();
    assert_eq!(catalog_items(&broken).remove(0).name, "a\u{fffd}");
}

#[test]
fn what_is_around_the_xml_does_not_count() {
    let text = wrap("Notify", "Keepalive", "<Status>OK</Status>");
    for bytes in [
        format!("\u{feff}{text}"),
        format!("\r\n {text}\0\0"),
        format!("{text}<trailing"),
        text.replace('\n', ""),
    ] {
        assert_eq!(
            parse(&bytes).body,
            Body::Notify(Notify::Keepalive {
                ok: true,
                faults: vec![]
            }),
            "{bytes:?}"
        );
    }
}

#[test]
fn the_head_may_come_as_attributes() {
    let text = format!("<Query CmdType=\"Catalog\" SN='7' DeviceID=\"{DEVICE}\" other=\"x\"></Query>");
    let read = parse(&text);
    assert_eq!((read.sn, read.device), (7, Some(id(DEVICE))));
    assert_eq!(read.body, Body::Query(Query::Catalog { start: None, end: None }));
    assert_eq!(parse(&text.replace("></Query>", "/>")), read);
}

#[test]
fn names_are_read_as_devices_spell_them() {
    let text = "<notify><cmdtype>keepalive</cmdtype><Sn>1</Sn><DeviceId>34020000001110000001</DeviceId><status>ok</status></notify>";
    let read = parse(text);
    assert_eq!((read.sn, read.device), (1, Some(id(DEVICE))));
    assert_eq!(
        read.body,
        Body::Notify(Notify::Keepalive {
            ok: true,
            faults: vec![]
        })
    );
    let spaced = parse(
        "<gb:Notify xmlns:gb=\"x\"><gb:CmdType> Keepalive\n</gb:CmdType><gb:Info><gb:DeviceID>1</gb:DeviceID></gb:Info></gb:Notify>",
    );
    assert_eq!(
        spaced.body,
        Body::Notify(Notify::Keepalive {
            ok: true,
            faults: vec![id("1")]
        })
    );
    assert_eq!((spaced.sn, spaced.device), (0, None));
}

#[test]
fn names_of_channels_are_kept_whole() {
    let name = |written: &str| {
        let text = catalog(
            1,
            &format!("<Item><DeviceID>{CHANNEL}</DeviceID><Name>{written}</Name></Item>"),
        );
        catalog_items(text.as_bytes()).remove(0).name
    };
    assert_eq!(name("A &amp; B &lt;1&gt; &#x5927;&#95;"), "A & B <1> \u{5927}_");
    // Bare ampersands and entities that nobody defined.
    assert_eq!(name("A & B"), "A & B");
    assert_eq!(name("A&B;C"), "A&B;C");
    assert_eq!(name("A&"), "A&");
    assert_eq!(name("<![CDATA[<b> & c]]>"), "<b> & c");
    assert_eq!(name("\u{8}a\u{1}b\nc \u{2}"), "a b c");
    assert_eq!(name("&#0;&#xFFFFFFFF;"), "&#0;&#xFFFFFFFF;");
    assert_eq!(name(&"x".repeat(xml::TEXT_BYTES_MAX + 9)).len(), xml::TEXT_BYTES_MAX);
    assert_eq!(
        name(&"\u{5927}".repeat(xml::TEXT_BYTES_MAX)).len(),
        xml::TEXT_BYTES_MAX / 3 * 3
    );
}

#[test]
fn items_say_their_state_in_many_ways() {
    let status = |text: &str| {
        let text = catalog(
            1,
            &format!("<Item><DeviceID>{CHANNEL}</DeviceID><Status>{text}</Status></Item>"),
        );
        catalog_items(text.as_bytes()).remove(0).status
    };
    for on in ["ON", "on", "OK", "ONLINE", "1"] {
        assert_eq!(status(on), ItemStatus::On, "{on}");
    }
    for off in ["OFF", "Offline", "0", "DEFECT", "VLOST"] {
        assert_eq!(status(off), ItemStatus::Off, "{off}");
    }
    assert_eq!(status(""), ItemStatus::Unknown);
    assert_eq!(status("?"), ItemStatus::Unknown);
}

#[test]
fn an_item_has_fields_of_its_own() {
    let items = format!(
        "<Item><DeviceID>{CHANNEL}</DeviceID><Info><DeviceID>x</DeviceID><PTZType>1</PTZType><DownloadSpeed>1/2</DownloadSpeed></Info><Parental>2</Parental>\
         <ParentID>{DEVICE}/34020000002160000001</ParentID><Password>secret</Password></Item><Item><DeviceID>D2</DeviceID><PTZType>4</PTZType></Item>"
    );
    let items = catalog_items(catalog(2, &items).as_bytes());
    assert_eq!(
        (items[0].id, items[0].ptz_type, items[0].parental),
        (id(CHANNEL), Some(1), Some(true))
    );
    assert_eq!(items[0].parents, [id(DEVICE), id("34020000002160000001")]);
    assert_eq!(
        (items[1].id, items[1].ptz_type, items[1].name.as_str()),
        (id("D2"), Some(4), "")
    );
    assert!(!format!("{items:?}").contains("secret"));
}

#[test]
fn a_catalog_counts_what_it_cannot_read() {
    let text = catalog(
        4,
        &format!(
            "<Item><Name>nobody</Name></Item><Item><DeviceID>a b</DeviceID></Item><Item><DeviceID>{CHANNEL}</DeviceID></Item>"
        ),
    );
    let Body::Response(Response::Catalog { sum, items, unreadable }) = parse(&text).body else {
        panic!("no catalog");
    };
    assert_eq!((sum, items.len(), unreadable), (Some(4), 1, 2));
}

#[test]
fn a_list_of_recordings() {
    let text = wrap(
        "Response",
        "RecordInfo",
        "<Name>Gate</Name><SumNum>3</SumNum><RecordList Num=\"3\"><Item><DeviceID>34020000001320000001</DeviceID><Name>1</Name><FilePath>a/b</FilePath>\
         <StartTime>2026-11-21 06:00:00</StartTime><EndTime>2026-11-21T07:00:00Z</EndTime><Secrecy>0</Secrecy><Type>time</Type><FileSize>12</FileSize></Item>\
         <Item><StartTime>2026-11-21T06:00:00</StartTime></Item><Item><StartTime>2026-11-21T06:00:00</StartTime><EndTime>2026-11-21T06:00:01</EndTime><Type>x</Type></Item></RecordList>",
    );
    let Body::Response(Response::RecordInfo {
        name,
        sum,
        items,
        unreadable,
    }) = parse(&text).body
    else {
        panic!("no list");
    };
    assert_eq!((name.as_str(), sum, items.len(), unreadable), ("Gate", Some(3), 2, 1));
    assert_eq!(
        (items[0].kind, items[0].file_bytes, items[0].end.has_offset()),
        (Some(RecordKind::Time), Some(12), true)
    );
    assert_eq!((items[1].kind, items[1].device), (None, None));
    let none = parse(&wrap("Response", "RecordInfo", "<SumNum>0</SumNum>"));
    let empty = Response::RecordInfo {
        name: String::new(),
        sum: Some(0),
        items: vec![],
        unreadable: 0,
    };
    assert_eq!(none.body, Body::Response(empty));
}

#[test]
fn a_refused_query_is_told_from_an_empty_answer() {
    for command in ["Catalog", "RecordInfo", "DeviceInfo", "DeviceStatus"] {
        let read = parse(&wrap("Response", command, "<Result>ERROR</Result>")).body;
        let to = Command::parse(command).unwrap();
        assert_eq!(read, Body::Response(Response::Result { to, ok: false }), "{command}");
    }
    let silent = parse(&wrap("Response", "Alarm", "")).body;
    assert_eq!(
        silent,
        Body::Response(Response::Result {
            to: Command::Alarm,
            ok: false
        })
    );
}

#[test]
fn an_alarm_of_a_device() {
    let text = wrap(
        "Notify",
        "Alarm",
        "<AlarmPriority>4</AlarmPriority><AlarmMethod>2</AlarmMethod><AlarmTime>2026-11-21T06:23:29</AlarmTime><Info><AlarmType>2</AlarmType></Info><Longitude>NaN</Longitude><Latitude>1e999</Latitude>",
    );
    let Body::Notify(Notify::Alarm(alarm)) = parse(&text).body else {
        panic!("no alarm");
    };
    assert_eq!(
        (alarm.priority, alarm.method, alarm.alarm_type),
        (Some(4), Some(Alarm::BY_DEVICE), Some(2))
    );
    assert_eq!((alarm.longitude, alarm.latitude), (None, None));
    let direct = parse(&text.replace("<Info>", "").replace("</Info>", ""));
    assert!(matches!(
        direct.body,
        Body::Notify(Notify::Alarm(Alarm {
            alarm_type: Some(2),
            ..
        }))
    ));
}

#[test]
fn what_is_not_understood_is_kept_by_name() {
    let other = |root: &str, cmd_type: &str| Body::Other {
        root: root.to_owned(),
        cmd_type: cmd_type.to_owned(),
    };
    assert_eq!(parse("<html><body>x</body></html>").body, other("html", ""));
    assert_eq!(
        parse(&wrap("Notify", "VideoUploadNotify", "")).body,
        other("Notify", "VideoUploadNotify")
    );
    assert_eq!(
        parse(&wrap("Notify", "DeviceInfo", "")).body,
        other("Notify", "DeviceInfo")
    );
    assert_eq!(
        parse(&wrap("Query", "RecordInfo", "<StartTime>x</StartTime>")).body,
        other("Query", "RecordInfo")
    );
    let hostile = message(other("a><b", "x</CmdType>")).to_bytes();
    assert_eq!(Message::parse(&hostile).unwrap().body, other("Unknown", "x</CmdType>"));
}

#[test]
fn entities_and_nesting_do_nothing() {
    let bomb = "<?xml version=\"1.0\"?><!DOCTYPE lolz [<!ENTITY lol \"lol\"><!ENTITY lol2 \"&lol;&lol;\">]><Notify><CmdType>&lol2;</CmdType></Notify>";
    assert_eq!(Message::parse(bomb.as_bytes()), Err(ManscdpError::DocumentType));
    let file = "<!DOCTYPE x SYSTEM \"file:///etc/passwd\"><Notify><CmdType>Keepalive</CmdType></Notify>";
    assert_eq!(Message::parse(file.as_bytes()), Err(ManscdpError::DocumentType));
    let undefined = parse("<Notify><CmdType>&lol;</CmdType></Notify>");
    assert_eq!(
        undefined.body,
        Body::Other {
            root: "Notify".to_owned(),
            cmd_type: "&lol;".to_owned()
        }
    );
    let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    assert!(Message::parse(nested(xml::DEPTH_MAX).as_bytes()).is_ok());
    assert_eq!(
        Message::parse(nested(xml::DEPTH_MAX + 1).as_bytes()),
        Err(ManscdpError::TooDeep)
    );
}

#[test]
fn damage_is_refused() {
    for text in ["", "   ", "hello", "<?xml version=\"1.0\"?>", "<!-- a -->"] {
        assert_eq!(Message::parse(text.as_bytes()), Err(ManscdpError::NoXml), "{text}");
    }
    let whole = wrap("Notify", "Keepalive", "<Status>OK</Status>");
    for end in 0..whole.trim_end().len() {
        assert!(Message::parse(&whole.as_bytes()[..end]).is_err(), "{end}");
    }
    assert_eq!(
        Message::parse(&whole.as_bytes()[..whole.len() - 11]),
        Err(ManscdpError::Truncated)
    );
    assert!(matches!(
        Message::parse(b"<a><b></a></b>"),
        Err(ManscdpError::Malformed(_))
    ));
    let long = vec![b' '; BODY_BYTES_MAX + 1];
    assert_eq!(Message::parse(&long), Err(ManscdpError::TooLong));
}

#[test]
fn the_limits_hold() {
    let item = |n: usize| format!("<Item><DeviceID>{n}</DeviceID></Item>");
    let many: String = (0..ITEMS_MAX + 3).map(item).collect();
    let Body::Response(Response::Catalog { items, unreadable, .. }) = parse(&catalog(1, &many)).body else {
        panic!("no catalog");
    };
    assert_eq!((items.len(), unreadable), (ITEMS_MAX, 3));
    let fields = format!("{}<Status>ERROR</Status>", "<Reason>x</Reason>".repeat(xml::FIELDS_MAX));
    let full = parse(&wrap("Notify", "Keepalive", &fields));
    assert_eq!(
        full.body,
        Body::Notify(Notify::Keepalive {
            ok: true,
            faults: vec![]
        })
    );
}
