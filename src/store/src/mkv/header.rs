//! The header block: written, parsed, and finished in place.

use std::sync::Arc;

use corenvr_media::{CameraName, CodecParameters, WallTime};
use webm_iterable::{
    WebmWriter, WriteOptions,
    matroska_spec::{Master, MatroskaSpec as M},
};

use super::{
    ALIGN, HEADER_LEN_MAX, SEEK_HEAD_LEN, SPAN_MAX_MS, TRACKS_MAX,
    ebml::{Child, Children, SIZE_MAX, VOID, element, padding, put_void, size8},
    id,
    reader::{ReadError, ReadErrorKind},
    tracks,
    writer::WriteError,
};
use crate::GapCause;

const TIMESTAMP_SCALE_NS: u64 = 1_000_000;
/// 2001-01-01T00:00:00Z, where Matroska's dates begin.
const MATROSKA_EPOCH_US: i64 = 978_307_200_000_000;
/// Id, size and value of a Duration with 8 bytes.
const DURATION_LEN: usize = 11;
const TAG_CAMERA: &str = "CORENVR_CAMERA";
const TAG_START: &str = "CORENVR_START";
const TAG_GAP: &str = "CORENVR_GAP_BEFORE";
const TAG_BACKFILLED: &str = "CORENVR_BACKFILLED_UNTIL";
const TAG_FRAME_RATE: &str = "CORENVR_FRAME_RATE";

/// What a segment says of itself at its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The camera.
    pub camera: CameraName,
    /// Where the file's time line begins. Frames may be up to 32 s earlier, but other players cannot place those: give the
    /// earliest time of the first flush.
    pub start: WallTime,
    /// The tracks; `tracks[i]` describes `TrackId(i)`. The video track, where there is one, comes first.
    pub tracks: Arc<[CodecParameters]>,
    /// Why footage is missing before this segment, where it is. Of a back-filled one: the cause of the gap that it lies in, which
    /// holds for what is still missing before and behind it.
    pub gap_before: Option<GapCause>,
    /// Set if the footage was not recorded as it happened, but fetched later from an archive of the camera's own. Every frame,
    /// and the end of the last one, is before this moment: there begins other footage, or ends what was asked for.
    pub backfilled_until: Option<WallTime>,
}

/// Where the parts of a header are, in bytes from the start of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The first byte of the Segment's data, which Matroska's positions count from.
    pub data_at: u64,
    pub info_at: u64,
    pub duration_at: u64,
    pub tags_at: u64,
    pub tracks_at: u64,
    /// The first byte behind the header.
    pub first_cluster: u64,
}

/// How a sealed file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// The moment after its last frame.
    pub end: WallTime,
    /// Its size in bytes.
    pub bytes: u64,
    /// Where the Cues element starts: the end of the clusters.
    pub cues_at: u64,
}

/// A parsed header block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the segment says of itself.
    pub segment: SegmentHeader,
    /// Its end; `None` if it was not sealed.
    pub finished: Option<Finished>,
    pub(crate) layout: Layout,
}

impl Header {
    /// Where the first cluster starts.
    pub const fn first_cluster(&self) -> u64 {
        self.layout.first_cluster
    }
}

/// A header block cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// At least this many bytes from the start of the file are needed; never more than [`HEADER_LEN_MAX`].
    #[error("the header needs {0} bytes")]
    Incomplete(usize),
    /// It is a Matroska file, but none that corenvr wrote.
    #[error("not a recording of corenvr")]
    Foreign,
    /// It is damaged.
    #[error(transparent)]
    Damaged(#[from] ReadError),
}

/// The bytes of an element that stands at the top of the file or of the Segment. Writing into memory fails only for a malformed
/// tree, and these are built here.
fn bytes_of(m: &M, options: Option<WriteOptions>) -> Vec<u8> {
    const WELL_FORMED: &str = "a well-formed element goes into memory";
    let mut out = WebmWriter::new(Vec::with_capacity(ALIGN as usize));
    let mut prefix = 0;
    if !matches!(m, M::Ebml(_)) {
        // The writer takes only what its specification allows inside an open Segment, whose own header is not wanted.
        out.write_advanced(&M::Segment(Master::Start), WriteOptions::is_unknown_sized_element())
            .expect(WELL_FORMED);
        prefix = 12;
    }
    match options {
        Some(o) => out.write_advanced(m, o),
        None => out.write(m),
    }
    .expect(WELL_FORMED);
    let mut b = std::mem::take(out.get_mut());
    b.drain(..prefix);
    b
}

