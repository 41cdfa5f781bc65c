//! The program stream's layers of packs and PES packets, over payloads that are cut anywhere, and what a loss does to them.

use std::collections::VecDeque;

use super::{
    StreamKind,
    header::{self, Header, Next, Pes, STREAM_ID_FIRST, StreamMap, is_video},
    sound::{Sound, Told},
    video::Video,
};
use crate::{bitstream::nal::find_start_code, rtp::depacketize::AccessUnit};

/// Different streams that are named as not recorded. Further ones are left out of the list.
const NAMED_MAX: usize = 16;

/// Turns the payloads that carry a program stream, in order, into access units.
///
/// After each [`Self::push`] poll until `None`. A picture comes out with the start of the next one: nothing before that tells for
/// certain that it has ended. After a loss the stream is entered again at the next pack or at the next video PES packet with a time, or
/// where a payload begins with a packet of sound or a map. NAL units that were not whole are dropped, never delivered in part. The
/// picture before the loss is `damaged` if anything of it is left, as are pictures up to the next key frame that is whole.
#[derive(Debug)]
pub struct Demuxer {
    state: State,
    /// The start of a header or start code that is not there as a whole: at most as long as the longest header.
    carry: Vec<u8>,
    clock: Clock,
    map: Option<StreamMap>,
    video: Video,
    video_id: Option<u8>,
    sound: Sound,
    sound_id: Option<u8>,
    key_seen: bool,
    /// Packets lost and not yet told with a unit.
    lost: u32,
    queue: VecDeque<(StreamKind, AccessUnit)>,
    not_recorded: Vec<String>,
    skipped: u64,
}

/// Where a payload's bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sink {
    Video,
    Sound,
    Nowhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Looking for a place at which the stream can be entered.
    Seek,
    /// At a start code.
    Header,
    /// In the payload of a packet with this much of it to come.
    Body(Sink, usize),
    /// In the payload of a packet without a length: up to the next start code of a stream.
    Open(Sink),
}

/// The times of pictures, where packets tell them and where they do not.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    /// The RTP time stamp of the present payload.
    rtp: u32,
    /// What a picture's time is ahead of its RTP time stamp.
    offset: u32,
    /// The clock reference of a pack that no picture has followed yet.
    pack: Option<u32>,
    picture: Option<Picture>,
    /// RTP time stamps differ from picture to picture.
    rtp_moves: bool,
}

#[derive(Debug, Clone, Copy)]
struct Picture {
    time: u32,
    rtp: u32,
    pack: Option<u32>,
}

impl Clock {
    /// The time of the picture that a video packet with this PTS belongs to.
    fn picture(&mut self, pts: Option<u32>) -> u32 {
        let (rtp, pack) = (self.rtp, self.pack.take());
        let last = self.picture;
        let rtp_differs = last.is_some_and(|p| p.rtp != rtp);
        let time = match (pts, last) {
            (Some(pts), _) => {
                self.offset = pts.wrapping_sub(rtp);
                pts
            }
            (None, None) => rtp.wrapping_add(self.offset),
            // Without a pack in between it goes on with what was.
            (None, Some(last)) if pack.is_none() => last.time,
            (None, Some(_)) if rtp_differs => rtp.wrapping_add(self.offset),
            (None, Some(last)) => match (last.pack, pack) {
                (Some(before), Some(now)) if !self.rtp_moves => last.time.wrapping_add(now.wrapping_sub(before)),
                _ => last.time,
            },
        };
        if last.is_none_or(|p| p.time != time) {
            self.rtp_moves |= rtp_differs;
            self.picture = Some(Picture { time, rtp, pack });
        }
        time
    }

    /// The time of sound that has none of its own.
    fn now(&self) -> u32 {
        self.rtp.wrapping_add(self.offset)
    }
}

impl Default for Demuxer {
    fn default() -> Self {
        Self::new()
    }
}

impl Demuxer {
    /// Before the first byte.
    pub fn new() -> Self {
        Self {
            state: State::Seek,
            carry: Vec::new(),
            clock: Clock::default(),
            map: None,
            video: Video::new(),
            video_id: None,
            sound: Sound::new(),
            sound_id: None,
            key_seen: false,
            lost: 0,
            queue: VecDeque::new(),
            not_recorded: Vec::new(),
            skipped: 0,
        }
    }

    /// Takes the next payload. `timestamp` and `marker` are those of its RTP packet; `lost_before` packets are missing between the
    /// one before and this. The marker only tells at the very end of a stream whether the last picture is whole.
    pub fn push(&mut self, payload: &[u8], timestamp: u32, marker: bool, lost_before: u32) {
        self.clock.rtp = timestamp;
        if lost_before > 0 {
            self.lost = self.lost.saturating_add(lost_before);
            self.lose_sync();
        }
        if self.state == State::Seek && header::begins(payload) {
            self.drop_carry();
            self.state = State::Header;
        }
        if payload.is_empty() {
            return; // a keep-alive
        }
        if self.carry.is_empty() {
            self.consume(payload);
        } else {
            let mut joined = std::mem::take(&mut self.carry);
            joined.extend_from_slice(payload);
            self.consume(&joined);
        }
        self.collect();
        self.video.end_payload(marker);
    }

