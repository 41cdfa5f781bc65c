//! Where the frames of a segment are: cluster and key-frame tables, their packed form, and what a query returns of a segment.

use std::{fmt, path::PathBuf, sync::Arc};

use corenvr_media::{CameraName, CodecParameters, TimeRange, WallTime};

use crate::{
    GapCause,
    mkv::varint::{put, put_signed, take, take_signed},
};

/// Most clusters of one segment; the writer refuses more, so that its owner starts another segment (36 hours of 2 s).
pub const CLUSTERS_MAX: usize = 65_536;
/// Most key frames of one segment; the writer refuses more (MJPEG at 25 frames per second: 2.9 hours).
pub const KEYS_MAX: usize = 262_144;

/// What identifies a segment: its camera and the exact start.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentKey {
    /// The camera.
    pub camera: CameraName,
    /// The start as it is inside the file, to the microsecond.
    pub start: WallTime,
}

impl fmt::Display for SegmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.camera, self.start)
    }
}

/// One cluster that a flush wrote. Offsets are absolute in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Where the cluster element starts; a multiple of 4096.
    pub offset: u64,
    /// Its length with the padding behind it; a multiple of 4096.
    pub len: u32,
    /// Number of frames, all tracks.
    pub frames: u32,
    /// The earliest time of a frame.
    pub first: WallTime,
    /// The latest time of a frame.
    pub last: WallTime,
    /// The video key frames in it, in file order.
    pub keys: Vec<KeyFrame>,
}

/// One cluster of a [`Table`]: [`ClusterInfo`] without its key frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterSpan {
    /// Where the cluster element starts.
    pub offset: u64,
    /// Its length with the padding behind it.
    pub len: u32,
    /// Number of frames, all tracks.
    pub frames: u32,
    /// The earliest time of a frame.
    pub first: WallTime,
    /// The latest time of a frame.
    pub last: WallTime,
}

/// One video key frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyFrame {
    /// Its time, as the file has it (to the millisecond from the segment's start).
    pub time: WallTime,
    /// Where its payload starts in the file: reading `size` bytes there gives [`corenvr_media::Frame::data`].
    pub offset: u64,
    /// Bytes of payload.
    pub size: u32,
    /// Where its SimpleBlock element starts in the file.
    pub block: u64,
}

/// The clusters and video key frames of a segment, in file order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The clusters; their offsets rise.
    pub clusters: Vec<ClusterSpan>,
    /// The video key frames; their offsets rise. Empty if there is no video track.
    pub keys: Vec<KeyFrame>,
}

/// Whether a segment still grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentState {
    /// It is being written; the tables hold what is durable.
    Open,
    /// It is finished and will not change.
    Sealed,
}

/// A segment as a query finds it: enough to read any frame of it without another look at the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentMeta {
    /// Camera and start.
    pub key: SegmentKey,
    /// The moment after its last frame.
    pub end: WallTime,
    /// The file.
    pub path: PathBuf,
    /// Whether it still grows.
    pub state: SegmentState,
    /// Its size in bytes; of an open one, what is durable.
    pub bytes: u64,
    /// The tracks; `tracks[i]` describes `TrackId(i)`.
    pub tracks: Arc<[CodecParameters]>,
    /// Clusters and key frames.
    pub table: Table,
    /// Why there is a gap before it, where there is one.
    pub gap_before: Option<GapCause>,
    /// Whether it was fetched later from an archive of the camera's own, and not recorded as it happened.
    pub backfilled: bool,
}

impl SegmentMeta {
    /// From its start to the moment after its last frame.
    pub fn range(&self) -> TimeRange {
        TimeRange {
            start: self.key.start,
            end: self.end.max(self.key.start),
        }
    }
}

/// A packed table is damaged or of a later version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a packed cluster table is damaged")]
pub struct BadTable;

impl Table {
    /// Adds what a flush wrote.
    pub fn push(&mut self, c: &ClusterInfo) {
        self.clusters.push(ClusterSpan {
            offset: c.offset,
            len: c.len,
            frames: c.frames,
            first: c.first,
            last: c.last,
        });
        self.keys.extend_from_slice(&c.keys);
    }

    /// The latest time of a frame.
    pub fn last(&self) -> Option<WallTime> {
        self.clusters.iter().map(|c| c.last).max()
    }

    /// The first byte behind the last cluster and its padding.
    pub fn end_offset(&self) -> Option<u64> {
        self.clusters.last().map(|c| c.offset + u64::from(c.len))
    }

    /// Index of the cluster that holds the byte at `offset`.
    pub fn cluster_at(&self, offset: u64) -> Option<usize> {
        let i = self.clusters.partition_point(|c| c.offset <= offset).checked_sub(1)?;
        (offset < self.clusters[i].offset + u64::from(self.clusters[i].len)).then_some(i)
    }

    /// Index of the last key frame, in file order, whose time is `t` or earlier.
    ///
    /// Key frames' times rise within a segment, because it holds one run of an unbroken clock.
    pub fn key_at_or_before(&self, t: WallTime) -> Option<usize> {
        self.keys.partition_point(|k| k.time <= t).checked_sub(1)
    }