/// Builds the header block: its length is a multiple of 4096, and all that changes at sealing lies in the first 4096 bytes.
pub(crate) fn encode(h: &SegmentHeader) -> Result<(Vec<u8>, Layout), WriteError> {
    check(h)?;
    let mut b = bytes_of(
        &M::Ebml(Master::Full(vec![
            M::EbmlVersion(1),
            M::EbmlReadVersion(1),
            M::EbmlMaxIdLength(4),
            M::EbmlMaxSizeLength(8),
            M::DocType("matroska".into()),
            M::DocTypeVersion(4),
            M::DocTypeReadVersion(2),
        ])),
        None,
    );
    b.extend_from_slice(&id::SEGMENT.to_be_bytes());
    b.extend_from_slice(&super::ebml::UNKNOWN_SIZE);
    let data_at = b.len() as u64;
    put_void(&mut b, SEEK_HEAD_LEN);

    let info_at = b.len() as u64;
    b.append(&mut bytes_of(&info(h), None));
    // Until it is known, a Void stands for the Duration, which is Info's last child.
    let duration_at = b.len() - DURATION_LEN;
    b.truncate(duration_at);
    put_void(&mut b, DURATION_LEN as u64);

    let tags_at = b.len() as u64;
    b.append(&mut bytes_of(&tags(h), None));
    let tracks_at = b.len() as u64;
    let entries = h.tracks.iter().enumerate().map(|(i, p)| tracks::entry(i, p)).collect();
    b.append(&mut bytes_of(&M::Tracks(Master::Full(entries)), None));
    let pad = padding(b.len() as u64, ALIGN);
    put_void(&mut b, pad);
    let layout = Layout {
        data_at,
        info_at,
        duration_at: duration_at as u64,
        tags_at,
        tracks_at,
        first_cluster: b.len() as u64,
    };
    Ok((b, layout))
}

fn check(h: &SegmentHeader) -> Result<(), WriteError> {
    if h.tracks.is_empty() || h.tracks.len() > TRACKS_MAX {
        return Err(WriteError::TrackCount(h.tracks.len()));
    }
    for (i, p) in h.tracks.iter().enumerate() {
        if let Some(reason) = tracks::refuse(p) {
            return Err(WriteError::Track { index: i, reason });
        }
    }
    if h.start < WallTime::MIN || date_ns(h.start).is_none() {
        return Err(WriteError::Start(h.start));
    }
    match h.backfilled_until {
        Some(until) if until <= h.start => Err(WriteError::NotBefore { time: h.start, until }),
        _ => Ok(()),
    }
}

fn date_ns(t: WallTime) -> Option<i64> {
    t.as_micros().checked_sub(MATROSKA_EPOCH_US)?.checked_mul(1000)
}

fn info(h: &SegmentHeader) -> M {
    const APP: &str = concat!("corenvr ", env!("CARGO_PKG_VERSION"));
    M::Info(Master::Full(vec![
        M::TimestampScale(TIMESTAMP_SCALE_NS),
        M::MuxingApp(APP.into()),
        M::WritingApp(APP.into()),
        M::DateUTC(date_ns(h.start).unwrap_or(0)),
        M::Title(h.camera.as_str().to_owned()),
        M::Duration(0.0),
    ]))
}

/// `2026-11-20T10:00:00.123456Z`: [`WallTime`]'s own text ends at milliseconds.
fn start_text(t: WallTime) -> String {
    let (y, mo, d, h, mi, s, us) = t.civil();
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{us:06}Z")
}

