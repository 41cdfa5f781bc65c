//! REGISTER in every manner that devices have.

use super::*;

fn refused(rig: &Rig) -> Vec<(RefusedWhy, u64)> {
    rig.platform.refused().map(|r| (r.why, r.count)).collect()
}

/// The challenge that a REGISTER gets.
fn challenged(rig: &mut Rig) -> String {
    rig.udp(home(), &register(CAMERA, 1, 3600, ""));
    rig.last("SIP/2.0 401")
}

#[test]
fn a_device_registers_and_is_told_where_it_came_from_and_the_time() {
    let mut rig = Rig::new();
    let challenge = challenged(&mut rig);
    let www = header(&challenge, "WWW-Authenticate");
    assert!(www.starts_with("Digest realm=\"3402000000\", nonce=\""), "{www}");
    assert!(www.ends_with(", algorithm=MD5, qop=\"auth\""), "{www}");
    let via = header(&challenge, "Via");
    assert!(
        via.contains(";rport=5070") && via.contains(";received=192.0.2.20"),
        "{via}"
    );
    assert!(rig.platform.device(id(CAMERA)).is_none());

    let authorization = answer(&challenge, CAMERA, PASSWORD, Qop::Auth);
    rig.udp(home(), &register(CAMERA, 2, 3600, &authorization));
    assert_eq!(
        rig.sent.last().unwrap().0,
        Route::Udp {
            local: local(),
            peer: home()
        }
    );
    let ok = rig.last("SIP/2.0 200");
    assert_eq!(header(&ok, "Date"), "2026-11-21T06:23:29.135");
    assert_eq!(header(&ok, "Expires"), "3600");
    assert_eq!(header(&ok, "Contact"), format!("<sip:{CAMERA}@10.9.9.9:5060>"));
    assert!(header(&ok, "To").contains(";tag=") && header(&ok, "X-GB-Ver") == "2.0");
    assert_eq!(rig.happened(), [Event::Online(id(CAMERA))]);
    let device = rig.device();
    assert!(device.online && device.peer == home() && device.username.is_none());
    assert_eq!(device.version.as_deref(), Some("2.0"));
    assert_eq!(device.user_agent.as_deref(), Some("TestCam 1.0"));
    assert!(device.last_keepalive.is_none() && refused(&rig).is_empty());
}

#[test]
fn every_variant_of_the_digest_that_is_right_is_taken() {
    for qop in [Qop::None, Qop::Auth] {
        for username in [CAMERA, "admin", "quo\\\"ted"] {
            let mut rig = Rig::new();
            let challenge = challenged(&mut rig);
            // The hash is of the name without its escape.
            let plain = username.replace('\\', "");
            let authorization = answer(&challenge, &plain, PASSWORD, qop).replace(&plain, username);
            rig.udp(home(), &register(CAMERA, 2, 3600, &authorization));
            rig.last("SIP/2.0 200");
            let shown = rig.device().username.clone();
            assert_eq!(shown, (plain != CAMERA).then_some(plain));
        }
    }
    // Parameters without quotes, in another order, over several lines, without an algorithm.
    let mut rig = Rig::new();
    let challenge = challenged(&mut rig);
    let authorization = answer(&challenge, CAMERA, PASSWORD, Qop::None)
        .replace(", algorithm=MD5", "")
        .replace("Digest username=\"34020000001320000001\", ", "digest ")
        .replace("\r\n", ",\r\n username=34020000001320000001\r\n");
    rig.udp(home(), &register(CAMERA, 2, 3600, &authorization));
    rig.last("SIP/2.0 200");
}

