//! The chunk stream (RTMP 1.0 section 5.3): messages out of interleaved chunks and into them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::rtp::depacketize::UNIT_BYTES_MAX;

/// The longest message, in bytes: an access unit and its tag header. One that claims more is an error; none is ever
/// allocated by its claim.
pub const MESSAGE_BYTES_MAX: usize = UNIT_BYTES_MAX + 1024;
/// Chunk streams in use. One more is an error.
pub const CHUNK_STREAMS_MAX: usize = 64;
/// Bytes of unfinished messages of all chunk streams together. More is an error.
pub const PARTIAL_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// The chunk size before anyone says another.
pub const CHUNK_SIZE_DEFAULT: usize = 128;
/// A larger chunk size means the same as this: no message is longer (section 5.4.1).
const CHUNK_SIZE_MAX: u32 = 0xFF_FFFF;
/// The 24 bits that say that the time stamp stands in 32 bits of its own.
const EXTENDED: u32 = 0xFF_FFFF;

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub chunk_stream: u32,
    /// Message type id.
    pub kind: u8,
    /// Milliseconds, wrapping.
    pub timestamp: u32,
    /// Message stream id.
    pub stream_id: u32,
    pub payload: Bytes,
}

/// The sender breaks the chunk format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkError(pub &'static str);

/// Messages out of bytes.
#[derive(Debug)]
pub(super) struct ChunkReader {
    chunk_size: usize,
    streams: SmallVec<[ChunkStream; 8]>,
    /// The chunk in progress: index of its stream, bytes left.
    current: Option<(usize, usize)>,
    partial_bytes: usize,
    position: u64,
    /// Whether type 3 chunks inside a message repeat the extended time stamp, once that showed. Senders differ.
    repeats_extended: Option<bool>,
}

#[derive(Debug)]
struct ChunkStream {
    id: u32,
    header: Header,
    timestamp: u32,
    partial: BytesMut,
    /// A message is in progress: bytes missing.
    missing: Option<usize>,
}

/// The latest message header with all its fields, some from those before it.
#[derive(Debug, Clone, Copy, Default)]
struct Header {
    /// Time stamp or delta, as sent.
    time: u32,
    absolute: bool,
    extended: bool,
    len: usize,
    kind: u8,
    stream_id: u32,
}

/// A chunk header, read but not yet taken off the input.
struct ReadHeader {
    format: u8,
    id: u32,
    len: usize,
}

impl ChunkReader {
    pub fn new() -> Self {
        Self {
            chunk_size: CHUNK_SIZE_DEFAULT,
            streams: SmallVec::new(),
            current: None,
            partial_bytes: 0,
            position: 0,
            repeats_extended: None,
        }
    }

    /// Bytes taken so far.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The peer set its chunk size.
    pub fn set_chunk_size(&mut self, size: u32) -> Result<(), ChunkError> {
        match size.min(CHUNK_SIZE_MAX) as usize {
            0 => Err(ChunkError("a chunk size of 0")),
            size => {
                self.chunk_size = size;
                Ok(())
            }
        }
    }

    /// The peer gives up the message in progress on a chunk stream (section 5.4.2).
    pub fn abort(&mut self, chunk_stream: u32) {
        if let Some(stream) = self.streams.iter_mut().find(|s| s.id == chunk_stream) {
            self.partial_bytes -= stream.partial.len();
            stream.partial.clear();
            stream.missing = None;
        }
    }

