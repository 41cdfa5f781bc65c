//! The HTTP API of the appliance: for the command line on a unix socket, for people and programs on the addresses of `[http]`.
//!
//! A request goes through `listen` (how many connections), `server` (sizes, headers), `caller` (who asks), `routes` (whether they may)
//! and only then to the handler of its resource. Everything runs on the control executor; what blocks is handed on. What is answered
//! is described in `openapi.json`, which tests compare with the table of routes and with what is truly served.

pub mod api;
mod backfill;
pub mod caller;
mod camera_changes;
mod cameras;
pub mod client;
pub mod clip;
mod devices;
mod document;
pub mod health;
pub mod http;
pub mod listen;
pub mod metrics;
pub mod routes;
mod server;
mod site;
pub mod users;

pub use devices::zone;
