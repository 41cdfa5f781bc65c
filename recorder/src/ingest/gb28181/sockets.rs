//! The media ports of one session: opened before the device is invited, and closed to everybody but the device.

use std::{
    cell::RefCell,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use corenvr_proto::gb28181::{media::TcpFraming, sdp::MediaTransport};
use corenvr_shard::{
    Class, Task, TaskName, TaskPanicked,
    net::{Listener, Stream, UdpSender, UdpSocket},
    spawn,
    time::timeout,
};

use super::{Answered, Target, Units, media::Media};
use crate::ingest::{End, EndKind};

/// What the kernel is asked to hold of a device's RTP while the shard is busy: more than a second of a 4K stream.
const RTP_RECEIVE_BUFFER: usize = 4 << 20;
const RTCP_RECEIVE_BUFFER: usize = 64 << 10;
/// Packets of a connection are read together when they came within this, so that a camera costs one wake-up a picture.
const GATHER: Duration = Duration::from_millis(25);
/// How long connecting to one address of the device may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The ports before the device has answered.
pub(super) enum Sockets {
    Udp {
        rtp: UdpSocket,
        rtcp: UdpSocket,
    },
    Listening(Listener),
    /// We connect, once we know where to.
    Connecting,
}

/// What is being received. Dropping it stops that.
pub(super) struct Flow {
    tasks: Vec<Task<End>>,
    datagrams: Option<Datagrams>,
    buffer: BytesMut,
}

/// Where reports go: to the port behind the one that RTP comes from.
struct Datagrams {
    rtcp: UdpSender,
    from: Rc<RefCell<Option<SocketAddr>>>,
}

/// Both families, where the machine has both.
fn any(port: u16) -> [SocketAddr; 2] {
    [
        (IpAddr::from(Ipv6Addr::UNSPECIFIED), port).into(),
        (IpAddr::from(Ipv4Addr::UNSPECIFIED), port).into(),
    ]
}

impl Sockets {
    /// Opens `port`, and for UDP the one behind it.
    pub fn bind(transport: MediaTransport, port: u16) -> io::Result<Self> {
        match transport {
            MediaTransport::TcpActive => Ok(Self::Connecting),
            MediaTransport::TcpPassive => listen(any(port)[0])
                .or_else(|_| listen(any(port)[1]))
                .map(Self::Listening),
            MediaTransport::Udp => {
                let pair = |rtp: SocketAddr, rtcp: SocketAddr| {
                    Ok::<_, io::Error>(Self::Udp {
                        rtp: UdpSocket::bind(rtp, RTP_RECEIVE_BUFFER)?,
                        rtcp: UdpSocket::bind(rtcp, RTCP_RECEIVE_BUFFER)?,
                    })
                };
                let (rtp, rtcp) = (any(port), any(port + 1));
                pair(rtp[0], rtcp[0]).or_else(|_| pair(rtp[1], rtcp[1]))
            }
        }
    }

    /// Whether nothing comes for this long.
    pub async fn are_quiet(&mut self, time: Duration) -> bool {
        match self {
            Self::Udp { rtp, .. } => timeout(time, rtp.recv_batch(&mut Vec::new())).await.is_err(),
            Self::Listening(_) | Self::Connecting => true,
        }
    }

    /// Starts to receive from `allowed` addresses.
    pub async fn receive<U: Units + 'static>(
        self,
        target: &Target,
        answered: &Answered,
        allowed: &[IpAddr],
        media: &Rc<RefCell<Media<U>>>,
    ) -> Result<Flow, End> {
        let name = |what: &str| TaskName::of_camera(&target.camera, what);
        let mut flow = Flow {
            tasks: Vec::new(),
            datagrams: None,
            buffer: BytesMut::new(),
        };
        match self {
            Self::Udp { rtp, rtcp } => {
                let from = Rc::new(RefCell::new(None));
                flow.datagrams = Some(Datagrams {
                    rtcp: rtcp.sender(),
                    from: from.clone(),
                });
                let task = packets(rtp, allowed.to_vec(), from, media.clone());
                flow.tasks.push(spawn(Class::Recording, name("rtp"), task));
                let task = reports(rtcp, allowed.to_vec(), media.clone());
                flow.tasks.push(spawn(Class::Recording, name("rtcp"), task));
            }
            Self::Listening(listener) => {
                let task = accept(listener, allowed.to_vec(), media.clone());
                flow.tasks.push(spawn(Class::Recording, name("media"), task));
            }
            Self::Connecting => {
                let stream = connect(answered).await?;
                let task = read(stream, media.clone());
                flow.tasks.push(spawn(Class::Recording, name("media"), task));
            }
        }
        Ok(flow)
    }
}

/// Listens, unless another program does: the listener shares its port with those of the same user.
fn listen(address: SocketAddr) -> io::Result<Listener> {
    std::net::TcpListener::bind(address)?;
    Listener::tcp(address)
}

