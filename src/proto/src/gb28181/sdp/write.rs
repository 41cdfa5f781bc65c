//! Writing. The order of the lines is the one that devices in the field know.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use super::{Answer, MediaTransport, Offer, Payload, SessionKind, Setup, StreamChoice};
use crate::format::{MediaFormat, MediaKind};

/// Ticks a second of everything that is offered.
const VIDEO_RATE: u32 = 90_000;

/// What we can receive, in the order of preference, with the payload types in use.
const OFFERED: [(u8, Payload); 4] = [
    (96, Payload::Ps),
    (98, Payload::H264),
    (97, Payload::Mpeg4),
    (99, Payload::H265),
];

/// The formats of every offer of ours.
pub(super) fn offered() -> Vec<MediaFormat> {
    let read = |(payload_type, payload): (u8, Payload)| {
        let (encoding, _) = payload.rtpmap().split_once('/')?;
        Some(MediaFormat {
            kind: MediaKind::Video,
            payload_type,
            encoding: encoding.to_owned(),
            clock_rate: VIDEO_RATE,
            channels: 1,
            parameters: Vec::new(),
        })
    };
    OFFERED.into_iter().filter_map(read).collect()
}

const fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IP4",
        IpAddr::V6(_) => "IP6",
    }
}

/// `v=` to `t=`.
fn head(
    f: &mut fmt::Formatter<'_>,
    origin: impl fmt::Display,
    session: SessionKind,
    uri: Option<&dyn fmt::Display>,
    address: IpAddr,
) -> fmt::Result {
    let family = family(address);
    let name = session.as_str();
    write!(f, "v=0\r\no={origin} 0 0 IN {family} {address}\r\ns={name}\r\n")?;
    if let Some(uri) = uri.filter(|_| session.is_history()) {
        write!(f, "u={uri}:0\r\n")?;
    }
    let (start, end) = session.range().map_or((0, 0), |r| (r.start_s, r.end_s));
    write!(f, "c=IN {family} {address}\r\nt={start} {end}\r\n")
}

fn setup(f: &mut fmt::Formatter<'_>, setup: Setup) -> fmt::Result {
    let role = match setup {
        Setup::Active => "active",
        Setup::Passive => "passive",
        Setup::Actpass => "actpass",
    };
    write!(f, "a=setup:{role}\r\na=connection:new\r\n")
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channel = self.channel.unwrap_or(self.origin);
        head(f, self.origin, self.session, Some(&channel), self.address)?;
        let proto = if self.transport.is_tcp() {
            "TCP/RTP/AVP"
        } else {
            "RTP/AVP"
        };
        write!(f, "m=video {} {proto} 96 97 98 99\r\na=recvonly\r\n", self.port)?;
        for (payload_type, payload) in OFFERED {
            write!(f, "a=rtpmap:{payload_type} {}\r\n", payload.rtpmap())?;
        }
        match self.transport {
            MediaTransport::Udp => {}
            MediaTransport::TcpPassive => setup(f, Setup::Passive)?,
            MediaTransport::TcpActive => setup(f, Setup::Active)?,
        }
        if let SessionKind::Download { speed: Some(speed), .. } = self.session {
            write!(f, "a=downloadspeed:{speed}\r\n")?;
        }
        if let Some(stream) = self.stream {
            let (number, mode) = match stream {
                StreamChoice::Main => (0, "MAIN"),
                StreamChoice::Sub => (1, "SUB"),
            };
            write!(
                f,
                "a=streamnumber:{number}\r\na=streamprofile:{number}\r\na=streamMode:{mode}\r\n"
            )?;
        }
        if let Some(ssrc) = self.ssrc {
            write!(f, "y={ssrc}\r\n")?;
        }
        f.write_str("f=v/////a///\r\n")
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let session = self.session.unwrap_or(SessionKind::Play);
        let address = self.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        match &self.origin {
            Some(origin) => head(f, origin, session, Some(origin), address)?,
            None => head(f, "-", session, None, address)?,
        }
        let proto = if self.is_tcp { "TCP/RTP/AVP" } else { "RTP/AVP" };
        write!(f, "m=video {} {proto}", self.port)?;
        for format in &self.formats {
            write!(f, " {}", format.payload_type)?;
        }
        f.write_str("\r\na=sendonly\r\n")?;
        for format in self.formats.iter().filter(|f| !f.encoding.is_empty()) {
            write!(
                f,
                "a=rtpmap:{} {}/{}\r\n",
                format.payload_type, format.encoding, format.clock_rate
            )?;
        }
        if let Some(role) = self.setup {
            setup(f, role)?;
        }
        if let SessionKind::Download { speed: Some(speed), .. } = session {
            write!(f, "a=downloadspeed:{speed}\r\n")?;
        }
        if let Some(bytes) = self.file_bytes {
            write!(f, "a=filesize:{bytes}\r\n")?;
        }
        if let Some(ssrc) = self.ssrc {
            write!(f, "y={ssrc}\r\n")?;
        }
        let parameters = if self.parameters.is_empty() {
            "v/////a///"
        } else {
            &self.parameters
        };
        f.write_str("f=")?;
        parameters
            .split(char::is_control)
            .try_for_each(|part| f.write_str(part))?;
        f.write_str("\r\n")
    }
}
