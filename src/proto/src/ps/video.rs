//! The video of a program stream: NAL units out of its bytes, and which codec they are of.
//!
//! The codec is decided by parameter sets alone. What the stream's map says is often wrong, and without parameter sets nothing
//! could be decoded anyway; slices tell nothing, since most bytes are a slice of either codec.

use std::{collections::VecDeque, sync::Arc};

use corenvr_media::CodecParameters;

use super::StreamKind;
use crate::{
    bitstream::{
        h264, h265,
        nal::{find_start_code, trim_zeros},
    },
    rtp::depacketize::{
        AccessUnit, DepacketizeError, OUTPUT_UNITS_MAX, Output,
        h264::ParameterSets as H264Sets,
        h265::ParameterSets as H265Sets,
        nal_units::{NalCodec, NalKind, NalUnits},
    },
};

/// The profiles of H.264 (ITU-T H.264 annexes A, G and H): what makes a parameter set one of H.264 and not of a codec like it.
const H264_PROFILES: [u8; 12] = [66, 77, 88, 100, 110, 122, 244, 44, 83, 86, 118, 128];

/// Damage that lasts: what follows a loss refers to what was lost, up to the next key frame that is whole.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Damage {
    lasting: bool,
    wish: bool,
}

impl Damage {
    /// Something was lost; a key frame would end the damage.
    pub fn note(&mut self) {
        self.lasting = true;
        self.wish = true;
    }

    /// What comes does not continue what was.
    pub fn begin_anew(&mut self) {
        self.lasting = true;
    }

    /// Marks the next unit, in order.
    pub fn mark(&mut self, unit: &mut AccessUnit) {
        if unit.key && !unit.damaged {
            self.lasting = false;
        }
        unit.damaged |= self.lasting;
    }

    /// Whether a loss was noted since the last call.
    pub fn take_wish(&mut self) -> bool {
        std::mem::take(&mut self.wish)
    }
}

/// The codec, as far as it is known, with its parameter sets.
#[derive(Debug, Default)]
enum Codec {
    #[default]
    Undecided,
    H264(Box<H264Sets>),
    H265(Box<H265Sets>),
}

impl NalCodec for Codec {
    fn inspect(&mut self, nal: &[u8]) -> NalKind {
        match self {
            Self::Undecided => NalKind::Other,
            Self::H264(sets) => sets.inspect(nal),
            Self::H265(sets) => sets.inspect(nal),
        }
    }

    fn apply(&mut self, nal: &[u8]) {
        match self {
            Self::Undecided => {}
            Self::H264(sets) => sets.apply(nal),
            Self::H265(sets) => sets.apply(nal),
        }
    }

    fn parameters(&mut self) -> Option<&Arc<CodecParameters>> {
        match self {
            Self::Undecided => None,
            Self::H264(sets) => sets.parameters(),
            Self::H265(sets) => sets.parameters(),
        }
    }
}

impl Codec {
    /// The codec that this NAL unit proves, if it is not the present one.
    fn proven_by(&self, nal: &[u8]) -> Option<Self> {
        let is_h264 = || {
            nal[0] & 0x9F == h264::kind::SPS
                && nal[0] & 0x60 != 0
                && nal.get(1).is_some_and(|profile| H264_PROFILES.contains(profile))
                && h264::Sps::parse(nal).is_some()
        };
        // A VPS has 16 bits set in its head (ITU-T H.265 section 7.3.2.1); an SPS alone could be a partition of H.264.
        let is_vps = || nal.starts_with(&[0x40, 1]) && nal.get(4..6) == Some(&[0xFF, 0xFF]);
        let is_sps = || nal.starts_with(&[0x42, 1]) && h265::Sps::parse(nal).is_some();
        match self {
            Self::Undecided | Self::H265(_) if is_h264() => Some(Self::H264(Box::default())),
            Self::Undecided if is_vps() || is_sps() => Some(Self::H265(Box::default())),
            Self::H264(_) if is_vps() => Some(Self::H265(Box::default())),
            _ => None,
        }
    }
}

