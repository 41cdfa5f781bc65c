//! What both ends of a connection do alike: handshake, chunk stream, protocol control messages (RTMP 1.0 section 5.4) and user control
//! messages (section 7.1.7). Commands and media go on to the server's or the client's machine.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    MediaMessage, MediaMessageKind,
    amf::{self, Value},
    chunk::{ChunkError, ChunkReader, ChunkWriter, Message},
    handshake::Handshake,
};

/// Bytes that may wait to be sent. At this limit no more input is read.
pub const TRANSMIT_BYTES_MAX: usize = 64 << 10;
/// The longest command, in bytes: those of real peers have a few hundred.
pub const COMMAND_BYTES_MAX: usize = 64 << 10;
/// The acknowledgement window that we ask for, in bytes.
const WINDOW: u32 = 2_500_000;
/// The size of the chunks that we send.
const CHUNK_SIZE: usize = 4096;

/// Message types.
mod kind {
    pub const SET_CHUNK_SIZE: u8 = 1;
    pub const ABORT: u8 = 2;
    pub const ACKNOWLEDGEMENT: u8 = 3;
    pub const USER_CONTROL: u8 = 4;
    pub const WINDOW_SIZE: u8 = 5;
    pub const PEER_BANDWIDTH: u8 = 6;
    pub const AUDIO: u8 = 8;
    pub const VIDEO: u8 = 9;
    pub const COMMAND_AMF3: u8 = 17;
    pub const COMMAND: u8 = 20;
    pub const AGGREGATE: u8 = 22;
}

/// User control events.
mod control {
    pub const STREAM_BEGIN: u16 = 0;
    pub const STREAM_END: u16 = 1;
    pub const BUFFER_LENGTH: u16 = 3;
    pub const PING: u16 = 6;
    pub const PONG: u16 = 7;
}

/// The chunk stream of control messages, and the one that our commands use.
const CONTROL_CHUNKS: u32 = 2;
const COMMAND_CHUNKS: u32 = 3;

/// What a machine has to know of what came.
#[derive(Debug)]
pub(super) enum Inbound {
    HandshakeDone,
    Command(Command),
    Media(MediaMessage),
    /// User control: the stream has ended.
    StreamEnd,
}

/// `name`, transaction, and arguments, of which the first is the command object.
#[derive(Debug)]
pub(super) struct Command {
    pub name: String,
    pub transaction: f64,
    pub arguments: Vec<Value>,
    /// Message stream id.
    pub stream_id: u32,
}

impl Command {
    /// The text of an argument.
    pub fn text(&self, index: usize) -> Option<&str> {
        self.arguments.get(index).and_then(Value::as_str)
    }

    /// `code` and `description` of an information object, the last argument.
    pub fn information(&self) -> (&str, &str) {
        let text = |name| self.arguments.last().and_then(|i| i.get(name)).and_then(Value::as_str);
        (
            text("code").unwrap_or_default(),
            text("description").unwrap_or_default(),
        )
    }

    /// Reads the body of a command message. Arguments behind one that cannot be read are left out.
    fn parse(message: &Message) -> Result<Self, LinkError> {
        let mut body = &message.payload[..];
        if message.kind == kind::COMMAND_AMF3 && body.first() == Some(&0) {
            body.advance(1);
        }
        if body.len() > COMMAND_BYTES_MAX {
            return Err(LinkError("a command longer than the limit"));
        }
        let mut reader = amf::Reader::new(body);
        let Ok(Some(Value::String(name))) = reader.next_value() else {
            return Err(LinkError("a command without a name"));
        };
        let transaction = match reader.next_value() {
            Ok(Some(Value::Number(number))) => number,
            _ => 0.0,
        };
        let mut arguments = Vec::new();
        while let Ok(Some(value)) = reader.next_value() {
            arguments.push(value);
        }
        Ok(Self {
            name,
            transaction,
            arguments,
            stream_id: message.stream_id,
        })
    }
}

/// The peer breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkError(pub &'static str);

impl From<ChunkError> for LinkError {
    fn from(e: ChunkError) -> Self {
        Self(e.0)
    }
}

#[derive(Debug)]
pub(super) struct Link {
    /// `None` when it is done.
    handshake: Option<Handshake>,
    handshake_bytes: u64,
    reader: ChunkReader,
    writer: ChunkWriter,
    /// The rest of an aggregate message, and what is added to its time stamps.
    aggregate: Option<(Bytes, Option<u32>, u32)>,
    /// How many bytes the peer lets us take before it wants to hear of it.
    window: Option<u32>,
    acknowledged: u64,
    transmits: VecDeque<Bytes>,
    transmit_bytes: usize,
}

