//! Files: segments that grow by aligned direct writes, and reads of any range.

use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use bytes::Bytes;
use glommio::io::{DmaBuffer, DmaFile, OpenOptions};

use crate::blocking;

/// Direct writes start and end on multiples of this.
pub const ALIGN: usize = 4096;
fn other(path: &Path, e: glommio::GlommioError<()>) -> io::Error {
    let inner = io::Error::from(e);
    let kind = match inner.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code).kind(),
        None => inner.kind(),
    };
    io::Error::new(kind, format!("{}: {inner}", path.display()))
}

/// Memory a direct write can be made from. Grows as it is filled.
pub struct AlignedBuffer {
    memory: Option<DmaBuffer>,
    len: usize,
}

impl AlignedBuffer {
    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        let memory = glommio::allocate_dma_buffer(capacity.next_multiple_of(ALIGN).max(ALIGN));
        Self {
            memory: Some(memory),
            len: 0,
        }
    }

    fn memory(&mut self) -> &mut DmaBuffer {
        self.memory
            .as_mut()
            .expect("the memory leaves only when the buffer is consumed")
    }

    /// Appends bytes.
    pub fn extend_from_slice(&mut self, data: &[u8]) {
        let end = self.len + data.len();
        if end > self.memory().len() {
            let mut larger = Self::with_capacity(end.next_power_of_two());
            let len = self.len;
            larger.memory().as_bytes_mut()[..len].copy_from_slice(&self.as_slice()[..len]);
            larger.len = len;
            *self = larger;
        }
        let from = self.len;
        self.memory().as_bytes_mut()[from..end].copy_from_slice(data);
        self.len = end;
    }

    /// What was written so far.
    pub fn as_slice(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], |m| &m.as_bytes()[..self.len])
    }

    /// As [`Self::as_slice`], to patch lengths in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.memory().as_bytes_mut()[..len]
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A file that this process creates and grows. Every write is whole or an error.
pub struct AppendFile {
    file: Rc<DmaFile>,
    path: PathBuf,
    reserved: u64,
}

impl AppendFile {
    /// Creates a file; one that exists already is an error, never overwritten.
    pub async fn create(path: &Path) -> io::Result<Self> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o640)
            .dma_open(path)
            .await;
        let file = Rc::new(opened.map_err(|e| other(path, e))?);
        Ok(Self {
            file,
            path: path.to_owned(),
            reserved: 0,
        })
    }

    /// Opens a file that exists, to go on writing it.
    pub async fn open(path: &Path) -> io::Result<Self> {
        let opened = OpenOptions::new().read(true).write(true).dma_open(path).await;
        let file = Rc::new(opened.map_err(|e| other(path, e))?);
        Ok(Self {
            file,
            path: path.to_owned(),
            reserved: 0,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the buffer at `offset`; both its length and the offset are multiples of [`ALIGN`].
    pub async fn write_at(&mut self, mut buffer: AlignedBuffer, offset: u64) -> io::Result<()> {
        assert!(
            buffer.len.is_multiple_of(ALIGN) && offset.is_multiple_of(ALIGN as u64),
            "direct writes are aligned by the segment writer"
        );
        let len = buffer.len;
        let mut memory = buffer.memory.take().expect("the memory leaves only here");
        memory.trim_to_size(len);
        let written = self.file.write_at(memory, offset).await;
        match written.map_err(|e| other(&self.path, e))? {
            n if n == len => Ok(()),
            n => Err(io::Error::new(
                io::ErrorKind::WriteZero,
                format!("{}: only {n} of {len} bytes were written", self.path.display()),
            )),
        }
    }

    /// Reserves disk space up to `size` without changing the file's length. Best effort: some file systems cannot.
    pub async fn reserve(&mut self, size: u64) {
        if size > self.reserved && self.file.pre_allocate(size, true).await.is_ok() {
            self.reserved = size;
        }
    }

    /// How far space is reserved.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Makes what was written durable. After an error the file must not be written again: the kernel may have dropped the pages.
    pub async fn datasync(&self) -> io::Result<()> {
        self.file.fdatasync().await.map_err(|e| other(&self.path, e))
    }

    /// Cuts the file to `size` and frees what was reserved behind it.
    pub async fn truncate(&self, size: u64) -> io::Result<()> {
        self.file.truncate(size).await.map_err(|e| other(&self.path, e))
    }

    /// Closes the file and reports what the file system has to say about it.
    pub async fn close(self) -> io::Result<()> {
        match Rc::into_inner(self.file) {
            Some(file) => file.close().await.map_err(|e| other(&self.path, e)),
            None => Ok(()),
        }
    }
}

/// A file opened for reading.
pub struct ReadFile {
    file: Rc<DmaFile>,
    path: PathBuf,
}

impl ReadFile {
    /// Opens a file.
    pub async fn open(path: &Path) -> io::Result<Self> {
        let file = DmaFile::open(path).await.map_err(|e| other(path, e))?;
        Ok(Self {
            file: Rc::new(file),
            path: path.to_owned(),
        })
    }

    /// Reads up to `len` bytes from `offset`; fewer at the end of the file.
    pub async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        // Near the end of a file the library misreports the length of an unaligned read, so align here and cut by what came.
        let align = ALIGN as u64;
        let from = offset / align * align;
        let skip = (offset - from) as usize;
        let got = self
            .file
            .read_at_aligned(from, (skip + len).next_multiple_of(ALIGN))
            .await;
        let got = got.map_err(|e| other(&self.path, e))?;
        let end = got.len().min(skip + len);
        Ok(if skip < end {
            Bytes::copy_from_slice(&got[skip..end])
        } else {
            Bytes::new()
        })
    }

    /// The file's length now.
    pub async fn size(&self) -> io::Result<u64> {
        self.file.file_size().await.map_err(|e| other(&self.path, e))
    }

    /// Closes the file.
    pub async fn close(self) -> io::Result<()> {
        match Rc::into_inner(self.file) {
            Some(file) => file.close().await.map_err(|e| other(&self.path, e)),
            None => Ok(()),
        }
    }
}

async fn on_pool<T: Send + 'static>(
    path: &Path,
    call: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let owned = path.to_owned();
    let result = blocking(move || call(&owned)).await.map_err(io::Error::other)?;
    result.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

/// Creates a directory and its parents.
pub async fn create_dir_all(path: &Path) -> io::Result<()> {
    on_pool(path, |p| std::fs::create_dir_all(p)).await
}

/// Renames a file within its file system. The target must not exist.
pub async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let to = to.to_owned();
    on_pool(from, move |from| {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, &to, RenameFlags::NOREPLACE) {
            // File systems without the flag (some network ones): look first; the archive's lock keeps other writers out.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !to.exists() => std::fs::rename(from, &to),
            result => Ok(result?),
        }
    })
    .await
}

