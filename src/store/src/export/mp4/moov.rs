//! The `moov` box of gathered tables (ISO/IEC 14496-12 section 8).

use std::ops::Range;

use corenvr_media::{CodecParameters, WallTime};

use super::{Movie, Track, boxes::Boxes, entries::Rates};

/// Ticks a second of the movie's own times.
const MOVIE_SCALE: u32 = 90_000;
/// From 1904-01-01 to 1970-01-01, in seconds.
const EPOCH_1904_S: i64 = 2_082_844_800;
/// "und" in packed letters of five bits.
const LANGUAGE: u16 = 0x55C4;
/// Enabled, part of the movie and of its preview.
const TRACK_FLAGS: u32 = 7;
/// The unit matrix in 16.16 and 2.30.
const MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// Writes `moov`. Returns where the chunk offsets lie, which are to be raised by where the samples begin.
pub fn write(b: &mut Boxes, movie: Movie) -> Vec<Range<usize>> {
    let Movie {
        start, camera, tracks, ..
    } = movie;
    let created = created(start);
    // A track of the recording without a frame in the range is not in the file: players take one for an error.
    let tracks: Vec<Track> = tracks.into_iter().flatten().filter(|t| !t.sizes.is_empty()).collect();
    let len = tracks
        .iter()
        .map(|t| movie_ticks(t.line.end(), t.scale))
        .max()
        .unwrap_or(0);
    let mut offsets = Vec::with_capacity(tracks.len());
    b.boxed(*b"moov", |b| {
        b.full(*b"mvhd", 1, 0, |b| {
            b.u64(created);
            b.u64(created);
            b.u32(MOVIE_SCALE);
            b.u64(len);
            b.u32(0x1_0000);
            b.u16(0x100);
            b.zeros(10);
            for v in MATRIX {
                b.u32(v);
            }
            b.zeros(24);
            b.u32(tracks.len() as u32 + 1);
        });
        for (i, track) in tracks.into_iter().enumerate() {
            b.boxed(*b"trak", |b| offsets.push(trak(b, i as u32 + 1, track, created)));
        }
        b.boxed(*b"udta", |b| meta(b, start, &camera));
    });
    offsets
}

fn created(start: WallTime) -> u64 {
    (start.as_micros().div_euclid(1_000_000) + EPOCH_1904_S).max(0) as u64
}

/// Ticks of a track as ticks of the movie, rounded up.
fn movie_ticks(ticks: i64, scale: u32) -> u64 {
    let t = i128::from(ticks.max(0)) * i128::from(MOVIE_SCALE);
    (t + i128::from(scale) - 1).div_euclid(i128::from(scale)) as u64
}

fn trak(b: &mut Boxes, id: u32, mut t: Track, created: u64) -> Range<usize> {
    t.end_chunk();
    let video = match &t.held.params {
        CodecParameters::Video(v) => Some((v.width, v.height)),
        CodecParameters::Audio(_) => None,
    };
    b.full(*b"tkhd", 1, TRACK_FLAGS, |b| {
        b.u64(created);
        b.u64(created);
        b.u32(id);
        b.u32(0);
        b.u64(movie_ticks(t.line.end(), t.scale));
        b.zeros(12);
        b.u16(if video.is_some() { 0 } else { 0x100 });
        b.u16(0);
        for v in MATRIX {
            b.u32(v);
        }
        let (width, height) = video.unwrap_or((0, 0));
        b.u32(width << 16);
        b.u32(height << 16);
    });
    edits(b, &t);
    let mut offsets = 0..0;
    b.boxed(*b"mdia", |b| {
        b.full(*b"mdhd", 1, 0, |b| {
            b.u64(created);
            b.u64(created);
            b.u32(t.scale);
            b.u64(t.line.media_len().max(0) as u64);
            b.u16(LANGUAGE);
            b.u16(0);
        });
        let (kind, name) = match video {
            Some(_) => (*b"vide", &b"VideoHandler\0"[..]),
            None => (*b"soun", &b"SoundHandler\0"[..]),
        };
        handler(b, kind, name);
        b.boxed(*b"minf", |b| {
            if video.is_some() {
                b.full(*b"vmhd", 0, 1, |b| b.zeros(8));
            } else {
                b.full(*b"smhd", 0, 0, |b| b.zeros(4));
            }
            b.boxed(*b"dinf", |b| {
                b.full(*b"dref", 0, 0, |b| {
                    b.u32(1);
                    b.full(*b"url ", 0, 1, |_| {});
                });
            });
            b.boxed(*b"stbl", |b| offsets = sample_tables(b, t));
        });
    });
    offsets
}

fn handler(b: &mut Boxes, kind: [u8; 4], name: &[u8]) {
    b.full(*b"hdlr", 0, 0, |b| {
        b.u32(0);
        b.bytes(&kind);
        b.zeros(12);
        b.bytes(name);
    });
}

