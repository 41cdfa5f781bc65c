//! Files that only the service may read: mode 0600, never through a link, and owned by the owner of their directory when root writes them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

const MODE: u32 = 0o600;

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .mode(MODE)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// A file to append to.
pub fn open_append(path: &Path) -> io::Result<File> {
    let file = options().append(true).create(true).open(path)?;
    make_private(&file, path)?;
    Ok(file)
}

/// A file whose lock stands for something.
pub fn open_lock(path: &Path) -> io::Result<File> {
    let file = options().create(true).truncate(false).open(path)?;
    make_private(&file, path)?;
    Ok(file)
}

/// Replaces a file. After a crash at any moment the old or the new one is there, whole.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    // What an earlier crash has left, or what somebody put there.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = options().create_new(true).open(&temporary)?;
    make_private(&file, path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(directory(path))
}

/// Flushes what was created, renamed or removed in a directory.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The directory of a file.
pub fn directory(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn make_private(file: &File, path: &Path) -> io::Result<()> {
    let found = file.metadata()?;
    if found.mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(MODE))?;
    }
    let dir = fs::metadata(directory(path))?;
    if rustix::process::geteuid().is_root() && (found.uid(), found.gid()) != (dir.uid(), dir.gid()) {
        std::os::unix::fs::fchown(file, Some(dir.uid()), Some(dir.gid()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "untouched").unwrap();
        // A link in the way is replaced, not followed.
        std::os::unix::fs::symlink(&elsewhere, dir.path().join("a.json.new")).unwrap();
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&elsewhere).unwrap(), b"untouched");
        assert!(!fs::exists(dir.path().join("a.json.new")).unwrap());
        std::os::unix::fs::symlink(&elsewhere, dir.path().join("log")).unwrap();
        assert!(open_append(&dir.path().join("log")).is_err());
    }

    #[test]
    fn a_file_that_others_could_read_becomes_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        drop(open_append(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}
