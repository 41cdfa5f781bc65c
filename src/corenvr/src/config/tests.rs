//! Mistakes are found all at once, and the sample is what the program does without a configuration.

use std::{os::unix::fs::PermissionsExt, path::Path};

use corenvr_media::CameraName;
use corenvr_recorder::{CameraMode, TransportChoice};

use super::{values::Limit, *};

const SAMPLE: &str = include_str!("../../../../conf/corenvr.toml");

fn errors(text: &str) -> Vec<ConfigError> {
    load_text(Path::new("test.toml"), text).errors
}

#[test]
fn three_mistakes_give_three_messages_with_their_lines() {
    let text = "[server]\nstate_dir = \"relative\"\n\n[recording]\nsegmnt = \"5m\"\nsync = \"2 parsecs\"\n";
    let found = errors(text);
    let got: Vec<_> = found.iter().map(|e| (e.line, e.key.as_str())).collect();
    assert_eq!(
        got,
        [
            (2, "[server] state_dir"),
            (5, "[recording] segmnt"),
            (6, "[recording] sync")
        ]
    );
    assert!(found[1].remedy.contains("segment"), "{}", found[1]);
    assert!(found.iter().all(|e| !e.remedy.is_empty() && !e.one_camera));
    assert!(found[0].to_string().starts_with("test.toml:2: [server] state_dir: "));
}

#[test]
fn a_wrong_path_is_not_called_missing_too() {
    let found = errors("[[storage]]\npath = \"relative\"\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].to_string().contains("absolute"), "{}", found[0]);
    assert!(
        errors("[[storage]]\nkeep_free = \"1GiB\"\n")[0]
            .to_string()
            .contains("missing")
    );
}

#[test]
fn a_channel_number_belongs_to_one_camera() {
    let text = "[[camera]]\nname = \"a\"\nurl = \"rtsp://h/\"\nchannel = 3\n\
                [[camera]]\nname = \"b\"\nurl = \"rtsp://h/\"\nchannel = 3\n\
                [[camera]]\nname = \"c\"\nurl = \"rtsp://h/\"\nchannel = 0\n";
    let found = errors(text);
    let keys: Vec<_> = found.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(keys, ["[[camera]] b: channel", "[[camera]] c: channel"]);
    assert!(
        found[0].to_string().contains("camera a has the number 3 already"),
        "{}",
        found[0]
    );
    assert!(found[1].to_string().contains("1 to 9999"), "{}", found[1]);
}

#[test]
fn a_camera_that_pushes_needs_the_server_and_a_key_of_its_own() {
    let camera = |name: &str, key: &str| format!("[[camera]]\nname = \"{name}\"\nurl = \"rtmp+listen://{key}\"\n");
    let one = camera("a", "key-of-a-1234");
    let found = errors(&one);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].one_camera && found[0].to_string().contains("[rtmp] with enabled = true"),
        "{}",
        found[0]
    );
    assert!(!found[0].to_string().contains("1234"));
    assert_eq!(errors(&format!("[rtmp]\nenabled = false\n{one}")).len(), 1);
    // A section is enough.
    assert_eq!(errors(&format!("[rtmp]\n{one}")), []);
    let same = format!(
        "[rtmp]\nlisten = [\"[::]:1936\"]\n{one}{}{}",
        camera("b", "key-of-b-1234"),
        camera("c", "key-of-a-1234")
    );
    let found = errors(&same);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0]
            .to_string()
            .contains("[[camera]] c: url: camera a has this stream key"),
        "{}",
        found[0]
    );
}

