//! Exports as Matroska: the frames again through the segment writer, so that a clip is a recording like any other.

use corenvr_media::Frame;

use super::{ExportError, Format, LaidOut, Survey, pass::Footage};
use crate::{SegmentHeader, SegmentWriter, Sink, WriteError, archive::Progress};

/// Counts bytes instead of keeping them.
struct Counter(usize);

impl Sink for Counter {
    fn extend(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
    fn len(&self) -> usize {
        self.0
    }
}

/// The first pass.
pub fn lay_out(
    footage: &Footage,
    header: &SegmentHeader,
    survey: &mut Survey,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<LaidOut, ExportError> {
    footage.fits(Format::Mkv)?;
    let mut writer = SegmentWriter::new(header.clone())?;
    let mut head = writer.header_block().to_vec();
    let mut counter = Counter(0);
    footage.walk(None, progress, &mut |step| {
        survey.note(step, writer.position());
        if let Some(f) = step.frames.first() {
            let full = |e| match e {
                WriteError::Full => ExportError::TooLong {
                    limit: "a file's tables of clusters and key frames hold".to_owned(),
                    until: f.time,
                },
                e => e.into(),
            };
            writer.flush(step.frames, &mut counter).map_err(full)?;
        }
        Ok(true)
    })?;
    let seal = writer.seal();
    head[..seal.header_block.len()].copy_from_slice(&seal.header_block);
    Ok(LaidOut {
        head,
        body_end: seal.append_at,
        tail: seal.append,
        end: seal.end,
        left_out: Vec::new(),
    })
}

/// Makes the clusters of the body, from anywhere on.
pub struct Pieces {
    writer: SegmentWriter,
    buffer: Vec<u8>,
}

impl Pieces {
    /// Goes on at byte `at` of the file.
    pub fn new(header: &SegmentHeader, at: u64) -> Result<Self, ExportError> {
        let mut writer = SegmentWriter::new(header.clone())?;
        writer.enter(at);
        Ok(Self {
            writer,
            buffer: Vec::new(),
        })
    }

    /// The bytes made of these frames; at most as many as one cluster of the footage had, and padding.
    pub fn piece(&mut self, frames: &[Frame]) -> Result<&[u8], ExportError> {
        self.buffer.clear();
        self.writer.flush(frames, &mut self.buffer)?;
        Ok(&self.buffer)
    }
}
