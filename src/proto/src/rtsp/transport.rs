//! The Transport header (RFC 2326 section 12.39).

use std::fmt;

/// The most transport specifications that are read from one header; what follows is ignored.
pub const SPECS_MAX: usize = 16;

/// What carries RTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lower {
    /// Datagrams: `RTP/AVP` or `RTP/AVP/UDP`.
    Udp,
    /// Interleaved in the RTSP connection: `RTP/AVP/TCP`.
    Tcp,
}

/// What the transport is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Mode {
    Play,
    Record,
}

/// One transport specification. Only RTP/AVP profiles are read: `RTP/SAVP` would need keys that nothing here has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// What carries RTP.
    pub lower: Lower,
    /// Multicast instead of unicast. Absent in the header means multicast by the RFC, but every client that leaves it
    /// out wants unicast.
    pub multicast: bool,
    /// Channels of RTP and RTCP.
    pub interleaved: Option<(u8, u8)>,
    /// The client's ports for RTP and RTCP.
    pub client_port: Option<(u16, u16)>,
    /// The server's ports for RTP and RTCP.
    pub server_port: Option<(u16, u16)>,
    /// Multicast ports.
    pub port: Option<(u16, u16)>,
    /// Multicast time to live.
    pub ttl: Option<u8>,
    /// The sender's synchronisation source.
    pub ssrc: Option<u32>,
    /// Direction; absent means play.
    pub mode: Option<Mode>,
    /// Where the packets come from, if not from the server's address.
    pub source: Option<String>,
    /// Where the packets go. Ignored by our server: it sends to nobody but the one who asks.
    pub destination: Option<String>,
}

impl Transport {
    /// Interleaved on `rtp` and the channel after it.
    pub const fn tcp(rtp: u8) -> Self {
        let mut t = Self::empty(Lower::Tcp);
        t.interleaved = Some((rtp, rtp.wrapping_add(1)));
        t
    }

    /// Unicast datagrams to the client's two ports.
    pub const fn udp(client_rtp: u16, client_rtcp: u16) -> Self {
        let mut t = Self::empty(Lower::Udp);
        t.client_port = Some((client_rtp, client_rtcp));
        t
    }

    const fn empty(lower: Lower) -> Self {
        Self {
            lower,
            multicast: false,
            interleaved: None,
            client_port: None,
            server_port: None,
            port: None,
            ttl: None,
            ssrc: None,
            mode: None,
            source: None,
            destination: None,
        }
    }

    /// Every specification of a header that can be understood, in order of preference; the others are left out.
    pub fn parse_list(value: &str) -> Vec<Self> {
        split_outside_quotes(value, b',')
            .take(SPECS_MAX)
            .filter_map(Self::parse)
            .collect()
    }

    /// One specification; `None` if its profile is not RTP/AVP or a parameter that matters is malformed.
    pub fn parse(spec: &str) -> Option<Self> {
        let mut parts = split_outside_quotes(spec, b';').map(str::trim);
        let profile = parts.next()?.to_ascii_uppercase();
        let mut t = Self::empty(match profile.as_str() {
            "RTP/AVP" | "RTP/AVP/UDP" => Lower::Udp,
            "RTP/AVP/TCP" => Lower::Tcp,
            _ => return None,
        });
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim().trim_matches('"').trim();
            match key.trim().to_ascii_lowercase().as_str() {
                "multicast" => t.multicast = true,
                "interleaved" => t.interleaved = Some(pair(value)?),
                "client_port" => t.client_port = Some(pair(value)?),
                // RTSP servers behind a lazy template send `server_port=0-0` or nothing; the ports are then unknown.
                "server_port" => t.server_port = pair::<u16>(value).filter(|p| p.0 != 0),
                "port" => t.port = pair(value),
                "ttl" => t.ttl = value.parse().ok(),
                "ssrc" => t.ssrc = parse_ssrc(value),
                "mode" => {
                    t.mode = match value.to_ascii_lowercase().as_str() {
                        "play" | "\"play\"" => Some(Mode::Play),
                        "record" | "receive" => Some(Mode::Record),
                        _ => None,
                    }
                }
                "source" => t.source = non_empty(value),
                "destination" => t.destination = non_empty(value),
                _ => {}
            }
        }
        Some(t)
    }
}

