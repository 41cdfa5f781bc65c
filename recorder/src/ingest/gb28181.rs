//! One session with a channel of a GB28181 device: waits for the device, invites it to send to a port of ours, and takes what comes.

mod media;
mod sockets;

use std::{
    cell::RefCell,
    future::Future,
    net::IpAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use corenvr_proto::{
    gb28181::{
        mansrtsp,
        media::{MediaReceiver, PayloadFormat},
        sdp::{MediaTransport, SessionKind, Ssrc},
        url::Gb28181Url,
    },
    rtp::{depacketize::AccessUnit, reorder::ReorderCounts},
};
use corenvr_shard::{
    Stop, TaskPanicked,
    time::{sleep, timeout},
};

use super::{Continuation, End, EndKind, Intake, REPORT_INTERVAL, Sink};
use crate::{
    gb28181::{Answered, Link, MediaPorts, PortLease, Signalling, Told},
    pipeline::{Clocks, Track, TrackSetup},
};
use media::Media;
use sockets::{Flow, Sockets};

/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(250);
/// The platform gives an INVITE up before this; beyond, the server itself is not heard of.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Some devices connect only seconds after they have agreed.
const FIRST_PACKET_TIMEOUT: Duration = Duration::from_secs(15);
/// A device that has registered anew and sends nothing for this long has forgotten the session.
const MOVED_SILENCE: Duration = Duration::from_secs(3);
/// As many pairs of ports are tried: other programs may have some of them.
const PORT_TRIES: usize = 16;
/// As many ports that something comes to are passed over; the next one is taken all the same.
const NOISY_MAX: usize = 16;
/// For how long nothing may come to a UDP port before a device is told of it: two pictures of a slow stream.
const QUIET: Duration = Duration::from_millis(150);

/// The ways to devices, as a shard has them.
#[derive(Clone)]
pub(crate) struct Reach {
    pub signalling: Signalling,
    pub ports: Rc<MediaPorts>,
}

/// What to ask for.
#[derive(Clone)]
pub(crate) struct Target {
    /// Names the tasks.
    pub camera: String,
    pub url: Gb28181Url,
    pub kind: SessionKind,
    pub transport: MediaTransport,
    pub audio: bool,
    /// Without a packet for this long, the session is over.
    pub silence: Duration,
}

/// Who takes what a session brings.
pub(crate) trait Units {
    /// The device cannot be invited yet, in words.
    fn waiting(&mut self, reason: &str);
    /// It can, and is being invited.
    fn inviting(&mut self);
    /// Packets come.
    fn receiving(&mut self, transport: &'static str);
    /// What comes and is not recorded, in words; all of it each time.
    fn not_recorded(&mut self, what: &[String]);
    /// An access unit, and the ticks a second of its track's stamps.
    fn unit(&mut self, now: Instant, track: Track, rate: u32, unit: AccessUnit);
    /// The stamps of a track start anew.
    fn restart(&mut self, now: Instant, track: Track);
    /// What was counted; from time to time, and at the end.
    fn counts(&mut self, packets: ReorderCounts, malformed: u64);
    /// Why the session, which runs since `since`, is to end.
    fn verdict(&self, since: Instant, now: Instant, last_packet: Option<Instant>) -> Option<End>;
    /// The session has ended: what is held comes out.
    fn finish(&mut self, now: Instant);
    /// Something to steer a session of the device's archive by.
    fn steer(&mut self) -> Option<mansrtsp::Action> {
        None
    }
    /// What became of it: the SIP status, `None` if there was no answer; and the device's own words, where it has any.
    fn steered(&mut self, _status: Option<u16>, _answer: Option<mansrtsp::Response>) {}
}

/// Records what a session brings as it comes.
pub(crate) struct Recorded<S> {
    intake: Option<Intake<S>>,
    /// Until the first unit.
    setup: Option<(Continuation, S, bool)>,
    audio_rate: u32,
    silence: Duration,
}

impl<S: Sink> Recorded<S> {
    /// For a live session.
    pub fn new(continuation: Continuation, sink: S, audio: bool, silence: Duration) -> Self {
        Self {
            intake: None,
            setup: Some((continuation, sink, audio)),
            audio_rate: 0,
            silence,
        }
    }

    fn sink(&mut self) -> Option<&mut S> {
        match (&mut self.intake, &mut self.setup) {
            (Some(intake), _) => Some(intake.sink()),
            (None, Some((_, sink, _))) => Some(sink),
            (None, None) => None,
        }
    }

    fn begin(&mut self, track: Track, rate: u32) {
        let Some((continuation, sink, audio)) = self.setup.take() else {
            return;
        };
        let setup = |rate| TrackSetup { rate, parameters: None };
        let video_rate = if track == Track::Video { rate } else { 90_000 };
        let sound = audio.then(|| setup(video_rate));
        self.audio_rate = video_rate;
        let intake = Intake::new(setup(video_rate), sound, Clocks::Shared, &continuation, sink);
        self.intake = Some(intake);
    }
}

impl<S: Sink> Units for Recorded<S> {
    fn waiting(&mut self, reason: &str) {
        if let Some(sink) = self.sink() {
            sink.waiting(reason);
        }
    }

    fn inviting(&mut self) {
        if let Some(sink) = self.sink() {
            sink.connecting();
        }
    }

    fn receiving(&mut self, transport: &'static str) {
        if let Some(sink) = self.sink() {
            sink.receiving(transport);
        }
    }

    fn not_recorded(&mut self, what: &[String]) {
        if let Some(sink) = self.sink() {
            sink.not_recorded(what);
        }
    }

    fn unit(&mut self, now: Instant, track: Track, rate: u32, unit: AccessUnit) {
        self.begin(track, rate);
        let Some(intake) = &mut self.intake else { return };
        if track == Track::Audio && rate != self.audio_rate {
            // Sound in a stream of its own kind has its own clock.
            self.audio_rate = rate;
            intake.separate_audio(rate);
        }
        intake.unit(now, track, unit);
    }

    fn restart(&mut self, now: Instant, track: Track) {
        if let Some(intake) = &mut self.intake {
            intake.restart(now, track);
        }
    }

    fn counts(&mut self, packets: ReorderCounts, malformed: u64) {
        if let Some(intake) = &mut self.intake {
            intake.tell_counts(packets, malformed);
        }
    }

    fn verdict(&self, since: Instant, now: Instant, last_packet: Option<Instant>) -> Option<End> {
        let silence = if last_packet.is_none() {
            self.silence.max(FIRST_PACKET_TIMEOUT)
        } else {
            self.silence
        };
        match &self.intake {
            Some(intake) => intake.verdict(since, now, silence, last_packet),
            None if now.saturating_duration_since(since) > silence => Some(match last_packet {
                Some(_) => End::new(
                    EndKind::Silent,
                    "packets come and no picture in them: is this the channel of a camera?",
                ),
                None => nothing_came(silence),
            }),
            None => None,
        }
    }

    fn finish(&mut self, now: Instant) {
        if let Some(intake) = &mut self.intake {
            intake.finish(now);
        }
    }
}

fn nothing_came(silence: Duration) -> End {
    let seconds = silence.as_secs();
    End::new(
        EndKind::NoPacket,
        format!(
            "the device agreed to send and nothing came for {seconds} s: does it reach our media ports ([gb28181] media_ports, \
            announce_ip), or does a firewall stand between?"
        ),
    )
}

/// Runs a session until it ends. A device that is not there is waited for.
pub(crate) async fn run<U: Units + 'static>(
    target: &Target,
    reach: &Reach,
    mut units: U,
    stop: &Stop,
) -> Result<End, TaskPanicked> {
    let mut link = match reach.signalling.open(&target.url) {
        Ok(link) => link,
        Err(error) => return Ok(End::new(EndKind::Unreachable, error.to_string())),
    };
    let opened = open(target, reach, &mut link, &mut units, stop).await;
    let (answered, sockets, lease) = match opened {
        Ok(opened) => opened,
        Err(end) => return Ok(end),
    };
    let formats = formats(&answered);
    let ssrc = answered.answer.ssrc.map_or(answered.ssrc, Ssrc::value);
    let in_order = target.transport != MediaTransport::Udp;
    let receiver = match MediaReceiver::new(&formats, Some(ssrc), in_order, target.audio) {
        Ok(receiver) => receiver,
        Err(refused) => return Ok(End::new(EndKind::NoVideo, refused.to_string())),
    };
    let media = Rc::new(RefCell::new(Media::new(receiver, ssrc, units)));
    let allowed = allowed(&answered);
    let flow = sockets.receive(target, &answered, &allowed, &media).await;
    let end = match flow {
        Ok(flow) => drive(target, &mut link, flow, &media, stop).await,
        Err(end) => Ok(end),
    };
    media.borrow_mut().finish(Instant::now());
    drop(lease);
    end
}

/// Waits for the device and for its answer.
async fn open<U: Units>(
    target: &Target,
    reach: &Reach,
    link: &mut Link,
    units: &mut U,
    stop: &Stop,
) -> Result<(Answered, Sockets, PortLease), End> {
    while let Some(told) = next_told(link, stop).await? {
        match told {
            Told::Waiting(reason) => units.waiting(&reason),
            Told::Ready => break,
            _ => {}
        }
    }
    units.inviting();
    let (sockets, lease) = quiet(target, reach).await?;
    link.invite(target.kind, target.transport, target.url.stream, lease.rtp())
        .map_err(|e| End::new(EndKind::Unreachable, e.to_string()))?;
    let answer = async {
        while let Some(told) = next_told(link, stop).await? {
            match told {
                Told::Answered(answered) => return Ok(*answered),
                Told::Refused { status, reason } => return Err(refused(target, status, &reason)),
                Told::Ended { reason, .. } => return Err(End::new(EndKind::Closed, reason)),
                _ => {}
            }
        }
        Err(End::new(EndKind::Unreachable, "the SIP server has stopped"))
    };
    let answered = timeout(ANSWER_TIMEOUT, answer)
        .await
        .map_err(|_| End::new(EndKind::Unreachable, "the device does not answer the invitation"))??;
    Ok((answered, sockets, lease))
}

/// The next word of the server; `Ok(None)` never comes while it runs.
async fn next_told(link: &mut Link, stop: &Stop) -> Result<Option<Told>, End> {
    let mut stopped = pin!(stop.requested());
    let mut told = pin!(link.told());
    std::future::poll_fn(|cx| {
        if stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(End::new(EndKind::Stopped, "stopped")));
        }
        told.as_mut().poll(cx).map(|told| match told {
            Some(told) => Ok(Some(told)),
            None => Err(End::new(EndKind::Unreachable, "the SIP server has stopped")),
        })
    })
    .await
}

