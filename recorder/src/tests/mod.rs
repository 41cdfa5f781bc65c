//! The whole recorder against scripted cameras, over loopback sockets, onto a real directory; what was recorded is read back.

mod camera;
mod recording;
