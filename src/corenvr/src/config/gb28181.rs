//! `[gb28181]`: the platform that devices register with.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use corenvr_proto::gb28181::{id::DeviceId, platform::UnknownDevices};

use super::{
    camera::one_of,
    load::addresses,
    reader::{Errors, Section, boolean, parsed, string},
    values::Problem,
};

/// The platform's identity unless another one is set: the one that cameras' own pages show as an example.
const DEFAULT_ID: &str = "34020000002000000001";
/// Characters of a domain.
const DOMAIN_CHARS: usize = 10;
/// A shorter password is easily guessed; the start says so.
pub const PASSWORD_CHARS_GOOD: usize = 8;
/// Longest password that devices are known to take.
const PASSWORD_CHARS_MAX: usize = 64;
/// Fewest media ports: one pair.
const PORTS_MIN: u16 = 2;
/// Lowest media port.
const PORT_MIN: u16 = 1024;
/// China Standard Time, which the standard's times are in.
const BEIJING_S: i32 = 8 * 3600;
/// The clock of no country lies further from UTC.
const OFFSET_MAX_S: i32 = 14 * 3600;

/// What `unknown_devices` can be.
const UNKNOWN: [(&str, UnknownDevices); 3] = [
    ("pending", UnknownDevices::Pending),
    ("accept", UnknownDevices::Accept),
    ("reject", UnknownDevices::Reject),
];

/// The platform's settings.
#[derive(Clone, PartialEq, Eq)]
pub struct Gb28181 {
    /// Whether devices can register. Without the key: if there is a section at all.
    pub enabled: bool,
    /// Where SIP is spoken, over UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// The platform's identity.
    pub id: DeviceId,
    /// Its domain, which is also the realm of the passwords.
    pub domain: String,
    /// The password of devices that have none of their own; `None`: one that was made at random for this machine.
    pub password: Option<String>,
    /// First and last port for media.
    pub media_ports: (u16, u16),
    /// The address devices are told, where it is not the one of the interface: behind a port forwarding.
    pub announce_ip: Option<IpAddr>,
    /// What happens to devices that no camera names.
    pub unknown_devices: UnknownDevices,
    /// Whether devices are told the time.
    pub send_date: bool,
    /// Where the clocks of the devices lie, in seconds east of UTC.
    pub utc_offset_s: i32,
}

impl std::fmt::Debug for Gb28181 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gb28181")
            .field("enabled", &self.enabled)
            .field("listen", &self.listen)
            .field("id", &self.id)
            .field("password", &self.password.as_ref().map(|_| "hidden"))
            .finish_non_exhaustive()
    }
}

impl Default for Gb28181 {
    fn default() -> Self {
        let id = DeviceId::parse(DEFAULT_ID).expect("the default is twenty digits");
        Self {
            enabled: false,
            listen: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 5060))],
            domain: id.domain().to_owned(),
            id,
            password: None,
            media_ports: (30_000, 30_500),
            announce_ip: None,
            unknown_devices: UnknownDevices::Pending,
            send_date: true,
            utc_offset_s: BEIJING_S,
        }
    }
}

impl Gb28181 {
    /// Reads the section. `present`: there is one.
    pub(super) fn read(mut section: Section<'_>, present: bool, errors: &mut Errors<'_>) -> Self {
        let mut read = Self::default();
        let e = &mut *errors;
        read.enabled = section.take("enabled", e, boolean).unwrap_or(present);
        if let Some(v) = section.take("listen", e, |v| addresses(v, "0.0.0.0:5060")) {
            read.listen = v;
        }
        if let Some(v) = section.take("id", e, |v| parsed(v, platform_id)) {
            v.domain().clone_into(&mut read.domain);
            read.id = v;
        }
        if let Some(v) = section.take("domain", e, |v| parsed(v, domain)) {
            read.domain = v;
        }
        if let Some(v) = section.take("password", e, |v| parsed(v, password)) {
            read.password = v;
        }
        if let Some(v) = section.take("media_ports", e, |v| parsed(v, ports)) {
            read.media_ports = v;
        }
        if let Some(v) = section.take("announce_ip", e, |v| parsed(v, address)) {
            read.announce_ip = v;
        }
        if let Some(v) = section.take("unknown_devices", e, |v| parsed(v, |t| one_of(t, &UNKNOWN))) {
            read.unknown_devices = v;
        }
        if let Some(v) = section.take("date", e, boolean) {
            read.send_date = v;
        }
        if let Some(v) = section.take("utc_offset", e, |v| string(v).and_then(|t| offset(&t))) {
            read.utc_offset_s = v;
        }
        section.finish(errors);
        read
    }
}

fn platform_id(text: &str) -> Result<DeviceId, Problem> {
    let remedy = "write the 20 digits of a platform, such as \"34020000002000000001\"";
    match DeviceId::parse(text) {
        Ok(id) if id.is_standard() => Ok(id),
        Ok(_) => Err(Problem::new("is not 20 digits", remedy)),
        Err(error) => Err(Problem::new(error.to_string(), remedy)),
    }
}

