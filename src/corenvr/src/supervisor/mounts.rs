//! Is a storage directory on the disk it is meant to be on? An empty directory below a mount point that lacks its disk looks like any other.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// How far below its mount point a storage directory may lie, in directories. With more, a disk that is missing could not be told from a file
/// system further up, such as `/srv` with a partition of its own.
const BELOW_MOUNT_MAX: usize = 1;

/// Why a directory is not taken to be on a mounted disk.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// It lies on another file system: the disk is missing, or was never meant to be one.
    #[error(
        "{} has require_mount = true and is neither a mount point nor a directory directly in one: it lies on the file system of {}. Remedy: mount its disk (findmnt, /etc/fstab) and restart corenvr",
        path.display(), mount.display()
    )]
    NotMounted {
        /// The storage directory.
        path: PathBuf,
        /// Where the file system it lies on is mounted.
        mount: PathBuf,
    },
    /// It cannot be looked at.
    #[error("whether {} is on a mounted disk cannot be told: {source}. Remedy: check the disk and the rights on the path", path.display())]
    Unknown {
        /// The storage directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Whether `path` is a mount point or lies directly in one, other than `/`. It need not exist yet.
pub fn require(path: &Path) -> Result<(), MountError> {
    let unknown = |source| MountError::Unknown {
        path: path.to_owned(),
        source,
    };
    let (existing, missing) = nearest(path).map_err(unknown)?;
    let device = |p: &Path| fs::metadata(p).map(|m| m.dev());
    let own = device(&existing).map_err(unknown)?;
    let mut mount = existing.as_path();
    let mut below = missing;
    // By device and not by the table of mounts: a sandbox binds directories to themselves, which makes no disk of them.
    while let Some(parent) = mount.parent() {
        if device(parent).map_err(unknown)? != own {
            break;
        }
        mount = parent;
        below += 1;
    }
    if mount.parent().is_some() && below <= BELOW_MOUNT_MAX {
        return Ok(());
    }
    Err(MountError::NotMounted {
        path: path.to_owned(),
        mount: mount.to_owned(),
    })
}

/// The part of a path that exists, without links, and how many directories are missing behind it.
fn nearest(path: &Path) -> io::Result<(PathBuf, usize)> {
    for (missing, part) in path.ancestors().enumerate() {
        match fs::canonicalize(part) {
            Ok(existing) => return Ok((existing, missing)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_the_root_file_system_is_refused_whether_it_exists_or_not() {
        for path in ["/", "/etc", "/etc/not-there/rec"] {
            let text = require(Path::new(path)).unwrap_err().to_string();
            assert!(
                text.contains("Remedy: mount its disk") && text.contains("of /."),
                "{text}"
            );
        }
    }

    #[test]
    fn a_mount_point_and_a_directory_in_it_are_taken_and_deeper_ones_are_not() {
        // Mounted on every machine that runs the tests, and no part of the root's file system.
        require(Path::new("/proc")).unwrap();
        require(Path::new("/proc/self-made")).unwrap();
        assert!(matches!(
            require(Path::new("/proc/sys/kernel")),
            Err(MountError::NotMounted { mount, .. }) if mount == Path::new("/proc")
        ));
        assert!(require(Path::new("/proc/not/there")).is_err());
    }
}
