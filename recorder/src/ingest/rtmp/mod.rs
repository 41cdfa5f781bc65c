//! RTMP sessions: moves bytes and timers between a socket and a machine, and media on to the intake. Who connects to whom is in `pull`
//! and `push`; this file has what both share.

pub(crate) mod pull;
pub(crate) mod push;

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use corenvr_proto::{
    rtmp::{CLOCK_RATE, MediaMessage, MediaMessageKind, RtmpUrl, Tracks},
    rtp::reorder::ReorderCounts,
};
use corenvr_shard::{
    Stop,
    net::Stream,
    time::{sleep, timeout},
};

use super::{Continuation, End, EndKind, Intake, Sink};
use crate::{
    pipeline::{Clocks, Track, TrackSetup},
    rtmp::{Publisher, Registration},
};

/// What comes within this time is read together: about a picture's time. It is also how much later a live viewer sees it at most.
const GATHER: Duration = Duration::from_millis(25);
/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(250);
/// A peer that takes no byte of ours for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A publisher that sent nothing for this long makes room for another one with its key.
const REPLACED_AFTER: Duration = Duration::from_secs(5);

/// How patiently, and what of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub audio: bool,
    /// Without a picture for this long, the session is over.
    pub silence: Duration,
}

/// A protocol machine as a session uses it.
trait Machine {
    /// Takes bytes; true if more of them can be taken after polling.
    fn input(&mut self, now: Instant, input: &mut BytesMut) -> bool;
    fn eof(&mut self);
    fn timeout(&mut self, now: Instant);
    fn transmit(&mut self) -> Option<Bytes>;
    fn event(&mut self) -> Option<Event>;
    /// Tells the peer that it is over, and why.
    fn stop(&mut self, reason: &str);
}

enum Event {
    Playing,
    Media(MediaMessage),
    Redirect(Box<RtmpUrl>),
    Ended(End),
}

enum Next {
    Redirect(Box<RtmpUrl>),
    Replaced(Publisher),
    End(End),
}

enum Wake {
    Read(io::Result<usize>),
    Tick,
    Arrival(Publisher),
}

struct Session<'a, M, S> {
    terms: Terms,
    continuation: &'a Continuation,
    stream: Stream,
    machine: M,
    input: BytesMut,
    tick: Pin<Box<dyn Future<Output = ()>>>,
    /// Until it plays.
    sink: Option<S>,
    feed: Option<Feed<S>>,
    /// Where other publishers with the same key arrive.
    arrivals: Option<Rc<Registration>>,
}

impl<'a, M: Machine, S: Sink> Session<'a, M, S> {
    fn new(terms: Terms, continuation: &'a Continuation, stream: Stream, machine: M, sink: S) -> Self {
        Self {
            terms,
            continuation,
            stream,
            machine,
            input: BytesMut::new(),
            tick: Box::pin(sleep(TICK)),
            sink: Some(sink),
            feed: None,
            arrivals: None,
        }
    }

    /// Runs until it ends. What is whole of the media is out then.
    async fn run(&mut self, stop: &Stop) -> Next {
        let next = self.drive(stop).await;
        if let Some(feed) = &mut self.feed {
            feed.finish(Instant::now());
        }
        if let Next::End(end) = &next {
            self.machine.stop(match end.kind {
                EndKind::Stopped => "the camera was stopped or changed",
                _ => &end.reason,
            });
            // The peer may be gone: then nobody has to be told.
            let _ = self.transmit().await;
        }
        next
    }

    async fn drive(&mut self, stop: &Stop) -> Next {
        loop {
            loop {
                let now = Instant::now();
                let more = self.machine.input(now, &mut self.input);
                while let Some(event) = self.machine.event() {
                    match event {
                        Event::Playing => self.playing(now),
                        Event::Media(message) => {
                            if let Some(feed) = &mut self.feed {
                                feed.media(now, &message);
                            }
                        }
                        Event::Redirect(url) => return Next::Redirect(url),
                        Event::Ended(end) => return Next::End(end),
                    }
                }
                if let Err(end) = self.transmit().await {
                    return Next::End(end);
                }
                if !more {
                    break;
                }
                corenvr_shard::yield_if_needed().await;
            }
            match self.wait().await {
                Wake::Read(Ok(0)) => self.machine.eof(),
                Wake::Read(Ok(_)) => {}
                Wake::Read(Err(e)) => return Next::End(broken(&e)),
                Wake::Arrival(publisher) => {
                    if let Some(next) = self.on_arrival(publisher) {
                        return next;
                    }
                }
                Wake::Tick => {
                    self.tick = Box::pin(sleep(TICK));
                    if let Some(end) = self.on_tick(Instant::now(), stop) {
                        return Next::End(end);
                    }
                }
            }
        }
    }

