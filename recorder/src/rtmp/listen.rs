//! The RTMP port: connections are accepted on the control executor, taken as far as `publish`, and handed to the shard of the camera whose
//! key they name, or refused.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use corenvr_proto::rtmp::server::{PublishRequest, Server, ServerEvent};
use corenvr_shard::{
    Class, Stop,
    net::{Listener, Stream},
    spawn,
    time::{sleep, timeout},
};

use super::{Publisher, Publishers, hand_over, lock};

/// Connections that have not published yet. Further ones are closed at once.
pub const HALF_OPEN_MAX: usize = 128;
/// The same for one address: a single host must not take the places of all others.
pub const HALF_OPEN_PER_ADDRESS_MAX: usize = 16;
/// A refusal comes this late, and keeps its place among the half-open connections for as long: guessing keys takes time.
pub const REFUSAL_DELAY: Duration = Duration::from_secs(1);
/// How long a peer may take to read what we send, and to close after a refusal.
const FAREWELL: Duration = Duration::from_secs(2);
/// Bytes of a refused peer that are read and thrown away, so that closing does not overtake the refusal.
const FAREWELL_BYTES_MAX: usize = 4 << 20;
/// After an error of accepting.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for RTMP: {source}")]
pub struct ListenError {
    /// Which.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// The bound sockets. They stay on the executor that bound them.
pub struct Listeners {
    list: Vec<Listener>,
    publishers: Publishers,
}

impl Listeners {
    /// Listens on every address.
    pub fn bind(addresses: &[SocketAddr], publishers: Publishers) -> Result<Self, ListenError> {
        let bind = |&address: &SocketAddr| Listener::tcp(address).map_err(|source| ListenError { address, source });
        let list = addresses.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        *lock(&publishers.0.listening) = list.iter().map(Listener::local_addr).collect();
        Ok(Self { list, publishers })
    }

