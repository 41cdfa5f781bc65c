//! Pictures: every habit of a device gives the same units, and a loss gives none that is untrue.

use corenvr_media::{CodecParameters, VideoCodec};
use proptest::prelude::*;

use super::*;
use crate::bitstream::nal::split_lengths;

/// Pictures of a stream: time, whether key, NAL units.
type Sent = Vec<(u64, bool, Vec<Vec<u8>>)>;

const START: u64 = 0x1_FFFF_F000;

fn gops(count: usize, length: usize, size: usize) -> Sent {
    (0..count * length)
        .map(|i| {
            let key = i % length == 0;
            let tag: Vec<u8> = (0..if key { size * 4 } else { size })
                .map(|at| (at * 7 + i * 31) as u8 & 0x1F)
                .collect();
            (START + 3600 * i as u64, key, h264_picture(key, &tag))
        })
        .collect()
}

fn send(mux: &Mux, sent: &Sent, packet_len: usize) -> Packets {
    let mut packets = Packets::default();
    for (pts, key, nals) in sent {
        packets.add(&mux.picture(*pts, *key, nals), *pts, packet_len);
    }
    packets
}

fn expected(sent: &Sent) -> Vec<(u32, Bytes, bool)> {
    sent.iter()
        .map(|(pts, _, nals)| (*pts as u32, picture_bytes(nals), false))
        .collect()
}

/// Without pages of bytes where it fails.
#[track_caller]
fn same(got: &[(u32, Bytes, bool)], want: &[(u32, Bytes, bool)]) {
    let brief = |list: &[(u32, Bytes, bool)]| list.iter().map(|p| (p.0, p.1.len(), p.2)).collect::<Vec<_>>();
    assert!(got == want, "{:?}, not {:?}", brief(got), brief(want));
}

/// All pictures come out as they went in.
fn passes(mux: &Mux, sent: &Sent) {
    for len in [1, 7, 64, 1400, 60_000] {
        let mut demuxer = Demuxer::new();
        let units = feed(&mut demuxer, &send(mux, sent, len));
        assert!(pictures(&units) == expected(sent), "packets of {len} bytes, {mux:?}");
        assert_eq!(
            (demuxer.skipped_bytes(), demuxer.take_key_frame_wish()),
            (0, false),
            "{mux:?}"
        );
        assert!(
            demuxer.not_recorded().is_empty(),
            "{mux:?}: {:?}",
            demuxer.not_recorded()
        );
        let keys: Vec<bool> = units.iter().map(|(_, u)| u.key).collect();
        assert!(keys.iter().eq(sent.iter().map(|(_, key, _)| key)));
        let told: Vec<_> = units.iter().filter_map(|(_, u)| u.parameters.clone()).collect();
        assert!(
            matches!(&told[..], [p] if matches!(&**p, CodecParameters::Video(v) if (v.width, v.height) == (1920, 1080)))
        );
    }
}

/// What devices do differently, each by itself.
#[rustfmt::skip]
fn habits() -> Vec<Mux> {
    let plain = Mux::default();
    let few = Mux { pes_len: 100, ..Mux::default() };
    vec![
        Mux { system_header: false, ..plain.clone() },
        Mux { map: None, ..plain.clone() },
        Mux { map: None, system_header: false, ..plain.clone() },
        Mux { map: Some((0x24, 0x90)), ..plain.clone() },
        Mux { map: Some((0x10, 0x90)), ..plain.clone() },
        Mux { pts: Pts::Each, ..few.clone() },
        Mux { pts: Pts::Each, pack_each: true, ..few.clone() },
        Mux { pack_each: true, ..few.clone() },
        Mux { open_length: true, pack_each: true, ..few.clone() },
        Mux { open_length: true, ..plain.clone() },
        Mux { stuffing: vec![0, 0, 1, 0xE0, 0, 0, 1], ..plain.clone() },
        Mux { pes_stuffing: 30, pes_len: 120, ..plain.clone() },
        Mux { zeros: 5, ..plain.clone() },
        Mux { short_codes: true, ..plain.clone() },
        Mux { short_codes: true, zeros: 1, open_length: true, ..plain.clone() },
        Mux { private: true, pes_len: 200, ..plain.clone() },
        few,
        plain,
    ]
}

