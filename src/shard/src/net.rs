//! Sockets: the system call is tried first, and only when it would block does the ring wait for readiness.
//!
//! Waiting for readiness can be cancelled at any moment without losing a byte or a datagram, which a receive handed to the ring cannot.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use glommio::io::{PollState, PollableFd};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt};

use crate::{WorkerError, blocking, time, tls::Session, yield_if_needed};

pub(crate) fn other(e: glommio::GlommioError<()>) -> io::Error {
    match e {
        glommio::GlommioError::IoError(e) => e,
        e => io::Error::other(e.to_string()),
    }
}

fn pollable(fd: OwnedFd) -> io::Result<Rc<PollableFd<OwnedFd>>> {
    Ok(Rc::new(PollableFd::new(fd).map_err(other)?))
}

/// Resolves a host name on a pool thread, since the system's resolver blocks. Literal addresses cost nothing.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let name = bare.to_owned();
    let found = blocking(move || (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>)).await;
    let list = found.map_err(|e: WorkerError| io::Error::other(e))??;
    if list.is_empty() {
        Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
    } else {
        Ok(list)
    }
}

/// A connected TCP or Unix stream, plain or encrypted. Cloning shares the socket: one side may read while the other writes.
///
/// An encrypted stream may hold ciphertext that the socket has not taken yet, after [`Stream::write_now`] has accepted what it is of. It leaves
/// with the next write, [`Stream::writable`] or [`Stream::flush`]: whoever writes with `write_now` ends with one of the latter.
#[derive(Clone)]
pub struct Stream {
    pub(crate) fd: Rc<PollableFd<OwnedFd>>,
    /// Between us and the socket, if the stream is encrypted.
    pub(crate) tls: Option<Rc<Session>>,
    /// The last read did not fill its buffer: the next one would block, so wait at once.
    pub(crate) drained: bool,
    pub(crate) gather: Duration,
}

/// Reads take at least this much room, and a buffer grows to it.
const READ_LEN: usize = 64 << 10;

