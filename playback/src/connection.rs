//! One connection: bytes between the socket and the protocol's state machine, and what its requests do.

use std::{
    future::pending,
    io,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use corenvr_media::{CameraName, WallTime};
use corenvr_proto::rtsp::{
    Lower, RequestUri, Response, StatusCode, Transport,
    server::{self, CloseReason, Connection, ConnectionConfig, Incoming, ServerEvent, SessionId, reply},
};
use corenvr_shard::{net::Stream, time};
use futures::future::{Either, select};

use crate::{
    access::{Access, Action, Seen, Viewer, Watched},
    clients::Client,
    description::Described,
    outlet::Outlet,
    player::Player,
    resource::{Resource, What},
    server::Shared,
    session::{Asker, Session},
    stats::{SessionIdentity, SessionKind, count},
    transport::{OUTBOX_BYTES_MAX, Outbox},
    wake::{Flag, unless},
    watch::Watch,
};

/// While so much waits to be written, no request is read.
const BACKLOG_BYTES_MAX: usize = 8 * OUTBOX_BYTES_MAX;
/// How long the last response may take to leave.
const FAREWELL: Duration = Duration::from_secs(2);
/// As much of a User-Agent is kept.
const AGENT_LEN_MAX: usize = 80;

struct Conversation {
    shared: Rc<Shared>,
    protocol: Connection,
    outbox: Rc<Outbox>,
    peer: SocketAddr,
    local: SocketAddr,
    /// The presentation asked about last, which is what a SETUP means.
    described: Option<Rc<Described>>,
    /// The connection is encrypted: nothing may leave beside it, and its URLs are rtsps.
    secure: bool,
    sessions: Vec<Session>,
    /// Set when a session of this connection may not go on.
    revoked: Rc<Flag>,
    /// What was refused to a user, so that it is told once.
    refused: Option<(CameraName, Action)>,
    closed: bool,
}

/// A request is not served: the answer, or that a login is needed.
enum Refusal {
    Answer(Response),
    Login,
}

impl From<Response> for Refusal {
    fn from(response: Response) -> Self {
        Self::Answer(response)
    }
}

/// Serves a connection until it ends.
pub async fn serve(shared: Rc<Shared>, mut stream: Stream) {
    let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
    let peer = canonical(stream.peer_addr());
    let config = ConnectionConfig {
        verifier: shared.config.login.clone(),
        peer: peer.ip(),
        encrypted: stream.is_tls(),
        server: shared.name.clone(),
    };
    let mut conversation = Conversation {
        protocol: Connection::new(Instant::now(), config),
        outbox: Outbox::new(stream.clone()),
        peer,
        local: canonical(stream.local_addr()),
        secure: stream.is_tls(),
        described: None,
        sessions: Vec::new(),
        revoked: Rc::default(),
        refused: None,
        closed: false,
        shared,
    };
    let revoked = conversation.revoked.clone();
    match unless(&revoked, conversation.run(&mut stream)).await {
        Some(Err(error)) => tracing::debug!(%peer, %error, "a connection ended"),
        Some(Ok(())) => {}
        // Nothing more is sent, not even what waits.
        None => return,
    }
    drop(time::timeout(FAREWELL, conversation.outbox.flush()).await);
}

impl Conversation {
    async fn run(&mut self, stream: &mut Stream) -> io::Result<()> {
        let mut input = BytesMut::new();
        loop {
            self.work().await;
            if self.closed {
                return Ok(());
            }
            let wants = self.protocol.wants_input() && self.outbox.len() < BACKLOG_BYTES_MAX;
            match self.wait(stream, &mut input, wants).await? {
                Some(0) => self.protocol.handle_eof(),
                Some(_) => self.protocol.handle_input(Instant::now(), &mut input),
                None if wants && !input.is_empty() => self.protocol.handle_input(Instant::now(), &mut input),
                None => {}
            }
            self.tick();
        }
    }

    /// Waits for bytes to come, bytes to leave, or time to pass. Returns how many came.
    async fn wait(&self, stream: &mut Stream, input: &mut BytesMut, wants: bool) -> io::Result<Option<usize>> {
        let read = async {
            if wants {
                return stream.read_into(input).await;
            }
            pending().await
        };
        let flush = async {
            if self.outbox.is_waiting() {
                return self.outbox.flush().await;
            }
            pending().await
        };
        let timer = async {
            match self.protocol.poll_timeout() {
                Some(at) => time::sleep_until(at).await,
                None => pending().await,
            }
        };
        match select(pin!(read), select(pin!(flush), pin!(timer))).await {
            Either::Left((n, _)) => n.map(Some),
            Either::Right((Either::Left((flushed, _)), _)) => flushed.map(|()| None),
            Either::Right((Either::Right(((), _)), _)) => Ok(None),
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.protocol.poll_timeout().is_some_and(|t| t <= now) {
            for session in self.sessions.iter().filter(|s| s.heard.take()) {
                self.protocol.keep_alive(now, &session.id);
            }
            self.protocol.handle_timeout(now);
        }
    }

    /// Does what the protocol asks for until it asks for nothing.
    async fn work(&mut self) {
        loop {
            while let Some(bytes) = self.protocol.poll_transmit() {
                self.outbox.push(&bytes);
            }
            match self.protocol.poll_event() {
                None => return,
                Some(ServerEvent::Request(incoming)) => self.answer(*incoming).await,
                // Receiver reports in the connection: that it is open says as much.
                Some(ServerEvent::Data { .. }) => {}
                Some(ServerEvent::SessionExpired(id)) => {
                    count(&self.shared.stats.counters.sessions_timed_out);
                    self.sessions.retain(|s| s.id != id);
                }
                Some(ServerEvent::Closed(reason)) => {
                    self.closed = true;
                    if !matches!(reason, CloseReason::Eof | CloseReason::Idle) {
                        count(&self.shared.stats.counters.protocol_errors);
                        tracing::info!(peer = %self.peer, %reason, "a connection was closed");
                    }
                }
            }
        }
    }

    async fn answer(&mut self, incoming: Incoming) {
        let counters = &self.shared.clone().stats.counters;
        count(&counters.requests);
        let id = incoming.id;
        let (response, starts) = match self.request(&incoming).await {
            Ok(answer) => answer,
            Err(Refusal::Answer(response)) => (response, None),
            Err(Refusal::Login) => {
                count(&counters.logins_refused);
                count(&counters.requests_failed);
                self.protocol.unauthorized(Instant::now(), id);
                return;
            }
        };
        if !response.status.is_success() {
            count(&counters.requests_failed);
        }
        self.protocol.respond(id, response);
        while let Some(bytes) = self.protocol.poll_transmit() {
            self.outbox.push(&bytes);
        }
        // Only now, so that no packet of the new range comes before the reply that announces it.
        if let Some(session) = starts.and_then(|id| self.sessions.iter_mut().find(|s| s.id == id)) {
            count(&counters.plays);
            session.go();
        }
    }

    /// The answer, and the session that is to be sent afterwards.
    async fn request(&mut self, incoming: &Incoming) -> Result<(Response, Option<SessionId>), Refusal> {
        let response = match &incoming.action {
            server::Action::Options { .. } => reply::options(),
            server::Action::Describe { uri } => {
                let described = self.describe(incoming, uri).await?;
                let sdp = described.sdp(self.local.ip(), incoming.onvif_replay);
                reply::describe(&described.resource.url, sdp)
            }
            server::Action::Setup {
                uri,
                transports,
                session,
            } => self.setup(incoming, uri, transports, session.as_ref()).await?,
            server::Action::Play(play) => {
                let shared = self.shared.clone();
                let session = self.session(&play.session)?;
                match session.play(&shared, play, incoming.cseq, incoming.onvif_replay).await {
                    Ok(answer) => return Ok((reply::play(&play.session, &answer), Some(play.session.clone()))),
                    Err(response) => response,
                }
            }
            server::Action::Pause { session: id, .. } => {
                let range = self.session(id)?.pause().await?;
                reply::pause(id, range)
            }
            server::Action::Teardown { uri, session } => self.teardown(uri, session).await?,
            server::Action::GetParameter { session, body, .. } | server::Action::SetParameter { session, body, .. } => {
                if body.iter().all(u8::is_ascii_whitespace) {
                    reply::parameters(session.as_ref())
                } else {
                    Response::new(StatusCode::PARAMETER_NOT_UNDERSTOOD)
                }
            }
        };
        Ok((response, None))
    }

    fn session(&mut self, id: &SessionId) -> Result<&mut Session, Refusal> {
        let found = self.sessions.iter_mut().find(|s| s.id == *id);
        found.ok_or_else(|| Refusal::Answer(Response::new(StatusCode::SESSION_NOT_FOUND)))
    }

    fn resource(&mut self, incoming: &Incoming, uri: &RequestUri) -> Result<Resource, Refusal> {
        let now = WallTime::from_micros(time::wall_now_micros());
        let secured = self.secure.then(|| uri.secured());
        let resource = Resource::parse(secured.as_ref().unwrap_or(uri), now, &self.shared.config.channels)?;
        let action = match resource.what {
            What::Live => Action::Live,
            What::Archive(..) | What::Still(..) | What::Replay => Action::Playback,
        };
        match self
            .shared
            .gate
            .access(incoming.user.as_deref(), action, &resource.camera)
        {
            Access::Allow => Ok(resource),
            Access::NeedLogin => Err(Refusal::Login),
            Access::Forbid => {
                self.tell_refused(incoming, action, resource.camera);
                Err(Response::new(StatusCode::FORBIDDEN).into())
            }
        }
    }

    fn viewer(&self, incoming: &Incoming) -> Viewer {
        Viewer::new(incoming.user.clone(), self.peer.ip(), self.secure)
    }

    fn tell_refused(&mut self, incoming: &Incoming, action: Action, camera: CameraName) {
        let refused = Some((camera, action));
        if self.refused == refused {
            return;
        }
        self.refused = refused;
        if let Some((camera, action)) = &self.refused {
            self.shared.gate.note(&Watched {
                viewer: &self.viewer(incoming),
                camera,
                seen: Seen::Refused(*action),
            });
        }
    }

    async fn describe(&mut self, incoming: &Incoming, uri: &RequestUri) -> Result<Rc<Described>, Refusal> {
        let resource = self.resource(incoming, uri)?;
        let described = Described::find(&self.shared.sources, resource, incoming.onvif_replay).await?;
        self.described = Some(described.clone());
        Ok(described)
    }

    async fn setup(
        &mut self,
        incoming: &Incoming,
        uri: &RequestUri,
        transports: &[Transport],
        session: Option<&SessionId>,
    ) -> Result<Response, Refusal> {
        let resource = self.resource(incoming, uri)?;
        let known = match session {
            Some(id) => Some(self.session(id)?.described.clone()),
            None => self.described.clone(),
        };
        let described = match known.filter(|d| d.resource.same_presentation(&resource)) {
            Some(described) => described,
            None if session.is_some() => {
                return Err(Response::new(StatusCode::AGGREGATE_NOT_ALLOWED)
                    .because("A session plays one camera")
                    .into());
            }
            None => self.describe(incoming, uri).await?,
        };
        let track = match resource.track {
            Some(track) => track,
            None if described.tracks.len() == 1 => 0,
            None => return Err(Response::new(StatusCode::AGGREGATE_NOT_ALLOWED).into()),
        };
        if track >= described.tracks.len() {
            return Err(reply::not_found("There is no such track").into());
        }
        let transport = self.choose(transports, session, described.resource.paced)?;
        let asker = Asker {
            peer: self.peer,
            user: incoming.user.clone(),
            client: Client::of(&incoming.user_agent),
        };
        let id = match session {
            Some(id) => id.clone(),
            None => self.open(described, &asker, incoming, transport.lower)?,
        };
        let local = self.local.ip();
        match self.session(&id)?.setup(track, &transport, local) {
            Ok(answer) => Ok(reply::setup(&id, &answer)),
            Err(response) => {
                if session.is_none() {
                    self.close(&id);
                }
                Err(response.into())
            }
        }
    }

    /// The first transport that can be served, with channels that are free. What is not paced needs the flow control of TCP: over UDP it
    /// would be lost on the way. Over TLS there is TCP alone: datagrams would leave unencrypted. Players that are answered 461 try TCP.
    fn choose(
        &mut self,
        transports: &[Transport],
        session: Option<&SessionId>,
        paced: bool,
    ) -> Result<Transport, Refusal> {
        let lower = match session {
            Some(id) => Some(self.session(id)?.lower()),
            None => None,
        };
        let used: Vec<u8> = self.sessions.iter().flat_map(Session::channels).collect();
        let free = |c: u8| c < 255 && !used.contains(&c) && !used.contains(&(c + 1));
        for transport in transports.iter().filter(|t| lower.is_none_or(|l| l == t.lower)) {
            match transport.lower {
                Lower::Tcp => {
                    let asked = transport.interleaved.map(|(rtp, _)| rtp).filter(|c| free(*c));
                    let Some(rtp) = asked.or_else(|| (0..=254).step_by(2).find(|c| free(*c))) else {
                        continue;
                    };
                    return Ok(Transport::tcp(rtp));
                }
                Lower::Udp if !paced || self.secure => {}
                Lower::Udp => {
                    if let Some((rtp, rtcp)) = transport.client_port.filter(|p| p.0 != 0 && p.1 != 0) {
                        return Ok(Transport::udp(rtp, rtcp));
                    }
                }
            }
        }
        Err(Response::new(StatusCode::UNSUPPORTED_TRANSPORT).into())
    }

    fn open(
        &mut self,
        described: Rc<Described>,
        asker: &Asker,
        incoming: &Incoming,
        lower: Lower,
    ) -> Result<SessionId, Refusal> {
        let id = self.protocol.open_session(Instant::now(), rand::random(), lower);
        let id = id.ok_or_else(|| {
            Response::new(StatusCode::NOT_ENOUGH_BANDWIDTH).because("This connection has as many sessions as it may")
        })?;
        let guard = self.shared.stats.begin(SessionIdentity {
            peer: self.peer,
            agent: incoming.user_agent.chars().take(AGENT_LEN_MAX).collect(),
            user: asker.user.clone(),
            camera: described.resource.camera.clone(),
            kind: match described.resource.what {
                What::Live => SessionKind::Live,
                What::Archive(..) | What::Still(..) | What::Replay => SessionKind::Archive,
            },
            transport: match lower {
                Lower::Tcp if self.secure => "tls",
                Lower::Tcp => "tcp",
                Lower::Udp => "udp",
            },
            shard: self.shared.shard,
        });
        let player = Player::new(Outlet::new(self.outbox.clone()), guard);
        let watch = Rc::new(Watch::new(
            self.shared.gate.clone(),
            self.viewer(incoming),
            described.resource.camera.clone(),
            self.revoked.clone(),
        ));
        self.shared.watches.add(&watch);
        self.sessions
            .push(Session::new(id.clone(), described, asker, lower, player, watch));
        Ok(id)
    }

    async fn teardown(&mut self, uri: &RequestUri, id: &SessionId) -> Result<Response, Refusal> {
        let now = WallTime::from_micros(time::wall_now_micros());
        let track = Resource::parse(uri, now, &self.shared.config.channels)
            .ok()
            .and_then(|r| r.track);
        let empty = match track {
            Some(track) => self.session(id)?.remove_track(track).await?,
            None => true,
        };
        if empty {
            self.close(id);
        }
        Ok(reply::teardown(id))
    }

    fn close(&mut self, id: &SessionId) {
        self.protocol.close_session(id);
        self.sessions.retain(|s| s.id != *id);
    }
}
