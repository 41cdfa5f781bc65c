//! The vocabulary that every other crate speaks: frames, codec parameters, camera names and wall-clock time.
//!
//! Nothing in here does IO, reads a clock or knows a wire format.

mod codec;
mod frame;
mod name;
mod time;

pub use codec::{AudioCodec, AudioParameters, CodecParameters, VideoCodec, VideoParameters};
pub use frame::{Frame, TrackId};
pub use name::{CameraName, NameError};
pub use time::{ParseTimeError, TimeRange, WallTime};
