//! Plays a feed into an outlet at its pace. The session stops it, asks it what was reached, gives it another range, and starts it again.

use std::{
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use corenvr_media::{Frame, WallTime};
use corenvr_shard::{time, yield_if_needed};
use futures::FutureExt;

use crate::{
    feed::{Ending, Feed, Item},
    outlet::Outlet,
    pacer::{HOLE_MICROS, MediaClock, Pacer},
    plan::{Gaps, Npt},
    stats::{SessionGuard, count},
    transport::OUTBOX_BYTES_MAX,
    wake::{Flag, unless},
};

/// Frames that are due within this go out together: fewer wake-ups and system calls.
const SLACK: Duration = Duration::from_millis(12);
/// Sender reports come at the start of every range and this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// From the last frame to BYE: players cut off what they have not shown yet when it comes.
const BYE_WAIT: Duration = Duration::from_secs(1);
/// The backlog that a live viewer starts with is shown within this, so that the picture is there at once and then follows the present.
const LIVE_BURST_MICROS: i64 = 300_000;
/// How long packets of a stopped range may take to leave a UDP socket.
const DATAGRAM_WAIT: Duration = Duration::from_millis(200);

/// What plays, and everything about the session's media that outlives a range.
pub struct Player {
    /// Tracks, sequence numbers, reports.
    pub outlet: Outlet,
    guard: SessionGuard,
    feed: Option<Feed>,
    clock: MediaClock,
    pacer: Pacer,
    gaps: Gaps,
    /// Taken from the feed and not sent yet.
    waiting: Option<(usize, Frame, Npt)>,
    ending: Option<Ending>,
    /// The furthest position sent in this range.
    position: Option<Npt>,
    /// Sound before this position is left out: the picture passes it too fast for sound.
    mute_until: Option<Npt>,
    burst_micros: Option<i64>,
    reported: Instant,
    finished: bool,
    unsendable: bool,
}

/// Where a range begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Position.
    pub npt: Npt,
    /// UTC.
    pub wall: WallTime,
}

impl Player {
    /// Has nothing to play yet.
    pub fn new(outlet: Outlet, guard: SessionGuard) -> Self {
        Self {
            outlet,
            guard,
            feed: None,
            clock: MediaClock::new(),
            pacer: Pacer::new(None),
            gaps: Gaps::Skip,
            waiting: None,
            ending: None,
            position: None,
            mute_until: None,
            burst_micros: None,
            reported: Instant::now(),
            finished: false,
            unsendable: false,
        }
    }

    /// Plays another range from now on, `burst_micros` ahead of its time (`None`: as fast as it is taken).
    pub fn begin(&mut self, feed: Feed, start: Start, gaps: Gaps, burst_micros: Option<i64>) {
        self.clock.begin(start.npt, start.wall);
        self.burst_micros = if feed.is_live() { None } else { burst_micros };
        self.mute_until = None;
        if let Some(until) = feed.backlog_end()
            && until.micros_since(start.npt) > LIVE_BURST_MICROS
        {
            self.clock.squeeze(until, LIVE_BURST_MICROS);
            self.mute_until = Some(until);
        }
        self.pacer = Pacer::new(self.burst_micros);
        self.gaps = gaps;
        self.feed = Some(feed);
        self.waiting = None;
        self.ending = None;
        self.position = None;
        self.finished = false;
    }

    /// The feed of the current range.
    pub const fn feed(&self) -> Option<&Feed> {
        self.feed.as_ref()
    }

    /// Whether the current range was played to its end.
    pub const fn finished(&self) -> bool {
        self.finished
    }

    /// The furthest position sent in this range.
    pub const fn position(&self) -> Option<Npt> {
        self.position
    }

    /// The position of the next frame; `None` if there is none.
    pub async fn peek(&mut self) -> Option<Npt> {
        while self.waiting.is_none() && self.ending.is_none() {
            let item = self.feed.as_mut()?.next().await;
            self.take(item);
        }
        self.waiting.as_ref().map(|w| w.2)
    }

    /// Media time of a position of the current range.
    pub fn media_at(&self, npt: Npt) -> i64 {
        self.clock.at(npt)
    }

    /// UTC of a position of the current range.
    pub fn wall_of(&self, npt: Npt) -> Option<WallTime> {
        self.feed.as_ref()?.wall_of(npt)
    }

    /// Plays until the range ends or `stop` is set.
    pub async fn run(mut self: Box<Self>, stop: Rc<Flag>) -> Box<Self> {
        self.guard.set_playing(true);
        self.pacer.restart();
        if let Err(error) = self.play(&stop).await {
            tracing::debug!(%error, "a viewer is gone");
        }
        // What is left of a frame: a packet sequence with a hole would look like loss.
        drop(time::timeout(DATAGRAM_WAIT, self.outlet.flush_datagrams()).await);
        self.guard.set_playing(false);
        self
    }

