//! Sound.

use corenvr_media::AudioCodec;

use super::{super::*, Feed, format};

fn aac(parameters: &[(&str, &str)]) -> Feed {
    Feed::new(&format(MediaKind::Audio, "MPEG4-GENERIC", 16_000, parameters))
}

const HBR: [(&str, &str); 5] = [
    ("mode", "AAC-hbr"),
    ("config", "1408"),
    ("sizelength", "13"),
    ("indexlength", "3"),
    ("indexdeltalength", "3"),
];

fn units(feed: &mut Feed) -> Vec<(u32, Vec<u8>, u32)> {
    feed.units()
        .into_iter()
        .map(|u| (u.timestamp, u.data.to_vec(), u.lost))
        .collect()
}

#[test]
fn several_aac_units_in_a_packet_have_their_own_times() {
    let mut feed = aac(&HBR);
    feed.push(&[0, 32, 0, 2 << 3, 0, 3 << 3, 1, 2, 3, 4, 5], true);
    assert_eq!(units(&mut feed), [(1000, vec![1, 2], 0), (2024, vec![3, 4, 5], 0)]);
    assert!(feed.try_push(&[0, 32, 0, 2 << 3, 0, 9 << 3, 1, 2, 3], true, 0).is_err());
}

#[test]
fn an_aac_unit_in_fragments_is_joined_and_a_loss_drops_it_whole() {
    let mut feed = aac(&HBR);
    let head = [0, 16, 0, 5 << 3];
    let fragment = |data: &[u8]| [&head[..], data].concat();
    feed.push(&fragment(&[1, 2]), false);
    feed.push(&fragment(&[3, 4]), false);
    feed.push(&fragment(&[5]), true);
    assert_eq!(units(&mut feed), [(1000, vec![1, 2, 3, 4, 5], 0)]);
    feed.push(&fragment(&[1, 2]), false);
    feed.try_push(&fragment(&[5]), true, 1).unwrap();
    feed.next_time();
    feed.push(&[0, 16, 0, 1 << 3, 9], true);
    assert_eq!(units(&mut feed), [(4600, vec![9], 1)]);
}

#[test]
fn aac_lbr_and_a_missing_config_are_understood() {
    let mut feed = aac(&[
        ("mode", "AAC-lbr"),
        ("config", "1408"),
        ("sizelength", "6"),
        ("indexlength", "2"),
        ("indexdeltalength", "2"),
    ]);
    feed.push(&[0, 8, 2 << 2, 7, 8], true);
    assert_eq!(units(&mut feed), [(1000, vec![7, 8], 0)]);
    let feed = aac(&[("mode", "AAC-hbr")]);
    let Some(CodecParameters::Audio(audio)) = feed.depacketizer.parameters().map(|p| &**p) else {
        panic!()
    };
    assert_eq!((&audio.extra[..], audio.sample_rate), (&[0x14, 0x08][..], 16_000));
}

fn latm(parameters: &[(&str, &str)]) -> Feed {
    Feed::new(&format(MediaKind::Audio, "MP4A-LATM", 16_000, parameters))
}

#[test]
fn latm_with_its_config_in_the_sdp() {
    let mut feed = latm(&[("cpresent", "0"), ("config", "400028103fc0")]);
    feed.push(&[3, 1, 2, 3], true);
    let long = [&[255, 1][..], &[7; 256]].concat();
    feed.next_time();
    feed.push(&long[..100], false);
    feed.push(&long[100..], true);
    assert_eq!(units(&mut feed), [(1000, vec![1, 2, 3], 0), (4600, vec![7; 256], 0)]);
}

#[test]
fn latm_after_a_loss_takes_nothing_for_a_frame_that_is_none() {
    let mut feed = latm(&[("cpresent", "0"), ("config", "40002810")]);
    let long = [&[255, 1][..], &[7; 256]].concat();
    // The first fragment is lost: the rest says 7 bytes, and has more.
    feed.try_push(&long[100..], true, 1).unwrap();
    feed.next_time();
    feed.push(&[2, 5, 6], true);
    assert_eq!(units(&mut feed), [(4600, vec![5, 6], 1)]);
}

