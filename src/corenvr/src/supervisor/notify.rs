//! Telling systemd how the service is: datagrams to the socket it names (`sd_notify(3)`).

use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

/// The way to systemd; without one every call does nothing.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// As the environment says.
    pub fn from_environment() -> Self {
        let path = std::env::var("NOTIFY_SOCKET").ok();
        let pid_matches = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let watchdog_us = std::env::var("WATCHDOG_USEC").ok().and_then(|us| us.parse().ok());
        let watchdog = watchdog_us
            .filter(|us| pid_matches && *us > 0)
            .map(Duration::from_micros);
        path.map_or_else(Self::default, |path| Self::to(&path, watchdog))
    }

    pub(super) fn to(path: &str, watchdog: Option<Duration>) -> Self {
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(path),
        };
        let socket = UnixDatagram::unbound().and_then(|s| {
            s.set_nonblocking(true)?;
            Ok((s, address?))
        });
        match socket {
            Ok(socket) => Self {
                socket: Some(socket),
                watchdog,
            },
            Err(error) => {
                tracing::warn!(%error, "cannot reach systemd's notify socket");
                Self::default()
            }
        }
    }

    /// After how long without a sign of life systemd ends the service, if it does.
    pub fn watchdog_limit(&self) -> Option<Duration> {
        self.socket.as_ref()?;
        self.watchdog
    }

    /// The service does what it is for.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// A line for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    /// Start-up takes longer: systemd is to wait this much from now on.
    pub fn extend_start(&self, by: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()));
    }

    /// The service is going down.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=Finishing the open recordings");
    }

    /// A sign of life.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, state: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(state.as_bytes(), address)
        {
            tracing::debug!(%error, "systemd's notify socket took no message");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_over_a_path_and_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let abstract_name = format!("corenvr-test-{}", std::process::id());
        let sockets = [
            (path.to_str().unwrap().to_owned(), UnixDatagram::bind(&path).unwrap()),
            (
                format!("@{abstract_name}"),
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap()).unwrap(),
            ),
        ];
        for (name, receiver) in sockets {
            let notify = Notify::to(&name, Some(Duration::from_secs(30)));
            assert_eq!(notify.watchdog_limit(), Some(Duration::from_secs(30)));
            notify.ready("all well");
            let mut buffer = [0; 256];
            let n = receiver.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], b"READY=1\nSTATUS=all well");
        }
        let silent = Notify::default();
        silent.stopping();
        assert_eq!(silent.watchdog_limit(), None);
    }
}