/// Whether this may be an access unit delimiter, which stands before the parameter sets that tell the codec.
fn may_be_delimiter(nal: &[u8]) -> bool {
    matches!(nal, [9, _] | [0x46, 1, _])
}

/// The one video stream.
#[derive(Debug)]
pub(super) struct Video {
    units: NalUnits,
    codec: Codec,
    out: Output,
    timestamp: Option<u32>,
    /// The picture that begins with the next start code: packets need not begin where pictures do.
    next: Option<Begin>,
    /// A key frame was asked for since a picture came before any parameter sets.
    asked: bool,
    /// Bytes were dropped before what comes next.
    doubt: bool,
    /// Zeros at the end of what has come: of a start code, behind a NAL unit, or inside it.
    zeros: usize,
    marker: Marker,
    pub damage: Damage,
}

#[derive(Debug, Clone, Copy)]
struct Begin {
    timestamp: u32,
    lost: u32,
    at_pack: bool,
}

/// What the sender's marker bits say of the end of pictures. Senders set them on any packet, so nothing is divided by them.
#[derive(Debug, Clone, Copy, Default)]
struct Marker {
    /// The payload in progress has bytes of video.
    fed: bool,
    /// The last bytes of video were in a payload with the marker.
    set: bool,
    /// A NAL unit went on behind one.
    lied: bool,
}

impl Video {
    pub fn new() -> Self {
        Self {
            units: NalUnits::new(),
            codec: Codec::Undecided,
            out: Output::default(),
            timestamp: None,
            next: None,
            asked: false,
            doubt: false,
            zeros: 0,
            marker: Marker::default(),
            damage: Damage::default(),
        }
    }

    /// Whether parameter sets have told the codec.
    pub fn is_decided(&self) -> bool {
        !matches!(self.codec, Codec::Undecided)
    }

    /// A packet begins with the time stamp of the first picture that begins in it. `lost` packets are missing before it; `at_pack`:
    /// a pack begins there.
    pub fn begin(&mut self, timestamp: u32, lost: u32, at_pack: bool) {
        let begin = Begin {
            timestamp,
            lost,
            at_pack,
        };
        let current = self.next.map(|next| next.timestamp).or(self.timestamp);
        if lost == 0 && self.units.is_open() {
            if current != Some(timestamp) {
                self.next = Some(begin);
            }
        } else {
            self.next = None;
            self.begin_picture(begin);
        }
    }

    fn begin_picture(&mut self, begin: Begin) {
        let Begin {
            timestamp,
            lost,
            at_pack,
        } = begin;
        let new = self.timestamp != Some(timestamp);
        let first = self.timestamp.replace(timestamp).is_none();
        if new && !self.is_decided() {
            if !first && !std::mem::replace(&mut self.asked, true) {
                // The stream began inside a group of pictures.
                self.damage.note();
            }
            // Delimiters of pictures that nothing could decode are not the head of this one.
            let flushed = self.units.flush(&mut self.codec, &mut self.out);
            self.note(flushed);
        }
        let begun = self.units.begin_packet(&mut self.codec, timestamp, lost, &mut self.out);
        self.note(begun);
        if std::mem::take(&mut self.doubt) && new {
            self.units.doubt_start();
        }
        if new && at_pack {
            self.units.mark_start();
        }
    }

    /// Takes bytes of the stream.
    pub fn data(&mut self, mut rest: &[u8]) {
        self.marker.fed = true;
        if self.zeros > 0 {
            let more = rest.iter().take_while(|&&b| b == 0).count();
            if more == rest.len() {
                self.zeros += more;
                return;
            }
            let zeros = std::mem::take(&mut self.zeros);
            if rest[more] == 1 && zeros + more >= 2 {
                self.next_nal();
                rest = &rest[more + 1..];
            } else {
                let appended = self.units.append_zeros(zeros);
                self.note(appended);
            }
        }
        while let Some(at) = find_start_code(rest) {
            self.append(trim_zeros(&rest[..at]));
            self.next_nal();
            rest = &rest[at + 3..];
        }
        let body = trim_zeros(rest);
        self.zeros = rest.len() - body.len();
        self.append(body);
    }

