//! A stream that we pull: from connecting to the end.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use corenvr_proto::rtmp::{
    RtmpUrl,
    client::{Client, ClientConfig, ClientEvent, EndReason, Step},
};
use corenvr_shard::{Stop, TaskPanicked};

use super::{Continuation, End, EndKind, Event, Machine, Next, Session, Sink, Terms};
use crate::ingest::rtsp::connect;

/// What to pull, and how patiently.
#[derive(Clone)]
pub(crate) struct Target {
    pub url: RtmpUrl,
    /// How long connecting may take.
    pub connect: Duration,
    pub terms: Terms,
}

/// Runs a session until it ends; follows redirects.
pub(crate) async fn run<S: Sink + 'static>(
    target: &Target,
    continuation: Continuation,
    mut sink: S,
    stop: &Stop,
) -> Result<End, TaskPanicked> {
    let mut config = ClientConfig {
        url: target.url.clone(),
        random: rand::random(),
        redirects: 0,
    };
    loop {
        let (host, port) = (config.url.host(), config.url.port());
        let stream = match connect(host, port, target.connect, stop).await {
            Ok(stream) => stream,
            Err(end) => return Ok(end),
        };
        let client = Client::new(Instant::now(), config.clone());
        let mut session = Session::new(target.terms, &continuation, stream, client, sink);
        match (session.run(stop).await, session.sink) {
            (Next::Redirect(url), Some(before)) => {
                sink = before;
                config.url = *url;
                config.redirects += 1;
            }
            (Next::End(end), _) => return Ok(end),
            (Next::Redirect(_) | Next::Replaced(_), _) => {
                let reason = "the server redirects in the middle of a session";
                return Ok(End::new(EndKind::Protocol, reason));
            }
        }
    }
}

impl Machine for Client {
    fn input(&mut self, now: Instant, input: &mut BytesMut) -> bool {
        self.handle_input(now, input)
    }

    fn eof(&mut self) {
        self.handle_eof();
    }

    fn timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }

    fn transmit(&mut self) -> Option<Bytes> {
        self.poll_transmit()
    }

    fn event(&mut self) -> Option<Event> {
        Some(match self.poll_event()? {
            ClientEvent::Playing => Event::Playing,
            ClientEvent::Media(message) => Event::Media(message),
            ClientEvent::Redirect(url) => Event::Redirect(Box::new(url)),
            ClientEvent::Ended(reason) => Event::Ended(explain(&reason)),
        })
    }

    fn stop(&mut self, _: &str) {
        Client::stop(self);
    }
}

fn explain(reason: &EndReason) -> End {
    let kind = match reason {
        EndReason::Stopped => EndKind::Stopped,
        EndReason::Unauthorized(_) => EndKind::Unauthorized,
        EndReason::NotFound(_) => EndKind::NotFound,
        EndReason::Timeout { step: Step::Play } => EndKind::Silent,
        EndReason::StreamEnded(_) | EndReason::Closed { .. } | EndReason::Timeout { .. } => EndKind::Closed,
        EndReason::Refused { .. } | EndReason::TooManyRedirects | EndReason::Violation { .. } => EndKind::Protocol,
    };
    End::new(kind, reason.to_string())
}
