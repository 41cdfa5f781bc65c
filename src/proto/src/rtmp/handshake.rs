//! The handshake (RTMP 1.0 section 5.2), either side: the simple one. A peer that sends Adobe's digest in its random bytes gets
//! the simple answer, which every encoder and server accepts.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u8 = 3;
/// Bytes of C1, S1, C2 and S2 each.
const PART_LEN: usize = 1536;
/// Time and version at the start of C1 and S1.
const HEAD_LEN: usize = 8;

/// What the peer is, if it does not speak RTMP.
pub(super) type Foreign = &'static str;

#[derive(Debug)]
pub(super) struct Handshake {
    step: Step,
    random: [u8; 32],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A server waits for C0 and C1.
    ClientHello,
    /// A client waits for S0 and S1.
    ServerHello,
    /// Either waits for what echoes its own part.
    Echo,
}

impl Handshake {
    /// The side that was connected to.
    pub fn server(random: [u8; 32]) -> Self {
        Self {
            step: Step::ClientHello,
            random,
        }
    }

    /// The side that connects, and what it sends first.
    pub fn client(random: [u8; 32]) -> (Self, Bytes) {
        let mut out = BytesMut::with_capacity(1 + PART_LEN);
        out.put_u8(VERSION);
        put_part(random, &mut out);
        let step = Step::ServerHello;
        (Self { step, random }, out.freeze())
    }

    /// Takes what has come; what is to be sent is appended to `out`. True when the handshake is done.
    pub fn advance(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> Result<bool, Foreign> {
        loop {
            match self.step {
                Step::ClientHello | Step::ServerHello => {
                    let Some(&version) = input.first() else {
                        return Ok(false);
                    };
                    if version != VERSION {
                        return Err(foreign(version));
                    }
                    if input.len() < 1 + PART_LEN {
                        return Ok(false);
                    }
                    input.advance(1);
                    let peer = input.split_to(PART_LEN);
                    if self.step == Step::ClientHello {
                        out.put_u8(VERSION);
                        put_part(self.random, out);
                    }
                    out.put_slice(&peer);
                    self.step = Step::Echo;
                }
                // What it echoes is not compared: some send zeros, those with a digest something of their own.
                Step::Echo => {
                    if input.len() < PART_LEN {
                        return Ok(false);
                    }
                    input.advance(PART_LEN);
                    return Ok(true);
                }
            }
        }
    }
}

fn foreign(first: u8) -> Foreign {
    match first {
        6 | 8 | 9 => "the peer wants encrypted RTMP (rtmpe), which is not supported: use rtmp://",
        0x16 => "the peer speaks TLS (rtmps), which is not supported: use rtmp://",
        b'G' | b'P' | b'H' => "the peer speaks HTTP, not RTMP: is the port right?",
        b'R' | b'O' | b'D' => "the peer speaks RTSP, not RTMP: is the port right?",
        _ => "the peer does not speak RTMP",
    }
}

/// C1 or S1: time and version 0, then bytes that need not be good random ones.
fn put_part(random: [u8; 32], out: &mut BytesMut) {
    out.put_bytes(0, HEAD_LEN);
    let (words, _) = random.as_chunks::<8>();
    let mut state = words.iter().fold(0x9E37_79B9_7F4A_7C15, |state, word| {
        state ^ u64::from_le_bytes(*word).rotate_left(7)
    });
    for _ in 0..(PART_LEN - HEAD_LEN) / 8 {
        // xorshift64, which never leaves 0 and never comes to it
        state = if state == 0 { 1 } else { state };
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.put_u64(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_at_every_split() {
        for split in [1, 2, 700, 1536, 1537, 4000] {
            let (mut client, hello) = Handshake::client([1; 32]);
            let mut server = Handshake::server([2; 32]);
            let (mut to_server, mut to_client) = (BytesMut::from(&hello[..]), BytesMut::new());
            let (mut at_server, mut at_client) = (BytesMut::new(), BytesMut::new());
            let (mut server_done, mut client_done) = (false, false);
            for _ in 0..20_000 {
                let n = to_server.len().min(split);
                at_server.extend_from_slice(&to_server.split_to(n));
                server_done = server_done || server.advance(&mut at_server, &mut to_client).unwrap();
                let n = to_client.len().min(split);
                at_client.extend_from_slice(&to_client.split_to(n));
                client_done = client_done || client.advance(&mut at_client, &mut to_server).unwrap();
            }
            assert!(server_done && client_done, "split {split}");
            assert!(at_server.is_empty() && at_client.is_empty());
        }
    }

    #[test]
    fn who_speaks_something_else_is_told_what() {
        for (first, word) in [
            (6, "rtmpe"),
            (0x16, "TLS"),
            (b'G', "HTTP"),
            (b'O', "RTSP"),
            (0, "does not speak"),
        ] {
            let mut input = BytesMut::from(&[first][..]);
            let error = Handshake::server([0; 32]).advance(&mut input, &mut BytesMut::new());
            assert!(error.unwrap_err().contains(word));
        }
    }
}
