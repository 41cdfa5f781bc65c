//! A muxer of program streams after ISO/IEC 13818-1 clause 2.5, with a switch for each habit of a device.

use bytes::Bytes;

use crate::bitstream::tests::{PPS_265, PPS_1080P, SPS_265, SPS_1080P, VPS_265, nal};

/// Which PES packets of a picture carry its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pts {
    First,
    Each,
    Never,
}

#[derive(Debug, Clone)]
pub(crate) struct Mux {
    /// Stream types of video and sound in the map; `None`: no map.
    pub map: Option<(u8, u8)>,
    pub system_header: bool,
    /// Bytes of the largest PES packet.
    pub pes_len: usize,
    pub pts: Pts,
    /// PES packets of video have the length 0.
    pub open_length: bool,
    /// A pack header before each PES packet.
    pub pack_each: bool,
    /// Stuffing of the pack header.
    pub stuffing: Vec<u8>,
    /// Stuffing of the PES header.
    pub pes_stuffing: usize,
    /// Zeros behind each NAL unit.
    pub zeros: usize,
    /// Start codes of three bytes.
    pub short_codes: bool,
    /// Private and padding packets between.
    pub private: bool,
    /// The clock reference stands still.
    pub clock_stands: bool,
}

impl Default for Mux {
    fn default() -> Self {
        Self {
            map: Some((0x1B, 0x90)),
            system_header: true,
            pes_len: 65_535,
            pts: Pts::First,
            open_length: false,
            pack_each: false,
            stuffing: Vec::new(),
            pes_stuffing: 0,
            zeros: 0,
            short_codes: false,
            private: false,
            clock_stands: false,
        }
    }
}

fn packet(id: u8, body: &[u8]) -> Vec<u8> {
    [&[0, 0, 1, id][..], &(body.len() as u16).to_be_bytes(), body].concat()
}

fn pts_field(pts: u64) -> [u8; 5] {
    let p = |shift: u32, mask: u64| (pts >> shift & mask) as u8;
    [
        0x21 | p(30, 7) << 1,
        p(22, 0xFF),
        1 | p(15, 0x7F) << 1,
        p(7, 0xFF),
        1 | p(0, 0x7F) << 1,
    ]
}

impl Mux {
    pub fn pack(&self, clock: u64) -> Vec<u8> {
        let s = |shift: u32, mask: u64| (clock >> shift & mask) as u8;
        let mut out = vec![0, 0, 1, 0xBA];
        out.extend([
            0x44 | s(30, 7) << 3 | s(28, 3),
            s(20, 0xFF),
            4 | s(15, 0x1F) << 3 | s(13, 3),
            s(5, 0xFF),
            4 | s(0, 0x1F) << 3,
            1,
            0x01,
            0x5F,
            0x93,
            0xF8 | self.stuffing.len() as u8,
        ]);
        out.extend(&self.stuffing);
        out
    }

    fn pes(&self, id: u8, pts: Option<u64>, body: &[u8], open: bool) -> Vec<u8> {
        let mut fields = pts.map(pts_field).map(Vec::from).unwrap_or_default();
        fields.resize(fields.len() + self.pes_stuffing, 0xFF);
        let flags = if pts.is_some() { 0x80 } else { 0 };
        let content = [&[0x8C, flags, fields.len() as u8][..], &fields, body].concat();
        let mut out = packet(id, &content);
        if open {
            out[4..6].fill(0);
        }
        out
    }

    pub fn map_packet(&self) -> Vec<u8> {
        let Some((video, audio)) = self.map else { return vec![] };
        // A descriptor behind the video's entry, and a CRC that nobody checks.
        packet(
            0xBC,
            &[
                0xE1, 0xFF, 0, 2, 0x40, 0, 0, 12, video, 0xE0, 0, 4, 0x2A, 2, 0x7F, 0xFF, audio, 0xC0, 0, 0, 1, 2, 3, 4,
            ],
        )
    }

