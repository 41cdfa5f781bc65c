//! Crashes of the recorder itself: the files that a fatal signal writes into, what became of the last ones, and saying so at the next start.
//!
//! A file is opened ahead, because a process that crashes can do no more than write. Its name says `running` while the process lives; the
//! next start finds what is in it, logs it, and renames it to `crash`.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use corenvr_media::WallTime;
use rustix::fs::FlockOperation;

use crate::admin::api::CrashView;

/// Crash files that are kept; the oldest goes.
const KEPT: usize = 8;
/// Bytes of one that are read: a report has a few kilobytes.
const BYTES_MAX: u64 = 64 << 10;

/// Where they are.
pub fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("crashes")
}

/// Says how the last run ended if it crashed, and from here on keeps crashes of this one. Without it crashes are in the journal alone.
pub fn prepare(state_dir: &Path) {
    let dir = directory(state_dir);
    let opened = look_back(&dir).and_then(|()| open(&dir));
    match opened {
        Ok(file) => corenvr_shard::crash::keep_in(file.into()),
        Err(error) => tracing::warn!(%error, directory = %dir.display(), "crashes cannot be kept there"),
    }
}

/// The reports that are kept, newest first.
pub fn list(state_dir: &Path) -> Vec<CrashView> {
    let mut files = files(&directory(state_dir), "crash-");
    files.reverse();
    files.iter().filter_map(|path| view(path).ok()).collect()
}

fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = |e: &fs::DirEntry| e.file_name().to_str().is_some_and(|n| n.starts_with(prefix));
    let mut files: Vec<_> = entries.filter(named).map(|e| e.path()).collect();
    files.sort();
    files
}

fn view(path: &Path) -> io::Result<CrashView> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    let at = file.metadata()?.modified()?;
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let summary = text.lines().next().unwrap_or_default();
    Ok(CrashView {
        at: WallTime::from_system(at),
        summary: summary.strip_prefix("corenvr crash: ").unwrap_or(summary).to_owned(),
        report: text,
    })
}

/// Files of processes that are gone: empty ones go, others are told and kept.
fn look_back(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for path in files(dir, "running-") {
        let file = File::open(&path)?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue; // Another recorder's, which runs.
        }
        if file.metadata()?.len() == 0 {
            fs::remove_file(&path)?;
            continue;
        }
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .replacen("running", "crash", 1);
        let kept = dir.join(name);
        fs::rename(&path, &kept)?;
        let crash = view(&kept)?;
        tracing::error!(at = %crash.at, report = %kept.display(), "the recorder crashed last time: {}", crash.summary);
    }
    let crashes = files(dir, "crash-");
    for path in &crashes[..crashes.len().saturating_sub(KEPT)] {
        fs::remove_file(path)?;
    }
    Ok(())
}

fn open(dir: &Path) -> io::Result<File> {
    let now = WallTime::from_system(SystemTime::now()).to_clock();
    let path = dir.join(format!("running-{now}-{}.txt", std::process::id()));
    let file = File::options().append(true).create(true).mode(0o640).open(path)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_is_found_and_the_number_is_bounded() {
        let state = tempfile::tempdir().unwrap();
        let dir = directory(state.path());
        look_back(&dir).unwrap();
        let living = open(&dir).unwrap();
        fs::write(dir.join("running-20260101T000000Z-1.txt"), "").unwrap();
        for i in 0..KEPT + 3 {
            let text = format!("corenvr crash: SIGSEGV number {i}\ncorenvr crash: frames\n");
            fs::write(dir.join(format!("running-20260102T0000{i:02}Z-1.txt")), text).unwrap();
        }
        look_back(&dir).unwrap();
        assert_eq!(
            files(&dir, "running-").len(),
            1,
            "the one of a process that lives stays"
        );
        let crashes = list(state.path());
        assert_eq!(crashes.len(), KEPT);
        assert_eq!(crashes[0].summary, format!("SIGSEGV number {}", KEPT + 2));
        assert!(crashes[0].report.contains("frames"));
        drop(living);
        look_back(&dir).unwrap();
        assert!(files(&dir, "running-").is_empty());
    }
}
