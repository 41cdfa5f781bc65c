//! Motion JPEG (RFC 2435): the scan's data out of the packets, and the headers that RTP leaves out.
//!
//! A picture with a packet missing is not delivered: what is left of a JPEG behind a hole is not whole.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use corenvr_media::{CodecParameters, VideoCodec, VideoParameters};
use smallvec::SmallVec;

use super::{AccessUnit, DepacketizeError, Output, Packet, UNIT_BYTES_MAX};
use crate::bitstream::jpeg::{JpegHeaders, QuantTable, quant_tables};

const FORMAT: &str = "JPEG";
/// Types with restart markers are this much above those without (section 3.1.3).
const TYPE_RESTART: u8 = 64;
/// From this Q on the tables are in the packets (section 3.1.4).
const Q_IN_BAND: u8 = 128;
/// The Q whose tables may change from picture to picture and so are never left out.
const Q_DYNAMIC: u8 = 255;

const fn malformed(what: &'static str) -> DepacketizeError {
    DepacketizeError::Malformed { format: FORMAT, what }
}

#[derive(Debug, Default)]
pub(super) struct Jpeg {
    parameters: Option<Arc<CodecParameters>>,
    picture: Option<Picture>,
    /// The latest tables of each Q from 128 to 254.
    tables: SmallVec<[(u8, [QuantTable; 2]); 1]>,
    lost: u32,
}

#[derive(Debug)]
struct Picture {
    timestamp: u32,
    width: u16,
    height: u16,
    data: BytesMut,
    header_len: usize,
}

/// The main header and the restart header of a packet.
struct PacketHead {
    offset: usize,
    kind: u8,
    q: u8,
    width: u16,
    height: u16,
    restart_interval: u16,
}

impl PacketHead {
    fn read(payload: &[u8]) -> Result<(Self, &[u8]), DepacketizeError> {
        let short = malformed("a packet shorter than its headers");
        let (&[_, o0, o1, o2, kind, q, width, height], mut rest) = payload.split_first_chunk::<8>().ok_or(short)?;
        let mut restart_interval = 0;
        if (TYPE_RESTART..128).contains(&kind) {
            let (&[r0, r1, _, _], tail) = rest.split_first_chunk::<4>().ok_or(short)?;
            restart_interval = u16::from_be_bytes([r0, r1]);
            rest = tail;
        }
        let head = Self {
            offset: u32::from_be_bytes([0, o0, o1, o2]) as usize,
            kind,
            q,
            width: u16::from(width) * 8,
            height: u16::from(height) * 8,
            restart_interval,
        };
        Ok((head, rest))
    }
}

impl Jpeg {
    pub(super) fn parameters(&self) -> Option<&Arc<CodecParameters>> {
        self.parameters.as_ref()
    }

    pub(super) fn flush(&mut self, out: &mut Output) {
        // A picture that does not fit the queue is dropped here as everywhere; the end of a stream has nobody to tell.
        let _ = self.finish(out);
    }

    pub(super) fn push(&mut self, packet: &Packet, lost: u32, out: &mut Output) -> Result<(), DepacketizeError> {
        self.lost = self.lost.saturating_add(lost);
        if lost > 0 {
            self.picture = None;
        }
        let mut result = Ok(());
        if self.picture.as_ref().is_some_and(|p| p.timestamp != packet.timestamp) {
            result = self.finish(out); // the marker was missing
        }
        if packet.payload.is_empty() {
            return result; // a keep-alive
        }
        let added = self.add(packet, lost);
        if added.is_err() {
            self.picture = None;
        }
        let ended = if packet.marker { self.finish(out) } else { Ok(()) };
        result.and(added).and(ended)
    }

