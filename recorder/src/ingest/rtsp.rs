//! One RTSP session with a camera: moves bytes and timers between the sockets and [`Client`], from connecting to the end.

use std::{
    cell::RefCell,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use corenvr_proto::rtsp::{
    CameraUrl, Lower, Method,
    client::{Client, ClientConfig, EndReason, Event, Granted, SetupChoice},
};
use corenvr_proto::sdp::SessionDescription;
use corenvr_shard::{
    Stop, TaskPanicked,
    net::Stream,
    time::{sleep, timeout},
};

use super::{
    Continuation, End, EndKind, Media, REPORT_INTERVAL, Sink, choose,
    resolve::addresses,
    udp::{PortPair, UdpStream},
};

/// Packets of an interleaved stream are read together when they came within this: about a picture's time, so that a camera costs one
/// wake-up a picture instead of one for every packet of picture and sound. It is also how much later a live viewer sees them at most.
const GATHER: Duration = Duration::from_millis(25);
/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(250);
/// A camera whose connection takes no byte of ours for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What to pull, and how patiently.
#[derive(Clone)]
pub(crate) struct Target {
    /// Names the tasks.
    pub camera: String,
    pub url: CameraUrl,
    pub transport: Lower,
    pub audio: bool,
    pub options_first: bool,
    /// How long connecting may take.
    pub connect: Duration,
    /// Without a picture for this long, the session is over.
    pub silence: Duration,
    /// The same before the first packet, where another transport may do better.
    pub first_packet: Option<Duration>,
}

/// Runs a session until it ends; follows redirects.
pub(crate) async fn run<S: Sink + 'static>(
    target: &Target,
    continuation: Continuation,
    sink: S,
    stop: &Stop,
) -> Result<End, TaskPanicked> {
    let mut config = ClientConfig::new(target.url.clone(), target.transport, rand::random());
    config.options_first = target.options_first;
    let mut sink = Some(sink);
    loop {
        if config.url.is_tls() {
            let reason = "the camera redirects to rtsps://, which this version does not support";
            return Ok(End::new(EndKind::Protocol, reason));
        }
        let (host, port) = (config.url.host(), config.url.port());
        let stream = match connect(host, port, target.connect, stop).await {
            Ok(stream) => stream,
            Err(end) => return Ok(end),
        };
        let mut session = Session::new(target, continuation, stream, config.clone(), sink.take());
        let next = session.drive(stop).await;
        session.finish();
        match next? {
            Next::End(end) => return Ok(end),
            Next::Redirect(url) => {
                sink = session.sink.take();
                config = config.redirected(*url);
            }
        }
        if sink.is_none() {
            return Ok(End::new(
                EndKind::Protocol,
                "the camera redirects in the middle of a session",
            ));
        }
    }
}

/// Connects to the first address of a host that answers.
pub(super) async fn connect(host: &str, port: u16, limit: Duration, stop: &Stop) -> Result<Stream, End> {
    let attempt = async {
        let addresses = addresses(host, port, limit).await;
        let addresses = addresses.map_err(|e| format!("the name {host} cannot be resolved: {e}"))?;
        let mut last = String::new();
        for address in addresses.into_iter().take(4) {
            match Stream::connect(address, limit).await {
                Ok(stream) => return Ok(stream),
                Err(e) => last = format!("cannot connect to {address}: {e}; is the camera on, and the port right?"),
            }
        }
        Err(last)
    };
    let mut attempt = pin!(attempt);
    let mut stopped = pin!(stop.requested());
    std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = attempt.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(|reason| End::new(EndKind::Unreachable, reason)));
        }
        stopped
            .as_mut()
            .poll(cx)
            .map(|()| Err(End::new(EndKind::Stopped, "stopped")))
    })
    .await
}

enum Next {
    Redirect(Box<CameraUrl>),
    End(End),
}

enum Wake {
    Read(io::Result<usize>),
    Tick,
    /// A socket's task ended: by an error, or by a panic.
    Udp(Result<io::Error, TaskPanicked>),
}

