//! Descriptions as cameras send them, and our own read again.

use std::time::Duration;

use corenvr_media::{TimeRange, WallTime};
use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> SessionDescription {
    SessionDescription::parse(text.as_bytes()).unwrap()
}

fn brief(m: &Media) -> Vec<String> {
    m.formats
        .iter()
        .map(|f| format!("{} {f} {}", f.payload_type, f.channels))
        .collect()
}

const HIKVISION: &str = "v=0\r\no=- 16 16 IN IP4 10.0.0.1\r\ns=Media Presentation\r\ne=NONE\r\nb=AS:5050\r\nt=0 0\r\n\
    a=control:rtsp://10.0.0.1:554/Streaming/Channels/101/?transportmode=unicast\r\n\
    m=video 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\na=recvonly\r\na=x-dimensions:1920,1080\r\n\
    a=control:rtsp://10.0.0.1:554/Streaming/Channels/101/trackID=1?transportmode=unicast\r\n\
    a=rtpmap:96 H264/90000\r\na=fmtp:96 profile-level-id=420029; packetization-mode=1; sprop-parameter-sets=Z00AKZ==,aO48gA==\r\n\
    m=application 0 RTP/AVP 107\r\na=control:trackID=3\r\na=rtpmap:107 vnd.onvif.metadata/90000\r\n\
    a=Media_header:MEDIAINFO=494D4B48;\r\na=appversion:1.0\r\n";

#[test]
fn hikvision() {
    let s = parse(HIKVISION);
    assert_eq!(s.name, "Media Presentation");
    assert!(s.control.as_ref().unwrap().ends_with("?transportmode=unicast"));
    assert_eq!(s.media.len(), 2);
    let video = &s.media[0];
    assert_eq!((video.kind, video.direction), (MediaKind::Video, Direction::RecvOnly));
    assert_eq!(brief(video), ["96 H264/90000 1"]);
    let f = &video.formats[0];
    assert_eq!(f.parameter("packetization-mode"), Some("1"));
    assert_eq!(f.parameter("sprop-parameter-sets"), Some("Z00AKZ==,aO48gA=="));
    assert_eq!(s.media[1].kind, MediaKind::Other);
    assert_eq!(s.media[1].formats[0].encoding, "VND.ONVIF.METADATA");
}

/// Dahua: `control:*`, a live range, a frame rate, static PCMA.
#[test]
fn dahua() {
    let s = parse(
        "v=0\na=control:*\na=packetization-supported:DH\na=range:npt=now-\nm=video 0 RTP/AVP 98\na=control:trackID=0\n\
         a=framerate:12.500000\na=rtpmap:98 H265/90000\na=fmtp:98 profile-id=1;sprop-sps=QgEB\na=recvonly\n\
         m=audio 0 RTP/AVP 8\na=control:trackID=1\na=rtpmap:8 PCMA/8000\n",
    );
    assert_eq!(s.control.as_deref(), Some("*"));
    assert_eq!(s.range.unwrap().to_string(), "npt=now-");
    assert_eq!(s.media[0].frame_rate_milli, Some(12_500));
    assert_eq!(s.media[0].control.as_deref(), Some("trackID=0"));
    assert_eq!(brief(&s.media[1]), ["8 PCMA/8000 1"]);
}

/// `VStarcam`: no session control, blanks behind the payload type. Foscam: static PCMU without rtpmap.
#[test]
fn missing_lines_and_blanks() {
    let s = parse("m=audio 0 RTP/AVP 8\t \r\na=control:track1\r\na=rtpmap:8 PCMA/8000/1 \r\nm=audio 0 RTP/AVP 0\r\n");
    assert_eq!((s.control, s.name.as_str()), (None, ""));
    assert_eq!(brief(&s.media[0]), ["8 PCMA/8000 1"]);
    assert_eq!(brief(&s.media[1]), ["0 PCMU/8000 1"]);
    assert_eq!(s.media[1].control, None);
}