/// Removes a file.
pub async fn remove(path: &Path) -> io::Result<()> {
    on_pool(path, |p| std::fs::remove_file(p)).await
}

/// Makes a directory's entries durable.
pub async fn sync_dir(path: &Path) -> io::Result<()> {
    on_pool(path, |p| std::fs::File::open(p)?.sync_all()).await
}

/// Makes everything written to the file system of `path` durable: one flush for many files.
pub async fn sync_file_system(path: &Path) -> io::Result<()> {
    on_pool(path, |p| Ok(rustix::fs::syncfs(std::fs::File::open(p)?)?)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_control;

    #[test]
    fn appends_grow_a_file_that_reads_back_at_any_offset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.part");
        run_control(async {
            let file = AppendFile::create(&path).await.unwrap();
            assert!(
                AppendFile::create(&path)
                    .await
                    .is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists)
            );
            file.close().await.unwrap();
            let mut file = AppendFile::open(&path).await.unwrap();
            file.reserve(1 << 20).await;
            let data: Vec<u8> = (0..10 * ALIGN as u32).map(|i| (i / 3) as u8).collect();
            let mut offset = 0;
            for part in data.chunks(3 * ALIGN) {
                let mut buffer = AlignedBuffer::with_capacity(16);
                part.chunks(1000).for_each(|c| buffer.extend_from_slice(c));
                let len = buffer.len() as u64;
                file.write_at(buffer, offset).await.unwrap();
                offset += len;
            }
            file.datasync().await.unwrap();
            file.truncate(offset - 100).await.unwrap();
            file.close().await.unwrap();
            let sealed = dir.path().join("a.mkv");
            rename(&path, &sealed).await.unwrap();
            sync_dir(dir.path()).await.unwrap();
            let file = ReadFile::open(&sealed).await.unwrap();
            assert_eq!(file.size().await.unwrap(), offset - 100);
            for (at, len) in [
                (0, 1),
                (1, 5000),
                (4095, 2),
                (offset - 200, 100),
                (offset - 150, 500),
                (offset, 10),
            ] {
                let end = (at as usize + len).min(data.len() - 100);
                let expected = data.get(at as usize..end).unwrap_or(&[]);
                assert!(file.read_at(at, len).await.unwrap() == expected, "{at} {len}");
            }
            file.close().await.unwrap();
        })
        .unwrap();
    }

    #[test]
    fn rename_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "a").unwrap();
        std::fs::write(&b, "b").unwrap();
        run_control(async {
            let error = rename(&a, &b).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        })
        .unwrap();
        assert_eq!(std::fs::read(&b).unwrap(), b"b");
    }
}
