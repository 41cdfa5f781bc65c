//! The checks, each with its remedy.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
};

use corenvr_shard::file::{ALIGN, AlignedBuffer, AppendFile, remove};
use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::{
    config::{Config, Cpus, Storage, values::show_size},
    supervisor,
};

/// Descriptors below which a few hundred cameras and viewers do not fit.
const FILES_MIN: u64 = 16_384;
/// Locked memory that an executor pins for its rings and buffers.
const MEMLOCK_PER_SHARD: u64 = 2 << 20;
/// Receive buffer that a UDP camera's sockets ask for.
const RMEM_WANTED: u64 = 1 << 20;

/// All of them.
pub fn all(config: &Config) -> Vec<Finding> {
    let shards = supervisor::cpus(&config.cpus);
    let mut findings = vec![kernel(), io_uring()];
    findings.push(match &shards {
        Ok(cpus) => Finding::good("shards", format!("one on each of CPU {cpus:?}")),
        Err(error) => Finding::bad("shards", error.to_string(), "correct [shards] cpus"),
    });
    let count = shards.map_or(1, |cpus| cpus.len() as u64);
    findings.extend([memlock(count), files(), receive_buffer()]);
    findings.push(directory("state directory", &config.server.state_dir));
    findings.push(directory("run directory", &config.server.run_dir));
    for storage in &config.storage {
        findings.extend(disk(storage));
    }
    let running = UnixStream::connect(config.server.socket()).is_ok();
    findings.push(daemon(running));
    let rtmp = if config.rtmp.enabled {
        &config.rtmp.listen[..]
    } else {
        &[]
    };
    findings.extend(config.rtsp_listen.iter().map(|a| port("[rtsp]", *a, running)));
    if config.gb28181.enabled {
        findings.extend(config.gb28181.listen.iter().map(|a| port("[gb28181]", *a, running)));
    }
    findings.extend(rtmp.iter().map(|a| port("[rtmp]", *a, running)));
    findings.extend([clock(), selinux()]);
    if let Cpus::List(list) = &config.cpus
        && list.len() > 1
        && config.cameras.len() < list.len()
        && !config.cameras.is_empty()
    {
        let found = format!("{} shards for {} cameras", list.len(), config.cameras.len());
        findings.push(Finding::warning("shards", found, "fewer would do"));
    }
    findings
}

fn sysctl(path: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/sys").join(path))
        .ok()
        .map(|t| t.trim().to_owned())
}

fn kernel() -> Finding {
    Finding::good("kernel", sysctl("kernel/osrelease").unwrap_or_else(|| "unknown".into()))
}

fn io_uring() -> Finding {
    let disabled = sysctl("kernel/io_uring_disabled");
    let setting = disabled.map_or_else(String::new, |v| format!(" (kernel.io_uring_disabled = {v})"));
    match corenvr_shard::probe() {
        Ok(()) => Finding::good("io_uring", format!("works for this user{setting}")),
        Err(error) => Finding::bad("io_uring", format!("cannot be used{setting}"), error.to_string()),
    }
}

fn memlock(shards: u64) -> Finding {
    let wanted = shards * MEMLOCK_PER_SHARD;
    match getrlimit(Resource::Memlock).maximum {
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

fn files() -> Finding {
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) if limit < FILES_MIN => Finding::warning(
            "open files",
            format!("{limit} at most"),
            format!("LimitNOFILE={FILES_MIN} or more in the unit, or `ulimit -Hn`"),
        ),
        Some(limit) => Finding::good("open files", format!("{limit} at most")),
        None => Finding::good("open files", "unlimited"),
    }
}

fn receive_buffer() -> Finding {
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

/// The directory, or the nearest one above it that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"))
}

fn writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

fn directory(check: &str, path: &Path) -> Finding {
    let shown = path.display();
    let nearest = existing(path);
    if !nearest.is_dir() {
        let remedy = "choose another path in [server]";
        return Finding::bad(check, format!("{} is not a directory", nearest.display()), remedy);
    }
    if !writable(nearest) {
        let found = format!("{shown} cannot be written by this user");
        return Finding::bad(
            check,
            found,
            format!("install -d -o corenvr {shown}, or run doctor as the service's user"),
        );
    }
    if nearest == path {
        Finding::good(check, format!("{shown}"))
    } else {
        Finding::good(check, format!("{shown} will be created"))
    }
}

fn disk(storage: &Storage) -> Vec<Finding> {
    let check = format!("disk {}", storage.path.display());
    let nearest = existing(&storage.path);
    if !nearest.is_dir() || !writable(nearest) {
        let found = format!("{} is no directory that this user may write to", nearest.display());
        let remedy = format!(
            "install -d -o corenvr {}, or run doctor as the service's user",
            storage.path.display()
        );
        return vec![Finding::bad(check, found, remedy)];
    }
    let mut findings = vec![room(&check, storage, nearest)];
    findings.push(match direct_io(nearest) {
        Ok(()) => Finding::good(&check, "direct writes work"),
        Err(error) => Finding::bad(
            &check,
            format!("a direct write failed: {error}"),
            "use a local file system such as ext4 or xfs",
        ),
    });
    let device = |p: &Path| fs::metadata(p).map(|m| m.dev()).ok();
    if device(nearest).is_some() && device(nearest) == device(Path::new("/")) {
        findings.push(Finding::warning(
            check,
            "lies on the root file system: a full disk disturbs the whole machine",
            "give recordings a disk or partition of their own",
        ));
    }
    findings
}

