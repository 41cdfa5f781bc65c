//! Sound beside pictures: which codec it is, and when each unit is heard.

use corenvr_media::{AudioCodec, CodecParameters};

use super::*;
use crate::bitstream::aac::AudioConfig;

/// An ADTS frame of AAC-LC, 16 kHz, mono.
fn adts(payload: &[u8]) -> Vec<u8> {
    let len = payload.len() + 7;
    let mut frame = vec![
        0xFF,
        0xF1,
        0x60,
        0x40 | (len >> 11) as u8,
        (len >> 3) as u8,
        (len << 5) as u8 | 0x1F,
        0xFC,
    ];
    frame.extend(payload);
    frame
}

struct Stream {
    mux: Mux,
    packets: Packets,
}

impl Stream {
    /// A key picture at 9000, so that the map (or that there is none) is known.
    fn new(map: Option<u8>) -> Self {
        let mux = Mux {
            map: map.map(|audio| (0x1B, audio)),
            ..Mux::default()
        };
        let mut packets = Packets::default();
        packets.add(&mux.picture(9000, true, &h264_picture(true, b"key")), 9000, 100);
        Self { mux, packets }
    }

    fn sound(&mut self, pts: Option<u64>, body: &[u8]) {
        let rtp = self.packets.0.last().unwrap().timestamp;
        self.packets.add(&self.mux.sound(pts, body), u64::from(rtp), 33);
    }

    fn heard(&self) -> (Vec<AccessUnit>, Vec<String>) {
        let mut demuxer = Demuxer::new();
        let units = feed(&mut demuxer, &self.packets);
        let audio = units
            .into_iter()
            .filter(|(kind, _)| *kind == StreamKind::Audio)
            .map(|(_, u)| u);
        (audio.collect(), demuxer.not_recorded().to_vec())
    }
}

fn codec(unit: &AccessUnit) -> Option<AudioCodec> {
    match unit.parameters.as_deref() {
        Some(CodecParameters::Audio(a)) => Some(a.codec),
        _ => None,
    }
}

#[test]
fn g711_is_by_the_map_and_a_law_without_one() {
    for (map, want) in [
        (Some(0x90), AudioCodec::Pcma),
        (Some(0x91), AudioCodec::Pcmu),
        (None, AudioCodec::Pcma),
    ] {
        let mut stream = Stream::new(map);
        stream.sound(Some(9000), &[0xD5; 320]);
        stream.sound(None, &[0x55; 160]);
        stream.sound(None, &[0xD4; 320]);
        stream.sound(Some(20_000), &[0xD5; 320]);
        let (heard, named) = stream.heard();
        assert_eq!(
            heard.iter().map(codec).collect::<Vec<_>>(),
            [Some(want), None, None, None]
        );
        // 320 samples of 8 kHz are 3600 ticks.
        assert_eq!(
            heard.iter().map(|u| u.timestamp).collect::<Vec<_>>(),
            [9000, 12_600, 14_400, 20_000]
        );
        assert_eq!(
            heard.iter().map(|u| u.data.len()).collect::<Vec<_>>(),
            [320, 160, 320, 320]
        );
        assert!(named.is_empty());
    }
}

#[test]
fn sound_before_any_word_on_it_is_left_out_unless_it_tells_itself() {
    let (mux, mut packets) = (Mux::default(), Packets::default());
    packets.add(&[mux.pack(1), mux.sound(Some(1000), &[0xD5; 320])].concat(), 1000, 2000);
    packets.add(
        &mux.sound(Some(4600), &[adts(b"one"), adts(b"two")].concat()),
        1000,
        2000,
    );
    packets.add(&mux.picture(9000, true, &h264_picture(true, b"key")), 9000, 2000);
    packets.add(&mux.sound(Some(9000), &[0xD5; 320]), 9000, 2000);
    let units = demux(&packets);
    let audio: Vec<_> = units
        .iter()
        .filter(|(kind, _)| *kind == StreamKind::Audio)
        .map(|(_, u)| u)
        .collect();
    let codecs: Vec<_> = audio.iter().map(|u| codec(u)).collect();
    assert_eq!(codecs, [Some(AudioCodec::Aac), None, Some(AudioCodec::Pcma)]);
}

