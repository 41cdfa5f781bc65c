//! Names in a storage directory, and walking it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use corenvr_media::{CameraName, WallTime};

/// The directory inside a storage directory that is not a camera.
pub const PRIVATE: &str = ".corenvr";
/// How many segments of a camera may begin in one millisecond.
pub const SAME_NAME_MAX: u32 = 100;

/// What a file name in a day's directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// `10-00-00.000Z.mkv`.
    Sealed,
    /// `10-00-00.000Z.new`: created, but nothing in it is durable yet, so no player would open it.
    New,
    /// `10-00-00.000Z.part.mkv`.
    Part,
    /// `10-00-00.000Z.torn.mkv`: set aside by recovery.
    Torn,
}

const ENDINGS: [(&str, FileKind); 4] = [
    (".new", FileKind::New),
    (".part.mkv", FileKind::Part),
    (".torn.mkv", FileKind::Torn),
    (".mkv", FileKind::Sealed),
];

/// The day's directory of a segment that starts at `t`: `2026-11-20`.
pub fn day_of(t: WallTime) -> String {
    let (y, mo, d, ..) = t.civil();
    format!("{y:04}-{mo:02}-{d:02}")
}

/// The file name without its ending; `n` tells segments apart that start in the same millisecond.
pub fn stem_of(t: WallTime, n: u32) -> String {
    let (_, _, _, h, mi, s, us) = t.civil();
    let same = if n == 0 { String::new() } else { format!("-{n}") };
    format!("{h:02}-{mi:02}-{s:02}.{:03}Z{same}", us / 1000)
}

/// The file name with the ending of `kind`.
pub fn name_of(stem: &str, kind: FileKind) -> String {
    let ending = ENDINGS.iter().find(|(_, k)| *k == kind).map_or("", |(e, _)| e);
    format!("{stem}{ending}")
}

/// Splits a file name into stem and kind; `None` if it is not one of ours.
pub fn parse_name(name: &str) -> Option<(&str, FileKind)> {
    let (stem, kind) = ENDINGS.iter().find_map(|(e, k)| Some((name.strip_suffix(e)?, *k)))?;
    let (time, same) = stem.split_once('Z')?;
    let shape = time.len() == 12
        && time.bytes().enumerate().all(|(i, b)| match i {
            2 | 5 => b == b'-',
            8 => b == b'.',
            _ => b.is_ascii_digit(),
        });
    let same = same.is_empty()
        || same
            .strip_prefix('-')
            .is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n > 0));
    (shape && same).then_some((stem, kind))
}

/// From when to when the segments in a day's directory start; `None` if it is not the name of a day.
pub fn parse_day(name: &str) -> Option<(WallTime, WallTime)> {
    let start = WallTime::parse(&format!("{name}T00:00:00Z")).ok()?;
    (day_of(start) == name).then(|| (start, start.offset(86_400_000_000)))
}

/// What is in a directory, sorted by name: directories and files. Names that are not UTF-8 come out lossy and match nothing.
pub struct Listing {
    pub dirs: Vec<String>,
    pub files: Vec<String>,
}

/// Lists a directory; one that is not there is empty.
pub fn list(dir: &Path) -> io::Result<Listing> {
    let mut l = Listing {
        dirs: Vec::new(),
        files: Vec::new(),
    };
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(l),
        r => r?,
    };
    for e in entries {
        let e = e?;
        let name = e.file_name().to_string_lossy().into_owned();
        if e.file_type()?.is_dir() {
            l.dirs.push(name);
        } else {
            l.files.push(name);
        }
    }
    l.dirs.sort_unstable();
    l.files.sort_unstable();
    Ok(l)
}

/// The cameras that have a directory.
pub fn cameras(root: &Path) -> io::Result<Vec<CameraName>> {
    Ok(list(root)?
        .dirs
        .iter()
        .filter_map(|d| CameraName::new(d).ok())
        .collect())
}

/// Makes a directory's entries durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Makes `dir` below `root` where it is missing, each step durable.
pub fn make_dirs(root: &Path, parts: &[&str]) -> io::Result<PathBuf> {
    let mut dir = root.to_owned();
    for part in parts {
        let parent = dir.clone();
        dir.push(part);
        match fs::create_dir(&dir) {
            Ok(()) => sync_dir(&parent)?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Ok(dir)
}

/// Renames without ever replacing a file, and makes it durable. Both are in the same directory.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        // A file system without the flag (NFS): nobody else writes here, so looking first is as good.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            if to.try_exists()? {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)?;
        }
        Err(e) => return Err(e.into()),
    }
    to.parent().map_or(Ok(()), sync_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let t = WallTime::parse("2026-11-20T10:02:03.004999Z").unwrap();
        assert_eq!(day_of(t), "2026-11-20");
        assert_eq!(name_of(&stem_of(t, 0), FileKind::Sealed), "10-02-03.004Z.mkv");
        assert_eq!(name_of(&stem_of(t, 3), FileKind::Part), "10-02-03.004Z-3.part.mkv");
        for (_, kind) in ENDINGS {
            for n in [0, 1, 99] {
                let (stem, name) = (stem_of(t, n), name_of(&stem_of(t, n), kind));
                assert_eq!(parse_name(&name), Some((stem.as_str(), kind)));
            }
        }
        for bad in [
            "a.mkv",
            "10-02-03.004.mkv",
            "10-02-03.004Z.mp4",
            "10-02-03.004Z-0.mkv",
            "10-02-03.004Z-x.mkv",
            "10:02-03.004Z.mkv",
        ] {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
        assert_eq!(
            parse_day("2026-11-20").unwrap().0,
            WallTime::parse("2026-11-20T00:00:00Z").unwrap()
        );
        assert!(parse_day("2026-11-31").is_none() && parse_day("x").is_none() && parse_day("20261120").is_none());
    }

    #[test]
    fn renaming_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "new").unwrap();
        fs::write(&b, "old").unwrap();
        assert_eq!(rename_new(&a, &b).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&b).unwrap(), b"old");
    }
}
