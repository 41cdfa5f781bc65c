//! Sessions as devices make them: sources, payload types, order, loss and restarts.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use corenvr_media::{AudioCodec, CodecParameters, VideoCodec};

use super::*;
use crate::{
    gb28181::media::TcpFraming,
    ps::tests::{Mux, h264_picture, h265_picture, picture_bytes},
};

const SSRC: u32 = 200_001_234;

/// A device and the receiver that gets its packets.
struct Session {
    receiver: MediaReceiver,
    now: Instant,
    sequence: u16,
    ssrc: u32,
    received: Vec<Received>,
}

fn format(payload_type: u8, encoding: &str, clock_rate: u32) -> PayloadFormat {
    PayloadFormat {
        payload_type,
        encoding: encoding.to_owned(),
        clock_rate,
    }
}

fn ps() -> Vec<PayloadFormat> {
    vec![format(96, "PS", 90_000)]
}

fn wire(payload_type: u8, marker: bool, sequence: u16, timestamp: u32, ssrc: u32, payload: &[u8]) -> Bytes {
    let mut packet = vec![0x80, payload_type | u8::from(marker) << 7];
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet.into()
}

impl Session {
    fn new(formats: &[PayloadFormat], in_order: bool) -> Self {
        Self {
            receiver: MediaReceiver::new(formats, Some(SSRC), in_order, true).unwrap(),
            now: Instant::now(),
            sequence: 65_530,
            ssrc: SSRC,
            received: Vec::new(),
        }
    }

    fn deliver(&mut self, packet: Bytes) {
        self.receiver.packet(self.now, packet);
        self.poll();
    }

    fn poll(&mut self) {
        let (receiver, now) = (&mut self.receiver, self.now);
        self.received.extend(std::iter::from_fn(|| receiver.poll(now)));
    }

    fn packets(&mut self, payload_type: u8, timestamp: u32, stream: &[u8], len: usize) -> Vec<Bytes> {
        let count = stream.len().div_ceil(len);
        let parts = stream.chunks(len).enumerate();
        parts
            .map(|(i, part)| {
                let sequence = self.sequence;
                self.sequence = sequence.wrapping_add(1);
                wire(payload_type, i + 1 == count, sequence, timestamp, self.ssrc, part)
            })
            .collect()
    }

    fn send(&mut self, payload_type: u8, timestamp: u32, stream: &[u8]) {
        for packet in self.packets(payload_type, timestamp, stream, 100) {
            self.deliver(packet);
        }
    }

    /// Pictures `from..to` of a stream with a key picture at each fourth.
    fn pictures(&mut self, from: u32, to: u32) {
        for i in from..to {
            let stream = picture(i);
            self.send(96, i * 3600, &stream);
        }
    }

    fn end(&mut self) {
        self.receiver.flush(self.now);
        self.poll();
    }

    /// Time stamp, bytes and damage of the pictures.
    fn video(&self) -> Vec<(u32, Bytes, bool)> {
        self.units(Track::Video)
            .map(|u| (u.timestamp, u.data.clone(), u.damaged))
            .collect()
    }

    fn units(&self, of: Track) -> impl Iterator<Item = &AccessUnit> {
        self.received.iter().filter_map(move |r| match r {
            Received::Unit { track, unit } if *track == of => Some(unit),
            _ => None,
        })
    }
}

fn nals(i: u32) -> Vec<Vec<u8>> {
    h264_picture(i.is_multiple_of(4), &[i as u8; 250])
}

fn picture(i: u32) -> Vec<u8> {
    Mux::default().picture(u64::from(i) * 3600, i.is_multiple_of(4), &nals(i))
}

fn expected(range: std::ops::Range<u32>) -> Vec<(u32, Bytes, bool)> {
    range.map(|i| (i * 3600, picture_bytes(&nals(i)), false)).collect()
}

