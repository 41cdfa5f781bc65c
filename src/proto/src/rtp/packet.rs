//! One RTP packet: parsing without a copy, and writing of headers (RFC 3550 section 5.1).

use bytes::{Buf, BufMut, Bytes};

/// Length of the fixed header in bytes.
const FIXED_LEN: usize = 12;

/// A received packet. Cloning shares the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// The marker bit; its meaning is the payload format's.
    pub marker: bool,
    /// Sequence number, wraps.
    pub sequence: u16,
    /// Time stamp in ticks of the payload format's clock, wraps.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// The header extension, if any (section 5.3.1).
    pub extension: Option<Extension>,
    /// What follows the header, without padding. Shares the memory of the bytes that were parsed.
    pub payload: Bytes,
}

/// A received header extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// The 16 bits "defined by profile": 0xABAC for ONVIF replay, 0xBEDE for RFC 8285.
    pub profile: u16,
    /// Its data, a whole number of 32-bit words.
    pub data: Bytes,
}

/// Why bytes are not an RTP packet. All of these are the sender's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Fewer bytes than the header says or needs.
    #[error("RTP packet of {len} bytes ends inside its header")]
    Truncated {
        /// Bytes there are.
        len: usize,
    },
    /// The version is not 2.
    #[error("RTP version {0}, not 2")]
    Version(u8),
    /// The padding length is zero or longer than what is left.
    #[error("RTP padding of {padding} bytes in {available}")]
    Padding {
        /// The length claimed.
        padding: u8,
        /// Bytes behind the header.
        available: usize,
    },
}

impl Packet {
    /// Parses one packet; `data` is the whole datagram or interleaved block.
    pub fn parse(mut data: Bytes) -> Result<Self, PacketError> {
        let len = data.len();
        let truncated = PacketError::Truncated { len };
        let Some(fixed) = data.first_chunk::<FIXED_LEN>() else {
            return Err(truncated);
        };
        let [b0, b1, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *fixed;
        if b0 >> 6 != 2 {
            return Err(PacketError::Version(b0 >> 6));
        }
        let csrc_len = usize::from(b0 & 0x0F) * 4;
        if len < FIXED_LEN + csrc_len {
            return Err(truncated);
        }
        data.advance(FIXED_LEN + csrc_len);
        let mut extension = None;
        if b0 & 0x10 != 0 {
            let Some(&[p0, p1, l0, l1]) = data.first_chunk::<4>() else {
                return Err(truncated);
            };
            let extension_len = usize::from(u16::from_be_bytes([l0, l1])) * 4;
            if data.len() < 4 + extension_len {
                return Err(truncated);
            }
            data.advance(4);
            extension = Some(Extension {
                profile: u16::from_be_bytes([p0, p1]),
                data: data.split_to(extension_len),
            });
        }
        if b0 & 0x20 != 0 {
            let available = data.len();
            let padding = data.last().copied().unwrap_or(0);
            if padding == 0 || usize::from(padding) > available {
                return Err(PacketError::Padding { padding, available });
            }
            data.truncate(available - usize::from(padding));
        }
        Ok(Self {
            payload_type: b1 & 0x7F,
            marker: b1 & 0x80 != 0,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            extension,
            payload: data,
        })
    }
}

/// What goes into the fixed header of a packet to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Payload type; the upper bit is ignored.
    pub payload_type: u8,
    /// The marker bit.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// Time stamp in ticks of the payload format's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
}

/// A header extension to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderExtension<'a> {
    /// The 16 bits "defined by profile", for example 0xABAC.
    pub profile: u16,
    /// Its data: at most [`Self::LEN_MAX`] bytes are sent, padded with zeros to a whole number of 32-bit words.
    pub data: &'a [u8],
}

impl HeaderExtension<'_> {
    /// The longest extension that is sent, in bytes; longer data is cut. A packet must leave room for its payload.
    pub const LEN_MAX: usize = 256;

    /// Bytes it adds to a header.
    pub fn wire_len(&self) -> usize {
        4 + self.data.len().min(Self::LEN_MAX).next_multiple_of(4)
    }
}

impl Header {
    /// Bytes of a header without extension.
    pub const LEN: usize = FIXED_LEN;

