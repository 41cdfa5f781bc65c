//! The RTSP server over real sockets: a scripted client that checks every packet, and real players where they are installed.

mod archive_play;
mod bad_input;
mod bench;
mod client;
mod footage;
mod live_play;
mod players;
mod server;
