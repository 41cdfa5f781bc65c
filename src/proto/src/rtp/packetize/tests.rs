//! Sending and receiving again: the same units at every size and MTU, and the right ones at every loss.

use std::time::Instant;

use bytes::{BufMut, BytesMut};
use corenvr_media::{AudioParameters, VideoParameters};
use proptest::prelude::*;

use super::*;
use crate::{
    bitstream::{
        av1, h264, h265,
        jpeg::{JpegHeaders, quant_tables},
        opus,
        tests::{AV1_SEQUENCE, PPS_265, PPS_1080P, SPS_265, SPS_1080P, VPS_265, nal},
    },
    format::MediaKind,
    rtp::{
        Packet,
        depacketize::{AccessUnit, Depacketizer},
    },
};

fn h264_parameters() -> CodecParameters {
    CodecParameters::Video(h264::parameters(&[&nal(SPS_1080P)], &[&nal(PPS_1080P)]).unwrap())
}

fn h265_parameters() -> CodecParameters {
    CodecParameters::Video(h265::parameters(&[&nal(VPS_265)], &[&nal(SPS_265)], &[&nal(PPS_265)]).unwrap())
}

fn av1_parameters() -> CodecParameters {
    let obu = nal(AV1_SEQUENCE);
    CodecParameters::Video(av1::parameters(&av1::Obu::split(&obu).unwrap().0).unwrap())
}

fn jpeg_parameters() -> CodecParameters {
    CodecParameters::Video(VideoParameters {
        codec: VideoCodec::Mjpeg,
        extra: Bytes::new(),
        width: 640,
        height: 480,
        frame_rate: None,
    })
}

fn audio_parameters(codec: AudioCodec, sample_rate: u32, channels: u8) -> CodecParameters {
    let extra = match codec {
        AudioCodec::Aac => crate::bitstream::aac::low_complexity_config(sample_rate, channels),
        AudioCodec::Opus => opus::head(channels),
        _ => Bytes::new(),
    };
    CodecParameters::Audio(AudioParameters {
        codec,
        extra,
        sample_rate,
        channels,
    })
}

/// The packets of units 3600 ticks apart.
fn packets(parameters: &CodecParameters, units: &[Bytes], mtu: usize) -> Vec<Packet> {
    let mut packetizer = Packetizer::new(parameters, 96, 7, 65_530, mtu);
    let mut wires = Vec::new();
    for (i, unit) in units.iter().enumerate() {
        let extension = HeaderExtension {
            profile: 0xABAC,
            data: &[i as u8; 12],
        };
        let extension = (i % 2 == 0).then_some(extension);
        packetizer
            .packetize(unit, i as u32 * 3600, extension, &mut |head, payload| {
                wires.push(Bytes::from([head, payload].concat()));
            })
            .unwrap();
    }
    assert!(wires.iter().all(|w| w.len() <= mtu.max(MTU_MIN)));
    let packets: Vec<Packet> = wires.into_iter().map(|w| Packet::parse(w).unwrap()).collect();
    for (i, packet) in packets.iter().enumerate() {
        assert_eq!(packet.sequence, 65_530u16.wrapping_add(i as u16));
    }
    assert_eq!(packetizer.next_sequence(), 65_530u16.wrapping_add(packets.len() as u16));
    packets
}

/// What comes out if the packets `lost` never arrive.
fn received(parameters: &CodecParameters, packets: &[Packet], lost: &[usize]) -> Vec<AccessUnit> {
    let mut depacketizer = Depacketizer::new(&sdp_format(parameters, 96)).unwrap();
    let mut units = Vec::new();
    let mut lost_before = 0;
    for (i, packet) in packets.iter().enumerate() {
        if lost.contains(&i) {
            lost_before += 1;
            continue;
        }
        depacketizer.push(packet, std::mem::take(&mut lost_before)).unwrap();
        units.extend(std::iter::from_fn(|| depacketizer.poll()));
    }
    depacketizer.flush();
    units.extend(std::iter::from_fn(|| depacketizer.poll()));
    units
}

fn assert_same(parameters: &CodecParameters, units: &[Bytes], mtu: usize) {
    let got = received(parameters, &packets(parameters, units, mtu), &[]);
    assert_eq!(got.len(), units.len());
    for (i, (got, want)) in got.iter().zip(units).enumerate() {
        assert!(got.data == want, "unit {i} differs");
        assert_eq!((got.timestamp, got.lost, got.damaged), (i as u32 * 3600, 0, false));
        assert_eq!(got.parameters.is_some(), i == 0);
    }
    assert_eq!(
        got.first().and_then(|u| u.parameters.as_deref()),
        units.first().map(|_| parameters)
    );
}

