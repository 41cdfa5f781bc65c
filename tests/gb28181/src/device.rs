//! The handle of a running device.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    ChannelConfig, DeviceConfig, Log, SessionId,
    sip::{self, Command, Input},
};

/// How long a device that is dropped may take to say goodbye.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);

/// An alarm (GB/T 28181-2022 A.2.5.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// The channel, or the device itself.
    pub id: String,
    /// 1 (gravest) to 4.
    pub priority: u8,
    /// 1 telephone, 2 device, 3 SMS, 4 GPS, 5 video, 6 device fault, 7 other.
    pub method: u8,
    /// The kind of alarm within its method, such as 2 (motion) of method 5.
    pub kind: u8,
    /// A description.
    pub description: String,
}

/// A device that runs until it is dropped.
#[derive(Debug)]
pub struct Device {
    log: Arc<Log>,
    inbox: mpsc::Sender<Input>,
    agent: Option<JoinHandle<()>>,
}

impl Device {
    /// Starts a device: it registers at once. An error means that this machine gives it no socket; a platform that does not answer
    /// is tried again and again, as devices do.
    pub fn start(config: DeviceConfig) -> io::Result<Self> {
        let log = Arc::new(Log::default());
        let (inbox, agent) = sip::start(config, log.clone())?;
        Ok(Self {
            log,
            inbox,
            agent: Some(agent),
        })
    }

    /// What was sent and received so far.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Waits until a registration is accepted.
    pub fn wait_registered(&self, timeout: Duration) -> bool {
        let registered = |e: &crate::Event| matches!(e, crate::Event::Registered { .. });
        self.log.wait_event(timeout, registered).is_some()
    }

    /// Waits for the first media session that has been acknowledged and not ended, whatever it is for.
    pub fn wait_invite(&self, timeout: Duration) -> Option<SessionId> {
        self.wait_invite_after(None, timeout)
    }

    /// Waits for an acknowledged media session that is newer than `after`.
    pub fn wait_invite_after(&self, after: Option<SessionId>, timeout: Duration) -> Option<SessionId> {
        use crate::SessionState::{Answered, Ended};
        self.log.wait(timeout, |s| {
            let mut new = s.sessions.iter().filter(|s| after.is_none_or(|a| s.id > a));
            new.find(|s| !matches!(s.state, Answered | Ended(_))).map(|s| s.id)
        })
    }

    /// Waits until a session has sent so many access units.
    pub fn wait_units(&self, session: SessionId, count: u64, timeout: Duration) -> bool {
        let enough = |s: &crate::LogState| {
            s.sessions
                .get(session.0 as usize)
                .filter(|s| s.units_sent >= count)
                .map(|_| ())
        };
        self.log.wait(timeout, enough).is_some()
    }

    /// Waits until a session has ended; its cause.
    pub fn wait_ended(&self, session: SessionId, timeout: Duration) -> Option<crate::EndCause> {
        self.log
            .wait(timeout, |s| match s.sessions.get(session.0 as usize)?.state {
                crate::SessionState::Ended(cause) => Some(cause),
                _ => None,
            })
    }

    /// Sends keepalives (the default) or not: a device without keepalives is offline.
    pub fn set_keepalives(&self, on: bool) {
        self.command(Command::Keepalives(on));
    }

    /// Sends a keepalive now.
    pub fn keepalive_now(&self) {
        self.command(Command::KeepaliveNow);
    }

    /// Registers again now.
    pub fn register_now(&self) {
        self.command(Command::Register);
    }

    /// Unregisters and stays silent until [`Self::register_now`].
    pub fn unregister(&self) {
        self.command(Command::Unregister);
    }

    /// Closes the SIP socket or connection without a word and goes on with a new one: from another port, and over TCP with a new registration.
    pub fn reconnect(&self) {
        self.command(Command::Reconnect);
    }

    /// Adds a channel to the catalog; subscribers are notified (`Event` ADD).
    pub fn add_channel(&self, channel: ChannelConfig) {
        self.command(Command::AddChannel(channel));
    }

    /// Removes a channel from the catalog; subscribers are notified (`Event` DEL) and its sessions end by BYE.
    pub fn remove_channel(&self, id: &str) {
        self.command(Command::RemoveChannel(id.into()));
    }

    /// Says of a channel that it is on or off; subscribers are notified (`Event` ON, OFF).
    pub fn set_channel_online(&self, id: &str, online: bool) {
        self.command(Command::ChannelOnline(id.into(), online));
    }

    /// Raises an alarm: a MESSAGE, and a NOTIFY to subscribers.
    pub fn raise_alarm(&self, alarm: Alarm) {
        self.command(Command::Alarm(alarm));
    }

    /// Ends a session by BYE.
    pub fn hang_up(&self, session: SessionId) {
        self.command(Command::HangUp(session));
    }

    /// Stops sending the media of a session without a word; the dialog and, over TCP, the connection stay.
    pub fn stall(&self, session: SessionId) {
        self.command(Command::Stall(session));
    }

    /// Falls silent at once, as by a power cut: no BYE, no REGISTER.
    pub fn power_cut(mut self) {
        self.stop(false);
    }

    fn command(&self, command: Command) {
        // An agent that is gone has nothing to be told.
        drop(self.inbox.send(Input::Command(command)));
    }

    fn stop(&mut self, goodbye: bool) {
        let limit = if goodbye { GOODBYE_LIMIT } else { Duration::ZERO };
        self.command(Command::Stop(limit));
        if let Some(agent) = self.agent.take() {
            // A panic of the agent has been printed already.
            drop(agent.join());
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.agent.is_some() {
            self.stop(true);
        }
    }
}
