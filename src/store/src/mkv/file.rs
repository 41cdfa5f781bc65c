//! Segment files through `std`: writing them on a plain thread, and reading them piecewise with bounds.
//!
//! The recorder writes its segments through its own runtime, from the same [`SegmentWriter`]; the order of operations here is
//! the one it follows.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use corenvr_media::Frame;

use super::{
    ALIGN, HEADER_LEN_MAX, TAIL_LEN_MAX,
    ebml::{Children, VOID},
    header::{self, Finished, Header, HeaderError},
    id,
    reader::{ReadError, ReadErrorKind},
    writer::{Seal, SegmentHeader, SegmentWriter, TABLE_MAGIC, WriteError},
};
use crate::tables::{ClusterInfo, Table};

/// A file could not be read as a segment.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not a recording of corenvr.
    #[error("not a recording of corenvr")]
    Foreign,
    /// It is damaged.
    #[error(transparent)]
    Damaged(#[from] ReadError),
}

impl From<HeaderError> for FileError {
    fn from(e: HeaderError) -> Self {
        match e {
            HeaderError::Foreign => Self::Foreign,
            HeaderError::Damaged(e) => Self::Damaged(e),
            HeaderError::Incomplete(n) => Self::Damaged(ReadError::new(n as u64, ReadErrorKind::Truncated)),
        }
    }
}

