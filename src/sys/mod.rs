//! Sys calls the kernel: the only place for `unsafe`, for libc and for reading clocks. It knows nothing of kapo. What
//! rustix offers is called directly by `driver`; here is what it lacks.

pub mod arena;
pub mod arguments;
pub mod clock;
pub mod datagram;
pub mod environment;
pub mod group;
pub mod passrights;
pub mod pidfd;
pub mod resolve;
pub mod signal;
pub mod spawn;
pub mod stack;
pub mod stdio;
pub mod wait;
