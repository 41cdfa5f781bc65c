//! Tests of the way from media messages to access units.

use corenvr_media::VideoCodec;

use super::*;
use crate::bitstream::tests::{AV1_SEQUENCE, PPS_265, PPS_1080P, SPS_265, SPS_1080P, VPS_265, nal};

/// A first slice (IDR, I) and a first slice (P), and the second slice of such.
const IDR: &[u8] = &[0x65, 0x88, 0x80, 0x11];
const P: &[u8] = &[0x41, 0x9A, 0x02, 0x22];
const P_2: &[u8] = &[0x41, 0x26, 0x80, 0x44];
/// H.265: the first slice of an IDR picture and of a trailing one.
const IDR_265: &[u8] = &[0x26, 0x01, 0xAF, 0x11];
const TRAIL_265: &[u8] = &[0x02, 0x01, 0xD0, 0x22];

fn lengths(nals: &[&[u8]], len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for nal in nals {
        out.extend(&(nal.len() as u32).to_be_bytes()[4 - len..]);
        out.extend(*nal);
    }
    out
}

fn avcc(length_len: u8) -> Vec<u8> {
    let parameters = h264::parameters(&[&nal(SPS_1080P)], &[&nal(PPS_1080P)]).unwrap();
    let mut record = parameters.extra.to_vec();
    record[4] = 0xFC | (length_len - 1);
    record
}

fn hvcc() -> Vec<u8> {
    let parameters = h265::parameters(&[&nal(VPS_265)], &[&nal(SPS_265)], &[&nal(PPS_265)]).unwrap();
    parameters.extra.to_vec()
}

struct Feed {
    tracks: Tracks,
    video: Vec<AccessUnit>,
    audio: Vec<AccessUnit>,
}

impl Feed {
    fn new() -> Self {
        Self {
            tracks: Tracks::new(),
            video: Vec::new(),
            audio: Vec::new(),
        }
    }

    fn push(&mut self, kind: MediaMessageKind, timestamp: u32, parts: &[&[u8]]) -> Result<(), TrackError> {
        let result = self.tracks.push(&MediaMessage {
            kind,
            timestamp,
            payload: parts.concat().into(),
        });
        self.video.extend(std::iter::from_fn(|| self.tracks.poll_video()));
        self.audio.extend(std::iter::from_fn(|| self.tracks.poll_audio()));
        result
    }

    fn video(&mut self, timestamp: u32, parts: &[&[u8]]) {
        self.push(MediaMessageKind::Video, timestamp, parts).unwrap();
    }

    fn audio(&mut self, timestamp: u32, parts: &[&[u8]]) {
        self.push(MediaMessageKind::Audio, timestamp, parts).unwrap();
    }

    fn finish(&mut self) -> &[AccessUnit] {
        self.tracks.finish();
        self.video.extend(std::iter::from_fn(|| self.tracks.poll_video()));
        &self.video
    }
}

fn video_parameters(unit: &AccessUnit) -> (VideoCodec, u32, u32) {
    match unit.parameters.as_deref() {
        Some(CodecParameters::Video(v)) => (v.codec, v.width, v.height),
        other => panic!("{other:?}"),
    }
}

#[test]
fn h264_with_composition_times_and_any_length_size() {
    for length_len in 1..=4 {
        let mut feed = Feed::new();
        feed.video(0, &[b"\x17\x00\x00\x00\x00", &avcc(length_len as u8)]);
        feed.video(
            1000,
            &[
                b"\x17\x01\x00\x00\x50",
                &lengths(&[b"\x06\x05\x01\x80", IDR], length_len),
            ],
        );
        feed.video(1040, &[b"\x27\x01\x00\x00\xA0", &lengths(&[P, P_2], length_len)]);
        feed.video(1080, &[b"\x27\x01\xFF\xFF\xF0", &lengths(&[P], length_len)]);
        let units = feed.finish();
        let seen: Vec<_> = units.iter().map(|u| (u.timestamp, u.key, u.damaged)).collect();
        assert_eq!(seen, [(1080, true, false), (1200, false, false), (1064, false, false)]);
        assert_eq!(
            units[0].data,
            lengths(&[b"\x06\x05\x01\x80", IDR], 4),
            "parameter sets are not added"
        );
        assert_eq!(units[1].data, lengths(&[P, P_2], 4));
        assert_eq!(video_parameters(&units[0]), (VideoCodec::H264, 1920, 1080));
        assert!(units[1].parameters.is_none());
    }
}

#[test]
fn h265_legacy_and_enhanced_are_the_same() {
    for (configuration, key, rest) in [
        (
            &b"\x1C\x00\x00\x00\x00"[..],
            &b"\x1C\x01\x00\x00\x28"[..],
            &b"\x2C\x01\x00\x00\x00"[..],
        ),
        (b"\x90hvc1", b"\x91hvc1\x00\x00\x28", b"\xA3hvc1"),
    ] {
        let mut feed = Feed::new();
        feed.video(0, &[configuration, &hvcc()]);
        feed.video(0, &[key, &lengths(&[IDR_265], 4)]);
        feed.video(40, &[rest, &lengths(&[TRAIL_265], 4)]);
        let units = feed.finish();
        assert_eq!(
            units.iter().map(|u| (u.timestamp, u.key)).collect::<Vec<_>>(),
            [(40, true), (40, false)]
        );
        assert_eq!(video_parameters(&units[0]), (VideoCodec::H265, 1920, 1080));
    }
}

