//! What `check` and `wait` decide.

pub(crate) mod ended;
pub(crate) mod waiting;