fn room(check: &str, storage: &Storage, nearest: &Path) -> Finding {
    let fs = match rustix::fs::statvfs(nearest) {
        Ok(fs) => fs,
        Err(error) => return Finding::bad(check, format!("its free space is unknown: {error}"), "check the mount"),
    };
    let (free, total) = (fs.f_bavail * fs.f_frsize, fs.f_blocks * fs.f_frsize);
    let found = format!("{} of {} free", show_size(free), show_size(total));
    if total <= storage.keep_free {
        let remedy = format!(
            "keep_free = {} is more than the disk has: lower it",
            show_size(storage.keep_free)
        );
        return Finding::bad(check, found, remedy);
    }
    if free <= storage.keep_free {
        let remedy = "the oldest recordings are deleted to keep that free; make room if there are none yet";
        let found = format!("{found}, and {} are to stay free", show_size(storage.keep_free));
        return Finding::warning(check, found, remedy);
    }
    Finding::good(check, found)
}

/// Writes one block as the recorder does and removes it again.
fn direct_io(dir: &Path) -> io::Result<()> {
    let path: PathBuf = dir.join(format!(".corenvr-doctor-{}", std::process::id()));
    let write = async {
        let mut file = AppendFile::create(&path).await?;
        let mut block = AlignedBuffer::with_capacity(ALIGN);
        block.extend_from_slice(&[0; ALIGN]);
        let written = match file.write_at(block, 0).await {
            Ok(()) => file.datasync().await,
            Err(error) => Err(error),
        };
        let closed = file.close().await;
        let removed = remove(&path).await;
        written.and(closed).and(removed)
    };
    corenvr_shard::run_control(write).map_err(|e| io::Error::other(e.to_string()))?
}

fn daemon(running: bool) -> Finding {
    let found = if running { "is running" } else { "is not running" };
    Finding::good("corenvr", found)
}

fn port(section: &str, address: SocketAddr, running: bool) -> Finding {
    let check = format!("port {}", address.port());
    match TcpListener::bind(address) {
        Ok(_) => Finding::good(check, format!("{address} is free")),
        Err(error) if running && error.kind() == io::ErrorKind::AddrInUse => {
            Finding::good(check, format!("{address} is taken, and corenvr is running"))
        }
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

fn clock() -> Finding {
    let remedy = "timedatectl set-ntp true, or install chrony: recordings carry this clock's time";
    let answer = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .output();
    let text = answer
        .ok()
        .filter(|o| o.status.success())
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    match text.as_deref() {
        Some("yes") => Finding::good("clock", "is synchronised"),
        Some("no") => Finding::warning("clock", "is not synchronised", remedy),
        _ if Path::new("/run/systemd/timesync/synchronized").exists() => Finding::good("clock", "is synchronised"),
        _ => Finding::warning(
            "clock",
            "whether it is synchronised cannot be told: timedatectl does not answer",
            remedy,
        ),
    }
}

fn selinux() -> Finding {
    match fs::read_to_string("/sys/fs/selinux/enforce").as_deref().map(str::trim) {
        Ok("1") => Finding::warning(
            "SELinux",
            "is enforcing",
            "if starting fails, `ausearch -m avc -c corenvr` shows what is missing; a confined domain needs io_uring_t:anon_inode { create map read write }",
        ),
        Ok(_) => Finding::good("SELinux", "is permissive"),
        Err(_) => Finding::good("SELinux", "is not in use"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_directory_that_is_a_file_is_bad_and_a_missing_one_is_created_later() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(directory("x", &file.join("below")).verdict, Verdict::Bad);
        let later = directory("x", &dir.path().join("a/b"));
        assert_eq!(later.verdict, Verdict::Good);
        assert!(later.found.ends_with("will be created"));
        let bad = disk(&Storage::at(file.join("below")));
        assert!(bad[0].verdict == Verdict::Bad && bad[0].remedy.contains("install -d"));
    }

    #[test]
    fn a_disk_smaller_than_what_is_to_stay_free_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        let mut storage = Storage::at(dir.path().to_owned());
        storage.keep_free = u64::MAX;
        assert_eq!(room("x", &storage, dir.path()).verdict, Verdict::Bad);
        storage.keep_free = 0;
        assert_eq!(room("x", &storage, dir.path()).verdict, Verdict::Good);
    }

    #[test]
    fn a_taken_port_is_bad_unless_it_is_ours() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(port("[rtsp]", address, false).verdict, Verdict::Bad);
        assert_eq!(port("[rtsp]", address, true).verdict, Verdict::Good);
    }
}
