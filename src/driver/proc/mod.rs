//! Reads /proc.

pub(crate) mod process_usage;
pub(crate) mod procfs;
pub(crate) mod small_file;