#[test]
fn a_session_as_it_should_be() {
    for in_order in [true, false] {
        let mut session = Session::new(&ps(), in_order);
        session.pictures(0, 8);
        session.end();
        assert!(session.video() == expected(0..8));
        assert_eq!(session.receiver.counts(), ReceiverCounts::default());
        assert_eq!(session.receiver.ssrc(), Some(SSRC));
        assert!(!session.receiver.take_key_frame_wish());
        assert!(
            session
                .receiver
                .report(session.now)
                .is_some_and(|r| r.ssrc == SSRC && r.lost == 0)
        );
    }
}

/// Seen with Dahua (source 0) and many others.
#[test]
fn a_source_of_the_devices_own_is_the_sessions_and_others_are_dropped() {
    for own in [0, 77] {
        let mut session = Session::new(&ps(), false);
        session.ssrc = own;
        session.pictures(0, 2);
        for sequence in 0..5 {
            session.deliver(wire(96, true, sequence, 0, 99, &picture(0)));
        }
        session.pictures(2, 4);
        session.end();
        assert!(session.video() == expected(0..4));
        assert_eq!(
            session.receiver.counts(),
            ReceiverCounts {
                foreign_ssrc: 5,
                ..ReceiverCounts::default()
            }
        );
    }
}

/// Stragglers of the session that had the port before come first.
#[test]
fn the_source_asked_for_displaces_one_that_came_first() {
    for in_order in [true, false] {
        let mut session = Session::new(&ps(), in_order);
        session.ssrc = 55;
        session.pictures(100, 101);
        session.ssrc = SSRC;
        session.sequence = 7;
        session.pictures(0, 4);
        session.deliver(wire(96, true, 9, 0, 55, &picture(3)));
        session.end();
        let video = session.video();
        assert!(video[video.len() - 4..] == expected(0..4));
        let restarts = session
            .received
            .iter()
            .filter(|r| matches!(r, Received::Restart(_)))
            .count();
        let counts = session.receiver.counts();
        assert_eq!(
            (
                restarts,
                counts.reorder.restarts,
                counts.foreign_ssrc,
                counts.reorder.lost
            ),
            (2, 1, 1, 0)
        );
    }
}

#[test]
fn packets_out_of_order_are_put_in_order() {
    let mut session = Session::new(&ps(), false);
    let mut packets: Vec<_> = (0..40)
        .flat_map(|i| session.packets(96, i * 3600, &picture(i), 60))
        .collect();
    for chunk in packets.chunks_mut(120).skip(1) {
        chunk.reverse();
    }
    for packet in packets {
        session.now += Duration::from_millis(1);
        session.deliver(packet);
    }
    session.end();
    assert!(session.video() == expected(0..40));
    assert_eq!(session.receiver.counts(), ReceiverCounts::default());
}

/// Packets that come twice, a header extension that looks like a start code, padding, and markers on every packet.
#[test]
fn what_rtp_allows_beside_the_payload_changes_nothing() {
    let mut session = Session::new(&ps(), false);
    let packets: Vec<_> = (0..8)
        .flat_map(|i| session.packets(96, i * 3600, &picture(i), 60))
        .collect();
    for packet in &packets {
        let mut wire = packet[..12].to_vec();
        wire[0] |= 0x30;
        wire[1] |= 0x80;
        wire.extend([0, 0x40, 0, 1, 0, 0, 1, 0xE0]);
        wire.extend(&packet[12..]);
        wire.extend([0, 0, 0, 4]);
        session.deliver(wire.clone().into());
        session.deliver(wire.into());
    }
    session.receiver.end(session.now);
    session.poll();
    assert!(session.video() == expected(0..8));
    assert_eq!(session.receiver.counts().reorder.late, packets.len() as u64);
    assert_eq!(
        (
            session.receiver.counts().reorder.lost,
            session.receiver.counts().malformed
        ),
        (0, 0)
    );
}

