//! pinned io_uring executors and the messages between them.
