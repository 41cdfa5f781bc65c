//! H.264 (ITU-T H.264): NAL unit types, what corenvr needs of SPS, PPS and slice headers, and the `avcC` record.
//!
//! Cameras send sequence parameter sets with a level too low for their size, with bytes behind the end and with broken VUI; a
//! strict parser refuses those streams. This one reads what is needed and asks no more.

use bytes::{BufMut, Bytes};
use corenvr_media::{VideoCodec, VideoParameters};

use super::{BitReader, nal::rbsp_prefix, reduced};

/// NAL unit types (table 7-1).
#[allow(missing_docs)]
pub mod kind {
    pub const SLICE: u8 = 1;
    pub const PARTITION_A: u8 = 2;
    pub const PARTITION_C: u8 = 4;
    pub const IDR: u8 = 5;
    pub const SEI: u8 = 6;
    pub const SPS: u8 = 7;
    pub const PPS: u8 = 8;
    pub const DELIMITER: u8 = 9;
    pub const FILLER: u8 = 12;
}

/// The longest parameter set that is read, in bytes; the rest of a longer one is ignored.
const PARAMETER_SET_READ_MAX: usize = 1024;

/// The NAL unit type of a header byte.
pub const fn nal_kind(header: u8) -> u8 {
    header & 0x1F
}

/// What corenvr reads of a sequence parameter set (section 7.3.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sps {
    /// `seq_parameter_set_id`, 0 to 31.
    pub id: u8,
    /// `profile_idc`.
    pub profile: u8,
    /// The constraint flags' byte.
    pub constraints: u8,
    /// `level_idc`.
    pub level: u8,
    /// `chroma_format_idc`, 0 to 3.
    pub chroma_format: u8,
    /// Bits a luma sample.
    pub luma_bits: u8,
    /// Bits a chroma sample.
    pub chroma_bits: u8,
    /// Width after cropping.
    pub width: u32,
    /// Height after cropping, of a whole frame.
    pub height: u32,
    /// From the VUI: `time_scale` over twice `num_units_in_tick`, in lowest terms.
    pub frame_rate: Option<(u32, u32)>,
    /// `frame_mbs_only_flag`: no fields.
    pub frames_only: bool,
    separate_planes: bool,
    frame_num_bits: u32,
}

impl Sps {
    /// Parses a NAL unit, header included. `None` if it is not an SPS or ends too early.
    pub fn parse(nal: &[u8]) -> Option<Self> {
        if nal_kind(*nal.first()?) != kind::SPS {
            return None;
        }
        let mut buffer = [0; PARAMETER_SET_READ_MAX];
        let mut r = BitReader::new(rbsp_prefix(&nal[1..], &mut buffer));
        let r = &mut r;
        let (profile, constraints, level) = (r.bits(8)? as u8, r.bits(8)? as u8, r.bits(8)? as u8);
        let mut sps = Self {
            id: at_most(r.ue()?, 31)? as u8,
            profile,
            constraints,
            level,
            chroma_format: 1,
            luma_bits: 8,
            chroma_bits: 8,
            width: 0,
            height: 0,
            frame_rate: None,
            frames_only: true,
            separate_planes: false,
            frame_num_bits: 0,
        };
        if has_chroma_info(profile) {
            sps.read_chroma(r)?;
        }
        sps.frame_num_bits = 4 + at_most(r.ue()?, 12)?;
        skip_picture_order(r)?;
        r.ue()?; // max_num_ref_frames
        r.bit()?; // gaps_in_frame_num_value_allowed_flag
        sps.read_size(r)?;
        if r.bit()? {
            // A broken VUI costs the frame rate only.
            sps.frame_rate = frame_rate(r);
        }
        Some(sps)
    }

