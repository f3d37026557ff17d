//! Log records: timestamps, escapes, the logfmt line.

pub(crate) mod escape;
pub(crate) mod record;
pub(crate) mod timestamp;
