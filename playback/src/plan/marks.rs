//! What the replay extension says of a frame: known once it is known what follows it on its track.

use std::collections::VecDeque;

use corenvr_store::mkv::TRACKS_MAX;

use super::{Before, Timed};

/// Most frames that wait until it is known what follows them. Beyond it the first of them goes without waiting: its track is silent for
/// longer than that, and if nothing of it follows, it is not marked as the last one.
const WAITING_MAX: usize = 128;

/// The flags of a frame in the replay extension (ONVIF Streaming, "RTP header extension").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// C: decoding can start here.
    pub clean: bool,
    /// E: the last of its track before a gap, or before the footage ends in the direction of play.
    pub section_end: bool,
    /// D: it does not continue the frame before it.
    pub discontinuity: bool,
    /// T: the last of its track in this play.
    pub terminal: bool,
}

/// Frames on their way, in order, each held until its successor on the same track is known.
#[derive(Debug, Default)]
pub struct Marker {
    waiting: VecDeque<Waiting>,
    /// Tracks with a frame since the last gap.
    begun: [bool; TRACKS_MAX],
}

#[derive(Debug)]
struct Waiting {
    timed: Timed,
    mark: Mark,
    known: bool,
}

impl Marker {
    /// Holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next frame of the play, and gives the first one that is known by now, if any; [`Self::pop`] gives further ones.
    pub fn push(&mut self, timed: Timed, is_video: bool) -> Option<(Timed, Mark)> {
        let behind_gap = timed.before == Before::Gap;
        let begun = self.begun.get(usize::from(timed.frame.track.0)).copied();
        // Of the tracks that go on behind a gap, the first one ends the section on all of them.
        let gap = behind_gap && begun.unwrap_or(true);
        if gap {
            self.begun = [false; TRACKS_MAX];
        }
        if let Some(begun) = self.begun.get_mut(usize::from(timed.frame.track.0)) {
            *begun = true;
        }
        for earlier in self.waiting.iter_mut().filter(|w| !w.known) {
            earlier.known = earlier.timed.frame.track == timed.frame.track;
            earlier.mark.section_end |= gap || (earlier.known && behind_gap);
        }
        let mark = Mark {
            clean: timed.frame.key || !is_video,
            discontinuity: timed.before != Before::Joined,
            ..Mark::default()
        };
        self.waiting.push_back(Waiting {
            timed,
            mark,
            known: false,
        });
        self.pop()
    }

    /// The next frame in order that is known.
    pub fn pop(&mut self) -> Option<(Timed, Mark)> {
        let full = self.waiting.len() > WAITING_MAX;
        if !full && !self.waiting.front()?.known {
            return None;
        }
        let next = self.waiting.pop_front()?;
        Some((next.timed, next.mark))
    }

    /// Nothing follows: the rest, in order. `footage_ends` as [`super::Plan::footage_ends`] says.
    pub fn finish(&mut self, footage_ends: bool) -> Vec<(Timed, Mark)> {
        let last = |w: Waiting| {
            let mark = if w.known {
                w.mark
            } else {
                Mark {
                    section_end: w.mark.section_end || footage_ends,
                    terminal: true,
                    ..w.mark
                }
            };
            (w.timed, mark)
        };
        self.waiting.drain(..).map(last).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use corenvr_media::{Frame, TrackId, WallTime};

    use super::*;
    use crate::plan::Npt;

    fn timed(track: u8, t: i64, key: bool, before: Before) -> Timed {
        Timed {
            frame: Frame {
                track: TrackId(track),
                time: WallTime::from_micros(t),
                key,
                data: Bytes::new(),
            },
            npt: Npt(t),
            pace: Npt(t),
            before,
        }
    }

    fn run(list: &[Timed], footage_ends: bool) -> Vec<(Timed, Mark)> {
        let (mut marker, mut out) = (Marker::new(), Vec::new());
        for timed in list {
            let mut next = marker.push(timed.clone(), timed.frame.track.0 == 0);
            while let Some(known) = next {
                out.push(known);
                next = marker.pop();
            }
        }
        out.extend(marker.finish(footage_ends));
        out
    }

    fn flags(list: &[Timed], footage_ends: bool) -> Vec<String> {
        let letter = |on: bool, c: char| if on { c } else { '-' };
        let text = |m: Mark| {
            [
                letter(m.clean, 'C'),
                letter(m.section_end, 'E'),
                letter(m.discontinuity, 'D'),
                letter(m.terminal, 'T'),
            ]
        };
        run(list, footage_ends)
            .into_iter()
            .map(|(_, m)| text(m).iter().collect())
            .collect()
    }

    #[test]
    fn a_gap_ends_the_section_on_every_track_and_the_end_on_those_that_are_left() {
        use Before::{Cut, Gap, Joined};
        let list = [
            timed(0, 0, true, Cut),
            timed(1, 1, true, Cut),
            timed(0, 2, false, Joined),
            timed(1, 3, true, Joined),
            timed(0, 100, true, Gap),
            timed(1, 101, true, Gap),
            timed(0, 102, false, Joined),
        ];
        let expected = ["C-D-", "C-D-", "-E--", "CE--", "C-D-", "CEDT", "-E-T"];
        assert_eq!(flags(&list, true), expected);
        assert_eq!(flags(&list, false)[5..], ["C-DT", "---T"]);
    }

    #[test]
    fn sound_that_goes_on_behind_a_cut_has_no_end_there() {
        use Before::{Cut, Joined};
        let list = [
            timed(0, 0, true, Cut),
            timed(0, 1, false, Joined),
            timed(0, 9, true, Cut),
        ];
        assert_eq!(flags(&list, true), ["C-D-", "----", "CEDT"]);
    }

    #[test]
    fn order_is_kept_and_a_silent_track_holds_nothing_up_for_long() {
        let mut list = vec![timed(1, 0, true, Before::Cut)];
        list.extend((1..400).map(|t| timed(0, t, false, Before::Joined)));
        let mut marker = Marker::new();
        let mut given = Vec::new();
        for (i, timed) in list.iter().enumerate() {
            let mut next = marker.push(timed.clone(), true);
            while let Some((timed, _)) = next {
                given.push(timed.npt.0);
                next = marker.pop();
            }
            assert!(i + 1 - given.len() <= WAITING_MAX);
        }
        assert_eq!(given.len(), 399, "only the newest waits");
        assert!(given.into_iter().eq(0..399));
        assert_eq!(marker.finish(true).len(), 1);
    }
}
