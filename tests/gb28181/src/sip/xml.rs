//! MANSCDP bodies (GB/T 28181-2022 annex A): reading requests, writing answers and notifications in the charset that is wanted.

use corenvr_media::WallTime;

use crate::{Alarm, ArchiveSpan, Deviation, Deviations, config::ChannelConfig};

/// Reads a body in whatever charset: the elements that are looked for are ASCII.
pub fn decode(body: &[u8]) -> String {
    match std::str::from_utf8(body) {
        Ok(text) => text.to_owned(),
        Err(_) => encoding_rs::GB18030.decode(body).0.into_owned(),
    }
}

/// The text of the first element of this name.
pub fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = xml;
    while let Some(at) = rest.find(&format!("<{name}")) {
        rest = &rest[at + 1 + name.len()..];
        if !rest.starts_with(['>', ' ', '/']) {
            continue;
        }
        let (head, body) = rest.split_once('>')?;
        if head.ends_with('/') {
            return Some("");
        }
        return body.find(&format!("</{name}")).map(|end| body[..end].trim());
    }
    None
}

/// The names and texts of the elements that stand directly in the root and hold nothing but text.
pub fn leaves(xml: &str) -> Vec<(String, String)> {
    let mut list = Vec::new();
    let mut rest = xml;
    while let Some((_, after)) = rest.split_once('<') {
        let Some((name, body)) = after.split_once('>') else {
            break;
        };
        rest = body;
        if let Some(end) = body.find('<')
            && body[end..].starts_with(&format!("</{name}>"))
        {
            list.push((name.to_owned(), body[..end].trim().to_owned()));
        }
    }
    list
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A body: the root (`Notify`, `Response`), its `CmdType` and `SN`, and what follows.
pub fn body(deviations: Deviations, root: &str, command: &str, sn: &str, rest: &str) -> Vec<u8> {
    let utf8 = deviations.has(Deviation::Utf8);
    let declared = if utf8 || deviations.has(Deviation::CharsetLie) {
        "UTF-8"
    } else {
        "GB2312"
    };
    let text = if deviations.has(Deviation::XmlAttributes) {
        format!(
            "<?xml version=\"1.0\" encoding=\"{declared}\"?>\r\n<{root} CmdType=\"{command}\" SN=\"{sn}\">\r\n{rest}</{root}>\r\n"
        )
    } else {
        format!(
            "<?xml version=\"1.0\" encoding=\"{declared}\"?>\r\n<{root}>\r\n<CmdType>{command}</CmdType>\r\n<SN>{sn}</SN>\r\n{rest}</{root}>\r\n"
        )
    };
    if utf8 {
        text.into_bytes()
    } else {
        // GB 2312 is a part of GB 18030, and devices that declare the one write the other.
        encoding_rs::GB18030.encode(&text).0.into_owned()
    }
}

/// An item of the catalog; `event` only in notifications.
pub fn catalog_item(channel: &ChannelConfig, online: bool, device_id: &str, event: Option<&str>) -> String {
    let event = event.map_or(String::new(), |e| format!("<Event>{e}</Event>\r\n"));
    let (id, name) = (&channel.id, escaped(&channel.name));
    let civil: String = id.chars().take(6).collect();
    let status = if online { "ON" } else { "OFF" };
    format!(
        "<Item>\r\n<DeviceID>{id}</DeviceID>\r\n{event}<Name>{name}</Name>\r\n<Manufacturer>Simulated</Manufacturer>\r\n\
         <Model>Camera</Model>\r\n<Owner>Owner</Owner>\r\n<CivilCode>{civil}</CivilCode>\r\n<Address>Address</Address>\r\n\
         <Parental>0</Parental>\r\n<ParentID>{device_id}</ParentID>\r\n<SafetyWay>0</SafetyWay>\r\n<RegisterWay>1</RegisterWay>\r\n\
         <Secrecy>0</Secrecy>\r\n<Status>{status}</Status>\r\n</Item>\r\n"
    )
}

/// An item of `RecordInfo`.
pub fn record_item(channel: &ChannelConfig, span: ArchiveSpan, offset_s: i32) -> String {
    let (start, end) = (local_time(span.start, offset_s), local_time(span.end, offset_s));
    let (id, name) = (&channel.id, escaped(&channel.name));
    format!(
        "<Item>\r\n<DeviceID>{id}</DeviceID>\r\n<Name>{name}</Name>\r\n<FilePath>/record/{id}/{start}</FilePath>\r\n\
         <Address>Address</Address>\r\n<StartTime>{start}</StartTime>\r\n<EndTime>{end}</EndTime>\r\n<Secrecy>0</Secrecy>\r\n\
         <Type>time</Type>\r\n<RecorderID>{id}</RecorderID>\r\n</Item>\r\n"
    )
}

/// The elements of an alarm.
pub fn alarm(alarm: &Alarm, at: WallTime, offset_s: i32) -> String {
    format!(
        "<DeviceID>{}</DeviceID>\r\n<AlarmPriority>{}</AlarmPriority>\r\n<AlarmMethod>{}</AlarmMethod>\r\n\
         <AlarmTime>{}</AlarmTime>\r\n<AlarmDescription>{}</AlarmDescription>\r\n\
         <Info>\r\n<AlarmType>{}</AlarmType>\r\n</Info>\r\n",
        alarm.id,
        alarm.priority,
        alarm.method,
        local_time(at, offset_s),
        escaped(&alarm.description),
        alarm.kind,
    )
}

/// `2026-11-21T14:23:29`, in the device's zone.
pub fn local_time(at: WallTime, offset_s: i32) -> String {
    let (y, m, d, h, min, s, _) = at.offset(i64::from(offset_s) * 1_000_000).civil();
    format!("{y:04}-{m:02}-{d:02}T{h:02}:{min:02}:{s:02}")
}

/// The other way round; fractions of a second are ignored.
pub fn parse_local(text: &str, offset_s: i32) -> Option<WallTime> {
    let whole = text.trim().get(..19)?;
    let utc = WallTime::parse(&format!("{whole}Z")).ok()?;
    Some(utc.offset(-i64::from(offset_s) * 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_whatever_stands_around_them() {
        let xml = "<?xml version=\"1.0\"?><Control><CmdType>DeviceControl</CmdType><SN> 3 </SN><PTZCmd>A50F</PTZCmd>\
            <Info><ControlPriority>5</ControlPriority></Info><PTZCmdParams/></Control>";
        assert_eq!(element(xml, "SN"), Some("3"));
        assert_eq!(element(xml, "PTZCmd"), Some("A50F"));
        assert_eq!(element(xml, "PTZCmdParams"), Some(""));
        assert_eq!(element(xml, "Cmd"), None);
        let names: Vec<_> = leaves(xml).into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["CmdType", "SN", "PTZCmd", "ControlPriority"]);
    }

    #[test]
    fn names_are_written_in_the_charset_that_is_wanted() {
        let of = |d: Deviations| body(d, "Response", "Catalog", "1", "<Name>前门</Name>");
        let gb = of(Deviations::NONE);
        assert!(gb.windows(4).any(|w| w == [0xC7, 0xB0, 0xC3, 0xC5]));
        assert_eq!(element(&decode(&gb), "Name"), Some("前门"));
        let utf8 = of(Deviations::NONE.with(Deviation::Utf8));
        assert!(String::from_utf8(utf8).unwrap().contains("encoding=\"UTF-8\""));
        let lie = of(Deviations::NONE.with(Deviation::CharsetLie));
        assert!(String::from_utf8(lie).is_err());
    }

    #[test]
    fn local_times_go_both_ways() {
        let at = WallTime::parse("2026-11-20T22:23:29Z").unwrap();
        assert_eq!(local_time(at, 8 * 3600), "2026-11-21T06:23:29");
        assert_eq!(parse_local("2026-11-21T06:23:29.135", 8 * 3600), Some(at));
        assert_eq!(parse_local("yesterday", 0), None);
    }
}