impl Stream {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            fd: pollable(fd)?,
            tls: None,
            drained: false,
            gather: Duration::ZERO,
        })
    }

    /// Whether what is written and read is encrypted on its way.
    pub const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// After everything was read, lets this much time pass before looking again: one wake-up then serves the packets of that time, and while
    /// a steady stream flows the socket need not be watched at all. What arrives meanwhile waits in the kernel.
    pub const fn set_gather(&mut self, gather: Duration) {
        self.gather = gather;
    }

    /// Connects within `limit`.
    pub async fn connect(address: SocketAddr, limit: Duration) -> io::Result<Self> {
        let family = if address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&fd, true)?;
        let started = rustix::net::connect(&fd, &address);
        let stream = Self::new(fd)?;
        match started {
            Ok(()) => return Ok(stream),
            Err(rustix::io::Errno::INPROGRESS) => {}
            Err(e) => return Err(e.into()),
        }
        let timed_out = |_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", limit.as_secs()),
            )
        };
        time::timeout(limit, stream.fd.writable())
            .await
            .map_err(timed_out)?
            .map_err(other)?;
        sockopt::socket_error(stream.fd.get_ref())??;
        Ok(stream)
    }

    /// Appends what has arrived to `buffer` and returns how much; 0 when the peer has closed. Cancel safe.
    pub async fn read_into(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        if buffer.capacity() - buffer.len() < READ_LEN / 4 {
            buffer.reserve(READ_LEN);
        }
        let mut gathered = self.gather.is_zero();
        loop {
            if !std::mem::take(&mut self.drained) {
                yield_if_needed().await;
            } else if std::mem::replace(&mut gathered, true) {
                self.fd.readable().await.map_err(other)?;
            } else {
                time::sleep(self.gather).await;
            }
            match self.recv_now(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.drained = true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn recv_now(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        if let Some(session) = &self.tls {
            let (n, drained) = session.read_now(buffer.capacity() - buffer.len(), |piece| {
                buffer.extend_from_slice(piece);
            })?;
            self.drained = drained;
            return Ok(n);
        }
        let room = buffer.chunk_mut();
        // SAFETY: the memory belongs to `buffer`'s spare room; recv only ever writes into it.
        let slice = unsafe { room.as_uninit_slice_mut() };
        let len = slice.len();
        let ((init, _), _) = rustix::net::recv(self.fd.get_ref(), slice, RecvFlags::DONTWAIT)?;
        let n = init.len();
        // SAFETY: recv has initialised the first n bytes of the spare room.
        unsafe { buffer.advance_mut(n) };
        self.drained = n < len;
        Ok(n)
    }

    /// Writes everything, waiting while the peer's window is closed.
    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        if self.is_tls() {
            while !data.is_empty() {
                match self.write_now(data)? {
                    0 => self.writable().await?,
                    n => data = &data[n..],
                }
            }
            return self.flush().await;
        }
        while !data.is_empty() {
            match rustix::net::send(self.fd.get_ref(), data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(n) => data = &data[n..],
                Err(rustix::io::Errno::AGAIN) => self.fd.writable().await.map_err(other)?,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Writes what the socket takes right now, without waiting; 0 when it takes nothing. Of an encrypted stream a little of what is accepted
    /// may stay in it, see [`Stream::has_pending`].
    pub fn write_now(&self, data: &[u8]) -> io::Result<usize> {
        if let Some(session) = &self.tls {
            return session.write_now(data);
        }
        match rustix::net::send(self.fd.get_ref(), data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(n) => Ok(n),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
            Err(e) => Err(e.into()),
        }
    }

    /// Waits until the socket takes data again; of an encrypted stream, until it has taken what waited in it. Cancel safe.
    pub async fn writable(&self) -> io::Result<()> {
        self.fd.writable().await.map_err(other)?;
        self.flush().await
    }

    /// Waits until nothing of an encrypted stream waits for the socket; a plain one holds nothing back. Cancel safe.
    pub async fn flush(&self) -> io::Result<()> {
        if let Some(session) = &self.tls {
            while !session.flush_now()? {
                self.fd.writable().await.map_err(other)?;
            }
        }
        Ok(())
    }

    /// Whether something that was accepted waits for the socket; never of a plain stream.
    pub fn has_pending(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| session.has_pending())
    }

    /// Ends our direction of the stream; the peer reads what was written and then the end. What waits in an encrypted stream leaves first, for
    /// which [`Stream::flush`] waits.
    pub fn shutdown_write(&self) -> io::Result<()> {
        if let Some(session) = &self.tls {
            return session.end();
        }
        Ok(rustix::net::shutdown(self.fd.get_ref(), rustix::net::Shutdown::Write)?)
    }

    /// Ends both directions: a task that waits on the other clone wakes with the end.
    pub fn shutdown(&self) -> io::Result<()> {
        if let Some(session) = &self.tls {
            session.farewell();
        }
        Ok(rustix::net::shutdown(self.fd.get_ref(), rustix::net::Shutdown::Both)?)
    }

    /// The peer's address; unspecified for Unix sockets.
    pub fn peer_addr(&self) -> SocketAddr {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        rustix::net::getpeername(self.fd.get_ref())
            .ok()
            .flatten()
            .and_then(|a| a.try_into().ok())
            .unwrap_or(unknown)
    }

    /// Our own address; unspecified for Unix sockets.
    pub fn local_addr(&self) -> SocketAddr {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        rustix::net::getsockname(self.fd.get_ref())
            .ok()
            .and_then(|a| a.try_into().ok())
            .unwrap_or(unknown)
    }

    /// Asks the kernel for a send buffer of this size, in bytes: how far a viewer may fall behind before its writer waits.
    pub fn set_send_buffer(&self, bytes: usize) -> io::Result<()> {
        Ok(sockopt::set_socket_send_buffer_size(self.fd.get_ref(), bytes)?)
    }

    /// Takes the stream off this executor, so that another thread's can go on with it. What was read is the caller's to hand on.
    /// A clone that is still about keeps its own share of the socket. An encrypted stream stays where it is: this is refused.
    pub fn detach(self) -> io::Result<DetachedStream> {
        if self.is_tls() {
            let text = "an encrypted stream cannot leave its executor";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let fd = match Rc::try_unwrap(self.fd) {
            Ok(fd) => fd.into_inner(),
            Err(shared) => shared.get_ref().try_clone()?,
        };
        Ok(DetachedStream(fd))
    }

    /// The user id of the process at the other end of a Unix socket.
    pub fn peer_uid(&self) -> io::Result<u32> {
        Ok(sockopt::socket_peercred(self.fd.get_ref())?.uid.as_raw())
    }
}

/// A connected stream that belongs to no executor: it may be sent to another thread. Dropping it closes the connection.
#[derive(Debug)]
pub struct DetachedStream(OwnedFd);

impl From<OwnedFd> for DetachedStream {
    /// Any connected stream socket.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl DetachedStream {
    /// Goes on with the stream on this thread's executor.
    pub fn attach(self) -> io::Result<Stream> {
        Stream::new(self.0)
    }
}

/// [`Stream`] in hyper's terms.
pub struct HyperStream {
    stream: Stream,
    read: PollState,
    write: PollState,
}

impl HyperStream {
    /// Wraps a stream.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            read: PollState::new(),
            write: PollState::new(),
        }
    }
}

impl hyper::rt::Read for HyperStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(session) = &this.stream.tls {
            return loop {
                match session.read_now(buf.remaining(), |piece| buf.put_slice(piece)) {
                    Ok(_) => break Poll::Ready(Ok(())),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        ready!(this.stream.fd.poll_readable(cx, &mut this.read)).map_err(other)?;
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                        cx.waker().wake_by_ref();
                        break Poll::Pending;
                    }
                    Err(e) => break Poll::Ready(Err(e)),
                }
            };
        }
        loop {
            // SAFETY: recv only ever writes into the slice, it never reads or de-initialises it.
            let room = unsafe { buf.as_mut() };
            match rustix::net::recv(this.stream.fd.get_ref(), room, RecvFlags::DONTWAIT) {
                Ok(((init, _), _)) => {
                    let n = init.len();
                    // SAFETY: recv has initialised the first n bytes.
                    unsafe { buf.advance(n) };
                    return Poll::Ready(Ok(()));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    ready!(this.stream.fd.poll_readable(cx, &mut this.read)).map_err(other)?;
                }
                Err(e) => return Poll::Ready(Err(e.into())),
            }
        }
    }
}