#[test]
fn parameter_sets_in_band_and_a_picture_in_several_messages() {
    let mut feed = Feed::new();
    let head = b"\x17\x01\x00\x00\x00";
    feed.video(0, &[head, &lengths(&[&nal(SPS_1080P)], 4)]);
    feed.video(0, &[head, &lengths(&[&nal(PPS_1080P)], 4)]);
    feed.video(0, &[head, &lengths(&[IDR], 4)]);
    feed.video(0, &[head, &lengths(&[&[0x65, 0x24, 0x80, 0x33]], 4)]);
    feed.video(40, &[head, &lengths(&[P], 4)]);
    let units = feed.finish();
    assert_eq!(units.len(), 2);
    let whole: &[&[u8]] = &[&nal(SPS_1080P), &nal(PPS_1080P), IDR, &[0x65, 0x24, 0x80, 0x33]];
    assert_eq!(units[0].data, lengths(whole, 4));
    assert_eq!(video_parameters(&units[0]), (VideoCodec::H264, 1920, 1080));
}

#[test]
fn a_steady_stream_comes_out_without_delay() {
    let mut feed = Feed::new();
    feed.video(0, &[b"\x17\x00\x00\x00\x00", &avcc(4)]);
    for n in 0..40u32 {
        let (head, nal) = if n == 0 {
            (b"\x17\x01\0\0\0", IDR)
        } else {
            (b"\x27\x01\0\0\0", P)
        };
        feed.video(n * 40, &[head, &lengths(&[nal], 4)]);
        assert_eq!(feed.video.len() as u32, if n < 16 { n } else { n + 1 }, "message {n}");
    }
}

#[test]
fn a_byte_stream_instead_of_lengths() {
    let mut feed = Feed::new();
    let start: &[u8] = &[0, 0, 0, 1];
    let (sps, pps) = (nal(SPS_1080P), nal(PPS_1080P));
    feed.video(0, &[b"\x17\x00\x00\x00\x00", start, &sps, start, &pps]);
    feed.video(0, &[b"\x17\x01\x00\x00\x00", start, b"\x09\xF0", start, IDR]);
    let units = feed.finish();
    assert_eq!(units[0].data, lengths(&[b"\x09\xF0", IDR], 4));
    assert_eq!(video_parameters(&units[0]), (VideoCodec::H264, 1920, 1080));
}

#[test]
fn a_length_past_the_end_damages_its_unit_and_no_other() {
    let mut feed = Feed::new();
    feed.video(0, &[b"\x17\x00\x00\x00\x00", &avcc(4)]);
    feed.video(0, &[b"\x17\x01\x00\x00\x00", &lengths(&[IDR], 4)]);
    let mut broken = lengths(&[P, P_2], 4);
    broken.truncate(broken.len() - 1);
    let error = feed.push(MediaMessageKind::Video, 40, &[b"\x27\x01\x00\x00\x00", &broken]);
    assert!(matches!(error, Err(TrackError::Tag(_))), "{error:?}");
    feed.video(80, &[b"\x27\x01\x00\x00\x00", &lengths(&[P], 4)]);
    feed.video(120, &[b"\x27\x01\x00\x00\x00", &lengths(&[P], 4)]);
    let units = feed.finish();
    let seen: Vec<_> = units.iter().map(|u| (u.timestamp, u.lost, u.damaged)).collect();
    assert_eq!(units[1].data, lengths(&[P], 4), "what is whole");
    assert_eq!(seen[0], (0, 0, false));
    assert_eq!(seen[1], (40, 1, true));
    assert_eq!(seen[3], (120, 0, false));
}

#[test]
fn other_parameters_are_told_with_the_first_unit_that_has_them() {
    let mut feed = Feed::new();
    feed.video(0, &[b"\x17\x00\x00\x00\x00", &avcc(4)]);
    feed.video(0, &[b"\x17\x01\x00\x00\x00", &lengths(&[IDR], 4)]);
    feed.video(40, &[b"\x17\x00\x00\x00\x00", &avcc(4)]);
    feed.video(40, &[b"\x17\x01\x00\x00\x00", &lengths(&[IDR], 4)]);
    let mut level = avcc(4);
    level[8 + 3] = 50;
    feed.video(80, &[b"\x17\x00\x00\x00\x00", &level]);
    feed.video(80, &[b"\x17\x01\x00\x00\x00", &lengths(&[IDR], 4)]);
    feed.video(120, &[b"\x90hvc1", &hvcc()]);
    feed.video(120, &[b"\x93hvc1", &lengths(&[IDR_265], 4)]);
    let told: Vec<_> = feed.finish().iter().map(|u| u.parameters.is_some()).collect();
    assert_eq!(told, [true, false, true, true]);
}

