//! The program stream before a player that is not ours: `ffmpeg` has to find every picture in it.

use std::{fs, process::Command, sync::Arc};

use super::{h264, h265};
use crate::{Deviation, Deviations, Source, Track, UnitData};

/// The MD5 of every decoded picture, or of the decoded sound.
pub fn decoded(path: &std::path::Path, args: &[&str]) -> Vec<String> {
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-i"])
        .arg(path)
        .args(args)
        .args(["-f", "framemd5", "-"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && errors.is_empty(),
        "{}: {errors}",
        path.display()
    );
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines.map(|l| l.rsplit(',').next().unwrap().trim().to_owned()).collect()
}

/// Writes the pictures of a source as a byte stream.
pub fn write_raw(source: &Source, path: &std::path::Path) {
    let mut bytes = Vec::new();
    for unit in source.units() {
        if let UnitData::Nals(nals) = &unit.data {
            for nal in nals {
                bytes.extend([&[0, 0, 0, 1], &nal[..]].concat());
            }
        }
    }
    fs::write(path, bytes).unwrap();
}

fn check(source: &Arc<Source>, deviations: Deviations) {
    let dir = tempfile::tempdir().unwrap();
    let (stream, raw) = (dir.path().join("stream.mpg"), dir.path().join("raw"));
    fs::write(&stream, source.program_stream(deviations)).unwrap();
    write_raw(source, &raw);
    let passthrough = ["-map", "0:v", "-fps_mode", "passthrough"];
    let (pictures, wanted) = (decoded(&stream, &passthrough), decoded(&raw, &passthrough));
    assert_eq!(wanted.len(), 100);
    assert_eq!(pictures, wanted, "{:?}", deviations.iter().collect::<Vec<_>>());
    let packets = source.units().iter().filter(|u| u.track() == Track::Audio).count();
    if packets > 0 {
        let sound = decoded(&stream, &["-map", "0:a"]);
        assert!(sound.len() + 2 >= packets, "{} of {packets} packets", sound.len());
    }
}

#[test]
fn ffmpeg_decodes_every_picture() {
    // ffmpeg knows no G.711 in a program stream.
    for source in [h264().without_audio(), h265()] {
        check(&source, Deviations::NONE);
    }
}

/// Deviations that `ffmpeg` copes with.
#[test]
fn ffmpeg_decodes_deviant_streams() {
    for deviation in [
        Deviation::MapWrongCrc,
        Deviation::NoSystemHeader,
        Deviation::PesSmall,
        Deviation::PesHeaderStuffing,
        Deviation::ShortStartCodes,
    ] {
        check(&h264().without_audio(), Deviations::NONE.with(deviation));
        check(&h265(), Deviations::NONE.with(deviation));
    }
}