#[test]
fn mistakes_by_kind() {
    for (text, line, key, words) in [
        ("[shards]\ncpus = \"some\"", 2, "[shards] cpus", "\"all\""),
        ("[shards]\ncpus = []", 2, "[shards] cpus", "[0, 2, 3]"),
        ("[shards]\ncpus = [0, 0]", 2, "[shards] cpus", "twice"),
        ("[auth]\nanonymous = [\"admin\"]", 2, "[auth] anonymous", "\"live\""),
        ("[rtsp]\nlisten = [\":8554\"]", 2, "[rtsp] listen", "[::]:8554"),
        ("[rtsp]\nport = 1", 2, "[rtsp] port", "rtsps_listen"),
        ("[rtmp]\nlisten = [\"1935\"]", 2, "[rtmp] listen", "[::]:1935"),
        ("[rtmp]\nenabled = 1", 2, "[rtmp] enabled", "true"),
        ("[rtmp]\nport = 1", 2, "[rtmp] port", "known here: enabled, listen"),
        ("[recording]\nsegment = \"2h\"", 2, "[recording] segment", "1h"),
        ("[recording]\nretain = 30", 2, "[recording] retain", "text"),
        ("[[storage]]\nkeep_free = \"1GiB\"", 1, "[[storage]] path", "missing"),
        ("[storage]\npath = \"/a\"", 1, "storage", "[[storage]]"),
        (
            "[[storage]]\npath = \"/a\"\nrequire_mount = \"yes\"",
            3,
            "[[storage]] require_mount",
            "true",
        ),
        (
            "[[storage]]\npath = \"/a\"\n[[storage]]\npath = \"/a/b\"",
            3,
            "[[storage]] path",
            "own",
        ),
        ("[onvif]\nenabled = true", 1, "onvif", "no such section"),
        ("server = 3", 1, "server", "[server]"),
        ("[server]\nrun_dir = ", 2, "", "TOML"),
    ] {
        let found = errors(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!((found[0].line, found[0].key.as_str()), (line, key), "{text}");
        assert!(found[0].to_string().contains(words), "{text}: {}", found[0]);
        assert!(!found[0].one_camera, "{text}");
    }
}

#[test]
fn a_gb28181_camera_needs_the_section() {
    let camera = "[[camera]]\nname = \"a\"\nurl = \"gb28181://34020000001320000001/*\"\n";
    let found = errors(camera);
    assert_eq!(
        (found.len(), found[0].key.as_str()),
        (1, "[[camera]] a: url"),
        "{found:?}"
    );
    assert!(
        found[0].one_camera && found[0].remedy.contains("[gb28181]"),
        "{found:?}"
    );
    assert!(errors(&format!("[gb28181]\n{camera}")).is_empty());
}

#[test]
fn a_bad_camera_is_its_own_mistake_and_the_others_stay() {
    let text = r#"
[[camera]]
name = "good"
url = "rtsp://10.0.0.1/a"

[[camera]]
name = "Bad Name"
url = "http://user:hunter2@10.0.0.2/"
transprt = "tcp"

[[camera]]
name = "good"
url = "rtsp://10.0.0.3/a"

[[camera]]
name = "elsewhere"
url = "rtsp://10.0.0.4/a"
storage = "/not/configured"

[[camera]]
name = "nowhere"
"#;
    let loaded = load_text(Path::new("test.toml"), text);
    assert_eq!(loaded.fatal().count(), 0);
    let names: Vec<_> = loaded.cameras().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["good"]);
    let lines: Vec<_> = loaded.errors.iter().map(|e| e.line).collect();
    assert_eq!(lines, [7, 8, 9, 11, 15, 20], "{:#?}", loaded.errors);
    assert!(loaded.errors.iter().all(|e| !e.to_string().contains("hunter2")));
}

#[test]
fn the_sample_is_what_the_program_does_without_a_configuration() {
    let loaded = load_text(Path::new("conf/corenvr.toml"), SAMPLE);
    assert_eq!(loaded.errors, []);
    assert_eq!(loaded.config, Config::default());
}