    fn playing(&mut self, now: Instant) {
        if let Some(mut sink) = self.sink.take() {
            self.stream.set_gather(GATHER);
            sink.chosen(&[], &[]);
            self.feed = Some(Feed::new(self.terms, self.continuation, sink, now));
        }
    }

    async fn wait(&mut self) -> Wake {
        let Self {
            stream,
            input,
            tick,
            arrivals,
            ..
        } = self;
        let mut read = pin!(stream.read_into(input));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = read.as_mut().poll(cx) {
                return Poll::Ready(Wake::Read(result));
            }
            if let Some(arrivals) = arrivals
                && let Poll::Ready(publisher) = arrivals.poll_arrival(cx)
            {
                return Poll::Ready(Wake::Arrival(publisher));
            }
            tick.as_mut().poll(cx).map(|()| Wake::Tick)
        })
        .await
    }

    async fn transmit(&mut self) -> Result<(), End> {
        while let Some(bytes) = self.machine.transmit() {
            match timeout(WRITE_TIMEOUT, self.stream.write_all(&bytes)).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => return Err(broken(&e)),
                Err(_) => return Err(End::new(EndKind::Closed, "the peer does not read what we send")),
            }
        }
        Ok(())
    }

    /// Another publisher has the same key: the one that sends stays, one that does not makes room.
    fn on_arrival(&mut self, publisher: Publisher) -> Option<Next> {
        let last = self.feed.as_ref().map(|f| f.last_message.unwrap_or(f.since));
        if last.is_none_or(|last| last.elapsed() >= REPLACED_AFTER) {
            return Some(Next::Replaced(publisher));
        }
        if let Some(arrivals) = &self.arrivals {
            arrivals.refuse(publisher, "another publisher is sending with this stream key");
        }
        None
    }

    fn on_tick(&mut self, now: Instant, stop: &Stop) -> Option<End> {
        self.machine.timeout(now);
        if stop.is_requested() {
            return Some(End::new(EndKind::Stopped, "stopped"));
        }
        self.feed.as_mut()?.tick(now)
    }
}

fn broken(e: &io::Error) -> End {
    End::new(EndKind::Closed, format!("the connection broke: {e}"))
}

/// The media of one session on its way to the intake.
struct Feed<S> {
    terms: Terms,
    tracks: Tracks,
    intake: Intake<S>,
    since: Instant,
    last_message: Option<Instant>,
    seen_picture: bool,
    malformed: u64,
    /// How much of what is not recorded the sink has been told.
    told: usize,
}

impl<S: Sink> Feed<S> {
    fn new(terms: Terms, continuation: &Continuation, sink: S, now: Instant) -> Self {
        let setup = || TrackSetup {
            rate: CLOCK_RATE,
            parameters: None,
        };
        let audio = terms.audio.then(setup);
        Self {
            terms,
            tracks: Tracks::new(),
            intake: Intake::new(setup(), audio, Clocks::Shared, continuation, sink),
            since: now,
            last_message: None,
            seen_picture: false,
            malformed: 0,
            told: 0,
        }
    }

    fn media(&mut self, now: Instant, message: &MediaMessage) {
        if self.last_message.replace(now).is_none() {
            self.intake.sink().receiving("tcp");
        }
        if message.kind == MediaMessageKind::Audio && !self.terms.audio {
            return;
        }
        self.malformed += u64::from(self.tracks.push(message).is_err());
        self.units(now);
        let not_recorded = self.tracks.not_recorded();
        if not_recorded.len() != self.told {
            self.told = not_recorded.len();
            self.intake.sink().not_recorded(not_recorded);
        }
    }

    fn units(&mut self, now: Instant) {
        while let Some(unit) = self.tracks.poll_video() {
            self.seen_picture = true;
            self.intake.unit(now, Track::Video, unit);
        }
        while let Some(unit) = self.tracks.poll_audio() {
            self.intake.unit(now, Track::Audio, unit);
        }
    }

    fn tick(&mut self, now: Instant) -> Option<End> {
        self.intake.tell_counts(ReorderCounts::default(), self.malformed);
        let end = self
            .intake
            .verdict(self.since, now, self.terms.silence, self.last_message)?;
        if end.kind == EndKind::Silent && !self.seen_picture && self.last_message.is_some() {
            let what = match self.tracks.not_recorded() {
                [] => "it carries sound only".to_owned(),
                list => list.join(", "),
            };
            let reason =
                format!("the stream has no picture that can be recorded ({what}): set the encoder to H.264 or H.265");
            return Some(End::new(EndKind::NoVideo, reason));
        }
        Some(end)
    }

    fn finish(&mut self, now: Instant) {
        self.tracks.finish();
        self.units(now);
        self.intake.finish(now);
        self.intake.tell_counts(ReorderCounts::default(), self.malformed);
    }
}
