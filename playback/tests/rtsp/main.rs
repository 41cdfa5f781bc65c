//! The RTSP server over real sockets: a scripted client that checks every packet, and real players where they are installed.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

mod archive_play;
mod bad_input;
mod bench;
mod client;
mod footage;
mod live_edge;
mod live_play;
mod onvif;
mod players;
mod server;
mod trick;
