//! MANSCDP: the XML bodies of MESSAGE, SUBSCRIBE and NOTIFY (GB/T 28181-2022 annex A), read leniently and written strictly.

mod item;
mod message;
mod read;
mod time;
mod write;
mod xml;

pub use item::{CatalogChange, CatalogEvent, CatalogItem, ItemStatus, RecordItem, RecordKind};
pub use message::{
    Alarm, AlarmQuery, Body, Command, Control, DeviceInfo, DeviceStatus, Message, Notify, Position, Query, RecordQuery,
    Response,
};
pub use time::{LocalTime, beijing};

/// The media type of these bodies; compared without regard to case.
pub const CONTENT_TYPE: &str = "Application/MANSCDP+xml";
/// The longest body that is read, in bytes; a longer one is refused. 10 000 items take about 5 MB.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most items that are kept of one body (the standard's own limit); further ones are counted as unreadable.
pub const ITEMS_MAX: usize = 10_000;

/// A body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ManscdpError {
    #[error("the peer's MANSCDP body is longer than {BODY_BYTES_MAX} bytes")]
    TooLong,
    #[error("the peer's MANSCDP body holds no XML element")]
    NoXml,
    #[error("the peer's MANSCDP body ends in the middle")]
    Truncated,
    #[error("the peer's MANSCDP body is no well-formed XML at byte {0} of its text")]
    Malformed(u64),
    #[error("the peer's MANSCDP body holds a document type, which no message needs")]
    DocumentType,
    #[error("the peer's MANSCDP body is nested too deeply")]
    TooDeep,
}

#[cfg(test)]
mod tests;
