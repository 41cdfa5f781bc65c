//! Signals, on a thread of their own, as events for the control executor.

use std::io;

use corenvr_shard::channel::Sender;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// What the supervisor reacts to.
#[derive(Debug)]
pub enum Event {
    /// Stop in order.
    Stop,
    /// Read the configuration again.
    Reload,
    /// A part that cannot be done without has failed.
    Failed(String),
}

/// Starts to forward signals. A second request to stop does not wait for the first.
pub fn forward(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        corenvr_shard::crash::prepare_thread();
        let mut stopping = false;
        for signal in signals.forever() {
            let event = match signal {
                SIGHUP => Event::Reload,
                _ if stopping => {
                    tracing::warn!("stopped at once; what is open is recovered at the next start");
                    std::process::exit(1);
                }
                _ => {
                    stopping = true;
                    Event::Stop
                }
            };
            // Full means that a reload is waiting already; a stop is repeated by whoever wants it.
            if let Err(error) = events.try_send(event) {
                tracing::warn!(?error, "too many signals at once; one is ignored");
            }
        }
    })?;
    Ok(())
}
