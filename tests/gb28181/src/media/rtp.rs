//! RTP packets (RFC 3550): program streams cut anywhere, elementary streams by RFC 6184 and RFC 7798; and where they wait for the socket,
//! with loss, reordering and copies by a seeded pattern.

use std::collections::VecDeque;

use bytes::Bytes;
use corenvr_media::VideoCodec;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{Deviation, Deviations, Impairment, UnitLog};

/// Most payload of a packet: with all headers it stays under an Ethernet frame.
const PAYLOAD_MAX: usize = 1_400;
/// NAL unit types of fragmentation units: RFC 6184 5.8, RFC 7798 4.4.3.
const FU_A: u8 = 0x1C;
const FU_H265: u8 = 0x31;
/// A packet that is sent out of order is late by at most so many packets.
const LATE_PACKETS_MAX: u32 = 8;
/// How often bytes that belong to nothing stand between TCP frames: once in so many packets.
const GARBAGE_EVERY: u32 = 200;
/// Such bytes: as a length they are far too large, as RTP they have no version.
const GARBAGE: [u8; 7] = [0xFE, 0x01, 0x13, 0x77, 0x00, 0x00, 0x01];

/// How packets are put on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One datagram each.
    Datagram,
    /// RFC 4571: a length of 2 bytes.
    Length,
    /// RFC 2326 10.12: '$', channel, length.
    Interleaved,
}

/// What a packet carries besides its payload.
#[derive(Debug, Clone, Copy)]
pub struct PacketHead {
    pub payload_type: u8,
    pub ssrc: u32,
    pub time: u32,
}

/// Makes packets and holds those that wait.
#[derive(Debug)]
pub struct Packets {
    framing: Framing,
    deviations: Deviations,
    impairment: Impairment,
    pub seq: u16,
    /// Draws sizes; the impairments have a generator of their own, so that their pattern does not depend on sizes.
    sizes: StdRng,
    fate: StdRng,
    /// The bytes of the packets that wait, framed.
    bytes: Vec<u8>,
    /// Where they are in `bytes`, in order of sending.
    waiting: VecDeque<(u32, u32)>,
    /// Bytes of `bytes` that a TCP connection has taken.
    taken: usize,
    /// Packets that are late on purpose: how many others go first.
    late: Vec<(u32, Vec<u8>)>,
    count: u32,
    /// Packets that waited and were put on the wire.
    pub sent: u64,
    /// Packets deliberately not sent.
    pub lost: u64,
}

impl Packets {
    pub fn new(framing: Framing, deviations: Deviations, impairment: Impairment, seq: u16, seed: u64) -> Self {
        Self {
            framing,
            deviations,
            impairment,
            seq,
            sizes: StdRng::seed_from_u64(seed),
            fate: StdRng::seed_from_u64(impairment.seed ^ seed << 32),
            bytes: Vec::new(),
            waiting: VecDeque::new(),
            taken: 0,
            late: Vec::new(),
            count: 0,
            sent: 0,
            lost: 0,
        }
    }

    /// Cuts a piece of a program stream into packets.
    pub fn program_stream(&mut self, head: PacketHead, stream: &[u8], log: &mut UnitLog) {
        let mut rest = stream;
        while !rest.is_empty() {
            let size = if self.deviations.has(Deviation::OddPacketSizes) {
                self.sizes.random_range(1..=PAYLOAD_MAX)
            } else {
                PAYLOAD_MAX
            };
            let (chunk, more) = rest.split_at(size.min(rest.len()));
            rest = more;
            self.push(head, rest.is_empty(), &[], chunk, log);
        }
    }

    /// Packs the NAL units of a picture: single NAL unit packets and fragmentation units.
    pub fn elementary_stream(&mut self, head: PacketHead, codec: VideoCodec, nals: &[Bytes], log: &mut UnitLog) {
        let header_len = if codec == VideoCodec::H265 { 2 } else { 1 };
        for (i, nal) in nals.iter().enumerate() {
            let last_nal = i + 1 == nals.len();
            if nal.len() <= PAYLOAD_MAX {
                self.push(head, last_nal, &[], nal, log);
                continue;
            }
            let chunks = nal[header_len..].chunks(PAYLOAD_MAX - 3);
            let count = chunks.len();
            for (j, chunk) in chunks.enumerate() {
                let edges = u8::from(j == 0) << 7 | u8::from(j + 1 == count) << 6;
                let marker = last_nal && j + 1 == count;
                if codec == VideoCodec::H265 {
                    let kind = nal[0] >> 1 & 0x3F;
                    let prefix = [nal[0] & 0x81 | FU_H265 << 1, nal[1], edges | kind];
                    self.push(head, marker, &prefix, chunk, log);
                } else {
                    let prefix = [nal[0] & 0xE0 | FU_A, edges | nal[0] & 0x1F];
                    self.push(head, marker, &prefix, chunk, log);
                }
            }
        }
    }

