//! Frames to clusters, and the end of a file. Sans-IO: bytes go into a [`Sink`], and the caller writes them.

use bytes::BytesMut;
use corenvr_media::{Frame, TrackId, WallTime};

pub use super::header::SegmentHeader;
use super::{
    ALIGN, CLUSTER_LEN_MAX, FRAME_LEN_MAX, SPAN_MAX_MS, TRACKS_MAX,
    ebml::{self, padding, put_void, size8, void_header},
    header::{self, Finished, Layout},
    id,
    reader::Timebase,
};
use crate::tables::{CLUSTERS_MAX, ClusterInfo, KEYS_MAX, KeyFrame, Table};

/// Cue points are at least this far apart.
const CUE_SPACING_MS: i64 = 1000;
/// Cluster header, CRC-32 and Timestamp.
const CLUSTER_HEAD_LEN: usize = 12 + 6 + 10;
/// What marks the Void that holds the packed cluster table, in front of the table's CRC-32.
pub(crate) const TABLE_MAGIC: &[u8; 16] = b"corenvr-table-1\0";
/// A last frame is never taken to last longer than this.
const FRAME_DURATION_MAX_US: i64 = 10_000_000;

/// Where encoded bytes go: an aligned buffer of the file layer, or memory.
pub trait Sink {
    /// Appends `bytes`. Must take all of it.
    fn extend(&mut self, bytes: &[u8]);
    /// Bytes appended so far, together with what was in it before.
    fn len(&self) -> usize;
    /// Whether nothing is in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Sink for Vec<u8> {
    fn extend(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
    fn len(&self) -> usize {
        Self::len(self)
    }
}

impl Sink for BytesMut {
    fn extend(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
    fn len(&self) -> usize {
        Self::len(self)
    }
}

/// Frames or parameters cannot be written. The caller is at fault; nothing was written and the writer is as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A file has 1 to [`TRACKS_MAX`] tracks.
    #[error("{0} tracks: a recording has 1 to {TRACKS_MAX}")]
    TrackCount(usize),
    /// A track cannot be described.
    #[error("track {index} cannot be recorded: {reason}")]
    Track {
        /// Which.
        index: usize,
        /// Why.
        reason: &'static str,
    },
    /// A start that Matroska cannot say (before 1970 or after 2293).
    #[error("{0} cannot be the start of a recording")]
    Start(WallTime),
    /// A frame of a track that the header does not have.
    #[error("a frame of track {0}, which the recording does not have")]
    UnknownTrack(u8),
    /// The first video frame of a file must be a key frame.
    #[error("the first video frame is not a key frame")]
    NotKey,
    /// A frame is larger than [`FRAME_LEN_MAX`].
    #[error("a frame of {0} bytes: at most {FRAME_LEN_MAX} can be recorded")]
    FrameTooLarge(usize),
    /// A frame is more than 32 s before the start, or 400 days after it.
    #[error("a frame of {time} in a recording that starts at {start}")]
    Time {
        /// The frame's time.
        time: WallTime,
        /// The recording's start.
        start: WallTime,
    },
    /// A frame of back-filled footage would lie on other footage, or behind what was asked for.
    #[error("a frame of {time} in a back-filled recording that ends before {until}")]
    NotBefore {
        /// The frame's time.
        time: WallTime,
        /// Where the recording has to end.
        until: WallTime,
    },
    /// The tables are full: start another segment.
    #[error("the recording has as many clusters or key frames as one can have: start another")]
    Full,
}

impl WriteError {
    /// Whether another segment, with the same frames, would do.
    pub const fn wants_new_segment(&self) -> bool {
        matches!(self, Self::Full | Self::Time { .. })
    }
}

/// The end of a file: what to append, then what to write over its first block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Where `append` goes.
    pub append_at: u64,
    /// Cues and the packed table; a multiple of 4096 bytes. To be durable before `header_block` is written.
    pub append: Vec<u8>,
    /// The new first 4096 bytes of the file.
    pub header_block: Vec<u8>,
    /// The size of the finished file; what was allocated behind it is to be cut off.
    pub final_size: u64,
    /// The moment after the last frame.
    pub end: WallTime,
}

/// Which times the frames of a file cover.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extent([Option<TrackExtent>; TRACKS_MAX]);

#[derive(Debug, Clone, Copy)]
struct TrackExtent {
    first: WallTime,
    last: WallTime,
    count: i64,
}

