//! kapo
fn main() {}