struct Session<'a, S> {
    target: &'a Target,
    continuation: Continuation,
    stream: Stream,
    peer: IpAddr,
    client: Client,
    input: BytesMut,
    tick: Pin<Box<dyn Future<Output = ()>>>,
    /// Until the media are chosen.
    sink: Option<S>,
    media: Option<Rc<RefCell<Media<S>>>>,
    /// By stream; taken when the stream is set up.
    ports: Vec<Option<PortPair>>,
    /// By stream: sockets, and where reports go.
    udp: Vec<Option<(UdpStream, Option<SocketAddr>)>>,
    interleaved: bool,
    playing: Option<Instant>,
    receiving: bool,
    next_report: Instant,
    /// The session is being torn down for this reason.
    ending: Option<End>,
    report: BytesMut,
}

impl<'a, S: Sink + 'static> Session<'a, S> {
    fn new(
        target: &'a Target,
        continuation: Continuation,
        stream: Stream,
        config: ClientConfig,
        sink: Option<S>,
    ) -> Self {
        let now = Instant::now();
        Self {
            target,
            continuation,
            peer: stream.peer_addr().ip().to_canonical(),
            stream,
            client: Client::new(now, config),
            input: BytesMut::new(),
            tick: Box::pin(sleep(TICK)),
            sink,
            media: None,
            ports: Vec::new(),
            udp: Vec::new(),
            interleaved: false,
            playing: None,
            receiving: false,
            next_report: now + REPORT_INTERVAL,
            ending: None,
            report: BytesMut::new(),
        }
    }

    async fn drive(&mut self, stop: &Stop) -> Result<Next, TaskPanicked> {
        loop {
            let now = Instant::now();
            while let Some(event) = self.client.poll_event() {
                if let Some(next) = self.on_event(now, event) {
                    return Ok(next);
                }
            }
            if let Err(end) = self.transmit().await {
                return Ok(Next::End(self.ending.take().unwrap_or(end)));
            }
            match self.wait().await {
                Wake::Read(Ok(0)) => self.client.handle_eof(),
                Wake::Read(Ok(_)) => self.client.handle_input(Instant::now(), &mut self.input),
                Wake::Read(Err(e)) => {
                    let end = End::new(EndKind::Closed, format!("the connection broke: {e}"));
                    return Ok(Next::End(self.ending.take().unwrap_or(end)));
                }
                Wake::Udp(Err(panicked)) => return Err(panicked),
                Wake::Udp(Ok(e)) => {
                    let end = End::new(EndKind::Closed, format!("a UDP socket broke: {e}"));
                    return Ok(Next::End(self.ending.take().unwrap_or(end)));
                }
                Wake::Tick => {
                    self.tick = Box::pin(sleep(TICK));
                    self.on_tick(Instant::now(), stop);
                }
            }
        }
    }

    /// Waits for bytes of the camera, the tick, or the end of a socket.
    async fn wait(&mut self) -> Wake {
        let Self {
            stream,
            input,
            tick,
            udp,
            ..
        } = self;
        let mut read = pin!(stream.read_into(input));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = read.as_mut().poll(cx) {
                return Poll::Ready(Wake::Read(result));
            }
            if let Poll::Ready(result) = poll_udp(udp, cx) {
                return Poll::Ready(Wake::Udp(result));
            }
            tick.as_mut().poll(cx).map(|()| Wake::Tick)
        })
        .await
    }

    async fn transmit(&mut self) -> Result<(), End> {
        while let Some(bytes) = self.client.poll_transmit() {
            match timeout(WRITE_TIMEOUT, self.stream.write_all(&bytes)).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => return Err(End::new(EndKind::Closed, format!("the connection broke: {e}"))),
                Err(_) => return Err(End::new(EndKind::Closed, "the camera does not read what we send")),
            }
        }
        Ok(())
    }

    fn on_event(&mut self, now: Instant, event: Event) -> Option<Next> {
        match event {
            Event::Rtp { stream, payload } => {
                if let Some(media) = &self.media {
                    media.borrow_mut().rtp(now, stream, payload);
                }
            }
            Event::Rtcp { stream, payload } => {
                if let Some(media) = &self.media {
                    media.borrow_mut().rtcp(now, stream, &payload);
                }
            }
            Event::Described(sdp) => {
                if let Err(end) = self.select(now, &sdp) {
                    self.end(now, end);
                }
            }
            Event::SetUp { stream, transport, .. } => self.set_up(stream, transport),
            Event::SetupRefused { stream, .. } => {
                if let Some(udp) = self.udp.get_mut(stream) {
                    *udp = None;
                }
            }
            Event::Playing { .. } => {
                self.playing = Some(now);
                if self.interleaved {
                    self.stream.set_gather(GATHER);
                }
                self.punch();
            }
            Event::Redirect(url) => return Some(Next::Redirect(Box::new(url))),
            Event::Ended(reason) => {
                let end = self.ending.take().unwrap_or_else(|| explain(&reason));
                return Some(Next::End(end));
            }
        }
        None
    }

    fn select(&mut self, now: Instant, sdp: &SessionDescription) -> Result<(), End> {
        let mut chosen =
            choose::choose(sdp, self.target.audio).map_err(|e| End::new(EndKind::NoVideo, e.to_string()))?;
        let medias: Vec<_> = std::iter::once(&chosen.video)
            .chain(&chosen.audio)
            .map(|c| c.media)
            .collect();
        let datagrams = self.target.transport == Lower::Udp;
        self.ports.clear();
        for _ in &medias {
            let pair = datagrams.then(|| PortPair::bind(self.peer)).transpose();
            let failed = |e| End::new(EndKind::TransportRefused, format!("no free pair of UDP ports: {e}"));
            self.ports.push(pair.map_err(failed)?);
        }
        self.udp = medias.iter().map(|_| None).collect();
        let choices: Vec<_> = medias
            .iter()
            .zip(&self.ports)
            .map(|(&media, pair)| SetupChoice {
                media,
                local_ports: pair.as_ref().map(PortPair::ports),
            })
            .collect();
        let Some(mut sink) = self.sink.take() else {
            return Err(End::new(EndKind::Protocol, "the camera described itself twice"));
        };
        let not_recorded = std::mem::take(&mut chosen.not_recorded);
        sink.chosen(&chosen.infos(), &not_recorded);
        let media = Media::new(chosen, !datagrams, &self.continuation, sink);
        self.media = Some(Rc::new(RefCell::new(media)));
        let selected = self.client.select(now, &choices);
        selected.map_err(|e| End::new(EndKind::Protocol, e.to_string()))
    }

    fn set_up(&mut self, stream: usize, transport: Granted) {
        match transport {
            Granted::Interleaved { .. } => self.interleaved = true,
            Granted::Udp { server_ports, source } => {
                let announced = source.and_then(|s| s.parse::<IpAddr>().ok());
                let from = announced.filter(|a| !a.is_unspecified()).unwrap_or(self.peer);
                let (Some(media), Some(pair)) = (&self.media, self.ports.get_mut(stream).and_then(Option::take)) else {
                    return;
                };
                let udp = pair.receive(&self.target.camera, stream, from, media);
                let to = server_ports.map(|(rtp, rtcp)| (SocketAddr::new(from, rtp), SocketAddr::new(from, rtcp)));
                if let Some((rtp, rtcp)) = to {
                    udp.punch(rtp, rtcp);
                }
                if let Some(slot) = self.udp.get_mut(stream) {
                    *slot = Some((udp, to.map(|t| t.1)));
                }
            }
        }
    }

    /// Again, now that the camera sends: a firewall may have forgotten the first one.
    fn punch(&self) {
        for (udp, to) in self.udp.iter().flatten() {
            if let Some(rtcp) = to {
                udp.punch(SocketAddr::new(rtcp.ip(), rtcp.port().wrapping_sub(1)), *rtcp);
            }
        }
    }

    fn on_tick(&mut self, now: Instant, stop: &Stop) {
        self.client.handle_timeout(now);
        let verdict = self.media.as_ref().and_then(|media| {
            let mut media = media.borrow_mut();
            media.tick(now);
            if media.last_packet().is_some() && !std::mem::replace(&mut self.receiving, true) {
                media.sink().receiving(if self.interleaved { "tcp" } else { "udp" });
            }
            self.playing
                .and_then(|since| judge(self.target, &mut media, since, now))
        });
        if stop.is_requested() {
            self.end(now, End::new(EndKind::Stopped, "stopped"));
        } else if let Some(end) = verdict {
            self.end(now, end);
        }
        if now >= self.next_report {
            self.next_report = now + REPORT_INTERVAL;
            self.send_reports(now);
        }
    }

    fn send_reports(&mut self, now: Instant) {
        let Some(media) = &self.media else { return };
        let mut media = media.borrow_mut();
        for stream in 0..media.stream_count() {
            self.report.clear();
            if !media.report(now, stream, &mut self.report) {
                continue;
            }
            match self.udp.get(stream) {
                Some(Some((udp, Some(to)))) => udp.send_rtcp(&self.report, *to),
                Some(Some((_, None))) => {}
                _ => self.client.send_rtcp(stream, &self.report),
            }
        }
    }

    /// Begins to end the session.
    fn end(&mut self, now: Instant, end: End) {
        if self.ending.is_none() {
            self.ending = Some(end);
            self.client.teardown(now);
        }
    }

    /// Lets out what is whole of the frames in progress.
    fn finish(&mut self) {
        self.udp.clear();
        if let Some(media) = self.media.take() {
            media.borrow_mut().finish(Instant::now());
        }
    }
}

