//! RTCP: reports read and written (RFC 3550 section 6). What a receiver must count is in [`ReceiverStatistics`].

mod statistics;

use bytes::BufMut;
use smallvec::SmallVec;

pub use statistics::ReceiverStatistics;

/// Report blocks a packet can hold (the 5-bit count).
pub const BLOCKS_MAX: usize = 31;
/// The longest CNAME or BYE reason, in bytes (an 8-bit length). Longer text is cut when written.
pub const TEXT_LEN_MAX: usize = 255;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
const SDES_CNAME: u8 = 1;

/// Where the sender's wall clock and its RTP time stamps meet, and what it sent (section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderInfo {
    /// NTP time of the report; see `WallTime::from_ntp`. 0 if the sender has no clock.
    pub ntp: u64,
    /// The same moment in RTP ticks.
    pub rtp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload bytes sent.
    pub octets: u32,
}

/// How one source is received (section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source reported on.
    pub ssrc: u32,
    /// Fraction lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the start, 24 bits signed: duplicates make it negative.
    pub lost: i32,
    /// Highest sequence number received, wraps above it.
    pub highest_sequence: u32,
    /// Interarrival jitter in RTP ticks.
    pub jitter: u32,
    /// The middle 32 bits of the last sender report's NTP time; 0 if none came.
    pub last_sender_report: u32,
    /// From that report's arrival to this one, in 1/65536 s.
    pub delay_since: u32,
}

/// One packet of a compound packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RtcpPacket {
    /// SR.
    SenderReport {
        /// The sender.
        ssrc: u32,
        /// Its clock and counts.
        info: SenderInfo,
        /// How it receives others.
        blocks: SmallVec<[ReportBlock; 1]>,
    },
    /// RR.
    ReceiverReport {
        /// The receiver.
        ssrc: u32,
        /// What it receives.
        blocks: SmallVec<[ReportBlock; 1]>,
    },
    /// SDES, the CNAME items of it.
    SourceDescription(SmallVec<[(u32, String); 1]>),
    /// BYE: these sources end.
    Bye(SmallVec<[u32; 1]>),
}

/// Splits a compound packet. Lenient: unknown packets are skipped, and what is cut off or not RTCP ends the iteration.
pub fn parse(data: &[u8]) -> Packets<'_> {
    Packets { rest: data }
}

/// The packets of a compound packet.
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl Iterator for Packets<'_> {
    type Item = RtcpPacket;

    fn next(&mut self) -> Option<RtcpPacket> {
        loop {
            let &[b0, kind, l0, l1] = self.rest.first_chunk::<4>()?;
            let len = 4 + usize::from(u16::from_be_bytes([l0, l1])) * 4;
            if b0 >> 6 != 2 || self.rest.len() < len {
                self.rest = &[];
                return None;
            }
            let (packet, rest) = self.rest.split_at(len);
            self.rest = rest;
            let mut body = &packet[4..];
            if b0 & 0x20 != 0 {
                let padding = usize::from(body.last().copied().unwrap_or(0));
                body = &body[..body.len().saturating_sub(padding)];
            }
            let parsed = parse_one(kind, usize::from(b0 & 0x1F), body);
            if parsed.is_some() {
                return parsed;
            }
        }
    }
}

fn parse_one(kind: u8, count: usize, mut body: &[u8]) -> Option<RtcpPacket> {
    let b = &mut body;
    match kind {
        SENDER_REPORT => Some(RtcpPacket::SenderReport {
            ssrc: take_u32(b)?,
            info: SenderInfo {
                ntp: (u64::from(take_u32(b)?) << 32) | u64::from(take_u32(b)?),
                rtp: take_u32(b)?,
                packets: take_u32(b)?,
                octets: take_u32(b)?,
            },
            blocks: blocks(b, count),
        }),
        RECEIVER_REPORT => Some(RtcpPacket::ReceiverReport {
            ssrc: take_u32(b)?,
            blocks: blocks(b, count),
        }),
        SOURCE_DESCRIPTION => Some(RtcpPacket::SourceDescription(names(b, count))),
        BYE => Some(RtcpPacket::Bye((0..count).map_while(|_| take_u32(b)).collect())),
        _ => None,
    }
}

fn take_u32(b: &mut &[u8]) -> Option<u32> {
    let (head, tail) = b.split_first_chunk::<4>()?;
    *b = tail;
    Some(u32::from_be_bytes(*head))
}

fn blocks(b: &mut &[u8], count: usize) -> SmallVec<[ReportBlock; 1]> {
    (0..count).map_while(|_| block(b)).collect()
}