    fn add(&mut self, packet: &Packet, lost: u32) -> Result<(), DepacketizeError> {
        let (head, mut rest) = PacketHead::read(&packet.payload)?;
        if head.offset == 0 {
            let headers = self.headers(&head, &mut rest)?;
            let mut data = BytesMut::with_capacity(1024 + rest.len());
            headers.write(&mut data);
            self.picture = Some(Picture {
                timestamp: packet.timestamp,
                width: head.width,
                height: head.height,
                header_len: data.len(),
                data,
            });
        }
        let Some(picture) = &mut self.picture else {
            return if lost > 0 || self.lost > 0 {
                Ok(())
            } else {
                Err(malformed("a picture without its start"))
            };
        };
        if picture.data.len() - picture.header_len != head.offset {
            return Err(malformed("a fragment at the wrong offset"));
        }
        if picture.data.len() + rest.len() > UNIT_BYTES_MAX {
            return Err(DepacketizeError::TooLarge);
        }
        picture.data.extend_from_slice(rest);
        Ok(())
    }

    fn headers(&mut self, head: &PacketHead, rest: &mut &[u8]) -> Result<JpegHeaders, DepacketizeError> {
        let half_height_chroma = match head.kind % TYPE_RESTART {
            0 if head.kind < 128 => false,
            1 if head.kind < 128 => true,
            _ => {
                return Err(DepacketizeError::Unsupported {
                    format: FORMAT,
                    what: "a type other than 0, 1, 64 and 65",
                });
            }
        };
        if head.width == 0 || head.height == 0 {
            return Err(DepacketizeError::Unsupported {
                format: FORMAT,
                what: "a picture larger than 2040 pixels",
            });
        }
        let tables = match head.q {
            1..=99 => quant_tables(head.q),
            Q_IN_BAND.. => self.tables_in_band(head.q, rest)?,
            _ => return Err(malformed("a reserved Q")),
        };
        Ok(JpegHeaders {
            width: head.width,
            height: head.height,
            half_height_chroma,
            restart_interval: head.restart_interval,
            tables,
        })
    }

    /// The quantisation table header (section 3.1.8).
    fn tables_in_band(&mut self, q: u8, rest: &mut &[u8]) -> Result<[QuantTable; 2], DepacketizeError> {
        let (&[_, precision, l0, l1], tail) = rest
            .split_first_chunk::<4>()
            .ok_or(malformed("no quantisation tables"))?;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let (data, tail) = tail
            .split_at_checked(len)
            .ok_or(malformed("quantisation tables past the end"))?;
        *rest = tail;
        let known = self.tables.iter().position(|(known, _)| *known == q);
        if len == 0 {
            let known = known
                .filter(|_| q != Q_DYNAMIC)
                .ok_or(malformed("quantisation tables left out"))?;
            return Ok(self.tables[known].1);
        }
        if precision & 3 != 0 {
            return Err(DepacketizeError::Unsupported {
                format: FORMAT,
                what: "16-bit quantisation tables",
            });
        }
        let (luma, more) = data
            .split_first_chunk::<64>()
            .ok_or(malformed("a quantisation table cut off"))?;
        // One table alone is for all components.
        let chroma = more.first_chunk::<64>().unwrap_or(luma);
        let tables = [*luma, *chroma];
        match known {
            _ if q == Q_DYNAMIC => {}
            Some(at) => self.tables[at].1 = tables,
            None => self.tables.push((q, tables)),
        }
        Ok(tables)
    }

    fn finish(&mut self, out: &mut Output) -> Result<(), DepacketizeError> {
        let Some(mut picture) = self.picture.take() else {
            return Ok(());
        };
        if picture.data.len() == picture.header_len {
            return Ok(());
        }
        if !picture.data.ends_with(&[0xFF, 0xD9]) {
            picture.data.put_u16(0xFFD9);
        }
        let parameters = CodecParameters::Video(VideoParameters {
            codec: VideoCodec::Mjpeg,
            extra: bytes::Bytes::new(),
            width: u32::from(picture.width),
            height: u32::from(picture.height),
            frame_rate: None,
        });
        if self.parameters.as_deref() != Some(&parameters) {
            self.parameters = Some(Arc::new(parameters));
        }
        let unit = AccessUnit {
            timestamp: picture.timestamp,
            key: true,
            data: picture.data.freeze(),
            lost: std::mem::take(&mut self.lost),
            damaged: false,
            parameters: None,
        };
        out.add(unit, self.parameters.as_ref())
    }
}