#[test]
fn latm_with_its_config_in_band_is_read_at_the_bit() {
    // useSameStreamMux 0, audioMuxVersion 0, one program, one layer; AAC-LC 16 kHz mono; then 2 bytes not on a byte boundary.
    let config: &[(u32, u32)] = &[
        (0, 1),
        (0, 1),
        (1, 1),
        (0, 6),
        (0, 7),
        (2, 5),
        (8, 4),
        (1, 4),
        (0, 3),
        (0, 3),
        (0xFF, 8),
        (0, 1),
        (0, 1),
    ];
    let frame: &[(u32, u32)] = &[(2, 8), (0xAB, 8), (0xCD, 8)];
    let mut feed = latm(&[("cpresent", "1")]);
    assert_eq!(feed.depacketizer.parameters(), None);
    feed.push(&bits(&[config, frame].concat()), true);
    feed.next_time();
    feed.push(&bits(&[&[(1, 1)], frame].concat()), true);
    let got = feed.units();
    assert_eq!(got.len(), 2);
    assert!(got.iter().all(|u| u.data[..] == [0xAB, 0xCD]));
    let Some(CodecParameters::Audio(audio)) = got[0].parameters.as_deref() else {
        panic!()
    };
    assert_eq!(
        (&audio.extra[..], audio.sample_rate, audio.channels),
        (&[0x14, 0x08][..], 16_000, 1)
    );
    assert_eq!(got[1].parameters, None);
}

fn bits(fields: &[(u32, u32)]) -> Vec<u8> {
    let digits = fields
        .iter()
        .flat_map(|&(value, count)| (0..count).rev().map(move |i| (value >> i & 1) as u8));
    let digits: Vec<u8> = digits.collect();
    digits
        .chunks(8)
        .map(|byte| byte.iter().fold(0, |v, d| v << 1 | d) << (8 - byte.len()))
        .collect()
}

#[test]
fn packet_audio_keeps_what_it_gets_and_tells_losses_once() {
    for (name, codec) in [
        ("PCMU", AudioCodec::Pcmu),
        ("PCMA", AudioCodec::Pcma),
        ("L16", AudioCodec::L16),
        ("G726-16", AudioCodec::G726 { bits: 2 }),
        ("G726-40", AudioCodec::G726 { bits: 5 }),
        ("OPUS", AudioCodec::Opus),
    ] {
        let mut feed = Feed::new(&format(MediaKind::Audio, name, 8000, &[]));
        feed.try_push(&[], false, 2).unwrap();
        feed.try_push(&[1, 2, 3, 4, 5], false, 1).unwrap();
        feed.push(&[6], false);
        let got = feed.units();
        assert_eq!(got.iter().map(|u| u.lost).collect::<Vec<_>>(), [3, 0]);
        assert_eq!(got[0].data[..], [1, 2, 3, 4, 5]);
        let Some(CodecParameters::Audio(audio)) = got[0].parameters.as_deref() else {
            panic!()
        };
        assert_eq!(audio.codec, codec);
        assert!(got[0].key && got[1].parameters.is_none());
    }
    let mut unnamed = format(MediaKind::Audio, "", 8000, &[]);
    unnamed.payload_type = 8;
    let feed = Feed::new(&unnamed);
    let Some(CodecParameters::Audio(audio)) = feed.depacketizer.parameters().map(|p| &**p) else {
        panic!()
    };
    assert_eq!(audio.codec, AudioCodec::Pcma);
}

#[test]
fn opus_channels_are_the_sprops_word() {
    for (parameters, channels) in [(&[("sprop-stereo", "1")][..], 2), (&[("sprop-stereo", "0")], 1)] {
        let feed = Feed::new(&format(MediaKind::Audio, "OPUS", 48_000, parameters));
        let Some(CodecParameters::Audio(audio)) = feed.depacketizer.parameters().map(|p| &**p) else {
            panic!()
        };
        assert_eq!(
            (audio.channels, audio.extra[9], audio.extra.len()),
            (channels, channels, 19)
        );
    }
}
