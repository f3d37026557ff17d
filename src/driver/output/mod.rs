//! Captured output: the command's pipes, and our own stdout and stderr.

pub mod capture;
pub mod sink;
pub mod stream;