    async fn play(&mut self, stop: &Flag) -> io::Result<()> {
        let start = match self.peek_now(stop).await? {
            Some(npt) => self.clock.at(npt),
            None => self.clock.reached(),
        };
        self.report(start, None);
        loop {
            yield_if_needed().await;
            if self.waiting.is_none() && self.ending.is_none() && !self.pull(stop).await? {
                return Ok(());
            }
            if let Some((track, frame, npt)) = self.waiting.take() {
                self.cross_hole(npt);
                let now = Instant::now();
                let due = self.pacer.due(now, npt);
                if due > now + SLACK && !self.wait_until(due, stop).await? {
                    self.waiting = Some((track, frame, npt));
                    return Ok(());
                }
                self.send(track, &frame, npt);
                if self.outlet.waiting() > OUTBOX_BYTES_MAX && !self.flush(stop).await? {
                    return Ok(());
                }
            } else if let Some(ending) = self.ending {
                return self.end(ending, stop).await;
            }
        }
    }

    /// The position of the first frame, unless it takes long to come: then the report goes out without it.
    async fn peek_now(&mut self, stop: &Flag) -> io::Result<Option<Npt>> {
        if self.waiting.is_none() && self.ending.is_none() {
            self.pull(stop).await?;
        }
        Ok(self.waiting.as_ref().map(|w| w.2))
    }

    /// Takes the next thing from the feed; sends what waits before it waits itself. False if it was stopped.
    async fn pull(&mut self, stop: &Flag) -> io::Result<bool> {
        let Some(feed) = &mut self.feed else { return Ok(false) };
        let item = match feed.next().now_or_never() {
            Some(item) => item,
            None => {
                if !self.flush(stop).await? {
                    return Ok(false);
                }
                let Some(feed) = &mut self.feed else { return Ok(false) };
                let Some(item) = unless(stop, feed.next()).await else { return Ok(false) };
                item
            }
        };
        self.take(item);
        Ok(true)
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Frame(track, frame, npt) => self.waiting = Some((track, frame, npt)),
            Item::Parameters(track, parameters) => self.outlet.set_parameters(track, &parameters),
            Item::End(ending) => self.ending = Some(ending),
        }
    }

    /// Footage with a hole in it goes on without a break, unless time is to be linear. Live footage has waited the hole out.
    fn cross_hole(&mut self, npt: Npt) {
        let Some(last) = self.position else { return };
        let live = self.feed.as_ref().is_some_and(Feed::is_live);
        if npt.micros_since(last) > HOLE_MICROS && self.gaps == Gaps::Skip && !live {
            self.pacer.jump(last, npt);
            self.clock.jump(npt);
        }
    }

    fn send(&mut self, track: usize, frame: &Frame, npt: Npt) {
        let media = self.clock.at(npt);
        if self.reported.elapsed() >= REPORT_INTERVAL {
            self.report(media, None);
        }
        self.position = Some(self.position.map_or(npt, |p| p.max(npt)));
        self.clock.reach(media);
        if let Some(feed) = &self.feed
            && feed.is_live()
        {
            let skipped = feed.take_skipped();
            if skipped > 0 {
                self.guard.skipped(skipped);
            }
        }
        if self.mute_until.is_some_and(|until| npt <= until) && self.outlet.is_sound(track) {
            return;
        }
        match self.outlet.push(track, frame, media) {
            Ok(0) => {}
            Ok(bytes) => self.guard.sent(frame.time, bytes),
            Err(error) => {
                count(&self.guard.all().counters.unsendable);
                if !std::mem::replace(&mut self.unsendable, true) {
                    tracing::warn!(at = %frame.time, %error, "a frame cannot be sent; more of this session are only counted");
                }
            }
        }
    }

    fn report(&mut self, media: i64, bye: Option<&str>) {
        self.reported = Instant::now();
        self.outlet.report(media, self.clock.wall_at(media), bye);
    }

    async fn wait_until(&mut self, due: Instant, stop: &Flag) -> io::Result<bool> {
        Ok(self.flush(stop).await? && unless(stop, time::sleep_until(due)).await.is_some())
    }

    async fn flush(&mut self, stop: &Flag) -> io::Result<bool> {
        if self.outlet.waiting() == 0 {
            return Ok(true);
        }
        unless(stop, self.outlet.flush()).await.transpose().map(|done| done.is_some())
    }

    async fn end(&mut self, ending: Ending, stop: &Flag) -> io::Result<()> {
        // What was sent ahead of its time has to be shown first.
        let ahead = Duration::from_micros(self.burst_micros.unwrap_or(0).max(0) as u64);
        if self.wait_until(Instant::now() + ahead + BYE_WAIT, stop).await? {
            self.report(self.clock.reached(), Some(ending.reason()));
            self.finished = true;
            self.flush(stop).await?;
        }
        Ok(())
    }
}
