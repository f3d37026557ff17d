//! Captured output: lines, the tail that is kept, coalescing of small writes.

pub mod batch;
pub(crate) mod coalesce;
pub(crate) mod drain;
pub(crate) mod last_line;
pub mod lines;
pub(crate) mod loss;
pub(crate) mod outage;
pub(crate) mod pieces;
pub(crate) mod policy;
pub(crate) mod ready_line;
pub(crate) mod tail;