#[test]
fn the_sample_shows_every_key_and_its_commented_examples_are_valid() {
    // An unknown key's message lists all known ones.
    let probe = "x = 1\n[server]\nx = 1\n[shards]\nx = 1\n[auth]\nx = 1\n[rtsp]\nx = 1\n[rtmp]\nx = 1\n[recording]\nx = 1\n\
                 [[storage]]\npath = \"/a\"\nx = 1\n[[camera]]\nname = \"a\"\nurl = \"rtsp://h/\"\nx = 1\n";
    let found = errors(probe);
    assert_eq!(found.len(), 9);
    for error in &found {
        let known = error.remedy.strip_prefix("known here: ").unwrap();
        for key in known.split(", ") {
            let shown = SAMPLE.lines().any(|l| {
                let l = l.trim_start_matches(['#', '[']).trim();
                l.starts_with(&format!("{key} =")) || l.starts_with(&format!("{key}]"))
            });
            assert!(shown, "{key} of {} is not in the sample", error.key);
        }
    }
    let uncommented: String = SAMPLE
        .lines()
        .map(|l| {
            l.strip_prefix("#")
                .filter(|r| r.starts_with('[') || r.contains(" = ") && !r.starts_with(' '))
                .unwrap_or(l)
        })
        .fold(String::new(), |text, line| text + line + "\n");
    assert!(uncommented.contains("\n[[camera]]\n"));
    let loaded = load_text(Path::new("conf/corenvr.toml"), &uncommented);
    assert_eq!(loaded.errors, []);
    assert_eq!(loaded.config.cameras.len(), 1);
}

#[test]
fn the_file_of_cameras_reads_back_what_was_written_and_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let config_path = dir.path().join("corenvr.toml");
    let state = dir.path().join("state");
    let storage = dir.path().join("disk");
    let text = format!(
        "[server]\nstate_dir = {state:?}\n[[storage]]\npath = {storage:?}\n[[camera]]\nname = \"fixed\"\nurl = \"rtsp://h/\"\n"
    );
    std::fs::write(&config_path, text).unwrap();
    let mut camera = CameraSettings::new(
        CameraName::new("yard").unwrap(),
        "rtsp://u:p\"@10.0.0.9:8554/x?y=z".parse().unwrap(),
    );
    camera.transport = TransportChoice::Udp;
    camera.audio = false;
    camera.mode = CameraMode::Off;
    camera.storage = Some(storage);
    camera.shard = Some(0);
    camera.channel = Some(7);
    camera.retain = Some(Limit::Unlimited);
    camera.retain_bytes = Some(Limit::At(3 << 30));
    let plain = CameraSettings::new(CameraName::new("gate").unwrap(), "rtsp://10.0.0.8/".parse().unwrap());
    let clash = CameraSettings::new(CameraName::new("fixed").unwrap(), "rtsp://10.0.0.8/".parse().unwrap());
    let file = CamerasFile::new(state.join("cameras.toml"));
    file.write(&[camera.clone(), plain.clone(), clash]).unwrap();
    let mode = std::fs::metadata(state.join("cameras.toml"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let loaded = load(&config_path).unwrap();
    assert_eq!(loaded.added, [camera, plain]);
    assert_eq!(loaded.errors.len(), 1, "{:?}", loaded.errors);
    assert!(loaded.errors[0].one_camera && loaded.errors[0].file.ends_with("cameras.toml"));
    file.write(&[]).unwrap();
    assert_eq!(load(&config_path).unwrap().errors, []);
}

#[test]
fn a_camera_as_json_tells_every_mistake_and_reads_back() {
    let read = |text: &str| CameraSettings::try_from(serde_json::from_str::<CameraJson>(text).unwrap());
    let camera =
        read(r#"{"name": "a", "url": "rtsp://u:pw@10.0.0.1/", "transport": "tcp", "retain": "unlimited"}"#).unwrap();
    assert_eq!(
        (camera.transport, camera.retain),
        (TransportChoice::Tcp, Some(Limit::Unlimited))
    );
    assert_eq!(CameraSettings::try_from(camera.exposed()).as_ref(), Ok(&camera));
    assert!(!serde_json::to_string(&camera.to_json()).unwrap().contains("pw"));
    let wrong = r#"{"name": "A", "url": "x", "channel": 0, "retain": "soon", "retain_bytes": "1"}"#;
    let found = read(wrong).unwrap_err();
    let keys: Vec<_> = found.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, ["name", "url", "channel", "retain", "retain_bytes"]);
    assert!(serde_json::from_str::<CameraJson>(r#"{"name": "a", "url": "x", "colour": 1}"#).is_err());
}
