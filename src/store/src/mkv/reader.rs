//! Clusters back to frames, without a copy. Strict: what corenvr did not write is an error with its byte position.
//!
//! The header is read by [`super::header::parse`]; foreign files by [`super::import`].

use bytes::Bytes;
use corenvr_media::{CodecParameters, Frame, TrackId, WallTime};

use super::{
    CLUSTER_LEN_MAX, TRACKS_MAX,
    ebml::{self, Child, Children, element},
    id, tracks,
};
use crate::tables::{ClusterInfo, KeyFrame};

/// A file is not what corenvr writes: the file is at fault, by damage or by another hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {kind}")]
pub struct ReadError {
    /// Where, from the start of the file.
    pub at: u64,
    /// What.
    pub kind: ReadErrorKind,
}

/// What is wrong at that place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ReadErrorKind {
    #[error("the file ends too early")]
    Truncated,
    #[error("this is not a Matroska file")]
    NotMatroska,
    #[error("not an element id")]
    BadId,
    #[error("not an element size")]
    BadSize,
    #[error("an element of unknown size")]
    UnknownSize,
    #[error("element {0:#X} reaches out of its parent")]
    TooLong(u32),
    #[error("element {0:#X} is not expected here")]
    Unexpected(u32),
    #[error("element {0:#X} has a value that makes no sense")]
    BadValue(u32),
    #[error("a track that cannot be understood")]
    Track,
    #[error("a block that cannot be understood")]
    Block,
    #[error("the cluster's checksum is wrong")]
    Checksum,
    #[error("the cluster is not followed by its padding")]
    Padding,
}

impl ReadError {
    pub(crate) const fn new(at: u64, kind: ReadErrorKind) -> Self {
        Self { at, kind }
    }
}

/// One SimpleBlock as it lies in its cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    /// Where the element starts, from the start of the cluster.
    pub at: usize,
    /// Where its payload starts, from the start of the cluster.
    pub payload_at: usize,
    pub len: usize,
    pub track: TrackId,
    pub key: bool,
    /// From the file's time zero, with the track's codec delay.
    pub time_ms: i64,
}

/// A cluster whose structure was checked.
#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    bytes: &'a [u8],
    at: u64,
    /// Bytes of the cluster element.
    pub len: usize,
    body: &'a [u8],
    body_at: u64,
    checksum: u32,
    time_ms: u64,
}

/// What a cluster claims to be, from its first bytes: its total length. `Truncated` if `head` is too short (12 bytes suffice).
pub fn cluster_len(head: &[u8], at: u64) -> Result<u64, ReadError> {
    let e = element(head, at)?;
    if e.id != id::CLUSTER {
        return Err(ReadError::new(at, ReadErrorKind::Unexpected(e.id)));
    }
    let size = e.size.ok_or(ReadError::new(at, ReadErrorKind::UnknownSize))?;
    let total = size.saturating_add(e.header_len as u64);
    if total > CLUSTER_LEN_MAX {
        return Err(ReadError::new(at, ReadErrorKind::TooLong(e.id)));
    }
    Ok(total)
}

impl<'a> Cluster<'a> {
    /// Reads the fixed front of the cluster at the start of `bytes`; `at` is where that is in the file.
    pub fn new(bytes: &'a [u8], at: u64) -> Result<Self, ReadError> {
        let len = cluster_len(bytes, at)? as usize;
        if len > bytes.len() {
            return Err(ReadError::new(at + bytes.len() as u64, ReadErrorKind::Truncated));
        }
        let whole = next(&mut Children::new(&bytes[..len], at), at)?;
        let mut children = whole.children();
        let crc = next(&mut children, whole.data_at)?;
        let checksum = match (crc.id, <[u8; 4]>::try_from(crc.data)) {
            (ebml::CRC32, Ok(b)) => u32::from_le_bytes(b),
            _ => return Err(ReadError::new(crc.at, ReadErrorKind::Unexpected(crc.id))),
        };
        let body_at = crc.data_at + 4;
        let time = next(&mut children, body_at)?;
        if time.id != id::TIMESTAMP {
            return Err(ReadError::new(time.at, ReadErrorKind::Unexpected(time.id)));
        }
        let time_ms = time.uint()?;
        if time_ms > super::SPAN_MAX_MS as u64 {
            return Err(ReadError::new(time.at, ReadErrorKind::BadValue(time.id)));
        }
        Ok(Self {
            bytes: &bytes[..len],
            at,
            len,
            body: &bytes[(body_at - at) as usize..len],
            body_at,
            checksum,
            time_ms,
        })
    }

    /// Whether every byte is as it was written.
    pub fn verify(&self) -> Result<(), ReadError> {
        if crc32fast::hash(self.body) == self.checksum {
            Ok(())
        } else {
            Err(ReadError::new(self.at, ReadErrorKind::Checksum))
        }
    }

    /// The blocks in order; `track_count` is how many tracks the header names. Ends after the first error.
    pub fn blocks(&self, track_count: usize) -> impl Iterator<Item = Result<Block, ReadError>> {
        let base = self.at;
        let time_ms = self.time_ms as i64;
        // The Timestamp comes first in the body and was read.
        Children::new(self.body, self.body_at).skip(1).map(move |c| {
            let c = c?;
            if c.id != id::SIMPLE_BLOCK {
                return Err(ReadError::new(c.at, ReadErrorKind::Unexpected(c.id)));
            }
            block(&c, base, time_ms, track_count)
        })
    }

    fn payload(&self, b: &Block) -> &'a [u8] {
        &self.bytes[b.payload_at..b.payload_at + b.len]
    }
}

