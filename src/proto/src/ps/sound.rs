//! The sound of a program stream: which codec it is of, and access units out of its PES packets.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use corenvr_media::{AudioCodec, AudioParameters, CodecParameters};

use super::{CLOCK_RATE, StreamKind};
use crate::{
    bitstream::adts::{AdtsHeader, FRAME_LEN_MAX, HEADER_LEN},
    rtp::depacketize::{AccessUnit, OUTPUT_UNITS_MAX, Output},
};

/// The largest PES packet of sound in bytes. What is longer (one without a length) is dropped whole.
const PES_LEN_MAX: usize = 65_535;
/// PES packets of sound after which a map is no longer waited for, where no picture tells that one is missing.
const PES_BEFORE_MAP_MAX: u32 = 100;
/// Sampling rate of G.711 in Hz.
const G711_RATE: u32 = 8000;

/// Sound of a program stream (GB/T 28181 annex C; ISO/IEC 13818-1 table 2-34).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Aac,
    G711(AudioCodec),
}

/// AAC frames out of ADTS, with the time of each.
#[derive(Debug)]
pub(crate) struct AdtsFrames {
    clock_rate: u32,
    /// The start of a frame whose end has not come.
    rest: Vec<u8>,
    /// Where the time is counted from, and the samples since.
    base: u32,
    samples: u64,
    told: Option<(AdtsHeader, Arc<CodecParameters>)>,
    /// Frames were met that are no access unit by themselves.
    unsupported: bool,
    /// Bytes that were no part of a frame.
    skipped: u64,
}

impl AdtsFrames {
    /// `clock_rate` is that of the time stamps in Hz.
    pub fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate,
            rest: Vec::new(),
            base: 0,
            samples: 0,
            told: None,
            unsupported: false,
            skipped: 0,
        }
    }

    /// Something is missing behind what has come.
    pub fn cut(&mut self) {
        self.rest.clear();
    }

    /// Why the stream is not recorded, if it is not.
    pub fn refused(&self) -> Option<&'static str> {
        if self.unsupported {
            Some("AAC with several blocks in a frame, or with channels that only its frames describe")
        } else if self.told.is_none() && self.skipped > FRAME_LEN_MAX as u64 {
            Some("AAC without ADTS headers")
        } else {
            None
        }
    }

    /// Takes the payload of a packet; `timestamp` is that of the first frame that begins in it, `None` to go on counting.
    pub fn push(&mut self, data: &[u8], timestamp: Option<u32>, lost: &mut u32, out: &mut Output) {
        let carried = self.rest.len();
        self.rest.extend_from_slice(data);
        let input = std::mem::take(&mut self.rest);
        let (mut at, mut time) = (0, timestamp);
        while at < input.len() {
            // A frame that began in the packet before has its time already.
            if at >= carried
                && let Some(timestamp) = time.take()
            {
                (self.base, self.samples) = (timestamp, 0);
            }
            let rest = &input[at..];
            let Some(header) = AdtsHeader::parse(rest) else {
                if rest[0] == 0xFF && rest.len() < HEADER_LEN {
                    break;
                }
                at += 1;
                self.skipped += 1;
                continue;
            };
            let Some(frame) = rest.get(..header.frame_len) else {
                break;
            };
            self.deliver(&header, &frame[header.header_len..], lost, out);
            at += header.frame_len;
        }
        self.rest = input;
        self.rest.drain(..at);
        debug_assert!(self.rest.len() <= FRAME_LEN_MAX);
    }

    fn deliver(&mut self, header: &AdtsHeader, frame: &[u8], lost: &mut u32, out: &mut Output) {
        let ticks = self.samples * u64::from(self.clock_rate) / u64::from(header.sample_rate);
        let timestamp = self.base.wrapping_add(ticks as u32);
        self.samples += u64::from(AdtsHeader::BLOCK_SAMPLES) * u64::from(header.blocks);
        if header.blocks != 1 || header.channels == 0 {
            self.unsupported = true;
            return;
        }
        if frame.is_empty() {
            return;
        }
        let parameters = self.parameters(header);
        deliver(timestamp, frame, &parameters, lost, out);
    }

    fn parameters(&mut self, header: &AdtsHeader) -> Arc<CodecParameters> {
        let same = |told: &AdtsHeader| {
            (told.object_type, told.sample_rate, told.channels)
                == (header.object_type, header.sample_rate, header.channels)
        };
        if let Some((_, parameters)) = self.told.as_ref().filter(|(told, _)| same(told)) {
            return parameters.clone();
        }
        let parameters = Arc::new(CodecParameters::Audio(AudioParameters {
            codec: AudioCodec::Aac,
            extra: header.config(),
            sample_rate: header.sample_rate,
            channels: header.channels,
        }));
        self.told = Some((*header, parameters.clone()));
        parameters
    }
}

fn deliver(timestamp: u32, data: &[u8], parameters: &Arc<CodecParameters>, lost: &mut u32, out: &mut Output) {
    let unit = AccessUnit {
        timestamp,
        key: true,
        // A copy, so that small sound does not hold the receive buffer it shares with pictures.
        data: Bytes::copy_from_slice(data),
        lost: std::mem::take(lost),
        damaged: false,
        parameters: None,
    };
    // The queue is emptied after each PES packet and has room for all frames of one.
    let _ = out.add(unit, Some(parameters));
}

/// What is known about a stream of sound beside its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    /// The type that the map gives it.
    pub stream_type: Option<u8>,
    /// A map came, or a key picture without one: no other word is to be expected.
    pub final_word: bool,
}

