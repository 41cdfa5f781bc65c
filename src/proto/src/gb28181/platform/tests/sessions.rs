//! INVITE, what devices answer, and how sessions end.

use super::*;
use crate::{
    gb28181::sdp::{MediaTransport, SessionKind, Setup, Ssrc, UnixRange},
    rtsp::Rate,
};

const CHANNEL: &str = "34020000001310000001";

const ANSWER: &str = "v=0\r\no=34020000001310000001 0 0 IN IP4 192.0.2.20\r\ns=Play\r\nc=IN IP4 192.0.2.20\r\nt=0 0\r\n\
                      m=video 15060 TCP/RTP/AVP 96\r\na=sendonly\r\na=rtpmap:96 PS/90000\r\na=setup:active\r\ny=0200000001\r\n";

fn invite(kind: SessionKind) -> Invite {
    Invite {
        device: id(CAMERA),
        channel: id(CHANNEL),
        kind,
        transport: MediaTransport::TcpPassive,
        media_port: 30_000,
        stream: None,
        ssrc: None,
    }
}

fn history() -> SessionKind {
    SessionKind::Playback(UnixRange {
        start_s: 1_795_200_000,
        end_s: 1_795_203_600,
    })
}

/// Invites: the dialog and the INVITE.
fn invited(rig: &mut Rig, kind: SessionKind) -> (DialogId, String) {
    rig.clear();
    let dialog = rig.platform.invite(rig.now, invite(kind)).unwrap();
    rig.collect();
    (dialog, rig.last("INVITE"))
}

fn ok(request: &str) -> String {
    let headers = format!("Contact: <sip:{CHANNEL}@10.9.9.9:5060>\r\nContent-Type: application/sdp\r\n");
    reply(request, "200 OK", &headers, ANSWER)
}

/// A session that runs.
fn running(rig: &mut Rig, kind: SessionKind) -> (DialogId, String) {
    let (dialog, request) = invited(rig, kind);
    rig.udp(home(), &ok(&request));
    rig.last("ACK");
    let events = rig.happened();
    assert!(
        matches!(&events[..], [Event::Answered { dialog: d, .. }] if *d == dialog),
        "{events:?}"
    );
    (dialog, request)
}

/// A request of the device inside the dialog.
fn inside(invite: &str, method: &str, cseq: u32, body: &str) -> String {
    format!(
        "{method} sip:{SERVER}@192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 10.9.9.9:5060;rport;branch=z9hG4bKin{cseq}\r\n\
         From: {};tag=dev1\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\nContent-Length: {}\r\n\r\n{body}",
        header(invite, "To"),
        header(invite, "From"),
        header(invite, "Call-ID"),
        body.len(),
    )
}

fn end_of_file(device: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><Notify><CmdType>MediaStatus</CmdType><SN>1</SN><DeviceID>{device}</DeviceID>\
         <NotifyType>121</NotifyType></Notify>"
    )
}

