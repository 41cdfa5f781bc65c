//! Entry points for fuzzers: each takes any bytes, must neither panic nor take memory by what they claim, and checks that what
//! comes out agrees with itself.

use bytes::Bytes;
use corenvr_media::WallTime;

use crate::{
    Table, events,
    mkv::{
        file::{read_header, read_tail},
        header, import,
        reader::{Timebase, parse_cluster, verify_cluster},
        recover,
    },
};

/// A header block.
pub fn header(data: &[u8]) {
    if let Ok(h) = header::parse(data) {
        assert!(h.first_cluster() as usize <= data.len());
        if let Ok((block, _)) = header::encode(&h.segment) {
            let again = header::parse(&block).expect("what was written is read");
            assert_eq!(again.segment, h.segment);
        }
    }
}

/// The events of a day.
pub fn events(data: &[u8]) {
    let found = events::parse(data).expect("memory can be read");
    assert!(found.events.len() as u64 + found.bad_lines <= data.len() as u64);
    for event in &found.events {
        let line = event.line().expect("what was read can be written");
        assert!(line.len() <= events::LINE_LEN_MAX && line.ends_with(b"\n"));
        let again = events::parse(&line[..]).expect("memory can be read");
        assert_eq!((again.events.len(), again.bad_lines), (1, 0));
    }
}

/// A cluster, for a recording with the tracks of the header in front of it.
pub fn cluster(data: &[u8]) {
    let Ok(h) = header::parse(data) else { return };
    let at = h.first_cluster();
    let bytes = Bytes::copy_from_slice(&data[at as usize..]);
    let time = Timebase::new(h.segment.start, &h.segment.tracks);
    let _ = verify_cluster(&bytes, at);
    if let Ok(frames) = parse_cluster(&bytes, at, &time) {
        let payload: usize = frames.iter().map(|f| f.data.len()).sum();
        assert!(payload <= bytes.len());
        assert!(frames.iter().all(|f| usize::from(f.track.0) < h.segment.tracks.len()));
    }
}

/// A whole file after a crash.
pub fn recover(data: &[u8]) {
    if let Ok(s) = recover::scan(data) {
        assert!(s.table.clusters.iter().all(|c| c.offset < data.len() as u64));
        assert!(
            s.table
                .clusters
                .is_sorted_by(|a, b| a.offset + u64::from(a.len) <= b.offset)
        );
        assert_eq!(Table::unpack(&s.table.pack()).as_ref(), Ok(&s.table));
    }
    if let Ok((h, _)) = read_header(data)
        && let Some(f) = &h.finished
    {
        let _ = read_tail(data, &h, f);
    }
}

/// A packed cluster table.
pub fn table(data: &[u8]) {
    if let Ok(t) = Table::unpack(data) {
        let _ = t.key_at_or_before(WallTime::MAX);
        let _ = t.cluster_at(u64::MAX);
    }
}

/// A foreign clip.
pub fn import(data: &[u8]) {
    if let Ok(clip) = import::read_clip(data) {
        assert!(clip.frames.iter().all(|f| usize::from(f.track.0) < clip.tracks.len()));
    }
}

#[cfg(test)]
mod tests;
