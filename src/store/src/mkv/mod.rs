//! Matroska as corenvr writes it: a header block, clusters of known size, Cues; each padded to 4096 bytes.
//!
//! ```text
//! 0      EBML header | Segment (size unknown until sealed) | Void or SeekHead, 160 bytes | Info | Tags | Tracks | Void
//! 4096n  Cluster { CRC-32, Timestamp, SimpleBlock ... } | Void        one for each flush, as often as wanted
//!        Cues | Void (the packed cluster table) | Void                appended at sealing
//! ```
//!
//! Every append starts and ends at a multiple of 4096, so that it is one aligned direct write. Sealing appends the tail,
//! makes it durable, and only then rewrites the first 4096 bytes, in which everything that changes lies. A file that was
//! cut anywhere plays up to its last whole cluster. The CRC-32 of each cluster is what tells a whole cluster from one that
//! a crash left half written in blocks that were allocated before.
//!
//! There is no `CueRelativePosition`: demuxers disagree on what it is relative to.

pub(crate) mod ebml;
pub mod file;
pub mod header;
pub mod import;
pub mod reader;
pub mod recover;
mod tracks;
pub(crate) mod varint;
pub mod writer;

/// Every append starts and ends at a multiple of this: the block size of direct IO.
pub const ALIGN: u64 = 4096;
/// Bytes reserved for the SeekHead behind the Segment's header.
pub(crate) const SEEK_HEAD_LEN: u64 = 160;
/// Largest cluster that is written or read; a flush that is larger becomes several.
pub const CLUSTER_LEN_MAX: u64 = 16 << 20;
/// Largest frame that is written; a larger one is refused before anything of its flush is written.
pub const FRAME_LEN_MAX: usize = 15 << 20;
/// Largest CodecPrivate of a track; larger parameters are refused.
pub const EXTRA_LEN_MAX: usize = 64 << 10;
/// Largest header that is written or read.
pub const HEADER_LEN_MAX: usize = 1 << 20;
/// Most tracks of a file; more are refused.
pub const TRACKS_MAX: usize = 8;
/// Longest span of a file; frames further from its start are refused.
pub const SPAN_MAX_MS: i64 = 400 * 86_400_000;
/// Largest tail (Cues and packed table) that is read.
pub const TAIL_LEN_MAX: u64 = 64 << 20;

/// Matroska's ids, with their marker bits.
pub(crate) mod id {
    pub const EBML: u32 = 0x1A45_DFA3;
    pub const DOC_TYPE: u32 = 0x4282;
    pub const SEGMENT: u32 = 0x1853_8067;
    pub const SEEK_HEAD: u32 = 0x114D_9B74;
    pub const SEEK: u32 = 0x4DBB;
    pub const SEEK_ID: u32 = 0x53AB;
    pub const SEEK_POSITION: u32 = 0x53AC;
    pub const INFO: u32 = 0x1549_A966;
    pub const TIMESTAMP_SCALE: u32 = 0x2A_D7B1;
    pub const DURATION: u32 = 0x4489;
    pub const TAGS: u32 = 0x1254_C367;
    pub const TAG: u32 = 0x7373;
    pub const TARGETS: u32 = 0x63C0;
    pub const TAG_TRACK_UID: u32 = 0x63C5;
    pub const SIMPLE_TAG: u32 = 0x67C8;
    pub const TAG_NAME: u32 = 0x45A3;
    pub const TAG_STRING: u32 = 0x4487;
    pub const TRACKS: u32 = 0x1654_AE6B;
    pub const TRACK_ENTRY: u32 = 0xAE;
    pub const TRACK_NUMBER: u32 = 0xD7;
    pub const TRACK_TYPE: u32 = 0x83;
    pub const CODEC_ID: u32 = 0x86;
    pub const CODEC_PRIVATE: u32 = 0x63A2;
    pub const VIDEO: u32 = 0xE0;
    pub const PIXEL_WIDTH: u32 = 0xB0;
    pub const PIXEL_HEIGHT: u32 = 0xBA;
    pub const AUDIO: u32 = 0xE1;
    pub const SAMPLING_FREQUENCY: u32 = 0xB5;
    pub const CHANNELS: u32 = 0x9F;
    pub const CLUSTER: u32 = 0x1F43_B675;
    pub const TIMESTAMP: u32 = 0xE7;
    pub const SIMPLE_BLOCK: u32 = 0xA3;
    pub const CUES: u32 = 0x1C53_BB6B;
    pub const CUE_POINT: u32 = 0xBB;
    pub const CUE_TIME: u32 = 0xB3;
    pub const CUE_TRACK_POSITIONS: u32 = 0xB7;
    pub const CUE_TRACK: u32 = 0xF7;
    pub const CUE_CLUSTER_POSITION: u32 = 0xF1;
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
pub(crate) mod tests;