impl hyper::rt::Write for HyperStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(session) = &this.stream.tls {
            loop {
                match session.write_now(data)? {
                    0 if !data.is_empty() => {
                        ready!(this.stream.fd.poll_writable(cx, &mut this.write)).map_err(other)?;
                    }
                    n => return Poll::Ready(Ok(n)),
                }
            }
        }
        loop {
            match rustix::net::send(
                this.stream.fd.get_ref(),
                data,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(n) => return Poll::Ready(Ok(n)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    ready!(this.stream.fd.poll_writable(cx, &mut this.write)).map_err(other)?;
                }
                Err(e) => return Poll::Ready(Err(e.into())),
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(session) = &this.stream.tls {
            while !session.flush_now()? {
                ready!(this.stream.fd.poll_writable(cx, &mut this.write)).map_err(other)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = match self.stream.shutdown_write() {
            Ok(()) => ready!(self.as_mut().poll_flush(cx)),
            failed => failed,
        };
        Poll::Ready(match ended {
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }
}

/// A listening TCP or Unix socket.
pub struct Listener {
    fd: Rc<PollableFd<OwnedFd>>,
    tcp: bool,
}

impl Listener {
    /// Listens on a TCP address with `SO_REUSEPORT`, so that every shard may have its own queue of connections.
    /// An IPv6 wildcard takes IPv4 as well.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        sockopt::set_socket_reuseaddr(&fd, true)?;
        sockopt::set_socket_reuseport(&fd, true)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&fd, false)?;
        }
        rustix::net::bind(&fd, &address)?;
        rustix::net::listen(&fd, 1024)?;
        Ok(Self {
            fd: pollable(fd)?,
            tcp: true,
        })
    }

    /// Listens on a Unix socket that only this user (and root) may open. A stale socket file is replaced.
    pub fn unix(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&fd, &rustix::net::SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&fd, 128)?;
        Ok(Self {
            fd: pollable(fd)?,
            tcp: false,
        })
    }

    /// The next connection. Out of descriptors, it waits and tries again instead of failing: the connection stays in the kernel's queue.
    pub async fn accept(&self) -> io::Result<Stream> {
        loop {
            match rustix::net::accept_with(self.fd.get_ref(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(fd) => {
                    if self.tcp {
                        sockopt::set_tcp_nodelay(&fd, true)?;
                        keep_alive(&fd)?;
                    }
                    return Stream::new(fd);
                }
                Err(rustix::io::Errno::AGAIN) => self.fd.readable().await.map_err(other)?,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
                Err(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                    tracing::warn!("no descriptor is left for a new connection: raise LimitNOFILE");
                    time::sleep(Duration::from_secs(1)).await;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The address it listens on; unspecified for Unix sockets.
    pub fn local_addr(&self) -> SocketAddr {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        rustix::net::getsockname(self.fd.get_ref())
            .ok()
            .and_then(|a| a.try_into().ok())
            .unwrap_or(unknown)
    }
}

/// A peer that vanished without a word is noticed after about a minute: first probe, interval, count.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

fn keep_alive(fd: &OwnedFd) -> io::Result<()> {
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepidle(fd, KEEPALIVE.0)?;
    sockopt::set_tcp_keepintvl(fd, KEEPALIVE.1)?;
    Ok(sockopt::set_tcp_keepcnt(fd, KEEPALIVE.2)?)
}

/// The largest datagram that is received whole unless [`UdpSocket::set_datagram_max`] says otherwise; a longer one is counted as
/// truncated and dropped.
pub const DATAGRAM_LEN_MAX: usize = 4096;
/// Datagrams taken in one system call.
const BATCH: usize = 16;
/// Room for the datagrams of one system call.
const ARENA: usize = BATCH * DATAGRAM_LEN_MAX;

/// A UDP socket.
pub struct UdpSocket {
    fd: Rc<PollableFd<OwnedFd>>,
    arena: BytesMut,
    datagram_max: usize,
    truncated: u64,
}

impl UdpSocket {
    /// Binds to `address` and asks for a receive buffer of `receive_buffer` bytes (the kernel may grant less).
    pub fn bind(address: SocketAddr, receive_buffer: usize) -> io::Result<Self> {
        let family = if address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_recv_buffer_size(&fd, receive_buffer)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&fd, false)?;
        }
        rustix::net::bind(&fd, &address)?;
        Ok(Self {
            fd: pollable(fd)?,
            arena: BytesMut::new(),
            datagram_max: DATAGRAM_LEN_MAX,
            truncated: 0,
        })
    }

    /// Takes datagrams of up to `bytes` (at least one, at most 64 KiB), fewer of them in one system call the longer they may be.
    pub const fn set_datagram_max(&mut self, bytes: usize) {
        self.datagram_max = if bytes == 0 {
            1
        } else if bytes > ARENA {
            ARENA
        } else {
            bytes
        };
    }

    /// Our own address.
    pub fn local_addr(&self) -> SocketAddr {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        rustix::net::getsockname(self.fd.get_ref())
            .ok()
            .and_then(|a| a.try_into().ok())
            .unwrap_or(unknown)
    }

    /// A second handle to the same socket for sending while this one receives.
    pub fn sender(&self) -> UdpSender {
        UdpSender(self.fd.clone())
    }

    /// Datagrams that were longer than the limit and therefore dropped.
    pub fn truncated(&self) -> u64 {
        self.truncated
    }

    /// Waits for datagrams and appends up to a batch of them to `out`. Cancel safe.
    pub async fn recv_batch(&mut self, out: &mut Vec<(SocketAddr, Bytes)>) -> io::Result<()> {
        loop {
            match self.recv_now(out) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.fd.readable().await.map_err(other)?,
                // A port that was closed at the peer is reported on the next receive; it says nothing about this one.
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused) => {
                    yield_if_needed().await;
                }
                result => return result,
            }
        }
    }

    fn recv_now(&mut self, out: &mut Vec<(SocketAddr, Bytes)>) -> io::Result<()> {
        let datagram_max = self.datagram_max;
        let batch = (ARENA / datagram_max).min(BATCH);
        // Zeroed once: the arena is reclaimed whole as soon as its datagrams have been consumed.
        self.arena.clear();
        self.arena.resize(ARENA, 0);
        // SAFETY: all-zero is a valid value for these plain C structures.
        let (mut headers, mut vectors, mut names) = unsafe {
            (
                std::mem::zeroed::<[libc::mmsghdr; BATCH]>(),
                std::mem::zeroed::<[libc::iovec; BATCH]>(),
                std::mem::zeroed::<[libc::sockaddr_storage; BATCH]>(),
            )
        };
        for i in 0..batch {
            let slot = &mut self.arena[i * datagram_max..(i + 1) * datagram_max];
            vectors[i] = libc::iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: slot.len(),
            };
            headers[i].msg_hdr.msg_iov = &raw mut vectors[i];
            headers[i].msg_hdr.msg_iovlen = 1;
            headers[i].msg_hdr.msg_name = (&raw mut names[i]).cast();
            headers[i].msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
        }
        // SAFETY: every pointer above refers to memory that lives until the end of this function and has the stated length.
        let n = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                batch as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        for i in 0..n as usize {
            let mut slot = self.arena.split_to(datagram_max);
            slot.truncate(headers[i].msg_len as usize);
            if headers[i].msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                self.truncated += 1;
            } else if let Some(from) = socket_addr(&names[i]) {
                out.push((from, slot.freeze()));
            }
        }
        Ok(())
    }
}

