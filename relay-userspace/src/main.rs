//! Branchline.
fn main() {}
