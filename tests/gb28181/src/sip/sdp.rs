//! The offer of an INVITE and its answer (GB/T 28181-2022 annex G).

use std::net::{IpAddr, SocketAddr};

use corenvr_media::WallTime;

use crate::{MediaTransport, SessionKind};

/// What the platform offers.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    pub kind: SessionKind,
    pub transport: MediaTransport,
    pub remote: SocketAddr,
    /// The `t=` line as it stands.
    pub time: String,
    pub range: Option<(WallTime, WallTime)>,
    pub ssrc: Option<u32>,
    /// The `y=` line as it stands.
    pub y: Option<String>,
    /// Payload types and what they mean, such as (96, "PS/90000").
    pub formats: Vec<(u8, String)>,
    pub download_speed: f64,
}

impl Offer {
    /// Reads an offer; the reason where that is not possible.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines: Vec<(&str, &str)> = text.lines().filter_map(|l| l.trim().split_once('=')).collect();
        let first = |name: &str| lines.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        let attribute = |name: &str| {
            lines.iter().filter(|(n, _)| *n == "a").find_map(|(_, v)| {
                let (n, v) = v.split_once(':')?;
                n.eq_ignore_ascii_case(name).then(|| v.trim())
            })
        };
        let kind = match first("s").unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "play" => SessionKind::Play,
            "playback" => SessionKind::Playback,
            "download" => SessionKind::Download,
            other => return Err(format!("s={other} is neither Play, Playback nor Download")),
        };
        let media: Vec<&str> = first("m").ok_or("no m=")?.split_whitespace().collect();
        let [_, port, protocol, types @ ..] = media.as_slice() else {
            return Err("m= is too short".into());
        };
        let port: u16 = port.parse().map_err(|_| "m= has no port")?;
        let ip = first("c").and_then(|c| c.split_whitespace().nth(2)).ok_or("no c=")?;
        let ip: IpAddr = ip.parse().map_err(|_| format!("c= is no address: {ip}"))?;
        let transport = if protocol.eq_ignore_ascii_case("TCP/RTP/AVP") {
            match attribute("setup") {
                Some("active") => MediaTransport::TcpActive,
                _ => MediaTransport::TcpPassive,
            }
        } else {
            MediaTransport::Udp
        };
        let time = first("t").unwrap_or("0 0").to_owned();
        let mut seconds = time.split_whitespace().map(|t| t.parse::<i64>().unwrap_or(0));
        let (start, end) = (seconds.next().unwrap_or(0), seconds.next().unwrap_or(0));
        if kind != SessionKind::Play && end <= start {
            return Err(format!("t={time} is no range"));
        }
        let at = |s: i64| WallTime::from_millis(s * 1000);
        let formats = types.iter().filter_map(|t| {
            let number: u8 = t.parse().ok()?;
            let prefix = format!("rtpmap:{number} ");
            let map = lines
                .iter()
                .find_map(|(n, v)| (*n == "a").then(|| v.strip_prefix(&prefix)).flatten());
            Some((number, map.unwrap_or_default().trim().to_owned()))
        });
        Ok(Self {
            kind,
            transport,
            remote: (ip, port).into(),
            range: (kind != SessionKind::Play).then(|| (at(start), at(end))),
            time,
            ssrc: first("y").and_then(|y| y.trim().parse().ok()),
            y: first("y").map(|y| y.trim().to_owned()),
            formats: formats.collect(),
            download_speed: attribute("downloadspeed")
                .and_then(|s| s.parse().ok())
                .filter(|s| *s > 0.0)
                .unwrap_or(1.0),
        })
    }

    /// The payload type for an encoding; `otherwise` where the offer does not name it.
    pub fn payload_type(&self, encoding: &str, otherwise: u8) -> u8 {
        let names = |map: &str| map.split('/').next().is_some_and(|n| n.eq_ignore_ascii_case(encoding));
        self.formats
            .iter()
            .find(|(_, map)| names(map))
            .map_or(otherwise, |(number, _)| *number)
    }
}

/// What the device answers.
#[derive(Debug)]
pub struct Answer<'a> {
    pub offer: &'a Offer,
    pub channel: &'a str,
    pub local: SocketAddr,
    pub payload_type: u8,
    /// Such as `PS/90000`.
    pub encoding: &'a str,
    pub y: Option<String>,
}

impl Answer<'_> {
    pub fn text(&self) -> String {
        let ip = self.local.ip();
        let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
        let kind = match self.offer.kind {
            SessionKind::Play => "Play",
            SessionKind::Playback => "Playback",
            SessionKind::Download => "Download",
        };
        let (protocol, setup) = match self.offer.transport {
            MediaTransport::Udp => ("RTP/AVP", ""),
            MediaTransport::TcpPassive => ("TCP/RTP/AVP", "a=setup:active\r\na=connection:new\r\n"),
            MediaTransport::TcpActive => ("TCP/RTP/AVP", "a=setup:passive\r\na=connection:new\r\n"),
        };
        let (channel, time, port) = (self.channel, &self.offer.time, self.local.port());
        let (pt, encoding) = (self.payload_type, self.encoding);
        let mut text = format!(
            "v=0\r\no={channel} 0 0 IN {family} {ip}\r\ns={kind}\r\nc=IN {family} {ip}\r\nt={time}\r\n\
             m=video {port} {protocol} {pt}\r\na=sendonly\r\na=rtpmap:{pt} {encoding}\r\n{setup}"
        );
        if let Some(y) = &self.y {
            text.extend(["y=", y, "\r\n"]);
        }
        text + "f=v/////a///\r\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=34020000001310000001 0 0 IN IP4 192.168.1.2\r\ns=Playback\r\nu=34020000001310000001:0\r\n\
        c=IN IP4 192.168.1.2\r\nt=1700000000 1700000060\r\nm=video 30000 TCP/RTP/AVP 96 98 97\r\na=recvonly\r\n\
        a=rtpmap:96 PS/90000\r\na=rtpmap:98 H264/90000\r\na=rtpmap:97 MPEG4/90000\r\na=setup:active\r\na=connection:new\r\n\
        y=1200000001\r\n";

    #[test]
    fn an_offer_is_understood_and_answered() {
        let offer = Offer::parse(OFFER).unwrap();
        assert_eq!(
            (offer.kind, offer.transport),
            (SessionKind::Playback, MediaTransport::TcpActive)
        );
        assert_eq!(offer.remote, "192.168.1.2:30000".parse().unwrap());
        assert_eq!(offer.range.unwrap().1, WallTime::from_millis(1_700_000_060_000));
        assert_eq!(offer.ssrc, Some(1_200_000_001));
        assert_eq!(
            (offer.payload_type("H264", 1), offer.payload_type("H265", 99)),
            (98, 99)
        );
        let text = Answer {
            offer: &offer,
            channel: "34020000001310000001",
            local: "10.0.0.1:9000".parse().unwrap(),
            payload_type: 96,
            encoding: "PS/90000",
            y: offer.y.clone(),
        }
        .text();
        for line in [
            "t=1700000000 1700000060",
            "m=video 9000 TCP/RTP/AVP 96",
            "a=setup:passive",
            "y=1200000001",
            "a=sendonly",
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line} in {text}");
        }
    }

    #[test]
    fn what_is_no_offer_is_refused_with_a_reason() {
        assert!(Offer::parse(&OFFER.replace("s=Playback", "s=Talk")).is_err());
        assert!(
            Offer::parse(&OFFER.replace("1700000060", "5"))
                .unwrap_err()
                .contains("range")
        );
        assert!(Offer::parse("v=0").is_err());
    }
}
