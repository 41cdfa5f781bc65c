//! Silent frames: a track of sound that was set up keeps coming while pictures play at another pace than they were recorded. Players wait for
//! a track that is set up and silent, and freeze.

use bytes::Bytes;
use corenvr_media::{AudioCodec, AudioParameters};

/// One silent frame of a codec, again and again.
#[derive(Debug, Clone)]
pub struct Silence {
    /// What a packet carries.
    pub data: Bytes,
    /// How long it sounds, in microseconds.
    micros: f64,
    /// Frames given since [`Self::restart`].
    given: u64,
    /// Media time of the first of them.
    origin: i64,
}

/// Length of a frame of codecs that have no frames of their own.
const FRAME_MS: u32 = 20;
/// Samples of an AAC frame.
const AAC_SAMPLES: u32 = 1024;

/// A raw data block of AAC-LC (ISO/IEC 14496-3 4.4.2.1) whose spectrum is empty: one single channel element, or one channel pair element.
const AAC_MONO: &[u8] = &[0x00, 0xC8, 0x00, 0x80, 0x23, 0x80];
const AAC_STEREO: &[u8] = &[0x21, 0x00, 0x49, 0x90, 0x02, 0x19, 0x00, 0x23, 0x80];
/// 20 ms of CELT in full band that say nothing (RFC 6716 section 3.1: configuration 31, one frame).
const OPUS_MONO: &[u8] = &[0xF8, 0xFF, 0xFE];
const OPUS_STEREO: &[u8] = &[0xFC, 0xFF, 0xFE];

impl Silence {
    /// Silence for a track; `None` for AAC of more than two channels, which then has no sound in trick play.
    pub fn of(track: &AudioParameters) -> Option<Self> {
        let (rate, channels) = (track.sample_rate.max(1), usize::from(track.channels.max(1)));
        let samples = (rate * FRAME_MS / 1000) as usize;
        let filled = |byte, len| Bytes::from(vec![byte; len]);
        let (data, lasts) = match track.codec {
            AudioCodec::Aac if channels > 2 => return None,
            AudioCodec::Aac => {
                let block = if channels == 1 { AAC_MONO } else { AAC_STEREO };
                (Bytes::from_static(block), f64::from(AAC_SAMPLES) / f64::from(rate))
            }
            AudioCodec::Opus => {
                let packet = if channels == 1 { OPUS_MONO } else { OPUS_STEREO };
                (Bytes::from_static(packet), f64::from(FRAME_MS) / 1000.0)
            }
            // Zero in A-law and in mu-law (ITU-T G.711).
            AudioCodec::Pcma => (filled(0xD5, samples * channels), samples as f64 / f64::from(rate)),
            AudioCodec::Pcmu => (filled(0xFF, samples * channels), samples as f64 / f64::from(rate)),
            AudioCodec::L16 => (filled(0, samples * channels * 2), samples as f64 / f64::from(rate)),
            // All bits set is the smallest difference there is (ITU-T G.726 4.2.2). Eight samples fill `bits` bytes.
            AudioCodec::G726 { bits } => {
                let blocks = samples / 8;
                (
                    filled(0xFF, blocks * usize::from(bits)),
                    (blocks * 8) as f64 / f64::from(rate),
                )
            }
        };
        (!data.is_empty()).then_some(Self {
            data,
            micros: lasts * 1e6,
            given: 0,
            origin: 0,
        })
    }

    /// Starts at a media time.
    pub const fn restart(&mut self, media: i64) {
        self.origin = media;
        self.given = 0;
    }

    /// The media time of the next frame.
    pub fn upcoming(&self) -> i64 {
        self.origin + (self.given as f64 * self.micros) as i64
    }

    /// The next frame is given.
    pub const fn give(&mut self) {
        self.given += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(codec: AudioCodec, sample_rate: u32, channels: u8) -> AudioParameters {
        AudioParameters {
            codec,
            extra: Bytes::new(),
            sample_rate,
            channels,
        }
    }

    #[test]
    fn every_codec_has_its_silence_and_time_does_not_drift() {
        for (codec, rate, channels, len, per_second) in [
            (AudioCodec::Aac, 48_000, 1, 6, 46.875),
            (AudioCodec::Aac, 44_100, 2, 9, 44_100.0 / 1024.0),
            (AudioCodec::Opus, 48_000, 2, 3, 50.0),
            (AudioCodec::Pcma, 8000, 1, 160, 50.0),
            (AudioCodec::Pcmu, 16_000, 2, 640, 50.0),
            (AudioCodec::L16, 8000, 1, 320, 50.0),
            (AudioCodec::G726 { bits: 4 }, 8000, 1, 80, 50.0),
        ] {
            let mut silence = Silence::of(&track(codec, rate, channels)).unwrap();
            assert_eq!(silence.data.len(), len, "{codec:?}");
            silence.restart(7);
            assert_eq!(silence.upcoming(), 7);
            let seconds = 3600.0;
            for _ in 0..(per_second * seconds) as u64 {
                silence.give();
            }
            let off = silence.upcoming() - 7 - 3_600_000_000;
            assert!(off.abs() < 25_000, "{codec:?} is off by {off} us");
        }
        assert!(Silence::of(&track(AudioCodec::Aac, 48_000, 6)).is_none());
    }
}
