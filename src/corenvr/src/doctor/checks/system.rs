//! The machine: kernel, io_uring, limits, memory, clock, containers, security modules.

use std::{fs, path::Path, process::Command};

use corenvr_shard::ProbeError;
use rustix::process::{Resource, geteuid};

use crate::{
    config::values::show_size,
    doctor::{Finding, subject::Subject},
};

/// Descriptors below which a few hundred cameras and viewers do not fit.
const FILES_MIN: u64 = 16_384;
/// Locked memory that an executor pins for its rings and buffers.
const MEMLOCK_PER_SHARD: u64 = 2 << 20;
/// Receive buffer that a UDP camera's sockets ask for.
const RMEM_WANTED: u64 = 1 << 20;
/// The kernel that the executor needs.
const KERNEL_MIN: (u32, u32) = (5, 8);
/// What a camera takes: its live tail, and frames that wait for a disk while that is slow. The bound is 32 MiB and more; a camera of
/// 4 Mbit/s holds about half of this.
const MEMORY_PER_CAMERA: u64 = 16 << 20;
/// What the recorder takes without cameras: index caches, rings, buffers.
const MEMORY_BASE: u64 = 256 << 20;

pub fn sysctl(path: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/sys").join(path))
        .ok()
        .map(|t| t.trim().to_owned())
}

pub fn kernel() -> Finding {
    judge_kernel(&sysctl("kernel/osrelease").unwrap_or_else(|| "unknown".into()))
}

fn judge_kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < KERNEL_MIN => Finding::bad(
            "kernel",
            format!("{release} is too old: 5.8 or later is needed"),
            "CentOS 7 and 8, RHEL 8, Debian 10 and Ubuntu 20.04 with its first kernel are too old; use CentOS Stream or RHEL 9, Debian 11, \
             Ubuntu 22.04 or later, or on Ubuntu 20.04 `apt install linux-generic-hwe-20.04`",
        ),
        (Some(Ok(_)), Some(Ok(_))) => Finding::good("kernel", release),
        _ => Finding::warning(
            "kernel",
            format!("{release}: its version cannot be told"),
            "5.8 or later is needed",
        ),
    }
}

/// Judged for the service's user: root may use io_uring where others may not.
pub fn io_uring(subject: &Subject) -> Finding {
    let check = "io_uring";
    let disabled = sysctl("kernel/io_uring_disabled");
    let group = sysctl("kernel/io_uring_group");
    let setting = disabled
        .as_ref()
        .map_or_else(String::new, |v| format!(" (kernel.io_uring_disabled = {v})"));
    let refused = match disabled.as_deref() {
        Some("2") => Some(ProbeError::DisabledForAll),
        Some("1") if subject.other => {
            let number = group.as_deref().and_then(|g| g.parse::<u32>().ok());
            let allowed = number.is_some_and(|g| subject.is_in(g));
            (!allowed).then(|| ProbeError::DisabledForUs {
                group: group.unwrap_or_else(|| "-1 (none)".into()),
            })
        }
        _ => corenvr_shard::probe().err(),
    };
    match refused {
        None => Finding::good(check, format!("works for {}{setting}", subject.name)),
        Some(error) => {
            let found = format!("{} cannot use it{setting}", subject.name);
            Finding::bad(check, found, error.to_string())
        }
    }
}

pub fn memlock(subject: &Subject, shards: u64) -> Finding {
    let wanted = shards * MEMLOCK_PER_SHARD;
    match subject.limit("LimitMEMLOCK", Resource::Memlock) {
        Some(limit) if limit < wanted => Finding::warning(
            "locked memory",
            format!("{} for {shards} shards", show_size(limit)),
            format!(
                "LimitMEMLOCK=infinity in the unit, or `ulimit -l` of at least {}",
                wanted / 1024
            ),
        ),
        Some(limit) => Finding::good("locked memory", show_size(limit)),
        None => Finding::good("locked memory", "unlimited"),
    }
}

pub fn files(subject: &Subject) -> Finding {
    match subject.limit("LimitNOFILE", Resource::Nofile) {
        Some(limit) if limit < FILES_MIN => Finding::warning(
            "open files",
            format!("{limit} at most"),
            format!("LimitNOFILE={FILES_MIN} or more in the unit, or `ulimit -Hn`"),
        ),
        Some(limit) => Finding::good("open files", format!("{limit} at most")),
        None => Finding::good("open files", "unlimited"),
    }
}

pub fn receive_buffer() -> Finding {
    let check = "UDP receive buffer";
    match sysctl("net/core/rmem_max").and_then(|v| v.parse::<u64>().ok()) {
        Some(bytes) if bytes < RMEM_WANTED => Finding::warning(
            check,
            format!("{} at most; cameras over UDP may lose packets", show_size(bytes)),
            "sysctl -w net.core.rmem_max=4194304, and keep it in /etc/sysctl.d",
        ),
        Some(bytes) => Finding::good(check, format!("{} at most", show_size(bytes))),
        None => Finding::good(check, "not limited that this process can see"),
    }
}

/// A recorder that runs has its memory already: then only what is left counts.
pub fn memory(cameras: usize, running: bool) -> Finding {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |key: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(key)?.split_whitespace().next()?.parse::<u64>().ok())
    };
    let Some(available) = kib("MemAvailable:").map(|k| k * 1024) else {
        return Finding::warning("memory", "/proc/meminfo cannot be read", "mount /proc");
    };
    judge_memory(available, cameras as u64, running)
}