fn poll_udp(
    udp: &mut [Option<(UdpStream, Option<SocketAddr>)>],
    cx: &mut Context<'_>,
) -> Poll<Result<io::Error, TaskPanicked>> {
    for (stream, _) in udp.iter_mut().flatten() {
        for task in &mut stream.tasks {
            if let Poll::Ready(result) = Pin::new(task).poll(cx) {
                return Poll::Ready(result);
            }
        }
    }
    Poll::Pending
}

/// Whether a session that plays since `since` has to end.
fn judge<S: Sink>(target: &Target, media: &mut Media<S>, since: Instant, now: Instant) -> Option<End> {
    let playing = now.saturating_duration_since(since);
    if media.said_goodbye(now) {
        return Some(End::new(EndKind::Closed, "the camera ended the stream (RTCP BYE)"));
    }
    if media.last_packet().is_none() && target.first_packet.is_some_and(|limit| playing > limit) {
        return Some(End::new(
            EndKind::NoPacket,
            "the camera agreed to UDP and not one packet came",
        ));
    }
    media.verdict(since, now, target.silence)
}

fn explain(reason: &EndReason) -> End {
    let kind = match reason {
        EndReason::TornDown => EndKind::Stopped,
        EndReason::Authentication(_) => EndKind::Unauthorized,
        EndReason::Forbidden { .. } | EndReason::NotFound { .. } => EndKind::NotFound,
        EndReason::TransportRefused { .. } => EndKind::TransportRefused,
        EndReason::Timeout { method, .. } | EndReason::Closed { during: Some(method) }
            if *method == Method::Options =>
        {
            EndKind::OptionsUnanswered
        }
        EndReason::Timeout { .. } | EndReason::Closed { .. } | EndReason::SessionLost => EndKind::Closed,
        EndReason::Refused { .. }
        | EndReason::Framing(_)
        | EndReason::Violation { .. }
        | EndReason::Sdp(_)
        | EndReason::TooManyRedirects => EndKind::Protocol,
    };
    End::new(kind, reason.to_string())
}
