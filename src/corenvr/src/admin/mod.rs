//! The local HTTP API: how the command line talks to the running recorder.
//!
//! It listens on a unix socket that only the service's user and root may open, so that no password is needed on the machine
//! itself. Exports are not made here: the answer of `/segments` names the files, and the command line reads them itself, in a
//! process of its own, so that a large export takes neither memory nor time from the recorder.

pub mod api;
mod backfill;
mod cameras;
pub mod client;
mod devices;
mod document;
mod http;
pub mod server;

pub use devices::zone;
