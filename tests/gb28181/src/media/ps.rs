//! The MPEG program stream (ISO/IEC 13818-1 2.5) as GB/T 28181-2022 annex C.2.1 wants it: pack header, in front of key frames system header and map,
//! then PES packets. Deviations of the container are made here.

use bytes::Bytes;
use corenvr_media::{AudioCodec, VideoCodec};
use rand::{Rng, rngs::StdRng};

use crate::{Deviation, Deviations, Source, SourceUnit, UnitData};

const VIDEO_ID: u8 = 0xE0;
const AUDIO_ID: u8 = 0xC0;
/// Most payload of a PES packet whose length field counts the 3 flag bytes and up to 10 bytes of time stamps and 8 of stuffing.
const PES_PAYLOAD_MAX: usize = 65_535 - 3 - 18;
/// Where small PES packets are cut: odd, so that start codes are cut as well.
const SMALL_PAYLOAD: usize = 1_237;
/// Bytes that a scanner takes for a video PES packet and for a NAL unit.
const LOOKS_LIKE_START: [u8; 7] = [0x00, 0x00, 0x01, VIDEO_ID, 0x00, 0x00, 0x01];
/// Units of 50 bytes a second; a value that nothing depends on.
const MUX_RATE: u32 = 20_000;

/// The times of an access unit, in 1/90 000 s, not yet wrapped.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub pts: u64,
    pub dts: u64,
}

/// Writes one program stream.
#[derive(Debug)]
pub struct Muxer {
    video: VideoCodec,
    audio: Option<(AudioCodec, u32, u8)>,
    deviations: Deviations,
    /// The elementary stream of the picture in hand; kept for its capacity.
    picture: Vec<u8>,
}

impl Muxer {
    pub const fn new(source: &Source, deviations: Deviations) -> Self {
        Self {
            video: source.video(),
            audio: source.audio(),
            deviations,
            picture: Vec::new(),
        }
    }

    /// Appends an access unit to `out`.
    pub fn unit(&mut self, unit: &SourceUnit, times: Times, rng: &mut StdRng, out: &mut Vec<u8>) {
        match &unit.data {
            UnitData::Nals(nals) => self.picture(unit.key, nals, times, rng, out),
            UnitData::Audio(data) => self.sound(data, times, out),
        }
    }

    fn picture(&mut self, key: bool, nals: &[Bytes], times: Times, rng: &mut StdRng, out: &mut Vec<u8>) {
        if self.deviations.has(Deviation::PrivateStreams) {
            foreign_streams(rng, out);
        }
        self.pack_header(times.dts, out);
        if key {
            if !self.deviations.has(Deviation::NoSystemHeader) {
                self.system_header(out);
            }
            if !self.deviations.has(Deviation::MapMissing) {
                self.map(out);
            }
        }
        let small = self.deviations.has(Deviation::PesSmall) || self.deviations.has(Deviation::PtsRepeated);
        let piece = if small { SMALL_PAYLOAD } else { PES_PAYLOAD_MAX };
        let mut stream = std::mem::take(&mut self.picture);
        stream.clear();
        let mut first = true;
        for (i, nal) in nals.iter().enumerate() {
            let short = i > 0 && self.deviations.has(Deviation::ShortStartCodes);
            stream.extend_from_slice(if short { &[0, 0, 1] } else { &[0, 0, 0, 1] });
            stream.extend_from_slice(nal);
            let last = i + 1 == nals.len();
            if !self.deviations.has(Deviation::PesPerNal) && !last {
                continue;
            }
            for (j, chunk) in stream.chunks(piece).enumerate() {
                let has_time = j == 0 || self.deviations.has(Deviation::PtsRepeated);
                if !first && self.deviations.has(Deviation::PrivateStreams) {
                    foreign_streams(rng, out);
                }
                self.pes(VIDEO_ID, has_time.then_some(times), chunk, out);
                first = false;
            }
            stream.clear();
        }
        self.picture = stream;
    }

