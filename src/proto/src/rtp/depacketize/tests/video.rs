//! H.264 and H.265.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{super::*, Feed, joined};
use crate::bitstream::tests::{PPS_265, PPS_1080P, SPS_265, SPS_1080P, VPS_265, nal};

/// A first slice (IDR, I) and a first slice (P), with marks to tell them apart.
const IDR: [u8; 4] = [0x65, 0x88, 0x80, 0x11];
const P: [u8; 4] = [0x41, 0x9A, 0x02, 0x22];
/// Slices that are not the first of their picture.
const IDR_2: [u8; 4] = [0x65, 0x24, 0x80, 0x33];
const P_2: [u8; 4] = [0x41, 0x26, 0x80, 0x44];
const SEI: [u8; 4] = [0x06, 0x05, 0x01, 0x80];
const AUD: [u8; 2] = [0x09, 0xF0];

fn sprop() -> String {
    let encode = |text| STANDARD.encode(nal(text));
    format!("{},{}", encode(SPS_1080P), encode(PPS_1080P))
}

fn h264() -> Feed {
    Feed::video(
        "H264",
        &[("packetization-mode", "1"), ("sprop-parameter-sets", &sprop())],
    )
}

fn size(parameters: &CodecParameters) -> (u32, u32) {
    match parameters {
        CodecParameters::Video(v) => (v.width, v.height),
        CodecParameters::Audio(_) => panic!("not video"),
    }
}

#[test]
fn single_stap_and_fragments_make_one_unit() {
    let mut feed = h264();
    assert_eq!(size(feed.depacketizer.parameters().unwrap()), (1920, 1080));
    let (sps, pps) = (nal(SPS_1080P), nal(PPS_1080P));
    let stap = [&[0x78, 0, sps.len() as u8][..], &sps, &[0, pps.len() as u8], &pps].concat();
    feed.push(&stap, false);
    feed.push(&SEI, false);
    feed.push(&[0x7C, 0x85, 0x88, 0x80], false);
    feed.push(&[0x7C, 0x05, 1, 2], false);
    feed.push(&[0x7C, 0x45, 3], true);
    feed.next_time();
    feed.push(&P, true);
    let unit = &feed.units()[0];
    assert_eq!(unit.data, joined(&[&sps, &pps, &SEI, &[0x65, 0x88, 0x80, 1, 2, 3]]));
    assert_eq!(
        (unit.timestamp, unit.key, unit.lost, unit.damaged),
        (1000, true, 0, false)
    );
    assert_eq!(size(unit.parameters.as_ref().unwrap()), (1920, 1080));
    let last = &feed.end()[0];
    assert_eq!((last.timestamp, last.key, &last.parameters), (4600, false, &None));
}

/// moonfire#352.
#[test]
fn marker_on_the_sei_does_not_end_a_unit() {
    let mut feed = h264();
    for _ in 0..40 {
        feed.push(&SEI, true);
        feed.push(&IDR, false);
        feed.push(&IDR_2, true);
        feed.next_time();
    }
    let units = [feed.units(), feed.end()].concat();
    assert_eq!(units.len(), 40);
    for unit in units {
        assert_eq!(unit.data, joined(&[&SEI, &IDR, &IDR_2]));
        assert!(!unit.damaged);
    }
}

#[test]
fn marker_on_each_slice_does_not_split_a_picture() {
    let mut feed = h264();
    for _ in 0..40 {
        feed.push(&IDR, true);
        feed.push(&IDR_2, true);
        feed.next_time();
    }
    let units = [feed.units(), feed.end()].concat();
    assert_eq!(units.len(), 40);
    assert!(units.iter().all(|u| u.data == joined(&[&IDR, &IDR_2]) && !u.damaged));
}

#[test]
fn a_marker_that_was_always_right_ends_a_unit_at_once() {
    let mut feed = h264();
    for i in 0..30 {
        feed.push(if i == 0 { &IDR } else { &P }, true);
        feed.next_time();
    }
    assert_eq!(feed.units().len(), 30);
    // Should it lie after all, nothing is lost, and it is not believed again.
    feed.push(&P, true);
    feed.push(&P_2, true);
    feed.next_time();
    feed.push(&P, true);
    feed.push(&P_2, true);
    feed.next_time();
    let units = [feed.units(), feed.end()].concat();
    let got: Vec<_> = units.iter().map(|u| (u.data.to_vec(), u.damaged)).collect();
    assert_eq!(
        got,
        [
            (joined(&[&P]), false),
            (joined(&[&P_2]), true),
            (joined(&[&P, &P_2]), false)
        ]
    );
}

