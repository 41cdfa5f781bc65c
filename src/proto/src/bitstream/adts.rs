//! ADTS (ISO/IEC 13818-7 section 6.2): the header that stands before each AAC frame in streams without a description beside them.

use super::aac::{SAMPLE_RATES, low_complexity_config};
use bytes::Bytes;

/// Bytes of a header without its CRC: what [`AdtsHeader::parse`] needs.
pub const HEADER_LEN: usize = 7;
/// The longest frame in bytes, header included (13 bits).
pub const FRAME_LEN_MAX: usize = (1 << 13) - 1;

/// What the header of one frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdtsHeader {
    /// Audio object type, 1 to 4: 2 is AAC-LC.
    pub object_type: u8,
    /// Sampling rate in Hz.
    pub sample_rate: u32,
    /// Channels, 1 to 8; 0 if the frame describes them itself.
    pub channels: u8,
    /// Bytes of the header: 7, or 9 with a CRC.
    pub header_len: usize,
    /// Bytes of the frame, header included; at least `header_len`.
    pub frame_len: usize,
    /// Raw data blocks of the frame, 1 to 4. Only a single one is an access unit by itself.
    pub blocks: u8,
}

impl AdtsHeader {
    /// Samples of one raw data block.
    pub const BLOCK_SAMPLES: u32 = 1024;

    /// Reads the header at the start of `data`. `None` if it is none, or cut off.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let &[b0, b1, b2, b3, b4, b5, b6] = data.first_chunk::<HEADER_LEN>()?;
        if b0 != 0xFF || b1 & 0xF6 != 0xF0 {
            return None;
        }
        let header_len = if b1 & 1 == 0 { HEADER_LEN + 2 } else { HEADER_LEN };
        let frame_len = usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5 >> 5);
        if frame_len < header_len {
            return None;
        }
        let channels = (b2 & 1) << 2 | b3 >> 6;
        Some(Self {
            object_type: (b2 >> 6) + 1,
            sample_rate: *SAMPLE_RATES.get(usize::from(b2 >> 2 & 0xF))?,
            channels: if channels == 7 { 8 } else { channels },
            header_len,
            frame_len,
            blocks: (b6 & 3) + 1,
        })
    }

    /// The `AudioSpecificConfig` that says the same (ISO/IEC 14496-3 section 1.6.2.1).
    pub fn config(&self) -> Bytes {
        let mut config = low_complexity_config(self.sample_rate, self.channels).to_vec();
        if let Some(first) = config.first_mut() {
            *first = *first & 0x07 | self.object_type << 3;
        }
        config.into()
    }

    /// Whether `data` is ADTS beyond doubt: headers that agree follow each other to its very end.
    pub fn fills(data: &[u8]) -> bool {
        let mut rest = data;
        let Some(first) = Self::parse(rest) else { return false };
        while let Some(header) = Self::parse(rest) {
            if header.sample_rate != first.sample_rate || header.channels != first.channels {
                return false;
            }
            match rest.get(header.frame_len..) {
                Some([]) => return true,
                Some(tail) => rest = tail,
                None => return false,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitstream::aac::AudioConfig;

    /// ffmpeg's header of an AAC-LC frame of 371 bytes, 48 kHz, stereo.
    const HEADER: [u8; 7] = [0xFF, 0xF1, 0x4C, 0x80, 0x2E, 0x7F, 0xFC];

    #[test]
    fn a_header_is_read_and_made_a_configuration() {
        let header = AdtsHeader::parse(&HEADER).unwrap();
        assert_eq!(
            (header.object_type, header.sample_rate, header.channels),
            (2, 48_000, 2)
        );
        assert_eq!((header.header_len, header.frame_len, header.blocks), (7, 371, 1));
        let config = AudioConfig::parse(&header.config()).unwrap();
        assert_eq!(
            (config.object_type, config.sample_rate, config.channels),
            (2, 48_000, 2)
        );
        let main = AdtsHeader {
            object_type: 1,
            ..header
        };
        assert_eq!(AudioConfig::parse(&main.config()).unwrap().object_type, 1);
        for at in 0..HEADER.len() {
            assert_eq!(AdtsHeader::parse(&HEADER[..at]), None);
        }
        let too_short = [0xFF, 0xF0, 0x4C, 0x80, 0x01, 0x1F, 0xFC];
        assert_eq!(
            AdtsHeader::parse(&too_short),
            None,
            "a frame of 8 bytes with a header of 9"
        );
    }

    #[test]
    fn only_frames_up_to_the_very_end_are_beyond_doubt() {
        let frame = |len: usize| {
            let mut frame = vec![0x21; len];
            frame[..7].copy_from_slice(&HEADER);
            frame[4] = (len >> 3) as u8;
            frame[5] = ((len & 7) << 5) as u8 | 0x1F;
            frame
        };
        let two = [frame(40), frame(50)].concat();
        assert!(AdtsHeader::fills(&two));
        assert!(!AdtsHeader::fills(&two[..89]));
        assert!(!AdtsHeader::fills(&[&two[..], &[0]].concat()));
        assert!(!AdtsHeader::fills(&[]));
    }
}
