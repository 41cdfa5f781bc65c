//! The file of cameras that were added at run time: readable by people, written atomically, mode 0600 for its passwords.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::CameraSettings;

const HEADER: &str = "\
# Cameras that were added by `corenvr camera add`. The recorder rewrites this file; edit it only while it is stopped,
# or keep cameras that you write by hand as [[camera]] in corenvr.toml. The keys are the same.
";

/// The file of cameras.
#[derive(Debug, Clone)]
pub struct CamerasFile {
    path: PathBuf,
}

/// The file could not be written; the one before it is still in place.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}. Remedy: make its directory writable for the service's user and its disk not full", path.display())]
pub struct CamerasFileError {
    path: PathBuf,
    source: io::Error,
}

impl CamerasFile {
    /// The file at `path`.
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Replaces the file. After a crash at any moment the old or the new one is there, whole.
    pub fn write(&self, cameras: &[CameraSettings]) -> Result<(), CamerasFileError> {
        let text = render(cameras);
        self.replace(text.as_bytes()).map_err(|source| CamerasFileError {
            path: self.path.clone(),
            source,
        })
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir)?;
        let temporary = self.path.with_extension("toml.new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        fs::File::open(dir)?.sync_all()
    }
}

fn render(cameras: &[CameraSettings]) -> String {
    let mut list = toml_edit::ArrayOfTables::new();
    for camera in cameras {
        list.push(camera.to_toml());
    }
    let mut document = toml_edit::DocumentMut::new();
    if !list.is_empty() {
        document.insert("camera", toml_edit::Item::ArrayOfTables(list));
    }
    format!("{HEADER}\n{document}")
}