    /// The next finished unit. Its time stamp is the PTS, 32 bits of it.
    pub fn poll(&mut self) -> Option<(StreamKind, AccessUnit)> {
        self.queue.pop_front()
    }

    /// The stream breaks off or restarts: what is whole of the picture in progress comes out, and nothing later joins it. Its last
    /// NAL unit is whole if its packet is and the sender's marker says that the picture ends there.
    pub fn flush(&mut self) {
        let at_end = self.is_between_packets() && self.video.is_marked();
        self.finish(at_end);
    }

    /// The sender says that it has sent everything: as [`Self::flush`], but the last NAL unit is whole if its packet is.
    pub fn end(&mut self) {
        self.finish(self.is_between_packets());
    }

    fn is_between_packets(&self) -> bool {
        match self.state {
            State::Header => self.carry.is_empty(),
            State::Open(_) => self.carry.iter().all(|&b| b == 0),
            State::Seek | State::Body(..) => false,
        }
    }

    fn finish(&mut self, at_end: bool) {
        self.video.flush(at_end);
        self.sound.cut();
        self.collect();
        self.video.damage.begin_anew();
        self.state = State::Seek;
        self.drop_carry();
        self.clock = Clock::default();
    }

    /// Streams that are not recorded, in words, each once: `SVAC video`.
    pub fn not_recorded(&self) -> &[String] {
        &self.not_recorded
    }