    fn read_chroma(&mut self, r: &mut BitReader<'_>) -> Option<()> {
        self.chroma_format = at_most(r.ue()?, 3)? as u8;
        if self.chroma_format == 3 {
            self.separate_planes = r.bit()?;
        }
        self.luma_bits = 8 + at_most(r.ue()?, 6)? as u8;
        self.chroma_bits = 8 + at_most(r.ue()?, 6)? as u8;
        r.bit()?; // qpprime_y_zero_transform_bypass_flag
        if r.bit()? {
            let lists = if self.chroma_format == 3 { 12 } else { 8 };
            for list in 0..lists {
                if r.bit()? {
                    skip_scaling_list(r, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
        Some(())
    }

    fn read_size(&mut self, r: &mut BitReader<'_>) -> Option<()> {
        // Level 6.2 ends at 16 384 pixels a side: 1024 macroblocks.
        let width = (at_most(r.ue()?, 1023)? + 1) * 16;
        let units = at_most(r.ue()?, 1023)? + 1;
        self.frames_only = r.bit()?;
        let fields = if self.frames_only { 1 } else { 2 };
        if !self.frames_only {
            r.bit()?; // mb_adaptive_frame_field_flag
        }
        r.bit()?; // direct_8x8_inference_flag
        let height = units * 16 * fields;
        let (mut crop_x, mut crop_y) = (0, 0);
        if r.bit()? {
            let array = if self.separate_planes { 0 } else { self.chroma_format };
            let unit_x = u64::from(if matches!(array, 1 | 2) { 2u32 } else { 1 });
            let unit_y = u64::from(if array == 1 { 2 * fields } else { fields });
            crop_x = unit_x * (u64::from(r.ue()?) + u64::from(r.ue()?));
            crop_y = unit_y * (u64::from(r.ue()?) + u64::from(r.ue()?));
        }
        self.width = cropped(width, crop_x)?;
        self.height = cropped(height, crop_y)?;
        Some(())
    }
}

fn cropped(size: u32, crop: u64) -> Option<u32> {
    u64::from(size).checked_sub(crop).filter(|&s| s > 0).map(|s| s as u32)
}

fn at_most(value: u32, max: u32) -> Option<u32> {
    (value <= max).then_some(value)
}

/// The profiles with `chroma_format_idc` in the SPS (section 7.3.2.1.1).
const fn has_chroma_info(profile: u8) -> bool {
    matches!(
        profile,
        100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
    )
}

fn skip_scaling_list(r: &mut BitReader<'_>, size: usize) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + r.se()?).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

fn skip_picture_order(r: &mut BitReader<'_>) -> Option<()> {
    match r.ue()? {
        0 => {
            r.ue()?;
        }
        1 => {
            r.bit()?;
            r.se()?;
            r.se()?;
            for _ in 0..at_most(r.ue()?, 255)? {
                r.se()?;
            }
        }
        2 => {}
        _ => return None,
    }
    Some(())
}

/// Reads the VUI (annex E) up to its timing.
fn frame_rate(r: &mut BitReader<'_>) -> Option<(u32, u32)> {
    skip_vui_head(r)?;
    if !r.bit()? {
        return None;
    }
    let (tick, scale) = (r.bits(32)?, r.bits(32)?);
    reduced(scale, tick.checked_mul(2)?)
}

/// The part of the VUI before the timing that H.264 (E.1.1) and H.265 (E.2.1) share.
pub(super) fn skip_vui_head(r: &mut BitReader<'_>) -> Option<()> {
    if r.bit()? && r.bits(8)? == 255 {
        r.skip(32)?; // sar_width, sar_height
    }
    if r.bit()? {
        r.skip(1)?; // overscan_appropriate_flag
    }
    if r.bit()? {
        r.skip(4)?; // video_format, video_full_range_flag
        if r.bit()? {
            r.skip(24)?; // colour description
        }
    }
    if r.bit()? {
        r.ue()?;
        r.ue()?; // chroma sample locations
    }
    Some(())
}

/// `pic_parameter_set_id` and `seq_parameter_set_id` of a PPS NAL unit (section 7.3.2.2).
pub fn pps_ids(nal: &[u8]) -> Option<(u8, u8)> {
    if nal_kind(*nal.first()?) != kind::PPS {
        return None;
    }
    let mut buffer = [0; 16];
    let mut r = BitReader::new(rbsp_prefix(&nal[1..], &mut buffer));
    Some((at_most(r.ue()?, 255)? as u8, at_most(r.ue()?, 31)? as u8))
}

/// The start of a slice header (section 7.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceStart {
    /// `first_mb_in_slice`; 0 at the first slice of a picture.
    pub first_mb: u32,
    /// Only intra coded macroblocks (I or SI).
    pub intra: bool,
    /// `frame_num` and `bottom_field_flag`, if the picture is a field.
    pub field: Option<(u32, bool)>,
}

impl SliceStart {
    /// Parses a slice NAL unit. Fields are told only with the `sps` of a stream that has them.
    pub fn parse(nal: &[u8], sps: Option<&Sps>) -> Option<Self> {
        let mut buffer = [0; 24];
        let mut r = BitReader::new(rbsp_prefix(nal.get(1..)?, &mut buffer));
        let first_mb = r.ue()?;
        let intra = matches!(r.ue()? % 5, 2 | 4);
        let field = sps.filter(|s| !s.frames_only).and_then(|s| field(&mut r, s));
        Some(Self { first_mb, intra, field })
    }
}

fn field(r: &mut BitReader<'_>, sps: &Sps) -> Option<(u32, bool)> {
    r.ue()?; // pic_parameter_set_id
    if sps.separate_planes {
        r.skip(2)?;
    }
    let frame_num = r.bits(sps.frame_num_bits)?;
    if r.bit()? { Some((frame_num, r.bit()?)) } else { None }
}

/// Whether an SEI NAL unit says that decoding may start at this picture (recovery point with `recovery_frame_cnt` 0, D.1.8).
pub fn is_recovery_point(nal: &[u8]) -> bool {
    let mut buffer = [0; 256];
    let mut rest = rbsp_prefix(nal.get(1..).unwrap_or(&[]), &mut buffer);
    // A message is a type and a size, each a run of 255s and a last byte, and the payload. 0x80 is the trailing bit.
    while rest.len() > 2 {
        let Some(kind) = sei_number(&mut rest) else {
            return false;
        };
        let Some(size) = sei_number(&mut rest) else {
            return false;
        };
        if kind == 6 {
            return BitReader::new(rest).ue() == Some(0);
        }
        rest = rest.get(size..).unwrap_or(&[]);
    }
    false
}

fn sei_number(rest: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    loop {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value += usize::from(byte);
        if byte != 255 {
            return Some(value);
        }
    }
}

/// Makes the `avcC` record (ISO/IEC 14496-15 section 5.3.3.1) and the parameters. `None` if the first SPS cannot be read,
/// or if there are more sets or longer ones than the record can hold.
pub fn parameters(sps_list: &[&[u8]], pps_list: &[&[u8]]) -> Option<VideoParameters> {
    let first = Sps::parse(sps_list.first()?)?;
    if sps_list.len() > 31 || pps_list.is_empty() || pps_list.len() > 255 {
        return None;
    }
    let mut extra = vec![
        1,
        first.profile,
        first.constraints,
        first.level,
        0xFF,
        0xE0 | sps_list.len() as u8,
    ];
    for set in sps_list {
        put_set(&mut extra, set)?;
    }
    extra.put_u8(pps_list.len() as u8);
    for set in pps_list {
        put_set(&mut extra, set)?;
    }
    if !matches!(first.profile, 66 | 77 | 88) {
        extra.put_u8(0xFC | first.chroma_format);
        extra.put_u8(0xF8 | (first.luma_bits - 8));
        extra.put_u8(0xF8 | (first.chroma_bits - 8));
        extra.put_u8(0);
    }
    Some(VideoParameters {
        codec: VideoCodec::H264,
        extra: extra.into(),
        width: first.width,
        height: first.height,
        frame_rate: first.frame_rate,
    })
}

pub(super) fn put_set(out: &mut Vec<u8>, set: &[u8]) -> Option<()> {
    out.put_u16(u16::try_from(set.len()).ok()?);
    out.put_slice(set);
    Some(())
}

/// The SPS and PPS NAL units of an `avcC` record, in its order. `None` if it is cut off.
pub fn parameter_sets(record: &Bytes) -> Option<Vec<Bytes>> {
    let mut sets = Vec::new();
    let mut at = 5;
    for mask in [0x1F, 0xFF] {
        let count = record.get(at)? & mask;
        at += 1;
        for _ in 0..count {
            sets.push(take_set(record, &mut at)?);
        }
    }
    Some(sets)
}

pub(super) fn take_set(record: &Bytes, at: &mut usize) -> Option<Bytes> {
    let &[l0, l1] = record.get(*at..)?.first_chunk::<2>()?;
    let start = *at + 2;
    let end = start + usize::from(u16::from_be_bytes([l0, l1]));
    (end <= record.len() && end > start).then(|| {
        *at = end;
        record.slice(start..end)
    })
}
