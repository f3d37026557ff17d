//! Driver does: it owns mio and every descriptor, and takes no decision.

pub mod connection;
pub mod listener;
//! Does what logic decided: all descriptors, all I/O.
pub mod sink;
