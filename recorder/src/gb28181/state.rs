//! What the SIP server keeps over a restart: who is registered. A device believes itself registered for hours and would not be heard of.

use std::{fs, io, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use corenvr_proto::gb28181::platform::KnownDevice;
use serde::{Deserialize, Serialize};

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

#[derive(Default, Serialize, Deserialize)]
struct State {
    devices: Vec<KnownDevice>,
}

/// The devices of the file; none if there is no file. One that cannot be read costs no more than that devices must register anew, so
/// the caller tells it and goes on.
pub(super) fn read(path: &Path) -> io::Result<Vec<KnownDevice>> {
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
        Ok(m) if m.len() > FILE_BYTES_MAX => return Err(io::Error::other("it is too large")),
        Ok(_) => {}
    }
    let state: State = serde_json::from_slice(&fs::read(path)?)?;
    Ok(state.devices)
}

/// Replaces the file. After a crash at any moment the old or the new one is there, whole.
pub(super) fn write(path: &Path, devices: Vec<KnownDevice>) -> io::Result<()> {
    let bytes = serde_json::to_vec(&State { devices })?;
    let temporary = path.with_extension("json.new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