    /// Appends the header (no CSRC, no padding) to `out`.
    pub fn write(&self, extension: Option<HeaderExtension<'_>>, out: &mut impl BufMut) {
        out.put_u8(0x80 | if extension.is_some() { 0x10 } else { 0 });
        out.put_u8((u8::from(self.marker) << 7) | (self.payload_type & 0x7F));
        out.put_u16(self.sequence);
        out.put_u32(self.timestamp);
        out.put_u32(self.ssrc);
        if let Some(extension) = extension {
            let data = &extension.data[..extension.data.len().min(HeaderExtension::LEN_MAX)];
            let padded = data.len().next_multiple_of(4);
            out.put_u16(extension.profile);
            out.put_u16((padded / 4) as u16);
            out.put_slice(data);
            out.put_bytes(0, padded - data.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            payload_type: 96,
            marker: true,
            sequence: 0xFFFE,
            timestamp: 0x0102_0304,
            ssrc: 0xA0B0_C0D0,
        }
    }

    #[test]
    fn reads_csrc_extension_and_padding() {
        let mut wire = vec![0xB2, 0xE0, 0xFF, 0xFE, 1, 2, 3, 4, 0xA0, 0xB0, 0xC0, 0xD0];
        wire.extend([0; 8]);
        wire.extend([0xAB, 0xAC, 0, 1, 9, 8, 7, 6]);
        wire.extend(b"payload\0\0\x03");
        let packet = Packet::parse(wire.into()).unwrap();
        assert_eq!(packet.payload, &b"payload"[..]);
        assert_eq!(
            (packet.payload_type, packet.marker, packet.sequence),
            (96, true, 0xFFFE)
        );
        assert_eq!((packet.timestamp, packet.ssrc), (0x0102_0304, 0xA0B0_C0D0));
        let extension = packet.extension.unwrap();
        assert_eq!((extension.profile, &extension.data[..]), (0xABAC, &[9, 8, 7, 6][..]));
    }

    #[test]
    fn refuses_wrong_version_truncation_and_padding() {
        let mut wire = Vec::new();
        header().write(None, &mut wire);
        for len in 0..wire.len() {
            assert_eq!(
                Packet::parse(Bytes::copy_from_slice(&wire[..len])),
                Err(PacketError::Truncated { len })
            );
        }
        let mut v1 = wire.clone();
        v1[0] = 0x40;
        assert_eq!(Packet::parse(v1.into()), Err(PacketError::Version(1)));
        for (b0, tail, want) in [
            (
                0xA0,
                &[][..],
                PacketError::Padding {
                    padding: 0,
                    available: 0,
                },
            ),
            (
                0xA0,
                &[5][..],
                PacketError::Padding {
                    padding: 5,
                    available: 1,
                },
            ),
            (0x90, &[0, 0, 0, 1, 2][..], PacketError::Truncated { len: 17 }),
            (0x8F, &[][..], PacketError::Truncated { len: 12 }),
        ] {
            let mut bad = wire.clone();
            bad[0] = b0;
            bad.extend(tail);
            assert_eq!(Packet::parse(bad.into()), Err(want));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(extension: Option<(u16, Vec<u8>)>, payload: Vec<u8>) {
            let mut wire = Vec::new();
            let given = extension.as_ref().map(|(profile, data)| HeaderExtension { profile: *profile, data });
            header().write(given, &mut wire);
            prop_assert_eq!(wire.len(), Header::LEN + given.map_or(0, |e| e.wire_len()));
            wire.extend(&payload);
            let packet = Packet::parse(wire.into()).unwrap();
            prop_assert_eq!(&packet.payload[..], &payload[..]);
            prop_assert_eq!(packet.sequence, header().sequence);
            match (packet.extension, extension) {
                (Some(got), Some((profile, data))) => {
                    prop_assert_eq!(got.profile, profile);
                    let kept = data.len().min(HeaderExtension::LEN_MAX);
                    prop_assert_eq!(&got.data[..kept], &data[..kept]);
                }
                (got, want) => prop_assert!(got.is_none() && want.is_none()),
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Packet::parse(bytes.into());
        }
    }
}