fn block(b: &mut &[u8]) -> Option<ReportBlock> {
    let ssrc = take_u32(b)?;
    let loss = take_u32(b)?;
    Some(ReportBlock {
        ssrc,
        fraction_lost: (loss >> 24) as u8,
        // Sign-extends the lower 24 bits.
        lost: ((loss << 8) as i32) >> 8,
        highest_sequence: take_u32(b)?,
        jitter: take_u32(b)?,
        last_sender_report: take_u32(b)?,
        delay_since: take_u32(b)?,
    })
}

/// The CNAMEs of up to `count` SDES chunks (section 6.5).
fn names(b: &mut &[u8], count: usize) -> SmallVec<[(u32, String); 1]> {
    let mut found = SmallVec::new();
    for _ in 0..count {
        let chunk = *b;
        let Some(ssrc) = take_u32(b) else { break };
        while let Some((&item, rest)) = b.split_first() {
            if item == 0 {
                // Zeros fill the chunk up to the next 32-bit boundary.
                let used = (chunk.len() - rest.len()).next_multiple_of(4).min(chunk.len());
                *b = &chunk[used..];
                break;
            }
            let Some((&len, rest)) = rest.split_first() else {
                return found;
            };
            let Some((text, rest)) = rest.split_at_checked(usize::from(len)) else {
                return found;
            };
            *b = rest;
            if item == SDES_CNAME {
                found.push((ssrc, String::from_utf8_lossy(text).into_owned()));
            }
        }
    }
    found
}

fn write_head(out: &mut impl BufMut, count: usize, kind: u8, body_len: usize) {
    out.put_u8(0x80 | (count as u8 & 0x1F));
    out.put_u8(kind);
    out.put_u16((body_len / 4) as u16);
}

fn write_blocks(out: &mut impl BufMut, blocks: &[ReportBlock]) {
    for block in blocks {
        out.put_u32(block.ssrc);
        let lost = block.lost.clamp(-0x80_0000, 0x7F_FFFF) as u32;
        out.put_u32((u32::from(block.fraction_lost) << 24) | (lost & 0xFF_FFFF));
        out.put_u32(block.highest_sequence);
        out.put_u32(block.jitter);
        out.put_u32(block.last_sender_report);
        out.put_u32(block.delay_since);
    }
}

fn cut(text: &str) -> &[u8] {
    &text.as_bytes()[..text.len().min(TEXT_LEN_MAX)]
}

fn write_cname(out: &mut impl BufMut, ssrc: u32, cname: &str) {
    let text = cut(cname);
    // SSRC, item head, text, at least one zero.
    let body_len = (4 + 2 + text.len() + 1).next_multiple_of(4);
    write_head(out, 1, SOURCE_DESCRIPTION, body_len);
    out.put_u32(ssrc);
    out.put_u8(SDES_CNAME);
    out.put_u8(text.len() as u8);
    out.put_slice(text);
    out.put_bytes(0, body_len - 6 - text.len());
}

/// Appends a compound packet of RR and SDES. At most [`BLOCKS_MAX`] blocks are written.
pub fn write_receiver_report(out: &mut impl BufMut, ssrc: u32, blocks: &[ReportBlock], cname: &str) {
    let blocks = &blocks[..blocks.len().min(BLOCKS_MAX)];
    write_head(out, blocks.len(), RECEIVER_REPORT, 4 + 24 * blocks.len());
    out.put_u32(ssrc);
    write_blocks(out, blocks);
    write_cname(out, ssrc, cname);
}

/// Appends a compound packet of SR and SDES. At most [`BLOCKS_MAX`] blocks are written.
pub fn write_sender_report(out: &mut impl BufMut, ssrc: u32, info: &SenderInfo, blocks: &[ReportBlock], cname: &str) {
    let blocks = &blocks[..blocks.len().min(BLOCKS_MAX)];
    write_head(out, blocks.len(), SENDER_REPORT, 24 + 24 * blocks.len());
    out.put_u32(ssrc);
    out.put_u64(info.ntp);
    out.put_u32(info.rtp);
    out.put_u32(info.packets);
    out.put_u32(info.octets);
    write_blocks(out, blocks);
    write_cname(out, ssrc, cname);
}

/// Appends a BYE with an optional reason (empty: none). A compound packet must start with a report: write one before.
pub fn write_bye(out: &mut impl BufMut, ssrc: u32, reason: &str) {
    let text = cut(reason);
    let reason_len = if text.is_empty() {
        0
    } else {
        (1 + text.len()).next_multiple_of(4)
    };
    write_head(out, 1, BYE, 4 + reason_len);
    out.put_u32(ssrc);
    if reason_len > 0 {
        out.put_u8(text.len() as u8);
        out.put_slice(text);
        out.put_bytes(0, reason_len - 1 - text.len());
    }
}

#[cfg(test)]
mod tests;
