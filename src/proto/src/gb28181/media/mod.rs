//! Media of a GB28181 session: the framing of RTP on TCP, and RTP packets made into access units, whichever of the ways a device chooses.

mod formats;
mod framing;
#[doc(hidden)]
pub mod fuzzing;
mod receiver;

pub use framing::TcpFraming;
pub use receiver::{MediaReceiver, PayloadFormat, Received, ReceiverCounts, Refused, Track};
