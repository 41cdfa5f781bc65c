//! What cameras do that RFC 2326 does not say.

use super::*;

/// Some cameras answer with the `CSeq` of another request, or none.
#[test]
fn wrong_or_missing_cseq() {
    let mut c = Camera::new(Lower::Tcp);
    c.expect("OPTIONS");
    c.send(b"RTSP/1.0 200 OK\r\n\r\n");
    c.expect("DESCRIBE");
    c.send(
        format!(
            "RTSP/1.0 200 OK\r\nCSeq: 77\r\nContent-Length: {}\r\n\r\n{SDP}",
            SDP.len()
        )
        .as_bytes(),
    );
    assert!(matches!(c.event(), Event::Described(_)));
    // An answer to nothing is passed over, and so is an interim one.
    c.send(b"RTSP/1.0 500 Oops\r\nCSeq: 1\r\n\r\n");
    c.select(&[0]);
    c.expect("SETUP");
    c.send(b"RTSP/1.0 100 Continue\r\nCSeq: 3\r\n\r\n");
    assert_eq!(c.client.poll_event(), None);
}

/// Some cameras name the session in PLAY first, and change it there.
#[test]
fn the_session_may_come_late_and_change() {
    let mut c = Camera::new(Lower::Tcp);
    c.described("", SDP);
    c.select(&[0, 1]);
    c.ok("SETUP", "Transport: RTP/AVP/TCP;interleaved=0-1\r\n");
    let r = c.ok("SETUP", "Session: one\r\nTransport: RTP/AVP/TCP;interleaved=2-3\r\n");
    assert_eq!(r.headers.get("Session"), None);
    let r = c.ok("PLAY", "Session: two;timeout=10\r\n");
    assert_eq!(r.headers.get("Session"), Some("one"));
    assert_eq!(c.wait(), Duration::from_secs(5));
    assert_eq!(c.expect("GET_PARAMETER").headers.get("Session"), Some("two"));
}

/// `v4l2rtspserver` on Xiaomi Dafang sends packets before it answers PLAY.
#[test]
fn packets_before_the_answer_to_play() {
    let mut c = Camera::new(Lower::Tcp);
    c.described("", SDP);
    c.select(&[0]);
    c.ok("SETUP", "Session: 1\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n");
    c.event();
    c.send(b"$\x00\x00\x01a$\x09\x00\x01b");
    assert!(matches!(c.event(), Event::Rtp { stream: 0, .. }));
    assert_eq!(c.client.poll_event(), None);
    assert_eq!(c.client.oddities(), (0, 1));
    c.ok("PLAY", "");
    assert!(matches!(c.event(), Event::Playing { .. }));
}

/// Cameras that number the channels by themselves: `interleaved=8-9` for what was asked as 2-3; one channel only; the same
/// pair twice; no Transport header at all.
#[test]
fn channels_other_than_asked() {
    let granted = |headers: [&str; 2]| {
        let mut c = Camera::new(Lower::Tcp);
        c.described("", SDP);
        c.select(&[0, 1]);
        headers.map(|h| {
            c.ok("SETUP", &format!("Session: 1\r\n{h}\r\n"));
            match c.event() {
                Event::SetUp {
                    transport: Granted::Interleaved { rtp, rtcp },
                    ..
                } => (rtp, rtcp),
                other => panic!("{other:?}"),
            }
        })
    };
    let t = |c: &str| format!("Transport: RTP/AVP/TCP;unicast;interleaved={c}");
    assert_eq!(granted([&t("6-7"), &t("8-9")]), [(6, 7), (8, 9)]);
    assert_eq!(granted([&t("4"), &t("0-1")]), [(4, 5), (0, 1)]);
    assert_eq!(granted([&t("0-1"), &t("0-1")]), [(0, 1), (2, 3)]);
    assert_eq!(granted([&t("2-3"), &t("2-3")]), [(2, 3), (4, 5)]);
    assert_eq!(granted(["X: y", "Transport: RTP/AVP/TCP"]), [(0, 1), (2, 3)]);
}

