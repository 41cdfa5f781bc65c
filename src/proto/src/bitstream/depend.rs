//! Which coded pictures no other picture is predicted from, so that they can be left out without harm to what follows.

use corenvr_media::VideoCodec;

use super::{h264, h265, nal::split_lengths};

/// Whether no other picture can depend on this access unit (`data` as in `corenvr_media::Frame`). In doubt it is `false`: also for
/// codecs other than H.264 and H.265, for units that are damaged, and for those that carry parameter sets.
///
/// - H.264 section 7.4.1, `nal_ref_idc`: 0 in a slice of a picture that is not a reference picture, and never 0 in parameter sets.
/// - H.265 section 7.4.2.2 and table 7-1: the even types up to 14 are sub-layer non-reference pictures, which pictures of the same temporal
///   sub-layer are not predicted from. Higher sub-layers might be; which is the highest is not in the access unit, so only pictures of
///   `TemporalId` 0 count, where encoders use these types for pictures that nothing refers to.
pub fn is_disposable(codec: VideoCodec, data: &[u8]) -> bool {
    match codec {
        VideoCodec::H264 => all(data, h264_unit),
        VideoCodec::H265 => all(data, h265_unit),
        VideoCodec::Mjpeg | VideoCodec::Av1 => false,
    }
}

/// What one NAL unit says of its picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// A part of a picture that nothing depends on.
    Spare,
    /// Nothing about dependence.
    Neutral,
    /// Something may depend on it.
    Needed,
}

fn all(data: &[u8], judge: impl Fn(&[u8]) -> Unit) -> bool {
    let mut spare = false;
    for nal in split_lengths(data) {
        match nal.map(&judge) {
            Ok(Unit::Spare) => spare = true,
            Ok(Unit::Neutral) => {}
            Ok(Unit::Needed) | Err(_) => return false,
        }
    }
    spare
}

fn h264_unit(nal: &[u8]) -> Unit {
    use h264::kind;
    let header = nal.first().copied().unwrap_or(0);
    match (h264::nal_kind(header), header >> 5 & 3) {
        (kind::SLICE..=kind::PARTITION_C, 0) => Unit::Spare,
        // SEI, delimiters, ends, filler: 0 as well.
        (kind::SEI | kind::DELIMITER..=kind::FILLER, _) => Unit::Neutral,
        _ => Unit::Needed,
    }
}

fn h265_unit(nal: &[u8]) -> Unit {
    use h265::kind;
    let Some(&[first, second]) = nal.first_chunk::<{ h265::HEADER_LEN }>() else {
        return Unit::Needed;
    };
    let layer = (first & 1) << 5 | second >> 3;
    let temporal_id_plus_1 = second & 7;
    match h265::nal_kind(first) {
        t if t < kind::IRAP_FIRST && t % 2 == 0 && layer == 0 && temporal_id_plus_1 == 1 => Unit::Spare,
        kind::DELIMITER..=kind::SEI_SUFFIX => Unit::Neutral,
        _ => Unit::Needed,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit(nals: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for nal in nals {
            out.extend((nal.len() as u32).to_be_bytes());
            out.extend_from_slice(nal);
        }
        out
    }

    #[test]
    fn h264_goes_by_nal_ref_idc() {
        let h264 = |nals: &[&[u8]]| is_disposable(VideoCodec::H264, &unit(nals));
        assert!(h264(&[&[0x01, 9]]));
        assert!(h264(&[&[0x09, 0xF0], &[0x06, 5, 1], &[0x01, 9], &[0x01, 8]]));
        assert!(!h264(&[&[0x41, 9]]), "a reference picture");
        assert!(!h264(&[&[0x01, 9], &[0x21, 8]]), "one slice of it is");
        assert!(!h264(&[&[0x65, 9]]), "a key frame");
        assert!(!h264(&[&[0x67, 9], &[0x01, 9]]), "it carries a parameter set");
        assert!(!h264(&[&[0x06, 9]]), "there is no picture");
        assert!(!h264(&[]));
    }

    #[test]
    fn h265_goes_by_type_and_temporal_id() {
        let nal = |kind: u8, tid_plus_1: u8| [kind << 1, tid_plus_1, 7];
        let h265 = |nals: &[[u8; 3]]| {
            let list: Vec<&[u8]> = nals.iter().map(|n| &n[..]).collect();
            is_disposable(VideoCodec::H265, &unit(&list))
        };
        for (kind, spare) in [
            (0, true),
            (1, false),
            (6, true),
            (7, false),
            (8, true),
            (9, false),
            (16, false),
            (19, false),
            (21, false),
        ] {
            assert_eq!(h265(&[nal(35, 1), nal(39, 1), nal(kind, 1)]), spare, "type {kind}");
        }
        assert!(!h265(&[nal(0, 2)]), "a higher sub-layer may have the next one above it");
        assert!(!h265(&[nal(0, 1), nal(1, 1)]));
        assert!(!h265(&[nal(32, 1), nal(0, 1)]), "it carries a parameter set");
        assert!(!is_disposable(VideoCodec::H265, &unit(&[&[0]])));
    }

    #[test]
    fn what_is_damaged_or_unknown_is_needed() {
        assert!(!is_disposable(VideoCodec::H264, &[0, 0, 0, 9, 1]));
        assert!(!is_disposable(VideoCodec::H264, &[0, 0, 0, 2, 1, 1, 0, 0]));
        assert!(!is_disposable(VideoCodec::Mjpeg, &unit(&[&[1, 9]])));
        assert!(!is_disposable(VideoCodec::Av1, &unit(&[&[1, 9]])));
    }

    proptest! {
        #[test]
        fn anything_is_judged_without_a_panic(data in prop::collection::vec(any::<u8>(), 0..64)) {
            super::super::fuzzing::disposable(&data);
        }
    }
}
