//! Every parser of outside bytes as a libFuzzer target. One binary; `FUZZ_TARGET` names the target, so that all are built by one link.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

type Target = fn(&[u8]);

/// All targets: name (and corpus directory), function.
const TARGETS: &[(&str, Target)] = &[
    ("rtp_packet", |d| { let _ = corenvr_proto::rtp::Packet::parse(d.to_vec().into()); }),
];

fn selected() -> Target {
    static SELECTED: OnceLock<Target> = OnceLock::new();
    *SELECTED.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|(n, _)| *n == name);
        found.map_or_else(|| panic!("FUZZ_TARGET must be one of {:?}", TARGETS.iter().map(|t| t.0).collect::<Vec<_>>()), |t| t.1)
    })
}

fuzz_target!(|data: &[u8]| selected()(data));
