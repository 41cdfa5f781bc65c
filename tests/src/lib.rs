//! end-to-end tests, crash tests, benches.
