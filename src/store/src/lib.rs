//! the archive - segments, index, timeline, recovery.
