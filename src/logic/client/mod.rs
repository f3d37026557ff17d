//! What `check` and `wait` decide.

pub(crate) mod body;
pub(crate) mod ended;
pub(crate) mod waiting;