/// Ubiquiti sends an empty `fmtp`, TP-Link a format that is no number on a media line of its own kind, and a camera with
/// the attributes in reverse order.
#[test]
fn oddities() {
    let s = parse(
        "m=video 0 RTP/AVP 96 smart/1/90000 200\na=fmtp:96\na=rtpmap:96 H264/90000\na=fmtp:97 a=b\na=control:\na=control:one\na=control:two",
    );
    assert_eq!(brief(&s.media[0]), ["96 H264/90000 1"]);
    assert!(s.media[0].formats[0].parameters.is_empty());
    assert_eq!(s.media[0].control.as_deref(), Some("one"));
    let s = parse("m=application/TP-LINK 0 RTP/AVP smart/1/90000\na=rtpmap:95 x\nm=video 0 RTP/AVP 96\n");
    assert_eq!((s.media[0].kind, s.media[0].formats.len()), (MediaKind::Other, 0));
    // A dynamic payload type that nothing describes keeps a clock and no name.
    assert_eq!(
        (
            s.media[1].formats[0].encoding.as_str(),
            s.media[1].formats[0].clock_rate
        ),
        ("", 90_000)
    );
}

#[test]
fn several_formats_of_one_line() {
    let s = parse(
        "m=audio 5004/2 RTP/AVP 97 0 8 97 3\na=rtpmap:97 mpeg4-generic/48000/2\n\
         a=fmtp:97 streamtype=5;profile-level-id=1;mode=AAC-hbr;sizeLength=13;indexLength=3;config=1190;Flag\na=rtpmap:8 PCMA/0/0\n",
    );
    let m = &s.media[0];
    assert_eq!((m.port, m.proto.as_str()), (5004, "RTP/AVP"));
    assert_eq!(
        brief(m),
        [
            "97 MPEG4-GENERIC/48000 2",
            "0 PCMU/8000 1",
            "8 PCMA/8000 1",
            "3 GSM/8000 1"
        ]
    );
    assert_eq!(m.formats[0].parameter("sizelength"), Some("13"));
    assert_eq!(m.formats[0].parameter("mode"), Some("AAC-hbr"));
    assert_eq!(m.formats[0].parameter("flag"), Some(""));
}

#[test]
fn frame_rates() {
    let rate = |v: &str| parse(&format!("m=video 0 RTP/AVP 96\na=framerate:{v}\n")).media[0].frame_rate_milli;
    assert_eq!(rate("25"), Some(25_000));
    assert_eq!(rate("29.97"), Some(29_970));
    assert_eq!(rate("30000/1001"), Some(29_970));
    for bad in ["0", "-5", "NaN", "inf", "1e9", "1/0", "x", ""] {
        assert_eq!(rate(bad), None, "{bad}");
    }
}

/// Dahua and Hikvision with ONVIF's `www.onvif.org/ver20/backchannel`.
#[test]
fn a_backchannel_is_told_from_media() {
    let s =
        parse("m=video 0 RTP/AVP 96\na=recvonly\nm=audio 0 RTP/AVP 0\na=recvonly\nm=audio 0 RTP/AVP 0\na=sendonly\n");
    assert_eq!([0, 1, 2, 3].map(|i| s.is_backchannel(i)), [false, false, true, false]);
    let s = parse("a=sendonly\nm=video 0 RTP/AVP 96\nm=audio 0 RTP/AVP 0\n");
    assert_eq!([0, 1].map(|i| s.is_backchannel(i)), [false, false]);
}

#[test]
fn limits_and_refusals() {
    assert_eq!(SessionDescription::parse(b""), Err(SdpError::NoMedia));
    assert_eq!(SessionDescription::parse(b"v=0\r\n<html>"), Err(SdpError::NoMedia));
    assert_eq!(parse(&"m=video 0 RTP/AVP 96\n".repeat(100)).media.len(), MEDIA_MAX);
    let many = format!(
        "m=video 0 RTP/AVP {}\n",
        (0..128).map(|n| n.to_string()).collect::<Vec<_>>().join(" ")
    );
    assert_eq!(parse(&many).media[0].formats.len(), FORMATS_MAX);
    let long = format!("m=video 0 RTP/AVP 96\na=fmtp:96 {}\n", "a=b;".repeat(1000));
    assert_eq!(parse(&long).media[0].formats[0].parameters.len(), PARAMETERS_MAX);
}