impl Link {
    pub fn server(random: [u8; 32]) -> Self {
        Self::new(Handshake::server(random))
    }

    pub fn client(random: [u8; 32]) -> Self {
        let (handshake, hello) = Handshake::client(random);
        let mut link = Self::new(handshake);
        link.push(hello);
        link
    }

    fn new(handshake: Handshake) -> Self {
        Self {
            handshake: Some(handshake),
            handshake_bytes: 0,
            reader: ChunkReader::new(),
            writer: ChunkWriter::new(),
            aggregate: None,
            window: None,
            acknowledged: 0,
            transmits: VecDeque::new(),
            transmit_bytes: 0,
        }
    }

    /// Bytes of the connection taken so far.
    pub const fn position(&self) -> u64 {
        self.handshake_bytes + self.reader.position()
    }

    /// Whether [`TRANSMIT_BYTES_MAX`] wait to be sent.
    pub const fn is_full(&self) -> bool {
        self.transmit_bytes >= TRANSMIT_BYTES_MAX
    }

    /// The next thing that a machine has to know; `None` when more input is needed, or while [`Self::is_full`].
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<Inbound>, LinkError> {
        if let Some(handshake) = &mut self.handshake {
            let (before, mut out) = (input.len(), BytesMut::new());
            let done = handshake.advance(input, &mut out).map_err(LinkError)?;
            self.handshake_bytes += (before - input.len()) as u64;
            self.push(out.freeze());
            if !done {
                return Ok(None);
            }
            self.handshake = None;
            return Ok(Some(Inbound::HandshakeDone));
        }
        loop {
            if let Some(media) = self.next_of_aggregate() {
                return Ok(Some(Inbound::Media(media)));
            }
            if self.is_full() {
                return Ok(None);
            }
            let message = self.reader.read(input)?;
            self.acknowledge();
            let Some(message) = message else {
                return Ok(None);
            };
            if let Some(inbound) = self.on_message(message)? {
                return Ok(Some(inbound));
            }
        }
    }

    fn on_message(&mut self, message: Message) -> Result<Option<Inbound>, LinkError> {
        let number = || message.payload.first_chunk().map(|b| u32::from_be_bytes(*b));
        match message.kind {
            kind::SET_CHUNK_SIZE => {
                let size = number().ok_or(LinkError("a chunk size that is cut off"))?;
                self.reader.set_chunk_size(size & 0x7FFF_FFFF)?;
            }
            kind::ABORT => self.reader.abort(number().unwrap_or(0)),
            kind::WINDOW_SIZE => self.window = number().filter(|n| *n > 0),
            kind::USER_CONTROL => return Ok(self.on_user_control(&message.payload)),
            kind::AUDIO => return Ok(Some(Inbound::Media(media(MediaMessageKind::Audio, message)))),
            kind::VIDEO => return Ok(Some(Inbound::Media(media(MediaMessageKind::Video, message)))),
            kind::COMMAND | kind::COMMAND_AMF3 => return Command::parse(&message).map(|c| Some(Inbound::Command(c))),
            kind::AGGREGATE => self.aggregate = Some((message.payload, None, message.timestamp)),
            // Acknowledgements and bandwidth concern who sends much. Metadata says nothing that the stream itself does not.
            _ => {}
        }
        Ok(None)
    }

    fn on_user_control(&mut self, payload: &[u8]) -> Option<Inbound> {
        let (event, data) = payload.split_first_chunk::<2>()?;
        match u16::from_be_bytes(*event) {
            control::STREAM_END => return Some(Inbound::StreamEnd),
            control::PING => {
                self.send_user_control(control::PONG, &data[..data.len().min(4)]);
            }
            _ => {}
        }
        None
    }

