//! MPEG program streams (ISO/IEC 13818-1 clause 2.5) as GB28181 devices send them: bytes in, access units out.
//!
//! [`Demuxer`] is the way in. What devices do beside the standard, and what is made of it:
//!
//! | deviation | here |
//! |---|---|
//! | packets cut anywhere | any byte boundary will do; headers and start codes are put together |
//! | a map that is missing or wrong, H.265 called H.264 | parameter sets alone decide the codec of video |
//! | a picture in several PES packets, the time in the first or in each | a picture ends where the time changes |
//! | two pictures with one time | the second begins at its first slice |
//! | PES packets without a length | end at the next start code of the system layer |
//! | no time at all | the time of the pack's RTP packet; if that never moves, the pack's clock reference |
//! | pack stuffing that looks like start codes | is skipped by its length, never searched |
//! | private streams, padding, system headers | are skipped by their length |
//! | sound without a map | ADTS where headers fill the packet, else G.711 A-law |

mod demuxer;
#[doc(hidden)]
pub mod fuzzing;
mod header;
mod sound;
mod video;

pub use demuxer::Demuxer;
pub(crate) use sound::AdtsFrames;
pub(crate) use video::Damage;

/// Which of a program's streams a unit is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum StreamKind {
    Video,
    Audio,
}

/// Ticks a second of every time stamp of a program stream.
pub const CLOCK_RATE: u32 = 90_000;

#[cfg(test)]
pub(crate) mod tests;
