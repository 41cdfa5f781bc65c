//! AAC (ISO/IEC 14496-3): `AudioSpecificConfig` (1.6.2.1) and LATM's `StreamMuxConfig` (1.7.3).

use bytes::Bytes;

use super::BitReader;

pub(super) const SAMPLE_RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
];
const SBR: u32 = 5;
const PS: u32 = 29;

/// What an `AudioSpecificConfig` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioConfig {
    /// Object type of the core coder: 2 is AAC-LC.
    pub object_type: u8,
    /// Sampling rate of the core coder in Hz.
    pub sample_rate: u32,
    /// Channels, 1 to 8; 0 if the configuration describes them in its program config element.
    pub channels: u8,
    /// Samples of a frame at the core's rate: 1024 or 960.
    pub frame_samples: u32,
}

impl AudioConfig {
    /// Parses a configuration. `None` if it is not one of the general audio coders or ends too early.
    pub fn parse(config: &[u8]) -> Option<Self> {
        Self::read(&mut BitReader::new(config))
    }

    fn read(r: &mut BitReader<'_>) -> Option<Self> {
        let mut object_type = read_object_type(r)?;
        let sample_rate = read_sample_rate(r)?;
        let channels = match r.bits(4)? {
            n @ 0..=6 => n as u8,
            7 => 8,
            _ => return None,
        };
        if object_type == SBR || object_type == PS {
            read_sample_rate(r)?;
            object_type = read_object_type(r)?;
        }
        if !matches!(object_type, 1..=4 | 6 | 7 | 17 | 19..=23) {
            return None;
        }
        let short = r.bit()?;
        if r.bit()? {
            r.skip(14)?; // coreCoderDelay
        }
        let extended = r.bit()?;
        if channels != 0 && matches!(object_type, 6 | 20) {
            r.skip(3)?; // layerNr
        }
        if extended {
            match object_type {
                22 => r.skip(16)?,
                17 | 19 | 20 | 23 => r.skip(3)?,
                _ => {}
            }
            r.skip(1)?;
        }
        Some(Self {
            object_type: object_type as u8,
            sample_rate,
            channels,
            frame_samples: match (object_type, short) {
                (23, false) => 512,
                (23, true) => 480,
                (_, false) => 1024,
                (_, true) => 960,
            },
        })
    }
}

fn read_object_type(r: &mut BitReader<'_>) -> Option<u32> {
    match r.bits(5)? {
        31 => Some(32 + r.bits(6)?),
        kind => Some(kind),
    }
}

fn read_sample_rate(r: &mut BitReader<'_>) -> Option<u32> {
    let rate = match r.bits(4)? {
        15 => r.bits(24)?,
        index => *SAMPLE_RATES.get(index as usize)?,
    };
    (rate > 0).then_some(rate)
}

/// The configuration of AAC-LC with this rate and 1 to 8 channels, for senders that give none.
pub fn low_complexity_config(sample_rate: u32, channels: u8) -> Bytes {
    let channel_bits = u64::from(if channels == 8 { 7 } else { channels.min(6) });
    let (head, len) = match SAMPLE_RATES.iter().position(|&r| r == sample_rate) {
        Some(index) => ((2 << 11) | ((index as u64) << 7) | (channel_bits << 3), 2),
        None => (
            (((2 << 4) | 15) << 31) | (u64::from(sample_rate & 0xFF_FFFF) << 7) | (channel_bits << 3),
            5,
        ),
    };
    Bytes::copy_from_slice(&head.to_be_bytes()[8 - len..])
}

/// What a `StreamMuxConfig` with one program and one layer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatmConfig {
    /// The `AudioSpecificConfig`, bytes as MP4 would hold it.
    pub config: Bytes,
    /// It, parsed.
    pub audio: AudioConfig,
    /// Frames in one `audioMuxElement`, 1 to 64.
    pub frames: u32,
    frame_length: FrameLength,
    other_data_bits: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameLength {
    /// Each frame's length stands before it.
    Variable,
    /// Bytes of every frame.
    Fixed(usize),
}

