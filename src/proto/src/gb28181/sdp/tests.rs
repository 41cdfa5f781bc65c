//! What is offered, and answers of the field.

use super::*;

const CHANNEL: &str = "34020000001320000001";

fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

fn offer(session: SessionKind, transport: MediaTransport) -> Offer {
    Offer {
        origin: id(CHANNEL),
        channel: Some(id(CHANNEL)),
        session,
        address: "192.168.1.2".parse().unwrap(),
        port: 30000,
        transport,
        ssrc: Some(Ssrc::new(session.is_history(), "3402000000", 1234)),
        stream: None,
        formats: Vec::new(),
    }
}

const RANGE: UnixRange = UnixRange {
    start_s: 1_763_700_000,
    end_s: 1_763_703_600,
};

/// An answer with these lines behind its time.
fn answer(rest: &str) -> Result<Answer, GbSdpError> {
    let head = format!("v=0\no={CHANNEL} 0 0 IN IP4 10.0.0.9\ns=Play\nc=IN IP4 10.0.0.9\nt=0 0\n");
    Answer::parse(format!("{head}{rest}").replace('\n', "\r\n").as_bytes())
}

#[test]
fn a_live_offer_over_udp() {
    let text = offer(SessionKind::Play, MediaTransport::Udp).to_string();
    let expected = "v=0\no=34020000001320000001 0 0 IN IP4 192.168.1.2\ns=Play\nc=IN IP4 192.168.1.2\nt=0 0\n\
         m=video 30000 RTP/AVP 96 97 98 99\na=recvonly\na=rtpmap:96 PS/90000\na=rtpmap:98 H264/90000\n\
         a=rtpmap:97 MPEG4/90000\na=rtpmap:99 H265/90000\ny=0200001234\nf=v/////a///\n";
    assert_eq!(text, expected.replace('\n', "\r\n"));
}

#[test]
fn an_offer_over_tcp_says_who_connects() {
    let passive = offer(SessionKind::Play, MediaTransport::TcpPassive).to_string();
    assert!(passive.contains("m=video 30000 TCP/RTP/AVP 96 97 98 99\r\n"));
    assert!(passive.contains("a=setup:passive\r\na=connection:new\r\n"));
    let active = offer(SessionKind::Play, MediaTransport::TcpActive).to_string();
    assert!(active.contains("a=setup:active\r\na=connection:new\r\n"));
}

#[test]
fn an_offer_of_history_names_channel_and_times() {
    let playback = offer(SessionKind::Playback(RANGE), MediaTransport::Udp).to_string();
    assert!(
        playback
            .contains("s=Playback\r\nu=34020000001320000001:0\r\nc=IN IP4 192.168.1.2\r\nt=1763700000 1763703600\r\n")
    );
    assert!(playback.contains("y=1200001234\r\n"));
    let session = SessionKind::Download {
        range: RANGE,
        speed: Some(4),
    };
    let download = offer(session, MediaTransport::TcpPassive).to_string();
    assert!(download.contains("s=Download\r\n") && download.contains("a=downloadspeed:4\r\ny="));
}

#[test]
fn a_stream_is_chosen_in_every_spelling() {
    let mut sub = offer(SessionKind::Play, MediaTransport::Udp);
    sub.stream = Some(StreamChoice::Sub);
    let text = sub.to_string();
    assert!(text.contains("a=streamnumber:1\r\na=streamprofile:1\r\na=streamMode:SUB\r\n"));
    for (line, stream) in [
        ("a=streamnumber:0", StreamChoice::Main),
        ("a=streamProfile:1", StreamChoice::Sub),
        ("a=streamMode:main", StreamChoice::Main),
    ] {
        let other = text.replace("a=streamnumber:1\r\na=streamprofile:1\r\na=streamMode:SUB", line);
        assert_eq!(Offer::parse(other.as_bytes()).unwrap().stream, Some(stream), "{line}");
    }
}