    /// Accepts connections until `stop` is requested.
    pub async fn serve(self, stop: Stop) {
        let door = Rc::new(Door::default());
        let loops: Vec<_> = self
            .list
            .into_iter()
            .map(|listener| {
                let (door, publishers) = (door.clone(), self.publishers.clone());
                spawn(Class::Live, "rtmp accept", accept(listener, door, publishers))
            })
            .collect();
        stop.requested().await;
        for task in loops {
            task.cancel().await;
        }
    }
}

/// How many connections have not published yet, and from where.
#[derive(Default)]
struct Door(RefCell<HashMap<IpAddr, usize>>);

/// The place of one such connection.
struct Place {
    door: Rc<Door>,
    address: IpAddr,
}

impl Door {
    fn enter(self: &Rc<Self>, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut inside = self.0.borrow_mut();
        if inside.values().sum::<usize>() >= HALF_OPEN_MAX {
            return None;
        }
        let here = inside.entry(address).or_default();
        if *here >= HALF_OPEN_PER_ADDRESS_MAX {
            return None;
        }
        *here += 1;
        let door = self.clone();
        Some(Place { door, address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.door.0.borrow_mut();
        if let Some(here) = inside.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                inside.remove(&self.address);
            }
        }
    }
}

async fn accept(listener: Listener, door: Rc<Door>, publishers: Publishers) {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                let address = stream.peer_addr();
                if let Some(place) = door.enter(address.ip()) {
                    let publishers = publishers.clone();
                    let greeting = async move {
                        greet(stream, address, &publishers).await;
                        drop(place);
                    };
                    spawn(Class::Live, "rtmp connection", greeting).detach();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "an RTMP connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Takes a connection as far as `publish` and decides on it.
async fn greet(mut stream: Stream, address: SocketAddr, publishers: &Publishers) {
    let mut server = Server::new(Instant::now(), rand::random());
    let mut input = BytesMut::new();
    loop {
        let more = server.handle_input(Instant::now(), &mut input);
        if !transmit(&stream, &mut server).await {
            return;
        }
        match server.poll_event() {
            Some(ServerEvent::Publish(request)) => {
                return decide(stream, address, server, input, request, publishers).await;
            }
            Some(ServerEvent::Closed(reason)) => {
                tracing::debug!(%address, %reason, "an RTMP connection ended before it published");
                return part(stream).await;
            }
            Some(ServerEvent::Media(_) | ServerEvent::Unpublished) => {}
            None if more => {}
            None => match read(&mut stream, &mut input, server.poll_timeout()).await {
                Some(Ok(0) | Err(_)) => return,
                Some(Ok(_)) => {}
                None => server.handle_timeout(Instant::now()),
            },
        }
    }
}

/// Reads until a deadline; `None` when that came first.
async fn read(stream: &mut Stream, input: &mut BytesMut, deadline: Option<Instant>) -> Option<io::Result<usize>> {
    let left = deadline.map_or(FAREWELL, |d| d.saturating_duration_since(Instant::now()));
    let mut pause = pin!(sleep(left));
    let mut read = pin!(stream.read_into(input));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = read.as_mut().poll(cx) {
            return Poll::Ready(Some(result));
        }
        pause.as_mut().poll(cx).map(|()| None)
    })
    .await
}

async fn decide(
    stream: Stream,
    address: SocketAddr,
    server: Server,
    input: BytesMut,
    request: PublishRequest,
    publishers: &Publishers,
) {
    let (stream, server, request, reason) = if let Some(arrivals) = publishers.expected(&request.key) {
        let Ok(stream) = stream.detach() else { return };
        let publisher = Publisher {
            stream,
            server: Box::new(server),
            input,
            address,
            request,
        };
        let Err(back) = hand_over(&arrivals, publisher) else {
            return;
        };
        let Ok(stream) = back.stream.attach() else { return };
        let reason = "too many publishers wait with this stream key: try again";
        (stream, *back.server, back.request, reason)
    } else {
        let reason = "no camera has this stream key: add one with the URL rtmp+listen://KEY, or correct the key";
        (stream, server, request, reason)
    };
    publishers.note_refused(address, &request, reason);
    sleep(REFUSAL_DELAY).await;
    send_away(stream, server, reason).await;
}

/// Tells a publisher why it is refused, and closes.
pub(super) async fn send_away(stream: Stream, mut server: Server, reason: &str) {
    server.refuse(reason);
    if transmit(&stream, &mut server).await {
        part(stream).await;
    }
}

/// Closes so that what was written arrives: what the peer still sends is read for a moment, since closing with bytes unread resets the
/// connection.
async fn part(mut stream: Stream) {
    if stream.shutdown_write().is_err() {
        return;
    }
    let drained = async {
        let (mut waste, mut total) = (BytesMut::new(), 0);
        while let Ok(n @ 1..) = stream.read_into(&mut waste).await {
            waste.clear();
            total += n;
            if total > FAREWELL_BYTES_MAX {
                return;
            }
        }
    };
    // Whoever takes longer is cut off.
    let _ = timeout(FAREWELL, drained).await;
}

/// Sends what waits to be sent; false if the peer does not take it.
async fn transmit(stream: &Stream, server: &mut Server) -> bool {
    while let Some(bytes) = server.poll_transmit() {
        if !matches!(timeout(FAREWELL, stream.write_all(&bytes)).await, Ok(Ok(()))) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_places() {
        let door = Rc::new(Door::default());
        let enter = |last: u8| door.enter(IpAddr::from([192, 0, 2, last]));
        let mut places: Vec<_> = (0..HALF_OPEN_PER_ADDRESS_MAX).map(|_| enter(1).unwrap()).collect();
        assert!(enter(1).is_none());
        // The same address, written as IPv6.
        assert!(door.enter("::ffff:192.0.2.1".parse().unwrap()).is_none());
        places.pop();
        places.push(enter(1).unwrap());
        for last in 2.. {
            match enter(last) {
                Some(place) => places.push(place),
                None => break,
            }
        }
        assert_eq!(places.len(), HALF_OPEN_MAX);
        places.clear();
        assert!(door.0.borrow().is_empty());
    }
}
