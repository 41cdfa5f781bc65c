//! `[rtsp]` and `[http]`: where players and browsers connect, and with which certificate.

use std::{
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use toml::de::DeValue;

use super::{
    load::{absolute, addresses},
    reader::{Errors, Section, parsed},
    values::Problem,
};

/// A certificate with its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those that lead to a known authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A server with a plain and an encrypted side; either may be off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Addresses without encryption.
    pub listen: Vec<SocketAddr>,
    /// Addresses with TLS.
    pub tls_listen: Vec<SocketAddr>,
    /// What TLS needs; there whenever `tls_listen` is not empty.
    pub tls: Option<TlsFiles>,
}

impl Service {
    /// On this port of all addresses, without encryption.
    pub(super) fn on_port(port: u16) -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))],
            tls_listen: Vec::new(),
            tls: None,
        }
    }

    /// Reads a section. `tls_key` is what the encrypted side's addresses are called; `plain` and `secure` are examples.
    pub(super) fn read(
        mut section: Section<'_>,
        default: Self,
        tls_key: &'static str,
        (plain, secure): (&str, &str),
        errors: &mut Errors<'_>,
    ) -> Self {
        let mut read = default;
        if let Some(v) = section.take("listen", errors, |v| none_or_addresses(v, plain)) {
            read.listen = v;
        }
        let named = section.has(tls_key);
        if let Some(v) = section.take(tls_key, errors, |v| none_or_addresses(v, secure)) {
            read.tls_listen = v;
        }
        let cert = section.take("cert", errors, |v| parsed(v, path_or_none)).flatten();
        let key = section.take("key", errors, |v| parsed(v, path_or_none)).flatten();
        read.tls = cert.zip(key).map(|(cert, key)| TlsFiles { cert, key });
        if named && !read.tls_listen.is_empty() && read.tls.is_none() {
            let problem = Problem::new(
                "needs a certificate and its key",
                "set cert and key to PEM files; `corenvr tls self-signed` makes a pair",
            );
            section.wrong(tls_key, problem, errors);
            read.tls_listen.clear();
        }
        section.finish(errors);
        read
    }
}

/// An empty list switches the service off.
fn none_or_addresses(value: &DeValue<'_>, example: &str) -> Result<Vec<SocketAddr>, Problem> {
    if value.as_array().is_some_and(|a| a.is_empty()) {
        return Ok(Vec::new());
    }
    addresses(value, example)
}

/// An empty text is no file.
fn path_or_none(text: &str) -> Result<Option<PathBuf>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    absolute(text).map(Some)
}