#[test]
fn other_algorithms_and_auth_int_are_refused() {
    let mut rig = Rig::new();
    let challenge = challenged(&mut rig);
    let right = answer(&challenge, CAMERA, PASSWORD, Qop::Auth);
    for wrong in [
        answer(&challenge, CAMERA, PASSWORD, Qop::AuthInt),
        right.replace("=MD5", "=SHA-256"),
        right.replace("=MD5", "=MD5-sess"),
        "Authorization: Basic YTpi\r\n".to_owned(),
        "Authorization: what\r\n".to_owned(),
    ] {
        rig.udp(home(), &register(CAMERA, 2, 3600, &wrong));
        rig.last("SIP/2.0 403");
    }
    assert_eq!(refused(&rig), [(RefusedWhy::Malformed, 5)]);
    // One that answers no challenge is none yet.
    let empty = "Authorization: Digest username=\"x\", realm=\"\", nonce=\"\", uri=\"\", response=\"\"\r\n";
    rig.udp(home(), &register(CAMERA, 3, 3600, empty));
    rig.last("SIP/2.0 401");
    rig.udp(home(), &register(CAMERA, 4, 3600, &right));
    rig.last("SIP/2.0 200");
    assert!(refused(&rig).is_empty());
}

#[test]
fn a_wrong_password_is_refused_and_shown() {
    let mut rig = Rig::new();
    let challenge = challenged(&mut rig);
    let wrong = answer(&challenge, CAMERA, "guess", Qop::Auth);
    rig.udp(home(), &register(CAMERA, 2, 3600, &wrong));
    rig.last("SIP/2.0 403");
    assert_eq!(refused(&rig), [(RefusedWhy::WrongPassword, 1)]);
    assert!(rig.happened().is_empty());
    // Guessing is slow: after the burst, one a second.
    for _ in 0..100 {
        rig.udp(home(), &register(CAMERA, 2, 3600, &wrong));
    }
    assert!(rig.sent.len() < 12, "{}", rig.sent.len());
    rig.clear();
    rig.advance(30.0);
    rig.register(CAMERA, home(), 3600);
}

#[test]
fn a_nonce_is_good_for_one_login_from_one_address() {
    let mut rig = Rig::new();
    let challenge = challenged(&mut rig);
    let authorization = answer(&challenge, CAMERA, PASSWORD, Qop::Auth);
    let other = address("192.0.2.66:5070");
    rig.udp(other, &register(CAMERA, 2, 3600, &authorization));
    let stale = rig.last("SIP/2.0 401");
    assert!(header(&stale, "WWW-Authenticate").contains(", stale=true,"));
    // Behind an address translator the port may change meanwhile.
    rig.udp(address("192.0.2.20:6000"), &register(CAMERA, 2, 3600, &authorization));
    rig.last("SIP/2.0 200");
    rig.happened();
    // The same datagram again gets the same answer and does nothing.
    rig.udp(address("192.0.2.20:6000"), &register(CAMERA, 2, 3600, &authorization));
    rig.last("SIP/2.0 200");
    assert!(rig.happened().is_empty());
    // The same login in another request is a replay.
    rig.udp(home(), &register(CAMERA, 3, 0, &authorization));
    let stale = rig.last("SIP/2.0 401");
    assert!(header(&stale, "WWW-Authenticate").contains(", stale=true,"));
    assert!(rig.device().online);
    // An older nonce that nobody has used is none any more either.
    let first = challenged(&mut rig);
    let second = challenged(&mut rig);
    rig.udp(
        home(),
        &register(CAMERA, 4, 3600, &answer(&second, CAMERA, PASSWORD, Qop::None)),
    );
    rig.last("SIP/2.0 200");
    rig.udp(
        home(),
        &register(CAMERA, 5, 3600, &answer(&first, CAMERA, PASSWORD, Qop::None)),
    );
    rig.last("SIP/2.0 401");
    // And they expire.
    let late = challenged(&mut rig);
    rig.advance(121.0);
    rig.sent.clear();
    rig.udp(
        home(),
        &register(CAMERA, 6, 3600, &answer(&late, CAMERA, PASSWORD, Qop::Auth)),
    );
    rig.last("SIP/2.0 401");
}

#[test]
fn a_refresh_tells_nothing_new_and_a_restart_does() {
    let mut rig = Rig::online();
    rig.advance(1800.0);
    rig.clear();
    rig.register(CAMERA, home(), 3600);
    // Half an hour without keepalives: it had been given up.
    assert_eq!(rig.happened(), [Event::Online(id(CAMERA))]);
    rig.advance(30.0);
    rig.clear();
    rig.register(CAMERA, home(), 3600);
    assert!(rig.happened().is_empty());
    rig.udp(home(), &register_call(CAMERA, "reg-2", 1, 3600, ""));
    let challenge = rig.last("SIP/2.0 401");
    let authorization = answer(&challenge, CAMERA, PASSWORD, Qop::Auth);
    rig.udp(home(), &register_call(CAMERA, "reg-2", 2, 3600, &authorization));
    rig.last("SIP/2.0 200");
    assert_eq!(rig.happened(), [Event::Moved(id(CAMERA))]);
}

