//! GB28181 signalling end to end: who is let in, who is there, how sessions begin and end, and what the operator is told of it.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use corenvr_gb28181_device::{
    Alarm, Deviation, Device, DeviceConfig, EndCause, Event, MediaTransport, SessionId, SipTransport, Source, Track,
    clips,
};
use corenvr_media::{AudioCodec, VideoCodec, WallTime};
use corenvr_tests::{
    daemon::Camera,
    gb28181::{ByHand, PASSWORD, Platform, assert_stored, channel_id, count_events, device_id, invites, newest},
    process::wait_for,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
const LATER: Duration = Duration::from_secs(40);

fn clip() -> Arc<Source> {
    static CLIP: OnceLock<Arc<Source>> = OnceLock::new();
    CLIP.get_or_init(|| clips::encoded(VideoCodec::H264, Some(AudioCodec::Pcma), 4))
        .clone()
}

/// A camera that is the one channel of a device; `query` as in its URL.
fn camera(name: &str, n: usize, query: &str) -> Camera {
    Camera::new(
        name,
        &format!("gb28181://{}/{}{query}", device_id(n), channel_id(n)),
        "auto",
    )
}

fn pause(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

fn wait_invite_after(device: &Device, after: SessionId, limit: Duration) -> SessionId {
    device
        .wait_invite_after(Some(after), limit)
        .unwrap_or_else(|| panic!("no new INVITE within {} s", limit.as_secs()))
}

#[test]
fn a_device_is_let_in_by_its_password_and_the_operator_is_told_of_the_others() {
    const OWN: &str = "own-secret-9";
    let own = Camera::new("own", &format!("gb28181://:{OWN}@{}", device_id(1)), "auto");
    let mut platform = Platform::new("", &[camera("wrong", 0, ""), own]);
    platform.daemon.start();
    let start = |n: usize, password: &str| {
        let mut config = platform.device(n, &clip());
        config.password = password.into();
        // Wrong passwords cost an address so much that its other devices would wait if they came more often.
        config.register_retry = Duration::from_secs(if password == "not-it-at-all" { 4 } else { 1 });
        Device::start(config).unwrap()
    };
    let wrong = start(0, "not-it-at-all");
    let right = start(1, OWN);
    let knows = start(2, PASSWORD);
    let guesses = start(3, "not-it-at-all");
    platform.wait_state("own", "recording", SOON);

    let refused = |id: &str, why: &str| {
        let view = wait_for(&format!("{id} is refused twice"), SOON, || {
            let view = platform.refused_view(id);
            (view["count"].as_u64() >= Some(2)).then_some(view)
        });
        assert!(view["why"].as_str().unwrap().contains(why), "{view}");
        assert!(view["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{view}");
        let shown = platform.daemon.cli(&["gb28181", "devices"]);
        assert!(shown.contains(id) && shown.contains(why), "{shown}");
    };
    refused(&device_id(0), "wrong password");
    refused(&device_id(2), "knows the platform's password");
    refused(&device_id(3), "wrong password");
    let status = platform.wait_reason("wrong", "wrong password", SOON);
    assert_eq!(status["state"], "waiting");
    assert!(status["reason"].as_str().unwrap().contains("127.0.0.1"), "{status}");
    assert!(!wrong.wait_registered(Duration::ZERO) && !guesses.wait_registered(Duration::ZERO));
    assert!(platform.device_view(&device_id(2)).is_null());
    drop((wrong, guesses));

    // The operator lets one in; it comes by itself.
    let url = format!("gb28181://{}", device_id(2));
    platform.daemon.cli(&["camera", "add", "late", &url]);
    platform.wait_state("late", "recording", SOON);
    assert!(platform.refused_view(&device_id(2)).is_null());
    drop(knows);

    // The other types the right password in.
    let corrected = start(0, PASSWORD);
    platform.wait_state("wrong", "recording", SOON);
    assert!(platform.refused_view(&device_id(0)).is_null());

    assert_replay_is_refused(&platform, &right, &device_id(1));
    drop((right, corrected));

    let mut said = platform.daemon.log();
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["camera", "list"],
        &["camera", "list", "--json"],
        &["camera", "show", "own"],
        &["camera", "show", "own", "--json"],
        &["gb28181", "devices"],
        &["gb28181", "devices", "--json"],
    ] {
        said += &platform.daemon.cli(args);
    }
    assert!(!said.contains(OWN) && !said.contains(PASSWORD), "{said}");
    let setup = platform.daemon.cli(&["gb28181", "setup"]);
    assert!(
        setup.contains(PASSWORD) && setup.contains(&platform.sip.port().to_string()),
        "{setup}"
    );
    platform.daemon.stop();
}

/// Whoever has overheard a login cannot use it: from another address, or once more from the same.
fn assert_replay_is_refused(platform: &Platform, device: &Device, id: &str) {
    let login = device.log().with(|s| {
        let registers = s.sip.iter().filter(|t| t.sent && t.text.starts_with("REGISTER "));
        let mut lines = registers.flat_map(|t| t.text.lines());
        lines.rfind(|l| l.starts_with("Authorization:")).map(str::to_owned)
    });
    let login = login.expect("it has registered");
    let address = platform.device_view(id)["address"].clone();
    for from in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        let mut thief = ByHand::new(from, platform.sip);
        let request = thief.request("REGISTER", id, &format!("Expires: 3600\r\n{login}\r\n"), "");
        thief.send(request.as_bytes());
        assert_eq!(thief.status(), Some(401), "{from:?}");
        // Nor can the device be sent away.
        let request = thief.request("REGISTER", id, &format!("Expires: 0\r\n{login}\r\n"), "");
        thief.send(request.as_bytes());
        assert_eq!(thief.status(), Some(401), "{from:?}");
    }
    let view = platform.device_view(id);
    assert_eq!(
        (&view["address"], &view["online"]),
        (&address, &Value::Bool(true)),
        "{view}"
    );
}

#[test]
fn unknown_devices_are_rejected_or_accepted_as_configured_and_a_password_is_made() {
    let mut strict = Platform::with_ports(
        "unknown_devices = \"reject\"\ndate = false",
        100,
        &[camera("gate", 0, "")],
    );
    strict.daemon.start();
    let password = strict.daemon.json(&["gb28181", "setup"])["password"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(password.len() >= 12 && strict.daemon.cli(&["gb28181", "setup"]).contains(&password));
    assert!(!strict.daemon.log().contains(&password));
    let start = |platform: &Platform, n: usize, password: &str| {
        let mut config = platform.device(n, &clip());
        config.password = password.into();
        config.register_retry = Duration::from_secs(3);
        Device::start(config).unwrap()
    };
    let (known, stranger) = (start(&strict, 0, &password), start(&strict, 1, &password));
    strict.wait_state("gate", "recording", SOON);
    let date = |device: &Device| {
        let registered = device.log().wait_event(SOON, |e| matches!(e, Event::Registered { .. }));
        match registered.unwrap().event {
            Event::Registered { date, .. } => date,
            other => unreachable!("{other:?}"),
        }
    };
    assert_eq!(date(&known), None);
    let refusal = stranger
        .log()
        .wait_event(SOON, |e| matches!(e, Event::RegisterRefused(403)));
    assert!(refusal.is_some());
    assert_eq!(count_events(&stranger, |e| matches!(e, Event::Challenged { .. })), 0);
    let view = strict.refused_view(&device_id(1));
    assert!(view["why"].as_str().unwrap().contains("not configured"), "{view}");
    strict.daemon.stop();
    drop((known, stranger));
    // The password made is the same after a restart.
    strict.daemon.start();
    assert_eq!(strict.daemon.json(&["gb28181", "setup"])["password"], password.as_str());
    strict.daemon.stop();

    let mut open = Platform::new("unknown_devices = \"accept\"", &[]);
    open.daemon.start();
    let (knows, guesses) = (start(&open, 0, PASSWORD), start(&open, 1, "not-it-at-all"));
    open.wait_online(&device_id(0), true, SOON);
    let date = date(&knows).expect("Date is sent unless it is switched off");
    let shown: Vec<_> = date.split(['T', '.']).collect();
    let beijing = WallTime::from_micros(corenvr_shard::time::wall_now_micros() + 8 * 3_600_000_000).to_string();
    assert!(beijing.starts_with(shown[0]), "{date} {beijing}");
    assert!(
        guesses
            .log()
            .wait_event(SOON, |e| matches!(e, Event::RegisterRefused(403)))
            .is_some()
    );
    assert!(open.device_view(&device_id(1)).is_null());
    assert_eq!(invites(&knows).len(), 0);
    open.daemon.stop();
}

/// A platform whose cameras of these names and URL queries are all being recorded, their devices and their sessions.
fn recording(
    cameras: &[(&str, &str)],
    set: impl Fn(&str, &mut DeviceConfig),
) -> (Platform, Vec<Device>, Vec<SessionId>) {
    let all = cameras.iter().enumerate();
    let list: Vec<Camera> = all.map(|(n, (name, query))| camera(name, n, query)).collect();
    let mut platform = Platform::new("", &list);
    platform.daemon.start();
    let start = |(n, (name, _)): (usize, &(&str, &str))| {
        let mut config = platform.device(n, &clip());
        set(name, &mut config);
        Device::start(config).unwrap()
    };
    let devices: Vec<Device> = cameras.iter().enumerate().map(start).collect();
    for (name, _) in cameras {
        platform.wait_state(name, "recording", LATER);
    }
    let sessions = devices.iter().map(|d| newest(d).unwrap()).collect();
    (platform, devices, sessions)
}

fn wait_gap(platform: &Platform, camera: &str) {
    wait_for(&format!("{camera} has a gap with its cause"), SOON, || {
        platform.gaps(camera).contains(&"camera-down".to_owned()).then_some(())
    });
}

#[test]
fn a_device_that_leaves_or_moves_is_waited_for_and_followed() {
    let cameras = [("leaves", ""), ("tcp", ""), ("moves", "?transport=udp")];
    let (mut platform, devices, first) = recording(&cameras, |name, config| {
        config.keepalive = Duration::from_secs(2);
        match name {
            "tcp" => config.transport = SipTransport::Tcp,
            "moves" => config.deviations.insert(Deviation::NatMove),
            _ => {}
        }
    });
    let [leaves, tcp, moves] = <[Device; 3]>::try_from(devices).unwrap();
    leaves.unregister();
    let status = platform.wait_state("leaves", "waiting", SOON);
    assert!(status["reason"].as_str().unwrap().contains("offline"), "{status}");
    platform.wait_online(&device_id(0), false, SOON);

    // A connection that is lost is no reason to stop what flows over another.
    tcp.reconnect();
    pause(1);
    platform.wait_online(&device_id(1), true, SOON);
    assert_eq!(platform.status("tcp")["counters"]["connects"], 1);

    // Its keepalives come from another port after a while, and that is where it is asked.
    let home = moves.log().with(|s| {
        let register = s.sip.iter().find(|t| t.sent).unwrap();
        let via = register.text.lines().find(|l| l.starts_with("Via:")).unwrap();
        via.split([' ', ';']).nth(2).unwrap().to_owned()
    });
    let view = wait_for("the address that moved is known", SOON, || {
        let view = platform.device_view(&device_id(2));
        (view["address"] != home.as_str()).then_some(view)
    });
    assert_eq!(view["online"], true);
    moves.stall(newest(&moves).unwrap());

    leaves.register_now();
    let again = wait_invite_after(&leaves, first[0], SOON);
    assert!(leaves.wait_units(again, 50, SOON));
    platform.wait_state("leaves", "recording", SOON);
    wait_gap(&platform, "leaves");

    // A connection that stays away is a device that is offline.
    tcp.power_cut();
    let view = platform.wait_online(&device_id(1), false, SOON);
    assert_eq!(view["transport"], "tcp");
    platform.wait_state("tcp", "waiting", SOON);
    wait_invite_after(&moves, first[2], LATER);
    platform.daemon.stop();
}

#[test]
fn media_that_stops_is_asked_for_again() {
    let cameras = [
        ("hangs-up", ""),
        ("stalls", ""),
        ("restarts", "?transport=udp"),
        ("cut", "?transport=udp"),
    ];
    let (mut platform, devices, first) = recording(&cameras, |_, _| {});
    let [hangs_up, stalls, restarts, cut] = <[Device; 4]>::try_from(devices).unwrap();
    stalls.stall(first[1]);
    let stalled = Instant::now();
    cut.power_cut();
    hangs_up.hang_up(first[0]);
    restarts.power_cut();
    let restarts = platform.start_device(2, &clip(), &[]);
    let restarted = Instant::now();

    let again = restarts
        .wait_invite(SOON)
        .expect("a device that has restarted is invited");
    let took = restarted.elapsed().as_secs();
    assert!(took < 9, "{took} s");
    assert!(restarts.wait_units(again, 25, SOON));
    let again = wait_invite_after(&hangs_up, first[0], SOON);
    let port = |id: SessionId| hangs_up.log().session(id).unwrap().remote.port();
    assert_ne!(port(first[0]), port(again), "the port rests");

    wait_invite_after(&stalls, first[1], LATER);
    let took = stalled.elapsed().as_secs();
    assert!((8..30).contains(&took), "{took} s");
    let status = platform.status("cut");
    assert!(status["state"] == "down" || status["state"] == "connecting", "{status}");
    wait_gap(&platform, "hangs-up");
    wait_gap(&platform, "stalls");
    platform.daemon.stop();
}

#[test]
fn recording_goes_on_after_a_restart_although_devices_think_they_are_registered() {
    let cameras = [
        camera("udp", 0, "?transport=udp"),
        camera("passive", 1, ""),
        camera("connected", 2, ""),
    ];
    let mut platform = Platform::new("", &cameras);
    platform.daemon.start();
    let devices: Vec<Device> = (0..3)
        .map(|n| {
            let mut config = platform.device(n, &clip());
            if n == 2 {
                config.transport = SipTransport::Tcp;
            }
            Device::start(config).unwrap()
        })
        .collect();
    let names = ["udp", "passive", "connected"];
    for name in names {
        platform.wait_state(name, "recording", SOON);
    }
    let registers = |n: usize| count_events(&devices[n], |e| matches!(e, Event::Registered { .. }));
    // Registrations are kept a moment after they come.
    pause(3);
    for (crash, what) in [(false, "a restart"), (true, "a crash")] {
        let before: Vec<SessionId> = devices.iter().map(|d| newest(d).unwrap()).collect();
        if crash {
            platform.daemon.crash();
        } else {
            platform.daemon.stop();
        }
        platform.daemon.start();
        let begun = Instant::now();
        for (n, name) in names.iter().enumerate() {
            let session = wait_invite_after(&devices[n], before[n], SOON);
            assert!(devices[n].wait_units(session, 50, SOON), "{name} after {what}");
            platform.wait_state(name, "recording", SOON);
            let ended = devices[n].log().session(before[n]).unwrap().state;
            let by_platform = corenvr_gb28181_device::SessionState::Ended(EndCause::Platform);
            assert!(crash || ended == by_platform, "{name} after {what}: {ended:?}");
        }
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "{:?} after {what}",
            begun.elapsed()
        );
        assert_eq!(
            (registers(0), registers(1)),
            (1, 1),
            "they have no reason to register again"
        );
    }
    let last: Vec<SessionId> = devices.iter().map(|d| newest(d).unwrap()).collect();
    platform.daemon.stop();
    for (n, name) in names.iter().enumerate() {
        let session = devices[n].log().session(last[n]).unwrap();
        let files = platform.daemon.segments(name);
        // What the last run recorded is the last session, and nothing of those that still went on.
        let newest_file = files.last().unwrap();
        let stored = corenvr_tests::units::of_files([newest_file.as_path()]);
        assert_stored(name, &stored, &session, Track::Video, 25);
    }
}

#[test]
fn sessions_are_asked_for_with_patience_and_refusals_are_told_in_words() {
    let cameras = [
        camera("busy", 0, ""),
        camera("picky", 1, ""),
        camera("silent", 2, ""),
        camera("private", 3, ""),
        camera("no-such", 4, ""),
        camera("chosen", 5, "?transport=tcp-passive"),
    ];
    let mut cameras = cameras.to_vec();
    cameras[4].url = format!("gb28181://{}/34020000001310009999", device_id(4));
    let mut platform = Platform::new("", &cameras);
    platform.daemon.start();
    let begun = Instant::now();
    let start = |n: usize, deviations: &[Deviation]| platform.start_device(n, &clip(), deviations);
    let busy = start(0, &[Deviation::Invite486]);
    let picky = start(1, &[Deviation::Invite488]);
    let silent = start(2, &[Deviation::InviteSilent]);
    let private = start(3, &[Deviation::VendorPayload]);
    let nobody = start(4, &[]);
    let chosen = start(5, &[Deviation::Invite488]);
    let status = platform.wait_reason("busy", "486 Busy Here", SOON);
    assert!(
        status["reason"].as_str().unwrap().contains("as many others as it can"),
        "{status}"
    );
    platform.wait_reason("private", "DAHUA/90000", SOON);
    platform.wait_reason("no-such", "no such channel", SOON);
    platform.wait_reason("chosen", "transport=udp", SOON);
    // Nobody chose a transport for this one: the others are tried.
    wait_for("every transport is offered", LATER, || {
        let offers = invites(&picky);
        let has = |words: &str| offers.iter().any(|o| o.contains(words));
        (has("a=setup:passive") && has("a=setup:active") && has(" RTP/AVP")).then_some(())
    });
    assert!(invites(&chosen).iter().all(|o| o.contains("a=setup:passive")));
    platform.wait_reason("silent", "does not answer", Duration::from_secs(60));
    let seconds = begun.elapsed().as_secs();
    for (device, most) in [(&busy, 9), (&picky, 12), (&silent, 3), (&nobody, 9), (&chosen, 9)] {
        let count = invites(device).len();
        assert!((1..=most).contains(&count), "{count} INVITEs in {seconds} s");
    }
    assert!(count_events(&private, |e| matches!(e, Event::Invited(_))) <= 9);
    platform.daemon.stop();
}

#[test]
fn cameras_are_moved_and_ended_and_their_alarms_are_kept() {
    let mut platform = Platform::new("", &[camera("fixed", 2, "?transport=udp")]);
    platform.daemon.start();
    let devices: Vec<Device> = (0..3)
        .map(|n| platform.start_device(n, &clip(), if n == 2 { &[Deviation::MidGopStart] } else { &[] }))
        .collect();
    for (n, name) in ["yard", "dock"].iter().enumerate() {
        let url = format!("gb28181://{}/{}", device_id(n), channel_id(n));
        platform.daemon.cli(&["camera", "add", name, &url]);
    }
    for name in ["yard", "dock", "fixed"] {
        platform.wait_state(name, "recording", SOON);
    }
    // It starts in the middle of a GOP, and is asked for a key frame.
    let asked = |e: &Event| matches!(e, Event::KeyFrameAsked { channel, .. } if *channel == channel_id(2));
    assert!(devices[2].log().wait_event(SOON, asked).is_some());

    let ptz = |args: &[&str]| platform.daemon.cli(&[&["camera", "ptz", "yard"], args].concat());
    ptz(&["left", "--speed", "100", "--for", "300ms"]);
    ptz(&["zoom-in", "--speed", "100"]);
    ptz(&["stop"]);
    ptz(&["call-preset", "--preset", "3"]);
    let moves = devices[0].log().wait(SOON, |s| {
        let commands = s.events.iter().filter_map(|e| match &e.event {
            Event::Ptz { channel, command } => Some((channel.clone(), command.to_ascii_uppercase())),
            _ => None,
        });
        let commands: Vec<_> = commands.collect();
        (commands.len() >= 5).then_some(commands)
    });
    let moves = moves.expect("five commands");
    assert!(moves.iter().all(|(channel, _)| *channel == channel_id(0)), "{moves:?}");
    let bytes: Vec<&str> = moves.iter().map(|(_, command)| command.as_str()).collect();
    assert_eq!(
        bytes,
        // A.3.2: address 1, the bits of the movement, pan, tilt and zoom speed, sum.
        [
            "A50F0102FFFFF0A5",
            "A50F0100000000B5",
            "A50F0110FFFFF0B3",
            "A50F0100000000B5",
            "A50F01820003003A"
        ]
    );
    let fixed = platform.daemon.try_cli(&["camera", "ptz", "nobody", "left"]);
    assert!(!fixed.status.success());

    alarms(&platform, &devices[0]);

    // Both end what flows: the device is told so.
    for (n, command, name) in [(0, "remove", "yard"), (1, "disable", "dock")] {
        let session = newest(&devices[n]).unwrap();
        platform.daemon.cli(&["camera", command, name]);
        assert_eq!(
            devices[n].wait_ended(session, SOON),
            Some(EndCause::Platform),
            "{command}"
        );
        pause(2);
        assert_eq!(
            newest(&devices[n]),
            Some(session),
            "{command} is no reason to invite again"
        );
    }
    platform.daemon.cli(&["camera", "enable", "dock"]);
    wait_invite_after(&devices[1], SessionId(0), SOON);
    platform.daemon.stop();
}

/// Alarms come to the timeline, and one of the device itself is reset so that the next can follow.
fn alarms(platform: &Platform, device: &Device) {
    let raise = |method: u8, kind: u8, description: &str| {
        device.raise_alarm(Alarm {
            id: channel_id(0),
            priority: 2,
            method,
            kind,
            description: description.into(),
        });
    };
    raise(5, 2, "someone walks");
    raise(2, 2, "cover opened");
    let reset = |e: &Event| matches!(e, Event::Control { element, value, .. } if element == "AlarmCmd" && value == "ResetAlarm");
    assert!(device.log().wait_event(SOON, reset).is_some());
    raise(2, 1, "no picture");
    assert_eq!(count_events(device, |e| matches!(e, Event::AlarmWithheld)), 0);
    let text = wait_for("three alarms are kept", SOON, || {
        let files = corenvr_tests::daemon::files_below(&platform.daemon.path("rec/yard"));
        let files = files.iter().filter(|f| f.ends_with("events.jsonl"));
        let text: String = files.map(|f| std::fs::read_to_string(f).unwrap()).collect();
        (text.lines().count() >= 3).then_some(text)
    });
    for words in ["motion", "someone walks", "tampering", "cover opened", "picture lost"] {
        assert!(text.contains(words), "{text}");
    }
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["kind"], &first["source"]),
        (&"alarm".into(), &"gb28181".into()),
        "{first}"
    );
    assert!(count_events(device, |e| matches!(e, Event::AlarmAnswered(200))) >= 3);
    let confirmed = |e: &Event| matches!(e, Event::AlarmConfirmed);
    assert!(device.log().wait_event(SOON, confirmed).is_some());
    assert!(!platform.daemon.path("rec/dock").join("events.jsonl").exists());
}

