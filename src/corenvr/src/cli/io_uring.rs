//! `corenvr allow-io-uring`: the least that lets the service use io_uring where the kernel's settings forbid it, and the way back.
//!
//! The kernel knows one group (`kernel.io_uring_group`) that may use io_uring while `kernel.io_uring_disabled` is 1. It is written to a file of
//! our own in sysctl.d, for the next start of the machine, and to the kernel, for now. The file keeps the values that were found, so that
//! `--undo` restores them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Failure, args::AllowIoUringArgs, output};

/// Our file in sysctl.d.
const FILE: &str = "60-corenvr-io_uring.conf";
/// Where the file keeps what was found.
const FOUND: &str = "# found: ";
/// Allowed to the group, and to those with `CAP_SYS_ADMIN`.
const GROUP_ONLY: i64 = 1;

/// Changes or restores the settings, and prints what was done.
pub fn run(args: &AllowIoUringArgs) -> Result<(), Failure> {
    let machine = Machine::at(Path::new("/"));
    let done = if args.undo {
        machine.undo()
    } else {
        machine.allow(&args.group)
    };
    done.map(|text| output::line(&text))
        .map_err(|e| Failure::Failed(e.to_string()))
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{}: {source}. Remedy: {}", path.display(), if source.kind() == io::ErrorKind::PermissionDenied { "run as root: sudo corenvr allow-io-uring" } else { "check this path; nothing else was changed" })]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "there is no group {0} in /etc/group. Remedy: install the package, which makes the group corenvr, or name another one with --group"
    )]
    NoGroup(String),
    #[error(
        "io_uring is allowed to the group {holder} already, and the kernel knows only one. Remedy: make the service a member of it: usermod -aG {holder} corenvr && systemctl restart corenvr"
    )]
    Taken { holder: String },
}

/// The two settings, as the kernel has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Settings {
    disabled: i64,
    group: i64,
}

/// The paths that are read and written, below a root that tests choose.
struct Machine {
    root: PathBuf,
}

impl Machine {
    fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn allow(&self, group: &str) -> Result<String, Refusal> {
        let Some(now) = self.settings()? else {
            return Ok("This kernel has no setting that forbids io_uring: nothing was changed. `corenvr doctor` says whether it works.".into());
        };
        if now.disabled == 0 {
            return Ok("io_uring is allowed to everybody (kernel.io_uring_disabled = 0): nothing was changed.".into());
        }
        let gid = self.gid(group)?;
        if now.disabled == GROUP_ONLY && now.group == gid && self.file().exists() {
            return Ok(format!(
                "io_uring is allowed to the group {group} already: nothing was changed."
            ));
        }
        // -1 and root's own 0 are nobody that would lose anything.
        if now.disabled == GROUP_ONLY && now.group > 0 && now.group != gid {
            return Err(Refusal::Taken {
                holder: self.group_name(now.group).unwrap_or_else(|| now.group.to_string()),
            });
        }
        // An earlier call may have been here: what it found is the state before us, not what it made.
        let found = self.found().unwrap_or(now);
        self.write_file(found, group, gid)?;
        // The group first: in the other order nobody could use it for a moment.
        self.set("io_uring_group", gid)?;
        self.set("io_uring_disabled", GROUP_ONLY)?;
        let mut lines = vec![
            format!(
                "io_uring is allowed to the group {group} ({gid}) now and after a restart of the machine: {}.",
                self.file().display()
            ),
            "Next: systemctl restart corenvr".into(),
        ];
        lines.extend(self.overriding().iter().map(|other| {
            format!(
                "WARNING: {} sets the same and is read later: take those lines out, or the next restart of the machine undoes this",
                other.display()
            )
        }));
        Ok(lines.join("\n"))
    }

