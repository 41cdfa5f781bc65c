//! The headers of a program stream (ISO/IEC 13818-1 clauses 2.4.3.6, 2.5.3 and 2.5.4), each read from the start of what has come.
//!
//! Devices are read leniently: reserved bits, CRCs and the lengths that a header repeats are not checked.

use smallvec::SmallVec;

/// The longest header in bytes that is read as a whole (a program stream map). Longer ones are skipped.
const HEADER_LEN_MAX: usize = 1024;
/// Streams of a map that are kept. Further ones are as if the map did not name them.
const MAP_STREAMS_MAX: usize = 16;
/// The lowest stream id (table 2-18); below are the start codes of video.
pub(super) const STREAM_ID_FIRST: u8 = 0xB9;

const PROGRAM_END: u8 = 0xB9;
const PACK: u8 = 0xBA;
const SYSTEM_HEADER: u8 = 0xBB;
const MAP: u8 = 0xBC;
const PADDING: u8 = 0xBE;
const AUDIO_FIRST: u8 = 0xC0;
const VIDEO_FIRST: u8 = 0xE0;
const VIDEO_LAST: u8 = 0xEF;

/// Bytes of a pack header up to its stuffing, and of the one of MPEG-1.
const PACK_LEN: usize = 14;
const PACK_LEN_MPEG1: usize = 12;
/// Bytes of a packet up to its length's end, and of a PES header up to its optional fields.
const PACKET_LEN: usize = 6;
const PES_LEN: usize = 9;

/// Whether a stream id is one of video.
pub(super) const fn is_video(id: u8) -> bool {
    id >= VIDEO_FIRST && id <= VIDEO_LAST
}

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A start code or header that is not there as a whole.
    More,
    /// No start code of a program stream.
    Nothing,
    /// A header of this many bytes, with zeros before it.
    Header(usize, Header),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// A pack; the base of its clock reference in 90 kHz, 32 bits of it.
    Pack { clock: u32 },
    /// What the streams are.
    Map(StreamMap),
    /// A PES packet of video or sound; its payload follows.
    Pes(Pes),
    /// A packet of these bytes that is not read; `None`: up to the next start code.
    Skip(Option<usize>),
    /// A PES packet whose header is longer than itself; this many bytes of it follow.
    Broken { id: u8, len: usize },
    /// The end of the program stream.
    End,
}

/// A PES packet's header (clause 2.4.3.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pes {
    pub id: u8,
    /// In 90 kHz, 32 bits of it.
    pub pts: Option<u32>,
    /// Bytes of its payload; `None`: up to the next start code.
    pub len: Option<usize>,
}

/// The streams of a program stream map: stream type and stream id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StreamMap(SmallVec<[(u8, u8); 4]>);

impl StreamMap {
    /// The type of a stream. A map that names one stream of its kind, by another id, means this one.
    pub fn stream_type(&self, id: u8) -> Option<u8> {
        if let Some((kind, _)) = self.0.iter().find(|(_, i)| *i == id) {
            return Some(*kind);
        }
        let mut alike = self
            .0
            .iter()
            .filter(|(_, i)| *i >= AUDIO_FIRST && is_video(*i) == is_video(id));
        match (alike.next(), alike.next()) {
            (Some((kind, _)), None) => Some(*kind),
            _ => None,
        }
    }

    /// Reads the map behind its length (clause 2.5.4.1). Entries that do not fit are left out.
    fn parse(body: &[u8]) -> Self {
        let mut streams = SmallVec::new();
        let info_len = body.get(2..4).map_or(0, number);
        let list = body.get(4 + info_len..).unwrap_or(&[]);
        let list_len = list.first_chunk::<2>().map_or(0, |len| number(len));
        let mut rest = list.get(2..).unwrap_or(&[]);
        rest = &rest[..rest.len().min(list_len)];
        while let Some((&[kind, id, l0, l1], tail)) = rest.split_first_chunk::<4>() {
            if streams.len() < MAP_STREAMS_MAX {
                streams.push((kind, id));
            }
            rest = tail.get(number(&[l0, l1])..).unwrap_or(&[]);
        }
        Self(streams)
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |value, &b| value << 8 | usize::from(b))
}

