//! The checks, each with its remedy.

mod disks;
mod service;
mod system;

use std::os::unix::net::UnixStream;

use super::{Finding, subject::Subject};
use crate::{
    config::{Config, Cpus},
    supervisor,
};

/// All of them.
pub fn all(config: &Config) -> Vec<Finding> {
    let subject = Subject::find();
    let running = UnixStream::connect(config.server.socket()).is_ok();
    let shards = supervisor::cpus(&config.cpus);
    let mut findings = vec![system::kernel(), system::io_uring(&subject)];
    findings.extend(system::container());
    findings.push(match &shards {
        Ok(cpus) => Finding::good("shards", format!("one on each of CPU {cpus:?}")),
        Err(error) => Finding::bad("shards", error.to_string(), "correct [shards] cpus"),
    });
    findings.extend(too_many_shards(config));
    let count = shards.map_or(1, |cpus| cpus.len() as u64);
    findings.extend([
        system::memlock(&subject, count),
        system::files(&subject),
        system::memory(config.cameras.len(), running),
        system::receive_buffer(),
        disks::directory("state directory", &config.server.state_dir, &subject),
        disks::directory("run directory", &config.server.run_dir, &subject),
    ]);
    for storage in &config.storage {
        findings.extend(disks::disk(storage, &subject));
    }
    findings.push(service::daemon(running));
    findings.extend(service::unit(&subject));
    findings.extend(crate::tls::findings(config));
    findings.extend(ports(config, running, &subject));
    findings.extend([system::clock(), system::selinux(), system::apparmor()]);
    findings.extend([service::accounts(config), service::last_crash(config)]);
    findings
}

fn ports(config: &Config, running: bool, subject: &Subject) -> Vec<Finding> {
    let (gb28181, rtmp) = (&config.gb28181, &config.rtmp);
    let sections = [
        ("[rtsp]", &config.rtsp.listen[..]),
        ("[rtsp]", &config.rtsp.tls_listen),
        ("[http]", &config.http.listen),
        ("[http]", &config.http.tls_listen),
        ("[gb28181]", if gb28181.enabled { &gb28181.listen } else { &[] }),
        ("[rtmp]", if rtmp.enabled { &rtmp.listen } else { &[] }),
    ];
    let all = sections
        .iter()
        .flat_map(|(section, list)| list.iter().map(move |a| (*section, *a)));
    all.map(|(section, address)| service::port(section, address, running, subject))
        .collect()
}

fn too_many_shards(config: &Config) -> Option<Finding> {
    let Cpus::List(list) = &config.cpus else { return None };
    let cameras = config.cameras.len();
    (list.len() > 1 && cameras > 0 && cameras < list.len()).then(|| {
        let found = format!("{} shards for {cameras} cameras", list.len());
        Finding::warning("shards", found, "fewer would do")
    })
}
