//! Entry points for fuzzers: any bytes become a packet stream, and what comes out of it must keep the promises of the API.
//!
//! Input: one byte of options, then packets: a byte of flags (1: marker, 2: next time stamp, 4: packets lost before it), a
//! 16-bit big-endian length, the payload. A length past the end takes what there is.

use bytes::Bytes;
use corenvr_media::{AudioCodec, CodecParameters, VideoCodec};

use super::{
    Packet,
    depacketize::{AccessUnit, Depacketizer, UNIT_BYTES_MAX},
    packetize::{Packetizer, sdp_format},
};
use crate::{
    bitstream::{av1::Obu, nal::split_lengths},
    format::{MediaFormat, MediaKind},
};

fn format(kind: MediaKind, encoding: &str, clock_rate: u32, parameters: &[(&str, &str)]) -> MediaFormat {
    MediaFormat {
        kind,
        payload_type: 96,
        encoding: encoding.to_owned(),
        clock_rate,
        channels: 1,
        parameters: parameters
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    }
}

/// Any codec: the first byte chooses.
pub fn depacketize(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else {
        return;
    };
    match choice % 7 {
        0 => h264(rest),
        1 => h265(rest),
        2 => aac(rest),
        3 => latm(rest),
        4 => jpeg(rest),
        5 => av1(rest),
        _ => sound(rest),
    }
}

/// H.264.
pub fn h264(data: &[u8]) {
    run(&format(MediaKind::Video, "H264", 90_000, &[]), data);
}

/// H.265; an odd first byte: with decoding order numbers.
pub fn h265(data: &[u8]) {
    let order_numbers = [("sprop-max-don-diff", "1")];
    let odd = data.first().is_some_and(|b| b % 2 == 1);
    let parameters = if odd { &order_numbers[..] } else { &[] };
    run(&format(MediaKind::Video, "H265", 90_000, parameters), data);
}

/// AAC in RFC 3640; the first byte chooses the mode.
pub fn aac(data: &[u8]) {
    let mode = if data.first().is_some_and(|b| b % 2 == 1) {
        "AAC-lbr"
    } else {
        "AAC-hbr"
    };
    run(
        &format(
            MediaKind::Audio,
            "MPEG4-GENERIC",
            16_000,
            &[("mode", mode), ("config", "1408")],
        ),
        data,
    );
}

/// AAC in LATM; the first byte chooses where the configuration is.
pub fn latm(data: &[u8]) {
    let out_of_band = [("cpresent", "0"), ("config", "40002810")];
    let odd = data.first().is_some_and(|b| b % 2 == 1);
    let parameters = if odd { &out_of_band[..] } else { &[] };
    run(&format(MediaKind::Audio, "MP4A-LATM", 16_000, parameters), data);
}

/// Motion JPEG.
pub fn jpeg(data: &[u8]) {
    run(&format(MediaKind::Video, "JPEG", 90_000, &[]), data);
}

/// AV1.
pub fn av1(data: &[u8]) {
    run(&format(MediaKind::Video, "AV1", 90_000, &[]), data);
}

/// The formats with one frame a packet; the first byte chooses.
pub fn sound(data: &[u8]) {
    let names = ["PCMU", "PCMA", "L16", "OPUS", "G726-32"];
    let name = names[usize::from(data.first().copied().unwrap_or(0)) % names.len()];
    run(&format(MediaKind::Audio, name, 8000, &[]), data);
}

fn run(format: &MediaFormat, data: &[u8]) {
    let Ok(mut depacketizer) = Depacketizer::new(format) else {
        return;
    };
    let mut rest = data.get(1..).unwrap_or(&[]);
    let (mut sequence, mut timestamp, mut lost_in, mut lost_out) = (0u16, 0u32, 0u64, 0u64);
    let mut check = |depacketizer: &mut Depacketizer| {
        while let Some(unit) = depacketizer.poll() {
            lost_out += u64::from(unit.lost);
            check_unit(format, &unit, depacketizer.parameters().map(|p| &**p));
        }
    };
    while let Some((&[flags, l0, l1], tail)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_be_bytes([l0, l1])).min(tail.len());
        let (payload, tail) = tail.split_at(len);
        rest = tail;
        timestamp = timestamp.wrapping_add(if flags & 2 != 0 { 3600 } else { 0 });
        let lost = if flags & 4 != 0 { u32::from(flags >> 4) + 1 } else { 0 };
        lost_in += u64::from(lost);
        let packet = Packet {
            payload_type: 96,
            marker: flags & 1 != 0,
            sequence,
            timestamp,
            ssrc: 1,
            extension: None,
            payload: Bytes::copy_from_slice(payload),
        };
        sequence = sequence.wrapping_add(1);
        let _ = depacketizer.push(&packet, lost);
        check(&mut depacketizer);
    }
    depacketizer.flush();
    check(&mut depacketizer);
    assert!(lost_out <= lost_in, "{lost_out} packets told lost of {lost_in}");
}

