//! RTP packets out of a TCP stream: the two framings that devices use, and the way back where they are lost.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of an RTP header without its optional parts: a shorter packet is none.
const RTP_LEN_MIN: usize = 12;
/// Bytes of the shortest RTCP packet.
const RTCP_LEN_MIN: usize = 8;
/// How far ahead of the last packet's sequence number one may be that is taken for the next after a loss of the framing.
const SEQUENCE_STEP_MAX: u16 = 3000;

/// Splits a TCP stream into RTP (and RTCP) packets: RFC 4571 lengths, or `$`, channel, length as RTSP interleaves them.
///
/// Which of the two is decided once, by the RTP version behind the first one. Where the framing is lost it is found again by
/// the SSRC of the session; the bytes in between are counted.
#[derive(Debug, Default)]
pub struct TcpFraming {
    prefix: Option<Prefix>,
    last: Option<Last>,
    lost: bool,
    skipped: u64,
}

/// What stands before each packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    /// A 16-bit length (RFC 4571 section 2).
    Length,
    /// `$`, a channel, a 16-bit length (RFC 2326 section 10.12).
    Interleaved,
}

impl Prefix {
    const fn len(self) -> usize {
        match self {
            Self::Length => 2,
            Self::Interleaved => 4,
        }
    }

    /// The length of the packet behind the prefix that `data` starts with. `None`: it is not this prefix.
    fn packet_len(self, data: &[u8]) -> Option<usize> {
        if self == Self::Interleaved && data.first() != Some(&b'$') {
            return None;
        }
        let at = self.len() - 2;
        let &[l0, l1] = data.get(at..)?.first_chunk::<2>()?;
        Some(usize::from(u16::from_be_bytes([l0, l1])))
    }
}

/// What the next RTP packet of the session has in common with the last.
#[derive(Debug, Clone, Copy)]
struct Last {
    payload_type: u8,
    sequence: u16,
    ssrc: [u8; 4],
}

/// What stands at the front of the input.
enum Front {
    /// More bytes are needed to tell.
    More,
    /// A packet of this length behind its prefix.
    Packet(usize),
    /// Nothing between two packets: a length of 0.
    Empty,
    /// No packet.
    Broken,
}

/// What a look for a packet finds at one place.
enum Found {
    Here(Prefix),
    Nothing,
    /// That takes more bytes.
    Unknown,
}

impl TcpFraming {
    /// Before the first byte of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next whole packet, split off the front of what was received; `None` if more bytes are needed. Call it until `None`
    /// after each read, and leave `input` to it: what is left in there is the start of a packet (at most 64 KiB).
    pub fn next_packet(&mut self, input: &mut BytesMut) -> Option<Bytes> {
        loop {
            if self.lost || self.prefix.is_none() {
                self.find(input)?;
            }
            let prefix = self.prefix?;
            match self.front(prefix, input) {
                Front::More => return None,
                Front::Empty => {
                    input.advance(prefix.len());
                    self.skipped += prefix.len() as u64;
                }
                Front::Packet(len) => {
                    if input.len() < prefix.len() + len {
                        return None;
                    }
                    input.advance(prefix.len());
                    let packet = input.split_to(len).freeze();
                    self.remember(&packet);
                    return Some(packet);
                }
                Front::Broken => {
                    self.lost = true;
                    self.skip(input, 1);
                }
            }
        }
    }

