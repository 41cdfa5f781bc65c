//! Where requests come from: the control socket, the addresses of `[http]`, and how many connections there may be.

use std::{
    cell::RefCell, collections::HashMap, convert::Infallible, io, net::IpAddr, net::SocketAddr, path::Path, rc::Rc,
    time::Duration,
};

use corenvr_shard::{Class, Task, http::Limits, net, spawn, time, tls::Identity};
use hyper::{Request, body::Incoming, service::service_fn};

use super::{caller::Origin, server};
use crate::supervisor::appliance::Appliance;

/// Most connections to the control socket; one more is closed at once.
const LOCAL_CONNECTIONS_MAX: usize = 64;
/// Most connections over the network; one more is closed at once.
const CONNECTIONS_MAX: usize = 512;
/// Most connections of one address (of an IPv6 network of 64 bits); one more is closed at once, so that the others get through.
const CONNECTIONS_OF_ONE_MAX: usize = 32;
/// How long a TLS handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be accepted.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// An address is not to be had.
#[derive(Debug)]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

/// Listens on the socket and answers until the task is dropped.
pub fn on_socket(socket: &Path, appliance: Rc<Appliance>) -> io::Result<Task<()>> {
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        let message = "another recorder answers there";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    let listener = net::Listener::unix(socket)?;
    Ok(spawn(Class::Live, "api", async move {
        let connections = Rc::new(());
        loop {
            let Some(stream) = accept(&listener).await else {
                continue;
            };
            if Rc::strong_count(&connections) > LOCAL_CONNECTIONS_MAX {
                tracing::warn!(
                    max = LOCAL_CONNECTIONS_MAX,
                    "too many connections to the control socket; one is closed"
                );
                continue;
            }
            let (held, appliance) = (connections.clone(), appliance.clone());
            let task = spawn(Class::Live, "api-connection", async move {
                serve_local(stream, appliance).await;
                drop(held);
            });
            task.detach();
        }
    }))
}

/// Listens on addresses, with TLS where there is an identity for it, and answers until the tasks are dropped.
pub fn on_addresses(
    addresses: &[SocketAddr],
    identity: Option<&Identity>,
    doors: &Rc<Doors>,
    appliance: &Rc<Appliance>,
) -> Result<Vec<Task<()>>, ListenError> {
    let mut tasks = Vec::new();
    for &address in addresses {
        let listener = net::Listener::tcp(address).map_err(|source| ListenError { address, source })?;
        let (doors, appliance, identity) = (doors.clone(), appliance.clone(), identity.cloned());
        tasks.push(spawn(Class::Live, "http", async move {
            loop {
                let Some(stream) = accept(&listener).await else {
                    continue;
                };
                let peer = stream.peer_addr().ip().to_canonical();
                // Whoever is one too many learns it by the closed connection: an answer would cost what the limit is to save.
                let Some(place) = doors.enter(peer) else { continue };
                let (appliance, identity) = (appliance.clone(), identity.clone());
                let task = spawn(Class::Live, "http-connection", async move {
                    serve_network(stream, peer, identity, appliance).await;
                    drop(place);
                });
                task.detach();
            }
        }));
    }
    Ok(tasks)
}

async fn accept(listener: &net::Listener) -> Option<net::Stream> {
    match listener.accept().await {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::warn!(%error, "the API accepts no connection");
            time::sleep(ACCEPT_RETRY).await;
            None
        }
    }
}

async fn serve_local(stream: net::Stream, appliance: Rc<Appliance>) {
    // The socket's mode keeps others out already; a copied descriptor or a wrong umask does not get past this.
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_uid() {
        Ok(uid) if uid == 0 || uid == own => {}
        other => return tracing::warn!(peer = ?other, "a stranger on the control socket is refused"),
    }
    let origin = Origin { peer: None, tls: false };
    serve(stream, origin, appliance).await;
}

async fn serve_network(stream: net::Stream, peer: IpAddr, identity: Option<Identity>, appliance: Rc<Appliance>) {
    let origin = Origin {
        peer: Some(peer),
        tls: identity.is_some(),
    };
    let stream = match identity {
        None => stream,
        Some(identity) => match stream.accept_tls(&identity, HANDSHAKE_LIMIT).await {
            Ok(stream) => stream,
            Err(error) => return tracing::debug!(%error, %peer, "a TLS handshake failed"),
        },
    };
    serve(stream, origin, appliance).await;
}

async fn serve(stream: net::Stream, origin: Origin, appliance: Rc<Appliance>) {
    let service = service_fn(|request: Request<Incoming>| {
        let appliance = appliance.clone();
        async move { Ok::<_, Infallible>(server::answer(&appliance, origin, request).await) }
    });
    if let Err(error) = corenvr_shard::http::serve(stream, service, Limits::default()).await {
        tracing::debug!(%error, peer = ?origin.peer, "a connection to the API ended");
    }
}

/// Who is connected over the network: how many in all, and how many of each address.
#[derive(Default)]
pub struct Doors {
    inside: RefCell<HashMap<IpAddr, usize>>,
}

/// A connection's place; dropping it makes room for another.
pub struct Place {
    doors: Rc<Doors>,
    network: IpAddr,
}

impl Doors {
    /// Lets a connection in, unless there are too many.
    fn enter(self: &Rc<Self>, peer: IpAddr) -> Option<Place> {
        let network = network(peer);
        let mut inside = self.inside.borrow_mut();
        let all: usize = inside.values().sum();
        let own = inside.get(&network).copied().unwrap_or_default();
        if all >= CONNECTIONS_MAX || own >= CONNECTIONS_OF_ONE_MAX {
            tracing::debug!(%peer, all, own, "too many HTTP connections; one is closed");
            return None;
        }
        inside.insert(network, own + 1);
        Some(Place {
            doors: self.clone(),
            network,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.doors.inside.borrow_mut();
        if let Some(own) = inside.get_mut(&self.network) {
            *own -= 1;
            if *own == 0 {
                inside.remove(&self.network);
            }
        }
    }
}

/// What one household or host has at its disposal: an IPv4 address, or an IPv6 network of 64 bits.
fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_places_and_gives_back_what_it_had() {
        let doors = Rc::new(Doors::default());
        let greedy: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::ffff:2".parse().unwrap();
        let other: IpAddr = "192.0.2.1".parse().unwrap();
        let mut held: Vec<_> = std::iter::from_fn(|| doors.enter(greedy)).collect();
        assert_eq!(held.len(), CONNECTIONS_OF_ONE_MAX);
        assert!(doors.enter(neighbour).is_none(), "the same network");
        assert!(doors.enter(other).is_some());
        held.pop();
        assert!(doors.enter(neighbour).is_some());
        drop(held);
        assert!(doors.inside.borrow().is_empty());
    }

    #[test]
    fn there_is_an_end_to_connections_in_all() {
        let doors = Rc::new(Doors::default());
        let all: Vec<_> = (0..=255u8)
            .flat_map(|host| std::iter::repeat_n(IpAddr::from([192, 0, 2, host]), 4))
            .map_while(|peer| doors.enter(peer))
            .collect();
        assert_eq!(all.len(), CONNECTIONS_MAX);
    }
}