#[test]
fn an_invitation_is_sent_as_devices_know_it() {
    let mut rig = Rig::online();
    let (dialog, request) = invited(&mut rig, SessionKind::Play);
    assert!(request.starts_with(&format!("INVITE sip:{CHANNEL}@192.0.2.20:5070 SIP/2.0\r\n")));
    assert_eq!(header(&request, "Contact"), format!("<sip:{SERVER}@192.0.2.1:5060>"));
    assert_eq!(header(&request, "Content-Type"), "application/sdp");
    let y = between(&request, "\r\ny=", "\r\n");
    assert!(
        y.len() == 10 && y.starts_with("020000") && y.parse::<u32>().is_ok(),
        "{y}"
    );
    assert_eq!(header(&request, "Subject"), format!("{CHANNEL}:{y},{SERVER}:0"));
    assert!(request.contains("m=video 30000 TCP/RTP/AVP ") && request.contains("a=setup:passive"));
    assert!(request.contains("c=IN IP4 192.0.2.1\r\n"));

    rig.udp(home(), &reply(&request, "100 Trying", "", ""));
    assert!(rig.happened().is_empty());
    rig.udp(home(), &ok(&request));
    let ack = rig.last(&format!("ACK sip:{CHANNEL}@10.9.9.9:5060 SIP/2.0\r\n"));
    assert_eq!((header(&ack, "CSeq"), body(&ack)), ("1 ACK", ""));
    assert!(header(&ack, "To").ends_with(";tag=dev1"));
    assert_ne!(header(&ack, "Via"), header(&request, "Via"));
    let events = rig.happened();
    let [
        Event::Answered {
            dialog: answered,
            answer,
            ssrc,
            source,
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((*answered, *source), (dialog, home().ip()));
    assert_eq!(*ssrc, y.parse::<u32>().unwrap());
    assert_eq!((answer.port, answer.setup), (15_060, Some(Setup::Active)));
    assert_eq!(answer.ssrc, Ssrc::parse("0200000001"));

    // The answer comes again: it is acknowledged again, and nothing else happens.
    rig.udp(home(), &ok(&request));
    assert_eq!(rig.last("ACK"), ack);
    assert!(rig.happened().is_empty());
}

#[test]
fn an_invitation_is_sent_again_until_somebody_answers() {
    let mut rig = Rig::online();
    let (dialog, _) = invited(&mut rig, SessionKind::Play);
    rig.advance(33.0);
    // After 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 seconds.
    assert_eq!(rig.all("INVITE").len(), 6);
    let events = rig.happened();
    let [
        Event::InviteFailed {
            dialog: failed,
            status: None,
            ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(*failed, dialog);
    rig.advance(100.0);
    assert!(rig.all("INVITE").is_empty() && rig.platform.sessions.is_empty());
}

#[test]
fn a_refusal_is_acknowledged_and_told() {
    for (status, code) in [
        ("486 Busy Here", 486),
        ("488 Not Acceptable", 488),
        ("404 Not Found", 404),
    ] {
        let mut rig = Rig::online();
        let (dialog, request) = invited(&mut rig, SessionKind::Play);
        let no = reply(&request, status, "", "");
        rig.udp(home(), &no);
        let ack = rig.last("ACK");
        // This one belongs to the INVITE's own transaction.
        assert_eq!(header(&ack, "Via"), header(&request, "Via"));
        assert!(ack.starts_with(&format!("ACK sip:{CHANNEL}@192.0.2.20:5070 SIP/2.0\r\n")));
        let reason = status[4..].to_owned();
        let status = Some(code);
        assert_eq!(rig.happened(), [Event::InviteFailed { dialog, status, reason }]);
        rig.udp(home(), &no);
        assert_eq!(rig.last("ACK"), ack);
        assert!(rig.happened().is_empty());
    }
}

#[test]
fn a_device_that_only_rings_is_cancelled() {
    let mut rig = Rig::online();
    let (dialog, request) = invited(&mut rig, SessionKind::Play);
    rig.udp(home(), &reply(&request, "180 Ringing", "", ""));
    rig.udp(home(), &keepalive(CAMERA, 1));
    rig.clear();
    rig.advance(41.0);
    let cancel = rig.all("CANCEL").remove(0);
    assert_eq!(header(&cancel, "Via"), header(&request, "Via"));
    assert_eq!(
        (header(&cancel, "To"), header(&cancel, "CSeq")),
        (header(&request, "To"), "1 CANCEL")
    );
    let events = rig.happened();
    assert!(matches!(&events[..], [Event::InviteFailed { dialog: d, status: None, .. }] if *d == dialog));
    rig.udp(home(), &reply(&cancel, "200 OK", "", ""));
    rig.udp(home(), &reply(&request, "487 Request Terminated", "", ""));
    rig.last("ACK");
    assert!(rig.happened().is_empty() && rig.platform.sessions.is_empty());
}

#[test]
fn an_invitation_that_is_taken_back_ends_in_bye_if_the_answer_was_faster() {
    let mut rig = Rig::online();
    let (dialog, request) = invited(&mut rig, SessionKind::Play);
    rig.platform.bye(rig.now, dialog);
    rig.collect();
    assert!(rig.sent.is_empty(), "no CANCEL before a provisional answer");
    rig.udp(home(), &reply(&request, "100 Trying", "", ""));
    rig.last("CANCEL");
    rig.udp(home(), &ok(&request));
    let bye = rig.last("BYE");
    rig.udp(home(), &reply(&bye, "200 OK", "", ""));
    assert!(rig.happened().is_empty() && rig.platform.sessions.is_empty());
}

#[test]
fn an_answer_that_comes_too_late_is_turned_down() {
    let mut rig = Rig::online();
    let (_, request) = invited(&mut rig, SessionKind::Play);
    rig.advance(40.0);
    rig.udp(home(), &keepalive(CAMERA, 1));
    rig.clear();
    rig.udp(home(), &ok(&request));
    let sent = std::mem::take(&mut rig.sent);
    let [(_, ack), (_, bye)] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert!(ack.starts_with("ACK ") && bye.starts_with(&format!("BYE sip:{CHANNEL}@10.9.9.9:5060 ")));
    assert_eq!(header(bye, "CSeq"), "2 BYE");
    assert_eq!(header(bye, "Call-ID"), header(&request, "Call-ID"));
    // Not if a stranger says it.
    rig.udp(address("198.51.100.1:5060"), &ok(&request));
    assert!(rig.sent.is_empty());
}

#[test]
fn an_answer_that_cannot_be_used_ends_the_session() {
    let mut rig = Rig::online();
    let (dialog, request) = invited(&mut rig, SessionKind::Play);
    rig.udp(home(), &ok(&request).replace("PS/90000", "DAHUA/90000"));
    rig.last("BYE");
    let events = rig.happened();
    let [
        Event::InviteFailed {
            dialog: failed,
            status: None,
            reason,
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert!(*failed == dialog && reason.contains("DAHUA"), "{reason}");
}

#[test]
fn an_answer_without_a_description_agrees_to_the_offer() {
    let mut rig = Rig::online();
    let (_, request) = invited(&mut rig, SessionKind::Play);
    rig.udp(home(), &reply(&request, "200 OK", "", ""));
    rig.last("ACK");
    let events = rig.happened();
    let [Event::Answered { answer, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(answer.is_tcp && answer.setup == Some(Setup::Active), "{answer:?}");
    let ps = answer.formats.first().map(|f| (f.payload_type, f.encoding.as_str()));
    assert_eq!(ps, Some((96, "PS")));
}

#[test]
fn who_shall_listen_has_to_say_where() {
    let mut rig = Rig::online();
    rig.clear();
    let active = Invite {
        transport: MediaTransport::TcpActive,
        ..invite(SessionKind::Play)
    };
    rig.platform.invite(rig.now, active).unwrap();
    rig.collect();
    let request = rig.last("INVITE");
    rig.udp(home(), &reply(&request, "200 OK", "", ""));
    rig.last("BYE");
    let events = rig.happened();
    assert!(
        matches!(&events[..], [Event::InviteFailed { status: None, .. }]),
        "{events:?}"
    );
}

#[test]
fn our_bye_is_the_end_whatever_is_answered() {
    for status in ["200 OK", "481 Unknown"] {
        let mut rig = Rig::online();
        let (dialog, request) = running(&mut rig, SessionKind::Play);
        rig.platform.bye(rig.now, dialog);
        rig.collect();
        let bye = rig.last(&format!("BYE sip:{CHANNEL}@10.9.9.9:5060 SIP/2.0\r\n"));
        assert_eq!(header(&bye, "CSeq"), "2 BYE");
        assert_eq!(header(&bye, "From"), header(&request, "From"));
        rig.udp(home(), &reply(&bye, status, "", ""));
        assert!(rig.happened().is_empty() && rig.platform.sessions.is_empty() && rig.platform.calls.is_empty());
        rig.platform.bye(rig.now, dialog);
        rig.collect();
        assert!(rig.sent.is_empty());
    }
    // Nor does it need an answer.
    let mut rig = Rig::online();
    let (dialog, _) = running(&mut rig, SessionKind::Play);
    rig.platform.bye(rig.now, dialog);
    rig.advance(33.0);
    assert!(rig.happened().is_empty() && rig.platform.sessions.is_empty());
}

#[test]
fn the_devices_bye_is_the_end() {
    let mut rig = Rig::online();
    let (dialog, request) = running(&mut rig, SessionKind::Play);
    // From somewhere else, or with another tag, it is not the device's.
    rig.udp(address("198.51.100.1:5060"), &inside(&request, "BYE", 1, ""));
    rig.last("SIP/2.0 403");
    rig.udp(home(), &inside(&request, "BYE", 1, "").replace("dev1", "dev2"));
    rig.last("SIP/2.0 481");
    assert!(rig.happened().is_empty());
    rig.udp(home(), &inside(&request, "BYE", 2, ""));
    rig.last("SIP/2.0 200");
    let why = EndedWhy::Bye;
    assert_eq!(rig.happened(), [Event::Ended { dialog, why }]);
    rig.udp(home(), &inside(&request, "BYE", 2, ""));
    rig.last("SIP/2.0 200");
    rig.udp(home(), &inside(&request, "BYE", 3, ""));
    rig.last("SIP/2.0 481");
    assert!(rig.happened().is_empty());
}

#[test]
fn the_end_of_a_file_is_told_and_followed_by_bye() {
    for inside_dialog in [true, false] {
        let mut rig = Rig::online();
        let (dialog, request) = running(&mut rig, history());
        assert!(request.contains("s=Playback\r\n") && request.contains(&format!("u={CHANNEL}:0\r\n")));
        assert!(request.contains("t=1795200000 1795203600\r\n") && request.contains("\r\ny=1"));
        let status = if inside_dialog {
            inside(&request, "MESSAGE", 5, &end_of_file(CHANNEL))
        } else {
            message(CAMERA, 5, &end_of_file(CHANNEL))
        };
        rig.udp(home(), &status);
        rig.last("SIP/2.0 200");
        let why = EndedWhy::Complete;
        assert_eq!(rig.happened(), [Event::Ended { dialog, why }]);
        rig.platform.bye(rig.now, dialog);
        rig.collect();
        assert!(rig.all("BYE").is_empty(), "what is on its way may still come");
        rig.advance(2.1);
        let bye = rig.all("BYE").remove(0);
        rig.udp(home(), &reply(&bye, "200 OK", "", ""));
        assert!(rig.happened().is_empty() && rig.platform.sessions.is_empty());
    }
}

#[test]
fn the_end_of_a_file_is_not_that_of_a_live_session() {
    let mut rig = Rig::online();
    running(&mut rig, SessionKind::Play);
    rig.udp(home(), &message(CAMERA, 5, &end_of_file(CHANNEL)));
    assert!(rig.happened().is_empty());
}

#[test]
fn playback_is_steered_and_the_answers_are_told() {
    let mut rig = Rig::online();
    let (dialog, request) = running(&mut rig, history());
    let action = mansrtsp::Action::Play {
        range: None,
        scale: Rate::new(2.0),
    };
    rig.platform.info(rig.now, dialog, action).unwrap();
    rig.collect();
    let info = rig.last("INFO");
    assert_eq!(header(&info, "Call-ID"), header(&request, "Call-ID"));
    assert_eq!(
        (header(&info, "CSeq"), header(&info, "Content-Type")),
        ("2 INFO", "Application/MANSRTSP")
    );
    assert_eq!(body(&info), "PLAY RTSP/1.0\r\nCSeq: 1\r\nScale: 2.0\r\n\r\n");
    let rtsp = "RTSP/1.0 200 OK\r\nCSeq: 1\r\nRTP-Info: seq=7;rtptime=9\r\n\r\n";
    rig.udp(
        home(),
        &reply(&info, "200 OK", "Content-Type: Application/MANSRTSP\r\n", rtsp),
    );
    let events = rig.happened();
    let [
        Event::InfoAnswered {
            dialog: d,
            status: Some(200),
            answer: Some(answer),
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((*d, answer.seq, answer.rtptime), (dialog, Some(7), Some(9)));

    rig.platform.info(rig.now, dialog, mansrtsp::Action::Pause).unwrap();
    rig.collect();
    let info = rig.last("INFO");
    assert!(header(&info, "CSeq") == "3 INFO" && body(&info).contains("CSeq: 2\r\nPauseTime: now"));
    rig.udp(home(), &reply(&info, "481 Unknown", "", ""));
    let (status, answer, why) = (Some(481), None, EndedWhy::Forgotten);
    assert_eq!(
        rig.happened(),
        [
            Event::InfoAnswered { dialog, status, answer },
            Event::Ended { dialog, why }
        ]
    );
    let error = rig.platform.info(rig.now, dialog, mansrtsp::Action::Pause);
    assert_eq!(error, Err(CommandError::NoDialog(dialog)));
}

#[test]
fn unregistering_ends_sessions_and_silence_does_not() {
    let mut rig = Rig::online();
    let (dialog, _) = running(&mut rig, SessionKind::Play);
    rig.advance(200.0);
    let offline = |why| Event::Offline {
        device: id(CAMERA),
        why,
    };
    assert_eq!(rig.happened(), [offline(OfflineWhy::Silent)]);
    assert_eq!(rig.platform.sessions.len(), 1);
    rig.sent.clear();
    rig.udp(home(), &keepalive(CAMERA, 1));
    rig.clear();
    rig.udp(home(), &register(CAMERA, 3, 0, ""));
    let challenge = rig.last("SIP/2.0 401");
    rig.udp(
        home(),
        &register(CAMERA, 4, 0, &answer(&challenge, CAMERA, PASSWORD, Qop::Auth)),
    );
    let why = EndedWhy::Unregistered;
    assert_eq!(
        rig.happened(),
        [offline(OfflineWhy::Unregistered), Event::Ended { dialog, why }]
    );
    assert!(rig.platform.sessions.is_empty());
}

#[test]
fn a_session_goes_on_where_its_device_is_now() {
    let mut rig = Rig::online();
    let (dialog, _) = running(&mut rig, SessionKind::Play);
    let moved = address("192.0.2.20:7000");
    rig.udp(moved, &keepalive(CAMERA, 5));
    rig.clear();
    rig.platform.bye(rig.now, dialog);
    rig.collect();
    assert_eq!(
        rig.sent[0].0,
        Route::Udp {
            local: local(),
            peer: moved
        }
    );
}

#[test]
fn a_lost_connection_ends_what_waits_for_an_answer() {
    let mut rig = Rig::new();
    rig.connect(1, home());
    rig.tcp(1, &register(CAMERA, 1, 3600, ""));
    let challenge = rig.last("SIP/2.0 401");
    rig.tcp(
        1,
        &register(CAMERA, 2, 3600, &answer(&challenge, CAMERA, PASSWORD, Qop::Auth)),
    );
    rig.clear();
    let dialog = rig.platform.invite(rig.now, invite(SessionKind::Play)).unwrap();
    rig.collect();
    assert!(header(&rig.last("INVITE"), "Contact").ends_with(";transport=tcp>"));
    rig.advance(30.0);
    assert!(rig.all("INVITE").is_empty(), "nothing is sent twice over TCP");
    rig.clear();
    rig.disconnect(1);
    let events = rig.happened();
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::InviteFailed { dialog: d, .. } if *d == dialog)),
        "{events:?}"
    );
    assert!(rig.platform.transactions.is_empty() && rig.platform.queries.is_empty());
}

#[test]
fn numbers_of_streams_are_fresh() {
    let mut rig = Rig::online();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        let (dialog, request) = invited(&mut rig, SessionKind::Play);
        let y = between(&request, "\r\ny=", "\r\n").to_owned();
        assert!(seen.insert(y));
        rig.platform.bye(rig.now, dialog);
    }
    assert!(rig.platform.fresh_ssrc(true) >= 1_000_000_000);
    let ssrc = rig.platform.fresh_ssrc(false);
    let given = Invite {
        ssrc: Some(ssrc),
        ..invite(SessionKind::Play)
    };
    rig.platform.invite(rig.now, given).unwrap();
    rig.collect();
    assert!(rig.last("INVITE").contains(&format!("\r\ny={ssrc:010}\r\n")));
}
