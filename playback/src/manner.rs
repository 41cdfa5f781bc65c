//! How a range is to be played: from what a request, a URL and a client ask for to what is served, and what the reply says of it.
//!
//! R, the rate, is footage time over wall time; negative in reverse. Up to four times forward every frame is sent; beyond, and in all reverse,
//! key frames; ONVIF replay has groups of pictures in reverse instead, and its own words for what to send.

use std::time::Duration;

use corenvr_proto::rtsp::{FrameFilter, Rate};

use crate::plan::{Direction, Order, Spacing};

/// The fastest and the slowest rate, in either direction.
pub const RATE_MAX: f64 = 32.0;
/// See [`RATE_MAX`].
pub const RATE_MIN: f64 = 1.0 / 16.0;
/// From here on forward play is key frames only.
const KEYS_FROM: f64 = 4.0;
/// At most so many key frames for a second of wall time, with a little room for time stamps that were rounded.
const KEYS_PER_SECOND_MAX: f64 = 30.5;
/// And at most so many bits.
const KEY_BITS_PER_SECOND_MAX: f64 = 64e6;

/// Whether a rate is that of the recording.
pub fn is_as_recorded(rate: f64) -> bool {
    (rate - 1.0).abs() < 1e-9
}

/// What a PLAY asks for besides its range.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Asked {
    /// Scale header.
    pub scale: Option<Rate>,
    /// Speed header.
    pub speed: Option<Rate>,
    /// ONVIF's Frames header.
    pub frames: Option<FrameFilter>,
    /// ONVIF's Rate-Control header.
    pub rate_control: Option<bool>,
    /// The session replays by ONVIF's rules.
    pub onvif: bool,
    /// The rate of the URL.
    pub url_rate: Option<f64>,
    /// The present is asked for: it has one rate.
    pub live: bool,
}

/// What becomes of the tracks of sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sound {
    /// As recorded.
    Recorded,
    /// Silence at the pace of the wall.
    Silence,
    /// Nothing is sent.
    Left,
}

/// How a range is played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Manner {
    /// Footage time over wall time; what is truly served.
    pub rate: f64,
    /// Which frames, in which order.
    pub order: Order,
    /// Pictures that nothing depends on are left out.
    pub only_needed: bool,
    /// RTP time is that of the recording, in either direction, and packets go as fast as they are taken (Rate-Control: no).
    pub original_time: bool,
    /// Sound.
    pub sound: Sound,
    /// What the reply says, where the request asked.
    pub told: Told,
}

/// The reply's headers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[allow(missing_docs)]
pub struct Told {
    pub scale: Option<Rate>,
    pub speed: Option<Rate>,
    pub rate_control: Option<bool>,
}

impl Manner {
    /// Decides.
    pub fn of(asked: &Asked) -> Self {
        let original_time = asked.onvif && asked.rate_control == Some(false) && !asked.live;
        let url = asked.url_rate.unwrap_or(1.0);
        let scale = asked.scale.map_or(1.0, Rate::get);
        let speed = asked.speed.map_or(1.0, Rate::get);
        let wanted = url * scale * speed;
        let rate = if asked.live {
            1.0
        } else if original_time {
            1f64.copysign(wanted)
        } else {
            wanted.abs().clamp(RATE_MIN, RATE_MAX).copysign(wanted)
        };
        let order = order(asked, rate, original_time);
        Self {
            rate,
            order,
            only_needed: asked.onvif && asked.frames == Some(FrameFilter::Predicted),
            original_time,
            sound: match order {
                Order::Every if is_as_recorded(rate) => Sound::Recorded,
                _ if asked.onvif => Sound::Left,
                _ => Sound::Silence,
            },
            told: told(asked, url, rate),
        }
    }

    /// Whether it runs against time.
    pub fn is_backward(&self) -> bool {
        self.rate < 0.0
    }
}

/// What is served, in the terms of the request: its Speed as far as it was asked for, the rest as Scale.
fn told(asked: &Asked, url: f64, rate: f64) -> Told {
    let served = rate / url;
    let exact = |asked: Option<Rate>, value: f64| {
        let asked = asked?;
        let same = (asked.get() - value).abs() < 1e-9 * value.abs();
        if same { Some(asked) } else { Rate::new(value) }
    };
    let (scale, speed) = match (asked.scale, asked.speed) {
        (None, speed) => (None, exact(speed, served)),
        (scale, None) => (exact(scale, served), None),
        (scale, Some(speed)) => {
            let scale = exact(scale, served / speed.get());
            (scale, Some(speed))
        }
    };
    Told {
        scale,
        speed,
        rate_control: asked.rate_control.filter(|_| asked.onvif),
    }
}

fn order(asked: &Asked, rate: f64, original_time: bool) -> Order {
    let direction = if rate < 0.0 {
        Direction::Backward
    } else {
        Direction::Forward
    };
    let apart = |interval: Option<Duration>| {
        let asked = interval.map_or(0, |i| i.as_micros() as i64);
        let budget = if original_time {
            Spacing::default()
        } else {
            budget(rate)
        };
        Spacing {
            apart_micros: asked.max(budget.apart_micros),
            ..budget
        }
    };
    match asked.frames.filter(|_| asked.onvif) {
        Some(FrameFilter::Intra(interval)) => return Order::Keys(direction, apart(interval)),
        Some(FrameFilter::All) if direction == Direction::Forward => return Order::Every,
        Some(FrameFilter::All) => return Order::Gops,
        Some(FrameFilter::Predicted) | None => {}
    }
    match direction {
        Direction::Forward if rate < KEYS_FROM => Order::Every,
        Direction::Backward if asked.onvif && rate > -KEYS_FROM => Order::Gops,
        _ => Order::Keys(direction, apart(None)),
    }
}