    fn undo(&self) -> Result<String, Refusal> {
        let file = self.file();
        let found = self.found();
        match fs::remove_file(&file) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(format!("{} is not there: nothing to undo.", file.display()));
            }
            Err(source) => return Err(Refusal::Io { path: file, source }),
        }
        let (Some(found), Some(now)) = (found, self.settings()?) else {
            return Ok(format!(
                "Removed {}; what the kernel has in force was left alone.",
                file.display()
            ));
        };
        if now.disabled != GROUP_ONLY {
            return Ok(format!(
                "Removed {}; kernel.io_uring_disabled is {} by another hand and was left alone.",
                file.display(),
                now.disabled
            ));
        }
        self.set("io_uring_disabled", found.disabled)?;
        self.set("io_uring_group", found.group)?;
        Ok(format!(
            "Removed {}; kernel.io_uring_disabled = {} and kernel.io_uring_group = {} again. The recorder will not start again like this.",
            file.display(),
            found.disabled,
            found.group
        ))
    }

    fn file(&self) -> PathBuf {
        self.root.join("etc/sysctl.d").join(FILE)
    }

    fn kernel(&self, key: &str) -> PathBuf {
        self.root.join("proc/sys/kernel").join(key)
    }

    /// `None` where the kernel has no such settings (before 6.6, unless a distribution brought them).
    fn settings(&self) -> Result<Option<Settings>, Refusal> {
        let read = |key| {
            let path = self.kernel(key);
            match fs::read_to_string(&path) {
                Ok(text) => Ok(text.trim().parse::<i64>().ok()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(Refusal::Io { path, source }),
            }
        };
        let Some(disabled) = read("io_uring_disabled")? else {
            return Ok(None);
        };
        let group = read("io_uring_group")?.unwrap_or(-1);
        Ok(Some(Settings { disabled, group }))
    }

    fn set(&self, key: &str, value: i64) -> Result<(), Refusal> {
        let path = self.kernel(key);
        fs::write(&path, format!("{value}\n")).map_err(|source| Refusal::Io { path, source })
    }

    fn write_file(&self, found: Settings, group: &str, gid: i64) -> Result<(), Refusal> {
        let file = self.file();
        let text = format!(
            "# io_uring for the group {group} alone. Made by `corenvr allow-io-uring`; `corenvr allow-io-uring --undo` takes it back.\n\
             {FOUND}{} {}\nkernel.io_uring_group = {gid}\nkernel.io_uring_disabled = {GROUP_ONLY}\n",
            found.disabled, found.group
        );
        let temporary = file.with_extension("conf.new");
        fs::create_dir_all(self.root.join("etc/sysctl.d"))
            .and_then(|()| fs::write(&temporary, text))
            .and_then(|()| fs::File::open(&temporary)?.sync_all())
            .and_then(|()| fs::rename(&temporary, &file))
            .map_err(|source| Refusal::Io { path: file, source })
    }

    /// What an earlier call found, if its file is there and whole.
    fn found(&self) -> Option<Settings> {
        let text = fs::read_to_string(self.file()).ok()?;
        let line = text.lines().find_map(|l| l.strip_prefix(FOUND))?;
        let (disabled, group) = line.split_once(' ')?;
        Some(Settings {
            disabled: disabled.parse().ok()?,
            group: group.trim().parse().ok()?,
        })
    }

    fn groups(&self) -> String {
        fs::read_to_string(self.root.join("etc/group")).unwrap_or_default()
    }

    fn gid(&self, name: &str) -> Result<i64, Refusal> {
        let groups = self.groups();
        let mut rows = groups.lines().map(|l| l.split(':').collect::<Vec<_>>());
        rows.find(|r| r.first() == Some(&name))
            .and_then(|r| r.get(2)?.parse().ok())
            .ok_or_else(|| Refusal::NoGroup(name.into()))
    }

    fn group_name(&self, gid: i64) -> Option<String> {
        let (groups, gid) = (self.groups(), gid.to_string());
        let mut rows = groups.lines().map(|l| l.split(':').collect::<Vec<_>>());
        rows.find(|r| r.get(2) == Some(&gid.as_str()))
            .and_then(|r| r.first().map(|n| (*n).to_owned()))
    }

    /// Files of other hands that set the same and are read after ours, as systemd-sysctl orders them: by name over all directories.
    fn overriding(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = [
            "etc/sysctl.d",
            "run/sysctl.d",
            "usr/local/lib/sysctl.d",
            "usr/lib/sysctl.d",
        ]
        .iter()
        .filter_map(|dir| fs::read_dir(self.root.join(dir)).ok())
        .flat_map(|entries| entries.flatten().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "conf"))
        .filter(|p| p.file_name().is_some_and(|n| n > FILE))
        .collect();
        // `sysctl --system` reads this one last of all.
        files.push(self.root.join("etc/sysctl.conf"));
        files.retain(|p| fs::read_to_string(p).is_ok_and(|text| sets_io_uring(&text)));
        files.sort();
        // /etc/sysctl.d/99-sysctl.conf is usually a link to /etc/sysctl.conf.
        files.dedup_by_key(|p| fs::canonicalize(&p).unwrap_or_else(|_| p.clone()));
        files
    }
}

