//! SDP: what a camera offers and what the server describes.
