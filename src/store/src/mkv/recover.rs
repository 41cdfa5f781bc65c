//! What a crash leaves behind: finds the whole clusters of a file and finishes it in place.
//!
//! Whole is what its checksum says is whole. A damaged stretch between whole clusters is bridged by the header of a Void
//! element, so that nothing that can still be played is lost; what follows the last whole cluster is cut off.

use std::{fs::OpenOptions, io, os::unix::fs::FileExt, path::Path};

use super::{
    ALIGN, CLUSTER_LEN_MAX,
    ebml::{padding, void_header},
    file::{self, FileError, ReadAt},
    header::Header,
    reader::{Cluster, ReadError, ReadErrorKind, Timebase, cluster_len, describe},
    writer::{Extent, Seal, SegmentWriter},
};
use crate::tables::{CLUSTERS_MAX, KEYS_MAX, Table};

/// Bytes read at once while searching behind a damaged place.
const SEARCH_LEN: usize = 1 << 20;

/// A stretch of a file that holds no whole cluster, between others that are whole. It was made a Void: the bytes are still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Where it starts.
    pub offset: u64,
    /// How long it is.
    pub len: u64,
    /// What was wrong there.
    pub error: ReadError,
}

/// What is in a file.
#[derive(Debug)]
pub struct Scan {
    /// Its header.
    pub header: Header,
    /// The whole clusters, with their padding counted in.
    pub table: Table,
    /// Behind the last whole cluster and its padding.
    pub end: u64,
    /// Damage between whole clusters.
    pub damage: Vec<Damage>,
    /// Why no cluster was found at `end`, unless the file ends there.
    pub stopped: Option<ReadError>,
    /// Behind `end` there is something other than zeros.
    pub trailing: bool,
    block: Vec<u8>,
    extent: Extent,
    /// Voids to be written: place and length.
    voids: Vec<(u64, u64)>,
}

/// What became of a file.
#[derive(Debug)]
pub enum Outcome {
    /// It is finished and durable under its old name.
    Sealed(Box<Recovered>),
    /// It holds no frame.
    Empty,
    /// It holds no whole cluster, and yet something.
    Torn,
}

/// A file that was finished.
#[derive(Debug)]
pub struct Recovered {
    /// Its header, as it was.
    pub header: Header,
    /// Its clusters and key frames.
    pub table: Table,
    /// Its size now.
    pub bytes: u64,
    /// The moment after its last frame.
    pub end: corenvr_media::WallTime,
    /// Damage that was bridged.
    pub damage: Vec<Damage>,
}

/// One whole cluster in `buf`, and what the table says of it; the length is with padding. Fails if it is not whole.
fn whole<R: ReadAt + ?Sized>(
    r: &R,
    at: u64,
    size: u64,
    time: &Timebase,
    buf: &mut Vec<u8>,
    extent: &mut Extent,
) -> Result<crate::ClusterInfo, FileError> {
    let mut head = [0; 12];
    let n = r.read_full_at(&mut head, at)?;
    let len = cluster_len(&head[..n], at)?;
    // Before memory is taken: the file must really be that long.
    if at + len > size {
        return Err(ReadError::new(size, ReadErrorKind::Truncated).into());
    }
    debug_assert!(len <= CLUSTER_LEN_MAX);
    buf.resize(len as usize, 0);
    let n = r.read_full_at(buf, at)?;
    let cluster = Cluster::new(&buf[..n], at)?;
    cluster.verify()?;
    let mut found = extent.clone();
    let mut info = describe(&cluster, time, &mut found)?;
    *extent = found;
    info.len = (len + padding(at + len, ALIGN)) as u32;
    Ok(info)
}

/// Whether the padding behind a cluster is what the writer put there.
fn padding_is_whole<R: ReadAt + ?Sized>(r: &R, at: u64, size: u64) -> io::Result<bool> {
    let pad = padding(at, ALIGN);
    if pad == 0 {
        return Ok(true);
    }
    let (head, n) = void_header(pad);
    let mut found = [0; 9];
    let k = r.read_full_at(&mut found[..n], at)?;
    Ok(k == n && found == head && at + pad <= size)
}

/// Walks a file's clusters from the header on. Reads all of it, one cluster at a time.
pub fn scan<R: ReadAt + ?Sized>(r: &R) -> Result<Scan, FileError> {
    scan_from(r, None)
}

/// Like [`scan`], but trusts `known` for the clusters before its last one, which were durable when it was written down.
///
/// Falls back to the whole walk when the file does not go on where the table ends.
pub fn scan_from<R: ReadAt + ?Sized>(r: &R, known: Option<Table>) -> Result<Scan, FileError> {
    let size = r.size()?;
    let (header, block) = file::read_header(r)?;
    let time = Timebase::new(header.segment.start, &header.segment.tracks);
    if let Some(mut table) = known
        && let Some(last) = table.clusters.pop()
        && last.offset >= header.first_cluster()
        && whole(r, last.offset, size, &time, &mut Vec::new(), &mut Extent::default()).is_ok()
    {
        table.keys.retain(|k| k.block < last.offset);
        return walk(r, size, header, block, table, last.offset);
    }
    let first = header.first_cluster();
    walk(r, size, header, block, Table::default(), first)
}

