//! Reads /proc.

pub mod process_usage;
pub mod procfs;
