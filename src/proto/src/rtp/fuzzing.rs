//! Entry points for the fuzzers.
