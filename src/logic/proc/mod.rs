//! Parsers for files under /proc.

pub mod stat;
