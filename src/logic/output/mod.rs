//! Captured output: lines, the kept tail, coalescing of small writes.

pub mod coalesce;
pub mod drain;
pub mod lines;
pub mod outage;
pub mod pieces;
pub mod tail;