    /// The table in few bytes: varints of differences, about 12 bytes a cluster and 9 a key frame.
    pub fn pack(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.clusters.len() * 14 + self.keys.len() * 10);
        out.push(PACK_VERSION);
        put(&mut out, self.clusters.len() as u64);
        let (mut at, mut t) = (0, 0);
        for c in &self.clusters {
            put(&mut out, c.offset - at);
            put(&mut out, u64::from(c.len));
            put(&mut out, u64::from(c.frames));
            put_signed(&mut out, c.first.as_micros() - t);
            put_signed(&mut out, c.last.micros_since(c.first));
            at = c.offset + u64::from(c.len);
            t = c.last.as_micros();
        }
        put(&mut out, self.keys.len() as u64);
        let (mut at, mut t) = (0, 0);
        for k in &self.keys {
            put(&mut out, k.block - at);
            put(&mut out, k.offset - k.block);
            put(&mut out, u64::from(k.size));
            put_signed(&mut out, k.time.as_micros() - t);
            at = k.block;
            t = k.time.as_micros();
        }
        out
    }

    /// The inverse of [`Self::pack`]. Never allocates more than a small multiple of `b.len()`.
    pub fn unpack(mut b: &[u8]) -> Result<Self, BadTable> {
        let (&version, rest) = b.split_first().ok_or(BadTable)?;
        if version != PACK_VERSION {
            return Err(BadTable);
        }
        b = rest;
        unpack(&mut b).filter(|_| b.is_empty()).ok_or(BadTable)
    }
}

const PACK_VERSION: u8 = 1;

fn unpack(b: &mut &[u8]) -> Option<Table> {
    let n = usize::try_from(take(b)?).ok()?;
    // A cluster takes at least five bytes and a key frame four: what claims more is damaged.
    if n > CLUSTERS_MAX || n > b.len() / 5 {
        return None;
    }
    let mut clusters = Vec::with_capacity(n);
    let (mut at, mut t) = (0u64, 0i64);
    for _ in 0..n {
        let offset = at.checked_add(take(b)?)?;
        let len = u32::try_from(take(b)?).ok()?;
        let frames = u32::try_from(take(b)?).ok()?;
        let first = t.checked_add(take_signed(b)?)?;
        let last = first.checked_add(take_signed(b)?)?;
        at = offset.checked_add(u64::from(len))?;
        t = last;
        clusters.push(ClusterSpan {
            offset,
            len,
            frames,
            first: WallTime::from_micros(first),
            last: WallTime::from_micros(last),
        });
    }
    let n = usize::try_from(take(b)?).ok()?;
    if n > KEYS_MAX || n > b.len() / 4 {
        return None;
    }
    let mut keys = Vec::with_capacity(n);
    let (mut at, mut t) = (0u64, 0i64);
    for _ in 0..n {
        let block = at.checked_add(take(b)?)?;
        let offset = block.checked_add(take(b)?)?;
        let size = u32::try_from(take(b)?).ok()?;
        let time = t.checked_add(take_signed(b)?)?;
        at = block;
        t = time;
        keys.push(KeyFrame {
            time: WallTime::from_micros(time),
            offset,
            size,
            block,
        });
    }
    Some(Table { clusters, keys })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tables() -> impl Strategy<Value = Table> {
        let cluster = (
            0u64..3,
            1u32..5000,
            0u32..100,
            0i64..3_000_000,
            -500_000i64..3_000_000,
            0usize..4,
        );
        (0i64..2_000_000_000_000_000, prop::collection::vec(cluster, 0..40)).prop_map(|(start, list)| {
            let (mut table, mut at, mut t) = (Table::default(), 4096, start);
            for (skip, pages, frames, step, span, keys) in list {
                let offset = at + skip * 4096;
                let info = ClusterInfo {
                    offset,
                    len: pages * 4096,
                    frames,
                    first: WallTime::from_micros(t + step),
                    last: WallTime::from_micros(t + step + span),
                    keys: (0..keys as u64)
                        .map(|i| KeyFrame {
                            time: WallTime::from_micros(t + step + i as i64 * 7),
                            offset: offset + 30 + i * 200 + 8,
                            size: 150,
                            block: offset + 30 + i * 200,
                        })
                        .collect(),
                };
                at = offset + u64::from(info.len);
                t += step + span;
                table.push(&info);
            }
            table
        })
    }

    proptest! {
        #[test]
        fn packs_and_unpacks(table in tables()) {
            prop_assert_eq!(Table::unpack(&table.pack()), Ok(table));
        }

        #[test]
        fn damage_never_panics(table in tables(), at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<prop::sample::Index>()) {
            let mut packed = table.pack();
            let i = at.index(packed.len());
            packed[i] ^= 1 << bit;
            let _ = Table::unpack(&packed);
            prop_assert!(Table::unpack(&table.pack()[..cut.index(packed.len())]).is_err());
        }
    }

    #[test]
    fn finds_clusters_and_keys() {
        let mut table = Table::default();
        for i in 0..3u64 {
            let time = WallTime::from_millis(i as i64 * 2000);
            table.push(&ClusterInfo {
                offset: 4096 + i * 8192,
                len: 8192,
                frames: 50,
                first: time,
                last: time,
                keys: vec![KeyFrame {
                    time,
                    offset: 4200 + i * 8192,
                    size: 9,
                    block: 4190 + i * 8192,
                }],
            });
        }
        assert_eq!(table.cluster_at(4095), None);
        assert_eq!(table.cluster_at(4096), Some(0));
        assert_eq!(table.cluster_at(20_479), Some(1));
        assert_eq!(table.cluster_at(28_672), None);
        assert_eq!(table.key_at_or_before(WallTime::from_millis(-1)), None);
        assert_eq!(table.key_at_or_before(WallTime::from_millis(1999)), Some(0));
        assert_eq!(table.key_at_or_before(WallTime::from_millis(9999)), Some(2));
        assert_eq!(table.end_offset(), Some(28_672));
    }
}
