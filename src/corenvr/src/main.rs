//! The corenvr appliance.
fn main() {}
