//! `archive check` and `archive rebuild`: every file and every row of a storage directory, each finding named by its path.

use std::{
    collections::HashSet,
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use corenvr_media::{CameraName, WallTime};

use super::{
    Archive, ArchiveError, ArchiveOptions, OpenError, Progress, Recovery, index_dir, lock,
    paths::{self, FileKind, PRIVATE},
    startup::describe,
};
use crate::{
    SegmentKey, Table, events,
    index::{Index, Row, RowState},
    mkv::{
        ALIGN,
        ebml::{VOID, padding},
        file::{self, FileError, ReadAt},
        header::{Finished, Header},
        reader::{ReadError, ReadErrorKind, cluster_len},
        recover,
    },
};

/// Most findings that a report lists; more are only counted.
pub const FINDINGS_MAX: usize = 10_000;

/// What to check.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// The storage directory.
    pub root: PathBuf,
    /// Finish open files and correct the index. Files that are damaged are never changed.
    pub repair: bool,
    /// Read every byte and compare checksums; otherwise headers, structure and tables only.
    pub payload: bool,
}

/// What is wrong with one file, directory or row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Problem {
    #[error("not a file of the archive")]
    Stray,
    #[error("set aside by recovery: it holds no whole cluster")]
    Torn,
    #[error("left open by a crash")]
    LeftOpen,
    #[error("left open by a crash; it held no frame and was removed")]
    LeftEmpty,
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error("is not where a recording that starts at {0} belongs")]
    WrongPlace(WallTime),
    #[error("was never finished")]
    NotFinished,
    #[error("is {found} bytes long, and says that it has {expected}")]
    Size { expected: u64, found: u64 },
    #[error("{len} bytes are damaged: {error}")]
    Damaged { len: u64, error: ReadError },
    #[error("{len} bytes at byte {offset} were damaged by a crash and are skipped")]
    Bridged { offset: u64, len: u64 },
    #[error("its tail is damaged: {0}")]
    Tail(String),
    #[error("its Cues do not point at its clusters")]
    Cues,
    #[error("its times make no sense: {0}")]
    Times(&'static str),
    #[error("{0} lines are torn or damaged and are skipped")]
    EventLines(u64),
    #[error("is not in the index")]
    NoRow,
    #[error("the index says something else of it: {0}")]
    RowDiffers(&'static str),
    #[error("is in the index and does not exist")]
    RowWithoutFile,
    #[error("its deletion was not finished")]
    HalfDeleted,
    #[error("the index is damaged: {0}")]
    Index(String),
}

impl Problem {
    /// Whether this is only to be known, and nothing needs to be done about it.
    pub const fn is_notice(&self) -> bool {
        matches!(
            self,
            Self::Stray | Self::Torn | Self::Bridged { .. } | Self::EventLines(_)
        )
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file or directory.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: Problem,
    /// It is no longer so.
    pub repaired: bool,
}

/// The outcome of a check.
#[derive(Debug, Default)]
pub struct Report {
    /// Files looked at.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What was found, at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Findings beyond those listed.
    pub findings_more: u64,
    /// Why the index was not compared: a daemon runs, and has it.
    pub index_not_compared: Option<String>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Whether nothing is left that needs anyone's attention.
    pub fn is_clean(&self) -> bool {
        self.findings_more == 0 && self.findings.iter().all(|f| f.repaired || f.problem.is_notice())
    }

    fn add(&mut self, path: &Path, problem: Problem, repaired: bool) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding {
                path: path.to_owned(),
                problem,
                repaired,
            });
        } else {
            self.findings_more += 1;
        }
    }

    fn add_recovery(&mut self, r: Recovery, root: &Path) {
        for (path, damage) in r.recovered {
            self.add(&path, Problem::LeftOpen, true);
            for d in damage {
                let (offset, len) = (d.offset, d.len);
                self.add(&path, Problem::Bridged { offset, len }, true);
            }
        }
        for path in r.removed {
            self.add(&path, Problem::LeftEmpty, true);
        }
        for path in r.missing {
            self.add(&path, Problem::RowWithoutFile, true);
        }
        if let Some(reason) = r.index_rebuilt {
            self.add(&index_dir(root), Problem::Index(reason), true);
        }
    }
}