    fn push(&mut self, head: PacketHead, marker: bool, prefix: &[u8], payload: &[u8], log: &mut UnitLog) {
        if log.packets == 0 {
            log.seq_first = self.seq;
        }
        log.packets += 1;
        self.count += 1;
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        if self.framing == Framing::Datagram && self.drawn(Deviation::Loss, self.impairment.lost_permille) {
            log.lost.push(seq);
            self.lost += 1;
            return;
        }
        let start = self.bytes.len();
        self.write(head, marker, seq, prefix, payload);
        if self.framing != Framing::Datagram {
            // A stream has no packets to lose or to exchange.
            self.waiting
                .push_back((start as u32, (self.bytes.len() - start) as u32));
            return;
        }
        let copy = self.drawn(Deviation::Duplicates, self.impairment.duplicated_permille);
        let late = self.drawn(Deviation::Reorder, self.impairment.reordered_permille);
        log.duplicated += u32::from(copy);
        log.reordered += u32::from(late);
        if copy || late {
            let by = self.fate.random_range(1..=LATE_PACKETS_MAX);
            self.late.push((by, self.bytes[start..].to_vec()));
        }
        if late {
            self.bytes.truncate(start);
        } else {
            self.waiting
                .push_back((start as u32, (self.bytes.len() - start) as u32));
        }
        self.release(false);
    }

    fn drawn(&mut self, deviation: Deviation, permille: u16) -> bool {
        self.deviations.has(deviation) && self.fate.random_range(0..1000) < permille
    }

    /// Lets late packets go whose time has come, or all of them at the end of a stream.
    pub fn release(&mut self, all: bool) {
        let mut i = 0;
        while let Some((left, _)) = self.late.get_mut(i) {
            if *left > 0 && !all {
                *left -= 1;
                i += 1;
                continue;
            }
            let (_, packet) = self.late.remove(i);
            let start = self.bytes.len() as u32;
            self.bytes.extend_from_slice(&packet);
            self.waiting.push_back((start, packet.len() as u32));
        }
    }

    fn write(&mut self, head: PacketHead, marker: bool, seq: u16, prefix: &[u8], payload: &[u8]) {
        if self.framing != Framing::Datagram
            && self.deviations.has(Deviation::TcpGarbage)
            && self.count.is_multiple_of(GARBAGE_EVERY)
        {
            self.bytes.extend_from_slice(&GARBAGE);
        }
        let extras = self.deviations.has(Deviation::RtpExtras);
        let marker = if self.deviations.has(Deviation::MarkerAlways) {
            true
        } else {
            marker && !self.deviations.has(Deviation::MarkerNever)
        };
        let len = 12 + if extras { 8 + 4 } else { 0 } + prefix.len() + payload.len();
        match self.framing {
            Framing::Datagram => {}
            Framing::Length => self.bytes.extend_from_slice(&(len as u16).to_be_bytes()),
            Framing::Interleaved => {
                self.bytes.extend_from_slice(b"$\0");
                self.bytes.extend_from_slice(&(len as u16).to_be_bytes());
            }
        }
        self.bytes.push(if extras { 0xB0 } else { 0x80 });
        self.bytes.push(u8::from(marker) << 7 | head.payload_type);
        self.bytes.extend_from_slice(&seq.to_be_bytes());
        self.bytes.extend_from_slice(&head.time.to_be_bytes());
        self.bytes.extend_from_slice(&head.ssrc.to_be_bytes());
        if extras {
            self.bytes.extend_from_slice(&[0x00, 0x40, 0, 1, 0, 0, 1, 0xE0]);
        }
        self.bytes.extend_from_slice(prefix);
        self.bytes.extend_from_slice(payload);
        if extras {
            self.bytes.extend_from_slice(&[0, 0, 0, 4]);
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next datagram.
    pub fn datagram(&self) -> Option<&[u8]> {
        let (start, len) = *self.waiting.front()?;
        self.bytes.get(start as usize..(start + len) as usize)
    }

    /// The datagram was sent.
    pub fn datagram_done(&mut self) {
        self.waiting.pop_front();
        self.sent += 1;
        if self.waiting.is_empty() {
            self.bytes.clear();
        }
    }

    /// What a stream is to take next.
    pub fn stream(&mut self) -> &[u8] {
        let rest = &self.bytes[self.taken..];
        if self.deviations.has(Deviation::TcpDribble) {
            let size = self.sizes.random_range(1..=700).min(rest.len());
            &rest[..size]
        } else {
            rest
        }
    }

    /// The stream has taken so many bytes.
    pub fn stream_done(&mut self, len: usize) {
        self.taken += len;
        if self.taken == self.bytes.len() {
            self.sent += self.waiting.len() as u64;
            self.waiting.clear();
            self.bytes.clear();
            self.taken = 0;
        }
    }
}
