//! What a PLAY is turned into: a feed, a position, and a way to send it.

use std::time::Duration;

use corenvr_media::WallTime;
use corenvr_proto::rtsp::{
    ClockRange, NptRange, NptTime, Range, Response, RtpInfo,
    server::{
        PlayRequest,
        reply::{self, PlayReply},
    },
};
use corenvr_shard::time;

use super::{Mode, Session, State, begin::gone, lost};
use crate::{
    access::Seen,
    feed::{Ending, Feed},
    manner::{Asked, Manner, Sound, Told},
    pacer::Flow,
    plan::{Begin, Gaps, Npt, Timeline, Wanted},
    player::Start,
    resource::What,
    server::Shared,
};

/// A closed range that is not longer is one frame.
const ONE_FRAME_MICROS_MAX: i64 = 45_000;

/// What a PLAY asks for besides its range, and what is served of it.
pub(super) struct Wish {
    pub asked: Asked,
    pub manner: Manner,
    /// The low byte of its sequence number, if it is to be answered by ONVIF's rules.
    pub replay: Option<u8>,
}

fn not_in_order(reason: &'static str) -> Response {
    reply::invalid_range(reason)
}

pub(super) fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn now() -> WallTime {
    WallTime::from_micros(time::wall_now_micros())
}

impl Session {
    /// PLAY: stops what is played, begins what is asked, and says what that is. [`Self::go`] sends it. `onvif`: the request requires replay
    /// by ONVIF's rules, which then hold for the session.
    pub async fn play(
        &mut self,
        shared: &Shared,
        request: &PlayRequest,
        cseq: u32,
        onvif: bool,
    ) -> Result<PlayReply, Response> {
        self.onvif |= onvif;
        let asked = Asked {
            scale: request.scale,
            speed: request.speed,
            frames: request.frames,
            rate_control: request.rate_control,
            onvif: self.onvif,
            url_rate: self.described.resource.rate,
            live: false,
        };
        let wish = Wish {
            asked,
            manner: Manner::of(&asked),
            replay: self.onvif.then_some(cseq as u8),
        };
        let was_playing = matches!(self.state, State::Playing { .. });
        if self.halt().await?.outlet.is_empty() {
            return Err(super::invalid_state("No track is set up"));
        }
        self.watch.renew();
        match self.begin(shared, &wish, request).await {
            Ok(begun) => Ok(self.reply(&wish, begun)),
            Err(response) => {
                // What cannot be played takes nothing away from what is.
                if self.watch.go_on() && was_playing {
                    self.go();
                }
                Err(response)
            }
        }
    }

    async fn begin(&mut self, shared: &Shared, wish: &Wish, request: &PlayRequest) -> Result<Start, Response> {
        match (request.step, self.described.resource.what, request.range) {
            (Some(step), _, range) => self.step(shared, wish, step, range).await,
            (None, What::Still(at, direction), _) => self.step_from(shared, wish, at, direction, Ending::Range).await,
            (None, _, Some(Range::Clock(range))) => self.play_clock(shared, wish, range).await,
            (None, _, Some(Range::Npt(range))) => self.play_npt(shared, wish, range).await,
            (None, _, None) => self.resume(shared, wish).await,
        }
    }

    fn reply(&mut self, wish: &Wish, start: Start) -> PlayReply {
        let State::Idle(player) = &self.state else {
            return PlayReply::default();
        };
        let end = player.feed().and_then(Feed::end);
        let backward = end.is_some_and(|e| e < start.npt);
        let wall_end = end.and_then(|e| {
            if backward {
                player.wall_of(e)
            } else {
                player.wall_of(e.offset(-1)).map(|t| t.offset(1))
            }
        });
        self.watch.note(if player.feed().is_some_and(Feed::is_live) {
            Seen::Live
        } else {
            Seen::range(start.wall, wall_end)
        });
        let media = player.media_at(start.npt);
        let rtp_info = player.outlet.next(media).map(|(track, seq, rtptime)| RtpInfo {
            url: self.described.track_url(track),
            seq: Some(seq),
            rtptime: Some(rtptime),
        });
        let told = if player.feed().is_some_and(Feed::is_live) {
            let live = Asked {
                live: true,
                ..wish.asked
            };
            Manner::of(&live).told
        } else {
            wish.manner.told
        };
        // To some players a rate in the answer is an order to change their own clock as well.
        let told = if self.client.silent_about_rate && !self.onvif {
            Told::default()
        } else {
            told
        };
        PlayReply {
            range: Some(self.told(start.npt, Some(start.wall), end, wall_end)),
            scale: told.scale,
            speed: told.speed,
            rate_control: told.rate_control,
            rtp_info: rtp_info.collect(),
        }
    }