fn socket_addr(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage holds a sockaddr_in, and it is large and aligned enough for one.
            let v4 = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            Some(SocketAddr::from((
                v4.sin_addr.s_addr.to_ne_bytes(),
                u16::from_be(v4.sin_port),
            )))
        }
        libc::AF_INET6 => {
            // SAFETY: likewise for sockaddr_in6.
            let v6 = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = std::net::Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddr::new(
                IpAddr::V6(ip).to_canonical(),
                u16::from_be(v6.sin6_port),
            ))
        }
        _ => None,
    }
}

/// The sending side of a UDP socket.
#[derive(Clone)]
pub struct UdpSender(Rc<PollableFd<OwnedFd>>);

impl UdpSender {
    /// Sends one datagram, waiting while the socket's buffer is full. A closed port at the peer is not an error here.
    pub async fn send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<()> {
        loop {
            if self.send_now(data, to)? {
                return Ok(());
            }
            self.0.writable().await.map_err(other)?;
        }
    }

    /// Sends one datagram now; false if the socket's buffer is full.
    pub fn send_now(&self, data: &[u8], to: SocketAddr) -> io::Result<bool> {
        let to = self.reachable(to);
        loop {
            match rustix::net::sendto(self.0.get_ref().as_fd(), data, SendFlags::DONTWAIT, &to) {
                Ok(_) => return Ok(true),
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                // An ICMP answer to an earlier datagram; reported once, then the send works again.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNREFUSED) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// An IPv4 address as an IPv6 socket must write it.
    fn reachable(&self, to: SocketAddr) -> SocketAddr {
        match (to, sockopt::socket_domain(self.0.get_ref())) {
            (SocketAddr::V4(v4), Ok(AddressFamily::INET6)) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            _ => to,
        }
    }
}

/// Feeds a stream's bytes to something that wants `Buf`; here so that callers need no copy of their own.
pub fn consume(buffer: &mut BytesMut, n: usize) {
    buffer.advance(n.min(buffer.len()));
}

/// Two futures, whichever is done first; the other is dropped.
pub async fn first_of<T>(a: impl Future<Output = T>, b: impl Future<Output = T>) -> T {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    std::future::poll_fn(|cx| match a.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(value),
        Poll::Pending => b.as_mut().poll(cx),
    })
    .await
}

#[cfg(test)]
mod tests;
