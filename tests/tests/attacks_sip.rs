//! Attacks that recorders have met in the field, on the SIP side, each tried on a running recorder; floods, hostile XML and media of strangers
//! are in `gb28181_security`, overheard logins in `gb28181_signalling`.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use corenvr_gb28181_device::{Device, Source, clips};
use corenvr_media::{AudioCodec, VideoCodec};
use corenvr_tests::{
    daemon::{Camera, files_below},
    gb28181::{ByHand, Platform, channel_id, device_id, invites},
};

const SOON: Duration = Duration::from_secs(20);
const NEIGHBOUR: [u8; 4] = [127, 0, 0, 2];
const HERE: [u8; 4] = [127, 0, 0, 1];

fn clip() -> Arc<Source> {
    static CLIP: OnceLock<Arc<Source>> = OnceLock::new();
    CLIP.get_or_init(|| clips::encoded(VideoCodec::H264, Some(AudioCodec::Pcma), 4))
        .clone()
}

fn header<'t>(message: &'t str, name: &str) -> &'t str {
    let line = message.lines().find(|l| {
        l.split_once(':')
            .is_some_and(|(n, _)| n.trim().eq_ignore_ascii_case(name))
    });
    line.unwrap_or_else(|| panic!("{name} of {message}"))
        .split_once(':')
        .unwrap()
        .1
        .trim()
}

#[test]
fn a_session_is_not_ended_by_somebody_who_knows_its_names() {
    let url = format!("gb28181://{}/{}?transport=udp", device_id(0), channel_id(0));
    let mut platform = Platform::new("", &[Camera::new("cam", &url, "auto")]);
    platform.daemon.start();
    let device: Device = platform.start_device(0, &clip(), &[]);
    platform.wait_state("cam", "recording", SOON);
    let session = device.wait_invite(SOON).expect("it is invited");
    let invite = invites(&device).pop().unwrap();
    let answer = device.log().with(|s| {
        let own = |t: &str| t.starts_with("SIP/2.0 200") && header(t, "Call-ID") == header(&invite, "Call-ID");
        s.sip.iter().filter(|t| t.sent).map(|t| t.text.clone()).find(|t| own(t))
    });
    let answer = answer.expect("it has accepted");
    // Everything of the dialog is right but where it comes from.
    let mut thief = ByHand::new(NEIGHBOUR, platform.sip);
    for method in ["BYE", "INFO"] {
        let made = thief.request(method, &channel_id(0), "", "");
        let mut lines: Vec<String> = made.lines().map(str::to_owned).collect();
        for line in &mut lines {
            if line.starts_with("From:") {
                *line = format!("From: {}", header(&answer, "To"));
            } else if line.starts_with("To:") {
                *line = format!("To: {}", header(&invite, "From"));
            } else if line.starts_with("Call-ID:") {
                *line = format!("Call-ID: {}", header(&invite, "Call-ID"));
            }
        }
        thief.send((lines.join("\r\n") + "\r\n").as_bytes());
        let status = thief.status();
        assert!(status.is_none_or(|s| s >= 400), "{method}: {status:?}");
    }
    let sent = device.log().session(session).unwrap().units_sent;
    assert!(
        device.wait_units(session, sent + 50, SOON),
        "the device goes on sending"
    );
    let status = platform.status("cam");
    assert_eq!(status["state"], "recording", "{status}");
    assert_eq!(status["counters"]["connects"], 1, "{status}");
    assert_eq!(status["counters"]["packets_lost"], 0, "{status}");
    platform.daemon.stop();
}

