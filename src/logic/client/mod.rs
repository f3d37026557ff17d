//! The decisions and texts of `check`, `wait`, `status` and `logs`.

pub(crate) mod body;
pub(crate) mod ended;
pub(crate) mod format;
pub(crate) mod json;
pub(crate) mod logs;
pub(crate) mod status;
pub(crate) mod until;
pub(crate) mod waiting;
