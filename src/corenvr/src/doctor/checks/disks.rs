//! Directories and disks.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use corenvr_shard::file::{ALIGN, AlignedBuffer, AppendFile, remove};
use rustix::fs::StatVfsMountFlags;

use crate::{
    config::{Storage, values::show_size},
    doctor::{Finding, subject::Subject},
    supervisor::{mounts, storage::unit_remedy},
};

/// Writes that are timed; the middle one counts.
const TRIES: usize = 5;
/// A disk that takes longer for one block is no help to a recorder.
const SLOW: Duration = Duration::from_millis(250);

/// The directory, or the nearest one above it that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"))
}

/// Where systemd looks for units, the administrator's own first.
const UNIT_FILES: [&str; 3] = [
    "/etc/systemd/system/corenvr.service",
    "/usr/lib/systemd/system/corenvr.service",
    "/lib/systemd/system/corenvr.service",
];

/// Also where systemd does not run at the moment, and so cannot be asked.
fn unit_is_installed() -> bool {
    UNIT_FILES.iter().any(|f| Path::new(f).exists())
}

pub fn directory(check: &str, path: &Path, subject: &Subject) -> Finding {
    let shown = path.display();
    let nearest = existing(path);
    if !nearest.is_dir() {
        let remedy = "choose another path in [server]";
        return Finding::bad(check, format!("{} is not a directory", nearest.display()), remedy);
    }
    // The unit makes its own directories as root, once it is started.
    let made = nearest != path && (subject.unit.is_some() || unit_is_installed());
    if !made && !subject.may_write(nearest) {
        let found = format!("{shown} cannot be written by {}", subject.name);
        return Finding::bad(check, found, format!("install -d -o corenvr -g corenvr {shown}"));
    }
    if nearest == path {
        Finding::good(check, format!("{shown}"))
    } else {
        Finding::good(check, format!("{shown} will be created"))
    }
}

