//! What must hold for any bytes, for the fuzz targets and the tests beside the parsers.

use corenvr_media::VideoCodec;

use super::{is_disposable, nal::split_lengths};

/// The first byte chooses the codec, the rest is an access unit.
pub fn disposable(data: &[u8]) {
    let Some((&choice, unit)) = data.split_first() else {
        return;
    };
    let codec = [VideoCodec::H264, VideoCodec::H265, VideoCodec::Mjpeg, VideoCodec::Av1][usize::from(choice % 4)];
    if is_disposable(codec, unit) {
        assert!(choice % 4 < 2, "a codec without a rule");
        assert!(split_lengths(unit).all(|nal| nal.is_ok()), "a damaged unit");
        // More of the same changes nothing, and one piece that is damaged does.
        assert!(is_disposable(codec, &[unit, unit].concat()));
        assert!(!is_disposable(codec, &[unit, &[0]].concat()));
    }
}
