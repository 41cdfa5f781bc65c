//! What makes a directory an archive: its identity, the lock, and the list of protected ranges.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{
    paths::{self, PRIVATE},
    types::{ArchiveOptions, OpenError, Protected, StorageId},
};

/// Largest identity or protection file that is read.
const FILE_LEN_MAX: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
struct Identity {
    uuid: StorageId,
    note: String,
}

#[derive(Serialize, Deserialize, Default)]
struct Holder {
    pid: u32,
    host: String,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}

/// Reads a file of ours; `None` if it is not there.
fn read_small(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match File::open(path) {
        Ok(f) => {
            let mut b = Vec::new();
            f.take(FILE_LEN_MAX).read_to_end(&mut b)?;
            Ok(Some(b))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Replaces a file, durably, as a whole.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut f = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(&new)?;
    f.write_all(bytes)?;
    f.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), paths::sync_dir)
}

/// Takes the lock of a storage directory and finds out, or decides, what it is called.
pub fn take(options: &ArchiveOptions) -> Result<(File, StorageId), OpenError> {
    let root = &options.root;
    let private = root.join(PRIVATE);
    let identity = private.join("identity");
    let found = read_identity(&identity)?;
    if let Some(expected) = &options.expect
        && found.as_ref() != Some(expected)
    {
        return Err(OpenError::WrongDirectory {
            root: root.clone(),
            expected: expected.clone(),
            found,
        });
    }
    if found.is_none() {
        if !options.create {
            return Err(OpenError::NotAnArchive { root: root.clone() });
        }
        fs::create_dir_all(&private).map_err(io_error("create", &private))?;
    }
    let lock = lock(root, &private)?;
    // Read again: another process may have made it meanwhile.
    let id = match read_identity(&identity)? {
        Some(id) => id,
        None => create_identity(&identity).map_err(io_error("write", &identity))?,
    };
    Ok((lock, id))
}

fn read_identity(path: &Path) -> Result<Option<StorageId>, OpenError> {
    let Some(bytes) = read_small(path).map_err(io_error("read", path))? else {
        return Ok(None);
    };
    let identity: Identity = serde_json::from_slice(&bytes).map_err(|e| OpenError::Identity {
        path: path.to_owned(),
        reason: e.to_string(),
    })?;
    Ok(Some(identity.uuid))
}

fn create_identity(path: &Path) -> io::Result<StorageId> {
    let mut b = [0u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut b)?;
    // Version 4, variant 1 (RFC 9562 section 5.4).
    b[6] = b[6] & 0x0F | 0x40;
    b[8] = b[8] & 0x3F | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(b));
    let uuid = StorageId(format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    ));
    let identity = Identity {
        uuid: uuid.clone(),
        note: format!("corenvr storage directory, made on {}", host()),
    };
    write_whole(path, &serde_json::to_vec_pretty(&identity)?)?;
    Ok(uuid)
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn lock(root: &Path, private: &Path) -> Result<File, OpenError> {
    let path = private.join("lock");
    let mut f = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match rustix::fs::flock(&f, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let text = read_small(&path).ok().flatten().unwrap_or_default();
            let holder: Holder = serde_json::from_slice(&text).unwrap_or_default();
            return Err(OpenError::InUse {
                root: root.to_owned(),
                pid: holder.pid,
                host: holder.host,
            });
        }
        Err(e) => return Err(io_error("lock", &path)(e.into())),
    }
    let holder = Holder {
        pid: std::process::id(),
        host: host(),
    };
    let text = serde_json::to_vec(&holder).unwrap_or_default();
    f.set_len(0)
        .and_then(|()| f.write_all(&text))
        .map_err(io_error("write", &path))?;
    Ok(f)
}

fn protected_path(root: &Path) -> PathBuf {
    root.join(PRIVATE).join("protected.json")
}

/// Reads the list of protected ranges.
pub fn read_protected(root: &Path) -> Result<Vec<Protected>, (PathBuf, String)> {
    let path = protected_path(root);
    let bytes = match read_small(&path) {
        Ok(Some(b)) => b,
        Ok(None) => return Ok(Vec::new()),
        Err(e) => return Err((path, e.to_string())),
    };
    serde_json::from_slice(&bytes).map_err(|e| (path, e.to_string()))
}

/// Writes the list of protected ranges.
pub fn write_protected(root: &Path, list: &[Protected]) -> io::Result<PathBuf> {
    let path = protected_path(root);
    write_whole(&path, &serde_json::to_vec_pretty(list)?)?;
    Ok(path)
}