#[test]
fn every_habit_of_a_device_gives_the_same_pictures() {
    for mux in &habits() {
        passes(mux, &gops(2, 3, 200));
    }
}

#[test]
fn a_picture_larger_than_a_pes_packet_can_be_is_whole() {
    passes(&Mux::default(), &gops(1, 2, 50_000));
}

/// Without a PTS the RTP time stamps tell the time, and where they stand still the packs.
#[test]
fn time_without_a_pts_is_that_of_the_packets_or_the_packs() {
    let sent = gops(2, 3, 200);
    let mux = Mux {
        pts: Pts::Never,
        pes_len: 150,
        clock_stands: true,
        ..Mux::default()
    };
    same(&pictures(&demux(&send(&mux, &sent, 100))), &expected(&sent));
    let mux = Mux {
        clock_stands: false,
        ..mux
    };
    let mut packets = send(&mux, &sent, 100);
    for packet in &mut packets.0 {
        packet.timestamp = 77;
    }
    let times: Vec<u32> = pictures(&demux(&packets)).iter().map(|p| p.0).collect();
    assert_eq!(times, (0..6).map(|i| 77 + 3600 * i).collect::<Vec<_>>());
}

/// A device that gives key pictures a PTS and the others none.
#[test]
fn pictures_without_a_pts_go_on_from_those_with_one() {
    let sent = gops(2, 4, 100);
    let (with, without) = (
        Mux::default(),
        Mux {
            pts: Pts::Never,
            ..Mux::default()
        },
    );
    let mut packets = Packets::default();
    for (pts, key, nals) in &sent {
        let mux = if *key { &with } else { &without };
        packets.add(&mux.picture(*pts, *key, nals), pts + 1_000_000, 90);
    }
    same(&pictures(&demux(&packets)), &expected(&sent));
}

#[test]
fn times_that_jump_either_way_are_told_as_they_are() {
    let hour = 3600 * 90_000;
    for jump in [hour, -hour, 1 << 31, 2] {
        let mut sent = gops(2, 3, 100);
        for picture in &mut sent[4..] {
            picture.0 = (picture.0 as i64 + jump) as u64 & 0x1_FFFF_FFFF;
        }
        same(&pictures(&demux(&send(&Mux::default(), &sent, 70))), &expected(&sent));
    }
}

/// Each NAL unit has a PES packet of its own, each with the time, the decoding time and stuffing behind them.
#[test]
fn a_packet_for_each_nal_unit_with_all_fields_makes_one_picture() {
    let sent = gops(2, 3, 100);
    let mux = Mux::default();
    let mut packets = Packets::default();
    for (pts, key, nals) in &sent {
        let mut bytes = mux.pack(*pts);
        if *key {
            bytes.extend(mux.map_packet());
        }
        for nal in nals {
            let mut pes = mux.video(Some(*pts), &mux.byte_stream(std::slice::from_ref(nal)));
            // PTS and DTS, then 8 bytes of stuffing.
            let fields: Vec<u8> = pes[9..14].iter().copied().chain([0xFF; 8]).collect();
            pes.splice(14..14, fields);
            pes[7] = 0xC0;
            pes[8] = 18;
            let len = (pes.len() - 6) as u16;
            pes[4..6].copy_from_slice(&len.to_be_bytes());
            // An entitlement message between, whose contents look like a packet.
            bytes.extend([0, 0, 1, 0xF0, 0, 7, 0, 0, 1, 0xE0, 0, 0, 1]);
            bytes.extend(pes);
        }
        packets.add(&bytes, *pts, 45);
    }
    same(&pictures(&demux(&packets)), &expected(&sent));
}

#[test]
fn two_pictures_with_one_time_are_two_units() {
    let mut sent = gops(1, 4, 100);
    sent[2].0 = sent[1].0;
    same(&pictures(&demux(&send(&Mux::default(), &sent, 70))), &expected(&sent));
}