/// Reads what `data` starts with. Zeros before a start code belong to it.
pub(super) fn next(data: &[u8]) -> Next {
    let zeros = data.iter().take_while(|&&b| b == 0).count();
    if zeros == data.len() {
        return Next::More;
    }
    if zeros < 2 || data[zeros] != 1 {
        return Next::Nothing;
    }
    let start = zeros - 2;
    let Some(&id) = data.get(zeros + 1) else {
        return Next::More;
    };
    if id < STREAM_ID_FIRST {
        return Next::Nothing;
    }
    match read(id, &data[start..]) {
        Some((len, header)) => Next::Header(start + len, header),
        None => Next::More,
    }
}

/// The header of this id that `data` starts with; `None` if it is not there as a whole.
fn read(id: u8, data: &[u8]) -> Option<(usize, Header)> {
    match id {
        PROGRAM_END => Some((4, Header::End)),
        PACK => read_pack(data),
        MAP => {
            let len = packet_len(data)?;
            if PACKET_LEN + len > HEADER_LEN_MAX {
                return Some((PACKET_LEN, Header::Skip(Some(len))));
            }
            let body = data.get(PACKET_LEN..PACKET_LEN + len)?;
            Some((PACKET_LEN + len, Header::Map(StreamMap::parse(body))))
        }
        AUDIO_FIRST..=VIDEO_LAST => read_pes(id, data),
        _ => {
            let len = packet_len(data)?;
            let open = len == 0 && id != PADDING;
            Some((PACKET_LEN, Header::Skip((!open).then_some(len))))
        }
    }
}

fn packet_len(data: &[u8]) -> Option<usize> {
    data.get(4..PACKET_LEN).map(number)
}

fn read_pack(data: &[u8]) -> Option<(usize, Header)> {
    if data.get(4)? & 0xF0 == 0x20 {
        let clock = time_stamp(*data.get(4..PACK_LEN_MPEG1)?.first_chunk()?);
        return Some((PACK_LEN_MPEG1, Header::Pack { clock }));
    }
    let &[b0, b1, b2, b3, b4, .., stuffing] = data.get(4..PACK_LEN)?.first_chunk::<10>()?;
    let [b0, b1, b2, b3, b4] = [b0, b1, b2, b3, b4].map(u64::from);
    let clock = (b0 >> 3 & 7) << 30 | (b0 & 3) << 28 | b1 << 20 | (b2 >> 3) << 15 | (b2 & 3) << 13 | b3 << 5 | b4 >> 3;
    // What stands in the stuffing is not looked at: some vendors put bytes there that look like start codes.
    let len = PACK_LEN + usize::from(stuffing & 7);
    (data.len() >= len).then_some((len, Header::Pack { clock: clock as u32 }))
}

fn read_pes(id: u8, data: &[u8]) -> Option<(usize, Header)> {
    let len = packet_len(data)?;
    let &[marks, flags, fields_len] = data.get(PACKET_LEN..)?.first_chunk::<3>()?;
    let fields_len = usize::from(fields_len);
    let header_len = PES_LEN - PACKET_LEN + fields_len;
    if marks & 0xC0 != 0x80 || (len != 0 && len < header_len) {
        return Some((PACKET_LEN, Header::Broken { id, len }));
    }
    let fields = data.get(PES_LEN..PES_LEN + fields_len)?;
    let pts = fields
        .first_chunk::<5>()
        .filter(|_| flags & 0x80 != 0)
        .map(|field| time_stamp(*field));
    let len = (len != 0).then(|| len - header_len);
    Some((PES_LEN + fields_len, Header::Pes(Pes { id, pts, len })))
}

/// 33 bits between marker bits; the lower 32 of them.
fn time_stamp(bytes: [u8; 5]) -> u32 {
    let [b0, b1, b2, b3, b4] = bytes.map(u64::from);
    ((b0 >> 1 & 7) << 30 | b1 << 22 | (b2 >> 1) << 15 | b3 << 7 | b4 >> 1) as u32
}

/// Whether a payload begins with a system header, a map, or a packet of sound: its sender begins payloads where packets begin, and
/// nothing else looks like them there.
pub(super) fn begins(data: &[u8]) -> bool {
    match *data {
        [0, 0, 1, SYSTEM_HEADER | MAP, ..] => true,
        [0, 0, 1, 0xC0..=0xDF, _, _, marks, ..] => marks & 0xC0 == 0x80,
        _ => false,
    }
}