#[test]
fn offers_read_as_written() {
    for session in [
        SessionKind::Play,
        SessionKind::Playback(RANGE),
        SessionKind::Download {
            range: RANGE,
            speed: Some(8),
        },
        SessionKind::Download {
            range: RANGE,
            speed: None,
        },
    ] {
        for transport in [
            MediaTransport::Udp,
            MediaTransport::TcpPassive,
            MediaTransport::TcpActive,
        ] {
            let written = offer(session, transport);
            let mut read = Offer::parse(written.to_string().as_bytes()).unwrap();
            let payloads: Vec<_> = read.formats.iter().map(Payload::of).collect();
            assert_eq!(
                payloads,
                [Payload::Ps, Payload::Mpeg4, Payload::H264, Payload::H265].map(Some)
            );
            read.formats.clear();
            read.channel = Some(id(CHANNEL));
            assert_eq!(read, written);
        }
    }
}

#[test]
fn an_upper_platform_may_leave_out_the_number() {
    let text = offer(SessionKind::Play, MediaTransport::Udp).to_string();
    assert_eq!(
        Offer::parse(text.replace("y=0200001234\r\n", "").as_bytes())
            .unwrap()
            .ssrc,
        None
    );
}

#[test]
fn an_offer_that_leaves_things_open_is_refused() {
    let text = offer(SessionKind::Playback(RANGE), MediaTransport::Udp).to_string();
    for (from, to, lacks) in [
        ("s=Playback", "s=Talk", "s= (Play, or Playback or Download with t=)"),
        (
            "t=1763700000 1763703600",
            "t=1763700000",
            "s= (Play, or Playback or Download with t=)",
        ),
        ("c=IN IP4 192.168.1.2", "c=IN IP4 platform", "address in c="),
        ("m=video 30000", "m=video 0", "port in m="),
    ] {
        assert_eq!(
            Offer::parse(text.replace(from, to).as_bytes()),
            Err(GbSdpError::Lacks(lacks)),
            "{to}"
        );
    }
    let audio = text.replace("m=video", "m=audio");
    assert_eq!(Offer::parse(audio.as_bytes()), Err(GbSdpError::NoVideo));
}

#[test]
fn an_ordinary_answer() {
    let read = answer("m=video 15060 TCP/RTP/AVP 96\na=setup:active\na=connection:new\na=sendonly\na=rtpmap:96 PS/90000\na=filesize:1048576\ny=0200001234\nf=v/2/4///a/1/8/1\n").unwrap();
    assert_eq!(
        (read.origin, read.session),
        (Some(id(CHANNEL)), Some(SessionKind::Play))
    );
    assert_eq!((read.address, read.port), (Some("10.0.0.9".parse().unwrap()), 15060));
    assert_eq!((read.is_tcp, read.setup), (true, Some(Setup::Active)));
    assert_eq!(read.ssrc.map(Ssrc::value), Some(200_001_234));
    assert_eq!((read.payload(96), read.payload(98)), (Some(Payload::Ps), None));
    assert_eq!(
        (read.parameters.as_str(), read.file_bytes),
        ("v/2/4///a/1/8/1", Some(1_048_576))
    );
}

#[test]
fn answers_read_as_written() {
    let read = answer("m=video 15060 TCP/RTP/AVP 96 8\na=setup:passive\na=rtpmap:96 PS/90000\na=rtpmap:8 PCMA/8000\na=filesize:7\ny=0000000007\nf=v/2\n").unwrap();
    assert_eq!(Answer::parse(read.to_string().as_bytes()), Ok(read));
    let control = answer("m=video 1 RTP/AVP 96\na=rtpmap:96 PS/90000\nf=\u{1} v/2\u{1}\n").unwrap();
    assert_eq!(control.parameters, "v/2");
}

#[test]
fn numbers_that_devices_answer() {
    let ssrc = |line: &str| {
        answer(&format!("m=video 1 RTP/AVP 96\na=rtpmap:96 PS/90000\n{line}\n"))
            .unwrap()
            .ssrc
    };
    // Dahua says 0, others something of their own, or what no packet can carry.
    assert_eq!(ssrc("y=0").map(Ssrc::value), Some(0));
    assert_eq!(ssrc("y=0999999999").map(Ssrc::value), Some(999_999_999));
    for line in ["", "y=", "y=9999999999", "y=12345678901", "y=abc", "y=-1"] {
        assert_eq!(ssrc(line), None, "{line}");
    }
}