impl Extent {
    pub fn add(&mut self, track: TrackId, t: WallTime) {
        let Some(slot) = self.0.get_mut(usize::from(track.0)) else {
            return;
        };
        let e = slot.get_or_insert(TrackExtent {
            first: t,
            last: t,
            count: 0,
        });
        e.first = e.first.min(t);
        e.last = e.last.max(t);
        e.count += 1;
    }

    /// The moment after the last frame: each track's last frame lasts as long as its frames do on average.
    pub fn end(&self) -> Option<WallTime> {
        let track_end = |e: &TrackExtent| {
            let average = e.last.micros_since(e.first) / (e.count - 1).max(1);
            e.last.offset(average.clamp(1000, FRAME_DURATION_MAX_US))
        };
        self.0.iter().flatten().map(track_end).max()
    }

    /// The end of a file with this header: the start if there is no frame, and never on the footage that follows a back-filled one.
    pub fn end_in(&self, header: &SegmentHeader) -> WallTime {
        let end = self.end().unwrap_or(header.start);
        header.backfilled_until.map_or(end, |until| end.min(until))
    }
}

/// Writes one segment.
#[derive(Debug)]
pub struct SegmentWriter {
    header: SegmentHeader,
    block: Vec<u8>,
    layout: Layout,
    time: Timebase,
    position: u64,
    table: Table,
    cues: Vec<(u64, u64)>,
    extent: Extent,
    end_max: Option<WallTime>,
    /// Clusters with a key frame lie before those that are written.
    entered: bool,
}

/// A run of frames that fits one cluster.
struct Group {
    from: usize,
    to: usize,
    min_ms: i64,
    max_ms: i64,
    bytes: u64,
}

impl Group {
    fn base(min_ms: i64) -> i64 {
        min_ms.max(0)
    }

    /// Whether the relative times and the size still fit when a frame is added.
    fn fits(&self, ms: i64, bytes: u64) -> bool {
        let base = Self::base(self.min_ms.min(ms));
        self.max_ms.max(ms) - base <= i64::from(i16::MAX) && self.bytes + bytes <= CLUSTER_LEN_MAX - ALIGN
    }
}

/// Id, size, track, time and flags of a SimpleBlock.
fn block_head(track: TrackId, relative_ms: i16, key: bool, payload_len: usize) -> ([u8; 9], usize) {
    let n = payload_len + 4;
    let [t0, t1] = relative_ms.to_be_bytes();
    let (track, flags) = (0x80 | (track.0 + 1), if key { 0x80 } else { 0 });
    if n < 0x3FFF {
        let [s0, s1] = (0x4000 | n as u16).to_be_bytes();
        ([id::SIMPLE_BLOCK as u8, s0, s1, track, t0, t1, flags, 0, 0], 7)
    } else {
        let [s0, s1, s2, s3] = (0x1000_0000 | n as u32).to_be_bytes();
        ([id::SIMPLE_BLOCK as u8, s0, s1, s2, s3, track, t0, t1, flags], 9)
    }
}

fn block_len(payload_len: usize) -> u64 {
    payload_len as u64 + if payload_len + 4 < 0x3FFF { 7 } else { 9 }
}

impl SegmentWriter {
    /// A new file. [`Self::header_block`] goes to its start.
    pub fn new(header: SegmentHeader) -> Result<Self, WriteError> {
        let (block, layout) = header::encode(&header)?;
        Ok(Self {
            time: Timebase::new(header.start, &header.tracks),
            position: layout.first_cluster,
            header,
            block,
            layout,
            table: Table::default(),
            cues: Vec::new(),
            extent: Extent::default(),
            end_max: None,
            entered: false,
        })
    }

    /// Goes on with a file that holds these clusters already, to seal it. `block` is its header block.
    pub(crate) fn resume(header: &header::Header, block: Vec<u8>, table: &Table, extent: Extent, end: u64) -> Self {
        let time = Timebase::new(header.segment.start, &header.segment.tracks);
        let mut w = Self {
            time,
            position: end,
            header: header.segment.clone(),
            block,
            layout: header.layout,
            table: Table::default(),
            cues: Vec::new(),
            extent,
            end_max: None,
            entered: false,
        };
        let mut keys = table.keys.iter().peekable();
        for c in &table.clusters {
            let end = c.offset + u64::from(c.len);
            let mut info = ClusterInfo {
                offset: c.offset,
                len: c.len,
                frames: c.frames,
                first: c.first,
                last: c.last,
                keys: Vec::new(),
            };
            while let Some(k) = keys.next_if(|k| k.block < end) {
                info.keys.push(*k);
            }
            w.note(&info);
        }
        w
    }

