//! A certificate that this machine signs for itself: enough to encrypt, and to be recognised by its fingerprint.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustix::fs::{Gid, Mode};

use super::certificate::fingerprint;

/// The certificate's file in its directory.
pub const CERT_FILE: &str = "cert.pem";
/// The key's file in its directory.
pub const KEY_FILE: &str = "key.pem";
/// The longest common name (X.520); a longer host name stands among the alternative names only.
const COMMON_NAME_LEN_MAX: usize = 64;
/// Names of one certificate; more are refused.
const NAMES_MAX: usize = 100;

/// No certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// There is a file already.
    #[error("{} is there already and is not overwritten. Remedy: move it away, or choose another directory with --dir", .0.display())]
    Exists(PathBuf),
    /// Not a name.
    #[error("{0:?} is neither a host name nor an address")]
    Name(String),
    /// Too many names.
    #[error("a certificate of ours has at most {NAMES_MAX} names")]
    TooManyNames,
    /// A file cannot be written.
    #[error("{}: {source}. Remedy: run this as root, or choose another directory with --dir", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The cryptography failed.
    #[error("the certificate could not be made: {0}")]
    Made(#[from] rcgen::Error),
    /// The end of validity is out of range.
    #[error("the validity is out of range: {0}")]
    Days(#[from] jiff::Error),
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// The certificate's file.
    pub cert: PathBuf,
    /// The key's file.
    pub key: PathBuf,
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// Its SHA-256.
    pub fingerprint: String,
    /// The key may be read by the group `corenvr`.
    pub for_service: bool,
}

/// A new key (ECDSA P-256) and its certificate, for `names` and `days` from now, as files in `dir`. Nothing is overwritten. The key may be
/// read by its owner alone; where there is a group `corenvr` and root asks, by that group as well.
pub fn make(dir: &Path, names: &[String], days: u16) -> Result<Made, SelfSignedError> {
    let (cert, key) = (dir.join(CERT_FILE), dir.join(KEY_FILE));
    if let Some(there) = [&cert, &key].into_iter().find(|p| p.symlink_metadata().is_ok()) {
        return Err(SelfSignedError::Exists(there.clone()));
    }
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let made = params(names, days)?.self_signed(&pair)?;
    fs::create_dir_all(dir).map_err(|source| SelfSignedError::Write {
        path: dir.to_owned(),
        source,
    })?;
    let group = group("corenvr").filter(|_| rustix::process::geteuid().is_root());
    write(&key, &pair.serialize_pem(), 0o600, group)?;
    if let Err(error) = write(&cert, &made.pem(), 0o644, None) {
        // A key without its certificate is of no use, and would be in the way of the next attempt.
        drop(fs::remove_file(&key));
        return Err(error);
    }
    Ok(Made {
        cert,
        key,
        fingerprint: fingerprint(made.der()),
        der: made.der().to_vec(),
        for_service: group.is_some(),
    })
}

fn params(names: &[String], days: u16) -> Result<CertificateParams, SelfSignedError> {
    if names.len() > NAMES_MAX {
        return Err(SelfSignedError::TooManyNames);
    }
    if let Some(wrong) = names.iter().find(|n| !is_name(n)) {
        return Err(SelfSignedError::Name(wrong.clone()));
    }
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    let common = names.iter().find(|n| n.len() <= COMMON_NAME_LEN_MAX);
    params
        .distinguished_name
        .push(DnType::CommonName, common.map_or("corenvr", String::as_str));
    // What names a person looks for in a list of certificates.
    params
        .distinguished_name
        .push(DnType::OrganizationName, "corenvr, self-signed");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let day = |d: Date| date_time_ymd(i32::from(d.year()), d.month() as u8, d.day() as u8);
    // From yesterday, for clients whose clock is late.
    params.not_before = day(today.checked_sub(1.day())?);
    params.not_after = day(today.checked_add(i32::from(days).days())?);
    Ok(params)
}

/// A host name (a wildcard in front is one too) or an address.
fn is_name(name: &str) -> bool {
    let part = |p: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !p.is_empty() && p.len() <= 63 && p.bytes().all(inner)
    };
    let host = name.strip_prefix("*.").unwrap_or(name);
    name.parse::<IpAddr>().is_ok() || (name.len() <= 253 && host.split('.').all(part))
}

/// The names of this machine: its host name, those given, `localhost` and its addresses; each once.
pub fn names_of_this_machine(given: &[String]) -> Vec<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut names: Vec<String> = given.to_vec();
    names.extend(Some(host).filter(|h| is_name(h)));
    names.push("localhost".into());
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .iter()
        .map(if_addrs::Interface::ip)
        .filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .collect();
    addresses.sort();
    names.extend(addresses.iter().map(IpAddr::to_string));
    let mut once = Vec::new();
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    once
}

fn write(path: &Path, text: &str, mode: u32, group: Option<u32>) -> Result<(), SelfSignedError> {
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        if let Some(group) = group {
            rustix::fs::fchown(file.as_fd(), None, Some(Gid::from_raw(group)))?;
            rustix::fs::fchmod(file.as_fd(), Mode::from_raw_mode(0o640))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    written().map_err(|source| SelfSignedError::Write {
        path: path.to_owned(),
        source,
    })
}

/// The number of a group of this machine's own list; groups of directory services are not looked for.
pub fn group(name: &str) -> Option<u32> {
    let list = fs::read_to_string("/etc/group").ok()?;
    list.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}
