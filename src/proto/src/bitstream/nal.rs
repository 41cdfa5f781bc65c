//! NAL units of H.264 and H.265 as byte strings: start codes, length prefixes, emulation prevention.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// Bytes of the length before each NAL unit in `corenvr_media::Frame::data`.
pub const LENGTH_LEN: usize = 4;

/// The NAL units of an access unit in the 4-byte length layout. Ends early, with an error, at a length that is wrong.
pub fn split_lengths(mut data: &[u8]) -> impl Iterator<Item = Result<&[u8], BadLength>> {
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let nal = data
            .split_first_chunk::<LENGTH_LEN>()
            .and_then(|(length, rest)| rest.split_at_checked(u32::from_be_bytes(*length) as usize));
        match nal {
            Some((nal, rest)) if !nal.is_empty() => {
                data = rest;
                Some(Ok(nal))
            }
            _ => {
                data = &[];
                Some(Err(BadLength))
            }
        }
    })
}

/// A NAL unit's length is 0 or more than what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a NAL unit length that does not fit its access unit")]
pub struct BadLength;

/// Where the next start code `00 00 01` is.
pub(crate) fn find_start_code(data: &[u8]) -> Option<usize> {
    static START_CODE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(&[0, 0, 1]));
    START_CODE.find(data)
}

/// The NAL units of an Annex B byte stream (H.264 annex B), without the zeros around them. What stands before the first start
/// code counts as a NAL unit too.
pub(crate) fn split_annex_b(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        loop {
            let data = rest?;
            let (nal, after) = match find_start_code(data) {
                Some(at) => (&data[..at], Some(&data[at + 3..])),
                None => (data, None),
            };
            rest = after;
            let nal = trim_zeros(nal);
            if !nal.is_empty() {
                return Some(nal);
            }
        }
    })
}

/// Without zeros at the end, which are never part of a NAL unit (H.264 section 7.4.1).
pub(crate) fn trim_zeros(mut nal: &[u8]) -> &[u8] {
    while let [rest @ .., 0] = nal {
        nal = rest;
    }
    nal
}

/// The first bytes of a NAL unit's payload with emulation prevention removed; at most `out.len()` of them.
pub(crate) fn rbsp_prefix<'a>(nal: &[u8], out: &'a mut [u8]) -> &'a [u8] {
    let mut len = 0;
    let mut zeros = 0;
    for &byte in nal {
        if len == out.len() {
            break;
        }
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out[len] = byte;
        len += 1;
    }
    &out[..len]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annex_b_is_split_with_both_start_codes_and_stray_zeros() {
        let stream = [
            0, 0, 0, 1, 0x67, 1, 0, 0, 0, 0, 1, 0x68, 2, 0, 0, 1, 0, 0, 1, 0x65, 0, 3, 0,
        ];
        let nals: Vec<_> = split_annex_b(&stream).collect();
        assert_eq!(nals, [&[0x67, 1][..], &[0x68, 2], &[0x65, 0, 3]]);
        assert_eq!(split_annex_b(&[0x65, 0, 0, 3, 1]).count(), 1);
        assert_eq!(split_annex_b(&[0, 0, 1]).count(), 0);
    }

    #[test]
    fn lengths_that_do_not_fit_end_the_split() {
        let good: Vec<_> = split_lengths(&[0, 0, 0, 1, 9, 0, 0, 0, 2, 8, 7]).collect();
        assert_eq!(good, [Ok(&[9][..]), Ok(&[8, 7])]);
        for bad in [&[0, 0, 0, 0][..], &[0, 0, 0, 2, 1], &[0, 0, 1], &[255; 5]] {
            assert_eq!(split_lengths(bad).collect::<Vec<_>>(), [Err(BadLength)]);
        }
    }

    #[test]
    fn emulation_prevention_is_removed() {
        let mut out = [0; 8];
        assert_eq!(
            rbsp_prefix(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 9, 9, 9], &mut out),
            [0, 0, 1, 0, 0, 0, 0, 9]
        );
    }
}
