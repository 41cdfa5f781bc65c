//! What is inside the codecs' bit streams: parameter sets, configuration records and headers. No RTP in here.
//!
//! Everything reads bytes from outside: wrong ones give `None`, never a panic.

pub mod aac;
pub mod adts;
pub mod av1;
mod bits;
mod depend;
pub mod fuzzing;
pub mod h264;
pub mod h265;
pub mod jpeg;
pub mod nal;
pub mod opus;

pub(crate) use bits::BitReader;
pub use depend::is_disposable;

/// A fraction in lowest terms; `None` if either part is 0.
pub(crate) fn reduced(numerator: u32, denominator: u32) -> Option<(u32, u32)> {
    if numerator == 0 || denominator == 0 {
        return None;
    }
    let (mut a, mut b) = (numerator, denominator);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    Some((numerator / a, denominator / a))
}

#[cfg(test)]
pub(crate) mod tests;
