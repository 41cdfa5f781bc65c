//! GB/T 28181: what a Chinese video surveillance platform and its devices say to each other, from both sides.
//!
//! The bodies stand here: identities, camera URLs, MANSCDP (XML), SDP, MANSRTSP and the PTZ command. All of them are pure
//! functions between bytes and types; the dialogue that carries them is in `platform`, the media in `media`.

#[doc(hidden)]
pub mod fuzzing;
pub mod id;
pub mod manscdp;
pub mod mansrtsp;
pub mod media;
pub mod platform;
pub mod ptz;
pub mod sdp;
pub mod url;

pub use id::{DeviceId, DeviceIdError};
pub use ptz::PtzCommand;
pub use sdp::{MediaTransport, StreamChoice};
pub use url::{Channel, Gb28181Url, Gb28181UrlError};
