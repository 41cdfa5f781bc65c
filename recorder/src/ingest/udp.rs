//! The datagram side of an RTSP session: pairs of ports, one task per socket, the source address pinned.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    time::Instant,
};

use bytes::Bytes;
use corenvr_shard::{
    Class, Task, TaskName,
    net::{UdpSender, UdpSocket},
    spawn,
};

use super::{Media, Sink};

/// What the kernel is asked to hold of a camera's RTP while the shard is busy: more than a second of a 4K stream.
const RTP_RECEIVE_BUFFER: usize = 4 << 20;
const RTCP_RECEIVE_BUFFER: usize = 64 << 10;
/// How often a pair of ports is looked for.
const PORT_TRIES: u32 = 64;

/// Two sockets on neighbouring ports, the first one even (RFC 3550 section 11).
pub(crate) struct PortPair {
    rtp: UdpSocket,
    rtcp: UdpSocket,
}

impl PortPair {
    /// Takes a free pair for a camera at `peer`.
    pub fn bind(peer: IpAddr) -> io::Result<Self> {
        let any: IpAddr = if peer.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let mut last = io::ErrorKind::AddrInUse.into();
        for _ in 0..PORT_TRIES {
            let rtp = UdpSocket::bind(SocketAddr::new(any, 0), RTP_RECEIVE_BUFFER)?;
            let port = rtp.local_addr().port();
            if port % 2 == 1 {
                continue;
            }
            match UdpSocket::bind(SocketAddr::new(any, port + 1), RTCP_RECEIVE_BUFFER) {
                Ok(rtcp) => return Ok(Self { rtp, rtcp }),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Our ports for RTP and RTCP.
    pub fn ports(&self) -> (u16, u16) {
        (self.rtp.local_addr().port(), self.rtcp.local_addr().port())
    }

    /// Starts to receive. Only datagrams from `from` are taken, and from the first of its ports that sends.
    pub fn receive<S: Sink + 'static>(
        self,
        camera: &str,
        stream: usize,
        from: IpAddr,
        media: &Rc<RefCell<Media<S>>>,
    ) -> UdpStream {
        let rtcp_sender = self.rtcp.sender();
        let rtp_sender = self.rtp.sender();
        let into = media.clone();
        let rtp = spawn(
            Class::Recording,
            TaskName::of_camera(&camera, "rtp"),
            receive(self.rtp, from, move |now, data| {
                into.borrow_mut().rtp(now, stream, data);
            }),
        );
        let into = media.clone();
        let rtcp = spawn(
            Class::Recording,
            TaskName::of_camera(&camera, "rtcp"),
            receive(self.rtcp, from, move |now, data| {
                into.borrow_mut().rtcp(now, stream, &data);
            }),
        );
        UdpStream {
            rtp_sender,
            rtcp_sender,
            tasks: [rtp, rtcp],
        }
    }
}

/// A stream that is being received. Dropping it stops that.
pub(crate) struct UdpStream {
    rtp_sender: UdpSender,
    rtcp_sender: UdpSender,
    /// Each ends only by an error of its socket, or by a panic.
    pub tasks: [Task<io::Error>; 2],
}

impl UdpStream {
    /// Opens the way through a NAT or firewall to us: an empty RTP packet and an empty receiver report.
    pub fn punch(&self, rtp: SocketAddr, rtcp: SocketAddr) {
        let mut packet = [0u8; 12];
        packet[0] = 0x80;
        let report = [0x80, 201, 0, 1, 0, 0, 0, 0];
        // Whether it helps shows in whether packets come.
        let _ = self.rtp_sender.send_now(&packet, rtp);
        let _ = self.rtcp_sender.send_now(&report, rtcp);
    }

    /// Sends a report; one that the socket does not take at once is left out.
    pub fn send_rtcp(&self, data: &[u8], to: SocketAddr) {
        let _ = self.rtcp_sender.send_now(data, to);
    }
}

async fn receive(mut socket: UdpSocket, from: IpAddr, mut take: impl FnMut(Instant, Bytes)) -> io::Error {
    let mut batch = Vec::with_capacity(16);
    let mut pinned: Option<u16> = None;
    loop {
        if let Err(e) = socket.recv_batch(&mut batch).await {
            return e;
        }
        let now = Instant::now();
        for (source, data) in batch.drain(..) {
            if source.ip() == from && *pinned.get_or_insert(source.port()) == source.port() {
                take(now, data);
            }
        }
    }
}
