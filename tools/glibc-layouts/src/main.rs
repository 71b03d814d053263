//! Makes the per-version layout tables.
fn main() {}