/// Takes the RTP of `allowed` addresses: all from the port that the first packet of the session came from. A session that begins with
/// somebody else's packets goes over to the source that was agreed on as soon as that speaks.
async fn packets<U: Units>(
    mut socket: UdpSocket,
    allowed: Vec<IpAddr>,
    pinned: Rc<RefCell<Option<SocketAddr>>>,
    media: Rc<RefCell<Media<U>>>,
) -> End {
    let mut batch = Vec::with_capacity(16);
    loop {
        if let Err(error) = socket.recv_batch(&mut batch).await {
            return End::new(EndKind::Closed, format!("a UDP socket broke: {error}"));
        }
        let now = Instant::now();
        let (mut media, mut pinned) = (media.borrow_mut(), pinned.borrow_mut());
        for (source, data) in batch.drain(..) {
            let heard = match *pinned {
                Some(pinned) if pinned == source => true,
                Some(_) => allowed.contains(&source.ip()) && media.prefers(&data),
                None => allowed.contains(&source.ip()),
            };
            if heard && media.packet(now, data) {
                *pinned = Some(source);
            }
        }
    }
}

/// Takes the RTCP of `allowed` addresses.
async fn reports<U: Units>(mut socket: UdpSocket, allowed: Vec<IpAddr>, media: Rc<RefCell<Media<U>>>) -> End {
    let mut batch = Vec::with_capacity(16);
    loop {
        if let Err(error) = socket.recv_batch(&mut batch).await {
            return End::new(EndKind::Closed, format!("a UDP socket broke: {error}"));
        }
        let now = Instant::now();
        let mut media = media.borrow_mut();
        for (source, data) in batch.drain(..) {
            if allowed.contains(&source.ip()) {
                media.rtcp(now, &data);
            }
        }
    }
}

/// Takes the device's connection; others are closed.
async fn accept<U: Units>(listener: Listener, allowed: Vec<IpAddr>, media: Rc<RefCell<Media<U>>>) -> End {
    loop {
        match listener.accept().await {
            Ok(stream) if allowed.contains(&stream.peer_addr().ip().to_canonical()) => {
                // Who comes now is not wanted, and must not wait in the kernel.
                drop(listener);
                return read(stream, media).await;
            }
            Ok(stranger) => {
                let peer = stranger.peer_addr();
                tracing::debug!(%peer, "a connection to a media port is not from the device and is closed");
            }
            Err(error) => return End::new(EndKind::Closed, format!("the media port broke: {error}")),
        }
    }
}

/// The device's own address may be one behind a NAT; then that of its SIP messages is tried.
async fn connect(answered: &Answered) -> Result<Stream, End> {
    let port = answered.answer.port;
    if port == 0 {
        let reason = "the device agreed to tcp-active and did not say to which port to connect";
        return Err(End::new(EndKind::TransportRefused, reason));
    }
    let told = answered.answer.address.filter(|ip| !ip.is_unspecified());
    let mut last = String::new();
    for ip in told.into_iter().chain([answered.source]) {
        match Stream::connect(SocketAddr::new(ip, port), CONNECT_TIMEOUT).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("cannot connect to the device's media port {ip}:{port}: {error}"),
        }
    }
    Err(End::new(EndKind::TransportRefused, last))
}

async fn read<U: Units>(mut stream: Stream, media: Rc<RefCell<Media<U>>>) -> End {
    let mut framing = TcpFraming::new();
    let mut input = BytesMut::new();
    let mut unframed = 0;
    stream.set_gather(GATHER);
    loop {
        match stream.read_into(&mut input).await {
            Ok(0) => return End::new(EndKind::Closed, "the device closed the media connection"),
            Ok(_) => {}
            Err(error) => return End::new(EndKind::Closed, format!("the media connection broke: {error}")),
        }
        let now = Instant::now();
        let mut media = media.borrow_mut();
        while let Some(packet) = framing.next_packet(&mut input) {
            media.packet(now, packet);
        }
        let skipped = framing.skipped_bytes();
        media.unframed(skipped - std::mem::replace(&mut unframed, skipped));
    }
}

impl Flow {
    /// Sends a receiver report, where there is somewhere to send it to.
    pub fn report<U: Units>(&mut self, media: &mut Media<U>, now: Instant) {
        let Some(datagrams) = &self.datagrams else { return };
        let Some(from) = *datagrams.from.borrow() else { return };
        self.buffer.clear();
        if media.report(now, &mut self.buffer) {
            let to = SocketAddr::new(from.ip(), from.port().wrapping_add(1));
            // One that the socket does not take at once is left out.
            let _ = datagrams.rtcp.send_now(&self.buffer, to);
        }
    }
}

impl Future for Flow {
    type Output = Result<End, TaskPanicked>;

    /// Ready when a socket is over.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        for task in &mut self.tasks {
            if let Poll::Ready(end) = Pin::new(task).poll(cx) {
                return Poll::Ready(end);
            }
        }
        Poll::Pending
    }
}
