//! One RTSP session: tracks set up, a range being played or paused, and what each request makes of that. What a PLAY is turned into is in
//! `play`; `begin` and `step` carry it out.

mod begin;
mod play;
mod step;

use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use corenvr_media::WallTime;
use corenvr_proto::rtsp::{
    Lower, Range, Response, StatusCode, Transport,
    server::{SessionId, reply},
};
use corenvr_shard::{Class, Task, TaskName, spawn};

use crate::{
    clients::Client,
    description::Described,
    feed::Feed,
    plan::Npt,
    player::Player,
    resource::What,
    transport::{Link, PortPair},
    wake::Flag,
    watch::Watch,
};

/// A session of a connection.
pub struct Session {
    /// Its identifier.
    pub id: SessionId,
    /// What is played.
    pub described: Rc<Described>,
    /// A receiver report came by UDP since this was looked at.
    pub heard: Rc<Cell<bool>>,
    watch: Rc<Watch>,
    client: Client,
    lower: Lower,
    peer: IpAddr,
    state: State,
    mode: Mode,
    /// Replay by ONVIF's rules.
    onvif: bool,
    /// Where the current range ends, and whether it is played backward.
    until: Option<(bool, Npt)>,
    /// Positions are told in UTC, because the client asked in UTC.
    in_utc: bool,
    channels: Vec<(usize, u8)>,
    receivers: Vec<Task<()>>,
}

enum State {
    Idle(Box<Player>),
    Playing {
        task: Task<Box<Player>>,
        stop: Rc<Flag>,
    },
    /// Its task failed inside.
    Lost,
}

/// What the session plays, or would play without a Range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nothing was played yet.
    New,
    Live,
    /// The range of the URL.
    Range,
    /// A UTC range on a live URL; open ones join the present.
    Clock {
        open: bool,
    },
}

/// Who asks, and how.
pub struct Asker {
    /// The client's address.
    pub peer: SocketAddr,
    /// Who has logged in.
    pub user: Option<String>,
    /// What is known of the program.
    pub client: Client,
}

fn invalid_state(reason: &'static str) -> Response {
    Response::new(StatusCode::METHOD_NOT_VALID_IN_STATE).because(reason)
}

impl Session {
    /// A session without tracks.
    pub fn new(
        id: SessionId,
        described: Rc<Described>,
        asker: &Asker,
        lower: Lower,
        player: Player,
        watch: Rc<Watch>,
    ) -> Self {
        Self {
            id,
            heard: Rc::default(),
            watch,
            client: asker.client,
            lower,
            peer: asker.peer.ip(),
            state: State::Idle(Box::new(player)),
            mode: Mode::New,
            onvif: described.resource.what == What::Replay,
            until: None,
            in_utc: false,
            channels: Vec::new(),
            receivers: Vec::new(),
            described,
        }
    }

    /// How its packets travel.
    pub const fn lower(&self) -> Lower {
        self.lower
    }

    /// Channels of the connection that it uses.
    pub fn channels(&self) -> impl Iterator<Item = u8> {
        self.channels.iter().flat_map(|(_, c)| [*c, c.wrapping_add(1)])
    }

    /// Sets a track up. `transport` is the client's, with a free pair of channels filled in. Returns ours.
    pub fn setup(&mut self, track: usize, transport: &Transport, local: IpAddr) -> Result<Transport, Response> {
        if !matches!(self.state, State::Idle(_)) {
            return Err(invalid_state("Pause before another track is set up"));
        }
        let described = self.described.clone();
        let (Some(parameters), Some(format)) = (described.tracks.get(track), described.formats.get(track)) else {
            return Err(reply::not_found("There is no such track"));
        };
        let mut answer = transport.clone();
        let link = match (transport.interleaved, transport.client_port) {
            (Some((rtp, rtcp)), _) if transport.lower == Lower::Tcp => {
                self.channels.retain(|(t, _)| *t != track);
                self.channels.push((track, rtp));
                Link::Interleaved { rtp, rtcp }
            }
            (_, Some((rtp, rtcp))) if transport.lower == Lower::Udp => {
                let pair = PortPair::bind(local).map_err(|error| {
                    tracing::warn!(%error, "no UDP ports for a session");
                    Response::new(StatusCode::SERVICE_UNAVAILABLE).because("No UDP ports are free")
                })?;
                answer.server_port = Some(pair.ports());
                self.datagrams(pair, (rtp, rtcp))
            }
            _ => return Err(Response::new(StatusCode::UNSUPPORTED_TRANSPORT)),
        };
        let State::Idle(player) = &mut self.state else {
            return Err(lost());
        };
        player.outlet.remove(track);
        answer.ssrc = Some(player.outlet.add(track, parameters, format.payload_type, link));
        Ok(answer)
    }