/// A NAL unit with this header and body, escaped as encoders do.
fn escaped(head: &[u8], body: &[u8]) -> Vec<u8> {
    let mut nal = head.to_vec();
    let mut zeros = 0;
    for &byte in body {
        if zeros == 2 && byte <= 3 {
            nal.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        nal.push(byte);
    }
    nal.push(0x80);
    nal
}

fn unit(nals: &[Vec<u8>]) -> Bytes {
    let mut data = BytesMut::new();
    for nal in nals {
        data.put_u32(nal.len() as u32);
        data.put_slice(nal);
    }
    data.freeze()
}

/// A unit: sets and SEI if it is a key, and slices with these bodies.
fn h264_unit(key: bool, slices: &[Vec<u8>]) -> Bytes {
    let mut nals = Vec::new();
    if key {
        nals.extend([
            vec![0x09, 0x10],
            nal(SPS_1080P),
            nal(PPS_1080P),
            vec![0x06, 5, 1, 9, 0x80],
        ]);
    }
    for (i, body) in slices.iter().enumerate() {
        let place: u8 = if i == 0 { 0x88 } else { 0x44 };
        nals.push(escaped(&[if key { 0x65 } else { 0x41 }, place], body));
    }
    unit(&nals)
}

fn h265_unit(key: bool, slices: &[Vec<u8>]) -> Bytes {
    let mut nals = Vec::new();
    if key {
        nals.extend([nal(VPS_265), nal(SPS_265), nal(PPS_265)]);
    }
    for (i, body) in slices.iter().enumerate() {
        let place = if i == 0 { 0x80 } else { 0x20 };
        nals.push(escaped(&[if key { 0x26 } else { 0x02 }, 0x01, place], body));
    }
    unit(&nals)
}

fn av1_unit(key: bool, frames: &[Vec<u8>]) -> Bytes {
    let mut data = BytesMut::new();
    if key {
        data.put_slice(&nal(AV1_SEQUENCE));
    }
    for (i, body) in frames.iter().enumerate() {
        let payload = [&[if key && i == 0 { 0x10 } else { 0x30 }][..], body].concat();
        // Every other one with an extension byte.
        let with_extension = [0x36, 0x08];
        let head = if i % 2 == 1 { &with_extension[..] } else { &[0x32] };
        data.put_slice(head);
        let mut len = payload.len();
        while len > 0x7F {
            data.put_u8(len as u8 | 0x80);
            len >>= 7;
        }
        data.put_u8(len as u8);
        data.put_slice(&payload);
    }
    data.freeze()
}

fn jpeg_unit(restart_interval: u16, scan: &[u8]) -> Bytes {
    let mut data = BytesMut::new();
    let headers = JpegHeaders {
        width: 640,
        height: 480,
        half_height_chroma: restart_interval.is_multiple_of(2),
        restart_interval,
        tables: quant_tables(scan.len() as u8),
    };
    headers.write(&mut data);
    data.put_slice(scan);
    data.put_slice(&[0x12, 0xFF, 0xD9]);
    data.freeze()
}

/// Bodies of up to a few packets, rarely many.
fn bodies(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let body = prop_oneof![
        4 => prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..100),
        4 => prop::collection::vec(any::<u8>(), 500..4000),
        1 => (any::<u8>(), 4000usize..100_000).prop_map(|(b, n)| vec![b; n]),
    ];
    prop::collection::vec(body, count)
}

fn pictures() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    prop::collection::vec(bodies(1..4), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn pictures_survive_any_mtu(pictures in pictures(), mtu in 0usize..9000) {
        let all = |make: fn(bool, &[Vec<u8>]) -> Bytes| -> Vec<Bytes> {
            pictures.iter().enumerate().map(|(i, slices)| make(i % 5 == 0, slices)).collect()
        };
        assert_same(&h264_parameters(), &all(h264_unit), mtu);
        assert_same(&h265_parameters(), &all(h265_unit), mtu);
        assert_same(&av1_parameters(), &all(av1_unit), mtu);
    }

    #[test]
    fn jpegs_survive_any_mtu(scans in bodies(1..6), interval in 0u16..3, mtu in 0usize..9000) {
        let units: Vec<Bytes> = scans.iter().map(|scan| jpeg_unit(interval, scan)).collect();
        assert_same(&jpeg_parameters(), &units, mtu);
    }

    #[test]
    fn sound_survives_any_mtu(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..500), 1..10), mtu in 0usize..2000) {
        let units: Vec<Bytes> = frames.iter().cloned().map(Bytes::from).collect();
        assert_same(&audio_parameters(AudioCodec::Aac, 48_000, 2), &units, mtu);
        for codec in [AudioCodec::Opus, AudioCodec::Pcma, AudioCodec::Pcmu, AudioCodec::G726 { bits: 4 }] {
            let rate = if codec == AudioCodec::Opus { 48_000 } else { 8000 };
            assert_same(&audio_parameters(codec, rate, 1), &units, mtu);
        }
        assert_same(&audio_parameters(AudioCodec::L16, 44_100, 2), &units, mtu);
    }

    #[test]
    fn long_aac_units_survive_in_fragments(len in 1usize..8192, mtu in 0usize..2000) {
        let unit = Bytes::from(vec![7; len]);
        assert_same(&audio_parameters(AudioCodec::Aac, 16_000, 1), &[unit], mtu);
    }

    #[test]
    fn random_bytes_are_refused_or_sent(data: Vec<u8>) {
        let data = Bytes::from(data);
        for parameters in [h264_parameters(), h265_parameters(), av1_parameters(), jpeg_parameters()] {
            let mut sent = 0;
            let mut packetizer = Packetizer::new(&parameters, 96, 1, 0, 600);
            let result = packetizer.packetize(&data, 0, None, &mut |_, _| sent += 1);
            prop_assert!(result.is_ok() || sent == 0);
        }
    }
}

