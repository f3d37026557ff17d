//! The command under `run` and `supervise`: start, signals, terminal, and what the kernel reports about it.

pub mod cgroup;
pub mod directory;
pub mod job;
pub mod leftover_group;
pub mod oom;
pub mod parent_death;
pub mod program;
pub mod signals;
pub mod terminal;
pub mod termination_log;