#[test]
fn lost_packets_are_counted_exactly_and_a_key_frame_is_wished_for_once() {
    let mut session = Session::new(&ps(), false);
    let packets: Vec<_> = (0..12)
        .flat_map(|i| session.packets(96, i * 3600, &picture(i), 60))
        .collect();
    let per_gop = packets.len() / 3;
    for (i, packet) in packets.into_iter().enumerate() {
        session.now += Duration::from_millis(1);
        if i != per_gop - 2 && i != per_gop - 4 && i != per_gop - 5 {
            session.deliver(packet);
        }
    }
    assert!(session.receiver.poll_timeout().is_some_and(|at| at > session.now));
    session.now += Duration::from_secs(1);
    session.poll();
    session.end();
    assert_eq!(session.receiver.counts().reorder.lost, 3);
    assert_eq!(session.units(Track::Video).map(|u| u.lost).sum::<u32>(), 3);
    let video = session.video();
    assert!(video[video.len() - 8..] == expected(4..12));
    assert!(session.receiver.take_key_frame_wish() && !session.receiver.take_key_frame_wish());
    assert_eq!(session.receiver.report(session.now).map(|r| r.lost), Some(3));
}

#[test]
fn a_restart_of_the_sender_is_told_and_nothing_is_joined_over_it() {
    let mut session = Session::new(&ps(), true);
    session.pictures(0, 2);
    let half = picture(2);
    session.send(96, 7200, &half[..half.len() / 2]);
    session.sequence = session.sequence.wrapping_add(20_000);
    session.pictures(100, 104);
    session.end();
    let at = session
        .received
        .iter()
        .position(|r| *r == Received::Restart(Track::Video))
        .unwrap();
    assert_eq!(session.received[at + 1], Received::Restart(Track::Audio));
    let video = session.video();
    assert!(video[..2] == expected(0..2) && video[video.len() - 4..] == expected(100..104));
    assert!(session.receiver.take_key_frame_wish());
}

#[test]
fn a_program_stream_is_one_whatever_its_type_says() {
    for formats in [
        vec![],
        ps(),
        vec![format(98, "H264", 90_000)],
        vec![format(120, "H265", 90_000)],
    ] {
        let mut session = Session::new(&formats, true);
        for i in 0..4 {
            session.send(98, i * 3600, &picture(i));
        }
        session.end();
        assert!(session.video() == expected(0..4), "{formats:?}");
        assert!(session.receiver.not_recorded().is_empty());
    }
}

#[test]
fn video_without_a_container_is_taken_by_its_type() {
    for (formats, payload_type, h265) in [
        (vec![format(98, "H264", 90_000)], 98, false),
        (vec![], 98, false),
        (vec![], 99, true),
        (vec![], 100, true),
        (vec![format(99, "H264", 90_000)], 99, false),
    ] {
        let mut session = Session::new(&formats, true);
        let nals = |i: u32| {
            if h265 {
                h265_picture(i == 0, &[i as u8; 40])
            } else {
                h264_picture(i == 0, &[i as u8; 40])
            }
        };
        for i in 0..3 {
            let all = nals(i);
            for (n, nal) in all.iter().enumerate() {
                let sequence = session.sequence;
                session.sequence = sequence.wrapping_add(1);
                session.deliver(wire(payload_type, n + 1 == all.len(), sequence, i * 3600, SSRC, nal));
            }
        }
        session.end();
        let want: Vec<_> = (0..3).map(|i| (i * 3600, picture_bytes(&nals(i)), false)).collect();
        assert!(session.video() == want);
        let parameters = session.units(Track::Video).next().unwrap().parameters.clone();
        let codec = if h265 { VideoCodec::H265 } else { VideoCodec::H264 };
        assert!(matches!(parameters.as_deref(), Some(CodecParameters::Video(v)) if v.codec == codec));
    }
}