/// Ports that nothing comes to. After a crash devices go on sending to those of before, and what comes first would count as the
/// session's. Whoever sends to all ports delays a session by this, and no more.
async fn quiet(target: &Target, reach: &Reach) -> Result<(Sockets, PortLease), End> {
    let mut noisy: Vec<(Sockets, PortLease)> = Vec::new();
    let chosen = loop {
        let (mut sockets, lease) = match bind(target, reach) {
            Ok(bound) => bound,
            Err(end) => break noisy.pop().ok_or(end),
        };
        if sockets.are_quiet(QUIET).await || noisy.len() >= NOISY_MAX {
            break Ok((sockets, lease));
        }
        tracing::debug!(camera = %target.camera, port = lease.rtp(), "something comes to a media port that nobody was told of");
        noisy.push((sockets, lease));
    };
    for (sockets, lease) in noisy {
        drop(sockets);
        lease.give_back_untold();
    }
    chosen
}

fn refused(target: &Target, status: Option<u16>, reason: &str) -> End {
    let kind = match status {
        Some(404 | 403) => EndKind::NotFound,
        Some(488 | 415 | 606) => EndKind::TransportRefused,
        _ => EndKind::Protocol,
    };
    let remedy = match status {
        Some(486) => ": it sends to as many others as it can; end one of them, or ask for stream=sub".to_owned(),
        Some(488) => {
            let (one, other) = match target.transport {
                MediaTransport::TcpPassive => (MediaTransport::Udp, MediaTransport::TcpActive),
                MediaTransport::Udp => (MediaTransport::TcpPassive, MediaTransport::TcpActive),
                MediaTransport::TcpActive => (MediaTransport::TcpPassive, MediaTransport::Udp),
            };
            format!(": it does not agree to this transport; try transport={one} or transport={other}")
        }
        Some(404) => ": it has no such channel; `corenvr gb28181 devices` shows which it has".to_owned(),
        _ => String::new(),
    };
    let transport = target.transport;
    let words = match status {
        Some(status) => format!("the device refuses to send over {transport}: {status} {reason}{remedy}"),
        None => format!("the device was asked to send over {transport}, in vain: {reason}"),
    };
    End::new(kind, words)
}