    fn datagrams(&mut self, pair: PortPair, client: (u16, u16)) -> Link {
        let link = Link::Datagrams {
            rtp: (pair.rtp.sender(), SocketAddr::new(self.peer, client.0)),
            rtcp: (pair.rtcp.sender(), SocketAddr::new(self.peer, client.1)),
        };
        let (heard, peer, mut socket) = (self.heard.clone(), self.peer, pair.rtcp);
        let listen = async move {
            let mut batch = Vec::new();
            while socket.recv_batch(&mut batch).await.is_ok() {
                // Whatever it says, it comes from the viewer's host: the viewer is there.
                if batch.drain(..).any(|(from, _)| from.ip() == peer) {
                    heard.set(true);
                }
            }
        };
        self.receivers.push(spawn(Class::Playback, "receiver reports", listen));
        link
    }

    /// Takes one track out. Returns whether none is left.
    pub async fn remove_track(&mut self, track: usize) -> Result<bool, Response> {
        self.channels.retain(|(t, _)| *t != track);
        let was_playing = matches!(self.state, State::Playing { .. });
        let player = self.halt().await?;
        player.outlet.remove(track);
        let empty = player.outlet.is_empty();
        if was_playing && !empty {
            self.go();
        }
        Ok(empty)
    }

    /// Stops sending. When this returns, every packet of what was played is on its way before whatever is written next.
    async fn halt(&mut self) -> Result<&mut Player, Response> {
        if let State::Playing { .. } = self.state
            && let State::Playing { task, stop } = std::mem::replace(&mut self.state, State::Lost)
        {
            stop.set();
            if let Ok(player) = task.await {
                self.state = State::Idle(player);
            }
        }
        match &mut self.state {
            State::Idle(player) => Ok(player),
            _ => Err(lost()),
        }
    }

    /// Sends again what was begun or resumed.
    pub fn go(&mut self) {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Idle(player) => {
                let live = player.feed().is_some_and(Feed::is_live);
                let class = if live { Class::Live } else { Class::Playback };
                let stop = Rc::new(Flag::default());
                let task = spawn(
                    class,
                    TaskName::of_camera(&self.described.resource.camera, "play"),
                    player.run(stop.clone()),
                );
                self.state = State::Playing { task, stop };
            }
            other => self.state = other,
        }
    }

    /// PAUSE: stops, and says where.
    pub async fn pause(&mut self) -> Result<Option<Range>, Response> {
        let player = self.halt().await?;
        let Some(npt) = player.position() else { return Ok(None) };
        let wall = player.wall_of(npt);
        let end = player.feed().and_then(Feed::end);
        Ok(Some(self.told(npt, wall, end, None)))
    }

    /// A position in the unit that the client asks in.
    fn told(&self, npt: Npt, wall: Option<WallTime>, end: Option<Npt>, wall_end: Option<WallTime>) -> Range {
        let at = |npt: Npt| Duration::from_micros(self.described.clip_time(npt).0.max(0) as u64);
        match (self.in_utc, wall, end) {
            (true, Some(wall), _) => Range::clock(wall, wall_end),
            (_, _, Some(end)) => Range::npt(at(npt), at(end)),
            _ => Range::npt_from(at(npt)),
        }
    }
}

fn lost() -> Response {
    Response::new(StatusCode::INTERNAL_SERVER_ERROR).because("The session failed inside; see the log of the recorder")
}
