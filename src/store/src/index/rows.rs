//! The bytes of index keys and rows. Every value ends with a CRC-32, because sled's own checks do not see every flipped bit.

use corenvr_media::{CameraName, CodecParameters, WallTime};
use sha2::{Digest as _, Sha256};

use crate::{
    GapCause, SegmentKey,
    mkv::varint::{put, put_signed, take, take_signed},
};

/// Which codec parameters a segment has: the first 16 bytes of a SHA-256 over them.
pub type Digest = [u8; 16];

/// Rows of footage that was recorded as it happened.
const ROW_VERSION: u8 = 1;
/// Rows with a byte of marks behind the gap's cause; only those that need it have it, so that an older program reads the others.
const ROW_VERSION_MARKED: u8 = 2;
const MARK_BACKFILLED: u8 = 1;

/// What a row says of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    Open = 1,
    Sealed = 2,
    /// It is being deleted.
    Tombstone = 3,
}

/// The row of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub state: RowState,
    pub gap_before: Option<GapCause>,
    pub backfilled: bool,
    pub end: WallTime,
    pub bytes: u64,
    pub digest: Digest,
    /// The file's path below the camera's directory.
    pub name: String,
}

/// The digest of a segment's parameters. Equal parameters have equal digests.
pub fn digest(tracks: &[CodecParameters]) -> Digest {
    let mut h = Sha256::new();
    for p in tracks {
        let (head, extra) = match p {
            CodecParameters::Video(v) => (
                format!("v{:?} {} {} {:?} ", v.codec, v.width, v.height, v.frame_rate),
                &v.extra,
            ),
            CodecParameters::Audio(a) => (format!("a{:?} {} {} ", a.codec, a.sample_rate, a.channels), &a.extra),
        };
        h.update(head.as_bytes());
        h.update((extra.len() as u64).to_be_bytes());
        h.update(extra);
    }
    let mut d = [0; 16];
    d.copy_from_slice(&h.finalize()[..16]);
    d
}

/// Camera, NUL, big-endian microseconds: rows of a camera scan in the order of their starts. Camera names hold no NUL.
pub fn key(camera: &CameraName, t: WallTime) -> Vec<u8> {
    let mut k = Vec::with_capacity(camera.as_str().len() + 9);
    k.extend_from_slice(camera.as_str().as_bytes());
    k.push(0);
    k.extend_from_slice(&(t.as_micros().max(0) as u64).to_be_bytes());
    k
}

/// The inverse of [`key`].
pub fn parse_key(k: &[u8]) -> Option<SegmentKey> {
    let (rest, start) = k.split_last_chunk::<8>()?;
    let name = rest.strip_suffix(&[0])?;
    Some(SegmentKey {
        camera: CameraName::new(std::str::from_utf8(name).ok()?).ok()?,
        start: WallTime::from_micros(i64::try_from(u64::from_be_bytes(*start)).ok()?),
    })
}

/// `value` with its checksum.
pub fn with_crc(mut value: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&value);
    value.extend_from_slice(&crc.to_le_bytes());
    value
}

/// A value without its checksum; `None` if that is wrong.
pub fn without_crc(value: &[u8]) -> Option<&[u8]> {
    let (value, crc) = value.split_last_chunk::<4>()?;
    (crc32fast::hash(value) == u32::from_le_bytes(*crc)).then_some(value)
}

impl Row {
    /// The row's value.
    pub fn encode(&self, start: WallTime) -> Vec<u8> {
        let mut b = Vec::with_capacity(64 + self.name.len());
        let gap = GapCause::code(self.gap_before);
        if self.backfilled {
            b.extend_from_slice(&[ROW_VERSION_MARKED, self.state as u8, gap, MARK_BACKFILLED]);
        } else {
            b.extend_from_slice(&[ROW_VERSION, self.state as u8, gap]);
        }
        put_signed(&mut b, self.end.micros_since(start));
        put(&mut b, self.bytes);
        b.extend_from_slice(&self.digest);
        b.extend_from_slice(self.name.as_bytes());
        with_crc(b)
    }

