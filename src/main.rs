//! The `lorad` binary.
fn main() {}