fn description() -> Description {
    Description {
        name: "yard\r\na=evil".into(),
        origin: [192, 0, 2, 1].into(),
        version: 7,
        control: "rtsp://h/yard?start=x".into(),
        length: Some(Duration::from_micros(3_600_500_999)),
        clock: None,
        media: vec![
            DescribedMedia {
                format: MediaFormat {
                    kind: MediaKind::Video,
                    payload_type: 96,
                    encoding: "H264".into(),
                    clock_rate: 90_000,
                    channels: 1,
                    parameters: vec![
                        ("packetization-mode".into(), "1".into()),
                        ("sprop-parameter-sets".into(), "Zw==,aA==".into()),
                    ],
                },
                control: "rtsp://h/yard/track1?start=x".into(),
                onvif_track: Some("VIDEO001".into()),
                frame_rate: Some((30_000, 1001)),
            },
            DescribedMedia {
                format: MediaFormat {
                    kind: MediaKind::Audio,
                    payload_type: 97,
                    encoding: "OPUS".into(),
                    clock_rate: 48_000,
                    channels: 2,
                    parameters: Vec::new(),
                },
                control: "rtsp://h/yard/track2?start=x".into(),
                onvif_track: None,
                frame_rate: None,
            },
        ],
    }
}

#[test]
fn our_own_description() {
    let text = description().to_string();
    assert_eq!(
        text,
        "v=0\r\no=- 7 7 IN IP4 192.0.2.1\r\ns=yarda=evil\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n\
         a=control:rtsp://h/yard?start=x\r\na=range:npt=0-3600.500\r\n\
         m=video 0 RTP/AVP 96\r\na=control:rtsp://h/yard/track1?start=x\r\na=rtpmap:96 H264/90000\r\n\
         a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Zw==,aA==\r\na=framerate:29.970\r\na=x-onvif-track:VIDEO001\r\na=sendonly\r\n\
         m=audio 0 RTP/AVP 97\r\na=control:rtsp://h/yard/track2?start=x\r\na=rtpmap:97 OPUS/48000/2\r\na=sendonly\r\n"
    );
    let read = parse(&text);
    let written = description();
    assert_eq!(
        read.range,
        Some(Range::npt(Duration::ZERO, Duration::from_millis(3_600_500)))
    );
    for (r, w) in read.media.iter().zip(&written.media) {
        assert_eq!(r.formats, std::slice::from_ref(&w.format));
        assert_eq!(r.control.as_ref(), Some(&w.control));
        assert_eq!(r.onvif_track, w.onvif_track);
    }
    assert_eq!(read.media[0].frame_rate_milli, Some(29_970));
}

#[test]
fn ranges_are_written_where_asked_only() {
    let mut d = description();
    d.length = None;
    assert!(!d.to_string().contains("a=range"));
    let t = |s| WallTime::parse(s).unwrap();
    d.clock = TimeRange::new(t("2026-11-20T10:00:00Z"), t("2026-11-20T11:00:00.5Z"));
    assert!(
        d.to_string()
            .contains("a=range:clock=20261120T100000Z-20261120T110000.5Z\r\n")
    );
    d.name = String::new();
    d.origin = "::1".parse().unwrap();
    assert!(d.to_string().contains("IN IP6 ::1\r\ns= \r\n"));
}

proptest! {
    #[test]
    fn arbitrary_bytes(data in prop::collection::vec(any::<u8>(), 0..600)) {
        crate::rtsp::fuzzing::sdp(&data);
    }

    #[test]
    fn mutated_descriptions(edits in prop::collection::vec((0..HIKVISION.len(), any::<u8>()), 0..12)) {
        let mut data = HIKVISION.as_bytes().to_vec();
        for (at, b) in edits {
            data[at] = b;
        }
        crate::rtsp::fuzzing::sdp(&data);
    }

    #[test]
    fn lines_of_the_right_alphabet(text in "(m=(video|audio) 0 RTP/AVP 96\n)?(a=(rtpmap|fmtp|range|framerate|control):[0-9a-z=;/. ]{0,20}\n){0,8}") {
        crate::rtsp::fuzzing::sdp(text.as_bytes());
    }
}
