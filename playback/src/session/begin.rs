//! How a range begins: its timeline is found, its feed is made, and the player is set to it.

use std::time::Duration;

use corenvr_media::{TimeRange, WallTime};
use corenvr_proto::rtsp::{Lower, Response, StatusCode, server::reply};

use super::{
    Mode, Session, State, lost,
    play::{Wish, now},
};
use crate::{
    access::Action,
    feed::{Ending, Feed},
    lookup::{find_range, live_failed},
    pacer::Flow,
    plan::{Begin, Gaps, Npt, Order, Plan, Timeline},
    player::{Ride, Start},
    resource::What,
    server::Shared,
};

/// Footage younger than this may be in memory only: an open range from there, with nothing on disk, is the present.
const UNWRITTEN_MAX: Duration = Duration::from_secs(30);
/// An open range in reverse from a moment of UTC goes so far back.
const REVERSE_MAX: Duration = Duration::from_secs(24 * 3600);
/// As much of the footage around a range of UTC is looked at.
const MARGIN: Duration = Duration::from_secs(20);

impl Session {
    pub(super) async fn begin_live(&mut self, shared: &Shared, wish: &Wish) -> Result<Start, Response> {
        let camera = self.described.resource.camera.clone();
        self.allowed(Action::Live)?;
        let State::Idle(player) = &mut self.state else {
            return Err(lost());
        };
        // Positions of live play count on over pauses, so that the client's clock does.
        let npt = player.position().map_or(Npt::ZERO, |p| p.offset(1));
        let tracks = self.described.tracks.clone();
        let feed = Feed::live(shared.sources.clone(), camera.clone(), tracks, npt).await;
        let mut feed = feed.map_err(|e| live_failed(&camera, e))?;
        if self.onvif {
            feed = feed.marked();
        }
        let start = start_of(&mut feed).await?;
        let ride = Ride {
            replay: wish.replay,
            ..Ride::PLAIN
        };
        player.begin(feed, start, Begin::At(start.npt), ride);
        self.mode = Mode::Live;
        self.until = Some((false, Npt(i64::MAX)));
        Ok(start)
    }

    /// From a position of the URL's range to another one, which is the lower one in reverse.
    pub(super) async fn begin_range(
        &mut self,
        shared: &Shared,
        wish: &Wish,
        from: Begin,
        end: Npt,
    ) -> Result<Start, Response> {
        self.allowed(Action::Playback)?;
        let described = self.described.clone();
        let timeline = described.timeline.as_ref().ok_or_else(lost)?;
        let forward = !wish.manner.is_backward();
        let joins_live = (forward && end > timeline.len()).then_some(end);
        if joins_live.is_some() {
            self.allowed(Action::Live)?;
        }
        let from = match from {
            Begin::At(at) => Begin::At(at.min(timeline.len())),
            Begin::After(at) => Begin::After(at.min(timeline.len())),
        };
        let started = self
            .begin_archive(shared, wish, timeline.clone(), from, Some(end), joins_live)
            .await?;
        self.mode = Mode::Range;
        Ok(started)
    }

    /// A range of UTC on a URL that holds everything: from a moment on, or in reverse from it back. `begin` says whether the frame at `from`
    /// was shown already.
    pub(super) async fn begin_clock(
        &mut self,
        shared: &Shared,
        wish: &Wish,
        begin: Begin,
        from: WallTime,
        to: Option<WallTime>,
    ) -> Result<Start, Response> {
        self.allowed(Action::Playback)?;
        let backward = wish.manner.is_backward();
        let now = now();
        let replay = self.described.resource.what == What::Replay;
        if to.is_none() && from >= now && !backward && !replay {
            return self.begin_live(shared, wish).await;
        }
        let from = self.first_footage(shared, from, to, backward).await?;
        // A little more than is asked for, so that the end of the range is not taken for the end of footage.
        let range = if backward {
            TimeRange {
                start: to.map_or(from - REVERSE_MAX, |t| t - MARGIN),
                end: from.offset(1),
            }
        } else {
            TimeRange {
                start: from,
                end: to.map_or(now.max(from.offset(1)), |t| t + MARGIN),
            }
        };
        let camera = self.described.resource.camera.clone();
        let timeline = match find_range(&shared.sources.footage, &camera, range, Gaps::Skip).await {
            Ok((_, timeline)) => timeline,
            // What happened just now is not on disk yet.
            Err(_) if !backward && to.is_none() && now.saturating_since(from) < UNWRITTEN_MAX => {
                return self.begin_live(shared, wish).await;
            }
            Err(response) if self.onvif && response.status == StatusCode::NOT_FOUND => {
                return Err(Response {
                    status: StatusCode::INVALID_RANGE,
                    ..response
                });
            }
            Err(response) => return Err(response),
        };
        let at = if backward {
            timeline.npt_before(from)
        } else {
            timeline.npt_at(from)
        };
        let begin = match begin {
            Begin::At(_) => Begin::At(at),
            Begin::After(_) => Begin::After(at),
        };
        if backward {
            let end = to.map_or(Npt::ZERO, |t| timeline.npt_at(t));
            let start = self
                .begin_archive(shared, wish, timeline, begin, Some(end), None)
                .await?;
            self.mode = Mode::Clock { open: to.is_none() };
            return Ok(start);
        }
        // What of the range is still to come is played live.
        let to_come = |to: WallTime| timeline.span().map_or(0, |(_, end)| to.micros_since(end).max(0));
        let end = to.map(|to| {
            if to > now {
                timeline.len().offset(to_come(to))
            } else {
                timeline.npt_at(to)
            }
        });
        let joins_live = match end {
            None => Some(Npt(i64::MAX)),
            Some(end) => (end > timeline.len()).then_some(end),
        };
        // Who may see the past alone sees it to its end.
        let joins_live = joins_live.filter(|_| self.allowed(Action::Live).is_ok());
        let start = self
            .begin_archive(shared, wish, timeline, begin, end, joins_live)
            .await?;
        self.mode = Mode::Clock { open: to.is_none() };
        Ok(start)
    }

