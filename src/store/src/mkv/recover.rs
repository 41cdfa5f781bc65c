//! What a crash leaves behind: finds the whole clusters of an open file and finishes it.

/// A stretch of a file that holds no whole cluster, between others that are whole. It was made a Void: the bytes are still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Where it starts.
    pub offset: u64,
    /// How long it is.
    pub len: u64,
}
