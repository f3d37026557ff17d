//! `kapo watch`: scans of /proc, pidfds and process events.

pub(crate) mod mode;
pub(crate) mod process_events;
pub(crate) mod watcher;