pub fn disk(storage: &Storage, subject: &Subject) -> Vec<Finding> {
    let check = format!("disk {}", storage.path.display());
    let nearest = existing(&storage.path);
    let mut findings: Vec<Finding> = if storage.require_mount {
        required_mount(&check, &storage.path).into_iter().collect()
    } else {
        not_mounted(&check, &storage.path).into_iter().collect()
    };
    if !nearest.is_dir() || !subject.may_write(nearest) {
        let found = format!(
            "{} is no directory that {} may write to",
            nearest.display(),
            subject.name
        );
        let remedy = format!("install -d -o corenvr -g corenvr {}", storage.path.display());
        findings.push(Finding::bad(check, found, remedy));
        return findings;
    }
    findings.push(room(&check, storage, nearest));
    findings.extend(sandboxed(&check, &storage.path, subject));
    findings.push(kind(&check, nearest));
    findings.push(match write_latency(nearest) {
        Ok(took) if took > SLOW => Finding::warning(
            &check,
            format!("one block takes {} ms until it is durable", took.as_millis()),
            "look for a failing disk (smartctl -a), a write cache that is off, or too much other work",
        ),
        Ok(took) => Finding::good(
            &check,
            format!("direct writes work, {:.1} ms until durable", took.as_secs_f64() * 1e3),
        ),
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
    if fs.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let remedy = "mount it writable; a disk that the kernel made read-only after errors is failing (dmesg)";
        return Finding::bad(check, "is mounted read-only", remedy);
    }
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

/// A line of `fstab` for the directory or one above it whose disk is not there.
fn not_mounted(check: &str, path: &Path) -> Option<Finding> {
    let fstab = fs::read_to_string("/etc/fstab").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let missing = missing_mount(path, &fstab, &mounts)?;
    Some(Finding::bad(
        check,
        format!("the disk for {} is in /etc/fstab and is not mounted", missing.display()),
        format!("mount {}", missing.display()),
    ))
}

fn missing_mount(path: &Path, fstab: &str, mounts: &str) -> Option<PathBuf> {
    let wanted = fstab
        .lines()
        .filter(|l| !l.trim_start().starts_with('#'))
        .filter_map(|l| l.split_whitespace().nth(1));
    let mounted: Vec<&str> = mounts.lines().filter_map(|l| l.split(' ').nth(4)).collect();
    let missing =
        |point: &&str| *point != "/" && point.starts_with('/') && path.starts_with(point) && !mounted.contains(point);
    wanted.filter(missing).map(PathBuf::from).next()
}

/// `require_mount`, as the recorder itself will judge it.
fn required_mount(check: &str, path: &Path) -> Option<Finding> {
    let text = mounts::require(path).err()?.to_string();
    let (found, remedy) = text.split_once(". Remedy: ").unwrap_or((&text, ""));
    Some(Finding::bad(check, found, remedy))
}

/// The unit lets the service write to few places.
fn sandboxed(check: &str, path: &Path, subject: &Subject) -> Option<Finding> {
    if subject.property("ProtectSystem") != Some("strict") {
        return None;
    }
    let allowed: Vec<&str> = ["ReadWritePaths", "StateDirectory", "LogsDirectory", "CacheDirectory"]
        .iter()
        .filter_map(|p| subject.property(p))
        .flat_map(str::split_whitespace)
        .collect();
    (!is_allowed(path, &allowed)).then(|| {
        Finding::bad(
            check,
            "the service's unit does not let it write there",
            unit_remedy(path),
        )
    })
}

/// `StateDirectory` names are below `/var/lib`; a leading `-` or `+` of a path is a flag.
fn is_allowed(path: &Path, allowed: &[&str]) -> bool {
    allowed.iter().any(|a| {
        let a = a.trim_start_matches(['-', '+']);
        path.starts_with(if a.starts_with('/') {
            PathBuf::from(a)
        } else {
            Path::new("/var/lib").join(a)
        })
    })
}

/// File systems by the number that `statfs(2)` gives, and whether recordings are well kept on them.
const KINDS: [(i64, &str, bool); 17] = [
    (0xEF53, "ext4", true),
    (0x5846_5342, "xfs", true),
    (0x9123_683E, "btrfs", true),
    (0x2FC1_2FC1, "zfs", true),
    (0xF2F5_2010, "f2fs", true),
    (0x6969, "NFS", false),
    (0xFF53_4D42, "CIFS", false),
    (0xFE53_4D42, "SMB", false),
    (0x517B, "SMB", false),
    (0x6573_5546, "FUSE", false),
    (0x0102_1994, "tmpfs", false),
    (0x8584_58F6, "ramfs", false),
    (0x794C_7630, "overlayfs", false),
    (0x0102_1997, "9p", false),
    (0x4D44, "FAT", false),
    (0x2011_BAB0, "exFAT", false),
    (0x5346_544E, "NTFS", false),
];

fn kind(check: &str, path: &Path) -> Finding {
    let Ok(fs) = rustix::fs::statfs(path) else {
        return Finding::warning(check, "its file system is unknown", "check the mount");
    };
    let spins = match rotational(path) {
        Some(true) => ", on a disk that spins",
        Some(false) => ", on a disk without moving parts",
        None => "",
    };
    // The field is signed on some platforms: only its 32 bits are the number.
    judge_kind(check, fs.f_type as u32, spins)
}

fn judge_kind(check: &str, number: u32, spins: &str) -> Finding {
    let known = KINDS.iter().find(|(n, _, _)| *n == i64::from(number));
    let remedy = match known.map(|(_, name, _)| *name) {
        Some("NFS" | "CIFS" | "SMB" | "9p") => {
            "a network that stops loses footage, and what the server has promised may not be on its disk: record locally and copy, or take care that it is fast and mounted hard,sync"
        }
        Some("tmpfs" | "ramfs" | "overlayfs") => "nothing in it outlives a restart: name a directory on a disk",
        Some("FUSE" | "FAT" | "exFAT" | "NTFS") => "it may lose what was flushed and be slow: use ext4 or xfs",
        _ => "ext4 and xfs are what is tested",
    };
    match known {
        Some((_, name, true)) => Finding::good(check, format!("{name}{spins}")),
        Some((_, name, false)) => Finding::warning(check, format!("lies on {name}{spins}"), remedy),
        None => Finding::warning(
            check,
            format!("lies on a file system that is not known ({number:#x}){spins}"),
            remedy,
        ),
    }
}

/// Whether the disk below a path turns, where the kernel says so.
fn rotational(path: &Path) -> Option<bool> {
    let device = fs::metadata(path).ok()?.dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let base = fs::canonicalize(Path::new("/sys/dev/block").join(number)).ok()?;
    // A partition has no queue of its own.
    let read = |dir: &Path| fs::read_to_string(dir.join("queue/rotational")).ok();
    let text = read(&base).or_else(|| read(base.parent()?))?;
    Some(text.trim() == "1")
}

/// Writes blocks as the recorder does and removes them again; the median time until one is durable.
fn write_latency(dir: &Path) -> io::Result<Duration> {
    let path: PathBuf = dir.join(format!(".corenvr-doctor-{}", std::process::id()));
    let write = async {
        let mut file = AppendFile::create(&path).await?;
        let mut times = Vec::new();
        let mut written = Ok(());
        for i in 0..TRIES {
            let mut block = AlignedBuffer::with_capacity(ALIGN);
            block.extend_from_slice(&[0; ALIGN]);
            let begun = Instant::now();
            written = match file.write_at(block, (i * ALIGN) as u64).await {
                Ok(()) => file.datasync().await,
                Err(error) => Err(error),
            };
            if written.is_err() {
                break;
            }
            times.push(begun.elapsed());
        }
        let closed = file.close().await;
        let removed = remove(&path).await;
        written.and(closed).and(removed)?;
        times.sort_unstable();
        times
            .get(times.len() / 2)
            .copied()
            .ok_or_else(|| io::Error::other("nothing was written"))
    };
    corenvr_shard::run_control(write).map_err(|e| io::Error::other(e.to_string()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_required_mount_that_is_missing_is_bad_with_its_remedy() {
        let finding = required_mount("x", Path::new("/etc/not-there/rec")).unwrap();
        assert_eq!(finding.verdict, Verdict::Bad);
        assert!(
            finding.found.contains("require_mount") && finding.remedy.starts_with("mount its disk"),
            "{finding:?}"
        );
    }

    #[test]
    fn a_directory_that_is_a_file_is_bad_and_a_missing_one_is_created_later() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let subject = Subject::myself();
        assert_eq!(directory("x", &file.join("below"), &subject).verdict, Verdict::Bad);
        let later = directory("x", &dir.path().join("a/b"), &subject);
        assert_eq!(later.verdict, Verdict::Good);
        assert!(later.found.ends_with("will be created"));
        let bad = disk(&Storage::at(file.join("below")), &subject);
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
        assert!(write_latency(dir.path()).unwrap() > Duration::ZERO);
    }

    #[test]
    fn network_and_memory_file_systems_are_warned_of() {
        assert_eq!(judge_kind("x", 0xEF53, "").verdict, Verdict::Good);
        for number in [0x6969, 0xFF53_4D42, 0x6573_5546, 0x0102_1994, 0x794C_7630, 0x1234] {
            assert_eq!(judge_kind("x", number, "").verdict, Verdict::Warning);
        }
        assert!(judge_kind("x", 0x0102_1994, "").remedy.contains("restart"));
    }

    #[test]
    fn a_disk_of_fstab_that_is_not_mounted_is_found() {
        let fstab =
            "# /dev/x /data ext4\nUUID=1 / ext4 defaults 0 1\nUUID=2 /data ext4 defaults 0 2\nUUID=3 none swap\n";
        let without = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
        let with = format!("{without}22 21 8:17 / /data rw - ext4 /dev/sdb1 rw\n");
        assert_eq!(
            missing_mount(Path::new("/data/rec"), fstab, without),
            Some("/data".into())
        );
        assert_eq!(missing_mount(Path::new("/data/rec"), fstab, &with), None);
        assert_eq!(missing_mount(Path::new("/database"), fstab, without), None);
    }

    #[test]
    fn what_the_unit_forbids_is_known() {
        let allowed = ["-/srv/corenvr", "corenvr"];
        assert!(is_allowed(Path::new("/srv/corenvr/a"), &allowed));
        assert!(is_allowed(Path::new("/var/lib/corenvr/recordings"), &allowed));
        assert!(!is_allowed(Path::new("/data"), &allowed));
    }
}
