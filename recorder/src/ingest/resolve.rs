//! Host names to addresses, one at a time: the system's resolver blocks a thread of a small pool that the files need too.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use corenvr_shard::{
    Class,
    channel::oneshot,
    net::resolve,
    spawn,
    time::{sleep, timeout},
};

/// How often a name that waits for its turn asks for it.
const TURN: Duration = Duration::from_millis(50);

thread_local! {
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// The turn; given back when the resolver has answered, not when its caller has lost patience.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        (!BUSY.replace(true)).then(|| Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        BUSY.set(false);
    }
}

/// Resolves a name within `limit`, waiting for its turn included. Literal addresses need no turn.
pub(super) async fn addresses(host: &str, port: u16, limit: Duration) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let found = timeout(limit, in_turn(host.to_owned(), port)).await;
    found.unwrap_or_else(|elapsed| Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)))
}

async fn in_turn(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let turn = loop {
        match Turn::take() {
            Some(turn) => break turn,
            None => sleep(TURN).await,
        }
    };
    let (answer, answered) = oneshot();
    let ask = async move {
        let found = resolve(&host, port).await;
        drop(turn);
        answer.send(found);
    };
    spawn(Class::Recording, "resolve", ask).detach();
    answered
        .await
        .unwrap_or_else(|| Err(io::Error::other("the resolver failed inside")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use corenvr_shard::run_control;

    #[test]
    fn names_wait_for_each_other_and_addresses_for_nobody() {
        run_control(async {
            let turn = Turn::take().unwrap();
            let short = Duration::from_millis(200);
            assert_eq!(addresses("::1", 554, short).await.unwrap().len(), 1);
            let error = addresses("localhost", 554, short).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            drop(turn);
            let found = addresses("localhost", 554, Duration::from_secs(20)).await.unwrap();
            assert!(found.iter().all(|a| a.ip().is_loopback()));
            assert!(Turn::take().is_some());
        })
        .unwrap();
    }
}