/// Bytes that can be read at any place: a file, or memory in tests.
pub trait ReadAt {
    /// How many bytes there are.
    fn size(&self) -> io::Result<u64>;
    /// Reads at `at` until `buf` is full or the end is reached; returns how many bytes that were.
    fn read_full_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;
    /// The next place at or behind `at` that may hold something other than zeros; `None` if there is none.
    fn next_data(&self, at: u64) -> io::Result<Option<u64>> {
        Ok(Some(at))
    }
}

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_full_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let mut n = 0;
        while n < buf.len() {
            match self.read_at(&mut buf[n..], at + n as u64) {
                Ok(0) => break,
                Ok(k) => n += k,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(n)
    }

    fn next_data(&self, at: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(self, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => Ok(Some(data.max(at))),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // A file system that does not know holes.
            Err(_) => Ok(Some(at)),
        }
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_full_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or(&[]);
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}

/// Reads exactly `len` bytes at `at`, which the caller has bounded. Fewer are [`ReadErrorKind::Truncated`].
pub(crate) fn read_exact<R: ReadAt + ?Sized>(r: &R, at: u64, len: usize) -> Result<Vec<u8>, FileError> {
    let mut b = vec![0; len];
    let n = r.read_full_at(&mut b, at)?;
    if n < len {
        return Err(ReadError::new(at + n as u64, ReadErrorKind::Truncated).into());
    }
    Ok(b)
}

/// Reads the header of a segment. Returns it with its bytes.
pub fn read_header<R: ReadAt + ?Sized>(r: &R) -> Result<(Header, Vec<u8>), FileError> {
    let mut want = ALIGN as usize;
    loop {
        let mut block = vec![0; want];
        let n = r.read_full_at(&mut block, 0)?;
        block.truncate(n);
        match header::parse(&block) {
            Ok(h) => {
                block.truncate(h.first_cluster() as usize);
                return Ok((h, block));
            }
            // Grows by at least a block each time and ends at HEADER_LEN_MAX, or where the file does.
            Err(HeaderError::Incomplete(need)) if need > want && need <= HEADER_LEN_MAX && n == want => want = need,
            Err(e) => return Err(e.into()),
        }
    }
}

/// The tail of a sealed segment: its cue points (ms, absolute position of the cluster) and its packed table.
pub(crate) struct Tail {
    pub cues: Vec<(u64, u64)>,
    pub table: Option<Table>,
}

/// Reads what sealing appended.
pub(crate) fn read_tail<R: ReadAt + ?Sized>(r: &R, header: &Header, f: &Finished) -> Result<Tail, FileError> {
    let len = f.bytes.saturating_sub(f.cues_at);
    if f.bytes > r.size()? || len > TAIL_LEN_MAX {
        return Err(ReadError::new(f.cues_at, ReadErrorKind::Truncated).into());
    }
    let bytes = read_exact(r, f.cues_at, len as usize)?;
    let mut tail = Tail {
        cues: Vec::new(),
        table: None,
    };
    let mut cues_seen = false;
    for c in Children::new(&bytes, f.cues_at) {
        let c = c?;
        match c.id {
            id::CUES => {
                cues_seen = true;
                for point in c.children() {
                    let point = point?;
                    if point.id == id::CUE_POINT {
                        tail.cues.push(cue_point(&point, header)?);
                    }
                }
            }
            VOID if tail.table.is_none() => tail.table = table_of(c.data),
            VOID => {}
            other => return Err(ReadError::new(c.at, ReadErrorKind::Unexpected(other)).into()),
        }
    }
    if !cues_seen {
        return Err(ReadError::new(f.cues_at, ReadErrorKind::Truncated).into());
    }
    Ok(tail)
}

fn cue_point(point: &super::ebml::Child<'_>, header: &Header) -> Result<(u64, u64), ReadError> {
    let (mut ms, mut at) = (0, 0);
    for c in point.children() {
        let c = c?;
        match c.id {
            id::CUE_TIME => ms = c.uint()?,
            id::CUE_TRACK_POSITIONS => {
                for p in c.children() {
                    let p = p?;
                    match p.id {
                        id::CUE_TRACK if p.uint()? != 1 => {
                            return Err(ReadError::new(p.at, ReadErrorKind::BadValue(p.id)));
                        }
                        id::CUE_CLUSTER_POSITION => at = p.uint()?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok((ms, header.layout.data_at.saturating_add(at)))
}

fn table_of(void: &[u8]) -> Option<Table> {
    let rest = void.strip_prefix(TABLE_MAGIC)?;
    let (crc, packed) = rest.split_first_chunk::<4>()?;
    if crc32fast::hash(packed) != u32::from_le_bytes(*crc) {
        return None;
    }
    Table::unpack(packed).ok()
}

/// Makes a file end as `seal` says: tail, fdatasync, first block, size, fdatasync. In this order a crash leaves a file that
/// plays, with or without its Cues.
pub fn finish(file: &File, seal: &Seal) -> io::Result<()> {
    file.write_all_at(&seal.append, seal.append_at)?;
    file.sync_data()?;
    file.write_all_at(&seal.header_block, 0)?;
    file.set_len(seal.final_size)?;
    file.sync_all()
}

/// Writing failed.
#[derive(Debug, thiserror::Error)]
pub enum SegmentFileError {
    /// The file system said no. After a failed fdatasync the file is closed for good.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The frames cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A segment that is written through `std`.
#[derive(Debug)]
pub struct SegmentFile {
    file: File,
    writer: SegmentWriter,
    buffer: Vec<u8>,
}

impl SegmentFile {
    /// Starts writing into a file that is empty, such as [`crate::archive::OpenedSegment::path`].
    pub fn start(path: &Path, header: SegmentHeader) -> Result<Self, SegmentFileError> {
        let file = OpenOptions::new().write(true).open(path)?;
        Self::with(file, header)
    }

    /// Creates a file; one that exists is an error.
    pub fn create(path: &Path, header: SegmentHeader) -> Result<Self, SegmentFileError> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
        Self::with(file, header)
    }

    fn with(file: File, header: SegmentHeader) -> Result<Self, SegmentFileError> {
        let writer = SegmentWriter::new(header)?;
        file.write_all_at(writer.header_block(), 0)?;
        Ok(Self {
            file,
            writer,
            buffer: Vec::new(),
        })
    }

    /// Appends one flush and makes it durable.
    pub fn append(&mut self, frames: &[Frame]) -> Result<Vec<ClusterInfo>, SegmentFileError> {
        let at = self.writer.position();
        self.buffer.clear();
        let clusters = self.writer.flush(frames, &mut self.buffer)?;
        self.file.write_all_at(&self.buffer, at)?;
        self.file.sync_data()?;
        Ok(clusters)
    }

    /// Finishes the file and makes it durable. Returns its size and the moment after its last frame.
    pub fn seal(self) -> Result<crate::archive::Sealed, SegmentFileError> {
        let seal = self.writer.seal();
        finish(&self.file, &seal)?;
        Ok(crate::archive::Sealed {
            bytes: seal.final_size,
            end: seal.end,
        })
    }
}