fn sets_io_uring(text: &str) -> bool {
    let keys = text
        .lines()
        .filter_map(|l| l.trim().trim_start_matches('-').split_once('='));
    keys.map(|(key, _)| key.trim().replace('/', "."))
        .any(|key| key == "kernel.io_uring_disabled" || key == "kernel.io_uring_group")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine in a directory; `None` is a kernel without the settings.
    fn machine(settings: Option<(i64, i64)>) -> (tempfile::TempDir, Machine) {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["etc", "proc/sys/kernel", "usr/lib/sysctl.d"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        fs::write(
            dir.path().join("etc/group"),
            "root:x:0:\npostgres:x:26:\ncorenvr:x:993:\n",
        )
        .unwrap();
        let machine = Machine::at(dir.path());
        if let Some((disabled, group)) = settings {
            machine.set("io_uring_disabled", disabled).unwrap();
            machine.set("io_uring_group", group).unwrap();
        }
        (dir, machine)
    }

    fn now(machine: &Machine) -> (i64, i64) {
        let s = machine.settings().unwrap().unwrap();
        (s.disabled, s.group)
    }

    #[test]
    fn nothing_is_changed_where_nothing_forbids_it() {
        for settings in [None, Some((0, -1))] {
            let (_dir, machine) = machine(settings);
            assert!(machine.allow("corenvr").unwrap().contains("nothing was changed"));
            assert!(!machine.file().exists());
            assert!(machine.undo().unwrap().contains("nothing to undo"));
        }
    }

    #[test]
    fn a_kernel_that_forbids_it_allows_the_group_and_undo_restores_what_was_found() {
        for before in [(2, -1), (1, -1), (1, 0), (2, 26)] {
            let (_dir, machine) = machine(Some(before));
            assert!(machine.allow("corenvr").unwrap().contains("systemctl restart corenvr"));
            assert_eq!(now(&machine), (1, 993));
            let text = fs::read_to_string(machine.file()).unwrap();
            assert!(
                text.contains("\nkernel.io_uring_group = 993\nkernel.io_uring_disabled = 1\n"),
                "{text}"
            );
            assert!(machine.allow("corenvr").unwrap().contains("already"));
            // As after a restart of the machine with the file overridden: the same call again keeps what was found first.
            machine.set("io_uring_disabled", 2).unwrap();
            machine.allow("corenvr").unwrap();
            machine.undo().unwrap();
            assert_eq!(now(&machine), before);
            assert!(!machine.file().exists());
        }
    }

    #[test]
    fn the_group_of_another_service_is_not_taken_away() {
        let (_dir, machine) = machine(Some((1, 26)));
        let text = machine.allow("corenvr").unwrap_err().to_string();
        assert!(text.contains("usermod -aG postgres corenvr"), "{text}");
        assert_eq!(now(&machine), (1, 26));
        assert!(!machine.file().exists());
    }

    #[test]
    fn an_unknown_group_and_another_hand_are_told() {
        let (dir, machine) = machine(Some((2, -1)));
        assert!(
            machine
                .allow("nobody-here")
                .unwrap_err()
                .to_string()
                .contains("--group")
        );
        fs::write(
            dir.path().join("usr/lib/sysctl.d/99-hard.conf"),
            "# x\n-kernel/io_uring_disabled = 2\n",
        )
        .unwrap();
        fs::write(
            dir.path().join("usr/lib/sysctl.d/10-early.conf"),
            "kernel.io_uring_disabled = 2\n",
        )
        .unwrap();
        let text = machine.allow("corenvr").unwrap();
        assert!(
            text.contains("99-hard.conf") && !text.contains("10-early.conf"),
            "{text}"
        );
        machine.set("io_uring_disabled", 0).unwrap();
        assert!(machine.undo().unwrap().contains("another hand"));
        assert_eq!(now(&machine).0, 0);
    }
}