/// Puts the track at its place in the movie; not needed if it is there by itself.
fn edits(b: &mut Boxes, t: &Track) {
    let (begin, media_begin) = (t.line.begin(), t.line.media_begin());
    if begin == 0 && media_begin == 0 {
        return;
    }
    b.boxed(*b"edts", |b| {
        b.full(*b"elst", 1, 0, |b| {
            b.u32(1 + u32::from(begin > 0));
            let mut edit = |len: u64, from: i64| {
                b.u64(len);
                b.i64(from);
                b.u32(0x1_0000);
            };
            if begin > 0 {
                edit(movie_ticks(begin, t.scale), -1);
            }
            edit(movie_ticks(t.line.end() - begin, t.scale), media_begin);
        });
    });
}

/// The tables; each is freed once it is written.
fn sample_tables(b: &mut Boxes, t: Track) -> Range<usize> {
    let samples = t.sizes.len();
    let seconds = (t.line.media_len().max(1) as u64).div_ceil(u64::from(t.scale)).max(1);
    t.held.write(
        b,
        Rates {
            largest: t.largest,
            bits_per_second: u32::try_from(t.bytes.saturating_mul(8) / seconds).unwrap_or(u32::MAX),
        },
    );
    let mut line = t.line;
    let (shift, reorders) = (line.shift(), line.reorders());
    let durations = std::mem::take(&mut line.durations);
    table(b, *b"stts", durations, |b, (n, d)| {
        b.u32(n);
        b.u32(d);
    });
    if reorders {
        table(b, *b"ctts", std::mem::take(&mut line.offsets), |b, (n, o)| {
            b.u32(n);
            b.u32((i64::from(o) + shift) as u32);
        });
    }
    if t.held.params.is_video() && t.keys.len() < samples {
        table(b, *b"stss", t.keys, Boxes::u32);
    }
    table(b, *b"stsc", t.runs, |b, (first, n)| {
        b.u32(first);
        b.u32(n);
        b.u32(1);
    });
    b.full(*b"stsz", 0, 0, |b| {
        b.u32(0);
        b.u32(samples as u32);
        for s in t.sizes {
            b.u32(s);
        }
    });
    let offsets_len = t.chunks.len() * 8;
    table(b, *b"co64", t.chunks, Boxes::u64);
    let offsets = b.len() - offsets_len..b.len();
    if let Some(distance) = t.held.pre_roll() {
        pre_roll(b, distance, samples as u32);
    }
    offsets
}

fn table<T>(b: &mut Boxes, kind: [u8; 4], rows: Vec<T>, row: impl Fn(&mut Boxes, T)) {
    b.full(kind, 0, 0, |b| {
        b.u32(rows.len() as u32);
        for r in rows {
            row(b, r);
        }
    });
}

/// Every sample needs those before it to be decoded first (section 10.1).
fn pre_roll(b: &mut Boxes, distance: i16, samples: u32) {
    b.full(*b"sgpd", 1, 0, |b| {
        b.bytes(b"roll");
        b.u32(2);
        b.u32(1);
        b.u16(distance as u16);
    });
    b.full(*b"sbgp", 0, 0, |b| {
        b.bytes(b"roll");
        b.u32(1);
        b.u32(samples);
        b.u32(1);
    });
}

/// Whose recording this is and when it begins, where players and tools look for it.
fn meta(b: &mut Boxes, start: WallTime, camera: &str) {
    let (y, mo, d, h, mi, s, us) = start.civil();
    let exact = format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{us:06}Z");
    b.full(*b"meta", 0, 0, |b| {
        b.full(*b"hdlr", 0, 0, |b| {
            b.u32(0);
            b.bytes(b"mdirappl");
            b.zeros(9);
        });
        b.boxed(*b"ilst", |b| {
            for (kind, text) in [
                (b"\xA9nam", camera),
                (b"\xA9day", exact.as_str()),
                (b"\xA9too", concat!("corenvr ", env!("CARGO_PKG_VERSION"))),
            ] {
                b.boxed(*kind, |b| data(b, text));
            }
            for (name, text) in [("CORENVR_CAMERA", camera), ("CORENVR_START", exact.as_str())] {
                b.boxed(*b"----", |b| {
                    b.full(*b"mean", 0, 0, |b| b.bytes(b"corenvr"));
                    b.full(*b"name", 0, 0, |b| b.bytes(name.as_bytes()));
                    data(b, text);
                });
            }
        });
    });
}

fn data(b: &mut Boxes, text: &str) {
    b.boxed(*b"data", |b| {
        b.u32(1); // UTF-8
        b.u32(0);
        b.bytes(text.as_bytes());
    });
}