#[test]
fn unregistering_is_challenged_too() {
    let mut rig = Rig::online();
    rig.udp(home(), &register(CAMERA, 3, 0, ""));
    let challenge = rig.last("SIP/2.0 401");
    assert!(rig.device().online);
    rig.udp(
        home(),
        &register(CAMERA, 4, 0, &answer(&challenge, CAMERA, PASSWORD, Qop::Auth)),
    );
    let ok = rig.last("SIP/2.0 200");
    assert_eq!(header(&ok, "Expires"), "0");
    let why = OfflineWhy::Unregistered;
    assert_eq!(
        rig.happened(),
        [Event::Offline {
            device: id(CAMERA),
            why
        }]
    );
    rig.udp(home(), &keepalive(CAMERA, 9));
    rig.last("SIP/2.0 403");
}

#[test]
fn the_expiry_may_stand_in_contact_only_or_nowhere() {
    let register = |more: &str| {
        let mut rig = Rig::new();
        let challenge = challenged(&mut rig);
        let authorization = answer(&challenge, CAMERA, PASSWORD, Qop::Auth);
        let text = register(CAMERA, 2, 1, &authorization).replace("Expires: 1\r\n", "");
        let text = text.replace("@10.9.9.9:5060>\r\nMax", &format!("@10.9.9.9:5060>{more}\r\nMax"));
        rig.udp(home(), &text);
        let ok = rig.last("SIP/2.0 200");
        header(&ok, "Expires").to_owned()
    };
    assert_eq!(register(";expires=7200"), "7200");
    assert_eq!(register(""), "86400");
    assert_eq!(register(";expires=99999999999"), (7 * 86_400).to_string());
}

#[test]
fn unknown_devices_are_pending_accepted_or_rejected() {
    const OTHER: &str = "34020000001110000009";
    let outcome = |unknown, platform: Option<&str>, given: &str| {
        let mut rig = Rig::with(PlatformConfig {
            unknown,
            password: platform.map(str::to_owned),
            ..config()
        });
        rig.udp(home(), &register(OTHER, 1, 3600, ""));
        if rig.sent[0].1.starts_with("SIP/2.0 401") {
            let challenge = rig.last("SIP/2.0 401");
            rig.udp(
                home(),
                &register(OTHER, 2, 3600, &answer(&challenge, OTHER, given, Qop::Auth)),
            );
        }
        let why = rig.platform.refused().next().map(|r| r.why);
        assert_eq!(why.is_none(), rig.platform.device(id(OTHER)).is_some());
        (rig.sent.pop().unwrap().1[8..11].to_owned(), why)
    };
    use RefusedWhy as Why;
    use UnknownDevices as Unknown;
    let refused = |why| ("403".to_owned(), Some(why));
    assert_eq!(outcome(Unknown::Pending, Some("p"), "p"), refused(Why::Pending));
    assert_eq!(outcome(Unknown::Pending, Some("p"), "q"), refused(Why::WrongPassword));
    assert_eq!(outcome(Unknown::Pending, None, "p"), refused(Why::Unknown));
    assert_eq!(outcome(Unknown::Reject, Some("p"), "p"), refused(Why::Unknown));
    assert_eq!(outcome(Unknown::Accept, Some("p"), "p"), ("200".to_owned(), None));
    assert_eq!(outcome(Unknown::Accept, Some("p"), ""), refused(Why::WrongPassword));
    assert_eq!(outcome(Unknown::Accept, None, ""), refused(Why::NoPassword));
}