fn tags(h: &SegmentHeader) -> M {
    let simple =
        |name: &str, text: String| M::SimpleTag(Master::Full(vec![M::TagName(name.to_owned()), M::TagString(text)]));
    let mut whole = vec![
        M::Targets(Master::Full(vec![])),
        simple(TAG_CAMERA, h.camera.as_str().to_owned()),
        simple(TAG_START, start_text(h.start)),
    ];
    whole.extend(h.gap_before.map(|g| simple(TAG_GAP, g.name().to_owned())));
    whole.extend(h.backfilled_until.map(|t| simple(TAG_BACKFILLED, start_text(t))));
    let mut all = vec![M::Tag(Master::Full(whole))];
    for (i, p) in h.tracks.iter().enumerate() {
        // As a tag because DefaultDuration would promise players a spacing that cameras do not keep.
        if let CodecParameters::Video(v) = p
            && let Some((n, d)) = v.frame_rate
        {
            all.push(M::Tag(Master::Full(vec![
                M::Targets(Master::Full(vec![M::TagTrackUID(i as u64 + 1)])),
                simple(TAG_FRAME_RATE, format!("{n}/{d}")),
            ])));
        }
    }
    M::Tags(Master::Full(all))
}

/// Writes into the first 4096 bytes of a header what is known only at the end: the Segment's size, SeekHead, Duration.
pub(crate) fn finish(block: &mut [u8], layout: &Layout, start: WallTime, f: &Finished) {
    let data_at = layout.data_at as usize;
    let size = (f.bytes - layout.data_at).min(SIZE_MAX);
    block[data_at - 8..data_at].copy_from_slice(&size8(size));

    let seek = |what: u32, at: u64| {
        M::Seek(Master::Full(vec![
            M::SeekID(what.to_be_bytes().to_vec()),
            M::SeekPosition(at - layout.data_at),
        ]))
    };
    let mut head = bytes_of(
        &M::SeekHead(Master::Full(vec![
            seek(id::INFO, layout.info_at),
            seek(id::TAGS, layout.tags_at),
            seek(id::TRACKS, layout.tracks_at),
            seek(id::CLUSTER, layout.first_cluster),
            seek(id::CUES, f.cues_at),
        ])),
        None,
    );
    // At most 5 x (14 + 8) bytes and the SeekHead's own header: a Void always fits behind it.
    let rest = SEEK_HEAD_LEN - head.len() as u64;
    put_void(&mut head, rest);
    block[data_at..data_at + head.len()].copy_from_slice(&head);

    let duration_at = layout.duration_at as usize;
    let duration_ms = f.end.micros_since(start).max(0) as f64 / 1000.0;
    let d = &mut block[duration_at..duration_at + DURATION_LEN];
    d[..3].copy_from_slice(&[0x44, 0x89, 0x88]);
    d[3..].copy_from_slice(&duration_ms.to_be_bytes());
}

/// The Cues element: (time in ms, absolute position of the cluster) of track 1.
pub(crate) fn cues(points: &[(u64, u64)], layout: &Layout) -> Vec<u8> {
    let point = |&(ms, at): &(u64, u64)| {
        M::CuePoint(Master::Full(vec![
            M::CueTime(ms),
            M::CueTrackPositions(Master::Full(vec![
                M::CueTrack(1),
                M::CueClusterPosition(at - layout.data_at),
            ])),
        ]))
    };
    bytes_of(
        &M::Cues(Master::Full(points.iter().map(point).collect())),
        Some(WriteOptions::set_size_byte_count(8)),
    )
}

/// What [`parse`] has gathered so far.
#[derive(Default)]
struct Found {
    camera: Option<CameraName>,
    start: Option<WallTime>,
    gap_before: Option<GapCause>,
    backfilled_until: Option<WallTime>,
    rates: Vec<(u64, (u32, u32))>,
    tracks: Option<Vec<CodecParameters>>,
    info: Option<(u64, u64)>,
    duration_ms: Option<f64>,
    cues_at: Option<u64>,
    tags_at: u64,
    tracks_at: u64,
}

