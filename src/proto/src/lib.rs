//! Every wire protocol of corenvr as a sans-IO state machine: bytes and time go in, events and bytes come out.
//!
//! No runtime, no clock, no socket and no log in here. A driver in `recorder` or `playback` moves the bytes.

pub mod auth;
pub mod bitstream;
pub mod format;
pub mod gb28181;
pub mod http;
pub mod ps;
pub mod rtmp;
pub mod rtp;
pub mod rtsp;
pub mod sdp;
pub mod sip;