    /// One picture with its packs and packets.
    pub fn picture(&self, pts: u64, key: bool, nals: &[Vec<u8>]) -> Vec<u8> {
        let clock = if self.clock_stands { 0 } else { pts };
        let mut out = self.pack(clock);
        if key && self.system_header {
            out.extend(packet(
                0xBB,
                &[0x80, 0x1E, 0xFF, 0xFE, 0xE1, 0x7F, 0xE0, 0xE0, 0xD8, 0xC0, 0xC0, 0x20],
            ));
        }
        if key {
            out.extend(self.map_packet());
        }
        let stream = self.byte_stream(nals);
        let header = 3 + 5 + self.pes_stuffing;
        for (i, part) in stream.chunks(self.pes_len - header).enumerate() {
            if i > 0 && self.pack_each {
                out.extend(self.pack(clock));
            }
            if self.private {
                out.extend(packet(0xBD, &[0, 0, 1, 0xE0, 0, 0, 0x80, 0x80]));
                out.extend(packet(0xBE, &[0xFF; 5]));
                out.extend(packet(0xBF, &[0, 0, 1, 0xBA, 0x44]));
            }
            let with_pts = match self.pts {
                Pts::First => i == 0,
                Pts::Each => true,
                Pts::Never => false,
            };
            out.extend(self.pes(0xE0, with_pts.then_some(pts), part, self.open_length));
        }
        out
    }

    pub fn byte_stream(&self, nals: &[Vec<u8>]) -> Vec<u8> {
        let mut stream = Vec::new();
        for nal in nals {
            stream.extend(if self.short_codes {
                &[0, 0, 1][..]
            } else {
                &[0, 0, 0, 1]
            });
            stream.extend(nal);
            stream.resize(stream.len() + self.zeros, 0);
        }
        stream
    }

    pub fn video(&self, pts: Option<u64>, body: &[u8]) -> Vec<u8> {
        self.pes(0xE0, pts, body, self.open_length)
    }

    pub fn sound(&self, pts: Option<u64>, body: &[u8]) -> Vec<u8> {
        self.pes(0xC0, pts, body, false)
    }
}

/// A payload as it would come out of an RTP packet.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    pub data: Bytes,
    pub timestamp: u32,
    pub marker: bool,
    pub lost: u32,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Packets(pub Vec<Payload>);

impl Packets {
    /// Adds a picture cut into packets of at most this length, as devices do: with the marker on the last.
    pub fn add(&mut self, stream: &[u8], timestamp: u64, len: usize) {
        let count = stream.len().div_ceil(len);
        self.0.extend(stream.chunks(len).enumerate().map(|(i, part)| Payload {
            data: Bytes::copy_from_slice(part),
            timestamp: timestamp as u32,
            marker: i + 1 == count,
            lost: 0,
        }));
    }

    /// Without the packets of this range, which are told as lost.
    pub fn without(&self, range: std::ops::Range<usize>) -> Self {
        let mut packets = self.clone();
        let lost: u32 = packets.0.drain(range.clone()).map(|p| 1 + p.lost).sum();
        if let Some(next) = packets.0.get_mut(range.start) {
            next.lost += lost;
        }
        packets
    }
}

/// NAL units of a picture of H.264: parameter sets and two slices of IDR, or two slices that are predicted, told apart by `tag`.
pub(crate) fn h264_picture(key: bool, tag: &[u8]) -> Vec<Vec<u8>> {
    let body = |head: &[u8]| [head, &escaped(tag), &[0x80]].concat();
    if key {
        vec![
            nal(SPS_1080P),
            nal(PPS_1080P),
            body(&[0x65, 0x88, 0x84]),
            body(&[0x65, 0x04, 0x66]),
        ]
    } else {
        vec![body(&[0x41, 0x9A, 0x24]), body(&[0x41, 0x04, 0x66])]
    }
}

pub(crate) fn h265_picture(key: bool, tag: &[u8]) -> Vec<Vec<u8>> {
    let body = |head: &[u8]| [head, &escaped(tag), &[0x80]].concat();
    if key {
        vec![nal(VPS_265), nal(SPS_265), nal(PPS_265), body(&[0x26, 1, 0xAF])]
    } else {
        vec![body(&[0x02, 1, 0xD0]), body(&[0x02, 1, 0x50])]
    }
}

/// With emulation prevention (H.264 section 7.4.1).
fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0xEE];
    for &byte in bytes {
        if byte <= 3 && out.ends_with(&[0, 0]) {
            out.push(3);
        }
        out.push(byte);
    }
    out.push(0xEE);
    out
}

/// The picture in the layout of an access unit.
pub(crate) fn picture_bytes(nals: &[Vec<u8>]) -> Bytes {
    nals.iter()
        .flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat())
        .collect::<Vec<_>>()
        .into()
}