/// A check or rebuild could not be done.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The directory could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It could not be worked through.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// Makes the index anew from the files alone. Needs the daemon stopped.
pub fn rebuild(root: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Recovery, CheckError> {
    let mut archive = Archive::open(&ArchiveOptions {
        root: root.to_owned(),
        create: false,
        expect: None,
    })
    // Files without an identity: the private directory was lost, which is what this is for.
    .or_else(|e| match e {
        OpenError::NotAnArchive { .. } if paths::cameras(root).is_ok_and(|c| !c.is_empty()) => {
            Archive::open(&ArchiveOptions::new(root))
        }
        e => Err(e),
    })?;
    Ok(archive.rebuild(progress)?)
}

/// Checks a storage directory. While a daemon has it, only the files are checked, and nothing can be repaired.
pub fn check(options: &CheckOptions, progress: &mut dyn FnMut(Progress)) -> Result<Report, CheckError> {
    let began = Instant::now();
    let open = ArchiveOptions {
        root: options.root.clone(),
        create: false,
        expect: None,
    };
    let mut report = Report::default();
    if options.repair {
        let mut archive = Archive::open(&open)?;
        let recovery = archive.recover(progress)?;
        // Which files it found no row for is asked of the walk, which looks at each.
        report.add_recovery(recovery, &options.root);
        let mut walk = Walk::new(options, Some(&archive.index), report, progress);
        walk.root()?;
        report = walk.report;
        archive.flush()?;
    } else {
        let lock = match lock::take(&open) {
            Ok((lock, _)) => Some(lock),
            Err(e @ OpenError::InUse { .. }) => {
                report.index_not_compared = Some(e.to_string());
                None
            }
            Err(e) => return Err(e.into()),
        };
        let dir = index_dir(&options.root);
        let index = match (&lock, dir.is_dir()) {
            (None, _) => None,
            (Some(_), false) => {
                report.add(&dir, Problem::Index("there is none".to_owned()), false);
                None
            }
            (Some(_), true) => Index::open(&dir)
                .map_err(|e| report.add(&dir, Problem::Index(e.to_string()), false))
                .ok(),
        };
        let mut walk = Walk::new(options, index.as_ref(), report, progress);
        walk.daemon_runs = lock.is_none();
        walk.root()?;
        report = walk.report;
    }
    report.took = began.elapsed();
    Ok(report)
}

struct Walk<'a> {
    options: &'a CheckOptions,
    index: Option<&'a Index>,
    report: Report,
    progress: &'a mut dyn FnMut(Progress),
    daemon_runs: bool,
}