#[test]
fn aac_loses_its_headers_and_its_frames_follow_each_other() {
    for map in [Some(0x0F), Some(0x90), None] {
        let mut stream = Stream::new(map);
        stream.sound(Some(9000), &[adts(b"one"), adts(b"two"), adts(b"three")].concat());
        stream.sound(None, &adts(b"four"));
        let (heard, named) = stream.heard();
        let data: Vec<_> = heard.iter().map(|u| &u.data[..]).collect();
        assert_eq!(data, [&b"one"[..], b"two", b"three", b"four"]);
        // 1024 samples of 16 kHz are 5760 ticks.
        assert_eq!(
            heard.iter().map(|u| u.timestamp).collect::<Vec<_>>(),
            [9000, 14_760, 20_520, 26_280]
        );
        let Some(CodecParameters::Audio(parameters)) = heard[0].parameters.as_deref() else {
            panic!("parameters")
        };
        let config = AudioConfig::parse(&parameters.extra).unwrap();
        assert_eq!(
            (parameters.codec, config.sample_rate, config.channels),
            (AudioCodec::Aac, 16_000, 1)
        );
        assert!(named.is_empty());
    }
}

/// A PTS is that of the first frame that begins in its packet (ISO/IEC 13818-1 clause 2.4.3.7).
#[test]
fn aac_frames_across_packets_keep_their_time() {
    let mut stream = Stream::new(Some(0x0F));
    let second = adts(b"second");
    stream.sound(Some(9000), &[&adts(b"first")[..], &second[..9]].concat());
    stream.sound(Some(50_000), &[&second[9..], &adts(b"third")].concat());
    let (heard, _) = stream.heard();
    let units: Vec<_> = heard.iter().map(|u| (u.timestamp, &u.data[..])).collect();
    assert_eq!(units, [(9000, &b"first"[..]), (14_760, b"second"), (50_000, b"third")]);
}

#[test]
fn a_loss_in_sound_drops_the_packet_and_counts_on_from_the_next_time() {
    let mut stream = Stream::new(Some(0x90));
    for i in 0..4 {
        stream.sound(Some(9000 + 3600 * i), &[0xD5; 320]);
    }
    let first = stream.packets.0.len() - 4 * stream.packets.0.iter().filter(|p| p.data[0] == 0xD5).count() / 4;
    let next = stream.mux.picture(12_600, false, &h264_picture(false, b"next"));
    stream.packets.add(&next, 12_600, 1000);
    stream.packets = stream.packets.without(first + 2..first + 3);
    stream.sound(None, &[0xD5; 320]);
    let (heard, _) = stream.heard();
    assert!(heard.iter().all(|u| u.data.len() == 320), "{heard:?}");
    // One is missing; the next payload begins with a packet, and what has no time of its own goes on from there.
    let times: Vec<_> = heard.iter().map(|u| u.timestamp).collect();
    assert_eq!(times, [12_600, 16_200, 19_800, 23_400]);
}

#[test]
fn codecs_that_are_not_recorded_are_named_once() {
    for (kind, name) in [
        (0x92, "G.722.1 audio"),
        (0x93, "G.723.1 audio"),
        (0x99, "G.729 audio"),
        (0x80, "SVAC audio"),
        (0x77, "audio of stream type 0x77"),
    ] {
        let mut stream = Stream::new(Some(kind));
        stream.sound(Some(9000), &[0xD5; 320]);
        stream.sound(Some(9000), &[0xD5; 320]);
        let (heard, named) = stream.heard();
        assert_eq!((heard.len(), named), (0, vec![name.to_owned()]));
    }
}

#[test]
fn aac_without_headers_is_named_and_left_out() {
    let mut stream = Stream::new(Some(0x0F));
    for _ in 0..30 {
        stream.sound(Some(9000), &[0x21; 320]);
    }
    let (heard, named) = stream.heard();
    assert_eq!((heard.len(), named), (0, vec!["AAC without ADTS headers".to_owned()]));
}

#[test]
fn a_loss_is_told_with_sound_only_where_there_is_no_picture() {
    let (mux, mut packets) = (Mux::default(), Packets::default());
    for i in 0..3 {
        packets.add(
            &[mux.pack(i), mux.map_packet(), mux.sound(Some(3600 * i), &[0xD5; 320])].concat(),
            3600 * i,
            2000,
        );
    }
    let heard = demux(&packets.without(1..2));
    assert_eq!(heard.iter().map(|(_, u)| u.lost).collect::<Vec<_>>(), [0, 1]);
}