/// Parses the header at the front of a file of corenvr's. `head` may be longer than the header, and may be as short as
/// [`ALIGN`] bytes: [`HeaderError::Incomplete`] says when that was too little.
pub fn parse(head: &[u8]) -> Result<Header, HeaderError> {
    let head = &head[..head.len().min(HEADER_LEN_MAX)];
    let ebml = child(head, 0)?;
    if ebml.id != id::EBML {
        return Err(ReadError::new(0, ReadErrorKind::NotMatroska).into());
    }
    for c in ebml.children() {
        let c = c?;
        if c.id == id::DOC_TYPE && c.text()? != "matroska" {
            return Err(HeaderError::Foreign);
        }
    }
    let segment_at = ebml.data_at + ebml.data.len() as u64;
    let segment = element(&head[segment_at as usize..], segment_at).map_err(|e| incomplete(e, head))?;
    if segment.id != id::SEGMENT {
        return Err(ReadError::new(segment_at, ReadErrorKind::Unexpected(segment.id)).into());
    }
    // Only an 8-byte size can be written in place.
    if segment.header_len != 12 {
        return Err(HeaderError::Foreign);
    }
    let data_at = segment_at + segment.header_len as u64;
    let mut found = Found::default();
    let mut at = data_at;
    while !(found.tracks.is_some() && at.is_multiple_of(ALIGN)) {
        let c = child(head, at)?;
        found.take(&c, data_at)?;
        at = c.data_at + c.data.len() as u64;
    }
    found.header(at, data_at, segment.size)
}

/// The element at `at`, whole.
fn child(head: &[u8], at: u64) -> Result<Child<'_>, HeaderError> {
    let rest = head.get(at as usize..).unwrap_or(&[]);
    let e = element(rest, at).map_err(|e| incomplete(e, head))?;
    let end = e.size.and_then(|n| n.checked_add(at + e.header_len as u64));
    match end {
        Some(end) if end <= head.len() as u64 => {}
        // A cluster before the tracks, or a size that no header of ours has.
        None => return Err(ReadError::new(at, ReadErrorKind::UnknownSize).into()),
        Some(_) if e.id == id::CLUSTER => return Err(HeaderError::Foreign),
        Some(end) if end <= HEADER_LEN_MAX as u64 => {
            return Err(HeaderError::Incomplete((end as usize).next_multiple_of(ALIGN as usize)));
        }
        Some(_) => return Err(ReadError::new(at, ReadErrorKind::TooLong(e.id)).into()),
    }
    match Children::new(rest, at).next() {
        Some(c) => Ok(c?),
        None => Err(ReadError::new(at, ReadErrorKind::Truncated).into()),
    }
}

fn incomplete(e: ReadError, head: &[u8]) -> HeaderError {
    if e.kind == ReadErrorKind::Truncated && head.len() < HEADER_LEN_MAX {
        HeaderError::Incomplete((head.len() + 1).next_multiple_of(ALIGN as usize))
    } else {
        HeaderError::Damaged(e)
    }
}

impl Found {
    fn take(&mut self, c: &Child<'_>, data_at: u64) -> Result<(), HeaderError> {
        match c.id {
            VOID => {}
            id::SEEK_HEAD => self.seek_head(c, data_at)?,
            id::INFO => self.info(c)?,
            id::TAGS => self.tags(c)?,
            id::TRACKS => self.tracks(c)?,
            id::CLUSTER => return Err(HeaderError::Foreign),
            other => return Err(ReadError::new(c.at, ReadErrorKind::Unexpected(other)).into()),
        }
        Ok(())
    }

    fn seek_head(&mut self, c: &Child<'_>, data_at: u64) -> Result<(), ReadError> {
        for seek in c.children() {
            let seek = seek?;
            let (mut what, mut at) = (0, 0);
            for f in seek.children().take(8) {
                let f = f?;
                match f.id {
                    id::SEEK_ID => what = f.uint()?,
                    id::SEEK_POSITION => at = f.uint()?,
                    _ => {}
                }
            }
            if seek.id == id::SEEK && what == u64::from(id::CUES) {
                self.cues_at = data_at.checked_add(at);
            }
        }
        Ok(())
    }

    fn info(&mut self, c: &Child<'_>) -> Result<(), ReadError> {
        for f in c.children() {
            let f = f?;
            match f.id {
                id::TIMESTAMP_SCALE if f.uint()? != TIMESTAMP_SCALE_NS => {
                    return Err(ReadError::new(f.at, ReadErrorKind::BadValue(f.id)));
                }
                id::DURATION => self.duration_ms = Some(f.float()?),
                _ => {}
            }
        }
        let end = c.data_at + c.data.len() as u64;
        if c.data.len() > DURATION_LEN {
            self.info = Some((c.at, end - DURATION_LEN as u64));
        }
        Ok(())
    }

