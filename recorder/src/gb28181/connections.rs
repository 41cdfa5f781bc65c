//! The sockets of the SIP server: which one a message leaves by, and the tasks of its TCP connections.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use corenvr_proto::gb28181::platform::{ConnectionId, Route, Transmit};
use corenvr_shard::{
    channel::{Receiver, Sender, bounded_named},
    net::{Stream, UdpSender},
    time::timeout,
};

/// Messages that may wait for a connection. A device that takes none for so long is gone.
const WAITING_MAX: usize = 256;
/// A connection that takes no byte for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Peers whose route is remembered; beyond, all are forgotten and looked up again.
const ROUTES_MAX: usize = 4096;

/// What a connection is told to do.
enum Order {
    Send(Bytes),
    Close,
}

/// The ways out.
#[derive(Default)]
pub(super) struct Outlets {
    udp: Vec<(SocketAddr, UdpSender)>,
    connections: HashMap<ConnectionId, Sender<Order>>,
    next: u64,
    routes: HashMap<IpAddr, IpAddr>,
}

/// The orders of one connection, for its task.
pub(super) struct Orders(Receiver<Order>);

/// What a connection's task saw.
pub(super) enum Seen {
    /// Bytes were appended to the buffer.
    Bytes,
    /// It is over.
    Closed,
}

impl Outlets {
    /// Adds a bound socket.
    pub fn add_udp(&mut self, bound: SocketAddr, sender: UdpSender) {
        self.udp.push((bound, sender));
    }

    /// Numbers a new connection.
    pub fn add_connection(&mut self) -> (ConnectionId, Orders) {
        self.next += 1;
        let id = ConnectionId(self.next);
        let (sender, receiver) = bounded_named("sip-connections", WAITING_MAX);
        self.connections.insert(id, sender);
        (id, Orders(receiver))
    }

    /// Forgets a connection.
    pub fn remove_connection(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
    }

    /// Asks a connection to end after what waits for it.
    pub fn close(&mut self, id: ConnectionId) {
        if let Some(orders) = self.connections.remove(&id) {
            // Full: its task ends by the closed channel instead.
            drop(orders.try_send(Order::Close));
        }
    }

    /// Sends. What cannot be sent now is lost, as on any network: SIP repeats over UDP, and a connection that is full is closed.
    pub fn send(&mut self, transmit: Transmit) {
        match transmit.route {
            Route::Udp { local, peer } => {
                let fits = |bound: &SocketAddr| {
                    bound.port() == local.port() && (bound.ip() == local.ip() || bound.ip().is_unspecified())
                };
                let own = self.udp.iter().find(|(bound, _)| fits(bound) && reaches(*bound, peer));
                if let Some((_, sender)) = own.or_else(|| self.udp.iter().find(|(bound, _)| reaches(*bound, peer)))
                    && let Err(error) = sender.send_now(&transmit.data, peer)
                {
                    tracing::debug!(%peer, %error, "a SIP message cannot be sent");
                }
            }
            Route::Tcp(id) => {
                let full = self
                    .connections
                    .get(&id)
                    .is_some_and(|orders| orders.try_send(Order::Send(transmit.data)).is_err());
                if full {
                    self.connections.remove(&id);
                }
            }
        }
    }

    /// The address of ours that packets to `peer` leave from, where `bound` does not say it.
    pub fn local(&mut self, bound: SocketAddr, peer: SocketAddr) -> SocketAddr {
        let ip = bound.ip().to_canonical();
        if !ip.is_unspecified() {
            return SocketAddr::new(ip, bound.port());
        }
        if self.routes.len() >= ROUTES_MAX {
            self.routes.clear();
        }
        let ip = *self.routes.entry(peer.ip()).or_insert_with(|| route_to(peer));
        SocketAddr::new(ip, bound.port())
    }
}

fn reaches(bound: SocketAddr, peer: SocketAddr) -> bool {
    peer.is_ipv4() == bound.is_ipv4() || (peer.is_ipv4() && bound.ip().is_unspecified())
}

/// Asks the kernel which of our addresses a packet to `peer` would have. Nothing is sent.
fn route_to(peer: SocketAddr) -> IpAddr {
    let any: IpAddr = if peer.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let asked = StdUdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(peer)?;
        socket.local_addr()
    });
    asked.map_or(peer.ip(), |a| a.ip().to_canonical())
}

impl Orders {
    /// Sends what there is to send until bytes have come or the connection is over.
    pub async fn drive(&mut self, stream: &mut Stream, buffer: &mut BytesMut) -> Seen {
        loop {
            let order = {
                let mut read = std::pin::pin!(stream.read_into(buffer));
                std::future::poll_fn(|cx| {
                    use std::{future::Future, task::Poll};
                    // What is to be sent first: an answer before the end that follows it.
                    if let Poll::Ready(order) = self.0.poll_recv(cx) {
                        return Poll::Ready(Err(order));
                    }
                    read.as_mut().poll(cx).map(Ok)
                })
                .await
            };
            match order {
                Ok(Ok(n)) if n > 0 => return Seen::Bytes,
                Err(Some(Order::Send(data))) => {
                    if !matches!(write(stream, &data).await, Ok(Ok(()))) {
                        return Seen::Closed;
                    }
                }
                Ok(_) | Err(Some(Order::Close) | None) => return Seen::Closed,
            }
        }
    }
}

async fn write(stream: &Stream, data: &[u8]) -> Result<io::Result<()>, corenvr_shard::time::Elapsed> {
    timeout(WRITE_TIMEOUT, stream.write_all(data)).await
}