fn bind(target: &Target, reach: &Reach) -> Result<(Sockets, PortLease), End> {
    let mut last = None;
    for _ in 0..PORT_TRIES {
        let Some(lease) = reach.ports.take(Instant::now()) else {
            break;
        };
        match Sockets::bind(target.transport, lease.rtp()) {
            Ok(sockets) => return Ok((sockets, lease)),
            Err(error) => last = Some(error),
        }
    }
    let reason = match last {
        None => "no media port is free: widen [gb28181] media_ports".to_owned(),
        Some(error) => format!("no media port can be had: {error}; choose other [gb28181] media_ports"),
    };
    Err(End::new(EndKind::Unreachable, reason))
}

fn formats(answered: &Answered) -> Vec<PayloadFormat> {
    let formats = answered.answer.formats.iter();
    formats
        .map(|f| PayloadFormat {
            payload_type: f.payload_type,
            encoding: f.encoding.to_ascii_uppercase(),
            clock_rate: f.clock_rate,
        })
        .collect()
}

/// Where media may come from: where the device's SIP comes from, or where its answer says.
fn allowed(answered: &Answered) -> Vec<IpAddr> {
    let mut allowed = vec![answered.source.to_canonical()];
    if let Some(ip) = answered.answer.address
        && !ip.is_unspecified()
    {
        allowed.push(ip.to_canonical());
    }
    allowed
}