/// Eight hexadecimal digits by the RFC; cameras leave leading zeros out or put a blank before them.
fn parse_ssrc(value: &str) -> Option<u32> {
    let digits = value.trim_start_matches("0x").trim_start_matches("0X");
    if digits.is_empty() || digits.starts_with('+') {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}

fn non_empty(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// What port and channel numbers have in common.
trait Number: Copy + std::str::FromStr {
    fn next(self) -> Option<Self>;
}

impl Number for u8 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Number for u16 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

/// `a-b`; a lone `a` means `a` and the number after it.
fn pair<T: Number>(value: &str) -> Option<(T, T)> {
    let number = |s: &str| {
        let s = s.trim();
        s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse::<T>().ok())?
    };
    if let Some((a, b)) = value.split_once('-') {
        return Some((number(a)?, number(b)?));
    }
    let a = number(value)?;
    Some((a, a.next()?))
}

/// Splits at `separator`, but not inside double quotes. An unclosed quote ends with the text.
pub(crate) fn split_outside_quotes(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let s = rest?;
        let mut quoted = false;
        let end = s.bytes().position(|b| {
            quoted ^= b == b'"';
            b == separator && !quoted
        });
        match end {
            Some(i) => {
                rest = Some(&s[i + 1..]);
                Some(&s[..i])
            }
            None => rest.take(),
        }
    })
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.lower {
            Lower::Udp => "RTP/AVP",
            Lower::Tcp => "RTP/AVP/TCP",
        })?;
        f.write_str(if self.multicast { ";multicast" } else { ";unicast" })?;
        if let Some(d) = &self.destination {
            write!(f, ";destination={d}")?;
        }
        if let Some(s) = &self.source {
            write!(f, ";source={s}")?;
        }
        if let Some((a, b)) = self.interleaved {
            write!(f, ";interleaved={a}-{b}")?;
        }
        if let Some((a, b)) = self.port {
            write!(f, ";port={a}-{b}")?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, ";ttl={ttl}")?;
        }
        if let Some((a, b)) = self.client_port {
            write!(f, ";client_port={a}-{b}")?;
        }
        if let Some((a, b)) = self.server_port {
            write!(f, ";server_port={a}-{b}")?;
        }
        if let Some(ssrc) = self.ssrc {
            write!(f, ";ssrc={ssrc:08X}")?;
        }
        match self.mode {
            Some(Mode::Play) => f.write_str(";mode=\"PLAY\""),
            Some(Mode::Record) => f.write_str(";mode=\"RECORD\""),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_players_ask_for() {
        let list = Transport::parse_list(
            "RTP/AVP/TCP;unicast;interleaved=0-1,RTP/AVP;unicast;client_port=5000-5001;mode=play,RTP/AVP;multicast",
        );
        assert_eq!(list.len(), 3);
        assert_eq!(list[0], Transport::tcp(0));
        assert_eq!(list[1].client_port, Some((5000, 5001)));
        assert_eq!(list[1].mode, Some(Mode::Play));
        assert!(list[2].multicast && list[2].lower == Lower::Udp);
        // FFmpeg and live555 name UDP in full.
        let t = Transport::parse("RTP/AVP/UDP;unicast;client_port=17000-17001").unwrap();
        assert_eq!(t, Transport::udp(17000, 17001));
    }

    #[test]
    fn an_unclosed_quote_or_a_bare_parameter_is_no_panic() {
        let t = Transport::parse("RTP/AVP/TCP;interleaved=0-1;mode=\"").unwrap();
        assert_eq!((t.interleaved, t.mode), (Some((0, 1)), None));
        assert_eq!(
            Transport::parse("RTP/AVP;mode=\"PLAY\";;unicast; =;ttl").unwrap().mode,
            Some(Mode::Play)
        );
        let two = Transport::parse_list("RTP/AVP;mode=\"PLAY,RECORD\";client_port=2-3,RTP/AVP/TCP");
        assert_eq!((two.len(), two[0].client_port), (2, Some((2, 3))));
    }

    #[test]
    fn a_specification_that_cannot_be_served_is_left_out() {
        for bad in [
            "RTP/SAVP;unicast;client_port=5000-5001",
            "RTP/AVP/TCP;interleaved=0-256",
            "RTP/AVP/TCP;interleaved=255",
            "RTP/AVP;client_port=70000-70001",
            "RTP/AVP;client_port=-1",
            "RTP/AVP;client_port=+1-2",
            "",
            ";",
        ] {
            assert_eq!(Transport::parse(bad), None, "{bad}");
        }
        assert_eq!(
            Transport::parse_list("RTP/SAVP;unicast;client_port=1-2,RTP/AVP/TCP;unicast;interleaved=4").len(),
            1
        );
        assert_eq!(
            Transport::parse("RTP/AVP/TCP;interleaved=4").unwrap().interleaved,
            Some((4, 5))
        );
    }

    /// Some Hikvision cameras send `ssrc= d6d6627`; Luckfox leaves `unicast` out; others send no usable server port.
    #[test]
    fn camera_answers() {
        let t = Transport::parse("RTP/AVP/TCP;unicast;interleaved=0-1;ssrc= d6d6627;mode=\"play\"").unwrap();
        assert_eq!(t.ssrc, Some(0x0d6d_6627));
        let t = Transport::parse("RTP/AVP/TCP;ssrc=22345684;interleaved=0-1").unwrap();
        assert_eq!((t.ssrc, t.multicast), (Some(0x2234_5684), false));
        let t =
            Transport::parse("RTP/AVP;unicast;client_port=5000-5001;server_port=0-0;ssrc=zz;source=10.0.0.9").unwrap();
        assert_eq!(
            (t.server_port, t.ssrc, t.source.as_deref()),
            (None, None, Some("10.0.0.9"))
        );
    }

    #[test]
    fn writes_what_it_reads() {
        let mut t = Transport::udp(5000, 5001);
        t.server_port = Some((6000, 6001));
        t.ssrc = Some(0x00AB_CDEF);
        t.mode = Some(Mode::Play);
        t.source = Some("192.0.2.1".into());
        t.ttl = Some(3);
        assert_eq!(
            t.to_string(),
            "RTP/AVP;unicast;source=192.0.2.1;ttl=3;client_port=5000-5001;server_port=6000-6001;ssrc=00ABCDEF;mode=\"PLAY\""
        );
        assert_eq!(Transport::parse(&t.to_string()), Some(t));
    }
}