    /// Goes on at byte `position` of a file whose clusters before it are not known here: to write a part of the middle again.
    /// The file cannot be sealed then.
    pub(crate) fn enter(&mut self, position: u64) {
        self.entered |= position > self.position;
        self.position = position;
    }

    /// The header block, to be written at the start of the file; a multiple of 4096 bytes.
    pub fn header_block(&self) -> &[u8] {
        &self.block
    }

    /// What the header says.
    pub const fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Where the next flush goes in the file; a multiple of 4096.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// What was flushed so far.
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// The moment after the last frame so far; the start if there is none.
    pub fn end(&self) -> WallTime {
        let end = self.extent.end_in(&self.header);
        match self.end_max {
            Some(max) => end.min(self.table.last().map_or(max, |last| last.max(max))),
            None => end,
        }
    }

    /// Another segment goes on at `t`: the last frame lasts until there at most. How long it lasts is an estimate otherwise.
    pub fn goes_on_at(&mut self, t: WallTime) {
        self.end_max = Some(t);
    }

    /// Encodes `frames`, in the order given, for [`Self::position`] of the file: as one cluster, or as several when times or
    /// sizes do not fit one. The bytes added to `out` are a multiple of 4096, and each payload is copied once.
    ///
    /// Frames are to be in decode order, audio and video as received. The caller makes the bytes durable before it tells anyone
    /// of the clusters returned.
    pub fn flush(&mut self, frames: &[Frame], out: &mut impl Sink) -> Result<Vec<ClusterInfo>, WriteError> {
        let groups = self.plan(frames)?;
        let mut done = Vec::with_capacity(groups.len());
        for g in &groups {
            let info = self.write_cluster(&frames[g.from..g.to], Group::base(g.min_ms), g.bytes, out);
            self.note(&info);
            self.position = info.offset + u64::from(info.len);
            done.push(info);
        }
        for f in frames {
            self.extent.add(f.track, f.time);
        }
        Ok(done)
    }

    /// Checks every frame and cuts the flush into clusters. Changes nothing.
    fn plan(&self, frames: &[Frame]) -> Result<Vec<Group>, WriteError> {
        let mut groups: Vec<Group> = Vec::with_capacity(1);
        let mut video_seen = self.entered || !self.table.keys.is_empty();
        let mut keys = self.table.keys.len();
        for (i, f) in frames.iter().enumerate() {
            if usize::from(f.track.0) >= self.time.tracks() {
                return Err(WriteError::UnknownTrack(f.track.0));
            }
            if f.data.len() > FRAME_LEN_MAX {
                return Err(WriteError::FrameTooLarge(f.data.len()));
            }
            if self.time.is_video(f.track) {
                if !f.key && !video_seen {
                    return Err(WriteError::NotKey);
                }
                video_seen = true;
                keys += usize::from(f.key);
            }
            let ms = self.time.to_ms(f);
            if !(i64::from(i16::MIN)..=SPAN_MAX_MS).contains(&ms) {
                return Err(WriteError::Time {
                    time: f.time,
                    start: self.header.start,
                });
            }
            if let Some(until) = self.header.backfilled_until
                && self.time.to_time(f.track, ms) >= until
            {
                return Err(WriteError::NotBefore { time: f.time, until });
            }
            let bytes = block_len(f.data.len());
            match groups.last_mut() {
                Some(g) if g.fits(ms, bytes) => {
                    g.to = i + 1;
                    g.min_ms = g.min_ms.min(ms);
                    g.max_ms = g.max_ms.max(ms);
                    g.bytes += bytes;
                }
                _ => groups.push(Group {
                    from: i,
                    to: i + 1,
                    min_ms: ms,
                    max_ms: ms,
                    bytes,
                }),
            }
        }
        if self.table.clusters.len() + groups.len() > CLUSTERS_MAX || keys > KEYS_MAX {
            return Err(WriteError::Full);
        }
        Ok(groups)
    }

