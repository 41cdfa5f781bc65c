//! The client's state machine.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    ClientConfig, EndReason, Event, Granted, REDIRECTS_MAX, RESPONSE_TIMEOUT, STREAMS_MAX, SelectError, SetupChoice,
    StreamStart, TEARDOWN_TIMEOUT, TRANSMIT_QUEUE_MAX,
};
use crate::{
    auth::{Authenticator, Refusal, parse_challenges},
    rtsp::{
        Decoder, Lower, Message, Method, Range, Request, Response, Role, RtpInfo, StatusCode, Transport,
        header::SESSION_TIMEOUT_DEFAULT,
        interleaved_header,
        url::{control_base, join_control},
    },
    sdp::SessionDescription,
};

/// How often one request may be sent again with another answer to a challenge.
const AUTH_TRIES_MAX: u8 = 3;
/// The longest and the shortest time between two keepalives, whatever timeout the camera names.
const KEEPALIVE_MAX: Duration = Duration::from_secs(30);
const KEEPALIVE_MIN: Duration = Duration::from_secs(2);
/// Marks an interleaved channel that belongs to no stream.
const NO_STREAM: u8 = u8::MAX;

/// Pulls one camera over one connection.
///
/// Bytes go in by [`Self::handle_input`] and come out by [`Self::poll_transmit`]; after every call the driver polls
/// transmissions and events until there are none, and calls [`Self::handle_timeout`] at [`Self::poll_timeout`]. One
/// request is on its way at a time, because cameras answer with wrong sequence numbers or none.
pub struct Client {
    config: ClientConfig,
    /// The URL as requests carry it.
    url: String,
    auth: Authenticator,
    decoder: Decoder,
    phase: Phase,
    pending: Option<Pending>,
    /// The last request that is no longer waited for; a late answer to it is dropped.
    abandoned: Option<u32>,
    next_cseq: u32,
    session: Option<String>,
    session_timeout: Duration,
    keepalive: Keepalive,
    /// URL of the whole presentation, for PLAY, keepalive and TEARDOWN.
    aggregate: String,
    /// Control URL of each media line.
    controls: Vec<String>,
    streams: Vec<Stream>,
    /// Stream times two, plus one for RTCP; by interleaved channel.
    channels: [u8; 256],
    unknown_channel_packets: u64,
    transmits: VecDeque<Bytes>,
    events: VecDeque<Event>,
}

impl fmt::Debug for Client {
    /// Without what waits to be sent: that may hold an Authorization header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.config.url)
            .field("phase", &self.phase)
            .field("pending", &self.pending)
            .field("streams", &self.streams.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Options,
    Describe,
    /// Waits for the caller's selection.
    Choosing,
    SettingUp(usize),
    Play,
    Playing,
    TearingDown,
    Ended,
}

#[derive(Debug)]
struct Pending {
    /// Without `CSeq`, Session and Authorization.
    request: Request,
    cseq: u32,
    deadline: Instant,
    auth_tries: u8,
}

struct Keepalive {
    method: Method,
    next: Option<Instant>,
}

struct Stream {
    choice: SetupChoice,
    control: String,
    granted: Option<Granted>,
}

impl Client {
    /// Begins: the first request is ready to be sent.
    pub fn new(now: Instant, config: ClientConfig) -> Self {
        let url = config.url.request_url();
        let mut client = Self {
            auth: Authenticator::new(config.credentials.clone(), config.random),
            decoder: Decoder::new(Role::Client),
            phase: Phase::Options,
            pending: None,
            abandoned: None,
            next_cseq: 1,
            session: None,
            session_timeout: SESSION_TIMEOUT_DEFAULT,
            keepalive: Keepalive {
                method: Method::Options,
                next: None,
            },
            aggregate: url.clone(),
            controls: Vec::new(),
            streams: Vec::new(),
            channels: [NO_STREAM; 256],
            unknown_channel_packets: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            url,
            config,
        };
        if client.config.options_first {
            client.send(now, Request::new(Method::Options, client.url.clone()));
        } else {
            client.describe(now);
        }
        client
    }

    /// Takes what has arrived. Bytes of an incomplete message stay in `input`.
    pub fn handle_input(&mut self, now: Instant, input: &mut BytesMut) {
        while self.phase != Phase::Ended {
            match self.decoder.decode(input) {
                Ok(None) => return,
                Ok(Some(Message::Data { channel, payload })) => self.on_data(channel, payload),
                Ok(Some(Message::Response(response))) => self.on_response(now, &response),
                Ok(Some(Message::Request(request))) => self.on_request(&request),
                Err(e) => self.end(EndReason::Framing(e)),
            }
        }
        input.clear();
    }