    /// The inverse of [`Self::encode`].
    pub fn decode(value: &[u8], start: WallTime) -> Option<Self> {
        let &[version, state, gap, ref rest @ ..] = without_crc(value)? else {
            return None;
        };
        let mut b = rest;
        let marks = match version {
            ROW_VERSION => 0,
            ROW_VERSION_MARKED => {
                let (&marks, rest) = b.split_first()?;
                b = rest;
                marks
            }
            _ => return None,
        };
        let end = start.as_micros().checked_add(take_signed(&mut b)?)?;
        let bytes = take(&mut b)?;
        let (digest, name) = b.split_first_chunk::<16>()?;
        let state = match state {
            1 => RowState::Open,
            2 => RowState::Sealed,
            3 => RowState::Tombstone,
            _ => return None,
        };
        Some(Self {
            state,
            gap_before: GapCause::from_code(gap),
            backfilled: marks & MARK_BACKFILLED != 0,
            end: WallTime::from_micros(end),
            bytes,
            digest: *digest,
            name: std::str::from_utf8(name).ok()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mkv::samples::{START, audio, camera, video};
    use corenvr_media::{AudioCodec, VideoCodec};

    #[test]
    fn rows_round_trip_and_a_flipped_bit_is_seen() {
        let row = Row {
            state: RowState::Sealed,
            gap_before: Some(GapCause::Disk),
            backfilled: false,
            end: START.offset(300_000_000),
            bytes: 150 << 20,
            digest: digest(&[video(VideoCodec::H264), audio(AudioCodec::Aac)]),
            name: "2026-11-20/10-00-00.000Z.mkv".to_owned(),
        };
        let value = row.encode(START);
        assert_eq!(Row::decode(&value, START), Some(row));
        for i in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[i / 8] ^= 1 << (i % 8);
            assert_eq!(Row::decode(&bad, START), None);
        }
        assert!(value.len() < 72);
        assert_eq!(value[0], ROW_VERSION);
    }

    #[test]
    fn a_mark_is_in_rows_that_have_one_only() {
        let row = Row {
            state: RowState::Open,
            gap_before: None,
            backfilled: true,
            end: START,
            bytes: 0,
            digest: [7; 16],
            name: "x".to_owned(),
        };
        let value = row.encode(START);
        assert_eq!(Row::decode(&value, START).as_ref(), Some(&row));
        let unmarked = Row {
            backfilled: false,
            ..row
        };
        // What an older program wrote: one byte less, and another version.
        assert_eq!(value.len(), unmarked.encode(START).len() + 1);
        assert_eq!(Row::decode(&unmarked.encode(START), START), Some(unmarked));
        let mut later = value[..value.len() - 4].to_vec();
        later[0] = 3;
        assert_eq!(Row::decode(&with_crc(later), START), None);
    }

    #[test]
    fn keys_sort_by_camera_and_time() {
        let (a, b) = (camera("a"), camera("a-b"));
        let keys = [
            key(&a, START),
            key(&a, START.offset(1)),
            key(&a, WallTime::MAX),
            key(&b, WallTime::MIN),
        ];
        assert!(keys.is_sorted());
        assert_eq!(
            parse_key(&keys[1]),
            Some(SegmentKey {
                camera: a,
                start: START.offset(1)
            })
        );
        assert_eq!(parse_key(b"x"), None);
    }

    #[test]
    fn digests_tell_parameters_apart() {
        let mut other = video(VideoCodec::H264);
        if let CodecParameters::Video(v) = &mut other {
            v.frame_rate = None;
        }
        let all = [
            digest(&[video(VideoCodec::H264)]),
            digest(&[video(VideoCodec::H265)]),
            digest(&[other]),
            digest(&[video(VideoCodec::H264), audio(AudioCodec::G726 { bits: 2 })]),
            digest(&[video(VideoCodec::H264), audio(AudioCodec::G726 { bits: 3 })]),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }
}
