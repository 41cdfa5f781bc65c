//! Single frames: steps to a neighbour, ranges and URLs of one frame.

use corenvr_media::WallTime;
use corenvr_proto::rtsp::{
    NptRange, NptTime, Range, Response,
    server::{Step, reply},
};

use super::{
    Mode, Session, State,
    begin::{check_codec, gone},
    lost,
    play::{Wish, micros, now},
};
use crate::{
    access::Action,
    feed::{Ending, Feed},
    manner::Sound,
    plan::{Begin, Direction, Found, Npt, Timeline, Wanted},
    player::{Ride, STILL_STEP_MICROS, Start},
    server::Shared,
    still,
};

impl Session {
    /// `x-corenvr-step`: the frame shown after, or before, the one that was shown last.
    pub(super) async fn step(
        &mut self,
        shared: &Shared,
        wish: &Wish,
        step: Step,
        range: Option<Range>,
    ) -> Result<Start, Response> {
        let described = self.described.clone();
        let reversed = described.resource.rate.is_some_and(|r| r < 0.0);
        let direction = match step {
            Step::Forward if !reversed => Direction::Forward,
            Step::Backward if reversed => Direction::Forward,
            Step::Forward | Step::Backward => Direction::Backward,
        };
        let State::Idle(player) = &self.state else {
            return Err(lost());
        };
        let shown = player.position();
        if let Some(timeline) = &described.timeline {
            let at = match range {
                Some(Range::Npt(NptRange {
                    start: Some(NptTime::At(d)),
                    ..
                })) => Some(described.footage_time(Npt(micros(d)))),
                Some(Range::Clock(range)) => Some(timeline.npt_at(range.start)),
                _ => shown,
            };
            self.in_utc = match range {
                Some(range) => matches!(range, Range::Clock(_)),
                None => self.in_utc,
            };
            // From a place that was asked for a decoder begins anew; and it need not be the very moment of a frame.
            if range.is_some() {
                self.forget_decoded();
            }
            let at = match (range, at) {
                (Some(_), Some(at)) => {
                    let camera = &described.resource.camera;
                    let shown = still::find(&shared.sources, camera, timeline, Wanted::Shown(at)).await?;
                    shown.map(|s| if s.npt > at { at } else { s.npt })
                }
                (_, at) => at,
            };
            let wanted = match (at, direction) {
                (Some(at), Direction::Forward) => Wanted::Next(at),
                (Some(at), Direction::Backward) => Wanted::Previous(at),
                (None, _) => Wanted::Shown(Npt::ZERO),
            };
            return self.play_one(shared, wish, timeline, wanted, Ending::Still).await;
        }
        let at = match range {
            Some(Range::Clock(range)) => range.start,
            _ => shown.and_then(|npt| player.wall_of(npt)).unwrap_or_else(now),
        };
        self.step_from(shared, wish, at, direction, Ending::Still).await
    }

    /// The neighbour of a moment.
    pub(super) async fn step_from(
        &mut self,
        shared: &Shared,
        wish: &Wish,
        at: WallTime,
        direction: Direction,
        ending: Ending,
    ) -> Result<Start, Response> {
        self.allowed(Action::Playback)?;
        let camera = self.described.resource.camera.clone();
        let found = still::neighbour(&shared.sources, &camera, at, direction).await?;
        let (timeline, found) = found.ok_or_else(|| no_such_frame(direction))?;
        self.in_utc = true;
        let start = self.begin_still(shared, wish, timeline, found, ending)?;
        self.mode = Mode::Clock { open: true };
        Ok(start)
    }

    /// The client's decoder begins anew.
    pub(super) const fn forget_decoded(&mut self) {
        if let State::Idle(player) = &mut self.state {
            player.forget_decoded();
        }
    }

    /// One frame of the URL's range.
    pub(super) async fn play_one(
        &mut self,
        shared: &Shared,
        wish: &Wish,
        timeline: &Timeline,
        wanted: Wanted,
        ending: Ending,
    ) -> Result<Start, Response> {
        self.allowed(Action::Playback)?;
        let camera = self.described.resource.camera.clone();
        let found = still::find(&shared.sources, &camera, timeline, wanted).await?;
        let found = found.ok_or_else(|| match wanted {
            Wanted::Next(_) => no_such_frame(Direction::Forward),
            Wanted::Previous(_) => no_such_frame(Direction::Backward),
            Wanted::Shown(_) => gone(),
        })?;
        let start = self.begin_still(shared, wish, timeline.clone(), found, ending)?;
        self.mode = Mode::Range;
        Ok(start)
    }

    pub(super) fn begin_still(
        &mut self,
        shared: &Shared,
        wish: &Wish,
        timeline: Timeline,
        mut found: Found,
        ending: Ending,
    ) -> Result<Start, Response> {
        let State::Idle(player) = &mut self.state else {
            return Err(lost());
        };
        // A decoder that is at the picture stored before needs nothing else.
        let continued = found.continues.and_then(|npt| timeline.at(npt)).map(|(_, t)| t);
        if continued.is_some() && continued == player.decoded() {
            found.frames.drain(..found.frames.len().saturating_sub(1));
        }
        let start = Start {
            npt: found.npt,
            wall: found.wall,
        };
        let ride = Ride {
            gaps: timeline.gaps(),
            sound: Sound::Left,
            still: Some(found.frames.len().saturating_sub(1) as i64 * STILL_STEP_MICROS),
            replay: wish.replay,
            ..Ride::PLAIN
        };
        let camera = self.described.resource.camera.clone();
        let tracks = self.described.tracks.clone();
        let mut feed = Feed::still(shared.sources.clone(), camera, tracks, timeline, found, ending);
        if self.onvif {
            feed = feed.marked();
        }
        check_codec(&feed)?;
        player.begin(feed, start, Begin::After(start.npt), ride);
        self.until = None;
        Ok(start)
    }
}

fn no_such_frame(direction: Direction) -> Response {
    reply::invalid_range(match direction {
        Direction::Forward => "There is no frame after this one yet",
        Direction::Backward => "There is no frame before this one",
    })
}
