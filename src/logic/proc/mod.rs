//! Parsers for files in /proc.

pub mod stat;