enum Wake {
    Told(Option<Told>),
    Tick,
    Flow(Result<End, TaskPanicked>),
}

async fn drive<U: Units + 'static>(
    target: &Target,
    link: &mut Link,
    mut flow: Flow,
    media: &Rc<RefCell<Media<U>>>,
    stop: &Stop,
) -> Result<End, TaskPanicked> {
    let since = Instant::now();
    let mut tick = Box::pin(sleep(TICK));
    let mut next_report = since + REPORT_INTERVAL;
    let mut moved: Option<Instant> = None;
    let mut receiving = false;
    loop {
        let wake = {
            let mut told = pin!(link.told());
            std::future::poll_fn(|cx| {
                if let Poll::Ready(end) = Pin::new(&mut flow).poll(cx) {
                    return Poll::Ready(Wake::Flow(end));
                }
                if let Poll::Ready(told) = told.as_mut().poll(cx) {
                    return Poll::Ready(Wake::Told(told));
                }
                tick.as_mut().poll(cx).map(|()| Wake::Tick)
            })
            .await
        };
        let now = Instant::now();
        match wake {
            Wake::Flow(end) => return end,
            Wake::Told(None) => return Ok(End::new(EndKind::Unreachable, "the SIP server has stopped")),
            Wake::Told(Some(Told::Ended { reason, complete })) => {
                if complete {
                    linger(media).await;
                }
                media.borrow_mut().said_end(Instant::now());
                let kind = if complete { EndKind::Done } else { EndKind::Closed };
                return Ok(End::new(kind, format!("the session is over: {reason}")));
            }
            Wake::Told(Some(Told::Moved)) => moved = Some(now),
            Wake::Told(Some(Told::Info { status, answer })) => media.borrow_mut().units().steered(status, answer),
            Wake::Told(Some(_)) => {}
            Wake::Tick => {
                tick = Box::pin(sleep(TICK));
                if stop.is_requested() {
                    return Ok(End::new(EndKind::Stopped, "stopped"));
                }
                let mut media = media.borrow_mut();
                media.tick(now);
                if media.last_packet().is_some() && !std::mem::replace(&mut receiving, true) {
                    media.units().receiving(target.transport.as_str());
                }
                if media.take_key_frame_wish() {
                    link.key_frame();
                }
                if let Some(action) = media.units().steer() {
                    // The server tells when the session is not there any more.
                    let _ = link.info(action);
                }
                if now >= next_report {
                    next_report = now + REPORT_INTERVAL;
                    flow.report(&mut media, now);
                }
                if let Some(end) = verdict(&media, since, now, moved) {
                    return Ok(end);
                }
            }
        }
    }
}

/// Takes what is still on its way after the device has said that all was sent.
async fn linger<U: Units>(media: &Rc<RefCell<Media<U>>>) {
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        sleep(TICK).await;
        media.borrow_mut().tick(Instant::now());
    }
}

fn verdict<U: Units>(media: &Media<U>, since: Instant, now: Instant, moved: Option<Instant>) -> Option<End> {
    let age = |t: Instant| now.saturating_duration_since(t);
    let last = media.last_packet();
    if let Some(moved) = moved
        && age(moved) > MOVED_SILENCE
        && age(last.unwrap_or(since)) > MOVED_SILENCE
    {
        let reason = "the device has registered anew, and its media has stopped";
        return Some(End::new(EndKind::Closed, reason));
    }
    media.verdict(since, now)
}