impl LatmConfig {
    /// Parses a configuration on its own, as the `config` parameter of RFC 6416 gives it.
    pub fn parse(config: &[u8]) -> Option<Self> {
        Self::read(&mut BitReader::new(config), config)
    }

    /// Reads one at the reader's position; `data` is what the reader reads.
    pub(crate) fn read(r: &mut BitReader<'_>, data: &[u8]) -> Option<Self> {
        let version = r.bit()?;
        if version {
            if r.bit()? {
                return None; // audioMuxVersionA: not specified
            }
            latm_value(r)?;
        }
        if !r.bit()? {
            return None; // streams of different time framing
        }
        let frames = r.bits(6)? + 1;
        if r.bits(7)? != 0 {
            return None; // more than one program or layer
        }
        let declared = if version { Some(latm_value(r)?) } else { None };
        let start = r.position();
        let audio = AudioConfig::read(r)?;
        let used = r.position() - start;
        let config_bits = declared.map_or(used, |bits| bits as usize);
        r.skip(config_bits.checked_sub(used)?)?;
        let mut copy = BitReader::new(data);
        copy.skip(start)?;
        let config = copy_bits(&mut copy, config_bits)?;
        // Some senders end the SDP's config here, with what the rest says being usual.
        let frame_length = match r.bits(3) {
            None => {
                return Some(Self {
                    config,
                    audio,
                    frames,
                    frame_length: FrameLength::Variable,
                    other_data_bits: 0,
                });
            }
            Some(0) => {
                r.skip(8)?; // latmBufferFullness
                FrameLength::Variable
            }
            Some(1) => FrameLength::Fixed(r.bits(9)? as usize + 20),
            _ => return None, // CELP and HVXC
        };
        let other_data_bits = if r.bit()? { other_data(r, version)? } else { 0 };
        if r.bit()? {
            r.skip(8)?; // crcCheckSum
        }
        Some(Self {
            config,
            audio,
            frames,
            frame_length,
            other_data_bits,
        })
    }

    /// Reads the frames of one `audioMuxElement` behind its configuration. `None` if it ends too early.
    pub(crate) fn read_frames(&self, r: &mut BitReader<'_>, mut frame: impl FnMut(Bytes)) -> Option<()> {
        for _ in 0..self.frames {
            let len = match self.frame_length {
                FrameLength::Fixed(len) => len,
                FrameLength::Variable => {
                    let mut len = 0;
                    loop {
                        let byte = r.bits(8)?;
                        len += byte as usize;
                        if byte != 255 {
                            break len;
                        }
                    }
                }
            };
            frame(copy_bits(r, len * 8)?);
        }
        r.skip(self.other_data_bits as usize)
    }
}

fn other_data(r: &mut BitReader<'_>, version: bool) -> Option<u32> {
    if version {
        return latm_value(r);
    }
    let mut bits = 0u32;
    loop {
        let more = r.bit()?;
        bits = bits.checked_mul(256)?.checked_add(r.bits(8)?)?;
        if !more {
            return Some(bits);
        }
    }
}

/// `LatmGetValue()`.
fn latm_value(r: &mut BitReader<'_>) -> Option<u32> {
    let bytes = r.bits(2)? + 1;
    r.bits(bytes * 8)
}

/// Copies bits that need not be byte aligned; the last byte is filled with zeros.
fn copy_bits(r: &mut BitReader<'_>, count: usize) -> Option<Bytes> {
    // Checked before anything is allocated.
    r.clone().skip(count)?;
    if r.position().is_multiple_of(8) && count.is_multiple_of(8) {
        return r.bytes(count / 8).map(Bytes::copy_from_slice);
    }
    let mut out = Vec::with_capacity(count.div_ceil(8));
    for _ in 0..count / 8 {
        out.push(r.bits(8)? as u8);
    }
    let rest = (count % 8) as u32;
    if rest > 0 {
        out.push((r.bits(rest)? << (8 - rest)) as u8);
    }
    Some(out.into())
}