    fn sound(&mut self, data: &[u8], times: Times, out: &mut Vec<u8>) {
        let Some((codec, rate, channels)) = self.audio else {
            return;
        };
        let mut stream = std::mem::take(&mut self.picture);
        stream.clear();
        if codec == AudioCodec::Aac {
            stream.extend_from_slice(&adts(rate, channels, data.len()));
        }
        stream.extend_from_slice(data);
        let times = Times {
            dts: times.pts,
            ..times
        };
        self.pes(AUDIO_ID, Some(times), &stream, out);
        self.picture = stream;
    }

    /// 2.5.3.3, with the system clock at the decoding time.
    fn pack_header(&self, dts: u64, out: &mut Vec<u8>) {
        let scr = dts & 0x1_FFFF_FFFF;
        out.extend_from_slice(&[0, 0, 1, 0xBA]);
        let clock: u64 = 0b01 << 46
            | (scr >> 30 & 7) << 43
            | 1 << 42
            | (scr >> 15 & 0x7FFF) << 27
            | 1 << 26
            | (scr & 0x7FFF) << 11
            | 1 << 10
            | 1;
        out.extend_from_slice(&clock.to_be_bytes()[2..]);
        out.extend_from_slice(&(MUX_RATE << 2 | 3).to_be_bytes()[1..]);
        let stuffing: &[u8] = if self.deviations.has(Deviation::PackStuffing) {
            &LOOKS_LIKE_START
        } else {
            &[]
        };
        out.push(0xF8 | stuffing.len() as u8);
        out.extend_from_slice(stuffing);
    }

    /// 2.5.3.5.
    fn system_header(&self, out: &mut Vec<u8>) {
        let audio = u8::from(self.audio.is_some());
        out.extend_from_slice(&[0, 0, 1, 0xBB]);
        out.extend_from_slice(&(6 + 3 * (1 + u16::from(audio))).to_be_bytes());
        out.extend_from_slice(&(1 << 23 | MUX_RATE << 1 | 1).to_be_bytes()[1..]);
        out.extend_from_slice(&[audio << 2, 0b1110_0001, 0x7F]);
        out.extend_from_slice(&[VIDEO_ID, 0xE0, 0x80]);
        if audio == 1 {
            out.extend_from_slice(&[AUDIO_ID, 0xC0, 0x20]);
        }
    }

    /// 2.5.4: the program stream map.
    fn map(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let wrong = self.deviations.has(Deviation::MapWrongCodec);
        let video = if (self.video == VideoCodec::H265) == wrong {
            0x1B
        } else {
            0x24
        };
        let audio = self.audio.map(|(codec, ..)| match codec {
            AudioCodec::Pcma => 0x90,
            AudioCodec::Pcmu => 0x91,
            _ => 0x0F,
        });
        let entries = 4 * (1 + u16::from(audio.is_some()));
        out.extend_from_slice(&[0, 0, 1, 0xBC]);
        out.extend_from_slice(&(10 + entries).to_be_bytes());
        out.extend_from_slice(&[0xE0, 0xFF, 0, 0]);
        out.extend_from_slice(&entries.to_be_bytes());
        out.extend_from_slice(&[video, VIDEO_ID, 0, 0]);
        if let Some(audio) = audio {
            out.extend_from_slice(&[audio, AUDIO_ID, 0, 0]);
        }
        let mut crc = crc32_mpeg(&out[start..]);
        if self.deviations.has(Deviation::MapWrongCrc) {
            crc = !crc;
        }
        out.extend_from_slice(&crc.to_be_bytes());
    }

