//! `kapo watch`: scans, pidfds and process events.

pub mod mode;
pub mod process_events;
pub mod watcher;
