//! What a certificate says of itself, for people.

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use x509_parser::{extensions::GeneralName, prelude::FromDer, x509::X509Name};

/// A certificate, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Whom it names.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Whether that is itself.
    pub self_signed: bool,
    /// The host names and addresses it is good for.
    pub names: Vec<String>,
    /// Valid from here.
    #[serde(serialize_with = "as_text")]
    pub not_before: Timestamp,
    /// Valid until here.
    #[serde(serialize_with = "as_text")]
    pub not_after: Timestamp,
    /// SHA-256 of the whole, as browsers show it: pairs of digits with colons.
    pub fingerprint: String,
}

fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// A certificate that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// It is not X.509.
    #[error("this is not an X.509 certificate")]
    NotX509,
    /// Its validity cannot be told.
    #[error("its times of validity are out of range")]
    Times,
}

impl Facts {
    /// Reads a certificate in DER form.
    pub fn read(der: &[u8]) -> Result<Self, FactsError> {
        let (_, certificate) =
            x509_parser::certificate::X509Certificate::from_der(der).map_err(|_| FactsError::NotX509)?;
        let time =
            |t: x509_parser::time::ASN1Time| Timestamp::from_second(t.timestamp()).map_err(|_| FactsError::Times);
        let names = match certificate.subject_alternative_name() {
            Ok(Some(extension)) => extension.value.general_names.iter().filter_map(name).collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            subject: shown(certificate.subject()),
            issuer: shown(certificate.issuer()),
            self_signed: certificate.subject() == certificate.issuer(),
            names,
            not_before: time(certificate.validity().not_before)?,
            not_after: time(certificate.validity().not_after)?,
            fingerprint: fingerprint(der),
        })
    }
}

fn shown(name: &X509Name<'_>) -> String {
    let text: String = name.to_string().chars().filter(|c| !c.is_control()).collect();
    if text.is_empty() { "(no name)".into() } else { text }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.chars().filter(|c| !c.is_control()).collect()),
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(|v4| std::net::Ipv4Addr::from(v4).to_string())
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(|v6| std::net::Ipv6Addr::from(v6).to_string()))
            .ok(),
        _ => None,
    }
}

/// SHA-256 in pairs of digits with colons.
pub fn fingerprint(der: &[u8]) -> String {
    let digest = Sha256::digest(der);
    let pairs: Vec<String> = digest.iter().map(|b| format!("{b:02X}")).collect();
    pairs.join(":")
}
