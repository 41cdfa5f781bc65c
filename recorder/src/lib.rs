//! cameras in, segments out.