fn next<'a>(c: &mut Children<'a>, at: u64) -> Result<Child<'a>, ReadError> {
    c.next().unwrap_or(Err(ReadError::new(at, ReadErrorKind::Truncated)))
}

fn block(c: &Child<'_>, base: u64, cluster_ms: i64, track_count: usize) -> Result<Block, ReadError> {
    let bad = ReadError::new(c.at, ReadErrorKind::Block);
    let &[track, t0, t1, flags, ref payload @ ..] = c.data else {
        return Err(bad);
    };
    let index = (track & 0x7F).wrapping_sub(1);
    // One-byte track numbers, no lacing, and no flags but the key frame's: so does the writer.
    if track & 0x80 == 0 || usize::from(index) >= track_count.min(TRACKS_MAX) || flags & 0x7F != 0 {
        return Err(bad);
    }
    Ok(Block {
        at: (c.at - base) as usize,
        payload_at: (c.data_at - base) as usize + 4,
        len: payload.len(),
        track: TrackId(index),
        key: flags & 0x80 != 0,
        time_ms: cluster_ms + i64::from(i16::from_be_bytes([t0, t1])),
    })
}

/// How the milliseconds of blocks become UTC: made once for a segment, used for all its clusters.
#[derive(Debug, Clone)]
pub struct Timebase {
    start: WallTime,
    delays_us: [i64; TRACKS_MAX],
    tracks: usize,
    video: [bool; TRACKS_MAX],
}

impl Timebase {
    /// For a segment that starts at `start` and has these tracks; of more than [`TRACKS_MAX`] the rest is ignored.
    pub fn new(start: WallTime, list: &[CodecParameters]) -> Self {
        let mut t = Self {
            start,
            delays_us: [0; TRACKS_MAX],
            tracks: list.len().min(TRACKS_MAX),
            video: [false; TRACKS_MAX],
        };
        for (i, p) in list.iter().take(TRACKS_MAX).enumerate() {
            t.delays_us[i] = tracks::delay_us(p);
            t.video[i] = p.is_video();
        }
        t
    }

    /// Number of tracks.
    pub(crate) const fn tracks(&self) -> usize {
        self.tracks
    }

    pub(crate) fn is_video(&self, track: TrackId) -> bool {
        self.video.get(usize::from(track.0)).copied().unwrap_or(false)
    }

    pub(crate) fn has_video(&self) -> bool {
        self.video.contains(&true)
    }

    /// The milliseconds that a frame is stamped with in the file.
    pub(crate) fn to_ms(&self, frame: &Frame) -> i64 {
        let delay = self.delays_us[usize::from(frame.track.0).min(TRACKS_MAX - 1)];
        let us = frame.time.micros_since(self.start).saturating_add(delay);
        us.saturating_add(500).div_euclid(1000)
    }

    /// The time of a block that is stamped with `ms`.
    pub(crate) fn to_time(&self, track: TrackId, ms: i64) -> WallTime {
        let delay = self.delays_us[usize::from(track.0).min(TRACKS_MAX - 1)];
        self.start.offset(ms.saturating_mul(1000).saturating_sub(delay))
    }
}

/// The frames of the cluster at the start of `bytes`, which may have its padding behind it; `at` is where that is in the file.
/// Payloads are slices of `bytes`.
///
/// The structure is checked, the checksum is not: [`verify_cluster`] does that. For a person, footage with a wrong bit is better
/// than none, so playing does not ask for it.
pub fn parse_cluster(bytes: &Bytes, at: u64, time: &Timebase) -> Result<Vec<Frame>, ReadError> {
    let cluster = Cluster::new(bytes, at)?;
    let mut frames = Vec::with_capacity(bytes.len().div_ceil(4096).min(1024));
    for b in cluster.blocks(time.tracks) {
        let b = b?;
        frames.push(Frame {
            track: b.track,
            time: time.to_time(b.track, b.time_ms),
            key: b.key,
            data: bytes.slice(b.payload_at..b.payload_at + b.len),
        });
    }
    Ok(frames)
}

/// Whether the cluster at the start of `bytes` is bit for bit as it was written.
pub fn verify_cluster(bytes: &[u8], at: u64) -> Result<(), ReadError> {
    Cluster::new(bytes, at)?.verify()
}

/// The table entry of a cluster, from its bytes: what the writer returned when it wrote it. `len` is left at the length of
/// the element alone. Also feeds the frames' times to `extent`.
pub(crate) fn describe(
    cluster: &Cluster<'_>,
    time: &Timebase,
    extent: &mut super::writer::Extent,
) -> Result<ClusterInfo, ReadError> {
    let mut info = ClusterInfo {
        offset: cluster.at,
        len: cluster.len as u32,
        frames: 0,
        first: WallTime::MAX,
        last: WallTime::MIN,
        keys: Vec::new(),
    };
    for b in cluster.blocks(time.tracks) {
        let b = b?;
        let t = time.to_time(b.track, b.time_ms);
        info.frames += 1;
        info.first = info.first.min(t);
        info.last = info.last.max(t);
        extent.add(b.track, t);
        if b.key && time.is_video(b.track) {
            info.keys.push(KeyFrame {
                time: t,
                offset: cluster.at + b.payload_at as u64,
                size: cluster.payload(&b).len() as u32,
                block: cluster.at + b.at as u64,
            });
        }
    }
    if info.frames == 0 {
        return Err(ReadError::new(cluster.at, ReadErrorKind::Block));
    }
    Ok(info)
}