    async fn play_npt(&mut self, shared: &Shared, wish: &Wish, range: NptRange) -> Result<Start, Response> {
        let described = self.described.clone();
        let (Some(timeline), Some(len)) = (&described.timeline, described.length()) else {
            return self.play_npt_without_axis(shared, wish, range).await;
        };
        self.in_utc = false;
        let position = |t: NptTime| match t {
            NptTime::Now => len,
            NptTime::At(d) => Npt(micros(d)).min(len),
        };
        // On the axis of a virtual clip that itself runs backward, forward play is backward in the footage.
        let backward = wish.manner.is_backward() != described.resource.rate.is_some_and(|r| r < 0.0);
        let (first, last) = if backward { (len, Npt::ZERO) } else { (Npt::ZERO, len) };
        let start = range.start.map_or(first, position);
        let end = range.end.map_or(last, position);
        let closed = range.start.is_some() && range.end.is_some();
        if closed && !backward && (0..=ONE_FRAME_MICROS_MAX).contains(&end.micros_since(start)) {
            let wanted = Wanted::Shown(described.footage_time(start));
            self.forget_decoded();
            return self.play_one(shared, wish, timeline, wanted, Ending::Range).await;
        }
        check_direction(backward, end < start, end > start)?;
        let (start, end) = (described.footage_time(start), described.footage_time(end));
        self.begin_range(shared, wish, Begin::At(start), end).await
    }

    /// A live URL has no normal play time: it is the present. On ONVIF's URL it counts from the first footage.
    async fn play_npt_without_axis(
        &mut self,
        shared: &Shared,
        wish: &Wish,
        range: NptRange,
    ) -> Result<Start, Response> {
        if self.described.resource.what != What::Replay {
            self.in_utc = false;
            return self.begin_present(shared, wish).await;
        }
        let camera = &self.described.resource.camera;
        let first = shared.sources.footage.nearest(camera, WallTime::MIN).await;
        let first = first.ok().flatten().ok_or_else(gone)?;
        let at = |t: NptTime| match t {
            NptTime::Now => now(),
            NptTime::At(d) => first + d,
        };
        let start = range.start.map_or(first, at);
        let end = range.end.map(at);
        self.begin_clock(shared, wish, Begin::At(Npt::ZERO), start, end).await
    }

    async fn play_clock(&mut self, shared: &Shared, wish: &Wish, range: ClockRange) -> Result<Start, Response> {
        let backward = wish.manner.is_backward();
        let falls = range.end.is_some_and(|end| end < range.start);
        let rises = range.end.is_some_and(|end| end > range.start);
        check_direction(backward, falls, rises)?;
        self.in_utc = true;
        let described = self.described.clone();
        let Some(timeline) = &described.timeline else {
            return self
                .begin_clock(shared, wish, Begin::At(Npt::ZERO), range.start, range.end)
                .await;
        };
        self.check_span(timeline, &range)?;
        if !backward
            && let Some(end) = range.end
            && end.micros_since(range.start) <= ONE_FRAME_MICROS_MAX
        {
            let wanted = Wanted::Shown(timeline.npt_at(range.start));
            self.forget_decoded();
            return self.play_one(shared, wish, timeline, wanted, Ending::Range).await;
        }
        let behind = |e: WallTime| {
            timeline
                .span()
                .map_or(0, |(_, end)| e.micros_since(end))
                .clamp(0, described.to_come)
        };
        let (start, end) = if backward {
            let end = range.end.map_or(Npt::ZERO, |e| timeline.npt_at(e));
            (timeline.npt_before(range.start), end)
        } else {
            let end = range.end.map_or(i64::MAX, |e| timeline.npt_at(e).0 + behind(e));
            (timeline.npt_at(range.start), Npt(end))
        };
        let end = end.min(timeline.len().offset(described.to_come));
        self.begin_range(shared, wish, Begin::At(start), end).await
    }

    /// A range of UTC that has nothing in common with what the URL holds.
    fn check_span(&self, timeline: &Timeline, range: &ClockRange) -> Result<(), Response> {
        let Some((first, last)) = timeline.span() else {
            return Ok(());
        };
        let low = range.end.map_or(range.start, |e| e.min(range.start));
        let high = range.end.map_or(range.start, |e| e.max(range.start));
        let end = last.offset(self.described.to_come);
        let reason = if range.end.is_some() && high <= first {
            format!("What this URL holds begins at {first}, behind the range that was asked for")
        } else if low >= end && self.onvif {
            format!("What this URL holds ends at {end}, before the range that was asked for")
        } else {
            return Ok(());
        };
        Err(if self.onvif {
            reply::invalid_range(reason)
        } else {
            reply::not_found(reason)
        })
    }