    /// Bytes that were no part of a packet, since the start.
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped
    }

    fn front(&self, prefix: Prefix, input: &[u8]) -> Front {
        if prefix == Prefix::Interleaved && input.first().is_some_and(|&b| b != b'$') {
            return Front::Broken;
        }
        let Some(len) = prefix.packet_len(input) else {
            return Front::More;
        };
        if len == 0 {
            return Front::Empty;
        }
        let Some(head) = input.get(prefix.len()..prefix.len() + 2) else {
            return Front::More;
        };
        if is_rtcp(head) && len >= RTCP_LEN_MIN {
            return Front::Packet(len);
        }
        if !is_rtp(head) || len < RTP_LEN_MIN {
            return Front::Broken;
        }
        let Some(ssrc) = input.get(prefix.len() + 8..prefix.len() + RTP_LEN_MIN) else {
            return Front::More;
        };
        if self.last.is_none_or(|last| ssrc == last.ssrc) {
            return Front::Packet(len);
        }
        // Another source: a packet of it, if another packet follows; else these bytes are no prefix.
        let Some(behind) = input.get(prefix.len() + len..) else {
            return Front::More;
        };
        match behind.get(prefix.len()..prefix.len() + 2) {
            None => Front::More,
            Some(head) if prefix.packet_len(behind).is_some() && (is_rtp(head) || is_rtcp(head)) => Front::Packet(len),
            Some(_) => Front::Broken,
        }
    }

    fn remember(&mut self, packet: &[u8]) {
        let Some(&[b0, b1, s0, s1, .., c0, c1, c2, c3]) = packet.first_chunk::<RTP_LEN_MIN>() else {
            return;
        };
        let ssrc = [c0, c1, c2, c3];
        if is_rtcp(&[b0, b1]) || self.last.is_some_and(|last| last.ssrc != ssrc) {
            return;
        }
        self.last = Some(Last {
            payload_type: b1 & 0x7F,
            sequence: u16::from_be_bytes([s0, s1]),
            ssrc,
        });
    }

    /// Skips to where a packet begins. `None` if there is none in what was received.
    fn find(&mut self, input: &mut BytesMut) -> Option<()> {
        for at in 0..input.len() {
            let rest = &input[at..];
            let found = match (self.last, self.prefix) {
                (Some(last), Some(prefix)) => match is_next(prefix, last, rest) {
                    Some(true) => Found::Here(prefix),
                    Some(false) => Found::Nothing,
                    None => Found::Unknown,
                },
                _ => first_prefix(rest),
            };
            match found {
                Found::Nothing => {}
                Found::Unknown => {
                    // What may be a packet's beginning stays.
                    self.skip(input, at);
                    return None;
                }
                Found::Here(prefix) => {
                    self.skip(input, at);
                    self.prefix = Some(prefix);
                    self.lost = false;
                    return Some(());
                }
            }
        }
        self.skip(input, input.len());
        None
    }

    fn skip(&mut self, input: &mut BytesMut, count: usize) {
        input.advance(count);
        self.skipped += count as u64;
    }
}

/// Whether these two bytes are the head of an RTCP packet (RFC 5761 section 4).
fn is_rtcp(head: &[u8]) -> bool {
    matches!(head, [b0, kind, ..] if b0 >> 6 == 2 && (192..=223).contains(kind))
}

fn is_rtp(head: &[u8]) -> bool {
    head.first().is_some_and(|b0| b0 >> 6 == 2)
}

/// The prefix that the stream begins with here.
fn first_prefix(data: &[u8]) -> Found {
    begins_with(data).unwrap_or(Found::Unknown)
}

fn begins_with(data: &[u8]) -> Option<Found> {
    let plausible = |prefix: Prefix| {
        let head = data.get(prefix.len()..prefix.len() + 2)?;
        let Some(len) = prefix.packet_len(data) else {
            return Some(false);
        };
        Some((is_rtp(head) && len >= RTP_LEN_MIN) || (is_rtcp(head) && len >= RTCP_LEN_MIN))
    };
    // A length that begins with the byte of `$` is over 9000: with RTP's version behind either, it is the dollar only if the
    // version is not where a mere length has it.
    if plausible(Prefix::Length)? {
        return Some(Found::Here(Prefix::Length));
    }
    if data.first() == Some(&b'$') && plausible(Prefix::Interleaved)? {
        return Some(Found::Here(Prefix::Interleaved));
    }
    Some(Found::Nothing)
}

