//! Sys calls the kernel: the only place for `unsafe`, for libc and for reading clocks. It knows nothing of kapo. What
//! rustix offers is called directly by `driver`; here is what it lacks.

pub mod arena;
pub mod arguments;
pub mod clock;
pub(crate) mod datagram;
pub mod environment;
pub mod group;
pub(crate) mod passrights;
pub(crate) mod pidfd;
pub(crate) mod resolve;
pub mod signal;
pub(crate) mod spawn;
pub(crate) mod stack;
pub mod stdio;
pub(crate) mod wait;
