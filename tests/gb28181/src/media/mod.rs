//! The thread that sends the media of all channels of a device.

pub mod cursor;
pub mod ps;
pub mod rtp;
pub mod session;

use std::{
    collections::BTreeMap,
    io,
    net::TcpStream,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use self::session::{Common, Link, Plan, STRAGGLE, Session, Turn};
use crate::{Deviation, Log, SessionId, SessionState, sip::Input};

/// What is due within this is sent together: fewer wake-ups.
const TICK: Duration = Duration::from_millis(2);
/// How long the thread sleeps when there is nothing to send.
const IDLE: Duration = Duration::from_secs(3600);
/// How long a TCP connection to the platform may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How late a late connection is.
const LATE_CONNECT: Duration = Duration::from_secs(4);

/// What the thread is told.
#[derive(Debug)]
pub enum Order {
    /// A session that was acknowledged.
    Start(Box<Plan>, Link),
    /// A connection was made, or not.
    Connected(SessionId, io::Result<TcpStream>),
    Control(SessionId, Control, mpsc::Sender<Position>),
    KeyFrame(SessionId),
    Stall(SessionId),
    End(SessionId),
    Stop,
}

/// What MANSRTSP asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Control {
    Pause,
    /// Plays: from there (1/90 000 s from the range's start), at that speed.
    Play {
        from_90k: Option<i64>,
        scale: Option<f64>,
    },
    /// Nothing changes.
    Look,
}

/// Where the next packet stands: for `RTP-Info`.
#[derive(Debug)]
pub struct Position {
    pub seq: u16,
    pub rtp_time: u32,
}

/// Starts the thread; its reports go to `agent`.
pub fn start(
    common: Common,
    log: Arc<Log>,
    agent: mpsc::Sender<Input>,
) -> io::Result<(mpsc::Sender<Order>, JoinHandle<()>)> {
    let (orders, inbox) = mpsc::channel();
    let media = Media {
        common,
        log,
        agent,
        orders: orders.clone(),
        sessions: BTreeMap::new(),
    };
    let thread = std::thread::Builder::new()
        .name("gb28181-media".into())
        .spawn(move || media.run(&inbox))?;
    Ok((orders, thread))
}

struct Media {
    common: Common,
    log: Arc<Log>,
    agent: mpsc::Sender<Input>,
    orders: mpsc::Sender<Order>,
    sessions: BTreeMap<SessionId, Session>,
}