#[test]
fn without_any_marker_units_end_at_the_next_time_stamp() {
    let mut feed = h264();
    for _ in 0..5 {
        feed.push(&P, false);
        feed.push(&P_2, false);
        feed.next_time();
    }
    assert_eq!(feed.units().len(), 4);
    assert_eq!(feed.end().len(), 1);
}

#[test]
fn two_pictures_with_one_time_stamp_are_two_units() {
    let mut feed = h264();
    let (sps, pps) = (nal(SPS_1080P), nal(PPS_1080P));
    for payload in [&P[..], &P_2, &AUD, &sps, &pps, &IDR, &IDR_2] {
        feed.push(payload, false);
    }
    let units = [feed.units(), feed.end()].concat();
    let data: Vec<_> = units.iter().map(|u| u.data.to_vec()).collect();
    assert_eq!(data, [joined(&[&P, &P_2]), joined(&[&AUD, &sps, &pps, &IDR, &IDR_2])]);
}

#[test]
fn parameter_sets_between_two_slices_stay_in_the_picture() {
    let mut feed = h264();
    let pps = nal(PPS_1080P);
    feed.push(&P, false);
    feed.push(&pps, false);
    feed.push(&P_2, true);
    assert_eq!(feed.end()[0].data, joined(&[&P, &pps, &P_2]));
}

#[test]
fn parameter_sets_with_a_time_stamp_of_their_own_join_the_next_picture() {
    let mut feed = Feed::video("H264", &[]);
    assert_eq!(feed.depacketizer.parameters(), None);
    let (sps, pps) = (nal(SPS_1080P), nal(PPS_1080P));
    feed.push(&sps, true);
    feed.next_time();
    feed.push(&pps, true);
    feed.next_time();
    feed.push(&IDR, true);
    let units = feed.end();
    assert_eq!(units.len(), 1);
    assert_eq!(units[0].data, joined(&[&sps, &pps, &IDR]));
    assert_eq!(size(units[0].parameters.as_ref().unwrap()), (1920, 1080));
}

/// retina#68.
#[test]
fn annex_b_inside_a_payload_is_taken_apart() {
    let (sps, pps) = (nal(SPS_1080P), nal(PPS_1080P));
    let stream = [&sps[..], &[0, 0, 0, 1], &pps, &[0, 0, 1], &IDR].concat();
    let want = joined(&[&sps, &pps, &IDR]);
    let mut feed = Feed::video("H264", &[]);
    feed.push(&stream, true);
    assert_eq!(feed.end()[0].data, want);
    // With a start code in front.
    let mut feed = Feed::video("H264", &[]);
    feed.push(&[&[0, 0, 0, 1][..], &stream].concat(), true);
    assert_eq!(feed.end()[0].data, want);
    // In fragments, the start code across two of them.
    let mut feed = Feed::video("H264", &[]);
    let cut = sps.len() + 2;
    feed.push(&[&[0x7C, 0x87][..], &stream[1..cut]].concat(), false);
    feed.push(&[&[0x7C, 0x47][..], &stream[cut..]].concat(), true);
    let unit = &feed.end()[0];
    assert_eq!(unit.data, want);
    assert!(unit.key && unit.parameters.is_some());
}

/// retina#102.
#[test]
fn zeros_behind_the_sps_are_not_another_sps() {
    let mut feed = h264();
    for i in 0..4 {
        let mut sps = nal(SPS_1080P);
        sps.resize(sps.len() + i, 0);
        feed.push(&sps, false);
        feed.push(&nal(PPS_1080P), false);
        feed.push(&IDR, true);
        feed.next_time();
    }
    let units = [feed.units(), feed.end()].concat();
    let changes: Vec<_> = units.iter().map(|u| u.parameters.is_some()).collect();
    assert_eq!(changes, [true, false, false, false]);
    // What was received stays in place.
    assert_eq!(units[1].data[3], nal(SPS_1080P).len() as u8 + 1);
}

#[test]
fn a_real_change_of_the_sps_is_told_with_its_unit() {
    let mut feed = h264();
    let mut other = nal(SPS_1080P);
    other[3] = 0x29;
    for sps in [nal(SPS_1080P), other.clone(), other.clone()] {
        feed.push(&sps, false);
        feed.push(&nal(PPS_1080P), false);
        feed.push(&IDR, true);
        feed.next_time();
    }
    let units = [feed.units(), feed.end()].concat();
    let changes: Vec<_> = units.iter().map(|u| u.parameters.is_some()).collect();
    assert_eq!(changes, [true, true, false]);
    let Some(CodecParameters::Video(video)) = feed.depacketizer.parameters().map(|p| &**p) else {
        panic!()
    };
    assert_eq!(video.extra[3], 0x29);
}

