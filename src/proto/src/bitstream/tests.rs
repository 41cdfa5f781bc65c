//! The bitstream readers, judged by known parameter sets and by an independent parser.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

/// x264, 1920x1080 progressive at 25 fps.
pub(crate) const SPS_1080P: &str = "6742c028da01e0089f97011000000300100000030320f1832a";
pub(crate) const PPS_1080P: &str = "68ce0fc8";
/// x264, 720x576 interlaced.
const SPS_576I: &str = "6764001eacd940b424d8088000000300800000190f8a14cb";
/// x265, 1920x1080 at 25 fps.
pub(crate) const VPS_265: &str = "40010c01ffff016000000300900000030000030078959409";
pub(crate) const SPS_265: &str =
    "420101016000000300900000030000030078a003c0801107cb965654a4c2f0168080000003008000000c84";
pub(crate) const PPS_265: &str = "4401c073c189";
/// x265, 640x360, 10 bits, at 30 fps, with scaling lists and B frames.
const SPS_265_10_BIT: &str = "42010102200000030090000003000003003fa005020169365959a49395e02d010000030001000003001e08";
/// libaom, 1280x720.
pub(crate) const AV1_SEQUENCE: &str = "0a0b0000002d4cffb3cdaf9004";

pub(crate) fn nal(text: &str) -> Vec<u8> {
    hex(text)
}

#[test]
fn h264_sps_agrees_with_h264_reader() {
    for (text, size, rate) in [(SPS_1080P, (1920, 1080), (25, 1)), (SPS_576I, (720, 576), (25, 1))] {
        let set = hex(text);
        let ours = h264::Sps::parse(&set).unwrap();
        assert_eq!(((ours.width, ours.height), ours.frame_rate), (size, Some(rate)));
        let reader = h264_reader::rbsp::BitReader::new(h264_reader::rbsp::ByteReader::skipping_h264_header(&set[..]));
        let theirs = h264_reader::nal::sps::SeqParameterSet::from_bits(reader).unwrap();
        assert_eq!(theirs.pixel_dimensions().unwrap(), size);
        assert_eq!(u8::from(theirs.profile_idc), ours.profile);
        assert_eq!(theirs.level_idc, ours.level);
    }
    assert!(!h264::Sps::parse(&hex(SPS_576I)).unwrap().frames_only);
}

/// Seen as retina#102: bytes behind the SPS, and a level too low for the size.
#[test]
fn h264_sps_with_bytes_behind_it_and_a_wrong_level_is_read() {
    let mut set = hex(SPS_1080P);
    set[3] = 10;
    set.extend([0, 0, 0xDE, 0xAD]);
    let sps = h264::Sps::parse(&set).unwrap();
    assert_eq!((sps.width, sps.height, sps.level), (1920, 1080, 10));
}

#[test]
fn h264_sps_cut_off_keeps_its_size_or_is_refused() {
    let set = hex(SPS_1080P);
    for len in 0..set.len() {
        if let Some(sps) = h264::Sps::parse(&set[..len]) {
            assert_eq!((sps.width, sps.height), (1920, 1080), "{len}");
        }
    }
    assert!(h264::Sps::parse(&set[..8]).is_none());
}

#[test]
fn avcc_holds_the_sets_and_gives_them_back() {
    let (sps, pps) = (hex(SPS_1080P), hex(PPS_1080P));
    let parameters = h264::parameters(&[&sps], &[&pps]).unwrap();
    assert_eq!(
        (parameters.width, parameters.height, parameters.frame_rate),
        (1920, 1080, Some((25, 1)))
    );
    assert_eq!(parameters.extra[..8], [1, 0x42, 0xC0, 0x28, 0xFF, 0xE1, 0, 25]);
    assert_eq!(h264::parameter_sets(&parameters.extra).unwrap(), [&sps[..], &pps[..]]);
    let record = h264_reader::avcc::AvcDecoderConfigurationRecord::try_from(&parameters.extra[..]).unwrap();
    assert_eq!(record.num_of_sequence_parameter_sets(), 1);
    // High profile has the chroma format behind the sets.
    let high = hex(SPS_576I);
    let parameters = h264::parameters(&[&high], &[&pps]).unwrap();
    assert_eq!(parameters.extra[parameters.extra.len() - 4..], [0xFD, 0xF8, 0xF8, 0]);
}

