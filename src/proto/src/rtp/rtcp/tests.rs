//! RTCP packets, read and written, and the receiver statistics.

use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::rtp::Packet;

const BLOCK: ReportBlock = ReportBlock {
    ssrc: 7,
    fraction_lost: 200,
    lost: -5,
    highest_sequence: 0x0001_0002,
    jitter: 33,
    last_sender_report: 0x1234_5678,
    delay_since: 65_536,
};

#[test]
fn reports_are_read_as_written() {
    let mut wire = Vec::new();
    let info = SenderInfo {
        ntp: 0x0102_0304_0506_0708,
        rtp: 9,
        packets: 10,
        octets: 11,
    };
    write_sender_report(&mut wire, 1, &info, &[BLOCK], "cam@x");
    write_bye(&mut wire, 1, "done");
    write_receiver_report(&mut wire, 2, &[BLOCK, BLOCK], "");
    write_bye(&mut wire, 2, "");
    assert_eq!(wire.len() % 4, 0);
    let got: Vec<_> = parse(&wire).collect();
    assert_eq!(got.len(), 6);
    assert_eq!(
        got[0],
        RtcpPacket::SenderReport {
            ssrc: 1,
            info,
            blocks: [BLOCK].into_iter().collect()
        }
    );
    assert_eq!(
        got[1],
        RtcpPacket::SourceDescription([(1, "cam@x".to_owned())].into_iter().collect())
    );
    assert_eq!(got[2], RtcpPacket::Bye([1].into_iter().collect()));
    assert!(matches!(&got[3], RtcpPacket::ReceiverReport { ssrc: 2, blocks } if blocks[..] == [BLOCK; 2]));
    assert_eq!(got[5], RtcpPacket::Bye([2].into_iter().collect()));
}

#[test]
fn unknown_packets_are_skipped_and_cut_ones_end_it() {
    let mut wire = vec![0x81, 205, 0, 1, 0, 0, 0, 1];
    write_bye(&mut wire, 3, "");
    wire.extend([0x80, 201, 0, 9, 1]);
    assert_eq!(
        parse(&wire).collect::<Vec<_>>(),
        [RtcpPacket::Bye([3].into_iter().collect())]
    );
}

fn packet(sequence: u16, timestamp: u32) -> Packet {
    Packet {
        payload_type: 96,
        marker: false,
        sequence,
        timestamp,
        ssrc: 7,
        extension: None,
        payload: Bytes::new(),
    }
}

#[test]
fn loss_is_counted_as_rfc_3550_a3_does() {
    let now = Instant::now();
    let mut statistics = ReceiverStatistics::new(90_000);
    assert_eq!(statistics.report(now), None);
    for sequence in [65_534, 65_535, 1, 2] {
        statistics.on_packet(now, &packet(sequence, 0));
    }
    let block = statistics.report(now).unwrap();
    assert_eq!((block.lost, block.fraction_lost), (1, (256 / 5) as u8));
    assert_eq!(block.highest_sequence, 65_536 + 2);
    statistics.on_packet(now, &packet(3, 0));
    statistics.on_packet(now, &packet(3, 0));
    let block = statistics.report(now).unwrap();
    assert_eq!((block.lost, block.fraction_lost), (0, 0));
    // A jump starts anew.
    statistics.on_packet(now, &packet(30_000, 0));
    let block = statistics.report(now).unwrap();
    assert_eq!((block.lost, block.highest_sequence), (0, 30_000));
}

#[test]
fn jitter_follows_the_arrival_times() {
    let start = Instant::now();
    let mut even = ReceiverStatistics::new(90_000);
    let mut uneven = ReceiverStatistics::new(90_000);
    for i in 0..200u16 {
        // Time stamps wrap on the way.
        let stamp = (u32::MAX - 90_000).wrapping_add(u32::from(i) * 3600);
        let at = start + Duration::from_millis(40) * u32::from(i);
        even.on_packet(at, &packet(i, stamp.wrapping_add(90_000 - 3600)));
        uneven.on_packet(at + Duration::from_millis(10) * u32::from(i % 2), &packet(i, stamp));
    }
    assert_eq!(even.report(start).unwrap().jitter, 0);
    // 10 ms between any two: 900 ticks, approached by sixteenths.
    let jitter = uneven.report(start).unwrap().jitter;
    assert!((880..=900).contains(&jitter), "{jitter}");
}

#[test]
fn the_last_sender_report_is_told_with_its_age() {
    let now = Instant::now();
    let mut statistics = ReceiverStatistics::new(8000);
    statistics.on_packet(now, &packet(0, 0));
    let info = SenderInfo {
        ntp: 0x1111_2222_3333_4444,
        rtp: 0,
        packets: 0,
        octets: 0,
    };
    statistics.on_sender_report(now, &info);
    let block = statistics.report(now + Duration::from_millis(1500)).unwrap();
    assert_eq!((block.last_sender_report, block.delay_since), (0x2222_3333, 98_304));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>, kind in 200u8..204, count in 0u8..32) {
        let _ = parse(&bytes).count();
        let words = bytes.len() / 4;
        let mut wire = vec![0x80 | count, kind, (words >> 8) as u8, words as u8];
        wire.extend(&bytes);
        let _ = parse(&wire).count();
    }

    #[test]
    fn any_names_round_trip(cname in "[a-z@.]{0,255}", reason in "[a-z ]{0,300}") {
        let mut wire = Vec::new();
        write_receiver_report(&mut wire, 1, &[], &cname);
        write_bye(&mut wire, 1, &reason);
        let got: Vec<_> = parse(&wire).collect();
        prop_assert_eq!(got.len(), 3);
        prop_assert_eq!(&got[1], &RtcpPacket::SourceDescription([(1, cname)].into_iter().collect()));
    }
}
