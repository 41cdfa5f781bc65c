//! H.265 (ITU-T H.265): NAL unit types, what corenvr needs of the parameter sets, and the `hvcC` record.

use bytes::{BufMut, Bytes};
use corenvr_media::{VideoCodec, VideoParameters};

use super::{
    BitReader,
    h264::{put_set, skip_vui_head, take_set},
    nal::rbsp_prefix,
    reduced,
};

/// NAL unit types (table 7-1).
#[allow(missing_docs)]
pub mod kind {
    /// The first of the intra random access pictures.
    pub const IRAP_FIRST: u8 = 16;
    /// The last, reserved ones included.
    pub const IRAP_LAST: u8 = 23;
    /// The last type that is a slice.
    pub const VCL_LAST: u8 = 31;
    pub const VPS: u8 = 32;
    pub const SPS: u8 = 33;
    pub const PPS: u8 = 34;
    pub const DELIMITER: u8 = 35;
    pub const SEI_PREFIX: u8 = 39;
    pub const SEI_SUFFIX: u8 = 40;
}

/// The longest parameter set that is read, in bytes; the rest of a longer one is ignored.
const PARAMETER_SET_READ_MAX: usize = 2048;
/// Bytes of a NAL unit header.
pub const HEADER_LEN: usize = 2;

/// The NAL unit type of the first header byte.
pub const fn nal_kind(header: u8) -> u8 {
    header >> 1 & 0x3F
}

/// What corenvr reads of a sequence parameter set (section 7.3.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sps {
    /// `sps_seq_parameter_set_id`, 0 to 15.
    pub id: u8,
    /// The 12 bytes from `general_profile_space` to `general_level_idc`, as `hvcC` repeats them.
    pub profile_tier_level: [u8; 12],
    /// Temporal layers, 1 to 7.
    pub temporal_layers: u8,
    /// `sps_temporal_id_nesting_flag`.
    pub temporal_nesting: bool,
    /// `chroma_format_idc`, 0 to 3.
    pub chroma_format: u8,
    /// Bits a luma sample.
    pub luma_bits: u8,
    /// Bits a chroma sample.
    pub chroma_bits: u8,
    /// Width after cropping.
    pub width: u32,
    /// Height after cropping.
    pub height: u32,
    /// From the VUI: `vui_time_scale` over `vui_num_units_in_tick`, in lowest terms.
    pub frame_rate: Option<(u32, u32)>,
}

impl Sps {
    /// Parses a NAL unit, header included. `None` if it is not an SPS or ends too early.
    pub fn parse(nal: &[u8]) -> Option<Self> {
        if nal_kind(*nal.first()?) != kind::SPS {
            return None;
        }
        let mut buffer = [0; PARAMETER_SET_READ_MAX];
        let mut r = BitReader::new(rbsp_prefix(nal.get(HEADER_LEN..)?, &mut buffer));
        let r = &mut r;
        r.skip(4)?; // sps_video_parameter_set_id
        let sub_layers = r.bits(3)?.min(6);
        let temporal_nesting = r.bit()?;
        let profile_tier_level = *r.bytes(12)?.first_chunk::<12>()?;
        skip_sub_layers(r, sub_layers)?;
        let id = at_most(r.ue()?, 15)? as u8;
        let chroma_format = at_most(r.ue()?, 3)? as u8;
        let separate_planes = chroma_format == 3 && r.bit()?;
        let (width, height) = read_size(r, if separate_planes { 0 } else { chroma_format })?;
        let luma_bits = 8 + at_most(r.ue()?, 8)? as u8;
        let chroma_bits = 8 + at_most(r.ue()?, 8)? as u8;
        Some(Self {
            id,
            profile_tier_level,
            temporal_layers: sub_layers as u8 + 1,
            temporal_nesting,
            chroma_format,
            luma_bits,
            chroma_bits,
            width,
            height,
            // What stands between is long; if it is broken, only the frame rate is missing.
            frame_rate: frame_rate(r, sub_layers),
        })
    }
}

fn at_most(value: u32, max: u32) -> Option<u32> {
    (value <= max).then_some(value)
}

/// The sub-layers' part of `profile_tier_level()` (section 7.3.3).
fn skip_sub_layers(r: &mut BitReader<'_>, sub_layers: u32) -> Option<()> {
    let mut skip = 0;
    for _ in 0..sub_layers {
        skip += if r.bit()? { 88 } else { 0 };
        skip += if r.bit()? { 8 } else { 0 };
    }
    if sub_layers > 0 {
        r.skip(2 * (8 - sub_layers as usize))?;
    }
    r.skip(skip)
}

fn read_size(r: &mut BitReader<'_>, chroma_array: u8) -> Option<(u32, u32)> {
    // Level 6.2 ends at 16 888 pixels a side.
    let (width, height) = (at_most(r.ue()?, 16_888)?, at_most(r.ue()?, 16_888)?);
    let (mut crop_x, mut crop_y) = (0, 0);
    if r.bit()? {
        let unit_x = if matches!(chroma_array, 1 | 2) { 2 } else { 1 };
        let unit_y = if chroma_array == 1 { 2 } else { 1 };
        crop_x = unit_x * (u64::from(r.ue()?) + u64::from(r.ue()?));
        crop_y = unit_y * (u64::from(r.ue()?) + u64::from(r.ue()?));
    }
    let cropped = |size: u32, crop| u64::from(size).checked_sub(crop).filter(|&s| s > 0).map(|s| s as u32);
    Some((cropped(width, crop_x)?, cropped(height, crop_y)?))
}

