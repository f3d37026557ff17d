//! The only layer with `unsafe`, libc and a clock. It contains the system calls that rustix lacks and does not depend
//! on the rest of kapo; `driver` calls rustix directly.

mod arena;
pub mod arguments;
pub mod clock;
#[cfg(all(target_arch = "x86_64", any(target_env = "musl", test)))]
mod copy;
pub(crate) mod datagram;
pub mod environment;
pub mod group;
pub mod heap;
pub(crate) mod passrights;
pub(crate) mod peer;
pub(crate) mod pidfd;
pub(crate) mod resolve;
pub mod signal;
pub(crate) mod spawn;
pub(crate) mod stack;
pub mod stdio;
pub(crate) mod thread;
pub(crate) mod wait;
