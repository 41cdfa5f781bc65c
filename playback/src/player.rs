//! Plays a feed into an outlet at its pace. The session stops it, asks it what was reached, gives it another range, and starts it again.

use std::{
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use corenvr_media::{Frame, TrackId, WallTime};
use corenvr_shard::{time, yield_if_needed};
use futures::FutureExt;

use crate::{
    feed::{Ending, Feed, Item, Shot},
    manner::Sound,
    outlet::{Outlet, ReplayInfo},
    pacer::{Flow, HOLE_MICROS, MediaClock, Pacer},
    plan::{Begin, Direction, Gaps, Mark, Npt, Order},
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
/// Silence is sent at least this often while a picture is waited for.
const SILENCE_INTERVAL: Duration = Duration::from_millis(100);
/// Frames that may follow a stop until every picture shown before the last one is sent as well: 16 pictures may be reordered, with sound
/// between them.
const GROUP_FRAMES_MAX: u32 = 64;
/// And how long to wait for one of them to be read.
const GROUP_WAIT: Duration = Duration::from_millis(200);
/// Key frames that are further apart have a hole between them.
const KEY_HOLE_MICROS: i64 = 60_000_000;
/// Before the one frame of a step come those that it depends on, so far apart.
pub const STILL_STEP_MICROS: i64 = 1000;

/// What plays, and everything about the session's media that outlives a range.
pub struct Player {
    /// Tracks, sequence numbers, reports.
    pub outlet: Outlet,
    guard: SessionGuard,
    feed: Option<Feed>,
    clock: MediaClock,
    pacer: Pacer,
    ride: Ride,
    /// Taken from the feed and not sent yet.
    waiting: Option<Shot>,
    ending: Option<Ending>,
    /// The furthest media time of this range and its position: the frame shown last.
    shown: Option<(i64, Npt)>,
    /// Where this range began, and whether the frame at that moment was shown before it did.
    from: Option<Begin>,
    /// Pictures sent in this range.
    pictures: u32,
    /// The picture sent last, in any range: what the client's decoder is at.
    decoded: Option<WallTime>,
    /// Sound before this position is left out: the picture passes it too fast for sound.
    mute_until: Option<Npt>,
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

/// How a range is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ride {
    /// What becomes of time without footage.
    pub gaps: Gaps,
    /// How media time follows the footage.
    pub flow: Flow,
    /// How far ahead of its time it is sent, in microseconds; `None`: as fast as it is taken.
    pub burst_micros: Option<i64>,
    /// So many pictures go at once, besides.
    pub burst_pictures: u32,
    /// What becomes of sound.
    pub sound: Sound,
    /// One frame; those that it depends on come so many microseconds of media time before it.
    pub still: Option<i64>,
    /// By ONVIF's rules, for a PLAY of this sequence number.
    pub replay: Option<u8>,
}

impl Ride {
    /// As recorded, as fast as it is taken.
    pub const PLAIN: Self = Self {
        gaps: Gaps::Skip,
        flow: Flow::Rate(1.0),
        burst_micros: None,
        burst_pictures: 0,
        sound: Sound::Recorded,
        still: None,
        replay: None,
    };
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
            ride: Ride::PLAIN,
            waiting: None,
            ending: None,
            shown: None,
            from: None,
            pictures: 0,
            decoded: None,
            mute_until: None,
            reported: Instant::now(),
            finished: false,
            unsendable: false,
        }
    }

    /// Plays another range from now on. `from` is where it was asked to begin.
    pub fn begin(&mut self, feed: Feed, start: Start, from: Begin, ride: Ride) {
        self.feed = Some(feed);
        self.waiting = None;
        self.ending = None;
        self.finished = false;
        self.set_off(start, from, ride);
    }

    /// Goes on with the range, in another way.
    pub fn set_off(&mut self, start: Start, from: Begin, ride: Ride) {
        let backlog = self.feed.as_ref().filter(|f| f.is_live()).map(Feed::backlog_end);
        self.ride = Ride {
            burst_micros: ride.burst_micros.filter(|_| backlog.is_none()),
            ..ride
        };
        self.from = Some(from);
        self.shown = None;
        self.pictures = 0;
        if ride.replay.is_some() {
            // Clients of ONVIF want the time of the footage.
            self.clock.forget_wall();
        }
        match from {
            // Pictures may come in another order than they are shown in: what matters is how far they are from the one shown last.
            Begin::After(npt) if self.anchors(&ride) => {
                let media = self
                    .clock
                    .resume(npt, self.wall_of(npt).unwrap_or(start.wall), ride.flow);
                self.shown = Some((media, npt));
            }
            Begin::At(_) | Begin::After(_) => self.clock.begin(start.npt, start.wall, ride.flow),
        }
        if let Some(lead) = ride.still {
            self.clock.delay(lead);
        }
        self.catch_up(start.npt, backlog.flatten());
        self.pacer = Pacer::new(self.ride.burst_micros);
        self.outlet.restart_silence(self.clock.upcoming());
        let rate = match ride.flow {
            Flow::Rate(rate) => rate,
            Flow::Original => 1.0,
        };
        self.guard.set_rate(rate);
    }

    /// Whether play in this way goes on from the frame shown last, at the same distance as in the footage. Key frames come at once instead.
    fn anchors(&self, ride: &Ride) -> bool {
        let every = matches!(self.feed.as_ref().and_then(Feed::order), Some(Order::Every));
        every && ride.still.is_none() && ride.flow != Flow::Original
    }

    /// The range that was begun behind a frame shown before turns out to go on with this one.
    pub fn go_on_with(&mut self, start: Start) {
        if self.shown.is_none() {
            self.clock.begin(start.npt, start.wall, self.ride.flow);
        }
    }

    /// What has happened already of live footage passes fast.
    fn catch_up(&mut self, start: Npt, backlog_end: Option<Npt>) {
        self.mute_until = None;
        if let Some(until) = backlog_end
            && until.micros_since(start) > LIVE_BURST_MICROS
        {
            self.clock.squeeze(until, LIVE_BURST_MICROS);
            self.mute_until = Some(until);
        }
    }

    /// The feed of the current range.
    pub const fn feed(&self) -> Option<&Feed> {
        self.feed.as_ref()
    }

    /// Whether the current range was played to its end.
    pub const fn finished(&self) -> bool {
        self.finished
    }

    /// The position of the frame shown last; where the range begins, if there is none yet.
    pub fn position(&self) -> Option<Npt> {
        self.progress().map(|p| match p {
            Begin::At(npt) | Begin::After(npt) => npt,
        })
    }

    /// Where play in another order would go on.
    pub fn progress(&self) -> Option<Begin> {
        let shown = self.shown.map(|s| s.1);
        // What was sent of a group in reverse is no place that a decoder could go on from.
        let in_groups = self.feed.as_ref().and_then(Feed::order) == Some(Order::Gops);
        let after = if in_groups { Begin::At } else { Begin::After };
        shown.map(after).or(self.from)
    }

    /// The client's decoder begins anew.
    pub const fn forget_decoded(&mut self) {
        self.decoded = None;
    }

    /// The time of the picture that was sent last, in any range.
    pub const fn decoded(&self) -> Option<WallTime> {
        self.decoded
    }

    /// The position of the next frame; `None` if there is none.
    pub async fn peek(&mut self) -> Option<Npt> {
        while self.waiting.is_none() && self.ending.is_none() {
            let item = self.feed.as_mut()?.next().await;
            self.take(item);
        }
        self.waiting.as_ref().map(|w| w.npt)
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
        match self.play(&stop).await {
            Ok(()) => self.finish_group().await,
            Err(error) => tracing::debug!(%error, "a viewer is gone"),
        }
        // What is left of a frame: a packet sequence with a hole would look like loss.
        drop(time::timeout(DATAGRAM_WAIT, self.outlet.flush_datagrams()).await);
        self.guard.set_playing(false);
        self
    }

    async fn play(&mut self, stop: &Flag) -> io::Result<()> {
        let start = self
            .waiting
            .as_ref()
            .map_or(self.clock.upcoming(), |w| self.clock.at(w.npt));
        self.report(start, None);
        loop {
            yield_if_needed().await;
            if self.waiting.is_none() && self.ending.is_none() && !self.pull(stop).await? {
                return Ok(());
            }
            if let Some(shot) = self.waiting.take() {
                self.cross_hole(&shot);
                let now = Instant::now();
                let due = self.pacer.due(now, self.clock.at(shot.pace));
                let paced = self.pictures >= self.ride.burst_pictures;
                if paced && due > now + SLACK && !self.wait_until(due, stop).await? {
                    self.waiting = Some(shot);
                    return Ok(());
                }
                self.send(&shot);
                if self.outlet.waiting() > OUTBOX_BYTES_MAX && !self.flush(stop).await? {
                    return Ok(());
                }
            } else if let Some(ending) = self.ending {
                return self.end(ending, stop).await;
            }
        }
    }

    /// Stopped in the middle of pictures that are stored in another order than they are shown in: sends those that belong before the last
    /// one, so that the position is true, and play in any direction can go on from it.
    async fn finish_group(&mut self) {
        let order = self.feed.as_ref().and_then(Feed::order);
        let by_groups = order == Some(Order::Gops) || self.ride.flow == Flow::Original;
        if by_groups || self.ride.still.is_some() || self.ending.is_some() {
            return;
        }
        for _ in 0..GROUP_FRAMES_MAX {
            if self.waiting.is_none() {
                let Some(feed) = &mut self.feed else { return };
                let item = if feed.is_live() {
                    feed.next().now_or_never()
                } else {
                    time::timeout(GROUP_WAIT, feed.next()).await.ok()
                };
                match item {
                    Some(item) => self.take(item),
                    None => return,
                }
            }
            let (Some((media, _)), Some(shot)) = (self.shown, &self.waiting) else {
                return;
            };
            if self.clock.at(shot.npt) >= media {
                return;
            }
            if let Some(shot) = self.waiting.take() {
                self.send(&shot);
            }
        }
    }

    /// Takes the next thing from the feed; sends what waits before it waits itself. False if it was stopped.
    async fn pull(&mut self, stop: &Flag) -> io::Result<bool> {
        let Some(feed) = &mut self.feed else { return Ok(false) };
        if let Some(item) = feed.next().now_or_never() {
            self.take(item);
            return Ok(true);
        }
        if !self.flush(stop).await? {
            return Ok(false);
        }
        let Some(feed) = &mut self.feed else { return Ok(false) };
        let Some(item) = unless(stop, feed.next()).await else {
            return Ok(false);
        };
        self.take(item);
        Ok(true)
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Shot(shot) => self.waiting = Some(shot),
            Item::Parameters(track, parameters) => self.outlet.set_parameters(track, &parameters),
            Item::Joined { start, backlog_end } => self.join(start, backlog_end),
            Item::End(ending) => self.ending = Some(ending),
        }
    }

    /// The live edge is reached: it has one pace.
    fn join(&mut self, (npt, wall): (Npt, WallTime), backlog_end: Option<Npt>) {
        if self.ride.flow == Flow::Rate(1.0) {
            return;
        }
        self.ride.flow = Flow::Rate(1.0);
        self.ride.burst_micros = None;
        if self.ride.sound == Sound::Silence {
            self.ride.sound = Sound::Recorded;
        }
        self.clock.begin(npt, wall, self.ride.flow);
        self.catch_up(npt, backlog_end);
        self.pacer = Pacer::new(None);
        self.shown = None;
        self.guard.set_rate(1.0);
    }

    /// Footage with a hole in it goes on without a break, unless time is to be linear. Live footage has waited the hole out, and between key
    /// frames there is always a distance, so that only a great one, or one that the plan knows of, is a hole.
    fn cross_hole(&mut self, shot: &Shot) {
        let Some((_, last)) = self.shown else { return };
        let (live, order) = self.feed.as_ref().map_or((true, None), |f| (f.is_live(), f.order()));
        let jump = shot.npt.micros_since(last).abs();
        let hole = match order {
            Some(Order::Every) => jump > HOLE_MICROS,
            Some(Order::Keys(Direction::Forward, _)) if shot.cut => jump > HOLE_MICROS,
            Some(Order::Keys(..)) => jump > KEY_HOLE_MICROS,
            Some(Order::Gops) | None => false,
        };
        if hole && self.ride.gaps == Gaps::Skip && !live && self.ride.flow != Flow::Original {
            self.clock.jump(shot.npt);
        }
    }

    fn send(&mut self, shot: &Shot) {
        let media = match (self.ride.still, self.shown) {
            (None, _) => self.clock.at(shot.npt),
            // Frames that the wanted one depends on pass in no time.
            (Some(lead), None) => self.clock.upcoming() - lead,
            (Some(_), Some((last, _))) => last + STILL_STEP_MICROS,
        };
        if self.reported.elapsed() >= REPORT_INTERVAL {
            self.report(media, None);
        }
        if self.shown.is_none_or(|(furthest, _)| media >= furthest) {
            self.shown = Some((media, shot.npt));
        }
        self.clock.reach(media);
        if let Some(feed) = &self.feed
            && feed.is_live()
        {
            let skipped = feed.take_skipped();
            if skipped > 0 {
                self.guard.skipped(skipped);
            }
        }
        let is_sound = self.outlet.is_sound(shot.track);
        if !is_sound {
            self.pictures = self.pictures.saturating_add(1);
            self.decoded = Some(shot.frame.time);
        }
        match self.ride.sound {
            Sound::Silence => {
                self.keep_silent(media);
                if is_sound {
                    return;
                }
            }
            Sound::Recorded if is_sound && self.mute_until.is_some_and(|until| shot.npt <= until) => return,
            Sound::Recorded | Sound::Left => {}
        }
        self.push(shot.track, &shot.frame, media, shot.mark.zip(self.ride.replay));
    }

    fn push(&mut self, track: usize, frame: &Frame, media: i64, replay: Option<(Mark, u8)>) {
        let replay = replay.map(|(mark, cseq)| ReplayInfo {
            time: frame.time,
            mark,
            cseq,
        });
        match self.outlet.push(track, frame, media, replay.as_ref()) {
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

    /// Tracks of sound that are set up get silence up to a media time.
    fn keep_silent(&mut self, media: i64) {
        while let Some((track, data, at)) = self.outlet.next_silence(media) {
            let frame = Frame {
                track: TrackId(track as u8),
                time: self.clock.wall_at(at),
                key: true,
                data,
            };
            // Silence is nobody's footage: it is not counted as sent.
            if let Err(error) = self.outlet.push(track, &frame, at, None) {
                tracing::debug!(%error, "silence cannot be sent");
            }
            self.clock.reach(at);
        }
    }

    fn report(&mut self, media: i64, bye: Option<&str>) {
        self.reported = Instant::now();
        let wall = (self.ride.flow != Flow::Original).then(|| self.clock.wall_at(media));
        self.outlet.report(media, wall, bye);
    }

    async fn wait_until(&mut self, due: Instant, stop: &Flag) -> io::Result<bool> {
        if self.ride.sound == Sound::Silence && self.outlet.has_silence() {
            let begun = Instant::now();
            let from = self.clock.reached();
            while due > Instant::now() + SILENCE_INTERVAL {
                if !self.flush(stop).await?
                    || unless(stop, time::sleep_until(Instant::now() + SILENCE_INTERVAL))
                        .await
                        .is_none()
                {
                    return Ok(false);
                }
                self.keep_silent(from + begun.elapsed().as_micros() as i64);
            }
        }
        Ok(self.flush(stop).await? && unless(stop, time::sleep_until(due)).await.is_some())
    }

    async fn flush(&mut self, stop: &Flag) -> io::Result<bool> {
        if self.outlet.waiting() == 0 {
            return Ok(true);
        }
        unless(stop, self.outlet.flush())
            .await
            .transpose()
            .map(|done| done.is_some())
    }

    async fn end(&mut self, ending: Ending, stop: &Flag) -> io::Result<()> {
        if ending == Ending::Still || self.ride.replay.is_some() {
            // Neither is over: the one is paused at its frame, the other's end is in its last packets.
            self.finished = ending != Ending::Still;
            self.flush(stop).await?;
            return Ok(());
        }
        // What was sent ahead of its time has to be shown first.
        let now = Instant::now();
        let shown = self.pacer.shown(now, self.clock.reached());
        if self.wait_until(shown + BYE_WAIT, stop).await? {
            self.report(self.clock.reached(), Some(ending.reason()));
            self.finished = true;
            self.flush(stop).await?;
        }
        Ok(())
    }
}
