//! One coded picture or one packet of coded sound.

use bytes::Bytes;

use crate::WallTime;

/// Which track of a stream a frame belongs to. The video track, where there is one, is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId(pub u8);

/// One access unit as it is stored and served.
///
/// `data` has the layout Matroska stores, which is also what the packetizers take, so that nothing on the way converts it:
///
/// | codec | `data` |
/// |---|---|
/// | H.264, H.265 | the access unit's NAL units in the order received, each behind a 4-byte big-endian length; parameter sets that came in band stay in place |
/// | AV1 | the temporal unit's OBUs with size fields, without temporal delimiters |
/// | MJPEG | one whole JPEG interchange file |
/// | AAC | one raw access unit, no ADTS |
/// | Opus | one packet |
/// | G.711, G.726, L16 | the samples of one RTP packet as received (L16: big endian) |
///
/// Frames of a track are in decode order; with B frames `time` is not monotonic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The track.
    pub track: TrackId,
    /// When it is to be shown or heard, on the UTC time line of the recording.
    pub time: WallTime,
    /// Decoding can start here. True for every frame of a codec without prediction (all audio, MJPEG).
    pub key: bool,
    /// The payload; shared, never copied between viewers.
    pub data: Bytes,
}