/// Whether a stream can be entered at the start code that `data` begins with: a pack, or a video packet with its time stamp, with
/// all marker bits as they must be. `None` if that cannot be told yet.
pub(super) fn can_enter(data: &[u8]) -> Option<bool> {
    let id = *data.get(3)?;
    if id == PACK {
        let clock = data.get(4..PACK_LEN)?;
        let mpeg2 = clock[0] & 0xC4 == 0x44 && clock[2] & 4 == 4 && clock[4] & 4 == 4 && clock[8] & 3 == 3;
        let mpeg1 = clock[0] & 0xF1 == 0x21 && clock[2] & 1 == 1 && clock[4] & 1 == 1;
        return Some(mpeg2 || mpeg1);
    }
    if !is_video(id) {
        return Some(false);
    }
    let &[marks, flags, fields_len, first] = data.get(PACKET_LEN..PES_LEN + 1)?.first_chunk::<4>()?;
    Some(marks & 0xC0 == 0x80 && flags & 0x80 != 0 && fields_len >= 5 && first & 0xE1 == 0x21)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_read_with_the_stuffing_its_last_byte_counts() {
        // system_clock_reference_base 0x1_2345_6789 of 33 bits, extension 0.
        let base = 0x1_2345_6789u64;
        let mut pack = vec![0, 0, 1, 0xBA];
        pack.extend([
            0x44 | ((base >> 30 & 7) << 3) as u8 | (base >> 28 & 3) as u8,
            (base >> 20) as u8,
            ((base >> 15 & 0x1F) << 3) as u8 | 4 | (base >> 13 & 3) as u8,
            (base >> 5) as u8,
            ((base & 0x1F) << 3) as u8 | 4,
            1,
            0,
            0,
            3,
            0xF8 | 4,
        ]);
        pack.extend([0, 0, 1, 0xE0]);
        assert_eq!(next(&pack), Next::Header(18, Header::Pack { clock: 0x2345_6789 }));
        for len in 1..18 {
            assert_eq!(next(&pack[..len]), Next::More, "{len}");
        }
        assert_eq!(can_enter(&pack), Some(true));
        pack[12] = 0;
        assert_eq!(can_enter(&pack), Some(false));
    }

    #[test]
    fn a_map_with_lengths_past_its_end_gives_what_fits() {
        let whole = [
            0, 0, 1, 0xBC, 0, 18, 0xE1, 0xFF, 0, 0, 0, 8, 0x24, 0xE0, 0, 0, 0x90, 0xC0, 0, 0, 1, 2, 3, 4,
        ];
        let Next::Header(24, Header::Map(map)) = next(&whole) else {
            panic!("a map")
        };
        assert_eq!((map.stream_type(0xE0), map.stream_type(0xC0)), (Some(0x24), Some(0x90)));
        assert_eq!(map.stream_type(0xC1), Some(0x90), "the only sound there is");
        let mut beyond = whole;
        beyond[15] = 0xFF;
        let Next::Header(24, Header::Map(map)) = next(&beyond) else {
            panic!("a map")
        };
        assert_eq!((map.stream_type(0xE0), map.stream_type(0xC0)), (Some(0x24), None));
        beyond[9] = 0xFF;
        assert_eq!(next(&beyond), Next::Header(24, Header::Map(StreamMap::default())));
    }

    #[test]
    fn a_packet_shorter_than_its_header_is_broken() {
        let pes = [0, 0, 1, 0xE0, 0, 7, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1];
        assert_eq!(next(&pes), Next::Header(6, Header::Broken { id: 0xE0, len: 7 }));
        assert_eq!(can_enter(&pes), Some(true));
        assert_eq!(next(&[0, 0, 1, 0xE0, 0, 7, 0]), Next::More);
    }

    #[test]
    fn start_codes_of_video_and_other_bytes_are_nothing() {
        for data in [&[0, 0, 1, 0x65][..], &[0, 1], &[5], &[0, 0, 2]] {
            assert_eq!(next(data), Next::Nothing);
        }
        assert_eq!(next(&[0, 0, 0, 0, 0, 1, 0xB9]), Next::Header(7, Header::End));
        assert_eq!(next(&[]), Next::More);
    }
}
