//! A stream that is pushed to us: from the publisher's arrival at this shard to the end.

use std::{rc::Rc, task::Poll, time::Instant};

use bytes::{Bytes, BytesMut};
use corenvr_proto::rtmp::server::{CloseReason, Server, ServerEvent};
use corenvr_shard::{Stop, TaskPanicked};

use super::{Continuation, End, EndKind, Event, Machine, Next, Session, Sink, Terms};
use crate::rtmp::{Publisher, Registration};

/// Waits for a publisher and runs its session until it ends. `last`: why the session before ended.
pub(crate) async fn run<S: Sink + 'static>(
    registration: Rc<Registration>,
    terms: Terms,
    last: Option<String>,
    continuation: Continuation,
    mut sink: S,
    stop: &Stop,
) -> Result<End, TaskPanicked> {
    sink.waiting(&registration.waiting_for(last.as_deref()));
    let Some(publisher) = arrival(&registration, stop).await else {
        return Ok(End::new(EndKind::Stopped, "stopped"));
    };
    sink.connecting();
    let stream = match publisher.stream.attach() {
        Ok(stream) => stream,
        Err(e) => return Ok(super::broken(&e)),
    };
    let mut server = publisher.server;
    server.accept();
    let machine = Accepted { server, playing: false };
    let mut session = Session::new(terms, &continuation, stream, machine, sink);
    session.input = publisher.input;
    session.arrivals = Some(registration.clone());
    Ok(match session.run(stop).await {
        Next::End(end) => end,
        Next::Replaced(publisher) => {
            let reason = "the publisher sent nothing any more, and another one took its place";
            session.machine.stop(reason);
            // The silent one may be gone.
            let _ = session.transmit().await;
            registration.put_back(publisher);
            End::new(EndKind::Closed, reason)
        }
        Next::Redirect(_) => End::new(EndKind::Protocol, "a publisher cannot redirect"),
    })
}

/// The next publisher; `None` when it is time to stop.
async fn arrival(registration: &Registration, stop: &Stop) -> Option<Publisher> {
    let mut stopped = std::pin::pin!(stop.requested());
    std::future::poll_fn(|cx| {
        if stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        registration.poll_arrival(cx).map(Some)
    })
    .await
}

/// A publisher's connection behind `publish`.
struct Accepted {
    server: Box<Server>,
    /// It was told that it may send.
    playing: bool,
}

impl Machine for Accepted {
    fn input(&mut self, now: Instant, input: &mut BytesMut) -> bool {
        self.server.handle_input(now, input)
    }

    fn eof(&mut self) {
        self.server.handle_eof();
    }

    fn timeout(&mut self, now: Instant) {
        self.server.handle_timeout(now);
    }

    fn transmit(&mut self) -> Option<Bytes> {
        self.server.poll_transmit()
    }

    fn event(&mut self) -> Option<Event> {
        if !std::mem::replace(&mut self.playing, true) {
            return Some(Event::Playing);
        }
        Some(match self.server.poll_event()? {
            ServerEvent::Media(message) => Event::Media(message),
            ServerEvent::Unpublished => Event::Ended(End::new(EndKind::Closed, "the publisher ended its stream")),
            ServerEvent::Publish(_) => Event::Ended(End::new(EndKind::Closed, "the publisher began another stream")),
            ServerEvent::Closed(reason) => {
                let kind = match reason {
                    CloseReason::Violation { .. } | CloseReason::Player => EndKind::Protocol,
                    CloseReason::Refused | CloseReason::Timeout | CloseReason::Closed => EndKind::Closed,
                };
                Event::Ended(End::new(kind, reason.to_string()))
            }
        })
    }

    fn stop(&mut self, reason: &str) {
        self.server.refuse(reason);
    }
}
