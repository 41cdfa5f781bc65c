//! How a connection with a camera ends: what kind of end it was, and in words.

/// What kind of end; the camera's next step hangs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndKind {
    /// As asked.
    Stopped,
    /// The sink has enough.
    Done,
    Unreachable,
    Unauthorized,
    /// The camera knows the user and denies the stream, or has no such stream.
    NotFound,
    NoVideo,
    TransportRefused,
    /// Playing, and not one packet came within the time after which another transport is tried.
    NoPacket,
    Silent,
    NeedKeyFrame,
    /// It does not answer OPTIONS; without them it may.
    OptionsUnanswered,
    Protocol,
    Closed,
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub kind: EndKind,
    /// In words, with the remedy where there is one.
    pub reason: String,
}

impl End {
    pub fn new(kind: EndKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
        }
    }
}