/// The standard allows it: a packet's PTS is that of the first picture that begins in it (clause 2.4.3.7).
#[test]
fn packets_need_not_begin_where_pictures_do() {
    let sent = gops(2, 3, 100);
    let mux = Mux::default();
    for over in [1, 2, 3, 4, 5, 6, 50] {
        let (mut packets, mut rest) = (Packets::default(), Vec::new());
        for (pts, _, nals) in &sent {
            rest.extend(mux.byte_stream(nals));
            let body: Vec<u8> = rest.drain(..rest.len() - over).collect();
            packets.add(
                &[mux.pack(*pts), mux.map_packet(), mux.video(Some(*pts), &body)].concat(),
                *pts,
                77,
            );
        }
        packets.add(&mux.video(None, &rest), START, 77);
        let (mut demuxer, mut units) = (Demuxer::new(), Vec::new());
        for packet in &packets.0 {
            demuxer.push(&packet.data, packet.timestamp, packet.marker, 0);
            units.extend(std::iter::from_fn(|| demuxer.poll()));
        }
        demuxer.end();
        units.extend(std::iter::from_fn(|| demuxer.poll()));
        same(&pictures(&units), &expected(&sent));
    }
}

#[test]
fn h265_in_a_map_that_says_h264_is_h265() {
    for map in [Some((0x1B, 0x90)), Some((0x24, 0x90)), None] {
        let mux = Mux { map, ..Mux::default() };
        let sent: Sent = (0..4)
            .map(|i| (START + 3600 * i, i == 0, h265_picture(i == 0, &[i as u8; 300])))
            .collect();
        let units = demux(&send(&mux, &sent, 333));
        same(&pictures(&units), &expected(&sent));
        let parameters = units[0].1.parameters.clone().unwrap();
        assert!(matches!(&*parameters, CodecParameters::Video(v) if v.codec == VideoCodec::H265));
    }
}

/// Slices alone prove nothing: joined in the middle, only what follows parameter sets comes out, with the delimiter before them.
#[test]
fn what_comes_before_the_first_parameter_sets_is_left_out() {
    let mut sent = gops(2, 3, 100);
    for (.., nals) in &mut sent {
        nals.insert(0, vec![9, 0xF0]);
    }
    let packets = send(
        &Mux {
            map: None,
            ..Mux::default()
        },
        &sent[1..].to_vec(),
        100,
    );
    let mut demuxer = Demuxer::new();
    same(&pictures(&feed(&mut demuxer, &packets)), &expected(&sent[3..].to_vec()));
    assert_eq!(
        (demuxer.take_key_frame_wish(), demuxer.take_key_frame_wish()),
        (true, false)
    );
}

#[test]
fn a_change_of_the_codec_in_the_stream_starts_with_its_parameter_sets() {
    let mut sent = gops(1, 3, 100);
    sent.extend((3..6).map(|i| (START + 3600 * i, i == 3, h265_picture(i == 3, &[i as u8; 90]))));
    sent.extend((6..8).map(|i| (START + 3600 * i, i == 6, h264_picture(i == 6, &[i as u8; 90]))));
    let units = demux(&send(&Mux::default(), &sent, 80));
    same(&pictures(&units), &expected(&sent));
    let changes: Vec<_> = units.iter().map(|(_, u)| u.parameters.is_some()).collect();
    assert_eq!(changes, [true, false, false, true, false, false, true, false]);
}

#[test]
fn svac_and_second_streams_are_named_once_and_never_mixed_in() {
    let sent = gops(2, 2, 100);
    let mut demuxer = Demuxer::new();
    let mux = Mux {
        map: Some((0x80, 0x90)),
        ..Mux::default()
    };
    assert!(feed(&mut demuxer, &send(&mux, &sent, 100)).is_empty());
    assert_eq!(demuxer.not_recorded(), ["SVAC video"]);

    let (mut demuxer, mut packets) = (Demuxer::new(), Packets::default());
    let mux = Mux::default();
    for (pts, key, nals) in &sent {
        let mut bytes = mux.picture(*pts, *key, nals);
        let mut second = mux.picture(*pts, false, nals);
        second[14 + 3] = 0xE1;
        bytes.extend(second);
        packets.add(&bytes, *pts, 500);
    }
    same(&pictures(&feed(&mut demuxer, &packets)), &expected(&sent));
    assert_eq!(demuxer.not_recorded(), ["a second video stream (0xe1)"]);
}

