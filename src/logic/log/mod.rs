//! Log records: timestamps, escapes, the line in logfmt or JSON, and whether it goes to the journal.

pub(crate) mod escape;
pub(crate) mod journal;
pub(crate) mod record;
pub(crate) mod timestamp;
