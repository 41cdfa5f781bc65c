//! Can this process use io_uring, and if not, what must the administrator do about it?

use std::{io, path::Path};

/// Why io_uring is not to be had. The text names the remedy.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProbeError {
    #[error(
        "this kernel ({release}) has no io_uring: corenvr needs Linux 5.8 or later (CentOS Stream 9, Ubuntu 22.04, Debian 11 or newer; on Ubuntu 20.04 install the HWE kernel)"
    )]
    NoKernelSupport { release: String },
    #[error(
        "io_uring is switched off for everybody (kernel.io_uring_disabled = 2). Remedy: `corenvr allow-io-uring` as root allows it to the service's group alone, now and after a restart"
    )]
    DisabledForAll,
    #[error(
        "io_uring is allowed only to members of group {group} (kernel.io_uring_disabled = 1, kernel.io_uring_group). Remedy: `corenvr allow-io-uring` as root gives it to the service's group, or says whose it is"
    )]
    DisabledForUs { group: String },
    #[error(
        "io_uring is blocked by a seccomp filter or a container policy: allow io_uring_setup, io_uring_enter and io_uring_register (Docker: --security-opt seccomp=profile.json)"
    )]
    Blocked,
    #[error(
        "locked memory is limited to {limit_kib} KiB, too little for io_uring: set LimitMEMLOCK=infinity in the unit or raise `ulimit -l`"
    )]
    LockedMemory { limit_kib: u64 },
    #[error("too many open files: raise LimitNOFILE in the unit or `ulimit -n`")]
    OpenFiles,
    #[error("/sys is not mounted: the executor needs it to learn the CPU topology")]
    NoSysfs,
    #[error("io_uring_setup failed: {0}")]
    Other(io::Error),
}

/// Tries io_uring once and puts a refusal into words.
pub fn probe() -> Result<(), ProbeError> {
    if !Path::new("/sys/devices/system/cpu/online").exists() {
        return Err(ProbeError::NoSysfs);
    }
    // struct io_uring_params is 120 bytes; zero means no flags.
    let mut params = [0u64; 15];
    // SAFETY: the second argument points to a writable, zeroed and large enough io_uring_params which outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8u32, params.as_mut_ptr()) };
    if fd < 0 {
        return Err(explain(io::Error::last_os_error()));
    }
    // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
    unsafe { libc::close(fd as i32) };
    if kernel_version().is_some_and(|v| v < (5, 8)) {
        return Err(ProbeError::NoKernelSupport {
            release: kernel_release(),
        });
    }
    Ok(())
}

fn explain(error: io::Error) -> ProbeError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => ProbeError::NoKernelSupport {
            release: kernel_release(),
        },
        Some(libc::EPERM | libc::EACCES) => match sysctl("io_uring_disabled").as_deref() {
            Some("2") => ProbeError::DisabledForAll,
            Some("1") => ProbeError::DisabledForUs {
                group: sysctl("io_uring_group").unwrap_or_else(|| "-1 (none)".into()),
            },
            _ => ProbeError::Blocked,
        },
        Some(libc::ENOMEM) => {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
            ProbeError::LockedMemory {
                limit_kib: limit.unwrap_or(u64::MAX) / 1024,
            }
        }
        Some(libc::EMFILE | libc::ENFILE) => ProbeError::OpenFiles,
        _ => ProbeError::Other(error),
    }
}

fn sysctl(name: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/sys/kernel/{name}"))
        .ok()
        .map(|s| s.trim().to_owned())
}

fn kernel_release() -> String {
    sysctl("osrelease").unwrap_or_else(|| "unknown".into())
}

fn kernel_version() -> Option<(u32, u32)> {
    let release = kernel_release();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_put_into_words_with_a_remedy() {
        for (errno, word) in [
            (libc::ENOSYS, "5.8"),
            (libc::ENOMEM, "LimitMEMLOCK"),
            (libc::EMFILE, "LimitNOFILE"),
        ] {
            assert!(explain(io::Error::from_raw_os_error(errno)).to_string().contains(word));
        }
        assert!(kernel_version().is_some_and(|v| v > (2, 6)));
    }
}