/// Bytes between packets mean that a length was wrong: what came before may be cut.
#[test]
fn bytes_that_are_no_packet_cost_the_picture_before_them() {
    let sent = gops(2, 3, 100);
    let mux = Mux::default();
    let (mut packets, mut demuxer) = (Packets::default(), Demuxer::new());
    for (i, (pts, key, nals)) in sent.iter().enumerate() {
        let mut bytes = mux.picture(*pts, *key, nals);
        if i == 1 {
            bytes.extend([0x55; 9]);
        }
        packets.add(&bytes, *pts, 60);
    }
    let got = pictures(&feed(&mut demuxer, &packets));
    let want = expected(&sent);
    assert_eq!((got.len(), got[0].clone()), (6, want[0].clone()));
    assert_eq!((got[1].1.clone(), got[1].2), (picture_bytes(&sent[1].2[..1]), true));
    assert_eq!((got[2].1.clone(), got[2].2), (want[2].1.clone(), true));
    assert_eq!(got[3..], want[3..]);
    assert_eq!(
        (
            demuxer.skipped_bytes(),
            demuxer.take_key_frame_wish(),
            demuxer.take_key_frame_wish()
        ),
        (9, true, false)
    );
}

#[test]
fn a_stream_that_ends_in_a_picture_keeps_only_what_is_known_to_be_whole() {
    let sent = gops(1, 3, 300);
    let mux = Mux {
        pes_len: 120,
        ..Mux::default()
    };
    let packets = send(&mux, &sent, 50);
    for end in 0..packets.0.len() {
        let got = pictures(&demux(&Packets(packets.0[..end].to_vec())));
        check_true(&got, &sent);
        let whole = packets.0[..end].iter().filter(|p| p.marker).count();
        assert_eq!(got.iter().filter(|p| !p.2).count(), whole, "{end}");
    }
}

/// What came out is part of what was sent: units in order, NAL units whole, and whatever is not marked as damaged complete.
fn check_true(got: &[(u32, Bytes, bool)], sent: &Sent) {
    let mut rest = sent.iter();
    for (timestamp, data, damaged) in got {
        let (_, _, nals) = rest
            .find(|(pts, ..)| *pts as u32 == *timestamp)
            .expect("a picture that was sent, in order");
        let mut of_picture = nals.iter();
        for nal in split_lengths(data) {
            let nal = nal.expect("whole NAL units");
            assert!(of_picture.any(|sent| sent == nal), "a NAL unit that was not sent");
        }
        assert!(*damaged || *data == picture_bytes(nals), "a picture that is not whole");
    }
}

#[test]
fn a_loss_anywhere_gives_whole_nal_units_and_ends_at_the_next_key_frame() {
    let sent = gops(4, 3, 150);
    for mux in [
        Mux::default(),
        Mux {
            pes_len: 90,
            ..Mux::default()
        },
        Mux {
            pes_len: 90,
            pts: Pts::Each,
            ..Mux::default()
        },
        Mux {
            pes_len: 90,
            pack_each: true,
            map: None,
            ..Mux::default()
        },
        Mux {
            open_length: true,
            pes_len: 110,
            ..Mux::default()
        },
    ] {
        let packets = send(&mux, &sent, 60);
        let last_gop = packets.0.iter().position(|p| p.timestamp == sent[9].0 as u32).unwrap();
        for count in [1, 2, 9] {
            for at in 0..last_gop - count {
                let mut demuxer = Demuxer::new();
                let units = feed(&mut demuxer, &packets.without(at..at + count));
                let got = pictures(&units);
                check_true(&got, &sent);
                same(&got[got.len() - 3..], &expected(&sent)[9..]);
                assert_eq!(units.iter().map(|(_, u)| u.lost).sum::<u32>(), count as u32, "{at}");
                assert!(demuxer.take_key_frame_wish());
                // Between the loss and the next key frame that is whole, nothing is free of damage.
                let first = got.iter().position(|p| p.2).unwrap_or(0);
                let undamaged_after = got[first..].iter().position(|p| !p.2).unwrap();
                let (_, key, _) = sent
                    .iter()
                    .find(|s| s.0 as u32 == got[first + undamaged_after].0)
                    .unwrap();
                assert!(key, "{mux:?} {at} {count}");
            }
        }
    }
}

