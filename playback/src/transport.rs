//! Bytes out: the connection that requests, responses and interleaved packets share, and datagrams.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use bytes::BufMut;
use corenvr_shard::net::{Stream, UdpSender, UdpSocket};

/// Bytes that may wait before no further frame is added and no further request is read. A frame is added whole, so one frame may lie
/// beyond it.
pub const OUTBOX_BYTES_MAX: usize = 256 << 10;
/// A buffer that grew beyond this for one large frame is given back.
const OUTBOX_KEPT: usize = 1 << 20;
/// Receive buffers of the server's UDP sockets: only receiver reports come in.
const UDP_RECEIVE_BUFFER: usize = 32 << 10;
/// How often a pair of ports is tried for.
const PORT_ATTEMPTS: u32 = 64;

/// What waits to be written to a connection. Everything in it is whole: responses and packets never mix.
pub struct Outbox {
    stream: Stream,
    pending: RefCell<Pending>,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// For this connection.
    pub fn new(stream: Stream) -> Rc<Self> {
        Rc::new(Self {
            stream,
            pending: RefCell::default(),
        })
    }

    /// Appends a whole response or packet.
    pub fn push(&self, bytes: &[u8]) {
        self.pending.borrow_mut().bytes.extend_from_slice(bytes);
    }

    /// Appends an interleaved packet of two parts (RFC 2326 section 10.12).
    pub fn push_interleaved(&self, channel: u8, head: &[u8], payload: &[u8]) {
        let bytes = &mut self.pending.borrow_mut().bytes;
        bytes.reserve(4 + head.len() + payload.len());
        bytes.put_u8(b'$');
        bytes.put_u8(channel);
        bytes.put_u16((head.len() + payload.len()) as u16);
        bytes.put_slice(head);
        bytes.put_slice(payload);
    }

    /// Bytes waiting.
    pub fn len(&self) -> usize {
        let pending = self.pending.borrow();
        pending.bytes.len() - pending.sent
    }

    /// Whether anything waits, here or within an encrypted stream.
    pub fn is_waiting(&self) -> bool {
        self.len() > 0 || self.stream.has_pending()
    }

    /// Writes what waits; returns when nothing does. Cancel safe, and several tasks may do it at once.
    pub async fn flush(&self) -> io::Result<()> {
        while self.is_waiting() {
            let wrote = {
                let mut pending = self.pending.borrow_mut();
                let sent = pending.sent;
                let n = self.stream.write_now(&pending.bytes[sent..])?;
                pending.sent += n;
                n
            };
            if wrote == 0 {
                self.stream.writable().await?;
            }
        }
        self.pending.borrow_mut().clear();
        Ok(())
    }
}

impl Pending {
    fn clear(&mut self) {
        self.sent = 0;
        if self.bytes.capacity() > OUTBOX_KEPT {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }
}

/// Where the packets of one track go.
pub enum Link {
    /// Channels of the RTSP connection.
    Interleaved {
        /// Channel of RTP.
        rtp: u8,
        /// Channel of RTCP.
        rtcp: u8,
    },
    /// The client's ports.
    Datagrams {
        /// Sends RTP, and to where.
        rtp: (UdpSender, SocketAddr),
        /// Sends RTCP, and to where.
        rtcp: (UdpSender, SocketAddr),
    },
}

/// A server's pair of UDP ports, the first one even.
pub struct PortPair {
    /// RTP.
    pub rtp: UdpSocket,
    /// RTCP.
    pub rtcp: UdpSocket,
}

impl PortPair {
    /// Two free ports next to each other on `ip`.
    pub fn bind(ip: IpAddr) -> io::Result<Self> {
        let mut failure = io::Error::other("no free pair of ports");
        for _ in 0..PORT_ATTEMPTS {
            // Not the kernel's choice, which is odd half of the time and often has a busy neighbour.
            let port = rand::random_range(10_000..32_000u16) * 2;
            let bind = |port| UdpSocket::bind(SocketAddr::new(ip, port), UDP_RECEIVE_BUFFER);
            match bind(port).and_then(|rtp| {
                Ok(Self {
                    rtp,
                    rtcp: bind(port + 1)?,
                })
            }) {
                Ok(pair) => return Ok(pair),
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }

    /// The ports.
    pub fn ports(&self) -> (u16, u16) {
        (self.rtp.local_addr().port(), self.rtcp.local_addr().port())
    }
}
