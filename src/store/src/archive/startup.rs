//! After a start: finishes open files, finishes deletions, and makes the index equal to the files.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    path::Path,
    time::Instant,
};

use corenvr_media::{CameraName, WallTime};

use super::{
    Archive, ArchiveError, Progress, Recovery, io_error,
    paths::{self, FileKind},
    query::table_of_file,
    remove_if_there,
};
use crate::{
    SegmentKey, Table, events,
    index::{Index, Row, RowState, digest},
    mkv::{
        file::{self, FileError},
        recover::{self, Outcome, Recovered},
    },
};

/// Rows of one day, by the file's path below the camera's directory.
type DayRows = HashMap<String, (SegmentKey, Row)>;

impl Archive {
    /// Finishes what an earlier run left open and makes the index equal to the files. Files that cannot be read are listed, left
    /// out and kept. To be called once after [`Self::open`], before anything is recorded.
    pub fn recover(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<Recovery, ArchiveError> {
        let began = Instant::now();
        let mut report = Recovery {
            index_rebuilt: self.wiped.take(),
            ..Recovery::default()
        };
        if let Some((path, reason)) = &self.protected_unreadable {
            report
                .unreadable
                .push((path.clone(), format!("{reason}; nothing is deleted")));
        }
        if let Err(e) = self.reconcile(&mut report, progress) {
            let ArchiveError::Index { reason, .. } = e else {
                return Err(e);
            };
            tracing::error!(root = %self.root.display(), error = reason, "the index failed: it is made anew from the files");
            self.index.wipe().map_err(|e| self.index_error(&e))?;
            report.index_rebuilt = Some(reason);
            self.reconcile(&mut report, progress)?;
        }
        self.flush_quietly();
        report.segments = self.usage.values().map(|u| u.segments).sum();
        report.took = began.elapsed();
        Ok(report)
    }

    /// Wipes the index and makes it anew from the files, as [`Self::recover`] does.
    pub fn rebuild(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<Recovery, ArchiveError> {
        self.index.wipe().map_err(|e| self.index_error(&e))?;
        self.wiped = Some("asked for".to_owned());
        self.recover(progress)
    }

    /// Wipes a failed index and fills it from the files, while recording goes on.
    pub(super) fn refill(&mut self) -> Result<(), ArchiveError> {
        self.index.wipe().map_err(|e| self.index_error(&e))?;
        self.reconcile(&mut Recovery::default(), &mut |_| {})
    }

    fn flush_quietly(&self) {
        if let Err(e) = self.index.flush() {
            tracing::warn!(root = %self.root.display(), error = %e, "the index was not flushed");
        }
    }

    fn reconcile(&mut self, report: &mut Recovery, progress: &mut dyn FnMut(Progress)) -> Result<(), ArchiveError> {
        self.usage.clear();
        let on_disk = paths::cameras(&self.root).map_err(io_error("list", &self.root))?;
        let in_index = self.try_index(Index::cameras)?;
        let cameras: BTreeSet<CameraName> = on_disk.into_iter().chain(in_index).collect();
        let mut state = Progress {
            files: 0,
            files_total: self.try_index(Index::len)?,
            bytes: 0,
        };
        for camera in &cameras {
            for day in self.days(camera, report)? {
                self.reconcile_day(camera, &day, report, &mut state)?;
                progress(state);
            }
        }
        self.reopen_rows()
    }

    /// Rows and usage of the segments that are being written now.
    fn reopen_rows(&mut self) -> Result<(), ArchiveError> {
        let open: Vec<_> = self
            .open
            .iter()
            .map(|(k, o)| {
                (
                    k.clone(),
                    Self::open_end(o),
                    o.table.end_offset(),
                    (o.header.gap_before, o.header.backfilled_until.is_some()),
                    o.digest,
                    o.name.clone(),
                )
            })
            .collect();
        for (key, end, bytes, (gap_before, backfilled), digest, name) in open {
            let row = Row {
                state: RowState::Open,
                gap_before,
                backfilled,
                end: key.start,
                bytes: 0,
                digest,
                name,
            };
            self.try_index(|i| i.put_row(&key, &row))?;
            self.count(&key, end.unwrap_or(key.start), bytes.unwrap_or(0));
        }
        Ok(())
    }

    /// Like [`Self::index`], without healing: for use while healing.
    fn try_index<T>(&self, f: impl FnOnce(&Index) -> Result<T, crate::index::IndexError>) -> Result<T, ArchiveError> {
        f(&self.index).map_err(|e| self.index_error(&e))
    }

    /// The days that a camera has a directory or a row of.
    fn days(&self, camera: &CameraName, report: &mut Recovery) -> Result<BTreeSet<String>, ArchiveError> {
        let dir = self.camera_dir(camera);
        let listed = paths::list(&dir).map_or_else(
            |e| {
                report.unreadable.push((dir, e.to_string()));
                Vec::new()
            },
            |l| l.dirs,
        );
        let mut days: BTreeSet<String> = listed.into_iter().filter(|d| paths::parse_day(d).is_some()).collect();
        let mut t = WallTime::MIN;
        while let Some((k, _)) = self.try_index(|i| i.rows(camera, t, WallTime::MAX, 1))?.pop() {
            let day = paths::day_of(k.start);
            t = match paths::parse_day(&day) {
                Some((_, end)) => end,
                None => break,
            };
            days.insert(day);
        }
        Ok(days)
    }

    fn reconcile_day(
        &mut self,
        camera: &CameraName,
        day: &str,
        report: &mut Recovery,
        state: &mut Progress,
    ) -> Result<(), ArchiveError> {
        let Some((from, to)) = paths::parse_day(day) else {
            return Ok(());
        };
        let dir = self.camera_dir(camera).join(day);
        let listing = match paths::list(&dir) {
            Ok(l) => l,
            Err(e) => {
                // Perhaps only for now: what the rows say stays.
                report.unreadable.push((dir, e.to_string()));
                return Ok(());
            }
        };
        let rows = self.try_index(|i| i.rows(camera, from, to, usize::MAX))?;
        let mut rows: DayRows = rows.into_iter().map(|(k, r)| (r.name.clone(), (k, r))).collect();
        for file in &listing.files {
            let Some((stem, kind)) = paths::parse_name(file) else {
                if file == events::FILE {
                    self.found_events(camera, from);
                }
                continue;
            };
            let (path, name) = (dir.join(file), format!("{day}/{file}"));
            match kind {
                FileKind::Torn => continue,
                FileKind::Part | FileKind::New => {
                    let row = rows.remove(&name);
                    one_file(&path, self.reconcile_part(camera, &path, stem, row, report), report)?;
                }
                FileKind::Sealed => {
                    let row = rows.remove(&name);
                    one_file(&path, self.reconcile_sealed(camera, &path, name, row, report), report)?;
                }
            }
            state.files += 1;
            state.files_total = state.files_total.max(state.files);
        }
        for (name, (key, row)) in rows {
            if self.open.contains_key(&key) {
                continue;
            }
            // The row of a part file that was recovered above has its sealed successor under the same key.
            if self.try_index(|i| i.row(&key))?.is_none_or(|now| now != row) {
                continue;
            }
            self.try_index(|i| i.remove(&key))?;
            if row.state == RowState::Tombstone {
                report.deletions_finished += 1;
            } else {
                report.missing.push(self.camera_dir(camera).join(name));
            }
        }
        Ok(())
    }

    fn reconcile_sealed(
        &mut self,
        camera: &CameraName,
        path: &Path,
        name: String,
        row: Option<(SegmentKey, Row)>,
        report: &mut Recovery,
    ) -> Result<(), ArchiveError> {
        match row {
            Some((key, row)) if row.state == RowState::Sealed => {
                self.count(&key, row.end, row.bytes);
                Ok(())
            }
            Some((key, row)) if row.state == RowState::Tombstone => {
                remove_if_there(path).map_err(io_error("delete", path))?;
                let dir = path.parent().unwrap_or(&self.root);
                paths::sync_dir(dir).map_err(io_error("sync", dir))?;
                self.try_index(|i| i.remove(&key))?;
                fs::remove_dir(dir).ok();
                report.deletions_finished += 1;
                Ok(())
            }
            // No row, or one from before the rename.
            _ => self.add_file(camera, path, name, report),
        }
    }

    /// A finished file without a row gets one, from what it says itself.
    fn add_file(
        &mut self,
        camera: &CameraName,
        path: &Path,
        name: String,
        report: &mut Recovery,
    ) -> Result<(), ArchiveError> {
        let (key, row, table, block) = match describe(camera, path, name) {
            Ok(d) => d,
            Err(reason) => {
                report.unreadable.push((path.to_owned(), reason));
                return Ok(());
            }
        };
        let other = self.try_index(|i| i.row(&key))?;
        if let Some(other) = other.filter(|o| o.state == RowState::Sealed && o.name != row.name) {
            let reason = format!("starts at the same microsecond as {}: a copy?", other.name);
            report.unreadable.push((path.to_owned(), reason));
            return Ok(());
        }
        self.try_index(|i| {
            i.put_codec(&row.digest, &block)?;
            i.put_table(&key, &table)?;
            i.put_row(&key, &row)
        })?;
        self.count(&key, row.end, row.bytes);
        report.added += 1;
        Ok(())
    }

    fn reconcile_part(
        &mut self,
        camera: &CameraName,
        path: &Path,
        stem: &str,
        row: Option<(SegmentKey, Row)>,
        report: &mut Recovery,
    ) -> Result<(), ArchiveError> {
        if self.open.values().any(|o| o.path == path) {
            return Ok(());
        }
        let (known, key) = match row {
            Some((key, _)) => (self.try_index(|i| i.table(&key))?, Some(key)),
            None => (None, None),
        };
        // Without a row the header says the start; until it is read, any key of the camera does.
        let key = key.unwrap_or(SegmentKey {
            camera: camera.clone(),
            start: WallTime::MIN,
        });
        self.recover_part(&key, path, stem, known, report)
    }

    /// Finishes one part file. What goes wrong with it is reported, not returned.
    pub(super) fn recover_part(
        &mut self,
        key: &SegmentKey,
        path: &Path,
        stem: &str,
        known: Option<Table>,
        report: &mut Recovery,
    ) -> Result<(), ArchiveError> {
        let dir = path.parent().unwrap_or(&self.root).to_owned();
        match recover::recover_file(path, known) {
            Ok(Outcome::Sealed(r)) if r.header.segment.camera != key.camera => {
                let reason = format!("a recording of camera {}", r.header.segment.camera);
                report.unreadable.push((path.to_owned(), reason));
            }
            Ok(Outcome::Sealed(r)) => return self.take_recovered(path, stem, *r, report),
            Ok(Outcome::Empty) => {
                remove_if_there(path)
                    .and_then(|()| paths::sync_dir(&dir))
                    .map_err(io_error("remove", path))?;
                fs::remove_dir(&dir).ok();
                self.try_index(|i| i.remove(key))?;
                report.removed.push(path.to_owned());
            }
            Ok(Outcome::Torn) => {
                let aside = dir.join(paths::name_of(stem, FileKind::Torn));
                paths::rename_new(path, &aside).map_err(io_error("rename", path))?;
                self.try_index(|i| i.remove(key))?;
                report.set_aside.push(aside);
            }
            Err(e) => report.unreadable.push((path.to_owned(), e.to_string())),
        }
        Ok(())
    }

    fn take_recovered(
        &mut self,
        path: &Path,
        stem: &str,
        r: Recovered,
        report: &mut Recovery,
    ) -> Result<(), ArchiveError> {
        let key = SegmentKey {
            camera: r.header.segment.camera.clone(),
            start: r.header.segment.start,
        };
        let (path, name) = self.rename_sealed(&key, path, stem)?;
        let row = Row {
            state: RowState::Sealed,
            gap_before: r.header.segment.gap_before,
            backfilled: r.header.segment.backfilled_until.is_some(),
            end: r.end,
            bytes: r.bytes,
            digest: digest(&r.header.segment.tracks),
            name,
        };
        self.try_index(|i| {
            i.put_table(&key, &r.table)?;
            i.put_row(&key, &row)
        })?;
        self.count(&key, row.end, row.bytes);
        report.recovered.push((path, r.damage));
        Ok(())
    }
}

/// What goes wrong with one file is reported and keeps no other from being found; a failing index is passed on.
fn one_file(path: &Path, result: Result<(), ArchiveError>, report: &mut Recovery) -> Result<(), ArchiveError> {
    match result {
        Err(e @ ArchiveError::Index { .. }) => Err(e),
        Err(e) => {
            report.unreadable.push((path.to_owned(), e.to_string()));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Key, row, table and header block of a finished file, or why it cannot be listed.
pub(crate) fn describe(
    camera: &CameraName,
    path: &Path,
    name: String,
) -> Result<(SegmentKey, Row, Table, Vec<u8>), String> {
    let text = |e: FileError| e.to_string();
    let f = File::open(path).map_err(|e| e.to_string())?;
    let bytes = f.metadata().map_err(|e| e.to_string())?.len();
    let (h, block) = file::read_header(&f).map_err(text)?;
    if h.segment.camera != *camera {
        return Err(format!("a recording of camera {}", h.segment.camera));
    }
    let (end, table) = match &h.finished {
        Some(finished) if finished.bytes <= bytes => (finished.end, table_of_file(path).map_err(text)?),
        // Its end is missing: what is whole of it is shown all the same.
        _ => {
            let s = recover::scan(&f).map_err(text)?;
            (s.end_time(), s.table)
        }
    };
    if table.clusters.is_empty() {
        return Err("no whole cluster".to_owned());
    }
    let key = SegmentKey {
        camera: camera.clone(),
        start: h.segment.start,
    };
    let row = Row {
        state: RowState::Sealed,
        gap_before: h.segment.gap_before,
        backfilled: h.segment.backfilled_until.is_some(),
        end,
        bytes,
        digest: digest(&h.segment.tracks),
        name,
    };
    Ok((key, row, table, block))
}