#[test]
fn what_had_come_whole_before_a_loss_is_kept_and_marked() {
    let sent = gops(2, 3, 150);
    let packets = send(&Mux::default(), &sent, 60);
    // The first packet of each picture but the first: the one before it ends with its marker.
    for (i, (pts, ..)) in sent.iter().enumerate().skip(1) {
        let at = packets.0.iter().position(|p| p.timestamp == *pts as u32).unwrap();
        let got = pictures(&demux(&packets.without(at..at + 1)));
        let before = got.iter().find(|p| p.0 == sent[i - 1].0 as u32).unwrap();
        assert_eq!((&before.1, before.2), (&picture_bytes(&sent[i - 1].2), true), "{i}");
    }
}

fn mux() -> impl Strategy<Value = Mux> {
    let habits = (
        any::<[bool; 7]>(),
        60usize..400,
        0usize..3,
        0usize..8,
        prop::option::of(Just((0x1B, 0x90))),
    );
    habits.prop_map(
        |(
            [
                system_header,
                open_length,
                pack_each,
                short_codes,
                private,
                each,
                clock_stands,
            ],
            pes_len,
            zeros,
            stuffing,
            map,
        )| Mux {
            map,
            system_header,
            pes_len,
            pts: if each { Pts::Each } else { Pts::First },
            open_length,
            pack_each,
            stuffing: [0, 0, 1, 0xBA, 0, 0, 1][..stuffing.min(7)].to_vec(),
            pes_stuffing: zeros,
            zeros,
            short_codes,
            private,
            clock_stands,
        },
    )
}

fn content() -> impl Strategy<Value = Sent> {
    let byte = prop_oneof![3 => Just(0u8), 1 => Just(1u8), 1 => any::<u8>()];
    let picture = (prop::collection::vec(byte, 0..300), prop::bool::weighted(0.3));
    prop::collection::vec(picture, 1..8).prop_map(|pictures| {
        let with_key = |i: usize, key| i == 0 || key;
        let pictures = pictures.into_iter().enumerate();
        pictures
            .map(|(i, (tag, key))| {
                (
                    900 + 3000 * i as u64,
                    with_key(i, key),
                    h264_picture(with_key(i, key), &tag),
                )
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn cut_anywhere_it_is_the_same(mux in mux(), sent in content(), cuts in prop::collection::vec(1usize..200, 1..60)) {
        let stream: Vec<u8> = sent.iter().flat_map(|(pts, key, nals)| mux.picture(*pts, *key, nals)).collect();
        let (mut demuxer, mut rest, mut cuts) = (Demuxer::new(), &stream[..], cuts.iter().cycle());
        let mut units = Vec::new();
        while !rest.is_empty() {
            let (payload, tail) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            rest = tail;
            demuxer.push(payload, 5, rest.is_empty(), 0);
            units.extend(std::iter::from_fn(|| demuxer.poll()));
        }
        // Without a length it is the end of the stream that ends the last packet.
        demuxer.push(&[0, 0, 1, 0xB9], 5, true, 0);
        demuxer.flush();
        units.extend(std::iter::from_fn(|| demuxer.poll()));
        same(&pictures(&units), &expected(&sent));
        prop_assert_eq!(demuxer.skipped_bytes(), 0);
    }

    #[test]
    fn losses_never_make_it_untrue(
        mux in mux(), sent in content(), len in 20usize..200, losses in prop::collection::vec((0usize..400, 1usize..6), 0..6)
    ) {
        let mut packets = send(&mux, &sent, len);
        let mut lost = 0;
        for (at, count) in losses {
            let at = at % packets.0.len();
            let end = (at + count).min(packets.0.len());
            packets = packets.without(at..end);
            lost += (end - at) as u32;
            if packets.0.is_empty() {
                return Ok(());
            }
        }
        let units = demux(&packets);
        check_true(&pictures(&units), &sent);
        let told: u32 = units.iter().map(|(_, u)| u.lost).sum();
        prop_assert!(told <= lost, "{told} of {lost}");
    }
}