/// Where each unit's NAL units (or OBUs) are, to see that what is left of a damaged unit is whole.
fn parts(parameters: &CodecParameters, data: &[u8]) -> Vec<Vec<u8>> {
    if matches!(parameters, CodecParameters::Video(v) if v.codec == VideoCodec::Av1) {
        let mut rest = data;
        let mut parts = Vec::new();
        while let Some((obu, tail)) = av1::Obu::split(rest) {
            parts.push(obu.payload.to_vec());
            rest = tail;
        }
        return parts;
    }
    crate::bitstream::nal::split_lengths(data)
        .map(|nal| nal.unwrap().to_vec())
        .collect()
}

/// Any one or two packets lost, before and after the marker is believed.
#[test]
fn loss_of_every_packet_damages_its_unit_and_truncates_nothing() {
    let body = |i: usize, len: usize| vec![0x40 + i as u8; len];
    for (parameters, make) in [
        (h264_parameters(), h264_unit as fn(bool, &[Vec<u8>]) -> Bytes),
        (h265_parameters(), h265_unit),
        (av1_parameters(), av1_unit),
    ] {
        let units: Vec<Bytes> = (0..30)
            .map(|i| make(i % 10 == 0, &[body(i, 1500), body(i, 20), body(i, 700)]))
            .collect();
        let sent = packets(&parameters, &units, 600);
        for first in 0..sent.len() {
            for count in 1..3.min(sent.len() - first) {
                let lost: Vec<usize> = (first..first + count).collect();
                let got = received(&parameters, &sent, &lost);
                assert_eq!(
                    got.iter().map(|u| u.lost as usize).sum::<usize>(),
                    if first + count == sent.len() { 0 } else { count }
                );
                for unit in &got {
                    let index = (unit.timestamp / 3600) as usize;
                    let hit = lost.iter().any(|&l| sent[l].timestamp == unit.timestamp);
                    if !unit.damaged {
                        assert!(
                            unit.data == units[index],
                            "unit {index} is not whole without packets {lost:?}"
                        );
                    }
                    // The end of the stream has no packet behind it that tells of a loss.
                    let told = first + count < sent.len();
                    assert!(
                        unit.damaged || !hit || !told,
                        "unit {index} without packets {lost:?} is not damaged"
                    );
                    let whole = parts(&parameters, &units[index]);
                    let left = parts(&parameters, &unit.data);
                    let mut rest = whole.iter();
                    assert!(
                        left.iter().all(|part| rest.any(|w| w == part)),
                        "a part of unit {index} is truncated"
                    );
                    // Beyond the neighbours of the hole nothing is in doubt.
                    let near = |l: &usize| sent[*l].timestamp.abs_diff(unit.timestamp) <= 3600;
                    assert!(!unit.damaged || lost.iter().any(near));
                }
                assert!(got.len() + 2 >= units.len());
            }
        }
    }
}

#[test]
fn once_the_marker_is_believed_one_lost_marker_damages_one_unit() {
    let units: Vec<Bytes> = (0..40).map(|i| h264_unit(i == 0, &[vec![9; 1500]])).collect();
    let parameters = h264_parameters();
    let sent = packets(&parameters, &units, 600);
    let last_of_30 = sent.iter().rposition(|p| p.timestamp == 30 * 3600).unwrap();
    let got = received(&parameters, &sent, &[last_of_30]);
    // Its only slice is gone: the unit is missing, and the next is known to be whole.
    assert_eq!(got.len(), 39);
    assert!(got.iter().all(|u| !u.damaged));
    assert_eq!(got[30].lost, 1);
}

#[test]
fn markers_and_the_extension_are_where_they_belong() {
    let units = [h264_unit(true, &[vec![1; 3000]]), h264_unit(false, &[vec![2; 10]])];
    let sent = packets(&h264_parameters(), &units, 600);
    for (i, packet) in sent.iter().enumerate() {
        let last = sent.get(i + 1).is_none_or(|next| next.timestamp != packet.timestamp);
        assert_eq!(packet.marker, last);
        assert_eq!(packet.extension.is_some(), i == 0);
    }
}

