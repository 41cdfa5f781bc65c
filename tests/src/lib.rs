//! What the end-to-end tests share: the daemon as a child process, cameras that are not our own code, real players, and frames to compare.
//!
//! A helper here panics with the whole story (command, output, log) when something outside misbehaves: it is only ever called from tests.
#![allow(clippy::unwrap_used)]

pub mod cameras;
pub mod daemon;
pub mod exposition;
pub mod frames;
pub mod gb28181;
pub mod http;
pub mod numbered;
pub mod players;
pub mod process;
pub mod rtmp;
pub mod rtsp;
pub mod sim;
pub mod trick;
pub mod units;
