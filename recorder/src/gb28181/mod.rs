//! GB28181 cameras: the SIP server on the control executor, and how cameras on their shards reach it.
//!
//! Devices come to us: they register with the [`Server`], which runs `corenvr_proto`'s `Platform` on its sockets. A camera asks it by a
//! [`Signalling`] link to be told when its channel can be invited, invites it to send to a media port of its shard, and ends
//! the session by dropping the link. Media never touches the control executor.

mod connections;
mod link;
mod ports;
mod server;
mod state;
mod view;

pub(crate) use link::{Answered, Link, Told};
pub use link::{Signalling, SignallingInbox, signalling};
pub(crate) use ports::{MediaPorts, PortLease};
pub use server::{Notice, Server, ServerConfig, ServerError};
pub use view::{ChannelView, DeviceView, RefusedView};
