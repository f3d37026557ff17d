//! What `check`, `wait`, `status` and `logs` decide and show.

pub(crate) mod body;
pub(crate) mod ended;
pub(crate) mod json;
pub(crate) mod logs;
pub(crate) mod status;
pub(crate) mod waiting;
pub(crate) mod words;
