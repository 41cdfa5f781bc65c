//! The service: its unit, its ports, its accounts, and how it ended last time.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use crate::{
    config::Config,
    doctor::{
        Finding,
        subject::{Subject, UNIT},
    },
    supervisor::crashes,
};

pub fn daemon(running: bool) -> Finding {
    let found = if running { "is running" } else { "is not running" };
    Finding::good("corenvr", found)
}

pub fn unit(subject: &Subject) -> Vec<Finding> {
    let check = "systemd unit";
    let get = |name| subject.property(name).unwrap_or_default();
    if subject.unit.is_none() {
        return vec![Finding::good(check, "is not installed here, or systemd does not run")];
    }
    let (active, enabled) = (get("ActiveState"), get("UnitFileState"));
    let found = format!("{UNIT} is {active} and {enabled}");
    let mut findings = vec![match (active, enabled) {
        ("failed", _) => Finding::bad(
            check,
            found,
            "journalctl -u corenvr -e says why; then systemctl restart corenvr",
        ),
        ("active", "enabled") => Finding::good(check, found),
        _ => Finding::warning(
            check,
            found,
            "systemctl enable --now corenvr records now and after every start of the machine",
        ),
    }];
    if get("NeedDaemonReload") == "yes" {
        let found = "has changed on disk since systemd read it";
        findings.push(Finding::warning(
            check,
            found,
            "systemctl daemon-reload && systemctl restart corenvr",
        ));
    }
    let weak = weakened(get);
    if !weak.is_empty() {
        let found = format!("a drop-in weakens it: {} ({})", weak.join(", "), get("DropInPaths"));
        findings.push(Finding::warning(
            check,
            found,
            "systemctl cat corenvr shows it; systemctl revert corenvr takes it back",
        ));
    }
    findings
}

/// What the packaged unit sets and this one does not.
fn weakened<'a>(get: impl Fn(&'static str) -> &'a str) -> Vec<String> {
    type Wrong = fn(&str) -> bool;
    let wrong: [(&str, Wrong); 9] = [
        ("User", |v| v.is_empty() || v == "root" || v == "0"),
        ("NoNewPrivileges", |v| v == "no"),
        ("ProtectSystem", |v| v != "strict"),
        ("ProtectHome", |v| v == "no"),
        ("MemoryDenyWriteExecute", |v| v == "no"),
        ("RestrictNamespaces", |v| v == "no"),
        ("SystemCallFilter", str::is_empty),
        ("WatchdogUSec", |v| v == "0" || v == "infinity"),
        ("Restart", |v| v == "no"),
    ];
    let named = wrong.iter().filter(|(name, is_wrong)| is_wrong(get(name)));
    named
        .map(|(name, _)| format!("{name}={}", get(name)))
        .map(|t| t.chars().take(80).collect())
        .collect()
}

pub fn port(section: &str, address: SocketAddr, running: bool, subject: &Subject) -> Finding {
    let check = format!("port {}", address.port());
    match TcpListener::bind(address) {
        Ok(_) => Finding::good(check, format!("{address} is free")),
        Err(error) if running && error.kind() == io::ErrorKind::AddrInUse => {
            Finding::good(check, format!("{address} is taken, and corenvr is running"))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && subject.unit.is_some() => Finding::good(
            check,
            format!("{address} is not for this user; the service's unit grants it"),
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::warning(
            check,
            format!("{address} is not for this user"),
            "the service unit grants CAP_NET_BIND_SERVICE; without it choose a port above 1023",
        ),
        Err(error) => Finding::bad(
            check,
            format!("{address}: {error}"),
            format!("ss -ltnp shows who has it; stop that, or change {section} listen"),
        ),
    }
}

pub fn accounts(config: &Config) -> Finding {
    let path = config.server.state_dir.join("admin-password");
    let check = "accounts";
    match path.try_exists() {
        Ok(true) => Finding::warning(
            check,
            format!("the first password of admin still lies in {}", path.display()),
            "corenvr user passwd admin sets another one and removes the file",
        ),
        Ok(false) => Finding::good(check, "no first password lies about"),
        Err(error) => Finding::warning(check, format!("{}: {error}", path.display()), "run doctor as root"),
    }
}

pub fn last_crash(config: &Config) -> Finding {
    let check = "crashes";
    match crashes::list(&config.server.state_dir).first() {
        None => Finding::good(check, "none is on record"),
        Some(crash) => Finding::warning(
            check,
            format!("the recorder crashed at {}: {}", crash.at, crash.summary),
            "corenvr support-bundle collects what the developers need",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_taken_port_is_bad_unless_it_is_ours() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let subject = Subject::myself();
        assert_eq!(port("[rtsp]", address, false, &subject).verdict, Verdict::Bad);
        assert_eq!(port("[rtsp]", address, true, &subject).verdict, Verdict::Good);
    }

    #[test]
    fn what_weakens_the_unit_is_named() {
        let packaged = |name| match name {
            "User" => "corenvr",
            "ProtectSystem" => "strict",
            "WatchdogUSec" => "30s",
            "Restart" => "on-failure",
            "SystemCallFilter" => "read write",
            _ => "yes",
        };
        assert!(weakened(packaged).is_empty());
        let other = |name| if name == "User" { "root" } else { packaged(name) };
        assert_eq!(weakened(other), ["User=root"]);
    }
}