    /// An open range begins with footage, however far that is: clients of ONVIF ask from the beginning of time, and in reverse from any time
    /// in the future.
    pub(super) async fn first_footage(
        &self,
        shared: &Shared,
        from: WallTime,
        to: Option<WallTime>,
        backward: bool,
    ) -> Result<WallTime, Response> {
        if to.is_some() {
            return Ok(from);
        }
        let nearest = shared
            .sources
            .footage
            .nearest(&self.described.resource.camera, from)
            .await;
        Ok(match nearest {
            Ok(Some(near)) if backward => near.min(from),
            Ok(Some(near)) => near.max(from),
            _ => from,
        })
    }

    pub(super) async fn begin_archive(
        &mut self,
        shared: &Shared,
        wish: &Wish,
        timeline: Timeline,
        begin: Begin,
        end: Option<Npt>,
        joins_live: Option<Npt>,
    ) -> Result<Start, Response> {
        let gaps = timeline.gaps();
        let order = wish.manner.order;
        let (Begin::At(asked) | Begin::After(asked)) = begin;
        let asked = timeline.at(asked).map(|(_, wall)| Start { npt: asked, wall });
        let from = self.behind(&timeline, order, begin);
        let plan = Plan::new(timeline, order, from, end).ok_or_else(gone)?;
        let tracks = self.described.tracks.clone();
        let camera = self.described.resource.camera.clone();
        let mut feed = Feed::archive(shared.sources.clone(), camera, tracks, plan, joins_live);
        if wish.manner.only_needed {
            feed = feed.only_needed();
        }
        if self.onvif {
            feed = feed.marked();
        }
        let start = match (start_of(&mut feed).await, order) {
            // Between two key frames there may be none in the direction of play: that is an empty range, and no missing footage.
            (Err(response), Order::Keys(..) | Order::Gops) if response.status == StatusCode::NOT_FOUND => {
                asked.ok_or(response)?
            }
            (start, _) => start?,
        };
        check_codec(&feed)?;
        let ride = self.ride(wish, gaps);
        let State::Idle(player) = &mut self.state else {
            return Err(lost());
        };
        self.until = Some((wish.manner.is_backward(), end.unwrap_or(Npt(i64::MAX))));
        player.begin(feed, start, begin, ride);
        // Behind a frame that was shown comes the next one, which is only known when it is read.
        if matches!(begin, Begin::After(_))
            && let Some(npt) = player.peek().await
            && let Some(wall) = player.wall_of(npt)
        {
            let start = Start { npt, wall };
            player.go_on_with(start);
            return Ok(start);
        }
        Ok(start)
    }

    /// What a plan goes on behind: of every frame, the one that was sent last, which need not be the one that is shown last.
    fn behind(&self, timeline: &Timeline, order: Order, begin: Begin) -> Begin {
        let State::Idle(player) = &self.state else { return begin };
        match (begin, order, player.decoded()) {
            (Begin::After(_), Order::Every, Some(sent)) => Begin::After(timeline.npt_at(sent)),
            _ => begin,
        }
    }

    pub(super) fn ride(&self, wish: &Wish, gaps: Gaps) -> Ride {
        let manner = &wish.manner;
        let burst = self.client.burst_micros(self.lower == Lower::Tcp);
        Ride {
            gaps,
            flow: if manner.original_time {
                Flow::Original
            } else {
                Flow::Rate(manner.rate)
            },
            burst_pictures: self.client.burst_pictures,
            burst_micros: burst.filter(|_| self.described.resource.paced && !manner.original_time),
            sound: manner.sound,
            still: None,
            replay: wish.replay,
        }
    }

    pub(super) fn allowed(&self, action: Action) -> Result<(), Response> {
        if self.watch.allows(action) {
            return Ok(());
        }
        Err(self.not_allowed())
    }

    pub(super) fn not_allowed(&self) -> Response {
        let camera = &self.described.resource.camera;
        Response::new(StatusCode::FORBIDDEN).because(format!("This of {camera} is not allowed"))
    }
}

/// Whether the session's tracks can carry what the feed plays first.
pub(super) fn check_codec(feed: &Feed) -> Result<(), Response> {
    if feed.fits() {
        return Ok(());
    }
    let reason = "The footage there has another codec: open the URL anew with a start from there";
    Err(Response::new(StatusCode::UNSUPPORTED_MEDIA_TYPE).because(reason))
}

async fn start_of(feed: &mut Feed) -> Result<Start, Response> {
    match feed.start().await {
        Ok(Some((npt, wall))) => Ok(Start { npt, wall }),
        Ok(None) => Err(gone()),
        Err(ending) => Err(Response::new(StatusCode::SERVICE_UNAVAILABLE).because(Ending::reason(ending))),
    }
}

pub(super) fn gone() -> Response {
    reply::not_found("The footage there has been deleted since the URL was opened")
}