    /// Goes on from the frame that was shown last; at the beginning if nothing was played yet or everything was.
    async fn resume(&mut self, shared: &Shared, wish: &Wish) -> Result<Start, Response> {
        let back = self.client.resume_back_micros;
        let backward = wish.manner.is_backward();
        let described = self.described.clone();
        let State::Idle(player) = &mut self.state else {
            return Err(lost());
        };
        let until = self.until.filter(|u| u.0 == backward).map(|u| u.1);
        let same_way = self.until.is_some_and(|u| u.0 == backward);
        let Some(progress) = player.progress().filter(|_| !player.finished() || !same_way) else {
            return self.restart(shared, wish).await;
        };
        let (Begin::At(at) | Begin::After(at)) = progress;
        let live = player.feed().is_some_and(Feed::is_live);
        let same = player.feed().and_then(Feed::order) == Some(wish.manner.order);
        match self.mode {
            Mode::New => self.restart(shared, wish).await,
            Mode::Live => {
                let wall = player.wall_of(at).ok_or_else(lost)?;
                if backward {
                    self.in_utc = true;
                    return self.begin_clock(shared, wish, progress, wall, None).await;
                }
                self.begin_live(shared, wish).await
            }
            Mode::Clock { open } if !same || live || back > 0 => {
                let from = if !backward && (back > 0 || live) {
                    Begin::At(at.offset(-back))
                } else {
                    progress
                };
                let (Begin::At(at) | Begin::After(at)) = from;
                let wall = player.wall_of(at).ok_or_else(lost)?;
                let end = until.filter(|_| !open || backward).and_then(|u| player.wall_of(u));
                self.begin_clock(shared, wish, from, wall, end).await
            }
            Mode::Range if (!same && !live) || back > 0 || (live && backward) => {
                let timeline = described.timeline.as_ref().ok_or_else(lost)?;
                let whole = timeline.len().offset(described.to_come);
                let end = until.unwrap_or(if backward { Npt::ZERO } else { whole });
                let from = if back > 0 && !backward {
                    Begin::At(at.offset(-back).max(Npt::ZERO))
                } else {
                    progress
                };
                self.begin_range(shared, wish, from, end).await
            }
            Mode::Range | Mode::Clock { .. } => {
                if !self.watch.go_on() {
                    return Err(self.not_allowed());
                }
                let Some(npt) = player.peek().await else {
                    return self.restart(shared, wish).await;
                };
                let wall = player.wall_of(npt).ok_or_else(lost)?;
                let start = Start { npt, wall };
                let gaps = described.timeline.as_ref().map_or(Gaps::Skip, Timeline::gaps);
                let mut ride = self.ride(wish, gaps);
                if live {
                    // The live edge was reached: it has one rate.
                    (ride.flow, ride.sound) = (Flow::Rate(1.0), Sound::Recorded);
                }
                if let State::Idle(player) = &mut self.state {
                    player.set_off(start, progress, ride);
                }
                Ok(start)
            }
        }
    }

    /// From the beginning, or in reverse from the end.
    async fn restart(&mut self, shared: &Shared, wish: &Wish) -> Result<Start, Response> {
        let described = self.described.clone();
        let Some(timeline) = &described.timeline else {
            return self.begin_present(shared, wish).await;
        };
        let whole = timeline.len().offset(described.to_come);
        let (start, end) = if wish.manner.is_backward() {
            (timeline.len(), Npt::ZERO)
        } else {
            (Npt::ZERO, whole)
        };
        self.begin_range(shared, wish, Begin::At(start), end).await
    }

    /// What there is without a range: the present, in reverse what was just now. ONVIF's URL begins with the first footage.
    async fn begin_present(&mut self, shared: &Shared, wish: &Wish) -> Result<Start, Response> {
        let replay = self.described.resource.what == What::Replay;
        if wish.manner.is_backward() {
            self.in_utc = true;
            return self.begin_clock(shared, wish, Begin::At(Npt::ZERO), now(), None).await;
        }
        if replay {
            self.in_utc = true;
            let first = WallTime::MIN;
            return self.begin_clock(shared, wish, Begin::At(Npt::ZERO), first, None).await;
        }
        self.begin_live(shared, wish).await
    }
}

fn check_direction(backward: bool, falls: bool, rises: bool) -> Result<(), Response> {
    if !backward && falls {
        return Err(not_in_order(
            "The range runs backward and the scale forward: reverse needs a negative Scale",
        ));
    }
    if backward && rises {
        return Err(not_in_order(
            "The range runs forward and the scale backward: in reverse a range begins with its end",
        ));
    }
    Ok(())
}
