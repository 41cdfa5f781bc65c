//! For whom it is judged: the service and its user, also when root asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
};

use rustix::{
    fs::Access,
    process::{Resource, getegid, geteuid, getgroups, getrlimit},
};

/// The unit that the packages install.
pub const UNIT: &str = "corenvr.service";
/// The user that it runs as.
const USER: &str = "corenvr";

/// Who is to run the recorder.
pub struct Subject {
    /// The user's name, or its number.
    pub name: String,
    uid: u32,
    groups: BTreeSet<u32>,
    /// Whether it is another user than the one who asks.
    pub other: bool,
    /// What systemd says of the unit; `None` where systemd does not answer or has no such unit.
    pub unit: Option<BTreeMap<String, String>>,
}

impl Subject {
    /// The service's user if root asks and there is such a user, else whoever asks.
    pub fn find() -> Self {
        let unit = unit();
        let own = geteuid().as_raw();
        let wanted = unit.as_ref().and_then(|u| u.get("User")).filter(|u| !u.is_empty());
        let service = (own == 0)
            .then(|| account(wanted.map_or(USER, String::as_str)))
            .flatten();
        match service {
            Some((name, uid, gid)) => Self {
                groups: groups_of(&name).into_iter().chain([gid]).collect(),
                other: uid != own,
                name,
                uid,
                unit,
            },
            None => Self { unit, ..Self::myself() },
        }
    }

    /// Whoever asks, without a unit.
    pub fn myself() -> Self {
        let own = geteuid().as_raw();
        let groups = getgroups().unwrap_or_default();
        Self {
            name: format!("user {own}"),
            uid: own,
            groups: groups.iter().map(|g| g.as_raw()).chain([getegid().as_raw()]).collect(),
            other: false,
            unit: None,
        }
    }

    /// Whether it belongs to a group.
    pub fn is_in(&self, group: u32) -> bool {
        self.groups.contains(&group)
    }

    /// Whether it may make files in a directory, and reach it. Of another user judged by the mode bits.
    pub fn may_write(&self, dir: &Path) -> bool {
        if !self.other {
            return rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok();
        }
        let reachable = dir.ancestors().skip(1).all(|above| self.has(above, 0o1));
        reachable && self.has(dir, 0o3)
    }

    fn has(&self, path: &Path, bits: u32) -> bool {
        let Ok(meta) = fs::metadata(path) else { return false };
        let shift = if meta.uid() == self.uid {
            6
        } else if self.is_in(meta.gid()) {
            3
        } else {
            0
        };
        self.uid == 0 || meta.mode() >> shift & bits == bits
    }

    /// A property of the unit.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.unit.as_ref()?.get(name).map(String::as_str)
    }

    /// A limit of the service, by the unit's property where there is a unit, else of whoever asks. `None` is no limit.
    pub fn limit(&self, property: &str, resource: Resource) -> Option<u64> {
        match self.property(property) {
            Some("infinity") => None,
            Some(text) if text.parse::<u64>().is_ok() => text.parse().ok(),
            _ => getrlimit(resource).maximum,
        }
    }
}

/// Everything systemd knows of the unit.
fn unit() -> Option<BTreeMap<String, String>> {
    let out = Command::new("systemctl").args(["show", UNIT]).output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let map: BTreeMap<_, _> = text
        .lines()
        .filter_map(|l| l.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    (out.status.success() && map.get("LoadState").is_some_and(|s| s == "loaded")).then_some(map)
}

/// Name, user and group of an account in `/etc/passwd`.
fn account(wanted: &str) -> Option<(String, u32, u32)> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let found = fields.first() == Some(&wanted) || fields.get(2) == Some(&wanted);
        found.then(|| {
            Some((
                fields[0].to_owned(),
                fields.get(2)?.parse().ok()?,
                fields.get(3)?.parse().ok()?,
            ))
        })?
    })
}

fn groups_of(user: &str) -> Vec<u32> {
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    let member = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let is = fields.get(3)?.split(',').any(|m| m == user);
        is.then(|| fields.get(2)?.parse().ok()).flatten()
    };
    text.lines().filter_map(member).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn another_user_is_judged_by_the_mode_and_not_by_what_root_may() {
        let dir = tempfile::Builder::new().prefix("subject").tempdir_in("/tmp").unwrap();
        let meta = fs::metadata(dir.path()).unwrap();
        let mut subject = Subject {
            name: "somebody".into(),
            uid: meta.uid() + 1,
            groups: BTreeSet::new(),
            other: true,
            unit: None,
        };
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o770)).unwrap();
        assert!(!subject.may_write(dir.path()));
        subject.groups.insert(meta.gid());
        assert!(subject.may_write(dir.path()));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o757)).unwrap();
        assert!(
            !subject.may_write(dir.path()),
            "the group's bits count and not those of others"
        );
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    }
}