    fn tags(&mut self, c: &Child<'_>) -> Result<(), ReadError> {
        self.tags_at = c.at;
        for tag in c.children() {
            let tag = tag?;
            if tag.id != id::TAG {
                continue;
            }
            let mut track = 0;
            for f in tag.children() {
                let f = f?;
                if f.id == id::TARGETS {
                    for t in f.children() {
                        let t = t?;
                        if t.id == id::TAG_TRACK_UID {
                            track = t.uint()?;
                        }
                    }
                } else if f.id == id::SIMPLE_TAG {
                    self.simple_tag(&f, track)?;
                }
            }
        }
        Ok(())
    }

    fn simple_tag(&mut self, c: &Child<'_>, track: u64) -> Result<(), ReadError> {
        let (mut name, mut text) = ("", "");
        for f in c.children() {
            let f = f?;
            match f.id {
                id::TAG_NAME => name = f.text()?,
                id::TAG_STRING => text = f.text()?,
                _ => {}
            }
        }
        let bad = || ReadError::new(c.at, ReadErrorKind::BadValue(c.id));
        match name {
            TAG_CAMERA => self.camera = Some(CameraName::new(text).map_err(|_| bad())?),
            TAG_START => self.start = Some(WallTime::parse(text).map_err(|_| bad())?),
            TAG_GAP => self.gap_before = Some(text.parse().unwrap_or(GapCause::Unknown)),
            TAG_BACKFILLED => self.backfilled_until = Some(WallTime::parse(text).map_err(|_| bad())?),
            TAG_FRAME_RATE if self.rates.len() < TRACKS_MAX => {
                let (n, d) = text.split_once('/').ok_or_else(bad)?;
                let rate = (n.parse().map_err(|_| bad())?, d.parse().map_err(|_| bad())?);
                self.rates.push((track, rate));
            }
            _ => {}
        }
        Ok(())
    }

    fn tracks(&mut self, c: &Child<'_>) -> Result<(), ReadError> {
        let mut list = Vec::new();
        for entry in c.children() {
            let entry = entry?;
            if entry.id != id::TRACK_ENTRY {
                continue;
            }
            let (number, mut p) = tracks::parse(&entry)?;
            if number != list.len() as u64 + 1 || list.len() == TRACKS_MAX {
                return Err(ReadError::new(entry.at, ReadErrorKind::Track));
            }
            if let CodecParameters::Video(v) = &mut p {
                v.frame_rate = self.rates.iter().find(|(t, _)| *t == number).map(|(_, r)| *r);
            }
            list.push(p);
        }
        if list.is_empty() || self.tracks.is_some() {
            return Err(ReadError::new(c.at, ReadErrorKind::Track));
        }
        self.tracks_at = c.at;
        self.tracks = Some(list);
        Ok(())
    }

    fn header(self, first_cluster: u64, data_at: u64, size: Option<u64>) -> Result<Header, HeaderError> {
        let (Some(camera), Some(start), Some((info_at, duration_at)), Some(tracks)) =
            (self.camera, self.start, self.info, self.tracks)
        else {
            return Err(HeaderError::Foreign);
        };
        // What is patched at sealing must lie in the first block, behind the room for the SeekHead.
        if info_at != data_at + SEEK_HEAD_LEN || duration_at + DURATION_LEN as u64 > ALIGN {
            return Err(HeaderError::Foreign);
        }
        let end = self
            .duration_ms
            .filter(|ms| (0.0..=SPAN_MAX_MS as f64).contains(ms))
            .map(|ms| start.offset((ms * 1000.0).round() as i64));
        let finished = match (end, size, self.cues_at) {
            (Some(end), Some(size), Some(cues_at)) if cues_at >= first_cluster => Some(Finished {
                end,
                bytes: data_at + size,
                cues_at,
            }),
            _ => None,
        };
        Ok(Header {
            segment: SegmentHeader {
                camera,
                start,
                tracks: tracks.into(),
                gap_before: self.gap_before,
                backfilled_until: self.backfilled_until,
            },
            finished,
            layout: Layout {
                data_at,
                info_at,
                duration_at,
                tags_at: self.tags_at,
                tracks_at: self.tracks_at,
                first_cluster,
            },
        })
    }
}
