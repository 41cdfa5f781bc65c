//! Baseline JPEG (ITU-T T.81) as far as RFC 2435 can carry it: taking a file apart, and making its headers again.

use bytes::{BufMut, BytesMut};

/// One quantisation table in zigzag order.
pub type QuantTable = [u8; 64];

/// The tables of section K.1 in zigzag order, luma and chroma.
const QUANT_BASE: [QuantTable; 2] = [
    [
        16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51,
        61, 60, 57, 51, 56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103, 104, 103, 62, 77,
        113, 121, 112, 100, 120, 92, 101, 103, 99,
    ],
    [
        17, 18, 18, 24, 21, 24, 47, 26, 26, 47, 99, 66, 56, 66, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
        99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
        99, 99, 99, 99, 99, 99, 99, 99,
    ],
];

/// A Huffman table of section K.3: class and id, codes of each length, symbols.
struct HuffmanTable {
    id: u8,
    lengths: [u8; 16],
    symbols: &'static [u8],
}

const HUFFMAN: [HuffmanTable; 4] = [
    HuffmanTable {
        id: 0x00,
        lengths: [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
        symbols: &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    },
    HuffmanTable {
        id: 0x10,
        lengths: [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7D],
        symbols: &[
            0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71,
            0x14, 0x32, 0x81, 0x91, 0xA1, 0x08, 0x23, 0x42, 0xB1, 0xC1, 0x15, 0x52, 0xD1, 0xF0, 0x24, 0x33, 0x62, 0x72,
            0x82, 0x09, 0x0A, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x34, 0x35, 0x36, 0x37,
            0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
            0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x83,
            0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3,
            0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3,
            0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA, 0xE1, 0xE2,
            0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA,
        ],
    },
    HuffmanTable {
        id: 0x01,
        lengths: [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
        symbols: &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    },
    HuffmanTable {
        id: 0x11,
        lengths: [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77],
        symbols: &[
            0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
            0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xA1, 0xB1, 0xC1, 0x09, 0x23, 0x33, 0x52, 0xF0, 0x15, 0x62, 0x72, 0xD1,
            0x0A, 0x16, 0x24, 0x34, 0xE1, 0x25, 0xF1, 0x17, 0x18, 0x19, 0x1A, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x35, 0x36,
            0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
            0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A,
            0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A,
            0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA,
            0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA,
            0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA,
        ],
    },
];

/// The tables for a quality of 1 to 99 (RFC 2435 section 4.2).
pub fn quant_tables(quality: u8) -> [QuantTable; 2] {
    let quality = u32::from(quality.clamp(1, 99));
    let scale = if quality < 50 {
        5000 / quality
    } else {
        200 - quality * 2
    };
    QUANT_BASE.map(|table| table.map(|v| ((u32::from(v) * scale + 50) / 100).clamp(1, 255) as u8))
}

/// The headers of a picture that RFC 2435 can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JpegHeaders {
    /// Width in pixels, a multiple of 8.
    pub width: u16,
    /// Height in pixels, a multiple of 8.
    pub height: u16,
    /// Chroma has half the lines of luma (4:2:0), else as many (4:2:2). It has half the columns in both.
    pub half_height_chroma: bool,
    /// MCUs between restart markers; 0 without.
    pub restart_interval: u16,
    /// Tables of luma and chroma.
    pub tables: [QuantTable; 2],
}

/// Why a JPEG cannot be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JpegError {
    /// It is damaged.
    Malformed(&'static str),
    /// It uses what RFC 2435 has no words for.
    NotCarriable(&'static str),
}

impl JpegHeaders {
    /// Appends everything up to the scan's data: the file's headers.
    pub fn write(&self, out: &mut BytesMut) {
        out.put_u16(0xFFD8);
        for (id, table) in self.tables.iter().enumerate() {
            out.put_u16(0xFFDB);
            out.put_u16(67);
            out.put_u8(id as u8);
            out.put_slice(table);
        }
        if self.restart_interval > 0 {
            out.put_u16(0xFFDD);
            out.put_u16(4);
            out.put_u16(self.restart_interval);
        }
        let luma = if self.half_height_chroma { 0x22 } else { 0x21 };
        out.put_u16(0xFFC0);
        out.put_u16(17);
        out.put_u8(8);
        out.put_u16(self.height);
        out.put_u16(self.width);
        out.put_slice(&[3, 1, luma, 0, 2, 0x11, 1, 3, 0x11, 1]);
        for table in &HUFFMAN {
            out.put_u16(0xFFC4);
            out.put_u16((3 + 16 + table.symbols.len()) as u16);
            out.put_u8(table.id);
            out.put_slice(&table.lengths);
            out.put_slice(table.symbols);
        }
        out.put_slice(&[0xFF, 0xDA, 0, 12, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0]);
    }

    /// Takes a file apart: its headers, and where in it the scan's data is (without the end marker).
    pub fn parse(file: &[u8]) -> Result<(Self, std::ops::Range<usize>), JpegError> {
        let malformed = JpegError::Malformed("it ends inside a header");
        let mut parser = Parser::default();
        if !file.starts_with(&[0xFF, 0xD8]) {
            return Err(JpegError::Malformed("no start marker"));
        }
        let mut at = 2;
        loop {
            let &[mark, code] = file.get(at..).and_then(|r| r.first_chunk::<2>()).ok_or(malformed)?;
            if mark != 0xFF {
                return Err(JpegError::Malformed("a marker is expected"));
            }
            if code == 0xFF {
                at += 1; // fill byte
                continue;
            }
            let &[l0, l1] = file.get(at + 2..).and_then(|r| r.first_chunk::<2>()).ok_or(malformed)?;
            let end = at + 2 + usize::from(u16::from_be_bytes([l0, l1]));
            let body = file.get(at + 4..end).ok_or(malformed)?;
            if code == 0xDA {
                let headers = parser.finish(body)?;
                let scan = &file[end..];
                let len = scan.windows(2).rposition(|w| w == [0xFF, 0xD9]).unwrap_or(scan.len());
                return Ok((headers, end..end + len));
            }
            parser.segment(code, body)?;
            at = end;
        }
    }
}

/// What the segments before the scan have said.
#[derive(Default)]
struct Parser {
    tables: [Option<QuantTable>; 4],
    restart_interval: u16,
    /// Width, height, luma sampling factors, and the table of each component.
    frame: Option<(u16, u16, u8, [u8; 3])>,
}

impl Parser {
    fn segment(&mut self, code: u8, body: &[u8]) -> Result<(), JpegError> {
        match code {
            0xDB => self.quant_tables(body),
            0xC0 => self.frame(body),
            0xC4 => huffman_is_standard(body),
            0xC1..=0xCF => Err(JpegError::NotCarriable("it is not baseline")),
            0xDD => {
                let interval = body
                    .first_chunk::<2>()
                    .ok_or(JpegError::Malformed("DRI is too short"))?;
                self.restart_interval = u16::from_be_bytes(*interval);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn quant_tables(&mut self, mut body: &[u8]) -> Result<(), JpegError> {
        while let Some((&id, rest)) = body.split_first() {
            if id >> 4 != 0 {
                return Err(JpegError::NotCarriable("its quantisation tables have 16 bits"));
            }
            let (table, rest) = rest
                .split_first_chunk::<64>()
                .ok_or(JpegError::Malformed("DQT is too short"))?;
            *self
                .tables
                .get_mut(usize::from(id))
                .ok_or(JpegError::Malformed("DQT has a wrong id"))? = Some(*table);
            body = rest;
        }
        Ok(())
    }

    fn frame(&mut self, body: &[u8]) -> Result<(), JpegError> {
        let &[bits, h0, h1, w0, w1, components] = body
            .first_chunk::<6>()
            .ok_or(JpegError::Malformed("SOF is too short"))?;
        if bits != 8 || components != 3 {
            return Err(JpegError::NotCarriable("it has not three components of 8 bits"));
        }
        let &[_, luma, t0, _, s1, t1, _, s2, t2] = body
            .get(6..)
            .and_then(|r| r.first_chunk::<9>())
            .ok_or(JpegError::Malformed("SOF is too short"))?;
        if !matches!(luma, 0x21 | 0x22) || s1 != 0x11 || s2 != 0x11 || t1 != t2 {
            return Err(JpegError::NotCarriable("its sampling is neither 4:2:0 nor 4:2:2"));
        }
        let (width, height) = (u16::from_be_bytes([w0, w1]), u16::from_be_bytes([h0, h1]));
        if width == 0 || height == 0 || width > 2040 || height > 2040 || width % 8 != 0 || height % 8 != 0 {
            return Err(JpegError::NotCarriable("its sides are not multiples of 8 up to 2040"));
        }
        self.frame = Some((width, height, luma, [t0, t1, t2]));
        Ok(())
    }

    fn finish(&self, scan_header: &[u8]) -> Result<JpegHeaders, JpegError> {
        let (width, height, luma, [t0, t1, _]) = self.frame.ok_or(JpegError::Malformed("no SOF before the scan"))?;
        if scan_header.first() != Some(&3) {
            return Err(JpegError::NotCarriable("its components are in several scans"));
        }
        let table = |id: u8| self.tables.get(usize::from(id)).copied().flatten();
        let tables = table(t0)
            .zip(table(t1))
            .ok_or(JpegError::Malformed("a quantisation table is missing"))?;
        Ok(JpegHeaders {
            width,
            height,
            half_height_chroma: luma == 0x22,
            restart_interval: self.restart_interval,
            tables: [tables.0, tables.1],
        })
    }
}

/// RFC 2435 never sends Huffman tables: the receiver uses those of section K.3.
fn huffman_is_standard(mut body: &[u8]) -> Result<(), JpegError> {
    while let Some((&id, rest)) = body.split_first() {
        let (lengths, rest) = rest
            .split_first_chunk::<16>()
            .ok_or(JpegError::Malformed("DHT is too short"))?;
        let count = lengths.iter().map(|&n| usize::from(n)).sum();
        let (symbols, rest) = rest
            .split_at_checked(count)
            .ok_or(JpegError::Malformed("DHT is too short"))?;
        let standard = HUFFMAN
            .iter()
            .any(|t| t.id == id && t.lengths == *lengths && t.symbols == symbols);
        if !standard {
            return Err(JpegError::NotCarriable("its Huffman tables are not the standard ones"));
        }
        body = rest;
    }
    Ok(())
}
