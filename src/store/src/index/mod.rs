//! The sled index of one storage directory: rows, cluster tables, codec headers, gap notes.
//!
//! sled panics on some damaged files, so every call is fenced by `catch_unwind`, and the first failure makes the whole index
//! unusable: its owner wipes it and fills it again from the files. Nothing in here decides anything about a recording.

mod rows;

use std::{
    fs, io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use corenvr_media::{CameraName, WallTime};
use sled::Tree;

pub use rows::{Digest, Row, RowState, digest};
use rows::{key, parse_key, with_crc, without_crc};

use crate::{GapCause, SegmentKey, Table};

/// Memory that sled may use for its page cache.
const CACHE_BYTES: u64 = 64 << 20;
/// How often sled writes what is new to disk. What is lost with the machine is found again in the files.
const FLUSH_MS: u64 = 1000;
const FORMAT: &[u8] = b"corenvr-index-1";

/// The index cannot be used any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IndexError(pub String);

type Result<T> = std::result::Result<T, IndexError>;

/// An open index.
pub struct Index {
    dir: PathBuf,
    db: Option<Db>,
}

struct Db {
    sled: sled::Db,
    segments: Tree,
    tables: Tree,
    codecs: Tree,
    gaps: Tree,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Index({})", self.dir.display())
    }
}

/// Runs what calls sled. A panic is an error like any other.
fn fence<T>(f: impl FnOnce() -> sled::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(v)) => Ok(v),
        Ok(Err(e)) => Err(IndexError(e.to_string())),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("panic");
            Err(IndexError(format!("sled panicked: {text}")))
        }
    }
}

fn damaged(what: &str) -> IndexError {
    IndexError(format!("a damaged {what}"))
}

impl Index {
    /// Opens the index in `dir`, which is made if it is not there, and reads all rows once: damage shows here rather than later.
    pub fn open(dir: &Path) -> Result<Self> {
        let db = fence(|| {
            let db = sled::Config::new()
                .path(dir)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(Some(FLUSH_MS))
                .open()?;
            Ok(Db {
                segments: db.open_tree("segments")?,
                tables: db.open_tree("tables")?,
                codecs: db.open_tree("codecs")?,
                gaps: db.open_tree("gaps")?,
                sled: db,
            })
        })?;
        let index = Self {
            dir: dir.to_owned(),
            db: Some(db),
        };
        index.check_format()?;
        let mut from = None;
        loop {
            let rows = index.rows_after(from.as_deref(), 4096)?;
            match rows.last() {
                Some((k, _)) => from = Some(key(&k.camera, k.start)),
                None => break,
            }
        }
        Ok(index)
    }

    fn check_format(&self) -> Result<()> {
        let found = self.with(|d| {
            let found = d.sled.get("format")?;
            if found.is_none() && d.segments.is_empty() {
                d.sled.insert("format", FORMAT)?;
                return Ok(true);
            }
            Ok(found.is_some_and(|f| f == FORMAT))
        })?;
        if found { Ok(()) } else { Err(damaged("format mark")) }
    }

    /// Removes everything and begins anew.
    pub fn wipe(&mut self) -> Result<()> {
        self.close();
        *self = Self::fresh(&self.dir)?;
        Ok(())
    }

    /// Sets aside and removes what is in `dir`, and opens an empty index there.
    pub fn fresh(dir: &Path) -> Result<Self> {
        let io = |e: io::Error| IndexError(format!("{}: {e}", dir.display()));
        // Renamed first: a sled that panicked may still hold its old files open and locked.
        for i in 0..1000 {
            let aside = dir.with_extension(format!("damaged-{i}"));
            if aside.exists() {
                fs::remove_dir_all(&aside).ok();
                continue;
            }
            match fs::rename(dir, &aside) {
                Ok(()) => fs::remove_dir_all(&aside).map_err(io)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(io(e)),
            }
            break;
        }
        Self::open(dir)
    }

    fn close(&mut self) {
        if let Some(db) = self.db.take() {
            // Dropping flushes, which can fail like any other call.
            if fence(|| {
                drop(db);
                Ok(())
            })
            .is_err()
            {
                tracing::warn!(index = %self.dir.display(), "the index did not close properly");
            }
        }
    }

    fn with<T>(&self, f: impl FnOnce(&Db) -> sled::Result<T>) -> Result<T> {
        let db = self
            .db
            .as_ref()
            .ok_or_else(|| IndexError("the index is closed".to_owned()))?;
        fence(|| f(db))
    }

    /// Hands what is new to the disk.
    pub fn flush(&self) -> Result<()> {
        self.with(|d| d.sled.flush().map(drop))
    }

    pub fn put_row(&self, k: &SegmentKey, row: &Row) -> Result<()> {
        self.with(|d| {
            d.segments
                .insert(key(&k.camera, k.start), row.encode(k.start))
                .map(drop)
        })
    }

    pub fn row(&self, k: &SegmentKey) -> Result<Option<Row>> {
        let value = self.with(|d| d.segments.get(key(&k.camera, k.start)))?;
        value
            .map(|v| Row::decode(&v, k.start).ok_or_else(|| damaged("row")))
            .transpose()
    }

    /// Removes the row and the table of a segment.
    pub fn remove(&self, k: &SegmentKey) -> Result<()> {
        let k = key(&k.camera, k.start);
        self.with(|d| {
            d.segments.remove(&k)?;
            d.tables.remove(&k).map(drop)
        })
    }

