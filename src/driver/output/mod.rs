//! Captured output: the command's pipes, and kapo's own stdout and stderr.

pub(crate) mod capture;
pub(crate) mod sink;
pub(crate) mod stream;
