//! Entry point for fuzzers: any bytes become payloads, and what comes out must keep the promises of the API.
//!
//! Input: payloads, each behind a byte of flags (1: marker, 2: next time stamp, 4: packets lost before it) and a 16-bit big-endian
//! length. A length past the end takes what there is.

use corenvr_media::{AudioCodec, CodecParameters, VideoCodec};

use super::{Demuxer, StreamKind};
use crate::{
    bitstream::nal::split_lengths,
    rtp::depacketize::{AccessUnit, UNIT_BYTES_MAX},
};

/// A program stream.
pub fn demux(data: &[u8]) {
    let mut demuxer = Demuxer::new();
    let (mut rest, mut timestamp) = (data, 0u32);
    let (mut lost, mut told, mut bytes_in, mut bytes_out) = (0u64, 0, 0, 0);
    let mut parameters = [None, None];
    let mut check = |demuxer: &mut Demuxer| {
        while let Some((kind, unit)) = demuxer.poll() {
            told += u64::from(unit.lost);
            bytes_out += unit.data.len();
            let current = &mut parameters[usize::from(kind == StreamKind::Audio)];
            if unit.parameters.is_some() {
                current.clone_from(&unit.parameters);
            }
            check_unit(kind, &unit, current.as_deref());
            let nals = split_lengths(&unit.data).filter(|_| kind == StreamKind::Video);
            for nal in nals.flatten() {
                assert!(nal[0] & 0x80 == 0 && nal.last() != Some(&0), "no NAL unit");
            }
        }
    };
    while let Some((&[flags, l0, l1], tail)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_be_bytes([l0, l1])).min(tail.len());
        let (payload, tail) = tail.split_at(len);
        rest = tail;
        timestamp = timestamp.wrapping_add(if flags & 2 != 0 { 3600 } else { 0 });
        let before = if flags & 4 != 0 { u32::from(flags >> 4) + 1 } else { 0 };
        lost += u64::from(before);
        bytes_in += payload.len();
        demuxer.push(payload, timestamp, flags & 1 != 0, before);
        check(&mut demuxer);
    }
    demuxer.flush();
    check(&mut demuxer);
    assert!(told <= lost, "{told} packets told lost of {lost}");
    // A start code of three bytes becomes a length of four.
    assert!(bytes_out <= bytes_in * 2, "{bytes_out} bytes out of {bytes_in}");
    assert!(demuxer.skipped_bytes() <= bytes_in as u64, "more skipped than came");
}

/// What must hold for every unit, from whichever container it came.
pub(crate) fn check_unit(kind: StreamKind, unit: &AccessUnit, parameters: Option<&CodecParameters>) {
    assert!(!unit.data.is_empty() && unit.data.len() <= UNIT_BYTES_MAX + 4);
    match (kind, parameters) {
        (StreamKind::Video, Some(CodecParameters::Video(video))) => {
            for nal in split_lengths(&unit.data) {
                let nal = nal.expect("every NAL unit delivered is whole");
                assert!(!nal.is_empty() && matches!(video.codec, VideoCodec::H264 | VideoCodec::H265));
            }
        }
        (StreamKind::Audio, Some(CodecParameters::Audio(audio))) => {
            assert!(unit.key && audio.sample_rate > 0 && audio.channels > 0);
            assert!(audio.codec != AudioCodec::Aac || !audio.extra.is_empty());
        }
        // Video without parameters yet: of a stream whose sets are not complete.
        (StreamKind::Video, None) => {}
        (kind, other) => panic!("{kind:?} with {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::ps::tests::{Mux, h264_picture};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn promises_hold_for_any_bytes(data: Vec<u8>) {
            super::demux(&data);
        }

        /// A good stream with bytes changed, cut into payloads of which some are lost.
        #[test]
        fn promises_hold_for_damaged_streams(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
            payloads in prop::collection::vec((any::<u8>(), 1usize..300), 1..20),
            adts: bool,
        ) {
            let mux = Mux { pes_len: 150, ..Mux::default() };
            let mut stream = Vec::new();
            for i in 0..5 {
                stream.extend(mux.picture(3600 * i, i % 3 == 0, &h264_picture(i % 3 == 0, &[0, 0, 1, i as u8])));
                stream.extend(mux.sound(Some(3600 * i), if adts { &[0xFF, 0xF1, 0x60, 0x40, 1, 0x3F, 0xFC, 1, 2] } else { &[0xD5; 80] }));
            }
            for (at, byte) in changes {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
            let (mut data, mut rest) = (Vec::new(), &stream[..]);
            for (flags, len) in payloads.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (payload, tail) = rest.split_at(rest.len().min(*len));
                rest = tail;
                data.push(flags & if flags & 0xC0 == 0xC0 { 0xFF } else { 0xFB });
                data.extend((payload.len() as u16).to_be_bytes());
                data.extend(payload);
            }
            super::demux(&data);
        }
    }
}