#[test]
fn time_wraps() {
    let mut feed = Feed::new();
    feed.video(0, &[b"\x17\x00\x00\x00\x00", &avcc(4)]);
    feed.video(0xFFFF_FFF0, &[b"\x17\x01\x00\x00\x50", &lengths(&[IDR], 4)]);
    feed.video(0x20, &[b"\x27\x01\xFF\xFF\xC0", &lengths(&[P], 4)]);
    let times: Vec<_> = feed.finish().iter().map(|u| u.timestamp).collect();
    assert_eq!(times, [0x40, 0xFFFF_FFE0]);
}

#[test]
fn av1_has_its_sequence_header_from_the_record() {
    let mut feed = Feed::new();
    let sequence = nal(AV1_SEQUENCE);
    feed.video(0, &[b"\x90av01", &[0x81, 0, 0, 0], &sequence]);
    assert!(feed.tracks.video_parameters().is_some());
    // A temporal delimiter, a key frame of two bytes, then another frame.
    feed.video(0, &[b"\x91av01", b"\x12\x00", b"\x32\x02\x10\x00"]);
    feed.video(40, &[b"\xA1av01", b"\x32\x02\x30\x00"]);
    let units = feed.finish();
    assert_eq!(
        units.iter().map(|u| (u.timestamp, u.key)).collect::<Vec<_>>(),
        [(0, true), (40, false)]
    );
    assert_eq!(units[0].data, &b"\x32\x02\x10\x00"[..]);
    assert_eq!(video_parameters(&units[0]), (VideoCodec::Av1, 1280, 720));
}

#[test]
fn sound_of_every_codec() {
    let sound = |parameters: Option<&Arc<CodecParameters>>| match parameters.map(|p| &**p) {
        Some(CodecParameters::Audio(a)) => (a.codec, a.sample_rate, a.channels, a.extra.len()),
        other => panic!("{other:?}"),
    };
    let mut feed = Feed::new();
    assert!(
        feed.push(MediaMessageKind::Audio, 0, &[b"\xAF\x01aac"]).is_err(),
        "before its configuration"
    );
    feed.audio(0, &[b"\xAF\x00\x12\x10"]);
    feed.audio(0, &[b"\xAF\x01aac"]);
    feed.audio(0, &[b"\xAF\x00\x12\x10"]);
    feed.audio(23, &[b"\xAF\x01aad"]);
    feed.audio(46, &[b"\xAF\x01"]);
    feed.audio(60, &[b"\x82law"]);
    feed.audio(80, &[b"\x72law"]);
    feed.audio(100, &[b"\x91Opus\x04x"]);
    feed.audio(100, &[b"\x90Opus", &opus::head(2)]);
    feed.audio(120, &[b"\x91Opus\x00x"]);
    let told: Vec<_> = feed.audio.iter().map(|u| u.parameters.is_some()).collect();
    assert_eq!(told, [true, false, true, true, true, false]);
    let of = |index: usize| sound(feed.audio[index].parameters.as_ref());
    assert_eq!(of(0), (AudioCodec::Aac, 44_100, 2, 2));
    assert_eq!(of(2), (AudioCodec::Pcmu, 8000, 1, 0));
    assert_eq!(of(3), (AudioCodec::Pcma, 8000, 1, 0));
    assert_eq!(of(4), (AudioCodec::Opus, 48_000, 2, 19));
    assert_eq!(feed.audio[1].data, &b"aad"[..]);
    assert_eq!((feed.audio[1].timestamp, feed.audio[1].key), (23, true));
}

#[test]
fn the_pre_skip_of_opus_is_not_kept() {
    let mut head = opus::head(2).to_vec();
    head[10..12].copy_from_slice(&312u16.to_le_bytes());
    assert_eq!(opus_parameters(&head).unwrap().extra, opus::head(2));
    assert!(opus_parameters(b"OpusHead").is_none());
}

#[test]
fn what_is_not_recorded_is_named_once() {
    let mut feed = Feed::new();
    for _ in 0..3 {
        feed.audio(0, &[b"\x2Fmp3"]);
        feed.video(0, &[b"\x90vp09x"]);
        feed.video(0, &[b"\xA6\x03avc1\x01nal"]);
    }
    let expected = [
        "sound: MP3 (codec 2) is not supported",
        "video: codec \"vp09\" is not supported",
        "further video tracks: only the first is recorded",
    ];
    assert_eq!(feed.tracks.not_recorded(), expected);
    for n in 0..100u8 {
        feed.video(0, &[&[0x90, b'x', b'x', b'x', n, 0]]);
    }
    assert_eq!(feed.tracks.not_recorded().len(), NOT_RECORDED_MAX);
    assert!(feed.video.is_empty() && feed.audio.is_empty());
}