#[test]
fn a_refused_second_stream_does_not_stop_the_first() {
    let mut c = Camera::new(Lower::Tcp);
    c.described("", SDP);
    c.select(&[0, 1]);
    c.ok("SETUP", "Session: 1\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n");
    c.event();
    let r = c.expect("SETUP");
    c.answer(&r, "500 Internal Server Error", "", "");
    assert_eq!(
        c.event(),
        Event::SetupRefused {
            stream: 1,
            status: StatusCode::INTERNAL_SERVER_ERROR
        }
    );
    c.expect("PLAY");
}

/// GW Security GW4089IP names another host and path in RTP-Info; the order of two streams is never guessed.
#[test]
fn wrong_rtp_info() {
    let info = |media: &[usize], header: &str| {
        let mut c = Camera::new(Lower::Tcp);
        c.described("Content-Base: rtsp://cam/live/\r\n", SDP);
        c.select(media);
        for _ in media {
            c.ok("SETUP", "Session: 1\r\n");
            c.event();
        }
        c.ok("PLAY", &format!("RTP-Info: {header}\r\n"));
        match c.event() {
            Event::Playing { info, .. } => info.into_iter().map(|i| i.and_then(|s| s.seq)).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        info(
            &[0],
            "url=rtsp://192.168.1.110:5050/H264/video;seq=271;rtptime=1621990950"
        ),
        [Some(271)]
    );
    assert_eq!(info(&[0, 1], "url=rtsp://x/y;seq=1,url=rtsp://x/z;seq=2"), [None, None]);
    assert_eq!(
        info(&[0, 1], "url=trackID=11;seq=1,url=/trackID=2;seq=2"),
        [None, Some(2)]
    );
    assert_eq!(info(&[0], ";;;"), [None]);
}

#[test]
fn a_range_that_is_refused_is_left_out() {
    let mut c = Camera::new(Lower::Tcp);
    c.described("", SDP);
    c.select(&[0]);
    c.ok("SETUP", "Session: 1\r\n");
    c.event();
    let r = c.expect("PLAY");
    c.answer(&r, "457 Invalid Range", "", "");
    let r = c.expect("PLAY");
    assert_eq!(r.headers.get("Range"), None);
    c.answer(&r, "457 Invalid Range", "", "");
    assert!(matches!(
        c.ended(),
        EndReason::Refused {
            status: StatusCode::INVALID_RANGE,
            ..
        }
    ));
}

#[test]
fn keepalive_by_what_the_camera_knows() {
    let mut c = Camera::playing("OPTIONS, DESCRIBE", "1;timeout=60");
    assert_eq!(c.wait(), Duration::from_secs(30));
    assert_eq!(c.ok("OPTIONS", "").headers.get("Session"), Some("1"));
    for refusal in [
        "405 Method Not Allowed",
        "501 Not Implemented",
        "451 Parameter Not Understood",
    ] {
        let mut c = Camera::playing("GET_PARAMETER", "1");
        c.wait();
        let r = c.expect("GET_PARAMETER");
        c.answer(&r, refusal, "", "");
        assert_eq!(c.wait(), Duration::ZERO, "asked again at once: {refusal}");
        c.ok("OPTIONS", "");
        c.wait();
        c.ok("OPTIONS", "");
        assert_eq!(c.client.poll_event(), None);
    }
    // The shortest timeouts do not make a flood, the longest no silence.
    for (timeout, interval) in [(1, 2), (4_000_000_000_u32, 30)] {
        let mut c = Camera::playing("OPTIONS", &format!("1;timeout={timeout}"));
        assert_eq!(c.wait(), Duration::from_secs(interval));
    }
}

#[test]
fn keepalive_that_is_never_answered_does_not_stop_the_stream() {
    let mut c = Camera::playing("GET_PARAMETER", "1");
    c.wait();
    let late = c.expect("GET_PARAMETER");
    assert_eq!(c.wait(), RESPONSE_TIMEOUT);
    assert_eq!(c.client.poll_event(), None);
    c.wait();
    let r = c.expect("OPTIONS");
    // The old answer at last: not one to this request.
    c.answer(&late, "454 Session Not Found", "", "");
    assert_eq!(c.client.poll_event(), None);
    c.answer(&r, "200 OK", "", "");
    c.wait();
    c.expect("OPTIONS");
}

#[test]
fn a_lost_session_ends_it() {
    let mut c = Camera::playing("GET_PARAMETER", "1");
    c.wait();
    let r = c.expect("GET_PARAMETER");
    c.answer(&r, "454 Session Not Found", "", "");
    assert_eq!(c.ended(), EndReason::SessionLost);
}

#[test]
fn requests_of_the_camera_are_answered() {
    let mut c = Camera::playing("OPTIONS", "1");
    for (request, status) in [
        ("OPTIONS * RTSP/1.0", StatusCode::OK),
        ("ANNOUNCE rtsp://cam/live RTSP/1.0", StatusCode::OK),
        ("SET_PARAMETER rtsp://cam/live RTSP/1.0", StatusCode::OK),
        ("RECORD rtsp://cam/live RTSP/1.0", StatusCode::NOT_IMPLEMENTED),
    ] {
        c.send(format!("{request}\r\nCSeq: 1001\r\nSession: 1\r\n\r\n").as_bytes());
        let Message::Response(r) = c.read() else { panic!() };
        assert_eq!(
            (r.status, r.headers.cseq(), r.headers.get("Session")),
            (status, Some(1001), Some("1"))
        );
    }
    c.send(b"REDIRECT rtsp://cam/live RTSP/1.0\r\nCSeq: 1\r\nLocation: rtsp://other/live\r\n\r\n");
    assert!(matches!(c.event(), Event::Redirect(url) if url.host() == "other"));
    let mut c = Camera::playing("OPTIONS", "1");
    c.send(b"TEARDOWN rtsp://cam/live RTSP/1.0\r\nCSeq: 1\r\n\r\n");
    assert_eq!(c.ended(), EndReason::SessionLost);
    let mut c = Camera::playing("OPTIONS", "1");
    c.client.handle_input(
        c.now,
        &mut BytesMut::from("OPTIONS * RTSP/1.0\r\n\r\n".repeat(1000).as_bytes()),
    );
    assert!(matches!(c.ended(), EndReason::Violation { .. }));
}

#[test]
fn rtcp_beyond_the_queue_is_dropped() {
    let mut c = Camera::playing("OPTIONS", "1");
    for _ in 0..1000 {
        c.client.send_rtcp(0, b"rr");
    }
    assert_eq!(
        std::iter::from_fn(|| c.client.poll_transmit()).count(),
        TRANSMIT_QUEUE_MAX
    );
    c.client.send_rtcp(9, b"no such stream");
    assert!(c.silent());
}

/// Anjvision and SV3C name the base without a scheme; Dahua puts the query before the track.
#[test]
fn control_urls_of_cameras() {
    let setup = |base: &str, sdp: &str| {
        let mut c = Camera::new(Lower::Tcp);
        c.described(base, sdp);
        c.select(&[0]);
        let setup = c.ok("SETUP", "Session: 1\r\n");
        c.event();
        (setup.uri, c.expect("PLAY").uri)
    };
    assert_eq!(
        setup("Content-Base: 192.168.1.10:554/stream0/\r\n", SDP),
        (
            "rtsp://192.168.1.10:554/stream0/trackID=1".into(),
            "rtsp://192.168.1.10:554/stream0/".into()
        )
    );
    assert_eq!(
        setup("Content-Base: rtsp://cam/r?channel=1&subtype=2/\r\n", SDP),
        (
            "rtsp://cam/r?channel=1&subtype=2/trackID=1".into(),
            "rtsp://cam/r?channel=1&subtype=2/".into()
        )
    );
    assert_eq!(
        setup("", "m=video 0 RTP/AVP 96\n"),
        ("rtsp://cam/live".into(), "rtsp://cam/live".into())
    );
    assert_eq!(
        setup(
            "",
            "a=control:rtsp://cam/all\nm=video 0 RTP/AVP 96\na=control:rtsp://cam/one\n"
        ),
        ("rtsp://cam/one".into(), "rtsp://cam/all".into())
    );
}

/// A camera that wants a login for its keepalives and takes none sends on all the same.
#[test]
fn a_keepalive_that_is_never_authorized_does_not_stop_the_stream() {
    let mut c = Camera::playing("OPTIONS", "1");
    c.wait();
    for nonce in 0..4 {
        let r = c.expect("OPTIONS");
        let challenge = format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"{nonce}\", stale=true\r\n");
        c.answer(&r, "401 Unauthorized", &challenge, "");
    }
    assert!(c.silent());
    assert_eq!(c.client.poll_event(), None);
    c.wait();
    c.expect("OPTIONS");
}
