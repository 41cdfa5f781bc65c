//! Motion JPEG and AV1.

use super::{super::*, Feed};
use crate::bitstream::{
    jpeg::{JpegHeaders, quant_tables},
    tests::{AV1_SEQUENCE, nal},
};

fn jpeg_packet(offset: u8, kind: u8, q: u8, rest: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, offset, kind, q, 80, 60][..], rest].concat()
}

#[test]
fn jpeg_gets_the_headers_that_rtp_leaves_out() {
    let mut feed = Feed::video("JPEG", &[]);
    feed.push(&jpeg_packet(0, 1, 60, &[1, 2, 3]), false);
    feed.push(&jpeg_packet(3, 1, 60, &[4]), true);
    let unit = &feed.units()[0];
    let (headers, scan) = JpegHeaders::parse(&unit.data).unwrap();
    assert_eq!(
        (headers.width, headers.height, headers.half_height_chroma),
        (640, 480, true)
    );
    assert_eq!(headers.tables, quant_tables(60));
    assert_eq!((&unit.data[scan], unit.key), (&[1, 2, 3, 4][..], true));
}

#[test]
fn jpeg_with_restart_markers_and_tables_in_band() {
    let mut feed = Feed::video("JPEG", &[]);
    let tables = [[3; 64], [5; 64]].concat();
    let head = [&[0, 9, 0xFF, 0xFF, 0, 0, 0, 128][..], &tables, &[1, 2, 0xFF, 0xD9]].concat();
    feed.push(&jpeg_packet(0, 64, 200, &head), true);
    feed.next_time();
    // The same Q again, its tables left out.
    feed.push(&jpeg_packet(0, 64, 200, &[0, 9, 0xFF, 0xFF, 0, 0, 0, 0, 7]), true);
    let units = feed.units();
    for unit in &units {
        let (headers, _) = JpegHeaders::parse(&unit.data).unwrap();
        assert_eq!((headers.restart_interval, headers.half_height_chroma), (9, false));
        assert_eq!(headers.tables, [[3; 64], [5; 64]]);
        assert!(!unit.data.ends_with(&[0xFF, 0xD9, 0xFF, 0xD9]));
    }
    assert_eq!(units.len(), 2);
}

#[test]
fn jpeg_with_a_packet_missing_is_not_delivered() {
    let mut feed = Feed::video("JPEG", &[]);
    feed.push(&jpeg_packet(0, 1, 60, &[1, 2, 3]), false);
    feed.try_push(&jpeg_packet(9, 1, 60, &[4]), true, 2).unwrap();
    assert_eq!(feed.units(), []);
    feed.next_time();
    feed.push(&jpeg_packet(0, 1, 60, &[9]), true);
    assert_eq!(feed.units()[0].lost, 2);
    // Larger than the format can say: told, not guessed.
    let error = feed.try_push(&[0, 0, 0, 0, 1, 60, 0, 60, 1], true, 0).unwrap_err();
    assert!(error.to_string().contains("2040"), "{error}");
}

/// A key frame's and another frame's OBU, without size fields.
const KEY: [u8; 4] = [0x30, 0x10, 1, 2];
const INTER: [u8; 4] = [0x30, 0x30, 3, 4];

fn sequence() -> Vec<u8> {
    let mut obu = nal(AV1_SEQUENCE);
    obu[0] &= !2;
    obu.remove(1);
    obu
}

fn sized(obu: &[u8]) -> Vec<u8> {
    [&[obu[0] | 2, obu.len() as u8 - 1][..], &obu[1..]].concat()
}

#[test]
fn av1_elements_and_fragments_become_obus_with_sizes() {
    let mut feed = Feed::video("AV1", &[]);
    let sequence = sequence();
    // Two elements, the first with its length; the second goes on in the next packet. A delimiter is left out.
    let first = [&[0x68, 2, 0x10, 0, sequence.len() as u8][..], &sequence, &KEY[..2]].concat();
    let mut first = first;
    first[0] = 0x70;
    feed.push(&first, false);
    feed.push(&[&[0x90][..], &KEY[2..]].concat(), true);
    feed.next_time();
    // No count: every element has its length.
    feed.push(&[&[0, 4][..], &INTER].concat(), true);
    let units = feed.units();
    assert_eq!(units[0].data, [sized(&sequence), sized(&KEY)].concat());
    assert_eq!((units[0].key, units[0].damaged), (true, false));
    let Some(CodecParameters::Video(video)) = units[0].parameters.as_deref() else {
        panic!()
    };
    assert_eq!((video.width, video.height), (1280, 720));
    assert_eq!((units[1].key, &units[1].data[..]), (false, &sized(&INTER)[..]));
}

#[test]
fn av1_loss_leaves_only_whole_obus() {
    let mut feed = Feed::video("AV1", &[]);
    feed.push(&[&[0x10][..], &INTER].concat(), false);
    feed.push(&[&[0x50][..], &INTER[..2]].concat(), false);
    feed.try_push(&[&[0x90][..], &INTER[3..]].concat(), true, 1).unwrap();
    let unit = &feed.units()[0];
    assert_eq!((&unit.data[..], unit.lost, unit.damaged), (&sized(&INTER)[..], 1, true));
    feed.next_time();
    assert!(feed.try_push(&[0x90, 1], false, 0).is_err());
    assert!(feed.try_push(&[0x20, 9, 1], false, 0).is_err());
}