#[test]
fn samples_are_cut_between_blocks_with_later_time_stamps() {
    let parameters = audio_parameters(AudioCodec::L16, 44_100, 2);
    let data = Bytes::from(vec![5; 3000]);
    let sent = packets(&parameters, std::slice::from_ref(&data), 600);
    let got = received(&parameters, &sent, &[]);
    assert_eq!(got.iter().flat_map(|u| u.data.to_vec()).collect::<Vec<_>>(), data);
    let mut at = 0;
    for unit in got {
        assert_eq!((unit.timestamp, unit.data.len() % 4), (at, 0));
        at += unit.data.len() as u32 / 4;
    }
}

#[test]
fn words_for_the_sdp() {
    let get = |p: &CodecParameters, key: &str| sdp_format(p, 97).parameter(key).map(str::to_owned);
    let h264 = h264_parameters();
    assert_eq!(get(&h264, "packetization-mode").unwrap(), "1");
    assert_eq!(get(&h264, "profile-level-id").unwrap(), "42C028");
    assert_eq!(get(&h264, "sprop-parameter-sets").unwrap().split(',').count(), 2);
    assert!(get(&h265_parameters(), "sprop-sps").is_some());
    assert_eq!(get(&av1_parameters(), "level-idx").unwrap(), "5");
    let aac = audio_parameters(AudioCodec::Aac, 16_000, 1);
    assert_eq!(get(&aac, "config").unwrap(), "1408");
    for (codec, rate, channels, payload_type, text) in [
        (AudioCodec::Pcmu, 8000, 1, 0, "PCMU/8000"),
        (AudioCodec::Pcma, 8000, 1, 8, "PCMA/8000"),
        (AudioCodec::Pcma, 16_000, 1, 97, "PCMA/16000"),
        (AudioCodec::Aac, 48_000, 2, 97, "MPEG4-GENERIC/48000"),
        (AudioCodec::Opus, 48_000, 1, 97, "OPUS/48000"),
        (AudioCodec::G726 { bits: 3 }, 8000, 1, 97, "G726-24/8000"),
    ] {
        let words = sdp_format(&audio_parameters(codec, rate, channels), 97);
        assert_eq!((words.payload_type, words.to_string()), (payload_type, text.to_owned()));
        assert_eq!(words.kind, MediaKind::Audio);
    }
}

#[test]
fn parameter_sets_come_length_prefixed() {
    assert_eq!(
        parameter_sets(&h264_parameters()),
        unit(&[nal(SPS_1080P), nal(PPS_1080P)])
    );
    assert_eq!(
        parameter_sets(&h265_parameters()),
        unit(&[nal(VPS_265), nal(SPS_265), nal(PPS_265)])
    );
    assert!(parameter_sets(&jpeg_parameters()).is_empty());
    let CodecParameters::Video(mut broken) = h264_parameters() else {
        panic!()
    };
    broken.extra.truncate(20);
    assert!(parameter_sets(&CodecParameters::Video(broken)).is_empty());
}

/// Prints what a packet of a 4 Mbit/s stream costs; run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_packet() {
    let frame = |i: usize| -> Bytes {
        let len = if i.is_multiple_of(50) { 120_000 } else { 17_500 };
        let body: Vec<u8> = (0..len).map(|j| (j * 31 + i * 7 + j / 251) as u8).collect();
        h264_unit(i.is_multiple_of(50), &[body])
    };
    let units: Vec<Bytes> = (0..500).map(frame).collect();
    let parameters = h264_parameters();
    let sent = packets(&parameters, &units, 1400);
    let mut depacketizer = Depacketizer::new(&sdp_format(&parameters, 96)).unwrap();
    let mut packetizer = Packetizer::new(&parameters, 96, 1, 0, 1400);
    let (mut received, rounds) = (0, 20);
    let start = Instant::now();
    for _ in 0..rounds {
        for packet in &sent {
            depacketizer.push(packet, 0).unwrap();
            while let Some(unit) = depacketizer.poll() {
                received += unit.data.len();
            }
        }
        depacketizer.flush();
        while depacketizer.poll().is_some() {}
    }
    let each = start.elapsed() / (rounds * sent.len() as u32);
    let (mut bytes, start) = (0, Instant::now());
    for _ in 0..rounds {
        for unit in &units {
            let mut out = |head: &[u8], payload: &[u8]| bytes += head.len() + payload.len();
            packetizer.packetize(unit, 0, None, &mut out).unwrap();
        }
    }
    let out = start.elapsed() / (rounds * sent.len() as u32);
    println!("depacketize {each:?}, packetize {out:?} a packet; {received} bytes in, {bytes} out");
}
