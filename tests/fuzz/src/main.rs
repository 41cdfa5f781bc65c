//! Every parser of outside bytes as a libFuzzer target. One binary; `FUZZ_TARGET` names the target, so that all are built by one link.
//!
//! The functions live beside the parsers and assert what must hold for any input, not only that nothing panics.
#![no_main]

use std::sync::OnceLock;

use corenvr_proto::{
    bitstream::fuzzing as bitstream, gb28181::fuzzing as gb28181, gb28181::media::fuzzing as gb28181_media,
    gb28181::platform::fuzzing as platform, http::fuzzing as http, ps::fuzzing as ps, rtmp::fuzzing as rtmp, rtp::fuzzing as rtp, rtsp::fuzzing as rtsp,
    sip::fuzzing as sip,
};
use corenvr_store::fuzzing as store;
use libfuzzer_sys::fuzz_target;

type Target = fn(&[u8]);

/// All targets: name (of the corpus directory too) and function. `run` reads this list.
const TARGETS: &[(&str, Target)] = &[
    ("rtsp_message", rtsp::decode),
    ("rtsp_headers", rtsp::headers),
    ("rtsp_url", rtsp::url),
    ("rtsp_client", rtsp::client),
    ("sdp", rtsp::sdp),
    ("auth", rtsp::auth_header),
    ("rtp_packet", rtp_packet),
    ("rtcp", rtcp),
    ("h264", rtp::h264),
    ("h265", rtp::h265),
    ("aac", rtp::aac),
    ("latm", rtp::latm),
    ("jpeg", rtp::jpeg),
    ("av1", rtp::av1),
    ("sound", rtp::sound),
    ("rtmp_server", rtmp::server),
    ("rtmp_client", rtmp::client),
    ("rtmp_url", rtmp::url),
    ("amf", rtmp::amf),
    ("flv", rtmp::flv),
    ("ps", ps::demux),
    ("gb_media", gb28181_media::media),
    ("tcp_framing", gb28181_media::tcp_framing),
    ("disposable", bitstream::disposable),
    ("manscdp", gb28181::manscdp),
    ("gb_sdp", gb28181::sdp),
    ("gb_texts", gb28181::texts),
    ("http_range", http::headers),
    ("sip_message", sip::message),
    ("sip_stream", sip::stream),
    ("gb_platform", platform::platform),
    ("mkv_header", store::header),
    ("mkv_cluster", store::cluster),
    ("events", store::events),
    ("mkv_recover", store::recover),
    ("mkv_import", store::import),
    ("index_table", store::table),
];

fn rtp_packet(data: &[u8]) {
    if let Ok(packet) = corenvr_proto::rtp::Packet::parse(data.to_vec().into()) {
        assert!(packet.payload.len() <= data.len());
    }
}

fn rtcp(data: &[u8]) {
    assert!(corenvr_proto::rtp::rtcp::parse(data).count() <= data.len());
}

fn selected() -> Target {
    static SELECTED: OnceLock<Target> = OnceLock::new();
    *SELECTED.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        if name == "mkv_import" {
            // Foreign clips go through a library that panics on some nonsense; the import catches that, so only what it lets through counts.
            // What is asserted behind it still aborts, since it is outside of the catch.
            let abort = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if info
                    .location()
                    .is_none_or(|l| !l.file().contains("matroska-demuxer") && !l.file().contains("/library/core/"))
                {
                    abort(info);
                }
            }));
        }
        let found = TARGETS.iter().find(|(n, _)| *n == name);
        let names = || TARGETS.iter().map(|t| t.0).collect::<Vec<_>>();
        found.map_or_else(|| panic!("FUZZ_TARGET must be one of {:?}", names()), |t| t.1)
    })
}

fuzz_target!(|data: &[u8]| selected()(data));