    fn write_cluster(&self, frames: &[Frame], base_ms: i64, blocks_len: u64, out: &mut impl Sink) -> ClusterInfo {
        let mut time = [0; 10];
        time[..2].copy_from_slice(&[id::TIMESTAMP as u8, 0x88]);
        time[2..].copy_from_slice(&base_ms.to_be_bytes());
        let relative = |f: &Frame| (self.time.to_ms(f) - base_ms) as i16;

        // The checksum comes before what it is of, so the payloads are read twice; the second time from the cache.
        let mut crc = crc32fast::Hasher::new();
        crc.update(&time);
        for f in frames {
            let (head, n) = block_head(f.track, relative(f), f.key, f.data.len());
            crc.update(&head[..n]);
            crc.update(&f.data);
        }
        let mut head = [0; CLUSTER_HEAD_LEN];
        head[..4].copy_from_slice(&id::CLUSTER.to_be_bytes());
        head[4..12].copy_from_slice(&size8(blocks_len + (CLUSTER_HEAD_LEN - 12) as u64));
        head[12..14].copy_from_slice(&[ebml::CRC32 as u8, 0x84]);
        head[14..18].copy_from_slice(&crc.finalize().to_le_bytes());
        head[18..].copy_from_slice(&time);
        out.extend(&head);

        let offset = self.position;
        let mut info = ClusterInfo {
            offset,
            len: 0,
            frames: frames.len() as u32,
            first: WallTime::MAX,
            last: WallTime::MIN,
            keys: Vec::new(),
        };
        let mut at = offset + CLUSTER_HEAD_LEN as u64;
        for f in frames {
            let (head, n) = block_head(f.track, relative(f), f.key, f.data.len());
            out.extend(&head[..n]);
            out.extend(&f.data);
            let t = self.time.to_time(f.track, self.time.to_ms(f));
            info.first = info.first.min(t);
            info.last = info.last.max(t);
            if f.key && self.time.is_video(f.track) {
                info.keys.push(KeyFrame {
                    time: t,
                    offset: at + n as u64,
                    size: f.data.len() as u32,
                    block: at,
                });
            }
            at += n as u64 + f.data.len() as u64;
        }
        let pad = padding(at, ALIGN);
        pad_sink(out, pad);
        info.len = (at + pad - offset) as u32;
        info
    }

    fn note(&mut self, info: &ClusterInfo) {
        self.table.push(info);
        let mut cue = |t: WallTime| {
            let ms = t.micros_since(self.header.start).div_euclid(1000).max(0);
            if self
                .cues
                .last()
                .is_none_or(|&(last, _)| ms - last as i64 >= CUE_SPACING_MS)
            {
                self.cues.push((ms as u64, info.offset));
            }
        };
        if self.time.has_video() {
            info.keys.iter().for_each(|k| cue(k.time));
        } else {
            cue(info.first);
        }
    }

    /// Ends the file. With no flush before, the file is empty and better removed than sealed.
    pub fn seal(mut self) -> Seal {
        let mut append = header::cues(&self.cues, &self.layout);
        let packed = self.table.pack();
        let (head, n) = void_header((9 + TABLE_MAGIC.len() + 4 + packed.len()) as u64);
        append.extend_from_slice(&head[..n]);
        append.extend_from_slice(TABLE_MAGIC);
        append.extend_from_slice(&crc32fast::hash(&packed).to_le_bytes());
        append.extend_from_slice(&packed);
        let pad = padding(self.position + append.len() as u64, ALIGN);
        put_void(&mut append, pad);

        let finished = Finished {
            end: self.end(),
            bytes: self.position + append.len() as u64,
            cues_at: self.position,
        };
        header::finish(&mut self.block, &self.layout, self.header.start, &finished);
        self.block.truncate(ALIGN as usize);
        Seal {
            append_at: self.position,
            append,
            header_block: self.block,
            final_size: finished.bytes,
            end: finished.end,
        }
    }
}

/// A Void of `total` bytes, without a buffer of that size.
fn pad_sink(out: &mut impl Sink, total: u64) {
    const ZEROS: [u8; ALIGN as usize] = [0; ALIGN as usize];
    if total == 0 {
        return;
    }
    let (head, n) = void_header(total);
    out.extend(&head[..n]);
    let mut rest = total as usize - n;
    while rest > 0 {
        let step = rest.min(ZEROS.len());
        out.extend(&ZEROS[..step]);
        rest -= step;
    }
}