fn check_unit(format: &MediaFormat, unit: &AccessUnit, parameters: Option<&CodecParameters>) {
    assert!(!unit.data.is_empty(), "an empty unit");
    assert!(unit.data.len() <= UNIT_BYTES_MAX + 16, "a unit over the limit");
    if let Some(new) = unit.parameters.as_deref() {
        let words = sdp_format(new, 96);
        assert!(
            Depacketizer::new(&words).is_ok(),
            "{words} of our own is not understood"
        );
    }
    match format.encoding.as_str() {
        "H264" => check_nals(unit, |header| matches!(header & 0x1F, 1..=23)),
        "H265" => check_nals(unit, |header| header >> 1 & 0x3F < 48),
        "AV1" => {
            let mut rest = &unit.data[..];
            while !rest.is_empty() {
                let (_, tail) = Obu::split(rest).expect("every OBU delivered is whole");
                rest = tail;
            }
        }
        "JPEG" => assert!(unit.data.starts_with(&[0xFF, 0xD8]) && unit.data.ends_with(&[0xFF, 0xD9])),
        _ => {}
    }
    if let Some(parameters) = parameters {
        round_trip(unit, parameters);
    }
}

fn check_nals(unit: &AccessUnit, valid: impl Fn(u8) -> bool) {
    for nal in split_lengths(&unit.data) {
        let nal = nal.expect("every NAL unit delivered is whole");
        assert!(valid(nal[0]), "a NAL unit of type {:#x}", nal[0]);
    }
}

/// What came out, sent and received again, is the same bytes.
fn round_trip(unit: &AccessUnit, parameters: &CodecParameters) {
    let mut packetizer = Packetizer::new(parameters, 96, 1, 0, 1400);
    let mut depacketizer = Depacketizer::new(&sdp_format(parameters, 96)).expect("our own words are understood");
    let mut wires = Vec::new();
    let sent = packetizer.packetize(&unit.data, unit.timestamp, None, &mut |head, payload| {
        wires.push(Bytes::from([head, payload].concat()));
    });
    if sent.is_err() {
        let CodecParameters::Video(video) = parameters else {
            return;
        };
        assert_eq!(
            video.codec,
            VideoCodec::Mjpeg,
            "a unit received cannot be sent: {sent:?}"
        );
        return;
    }
    let mut received = Vec::new();
    for wire in wires {
        assert!(wire.len() <= 1400, "a packet over the MTU");
        let packet = Packet::parse(wire).expect("our own packet is one");
        depacketizer.push(&packet, 0).expect("our own packets are understood");
        received.extend(std::iter::from_fn(|| depacketizer.poll()));
    }
    depacketizer.flush();
    received.extend(std::iter::from_fn(|| depacketizer.poll()));
    if matches!(parameters, CodecParameters::Audio(a) if a.codec == AudioCodec::Opus) {
        assert_eq!(received.len(), 1);
    }
    let joined: Vec<u8> = received.iter().flat_map(|u| u.data.iter().copied()).collect();
    assert!(joined == unit.data, "sending and receiving changed a unit");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Packets with payload heads that lead deep into each format, and random rests.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let head = prop_oneof![
            Just(vec![]),
            any::<[u8; 3]>().prop_map(Vec::from),
            prop::sample::select(vec![
                vec![0x67, 0x42, 0xC0, 0x28, 0xDA, 0x01, 0xE0, 0x08, 0x9F, 0x97, 0x01],
                vec![0x68, 0xCE, 0x0F, 0xC8],
                vec![0x65, 0x88],
                vec![0x41, 0x9A],
                vec![0x41, 0x04],
                vec![0x06, 0x06, 0x01, 0xC4],
                vec![0x09, 0x10],
                vec![0x78, 0, 2, 0x65, 0x88, 0, 3, 0x41, 0x9A, 1],
                vec![0x7C, 0x85, 0x88],
                vec![0x7C, 0x05],
                vec![0x7C, 0x45],
                vec![0x62, 0x01, 0x93, 0x80],
                vec![0x62, 0x01, 0x13],
                vec![0x62, 0x01, 0x53],
                vec![0x60, 0x01, 0, 3, 0x26, 1, 0x80],
                vec![0x26, 0x01, 0x80],
                vec![0x02, 0x01, 0x80],
                vec![
                    0x10, 0x0A, 0x0B, 0, 0, 0, 0x2D, 0x4C, 0xFF, 0xB3, 0xCD, 0xAF, 0x90, 0x04, 0x32
                ],
                vec![0x10, 0x30, 0x10],
                vec![0x50, 0x30, 0x10],
                vec![0x90],
                vec![0, 0x10, 0, 0x20],
                vec![0, 0x20, 0, 0x20, 0, 0x28],
                vec![0, 0, 0, 0, 1, 50, 8, 6],
                vec![0x20, 0x00, 0x12, 0x00, 0x08],
            ]),
        ];
        let packet = (any::<u8>(), head, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(flags, head, rest)| {
            // Losses are the exception.
            let flags = if flags & 0xC0 == 0xC0 { flags } else { flags & !4 };
            let len = (head.len() + rest.len()) as u16;
            let mut wire = vec![flags];
            wire.extend(len.to_be_bytes());
            wire.extend(head);
            wire.extend(rest);
            wire
        });
        (any::<u8>(), prop::collection::vec(packet, 0..40))
            .prop_map(|(options, packets)| std::iter::once(options).chain(packets.concat()).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]
        #[test]
        fn promises_hold_for_any_packets(data in stream(), choice in 0u8..7) {
            super::depacketize(&[&[choice], &data[..]].concat());
        }

        #[test]
        fn promises_hold_for_any_bytes(data: Vec<u8>) {
            super::depacketize(&data);
        }
    }
}