#[test]
fn slices_tell_their_place_and_their_field() {
    let start = |slice: &[u8], sps| h264::SliceStart::parse(slice, sps).unwrap();
    // first_mb 0, slice_type 7 (I)
    let first = start(&[0x65, 0x88, 0x80], None);
    assert_eq!((first.first_mb, first.intra, first.field), (0, true, None));
    // first_mb 3 (00100), slice_type 0 (P)
    let second = start(&[0x41, 0b0010_0100], None);
    assert_eq!((second.first_mb, second.intra), (3, false));
    let interlaced = h264::Sps::parse(&hex(SPS_576I)).unwrap();
    // first_mb 0, slice_type 5, pps 0, frame_num 4 bits, field_pic_flag, bottom_field_flag
    let field = start(&[0x41, 0b1001_1010, 0b1011_1000], Some(&interlaced));
    assert_eq!(field.field, Some((0b0101, true)));
    assert!(h264::is_recovery_point(&[0x06, 0x06, 0x01, 0xC4, 0x80]));
    assert!(!h264::is_recovery_point(&[0x06, 0x05, 0x01, 0xC4, 0x80]));
    assert!(h264::is_recovery_point(&[
        0x06, 0x05, 0x01, 0xC4, 0x06, 0x01, 0xC4, 0x80
    ]));
}

#[test]
fn h265_sets_become_hvcc_and_come_back() {
    let (vps, sps, pps) = (hex(VPS_265), hex(SPS_265), hex(PPS_265));
    let parameters = h265::parameters(&[&vps], &[&sps], &[&pps]).unwrap();
    assert_eq!(
        (parameters.width, parameters.height, parameters.frame_rate),
        (1920, 1080, Some((25, 1)))
    );
    assert_eq!(
        h265::parameter_sets(&parameters.extra).unwrap(),
        [&vps[..], &sps[..], &pps[..]]
    );
    let head = "01016000000090000000000078f000fcfdf8f800000f03";
    assert_eq!(parameters.extra[..23], hex(head)[..]);
    assert_eq!(h265::parameter_set_id(&vps), Some(0));
    assert_eq!(h265::parameter_set_id(&pps), Some(0));
}

#[test]
fn h265_sps_with_scaling_lists_and_reference_sets_is_read_to_its_timing() {
    let sps = h265::Sps::parse(&hex(SPS_265_10_BIT)).unwrap();
    assert_eq!(
        (sps.width, sps.height, sps.luma_bits, sps.chroma_bits),
        (640, 360, 10, 10)
    );
    assert_eq!(sps.frame_rate, Some((30, 1)));
}

#[test]
fn av1_sequence_header_becomes_av1c() {
    let bytes = hex(AV1_SEQUENCE);
    let (obu, rest) = av1::Obu::split(&bytes).unwrap();
    assert!(rest.is_empty());
    let parameters = av1::parameters(&obu).unwrap();
    assert_eq!((parameters.width, parameters.height), (1280, 720));
    assert_eq!(parameters.extra[0], 0x81);
    assert_eq!(parameters.extra[1], 5); // profile 0, level 3.1
    assert_eq!(parameters.extra[2], 0b0000_1100); // 8 bits, 4:2:0
    assert_eq!(parameters.extra[4..], bytes[..]);
    assert_eq!(av1::record_header(&parameters.extra).unwrap().level, 5);
}