impl Media {
    fn run(mut self, inbox: &mpsc::Receiver<Order>) {
        let mut next = Instant::now() + IDLE;
        loop {
            let wait = next.saturating_duration_since(Instant::now()).max(TICK);
            let mut order = match inbox.recv_timeout(wait) {
                Ok(order) => Some(order),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            while let Some(o) = order {
                if matches!(o, Order::Stop) {
                    return;
                }
                self.obey(o);
                order = inbox.try_recv().ok();
            }
            next = self.turn();
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Stop => {}
            Order::Start(plan, link) => self.begin(*plan, link),
            Order::Connected(id, result) => {
                let Some(session) = self.sessions.get_mut(&id) else {
                    return;
                };
                if result.and_then(|stream| session.connected(stream)).is_err() {
                    self.broken(id);
                }
            }
            Order::Control(id, control, reply) => self.control(id, control, &reply),
            Order::KeyFrame(id) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.cursor.skip_to_key();
                }
            }
            Order::Stall(id) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.stalled = true;
                }
            }
            Order::End(id) => {
                if self.common.deviations.has(Deviation::Stragglers)
                    && let Some(session) = self.sessions.get_mut(&id)
                {
                    session.until = Some(Instant::now() + STRAGGLE);
                } else {
                    self.sessions.remove(&id);
                }
            }
        }
    }

    fn begin(&mut self, plan: Plan, link: Link) {
        let id = plan.id;
        let waits = matches!(link, Link::None);
        if waits {
            let late = self.common.deviations.has(Deviation::LateConnect);
            let (orders, remote) = (self.orders.clone(), plan.remote);
            // Connecting blocks; the other sessions go on meanwhile.
            let connecting = std::thread::Builder::new()
                .name("gb28181-connect".into())
                .spawn(move || {
                    if late {
                        std::thread::sleep(LATE_CONNECT);
                    }
                    let result = TcpStream::connect_timeout(&remote, CONNECT_LIMIT);
                    // A device that has ended meanwhile needs no connection.
                    drop(orders.send(Order::Connected(id, result)));
                });
            if connecting.is_err() {
                self.broken(id);
                return;
            }
        }
        let state = if waits || matches!(link, Link::Listening(_)) {
            SessionState::Connecting
        } else {
            SessionState::Streaming
        };
        self.log.session_mut(id, |s| s.state = state);
        self.sessions.insert(id, Session::new(plan, link, self.common.clone()));
    }

    fn control(&mut self, id: SessionId, control: Control, reply: &mpsc::Sender<Position>) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        match control {
            Control::Pause => session.paused = true,
            Control::Play { from_90k, scale } => {
                session.paused = false;
                session.cursor.resume();
                if let Some(scale) = scale {
                    session.cursor.set_scale(scale);
                }
                if let Some(from) = from_90k {
                    session.cursor.seek(from);
                    session.restart();
                }
            }
            Control::Look => {}
        }
        let state = if session.paused {
            SessionState::Paused
        } else {
            SessionState::Streaming
        };
        if control != Control::Look {
            self.log.session_mut(id, |s| s.state = state);
        }
        let position = Position {
            seq: session.packets.seq,
            rtp_time: session.next_rtp_time(),
        };
        // The agent has stopped waiting.
        drop(reply.send(position));
    }

    /// Lets every session send; the moment at which the next one is due.
    fn turn(&mut self) -> Instant {
        let at = Instant::now();
        let mut next = at + IDLE;
        let mut broken = Vec::new();
        let mut sent = Vec::new();
        for (id, session) in &mut self.sessions {
            match session.turn(at) {
                Turn::Until(then) => next = next.min(then),
                Turn::Idle => {}
                Turn::Sent => sent.push(*id),
                Turn::Broken => broken.push(*id),
            }
            if let Some(until) = session.until {
                next = next.min(until);
            }
        }
        self.note(&sent);
        for id in sent {
            drop(self.agent.send(Input::MediaSent(id)));
            // Whether the connection ends is seen at the next turn.
            next = next.min(at + TICK);
        }
        for id in broken {
            self.broken(id);
        }
        next
    }

    /// Writes what this turn did into the log.
    fn note(&mut self, sent: &[SessionId]) {
        let news = |s: &Session| s.progress.units_sent > 0 || s.progress.connected.is_some() || s.progress.stalls > 0;
        let draining = |s: &Session| s.started() && s.packets.is_empty();
        if sent.is_empty() && !self.sessions.values().any(|s| news(s) || draining(s)) {
            return;
        }
        let sessions = &mut self.sessions;
        self.log.change(|state| {
            for (id, session) in sessions {
                let Some(log) = state.sessions.get_mut(id.0 as usize) else {
                    continue;
                };
                let progress = &mut session.progress;
                log.units.append(&mut progress.units);
                log.units_sent += std::mem::take(&mut progress.units_sent);
                log.stalls += std::mem::take(&mut progress.stalls);
                log.packets_sent = session.packets.sent;
                log.packets_lost = session.packets.lost;
                let over = matches!(log.state, SessionState::Ended(_));
                if let Some(local) = progress.connected.take() {
                    log.local = Some(local);
                    if !over {
                        log.state = SessionState::Streaming;
                    }
                }
                if sent.contains(id) && !over {
                    log.state = SessionState::Sent;
                }
            }
        });
    }

    fn broken(&mut self, id: SessionId) {
        let straggler = self.sessions.remove(&id).is_some_and(|s| s.until.is_some());
        if !straggler {
            // An agent that is gone does not care.
            drop(self.agent.send(Input::MediaBroken(id)));
        }
    }
}
