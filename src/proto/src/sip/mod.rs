//! SIP (RFC 3261) as far as cameras and the platforms that record them speak it: messages, addresses, transactions, dialogs.
//!
//! Nothing in here knows GB28181; the machine that uses it is in [`crate::gb28181::platform`].

pub mod decoder;
pub mod dialog;
pub mod fuzzing;
pub mod header;
pub mod message;
mod parse;
mod timers;
pub mod transaction;

pub use decoder::{DecodeError, Decoder};
pub use dialog::Dialog;
pub use header::{CSeq, NameAddr, Uri, Via};
pub use message::{Message, Method, Request, Response, reason};
pub use parse::{Fault, parse_datagram};
pub(crate) use timers::Timers;
pub use transaction::{ClientTransactions, Outcome, Responses, TransactionId};

/// Names and values of header fields, in the order of the wire. The compact forms of names (RFC 3261 section 7.3.3) are written out.
pub type Headers = crate::rtsp::Headers;

/// The most bytes from the first line to the empty line. More is malformed.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The largest body that is read: a catalog of some thousand channels in one message. More is malformed.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// The most headers of a message. More is malformed.
pub const HEADERS_MAX: usize = 64;
/// The longest request URI, in bytes. A longer one is malformed.
pub const URI_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests;