#[test]
fn the_answers_rtpmap_decides() {
    let payload = |pt: u8, map: &str| answer(&format!("m=video 1 RTP/AVP {pt}\n{map}\n")).unwrap().payload(pt);
    assert_eq!(payload(98, "a=rtpmap:98 PS/90000"), Some(Payload::Ps));
    assert_eq!(payload(96, "a=rtpmap:96 H265/90000"), Some(Payload::H265));
    assert_eq!(payload(99, "a=rtpmap:99 SVAC/90000"), Some(Payload::Svac));
    assert_eq!(payload(100, "a=rtpmap:100 h265/90000"), Some(Payload::H265));
    // Without one the number says what it said in the offer.
    assert_eq!(
        [96, 97, 98, 99, 100, 8].map(|pt| payload(pt, "")),
        [
            Payload::Ps,
            Payload::Mpeg4,
            Payload::H264,
            Payload::H265,
            Payload::H265,
            Payload::Pcma
        ]
        .map(Some)
    );
    assert_eq!(payload(111, ""), None);
    assert_eq!(payload(96, "a=rtpmap:96 X-UNKNOWN/90000"), None);
}

#[test]
fn private_streams_are_refused_by_name() {
    for name in ["DAHUA/90000", "HIKVISION/90000"] {
        let private = answer(&format!("m=video 1 RTP/AVP 96\na=rtpmap:96 {name}\n"));
        assert_eq!(private, Err(GbSdpError::Private(name.to_owned())));
    }
    let both = answer("m=video 1 RTP/AVP 97 96\na=rtpmap:97 DAHUA/90000\na=rtpmap:96 PS/90000\n").unwrap();
    assert_eq!((both.formats.len(), both.payload(96)), (1, Some(Payload::Ps)));
}

#[test]
fn careless_answers_are_read() {
    // Line feeds only, another session name, audio first with an address of its own, roles in capitals, y= in another section.
    let text = "v=0\no=- 0 0 IN IP4 x\ns=Embedded Net DVR\nt=0 0\nm=audio 9 RTP/AVP 8\nc=IN IP4 1.1.1.1\na=setup:passive\nm=video 6000 rtp/avp 96\nc=IN IP4 10.0.0.9\n\
                a=SETUP:ACTIVE\na=rtpmap:96 PS/90000\nm=audio 0 RTP/AVP 8\ny=0000000001\n";
    let read = Answer::parse(text.as_bytes()).unwrap();
    assert_eq!(
        (read.origin, read.session, read.port, read.is_tcp),
        (None, None, 6000, false)
    );
    assert_eq!(
        (read.address, read.setup),
        (Some("10.0.0.9".parse().unwrap()), Some(Setup::Active))
    );
    assert_eq!(read.ssrc.map(Ssrc::value), Some(1));
}

#[test]
fn what_holds_no_video_is_refused() {
    assert_eq!(Answer::parse(b""), Err(GbSdpError::NoVideo));
    assert_eq!(answer("m=audio 1 RTP/AVP 8\n"), Err(GbSdpError::NoVideo));
    assert_eq!(answer("m=video 1 RTP/AVP\n"), Err(GbSdpError::NoFormat));
    assert_eq!(answer("m=video 1 RTP/AVP 200 x\n"), Err(GbSdpError::NoFormat));
}

#[test]
fn the_number_has_kind_domain_and_serial() {
    assert_eq!(Ssrc::new(false, "3402000000", 1234).to_string(), "0200001234");
    assert_eq!(Ssrc::new(true, "3410050000", 7).to_string(), "1005000007");
    assert_eq!(Ssrc::new(true, "9999999999", u16::MAX).value(), 1_999_995_535);
    assert_eq!(Ssrc::new(false, "34", 1).to_string(), "0000000001");
    assert_eq!(Ssrc::parse(" 0200001234 ").map(Ssrc::value), Some(200_001_234));
}