fn walk<R: ReadAt + ?Sized>(
    r: &R,
    size: u64,
    header: Header,
    block: Vec<u8>,
    table: Table,
    end: u64,
) -> Result<Scan, FileError> {
    let time = Timebase::new(header.segment.start, &header.segment.tracks);
    let mut s = Scan {
        end,
        header,
        table,
        damage: Vec::new(),
        stopped: None,
        trailing: false,
        block,
        extent: Extent::default(),
        voids: Vec::new(),
    };
    let mut buf = Vec::new();
    while s.end < size {
        match whole(r, s.end, size, &time, &mut buf, &mut s.extent) {
            Ok(info) => s.take(r, &info, buf.len() as u64, size)?,
            Err(FileError::Damaged(error)) => {
                let Some(next) = s.search(r, size, &time)? else {
                    s.stopped = Some(error);
                    break;
                };
                s.damage.push(Damage {
                    offset: s.end,
                    len: next - s.end,
                    error,
                });
                s.voids.push((s.end, next - s.end));
                s.end = next;
            }
            Err(e) => return Err(e),
        }
        if s.table.clusters.len() >= CLUSTERS_MAX || s.table.keys.len() > KEYS_MAX {
            // The writer never gets here; what does was made by another hand.
            return Err(ReadError::new(s.end, ReadErrorKind::Block).into());
        }
    }
    Ok(s)
}

impl Scan {
    fn take<R: ReadAt + ?Sized>(&mut self, r: &R, info: &crate::ClusterInfo, len: u64, size: u64) -> io::Result<()> {
        let pad_at = info.offset + len;
        if !padding_is_whole(r, pad_at, size)? {
            self.voids.push((pad_at, padding(pad_at, ALIGN)));
        }
        self.table.push(info);
        self.end = info.offset + u64::from(info.len);
        Ok(())
    }

    /// The next whole cluster behind the damage at `self.end`. Notes whether anything but zeros lies there.
    fn search<R: ReadAt + ?Sized>(&mut self, r: &R, size: u64, time: &Timebase) -> Result<Option<u64>, FileError> {
        let mut chunk = vec![0; SEARCH_LEN];
        let mut buf = Vec::new();
        let mut at = self.end;
        while at < size {
            let Some(data) = r.next_data(at)? else { break };
            at = data - data % ALIGN;
            let n = r.read_full_at(&mut chunk, at)?;
            if n == 0 {
                break;
            }
            for (i, page) in chunk[..n].chunks(ALIGN as usize).enumerate() {
                self.trailing |= page.iter().any(|&b| b != 0);
                let here = at + i as u64 * ALIGN;
                if here > self.end
                    && page.starts_with(&super::id::CLUSTER.to_be_bytes())
                    && whole(r, here, size, time, &mut buf, &mut Extent::default()).is_ok()
                {
                    self.trailing = false;
                    return Ok(Some(here));
                }
            }
            at += n as u64;
        }
        Ok(None)
    }

    /// The end that the file should have.
    fn seal(&self) -> Seal {
        SegmentWriter::resume(
            &self.header,
            self.block.clone(),
            &self.table,
            self.extent.clone(),
            self.end,
        )
        .seal()
    }

    /// The moment after the last frame.
    pub(crate) fn end_time(&self) -> corenvr_media::WallTime {
        self.extent.end_in(&self.header.segment)
    }
}

/// Finishes the file at `path` after a crash. What it does can be interrupted anywhere and be done again. `known` spares
/// reading what was written down as durable before, see [`scan_from`].
pub fn recover_file(path: &Path, known: Option<Table>) -> Result<Outcome, FileError> {
    let f = OpenOptions::new().read(true).write(true).open(path)?;
    if is_blank(&f)? {
        return Ok(Outcome::Empty);
    }
    let s = scan_from(&f, known)?;
    if s.table.clusters.is_empty() {
        return Ok(if s.trailing { Outcome::Torn } else { Outcome::Empty });
    }
    let seal = s.seal();
    f.set_len(s.end)?;
    for &(at, len) in &s.voids {
        let (head, n) = void_header(len);
        f.write_all_at(&head[..n], at)?;
    }
    file::finish(&f, &seal)?;
    Ok(Outcome::Sealed(Box::new(Recovered {
        header: s.header,
        table: s.table,
        bytes: seal.final_size,
        end: seal.end,
        damage: s.damage,
    })))
}

/// Whether a file has nothing but zeros where its header should be, and behind it.
fn is_blank<R: ReadAt + ?Sized>(r: &R) -> io::Result<bool> {
    let size = r.size()?;
    let mut chunk = vec![0; SEARCH_LEN];
    let mut at = 0;
    while at < size {
        let Some(data) = r.next_data(at)? else { break };
        at = data;
        let n = r.read_full_at(&mut chunk, at)?;
        if n == 0 {
            break;
        }
        if chunk[..n].iter().any(|&b| b != 0) {
            return Ok(false);
        }
        at += n as u64;
    }
    Ok(true)
}