/// The distance of key frames that keeps to the budget at this rate.
fn budget(rate: f64) -> Spacing {
    let rate = rate.abs();
    Spacing {
        apart_micros: (rate * 1e6 / KEYS_PER_SECOND_MAX) as i64,
        micros_per_kib: (rate * 1e6 * 8192.0 / KEY_BITS_PER_SECOND_MAX) as i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(factor: f64) -> Option<Rate> {
        Rate::new(factor)
    }

    fn plain(scale: f64) -> Manner {
        Manner::of(&Asked {
            scale: rate(scale),
            ..Asked::default()
        })
    }

    #[test]
    fn the_rate_decides_what_is_sent_and_the_reply_tells_the_rate_served() {
        for (scale, served, every) in [
            (1.0, 1.0, true),
            (0.25, 0.25, true),
            (3.9, 3.9, true),
            (4.0, 4.0, false),
            (32.0, 32.0, false),
            (1e9, 32.0, false),
            (0.001, 0.0625, true),
            (-0.001, -0.0625, false),
            (-1.0, -1.0, false),
            (-64.0, -32.0, false),
        ] {
            let manner = plain(scale);
            assert_eq!((manner.rate, manner.told.scale), (served, rate(served)), "{scale}");
            assert_eq!(manner.order == Order::Every, every, "{scale}");
            assert_eq!(
                manner.sound,
                if is_as_recorded(scale) {
                    Sound::Recorded
                } else {
                    Sound::Silence
                }
            );
            if let Order::Keys(direction, spacing) = manner.order {
                assert_eq!(direction == Direction::Backward, scale < 0.0);
                let per_second = served.abs() * 1e6 / spacing.apart_micros as f64;
                assert!((30.0..31.0).contains(&per_second), "{per_second} key frames a second");
            }
        }
    }

    #[test]
    fn scale_and_speed_multiply_and_each_is_told() {
        let both = Manner::of(&Asked {
            scale: rate(-8.0),
            speed: rate(8.0),
            ..Asked::default()
        });
        assert_eq!(
            (both.rate, both.told.scale, both.told.speed),
            (-32.0, rate(-4.0), rate(8.0))
        );
        let speed = Manner::of(&Asked {
            speed: rate(2.0),
            ..Asked::default()
        });
        assert_eq!((speed.rate, speed.told.scale, speed.told.speed), (2.0, None, rate(2.0)));
        let url = Manner::of(&Asked {
            url_rate: Some(-8.0),
            scale: rate(-1.0),
            ..Asked::default()
        });
        assert_eq!((url.rate, url.told.scale), (8.0, rate(-1.0)));
        let faster = Manner::of(&Asked {
            url_rate: Some(8.0),
            scale: rate(8.0),
            ..Asked::default()
        });
        assert_eq!((faster.rate, faster.told.scale), (32.0, rate(4.0)));
    }

    #[test]
    fn the_present_has_one_rate() {
        let manner = Manner::of(&Asked {
            scale: rate(8.0),
            live: true,
            ..Asked::default()
        });
        assert_eq!((manner.rate, manner.told.scale), (1.0, rate(1.0)));
        assert_eq!((manner.order, manner.sound), (Order::Every, Sound::Recorded));
    }

    #[test]
    fn onvif_has_its_own_words() {
        let onvif = |scale: f64, frames, rate_control| {
            Manner::of(&Asked {
                scale: rate(scale),
                frames,
                rate_control,
                onvif: true,
                ..Asked::default()
            })
        };
        let free = onvif(-1.0, None, Some(false));
        assert!(free.original_time && free.order == Order::Gops && free.sound == Sound::Left);
        assert_eq!(free.told.rate_control, Some(false));
        assert_eq!(
            onvif(-8.0, None, Some(false)).told.scale,
            rate(-1.0),
            "only +-1 without rate control"
        );
        let intra = onvif(1.0, Some(FrameFilter::Intra(Some(Duration::from_secs(4)))), Some(false));
        let spacing = Spacing {
            apart_micros: 4_000_000,
            micros_per_kib: 0,
        };
        assert_eq!(intra.order, Order::Keys(Direction::Forward, spacing));
        assert!(matches!(
            onvif(-8.0, None, None).order,
            Order::Keys(Direction::Backward, _)
        ));
        assert_eq!(onvif(8.0, Some(FrameFilter::All), None).order, Order::Every);
        assert_eq!(onvif(-8.0, Some(FrameFilter::All), None).order, Order::Gops);
        assert!(onvif(1.0, Some(FrameFilter::Predicted), None).only_needed);
        assert_eq!(onvif(1.0, None, None).sound, Sound::Recorded);
        // The headers mean nothing without ONVIF's tag.
        let plain = Manner::of(&Asked {
            frames: Some(FrameFilter::Intra(None)),
            rate_control: Some(false),
            ..Asked::default()
        });
        assert_eq!((plain.order, plain.original_time), (Order::Every, false));
    }
}