/// Whether the session's next packet is here, with its prefix; `None` if that cannot be told yet.
fn is_next(prefix: Prefix, last: Last, data: &[u8]) -> Option<bool> {
    if prefix == Prefix::Interleaved && data[0] != b'$' {
        return Some(false);
    }
    let &[b0, b1, s0, s1, .., c0, c1, c2, c3] = data.get(prefix.len()..)?.first_chunk::<RTP_LEN_MIN>()?;
    let step = u16::from_be_bytes([s0, s1]).wrapping_sub(last.sequence);
    let is = is_rtp(&[b0])
        && b1 & 0x7F == last.payload_type
        && [c0, c1, c2, c3] == last.ssrc
        && (1..=SEQUENCE_STEP_MAX).contains(&step)
        && prefix.packet_len(data).is_some_and(|len| len >= RTP_LEN_MIN);
    Some(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtp(sequence: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, 96];
        packet.extend(sequence.to_be_bytes());
        packet.extend(9000u32.to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        packet.extend(payload);
        packet
    }

    fn framed(prefix: Prefix, packet: &[u8]) -> Vec<u8> {
        let mut out = if prefix == Prefix::Interleaved {
            vec![b'$', 0]
        } else {
            vec![]
        };
        out.extend((packet.len() as u16).to_be_bytes());
        out.extend(packet);
        out
    }

    /// Feeds the stream in pieces of this size.
    fn split(stream: &[u8], piece: usize) -> (Vec<Bytes>, u64) {
        let (mut framing, mut input, mut packets) = (TcpFraming::new(), BytesMut::new(), Vec::new());
        for bytes in stream.chunks(piece) {
            input.extend_from_slice(bytes);
            packets.extend(std::iter::from_fn(|| framing.next_packet(&mut input)));
        }
        (packets, framing.skipped_bytes())
    }

    #[test]
    fn both_framings_are_understood_however_the_stream_is_cut() {
        let packets: Vec<_> = (0..5u16)
            .map(|i| rtp(65_533 + u16::min(i, 2), 7, &vec![i as u8; 40 * usize::from(i)]))
            .collect();
        for prefix in [Prefix::Length, Prefix::Interleaved] {
            let stream: Vec<u8> = packets.iter().flat_map(|p| framed(prefix, p)).collect();
            for piece in 1..stream.len() {
                assert_eq!(
                    split(&stream, piece),
                    (packets.iter().cloned().map(Bytes::from).collect(), 0)
                );
            }
        }
    }

    /// A packet of 9 216 to 9 471 bytes has a length that begins with the byte of the dollar sign.
    #[test]
    fn a_first_length_that_looks_like_a_dollar_is_a_length() {
        let packet = rtp(1, 7, &vec![0x80; 0x2410 - 12]);
        let stream = [
            framed(Prefix::Length, &packet),
            framed(Prefix::Length, &rtp(2, 7, b"x")),
        ]
        .concat();
        assert_eq!(split(&stream, 1000).0.len(), 2);
    }

    #[test]
    fn lost_framing_is_found_again_by_the_source_even_if_that_is_zero() {
        for ssrc in [0, 0xA1B2_C3D4] {
            for prefix in [Prefix::Length, Prefix::Interleaved] {
                let packets: Vec<_> = (10..14).map(|i| rtp(i, ssrc, &[0; 50])).collect();
                let mut stream = framed(prefix, &packets[0]);
                stream.extend([0xFF; 7]);
                stream.extend([0; 200]);
                for packet in &packets[1..] {
                    stream.extend(framed(prefix, packet));
                }
                for piece in [1, 3, 100, 1000] {
                    let (got, skipped) = split(&stream, piece);
                    assert_eq!(got, packets, "{prefix:?} {ssrc} {piece}");
                    assert_eq!(skipped, 207);
                }
            }
        }
    }

    #[test]
    fn a_length_that_is_wrong_costs_what_it_covers() {
        let packets: Vec<_> = (0..6).map(|i| rtp(i, 9, &[i as u8; 60])).collect();
        let mut stream = Vec::new();
        for (i, packet) in packets.iter().enumerate() {
            let mut bytes = framed(Prefix::Length, packet);
            if i == 2 {
                bytes[1] -= 5;
            }
            stream.extend(bytes);
        }
        let (got, skipped) = split(&stream, 50);
        assert_eq!(got.len(), 6);
        assert_eq!(got[2][..], packets[2][..67]);
        assert_eq!(
            (&got[3..], skipped),
            (
                &[
                    packets[3].clone().into(),
                    packets[4].clone().into(),
                    packets[5].clone().into()
                ][..],
                5
            )
        );
    }

    #[test]
    fn reports_other_sources_and_empty_frames_do_not_disturb() {
        let rtcp = [0x80, 200, 0, 6].into_iter().chain([0; 24]).collect::<Vec<u8>>();
        let packets = [
            rtp(1, 7, b"one"),
            rtcp,
            rtp(900, 8, b"foreign"),
            rtp(2, 7, b"two"),
            rtp(3, 7, b"three"),
        ];
        let mut stream: Vec<u8> = packets.iter().flat_map(|p| framed(Prefix::Length, p)).collect();
        stream.splice(..0, framed(Prefix::Length, &packets[0]));
        stream.extend([0, 0]);
        stream.extend(framed(Prefix::Length, &rtp(4, 7, b"four")));
        let (got, skipped) = split(&stream, 11);
        assert_eq!((got.len(), skipped), (7, 2));
    }

    #[test]
    fn bytes_before_the_first_packet_are_skipped() {
        let packet = rtp(1, 7, b"first");
        let stream = [b"GET / HTTP/1.1\r\n".to_vec(), framed(Prefix::Length, &packet)].concat();
        assert_eq!(split(&stream, 4), (vec![Bytes::from(packet)], 16));
    }
}
