//! Bytes of a SIP connection to messages, incrementally (RFC 3261 section 18.3).

use bytes::{Buf, Bytes, BytesMut};

use super::{
    HEAD_BYTES_MAX,
    message::Message,
    parse::{Fault, parse_head},
};

/// The connection cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at byte {position} of the connection")]
pub struct DecodeError {
    /// What is wrong.
    pub fault: Fault,
    /// Where the offending message begins, counted from the first byte of the connection.
    pub position: u64,
}

/// An incremental decoder. It takes from the input only what it has understood, so the input need never hold more than one message
/// ([`HEAD_BYTES_MAX`] and a body). Blank lines between messages are pings and skipped; bare line feeds end lines too.
#[derive(Debug)]
pub struct Decoder {
    body_max: usize,
    /// Bytes consumed since the connection began.
    position: u64,
    /// How much of the input is known not to end the head.
    scanned: usize,
    /// Length of the line that the scan is in, to tell an empty one.
    line_len: usize,
    /// A head whose body has not arrived.
    pending: Option<(Message, usize)>,
}

impl Decoder {
    /// A decoder for the first byte of a connection; a body of more than `body_max` bytes is an error.
    pub const fn new(body_max: usize) -> Self {
        Self {
            body_max,
            position: 0,
            scanned: 0,
            line_len: 0,
            pending: None,
        }
    }

    /// Another limit for the bodies that follow.
    pub const fn set_body_max(&mut self, body_max: usize) {
        self.body_max = body_max;
    }

    /// Takes the next message off the front of `input`. `Ok(None)` means that it is incomplete: call again with more
    /// bytes behind the same ones. After an error the connection is of no more use.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Message>, DecodeError> {
        if self.pending.is_none() {
            if self.scanned == 0 {
                let blank = input
                    .iter()
                    .take_while(|b| matches!(b, b'\r' | b'\n' | b' ' | 0))
                    .count();
                self.position += blank as u64;
                input.advance(blank);
            }
            let Some(head_len) = self.find_head_end(input)? else {
                return Ok(None);
            };
            let position = self.position;
            let head = self.take(input, head_len);
            let error = |fault| DecodeError { fault, position };
            let (message, body_len) = parse_head(&head).map_err(error)?;
            // Without Content-Length there is no body: nothing else could say where it ends.
            let body_len = body_len.map_err(error)?.unwrap_or(0);
            if body_len > self.body_max {
                return Err(error(Fault::BodyTooLarge));
            }
            self.pending = Some((message, body_len));
        }
        let Some((mut message, body_len)) = self.pending.take_if(|(_, len)| *len <= input.len()) else {
            return Ok(None);
        };
        message.set_body(self.take(input, body_len));
        Ok(Some(message))
    }

    fn take(&mut self, input: &mut BytesMut, len: usize) -> Bytes {
        self.position += len as u64;
        self.scanned = 0;
        self.line_len = 0;
        input.split_to(len).freeze()
    }

    /// The length up to and with the empty line. Every byte is looked at once, however it arrives.
    fn find_head_end(&mut self, input: &BytesMut) -> Result<Option<usize>, DecodeError> {
        let error = |fault| DecodeError {
            fault,
            position: self.position,
        };
        // What speaks another protocol is noticed before it has sent a whole head.
        if input.first().is_some_and(|b| !b.is_ascii_alphabetic()) {
            return Err(error(Fault::StartLine));
        }
        for (i, &b) in input.iter().enumerate().skip(self.scanned) {
            match b {
                b'\n' if self.line_len == 0 => return Ok(Some(i + 1)),
                b'\n' => self.line_len = 0,
                b'\r' => {}
                _ => self.line_len += 1,
            }
            if i >= HEAD_BYTES_MAX {
                return Err(error(Fault::HeadTooLarge));
            }
        }
        self.scanned = input.len();
        Ok(None)
    }
}