#[test]
fn sprop_with_garbage_is_read_as_far_as_it_goes() {
    let encode = |text: &str| STANDARD.encode(nal(text));
    let cases = [
        format!("{} , {} ,", encode(SPS_1080P), encode(PPS_1080P)),
        format!(
            "!!!,{},{},Zm9v",
            encode(SPS_1080P),
            encode(PPS_1080P).trim_end_matches('=')
        ),
        STANDARD.encode([&[0, 0, 0, 1][..], &nal(SPS_1080P), &[0, 0, 0, 1], &nal(PPS_1080P)].concat()),
    ];
    for value in cases {
        let feed = Feed::video("H264", &[("sprop-parameter-sets", &value)]);
        assert_eq!(size(feed.depacketizer.parameters().expect(&value)), (1920, 1080));
    }
    for value in ["", ",,", "Z0I=", "AAAAAA=="] {
        assert_eq!(
            Feed::video("H264", &[("sprop-parameter-sets", value)])
                .depacketizer
                .parameters(),
            None
        );
    }
}

#[test]
fn a_nal_type_that_flips_inside_fragments_is_the_first_ones() {
    let mut feed = h264();
    feed.push(&[0x7C, 0x85, 0x88, 0x80], false);
    feed.push(&[0x7C, 0x01, 1], false);
    feed.push(&[0x5C, 0x41, 2], true);
    assert_eq!(feed.end()[0].data, joined(&[&[0x65, 0x88, 0x80, 1, 2]]));
}

#[test]
fn a_missing_end_bit_is_no_damage_if_the_marker_says_the_end() {
    let mut feed = h264();
    feed.push(&[0x7C, 0x85, 0x88, 0x80], false);
    feed.push(&[0x7C, 0x05, 1], true);
    feed.next_time();
    feed.push(&[0x7C, 0x81, 0x9A, 0x80], false);
    feed.push(&[0x7C, 0x01, 2], false);
    feed.next_time();
    feed.push(&P, true);
    let units = [feed.units(), feed.end()].concat();
    assert_eq!(units[0].data, joined(&[&[0x65, 0x88, 0x80, 1]]));
    assert!(!units[0].damaged);
    // Without the marker it may be truncated: not delivered.
    assert_eq!(units.len(), 2);
    assert_eq!(units[1].data, joined(&[&P]));
}

#[test]
fn interleaving_is_an_error_and_the_stream_goes_on() {
    let mut feed = h264();
    for kind in [25, 26, 27, 29] {
        let error = feed.try_push(&[0x60 | kind, 0, 0, 0, 1], false, 0).unwrap_err();
        assert!(error.to_string().contains("interleaving"), "{error}");
    }
    assert!(feed.try_push(&[0x78, 0, 9, 1], false, 0).is_err());
    feed.next_time();
    feed.push(&P, true);
    let units = feed.end();
    assert_eq!((units.len(), units[0].damaged), (1, false));
}

#[test]
fn a_recovery_point_makes_an_intra_picture_a_key() {
    let mut feed = h264();
    let recovery = [0x06, 0x06, 0x01, 0xC4, 0x80];
    let intra = [0x41, 0x88, 0x80];
    for nals in [&[&recovery[..], &intra][..], &[&recovery, &P], &[&intra]] {
        for nal in nals {
            feed.push(nal, false);
        }
        feed.next_time();
    }
    let keys: Vec<_> = [feed.units(), feed.end()].concat().iter().map(|u| u.key).collect();
    assert_eq!(keys, [true, false, false]);
}

#[test]
fn both_fields_of_a_frame_stay_in_one_unit() {
    // x264, 720x576 interlaced; 4 bits of frame_num.
    let sps = nal("6764001eacd940b424d8088000000300800000190f8a14cb");
    let field = |number: u8, bottom: u8| [0x41, 0b1001_1010 | number >> 3, number << 5 | 1 << 4 | bottom << 3 | 4];
    let mut feed = Feed::video("H264", &[]);
    feed.push(&sps, false);
    for picture in [field(1, 0), field(1, 1), field(2, 0), field(2, 1)] {
        feed.push(&picture, false);
    }
    let units = [feed.units(), feed.end()].concat();
    let data: Vec<_> = units.iter().map(|u| u.data.to_vec()).collect();
    assert_eq!(
        data,
        [
            joined(&[&sps, &field(1, 0), &field(1, 1)]),
            joined(&[&field(2, 0), &field(2, 1)])
        ]
    );
}

