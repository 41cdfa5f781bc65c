//! AV1 (AV1 Bitstream & Decoding Process): OBUs, the sequence header, and the `av1C` record.

use bytes::{BufMut, Bytes, BytesMut};
use corenvr_media::{VideoCodec, VideoParameters};

use super::{BitReader, reduced};

/// OBU types (section 6.2.2).
#[allow(missing_docs)]
pub mod kind {
    pub const SEQUENCE_HEADER: u8 = 1;
    pub const TEMPORAL_DELIMITER: u8 = 2;
    pub const FRAME_HEADER: u8 = 3;
    pub const FRAME: u8 = 6;
    pub const TILE_LIST: u8 = 8;
    pub const PADDING: u8 = 15;
}

const HAS_SIZE: u8 = 0x02;
const HAS_EXTENSION: u8 = 0x04;
/// Bytes of the longest leb128 (section 4.10.5).
const LEB128_LEN_MAX: usize = 8;

/// An OBU taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Obu<'a> {
    /// The header byte as found.
    header: u8,
    extension: Option<u8>,
    /// What follows header and size.
    pub payload: &'a [u8],
}

impl<'a> Obu<'a> {
    /// Takes the first OBU of `data` and gives what is behind it. An OBU without size field reaches to the end.
    pub fn split(data: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&header, mut rest) = data.split_first()?;
        if header & 0x80 != 0 {
            return None; // obu_forbidden_bit
        }
        let mut extension = None;
        if header & HAS_EXTENSION != 0 {
            let (&byte, tail) = rest.split_first()?;
            (extension, rest) = (Some(byte), tail);
        }
        let len = if header & HAS_SIZE != 0 {
            read_leb128(&mut rest)?
        } else {
            rest.len()
        };
        let (payload, rest) = rest.split_at_checked(len)?;
        let obu = Self {
            header,
            extension,
            payload,
        };
        Some((obu, rest))
    }

    /// The type.
    pub const fn kind(&self) -> u8 {
        self.header >> 3 & 0x0F
    }

    /// Writes header and size field; the payload follows.
    pub fn write_head_with_size(&self, out: &mut BytesMut) {
        out.put_u8(self.header | HAS_SIZE);
        out.extend(self.extension);
        write_leb128(self.payload.len(), out);
    }

    /// Writes the header without size field, as RTP carries it; the payload follows.
    pub fn write_head(&self, out: &mut impl BufMut) {
        out.put_u8(self.header & !HAS_SIZE);
        if let Some(extension) = self.extension {
            out.put_u8(extension);
        }
    }

    /// Bytes that [`Self::write_head`] writes.
    pub fn head_len(&self) -> usize {
        1 + usize::from(self.extension.is_some())
    }

    /// Whether this frame (header) OBU starts a key frame (section 5.9.2).
    pub fn is_key_frame(&self) -> bool {
        // show_existing_frame 0, frame_type 0
        matches!(self.kind(), kind::FRAME | kind::FRAME_HEADER) && self.payload.first().is_some_and(|b| b & 0xE0 == 0)
    }
}

/// Takes a leb128 number off the front.
pub fn read_leb128(data: &mut &[u8]) -> Option<usize> {
    let mut value = 0u64;
    for i in 0..LEB128_LEN_MAX {
        let (&byte, rest) = data.split_first()?;
        *data = rest;
        value |= u64::from(byte & 0x7F) << (i * 7);
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok().map(|v| v as usize);
        }
    }
    None
}

fn write_leb128(mut value: usize, out: &mut BytesMut) {
    loop {
        let byte = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            out.put_u8(byte);
            return;
        }
        out.put_u8(byte | 0x80);
    }
}

/// What corenvr reads of a sequence header (section 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SequenceHeader {
    /// `seq_profile`.
    pub profile: u8,
    /// `seq_level_idx[0]`.
    pub level: u8,
    /// `seq_tier[0]`.
    pub tier: bool,
    /// Largest frame width.
    pub width: u32,
    /// Largest frame height.
    pub height: u32,
    /// From the timing info, in lowest terms.
    pub frame_rate: Option<(u32, u32)>,
    high_bit_depth: bool,
    twelve_bit: bool,
    monochrome: bool,
    subsampling_x: bool,
    subsampling_y: bool,
    sample_position: u8,
}

