//! RTP and RTCP (RFC 3550): packets, reordering, statistics, depacketizers and packetizers.
//!
//! The way in is [`Packet::parse`] -> [`reorder::Reorder`] -> [`depacketize::Depacketizer`]; the way out is
//! [`packetize::Packetizer`]. What is inside a codec's bit stream is read in [`crate::bitstream`].

pub mod depacketize;
mod extended;
#[doc(hidden)]
pub mod fuzzing;
mod packet;
pub mod packetize;
pub mod reorder;
pub mod rtcp;

pub use extended::{ExtendedSequence, ExtendedTimestamp, SequenceUnwrapper, TimestampUnwrapper};
pub use packet::{Extension, Header, HeaderExtension, Packet, PacketError};
