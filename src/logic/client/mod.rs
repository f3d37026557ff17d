//! What `check` and `wait` decide.

pub mod ended;
pub mod waiting;
