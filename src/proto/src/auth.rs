//! Basic and Digest authentication, both sides.