#[test]
fn a_device_with_a_password_of_its_own_needs_that_one() {
    let mut rig = Rig::new();
    rig.platform
        .set_accounts([(id(CAMERA), Some("0wn-pass".to_owned()))].into());
    let challenge = challenged(&mut rig);
    rig.udp(
        home(),
        &register(CAMERA, 2, 3600, &answer(&challenge, CAMERA, PASSWORD, Qop::Auth)),
    );
    rig.last("SIP/2.0 403");
    rig.udp(
        home(),
        &register(CAMERA, 3, 3600, &answer(&challenge, CAMERA, "0wn-pass", Qop::Auth)),
    );
    rig.last("SIP/2.0 200");
    // Nothing of it shows.
    assert!(!format!("{:?}", rig.platform).contains("0wn-pass"));
    assert!(!format!("{:?}", config()).contains(PASSWORD));
}

#[test]
fn a_configured_device_without_any_password_stays_out() {
    let mut rig = Rig::with(PlatformConfig {
        password: None,
        ..config()
    });
    rig.platform.set_accounts([(id(CAMERA), None)].into());
    rig.udp(home(), &register(CAMERA, 1, 3600, ""));
    rig.last("SIP/2.0 403");
    assert_eq!(refused(&rig), [(RefusedWhy::NoPassword, 1)]);
}

#[test]
fn what_names_no_device_is_malformed() {
    let mut rig = Rig::new();
    for device in ["../../etc", SERVER, ""] {
        rig.udp(home(), &register(device, 1, 3600, ""));
        rig.last("SIP/2.0 400");
    }
    assert_eq!(rig.platform.counters().malformed, 3);
    assert_eq!(rig.platform.refused().count(), 0);
}

#[test]
fn the_date_can_be_left_out_and_the_address_announced() {
    let mut rig = Rig::with(PlatformConfig {
        send_date: false,
        announce: Some([198, 51, 100, 7].into()),
        unknown: UnknownDevices::Accept,
        ..config()
    });
    rig.udp(home(), &register(CAMERA, 1, 3600, ""));
    let challenge = rig.last("SIP/2.0 401");
    rig.udp(
        home(),
        &register(CAMERA, 2, 3600, &answer(&challenge, CAMERA, PASSWORD, Qop::Auth)),
    );
    assert!(!rig.last("SIP/2.0 200").contains("\r\nDate:"));
    rig.advance(0.0);
    let question = rig.last("MESSAGE");
    assert!(header(&question, "Via").starts_with("SIP/2.0/UDP 198.51.100.7:5060;rport;branch=z9hG4bK"));
    assert!(question.starts_with(&format!("MESSAGE sip:{CAMERA}@192.0.2.20:5070 SIP/2.0\r\n")));
    assert!(header(&question, "From").starts_with(&format!("<sip:{SERVER}@3402000000>;tag=")));
}

#[test]
fn registration_over_tcp_goes_with_its_connection() {
    let mut rig = Rig::new();
    let peer = address("192.0.2.30:41000");
    rig.connect(1, peer);
    rig.tcp(1, &format!("\r\n\r\n{}", register(CAMERA, 1, 3600, "")));
    let challenge = rig.last("SIP/2.0 401");
    rig.tcp(
        1,
        &register(CAMERA, 2, 3600, &answer(&challenge, CAMERA, PASSWORD, Qop::Auth)),
    );
    assert_eq!(rig.sent.last().unwrap().0, Route::Tcp(ConnectionId(1)));
    rig.last("SIP/2.0 200");
    assert_eq!(rig.device().transport, SipTransport::Tcp);
    rig.advance(0.0);
    assert!(header(&rig.last("MESSAGE"), "Via").starts_with("SIP/2.0/TCP 192.0.2.1:5060"));
    rig.happened();
    rig.disconnect(1);
    let why = OfflineWhy::ConnectionLost;
    assert_eq!(
        rig.happened(),
        [Event::Offline {
            device: id(CAMERA),
            why
        }]
    );
    // It comes back with a keepalive over a new connection from the same address.
    rig.connect(2, address("192.0.2.30:41001"));
    rig.tcp(2, &keepalive(CAMERA, 5));
    rig.last("SIP/2.0 200");
    assert_eq!(rig.happened(), [Event::Online(id(CAMERA))]);
}