fn judge_memory(available: u64, cameras: u64, running: bool) -> Finding {
    let wanted = if running {
        MEMORY_BASE
    } else {
        MEMORY_BASE + cameras * MEMORY_PER_CAMERA
    };
    let found = format!(
        "{} available for {cameras} cameras of the configuration file",
        show_size(available)
    );
    if available >= wanted {
        return Finding::good("memory", found);
    }
    let remedy = format!(
        "about {} are wanted: add memory, or stop what else runs here",
        show_size(wanted)
    );
    Finding::warning("memory", found, remedy)
}

pub fn clock() -> Finding {
    let remedy = "timedatectl set-ntp true, or install chrony: recordings carry this clock's time";
    if let Some(state) = corenvr_shard::clock_state()
        && state.synchronised
    {
        let error = state.error_max.as_millis();
        return Finding::good("clock", format!("is synchronised, to {error} ms or better"));
    }
    match asked_synchronised() {
        Some(true) => Finding::good("clock", "is synchronised"),
        Some(false) => Finding::warning("clock", "is not synchronised", remedy),
        None => Finding::warning(
            "clock",
            "the kernel does not call it synchronised, and no time daemon answers",
            remedy,
        ),
    }
}

/// In a container, and with some daemons, the kernel's flag says nothing.
fn asked_synchronised() -> Option<bool> {
    let ask = |program: &str, arguments: &[&str]| {
        let out = Command::new(program)
            .args(arguments)
            .output()
            .ok()
            .filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    match ask("timedatectl", &["show", "--property=NTPSynchronized", "--value"]).as_deref() {
        Some("yes") => return Some(true),
        Some("no") => return Some(false),
        _ => {}
    }
    let chrony = ask("chronyc", &["tracking"])?;
    let leap = chrony.lines().find_map(|l| l.strip_prefix("Leap status"))?;
    Some(!leap.contains("Not synchronised"))
}

/// A container brings limits that are not to be seen from inside.
pub fn container() -> Option<Finding> {
    let marks = ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"];
    let mark = marks.iter().find(|m| Path::new(m).exists());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let filtered = status
        .lines()
        .any(|l| l.strip_prefix("Seccomp:").is_some_and(|v| v.trim() == "2"));
    if mark.is_none() && !filtered {
        return None;
    }
    let found = match (mark, filtered) {
        (Some(_), true) => "in a container, with a seccomp filter",
        (Some(_), false) => "in a container, without a seccomp filter",
        (None, _) => "below a seccomp filter",
    };
    if corenvr_shard::probe().is_ok() {
        return Some(Finding::good("container", format!("{found}; io_uring works")));
    }
    let remedy = "allow io_uring_setup, io_uring_enter and io_uring_register in the profile (Docker: --security-opt seccomp=profile.json), raise \
        --ulimit memlock, and give recordings a volume of the host";
    Some(Finding::warning("container", found, remedy))
}

pub fn selinux() -> Finding {
    let check = "SELinux";
    match fs::read_to_string("/sys/fs/selinux/enforce").as_deref().map(str::trim) {
        Ok("1") => {
            let denied = denials();
            let remedy = "`ausearch -m avc -c corenvr -ts today | audit2why` explains each; a confined domain needs io_uring_t:anon_inode { create map read write }";
            match denied {
                Some(0) => Finding::good(check, "is enforcing, and has denied corenvr nothing today"),
                Some(n) => Finding::bad(
                    check,
                    format!("is enforcing, and has denied corenvr {n} accesses today"),
                    remedy,
                ),
                None => Finding::warning(
                    check,
                    "is enforcing; what it denied cannot be told by this user",
                    format!("run doctor as root; {remedy}"),
                ),
            }
        }
        Ok(_) => Finding::good(check, "is permissive"),
        Err(_) => Finding::good(check, "is not in use"),
    }
}

/// Accesses that were denied today, as far as root and the audit tools can tell.
fn denials() -> Option<usize> {
    if !geteuid().is_root() {
        return None;
    }
    let out = Command::new("ausearch")
        .args(["-m", "avc", "-c", "corenvr", "-ts", "today", "--raw"])
        .output()
        .ok()?;
    Some(out.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()).count())
}

pub fn apparmor() -> Finding {
    let check = "AppArmor";
    let on = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.trim() == "Y");
    let profiles = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    match profiles.lines().find(|l| l.contains("corenvr")) {
        Some(profile) => Finding::warning(
            check,
            format!("confines corenvr by a profile that is not ours: {profile}"),
            "if recording fails, `journalctl -k -g apparmor` shows what is missing from it",
        ),
        None if on => Finding::good(check, "is in use, and does not confine corenvr"),
        None => Finding::good(check, "is not in use"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn kernels_of_the_platforms_are_judged() {
        for (release, verdict) in [
            ("3.10.0-1160.el7.x86_64", Verdict::Bad),
            ("4.18.0-553.el8_10.x86_64", Verdict::Bad),
            ("5.4.0-200-generic", Verdict::Bad),
            ("5.8.0", Verdict::Good),
            ("5.14.0-503.el9.x86_64", Verdict::Good),
            ("6.12.0-55.el10", Verdict::Good),
            ("odd", Verdict::Warning),
        ] {
            assert_eq!(judge_kernel(release).verdict, verdict, "{release}");
        }
        assert!(judge_kernel("4.18.0").remedy.contains("CentOS Stream"));
    }

    #[test]
    fn memory_is_judged_against_the_cameras() {
        assert_eq!(judge_memory(1 << 30, 10, false).verdict, Verdict::Good);
        assert_eq!(judge_memory(1 << 30, 500, false).verdict, Verdict::Warning);
        assert_eq!(judge_memory(1 << 30, 500, true).verdict, Verdict::Good);
    }
}
