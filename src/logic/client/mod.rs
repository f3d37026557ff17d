//! The decisions and texts of `check`, `wait`, `status`, `logs` and `ls`.

pub(crate) mod body;
pub(crate) mod ended;
pub(crate) mod format;
pub(crate) mod json;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod status;
pub(crate) mod until;
pub(crate) mod waiting;