    /// 2.4.3.6.
    fn pes(&self, id: u8, times: Option<Times>, payload: &[u8], out: &mut Vec<u8>) {
        let mut header = [0xFF; 18];
        let mut len = 0;
        let mut flags = 0;
        if let Some(times) = times {
            let both = times.pts != times.dts;
            flags = if both { 0xC0 } else { 0x80 };
            header[..5].copy_from_slice(&time_field(if both { 3 } else { 2 }, times.pts));
            len = 5;
            if both {
                header[5..10].copy_from_slice(&time_field(1, times.dts));
                len = 10;
            }
        }
        if self.deviations.has(Deviation::PesHeaderStuffing) {
            len += 8;
        }
        let counted = 3 + len + payload.len();
        let unbounded = id == VIDEO_ID && self.deviations.has(Deviation::PesLengthZero);
        let length = if unbounded { 0 } else { counted as u16 };
        out.extend_from_slice(&[0, 0, 1, id]);
        out.extend_from_slice(&length.to_be_bytes());
        // Marker 10; data_alignment_indicator where a time stamp says that an access unit begins.
        out.extend_from_slice(&[0x80 | u8::from(times.is_some()) << 2, flags, len as u8]);
        out.extend_from_slice(&header[..len]);
        out.extend_from_slice(payload);
    }
}

/// A time stamp of 33 bits behind its 4-bit prefix.
fn time_field(prefix: u8, time: u64) -> [u8; 5] {
    let t = time & 0x1_FFFF_FFFF;
    [
        prefix << 4 | (t >> 29 & 0x0E) as u8 | 1,
        (t >> 22) as u8,
        (t >> 14) as u8 | 1,
        (t >> 7) as u8,
        (t << 1) as u8 | 1,
    ]
}

/// Streams that a recorder has no use for, with contents that look like start codes: private 1 and 2, padding, and an id that nobody has
/// defined a use for here (ECM).
fn foreign_streams(rng: &mut StdRng, out: &mut Vec<u8>) {
    for id in [0xBD, 0xBE, 0xBF, 0xF0] {
        if rng.random_bool(0.5) {
            continue;
        }
        let len: u16 = rng.random_range(3..200);
        out.extend_from_slice(&[0, 0, 1, id]);
        out.extend_from_slice(&(len + 7).to_be_bytes());
        // A private stream 1 packet has a PES header; the others begin with their data.
        let filler = if id == 0xBE { 0xFF } else { 0x5A };
        let mut data = vec![filler; usize::from(len)];
        if id == 0xBD {
            data[..3].copy_from_slice(&[0x80, 0, 0]);
        }
        out.extend_from_slice(&data);
        out.extend_from_slice(if id == 0xBE { &[0xFF; 7] } else { &LOOKS_LIKE_START });
    }
}

/// ISO/IEC 13818-7 6.2: AAC-LC, one raw data block, no CRC.
fn adts(rate: u32, channels: u8, len: usize) -> [u8; 7] {
    const RATES: [u32; 13] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
    ];
    let index = RATES.iter().position(|r| *r == rate).unwrap_or(4) as u8;
    let len = len + 7;
    [
        0xFF,
        0xF1,
        1 << 6 | index << 2 | channels >> 2 & 1,
        (channels & 3) << 6 | (len >> 11) as u8 & 3,
        (len >> 3) as u8,
        (len << 5) as u8 | 0x1F,
        0xFC,
    ]
}

/// ISO/IEC 13818-1 annex A: polynomial 04C11DB7, all ones at the start, nothing inverted.
pub fn crc32_mpeg(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            if crc >> 31 == 1 {
                crc << 1 ^ 0x04C1_1DB7
            } else {
                crc << 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_over_a_map_with_its_crc_is_zero() {
        let bytes = b"123456789";
        // The check value of CRC-32/MPEG-2 in the catalogue of CRC algorithms.
        assert_eq!(crc32_mpeg(bytes), 0x0376_E6E7);
        let mut with = bytes.to_vec();
        with.extend_from_slice(&crc32_mpeg(bytes).to_be_bytes());
        assert_eq!(crc32_mpeg(&with), 0);
    }

    #[test]
    fn time_stamps_have_their_markers_and_wrap_at_33_bits() {
        assert_eq!(time_field(2, 0), [0x21, 0, 1, 0, 1]);
        assert_eq!(time_field(2, 0x1_FFFF_FFFF), [0x2F, 0xFF, 0xFF, 0xFF, 0xFF]);
        assert_eq!(time_field(3, (1 << 33) + 90_000), time_field(3, 90_000));
    }
}
