//! Log records: timestamps, escapes, the logfmt line.

pub mod escape;
pub mod record;
pub mod timestamp;