    /// Bytes that belong to nothing, since the start: what follows a loss up to where the stream can be entered, and what is no program stream.
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped + self.sound.skipped_bytes()
    }

    /// Whether the sender should be asked for a key frame: something was lost since the last call, or the stream began without one.
    pub fn take_key_frame_wish(&mut self) -> bool {
        self.video.damage.take_wish()
    }

    fn consume(&mut self, mut rest: &[u8]) {
        loop {
            let step = match self.state {
                State::Seek => self.seek(rest),
                State::Header => self.header(rest),
                State::Body(sink, left) => {
                    let (body, tail) = rest.split_at(rest.len().min(left));
                    self.body(sink, body);
                    self.state = State::Body(sink, left - body.len());
                    if left == body.len() {
                        self.end_packet(sink);
                    }
                    Some(tail)
                }
                State::Open(sink) => self.open_body(sink, rest),
            };
            match step {
                Some(tail) if !tail.is_empty() => rest = tail,
                _ => return,
            }
        }
    }

    /// Looks for a place to enter the stream. `None`: not in what has come; what may be the start of one is carried.
    fn seek<'a>(&mut self, data: &'a [u8]) -> Option<&'a [u8]> {
        let mut from = 0;
        while let Some(at) = data.get(from..).and_then(find_start_code) {
            let at = from + at;
            match header::can_enter(&data[at..]) {
                Some(true) => {
                    self.skipped += at as u64;
                    self.state = State::Header;
                    return Some(&data[at..]);
                }
                Some(false) => from = at + 3,
                None => {
                    self.skipped += at as u64;
                    self.carry = data[at..].to_vec();
                    return None;
                }
            }
        }
        let zeros = data[from..].iter().rev().take(2).take_while(|&&b| b == 0).count();
        let end = data.len() - zeros;
        self.skipped += end as u64;
        self.carry = data[end..].to_vec();
        None
    }

    /// Reads a header. `None`: it is not there as a whole; it is carried.
    fn header<'a>(&mut self, data: &'a [u8]) -> Option<&'a [u8]> {
        let (len, header) = match header::next(data) {
            Next::More => {
                // Any number of zeros may stand before a start code; two of them tell as much.
                let zeros = data.iter().take_while(|&&b| b == 0).count();
                self.carry = data[zeros.saturating_sub(2)..].to_vec();
                return None;
            }
            Next::Nothing => {
                self.lose_sync();
                return Some(data);
            }
            Next::Header(len, header) => (len, header),
        };
        match header {
            Header::Pack { clock } => self.clock.pack = Some(clock),
            Header::Map(map) => self.map = Some(map),
            Header::Pes(pes) => self.begin_packet(pes),
            Header::Skip(Some(0)) | Header::End => {}
            Header::Skip(Some(len)) => self.state = State::Body(Sink::Nowhere, len),
            Header::Skip(None) => self.state = State::Open(Sink::Nowhere),
            Header::Broken { id, len } => {
                if is_video(id) {
                    self.video.cut(false);
                }
                self.state = if len > 0 {
                    State::Body(Sink::Nowhere, len)
                } else {
                    State::Seek
                };
            }
        }
        Some(&data[len..])
    }

    /// Takes the payload of a packet without a length. `None`: all of it, but what may be the start of the next start code.
    fn open_body<'a>(&mut self, sink: Sink, data: &'a [u8]) -> Option<&'a [u8]> {
        let mut from = 0;
        while let Some(at) = data.get(from..).and_then(find_start_code) {
            let at = from + at;
            match data.get(at + 3) {
                Some(&id) if id >= STREAM_ID_FIRST => {
                    self.body(sink, &data[..at]);
                    self.end_packet(sink);
                    return Some(&data[at..]);
                }
                Some(_) => from = at + 3,
                None => {
                    self.body(sink, &data[..at]);
                    self.carry = data[at..].to_vec();
                    return None;
                }
            }
        }
        let zeros = data[from..].iter().rev().take(2).take_while(|&&b| b == 0).count();
        let (body, tail) = data.split_at(data.len() - zeros);
        self.body(sink, body);
        self.carry = tail.to_vec();
        None
    }

    fn begin_packet(&mut self, pes: Pes) {
        let sink = if is_video(pes.id) {
            self.begin_video(pes)
        } else {
            self.begin_sound(pes)
        };
        match pes.len {
            Some(0) => self.end_packet(sink),
            Some(len) => self.state = State::Body(sink, len),
            None => self.state = State::Open(sink),
        }
    }

    fn begin_video(&mut self, pes: Pes) -> Sink {
        if *self.video_id.get_or_insert(pes.id) != pes.id {
            self.name(format!("a second video stream ({:#04x})", pes.id));
            return Sink::Nowhere;
        }
        match self.map.as_ref().and_then(|map| map.stream_type(pes.id)) {
            // Its NAL units look like those of H.264, so here the map alone tells.
            Some(0x80) => {
                self.name("SVAC video".to_owned());
                return Sink::Nowhere;
            }
            None | Some(0x1B | 0x24) => {}
            Some(_) if self.video.is_decided() => {}
            Some(0x10) => self.name("MPEG-4 video".to_owned()),
            Some(other) => self.name(format!("video of stream type {other:#04x}")),
        }
        let at_pack = self.clock.pack.is_some();
        let time = self.clock.picture(pes.pts);
        self.video.begin(time, std::mem::take(&mut self.lost), at_pack);
        self.collect();
        Sink::Video
    }

    fn begin_sound(&mut self, pes: Pes) -> Sink {
        if *self.sound_id.get_or_insert(pes.id) != pes.id {
            self.name(format!("a second audio stream ({:#04x})", pes.id));
            return Sink::Nowhere;
        }
        self.sound.begin(pes.pts);
        Sink::Sound
    }

    fn body(&mut self, sink: Sink, bytes: &[u8]) {
        match sink {
            Sink::Video => {
                let decided = self.video.is_decided();
                self.video.data(bytes);
                if !decided && self.video.is_decided() {
                    self.key_seen = true;
                    // Its parameter sets have proven another codec than the map named.
                    self.not_recorded
                        .retain(|name| !name.contains("video") || name.contains("second"));
                }
            }
            Sink::Sound => self.sound.data(bytes),
            Sink::Nowhere => {}
        }
    }

    fn end_packet(&mut self, sink: Sink) {
        self.state = State::Header;
        if sink == Sink::Sound {
            let told = Told {
                stream_type: self
                    .map
                    .as_ref()
                    .zip(self.sound_id)
                    .and_then(|(map, id)| map.stream_type(id)),
                final_word: self.map.is_some() || self.key_seen,
            };
            // A loss is told with a picture where there are any.
            let mut none = 0;
            let lost = if self.video_id.is_some() {
                &mut none
            } else {
                &mut self.lost
            };
            let refused = self.sound.end(told, self.clock.now(), lost);
            if let Some(words) = refused {
                self.name(words);
            }
        }
        self.collect();
    }

    /// What comes does not continue what was: nothing in progress can be finished.
    fn lose_sync(&mut self) {
        let at_end = self.is_between_packets() && self.video.is_marked();
        self.drop_carry();
        self.video.cut(at_end);
        self.sound.cut();
        self.clock.pack = None;
        self.state = State::Seek;
    }

    fn drop_carry(&mut self) {
        // Zeros may stand before any start code.
        if self.carry.iter().any(|&b| b != 0) {
            self.skipped += self.carry.len() as u64;
        }
        self.carry.clear();
    }

    fn collect(&mut self) {
        self.video.collect(&mut self.queue);
        self.sound.collect(&mut self.queue);
    }

    fn name(&mut self, words: String) {
        if self.not_recorded.len() < NAMED_MAX && !self.not_recorded.contains(&words) {
            self.not_recorded.push(words);
        }
    }
}
