//! Program streams built from the standard by a muxer of the tests' own, with what devices do differently.

mod mux;
mod sound;
mod video;

use bytes::Bytes;

pub(crate) use mux::{Mux, Packets, Pts, h264_picture, h265_picture, picture_bytes};

use super::*;
use crate::rtp::depacketize::AccessUnit;

/// All units out of a demuxer that gets these payloads.
pub(super) fn demux(packets: &Packets) -> Vec<(StreamKind, AccessUnit)> {
    let mut demuxer = Demuxer::new();
    feed(&mut demuxer, packets)
}

pub(super) fn feed(demuxer: &mut Demuxer, packets: &Packets) -> Vec<(StreamKind, AccessUnit)> {
    let mut units = Vec::new();
    for packet in &packets.0 {
        demuxer.push(&packet.data, packet.timestamp, packet.marker, packet.lost);
        units.extend(std::iter::from_fn(|| demuxer.poll()));
    }
    demuxer.flush();
    units.extend(std::iter::from_fn(|| demuxer.poll()));
    units
}

/// Time stamp, bytes and damage of the pictures among units.
pub(super) fn pictures(units: &[(StreamKind, AccessUnit)]) -> Vec<(u32, Bytes, bool)> {
    let video = units.iter().filter(|(kind, _)| *kind == StreamKind::Video);
    video.map(|(_, u)| (u.timestamp, u.data.clone(), u.damaged)).collect()
}