    /// Tells that the camera has closed the connection.
    pub fn handle_eof(&mut self) {
        let during = self.pending.as_ref().map(|p| p.request.method.clone());
        self.end(match self.phase {
            Phase::TearingDown => EndReason::TornDown,
            _ => EndReason::Closed { during },
        });
    }

    /// Does what was due at [`Self::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(pending) = self.pending.take_if(|p| p.deadline <= now) {
            match self.phase {
                Phase::TearingDown => self.end(EndReason::TornDown),
                // Some cameras never answer a keepalive and send on all the same. Whether frames come is the caller's
                // to judge; here only the other method is tried from now on.
                Phase::Playing => {
                    self.abandoned = Some(pending.cseq);
                    self.keepalive.method = Method::Options;
                    self.schedule_keepalive(now);
                }
                _ => self.end(EndReason::Timeout {
                    method: pending.request.method,
                    after: RESPONSE_TIMEOUT,
                }),
            }
        }
        if self.pending.is_none() && self.keepalive.next.is_some_and(|t| t <= now) {
            self.keepalive.next = None;
            let request = Request::new(self.keepalive.method.clone(), self.aggregate.clone());
            self.send(now, request);
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pending.as_ref().map_or(self.keepalive.next, |p| Some(p.deadline))
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Answers [`Event::Described`]: sets these streams up, the most important first, and plays them.
    pub fn select(&mut self, now: Instant, choices: &[SetupChoice]) -> Result<(), SelectError> {
        if self.phase != Phase::Choosing {
            return Err(SelectError::Phase);
        }
        if choices.is_empty() || choices.len() > STREAMS_MAX {
            return Err(SelectError::Count);
        }
        let mut streams = Vec::with_capacity(choices.len());
        for &choice in choices {
            let control = self
                .controls
                .get(choice.media)
                .ok_or(SelectError::Media(choice.media))?;
            if self.config.transport == Lower::Udp && choice.local_ports.is_none() {
                return Err(SelectError::Ports(choice.media));
            }
            streams.push(Stream {
                choice,
                control: control.clone(),
                granted: None,
            });
        }
        self.streams = streams;
        self.set_up(now, 0);
        Ok(())
    }

    /// Sends an RTCP packet on the stream's own channel. Dropped if the stream is not interleaved, or if
    /// [`TRANSMIT_QUEUE_MAX`] messages wait: the next report says it better.
    pub fn send_rtcp(&mut self, stream: usize, payload: &[u8]) {
        let granted = self.streams.get(stream).and_then(|s| s.granted.as_ref());
        if let (Some(Granted::Interleaved { rtcp, .. }), Ok(len)) = (granted, u16::try_from(payload.len()))
            && self.transmits.len() < TRANSMIT_QUEUE_MAX
            && self.phase != Phase::Ended
        {
            let mut frame = BytesMut::with_capacity(4 + payload.len());
            frame.put_slice(&interleaved_header(*rtcp, len));
            frame.put_slice(payload);
            self.transmits.push_back(frame.freeze());
        }
    }

    /// Ends the session politely; [`Event::Ended`] follows within [`TEARDOWN_TIMEOUT`].
    pub fn teardown(&mut self, now: Instant) {
        match self.phase {
            Phase::Ended | Phase::TearingDown => {}
            _ if self.session.is_none() => self.end(EndReason::TornDown),
            _ => {
                self.phase = Phase::TearingDown;
                self.keepalive.next = None;
                self.abandoned = self.pending.take().map(|p| p.cseq);
                self.send(now, Request::new(Method::Teardown, self.aggregate.clone()));
                if let Some(p) = &mut self.pending {
                    p.deadline = now + TEARDOWN_TIMEOUT;
                }
            }
        }
    }

    /// The session timeout that the camera names, or the RFC's.
    pub const fn session_timeout(&self) -> Duration {
        self.session_timeout
    }

    /// Bytes skipped between messages, and packets on channels that belong to no stream.
    pub const fn oddities(&self) -> (u64, u64) {
        (self.decoder.skipped(), self.unknown_channel_packets)
    }

    fn end(&mut self, reason: EndReason) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Ended;
            self.pending = None;
            self.keepalive.next = None;
            self.events.push_back(Event::Ended(reason));
        }
    }

    fn violation(&mut self, what: &'static str) {
        self.end(EndReason::Violation {
            position: self.decoder.position(),
            what,
        });
    }

    fn send(&mut self, now: Instant, request: Request) {
        self.send_again(now, request, 0);
    }

    fn send_again(&mut self, now: Instant, request: Request, auth_tries: u8) {
        let cseq = self.next_cseq;
        self.next_cseq = self.next_cseq.wrapping_add(1).max(1);
        let mut full = Request::new(request.method.clone(), request.uri.clone()).with("CSeq", cseq.to_string());
        if let Some(value) = self.auth.authorize(request.method.as_str(), &request.uri) {
            full.headers.push("Authorization", value);
        }
        full.headers.push("User-Agent", self.config.user_agent.clone());
        if let Some(session) = &self.session {
            full.headers.push("Session", session.clone());
        }
        for (name, value) in request.headers.iter() {
            full.headers.push(name.to_owned(), value);
        }
        self.transmits.push_back(full.to_bytes());
        self.pending = Some(Pending {
            request,
            cseq,
            deadline: now + RESPONSE_TIMEOUT,
            auth_tries,
        });
    }

    fn describe(&mut self, now: Instant) {
        self.phase = Phase::Describe;
        let request = Request::new(Method::Describe, self.url.clone()).with("Accept", "application/sdp");
        self.send(now, request);
    }

    fn set_up(&mut self, now: Instant, index: usize) {
        let Some(stream) = self.streams.get(index) else {
            return self.play(now, true);
        };
        self.phase = Phase::SettingUp(index);
        let transport = match (self.config.transport, stream.choice.local_ports) {
            (Lower::Udp, Some((rtp, rtcp))) => Transport::udp(rtp, rtcp),
            _ => Transport::tcp(self.channel_of(index)),
        };
        let request = Request::new(Method::Setup, stream.control.clone()).with("Transport", transport.to_string());
        self.send(now, request);
    }

    /// The channel to ask for: the stream's own pair, or the first pair that no other stream was granted.
    fn channel_of(&self, index: usize) -> u8 {
        let free = |c: usize| self.channels[c] == NO_STREAM && self.channels[c + 1] == NO_STREAM;
        (index * 2..254).step_by(2).find(|c| free(*c)).unwrap_or(index * 2) as u8
    }

    fn play(&mut self, now: Instant, with_range: bool) {
        self.phase = Phase::Play;
        let mut request = Request::new(Method::Play, self.aggregate.clone());
        if with_range {
            request = request.with("Range", Range::npt_from(Duration::ZERO).to_string());
        }
        self.send(now, request);
    }

    fn schedule_keepalive(&mut self, now: Instant) {
        let interval = (self.session_timeout / 2).clamp(KEEPALIVE_MIN, KEEPALIVE_MAX);
        self.keepalive.next = Some(now + interval);
    }

    fn on_data(&mut self, channel: u8, payload: Bytes) {
        let user = self.channels[usize::from(channel)];
        if user == NO_STREAM {
            self.unknown_channel_packets += 1;
            return;
        }
        let stream = usize::from(user / 2);
        self.events.push_back(if user.is_multiple_of(2) {
            Event::Rtp { stream, payload }
        } else {
            Event::Rtcp { stream, payload }
        });
    }

    /// Answers what a camera asks of us.
    fn on_request(&mut self, request: &Request) {
        let status = match request.method {
            Method::Options
            | Method::GetParameter
            | Method::SetParameter
            | Method::Announce
            | Method::Redirect
            | Method::Teardown => StatusCode::OK,
            _ => StatusCode::NOT_IMPLEMENTED,
        };
        let mut response = Response::new(status);
        if let Some(cseq) = request.headers.get("CSeq") {
            response.headers.push("CSeq", cseq);
        }
        if let Some(session) = request.headers.get("Session") {
            response.headers.push("Session", session);
        }
        if request.method == Method::Options {
            response
                .headers
                .push("Public", "OPTIONS, GET_PARAMETER, SET_PARAMETER, ANNOUNCE");
        }
        if self.transmits.len() >= TRANSMIT_QUEUE_MAX {
            return self.violation("the camera floods us with requests");
        }
        self.transmits.push_back(response.to_bytes());
        match request.method {
            Method::Redirect => self.redirect(request.headers.get("Location")),
            Method::Teardown => self.end(EndReason::SessionLost),
            _ => {}
        }
    }

    fn on_response(&mut self, now: Instant, response: &Response) {
        let cseq = response.headers.cseq();
        let late = cseq.is_some() && cseq == self.abandoned && cseq != self.pending.as_ref().map(|p| p.cseq);
        if response.status.is_informational() || late {
            return;
        }
        let Some(pending) = self.pending.take() else {
            return;
        };
        if let Some(session) = response.headers.session() {
            self.session_timeout = session.timeout.unwrap_or(self.session_timeout);
            self.session = Some(session.id);
        }
        if response.status == StatusCode::UNAUTHORIZED {
            return self.on_challenge(now, pending, response);
        }
        self.auth.accepted();
        if matches!(response.status.as_u16(), 300..=399) && self.phase != Phase::TearingDown {
            return self.redirect(response.headers.get("Location"));
        }
        match self.phase {
            // Whatever the answer: what matters comes with DESCRIBE.
            Phase::Options => {
                self.learn_methods(response);
                self.describe(now);
            }
            Phase::Describe if response.status.is_success() => self.on_description(response),
            Phase::SettingUp(index) => self.on_setup(now, index, response),
            Phase::Play if response.status.is_success() => self.on_play(now, response),
            Phase::Play if response.status == StatusCode::INVALID_RANGE && !pending.request.headers.is_empty() => {
                self.play(now, false);
            }
            Phase::Describe | Phase::Play => self.refused(pending.request.method, response),
            Phase::Playing => self.on_keepalive(now, &pending.request.method, response.status),
            Phase::TearingDown => self.end(EndReason::TornDown),
            Phase::Choosing | Phase::Ended => {}
        }
    }

    fn learn_methods(&mut self, response: &Response) {
        let offers = |name: &str| response.headers.list("Public").any(|m| m.eq_ignore_ascii_case(name));
        if response.status.is_success() && offers("GET_PARAMETER") {
            self.keepalive.method = Method::GetParameter;
        }
    }

    fn on_challenge(&mut self, now: Instant, pending: Pending, response: &Response) {
        let challenges = parse_challenges(response.headers.get_all("WWW-Authenticate"));
        let scheme = self.auth.scheme();
        match self.auth.challenged(challenges) {
            Ok(()) if pending.auth_tries < AUTH_TRIES_MAX => {
                self.send_again(now, pending.request, pending.auth_tries + 1);
            }
            // The media may be public although a keepalive is not.
            _ if self.phase == Phase::Playing => self.schedule_keepalive(now),
            Ok(()) => {
                let scheme = scheme.or(self.auth.scheme());
                let why = scheme.map_or(Refusal::NoCredentials, Refusal::Wrong);
                self.end(EndReason::Authentication(why));
            }
            Err(_) if self.phase == Phase::TearingDown => self.end(EndReason::TornDown),
            Err(refusal) => self.end(EndReason::Authentication(refusal)),
        }
    }

    fn redirect(&mut self, location: Option<&str>) {
        if self.config.redirects >= REDIRECTS_MAX {
            return self.end(EndReason::TooManyRedirects);
        }
        match location.map(|l| self.config.url.redirected(l.trim())) {
            Some(Ok(url)) if self.phase != Phase::Ended => {
                self.phase = Phase::Ended;
                self.pending = None;
                self.keepalive.next = None;
                self.events.push_back(Event::Redirect(url));
            }
            Some(Ok(_)) => {}
            _ => self.violation("redirect without a usable Location"),
        }
    }

    fn refused(&mut self, method: Method, response: &Response) {
        self.end(match response.status {
            StatusCode::NOT_FOUND => EndReason::NotFound { method },
            StatusCode::FORBIDDEN => EndReason::Forbidden { method },
            status => EndReason::Refused {
                method,
                status,
                reason: response.reason.chars().take(200).collect(),
            },
        });
    }

    fn on_description(&mut self, response: &Response) {
        if response.body.is_empty() {
            return self.violation("DESCRIBE was answered without a description");
        }
        let sdp = match SessionDescription::parse(&response.body) {
            Ok(sdp) => sdp,
            Err(e) => return self.end(EndReason::Sdp(e)),
        };
        let headers = &response.headers;
        let base = control_base(headers.get("Content-Base"), headers.get("Content-Location"), &self.url);
        self.aggregate = join_control(&base, sdp.control.as_deref().unwrap_or("*"));
        self.controls = sdp
            .media
            .iter()
            .map(|m| match m.control.as_deref() {
                Some(control) => join_control(&base, control),
                // A lone stream without a control of its own is controlled as a whole (RFC 2326 section C.1.1).
                None => self.aggregate.clone(),
            })
            .collect();
        self.phase = Phase::Choosing;
        self.events.push_back(Event::Described(Box::new(sdp)));
    }

    fn on_setup(&mut self, now: Instant, index: usize, response: &Response) {
        let asked = self.config.transport;
        if response.status == StatusCode::UNSUPPORTED_TRANSPORT {
            return self.end(EndReason::TransportRefused { asked });
        }
        if !response.status.is_success() {
            if index == 0 {
                return self.refused(Method::Setup, response);
            }
            self.events.push_back(Event::SetupRefused {
                stream: index,
                status: response.status,
            });
            return self.set_up(now, index + 1);
        }
        let transport = match response.headers.get("Transport") {
            Some(value) => Transport::parse_list(value).into_iter().next(),
            None if asked == Lower::Tcp => Some(Transport::tcp(self.channel_of(index))),
            None => Some(Transport::udp(0, 0)),
        };
        let Some(transport) = transport else {
            return self.violation("SETUP was answered with a Transport that cannot be understood");
        };
        let granted = match transport.lower {
            _ if transport.multicast => return self.end(EndReason::TransportRefused { asked }),
            Lower::Udp if asked == Lower::Tcp => return self.end(EndReason::TransportRefused { asked }),
            Lower::Udp => Granted::Udp {
                server_ports: transport.server_port,
                source: transport.source,
            },
            Lower::Tcp => {
                let own = self.channel_of(index);
                let (mut rtp, mut rtcp) = transport.interleaved.unwrap_or((own, own + 1));
                if rtp == rtcp || self.channels[usize::from(rtp)] != NO_STREAM {
                    // Granted twice: what was asked for is the better guess.
                    (rtp, rtcp) = (own, own + 1);
                }
                self.take_channel(rtp, index, false);
                self.take_channel(rtcp, index, true);
                Granted::Interleaved { rtp, rtcp }
            }
        };
        self.streams[index].granted = Some(granted.clone());
        self.events.push_back(Event::SetUp {
            stream: index,
            transport: granted,
            ssrc: transport.ssrc,
        });
        self.set_up(now, index + 1);
    }

    fn take_channel(&mut self, channel: u8, stream: usize, rtcp: bool) {
        let user = &mut self.channels[usize::from(channel)];
        if *user == NO_STREAM {
            *user = stream as u8 * 2 + u8::from(rtcp);
            self.decoder.expect_channel(channel);
        }
    }

    fn on_play(&mut self, now: Instant, response: &Response) {
        let entries = response
            .headers
            .get("RTP-Info")
            .map(RtpInfo::parse_list)
            .unwrap_or_default();
        let mut info = vec![None; self.streams.len()];
        for entry in &entries {
            let start = StreamStart {
                seq: entry.seq,
                rtptime: entry.rtptime,
            };
            let by_url = self.streams.iter().position(|s| is_control_of(&entry.url, &s.control));
            // A lone stream needs no URL to be told (GW Security GW4089IP sends a wrong one).
            let lone = (entries.len() == 1 && self.streams.len() == 1).then_some(0);
            if let Some(i) = by_url.or(lone) {
                info[i] = Some(start);
            }
        }
        let range = response.headers.get("Range").and_then(|r| Range::parse(r).ok());
        self.phase = Phase::Playing;
        self.schedule_keepalive(now);
        self.events.push_back(Event::Playing { info, range });
    }

    fn on_keepalive(&mut self, now: Instant, method: &Method, status: StatusCode) {
        if status == StatusCode::SESSION_NOT_FOUND {
            return self.end(EndReason::SessionLost);
        }
        self.schedule_keepalive(now);
        if *method == Method::GetParameter && !status.is_success() {
            // 405, 501 and 451 were seen; whether the camera counted it as a sign of life is unknown: ask again at once.
            self.keepalive.method = Method::Options;
            self.keepalive.next = Some(now);
        }
    }
}

/// Whether the URL of an RTP-Info entry, which may be relative, names the stream of this control URL.
fn is_control_of(url: &str, control: &str) -> bool {
    let url = url.trim_matches('/');
    if url.is_empty() {
        return false;
    }
    let control = control.trim_end_matches('/');
    url == control || control.strip_suffix(url).is_some_and(|rest| rest.ends_with('/'))
}
