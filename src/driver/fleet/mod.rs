//! Runs `kapo fleet` on the loop: an HTTP server for a folder of kapos.

pub(crate) mod mode;
mod proxy;
mod site;

/// How many descriptors are needed besides those of the connections: two for each request that is passed through, and
/// those of the queries of one list.
pub(crate) const DESCRIPTORS: usize = 2 * proxy::MOST + 128;
