//! What SDP says of a track that is sent: `rtpmap` and `fmtp`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use corenvr_media::{AudioCodec, AudioParameters, CodecParameters, VideoCodec, VideoParameters};

use crate::{
    bitstream::{av1, h264, h265},
    format::{MediaFormat, MediaKind},
};

/// The SDP words for a track. G.711 of 8 kHz mono and JPEG have static payload types (0, 8, 26), whatever `payload_type` says.
pub fn sdp_format(parameters: &CodecParameters, payload_type: u8) -> MediaFormat {
    match parameters {
        CodecParameters::Video(video) => video_format(video, payload_type),
        CodecParameters::Audio(audio) => audio_format(audio, payload_type),
    }
}

/// The parameter sets of H.264 or H.265, length-prefixed as in an access unit, to be sent before a key frame that has none;
/// empty for other codecs and for a damaged configuration record.
pub fn parameter_sets(parameters: &CodecParameters) -> Bytes {
    let CodecParameters::Video(video) = parameters else {
        return Bytes::new();
    };
    let mut out = BytesMut::new();
    for set in sets(video) {
        out.put_u32(set.len() as u32);
        out.put_slice(&set);
    }
    out.freeze()
}

fn sets(video: &VideoParameters) -> Vec<Bytes> {
    let sets = match video.codec {
        VideoCodec::H264 => h264::parameter_sets(&video.extra),
        VideoCodec::H265 => h265::parameter_sets(&video.extra),
        VideoCodec::Av1 | VideoCodec::Mjpeg => None,
    };
    sets.unwrap_or_default()
}

fn base64_list(sets: &[Bytes], wanted: impl Fn(u8) -> bool) -> String {
    let of_kind = sets.iter().filter(|set| set.first().is_some_and(|&b| wanted(b)));
    of_kind.map(|set| STANDARD.encode(set)).collect::<Vec<_>>().join(",")
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|&b| [digit(b >> 4), digit(b)]).collect()
}

fn video_format(video: &VideoParameters, payload_type: u8) -> MediaFormat {
    let mut parameters = Vec::new();
    let mut add = |key: &str, value: String| {
        if !value.is_empty() {
            parameters.push((key.to_owned(), value));
        }
    };
    let sets = sets(video);
    let mut payload_type = payload_type;
    match video.codec {
        VideoCodec::H264 => {
            add("packetization-mode", "1".to_owned());
            add("profile-level-id", video.extra.get(1..4).map(hex).unwrap_or_default());
            add("sprop-parameter-sets", base64_list(&sets, |_| true));
        }
        VideoCodec::H265 => {
            for (key, kind) in [
                ("sprop-vps", h265::kind::VPS),
                ("sprop-sps", h265::kind::SPS),
                ("sprop-pps", h265::kind::PPS),
            ] {
                add(key, base64_list(&sets, |b| h265::nal_kind(b) == kind));
            }
        }
        VideoCodec::Av1 => {
            if let Some(header) = av1::record_header(&video.extra) {
                add("profile", header.profile.to_string());
                add("level-idx", header.level.to_string());
                add("tier", u8::from(header.tier).to_string());
            }
        }
        VideoCodec::Mjpeg => payload_type = 26,
    }
    MediaFormat {
        kind: MediaKind::Video,
        payload_type,
        encoding: video.codec.name().to_owned(),
        clock_rate: 90_000,
        channels: 1,
        parameters,
    }
}

fn audio_format(audio: &AudioParameters, payload_type: u8) -> MediaFormat {
    let mut format = MediaFormat {
        kind: MediaKind::Audio,
        payload_type,
        encoding: audio.codec.name().to_owned(),
        clock_rate: audio.sample_rate.max(1),
        channels: audio.channels.max(1),
        parameters: Vec::new(),
    };
    let telephone = audio.sample_rate == 8000 && audio.channels == 1;
    let mut add = |key: &str, value: &str| format.parameters.push((key.to_owned(), value.to_owned()));
    match audio.codec {
        AudioCodec::Pcmu if telephone => format.payload_type = 0,
        AudioCodec::Pcma if telephone => format.payload_type = 8,
        AudioCodec::Pcma | AudioCodec::Pcmu | AudioCodec::L16 => {}
        AudioCodec::G726 { bits } => format.encoding = format!("G726-{}", u32::from(bits) * 8),
        AudioCodec::Aac => {
            add("streamtype", "5");
            add("profile-level-id", "1");
            add("mode", "AAC-hbr");
            add("sizelength", "13");
            add("indexlength", "3");
            add("indexdeltalength", "3");
            add("config", &hex(&audio.extra));
            "MPEG4-GENERIC".clone_into(&mut format.encoding);
        }
        AudioCodec::Opus => {
            // The rtpmap says two channels always (RFC 7587 section 7).
            add("sprop-stereo", if audio.channels > 1 { "1" } else { "0" });
            (format.clock_rate, format.channels) = (48_000, 2);
        }
    }
    format
}