#[test]
fn a_unit_over_the_limit_is_dropped_and_the_next_is_whole() {
    let mut feed = h264();
    let part = vec![0x55; 60_000];
    feed.push(&[&[0x7C, 0x85, 0x88][..], &part].concat(), false);
    let mut errors = 0;
    for _ in 0..UNIT_BYTES_MAX / part.len() + 10 {
        errors += usize::from(feed.try_push(&[&[0x7C, 0x05][..], &part].concat(), false, 0).is_err());
    }
    assert_eq!(errors, 1);
    feed.next_time();
    feed.push(&P, true);
    let units = feed.end();
    assert_eq!(
        units.iter().map(|u| u.data.to_vec()).collect::<Vec<_>>(),
        [joined(&[&P])]
    );
}

#[test]
fn a_delimiter_behind_a_loss_shows_that_the_unit_is_whole() {
    let mut feed = h264();
    feed.push(&P, true);
    feed.next_time();
    feed.try_push(&AUD, false, 3).unwrap();
    feed.push(&P, true);
    feed.next_time();
    feed.try_push(&P, true, 2).unwrap();
    let units = [feed.units(), feed.end()].concat();
    let got: Vec<_> = units.iter().map(|u| (u.lost, u.damaged)).collect();
    assert_eq!(got, [(0, false), (3, false), (2, true)]);
}

fn h265() -> Feed {
    let encode = |text: &str| STANDARD.encode(nal(text));
    Feed::video(
        "H265",
        &[
            ("sprop-vps", &encode(VPS_265)),
            ("sprop-sps", &encode(SPS_265)),
            ("sprop-pps", &encode(PPS_265)),
        ],
    )
}

#[test]
fn h265_single_aggregated_and_fragmented() {
    let mut feed = h265();
    assert_eq!(size(feed.depacketizer.parameters().unwrap()), (1920, 1080));
    let (vps, sps, pps) = (nal(VPS_265), nal(SPS_265), nal(PPS_265));
    let mut aggregate = vec![0x60, 0x01];
    for set in [&vps, &sps, &pps] {
        aggregate.extend((set.len() as u16).to_be_bytes());
        aggregate.extend(set);
    }
    feed.push(&aggregate, false);
    feed.push(&[0x62, 0x01, 0x93, 0x80, 1], false);
    feed.push(&[0x62, 0x01, 0x13, 2], false);
    feed.push(&[0x62, 0x01, 0x53, 3], false);
    feed.push(&[0x26, 0x01, 0x20, 9], true);
    feed.next_time();
    feed.push(&[0x02, 0x01, 0x80, 7], true);
    let units = [feed.units(), feed.end()].concat();
    let idr = [0x26, 0x01, 0x80, 1, 2, 3];
    assert_eq!(units[0].data, joined(&[&vps, &sps, &pps, &idr, &[0x26, 0x01, 0x20, 9]]));
    assert!(units[0].key && units[0].parameters.is_some() && !units[0].damaged);
    assert!(!units[1].key && units[1].parameters.is_none());
    let error = feed.try_push(&[0x64, 0x01, 0], false, 0).unwrap_err();
    assert!(error.to_string().contains("PACI"), "{error}");
}

#[test]
fn h265_decoding_order_numbers_are_taken_out() {
    let mut feed = Feed::video("H265", &[("sprop-max-don-diff", "2")]);
    let (vps, sps, pps) = (nal(VPS_265), nal(SPS_265), nal(PPS_265));
    let mut aggregate = vec![0x60, 0x01, 0, 1];
    for (i, set) in [&vps, &sps, &pps].into_iter().enumerate() {
        if i > 0 {
            aggregate.push(0);
        }
        aggregate.extend((set.len() as u16).to_be_bytes());
        aggregate.extend(set);
    }
    feed.push(&aggregate, false);
    feed.push(&[0x62, 0x01, 0x93, 0, 4, 0x80, 1], false);
    feed.push(&[0x62, 0x01, 0x53, 2], false);
    feed.push(&[0x28, 0x01, 0, 5, 0x20, 3], true);
    let units = feed.end();
    assert_eq!(
        units[0].data,
        joined(&[&vps, &sps, &pps, &[0x26, 1, 0x80, 1, 2], &[0x28, 1, 0x20, 3]])
    );
    assert_eq!(size(units[0].parameters.as_ref().unwrap()), (1920, 1080));
}