impl<'a> Walk<'a> {
    fn new(
        options: &'a CheckOptions,
        index: Option<&'a Index>,
        report: Report,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Self {
        Self {
            options,
            index,
            report,
            progress,
            daemon_runs: false,
        }
    }

    fn list(&mut self, dir: &Path) -> paths::Listing {
        paths::list(dir).unwrap_or_else(|e| {
            self.report.add(dir, Problem::Unreadable(e.to_string()), false);
            paths::Listing {
                dirs: Vec::new(),
                files: Vec::new(),
            }
        })
    }

    fn stray(&mut self, dir: &Path, names: impl IntoIterator<Item = String>) {
        for name in names {
            self.report.add(&dir.join(name), Problem::Stray, false);
        }
    }

    fn root(&mut self) -> Result<(), ArchiveError> {
        let root = self.options.root.clone();
        let listing = self.list(&root);
        self.stray(&root, listing.files);
        let mut cameras = Vec::new();
        for name in listing.dirs {
            match CameraName::new(&name) {
                Ok(c) => cameras.push(c),
                Err(_) if name == PRIVATE || name == "lost+found" => {}
                Err(_) => self.stray(&root, [name]),
            }
        }
        for camera in &cameras {
            self.camera(camera)?;
        }
        if let Some(index) = self.index {
            let all = index.cameras().map_err(|e| self.index_error(&e))?;
            for camera in all.iter().filter(|c| !cameras.contains(c)) {
                self.rows_without_file(camera, WallTime::MIN, WallTime::MAX, &HashSet::new())?;
            }
        }
        Ok(())
    }

    fn index_error(&self, e: &crate::index::IndexError) -> ArchiveError {
        ArchiveError::Index {
            path: index_dir(&self.options.root),
            reason: e.to_string(),
        }
    }

    fn camera(&mut self, camera: &CameraName) -> Result<(), ArchiveError> {
        let dir = self.options.root.join(camera.as_str());
        let listing = self.list(&dir);
        self.stray(&dir, listing.files);
        let mut done = WallTime::MIN;
        for day in listing.dirs {
            let Some((from, to)) = paths::parse_day(&day) else {
                self.stray(&dir, [day]);
                continue;
            };
            // Days sort like their names, so what lies between two directories is without one.
            self.rows_without_file(camera, done, from, &HashSet::new())?;
            self.day(camera, &dir.join(&day), &day, from, to)?;
            done = to;
        }
        self.rows_without_file(camera, done, WallTime::MAX, &HashSet::new())
    }

    fn day(
        &mut self,
        camera: &CameraName,
        dir: &Path,
        day: &str,
        from: WallTime,
        to: WallTime,
    ) -> Result<(), ArchiveError> {
        let listing = self.list(dir);
        self.stray(dir, listing.dirs);
        let mut seen = HashSet::new();
        for file in listing.files {
            let (path, name) = (dir.join(&file), format!("{day}/{file}"));
            match paths::parse_name(&file) {
                None if file == events::FILE => self.events(&path),
                None => self.stray(dir, [file]),
                Some((_, FileKind::Torn)) => self.report.add(&path, Problem::Torn, false),
                Some((_, FileKind::Part | FileKind::New)) => {
                    if !self.daemon_runs {
                        self.report.add(&path, Problem::LeftOpen, false);
                    }
                    seen.insert(name);
                }
                Some((stem, FileKind::Sealed)) => {
                    self.sealed(camera, &path, day, stem, &name)?;
                    seen.insert(name);
                }
            }
            (self.progress)(Progress {
                files: self.report.files,
                files_total: 0,
                bytes: self.report.bytes,
            });
        }
        self.rows_without_file(camera, from, to, &seen)
    }

    /// What a crash did to the last line of its time is not to be told from other damage; both are only to be known.
    fn events(&mut self, path: &Path) {
        self.report.files += 1;
        self.report.bytes += path.metadata().map_or(0, |m| m.len());
        match events::read(path) {
            Ok(found) if found.bad_lines == 0 => {}
            Ok(found) => self.report.add(path, Problem::EventLines(found.bad_lines), false),
            Err(e) => self.report.add(path, Problem::Unreadable(e.to_string()), false),
        }
    }

    fn rows_without_file(
        &mut self,
        camera: &CameraName,
        from: WallTime,
        to: WallTime,
        seen: &HashSet<String>,
    ) -> Result<(), ArchiveError> {
        let Some(index) = self.index else { return Ok(()) };
        let mut next = from;
        loop {
            let rows = index.rows(camera, next, to, 4096).map_err(|e| self.index_error(&e))?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            next = last.start.offset(1);
            for (key, row) in rows {
                if seen.contains(&row.name) {
                    continue;
                }
                if self.options.repair {
                    index.remove(&key).map_err(|e| self.index_error(&e))?;
                }
                let path = self.options.root.join(camera.as_str()).join(&row.name);
                self.report.add(&path, Problem::RowWithoutFile, self.options.repair);
            }
        }
    }

    fn sealed(
        &mut self,
        camera: &CameraName,
        path: &Path,
        day: &str,
        stem: &str,
        name: &str,
    ) -> Result<(), ArchiveError> {
        self.report.files += 1;
        let mut problems = Vec::new();
        match check_file(path, self.options.payload, &mut self.report.bytes, &mut problems) {
            Ok(start) if paths::day_of(start) == day && stem.starts_with(&paths::stem_of(start, 0)) => {}
            Ok(start) => problems.push(Problem::WrongPlace(start)),
            Err(e) => problems.push(Problem::Unreadable(e.to_string())),
        }
        for p in problems {
            self.report.add(path, p, false);
        }
        let Some(index) = self.index else { return Ok(()) };
        let (key, row, table, block) = match describe(camera, path, name.to_owned()) {
            Ok(d) => d,
            Err(reason) => {
                self.report.add(path, Problem::Unreadable(reason), false);
                return Ok(());
            }
        };
        let found = index.row(&key).map_err(|e| self.index_error(&e))?;
        let found_table = index.table(&key).map_err(|e| self.index_error(&e))?;
        let Some(problem) = compare(found.as_ref(), found_table.as_ref(), &row, &table) else {
            return Ok(());
        };
        let repaired = self.options.repair && !matches!(problem, Problem::HalfDeleted);
        if repaired {
            put(index, &key, &row, &table, &block).map_err(|e| self.index_error(&e))?;
        }
        self.report.add(path, problem, repaired);
        Ok(())
    }
}

fn put(
    index: &Index,
    key: &SegmentKey,
    row: &Row,
    table: &Table,
    block: &[u8],
) -> Result<(), crate::index::IndexError> {
    index.put_codec(&row.digest, block)?;
    index.put_table(key, table)?;
    index.put_row(key, row)
}

/// What the index has against what the file says. A table that is not in the index is read from the file when it is needed.
fn compare(found: Option<&Row>, found_table: Option<&Table>, row: &Row, table: &Table) -> Option<Problem> {
    let Some(found) = found else {
        return Some(Problem::NoRow);
    };
    let what = match found.state {
        RowState::Tombstone => return Some(Problem::HalfDeleted),
        RowState::Open => "that it is open",
        RowState::Sealed if found.name != row.name => "its name",
        RowState::Sealed if found.end != row.end => "its end",
        RowState::Sealed if found.bytes != row.bytes => "its size",
        RowState::Sealed if found.digest != row.digest => "its codec",
        RowState::Sealed if found.gap_before != row.gap_before => "the gap before it",
        RowState::Sealed if found.backfilled != row.backfilled => "where it is from",
        RowState::Sealed if found_table.is_some_and(|t| t != table) => "its clusters",
        RowState::Sealed => return None,
    };
    Some(Problem::RowDiffers(what))
}

/// Checks one finished file by itself. Returns its start.
fn check_file(path: &Path, payload: bool, bytes: &mut u64, problems: &mut Vec<Problem>) -> Result<WallTime, FileError> {
    let f = File::open(path)?;
    let (h, block) = file::read_header(&f)?;
    *bytes += block.len() as u64;
    let start = h.segment.start;
    let Some(finished) = &h.finished else {
        problems.push(Problem::NotFinished);
        return Ok(start);
    };
    let size = f.size()?;
    if size != finished.bytes {
        problems.push(Problem::Size {
            expected: finished.bytes,
            found: size,
        });
    }
    let tail = match file::read_tail(&f, &h, finished) {
        Ok(t) => t,
        Err(e) => {
            problems.push(Problem::Tail(e.to_string()));
            return Ok(start);
        }
    };
    let Some(table) = tail.table else {
        problems.push(Problem::Tail("no cluster table".to_owned()));
        return Ok(start);
    };
    if payload {
        *bytes += size;
        check_payload(&f, &table, finished, problems)?;
    } else {
        *bytes += 12 * table.clusters.len() as u64;
        check_structure(&f, &h, &table, finished, problems)?;
    }
    check_times(&table, finished, problems);
    let points_well = |&(ms, at): &(u64, u64)| {
        let cluster = table.clusters.iter().position(|c| c.offset == at);
        let time = |t: WallTime| t.micros_since(start).div_euclid(1000).max(0) as u64 == ms;
        cluster.is_some_and(|i| {
            let c = table.clusters[i];
            let end = c.offset + u64::from(c.len);
            let in_keys = table
                .keys
                .iter()
                .any(|k| k.block > c.offset && k.block < end && time(k.time));
            in_keys || table.keys.is_empty() && time(c.first)
        })
    };
    if tail.cues.is_empty() || !tail.cues.iter().all(points_well) {
        problems.push(Problem::Cues);
    }
    Ok(start)
}

/// Every byte, by its checksum.
fn check_payload(f: &File, table: &Table, finished: &Finished, problems: &mut Vec<Problem>) -> Result<(), FileError> {
    let s = recover::scan(f)?;
    for d in &s.damage {
        problems.push(match d.error.kind {
            ReadErrorKind::Unexpected(VOID) => Problem::Bridged {
                offset: d.offset,
                len: d.len,
            },
            _ => Problem::Damaged {
                len: d.len,
                error: d.error,
            },
        });
    }
    if s.end != finished.cues_at {
        let error = s.stopped.unwrap_or(ReadError::new(s.end, ReadErrorKind::Truncated));
        let len = finished.cues_at.saturating_sub(s.end);
        problems.push(Problem::Damaged { len, error });
    } else if s.damage.is_empty() && s.table != *table {
        problems.push(Problem::Tail("its table is not that of its clusters".to_owned()));
    }
    Ok(())
}

/// The clusters' own headers, where the table says that they are.
fn check_structure(
    f: &File,
    h: &Header,
    table: &Table,
    finished: &Finished,
    problems: &mut Vec<Problem>,
) -> Result<(), FileError> {
    let mut at = h.first_cluster();
    for c in &table.clusters {
        if c.offset > at {
            problems.push(Problem::Bridged {
                offset: at,
                len: c.offset - at,
            });
        }
        let mut head = [0; 12];
        let n = f.read_full_at(&mut head, c.offset)?;
        let error = match cluster_len(&head[..n], c.offset) {
            Ok(len) if len + padding(c.offset + len, ALIGN) == u64::from(c.len) => None,
            Ok(_) => Some(ReadError::new(c.offset, ReadErrorKind::Padding)),
            Err(e) => Some(e),
        };
        if let Some(error) = error {
            problems.push(Problem::Damaged {
                len: u64::from(c.len),
                error,
            });
        }
        at = c.offset + u64::from(c.len);
    }
    if at != finished.cues_at {
        problems.push(Problem::Tail("its clusters do not end where its Cues begin".to_owned()));
    }
    Ok(())
}

fn check_times(table: &Table, finished: &Finished, problems: &mut Vec<Problem>) {
    if !table.keys.is_sorted_by(|a, b| a.time <= b.time) {
        problems.push(Problem::Times("key frames run backward"));
    }
    if table.last().is_some_and(|t| t > finished.end) {
        problems.push(Problem::Times("frames later than its end"));
    }
}
