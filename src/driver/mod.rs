//! Driver does: it owns mio and every descriptor, and takes no decision.

pub mod connection;
pub mod listener;
pub mod poll;
pub mod signals;
//! Does what logic decided: all descriptors, all I/O.
pub mod output;
pub mod sink;
pub mod terminal;