#[test]
fn media_ports_that_run_out_are_told_in_words() {
    let cameras: Vec<Camera> = (0..6)
        .map(|n| camera(&format!("cam{n}"), n, if n % 2 == 0 { "?transport=udp" } else { "" }))
        .collect();
    let keys = format!("password = \"{PASSWORD}\"");
    let mut platform = Platform::with_ports(&keys, 4, &cameras);
    platform.daemon.start();
    let devices: Vec<Device> = (0..6).map(|n| platform.start_device(n, &clip(), &[])).collect();
    let state_of = |n: usize| platform.status(&format!("cam{n}"));
    let without = wait_for("some wait for a port", SOON, || {
        let waiting = |n: &usize| {
            let status = state_of(*n);
            status["reason"].as_str().is_some_and(|r| r.contains("media_ports"))
        };
        let waiting: Vec<usize> = (0..6).filter(waiting).collect();
        (waiting.len() >= 4).then_some(waiting)
    });
    let with: Vec<usize> = (0..6).filter(|n| !without.contains(n)).collect();
    assert!((1..=2).contains(&with.len()), "{with:?}");
    for n in with {
        platform.wait_state(&format!("cam{n}"), "recording", SOON);
    }
    for n in without {
        assert_eq!(
            invites(&devices[n]).len(),
            0,
            "nobody is invited to a port that is not there"
        );
    }
    let transports = |t: MediaTransport| {
        devices
            .iter()
            .any(|d| d.log().with(|s| s.sessions.iter().any(|s| s.transport == t)))
    };
    assert!(transports(MediaTransport::Udp) || transports(MediaTransport::TcpPassive));
    platform.daemon.stop();
}