impl SequenceHeader {
    /// Parses the payload of a sequence header OBU.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut r = BitReader::new(payload);
        let r = &mut r;
        let mut header = Self {
            profile: r.bits(3)? as u8,
            ..Self::default()
        };
        r.bit()?; // still_picture
        let reduced_header = r.bit()?;
        if reduced_header {
            header.level = r.bits(5)? as u8;
        } else {
            header.read_operating_points(r)?;
        }
        let (width_bits, height_bits) = (r.bits(4)? + 1, r.bits(4)? + 1);
        header.width = r.bits(width_bits)? + 1;
        header.height = r.bits(height_bits)? + 1;
        skip_tools(r, reduced_header)?;
        header.read_color(r)?;
        Some(header)
    }

    fn read_operating_points(&mut self, r: &mut BitReader<'_>) -> Option<()> {
        let mut delay_bits = None;
        if r.bit()? {
            let (tick, scale) = (r.bits(32)?, r.bits(32)?);
            let ticks = if r.bit()? { r.ue()?.saturating_add(1) } else { 1 };
            self.frame_rate = tick.checked_mul(ticks).and_then(|t| reduced(scale, t));
            if r.bit()? {
                delay_bits = Some(r.bits(5)? as usize + 1);
                r.skip(32 + 5 + 5)?;
            }
        }
        let display_delay = r.bit()?;
        for point in 0..=r.bits(5)? {
            r.skip(12)?; // operating_point_idc
            let level = r.bits(5)? as u8;
            let tier = level > 7 && r.bit()?;
            if let Some(bits) = delay_bits
                && r.bit()?
            {
                r.skip(2 * bits + 1)?;
            }
            if display_delay && r.bit()? {
                r.skip(4)?;
            }
            if point == 0 {
                (self.level, self.tier) = (level, tier);
            }
        }
        Some(())
    }

    /// `color_config()` (section 5.5.2).
    fn read_color(&mut self, r: &mut BitReader<'_>) -> Option<()> {
        self.high_bit_depth = r.bit()?;
        self.twelve_bit = self.profile == 2 && self.high_bit_depth && r.bit()?;
        self.monochrome = self.profile != 1 && r.bit()?;
        let description = if r.bit()? { r.bits(24)? } else { 0x02_0202 };
        (self.subsampling_x, self.subsampling_y) = (true, true);
        if self.monochrome {
            return Some(());
        }
        // sRGB: BT.709 primaries, sRGB transfer, identity matrix.
        if description == 0x01_0D00 {
            (self.subsampling_x, self.subsampling_y) = (false, false);
            return Some(());
        }
        r.bit()?; // color_range
        match self.profile {
            0 => {}
            1 => (self.subsampling_x, self.subsampling_y) = (false, false),
            _ if self.twelve_bit => {
                self.subsampling_x = r.bit()?;
                self.subsampling_y = self.subsampling_x && r.bit()?;
            }
            _ => self.subsampling_y = false,
        }
        if self.subsampling_x && self.subsampling_y {
            self.sample_position = r.bits(2)? as u8;
        }
        Some(())
    }
}

/// The coding tools between the frame size and the colours.
fn skip_tools(r: &mut BitReader<'_>, reduced_header: bool) -> Option<()> {
    if !reduced_header && r.bit()? {
        r.skip(7)?; // frame id lengths
    }
    r.skip(3)?; // use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
    if !reduced_header {
        r.skip(4)?; // interintra, masked compound, warped motion, dual filter
        let order_hint = r.bit()?;
        if order_hint {
            r.skip(2)?;
        }
        let screen_content = r.bit()? || r.bit()?;
        if screen_content && !r.bit()? {
            r.skip(1)?; // seq_force_integer_mv
        }
        if order_hint {
            r.skip(3)?;
        }
    }
    r.skip(3) // superres, cdef, restoration
}

/// Makes the `av1C` record (AV1 in ISOBMFF section 2.3.3) and the parameters from a sequence header OBU.
pub fn parameters(sequence_header: &Obu<'_>) -> Option<VideoParameters> {
    let header = SequenceHeader::parse(sequence_header.payload)?;
    let mut extra = BytesMut::with_capacity(8 + sequence_header.payload.len());
    extra.put_u8(0x81);
    extra.put_u8((header.profile << 5) | header.level);
    let flags = [
        header.tier,
        header.high_bit_depth,
        header.twelve_bit,
        header.monochrome,
        header.subsampling_x,
        header.subsampling_y,
    ];
    let bits = flags.iter().fold(0, |bits, &flag| (bits << 1) | u8::from(flag));
    extra.put_u8((bits << 2) | header.sample_position);
    extra.put_u8(0);
    sequence_header.write_head_with_size(&mut extra);
    extra.put_slice(sequence_header.payload);
    Some(VideoParameters {
        codec: VideoCodec::Av1,
        extra: extra.freeze(),
        width: header.width,
        height: header.height,
        frame_rate: header.frame_rate,
    })
}

/// The sequence header of an `av1C` record, parsed.
pub fn record_header(record: &Bytes) -> Option<SequenceHeader> {
    let (obu, _) = Obu::split(record.get(4..)?)?;
    (obu.kind() == kind::SEQUENCE_HEADER).then(|| SequenceHeader::parse(obu.payload))?
}