#[test]
fn a_login_is_not_got_round() {
    let url = format!("gb28181://{}", device_id(0));
    let mut platform = Platform::new("", &[Camera::new("cam", &url, "auto")]);
    platform.daemon.start();
    let id = device_id(0);
    let digest = |fields: &str| format!("Authorization: Digest username=\"{id}\", realm=\"3402000000\", {fields}\r\n");
    let tries = [
        String::new(),
        "Authorization:\r\n".into(),
        "Authorization: Basic YWRtaW46MTIzNDU=\r\n".into(),
        "Authorization: Bearer x\r\n".into(),
        "Authorization: Digest\r\n".into(),
        digest("nonce=\"\", uri=\"sip:x\", response=\"\""),
        digest("nonce=\"0\", uri=\"sip:x\", response=\"\", algorithm=none"),
        digest("nonce=\"0\", uri=\"sip:x\", response=\"d41d8cd98f00b204e9800998ecf8427e\""),
        // Digest of an empty password, for a nonce that nobody gave.
        digest(
            "nonce=\"0\", uri=\"sip:x\", response=\"00000000000000000000000000000000\", qop=auth, nc=00000001, cnonce=\"\"",
        ),
        "Proxy-Authorization: Digest username=\"x\"\r\nX-Forwarded-For: 127.0.0.1\r\n".into(),
    ];
    // The recorder's own host is nobody special.
    for from in [HERE, NEIGHBOUR] {
        for (n, login) in tries.iter().enumerate() {
            let mut stranger = ByHand::new(from, platform.sip);
            let request = stranger.request("REGISTER", &id, &format!("Expires: 3600\r\n{login}"), "");
            stranger.send(request.as_bytes());
            let status = stranger.status();
            assert!(status.is_none_or(|s| s >= 400), "{n} from {from:?}: {status:?}");
        }
    }
    // Nor does anybody speak in the name of a device that is not registered.
    for (n, kind) in ["Keepalive", "Alarm", "Catalog"].iter().enumerate() {
        let mut stranger = ByHand::new(HERE, platform.sip);
        let body = format!(
            "<?xml version=\"1.0\"?>\r\n<Notify><CmdType>{kind}</CmdType><SN>{n}</SN><DeviceID>{id}</DeviceID><Status>OK</Status></Notify>"
        );
        let request = stranger.request("MESSAGE", &id, "Content-Type: Application/MANSCDP+xml\r\n", &body);
        stranger.send(request.as_bytes());
        let status = stranger.status();
        assert!(status.is_none_or(|s| s >= 400), "{kind}: {status:?}");
    }
    assert!(platform.device_view(&id).is_null(), "nobody is registered");
    platform.daemon.stop();
}

#[test]
fn no_password_is_shipped() {
    let passwords: Vec<String> = (0..2)
        .map(|_| {
            let mut platform = Platform::with_ports("", 100, &[]);
            platform.daemon.start();
            let setup = platform.daemon.json(&["gb28181", "setup"]);
            platform.daemon.stop();
            setup["password"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_ne!(passwords[0], passwords[1]);
    for known in ["", "12345678", "admin", "admin123", "123456", "88888888"] {
        assert!(!passwords.iter().any(|p| p == known));
    }
    assert!(passwords.iter().all(|p| p.len() >= 12), "they are long");
}

#[test]
fn names_that_a_device_tells_never_become_paths() {
    let url = format!("gb28181://{}/*", device_id(0));
    let mut platform = Platform::new("", &[Camera::new("site", &url, "auto")]);
    platform.daemon.start();
    let device = platform.start_device(0, &clip(), &[]);
    platform.wait_online(&device_id(0), true, SOON);
    let mut sender = ByHand::new(HERE, platform.sip);
    let hostile = [
        "../../../../../../tmp/corenvr-evil",
        "..%2f..%2fevil",
        "/etc/cron.d/evil",
        "$(touch /tmp/corenvr-evil)",
        "`touch /tmp/corenvr-evil`",
        "a;touch /tmp/corenvr-evil",
        "con\u{0}trol",
        "..",
    ];
    for (n, name) in hostile.iter().enumerate() {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<Response><CmdType>Catalog</CmdType><SN>{n}</SN><DeviceID>{}</DeviceID><SumNum>1</SumNum>\
             <DeviceList Num=\"1\"><Item><DeviceID>{name}</DeviceID><Name>{name}</Name><ParentID>{name}</ParentID></Item></DeviceList></Response>",
            device_id(0)
        );
        let request = sender.request(
            "MESSAGE",
            &device_id(0),
            "Content-Type: Application/MANSCDP+xml\r\n",
            &body,
        );
        sender.send(request.as_bytes());
        let _ = sender.status();
    }
    // The device's own channel is recorded all the same.
    let camera = format!("site-{}", channel_id(0));
    platform.wait_state(&camera, "recording", SOON);
    let list = platform.daemon.json(&["camera", "list"]);
    let names: Vec<&str> = list["cameras"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    let harmless = |n: &&str| {
        n.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    assert!(names.iter().all(harmless), "{names:?}");
    let root = platform.daemon.path("rec");
    for file in files_below(&root) {
        let first = file.strip_prefix(&root).unwrap().components().next().unwrap();
        let first = first.as_os_str().to_string_lossy();
        assert!(first == ".corenvr" || names.contains(&&*first), "{}", file.display());
    }
    assert!(!std::path::Path::new("/tmp/corenvr-evil").exists());
    drop(device);
    platform.daemon.stop();
}