    /// A payload with or without the marker is over.
    pub fn end_payload(&mut self, marker: bool) {
        if std::mem::take(&mut self.marker.fed) {
            self.marker.set = marker;
        }
    }

    /// Bytes are missing behind what has come: the NAL unit in progress is dropped, unless it is known to be whole (`at_end`).
    pub fn cut(&mut self, at_end: bool) {
        if at_end && self.units.is_open() {
            self.end_nal();
        }
        self.zeros = 0;
        self.next = None;
        self.doubt = true;
        if self.units.is_open() {
            self.units.damage();
        }
        self.damage.note();
    }

    /// Whether the marker says that the picture ends with what has come, from a sender whose marker was never wrong.
    pub fn is_marked(&self) -> bool {
        self.marker.set && !self.marker.lied
    }

    /// The stream ends or starts anew; `at_end`: the NAL unit in progress is whole.
    pub fn flush(&mut self, at_end: bool) {
        self.marker = Marker::default();
        if at_end {
            self.end_nal();
        }
        let flushed = self.units.flush(&mut self.codec, &mut self.out);
        self.note(flushed);
        self.zeros = 0;
        self.timestamp = None;
        self.next = None;
    }

    /// Moves finished units on.
    pub fn collect(&mut self, queue: &mut VecDeque<(StreamKind, AccessUnit)>) {
        while let Some(mut unit) = self.out.units.pop_front() {
            if queue.len() >= OUTPUT_UNITS_MAX {
                self.damage.note();
                continue;
            }
            self.damage.mark(&mut unit);
            queue.push_back((StreamKind::Video, unit));
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.units.is_open() {
            self.marker.lied |= std::mem::take(&mut self.marker.set);
            let appended = self.units.append(bytes);
            self.note(appended);
        } else if !self.units.is_given_up() && self.is_decided() {
            // Bytes without a start code before them: the start of their NAL unit is missing.
            self.units.damage();
            self.damage.note();
        }
    }

    fn next_nal(&mut self) {
        self.end_nal();
        self.marker.set = false;
        if let Some(next) = self.next.take() {
            self.begin_picture(next);
        }
        let started = self.units.start_nal(&mut self.codec, &[], &mut self.out);
        self.note(started);
    }

    fn end_nal(&mut self) {
        self.zeros = 0;
        let Some(nal) = self.units.open_nal().filter(|nal| !nal.is_empty()) else {
            self.units.discard_nal();
            return;
        };
        if nal[0] & 0x80 != 0 && self.is_decided() {
            // forbidden_zero_bit: no NAL unit, though its bytes could be taken for one.
            self.units.damage();
            self.damage.note();
            return;
        }
        if let Some(codec) = self.codec.proven_by(nal) {
            let nal = nal.to_vec();
            self.change_codec(codec, &nal);
        }
        if self.is_decided() || self.units.open_nal().is_some_and(may_be_delimiter) {
            let ended = self.units.end_single_nal(&mut self.codec, &mut self.out);
            self.note(ended);
        } else {
            self.units.discard_nal();
        }
    }

    /// Goes on with another codec, from the NAL unit in progress on.
    fn change_codec(&mut self, codec: Codec, nal: &[u8]) {
        if !self.is_decided() {
            self.codec = codec;
            return;
        }
        self.units.discard_nal();
        let flushed = self.units.flush(&mut self.codec, &mut self.out);
        self.note(flushed);
        self.codec = codec;
        let timestamp = self.timestamp.unwrap_or(0);
        let begun = self.units.begin_packet(&mut self.codec, timestamp, 0, &mut self.out);
        self.note(begun);
        let started = self.units.start_nal(&mut self.codec, nal, &mut self.out);
        self.note(started);
    }

    fn note(&mut self, result: Result<(), DepacketizeError>) {
        if result.is_err() {
            self.damage.note();
        }
    }
}