fn domain(text: &str) -> Result<String, Problem> {
    if text.len() == DOMAIN_CHARS && text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    Err(Problem::new(
        format!("{text:?} is not a domain"),
        "write 10 digits, usually the first ten of the id",
    ))
}

/// An empty one is none of our own.
fn password(text: &str) -> Result<Option<String>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() <= PASSWORD_CHARS_MAX && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(Some(text.to_owned()));
    }
    Err(Problem::new(
        "is too long, or has characters that cameras do not take",
        format!("use up to {PASSWORD_CHARS_MAX} letters, digits and signs, or \"\" for a random one"),
    ))
}

fn ports(text: &str) -> Result<(u16, u16), Problem> {
    let remedy = "write first and last port, such as \"30000-30500\"";
    let range = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
    match range {
        Some((first, last)) if first >= PORT_MIN && last > first && last - first + 1 >= PORTS_MIN => Ok((first, last)),
        Some(_) => Err(Problem::new(
            format!("{text:?} holds no pair of ports of {PORT_MIN} and above"),
            remedy,
        )),
        None => Err(Problem::new(format!("{text:?} is not a range of ports"), remedy)),
    }
}

/// An empty one is the address of the interface.
fn address(text: &str) -> Result<Option<IpAddr>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<IpAddr>() {
        Ok(ip) if !ip.is_unspecified() => Ok(Some(ip)),
        _ => Err(Problem::new(
            format!("{text:?} is not an address that a device could reach"),
            "write the address that devices see, such as \"203.0.113.7\", or \"\" for the interface's own",
        )),
    }
}

fn offset(text: &str) -> Result<i32, Problem> {
    let problem = || {
        Problem::new(
            format!("{text:?} is not a time zone's offset"),
            "write hours and minutes from UTC, such as \"+08:00\"",
        )
    };
    let (sign, rest) = match text.split_at_checked(1) {
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        _ => return Err(problem()),
    };
    let (hours, minutes) = rest.split_once(':').ok_or_else(problem)?;
    let parse = |t: &str| t.parse::<i32>().ok().filter(|n| t.len() == 2 && (0..60).contains(n));
    let seconds = parse(hours)
        .zip(parse(minutes))
        .map(|(h, m)| sign * (h * 3600 + m * 60))
        .ok_or_else(problem)?;
    if seconds.abs() > OFFSET_MAX_S {
        return Err(problem());
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load_text;

    #[test]
    fn the_section_alone_enables_and_every_key_is_read() {
        let read = |text: &str| load_text(Path::new("x.toml"), text);
        assert!(!read("").config.gb28181.enabled);
        assert!(read("[gb28181]\n").config.gb28181.enabled);
        assert!(!read("[gb28181]\nenabled = false\n").config.gb28181.enabled);
        let loaded = read(
            "[gb28181]\nlisten = \"192.0.2.1:5061\"\nid = \"11010000002000000009\"\npassword = \"hunter2hunter2\"\n\
            media_ports = \"40000-40099\"\nannounce_ip = \"203.0.113.7\"\nunknown_devices = \"accept\"\ndate = false\n\
            utc_offset = \"-03:30\"\n",
        );
        assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
        let gb = loaded.config.gb28181;
        assert_eq!(gb.listen, ["192.0.2.1:5061".parse().unwrap()]);
        assert_eq!((gb.domain.as_str(), gb.media_ports), ("1101000000", (40_000, 40_099)));
        assert_eq!((gb.send_date, gb.utc_offset_s), (false, -12_600));
        assert_eq!(gb.unknown_devices, UnknownDevices::Accept);
        assert!(!format!("{gb:?}").contains("hunter2"));
    }

    #[test]
    fn mistakes_are_told_with_their_remedy() {
        for (line, word) in [
            ("id = \"123\"", "20 digits"),
            ("domain = \"34\"", "10 digits"),
            ("password = \"with space\"", "characters"),
            ("media_ports = \"30000\"", "30000-30500"),
            ("media_ports = \"30000-30000\"", "pair"),
            ("media_ports = \"80-90\"", "pair"),
            ("announce_ip = \"0.0.0.0\"", "reach"),
            ("unknown_devices = \"yes\"", "pending"),
            ("utc_offset = \"8\"", "+08:00"),
            ("utc_offset = \"+8:00\"", "+08:00"),
            ("listen = \"5060\"", "127.0.0.1:5060"),
        ] {
            let loaded = load_text(Path::new("x.toml"), &format!("[gb28181]\n{line}\n"));
            let text: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
            assert!(text.len() == 1 && text[0].contains(word), "{line}: {text:?}");
            assert!(text[0].contains("[gb28181]"), "{text:?}");
        }
    }
}