    /// The next whole message. Bytes of an unfinished header stay in `input`.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<Message>, ChunkError> {
        loop {
            if self.current.is_none() && !self.begin_chunk(input)? {
                return Ok(None);
            }
            let Some((index, left)) = self.current else {
                return Ok(None);
            };
            if left > 0 && input.is_empty() {
                return Ok(None);
            }
            if let Some(message) = self.take_payload(index, left, input)? {
                return Ok(Some(message));
            }
        }
    }

    fn take_payload(&mut self, index: usize, left: usize, input: &mut BytesMut) -> Result<Option<Message>, ChunkError> {
        let stream = &mut self.streams[index];
        let missing = stream.missing.unwrap_or(0);
        // A message that is there in one piece is not copied.
        let whole = stream.partial.is_empty() && missing == left && input.len() >= left;
        let taken = left.min(input.len());
        self.position += taken as u64;
        let payload = if whole {
            input.split_to(taken).freeze()
        } else {
            self.partial_bytes += taken;
            if self.partial_bytes > PARTIAL_BYTES_MAX {
                return Err(ChunkError("too many unfinished messages"));
            }
            stream.partial.extend_from_slice(&input[..taken]);
            input.advance(taken);
            self.current = (taken < left).then_some((index, left - taken));
            if taken < missing {
                stream.missing = Some(missing - taken);
                return Ok(None);
            }
            self.partial_bytes -= stream.partial.len();
            stream.partial.split().freeze()
        };
        self.current = None;
        stream.missing = None;
        Ok(Some(Message {
            chunk_stream: stream.id,
            kind: stream.header.kind,
            timestamp: stream.timestamp,
            stream_id: stream.header.stream_id,
            payload,
        }))
    }

    /// Takes a chunk header off the input; false if it is not all there.
    fn begin_chunk(&mut self, input: &mut BytesMut) -> Result<bool, ChunkError> {
        let Some(mut read) = basic_header(input) else {
            return Ok(false);
        };
        let index = self.stream(&read)?;
        let stream = &self.streams[index];
        let Some((mut header, fixed_len)) = message_header(&input[read.len..], read.format, stream.header) else {
            return Ok(false);
        };
        read.len += fixed_len;
        if stream.missing.is_some() && read.format != 3 {
            return Err(ChunkError(
                "a new message before the one on its chunk stream is finished",
            ));
        }
        if header.len > MESSAGE_BYTES_MAX {
            return Err(ChunkError("a message longer than the limit"));
        }
        let (before, inside) = (stream.timestamp, stream.missing.is_some());
        let mut timestamp = match read.format {
            0 => header.time,
            _ => before.wrapping_add(header.time),
        };
        if header.extended {
            let Some(value) = input.get(read.len..).and_then(|rest| rest.first_chunk::<4>()) else {
                return Ok(false);
            };
            let value = u32::from_be_bytes(*value);
            let repeated = read.format == 3 && self.is_repeated(value, header, inside, before);
            if read.format != 3 || repeated {
                read.len += 4;
            }
            if read.format != 3 {
                header.time = value;
            }
            timestamp = match read.format {
                0 => value,
                // Behind a full header the time itself stands here again: as a delta it would be hours.
                3 if header.absolute && is_soon_after(value, before) && repeated => value,
                // Nothing stands here, and hours cannot be meant.
                3 if header.absolute && !repeated => before,
                _ => before.wrapping_add(header.time),
            };
        }
        let stream = &mut self.streams[index];
        if stream.missing.is_none() {
            stream.timestamp = timestamp;
        }
        let len = stream.missing.unwrap_or(header.len);
        stream.header = header;
        stream.missing = Some(len);
        self.current = Some((index, len.min(self.chunk_size)));
        self.position += read.len as u64;
        input.advance(read.len);
        Ok(true)
    }

    /// Whether the four bytes behind a type 3 header are the extended time stamp again and not yet payload. The specification
    /// says yes; older encoders leave it out.
    fn is_repeated(&mut self, value: u32, header: Header, inside: bool, timestamp: u32) -> bool {
        let same = value == header.time || value == timestamp;
        if inside {
            return *self.repeats_extended.get_or_insert(same);
        }
        self.repeats_extended
            .unwrap_or_else(|| same || is_soon_after(value, timestamp))
    }

    fn stream(&mut self, read: &ReadHeader) -> Result<usize, ChunkError> {
        if let Some(index) = self.streams.iter().position(|s| s.id == read.id) {
            return Ok(index);
        }
        // Old encoders begin their control messages with type 1.
        if read.format > 1 {
            return Err(ChunkError("a chunk stream that begins without a header"));
        }
        if self.streams.len() >= CHUNK_STREAMS_MAX {
            return Err(ChunkError("too many chunk streams"));
        }
        self.streams.push(ChunkStream {
            id: read.id,
            header: Header::default(),
            timestamp: 0,
            partial: BytesMut::new(),
            missing: None,
        });
        Ok(self.streams.len() - 1)
    }
}

/// Whether a time is at most an hour after another.
const fn is_soon_after(time: u32, before: u32) -> bool {
    time.wrapping_sub(before) < 3_600_000
}

/// Format and chunk stream id (section 5.3.1.1).
fn basic_header(input: &[u8]) -> Option<ReadHeader> {
    let &first = input.first()?;
    let (id, len) = match first & 0x3F {
        0 => (64 + u32::from(*input.get(1)?), 2),
        1 => (64 + u32::from(*input.get(1)?) + (u32::from(*input.get(2)?) << 8), 3),
        id => (u32::from(id), 1),
    };
    Some(ReadHeader {
        format: first >> 6,
        id,
        len,
    })
}

/// The message header (section 5.3.1.2) on top of the one before, and its length without the extended time stamp.
fn message_header(input: &[u8], format: u8, mut header: Header) -> Option<(Header, usize)> {
    let number = |at: usize| {
        let &[a, b, c] = input.get(at..)?.first_chunk::<3>()?;
        Some(u32::from_be_bytes([0, a, b, c]))
    };
    if format <= 2 {
        header.time = number(0)?;
        header.extended = header.time == EXTENDED;
        header.absolute = format == 0;
    }
    if format <= 1 {
        header.len = number(3)? as usize;
        header.kind = *input.get(6)?;
    }
    if format == 0 {
        header.stream_id = u32::from_le_bytes(*input.get(7..)?.first_chunk()?);
    }
    Some((header, [11, 7, 3, 0][usize::from(format & 3)]))
}

/// Bytes out of messages. Every message has a full header: those we send are few.
#[derive(Debug)]
pub(super) struct ChunkWriter {
    chunk_size: usize,
}

impl ChunkWriter {
    pub fn new() -> Self {
        Self {
            chunk_size: CHUNK_SIZE_DEFAULT,
        }
    }

    /// Messages from here on are cut into chunks of this size, which the peer was told; at least 1.
    pub fn set_chunk_size(&mut self, size: usize) {
        self.chunk_size = size.max(1);
    }

    /// Appends a message. `chunk_stream` is 2 to 63.
    pub fn write(&self, message: &Message, out: &mut BytesMut) {
        let extended = message.timestamp >= EXTENDED;
        let id = (message.chunk_stream & 0x3F) as u8;
        out.put_u8(id);
        out.put_uint(u64::from(message.timestamp.min(EXTENDED)), 3);
        out.put_uint(message.payload.len() as u64, 3);
        out.put_u8(message.kind);
        out.put_u32_le(message.stream_id);
        let mut pieces = message.payload.chunks(self.chunk_size);
        let mut piece = pieces.next();
        loop {
            if extended {
                out.put_u32(message.timestamp);
            }
            out.put_slice(piece.unwrap_or_default());
            piece = pieces.next();
            if piece.is_none() {
                return;
            }
            out.put_u8(0xC0 | id);
        }
    }
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
