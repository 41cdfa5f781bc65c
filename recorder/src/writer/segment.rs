//! One open segment: its file and what goes into it. Every method that fails leaves a file that must not be written again.

use std::{io, rc::Rc, time::Instant};

use corenvr_media::{Frame, WallTime};
use corenvr_shard::{
    WorkerError,
    file::{AlignedBuffer, AppendFile},
    time::sleep,
};
use corenvr_store::{
    Archive, ArchiveError, SegmentHeader, SegmentKey, SegmentWriter, Sink, WriteError,
    archive::{OpenedSegment, Sealed},
};

use super::disk::Disk;

/// Disk space is reserved in steps of this, so that a file does not lie in a thousand pieces.
const RESERVE_STEP: u64 = 8 << 20;
/// Room in a buffer beside the payloads: block and cluster heads, padding.
const BUFFER_EXTRA: usize = 64 << 10;
/// How long to wait before asking a busy archive again.
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

/// Why a segment cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SegmentError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl SegmentError {
    /// The file system's error, where it is one.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io(e) | Self::Archive(ArchiveError::Io { source: e, .. }) => Some(e),
            _ => None,
        }
    }
}

struct BufferSink(AlignedBuffer);

impl Sink for BufferSink {
    fn extend(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    fn len(&self) -> usize {
        self.0.len()
    }
}

/// Asks the archive, as often as it is too busy to listen. Frames wait in their queue meanwhile, within its limits.
pub(crate) async fn ask<R: Send + 'static>(
    disk: &Disk,
    call: impl Fn(&mut Archive) -> R + Clone + Send + 'static,
) -> Result<R, WorkerError> {
    loop {
        match disk.storage.archive.call(call.clone()).await {
            Err(WorkerError::Busy { .. }) => sleep(BUSY_PAUSE).await,
            result => return result,
        }
    }
}

/// A segment that grows.
pub(crate) struct Segment {
    disk: Rc<Disk>,
    writer: SegmentWriter,
    file: AppendFile,
    key: SegmentKey,
    header_written: bool,
}

impl Segment {
    /// Creates the file and its index row.
    pub async fn open(disk: &Rc<Disk>, header: SegmentHeader) -> Result<Self, SegmentError> {
        let opened: OpenedSegment = ask(disk, move |a| a.open_segment(header.clone())).await??;
        let made = async {
            let writer = SegmentWriter::new(opened.header)?;
            let file = AppendFile::open(&opened.path).await?;
            Ok::<_, SegmentError>((writer, file))
        };
        match made.await {
            Ok((writer, file)) => {
                disk.file_opened();
                Ok(Self {
                    disk: disk.clone(),
                    writer,
                    file,
                    key: opened.key,
                    header_written: false,
                })
            }
            Err(e) => {
                abandon(disk, opened.key).await;
                Err(e)
            }
        }
    }

    /// What names it.
    pub fn key(&self) -> &SegmentKey {
        &self.key
    }

    /// Appends frames in one write, makes them durable, then tells the archive.
    pub async fn append(&mut self, frames: &[Frame]) -> Result<(), SegmentError> {
        let payload: usize = frames.iter().map(|f| f.data.len()).sum();
        let mut sink = BufferSink(AlignedBuffer::with_capacity(payload + payload / 64 + BUFFER_EXTRA));
        let mut at = self.writer.position();
        if !self.header_written {
            sink.extend(self.writer.header_block());
            at = 0;
        }
        let clusters = self.writer.flush(frames, &mut sink)?;
        let end = at + sink.len() as u64;
        if end > self.file.reserved() {
            self.file.reserve(end.next_multiple_of(RESERVE_STEP)).await;
        }
        let begun = Instant::now();
        let written = match self.file.write_at(sink.0, at).await {
            Ok(()) => self.disk.sync(&self.file).await,
            failed => failed,
        };
        self.disk.storage.load.note(begun.elapsed(), end - at, written.is_ok());
        written?;
        self.header_written = true;
        let key = self.key.clone();
        let noted = ask(&self.disk, move |a| {
            clusters.iter().try_for_each(|c| a.cluster_durable(&key, c))
        });
        noted.await??;
        Ok(())
    }

    /// Ends the file: tail, durable; header, durable; then the archive gives it its name.
    /// After an error the archive has kept what is whole. `goes_on_at`: where the next segment begins, where that is known.
    pub async fn seal(self, goes_on_at: Option<WallTime>) -> Result<(), SegmentError> {
        let Self {
            disk,
            mut writer,
            mut file,
            key,
            ..
        } = self;
        if let Some(t) = goes_on_at {
            writer.goes_on_at(t);
        }
        let finished = finish(&disk, writer, &mut file).await;
        disk.file_closed();
        let closed = file.close().await;
        let named = match (finished, closed) {
            (Ok(sealed), Ok(())) => {
                let key = key.clone();
                let answer = ask(&disk, move |a| a.seal_segment(&key, sealed).map(drop)).await;
                answer.map_err(SegmentError::from).and_then(|r| Ok(r?))
            }
            (Ok(_), Err(e)) => Err(e.into()),
            (Err(e), _) => Err(e),
        };
        if named.is_err() {
            abandon(&disk, key).await;
        }
        named
    }

    /// What its head says.
    pub fn header(&self) -> &SegmentHeader {
        self.writer.header()
    }

    /// Gives the file up for good; the archive keeps what is whole in it. Returns whether that may be anything.
    pub async fn give_up(self) -> bool {
        self.disk.file_closed();
        drop(self.file.close().await);
        abandon(&self.disk, self.key).await
    }
}

async fn finish(disk: &Rc<Disk>, writer: SegmentWriter, file: &mut AppendFile) -> Result<Sealed, SegmentError> {
    let seal = writer.seal();
    write(file, &seal.append, seal.append_at).await?;
    disk.sync(file).await?;
    write(file, &seal.header_block, 0).await?;
    file.truncate(seal.final_size).await?;
    disk.sync(file).await?;
    Ok(Sealed {
        bytes: seal.final_size,
        end: seal.end,
    })
}

async fn write(file: &mut AppendFile, bytes: &[u8], at: u64) -> io::Result<()> {
    let mut buffer = AlignedBuffer::with_capacity(bytes.len());
    buffer.extend_from_slice(bytes);
    file.write_at(buffer, at).await
}

/// Lets the archive recover what is whole in a segment that nobody writes any more. Returns whether that may be anything.
pub(crate) async fn abandon(disk: &Disk, key: SegmentKey) -> bool {
    let asked = key.clone();
    let error = match ask(disk, move |a| a.abandon_segment(&asked)).await {
        Ok(Ok(kept)) => return kept.is_some(),
        Ok(Err(e)) => e.to_string(),
        Err(e) => e.to_string(),
    };
    tracing::warn!(camera = %key.camera, %error, "a segment that was given up cannot be recovered now; the next start will");
    true
}