/// Sound beside video in the same sequence: what is lost is told with video only, and damages what it may be of.
#[test]
fn loss_without_a_container_reaches_both_tracks_and_is_told_once() {
    let mut session = Session::new(&[format(98, "H264", 90_000), format(8, "PCMA", 8000)], true);
    let send = |session: &mut Session, payload_type, timestamp, payload: &[u8], lost: bool| {
        if !lost {
            session.deliver(wire(payload_type, false, session.sequence, timestamp, SSRC, payload));
        }
        session.sequence = session.sequence.wrapping_add(1);
    };
    for i in 0..8u32 {
        for (n, nal) in nals(i).iter().enumerate() {
            send(&mut session, 98, i * 3600, nal, i == 1 && n == 1);
        }
        send(&mut session, 8, i * 320, &[0xD5; 320], false);
    }
    session.end();
    assert_eq!(session.receiver.counts().reorder.lost, 1);
    assert_eq!(
        session.units(Track::Video).map(|u| u.lost).collect::<Vec<_>>(),
        [0, 1, 0, 0, 0, 0, 0, 0]
    );
    let damaged: Vec<_> = session.units(Track::Video).map(|u| u.damaged).collect();
    assert_eq!(damaged, [false, true, true, true, false, false, false, false]);
    assert_eq!(session.units(Track::Audio).map(|u| u.lost).sum::<u32>(), 0);
    assert_eq!(
        session.units(Track::Audio).map(|u| u.timestamp).collect::<Vec<_>>(),
        (0..8).map(|i| i * 320).collect::<Vec<_>>()
    );
    assert_eq!(session.receiver.clock_rates(), (90_000, 8000));
}

#[test]
fn aac_without_a_container_comes_with_adts_or_by_rfc_3640() {
    let adts = [0xFF, 0xF1, 0x60, 0x40, 0x01, 0x7F, 0xFC, 0x21, 0x10, 0x04, 0x60];
    let rfc3640 = [0, 16, 0, 4 << 3, 0x21, 0x10, 0x04, 0x60];
    for (formats, payload, words) in [
        (vec![format(102, "MPEG4-GENERIC", 16_000)], &adts[..], None),
        (vec![format(102, "MPEG4-GENERIC", 16_000)], &rfc3640, None),
        (vec![], &adts, None),
        (vec![], &rfc3640, Some("AAC of an unknown sampling rate")),
    ] {
        let mut session = Session::new(&formats, true);
        session.deliver(wire(102, true, 1, 500, SSRC, payload));
        let units: Vec<_> = session.units(Track::Audio).collect();
        assert_eq!(session.receiver.not_recorded().first().map(String::as_str), words);
        assert_eq!(units.len(), usize::from(words.is_none()));
        if let [unit] = units[..] {
            assert_eq!((&unit.data[..], unit.timestamp), (&[0x21, 0x10, 0x04, 0x60][..], 500));
            assert!(
                matches!(unit.parameters.as_deref(), Some(CodecParameters::Audio(a)) if a.codec == AudioCodec::Aac && a.sample_rate == 16_000)
            );
        }
    }
}

#[test]
fn without_audio_no_sound_comes_out() {
    for audio in [true, false] {
        let mut receiver = MediaReceiver::new(&ps(), None, true, audio).unwrap();
        let (mux, now) = (Mux::default(), Instant::now());
        let stream = [mux.picture(0, true, &nals(0)), mux.sound(Some(0), &[0xD5; 320])].concat();
        receiver.packet(now, wire(96, true, 1, 0, 1, &stream));
        receiver.flush(now);
        let units: Vec<_> = std::iter::from_fn(|| receiver.poll(now)).collect();
        let heard = units
            .iter()
            .filter(|r| {
                matches!(
                    r,
                    Received::Unit {
                        track: Track::Audio,
                        ..
                    }
                )
            })
            .count();
        assert_eq!(heard, usize::from(audio));
    }
}