/// Reads on from behind the bit depths to the VUI's timing.
fn frame_rate(r: &mut BitReader<'_>, sub_layers: u32) -> Option<(u32, u32)> {
    let poc_bits = 4 + at_most(r.ue()?, 12)?;
    let orderings = if r.bit()? { sub_layers + 1 } else { 1 };
    for _ in 0..orderings * 3 + 6 {
        r.ue()?; // picture buffering of each layer; block and transform sizes
    }
    if r.bit()? && r.bit()? {
        skip_scaling_lists(r)?;
    }
    r.skip(2)?; // amp_enabled_flag, sample_adaptive_offset_enabled_flag
    if r.bit()? {
        r.skip(8)?;
        r.ue()?;
        r.ue()?;
        r.skip(1)?; // PCM
    }
    skip_reference_sets(r)?;
    if r.bit()? {
        for _ in 0..at_most(r.ue()?, 32)? {
            r.skip(poc_bits as usize + 1)?; // long-term reference pictures
        }
    }
    r.skip(2)?; // sps_temporal_mvp_enabled_flag, strong_intra_smoothing_enabled_flag
    if !r.bit()? {
        return None;
    }
    skip_vui_head(r)?;
    r.skip(3)?; // neutral_chroma_indication_flag, field_seq_flag, frame_field_info_present_flag
    if r.bit()? {
        for _ in 0..4 {
            r.ue()?; // default display window
        }
    }
    if !r.bit()? {
        return None;
    }
    let (tick, scale) = (r.bits(32)?, r.bits(32)?);
    reduced(scale, tick)
}

/// `scaling_list_data()` (section 7.3.4).
fn skip_scaling_lists(r: &mut BitReader<'_>) -> Option<()> {
    for size in 0..4u32 {
        for _ in (0..6).step_by(if size == 3 { 3 } else { 1 }) {
            if !r.bit()? {
                r.ue()?;
                continue;
            }
            if size > 1 {
                r.se()?;
            }
            for _ in 0..64.min(1 << (4 + (size << 1))) {
                r.se()?;
            }
        }
    }
    Some(())
}

/// The short-term reference picture sets (section 7.3.7).
fn skip_reference_sets(r: &mut BitReader<'_>) -> Option<()> {
    let mut previous = 0;
    for index in 0..at_most(r.ue()?, 64)? {
        if index != 0 && r.bit()? {
            r.skip(1)?;
            r.ue()?;
            let mut pictures = 0;
            for _ in 0..=previous {
                // used_by_curr_pic_flag, else use_delta_flag
                if r.bit()? || r.bit()? {
                    pictures += 1;
                }
            }
            previous = pictures;
        } else {
            let (negative, positive) = (at_most(r.ue()?, 16)?, at_most(r.ue()?, 16)?);
            for _ in 0..negative + positive {
                r.ue()?;
                r.skip(1)?;
            }
            previous = negative + positive;
        }
    }
    Some(())
}

/// The id of a VPS, SPS or PPS NAL unit.
pub fn parameter_set_id(nal: &[u8]) -> Option<u8> {
    let mut buffer = [0; PARAMETER_SET_READ_MAX];
    match nal_kind(*nal.first()?) {
        kind::VPS => nal.get(HEADER_LEN).map(|b| b >> 4),
        kind::SPS => Sps::parse(nal).map(|s| s.id),
        kind::PPS => {
            let id = BitReader::new(rbsp_prefix(nal.get(HEADER_LEN..)?, &mut buffer[..16])).ue()?;
            at_most(id, 63).map(|id| id as u8)
        }
        _ => None,
    }
}

/// Makes the `hvcC` record (ISO/IEC 14496-15 section 8.3.3.1) and the parameters. `None` if the first SPS cannot be read
/// or a kind of set is missing.
pub fn parameters(vps_list: &[&[u8]], sps_list: &[&[u8]], pps_list: &[&[u8]]) -> Option<VideoParameters> {
    let first = Sps::parse(sps_list.first()?)?;
    if vps_list.is_empty() || pps_list.is_empty() {
        return None;
    }
    let mut extra = vec![1];
    extra.put_slice(&first.profile_tier_level);
    extra.put_u16(0xF000); // min_spatial_segmentation_idc: not known
    extra.put_u8(0xFC); // parallelismType: not known
    extra.put_u8(0xFC | first.chroma_format);
    extra.put_u8(0xF8 | (first.luma_bits - 8));
    extra.put_u8(0xF8 | (first.chroma_bits - 8));
    extra.put_u16(0); // avgFrameRate: not said
    extra.put_u8((first.temporal_layers << 3) | (u8::from(first.temporal_nesting) << 2) | 3);
    extra.put_u8(3);
    for (kind, list) in [(kind::VPS, vps_list), (kind::SPS, sps_list), (kind::PPS, pps_list)] {
        extra.put_u8(kind); // array_completeness 0: sets may come in band too
        extra.put_u16(u16::try_from(list.len()).ok()?);
        for set in list {
            put_set(&mut extra, set)?;
        }
    }
    Some(VideoParameters {
        codec: VideoCodec::H265,
        extra: extra.into(),
        width: first.width,
        height: first.height,
        frame_rate: first.frame_rate,
    })
}

/// The parameter set NAL units of an `hvcC` record, in its order. `None` if it is cut off.
pub fn parameter_sets(record: &Bytes) -> Option<Vec<Bytes>> {
    let mut sets = Vec::new();
    let mut at = 23;
    for _ in 0..*record.get(22)? {
        let &[_, n0, n1] = record.get(at..)?.first_chunk::<3>()?;
        at += 3;
        for _ in 0..u16::from_be_bytes([n0, n1]) {
            sets.push(take_set(record, &mut at)?);
        }
    }
    Some(sets)
}