    /// Number of rows.
    pub fn len(&self) -> Result<u64> {
        self.with(|d| Ok(d.segments.len() as u64))
    }

    fn rows_after(&self, after: Option<&[u8]>, limit: usize) -> Result<Vec<(SegmentKey, Row)>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let list = self.with(|d| {
            d.segments
                .range::<&[u8], _>((from, Bound::Unbounded))
                .take(limit)
                .collect::<sled::Result<Vec<_>>>()
        })?;
        decode_rows(list)
    }

    /// Rows of a camera that start in `from..to`, in order, at most `limit`.
    pub fn rows(
        &self,
        camera: &CameraName,
        from: WallTime,
        to: WallTime,
        limit: usize,
    ) -> Result<Vec<(SegmentKey, Row)>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let (from, to) = (key(camera, from), key(camera, to));
        let list = self.with(|d| d.segments.range(from..to).take(limit).collect::<sled::Result<Vec<_>>>())?;
        decode_rows(list)
    }

    /// The last rows of a camera that start before `t`, newest first, at most `limit`.
    pub fn rows_before(&self, camera: &CameraName, t: WallTime, limit: usize) -> Result<Vec<(SegmentKey, Row)>> {
        let (from, to) = (key(camera, WallTime::MIN), key(camera, t));
        if from >= to {
            return Ok(Vec::new());
        }
        let list = self.with(|d| {
            d.segments
                .range(from..to)
                .rev()
                .take(limit)
                .collect::<sled::Result<Vec<_>>>()
        })?;
        decode_rows(list)
    }

    /// Cameras that have rows.
    pub fn cameras(&self) -> Result<Vec<CameraName>> {
        let mut list = Vec::new();
        let mut from: Option<Vec<u8>> = None;
        while let Some((k, _)) = self.rows_after(from.as_deref(), 1)?.pop() {
            let mut last = key(&k.camera, WallTime::MIN);
            last.truncate(k.camera.as_str().len() + 1);
            last.extend_from_slice(&[0xFF; 8]);
            from = Some(last);
            list.push(k.camera);
        }
        Ok(list)
    }

    pub fn put_table(&self, k: &SegmentKey, table: &Table) -> Result<()> {
        self.with(|d| {
            d.tables
                .insert(key(&k.camera, k.start), with_crc(table.pack()))
                .map(drop)
        })
    }

    pub fn table(&self, k: &SegmentKey) -> Result<Option<Table>> {
        let value = self.with(|d| d.tables.get(key(&k.camera, k.start)))?;
        value
            .map(|v| {
                without_crc(&v)
                    .and_then(|v| Table::unpack(v).ok())
                    .ok_or_else(|| damaged("table"))
            })
            .transpose()
    }

    /// Keeps a header block, from which the parameters with this digest can be read.
    pub fn put_codec(&self, digest: &Digest, header_block: &[u8]) -> Result<()> {
        self.with(|d| {
            if d.codecs.contains_key(digest)? {
                return Ok(());
            }
            d.codecs.insert(digest, with_crc(header_block.to_vec())).map(drop)
        })
    }

    pub fn codec(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let value = self.with(|d| d.codecs.get(digest))?;
        value
            .map(|v| without_crc(&v).map(<[u8]>::to_vec).ok_or_else(|| damaged("codec")))
            .transpose()
    }

    pub fn put_gap(&self, camera: &CameraName, from: WallTime, cause: GapCause) -> Result<()> {
        let value = with_crc(vec![GapCause::code(Some(cause))]);
        self.with(|d| d.gaps.insert(key(camera, from), value).map(drop))
    }

    /// Gap notes of a camera in `from..to`, in order, at most `limit`.
    pub fn gaps(
        &self,
        camera: &CameraName,
        from: WallTime,
        to: WallTime,
        limit: usize,
    ) -> Result<Vec<(WallTime, GapCause)>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let (from, to) = (key(camera, from), key(camera, to));
        let list = self.with(|d| d.gaps.range(from..to).take(limit).collect::<sled::Result<Vec<_>>>())?;
        list.into_iter()
            .map(|(k, v)| {
                let start = parse_key(&k).ok_or_else(|| damaged("gap"))?.start;
                let cause = without_crc(&v).and_then(|v| GapCause::from_code(*v.first()?));
                Ok((start, cause.ok_or_else(|| damaged("gap"))?))
            })
            .collect()
    }

    /// Forgets gap notes of a camera before `t`, at most `limit` at a time.
    pub fn remove_gaps_before(&self, camera: &CameraName, t: WallTime, limit: usize) -> Result<()> {
        let (from, to) = (key(camera, WallTime::MIN), key(camera, t));
        if from >= to {
            return Ok(());
        }
        self.with(|d| {
            for note in d.gaps.range(from..to).take(limit) {
                d.gaps.remove(note?.0)?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
impl Index {
    /// Puts bytes that are no row where one should be.
    pub fn spoil(&self, k: &SegmentKey) {
        self.with(|d| d.segments.insert(key(&k.camera, k.start), b"spoiled"))
            .unwrap();
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.close();
    }
}

fn decode_rows(list: Vec<(sled::IVec, sled::IVec)>) -> Result<Vec<(SegmentKey, Row)>> {
    list.into_iter()
        .map(|(k, v)| {
            let k = parse_key(&k).ok_or_else(|| damaged("key"))?;
            let row = Row::decode(&v, k.start).ok_or_else(|| damaged("row"))?;
            Ok((k, row))
        })
        .collect()
}
