//! One module a format family: what each camera's quirk must give.

mod audio;
mod pictures;
mod video;

use bytes::Bytes;

use super::*;

pub(super) fn format(kind: MediaKind, encoding: &str, clock_rate: u32, parameters: &[(&str, &str)]) -> MediaFormat {
    MediaFormat {
        kind,
        payload_type: 96,
        encoding: encoding.to_owned(),
        clock_rate,
        channels: 1,
        parameters: parameters
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    }
}

/// A depacketizer with a clock that is set by hand.
struct Feed {
    depacketizer: Depacketizer,
    timestamp: u32,
}

impl Feed {
    fn new(format: &MediaFormat) -> Self {
        Self {
            depacketizer: Depacketizer::new(format).unwrap(),
            timestamp: 1000,
        }
    }

    fn video(encoding: &str, parameters: &[(&str, &str)]) -> Self {
        Self::new(&format(MediaKind::Video, encoding, 90_000, parameters))
    }

    fn packet(&self, payload: &[u8], marker: bool) -> Packet {
        Packet {
            payload_type: 96,
            marker,
            sequence: 0,
            timestamp: self.timestamp,
            ssrc: 1,
            extension: None,
            payload: Bytes::copy_from_slice(payload),
        }
    }

    fn try_push(&mut self, payload: &[u8], marker: bool, lost: u32) -> Result<(), DepacketizeError> {
        let packet = self.packet(payload, marker);
        self.depacketizer.push(&packet, lost)
    }

    fn push(&mut self, payload: &[u8], marker: bool) {
        self.try_push(payload, marker, 0).unwrap();
    }

    fn next_time(&mut self) {
        self.timestamp += 3600;
    }

    fn units(&mut self) -> Vec<AccessUnit> {
        std::iter::from_fn(|| self.depacketizer.poll()).collect()
    }

    fn end(&mut self) -> Vec<AccessUnit> {
        self.depacketizer.flush();
        self.units()
    }
}

/// NAL units in the layout of a unit.
fn joined(nals: &[&[u8]]) -> Vec<u8> {
    nals.iter()
        .flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat())
        .collect()
}

#[test]
fn unknown_formats_are_refused_in_words() {
    for (kind, encoding, parameters, want) in [
        (
            MediaKind::Video,
            "VP9",
            &[][..],
            "VP9/90000 is not supported: corenvr knows no",
        ),
        (
            MediaKind::Other,
            "VND.ONVIF.METADATA",
            &[],
            "VND.ONVIF.METADATA/90000 is not",
        ),
        (
            MediaKind::Video,
            "H264",
            &[("packetization-mode", "2")],
            "interleaved packets",
        ),
        (
            MediaKind::Video,
            "H265",
            &[("sprop-depack-buf-nalus", "4")],
            "out of decoding order",
        ),
        (MediaKind::Audio, "AAL2-G726-32", &[], "AAL2"),
        (
            MediaKind::Audio,
            "MPEG4-GENERIC",
            &[("mode", "CELP-cbr")],
            "mode=celp-cbr",
        ),
        (MediaKind::Audio, "MP4A-LATM", &[("cpresent", "0")], "without a config"),
    ] {
        let error = Depacketizer::new(&format(kind, encoding, 90_000, parameters)).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn units_nobody_polls_are_bounded() {
    let mut feed = Feed::new(&format(MediaKind::Audio, "PCMU", 8000, &[]));
    for _ in 0..OUTPUT_UNITS_MAX {
        feed.push(&[1], false);
    }
    assert_eq!(feed.try_push(&[1], false, 0), Err(DepacketizeError::NotPolled));
    assert_eq!(feed.units().len(), OUTPUT_UNITS_MAX);
}
