//! wire protocols as sans-IO state machines.