#[test]
fn aac_configurations_are_read_and_made() {
    let config = aac::AudioConfig::parse(&[0x14, 0x08]).unwrap();
    assert_eq!(
        (config.sample_rate, config.channels, config.frame_samples),
        (16_000, 1, 1024)
    );
    // HE-AAC with explicit SBR: 24 kHz core.
    let config = aac::AudioConfig::parse(&[0x2B, 0x11, 0x88, 0x00]).unwrap();
    assert_eq!(
        (config.object_type, config.sample_rate, config.channels),
        (2, 24_000, 2)
    );
    for (rate, channels) in [(48_000, 2), (16_000, 1), (11_000, 6), (44_100, 8)] {
        let made = aac::AudioConfig::parse(&aac::low_complexity_config(rate, channels)).unwrap();
        assert_eq!((made.object_type, made.sample_rate, made.channels), (2, rate, channels));
    }
    for text in ["400028103fc0", "40002810"] {
        let latm = aac::LatmConfig::parse(&hex(text)).unwrap();
        assert_eq!((&latm.config[..], latm.frames), (&[0x14, 0x08][..], 1));
    }
    assert_eq!(aac::LatmConfig::parse(&hex("400028")), None);
}

#[test]
fn jpeg_headers_round_trip_and_foreign_ones_are_judged() {
    let headers = jpeg::JpegHeaders {
        width: 1920,
        height: 1080,
        half_height_chroma: true,
        restart_interval: 12,
        tables: jpeg::quant_tables(60),
    };
    let mut file = bytes::BytesMut::new();
    headers.write(&mut file);
    file.extend_from_slice(&[1, 2, 3, 0xFF, 0xD9]);
    let (got, scan) = jpeg::JpegHeaders::parse(&file).unwrap();
    assert_eq!((got, &file[scan]), (headers, &[1, 2, 3][..]));
    let sof = file.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    let mut progressive = file.to_vec();
    progressive[sof + 1] = 0xC2;
    assert!(matches!(
        jpeg::JpegHeaders::parse(&progressive),
        Err(jpeg::JpegError::NotCarriable(_))
    ));
    let mut wide = file.to_vec();
    wide[sof + 7] = 0x0F;
    assert!(matches!(
        jpeg::JpegHeaders::parse(&wide),
        Err(jpeg::JpegError::NotCarriable(_))
    ));
    let dht = file.windows(2).position(|w| w == [0xFF, 0xC4]).unwrap();
    let mut custom = file.to_vec();
    custom[dht + 21] ^= 1;
    assert!(matches!(
        jpeg::JpegHeaders::parse(&custom),
        Err(jpeg::JpegError::NotCarriable(_))
    ));
    for len in 0..file.len() - 6 {
        assert!(
            matches!(
                jpeg::JpegHeaders::parse(&file[..len]),
                Err(jpeg::JpegError::Malformed(_))
            ),
            "{len}"
        );
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(mut bytes: Vec<u8>, heads in 0usize..8) {
        let head = ["67", "68", "4201", "4401", "ffd8ffdb0043", "0a0b", "06", "61"][heads];
        let mut data = hex(head);
        data.append(&mut bytes);
        let _ = h264::Sps::parse(&data);
        let _ = h264::pps_ids(&data);
        let _ = h264::is_recovery_point(&data);
        let sps = h264::Sps::parse(&hex(SPS_576I));
        let _ = h264::SliceStart::parse(&data, sps.as_ref());
        let _ = h265::Sps::parse(&data);
        let _ = h265::parameter_set_id(&data);
        let _ = av1::Obu::split(&data);
        let _ = av1::SequenceHeader::parse(&data);
        let _ = aac::AudioConfig::parse(&data);
        let _ = aac::LatmConfig::parse(&data);
        let _ = jpeg::JpegHeaders::parse(&data);
        let _ = h264::parameter_sets(&Bytes::from(data.clone()));
        let _ = h265::parameter_sets(&Bytes::from(data));
    }

    /// A bit flipped anywhere in real sets is read or refused.
    #[test]
    fn flipped_bits_never_panic(at in 0usize..2000, which in 0usize..4) {
        let mut set = hex([SPS_1080P, SPS_576I, SPS_265, SPS_265_10_BIT][which]);
        let bits = set.len() * 8;
        set[at % bits / 8] ^= 0x80 >> (at % 8);
        let _ = h264::Sps::parse(&set);
        let _ = h265::Sps::parse(&set);
    }
}