    /// The next sound or picture of an aggregate message (section 7.1.6): FLV tags, each with its length behind it.
    fn next_of_aggregate(&mut self) -> Option<MediaMessage> {
        const TAG_LEN: usize = 11;
        let (rest, offset, time) = self.aggregate.as_mut()?;
        loop {
            let head = rest.first_chunk::<TAG_LEN>().copied();
            let Some([kind, l0, l1, l2, t0, t1, t2, t3, ..]) = head else {
                break;
            };
            let len = u32::from_be_bytes([0, l0, l1, l2]) as usize;
            if rest.len() < TAG_LEN + len {
                break;
            }
            rest.advance(TAG_LEN);
            let payload = rest.split_to(len);
            rest.advance(rest.len().min(4));
            let tag_time = u32::from_be_bytes([t3, t0, t1, t2]);
            // The message's time stamp is that of its first tag, whatever the tag says.
            let offset = *offset.get_or_insert(time.wrapping_sub(tag_time));
            let kind = match kind & 0x1F {
                kind::AUDIO => MediaMessageKind::Audio,
                kind::VIDEO => MediaMessageKind::Video,
                _ => continue,
            };
            return Some(MediaMessage {
                kind,
                timestamp: tag_time.wrapping_add(offset),
                payload,
            });
        }
        self.aggregate = None;
        None
    }

    fn acknowledge(&mut self) {
        let (position, Some(window)) = (self.position(), self.window) else {
            return;
        };
        if position - self.acknowledged >= u64::from(window) {
            self.acknowledged = position;
            self.send_number(kind::ACKNOWLEDGEMENT, position as u32);
        }
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        let bytes = self.transmits.pop_front()?;
        self.transmit_bytes -= bytes.len();
        Some(bytes)
    }

    /// Sends a command on a message stream.
    pub fn send_command(&mut self, stream_id: u32, name: &str, transaction: f64, arguments: &[Value]) {
        let mut body = BytesMut::new();
        Value::string(name).write(&mut body);
        Value::Number(transaction).write(&mut body);
        for argument in arguments {
            argument.write(&mut body);
        }
        self.send(COMMAND_CHUNKS, kind::COMMAND, stream_id, &body.freeze());
    }

    /// Tells the peer our acknowledgement window, what it may send before an acknowledgement, and the size of our chunks.
    pub fn send_settings(&mut self) {
        self.send_number(kind::WINDOW_SIZE, WINDOW);
        let mut body = BytesMut::new();
        body.put_u32(WINDOW);
        body.put_u8(2); // dynamic
        self.send(CONTROL_CHUNKS, kind::PEER_BANDWIDTH, 0, &body.freeze());
        self.send_number(kind::SET_CHUNK_SIZE, CHUNK_SIZE as u32);
        self.writer.set_chunk_size(CHUNK_SIZE);
    }

    /// Tells the peer that its stream begins.
    pub fn send_stream_begin(&mut self, stream_id: u32) {
        self.send_user_control(control::STREAM_BEGIN, &stream_id.to_be_bytes());
    }

    /// Tells the server how much of a stream we hold before we show it, which makes some send faster at first.
    pub fn send_buffer_length(&mut self, stream_id: u32, ms: u32) {
        let mut data = [0; 8];
        data[..4].copy_from_slice(&stream_id.to_be_bytes());
        data[4..].copy_from_slice(&ms.to_be_bytes());
        self.send_user_control(control::BUFFER_LENGTH, &data);
    }

    fn send_user_control(&mut self, event: u16, data: &[u8]) {
        let mut body = BytesMut::with_capacity(2 + data.len());
        body.put_u16(event);
        body.put_slice(data);
        self.send(CONTROL_CHUNKS, kind::USER_CONTROL, 0, &body.freeze());
    }

    fn send_number(&mut self, kind: u8, number: u32) {
        self.send(CONTROL_CHUNKS, kind, 0, &Bytes::copy_from_slice(&number.to_be_bytes()));
    }

    fn send(&mut self, chunk_stream: u32, kind: u8, stream_id: u32, payload: &Bytes) {
        let mut out = BytesMut::with_capacity(payload.len() + 32);
        let message = Message {
            chunk_stream,
            kind,
            timestamp: 0,
            stream_id,
            payload: payload.clone(),
        };
        self.writer.write(&message, &mut out);
        self.push(out.freeze());
    }

    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.transmit_bytes += bytes.len();
            self.transmits.push_back(bytes);
        }
    }
}

fn media(kind: MediaMessageKind, message: Message) -> MediaMessage {
    MediaMessage {
        kind,
        timestamp: message.timestamp,
        payload: message.payload,
    }
}

/// The codecs that we record, by the names that enhanced RTMP gives them in `connect`.
pub(super) fn codecs() -> Value {
    let codecs = ["avc1", "hvc1", "av01", "mp4a", "Opus"];
    Value::Array(codecs.into_iter().map(Value::string).collect())
}