/// The one stream of sound.
#[derive(Debug)]
pub(super) struct Sound {
    kind: Option<Kind>,
    /// A packet without a time goes on where the one before ended.
    counts_on: bool,
    /// The PES packet in progress: its time, its bytes.
    time: Option<u32>,
    buffer: Vec<u8>,
    overflow: bool,
    adts: AdtsFrames,
    /// Where the time of G.711 is counted from, and the samples since.
    base: u32,
    samples: u64,
    g711: Option<Arc<CodecParameters>>,
    before_map: u32,
    out: Output,
}

impl Sound {
    pub fn new() -> Self {
        Self {
            kind: None,
            counts_on: false,
            time: None,
            buffer: Vec::new(),
            overflow: false,
            adts: AdtsFrames::new(CLOCK_RATE),
            base: 0,
            samples: 0,
            g711: None,
            before_map: 0,
            out: Output::default(),
        }
    }

    /// A PES packet begins.
    pub fn begin(&mut self, time: Option<u32>) {
        self.buffer.clear();
        self.overflow = false;
        self.time = time;
    }

    /// Takes bytes of the PES packet.
    pub fn data(&mut self, bytes: &[u8]) {
        if self.overflow || self.buffer.len() + bytes.len() > PES_LEN_MAX {
            self.overflow = true;
            self.buffer.clear();
            return;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The PES packet is there as a whole. `otherwise` is its time if neither it nor what was before tells one. Returns what
    /// is not recorded of it, in words.
    pub fn end(&mut self, told: Told, otherwise: u32, lost: &mut u32) -> Option<String> {
        if self.buffer.is_empty() {
            return None;
        }
        self.before_map = self.before_map.saturating_add(1);
        let data = std::mem::take(&mut self.buffer);
        let decided = self.decide(&data, told);
        let mut refused = None;
        match decided {
            Ok(Some(kind)) => {
                if self.kind.replace(kind) != Some(kind) {
                    self.adts.cut();
                    self.counts_on = false;
                }
                if !std::mem::replace(&mut self.counts_on, true) {
                    self.time = Some(self.time.unwrap_or(otherwise));
                }
                match kind {
                    Kind::Aac => self.adts.push(&data, self.time, lost, &mut self.out),
                    Kind::G711(codec) => self.push_g711(codec, &data, lost),
                }
                refused = self.adts.refused().map(str::to_owned);
            }
            Ok(None) => {}
            Err(words) => {
                self.kind = None;
                refused = Some(words);
            }
        }
        self.buffer = data;
        self.buffer.clear();
        refused
    }

    /// Something is missing behind what has come: what is not whole is dropped.
    pub fn cut(&mut self) {
        self.buffer.clear();
        self.adts.cut();
        self.counts_on = false;
    }

    /// Bytes of sound that were no part of a frame.
    pub fn skipped_bytes(&self) -> u64 {
        self.adts.skipped
    }

    /// Moves finished units on. Those beyond the limit are dropped.
    pub fn collect(&mut self, queue: &mut VecDeque<(StreamKind, AccessUnit)>) {
        let room = OUTPUT_UNITS_MAX.saturating_sub(queue.len());
        queue.extend(
            self.out
                .units
                .drain(..)
                .take(room)
                .map(|unit| (StreamKind::Audio, unit)),
        );
    }

    /// The codec, if it can be told yet. ADTS headers that fill the packet override what the map says. Without a map that names
    /// the stream it is G.711 A-law, which devices that send no map send.
    fn decide(&self, data: &[u8], told: Told) -> Result<Option<Kind>, String> {
        if AdtsHeader::fills(data) {
            return Ok(Some(Kind::Aac));
        }
        match told.stream_type {
            Some(0x0F) => Ok(Some(Kind::Aac)),
            Some(0x90) => Ok(Some(Kind::G711(AudioCodec::Pcma))),
            Some(0x91) => Ok(Some(Kind::G711(AudioCodec::Pcmu))),
            Some(other) => Err(sound_name(other)),
            // A packet with part of a frame, between others that were whole ones.
            None if self.kind == Some(Kind::Aac) => Ok(self.kind),
            None if told.final_word || self.before_map > PES_BEFORE_MAP_MAX => Ok(Some(Kind::G711(AudioCodec::Pcma))),
            None => Ok(None),
        }
    }

    fn push_g711(&mut self, codec: AudioCodec, data: &[u8], lost: &mut u32) {
        if let Some(time) = self.time {
            (self.base, self.samples) = (time, 0);
        }
        let timestamp = self
            .base
            .wrapping_add((self.samples * u64::from(CLOCK_RATE) / u64::from(G711_RATE)) as u32);
        self.samples += data.len() as u64;
        let is_same = |p: &&Arc<CodecParameters>| matches!(&***p, CodecParameters::Audio(a) if a.codec == codec);
        let parameters = self.g711.as_ref().filter(is_same).cloned().unwrap_or_else(|| {
            Arc::new(CodecParameters::Audio(AudioParameters {
                codec,
                extra: Bytes::new(),
                sample_rate: G711_RATE,
                channels: 1,
            }))
        });
        self.g711 = Some(parameters.clone());
        deliver(timestamp, data, &parameters, lost, &mut self.out);
    }
}

/// Sound that is not recorded, by its stream type.
fn sound_name(stream_type: u8) -> String {
    let name = match stream_type {
        0x03 | 0x04 => "MPEG audio",
        0x11 => "AAC in LATM",
        0x80 | 0x9B => "SVAC audio",
        0x92 => "G.722.1 audio",
        0x93 => "G.723.1 audio",
        0x99 => "G.729 audio",
        other => return format!("audio of stream type {other:#04x}"),
    };
    name.to_owned()
}