#[test]
fn private_streams_are_refused_in_words() {
    for (formats, want) in [
        (
            vec![format(96, "DAHUA", 90_000)],
            "the device sends DAHUA/90000, a private stream of its vendor",
        ),
        (vec![format(96, "HIKVISION", 90_000)], "a private stream of its vendor"),
        (
            vec![format(97, "MPEG4", 90_000), format(99, "SVAC", 90_000)],
            "MPEG4/90000, SVAC/90000, which corenvr does not record",
        ),
    ] {
        let refused = MediaReceiver::new(&formats, None, true, true).unwrap_err().to_string();
        assert!(refused.contains(want), "{refused}");
    }
    let mut session = Session::new(&ps(), true);
    session.send(96, 0, b"DHAV\xFD\0\0\0");
    session.send(96, 0, b"DHAV\xFD\0\0\0");
    assert_eq!(
        session.receiver.not_recorded(),
        ["a private stream of its vendor, set the device to PS"]
    );
    let mut session = Session::new(&[format(96, "PS", 90_000), format(97, "SVACA", 8000)], true);
    session.send(97, 0, b"sound");
    session.send(120, 0, b"?");
    assert_eq!(session.receiver.not_recorded(), ["SVACA/8000", "payload type 120"]);
}

#[test]
fn what_is_no_packet_is_counted_and_reports_are_read() {
    let mut session = Session::new(&ps(), true);
    session.deliver(Bytes::from_static(b"GET / HTTP/1.1"));
    session.deliver(Bytes::from_static(&[0x80]));
    session.pictures(0, 1);
    let mut report = vec![0x80, 200, 0, 6];
    report.extend(SSRC.to_be_bytes());
    report.extend([0, 0, 0, 1, 0, 2, 0, 0]);
    report.extend([0; 12]);
    session.deliver(report.clone().into());
    session.now += Duration::from_secs(2);
    let block = session.receiver.report(session.now).unwrap();
    assert_eq!((block.last_sender_report, block.delay_since), (0x0001_0002, 2 << 16));
    assert_eq!(
        session.receiver.counts(),
        ReceiverCounts {
            malformed: 2,
            ..ReceiverCounts::default()
        }
    );
}

/// A device without markers: only its word tells that the last picture is there.
#[test]
fn the_last_picture_comes_out_whole_where_the_device_says_that_it_ends() {
    for (said, last) in [(true, false), (false, true)] {
        let mut session = Session::new(&ps(), true);
        for i in 0..2 {
            let sequence = session.sequence;
            session.sequence += 1;
            session.deliver(wire(96, false, sequence, i * 3600, SSRC, &picture(i)));
        }
        if said {
            session.receiver.end(session.now);
        }
        session.end();
        let mut want = expected(0..2);
        if last {
            want[1].1 = picture_bytes(&nals(1)[..1]);
            want[1].2 = true;
        }
        assert!(session.video() == want);
    }
}

/// Prints what a packet of a 4 Mbit/s stream costs from the framing to the access unit; run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_packet() {
    let mut session = Session::new(&ps(), true);
    let mut stream = BytesMut::new();
    let mut seed = 1u32;
    for i in 0..500u32 {
        let key = i.is_multiple_of(50);
        let len = if key { 120_000 } else { 17_500 };
        let tag: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .take(len / if key { 2 } else { 1 })
        .collect();
        let nals = h264_picture(key, &tag);
        let nals = if key { &nals[..] } else { &nals[..1] };
        let picture = Mux::default().picture(u64::from(i) * 3600, key, nals);
        for packet in session.packets(96, i * 3600, &picture, 1400) {
            stream.extend_from_slice(&(packet.len() as u16).to_be_bytes());
            stream.extend_from_slice(&packet);
        }
    }
    let (rounds, mut packets, mut bytes) = (20, 0, 0);
    let start = Instant::now();
    for _ in 0..rounds {
        let mut receiver = MediaReceiver::new(&ps(), Some(SSRC), true, true).unwrap();
        let (mut framing, mut input) = (TcpFraming::new(), stream.clone());
        while let Some(packet) = framing.next_packet(&mut input) {
            packets += 1;
            receiver.packet(start, packet);
            while let Some(received) = receiver.poll(start) {
                let Received::Unit { unit, .. } = received else {
                    continue;
                };
                bytes += unit.data.len();
            }
        }
    }
    println!(
        "{:?} a packet; {packets} packets, {bytes} bytes out",
        start.elapsed() / packets
    );
}
