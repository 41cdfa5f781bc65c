//! Certificates: those of the configuration, read at the start and at every reload, and what is wrong with them.
//!
//! A broken certificate never keeps the recorder from recording: the encrypted ports listen, their handshakes fail, the log and the status
//! say why, and a reload puts it right.

pub mod certificate;
pub mod self_signed;

use std::{
    cell::RefCell,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use corenvr_shard::tls::{Identity, IdentityError};
use jiff::{SignedDuration, Timestamp};

use self::certificate::Facts;
use crate::{
    config::{Config, Service},
    doctor::Finding,
};

/// An end of validity that is nearer than this is told.
pub const EXPIRY_WARNING: SignedDuration = SignedDuration::from_hours(14 * 24);

/// What the servers of this process prove themselves with. Kept on the control executor; the identities themselves are shared.
#[derive(Debug, Default)]
pub struct Identities {
    /// For `[rtsp]`; there if it listens with TLS.
    pub rtsp: Option<Identity>,
    /// For `[http]`; there if it listens with TLS.
    pub http: Option<Identity>,
    /// What the last reading of the files came to.
    failures: RefCell<Vec<String>>,
}

/// Reads the files of one identity again.
fn read((section, identity): (&str, Identity)) -> Option<String> {
    match identity.reload() {
        Ok(changed) => {
            let facts = leaf(&identity);
            if let Some(warning) = facts
                .as_ref()
                .and_then(|f| expiry_warning(section, f, Timestamp::now()))
            {
                tracing::warn!("{warning}");
            }
            if changed {
                let (until, fingerprint) = facts
                    .map(|f| (f.not_after.to_string(), f.fingerprint))
                    .unwrap_or_default();
                tracing::info!(section, cert = %identity.cert_path().display(), until, fingerprint, "certificate read");
            }
            None
        }
        Err(error) => {
            let kept = if identity.chain().is_empty() {
                "nobody can connect there with TLS until it is put right and the configuration reloaded"
            } else {
                "the old certificate stays in force"
            };
            let message = format!("{section} {error}; {kept}");
            tracing::error!("{message}");
            Some(message)
        }
    }
}

impl Identities {
    /// Reads what the configuration names. What cannot be read is told, and read again at the next reload. Blocks.
    pub fn load(config: &Config) -> Self {
        let vacant = |service: &Service| {
            let files = service.tls.as_ref().filter(|_| !service.tls_listen.is_empty())?;
            Some(Identity::vacant(&files.cert, &files.key))
        };
        let identities = Self {
            rtsp: vacant(&config.rtsp),
            http: vacant(&config.http),
            failures: RefCell::default(),
        };
        let failures = identities.all().into_iter().filter_map(read).collect();
        identities.failures.replace(failures);
        identities
    }

    /// Reads the files again. Connections that begin from now on get what is in them; those that are open go on.
    pub async fn reload(&self) {
        let all = self.all();
        match corenvr_shard::blocking(move || all.into_iter().filter_map(read).collect()).await {
            Ok(failures) => drop(self.failures.replace(failures)),
            Err(error) => tracing::error!("the certificates were not read again: {error}"),
        }
    }

    /// What is wrong now, in words: files that could not be read, and certificates near or past their end.
    pub fn problems(&self) -> Vec<String> {
        let now = Timestamp::now();
        let near_end = |(section, identity): (&str, Identity)| expiry_warning(section, &leaf(&identity)?, now);
        let mut problems = self.failures.borrow().clone();
        problems.extend(self.all().into_iter().filter_map(near_end));
        problems
    }

    fn all(&self) -> Vec<(&'static str, Identity)> {
        let named = [("[rtsp]", &self.rtsp), ("[http]", &self.http)];
        named
            .into_iter()
            .filter_map(|(section, identity)| Some((section, identity.clone()?)))
            .collect()
    }
}

fn leaf(identity: &Identity) -> Option<Facts> {
    Facts::read(identity.chain().first()?).ok()
}

fn expiry_warning(section: &str, facts: &Facts, now: Timestamp) -> Option<String> {
    let remedy = "have it renewed, then `systemctl reload corenvr`";
    if now >= facts.not_after {
        return Some(format!(
            "{section} the certificate has expired on {}: clients refuse it. Remedy: {remedy}",
            facts.not_after
        ));
    }
    if now < facts.not_before {
        return Some(format!(
            "{section} the certificate is not valid before {}: clients refuse it. Remedy: check the clock, or {remedy}",
            facts.not_before
        ));
    }
    (facts.not_after.duration_since(now) < EXPIRY_WARNING).then(|| {
        format!(
            "{section} the certificate expires on {}. Remedy: {remedy}",
            facts.not_after
        )
    })
}

/// The certificates that a configuration names, by section, whether or not something listens with them.
pub fn configured(config: &Config) -> Vec<(&'static str, PathBuf, PathBuf)> {
    let named = [("[rtsp]", &config.rtsp), ("[http]", &config.http)];
    named
        .into_iter()
        .filter_map(|(section, service)| {
            let files = service.tls.as_ref()?;
            Some((section, files.cert.clone(), files.key.clone()))
        })
        .collect()
}

/// What is to be said of the certificates of a configuration: one finding each if all is well. Reads the files.
pub fn findings(config: &Config) -> Vec<Finding> {
    let each = configured(config);
    each.iter()
        .flat_map(|(section, cert, key)| of_files(section, cert, key, Timestamp::now()))
        .collect()
}

fn of_files(section: &str, cert: &Path, key: &Path, now: Timestamp) -> Vec<Finding> {
    let check = format!("{section} certificate");
    let chain = match Identity::load(cert, key) {
        Ok(identity) => identity.chain(),
        Err(error) => return vec![unusable(check, &error)],
    };
    let facts = match chain.first().map(|der| Facts::read(der)) {
        Some(Ok(facts)) => facts,
        Some(Err(error)) => {
            let found = format!("{} cannot be understood: {error}", cert.display());
            return vec![Finding::warning(check, found, "have it issued again")];
        }
        None => return Vec::new(),
    };
    let mut findings = vec![match expiry_warning(section, &facts, now) {
        Some(warning) => {
            let (found, remedy) = in_two(&warning);
            Finding::warning(&check, found, remedy)
        }
        None => Finding::good(
            &check,
            format!(
                "{} for {}, until {}",
                facts.subject,
                facts.names.join(", "),
                facts.not_after
            ),
        ),
    }];
    findings.extend(of_key_mode(&check, key));
    findings
}

/// A configuration may be checked by somebody who may not read the key: that is no mistake in it.
fn unusable(check: String, error: &IdentityError) -> Finding {
    let text = error.to_string();
    let (found, remedy) = in_two(&text);
    match error {
        IdentityError::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            let remedy =
                format!("as root or as the service's user this can be checked; if that one may not either: {remedy}");
            Finding::warning(check, found, remedy)
        }
        _ => Finding::bad(check, found, remedy),
    }
}

fn in_two(text: &str) -> (&str, &str) {
    text.split_once(". Remedy: ").unwrap_or((text, ""))
}

/// A key that anybody may read proves nothing; one that only root may read is of no use to the service's user.
fn of_key_mode(check: &str, key: &Path) -> Option<Finding> {
    let meta = fs::metadata(key).ok()?;
    let shown = key.display();
    if meta.mode() & 0o007 != 0 {
        let found = format!("{shown} may be read or changed by everybody on this machine");
        return Some(Finding::warning(
            check,
            found,
            format!("chgrp corenvr {shown}; chmod 640 {shown}"),
        ));
    }
    let service = self_signed::group("corenvr")?;
    (meta.uid() == 0 && meta.gid() != service && rustix::process::geteuid().is_root()).then(|| {
        let found =
            format!("{shown} belongs to root and not to the group corenvr: the service may be unable to read it");
        Finding::warning(check, found, format!("chgrp corenvr {shown}; chmod 640 {shown}"))
    })
}

#[cfg(test)]
mod tests;
