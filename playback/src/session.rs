//! One RTSP session: tracks set up, a range being played or paused, and what each request makes of that.

use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use corenvr_media::{TimeRange, WallTime};
use corenvr_proto::rtsp::{
    ClockRange, FrameFilter, Lower, NptRange, NptTime, Range, Rate, Response, RtpInfo, StatusCode, Transport,
    server::{
        PlayRequest, SessionId,
        reply::{self, PlayReply},
    },
};
use corenvr_shard::{Class, Task, spawn, time};

use crate::{
    access::{Access, Action},
    clients::Client,
    description::{Described, find_range, live_failed},
    feed::{Ending, Feed},
    plan::{Gaps, Npt, Plan, Timeline},
    player::{Player, Start},
    server::Shared,
    transport::{Link, PortPair},
    wake::Flag,
};

/// Footage younger than this may be in memory only: an open range from there, with nothing on disk, is the present.
const UNWRITTEN_MAX: Duration = Duration::from_secs(30);

/// A session of a connection.
pub struct Session {
    /// Its identifier.
    pub id: SessionId,
    /// What is played.
    pub described: Rc<Described>,
    /// A receiver report came by UDP since this was looked at.
    pub heard: Rc<Cell<bool>>,
    user: Option<String>,
    client: Client,
    lower: Lower,
    peer: IpAddr,
    state: State,
    mode: Mode,
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

fn not_served(what: &'static str) -> Response {
    Response::new(StatusCode::NOT_IMPLEMENTED).because(what)
}

impl Session {
    /// A session without tracks.
    pub fn new(id: SessionId, described: Rc<Described>, asker: &Asker, lower: Lower, player: Player) -> Self {
        Self {
            id,
            described,
            heard: Rc::default(),
            user: asker.user.clone(),
            client: asker.client,
            lower,
            peer: asker.peer.ip(),
            state: State::Idle(Box::new(player)),
            mode: Mode::New,
            in_utc: false,
            channels: Vec::new(),
            receivers: Vec::new(),
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
                    format!("play {}", self.described.resource.camera),
                    player.run(stop.clone()),
                );
                self.state = State::Playing { task, stop };
            }
            other => self.state = other,
        }
    }

    /// PAUSE: stops, and says where.
    pub async fn pause(&mut self) -> Result<Option<Range>, Response> {
        let in_utc = self.in_utc;
        let player = self.halt().await?;
        let Some(npt) = player.position() else { return Ok(None) };
        let wall = player.wall_of(npt);
        let end = player.feed().and_then(Feed::end);
        Ok(Some(told(in_utc, npt, wall, end, None)))
    }

    /// PLAY: stops what is played, begins what is asked, and says what that is. [`Self::go`] sends it.
    pub async fn play(&mut self, shared: &Shared, request: &PlayRequest) -> Result<PlayReply, Response> {
        if request.step.is_some() {
            return Err(not_served("Single steps are not served by this version"));
        }
        if request.rate_control == Some(false) || !matches!(request.frames, None | Some(FrameFilter::All)) {
            return Err(not_served("Rate-Control and Frames are not served by this version"));
        }
        let player = self.halt().await?;
        if player.outlet.is_empty() {
            return Err(invalid_state("No track is set up"));
        }
        let begun = match request.range {
            Some(Range::Clock(range)) => self.play_clock(shared, range).await?,
            Some(Range::Npt(range)) => self.play_npt(shared, range).await?,
            None => self.resume(shared).await?,
        };
        Ok(self.reply(request, begun))
    }

    fn reply(&mut self, request: &PlayRequest, start: Start) -> PlayReply {
        let State::Idle(player) = &self.state else {
            return PlayReply::default();
        };
        let end = player.feed().and_then(Feed::end);
        let wall_end = end.and_then(|e| player.wall_of(e.offset(-1))).map(|t| t.offset(1));
        let media = player.media_at(start.npt);
        let rtp_info = player.outlet.next(media).map(|(track, seq, rtptime)| RtpInfo {
            url: self.described.track_url(track),
            seq: Some(seq),
            rtptime: Some(rtptime),
        });
        // One speed is served; whoever asks for another is told so, unless it would change its own clock at the answer.
        let rate = |asked: Option<Rate>| asked.filter(|_| !self.client.silent_about_rate).map(|_| Rate::ONE);
        PlayReply {
            range: Some(told(self.in_utc, start.npt, Some(start.wall), end, wall_end)),
            scale: rate(request.scale),
            speed: rate(request.speed),
            rate_control: None,
            rtp_info: rtp_info.collect(),
        }
    }

    async fn play_npt(&mut self, shared: &Shared, range: NptRange) -> Result<Start, Response> {
        self.in_utc = false;
        let described = self.described.clone();
        let (Some(timeline), Some(len)) = (&described.timeline, described.length()) else {
            return self.begin_live(shared).await;
        };
        let position = |t: NptTime| match t {
            NptTime::Now => len,
            NptTime::At(d) => Npt(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)).min(len),
        };
        let start = range.start.map_or(Npt::ZERO, position);
        let end = range.end.map_or(len, position);
        if end < start {
            return Err(reply::invalid_range("Reverse play is not served by this version"));
        }
        self.begin_range(shared, timeline, start, end).await
    }

    async fn play_clock(&mut self, shared: &Shared, range: ClockRange) -> Result<Start, Response> {
        if range.end.is_some_and(|end| end < range.start) {
            return Err(reply::invalid_range("Reverse play is not served by this version"));
        }
        self.in_utc = true;
        let described = self.described.clone();
        if let Some(timeline) = &described.timeline {
            if let Some((first, _)) = timeline.span()
                && range.end.is_some_and(|end| end <= first)
            {
                return Err(reply::not_found(format!(
                    "What this URL holds begins at {first}, behind the range that was asked for"
                )));
            }
            let behind = |e: WallTime| {
                timeline
                    .span()
                    .map_or(0, |(_, end)| e.micros_since(end))
                    .clamp(0, described.to_come)
            };
            let end = range.end.map_or(i64::MAX, |e| timeline.npt_at(e).0 + behind(e));
            let end = Npt(end).min(timeline.len().offset(described.to_come));
            return self
                .begin_range(shared, timeline, timeline.npt_at(range.start), end)
                .await;
        }
        self.begin_clock(shared, range.start, range.end).await
    }

    /// Goes on where it was paused; at the beginning if nothing was played yet or everything was.
    async fn resume(&mut self, shared: &Shared) -> Result<Start, Response> {
        let back = self.client.resume_back_micros;
        let described = self.described.clone();
        let State::Idle(player) = &mut self.state else {
            return Err(lost());
        };
        let joined = player.feed().is_some_and(Feed::is_live);
        let position = player.position().filter(|_| !player.finished());
        match (self.mode, position, &described.timeline) {
            (Mode::New | Mode::Live, _, None) => self.begin_live(shared).await,
            (Mode::Clock { open }, Some(npt), _) if joined || back > 0 => {
                let from = player.wall_of(npt.offset(-back)).ok_or_else(lost)?;
                let end = player.feed().and_then(Feed::end).and_then(|e| player.wall_of(e));
                self.begin_clock(shared, from, end.filter(|_| !open)).await
            }
            (Mode::Range, Some(npt), Some(timeline)) if back > 0 => {
                let whole = timeline.len().offset(described.to_come);
                let end = player.feed().and_then(Feed::end).unwrap_or(whole);
                self.begin_range(shared, timeline, npt.offset(-back).max(Npt::ZERO), end)
                    .await
            }
            (Mode::Range | Mode::Clock { .. }, Some(_), _) => match player.peek().await {
                Some(npt) => {
                    let wall = player.wall_of(npt).ok_or_else(lost)?;
                    Ok(Start { npt, wall })
                }
                None => self.restart(shared).await,
            },
            _ => self.restart(shared).await,
        }
    }

    async fn restart(&mut self, shared: &Shared) -> Result<Start, Response> {
        let described = self.described.clone();
        match &described.timeline {
            Some(timeline) => {
                let end = timeline.len().offset(described.to_come);
                self.begin_range(shared, timeline, Npt::ZERO, end).await
            }
            None => self.begin_live(shared).await,
        }
    }

    async fn begin_live(&mut self, shared: &Shared) -> Result<Start, Response> {
        let camera = self.described.resource.camera.clone();
        self.allowed(shared, Action::Live)?;
        let State::Idle(player) = &mut self.state else {
            return Err(lost());
        };
        // Positions of live play count on over pauses, so that the client's clock does.
        let npt = player.position().map_or(Npt::ZERO, |p| p.offset(1));
        let tracks = self.described.tracks.clone();
        let feed = Feed::live(shared.sources.clone(), camera.clone(), tracks, npt).await;
        let mut feed = feed.map_err(|e| live_failed(&camera, e))?;
        let start = start_of(&mut feed).await?;
        player.begin(feed, start, Gaps::Skip, None);
        self.mode = Mode::Live;
        Ok(start)
    }

    async fn begin_range(
        &mut self,
        shared: &Shared,
        timeline: &Timeline,
        start: Npt,
        end: Npt,
    ) -> Result<Start, Response> {
        self.allowed(shared, Action::Playback)?;
        let joins_live = (end > timeline.len()).then_some(end);
        if joins_live.is_some() {
            self.allowed(shared, Action::Live)?;
        }
        let started = self
            .begin_archive(shared, timeline.clone(), start, Some(end), joins_live)
            .await?;
        self.mode = Mode::Range;
        Ok(started)
    }

    /// A UTC range on a live URL.
    async fn begin_clock(&mut self, shared: &Shared, from: WallTime, to: Option<WallTime>) -> Result<Start, Response> {
        self.allowed(shared, Action::Playback)?;
        let camera = self.described.resource.camera.clone();
        let now = WallTime::from_micros(time::wall_now_micros());
        if to.is_none() && from >= now {
            return self.begin_live(shared).await;
        }
        let range = TimeRange {
            start: from,
            end: to.unwrap_or(now),
        };
        let timeline = match find_range(&shared.sources.footage, &camera, range, Gaps::Skip).await {
            Ok((_, timeline)) => timeline,
            // What happened just now is not on disk yet.
            Err(_) if to.is_none() && now.saturating_since(from) < UNWRITTEN_MAX => {
                return self.begin_live(shared).await;
            }
            Err(response) => return Err(response),
        };
        // What of the range is still to come is played live.
        let to_come = |to: WallTime| timeline.span().map_or(0, |(_, end)| to.micros_since(end).max(0));
        let end = to.map(|to| timeline.len().offset(if to > now { to_come(to) } else { 0 }));
        let joins_live = match end {
            None => Some(Npt(i64::MAX)),
            Some(end) => (end > timeline.len()).then_some(end),
        };
        let start = self.begin_archive(shared, timeline, Npt::ZERO, end, joins_live).await?;
        self.mode = Mode::Clock { open: to.is_none() };
        Ok(start)
    }

    async fn begin_archive(
        &mut self,
        shared: &Shared,
        timeline: Timeline,
        start: Npt,
        end: Option<Npt>,
        joins_live: Option<Npt>,
    ) -> Result<Start, Response> {
        let gaps = timeline.gaps();
        let resource = &self.described.resource;
        let burst = if resource.paced {
            self.client.burst_micros(self.lower == Lower::Tcp)
        } else {
            None
        };
        let plan = Plan::new(timeline, start, end).ok_or_else(gone)?;
        let tracks = self.described.tracks.clone();
        let mut feed = Feed::archive(
            shared.sources.clone(),
            resource.camera.clone(),
            tracks,
            plan,
            joins_live,
        );
        let start = start_of(&mut feed).await?;
        if !feed.fits() {
            let reason = "The footage there has another codec: open the URL anew with a start from there";
            return Err(Response::new(StatusCode::UNSUPPORTED_MEDIA_TYPE).because(reason));
        }
        let State::Idle(player) = &mut self.state else {
            return Err(lost());
        };
        player.begin(feed, start, gaps, burst);
        Ok(start)
    }

    fn allowed(&self, shared: &Shared, action: Action) -> Result<(), Response> {
        let camera = &self.described.resource.camera;
        match shared.gate.access(self.user.as_deref(), action, camera) {
            Access::Allow => Ok(()),
            Access::NeedLogin | Access::Forbid => {
                Err(Response::new(StatusCode::FORBIDDEN)
                    .because(format!("{} of {camera} is not allowed", action.name())))
            }
        }
    }
}

async fn start_of(feed: &mut Feed) -> Result<Start, Response> {
    match feed.start().await {
        Ok(Some((npt, wall))) => Ok(Start { npt, wall }),
        Ok(None) => Err(gone()),
        Err(ending) => Err(Response::new(StatusCode::SERVICE_UNAVAILABLE).because(Ending::reason(ending))),
    }
}

fn gone() -> Response {
    reply::not_found("The footage there has been deleted since the URL was opened")
}

fn lost() -> Response {
    Response::new(StatusCode::INTERNAL_SERVER_ERROR).because("The session failed inside; see the log of the recorder")
}

/// A position in the unit that the client asks in.
fn told(in_utc: bool, npt: Npt, wall: Option<WallTime>, end: Option<Npt>, wall_end: Option<WallTime>) -> Range {
    let at = |npt: Npt| Duration::from_micros(npt.0.max(0) as u64);
    match (in_utc, wall, end) {
        (true, Some(wall), _) => Range::clock(wall, wall_end),
        (_, _, Some(end)) => Range::npt(at(npt), at(end)),
        _ => Range::npt_from(at(npt)),
    }
}
