//! Driver does: it owns mio and every descriptor, and takes no decision.

pub mod capture;
pub mod connection;
pub mod listener;
pub mod output;
pub mod poll;
pub mod program;
pub mod server;
pub mod signals;
pub mod sink;
pub mod terminal;
//! Driver does: it owns every descriptor and takes no decision.

pub mod cgroup;
pub mod client;
pub mod sample;
